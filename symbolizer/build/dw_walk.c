// SPDX-License-Identifier: Apache-2.0
/*
 * The walk visits every DIE of a unit in order with an explicit stack, and looks at two kinds only: DW_TAG_subprogram and
 * DW_TAG_inlined_subroutine. Everything else is stepped over at the speed of its compiled abbreviation.
 *
 * The chain of an address is the innermost DIE of these kinds that covers it and its ancestors up to the first subprogram,
 * whether or not those cover it too. So a level (an open DIE of these kinds that has children) becomes a node only when itself
 * or a descendant has code: 5 of 6 subprograms are declarations or were discarded by the linker.
 *
 * Names: DW_AT_linkage_name, else DW_AT_name, each taken from the first DIE that has it along DW_AT_specification and
 * DW_AT_abstract_origin, in whatever unit that is, of this file or its supplement (dwz). Calls of one function share the origin, so functions are kept by its offset.
 *
 * Source: DWARF 5, 3.3.
 */
#include "symbolizer/build/dw_walk.h"

#include "symbolizer/build/dw_const.h"
#include "symbolizer/table/table.h"

#include <inttypes.h>

/* What is gathered along a chain of origins. */
struct naming {
	const char *linkage_name, *name;
	uint64_t start_line, decl_file;
	bool linkage_name_in_info, name_in_info; /* the text lies in .debug_info, which is freed before the names are used */
	bool has_start_line, has_decl_file;
};

static void note_damage(struct walk *walk, struct err *e)
{
	walk->damaged++;
	if (walk->first_damage)
		err_free(e);
	else
		walk->first_damage = e;
}

static const char *take_name(const struct dw *dw, const struct dw_unit *unit, const struct dw_value *value, struct walk *walk)
{
	const char *text = dw_text(dw, unit, value);

	/* That there is no supplement is told once for the whole file. */
	bool elsewhere = !dw->supplement && dw_is_supplementary(value);
	if (!text && !elsewhere)
		note_damage(walk, err_new(ERR_FORMAT, "%s+0x%" PRIx64 ": a name of the unit there leads nowhere (form 0x%x, 0x%" PRIx64 ")",
			dw->sections.info.place, unit->offset, value->form, value->value));
	return text;
}

/* Takes from one DIE what those before it did not have. @p home is the unit that is being walked. */
static void gather(const struct dw *dw, const struct dw_unit *unit, const struct dw_unit *home, const struct dw_die *die,
	struct naming *naming, struct walk *walk)
{
	if (!naming->linkage_name && dw_has(die, DW_SLOT_LINKAGE_NAME)) {
		naming->linkage_name = take_name(dw, unit, &die->values[DW_SLOT_LINKAGE_NAME], walk);
		naming->linkage_name_in_info = die->values[DW_SLOT_LINKAGE_NAME].form == DW_FORM_string;
	}
	if (!naming->name && dw_has(die, DW_SLOT_NAME)) {
		naming->name = take_name(dw, unit, &die->values[DW_SLOT_NAME], walk);
		naming->name_in_info = die->values[DW_SLOT_NAME].form == DW_FORM_string;
	}
	if (!naming->has_start_line && dw_has(die, DW_SLOT_DECL_LINE))
		naming->has_start_line = dw_constant(&die->values[DW_SLOT_DECL_LINE], &naming->start_line);
	if (!naming->has_decl_file && unit == home && dw_has(die, DW_SLOT_DECL_FILE))
		naming->has_decl_file = dw_constant(&die->values[DW_SLOT_DECL_FILE], &naming->decl_file);
}

static bool is_complete(const struct naming *naming)
{
	return naming->linkage_name && naming->has_start_line;
}

/* Reads the DIE at an offset of .debug_info. False when there is none of interest. */
static bool read_die_at(const struct dw *dw, const struct dw_unit *unit, uint64_t offset, struct dw_die *ret)
{
	struct reader r = dw_unit_reader(dw, unit, offset);
	const struct dw_abbrev *abbrev = dw_abbrev_find(unit->abbrevs, reader_uleb(&r));

	if (r.failed || !abbrev)
		return false;
	dw_read_die(unit, abbrev, &r, ret);
	return !r.failed;
}

/*
 * Pushes where a DIE refers to: what is pushed last is looked at first, so the specification goes before the origin.
 * @p within: DW_IN_SUPPLEMENT when the DIE lies there, where every reference stays.
 */
static size_t push_references(const struct dw_die *die, uint64_t within, uint64_t *pending, size_t count)
{
	static const enum dw_slot slots[] = {DW_SLOT_ORIGIN, DW_SLOT_SPECIFICATION};

	for (size_t i = 0; i < ARRAY_SIZE(slots); i++)
		if (dw_has(die, slots[i]) && count < DW_ORIGIN_MAX && dw_reference(&die->values[slots[i]], &pending[count]))
			pending[count++] |= within;
	return count;
}

/* One DIE of a chain of origins, looked up. */
struct place {
	const struct dw *dw; /* this file's or its supplement's */
	const struct dw_unit *unit;
};

static bool find_place(const struct dw *dw, const struct dw_unit *home, uint64_t at, struct place *ret)
{
	uint64_t offset = at & ~DW_IN_SUPPLEMENT;

	ret->dw = at & DW_IN_SUPPLEMENT ? dw->supplement : dw;
	if (ret->dw == dw && offset >= home->die_offset && offset < home->end)
		ret->unit = home;
	else
		ret->unit = ret->dw ? dw_unit_at(ret->dw, offset) : NULL;
	return ret->unit != NULL;
}

/* Follows references from @p offset, or from @p first when it is not NULL. Cycles end at DW_ORIGIN_MAX DIEs. */
static void resolve(const struct dw *dw, const struct dw_unit *home, const struct dw_die *first, uint64_t offset,
	struct naming *naming, struct walk *walk)
{
	uint64_t pending[DW_ORIGIN_MAX] = {offset};
	size_t count = 1;
	struct dw_die die;

	if (first) {
		gather(dw, home, home, first, naming, walk);
		count = push_references(first, 0, pending, 0);
	}
	for (unsigned visited = 0; count > 0 && !is_complete(naming); visited++) {
		uint64_t at = pending[--count], die_offset = at & ~DW_IN_SUPPLEMENT;
		struct place place;
		if ((at & DW_IN_SUPPLEMENT) && !dw->supplement)
			continue;
		bool found = find_place(dw, home, at, &place);
		if (visited == DW_ORIGIN_MAX || !found || !read_die_at(place.dw, place.unit, die_offset, &die)) {
			note_damage(walk, err_new(ERR_FORMAT, "%s+0x%" PRIx64 ": %s", place.dw->sections.info.place, die_offset,
				visited == DW_ORIGIN_MAX ? "a cycle of origins" : "a reference leads here, where nothing is"));
			return;
		}
		gather(place.dw, place.unit, home, &die, naming, walk);
		count = push_references(&die, at & DW_IN_SUPPLEMENT, pending, count);
	}
}

static struct err *add_function(struct dw *dw, const struct naming *naming, struct walk *walk, uint32_t *ret)
{
	const char *name = naming->linkage_name ? naming->linkage_name : naming->name;
	bool in_info = naming->linkage_name ? naming->linkage_name_in_info : naming->name_in_info;
	struct walk_function function = {.name = name ? name : "",
		.start_line = naming->start_line > UINT32_MAX ? 0 : (uint32_t)naming->start_line,
		.decl_file = naming->has_decl_file && naming->decl_file < WALK_NONE ? (uint32_t)naming->decl_file : WALK_NONE};

	if (name && in_info) {
		function.name = NULL;
		function.text_offset = (uint32_t)walk->text.len;
		size_t room = walk->text.cap;
		TRY(buf_append(&walk->text, name, strlen(name) + 1));
		TRY(account_grown(dw->account, room, walk->text.cap));
	}
	TRY(ARRAY_ROOM(dw->account, &walk->functions, 1));
	*ret = (uint32_t)walk->functions.count;
	walk->functions.items[walk->functions.count++] = function;
	return NULL;
}

/* The function of a DIE. One that says nothing itself is the function that it refers to. */
static struct err *function_of(struct dw *dw, const struct dw_unit *unit, const struct dw_die *die, struct walk *walk, uint32_t *ret)
{
	const uint32_t own = 1u << DW_SLOT_NAME | 1u << DW_SLOT_LINKAGE_NAME | 1u << DW_SLOT_DECL_LINE;
	bool both = dw_has(die, DW_SLOT_ORIGIN) && dw_has(die, DW_SLOT_SPECIFICATION);
	struct naming naming = {.linkage_name = NULL};
	uint64_t pending[DW_ORIGIN_MAX], known;

	if ((die->present & own) || both || push_references(die, 0, pending, 0) == 0) {
		resolve(dw, unit, die, 0, &naming, walk);
		return add_function(dw, &naming, walk, ret);
	}
	if (hmap_get(&walk->origins, pending[0], &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	resolve(dw, unit, NULL, pending[0], &naming, walk);
	TRY(add_function(dw, &naming, walk, ret));
	return hmap_set(&walk->origins, pending[0], *ret);
}

static uint32_t constant_of(const struct dw_die *die, enum dw_slot slot)
{
	uint64_t value;

	if (!dw_has(die, slot) || !dw_constant(&die->values[slot], &value) || value > UINT32_MAX)
		return 0;
	return (uint32_t)value;
}

/* Where a concrete function is entered: DW_AT_entry_pc (an address, or an offset from its base), else its first range. */
static uint64_t entry_of(const struct dw *dw, const struct dw_unit *unit, const struct dw_die *die, uint64_t first)
{
	uint64_t entry;

	if (!dw_has(die, DW_SLOT_ENTRY_PC))
		return first;
	if (dw_address(dw, unit, &die->values[DW_SLOT_ENTRY_PC], &entry))
		return entry;
	return dw_constant(&die->values[DW_SLOT_ENTRY_PC], &entry) ? first + entry : first;
}

static struct err *add_node(struct dw *dw, const struct dw_unit *unit, const struct dw_die *die, uint32_t parent, struct walk *walk, uint32_t *ret)
{
	struct walk_node node = {.parent = parent};

	TRY(function_of(dw, unit, die, walk, &node.function));
	if (parent != WALK_NONE) {
		node.call_file = constant_of(die, DW_SLOT_CALL_FILE);
		node.call_line = constant_of(die, DW_SLOT_CALL_LINE);
		node.call_column = constant_of(die, DW_SLOT_CALL_COLUMN);
		walk->inline_nodes++;
	} else if (walk->list.count > 0) {
		node.entry_vaddr = entry_of(dw, unit, die, walk->list.items[0].low);
	}
	if (walk->nodes.count >= WALK_NONE)
		return err_new(ERR_LIMIT, "too many functions in one unit");
	TRY(ARRAY_ROOM(dw->account, &walk->nodes, 1));
	*ret = (uint32_t)walk->nodes.count;
	walk->nodes.items[walk->nodes.count++] = node;
	return NULL;
}

/* The node of the innermost level, made now if need be, those of its ancestors first. WALK_NONE: there is no level. */
static struct err *ensure_node(struct dw *dw, const struct dw_unit *unit, struct walk *walk, uint32_t *ret)
{
	size_t count = walk->levels.count, first = count;
	struct walk_level *levels = walk->levels.items;
	struct dw_die die;

	*ret = WALK_NONE;
	while (first > 0 && levels[first - 1].node == WALK_NONE) {
		first--;
		if (!levels[first].inlined)
			break;
	}
	for (size_t i = first; i < count; i++) {
		uint32_t parent = i > 0 && levels[i].inlined ? levels[i - 1].node : WALK_NONE;
		if (levels[i].chain > TABLE_MAX_DEPTH) {
			levels[i].node = parent;
			continue;
		}
		if (!read_die_at(dw, unit, levels[i].die_offset, &die))
			return err_new(ERR_FORMAT, "%s+0x%" PRIx64 ": cannot be read again", dw->sections.info.place, levels[i].die_offset);
		TRY(add_node(dw, unit, &die, parent, walk, &levels[i].node));
	}
	if (count > 0)
		*ret = levels[count - 1].node;
	return NULL;
}

/* Reads the ranges of a DIE into walk->list and leaves those that are code. A damaged list counts as none, a reversed range too. */
static struct err *live_ranges(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, const struct dw_die *die, struct walk *walk)
{
	size_t live = 0;

	walk->list.count = 0;
	struct err *e = dw_die_ranges(dw, unit, die, &walk->list);
	if (e && err_code(e) != ERR_FORMAT)
		return e;
	if (e) {
		note_damage(walk, e);
		walk->list.count = 0;
	}
	size_t reversed = dw_drop_reversed(&walk->list);
	if (reversed > 0)
		note_damage(walk, err_new(ERR_FORMAT, "%s+0x%" PRIx64 ": in this unit, %zu ranges of a function end before they begin",
					  dw->sections.info.place, unit->offset, reversed));
	for (size_t i = 0; i < walk->list.count; i++)
		if (elffile_is_code(code, walk->list.items[i].low))
			walk->list.items[live++] = walk->list.items[i];
	walk->tombstones += walk->list.count - live;
	walk->list.count = live;
	return NULL;
}

static struct err *add_ranges(struct dw *dw, uint32_t node, struct walk *walk)
{
	TRY(ARRAY_ROOM(dw->account, &walk->ranges, walk->list.count));
	for (size_t i = 0; i < walk->list.count; i++)
		walk->ranges.items[walk->ranges.count++] = (struct paint_range){
			.low = walk->list.items[i].low, .high = walk->list.items[i].high, .node = node};
	return NULL;
}

/* A subprogram or inlined call at @p offset. @p level becomes what its children see. */
static struct err *visit(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, const struct dw_die *die,
	struct walk_level *level, struct walk *walk)
{
	uint32_t parent = WALK_NONE;

	TRY(live_ranges(dw, unit, code, die, walk));
	if (walk->list.count == 0)
		return NULL;
	if (level->inlined && walk->levels.count > 0) {
		size_t live = walk->list.count;
		walk->list.count = 0; /* ancestors without code have no entry */
		TRY(ensure_node(dw, unit, walk, &parent));
		walk->list.count = live;
	}
	if (level->chain > TABLE_MAX_DEPTH && parent != WALK_NONE) {
		walk->cut_chains++;
		level->node = parent;
	} else {
		TRY(add_node(dw, unit, die, parent, walk, &level->node));
	}
	return add_ranges(dw, level->node, walk);
}

static struct walk_level new_level(const struct walk *walk, uint64_t depth, uint64_t offset, bool inlined)
{
	struct walk_level level = {.depth = depth, .die_offset = offset, .node = WALK_NONE, .chain = 1, .inlined = inlined};

	if (inlined && walk->levels.count > 0)
		level.chain = walk->levels.items[walk->levels.count - 1].chain + 1;
	return level;
}

/* The DIEs behind the unit DIE's start, until the unit DIE is closed or the unit ends. */
static struct err *walk_dies(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct walk *walk)
{
	struct reader r = dw_unit_reader(dw, unit, unit->die_offset);
	uint64_t depth = 0;
	struct dw_die die;

	while (reader_left(&r) > 0) {
		const uint8_t *at = r.pos;
		uint64_t number = reader_uleb(&r);
		if (number == 0) {
			if (r.failed || depth <= 1)
				break;
			depth--;
			while (walk->levels.count > 0 && walk->levels.items[walk->levels.count - 1].depth == depth)
				walk->levels.count--;
			continue;
		}
		const struct dw_abbrev *abbrev = dw_abbrev_find(unit->abbrevs, number);
		if (!abbrev)
			return reader_error(&r, "abbreviation %" PRIu64 " is not defined", number);
		if (abbrev->kind == DW_KIND_SUBPROGRAM || abbrev->kind == DW_KIND_INLINED || abbrev->kind == DW_KIND_DECLARATION) {
			struct walk_level level = new_level(walk, depth, (uint64_t)(at - r.start), abbrev->kind == DW_KIND_INLINED);
			if (abbrev->kind == DW_KIND_DECLARATION) {
				dw_skip_die(unit, abbrev, &r);
			} else {
				dw_read_die(unit, abbrev, &r, &die);
				if (!r.failed)
					TRY(visit(dw, unit, code, &die, &level, walk));
			}
			if (abbrev->has_children) {
				if (walk->levels.count == DW_LEVELS_MAX)
					return reader_error(&r, "more than %d functions inside one another", DW_LEVELS_MAX);
				TRY(ARRAY_ROOM(dw->account, &walk->levels, 1));
				walk->levels.items[walk->levels.count++] = level;
			}
		} else if (__builtin_expect(abbrev->is_fixed, 1)) {
			reader_skip(&r, abbrev->fixed_bytes);
		} else {
			dw_skip_die(unit, abbrev, &r);
		}
		depth += abbrev->has_children;
		if (depth == 0)
			break;
	}
	return r.failed ? reader_error(&r, "the unit ends in the middle of an entry") : NULL;
}

struct err *walk_unit(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct walk *walk)
{
	walk->nodes.count = walk->functions.count = walk->ranges.count = walk->levels.count = 0;
	walk->text.len = 0;
	walk->tombstones = walk->cut_chains = walk->inline_nodes = walk->damaged = 0;
	err_free(TAKE_PTR(walk->first_damage));
	hmap_clear(&walk->origins);
	return walk_dies(dw, unit, code, walk);
}

void walk_deinit(struct walk *walk, struct account *account)
{
	ARRAY_DEINIT(account, &walk->nodes);
	ARRAY_DEINIT(account, &walk->functions);
	ARRAY_DEINIT(account, &walk->ranges);
	ARRAY_DEINIT(account, &walk->levels);
	ARRAY_DEINIT(account, &walk->list);
	account_give(account, walk->text.cap);
	buf_deinit(&walk->text);
	err_free(walk->first_damage);
	hmap_deinit(&walk->origins);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Merging, in file order and on one thread, so that the same input gives the same bytes:
 *
 *     1. unit by unit: strings, files and functions get numbers of the whole table; nodes are appended, rows renumbered
 *     2. chunks are laid out by address: those with functions first, then, in the gaps, .gopclntab's, then those with lines only
 *     3. the same for the ranges of ELF symbols, .symtab before .dynsym
 *     4. rows are written along the chunks; gaps, and lines without a function, take the symbols; pieces of functions get their own
 *
 * Equal strings lie at one place of .debug_str nearly always (linkers merge them), so that a map from the place saves most of
 * the hashing.
 */
#include "symbolizer/build/merge_parts.h"

#include "symbolizer/table/table.h"

#include <stdlib.h>
#include <string.h>

/* ---- Strings, files, functions ---- */

struct err *merge_text(struct merge *m, const char *text, size_t len, uint32_t *ret)
{
	size_t room = m->text.blob.cap;

	TRY(intern_add(&m->text, text, len, ret));
	return account_grown(m->account, room, m->text.blob.cap);
}

/* A name that lies in a string section. */
static struct err *name_of(struct merge *m, const char *name, uint32_t *ret)
{
	uint64_t known;

	if (hmap_get(&m->names, (uint64_t)(uintptr_t)name, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	TRY(merge_text(m, name, strlen(name), ret));
	return hmap_set(&m->names, (uint64_t)(uintptr_t)name, *ret);
}

/* A path is kept as directory and name: "/a/b.c" is "/a" and "b.c"; without a '/', or with only the first, it is all name. */
static struct err *file_of(struct merge *m, const char *path, uint32_t *ret)
{
	const char *slash = strrchr(path, '/');
	size_t dir_len = slash ? (size_t)(slash - path) : 0;
	const char *base = dir_len ? slash + 1 : path;
	struct table_input_file file;
	uint64_t known;

	TRY(merge_text(m, path, dir_len, &file.dir));
	TRY(merge_text(m, base, strlen(base), &file.base));
	uint64_t key = (uint64_t)file.dir << 32 | file.base;
	if (hmap_get(&m->file_ids, key, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	TRY(ARRAY_ROOM(m->account, &m->files, 1));
	*ret = (uint32_t)m->files.count;
	m->files.items[m->files.count++] = file;
	return hmap_set(&m->file_ids, key, *ret);
}

/* Functions are equal by name, start line and file; of MERGE_SAME_NAME_MAX with one name and line the file counts no more. */
struct err *merge_function(struct merge *m, struct table_input_function function, uint32_t *ret)
{
	uint64_t key = (uint64_t)function.name << 32 | function.start_line, known = TABLE_NONE;
	uint32_t first = hmap_get(&m->function_ids, key, &known) ? (uint32_t)known : TABLE_NONE;

	unsigned hops = 0;
	for (uint32_t i = first; i != TABLE_NONE; i = m->same_name.items[i])
		if (m->functions.items[i].file == function.file || ++hops == MERGE_SAME_NAME_MAX) {
			*ret = i;
			return NULL;
		}
	TRY(ARRAY_ROOM(m->account, &m->functions, 1));
	TRY(ARRAY_ROOM(m->account, &m->same_name, 1));
	*ret = (uint32_t)m->functions.count;
	m->functions.items[m->functions.count++] = function;
	/* The new one goes behind the first, so that the key is set once. */
	uint32_t next = first == TABLE_NONE ? TABLE_NONE : m->same_name.items[first];
	m->same_name.items[m->same_name.count++] = next;
	if (first == TABLE_NONE)
		return hmap_set(&m->function_ids, key, *ret);
	m->same_name.items[first] = *ret;
	return NULL;
}

/* ---- Step 1: one unit ---- */

/* Fills map with the numbers that the unit's files have here. */
static struct err *map_files(struct merge *m, const struct unit_result *unit)
{
	m->map.count = 0;
	TRY(ARRAY_ROOM(m->account, &m->map, unit->files.count));
	for (size_t i = 0; i < unit->files.count; i++)
		TRY(file_of(m, (const char *)unit->text.data + unit->files.items[i], &m->map.items[i]));
	m->map.count = unit->files.count;
	return NULL;
}

static uint32_t mapped(const struct merge *m, uint32_t number)
{
	return number < m->map.count ? m->map.items[number] : TABLE_NONE;
}

/* Files of calls, declarations and rows take their numbers. */
static void renumber_files(const struct merge *m, struct unit_result *unit)
{
	for (size_t i = 0; i < unit->functions.count; i++)
		unit->functions.items[i].decl_file = mapped(m, unit->functions.items[i].decl_file);
	for (size_t i = 0; i < unit->nodes.count; i++)
		if (unit->nodes.items[i].parent != WALK_NONE)
			unit->nodes.items[i].call_file = mapped(m, unit->nodes.items[i].call_file);
	for (size_t i = 0; i < unit->rows.count; i++)
		unit->rows.items[i].file = mapped(m, unit->rows.items[i].file);
}

/* Fills map with the numbers that the unit's functions have here. */
static struct err *map_functions(struct merge *m, const struct unit_result *unit)
{
	m->map.count = 0;
	TRY(ARRAY_ROOM(m->account, &m->map, unit->functions.count));
	for (size_t i = 0; i < unit->functions.count; i++) {
		const struct walk_function *from = &unit->functions.items[i];
		struct table_input_function function = {.file = from->decl_file, .start_line = from->start_line};
		if (from->name) {
			TRY(name_of(m, from->name, &function.name));
		} else {
			const char *own = (const char *)unit->text.data + from->text_offset;
			TRY(merge_text(m, own, strlen(own), &function.name));
		}
		TRY(merge_function(m, function, &m->map.items[i]));
	}
	m->map.count = unit->functions.count;
	return NULL;
}

static struct err *append_nodes(struct merge *m, const struct unit_result *unit, uint32_t base)
{
	TRY(ARRAY_ROOM(m->account, &m->nodes, unit->nodes.count));
	for (size_t i = 0; i < unit->nodes.count; i++) {
		const struct walk_node *from = &unit->nodes.items[i];
		struct table_input_node node = {.function = m->map.items[from->function]};
		if (from->parent == WALK_NONE) {
			node.parent = TABLE_NONE;
			node.entry_vaddr = from->entry_vaddr;
			TRY(merge_name_concrete(m, from, &node));
		} else {
			node.parent = base + from->parent;
			node.call_file = from->call_file;
			node.call_line = from->call_line;
			node.call_column = from->call_column;
		}
		m->nodes.items[m->nodes.count++] = node;
	}
	return NULL;
}

static struct err *append_unit(struct merge *m, struct unit_result *unit)
{
	uint32_t base = (uint32_t)m->nodes.count;

	if (m->nodes.count + unit->nodes.count >= TABLE_NONE)
		return err_new(ERR_LIMIT, "more than %u functions and inlined calls", TABLE_NONE);
	TRY(map_files(m, unit));
	renumber_files(m, unit);
	TRY(map_functions(m, unit));
	TRY(append_nodes(m, unit, base));
	for (size_t i = 0; i < unit->rows.count; i++)
		if (unit->rows.items[i].node != UNIT_NONE)
			unit->rows.items[i].node += base;
	ARRAY_DEINIT(m->account, &unit->nodes);
	ARRAY_DEINIT(m->account, &unit->functions);
	ARRAY_DEINIT(m->account, &unit->files);
	account_give(m->account, unit->text.cap);
	buf_deinit(&unit->text);
	return NULL;
}

/* ---- Steps 2 and 3: who has which address ---- */

static int compare_pieces(const void *a, const void *b)
{
	const struct merge_piece *x = a, *y = b;

	if (x->low != y->low)
		return x->low < y->low ? -1 : 1;
	if (x->source != y->source)
		return x->source < y->source ? -1 : 1;
	return x->item < y->item ? -1 : x->item > y->item;
}

/*
 * Lays @p added (sorted; they may overlap: the first goes on to its end) into the gaps of @p pieces (sorted, disjoint). Each piece
 * of either list can be split by those of the other, at most once for each.
 */
static struct err *overlay(struct merge *m, struct merge_pieces *pieces, const struct merge_pieces *added)
{
	struct merge_pieces out = {.items = NULL};
	struct err *e = NULL;
	uint64_t done = 0;
	size_t next = 0;

	if (added->count == 0)
		return NULL;
	TRY(ARRAY_ROOM(m->account, &out, 2 * pieces->count + added->count));
	for (size_t i = 0; i < added->count; i++) {
		struct merge_piece piece = added->items[i];
		piece.low = piece.low < done ? done : piece.low;
		while (piece.low < piece.high) {
			const struct merge_piece *below = next < pieces->count ? &pieces->items[next] : NULL;
			if (below && below->low <= piece.low) {
				out.items[out.count++] = *below;
				piece.low = below->high > piece.low ? below->high : piece.low;
				next++;
				continue;
			}
			struct merge_piece part = piece;
			part.high = below && below->low < piece.high ? below->low : piece.high;
			out.items[out.count++] = part;
			piece.low = part.high;
		}
		done = piece.low > done ? piece.low : done;
	}
	while (next < pieces->count)
		out.items[out.count++] = pieces->items[next++];
	ARRAY_DEINIT(m->account, pieces);
	*pieces = out;
	return e;
}

/* Adds the chunks of one kind of units [first, end). */
static struct err *place_chunks(struct merge *m, const struct unit_result *units, size_t first, size_t end, bool lines_only)
{
	struct merge_pieces added = {.items = NULL};
	struct err *e = NULL;

	for (size_t u = first; u < end && !e; u++)
		for (size_t c = 0; c < units[u].chunks.count && !e; c++) {
			const struct unit_chunk *chunk = &units[u].chunks.items[c];
			if (chunk->lines_only != lines_only)
				continue;
			e = ARRAY_ROOM(m->account, &added, 1);
			if (!e)
				added.items[added.count++] = (struct merge_piece){
					.low = chunk->low, .high = chunk->high, .source = (uint32_t)u, .item = (uint32_t)c};
		}
	if (!e && added.count)
		qsort(added.items, added.count, sizeof(*added.items), compare_pieces);
	if (!e)
		e = overlay(m, &m->pieces, &added);
	ARRAY_DEINIT(m->account, &added);
	return e;
}

/* Where a range of table @p t ends: of a sizeless symbol where another table has the next one. */
static uint64_t end_of_symbol(const struct merge *m, size_t t, const struct symbol_range *range)
{
	uint64_t high = range->high;

	for (size_t i = 0; !m->symbols[t].symbols->items[range->symbol].sized && i < MERGE_SYMBOL_TABLES; i++) {
		const struct symbols *other = m->symbols[i].symbols;
		size_t next = other && i != t ? symbols_behind(other, range->low) : 0;
		if (other && i != t && next < other->count && other->items[next].vaddr < high)
			high = other->items[next].vaddr;
	}
	return high;
}

static struct err *place_symbols(struct merge *m, size_t t)
{
	const struct symbols *symbols = m->symbols[t].symbols;
	struct merge_pieces added = {.items = NULL};

	if (!symbols || symbols->range_count == 0)
		return NULL;
	m->symbol_nodes[t] = calloc(symbols->count + 1, sizeof(*m->symbol_nodes[t]));
	if (!m->symbol_nodes[t])
		return err_nomem();
	TRY(ARRAY_ROOM(m->account, &added, symbols->range_count));
	for (size_t i = 0; i < symbols->range_count; i++)
		added.items[added.count++] = (struct merge_piece){.low = symbols->ranges[i].low,
			.high = end_of_symbol(m, t, &symbols->ranges[i]),
			.source = (uint32_t)t,
			.item = symbols->ranges[i].symbol};
	struct err *e = overlay(m, &m->symbol_pieces, &added);
	ARRAY_DEINIT(m->account, &added);
	return e;
}

/* ---- Step 4: rows ---- */

/* Says what is at [row.vaddr, high). Calls come in order of addresses. */
static struct err *emit(struct merge *m, struct table_input_row row, uint64_t high)
{
	struct table_input_row *last = m->rows.count ? &m->rows.items[m->rows.count - 1] : NULL;
	bool joins = last && m->end == row.vaddr;

	if (row.vaddr >= high)
		return NULL;
	if (joins && last->node == row.node && last->file == row.file && last->line == row.line && last->column == row.column) {
		m->end = high;
		return NULL;
	}
	TRY(ARRAY_ROOM(m->account, &m->rows, 2));
	if (last && !joins)
		m->rows.items[m->rows.count++] = (struct table_input_row){.vaddr = m->end, .node = TABLE_NONE, .file = TABLE_NONE};
	m->rows.items[m->rows.count++] = row;
	m->end = high;
	return NULL;
}

/* A node for lines that neither DWARF nor a symbol has a function for. */
static struct err *nameless_node(struct merge *m, uint64_t vaddr, uint32_t *ret)
{
	struct table_input_function function = {.file = TABLE_NONE};
	struct table_input_node node = {.parent = TABLE_NONE, .entry_vaddr = vaddr};

	TRY(merge_text(m, "", 0, &function.name));
	TRY(merge_function(m, function, &node.function));
	TRY(ARRAY_ROOM(m->account, &m->nodes, 1));
	*ret = (uint32_t)m->nodes.count;
	m->nodes.items[m->nodes.count++] = node;
	return NULL;
}

/* The place in symbol_pieces; moves forward only. */
static void seek_symbol(const struct merge *m, uint64_t vaddr, size_t *next)
{
	while (*next < m->symbol_pieces.count && m->symbol_pieces.items[*next].high <= vaddr)
		(*next)++;
}

/* [low, high) has no DWARF: the symbols there, if any. */
static struct err *emit_gap(struct merge *m, uint64_t low, uint64_t high, size_t *next)
{
	seek_symbol(m, low, next);
	while (*next < m->symbol_pieces.count && m->symbol_pieces.items[*next].low < high) {
		const struct merge_piece *piece = &m->symbol_pieces.items[*next];
		struct table_input_row row = {.vaddr = piece->low < low ? low : piece->low, .file = TABLE_NONE};
		TRY(merge_symbol_node(m, piece, &row.node));
		TRY(emit(m, row, piece->high < high ? piece->high : high));
		if (piece->high > high)
			break;
		(*next)++;
	}
	return NULL;
}

/* [row.vaddr, high) has a line but no function: it is split by the symbols, and what lies between them has no name. */
static struct err *emit_lines(struct merge *m, struct table_input_row row, uint64_t high, uint32_t *nameless, size_t *next)
{
	while (row.vaddr < high) {
		uint64_t end = high;
		seek_symbol(m, row.vaddr, next);
		const struct merge_piece *piece = *next < m->symbol_pieces.count ? &m->symbol_pieces.items[*next] : NULL;
		if (piece && piece->low <= row.vaddr) {
			TRY(merge_symbol_node(m, piece, &row.node));
			end = piece->high < high ? piece->high : high;
		} else {
			if (*nameless == TABLE_NONE)
				TRY(nameless_node(m, row.vaddr, nameless));
			row.node = *nameless;
			end = piece && piece->low < high ? piece->low : high;
		}
		TRY(emit(m, row, end));
		row.vaddr = end;
	}
	return NULL;
}

/* [row.vaddr, high) is in a function, and in pieces of it where symbols say so. */
static struct err *emit_function(struct merge *m, struct table_input_row row, uint64_t high, size_t *next)
{
	while (row.vaddr < high) {
		struct table_input_row part = row;
		uint64_t end = high;
		seek_symbol(m, row.vaddr, next);
		const struct merge_piece *piece = *next < m->symbol_pieces.count ? &m->symbol_pieces.items[*next] : NULL;
		if (piece && piece->low > row.vaddr)
			end = piece->low < high ? piece->low : high;
		else if (piece)
			end = piece->high < high ? piece->high : high;
		if (piece && piece->low <= row.vaddr && (m->entries_moved || merge_may_be_piece(m, *next)))
			TRY(merge_piece_node(m, *next, &part.node));
		TRY(emit(m, part, end));
		row.vaddr = end;
	}
	return NULL;
}

static struct err *emit_piece(struct merge *m, const struct unit_result *units, const struct merge_piece *piece, size_t *next)
{
	const struct unit_result *unit = &units[piece->source];
	const struct unit_chunk *chunk = &unit->chunks.items[piece->item];
	const struct unit_row *rows = unit->rows.items + chunk->first;
	uint32_t nameless = TABLE_NONE;
	size_t i = 0;

	while (i + 1 < chunk->count && rows[i + 1].vaddr <= piece->low)
		i++;
	for (; i < chunk->count && rows[i].vaddr < piece->high; i++) {
		uint64_t high = i + 1 < chunk->count && rows[i + 1].vaddr < piece->high ? rows[i + 1].vaddr : piece->high;
		struct table_input_row row = {.vaddr = rows[i].vaddr < piece->low ? piece->low : rows[i].vaddr,
			.node = rows[i].node,
			.file = rows[i].file,
			.line = rows[i].line,
			.column = rows[i].column};
		if (chunk->lines_only)
			TRY(emit_lines(m, row, high, &nameless, next));
		else
			TRY(emit_function(m, row, high, next));
	}
	m->input.sources |= piece->source < m->dwarf_count ? TABLE_FROM_DWARF : TABLE_FROM_GOPCLNTAB;
	return NULL;
}

static struct err *emit_all(struct merge *m, const struct unit_result *units)
{
	uint64_t cursor = 0;
	size_t next = 0;

	for (size_t i = 0; i < m->pieces.count; i++) {
		const struct merge_piece *piece = &m->pieces.items[i];
		TRY(emit_gap(m, cursor, piece->low, &next));
		TRY(emit_piece(m, units, piece, &next));
		cursor = piece->high;
	}
	TRY(emit_gap(m, cursor, UINT64_MAX, &next));
	if (m->rows.count == 0)
		return NULL;
	TRY(ARRAY_ROOM(m->account, &m->rows, 1));
	m->rows.items[m->rows.count++] = (struct table_input_row){.vaddr = m->end, .node = TABLE_NONE, .file = TABLE_NONE};
	return NULL;
}

/* Addresses of a relocatable file become what its users know. All lie at or above the base, but for a function's damaged entry. */
static void take_base_away(struct merge *m)
{
	for (size_t i = 0; m->base && i < m->rows.count; i++)
		m->rows.items[i].vaddr -= m->base;
	for (size_t i = 0; m->base && i < m->nodes.count; i++) {
		struct table_input_node *node = &m->nodes.items[i];
		node->entry_vaddr -= node->entry_vaddr < m->base ? node->entry_vaddr : m->base;
	}
}

/* Strings were numbers so far; the table wants offsets. */
static void complete_input(struct merge *m)
{
	const uint32_t *offsets = m->text.offsets;

	for (size_t i = 0; i < m->files.count; i++) {
		m->files.items[i].dir = offsets[m->files.items[i].dir];
		m->files.items[i].base = offsets[m->files.items[i].base];
	}
	for (size_t i = 0; i < m->functions.count; i++)
		m->functions.items[i].name = offsets[m->functions.items[i].name];
	for (size_t i = 0; i < m->aliases.count; i++)
		m->aliases.items[i] = offsets[m->aliases.items[i]];
	m->input.text = (const char *)m->text.blob.data;
	m->input.text_len = m->text.blob.len;
	m->input.files = m->files.items;
	m->input.file_count = m->files.count;
	m->input.functions = m->functions.items;
	m->input.function_count = m->functions.count;
	m->input.nodes = m->nodes.items;
	m->input.node_count = m->nodes.count;
	m->input.aliases = m->aliases.items;
	m->input.alias_count = m->aliases.count;
	m->input.rows = m->rows.items;
	m->input.row_count = m->rows.count;
}

struct err *merge_run(struct merge *merge, struct unit_result *units, size_t count, size_t dwarf_count)
{
	merge->dwarf_count = dwarf_count;
	for (size_t i = 0; i < count; i++)
		TRY(append_unit(merge, &units[i]));
	hmap_deinit(&merge->names);
	TRY(place_chunks(merge, units, 0, dwarf_count, false));
	TRY(place_chunks(merge, units, dwarf_count, count, false));
	TRY(place_chunks(merge, units, 0, dwarf_count, true));
	for (size_t t = 0; t < MERGE_SYMBOL_TABLES; t++)
		TRY(place_symbols(merge, t));
	merge->piece_nodes_left = merge->nodes.count + MERGE_PIECE_NODES_MAX;
	TRY(emit_all(merge, units));
	for (size_t i = 0; i < count; i++)
		ARRAY_DEINIT(merge->account, &units[i].rows);
	take_base_away(merge);
	complete_input(merge);
	return NULL;
}

void merge_trim(struct merge *merge)
{
	hmap_deinit(&merge->names);
	hmap_deinit(&merge->function_ids);
	hmap_deinit(&merge->file_ids);
	hmap_deinit(&merge->piece_nodes);
	for (size_t t = 0; t < MERGE_SYMBOL_TABLES; t++)
		free(TAKE_PTR(merge->symbol_nodes[t]));
	ARRAY_DEINIT(merge->account, &merge->same_name);
	ARRAY_DEINIT(merge->account, &merge->map);
	ARRAY_DEINIT(merge->account, &merge->seen);
	ARRAY_DEINIT(merge->account, &merge->pieces);
	ARRAY_DEINIT(merge->account, &merge->symbol_pieces);
}

void merge_deinit(struct merge *merge)
{
	merge_trim(merge);
	account_give(merge->account, merge->text.blob.cap);
	intern_deinit(&merge->text);
	ARRAY_DEINIT(merge->account, &merge->files);
	ARRAY_DEINIT(merge->account, &merge->functions);
	ARRAY_DEINIT(merge->account, &merge->nodes);
	ARRAY_DEINIT(merge->account, &merge->aliases);
	ARRAY_DEINIT(merge->account, &merge->rows);
}

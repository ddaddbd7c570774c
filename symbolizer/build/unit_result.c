// SPDX-License-Identifier: Apache-2.0
/*
 * The join. Segments (which node is innermost, from paint) and line rows (which line, from line_table_read) are both sorted by
 * address; walking them side by side gives rows in which neither changes:
 *
 *     segments   |-- f ------|-- g inlined --|-- f --|        |-- h --|
 *     lines      | 10 | 11   | 3     | 4     | 11            | 20        |
 *     rows       f10  f11    g3      g4      f11              h20          chunk, gap, chunk
 *
 * Where the unit covers code for which it has lines but no function (assembler, clang -gline-tables-only), the rows have no node
 * and lie in chunks of their own; the ELF symbol will be the function. The unit's own ranges say what it covers: a line table
 * can be shared by units.
 * Registers of files become numbers of this unit's own list of paths when they are first used.
 */
#include "symbolizer/build/unit_result.h"

#include <stdlib.h>
#include <string.h>

enum { REGISTER_UNUSED = UINT32_MAX - 1 };

/* Everything that the join needs. */
struct join {
	struct dw *dw;
	const struct dw_unit *unit;
	const struct elffile *code;
	struct unit_scratch *scratch;
	size_t line; /* cursor in lines.rows: the last one at or before where we are */
};

/* The unit's number of a file register, UNIT_NONE when the table does not have it. */
static struct err *file_of(struct join *join, uint32_t reg, uint32_t *ret)
{
	struct unit_scratch *s = join->scratch;
	size_t offset = s->out.text.len;
	bool found;

	*ret = UNIT_NONE;
	if (reg >= s->registers.count)
		return NULL;
	if (s->registers.items[reg] != REGISTER_UNUSED) {
		*ret = s->registers.items[reg];
		return NULL;
	}
	size_t room = s->out.text.cap;
	TRY(line_table_path(&s->lines, join->unit->comp_dir, reg, &s->out.text, &found));
	TRY(account_grown(join->dw->account, room, s->out.text.cap));
	if (found) {
		TRY(ARRAY_ROOM(join->dw->account, &s->out.files, 1));
		*ret = (uint32_t)s->out.files.count;
		s->out.files.items[s->out.files.count++] = (uint32_t)offset;
	}
	s->registers.items[reg] = *ret;
	TRY(ARRAY_ROOM(join->dw->account, &s->touched, 1));
	s->touched.items[s->touched.count++] = reg;
	return NULL;
}

/* Appends a row to the last chunk, unless it says what the one before says. @p line may be NULL. */
static struct err *add_row(struct join *join, uint64_t vaddr, uint32_t node, const struct line_row *line)
{
	struct unit_result *out = &join->scratch->out;
	struct unit_chunk *chunk = &out->chunks.items[out->chunks.count - 1];
	struct unit_row row = {.vaddr = vaddr, .node = node, .file = UNIT_NONE};

	if (line && line->file != LINE_NO_FILE) {
		TRY(file_of(join, line->file, &row.file));
		/* A row whose file does not exist says nothing. */
		row.line = row.file == UNIT_NONE ? 0 : line->line;
		row.column = row.file == UNIT_NONE ? 0 : line->column;
	}
	if (chunk->count > 0) {
		const struct unit_row *last = &out->rows.items[out->rows.count - 1];
		if (last->node == node && last->file == row.file && last->line == row.line && last->column == row.column)
			return NULL;
	}
	TRY(ARRAY_ROOM(join->dw->account, &out->rows, 1));
	out->rows.items[out->rows.count++] = row;
	chunk->count++;
	return NULL;
}

/* The chunk that ends at @p low and is of this kind goes on, or a new one begins. */
static struct err *open_chunk(struct join *join, uint64_t low, uint64_t high, bool lines_only)
{
	struct unit_result *out = &join->scratch->out;
	struct unit_chunk *last = out->chunks.count ? &out->chunks.items[out->chunks.count - 1] : NULL;

	if (last && last->high == low && last->lines_only == lines_only) {
		last->high = high;
		return NULL;
	}
	TRY(ARRAY_ROOM(join->dw->account, &out->chunks, 1));
	out->chunks.items[out->chunks.count++] =
		(struct unit_chunk){.low = low, .high = high, .first = out->rows.count, .lines_only = lines_only};
	return NULL;
}

/* Moves the cursor to the last line row at or before @p vaddr; NULL when there is none. */
static const struct line_row *seek_line(struct join *join, uint64_t vaddr)
{
	const struct line_table *lines = &join->scratch->lines;

	/* In steps that double, then by halves: units that share a table may each want only its end. */
	size_t low = join->line, step = 1;
	while (low + step < lines->rows.count && lines->rows.items[low + step].vaddr <= vaddr) {
		low += step;
		step *= 2;
	}
	for (; step > 0; step /= 2)
		if (low + step < lines->rows.count && lines->rows.items[low + step].vaddr <= vaddr)
			low += step;
	join->line = low;
	if (join->line >= lines->rows.count || lines->rows.items[join->line].vaddr > vaddr)
		return NULL;
	return &lines->rows.items[join->line];
}

static struct err *join_segment(struct join *join, const struct paint_range *segment)
{
	const struct line_table *lines = &join->scratch->lines;
	const struct line_row *line = seek_line(join, segment->low);
	size_t next = line ? join->line + 1 : join->line;

	TRY(open_chunk(join, segment->low, segment->high, false));
	TRY(add_row(join, segment->low, segment->node, line));
	for (; next < lines->rows.count && lines->rows.items[next].vaddr < segment->high; next++)
		TRY(add_row(join, lines->rows.items[next].vaddr, segment->node, &lines->rows.items[next]));
	return NULL;
}

/* The lines in [low, high), where there is no function. */
static struct err *join_lines(struct join *join, uint64_t low, uint64_t high)
{
	const struct line_table *lines = &join->scratch->lines;

	if (low >= high)
		return NULL;
	if (!seek_line(join, low) && join->line < lines->rows.count)
		low = lines->rows.items[join->line].vaddr;
	for (size_t i = join->line; i + 1 < lines->rows.count && lines->rows.items[i].vaddr < high; i++) {
		const struct line_row *line = &lines->rows.items[i];
		uint64_t from = line->vaddr < low ? low : line->vaddr;
		uint64_t to = line[1].vaddr < high ? line[1].vaddr : high;
		if (line->file == LINE_NO_FILE || from >= to)
			continue;
		TRY(open_chunk(join, from, to, true));
		TRY(add_row(join, from, UNIT_NONE, line));
	}
	return NULL;
}

static int compare_ranges(const void *a, const void *b)
{
	const struct dw_range *x = a, *y = b;

	if (x->low != y->low)
		return x->low < y->low ? -1 : 1;
	return x->high < y->high ? -1 : x->high > y->high;
}

/* What the unit DIE says that it covers, sorted; everything when it says nothing but has functions. */
static struct err *read_covered(struct dw *dw, const struct dw_unit *unit, struct unit_scratch *s)
{
	struct dw_die die = {.present = (uint32_t)unit->has_low << DW_SLOT_LOW_PC | (uint32_t)unit->has_high << DW_SLOT_HIGH_PC |
					(uint32_t)unit->has_ranges << DW_SLOT_RANGES};

	die.values[DW_SLOT_LOW_PC] = unit->low;
	die.values[DW_SLOT_HIGH_PC] = unit->high;
	die.values[DW_SLOT_RANGES] = unit->ranges;
	s->covered.count = 0;
	struct err *e = dw_die_ranges(dw, unit, &die, &s->covered);
	if (e && err_code(e) != ERR_FORMAT)
		return e;
	if (e) {
		s->out.damaged++;
		if (s->out.damage)
			err_free(e);
		else
			s->out.damage = e;
		s->covered.count = 0;
	}
	(void)dw_drop_reversed(&s->covered); /* its functions' are told */
	if (s->covered.count == 0 && s->walk.ranges.count > 0) {
		TRY(ARRAY_ROOM(dw->account, &s->covered, 1));
		s->covered.items[s->covered.count++] = (struct dw_range){0, UINT64_MAX};
	}
	if (s->covered.count > 1)
		qsort(s->covered.items, s->covered.count, sizeof(*s->covered.items), compare_ranges);
	return NULL;
}

/* Lines in what the unit covers minus its segments. */
static struct err *join_uncovered(struct join *join)
{
	const struct unit_scratch *s = join->scratch;
	const struct paint_list *segments = &s->segments;
	uint64_t done = 0;
	size_t next = 0;

	join->line = 0;
	for (size_t i = 0; i < s->covered.count; i++) {
		uint64_t low = s->covered.items[i].low < done ? done : s->covered.items[i].low, high = s->covered.items[i].high;
		while (next < segments->count && segments->items[next].high <= low)
			next++;
		while (next < segments->count && segments->items[next].low < high) {
			TRY(join_lines(join, low, segments->items[next].low));
			low = segments->items[next].high > low ? segments->items[next].high : low;
			if (segments->items[next].high > high)
				break;
			next++;
		}
		TRY(join_lines(join, low, high));
		done = high > done ? high : done;
	}
	return NULL;
}

/* Forgets the numbers of the unit before. Where many units share a large table, only what was touched is worth the time. */
static struct err *reset_registers(struct dw *dw, struct unit_scratch *s)
{
	size_t count = s->lines.files.count + 1;

	for (size_t i = 0; i < s->touched.count; i++)
		s->registers.items[s->touched.items[i]] = REGISTER_UNUSED;
	s->touched.count = 0;
	if (count == s->registers.count)
		return NULL;
	s->registers.count = 0;
	TRY(ARRAY_ROOM(dw->account, &s->registers, count));
	for (size_t i = 0; i < count; i++)
		s->registers.items[i] = REGISTER_UNUSED;
	s->registers.count = count;
	return NULL;
}

/* Call and declaration files: registers become the unit's files. */
static struct err *map_files(struct join *join)
{
	struct walk *walk = &join->scratch->walk;

	for (size_t i = 0; i < walk->nodes.count; i++)
		if (walk->nodes.items[i].parent != WALK_NONE)
			TRY(file_of(join, walk->nodes.items[i].call_file, &walk->nodes.items[i].call_file));
	for (size_t i = 0; i < walk->functions.count; i++)
		TRY(file_of(join, walk->functions.items[i].decl_file, &walk->functions.items[i].decl_file));
	return NULL;
}

/* The unit's line table; one that the unit before had too is there already. */
static struct err *read_lines(struct join *join)
{
	struct unit_scratch *s = join->scratch;

	if (!join->unit->has_lines) {
		line_table_clear(&s->lines);
		return NULL;
	}
	if (s->lines.valid && s->lines.offset == join->unit->stmt_list)
		return NULL;
	TRY(line_table_read(join->dw, join->unit, join->code, &s->lines));
	s->out.line_rows = s->lines.rows.count;
	s->out.tombstones += s->lines.tombstones;
	if (!s->lines.damage)
		return NULL;
	s->out.damaged++;
	if (!s->out.damage)
		s->out.damage = TAKE_PTR(s->lines.damage);
	return NULL;
}

static struct err *join_unit(struct join *join)
{
	struct unit_scratch *s = join->scratch;

	TRY(read_covered(join->dw, join->unit, s));
	if (s->covered.count == 0)
		return NULL;
	TRY(read_lines(join));
	TRY(reset_registers(join->dw, s));
	TRY(paint(join->dw->account, &s->painter, &s->walk.ranges, &s->segments));
	for (size_t i = 0; i < s->segments.count; i++)
		TRY(join_segment(join, &s->segments.items[i]));
	TRY(join_uncovered(join));
	return map_files(join);
}

/* An exact copy of an array of scratch. */
#define COPY_ARRAY(account, to, from)                                                              \
	do {                                                                                       \
		if ((from)->count) {                                                               \
			TRY(account_take((account), (from)->count * sizeof(*(from)->items)));      \
			(to)->items = malloc((from)->count * sizeof(*(from)->items));              \
			(to)->cap = (from)->count;                                                 \
			if (!(to)->items)                                                          \
				return err_nomem();                                                \
			memcpy((to)->items, (from)->items, (from)->count * sizeof(*(from)->items)); \
			(to)->count = (from)->count;                                               \
		}                                                                                  \
	} while (0)

/* Moves the results out of scratch, in exactly the room that they need. */
static struct err *take_results(struct account *account, struct unit_scratch *s, struct unit_result *ret)
{
	ret->tombstones = s->out.tombstones + s->walk.tombstones;
	ret->cut_chains = s->walk.cut_chains;
	ret->inline_nodes = s->walk.inline_nodes;
	ret->damaged = s->out.damaged + s->walk.damaged;
	ret->line_rows = s->out.line_rows;
	ret->ranges = s->walk.ranges.count;
	COPY_ARRAY(account, &ret->nodes, &s->walk.nodes);
	COPY_ARRAY(account, &ret->functions, &s->walk.functions);
	COPY_ARRAY(account, &ret->files, &s->out.files);
	COPY_ARRAY(account, &ret->rows, &s->out.rows);
	COPY_ARRAY(account, &ret->chunks, &s->out.chunks);
	/* Names of the walk, then paths: offsets of the latter move up. */
	size_t names = s->walk.text.len;
	if (names + s->out.text.len == 0)
		return NULL;
	TRY(buf_append(&ret->text, s->walk.text.data, names));
	TRY(buf_append(&ret->text, s->out.text.data, s->out.text.len));
	for (size_t i = 0; i < ret->files.count; i++)
		ret->files.items[i] += (uint32_t)names;
	return account_take(account, ret->text.cap);
}

static void reset_out(struct unit_scratch *s)
{
	struct unit_result *out = &s->out;

	out->files.count = out->rows.count = out->chunks.count = 0;
	out->text.len = 0;
	out->tombstones = out->damaged = out->line_rows = 0;
	err_free(TAKE_PTR(out->damage));
}

static struct err *own_copy(const struct err *e)
{
	return err_new(err_code(e), "%s", err_message(e));
}

/* Of a skeleton the other half. One that is damaged leaves what the skeleton has: the lines, and clang's inlined calls. */
static struct err *walk(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct unit_scratch *scratch)
{
	if (!unit->split)
		return walk_unit(dw, unit, code, &scratch->walk);
	struct err *e = walk_unit(unit->split->dw, &unit->split->unit, code, &scratch->walk);
	if (!e || err_code(e) != ERR_FORMAT)
		return e;
	scratch->out.damaged++;
	scratch->out.damage = e;
	return walk_unit(dw, unit, code, &scratch->walk);
}

struct err *unit_result_make(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct unit_scratch *scratch,
	struct unit_result *ret)
{
	struct join join = {.dw = dw, .unit = unit, .code = code, .scratch = scratch};

	if (unit->damage) {
		ret->skipped = own_copy(unit->damage);
		return NULL;
	}
	if (!unit->abbrevs)
		return NULL;
	reset_out(scratch);
	struct err *e = walk(dw, unit, code, scratch);
	if (e && err_code(e) == ERR_FORMAT) {
		ret->skipped = e;
		return NULL;
	}
	if (e)
		return e;
	TRY(join_unit(&join));
	TRY(take_results(dw->account, scratch, ret));
	bool of_half = unit->split && scratch->out.damage;
	if (scratch->walk.first_damage && !of_half)
		ret->damage = TAKE_PTR(scratch->walk.first_damage);
	else if (scratch->out.damage)
		ret->damage = TAKE_PTR(scratch->out.damage);
	return NULL;
}

void unit_result_deinit(struct unit_result *result, struct account *account)
{
	ARRAY_DEINIT(account, &result->nodes);
	ARRAY_DEINIT(account, &result->functions);
	ARRAY_DEINIT(account, &result->files);
	ARRAY_DEINIT(account, &result->rows);
	ARRAY_DEINIT(account, &result->chunks);
	account_give(account, result->text.cap);
	buf_deinit(&result->text);
	err_free(TAKE_PTR(result->skipped));
	err_free(TAKE_PTR(result->damage));
}

void unit_scratch_deinit(struct unit_scratch *scratch, struct account *account)
{
	walk_deinit(&scratch->walk, account);
	line_table_deinit(&scratch->lines, account);
	painter_deinit(&scratch->painter, account);
	ARRAY_DEINIT(account, &scratch->segments);
	ARRAY_DEINIT(account, &scratch->covered);
	ARRAY_DEINIT(account, &scratch->registers);
	ARRAY_DEINIT(account, &scratch->touched);
	ARRAY_DEINIT(account, &scratch->out.files);
	ARRAY_DEINIT(account, &scratch->out.rows);
	ARRAY_DEINIT(account, &scratch->out.chunks);
	account_give(account, scratch->out.text.cap);
	buf_deinit(&scratch->out.text);
	err_free(scratch->out.damage);
}

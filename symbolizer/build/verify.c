// SPDX-License-Identifier: Apache-2.0
/*
 * The comparison.
 *
 * The addresses to ask are collected and sorted once. Then one sweep goes over them with three sets of spans that hold the
 * present address: code ranges of nodes, sequences of rows, symbols. Each set is fed from an array sorted by low; what ends
 * at or before the address is dropped. So a lookup in the reference needs no index that could have the table's mistakes.
 *
 * At one address:
 *     leaves   the nodes that hold it and are inlined around no other node that does: one a chain
 *     rows     of each sequence that holds it, the last row at or below it
 *     symbols  sized ones that hold it, and the sizeless ones nearest below it
 *
 * More than one leaf or row is no damage: a linker that folds identical functions leaves the DWARF of all of them. The table
 * may give any of them; so an address passes if ANY combination of leaf and row fits every frame. Else the first
 * combination's first difference is reported.
 */
#include "symbolizer/build/verify.h"

#include "symbolizer/build/reference.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { FRAMES_MAX = 2048 };

struct span {
	uint64_t low, high;
	uint32_t index; /* of the node, sequence or symbol */
};

/* Spans that hold the present address. */
struct active {
	struct ARRAY_OF(struct span) all; /* sorted by low */
	size_t next;			  /* of all: not seen yet */
	struct ARRAY_OF(struct span) now;
};

struct verify {
	const struct verify_request *request;
	struct verify_report *report;
	struct reference reference;
	struct account account;
	struct ARRAY_OF(uint64_t) addresses;
	struct active nodes, sequences, symbols;
	struct ARRAY_OF(uint32_t) leaves;
	struct ARRAY_OF(const struct reference_row *) rows;
	bool from_go;  /* the table may have names of .gopclntab */
	bool is_split; /* one of them is a skeleton unit's */
	uint64_t base; /* of a relocatable file: the reference's addresses are so much higher than the table's */
	size_t nearest; /* reference.symbols: the first of the group with the highest low at or below the address; count: none */
	struct table_frame frames[FRAMES_MAX];
	size_t frame_count;
};

/* ---------------------------------------------------------------- spans */

static struct err *add_span(struct verify *verify, struct active *active, uint64_t low, uint64_t high, size_t index)
{
	TRY(ARRAY_ROOM(&verify->account, &active->all, 1));
	active->all.items[active->all.count++] = (struct span){.low = low, .high = high, .index = (uint32_t)index};
	return NULL;
}

/* Goes on to @p vaddr, which never falls. */
static struct err *advance(struct verify *verify, struct active *active, uint64_t vaddr)
{
	size_t kept = 0;

	for (size_t i = 0; i < active->now.count; i++)
		if (active->now.items[i].high > vaddr)
			active->now.items[kept++] = active->now.items[i];
	active->now.count = kept;
	for (; active->next < active->all.count && active->all.items[active->next].low <= vaddr; active->next++) {
		if (active->all.items[active->next].high <= vaddr)
			continue;
		TRY(ARRAY_ROOM(&verify->account, &active->now, 1));
		active->now.items[active->now.count++] = active->all.items[active->next];
	}
	return NULL;
}

static struct err *add_address(struct verify *verify, uint64_t vaddr)
{
	TRY(ARRAY_ROOM(&verify->account, &verify->addresses, 1));
	verify->addresses.items[verify->addresses.count++] = vaddr;
	return NULL;
}

/* First and last address of [low, high), and the one behind it. */
static struct err *add_edges(struct verify *verify, uint64_t low, uint64_t high)
{
	TRY(add_address(verify, low));
	TRY(add_address(verify, high - 1));
	return add_address(verify, high);
}

static int compare_addresses(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;

	return (*a > *b) - (*a < *b);
}

/* splitmix64: enough to pick addresses. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15U);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
	return z ^ (z >> 31);
}

static struct err *add_samples(struct verify *verify, const struct elffile *file)
{
	size_t count = 0;
	const struct elffile_range *ranges = elffile_code_ranges(file, &count);
	uint64_t state = verify->request->seed, total = 0;

	for (size_t i = 0; i < count; i++)
		total += ranges[i].high - ranges[i].low;
	for (uint64_t n = 0; total > 0 && n < verify->request->samples; n++) {
		uint64_t at = next_random(&state) % total;
		size_t i = 0;

		for (; at >= ranges[i].high - ranges[i].low; i++)
			at -= ranges[i].high - ranges[i].low;
		TRY(add_address(verify, ranges[i].low + at));
	}
	return NULL;
}

static struct err *prepare(struct verify *verify)
{
	const struct reference *reference = &verify->reference;

	for (size_t i = 0; i < reference->ranges.count; i++) {
		const struct reference_range *range = &reference->ranges.items[i];
		TRY(add_edges(verify, range->low, range->high));
		TRY(add_span(verify, &verify->nodes, range->low, range->high, range->node));
	}
	for (size_t i = 0; i < reference->sequences.count; i++) {
		const struct reference_sequence *sequence = &reference->sequences.items[i];
		TRY(add_edges(verify, sequence->low, sequence->high));
		TRY(add_span(verify, &verify->sequences, sequence->low, sequence->high, i));
	}
	for (size_t i = 0; i < reference->rows.count; i++)
		TRY(add_address(verify, reference->rows.items[i].vaddr));
	for (size_t i = 0; i < reference->symbols.count; i++) {
		const struct reference_symbol *symbol = &reference->symbols.items[i];
		TRY(add_edges(verify, symbol->low, symbol->high));
		if (symbol->sized)
			TRY(add_span(verify, &verify->symbols, symbol->low, symbol->high, i));
	}
	TRY(add_samples(verify, verify->request->binary ? verify->request->binary : verify->request->debug));
	if (verify->addresses.count > 1)
		qsort(verify->addresses.items, verify->addresses.count, sizeof(*verify->addresses.items), compare_addresses);
	return NULL;
}

/* ---------------------------------------------------------------- what the reference has at an address */

/* Nodes that hold the address, less those that another such node is inlined in (at any depth). */
static struct err *find_leaves(struct verify *verify)
{
	const struct reference_node *nodes = verify->reference.nodes.items;
	const struct active *active = &verify->nodes;

	verify->leaves.count = 0;
	for (size_t i = 0; i < active->now.count; i++) {
		const uint32_t node = active->now.items[i].index;
		bool is_leaf = true;

		for (size_t j = 0; is_leaf && j < active->now.count; j++)
			for (uint32_t up = nodes[active->now.items[j].index].parent; is_leaf && up != REFERENCE_NONE; up = nodes[up].parent)
				is_leaf = up != node;
		for (size_t j = 0; is_leaf && j < verify->leaves.count; j++)
			is_leaf = verify->leaves.items[j] != node;
		if (!is_leaf)
			continue;
		TRY(ARRAY_ROOM(&verify->account, &verify->leaves, 1));
		verify->leaves.items[verify->leaves.count++] = node;
	}
	return NULL;
}

static struct err *find_rows(struct verify *verify, uint64_t vaddr)
{
	verify->rows.count = 0;
	verify->is_split = false;
	for (size_t i = 0; i < verify->sequences.now.count; i++) {
		const struct reference_sequence *sequence =
			&verify->reference.sequences.items[verify->sequences.now.items[i].index];
		const struct reference_row *rows = verify->reference.rows.items + sequence->first;
		size_t low = 0, high = sequence->count - 1; /* the last row only ends the sequence */

		while (low < high) {
			size_t middle = low + (high - low) / 2;
			if (rows[middle].vaddr <= vaddr)
				low = middle + 1;
			else
				high = middle;
		}
		if (low == 0)
			continue;
		verify->is_split |= sequence->is_split;
		TRY(ARRAY_ROOM(&verify->account, &verify->rows, 1));
		verify->rows.items[verify->rows.count++] = &rows[low - 1];
	}
	return NULL;
}

static void find_nearest(struct verify *verify, uint64_t vaddr)
{
	const struct reference_symbol *symbols = verify->reference.symbols.items;
	const size_t count = verify->reference.symbols.count;
	size_t next = verify->nearest == count ? 0 : verify->nearest;

	while (next < count && symbols[next].low <= vaddr) {
		if (verify->nearest == count || symbols[next].low != symbols[verify->nearest].low)
			verify->nearest = next;
		next++;
	}
}

/* ---------------------------------------------------------------- one address */

static const char *text_of(const struct verify *verify, uint32_t id)
{
	return id == REFERENCE_NONE ? "" : intern_text(&verify->reference.text, id);
}

/* The frame's path, joined as the reader of a table joins it. */
static void path_of(const struct table_frame *frame, char *path, size_t size)
{
	(void)snprintf(path, size, "%s%s%s", frame->dir, frame->dir[0] ? "/" : "", frame->base);
}

static bool same_path(const struct verify *verify, const struct table_frame *frame, uint32_t path)
{
	const char *want = text_of(verify, path);
	size_t dir_len = strlen(frame->dir);

	if (dir_len == 0)
		return strcmp(frame->base, want) == 0;
	return strncmp(want, frame->dir, dir_len) == 0 && want[dir_len] == '/' && strcmp(want + dir_len + 1, frame->base) == 0;
}

static bool is_symbol(const struct verify *verify, uint64_t vaddr, const char *name)
{
	const struct reference *reference = &verify->reference;

	for (size_t i = 0; i < verify->symbols.now.count; i++)
		if (strcmp(text_of(verify, reference->symbols.items[verify->symbols.now.items[i].index].name), name) == 0)
			return true;
	for (size_t i = verify->nearest; i < reference->symbols.count; i++) {
		const struct reference_symbol *symbol = &reference->symbols.items[i];

		if (symbol->low != reference->symbols.items[verify->nearest].low)
			break;
		if (!symbol->sized && vaddr < symbol->high && strcmp(text_of(verify, symbol->name), name) == 0)
			return true;
	}
	return false;
}

/* A sizeless symbol whose section goes on to the address is the nearest below it. */
static bool has_sizeless(const struct verify *verify, uint64_t vaddr)
{
	const struct reference *reference = &verify->reference;
	const struct reference_symbol *symbol = &reference->symbols.items[verify->nearest];

	for (; symbol < reference->symbols.items + reference->symbols.count &&
		symbol->low == reference->symbols.items[verify->nearest].low;
		symbol++)
		if (!symbol->sized && vaddr < symbol->high)
			return true;
	return false;
}

/* True when a function, or a symbol that has a size, holds the address: the table must then have something to say. */
static bool must_know(const struct verify *verify)
{
	return verify->leaves.count > 0 || verify->symbols.now.count > 0;
}

static bool is_clone_of(const char *name, const char *original)
{
	const size_t len = strlen(original);

	return len > 0 && strncmp(name, original, len) == 0 && name[len] == '.';
}

static bool right_name(const struct verify *verify, uint64_t vaddr, const struct table_frame *frame, uint32_t node)
{
	if (node == REFERENCE_NONE)
		return frame->function[0] == '\0' ? verify->symbols.now.count == 0 : is_symbol(verify, vaddr, frame->function);
	const struct reference_function *function =
		&verify->reference.functions.items[verify->reference.nodes.items[node].function];
	/* The cold part of a clone has the clone's name, which is a symbol elsewhere. */
	if (!frame->inlined && (is_clone_of(frame->function, text_of(verify, function->linkage)) ||
				       is_clone_of(frame->function, text_of(verify, function->name))))
		return true;
	return strcmp(frame->function, text_of(verify, function->linkage)) == 0 ||
		strcmp(frame->function, text_of(verify, function->name)) == 0 ||
		(!frame->inlined && is_symbol(verify, vaddr, frame->function));
}

/* The innermost frame's file, line and column. */
static bool right_place(const struct verify *verify, const struct table_frame *frame, const struct reference_row *row, bool *excused_ret)
{
	bool file_fits = same_path(verify, frame, row ? row->file : REFERENCE_NONE);

	if (!file_fits && row && row->other_file != REFERENCE_NONE)
		*excused_ret = file_fits = same_path(verify, frame, row->other_file);
	return file_fits && frame->line == (row ? row->line : 0) && frame->column == (row ? row->column : 0);
}

/* What is wrong with a chain, VERIFY_DIFFERENCES when nothing is; the frame in @p frame_ret. */
static enum verify_difference check_chain(const struct verify *verify, uint64_t vaddr, uint32_t leaf, const struct reference_row *row,
	size_t *frame_ret, bool *excused_ret)
{
	const struct reference_node *nodes = verify->reference.nodes.items;
	uint32_t node = leaf;
	size_t i = 0;

	*excused_ret = false;
	for (; i < verify->frame_count && (i == 0 || node != REFERENCE_NONE); i++) {
		const struct table_frame *frame = &verify->frames[i];
		*frame_ret = i;

		if (i == 0 && !right_place(verify, frame, row, excused_ret))
			return VERIFY_LINE;
		if (!right_name(verify, vaddr, frame, node))
			return VERIFY_NAME;
		if (node == REFERENCE_NONE)
			return verify->frame_count == 1 ? VERIFY_DIFFERENCES : VERIFY_DEPTH;
		if (frame->start_line != verify->reference.functions.items[nodes[node].function].line)
			return VERIFY_START_LINE;
		uint32_t parent = nodes[node].parent;
		if (frame->inlined != (parent != REFERENCE_NONE))
			return VERIFY_DEPTH;
		if (parent != REFERENCE_NONE && i + 1 < verify->frame_count) {
			const struct table_frame *outer = &verify->frames[i + 1];
			*frame_ret = i + 1;
			if (!same_path(verify, outer, nodes[node].call_file) || outer->line != nodes[node].call_line ||
				outer->column != nodes[node].call_column)
				return VERIFY_CALL_SITE;
		}
		node = parent;
	}
	return i == verify->frame_count && node == REFERENCE_NONE ? VERIFY_DIFFERENCES : VERIFY_DEPTH;
}

static const char *const difference_names[VERIFY_DIFFERENCES] = {
	[VERIFY_MISSING] = "missing",
	[VERIFY_EXTRA] = "extra",
	[VERIFY_DEPTH] = "depth",
	[VERIFY_LINE] = "line",
	[VERIFY_CALL_SITE] = "call site",
	[VERIFY_NAME] = "name",
	[VERIFY_START_LINE] = "start line",
};

/* Appends to a text of VERIFY_TEXT bytes, cutting at its end. */
__attribute__((format(printf, 2, 3))) static void append(char *text, const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text + used, VERIFY_TEXT - used, format, args);
	va_end(args);
}

static void show_reference(const struct verify *verify, uint32_t leaf, const struct reference_row *row, char *text)
{
	const struct reference_node *nodes = verify->reference.nodes.items;
	uint32_t file = row ? row->file : REFERENCE_NONE;
	uint64_t line = row ? row->line : 0, column = row ? row->column : 0;

	if (leaf == REFERENCE_NONE && row)
		append(text, " (no function) %s:%" PRIu64 ":%" PRIu64, text_of(verify, file), line, column);
	for (uint32_t node = leaf; node != REFERENCE_NONE; node = nodes[node].parent) {
		const struct reference_function *function = &verify->reference.functions.items[nodes[node].function];

		append(text, " %s@%" PRIu64 " %s:%" PRIu64 ":%" PRIu64,
			text_of(verify, function->linkage != REFERENCE_NONE ? function->linkage : function->name), function->line,
			text_of(verify, file), line, column);
		file = nodes[node].call_file;
		line = nodes[node].call_line;
		column = nodes[node].call_column;
	}
}

static void show(struct verify *verify, uint64_t vaddr, enum verify_difference kind, size_t at, uint32_t leaf,
	const struct reference_row *row)
{
	size_t slot = 0;
	char path[4096];

	while (slot < VERIFY_SHOWN && verify->report->shown[slot][0])
		slot++;
	if (slot == VERIFY_SHOWN)
		return;
	char *text = verify->report->shown[slot];
	append(text, "0x%" PRIx64 ": %s, frame %zu: table", vaddr - verify->base, difference_names[kind], at);
	for (size_t i = 0; i < verify->frame_count; i++) {
		const struct table_frame *frame = &verify->frames[i];

		path_of(frame, path, sizeof(path));
		append(text, " %s@%" PRIu32 " %s:%" PRIu32 ":%" PRIu32, frame->function, frame->start_line, path, frame->line,
			frame->column);
	}
	append(text, "; reference");
	show_reference(verify, leaf, row, text);
	append(text, " [%zu chains, %zu rows, %zu symbols]", verify->leaves.count, verify->rows.count, verify->symbols.now.count);
}

static void differ(struct verify *verify, uint64_t vaddr, enum verify_difference kind, size_t at)
{
	verify->report->differences[kind]++;
	show(verify, vaddr, kind, at, verify->leaves.count ? verify->leaves.items[0] : REFERENCE_NONE,
		verify->rows.count ? verify->rows.items[0] : NULL);
}

/* Tries every leaf with every row; where there are none, nothing stands for them. */
static void compare_chains(struct verify *verify, uint64_t vaddr)
{
	const size_t leaves = verify->leaves.count ? verify->leaves.count : 1;
	const size_t rows = verify->rows.count ? verify->rows.count : 1;
	enum verify_difference first = VERIFY_DIFFERENCES;
	size_t first_at = 0;

	for (size_t i = 0; i < leaves; i++)
		for (size_t j = 0; j < rows; j++) {
			size_t at = 0;
			bool excused = false;
			enum verify_difference kind = check_chain(verify, vaddr, verify->leaves.count ? verify->leaves.items[i] : REFERENCE_NONE,
				verify->rows.count ? verify->rows.items[j] : NULL, &at, &excused);

			if (kind == VERIFY_DIFFERENCES) {
				verify->report->excused_files += excused;
				return;
			}
			if (i == 0 && j == 0) {
				first = kind;
				first_at = at;
			}
		}
	differ(verify, vaddr, first, first_at);
}

/* Where functions are not known, any row that fits the innermost frame is enough. */
static void compare_lines(struct verify *verify, uint64_t vaddr)
{
	bool excused = false;

	verify->report->lines_only++;
	for (size_t i = 0; i < verify->rows.count; i++)
		if (right_place(verify, &verify->frames[0], verify->rows.items[i], &excused)) {
			verify->report->excused_files += excused;
			return;
		}
	differ(verify, vaddr, VERIFY_LINE, 0);
}

/* A stub of the PLT, alone and without a place, where the reference has nothing. */
static bool is_stub(const struct verify *verify)
{
	const struct table_frame *frame = &verify->frames[0];

	if (verify->frame_count != 1 || frame->base[0] != '\0' || must_know(verify) || verify->rows.count > 0)
		return false;
	const size_t len = strlen(frame->function);
	return len > 4 && strcmp(frame->function + len - 4, "@plt") == 0;
}

/* Where the reference has no DWARF, a place, inlined calls, and what no symbol covers are .gopclntab's. */
static bool is_go(const struct verify *verify)
{
	return verify->from_go && verify->frame_count > 0 && verify->leaves.count == 0 && verify->rows.count == 0 &&
		(verify->frame_count > 1 || verify->frames[0].line > 0 || !must_know(verify));
}

static struct err *compare_address(struct verify *verify, uint64_t vaddr)
{
	TRY(advance(verify, &verify->nodes, vaddr));
	TRY(advance(verify, &verify->sequences, vaddr));
	TRY(advance(verify, &verify->symbols, vaddr));
	TRY(find_leaves(verify));
	TRY(find_rows(verify, vaddr));
	find_nearest(verify, vaddr);
	verify->frame_count = table_lookup(verify->request->table, vaddr - verify->base, verify->frames, FRAMES_MAX);
	verify->report->addresses++;
	verify->report->frames += verify->frame_count;
	if (is_stub(verify))
		verify->report->stubs++;
	else if (is_go(verify))
		verify->report->go_only++;
	else if (verify->frame_count > 0 && !must_know(verify) && verify->rows.count == 0 && !has_sizeless(verify, vaddr))
		differ(verify, vaddr, VERIFY_EXTRA, 0);
	else if (verify->frame_count > 0 && verify->is_split)
		compare_lines(verify, vaddr);
	else if (verify->frame_count > 0)
		compare_chains(verify, vaddr);
	else if (must_know(verify))
		differ(verify, vaddr, VERIFY_MISSING, 0);
	return NULL;
}

static struct err *compare_all(struct verify *verify)
{
	verify->nearest = verify->reference.symbols.count;
	for (size_t i = 0; i < verify->addresses.count; i++)
		if (i == 0 || verify->addresses.items[i] != verify->addresses.items[i - 1])
			TRY(compare_address(verify, verify->addresses.items[i]));
	return NULL;
}

/* ---------------------------------------------------------------- all */

static bool has_dwarf(const struct elffile *file)
{
	const struct elffile_section *info = file ? elffile_find(file, ".debug_info") : NULL;

	return info && info->stored_size > 0;
}

static struct err *read_reference(struct verify *verify)
{
	const struct verify_request *request = verify->request;
	struct elffile *files[] = {request->debug, request->binary};
	struct reference *reference = &verify->reference;

	TRY(has_dwarf(request->debug)	 ? reference_add_dwarf(reference, request->debug)
		: has_dwarf(request->binary) ? reference_add_dwarf(reference, request->binary)
					     : NULL);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (files[i])
			TRY(reference_add_symbols(reference, files[i]));
	reference_sort(reference);
	return NULL;
}

static void report_reference(const struct reference *reference, struct verify_report *report)
{
	report->units = reference->units;
	report->dies = reference->dies;
	report->line_tables = reference->line_tables;
	report->functions = reference->functions.count;
	report->nodes = reference->nodes.count;
	report->ranges = reference->ranges.count;
	report->rows = reference->rows.count;
	report->symbols = reference->symbols.count;
	report->type_units = reference->type_units;
	report->split_units = reference->split_units;
	report->tombstones = reference->tombstones;
	report->repaired_rows = reference->repaired_rows;
	report->failures = reference->failures;
	memcpy(report->failure, reference->failure, sizeof(report->failure));
}

static void deinit(struct verify *verify)
{
	struct active *actives[] = {&verify->nodes, &verify->sequences, &verify->symbols};

	for (size_t i = 0; i < ARRAY_SIZE(actives); i++) {
		ARRAY_DEINIT(&verify->account, &actives[i]->all);
		ARRAY_DEINIT(&verify->account, &actives[i]->now);
	}
	ARRAY_DEINIT(&verify->account, &verify->addresses);
	ARRAY_DEINIT(&verify->account, &verify->leaves);
	ARRAY_DEINIT(&verify->account, &verify->rows);
	reference_deinit(&verify->reference);
	free(verify);
}

struct err *verify_table_here(const struct verify_request *request, struct verify_report *ret)
{
	if (!request->binary && !request->debug)
		return err_new(ERR_INVALID, "verify: no file");
	const struct elffile *first = request->binary ? request->binary : request->debug;
	struct verify *verify = calloc(1, sizeof(*verify));
	struct verify_report *report CLEANUP(freep) = calloc(1, sizeof(*report));

	if (!verify || !report) {
		free(verify);
		return err_nomem();
	}
	struct table_info info;
	table_info(request->table, &info);
	verify->from_go = (info.sources & TABLE_FROM_GOPCLNTAB) != 0;
	verify->request = request;
	verify->report = report;
	verify->base = elffile_base(first);
	struct err *e = read_reference(verify);
	if (!e)
		e = prepare(verify);
	if (!e)
		e = compare_all(verify);
	report_reference(&verify->reference, report);
	deinit(verify);
	if (!e)
		*ret = *report;
	return e;
}

static struct err *work(void *context, void *result)
{
	return verify_table_here(context, result);
}

struct err *verify_table(const struct verify_request *request, struct verify_report *ret)
{
	struct verify_request copy = *request;

	if (copy.limits.memory_bytes == 0)
		copy.limits.memory_bytes = VERIFY_MEMORY_BYTES;
	if (copy.limits.seconds == 0)
		copy.limits.seconds = VERIFY_SECONDS;
	return verify_child_run(work, &copy, &copy.limits, ret, sizeof(*ret));
}

uint64_t verify_difference_count(const struct verify_report *report)
{
	uint64_t sum = report->failures;

	for (size_t i = 0; i < VERIFY_DIFFERENCES; i++)
		sum += report->differences[i];
	return sum;
}

struct err *verify_report_text(const struct verify_report *report, struct buf *ret)
{
	TRY(buf_printf(ret,
		"reference: %" PRIu64 " units, %" PRIu64 " DIEs, %" PRIu64 " functions and inlined calls, %" PRIu64 " ranges, %" PRIu64
		" line tables, %" PRIu64 " rows, %" PRIu64 " symbols\n",
		report->units, report->dies, report->nodes, report->ranges, report->line_tables, report->rows, report->symbols));
	TRY(buf_printf(ret,
		"reference: %" PRIu64 " tombstones, %" PRIu64 " type units, %" PRIu64 " split units, %" PRIu64 " rows repaired, %" PRIu64
		" failures%s%s\n",
		report->tombstones, report->type_units, report->split_units, report->repaired_rows, report->failures,
		report->failures ? ", first: " : "", report->failure));
	TRY(buf_printf(ret, "compared: %" PRIu64 " addresses, %" PRIu64 " frames; %" PRIu64 " files excused as libdwarf's\n",
		report->addresses, report->frames, report->excused_files));
	if (report->lines_only > 0)
		TRY(buf_printf(ret, "lines only: %" PRIu64 " addresses of split units\n", report->lines_only));
	if (report->stubs > 0)
		TRY(buf_printf(ret, "stubs: %" PRIu64 " addresses named by relocations, not compared\n", report->stubs));
	if (report->go_only > 0)
		TRY(buf_printf(ret, "go: %" PRIu64 " addresses named by .gopclntab, not compared\n", report->go_only));
	TRY(buf_printf(ret, "differences: %" PRIu64, verify_difference_count(report)));
	for (size_t i = 0; i < VERIFY_DIFFERENCES; i++)
		if (report->differences[i])
			TRY(buf_printf(ret, ", %s %" PRIu64, difference_names[i], report->differences[i]));
	TRY(buf_printf(ret, "\n"));
	for (size_t i = 0; i < VERIFY_SHOWN && report->shown[i][0]; i++)
		TRY(buf_printf(ret, "  %s\n", report->shown[i]));
	return NULL;
}

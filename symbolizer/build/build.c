// SPDX-License-Identifier: Apache-2.0
/*
 * The build, phase by phase:
 *
 *     load    headers; build IDs compared; the sections that are needed inflated, in parallel, largest first
 *             (.debug_loclists, .debug_frame, .debug_aranges, .debug_pub* are never touched)
 *     units   headers, abbreviations, unit DIEs; then each unit into rows (unit_result.c), in parallel. Units that share a line
 *             table are one task, so that the table is decoded once
 *     merge   DWARF's bulk sections are freed; numbers, names, symbols (merge.c), one thread
 *     encode  table_write, and all else freed before
 *
 * DWARF comes from the debug file if it has .debug_info, else from the binary. Where code lies is said by the binary (a debug
 * file's headers say the same, where it stands alone).
 */
#include "symbolizer/build/build.h"

#include "symbolizer/build/gopclntab.h"
#include "symbolizer/build/merge.h"
#include "symbolizer/build/minidebug.h"
#include "symbolizer/build/plt.h"
#include "symbolizer/build/runner.h"
#include "symbolizer/build/split.h"
#include "symbolizer/table/table.h"

#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DWARF_SECTIONS = 9, SECTION_STR = 0, SECTION_LINE_STR = 1, SYMBOL_TABLES = 3, STUBS = 3 };

static const char *const section_names[DWARF_SECTIONS] = {
	".debug_str", ".debug_line_str", ".debug_info", ".debug_abbrev", ".debug_line", ".debug_str_offsets", ".debug_addr",
	".debug_ranges", ".debug_rnglists"};

struct build {
	const struct build_options *options;
	struct build_stats stats;
	struct account account;
	struct runner runner;
	enum build_phase phase;
	uint64_t phase_start_ns;
	struct elffile *binary, *debug; /* NULL: not given */
	struct elffile *dwarf_file;	/* one of the two; NULL: no DWARF */
	struct elffile *code;		/* says where code is */
	const struct elffile_section *sections[DWARF_SECTIONS]; /* largest first in order[] */
	unsigned order[DWARF_SECTIONS];
	struct reader readers[DWARF_SECTIONS];
	uint64_t section_bytes[DWARF_SECTIONS]; /* taken from the account */
	struct err *section_damage;		/* the first section that could not be loaded */
	struct elffile *supplement;		/* NULL: not given, or not named by dwarf_file */
	uint64_t supplement_bytes;		/* taken from the account for its sections */
	struct dw supplement_dw;
	struct dw dw;
	struct split_set splits;
	struct unit_result *units;
	size_t unit_count; /* of DWARF */
	size_t go_count;   /* 1 when the unit behind them is .gopclntab's */
	struct unit_scratch *scratch; /* one a thread */
	size_t *tasks;		      /* unit numbers in groups of one line table */
	size_t *task_starts;	      /* first of each group in tasks; one more for the end */
	size_t task_count;
	struct minidebug mini;
	struct symbols symbols[SYMBOL_TABLES];
	struct plt plt;
	struct merge merge;
};

const char *build_phase_name(enum build_phase phase)
{
	static const char *const names[] = {"load", "units", "merge", "encode"};

	return (unsigned)phase < BUILD_PHASE_COUNT ? names[phase] : "?";
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void forward_progress(void *context, uint64_t done, uint64_t total)
{
	struct build *b = context;

	b->options->progress(b->options->progress_context, b->phase, done, total);
}

static void begin_phase(struct build *b, enum build_phase phase)
{
	b->phase = phase;
	b->phase_start_ns = now_ns();
	if (b->options->progress)
		forward_progress(b, 0, 1);
}

static void end_phase(struct build *b)
{
	b->stats.phase_ms[b->phase] = (now_ns() - b->phase_start_ns) / 1000000;
}

/* Keeps the first reason, for the stats. */
static void note_reason(struct build *b, const char *reason)
{
	if (!b->stats.reason[0])
		(void)snprintf(b->stats.reason, sizeof(b->stats.reason), "%s", reason);
}

/* ---- load ---- */

static struct err *open_image(const struct build_options *options, const struct build_image *image, struct elffile **ret)
{
	const struct elffile_limits limits = {.section_bytes = options->memory_max, .total_bytes = options->memory_max};

	if (!image->bytes)
		return NULL;
	return elffile_open(image->bytes, image->len, image->name ? image->name : "input", &limits, ret);
}

/* Both images are of one link: the same build ID where both have one, and in any case the same machine. */
static struct err *check_pair(const struct build *b)
{
	char x[BUILD_ID_HEX_SIZE], y[BUILD_ID_HEX_SIZE];

	if (!b->binary || !b->debug)
		return NULL;
	const struct build_id *binary = elffile_build_id(b->binary), *debug = elffile_build_id(b->debug);
	if (elffile_machine(b->binary) != elffile_machine(b->debug))
		return err_new(ERR_MISMATCH, "%s: ELF machine %u, but that of %s is %u", elffile_name(b->debug),
			elffile_machine(b->debug), elffile_name(b->binary), elffile_machine(b->binary));
	if (elffile_base(b->binary) != elffile_base(b->debug))
		return err_new(ERR_MISMATCH, "%s: only one of it and %s is a relocatable file", elffile_name(b->binary),
			elffile_name(b->debug));
	if (binary->len == 0 || debug->len == 0 || build_id_equal(binary, debug))
		return NULL;
	build_id_format(binary, x);
	build_id_format(debug, y);
	return err_new(ERR_MISMATCH, "%s has build ID %s, but %s has %s", elffile_name(b->binary), x, elffile_name(b->debug), y);
}

static bool has_dwarf(const struct elffile *file)
{
	const struct elffile_section *section = file ? elffile_find(file, ".debug_info") : NULL;

	return section && section->type != SHT_NOBITS && section->size > 0;
}

/* The supplement must be the one that the DWARF names; one that nobody names is not looked at. */
static struct err *open_supplement(struct build *b)
{
	char want[BUILD_ID_HEX_SIZE], have[BUILD_ID_HEX_SIZE];
	struct build_id id;
	const char *name = b->dwarf_file ? elffile_debugaltlink(b->dwarf_file, &id) : NULL;

	if (!name)
		return NULL;
	char text[BUILD_REASON_MAX];
	if (build_id_equal(&id, elffile_build_id(b->dwarf_file))) {
		(void)snprintf(text, sizeof(text), "%.100s: names itself as its supplement, by %.100s", elffile_name(b->dwarf_file), name);
		note_reason(b, text);
		b->stats.damaged++;
		return NULL;
	}
	if (!b->options->supplement.bytes) {
		(void)snprintf(text, sizeof(text), "%.100s: names lie in %.100s, which is not here", elffile_name(b->dwarf_file), name);
		note_reason(b, text);
		return NULL;
	}
	TRY(open_image(b->options, &b->options->supplement, &b->supplement));
	if (build_id_equal(&id, elffile_build_id(b->supplement)))
		return NULL;
	build_id_format(&id, want);
	build_id_format(elffile_build_id(b->supplement), have);
	return err_new(ERR_MISMATCH, "%s needs the supplement with build ID %s, but %s has %s", elffile_name(b->dwarf_file), want,
		elffile_name(b->supplement), have[0] ? have : "none");
}

static struct err *open_files(struct build *b)
{
	TRY(open_image(b->options, &b->options->binary, &b->binary));
	TRY(open_image(b->options, &b->options->debug, &b->debug));
	if (!b->binary && !b->debug)
		return err_new(ERR_INVALID, "no image to build from");
	TRY(check_pair(b));
	b->code = b->binary ? b->binary : b->debug;
	b->dwarf_file = has_dwarf(b->debug) ? b->debug : has_dwarf(b->binary) ? b->binary : NULL;
	return open_supplement(b);
}

static struct err *load_task(void *context, size_t i, unsigned thread)
{
	struct build *b = context;
	unsigned s = b->order[i];
	const struct elffile_section *section = b->sections[s];

	(void)thread;
	if (!section)
		return NULL;
	uint64_t bytes = elffile_load_bytes(section);
	TRY(account_take(&b->account, bytes));
	b->section_bytes[s] = bytes;
	return elffile_load(b->dwarf_file, section, &b->readers[s]);
}

static void release_section(struct build *b, unsigned s)
{
	if (b->sections[s])
		elffile_release(b->dwarf_file, b->sections[s]);
	account_give(&b->account, b->section_bytes[s]);
	b->section_bytes[s] = 0;
	b->readers[s] = (struct reader){.start = NULL};
}

/* Largest first: the largest bounds how long it takes. */
static void order_sections(struct build *b)
{
	for (unsigned i = 0; i < DWARF_SECTIONS; i++) {
		unsigned j = i;
		b->sections[i] = elffile_find(b->dwarf_file, section_names[i]);
		b->readers[i] = reader_init("", 0, elffile_big_endian(b->dwarf_file), section_names[i]);
		uint64_t size = b->sections[i] ? b->sections[i]->size : 0;
		for (; j > 0; j--) {
			const struct elffile_section *before = b->sections[b->order[j - 1]];
			if ((before ? before->size : 0) >= size)
				break;
			b->order[j] = b->order[j - 1];
		}
		b->order[j] = i;
	}
}

/* DWARF that cannot be loaded is as good as none: the symbols may still serve. */
static struct err *load_sections(struct build *b)
{
	if (!b->dwarf_file)
		return NULL;
	order_sections(b);
	struct err *e = runner_run(&b->runner, DWARF_SECTIONS, load_task, b);
	if (e && (err_code(e) == ERR_FORMAT || err_code(e) == ERR_UNSUPPORTED)) {
		note_reason(b, err_message(e));
		b->stats.damaged++;
		b->section_damage = e;
		return NULL;
	}
	return e;
}

/* All sections of the supplement; they are small, since the point of it is that they are shared. */
static struct err *load_supplement(struct build *b, struct reader *readers)
{
	for (size_t i = 0; i < DWARF_SECTIONS; i++) {
		const struct elffile_section *section = elffile_find(b->supplement, section_names[i]);
		readers[i] = reader_init("", 0, elffile_big_endian(b->supplement), section_names[i]);
		if (!section)
			continue;
		TRY(account_take(&b->account, elffile_load_bytes(section)));
		b->supplement_bytes += elffile_load_bytes(section);
		TRY(elffile_load(b->supplement, section, &readers[i]));
	}
	return NULL;
}

/* ---- units ---- */

/* Units by line table, those without one alone; groups in order of their first unit. */
struct task_key {
	uint64_t stmt_list;
	size_t unit, first;
};

static int compare_tables(const void *a, const void *b)
{
	const struct task_key *x = a, *y = b;

	if (x->stmt_list != y->stmt_list)
		return x->stmt_list < y->stmt_list ? -1 : 1;
	return x->unit < y->unit ? -1 : x->unit > y->unit;
}

static int compare_firsts(const void *a, const void *b)
{
	const struct task_key *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return x->unit < y->unit ? -1 : x->unit > y->unit;
}

static struct err *make_tasks(struct build *b)
{
	size_t count = b->unit_count;
	CLEANUP(freep) struct task_key *keys = calloc(count + 1, sizeof(*keys));

	b->tasks = calloc(count + 1, sizeof(*b->tasks));
	b->task_starts = calloc(count + 1, sizeof(*b->task_starts));
	if (!keys || !b->tasks || !b->task_starts)
		return err_nomem();
	for (size_t i = 0; i < count; i++) {
		const struct dw_unit *unit = &b->dw.units.items[i];
		keys[i] = (struct task_key){.stmt_list = unit->has_lines ? unit->stmt_list : UINT64_MAX, .unit = i, .first = i};
	}
	qsort(keys, count, sizeof(*keys), compare_tables);
	for (size_t i = 1; i < count; i++)
		if (keys[i].stmt_list != UINT64_MAX && keys[i].stmt_list == keys[i - 1].stmt_list)
			keys[i].first = keys[i - 1].first;
	qsort(keys, count, sizeof(*keys), compare_firsts);
	for (size_t i = 0; i < count; i++) {
		if (i == 0 || keys[i].first != keys[i - 1].first)
			b->task_starts[b->task_count++] = i;
		b->tasks[i] = keys[i].unit;
	}
	b->task_starts[b->task_count] = count;
	return NULL;
}

static struct err *unit_task(void *context, size_t i, unsigned thread)
{
	struct build *b = context;

	for (size_t k = b->task_starts[i]; k < b->task_starts[i + 1]; k++) {
		size_t u = b->tasks[k];
		TRY(unit_result_make(&b->dw, &b->dw.units.items[u], b->code, &b->scratch[thread], &b->units[u]));
	}
	return NULL;
}

static struct dw_sections dwarf_sections(const struct reader *r)
{
	return (struct dw_sections){.str = r[0], .line_str = r[1], .info = r[2], .abbrev = r[3], .line = r[4],
		.str_offsets = r[5], .addr = r[6], .ranges = r[7], .rnglists = r[8]};
}

/* A damaged supplement is as good as none. */
static struct err *read_supplement(struct build *b)
{
	struct reader readers[DWARF_SECTIONS];

	if (!b->supplement)
		return NULL;
	struct err *e = load_supplement(b, readers);
	if (e && (err_code(e) == ERR_FORMAT || err_code(e) == ERR_UNSUPPORTED)) {
		note_reason(b, err_message(e));
		err_free(e);
		return NULL;
	}
	TRY(e);
	struct dw_sections sections = dwarf_sections(readers);
	TRY(dw_open(&b->supplement_dw, &sections, &b->runner, &b->account));
	b->dw.supplement = &b->supplement_dw;
	return NULL;
}

/* Damaged files are as good as none. */
static struct err *read_splits(struct build *b)
{
	TRY(split_set_open(&b->splits, b->options, &b->dw, &b->runner));
	for (size_t i = 0; i < b->splits.files.count; i++) {
		if (!b->splits.files.items[i].damage)
			continue;
		note_reason(b, err_message(b->splits.files.items[i].damage));
		b->stats.damaged++;
	}
	b->stats.missing_splits = b->splits.missing;
	if (b->splits.first_missing)
		note_reason(b, err_message(b->splits.first_missing));
	return NULL;
}

static void add_unit_stats(struct build *b)
{
	struct build_stats *stats = &b->stats;

	for (size_t i = 0; i < b->unit_count; i++) {
		const struct unit_result *unit = &b->units[i];
		stats->skipped_units += unit->skipped != NULL;
		stats->tombstones += unit->tombstones;
		stats->cut_chains += unit->cut_chains;
		stats->damaged += unit->damaged;
		stats->line_rows += unit->line_rows;
		stats->ranges += unit->ranges;
		stats->inline_nodes += unit->inline_nodes;
		if (unit->skipped || unit->damage)
			note_reason(b, err_message(unit->skipped ? unit->skipped : unit->damage));
	}
}

static struct err *read_units(struct build *b)
{
	if (!b->dwarf_file || b->section_damage)
		return NULL;
	TRY(read_supplement(b));
	struct dw_sections sections = dwarf_sections(b->readers);
	TRY(dw_open(&b->dw, &sections, &b->runner, &b->account));
	TRY(read_splits(b));
	b->unit_count = b->stats.units = b->dw.units.count;
	TRY(account_take(&b->account, b->unit_count * sizeof(*b->units)));
	b->units = calloc(b->unit_count + 1, sizeof(*b->units));
	b->scratch = calloc(b->runner.threads, sizeof(*b->scratch));
	if (!b->units || !b->scratch)
		return err_nomem();
	TRY(make_tasks(b));
	TRY(runner_run(&b->runner, b->task_count, unit_task, b));
	add_unit_stats(b);
	return NULL;
}

/* Go's own table as one more unit. A damaged or unknown one is as good as none. */
static struct err *read_go(struct build *b)
{
	if (!b->units)
		b->units = calloc(1, sizeof(*b->units));
	if (!b->units)
		return err_nomem();
	struct unit_result *unit = &b->units[b->unit_count];
	b->go_count = 1;
	struct err *e = gopclntab_read(b->code, &b->account, unit);
	if (e && (err_code(e) == ERR_FORMAT || err_code(e) == ERR_UNSUPPORTED)) {
		note_reason(b, err_message(e));
		b->stats.damaged++;
		err_free(e);
		return NULL;
	}
	TRY(e);
	b->stats.damaged += unit->damaged;
	b->stats.inline_nodes += unit->inline_nodes;
	b->stats.cut_chains += unit->cut_chains;
	b->stats.line_rows += unit->rows.count;
	if (unit->damage)
		note_reason(b, err_message(unit->damage));
	return NULL;
}

/* What only the reading of units needs. The string sections hold the names. */
static void release_units(struct build *b)
{
	for (unsigned i = 0; b->scratch && i < b->runner.threads; i++)
		unit_scratch_deinit(&b->scratch[i], &b->account);
	free(TAKE_PTR(b->scratch));
	free(TAKE_PTR(b->tasks));
	free(TAKE_PTR(b->task_starts));
	split_set_close_units(&b->splits, &b->account);
	dw_close(&b->dw);
	dw_close(&b->supplement_dw);
	for (unsigned s = 0; b->dwarf_file && s < DWARF_SECTIONS; s++)
		if (s != SECTION_STR && s != SECTION_LINE_STR)
			release_section(b, s);
}

/* ---- merge ---- */

/* Damage is kept as a reason and counted; any other error is handed on. Consumes @p e. */
static struct err *pass_over_damage(struct build *b, struct err *e)
{
	if (!e || err_code(e) != ERR_FORMAT)
		return e;
	note_reason(b, err_message(e));
	b->stats.damaged++;
	if (!b->section_damage)
		b->section_damage = TAKE_PTR(e);
	err_free(e);
	return NULL;
}

static struct err *read_symbol_table(struct build *b, struct elffile *file, size_t t, uint32_t source)
{
	if (!file || b->symbols[t].count > 0)
		return NULL;
	symbols_deinit(&b->symbols[t]);
	TRY(pass_over_damage(b, symbols_read(file, source == TABLE_FROM_DYNSYM, &b->symbols[t])));
	b->merge.symbols[t] = (struct merge_symbols){.symbols = &b->symbols[t], .source = source};
	b->stats.symbols += b->symbols[t].count;
	return NULL;
}

/* .symtab of the debug file, else of the binary, else of its MiniDebugInfo; then the binary's .dynsym, and its stubs. A damaged table is left out. */
static struct err *read_symbols(struct build *b)
{
	TRY(read_symbol_table(b, b->debug, 0, TABLE_FROM_SYMTAB));
	TRY(read_symbol_table(b, b->binary, 0, TABLE_FROM_SYMTAB));
	if (b->symbols[0].count == 0 && b->binary)
		TRY(pass_over_damage(b, minidebug_open(b->binary, b->options->memory_max, &b->mini)));
	TRY(read_symbol_table(b, b->mini.file, 1, TABLE_FROM_GNU_DEBUGDATA));
	TRY(read_symbol_table(b, b->code, 2, TABLE_FROM_DYNSYM));
	if (b->binary)
		TRY(pass_over_damage(b, plt_read(b->binary, &b->account, &b->plt)));
	/* No source: names of others' functions make no symbols of this file. */
	b->merge.symbols[STUBS] = (struct merge_symbols){.symbols = &b->plt.symbols};
	return NULL;
}

/* Nothing came out: whose fault is it? */
static struct err *nothing_found(const struct build *b)
{
	const char *name = elffile_name(b->debug ? b->debug : b->binary);

	if (b->section_damage)
		return err_new(ERR_FORMAT, "%s", err_message(b->section_damage));
	if (b->stats.reason[0])
		return err_new(ERR_FORMAT, "%s", b->stats.reason);
	return err_new(ERR_NOT_FOUND, "%s: neither DWARF nor function symbols", name);
}

static struct err *merge_all(struct build *b)
{
	TRY(read_symbols(b));
	b->merge.base = elffile_base(b->code);
	TRY(merge_run(&b->merge, b->units, b->unit_count + b->go_count, b->unit_count));
	struct table_input *input = &b->merge.input;
	if (input->row_count == 0 || input->sources == 0)
		return nothing_found(b);
	const struct build_id *id = elffile_build_id(b->code);
	if (id->len == 0 && b->debug)
		id = elffile_build_id(b->debug);
	input->build_id = b->stats.build_id = *id;
	input->elf_machine = elffile_machine(b->code);
	b->stats.sources = input->sources;
	b->stats.functions = input->function_count;
	b->stats.rows = input->row_count;
	return NULL;
}

static void release_inputs(struct build *b)
{
	for (size_t i = 0; b->units && i < b->unit_count + b->go_count; i++)
		unit_result_deinit(&b->units[i], &b->account);
	free(TAKE_PTR(b->units));
	b->unit_count = b->go_count = 0;
	for (size_t t = 0; t < SYMBOL_TABLES; t++)
		symbols_deinit(&b->symbols[t]);
	plt_deinit(&b->plt);
	for (size_t t = 0; t < MERGE_SYMBOL_TABLES; t++)
		b->merge.symbols[t].symbols = NULL;
	for (unsigned s = 0; b->dwarf_file && s < DWARF_SECTIONS; s++)
		release_section(b, s);
	split_set_deinit(&b->splits, &b->account);
	minidebug_deinit(&b->mini);
	elffile_close(TAKE_PTR(b->binary));
	elffile_close(TAKE_PTR(b->debug));
	elffile_close(TAKE_PTR(b->supplement));
	account_give(&b->account, b->supplement_bytes);
	b->supplement_bytes = 0;
	b->dwarf_file = b->code = NULL;
	err_free(TAKE_PTR(b->section_damage));
}

/* ---- all ---- */

static struct err *run(struct build *b, struct buf *ret)
{
	begin_phase(b, BUILD_LOAD);
	TRY(open_files(b));
	TRY(load_sections(b));
	end_phase(b);
	begin_phase(b, BUILD_UNITS);
	TRY(read_units(b));
	TRY(read_go(b));
	release_units(b);
	end_phase(b);
	begin_phase(b, BUILD_MERGE);
	TRY(merge_all(b));
	release_inputs(b);
	merge_trim(&b->merge);
	end_phase(b);
	begin_phase(b, BUILD_ENCODE);
	TRY(table_write(&b->merge.input, ret));
	end_phase(b);
	return NULL;
}

struct err *build_table(const struct build_options *options, struct buf *ret, struct build_stats *stats)
{
	CLEANUP(freep) struct build *b = calloc(1, sizeof(*b));
	size_t before = ret->len;

	if (!b)
		return err_nomem();
	unsigned threads = options->threads ? options->threads : 1;
	b->options = options;
	b->account.max = options->memory_max;
	b->merge.account = &b->account;
	b->runner.threads = threads < BUILD_THREADS_MAX ? threads : BUILD_THREADS_MAX;
	b->runner.progress = options->progress ? forward_progress : NULL;
	b->runner.progress_context = b;
	struct err *e = run(b, ret);
	release_units(b);
	release_inputs(b);
	merge_deinit(&b->merge);
	if (e)
		ret->len = before;
	else if (stats)
		*stats = b->stats;
	return e;
}

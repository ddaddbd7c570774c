// SPDX-License-Identifier: Apache-2.0
/*
 * The verification finds nothing in the builder's tables of all fixtures, and finds every kind of mistake in a table
 * that was made wrong on purpose: the right table of one fixture is read address by address, one frame is changed, and it is
 * written again.
 */
#include "symbolizer/build/verify.h"

#include "symbolizer/build/build.h"
#include "symbolizer/build/debug_file.h"
#include "symbolizer/table/writer.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>

struct opened {
	struct elf_mapping binary, debug, package;
	struct buf bytes;
	struct table table;
};

static void close_all(struct opened *opened)
{
	elf_mapping_deinit(&opened->binary);
	elf_mapping_deinit(&opened->debug);
	elf_mapping_deinit(&opened->package);
	buf_deinit(&opened->bytes);
}

static void must(struct err *e)
{
	cr_assert_null(e, "%s", err_message(e));
}

static void open_fixture(const char *name, const char *debug, struct opened *ret)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_FIXTURES"), name);
	must(elf_mapping_open(path, &ret->binary));
	snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_FIXTURES"), debug);
	if (debug[0])
		must(elf_mapping_open(path, &ret->debug));
	must(split_package_find(&ret->binary, &ret->package));
	const struct build_image split = {.bytes = ret->package.bytes, .len = ret->package.len, .name = ret->package.path};
	struct split_search search CLEANUP(split_search_deinit) = {.binary = &ret->binary};
	const struct build_options options = {
		.binary = {.bytes = ret->binary.bytes, .len = ret->binary.len, .name = name},
		.debug = {.bytes = ret->debug.bytes, .len = ret->debug.len, .name = debug},
		.splits = &split,
		.split_count = ret->package.bytes ? 1 : 0,
		.find_split = split_search_find,
		.find_split_context = &search,
	};
	must(build_table(&options, &ret->bytes, NULL));
	must(table_open(ret->bytes.data, ret->bytes.len, &ret->table));
}

static struct verify_report check(const struct opened *opened, const struct table *table)
{
	const struct verify_request request = {
		.table = table, .binary = opened->binary.elf, .debug = opened->debug.elf, .samples = 2000, .seed = 7};
	static struct verify_report report;

	must(verify_table_here(&request, &report));
	return report;
}

Test(verify_table, agrees_on_every_fixture)
{
	char path[PATH_MAX], line[512];
	unsigned fixtures = 0, failures = 0;

	snprintf(path, sizeof(path), "%s/manifest", getenv("CAIRN_FIXTURES"));
	FILE *manifest = fopen(path, "r");
	cr_assert_not_null(manifest);
	while (fgets(line, sizeof(line), manifest)) {
		char name[256], debug[256] = "";
		struct opened opened CLEANUP(close_all) = {0};

		cr_assert_geq(sscanf(line, "%255s %255s", name, debug), 1);
		if (strncmp(name, "dwz", 3) == 0 || strncmp(name, "minidebug", 9) == 0)
			continue; /* the reference reads neither supplements nor MiniDebugInfo */
		open_fixture(name, debug, &opened);
		struct verify_report report = check(&opened, &opened.table);
		cr_assert_gt(report.addresses, 100, "%s: only %lu addresses", name, report.addresses);
		if (verify_difference_count(&report) > 0) {
			struct buf text CLEANUP(buf_deinit) = {0};
			must(verify_report_text(&report, &text));
			fprintf(stderr, "%s:\n%.*s", name, (int)text.len, (const char *)text.data);
			failures++;
		}
		fixtures++;
	}
	fclose(manifest);
	cr_assert_gt(fixtures, 120);
	cr_assert_eq(failures, 0, "%u of %u fixtures differ", failures, fixtures);
}

/* ---------------------------------------------------------------- tables made wrong */

enum mistake {
	MISTAKE_NONE,
	MISTAKE_MISSING,
	MISTAKE_EXTRA,
	MISTAKE_DEPTH,
	MISTAKE_LINE,
	MISTAKE_COLUMN,
	MISTAKE_FILE,
	MISTAKE_CALL_LINE,
	MISTAKE_CALL_COLUMN,
	MISTAKE_CALL_FILE,
	MISTAKE_INNER_NAME,
	MISTAKE_OUTER_NAME,
	MISTAKE_START_LINE,
};

enum { FRAMES = 64, ADDRESSES = 1 << 14, NODES = 1 << 17 };

/* The arrays of a table_input, with room for what one small fixture needs. */
struct rewrite {
	char text[1 << 23];
	struct table_input_file files[NODES];
	struct table_input_function functions[NODES];
	struct table_input_node nodes[NODES];
	struct table_input_row rows[ADDRESSES];
	struct table_input input;
};

static uint32_t put_text(struct rewrite *w, const char *text)
{
	size_t at = w->input.text_len;

	strcpy(w->text + at, text);
	w->input.text_len += strlen(text) + 1;
	return (uint32_t)at;
}

static uint32_t put_file(struct rewrite *w, const char *dir, const char *base)
{
	if (!base[0])
		return TABLE_NONE;
	w->files[w->input.file_count] = (struct table_input_file){.dir = put_text(w, dir), .base = put_text(w, base)};
	return (uint32_t)w->input.file_count++;
}

/* One chain, outermost first; the answer is the innermost node. */
static uint32_t put_chain(struct rewrite *w, const struct table_frame *frames, size_t count, uint64_t vaddr)
{
	uint32_t node = TABLE_NONE;

	for (size_t i = count; i-- > 0;) {
		struct table_input_function *function = &w->functions[w->input.function_count];
		struct table_input_node *added = &w->nodes[w->input.node_count];

		*function = (struct table_input_function){
			.name = put_text(w, frames[i].function), .file = TABLE_NONE, .start_line = frames[i].start_line};
		*added = (struct table_input_node){.parent = node, .function = (uint32_t)w->input.function_count++};
		if (node != TABLE_NONE) {
			added->call_file = put_file(w, frames[i + 1].dir, frames[i + 1].base);
			added->call_line = frames[i + 1].line;
			added->call_column = frames[i + 1].column;
		} else {
			added->entry_vaddr = vaddr;
		}
		node = (uint32_t)w->input.node_count++;
	}
	return node;
}

/* The chain at the one address gets the mistake. */
static size_t make_mistake(enum mistake mistake, struct table_frame *frames, size_t count)
{
	switch (mistake) {
	case MISTAKE_MISSING:
		return 0;
	case MISTAKE_EXTRA:
		frames[0] = (struct table_frame){.function = "nobody", .dir = "", .base = ""};
		return 1;
	case MISTAKE_DEPTH:
		return count - 1; /* without the outermost */
	case MISTAKE_LINE:
		frames[0].line++;
		return count;
	case MISTAKE_COLUMN:
		frames[0].column++;
		return count;
	case MISTAKE_FILE:
		frames[0].base = "another.c";
		return count;
	case MISTAKE_CALL_LINE:
		frames[1].line++;
		return count;
	case MISTAKE_CALL_COLUMN:
		frames[count - 1].column++;
		return count;
	case MISTAKE_CALL_FILE:
		frames[1].dir = "/elsewhere";
		return count;
	case MISTAKE_INNER_NAME:
		frames[0].function = "another";
		return count;
	case MISTAKE_OUTER_NAME:
		frames[count - 1].function = "another";
		return count;
	case MISTAKE_START_LINE:
		frames[1].start_line++;
		return count;
	default:
		return count;
	}
}

/* The first address of a row inside an inlined call in an inlined call; for MISTAKE_EXTRA the first behind a function. */
static bool fits(const struct table_frame *frames, size_t count, size_t count_before, uint32_t line_before, enum mistake mistake)
{
	if (mistake == MISTAKE_EXTRA)
		return count == 0 && count_before > 0;
	return count >= 3 && frames[0].line != line_before && frames[0].column > 0;
}

static void write_with(struct opened *opened, enum mistake mistake, struct buf *ret)
{
	struct rewrite *w CLEANUP(freep) = calloc(1, sizeof(*w));
	struct table_frame frames[FRAMES];
	size_t range_count = 0;
	const struct elffile_range *ranges = elffile_code_ranges(opened->binary.elf, &range_count);
	uint32_t line_before = 0;
	bool made = mistake == MISTAKE_NONE;

	cr_assert_not_null(w);
	for (size_t i = 0; i < range_count; i++) {
		size_t count_before = 0;

		for (uint64_t vaddr = ranges[i].low; vaddr < ranges[i].high; vaddr++) {
			size_t count = table_lookup(&opened->table, vaddr, frames, FRAMES);
			bool here = !made && fits(frames, count, count_before, line_before, mistake);

			line_before = count ? frames[0].line : 0;
			count_before = count;
			if (here)
				count = make_mistake(mistake, frames, count);
			made |= here;
			cr_assert_lt(w->input.row_count, ADDRESSES - 2);
			struct table_input_row *row = &w->rows[w->input.row_count++];
			*row = (struct table_input_row){.vaddr = vaddr, .node = put_chain(w, frames, count, ranges[i].low), .file = TABLE_NONE};
			if (count > 0) {
				row->file = put_file(w, frames[0].dir, frames[0].base);
				row->line = frames[0].line;
				row->column = frames[0].column;
			}
		}
		w->rows[w->input.row_count++] =
			(struct table_input_row){.vaddr = ranges[i].high, .node = TABLE_NONE, .file = TABLE_NONE};
	}
	cr_assert(made, "no address to make the mistake at");
	w->input.text = w->text;
	w->input.files = w->files;
	w->input.functions = w->functions;
	w->input.nodes = w->nodes;
	w->input.rows = w->rows;
	must(table_write(&w->input, ret));
}

/* Just this kind of difference must be seen, and shown. */
static void expect_seen(enum mistake mistake, enum verify_difference kind)
{
	struct opened opened CLEANUP(close_all) = {0};
	struct buf bytes CLEANUP(buf_deinit) = {0};
	struct table table;

	open_fixture("c-gcc-dw5-O2", "", &opened);
	write_with(&opened, mistake, &bytes);
	must(table_open(bytes.data, bytes.len, &table));
	struct verify_report report = check(&opened, &table);
	if (mistake == MISTAKE_NONE) {
		cr_assert_eq(verify_difference_count(&report), 0, "%s", report.shown[0]);
		return;
	}
	cr_assert_eq(report.differences[kind], 1, "%lu of this kind, first shown: %s", report.differences[kind], report.shown[0]);
	cr_assert_eq(verify_difference_count(&report), 1, "%s; %s", report.shown[0], report.shown[1]);
	cr_assert_neq(report.shown[0][0], '\0');
	cr_assert_eq(report.shown[1][0], '\0');
}

Test(verify_table, agrees_with_a_table_written_again) { expect_seen(MISTAKE_NONE, VERIFY_DIFFERENCES); }
Test(verify_table, sees_a_missing_chain) { expect_seen(MISTAKE_MISSING, VERIFY_MISSING); }
Test(verify_table, sees_an_extra_chain) { expect_seen(MISTAKE_EXTRA, VERIFY_EXTRA); }
Test(verify_table, sees_a_missing_outer_frame) { expect_seen(MISTAKE_DEPTH, VERIFY_DEPTH); }
Test(verify_table, sees_a_wrong_line) { expect_seen(MISTAKE_LINE, VERIFY_LINE); }
Test(verify_table, sees_a_wrong_column) { expect_seen(MISTAKE_COLUMN, VERIFY_LINE); }
Test(verify_table, sees_a_wrong_file) { expect_seen(MISTAKE_FILE, VERIFY_LINE); }
Test(verify_table, sees_a_wrong_call_line) { expect_seen(MISTAKE_CALL_LINE, VERIFY_CALL_SITE); }
Test(verify_table, sees_a_wrong_call_column) { expect_seen(MISTAKE_CALL_COLUMN, VERIFY_CALL_SITE); }
Test(verify_table, sees_a_wrong_call_file) { expect_seen(MISTAKE_CALL_FILE, VERIFY_CALL_SITE); }
Test(verify_table, sees_a_wrong_inner_name) { expect_seen(MISTAKE_INNER_NAME, VERIFY_NAME); }
Test(verify_table, sees_a_wrong_outer_name) { expect_seen(MISTAKE_OUTER_NAME, VERIFY_NAME); }
Test(verify_table, sees_a_wrong_start_line) { expect_seen(MISTAKE_START_LINE, VERIFY_START_LINE); }

Test(verify_table, sees_that_a_table_is_another_files)
{
	struct opened right CLEANUP(close_all) = {0};
	struct opened other CLEANUP(close_all) = {0};

	open_fixture("c-gcc-dw5-O2", "", &right);
	open_fixture("c-gcc-dw5-O0", "", &other);
	struct verify_report report = check(&right, &other.table);
	cr_assert_gt(verify_difference_count(&report), 500);
	cr_assert_neq(report.shown[VERIFY_SHOWN - 1][0], '\0');
}

Test(verify_table, gives_the_same_report_from_a_child)
{
	struct opened opened CLEANUP(close_all) = {0};
	struct verify_report here, there;

	open_fixture("cxx-clang19-dw5-O2", "", &opened);
	const struct verify_request request = {
		.table = &opened.table, .binary = opened.binary.elf, .samples = 100, .limits = {.memory_bytes = 1U << 30, .seconds = 60}};
	memset(&here, 0, sizeof(here));
	memset(&there, 0, sizeof(there));
	must(verify_table_here(&request, &here));
	must(verify_table(&request, &there));
	cr_assert_eq(memcmp(&here, &there, sizeof(here)), 0);
	cr_assert_gt(here.repaired_rows, 0, "the fixture has no row with epilogue_begin");
}

#ifndef __SANITIZE_ADDRESS__ /* which would report, rightly, what libdwarf does to its memory */
Test(verify_table, survives_damaged_dwarf)
{
	struct opened opened CLEANUP(close_all) = {0};
	unsigned differing = 0;

	open_fixture("c-clang19-dw5-O2", "", &opened);
	const struct elffile_section *info = elffile_find(opened.binary.elf, ".debug_info");
	uint8_t *bytes CLEANUP(freep) = malloc(opened.binary.len);
	cr_assert_not_null(bytes);
	for (unsigned round = 0; round < 40; round++) {
		struct elffile *damaged CLEANUP(elffile_closep) = NULL;
		struct verify_report report = {0};

		memcpy(bytes, opened.binary.bytes, opened.binary.len);
		for (unsigned i = 0; i < 4; i++)
			bytes[info->foff + (round * 131 + i * 977) % info->size] ^= (uint8_t)(1 + round * 37);
		must(elffile_open(bytes, opened.binary.len, "damaged", NULL, &damaged));
		const struct verify_request request = {
			.table = &opened.table, .binary = damaged, .limits = {.memory_bytes = 1U << 30, .seconds = 10}};
		struct err *e = verify_table(&request, &report);
		cr_assert(!e || err_code(e) == ERR_INTERNAL || err_code(e) == ERR_LIMIT, "%s", err_message(e));
		differing += e != NULL || verify_difference_count(&report) > 0;
		err_free(e);
	}
	cr_assert_gt(differing, 20, "damage was seen in %u of 40 rounds only", differing);
}
#endif

/* ---------------------------------------------------------------- the child */

static struct err *give_seven(void *context, void *result)
{
	*(int *)result = *(int *)context + 2;
	return NULL;
}

static struct err *refuse(void *context, void *result)
{
	(void)context;
	(void)result;
	return err_new(ERR_FORMAT, "a.debug: broken");
}

static struct err *die(void *context, void *result)
{
	(void)result;
	(void)raise(*(int *)context);
	return NULL;
}

static struct err *leave(void *context, void *result)
{
	(void)context;
	(void)result;
	_exit(3);
}

static struct err *hang(void *context, void *result)
{
	(void)result;
	while (*(volatile int *)context)
		;
	return NULL;
}

static struct err *run_child(struct err *(*work)(void *, void *), int argument, int *result)
{
	const struct verify_child_limits limits = {.memory_bytes = 1U << 30, .seconds = 1};

	*result = -1;
	return verify_child_run(work, &argument, &limits, result, sizeof(*result));
}

static void expect_child_error(struct err *(*work)(void *, void *), int argument, enum err_code code, const char *words)
{
	int result;
	struct err *e = run_child(work, argument, &result);

	cr_assert_not_null(e);
	cr_assert_not_null(strstr(err_message(e), words), "%s", err_message(e));
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert_eq(result, -1, "the result was touched");
	err_free(e);
}

Test(verify_child_run, brings_the_result_back)
{
	int result;
	must(run_child(give_seven, 5, &result));
	cr_assert_eq(result, 7);
}

Test(verify_child_run, brings_the_error_back) { expect_child_error(refuse, 0, ERR_FORMAT, "a.debug: broken"); }
Test(verify_child_run, reports_a_crash) { expect_child_error(die, SIGKILL, ERR_INTERNAL, "crashed: signal 9"); }
Test(verify_child_run, reports_an_end_without_a_result) { expect_child_error(leave, 0, ERR_INTERNAL, "status 3"); }
Test(verify_child_run, reports_a_hang) { expect_child_error(hang, 1, ERR_LIMIT, "longer than its time limit"); }

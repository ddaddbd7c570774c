// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/merge.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* Units made by hand: chunk i of a unit is [low, high) with one row, function i named "f<i>". */
struct chunk {
	uint64_t low, high;
	bool lines_only;
};

static struct account account;

static struct unit_result unit_of(const char *prefix, const struct chunk *chunks, size_t count)
{
	struct unit_result unit = {.skipped = NULL};
	char name[32];

	for (size_t i = 0; i < count; i++) {
		cr_assert_null(ARRAY_ROOM(&account, &unit.functions, 1));
		cr_assert_null(ARRAY_ROOM(&account, &unit.nodes, 1));
		cr_assert_null(ARRAY_ROOM(&account, &unit.rows, 1));
		cr_assert_null(ARRAY_ROOM(&account, &unit.chunks, 1));
		int len = snprintf(name, sizeof(name), "%s%zu", prefix, i);
		unit.functions.items[unit.functions.count++] =
			(struct walk_function){.text_offset = (uint32_t)unit.text.len, .decl_file = WALK_NONE};
		cr_assert_null(buf_append(&unit.text, name, (size_t)len + 1));
		unit.nodes.items[unit.nodes.count++] =
			(struct walk_node){.parent = WALK_NONE, .function = (uint32_t)i, .entry_vaddr = chunks[i].low};
		unit.rows.items[unit.rows.count++] = (struct unit_row){.vaddr = chunks[i].low,
			.node = chunks[i].lines_only ? UNIT_NONE : (uint32_t)i,
			.file = UNIT_NONE,
			.line = (uint32_t)i + 1};
		unit.chunks.items[unit.chunks.count++] = (struct unit_chunk){
			.low = chunks[i].low, .high = chunks[i].high, .first = i, .count = 1, .lines_only = chunks[i].lines_only};
	}
	account.held += unit.text.cap;
	return unit;
}

/* "f0:1 100-110 ..": function, line, range of each row. */
static const char *show(const struct merge *m)
{
	static char text[4096];
	size_t at = 0;

	text[0] = 0;
	for (size_t i = 0; i + 1 < m->input.row_count; i++) {
		const struct table_input_row *row = &m->input.rows[i];
		if (row->node == TABLE_NONE)
			continue;
		const char *name = m->input.text + m->input.functions[m->input.nodes[row->node].function].name;
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s:%u %lx-%lx", at ? ", " : "", name, row->line, row->vaddr, row[1].vaddr);
	}
	return text;
}

static void expect_merged(struct unit_result *units, size_t count, const struct symbols *symbols, const char *expected)
{
	struct merge m = {.account = &account, .symbols = {{.symbols = symbols, .source = 4}}};

	struct err *e = merge_run(&m, units, count, count);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_expect_str_eq(show(&m), expected);
	merge_deinit(&m);
	for (size_t i = 0; i < count; i++)
		unit_result_deinit(&units[i], &account);
	cr_expect_eq(account.held, 0);
}

#define UNIT(prefix, ...) unit_of(prefix, (const struct chunk[]){__VA_ARGS__}, sizeof((const struct chunk[]){__VA_ARGS__}) / sizeof(struct chunk))

Test(merge_run, sorts_the_functions_of_all_units)
{
	struct unit_result units[] = {UNIT("a", {0x100, 0x110, false}, {0x300, 0x310, false}), UNIT("b", {0x200, 0x210, false})};

	expect_merged(units, 2, NULL, "a0:1 100-110, b0:1 200-210, a1:2 300-310");
}

Test(merge_run, lets_a_function_go_on_to_its_end_where_units_overlap)
{
	struct unit_result units[] = {UNIT("a", {0x108, 0x120, false}), UNIT("b", {0x100, 0x110, false}, {0x112, 0x118, false})};

	expect_merged(units, 2, NULL, "b0:1 100-110, a0:1 110-120");
}

Test(merge_run, fills_gaps_with_lines_and_then_with_symbols)
{
	struct symbol items[] = {{.vaddr = 0x100, .high = 0x180, .name = "s", .name_len = 1, .sized = true},
		{.vaddr = 0x190, .high = 0x1a0, .name = "t", .name_len = 1, .sized = true}};
	struct symbol_range ranges[] = {{0x100, 0x180, 0}, {0x190, 0x1a0, 1}};
	struct symbols symbols = {.items = items, .count = 2, .ranges = ranges, .range_count = 2};
	struct unit_result units[] = {UNIT("a", {0x120, 0x130, false}), UNIT("l", {0x110, 0x140, true}, {0x178, 0x188, true})};

	expect_merged(units, 2, &symbols,
		"s:0 100-110, s:1 110-120, a0:1 120-130, s:1 130-140, s:0 140-178, s:2 178-180, :2 180-188, t:0 190-1a0");
}

/* Of so many functions with one name and line, further ones are told apart by their file no more. */
Test(merge_run, stops_telling_functions_apart_by_file_after_a_limit)
{
	struct merge m = {.account = &account};
	struct chunk chunks[MERGE_SAME_NAME_MAX + 50];
	char path[32];

	for (size_t i = 0; i < ARRAY_SIZE(chunks); i++)
		chunks[i] = (struct chunk){.low = 0x100 + 16 * i, .high = 0x108 + 16 * i};
	struct unit_result unit = unit_of("f", chunks, ARRAY_SIZE(chunks));
	account.held -= unit.text.cap;
	for (size_t i = 0; i < ARRAY_SIZE(chunks); i++) {
		unit.functions.items[i].text_offset = 0;
		unit.functions.items[i].decl_file = (uint32_t)i;
		cr_assert_null(ARRAY_ROOM(&account, &unit.files, 1));
		unit.files.items[unit.files.count++] = (uint32_t)unit.text.len;
		int len = snprintf(path, sizeof(path), "/src/%zu.c", i);
		cr_assert_null(buf_append(&unit.text, path, (size_t)len + 1));
	}
	account.held += unit.text.cap;
	cr_assert_null(merge_run(&m, &unit, 1, 1));
	cr_expect_eq(m.input.function_count, MERGE_SAME_NAME_MAX);
	cr_expect_eq(m.input.file_count, ARRAY_SIZE(chunks));
	merge_deinit(&m);
	unit_result_deinit(&unit, &account);
	cr_expect_eq(account.held, 0);
}

Test(merge_run, leaves_out_aliases_past_the_limit)
{
	enum { NAMES = MERGE_ALIASES_MAX + 10 };
	static struct symbol items[NAMES];
	static char names[NAMES][8];
	struct symbols symbols = {.items = items, .count = NAMES};
	struct merge m = {.account = &account, .symbols = {{.symbols = &symbols, .source = 4}, {.symbols = &symbols, .source = 16}}};
	struct unit_result unit = UNIT("a", {0x100, 0x110, false});

	for (size_t i = 0; i < NAMES; i++) {
		int len = snprintf(names[i], sizeof(names[i]), "n%zu", i);
		items[i] = (struct symbol){.vaddr = 0x100, .high = 0x110, .name = names[i], .name_len = (uint32_t)len, .sized = true};
	}
	cr_assert_null(merge_run(&m, &unit, 1, 1));
	cr_expect_eq(m.input.alias_count, MERGE_ALIASES_MAX);
	merge_deinit(&m);
	unit_result_deinit(&unit, &account);
	cr_expect_eq(account.held, 0);
}

/* A name of both tables, and the function's own, are no alias twice. */
Test(merge_run, names_each_alias_once)
{
	struct symbol items[] = {{.vaddr = 0x100, .high = 0x110, .name = "a0", .name_len = 2}, {.vaddr = 0x100, .high = 0x110, .name = "b", .name_len = 1}};
	struct symbols symbols = {.items = items, .count = 2};
	struct merge m = {.account = &account, .symbols = {{.symbols = &symbols, .source = 4}, {.symbols = &symbols, .source = 16}}};
	struct unit_result unit = UNIT("a", {0x100, 0x110, false});

	cr_assert_null(merge_run(&m, &unit, 1, 1));
	cr_assert_eq(m.input.alias_count, 1);
	cr_expect_str_eq(m.input.text + m.input.aliases[0], "b");
	merge_deinit(&m);
	unit_result_deinit(&unit, &account);
}

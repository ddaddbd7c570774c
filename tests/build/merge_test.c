// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/merge.h"
#include "symbolizer/table/table.h"

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

/* .gnu_debugdata does not repeat what .dynsym has: crtstuff's sizeless frame_dummy must not run over exported functions. */
Test(merge_run, ends_a_sizeless_symbol_where_another_table_has_one)
{
	struct symbol mini[] = {{.vaddr = 0x100, .high = 0x180, .name = "sizeless", .name_len = 8},
		{.vaddr = 0x180, .high = 0x190, .name = "sized", .name_len = 5, .sized = true}};
	struct symbol dynamic[] = {{.vaddr = 0x140, .high = 0x150, .name = "exported", .name_len = 8, .sized = true},
		{.vaddr = 0x184, .high = 0x188, .name = "inside", .name_len = 6, .sized = true}};
	struct symbol_range mini_ranges[] = {{0x100, 0x180, 0}, {0x180, 0x190, 1}}, dynamic_ranges[] = {{0x140, 0x150, 0}, {0x184, 0x188, 1}};
	struct symbols tables[] = {{.items = mini, .count = 2, .ranges = mini_ranges, .range_count = 2},
		{.items = dynamic, .count = 2, .ranges = dynamic_ranges, .range_count = 2}};
	struct merge m = {.account = &account, .symbols = {{.symbols = &tables[0], .source = 8}, {.symbols = &tables[1], .source = 16}}};

	cr_assert_null(merge_run(&m, NULL, 0, 0));
	cr_expect_str_eq(show(&m), "sizeless:0 100-140, exported:0 140-150, sized:0 180-190");
	merge_deinit(&m);
	cr_expect_eq(account.held, 0);
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

/* ---- Pieces of functions ---- */

static struct symbol symbol_of(const char *name, uint64_t low, uint64_t high)
{
	return (struct symbol){.vaddr = low, .high = high, .name = name, .name_len = (uint32_t)strlen(name), .sized = true};
}

static struct unit_result unit_in_pieces(size_t count)
{
	struct unit_result unit = UNIT("f", {0x1000, 0x1010, false}, {0x2000, 0x2000 + count, false});

	unit.rows.items[1].node = 0; /* the function goes on in the second chunk */
	return unit;
}

static const struct table_input_node *node_at(const struct merge *m, uint64_t vaddr)
{
	size_t i = 0;

	while (i + 1 < m->input.row_count && m->input.rows[i + 1].vaddr <= vaddr)
		i++;
	return &m->input.nodes[m->input.rows[i].node];
}

static const char *alias_of(const struct merge *m, const struct table_input_node *node)
{
	return node->alias_count == 1 ? m->input.text + m->input.aliases[node->alias_first] : "";
}

Test(merge_run, gives_a_piece_of_a_function_its_symbol_and_entry)
{
	struct symbol items[] = {symbol_of("f0", 0x1000, 0x1010), symbol_of("other", 0x1000, 0x1010), symbol_of("f0.cold", 0x2004, 0x200c)};
	struct symbol_range ranges[] = {{0x1000, 0x1010, 0}, {0x2004, 0x200c, 2}};
	struct symbols symbols = {.items = items, .count = 3, .ranges = ranges, .range_count = 2};
	struct merge m = {.account = &account, .symbols = {{.symbols = &symbols, .source = 4}}};
	struct unit_result unit = unit_in_pieces(0x10);

	unit.functions.items[0].start_line = 7;
	cr_assert_null(merge_run(&m, &unit, 1, 1));
	cr_expect_str_eq(show(&m), "f0:1 1000-1010, f0:2 2000-2004, f0.cold:2 2004-200c, f0:2 200c-2010");
	const struct table_input_node *function = node_at(&m, 0x2000), *piece = node_at(&m, 0x2004);
	cr_expect_eq(function->entry_vaddr, 0x1000);
	cr_expect_eq(piece->entry_vaddr, 0x2004);
	cr_expect_str_eq(alias_of(&m, function), "other");
	cr_expect_str_eq(alias_of(&m, piece), "other");
	cr_expect_eq(m.input.functions[piece->function].start_line, 7);
	cr_expect_eq(m.input.sources, TABLE_FROM_DWARF | TABLE_FROM_SYMTAB);
	merge_deinit(&m);
	unit_result_deinit(&unit, &account);
	cr_expect_eq(account.held, 0);
}

Test(merge_run, keeps_the_inlined_calls_of_a_piece_once)
{
	struct symbol items[] = {symbol_of("f0.cold.1", 0x2000, 0x2010)};
	struct symbol_range ranges[] = {{0x2000, 0x2010, 0}};
	struct symbols symbols = {.items = items, .count = 1, .ranges = ranges, .range_count = 1};
	struct merge m = {.account = &account, .symbols = {{.symbols = &symbols, .source = 4}}};
	struct unit_result unit = unit_in_pieces(0x10);

	/* Function 1 is inlined into 0; three rows of it, the one in the middle of 0 itself. */
	unit.nodes.items[1] = (struct walk_node){.parent = 0, .function = 1, .call_line = 5};
	cr_assert_null(ARRAY_ROOM(&account, &unit.rows, 2));
	for (uint32_t i = 0; i < 3; i++)
		unit.rows.items[1 + i] = (struct unit_row){.vaddr = 0x2000 + 4 * i, .node = i == 1 ? 0 : 1, .file = UNIT_NONE, .line = 2};
	unit.rows.count = 4;
	unit.chunks.items[1].count = 3;
	cr_assert_null(merge_run(&m, &unit, 1, 1));
	const struct table_input_node *call = node_at(&m, 0x2000), *function = node_at(&m, 0x2004);
	cr_assert_neq(call->parent, TABLE_NONE);
	cr_expect_eq(call->call_line, 5);
	cr_expect_str_eq(m.input.text + m.input.functions[call->function].name, "f1");
	cr_expect_eq(&m.input.nodes[call->parent], function);
	cr_expect_str_eq(m.input.text + m.input.functions[function->function].name, "f0.cold.1");
	cr_expect_eq(node_at(&m, 0x2008), call);
	cr_expect_eq(m.input.node_count, 4);
	merge_deinit(&m);
	unit_result_deinit(&unit, &account);
}

/* clang's basic block sections: the ranges begin with a piece, and the entry comes last. */
Test(merge_run, finds_the_entry_of_a_function_whose_ranges_begin_with_a_piece)
{
	struct symbol items[] = {symbol_of("f0.__part.1", 0x1000, 0x1010), symbol_of("f0", 0x2000, 0x2010), symbol_of("alias", 0x2000, 0x2010)};
	struct symbol_range ranges[] = {{0x1000, 0x1010, 0}, {0x2000, 0x2010, 1}};
	struct symbols symbols = {.items = items, .count = 3, .ranges = ranges, .range_count = 2};
	struct merge m = {.account = &account, .symbols = {{.symbols = &symbols, .source = 4}}};
	struct unit_result unit = unit_in_pieces(0x10);

	cr_assert_null(merge_run(&m, &unit, 1, 1));
	cr_expect_str_eq(show(&m), "f0.__part.1:1 1000-1010, f0:2 2000-2010");
	cr_expect_eq(node_at(&m, 0x1000)->entry_vaddr, 0x1000);
	cr_expect_eq(node_at(&m, 0x1000)->alias_count, 0);
	cr_expect_eq(node_at(&m, 0x2000)->entry_vaddr, 0x2000);
	cr_expect_str_eq(alias_of(&m, node_at(&m, 0x2000)), "alias");
	merge_deinit(&m);
	unit_result_deinit(&unit, &account);
}

/* Names that another function's pieces have, and clones' names, are not this one's. */
Test(merge_run, takes_no_other_functions_piece)
{
	struct symbol items[] = {symbol_of("f00.cold", 0x2000, 0x2004), symbol_of("f0.part.0", 0x2004, 0x2008), symbol_of("f0cold", 0x2008, 0x200c)};
	struct symbol_range ranges[] = {{0x2000, 0x2004, 0}, {0x2004, 0x2008, 1}, {0x2008, 0x200c, 2}};
	struct symbols symbols = {.items = items, .count = 3, .ranges = ranges, .range_count = 3};
	struct unit_result unit = unit_in_pieces(0x10);

	expect_merged(&unit, 1, &symbols, "f0:1 1000-1010, f0:2 2000-2010");
}

Test(merge_run, looks_at_so_many_names_of_a_piece_only)
{
	enum { NAMES = MERGE_PIECE_NAMES_MAX + 1 };
	static struct symbol items[NAMES];
	static char names[NAMES][16];
	struct symbol_range ranges[] = {{0x2000, 0x2010, 0}};
	struct symbols symbols = {.items = items, .count = NAMES, .ranges = ranges, .range_count = 1};

	for (size_t with = 0; with < 2; with++) {
		struct unit_result unit = unit_in_pieces(0x10);
		for (size_t i = 0; i < NAMES; i++) {
			snprintf(names[i], sizeof(names[i]), i == NAMES - 1 - with ? "f0.cold" : "n%zu.cold", i);
			items[i] = symbol_of(names[i], 0x2000, 0x2010);
		}
		expect_merged(&unit, 1, &symbols, with ? "f0:1 1000-1010, f0.cold:2 2000-2010" : "f0:1 1000-1010, f0:2 2000-2010");
	}
}

Test(merge_run, leaves_the_function_its_symbol_after_so_many_pieces)
{
	enum { NODES = 2, PIECES = MERGE_PIECE_NODES_MAX + NODES + 10 };
	static struct symbol items[PIECES];
	static struct symbol_range ranges[PIECES];
	static char names[PIECES][16];
	struct symbols symbols = {.items = items, .count = PIECES, .ranges = ranges, .range_count = PIECES};
	struct merge m = {.account = &account, .symbols = {{.symbols = &symbols, .source = 4}}};
	struct unit_result unit = unit_in_pieces(PIECES);

	for (uint32_t i = 0; i < PIECES; i++) {
		snprintf(names[i], sizeof(names[i]), "f0.cold.%u", i);
		items[i] = symbol_of(names[i], 0x2000 + i, 0x2001 + i);
		ranges[i] = (struct symbol_range){0x2000 + i, 0x2001 + i, i};
	}
	cr_assert_null(merge_run(&m, &unit, 1, 1));
	cr_expect_eq(m.input.node_count, NODES + MERGE_PIECE_NODES_MAX + NODES);
	cr_expect_eq(node_at(&m, 0x2000 + MERGE_PIECE_NODES_MAX + NODES - 1)->entry_vaddr, 0x2000 + MERGE_PIECE_NODES_MAX + NODES - 1);
	cr_expect_eq(node_at(&m, 0x2000 + PIECES - 1)->entry_vaddr, 0x1000);
	merge_deinit(&m);
	unit_result_deinit(&unit, &account);
	cr_expect_eq(account.held, 0);
}

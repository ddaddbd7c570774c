// SPDX-License-Identifier: Apache-2.0
/* The reference walk on DWARF written by hand: what it keeps, what it leaves out, and its limits. */
#include "symbolizer/build/reference.h"

#include "tests/build/dwarf_image.h"

#include <criterion/criterion.h>

static struct dwarf_image d;

static void read_reference(struct reference *reference)
{
	struct elffile *file CLEANUP(elffile_closep) = NULL;

	dwarf_finish(&d);
	struct err *e = elffile_open(d.elf.bytes, d.elf.len, "t", NULL, &file);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	e = reference_add_dwarf(reference, file);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	e = reference_add_symbols(reference, file);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	reference_sort(reference);
}

static const char *text_of(const struct reference *reference, uint32_t id)
{
	return id == REFERENCE_NONE ? "(none)" : intern_text(&reference->text, id);
}

static void rows_from_1000(unsigned bytes)
{
	dwarf_lines(&d);
	line_address(&d, 0x1000);
	line_row(&d, 0, 1, 1, 3, 5);
	line_end(&d, bytes);
	dwarf_lines_end(&d);
}

Test(reference_add_dwarf, reads_a_function_a_call_rows_and_symbols)
{
	struct reference r CLEANUP(reference_deinit) = {0};

	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	uint32_t g = dwarf_here(&d);
	dwarf_abstract(&d, "g", "_Z1gv", 30);
	dwarf_function(&d, "f", 3, 0x1000, 0x40);
	dwarf_call(&d, g, 0x1010, 0x10, 7);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	rows_from_1000(0x40);
	dwarf_symbol(&d, "f@@V1", 0x1000, 0x40);
	read_reference(&r);

	cr_assert_eq(r.failures, 0, "%s", r.failure);
	cr_assert_eq(r.nodes.count, 2);
	const struct reference_node *call = &r.nodes.items[1];
	cr_assert_eq(r.nodes.items[0].parent, REFERENCE_NONE);
	cr_assert_eq(call->parent, 0);
	cr_assert_eq(call->call_line, 7);
	cr_assert_str_eq(text_of(&r, call->call_file), "/src/a.c");
	cr_assert_str_eq(text_of(&r, r.functions.items[call->function].linkage), "_Z1gv");
	cr_assert_str_eq(text_of(&r, r.functions.items[call->function].name), "g");
	cr_assert_eq(r.functions.items[call->function].line, 30);
	cr_assert_eq(r.ranges.count, 2);
	cr_assert_eq(r.ranges.items[1].low, 0x1010);
	cr_assert_eq(r.ranges.items[1].high, 0x1020);
	cr_assert_eq(r.sequences.count, 1);
	cr_assert_eq(r.sequences.items[0].high, 0x1040);
	cr_assert_str_eq(text_of(&r, r.rows.items[0].file), "/src/a.c");
	cr_assert_eq(r.rows.items[0].column, 5);
	cr_assert_eq(r.symbols.count, 1);
	cr_assert_str_eq(text_of(&r, r.symbols.items[0].name), "f");
}

Test(reference_add_dwarf, counts_tombstones_and_leaves_them_out)
{
	struct reference r CLEANUP(reference_deinit) = {0};

	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "dropped", 3, 0, 0x2000);
	dwarf_close(&d);
	dwarf_function(&d, "kept", 4, 0x1000, 0x10);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	line_address(&d, 0);
	line_row(&d, 0, 1, 1, 3, 0);
	line_end(&d, 0x2000);
	dwarf_lines_end(&d);
	read_reference(&r);

	cr_assert_eq(r.tombstones, 2);
	cr_assert_eq(r.ranges.count, 1);
	cr_assert_eq(r.ranges.items[0].low, 0x1000);
	cr_assert_eq(r.sequences.count, 0);
	cr_assert_eq(r.rows.count, 0);
}

Test(reference_add_dwarf, decodes_a_shared_line_table_once)
{
	struct reference r CLEANUP(reference_deinit) = {0};

	dwarf_begin(&d, 4);
	for (int i = 0; i < 2; i++) {
		dwarf_unit(&d, 0);
		dwarf_function(&d, i ? "b" : "a", 3, 0x1000 + 0x10U * (unsigned)i, 0x10);
		dwarf_close(&d);
		dwarf_close(&d);
		dwarf_unit_end(&d);
	}
	rows_from_1000(0x20);
	read_reference(&r);

	cr_assert_eq(r.units, 2);
	cr_assert_eq(r.line_tables, 1);
	cr_assert_eq(r.sequences.count, 1);
}

Test(reference_add_dwarf, ends_a_cycle_of_references)
{
	struct reference r CLEANUP(reference_deinit) = {0};

	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	uint32_t link = dwarf_here(&d);
	put(&d, &d.info, CODE_LINK, 1); /* its own specification */
	put(&d, &d.info, link, 4);
	dwarf_function(&d, "f", 3, 0x1000, 0x40);
	dwarf_call(&d, link, 0x1010, 0x10, 7);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	rows_from_1000(0x40);
	read_reference(&r);

	cr_assert_eq(r.nodes.count, 2);
	cr_assert_eq(r.functions.items[r.nodes.items[1].function].name, REFERENCE_NONE);
}

Test(reference_add_dwarf, counts_a_nesting_past_its_limit_as_a_failure)
{
	struct reference r CLEANUP(reference_deinit) = {0};
	const unsigned levels = 4100;

	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "f", 3, 0x1000, 0x40);
	for (unsigned i = 0; i < levels; i++)
		put(&d, &d.info, CODE_BLOCK, 1);
	for (unsigned i = 0; i < levels + 2; i++)
		dwarf_close(&d);
	dwarf_unit_end(&d);
	rows_from_1000(0x40);
	read_reference(&r);

	cr_assert_eq(r.failures, 1);
	cr_assert_str_eq(r.failure, "DIEs nest deeper than 4096");
	cr_assert_eq(r.nodes.count, 1);
}

Test(reference_add_dwarf, counts_a_unit_that_libdwarf_refuses)
{
	struct reference r CLEANUP(reference_deinit) = {0};

	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	rows_from_1000(0x10);
	patch(&d, &d.info, 4, 77, 2); /* the version */
	read_reference(&r);

	cr_assert_eq(r.failures, 1);
	cr_assert_not_null(strstr(r.failure, "t: .debug_info"), "%s", r.failure);
	cr_assert_not_null(strstr(r.failure, "libdwarf: "), "%s", r.failure);
}

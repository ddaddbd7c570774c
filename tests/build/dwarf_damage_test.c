// SPDX-License-Identifier: Apache-2.0
/* Damaged and malicious DWARF: what is damaged is left out with a reason that names the place, the rest stands, and nothing loops. */
#include "tests/build/dwarf_image.h"

#include <criterion/criterion.h>

static struct dwarf_image d;
static struct buf table;
static struct build_stats stats;

static void build(void)
{
	dwarf_finish(&d);
	struct err *e = dwarf_build(&d, &table, &stats);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
}

static void expect_error(enum err_code code, const char *message)
{
	struct buf untouched = {0};

	dwarf_finish(&d);
	struct err *e = dwarf_build(&d, &untouched, &stats);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), code, "%s", err_message(e));
	cr_expect(strstr(err_message(e), message) != NULL, "\"%s\" is not in \"%s\"", message, err_message(e));
	cr_expect_eq(untouched.len, 0);
	err_free(e);
	buf_deinit(&untouched);
}

#define ASK(vaddr, answer) cr_expect_str_eq(dwarf_ask(&table, vaddr), answer)

static void expect_reason(const char *reason)
{
	cr_expect(strstr(stats.reason, reason) != NULL, "\"%s\" is not in \"%s\"", reason, stats.reason);
}

/* A sound unit with f at 0x1000 and an empty line table at 0: it must survive whatever else the image has. */
static void begin_sound(unsigned version)
{
	dwarf_begin(&d, version);
	dwarf_lines(&d);
	dwarf_lines_end(&d);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "sound", 1, 0x1000, 0x10);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
}

/* Builds; the sound unit is there, the other one is skipped for this reason. */
static void expect_skipped(const char *reason)
{
	build();
	ASK(0x1000, "sound :0:0");
	cr_expect_eq(stats.skipped_units, 1);
	expect_reason(reason);
	buf_deinit(&table);
}

static void expect_damaged(const char *reason)
{
	build();
	ASK(0x1000, "sound :0:0");
	cr_expect_eq(stats.skipped_units, 0);
	cr_expect_gt(stats.damaged, 0);
	expect_reason(reason);
	buf_deinit(&table);
}

static void bad_function(void)
{
	dwarf_function(&d, "bad", 1, 0x1100, 0x10);
	dwarf_close(&d);
}

Test(build_damage, skips_a_unit_of_an_unknown_version)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	patch(&d, &d.info, d.unit_at + 4, 9, 2);
	expect_skipped("t: .debug_info+0x");
	expect_reason("a unit of DWARF version 9");
}

Test(build_damage, skips_a_unit_whose_length_is_absurd)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	bad_function();
	patch(&d, &d.info, d.unit_at, 0xffffff00, 4);
	expect_skipped("a unit of 0xffffff00 bytes");
}

Test(build_damage, skips_a_unit_whose_64_bit_length_is_absurd)
{
	begin_sound(4);
	put(&d, &d.info, UINT32_MAX, 4);
	put(&d, &d.info, UINT64_MAX, 8);
	put(&d, &d.info, 4, 2);
	expect_skipped("a unit of 0xffffffffffffffff bytes");
}

Test(build_damage, skips_a_unit_with_addresses_of_a_strange_size)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	dwarf_unit_end(&d);
	patch(&d, &d.info, d.unit_at + 10, 3, 1);
	expect_skipped("addresses of 3 bytes");
}

Test(build_damage, skips_a_unit_that_ends_in_its_header)
{
	begin_sound(5);
	put(&d, &d.info, 4, 4);
	put(&d, &d.info, 5, 2);
	put(&d, &d.info, DW_UT_compile, 1);
	put(&d, &d.info, 8, 1);
	expect_skipped("the unit ends in its header");
}

Test(build_damage, skips_a_unit_that_ends_in_the_middle_of_an_entry)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	bad_function();
	d.info.len -= 10;
	dwarf_unit_end(&d);
	expect_skipped("the unit ends in the middle of an entry");
}

Test(build_damage, skips_a_unit_that_uses_an_abbreviation_that_is_not_defined)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	put(&d, &d.info, 99, 1);
	dwarf_unit_end(&d);
	expect_skipped("abbreviation 99 is not defined");
}

Test(build_damage, skips_a_unit_whose_abbreviations_lie_outside_of_their_section)
{
	begin_sound(4);
	dwarf_unit_header(&d, 0x10000);
	put(&d, &d.info, 1, 1);
	dwarf_unit_end(&d);
	expect_skipped("t: .debug_abbrev+0x0: no abbreviations at 0x10000");
}

Test(build_damage, skips_a_unit_whose_abbreviations_have_no_end)
{
	begin_sound(4);
	dwarf_unit_header(&d, (uint32_t)d.abbrev.len);
	put(&d, &d.info, 1, 1);
	dwarf_unit_end(&d);
	put(&d, &d.abbrev, 0x01112e01, 4);
	expect_skipped(".debug_abbrev+0x");
}

Test(build_damage, skips_a_unit_with_a_form_that_is_not_known)
{
	begin_sound(4);
	dwarf_unit_header(&d, (uint32_t)d.abbrev.len);
	put(&d, &d.info, 1, 1);
	dwarf_unit_end(&d);
	dwarf_abbrev(&d, 1, DW_TAG_compile_unit, false, PAIRS(DW_AT_name, 0x7e));
	put(&d, &d.abbrev, 0, 1);
	expect_skipped("form 0x7e is not known");
}

Test(build_damage, skips_a_unit_that_does_not_begin_with_a_unit)
{
	begin_sound(4);
	dwarf_unit_header(&d, 0);
	bad_function();
	dwarf_unit_end(&d);
	expect_skipped("the unit does not begin with a unit");
}

Test(build_damage, stops_at_an_abbreviation_code_of_endless_bytes)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	for (unsigned i = 0; i < 64; i++)
		put(&d, &d.info, 0xff, 1);
	dwarf_unit_end(&d);
	expect_skipped(".debug_info+0x");
}

Test(build_damage, stops_at_a_form_that_leads_to_itself)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	put(&d, &d.info, CODE_INDIRECT, 1);
	for (unsigned i = 0; i < 100; i++)
		put(&d, &d.info, DW_FORM_indirect, 1);
	dwarf_unit_end(&d);
	expect_skipped("the unit ends in the middle of an entry");
}

Test(build_damage, reads_a_form_behind_an_indirect_one)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	put(&d, &d.info, CODE_INDIRECT, 1);
	put(&d, &d.info, DW_FORM_string, 1);
	put_text(&d, &d.info, "behind");
	put(&d, &d.info, 0x1100, 8);
	put(&d, &d.info, 0x10, 4);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	build();
	ASK(0x1100, "behind :0:0");
	buf_deinit(&table);
}

/* Each of two declarations is the specification of the other. */
Test(build_damage, leaves_a_cycle_of_references_without_a_name)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	uint32_t first = dwarf_here(&d);
	put(&d, &d.info, CODE_LINK, 1);
	put(&d, &d.info, first + 5, 4);
	put(&d, &d.info, CODE_LINK, 1);
	put(&d, &d.info, first, 4);
	dwarf_function(&d, "f", 1, 0x1100, 0x10);
	dwarf_call(&d, first, 0x1104, 4, 5);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	build();
	ASK(0x1104, " :0:0 < f /src/a.c:5:2");
	expect_reason("a cycle of origins");
	buf_deinit(&table);
}

Test(build_damage, leaves_a_reference_to_nowhere_without_a_name)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "f", 1, 0x1100, 0x10);
	dwarf_call(&d, 0x7fffffff, 0x1104, 4, 5);
	dwarf_close(&d);
	dwarf_call(&d, 1, 0x1108, 4, 6); /* into the header */
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	build();
	ASK(0x1104, " :0:0 < f /src/a.c:5:2");
	ASK(0x1108, " :0:0 < f /src/a.c:6:2");
	cr_expect_eq(stats.damaged, 2);
	expect_reason("a reference leads here, where nothing is");
	buf_deinit(&table);
}

Test(build_damage, names_a_function_by_its_symbol_when_its_string_is_out_of_range)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	put(&d, &d.info, CODE_STRP, 1);
	put(&d, &d.info, 0x12345678, 4);
	put(&d, &d.info, 0x1100, 8);
	put(&d, &d.info, 0x10, 4);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_symbol(&d, "by_symbol", 0x1100, 0x10);
	build();
	ASK(0x1100, "by_symbol :0:0");
	expect_reason("leads nowhere (form 0xe, 0x12345678)");
	buf_deinit(&table);
}

static void bad_ranges(uint32_t offset)
{
	dwarf_unit(&d, 0);
	put(&d, &d.info, CODE_RANGES, 1);
	put_text(&d, &d.info, "bad");
	put(&d, &d.info, offset, 4);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
}

Test(build_damage, drops_ranges_that_lie_outside_of_their_section)
{
	begin_sound(4);
	bad_ranges(0x999);
	put(&d, &d.ranges, 0, 16);
	expect_damaged(".debug_ranges");
}

Test(build_damage, drops_ranges_without_an_end)
{
	begin_sound(4);
	bad_ranges(0);
	put(&d, &d.ranges, 0x100, 8), put(&d, &d.ranges, 0x110, 8);
	expect_damaged("the range list at 0x0 has no end");
}

Test(build_damage, drops_a_range_list_with_an_unknown_entry)
{
	begin_sound(5);
	bad_ranges(0);
	put(&d, &d.rnglists, 0x77, 1);
	expect_damaged("a range list entry of kind 119");
}

Test(build_damage, drops_a_range_list_whose_index_is_out_of_range)
{
	begin_sound(5);
	bad_ranges(0);
	put(&d, &d.rnglists, DW_RLE_startx_length, 1), put_uleb(&d, &d.rnglists, UINT64_MAX / 2), put_uleb(&d, &d.rnglists, 1);
	expect_damaged("the index of an address is out of range");
}

Test(build_damage, leaves_out_and_tells_reversed_and_wrapping_ranges)
{
	begin_sound(4);
	bad_ranges(0);
	const uint64_t pairs[] = {0x120, 0x110, 0x130, UINT64_MAX - 0xfff, 0, 0};
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		put(&d, &d.ranges, pairs[i], 8);
	build();
	ASK(0x1000, "sound :0:0");
	ASK(0x1110, "-");
	ASK(0x1130, "-");
	cr_expect_eq(stats.damaged, 1);
	expect_reason("2 ranges of a function end before they begin");
	expect_reason(".debug_info+0x");
	buf_deinit(&table);
}

/* A second unit with a function at 0x1100 and a line table of its own, damaged by the test. */
static size_t begin_lines(unsigned version)
{
	begin_sound(version);
	dwarf_unit(&d, (uint32_t)d.line.len);
	dwarf_function(&d, "lined", 1, 0x1100, 0x10);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	line_address(&d, 0x1100);
	line_row(&d, 0, 1, 1, 2, 3);
	line_end(&d, 0x8);
	dwarf_lines_end(&d);
	return d.line_at;
}

static void expect_no_lines(const char *reason)
{
	build();
	ASK(0x1000, "sound :0:0");
	ASK(0x1100, "lined :0:0");
	cr_expect_gt(stats.damaged, 0);
	expect_reason(reason);
	buf_deinit(&table);
}

Test(build_damage, does_without_a_line_table_of_an_unknown_version)
{
	size_t at = begin_lines(4);
	patch(&d, &d.line, at + 4, 77, 2);
	expect_no_lines("a line table of version 77");
}

Test(build_damage, does_without_a_line_table_past_the_end)
{
	size_t at = begin_lines(4);
	patch(&d, &d.line, at, 0xfffffff0 - 0x1000, 4);
	expect_no_lines("a line table of 0x");
}

Test(build_damage, does_without_a_line_table_whose_header_is_too_long)
{
	size_t at = begin_lines(4);
	patch(&d, &d.line, at + 6, 0x10000, 4);
	expect_no_lines("a line table header of 0x10000 bytes");
}

Test(build_damage, does_without_a_line_table_that_ends_in_its_header)
{
	size_t at = begin_lines(4);
	patch(&d, &d.line, at + 6, 10, 4);
	expect_no_lines("the line table ends in its header");
}

Test(build_damage, does_without_a_line_table_outside_of_its_section)
{
	begin_lines(4);
	dwarf_unit(&d, 0x5000000);
	dwarf_function(&d, "f", 1, 0x1200, 0x10);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	build();
	ASK(0x1200, "f :0:0");
	ASK(0x1100, "lined /src/a.c:2:3");
	expect_reason("no line table at 0x5000000");
	buf_deinit(&table);
}

Test(build_damage, keeps_the_sequences_before_a_program_that_ends_in_an_operand)
{
	begin_lines(4);
	put(&d, &d.line, DW_LNS_advance_pc, 1);
	put(&d, &d.line, 0x80, 1);
	dwarf_lines_end(&d);
	build();
	ASK(0x1100, "lined /src/a.c:2:3");
	expect_reason("the line table ends in an operand");
	buf_deinit(&table);
}

Test(build_damage, drops_rows_without_an_end_of_sequence)
{
	begin_lines(4);
	line_address(&d, 0x1108);
	line_row(&d, 0, 1, 1, 9, 9);
	dwarf_lines_end(&d);
	build();
	ASK(0x1100, "lined /src/a.c:2:3");
	ASK(0x1108, "lined :0:0");
	buf_deinit(&table);
}

Test(build_damage, survives_a_line_range_of_zero)
{
	size_t at = begin_lines(4);
	patch(&d, &d.line, at + 14, 0, 1);
	build();
	ASK(0x1100, "lined /src/a.c:2:3");
	buf_deinit(&table);
}

Test(build_damage, sorts_rows_that_go_backwards)
{
	begin_lines(4);
	line_address(&d, 0x1108);
	line_row(&d, 0, 1, 1, 20, 0);
	line_row(&d, 4, 1, 20, 21, 0);
	line_address(&d, 0x110a);
	line_row(&d, 0, 1, 21, 22, 0);
	line_end(&d, 6);
	dwarf_lines_end(&d);
	build();
	ASK(0x1108, "lined /src/a.c:20:0");
	ASK(0x110a, "lined /src/a.c:22:0");
	ASK(0x110c, "lined /src/a.c:21:0");
	buf_deinit(&table);
}

/* Directory entries of no bytes would let a count of 2^60 run. */
Test(build_damage, refuses_a_directory_count_without_formats)
{
	begin_sound(5);
	dwarf_unit(&d, (uint32_t)d.line.len);
	dwarf_function(&d, "lined", 1, 0x1100, 0x10);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	size_t formats = d.line_at + 4 + 2 + 2 + 4 + 6 + 12;
	d.line.len = formats;
	put(&d, &d.line, 0, 1);
	put_uleb(&d, &d.line, UINT64_MAX / 16);
	dwarf_lines_end(&d);
	patch(&d, &d.line, d.line_at + 8, d.line.len - d.line_at - 12, 4);
	expect_no_lines("directories in a header of");
}

/* ---- Named limits ---- */

Test(build_limits, refuses_more_functions_inside_one_another_than_dw_levels_max)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	for (unsigned i = 0; i < (1 << 16) + 1; i++)
		put(&d, &d.info, CODE_DECLARATION, 1);
	dwarf_unit_end(&d);
	expect_skipped("more than 65536 functions inside one another");
}

/* Thirty tables in each other's tails: reading each to the end is 30 times the section. */
Test(build_limits, refuses_abbreviations_that_are_read_over_and_over)
{
	dwarf_begin(&d, 4);
	for (unsigned i = 0; i < 30; i++) {
		dwarf_unit_header(&d, (uint32_t)d.abbrev.len + i * 5);
		put(&d, &d.info, 1, 1);
		dwarf_unit_end(&d);
	}
	while (d.abbrev.len < DWARF_BYTES - 8)
		dwarf_abbrev(&d, 1, 0x24, false, (const uint16_t[]){0});
	put(&d, &d.abbrev, 0, 1);
	expect_error(ERR_LIMIT, ".debug_abbrev is read over and over");
}

Test(build_limits, refuses_range_lists_that_are_read_over_and_over)
{
	dwarf_begin(&d, 5);
	dwarf_unit(&d, 0);
	for (unsigned i = 0; i < 200; i++) {
		put(&d, &d.info, CODE_RANGES, 1);
		put_text(&d, &d.info, "f");
		put(&d, &d.info, 0, 4);
		dwarf_close(&d);
	}
	dwarf_close(&d);
	dwarf_unit_end(&d);
	while (d.rnglists.len < 45000)
		put(&d, &d.rnglists, DW_RLE_offset_pair, 1), put(&d, &d.rnglists, 0x0100, 2);
	put(&d, &d.rnglists, 0, 1);
	expect_error(ERR_LIMIT, "a range list is read over and over");
}

Test(build_limits, refuses_line_tables_that_are_read_over_and_over)
{
	dwarf_begin(&d, 4);
	for (unsigned i = 0; i < 40; i++) {
		dwarf_unit(&d, (uint32_t)d.line.len);
		dwarf_function(&d, "f", 1, 0x1000, 0x10);
		dwarf_close(&d);
		dwarf_close(&d);
		dwarf_unit_end(&d);
		size_t at = d.line.len;
		dwarf_lines(&d);
		patch(&d, &d.line, at, 80000 - at - 4, 4);
	}
	while (d.line.len < 80000)
		put(&d, &d.line, DW_LNS_negate_stmt, 1);
	expect_error(ERR_LIMIT, ".debug_line is read over and over");
}

static void long_text(struct dwarf_bytes *b, size_t len)
{
	for (size_t i = 0; i < len; i++)
		put(&d, b, 'x', 1);
	put(&d, b, 0, 1);
}

static void strp_function(size_t name)
{
	put(&d, &d.info, CODE_STRP, 1);
	put(&d, &d.info, name, 4);
	put(&d, &d.info, 0x1100, 8);
	put(&d, &d.info, 0x10, 4);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_symbol(&d, "by_symbol", 0x1100, 0x10);
}

Test(build_limits, takes_no_name_longer_than_dw_text_max)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	strp_function(d.str.len);
	long_text(&d.str, 64 * 1024 + 1);
	build();
	ASK(0x1100, "by_symbol :0:0");
	cr_expect_eq(stats.damaged, 1);
	buf_deinit(&table);
}

Test(build_limits, takes_a_name_as_long_as_dw_text_max)
{
	begin_sound(4);
	dwarf_unit(&d, 0);
	strp_function(d.str.len);
	long_text(&d.str, 64 * 1024);
	build();
	cr_expect_eq(strncmp(dwarf_ask(&table, 0x1100), "xxxx", 4), 0);
	cr_expect_eq(stats.damaged, 0);
	buf_deinit(&table);
}

/* "/src/" and a name, at the limit and one byte past it. */
static void long_path(size_t name_len, const char *expected)
{
	begin_lines(4);
	line_address(&d, 0x1108);
	put(&d, &d.line, 0, 1);
	put_uleb(&d, &d.line, name_len + 5);
	put(&d, &d.line, DW_LNE_define_file, 1);
	long_text(&d.line, name_len);
	put(&d, &d.line, 0, 3);
	line_row(&d, 0, 3, 1, 4, 0);
	line_end(&d, 8);
	dwarf_lines_end(&d);
	build();
	cr_expect_eq(strncmp(dwarf_ask(&table, 0x1108), expected, strlen(expected)), 0);
	buf_deinit(&table);
}

Test(build_limits, does_not_know_a_file_with_a_longer_path_than_line_path_max)
{
	long_path(16 * 1024 - 6, "lined /src/xxxx");
	long_path(16 * 1024 - 5, "lined :0:0");
}

Test(build_limits, stops_at_memory_max_and_says_so)
{
	struct buf untouched = {0};

	begin_sound(4);
	dwarf_finish(&d);
	struct build_options options = {.binary = {.bytes = d.elf.bytes, .len = d.elf.len}, .memory_max = 1000};
	struct err *e = build_table(&options, &untouched, NULL);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_LIMIT);
	cr_expect_not_null(strstr(err_message(e), "more than 1000 bytes of memory"));
	cr_expect_eq(untouched.len, 0);
	err_free(e);
}

/* .debug_info as a compressed section that says it inflates to @p size bytes, and does not. */
static void with_compressed_info(uint64_t size)
{
	const uint8_t rubbish[] = {0x78, 0x9c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	begin_sound(4);
	d.info.len = 0;
	put(&d, &d.info, ELFCOMPRESS_ZLIB, 4);
	put(&d, &d.info, 0, 4);
	put(&d, &d.info, size, 8);
	put(&d, &d.info, 1, 8);
	for (size_t i = 0; i < sizeof(rubbish); i++)
		put(&d, &d.info, rubbish[i], 1);
}

static struct err *build_compressed(uint64_t memory_max, struct buf *ret)
{
	enum { INFO = 4 };

	dwarf_finish(&d);
	image_put_at(&d.elf, image_field(&d.elf, INFO, 8, 8), SHF_COMPRESSED, 8);
	struct build_options options = {
		.binary = {.bytes = d.elf.bytes, .len = d.elf.len, .name = "t"}, .memory_max = memory_max};
	return build_table(&options, ret, &stats);
}

Test(build_damage, falls_back_on_symbols_when_debug_info_cannot_be_inflated)
{
	with_compressed_info(1000);
	dwarf_symbol(&d, "s", 0x1100, 0x10);
	struct err *e = build_compressed(0, &table);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	ASK(0x1100, "s :0:0");
	expect_reason("t: section 4 (.debug_info)");
	cr_expect_eq(stats.damaged, 1);
	buf_deinit(&table);
}

Test(build_damage, is_an_error_when_there_are_no_symbols_either)
{
	with_compressed_info(1000);
	struct err *e = build_compressed(0, &table);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_FORMAT);
	cr_expect_not_null(strstr(err_message(e), "t: section 4 (.debug_info)"));
	err_free(e);
}

Test(build_limits, refuses_a_decompression_bomb_before_inflating_it)
{
	with_compressed_info(UINT64_C(1) << 31);
	struct err *e = build_compressed(1 << 20, &table);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_LIMIT);
	err_free(e);
}

/* ---- What cannot be built at all ---- */

Test(build_table, refuses_no_image)
{
	struct build_options options = {.threads = 1};
	struct buf untouched = {0};

	struct err *e = build_table(&options, &untouched, NULL);
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
}

Test(build_table, refuses_text)
{
	static const char text[] = "#!/bin/sh\necho hello, I am no ELF file at all, but long enough to hold a header\n";
	struct build_options options = {.binary = {.bytes = text, .len = sizeof(text), .name = "script"}};
	struct buf untouched = {0};

	struct err *e = build_table(&options, &untouched, NULL);
	cr_assert_eq(err_code(e), ERR_FORMAT);
	cr_expect_not_null(strstr(err_message(e), "script"));
	err_free(e);
}

Test(build_table, says_that_there_is_nothing_in_a_file_without_symbols)
{
	dwarf_begin(&d, 4);
	d.abbrev.len = d.str.len = 0;
	expect_error(ERR_NOT_FOUND, "t: neither DWARF nor function symbols");
}

Test(build_table, reports_damage_that_leaves_nothing)
{
	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	patch(&d, &d.info, d.unit_at, 0x7fffff00, 4);
	expect_error(ERR_FORMAT, "t: .debug_info+0x4: a unit of 0x7fffff00 bytes");
}

static void with_build_id(struct elf_image *m, uint8_t byte)
{
	uint8_t note[36] = {4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0};

	memset(note + 16, byte, 20);
	image_begin(m, true, false);
	image_section(m, ".note.gnu.build-id", SHT_NOTE, SHF_ALLOC, 0x200, note, sizeof(note));
	image_section(m, ".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, 0x1000, NULL, 0x100);
	image_finish(m);
}

Test(build_table, refuses_a_debug_file_of_another_binary)
{
	static struct elf_image binary, debug;
	struct buf untouched = {0};

	with_build_id(&binary, 0xaa);
	with_build_id(&debug, 0xbb);
	struct build_options options = {.binary = {.bytes = binary.bytes, .len = binary.len, .name = "bin"},
		.debug = {.bytes = debug.bytes, .len = debug.len, .name = "dbg"}};
	struct err *e = build_table(&options, &untouched, NULL);
	cr_assert_eq(err_code(e), ERR_MISMATCH);
	cr_expect_not_null(strstr(err_message(e), "bin has build ID aaaa"));
	cr_expect_not_null(strstr(err_message(e), "dbg has bbbb"));
	err_free(e);
}

Test(build_table, refuses_a_debug_file_of_another_machine)
{
	static struct elf_image binary, debug;
	struct buf untouched = {0};

	with_build_id(&binary, 0xaa);
	with_build_id(&debug, 0xaa);
	image_put_at(&debug, 18, 183, 2);
	struct build_options options = {.binary = {.bytes = binary.bytes, .len = binary.len, .name = "bin"},
		.debug = {.bytes = debug.bytes, .len = debug.len, .name = "dbg"}};
	struct err *e = build_table(&options, &untouched, NULL);
	cr_assert_eq(err_code(e), ERR_MISMATCH);
	cr_expect_not_null(strstr(err_message(e), "dbg: ELF machine 183, but that of bin is 62"), "%s", err_message(e));
	err_free(e);
}

/* Every byte of a small image changed, one at a time: an error or a table, never a crash. */
Test(build_damage, survives_any_byte_changed)
{
	begin_lines(5);
	bad_ranges(0);
	put(&d, &d.rnglists, DW_RLE_offset_pair, 1), put(&d, &d.rnglists, 0x0100, 2), put(&d, &d.rnglists, 0, 1);
	dwarf_symbol(&d, "s", 0x1400, 0x10);
	dwarf_finish(&d);
	size_t built = 0;
	for (size_t i = 0; i < d.elf.len; i++) {
		for (unsigned k = 0; k < 3; k++) {
			const uint8_t flips[] = {0xff, 0x01, 0x80};
			struct buf out = {0};
			d.elf.bytes[i] ^= flips[k];
			struct err *e = dwarf_build(&d, &out, NULL);
			d.elf.bytes[i] ^= flips[k];
			built += e == NULL;
			err_free(e);
			buf_deinit(&out);
		}
	}
	cr_assert_gt(built, d.elf.len);
}

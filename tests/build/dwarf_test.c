// SPDX-License-Identifier: Apache-2.0
/* Well-formed DWARF of every kind, byte by byte, through build_table to the answers of the table. */
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

static void done(void)
{
	buf_deinit(&table);
}

#define ASK(vaddr, answer) cr_expect_str_eq(dwarf_ask(&table, vaddr), answer)

/* f at [0x1000, 0x1040), in it a call of g at [0x1010, 0x1020); rows every 8 bytes from line 1 on. */
static void function_with_call(unsigned version, bool big_endian)
{
	dwarf_begin(&d, version);
	if (big_endian) {
		d.big_endian = true; /* the abbreviations are bytes and LEB128: the same in both orders */
	}
	dwarf_unit(&d, 0);
	uint32_t g = dwarf_here(&d);
	dwarf_abstract(&d, "g", "_Z1gv", 30);
	dwarf_function(&d, "f", 3, 0x1000, 0x40);
	dwarf_call(&d, g, 0x1010, 0x10, 7);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	line_address(&d, 0x1000);
	line_row(&d, 0, 1, 1, 3, 0);
	line_row(&d, 0x10, 2, 3, 31, 9);
	line_row(&d, 0x8, 2, 31, 32, 10);
	line_row(&d, 0x8, 1, 32, 8, 4);
	line_end(&d, 0x20);
	dwarf_lines_end(&d);
	build();
	ASK(0xfff, "-");
	ASK(0x1000, "f /src/a.c:3:0");
	ASK(0x1010, "_Z1gv /src/inc/b.h:31:9 < f /src/a.c:7:2");
	ASK(0x101f, "_Z1gv /src/inc/b.h:32:10 < f /src/a.c:7:2");
	ASK(0x1020, "f /src/a.c:8:4");
	ASK(0x103f, "f /src/a.c:8:4");
	ASK(0x1040, "-");
	cr_expect_eq(stats.units, 1);
	cr_expect_eq(stats.skipped_units, 0);
	cr_expect_eq(stats.inline_nodes, 1);
	cr_expect_eq(stats.sources, TABLE_FROM_DWARF);
	done();
}

Test(build_table, reads_a_call_and_its_lines_in_dwarf_2)
{
	function_with_call(2, false);
}

Test(build_table, reads_a_call_and_its_lines_in_dwarf_3)
{
	function_with_call(3, false);
}

Test(build_table, reads_a_call_and_its_lines_in_dwarf_4)
{
	function_with_call(4, false);
}

Test(build_table, reads_a_call_and_its_lines_in_dwarf_5)
{
	function_with_call(5, false);
}

Test(build_table, reads_big_endian_dwarf)
{
	function_with_call(4, true);
}

/* One function f without lines, for what is said of ranges and names. */
static void begin_plain(unsigned version)
{
	dwarf_begin(&d, version);
	dwarf_unit(&d, 0);
}

static void end_plain(void)
{
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	dwarf_lines_end(&d);
	build();
}

static void ranges_function(const char *name, uint32_t offset)
{
	put(&d, &d.info, CODE_RANGES, 1);
	put_text(&d, &d.info, name);
	put(&d, &d.info, offset, 4);
	dwarf_close(&d);
}

Test(build_table, reads_ranges_with_a_selected_base_in_dwarf_4)
{
	begin_plain(4);
	ranges_function("hot_cold", 0);
	const uint64_t pairs[] = {0x10, 0x20, UINT64_MAX, 0x1800, 0x0, 0x8, 0x30, 0x30, 0, 0};
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		put(&d, &d.ranges, pairs[i], 8);
	end_plain();
	ASK(0x100f, "-");
	ASK(0x1010, "hot_cold :0:0");
	ASK(0x101f, "hot_cold :0:0");
	ASK(0x1020, "-");
	ASK(0x1800, "hot_cold :0:0");
	ASK(0x1807, "hot_cold :0:0");
	ASK(0x1808, "-");
	ASK(0x1830, "-");
	done();
}

/* A list of .debug_rnglists with an entry of every kind. */
Test(build_table, reads_every_kind_of_range_list_entry)
{
	begin_plain(5);
	ranges_function("f", 12);
	const uint64_t addresses[] = {0x1100, 0x1200, 0x1208, 0x1300};
	put(&d, &d.addr, 0, 8);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
		put(&d, &d.addr, addresses[i], 8);
	struct dwarf_bytes *b = &d.rnglists;
	put(&d, b, 0, 8);
	put(&d, b, 0, 4);
	put(&d, b, DW_RLE_offset_pair, 1), put_uleb(&d, b, 0), put_uleb(&d, b, 4); /* 1000 */
	put(&d, b, DW_RLE_base_addressx, 1), put_uleb(&d, b, 0);
	put(&d, b, DW_RLE_offset_pair, 1), put_uleb(&d, b, 2), put_uleb(&d, b, 4); /* 1102 */
	put(&d, b, DW_RLE_startx_endx, 1), put_uleb(&d, b, 1), put_uleb(&d, b, 2); /* 1200 */
	put(&d, b, DW_RLE_startx_length, 1), put_uleb(&d, b, 3), put_uleb(&d, b, 2); /* 1300 */
	put(&d, b, DW_RLE_base_address, 1), put(&d, b, 0x1400, 8);
	put(&d, b, DW_RLE_offset_pair, 1), put_uleb(&d, b, 0), put_uleb(&d, b, 1); /* 1400 */
	put(&d, b, DW_RLE_start_end, 1), put(&d, b, 0x1500, 8), put(&d, b, 0x1502, 8);
	put(&d, b, DW_RLE_start_length, 1), put(&d, b, 0x1600, 8), put_uleb(&d, b, 3);
	put(&d, b, DW_RLE_end_of_list, 1);
	end_plain();
	const uint64_t in[] = {0x1000, 0x1003, 0x1102, 0x1103, 0x1200, 0x1207, 0x1300, 0x1301, 0x1400, 0x1500, 0x1501, 0x1600, 0x1602};
	const uint64_t out[] = {0x1004, 0x1101, 0x1104, 0x11ff, 0x1208, 0x1302, 0x1401, 0x1502, 0x1603};
	for (size_t i = 0; i < ARRAY_SIZE(in); i++)
		ASK(in[i], "f :0:0");
	for (size_t i = 0; i < ARRAY_SIZE(out); i++)
		ASK(out[i], "-");
	cr_expect_eq(stats.ranges, 7);
	done();
}

/* strx1, addrx, rnglistx, their bases said behind the attributes that need them. */
Test(build_table, reads_indexed_forms_with_bases_that_come_later)
{
	dwarf_begin(&d, 5);
	dwarf_unit_header(&d, 0);
	put(&d, &d.info, CODE_BASES, 1);
	put(&d, &d.info, 0, 1);	 /* name */
	put(&d, &d.info, 0, 1);	 /* low_pc */
	put(&d, &d.info, 12, 4); /* str_offsets_base: one entry behind the header */
	put(&d, &d.info, 16, 4); /* addr_base: likewise */
	put(&d, &d.info, 12, 4); /* rnglists_base */
	put(&d, &d.info, CODE_INDEXED, 1);
	put(&d, &d.info, 1, 1);
	put(&d, &d.info, 1, 1);
	put(&d, &d.info, 8, 1);
	put(&d, &d.info, CODE_RNGLISTX, 1);
	put_text(&d, &d.info, "listed");
	put(&d, &d.info, 1, 1);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	put_text(&d, &d.str, "unit");
	size_t name = d.str.len;
	put_text(&d, &d.str, "indexed");
	put(&d, &d.str_offsets, 0, 8), put(&d, &d.str_offsets, 0xffff, 4);
	put(&d, &d.str_offsets, 1, 4), put(&d, &d.str_offsets, name, 4);
	put(&d, &d.addr, 0, 8), put(&d, &d.addr, 0, 8);
	put(&d, &d.addr, 0x1100, 8), put(&d, &d.addr, 0x1200, 8);
	put(&d, &d.rnglists, 0, 8), put(&d, &d.rnglists, 2, 4);
	put(&d, &d.rnglists, 0xffff, 4), put(&d, &d.rnglists, 8, 4);
	put(&d, &d.rnglists, DW_RLE_offset_pair, 1), put_uleb(&d, &d.rnglists, 0x10), put_uleb(&d, &d.rnglists, 0x18);
	put(&d, &d.rnglists, DW_RLE_end_of_list, 1);
	build();
	ASK(0x1200, "indexed :0:0");
	ASK(0x1207, "indexed :0:0");
	ASK(0x1208, "-");
	ASK(0x1110, "listed :0:0"); /* the base of the list is the unit's low_pc, 0x1100 */
	ASK(0x1118, "-");
	done();
}

Test(build_table, follows_a_reference_into_another_unit)
{
	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	uint64_t origin = d.info.len;
	dwarf_abstract(&d, "far", "_Z3farv", 9);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "f", 1, 0x1000, 0x10);
	put(&d, &d.info, CODE_REF_ADDR_CALL, 1);
	put(&d, &d.info, origin, 4);
	put(&d, &d.info, 0x1004, 8);
	put(&d, &d.info, 4, 4);
	put(&d, &d.info, 0x020501, 3);
	dwarf_close(&d);
	end_plain();
	ASK(0x1004, "_Z3farv :0:0 < f /src/a.c:5:2");
	done();
}

/* gcc puts the bodies of lambdas into local classes; DW_AT_sibling would lead past them, or, here, backwards. */
Test(build_table, finds_code_inside_a_class_whatever_its_sibling_says)
{
	begin_plain(4);
	dwarf_function(&d, "f", 1, 0x1000, 0x10);
	put(&d, &d.info, CODE_STRUCT, 1);
	put(&d, &d.info, 1, 4);
	dwarf_function(&d, "lambda", 2, 0x1100, 0x10);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_close(&d);
	end_plain();
	ASK(0x1000, "f :0:0");
	ASK(0x1100, "lambda :0:0");
	done();
}

Test(build_table, takes_the_last_of_several_rows_at_one_address_and_keeps_line_0)
{
	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "f", 1, 0x1000, 0x20);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	line_address(&d, 0x1000);
	line_row(&d, 0, 1, 1, 2, 1);
	line_row(&d, 0, 1, 2, 5, 3);
	line_row(&d, 8, 1, 5, 0, 0);
	line_row(&d, 8, 9, 0, 7, 7); /* a file that does not exist: nothing is said */
	line_end(&d, 16);
	dwarf_lines_end(&d);
	build();
	ASK(0x1000, "f /src/a.c:5:3");
	ASK(0x1008, "f /src/a.c:0:0");
	ASK(0x1010, "f :0:0");
	done();
}

Test(build_table, executes_every_kind_of_line_opcode)
{
	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "f", 1, 0x1000, 0x100);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	line_address(&d, 0x1000);
	const uint8_t program[] = {
		13 + 5 + 14 * 2,	       /* special: address + 2, line + 0: row 1 at 1002 */
		DW_LNS_const_add_pc,	       /* + (255 - 13) / 14 = 17: 1013 */
		DW_LNS_fixed_advance_pc, 4, 0, /* 1017 */
		DW_LNS_negate_stmt, DW_LNS_set_basic_block, DW_LNS_set_prologue_end, DW_LNS_set_epilogue_begin, DW_LNS_set_isa, 3,
		13 + 5 + 1, /* line 2 at 1017 */
		0, 3, 0x80, 1, 2, /* an unknown extended opcode */
		0, 3, DW_LNE_define_file, 'z', 0, /* without its numbers: ignored */
		0, 6, DW_LNE_define_file, 'y', 0, 0, 0, 0, /* file 3 */
		DW_LNS_set_file, 3, DW_LNS_advance_pc, 1, DW_LNS_copy, /* 1018 */
		DW_LNS_advance_pc, 0x88, 0x01, 0, 1, DW_LNE_end_sequence};
	for (size_t i = 0; i < sizeof(program); i++)
		put(&d, &d.line, program[i], 1);
	dwarf_lines_end(&d);
	build();
	ASK(0x1001, "f :0:0");
	ASK(0x1002, "f /src/a.c:1:0");
	ASK(0x1016, "f /src/a.c:1:0");
	ASK(0x1017, "f /src/a.c:2:0");
	ASK(0x1018, "f /src/y:2:0");
	ASK(0x109f, "f /src/y:2:0");
	ASK(0x10a0, "f :0:0");
	done();
}

Test(build_table, drops_functions_and_sequences_that_the_linker_discarded)
{
	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	dwarf_function(&d, "gone_0", 1, 0, 0x40);
	dwarf_close(&d);
	dwarf_function(&d, "gone_1", 1, UINT64_MAX, 0x40);
	dwarf_close(&d);
	dwarf_function(&d, "gone_2", 1, 0x2000, 0x40);
	dwarf_close(&d);
	dwarf_function(&d, "kept", 1, 0x1000, 0x40);
	dwarf_close(&d);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	line_address(&d, 0);
	line_row(&d, 0, 1, 1, 50, 0);
	line_end(&d, 0x1800);
	line_address(&d, 0x1000);
	line_row(&d, 0, 1, 1, 2, 0);
	line_end(&d, 0x40);
	dwarf_lines_end(&d);
	build();
	ASK(0, "-");
	ASK(0x2000, "-");
	ASK(0x1000, "kept /src/a.c:2:0");
	cr_expect_eq(stats.tombstones, 3);
	done();
}

Test(build_table, names_lines_without_a_function_by_the_symbol)
{
	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	dwarf_close(&d);
	dwarf_unit_end(&d);
	dwarf_lines(&d);
	line_address(&d, 0x1000);
	line_row(&d, 0, 1, 1, 2, 0);
	line_row(&d, 0x10, 1, 2, 3, 0);
	line_end(&d, 0x20);
	dwarf_lines_end(&d);
	dwarf_symbol(&d, "asm_a", 0x1000, 8);
	dwarf_symbol(&d, "asm_b", 0x1010, 0);
	build();
	ASK(0x1000, "asm_a /src/a.c:2:0");
	ASK(0x1008, " /src/a.c:2:0");
	ASK(0x1010, "asm_b /src/a.c:3:0");
	ASK(0x1030, "asm_b :0:0");
	cr_expect_eq(stats.sources, TABLE_FROM_DWARF | TABLE_FROM_SYMTAB);
	done();
}

Test(build_table, keeps_the_other_names_of_an_entry_as_aliases)
{
	struct table_frame frame;
	struct table opened;

	begin_plain(4);
	dwarf_function(&d, "f", 1, 0x1000, 0x10);
	dwarf_close(&d);
	dwarf_symbol(&d, "f", 0x1000, 0x10);
	dwarf_symbol(&d, "f_alias", 0x1000, 0x10);
	dwarf_symbol(&d, "elsewhere", 0x1100, 0x10);
	end_plain();
	ASK(0x1100, "elsewhere :0:0");
	cr_assert_null(table_open(table.data, table.len, &opened));
	cr_assert_eq(table_lookup(&opened, 0x1004, &frame, 1), 1);
	cr_assert_str_eq(frame.function, "f");
	cr_assert_eq(frame.offset, 4);
	uint32_t cursor = frame.aliases;
	cr_assert_str_eq(table_next_alias(&opened, &cursor), "f_alias");
	cr_assert_null(table_next_alias(&opened, &cursor));
	done();
}

/* One table, decoded once; each unit has the lines of its own code, and paths below its own directory. */
Test(build_table, gives_units_that_share_a_line_table_their_own_lines_and_paths)
{
	dwarf_begin(&d, 4);
	for (unsigned i = 0; i < 3; i++) {
		dwarf_unit(&d, 0);
		patch(&d, &d.info, d.unit_at + 11 + 1 + 4 + 3, '0' + i, 1); /* "/src" becomes "/sr0".. */
		patch(&d, &d.info, d.info.len - 12, 0x1000 + 0x100 * i, 8); /* low_pc and length */
		patch(&d, &d.info, d.info.len - 4, 0x100, 4);
		dwarf_function(&d, "f", 1, 0x1000 + 0x100 * i, 0x10);
		dwarf_close(&d);
		dwarf_close(&d);
		dwarf_unit_end(&d);
	}
	dwarf_lines(&d);
	line_address(&d, 0x1000);
	for (unsigned i = 0; i < 48; i++)
		line_row(&d, i ? 0x10 : 0, 1, i ? i : 1, i + 1, 0);
	line_end(&d, 0x10);
	dwarf_lines_end(&d);
	build();
	ASK(0x1008, "f /sr0/a.c:1:0");
	ASK(0x1018, " /sr0/a.c:2:0");
	ASK(0x1108, "f /sr1/a.c:17:0");
	ASK(0x11f0, " /sr1/a.c:32:0");
	ASK(0x1208, "f /sr2/a.c:33:0");
	ASK(0x12ff, " /sr2/a.c:48:0");
	ASK(0x1300, "-");
	cr_expect_eq(stats.line_rows, 49); /* with the closing one */
	done();
}

Test(build_table, gives_the_first_unit_an_address_that_two_claim)
{
	dwarf_begin(&d, 4);
	for (unsigned i = 0; i < 2; i++) {
		dwarf_unit(&d, 0);
		dwarf_function(&d, i ? "second" : "first", 1, i ? 0x1008 : 0x1000, 0x10);
		dwarf_close(&d);
		dwarf_close(&d);
		dwarf_unit_end(&d);
	}
	dwarf_lines(&d);
	dwarf_lines_end(&d);
	build();
	ASK(0x1008, "first :0:0");
	ASK(0x100f, "first :0:0");
	ASK(0x1010, "second :0:0");
	ASK(0x1017, "second :0:0");
	ASK(0x1018, "-");
	done();
}

static void nest_calls(unsigned count)
{
	dwarf_begin(&d, 4);
	dwarf_unit(&d, 0);
	uint32_t g = dwarf_here(&d);
	dwarf_abstract(&d, "g", "g", 1);
	dwarf_function(&d, "f", 1, 0x1000, 0x10);
	for (unsigned i = 0; i < count; i++)
		dwarf_call(&d, g, 0x1000, 0x10, 1);
	for (unsigned i = 0; i < count; i++)
		dwarf_close(&d);
	dwarf_close(&d);
	end_plain();
}

static size_t depth_at(uint64_t vaddr)
{
	static struct table_frame frames[2 * TABLE_MAX_DEPTH];
	struct table opened;

	cr_assert_null(table_open(table.data, table.len, &opened));
	return table_lookup(&opened, vaddr, frames, ARRAY_SIZE(frames));
}

Test(build_table, keeps_a_chain_as_deep_as_allowed)
{
	nest_calls(TABLE_MAX_DEPTH - 1);
	cr_expect_eq(depth_at(0x1000), TABLE_MAX_DEPTH);
	cr_expect_eq(stats.cut_chains, 0);
	done();
}

Test(build_table, cuts_and_counts_what_is_deeper)
{
	nest_calls(TABLE_MAX_DEPTH + 9);
	cr_expect_eq(depth_at(0x1000), TABLE_MAX_DEPTH);
	cr_expect_eq(stats.cut_chains, 10);
	done();
}

/* More blocks than any stack of levels would hold: they do not count. */
Test(build_table, walks_lexical_blocks_of_any_depth)
{
	begin_plain(4);
	for (unsigned i = 0; i < 40000; i++)
		put(&d, &d.info, CODE_BLOCK, 1);
	dwarf_function(&d, "deep", 1, 0x1000, 0x10);
	dwarf_close(&d);
	for (unsigned i = 0; i < 40000; i++)
		dwarf_close(&d);
	end_plain();
	ASK(0x1000, "deep :0:0");
	done();
}

Test(build_table, gives_the_same_bytes_with_any_number_of_threads)
{
	struct build_options options = {.binary = {.name = "t"}};

	dwarf_begin(&d, 4);
	for (unsigned i = 0; i < 200; i++) {
		char name[16];
		(void)snprintf(name, sizeof(name), "f%u", i % 90);
		dwarf_unit(&d, i % 3 ? 0 : 1000000);
		dwarf_function(&d, name, 1, 0x1000 + (i * 37) % 0x800, 0x30);
		dwarf_close(&d);
		dwarf_close(&d);
		dwarf_unit_end(&d);
	}
	dwarf_lines(&d);
	line_address(&d, 0x1000);
	line_row(&d, 0, 1, 1, 2, 0);
	line_end(&d, 0x400);
	dwarf_lines_end(&d);
	build();
	options.binary.bytes = d.elf.bytes;
	options.binary.len = d.elf.len;
	for (unsigned threads = 0; threads < 100; threads += 9) {
		struct build_stats other;
		struct buf again = {0};
		options.threads = threads;
		cr_assert_null(build_table(&options, &again, &other));
		cr_assert_eq(again.len, table.len);
		cr_assert_arr_eq(again.data, table.data, table.len);
		cr_assert_str_eq(other.reason, stats.reason);
		cr_assert_eq(other.damaged, stats.damaged);
		buf_deinit(&again);
	}
	done();
}

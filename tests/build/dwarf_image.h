// SPDX-License-Identifier: Apache-2.0
/*
 * DWARF written by hand, for tests: a test states the bytes that it needs, DIE by DIE, and gets an ELF image with .text at
 * [0x1000, 0x2000). dwarf_begin writes a set of abbreviations (enum dwarf_code below); dwarf_unit opens a unit, whose DIEs the test
 * writes with the put_ functions; dwarf_lines writes a line table. show() builds the table and says what it answers.
 */
#ifndef CAIRN_TESTS_BUILD_DWARF_IMAGE_H
#define CAIRN_TESTS_BUILD_DWARF_IMAGE_H

#include "symbolizer/build/build.h"
#include "symbolizer/build/dw_const.h"
#include "symbolizer/table/table.h"
#include "tests/build/elf_image.h"

#include <stdio.h>

enum { DWARF_BYTES = 100000, DWARF_TEXT_LOW = 0x1000, DWARF_TEXT_BYTES = 0x1000 };

struct dwarf_bytes {
	uint8_t bytes[DWARF_BYTES];
	size_t len;
};

struct dwarf_image {
	struct dwarf_bytes info, abbrev, line, ranges, rnglists, addr, str, str_offsets, symtab, strtab;
	unsigned version;
	size_t unit_at, line_at;
	bool big_endian;
	struct elf_image elf;
};

static inline void put(const struct dwarf_image *d, struct dwarf_bytes *b, uint64_t value, unsigned size)
{
	if (b->len + size > DWARF_BYTES)
		abort();
	for (unsigned i = 0; i < size; i++)
		b->bytes[b->len + (d->big_endian ? size - 1 - i : i)] = (uint8_t)(i < 8 ? value >> (8 * i) : 0);
	b->len += size;
}

static inline void put_uleb(const struct dwarf_image *d, struct dwarf_bytes *b, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		put(d, b, (value & 0x7f) | 0x80, 1);
	put(d, b, value, 1);
}

static inline void put_text(const struct dwarf_image *d, struct dwarf_bytes *b, const char *text)
{
	for (; *text; text++)
		put(d, b, (uint8_t)*text, 1);
	put(d, b, 0, 1);
}

static inline void patch(const struct dwarf_image *d, struct dwarf_bytes *b, size_t at, uint64_t value, unsigned size)
{
	size_t len = b->len;

	b->len = at;
	put(d, b, value, size);
	b->len = len;
}

/* The attributes of each, in order, with their forms, are in dwarf_begin. */
enum dwarf_code {
	CODE_UNIT = 1,	    /* name, comp_dir: string; stmt_list: sec_offset; low_pc: addr; high_pc: data4. Children */
	CODE_FUNCTION,	    /* name: string; decl_line: data1; low_pc; high_pc: data4. Children */
	CODE_ABSTRACT,	    /* name, linkage_name: string; decl_line: data1 */
	CODE_CALL,	    /* abstract_origin: ref4; low_pc; high_pc: data4; call_file, call_line, call_column: data1. Children */
	CODE_RANGES,	    /* name: string; ranges: sec_offset. Children */
	CODE_STRUCT,	    /* sibling: ref4. Children */
	CODE_REF_ADDR_CALL, /* abstract_origin: ref_addr; low_pc; high_pc: data4; call_file, call_line, call_column: data1 */
	CODE_LINK,	    /* subprogram; specification: ref4 */
	CODE_DECLARATION,   /* subprogram without attributes. Children */
	CODE_STRP,	    /* subprogram; name: strp; low_pc; high_pc: data4 */
	CODE_INDIRECT,	    /* subprogram; name: indirect; low_pc; high_pc: data4 */
	CODE_INDEXED,	    /* subprogram; name: strx1; low_pc: addrx; high_pc: data1 */
	CODE_RNGLISTX,	    /* subprogram; name: string; ranges: rnglistx */
	CODE_BASES,	    /* compile unit; name: strx1; low_pc: addrx; str_offsets_base, addr_base, rnglists_base: sec_offset. Children */
	CODE_BLOCK,	    /* lexical block. Children */
	CODE_END,
};

static inline void dwarf_abbrev(struct dwarf_image *d, unsigned code, unsigned tag, bool children, const uint16_t *pairs)
{
	put_uleb(d, &d->abbrev, code);
	put_uleb(d, &d->abbrev, tag);
	put(d, &d->abbrev, children, 1);
	for (; *pairs; pairs += 2) {
		put_uleb(d, &d->abbrev, pairs[0]);
		put_uleb(d, &d->abbrev, pairs[1]);
	}
	put(d, &d->abbrev, 0, 2);
}

#define PAIRS(...) ((const uint16_t[]){__VA_ARGS__, 0})

static inline void dwarf_begin(struct dwarf_image *d, unsigned version)
{
	const uint16_t offset = version >= 4 ? DW_FORM_sec_offset : DW_FORM_data4;

	memset(d, 0, sizeof(*d));
	d->version = version;
	put(d, &d->str, 0, 1);
	dwarf_abbrev(d, CODE_UNIT, DW_TAG_compile_unit, true,
		PAIRS(DW_AT_name, DW_FORM_string, DW_AT_comp_dir, DW_FORM_string, DW_AT_stmt_list, offset, DW_AT_low_pc, DW_FORM_addr,
			DW_AT_high_pc, DW_FORM_data4));
	dwarf_abbrev(d, CODE_FUNCTION, DW_TAG_subprogram, true,
		PAIRS(DW_AT_name, DW_FORM_string, DW_AT_decl_line, DW_FORM_data1, DW_AT_low_pc, DW_FORM_addr, DW_AT_high_pc, DW_FORM_data4));
	dwarf_abbrev(d, CODE_ABSTRACT, DW_TAG_subprogram, false,
		PAIRS(DW_AT_name, DW_FORM_string, DW_AT_linkage_name, DW_FORM_string, DW_AT_decl_line, DW_FORM_data1));
	dwarf_abbrev(d, CODE_CALL, DW_TAG_inlined_subroutine, true,
		PAIRS(DW_AT_abstract_origin, DW_FORM_ref4, DW_AT_low_pc, DW_FORM_addr, DW_AT_high_pc, DW_FORM_data4, DW_AT_call_file,
			DW_FORM_data1, DW_AT_call_line, DW_FORM_data1, DW_AT_call_column, DW_FORM_data1));
	dwarf_abbrev(d, CODE_RANGES, DW_TAG_subprogram, true, PAIRS(DW_AT_name, DW_FORM_string, DW_AT_ranges, offset));
	dwarf_abbrev(d, CODE_STRUCT, 0x13, true, PAIRS(0x01, DW_FORM_ref4));
	dwarf_abbrev(d, CODE_REF_ADDR_CALL, DW_TAG_inlined_subroutine, false,
		PAIRS(DW_AT_abstract_origin, DW_FORM_ref_addr, DW_AT_low_pc, DW_FORM_addr, DW_AT_high_pc, DW_FORM_data4, DW_AT_call_file,
			DW_FORM_data1, DW_AT_call_line, DW_FORM_data1, DW_AT_call_column, DW_FORM_data1));
	dwarf_abbrev(d, CODE_LINK, DW_TAG_subprogram, false, PAIRS(DW_AT_specification, DW_FORM_ref4));
	dwarf_abbrev(d, CODE_DECLARATION, DW_TAG_subprogram, true, (const uint16_t[]){0});
	dwarf_abbrev(d, CODE_STRP, DW_TAG_subprogram, false,
		PAIRS(DW_AT_name, DW_FORM_strp, DW_AT_low_pc, DW_FORM_addr, DW_AT_high_pc, DW_FORM_data4));
	dwarf_abbrev(d, CODE_INDIRECT, DW_TAG_subprogram, false,
		PAIRS(DW_AT_name, DW_FORM_indirect, DW_AT_low_pc, DW_FORM_addr, DW_AT_high_pc, DW_FORM_data4));
	dwarf_abbrev(d, CODE_INDEXED, DW_TAG_subprogram, false,
		PAIRS(DW_AT_name, DW_FORM_strx1, DW_AT_low_pc, DW_FORM_addrx, DW_AT_high_pc, DW_FORM_data1));
	dwarf_abbrev(d, CODE_RNGLISTX, DW_TAG_subprogram, false, PAIRS(DW_AT_name, DW_FORM_string, DW_AT_ranges, DW_FORM_rnglistx));
	dwarf_abbrev(d, CODE_BASES, DW_TAG_compile_unit, true,
		PAIRS(DW_AT_name, DW_FORM_strx1, DW_AT_low_pc, DW_FORM_addrx, DW_AT_str_offsets_base, DW_FORM_sec_offset, DW_AT_addr_base,
			DW_FORM_sec_offset, DW_AT_rnglists_base, DW_FORM_sec_offset));
	dwarf_abbrev(d, CODE_BLOCK, 0x0b, true, (const uint16_t[]){0});
	put(d, &d->abbrev, 0, 1);
}

/* A unit's header; its abbreviations are at @p abbrev_offset. Close it with dwarf_unit_end. */
static inline void dwarf_unit_header(struct dwarf_image *d, uint32_t abbrev_offset)
{
	d->unit_at = d->info.len;
	put(d, &d->info, 0, 4);
	put(d, &d->info, d->version, 2);
	if (d->version >= 5) {
		put(d, &d->info, DW_UT_compile, 1);
		put(d, &d->info, 8, 1);
		put(d, &d->info, abbrev_offset, 4);
	} else {
		put(d, &d->info, abbrev_offset, 4);
		put(d, &d->info, 8, 1);
	}
}

/* Header and unit DIE, covering [0x1000, 0x2000), with the line table at @p lines. */
static inline void dwarf_unit(struct dwarf_image *d, uint32_t lines)
{
	dwarf_unit_header(d, 0);
	put(d, &d->info, CODE_UNIT, 1);
	put_text(d, &d->info, "a.c");
	put_text(d, &d->info, "/src");
	put(d, &d->info, lines, 4);
	put(d, &d->info, DWARF_TEXT_LOW, 8);
	put(d, &d->info, DWARF_TEXT_BYTES, 4);
}

static inline void dwarf_unit_end(struct dwarf_image *d)
{
	patch(d, &d->info, d->unit_at, d->info.len - d->unit_at - 4, 4);
}

/* Offset of the next DIE from its unit's start, as DW_FORM_ref4 wants it. */
static inline uint32_t dwarf_here(const struct dwarf_image *d)
{
	return (uint32_t)(d->info.len - d->unit_at);
}

static inline void dwarf_function(struct dwarf_image *d, const char *name, unsigned line, uint64_t low, uint32_t len)
{
	put(d, &d->info, CODE_FUNCTION, 1);
	put_text(d, &d->info, name);
	put(d, &d->info, line, 1);
	put(d, &d->info, low, 8);
	put(d, &d->info, len, 4);
}

static inline void dwarf_abstract(struct dwarf_image *d, const char *name, const char *linkage_name, unsigned line)
{
	put(d, &d->info, CODE_ABSTRACT, 1);
	put_text(d, &d->info, name);
	put_text(d, &d->info, linkage_name);
	put(d, &d->info, line, 1);
}

/* A call from file 1, line @p line, column 2. */
static inline void dwarf_call(struct dwarf_image *d, uint32_t origin, uint64_t low, uint32_t len, unsigned line)
{
	put(d, &d->info, CODE_CALL, 1);
	put(d, &d->info, origin, 4);
	put(d, &d->info, low, 8);
	put(d, &d->info, len, 4);
	put(d, &d->info, 1, 1);
	put(d, &d->info, line, 1);
	put(d, &d->info, 2, 1);
}

/* Closes a list of children. */
static inline void dwarf_close(struct dwarf_image *d)
{
	put(d, &d->info, 0, 1);
}

/* A line table header with files "a.c" (1) and "inc/b.h" (2). The program follows; close it with dwarf_lines_end. */
static inline void dwarf_lines(struct dwarf_image *d)
{
	static const uint8_t counts[] = {0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1};
	struct dwarf_bytes *b = &d->line;

	d->line_at = b->len;
	put(d, b, 0, 4);
	put(d, b, d->version, 2);
	if (d->version >= 5)
		put(d, b, 8, 2); /* sizes of addresses (8) and segment selectors (0): written as bytes below */
	if (d->version >= 5) {
		b->bytes[b->len - 2] = 8;
		b->bytes[b->len - 1] = 0;
	}
	size_t length_at = b->len;
	put(d, b, 0, 4);
	put(d, b, 1, 1); /* min_inst_length */
	if (d->version >= 4)
		put(d, b, 1, 1);
	put(d, b, 1, 1);
	put(d, b, (uint8_t)-5, 1);
	put(d, b, 14, 1);
	put(d, b, sizeof(counts) + 1, 1);
	for (size_t i = 0; i < sizeof(counts); i++)
		put(d, b, counts[i], 1);
	if (d->version >= 5) {
		const uint8_t dirs[] = {1, DW_LNCT_path, DW_FORM_string, 2}, files[] = {2, DW_LNCT_path, DW_FORM_string,
			DW_LNCT_directory_index, DW_FORM_udata, 3};
		for (size_t i = 0; i < sizeof(dirs); i++)
			put(d, b, dirs[i], 1);
		put_text(d, b, "/src");
		put_text(d, b, "inc");
		for (size_t i = 0; i < sizeof(files); i++)
			put(d, b, files[i], 1);
		put_text(d, b, "zero.c");
		put(d, b, 0, 1);
		put_text(d, b, "a.c");
		put(d, b, 0, 1);
		put_text(d, b, "b.h");
		put(d, b, 1, 1);
	} else {
		put_text(d, b, "inc");
		put(d, b, 0, 1);
		put_text(d, b, "a.c");
		put(d, b, 0, 3);
		put_text(d, b, "b.h");
		put(d, b, 1, 1);
		put(d, b, 0, 2);
		put(d, b, 0, 1);
	}
	patch(d, b, length_at, b->len - length_at - 4, 4);
}

static inline void line_address(struct dwarf_image *d, uint64_t address)
{
	put(d, &d->line, 0, 1);
	put(d, &d->line, 9, 1);
	put(d, &d->line, DW_LNE_set_address, 1);
	put(d, &d->line, address, 8);
}

/* Advances the address, sets file, line (from @p from) and column, makes a row. */
static inline void line_row(struct dwarf_image *d, unsigned advance, unsigned file, unsigned from, unsigned line, unsigned column)
{
	put(d, &d->line, DW_LNS_advance_pc, 1);
	put_uleb(d, &d->line, advance);
	put(d, &d->line, DW_LNS_set_file, 1);
	put_uleb(d, &d->line, file);
	put(d, &d->line, DW_LNS_advance_line, 1);
	put(d, &d->line, (line - from) & 0x7f, 1); /* SLEB128 of -64 .. 63 */
	put(d, &d->line, DW_LNS_set_column, 1);
	put_uleb(d, &d->line, column);
	put(d, &d->line, DW_LNS_copy, 1);
}

static inline void line_end(struct dwarf_image *d, unsigned advance)
{
	put(d, &d->line, DW_LNS_advance_pc, 1);
	put_uleb(d, &d->line, advance);
	put(d, &d->line, 0, 1);
	put(d, &d->line, 1, 1);
	put(d, &d->line, DW_LNE_end_sequence, 1);
}

static inline void dwarf_lines_end(struct dwarf_image *d)
{
	patch(d, &d->line, d->line_at, d->line.len - d->line_at - 4, 4);
}

/* A function symbol in .text. */
static inline void dwarf_symbol(struct dwarf_image *d, const char *name, uint64_t vaddr, uint64_t size)
{
	put(d, &d->strtab, 0, d->strtab.len == 0);
	put(d, &d->symtab, 0, d->symtab.len == 0 ? 24 : 0);
	put(d, &d->symtab, d->strtab.len, 4);
	put(d, &d->symtab, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), 1);
	put(d, &d->symtab, 0, 1);
	put(d, &d->symtab, 1, 2);
	put(d, &d->symtab, vaddr, 8);
	put(d, &d->symtab, size, 8);
	put_text(d, &d->strtab, name);
}

static inline void dwarf_finish(struct dwarf_image *d)
{
	struct elf_image *m = &d->elf;
	const struct {
		const char *name;
		const struct dwarf_bytes *bytes;
	} sections[] = {{".debug_info", &d->info}, {".debug_abbrev", &d->abbrev}, {".debug_line", &d->line}, {".debug_ranges", &d->ranges},
		{".debug_rnglists", &d->rnglists}, {".debug_addr", &d->addr}, {".debug_str", &d->str}, {".debug_str_offsets", &d->str_offsets}};

	image_begin(m, true, d->big_endian);
	image_section(m, ".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, DWARF_TEXT_LOW, NULL, DWARF_TEXT_BYTES);
	image_section(m, ".strtab", SHT_STRTAB, 0, 0, d->strtab.bytes, d->strtab.len);
	image_section(m, ".symtab", SHT_SYMTAB, 0, 0, d->symtab.bytes, d->symtab.len)->link = 2;
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (sections[i].bytes->len)
			image_section(m, sections[i].name, SHT_PROGBITS, 0, 0, sections[i].bytes->bytes, sections[i].bytes->len);
	image_finish(m);
}

static inline struct err *dwarf_build(const struct dwarf_image *d, struct buf *ret, struct build_stats *stats)
{
	struct build_options options = {.binary = {.bytes = d->elf.bytes, .len = d->elf.len, .name = "t"}};

	return build_table(&options, ret, stats);
}

/* What a table says of an address: "g /src/a.c:3:5 < f /src/a.c:7:2", innermost first; "-" for nothing. */
static inline const char *dwarf_ask(const struct buf *bytes, uint64_t vaddr)
{
	static struct table_frame frames[TABLE_MAX_DEPTH];
	static char text[16384];
	struct table table;
	size_t at = 0;

	struct err *e = table_open(bytes->data, bytes->len, &table);
	if (e) {
		err_free(e);
		return "not a table";
	}
	size_t count = table_lookup(&table, vaddr, frames, TABLE_MAX_DEPTH);
	if (count == 0)
		return "-";
	for (size_t i = 0; i < count && at < sizeof(text) - 1; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s %s%s%s:%u:%u", i ? " < " : "", frames[i].function, frames[i].dir,
			*frames[i].dir ? "/" : "", frames[i].base, frames[i].line, frames[i].column);
	return text;
}

#endif

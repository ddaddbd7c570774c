// SPDX-License-Identifier: Apache-2.0
/*
 * .gopclntab by hand, in the three layouts, in a section of its own and merged into another: main.f at [0x1000, 0x1020), of which [0x1008, 0x1010) is main.g inlined at line 12.
 * Real programs: go_truth.py.
 */
#include "symbolizer/build/gopclntab.h"

#include "symbolizer/build/build.h"
#include "symbolizer/table/table.h"
#include "tests/build/elf_image.h"

#include <criterion/criterion.h>
#include <stdio.h>

enum { TABLE = 0x10000, MODULE = 0x5000, TREE = 0x4000, TEXT = 0x1000, HEADER = 72 };

static const uint32_t go16 = 0xfffffffa, go18 = 0xfffffff0, go20 = 0xfffffff1;

/* Where the parts of the section were put. */
struct layout {
	size_t names, cutab, filetab, pctab, functab, function;
};

static struct elf_image m;
static struct elf_image part; /* bytes of the section */
static struct layout l;
static struct buf table;
static struct build_stats stats;

static void bytes(const char *text, size_t len)
{
	image_bytes(&part, text, len);
}

/* The section into `part`. */
static void make_table(uint32_t magic)
{
	bool wide = magic == go16;

	image_begin(&part, true, false);
	memset(part.bytes, 0, sizeof(part.bytes));
	part.len = HEADER;
	l.names = part.len;
	bytes("\0main.f\0main.g\0", 15);
	part.len = 88;
	l.cutab = part.len;
	image_put(&part, 0, 4);
	l.filetab = part.len;
	bytes("a.go\0", 6);
	l.pctab = part.len;
	/* Line: 10 for 8 bytes, 5 for 8, 11 for 16. File 0. Inlined: -1, 0, -1. */
	bytes("\0\x16\x08\x09\x08\x0c\x10\0\x02\x20\0\0\x08\x02\x08\x01\x10\0", 18);
	part.len = 128;
	l.functab = part.len;
	unsigned entry = wide ? 8 : 4;
	image_put(&part, wide ? TEXT : 0, entry);
	image_put(&part, 32, entry);
	image_put(&part, wide ? TEXT + 0x30 : 0x30, entry);
	part.len = l.functab + 32;
	l.function = part.len;
	image_put(&part, wide ? TEXT : 0, entry);
	image_put(&part, 1, 4); /* main.f */
	image_put(&part, 0, 4);
	image_put(&part, 0, 8);
	image_put(&part, 8, 4); /* pcfile */
	image_put(&part, 1, 4); /* pcln */
	image_put(&part, 3, 4); /* npcdata */
	image_put(&part, 0, 4); /* cu */
	if (magic == go20)
		image_put(&part, 9, 4);
	image_put(&part, 0, 3);
	image_put(&part, 4, 1);
	image_put(&part, 0, 8);
	image_put(&part, 11, 4); /* pcdata 2 */
	while (wide && part.len % 8)
		image_put(&part, 0, 1);
	image_put(&part, UINT64_MAX, wide ? 8 : 4);
	image_put(&part, UINT64_MAX, wide ? 8 : 4);
	image_put(&part, UINT64_MAX, wide ? 8 : 4);
	image_put(&part, wide ? TREE + 16 : 16, wide ? 8 : 4);
	size_t end = part.len;
	image_put_at(&part, 0, magic, 4);
	image_put_at(&part, 6, 1, 1);
	image_put_at(&part, 7, 8, 1);
	image_put_at(&part, 8, 1, 8);
	image_put_at(&part, 16, 1, 8);
	size_t at = 24;
	if (!wide) {
		at += 8; /* no text start: it is moduledata's */
	}
	const size_t offsets[] = {l.names, l.cutab, l.filetab, l.pctab, l.functab};
	for (size_t i = 0; i < 5; i++)
		image_put_at(&part, at + 8 * i, offsets[i], 8);
	part.len = end;
}

static void make_image(uint32_t magic)
{
	static uint8_t module[41 * 8], tree[64];
	struct elf_image word;

	image_begin(&word, true, false);
	image_put_at(&word, 0, TABLE, 8);
	memcpy(module, word.bytes, 8);
	image_put_at(&word, 0, TABLE + l.names, 8);
	memcpy(module + 8, word.bytes, 8);
	image_put_at(&word, 0, TEXT, 8);
	memcpy(module + 22 * 8, word.bytes, 8);
	image_put_at(&word, 0, TREE, 8);
	memcpy(module + (magic == go18 ? 38 : 40) * 8, word.bytes, 8);
	/* main.g, called at 0x1004, starts at line 4 */
	memset(tree, 0, sizeof(tree));
	if (magic == go20)
		memcpy(tree + 16, "\0\0\0\0\x08\0\0\0\x04\0\0\0\x04\0\0\0", 16);
	else
		memcpy(tree + 16, "\xff\xff\0\0\0\0\0\0\x0a\0\0\0\x08\0\0\0\x04\0\0\0", 20);
	image_begin(&m, true, false);
	image_section(&m, ".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, TEXT, NULL, 0x1000);
	image_section(&m, ".gopclntab", SHT_PROGBITS, SHF_ALLOC, TABLE, part.bytes, part.len);
	image_section(&m, ".rodata", SHT_PROGBITS, SHF_ALLOC, TREE, tree, sizeof(tree));
	image_section(&m, ".data", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, MODULE, module, sizeof(module));
	image_finish(&m);
}

static struct err *build(void)
{
	struct build_options options = {.binary = {.bytes = m.bytes, .len = m.len, .name = "t"}};

	buf_deinit(&table);
	return build_table(&options, &table, &stats);
}

static void expect(uint64_t vaddr, const char *wanted)
{
	struct table_frame frames[8];
	struct table opened;
	char text[512] = "";

	cr_assert_null(table_open(table.data, table.len, &opened));
	size_t count = table_lookup(&opened, vaddr, frames, 8);
	for (size_t i = 0; i < count; i++)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s %s:%u", i ? " < " : "", frames[i].function, frames[i].base,
			frames[i].line);
	cr_expect_str_eq(text, wanted, "0x%lx: %s, not %s", vaddr, text, wanted);
}

static void must_build(void)
{
	struct err *e = build();

	cr_assert_null(e, "%s", e ? err_message(e) : "");
}

/* The image says what the head of this file says. */
static void expect_answers(void)
{
	must_build();
	cr_expect_eq(stats.damaged, 0, "%s", stats.reason);
	cr_expect_eq(stats.sources, TABLE_FROM_GOPCLNTAB);
	expect(0x1000, "main.f a.go:10");
	expect(0x1007, "main.f a.go:10");
	expect(0x1008, "main.g a.go:5 < main.f a.go:10");
	expect(0x100f, "main.g a.go:5 < main.f a.go:10");
	expect(0x1010, "main.f a.go:11");
	expect(0x101f, "main.f a.go:11");
	expect(0x1020, ""); /* padding */
	buf_deinit(&table);
}

static void expect_whole(uint32_t magic)
{
	make_table(magic);
	make_image(magic);
	expect_answers();
	const char *folder = getenv("CAIRN_WRITE_CORPUS"); /* how tests/fuzz/corpus/build got its Go files */
	if (folder) {
		char path[1024];
		(void)snprintf(path, sizeof(path), "%s/go-%08x", folder, magic);
		FILE *file = fopen(path, "wb");
		cr_assert_eq(fwrite(m.bytes, 1, m.len, file), m.len);
		cr_assert_eq(fclose(file), 0);
	}
}

Test(gopclntab_read, knows_the_layout_of_1_16)
{
	expect_whole(go16);
}

Test(gopclntab_read, knows_the_layout_of_1_18)
{
	expect_whole(go18);
}

Test(gopclntab_read, knows_the_layout_of_1_20)
{
	expect_whole(go20);
}

/* ---- Position-independent programs that another linker than Go's made ---- */

static struct elf_image relocations; /* bytes of the section */

/* A word of the table becomes zeros and a relocation. */
static void relocated(size_t at)
{
	uint64_t word;

	memcpy(&word, part.bytes + at, sizeof(word));
	image_put_at(&part, at, 0, sizeof(word));
	image_put(&relocations, TABLE + at, 8);
	image_put(&relocations, R_X86_64_RELATIVE, 8);
	image_put(&relocations, word, 8);
}

static void relocated_module(unsigned word, uint64_t value)
{
	image_put(&relocations, MODULE + 8 * word, 8);
	image_put(&relocations, R_X86_64_RELATIVE, 8);
	image_put(&relocations, value, 8);
}

/* The table lies in .data.rel.ro behind @p decoys things that look like its header. */
static void make_merged_image(uint32_t magic, unsigned decoys, bool is_go)
{
	static uint8_t module[41 * 8], tree[64], around[1 << 12];

	make_table(magic);
	memset(&relocations, 0, sizeof(relocations));
	if (magic == go16) {
		const size_t words[] = {l.functab, l.functab + 16, l.function, part.len - 8};
		for (size_t i = 0; i < ARRAY_SIZE(words); i++)
			relocated(words[i]);
	} else {
		image_put_at(&part, 24, TEXT, 8);
		relocated(24);
	}
	relocated_module(0, TABLE);
	relocated_module(1, TABLE + l.names);
	relocated_module(22, TEXT);
	relocated_module(magic == go18 ? 38 : 40, TREE);
	memset(tree, 0, sizeof(tree));
	if (magic == go20)
		memcpy(tree + 16, "\0\0\0\0\x08\0\0\0\x04\0\0\0\x04\0\0\0", 16);
	else
		memcpy(tree + 16, "\xff\xff\0\0\0\0\0\0\x0a\0\0\0\x08\0\0\0\x04\0\0\0", 20);
	const size_t before = 8 * (size_t)decoys;
	for (unsigned i = 0; i < decoys; i++)
		memcpy(around + 8 * i, "\xf1\xff\xff\xff\0\0\x01\x08", 8);
	memcpy(around + before, part.bytes, part.len);
	image_begin(&m, true, false);
	image_section(&m, ".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, TEXT, NULL, 0x1000);
	image_section(&m, ".rela.dyn", SHT_RELA, SHF_ALLOC, 0x100, relocations.bytes, relocations.len);
	image_section(&m, ".data.rel.ro", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, TABLE - before, around, before + part.len);
	image_section(&m, ".rodata", SHT_PROGBITS, SHF_ALLOC, TREE, tree, sizeof(tree));
	image_section(&m, ".data", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, MODULE, module, sizeof(module));
	if (is_go)
		image_section(&m, ".go.buildinfo", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, 0x8000, "\xff Go buildinf:", 14);
	image_finish(&m);
}

Test(gopclntab_read, finds_a_table_that_a_linker_merged_and_applies_its_relocations)
{
	const uint32_t magics[] = {go16, go18, go20};

	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		for (unsigned decoys = 0; decoys < 3; decoys++) {
			make_merged_image(magics[i], decoys, true);
			expect_answers();
		}
}

Test(gopclntab_read, looks_at_so_many_headers_only_and_says_that_a_go_program_has_none)
{
	make_merged_image(go20, GO_HEADERS_MAX - 1, true);
	expect_answers();
	make_merged_image(go20, GO_HEADERS_MAX, true);
	struct err *e = build();
	cr_assert_not_null(e);
	cr_expect(strstr(err_message(e), "a Go program (.go.buildinfo), whose .gopclntab was not found") != NULL, "%s", err_message(e));
	err_free(e);
}

Test(gopclntab_read, searches_no_other_programs)
{
	make_merged_image(go20, 0, false);
	struct err *e = build();
	cr_assert_not_null(e);
	cr_expect(strstr(err_message(e), "Go") == NULL, "%s", err_message(e));
	err_free(e);
}

/* The image is built from the changed `part`; nothing is found, for this reason. */
static void expect_nothing(enum err_code code, const char *words)
{
	make_image(go20);
	struct err *e = build();
	cr_assert_not_null(e, "%s", words);
	cr_expect_eq(err_code(e), code, "%s", err_message(e));
	cr_expect(strstr(err_message(e), words) != NULL, "\"%s\" is not in \"%s\"", words, err_message(e));
	err_free(e);
	buf_deinit(&table);
}

Test(gopclntab_read, refuses_unknown_versions_and_damaged_headers)
{
	make_table(go20);
	image_put_at(&part, 0, 0xfffffff2, 4);
	expect_nothing(ERR_FORMAT, ".gopclntab: version 0xfffffff2 is not known");
	make_table(go20);
	image_put_at(&part, 7, 3, 1);
	expect_nothing(ERR_FORMAT, "not a header of Go's function table");
	make_table(go20);
	image_put_at(&part, 8, 1 << 20, 8);
	expect_nothing(ERR_FORMAT, "1048576 functions in");
	make_table(go20);
	image_put_at(&part, 64, UINT64_MAX, 8);
	expect_nothing(ERR_FORMAT, "a table at 0xffffffffffffffff");
	make_table(go20);
	part.len = 30;
	expect_nothing(ERR_FORMAT, ".gopclntab");
}

Test(gopclntab_read, leaves_out_functions_that_are_none)
{
	make_table(go20);
	image_put_at(&part, l.functab + 4, 1 << 20, 4); /* struct _func past the end */
	expect_nothing(ERR_FORMAT, "1 functions, tables or calls are damaged");
	make_table(go20);
	image_put_at(&part, l.function + 4, 1 << 20, 4); /* its name */
	expect_nothing(ERR_FORMAT, "1 functions, tables or calls are damaged");
	make_table(go20);
	image_put_at(&part, l.functab, 0x40, 4); /* it ends before it begins */
	expect_nothing(ERR_FORMAT, "1 functions, tables or calls are damaged");
}

static void expect_function_only(void)
{
	make_image(go20);
	must_build();
	cr_expect_gt(stats.damaged, 0);
	expect(0x1008, "main.f a.go:5");
	buf_deinit(&table);
}

Test(gopclntab_read, shows_the_function_where_the_inline_tree_is_damaged)
{
	make_table(go20);
	image_put_at(&part, part.len - 4, 1 << 20, 4); /* tree outside of any section */
	expect_function_only();
	make_table(go20);
	part.bytes[l.pctab + 13] = 0x7e; /* call 62 of the tree */
	expect_function_only();
}

Test(gopclntab_read, bounds_the_work_of_tables_that_are_shared)
{
	struct err *e;

	/* Very many functions, each with the same long program. */
	make_table(go20);
	size_t program = part.len;
	for (unsigned i = 0; i < 20000; i++)
		image_put(&part, 0x0102, 2);
	image_put(&part, 0, 2);
	while (part.len % 4)
		image_put(&part, 0, 1);
	size_t function = part.len;
	image_bytes(&part, part.bytes + l.function, 64);
	image_put_at(&part, function + 20 + 4, program - l.pctab, 4);
	l.functab = part.len;
	image_put_at(&part, 64, l.functab, 8);
	for (unsigned i = 0; i < 1000; i++) {
		image_put(&part, i, 4);
		image_put(&part, 1000 * 8 + 8, 4);
	}
	image_put(&part, 1000, 8);
	image_bytes(&part, part.bytes + function, 64);
	image_put_at(&part, 8, 1000, 8);
	make_image(go20);
	e = build();
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_LIMIT, "%s", err_message(e));
	cr_expect(strstr(err_message(e), ".gopclntab is read over and over") != NULL, "%s", err_message(e));
	err_free(e);
}

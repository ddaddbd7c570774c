// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/symbols.h"

#include "tests/build/elf_image.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/mman.h>

/* A file with .text [0x1000, 0x1100), .init [0x2000, 0x2010) and .data, and the symbols of a table as text. */
struct entry {
	const char *name;
	uint8_t info;
	uint16_t section; /* 1 .text, 2 .init, 3 .data */
	uint64_t value, size;
};

#define FUNC(bind) ELF64_ST_INFO(bind, STT_FUNC)
#define NOTYPE(bind) ELF64_ST_INFO(bind, STT_NOTYPE)

static void make(struct elf_image *m, bool is_64, bool big_endian, const struct entry *entries, size_t count)
{
	const uint64_t code = SHF_ALLOC | SHF_EXECINSTR;
	static struct elf_image table;
	char names[8192] = "";
	uint32_t names_len = 1;

	image_begin(m, is_64, big_endian);
	image_section(m, ".text", SHT_NOBITS, code, 0x1000, NULL, 0x100);
	image_section(m, ".init", SHT_NOBITS, code, 0x2000, NULL, 0x10);
	image_section(m, ".data", SHT_NOBITS, SHF_ALLOC | SHF_WRITE, 0x3000, NULL, 0x10);
	table = (struct elf_image){.is_64 = is_64, .big_endian = big_endian};
	image_symbol(&table, 0, 0, 0, 0, 0);
	for (size_t i = 0; i < count; i++) {
		image_symbol(&table, names_len, entries[i].info, entries[i].section, entries[i].value, entries[i].size);
		names_len += (uint32_t)sprintf(names + names_len, "%s", entries[i].name) + 1;
	}
	image_section(m, ".symtab", SHT_SYMTAB, 0, 0, table.bytes, table.len)->link = 5;
	image_section(m, ".strtab", SHT_STRTAB, 0, 0, names, names_len);
	image_finish(m);
}

/* All symbols as "name low-high name low-high ..", in order. */
static void show(const struct symbols *symbols, char *text)
{
	*text = 0;
	for (size_t i = 0; i < symbols->count; i++)
		text += sprintf(text, "%s%.*s %lx-%lx", i ? ", " : "", (int)symbols->items[i].name_len, symbols->items[i].name,
			symbols->items[i].vaddr, symbols->items[i].high);
}

static void show_ranges(const struct symbols *symbols, char *text)
{
	*text = 0;
	for (size_t i = 0; i < symbols->range_count; i++) {
		const struct symbol *symbol = &symbols->items[symbols->ranges[i].symbol];
		text += sprintf(text, "%s%.*s %lx-%lx", i ? ", " : "", (int)symbol->name_len, symbol->name,
			symbols->ranges[i].low, symbols->ranges[i].high);
	}
}

static void expect(const struct entry *entries, size_t count, const char *wanted, const char *wanted_ranges)
{
	struct elf_image m;
	char text[4096];

	for (int kind = 0; kind < 4; kind++) {
		struct elffile *file CLEANUP(elffile_closep) = NULL;
		struct symbols symbols CLEANUP(symbols_deinit) = {0};

		make(&m, kind & 1, kind & 2, entries, count);
		cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
		cr_assert_null(symbols_read(file, false, &symbols));
		show(&symbols, text);
		cr_assert_str_eq(text, wanted);
		show_ranges(&symbols, text);
		cr_assert_str_eq(text, wanted_ranges);
		cr_assert_null(symbols_find(&symbols, 0xfff));
		cr_assert_null(symbols_find(&symbols, UINT64_MAX));
	}
}

#define EXPECT(wanted, ranges, ...)                                                                                   \
	do {                                                                                                          \
		const struct entry entries_[] = {__VA_ARGS__};                                                        \
		expect(entries_, ARRAY_SIZE(entries_), wanted, ranges);                                               \
	} while (0)

Test(symbols_read, keeps_code_only)
{
	EXPECT("f 1000-1010", "f 1000-1010",
		{"data", ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT), 3, 0x3000, 4},
		{"file.c", ELF64_ST_INFO(STB_LOCAL, STT_FILE), SHN_ABS, 0, 0},
		{".text", ELF64_ST_INFO(STB_LOCAL, STT_SECTION), 1, 0x1000, 0},
		{"undefined", FUNC(STB_GLOBAL), 0, 0, 0},
		{"absolute", FUNC(STB_GLOBAL), SHN_ABS, 0x1004, 4},
		{"in_data", FUNC(STB_GLOBAL), 3, 0x3000, 4},
		{"_etext", NOTYPE(STB_GLOBAL), 1, 0x1100, 0},
		{"below", FUNC(STB_GLOBAL), 1, 0xfff, 4},
		{"f", FUNC(STB_GLOBAL), 1, 0x1000, 0x10});
}

Test(symbols_read, leaves_mapping_symbols_and_dot_labels_out)
{
	EXPECT("$xyz 1010-1014, dollar$x 1014-1100", "$xyz 1010-1014, dollar$x 1014-1100",
		{"$x", NOTYPE(STB_LOCAL), 1, 0x1000, 0}, {"$d.17", NOTYPE(STB_LOCAL), 1, 0x1004, 0},
		{"$a", NOTYPE(STB_LOCAL), 1, 0x1004, 0}, {"$t", NOTYPE(STB_LOCAL), 1, 0x1004, 0},
		{".Llabel", NOTYPE(STB_LOCAL), 1, 0x1008, 0}, {"", NOTYPE(STB_LOCAL), 1, 0x1008, 0},
		{"$xyz", NOTYPE(STB_LOCAL), 1, 0x1010, 0}, {"dollar$x", NOTYPE(STB_LOCAL), 1, 0x1014, 0});
}

Test(symbols_read, ends_sizeless_symbols_at_the_next_address_or_the_section)
{
	EXPECT("a 1000-1020, b 1020-1030, b2 1020-1030, sized 1030-1034, c 1040-1100, i 2000-2010",
		"a 1000-1020, b 1020-1030, sized 1030-1034, c 1040-1100, i 2000-2010",
		{"a", NOTYPE(STB_GLOBAL), 1, 0x1000, 0}, {"b", NOTYPE(STB_GLOBAL), 1, 0x1020, 0},
		{"b2", NOTYPE(STB_GLOBAL), 1, 0x1020, 0}, {"sized", FUNC(STB_GLOBAL), 1, 0x1030, 4},
		{"c", NOTYPE(STB_GLOBAL), 1, 0x1040, 0}, {"i", NOTYPE(STB_GLOBAL), 2, 0x2000, 0});
}

/* Functions that are not exported may lie behind it. */
Test(symbols_read, ends_sizeless_symbols_of_dynsym_after_a_limit)
{
	static struct elf_image m, table;
	struct symbols symbols CLEANUP(symbols_deinit) = {0};
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	char text[256];

	image_begin(&m, true, false);
	image_section(&m, ".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, 0x1000, NULL, 0x10000);
	table = (struct elf_image){.is_64 = true};
	image_symbol(&table, 0, 0, 0, 0, 0);
	image_symbol(&table, 1, FUNC(STB_GLOBAL), 1, 0x1100, 0);
	image_symbol(&table, 3, FUNC(STB_GLOBAL), 1, 0x1110, 0);
	image_symbol(&table, 5, FUNC(STB_GLOBAL), 1, 0x8000, 0x4000);
	image_section(&m, ".dynsym", SHT_DYNSYM, SHF_ALLOC, 0, table.bytes, table.len)->link = 3;
	image_section(&m, ".dynstr", SHT_STRTAB, SHF_ALLOC, 0, "\0a\0b\0c", 7);
	image_finish(&m);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	cr_assert_null(symbols_read(file, true, &symbols));
	show_ranges(&symbols, text);
	cr_expect_str_eq(text, "a 1100-1110, b 1110-1510, c 8000-c000");
}

Test(symbols_read, leaves_labels_inside_sized_functions_out)
{
	EXPECT("f 1000-1020, alias 1000-1020, after 1020-1100", "f 1000-1020, after 1020-1100",
		{"f", FUNC(STB_GLOBAL), 1, 0x1000, 0x20}, {"alias", NOTYPE(STB_GLOBAL), 1, 0x1000, 0},
		{"label", NOTYPE(STB_LOCAL), 1, 0x1010, 0}, {"after", NOTYPE(STB_LOCAL), 1, 0x1020, 0});
}

Test(symbols_read, orders_aliases_and_drops_repeated_names)
{
	EXPECT("global 1000-1010, longer_global 1000-1010, _global 1000-1010, weak 1000-1010, local 1000-1010, resolver 1000-1010, "
	       "sizeless 1000-1010",
		"global 1000-1010",
		{"sizeless", FUNC(STB_GLOBAL), 1, 0x1000, 0}, {"local", FUNC(STB_LOCAL), 1, 0x1000, 0x10},
		{"weak", FUNC(STB_WEAK), 1, 0x1000, 0x10}, {"longer_global", FUNC(STB_GLOBAL), 1, 0x1000, 0x10},
		{"_global", FUNC(STB_GLOBAL), 1, 0x1000, 0x10}, {"global", FUNC(STB_GLOBAL), 1, 0x1000, 0x10},
		{"global@@V_2", FUNC(STB_GLOBAL), 1, 0x1000, 0x10}, {"global@V_1", FUNC(STB_GLOBAL), 1, 0x1000, 0x10},
		{"resolver", ELF64_ST_INFO(STB_LOCAL, STT_GNU_IFUNC), 1, 0x1000, 0x10});
}

Test(symbols_read, gives_nested_and_overlapping_extents_to_the_last_begun)
{
	EXPECT("outer 1000-1080, inner 1010-1020, deep 1014-1018, over 1070-1090",
		"outer 1000-1010, inner 1010-1014, deep 1014-1018, inner 1018-1020, outer 1020-1070, over 1070-1090",
		{"outer", FUNC(STB_GLOBAL), 1, 0x1000, 0x80}, {"inner", FUNC(STB_GLOBAL), 1, 0x1010, 0x10},
		{"deep", FUNC(STB_LOCAL), 1, 0x1014, 4}, {"over", FUNC(STB_LOCAL), 1, 0x1070, 0x20});
}

Test(symbols_read, cuts_a_size_at_the_end_of_the_section)
{
	EXPECT("f 1080-1100", "f 1080-1100", {"f", FUNC(STB_GLOBAL), 1, 0x1080, UINT32_MAX});
}

Test(symbols_read, drops_an_entry_whose_name_is_out_of_range)
{
	struct elf_image m;
	const struct entry entries[] = {{"f", FUNC(STB_GLOBAL), 1, 0x1000, 4}, {"g", FUNC(STB_GLOBAL), 1, 0x1010, 4}};
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct symbols symbols CLEANUP(symbols_deinit) = {0};

	make(&m, true, false, entries, 2);
	image_put_at(&m, m.headers[4].foff + 24, 5000, 4);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	cr_assert_null(symbols_read(file, false, &symbols));
	cr_assert_eq(symbols.count, 1);
	cr_assert_eq(symbols.items[0].vaddr, 0x1010);
}

Test(symbols_read, refuses_a_table_without_its_strings)
{
	struct elf_image m;
	const struct entry entries[] = {{"f", FUNC(STB_GLOBAL), 1, 0x1000, 4}};
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct symbols symbols = {0};

	make(&m, true, false, entries, 1);
	image_put_at(&m, image_field(&m, 4, 40, 24), 3, 4);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	struct err *e = symbols_read(file, false, &symbols);
	cr_assert_eq(err_code(e), ERR_FORMAT);
	cr_assert_str_eq(err_message(e), "t: section 4 (.symtab): its names are in section 3, which is no string table");
	err_free(e);
}

Test(symbols_read, yields_nothing_without_a_table)
{
	struct elf_image m;
	const struct entry entries[] = {{"f", FUNC(STB_GLOBAL), 1, 0x1000, 4}};
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct symbols symbols CLEANUP(symbols_deinit) = {0};

	make(&m, true, false, entries, 1);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	cr_assert_null(symbols_read(file, true, &symbols));
	cr_assert_eq(symbols.count, 0);
	cr_assert_null(symbols_find(&symbols, 0x1000));
}

Test(symbols_read, counts_from_the_section_in_relocatable_files)
{
	struct elf_image m;
	const struct entry entries[] = {{"f", FUNC(STB_GLOBAL), 1, 0x10, 4}, {"past_its_end", FUNC(STB_GLOBAL), 1, 0x100000, 4}};
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct symbols symbols CLEANUP(symbols_deinit) = {0};

	make(&m, true, false, entries, 2);
	image_put_at(&m, 16, ET_REL, 2);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	cr_assert_null(symbols_read(file, false, &symbols));
	cr_assert_eq(symbols.count, 1);
	cr_assert_eq(symbols.items[0].vaddr, elffile_base(file) + 0x10);
}

Test(symbols_find, knows_the_edges_of_a_range)
{
	struct elf_image m;
	const struct entry entries[] = {{"f", FUNC(STB_GLOBAL), 1, 0x1000, 4}, {"g", FUNC(STB_GLOBAL), 1, 0x1010, 4}};
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct symbols symbols CLEANUP(symbols_deinit) = {0};

	make(&m, true, false, entries, 2);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	cr_assert_null(symbols_read(file, false, &symbols));
	cr_assert_eq(symbols_find(&symbols, 0x1000), &symbols.ranges[0]);
	cr_assert_eq(symbols_find(&symbols, 0x1003), &symbols.ranges[0]);
	cr_assert_null(symbols_find(&symbols, 0x1004));
	cr_assert_eq(symbols_find(&symbols, 0x1010), &symbols.ranges[1]);
	cr_assert_eq(symbols_group(&symbols, 0), 1);
}

Test(symbols_read, leaves_a_name_past_its_limit_out)
{
	static struct elf_image m, table;
	static char names[2 * SYMBOL_NAME_MAX + 8];
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct symbols symbols CLEANUP(symbols_deinit) = {0};

	memset(names, 'n', sizeof(names));
	names[0] = names[1 + SYMBOL_NAME_MAX] = names[sizeof(names) - 1] = 0; /* one of the limit, one of one more */
	image_begin(&m, true, false);
	image_section(&m, ".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, 0x1000, NULL, 0x100);
	table = (struct elf_image){.is_64 = true};
	image_symbol(&table, 1, FUNC(STB_GLOBAL), 1, 0x1000, 4);
	image_symbol(&table, 2 + SYMBOL_NAME_MAX, FUNC(STB_GLOBAL), 1, 0x1010, 4);
	image_section(&m, ".symtab", SHT_SYMTAB, 0, 0, table.bytes, table.len)->link = 3;
	image_section(&m, ".strtab", SHT_STRTAB, 0, 0, names, sizeof(names));
	image_finish(&m);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	cr_assert_null(symbols_read(file, false, &symbols));
	cr_assert_eq(symbols.count, 1);
	cr_assert_eq(symbols.items[0].name_len, SYMBOL_NAME_MAX);
}

Test(symbols_read, refuses_more_symbols_than_the_limit)
{
	static struct elf_image m;
	const uint64_t size = (SYMBOLS_MAX + 1UL) * sizeof(Elf64_Sym);
	const size_t len = sizeof(m.bytes) + size;
	struct symbols symbols = {0};

	image_begin(&m, true, false);
	struct image_header *table = image_section(&m, ".symtab", SHT_SYMTAB, 0, 0, NULL, 0);
	table->link = 2;
	table->foff = sizeof(m.bytes);
	table->size = size;
	image_section(&m, ".strtab", SHT_STRTAB, 0, 0, "", 1);
	image_finish(&m);
	/* Pages behind the headers are never touched. */
	uint8_t *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	cr_assert_neq(bytes, MAP_FAILED);
	memcpy(bytes, m.bytes, m.len);
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	cr_assert_null(elffile_open(bytes, len, "t", NULL, &file));
	struct err *e = symbols_read(file, false, &symbols);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	cr_assert_str_eq(err_message(e), "t: .symtab: 67108865 symbols, more than 67108864");
	err_free(e);
	(void)munmap(bytes, len);
}

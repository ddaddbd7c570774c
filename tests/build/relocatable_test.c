// SPDX-License-Identifier: Apache-2.0
/* Relocatable files by hand: where their sections lie, what relocations do and which of them are refused. */
#include "symbolizer/build/relocatable.h"

#include "tests/build/elf_image.h"

#include <criterion/criterion.h>

enum { TEXT = 1, SYMTAB = 2, STRTAB = 3, DEBUG = 4, RELA = 5 };

static const uint64_t code = SHF_ALLOC | SHF_EXECINSTR;

/* .text of 0x100 bytes, symbols 1 (.text + 0x10) and 2 (undefined), .debug_info of 16 bytes, one relocation for it. */
static void make(struct elf_image *m, uint16_t type, uint64_t offset, uint64_t info, uint64_t addend)
{
	static struct elf_image part;

	image_begin(m, true, false);
	image_put_at(m, 16, type, 2);
	image_section(m, ".text", SHT_NOBITS, code, 0, NULL, 0x100);
	image_begin(&part, true, false);
	part.len = 0;
	image_symbol(&part, 0, 0, 0, 0, 0);
	image_symbol(&part, 0, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), TEXT, 0x10, 4);
	image_symbol(&part, 0, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), SHN_UNDEF, 0, 0);
	image_section(m, ".symtab", SHT_SYMTAB, 0, 0, part.bytes, part.len)->link = STRTAB;
	image_section(m, ".strtab", SHT_STRTAB, 0, 0, "", 1);
	image_section(m, ".debug_info", SHT_PROGBITS, 0, 0, "0123456789abcdef", 16);
	part.len = 0;
	image_put(&part, offset, 8);
	image_put(&part, info, 8);
	image_put(&part, addend, 8);
	struct image_header *rela = image_section(m, ".rela.debug_info", SHT_RELA, 0, 0, part.bytes, part.len);
	rela->link = SYMTAB;
	rela->info = DEBUG;
}

static struct elffile *must_open(struct elf_image *m)
{
	struct elffile *file = NULL;

	image_finish(m);
	struct err *e = elffile_open(m->bytes, m->len, "t.o", NULL, &file);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	return file;
}

static uint64_t relocated(struct elf_image *m)
{
	struct elffile *file CLEANUP(elffile_closep) = must_open(m);
	struct reader r;
	struct err *e = elffile_load(file, elffile_section(file, DEBUG), &r);

	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_assert_eq(reader_left(&r), 16);
	reader_skip(&r, 4);
	return reader_u64(&r);
}

static void expect_not_loaded(struct elf_image *m, enum err_code code_wanted, const char *words)
{
	struct elffile *file CLEANUP(elffile_closep) = must_open(m);
	struct reader r;
	struct err *e = elffile_load(file, elffile_section(file, DEBUG), &r);

	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), code_wanted, "%s", err_message(e));
	cr_expect(strstr(err_message(e), words) != NULL, "\"%s\" is not in \"%s\"", words, err_message(e));
	err_free(e);
}

static struct elf_image m;
static const uint64_t untouched = 0x6261393837363534; /* "456789ab" */

Test(relocatable_apply, adds_section_symbol_and_addend)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), 2);
	cr_expect_eq(relocated(&m), RELOCATABLE_BASE + 0x12);
}

Test(relocatable_apply, writes_four_bytes_of_a_type_of_four)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_32), 0);
	cr_expect_eq(relocated(&m), (untouched & ~(uint64_t)UINT32_MAX) | (RELOCATABLE_BASE + 0x10));
}

Test(relocatable_apply, makes_a_tombstone_of_an_undefined_symbol)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(2, R_X86_64_64), 2);
	cr_expect_eq(relocated(&m), UINT64_MAX);
}

Test(relocatable_apply, leaves_a_linked_file_alone)
{
	make(&m, ET_EXEC, 4, ELF64_R_INFO(1, R_X86_64_64), 2);
	cr_expect_eq(relocated(&m), untouched);
}

Test(relocatable_apply, passes_over_nothing_and_thread_local_offsets)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_NONE), 2);
	cr_expect_eq(relocated(&m), untouched);
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_DTPOFF64), 2);
	cr_expect_eq(relocated(&m), untouched);
}

/* What RISC-V's types make of the bytes "456789ab" with the value of symbol 1 and an addend. */
Test(relocatable_apply, adds_subtracts_and_sets_for_risc_v)
{
	enum { VALUE = RELOCATABLE_BASE + 0x10, SET_ULEB128 = 60, SUB_ULEB128 = 61 };
	static const struct {
		uint32_t type;
		uint64_t mask, wanted; /* of what is there, the bits that change, and these */
	} cases[] = {
		{R_RISCV_64, UINT64_MAX, VALUE + 5},
		{R_RISCV_32, UINT32_MAX, VALUE + 5},
		{R_RISCV_ADD8, 0xff, 0x34 + 0x15},
		{R_RISCV_ADD16, 0xffff, 0x3534 + 0x15},
		{R_RISCV_ADD32, UINT32_MAX, 0x37363534 + VALUE + 5},
		{R_RISCV_ADD64, UINT64_MAX, 0x6261393837363534 + VALUE + 5},
		{R_RISCV_SUB8, 0xff, 0x34 - 0x15},
		{R_RISCV_SUB16, 0xffff, 0x3534 - 0x15},
		{R_RISCV_SUB32, UINT32_MAX, (uint32_t)(0x37363534 - (VALUE + 5))},
		{R_RISCV_SUB64, UINT64_MAX, 0x6261393837363534 - (VALUE + 5)},
		{R_RISCV_SET8, 0xff, 0x15},
		{R_RISCV_SET16, 0xffff, 0x15},
		{R_RISCV_SET32, UINT32_MAX, VALUE + 5},
		{R_RISCV_SET6, 0x3f, 0x15},
		{R_RISCV_SUB6, 0x3f, 0x34 - 0x15},
		{SET_ULEB128, 0x7f, 0x15},
		{SUB_ULEB128, 0x7f, 0x34 - 0x15},
		{R_RISCV_TLS_DTPREL64, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		make(&m, ET_REL, 4, ELF64_R_INFO(1, cases[i].type), 5);
		image_put_at(&m, 18, EM_RISCV, 2);
		uint64_t got = relocated(&m), wanted = (untouched & ~cases[i].mask) | cases[i].wanted;
		cr_expect_eq(got, wanted, "type %u: 0x%lx, not 0x%lx", cases[i].type, got, wanted);
	}
	make(&m, ET_REL, 4, ELF64_R_INFO(2, R_RISCV_SUB64), 5);
	image_put_at(&m, 18, EM_RISCV, 2);
	cr_expect_eq(relocated(&m), untouched); /* no symbol, no difference */
}

Test(relocatable_apply, keeps_the_length_of_a_uleb128)
{
	const uint32_t set = 60, subtract = 61;
	size_t at;

	for (unsigned with_end = 0; with_end < 2; with_end++) {
		make(&m, ET_REL, 4, ELF64_R_INFO(1, set), 0x11);
		image_put_at(&m, 18, EM_RISCV, 2);
		at = m.headers[DEBUG].foff;
		image_put_at(&m, at + 4, 0x8180, 2);
		image_put_at(&m, at + 6, with_end ? 0x01 : 0x81, 1);
		if (!with_end)
			memset(m.bytes + at + 6, 0x80, 10);
		if (!with_end) {
			expect_not_loaded(&m, ERR_FORMAT, "a relocation at 0x4: no ULEB128 that ends");
			continue;
		}
		/* 21 bits of RELOCATABLE_BASE + 0x21 */
		cr_expect_eq(relocated(&m) & 0xffffff, 0x0080a1);
	}
	make(&m, ET_REL, 4, ELF64_R_INFO(1, subtract), 0x11);
	image_put_at(&m, 18, EM_RISCV, 2);
	at = m.headers[DEBUG].foff;
	image_put_at(&m, at + 4, 0x00c0, 2);
	image_put_at(&m, at + 5, 0x01, 1); /* 0xc0 - 0x21 */
	cr_expect_eq(relocated(&m) & 0xffff, 0x019f);
	make(&m, ET_REL, 15, ELF64_R_INFO(1, set), 0);
	image_put_at(&m, 18, EM_RISCV, 2);
	image_put_at(&m, m.headers[DEBUG].foff + 15, 0x80, 1); /* the section ends */
	expect_not_loaded(&m, ERR_FORMAT, "no ULEB128 that ends");
}

Test(relocatable_apply, refuses_what_does_not_fit)
{
	make(&m, ET_REL, 9, ELF64_R_INFO(1, R_X86_64_64), 0);
	expect_not_loaded(&m, ERR_FORMAT, "t.o: section 5: a relocation at 0x9 of 0x10 bytes");
	make(&m, ET_REL, UINT64_MAX, ELF64_R_INFO(1, R_X86_64_64), 0);
	expect_not_loaded(&m, ERR_FORMAT, "a relocation at 0xffffffffffffffff");
	make(&m, ET_REL, 4, ELF64_R_INFO(3, R_X86_64_64), 0);
	expect_not_loaded(&m, ERR_FORMAT, "symbol 3 of a relocation does not exist");
}

Test(relocatable_apply, sums_that_wrap_are_cut_to_the_size_of_an_address)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), UINT64_MAX);
	cr_expect_eq(relocated(&m), RELOCATABLE_BASE + 0xf);
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_32), UINT32_MAX);
	cr_expect_eq(relocated(&m) & UINT32_MAX, RELOCATABLE_BASE + 0xf);
}

/* Tables that relocate each other or themselves: a table is read as it lies in the file, so that nothing goes round. */
Test(relocatable_apply, tables_in_a_circle_are_read_once)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), 2);
	struct image_header *other = image_section(&m, ".rela.rela", SHT_RELA, 0, 0, m.bytes + m.headers[RELA].foff, m.headers[RELA].size);
	other->link = SYMTAB;
	other->info = RELA;
	cr_expect_eq(relocated(&m), RELOCATABLE_BASE + 0x12);
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), 2);
	m.headers[RELA].info = RELA;
	cr_expect_eq(relocated(&m), untouched);
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), 2);
	m.headers[RELA].link = RELA; /* its own symbol table: symbol 1 lies behind its one entry */
	expect_not_loaded(&m, ERR_FORMAT, "symbol 1 of a relocation does not exist");
}

Test(relocatable_apply, refuses_types_and_machines_that_it_does_not_know)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_PLT32), 0);
	expect_not_loaded(&m, ERR_UNSUPPORTED, "relocation of type 4 for machine 62");
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_RISCV_CALL), 0);
	image_put_at(&m, 18, EM_RISCV, 2);
	expect_not_loaded(&m, ERR_UNSUPPORTED, "relocation of type 18 for machine 243");
	make(&m, ET_REL, 4, ELF64_R_INFO(1, 2), 0);
	image_put_at(&m, 18, EM_SPARCV9, 2);
	expect_not_loaded(&m, ERR_UNSUPPORTED, "relocation of type 2 for machine 43");
}

Test(relocatable_apply, reads_the_indices_of_many_sections)
{
	uint8_t indices[12] = {0};

	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), 0);
	image_put_at(&m, (size_t)m.headers[SYMTAB].foff + 24 + 6, SHN_XINDEX, 2);
	indices[4] = TEXT;
	image_section(&m, ".symtab_shndx", SHT_SYMTAB_SHNDX, 0, 0, indices, sizeof(indices))->link = SYMTAB;
	cr_expect_eq(relocated(&m), RELOCATABLE_BASE + 0x10);
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), 0);
	image_put_at(&m, (size_t)m.headers[SYMTAB].foff + 24 + 6, SHN_XINDEX, 2);
	expect_not_loaded(&m, ERR_FORMAT, "symbol 1 of a relocation does not exist");
}

/* Layout */

static uint64_t vaddr_of(const struct elffile *file, const char *name)
{
	return elffile_find(file, name)->vaddr - elffile_base(file);
}

static void begin(bool module)
{
	image_begin(&m, true, false);
	image_put_at(&m, 16, ET_REL, 2);
	if (module)
		image_section(&m, ".gnu.linkonce.this_module", SHT_NOBITS, SHF_ALLOC | SHF_WRITE, 0, NULL, 0x40);
	image_section(&m, ".data", SHT_NOBITS, SHF_ALLOC | SHF_WRITE, 0, NULL, 0x30);
	image_section(&m, ".init.text", SHT_NOBITS, code, 0x77, NULL, 0x10);
	image_section(&m, ".text", SHT_NOBITS, code, 0, NULL, 0x20);
}

Test(relocatable_lay_out, puts_code_first_in_its_order)
{
	begin(false);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	cr_expect_eq(vaddr_of(file, ".init.text"), 0);
	cr_expect_eq(vaddr_of(file, ".text"), 0x10);
	cr_expect_eq(vaddr_of(file, ".data"), 0x30);
}

Test(relocatable_lay_out, puts_the_init_code_of_a_module_last)
{
	begin(true);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	cr_expect_eq(vaddr_of(file, ".text"), 0);
	cr_expect_eq(vaddr_of(file, ".init.text"), 0x20);
}

static void expect_refused(enum err_code code_wanted, const char *words)
{
	struct elffile *file = NULL;
	struct err *e = elffile_open(m.bytes, m.len, "t.o", NULL, &file);

	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), code_wanted, "%s", err_message(e));
	cr_expect(strstr(err_message(e), words) != NULL, "\"%s\" is not in \"%s\"", words, err_message(e));
	err_free(e);
}

Test(relocatable_lay_out, refuses_odd_alignments)
{
	begin(false);
	image_finish(&m);
	image_put_at(&m, image_field(&m, 3, 48, 32), 24, 8);
	expect_refused(ERR_FORMAT, "t.o: section 3: alignment 0x18");
	image_put_at(&m, image_field(&m, 3, 48, 32), (uint64_t)RELOCATABLE_ALIGN_MAX * 2, 8);
	expect_refused(ERR_FORMAT, "alignment 0x200000");
}

Test(relocatable_lay_out, refuses_sections_that_are_too_large_together)
{
	begin(false);
	image_section(&m, ".bss", SHT_NOBITS, SHF_ALLOC, 0, NULL, RELOCATABLE_BYTES_MAX - 0x60);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	cr_expect_eq(vaddr_of(file, ".bss"), 0x60);
	image_put_at(&m, image_field(&m, 4, 32, 20), RELOCATABLE_BYTES_MAX - 0x5f, 8);
	expect_refused(ERR_LIMIT, "more than 1073741824 bytes together");
	image_put_at(&m, image_field(&m, 4, 32, 20), UINT64_MAX - 0x100, 8);
	expect_refused(ERR_LIMIT, "more than 1073741824 bytes together");
}

Test(relocatable_lay_out, refuses_two_tables_for_one_section)
{
	make(&m, ET_REL, 4, ELF64_R_INFO(1, R_X86_64_64), 2);
	struct image_header *second = image_section(&m, ".rela.debug_info", SHT_RELA, 0, 0, "0123456789abcdef01234567", 24);
	second->link = SYMTAB;
	second->info = DEBUG;
	image_finish(&m);
	expect_refused(ERR_FORMAT, "section 4: relocated by sections 5 and 6");
}

// SPDX-License-Identifier: Apache-2.0
/*
 * A relocatable file has no addresses yet: every section begins at 0, and DWARF has zeros where addresses and offsets of
 * other sections belong, which relocations fill in.
 *
 * Layout: executable sections in the order of the section table, each at its alignment, the first at address 0; behind them the
 * other allocated ones. That is what the kernel does to a module's text (kernel/module/main.c, layout_sections), but for its
 * .init sections, which go into memory of their own: here they lie behind the rest of the code. So an address of a module, minus
 * the module's start, is an address of the table. A debug file (objcopy --only-keep-debug) keeps the allocated
 * sections' sizes and order, and so has the same layout.
 *
 * Inside the builder all this lies RELOCATABLE_BASE higher. Code that the linker dropped (ld -r and sections of a COMDAT group)
 * loses its relocations and leaves zeros: at 0 there must be no code. merge.c takes the base away again. A relocation
 * against an undefined symbol makes an address of all ones, DWARF's own tombstone.
 *
 * Only ET_REL comes here: a linked file may carry relocations of its debug sections too (Debian's vmlinux: ld --emit-relocs),
 * and has them applied already.
 *
 * In debug sections compilers emit absolute relocations only, besides offsets into thread-local storage, which nobody here
 * reads. Only RISC-V has others, since its linker shortens code: a difference of two symbols is an addition and a subtraction, or a
 * setting and a subtraction, of what stands there.
 */
#include "symbolizer/build/relocatable.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

/* ---- Layout ---- */

static struct err *place(struct elffile_section *section, const char *name, uint64_t *end)
{
	uint64_t align = section->align ? section->align : 1;

	if ((align & (align - 1)) || align > RELOCATABLE_ALIGN_MAX)
		return err_new(ERR_FORMAT, "%s: section %" PRIu32 ": alignment 0x%" PRIx64, name, section->index, align);
	uint64_t at = (*end + align - 1) & ~(align - 1);
	if (section->size > RELOCATABLE_BYTES_MAX || at + section->size > (uint64_t)RELOCATABLE_BASE + RELOCATABLE_BYTES_MAX)
		return err_new(ERR_LIMIT, "%s: section %" PRIu32 ": sections of more than %d bytes together", name, section->index,
			RELOCATABLE_BYTES_MAX);
	section->vaddr = at;
	*end = at + section->size;
	return NULL;
}

static bool is_module(const struct elffile_section *sections, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (strcmp(sections[i].name, ".gnu.linkonce.this_module") == 0)
			return true;
	return false;
}

/* 0: code; 1: a module's code that is thrown away after its start; 2: other memory; 3: not in memory. */
static unsigned rank_of(const struct elffile_section *section, bool module)
{
	if (!(section->flags & SHF_ALLOC))
		return 3;
	if (!(section->flags & SHF_EXECINSTR))
		return 2;
	return module && strncmp(section->name, ".init", 5) == 0;
}

static struct err *note_relocations(struct elffile_section *sections, size_t count, const char *name)
{
	for (uint32_t i = 1; i < count; i++) {
		const struct elffile_section *table = &sections[i];
		if ((table->type != SHT_RELA && table->type != SHT_REL) || table->size == 0 || table->info >= count ||
			(sections[table->info].flags & SHF_ALLOC))
			continue;
		struct elffile_section *target = &sections[table->info];
		if (target->relocations)
			return err_new(ERR_FORMAT, "%s: section %" PRIu32 ": relocated by sections %" PRIu32 " and %" PRIu32, name,
				table->info, target->relocations, i);
		target->relocations = i;
	}
	return NULL;
}

struct err *relocatable_lay_out(struct elffile_section *sections, size_t count, const char *name)
{
	bool module = is_module(sections, count);
	uint64_t end = RELOCATABLE_BASE;

	for (unsigned rank = 0; rank <= 2; rank++)
		for (size_t i = 1; i < count; i++)
			if (rank_of(&sections[i], module) == rank)
				TRY(place(&sections[i], name, &end));
	for (size_t i = 1; i < count; i++)
		if (rank_of(&sections[i], module) == 3)
			sections[i].vaddr = 0;
	return note_relocations(sections, count, name);
}

/* ---- Relocations ---- */

/* What becomes of what stands there. */
enum relocation_does {
	DOES_PUT,	/* all ones for an undefined symbol */
	DOES_ADD,
	DOES_SUBTRACT,
	DOES_PUT_6,	/* of a byte's 6 low bits, */
	DOES_SUBTRACT_6, /* whose others stay */
	DOES_PUT_ULEB,	/* of a ULEB128, whose length stays */
	DOES_SUBTRACT_ULEB,
};

/* What a type means: the size of the value (of a ULEB128 the least one), or 0 for one of no interest. */
struct relocation_kind {
	uint16_t machine;
	uint32_t type;
	unsigned size;
	enum relocation_does does;
};

/* Younger than Debian 12's elf.h. */
enum { RISCV_SET_ULEB128 = 60, RISCV_SUB_ULEB128 = 61 };

enum { ULEB_BYTES_MAX = 9 }; /* whole groups of 7 bits in 64 */

static const struct relocation_kind kinds[] = {
	{EM_X86_64, R_X86_64_64, 8, DOES_PUT},
	{EM_X86_64, R_X86_64_32, 4, DOES_PUT},
	{EM_X86_64, R_X86_64_32S, 4, DOES_PUT},
	{EM_X86_64, R_X86_64_DTPOFF64, 0, DOES_PUT},
	{EM_X86_64, R_X86_64_DTPOFF32, 0, DOES_PUT},
	{EM_386, R_386_32, 4, DOES_PUT},
	{EM_386, R_386_TLS_LDO_32, 0, DOES_PUT},
	{EM_AARCH64, R_AARCH64_ABS64, 8, DOES_PUT},
	{EM_AARCH64, R_AARCH64_ABS32, 4, DOES_PUT},
	{EM_AARCH64, R_AARCH64_TLS_DTPREL, 0, DOES_PUT},
	{EM_ARM, R_ARM_ABS32, 4, DOES_PUT},
	{EM_ARM, R_ARM_TLS_LDO32, 0, DOES_PUT},
	{EM_S390, R_390_64, 8, DOES_PUT},
	{EM_S390, R_390_32, 4, DOES_PUT},
	{EM_S390, R_390_TLS_LDO64, 0, DOES_PUT},
	{EM_PPC64, R_PPC64_ADDR64, 8, DOES_PUT},
	{EM_PPC64, R_PPC64_ADDR32, 4, DOES_PUT},
	{EM_PPC64, R_PPC64_DTPREL64, 0, DOES_PUT},
	{EM_RISCV, R_RISCV_64, 8, DOES_PUT},
	{EM_RISCV, R_RISCV_32, 4, DOES_PUT},
	{EM_RISCV, R_RISCV_ADD8, 1, DOES_ADD},
	{EM_RISCV, R_RISCV_ADD16, 2, DOES_ADD},
	{EM_RISCV, R_RISCV_ADD32, 4, DOES_ADD},
	{EM_RISCV, R_RISCV_ADD64, 8, DOES_ADD},
	{EM_RISCV, R_RISCV_SUB8, 1, DOES_SUBTRACT},
	{EM_RISCV, R_RISCV_SUB16, 2, DOES_SUBTRACT},
	{EM_RISCV, R_RISCV_SUB32, 4, DOES_SUBTRACT},
	{EM_RISCV, R_RISCV_SUB64, 8, DOES_SUBTRACT},
	{EM_RISCV, R_RISCV_SET8, 1, DOES_PUT},
	{EM_RISCV, R_RISCV_SET16, 2, DOES_PUT},
	{EM_RISCV, R_RISCV_SET32, 4, DOES_PUT},
	{EM_RISCV, R_RISCV_SET6, 1, DOES_PUT_6},
	{EM_RISCV, R_RISCV_SUB6, 1, DOES_SUBTRACT_6},
	{EM_RISCV, RISCV_SET_ULEB128, 1, DOES_PUT_ULEB},
	{EM_RISCV, RISCV_SUB_ULEB128, 1, DOES_SUBTRACT_ULEB},
	{EM_RISCV, R_RISCV_TLS_DTPREL64, 0, DOES_PUT},
	{EM_RISCV, R_RISCV_TLS_DTPREL32, 0, DOES_PUT},
};

static const struct relocation_kind *kind_of(uint16_t machine, uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].machine == machine && kinds[i].type == type)
			return &kinds[i];
	return NULL;
}

struct relocation {
	uint64_t offset, addend;
	uint32_t type, symbol;
	bool has_addend; /* else it stands in the section */
};

static struct relocation read_relocation(struct reader *r, bool is_64, bool has_addend)
{
	struct relocation one = {.has_addend = has_addend};

	if (is_64) {
		one.offset = reader_u64(r);
		uint64_t info = reader_u64(r);
		one.type = (uint32_t)ELF64_R_TYPE(info);
		one.symbol = (uint32_t)ELF64_R_SYM(info);
		one.addend = has_addend ? reader_u64(r) : 0;
	} else {
		one.offset = reader_u32(r);
		uint32_t info = reader_u32(r);
		one.type = ELF32_R_TYPE(info);
		one.symbol = ELF32_R_SYM(info);
		one.addend = has_addend ? (uint64_t)(int64_t)(int32_t)reader_u32(r) : 0;
	}
	return one;
}

/* The bytes of a section that lies plainly in the file; empty for any other. */
static struct reader plain_bytes(const struct elffile *file, const struct elffile_section *section)
{
	size_t len;
	const uint8_t *bytes = elffile_bytes(file, &len);
	bool plain = section && section->codec == CODEC_NONE;

	return reader_init(bytes + (plain ? section->foff : 0), plain ? section->stored_size : 0, elffile_big_endian(file),
		elffile_name(file));
}

/* What a pass over one table needs. */
struct relocating {
	const struct elffile *file;
	const struct elffile_section *section;
	uint8_t *data;
	struct reader symbols, wide_indices;
};

/* The address of a symbol; @p defined_ret is false for one that is not in this file. */
static struct err *symbol_value(const struct relocating *job, uint32_t index, uint64_t *ret, bool *defined_ret)
{
	bool is_64 = elffile_is_64(job->file);
	struct reader r = job->symbols, wide = job->wide_indices;
	uint64_t entry = is_64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);

	reader_skip(&r, index * entry);
	reader_skip(&r, is_64 ? 6 : 4);
	uint64_t value = is_64 ? 0 : reader_u32(&r);
	if (!is_64)
		reader_skip(&r, 6);
	uint32_t section = reader_u16(&r);
	if (is_64)
		value = reader_u64(&r);
	if (section == SHN_XINDEX) {
		reader_skip(&wide, 4 * (uint64_t)index);
		section = reader_u32(&wide);
	}
	if (r.failed || wide.failed)
		return err_new(ERR_FORMAT, "symbol %" PRIu32 " of a relocation does not exist", index);
	*defined_ret = index == 0 || section != SHN_UNDEF;
	const struct elffile_section *home = section < SHN_LORESERVE ? elffile_section(job->file, section) : NULL;
	*ret = value + (home ? home->vaddr : 0);
	return NULL;
}

static void store(uint8_t *at, uint64_t value, unsigned size, bool big_endian)
{
	for (unsigned i = 0; i < size; i++)
		at[big_endian ? size - 1 - i : i] = (uint8_t)(value >> (8 * i));
}

/* Changes the ULEB128 at @p at, which ends before @p left bytes are over, by @p value; false: it does not end. */
static bool change_uleb(uint8_t *at, uint64_t left, uint64_t value, bool subtracts)
{
	uint64_t before = 0;
	unsigned len = 0;

	do {
		if (len == left || len == ULEB_BYTES_MAX)
			return false;
		before |= (uint64_t)(at[len] & 0x7f) << 7 * len;
	} while (at[len++] & 0x80);
	value = subtracts ? before - value : value;
	for (unsigned i = 0; i < len; i++)
		at[i] = (uint8_t)((at[i] & 0x80) | (value >> 7 * i & 0x7f));
	return true;
}

/* Does what a relocation says with the value that its symbol and addend make. */
static bool change(const struct relocating *job, const struct relocation_kind *kind, uint64_t offset, uint64_t value)
{
	const bool big_endian = elffile_big_endian(job->file);
	uint8_t *at = job->data + offset;
	struct reader r = reader_init(at, kind->size, big_endian, "");
	const uint64_t before = reader_uint(&r, kind->size);

	switch (kind->does) {
	case DOES_PUT:
		break;
	case DOES_ADD:
		value = before + value;
		break;
	case DOES_SUBTRACT:
		value = before - value;
		break;
	case DOES_PUT_6:
		value = (before & 0xc0) | (value & 0x3f);
		break;
	case DOES_SUBTRACT_6:
		value = (before & 0xc0) | ((before - value) & 0x3f);
		break;
	case DOES_PUT_ULEB:
	case DOES_SUBTRACT_ULEB:
		return change_uleb(at, job->section->size - offset, value, kind->does == DOES_SUBTRACT_ULEB);
	}
	store(at, value, kind->size, big_endian);
	return true;
}

static struct err *apply_one(const struct relocating *job, const struct relocation *one)
{
	uint16_t machine = elffile_machine(job->file);
	bool big_endian = elffile_big_endian(job->file), defined;
	uint64_t value, addend = one->addend;

	if (one->type == 0) /* R_*_NONE, on every machine */
		return NULL;
	const struct relocation_kind *kind = kind_of(machine, one->type);
	if (!kind)
		return err_new(ERR_UNSUPPORTED, "relocation of type %" PRIu32 " for machine %u", one->type, machine);
	if (kind->size == 0)
		return NULL;
	if (one->offset > job->section->size || kind->size > job->section->size - one->offset)
		return err_new(ERR_FORMAT, "a relocation at 0x%" PRIx64 " of 0x%" PRIx64 " bytes", one->offset, job->section->size);
	if (!one->has_addend) {
		struct reader r = reader_init(job->data + one->offset, kind->size, big_endian, "");
		addend = reader_uint(&r, kind->size);
	}
	TRY(symbol_value(job, one->symbol, &value, &defined));
	if (!defined && kind->does != DOES_PUT)
		return NULL;
	if (!change(job, kind, one->offset, defined ? value + addend : UINT64_MAX))
		return err_new(ERR_FORMAT, "a relocation at 0x%" PRIx64 ": no ULEB128 that ends", one->offset);
	return NULL;
}

static struct reader wide_indices(const struct elffile *file, const struct elffile_section *symbols)
{
	for (size_t i = 1; i < elffile_section_count(file); i++) {
		const struct elffile_section *section = elffile_section(file, i);
		if (section->type == SHT_SYMTAB_SHNDX && symbols && section->link == symbols->index)
			return plain_bytes(file, section);
	}
	return plain_bytes(file, NULL);
}

struct err *relocatable_apply(const struct elffile *file, const struct elffile_section *section, uint8_t *data)
{
	const struct elffile_section *table = elffile_section(file, section->relocations);
	const struct elffile_section *symbols = elffile_section(file, table->link);
	bool is_64 = elffile_is_64(file), has_addend = table->type == SHT_RELA;
	uint64_t entry = (is_64 ? 16 : 8) + (uint64_t)(has_addend ? (is_64 ? 8 : 4) : 0);
	struct relocating job = {.file = file, .section = section, .data = data, .symbols = plain_bytes(file, symbols),
		.wide_indices = wide_indices(file, symbols)};
	struct reader r = plain_bytes(file, table);

	while (reader_left(&r) >= entry) {
		struct relocation one = read_relocation(&r, is_64, has_addend);
		TRY(err_wrap(apply_one(&job, &one), "%s: section %" PRIu32, elffile_name(file), table->index));
	}
	return NULL;
}

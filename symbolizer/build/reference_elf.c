// SPDX-License-Identifier: Apache-2.0
/*
 * Function symbols by libelf: the reference for symbols.c. The same rule of what names code, written against gelf; no grouping and
 * no preference, since a name is right when any symbol of the address has it.
 */
#include "symbolizer/build/reference.h"

#include <gelf.h>

static struct err *from_libelf(const char *name)
{
	return err_new(ERR_INTERNAL, "%s: libelf: %s", name, elf_errmsg(-1));
}

/* Versions are cut off, as they are in the table. */
static struct err *symbol_text(struct reference *reference, const char *name, uint32_t *ret)
{
	const char *version = name[0] ? strchr(name + 1, '@') : NULL;

	return intern_add(&reference->text, name, version ? (size_t)(version - name) : strlen(name), ret);
}

static bool names_code(Elf *elf, const GElf_Sym *symbol, GElf_Word wide, GElf_Shdr *section_ret)
{
	const unsigned type = GELF_ST_TYPE(symbol->st_info);
	size_t index = symbol->st_shndx == SHN_XINDEX ? wide : symbol->st_shndx;

	if (type != STT_FUNC && type != STT_GNU_IFUNC && type != STT_NOTYPE)
		return false;
	if (index == SHN_UNDEF || (index >= SHN_LORESERVE && symbol->st_shndx != SHN_XINDEX))
		return false;
	Elf_Scn *section = elf_getscn(elf, index);
	if (!section || !gelf_getshdr(section, section_ret))
		return false;
	return (section_ret->sh_flags & SHF_EXECINSTR) && symbol->st_value >= section_ret->sh_addr &&
		symbol->st_value < section_ret->sh_addr + section_ret->sh_size;
}

/* Symbols of a relocatable file count from their section, whose place is the layout's. */
static uint64_t section_start(const struct elffile *file, const GElf_Sym *symbol, GElf_Word wide)
{
	const struct elffile_section *section =
		elffile_base(file) ? elffile_section(file, symbol->st_shndx == SHN_XINDEX ? wide : symbol->st_shndx) : NULL;

	return section ? section->vaddr : 0;
}

static struct err *add_table(struct reference *reference, const struct elffile *file, Elf *elf, Elf_Scn *table, Elf_Data *wide_indices)
{
	GElf_Shdr header;
	Elf_Data *data = elf_getdata(table, NULL);

	const size_t entry_size = gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT);

	if (!data || !gelf_getshdr(table, &header) || entry_size == 0)
		return NULL;
	const size_t count = header.sh_size / entry_size;
	for (size_t i = 1; i < count && i < INT32_MAX; i++) {
		GElf_Sym symbol;
		GElf_Word wide = 0;
		GElf_Shdr section;

		if (!gelf_getsymshndx(data, wide_indices, (int)i, &symbol, &wide) || !names_code(elf, &symbol, wide, &section))
			continue;
		const char *name = elf_strptr(elf, header.sh_link, symbol.st_name);
		if (!name || !name[0])
			continue;
		GElf_Ehdr ehdr;
		if (gelf_getehdr(elf, &ehdr) && ehdr.e_machine == EM_ARM && GELF_ST_TYPE(symbol.st_info) == STT_FUNC)
			symbol.st_value &= ~(GElf_Addr)1; /* Thumb code; the address is even */
		const uint64_t start = section_start(file, &symbol, wide);
		struct reference_symbol added = {.low = start + symbol.st_value,
			.high = start + (symbol.st_size ? symbol.st_value + symbol.st_size : section.sh_addr + section.sh_size),
			.sized = symbol.st_size > 0};
		TRY(symbol_text(reference, name, &added.name));
		TRY(ARRAY_ROOM(&reference->account, &reference->symbols, 1));
		reference->symbols.items[reference->symbols.count++] = added;
	}
	return NULL;
}

static struct err *add_tables(struct reference *reference, const struct elffile *file, Elf *elf)
{
	Elf_Data *wide_indices = NULL;
	GElf_Shdr header;

	for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));)
		if (gelf_getshdr(scn, &header) && header.sh_type == SHT_SYMTAB_SHNDX)
			wide_indices = elf_getdata(scn, NULL);
	for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));)
		if (gelf_getshdr(scn, &header) && (header.sh_type == SHT_SYMTAB || header.sh_type == SHT_DYNSYM))
			TRY(add_table(reference, file, elf, scn, header.sh_type == SHT_SYMTAB ? wide_indices : NULL));
	return NULL;
}

struct err *reference_add_symbols(struct reference *reference, const struct elffile *file)
{
	size_t len = 0;
	const uint8_t *bytes = elffile_bytes(file, &len);

	(void)elf_version(EV_CURRENT);
	/* libelf only reads through elf_memory's pointer, which is not const for its other uses. */
	Elf *elf = elf_memory((char *)(uintptr_t)bytes, len);
	if (!elf)
		return from_libelf(elffile_name(file));
	struct err *e = add_tables(reference, file, elf);
	(void)elf_end(elf);
	return e;
}

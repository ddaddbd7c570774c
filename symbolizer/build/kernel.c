// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/kernel.h"

#include <elf.h>
#include <string.h>

static bool has_code(const struct elffile *file, const char *name)
{
	const struct elffile_section *section = elffile_find(file, name);

	return section && (section->flags & SHF_EXECINSTR) && section->size > 0;
}

enum kernel_kind kernel_kind(const struct elffile *file)
{
	if (elffile_type(file) == ET_REL)
		return elffile_find(file, ".gnu.linkonce.this_module") ? KERNEL_MODULE : KERNEL_NONE;
	/* Programs have neither code that is thrown away after start, nor tables of exported symbols, parameters or faults. */
	bool tables = elffile_find(file, "__ksymtab") || elffile_find(file, "__param") || elffile_find(file, "__ex_table");
	return has_code(file, ".init.text") && tables ? KERNEL_VMLINUX : KERNEL_NONE;
}

static bool lowest_section(const struct elffile *file, uint64_t *ret)
{
	static const char *const names[] = {".head.text", ".text"};
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!has_code(file, names[i]))
			continue;
		uint64_t vaddr = elffile_find(file, names[i])->vaddr - elffile_base(file);
		*ret = found && *ret < vaddr ? *ret : vaddr;
		found = true;
	}
	return found;
}

bool kernel_text(const struct elffile *file, uint64_t *ret)
{
	size_t count;

	if (lowest_section(file, ret))
		return true;
	const struct elffile_range *code = elffile_code_ranges(file, &count);
	if (count == 0 || elffile_type(file) == ET_REL)
		return false;
	*ret = code[0].low;
	return true;
}

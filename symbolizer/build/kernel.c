// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/kernel.h"

#include <elf.h>
#include <stdio.h>
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

/* ---- Debug files ---- */

static size_t without_codec(const char *path)
{
	static const char *const suffixes[] = {".gz", ".xz", ".zst"};
	size_t len = strlen(path);

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		size_t suffix = strlen(suffixes[i]);
		if (len > suffix && strcmp(path + len - suffix, suffixes[i]) == 0)
			return len - suffix;
	}
	return len;
}

static bool module_path(const char *debug_dir, const char *path, unsigned n, char ret[PATH_MAX])
{
	static const char *const prefixes[] = {"", "/usr"}, *const suffixes[] = {"", ".debug"};
	const char *tail = strstr(path, "/lib/modules/");

	if (!tail || n >= ARRAY_SIZE(prefixes) * ARRAY_SIZE(suffixes))
		return false;
	int len = snprintf(ret, PATH_MAX, "%s%s%.*s%s", debug_dir, prefixes[n % 2], (int)without_codec(tail), tail, suffixes[n / 2]);
	return len < PATH_MAX;
}

/* The release in boot/vmlinuz-RELEASE, boot/vmlinux-RELEASE.xz or modules/RELEASE/vmlinuz; its length, 0: neither. */
static size_t find_release(const char *path, const char *base, const char **ret)
{
	const char *dash = strchr(base, '-');

	if (strncmp(base, "vmlinu", 6) != 0)
		return 0;
	if (dash) {
		*ret = dash + 1;
		return without_codec(dash + 1);
	}
	if (base == path)
		return 0;
	const char *end = base - 1, *begin = end; /* the folder's name */
	while (begin > path && begin[-1] != '/')
		begin--;
	*ret = begin;
	return (size_t)(end - begin);
}

bool kernel_debug_path(const char *debug_dir, const char *path, unsigned n, char ret[PATH_MAX])
{
	static const char *const before[] = {"/boot/vmlinux-", "/lib/modules/", "/usr/lib/modules/"}, *const behind[] = {"", "/vmlinux", "/vmlinux"};
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *release;
	size_t len = find_release(path, base, &release);

	if (len == 0 || len > NAME_MAX)
		return strstr(base, ".ko") && module_path(debug_dir, path, n, ret);
	return n < ARRAY_SIZE(before) && snprintf(ret, PATH_MAX, "%s%s%.*s%s", debug_dir, before[n], (int)len, release, behind[n]) < PATH_MAX;
}

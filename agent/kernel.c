// SPDX-License-Identifier: Apache-2.0
/*
 * A line of kallsyms is `address type name[\t[module]]`. Functions are types t, T, w, W. Build IDs come from
 * /sys/kernel/notes and /sys/module/NAME/notes/.note.gnu.build-id, which hold the note itself.
 */
#include "agent/kernel.h"

#include "base/buf.h"
#include "base/reader.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct symbol {
	uint64_t address;
	uint32_t name, module;
};

struct kernel {
	struct symbol *symbols; /* sorted by address */
	size_t count, cap;
	struct kernel_module *modules;
	size_t module_count, module_cap;
	struct buf names; /* NUL-terminated, by offset */
};

static void read_build_id(const char *path, struct kernel_module *module)
{
	uint8_t bytes[4096];
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, bytes, sizeof(bytes)) : -1;
	struct reader r = reader_init(bytes, len > 0 ? (size_t)len : 0, false, path);

	while (reader_left(&r) >= 12) {
		uint32_t name_len = reader_u32(&r), id_len = reader_u32(&r), type = reader_u32(&r);
		const uint8_t *name = reader_bytes(&r, ((uint64_t)name_len + 3) & ~(uint64_t)3);
		const uint8_t *id = reader_bytes(&r, id_len);
		if (id && name_len == 4 && memcmp(name, "GNU", 4) == 0 && type == NT_GNU_BUILD_ID && id_len > 0 && id_len <= BUILD_ID_MAX) {
			module->build_id.len = (uint8_t)id_len;
			memcpy(module->build_id.bytes, id, id_len);
			break;
		}
		reader_skip(&r, (0 - id_len) & 3);
	}
	module->file_id = fileid_from_kernel_build_id(module->build_id.bytes, module->build_id.len);
}

/** Where a module's .text begins, which its addresses are counted from; 0: not told (no right, or none). */
static uint64_t read_text_start(const char *module)
{
	char path[256], text[32];

	snprintf(path, sizeof(path), "/sys/module/%s/sections/.text", module);
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	text[len > 0 ? len : 0] = 0;
	return strtoull(text, NULL, 16);
}

static struct err *module_number(struct kernel *kernel, const char *name, uint64_t address, uint32_t *ret)
{
	for (size_t i = kernel->module_count; i-- > 0;) {
		if (strcmp(kernel->modules[i].name, name) == 0) {
			if (i > 0 && !kernel->modules[i].has_text_start && address < kernel->modules[i].start)
				kernel->modules[i].start = address;
			*ret = (uint32_t)i;
			return NULL;
		}
	}
	if (kernel->module_count == kernel->module_cap) {
		size_t cap = kernel->module_cap ? 2 * kernel->module_cap : 16;
		struct kernel_module *modules = realloc(kernel->modules, cap * sizeof(*modules));
		if (!modules)
			return err_nomem();
		kernel->modules = modules;
		kernel->module_cap = cap;
	}
	struct kernel_module *module = &kernel->modules[kernel->module_count];
	*module = (struct kernel_module){.start = address};
	snprintf(module->name, sizeof(module->name), "%s", name);
	char path[256] = "/sys/kernel/notes";
	if (kernel->module_count > 0)
		snprintf(path, sizeof(path), "/sys/module/%s/notes/.note.gnu.build-id", module->name);
	read_build_id(path, module);
	uint64_t text_start = kernel->module_count > 0 ? read_text_start(module->name) : 0;
	module->has_text_start = text_start != 0;
	if (text_start)
		module->start = text_start;
	*ret = (uint32_t)kernel->module_count++;
	return NULL;
}

static struct err *add_symbol(struct kernel *kernel, uint64_t address, const char *name, const char *module)
{
	struct symbol symbol = {.address = address, .name = (uint32_t)kernel->names.len};

	if (kernel->count == KERNEL_SYMBOLS_MAX)
		return err_new(ERR_LIMIT, "more than %d kernel symbols", KERNEL_SYMBOLS_MAX);
	TRY(module_number(kernel, module, address, &symbol.module));
	/* On arm64 _text lies below _stext; a file record counts from the lower one. */
	bool is_text = strcmp(name, "_text") == 0;
	if (symbol.module == 0 && (is_text || (strcmp(name, "_stext") == 0 && !kernel->modules[0].has_text_start))) {
		kernel->modules[0].start = address;
		kernel->modules[0].has_text_start |= is_text;
	}
	if (kernel->count == kernel->cap) {
		size_t cap = kernel->cap ? 2 * kernel->cap : 1 << 15;
		struct symbol *symbols = realloc(kernel->symbols, cap * sizeof(*symbols));
		if (!symbols)
			return err_nomem();
		kernel->symbols = symbols;
		kernel->cap = cap;
	}
	TRY(buf_append(&kernel->names, name, strlen(name) + 1));
	kernel->symbols[kernel->count++] = symbol;
	return NULL;
}

static struct err *add_line(struct kernel *kernel, char *line)
{
	char type = 0, *end = NULL;
	uint64_t address = strtoull(line, &end, 16);

	if (end == line || end[0] != ' ' || end[1] == 0 || end[2] != ' ' || address == 0)
		return NULL;
	type = end[1];
	if (!strchr("tTwW", type))
		return NULL;
	char *name = end + 3, *tab = strchr(name, '\t'), *module = NULL;
	name[strcspn(name, "\t\n")] = 0;
	if (tab && tab[1] == '[') {
		module = tab + 2;
		module[strcspn(module, "]\n")] = 0;
	}
	return add_symbol(kernel, address, name, module ? module : "vmlinux");
}

static int compare_symbols(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;
	return x->address < y->address ? -1 : x->address > y->address;
}

static struct err *read_all(struct kernel *kernel, const char *path)
{
	struct err *e = NULL;
	uint32_t zero = 0;

	FILE *file = fopen(path, "re");
	if (!file)
		return err_os(errno, "%s", path);
	char *line = NULL;
	size_t cap = 0;
	e = module_number(kernel, "vmlinux", 0, &zero);
	while (!e && getline(&line, &cap, file) > 0)
		e = add_line(kernel, line);
	free(line);
	(void)fclose(file);
	if (!e && kernel->count > 0)
		qsort(kernel->symbols, kernel->count, sizeof(*kernel->symbols), compare_symbols);
	return e;
}

struct err *kernel_create(const char *path, struct kernel **ret)
{
	struct kernel *kernel = calloc(1, sizeof(*kernel));

	if (!kernel)
		return err_nomem();
	struct err *e = read_all(kernel, path);
	if (e) {
		kernel_destroy(kernel);
		return e;
	}
	*ret = kernel;
	return NULL;
}

void kernel_destroy(struct kernel *kernel)
{
	if (!kernel)
		return;
	free(kernel->symbols);
	free(kernel->modules);
	buf_deinit(&kernel->names);
	free(kernel);
}

size_t kernel_symbol_count(const struct kernel *kernel)
{
	return kernel->count;
}

bool kernel_lookup(const struct kernel *kernel, uint64_t address, const char **name_ret, const struct kernel_module **module_ret)
{
	size_t low = 0, high = kernel->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (kernel->symbols[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return false;
	const struct symbol *symbol = &kernel->symbols[low - 1];
	*name_ret = (const char *)kernel->names.data + symbol->name;
	*module_ret = &kernel->modules[symbol->module];
	return true;
}

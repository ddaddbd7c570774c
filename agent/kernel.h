// SPDX-License-Identifier: Apache-2.0
/* The kernel's own names: /proc/kallsyms, its build ID, its modules. */
#ifndef CAIRN_AGENT_KERNEL_H
#define CAIRN_AGENT_KERNEL_H

#include "base/err.h"
#include "fileid/build_id.h"
#include "fileid/fileid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KERNEL_SYMBOLS_MAX = 4 << 20, KERNEL_MODULE_NAME_MAX = 64 };

struct kernel_module {
	char name[KERNEL_MODULE_NAME_MAX]; /* "vmlinux" first */
	uint64_t start; /* vmlinux: _text, else _stext; a module: its .text, or where that is not told its first function */
	bool has_text_start; /* a module's is told by /sys; vmlinux has _text */
	struct build_id build_id;
	struct fileid file_id;
};

struct kernel;
/**
 * Reads the names of functions. Without the right to see addresses (all zero) there are none, which is no error.
 * @param path  of kallsyms; other than /proc/kallsyms for tests
 * @return NULL; ERR_OS; ERR_LIMIT; ERR_NOMEM.
 */
struct err *kernel_create(const char *path, struct kernel **ret) MUST_USE;
void kernel_destroy(struct kernel *kernel);
size_t kernel_symbol_count(const struct kernel *kernel);
/** The function that holds @p address and its module; false when none does. Borrowed. O(log symbols). */
bool kernel_lookup(const struct kernel *kernel, uint64_t address, const char **name_ret, const struct kernel_module **module_ret);

#endif

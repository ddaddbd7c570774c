// SPDX-License-Identifier: Apache-2.0
/*
 * What makes an ELF file a Linux kernel or one of its modules, and where its text begins, from which profilers count.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_KERNEL_H
#define CAIRN_SYMBOLIZER_BUILD_KERNEL_H

#include "symbolizer/build/elf_file.h"

#include <limits.h>

enum kernel_kind { KERNEL_NONE, KERNEL_VMLINUX, KERNEL_MODULE };

/** By its sections: a module has .gnu.linkonce.this_module, a vmlinux what only a kernel has. Any thread. O(sections). */
enum kernel_kind kernel_kind(const struct elffile *file);

/**
 * Where _text lies in a vmlinux (the lower one of .head.text and .text, else its first executable segment), or .text in a module,
 * as the table has it. Agents send addresses of kernel frames less this: less /proc/kallsyms' _text (or _stext, where it
 * is the same), less /sys/module/NAME/sections/.text.
 * @return false where there is none. Any thread. O(sections).
 */
bool kernel_text(const struct elffile *file, uint64_t *ret);

/**
 * Where distributions put the debug file of the kernel or module at @p path, below a debug directory: for /boot/vmlinuz-6.1.0-50-amd64
 * boot/vmlinux-6.1.0-50-amd64 and lib/modules/6.1.0-50-amd64/vmlinux, for a module (packed or not) its own path, with and without
 * .debug. By the path alone: what lies there has to be compared.
 * @param n  0 for the first place
 * @return false when there is no such place. Any thread.
 */
bool kernel_debug_path(const char *debug_dir, const char *path, unsigned n, char ret[PATH_MAX]);

#endif

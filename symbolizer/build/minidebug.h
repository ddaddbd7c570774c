// SPDX-License-Identifier: Apache-2.0
/*
 * MiniDebugInfo: the section .gnu_debugdata of a stripped binary holds an xz'ed ELF file with the .symtab that was taken away, less what
 * .dynsym has (GDB manual, "MiniDebugInfo"; Fedora and its descendants).
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_MINIDEBUG_H
#define CAIRN_SYMBOLIZER_BUILD_MINIDEBUG_H

#include "base/buf.h"
#include "symbolizer/build/elf_file.h"

enum { MINIDEBUG_BYTES_MAX = 256 << 20 };

struct minidebug {
	struct buf bytes;
	struct elffile *file; /* NULL: there is none */
};

/**
 * @param limit  bytes that may come out of it; MINIDEBUG_BYTES_MAX at most
 * @param ret    zeroed; minidebug_deinit. Untouched when the binary has no such section
 * @return NULL; ERR_FORMAT: damaged, or the ELF file is not this binary's kind; ERR_LIMIT; ERR_NOMEM. Any thread.
 */
struct err *minidebug_open(const struct elffile *binary, uint64_t limit, struct minidebug *ret) MUST_USE;
void minidebug_deinit(struct minidebug *mini);

#endif

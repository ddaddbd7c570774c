// SPDX-License-Identifier: Apache-2.0
/*
 * Stubs of the procedure linkage table: code that the linker made to call a function of another file. No symbol names them;
 * they are shown as objdump does, `puts@plt`.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_PLT_H
#define CAIRN_SYMBOLIZER_BUILD_PLT_H

#include "symbolizer/build/array.h"
#include "symbolizer/build/symbols.h"

enum {
	PLT_SLOTS_MAX = 1 << 22, /* relocations with a symbol */
	PLT_TEXT_MAX = 64 << 20, /* bytes of all names */
};

/* Zeroed: none. */
struct plt {
	struct symbols symbols; /* one a stub; names point to text */
	char *text;
};

/**
 * Decodes the stubs of a runtime file: x86-64, i386, AArch64, ARM, RISC-V 64. Of other machines there are none.
 * @param ret  zeroed; plt_deinit whatever the result
 * @return NULL; ERR_FORMAT: a table of relocations that does not fit; ERR_LIMIT; ERR_NOMEM. Any thread. O(relocations log relocations).
 */
struct err *plt_read(struct elffile *binary, struct account *account, struct plt *ret) MUST_USE;
void plt_deinit(struct plt *plt);

#endif

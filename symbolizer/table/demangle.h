// SPDX-License-Identifier: Apache-2.0
/*
 * Linkage names as people read them: C++ (Itanium ABI) and Rust (legacy and v0), by libiberty, bounded in input,
 * output, steps and stack, since names come from strangers' files. No allocation.
 */
#ifndef CAIRN_SYMBOLIZER_TABLE_DEMANGLE_H
#define CAIRN_SYMBOLIZER_TABLE_DEMANGLE_H

#include <stddef.h>

enum demangle_style {
	DEMANGLE_NONE,	/* the linkage name, unchanged */
	DEMANGLE_FULL,	/* ns::f<int>(char const*) */
	DEMANGLE_SHORT, /* ns::f: no parameters, no template arguments, no Rust hash */
};

enum {
	DEMANGLE_MAX_NAME = 4096, /* longer linkage names, and names that expand to more, stay as they are */
	DEMANGLE_OUT_SIZE = DEMANGLE_MAX_NAME + 1,
};

/**
 * The name to show for a linkage name. What compilers append to clones (`.part.0`, `.constprop.0`, `.isra.0`, `.cold`,
 * `.lto_priv.0`, `.llvm.123`, ..) is dropped, from unmangled names too; other dots (Go's) stay, and so does a stub's `@plt`.
 * Names of D, Swift and OCaml stay as they are.
 * @param linkage  NUL-terminated
 * @param out      the caller's buffer; DEMANGLE_OUT_SIZE bytes fit any answer
 * @return @p out, or @p linkage itself where nothing changes or the answer does not fit @p cap. Any thread with 4 MiB of
 *         stack, which only hostile names of thousands of characters need. A usual name takes about a microsecond.
 */
const char *demangle(const char *linkage, enum demangle_style style, char *out, size_t cap);

#endif

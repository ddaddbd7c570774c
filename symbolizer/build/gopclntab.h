// SPDX-License-Identifier: Apache-2.0
/*
 * Go's own table of functions, files, lines and inlined calls, which every Go program carries and no strip takes away.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_GOPCLNTAB_H
#define CAIRN_SYMBOLIZER_BUILD_GOPCLNTAB_H

#include "symbolizer/build/unit_result.h"

enum {
	GO_WORK = 64,		  /* bytes of tables decoded, all functions together: times the bytes of the section; tables are shared */
	GO_INLINE_MAX = 1 << 16,  /* inlined calls of one function */
	GO_HEADERS_MAX = 16,	  /* what looks like a header, where no section is named .gopclntab */
};

/**
 * Reads .gopclntab of Go 1.16 and later.
 * @param ret  zeroed; one more unit; functions that are damaged are left out and counted. Names are borrowed from the image.
 *             Nothing in it when the file is no Go program. unit_result_deinit whatever the result
 * @return NULL; ERR_FORMAT: a damaged header, or a Go program without one; ERR_UNSUPPORTED: an unknown version; ERR_LIMIT; ERR_NOMEM. Any thread.
 *         Source: runtime/symtab.go, internal/abi/symtab.go, debug/gosym of Go 1.16 to 1.26.
 */
struct err *gopclntab_read(struct elffile *file, struct account *account, struct unit_result *ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/* The part of the reference walk that reads line tables; for reference_dwarf.c only. */
#ifndef CAIRN_SYMBOLIZER_BUILD_REFERENCE_LINES_H
#define CAIRN_SYMBOLIZER_BUILD_REFERENCE_LINES_H

#include "base/hmap.h"
#include "symbolizer/build/reference.h"

#include <libdwarf.h>

/* The files of one line table: paths[i] is DWARF's file number i, REFERENCE_NONE where there is none. */
struct reference_files {
	uint32_t *paths;
	uint64_t count;
};

struct reference_lines {
	struct reference *reference;
	struct elffile *file;
	struct hmap tables; /* DW_AT_stmt_list -> number in files */
	struct ARRAY_OF(struct reference_files *) files;
};

/**
 * Reads the line table of a unit, unless another unit with the same one was here before.
 * @param unit       the unit's DIE
 * @param files_ret  its files, NULL when it has no line table; lives until reference_lines_deinit
 */
struct err *reference_lines_read(struct reference_lines *lines, Dwarf_Debug dbg, Dwarf_Die unit,
	const struct reference_files **files_ret) MUST_USE;
void reference_lines_deinit(struct reference_lines *lines);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The index of a DWARF package (.dwp): which parts of the package's sections each of its compile units has.
 * Sources: DWARF 5, 7.3.5 (version 5); https://gcc.gnu.org/wiki/DebugFissionDWP (version 2, with DWARF 4).
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_DWP_INDEX_H
#define CAIRN_SYMBOLIZER_BUILD_DWP_INDEX_H

#include "symbolizer/build/dw.h"

/* The parts of one unit: offsets in the sections of the package. */
struct dwp_row {
	uint64_t info, info_len;
	uint64_t abbrev, str_offsets, rnglists;
};

/* Rows by info; they do not overlap. Zeroed: empty. */
struct dwp_index ARRAY_OF(struct dwp_row);

/**
 * Reads .debug_cu_index. The index of type units is not needed: nothing in code refers to one.
 * @param r         the section
 * @param sections  of the package, for their lengths
 * @param ret       zeroed; dwp_index_deinit whatever the result
 * @return NULL; ERR_FORMAT: tables past the section's end, a part that is not in its section, parts of .debug_info.dwo that overlap
 *         (says which row); ERR_UNSUPPORTED: another version; ERR_LIMIT; ERR_NOMEM. O(rows log rows).
 */
struct err *dwp_index_read(struct reader r, const struct dw_sections *sections, struct account *account, struct dwp_index *ret) MUST_USE;
void dwp_index_deinit(struct dwp_index *index, struct account *account);

/** Gives each unit of @p dw its row's offsets; compile units without a row are damaged. Without dw->index it does nothing. ERR_NOMEM. */
struct err *dwp_index_apply(struct dw *dw) MUST_USE;

#endif

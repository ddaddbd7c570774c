// SPDX-License-Identifier: Apache-2.0
/*
 * Go's function table as rows. Go programs carry no .eh_frame for Go code, but the runtime itself unwinds by .gopclntab: the
 * pcsp program of a function says how large its frame is at each address, and the caller's frame pointer stands below the
 * return address.
 */
#ifndef CAIRN_AGENT_UNWIND_GO_ROWS_H
#define CAIRN_AGENT_UNWIND_GO_ROWS_H

#include "agent/unwind/frames.h"
#include "fileid/pclntab.h"

enum {
	GO_ROWS_WORK = 64,	  /* bytes of programs decoded, all functions together: times the bytes of the table */
	GO_ROWS_NAME_MAX = 64,	  /* bytes of a name that is compared */
	GO_ROWS_FRAME_MAX = 1 << 30,
};

/**
 * All rows, function by function; those of a function follow one another without a gap. Damaged functions are counted.
 * @param tab     its text start is known
 * @param counts  added to: fdes, rows, fdes_bad
 * @return NULL; ERR_LIMIT: tables are shared beyond GO_ROWS_WORK; errors of @p row. Any thread.
 */
struct err *go_rows(const struct pclntab *tab, frames_row_fn *row, void *context, struct frames_counts *counts) MUST_USE;

#endif

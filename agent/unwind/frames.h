// SPDX-License-Identifier: Apache-2.0
/*
 * Call frame information (.eh_frame, .debug_frame) as rows: from this address to that, this is how to find the caller.
 * The bytes are strangers': every read is bounded, and what a row can say is small (struct unwind_info).
 */
#ifndef CAIRN_AGENT_UNWIND_FRAMES_H
#define CAIRN_AGENT_UNWIND_FRAMES_H

#include "agent/unwind/types.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	FRAMES_REMEMBER_MAX = 32,      /* nested DW_CFA_remember_state */
	FRAMES_CIE_PROGRAM_MAX = 4096, /* bytes of a CIE's own instructions: they run again for each FDE */
	FRAMES_EXPRESSION_MAX = 64,    /* bytes of an expression that is looked at */
};

struct frames_section {
	const uint8_t *bytes;
	size_t len;
	uint64_t vaddr; /* of its first byte, for pc-relative pointers */
	bool is_debug_frame;
	const char *name; /* for errors */
};

/* One row, [low, high) as linked. */
struct frames_row {
	uint64_t low, high;
	uint64_t function; /* start of the FDE that it is of */
	struct unwind_info info; /* cfa UNWIND_CFA_NONE: what the file says is not understood */
};

struct frames_counts {
	uint64_t cies, fdes, rows;
	uint64_t rows_unsupported; /* rules or expressions that struct unwind_info cannot say */
	uint64_t fdes_bad;	   /* given up: unknown instruction, program past its end, no such CIE */
};

/** Takes one row; an error ends the walk and is returned. */
typedef struct err *frames_row_fn(void *context, const struct frames_row *row);

/**
 * All rows of a section, FDE by FDE in file order; rows of an FDE follow one another without a gap. Damage inside an FDE
 * costs that FDE (counted), damage of the entry chain is an error.
 * @param counts  filled also on error
 * @return NULL; ERR_FORMAT with the offset; errors of @p row. Any thread. O(bytes + FDEs * CIE program).
 * Source: LSB 5.0 10.6 (.eh_frame), DWARF 5 6.4 (.debug_frame).
 */
struct err *frames_parse(const struct frames_section *section, frames_row_fn *row, void *context, struct frames_counts *counts) MUST_USE;

#endif

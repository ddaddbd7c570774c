// SPDX-License-Identifier: Apache-2.0
/*
 * What one unit gives: its functions and inlined calls, joined with its line table into rows by address.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_UNIT_RESULT_H
#define CAIRN_SYMBOLIZER_BUILD_UNIT_RESULT_H

#include "symbolizer/build/dw_line.h"
#include "symbolizer/build/dw_walk.h"

enum { UNIT_NONE = UINT32_MAX };

/* From vaddr up to the next row's vaddr, or to the end of the chunk. */
struct unit_row {
	uint64_t vaddr;
	uint32_t node; /* of this unit; UNIT_NONE in a chunk of lines only */
	uint32_t file; /* of this unit; UNIT_NONE: unknown */
	uint32_t line, column;
};

/* [low, high) without a gap: rows[first .. first + count), the first one at low. */
struct unit_chunk {
	uint64_t low, high;
	size_t first, count;
	bool lines_only; /* there are lines, but no function */
};

/* As in struct walk and struct line_table, but files are numbered by this unit (UNIT_NONE: unknown), and nothing points into
 * .debug_info or .debug_line. Chunks of each of the two kinds are sorted and do not overlap. */
struct unit_result {
	struct ARRAY_OF(struct walk_node) nodes;
	struct ARRAY_OF(struct walk_function) functions;
	struct ARRAY_OF(uint32_t) files; /* paths: offsets in text */
	struct ARRAY_OF(struct unit_row) rows;
	struct ARRAY_OF(struct unit_chunk) chunks;
	struct buf text;
	uint64_t tombstones, cut_chains, inline_nodes, damaged, line_rows, ranges;
	struct err *skipped;  /* why nothing of the unit is here; NULL: it is here */
	struct err *damage;   /* the first thing in it that could not be used */
};

/* One thread's scratch. */
struct unit_scratch {
	struct walk walk;
	struct line_table lines;
	struct painter painter;
	struct paint_list segments;
	struct dw_range_list covered;
	struct ARRAY_OF(uint32_t) registers; /* file register -> file of the unit */
	struct ARRAY_OF(uint32_t) touched;   /* registers of which the unit made use */
	struct unit_result out;
};

/**
 * Does one unit: of a skeleton (split DWARF) the lines, of its other half the functions. Damage is in the result.
 * @param ret  zeroed; unit_result_deinit whatever the result
 * @return NULL; ERR_LIMIT; ERR_NOMEM. Any thread, each with its own scratch.
 */
struct err *unit_result_make(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct unit_scratch *scratch,
	struct unit_result *ret) MUST_USE;
void unit_result_deinit(struct unit_result *result, struct account *account);
void unit_scratch_deinit(struct unit_scratch *scratch, struct account *account);

#endif

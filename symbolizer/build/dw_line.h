// SPDX-License-Identifier: Apache-2.0
/*
 * One line table: its files, and its rows flattened into one list by address, ready to be joined with functions.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_DW_LINE_H
#define CAIRN_SYMBOLIZER_BUILD_DW_LINE_H

#include "symbolizer/build/dw.h"

enum {
	LINE_NO_FILE = UINT32_MAX,
	LINE_PATH_MAX = 16 * 1024, /* bytes of a path; a file with a longer one counts as not in the table */
};

/* From vaddr up to the next row's vaddr. */
struct line_row {
	uint64_t vaddr;
	uint32_t file; /* register as in the program; LINE_NO_FILE with line 0: a gap begins */
	uint32_t line;
	uint32_t column;
	uint32_t order; /* scratch, for sorting */
};

struct line_file {
	const char *name; /* borrowed from the section */
	uint64_t dir;
};

struct line_sequence {
	size_t first, count; /* of raw rows */
	uint64_t low, high;
	bool sorted; /* the rows rise */
};

/* Reused from table to table by one thread. */
struct line_table {
	uint64_t offset; /* in .debug_line, of what is held */
	bool valid;
	uint16_t version;
	struct ARRAY_OF(const char *) dirs;
	struct ARRAY_OF(struct line_file) files;
	struct ARRAY_OF(struct line_row) raw; /* as the program made them, end rows left out */
	struct ARRAY_OF(struct line_sequence) sequences;
	struct ARRAY_OF(struct line_row) rows; /* flattened: strictly rising; ends with a gap when not empty */
	uint64_t tombstones; /* sequences outside of code */
	struct err *damage;  /* what was read before it stands; NULL: none */
};

/**
 * Decodes the table at unit->stmt_list.
 * Sequences are laid in order of their end, each up to the start of what the one before left; of rows at one address the last counts.
 * That is the order in which LLVM's lookup meets them (DWARFDebugLine::LineTable::lookupAddress).
 * @param code  sequences whose low address is not in its code are dropped
 * @return NULL, damage is in @p table; ERR_LIMIT; ERR_NOMEM. Source: DWARF 5, 6.2; DWARF 4, 6.2.
 */
struct err *line_table_read(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct line_table *table) MUST_USE;
/** Holds nothing then: no file, no row. Keeps its memory. */
void line_table_clear(struct line_table *table);
void line_table_deinit(struct line_table *table, struct account *account);

/**
 * The path of a file register: absolute names as they are, else the unit's directory, the table's directory and the name
 * joined by '/', the former left out where the latter is absolute. No "." or ".." is resolved.
 * @return NULL and the path appended to @p ret with its NUL; false when the file is not in the table, or its path longer than
 *         LINE_PATH_MAX. ERR_NOMEM, ERR_LIMIT.
 */
struct err *line_table_path(const struct line_table *table, const char *comp_dir, uint32_t file, struct buf *ret, bool *found_ret) MUST_USE;

#endif

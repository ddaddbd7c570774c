// SPDX-License-Identifier: Apache-2.0
/*
 * Units and ELF symbols made one: the arrays that a table is written from.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_MERGE_H
#define CAIRN_SYMBOLIZER_BUILD_MERGE_H

#include "base/hmap.h"
#include "base/intern.h"
#include "symbolizer/build/symbols.h"
#include "symbolizer/build/unit_result.h"
#include "symbolizer/table/writer.h"

enum {
	MERGE_SYMBOL_TABLES = 4, /* .symtab, .gnu_debugdata, .dynsym, stubs of the PLT */
	MERGE_ALIASES_MAX = 4096, /* of one function; further names of its address are left out */
	MERGE_SAME_NAME_MAX = 64, /* functions with one name and start line that are told apart by their file */
	MERGE_PIECE_NAMES_MAX = 64, /* names of one address that are compared with the name of the function that it may be a piece of */
	MERGE_PIECE_NODES_MAX = 1 << 16, /* besides as many as the units have: nodes of pieces; what comes then has its function's symbol */
};

/* One table of ELF symbols, in order of preference. */
struct merge_symbols {
	const struct symbols *symbols;
	uint32_t source; /* enum table_source */
};

/* Part of a chunk, or of a symbol's range, that was chosen for [low, high). */
struct merge_piece {
	uint64_t low, high;
	uint32_t source; /* unit; or table of symbols */
	uint32_t item;	 /* chunk; or symbol */
};
struct merge_pieces ARRAY_OF(struct merge_piece);

/* Zeroed at first; merge_deinit frees it. `input` points into the rest. */
struct merge {
	struct account *account;
	struct merge_symbols symbols[MERGE_SYMBOL_TABLES];
	size_t dwarf_count; /* of units */
	uint64_t base; /* taken away from every address in the end: elffile_base */
	struct intern text;
	struct ARRAY_OF(struct table_input_file) files;
	struct ARRAY_OF(struct table_input_function) functions;
	struct ARRAY_OF(uint32_t) same_name; /* of function i: another one with its name and line, or TABLE_NONE */
	struct ARRAY_OF(struct table_input_node) nodes;
	struct ARRAY_OF(uint32_t) aliases;
	struct ARRAY_OF(struct table_input_row) rows;
	struct ARRAY_OF(uint32_t) map; /* scratch: numbers of one unit -> numbers here */
	struct ARRAY_OF(uint32_t) seen; /* string -> round in which it was an alias */
	uint32_t round;
	struct hmap names;	 /* address of a name in its section -> string */
	struct hmap function_ids; /* string and start line -> function */
	struct hmap file_ids;	 /* directory and name -> file */
	uint32_t *symbol_nodes[MERGE_SYMBOL_TABLES]; /* symbol -> node + 1, 0: none yet */
	struct merge_pieces pieces, symbol_pieces;
	struct hmap piece_nodes; /* symbol and node of a function -> node of its piece, or itself */
	size_t piece_nodes_left;
	bool entries_moved; /* of some functions: not where DWARF says */
	size_t looked_at; /* in symbol_pieces, + 1: what `looks_cut` is about */
	bool looks_cut;
	uint64_t end; /* of what the rows cover so far */
	struct table_input input;
};

/**
 * Merges. Where DWARF has a function, it stands; where units overlap, the one that begins first goes on to its end, then the one
 * that comes first in the file. Lines without a function, and what DWARF does not cover, get the ELF symbol's name. So does a piece
 * that was moved out of a function ("f.cold").
 * @param units  rows are renumbered in place, and freed
 * @param dwarf_count  how many of them are DWARF's; those behind them are .gopclntab's, and stand where DWARF has no function
 * @return NULL and @p merge->input to be completed with machine and build ID; ERR_LIMIT; ERR_NOMEM. One thread.
 */
struct err *merge_run(struct merge *merge, struct unit_result *units, size_t count, size_t dwarf_count) MUST_USE;
/** Frees what only the merging needed; the input stays. */
void merge_trim(struct merge *merge);
void merge_deinit(struct merge *merge);

#endif

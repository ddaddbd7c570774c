// SPDX-License-Identifier: Apache-2.0
/*
 * What the parts of merging share: merge.c (units, who has which address, rows) and merge_names.c (which ELF symbol names what).
 * For them only. All on merge_run's thread; ERR_LIMIT: the account's memory; ERR_NOMEM.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_MERGE_PARTS_H
#define CAIRN_SYMBOLIZER_BUILD_MERGE_PARTS_H

#include "symbolizer/build/merge.h"

/* merge.c: the number of a string, and of a function; equal ones have one number. */
struct err *merge_text(struct merge *m, const char *text, size_t len, uint32_t *ret) MUST_USE;
struct err *merge_function(struct merge *m, struct table_input_function function, uint32_t *ret) MUST_USE;

/* merge_names.c: */

/* The node of the symbol that @p piece is of, made when it is first needed. */
struct err *merge_symbol_node(struct merge *m, const struct merge_piece *piece, uint32_t *ret) MUST_USE;
/* Gives a concrete node of a unit the symbol's name where that says more than DWARF's, and its aliases. */
struct err *merge_name_concrete(struct merge *m, const struct walk_node *from, struct table_input_node *node) MUST_USE;
/* Whether one of the names at symbol_pieces[at] is a piece's. Asked row by row, so that the last answer is kept. */
bool merge_may_be_piece(struct merge *m, size_t at);
/*
 * The node that stands for @p *node where the symbol at symbol_pieces[at] is; made when it is first needed. Left as it is where that
 * symbol names no piece of the node's outermost function.
 */
struct err *merge_piece_node(struct merge *m, size_t at, uint32_t *node) MUST_USE;

#endif

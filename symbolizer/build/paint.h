// SPDX-License-Identifier: Apache-2.0
/*
 * From ranges that nest to segments that do not: which node is innermost at each address.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_PAINT_H
#define CAIRN_SYMBOLIZER_BUILD_PAINT_H

#include "symbolizer/build/array.h"

#include <stdint.h>

/* [low, high) belongs to node. */
struct paint_range {
	uint64_t low, high;
	uint32_t node;
	uint32_t order; /* scratch of paint() */
};

struct paint_list ARRAY_OF(struct paint_range);

/* Scratch, reused by one thread. */
struct painter {
	struct paint_list sorted, stack, map;
};

/* Ranges that overlap without nesting are laid as LLVM lays them up to this many in one heap; past it an inner range is cut. */
enum { PAINT_EXACT_MAX = 4096 };

/**
 * Lays @p ranges in their order, each over what lies there already, and gives what is seen from above.
 * @param ranges  none empty; an inner one follows its outer one
 * @param ret     replaced: sorted segments that do not overlap, not merged
 * @return NULL; ERR_NOMEM, ERR_LIMIT. O(n log n) for ranges that nest; heaps that do not cost O(heap^2), see PAINT_EXACT_MAX.
 */
struct err *paint(struct account *account, struct painter *painter, const struct paint_list *ranges, struct paint_list *ret) MUST_USE;
void painter_deinit(struct painter *painter, struct account *account);

#endif

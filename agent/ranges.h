// SPDX-License-Identifier: Apache-2.0
/*
 * Places in an array of fixed size: first fit over a sorted list of what is free, neighbours merged. What is given back
 * rests until a time, since the kernel may still be reading there. One thread.
 */
#ifndef CAIRN_AGENT_RANGES_H
#define CAIRN_AGENT_RANGES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
	uint32_t first, count;
	uint64_t free_at_ms; /* of resting ones */
};

struct ranges {
	struct range *free; /* sorted by first, none empty, none touching */
	size_t free_count, free_cap;
	struct range *resting; /* oldest first */
	size_t resting_count, resting_cap;
	uint32_t used; /* resting ones included */
	uint32_t total;
};

/** All of [0, @p count) is free. ERR_NOMEM. */
struct err *ranges_init(struct ranges *ranges, uint32_t count) MUST_USE;
void ranges_deinit(struct ranges *ranges);
/** False when no free range is that long; @p count 0 gives 0. O(free ranges). */
bool ranges_take(struct ranges *ranges, uint32_t count, uint64_t now_ms, uint32_t *first_ret);
/** Gives back; it can be taken from @p free_at_ms on. ERR_NOMEM: the place is lost. */
struct err *ranges_give(struct ranges *ranges, uint32_t first, uint32_t count, uint64_t free_at_ms) MUST_USE;

/** Nothing at or behind this place is taken, or rests after @p now_ms. */
uint32_t ranges_end(struct ranges *ranges, uint64_t now_ms);

#endif

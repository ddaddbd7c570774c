// SPDX-License-Identifier: Apache-2.0
/*
 * Misses: IDs that somebody asked for and nobody knows, so that sources know what to look for. At most misses_max
 * are remembered; past it the one asked for longest ago is forgotten. A miss goes when its ID becomes known.
 */
#ifndef CAIRN_STORE_MISS_H
#define CAIRN_STORE_MISS_H

#include "store/store.h"

struct store_miss {
	struct store_query query; /* tenant and one ID: a file ID, or a build ID */
	uint64_t first_asked_ms, last_asked_ms;
	uint64_t count;
};

/**
 * Notes that an ID was asked for and not known. Never blocks: collected in memory (bounded; past the bound further
 * new ones are dropped) and written within a second, not acknowledged.
 */
void store_miss_note(struct store *store, const struct store_query *query);

/** The miss of an ID, when there is one written. */
struct err *store_miss_get(struct store_read *read, const struct store_query *query, struct store_miss *ret, bool *found_ret) MUST_USE;

/** Misses, the latest asked first. */
struct err *store_misses(struct store_read *read, struct store_miss *misses, size_t cap, size_t *n_ret) MUST_USE;

#endif

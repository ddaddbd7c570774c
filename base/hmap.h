// SPDX-License-Identifier: Apache-2.0
/*
 * A hash map from u64 to u64: open addressing, power-of-two size, keys mixed so that offsets and
 * hostile keys spread. No removal. One thread at a time; concurrent reads are fine.
 */
#ifndef CAIRN_BASE_HMAP_H
#define CAIRN_BASE_HMAP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hmap_slot {
	uint64_t key;
	uint64_t value;
};

struct hmap {
	struct hmap_slot *slots; /* NULL while empty */
	uint8_t *used;		 /* one byte a slot */
	size_t mask;
	size_t count;
};

/** True and the value, or false when @p key is not in the map. O(1). */
bool hmap_get(const struct hmap *map, uint64_t key, uint64_t *ret);
/** Sets or replaces. ERR_NOMEM. Amortized O(1). */
struct err *hmap_set(struct hmap *map, uint64_t key, uint64_t value) MUST_USE;
/** Makes room for @p count keys without further growth. */
struct err *hmap_reserve(struct hmap *map, size_t count) MUST_USE;
void hmap_deinit(struct hmap *map);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * A hash map from u64 to u64: open addressing, power-of-two size, keys mixed so that offsets and
 * hostile keys spread. It never shrinks. One thread at a time; concurrent reads are fine.
 */
#ifndef CAIRN_BASE_HMAP_H
#define CAIRN_BASE_HMAP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hmap_slot {
	uint64_t key; /* 0: empty, for key 0 lies outside of the slots */
	uint64_t value;
};

struct hmap {
	struct hmap_slot *slots; /* NULL while empty */
	size_t mask;
	size_t count; /* keys, key 0 included */
	uint64_t seed;
	uint64_t zero_value; /* of key 0 */
	bool has_zero;
};

/** Where @p key is looked for first. The 64 x 64 -> 128 bit product is folded, so that every key bit reaches every slot bit. */
static inline size_t hmap_home(const struct hmap *map, uint64_t key)
{
	__extension__ unsigned __int128 product =
		(unsigned __int128)(key ^ map->seed) * 0x9e3779b97f4a7c15U;
	return (size_t)((uint64_t)product ^ (uint64_t)(product >> 64)) & map->mask;
}

/** Starts loading what hmap_get or hmap_set of @p key will need, for callers that know their keys ahead. */
static inline void hmap_prefetch(const struct hmap *map, uint64_t key)
{
	if (map->slots)
		__builtin_prefetch(&map->slots[hmap_home(map, key)]);
}

/** True and the value, or false when @p key is not in the map. O(1). */
bool hmap_get(const struct hmap *map, uint64_t key, uint64_t *ret);
/** Sets or replaces. ERR_NOMEM. Amortized O(1). */
struct err *hmap_set(struct hmap *map, uint64_t key, uint64_t value) MUST_USE;
/** Removes @p key; false when it is not in the map. O(1). */
bool hmap_remove(struct hmap *map, uint64_t key);
/** Makes room for @p count keys without further growth. */
struct err *hmap_reserve(struct hmap *map, size_t count) MUST_USE;
/** Forgets all keys and keeps the room for reuse, unless it was hardly used this time. */
void hmap_clear(struct hmap *map);
void hmap_deinit(struct hmap *map);

#endif

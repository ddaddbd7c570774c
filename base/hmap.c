// SPDX-License-Identifier: Apache-2.0
#include "base/hmap.h"

#include "base/random.h"

#include <string.h>

/* Slots are 16 bytes, four a cache line: linear probing up to 5/8 full stays in one line nearly always. */
enum { HMAP_MIN_SLOTS = 16 };

bool hmap_get(const struct hmap *map, uint64_t key, uint64_t *ret)
{
	if (__builtin_expect(key == 0, 0)) {
		if (map->has_zero)
			*ret = map->zero_value;
		return map->has_zero;
	}
	if (!map->slots)
		return false;
	for (size_t i = hmap_home(map, key);; i = (i + 1) & map->mask) {
		const struct hmap_slot *slot = &map->slots[i];
		if (slot->key == key) {
			*ret = slot->value;
			return true;
		}
		if (slot->key == 0)
			return false;
	}
}

static struct hmap_slot *find_slot(struct hmap *map, uint64_t key)
{
	size_t i = hmap_home(map, key);

	while (map->slots[i].key != key && map->slots[i].key != 0)
		i = (i + 1) & map->mask;
	return &map->slots[i];
}

static bool fits(size_t count, size_t slots)
{
	return count <= slots / 8 * 5;
}

static struct err *resize(struct hmap *map, size_t slots)
{
	struct hmap old = *map;

	map->slots = calloc(slots, sizeof(*map->slots));
	if (!map->slots) {
		map->slots = old.slots;
		return err_nomem();
	}
	if (!old.slots)
		map->seed = random_process_seed();
	map->mask = slots - 1;
	for (size_t i = 0; old.slots && i <= old.mask; i++)
		if (old.slots[i].key != 0)
			*find_slot(map, old.slots[i].key) = old.slots[i];
	free(old.slots);
	return NULL;
}

struct err *hmap_reserve(struct hmap *map, size_t count)
{
	size_t slots = map->slots ? map->mask + 1 : HMAP_MIN_SLOTS;

	while (!fits(count, slots)) {
		if (slots > SIZE_MAX / sizeof(struct hmap_slot) / 2)
			return err_nomem();
		slots *= 2;
	}
	return map->slots && slots == map->mask + 1 ? NULL : resize(map, slots);
}

struct err *hmap_set(struct hmap *map, uint64_t key, uint64_t value)
{
	if (__builtin_expect(key == 0, 0)) {
		map->count += !map->has_zero;
		map->has_zero = true;
		map->zero_value = value;
		return NULL;
	}
	if (!map->slots || !fits(map->count + 1, map->mask + 1))
		TRY(hmap_reserve(map, map->count + 1));
	struct hmap_slot *slot = find_slot(map, key);
	map->count += slot->key == 0;
	*slot = (struct hmap_slot){.key = key, .value = value};
	return NULL;
}

/* Linear probing: what follows is moved up where its way from home leads over the gap, so that no search ends too early. */
bool hmap_remove(struct hmap *map, uint64_t key)
{
	if (key == 0) {
		bool had_zero = map->has_zero;
		map->count -= had_zero;
		map->has_zero = false;
		return had_zero;
	}
	if (!map->slots)
		return false;
	size_t gap = (size_t)(find_slot(map, key) - map->slots);
	if (map->slots[gap].key == 0)
		return false;
	for (size_t i = (gap + 1) & map->mask; map->slots[i].key != 0; i = (i + 1) & map->mask) {
		if (((i - hmap_home(map, map->slots[i].key)) & map->mask) < ((i - gap) & map->mask))
			continue;
		map->slots[gap] = map->slots[i];
		gap = i;
	}
	map->slots[gap].key = 0;
	map->count--;
	return true;
}

void hmap_clear(struct hmap *map)
{
	if (map->count < map->mask / 16) {
		hmap_deinit(map);
		return;
	}
	if (map->slots)
		memset(map->slots, 0, (map->mask + 1) * sizeof(*map->slots));
	map->count = 0;
	map->has_zero = false;
}

void hmap_deinit(struct hmap *map)
{
	free(map->slots);
	*map = (struct hmap){0};
}

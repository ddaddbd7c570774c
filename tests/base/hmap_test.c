// SPDX-License-Identifier: Apache-2.0
#include "base/hmap.h"

#include <criterion/criterion.h>

Test(hmap, misses_when_empty)
{
	struct hmap map = {0};
	uint64_t value = 42;

	cr_assert_not(hmap_get(&map, 0, &value));
	cr_assert_not(hmap_get(&map, 1, &value));
	cr_assert_eq(value, 42, "a miss leaves ret alone");
	hmap_prefetch(&map, 1);
	hmap_deinit(&map);
}

Test(hmap, keeps_zero_and_all_ones_as_keys)
{
	struct hmap map = {0};
	uint64_t value;

	cr_assert_null(hmap_set(&map, 0, 10));
	cr_assert_null(hmap_set(&map, UINT64_MAX, 11));
	cr_assert_null(hmap_set(&map, 0, 12));
	cr_assert_eq(map.count, 2);
	cr_assert(hmap_get(&map, 0, &value) && value == 12);
	cr_assert(hmap_get(&map, UINT64_MAX, &value) && value == 11);
	hmap_deinit(&map);
}

Test(hmap, finds_every_one_of_many_keys_and_no_other)
{
	enum { KEYS = 200000 };
	struct hmap map = {0};
	uint64_t value;

	/* Strides of a page put all entropy into the high bits, as file offsets do. */
	for (uint64_t i = 0; i < KEYS; i++)
		cr_assert_null(hmap_set(&map, i << 12, i));
	cr_assert_eq(map.count, KEYS);
	for (uint64_t i = 0; i < KEYS; i++) {
		hmap_prefetch(&map, i << 12);
		cr_assert(hmap_get(&map, i << 12, &value) && value == i);
		cr_assert_not(hmap_get(&map, (i << 12) + 1, &value));
	}
	hmap_deinit(&map);
}

Test(hmap, replaces_without_counting_twice)
{
	struct hmap map = {0};
	uint64_t value;

	for (uint64_t round = 0; round < 3; round++)
		for (uint64_t i = 1; i <= 100; i++)
			cr_assert_null(hmap_set(&map, i, i * round));
	cr_assert_eq(map.count, 100);
	cr_assert(hmap_get(&map, 50, &value) && value == 100);
	hmap_deinit(&map);
}

Test(hmap_reserve, makes_room_so_that_nothing_moves)
{
	struct hmap map = {0};

	cr_assert_null(hmap_reserve(&map, 1000));
	const struct hmap_slot *slots = map.slots;
	for (uint64_t i = 1; i <= 1000; i++)
		cr_assert_null(hmap_set(&map, i, i));
	cr_assert_eq(map.slots, slots);
	cr_assert_null(hmap_reserve(&map, 10));
	cr_assert_eq(map.slots, slots);
	hmap_deinit(&map);
}

Test(hmap_reserve, reports_an_absurd_count)
{
	struct hmap map = {0};
	struct err *e = hmap_reserve(&map, SIZE_MAX / 2);

	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_NOMEM);
	cr_assert_null(map.slots);
}

Test(hmap_remove, random_sets_and_removals_agree_with_an_array)
{
	enum { KEYS = 500, STEPS = 100000 };
	uint64_t expected[KEYS] = {0}, value = 0, seed = 7;
	struct hmap map = {0};
	size_t count = 0;

	cr_assert_not(hmap_remove(&map, 1));
	for (unsigned step = 0; step < STEPS; step++) {
		seed = seed * 6364136223846793005U + 1442695040888963407U;
		uint64_t key = (seed >> 33) % KEYS;
		if (seed >> 63) {
			cr_assert_null(hmap_set(&map, key << 12, step + 1));
			count += expected[key] == 0;
			expected[key] = step + 1;
		} else {
			cr_assert_eq(hmap_remove(&map, key << 12), expected[key] != 0);
			count -= expected[key] != 0;
			expected[key] = 0;
		}
		cr_assert_eq(map.count, count);
	}
	for (uint64_t key = 0; key < KEYS; key++) {
		cr_assert_eq(hmap_get(&map, key << 12, &value), expected[key] != 0);
		cr_assert(expected[key] == 0 || value == expected[key]);
	}
	hmap_deinit(&map);
}

// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/paint.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct account account;

/* Lays ranges given as {low, high, node}.. and shows the segments as "low-high:node ..". */
static const char *lay(const uint64_t (*given)[3], size_t count)
{
	static char text[1024];
	struct paint_list ranges = {0}, segments = {0};
	struct painter painter = {0};
	size_t at = 0;

	for (size_t i = 0; i < count; i++) {
		cr_assert_null(ARRAY_ROOM(&account, &ranges, 1));
		ranges.items[ranges.count++] = (struct paint_range){.low = given[i][0], .high = given[i][1], .node = (uint32_t)given[i][2]};
	}
	cr_assert_null(paint(&account, &painter, &ranges, &segments));
	text[0] = 0;
	for (size_t i = 0; i < segments.count; i++)
		at += (size_t)sprintf(text + at, "%s%lu-%lu:%u", i ? " " : "", segments.items[i].low, segments.items[i].high, segments.items[i].node);
	painter_deinit(&painter, &account);
	ARRAY_DEINIT(&account, &ranges);
	ARRAY_DEINIT(&account, &segments);
	cr_assert_eq(account.held, 0);
	return text;
}

#define LAY(...) lay((const uint64_t[][3]){__VA_ARGS__}, sizeof((const uint64_t[][3]){__VA_ARGS__}) / sizeof(uint64_t[3]))

Test(paint, gives_nothing_for_nothing)
{
	struct paint_list ranges = {0}, segments = {0};
	struct painter painter = {0};

	cr_assert_null(paint(&account, &painter, &ranges, &segments));
	cr_assert_eq(segments.count, 0);
	painter_deinit(&painter, &account);
}

Test(paint, shows_inner_ranges_above_outer_ones)
{
	cr_assert_str_eq(LAY({0, 100, 1}, {10, 50, 2}, {20, 30, 3}), "0-10:1 10-20:2 20-30:3 30-50:2 50-100:1");
}

Test(paint, shows_the_later_of_two_equal_ranges)
{
	cr_assert_str_eq(LAY({0, 10, 1}, {0, 10, 2}), "0-10:2");
}

Test(paint, leaves_gaps_between_functions)
{
	cr_assert_str_eq(LAY({20, 30, 2}, {0, 10, 1}), "0-10:1 20-30:2");
}

/* The rules of DWARFUnit::updateAddressDieMap, see paint.c. */
Test(paint, cuts_a_sibling_at_the_start_of_a_later_one)
{
	cr_assert_str_eq(LAY({0, 10, 1}, {5, 20, 2}), "0-5:1 5-20:2");
}

Test(paint, keeps_what_begins_inside_a_later_range)
{
	cr_assert_str_eq(LAY({5, 20, 1}, {0, 10, 2}), "0-5:2 5-20:1");
}

/* 2 left an entry (20, 100: 1) behind it, which stays when 3 comes to lie over its start; what 4 leaves of 3 replaces it at 25. */
Test(paint, splits_around_a_range_that_sticks_out_of_its_parent)
{
	cr_assert_str_eq(LAY({0, 100, 1}, {10, 20, 2}, {15, 30, 3}), "0-10:1 10-15:2 15-20:3 20-100:1");
	cr_assert_str_eq(LAY({0, 100, 1}, {10, 20, 2}, {15, 30, 3}, {18, 25, 4}), "0-10:1 10-15:2 15-18:3 18-20:4 20-25:1 25-30:3");
}

Test(paint, replaces_a_shorter_range_at_the_same_start)
{
	cr_assert_str_eq(LAY({0, 5, 1}, {0, 10, 2}), "0-10:2");
}

/* Past PAINT_EXACT_MAX the range that sticks out is cut instead, and time stays short. */
Test(paint, cuts_ranges_of_a_heap_that_is_too_large_to_lay_exactly)
{
	struct paint_list ranges = {0}, segments = {0};
	struct painter painter = {0};
	const uint32_t count = 200000;

	for (uint32_t i = 0; i < count; i++) {
		cr_assert_null(ARRAY_ROOM(&account, &ranges, 1));
		ranges.items[ranges.count++] = (struct paint_range){.low = i, .high = i + 2, .node = i};
	}
	cr_assert_null(paint(&account, &painter, &ranges, &segments));
	cr_assert_gt(segments.count, 0);
	for (size_t i = 0; i < segments.count; i++) {
		cr_assert_lt(segments.items[i].low, segments.items[i].high);
		cr_assert(i == 0 || segments.items[i - 1].high <= segments.items[i].low);
	}
	cr_assert_eq(segments.items[0].low, 0);
	painter_deinit(&painter, &account);
	ARRAY_DEINIT(&account, &ranges);
	ARRAY_DEINIT(&account, &segments);
}

/* Against the obvious way, on many small random sets that nest. */
Test(paint, agrees_with_laying_address_by_address)
{
	uint64_t seed = 12345;

	for (unsigned round = 0; round < 2000; round++) {
		struct paint_list ranges = {0}, segments = {0};
		struct painter painter = {0};
		uint32_t expected[256];
		memset(expected, 0xff, sizeof(expected));
		for (uint32_t i = 0; i < 60; i++) {
			seed = seed * 6364136223846793005U + 1442695040888963407U;
			/* Aligned powers of two nest; an outer one must come first, so that sizes fall. */
			uint64_t size = 128 >> (i / 8), low = ((seed >> 33) % 256) / size * size;
			cr_assert_null(ARRAY_ROOM(&account, &ranges, 1));
			ranges.items[ranges.count++] = (struct paint_range){.low = low, .high = low + size, .node = i};
			for (uint64_t a = low; a < low + size; a++)
				expected[a] = i;
		}
		cr_assert_null(paint(&account, &painter, &ranges, &segments));
		uint32_t got[256];
		memset(got, 0xff, sizeof(got));
		for (size_t i = 0; i < segments.count; i++)
			for (uint64_t a = segments.items[i].low; a < segments.items[i].high; a++)
				got[a] = segments.items[i].node;
		cr_assert_arr_eq(got, expected, sizeof(got));
		painter_deinit(&painter, &account);
		ARRAY_DEINIT(&account, &ranges);
		ARRAY_DEINIT(&account, &segments);
	}
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Functions and inlined calls have ranges; at an address the innermost counts. Ranges nearly always nest, and then one
 * sweep over them sorted by start with a stack of the open ones gives the segments. Where they do not nest, compilers have made
 * a mistake, and the answer is a matter of taste; ours is LLVM's (DWARFUnit::updateAddressDieMap), so that answers can be compared:
 *
 *     a map from start to (end, node); each range in order of its DIE:
 *         the entry that holds the start is cut there, and its rest behind the new range's end becomes an entry
 *         the range becomes an entry at its start; entries that begin inside the range stay
 *     an address belongs to the last entry that starts at or before it, if that reaches so far
 *
 * Only ranges that touch one another influence each other, so that the sweep works on heaps (ranges connected by overlap), and
 * a heap in which a range sticks out of the one below it, or lies above a later one, is laid again by the map.
 */
#include "symbolizer/build/paint.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
	INSERTION_MAX = 32,
	RADIX_BITS = 11,
	RADIX_SIZE = 1 << RADIX_BITS,
};

static void insertion_sort(struct paint_range *items, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct paint_range item = items[i];
		size_t j = i;
		for (; j > 0 && items[j - 1].low > item.low; j--)
			items[j] = items[j - 1];
		items[j] = item;
	}
}

/* One stable pass by RADIX_BITS of the key at @p shift; false (nothing done) when all keys have the same bits there. */
static bool radix_pass(const struct paint_range *from, struct paint_range *to, size_t count, uint64_t base, unsigned shift)
{
	size_t starts[RADIX_SIZE] = {0};

	for (size_t i = 0; i < count; i++)
		starts[((from[i].low - base) >> shift) & (RADIX_SIZE - 1)]++;
	if (starts[((from[0].low - base) >> shift) & (RADIX_SIZE - 1)] == count)
		return false;
	size_t sum = 0;
	for (size_t i = 0; i < RADIX_SIZE; i++) {
		size_t n = starts[i];
		starts[i] = sum;
		sum += n;
	}
	for (size_t i = 0; i < count; i++)
		to[starts[((from[i].low - base) >> shift) & (RADIX_SIZE - 1)]++] = from[i];
	return true;
}

/* Stable, by low. @p scratch has room for as many. The result is in the one that is returned. */
static struct paint_range *sort_by_low(struct paint_range *items, struct paint_range *scratch, size_t count)
{
	uint64_t min = UINT64_MAX, max = 0;
	bool sorted = true;

	for (size_t i = 0; i < count; i++) {
		sorted &= i == 0 || items[i - 1].low <= items[i].low;
		min = items[i].low < min ? items[i].low : min;
		max = items[i].low > max ? items[i].low : max;
	}
	if (sorted)
		return items;
	if (count <= INSERTION_MAX) {
		insertion_sort(items, count);
		return items;
	}
	for (unsigned shift = 0; shift < 64 && (max - min) >> shift; shift += RADIX_BITS)
		if (radix_pass(items, scratch, count, min, shift)) {
			struct paint_range *other = items;
			items = scratch;
			scratch = other;
		}
	return items;
}

static int compare_orders(const void *a, const void *b)
{
	uint32_t x = ((const struct paint_range *)a)->order, y = ((const struct paint_range *)b)->order;

	return x < y ? -1 : x > y;
}

/* The first entry of the map whose low is above @p low. */
static size_t upper_bound(const struct paint_list *map, uint64_t low)
{
	size_t first = 0, last = map->count;

	while (first < last) {
		size_t middle = first + (last - first) / 2;
		if (map->items[middle].low <= low)
			first = middle + 1;
		else
			last = middle;
	}
	return first;
}

/* map[low] = (high, node). There is room. */
static void map_set(struct paint_list *map, uint64_t low, uint64_t high, uint32_t node)
{
	size_t at = upper_bound(map, low);

	if (at > 0 && map->items[at - 1].low == low) {
		at--;
	} else {
		memmove(map->items + at + 1, map->items + at, (map->count - at) * sizeof(*map->items));
		map->count++;
	}
	map->items[at] = (struct paint_range){.low = low, .high = high, .node = node};
}

/* Lays a heap by the map, and appends what is seen. */
static struct err *lay_exactly(struct account *account, struct painter *painter, struct paint_range *heap, size_t count, struct paint_list *ret)
{
	struct paint_list *map = &painter->map;

	map->count = 0;
	qsort(heap, count, sizeof(*heap), compare_orders);
	TRY(ARRAY_ROOM(account, map, 2 * count));
	for (size_t i = 0; i < count; i++) {
		size_t at = upper_bound(map, heap[i].low);
		if (at > 0 && heap[i].low < map->items[at - 1].high) {
			struct paint_range below = map->items[at - 1];
			if (heap[i].low > below.low)
				map->items[at - 1].high = heap[i].low;
			if (heap[i].high < below.high)
				map_set(map, heap[i].high, below.high, below.node);
		}
		map_set(map, heap[i].low, heap[i].high, heap[i].node);
	}
	TRY(ARRAY_ROOM(account, ret, map->count));
	for (size_t i = 0; i < map->count; i++) {
		struct paint_range entry = map->items[i];
		if (i + 1 < map->count && map->items[i + 1].low < entry.high)
			entry.high = map->items[i + 1].low;
		if (entry.low < entry.high)
			ret->items[ret->count++] = entry;
	}
	return NULL;
}

/* Closes the open ranges that end at or before @p until: each is seen from @p cursor, where the last thing seen ended. */
static void close_ranges(struct paint_list *stack, uint64_t until, uint64_t *cursor, struct paint_list *ret)
{
	while (stack->count > 0 && stack->items[stack->count - 1].high <= until) {
		const struct paint_range *top = &stack->items[--stack->count];
		if (*cursor < top->high)
			ret->items[ret->count++] = (struct paint_range){.low = *cursor, .high = top->high, .node = top->node};
		*cursor = *cursor < top->high ? top->high : *cursor;
	}
}

/*
 * Sweeps one heap of nested ranges. False when they do not nest; then what was appended is taken back. With @p cut a range
 * that sticks out of the one below is cut at its end instead. Each range opens and closes once, so there are at most
 * 2 * count segments, for which there is room.
 */
static bool sweep_heap(struct painter *painter, const struct paint_range *heap, size_t count, bool cut, struct paint_list *ret)
{
	struct paint_list *stack = &painter->stack;
	size_t before = ret->count;
	uint64_t cursor = heap[0].low;

	stack->count = 0;
	for (size_t i = 0; i < count; i++) {
		struct paint_range range = heap[i];
		close_ranges(stack, range.low, &cursor, ret);
		if (stack->count > 0) {
			const struct paint_range *top = &stack->items[stack->count - 1];
			if (range.high > top->high || range.order < top->order) {
				if (!cut) {
					ret->count = before;
					return false;
				}
				range.high = range.high < top->high ? range.high : top->high;
			}
			if (cursor < range.low)
				ret->items[ret->count++] = (struct paint_range){.low = cursor, .high = range.low, .node = top->node};
		}
		cursor = range.low;
		stack->items[stack->count++] = range;
	}
	close_ranges(stack, UINT64_MAX, &cursor, ret);
	return true;
}

struct err *paint(struct account *account, struct painter *painter, const struct paint_list *ranges, struct paint_list *ret)
{
	size_t count = ranges->count;

	ret->count = 0;
	painter->sorted.count = 0;
	if (count == 0)
		return NULL;
	if (count > UINT32_MAX / 4)
		return err_new(ERR_LIMIT, "%zu ranges in one unit", count);
	TRY(ARRAY_ROOM(account, &painter->sorted, 2 * count));
	painter->stack.count = 0;
	TRY(ARRAY_ROOM(account, &painter->stack, count));
	struct paint_range *sorted = painter->sorted.items;
	memcpy(sorted, ranges->items, count * sizeof(*sorted));
	for (size_t i = 0; i < count; i++)
		sorted[i].order = (uint32_t)i;
	sorted = sort_by_low(sorted, sorted + count, count);
	for (size_t first = 0, next; first < count; first = next) {
		uint64_t high = sorted[first].high;
		for (next = first + 1; next < count && sorted[next].low < high; next++)
			high = sorted[next].high > high ? sorted[next].high : high;
		TRY(ARRAY_ROOM(account, ret, 2 * (next - first)));
		if (sweep_heap(painter, sorted + first, next - first, next - first > PAINT_EXACT_MAX, ret))
			continue;
		TRY(lay_exactly(account, painter, sorted + first, next - first, ret));
	}
	return NULL;
}

void painter_deinit(struct painter *painter, struct account *account)
{
	ARRAY_DEINIT(account, &painter->sorted);
	ARRAY_DEINIT(account, &painter->stack);
	ARRAY_DEINIT(account, &painter->map);
}

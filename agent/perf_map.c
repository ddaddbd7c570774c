// SPDX-License-Identifier: Apache-2.0
#include "agent/perf_map.h"

#include "base/hex.h"

#include <stdlib.h>
#include <string.h>

static struct err *grow(void **items, size_t *cap, size_t wanted, size_t size)
{
	size_t more = *cap ? *cap : 64;

	while (more < wanted)
		more *= 2;
	if (more == *cap)
		return NULL;
	void *moved = realloc(*items, more * size);
	if (!moved)
		return err_nomem();
	*items = moved;
	*cap = more;
	return NULL;
}

/** Hex digits and the space behind them. */
static bool take_hex(const char **at, const char *end, uint64_t *ret)
{
	uint64_t value = 0;
	const char *c = *at;

	if (end - c > 2 && c[0] == '0' && (c[1] == 'x' || c[1] == 'X'))
		c += 2;
	const char *first = c;
	for (; c < end && hex_digit(*c) >= 0; c++)
		value = value << 4 | (uint64_t)hex_digit(*c);
	if (c == first || c - first > 16 || c == end || *c != ' ')
		return false;
	*at = c + 1;
	*ret = value;
	return true;
}

static struct err *add_line(struct perf_map *map, const char *line, const char *end)
{
	uint64_t start = 0, size = 0;

	if (!take_hex(&line, end, &start) || !take_hex(&line, end, &size) || line == end || size == 0 || start > UINT64_MAX - size ||
		map->count == PERF_MAP_ENTRIES_MAX) {
		map->skipped++;
		return NULL;
	}
	size_t len = (size_t)(end - line) < PERF_MAP_NAME_MAX ? (size_t)(end - line) : PERF_MAP_NAME_MAX;
	if (map->names_len + len + 1 > PERF_MAP_BYTES_MAX) {
		map->skipped++;
		return NULL;
	}
	TRY(grow((void **)&map->entries, &map->cap, map->count + 1, sizeof(*map->entries)));
	TRY(grow((void **)&map->names, &map->names_cap, map->names_len + len + 1, 1));
	map->entries[map->count] = (struct perf_map_entry){
		.start = start, .end = start + size, .name = (uint32_t)map->names_len, .order = (uint32_t)map->count};
	map->count++;
	for (size_t i = 0; i < len; i++) /* names are printed: no control characters */
		map->names[map->names_len++] = (unsigned char)line[i] < ' ' || line[i] == 0x7f ? '?' : line[i];
	map->names[map->names_len++] = 0;
	return NULL;
}

static int compare(const void *a, const void *b)
{
	const struct perf_map_entry *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

struct err *perf_map_add(struct perf_map *map, const char *text, size_t len, size_t *taken_ret)
{
	const char *at = text, *end = text + len;
	size_t before = map->count, kept = 0;

	for (const char *stop; (stop = memchr(at, '\n', (size_t)(end - at))); at = stop + 1)
		TRY(add_line(map, at, stop));
	*taken_ret = (size_t)(at - text);
	if (map->count == before)
		return NULL;
	qsort(map->entries, map->count, sizeof(*map->entries), compare);
	for (size_t i = 0; i < map->count; i++) /* code is moved and freed: what came last at an address counts */
		if (i + 1 == map->count || map->entries[i + 1].start != map->entries[i].start)
			map->entries[kept++] = map->entries[i];
	map->count = kept;
	for (size_t i = 0; i < map->count; i++)
		map->entries[i].order = (uint32_t)i;
	return NULL;
}

const char *perf_map_find(const struct perf_map *map, uint64_t address)
{
	size_t low = 0, high = map->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (map->entries[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && address < map->entries[low - 1].end ? map->names + map->entries[low - 1].name : NULL;
}

void perf_map_deinit(struct perf_map *map)
{
	free(map->entries);
	free(map->names);
	*map = (struct perf_map){0};
}

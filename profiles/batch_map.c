// SPDX-License-Identifier: Apache-2.0
/*
 * From the numbers of a batch to those of a partition, on the writer thread.
 *
 * A partition remembers the digests of the traces, locations and label sets that batches brought, each with its number: most traces of a report
 * were in a report before, and cost one look-up. What is left is walked frame by frame: first all its locations, then the nodes from the
 * root on. Look-ups in a large table wait for memory, so TOGETHER of them are made at once, and wait together.
 *
 * The memory of digests is a cache: it begins empty when a partition is loaded, and anew when it has SEEN_MAX. Of a digest, 64 bits
 * are the key, and 32 more stand beside the number: 96 of 128 bits must be equal.
 */
#include "profiles/samples_internal.h"

enum { TOGETHER = 32, SEEN_MAX = 1 << 20, MARKED = SAMPLES_NONE - 1 };

static uint32_t *unknown(size_t count)
{
	uint32_t *numbers = malloc((count + 1) * sizeof(*numbers));

	if (numbers)
		memset(numbers, 0xff, (count + 1) * sizeof(*numbers));
	return numbers;
}

struct err *batch_map_init(struct batch_map *map, const struct samples_batch *batch, struct partition *partition)
{
	*map = (struct batch_map){.batch = batch, .partition = partition};
	TRY(dict_map_init(&map->dict, &batch->dict, &partition->dict));
	map->locations = unknown(batch->frames.location_count);
	map->traces = unknown(batch->frames.trace_count);
	map->labels = unknown(batch->dict.tables[DICT_LABELS].count);
	return map->locations && map->traces && map->labels ? NULL : err_nomem();
}

void batch_map_deinit(struct batch_map *map)
{
	dict_map_deinit(&map->dict);
	free(map->locations);
	free(map->traces);
	free(map->labels);
	*map = (struct batch_map){0};
}

/* -------------------------------------------------------------------------------------- digests that were seen */

static void split(const struct batch_digest *digest, uint64_t *key_ret, uint32_t *check_ret)
{
	memcpy(key_ret, digest->bytes, sizeof(*key_ret));
	memcpy(check_ret, digest->bytes + sizeof(*key_ret), sizeof(*check_ret));
}

static void prefetch(const struct hmap *map, const struct batch_digest *digest)
{
	uint64_t key;
	uint32_t check;

	split(digest, &key, &check);
	hmap_prefetch(map, key);
}

/* The number that a digest was remembered with, or SAMPLES_NONE. */
static uint32_t recall(const struct hmap *map, const struct batch_digest *digest)
{
	uint64_t key, value;
	uint32_t check;

	split(digest, &key, &check);
	return hmap_get(map, key, &value) && value >> 32 == check ? (uint32_t)value : SAMPLES_NONE;
}

static struct err *remember(struct hmap *map, const struct batch_digest *digest, uint32_t number)
{
	uint64_t key;
	uint32_t check;

	split(digest, &key, &check);
	if (map->count >= SEEN_MAX)
		hmap_deinit(map);
	return hmap_set(map, key, (uint64_t)check << 32 | number);
}

void batch_map_forget(struct partition *partition)
{
	hmap_deinit(&partition->traces);
	hmap_deinit(&partition->locations);
	hmap_deinit(&partition->labels);
}

struct err *batch_map_labels(struct batch_map *map, uint32_t labels, uint32_t *ret)
{
	const struct batch_digest *digest = &map->batch->labels_digests[labels];
	uint32_t *known = &map->labels[labels];

	if (*known == SAMPLES_NONE) {
		*known = recall(&map->partition->labels, digest);
		if (*known == SAMPLES_NONE) {
			TRY(dict_map_record(&map->dict, DICT_LABELS, labels, known));
			TRY(remember(&map->partition->labels, digest, *known));
		}
	}
	*ret = *known;
	return NULL;
}

/* -------------------------------------------------------------------------------------- locations */

static struct err *map_line(struct batch_map *map, const struct batch_line *from, uint32_t *ret)
{
	const struct batch_function *function = &map->batch->frames.functions[from->function];
	struct dict_line line = {.line = from->line, .column = from->column, .start_line = function->start_line};

	TRY(dict_map_record(&map->dict, DICT_TEXTS, function->function, &line.function));
	TRY(dict_map_record(&map->dict, DICT_TEXTS, function->system_name, &line.system_name));
	TRY(dict_map_record(&map->dict, DICT_TEXTS, function->file, &line.file));
	return dict_add_line(&map->partition->dict, &line, ret);
}

/* A location as the partition's dictionary would have it. */
static struct err *make_location(struct batch_map *map, uint32_t number, struct dict_location *ret)
{
	const struct batch_frames *f = &map->batch->frames;
	const struct batch_location *from = &f->locations[number];

	ret->kind = from->kind;
	ret->address_kind = from->address_kind;
	ret->address = from->address;
	ret->mapping = from->mapping;
	ret->line_count = from->line_count;
	if (from->mapping != SAMPLES_NONE)
		TRY(dict_map_record(&map->dict, DICT_MAPPINGS, from->mapping, &ret->mapping));
	for (uint32_t i = 0; i < from->line_count; i++)
		TRY(map_line(map, &f->lines[from->first_line + i], &ret->lines[i]));
	return NULL;
}

/* Up to TOGETHER locations. */
static struct err *map_locations(struct batch_map *map, const uint32_t *numbers, size_t count)
{
	const struct batch_frames *f = &map->batch->frames;
	struct dict_location location;

	for (size_t i = 0; i < count; i++)
		prefetch(&map->partition->locations, &f->location_digests[numbers[i]]);
	for (size_t i = 0; i < count; i++) {
		uint32_t *known = &map->locations[numbers[i]];
		*known = recall(&map->partition->locations, &f->location_digests[numbers[i]]);
		if (*known != SAMPLES_NONE)
			continue;
		TRY(make_location(map, numbers[i], &location));
		TRY(dict_add_location(&map->partition->dict, &location, known));
		TRY(remember(&map->partition->locations, &f->location_digests[numbers[i]], *known));
	}
	return NULL;
}

static struct err *map_locations_of(struct batch_map *map, const uint32_t *traces, size_t count)
{
	const struct batch_frames *f = &map->batch->frames;
	uint32_t gathered[TOGETHER];
	size_t n = 0;

	for (size_t t = 0; t < count; t++) {
		const uint32_t *stack = f->stacks + f->traces[traces[t]].first;
		for (uint32_t i = 0; i < f->traces[traces[t]].depth; i++) {
			if (map->locations[stack[i]] != SAMPLES_NONE)
				continue;
			map->locations[stack[i]] = MARKED;
			gathered[n++] = stack[i];
			if (n < TOGETHER)
				continue;
			TRY(map_locations(map, gathered, n));
			n = 0;
		}
	}
	return map_locations(map, gathered, n);
}

/* -------------------------------------------------------------------------------------- nodes */

/* From the root on; what is new becomes a chain of neighbours. */
static struct err *walk_nodes(struct batch_map *map, const struct batch_trace *trace, uint32_t *ret)
{
	const uint32_t *stack = map->batch->frames.stacks + trace->first;
	uint32_t node = 0;

	for (uint32_t i = trace->depth; i-- > 0;)
		TRY(dict_add_node(&map->partition->dict, node, map->locations[stack[i]], &node));
	*ret = node;
	return NULL;
}

static struct err *walk_all(struct batch_map *map, const uint32_t *traces, size_t count)
{
	TRY(map_locations_of(map, traces, count));
	for (size_t i = 0; i < count; i++) {
		const struct batch_trace *trace = &map->batch->frames.traces[traces[i]];
		uint32_t *node = &map->traces[traces[i]];
		TRY(walk_nodes(map, trace, node));
		TRY(remember(&map->partition->traces, &trace->digest, *node));
	}
	return NULL;
}

struct err *batch_map_traces(struct batch_map *map, const uint32_t *traces, size_t count)
{
	const struct batch_frames *f = &map->batch->frames;
	CLEANUP(freep) uint32_t *left = malloc((f->trace_count + 1) * sizeof(*left));
	size_t n = 0, unseen = 0;

	if (!left)
		return err_nomem();
	for (size_t i = 0; i < count; i++) {
		if (map->traces[traces[i]] != SAMPLES_NONE)
			continue;
		map->traces[traces[i]] = MARKED;
		left[n++] = traces[i];
	}
	for (size_t i = 0; i < n; i++) {
		if (i + TOGETHER < n)
			prefetch(&map->partition->traces, &f->traces[left[i + TOGETHER]].digest);
		uint32_t node = recall(&map->partition->traces, &f->traces[left[i]].digest);
		map->traces[left[i]] = node;
		if (node == SAMPLES_NONE)
			left[unseen++] = left[i];
	}
	return walk_all(map, left, unseen);
}

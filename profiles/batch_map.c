// SPDX-License-Identifier: Apache-2.0
/*
 * From the numbers of a batch to those of a partition, on the writer thread.
 *
 * A partition remembers the digests of the traces that batches brought, each with its node: most traces of a report were in a report
 * before, and cost one look-up. What is left is walked frame by frame: first all its locations, then the nodes from the root on.
 * Look-ups in a large dictionary wait for memory, so TOGETHER of them are made at once, and wait together.
 *
 * The memory of digests is a cache: it begins empty when a partition is loaded, and anew when it has TRACES_MAX. Of a digest, 64 bits
 * are the key, and 38 more stand beside the node: 102 of 128 bits must be equal.
 */
#include "profiles/samples_internal.h"

enum { TOGETHER = 32, TRACES_MAX = 1 << 20, NODE_BITS = 26, MARKED = SAMPLES_NONE - 1 };

_Static_assert(DICT_NODES_MAX <= 1 << NODE_BITS, "a node and the rest of a digest share 64 bits");

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
	return map->locations && map->traces ? NULL : err_nomem();
}

void batch_map_deinit(struct batch_map *map)
{
	dict_map_deinit(&map->dict);
	free(map->locations);
	free(map->traces);
	*map = (struct batch_map){0};
}

/* -------------------------------------------------------------------------------------- digests that were seen */

static uint64_t digest_key(const struct batch_trace *trace)
{
	uint64_t key;

	memcpy(&key, trace->digest.bytes, sizeof(key));
	return key;
}

/* What stands under the key: the node in the low bits, the rest of the digest above. */
static uint64_t digest_check(const struct batch_trace *trace)
{
	uint64_t check;

	memcpy(&check, trace->digest.bytes + 8, sizeof(check));
	return check & ~(uint64_t)((1 << NODE_BITS) - 1);
}

static uint32_t seen_node(const struct partition *partition, const struct batch_trace *trace)
{
	uint64_t seen;

	if (!hmap_get(&partition->traces, digest_key(trace), &seen) || (digest_check(trace) ^ seen) >> NODE_BITS)
		return SAMPLES_NONE;
	return (uint32_t)seen & ((1 << NODE_BITS) - 1);
}

static struct err *remember(struct partition *partition, const struct batch_trace *trace, uint32_t node)
{
	if (partition->traces.count >= TRACES_MAX)
		hmap_deinit(&partition->traces);
	return hmap_set(&partition->traces, digest_key(trace), digest_check(trace) | node);
}

/* -------------------------------------------------------------------------------------- locations */

static struct err *map_line(struct batch_map *map, const struct dict_line *from, uint32_t *ret)
{
	struct dict_line line = *from;

	TRY(dict_map_record(&map->dict, DICT_TEXTS, line.function, &line.function));
	TRY(dict_map_record(&map->dict, DICT_TEXTS, line.system_name, &line.system_name));
	TRY(dict_map_record(&map->dict, DICT_TEXTS, line.file, &line.file));
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
	struct dict *to = &map->partition->dict;
	struct dict_probe probes[TOGETHER];
	struct dict_location location;
	uint32_t found[TOGETHER];

	for (size_t i = 0; i < count; i++) {
		TRY(make_location(map, numbers[i], &location));
		dict_probe_begin(to, &location, &probes[i]);
	}
	for (size_t i = 0; i < count; i++)
		found[i] = dict_probe_number(to, &probes[i]);
	for (size_t i = 0; i < count; i++)
		if (found[i] != SAMPLES_NONE)
			__builtin_prefetch(dict_record(to, DICT_LOCATIONS, found[i]).bytes);
	for (size_t i = 0; i < count; i++) {
		if (found[i] == SAMPLES_NONE || !dict_probe_is(to, &probes[i], found[i])) {
			TRY(make_location(map, numbers[i], &location));
			TRY(dict_add_location(to, &location, &found[i]));
		}
		map->locations[numbers[i]] = found[i];
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
		TRY(remember(map->partition, trace, *node));
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
		hmap_prefetch(&map->partition->traces, digest_key(&f->traces[traces[i]]));
		left[n++] = traces[i];
	}
	for (size_t i = 0; i < n; i++) {
		uint32_t node = seen_node(map->partition, &f->traces[left[i]]);
		map->traces[left[i]] = node;
		if (node == SAMPLES_NONE)
			left[unseen++] = left[i];
	}
	return walk_all(map, left, unseen);
}

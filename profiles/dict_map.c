// SPDX-License-Identifier: Apache-2.0
/*
 * Bringing what one dictionary holds into another: a batch's into a partition's when it is committed, those of partitions
 * into a query's. Only what is asked for is brought, with what it names; each thing once.
 */
#include "profiles/dict.h"

struct err *dict_map_init(struct dict_map *map, const struct dict *from, struct dict *to)
{
	*map = (struct dict_map){.from = from, .to = to};
	for (int i = 0; i < DICT_TABLES; i++) {
		size_t bytes = (from->tables[i].count + 1) * sizeof(uint32_t);
		map->numbers[i] = malloc(bytes);
		if (!map->numbers[i])
			goto nomem;
		memset(map->numbers[i], 0xff, bytes);
	}
	size_t bytes = from->node_count * sizeof(uint32_t);
	map->nodes = malloc(bytes);
	if (!map->nodes)
		goto nomem;
	memset(map->nodes, 0xff, bytes);
	map->nodes[0] = 0;
	map->numbers[DICT_TEXTS][0] = 0;
	map->numbers[DICT_LINKS][0] = 0;
	return NULL;
nomem:
	dict_map_deinit(map);
	return err_nomem();
}

void dict_map_deinit(struct dict_map *map)
{
	for (int i = 0; i < DICT_TABLES; i++)
		free(map->numbers[i]);
	free(map->nodes);
	*map = (struct dict_map){0};
}

static struct err *map_text(struct dict_map *map, uint32_t *number)
{
	return dict_map_record(map, DICT_TEXTS, *number, number);
}

static struct err *map_type(struct dict_map *map, uint32_t number, uint32_t *ret)
{
	struct dict_type type;

	dict_get_type(map->from, number, &type);
	TRY(map_text(map, &type.type));
	TRY(map_text(map, &type.unit));
	TRY(map_text(map, &type.period_type));
	TRY(map_text(map, &type.period_unit));
	return dict_add_type(map->to, &type, ret);
}

static struct err *map_labels_alone(struct dict_map *map, uint32_t number, uint32_t *ret)
{
	struct dict_labels labels;

	dict_get_labels(map->from, number, &labels);
	/* The parent is there already: see map_labels. */
	if (labels.parent != SAMPLES_NONE)
		labels.parent = map->numbers[DICT_LABELS][labels.parent];
	for (uint32_t i = 0; i < labels.count; i++) {
		TRY(map_text(map, &labels.items[i].key));
		TRY(map_text(map, &labels.items[i].value));
	}
	return dict_add_labels(map->to, &labels, ret);
}

/* Parents first, without recursion: chains may be as long as there are sets. */
static struct err *map_labels(struct dict_map *map, uint32_t number, uint32_t *ret)
{
	uint32_t *known = map->numbers[DICT_LABELS];

	while (known[number] == SAMPLES_NONE) {
		uint32_t top = number;
		for (struct dict_labels labels;; top = labels.parent) {
			dict_get_labels(map->from, top, &labels);
			if (labels.parent == SAMPLES_NONE || known[labels.parent] != SAMPLES_NONE)
				break;
		}
		TRY(map_labels_alone(map, top, &known[top]));
	}
	*ret = known[number];
	return NULL;
}

static struct err *map_mapping(struct dict_map *map, uint32_t number, uint32_t *ret)
{
	struct dict_mapping mapping;

	dict_get_mapping(map->from, number, &mapping);
	TRY(map_text(map, &mapping.go_build_id));
	TRY(map_text(map, &mapping.name));
	return dict_add_mapping(map->to, &mapping, ret);
}

static struct err *map_line(struct dict_map *map, uint32_t number, uint32_t *ret)
{
	struct dict_line line;

	dict_get_line(map->from, number, &line);
	TRY(map_text(map, &line.function));
	TRY(map_text(map, &line.system_name));
	TRY(map_text(map, &line.file));
	return dict_add_line(map->to, &line, ret);
}

static struct err *map_location(struct dict_map *map, uint32_t number, uint32_t *ret)
{
	struct dict_location location;

	dict_get_location(map->from, number, &location);
	if (location.mapping != SAMPLES_NONE)
		TRY(dict_map_record(map, DICT_MAPPINGS, location.mapping, &location.mapping));
	for (uint32_t i = 0; i < location.line_count; i++)
		TRY(dict_map_record(map, DICT_LINES, location.lines[i], &location.lines[i]));
	return dict_add_location(map->to, &location, ret);
}

struct err *dict_map_record(struct dict_map *map, enum dict_table table, uint32_t number, uint32_t *ret)
{
	uint32_t *known = &map->numbers[table][number];
	struct samples_text record;
	struct err *e = NULL;

	if (*known != SAMPLES_NONE) {
		*ret = *known;
		return NULL;
	}
	switch (table) {
	case DICT_TYPES:
		e = map_type(map, number, known);
		break;
	case DICT_LABELS:
		e = map_labels(map, number, known);
		break;
	case DICT_MAPPINGS:
		e = map_mapping(map, number, known);
		break;
	case DICT_LINES:
		e = map_line(map, number, known);
		break;
	case DICT_LOCATIONS:
		e = map_location(map, number, known);
		break;
	case DICT_TEXTS:
	case DICT_LINKS:
	case DICT_TABLES:
		record = dict_record(map->from, table, number);
		e = dict_add(map->to, table, record.bytes, record.len, known);
		break;
	}
	*ret = *known;
	return e;
}

struct err *dict_map_node(struct dict_map *map, uint32_t node, uint32_t *ret)
{
	uint32_t path[PROFILE_MAX_DEPTH];

	while (map->nodes[node] == SAMPLES_NONE) {
		/* The last PROFILE_MAX_DEPTH unknown ancestors; a deeper stack takes several rounds. */
		uint32_t depth = 0, at = node;
		for (; map->nodes[at] == SAMPLES_NONE; at = map->from->parents[at])
			path[depth++ % PROFILE_MAX_DEPTH] = at;
		uint32_t round = depth < PROFILE_MAX_DEPTH ? depth : PROFILE_MAX_DEPTH;
		for (uint32_t i = 0; i < round; i++) {
			uint32_t here = path[(depth - 1 - i) % PROFILE_MAX_DEPTH], location;
			TRY(dict_map_record(map, DICT_LOCATIONS, map->from->locations[here], &location));
			TRY(dict_add_node(map->to, map->nodes[map->from->parents[here]], location, &map->nodes[here]));
		}
	}
	*ret = map->nodes[node];
	return NULL;
}

/* -------------------------------------------------------------------------------------- many at once */

enum { TOGETHER = 32, MARKED = SAMPLES_NONE - 1 };

/* Unknown nodes of the given ones and their ancestors, by their number of ancestors: parents stand before their children. */
struct front {
	uint32_t *nodes;
	uint16_t *depths; /* of all nodes of `from`; 0: not looked at */
	size_t count;
};

static void front_deinit(struct front *f)
{
	free(f->nodes);
	free(f->depths);
}

/* Depths are cut at what a front has; what lies deeper is left to dict_map_node. */
static struct err *front_make(const struct dict_map *map, const uint32_t *nodes, size_t count, struct front *f)
{
	const struct dict *from = map->from;
	size_t starts[PROFILE_MAX_DEPTH + 2] = {0};

	f->depths = calloc(from->node_count, sizeof(*f->depths));
	f->nodes = malloc((from->node_count + 1) * sizeof(*f->nodes));
	if (!f->depths || !f->nodes)
		return err_nomem();
	for (size_t i = 0; i < count; i++)
		for (uint32_t at = nodes[i]; at != 0 && f->depths[at] == 0; at = from->parents[at])
			f->depths[at] = 1;
	for (uint32_t i = 1; i < from->node_count; i++) {
		if (f->depths[i] == 0)
			continue;
		f->depths[i] = (uint16_t)(f->depths[from->parents[i]] + 1);
		if (f->depths[i] > PROFILE_MAX_DEPTH)
			f->depths[i] = PROFILE_MAX_DEPTH;
		starts[f->depths[i] + 1]++;
		f->count++;
	}
	for (size_t i = 1; i < ARRAY_SIZE(starts); i++)
		starts[i] += starts[i - 1];
	for (uint32_t i = 1; i < from->node_count; i++)
		if (f->depths[i] != 0)
			f->nodes[starts[f->depths[i]]++] = i;
	return NULL;
}

/* Up to TOGETHER locations. */
static struct err *find_locations(struct dict_map *map, const uint32_t *locations, size_t count)
{
	struct dict_probe probes[TOGETHER];
	uint32_t found[TOGETHER];

	for (size_t i = 0; i < count; i++) {
		struct dict_location location;
		dict_get_location(map->from, locations[i], &location);
		if (location.mapping != SAMPLES_NONE)
			TRY(dict_map_record(map, DICT_MAPPINGS, location.mapping, &location.mapping));
		for (uint32_t k = 0; k < location.line_count; k++)
			TRY(dict_map_record(map, DICT_LINES, location.lines[k], &location.lines[k]));
		dict_probe_begin(map->to, &location, &probes[i]);
	}
	for (size_t i = 0; i < count; i++)
		found[i] = dict_probe_number(map->to, &probes[i]);
	for (size_t i = 0; i < count; i++)
		if (found[i] != SAMPLES_NONE)
			__builtin_prefetch(dict_record(map->to, DICT_LOCATIONS, found[i]).bytes);
	for (size_t i = 0; i < count; i++)
		if (found[i] != SAMPLES_NONE && dict_probe_is(map->to, &probes[i], found[i]))
			map->numbers[DICT_LOCATIONS][locations[i]] = found[i];
	return NULL;
}

static struct err *find_all_locations(struct dict_map *map, const struct front *f)
{
	uint32_t *known = map->numbers[DICT_LOCATIONS];
	uint32_t batch[TOGETHER];
	size_t count = 0;

	for (size_t i = 0; i <= f->count; i++) {
		if (i < f->count) {
			uint32_t location = map->from->locations[f->nodes[i]];
			if (known[location] != SAMPLES_NONE)
				continue;
			known[location] = MARKED;
			batch[count++] = location;
		}
		if (count < TOGETHER && i < f->count)
			continue;
		for (size_t k = 0; k < count; k++)
			known[batch[k]] = SAMPLES_NONE;
		TRY(find_locations(map, batch, count));
		count = 0;
	}
	return NULL;
}

/* The key of a node in `to`; false while its parent or its location is unknown there. */
static bool node_key(const struct dict_map *map, uint32_t node, uint64_t *ret)
{
	uint32_t parent = map->nodes[map->from->parents[node]];
	uint32_t location = map->numbers[DICT_LOCATIONS][map->from->locations[node]];

	*ret = (uint64_t)parent << 32 | location;
	return parent != SAMPLES_NONE && location != SAMPLES_NONE && map->nodes[node] == SAMPLES_NONE;
}

struct err *dict_map_find(struct dict_map *map, const uint32_t *nodes, size_t count)
{
	CLEANUP(front_deinit) struct front f = {0};
	uint64_t key, number;

	/* An index that is not there is made by the first dict_add. */
	if (!map->to->indexed)
		return NULL;
	TRY(front_make(map, nodes, count, &f));
	TRY(find_all_locations(map, &f));
	/* Nodes that come TOGETHER later have their parents behind them, but for the few first of a depth. */
	for (size_t i = 0; i < f.count; i++) {
		if (i + TOGETHER < f.count && node_key(map, f.nodes[i + TOGETHER], &key))
			hmap_prefetch(&map->to->node_index, key);
		if (node_key(map, f.nodes[i], &key) && hmap_get(&map->to->node_index, key, &number))
			map->nodes[f.nodes[i]] = (uint32_t)number;
	}
	return NULL;
}

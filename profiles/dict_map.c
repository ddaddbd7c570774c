// SPDX-License-Identifier: Apache-2.0
/*
 * Bringing what one dictionary holds into another: a batch's into a partition's when it is committed (with its traces: batch_map.c), those of
 * partitions into a query's. Only what is asked for is brought, with what it names; each thing once.
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

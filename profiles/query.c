// SPDX-License-Identifier: Apache-2.0
/*
 * Queries. For each partition: values are added up by node number first (an array; by (group, node) when there is a group-by), then what
 * has a value is brought into one dictionary of the query. A query of one partition takes that partition's dictionary as it is, so that an
 * hour costs no second tree. At the end expand.c makes a profile of the dictionary and the sums.
 *
 * A group is a chain of nodes at the root, one a key, whose locations are lines named `key=value`.
 */
#include "profiles/read.h"

#include <stdio.h>
#include <time.h>

enum { TYPES_NAMED_MAX = 16, GROUPS_MAX = 1 << 16 };

uint64_t monotonic_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* What a query has gathered. */
struct gathering {
	const struct samples_query *query;
	struct dict dict;
	uint64_t *sums; /* a node of dict */
	uint32_t sums_cap;
	bool group_by_cpu;
	struct buf types[TYPES_NAMED_MAX]; /* texts of the types that were seen */
	size_t type_count;
	bool other_types;  /* samples of other types than the one asked for .. */
	bool has_the_type; /* .. and of that, filtered out or not */
	struct samples_query_stat stat;
	/* Of the partition at hand: */
	uint64_t *node_sums;	  /* without groups */
	struct hmap group_numbers; /* labels << 32 | cpu + 1 -> group */
	struct hmap group_sums;	   /* group << 32 | node -> index of cells */
	struct cell {
		uint32_t group, node;
		uint64_t value;
	} *cells;
	size_t cell_count, cell_cap;
	struct dict_group {
		uint32_t labels, root; /* root: node of dict */
		int32_t cpu;
	} *groups;
	size_t group_count, group_cap;
};

static void partition_data_free(struct gathering *g)
{
	free(TAKE_PTR(g->node_sums));
	free(TAKE_PTR(g->cells));
	free(TAKE_PTR(g->groups));
	hmap_deinit(&g->group_numbers);
	hmap_deinit(&g->group_sums);
	g->cell_count = g->cell_cap = g->group_count = g->group_cap = 0;
}

static void gathering_deinit(struct gathering *g)
{
	partition_data_free(g);
	dict_deinit(&g->dict);
	free(g->sums);
	for (size_t i = 0; i < g->type_count; i++)
		buf_deinit(&g->types[i]);
}

/* -------------------------------------------------------------------------------------- sums */

static struct err *sums_reserve(struct gathering *g)
{
	uint32_t need = g->dict.node_count;

	if (need <= g->sums_cap)
		return NULL;
	uint32_t cap = need > 2 * g->sums_cap ? need : 2 * g->sums_cap;
	uint64_t *sums = realloc(g->sums, cap * sizeof(*sums));
	if (!sums)
		return err_nomem();
	memset(sums + g->sums_cap, 0, (cap - g->sums_cap) * sizeof(*sums));
	g->sums = sums;
	g->sums_cap = cap;
	return NULL;
}

static struct err *add_plain(void *context, const struct reading *reading, const struct row *row)
{
	struct gathering *g = context;
	uint64_t *sum = &g->node_sums[hi_trace(row->hi)];

	(void)reading;
	*sum = add_saturating(*sum, row->value);
	return NULL;
}

static struct err *grow(void **items, size_t count, size_t *cap, size_t size)
{
	if (count < *cap)
		return NULL;
	size_t bigger = *cap ? 2 * *cap : 256;
	void *moved = realloc(*items, bigger * size);

	if (!moved)
		return err_nomem();
	*items = moved;
	*cap = bigger;
	return NULL;
}

/* A node of the query's dictionary for one component of a group. */
static struct err *group_node(struct gathering *g, uint32_t parent, struct samples_text key, struct samples_text value, uint32_t *ret)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	struct dict_line line = {0};
	struct dict_location location = {.kind = PROFILE_FRAME_INTERPRETED, .mapping = SAMPLES_NONE, .line_count = 1};
	uint32_t number;

	TRY(buf_printf(&text, "%.*s=%.*s", (int)key.len, key.bytes, (int)value.len, value.bytes));
	TRY(dict_add(&g->dict, DICT_TEXTS, text.data, text.len, &line.function));
	TRY(dict_add_line(&g->dict, &line, &location.lines[0]));
	TRY(dict_add_location(&g->dict, &location, &number));
	return dict_add_node(&g->dict, parent, number, ret);
}

static struct err *group_root(struct gathering *g, const struct dict *from, struct dict_group *group)
{
	group->root = 0;
	for (size_t i = 0; i < g->query->group_count; i++) {
		struct samples_text key = samples_label_key(g->query->group_by[i]), value;
		char cpu[16] = "";
		if (text_equal(key, text_of(SAMPLES_LABEL_CPU))) {
			if (group->cpu >= 0)
				(void)snprintf(cpu, sizeof(cpu), "%d", group->cpu);
			value = text_of(cpu);
		} else {
			(void)labels_value(from, group->labels, key, &value);
		}
		TRY(group_node(g, group->root, g->query->group_by[i], value, &group->root));
	}
	return NULL;
}

static struct err *group_of(struct gathering *g, const struct dict *from, const struct row *row, uint64_t *ret)
{
	int32_t cpu = g->group_by_cpu ? lo_cpu(row->lo) : -1;
	uint64_t key = (uint64_t)hi_labels(row->hi) << 32 | (uint32_t)(cpu + 1);

	if (hmap_get(&g->group_numbers, key, ret))
		return NULL;
	if (g->group_count >= (size_t)GROUPS_MAX * 16)
		return err_new(ERR_INVALID, "more than %d groups: group by fewer keys, or filter", GROUPS_MAX * 16);
	TRY(grow((void **)&g->groups, g->group_count, &g->group_cap, sizeof(*g->groups)));
	struct dict_group *group = &g->groups[g->group_count];
	*group = (struct dict_group){.labels = hi_labels(row->hi), .cpu = cpu};
	TRY(group_root(g, from, group));
	*ret = g->group_count++;
	return hmap_set(&g->group_numbers, key, *ret);
}

static struct err *add_grouped(void *context, const struct reading *reading, const struct row *row)
{
	struct gathering *g = context;
	uint64_t group, at;

	TRY(group_of(g, &reading->dict, row, &group));
	uint64_t key = group << 32 | hi_trace(row->hi);
	if (!hmap_get(&g->group_sums, key, &at)) {
		TRY(grow((void **)&g->cells, g->cell_count, &g->cell_cap, sizeof(*g->cells)));
		at = g->cell_count++;
		g->cells[at] = (struct cell){.group = (uint32_t)group, .node = hi_trace(row->hi)};
		TRY(hmap_set(&g->group_sums, key, at));
	}
	g->cells[at].value = add_saturating(g->cells[at].value, row->value);
	return NULL;
}

/* -------------------------------------------------------------------------------------- types */

static struct err *note_types(struct gathering *g, const struct reading *r)
{
	for (uint32_t i = 0; i < r->dict.tables[DICT_TYPES].count; i++) {
		CLEANUP(buf_deinit) struct buf text = {0};
		size_t at = 0;
		g->has_the_type |= r->types[i] != 0;
		if (r->types[i] != 2) {
			g->other_types |= r->types[i] == 0;
			continue;
		}
		TRY(type_text(&r->dict, i, &text));
		while (at < g->type_count &&
			(g->types[at].len != text.len || memcmp(g->types[at].data, text.data, text.len) != 0))
			at++;
		if (at < g->type_count || at == TYPES_NAMED_MAX)
			continue;
		g->types[g->type_count++] = text;
		text = (struct buf){0};
	}
	return NULL;
}

/* Types are never added together. */
static struct err *one_type(const struct gathering *g)
{
	CLEANUP(buf_deinit) struct buf names = {0};

	if (!g->has_the_type && g->other_types && g->query->type.len > 0)
		return err_new(ERR_NOT_FOUND, "there are samples, but none of type %.*s", (int)g->query->type.len, g->query->type.bytes);
	if (g->type_count < 2)
		return NULL;
	for (size_t i = 0; i < g->type_count; i++)
		TRY(buf_printf(&names, "%s%.*s", i ? ", " : "", (int)g->types[i].len, (const char *)g->types[i].data));
	return err_new(ERR_INVALID, "several types of samples, which cannot be added together; name one of %.*s", (int)names.len,
		(const char *)names.data);
}

/* "type:unit:period type:period unit:period" into a profile. */
static struct err *set_type(const struct gathering *g, struct profile *profile)
{
	struct samples_text parts[5] = {{"", 0}, {"", 0}, {"", 0}, {"", 0}, {"", 0}};
	uint32_t *to[4] = {&profile->sample_type.type, &profile->sample_type.unit, &profile->period_type.type, &profile->period_type.unit};

	if (g->type_count == 0)
		return NULL;
	const char *at = (const char *)g->types[0].data, *end = at + g->types[0].len;
	for (int i = 0; i < 5 && at <= end; i++) {
		const char *colon = memchr(at, ':', (size_t)(end - at));
		if (!colon || i == 4)
			colon = end;
		parts[i] = (struct samples_text){at, (size_t)(colon - at)};
		at = colon + 1;
	}
	for (int i = 0; i < 4; i++)
		TRY(profile_text(profile, parts[i].bytes, parts[i].len, to[i]));
	char period[32] = {0};
	memcpy(period, parts[4].bytes, parts[4].len < sizeof(period) ? parts[4].len : sizeof(period) - 1);
	profile->period = strtoll(period, NULL, 10);
	return NULL;
}

/* -------------------------------------------------------------------------------------- partitions */

/* The sums of a partition into those of the query. */
static struct err *take_plain(struct gathering *g, struct reading *r, bool only)
{
	CLEANUP(dict_map_deinit) struct dict_map map = {0};

	if (only) {
		dict_deinit(&g->dict);
		g->dict = r->dict;
		r->dict = (struct dict){0};
		free(g->sums);
		g->sums = TAKE_PTR(g->node_sums);
		g->sums_cap = g->dict.node_count;
		return NULL;
	}
	TRY(dict_map_init(&map, &r->dict, &g->dict));
	for (uint32_t i = 0; i < r->dict.node_count; i++) {
		uint32_t node;
		if (!g->node_sums[i])
			continue;
		TRY(dict_map_node(&map, i, &node));
		TRY(sums_reserve(g));
		g->sums[node] = add_saturating(g->sums[node], g->node_sums[i]);
	}
	return NULL;
}

static int cell_compare(const void *a, const void *b)
{
	const struct cell *x = a, *y = b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	return (x->node > y->node) - (x->node < y->node);
}

static struct err *take_grouped(struct gathering *g, struct reading *r)
{
	CLEANUP(dict_map_deinit) struct dict_map map = {0};
	uint32_t group = UINT32_MAX;

	TRY(dict_map_init(&map, &r->dict, &g->dict));
	if (g->cell_count > 0)
		qsort(g->cells, g->cell_count, sizeof(*g->cells), cell_compare);
	for (size_t i = 0; i < g->cell_count; i++) {
		uint32_t node;
		if (g->cells[i].group != group) {
			group = g->cells[i].group;
			memset(map.nodes, 0xff, r->dict.node_count * sizeof(*map.nodes));
			map.nodes[0] = g->groups[group].root;
		}
		TRY(dict_map_node(&map, g->cells[i].node, &node));
		TRY(sums_reserve(g));
		g->sums[node] = add_saturating(g->sums[node], g->cells[i].value);
	}
	return NULL;
}

static struct err *gather_partition(struct gathering *g, struct samples *samples, const struct partition_id *id, bool only)
{
	CLEANUP(reading_end) struct reading r = {0};
	bool found, grouped = g->query->group_count > 0;

	TRY(reading_begin(samples, id, g->query, g->group_by_cpu, &r, &found));
	if (!found)
		return NULL;
	g->stat.partitions++;
	if (!grouped && !(g->node_sums = calloc(r.dict.node_count, sizeof(*g->node_sums))))
		return err_nomem();
	TRY(reading_rows(&r, BLOCK_SAMPLES, grouped ? add_grouped : add_plain, g, &g->stat));
	TRY(note_types(g, &r));
	/* Only the dictionary and the sums are used from here on. */
	store_read_end(TAKE_PTR(r.read));
	return grouped ? take_grouped(g, &r) : take_plain(g, &r, only);
}

static struct err *check_query(const struct samples_query *query, bool *cpu_ret)
{
	*cpu_ret = false;
	for (size_t i = 0; i < query->group_count; i++) {
		struct samples_text key = samples_label_key(query->group_by[i]);
		if (text_equal(key, text_of(SAMPLES_LABEL_TRACE_ID)) || text_equal(key, text_of(SAMPLES_LABEL_SPAN_ID)))
			return err_new(ERR_INVALID, "cannot group by %.*s", (int)key.len, key.bytes);
		*cpu_ret |= text_equal(key, text_of(SAMPLES_LABEL_CPU));
	}
	return NULL;
}

static struct err *gather(struct gathering *g, struct samples *samples)
{
	CLEANUP(partition_ids_deinit) struct partition_ids ids = {0};

	TRY(partition_ids_find(samples, g->query, &ids));
	for (size_t i = 0; i < ids.count; i++) {
		TRY(gather_partition(g, samples, &ids.items[i], ids.count == 1));
		partition_data_free(g);
	}
	return sums_reserve(g);
}

struct err *samples_query(struct samples *samples, const struct samples_query *query, const struct samples_resolver *resolver,
	struct profile *ret, struct samples_query_stat *stat)
{
	CLEANUP(gathering_deinit) struct gathering g = {.query = query};
	CLEANUP(profile_deinitp) struct profile profile = {0};
	uint64_t start = monotonic_ns();

	TRY(check_query(query, &g.group_by_cpu));
	TRY(dict_init(&g.dict));
	TRY(gather(&g, samples));
	TRY(one_type(&g));
	TRY(profile_init(&profile));
	profile.from_unix_nano = query->from_unix_nano;
	profile.to_unix_nano = query->to_unix_nano;
	TRY(set_type(&g, &profile));
	g.stat.read_ns = monotonic_ns() - start;
	TRY(expand(&g.dict, g.sums, query->tenant, resolver, &profile, &g.stat));
	g.stat.samples = profile.total;
	*ret = profile;
	profile = (struct profile){0};
	if (stat)
		*stat = g.stat;
	return NULL;
}

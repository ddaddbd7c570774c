// SPDX-License-Identifier: Apache-2.0
/*
 * Reading partitions. The dictionary of a partition is decoded whole (its nodes are what a flame graph is made of); types and label
 * sets are judged once each; then the blocks give groups of equal (type, labels, trace) where they lie in the range and nothing asks
 * for more, which costs a fraction of the rows.
 */
#include "profiles/read.h"

/* -------------------------------------------------------------------------------------- which partitions */

void partition_ids_deinit(struct partition_ids *ids)
{
	free(ids->items);
	*ids = (struct partition_ids){0};
}

static struct err *ids_add(struct partition_ids *ids, const struct partition_id *id)
{
	if (ids->count == ids->cap) {
		size_t cap = ids->cap ? 2 * ids->cap : 64;
		struct partition_id *items = realloc(ids->items, cap * sizeof(*items));
		if (!items)
			return err_nomem();
		ids->items = items;
		ids->cap = cap;
	}
	ids->items[ids->count++] = *id;
	return NULL;
}

/* The query's range in seconds since 1970: [from, to). */
static void range_of(const struct samples_query *query, uint64_t *from_ret, uint64_t *to_ret)
{
	*from_ret = query->from_unix_nano / 1000000000;
	*to_ret = query->to_unix_nano ? query->to_unix_nano / 1000000000 : UINT64_MAX;
}

struct err *partition_ids_find(struct samples *samples, const struct samples_query *query, struct partition_ids *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
	struct store_view key, value;
	uint8_t first[PARTITION_KEY_BYTES];
	uint64_t from, to;

	range_of(query, &from, &to);
	uint64_t low = from > PARTITION_SECONDS_MAX ? from - PARTITION_SECONDS_MAX : 0;
	partition_key(&(struct partition_id){.start = low > UINT32_MAX ? UINT32_MAX : (uint32_t)low}, first);
	TRY(store_read_begin(samples->store, &read));
	TRY(store_profiles_scan(store_profiles_read(read), STORE_PARTITIONS, NULL, 0, first, sizeof(first), &scan));
	for (;;) {
		struct partition_id id;
		struct partition_record record;
		TRY(store_profiles_next(scan, &key, &value));
		if (!key.bytes)
			return NULL;
		if (!partition_key_parse(&key, &id))
			return store_profiles_corrupt(STORE_PARTITIONS, key.bytes, key.len, "malformed key");
		if (id.start >= to)
			return NULL;
		if (id.tenant != query->tenant)
			continue;
		TRY(partition_record_decode(&key, &value, &record));
		if (record.state != PARTITION_DROPPING && (uint64_t)id.start + record.seconds > from)
			TRY(ids_add(ret, &id));
	}
}

/* -------------------------------------------------------------------------------------- types and labels */

bool text_equal(struct samples_text a, struct samples_text b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.bytes, b.bytes, a.len) == 0);
}

struct err *type_text(const struct dict *dict, uint32_t number, struct buf *ret)
{
	struct dict_type type;

	dict_get_type(dict, number, &type);
	struct samples_text t = dict_text(dict, type.type), u = dict_text(dict, type.unit), pt = dict_text(dict, type.period_type),
			    pu = dict_text(dict, type.period_unit);
	TRY(buf_printf(ret, "%.*s:%.*s", (int)t.len, t.bytes, (int)u.len, u.bytes));
	if (pt.len || pu.len || type.period)
		TRY(buf_printf(ret, ":%.*s:%.*s:%lld", (int)pt.len, pt.bytes, (int)pu.len, pu.bytes, (long long)type.period));
	return NULL;
}

/* "samples" and "samples:count" begin "samples:count:cpu:.."; "cpu" is its period type. */
static struct err *type_wanted(const struct dict *dict, uint32_t number, struct samples_text wanted, uint8_t *ret)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	struct dict_type type;

	*ret = 1;
	if (wanted.len == 0)
		return NULL;
	dict_get_type(dict, number, &type);
	if (text_equal(dict_text(dict, type.period_type), wanted))
		return NULL;
	TRY(type_text(dict, number, &text));
	bool begins = wanted.len <= text.len && memcmp(text.data, wanted.bytes, wanted.len) == 0;
	*ret = begins && (wanted.len == text.len || text.data[wanted.len] == ':');
	return NULL;
}

bool labels_value(const struct dict *dict, uint32_t labels, struct samples_text key, struct samples_text *ret)
{
	while (labels != SAMPLES_NONE) {
		struct dict_labels set;
		dict_get_labels(dict, labels, &set);
		for (uint32_t i = 0; i < set.count; i++)
			if (text_equal(dict_text(dict, set.items[i].key), key)) {
				*ret = dict_text(dict, set.items[i].value);
				return true;
			}
		labels = set.parent;
	}
	*ret = (struct samples_text){"", 0};
	return false;
}

static bool hex_equal(const uint8_t *bytes, size_t len, struct samples_text text)
{
	static const char digits[] = "0123456789abcdef";

	if (text.len != 2 * len)
		return false;
	/* 0x20 makes letters lower and leaves digits alone. */
	for (size_t i = 0; i < len; i++)
		if (digits[bytes[i] >> 4] != (text.bytes[2 * i] | 0x20) || digits[bytes[i] & 15] != (text.bytes[2 * i + 1] | 0x20))
			return false;
	return true;
}

/* Which links a filter on trace or span lets through. */
static struct err *filter_links(struct reading *r, const struct samples_label *filter, bool is_trace)
{
	uint32_t count = r->dict.tables[DICT_LINKS].count;

	if (!r->links) {
		r->links = malloc(count);
		if (!r->links)
			return err_nomem();
		memset(r->links, 1, count);
		r->links[0] = 0;
	}
	for (uint32_t i = 1; i < count; i++) {
		struct dict_link link;
		dict_get_link(&r->dict, i, &link);
		r->links[i] &= is_trace ? hex_equal(link.trace_id, 16, filter->value) : hex_equal(link.span_id, 8, filter->value);
	}
	r->rows_needed = true;
	return NULL;
}

static struct err *filter_cpu(struct reading *r, const struct samples_label *filter)
{
	char text[16] = {0}, *end;

	if (filter->value.len == 0 || filter->value.len >= sizeof(text))
		return err_new(ERR_INVALID, "no CPU number: %.*s", (int)filter->value.len, filter->value.bytes);
	memcpy(text, filter->value.bytes, filter->value.len);
	unsigned long cpu = strtoul(text, &end, 10);
	if (*end || text[0] < '0' || text[0] > '9' || cpu > SAMPLES_CPU_MAX)
		return err_new(ERR_INVALID, "no CPU number: %s", text);
	r->cpu = r->cpu == -2 || r->cpu == (int32_t)cpu ? (int32_t)cpu : -3;
	r->rows_needed = true;
	return NULL;
}

static struct err *apply_filter(struct reading *r, const struct samples_label *filter)
{
	struct samples_text key = samples_label_key(filter->key), value;

	if (text_equal(key, text_of(SAMPLES_LABEL_CPU)))
		return filter_cpu(r, filter);
	if (text_equal(key, text_of(SAMPLES_LABEL_TRACE_ID)) || text_equal(key, text_of(SAMPLES_LABEL_SPAN_ID)))
		return filter_links(r, filter, text_equal(key, text_of(SAMPLES_LABEL_TRACE_ID)));
	for (uint32_t i = 0; i < r->dict.tables[DICT_LABELS].count; i++) {
		if (!r->labels[i])
			continue;
		(void)labels_value(&r->dict, i, key, &value);
		r->labels[i] = text_equal(value, filter->value);
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- one partition */

void reading_end(struct reading *reading)
{
	dict_deinit(&reading->dict);
	store_read_end(TAKE_PTR(reading->read));
	free(reading->types);
	free(reading->labels);
	free(reading->links);
	*reading = (struct reading){0};
}

/* What is malformed in stored bytes is damage. Consumes e. */
static struct err *damage(struct err *e, const struct store_view *key)
{
	if (!e || err_code(e) != ERR_FORMAT)
		return e;
	struct err *corrupt = store_profiles_corrupt(STORE_BLOCKS, key->bytes, key->len, err_message(e));

	err_free(e);
	return corrupt;
}

static struct err *scan_blocks(const struct reading *r, enum block_kind kind, struct store_scan **ret)
{
	uint8_t prefix[BLOCK_KEY_BYTES];

	block_key(&r->id, kind, 0, prefix);
	return store_profiles_scan(store_profiles_read(r->read), STORE_BLOCKS, prefix, PARTITION_KEY_BYTES + 1, NULL, 0, ret);
}

static struct err *decode_dict_block(struct reading *r, const struct store_view *value)
{
	struct block block;

	TRY(block_open(value->bytes, value->len, &block));
	if (block.kind != BLOCK_DICT)
		return err_new(ERR_FORMAT, "a block of another kind");
	return dict_decode(&r->dict, block.payload.pos, reader_left(&block.payload));
}

static struct err *read_dict(struct reading *r)
{
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
	struct store_view key, value;

	TRY(dict_init(&r->dict));
	TRY(scan_blocks(r, BLOCK_DICT, &scan));
	for (;;) {
		TRY(store_profiles_next(scan, &key, &value));
		if (!key.bytes)
			return NULL;
		TRY(damage(decode_dict_block(r, &value), &key));
	}
}

static struct err *judge(struct reading *r, const struct samples_query *query)
{
	uint32_t types = r->dict.tables[DICT_TYPES].count, labels = r->dict.tables[DICT_LABELS].count;

	r->types = calloc(types + 1, 1);
	r->labels = malloc(labels + 1);
	if (!r->types || !r->labels)
		return err_nomem();
	memset(r->labels, 1, labels + 1);
	for (uint32_t i = 0; i < types; i++)
		TRY(type_wanted(&r->dict, i, query->type, &r->types[i]));
	for (size_t i = 0; i < query->filter_count; i++)
		TRY(apply_filter(r, &query->filters[i]));
	return NULL;
}

static struct err *begin(struct reading *r, struct samples *samples, const struct samples_query *query, bool *found_ret)
{
	struct partition_record record;
	struct store_view value;
	uint8_t key[PARTITION_KEY_BYTES];
	uint64_t from, to;

	TRY(store_read_begin(samples->store, &r->read));
	partition_key(&r->id, key);
	TRY(store_profiles_get(store_profiles_read(r->read), STORE_PARTITIONS, key, sizeof(key), &value));
	*found_ret = value.bytes;
	if (!value.bytes)
		return NULL;
	TRY(partition_record_decode(&(struct store_view){.bytes = key, .len = sizeof(key)}, &value, &record));
	*found_ret = record.state != PARTITION_DROPPING;
	range_of(query, &from, &to);
	r->first_second = from > r->id.start ? (uint32_t)(from - r->id.start) : 0;
	r->last_second = to <= r->id.start ? 0 : to - r->id.start > record.seconds ? record.seconds - 1 : (uint32_t)(to - r->id.start - 1);
	if (to <= r->id.start || from >= to)
		*found_ret = false;
	TRY(read_dict(r));
	return judge(r, query);
}

struct err *reading_begin(struct samples *samples, const struct partition_id *id, const struct samples_query *query, bool rows_needed,
	struct reading *ret, bool *found_ret)
{
	*ret = (struct reading){.id = *id, .cpu = -2, .rows_needed = rows_needed};
	struct err *e = begin(ret, samples, query, found_ret);
	if (e)
		reading_end(ret);
	return e;
}

/* Whether the numbers of a row are of this dictionary, and the query wants it. ERR_FORMAT, *ret. */
static struct err *hi_wanted(struct reading *r, uint64_t hi, bool *ret)
{
	uint32_t type = hi_type(hi), labels = hi_labels(hi), trace = hi_trace(hi);

	if (type >= r->dict.tables[DICT_TYPES].count || labels >= r->dict.tables[DICT_LABELS].count || trace >= r->dict.node_count)
		return err_new(ERR_FORMAT, "type %u, labels %u, trace %u are not in the dictionary", type, labels, trace);
	*ret = r->types[type] && r->labels[labels];
	if (*ret)
		r->types[type] = 2;
	return NULL;
}

static struct err *each_group(struct reading *r, const struct block *block, reading_fn *fn, void *context, struct samples_query_stat *stat)
{
	CLEANUP(freep) struct group *groups = NULL;
	size_t count;

	TRY(block_groups(block, &groups, &count));
	stat->rows += count;
	for (size_t i = 0; i < count; i++) {
		bool wanted;
		TRY(hi_wanted(r, groups[i].hi, &wanted));
		if (!wanted)
			continue;
		struct row row = {.hi = groups[i].hi, .value = groups[i].value};
		TRY(fn(context, r, &row));
	}
	return NULL;
}

static bool lo_wanted(const struct reading *r, uint64_t lo)
{
	uint32_t second = lo_second(lo), link = lo_link(lo);

	if (second < r->first_second || second > r->last_second || (r->cpu != -2 && lo_cpu(lo) != r->cpu))
		return false;
	return !r->links || (link < r->dict.tables[DICT_LINKS].count && r->links[link]);
}

static struct err *each_row(struct reading *r, const struct block *block, reading_fn *fn, void *context, struct samples_query_stat *stat)
{
	CLEANUP(rows_deinit) struct rows rows = {0};

	TRY(block_rows(block, &rows));
	stat->rows += rows.count;
	for (size_t i = 0; i < rows.count; i++) {
		bool wanted;
		if (lo_link(rows.items[i].lo) >= r->dict.tables[DICT_LINKS].count)
			return err_new(ERR_FORMAT, "link %u is not in the dictionary", lo_link(rows.items[i].lo));
		if (!lo_wanted(r, rows.items[i].lo))
			continue;
		TRY(hi_wanted(r, rows.items[i].hi, &wanted));
		if (wanted)
			TRY(fn(context, r, &rows.items[i]));
	}
	return NULL;
}

static struct err *each_of_block(struct reading *r, enum block_kind kind, const struct store_view *value, reading_fn *fn, void *context,
	struct samples_query_stat *stat)
{
	struct block block;

	TRY(block_open(value->bytes, value->len, &block));
	if (block.kind != kind)
		return err_new(ERR_FORMAT, "a block of another kind");
	if (block.first_second > r->last_second || block.last_second < r->first_second)
		return NULL;
	stat->blocks++;
	bool whole = block.first_second >= r->first_second && block.last_second <= r->last_second;
	return whole && !r->rows_needed ? each_group(r, &block, fn, context, stat) : each_row(r, &block, fn, context, stat);
}

struct err *reading_rows(struct reading *r, enum block_kind kind, reading_fn *fn, void *context, struct samples_query_stat *stat)
{
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
	struct store_view key, value;

	TRY(scan_blocks(r, kind, &scan));
	for (;;) {
		TRY(store_profiles_next(scan, &key, &value));
		if (!key.bytes)
			return NULL;
		TRY(damage(each_of_block(r, kind, &value, fn, context, stat), &key));
	}
}

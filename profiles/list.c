// SPDX-License-Identifier: Apache-2.0
/* Listings: types, label keys, label values, and the exact times of samples. */
#include "profiles/read.h"

#include <stdio.h>

/* Texts with a number each. */
struct tally {
	struct dict dict; /* its texts */
	uint64_t *values; /* of text i */
	size_t cap;
};

static void tally_deinit(struct tally *t)
{
	dict_deinit(&t->dict);
	free(t->values);
}

static struct err *tally_add(struct tally *t, struct samples_text text, uint64_t more, bool *is_new_ret)
{
	uint32_t before = t->dict.tables[DICT_TEXTS].count, number;

	TRY(dict_add(&t->dict, DICT_TEXTS, text.len ? text.bytes : "", text.len, &number));
	*is_new_ret = number == before;
	if (number >= t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 64;
		while (cap <= number)
			cap *= 2;
		uint64_t *values = realloc(t->values, cap * sizeof(*values));
		if (!values)
			return err_nomem();
		memset(values + t->cap, 0, (cap - t->cap) * sizeof(*values));
		t->values = values;
		t->cap = cap;
	}
	t->values[number] = add_saturating(t->values[number], more);
	return NULL;
}

struct listed {
	const char *text;
	uint64_t value;
};

static int listed_compare(const void *a, const void *b)
{
	return strcmp(((const struct listed *)a)->text, ((const struct listed *)b)->text);
}

/* Tells of all texts with a value, sorted. */
static struct err *tell(const struct tally *t, const struct samples_visitor *visitor)
{
	const struct records *texts = &t->dict.tables[DICT_TEXTS];
	CLEANUP(buf_deinit) struct buf bytes = {0};
	CLEANUP(freep) struct listed *listed = calloc(texts->count, sizeof(*listed));
	size_t count = 0;

	if (!listed)
		return err_nomem();
	/* All of it at once: the texts in it must not move. */
	TRY(buf_reserve(&bytes, texts->bytes.len + texts->count));
	for (uint32_t i = 0; i < texts->count && i < t->cap; i++) {
		struct samples_text text = dict_text(&t->dict, i);
		if (!t->values[i])
			continue;
		listed[count++] = (struct listed){(const char *)bytes.data + bytes.len, t->values[i]};
		if (text.len > 0)
			TRY(buf_append(&bytes, text.bytes, text.len));
		TRY(buf_append(&bytes, "", 1));
	}
	qsort(listed, count, sizeof(*listed), listed_compare);
	for (size_t i = 0; i < count; i++)
		TRY(visitor->item(visitor->context, listed[i].text, listed[i].value));
	return NULL;
}

/* -------------------------------------------------------------------------------------- walking partitions */

struct walk {
	const struct samples_query *query;
	struct tally tally, pairs, types;
	struct samples_text key;
	bool rows_needed;
	uint64_t *sums; /* of each type, or each label set, of the partition at hand */
	struct err *(*partition)(struct walk *walk, struct samples *samples, struct reading *r);
};

static void walk_deinit(struct walk *w)
{
	tally_deinit(&w->tally);
	tally_deinit(&w->pairs);
	tally_deinit(&w->types);
	free(w->sums);
}

static struct err *walk_partitions(struct samples *samples, struct walk *w)
{
	CLEANUP(partition_ids_deinit) struct partition_ids ids = {0};

	TRY(dict_init(&w->tally.dict));
	TRY(dict_init(&w->pairs.dict));
	TRY(dict_init(&w->types.dict));
	TRY(partition_ids_find(samples, w->query, &ids));
	for (size_t i = 0; i < ids.count; i++) {
		CLEANUP(reading_end) struct reading r = {0};
		bool found;
		TRY(reading_begin(samples, &ids.items[i], w->query, w->rows_needed, &r, &found));
		if (found)
			TRY(w->partition(w, samples, &r));
		free(TAKE_PTR(w->sums));
	}
	return NULL;
}

static struct err *sum_of_type(void *context, const struct reading *r, const struct row *row)
{
	struct walk *w = context;
	uint64_t *sum = &w->sums[hi_type(row->hi)];

	(void)r;
	*sum = add_saturating(*sum, row->value);
	return NULL;
}

static struct err *sum_of_labels(void *context, const struct reading *r, const struct row *row)
{
	struct walk *w = context;
	uint64_t *sum = &w->sums[hi_labels(row->hi)];

	(void)r;
	*sum = add_saturating(*sum, row->value);
	return NULL;
}

static struct err *sum_of_cpu(void *context, const struct reading *r, const struct row *row)
{
	struct walk *w = context;
	uint64_t *sum = &w->sums[lo_cpu(row->lo) + 1];

	(void)r;
	*sum = add_saturating(*sum, row->value);
	return NULL;
}

static struct err *sum_rows(struct walk *w, struct reading *r, size_t count, reading_fn *fn)
{
	struct samples_query_stat stat = {0};

	w->sums = calloc(count + 1, sizeof(*w->sums));
	return w->sums ? reading_rows(r, BLOCK_SAMPLES, fn, w, &stat) : err_nomem();
}

/* -------------------------------------------------------------------------------------- types */

static struct err *types_of(struct walk *w, struct samples *samples, struct reading *r)
{
	uint32_t count = r->dict.tables[DICT_TYPES].count;
	bool is_new;

	(void)samples;
	TRY(sum_rows(w, r, count, sum_of_type));
	for (uint32_t i = 0; i < count; i++) {
		CLEANUP(buf_deinit) struct buf text = {0};
		if (!w->sums[i])
			continue;
		TRY(type_text(&r->dict, i, &text));
		TRY(tally_add(&w->tally, (struct samples_text){(const char *)text.data, text.len}, w->sums[i], &is_new));
	}
	return NULL;
}

struct err *samples_types(struct samples *samples, const struct samples_query *query, const struct samples_visitor *visitor)
{
	CLEANUP(walk_deinit) struct walk w = {.query = query, .partition = types_of};

	TRY(walk_partitions(samples, &w));
	return tell(&w.tally, visitor);
}

/* -------------------------------------------------------------------------------------- keys */

/* Counts a key once for each of its values. */
static struct err *count_pair(struct walk *w, struct samples_text key, struct samples_text value)
{
	CLEANUP(buf_deinit) struct buf pair = {0};
	bool is_new, ignored;

	TRY(buf_printf(&pair, "%zu:", key.len));
	if (key.len)
		TRY(buf_append(&pair, key.bytes, key.len));
	if (value.len)
		TRY(buf_append(&pair, value.bytes, value.len));
	TRY(tally_add(&w->pairs, (struct samples_text){(const char *)pair.data, pair.len}, 1, &is_new));
	return is_new ? tally_add(&w->tally, key, 1, &ignored) : NULL;
}

static struct err *keys_of(struct walk *w, struct samples *samples, struct reading *r)
{
	uint32_t count = r->dict.tables[DICT_LABELS].count;

	(void)samples;
	TRY(sum_rows(w, r, count, sum_of_labels));
	for (uint32_t i = 0; i < count; i++) {
		struct dict_labels set = {.parent = i};
		if (!w->sums[i])
			continue;
		while (set.parent != SAMPLES_NONE) {
			dict_get_labels(&r->dict, set.parent, &set);
			for (uint32_t k = 0; k < set.count; k++)
				TRY(count_pair(w, dict_text(&r->dict, set.items[k].key), dict_text(&r->dict, set.items[k].value)));
		}
	}
	return NULL;
}

struct err *samples_label_keys(struct samples *samples, const struct samples_query *query, const struct samples_visitor *visitor)
{
	CLEANUP(walk_deinit) struct walk w = {.query = query, .partition = keys_of};

	TRY(walk_partitions(samples, &w));
	return tell(&w.tally, visitor);
}

/* -------------------------------------------------------------------------------------- values */

/* The values of different types mean nothing together. */
static struct err *check_types(struct walk *w, const struct reading *r)
{
	bool is_new;

	for (uint32_t i = 0; i < r->dict.tables[DICT_TYPES].count; i++) {
		CLEANUP(buf_deinit) struct buf text = {0};
		if (r->types[i] != 2)
			continue;
		TRY(type_text(&r->dict, i, &text));
		TRY(tally_add(&w->types, (struct samples_text){(const char *)text.data, text.len}, 1, &is_new));
	}
	if (w->types.dict.tables[DICT_TEXTS].count > 2)
		return err_new(ERR_INVALID, "several types of samples, which cannot be added together; name one of them");
	return NULL;
}

static struct err *values_of(struct walk *w, struct samples *samples, struct reading *r)
{
	bool is_cpu = w->rows_needed, is_new;
	uint32_t count = is_cpu ? SAMPLES_CPU_MAX + 2 : r->dict.tables[DICT_LABELS].count;

	(void)samples;
	TRY(sum_rows(w, r, count, is_cpu ? sum_of_cpu : sum_of_labels));
	TRY(check_types(w, r));
	for (uint32_t i = 0; i < count; i++) {
		struct samples_text value;
		char cpu[16];
		if (!w->sums[i])
			continue;
		if (is_cpu) {
			(void)snprintf(cpu, sizeof(cpu), "%d", (int)i - 1);
			value = text_of(i ? cpu : "");
		} else {
			(void)labels_value(&r->dict, i, w->key, &value);
		}
		TRY(tally_add(&w->tally, value, w->sums[i], &is_new));
	}
	return NULL;
}

struct err *samples_label_values(struct samples *samples, const struct samples_query *query, struct samples_text key,
	const struct samples_visitor *visitor)
{
	CLEANUP(walk_deinit) struct walk w = {.query = query, .partition = values_of, .key = samples_label_key(key)};

	if (text_equal(w.key, text_of(SAMPLES_LABEL_TRACE_ID)) || text_equal(w.key, text_of(SAMPLES_LABEL_SPAN_ID)))
		return err_new(ERR_INVALID, "no list of %.*s", (int)w.key.len, w.key.bytes);
	w.rows_needed = text_equal(w.key, text_of(SAMPLES_LABEL_CPU));
	TRY(walk_partitions(samples, &w));
	return tell(&w.tally, visitor);
}

/* -------------------------------------------------------------------------------------- exact times */

struct times {
	const struct samples_query *query;
	struct err *(*event)(void *context, const struct samples_event *event);
	void *context;
	struct buf type;
};

static struct err *tell_time(void *context, const struct reading *r, const struct row *row)
{
	struct times *t = context;
	struct samples_event event = {
		.time_unix_nano = ((uint64_t)r->id.start + lo_second(row->lo)) * 1000000000 + row->ns,
		.value = row->value,
		.cpu = lo_cpu(row->lo),
		.has_link = lo_link(row->lo) != 0,
	};

	if (event.time_unix_nano < t->query->from_unix_nano || (t->query->to_unix_nano && event.time_unix_nano >= t->query->to_unix_nano))
		return NULL;
	if (event.has_link) {
		struct dict_link link;
		dict_get_link(&r->dict, lo_link(row->lo), &link);
		memcpy(event.trace_id, link.trace_id, sizeof(event.trace_id));
		memcpy(event.span_id, link.span_id, sizeof(event.span_id));
	}
	t->type.len = 0;
	TRY(type_text(&r->dict, hi_type(row->hi), &t->type));
	TRY(buf_append(&t->type, "", 1));
	event.type = (const char *)t->type.data;
	return t->event(t->context, &event);
}

static struct err *walk_times(struct samples *samples, const struct samples_query *seconds, struct times *t)
{
	CLEANUP(partition_ids_deinit) struct partition_ids ids = {0};
	struct samples_query_stat stat = {0};

	TRY(partition_ids_find(samples, seconds, &ids));
	for (size_t i = 0; i < ids.count; i++) {
		CLEANUP(reading_end) struct reading r = {0};
		bool found;
		TRY(reading_begin(samples, &ids.items[i], seconds, true, &r, &found));
		if (found)
			TRY(reading_rows(&r, BLOCK_TIMES, tell_time, t, &stat));
	}
	return NULL;
}

struct err *samples_events(struct samples *samples, const struct samples_query *query,
	struct err *(*event)(void *context, const struct samples_event *event), void *context)
{
	struct times t = {.query = query, .event = event, .context = context};
	struct samples_query seconds = *query;

	/* The second in which the range ends is looked at whole. */
	if (seconds.to_unix_nano && seconds.to_unix_nano <= UINT64_MAX - 1000000000)
		seconds.to_unix_nano += 999999999;
	struct err *e = walk_times(samples, &seconds, &t);
	buf_deinit(&t.type);
	return e;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Batches: what a decoder brings, held by numbers of the batch's own, so that handing it in copies nothing and the writer thread only
 * translates numbers (batch_map.c). Mappings, locations and traces are in batch_frames.c.
 */
#include "profiles/samples_internal.h"

#include "base/digest.h"

enum { CHECK_EVERY = 1024, PROFILES_MAX = 1 << 22 };

struct err *samples_batch_create(struct samples *samples, uint32_t tenant, struct samples_batch **ret)
{
	CLEANUP(samples_batch_destroyp) struct samples_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return err_nomem();
	batch->samples = samples;
	batch->tenant = tenant;
	batch->now_ms = samples_now_ms(samples);
	TRY(dict_init(&batch->dict));
	batch->text_digests = calloc(1, sizeof(*batch->text_digests)); /* of text 0, "" */
	if (!batch->text_digests)
		return err_nomem();
	batch->text_digests_cap = batch->text_digest_count = 1;
	*ret = TAKE_PTR(batch);
	return NULL;
}

void samples_batch_destroy(struct samples_batch *batch)
{
	if (!batch)
		return;
	dict_deinit(&batch->dict);
	batch_frames_deinit(&batch->frames);
	free(batch->labels_sizes);
	free(batch->labels_digests);
	free(batch->text_digests);
	free(batch->items);
	free(batch->profiles);
	free(batch);
}

void samples_batch_destroyp(struct samples_batch **batch)
{
	samples_batch_destroy(*batch);
}

size_t samples_batch_bytes(const struct samples_batch *batch)
{
	return sizeof(*batch) + dict_bytes(&batch->dict) + batch_frames_bytes(&batch->frames) + batch->cap * sizeof(*batch->items) +
		batch->labels_cap * sizeof(*batch->labels_sizes) +
		(batch->labels_digests_cap + batch->text_digests_cap) * sizeof(struct batch_digest) + batch->profile_cap * sizeof(*batch->profiles);
}

struct err *batch_check_bytes(const struct samples_batch *batch)
{
	size_t bytes = samples_batch_bytes(batch);

	return bytes <= SAMPLES_BATCH_BYTES_MAX ? NULL :
						  err_new(ERR_LIMIT, "a batch of %zu bytes, %d at most", bytes, SAMPLES_BATCH_BYTES_MAX);
}

struct err *batch_grow_more(void **items, size_t count, size_t *cap, size_t size)
{
	size_t bigger = *cap ? 2 * *cap : 64;

	while (bigger <= count)
		bigger *= 2;
	void *moved = realloc(*items, bigger * size);

	if (!moved)
		return err_nomem();
	*items = moved;
	*cap = bigger;
	return NULL;
}

struct err *samples_batch_profile(struct samples_batch *batch, const uint8_t key[16])
{
	if (batch->profile_count >= PROFILES_MAX)
		return err_new(ERR_LIMIT, "a batch of more than %d profiles", PROFILES_MAX);
	TRY(batch_grow((void **)&batch->profiles, batch->profile_count, &batch->profile_cap, sizeof(*batch->profiles)));
	struct batch_profile *profile = &batch->profiles[batch->profile_count++];

	*profile = (struct batch_profile){.has_key = key, .first_sample = batch->count};
	if (key)
		memcpy(profile->key, key, sizeof(profile->key));
	return NULL;
}

struct err *samples_batch_sequence(struct samples_batch *batch, const uint8_t instance[SAMPLES_INSTANCE_BYTES], uint64_t sequence)
{
	TRY(samples_batch_profile(batch, instance));
	batch->profiles[batch->profile_count - 1].sequence = sequence;
	return NULL;
}

void samples_batch_drop_profile(struct samples_batch *batch)
{
	if (batch->profile_count == 0)
		return;
	batch->count = batch->profiles[--batch->profile_count].first_sample;
}

/* -------------------------------------------------------------------------------------- texts, types, labels */

/* Cuts at SAMPLES_TEXT_MAX without splitting a UTF-8 sequence. */
static struct samples_text cut(struct samples_text text)
{
	if (text.len <= SAMPLES_TEXT_MAX)
		return text;
	text.len = SAMPLES_TEXT_MAX;
	while (text.len > 0 && ((uint8_t)text.bytes[text.len] & 0xc0) == 0x80)
		text.len--;
	return text;
}

struct err *batch_add_text(struct samples_batch *batch, struct samples_text text, uint32_t *ret)
{
	text = cut(text);
	if (text.len == 0) {
		*ret = 0;
		return NULL;
	}
	TRY(dict_add(&batch->dict, DICT_TEXTS, text.bytes, text.len, ret));
	if (*ret < batch->text_digest_count)
		return NULL;
	TRY(batch_grow((void **)&batch->text_digests, *ret, &batch->text_digests_cap, sizeof(*batch->text_digests)));
	digest_xxh3_128(text.bytes, text.len, batch->text_digests[*ret].bytes);
	batch->text_digest_count = *ret + 1;
	return NULL;
}

/* Over its parent's and those of its labels, in whatever order they came. */
static struct err *digest_labels(struct samples_batch *batch, const struct dict_labels *set, uint32_t number)
{
	static const struct batch_digest none;
	struct {
		struct batch_digest parent;
		uint64_t sum[2];
	} all = {.parent = set->parent == SAMPLES_NONE ? none : batch->labels_digests[set->parent]};

	TRY(batch_grow((void **)&batch->labels_digests, number, &batch->labels_digests_cap, sizeof(*batch->labels_digests)));
	for (uint32_t i = 0; i < set->count; i++) {
		struct batch_digest pair[2] = {batch->text_digests[set->items[i].key], batch->text_digests[set->items[i].value]};
		uint8_t digest[16];
		uint64_t halves[2];
		digest_xxh3_128(pair, sizeof(pair), digest);
		memcpy(halves, digest, sizeof(halves));
		all.sum[0] += halves[0];
		all.sum[1] += halves[1];
	}
	digest_xxh3_128(&all, sizeof(all), batch->labels_digests[number].bytes);
	return NULL;
}

struct err *samples_batch_type(struct samples_batch *batch, const struct samples_type *type, uint32_t *ret)
{
	struct dict_type record = {.period = type->period};

	TRY(batch_add_text(batch, type->type, &record.type));
	TRY(batch_add_text(batch, type->unit, &record.unit));
	TRY(batch_add_text(batch, type->period_type, &record.period_type));
	TRY(batch_add_text(batch, type->period_unit, &record.period_unit));
	TRY(dict_add_type(&batch->dict, &record, ret));
	if (batch->dict.tables[DICT_TYPES].count > BLOCK_TYPES_MAX - 1)
		return err_new(ERR_LIMIT, "a batch of more than %d types", BLOCK_TYPES_MAX - 1);
	return batch_check_bytes(batch);
}

static const struct {
	const char *shorter, *key;
} label_names[] = {
	{"service", SAMPLES_LABEL_SERVICE},
	{"host", SAMPLES_LABEL_HOST},
	{"container", SAMPLES_LABEL_CONTAINER},
	{"pid", SAMPLES_LABEL_PID},
	{"tid", SAMPLES_LABEL_TID},
	{"comm", SAMPLES_LABEL_COMM},
	{"executable", SAMPLES_LABEL_EXECUTABLE},
	{"cpu", SAMPLES_LABEL_CPU},
};

struct samples_text samples_label_key(struct samples_text key)
{
	for (size_t i = 0; i < ARRAY_SIZE(label_names); i++)
		if (key.len == strlen(label_names[i].shorter) && memcmp(key.bytes, label_names[i].shorter, key.len) == 0)
			return (struct samples_text){label_names[i].key, strlen(label_names[i].key)};
	return key;
}

/* Puts a label into a set sorted by the number of its key; the later value of a key wins. */
static void set_put(struct dict_labels *set, struct dict_label label)
{
	uint32_t at = 0;

	while (at < set->count && set->items[at].key < label.key)
		at++;
	if (at < set->count && set->items[at].key == label.key) {
		set->items[at] = label;
		return;
	}
	memmove(&set->items[at + 1], &set->items[at], (set->count - at) * sizeof(label));
	set->items[at] = label;
	set->count++;
}

struct err *samples_batch_labels(struct samples_batch *batch, uint32_t parent, const struct samples_label *labels, size_t count,
	uint32_t *ret)
{
	struct dict_labels set = {.parent = parent};
	uint32_t inherited = 0;

	if (parent != SAMPLES_NONE) {
		if (parent >= batch->dict.tables[DICT_LABELS].count)
			return err_new(ERR_INVALID, "label set %u of %u", parent, batch->dict.tables[DICT_LABELS].count);
		inherited = batch->labels_sizes[parent];
		if (count == 0) {
			*ret = parent;
			return NULL;
		}
	}
	if (count > SAMPLES_LABELS_MAX - inherited)
		return err_new(ERR_LIMIT, "%zu labels, %d at most", inherited + count, SAMPLES_LABELS_MAX);
	for (size_t i = 0; i < count; i++) {
		struct dict_label label;
		TRY(batch_add_text(batch, labels[i].key, &label.key));
		TRY(batch_add_text(batch, labels[i].value, &label.value));
		set_put(&set, label);
	}
	TRY(batch_grow((void **)&batch->labels_sizes, batch->dict.tables[DICT_LABELS].count, &batch->labels_cap, sizeof(*batch->labels_sizes)));
	TRY(dict_add_labels(&batch->dict, &set, ret));
	batch->labels_sizes[*ret] = inherited + set.count;
	TRY(digest_labels(batch, &set, *ret));
	return batch_check_bytes(batch);
}

/* -------------------------------------------------------------------------------------- samples */

/* The number of the hour that a second lies in; false when the batch touches too many. */
static bool hour_of(struct samples_batch *batch, uint32_t second, uint8_t *ret)
{
	uint32_t start = second - second % batch->samples->options.partition_s;

	for (uint32_t i = batch->partition_count; i-- > 0;)
		if (batch->partitions[i] == start) {
			*ret = (uint8_t)i;
			return true;
		}
	if (batch->partition_count == SAMPLES_BATCH_PARTITIONS_MAX)
		return false;
	*ret = (uint8_t)batch->partition_count;
	batch->partitions[batch->partition_count++] = start;
	return true;
}

static struct err *check_sample(const struct samples_batch *batch, const struct samples_sample *sample)
{
	const struct dict *dict = &batch->dict;

	if (batch->profile_count == 0)
		return err_new(ERR_INVALID, "a sample before its profile");
	if (sample->trace >= batch->frames.trace_count || sample->labels >= dict->tables[DICT_LABELS].count ||
		sample->type >= dict->tables[DICT_TYPES].count || sample->link >= dict->tables[DICT_LINKS].count)
		return err_new(ERR_INVALID, "trace %u of %u, labels %u of %u, type %u of %u, link %u of %u", sample->trace,
			batch->frames.trace_count, sample->labels, dict->tables[DICT_LABELS].count, sample->type,
			dict->tables[DICT_TYPES].count, sample->link, dict->tables[DICT_LINKS].count);
	if (sample->cpu < -1 || sample->cpu > SAMPLES_CPU_MAX)
		return err_new(ERR_INVALID, "CPU %d, %d at most", sample->cpu, SAMPLES_CPU_MAX);
	if (batch->count % CHECK_EVERY == 0)
		return batch_check_bytes(batch);
	return NULL;
}

struct err *samples_batch_add(struct samples_batch *batch, const struct samples_sample *sample)
{
	const struct samples_options *options = &batch->samples->options;
	uint64_t ms = sample->time_unix_nano / 1000000;
	uint8_t hour = 0;

	TRY(check_sample(batch, sample));
	struct batch_profile *profile = &batch->profiles[batch->profile_count - 1];
	if (ms > batch->now_ms + options->future_ms || ms / 1000 > UINT32_MAX) {
		profile->rejected_future++;
		return NULL;
	}
	if (ms + options->keep_ms < batch->now_ms || !hour_of(batch, (uint32_t)(ms / 1000), &hour)) {
		profile->rejected_old++;
		return NULL;
	}
	if (sample->value == 0)
		return NULL;
	TRY(batch_grow((void **)&batch->items, batch->count, &batch->cap, sizeof(*batch->items)));
	batch->items[batch->count++] = (struct batch_sample){.trace = sample->trace,
		.labels = sample->labels,
		.link = sample->link,
		.profile = batch->profile_count - 1,
		.second = (uint32_t)(ms / 1000),
		.ns = (uint32_t)(sample->time_unix_nano % 1000000000),
		.cpu = sample->cpu,
		.type = (uint8_t)sample->type,
		.partition = hour,
		.exact = sample->exact,
		.value = sample->value};
	return NULL;
}

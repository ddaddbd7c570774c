// SPDX-License-Identifier: Apache-2.0
/*
 * Profiles and samples into the batch.
 *
 * A profile's samples are walked twice. The first walk checks everything, takes stacks, labels and links
 * into the batch and makes the key by which a retry is known; the second adds what the first has staged. So a
 * profile with a fault adds nothing, and the key is there before the first sample.
 *
 * The key is the profile_id, else XXH3-128 over what the profile says, with every index replaced by
 * what it points to: resource and labels by their text, stacks by what their frames are. A dictionary
 * in another order gives the same key. Of profiles without any time (nor timestamps) equal ones of one
 * request are different profiles, and get different keys; a retry of the request gives the same ones again.
 *
 * What values and timestamps of a sample mean (v and t are how many there are):
 *     v = 0, t > 0        each timestamp counts 1
 *     v = t               value i at timestamp i
 *     v = 1, t > 1        unit "count" and value 1 or t: each timestamp counts 1 (agents of 1.7
 * to 1.9 write so); else the value is a sum, at the first timestamp v > 0, t = 0        their sum,
 * at the profile's time 1.7, n > 1 types    v = n: value i is of type i, at the first timestamp or
 * the profile's time v = t = 0           nothing is counted, and the answer says so else a fault,
 * as are negative values
 */
#include "base/digest.h"
#include "profiles/otlp_intake_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum { DIGEST_CHUNK = 64 << 10 };

enum shape { SHAPE_EMPTY, SHAPE_TIMES, SHAPE_PAIRS, SHAPE_SUM, SHAPE_TYPES };

/* What the first walk found of a sample. */
struct staged {
	uint32_t trace, labels, link;
	int32_t cpu;
	enum shape shape;
	struct wire_repeated values, times; /* in the message */
};

/* One profile between its walks. */
struct walk {
	const struct otlp_profile *profile;
	uint32_t types[OTLP_SAMPLE_TYPES_MAX]; /* of the batch */
	uint32_t type_count;
	bool unit_is_count;
	bool has_time;
};

static struct err *add_to_digest(struct otlp_intake *in, const void *bytes, size_t len)
{
	uint8_t so_far[16];

	TRY(buf_append(&in->digest, bytes, len));
	if (in->digest.len < DIGEST_CHUNK)
		return NULL;
	digest_xxh3_128(in->digest.data, in->digest.len, so_far);
	in->digest.len = 0;
	return buf_append(&in->digest, so_far, sizeof(so_far));
}

static struct err *take_text(struct otlp_intake *in, uint32_t index, struct samples_text *ret)
{
	struct otlp_text text = {"", 0};

	if (!otlp_string(in->request, index, &text) && index)
		return err_new(ERR_FORMAT, "string %" PRIu32 " of %" PRIu32, index,
			in->request->tables[OTLP_STRINGS].count);
	*ret = (struct samples_text){text.bytes, text.len};
	return NULL;
}

static struct err *digest_text(struct otlp_intake *in, struct samples_text text)
{
	uint64_t len = text.len;

	TRY(add_to_digest(in, &len, sizeof(len)));
	return len ? add_to_digest(in, text.bytes, text.len) : NULL;
}

static struct err *take_type(
	struct otlp_intake *in, struct walk *walk, struct otlp_value_type type, uint32_t *ret)
{
	const struct otlp_profile *profile = walk->profile;
	struct samples_type made = {.period = profile->period};

	TRY(err_wrap(take_text(in, type.type, &made.type), "sample_type"));
	TRY(err_wrap(take_text(in, type.unit, &made.unit), "sample_type"));
	TRY(err_wrap(take_text(in, profile->period_type.type, &made.period_type), "period_type"));
	TRY(err_wrap(take_text(in, profile->period_type.unit, &made.period_unit), "period_type"));
	if (!made.type.len)
		made.type = (struct samples_text){"samples", 7};
	if (!made.unit.len)
		made.unit = (struct samples_text){"count", 5};
	walk->unit_is_count = made.unit.len == 5 && memcmp(made.unit.bytes, "count", 5) == 0;
	TRY(digest_text(in, made.type));
	TRY(digest_text(in, made.unit));
	TRY(digest_text(in, made.period_type));
	TRY(digest_text(in, made.period_unit));
	return samples_batch_type(in->batch, &made, ret);
}

static struct err *take_types(struct otlp_intake *in, struct walk *walk)
{
	struct reader r = wire_reader(walk->profile->body, NULL);
	struct otlp_value_type type;

	if (walk->profile->sample_types <= 1) {
		walk->type_count = 1;
		return take_type(in, walk, walk->profile->sample_type, &walk->types[0]);
	}
	while (otlp_next_sample_type(&r, &type)) {
		if (walk->type_count == OTLP_SAMPLE_TYPES_MAX)
			return err_new(
				ERR_FORMAT, "more than %d sample types", OTLP_SAMPLE_TYPES_MAX);
		TRY(take_type(in, walk, type, &walk->types[walk->type_count]));
		walk->type_count++;
	}
	return NULL;
}

/* Numbers on their way into the digest, some at a time. */
struct gathered {
	uint64_t items[32];
	uint32_t count;
};

static struct err *flush_gathered(struct otlp_intake *in, struct gathered *gathered)
{
	size_t len = gathered->count * sizeof(*gathered->items);

	gathered->count = 0;
	return len ? add_to_digest(in, gathered->items, len) : NULL;
}

static inline struct err *gather(struct otlp_intake *in, struct gathered *gathered, uint64_t number)
{
	gathered->items[gathered->count++] = number;
	return gathered->count == ARRAY_SIZE(gathered->items) ? flush_gathered(in, gathered) : NULL;
}

/* Reads values and timestamps of a sample once: how many, their sum, whether they are sound; feeds
 * the digest. */
static struct err *survey(struct otlp_intake *in, const struct otlp_sample *sample,
	uint32_t counts[2], uint64_t *sum_ret)
{
	struct wire_repeated values = sample->values, times = sample->timestamps;
	struct gathered gathered;
	uint64_t number;

	*sum_ret = 0;
	counts[0] = counts[1] = gathered.count = 0;
	for (; wire_repeated_next(&values, &number); counts[0]++) {
		if (number > INT64_MAX)
			return err_new(
				ERR_FORMAT, "value %" PRId64 " is negative", (int64_t)number);
		if (__builtin_add_overflow(*sum_ret, number, sum_ret))
			return err_new(ERR_FORMAT, "the sum of its values passes 64 bits");
		TRY(gather(in, &gathered, number));
	}
	for (; wire_repeated_next(&times, &number); counts[1]++)
		TRY(gather(in, &gathered, number));
	if (wire_repeated_failed(&values) || wire_repeated_failed(&times))
		return err_new(ERR_FORMAT, "its values or timestamps are malformed");
	TRY(gather(in, &gathered, (uint64_t)counts[0] << 32 | counts[1]));
	return flush_gathered(in, &gathered);
}

static struct err *find_shape(
	const struct walk *walk, const uint32_t counts[2], uint64_t sum, enum shape *ret)
{
	uint32_t values = counts[0], times = counts[1];

	if (values == 0 && times == 0)
		*ret = SHAPE_EMPTY;
	else if (walk->type_count > 1 && values == walk->type_count)
		*ret = SHAPE_TYPES;
	else if (walk->type_count > 1)
		return err_new(ERR_FORMAT, "%" PRIu32 " values of %" PRIu32 " sample types", values,
			walk->type_count);
	else if (values == 0)
		*ret = SHAPE_TIMES;
	else if (values == times)
		*ret = SHAPE_PAIRS;
	else if (times == 0)
		*ret = SHAPE_SUM;
	else if (values == 1)
		*ret = walk->unit_is_count && (sum == 1 || sum == times) ? SHAPE_TIMES : SHAPE_SUM;
	else
		return err_new(
			ERR_FORMAT, "%" PRIu32 " values and %" PRIu32 " timestamps", values, times);
	return NULL;
}

/* What the key of a profile takes of a sample, beside its numbers. */
struct sample_digest {
	uint8_t frames[16], trace_id[16], span_id[8];
	struct otlp_digest labels;
};

static void digest_link(const struct otlp_intake *in, uint32_t link, struct sample_digest *digest)
{
	struct wire_span trace_id = {0}, span_id = {0};

	if (link == OTLP_NONE || !otlp_link(in->request, link, &trace_id, &span_id))
		return;
	if (trace_id.len)
		memcpy(digest->trace_id, trace_id.bytes, sizeof(digest->trace_id));
	if (span_id.len)
		memcpy(digest->span_id, span_id.bytes, sizeof(digest->span_id));
}

static struct err *stage_sample(
	struct otlp_intake *in, struct walk *walk, const struct otlp_sample *sample)
{
	struct staged staged = {.values = sample->values, .times = sample->timestamps};
	struct sample_digest digest = {0};
	struct otlp_label_set set;
	uint32_t counts[2];
	uint64_t sum;

	if (in->staged.len / sizeof(staged) >= OTLP_PROFILE_SAMPLES_MAX)
		return err_new(ERR_FORMAT, "more than %d samples", OTLP_PROFILE_SAMPLES_MAX);
	uint32_t parent =
		in->profile_labels == SAMPLES_NONE ? in->resource_labels : in->profile_labels;

	TRY(otlp_intake_trace(in, sample, &staged.trace));
	TRY(otlp_intake_label_set(in, parent, sample->attributes, &set));
	if (sample->link != OTLP_NONE)
		TRY(otlp_intake_link(in, sample->link, &staged.link));
	samples_trace_hash(in->batch, staged.trace, digest.frames);
	digest.labels = set.digest;
	digest_link(in, sample->link, &digest);
	TRY(add_to_digest(in, &digest, sizeof(digest)));
	TRY(survey(in, sample, counts, &sum));
	TRY(find_shape(walk, counts, sum, &staged.shape));
	walk->has_time |= counts[1] > 0;
	staged.labels = set.labels;
	staged.cpu = set.cpu;
	return buf_append(&in->staged, &staged, sizeof(staged));
}

static struct err *take_location_indices(struct otlp_intake *in, const struct otlp_profile *profile)
{
	struct wire_repeated indices = profile->location_indices;
	uint64_t number;

	in->location_indices.len = 0;
	while (wire_repeated_next(&indices, &number)) {
		uint32_t index = number < OTLP_NONE ? (uint32_t)number
						    : OTLP_NONE; /* out of range in any table */
		TRY(buf_append(&in->location_indices, &index, sizeof(index)));
	}
	return wire_repeated_failed(&indices)
		       ? err_new(ERR_FORMAT, "location_indices are malformed")
		       : NULL;
}

/* The first walk. */
static struct err *stage_profile(struct otlp_intake *in, struct walk *walk)
{
	const struct otlp_profile *profile = walk->profile;
	struct reader r = wire_reader(profile->body, NULL);
	struct otlp_label_set set;
	struct otlp_sample sample;
	uint64_t numbers[] = {
		profile->time_unix_nano, profile->duration_nano, (uint64_t)profile->period};

	in->staged.len = 0;
	TRY(otlp_intake_resource(in, profile->resource));
	TRY(otlp_intake_label_set(in, in->resource_labels, profile->attributes, &set));
	in->profile_labels = set.labels;
	in->digest.len = 0;
	TRY(add_to_digest(in, &in->resource_digest, sizeof(in->resource_digest)));
	TRY(add_to_digest(in, &set.digest, sizeof(set.digest)));
	TRY(add_to_digest(in, numbers, sizeof(numbers)));
	TRY(take_types(in, walk));
	if (in->request->layout == OTLP_1_7)
		TRY(take_location_indices(in, profile));
	walk->has_time = profile->time_unix_nano > 0;
	for (size_t i = 0; otlp_next_sample(in->request, &r, &sample); i++) {
		struct err *e = stage_sample(in, walk, &sample);
		if (e)
			return err_wrap(e, "sample %zu", i);
	}
	return r.failed ? err_new(ERR_FORMAT, "a sample is malformed") : NULL;
}

static struct err *add(
	struct otlp_intake *in, struct samples_sample *sample, uint64_t time, uint64_t value)
{
	sample->time_unix_nano = time;
	sample->value = value;
	in->result->samples++;
	return samples_batch_add(in->batch, sample);
}

/* The time of what has no timestamp of its own. */
static uint64_t time_of(
	const struct otlp_intake *in, const struct walk *walk, struct wire_repeated times)
{
	uint64_t first;

	if (wire_repeated_next(&times, &first))
		return first;
	return walk->profile->time_unix_nano ? walk->profile->time_unix_nano : in->now_unix_nano;
}

static struct err *add_sample(
	struct otlp_intake *in, const struct walk *walk, const struct staged *staged)
{
	struct wire_repeated values = staged->values, times = staged->times;
	struct samples_sample made = {.trace = staged->trace,
		.labels = staged->labels,
		.type = walk->types[0],
		.link = staged->link,
		.cpu = staged->cpu,
		.exact = staged->shape == SHAPE_TIMES || staged->shape == SHAPE_PAIRS};
	uint64_t time, value = 1, sum = 0;

	switch (staged->shape) {
	case SHAPE_TIMES:
		while (wire_repeated_next(&times, &time))
			TRY(add(in, &made, time, 1));
		return NULL;
	case SHAPE_PAIRS:
		while (wire_repeated_next(&times, &time) && wire_repeated_next(&values, &value))
			TRY(add(in, &made, time, value));
		return NULL;
	case SHAPE_SUM:
		while (wire_repeated_next(&values, &value))
			sum += value;
		return add(in, &made, time_of(in, walk, times), sum);
	case SHAPE_TYPES:
		for (uint32_t i = 0; wire_repeated_next(&values, &value); i++) {
			made.type = walk->types[i];
			TRY(add(in, &made, time_of(in, walk, times), value));
		}
		return NULL;
	case SHAPE_EMPTY:
	default:
		in->result->empty_samples++;
		return NULL;
	}
}

static struct err *make_key(struct otlp_intake *in, const struct walk *walk, uint8_t key[16])
{
	static const uint8_t none[16];
	const struct wire_span *id = &walk->profile->profile_id;
	uint64_t first, before = 0;

	if (id->len == 16 && memcmp(id->bytes, none, 16) != 0) {
		memcpy(key, id->bytes, 16);
		return NULL;
	}
	digest_xxh3_128(in->digest.data, in->digest.len, key);
	if (walk->has_time)
		return NULL;
	/* Equal ones of a request are told apart by how many came before. */
	memcpy(&first, key, sizeof(first));
	(void)hmap_get(&in->timeless, first, &before);
	TRY(hmap_set(&in->timeless, first, before + 1));
	TRY(add_to_digest(in, &before, sizeof(before)));
	digest_xxh3_128(in->digest.data, in->digest.len, key);
	return NULL;
}

/* The second walk, over what is staged. */
static struct err *add_profile(struct otlp_intake *in, const struct walk *walk)
{
	const struct staged *staged = (const struct staged *)in->staged.data;
	size_t count = in->staged.len / sizeof(*staged);
	uint8_t key[16];

	TRY(make_key(in, walk, key));
	TRY(samples_batch_profile(in->batch, key));
	for (size_t i = 0; i < count; i++) {
		struct err *e = add_sample(in, walk, &staged[i]);
		if (e)
			return err_wrap(e, "sample %zu", i);
	}
	in->result->profiles++;
	return NULL;
}

static struct err *take_profile(
	struct otlp_intake *in, const struct otlp_profile *profile, const char *fault)
{
	struct walk walk = {.profile = profile};

	if (fault)
		return err_new(ERR_FORMAT, "%s", fault);
	TRY(stage_profile(in, &walk));
	uint64_t before = in->result->samples;
	struct err *e = add_profile(in, &walk);
	if (e && otlp_is_fault(e)) {
		samples_batch_drop_profile(in->batch);
		in->result->samples = before;
	}
	if (!e)
		otlp_intake_sender(in, profile, in->result->samples - before);
	return e;
}

/* Consumes @p e. */
static void reject(struct otlp_intake *in, uint64_t number, struct err *e)
{
	struct otlp_intake_result *result = in->result;

	if (result->rejected_profiles++ == 0)
		(void)snprintf(result->message, sizeof(result->message), "profile %" PRIu64 ": %s",
			number, err_message(e));
	err_free(e);
}

static struct err *take_profiles(struct otlp_intake *in)
{
	struct otlp_cursor cursor = {.request = in->request};
	struct otlp_profile profile;
	const char *fault = NULL;
	uint64_t number = 0;

	for (; otlp_next_profile(&cursor, &profile, &fault); number++) {
		struct err *e = take_profile(in, &profile, fault);
		if (e && !otlp_is_fault(e))
			return e;
		if (e)
			reject(in, number, e);
	}
	if (cursor.malformed)
		reject(in, number, err_new(ERR_FORMAT, "what it stands in is no protobuf message"));
	return NULL;
}

static struct err *create_caches(struct otlp_intake *in)
{
	const struct otlp_table *tables = in->request->tables;

	in->mappings = calloc((size_t)tables[OTLP_MAPPINGS].count + 1, sizeof(*in->mappings));
	in->locations = calloc((size_t)tables[OTLP_LOCATIONS].count + 1, sizeof(*in->locations));
	in->stacks = calloc((size_t)tables[OTLP_STACKS].count + 1, sizeof(*in->stacks));
	in->links = calloc((size_t)tables[OTLP_LINKS].count + 1, sizeof(*in->links));
	in->attributes = calloc((size_t)tables[OTLP_ATTRIBUTES].count + 1, sizeof(*in->attributes));
	in->functions = calloc((size_t)tables[OTLP_FUNCTIONS].count + 1, sizeof(*in->functions));
	return in->functions && in->mappings && in->locations && in->stacks && in->links && in->attributes ? NULL : err_nomem();
}

static void destroy(struct otlp_intake *in)
{
	free(in->mappings);
	free(in->locations);
	free(in->stacks);
	free(in->links);
	free(in->attributes);
	free(in->functions);
	hmap_deinit(&in->set_index);
	hmap_deinit(&in->timeless);
	buf_deinit(&in->sets);
	buf_deinit(&in->set_indices);
	buf_deinit(&in->location_indices);
	buf_deinit(&in->staged);
	buf_deinit(&in->digest);
	buf_deinit(&in->scratch);
	buf_deinit(&in->modules);
	free(in);
}

static struct err *hand_over_modules(struct otlp_intake *in)
{
	struct otlp_module *modules = arena_alloc(in->arena, in->modules.len + 1);

	if (!modules)
		return err_nomem();
	if (in->modules.len)
		memcpy(modules, in->modules.data, in->modules.len);
	in->result->modules = modules;
	in->result->module_count = in->modules.len / sizeof(*modules);
	return NULL;
}

struct err *otlp_intake(const struct otlp_request *request, struct arena *arena,
	uint64_t now_unix_nano, struct samples_batch *batch, struct otlp_intake_result *ret)
{
	struct otlp_intake *in = calloc(1, sizeof(*in));

	if (!in)
		return err_nomem();
	*ret = (struct otlp_intake_result){0};
	in->request = request;
	in->batch = batch;
	in->arena = arena;
	in->now_unix_nano = now_unix_nano;
	in->result = ret;
	struct err *e = create_caches(in);
	if (!e)
		e = samples_batch_expect(batch, request->tables[OTLP_FUNCTIONS].count, request->tables[OTLP_LOCATIONS].count,
			request->tables[OTLP_STACKS].count);
	if (!e)
		e = take_profiles(in);
	if (!e)
		e = hand_over_modules(in);
	destroy(in);
	return e;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Attributes into labels. A dictionary attribute is decoded once; a set of attributes (they come as
 * packed indices, the same few over and over) is looked up by those indices, so that a usual sample
 * costs one hash of some bytes.
 *
 * A set's digest is the sum of its attributes' digests, so that their order does not matter.
 */
#include "base/digest.h"
#include "profiles/otlp_intake_internal.h"

#include <inttypes.h>
#include <stdio.h>

bool otlp_is_fault(const struct err *e)
{
	return err_code(e) == ERR_FORMAT || err_code(e) == ERR_INVALID;
}

/* A text that the batch may keep: formatted ones live in the arena. */
static struct err *format_value(
	struct otlp_intake *in, const struct otlp_attribute *attribute, struct samples_text *ret)
{
	char text[64];
	int len = 0;

	if (attribute->kind == OTLP_VALUE_INT)
		len = snprintf(text, sizeof(text), "%" PRId64, attribute->number);
	else if (attribute->kind == OTLP_VALUE_BOOL)
		len = snprintf(text, sizeof(text), "%s", attribute->number ? "true" : "false");
	else
		len = snprintf(text, sizeof(text), "%.17g", attribute->real);
	ret->bytes = arena_copy_text(in->arena, text, (size_t)len);
	ret->len = (size_t)len;
	return ret->bytes ? NULL : err_nomem();
}

static struct err *format_bytes(
	struct otlp_intake *in, struct otlp_text bytes, struct samples_text *ret)
{
	static const char digits[] = "0123456789abcdef";
	size_t len = bytes.len < SAMPLES_TEXT_MAX / 2 ? bytes.len : SAMPLES_TEXT_MAX / 2;
	char *text = arena_alloc(in->arena, 2 * len + 1);

	if (!text)
		return err_nomem();
	for (size_t i = 0; i < len; i++) {
		text[2 * i] = digits[(uint8_t)bytes.bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes.bytes[i] & 15];
	}
	*ret = (struct samples_text){text, 2 * len};
	return NULL;
}

struct err *otlp_intake_label(struct otlp_intake *in, const struct otlp_attribute *attribute,
	struct samples_label *ret, bool *is_label_ret)
{
	*ret = (struct samples_label){.key = {attribute->key.bytes, attribute->key.len}};
	*is_label_ret = attribute->key.len > 0;
	if (!*is_label_ret)
		return NULL;
	switch (attribute->kind) {
	case OTLP_VALUE_TEXT:
		ret->value = (struct samples_text){attribute->text.bytes, attribute->text.len};
		return NULL;
	case OTLP_VALUE_INT:
	case OTLP_VALUE_BOOL:
	case OTLP_VALUE_DOUBLE:
		return format_value(in, attribute, &ret->value);
	case OTLP_VALUE_BYTES:
		return format_bytes(in, attribute->text, &ret->value);
	case OTLP_VALUE_NONE:
	case OTLP_VALUE_OTHER:
	default:
		*is_label_ret = false;
		return NULL;
	}
}

static void sum_digest(struct otlp_digest *sum, const struct otlp_digest *digest)
{
	sum->halves[0] += digest->halves[0];
	sum->halves[1] += digest->halves[1];
}

/* Adds the digest of one label to that of its set. */
static struct err *add_digest(
	struct otlp_intake *in, const struct samples_label *label, struct otlp_digest *sum)
{
	struct otlp_digest digest;
	uint8_t bytes[16];
	uint64_t lens[2] = {label->key.len, label->value.len};

	in->scratch.len = 0;
	TRY(buf_append(&in->scratch, lens, sizeof(lens)));
	TRY(buf_append(&in->scratch, label->key.bytes, label->key.len));
	if (label->value.len)
		TRY(buf_append(&in->scratch, label->value.bytes, label->value.len));
	digest_xxh3_128(in->scratch.data, in->scratch.len, bytes);
	memcpy(&digest, bytes, sizeof(digest));
	sum_digest(sum, &digest);
	return NULL;
}

static bool key_is(const struct otlp_known_attribute *attribute, const char *word)
{
	return attribute->label.key.len == strlen(word) &&
	       memcmp(attribute->label.key.bytes, word, attribute->label.key.len) == 0;
}

struct err *otlp_intake_attribute(
	struct otlp_intake *in, uint64_t index, const struct otlp_known_attribute **ret)
{
	uint32_t count = in->request->tables[OTLP_ATTRIBUTES].count;
	struct otlp_attribute attribute;

	if (index >= count)
		return err_new(ERR_FORMAT, "attribute %" PRIu64 " of %" PRIu32, index, count);
	struct otlp_known_attribute *known = &in->attributes[index];

	if (!known->known) {
		if (!otlp_attribute(in->request, index, &attribute))
			return err_new(ERR_FORMAT, "attribute %" PRIu64 " is malformed", index);
		TRY(otlp_intake_label(in, &attribute, &known->label, &known->is_label));
		known->kind = attribute.kind;
		known->number = attribute.number;
		known->is_cpu = attribute.kind == OTLP_VALUE_INT && key_is(known, SAMPLES_LABEL_CPU);
		if (known->is_label && key_is(known, "profile.frame.type"))
			known->frame_type = otlp_intake_frame_type(known->label.value);
		if (known->is_label)
			TRY(add_digest(in, &known->label, &known->digest));
		known->known = true;
	}
	*ret = known;
	return NULL;
}

struct err *otlp_intake_resource(struct otlp_intake *in, struct wire_span resource)
{
	struct samples_label labels[OTLP_RESOURCE_LABELS_MAX];
	struct reader r = wire_reader(resource, NULL);
	struct otlp_attribute attribute;
	size_t count = 0;
	bool is_label;

	if (in->has_resource && in->resource.bytes == resource.bytes &&
		in->resource.len == resource.len)
		return NULL;
	in->has_resource = false;
	in->resource_digest = (struct otlp_digest){0};
	while (otlp_next_resource_attribute(in->request, &r, &attribute)) {
		if (count == ARRAY_SIZE(labels)) {
			in->result->dropped_labels++;
			continue;
		}
		TRY(otlp_intake_label(in, &attribute, &labels[count], &is_label));
		if (!is_label)
			continue;
		TRY(add_digest(in, &labels[count], &in->resource_digest));
		count++;
	}
	if (r.failed)
		return err_new(ERR_FORMAT, "the resource is malformed");
	TRY(samples_batch_labels(in->batch, SAMPLES_NONE, labels, count, &in->resource_labels));
	in->resource = resource;
	in->has_resource = true;
	return NULL;
}

/* CPUs are members of a sample, not labels. */
static bool take_cpu(const struct otlp_known_attribute *attribute, int32_t *cpu)
{
	if (!attribute->is_cpu)
		return false;
	if (attribute->number >= 0 && attribute->number <= SAMPLES_CPU_MAX)
		*cpu = (int32_t)attribute->number;
	return true;
}

static struct err *make_set(struct otlp_intake *in, uint32_t parent, const uint32_t *indices,
	size_t count, struct otlp_label_set *ret)
{
	struct samples_label labels[OTLP_SAMPLE_LABELS_MAX];
	size_t label_count = 0;

	*ret = (struct otlp_label_set){
		.parent = parent, .labels = parent, .cpu = -1, .count = (uint32_t)count};
	for (size_t i = 0; i < count; i++) {
		const struct otlp_known_attribute *attribute = &in->attributes[indices[i]];
		if (!attribute->is_label)
			continue;
		sum_digest(&ret->digest, &attribute->digest);
		labels[label_count++] = attribute->label;
	}
	if (label_count)
		TRY(samples_batch_labels(in->batch, parent, labels, label_count, &ret->labels));
	return NULL;
}

/* The set of a parent and indices, both in @p asked; @p count of indices. */
static struct err *find_set(
	struct otlp_intake *in, const uint32_t *asked, size_t count, struct otlp_label_set *ret)
{
	uint64_t key = digest_xxh3_64(asked, (count + 1) * sizeof(*asked)), number;
	const struct otlp_label_set *sets = (const struct otlp_label_set *)in->sets.data;
	const uint32_t *kept = (const uint32_t *)in->set_indices.data;

	/* Of two sets with one hash, the second takes the key behind it. */
	for (; hmap_get(&in->set_index, key, &number); key++) {
		const struct otlp_label_set *set = &sets[number];
		if (set->parent == asked[0] && set->count == count &&
			(count == 0 || memcmp(kept + set->first, asked + 1, count * sizeof(*asked)) == 0)) {
			*ret = *set;
			return NULL;
		}
	}
	TRY(make_set(in, asked[0], asked + 1, count, ret));
	ret->first = (uint32_t)(in->set_indices.len / sizeof(*asked));
	TRY(buf_append(&in->set_indices, asked + 1, count * sizeof(*asked)));
	TRY(hmap_set(&in->set_index, key, in->sets.len / sizeof(*ret)));
	return buf_append(&in->sets, ret, sizeof(*ret));
}

struct err *otlp_intake_label_set(struct otlp_intake *in, uint32_t parent,
	struct wire_repeated indices, struct otlp_label_set *ret)
{
	uint32_t asked[OTLP_SAMPLE_LABELS_MAX + 1];
	const struct otlp_known_attribute *attribute;
	struct otlp_digest cpus = {0};
	int32_t cpu = -1;
	uint64_t index;
	size_t count = 0;

	asked[0] = parent;
	while (wire_repeated_next(&indices, &index)) {
		TRY(otlp_intake_attribute(in, index, &attribute));
		/* Apart, so that the threads of a message are not looked up once for each CPU. */
		if (take_cpu(attribute, &cpu))
			sum_digest(&cpus, &attribute->digest);
		else if (count < OTLP_SAMPLE_LABELS_MAX)
			asked[++count] = (uint32_t)index;
		else
			in->result->dropped_labels++;
	}
	if (wire_repeated_failed(&indices))
		return err_new(ERR_FORMAT, "attribute_indices are malformed");
	TRY(find_set(in, asked, count, ret));
	ret->cpu = cpu;
	sum_digest(&ret->digest, &cpus);
	return NULL;
}

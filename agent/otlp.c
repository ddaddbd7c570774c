// SPDX-License-Identifier: Apache-2.0
/*
 * The dictionary's tables are encoded as their entries become known: entry 0 of each is the zero value. A native location
 * has the ELF address (already less 1 for return addresses) and a mapping with memory_start 0; a kernel location counts from
 * its module's start and has its name. Equal samples of a thread name are one with their sum. One resource a process, with
 * the names of OpenTelemetry's semantic conventions; in it a profile for each kind of sample that there is.
 * Source: opentelemetry-proto, profiles.proto of v1.11; field numbers are its own.
 */
#include "agent/otlp.h"

#include "agent/kinds.h"
#include "base/digest.h"
#include "base/hmap.h"
#include "base/intern.h"
#include "proto/wire.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { REQUEST_RESOURCE = 1, REQUEST_DICTIONARY = 2 };
enum { DICT_MAPPING = 1, DICT_LOCATION, DICT_FUNCTION, DICT_LINK, DICT_STRING, DICT_ATTRIBUTE, DICT_STACK, DICT_TABLES };
enum { ROOM = 128 }; /* small fields of one message */
enum { SAMPLE_BYTES = 32, PROFILE_BYTES = 128 }; /* about what one takes in a request */

struct sample {
	uint32_t resource, kind, comm, stack; /* comm: attribute */
	uint64_t value;
};

/* A process. */
struct resource {
	uint32_t pid;
	struct buf body; /* of the message Resource */
};

struct otlp {
	struct otlp_options options;
	struct buf dictionary;
	uint32_t counts[DICT_TABLES]; /* entries of each table */
	struct intern strings;
	struct hmap locations, mappings, functions, attributes, stacks, index, processes;
	struct resource *resources;
	uint32_t resource_count, resource_cap;
	struct sample *samples;
	uint32_t sample_count, sample_cap;
	size_t resource_bytes;
	uint64_t taken;	  /* samples before those that are equal became one */
	uint8_t seed[16]; /* of profile IDs */
	uint32_t path[UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX];
};

/** Appends an entry to a dictionary table; its number. */
static struct err *entry(struct otlp *o, uint32_t table, const struct buf *body, uint32_t *ret)
{
	TRY(wire_append_bytes(&o->dictionary, table, body->data, body->len));
	*ret = o->counts[table]++;
	return NULL;
}

static struct err *string(struct otlp *o, const char *text, uint32_t *ret)
{
	uint32_t before = o->strings.count;

	TRY(intern_add(&o->strings, text, strlen(text), ret));
	if (o->strings.count == before)
		return NULL;
	o->counts[DICT_STRING]++;
	return wire_append_bytes(&o->dictionary, DICT_STRING, text, strlen(text));
}

/** The attribute @p key = @p value. */
static struct err *attribute(struct otlp *o, const char *key, const char *value, uint32_t *ret)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	CLEANUP(buf_deinit) struct buf any = {0};
	uint32_t key_number = 0;
	uint64_t known = 0;

	TRY(string(o, key, &key_number));
	uint64_t id = digest_xxh3_64(value, strlen(value)) ^ (uint64_t)key_number << 32;
	if (hmap_get(&o->attributes, id, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	TRY(wire_append_bytes(&any, 1, value, strlen(value)));
	TRY(buf_reserve(&body, ROOM));
	wire_put_field(&body, 1, key_number);
	TRY(wire_append_bytes(&body, 2, any.data, any.len));
	TRY(entry(o, DICT_ATTRIBUTE, &body, ret));
	return hmap_set(&o->attributes, id, *ret);
}

static struct err *mapping(struct otlp *o, uint64_t key, const char *name, const struct build_id *build_id, const struct fileid *file_id, uint32_t *ret)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	char build_text[BUILD_ID_HEX_SIZE], file_text[FILEID_HEX_SIZE];
	uint32_t filename = 0, attributes[2], count = 0;
	uint64_t known = 0;

	if (hmap_get(&o->mappings, key, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	TRY(string(o, name, &filename));
	build_id_format(build_id, build_text);
	fileid_format_hex(file_id, file_text);
	if (build_id->len > 0)
		TRY(attribute(o, "process.executable.build_id.gnu", build_text, &attributes[count++]));
	TRY(attribute(o, "process.executable.build_id.htlhash", file_text, &attributes[count++]));
	TRY(buf_reserve(&body, ROOM));
	wire_put_field(&body, 4, filename);
	TRY(wire_append_packed_u32(&body, 5, attributes, count));
	TRY(entry(o, DICT_MAPPING, &body, ret));
	return hmap_set(&o->mappings, key, *ret);
}

static struct err *function(struct otlp *o, const char *name, uint32_t *ret)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	uint32_t text = 0;
	uint64_t known = 0;

	TRY(string(o, name, &text));
	if (hmap_get(&o->functions, text, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	TRY(buf_reserve(&body, ROOM));
	wire_put_field(&body, 1, text);
	TRY(entry(o, DICT_FUNCTION, &body, ret));
	return hmap_set(&o->functions, text, *ret);
}

static struct err *add_location(struct otlp *o, uint64_t frame, bool in_kernel, uint32_t *ret)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	CLEANUP(buf_deinit) struct buf line = {0};
	const struct place place = place_of_frame(o->options.tables, o->options.kernel, frame, in_kernel);
	uint32_t where = 0, kind = 0, called = 0;

	TRY(attribute(o, "profile.frame.type", in_kernel ? "kernel" : runtime_name(place.runtime), &kind));
	TRY(buf_reserve(&line, ROOM));
	if (place.exe)
		TRY(mapping(o, place.exe_number, place.exe->name, &place.exe->build_id, &place.exe->file_id, &where));
	if (place.module)
		TRY(mapping(o, (uintptr_t)place.module, place.module->name, &place.module->build_id, &place.module->file_id, &where));
	if (place.function) {
		TRY(function(o, place.function, &called));
		wire_put_field(&line, 1, called);
	}
	TRY(buf_reserve(&body, ROOM));
	wire_put_field(&body, 1, where);
	wire_put_field(&body, 2, place.address);
	if (called)
		TRY(wire_append_bytes(&body, 3, line.data, line.len));
	TRY(wire_append_packed_u32(&body, 4, &kind, 1));
	return entry(o, DICT_LOCATION, &body, ret);
}

static struct err *location(struct otlp *o, uint64_t frame, bool in_kernel, uint32_t *ret)
{
	uint64_t known = 0;

	if (!hmap_get(&o->locations, frame, &known)) {
		uint32_t added = 0;
		TRY(add_location(o, frame, in_kernel, &added));
		TRY(hmap_set(&o->locations, frame, added));
		known = added;
	}
	*ret = (uint32_t)known;
	return NULL;
}

static struct err *stack(struct otlp *o, const uint32_t *locations, uint32_t depth, uint32_t *ret)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	uint64_t id = digest_xxh3_64(locations, depth * sizeof(*locations)), known = 0;

	if (hmap_get(&o->stacks, id, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	TRY(wire_append_packed_u32(&body, 1, locations, depth));
	TRY(entry(o, DICT_STACK, &body, ret));
	return hmap_set(&o->stacks, id, *ret);
}

static struct err *init(struct otlp *o)
{
	struct buf zero = {0};
	uint32_t number = 0;

	if (getrandom(o->seed, sizeof(o->seed), 0) != sizeof(o->seed))
		return err_os(errno, "getrandom");
	for (uint32_t table = DICT_MAPPING; table < DICT_TABLES; table++)
		if (table != DICT_STRING)
			TRY(entry(o, table, &zero, &number));
	return string(o, "", &number);
}

struct err *otlp_create(const struct otlp_options *options, struct otlp **ret)
{
	struct otlp *o = calloc(1, sizeof(*o));

	if (!o)
		return err_nomem();
	o->options = *options;
	struct err *e = init(o);
	if (e) {
		otlp_destroy(o);
		return e;
	}
	*ret = o;
	return NULL;
}

void otlp_destroy(struct otlp *o)
{
	if (!o)
		return;
	buf_deinit(&o->dictionary);
	intern_deinit(&o->strings);
	hmap_deinit(&o->locations);
	hmap_deinit(&o->mappings);
	hmap_deinit(&o->functions);
	hmap_deinit(&o->attributes);
	hmap_deinit(&o->stacks);
	hmap_deinit(&o->index);
	hmap_deinit(&o->processes);
	for (uint32_t i = 0; i < o->resource_count; i++)
		buf_deinit(&o->resources[i].body);
	free(o->resources);
	free(o->samples);
	free(o);
}

uint64_t otlp_samples(const struct otlp *otlp)
{
	return otlp->taken;
}

bool otlp_is_full(const struct otlp *o)
{
	size_t profiles = (size_t)o->resource_count * SAMPLE_KINDS;

	return o->dictionary.len + o->resource_bytes + (size_t)o->sample_count * SAMPLE_BYTES + profiles * PROFILE_BYTES >= OTLP_BYTES_MAX;
}

static struct err *count_sample(struct otlp *o, const struct sample *sample)
{
	uint32_t key[4] = {sample->resource, sample->kind, sample->comm, sample->stack};
	uint64_t id = digest_xxh3_64(key, sizeof(key)), known = 0;

	o->taken++;
	if (hmap_get(&o->index, id, &known)) {
		o->samples[known].value += sample->value;
		return NULL;
	}
	if (o->sample_count == o->sample_cap) {
		uint32_t cap = o->sample_cap ? 2 * o->sample_cap : 256;
		struct sample *samples = realloc(o->samples, cap * sizeof(*samples));
		if (!samples)
			return err_nomem();
		o->samples = samples;
		o->sample_cap = cap;
	}
	TRY(hmap_set(&o->index, id, o->sample_count));
	o->samples[o->sample_count++] = *sample;
	return NULL;
}

/* Resource { attributes 1: KeyValue { key 1, value 2: AnyValue { string 1, int 3 } } } */
static struct err *put_attribute(struct buf *resource, struct wire_span key, const struct buf *any)
{
	CLEANUP(buf_deinit) struct buf pair = {0};

	TRY(wire_append_bytes(&pair, 1, key.bytes, key.len));
	TRY(wire_append_bytes(&pair, 2, any->data, any->len));
	return wire_append_bytes(resource, 1, pair.data, pair.len);
}

static struct err *put_span(struct buf *resource, struct wire_span key, struct wire_span value)
{
	CLEANUP(buf_deinit) struct buf any = {0};

	TRY(wire_append_bytes(&any, 1, value.bytes, value.len));
	return put_attribute(resource, key, &any);
}

static struct err *put_text(struct buf *resource, const char *key, const char *value)
{
	const struct wire_span text = {(const uint8_t *)value, strlen(value)};

	return text.len > 0 ? put_span(resource, (struct wire_span){(const uint8_t *)key, strlen(key)}, text) : NULL;
}

static struct err *encode_resource(const struct otlp *o, const struct process_info *process, struct buf *ret)
{
	static const char pid_key[] = "process.pid";
	uint8_t pid[WIRE_VARINT_MAX + 1];
	char host[HOST_NAME_MAX + 1] = "";
	struct buf any = {.data = pid, .cap = sizeof(pid)};

	if (gethostname(host, sizeof(host) - 1) == 0)
		TRY(put_text(ret, "host.name", host));
	wire_put_field(&any, 3, process->pid);
	TRY(put_attribute(ret, (struct wire_span){(const uint8_t *)pid_key, sizeof(pid_key) - 1}, &any));
	TRY(put_text(ret, "process.executable.name", process->executable));
	TRY(put_text(ret, "process.executable.path", process->executable_path));
	TRY(put_text(ret, "service.name", process->service));
	TRY(put_text(ret, "container.id", process->container.id));
	for (size_t i = 0; i < process->label_count; i++)
		TRY(put_text(ret, process->labels[i].key, process->labels[i].value));
	for (size_t i = 0; i < o->options.label_count; i++)
		TRY(put_span(ret, o->options.labels[i].key, o->options.labels[i].value));
	return NULL;
}

static struct err *resource_of(struct otlp *o, const struct process_info *process, uint32_t *ret)
{
	uint64_t known = 0;

	if (hmap_get(&o->processes, process->serial, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	if (o->resource_count == o->resource_cap) {
		uint32_t cap = o->resource_cap ? 2 * o->resource_cap : 64;
		struct resource *resources = reallocarray(o->resources, cap, sizeof(*resources));
		if (!resources)
			return err_nomem();
		o->resources = resources;
		o->resource_cap = cap;
	}
	struct resource *added = &o->resources[o->resource_count];
	*added = (struct resource){.pid = process->pid};
	*ret = o->resource_count++;
	TRY(encode_resource(o, process, &added->body));
	o->resource_bytes += added->body.len;
	return hmap_set(&o->processes, process->serial, *ret);
}

struct err *otlp_add(struct otlp *o, const struct sample_head *head, const uint64_t *frames, const struct process_info *process)
{
	char comm[SAMPLE_COMM_BYTES + 1] = "";
	struct sample sample = {.kind = head->kind < SAMPLE_KINDS ? head->kind : SAMPLE_CPU, .value = head->value};
	uint32_t depth = place_depth(head);
	bool in_kernel = false;

	for (uint32_t i = 0; i < depth; i++) {
		uint64_t raw = place_raw(head, frames, i, &in_kernel);
		TRY(location(o, raw, in_kernel, &o->path[i]));
	}
	memcpy(comm, head->comm, SAMPLE_COMM_BYTES);
	TRY(resource_of(o, process, &sample.resource));
	TRY(attribute(o, "thread.name", comm, &sample.comm));
	TRY(stack(o, o->path, depth, &sample.stack));
	return count_sample(o, &sample);
}

static int compare_samples(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;

	if (x->resource != y->resource)
		return x->resource < y->resource ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->stack < y->stack ? -1 : x->stack > y->stack;
}

static void put_fixed64(struct buf *out, uint32_t field, uint64_t value)
{
	wire_put_tag(out, field, WIRE_FIXED64);
	for (int i = 0; i < 8; i++)
		buf_put_u8(out, (uint8_t)(value >> 8 * i));
}

static struct err *value_type(struct otlp *o, const char *type, const char *unit, uint32_t field, struct buf *out)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	uint32_t type_number = 0, unit_number = 0;

	TRY(string(o, type, &type_number));
	TRY(string(o, unit, &unit_number));
	TRY(buf_reserve(&body, ROOM));
	wire_put_field(&body, 1, type_number);
	wire_put_field(&body, 2, unit_number);
	return wire_append_bytes(out, field, body.data, body.len);
}

static struct err *put_samples(const struct otlp *o, uint32_t first, uint32_t end, struct buf *profile)
{
	CLEANUP(buf_deinit) struct buf body = {0};

	for (uint32_t i = first; i < end; i++) {
		const struct sample *s = &o->samples[i];
		body.len = 0;
		TRY(buf_reserve(&body, ROOM));
		wire_put_field(&body, 1, s->stack);
		TRY(wire_append_packed_u32(&body, 2, &s->comm, 1));
		TRY(wire_append_packed_u64(&body, 4, &s->value, 1));
		TRY(wire_append_bytes(profile, 2, body.data, body.len));
	}
	return NULL;
}

/** Profile of the samples [first, end), all of one process and kind. */
static struct err *put_profile(struct otlp *o, uint32_t first, uint32_t end, const uint64_t window[2], struct buf *scope)
{
	CLEANUP(buf_deinit) struct buf profile = {0};
	uint32_t seed[6] = {o->samples[first].resource, o->samples[first].kind};
	const struct kind *kind = kind_of(seed[1]);
	uint8_t id[16];

	TRY(value_type(o, kind->type, kind->unit, 1, &profile));
	TRY(put_samples(o, first, end, &profile));
	TRY(buf_reserve(&profile, ROOM));
	put_fixed64(&profile, 3, window[0]);
	wire_put_field(&profile, 4, window[1]);
	if (kind->period_type) {
		TRY(value_type(o, kind->period_type, kind->period_unit, 5, &profile));
		TRY(buf_reserve(&profile, ROOM));
		wire_put_field(&profile, 6, 1000000000 / o->options.hz);
	}
	memcpy(seed + 2, o->seed, sizeof(o->seed));
	digest_xxh3_128(seed, sizeof(seed), id);
	TRY(wire_append_bytes(&profile, 7, id, sizeof(id)));
	return wire_append_bytes(scope, 2, profile.data, profile.len);
}

/** ResourceProfiles of the samples [first, end), all of one process. */
static struct err *put_process(struct otlp *o, uint32_t first, uint32_t end, const uint64_t window[2], struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf who = {0};
	CLEANUP(buf_deinit) struct buf scope = {0};
	CLEANUP(buf_deinit) struct buf all = {0};
	const struct resource *resource = &o->resources[o->samples[first].resource];

	/* InstrumentationScope { name 1, version 2 } */
	TRY(wire_append_bytes(&who, 1, "cairn-agent", 11));
	TRY(wire_append_bytes(&who, 2, CAIRN_VERSION, strlen(CAIRN_VERSION)));
	TRY(wire_append_bytes(&scope, 1, who.data, who.len));
	for (uint32_t next = first; first < end; first = next) {
		while (next < end && o->samples[next].kind == o->samples[first].kind)
			next++;
		TRY(put_profile(o, first, next, window, &scope));
	}
	TRY(wire_append_bytes(&all, 1, resource->body.data, resource->body.len));
	TRY(wire_append_bytes(&all, 2, scope.data, scope.len));
	return wire_append_bytes(ret, REQUEST_RESOURCE, all.data, all.len);
}

struct err *otlp_encode(struct otlp *o, uint64_t from_unix_nano, uint64_t duration_ns, struct buf *ret)
{
	const uint64_t window[2] = {from_unix_nano, duration_ns};

	if (o->sample_count > 0)
		qsort(o->samples, o->sample_count, sizeof(*o->samples), compare_samples);
	for (uint32_t first = 0, end = 0; first < o->sample_count; first = end) {
		while (end < o->sample_count && o->samples[end].resource == o->samples[first].resource)
			end++;
		TRY(put_process(o, first, end, window, ret));
	}
	return wire_append_bytes(ret, REQUEST_DICTIONARY, o->dictionary.data, o->dictionary.len);
}

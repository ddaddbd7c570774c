// SPDX-License-Identifier: Apache-2.0
/*
 * The dictionary's tables are encoded as their entries become known: entry 0 of each is the zero value. A native location
 * has the ELF address (already less 1 for return addresses) and a mapping with memory_start 0; a kernel location counts from
 * its module's start and has its name. Equal samples of a thread name are one with their sum. One resource a process, with
 * the names of OpenTelemetry's semantic conventions.
 * Source: opentelemetry-proto, profiles.proto of v1.11; field numbers are its own.
 */
#include "agent/otlp.h"

#include "base/digest.h"
#include "base/hmap.h"
#include "base/intern.h"
#include "proto/wire.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_RESOURCE = 1, REQUEST_DICTIONARY = 2 };
enum { DICT_MAPPING = 1, DICT_LOCATION, DICT_FUNCTION, DICT_LINK, DICT_STRING, DICT_ATTRIBUTE, DICT_STACK, DICT_TABLES };
enum { ROOM = 128, EXPORT_TIMEOUT_MS = 10000 }; /* small fields of one message */

struct sample {
	uint32_t resource, comm, stack; /* comm: attribute */
	uint64_t count;
};

/* A process. */
struct resource {
	uint32_t pid;
	struct buf body; /* of the message Resource */
};

struct otlp {
	const struct tables *tables;
	const struct kernel *kernel;
	uint32_t hz;
	struct buf dictionary;
	uint32_t counts[DICT_TABLES]; /* entries of each table */
	struct intern strings;
	struct hmap locations, mappings, functions, attributes, stacks, index, processes;
	struct resource *resources;
	uint32_t resource_count, resource_cap;
	struct sample *samples;
	uint32_t sample_count, sample_cap;
	uint64_t dropped;
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
	const struct place place = place_of_frame(o->tables, o->kernel, frame, in_kernel);
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

	for (uint32_t table = DICT_MAPPING; table < DICT_TABLES; table++)
		if (table != DICT_STRING)
			TRY(entry(o, table, &zero, &number));
	return string(o, "", &number);
}

struct err *otlp_create(const struct tables *tables, const struct kernel *kernel, uint32_t hz, struct otlp **ret)
{
	struct otlp *o = calloc(1, sizeof(*o));

	if (!o)
		return err_nomem();
	o->tables = tables;
	o->kernel = kernel;
	o->hz = hz;
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

uint64_t otlp_dropped(const struct otlp *otlp)
{
	return otlp->dropped;
}

static struct err *count_sample(struct otlp *o, uint32_t resource, uint32_t comm, uint32_t stack_number)
{
	uint32_t key[3] = {resource, comm, stack_number};
	uint64_t id = digest_xxh3_64(key, sizeof(key)), known = 0;

	if (hmap_get(&o->index, id, &known)) {
		o->samples[known].count++;
		return NULL;
	}
	if (o->sample_count == OTLP_SAMPLES_MAX) {
		o->dropped++;
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
	o->samples[o->sample_count++] = (struct sample){.resource = resource, .comm = comm, .stack = stack_number, .count = 1};
	return NULL;
}

/* Resource { attributes 1: KeyValue { key 1, value 2: AnyValue { string 1, int 3 } } } */
static struct err *put_attribute(struct buf *resource, const char *key, const struct buf *any)
{
	CLEANUP(buf_deinit) struct buf pair = {0};

	TRY(wire_append_bytes(&pair, 1, key, strlen(key)));
	TRY(wire_append_bytes(&pair, 2, any->data, any->len));
	return wire_append_bytes(resource, 1, pair.data, pair.len);
}

static struct err *put_text(struct buf *resource, const char *key, const char *value)
{
	CLEANUP(buf_deinit) struct buf any = {0};

	if (!value[0])
		return NULL;
	TRY(wire_append_bytes(&any, 1, value, strlen(value)));
	return put_attribute(resource, key, &any);
}

static struct err *encode_resource(const struct process_info *process, struct buf *ret)
{
	uint8_t pid[WIRE_VARINT_MAX + 1];
	char host[HOST_NAME_MAX + 1] = "";
	struct buf any = {.data = pid, .cap = sizeof(pid)};

	if (gethostname(host, sizeof(host) - 1) == 0)
		TRY(put_text(ret, "host.name", host));
	wire_put_field(&any, 3, process->pid);
	TRY(put_attribute(ret, "process.pid", &any));
	TRY(put_text(ret, "process.executable.name", process->executable));
	TRY(put_text(ret, "process.executable.path", process->executable_path));
	TRY(put_text(ret, "service.name", process->service));
	TRY(put_text(ret, "container.id", process->container.id));
	for (size_t i = 0; i < process->label_count; i++)
		TRY(put_text(ret, process->labels[i].key, process->labels[i].value));
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
	TRY(encode_resource(process, &added->body));
	return hmap_set(&o->processes, process->serial, *ret);
}

struct err *otlp_add(struct otlp *o, const struct sample_head *head, const uint64_t *frames, const struct process_info *process)
{
	char comm[SAMPLE_COMM_BYTES + 1] = "";
	uint32_t depth = place_depth(head), resource = 0, comm_number = 0, stack_number = 0;
	bool in_kernel = false;

	for (uint32_t i = 0; i < depth; i++) {
		uint64_t raw = place_raw(head, frames, i, &in_kernel);
		TRY(location(o, raw, in_kernel, &o->path[i]));
	}
	memcpy(comm, head->comm, SAMPLE_COMM_BYTES);
	TRY(resource_of(o, process, &resource));
	TRY(attribute(o, "thread.name", comm, &comm_number));
	TRY(stack(o, o->path, depth, &stack_number));
	return count_sample(o, resource, comm_number, stack_number);
}

static int compare_samples(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;

	if (x->resource != y->resource)
		return x->resource < y->resource ? -1 : 1;
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
		TRY(wire_append_packed_u64(&body, 4, &s->count, 1));
		TRY(wire_append_bytes(profile, 2, body.data, body.len));
	}
	return NULL;
}

/** ResourceProfiles of the samples [first, end), all of one process. */
static struct err *put_process(struct otlp *o, uint32_t first, uint32_t end, const uint64_t window[2], struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf profile = {0};
	CLEANUP(buf_deinit) struct buf who = {0};
	CLEANUP(buf_deinit) struct buf scope = {0};
	CLEANUP(buf_deinit) struct buf all = {0};
	const struct resource *resource = &o->resources[o->samples[first].resource];
	uint8_t id[16];
	uint64_t seed[3] = {window[0], resource->pid, window[1] ^ o->samples[first].resource};

	TRY(value_type(o, "samples", "count", 1, &profile));
	TRY(put_samples(o, first, end, &profile));
	TRY(buf_reserve(&profile, ROOM));
	put_fixed64(&profile, 3, window[0]);
	wire_put_field(&profile, 4, window[1]);
	TRY(value_type(o, "cpu", "nanoseconds", 5, &profile));
	TRY(buf_reserve(&profile, ROOM));
	wire_put_field(&profile, 6, 1000000000 / o->hz);
	digest_xxh3_128(seed, sizeof(seed), id);
	TRY(wire_append_bytes(&profile, 7, id, sizeof(id)));
	/* InstrumentationScope { name 1, version 2 } */
	TRY(wire_append_bytes(&who, 1, "cairn-agent", 11));
	TRY(wire_append_bytes(&who, 2, CAIRN_VERSION, strlen(CAIRN_VERSION)));
	TRY(wire_append_bytes(&scope, 1, who.data, who.len));
	TRY(wire_append_bytes(&scope, 2, profile.data, profile.len));
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

/* -------------------------------------------------------------------------------------- export */

struct answer {
	bool ended;
	enum net_grpc_status status;
	char message[256];
};

static void on_message(void *user, const uint8_t *bytes, size_t len)
{
	(void)user;
	(void)bytes;
	(void)len;
}

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct answer *answer = user;

	answer->ended = true;
	answer->status = status;
	snprintf(answer->message, sizeof(answer->message), "%s", message ? message : "");
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct err *otlp_export(const char *collector, const struct net_grpc_client_options *options, const struct buf *request)
{
	static const char path[] = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
	static const struct net_grpc_client_ops ops = {.on_message = on_message, .on_end = on_end};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;
	struct net_grpc_client_call *call = NULL;
	struct answer answer = {0};

	TRY(net_grpc_client_connect(collector, options, &client));
	TRY(net_grpc_client_open(client, path, &ops, &answer, &call));
	TRY(net_grpc_client_send(call, request->data, request->len));
	net_grpc_client_half_close(call);
	for (uint64_t end = now_ms() + EXPORT_TIMEOUT_MS; !answer.ended;) {
		if (now_ms() >= end)
			return err_new(ERR_PEER, "%s: no answer in %d s", collector, EXPORT_TIMEOUT_MS / 1000);
		struct err *e = net_grpc_client_run(client, 100);
		if (e && !answer.ended)
			return err_wrap(e, "%s", collector);
		err_free(e);
	}
	if (answer.status != 0)
		return err_new(ERR_PEER, "%s: status %d: %s", collector, (int)answer.status, answer.message);
	return NULL;
}

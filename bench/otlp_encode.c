// SPDX-License-Identifier: Apache-2.0
/*
 * The same samples by OTLP of proto 1.10, filled as the OpenTelemetry eBPF profiler does: a report is one Export with its
 * own dictionary; a resource a process; a sample is what has one stack, thread and CPU, with the timestamps of all its events;
 * attributes for thread name, thread and CPU; mappings with GNU build ID and file ID; kernel frames with a function, those of
 * Go and Python with function, file and line.
 */
#include "bench/load.h"

#include "base/hex.h"
#include "base/hmap.h"
#include "base/intern.h"
#include "proto/wire.h"

#include <stdio.h>
#include <string.h>

/* Things of a report that have a number in its dictionary: number 0 is none. */
struct table {
	struct buf bytes; /* the encoded elements */
	struct hmap of;
	uint32_t count;
};

enum { MAPPINGS, LOCATIONS, FUNCTIONS, LINKS, STRINGS, ATTRIBUTES, STACKS, TABLES };

struct encoder {
	const struct workload *workload;
	struct table tables[TABLES];
	struct intern strings;
	struct intern attributes; /* key NUL-free text of key=value -> number */
	struct buf message, element, inner, values;
};

/* -------------------------------------------------------------------------------------- dictionary */

static struct err *put_field(struct buf *out, uint32_t field, uint64_t value)
{
	TRY(buf_reserve(out, WIRE_HEAD_MAX + WIRE_VARINT_MAX));
	wire_put_field(out, field, value);
	return NULL;
}

/* Ends an element of a table (field number: its place, plus 1). */
static struct err *add_element(struct encoder *encoder, int table, const struct buf *element)
{
	return wire_append_bytes(&encoder->tables[table].bytes, (uint32_t)table + 1, element->data, element->len);
}

static struct err *add_string(struct encoder *encoder, const char *text, uint32_t *ret)
{
	uint32_t before = encoder->strings.count;

	TRY(intern_add(&encoder->strings, text, strlen(text), ret));
	if (encoder->strings.count == before)
		return NULL;
	return wire_append_bytes(&encoder->tables[STRINGS].bytes, STRINGS + 1, text, strlen(text));
}

/* KeyValueAndUnit {1 key, 2 AnyValue {1 string | 3 int}}. */
static struct err *add_attribute(struct encoder *encoder, const char *key, const char *text, uint64_t number, uint32_t *ret)
{
	char whole[192];
	uint32_t before, key_number;
	struct buf *value = &encoder->values;

	(void)snprintf(whole, sizeof(whole), "%s=%s%llu", key, text ? text : "", text ? 0 : (unsigned long long)number);
	before = encoder->attributes.count;
	TRY(intern_add(&encoder->attributes, whole, strlen(whole), ret));
	*ret += 1;
	if (encoder->attributes.count == before)
		return NULL;
	TRY(add_string(encoder, key, &key_number));
	struct buf *element = &encoder->inner;
	element->len = value->len = 0;
	TRY(put_field(element, 1, key_number));
	if (text)
		TRY(wire_append_bytes(value, 1, text, strlen(text)));
	else {
		TRY(buf_reserve(value, WIRE_HEAD_MAX));
		wire_put_tag(value, 3, WIRE_VARINT);
		wire_put_varint(value, number);
	}
	TRY(wire_append_bytes(element, 2, value->data, value->len));
	return add_element(encoder, ATTRIBUTES, element);
}

/* True when the thing has a number already. */
static bool known(struct table *table, uint64_t thing, uint32_t *ret)
{
	uint64_t number;

	if (!hmap_get(&table->of, thing, &number))
		return false;
	*ret = (uint32_t)number;
	return true;
}

static struct err *number_new(struct table *table, uint64_t thing, uint32_t *ret)
{
	*ret = ++table->count;
	return hmap_set(&table->of, thing, *ret);
}

static struct err *add_mapping(struct encoder *encoder, uint32_t thing, uint32_t *ret)
{
	const struct workload_executable *e = &encoder->workload->executables[thing];
	uint32_t attributes[2], name;
	char hex[41];
	struct buf *element = &encoder->element;

	if (known(&encoder->tables[MAPPINGS], thing, ret))
		return NULL;
	TRY(number_new(&encoder->tables[MAPPINGS], thing, ret));
	TRY(add_string(encoder, e->name, &name));
	hex_format(e->build_id, sizeof(e->build_id), hex);
	TRY(add_attribute(encoder, "process.executable.build_id.gnu", hex, 0, &attributes[0]));
	hex_format(e->file_id, sizeof(e->file_id), hex);
	TRY(add_attribute(encoder, "process.executable.build_id.htlhash", hex, 0, &attributes[1]));
	element->len = 0;
	if (!e->kernel) {
		TRY(put_field(element, 1, 0x1000));
		TRY(put_field(element, 2, 0x1000 + e->text_size));
		TRY(put_field(element, 3, 0x1000));
	}
	TRY(put_field(element, 4, name));
	TRY(wire_append_packed_u32(element, 5, attributes, 2));
	return add_element(encoder, MAPPINGS, element);
}

/* Function {1 name, 3 file}. */
static struct err *add_function(struct encoder *encoder, uint32_t thing, uint32_t *ret)
{
	char name[WORKLOAD_NAME_SIZE], file[WORKLOAD_NAME_SIZE];
	struct buf *element = &encoder->element;
	uint32_t name_number, file_number;

	if (known(&encoder->tables[FUNCTIONS], thing, ret))
		return NULL;
	TRY(number_new(&encoder->tables[FUNCTIONS], thing, ret));
	workload_function(encoder->workload, thing, name);
	workload_file(encoder->workload, thing, file);
	TRY(add_string(encoder, name, &name_number));
	TRY(add_string(encoder, file, &file_number));
	element->len = 0;
	TRY(put_field(element, 1, name_number));
	if (file_number)
		TRY(put_field(element, 3, file_number));
	return add_element(encoder, FUNCTIONS, element);
}

/* Location {1 mapping, 2 address, 3 Line {1 function, 2 line}, 4 attributes}. */
static struct err *add_location(struct encoder *encoder, uint32_t thing, uint32_t *ret)
{
	static const char *const types[] = {
		[WORKLOAD_NATIVE] = "native", [WORKLOAD_KERNEL] = "kernel", [WORKLOAD_GO] = "go", [WORKLOAD_PYTHON] = "cpython"};
	const struct workload_frame *frame = &encoder->workload->frames[thing];
	struct buf *element = &encoder->element;
	uint32_t mapping = 0, type, function = 0;

	if (known(&encoder->tables[LOCATIONS], thing, ret))
		return NULL;
	TRY(number_new(&encoder->tables[LOCATIONS], thing, ret));
	if (frame->kind != WORKLOAD_PYTHON)
		TRY(add_mapping(encoder, frame->executable, &mapping));
	TRY(add_attribute(encoder, "profile.frame.type", types[frame->kind], 0, &type));
	if (frame->kind != WORKLOAD_NATIVE)
		TRY(add_function(encoder, frame->function, &function));
	element->len = 0;
	if (mapping) {
		TRY(put_field(element, 1, mapping));
		TRY(put_field(element, 2, frame->address));
	}
	if (function) {
		encoder->inner.len = 0;
		TRY(put_field(&encoder->inner, 1, function));
		if (frame->kind != WORKLOAD_KERNEL)
			TRY(put_field(&encoder->inner, 2, frame->line));
		TRY(wire_append_bytes(element, 3, encoder->inner.data, encoder->inner.len));
	}
	TRY(wire_append_packed_u32(element, 4, &type, 1));
	return add_element(encoder, LOCATIONS, element);
}

static struct err *add_stack(struct encoder *encoder, uint32_t thing, uint32_t *ret)
{
	const struct workload_trace *trace = &encoder->workload->traces[thing];
	uint32_t locations[256];

	if (known(&encoder->tables[STACKS], thing, ret))
		return NULL;
	TRY(number_new(&encoder->tables[STACKS], thing, ret));
	for (uint32_t i = 0; i < trace->depth; i++)
		TRY(add_location(encoder, trace->frames[i], &locations[i]));
	encoder->element.len = 0;
	TRY(wire_append_packed_u32(&encoder->element, 1, locations, trace->depth));
	return add_element(encoder, STACKS, &encoder->element);
}

static void encoder_reset(struct encoder *encoder)
{
	for (int i = 0; i < TABLES; i++) {
		hmap_deinit(&encoder->tables[i].of);
		encoder->tables[i].bytes.len = 0;
		encoder->tables[i].count = 0;
	}
	intern_deinit(&encoder->strings);
	intern_deinit(&encoder->attributes);
	encoder->message.len = 0;
}

/* Element 0 of every table is the zero value. */
static struct err *begin(struct encoder *encoder)
{
	static const struct buf empty;
	uint32_t zero;

	encoder_reset(encoder);
	for (int i = 0; i < TABLES; i++)
		if (i != STRINGS)
			TRY(wire_append_bytes(&encoder->tables[i].bytes, (uint32_t)i + 1, "", empty.len));
	return add_string(encoder, "", &zero);
}

/* -------------------------------------------------------------------------------------- resources */

static struct err *append_resource_attribute(struct buf *resource, const char *key, const char *text, uint64_t number)
{
	CLEANUP(buf_deinit) struct buf pair = {0}, value = {0};

	if (text && !text[0])
		return NULL;
	TRY(wire_append_bytes(&pair, 1, key, strlen(key)));
	if (text)
		TRY(wire_append_bytes(&value, 1, text, strlen(text)));
	else
		TRY(put_field(&value, 3, number));
	TRY(wire_append_bytes(&pair, 2, value.data, value.len));
	return wire_append_bytes(resource, 1, pair.data, pair.len);
}

static struct err *append_resource(struct encoder *encoder, uint32_t process, struct buf *resource_profiles)
{
	const struct workload_process *p = &encoder->workload->processes[process];
	CLEANUP(buf_deinit) struct buf resource = {0};

	TRY(append_resource_attribute(&resource, "service.name", p->service, 0));
	TRY(append_resource_attribute(&resource, "container.id", p->container, 0));
	TRY(append_resource_attribute(&resource, "process.pid", NULL, p->pid));
	TRY(append_resource_attribute(&resource, "process.executable.name", encoder->workload->executables[p->executable].name, 0));
	return wire_append_bytes(resource_profiles, 1, resource.data, resource.len);
}

/* Sample {1 stack, 2 attributes, 5 timestamps} of @p count events with one stack, thread and CPU. */
static struct err *append_sample(struct encoder *encoder, const struct workload_sample *samples, size_t count, struct buf *profile)
{
	const struct workload_thread *thread = &encoder->workload->threads[samples->thread];
	CLEANUP(buf_deinit) struct buf sample = {0}, times = {0};
	uint32_t stack, attributes[3];

	TRY(add_stack(encoder, samples->trace, &stack));
	TRY(add_attribute(encoder, "thread.name", thread->name, 0, &attributes[0]));
	TRY(add_attribute(encoder, "thread.id", NULL, thread->tid, &attributes[1]));
	TRY(add_attribute(encoder, "cpu.logical_number", NULL, samples->cpu, &attributes[2]));
	TRY(put_field(&sample, 1, stack));
	TRY(wire_append_packed_u32(&sample, 2, attributes, 3));
	for (size_t i = 0; i < count; i++)
		TRY(buf_append(&times, &samples[i].time_unix_nano, 8));
	TRY(wire_append_bytes(&sample, 5, times.data, times.len));
	return wire_append_bytes(profile, 2, sample.data, sample.len);
}

static struct err *append_type(struct encoder *encoder, struct buf *profile, uint32_t field, const char *type, const char *unit)
{
	uint32_t type_number, unit_number;

	TRY(add_string(encoder, type, &type_number));
	TRY(add_string(encoder, unit, &unit_number));
	encoder->inner.len = 0;
	TRY(put_field(&encoder->inner, 1, type_number));
	TRY(put_field(&encoder->inner, 2, unit_number));
	return wire_append_bytes(profile, field, encoder->inner.data, encoder->inner.len);
}

static struct err *append_profile(struct encoder *encoder, const struct workload_sample *samples, size_t count, struct buf *resource_profiles)
{
	CLEANUP(buf_deinit) struct buf profile = {0}, scope = {0};
	uint64_t first = samples[0].time_unix_nano, last = first;
	size_t next;

	for (size_t i = 0; i < count; i++) {
		first = samples[i].time_unix_nano < first ? samples[i].time_unix_nano : first;
		last = samples[i].time_unix_nano > last ? samples[i].time_unix_nano : last;
	}
	TRY(append_type(encoder, &profile, 1, "samples", "count"));
	for (size_t i = 0; i < count; i = next) {
		for (next = i + 1; next < count && samples[next].trace == samples[i].trace && samples[next].thread == samples[i].thread &&
			samples[next].cpu == samples[i].cpu;)
			next++;
		TRY(append_sample(encoder, &samples[i], next - i, &profile));
	}
	TRY(buf_reserve(&profile, 2 * WIRE_HEAD_MAX));
	wire_put_tag(&profile, 3, WIRE_FIXED64);
	TRY(buf_append(&profile, &first, 8));
	TRY(put_field(&profile, 4, last - first + 1));
	TRY(append_type(encoder, &profile, 5, "cpu", "nanoseconds"));
	TRY(put_field(&profile, 6, 1000000000 / encoder->workload->options.hz));
	TRY(wire_append_bytes(&scope, 2, profile.data, profile.len));
	return wire_append_bytes(resource_profiles, 2, scope.data, scope.len);
}

/* What belongs together stands together. */
static int by_sample(const void *a, const void *b, void *context)
{
	const struct workload_sample *x = a, *y = b;
	const struct workload *w = context;
	const uint64_t keys[][2] = {{w->threads[x->thread].process, w->threads[y->thread].process}, {x->trace, y->trace},
		{x->thread, y->thread}, {x->cpu, y->cpu}, {x->time_unix_nano, y->time_unix_nano}};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i][0] != keys[i][1])
			return keys[i][0] < keys[i][1] ? -1 : 1;
	return 0;
}

/* ExportProfilesServiceRequest into encoder->message. */
static struct err *encode(struct encoder *encoder, struct load_report *report)
{
	const struct workload *w = encoder->workload;
	CLEANUP(buf_deinit) struct buf resource = {0}, dictionary = {0};
	size_t next;

	TRY(begin(encoder));
	qsort_r(report->samples, report->count, sizeof(*report->samples), by_sample, (void *)(uintptr_t)w);
	for (size_t i = 0; i < report->count; i = next) {
		uint32_t process = w->threads[report->samples[i].thread].process;
		for (next = i + 1; next < report->count && w->threads[report->samples[next].thread].process == process;)
			next++;
		resource.len = 0;
		TRY(append_resource(encoder, process, &resource));
		TRY(append_profile(encoder, &report->samples[i], next - i, &resource));
		TRY(wire_append_bytes(&encoder->message, 1, resource.data, resource.len));
	}
	for (int i = 0; i < TABLES; i++)
		TRY(buf_append(&dictionary, encoder->tables[i].bytes.data, encoder->tables[i].bytes.len));
	return wire_append_bytes(&encoder->message, 2, dictionary.data, dictionary.len);
}

/* -------------------------------------------------------------------------------------- a message */

static void encoder_deinit(struct encoder *encoder)
{
	encoder_reset(encoder);
	for (int i = 0; i < TABLES; i++)
		buf_deinit(&encoder->tables[i].bytes);
	buf_deinit(&encoder->message);
	buf_deinit(&encoder->element);
	buf_deinit(&encoder->inner);
	buf_deinit(&encoder->values);
}

struct err *load_otlp_encode(const struct workload *workload, struct load_report *report, struct buf *ret)
{
	struct encoder encoder = {.workload = workload};
	struct err *e = encode(&encoder, report);

	if (!e)
		e = buf_append(ret, encoder.message.data, encoder.message.len);
	encoder_deinit(&encoder);
	return e;
}

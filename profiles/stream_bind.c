// SPDX-License-Identifier: Apache-2.0
/*
 * From the numbers of a stream to those of a batch. Each thing is brought into a batch once, when the first sample that needs it
 * is: it remembers the batch (by generation) and its number there, so that a sample costs two array look-ups.
 * What is bound in a stream refers only to what was bound before it; a reference that was since replaced by an incomplete one
 * is found here and asked for (the bind functions give SAMPLES_NONE then).
 */
#include "profiles/stream_internal.h"

#include "base/digest.h"

#include <stdio.h>

enum { FUNCTION_PROBES = 64 };

static struct samples_text text_of(const struct stream *stream, struct stream_span span)
{
	return (struct samples_text){.bytes = span.len ? (const char *)stream->text.data + span.offset : "", .len = span.len};
}

/* "" for 0 and for what is not bound any more. */
static struct samples_text string_of(const struct stream *stream, uint32_t number)
{
	const struct stream_string *string = stream_find(stream, NEED_STRINGS, stream_string, number);

	return string ? text_of(stream, string->text) : (struct samples_text){.bytes = ""};
}

static bool is_bound(const struct stream *stream, const struct stream_bound *bound, uint32_t *ret)
{
	*ret = bound->number;
	return bound->generation == stream->generation;
}

static void set_bound(const struct stream *stream, struct stream_bound *bound, uint32_t number)
{
	*bound = (struct stream_bound){.generation = stream->generation, .number = number};
}

static struct err *bind_executable(struct stream *stream, uint32_t number, uint32_t *ret)
{
	struct stream_executable *executable = stream_find(stream, NEED_EXECUTABLES, stream_executable, number);

	*ret = SAMPLES_NONE;
	if (number == 0 || !executable || is_bound(stream, &executable->bound, ret))
		return NULL;
	struct samples_mapping mapping = {.file_id = executable->file_id,
		.build_id = executable->build_id,
		.go_build_id = text_of(stream, executable->go_build_id),
		.name = text_of(stream, executable->name)};
	TRY(samples_batch_mapping(stream->batch, &mapping, ret));
	set_bound(stream, &executable->bound, *ret);
	return NULL;
}

/* Functions have many lines: each is brought once, and found again by the numbers of its strings. */
static struct err *bind_line(struct stream *stream, const struct agent_line *from, struct samples_line *ret)
{
	uint32_t names[] = {from->function, from->system_name, from->file, from->start_line}, number;
	uint64_t key = digest_xxh3_64(names, sizeof(names)), known;

	*ret = (struct samples_line){.function = string_of(stream, from->function),
		.system_name = string_of(stream, from->system_name),
		.file = string_of(stream, from->file),
		.line = from->line,
		.column = from->column,
		.start_line = from->start_line};
	for (uint64_t last = key + FUNCTION_PROBES; hmap_get(&stream->functions, key, &known); key++) {
		/* So many of one hash are made to be so: they are brought each time. */
		if (key == last)
			return NULL;
		const struct stream_function *function = (const struct stream_function *)stream->bound_functions.data + known;
		if (memcmp(function->names, names, sizeof(names)) != 0)
			continue;
		ret->known_function = function->number + 1;
		return NULL;
	}
	TRY(samples_batch_function(stream->batch, ret, &number));
	struct stream_function made = {.number = number};
	memcpy(made.names, names, sizeof(names));
	TRY(hmap_set(&stream->functions, key, stream->bound_functions.len / sizeof(made)));
	ret->known_function = number + 1;
	return buf_append(&stream->bound_functions, &made, sizeof(made));
}

static struct err *bind_frame(struct stream *stream, const struct stream_frame *frame, uint32_t number, uint32_t *ret)
{
	struct samples_line lines[SAMPLES_LINES_MAX];
	struct samples_location location = {.kind = frame->kind, .address = frame->address, .line_count = frame->line_count};

	TRY(bind_executable(stream, frame->executable, &location.mapping));
	const struct agent_line *from = stream_pool_at(&stream->lines, frame->first_line, sizeof(*from));
	for (uint32_t i = 0; i < frame->line_count; i++)
		TRY(bind_line(stream, &from[i], &lines[i]));
	location.lines = lines;
	TRY(samples_batch_location(stream->batch, &location, ret));
	set_bound(stream, &stream->frame_bounds[number], *ret);
	return NULL;
}

struct err *stream_bind_trace(struct stream *stream, struct stream_trace *trace, uint32_t *ret)
{
	uint32_t locations[STREAM_DEPTH_MAX];

	if (is_bound(stream, &trace->bound, ret))
		return NULL;
	const uint32_t *frames = stream_pool_at(&stream->trace_frames, trace->first, sizeof(*frames));
	for (uint32_t i = 0; i < trace->depth; i++) {
		/* What is bound is known, too. */
		if (frames[i] < stream->frame_bounds_cap && is_bound(stream, &stream->frame_bounds[frames[i]], &locations[i]))
			continue;
		struct stream_frame *frame = stream_find(stream, NEED_FRAMES, stream_frame, frames[i]);
		if (!frame) {
			*ret = SAMPLES_NONE;
			return stream_want(stream, NEED_FRAMES, frames[i]);
		}
		TRY(bind_frame(stream, frame, frames[i], &locations[i]));
	}
	TRY(samples_batch_trace(stream->batch, locations, trace->depth, ret));
	set_bound(stream, &trace->bound, *ret);
	return NULL;
}

/* Labels of every sample of this sender. */
static struct err *bind_agent(struct stream *stream, uint32_t *ret)
{
	if (is_bound(stream, &stream->agent_bound, ret))
		return NULL;
	TRY(samples_batch_labels(stream->batch, SAMPLES_NONE, stream->hello_labels, stream->hello_label_count, ret));
	set_bound(stream, &stream->agent_bound, *ret);
	return NULL;
}

static void add_label(struct samples_label *labels, size_t *count, const char *key, struct samples_text value)
{
	if (value.len > 0)
		labels[(*count)++] = (struct samples_label){.key = {key, strlen(key)}, .value = value};
}

static struct samples_text decimal(char text[16], uint32_t value)
{
	int len = snprintf(text, 16, "%u", value);

	return (struct samples_text){.bytes = text, .len = (size_t)len};
}

static struct err *bind_process(struct stream *stream, uint32_t number, uint32_t *ret)
{
	struct stream_process *process = stream_find(stream, NEED_PROCESSES, stream_process, number);
	struct samples_label labels[STREAM_LABELS_MAX + 5];
	uint32_t agent;
	size_t count = 0;
	char pid[16];

	if (number == 0 || !process)
		return bind_agent(stream, ret);
	if (is_bound(stream, &process->bound, ret))
		return NULL;
	TRY(bind_agent(stream, &agent));
	const uint32_t *words = stream_pool_at(&stream->labels, process->first_label, sizeof(*words));
	for (uint32_t i = 0; i < process->label_count; i++)
		labels[count++] = (struct samples_label){
			.key = string_of(stream, words[2 * i]), .value = string_of(stream, words[2 * i + 1])};
	add_label(labels, &count, SAMPLES_LABEL_PID, decimal(pid, process->pid));
	add_label(labels, &count, SAMPLES_LABEL_EXECUTABLE, string_of(stream, process->executable));
	add_label(labels, &count, "process.executable.path", string_of(stream, process->executable_path));
	add_label(labels, &count, SAMPLES_LABEL_SERVICE, string_of(stream, process->service));
	add_label(labels, &count, SAMPLES_LABEL_CONTAINER, string_of(stream, process->container));
	TRY(samples_batch_labels(stream->batch, agent, labels, count, ret));
	set_bound(stream, &process->bound, *ret);
	return NULL;
}

struct err *stream_bind_thread(struct stream *stream, uint32_t number, uint32_t *ret)
{
	struct stream_thread *thread = stream_find(stream, NEED_THREADS, stream_thread, number);
	struct samples_label labels[2];
	uint32_t process;
	size_t count = 0;
	char tid[16];

	if (number == 0 || !thread)
		return bind_agent(stream, ret);
	if (is_bound(stream, &thread->bound, ret))
		return NULL;
	TRY(bind_process(stream, thread->process, &process));
	add_label(labels, &count, SAMPLES_LABEL_TID, decimal(tid, thread->tid));
	add_label(labels, &count, SAMPLES_LABEL_COMM, string_of(stream, thread->name));
	TRY(samples_batch_labels(stream->batch, process, labels, count, ret));
	set_bound(stream, &thread->bound, *ret);
	return NULL;
}

struct err *stream_bind_type(struct stream *stream, struct stream_type *type, uint32_t *ret)
{
	if (is_bound(stream, &type->bound, ret))
		return NULL;
	struct samples_type made = {.type = text_of(stream, type->type),
		.unit = text_of(stream, type->unit),
		.period_type = text_of(stream, type->period_type),
		.period_unit = text_of(stream, type->period_unit),
		.period = type->period};
	TRY(samples_batch_type(stream->batch, &made, ret));
	set_bound(stream, &type->bound, *ret);
	return NULL;
}

struct err *stream_bind_link(struct stream *stream, struct stream_link *link, uint32_t *ret)
{
	if (is_bound(stream, &link->bound, ret))
		return NULL;
	TRY(samples_batch_link(stream->batch, link->trace_id, link->span_id, ret));
	set_bound(stream, &link->bound, *ret);
	return NULL;
}

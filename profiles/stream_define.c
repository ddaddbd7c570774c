// SPDX-License-Identifier: Apache-2.0
/*
 * Definitions of a stream: taken in, kept by number, forgotten.
 *
 * A definition whose own references are all bound is bound itself; otherwise it is left out and what it lacks is asked for, so
 * that whatever is bound can be followed to its end without a check. Columns are walked in step, in place; a message is
 * read once a table, which costs one look at each of its fields.
 *
 * Memory: all tables, pools and texts count against options.memory_max before they grow. Past it everything is forgotten and
 * the sender asked to begin again with what it still needs: an honest one then sends a small part of it. A message whose
 * shared trace ends unfold to more than that is hostile, and the second time ends the stream.
 */
#include "profiles/stream_internal.h"

enum { TABLE_ITEMS_MIN = 64 };

static const struct {
	const char *name;
	uint32_t max, size;
} kinds[NEED_KINDS + 1] = {
	[NEED_STRINGS] = {"string", STREAM_STRINGS_MAX, sizeof(struct stream_string)},
	[NEED_EXECUTABLES] = {"executable", STREAM_EXECUTABLES_MAX, sizeof(struct stream_executable)},
	[NEED_FRAMES] = {"frame", STREAM_FRAMES_MAX, sizeof(struct stream_frame)},
	[NEED_TRACES] = {"trace", STREAM_TRACES_MAX, sizeof(struct stream_trace)},
	[NEED_PROCESSES] = {"process", STREAM_PROCESSES_MAX, sizeof(struct stream_process)},
	[NEED_THREADS] = {"thread", STREAM_THREADS_MAX, sizeof(struct stream_thread)},
	[NEED_TYPES] = {"type", STREAM_TYPES_MAX, sizeof(struct stream_type)},
	[NEED_LINKS] = {"link", STREAM_LINKS_MAX, sizeof(struct stream_link)},
};

struct err *stream_charge(struct stream *stream, size_t bytes)
{
	if (stream->memory + bytes > stream->options.memory_max) {
		stream->forgot = true;
		return err_new(ERR_LIMIT, "definitions take more than %llu bytes", (unsigned long long)stream->options.memory_max);
	}
	stream->memory += bytes;
	atomic_fetch_add_explicit(&stream->options.counters->memory_bytes, bytes, memory_order_relaxed);
	return NULL;
}

static void pool_deinit(struct stream_pool *pool)
{
	free(pool->items);
	*pool = (struct stream_pool){0};
}

void stream_unbind_functions(struct stream *stream)
{
	hmap_clear(&stream->functions);
	stream->bound_functions.len = 0;
}

void stream_forget(struct stream *stream)
{
	stream_unbind_functions(stream);
	for (uint32_t kind = 1; kind <= NEED_KINDS; kind++) {
		free(stream->tables[kind].items);
		stream->tables[kind] = (struct stream_table){0};
	}
	free(stream->frame_bounds);
	stream->frame_bounds = NULL;
	stream->frame_bounds_cap = 0;
	pool_deinit(&stream->trace_frames);
	pool_deinit(&stream->labels);
	pool_deinit(&stream->lines);
	buf_deinit(&stream->text);
	atomic_fetch_sub_explicit(&stream->options.counters->memory_bytes, stream->memory, memory_order_relaxed);
	stream->memory = 0;
}

/* Room for a number, zeroed unless it is bound. */
static struct err *slot(struct stream *stream, uint32_t kind, uint64_t number, void *item_ret)
{
	struct stream_table *table = &stream->tables[kind];
	size_t size = kinds[kind].size;

	if (number == 0)
		return err_new(ERR_FORMAT, "%s number 0 is none", kinds[kind].name);
	if (number > kinds[kind].max)
		return err_new(ERR_LIMIT, "%s number %llu is over %u", kinds[kind].name, (unsigned long long)number, kinds[kind].max);
	if (number >= table->cap) {
		uint32_t cap = table->cap ? table->cap : TABLE_ITEMS_MIN;
		while (cap <= number)
			cap *= 2;
		TRY(stream_charge(stream, (size_t)(cap - table->cap) * size));
		uint8_t *items = realloc(table->items, cap * size);
		if (!items)
			return err_nomem();
		memset(items + table->cap * size, 0, (cap - table->cap) * size);
		table->items = items;
		table->cap = cap;
	}
	*(void **)item_ret = (uint8_t *)table->items + number * size;
	return NULL;
}

static struct err *pool_reserve(struct stream *stream, struct stream_pool *pool, uint32_t extra, size_t size)
{
	if (extra <= pool->cap - pool->count)
		return NULL;
	uint64_t cap = pool->cap ? pool->cap : TABLE_ITEMS_MIN;

	while (cap < (uint64_t)pool->count + extra)
		cap *= 2;
	TRY(stream_charge(stream, (size_t)(cap - pool->cap) * size));
	void *items = realloc(pool->items, cap * size);
	if (!items)
		return err_nomem();
	pool->items = items;
	pool->cap = (uint32_t)cap;
	return NULL;
}

static struct err *keep_text(struct stream *stream, struct wire_span text, struct stream_span *ret)
{
	size_t len = text.len;

	if (len > STREAM_TEXT_MAX) {
		len = STREAM_TEXT_MAX;
		atomic_fetch_add_explicit(&stream->options.counters->texts_cut, 1, memory_order_relaxed);
	}
	*ret = (struct stream_span){.offset = (uint32_t)stream->text.len, .len = (uint32_t)len};
	if (len == 0)
		return NULL;
	size_t before = stream->text.cap;
	/* Before it grows: buf doubles, so twice the need at most. */
	if (stream->text.len + len > before)
		TRY(stream_charge(stream, stream->text.len + 2 * len));
	TRY(buf_append(&stream->text, text.bytes, len));
	return NULL;
}

struct err *stream_want(struct stream *stream, uint32_t kind, uint32_t number)
{
	struct stream_need *need = &stream->need;
	uint64_t unused, key = (uint64_t)kind << 32 | number;

	need->any = true;
	if (need->counts[kind] == STREAM_NEED_MAX || hmap_get(&need->seen, key, &unused))
		return NULL;
	TRY(hmap_set(&need->seen, key, 1));
	if (!need->numbers[kind]) {
		need->numbers[kind] = calloc(STREAM_NEED_MAX, sizeof(uint32_t));
		if (!need->numbers[kind])
			return err_nomem();
	}
	need->numbers[kind][need->counts[kind]++] = number;
	return NULL;
}

/* Number 0 is none and fine; one that is not bound is asked for and *complete becomes false. */
static struct err *refer(struct stream *stream, uint32_t kind, uint32_t number, bool *complete)
{
	if (number == 0 || stream_find_sized(&stream->tables[kind], number, kinds[kind].size))
		return NULL;
	*complete = false;
	return stream_want(stream, kind, number);
}

/* -------------------------------------------------------------------------------------- columns */

/* The next number of a column as u32; false when there is none, and past 32 bits. */
static bool next_u32(struct wire_repeated *column, uint32_t *ret)
{
	uint64_t value;

	if (!wire_repeated_next(column, &value) || value > UINT32_MAX)
		return false;
	*ret = (uint32_t)value;
	return true;
}

static struct err *short_column(const char *place, const char *what, uint64_t i)
{
	return err_new(ERR_FORMAT, "%s: definitions: %s %llu: its columns are not of one length, or malformed", place, what,
		(unsigned long long)i);
}

/* Where a kind's numbers begin: a scalar field of the message. */
static uint64_t scalar(struct wire_span message, uint32_t number)
{
	struct reader r = wire_reader(message, NULL);
	struct wire_field field;
	uint64_t value = 0;

	while (wire_next(&r, &field))
		if (field.number == number && field.type == WIRE_VARINT)
			value = field.value;
	return value;
}

static struct err *define_strings(struct stream *stream, struct wire_span message)
{
	uint64_t number = scalar(message, DEFINITIONS_FIRST_STRING);
	struct reader r = wire_reader(message, NULL);
	struct wire_field field;
	struct stream_string *string;

	while (wire_next(&r, &field)) {
		if (field.number != DEFINITIONS_STRING || field.type != WIRE_LEN)
			continue;
		struct stream_span text;
		TRY(keep_text(stream, field.bytes, &text));
		TRY(slot(stream, NEED_STRINGS, number++, &string));
		if (string->known)
			stream_unbind_functions(stream); /* it may be that of a function */
		*string = (struct stream_string){.known = true, .text = text};
	}
	return NULL;
}

static bool kind_of(uint32_t wire, uint8_t *ret)
{
	*ret = (uint8_t)(wire == 1 ? PROFILE_FRAME_KERNEL : wire == 2 ? PROFILE_FRAME_INTERPRETED : PROFILE_FRAME_NATIVE);
	return wire <= 2;
}

/* As many as there are frames. */
static struct err *reserve_bounds(struct stream *stream)
{
	uint32_t cap = stream->tables[NEED_FRAMES].cap;

	if (stream->frame_bounds_cap == cap)
		return NULL;
	TRY(stream_charge(stream, (cap - stream->frame_bounds_cap) * sizeof(*stream->frame_bounds)));
	struct stream_bound *bounds = realloc(stream->frame_bounds, cap * sizeof(*bounds));
	if (!bounds)
		return err_nomem();
	memset(bounds + stream->frame_bounds_cap, 0, (cap - stream->frame_bounds_cap) * sizeof(*bounds));
	stream->frame_bounds = bounds;
	stream->frame_bounds_cap = cap;
	return NULL;
}

static struct err *define_frames(struct stream *stream, struct wire_span message, const char *place, uint32_t *count_ret)
{
	uint64_t first = scalar(message, DEFINITIONS_FIRST_FRAME), step, address = 0;
	struct wire_repeated kind = wire_repeated_init(message, DEFINITIONS_FRAME_KIND, false);
	struct wire_repeated executable = wire_repeated_init(message, DEFINITIONS_FRAME_EXECUTABLE, false);
	struct wire_repeated addresses = wire_repeated_init(message, DEFINITIONS_FRAME_ADDRESS, false);
	struct stream_frame *frame;
	uint32_t i = 0, wire_kind;

	for (; wire_repeated_next(&addresses, &step); i++) {
		struct stream_frame made = {.known = true};
		address += (uint64_t)agent_unzigzag(step);
		made.address = address;
		if (!next_u32(&kind, &wire_kind) || !next_u32(&executable, &made.executable))
			return short_column(place, "frame", i);
		if (!kind_of(wire_kind, &made.kind))
			return err_new(ERR_FORMAT, "%s: definitions: frame %u: kind %u of 2", place, i, wire_kind);
		TRY(refer(stream, NEED_EXECUTABLES, made.executable, &made.known));
		TRY(slot(stream, NEED_FRAMES, first + i, &frame));
		TRY(reserve_bounds(stream));
		stream->frame_bounds[first + i] = (struct stream_bound){0};
		*frame = made;
	}
	if (wire_repeated_failed(&addresses) || next_u32(&kind, &wire_kind) || next_u32(&executable, &wire_kind))
		return short_column(place, "frame", i);
	*count_ret = i;
	return NULL;
}

/* The lines of a frame lie together in the pool, so they must come together. */
static struct err *define_line(struct stream *stream, const struct agent_line *line, uint64_t first, uint32_t count, const char *place)
{
	bool complete = true;

	if (line->frame < first || line->frame - first >= count)
		return err_new(ERR_FORMAT, "%s: definitions: a line of frame %u, which is not in this message", place, line->frame);
	struct stream_frame *frame = (struct stream_frame *)stream->tables[NEED_FRAMES].items + line->frame;
	if (frame->line_count == 0)
		frame->first_line = stream->lines.count;
	if (frame->line_count == SAMPLES_LINES_MAX)
		return err_new(ERR_LIMIT, "%s: definitions: more than %d lines of frame %u", place, SAMPLES_LINES_MAX, line->frame);
	if (frame->first_line + frame->line_count != stream->lines.count)
		return err_new(ERR_FORMAT, "%s: definitions: the lines of frame %u are not together", place, line->frame);
	TRY(refer(stream, NEED_STRINGS, line->function, &complete));
	TRY(refer(stream, NEED_STRINGS, line->system_name, &complete));
	TRY(refer(stream, NEED_STRINGS, line->file, &complete));
	TRY(pool_reserve(stream, &stream->lines, 1, sizeof(*line)));
	((struct agent_line *)stream->lines.items)[stream->lines.count++] = *line;
	frame->line_count++;
	frame->known &= complete;
	return NULL;
}

/* Appends to the pool the frames that are not shared, then the shared end of the trace before. */
static struct err *unfold(struct stream *stream, struct wire_repeated *frames, const struct stream_trace *before, uint32_t shared,
	struct stream_trace *trace)
{
	uint32_t own = trace->depth - shared;

	trace->first = stream->trace_frames.count;
	TRY(pool_reserve(stream, &stream->trace_frames, trace->depth, sizeof(uint32_t)));
	uint32_t *pool = stream->trace_frames.items;
	for (uint32_t i = 0; i < own; i++) {
		uint32_t number;
		if (!next_u32(frames, &number))
			return err_new(ERR_FORMAT, "trace_frame ends early");
		TRY(refer(stream, NEED_FRAMES, number, &trace->known));
		if (number == 0)
			return err_new(ERR_FORMAT, "frame number 0 is none");
		pool[trace->first + i] = number;
	}
	if (shared > 0)
		memcpy(pool + trace->first + own, pool + before->first + before->depth - shared, shared * sizeof(uint32_t));
	stream->trace_frames.count += trace->depth;
	return NULL;
}

static struct err *define_traces(struct stream *stream, struct wire_span message, const char *place)
{
	uint64_t first = scalar(message, DEFINITIONS_FIRST_TRACE);
	struct wire_repeated depths = wire_repeated_init(message, DEFINITIONS_TRACE_DEPTH, false);
	struct wire_repeated shares = wire_repeated_init(message, DEFINITIONS_TRACE_SHARED, false);
	struct wire_repeated frames = wire_repeated_init(message, DEFINITIONS_TRACE_FRAME, false);
	struct stream_trace before = {.known = true}, *trace;
	uint32_t i = 0, shared, more;

	for (; i < STREAM_TRACES_MAX; i++) {
		/* What the shared end lacks was asked for when it came, but this one lacks it too. */
		struct stream_trace made = {.known = true};
		if (!next_u32(&depths, &made.depth))
			break;
		if (made.depth > STREAM_DEPTH_MAX)
			return err_new(ERR_LIMIT, "%s: definitions: trace %u: %u frames, more than %d", place, i, made.depth, STREAM_DEPTH_MAX);
		if (!next_u32(&shares, &shared))
			return short_column(place, "trace", i);
		if (shared > made.depth || shared > before.depth)
			return err_new(ERR_FORMAT, "%s: definitions: trace %u: shares %u frames of %u and %u", place, i, shared, made.depth,
				before.depth);
		made.known = shared == 0 || before.known;
		TRY(err_wrap(unfold(stream, &frames, &before, shared, &made), "%s: definitions: trace %u", place, i));
		before = made;
		TRY(slot(stream, NEED_TRACES, first + i, &trace));
		*trace = made;
	}
	if (wire_repeated_failed(&depths) || next_u32(&depths, &more) || next_u32(&shares, &more) || next_u32(&frames, &more))
		return short_column(place, "trace", i);
	return NULL;
}

static struct err *define_threads(struct stream *stream, struct wire_span message, const char *place)
{
	uint64_t first = scalar(message, DEFINITIONS_FIRST_THREAD);
	struct wire_repeated processes = wire_repeated_init(message, DEFINITIONS_THREAD_PROCESS, false);
	struct wire_repeated ids = wire_repeated_init(message, DEFINITIONS_THREAD_ID, false);
	struct wire_repeated names = wire_repeated_init(message, DEFINITIONS_THREAD_NAME, false);
	struct stream_thread *thread;
	uint32_t i = 0, more;

	for (; i < STREAM_THREADS_MAX; i++) {
		struct stream_thread made = {.known = true};
		if (!next_u32(&ids, &made.tid))
			break;
		if (!next_u32(&processes, &made.process) || !next_u32(&names, &made.name))
			return short_column(place, "thread", i);
		TRY(refer(stream, NEED_PROCESSES, made.process, &made.known));
		TRY(refer(stream, NEED_STRINGS, made.name, &made.known));
		TRY(slot(stream, NEED_THREADS, first + i, &thread));
		*thread = made;
	}
	if (wire_repeated_failed(&ids) || next_u32(&ids, &more) || next_u32(&processes, &more) || next_u32(&names, &more))
		return short_column(place, "thread", i);
	return NULL;
}

/* -------------------------------------------------------------------------------------- one by one */

static struct err *define_executable(struct stream *stream, struct wire_span message)
{
	struct agent_executable executable;
	struct agent_segment segment;
	struct stream_executable *item, made = {.known = true};
	uint32_t segments = 0;

	TRY(agent_executable_read(message, &executable));
	if (executable.file_id.len != 0 && executable.file_id.len != FILEID_BYTES)
		return err_new(ERR_FORMAT, "executable %u: a file ID of %zu bytes", executable.number, executable.file_id.len);
	if (executable.build_id.len > BUILD_ID_MAX)
		return err_new(ERR_FORMAT, "executable %u: a build ID of %zu bytes", executable.number, executable.build_id.len);
	struct reader r = wire_reader(executable.segments, "executable");
	while (agent_segment_next(&r, &segment))
		if (++segments > STREAM_SEGMENTS_MAX)
			return err_new(ERR_LIMIT, "executable %u: more than %d segments", executable.number, STREAM_SEGMENTS_MAX);
	if (r.failed)
		return reader_error(&r, "malformed segment");
	made.kernel = executable.kernel;
	if (executable.file_id.len)
		memcpy(made.file_id.bytes, executable.file_id.bytes, FILEID_BYTES);
	made.build_id.len = (uint8_t)executable.build_id.len;
	if (executable.build_id.len)
		memcpy(made.build_id.bytes, executable.build_id.bytes, executable.build_id.len);
	TRY(keep_text(stream, executable.go_build_id, &made.go_build_id));
	TRY(keep_text(stream, executable.name, &made.name));
	TRY(slot(stream, NEED_EXECUTABLES, executable.number, &item));
	*item = made;
	if (stream->options.ops->executable)
		stream->options.ops->executable(stream->options.context, &executable);
	return NULL;
}

static struct err *define_process(struct stream *stream, struct wire_span message)
{
	struct agent_process process;
	struct stream_process *item;

	TRY(agent_process_read(message, &process));
	struct stream_process made = {.known = true,
		.pid = process.pid,
		.executable = process.executable,
		.executable_path = process.executable_path,
		.service = process.service,
		.container = process.container,
		.first_label = stream->labels.count};
	TRY(refer(stream, NEED_STRINGS, made.executable, &made.known));
	TRY(refer(stream, NEED_STRINGS, made.executable_path, &made.known));
	TRY(refer(stream, NEED_STRINGS, made.service, &made.known));
	TRY(refer(stream, NEED_STRINGS, made.container, &made.known));
	struct wire_repeated labels = wire_repeated_init(message, PROCESS_LABELS, false);
	uint32_t number, words = 0;
	while (next_u32(&labels, &number)) {
		if (++words > 2 * STREAM_LABELS_MAX)
			return err_new(ERR_LIMIT, "process %u: more than %d labels", process.number, STREAM_LABELS_MAX);
		TRY(refer(stream, NEED_STRINGS, number, &made.known));
		TRY(pool_reserve(stream, &stream->labels, 1, sizeof(uint32_t)));
		((uint32_t *)stream->labels.items)[stream->labels.count++] = number;
	}
	if (wire_repeated_failed(&labels) || words % 2 != 0)
		return err_new(ERR_FORMAT, "process %u: labels are pairs of strings", process.number);
	made.label_count = words / 2;
	TRY(slot(stream, NEED_PROCESSES, process.number, &item));
	*item = made;
	return NULL;
}

static struct err *define_type(struct stream *stream, struct wire_span message)
{
	struct agent_type type;
	struct stream_type *item, made = {.known = true};

	TRY(agent_type_read(message, &type));
	TRY(keep_text(stream, type.type, &made.type));
	TRY(keep_text(stream, type.unit, &made.unit));
	TRY(keep_text(stream, type.period_type, &made.period_type));
	TRY(keep_text(stream, type.period_unit, &made.period_unit));
	made.period = type.period;
	TRY(slot(stream, NEED_TYPES, type.number, &item));
	*item = made;
	return NULL;
}

static struct err *define_link(struct stream *stream, struct wire_span message)
{
	struct agent_link link;
	struct stream_link *item, made = {.known = true};

	TRY(agent_link_read(message, &link));
	if (link.trace_id.len != sizeof(made.trace_id) || link.span_id.len != sizeof(made.span_id))
		return err_new(ERR_FORMAT, "link %u: a trace ID of %zu bytes, a span ID of %zu", link.number, link.trace_id.len,
			link.span_id.len);
	memcpy(made.trace_id, link.trace_id.bytes, sizeof(made.trace_id));
	memcpy(made.span_id, link.span_id.bytes, sizeof(made.span_id));
	TRY(slot(stream, NEED_LINKS, link.number, &item));
	*item = made;
	return NULL;
}

/* The fields @p number, each a message. */
static struct err *define_each(struct stream *stream, struct wire_span message, uint32_t number,
	struct err *(*define)(struct stream *stream, struct wire_span message), const char *place)
{
	struct reader r = wire_reader(message, NULL);
	struct wire_field field;

	while (wire_next(&r, &field))
		if (field.number == number && field.type == WIRE_LEN)
			TRY(err_wrap(define(stream, field.bytes), "%s: definitions", place));
	return NULL;
}

static struct err *define_lines(struct stream *stream, struct wire_span message, uint32_t frames, const char *place)
{
	uint64_t first = scalar(message, DEFINITIONS_FIRST_FRAME);
	struct reader r = wire_reader(message, NULL);
	struct wire_field field;
	struct agent_line line;

	while (wire_next(&r, &field)) {
		if (field.number != DEFINITIONS_LINE || field.type != WIRE_LEN)
			continue;
		TRY(err_wrap(agent_line_read(field.bytes, &line), "%s: definitions", place));
		TRY(define_line(stream, &line, first, frames, place));
	}
	return NULL;
}

struct err *stream_define(struct stream *stream, struct wire_span message, const char *place)
{
	struct reader r = wire_reader(message, "definitions");
	struct wire_field field;
	uint32_t frames = 0;

	while (wire_next(&r, &field))
		;
	if (r.failed)
		return err_wrap(reader_error(&r, "malformed message"), "%s", place);
	/* In this order: what is named comes before what names it. */
	TRY(err_wrap(define_strings(stream, message), "%s: definitions", place));
	TRY(define_each(stream, message, DEFINITIONS_EXECUTABLE, define_executable, place));
	TRY(define_frames(stream, message, place, &frames));
	TRY(define_lines(stream, message, frames, place));
	TRY(define_traces(stream, message, place));
	TRY(define_each(stream, message, DEFINITIONS_PROCESS, define_process, place));
	TRY(define_threads(stream, message, place));
	TRY(define_each(stream, message, DEFINITIONS_TYPE, define_type, place));
	return define_each(stream, message, DEFINITIONS_LINK, define_link, place);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * One stream: envelopes in, a batch of samples gathered, envelopes out.
 *
 * An envelope of samples is looked at twice. First every column is walked alone: lengths must agree, every number must be bound;
 * an unknown one means that nothing of the envelope is taken and a `need` goes out with its sequence number (the sender still
 * has it). Then the columns are walked in step and the samples added. So an envelope is in a batch whole or not at all, and
 * its number, by which it is counted once, stands for all of it.
 *
 * While a batch is on its way to the disk the next one is gathered: the slower commits are, the more envelopes share one.
 */
#include "profiles/stream_internal.h"

#include <stdio.h>

enum { GATHER_SAMPLES = 1 << 20, FORGETS_MAX = 2, PLACE_SIZE = 48 };

static void count(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

struct err *stream_create(const struct stream_options *options, struct stream **ret)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return err_nomem();
	stream->options = *options;
	if (!stream->options.memory_max)
		stream->options.memory_max = STREAM_MEMORY_MAX_DEFAULT;
	stream->generation = 1;
	*ret = stream;
	return NULL;
}

void stream_destroy(struct stream *stream)
{
	if (!stream)
		return;
	stream_forget(stream);
	for (uint32_t kind = 1; kind <= NEED_KINDS; kind++)
		free(stream->need.numbers[kind]);
	hmap_deinit(&stream->need.seen);
	hmap_deinit(&stream->functions);
	buf_deinit(&stream->bound_functions);
	buf_deinit(&stream->hello_text);
	buf_deinit(&stream->scratch);
	stream_ticket_deinit(&stream->ticket);
	samples_batch_destroy(stream->batch);
	free(stream);
}

void stream_destroyp(struct stream **stream)
{
	stream_destroy(*stream);
}

void stream_ticket_deinit(struct stream_ticket *ticket)
{
	free(ticket->sequences);
	*ticket = (struct stream_ticket){0};
}

const uint8_t *stream_instance(const struct stream *stream)
{
	return stream->has_hello ? stream->instance : NULL;
}

size_t stream_memory(const struct stream *stream)
{
	return stream->memory;
}

/* -------------------------------------------------------------------------------------- outwards */

/* Sends stream->scratch as the body. */
static struct err *send_scratch(struct stream *stream, enum server_body body)
{
	struct buf message = {0};
	struct err *e = server_envelope_write(&message, body, &stream->scratch);

	stream->scratch.len = 0;
	if (e) {
		buf_deinit(&message);
		return e;
	}
	stream->options.ops->send(stream->options.context, &message);
	buf_deinit(&message);
	return NULL;
}

static struct err *send_need(struct stream *stream, uint64_t sequence, bool all)
{
	struct stream_need *need = &stream->need;
	struct buf *out = &stream->scratch;

	out->len = 0;
	for (uint32_t kind = 1; kind <= NEED_KINDS; kind++) {
		TRY(wire_append_packed_u32(out, kind, need->numbers[kind], need->counts[kind]));
		need->counts[kind] = 0;
	}
	TRY(buf_reserve(out, 2 * WIRE_HEAD_MAX));
	wire_put_field(out, NEED_ALL, all);
	wire_put_field(out, NEED_SEQUENCE, sequence);
	hmap_clear(&need->seen);
	need->any = false;
	return send_scratch(stream, SERVER_NEED);
}

static struct err *send_welcome(struct stream *stream)
{
	static const char version[] = "cairnd " CAIRN_VERSION;
	struct server_welcome welcome = {
		.version = {(const uint8_t *)version, sizeof(version) - 1},
		.samples_max = STREAM_SAMPLES_MAX,
		.message_bytes_max = STREAM_MESSAGE_BYTES_MAX,
		.envelopes_per_second = stream->options.envelopes_per_second,
		.status_interval_seconds = 10,
	};

	stream->scratch.len = 0;
	TRY(server_welcome_write(&stream->scratch, &welcome));
	return send_scratch(stream, SERVER_WELCOME);
}

/* -------------------------------------------------------------------------------------- hello */

static struct err *keep_label(struct stream *stream, struct wire_span key, struct wire_span value)
{
	struct samples_label *label = &stream->hello_labels[stream->hello_label_count];

	/* Lengths now; addresses once the text stands still. */
	label->key.len = key.len < STREAM_TEXT_MAX ? key.len : STREAM_TEXT_MAX;
	label->value.len = value.len < STREAM_TEXT_MAX ? value.len : STREAM_TEXT_MAX;
	TRY(buf_append(&stream->hello_text, key.bytes, label->key.len));
	TRY(buf_append(&stream->hello_text, value.bytes, label->value.len));
	stream->hello_label_count++;
	return NULL;
}

static struct err *keep_labels(struct stream *stream, const struct agent_hello *hello)
{
	static const char host[] = SAMPLES_LABEL_HOST;
	struct reader r = wire_reader(hello->labels, "hello");
	struct agent_label label;

	TRY(buf_reserve(&stream->hello_text, 1));
	if (hello->host_name.len > 0)
		TRY(keep_label(stream, (struct wire_span){(const uint8_t *)host, sizeof(host) - 1}, hello->host_name));
	for (uint32_t i = 0; agent_label_next(&r, &label); i++) {
		if (i == STREAM_LABELS_MAX)
			return err_new(ERR_LIMIT, "hello: more than %d labels", STREAM_LABELS_MAX);
		if (label.key.len == 0)
			return err_new(ERR_FORMAT, "hello: label %u has no key", i);
		TRY(keep_label(stream, label.key, label.value));
	}
	if (r.failed)
		return reader_error(&r, "malformed label");
	const char *at = (const char *)stream->hello_text.data;
	for (uint32_t i = 0; i < stream->hello_label_count; i++) {
		struct samples_label *kept = &stream->hello_labels[i];
		kept->key.bytes = at;
		kept->value.bytes = at + kept->key.len;
		at = kept->value.bytes + kept->value.len;
	}
	return NULL;
}

static struct err *take_hello(struct stream *stream, struct wire_span message)
{
	struct agent_hello hello;

	if (stream->has_hello)
		return err_new(ERR_INVALID, "a second hello");
	TRY(agent_hello_read(message, &hello));
	if (hello.instance.len != AGENT_INSTANCE_BYTES)
		return err_new(ERR_FORMAT, "hello: an instance of %zu bytes, not %d", hello.instance.len, AGENT_INSTANCE_BYTES);
	memcpy(stream->instance, hello.instance.bytes, AGENT_INSTANCE_BYTES);
	TRY(keep_labels(stream, &hello));
	stream->has_hello = true;
	if (stream->options.ops->hello)
		stream->options.ops->hello(stream->options.context, &hello);
	return send_welcome(stream);
}

/* -------------------------------------------------------------------------------------- samples */

/* One envelope's columns. */
struct columns {
	uint64_t sequence, base_time, period;
	uint32_t type, count;
	bool summed, has_thread, has_step, has_value, has_link, has_cpu;
	struct wire_repeated cpu_run, thread, trace, time_step, time_rest, value, link;
};

static struct err *bad_column(const struct columns *columns, const char *what, uint64_t i)
{
	return err_new(ERR_FORMAT, "envelope %llu: samples: %s %llu of %u samples: not of one length, or malformed",
		(unsigned long long)columns->sequence, what, (unsigned long long)i, columns->count);
}

/* Walks a column of numbers of @p kind (0: of anything up to @p max). Its length must be that of the samples, or 0. */
static struct err *check_column(struct stream *stream, const struct columns *columns, struct wire_repeated column, const char *name,
	uint32_t kind, bool *has_ret)
{
	uint64_t value;
	uint32_t i = 0;

	for (; wire_repeated_next(&column, &value); i++) {
		if (i == columns->count)
			return bad_column(columns, name, i);
		if (kind == 0)
			continue;
		if (value > UINT32_MAX)
			return bad_column(columns, name, i);
		uint32_t number = (uint32_t)value;
		bool known = true;
		if (kind == NEED_TRACES)
			known = stream_find(stream, NEED_TRACES, stream_trace, number) != NULL;
		else if (number != 0)
			known = kind == NEED_THREADS ? stream_find(stream, NEED_THREADS, stream_thread, number) != NULL
						     : stream_find(stream, NEED_LINKS, stream_link, number) != NULL;
		if (kind == NEED_TRACES && number == 0)
			return bad_column(columns, "number 0 in trace", i);
		if (!known)
			TRY(stream_want(stream, kind, number));
	}
	if (wire_repeated_failed(&column) || (i != columns->count && i != 0))
		return bad_column(columns, name, i);
	*has_ret = i > 0;
	return NULL;
}

/* Runs of CPU + 1 and count: they must come to all samples. */
static struct err *check_cpus(struct columns *columns)
{
	struct wire_repeated runs = columns->cpu_run;
	uint64_t cpu, run, sum = 0;

	while (wire_repeated_next(&runs, &cpu)) {
		if (cpu > SAMPLES_CPU_MAX + 1 || !wire_repeated_next(&runs, &run) || run > columns->count - sum)
			return bad_column(columns, "cpu_run", sum);
		sum += run;
		columns->has_cpu = true;
	}
	if (wire_repeated_failed(&runs) || (columns->has_cpu && sum != columns->count))
		return bad_column(columns, "cpu_run", sum);
	return NULL;
}

static struct err *count_samples(struct columns *columns)
{
	struct wire_repeated trace = columns->trace;
	uint64_t value;
	uint32_t n = 0;

	while (wire_repeated_next(&trace, &value))
		if (++n > STREAM_SAMPLES_MAX)
			return err_new(ERR_LIMIT, "envelope %llu: more than %d samples", (unsigned long long)columns->sequence,
				STREAM_SAMPLES_MAX);
	columns->count = n;
	return wire_repeated_failed(&trace) ? bad_column(columns, "trace", n) : NULL;
}

static struct err *read_scalars(struct wire_span message, struct columns *columns)
{
	struct reader r = wire_reader(message, "samples");
	struct wire_field field;

	while (wire_next(&r, &field)) {
		if (field.number == SAMPLES_TYPE && field.type == WIRE_VARINT)
			columns->type = field.value > UINT32_MAX ? UINT32_MAX : (uint32_t)field.value;
		else if (field.number == SAMPLES_BASE_TIME && field.type == WIRE_FIXED64)
			columns->base_time = field.value;
		else if (field.number == SAMPLES_PERIOD && field.type == WIRE_VARINT)
			columns->period = field.value;
		else if (field.number == SAMPLES_SUMMED && field.type == WIRE_VARINT)
			columns->summed = field.value != 0;
	}
	if (r.failed)
		return err_wrap(reader_error(&r, "malformed message"), "envelope %llu", (unsigned long long)columns->sequence);
	return NULL;
}

/* All that can be wrong with an envelope; what is not bound is asked for. */
static struct err *check_samples(struct stream *stream, struct wire_span message, struct columns *columns)
{
	bool unused;

	TRY(read_scalars(message, columns));
	columns->cpu_run = wire_repeated_init(message, SAMPLES_CPU_RUN, false);
	columns->thread = wire_repeated_init(message, SAMPLES_THREAD, false);
	columns->trace = wire_repeated_init(message, SAMPLES_TRACE, false);
	columns->time_step = wire_repeated_init(message, SAMPLES_TIME_STEP, false);
	columns->time_rest = wire_repeated_init(message, SAMPLES_TIME_REST, false);
	columns->value = wire_repeated_init(message, SAMPLES_VALUE, false);
	columns->link = wire_repeated_init(message, SAMPLES_LINK, false);
	TRY(count_samples(columns));
	TRY(check_cpus(columns));
	TRY(check_column(stream, columns, columns->trace, "trace", NEED_TRACES, &unused));
	TRY(check_column(stream, columns, columns->thread, "thread", NEED_THREADS, &columns->has_thread));
	TRY(check_column(stream, columns, columns->link, "link", NEED_LINKS, &columns->has_link));
	TRY(check_column(stream, columns, columns->time_step, "time_step", 0, &columns->has_step));
	TRY(check_column(stream, columns, columns->value, "value", 0, &columns->has_value));
	TRY(check_column(stream, columns, columns->time_rest, "time_rest", 0, &unused));
	if (!unused && columns->count > 0)
		return bad_column(columns, "time_rest", 0);
	if (!stream_find(stream, NEED_TYPES, stream_type, columns->type))
		TRY(stream_want(stream, NEED_TYPES, columns->type));
	return NULL;
}

static uint64_t next(struct wire_repeated *column)
{
	uint64_t value = 0;

	(void)wire_repeated_next(column, &value); /* check_column has counted */
	return value;
}

/* One sample of the columns: its numbers, as those of the batch. */
static struct err *bind_sample(struct stream *stream, struct columns *columns, struct samples_sample *sample)
{
	uint32_t trace = (uint32_t)next(&columns->trace);
	uint32_t thread = columns->has_thread ? (uint32_t)next(&columns->thread) : 0;
	uint32_t link = columns->has_link ? (uint32_t)next(&columns->link) : 0;

	TRY(stream_bind_trace(stream, stream_find(stream, NEED_TRACES, stream_trace, trace), &sample->trace));
	TRY(stream_bind_thread(stream, thread, &sample->labels));
	sample->link = 0;
	if (link)
		TRY(stream_bind_link(stream, stream_find(stream, NEED_LINKS, stream_link, link), &sample->link));
	sample->value = columns->has_value ? next(&columns->value) : 1;
	return NULL;
}

static struct err *add_samples(struct stream *stream, struct columns *columns)
{
	struct samples_sample sample = {.cpu = -1, .exact = !columns->summed, .time_unix_nano = columns->base_time};
	uint64_t run_left = columns->has_cpu ? 0 : columns->count;

	TRY(stream_bind_type(stream, stream_find(stream, NEED_TYPES, stream_type, columns->type), &sample.type));
	for (uint32_t i = 0; i < columns->count; i++) {
		while (run_left == 0) {
			sample.cpu = (int32_t)next(&columns->cpu_run) - 1;
			run_left = next(&columns->cpu_run);
			sample.time_unix_nano = columns->base_time;
		}
		run_left--;
		uint64_t step = columns->has_step ? next(&columns->time_step) : 0;
		sample.time_unix_nano += step * columns->period + (uint64_t)agent_unzigzag(next(&columns->time_rest));
		TRY(bind_sample(stream, columns, &sample));
		if (stream->need.any)
			return NULL; /* a frame of a trace was replaced by an incomplete one: not taken after all */
		TRY(samples_batch_add(stream->batch, &sample));
	}
	return NULL;
}

static struct err *remember(struct stream_ticket *ticket, uint64_t sequence)
{
	if (ticket->count == ticket->cap) {
		uint32_t cap = ticket->cap ? 2 * ticket->cap : 64;
		uint64_t *sequences = reallocarray(ticket->sequences, cap, sizeof(*sequences));
		if (!sequences)
			return err_nomem();
		ticket->sequences = sequences;
		ticket->cap = cap;
	}
	ticket->sequences[ticket->count++] = sequence;
	return NULL;
}

static struct err *refuse_samples(struct stream *stream, uint64_t sequence)
{
	count(&stream->options.counters->needs_samples, 1);
	return send_need(stream, sequence, false);
}

static struct err *take_samples(struct stream *stream, uint64_t sequence, struct wire_span message)
{
	struct columns columns = {.sequence = sequence};

	if (sequence == 0)
		return err_new(ERR_INVALID, "samples without a sequence number");
	TRY(check_samples(stream, message, &columns));
	if (stream->need.any)
		return refuse_samples(stream, sequence);
	if (!stream->batch)
		TRY(samples_batch_create(stream->options.samples, stream->options.tenant, &stream->batch));
	TRY(samples_batch_sequence(stream->batch, stream->instance, sequence));
	struct err *e = add_samples(stream, &columns);
	if (!e && !stream->need.any)
		e = remember(&stream->ticket, sequence);
	if (e || stream->need.any)
		samples_batch_drop_profile(stream->batch);
	if (e)
		return err_wrap(e, "envelope %llu", (unsigned long long)sequence);
	if (stream->need.any)
		return refuse_samples(stream, sequence);
	stream->ticket.samples += columns.count;
	stream->forgets = 0;
	count(&stream->options.counters->samples, columns.count);
	return NULL;
}

/* -------------------------------------------------------------------------------------- definitions */

static struct err *take_definitions(struct stream *stream, uint64_t number, struct wire_span message)
{
	char place[PLACE_SIZE];

	(void)snprintf(place, sizeof(place), "envelope %llu", (unsigned long long)number);
	count(&stream->options.counters->definitions, 1);
	stream->forgot = false;
	struct err *e = stream_define(stream, message, place);
	if (e && stream->forgot && err_code(e) == ERR_LIMIT && stream->forgets++ < FORGETS_MAX) {
		err_free(e);
		stream_forget(stream);
		count(&stream->options.counters->forgotten, 1);
		return send_need(stream, 0, true);
	}
	TRY(e);
	if (!stream->need.any)
		return NULL;
	count(&stream->options.counters->needs_definitions, 1);
	return send_need(stream, 0, false);
}

static struct err *dispatch(struct stream *stream, const struct agent_envelope *envelope)
{
	struct agent_status status;

	if (envelope->body == AGENT_HELLO)
		return take_hello(stream, envelope->bytes);
	if (!stream->has_hello)
		return err_new(ERR_INVALID, "the first envelope is no hello");
	switch (envelope->body) {
	case AGENT_DEFINITIONS:
		return take_definitions(stream, envelope->sequence, envelope->bytes);
	case AGENT_SAMPLES:
		return take_samples(stream, envelope->sequence, envelope->bytes);
	case AGENT_STATUS:
		TRY(agent_status_read(envelope->bytes, &status));
		if (stream->options.ops->status)
			stream->options.ops->status(stream->options.context, &status);
		return NULL;
	default: /* a debug reply: nothing was asked */
		count(&stream->options.counters->unknown_bodies, 1);
		return NULL;
	}
}

struct err *stream_feed(struct stream *stream, const void *message, size_t len)
{
	struct agent_envelope envelope;

	count(&stream->options.counters->envelopes, 1);
	struct err *e = agent_envelope_read((struct wire_span){message, len}, &envelope);
	if (!e)
		e = dispatch(stream, &envelope);
	if (e && (err_code(e) == ERR_FORMAT || err_code(e) == ERR_INVALID))
		count(&stream->options.counters->malformed, 1);
	if (e && err_code(e) == ERR_LIMIT)
		count(&stream->options.counters->past_limit, 1);
	return e;
}

/* -------------------------------------------------------------------------------------- batches */

bool stream_is_full(const struct stream *stream)
{
	return stream->batch && (stream->ticket.count >= STREAM_GATHER_ENVELOPES || stream->ticket.samples >= GATHER_SAMPLES ||
					samples_batch_bytes(stream->batch) >= STREAM_GATHER_BYTES);
}

uint32_t stream_gathered(const struct stream *stream)
{
	return stream->ticket.count;
}

bool stream_take(struct stream *stream, struct samples_batch **batch_ret, struct stream_ticket *ret)
{
	if (!stream->batch || stream->ticket.count == 0)
		return false;
	*batch_ret = TAKE_PTR(stream->batch);
	*ret = stream->ticket;
	stream->ticket = (struct stream_ticket){0};
	stream->generation++;
	stream_unbind_functions(stream);
	return true;
}

struct err *stream_acknowledge(struct stream *stream, struct stream_ticket *take_ticket, const struct samples_result *result)
{
	struct server_acknowledgement acknowledgement = {.rejected_future = result->rejected_future,
		.rejected_old = result->rejected_old,
		.duplicates = result->duplicate_profiles};

	count(&stream->options.counters->acknowledged, take_ticket->count);
	count(&stream->options.counters->duplicates, result->duplicate_profiles);
	count(&stream->options.counters->rejected_future, result->rejected_future);
	count(&stream->options.counters->rejected_old, result->rejected_old);
	stream->scratch.len = 0;
	struct err *e =
		server_acknowledgement_write(&stream->scratch, &acknowledgement, take_ticket->sequences, take_ticket->count);
	stream_ticket_deinit(take_ticket);
	return e ? e : send_scratch(stream, SERVER_ACKNOWLEDGEMENT);
}

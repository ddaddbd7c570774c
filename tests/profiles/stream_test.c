// SPDX-License-Identifier: Apache-2.0
#include "profiles/stream.h"
#include "proto/agent_write.h"
#include "tests/profiles/samples_fixture.h"

#include <criterion/criterion.h>

/* Everything that one test needs: a stream on a store, what it sent, and an envelope to fill. */
struct rig {
	struct bench_store store;
	struct stream *stream;
	struct stream_counters counters;
	struct buf sent; /* the last envelope */
	uint32_t sent_count, hellos, statuses, executables;
	struct agent_definitions definitions;
	struct buf body, envelope;
};

static void on_send(void *context, struct buf *take_message)
{
	struct rig *rig = context;

	buf_deinit(&rig->sent);
	rig->sent = *take_message;
	*take_message = (struct buf){0};
	rig->sent_count++;
}

static void on_hello(void *context, const struct agent_hello *hello)
{
	((struct rig *)context)->hellos += hello->cpus;
}

static void on_status(void *context, const struct agent_status *status)
{
	((struct rig *)context)->statuses += (uint32_t)status->samples;
}

static void on_executable(void *context, const struct agent_executable *executable)
{
	((struct rig *)context)->executables += executable->number;
}

static const struct stream_ops ops = {on_send, on_hello, on_status, on_executable};

static void rig_open(struct rig *rig, uint64_t memory_max)
{
	*rig = (struct rig){0};
	make_samples(&rig->store);
	const struct stream_options options = {.samples = rig->store.samples,
		.tenant = 1,
		.memory_max = memory_max,
		.envelopes_per_second = 77,
		.ops = &ops,
		.context = rig,
		.counters = &rig->counters};
	MUST(stream_create(&options, &rig->stream));
}

static void rig_close(struct rig *rig)
{
	stream_destroy(rig->stream);
	cr_expect_eq(rig->counters.memory_bytes, 0);
	agent_definitions_deinit(&rig->definitions);
	buf_deinit(&rig->body);
	buf_deinit(&rig->envelope);
	buf_deinit(&rig->sent);
	end_samples(&rig->store);
}

static struct err *feed(struct rig *rig, uint64_t sequence, enum agent_body body)
{
	rig->envelope.len = 0;
	MUST(agent_envelope_write(&rig->envelope, sequence, body, &rig->body));
	rig->body.len = 0;
	return stream_feed(rig->stream, rig->envelope.data, rig->envelope.len);
}

static struct wire_span span(const char *text)
{
	return (struct wire_span){(const uint8_t *)text, strlen(text)};
}

static struct err *feed_hello(struct rig *rig)
{
	const struct agent_hello hello = {.instance = span("0123456789abcdef"), .host_name = span("h1"), .cpus = 4};
	const struct agent_label label = {span("team"), span("blue")};

	rig->body.len = 0;
	MUST(agent_hello_write(&rig->body, &hello, &label, 1));
	return feed(rig, 0, AGENT_HELLO);
}

/* Strings 1 "web", 2 "main", 3 "f", 4 "g"; frames 1 f, 2 g (interpreted); traces 1 {f, g}, 2 {g}; process 1, thread 1, type 1. */
static struct err *feed_definitions(struct rig *rig)
{
	static const char *const texts[] = {"web", "main", "f", "g"};
	struct agent_definitions *d = &rig->definitions;
	const struct agent_executable executable = {.number = 9, .file_id = span("aaaabbbbccccdddd"), .name = span("prog")};
	const struct agent_process process = {.number = 1, .pid = 42, .service = 1};
	const struct agent_type type = {.number = 1, .type = span("samples"), .unit = span("count")};
	const uint32_t trace[] = {1, 2};

	for (uint32_t i = 0; i < 4; i++)
		MUST(agent_definitions_string(d, i + 1, texts[i], strlen(texts[i])));
	MUST(agent_executable_write(&d->fields, &executable, NULL, 0));
	for (uint32_t i = 1; i <= 2; i++) {
		const struct agent_line line = {.frame = i, .function = 2 + i, .line = i};
		MUST(agent_definitions_frame(d, i, 2, 0, 0));
		MUST(agent_line_write(&d->fields, &line));
	}
	MUST(agent_definitions_trace(d, 1, trace, 2));
	MUST(agent_definitions_trace(d, 2, trace + 1, 1));
	MUST(agent_process_write(&d->fields, &process, NULL, 0));
	MUST(agent_definitions_thread(d, 1, 1, 43, 2));
	MUST(agent_type_write(&d->fields, &type));
	rig->body.len = 0;
	MUST(agent_definitions_finish(d, &rig->body));
	return feed(rig, 0, AGENT_DEFINITIONS);
}

/* Three samples on two CPUs, at 1 s, 1.05 s and 2 s of the hour: {f, g} twice, {g} once. */
static struct err *feed_samples(struct rig *rig, uint64_t sequence)
{
	const uint64_t start = HOUR_START_MS * 1000000;
	struct agent_sample samples[] = {{start + 2000000000, 1, 1, 2, 0, 1}, {start + 1000000003, 1, 1, 1, 0, 0},
		{start + 1050000001, 1, 1, 1, 0, 0}};

	rig->body.len = 0;
	MUST(agent_samples_write(&rig->body, 1, 50000000, false, samples, 3));
	return feed(rig, sequence, AGENT_SAMPLES);
}

static struct samples_result settle(struct rig *rig)
{
	struct samples_batch *batch;
	struct stream_ticket ticket;
	struct samples_result result;

	cr_assert(stream_take(rig->stream, &batch, &ticket));
	MUST(samples_commit_wait(&batch, &result));
	MUST(stream_acknowledge(rig->stream, &ticket, &result));
	return result;
}

/* The body of what was sent last, which must be of that kind. */
static struct wire_span last_sent(struct rig *rig, enum server_body body)
{
	struct server_envelope envelope = {0};

	MUST(server_envelope_read((struct wire_span){rig->sent.data, rig->sent.len}, &envelope));
	cr_assert_eq(envelope.body, body, "%d", envelope.body);
	return envelope.bytes;
}

/* The i-th number of a repeated field, 0 past its end. */
static uint64_t number_at(struct wire_span message, uint32_t field, uint32_t i)
{
	struct wire_repeated numbers = wire_repeated_init(message, field, false);
	uint64_t value = 0;

	for (uint32_t n = 0; n <= i; n++)
		if (!wire_repeated_next(&numbers, &value))
			return 0;
	return value;
}

static void expect_error(struct err *e, enum err_code code, const char *words)
{
	cr_assert_not_null(e, "%s", words);
	cr_expect_eq(err_code(e), code, "%s", err_message(e));
	cr_expect_not_null(strstr(err_message(e), words), "%s", err_message(e));
	err_free(e);
}

Test(stream_feed, takes_samples_and_acknowledges_what_is_durable)
{
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	struct server_welcome welcome;
	MUST(server_welcome_read(last_sent(&rig, SERVER_WELCOME), &welcome));
	cr_expect_eq(welcome.samples_max, STREAM_SAMPLES_MAX);
	cr_expect_eq(welcome.envelopes_per_second, 77);
	cr_expect_eq(rig.hellos, 4);
	MUST(feed_definitions(&rig));
	cr_expect_eq(rig.executables, 9);
	MUST(feed_samples(&rig, 5));
	cr_expect_eq(rig.sent_count, 1, "nothing is acknowledged before it is durable");
	struct samples_result result = settle(&rig);
	cr_expect_eq(result.samples, 3);
	cr_expect_eq(number_at(last_sent(&rig, SERVER_ACKNOWLEDGEMENT), 1, 0), 5);
	struct samples_query query = {.tenant = 1};
	char *text = folded(rig.store.samples, &query, NULL);
	cr_expect_str_eq(text, "g 1\ng;f 2\n");
	free(text);
	rig_close(&rig);
}

static struct err *keep_time(void *context, const struct samples_event *event)
{
	uint64_t *times = context;

	times[event->time_unix_nano % 10 == 3 ? 0 : event->time_unix_nano % 10 == 1 ? 1 : 2] = event->time_unix_nano;
	cr_expect_eq(event->cpu, event->time_unix_nano % 10 == 0 ? 1 : 0);
	return NULL;
}

Test(stream_feed, keeps_times_to_the_nanosecond_and_cpus)
{
	struct rig rig;
	uint64_t times[3] = {0}, start = HOUR_START_MS * 1000000;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(feed_definitions(&rig));
	MUST(feed_samples(&rig, 1));
	(void)settle(&rig);
	struct samples_query query = {.tenant = 1};
	MUST(samples_events(rig.store.samples, &query, keep_time, times));
	cr_expect_eq(times[0], start + 1000000003);
	cr_expect_eq(times[1], start + 1050000001);
	cr_expect_eq(times[2], start + 2000000000);
	rig_close(&rig);
}

Test(stream_feed, labels_samples_by_agent_process_and_thread)
{
	static const char *const filters[][2] = {{"host", "h1"}, {"team", "blue"}, {"service", "web"}, {"pid", "42"}, {"tid", "43"}, {"comm", "main"}};
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(feed_definitions(&rig));
	MUST(feed_samples(&rig, 1));
	(void)settle(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		struct samples_label filter = {text_make(filters[i][0]), text_make(filters[i][1])};
		struct samples_query query = {.tenant = 1, .filters = &filter, .filter_count = 1};
		cr_expect_eq(total(rig.store.samples, &query), 3, "%s", filters[i][0]);
		filter.value = TEXT("other");
		cr_expect_eq(total(rig.store.samples, &query), 0, "%s", filters[i][0]);
	}
	rig_close(&rig);
}

Test(stream_feed, counts_a_sequence_of_an_instance_once)
{
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(feed_definitions(&rig));
	MUST(feed_samples(&rig, 1));
	MUST(feed_samples(&rig, 1)); /* in one batch */
	MUST(feed_samples(&rig, 2));
	struct samples_result result = settle(&rig);
	cr_expect_eq(result.samples, 6);
	cr_expect_eq(result.duplicate_profiles, 1);
	MUST(feed_samples(&rig, 2)); /* in a later one */
	result = settle(&rig);
	cr_expect_eq(result.samples, 0);
	struct server_acknowledgement acknowledgement;
	MUST(server_acknowledgement_read(last_sent(&rig, SERVER_ACKNOWLEDGEMENT), &acknowledgement));
	cr_expect_eq(acknowledgement.duplicates, 1);
	cr_expect_eq(number_at(acknowledgement.sequences, 1, 0), 2, "it is durable all the same");
	struct samples_query query = {.tenant = 1};
	cr_expect_eq(total(rig.store.samples, &query), 6);
	rig_close(&rig);
}

Test(stream_feed, asks_for_unknown_numbers_and_takes_the_samples_when_they_come_again)
{
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(feed_samples(&rig, 7));
	struct wire_span need = last_sent(&rig, SERVER_NEED);
	cr_expect_eq(number_at(need, NEED_TRACES, 0), 1);
	cr_expect_eq(number_at(need, NEED_TRACES, 1), 2, "each once");
	cr_expect_eq(number_at(need, NEED_TRACES, 2), 0);
	cr_expect_eq(number_at(need, NEED_THREADS, 0), 1);
	cr_expect_eq(number_at(need, NEED_TYPES, 0), 1);
	cr_expect_eq(number_at(need, NEED_SEQUENCE, 0), 7);
	cr_expect_eq(rig.counters.needs_samples, 1);
	struct samples_batch *batch;
	struct stream_ticket ticket;
	cr_expect_not(stream_take(rig.stream, &batch, &ticket));
	MUST(feed_definitions(&rig));
	MUST(feed_samples(&rig, 7));
	cr_expect_eq(settle(&rig).samples, 3);
	rig_close(&rig);
}

Test(stream_feed, asks_for_what_definitions_name_and_nobody_defined)
{
	const uint32_t frames[] = {11};
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(agent_definitions_frame(&rig.definitions, 10, 0, 3, 0x1000));
	MUST(agent_definitions_trace(&rig.definitions, 1, frames, 1));
	MUST(agent_definitions_thread(&rig.definitions, 1, 8, 1, 21));
	MUST(agent_definitions_finish(&rig.definitions, &rig.body));
	MUST(feed(&rig, 0, AGENT_DEFINITIONS));
	struct wire_span need = last_sent(&rig, SERVER_NEED);
	cr_expect_eq(number_at(need, NEED_EXECUTABLES, 0), 3);
	cr_expect_eq(number_at(need, NEED_FRAMES, 0), 11);
	cr_expect_eq(number_at(need, NEED_PROCESSES, 0), 8);
	cr_expect_eq(number_at(need, NEED_STRINGS, 0), 21);
	cr_expect_eq(number_at(need, NEED_SEQUENCE, 0), 0);
	rig_close(&rig);
}

Test(stream_feed, forgets_all_past_its_memory_and_asks_anew)
{
	struct rig rig;
	rig_open(&rig, 24 << 10);
	MUST(feed_hello(&rig));
	MUST(feed_definitions(&rig));
	char text[9000];
	memset(text, 'x', sizeof(text));
	MUST(agent_definitions_string(&rig.definitions, 100, text, sizeof(text)));
	MUST(agent_definitions_finish(&rig.definitions, &rig.body));
	MUST(feed(&rig, 0, AGENT_DEFINITIONS));
	cr_expect_eq(number_at(last_sent(&rig, SERVER_NEED), NEED_ALL, 0), 1);
	cr_expect_eq(stream_memory(rig.stream), 0);
	cr_expect_eq(rig.counters.forgotten, 1);
	MUST(feed_definitions(&rig));
	MUST(feed_samples(&rig, 1));
	cr_expect_eq(settle(&rig).samples, 3);
	rig_close(&rig);
}

Test(stream_feed, ends_a_stream_whose_one_message_is_past_its_memory)
{
	struct rig rig;
	struct err *e = NULL;
	rig_open(&rig, 4 << 10);
	MUST(feed_hello(&rig));
	for (int i = 0; i < 3 && !e; i++)
		e = feed_definitions(&rig);
	expect_error(e, ERR_LIMIT, "more than 4096 bytes");
	cr_expect_eq(rig.counters.past_limit, 1);
	rig_close(&rig);
}

Test(stream_feed, rejects_samples_with_a_clock_in_the_future)
{
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(feed_definitions(&rig));
	atomic_store(&rig.store.now_ms, HOUR_START_MS - HOUR_MS);
	MUST(feed_samples(&rig, 1));
	struct samples_result result = settle(&rig);
	cr_expect_eq(result.samples, 0);
	struct server_acknowledgement acknowledgement;
	MUST(server_acknowledgement_read(last_sent(&rig, SERVER_ACKNOWLEDGEMENT), &acknowledgement));
	cr_expect_eq(acknowledgement.rejected_future, 3);
	cr_expect_eq(rig.counters.rejected_future, 3);
	rig_close(&rig);
}

Test(stream_feed, refuses_what_comes_before_the_hello_and_a_second_one)
{
	struct rig rig;
	rig_open(&rig, 0);
	expect_error(feed_definitions(&rig), ERR_INVALID, "no hello");
	MUST(feed_hello(&rig));
	expect_error(feed_hello(&rig), ERR_INVALID, "a second hello");
	expect_error(feed_samples(&rig, 0), ERR_INVALID, "without a sequence");
	cr_expect_eq(rig.counters.malformed, 3);
	rig_close(&rig);
}

Test(stream_feed, ignores_unknown_bodies_and_members)
{
	static const uint8_t unknown[] = {0x9a, 0x06, 3, 1, 2, 3, 0xa0, 0x06, 7}; /* fields 99 and 100 */
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(stream_feed(rig.stream, unknown, sizeof(unknown)));
	MUST(feed_definitions(&rig));
	rig.body.len = 0;
	const struct agent_status status = {.samples = 6};
	MUST(agent_status_write(&rig.body, &status, NULL, 0));
	MUST(buf_append(&rig.body, unknown, sizeof(unknown)));
	MUST(feed(&rig, 0, AGENT_STATUS));
	cr_expect_eq(rig.statuses, 6);
	rig_close(&rig);
}

/* Fields of a Samples as they stand on the wire. */
static const struct {
	const char *name;
	uint8_t bytes[24];
	size_t len;
	enum err_code code;
	const char *words;
} bad_samples[] = {
	{"threads are fewer", {0x2a, 1, 1, 0x32, 2, 1, 1, 0x42, 2, 0, 0}, 11, ERR_FORMAT, "thread"},
	{"threads are more", {0x2a, 3, 1, 1, 1, 0x32, 2, 1, 1, 0x42, 2, 0, 0}, 13, ERR_FORMAT, "thread"},
	{"no times", {0x32, 2, 1, 1}, 4, ERR_FORMAT, "time_rest"},
	{"runs fall short", {0x22, 2, 1, 1, 0x32, 2, 1, 1, 0x42, 2, 0, 0}, 12, ERR_FORMAT, "cpu_run"},
	{"runs go past the end", {0x22, 2, 1, 3, 0x32, 2, 1, 1, 0x42, 2, 0, 0}, 12, ERR_FORMAT, "cpu_run"},
	{"half a run", {0x22, 1, 1, 0x32, 2, 1, 1, 0x42, 2, 0, 0}, 11, ERR_FORMAT, "cpu_run"},
	{"a CPU over all", {0x22, 4, 0x80, 0x80, 4, 1, 0x32, 1, 1, 0x42, 1, 0}, 12, ERR_FORMAT, "cpu_run"},
	{"trace 0", {0x32, 1, 0, 0x42, 1, 0}, 6, ERR_FORMAT, "number 0"},
	{"cut", {0x32, 9, 1}, 3, ERR_FORMAT, "malformed"},
};

Test(stream_feed, names_the_place_of_malformed_samples)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_samples); i++) {
		struct rig rig;
		rig_open(&rig, 0);
		MUST(feed_hello(&rig));
		MUST(feed_definitions(&rig));
		rig.body.len = 0;
		MUST(buf_append(&rig.body, bad_samples[i].bytes, bad_samples[i].len));
		struct err *e = feed(&rig, 31, AGENT_SAMPLES);
		cr_assert_not_null(e, "%s", bad_samples[i].name);
		cr_expect_not_null(strstr(err_message(e), "envelope 31"), "%s", err_message(e));
		expect_error(e, bad_samples[i].code, bad_samples[i].words);
		rig_close(&rig);
	}
}

static void append_fill(struct buf *out, uint32_t field, size_t count, uint8_t value)
{
	MUST(buf_reserve(out, WIRE_HEAD_MAX + count));
	wire_put_tag(out, field, WIRE_LEN);
	wire_put_varint(out, count);
	memset(out->data + out->len, value, count);
	out->len += count;
}

Test(stream_feed, refuses_more_samples_than_an_envelope_may_have)
{
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(feed_definitions(&rig));
	append_fill(&rig.body, SAMPLES_TRACE, STREAM_SAMPLES_MAX + 1, 1);
	append_fill(&rig.body, SAMPLES_TIME_REST, STREAM_SAMPLES_MAX + 1, 0);
	expect_error(feed(&rig, 1, AGENT_SAMPLES), ERR_LIMIT, "more than 65536 samples");
	rig_close(&rig);
}

/* Fields of a Definitions. */
static const struct {
	uint8_t bytes[24];
	size_t len;
	enum err_code code;
	const char *words;
} bad_definitions[] = {
	{{0x12, 1, 'a'}, 3, ERR_FORMAT, "string number 0"},
	{{0x08, 0x81, 0x80, 0x80, 0x01, 0x12, 1, 'a'}, 8, ERR_LIMIT, "string number 2097153 is over 1048576"},
	{{0x20, 1, 0x2a, 1, 0, 0x32, 1, 0, 0x3a, 2, 0, 0}, 12, ERR_FORMAT, "frame 1"},
	{{0x20, 1, 0x2a, 1, 9, 0x32, 1, 0, 0x3a, 1, 0}, 11, ERR_FORMAT, "kind 9"},
	{{0x48, 1, 0x52, 2, 0x81, 0x20, 0x5a, 1, 0}, 9, ERR_LIMIT, "4097 frames, more than 4096"},
	{{0x48, 1, 0x52, 1, 2, 0x5a, 1, 1}, 8, ERR_FORMAT, "shares 1 frames"},
	{{0x48, 1, 0x52, 1, 2, 0x5a, 1, 0, 0x62, 1, 1}, 11, ERR_FORMAT, "trace_frame ends early"},
	{{0x1a, 5, 0x08, 1, 0x12, 1, 1}, 7, ERR_FORMAT, "file ID of 1 bytes"},
	{{0x42, 2, 0x08, 5}, 4, ERR_FORMAT, "not in this message"},
	{{0x9a, 1, 2, 0x08, 1}, 5, ERR_FORMAT, "trace ID of 0 bytes"},
	{{0x6a, 5, 0x08, 1, 0x3a, 1, 1}, 7, ERR_FORMAT, "pairs"},
};

Test(stream_feed, names_the_place_of_malformed_definitions)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_definitions); i++) {
		struct rig rig;
		rig_open(&rig, 0);
		MUST(feed_hello(&rig));
		rig.body.len = 0;
		MUST(buf_append(&rig.body, bad_definitions[i].bytes, bad_definitions[i].len));
		expect_error(feed(&rig, 0, AGENT_DEFINITIONS), bad_definitions[i].code, bad_definitions[i].words);
		rig_close(&rig);
	}
}

Test(stream_feed, survives_a_message_cut_at_every_length)
{
	struct rig rig;
	rig_open(&rig, 0);
	MUST(feed_hello(&rig));
	MUST(feed_definitions(&rig));
	MUST(feed_samples(&rig, 1));
	(void)settle(&rig);
	struct buf whole = rig.envelope;
	rig.envelope = (struct buf){0};
	for (size_t len = 0; len < whole.len; len++)
		err_free(stream_feed(rig.stream, whole.data, len));
	MUST(feed_samples(&rig, 2));
	struct samples_batch *batch;
	struct stream_ticket ticket;
	cr_expect(stream_take(rig.stream, &batch, &ticket));
	cr_expect_eq(ticket.sequences[ticket.count - 1], 2);
	cr_expect_eq(ticket.samples % 3, 0, "an envelope is taken whole or not at all");
	samples_batch_destroy(batch);
	stream_ticket_deinit(&ticket);
	buf_deinit(&whole);
	rig_close(&rig);
}

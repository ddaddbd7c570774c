// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's side of the stream. Numbers are given at first use on a connection (so that what is frequent gets short ones, and
 * what is defined together follows each other) and forgotten with it; what the server asks for with `need` is defined again.
 */
#include "bench/load.h"

#include "proto/agent_write.h"

#include <stdio.h>
#include <sys/random.h>
#include <time.h>

enum { SEND_QUEUE_BYTES = 1 << 20, DEFINITIONS_BYTES = 1 << 20, STATUS_MS = 10000, TYPE = 1, WAIT_MS = 5, KINDS = NEED_KINDS + 1 };

/* Numbers of the things of one kind. */
struct numbers {
	uint32_t *of;	 /* thing -> number; 0: none yet */
	uint32_t *thing; /* number -> thing */
	bool *sent;	 /* number -> the server knows it */
	uint32_t count, cap;
};

struct sender {
	const struct load_options *options;
	struct load_queue *queue;
	struct load_totals *totals;
	struct net_grpc_client *client;
	struct net_grpc_client_call *call;
	bool ended; /* the call */
	enum net_grpc_status status;
	char message[256];
	FILE *record;
	uint8_t instance[AGENT_INSTANCE_BYTES];
	struct numbers numbers[KINDS]; /* by NEED_..; executables and processes: thing + 1 is the number */
	bool type_sent;
	struct agent_definitions definitions;
	struct agent_sample *samples;
	struct buf body, envelope;
	uint64_t status_ns;
	struct err *failed;
};

static struct err *numbers_init(struct numbers *numbers, uint32_t things)
{
	numbers->cap = things + 1;
	numbers->of = calloc(things + 1, sizeof(*numbers->of));
	numbers->thing = calloc(things + 1, sizeof(*numbers->thing));
	numbers->sent = calloc(things + 1, sizeof(*numbers->sent));
	return numbers->of && numbers->thing && numbers->sent ? NULL : err_nomem();
}

static uint32_t number_of(struct numbers *numbers, uint32_t thing)
{
	if (!numbers->of[thing]) {
		numbers->of[thing] = ++numbers->count;
		numbers->thing[numbers->count] = thing;
	}
	return numbers->of[thing];
}

/* -------------------------------------------------------------------------------------- envelopes out */

static struct err *send_envelope(struct sender *sender, uint64_t sequence, enum agent_body body)
{
	sender->envelope.len = 0;
	TRY(agent_envelope_write(&sender->envelope, sequence, body, &sender->body));
	sender->body.len = 0;
	if (sender->record) {
		uint32_t len = (uint32_t)sender->envelope.len;
		if (fwrite(&len, 4, 1, sender->record) != 1 || fwrite(sender->envelope.data, len, 1, sender->record) != 1)
			return err_new(ERR_OS, "cannot write the record");
	}
	return sender->call ? net_grpc_client_send(sender->call, sender->envelope.data, sender->envelope.len) : NULL;
}

static struct wire_span span(const char *text)
{
	return (struct wire_span){(const uint8_t *)text, strlen(text)};
}

static struct err *send_hello(struct sender *sender)
{
	const struct agent_hello hello = {.instance = {sender->instance, sizeof(sender->instance)},
		.version = span("cairn-load " CAIRN_VERSION),
		.host_name = span("made-up-host"),
		.host_id = span("0123456789"),
		.kernel = span("6.1.0-made-up"),
		.machine = span("x86_64"),
		.cpus = sender->queue->workload->options.cpus};
	const struct agent_label label = {span("deployment.environment"), span("bench")};

	sender->body.len = 0;
	TRY(agent_hello_write(&sender->body, &hello, &label, 1));
	return send_envelope(sender, 0, AGENT_HELLO);
}

static struct err *send_status(struct sender *sender)
{
	struct timespec now, cpu;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	const struct agent_status status = {.time_unix_nano = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
		.cpu_user_ns = (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec,
		.memory_bytes = 10 << 20,
		.samples = sender->queue->made};
	const struct agent_loss loss = {span("none_really"), 0};

	sender->body.len = 0;
	TRY(agent_status_write(&sender->body, &status, &loss, 1));
	return send_envelope(sender, 0, AGENT_STATUS);
}

static struct err *flush_definitions(struct sender *sender)
{
	if (agent_definitions_bytes(&sender->definitions) == 0)
		return NULL;
	sender->body.len = 0;
	TRY(agent_definitions_finish(&sender->definitions, &sender->body));
	return send_envelope(sender, 0, AGENT_DEFINITIONS);
}

/* Room for one more of a kind whose numbers must be consecutive. */
static struct err *make_room(struct sender *sender, uint32_t kind, uint32_t number)
{
	if (agent_definitions_fits(&sender->definitions, kind, number) && agent_definitions_bytes(&sender->definitions) < DEFINITIONS_BYTES)
		return NULL;
	return flush_definitions(sender);
}

/* -------------------------------------------------------------------------------------- definitions */

/* Strings are things by number only: text of string i is kept where it is first used. */
static struct err *define_string(struct sender *sender, uint32_t thing, const char *text, uint32_t *ret)
{
	struct numbers *numbers = &sender->numbers[NEED_STRINGS];

	*ret = 0;
	if (!text[0])
		return NULL;
	*ret = number_of(numbers, thing);
	if (numbers->sent[*ret])
		return NULL;
	TRY(make_room(sender, NEED_STRINGS, *ret));
	TRY(agent_definitions_string(&sender->definitions, *ret, text, strlen(text)));
	numbers->sent[*ret] = true;
	return NULL;
}

/* Things of strings: four a process, one a thread, one a frame. */
static uint32_t process_string(uint32_t process, uint32_t which)
{
	return 4 * process + which;
}
static uint32_t thread_string(const struct sender *sender, uint32_t thread)
{
	return 4 * sender->queue->workload->options.processes + thread;
}
static uint32_t frame_string(const struct sender *sender, uint32_t frame)
{
	return thread_string(sender, sender->queue->workload->thread_count) + frame;
}

static struct err *define_executable(struct sender *sender, uint32_t thing)
{
	const struct workload_executable *e = &sender->queue->workload->executables[thing];
	struct numbers *numbers = &sender->numbers[NEED_EXECUTABLES];
	const struct agent_segment segment = {.offset = 0x1000, .vaddr = 0x1000, .size = e->text_size, .executable = true};

	if (numbers->sent[thing + 1])
		return NULL;
	const struct agent_executable executable = {.number = thing + 1,
		.file_id = {e->file_id, sizeof(e->file_id)},
		.build_id = {e->build_id, sizeof(e->build_id)},
		.name = span(e->name),
		.size = e->text_size + 0x2000,
		.elf_machine = 62,
		.kernel = e->kernel};
	numbers->sent[thing + 1] = true;
	return agent_executable_write(&sender->definitions.fields, &executable, &segment, e->kernel ? 0 : 1);
}

static struct err *define_frame(struct sender *sender, uint32_t thing, uint32_t *ret)
{
	const struct workload_frame *frame = &sender->queue->workload->frames[thing];
	struct numbers *numbers = &sender->numbers[NEED_FRAMES];
	uint32_t function = 0;

	*ret = number_of(numbers, thing);
	if (numbers->sent[*ret])
		return NULL;
	TRY(define_executable(sender, frame->executable));
	if (frame->kernel)
		TRY(define_string(sender, frame_string(sender, thing), frame->function, &function));
	TRY(make_room(sender, NEED_FRAMES, *ret));
	TRY(agent_definitions_frame(&sender->definitions, *ret, frame->kernel ? 1 : 0, frame->executable + 1, frame->address));
	if (function) {
		const struct agent_line line = {.frame = *ret, .function = function};
		TRY(agent_line_write(&sender->definitions.fields, &line));
	}
	numbers->sent[*ret] = true;
	return NULL;
}

static struct err *define_trace(struct sender *sender, uint32_t thing, uint32_t *ret)
{
	const struct workload_trace *trace = &sender->queue->workload->traces[thing];
	struct numbers *numbers = &sender->numbers[NEED_TRACES];
	uint32_t frames[256];

	*ret = number_of(numbers, thing);
	if (numbers->sent[*ret])
		return NULL;
	for (uint32_t i = 0; i < trace->depth; i++)
		TRY(define_frame(sender, trace->frames[i], &frames[i]));
	TRY(make_room(sender, NEED_TRACES, *ret));
	TRY(agent_definitions_trace(&sender->definitions, *ret, frames, trace->depth));
	numbers->sent[*ret] = true;
	return NULL;
}

static struct err *define_process(struct sender *sender, uint32_t thing)
{
	const struct workload *w = sender->queue->workload;
	const struct workload_process *p = &w->processes[thing];
	struct numbers *numbers = &sender->numbers[NEED_PROCESSES];
	struct agent_process process = {.number = thing + 1, .pid = p->pid};

	if (numbers->sent[thing + 1])
		return NULL;
	TRY(define_string(sender, process_string(thing, 0), w->executables[p->executable].name, &process.executable));
	TRY(define_string(sender, process_string(thing, 1), p->service, &process.service));
	TRY(define_string(sender, process_string(thing, 2), p->container, &process.container));
	numbers->sent[thing + 1] = true;
	return agent_process_write(&sender->definitions.fields, &process, NULL, 0);
}

static struct err *define_thread(struct sender *sender, uint32_t thing, uint32_t *ret)
{
	const struct workload_thread *thread = &sender->queue->workload->threads[thing];
	struct numbers *numbers = &sender->numbers[NEED_THREADS];
	uint32_t name;

	*ret = number_of(numbers, thing);
	if (numbers->sent[*ret])
		return NULL;
	TRY(define_process(sender, thread->process));
	TRY(define_string(sender, thread_string(sender, thing), thread->name, &name));
	TRY(make_room(sender, NEED_THREADS, *ret));
	TRY(agent_definitions_thread(&sender->definitions, *ret, thread->process + 1, thread->tid, name));
	numbers->sent[*ret] = true;
	return NULL;
}

static struct err *define_type(struct sender *sender)
{
	const struct agent_type type = {.number = TYPE,
		.type = span("samples"),
		.unit = span("count"),
		.period_type = span("cpu"),
		.period_unit = span("nanoseconds"),
		.period = 1000000000 / sender->queue->workload->options.hz};

	if (sender->type_sent)
		return NULL;
	sender->type_sent = true;
	return agent_type_write(&sender->definitions.fields, &type);
}

/* -------------------------------------------------------------------------------------- samples */

static struct err *send_report(struct sender *sender, struct load_report *report)
{
	uint64_t period = 1000000000 / sender->queue->workload->options.hz;

	TRY(define_type(sender));
	for (size_t i = 0; i < report->count; i++) {
		const struct workload_sample *from = &report->samples[i];
		struct agent_sample *sample = &sender->samples[i];
		*sample = (struct agent_sample){.time_unix_nano = from->time_unix_nano, .value = 1, .cpu = (int32_t)from->cpu};
		TRY(define_trace(sender, from->trace, &sample->trace));
		TRY(define_thread(sender, from->thread, &sample->thread));
	}
	TRY(flush_definitions(sender));
	sender->body.len = 0;
	TRY(agent_samples_write(&sender->body, TYPE, period, false, sender->samples, report->count));
	report->sent = true;
	return send_envelope(sender, report->sequence, AGENT_SAMPLES);
}

static struct err *send_reports(struct sender *sender)
{
	for (uint32_t i = 0; i < sender->queue->count; i++) {
		if (sender->call && net_grpc_client_queued(sender->call) > SEND_QUEUE_BYTES)
			return NULL;
		if (!sender->queue->items[i].sent)
			TRY(send_report(sender, &sender->queue->items[i]));
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- envelopes in */

static struct err *on_acknowledgement(struct sender *sender, struct wire_span bytes)
{
	struct server_acknowledgement acknowledgement;
	uint64_t sequence;

	TRY(server_acknowledgement_read(bytes, &acknowledgement));
	sender->totals->rejected_future += acknowledgement.rejected_future;
	sender->totals->rejected_old += acknowledgement.rejected_old;
	sender->totals->duplicates += acknowledgement.duplicates;
	struct wire_repeated sequences = wire_repeated_init(acknowledgement.sequences, 1, false);
	while (wire_repeated_next(&sequences, &sequence))
		if (!load_queue_acknowledge(sender->queue, sequence))
			return err_new(ERR_PEER, "the server acknowledges %llu, which was not sent", (unsigned long long)sequence);
	return NULL;
}

/* The server knows nothing: numbers are given anew, so that those that belong together follow each other again. */
static void forget_all(struct sender *sender)
{
	for (uint32_t kind = 1; kind < KINDS; kind++) {
		struct numbers *numbers = &sender->numbers[kind];
		if (!numbers->cap)
			continue;
		memset(numbers->sent, 0, numbers->cap * sizeof(*numbers->sent));
		memset(numbers->of, 0, numbers->cap * sizeof(*numbers->of));
		numbers->count = 0;
	}
	sender->type_sent = false;
}

static struct err *on_need(struct sender *sender, struct wire_span bytes)
{
	struct reader r = wire_reader(bytes, "need");
	struct wire_field field;
	uint64_t number, sequence = 0;
	bool all = false;

	sender->totals->needs++;
	while (wire_next(&r, &field)) {
		all |= field.number == NEED_ALL && field.value;
		if (field.number == NEED_SEQUENCE)
			sequence = field.value;
	}
	for (uint32_t kind = 1; kind < KINDS; kind++) {
		struct wire_repeated numbers = wire_repeated_init(bytes, kind, false);
		while (wire_repeated_next(&numbers, &number)) {
			if (kind == NEED_TYPES)
				sender->type_sent = false;
			else if (sender->numbers[kind].sent && number < sender->numbers[kind].cap)
				sender->numbers[kind].sent[number] = false;
		}
	}
	if (all)
		forget_all(sender);
	for (uint32_t i = 0; i < sender->queue->count; i++) {
		if (sender->queue->items[i].sequence == sequence) {
			sender->queue->items[i].sent = false;
			sender->totals->resent++;
		}
	}
	return NULL;
}

static struct err *take(struct sender *sender, struct wire_span message)
{
	struct server_envelope envelope;
	struct server_want want;

	TRY(server_envelope_read(message, &envelope));
	switch (envelope.body) {
	case SERVER_ACKNOWLEDGEMENT:
		return on_acknowledgement(sender, envelope.bytes);
	case SERVER_NEED:
		return on_need(sender, envelope.bytes);
	case SERVER_PACE:
		sender->totals->paces++;
		return NULL;
	case SERVER_WANT_SYMBOLS:
		for (struct reader r = wire_reader(envelope.bytes, "want"); server_want_next(&r, &want);)
			sender->totals->wants++;
		return NULL;
	default:
		return NULL;
	}
}

static void on_message(void *user, const uint8_t *bytes, size_t len)
{
	struct sender *sender = user;
	struct err *e = take(sender, (struct wire_span){bytes, len});

	if (e && !sender->failed)
		sender->failed = e;
	else
		err_free(e);
}

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct sender *sender = user;

	sender->ended = true;
	sender->call = NULL;
	sender->status = status;
	(void)snprintf(sender->message, sizeof(sender->message), "%s", message);
}

static const struct net_grpc_client_ops ops = {.on_message = on_message, .on_end = on_end};

/* -------------------------------------------------------------------------------------- one connection after another */

static struct err *begin(struct sender *sender)
{
	forget_all(sender);
	agent_definitions_deinit(&sender->definitions);
	for (uint32_t i = 0; i < sender->queue->count; i++) {
		sender->totals->resent += sender->queue->items[i].sent;
		sender->queue->items[i].sent = false;
	}
	if (!sender->options->address)
		return send_hello(sender);
	TRY(load_connect(sender->options, sender->totals, &sender->client));
	sender->ended = false;
	TRY(net_grpc_client_open(sender->client, AGENT_STREAM_PATH, &ops, sender, &sender->call));
	return send_hello(sender);
}

/* Without a server all is acknowledged as soon as it is written. */
static struct err *write_only(struct sender *sender)
{
	TRY(begin(sender));
	while (!load_queue_is_done(sender->queue)) {
		TRY(load_queue_fill(sender->queue));
		TRY(send_reports(sender));
		while (sender->queue->count > 0)
			(void)load_queue_acknowledge(sender->queue, sender->queue->items[0].sequence);
	}
	return NULL;
}

/* Until all is acknowledged or the connection ends. */
static struct err *converse(struct sender *sender)
{
	while (!sender->ended && !load_queue_is_done(sender->queue)) {
		uint64_t now = load_now_ns();
		TRY(load_queue_fill(sender->queue));
		if (now - sender->status_ns > (uint64_t)STATUS_MS * 1000000) {
			TRY(send_status(sender));
			sender->status_ns = now;
		}
		TRY(send_reports(sender));
		TRY(net_grpc_client_run(sender->client, WAIT_MS));
		TRY(TAKE_PTR(sender->failed));
	}
	if (sender->ended)
		return err_new(ERR_PEER, "the stream ended: status %d %s", (int)sender->status, sender->message);
	net_grpc_client_half_close(sender->call);
	while (!sender->ended)
		TRY(net_grpc_client_run(sender->client, WAIT_MS));
	return sender->status == NET_GRPC_OK ? NULL : err_new(ERR_PEER, "the stream ended: status %d %s", (int)sender->status,
							      sender->message);
}

static bool is_worth_another_try(const struct sender *sender, const struct err *e)
{
	return err_code(e) == ERR_PEER && (!sender->ended || sender->status == NET_GRPC_UNAVAILABLE);
}

static struct err *run(struct sender *sender)
{
	for (;;) {
		struct err *e = begin(sender);
		if (!e)
			e = converse(sender);
		load_disconnect(sender->totals, &sender->client);
		sender->call = NULL;
		if (!e || load_queue_is_done(sender->queue) || !is_worth_another_try(sender, e)) {
			/* The goodbye of a killed server is not needed. */
			bool done = e && load_queue_is_done(sender->queue) && err_code(e) == ERR_PEER;
			if (done)
				err_free(e);
			return done ? NULL : e;
		}
		sender->totals->failures++;
		err_free(e);
	}
}

static void sender_deinit(struct sender *sender)
{
	for (uint32_t kind = 1; kind < KINDS; kind++) {
		free(sender->numbers[kind].of);
		free(sender->numbers[kind].thing);
		free(sender->numbers[kind].sent);
	}
	agent_definitions_deinit(&sender->definitions);
	free(sender->samples);
	buf_deinit(&sender->body);
	buf_deinit(&sender->envelope);
	err_free(sender->failed);
}

static struct err *prepare(struct sender *sender)
{
	const struct workload *w = sender->queue->workload;
	size_t most = workload_report_max(w, sender->options->report_ms * 1000000);

	if (getrandom(sender->instance, sizeof(sender->instance), 0) != sizeof(sender->instance))
		return err_new(ERR_OS, "getrandom");
	sender->samples = calloc(most, sizeof(*sender->samples));
	if (!sender->samples)
		return err_nomem();
	TRY(numbers_init(&sender->numbers[NEED_STRINGS], frame_string(sender, w->frame_count)));
	TRY(numbers_init(&sender->numbers[NEED_EXECUTABLES], w->options.executables));
	TRY(numbers_init(&sender->numbers[NEED_FRAMES], w->frame_count));
	TRY(numbers_init(&sender->numbers[NEED_TRACES], w->options.traces));
	TRY(numbers_init(&sender->numbers[NEED_PROCESSES], w->options.processes));
	return numbers_init(&sender->numbers[NEED_THREADS], w->thread_count);
}

struct err *load_stream(const struct load_options *options, struct load_queue *queue)
{
	CLEANUP(sender_deinit) struct sender sender = {.options = options, .queue = queue, .totals = queue->totals};

	TRY(prepare(&sender));
	if (options->record) {
		sender.record = fopen(options->record, "we");
		if (!sender.record || fwrite("CAIRNST1", 8, 1, sender.record) != 1)
			return err_new(ERR_OS, "%s: cannot be written", options->record);
	}
	struct err *e = options->address ? run(&sender) : write_only(&sender);
	if (sender.record && fclose(sender.record) != 0 && !e)
		e = err_new(ERR_OS, "%s: cannot be written", options->record);
	return e;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's stream from a made-up machine, by the sender that cairn-agent has (proto/agent_sender.h). Things are those of the workload;
 * strings are numbered four a process, one a thread, one a frame.
 */
#include "bench/load.h"

#include "proto/agent_record.h"
#include "proto/agent_sender.h"

#include <stdio.h>
#include <sys/random.h>
#include <time.h>

enum { SEND_QUEUE_BYTES = 1 << 20, STATUS_MS = 10000, WAIT_MS = 5, STRINGS_OF_PROCESS = 4 };

struct sending {
	const struct load_options *options;
	struct load_queue *queue;
	struct load_totals *totals;
	struct net_grpc_client *client;
	struct net_grpc_client_call *call;
	bool ended; /* the call */
	enum net_grpc_status status;
	char message[256];
	bool recording;
	struct agent_record record;
	uint8_t instance[AGENT_INSTANCE_BYTES];
	struct agent_sender *sender;
	struct agent_sample *samples;
	struct agent_segment segment; /* of the executable asked for last */
	char text[WORKLOAD_NAME_SIZE]; /* likewise of the string */
	uint64_t status_ns;
	struct err *failed;
};

/* -------------------------------------------------------------------------------------- things */

static uint32_t thread_string(const struct workload *w, uint32_t thread)
{
	return STRINGS_OF_PROCESS * w->options.processes + thread;
}

static uint32_t function_string(const struct workload *w, uint32_t function)
{
	return thread_string(w, w->thread_count) + function;
}

static uint32_t file_string(const struct workload *w, uint32_t function)
{
	return function_string(w, w->function_count) + function;
}

static const char *process_text(const struct workload *w, uint32_t process, uint32_t which)
{
	const struct workload_process *p = &w->processes[process];
	const char *texts[STRINGS_OF_PROCESS] = {w->executables[p->executable].name, p->service, p->container, ""};

	return texts[which];
}

static void string_of(void *things, uint32_t thing, const char **text_ret, size_t *len_ret)
{
	struct sending *sending = things;
	const struct workload *w = sending->queue->workload;

	*text_ret = sending->text;
	if (thing < thread_string(w, 0))
		*text_ret = process_text(w, thing / STRINGS_OF_PROCESS, thing % STRINGS_OF_PROCESS);
	else if (thing < function_string(w, 0))
		*text_ret = w->threads[thing - thread_string(w, 0)].name;
	else if (thing < file_string(w, 0))
		workload_function(w, thing - function_string(w, 0), sending->text);
	else
		workload_file(w, thing - file_string(w, 0), sending->text);
	*len_ret = strlen(*text_ret);
}

static struct wire_span span(const char *text)
{
	return (struct wire_span){(const uint8_t *)text, strlen(text)};
}

static void executable_of(void *things, uint32_t thing, struct agent_executable *ret, const struct agent_segment **segments_ret,
	size_t *count_ret)
{
	struct sending *sending = things;
	const struct workload_executable *e = &sending->queue->workload->executables[thing];

	sending->segment = (struct agent_segment){.offset = 0x1000, .vaddr = 0x1000, .size = e->text_size, .executable = true};
	*segments_ret = &sending->segment;
	*count_ret = e->kernel ? 0 : 1;
	*ret = (struct agent_executable){.file_id = {e->file_id, sizeof(e->file_id)},
		.build_id = {e->build_id, sizeof(e->build_id)},
		.name = span(e->name),
		.size = e->text_size + 0x2000,
		.elf_machine = 62,
		.kernel = e->kernel};
}

static void frame_of(void *things, uint32_t thing, struct agent_sender_frame *ret)
{
	const struct workload *w = ((struct sending *)things)->queue->workload;
	const struct workload_frame *frame = &w->frames[thing];

	bool named = frame->kind != WORKLOAD_NATIVE, python = frame->kind == WORKLOAD_PYTHON;
	bool has_file = python || frame->kind == WORKLOAD_GO;
	/* A file is that of several functions: the string of the first one with it. */
	*ret = (struct agent_sender_frame){.kind = python ? 2 : frame->kind == WORKLOAD_KERNEL,
		.executable = python ? AGENT_SENDER_NONE : frame->executable,
		.address = python ? 0 : frame->address,
		.function = named ? function_string(w, frame->function) : AGENT_SENDER_NONE,
		.file = has_file ? file_string(w, workload_file_first(w, frame->function)) : AGENT_SENDER_NONE,
		.line = has_file ? frame->line : 0};
}

static void trace_of(void *things, uint32_t thing, const uint32_t **frames_ret, uint32_t *depth_ret)
{
	const struct workload_trace *trace = &((struct sending *)things)->queue->workload->traces[thing];

	*frames_ret = trace->frames;
	*depth_ret = trace->depth;
}

static void process_of(void *things, uint32_t thing, struct agent_sender_process *ret)
{
	const struct workload *w = ((struct sending *)things)->queue->workload;
	uint32_t string = STRINGS_OF_PROCESS * thing;

	*ret = (struct agent_sender_process){.pid = w->processes[thing].pid,
		.executable = string,
		.executable_path = AGENT_SENDER_NONE,
		.service = string + 1,
		.container = string + 2};
}

static void thread_of(void *things, uint32_t thing, struct agent_sender_thread *ret)
{
	const struct workload *w = ((struct sending *)things)->queue->workload;

	*ret = (struct agent_sender_thread){
		.process = w->threads[thing].process, .tid = w->threads[thing].tid, .name = thread_string(w, thing)};
}

static void type_of(void *things, uint32_t thing, struct agent_type *ret)
{
	(void)thing;
	*ret = (struct agent_type){.type = span("samples"),
		.unit = span("count"),
		.period_type = span("cpu"),
		.period_unit = span("nanoseconds"),
		.period = 1000000000 / ((struct sending *)things)->queue->workload->options.hz};
}

static const struct agent_sender_source source = {.string = string_of, .executable = executable_of, .frame = frame_of,
	.trace = trace_of, .process = process_of, .thread = thread_of, .type = type_of};

/* -------------------------------------------------------------------------------------- out */

static struct err *on_send(void *context, enum agent_body body, const struct buf *envelope)
{
	struct sending *sending = context;

	if (sending->recording)
		TRY(agent_record_write(&sending->record, body, envelope));
	return sending->call ? net_grpc_client_send(sending->call, envelope->data, envelope->len) : NULL;
}

static struct err *send_hello(struct sending *sending)
{
	const struct agent_hello hello = {.instance = {sending->instance, sizeof(sending->instance)},
		.version = span("cairn-load " CAIRN_VERSION),
		.host_name = span("made-up-host"),
		.host_id = span("0123456789"),
		.kernel = span("6.1.0-made-up"),
		.machine = span("x86_64"),
		.cpus = sending->queue->workload->options.cpus};
	const struct agent_label label = {span("deployment.environment"), span("bench")};

	return agent_sender_hello(sending->sender, &hello, &label, 1);
}

static struct err *send_status(struct sending *sending)
{
	struct timespec now, cpu;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	const struct agent_status status = {.time_unix_nano = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
		.cpu_user_ns = (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec,
		.memory_bytes = 10 << 20,
		.samples = sending->queue->made};
	const struct agent_loss loss = {span("none_really"), 0, false};

	return agent_sender_status(sending->sender, &status, &loss, 1);
}

static struct err *send_report(struct sending *sending, struct load_report *report)
{
	const struct agent_sender_report sent = {.things = sending,
		.sequence = report->sequence,
		.period_ns = 1000000000 / sending->queue->workload->options.hz,
		.samples = sending->samples,
		.count = report->count};

	for (size_t i = 0; i < report->count; i++) {
		const struct workload_sample *from = &report->samples[i];
		sending->samples[i] = (struct agent_sample){.time_unix_nano = from->time_unix_nano,
			.value = 1,
			.cpu = (int32_t)from->cpu,
			.trace = from->trace,
			.thread = from->thread};
	}
	report->sent = true;
	return agent_sender_report(sending->sender, &sent);
}

static struct err *send_reports(struct sending *sending)
{
	for (uint32_t i = 0; i < sending->queue->count; i++) {
		if (sending->call && net_grpc_client_queued(sending->call) > SEND_QUEUE_BYTES)
			return NULL;
		if (!sending->queue->items[i].sent)
			TRY(send_report(sending, &sending->queue->items[i]));
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- in */

static struct err *on_acknowledged(void *context, uint64_t sequence)
{
	struct sending *sending = context;

	if (!load_queue_acknowledge(sending->queue, sequence))
		return err_new(ERR_PEER, "the server acknowledges %llu, which was not sent", (unsigned long long)sequence);
	return NULL;
}

static struct err *on_refused(void *context, uint64_t sequence)
{
	struct sending *sending = context;

	for (uint32_t i = 0; i < sending->queue->count; i++) {
		if (sending->queue->items[i].sequence == sequence) {
			sending->queue->items[i].sent = false;
			sending->totals->resent++;
		}
	}
	return NULL;
}

static void on_pace(void *context, const struct server_pace *pace)
{
	(void)pace;
	((struct sending *)context)->totals->paces++;
}

static void on_want(void *context, const struct server_want *want)
{
	(void)want;
	((struct sending *)context)->totals->wants++;
}

static const struct agent_sender_ops sender_ops = {
	.send = on_send, .acknowledged = on_acknowledged, .refused = on_refused, .pace = on_pace, .want_symbols = on_want};

static void on_message(void *user, const uint8_t *bytes, size_t len)
{
	struct sending *sending = user;
	struct err *e = agent_sender_take(sending->sender, (struct wire_span){bytes, len});

	if (e && !sending->failed)
		sending->failed = e;
	else
		err_free(e);
}

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct sending *sending = user;

	sending->ended = true;
	sending->call = NULL;
	sending->status = status;
	(void)snprintf(sending->message, sizeof(sending->message), "%s", message);
}

static const struct net_grpc_client_ops call_ops = {.on_message = on_message, .on_end = on_end};

/* -------------------------------------------------------------------------------------- one connection after another */

static struct err *begin(struct sending *sending)
{
	for (uint32_t i = 0; i < sending->queue->count; i++) {
		sending->totals->resent += sending->queue->items[i].sent;
		sending->queue->items[i].sent = false;
	}
	if (!sending->options->address)
		return send_hello(sending);
	TRY(load_connect(sending->options, sending->totals, &sending->client));
	sending->ended = false;
	TRY(net_grpc_client_open(sending->client, AGENT_STREAM_PATH, &call_ops, sending, &sending->call));
	return send_hello(sending);
}

/* Without a server all is acknowledged as soon as it is written. */
static struct err *write_only(struct sending *sending)
{
	TRY(begin(sending));
	while (!load_queue_is_done(sending->queue)) {
		TRY(load_queue_fill(sending->queue));
		TRY(send_reports(sending));
		while (sending->queue->count > 0)
			(void)load_queue_acknowledge(sending->queue, sending->queue->items[0].sequence);
	}
	return NULL;
}

/* Until all is acknowledged or the connection ends. */
static struct err *converse(struct sending *sending)
{
	while (!sending->ended && !load_queue_is_done(sending->queue)) {
		uint64_t now = load_now_ns();
		TRY(load_queue_fill(sending->queue));
		if (now - sending->status_ns > (uint64_t)STATUS_MS * 1000000) {
			TRY(send_status(sending));
			sending->status_ns = now;
		}
		TRY(send_reports(sending));
		TRY(net_grpc_client_run(sending->client, WAIT_MS));
		TRY(TAKE_PTR(sending->failed));
	}
	if (sending->ended)
		return err_new(ERR_PEER, "the stream ended: status %d %s", (int)sending->status, sending->message);
	net_grpc_client_half_close(sending->call);
	while (!sending->ended)
		TRY(net_grpc_client_run(sending->client, WAIT_MS));
	return sending->status == NET_GRPC_OK ? NULL : err_new(ERR_PEER, "the stream ended: status %d %s", (int)sending->status,
							       sending->message);
}

static bool is_worth_another_try(const struct sending *sending, const struct err *e)
{
	return err_code(e) == ERR_PEER && (!sending->ended || sending->status == NET_GRPC_UNAVAILABLE);
}

static struct err *run(struct sending *sending)
{
	for (;;) {
		struct err *e = begin(sending);
		if (!e)
			e = converse(sending);
		load_disconnect(sending->totals, &sending->client);
		sending->call = NULL;
		if (!e || load_queue_is_done(sending->queue) || !is_worth_another_try(sending, e)) {
			/* The goodbye of a killed server is not needed. */
			bool done = e && load_queue_is_done(sending->queue) && err_code(e) == ERR_PEER;
			if (done)
				err_free(e);
			return done ? NULL : e;
		}
		sending->totals->failures++;
		err_free(e);
	}
}

static void sending_deinit(struct sending *sending)
{
	agent_sender_destroy(sending->sender);
	free(sending->samples);
	err_free(sending->failed);
}

static struct err *prepare(struct sending *sending)
{
	size_t most = workload_report_max(sending->queue->workload, sending->options->report_ms * 1000000);

	if (getrandom(sending->instance, sizeof(sending->instance), 0) != sizeof(sending->instance))
		return err_new(ERR_OS, "getrandom");
	sending->samples = calloc(most, sizeof(*sending->samples));
	if (!sending->samples)
		return err_nomem();
	return agent_sender_create(&source, &sender_ops, sending, &sending->sender);
}

struct err *load_stream(const struct load_options *options, struct load_queue *queue)
{
	CLEANUP(sending_deinit) struct sending sending = {.options = options, .queue = queue, .totals = queue->totals};
	struct agent_sender_counters counters;

	TRY(prepare(&sending));
	if (options->record)
		TRY(agent_record_open(&sending.record, options->record));
	sending.recording = options->record != NULL;
	struct err *e = options->address ? run(&sending) : write_only(&sending);
	struct err *closed = agent_record_close(&sending.record);
	agent_sender_counters(sending.sender, &counters);
	queue->totals->needs += counters.needs;
	queue->totals->rejected_future += counters.rejected_future;
	queue->totals->rejected_old += counters.rejected_old;
	queue->totals->duplicates += counters.duplicates;
	if (e)
		err_free(closed);
	return e ? e : closed;
}

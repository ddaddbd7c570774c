// SPDX-License-Identifier: Apache-2.0
/*
 * Each kind has two arrays: thing -> number, and number -> whether the server knows it. Numbers are given in the order of first
 * use, and never taken back before agent_sender_forget; `need` only clears the mark, so that the next report that uses the
 * thing defines it again under its number. Strings, frames, traces and threads must follow each other within an envelope of
 * definitions: where one does not (it is sent again), the envelope is closed and another begun.
 *
 * The depth of recursion is that of the kinds: trace -> frame -> executable or string; thread -> process -> string.
 */
#include "proto/agent_sender.h"

enum { DEFINITIONS_BYTES = 1 << 20, KINDS = NEED_KINDS + 1, NUMBERS_MIN = 64 };

struct numbers {
	uint32_t *of; /* thing -> number; 0: none yet */
	bool *sent;   /* number -> the server knows it */
	uint32_t of_cap, sent_cap, count;
};

struct agent_sender {
	const struct agent_sender_source *source;
	const struct agent_sender_ops *ops;
	void *context;
	void *things; /* of the report under way */
	struct numbers numbers[KINDS]; /* by NEED_.. */
	struct agent_definitions definitions;
	struct agent_sample *samples;
	size_t sample_cap;
	uint32_t *path; /* numbers of a trace's frames; AGENT_WRITE_DEPTH_MAX */
	struct buf body, envelope;
	struct agent_sender_counters counters;
};

struct err *agent_sender_create(const struct agent_sender_source *source, const struct agent_sender_ops *ops, void *context,
	struct agent_sender **ret)
{
	struct agent_sender *sender = calloc(1, sizeof(*sender));

	if (!sender)
		return err_nomem();
	sender->source = source;
	sender->ops = ops;
	sender->context = context;
	*ret = sender;
	return NULL;
}

void agent_sender_destroy(struct agent_sender *sender)
{
	if (!sender)
		return;
	for (uint32_t kind = 1; kind < KINDS; kind++) {
		free(sender->numbers[kind].of);
		free(sender->numbers[kind].sent);
	}
	agent_definitions_deinit(&sender->definitions);
	free(sender->samples);
	free(sender->path);
	buf_deinit(&sender->body);
	buf_deinit(&sender->envelope);
	free(sender);
}

/* -------------------------------------------------------------------------------------- numbers */

static struct err *grow(void *array, uint32_t *cap, uint32_t index, size_t size)
{
	uint64_t wanted = *cap ? *cap : NUMBERS_MIN;
	uint8_t *old = NULL;

	if (index < *cap)
		return NULL;
	while (wanted <= index)
		wanted *= 2;
	if (wanted > UINT32_MAX)
		return err_new(ERR_LIMIT, "thing %u", index);
	memcpy(&old, array, sizeof(old));
	uint8_t *grown = realloc(old, wanted * size);
	if (!grown)
		return err_nomem();
	memset(grown + *cap * size, 0, (wanted - *cap) * size);
	memcpy(array, &grown, sizeof(grown));
	*cap = (uint32_t)wanted;
	return NULL;
}

/* The number of a thing, given now if it has none; *known_ret: nothing is to be sent. */
static struct err *number_of(struct agent_sender *sender, uint32_t kind, uint32_t thing, uint32_t *ret, bool *known_ret)
{
	struct numbers *numbers = &sender->numbers[kind];

	TRY(grow(&numbers->of, &numbers->of_cap, thing, sizeof(*numbers->of)));
	if (!numbers->of[thing]) {
		TRY(grow(&numbers->sent, &numbers->sent_cap, numbers->count + 1, sizeof(*numbers->sent)));
		numbers->of[thing] = ++numbers->count;
	}
	*ret = numbers->of[thing];
	*known_ret = numbers->sent[*ret];
	return NULL;
}

static void mark(struct agent_sender *sender, uint32_t kind, uint32_t number)
{
	sender->numbers[kind].sent[number] = true;
}

void agent_sender_forget(struct agent_sender *sender)
{
	for (uint32_t kind = 1; kind < KINDS; kind++) {
		struct numbers *numbers = &sender->numbers[kind];
		if (numbers->of_cap)
			memset(numbers->of, 0, numbers->of_cap * sizeof(*numbers->of));
		if (numbers->sent_cap)
			memset(numbers->sent, 0, numbers->sent_cap * sizeof(*numbers->sent));
		numbers->count = 0;
	}
}

/* -------------------------------------------------------------------------------------- envelopes out */

/* Sends sender->body. */
static struct err *send_body(struct agent_sender *sender, uint64_t sequence, enum agent_body body)
{
	sender->envelope.len = 0;
	struct err *e = agent_envelope_write(&sender->envelope, sequence, body, &sender->body);
	sender->body.len = 0;
	return e ? e : sender->ops->send(sender->context, body, &sender->envelope);
}

static struct err *flush_definitions(struct agent_sender *sender)
{
	if (agent_definitions_bytes(&sender->definitions) == 0)
		return NULL;
	sender->body.len = 0;
	TRY(agent_definitions_finish(&sender->definitions, &sender->body));
	return send_body(sender, 0, AGENT_DEFINITIONS);
}

/* Room for one more of a kind whose numbers must be consecutive. */
static struct err *make_room(struct agent_sender *sender, uint32_t kind, uint32_t number)
{
	if (agent_definitions_fits(&sender->definitions, kind, number) && agent_definitions_bytes(&sender->definitions) < DEFINITIONS_BYTES)
		return NULL;
	return flush_definitions(sender);
}

struct err *agent_sender_hello(struct agent_sender *sender, const struct agent_hello *hello, const struct agent_label *labels, size_t count)
{
	agent_sender_forget(sender);
	agent_definitions_deinit(&sender->definitions);
	sender->body.len = 0;
	TRY(agent_hello_write(&sender->body, hello, labels, count));
	return send_body(sender, 0, AGENT_HELLO);
}

struct err *agent_sender_status(struct agent_sender *sender, const struct agent_status *status, const struct agent_loss *losses, size_t count)
{
	sender->body.len = 0;
	TRY(agent_status_write(&sender->body, status, losses, count));
	return send_body(sender, 0, AGENT_STATUS);
}

/* -------------------------------------------------------------------------------------- definitions */

/* 0 for no thing, and for the empty string. */
static struct err *define_string(struct agent_sender *sender, uint32_t thing, uint32_t *ret)
{
	const char *text = "";
	size_t len = 0;
	bool known;

	*ret = 0;
	if (thing == AGENT_SENDER_NONE)
		return NULL;
	sender->source->string(sender->things, thing, &text, &len);
	if (len == 0)
		return NULL;
	TRY(number_of(sender, NEED_STRINGS, thing, ret, &known));
	if (known)
		return NULL;
	TRY(make_room(sender, NEED_STRINGS, *ret));
	TRY(agent_definitions_string(&sender->definitions, *ret, text, len));
	mark(sender, NEED_STRINGS, *ret);
	return NULL;
}

static struct err *define_executable(struct agent_sender *sender, uint32_t thing, uint32_t *ret)
{
	struct agent_executable executable = {0};
	const struct agent_segment *segments = NULL;
	size_t count = 0;
	bool known;

	*ret = 0;
	if (thing == AGENT_SENDER_NONE)
		return NULL;
	TRY(number_of(sender, NEED_EXECUTABLES, thing, ret, &known));
	if (known)
		return NULL;
	sender->source->executable(sender->things, thing, &executable, &segments, &count);
	executable.number = *ret;
	TRY(agent_executable_write(&sender->definitions.fields, &executable, segments, count));
	mark(sender, NEED_EXECUTABLES, *ret);
	return NULL;
}

static struct err *define_frame(struct agent_sender *sender, uint32_t thing, uint32_t *ret)
{
	struct agent_sender_frame frame;
	uint32_t executable, function, file = 0;
	bool known;

	TRY(number_of(sender, NEED_FRAMES, thing, ret, &known));
	if (known)
		return NULL;
	sender->source->frame(sender->things, thing, &frame);
	TRY(define_executable(sender, frame.executable, &executable));
	TRY(define_string(sender, frame.function, &function));
	if (function)
		TRY(define_string(sender, frame.file, &file));
	TRY(make_room(sender, NEED_FRAMES, *ret));
	TRY(agent_definitions_frame(&sender->definitions, *ret, frame.kind, executable, frame.address));
	if (function) {
		const struct agent_line line = {.frame = *ret, .function = function, .file = file, .line = frame.line};
		TRY(agent_line_write(&sender->definitions.fields, &line));
	}
	mark(sender, NEED_FRAMES, *ret);
	return NULL;
}

static struct err *define_trace(struct agent_sender *sender, uint32_t thing, uint32_t *ret)
{
	const uint32_t *frames = NULL;
	uint32_t depth = 0;
	bool known;

	TRY(number_of(sender, NEED_TRACES, thing, ret, &known));
	if (known)
		return NULL;
	if (!sender->path) {
		sender->path = calloc(AGENT_WRITE_DEPTH_MAX, sizeof(*sender->path));
		if (!sender->path)
			return err_nomem();
	}
	sender->source->trace(sender->things, thing, &frames, &depth);
	if (depth > AGENT_WRITE_DEPTH_MAX)
		return err_new(ERR_LIMIT, "a trace of %u frames, %d at most", depth, AGENT_WRITE_DEPTH_MAX);
	for (uint32_t i = 0; i < depth; i++)
		TRY(define_frame(sender, frames[i], &sender->path[i]));
	TRY(make_room(sender, NEED_TRACES, *ret));
	TRY(agent_definitions_trace(&sender->definitions, *ret, sender->path, depth));
	mark(sender, NEED_TRACES, *ret);
	return NULL;
}

static struct err *define_process(struct agent_sender *sender, uint32_t thing, uint32_t *ret)
{
	struct agent_sender_process process = {0};
	struct agent_process made = {0};
	uint32_t labels[2 * AGENT_SENDER_LABELS_MAX];
	bool known;

	TRY(number_of(sender, NEED_PROCESSES, thing, ret, &known));
	if (known)
		return NULL;
	sender->source->process(sender->things, thing, &process);
	made.number = *ret;
	made.pid = process.pid;
	TRY(define_string(sender, process.executable, &made.executable));
	TRY(define_string(sender, process.executable_path, &made.executable_path));
	TRY(define_string(sender, process.service, &made.service));
	TRY(define_string(sender, process.container, &made.container));
	for (uint32_t i = 0; i < 2 * process.label_count; i++)
		TRY(define_string(sender, process.labels[i], &labels[i]));
	TRY(agent_process_write(&sender->definitions.fields, &made, labels, 2 * (size_t)process.label_count));
	mark(sender, NEED_PROCESSES, *ret);
	return NULL;
}

static struct err *define_thread(struct agent_sender *sender, uint32_t thing, uint32_t *ret)
{
	struct agent_sender_thread thread = {0};
	uint32_t process, name;
	bool known;

	*ret = 0;
	if (thing == AGENT_SENDER_NONE)
		return NULL;
	TRY(number_of(sender, NEED_THREADS, thing, ret, &known));
	if (known)
		return NULL;
	sender->source->thread(sender->things, thing, &thread);
	TRY(define_process(sender, thread.process, &process));
	TRY(define_string(sender, thread.name, &name));
	TRY(make_room(sender, NEED_THREADS, *ret));
	TRY(agent_definitions_thread(&sender->definitions, *ret, process, thread.tid, name));
	mark(sender, NEED_THREADS, *ret);
	return NULL;
}

static struct err *define_type(struct agent_sender *sender, uint32_t thing, uint32_t *ret)
{
	struct agent_type type = {0};
	bool known;

	TRY(number_of(sender, NEED_TYPES, thing, ret, &known));
	if (known)
		return NULL;
	sender->source->type(sender->things, thing, &type);
	type.number = *ret;
	TRY(agent_type_write(&sender->definitions.fields, &type));
	mark(sender, NEED_TYPES, *ret);
	return NULL;
}

/* -------------------------------------------------------------------------------------- samples */

static struct err *reserve_samples(struct agent_sender *sender, size_t count)
{
	if (count > AGENT_SENDER_SAMPLES_MAX)
		return err_new(ERR_LIMIT, "a report of %zu samples, %d at most", count, AGENT_SENDER_SAMPLES_MAX);
	if (count <= sender->sample_cap)
		return NULL;
	struct agent_sample *samples = reallocarray(sender->samples, count, sizeof(*samples));
	if (!samples)
		return err_nomem();
	sender->samples = samples;
	sender->sample_cap = count;
	return NULL;
}

struct err *agent_sender_report(struct agent_sender *sender, const struct agent_sender_report *report)
{
	uint32_t type;

	sender->things = report->things;
	TRY(reserve_samples(sender, report->count));
	TRY(define_type(sender, report->type, &type));
	for (size_t i = 0; i < report->count; i++) {
		struct agent_sample *sample = &sender->samples[i];
		*sample = report->samples[i];
		TRY(define_trace(sender, report->samples[i].trace, &sample->trace));
		TRY(define_thread(sender, report->samples[i].thread, &sample->thread));
	}
	TRY(flush_definitions(sender));
	sender->body.len = 0;
	TRY(agent_samples_write(&sender->body, type, report->period_ns, report->summed, sender->samples, report->count));
	return send_body(sender, report->sequence, AGENT_SAMPLES);
}

/* -------------------------------------------------------------------------------------- envelopes in */

static struct err *malformed(const char *what)
{
	return err_new(ERR_FORMAT, "the server's %s is malformed", what);
}

static struct err *on_acknowledgement(struct agent_sender *sender, struct wire_span bytes)
{
	struct server_acknowledgement acknowledgement;
	uint64_t sequence;

	TRY(server_acknowledgement_read(bytes, &acknowledgement));
	sender->counters.rejected_future += acknowledgement.rejected_future;
	sender->counters.rejected_old += acknowledgement.rejected_old;
	sender->counters.duplicates += acknowledgement.duplicates;
	struct wire_repeated sequences = wire_repeated_init(acknowledgement.sequences, 1, false);
	while (wire_repeated_next(&sequences, &sequence))
		if (sender->ops->acknowledged)
			TRY(sender->ops->acknowledged(sender->context, sequence));
	return wire_repeated_failed(&sequences) ? malformed("acknowledgement") : NULL;
}

static struct err *on_need(struct agent_sender *sender, struct wire_span bytes)
{
	struct reader r = wire_reader(bytes, "need");
	struct wire_field field;
	uint64_t number, sequence = 0;
	bool all = false;

	sender->counters.needs++;
	while (wire_next(&r, &field)) {
		all |= field.number == NEED_ALL && field.value;
		if (field.number == NEED_SEQUENCE)
			sequence = field.value;
	}
	if (r.failed)
		return malformed("need");
	for (uint32_t kind = 1; kind < KINDS; kind++) {
		struct wire_repeated numbers = wire_repeated_init(bytes, kind, false);
		while (wire_repeated_next(&numbers, &number))
			if (number <= sender->numbers[kind].count && sender->numbers[kind].sent)
				sender->numbers[kind].sent[number] = false;
	}
	if (all)
		agent_sender_forget(sender);
	return sequence && sender->ops->refused ? sender->ops->refused(sender->context, sequence) : NULL;
}

static struct err *on_want(struct agent_sender *sender, struct wire_span bytes)
{
	struct reader r = wire_reader(bytes, "want_symbols");
	struct server_want want;

	while (server_want_next(&r, &want))
		if (sender->ops->want_symbols)
			sender->ops->want_symbols(sender->context, &want);
	return r.failed ? malformed("want_symbols") : NULL;
}

static struct err *on_welcome(struct agent_sender *sender, struct wire_span bytes)
{
	struct server_welcome welcome = {0};

	TRY(server_welcome_read(bytes, &welcome));
	if (sender->ops->welcome)
		sender->ops->welcome(sender->context, &welcome);
	return NULL;
}

static struct err *on_pace(struct agent_sender *sender, struct wire_span bytes)
{
	struct server_pace pace = {0};

	TRY(server_pace_read(bytes, &pace));
	if (sender->ops->pace)
		sender->ops->pace(sender->context, &pace);
	return NULL;
}

static struct err *on_debug_request(struct agent_sender *sender, struct wire_span bytes)
{
	struct server_debug_request request = {0};

	TRY(server_debug_request_read(bytes, &request));
	sender->body.len = 0;
	TRY(agent_debug_unsupported_write(&sender->body, request.id));
	return send_body(sender, 0, AGENT_DEBUG_REPLY);
}

struct err *agent_sender_take(struct agent_sender *sender, struct wire_span message)
{
	struct server_envelope envelope;

	TRY(server_envelope_read(message, &envelope));
	switch (envelope.body) {
	case SERVER_WELCOME:
		return on_welcome(sender, envelope.bytes);
	case SERVER_ACKNOWLEDGEMENT:
		return on_acknowledgement(sender, envelope.bytes);
	case SERVER_NEED:
		return on_need(sender, envelope.bytes);
	case SERVER_PACE:
		return on_pace(sender, envelope.bytes);
	case SERVER_WANT_SYMBOLS:
		return on_want(sender, envelope.bytes);
	case SERVER_DEBUG_REQUEST:
		return on_debug_request(sender, envelope.bytes);
	case SERVER_BODY_NONE:
		break;
	}
	sender->counters.unknown++;
	return NULL;
}

void agent_sender_counters(const struct agent_sender *sender, struct agent_sender_counters *ret)
{
	*ret = sender->counters;
}

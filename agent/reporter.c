// SPDX-License-Identifier: Apache-2.0
/*
 * Three senders share the things: one writes to the connection, one to the record (complete, whatever the connection does),
 * one makes a report self-contained for the spool. Reports of the spool are sent as they lie there, with numbers of their own, so that
 * after them the live sender forgets its numbers and begins anew; the spool comes first, since it is older.
 *
 * Whose fault a broken stream is cannot be known: when the server ends it with anything but UNAVAILABLE, each report under
 * way gets a bad mark, and one with REPORTER_FAILURES_MAX of them is dropped and counted, so that nothing is sent forever.
 */
#include "agent/reporter.h"

#include "agent/connector.h"
#include "agent/queue.h"
#include "proto/agent_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum {
	SEND_QUEUE_BYTES = 1 << 20, /* in the connection's buffer before more is made */
	REPLIES_MAX = 8 << 20,	    /* there; past it the server asks more than it reads */
	GENERATIONS_MAX = 3,	    /* of things that waiting reports keep alive */
	SAMPLES_MIN = 1024,
	MESSAGE_MAX = 1 << 20, /* from the server */
	GOOD_AFTER_MS = 10000,
	STALL_MS = 60000, /* reports are under way, and nothing is acknowledged or asked for: another connection */
	WAIT_MS = 20,
};

/* Samples of one kind on their way to be a report. */
struct pending {
	struct things *things; /* a reference */
	struct agent_sample *samples;
	size_t count, cap;
};

struct reporter {
	struct reporter_options options;
	struct pending pending[SAMPLE_KINDS];
	struct queue queue;
	struct spool *spool;
	struct agent_record record;
	struct agent_sender *live, *recorder, *spooler;
	struct buf payload; /* of the spooler */
	uint8_t instance[AGENT_INSTANCE_BYTES];
	uint64_t next_sequence; /* without a spool */

	struct connector *connector;
	struct net_grpc_client *client;
	struct net_grpc_client_call *call;
	bool ended; /* the call */
	enum net_grpc_status status;
	bool has_retry; /* with it: retry_ms is what the server asks for */
	uint64_t retry_ms;
	char failure[320];
	struct err *failed;    /* within a callback */
	struct things *sent, *recorded; /* whose numbers the live sender and the recorder have; references */
	uint64_t connected_ms; /* or disconnected */
	bool is_good;	       /* something was acknowledged on this connection */
	bool has_moved;	       /* a report was acknowledged or refused since the last turn */
	uint64_t moved_ms;     /* when, or when there was nothing to wait for */
	size_t in_flight_spool;
	uint64_t pace, pace_window_ms, pace_sent; /* envelopes a second */
	size_t samples_max;
	struct reporter_counters counters;
};

/* -------------------------------------------------------------------------------------- senders */

static struct err *send_live(void *context, enum agent_body body, const struct buf *envelope)
{
	struct reporter *r = context;

	(void)body;
	if (!r->call)
		return NULL;
	if (net_grpc_client_queued(r->call) > REPLIES_MAX)
		return err_new(ERR_PEER, "the server does not read");
	r->pace_sent++;
	return net_grpc_client_send(r->call, envelope->data, envelope->len);
}

static struct err *send_record(void *context, enum agent_body body, const struct buf *envelope)
{
	return agent_record_write(&((struct reporter *)context)->record, body, envelope);
}

static struct err *send_spool(void *context, enum agent_body body, const struct buf *envelope)
{
	struct buf *payload = &((struct reporter *)context)->payload;

	(void)body;
	TRY(buf_reserve(payload, 4 + envelope->len));
	for (int i = 0; i < 4; i++)
		buf_put_u8(payload, (uint8_t)(envelope->len >> 8 * i));
	return buf_append(payload, envelope->data, envelope->len);
}

static struct err *on_acknowledged(void *context, uint64_t sequence)
{
	struct reporter *r = context;
	struct report *report = queue_take(&r->queue, sequence);

	if (!report && !(r->spool && spool_acknowledge(r->spool, sequence)))
		return NULL; /* a stranger's number, or one dropped meanwhile */
	r->has_moved = true;
	if (!report && r->in_flight_spool > 0)
		r->in_flight_spool--;
	report_destroy(report);
	r->counters.acknowledged_reports++;
	r->is_good = true;
	return NULL;
}

static void drop_refused(struct reporter *r, struct report *report)
{
	if (!report)
		return;
	r->counters.refused += report->count;
	report_destroy(report);
}

static struct err *on_refused(void *context, uint64_t sequence)
{
	struct reporter *r = context;
	struct report *report = queue_find(&r->queue, sequence);

	if (!report) {
		if (r->spool && spool_refused(r->spool, sequence) && r->in_flight_spool > 0)
			r->in_flight_spool--;
		return NULL;
	}
	r->has_moved = true;
	queue_set_sent(&r->queue, report, false);
	if (++report->failures > REPORTER_FAILURES_MAX)
		drop_refused(r, queue_take(&r->queue, sequence));
	return NULL;
}

static void on_welcome(void *context, const struct server_welcome *welcome)
{
	struct reporter *r = context;

	r->pace = welcome->envelopes_per_second;
	if (welcome->samples_max >= SAMPLES_MIN && welcome->samples_max < r->samples_max)
		r->samples_max = welcome->samples_max;
}

static void on_pace(void *context, const struct server_pace *pace)
{
	((struct reporter *)context)->pace = pace->envelopes_per_second;
}

static void on_want(void *context, const struct server_want *want)
{
	const struct reporter *r = context;

	if (r->options.want_symbols)
		r->options.want_symbols(r->options.context, want);
}

static const struct agent_sender_ops live_ops = {.send = send_live, .acknowledged = on_acknowledged, .refused = on_refused,
	.welcome = on_welcome, .pace = on_pace, .want_symbols = on_want};
static const struct agent_sender_ops record_ops = {.send = send_record};
static const struct agent_sender_ops spool_ops = {.send = send_spool};

static struct wire_span text_span(const char *text)
{
	return (struct wire_span){(const uint8_t *)text, strlen(text)};
}

static struct err *send_hello(struct reporter *r, struct agent_sender *sender)
{
	char host[256] = "", machine_id[64] = "";
	struct utsname names = {0};

	(void)gethostname(host, sizeof(host) - 1);
	(void)uname(&names);
	CLEANUP(closep) int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, machine_id, sizeof(machine_id) - 1) : 0;
	machine_id[len > 0 ? strcspn(machine_id, "\n") : 0] = 0;
	const struct agent_hello hello = {.instance = {r->spool ? spool_instance(r->spool) : r->instance, AGENT_INSTANCE_BYTES},
		.version = text_span("cairn-agent " CAIRN_VERSION),
		.host_name = text_span(host),
		.host_id = text_span(machine_id),
		.kernel = text_span(names.release),
		.machine = text_span(names.machine),
		.cpus = r->options.cpus};
	return agent_sender_hello(sender, &hello, r->options.labels, r->options.label_count);
}

/* -------------------------------------------------------------------------------------- life */

static struct err *create(struct reporter *r)
{
	r->samples_max = REPORTER_SAMPLES_MAX;
	r->next_sequence = 1;
	queue_init(&r->queue);
	if (getrandom(r->instance, sizeof(r->instance), 0) != sizeof(r->instance))
		return err_os(errno, "getrandom");
	if (r->options.spool)
		TRY(spool_open(r->options.spool, r->options.spool_bytes, &r->spool));
	TRY(agent_sender_create(&things_source, &live_ops, r, &r->live));
	TRY(agent_sender_create(&things_source, &spool_ops, r, &r->spooler));
	if (r->options.record) {
		TRY(agent_sender_create(&things_source, &record_ops, r, &r->recorder));
		TRY(agent_record_open(&r->record, r->options.record));
		TRY(send_hello(r, r->recorder));
	}
	r->options.client.message_max = MESSAGE_MAX;
	return r->options.collector ? connector_create(r->options.collector, &r->options.client, &r->connector) : NULL;
}

struct err *reporter_create(const struct reporter_options *options, struct reporter **ret)
{
	struct reporter *r = calloc(1, sizeof(*r));

	if (!r)
		return err_nomem();
	r->options = *options;
	struct err *e = create(r);
	if (e) {
		reporter_destroy(r);
		return e;
	}
	*ret = r;
	return NULL;
}

void reporter_destroy(struct reporter *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < SAMPLE_KINDS; i++) {
		things_release(r->pending[i].things);
		free(r->pending[i].samples);
	}
	net_grpc_client_destroy(r->client);
	connector_destroy(r->connector);
	queue_deinit(&r->queue);
	things_release(r->sent);
	things_release(r->recorded);
	agent_sender_destroy(r->live);
	agent_sender_destroy(r->recorder);
	agent_sender_destroy(r->spooler);
	err_free(agent_record_close(&r->record));
	spool_close(r->spool);
	buf_deinit(&r->payload);
	err_free(r->failed);
	free(r);
}

/* -------------------------------------------------------------------------------------- reports */

static struct err *push_report(struct reporter *r, struct pending *pending, uint32_t kind, uint64_t now_ms, struct report **ret)
{
	struct report *report = calloc(1, sizeof(*report));

	if (!report)
		return err_nomem();
	struct err *e = NULL;
	if (r->spool)
		e = spool_next_sequence(r->spool, &report->sequence);
	else
		report->sequence = r->next_sequence++;
	report->samples = e ? NULL : reallocarray(NULL, pending->count, sizeof(*report->samples));
	if (!report->samples) {
		report_destroy(report);
		return e ? e : err_nomem();
	}
	memcpy(report->samples, pending->samples, pending->count * sizeof(*report->samples));
	report->count = pending->count;
	report->period_ns = kind == SAMPLE_CPU ? r->options.period_ns : 0;
	report->type = kind;
	report->made_ms = now_ms;
	report->things = things_hold(pending->things);
	r->counters.reports++;
	queue_push(&r->queue, report);
	*ret = report;
	return NULL;
}

/** Things of another generation have no numbers yet. */
static void use_things(struct agent_sender *sender, struct things **used, struct things *things)
{
	if (*used == things)
		return;
	agent_sender_forget(sender);
	things_release(*used);
	*used = things_hold(things);
}

static struct agent_sender_report as_sent(const struct report *report)
{
	return (struct agent_sender_report){.things = report->things, .sequence = report->sequence, .period_ns = report->period_ns,
		.type = report->type, .samples = report->samples, .count = report->count};
}

static struct err *flush_kind(struct reporter *r, uint32_t kind, uint64_t now_ms)
{
	struct pending *pending = &r->pending[kind];
	struct report *report = NULL;

	if (pending->count == 0)
		return NULL;
	TRY(push_report(r, pending, kind, now_ms, &report));
	pending->count = 0;
	if (!r->recorder)
		return NULL;
	struct agent_sender_report sent = as_sent(report);
	use_things(r->recorder, &r->recorded, report->things);
	TRY(agent_sender_report(r->recorder, &sent));
	if (!r->options.collector)
		report_destroy(queue_pop(&r->queue));
	return NULL;
}

struct err *reporter_flush(struct reporter *r, uint64_t now_ms)
{
	for (uint32_t kind = 0; kind < SAMPLE_KINDS; kind++)
		TRY(flush_kind(r, kind, now_ms));
	return NULL;
}

static uint64_t now_ms_of_clock(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct err *reserve(struct pending *pending)
{
	if (pending->count < pending->cap)
		return NULL;
	size_t cap = pending->cap ? 2 * pending->cap : 256;
	struct agent_sample *samples = reallocarray(pending->samples, cap, sizeof(*samples));
	if (!samples)
		return err_nomem();
	pending->samples = samples;
	pending->cap = cap;
	return NULL;
}

struct err *reporter_add(struct reporter *r, struct things *things, uint32_t kind, const struct agent_sample *sample)
{
	struct pending *pending = &r->pending[kind < SAMPLE_KINDS ? kind : SAMPLE_CPU];

	if (pending->things != things) {
		/* Samples of a report have the same things; those of other kinds follow by themselves. */
		TRY(flush_kind(r, (uint32_t)(pending - r->pending), now_ms_of_clock()));
		things_release(pending->things);
		pending->things = things_hold(things);
	}
	if (pending->count >= r->samples_max)
		TRY(flush_kind(r, (uint32_t)(pending - r->pending), now_ms_of_clock()));
	TRY(reserve(pending));
	pending->samples[pending->count++] = *sample;
	r->counters.samples++;
	return NULL;
}

/* -------------------------------------------------------------------------------------- to the disk */

/** The report goes to the disk, or is lost and counted. */
static struct err *put_away(struct reporter *r, struct report *take_report)
{
	struct agent_sender_report sent = as_sent(take_report);
	struct err *e = NULL;

	if (r->spool) {
		r->payload.len = 0;
		agent_sender_forget(r->spooler);
		e = agent_sender_report(r->spooler, &sent);
		if (!e)
			e = spool_append(r->spool, sent.sequence, (uint32_t)sent.count, &r->payload);
	}
	if (e)
		(void)snprintf(r->failure, sizeof(r->failure), "%s", err_message(e));
	if (e)
		r->counters.dropped_spool += sent.count;
	else if (!r->spool)
		r->counters.dropped_queue += sent.count;
	report_destroy(take_report);
	bool fatal = e && err_code(e) == ERR_NOMEM;
	if (fatal)
		return e;
	err_free(e);
	return NULL;
}

static size_t generations(const struct queue *queue)
{
	const struct things *before = NULL;
	size_t count = 0;

	for (const struct report *report = queue->first; report; report = report->next) {
		count += report->things != before;
		before = report->things;
	}
	return count;
}

static struct err *keep_bounds(struct reporter *r, uint64_t now_ms)
{
	bool is_late = r->spool && !r->call && r->queue.first && now_ms - r->queue.first->made_ms >= REPORTER_SPOOL_AFTER_MS;

	while (r->queue.first && (is_late || r->queue.bytes > r->options.queue_bytes || generations(&r->queue) > GENERATIONS_MAX))
		TRY(put_away(r, queue_pop(&r->queue)));
	return NULL;
}

/* -------------------------------------------------------------------------------------- connection */

static void on_message(void *user, const uint8_t *bytes, size_t len)
{
	struct reporter *r = user;
	struct err *e = agent_sender_take(r->live, (struct wire_span){bytes, len});

	if (e && !r->failed)
		r->failed = e;
	else
		err_free(e);
}

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct reporter *r = user;

	r->ended = true;
	r->has_retry = net_grpc_client_retry_ms(r->call, &r->retry_ms);
	r->call = NULL;
	r->status = status;
	if (status == NET_GRPC_UNIMPLEMENTED)
		(void)snprintf(r->failure, sizeof(r->failure), "%s does not speak cairn.v1.Agent: is it another collector? then --protocol otlp",
			r->options.collector);
	else
		(void)snprintf(r->failure, sizeof(r->failure), "%s: status %d%s%s", r->options.collector, (int)status, message && message[0] ? ": " : "",
			message ? message : "");
}

static const struct net_grpc_client_ops call_ops = {.on_message = on_message, .on_end = on_end};

static void blame_reports(struct reporter *r)
{
	struct report *next = NULL;

	for (struct report *report = r->queue.first; report; report = next) {
		next = report->next;
		if (report->sent && ++report->failures > REPORTER_FAILURES_MAX)
			drop_refused(r, queue_take(&r->queue, report->sequence));
	}
}

static void disconnect(struct reporter *r, uint64_t now_ms)
{
	bool good = r->is_good || now_ms - r->connected_ms > GOOD_AFTER_MS;

	net_grpc_client_destroy(TAKE_PTR(r->client));
	if (r->ended && r->status != NET_GRPC_UNAVAILABLE && r->status != NET_GRPC_OK)
		blame_reports(r);
	r->call = NULL;
	r->counters.failures++;
	for (struct report *report = r->queue.first; report; report = report->next)
		queue_set_sent(&r->queue, report, false);
	if (r->spool)
		spool_rewind(r->spool);
	r->in_flight_spool = 0;
	r->connected_ms = now_ms;
	connector_lost(r->connector, now_ms, good);
	if (r->ended && r->has_retry) {
		uint64_t random = 0;
		(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
		connector_wait(r->connector, now_ms + connector_asked_pause_ms(r->retry_ms, random));
	}
}

static struct err *begin(struct reporter *r, uint64_t now_ms)
{
	r->ended = r->is_good = false;
	r->pace = r->pace_sent = 0;
	r->connected_ms = r->pace_window_ms = r->moved_ms = now_ms;
	TRY(net_grpc_client_open(r->client, AGENT_STREAM_PATH, &call_ops, r, &r->call));
	r->counters.connects++;
	return send_hello(r, r->live);
}

/** Errors of the peer end the connection; what is left is ours. */
static struct err *or_disconnect(struct reporter *r, struct err *e, uint64_t now_ms)
{
	if (!e)
		e = TAKE_PTR(r->failed);
	if (!e && !r->ended)
		return NULL;
	if (e && !r->ended)
		(void)snprintf(r->failure, sizeof(r->failure), "%s", err_message(e));
	bool fatal = e && err_code(e) == ERR_NOMEM;
	if (!fatal)
		err_free(e);
	err_free(TAKE_PTR(r->failed));
	disconnect(r, now_ms);
	return fatal ? e : NULL;
}

static struct err *connect_turn(struct reporter *r, uint64_t now_ms)
{
	struct err *e = connector_poll(r->connector, now_ms, &r->client);

	if (e) {
		(void)snprintf(r->failure, sizeof(r->failure), "%s", err_message(e));
		r->counters.failures++;
		err_free(e);
	}
	return r->client ? or_disconnect(r, begin(r, now_ms), now_ms) : NULL;
}

/* -------------------------------------------------------------------------------------- sending */

static bool may_send(struct reporter *r, uint64_t now_ms)
{
	if (now_ms - r->pace_window_ms >= 1000) {
		r->pace_window_ms = now_ms;
		r->pace_sent = 0;
	}
	return r->call && !r->ended && net_grpc_client_queued(r->call) <= SEND_QUEUE_BYTES &&
	       r->queue.sent + r->in_flight_spool < REPORTER_IN_FLIGHT_MAX && (!r->pace || r->pace_sent < r->pace);
}

static struct err *send_spooled(struct reporter *r)
{
	struct wire_span envelope;
	uint64_t sequence = 0;

	if (!spool_next(r->spool, &sequence, &r->payload))
		return NULL;
	r->in_flight_spool++;
	struct reader reader = reader_init(r->payload.data, r->payload.len, false, "spool");
	while (spool_read_envelope(&reader, &envelope)) {
		r->pace_sent++;
		TRY(net_grpc_client_send(r->call, envelope.bytes, envelope.len));
	}
	/* Its numbers are bound now. */
	agent_sender_forget(r->live);
	return NULL;
}

static struct err *send_report(struct reporter *r, struct report *report)
{
	struct agent_sender_report sent = as_sent(report);

	use_things(r->live, &r->sent, report->things);
	TRY(agent_sender_report(r->live, &sent));
	queue_set_sent(&r->queue, report, true);
	return NULL;
}

static struct err *send_all(struct reporter *r, uint64_t now_ms)
{
	struct report *report = NULL;

	while (may_send(r, now_ms) && r->spool && spool_has_next(r->spool))
		TRY(send_spooled(r));
	while (may_send(r, now_ms) && (report = queue_waiting(&r->queue)))
		TRY(send_report(r, report));
	return NULL;
}

/** A server that hangs, or whose host is gone without a word, keeps nothing waiting forever. */
static struct err *check_progress(struct reporter *r, uint64_t now_ms)
{
	if (r->has_moved || r->queue.sent + r->in_flight_spool == 0)
		r->moved_ms = now_ms;
	r->has_moved = false;
	if (now_ms - r->moved_ms < STALL_MS)
		return NULL;
	return err_new(ERR_PEER, "%s: nothing acknowledged for %d s", r->options.collector, STALL_MS / 1000);
}

struct err *reporter_turn(struct reporter *r, uint64_t now_ms)
{
	if (!r->options.collector)
		return NULL;
	if (!r->client)
		TRY(connect_turn(r, now_ms));
	if (r->client)
		TRY(or_disconnect(r, net_grpc_client_run(r->client, 0), now_ms));
	if (r->client)
		TRY(or_disconnect(r, send_all(r, now_ms), now_ms));
	if (r->client)
		TRY(or_disconnect(r, net_grpc_client_run(r->client, 0), now_ms));
	if (r->client)
		TRY(or_disconnect(r, check_progress(r, now_ms), now_ms));
	return keep_bounds(r, now_ms);
}

struct err *reporter_status(struct reporter *r, const struct agent_status *status, const struct agent_loss *losses, size_t count)
{
	if (r->recorder)
		TRY(agent_sender_status(r->recorder, status, losses, count));
	return r->call ? or_disconnect(r, agent_sender_status(r->live, status, losses, count), now_ms_of_clock()) : NULL;
}

/* -------------------------------------------------------------------------------------- the end */

static void wait_a_little(void)
{
	const struct timespec pause = {.tv_nsec = WAIT_MS * 1000000L};

	(void)nanosleep(&pause, NULL);
}

struct err *reporter_finish(struct reporter *r, uint64_t timeout_ms)
{
	uint64_t begun = now_ms_of_clock(), failures = r->counters.failures, dropped = r->counters.dropped_queue + r->counters.dropped_spool;

	TRY(reporter_flush(r, begun));
	while (r->queue.count > 0 && now_ms_of_clock() - begun < timeout_ms) {
		TRY(reporter_turn(r, now_ms_of_clock()));
		/* Nobody is there: what waits is safe on the disk, or lost as well a little later. */
		if (!r->client && r->counters.failures > failures)
			break;
		if (r->queue.count > 0)
			wait_a_little();
	}
	if (r->call && r->queue.count == 0) {
		net_grpc_client_half_close(r->call);
		err_free(net_grpc_client_run(r->client, 0));
	}
	for (struct report *report = queue_pop(&r->queue); report; report = queue_pop(&r->queue))
		TRY(put_away(r, report));
	uint64_t lost = r->counters.dropped_queue + r->counters.dropped_spool - dropped;
	if (r->recorder)
		TRY(agent_record_close(&r->record));
	return lost == 0 ? NULL
			 : err_new(ERR_PEER, "%llu samples are lost: %s", (unsigned long long)lost, r->failure[0] ? r->failure : "no answer in time");
}

void reporter_counters(const struct reporter *r, struct reporter_counters *ret)
{
	struct agent_sender_counters sender;

	*ret = r->counters;
	agent_sender_counters(r->live, &sender);
	ret->rejected_future = sender.rejected_future;
	ret->rejected_old = sender.rejected_old;
	ret->queue_bytes = r->queue.bytes;
	ret->is_connected = r->call != NULL;
	ret->last_failure = r->failure;
	if (r->spool) {
		struct spool_counters spool;
		spool_counters(r->spool, &spool);
		ret->spool_bytes = spool.bytes;
		ret->damaged = spool.damaged;
		ret->dropped_spool += spool.dropped_samples;
	}
}

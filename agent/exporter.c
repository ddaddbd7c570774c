// SPDX-License-Identifier: Apache-2.0
/*
 * One request is under way at a time, those of the spool first, since they are older. What becomes of it:
 *
 *     OK                          done; profiles that partial_success says were rejected are counted, never sent again
 *     a status to be tried again  after the pause that the collector asks for (RetryInfo, retry-after), or a growing one with jitter
 *     another status              refused: the same bytes would be refused again
 *     no answer, no connection    again on another connection, which comes after a growing pause with jitter
 *
 * Source: opentelemetry-proto, docs/specification.md, "OTLP/gRPC Response", "OTLP/gRPC Throttling". A request that was taken and whose
 * answer was lost is sent again: its profile_ids are the same, so that who looks at them counts nothing twice.
 */
#include "agent/exporter.h"

#include "agent/connector.h"
#include "proto/wire_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

enum { ANSWER_MAX = 64 << 10, WAIT_MS = 20, PATH_BYTES = 4096 };

#define EXPORT_PATH "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"

struct item {
	struct buf request;
	uint32_t samples;
	uint64_t made_ms;
	struct item *next;
};

struct exporter {
	struct exporter_options options;
	struct connector *connector;
	struct net_grpc_client *client;
	struct spool *spool;
	struct item *first, **end; /* waiting, oldest first */
	size_t bytes, count;	   /* of them, and of the one under way */

	/* Under way: `item`, or a request of the spool. */
	struct net_grpc_client_call *call;
	struct item *item;
	bool is_spooled;
	uint64_t sequence;
	uint64_t moved_ms;  /* when bytes of it went */
	size_t left;	    /* that are to go */
	struct buf payload; /* of the spool */

	/* What the answer was. */
	bool ended, has_retry;
	enum net_grpc_status status;
	uint64_t retry_ms;
	char answer[256];

	bool is_failing;   /* since the last success */
	bool is_good;	   /* something was taken on this connection */
	unsigned refusals; /* answers in a row that ask to try again */
	uint64_t not_before_ms;
	char failure[320];
	struct reporter_counters counters;
};

/* -------------------------------------------------------------------------------------- life */

static struct err *open_spool(struct exporter *x)
{
	char path[PATH_BYTES];

	if ((size_t)snprintf(path, sizeof(path), "%s/otlp", x->options.spool) >= sizeof(path))
		return err_new(ERR_INVALID, "spool: a path of %zu bytes", strlen(x->options.spool));
	if (mkdir(x->options.spool, 0700) != 0 && errno != EEXIST)
		return err_os(errno, "%s", x->options.spool);
	return spool_open(path, x->options.spool_bytes, &x->spool);
}

struct err *exporter_create(const struct exporter_options *options, struct exporter **ret)
{
	struct exporter *x = calloc(1, sizeof(*x));

	if (!x)
		return err_nomem();
	x->options = *options;
	x->options.client.message_max = ANSWER_MAX;
	x->end = &x->first;
	struct err *e = options->spool ? open_spool(x) : NULL;
	if (!e)
		e = connector_create(options->collector, &x->options.client, &x->connector);
	if (e) {
		exporter_destroy(x);
		return e;
	}
	*ret = x;
	return NULL;
}

static void item_destroy(struct item *item)
{
	if (!item)
		return;
	buf_deinit(&item->request);
	free(item);
}

static struct item *pop(struct exporter *x)
{
	struct item *item = x->first;

	if (!item)
		return NULL;
	x->first = item->next;
	if (!x->first)
		x->end = &x->first;
	return item;
}

/** It is not ours to keep any more. */
static void release(struct exporter *x, struct item *take_item)
{
	if (!take_item)
		return;
	x->bytes -= take_item->request.len;
	x->count--;
	item_destroy(take_item);
}

void exporter_destroy(struct exporter *x)
{
	if (!x)
		return;
	net_grpc_client_destroy(x->client);
	connector_destroy(x->connector);
	release(x, x->item);
	for (struct item *item = pop(x); item; item = pop(x))
		release(x, item);
	spool_close(x->spool);
	buf_deinit(&x->payload);
	free(x);
}

/* -------------------------------------------------------------------------------------- bounds */

struct err *exporter_push(struct exporter *x, struct buf *take_request, uint64_t samples, uint64_t now_ms)
{
	struct item *item = calloc(1, sizeof(*item));

	if (!item)
		return err_nomem();
	*item = (struct item){.request = *take_request, .samples = (uint32_t)samples, .made_ms = now_ms};
	*take_request = (struct buf){0};
	*x->end = item;
	x->end = &item->next;
	x->bytes += item->request.len;
	x->count++;
	x->counters.samples += samples;
	x->counters.reports++;
	return NULL;
}

static struct err *spool_item(struct exporter *x, const struct item *item)
{
	CLEANUP(buf_deinit) struct buf payload = {0};
	uint64_t sequence = 0;

	TRY(buf_reserve(&payload, 4 + item->request.len));
	for (int i = 0; i < 4; i++)
		buf_put_u8(&payload, (uint8_t)(item->request.len >> 8 * i));
	TRY(buf_append(&payload, item->request.data, item->request.len));
	TRY(spool_next_sequence(x->spool, &sequence));
	return spool_append(x->spool, sequence, item->samples, &payload);
}

/** The request goes to the disk, or is lost and counted. */
static struct err *put_away(struct exporter *x, struct item *take_item)
{
	struct err *e = x->spool ? spool_item(x, take_item) : NULL;

	if (!x->spool)
		x->counters.dropped_queue += take_item->samples;
	if (e) {
		(void)snprintf(x->failure, sizeof(x->failure), "%s", err_message(e));
		x->counters.dropped_spool += take_item->samples;
	}
	release(x, take_item);
	if (e && err_code(e) == ERR_NOMEM)
		return e;
	err_free(e);
	return NULL;
}

static struct err *keep_bounds(struct exporter *x, uint64_t now_ms)
{
	while (x->first) {
		bool is_late = x->spool && x->is_failing && now_ms - x->first->made_ms >= REPORTER_SPOOL_AFTER_MS;
		if (!is_late && x->bytes <= x->options.queue_bytes)
			return NULL;
		TRY(put_away(x, pop(x)));
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- answers */

/* ExportProfilesServiceResponse { 1 partial_success { 1 rejected_profiles, 2 error_message } } */
static void on_message(void *user, const uint8_t *bytes, size_t len)
{
	struct exporter *x = user;
	struct reader response = wire_reader((struct wire_span){bytes, len}, NULL);
	struct wire_field field, member;

	while (wire_next(&response, &field)) {
		if (field.number != 1 || field.type != WIRE_LEN)
			continue;
		struct reader partial = wire_reader(field.bytes, NULL);
		while (wire_next(&partial, &member)) {
			if (member.number == 1 && member.type == WIRE_VARINT)
				x->counters.rejected_profiles += member.value;
			if (member.number == 2 && member.type == WIRE_LEN && member.bytes.len > 0)
				(void)snprintf(x->failure, sizeof(x->failure), "%s: partial success: %.*s", x->options.collector,
					(int)(member.bytes.len < 200 ? member.bytes.len : 200), (const char *)member.bytes.bytes);
		}
	}
}

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct exporter *x = user;

	x->has_retry = net_grpc_client_retry_ms(x->call, &x->retry_ms);
	x->call = NULL;
	x->ended = true;
	x->status = status;
	(void)snprintf(x->answer, sizeof(x->answer), "%s", message ? message : "");
}

static const struct net_grpc_client_ops call_ops = {.on_message = on_message, .on_end = on_end};

static bool may_retry(const struct exporter *x)
{
	switch (x->status) {
	case NET_GRPC_CANCELLED:
	case NET_GRPC_DEADLINE_EXCEEDED:
	case NET_GRPC_ABORTED:
	case NET_GRPC_OUT_OF_RANGE:
	case NET_GRPC_UNAVAILABLE:
	case NET_GRPC_DATA_LOSS:
		return true;
	case NET_GRPC_RESOURCE_EXHAUSTED:
		return x->has_retry;
	default:
		return false;
	}
}

/** What is under way waits again, first of all. */
static void take_back(struct exporter *x)
{
	struct item *item = TAKE_PTR(x->item);

	x->is_failing = true;
	if (item) {
		item->next = x->first;
		if (!x->first)
			x->end = &item->next;
		x->first = item;
	}
	if (x->is_spooled)
		spool_rewind(x->spool);
	x->is_spooled = false;
}

/** What is under way is done with. */
static void let_go(struct exporter *x)
{
	release(x, TAKE_PTR(x->item));
	if (x->is_spooled)
		(void)spool_acknowledge(x->spool, x->sequence);
	x->is_spooled = false;
}

static void pause_for(struct exporter *x, uint64_t now_ms)
{
	uint64_t random = 0;

	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	uint64_t pause = x->has_retry ? connector_asked_pause_ms(x->retry_ms, random) : connector_pause_ms(x->refusals, random);
	x->refusals++;
	x->not_before_ms = now_ms + pause;
}

static void take_answer(struct exporter *x, uint64_t now_ms)
{
	x->ended = false;
	if (x->status == NET_GRPC_OK) {
		x->counters.acknowledged_reports++;
		x->is_failing = false;
		x->is_good = true;
		x->refusals = 0;
		let_go(x);
		return;
	}
	(void)snprintf(x->failure, sizeof(x->failure), "%s: status %d%s%s", x->options.collector, (int)x->status, x->answer[0] ? ": " : "", x->answer);
	x->counters.failures++;
	if (may_retry(x)) {
		x->counters.retries++;
		pause_for(x, now_ms);
		take_back(x);
	} else {
		x->counters.refused += x->is_spooled ? spool_samples(x->spool, x->sequence) : x->item ? x->item->samples : 0;
		let_go(x);
	}
}

static void lose(struct exporter *x, const char *why, uint64_t now_ms)
{
	bool was_under_way = x->item || x->is_spooled;

	net_grpc_client_destroy(TAKE_PTR(x->client));
	x->call = NULL;
	x->ended = false;
	connector_lost(x->connector, now_ms, x->is_good);
	/* A collector may close a connection that nobody uses, but not before it was used. */
	if (!was_under_way && x->is_good)
		return;
	(void)snprintf(x->failure, sizeof(x->failure), "%s", why);
	x->counters.failures++;
	x->counters.retries += was_under_way;
	take_back(x);
}

/* -------------------------------------------------------------------------------------- turns */

static bool has_work(const struct exporter *x)
{
	return x->first || (x->spool && spool_has_next(x->spool));
}

static struct err *connect_turn(struct exporter *x, uint64_t now_ms)
{
	struct err *e = connector_poll(x->connector, now_ms, &x->client);

	x->counters.connects += x->client != NULL;
	x->is_good = false;
	if (!e)
		return NULL;
	(void)snprintf(x->failure, sizeof(x->failure), "%s", err_message(e));
	x->counters.failures++;
	x->is_failing = true;
	if (err_code(e) == ERR_NOMEM)
		return e;
	err_free(e);
	return NULL;
}

/** The next request, from the spool as long as there is one. False: a damaged one was passed over. */
static bool take_next(struct exporter *x, struct wire_span *ret)
{
	if (x->spool && spool_next(x->spool, &x->sequence, &x->payload)) {
		struct reader reader = reader_init(x->payload.data, x->payload.len, false, "spool");
		x->is_spooled = true;
		if (spool_read_envelope(&reader, ret))
			return true;
		let_go(x);
		return false;
	}
	x->item = pop(x);
	if (x->item)
		*ret = (struct wire_span){x->item->request.data, x->item->request.len};
	return x->item != NULL;
}

static struct err *send_next(struct exporter *x, uint64_t now_ms)
{
	struct wire_span request = {0};

	if (!take_next(x, &request))
		return NULL;
	x->moved_ms = now_ms;
	TRY(net_grpc_client_open(x->client, EXPORT_PATH, &call_ops, x, &x->call));
	TRY(net_grpc_client_send(x->call, request.bytes, request.len));
	net_grpc_client_half_close(x->call);
	x->left = net_grpc_client_queued(x->call);
	return NULL;
}

/** True when the collector neither reads nor answers: it hangs. A slow one does not. */
static bool is_stuck(struct exporter *x, uint64_t now_ms)
{
	size_t left = net_grpc_client_queued(x->call);

	if (left < x->left)
		x->moved_ms = now_ms;
	x->left = left;
	return now_ms - x->moved_ms >= EXPORTER_ANSWER_MS;
}

/** Errors of the peer end the connection; what is left is ours. */
static struct err *run(struct exporter *x, struct err *e, uint64_t now_ms)
{
	if (!e)
		e = net_grpc_client_run(x->client, 0);
	if (x->ended && !(e && x->status == NET_GRPC_UNAVAILABLE && !x->has_retry))
		take_answer(x, now_ms);
	if (!e && x->call && is_stuck(x, now_ms))
		e = err_new(ERR_PEER, "%s: no answer in %d s", x->options.collector, EXPORTER_ANSWER_MS / 1000);
	if (!e)
		return NULL;
	if (err_code(e) == ERR_NOMEM)
		return e;
	lose(x, err_message(e), now_ms);
	err_free(e);
	return NULL;
}

struct err *exporter_turn(struct exporter *x, uint64_t now_ms)
{
	if (!x->client && has_work(x) && now_ms >= x->not_before_ms)
		TRY(connect_turn(x, now_ms));
	if (x->client)
		TRY(run(x, NULL, now_ms));
	bool is_busy = x->item || x->is_spooled;
	if (x->client && !is_busy && has_work(x) && now_ms >= x->not_before_ms)
		TRY(run(x, send_next(x, now_ms), now_ms));
	return keep_bounds(x, now_ms);
}

/* -------------------------------------------------------------------------------------- the end */

static uint64_t now_ms_of_clock(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t lost(const struct exporter *x)
{
	return x->counters.dropped_queue + x->counters.dropped_spool + x->counters.refused;
}

struct err *exporter_finish(struct exporter *x, uint64_t timeout_ms)
{
	const struct timespec pause = {.tv_nsec = WAIT_MS * 1000000L};
	uint64_t begun = now_ms_of_clock(), failures = x->counters.failures, before = lost(x);

	while (x->count > 0 && now_ms_of_clock() - begun < timeout_ms) {
		TRY(exporter_turn(x, now_ms_of_clock()));
		/* Nobody is there: what waits is safe on the disk, or lost as well a little later. */
		if (!x->client && x->counters.failures > failures)
			break;
		if (x->count > 0)
			(void)nanosleep(&pause, NULL);
	}
	if (x->item)
		take_back(x);
	for (struct item *item = pop(x); item; item = pop(x))
		TRY(put_away(x, item));
	if (lost(x) == before)
		return NULL;
	return err_new(ERR_PEER, "%llu samples are lost: %s", (unsigned long long)(lost(x) - before), x->failure[0] ? x->failure : "no answer in time");
}

void exporter_counters(const struct exporter *x, struct reporter_counters *ret)
{
	*ret = x->counters;
	ret->queue_bytes = x->bytes;
	ret->is_connected = x->client != NULL;
	ret->last_failure = x->failure;
	if (x->spool) {
		struct spool_counters spool;
		spool_counters(x->spool, &spool);
		ret->spool_bytes = spool.bytes;
		ret->damaged = spool.damaged;
		ret->dropped_spool += spool.dropped_samples;
	}
}

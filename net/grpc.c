// SPDX-License-Identifier: Apache-2.0
/*
 * gRPC calls on requests. A call is the request's user pointer and lives as long as the request. The answer's head goes out with
 * the first message, or together with the status when there was none ("trailers only").
 */
#include "net/grpc.h"

#include "net/exchange.h"
#include "net/grpc_frame.h"
#include "net/grpc_retry.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A deadline beyond four months is none. */
#define TIMEOUT_NONE_MS ((uint64_t)10000000000)

/* What is short of memory now may not be in a second. */
enum { RETRY_AFTER_MS = 1000 };

struct net_grpc_call {
	struct net_request *request; /* borrowed: it owns the call */
	const struct net_grpc_method *method;
	void *user;
	struct grpc_reader reader;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
	uint64_t timer_ns;    /* of net_grpc_set_timer, likewise */
	uint64_t moved_ns; /* when bytes of the client came */
	uint64_t messages;
	bool replied; /* the head is sent */
	bool over;    /* finished or cancelled */
	bool ended;   /* the client's side */
	bool watched; /* the timer is set for a message that may stall */
	struct buf unary; /* the one message, until the half-close */
};

bool net_grpc_is(const struct net_request *request)
{
	const char *type = net_request_header(request, "content-type");

	return type && strncasecmp(type, "application/grpc", 16) == 0 && (type[16] == 0 || strchr("+; ", type[16]));
}

void net_grpc_set_user(struct net_grpc_call *call, void *user)
{
	call->user = user;
}

void *net_grpc_user(const struct net_grpc_call *call)
{
	return call->user;
}

struct net_request *net_grpc_request(const struct net_grpc_call *call)
{
	return call->request;
}

struct net_grpc_call *net_grpc_call_of(const struct net_request *request)
{
	return net_request_user(request);
}

uint64_t net_grpc_time_left_ms(const struct net_grpc_call *call)
{
	uint64_t now = net_now_ns();

	if (call->deadline_ns == 0)
		return UINT64_MAX;
	return call->deadline_ns > now ? (call->deadline_ns - now) / 1000000 : 0;
}

/* ---- outwards ---- */

static struct err *status_headers(struct net_reply *reply, enum net_grpc_status status, const char *message)
{
	char number[16];
	CLEANUP(buf_deinit) struct buf encoded = {0};

	(void)snprintf(number, sizeof(number), "%d", (int)status);
	TRY(net_reply_header(reply, "grpc-status", number));
	if (!message || !message[0])
		return NULL;
	TRY(grpc_message_encode(message, &encoded));
	return net_reply_header(reply, "grpc-message", (const char *)encoded.data);
}

/* An answer that is a status and nothing else. */
static void reply_status(struct net_request *request, enum net_grpc_status status, const char *message)
{
	struct net_reply reply = {.status = 200, .content_type = "application/grpc"};

	err_free(status_headers(&reply, status, message));
	net_request_reply(request, &reply);
}

static struct err *retry_header(struct net_reply *reply, enum net_grpc_status status, uint32_t retry_ms)
{
	char text[GRPC_RETRY_TEXT_MAX];

	grpc_retry_format(status, retry_ms, text);
	return net_reply_header(reply, GRPC_RETRY_HEADER, text);
}

/* @p retry_ms 0: nothing is said of another try. */
static void finish(struct net_grpc_call *call, enum net_grpc_status status, const char *message, uint32_t retry_ms)
{
	if (call->over)
		return;
	call->over = true;
	struct net_reply end = {0};

	if (!call->replied)
		end = (struct net_reply){.status = 200, .content_type = "application/grpc"};
	err_free(status_headers(&end, status, message));
	if (retry_ms)
		err_free(retry_header(&end, status, retry_ms));
	if (call->replied)
		net_request_reply_end(call->request, &end);
	else
		net_request_reply(call->request, &end);
}

void net_grpc_finish(struct net_grpc_call *call, enum net_grpc_status status, const char *message)
{
	finish(call, status, message, 0);
}

void net_grpc_finish_retry(struct net_grpc_call *call, enum net_grpc_status status, const char *message, uint32_t retry_ms)
{
	finish(call, status, message, retry_ms);
}

void net_grpc_reset(struct net_grpc_call *call)
{
	if (call->over)
		return;
	call->over = true;
	net_request_reset(call->request);
}

bool net_grpc_send(struct net_grpc_call *call, struct buf *take_message)
{
	struct buf prefix = {0};
	size_t len = take_message->len;

	if (call->over || len > UINT32_MAX) {
		buf_deinit(take_message);
		return false;
	}
	struct err *e = buf_reserve(&prefix, GRPC_PREFIX_BYTES);
	if (e) {
		err_free(e);
		buf_deinit(take_message);
		net_grpc_finish(call, NET_GRPC_UNAVAILABLE, "out of memory");
		return false;
	}
	buf_put_u8(&prefix, 0);
	for (int shift = 24; shift >= 0; shift -= 8)
		buf_put_u8(&prefix, (uint8_t)(len >> shift));
	if (!call->replied) {
		struct net_reply reply = {.status = 200, .content_type = "application/grpc"};
		call->replied = true;
		/* Without it in memory the client just does not learn what it may compress with. */
		err_free(net_reply_header(&reply, "grpc-accept-encoding", "identity,gzip"));
		net_request_reply_begin(call->request, &reply);
	}
	bool more = net_request_reply_write(call->request, &prefix);
	if (len > 0)
		more = net_request_reply_write(call->request, take_message);
	else
		buf_deinit(take_message);
	return more;
}

/* ---- inwards ---- */

static void cancel(struct net_grpc_call *call)
{
	if (!call->over && call->method->on_cancel)
		call->method->on_cancel(call);
}

/* Our own end of the call in place of the handler's. */
static void fail(struct net_grpc_call *call, enum net_grpc_status status, const char *message)
{
	cancel(call);
	net_grpc_finish(call, status, message);
}

static void fail_with(struct net_grpc_call *call, struct err *take_e)
{
	enum net_grpc_status status = NET_GRPC_INTERNAL;

	switch (err_code(take_e)) {
	case ERR_LIMIT:
		status = NET_GRPC_RESOURCE_EXHAUSTED;
		break;
	case ERR_NOMEM:
		status = NET_GRPC_UNAVAILABLE;
		break;
	default:
		break;
	}
	if (status == NET_GRPC_RESOURCE_EXHAUSTED)
		net_count(call->request->shard, NET_BODY_TOO_LARGE, 1);
	fail(call, status, err_message(take_e));
	err_free(take_e);
}

/*
 * Memory is held for a message whose rest, or whose end, is still to come. Collected bodies are timed by the connection; these
 * are streamed, so the call does it.
 */
static bool is_waiting(const struct net_grpc_call *call)
{
	return !call->ended && !call->request->paused && (call->reader.prefix_len > 0 || call->unary.cap > 0);
}

static uint64_t stall_ns(const struct net_grpc_call *call)
{
	return call->moved_ns + call->request->core->limits.body_timeout_ms * 1000000;
}

static void arm(struct net_grpc_call *call);

static void charge(struct net_grpc_call *call)
{
	net_charge(call->request->core, &call->request->charged, call->reader.message.cap + call->unary.cap);
}

static bool on_message(void *user, struct buf *message)
{
	struct net_grpc_call *call = user;

	call->messages++;
	if (call->method->unary && call->messages > 1) {
		fail(call, NET_GRPC_INTERNAL, "more than one message in a unary call");
		return false;
	}
	if (call->method->unary) {
		call->unary = *message;
		*message = (struct buf){0};
	} else if (call->method->on_message) {
		call->method->on_message(call, message);
	}
	return !call->over;
}

static void on_body(struct net_request *request, const uint8_t *bytes, size_t len)
{
	struct net_grpc_call *call = net_grpc_call_of(request);

	if (call->over)
		return;
	call->moved_ns = net_now_ns();
	struct err *e = grpc_reader_feed(&call->reader, bytes, len);
	if (e) {
		fail_with(call, e);
		return;
	}
	charge(call);
	if (call->over)
		return;
	if (request->charged > 0 && net_memory_is_short(request->core, 0)) {
		net_count(request->shard, NET_REFUSED_MEMORY, 1);
		cancel(call);
		finish(call, NET_GRPC_UNAVAILABLE, "too much is in memory at the moment", RETRY_AFTER_MS);
	} else if (!call->watched && is_waiting(call)) {
		arm(call);
	}
}

static void on_end(struct net_request *request)
{
	struct net_grpc_call *call = net_grpc_call_of(request);

	if (call->over)
		return;
	call->ended = true;
	struct err *e = grpc_reader_finish(&call->reader);
	if (e) {
		fail_with(call, e);
		return;
	}
	if (call->method->unary) {
		if (call->messages == 0) {
			fail(call, NET_GRPC_INTERNAL, "a unary call without a message");
			return;
		}
		/* Stays charged until the call is over: the handler may keep it as long as it likes. */
		struct buf message = call->unary;
		call->unary = (struct buf){0};
		if (call->method->on_message)
			call->method->on_message(call, &message);
		buf_deinit(&message);
	}
	if (!call->over && call->method->on_half_close)
		call->method->on_half_close(call);
}

static void on_writable(struct net_request *request)
{
	struct net_grpc_call *call = net_grpc_call_of(request);

	if (!call->over && call->method->on_writable)
		call->method->on_writable(call);
}

/* The request has one timer for the client's deadline, the handler's and a message that stalls: it is set to the earliest. */
static void arm(struct net_grpc_call *call)
{
	uint64_t at = call->timer_ns, now = net_now_ns();

	if (call->deadline_ns && (at == 0 || call->deadline_ns < at))
		at = call->deadline_ns;
	call->watched = is_waiting(call);
	if (call->watched && (at == 0 || stall_ns(call) < at))
		at = stall_ns(call);
	net_request_set_timer(call->request, at == 0 ? 0 : at > now ? (at - now) / 1000000 + 1 : 1);
}

void net_grpc_set_timer(struct net_grpc_call *call, uint64_t ms)
{
	call->timer_ns = ms ? net_now_ns() + ms * 1000000 : 0;
	if (!call->over)
		arm(call);
}

static void on_timer(struct net_request *request)
{
	struct net_grpc_call *call = net_grpc_call_of(request);
	uint64_t now = net_now_ns();

	if (call->over)
		return;
	if (call->deadline_ns && call->deadline_ns <= now) {
		fail(call, NET_GRPC_DEADLINE_EXCEEDED, "the deadline has passed");
		return;
	}
	if (is_waiting(call) && stall_ns(call) <= now) {
		net_count(request->shard, NET_TIMEOUTS_BODY, 1);
		fail(call, NET_GRPC_DEADLINE_EXCEEDED, "the message did not arrive in time");
		return;
	}
	if (call->timer_ns && call->timer_ns <= now) {
		call->timer_ns = 0;
		if (call->method->on_timer)
			call->method->on_timer(call);
	}
	if (!call->over)
		arm(call);
}

static void on_abort(struct net_request *request)
{
	struct net_grpc_call *call = net_grpc_call_of(request);

	cancel(call);
	call->over = true;
}

static void on_free(void *user)
{
	struct net_grpc_call *call = user;

	if (call->method->on_free)
		call->method->on_free(call->user);
	grpc_reader_deinit(&call->reader);
	buf_deinit(&call->unary);
	free(call);
}

/* ---- opening ---- */

static bool parse_codec(const char *name, enum codec *ret)
{
	*ret = CODEC_NONE;
	if (!name || strcmp(name, "identity") == 0)
		return true;
	if (strcmp(name, "gzip") != 0)
		return false;
	*ret = CODEC_GZIP;
	return true;
}

static void answer_unknown_encoding(struct net_request *request)
{
	struct net_reply reply = {.status = 200, .content_type = "application/grpc"};

	net_count(request->shard, NET_BODY_BAD_ENCODING, 1);
	err_free(status_headers(&reply, NET_GRPC_UNIMPLEMENTED, "grpc-encoding is neither identity nor gzip"));
	err_free(net_reply_header(&reply, "grpc-accept-encoding", "identity,gzip"));
	net_request_reply(request, &reply);
}

static void open_call(const struct net_grpc_method *method, struct net_request *request, enum codec codec,
	uint64_t timeout_ms, void *user)
{
	static const struct net_request_ops ops = {.on_body = on_body,
		.on_end = on_end,
		.on_writable = on_writable,
		.on_timer = on_timer,
		.on_abort = on_abort,
		.on_free = on_free};
	/* Each message has its limit; a stream has none. Messages carry their own compression. */
	static const struct net_body_options options = {.limit = UINT64_MAX, .stream = true, .raw = true};
	struct net_grpc_call *call = calloc(1, sizeof(*call));

	if (!call) {
		reply_status(request, NET_GRPC_UNAVAILABLE, "out of memory");
		return;
	}
	call->request = request;
	call->method = method;
	call->reader = (struct grpc_reader){.codec = codec, .on_message = on_message, .user = call};
	call->reader.limit = method->message_max ? method->message_max : NET_GRPC_MESSAGE_MAX_DEFAULT;
	net_request_accept(request, &ops, call, &options);
	if (timeout_ms < TIMEOUT_NONE_MS) {
		call->deadline_ns = net_now_ns() + timeout_ms * 1000000;
		if (timeout_ms == 0) {
			net_grpc_finish(call, NET_GRPC_DEADLINE_EXCEEDED, "the deadline has passed");
			return;
		}
		arm(call);
	}
	if (method->on_open)
		method->on_open(call, user);
}

void net_grpc_dispatch(const struct net_grpc_method *methods, size_t count, struct net_request *request, void *user)
{
	const char *timeout = net_request_header(request, "grpc-timeout");
	uint64_t timeout_ms = UINT64_MAX;
	enum codec codec;

	if (!net_request_is_http2(request)) {
		net_request_error(request, 505, "not_implemented", "gRPC needs HTTP/2");
		return;
	}
	if (net_request_method(request) != NET_POST) {
		net_request_error(request, 405, "method_not_allowed", "gRPC calls are POSTs");
		return;
	}
	if (timeout && !grpc_timeout_parse(timeout, &timeout_ms)) {
		reply_status(request, NET_GRPC_INVALID_ARGUMENT, "malformed grpc-timeout");
		return;
	}
	if (!parse_codec(net_request_header(request, "grpc-encoding"), &codec)) {
		answer_unknown_encoding(request);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (strcmp(methods[i].path, net_request_path(request)) == 0) {
			open_call(&methods[i], request, codec, timeout_ms, user);
			return;
		}
	}
	char message[256];
	(void)snprintf(message, sizeof(message), "there is no method %s", net_request_path(request));
	reply_status(request, NET_GRPC_UNIMPLEMENTED, message);
}

// SPDX-License-Identifier: Apache-2.0
#include "tests/net/fixture.h"

#include "base/digest.h"
#include "net/grpc.h"
#include "net/router.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define MUST(call)                                                                                 \
	do {                                                                                       \
		struct err *must_err_ = (call);                                                    \
		if (must_err_) {                                                                   \
			(void)fprintf(stderr, "fixture: %s\n", err_message(must_err_));            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct state {
	struct fixture *fixture;
	struct net_request *request; /* counted, while a thread works on it */
	uint64_t bytes, left, pause_ms;
	uint32_t crc;
};

static struct state *state_of(struct net_request *request)
{
	return net_request_user(request);
}

static void saw(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t query_number(struct net_request *request, const char *name)
{
	char text[32] = "0";
	bool found;

	MUST(net_request_query_get(request, name, text, sizeof(text), &found));
	return strtoull(text, NULL, 10);
}

static void reply_text(struct net_request *request, const char *text)
{
	struct net_reply reply = {.status = 200, .content_type = "text/plain"};

	MUST(buf_append(&reply.body, text, strlen(text)));
	net_request_reply(request, &reply);
}

/* ---- callbacks that routes share ---- */

static void on_abort(struct net_request *request)
{
	saw(&state_of(request)->fixture->seen.aborts, 1);
}

static void on_free(void *user)
{
	struct state *state = user;

	saw(&state->fixture->seen.frees, 1);
	free(state);
}

static void accept_request(struct net_request *request, struct fixture *fixture, const struct net_request_ops *ops,
	struct net_body_options options)
{
	struct state *state = calloc(1, sizeof(*state));

	if (!state)
		abort();
	state->fixture = fixture;
	net_request_accept(request, ops, state, &options);
}

/* ---- bodies ---- */

static void echo_end(struct net_request *request)
{
	struct net_reply reply = {.status = 200, .content_type = "application/octet-stream"};

	saw(&state_of(request)->fixture->seen.ends, 1);
	net_request_take_body(request, &reply.body);
	net_request_reply(request, &reply);
}

static void echo_head(struct net_request *request, void *user)
{
	static const struct net_request_ops ops = {.on_end = echo_end, .on_abort = on_abort, .on_free = on_free};
	accept_request(request, user, &ops, (struct net_body_options){.limit = 1 << 20});
}

static void small_head(struct net_request *request, void *user)
{
	static const struct net_request_ops ops = {.on_end = echo_end, .on_abort = on_abort, .on_free = on_free};
	accept_request(request, user, &ops, (struct net_body_options){.limit = 10});
}

static void count_body(struct net_request *request, const uint8_t *bytes, size_t len)
{
	struct state *state = state_of(request);

	state->bytes += len;
	state->crc = digest_crc32(state->crc, bytes, len);
	saw(&state->fixture->seen.body_bytes, len);
	if (state->pause_ms) {
		net_request_pause(request);
		net_request_set_timer(request, state->pause_ms);
	}
}

static void count_timer(struct net_request *request)
{
	saw(&state_of(request)->fixture->seen.timers, 1);
	net_request_resume(request);
}

static void count_end(struct net_request *request)
{
	struct state *state = state_of(request);
	char text[64];

	saw(&state->fixture->seen.ends, 1);
	(void)snprintf(text, sizeof(text), "%llu %08x\n", (unsigned long long)state->bytes, state->crc);
	reply_text(request, text);
}

static const struct net_request_ops count_ops = {
	.on_body = count_body, .on_end = count_end, .on_timer = count_timer, .on_abort = on_abort, .on_free = on_free};

static void count_head(struct net_request *request, void *user)
{
	accept_request(request, user, &count_ops, (struct net_body_options){.limit = (uint64_t)16 << 30, .stream = true});
}

static void slow_head(struct net_request *request, void *user)
{
	uint64_t ms = query_number(request, "ms");

	count_head(request, user);
	if (net_request_user(request))
		state_of(request)->pause_ms = ms;
}

static void auth_head(struct net_request *request, void *user)
{
	(void)user;
	net_request_error(request, 401, "unauthorized", "who are you?");
}

/* ---- answers ---- */

static void hello_head(struct net_request *request, void *user)
{
	(void)user;
	reply_text(request, "hello\n");
}

static void fill(struct buf *buf, uint64_t at, size_t len)
{
	MUST(buf_reserve(buf, len));
	for (size_t i = 0; i < len; i++)
		buf_put_u8(buf, (uint8_t)('a' + (at + i) % 26));
}

static void whole_head(struct net_request *request, void *user)
{
	struct net_reply reply = {.status = 200, .content_type = "text/plain"};

	(void)user;
	fill(&reply.body, 0, (size_t)query_number(request, "n"));
	net_request_reply(request, &reply);
}

static void stream_on(struct net_request *request)
{
	struct state *state = state_of(request);
	bool more = true;

	while (state->left > 0 && more) {
		struct buf piece = {0};
		size_t len = state->left < 10000 ? (size_t)state->left : 10000;
		fill(&piece, state->bytes, len);
		state->left -= len;
		state->bytes += len;
		more = net_request_reply_write(request, &piece);
	}
	if (state->left == 0)
		net_request_reply_end(request, NULL);
}

static void stream_writable(struct net_request *request)
{
	saw(&state_of(request)->fixture->seen.writable, 1);
	stream_on(request);
}

static void stream_end(struct net_request *request)
{
	struct net_reply reply = {.status = 200, .content_type = "text/plain"};

	net_request_reply_begin(request, &reply);
	stream_on(request);
}

static void stream_head(struct net_request *request, void *user)
{
	static const struct net_request_ops ops = {
		.on_end = stream_end, .on_writable = stream_writable, .on_abort = on_abort, .on_free = on_free};
	uint64_t left = query_number(request, "n");

	accept_request(request, user, &ops, (struct net_body_options){0});
	if (net_request_user(request))
		state_of(request)->left = left;
}

static void cut_head(struct net_request *request, void *user)
{
	struct net_reply reply = {.status = 200, .content_type = "text/plain"};
	struct buf piece = {0};

	(void)user;
	net_request_reply_begin(request, &reply);
	fill(&piece, 0, 5);
	(void)net_request_reply_write(request, &piece);
	net_request_reset(request);
}

/* ---- later ---- */

static void later_end(struct net_request *request)
{
	net_request_set_timer(request, query_number(request, "ms"));
}

static void later_timer(struct net_request *request)
{
	saw(&state_of(request)->fixture->seen.timers, 1);
	reply_text(request, "later\n");
}

static void later_head(struct net_request *request, void *user)
{
	static const struct net_request_ops ops = {
		.on_end = later_end, .on_timer = later_timer, .on_abort = on_abort, .on_free = on_free};
	accept_request(request, user, &ops, (struct net_body_options){0});
}

/* In a thread of the pool. */
static void thread_job(void *arg)
{
	struct net_request *request = arg;
	struct fixture *fixture = state_of(request)->fixture;
	struct net_reply reply = {.status = 200, .content_type = "text/plain"};

	while (atomic_load(&fixture->hold_workers))
		(void)usleep(1000);
	if (net_request_is_gone(request))
		saw(&fixture->seen.late_posts, 1);
	MUST(buf_append(&reply.body, "thread\n", 7));
	net_request_reply_post(request, &reply);
	net_request_unref(request);
}

static void thread_end(struct net_request *request)
{
	if (net_pool_submit(state_of(request)->fixture->pool, thread_job, net_request_ref(request)))
		return;
	net_request_unref(request);
	net_request_error(request, 503, "busy", "the pool is full");
}

static void thread_head(struct net_request *request, void *user)
{
	static const struct net_request_ops ops = {.on_end = thread_end, .on_abort = on_abort, .on_free = on_free};
	accept_request(request, user, &ops, (struct net_body_options){0});
}

static void never_head(struct net_request *request, void *user)
{
	static const struct net_request_ops ops = {.on_abort = on_abort, .on_free = on_free};
	accept_request(request, user, &ops, (struct net_body_options){0});
}

static void nothing_head(struct net_request *request, void *user)
{
	(void)request;
	(void)user;
}

static void param_head(struct net_request *request, void *user)
{
	char text[256];

	(void)user;
	(void)snprintf(text, sizeof(text), "%s|%s", net_request_param(request, 0), net_request_param(request, 1));
	reply_text(request, text);
}

static void query_head(struct net_request *request, void *user)
{
	char text[16];
	bool found;
	struct err *e = net_request_query_get(request, "x", text, sizeof(text), &found);

	(void)user;
	if (e) {
		net_request_error(request, 400, "invalid", "%s", err_message(e));
		err_free(e);
	} else {
		reply_text(request, found ? text : "none");
	}
}

static const struct net_route routes[] = {
	{NET_GET, "/hello", hello_head, "hello"},
	{NET_POST, "/echo", echo_head, "echo"},
	{NET_PUT, "/count", count_head, "count"},
	{NET_PUT, "/slow", slow_head, "slow"},
	{NET_POST, "/auth", auth_head, "auth"},
	{NET_POST, "/small", small_head, "small"},
	{NET_GET, "/whole", whole_head, "whole"},
	{NET_GET, "/stream", stream_head, "stream"},
	{NET_GET, "/cut", cut_head, "cut"},
	{NET_GET, "/later", later_head, "later"},
	{NET_GET, "/thread", thread_head, "thread"},
	{NET_GET, "/never", never_head, "never"},
	{NET_GET, "/nothing", nothing_head, "nothing"},
	{NET_GET, "/p/{a}/q/{b}", param_head, "param"},
	{NET_DELETE, "/p/{a}/q/{b}", param_head, "param_delete"},
	{NET_GET, "/query", query_head, "query"},
};

/* ---- gRPC ---- */

struct grpc_state {
	struct fixture *fixture;
	uint64_t left;
};

static void grpc_open(struct net_grpc_call *call, void *user)
{
	struct grpc_state *state = calloc(1, sizeof(*state));

	if (!state)
		abort();
	state->fixture = user;
	net_grpc_set_user(call, state);
}

static struct grpc_state *grpc_state_of(struct net_grpc_call *call)
{
	return net_grpc_user(call);
}

static void grpc_cancel(struct net_grpc_call *call)
{
	saw(&grpc_state_of(call)->fixture->seen.aborts, 1);
}

static void grpc_free(void *user)
{
	struct grpc_state *state = user;

	if (state)
		saw(&state->fixture->seen.frees, 1);
	free(state);
}

static void grpc_echo(struct net_grpc_call *call, struct buf *message)
{
	struct buf copy = *message;

	*message = (struct buf){0};
	saw(&grpc_state_of(call)->fixture->seen.body_bytes, copy.len);
	(void)net_grpc_send(call, &copy);
}

static void grpc_done(struct net_grpc_call *call)
{
	saw(&grpc_state_of(call)->fixture->seen.ends, 1);
	net_grpc_finish(call, NET_GRPC_OK, NULL);
}

static void grpc_fail(struct net_grpc_call *call, struct buf *message)
{
	(void)message;
	net_grpc_finish(call, NET_GRPC_FAILED_PRECONDITION, "5% n\xc3\xa4h\n");
}

static uint64_t number_of(const struct buf *message)
{
	char text[32] = "";

	memcpy(text, message->data, message->len < sizeof(text) - 1 ? message->len : sizeof(text) - 1);
	return strtoull(text, NULL, 10);
}

static void grpc_sleep(struct net_grpc_call *call, struct buf *message)
{
	net_grpc_set_timer(call, number_of(message));
}

static void grpc_timer(struct net_grpc_call *call)
{
	struct buf text = {0};

	saw(&grpc_state_of(call)->fixture->seen.timers, 1);
	MUST(buf_append(&text, "slept", 5));
	(void)net_grpc_send(call, &text);
	net_grpc_finish(call, NET_GRPC_OK, NULL);
}

static void grpc_flood_on(struct net_grpc_call *call)
{
	struct grpc_state *state = grpc_state_of(call);
	bool more = true;

	while (state->left > 0 && more) {
		struct buf text = {0};
		fill(&text, 0, 10000);
		state->left--;
		more = net_grpc_send(call, &text);
	}
	if (state->left == 0)
		net_grpc_finish(call, NET_GRPC_OK, NULL);
}

static void grpc_writable(struct net_grpc_call *call)
{
	saw(&grpc_state_of(call)->fixture->seen.writable, 1);
	grpc_flood_on(call);
}

static void grpc_flood(struct net_grpc_call *call, struct buf *message)
{
	grpc_state_of(call)->left = number_of(message);
	grpc_flood_on(call);
}

static void grpc_thread_post(struct net_request *request, void *arg)
{
	struct net_grpc_call *call = net_grpc_call_of(request);
	struct buf text = {0};

	(void)arg;
	if (net_request_is_gone(request))
		saw(&grpc_state_of(call)->fixture->seen.late_posts, 1);
	MUST(buf_append(&text, "thread", 6));
	(void)net_grpc_send(call, &text);
	net_grpc_finish(call, NET_GRPC_OK, NULL);
}

static void grpc_thread_job(void *arg)
{
	struct net_request *request = arg;
	struct fixture *fixture = grpc_state_of(net_grpc_call_of(request))->fixture;

	while (atomic_load(&fixture->hold_workers))
		(void)usleep(1000);
	net_request_post(request, grpc_thread_post, NULL);
	net_request_unref(request);
}

static void grpc_thread(struct net_grpc_call *call, struct buf *message)
{
	struct net_request *request = net_grpc_request(call);

	(void)message;
	if (net_pool_submit(grpc_state_of(call)->fixture->pool, grpc_thread_job, net_request_ref(request)))
		return;
	net_request_unref(request);
	net_grpc_finish(call, NET_GRPC_UNAVAILABLE, "the pool is full");
}

#define GRPC_COMMON .on_open = grpc_open, .on_cancel = grpc_cancel, .on_free = grpc_free

static const struct net_grpc_method grpc_methods[] = {
	{.path = "/test.Test/Echo", .unary = true, .on_message = grpc_echo, .on_half_close = grpc_done, GRPC_COMMON},
	{.path = "/test.Test/Small",
		.unary = true,
		.message_max = 100,
		.on_message = grpc_echo,
		.on_half_close = grpc_done,
		GRPC_COMMON},
	{.path = "/test.Test/Chat", .on_message = grpc_echo, .on_half_close = grpc_done, GRPC_COMMON},
	{.path = "/test.Test/Fail", .unary = true, .on_message = grpc_fail, GRPC_COMMON},
	{.path = "/test.Test/Sleep", .unary = true, .on_message = grpc_sleep, .on_timer = grpc_timer, GRPC_COMMON},
	{.path = "/test.Test/Flood", .unary = true, .on_message = grpc_flood, .on_writable = grpc_writable, GRPC_COMMON},
	{.path = "/test.Test/Thread", .unary = true, .on_message = grpc_thread, GRPC_COMMON},
};

static void on_head(struct net_request *request, void *user)
{
	struct fixture *fixture = user;

	saw(&fixture->seen.heads, 1);
	if (net_grpc_is(request)) {
		net_grpc_dispatch(grpc_methods, ARRAY_SIZE(grpc_methods), request, user);
		return;
	}
	net_route_dispatch(routes, ARRAY_SIZE(routes), request, user);
}

void fixture_start_on(struct fixture *fixture, const struct net_limits *limits, unsigned loops, const char *address)
{
	*fixture = (struct fixture){0};
	struct net_server_options options = {.loops = loops, .handler = {.on_head = on_head, .user = fixture}};
	if (limits)
		options.limits = *limits;
	MUST(net_pool_create("work", 2, 4, &fixture->pool));
	MUST(net_server_create(&options, &fixture->server));
	MUST(net_server_listen(fixture->server, address, &fixture->port));
}

void fixture_start(struct fixture *fixture, const struct net_limits *limits, unsigned loops)
{
	fixture_start_on(fixture, limits, loops, "127.0.0.1:0");
}

void fixture_stop(struct fixture *fixture, uint64_t grace_ms)
{
	net_server_stop(fixture->server, grace_ms);
	/* The pool after the loops: what it still finishes is posted to a server that has stopped. */
	net_pool_destroy(fixture->pool);
	net_server_destroy(fixture->server);
	fixture->server = NULL;
	fixture->pool = NULL;
}

struct net_server_stats fixture_stats(struct fixture *fixture)
{
	struct net_server_stats stats;

	net_server_stats(fixture->server, &stats);
	return stats;
}

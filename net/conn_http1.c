// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/1.1 on a connection: binds the I/O-free core (http1.c) to the connection layer (conn.c) and to requests (request.c).
 * One exchange at a time; pipelined requests wait in the connection's input until the answer before them is written and the
 * peer has taken most of it.
 *
 * An answer may come before the body is complete. A short rest of known length is read and dropped so that the
 * connection lives on; otherwise the answer says `connection: close`, and the connection lingers (conn.c).
 */
#include "net/conn.h"
#include "net/http1.h"

enum {
	DROP_BODY_MAX = 64 * 1024, /* rest of a refused body that is read for the connection's sake */
	DECODE_FEED_BYTES = 4096,  /* of a compressed body at a time, so that a pause takes hold soon */
};

struct h1 {
	struct net_conn *conn;
	struct http1 core;
	struct net_request *request; /* NULL when there is none or its answer is complete */
	uint64_t requests;
	bool draining;
	bool body_moved; /* since on_settled */
};

/* ---- the exchange ends ---- */

static void h1_done(struct h1 *h1)
{
	struct net_conn *conn = h1->conn;
	bool whole = h1->core.state == HTTP1_DONE;

	h1->request = NULL;
	h1->core.paused = false;
	if (!h1->core.keep_alive || h1->draining)
		net_conn_finish(conn, !whole);
}

/* The rest of the body is short enough to be read for nothing. */
static bool rest_is_short(const struct h1 *h1)
{
	const struct http1 *core = &h1->core;

	if (core->state == HTTP1_DONE)
		return true;
	return core->state == HTTP1_BODY_LENGTH && core->left <= DROP_BODY_MAX && h1->request &&
	       !h1->request->head.expect_continue;
}

static void h1_decide_persistence(struct h1 *h1, bool whole)
{
	struct net_shard *shard = h1->conn->shard;

	if (h1->requests >= shard->core->limits.requests_per_connection && h1->core.keep_alive) {
		net_count(shard, NET_CLOSED_REQUESTS_LIMIT, 1);
		h1->core.keep_alive = false;
	}
	if (h1->draining || (whole && !rest_is_short(h1)))
		h1->core.keep_alive = false;
}

static void h1_write_head(struct h1 *h1, const struct net_reply *reply, int64_t length)
{
	CLEANUP(buf_deinit) struct buf out = {0};
	struct err *e = http1_write_head(&h1->core, reply, length, net_loop_date(&h1->conn->shard->loop), &out);

	if (e) {
		err_free(e);
		net_conn_kill(h1->conn);
		return;
	}
	net_conn_write(h1->conn, out.data, out.len);
}

static void h1_write_piece(struct h1 *h1, struct buf *take_piece)
{
	struct net_conn *conn = h1->conn;
	enum http1_reply_framing framing = h1->core.reply_framing;

	if (framing == HTTP1_REPLY_NONE || take_piece->len == 0) {
		buf_deinit(take_piece);
		return;
	}
	if (framing == HTTP1_REPLY_CHUNKED) {
		CLEANUP(buf_deinit) struct buf head = {0};
		struct err *e = http1_write_chunk_head(take_piece->len, &head);
		if (e) {
			err_free(e);
			net_conn_kill(conn);
		}
		net_conn_write(conn, head.data, head.len);
	}
	net_conn_write_take(conn, take_piece);
	if (framing == HTTP1_REPLY_CHUNKED)
		net_conn_write(conn, HTTP1_CHUNK_TAIL, 2);
}

/* ---- what a request asks of its transport ---- */

static void h1_start_body(void *exchange)
{
	struct h1 *h1 = exchange;

	if (!h1->request || !h1->request->head.expect_continue)
		return;
	h1->request->head.expect_continue = false;
	net_count(h1->conn->shard, NET_REPLIES_1XX, 1);
	net_conn_write(h1->conn, HTTP1_CONTINUE, sizeof(HTTP1_CONTINUE) - 1);
}

static void h1_reply(void *exchange, struct net_reply *take_reply, bool whole)
{
	struct h1 *h1 = exchange;
	struct net_conn *conn = h1->conn;

	net_conn_enter(conn);
	h1_decide_persistence(h1, whole);
	h1_write_head(h1, take_reply, whole ? (int64_t)take_reply->body.len : -1);
	h1_write_piece(h1, &take_reply->body);
	if (whole)
		h1_done(h1);
	net_conn_leave(conn);
}

static bool h1_write(void *exchange, struct buf *take_piece)
{
	struct h1 *h1 = exchange;
	struct net_conn *conn = h1->conn;

	net_conn_enter(conn);
	h1_write_piece(h1, take_piece);
	if (net_conn_output(conn) >= NET_OUTPUT_HIGH)
		net_conn_flush(conn);
	bool more = !conn->dead && net_conn_output(conn) < NET_OUTPUT_HIGH;
	conn->wants_room |= !more;
	net_conn_leave(conn);
	return more;
}

static void h1_end(void *exchange, struct net_reply *take_trailers)
{
	struct h1 *h1 = exchange;
	struct net_conn *conn = h1->conn;

	(void)take_trailers; /* HTTP/1.1 clients do not read them */
	net_conn_enter(conn);
	if (h1->core.reply_framing == HTTP1_REPLY_CHUNKED)
		net_conn_write(conn, HTTP1_LAST_CHUNK, sizeof(HTTP1_LAST_CHUNK) - 1);
	/* The head has promised to go on, but the client is still sending what nobody reads. */
	if (!rest_is_short(h1))
		h1->core.keep_alive = false;
	h1_done(h1);
	net_conn_leave(conn);
}

static void h1_reset(void *exchange)
{
	struct h1 *h1 = exchange;

	h1->request = NULL;
	net_conn_kill(h1->conn);
}

static void h1_paused(void *exchange)
{
	struct h1 *h1 = exchange;
	struct net_conn *conn = h1->conn;

	net_conn_enter(conn);
	h1->core.paused = h1->request && h1->request->paused;
	net_conn_leave(conn);
}

static const struct net_transport h1_transport = {
	.start_body = h1_start_body,
	.reply = h1_reply,
	.write = h1_write,
	.end = h1_end,
	.reset = h1_reset,
	.paused = h1_paused,
};

/* ---- what the core reports ---- */

static void on_head(void *user, struct net_head *take_head)
{
	struct h1 *h1 = user;
	struct net_conn *conn = h1->conn;

	h1->requests++;
	h1->request = request_create(conn->shard, &h1_transport, h1, take_head, conn->peer);
	if (h1->request)
		request_dispatch(h1->request);
	else
		net_conn_kill(conn);
}

static void on_body(void *user, const uint8_t *bytes, size_t len)
{
	struct h1 *h1 = user;

	h1->body_moved = true;
	if (h1->request)
		request_body_piece(h1->request, bytes, len);
}

static void on_end(void *user)
{
	struct h1 *h1 = user;

	if (h1->request)
		request_body_end(h1->request);
}

static const struct http1_events events = {.on_head = on_head, .on_body = on_body, .on_end = on_end};

/* ---- what the connection reports ---- */

static struct err *h1_open(struct net_conn *conn)
{
	const struct net_limits *limits = &conn->shard->core->limits;
	struct h1 *h1 = calloc(1, sizeof(*h1));

	if (!h1)
		return err_nomem();
	h1->conn = conn;
	http1_init(&h1->core, &events, h1, (size_t)limits->head_bytes, (size_t)limits->head_count);
	conn->state = h1;
	return NULL;
}

static void h1_error_reply(struct h1 *h1, unsigned status, const char *code, const char *message)
{
	struct net_reply reply = {0};

	h1->core.keep_alive = false;
	net_reply_error(&reply, status, code, "%s", message);
	net_count(h1->conn->shard, status >= 500 ? NET_REPLIES_5XX : NET_REPLIES_4XX, 1);
	h1_write_head(h1, &reply, (int64_t)reply.body.len);
	h1_write_piece(h1, &reply.body);
	net_reply_deinit(&reply);
	net_conn_finish(h1->conn, true);
}

static const char *error_code(unsigned status)
{
	switch (status) {
	case 431:
		return "headers_too_large";
	case 500:
		return "internal";
	case 501:
	case 505:
		return "not_implemented";
	default:
		return "invalid";
	}
}

/* The bytes are not HTTP: say so and close. */
static void h1_failed(struct h1 *h1)
{
	unsigned status = h1->core.error_status;
	const char *reason = h1->core.error_reason;

	net_count(h1->conn->shard, status == 431 ? NET_HEAD_TOO_LARGE : NET_BAD_REQUESTS, 1);
	if (h1->request)
		request_fail(h1->request, status, error_code(status), reason);
	else if (!h1->conn->finishing)
		h1_error_reply(h1, status, error_code(status), reason);
}

static size_t h1_on_bytes(struct net_conn *conn, const uint8_t *bytes, size_t len)
{
	struct h1 *h1 = conn->state;

	if (h1->core.state == HTTP1_DONE) {
		if (h1->request)
			return 0;
		/* The next answer waits until the peer has taken most of the last ones. */
		if (net_conn_output(conn) >= NET_OUTPUT_HIGH) {
			conn->wants_room = true;
			return 0;
		}
		http1_next(&h1->core);
	}
	if (h1->request && h1->request->decoder && len > DECODE_FEED_BYTES)
		len = DECODE_FEED_BYTES;
	size_t taken = http1_feed(&h1->core, bytes, len);
	if (h1->core.state == HTTP1_FAILED && !conn->finishing && !conn->dead)
		h1_failed(h1);
	return taken;
}

static void h1_on_settled(struct net_conn *conn)
{
	struct h1 *h1 = conn->state;
	struct http1 *core = &h1->core;

	if (core->state == HTTP1_DONE && !h1->request)
		http1_next(core);
	if (core->state == HTTP1_HEAD)
		net_conn_wait(conn, http1_is_idle(core) ? NET_WAIT_IDLE : NET_WAIT_HEAD, false);
	else if (core->state == HTTP1_DONE || core->paused)
		net_conn_wait(conn, NET_WAIT_NOTHING, false);
	else
		net_conn_wait(conn, NET_WAIT_BODY, h1->body_moved);
	h1->body_moved = false;
}

static void h1_on_room(struct net_conn *conn)
{
	struct h1 *h1 = conn->state;

	if (h1->request)
		request_writable(h1->request);
}

static void h1_on_eof(struct net_conn *conn)
{
	struct h1 *h1 = conn->state;
	struct net_request *request = h1->request;

	h1->request = NULL;
	if (request)
		request_abort(request);
	net_conn_finish(conn, false);
}

static void h1_on_timeout(struct net_conn *conn, enum net_wait what)
{
	struct h1 *h1 = conn->state;

	if (what == NET_WAIT_IDLE) {
		net_conn_finish(conn, false);
	} else if (h1->request) {
		h1->core.keep_alive = false;
		request_fail(h1->request, 408, "timeout", "the body did not arrive in time");
	} else if (what == NET_WAIT_HEAD && !conn->finishing) {
		h1_error_reply(h1, 408, "timeout", "the head did not arrive in time");
	} else {
		net_conn_kill(conn);
	}
}

static void h1_on_drain(struct net_conn *conn)
{
	struct h1 *h1 = conn->state;

	h1->draining = true;
	if (!h1->request && http1_is_idle(&h1->core))
		net_conn_finish(conn, false);
}

static void h1_close(struct net_conn *conn)
{
	struct h1 *h1 = conn->state;
	struct net_request *request = h1->request;

	h1->request = NULL;
	if (request)
		request_abort(request);
	http1_deinit(&h1->core);
	free(h1);
	conn->state = NULL;
}

const struct net_protocol net_protocol_http1 = {
	.open = h1_open,
	.on_bytes = h1_on_bytes,
	.on_settled = h1_on_settled,
	.on_room = h1_on_room,
	.on_eof = h1_on_eof,
	.on_timeout = h1_on_timeout,
	.on_drain = h1_on_drain,
	.close = h1_close,
};

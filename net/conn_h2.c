// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/2 on a connection: binds the I/O-free session (h2.c) to the connection layer (conn.c) and each stream to a request.
 *
 * Output: frames are pulled from the session while the connection's output is below NET_OUTPUT_HIGH; what cannot be sent stays
 * in the streams' queues, whose writers wait. A peer that gives no credit leaves the socket's output empty, so the
 * connection's write timeout would not see it: a deadline of its own runs while queues are filled and h2_sent stands still.
 *
 * Input: bytes for a paused request are held (at most its window), and the stream's credit is kept back until it resumes.
 *
 * Liveness: without streams the keep-alive timeout ends the connection with GOAWAY. With streams, silence for body_timeout_ms is
 * answered by a PING; if that is not acknowledged within body_timeout_ms the connection is dead. Collected bodies that do
 * not move for as long are answered 408.
 */
#include "net/conn.h"
#include "net/grpc.h"
#include "net/h2.h"

struct h2_conn {
	struct net_conn *conn;
	struct h2 *h2;
	bool draining;
	bool heard;	     /* bytes came since on_settled */
	uint64_t sent_before; /* h2_sent at the last progress */
	size_t held;	      /* bytes held for paused requests */
	uint64_t checked_ns;  /* when stalled streams were looked for */
	uint64_t calmed_ns;   /* when time last took noise away */
};

/* What a client may still send on a stream whose answer is complete. */
enum { DROP_BODY_MAX = H2_STREAM_WINDOW / 2, CALM_PER_SECOND = 10 };

/* One stream's exchange; freed when the stream is closed. */
struct h2_exchange {
	struct h2_conn *hc;
	struct h2_stream *stream;
	struct net_request *request; /* NULL when the answer is complete or the request was aborted */
	struct buf held;	     /* body bytes of a paused request */
	size_t held_sent;
	bool held_end; /* the body's end came while it was paused */
	uint64_t moved_ns;
	size_t dropped; /* bytes that came after the answer was complete */
	bool never_stop; /* gRPC: clients end the stream themselves, and err when we do it while they send */
};

static void finish_if_over(struct h2_conn *hc)
{
	if (h2_is_over(hc->h2) || (hc->draining && h2_stream_count(hc->h2) == 0))
		net_conn_finish(hc->conn, true);
}

static void pull(struct h2_conn *hc)
{
	struct net_conn *conn = hc->conn;
	const uint8_t *bytes;
	size_t len;

	while (!conn->dead && net_conn_output(conn) < NET_OUTPUT_HIGH && (len = h2_pull(hc->h2, &bytes)) > 0)
		net_conn_write(conn, bytes, len);
	conn->wants_room |= net_conn_output(conn) >= NET_OUTPUT_HIGH;
}

/* ---- what a request asks of its transport ---- */

static void x_start_body(void *exchange)
{
	struct h2_exchange *x = exchange;

	if (!x->request || !x->request->head.expect_continue)
		return;
	x->request->head.expect_continue = false;
	net_count(x->hc->conn->shard, NET_REPLIES_1XX, 1);
	h2_continue(x->stream);
}

static void x_reply(void *exchange, struct net_reply *take_reply, bool whole)
{
	struct h2_exchange *x = exchange;
	struct net_conn *conn = x->hc->conn;

	net_conn_enter(conn);
	if (whole)
		x->request = NULL;
	struct err *e = h2_reply(x->stream, take_reply, whole, net_loop_date(&conn->shard->loop));
	if (e) {
		err_free(e);
		h2_reset(x->stream);
	}
	net_conn_leave(conn);
}

static bool x_write(void *exchange, struct buf *take_piece)
{
	struct h2_exchange *x = exchange;
	struct net_conn *conn = x->hc->conn;

	net_conn_enter(conn);
	bool more = h2_write(x->stream, take_piece);
	net_conn_leave(conn);
	return more;
}

static void x_end(void *exchange, struct net_reply *take_trailers)
{
	struct h2_exchange *x = exchange;
	struct net_conn *conn = x->hc->conn;

	net_conn_enter(conn);
	x->request = NULL;
	h2_end(x->stream, take_trailers ? &take_trailers->headers : NULL);
	net_conn_leave(conn);
}

static void x_reset(void *exchange)
{
	struct h2_exchange *x = exchange;
	struct net_conn *conn = x->hc->conn;

	net_conn_enter(conn);
	x->request = NULL;
	h2_reset(x->stream);
	net_conn_leave(conn);
}

/* Hands on what was held back, in slices, until it is all gone or the handler pauses again. */
static void deliver_held(struct h2_exchange *x)
{
	while (x->request && !x->request->paused && x->held_sent < x->held.len) {
		size_t len = x->held.len - x->held_sent;
		if (len > 16384)
			len = 16384;
		const uint8_t *bytes = x->held.data + x->held_sent;
		x->held_sent += len;
		request_body_piece(x->request, bytes, len);
		h2_consumed_stream(x->stream, len);
	}
	if (x->held_sent < x->held.len && x->request)
		return;
	x->hc->held -= x->held.len;
	buf_deinit(&x->held);
	x->held_sent = 0;
	if (x->held_end && x->request && !x->request->paused) {
		x->held_end = false;
		request_body_end(x->request);
	}
}

static void x_paused(void *exchange)
{
	struct h2_exchange *x = exchange;
	struct net_conn *conn = x->hc->conn;

	if (x->request->paused)
		return;
	net_conn_enter(conn);
	deliver_held(x);
	net_conn_leave(conn);
}

static const struct net_transport h2_transport = {
	.start_body = x_start_body,
	.reply = x_reply,
	.write = x_write,
	.end = x_end,
	.reset = x_reset,
	.paused = x_paused,
};

/* ---- what the session reports ---- */

static void on_head(void *user, struct h2_stream *stream, struct net_head *take_head)
{
	struct h2_conn *hc = user;
	struct h2_exchange *x = calloc(1, sizeof(*x));

	if (!x) {
		net_head_deinit(take_head);
		h2_reset(stream);
		return;
	}
	x->hc = hc;
	x->stream = stream;
	x->moved_ns = net_now_ns();
	stream->user = x;
	x->request = request_create(hc->conn->shard, &h2_transport, x, take_head, hc->conn->peer);
	if (!x->request) {
		h2_reset(stream);
		return;
	}
	x->never_stop = net_grpc_is(x->request);
	request_dispatch(x->request);
}

static void on_body(void *user, struct h2_stream *stream, const uint8_t *bytes, size_t len)
{
	struct h2_exchange *x = stream->user;

	(void)user;
	if (!x || !x->request) {
		h2_consumed_connection(stream, len);
		if (x && !x->never_stop && x->dropped <= DROP_BODY_MAX && (x->dropped += len) > DROP_BODY_MAX)
			h2_stop(stream);
		return;
	}
	x->moved_ns = net_now_ns();
	if (!x->request->paused) {
		request_body_piece(x->request, bytes, len);
		h2_consumed(stream, len);
		return;
	}
	struct err *e = buf_append(&x->held, bytes, len);
	h2_consumed_connection(stream, len);
	x->hc->held += e ? 0 : len;
	if (e || net_memory_is_short(x->request->core, x->hc->held)) {
		err_free(e);
		net_count(x->hc->conn->shard, NET_REFUSED_MEMORY, 1);
		request_fail(x->request, 503, "busy", "too much is in memory at the moment");
	}
}

static void on_end(void *user, struct h2_stream *stream)
{
	struct h2_exchange *x = stream->user;

	(void)user;
	if (!x || !x->request)
		return;
	if (x->held.len > 0 || x->request->paused)
		x->held_end = true;
	else
		request_body_end(x->request);
}

static void on_stream_room(void *user, struct h2_stream *stream)
{
	struct h2_exchange *x = stream->user;

	(void)user;
	if (x && x->request)
		request_writable(x->request);
}

static void on_closed(void *user, struct h2_stream *stream)
{
	struct h2_exchange *x = stream->user;

	(void)user;
	if (!x)
		return;
	struct net_request *request = x->request;
	x->request = NULL;
	stream->user = NULL;
	if (request)
		request_abort(request);
	x->hc->held -= x->held.len;
	buf_deinit(&x->held);
	free(x);
}

static const struct h2_events events = {
	.on_head = on_head, .on_body = on_body, .on_end = on_end, .on_room = on_stream_room, .on_closed = on_closed};

/* ---- what the connection reports ---- */

static struct err *hc_open(struct net_conn *conn)
{
	const struct net_limits *limits = &conn->shard->core->limits;
	struct h2_limits h2_limits = {.streams = (uint32_t)limits->streams, .head_bytes = (size_t)limits->head_bytes,
		.head_count = (size_t)limits->head_count + 4, .requests = limits->requests_per_connection};
	struct h2_conn *hc = calloc(1, sizeof(*hc));

	if (!hc)
		return err_nomem();
	hc->conn = conn;
	struct err *e = h2_create(&h2_limits, &events, hc, &hc->h2);
	if (e) {
		free(hc);
		return e;
	}
	conn->state = hc;
	return NULL;
}

/* Keep-alive PINGs of a connection that lives for days are no flood. */
static void calm_by_time(struct h2_conn *hc)
{
	uint64_t now = net_now_ns(), seconds = (now - hc->calmed_ns) / 1000000000;

	if (seconds == 0)
		return;
	h2_calm(hc->h2, (unsigned)(seconds < 1000 ? seconds : 1000) * CALM_PER_SECOND);
	hc->calmed_ns = now;
}

static size_t hc_on_bytes(struct net_conn *conn, const uint8_t *bytes, size_t len)
{
	struct h2_conn *hc = conn->state;

	/* Answers to its frames pile up: it must read before it may write more. */
	if (net_conn_output(conn) >= NET_OUTPUT_HIGH) {
		conn->wants_room = true;
		return 0;
	}
	hc->heard = true;
	calm_by_time(hc);
	if (!h2_feed(hc->h2, bytes, len)) {
		net_count(conn->shard, NET_BAD_REQUESTS, 1);
		net_conn_finish(conn, true);
	}
	/* Answers go out before the next bytes come in: clients that are told to stop should hear it soon. */
	pull(hc);
	return len;
}

/* Streams whose queues have room again; each may write, reset or end itself in its turn. */
static void offer_room(struct h2_conn *hc)
{
	struct h2_stream *next;

	for (struct h2_stream *stream = h2_next_stream(hc->h2, NULL); stream; stream = next) {
		next = h2_next_stream(hc->h2, stream);
		if (!stream->wants_room || stream->queued > H2_STREAM_LOW)
			continue;
		stream->wants_room = false;
		events.on_room(hc, stream);
	}
}

static void watch_stall(struct h2_conn *hc)
{
	struct net_conn *conn = hc->conn;
	uint64_t sent = h2_sent(hc->h2);

	if (h2_queued(hc->h2) == 0)
		conn->stall_deadline_ns = 0;
	else if (sent != hc->sent_before || conn->stall_deadline_ns == 0)
		conn->stall_deadline_ns = net_now_ns() + conn->shard->core->limits.write_timeout_ms * 1000000;
	hc->sent_before = sent;
}

/* Collected bodies that do not move, and clients that neither send nor end what nobody waits for. */
static void end_stalled_streams(struct h2_conn *hc)
{
	uint64_t limit_ns = hc->conn->shard->core->limits.body_timeout_ms * 1000000, now = net_now_ns();

	hc->checked_ns = now;
	for (struct h2_stream *stream = h2_next_stream(hc->h2, NULL); stream; stream = h2_next_stream(hc->h2, stream)) {
		struct h2_exchange *x = stream->user;
		if (!x || stream->remote_ended || now - x->moved_ns < limit_ns)
			continue;
		if (!x->request && stream->reply_ended && stream->queued == 0) {
			h2_stop(stream);
		} else if (x->request && !x->request->options.stream) {
			net_count(hc->conn->shard, NET_TIMEOUTS_BODY, 1);
			request_fail(x->request, 408, "timeout", "the body did not arrive in time");
		}
	}
}

static void hc_on_settled(struct net_conn *conn)
{
	struct h2_conn *hc = conn->state;

	if (net_now_ns() - hc->checked_ns > conn->shard->core->limits.body_timeout_ms * 500000)
		end_stalled_streams(hc);
	pull(hc);
	if (h2_queued(hc->h2) > 0 || hc->sent_before != h2_sent(hc->h2)) {
		offer_room(hc);
		pull(hc);
	}
	watch_stall(hc);
	conn->protocol_bytes = h2_queued(hc->h2) + hc->held;
	bool idle = h2_stream_count(hc->h2) == 0;
	net_conn_wait(conn, idle ? NET_WAIT_IDLE : NET_WAIT_PEER, hc->heard);
	hc->heard = false;
	finish_if_over(hc);
}

static void hc_on_room(struct net_conn *conn)
{
	pull(conn->state);
}

static void hc_on_eof(struct net_conn *conn)
{
	net_conn_kill(conn);
}

static void hc_on_timeout(struct net_conn *conn, enum net_wait what)
{
	struct h2_conn *hc = conn->state;

	if (what == NET_WAIT_IDLE) {
		h2_goaway(hc->h2);
		pull(hc);
		net_conn_finish(conn, false);
		return;
	}
	end_stalled_streams(hc);
	if (!h2_ping(hc->h2))
		net_conn_kill(conn);
	/* on_settled begins the next wait, at whose end the PING must have been answered. */
}

static void hc_on_drain(struct net_conn *conn)
{
	struct h2_conn *hc = conn->state;

	hc->draining = true;
	h2_goaway(hc->h2);
}

static void hc_close(struct net_conn *conn)
{
	struct h2_conn *hc = conn->state;

	h2_destroy(hc->h2);
	free(hc);
	conn->state = NULL;
}

const struct net_protocol net_protocol_h2 = {
	.open = hc_open,
	.on_bytes = hc_on_bytes,
	.on_settled = hc_on_settled,
	.on_room = hc_on_room,
	.on_eof = hc_on_eof,
	.on_timeout = hc_on_timeout,
	.on_drain = hc_on_drain,
	.close = hc_close,
};

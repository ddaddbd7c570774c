// SPDX-License-Identifier: Apache-2.0
/*
 * The connection layer under both protocols.
 *
 * A bufferevent gives the events and, under TLS, the cipher. Two shortcuts go around it on plain sockets, both measured
 * (docs/net.md): libevent 2.1 reads at most 4 KiB an event, so when a read came back full the rest is read
 * straight into the loop's scratch buffer; and output is written at once instead of after another round through epoll, so
 * EV_WRITE is only enabled while the peer is slower than we are.
 *
 * Life: every entry from libevent or from a deferred answer is bracketed by net_conn_enter and _leave. The last _leave offers
 * pending input to the protocol until it takes no more, flushes, and frees the connection if it is dead. So nothing is freed
 * under a caller's feet, and pipelined requests are taken up when the answer before them is written.
 *
 * Under TLS libevent reads and writes, and the handshake counts against the head's timeout. ALPN offers h2 and http/1.1, but the
 * first bytes decide there too.
 *
 * Time: one timer a connection, armed lazily. Deadlines are two numbers; moving one forward costs nothing, and the timer
 * finds out when it fires. The write deadline moves only when the peer takes bytes, so one that never reads is closed.
 *
 * Closing after an early answer (413 and the like) lingers: closing a socket with unread input makes the kernel send RST,
 * which can destroy the answer on its way (RFC 9112, 9.6). So: shut down the writing side, drop what comes, close at the peer's
 * end or after LINGER_MS.
 */
#include "net/conn.h"

#include "net/tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

enum {
	LINGER_MS = 2000,
	PREFACE_BYTES = 24,
	READ_FULL_BYTES = 4096, /* what libevent 2.1 reads at most (EVBUFFER_MAX_READ) */
	READ_ROUNDS = 4,	/* of NET_SCRATCH_BYTES each, then others have their turn */
	PUMP_ROUNDS = 16,
	COPY_MAX = 4096, /* smaller pieces are cheaper to copy than to refer to */
};

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static struct evbuffer *input_of(const struct net_conn *conn)
{
	return bufferevent_get_input(conn->bev);
}

static struct evbuffer *output_of(const struct net_conn *conn)
{
	return bufferevent_get_output(conn->bev);
}

size_t net_conn_output(const struct net_conn *conn)
{
	return evbuffer_get_length(output_of(conn));
}

size_t net_conn_input(const struct net_conn *conn)
{
	return evbuffer_get_length(input_of(conn));
}

/* ---- time ---- */

static void arm_timer(struct net_conn *conn)
{
	uint64_t at = conn->read_deadline_ns;

	if (conn->write_deadline_ns && (at == 0 || conn->write_deadline_ns < at))
		at = conn->write_deadline_ns;
	if (conn->stall_deadline_ns && (at == 0 || conn->stall_deadline_ns < at))
		at = conn->stall_deadline_ns;
	if (at == 0 || (conn->timer_at_ns && conn->timer_at_ns <= at))
		return;
	uint64_t now = net_now_ns();
	/* Rounded up, so that it never fires just before its time. */
	struct timeval delay = net_timeval_ms(at > now ? (at - now) / 1000000 + 1 : 0);
	conn->timer_at_ns = at;
	(void)event_add(conn->timer, &delay);
}

static uint64_t wait_ms(const struct net_conn *conn, enum net_wait what)
{
	const struct net_limits *limits = &conn->shard->core->limits;

	switch (what) {
	case NET_WAIT_HEAD:
		return limits->head_timeout_ms;
	case NET_WAIT_BODY:
	case NET_WAIT_PEER:
		return limits->body_timeout_ms;
	case NET_WAIT_IDLE:
		return limits->keep_alive_ms;
	case NET_WAIT_LINGER:
		return LINGER_MS;
	case NET_WAIT_NOTHING:
		break;
	}
	return 0;
}

void net_conn_wait(struct net_conn *conn, enum net_wait what, bool again)
{
	if ((conn->wait == what && !again) || conn->lingering)
		return;
	conn->wait = what;
	conn->read_deadline_ns = what == NET_WAIT_NOTHING ? 0 : net_now_ns() + wait_ms(conn, what) * 1000000;
}

static void count_timeout(struct net_conn *conn, enum net_wait what)
{
	switch (what) {
	case NET_WAIT_HEAD:
		net_count(conn->shard, NET_TIMEOUTS_HEAD, 1);
		break;
	case NET_WAIT_BODY:
		net_count(conn->shard, NET_TIMEOUTS_BODY, 1);
		break;
	case NET_WAIT_IDLE:
		net_count(conn->shard, NET_TIMEOUTS_IDLE, 1);
		break;
	case NET_WAIT_PEER:
	case NET_WAIT_LINGER:
	case NET_WAIT_NOTHING:
		break;
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct net_conn *conn = arg;
	uint64_t now = net_now_ns();

	(void)fd;
	(void)what;
	conn->timer_at_ns = 0;
	net_conn_enter(conn);
	bool stuck = conn->write_deadline_ns && conn->write_deadline_ns <= now;
	stuck |= conn->stall_deadline_ns && conn->stall_deadline_ns <= now;
	if (stuck) {
		net_count(conn->shard, NET_TIMEOUTS_WRITE, 1);
		net_conn_kill(conn);
	} else if (conn->read_deadline_ns && conn->read_deadline_ns <= now) {
		enum net_wait waited = conn->wait;
		conn->wait = NET_WAIT_NOTHING;
		conn->read_deadline_ns = 0;
		count_timeout(conn, waited);
		if (conn->protocol && waited != NET_WAIT_LINGER)
			conn->protocol->on_timeout(conn, waited);
		else
			net_conn_kill(conn);
	}
	net_conn_leave(conn);
}

/* ---- output ---- */

void net_conn_write(struct net_conn *conn, const void *bytes, size_t len)
{
	if (!conn->dead && len > 0 && evbuffer_add(output_of(conn), bytes, len) != 0)
		net_conn_kill(conn);
}

static void free_reference(const void *data, size_t len, void *extra)
{
	(void)data;
	(void)len;
	free(extra);
}

void net_conn_write_take(struct net_conn *conn, struct buf *take_buf)
{
	if (conn->dead || take_buf->len <= COPY_MAX) {
		net_conn_write(conn, take_buf->data, take_buf->len);
		buf_deinit(take_buf);
		return;
	}
	if (evbuffer_add_reference(output_of(conn), take_buf->data, take_buf->len, free_reference, take_buf->data) != 0) {
		buf_deinit(take_buf);
		net_conn_kill(conn);
	}
	*take_buf = (struct buf){0};
}

/* Any change of the output: the peer's progress moves the write deadline. */
static void on_output_changed(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	struct net_conn *conn = arg;

	if (info->n_deleted > 0)
		net_count(conn->shard, NET_BYTES_OUT, info->n_deleted);
	if (evbuffer_get_length(buffer) == 0)
		conn->write_deadline_ns = 0;
	else if (info->n_deleted > 0 || conn->write_deadline_ns == 0)
		conn->write_deadline_ns = net_now_ns() + conn->shard->core->limits.write_timeout_ms * 1000000;
}

/* Writes what the socket takes now, and lets libevent do the rest. */
static void flush_plain(struct net_conn *conn)
{
	struct evbuffer *output = output_of(conn);

	if (evbuffer_get_length(output) > 0 && !conn->writes_enabled) {
		/* The bufferevent freezes the front of its output against others; this is its own write, done early. */
		(void)evbuffer_unfreeze(output, 1);
		int written = evbuffer_write(output, bufferevent_getfd(conn->bev));
		int error = errno;
		(void)evbuffer_freeze(output, 1);
		if (written < 0 && error != EAGAIN && error != EINTR) {
			conn->dead = true;
			return;
		}
	}
	bool rest = evbuffer_get_length(output) > 0;
	if (rest && !conn->writes_enabled)
		(void)bufferevent_enable(conn->bev, EV_WRITE);
	else if (!rest && conn->writes_enabled)
		(void)bufferevent_disable(conn->bev, EV_WRITE);
	conn->writes_enabled = rest;
}

void net_conn_flush(struct net_conn *conn)
{
	if (!conn->dead && !conn->tls)
		flush_plain(conn);
}

/* The last byte is written: end the connection, or our half of it. */
static void finish_now(struct net_conn *conn)
{
	if (conn->lingering)
		return;
	if (conn->tls)
		net_tls_close_notify(conn->bev);
	if (!conn->linger || conn->eof) {
		conn->dead = true;
		return;
	}
	net_conn_wait(conn, NET_WAIT_LINGER, true);
	conn->lingering = true;
	(void)shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
}

void net_conn_finish(struct net_conn *conn, bool linger)
{
	conn->finishing = true;
	conn->linger |= linger;
	net_conn_wait(conn, NET_WAIT_NOTHING, true);
}

void net_conn_kill(struct net_conn *conn)
{
	conn->dead = true;
	/* Bracketed calls free it; one that comes from outside must too. */
	if (conn->busy == 0) {
		net_conn_enter(conn);
		net_conn_leave(conn);
	}
}

/* ---- input ---- */

/* Chooses the protocol by the first bytes; false while they do not tell yet. */
static bool choose_protocol(struct net_conn *conn)
{
	char first[PREFACE_BYTES];
	ev_ssize_t len = evbuffer_copyout(input_of(conn), first, sizeof(first));

	if (conn->protocol)
		return true;
	if (len <= 0)
		return false;
	bool http2 = memcmp(first, preface, (size_t)len) == 0;
	if (http2 && len < PREFACE_BYTES)
		return false;
	conn->protocol = http2 ? &net_protocol_h2 : &net_protocol_http1;
	struct err *e = conn->protocol->open(conn);
	if (e) {
		err_free(e);
		conn->protocol = NULL;
		conn->dead = true;
	}
	return !e;
}

/* Offers what lies in the input buffer; true when the protocol took any of it. */
static bool offer_input(struct net_conn *conn)
{
	struct evbuffer *input = input_of(conn);
	bool any = false;

	while (!conn->dead && !conn->finishing && evbuffer_get_length(input) > 0) {
		if (!choose_protocol(conn))
			break;
		size_t len = evbuffer_get_contiguous_space(input);
		size_t taken = conn->protocol->on_bytes(conn, evbuffer_pullup(input, (ev_ssize_t)len), len);
		if (taken == 0)
			break;
		(void)evbuffer_drain(input, taken);
		any = true;
	}
	if (conn->finishing && evbuffer_get_length(input) > 0) {
		conn->linger = true;
		(void)evbuffer_drain(input, evbuffer_get_length(input));
	}
	return any;
}

/* Keeps bytes that the protocol did not take, behind nothing: the input buffer is empty. */
static void keep_input(struct net_conn *conn, const uint8_t *bytes, size_t len)
{
	struct evbuffer *input = input_of(conn);

	if (len == 0)
		return;
	(void)evbuffer_unfreeze(input, 0);
	if (evbuffer_add(input, bytes, len) != 0)
		conn->dead = true;
	(void)evbuffer_freeze(input, 0);
}

/* Reads large pieces past the bufferevent while they come; end of file and errors are left for it to find. */
static void read_more(struct net_conn *conn)
{
	uint8_t *scratch = conn->shard->scratch;

	for (unsigned round = 0; round < READ_ROUNDS; round++) {
		if (conn->dead || conn->finishing || !conn->protocol || net_conn_input(conn) > 0)
			return;
		ssize_t got = recv(bufferevent_getfd(conn->bev), scratch, NET_SCRATCH_BYTES, MSG_DONTWAIT);
		if (got <= 0)
			return;
		net_count(conn->shard, NET_BYTES_IN, (uint64_t)got);
		size_t taken = 0;
		while (taken < (size_t)got && !conn->dead && !conn->finishing) {
			size_t n = conn->protocol->on_bytes(conn, scratch + taken, (size_t)got - taken);
			taken += n;
			if (n == 0)
				break;
		}
		if (!conn->finishing)
			keep_input(conn, scratch + taken, (size_t)got - taken);
		else
			conn->linger |= taken < (size_t)got;
		if (got < NET_SCRATCH_BYTES / 2)
			return;
	}
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct net_conn *conn = arg;

	(void)bev;
	net_conn_enter(conn);
	bool full = !conn->tls && net_conn_input(conn) >= READ_FULL_BYTES;
	(void)offer_input(conn);
	if (full)
		read_more(conn);
	net_conn_leave(conn);
}

static void on_input_changed(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	struct net_conn *conn = arg;

	(void)buffer;
	/* What read_more kept was counted there; it never comes with an empty frozen end. */
	if (info->n_added > 0 && conn->busy == 0)
		net_count(conn->shard, NET_BYTES_IN, info->n_added);
}

static void on_write(struct bufferevent *bev, void *arg)
{
	(void)bev;
	net_conn_enter(arg);
	net_conn_leave(arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct net_conn *conn = arg;

	(void)bev;
	net_conn_enter(conn);
	if (what & BEV_EVENT_ERROR) {
		if (conn->tls && !conn->connected)
			net_count(conn->shard, NET_TLS_FAILURES, 1);
		conn->dead = true;
	} else if (what & BEV_EVENT_CONNECTED) {
		conn->connected = true;
	} else if (what & BEV_EVENT_EOF) {
		conn->eof = true;
		(void)offer_input(conn);
		if (!conn->protocol || conn->lingering)
			conn->dead = true;
		else if (!conn->dead)
			conn->protocol->on_eof(conn);
	}
	net_conn_leave(conn);
}

/* ---- life ---- */

static void conn_free(struct net_conn *conn)
{
	struct net_shard *shard = conn->shard;

	conn->busy++; /* what the protocol's close calls must not free it a second time */
	if (conn->protocol)
		conn->protocol->close(conn);
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		shard->connections = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	net_peers_remove(shard->core->peers, &conn->peer_key);
	atomic_fetch_sub_explicit(&shard->core->connections, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&shard->connection_count, 1, memory_order_relaxed);
	net_charge(shard->core, &conn->charged, 0);
	event_free(conn->timer);
	/* The callbacks that count on the output buffer go first: freeing it would call them. */
	(void)evbuffer_remove_cb(output_of(conn), on_output_changed, conn);
	(void)evbuffer_remove_cb(input_of(conn), on_input_changed, conn);
	bufferevent_free(conn->bev);
	free(conn);
	if (shard->draining && !shard->connections)
		net_loop_exit(&shard->loop);
}

void net_conn_enter(struct net_conn *conn)
{
	conn->busy++;
}

static bool tell_room(struct net_conn *conn)
{
	if (conn->dead || !conn->wants_room || !conn->protocol || net_conn_output(conn) > NET_OUTPUT_LOW)
		return false;
	conn->wants_room = false;
	conn->protocol->on_room(conn);
	return true;
}

void net_conn_leave(struct net_conn *conn)
{
	/* Still busy while it pumps: what the protocol calls must not come back here. */
	bool again = true;
	for (unsigned round = 0; conn->busy == 1 && !conn->dead && again && round < PUMP_ROUNDS; round++) {
		again = offer_input(conn);
		if (conn->protocol && !conn->dead && !conn->finishing)
			conn->protocol->on_settled(conn);
		net_conn_flush(conn);
		again |= tell_room(conn);
	}
	if (conn->busy == 1) {
		net_conn_flush(conn);
		if (!conn->dead && conn->finishing && net_conn_output(conn) == 0)
			finish_now(conn);
	}
	if (--conn->busy > 0)
		return;
	if (conn->dead) {
		conn_free(conn);
		return;
	}
	net_charge(conn->shard->core, &conn->charged,
		net_conn_output(conn) + net_conn_input(conn) + conn->protocol_bytes);
	arm_timer(conn);
	/* Others have their turn first: the timer's event leads back here. */
	if (again)
		event_active(conn->timer, EV_TIMEOUT, 0);
}

static struct net_conn *conn_create(struct net_accepted *accepted)
{
	struct net_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->shard = accepted->shard;
	conn->peer_key = accepted->peer_key;
	memcpy(conn->peer, accepted->peer, sizeof(conn->peer));
	struct event_base *base = conn->shard->loop.base;
	conn->timer = evtimer_new(base, on_timer, conn);
	conn->tls = accepted->tls != NULL;
	conn->bev = accepted->tls ? net_tls_bufferevent(accepted->tls, base, accepted->fd) :
				    bufferevent_socket_new(base, accepted->fd, BEV_OPT_CLOSE_ON_FREE);
	if (!conn->timer || !conn->bev || !evbuffer_add_cb(output_of(conn), on_output_changed, conn) ||
		!evbuffer_add_cb(input_of(conn), on_input_changed, conn)) {
		if (conn->timer)
			event_free(conn->timer);
		if (conn->bev) {
			(void)bufferevent_setfd(conn->bev, -1);
			bufferevent_free(conn->bev);
		}
		free(conn);
		return NULL;
	}
	return conn;
}

static void conn_start(struct net_conn *conn)
{
	struct net_shard *shard = conn->shard;

	conn->next = shard->connections;
	if (conn->next)
		conn->next->prev = conn;
	shard->connections = conn;
	net_conn_enter(conn);
	bufferevent_setcb(conn->bev, on_read, on_write, on_event, conn);
	bufferevent_setwatermark(conn->bev, EV_READ, 0, NET_INPUT_HIGH);
	bufferevent_setwatermark(conn->bev, EV_WRITE, NET_OUTPUT_LOW, 0);
	if (!conn->tls && bufferevent_disable(conn->bev, EV_WRITE) != 0)
		conn->dead = true;
	if (bufferevent_enable(conn->bev, conn->tls ? EV_READ | EV_WRITE : EV_READ) != 0)
		conn->dead = true;
	net_conn_wait(conn, NET_WAIT_HEAD, true);
	net_conn_leave(conn);
}

void net_conn_accept_post(struct net_post *post)
{
	struct net_accepted *accepted = (struct net_accepted *)(void *)post;
	struct net_shard *shard = accepted->shard;
	struct net_conn *conn = shard->draining ? NULL : conn_create(accepted);

	if (conn) {
		conn_start(conn);
	} else {
		net_peers_remove(shard->core->peers, &accepted->peer_key);
		atomic_fetch_sub_explicit(&shard->core->connections, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&shard->connection_count, 1, memory_order_relaxed);
		(void)close(accepted->fd);
	}
	net_tls_unref(accepted->tls);
	free(accepted);
}

void net_conn_drain_all(struct net_shard *shard)
{
	struct net_conn *next;

	/* A connection may be freed by its own drain, but by no other's. */
	for (struct net_conn *conn = shard->connections; conn; conn = next) {
		next = conn->next;
		net_conn_enter(conn);
		if (conn->protocol)
			conn->protocol->on_drain(conn);
		else
			conn->dead = true;
		net_conn_leave(conn);
	}
	if (!shard->connections)
		net_loop_exit(&shard->loop);
}

void net_conn_kill_all(struct net_shard *shard)
{
	while (shard->connections)
		net_conn_kill(shard->connections);
}

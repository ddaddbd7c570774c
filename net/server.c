// SPDX-License-Identifier: Apache-2.0
/*
 * Loops, listeners, stop.
 *
 * Accepting: one listening socket an address, in loop 0, which hands each accepted socket to the loop that has the fewest
 * connections. SO_REUSEPORT with a socket a loop was rejected: two daemons started by mistake on one port would both
 * come up and share its clients, and the kernel spreads by hash, so that two long connections may meet in one loop.
 *
 * Stop, in order: the listeners close (in loop 0); each loop drains (idle connections close, others finish within the grace time,
 * then are broken off) and ends with its last connection; the threads are joined; each queue is closed, after which posts run in
 * the poster's thread. What requests still refer to (queue, core) is counted and goes with the last of them.
 */
#include "net/server.h"

#include "base/log.h"
#include "net/address.h"
#include "net/conn.h"
#include "net/tls.h"

#include <errno.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

enum { LOOPS_DEFAULT_MAX = 4, LOOPS_MAX = 64, LISTENERS_MAX = 16, LISTEN_BACKLOG = 1024, ACCEPT_PAUSE_MS = 100 };

struct listener {
	struct net_server *server;
	int fd; /* until the loop has taken it */
	struct sockaddr_storage bound;
	struct evconnlistener *listener; /* loop 0 */
	struct event *retry;		 /* loop 0: turns it on again after accept failed */
	struct ssl_ctx_st *tls;		 /* NULL: plain */
	char text[80];
};

struct net_server {
	struct net_core *core;
	unsigned loop_count;
	struct net_shard *shards;
	struct listener *listeners[LISTENERS_MAX];
	size_t listener_count;
	bool stopped;
	struct log_limit accept_log;
};

/* A post with a server, a loop and a number. */
struct server_post {
	struct net_post post;
	struct net_server *server;
	struct net_shard *shard;
	struct listener *listener;
	uint64_t number;
};

/* ---- core ---- */

static void core_unref(void *arg)
{
	struct net_core *core = arg;

	/* Acquire-release: the last one frees what all have used. */
	if (atomic_fetch_sub_explicit(&core->refs, 1, memory_order_acq_rel) != 1)
		return;
	net_peers_destroy(core->peers);
	free(core);
}

static void default_to(uint64_t *value, uint64_t fallback)
{
	if (*value == 0)
		*value = fallback;
}

static void fill_defaults(struct net_limits *limits)
{
	default_to(&limits->connections, 8192);
	default_to(&limits->connections_per_peer, 4096);
	default_to(&limits->head_bytes, 32 * 1024);
	default_to(&limits->head_count, 100);
	default_to(&limits->requests_per_connection, 1000000);
	default_to(&limits->buffered_bytes, (uint64_t)1 << 30);
	default_to(&limits->head_timeout_ms, 10000);
	default_to(&limits->body_timeout_ms, 30000);
	default_to(&limits->write_timeout_ms, 30000);
	default_to(&limits->keep_alive_ms, 75000);
	default_to(&limits->streams, 256);
	/* The parser library has a limit of its own at 80 KiB. */
	if (limits->head_bytes > 64 * 1024)
		limits->head_bytes = 64 * 1024;
}

static struct err *core_create(const struct net_server_options *options, struct net_core **ret)
{
	struct net_core *core = calloc(1, sizeof(*core));

	if (!core)
		return err_nomem();
	core->refs = 1;
	core->limits = options->limits;
	core->handler = options->handler;
	fill_defaults(&core->limits);
	core->peers = net_peers_create();
	if (!core->peers) {
		free(core);
		return err_nomem();
	}
	*ret = core;
	return NULL;
}

/* ---- create and destroy ---- */

static struct err *shard_start(struct net_shard *shard, struct net_core *core, unsigned index)
{
	shard->core = core;
	shard->scratch = malloc(NET_SCRATCH_BYTES);
	if (!shard->scratch)
		return err_nomem();
	TRY(net_loop_start(&shard->loop, index));
	atomic_fetch_add_explicit(&core->refs, 1, memory_order_relaxed);
	shard->loop.queue->on_free_arg = core;
	shard->loop.queue->on_free = core_unref;
	return NULL;
}

static void shard_deinit(struct net_shard *shard)
{
	net_loop_deinit(&shard->loop);
	free(shard->scratch);
}

static unsigned default_loops(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (cpus < 1)
		return 1;
	return cpus > LOOPS_DEFAULT_MAX ? LOOPS_DEFAULT_MAX : (unsigned)cpus;
}

struct err *net_server_create(const struct net_server_options *options, struct net_server **ret)
{
	unsigned loops = options->loops ? options->loops : default_loops();

	if (loops > LOOPS_MAX || !options->handler.on_head)
		return err_new(ERR_INVALID, "server: %u loops (at most %d) and a handler", loops, LOOPS_MAX);
	CLEANUP(net_server_destroyp) struct net_server *server = calloc(1, sizeof(*server));
	if (!server)
		return err_nomem();
	server->shards = calloc(loops, sizeof(server->shards[0]));
	if (!server->shards)
		return err_nomem();
	TRY(core_create(options, &server->core));
	while (server->loop_count < loops) {
		struct net_shard *shard = &server->shards[server->loop_count];
		struct err *e = shard_start(shard, server->core, server->loop_count++);
		if (e)
			return err_wrap(e, "server");
	}
	*ret = TAKE_PTR(server);
	return NULL;
}

void net_server_destroy(struct net_server *server)
{
	if (!server)
		return;
	net_server_stop(server, 0);
	for (unsigned i = 0; i < server->loop_count; i++)
		shard_deinit(&server->shards[i]);
	for (size_t i = 0; i < server->listener_count; i++) {
		net_tls_unref(server->listeners[i]->tls);
		free(server->listeners[i]);
	}
	if (server->core)
		core_unref(server->core);
	free(server->shards);
	free(server);
}

void net_server_destroyp(struct net_server **server)
{
	net_server_destroy(*server);
}

/* ---- accepting (loop 0) ---- */

static struct net_shard *emptiest_shard(struct net_server *server)
{
	struct net_shard *best = &server->shards[0];
	uint64_t best_count = UINT64_MAX;

	for (unsigned i = 0; i < server->loop_count; i++) {
		/* Relaxed: any recent figure does. */
		uint64_t count = atomic_load_explicit(&server->shards[i].connection_count, memory_order_relaxed);
		if (count < best_count) {
			best = &server->shards[i];
			best_count = count;
		}
	}
	return best;
}

/* A connection too many: a short answer that fits the socket's buffer (none under TLS), and the end. */
static void refuse(int fd, bool plain)
{
	static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
				     "connection: close\r\n\r\n";

	ssize_t sent = plain ? send(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	(void)sent;
	(void)shutdown(fd, SHUT_WR);
	(void)close(fd);
}

/* Counts the connection against both limits; false after it was refused. */
static bool admit(struct net_server *server, const struct net_peer_key *key)
{
	struct net_core *core = server->core;
	struct net_shard *own = &server->shards[0];

	if (atomic_load_explicit(&core->connections, memory_order_relaxed) >= core->limits.connections) {
		net_count(own, NET_CONNECTIONS_REFUSED_TOTAL, 1);
		return false;
	}
	if (!net_peers_add(core->peers, key, core->limits.connections_per_peer)) {
		net_count(own, NET_CONNECTIONS_REFUSED_PER_PEER, 1);
		return false;
	}
	atomic_fetch_add_explicit(&core->connections, 1, memory_order_relaxed);
	net_count(own, NET_CONNECTIONS_ACCEPTED, 1);
	return true;
}

static void on_accept(struct evconnlistener *evlistener, evutil_socket_t fd, struct sockaddr *address, int len, void *arg)
{
	struct listener *listener = arg;
	struct net_server *server = listener->server;
	struct net_peer_key key = net_address_key(address);
	int on = 1;

	(void)evlistener;
	(void)len;
	struct net_accepted *accepted = calloc(1, sizeof(*accepted));
	if (!accepted || !admit(server, &key)) {
		free(accepted);
		refuse(fd, !listener->tls);
		return;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	struct net_shard *shard = emptiest_shard(server);
	atomic_fetch_add_explicit(&shard->connection_count, 1, memory_order_relaxed);
	*accepted = (struct net_accepted){
		.post = {.run = net_conn_accept_post}, .shard = shard, .fd = fd, .peer_key = key, .tls = net_tls_ref(listener->tls)};
	net_address_format(address, accepted->peer, sizeof(accepted->peer));
	if (shard == &server->shards[0] || !net_queue_post(shard->loop.queue, &accepted->post))
		net_conn_accept_post(&accepted->post);
}

/* Out of descriptors, mostly: accepting again at once would spin. */
static void on_accept_error(struct evconnlistener *evlistener, void *arg)
{
	struct listener *listener = arg;
	int error = errno;
	struct timeval delay = net_timeval_ms(ACCEPT_PAUSE_MS);
	uint32_t suppressed;

	net_count(&listener->server->shards[0], NET_ACCEPT_ERRORS, 1);
	if (log_limit_pass(&listener->server->accept_log, 1, &suppressed))
		log_warn("net", "accept on=%s error=\"%s\" suppressed=%u", listener->text, strerror(error), suppressed);
	(void)evconnlistener_disable(evlistener);
	(void)evtimer_add(listener->retry, &delay);
}

static void on_accept_retry(evutil_socket_t fd, short what, void *arg)
{
	struct listener *listener = arg;

	(void)fd;
	(void)what;
	if (listener->listener)
		(void)evconnlistener_enable(listener->listener);
}

static void listener_start(struct net_post *post)
{
	struct server_post *p = (struct server_post *)(void *)post;
	struct listener *listener = p->listener;
	struct event_base *base = p->server->shards[0].loop.base;

	free(p);
	listener->retry = evtimer_new(base, on_accept_retry, listener);
	if (listener->retry)
		listener->listener = evconnlistener_new(
			base, on_accept, listener, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, listener->fd);
	if (!listener->listener) {
		log_error("net", "listen on=%s error=\"out of memory\"", listener->text);
		return;
	}
	listener->fd = -1;
	evconnlistener_set_error_cb(listener->listener, on_accept_error);
}

static void listener_stop(struct listener *listener)
{
	if (listener->listener)
		evconnlistener_free(listener->listener);
	if (listener->retry)
		event_free(listener->retry);
	closep(&listener->fd);
	listener->listener = NULL;
	listener->retry = NULL;
	listener->fd = -1;
}

/* ---- listening (any thread) ---- */

static struct err *bind_socket(const struct addrinfo *info, int *ret)
{
	int on = 1, off = 0;
	int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_os(errno, "socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (info->ai_family == AF_INET6) {
		/* The wildcard serves both families; a named address only its own. */
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)info->ai_addr;
		bool any = IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on, sizeof(on));
	}
	if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
		int error = errno;
		(void)close(fd);
		return err_os(error, "bind");
	}
	*ret = fd;
	return NULL;
}

/* One address: a socket of its own, unless it is listened on already. */
static struct err *listen_on(struct net_server *server, const struct addrinfo *info, struct ssl_ctx_st *tls,
	uint16_t *port_ret)
{
	for (size_t i = 0; i < server->listener_count; i++) {
		struct sockaddr *bound = (struct sockaddr *)&server->listeners[i]->bound;
		if (bound->sa_family == info->ai_addr->sa_family && net_address_port(bound) != 0 &&
			memcmp(bound, info->ai_addr, info->ai_addrlen) == 0 && !tls && !server->listeners[i]->tls) {
			*port_ret = net_address_port(bound);
			return NULL;
		}
	}
	if (server->listener_count == LISTENERS_MAX)
		return err_new(ERR_LIMIT, "more than %d listeners", LISTENERS_MAX);
	CLEANUP(freep) struct listener *listener = calloc(1, sizeof(*listener));
	CLEANUP(freep) struct server_post *post = calloc(1, sizeof(*post));
	if (!listener || !post)
		return err_nomem();
	TRY(bind_socket(info, &listener->fd));
	socklen_t len = sizeof(listener->bound);
	(void)getsockname(listener->fd, (struct sockaddr *)&listener->bound, &len);
	net_address_format((struct sockaddr *)&listener->bound, listener->text, sizeof(listener->text));
	*port_ret = net_address_port((struct sockaddr *)&listener->bound);
	listener->server = server;
	listener->tls = net_tls_ref(tls);
	*post = (struct server_post){.post = {.run = listener_start}, .server = server, .listener = listener};
	server->listeners[server->listener_count++] = TAKE_PTR(listener);
	(void)net_queue_post(server->shards[0].loop.queue, &TAKE_PTR(post)->post);
	return NULL;
}

static struct err *listen_all(struct net_server *server, const char *address, struct ssl_ctx_st *tls, uint16_t *port_ret)
{
	struct addrinfo *all = NULL;
	struct err *e = NULL;
	uint16_t port = 0;

	if (server->stopped)
		return err_new(ERR_INVALID, "listen on %s: the server has stopped", address);
	TRY(net_address_resolve(address, &all));
	for (struct addrinfo *info = all; info && !e; info = info->ai_next) {
		/* With port 0 the first address finds a port and the others follow. */
		if (net_address_port(info->ai_addr) == 0)
			net_address_set_port(info->ai_addr, port);
		uint16_t got;
		struct err *one = listen_on(server, info, tls, &got);
		/* A machine without IPv6, or [::] that serves IPv4 already: one of the addresses is enough. */
		if (one && port != 0)
			err_free(one);
		else if (one && info->ai_next && info->ai_family == AF_INET6)
			err_free(one);
		else if (one)
			e = one;
		else
			port = got;
	}
	freeaddrinfo(all);
	if (e)
		return err_wrap(e, "listen on %s", address);
	if (port_ret)
		*port_ret = port;
	return NULL;
}

struct err *net_server_listen(struct net_server *server, const char *address, uint16_t *port_ret)
{
	return listen_all(server, address, NULL, port_ret);
}

struct err *net_server_listen_tls(struct net_server *server, const char *address, const struct net_tls_options *options,
	uint16_t *port_ret)
{
	struct ssl_ctx_st *tls = NULL;

	TRY(net_tls_create(options, &tls));
	struct err *e = listen_all(server, address, tls, port_ret);
	net_tls_unref(tls);
	return e;
}

/* ---- stop ---- */

static void on_grace_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	net_conn_kill_all(arg);
}

static void shard_drain(struct net_post *post)
{
	struct server_post *p = (struct server_post *)(void *)post;
	struct net_shard *shard = p->shard;
	struct net_server *server = p->server;
	struct timeval grace = net_timeval_ms(p->number);
	bool at_once = p->number == 0;

	free(p);
	for (size_t i = 0; i < server->listener_count && shard == &server->shards[0]; i++)
		listener_stop(server->listeners[i]);
	shard->draining = true;
	shard->grace_timer = at_once ? NULL : evtimer_new(shard->loop.base, on_grace_over, shard);
	if (shard->grace_timer)
		(void)evtimer_add(shard->grace_timer, &grace);
	net_conn_drain_all(shard);
	if (!shard->grace_timer)
		net_conn_kill_all(shard);
}

void net_server_stop(struct net_server *server, uint64_t grace_ms)
{
	if (server->stopped)
		return;
	server->stopped = true;
	/* All are told before the first is waited for. Loop 0 first: it stops handing over. */
	for (unsigned i = 0; i < server->loop_count; i++) {
		struct net_shard *shard = &server->shards[i];
		struct server_post *post = NULL;
		if (!shard->loop.started)
			continue;
		while (!(post = malloc(sizeof(*post))))
			(void)usleep(10000);
		*post = (struct server_post){
			.post = {.run = shard_drain}, .server = server, .shard = shard, .number = grace_ms};
		(void)net_queue_post(shard->loop.queue, &post->post);
	}
	for (unsigned i = 0; i < server->loop_count; i++) {
		struct net_shard *shard = &server->shards[i];
		net_loop_join(&shard->loop);
		if (shard->grace_timer)
			event_free(shard->grace_timer);
		shard->grace_timer = NULL;
	}
}

/* ---- figures ---- */

void net_server_stats(const struct net_server *server, struct net_server_stats *ret)
{
	uint64_t sum[NET_COUNTERS] = {0};

	*ret = (struct net_server_stats){0};
	for (unsigned i = 0; i < server->loop_count; i++) {
		const struct net_shard *shard = &server->shards[i];
		for (unsigned c = 0; c < NET_COUNTERS; c++)
			sum[c] += atomic_load_explicit(&shard->counters[c], memory_order_relaxed);
		if (!shard->loop.queue)
			continue;
		ret->loop_posts += atomic_load_explicit(&shard->loop.queue->posts, memory_order_relaxed);
		ret->loop_wakes += atomic_load_explicit(&shard->loop.queue->wakes, memory_order_relaxed);
	}
	ret->connections_open = atomic_load_explicit(&server->core->connections, memory_order_relaxed);
	ret->buffered_bytes = atomic_load_explicit(&server->core->buffered_bytes, memory_order_relaxed);
	ret->requests_open = sum[NET_REQUESTS] - sum[NET_REQUESTS_DONE];
	ret->connections_accepted = sum[NET_CONNECTIONS_ACCEPTED];
	ret->connections_refused_total = sum[NET_CONNECTIONS_REFUSED_TOTAL];
	ret->connections_refused_per_peer = sum[NET_CONNECTIONS_REFUSED_PER_PEER];
	ret->accept_errors = sum[NET_ACCEPT_ERRORS];
	ret->tls_failures = sum[NET_TLS_FAILURES];
	ret->requests = sum[NET_REQUESTS];
	ret->requests_aborted = sum[NET_REQUESTS_ABORTED];
	ret->bytes_in = sum[NET_BYTES_IN];
	ret->bytes_out = sum[NET_BYTES_OUT];
	ret->replies_1xx = sum[NET_REPLIES_1XX];
	ret->replies_2xx = sum[NET_REPLIES_2XX];
	ret->replies_3xx = sum[NET_REPLIES_3XX];
	ret->replies_4xx = sum[NET_REPLIES_4XX];
	ret->replies_5xx = sum[NET_REPLIES_5XX];
	ret->bad_requests = sum[NET_BAD_REQUESTS];
	ret->head_too_large = sum[NET_HEAD_TOO_LARGE];
	ret->body_too_large = sum[NET_BODY_TOO_LARGE];
	ret->body_bad_encoding = sum[NET_BODY_BAD_ENCODING];
	ret->refused_memory = sum[NET_REFUSED_MEMORY];
	ret->timeouts_head = sum[NET_TIMEOUTS_HEAD];
	ret->timeouts_body = sum[NET_TIMEOUTS_BODY];
	ret->timeouts_write = sum[NET_TIMEOUTS_WRITE];
	ret->timeouts_idle = sum[NET_TIMEOUTS_IDLE];
	ret->closed_requests_limit = sum[NET_CLOSED_REQUESTS_LIMIT];
}

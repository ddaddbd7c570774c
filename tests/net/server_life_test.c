// SPDX-License-Identifier: Apache-2.0
/*
 * The server over real loopback sockets: answers that come later, stopping, and where it listens.
 */
#include "tests/net/suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* ---- deferred answers ---- */

Test(net_server, completes_a_request_from_another_thread)
{
	start(NULL);
	cr_assert_eq(ask("GET /thread HTTP/1.1\r\n" HOST "\r\n"), 200);
	cr_assert_str_eq(body_of(reply), "thread\n");
	/* The client has its answer before the last reference goes: the thread may be the one that drops it. */
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.frees) == 1, SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 0);
	stop();
}

Test(net_server, tells_a_thread_that_its_request_is_gone)
{
	start(NULL);
	atomic_store(&fixture.hold_workers, true);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /thread HTTP/1.1\r\n" HOST "\r\n"));
	struct net_pool_stats pool;
	cr_assert(WAIT_FOR((net_pool_stats(fixture.pool, &pool), pool.running == 1), SECOND));
	(void)close(fd);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.aborts) == 1, SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.frees), 0, "the thread still holds it");
	atomic_store(&fixture.hold_workers, false);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.frees) == 1, SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.late_posts), 1);
	stop();
}

Test(net_server, answers_503_when_the_pool_is_full)
{
	start(NULL);
	atomic_store(&fixture.hold_workers, true);
	enum { COUNT = 8 };
	int fds[COUNT];
	unsigned refused = 0, done = 0;
	for (int i = 0; i < COUNT; i++) {
		fds[i] = socket_dial(fixture.port);
		cr_assert(socket_send_text(fds[i], "GET /thread HTTP/1.1\r\n" HOST "\r\n"));
	}
	/* Two run, four wait (perhaps fewer, if a worker took one late): at least two are refused. */
	for (int i = 0; i < COUNT; i++)
		refused += socket_read_reply(fds[i], reply, sizeof(reply), 200) == 503;
	atomic_store(&fixture.hold_workers, false);
	for (int i = 0; i < COUNT; i++)
		done += socket_read_reply(fds[i], reply, sizeof(reply), 500) == 200;
	cr_assert_geq(refused, 2);
	cr_assert_eq(refused + done, COUNT);
	for (int i = 0; i < COUNT; i++)
		(void)close(fds[i]);
	stop();
}

Test(net_server, tells_the_handler_when_the_peer_leaves_a_request_that_waits)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /never HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.heads) == 1, SECOND));
	(void)close(fd);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.aborts) == 1, SECOND));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.frees) == 1, SECOND));
	stop();
}

/* ---- stop ---- */

static void *stop_later(void *arg)
{
	(void)arg;
	(void)usleep(100000);
	net_server_stop(fixture.server, 2 * SECOND);
	return NULL;
}

Test(net_server, finishes_what_has_begun_when_it_stops)
{
	start(NULL);
	int idle = socket_dial(fixture.port), busy = socket_dial(fixture.port), upload = socket_dial(fixture.port);
	cr_assert(socket_send_text(idle, "GET /hello HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert_eq(socket_read_reply(idle, reply, sizeof(reply), SECOND), 200);
	cr_assert(socket_send_text(busy, "GET /later?ms=600 HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert(socket_send_text(upload, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 6\r\n\r\nabc"));
	pthread_t thread;
	uint64_t begin = now_ms();
	cr_assert_eq(pthread_create(&thread, NULL, stop_later, NULL), 0);
	cr_assert(socket_closes(idle, SECOND));
	cr_assert_lt(now_ms() - begin, 500, "idle connections close at once");
	cr_assert(socket_send_text(upload, "def"));
	cr_assert_eq(socket_read_reply(upload, reply, sizeof(reply), SECOND), 200);
	cr_assert(strstr(reply, "connection: close"));
	cr_assert_eq(socket_read_reply(busy, reply, sizeof(reply), 2 * SECOND), 200);
	cr_assert(strstr(reply, "connection: close"));
	pthread_join(thread, NULL);
	cr_assert_lt(now_ms() - begin, 1500, "the grace time is not waited for when all is done");
	(void)close(idle);
	(void)close(busy);
	(void)close(upload);
	stop();
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 0);
}

Test(net_server, breaks_off_what_outlasts_the_grace_time)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /never HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.heads) == 1, SECOND));
	uint64_t begin = now_ms();
	net_server_stop(fixture.server, 300);
	cr_assert_geq(now_ms() - begin, 250);
	cr_assert_lt(now_ms() - begin, 1500);
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 1);
	cr_assert_eq(atomic_load(&fixture.seen.frees), 1);
	(void)close(fd);
	stop();
}

Test(net_server, takes_a_late_answer_after_it_has_stopped)
{
	start(NULL);
	atomic_store(&fixture.hold_workers, true);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /thread HTTP/1.1\r\n" HOST "\r\n"));
	struct net_pool_stats pool;
	cr_assert(WAIT_FOR((net_pool_stats(fixture.pool, &pool), pool.running == 1), SECOND));
	net_server_stop(fixture.server, 0);
	net_server_destroy(fixture.server);
	fixture.server = NULL;
	atomic_store(&fixture.hold_workers, false);
	net_pool_destroy(fixture.pool);
	cr_assert_eq(atomic_load(&fixture.seen.frees), 1);
	cr_assert_eq(atomic_load(&fixture.seen.late_posts), 1);
	(void)close(fd);
}

/* ---- listening ---- */

Test(net_server_listen, serves_ipv6_and_names)
{
	start(NULL);
	uint16_t port;
	struct err *e = net_server_listen(fixture.server, "[::1]:0", &port);
	if (e) {
		/* A machine without IPv6. */
		cr_assert_eq(err_code(e), ERR_OS);
		err_free(e);
	} else {
		cr_assert_gt(port, 0);
	}
	cr_assert_null(net_server_listen(fixture.server, "localhost:0", &port));
	cr_assert_gt(port, 0);
	fixture.port = port;
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	stop();
}

Test(net_server_listen, takes_the_same_address_twice_as_one)
{
	start(NULL);
	char address[64];
	uint16_t port = 0;
	(void)snprintf(address, sizeof(address), "127.0.0.1:%u", fixture.port);
	cr_assert_null(net_server_listen(fixture.server, address, &port));
	cr_assert_eq(port, fixture.port);
	stop();
}

Test(net_server_listen, says_which_address_is_taken)
{
	start(NULL);
	struct fixture other = {0};
	struct net_server_options options = {.loops = 1, .handler = {.on_head = (void (*)(struct net_request *, void *))abort}};
	char address[64], want[128];
	(void)snprintf(address, sizeof(address), "127.0.0.1:%u", fixture.port);
	cr_assert_null(net_server_create(&options, &other.server));
	struct err *e = net_server_listen(other.server, address, NULL);
	cr_assert(e && err_code(e) == ERR_OS);
	(void)snprintf(want, sizeof(want), "listen on %s: bind: Address already in use", address);
	cr_assert_str_eq(err_message(e), want);
	err_free(e);
	net_server_destroy(other.server);
	stop();
}

Test(net_server_listen, refuses_malformed_addresses)
{
	static const char *const bad[] = {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:80", "[::1]80",
		"127.0.0.1:-1", "no-such-host.invalid:80", "[::1:80"};
	start(NULL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint16_t port = 7;
		struct err *e = net_server_listen(fixture.server, bad[i], &port);
		cr_assert(e && err_code(e) == ERR_INVALID, "'%s'", bad[i]);
		cr_assert_eq(port, 7);
		err_free(e);
	}
	stop();
}

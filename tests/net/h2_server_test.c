// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/2 over real sockets with clients that keep no rules: no credit, no life, no reading. Frames are written by hand.
 */
#include "base/codec.h"
#include "tests/net/fixture.h"
#include "tests/net/socket.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { SECOND = 1000, SETTINGS = 4, PING = 6, GOAWAY = 7, HEADERS = 1, DATA = 0, END_STREAM = 1, END_HEADERS = 4 };

static struct fixture fixture;

static bool frame(int fd, unsigned type, unsigned flags, unsigned id, const void *payload, size_t len)
{
	uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, (uint8_t)type, (uint8_t)flags, (uint8_t)(id >> 24),
		(uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};

	return socket_send(fd, head, sizeof(head)) && socket_send(fd, payload, len);
}

/* Preface and SETTINGS with this INITIAL_WINDOW_SIZE. */
static int dial(uint16_t window)
{
	int fd = socket_dial(fixture.port);
	uint8_t settings[6] = {0, 4, 0, 0, (uint8_t)(window >> 8), (uint8_t)window};

	cr_assert(socket_send_text(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
	cr_assert(frame(fd, SETTINGS, 0, 0, settings, sizeof(settings)));
	/* The acknowledgement of the server's own, whose window counts from then on. */
	cr_assert(frame(fd, SETTINGS, 1, 0, NULL, 0));
	return fd;
}

/* HEADERS of a request to h; method is an index of HPACK's static table (2 GET, 3 POST). */
static void request(int fd, unsigned id, unsigned method, const char *path, unsigned flags)
{
	uint8_t head[256] = {(uint8_t)(0x80 | method), 0x86, 0x04, (uint8_t)strlen(path)};
	size_t len = 4 + strlen(path);

	memcpy(head + 4, path, strlen(path));
	memcpy(head + len, "\x41\x01h", 3);
	cr_assert(frame(fd, HEADERS, flags | END_HEADERS, id, head, len + 3));
}

/* Reads frames until one of `type` comes or the connection closes; its payload's length in *len_ret. */
static bool wait_frame(int fd, unsigned type, int ms, size_t *len_ret)
{
	uint64_t end = now_ms() + (uint64_t)ms;
	static char bytes[1 << 17];

	while (now_ms() < end) {
		uint8_t head[9];
		struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (recv(fd, head, sizeof(head), MSG_WAITALL) != sizeof(head))
			return false;
		size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
		if (len > 0 && recv(fd, bytes, len, MSG_WAITALL) != (ssize_t)len)
			return false;
		if (head[3] == type && !(type == SETTINGS && head[4])) {
			*len_ret = len;
			return true;
		}
	}
	return false;
}

Test(net_h2_server, closes_on_a_client_that_gives_no_credit)
{
	struct net_limits limits = {.write_timeout_ms = 400, .body_timeout_ms = 60000};
	size_t len;
	fixture_start(&fixture, &limits, 1);
	int fd = dial(0);
	uint64_t before = memory_rss_kib();
	request(fd, 1, 2, "/stream?n=1000000000", END_STREAM);
	cr_assert(wait_frame(fd, HEADERS, SECOND, &len));
	/* PINGs keep the connection busy but bring no credit. */
	for (int i = 0; i < 20 && frame(fd, PING, 0, 0, "12345678", 8); i++)
		(void)usleep(50000);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.aborts) == 1, 2 * SECOND));
	struct net_server_stats stats = fixture_stats(&fixture);
	cr_assert_eq(stats.timeouts_write, 1);
	cr_assert_lt(memory_rss_kib(), before + 16 * 1024);
	(void)close(fd);
	fixture_stop(&fixture, 100);
}

Test(net_h2_server, closes_on_a_client_that_does_not_answer_a_ping)
{
	struct net_limits limits = {.body_timeout_ms = 300};
	size_t len;
	fixture_start(&fixture, &limits, 1);
	int fd = dial(65535);
	request(fd, 1, 2, "/never", END_STREAM);
	cr_assert(wait_frame(fd, PING, 2 * SECOND, &len));
	cr_assert(socket_closes(fd, 2 * SECOND));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.aborts) == 1, SECOND));
	(void)close(fd);
	fixture_stop(&fixture, 100);
}

Test(net_h2_server, keeps_a_client_that_answers_pings)
{
	struct net_limits limits = {.body_timeout_ms = 200};
	size_t len;
	fixture_start(&fixture, &limits, 1);
	int fd = dial(65535);
	request(fd, 1, 2, "/later?ms=1200", END_STREAM);
	for (int i = 0; i < 3; i++) {
		cr_assert(wait_frame(fd, PING, SECOND, &len));
		cr_assert(frame(fd, PING, 1, 0, "\0\0\0\0\0\0\0\0", 8));
	}
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 0);
	(void)close(fd);
	fixture_stop(&fixture, 100);
}

Test(net_h2_server, answers_408_to_a_collected_body_that_stalls)
{
	struct net_limits limits = {.body_timeout_ms = 300};
	size_t len;
	fixture_start(&fixture, &limits, 1);
	int fd = dial(65535);
	request(fd, 1, 3, "/echo", 0);
	cr_assert(frame(fd, DATA, 0, 1, "abc", 3));
	cr_assert(wait_frame(fd, HEADERS, 2 * SECOND, &len));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.frees) == 1, SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 1);
	struct net_server_stats stats = fixture_stats(&fixture);
	cr_assert_eq(stats.timeouts_body, 1);
	(void)close(fd);
	fixture_stop(&fixture, 100);
}

Test(net_h2_server, says_goaway_to_idle_connections_and_when_it_stops)
{
	struct net_limits limits = {.keep_alive_ms = 200};
	size_t len;
	fixture_start(&fixture, &limits, 1);
	int fd = dial(65535);
	request(fd, 1, 2, "/hello", END_STREAM);
	cr_assert(wait_frame(fd, GOAWAY, 2 * SECOND, &len));
	cr_assert(socket_closes(fd, SECOND));
	(void)close(fd);
	fd = dial(65535);
	request(fd, 1, 2, "/never", END_STREAM);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.heads) == 2, SECOND));
	fixture_stop(&fixture, 200);
	cr_assert(wait_frame(fd, GOAWAY, SECOND, &len));
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 1);
	(void)close(fd);
}

Test(net_h2_server, counts_answers_that_wait_for_credit_against_the_memory_limit)
{
	struct net_limits limits = {.buffered_bytes = 1 << 20};
	size_t len;
	fixture_start(&fixture, &limits, 1);
	int fd = dial(0);
	for (unsigned i = 0; i < 4; i++) {
		request(fd, i * 2 + 1, 2, "/whole?n=600000", END_STREAM);
		cr_assert(wait_frame(fd, HEADERS, SECOND, &len));
	}
	struct net_server_stats stats = fixture_stats(&fixture);
	cr_assert_gt(stats.buffered_bytes, 1 << 20);
	cr_assert_eq(stats.refused_memory, 2);
	cr_assert_eq(stats.replies_5xx, 2);
	(void)close(fd);
	cr_assert(WAIT_FOR((stats = fixture_stats(&fixture), stats.buffered_bytes == 0), SECOND));
	fixture_stop(&fixture, 100);
}

Test(net_h2_server, tells_every_handler_when_a_connection_breaks)
{
	fixture_start(&fixture, NULL, 1);
	int fd = dial(65535);
	for (unsigned i = 0; i < 50; i++)
		request(fd, i * 2 + 1, 2, "/never", END_STREAM);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.heads) == 50, SECOND));
	(void)close(fd);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.frees) == 50, SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 50);
	fixture_stop(&fixture, 100);
}

Test(net_h2_server, pauses_one_upload_and_loses_nothing)
{
	static const uint8_t zeros[16384];
	size_t len;
	fixture_start(&fixture, NULL, 1);
	int fd = dial(65535);
	request(fd, 1, 3, "/hello", END_STREAM);
	/* :method PUT is a literal. */
	uint8_t head[] = {0x02, 0x03, 'P', 'U', 'T', 0x86, 0x04, 0x0a, '/', 's', 'l', 'o', 'w', '?', 'm', 's', '=', '1', 0x41, 0x01, 'h'};
	cr_assert(frame(fd, HEADERS, END_HEADERS, 3, head, sizeof(head)));
	/* The server's window is 1 MiB: 60 frames fit without reading its credit. */
	for (int i = 0; i < 60; i++)
		cr_assert(frame(fd, DATA, i == 59 ? END_STREAM : 0, 3, zeros, sizeof(zeros)));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.ends) == 1, 5 * SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.body_bytes), 60u * sizeof(zeros));
	cr_assert_gt(atomic_load(&fixture.seen.timers), 1);
	cr_assert(wait_frame(fd, HEADERS, SECOND, &len));
	(void)close(fd);
	fixture_stop(&fixture, 100);
}

/* ---- gRPC calls that begin and do not go on ---- */

/* HEADERS of a gRPC call of /test.Test/Echo, which may send gzip. */
static void grpc_call(int fd, unsigned id)
{
	static const char head[] = "\x83\x86\x04\x0f/test.Test/Echo\x41\x01h"
				   "\x0f\x10\x10" "application/grpc"
				   "\x00\x0dgrpc-encoding\x04gzip";

	cr_assert(frame(fd, HEADERS, END_HEADERS, id, head, sizeof(head) - 1));
}

Test(net_grpc, ends_a_call_whose_message_stalls)
{
	struct net_limits limits = {.body_timeout_ms = 300};
	size_t len;
	fixture_start(&fixture, &limits, 1);
	int fd = dial(65535);
	grpc_call(fd, 1);
	cr_assert(frame(fd, DATA, 0, 1, "\0\0\0\0\x0a" "abc", 8));
	uint64_t begin = now_ms();
	/* PINGs are answered, so the connection is alive. */
	while (atomic_load(&fixture.seen.aborts) == 0 && now_ms() - begin < 3 * SECOND) {
		(void)frame(fd, PING, 1, 0, "\0\0\0\0\0\0\0\0", 8);
		(void)usleep(20000);
	}
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 1);
	cr_assert(wait_frame(fd, HEADERS, SECOND, &len));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.frees) == 1, SECOND));
	struct net_server_stats stats = fixture_stats(&fixture);
	cr_assert_eq(stats.timeouts_body, 1);
	cr_assert_eq(stats.buffered_bytes, 0);
	(void)close(fd);
	fixture_stop(&fixture, 100);
}

Test(net_grpc, counts_unpacked_messages_whose_end_is_held_back_against_the_memory_limit)
{
	enum { CALLS = 20, PLAIN = 512 * 1024 };
	struct net_limits limits = {.buffered_bytes = 2 << 20};
	struct buf message = {0};
	size_t len;
	static uint8_t zeros[PLAIN];
	cr_assert_null(codec_compress_gzip(zeros, sizeof(zeros), 9, &message));
	cr_assert_lt(message.len, 4000);
	uint8_t data[4096] = {1, 0, 0, (uint8_t)(message.len >> 8), (uint8_t)message.len};
	memcpy(data + 5, message.data, message.len);
	fixture_start(&fixture, &limits, 1);
	int fd = dial(65535);
	/* All heads first, while nothing is held. */
	for (unsigned i = 0; i < CALLS; i++)
		grpc_call(fd, 2 * i + 1);
	struct net_server_stats stats;
	cr_assert(WAIT_FOR((stats = fixture_stats(&fixture), stats.requests_open == CALLS), SECOND));
	for (unsigned i = 0; i < CALLS; i++) {
		cr_assert(frame(fd, DATA, 0, 2 * i + 1, data, message.len + 5));
		(void)usleep(10000);
	}
	cr_assert(WAIT_FOR((stats = fixture_stats(&fixture), stats.refused_memory >= CALLS - 5), SECOND));
	cr_assert_lt(stats.buffered_bytes, 4u << 20);
	cr_assert(wait_frame(fd, HEADERS, SECOND, &len));
	(void)close(fd);
	cr_assert(WAIT_FOR((stats = fixture_stats(&fixture), stats.buffered_bytes == 0), SECOND));
	buf_deinit(&message);
	fixture_stop(&fixture, 100);
}

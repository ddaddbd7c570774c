// SPDX-License-Identifier: Apache-2.0
/*
 * The server over real loopback sockets: what it answers, when it answers, and what it does with clients that keep no rules.
 */
#include "tests/net/suite.h"

#include "base/codec.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <zlib.h>

/* ---- answers ---- */

Test(net_server, answers_with_date_length_and_type)
{
	start(NULL);
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	cr_assert(strstr(reply, "\r\ndate: ") && strstr(reply, " GMT\r\n"));
	cr_assert(strstr(reply, "\r\ncontent-length: 6\r\n") && strstr(reply, "\r\ncontent-type: text/plain\r\n"));
	cr_assert_str_eq(body_of(reply), "hello\n");
	stop();
}

Test(net_server, keeps_a_connection_for_many_requests)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	for (int i = 0; i < 100; i++) {
		cr_assert(socket_send_text(fd, "GET /hello HTTP/1.1\r\n" HOST "\r\n"));
		cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), SECOND), 200);
	}
	(void)close(fd);
	cr_assert_eq(fixture_stats(&fixture).connections_accepted, 1);
	cr_assert_eq(fixture_stats(&fixture).requests, 100);
	stop();
}

Test(net_server, answers_pipelined_requests_in_order)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /later?ms=100 HTTP/1.1\r\n" HOST "\r\nGET /query?x=2 HTTP/1.1\r\n" HOST
				       "\r\nPOST /echo HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n3GET /thread HTTP/1.1\r\n" HOST
				       "\r\nGET /query?x=5 HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n"));
	static const char *const want[] = {"later\n", "2", "3", "thread\n", "5"};
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 200, "answer %zu", i);
		cr_assert_str_eq(body_of(reply), want[i]);
	}
	cr_assert(strstr(reply, "connection: close"));
	cr_assert(socket_closes(fd, SECOND));
	(void)close(fd);
	stop();
}

Test(net_server, answers_five_thousand_pipelined_requests)
{
	start(NULL);
	static const char one[] = "GET /hello HTTP/1.1\r\n" HOST "\r\n";
	enum { COUNT = 5000 };
	int fd = socket_dial(fixture.port);
	char *all = malloc(COUNT * (sizeof(one) - 1));
	for (int i = 0; i < COUNT; i++)
		memcpy(all + (size_t)i * (sizeof(one) - 1), one, sizeof(one) - 1);
	cr_assert(socket_send(fd, all, COUNT * (sizeof(one) - 1)));
	free(all);
	for (int i = 0; i < COUNT; i++)
		cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 200, "answer %d", i);
	(void)close(fd);
	stop();
}

Test(net_server, sends_head_without_body)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "HEAD /hello HTTP/1.1\r\n" HOST "\r\nHEAD /stream?n=100000 HTTP/1.1\r\n" HOST
				       "\r\nGET /hello HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n"));
	(void)socket_read_all(fd, reply, sizeof(reply), 2 * SECOND, NULL);
	(void)close(fd);
	cr_assert(strstr(reply, "content-length: 6\r\n\r\nHTTP/1.1 200"), "%s", reply);
	cr_assert(strstr(reply, "transfer-encoding: chunked\r\n\r\nHTTP/1.1 200"), "%s", reply);
	stop();
}

Test(net_server, streams_in_chunks_and_to_old_clients_until_close)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /stream?n=12000 HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n"));
	(void)socket_read_all(fd, reply, sizeof(reply), 2 * SECOND, NULL);
	cr_assert_str_eq(strstr(body_of(reply), "\r\n0\r\n") + 2, "0\r\n\r\n");
	cr_assert_eq(strncmp(body_of(reply), "2710\r\nabcd", 10), 0);
	(void)close(fd);
	fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /stream?n=12000 HTTP/1.0\r\n\r\n"));
	bool closed;
	(void)socket_read_all(fd, reply, sizeof(reply), 2 * SECOND, &closed);
	cr_assert(closed);
	cr_assert_eq(strlen(body_of(reply)), 12000);
	(void)close(fd);
	stop();
}

Test(net_server, routes_by_path_and_method)
{
	start(NULL);
	cr_assert_eq(ask("GET /p/a%2Fb/q/c HTTP/1.1\r\n" HOST "\r\n"), 200);
	cr_assert_str_eq(body_of(reply), "a/b|c");
	cr_assert_eq(ask("GET /p/a/q/%zz HTTP/1.1\r\n" HOST "\r\n"), 400);
	cr_assert_eq(ask("GET /p/a/q/%00 HTTP/1.1\r\n" HOST "\r\n"), 400);
	cr_assert_eq(ask("GET /p//q/c HTTP/1.1\r\n" HOST "\r\n"), 404);
	cr_assert_eq(ask("GET /p/a/q/c/ HTTP/1.1\r\n" HOST "\r\n"), 404);
	cr_assert_eq(ask("GET /nowhere HTTP/1.1\r\n" HOST "\r\n"), 404);
	cr_assert(strstr(reply, "{\"error\":{\"code\":\"not_found\""));
	cr_assert_eq(ask("POST /p/a/q/c HTTP/1.1\r\n" HOST "\r\n"), 405);
	cr_assert(strstr(reply, "\r\nallow: GET, HEAD, DELETE\r\n"));
	cr_assert_eq(ask("DELETE /p/a/q/c HTTP/1.1\r\n" HOST "\r\n"), 200);
	stop();
}

Test(net_server, reads_query_parameters)
{
	start(NULL);
	cr_assert_eq(ask("GET /query?xx=1&x=a%20b+c&y HTTP/1.1\r\n" HOST "\r\n"), 200);
	cr_assert_str_eq(body_of(reply), "a b c");
	cr_assert_eq(ask("GET /query?y=1 HTTP/1.1\r\n" HOST "\r\n"), 200);
	cr_assert_str_eq(body_of(reply), "none");
	cr_assert_eq(ask("GET /query?x=%f HTTP/1.1\r\n" HOST "\r\n"), 400);
	cr_assert_eq(ask("GET /query?x=0123456789abcdef HTTP/1.1\r\n" HOST "\r\n"), 400);
	stop();
}

Test(net_server, answers_500_when_a_handler_forgets)
{
	start(NULL);
	cr_assert_eq(ask("GET /nothing HTTP/1.1\r\n" HOST "\r\n"), 500);
	stop();
}

Test(net_server, cuts_off_a_reply_that_is_reset)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /cut HTTP/1.1\r\n" HOST "\r\n"));
	(void)socket_read_all(fd, reply, sizeof(reply), 2 * SECOND, NULL);
	cr_assert_null(strstr(reply, "\r\n0\r\n\r\n"), "a broken reply must not look complete");
	(void)close(fd);
	stop();
}

/* ---- bodies ---- */

Test(net_server, says_continue_only_to_a_body_that_is_wanted)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 100);
	cr_assert(socket_send_text(fd, "body"));
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 200);
	cr_assert_str_eq(body_of(reply), "body");
	(void)close(fd);
	cr_assert_eq(ask("POST /auth HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"), 401);
	cr_assert(strstr(reply, "connection: close"));
	cr_assert_eq(ask("POST /small HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 11\r\n\r\n"), 413);
	cr_assert_eq(fixture_stats(&fixture).replies_1xx, 1);
	stop();
}

Test(net_server, takes_chunked_bodies)
{
	start(NULL);
	cr_assert_eq(ask("POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), 200);
	cr_assert_str_eq(body_of(reply), "abcde");
	stop();
}

Test(net_server, refuses_a_body_past_its_limit_by_its_length_and_by_its_bytes)
{
	start(NULL);
	cr_assert_eq(ask("POST /small HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n0123456789"), 200);
	cr_assert_eq(ask("POST /small HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n"), 413);
	cr_assert_eq(ask("POST /small HTTP/1.1\r\n" HOST "Content-Length: 1000000000000\r\n\r\n"), 413);
	cr_assert(strstr(reply, "\"code\":\"too_large\""));
	cr_assert_eq(ask("POST /small HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n"), 413);
	cr_assert_eq(fixture_stats(&fixture).body_too_large, 3);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.aborts) == 3 && atomic_load(&fixture.seen.frees) == 4, SECOND));
	stop();
}

Test(net_server, keeps_the_connection_after_a_short_refused_body)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "POST /auth HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhelloGET /hello HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 401);
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 200);
	(void)close(fd);
	stop();
}

Test(net_server, lets_a_client_read_the_refusal_while_it_still_sends)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "POST /auth HTTP/1.1\r\n" HOST "Content-Length: 100000000\r\n\r\n"));
	/* More than the socket buffers hold together; without lingering the answer would be lost in a reset. */
	char *bytes = calloc(1, 1 << 20);
	for (int i = 0; i < 8 && socket_send(fd, bytes, 1 << 20); i++)
		;
	free(bytes);
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 401);
	cr_assert(socket_closes(fd, 4 * SECOND));
	(void)close(fd);
	stop();
}

/* `text` as one gzip member. */
static size_t gzip(const void *bytes, size_t len, uint8_t *ret, size_t size)
{
	z_stream z = {0};

	cr_assert_eq(deflateInit2(&z, 9, Z_DEFLATED, 31, 9, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)bytes;
	z.avail_in = (uInt)len;
	z.next_out = ret;
	z.avail_out = (uInt)size;
	cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	size_t out = z.total_out;
	(void)deflateEnd(&z);
	return out;
}

static unsigned post_encoded(const char *path, const char *encoding, const uint8_t *bytes, size_t len)
{
	char head[256];
	int fd = socket_dial(fixture.port);

	(void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\n" HOST "Content-Encoding: %s\r\nContent-Length: %zu\r\n\r\n", path,
		encoding, len);
	cr_assert(socket_send_text(fd, head));
	(void)socket_send(fd, bytes, len);
	unsigned status = socket_read_reply(fd, reply, sizeof(reply), 5 * SECOND);
	(void)close(fd);
	return status;
}

Test(net_server, undoes_content_encodings)
{
	uint8_t bytes[256];
	start(NULL);
	size_t len = gzip("hello hello hello", 17, bytes, sizeof(bytes));
	cr_assert_eq(post_encoded("/echo", "gzip", bytes, len), 200);
	cr_assert_str_eq(body_of(reply), "hello hello hello");
	struct buf zstd = {0};
	cr_assert_null(codec_compress_zstd("hello zstd", 10, 3, &zstd));
	cr_assert_eq(post_encoded("/echo", "ZSTD", zstd.data, zstd.len), 200);
	cr_assert_str_eq(body_of(reply), "hello zstd");
	buf_deinit(&zstd);
	stop();
}

Test(net_server, refuses_unknown_and_damaged_encodings)
{
	uint8_t bytes[256];
	start(NULL);
	size_t len = gzip("hello hello hello", 17, bytes, sizeof(bytes));
	cr_assert_eq(post_encoded("/echo", "br", bytes, len), 415);
	cr_assert_eq(post_encoded("/echo", "gzip, gzip", bytes, len), 415);
	cr_assert_eq(post_encoded("/echo", "gzip", bytes, len - 1), 400);
	bytes[14] ^= 0x55;
	cr_assert_eq(post_encoded("/echo", "gzip", bytes, len), 400);
	cr_assert_eq(fixture_stats(&fixture).body_bad_encoding, 4);
	stop();
}

Test(net_server, stops_a_gzip_bomb_at_the_body_limit)
{
	enum { BOMB = 512 << 20 };
	start(NULL);
	uint8_t *zeros = calloc(1, BOMB / 8);
	uint8_t *bomb = malloc(1 << 20);
	size_t len = gzip(zeros, BOMB / 8, bomb, 1 << 20);
	free(zeros);
	uint64_t before = memory_rss_kib();
	cr_assert_eq(post_encoded("/echo", "gzip", bomb, len), 413);
	cr_assert_lt(memory_rss_kib(), before + 16 * 1024);
	free(bomb);
	stop();
}

Test(net_server, streams_a_large_upload_in_bounded_memory)
{
	enum { PIECE = 1 << 20, PIECES = 512 };
	start(NULL);
	char *bytes = calloc(1, PIECE);
	int fd = socket_dial(fixture.port);
	char head[128];
	(void)snprintf(head, sizeof(head), "PUT /count HTTP/1.1\r\n" HOST "Content-Length: %llu\r\n\r\n",
		(unsigned long long)PIECE * PIECES);
	cr_assert(socket_send_text(fd, head));
	uint64_t before = memory_rss_kib(), most = 0;
	for (int i = 0; i < PIECES; i++) {
		cr_assert(socket_send(fd, bytes, PIECE));
		uint64_t rss = memory_rss_kib();
		most = rss > most ? rss : most;
	}
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 5 * SECOND), 200);
	cr_assert_eq(strtoull(body_of(reply), NULL, 10), (unsigned long long)PIECE * PIECES);
	cr_log_info("upload of %d MiB: memory from %llu to at most %llu KiB", PIECES, (unsigned long long)before,
		(unsigned long long)most);
	cr_assert_lt(most, before + 16 * 1024);
	free(bytes);
	(void)close(fd);
	stop();
}

Test(net_server, slows_the_client_down_while_a_handler_has_paused)
{
	enum { PIECE = 1 << 20 };
	start(NULL);
	char *bytes = calloc(1, PIECE);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "PUT /slow?ms=50 HTTP/1.1\r\n" HOST "Content-Length: 67108864\r\n\r\n"));
	uint64_t sent = 0, end = now_ms() + 500;
	while (now_ms() < end) {
		ssize_t n = send(fd, bytes, PIECE, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0)
			sent += (uint64_t)n;
		else
			(void)usleep(5000);
	}
	uint64_t taken = atomic_load(&fixture.seen.body_bytes);
	/* Ten pauses at most: what was taken is a few pieces, and the rest of what was sent lies in the kernel's buffers. */
	cr_assert_gt(taken, 0);
	cr_assert_leq(taken, 16 * 256 * 1024);
	cr_assert_lt(sent, 40u << 20);
	cr_assert_lt(fixture_stats(&fixture).buffered_bytes, 600 * 1024);
	free(bytes);
	(void)close(fd);
	stop();
	cr_assert_eq(atomic_load(&fixture.seen.frees), 1);
}

Test(net_server, resumes_after_a_pause_and_loses_nothing)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "PUT /slow?ms=1 HTTP/1.1\r\n" HOST "Content-Length: 3000000\r\n\r\n"));
	char *bytes = calloc(1, 3000000);
	cr_assert(socket_send(fd, bytes, 3000000));
	free(bytes);
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 10 * SECOND), 200);
	cr_assert_eq(strtoull(body_of(reply), NULL, 10), 3000000);
	cr_assert_gt(atomic_load(&fixture.seen.timers), 0);
	(void)close(fd);
	stop();
}

/* ---- bad clients ---- */

Test(net_server, answers_400_and_closes_on_what_is_not_http)
{
	static const char *const bad[] = {"hello\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n",
		"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"};
	start(NULL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = socket_dial(fixture.port);
		cr_assert(socket_send_text(fd, bad[i]));
		unsigned status = socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND);
		cr_assert(status == 400 || status == 501, "case %zu: %u", i, status);
		cr_assert(strstr(reply, "connection: close"));
		cr_assert(socket_closes(fd, SECOND), "case %zu", i);
		(void)close(fd);
	}
	cr_assert_eq(fixture_stats(&fixture).bad_requests, ARRAY_SIZE(bad));
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	stop();
}

Test(net_server, answers_431_to_a_head_past_its_limit)
{
	struct net_limits limits = {.head_bytes = 1000};
	char text[2000];
	start(&limits);
	int len = snprintf(text, sizeof(text), "GET /hello HTTP/1.1\r\n" HOST "X: ");
	memset(text + len, 'x', sizeof(text) - (size_t)len - 1);
	text[sizeof(text) - 1] = 0;
	cr_assert_eq(ask(text), 431);
	cr_assert(strstr(reply, "headers_too_large"));
	cr_assert_eq(fixture_stats(&fixture).head_too_large, 1);
	stop();
}

Test(net_server, answers_408_to_a_head_that_dribbles)
{
	struct net_limits limits = {.head_timeout_ms = 300};
	start(&limits);
	int fd = socket_dial(fixture.port);
	uint64_t begin = now_ms();
	/* A byte every 50 ms keeps the connection busy but does not move the deadline. */
	for (const char *c = "GET /hello HTTP/1.1\r\nHost: slow"; *c && now_ms() < begin + 600; c++) {
		if (!socket_send(fd, c, 1))
			break;
		(void)usleep(50000);
	}
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 408);
	cr_assert_eq(fixture_stats(&fixture).timeouts_head, 1);
	(void)close(fd);
	stop();
}

Test(net_server, answers_408_to_a_body_that_stalls_and_tells_the_handler)
{
	struct net_limits limits = {.body_timeout_ms = 300};
	start(&limits);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nabc"));
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 408);
	cr_assert(socket_closes(fd, 3 * SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 1);
	cr_assert_eq(atomic_load(&fixture.seen.frees), 1);
	cr_assert_eq(fixture_stats(&fixture).timeouts_body, 1);
	(void)close(fd);
	stop();
}

Test(net_server, does_not_time_out_a_body_that_moves)
{
	struct net_limits limits = {.body_timeout_ms = 300};
	start(&limits);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 8\r\n\r\n"));
	for (int i = 0; i < 8; i++) {
		cr_assert(socket_send(fd, "x", 1));
		(void)usleep(100000);
	}
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), 2 * SECOND), 200);
	(void)close(fd);
	stop();
}

Test(net_server, closes_idle_connections)
{
	struct net_limits limits = {.keep_alive_ms = 200};
	start(&limits);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /hello HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), SECOND), 200);
	uint64_t begin = now_ms();
	cr_assert(socket_closes(fd, 2 * SECOND));
	cr_assert_geq(now_ms() - begin, 150);
	cr_assert_eq(fixture_stats(&fixture).timeouts_idle, 1);
	(void)close(fd);
	stop();
}

Test(net_server, closes_on_a_client_that_never_reads_and_stays_small)
{
	struct net_limits limits = {.write_timeout_ms = 500};
	start(&limits);
	int fd = socket_dial(fixture.port);
	uint64_t before = memory_rss_kib();
	cr_assert(socket_send_text(fd, "GET /stream?n=1000000000 HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.aborts) == 1, 5 * SECOND));
	cr_assert_lt(memory_rss_kib(), before + 16 * 1024);
	cr_assert_eq(fixture_stats(&fixture).timeouts_write, 1);
	cr_assert(WAIT_FOR(fixture_stats(&fixture).buffered_bytes == 0, SECOND));
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	(void)close(fd);
	stop();
}

Test(net_server, streams_to_a_slow_reader_without_loss)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /stream?n=20000000 HTTP/1.0\r\n\r\n"));
	uint64_t total = 0;
	char *bytes = malloc(1 << 16);
	for (;;) {
		ssize_t got = recv(fd, bytes, 1 << 16, 0);
		if (got <= 0)
			break;
		total += (uint64_t)got;
		(void)usleep(1000);
	}
	free(bytes);
	cr_assert_gt(total, 20000000);
	cr_assert_lt(total, 20000000 + 300);
	cr_assert_gt(atomic_load(&fixture.seen.writable), 0);
	(void)close(fd);
	stop();
}

Test(net_server, tells_the_handler_when_a_client_stops_in_the_middle)
{
	start(NULL);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "PUT /count HTTP/1.1\r\n" HOST "Content-Length: 1000\r\n\r\nabc"));
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.body_bytes) == 3, SECOND));
	(void)close(fd);
	cr_assert(WAIT_FOR(atomic_load(&fixture.seen.frees) == 1, SECOND));
	cr_assert_eq(atomic_load(&fixture.seen.aborts), 1);
	cr_assert_eq(atomic_load(&fixture.seen.ends), 0);
	cr_assert_eq(fixture_stats(&fixture).requests_aborted, 1);
	stop();
}

Test(net_server, serves_others_beside_a_thousand_silent_connections)
{
	struct net_limits limits = {.head_timeout_ms = 1500};
	enum { COUNT = 1000 };
	static int fds[COUNT];
	start(&limits);
	for (int i = 0; i < COUNT; i++)
		fds[i] = socket_dial(fixture.port);
	cr_assert(WAIT_FOR(fixture_stats(&fixture).connections_open == COUNT, 2 * SECOND));
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	cr_assert(WAIT_FOR(fixture_stats(&fixture).timeouts_head == COUNT, 5 * SECOND));
	cr_assert(WAIT_FOR(fixture_stats(&fixture).connections_open == 0, SECOND));
	for (int i = 0; i < COUNT; i++)
		(void)close(fds[i]);
	stop();
}

/* ---- limits ---- */

Test(net_server, refuses_connections_past_its_limits_with_503)
{
	struct net_limits limits = {.connections = 3};
	start(&limits);
	int fds[3];
	for (int i = 0; i < 3; i++)
		fds[i] = socket_dial(fixture.port);
	cr_assert(WAIT_FOR(fixture_stats(&fixture).connections_open == 3, SECOND));
	int fd = socket_dial(fixture.port);
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), SECOND), 503);
	cr_assert(strstr(reply, "retry-after: 1"));
	(void)close(fd);
	cr_assert_eq(fixture_stats(&fixture).connections_refused_total, 1);
	(void)close(fds[0]);
	cr_assert(WAIT_FOR(fixture_stats(&fixture).connections_open == 2, SECOND));
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	(void)close(fds[1]);
	(void)close(fds[2]);
	stop();
}

Test(net_server, refuses_too_many_connections_of_one_peer)
{
	struct net_limits limits = {.connections_per_peer = 2};
	start(&limits);
	int first = socket_dial(fixture.port), second = socket_dial(fixture.port), third = socket_dial(fixture.port);
	cr_assert_eq(socket_read_reply(third, reply, sizeof(reply), SECOND), 503);
	cr_assert_eq(fixture_stats(&fixture).connections_refused_per_peer, 1);
	(void)close(first);
	(void)close(second);
	(void)close(third);
	cr_assert(WAIT_FOR(fixture_stats(&fixture).connections_open == 0, SECOND));
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	stop();
}

Test(net_server, closes_after_the_last_request_of_a_connection)
{
	struct net_limits limits = {.requests_per_connection = 2};
	start(&limits);
	int fd = socket_dial(fixture.port);
	cr_assert(socket_send_text(fd, "GET /hello HTTP/1.1\r\n" HOST "\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n"));
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), SECOND), 200);
	cr_assert_null(strstr(reply, "connection: close"));
	cr_assert_eq(socket_read_reply(fd, reply, sizeof(reply), SECOND), 200);
	cr_assert(strstr(reply, "connection: close"));
	cr_assert(socket_closes(fd, SECOND));
	cr_assert_eq(fixture_stats(&fixture).closed_requests_limit, 1);
	(void)close(fd);
	stop();
}

Test(net_server, answers_503_when_bodies_in_memory_pass_the_limit)
{
	struct net_limits limits = {.buffered_bytes = 1 << 20};
	enum { COUNT = 3, HALF = 400 * 1024 };
	start(&limits);
	char *bytes = calloc(1, HALF);
	int fds[COUNT];
	unsigned refused = 0;
	for (int i = 0; i < COUNT; i++) {
		fds[i] = socket_dial(fixture.port);
		cr_assert(socket_send_text(fds[i], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 500000\r\n\r\n"));
		(void)socket_send(fds[i], bytes, HALF);
		(void)usleep(50000);
	}
	for (int i = 0; i < COUNT; i++)
		refused += socket_read_reply(fds[i], reply, sizeof(reply), 100) == 503;
	cr_assert_geq(refused, 1);
	cr_assert_geq(fixture_stats(&fixture).refused_memory, 1);
	for (int i = 0; i < COUNT; i++)
		(void)close(fds[i]);
	free(bytes);
	cr_assert(WAIT_FOR(fixture_stats(&fixture).buffered_bytes == 0, 4 * SECOND));
	cr_assert_eq(ask("GET /hello HTTP/1.1\r\n" HOST "\r\n"), 200);
	stop();
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The HTTP/2 core without sockets, against nghttp2's client session and against bytes that no client should send.
 */
#include "net/h2.h"

#include <criterion/criterion.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

/* ---- our side: a server that answers by path ---- */

struct server {
	struct h2 *h2;
	char log[8192]; /* "GET /a? body=.. end closed " */
	size_t len;
	struct h2_stream *held; /* of /hold: credit is kept back */
	size_t held_bytes;
	unsigned rooms;
};

__attribute__((format(printf, 2, 3))) static void say(struct server *server, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	int n = vsnprintf(server->log + server->len, sizeof(server->log) - server->len, format, args);
	va_end(args);
	if (server->len + (size_t)n < sizeof(server->log))
		server->len += (size_t)n;
}

static void answer(struct h2_stream *stream, const char *text, size_t times)
{
	struct net_reply reply = {.status = 200, .content_type = "text/plain"};

	for (size_t i = 0; i < times; i++)
		cr_assert_null(buf_append(&reply.body, text, strlen(text)));
	cr_assert_null(h2_reply(stream, &reply, true, "DATE"));
	net_reply_deinit(&reply);
}

static void on_head(void *user, struct h2_stream *stream, struct net_head *take_head)
{
	struct server *server = user;
	const char *host = net_head_get(take_head, "host");

	say(server, "%s %s?%s host=%s%s ", take_head->method_text, take_head->path, take_head->query, host ? host : "-",
		take_head->has_body ? " body" : "");
	if (strcmp(take_head->path, "/now") == 0)
		answer(stream, "now", 1);
	if (strcmp(take_head->path, "/big") == 0)
		answer(stream, "0123456789", 100000);
	if (strcmp(take_head->path, "/hold") == 0)
		server->held = stream;
	net_head_deinit(take_head);
}

static void on_body(void *user, struct h2_stream *stream, const uint8_t *bytes, size_t len)
{
	struct server *server = user;

	(void)bytes;
	say(server, "+%zu ", len);
	if (stream->reply_ended && stream != server->held)
		h2_stop(stream);
	if (stream == server->held) {
		server->held_bytes += len;
		h2_consumed_connection(stream, len);
	} else {
		h2_consumed(stream, len);
	}
}

static void on_end(void *user, struct h2_stream *stream)
{
	struct server *server = user;

	say(server, "end ");
	if (!stream->reply_begun)
		answer(stream, "done", 1);
}

static void on_room(void *user, struct h2_stream *stream)
{
	struct server *server = user;

	(void)stream;
	server->rooms++;
}

static void on_closed(void *user, struct h2_stream *stream)
{
	struct server *server = user;

	if (server->held == stream)
		server->held = NULL;
	say(server, "closed ");
}

static const struct h2_events events = {
	.on_head = on_head, .on_body = on_body, .on_end = on_end, .on_room = on_room, .on_closed = on_closed};

static void server_open(struct server *server, uint64_t requests)
{
	struct h2_limits limits = {.streams = 10, .head_bytes = 4096, .head_count = 20, .requests = requests};

	*server = (struct server){0};
	cr_assert_null(h2_create(&limits, &events, server, &server->h2));
}

/* ---- the other side: nghttp2's client ---- */

struct client {
	nghttp2_session *session;
	char body[65536];
	size_t len, total;
	int status;
	uint32_t closed_with; /* error code of the last stream that closed */
	unsigned closed;
	bool goaway;
	char trailer[64];
};

static int client_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
	const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
	struct client *client = user;

	(void)session;
	(void)frame;
	(void)flags;
	if (name_len == 7 && memcmp(name, ":status", 7) == 0)
		client->status = atoi((const char *)value);
	if (name_len > 5 && memcmp(name, "grpc-", 5) == 0)
		(void)snprintf(client->trailer, sizeof(client->trailer), "%.*s", (int)value_len, (const char *)value);
	return 0;
}

static int client_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len, void *user)
{
	struct client *client = user;

	(void)session;
	(void)flags;
	(void)id;
	client->total += len;
	if (client->len + len < sizeof(client->body)) {
		memcpy(client->body + client->len, bytes, len);
		client->len += len;
	}
	return 0;
}

static int client_closed(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
	struct client *client = user;

	(void)session;
	(void)id;
	client->closed++;
	client->closed_with = error;
	return 0;
}

static int client_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct client *client = user;

	(void)session;
	client->goaway |= frame->hd.type == NGHTTP2_GOAWAY;
	return 0;
}

static void client_open(struct client *client)
{
	nghttp2_session_callbacks *callbacks;

	*client = (struct client){0};
	cr_assert_eq(nghttp2_session_callbacks_new(&callbacks), 0);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, client_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, client_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, client_closed);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, client_frame);
	cr_assert_eq(nghttp2_session_client_new(&client->session, callbacks, client), 0);
	nghttp2_session_callbacks_del(callbacks);
	cr_assert_eq(nghttp2_submit_settings(client->session, 0, NULL, 0), 0);
}

/* Carries bytes both ways until neither side has any; the server gets them in pieces of `step`. False when it gave up. */
static bool carry(struct server *server, struct client *client, size_t step)
{
	bool moved = true, fine = true;

	while (moved && fine) {
		const uint8_t *bytes;
		ssize_t len = nghttp2_session_mem_send(client->session, &bytes);
		moved = len > 0;
		for (ssize_t pos = 0; pos < len && fine;) {
			size_t n = (size_t)(len - pos) < step ? (size_t)(len - pos) : step;
			uint8_t *copy = malloc(n);
			memcpy(copy, bytes + pos, n);
			fine = h2_feed(server->h2, copy, n);
			free(copy);
			pos += (ssize_t)n;
		}
		size_t out;
		while ((out = h2_pull(server->h2, &bytes)) > 0) {
			moved = true;
			(void)nghttp2_session_mem_recv(client->session, bytes, out);
		}
	}
	return fine;
}

static nghttp2_nv nv(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value), 0};
}

struct upload {
	size_t left;
};

static ssize_t read_upload(nghttp2_session *session, int32_t id, uint8_t *to, size_t size, uint32_t *flags,
	nghttp2_data_source *source, void *user)
{
	struct upload *upload = source->ptr;
	size_t len = size < upload->left ? size : upload->left;

	(void)session;
	(void)id;
	(void)user;
	memset(to, 'x', len);
	upload->left -= len;
	if (upload->left == 0)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)len;
}

static int32_t submit(struct client *client, const char *method, const char *path, struct upload *upload)
{
	nghttp2_nv fields[] = {nv(":method", method), nv(":scheme", "http"), nv(":authority", "h"), nv(":path", path)};
	nghttp2_data_provider provider = {.source.ptr = upload, .read_callback = read_upload};

	return nghttp2_submit_request(client->session, NULL, fields, 4, upload ? &provider : NULL, NULL);
}

static void finish(struct server *server, struct client *client)
{
	nghttp2_session_del(client->session);
	h2_destroy(server->h2);
}

Test(h2_feed, answers_a_request_in_pieces_of_any_size)
{
	for (size_t step = 1; step < 64; step++) {
		struct server server;
		struct client client;
		server_open(&server, 1000);
		client_open(&client);
		(void)submit(&client, "GET", "/now?a=b", NULL);
		cr_assert(carry(&server, &client, step));
		cr_assert_eq(client.status, 200);
		cr_assert_str_eq(client.body, "now");
		cr_assert_str_eq(server.log, "GET /now?a=b host=h end closed ");
		finish(&server, &client);
	}
}

Test(h2_feed, takes_bodies_and_gives_credit)
{
	struct server server;
	struct client client;
	struct upload upload = {.left = 5 << 20};
	server_open(&server, 1000);
	client_open(&client);
	(void)submit(&client, "POST", "/later", &upload);
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_eq(upload.left, 0);
	cr_assert_str_eq(client.body, "done");
	finish(&server, &client);
}

Test(h2_feed, holds_a_stream_whose_credit_is_kept_back_and_no_other)
{
	struct server server;
	struct client client;
	struct upload held = {.left = 5 << 20}, free_one = {.left = 5 << 20};
	server_open(&server, 1000);
	client_open(&client);
	(void)submit(&client, "POST", "/hold", &held);
	(void)submit(&client, "POST", "/later", &free_one);
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_eq(server.held_bytes, H2_STREAM_WINDOW);
	cr_assert_eq(free_one.left, 0);
	cr_assert_eq(client.closed, 1);
	h2_consumed_stream(server.held, server.held_bytes);
	server.held_bytes = 0;
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_eq(server.held_bytes, H2_STREAM_WINDOW);
	finish(&server, &client);
}

Test(h2_reply, waits_for_the_credit_of_the_client)
{
	struct server server;
	struct client client;
	server_open(&server, 1000);
	client_open(&client);
	(void)nghttp2_session_set_local_window_size(client.session, 0, 0, 65535);
	(void)submit(&client, "GET", "/big", NULL);
	cr_assert(carry(&server, &client, SIZE_MAX));
	/* nghttp2's client gives credit by itself, so all comes. */
	cr_assert_eq(client.total, 1000000);
	cr_assert_eq(h2_queued(server.h2), 0);
	cr_assert_eq(h2_sent(server.h2), 1000000);
	finish(&server, &client);
}

Test(h2_stop, ends_the_stream_of_a_client_that_still_sends)
{
	struct server server;
	struct client client;
	struct upload upload = {.left = SIZE_MAX / 2};
	server_open(&server, 1000);
	client_open(&client);
	(void)submit(&client, "POST", "/now", &upload);
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_eq(client.status, 200);
	cr_assert_str_eq(client.body, "now");
	cr_assert_eq(client.closed, 1);
	cr_assert_eq(client.closed_with, NGHTTP2_NO_ERROR);
	finish(&server, &client);
}

Test(h2_end, sends_trailers)
{
	struct server server;
	struct client client;
	struct net_reply head = {.status = 200}, trailers = {0};
	struct buf piece = {0};
	server_open(&server, 1000);
	client_open(&client);
	struct upload upload = {.left = 10};
	(void)submit(&client, "POST", "/hold", &upload);
	/* Until the head is there; the body is not carried yet. */
	const uint8_t *bytes;
	ssize_t len;
	while (!server.held && (len = nghttp2_session_mem_send(client.session, &bytes)) > 0)
		cr_assert(h2_feed(server.h2, bytes, (size_t)len));
	cr_assert(server.held);
	cr_assert_null(h2_reply(server.held, &head, false, "DATE"));
	cr_assert_null(buf_append(&piece, "abc", 3));
	cr_assert(h2_write(server.held, &piece));
	cr_assert_null(net_reply_header(&trailers, "grpc-status", "7"));
	h2_end(server.held, &trailers.headers);
	net_reply_deinit(&trailers);
	(void)carry(&server, &client, SIZE_MAX);
	cr_assert_str_eq(client.trailer, "7");
	finish(&server, &client);
}

Test(h2_write, asks_writers_to_wait_when_the_queue_is_full)
{
	struct server server;
	struct client client;
	struct net_reply head = {.status = 200};
	struct upload upload = {.left = 10};
	server_open(&server, 1000);
	client_open(&client);
	(void)submit(&client, "POST", "/hold", &upload);
	const uint8_t *bytes;
	ssize_t len;
	while (!server.held && (len = nghttp2_session_mem_send(client.session, &bytes)) > 0)
		cr_assert(h2_feed(server.h2, bytes, (size_t)len));
	cr_assert_null(h2_reply(server.held, &head, false, "DATE"));
	bool more = true;
	unsigned pieces = 0;
	while (more && pieces < 100) {
		struct buf piece = {0};
		cr_assert_null(buf_reserve(&piece, 100000));
		memset(piece.data, 'y', 100000);
		piece.len = 100000;
		more = h2_write(server.held, &piece);
		pieces++;
	}
	cr_assert_eq(pieces, 3);
	cr_assert(server.held->wants_room);
	finish(&server, &client);
}

Test(h2_feed, answers_431_to_a_head_past_its_limits)
{
	struct server server;
	struct client client;
	char value[3000];
	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	server_open(&server, 1000);
	client_open(&client);
	nghttp2_nv fields[30] = {nv(":method", "GET"), nv(":scheme", "http"), nv(":authority", "h"), nv(":path", "/now"),
		nv("a", value), nv("b", value)};
	(void)nghttp2_submit_request(client.session, NULL, fields, 6, NULL, NULL);
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_eq(client.status, 431);
	for (size_t i = 4; i < 30; i++)
		fields[i] = nv("x", "y");
	client.status = 0;
	(void)nghttp2_submit_request(client.session, NULL, fields, 30, NULL, NULL);
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_eq(client.status, 431);
	cr_assert_null(strstr(server.log, "GET"), "no handler saw it");
	finish(&server, &client);
}

Test(h2_feed, answers_400_to_a_target_that_makes_no_sense)
{
	static const char *const bad[] = {"/a#b", "/a?b#c"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct server server;
		struct client client;
		server_open(&server, 1000);
		client_open(&client);
		(void)submit(&client, "GET", bad[i], NULL);
		cr_assert(carry(&server, &client, SIZE_MAX));
		cr_assert_null(strstr(server.log, "GET"), "no handler saw it");
		cr_assert_eq(client.status, 400, "%s: %d", bad[i], client.status);
		finish(&server, &client);
	}
}

Test(h2_feed, goes_away_after_the_last_request_and_when_asked)
{
	struct server server;
	struct client client;
	server_open(&server, 2);
	client_open(&client);
	(void)submit(&client, "GET", "/now", NULL);
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_not(client.goaway);
	(void)submit(&client, "GET", "/now", NULL);
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert(client.goaway);
	cr_assert(h2_is_over(server.h2));
	finish(&server, &client);
}

Test(h2_feed, refuses_more_streams_than_its_limit)
{
	struct server server;
	struct client client;
	server_open(&server, 1000);
	client_open(&client);
	cr_assert(carry(&server, &client, SIZE_MAX));
	struct upload uploads[20];
	for (size_t i = 0; i < 20; i++) {
		uploads[i].left = 2 << 20;
		(void)submit(&client, "POST", "/hold", &uploads[i]);
	}
	cr_assert(carry(&server, &client, SIZE_MAX));
	cr_assert_leq(h2_stream_count(server.h2), 10);
	finish(&server, &client);
}

/* ---- raw frames ---- */

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static bool feed_frame(struct server *server, unsigned type, unsigned flags, uint32_t id, const void *payload, size_t len)
{
	uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, (uint8_t)type, (uint8_t)flags, (uint8_t)(id >> 24),
		(uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};

	return h2_feed(server->h2, head, sizeof(head)) && (len == 0 || h2_feed(server->h2, payload, len));
}

static void raw_open(struct server *server)
{
	server_open(server, 1u << 30);
	cr_assert(h2_feed(server->h2, (const uint8_t *)preface, sizeof(preface) - 1));
	cr_assert(feed_frame(server, NGHTTP2_SETTINGS, 0, 0, NULL, 0));
}

static void drain(struct server *server)
{
	const uint8_t *bytes;

	while (h2_pull(server->h2, &bytes) > 0)
		;
}

/* :method GET, :scheme http, :path /, :authority h (HPACK static table). */
static const uint8_t get_head[] = {0x82, 0x86, 0x84, 0x41, 0x01, 'h'};
static const uint8_t get_big[] = {0x82, 0x86, 0x04, 0x04, '/', 'b', 'i', 'g', 0x41, 0x01, 'h'};

Test(h2_feed, ends_a_connection_that_resets_its_streams_in_a_hurry)
{
	struct server server;
	const uint8_t cancel[4] = {0, 0, 0, 8};
	bool fine = true;
	uint32_t id = 1;
	raw_open(&server);
	for (; fine && id < 200001; id += 2) {
		fine = feed_frame(&server, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, id, get_head, sizeof(get_head)) &&
		       feed_frame(&server, NGHTTP2_RST_STREAM, 0, id, cancel, sizeof(cancel));
		drain(&server);
		fine = fine && !h2_is_over(server.h2);
	}
	cr_assert(!fine, "it took 100,000 resets");
	cr_assert_lt(id, 5000u);
	h2_destroy(server.h2);
}

Test(h2_feed, ends_a_connection_that_only_pings)
{
	struct server server;
	bool fine = true;
	unsigned count = 0;
	raw_open(&server);
	for (; fine && count < 100000; count++) {
		fine = feed_frame(&server, NGHTTP2_PING, 0, 0, "12345678", 8);
		drain(&server);
		fine = fine && !h2_is_over(server.h2);
	}
	cr_assert_lt(count, 20000u);
	h2_destroy(server.h2);
}

Test(h2_calm, forgives_pings_that_come_slowly)
{
	struct server server;
	raw_open(&server);
	for (unsigned second = 0; second < 2000; second++) {
		for (unsigned i = 0; i < 10; i++) {
			cr_assert(feed_frame(&server, NGHTTP2_PING, 0, 0, "12345678", 8), "after %u seconds", second);
			drain(&server);
		}
		h2_calm(server.h2, 10);
	}
	cr_assert(!h2_is_over(server.h2));
	h2_destroy(server.h2);
}

/* Gives credit in steps of @p step for 20 answers of 1,000,000 bytes; how many credits it took. */
static unsigned read_in_steps(struct server *server, uint32_t step)
{
	const uint8_t credit[4] = {0, (uint8_t)(step >> 16), (uint8_t)(step >> 8), (uint8_t)step};
	unsigned count = 0;

	for (uint32_t id = 1; id < 41; id += 2) {
		cr_assert(feed_frame(server, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, id, get_big,
			sizeof(get_big)));
		drain(server);
		while (h2_queued(server->h2) > 0) {
			if (!feed_frame(server, NGHTTP2_WINDOW_UPDATE, 0, 0, credit, 4) ||
				!feed_frame(server, NGHTTP2_WINDOW_UPDATE, 0, id, credit, 4))
				return count;
			drain(server);
			count += 2;
		}
	}
	return count;
}

Test(h2_feed, lets_a_client_read_much_with_small_credits)
{
	struct server server;
	raw_open(&server);
	cr_assert_gt(read_in_steps(&server, 2000), 15000);
	cr_assert(!h2_is_over(server.h2));
	cr_assert_eq(h2_sent(server.h2), 20000000);
	h2_destroy(server.h2);
}

Test(h2_feed, ends_a_connection_that_gives_credit_byte_by_byte)
{
	struct server server;
	raw_open(&server);
	cr_assert_lt(read_in_steps(&server, 1), 20000);
	cr_assert(h2_is_over(server.h2));
	h2_destroy(server.h2);
}

Test(h2_feed, ends_a_connection_whose_pings_are_not_read)
{
	struct server server;
	bool fine = true;
	unsigned count = 0;
	raw_open(&server);
	for (; fine && count < 100000; count++)
		fine = feed_frame(&server, NGHTTP2_PING, 0, 0, "12345678", 8);
	cr_assert_lt(count, 2000u);
	h2_destroy(server.h2);
}

Test(h2_feed, ends_a_connection_of_empty_frames)
{
	struct server server;
	bool fine = true;
	unsigned count = 0;
	raw_open(&server);
	cr_assert(feed_frame(&server, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, get_head, sizeof(get_head)));
	for (; fine && count < 100000; count++) {
		fine = feed_frame(&server, NGHTTP2_DATA, 0, 1, NULL, 0);
		drain(&server);
		fine = fine && !h2_is_over(server.h2);
	}
	cr_assert_lt(count, 20000u);
	h2_destroy(server.h2);
}

Test(h2_feed, ends_a_head_that_never_ends)
{
	struct server server;
	static const uint8_t field[] = {0x00, 0x01, 'x', 0x01, 'y'};
	bool fine = true;
	unsigned count = 0;
	raw_open(&server);
	cr_assert(feed_frame(&server, NGHTTP2_HEADERS, 0, 1, get_head, sizeof(get_head)));
	for (; fine && count < 100000; count++)
		fine = feed_frame(&server, NGHTTP2_CONTINUATION, 0, 1, field, sizeof(field));
	cr_assert_lt(count, 100u);
	h2_destroy(server.h2);
}

Test(h2_feed, ends_on_bytes_that_break_the_protocol)
{
	static const struct {
		unsigned type, flags;
		uint32_t id;
		const char *payload;
		size_t len;
	} bad[] = {
		{NGHTTP2_DATA, 0, 0, "x", 1},
		{NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, "\x82", 1},
		{NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, "\xff\xff\xff\xff\xff", 5},
		{NGHTTP2_SETTINGS, 0, 0, "x", 1},
		{NGHTTP2_PING, 0, 0, "x", 1},
		{NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4},
		{NGHTTP2_CONTINUATION, 0, 1, "x", 1},
		{NGHTTP2_PUSH_PROMISE, 0, 1, "\0\0\0\2", 4},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct server server;
		raw_open(&server);
		(void)feed_frame(&server, bad[i].type, bad[i].flags, bad[i].id, bad[i].payload, bad[i].len);
		drain(&server);
		cr_assert(h2_is_over(server.h2), "case %zu", i);
		h2_destroy(server.h2);
	}
	struct server server;
	server_open(&server, 10);
	cr_assert_not(h2_feed(server.h2, (const uint8_t *)"GET / HTTP/1.1\r\n\r\nxxxxxxx", 25));
	h2_destroy(server.h2);
}

Test(h2_feed, resets_a_stream_whose_length_is_a_lie)
{
	struct server server;
	static const uint8_t head[] = {0x83, 0x86, 0x84, 0x41, 0x01, 'h', 0x0f, 0x0d, 0x01, '5'};
	raw_open(&server);
	cr_assert(feed_frame(&server, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, head, sizeof(head)));
	(void)feed_frame(&server, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, "123", 3);
	drain(&server);
	cr_assert(strstr(server.log, "closed"), "%s", server.log);
	cr_assert_null(strstr(server.log, "end "), "%s", server.log);
	h2_destroy(server.h2);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The client against our own server and against servers that misbehave.
 */
#include "net/client.h"
#include "tests/net/fixture.h"
#include "tests/net/socket.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

static struct fixture fixture;

static struct net_client *client_new(void)
{
	struct net_client_options options = {.hint = "is cairnd running?", .stall_timeout_ms = 1000};
	struct net_client *client;

	cr_assert_null(net_client_create(&options, &client));
	return client;
}

static const char *url(uint16_t port, const char *path)
{
	static char text[256];

	(void)snprintf(text, sizeof(text), "http://127.0.0.1:%u%s", port, path);
	return text;
}

Test(net_client, gets_status_headers_and_body)
{
	fixture_start(&fixture, NULL, 1);
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	struct net_client_reply reply;
	struct net_client_request request = {.method = "GET", .url = url(fixture.port, "/hello")};
	char type[64];

	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_eq(reply.status, 200);
	cr_assert_str_eq((char *)reply.body.data, "hello\n");
	cr_assert(net_client_reply_header(&reply, "content-type", type, sizeof(type)));
	cr_assert_str_eq(type, "text/plain");
	cr_assert_not(net_client_reply_header(&reply, "content-typ", type, sizeof(type)));
	net_client_reply_deinit(&reply);
	fixture_stop(&fixture, 100);
}

Test(net_client, takes_any_status_as_an_answer)
{
	fixture_start(&fixture, NULL, 1);
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	struct net_client_reply reply;
	struct net_client_request request = {.method = "GET", .url = url(fixture.port, "/nowhere")};

	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_eq(reply.status, 404);
	net_client_reply_deinit(&reply);
	request.method = "HEAD";
	request.url = url(fixture.port, "/whole?n=100000");
	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_eq(reply.status, 200);
	cr_assert_eq(reply.body.len, 0);
	net_client_reply_deinit(&reply);
	request.method = "DELETE";
	request.url = url(fixture.port, "/p/1/q/2");
	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_str_eq((char *)reply.body.data, "1|2");
	net_client_reply_deinit(&reply);
	fixture_stop(&fixture, 100);
}

Test(net_client, sends_bodies_from_memory_and_keeps_the_connection)
{
	fixture_start(&fixture, NULL, 1);
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	struct net_client_header headers[] = {{"Content-Type", "application/x-test"}, {"X-Empty", ""}};
	for (int i = 0; i < 5; i++) {
		struct net_client_reply reply;
		struct net_client_request request = {.method = "POST", .url = url(fixture.port, "/echo"), .body = "abc",
			.body_len = (uint64_t)(i % 4), .headers = headers, .header_count = 2};
		cr_assert_null(net_client_send(client, &request, &reply));
		cr_assert_eq(reply.status, 200);
		cr_assert_eq(reply.body.len, (size_t)(i % 4));
		net_client_reply_deinit(&reply);
	}
	cr_assert_eq(fixture_stats(&fixture).connections_accepted, 1);
	fixture_stop(&fixture, 100);
}

Test(net_client, sends_a_range_of_a_descriptor)
{
	fixture_start(&fixture, NULL, 1);
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	CLEANUP(closep) int fd = memfd_create("body", MFD_CLOEXEC);
	for (int i = 0; i < 1000000; i++)
		cr_assert_eq(pwrite(fd, "0123456789", 10, (off_t)i * 10), 10);
	struct net_client_reply reply;
	struct net_client_request request = {.method = "PUT", .url = url(fixture.port, "/count"), .body_is_fd = true, .body_fd = fd,
		.body_foff = 3, .body_len = 9999990};

	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_eq(strtoull((char *)reply.body.data, NULL, 10), 9999990);
	net_client_reply_deinit(&reply);
	request.url = url(fixture.port, "/echo");
	request.method = "POST";
	request.body_foff = 13;
	request.body_len = 4;
	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_str_eq((char *)reply.body.data, "3456");
	net_client_reply_deinit(&reply);
	fixture_stop(&fixture, 100);
}

Test(net_client, notices_a_file_that_became_shorter)
{
	fixture_start(&fixture, NULL, 1);
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	CLEANUP(closep) int fd = memfd_create("body", MFD_CLOEXEC);
	cr_assert_eq(write(fd, "abc", 3), 3);
	struct net_client_reply reply = {.status = 7};
	struct net_client_request request = {
		.method = "PUT", .url = url(fixture.port, "/count"), .body_is_fd = true, .body_fd = fd, .body_len = 10};
	struct err *e = net_client_send(client, &request, &reply);

	cr_assert(e && err_code(e) == ERR_MISMATCH, "%s", e ? err_message(e) : "no error");
	cr_assert_eq(reply.status, 7, "untouched on failure");
	err_free(e);
	fixture_stop(&fixture, 100);
}

Test(net_client, reads_a_refusal_that_comes_before_the_body_was_sent)
{
	fixture_start(&fixture, NULL, 1);
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	void *bytes = calloc(1, 32 << 20);
	struct net_client_reply reply;
	struct net_client_request request = {.method = "POST", .url = url(fixture.port, "/auth"), .body = bytes, .body_len = 32 << 20};

	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_eq(reply.status, 401);
	cr_assert(strstr((char *)reply.body.data, "unauthorized"));
	net_client_reply_deinit(&reply);
	free(bytes);
	fixture_stop(&fixture, 100);
}

Test(net_client, stops_at_the_reply_limit)
{
	fixture_start(&fixture, NULL, 1);
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	struct net_client_reply reply;
	struct net_client_request request = {.method = "GET", .url = url(fixture.port, "/whole?n=1001"), .reply_limit = 1000};
	struct err *e = net_client_send(client, &request, &reply);

	cr_assert(e && err_code(e) == ERR_LIMIT);
	cr_assert(strstr(err_message(e), "the answer is longer than 1000 bytes"));
	err_free(e);
	request.reply_limit = 1001;
	cr_assert_null(net_client_send(client, &request, &reply));
	cr_assert_eq(reply.body.len, 1001);
	net_client_reply_deinit(&reply);
	fixture_stop(&fixture, 100);
}

Test(net_client, says_in_one_line_that_nobody_listens)
{
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	struct net_client_reply reply;
	struct net_client_request request = {.method = "GET", .url = "http://127.0.0.1:1/v1/files"};
	struct err *e = net_client_send(client, &request, &reply);

	cr_assert(e && err_code(e) == ERR_PEER);
	cr_assert_str_eq(err_message(e), "http://127.0.0.1:1/v1/files: connection refused: is cairnd running?");
	err_free(e);
}

Test(net_client, refuses_what_is_not_a_url)
{
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	static const char *const bad[] = {"", "file:///etc/passwd", "gopher://a/", "http://"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct net_client_reply reply;
		struct net_client_request request = {.method = "GET", .url = bad[i]};
		struct err *e = net_client_send(client, &request, &reply);
		cr_assert(e && err_code(e) == ERR_INVALID, "'%s': %s", bad[i], e ? err_message(e) : "");
		err_free(e);
	}
}

Test(net_client, refuses_headers_that_would_split_the_request)
{
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	struct net_client_header header = {"X", "a\r\nY: b"};
	struct net_client_reply reply;
	struct net_client_request request = {
		.method = "GET", .url = "http://127.0.0.1:1/", .headers = &header, .header_count = 1};
	struct err *e = net_client_send(client, &request, &reply);

	cr_assert(e && err_code(e) == ERR_INVALID);
	err_free(e);
}

/* A server that accepts once and then says `text` (NULL: nothing) and closes, or keeps silent. */
struct bad_server {
	const char *text;
	bool silent;
	int fd;
	uint16_t port;
	pthread_t thread;
};

static void *bad_server_run(void *arg)
{
	struct bad_server *server = arg;
	char bytes[4096];
	int fd = accept(server->fd, NULL, NULL);

	(void)recv(fd, bytes, sizeof(bytes), 0);
	if (server->text)
		(void)socket_send_text(fd, server->text);
	if (server->silent)
		(void)recv(fd, bytes, sizeof(bytes), 0);
	(void)close(fd);
	return NULL;
}

static void bad_server_start(struct bad_server *server)
{
	server->fd = socket_listen(&server->port);
	cr_assert_eq(pthread_create(&server->thread, NULL, bad_server_run, server), 0);
}

static struct err *ask_bad_server(struct bad_server *server)
{
	CLEANUP(net_client_destroyp) struct net_client *client = client_new();
	struct net_client_reply reply;

	bad_server_start(server);
	struct net_client_request request = {.method = "GET", .url = url(server->port, "/")};
	struct err *e = net_client_send(client, &request, &reply);
	cr_assert(e);
	net_client_destroy(TAKE_PTR(client));
	pthread_join(server->thread, NULL);
	(void)close(server->fd);
	return e;
}

Test(net_client, reports_a_server_that_closes_without_an_answer)
{
	struct bad_server server = {0};
	struct err *e = ask_bad_server(&server);

	cr_assert(err_code(e) == ERR_PEER && strstr(err_message(e), "without an answer"), "%s", err_message(e));
	err_free(e);
}

Test(net_client, reports_an_answer_that_is_cut)
{
	struct bad_server server = {.text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"};
	struct err *e = ask_bad_server(&server);

	cr_assert_eq(err_code(e), ERR_PEER, "%s", err_message(e));
	err_free(e);
}

Test(net_client, gives_up_on_a_silent_server)
{
	struct bad_server server = {.silent = true};
	uint64_t begin = now_ms();
	struct err *e = ask_bad_server(&server);

	cr_assert(err_code(e) == ERR_PEER && strstr(err_message(e), "timed out"), "%s", err_message(e));
	cr_assert_lt(now_ms() - begin, 4000);
	err_free(e);
}

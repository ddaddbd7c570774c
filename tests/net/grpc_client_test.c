// SPDX-License-Identifier: Apache-2.0
/*
 * The gRPC client against our own server, plain and under TLS, and against peers that it must not trust.
 */
#include "net/grpc_client.h"
#include "tests/net/fixture.h"
#include "tests/net/socket.h"

#include <criterion/criterion.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static struct fixture fixture;
static char folder[] = "/tmp/cairn-grpc-client-XXXXXX";

/* ---- calls ---- */

struct answer {
	size_t messages, bytes;
	char first[64];
	bool ended;
	enum net_grpc_status status;
	char message[256];
};

static void on_message(void *user, const uint8_t *bytes, size_t len)
{
	struct answer *answer = user;

	if (answer->messages++ == 0)
		memcpy(answer->first, bytes, len < sizeof(answer->first) - 1 ? len : sizeof(answer->first) - 1);
	answer->bytes += len;
}

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct answer *answer = user;

	answer->ended = true;
	answer->status = status;
	(void)snprintf(answer->message, sizeof(answer->message), "%s", message ? message : "");
}

static const struct net_grpc_client_ops ops = {.on_message = on_message, .on_end = on_end};

static struct err *connect_to(const char *host, uint16_t port, const struct net_grpc_client_options *options, struct net_grpc_client **ret)
{
	char address[128];

	(void)snprintf(address, sizeof(address), "%s:%u", host, port);
	return net_grpc_client_connect(address, options, ret);
}

static struct answer call(struct net_grpc_client *client, const char *path, const void *bytes, size_t len)
{
	struct answer answer = {0};
	struct net_grpc_client_call *opened;

	cr_assert_null(net_grpc_client_open(client, path, &ops, &answer, &opened));
	cr_assert_null(net_grpc_client_send(opened, bytes, len));
	net_grpc_client_half_close(opened);
	for (uint64_t end = now_ms() + 20000; !answer.ended && now_ms() < end;)
		cr_assert_null(net_grpc_client_run(client, 1000));
	cr_assert(answer.ended);
	return answer;
}

static void talk(struct net_grpc_client *client)
{
	size_t len = 20 << 20;
	uint8_t *big = malloc(len);
	struct answer answer = call(client, "/test.Test/Echo", "hello", 5);

	cr_assert_eq(answer.status, NET_GRPC_OK, "%s", answer.message);
	cr_assert_str_eq(answer.first, "hello");
	answer = call(client, "/test.Test/Fail", "x", 1);
	cr_assert_eq(answer.status, NET_GRPC_FAILED_PRECONDITION);
	cr_assert_str_eq(answer.message, "5% n\xc3\xa4h\n");
	cr_assert(big);
	for (size_t i = 0; i < len; i++)
		big[i] = (uint8_t)(i * 2654435761u >> 24);
	answer = call(client, "/test.Test/Echo", big, len);
	cr_assert_eq(answer.bytes, len, "%s", answer.message);
	free(big);
	answer = call(client, "/test.Test/Flood", "500", 3);
	cr_assert_eq(answer.messages, 500);
	cr_assert_eq(answer.bytes, 5000000);
}

Test(net_grpc_client, calls_and_is_answered)
{
	struct net_grpc_client_options options = {0};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;

	fixture_start(&fixture, NULL, 1);
	cr_assert_null(connect_to("127.0.0.1", fixture.port, &options, &client));
	talk(client);
	net_grpc_client_destroy(TAKE_PTR(client));
	fixture_stop(&fixture, 100);
}

Test(net_grpc_client, compresses_what_it_sends)
{
	struct net_grpc_client_options options = {.gzip_level = 1};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;
	char *zeros = calloc(1, 1 << 20);
	uint64_t sent, received;

	fixture_start(&fixture, NULL, 1);
	cr_assert_null(connect_to("127.0.0.1", fixture.port, &options, &client));
	cr_assert_eq(call(client, "/test.Test/Echo", zeros, 1 << 20).bytes, 1 << 20);
	net_grpc_client_bytes(client, &sent, &received);
	cr_assert_lt(sent, 32768);
	cr_assert_gt(received, 1 << 20);
	free(zeros);
	net_grpc_client_destroy(TAKE_PTR(client));
	fixture_stop(&fixture, 100);
}

Test(net_grpc_client, ends_a_call_whose_message_is_past_the_limit)
{
	struct net_grpc_client_options options = {.message_max = 9999};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;

	fixture_start(&fixture, NULL, 1);
	cr_assert_null(connect_to("127.0.0.1", fixture.port, &options, &client));
	cr_assert_eq(call(client, "/test.Test/Flood", "3", 1).status, NET_GRPC_RESOURCE_EXHAUSTED);
	cr_assert_eq(call(client, "/test.Test/Echo", "again", 5).status, NET_GRPC_OK);
	net_grpc_client_destroy(TAKE_PTR(client));
	fixture_stop(&fixture, 100);
}

Test(net_grpc_client, ends_calls_when_the_server_stops)
{
	struct net_grpc_client_options options = {0};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;
	struct net_grpc_client_call *opened;
	struct answer answer = {0};
	struct err *e = NULL;

	fixture_start(&fixture, NULL, 1);
	cr_assert_null(connect_to("127.0.0.1", fixture.port, &options, &client));
	cr_assert_null(net_grpc_client_open(client, "/test.Test/Chat", &ops, &answer, &opened));
	cr_assert_null(net_grpc_client_send(opened, "x", 1));
	while (!answer.messages)
		cr_assert_null(net_grpc_client_run(client, 1000));
	fixture_stop(&fixture, 0);
	for (uint64_t end = now_ms() + 10000; !e && now_ms() < end;)
		e = net_grpc_client_run(client, 100);
	cr_assert(e && err_code(e) == ERR_PEER, "%s", e ? err_message(e) : "no error");
	cr_assert(answer.ended);
	cr_assert_eq(answer.status, NET_GRPC_UNAVAILABLE);
	err_free(e);
}

static void refuses(const char *host, uint16_t port, const struct net_grpc_client_tls *tls, enum err_code code, const char *words)
{
	struct net_grpc_client_options options = {.tls = tls, .connect_timeout_ms = 2000};
	struct net_grpc_client *client = NULL;
	struct err *e = connect_to(host, port, &options, &client);

	cr_assert(e, "%s is no reason", words);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert(strstr(err_message(e), words), "%s", err_message(e));
	cr_assert_null(client);
	err_free(e);
}

Test(net_grpc_client, says_what_is_wrong_with_an_address)
{
	static const char *const bad[] = {"", "localhost", ":4317", "::1:4317", "[::1", "h:99999", "h:x"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct net_grpc_client_options options = {0};
		struct net_grpc_client *client = NULL;
		struct err *e = net_grpc_client_connect(bad[i], &options, &client);
		cr_assert(e && err_code(e) == ERR_INVALID, "'%s': %s", bad[i], e ? err_message(e) : "no error");
		err_free(e);
	}
	refuses("127.0.0.1", 1, NULL, ERR_PEER, "127.0.0.1:1: Connection refused");
}

/* ---- TLS ---- */

/* Two authorities, a server's certificate by the first for localhost and 127.0.0.1, a client's, and one of the second. */
static void make_certificates(void)
{
	static const char script[] =
		"exec >openssl.log 2>&1; set -e\n"
		"key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n"
		"for ca in ca other; do openssl req -x509 $key -days 2 -subj \"/CN=$ca\" -keyout $ca.key -out $ca.pem; done\n"
		"echo subjectAltName=DNS:localhost,IP:127.0.0.1 >names\n"
		"for of in server client; do\n"
		"  openssl req $key -subj /CN=$of -keyout $of.key -out $of.csr\n"
		"  openssl x509 -req -in $of.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out $of.pem\n"
		"done\n";

	cr_assert(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
	cr_assert_eq(system(script), 0, "see openssl.log in %s", folder);
}

static void remove_certificates(void)
{
	static const char *const files[] = {"openssl.log", "names", "ca.key", "ca.pem", "ca.srl", "other.key", "other.pem", "server.key",
		"server.csr", "server.pem", "client.key", "client.csr", "client.pem"};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		(void)unlink(files[i]);
	(void)rmdir(folder);
}

static uint16_t start_tls(const char *client_ca)
{
	struct net_tls_options options = {.certificate_file = "server.pem", .key_file = "server.key", .client_ca_file = client_ca};
	uint16_t port;

	fixture_start(&fixture, NULL, 1);
	cr_assert_null(net_server_listen_tls(fixture.server, "127.0.0.1:0", &options, &port));
	return port;
}

TestSuite(net_grpc_client_tls, .init = make_certificates, .fini = remove_certificates);

Test(net_grpc_client_tls, calls_and_is_answered)
{
	struct net_grpc_client_tls tls = {.ca_file = "ca.pem"};
	struct net_grpc_client_options options = {.tls = &tls, .gzip_level = 1};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;
	uint16_t port = start_tls(NULL);

	cr_assert_null(connect_to("localhost", port, &options, &client), "by name");
	talk(client);
	net_grpc_client_destroy(TAKE_PTR(client));
	cr_assert_null(connect_to("127.0.0.1", port, &options, &client), "by address");
	cr_assert_eq(call(client, "/test.Test/Echo", "x", 1).status, NET_GRPC_OK);
	net_grpc_client_destroy(TAKE_PTR(client));
	fixture_stop(&fixture, 100);
}

Test(net_grpc_client_tls, trusts_nobody_else)
{
	struct net_grpc_client_tls other = {.ca_file = "other.pem"}, systems = {0};
	struct net_grpc_client_tls stranger = {.ca_file = "ca.pem", .server_name = "stranger.example"};
	struct net_grpc_client_tls elsewhere = {.ca_file = "ca.pem", .server_name = "127.0.0.2"};
	uint16_t port = start_tls(NULL);

	refuses("localhost", port, &other, ERR_PEER, "the certificate is refused");
	refuses("localhost", port, &systems, ERR_PEER, "the certificate is refused");
	refuses("localhost", port, &stranger, ERR_PEER, "the certificate is refused: hostname mismatch");
	refuses("localhost", port, &elsewhere, ERR_PEER, "the certificate is refused: IP address mismatch");
	fixture_stop(&fixture, 100);
}

Test(net_grpc_client_tls, takes_another_name_for_the_same_address)
{
	struct net_grpc_client_tls tls = {.ca_file = "ca.pem", .server_name = "localhost"};
	struct net_grpc_client_options options = {.tls = &tls};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;

	cr_assert_null(connect_to("127.0.0.1", start_tls(NULL), &options, &client));
	net_grpc_client_destroy(TAKE_PTR(client));
	fixture_stop(&fixture, 100);
}

Test(net_grpc_client_tls, shows_its_certificate)
{
	struct net_grpc_client_tls tls = {.ca_file = "ca.pem", .certificate_file = "client.pem", .key_file = "client.key"};
	struct net_grpc_client_options options = {.tls = &tls};
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = NULL;
	struct net_grpc_client_call *opened;
	struct answer answer = {0};
	uint16_t port = start_tls("ca.pem");
	struct err *e = NULL;

	cr_assert_null(connect_to("localhost", port, &options, &client));
	cr_assert_eq(call(client, "/test.Test/Echo", "x", 1).status, NET_GRPC_OK);
	net_grpc_client_destroy(TAKE_PTR(client));
	/* In TLS 1.3 the client is done before the server has judged it. */
	tls.certificate_file = tls.key_file = NULL;
	cr_assert_null(connect_to("localhost", port, &options, &client));
	cr_assert_null(net_grpc_client_open(client, "/test.Test/Echo", &ops, &answer, &opened));
	for (uint64_t end = now_ms() + 10000; !e && now_ms() < end;)
		e = net_grpc_client_run(client, 100);
	cr_assert(e && err_code(e) == ERR_PEER && strstr(err_message(e), "certificate required"), "%s", e ? err_message(e) : "no error");
	cr_assert_eq(answer.status, NET_GRPC_UNAVAILABLE);
	err_free(e);
	net_grpc_client_destroy(TAKE_PTR(client));
	fixture_stop(&fixture, 100);
}

Test(net_grpc_client_tls, names_the_file_that_does_not_serve)
{
	struct net_grpc_client_tls missing = {.ca_file = "/nonexistent/ca.pem"}, half = {.ca_file = "ca.pem", .certificate_file = "client.pem"};
	struct net_grpc_client_tls mixed = {.ca_file = "ca.pem", .certificate_file = "client.pem", .key_file = "server.key"};
	uint16_t port = start_tls(NULL);

	refuses("localhost", port, &missing, ERR_INVALID, "tls: CA /nonexistent/ca.pem");
	refuses("localhost", port, &half, ERR_INVALID, "needs its key");
	refuses("localhost", port, &mixed, ERR_INVALID, "tls: key server.key");
	fixture_stop(&fixture, 100);
}

/* A peer that takes one connection and: says nothing, or shakes hands without ALPN. */
struct peer {
	int fd;
	uint16_t port;
	bool shakes_hands;
	pthread_t thread;
};

static void *peer_run(void *arg)
{
	struct peer *peer = arg;
	char bytes[512];
	int fd = accept(peer->fd, NULL, NULL);
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());

	(void)signal(SIGPIPE, SIG_IGN); /* OpenSSL's writes, when the client has left already */
	SSL_CTX_use_certificate_chain_file(context, "server.pem");
	SSL_CTX_use_PrivateKey_file(context, "server.key", SSL_FILETYPE_PEM);
	SSL *ssl = SSL_new(context);
	SSL_set_fd(ssl, fd);
	if (peer->shakes_hands)
		SSL_accept(ssl);
	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
	SSL_free(ssl);
	SSL_CTX_free(context);
	(void)close(fd);
	return NULL;
}

static void with_peer(bool shakes_hands, uint64_t timeout_ms, const char *words)
{
	struct net_grpc_client_tls tls = {.ca_file = "ca.pem"};
	struct net_grpc_client_options options = {.tls = &tls, .connect_timeout_ms = timeout_ms};
	struct peer peer = {.shakes_hands = shakes_hands};
	struct net_grpc_client *client = NULL;

	peer.fd = socket_listen(&peer.port);
	cr_assert_eq(pthread_create(&peer.thread, NULL, peer_run, &peer), 0);
	struct err *e = connect_to("127.0.0.1", peer.port, &options, &client);
	cr_assert(e && err_code(e) == ERR_PEER && strstr(err_message(e), words), "%s", e ? err_message(e) : "no error");
	err_free(e);
	cr_assert_eq(pthread_join(peer.thread, NULL), 0);
	(void)close(peer.fd);
}

Test(net_grpc_client_tls, wants_http2_by_alpn)
{
	with_peer(true, 20000, "tls: the server does not agree to HTTP/2");
}

Test(net_grpc_client_tls, gives_up_on_a_peer_that_does_not_shake_hands)
{
	with_peer(false, 200, "tls: no handshake in time");
}

Test(net_grpc_client_tls, refuses_a_server_without_it)
{
	struct net_grpc_client_tls tls = {.ca_file = "ca.pem"};

	fixture_start(&fixture, NULL, 1);
	refuses("127.0.0.1", fixture.port, &tls, ERR_PEER, "tls: ");
	fixture_stop(&fixture, 100);
}

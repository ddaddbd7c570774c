// SPDX-License-Identifier: Apache-2.0
#include "net/tls_client.h"

#include "net/loop.h"
#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct net_tls_client {
	SSL_CTX *context;
	SSL *ssl;
	BIO_METHOD *method;
	int fd;
	bool failed; /* nothing may be sent any more, not even a goodbye */
	char why[192];
};

/* ---- the socket below: OpenSSL's own socket BIO writes without MSG_NOSIGNAL, and a peer that has left would kill the program ---- */

static int bio_result(BIO *bio, ssize_t n, int retry)
{
	BIO_clear_retry_flags(bio);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
	return (int)n;
}

static int on_bio_write(BIO *bio, const char *bytes, int len)
{
	const struct net_tls_client *tls = BIO_get_data(bio);
	ssize_t n;

	do
		n = send(tls->fd, bytes, (size_t)len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return bio_result(bio, n, BIO_FLAGS_WRITE);
}

static int on_bio_read(BIO *bio, char *bytes, int len)
{
	const struct net_tls_client *tls = BIO_get_data(bio);
	ssize_t n;

	do
		n = recv(tls->fd, bytes, (size_t)len, 0);
	while (n < 0 && errno == EINTR);
	return bio_result(bio, n, BIO_FLAGS_READ);
}

static long on_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio, (void)number, (void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static struct err *create_bio(struct net_tls_client *tls)
{
	tls->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "cairn socket");
	if (!tls->method || !BIO_meth_set_write(tls->method, on_bio_write) || !BIO_meth_set_read(tls->method, on_bio_read) ||
		!BIO_meth_set_ctrl(tls->method, on_bio_ctrl))
		return err_nomem();
	BIO *bio = BIO_new(tls->method);
	if (!bio)
		return err_nomem();
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	return NULL;
}

/* ---- whom to trust ---- */

static struct err *load_files(SSL_CTX *context, const struct net_grpc_client_tls *options)
{
	const char *certificate = options->certificate_file, *key = options->key_file;

	if (options->ca_file && SSL_CTX_load_verify_locations(context, options->ca_file, NULL) != 1)
		return net_tls_error("CA", options->ca_file);
	if (!options->ca_file && SSL_CTX_set_default_verify_paths(context) != 1)
		return net_tls_error("CA", "of the system");
	if (!certificate && !key)
		return NULL;
	if (!certificate || !key)
		return err_new(ERR_INVALID, "tls: a client certificate needs its key, and a key its certificate");
	return net_tls_load_pair(context, certificate, key);
}

static struct err *create_context(const struct net_grpc_client_tls *options, SSL_CTX **ret)
{
	static const unsigned char alpn[] = "\x02h2";
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());

	if (!context)
		return err_nomem();
	struct err *e = load_files(context, options);
	if (e) {
		SSL_CTX_free(context);
		return e;
	}
	(void)SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	/* HTTP/2 says itself where a message ends: a missing close_notify is a close. */
	(void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_alpn_protos(context, alpn, sizeof(alpn) - 1);
	*ret = context;
	return NULL;
}

/* The certificate must name the host; SNI says which one is meant, but addresses are no names there (RFC 6066, 3). */
static struct err *expect_name(SSL *ssl, const char *name)
{
	uint8_t address[sizeof(struct in6_addr)];
	bool is_address = inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;

	if (is_address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1 ? NULL : err_nomem();
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (SSL_set1_host(ssl, name) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1)
		return err_new(ERR_INVALID, "tls: \"%s\" is no name of a host", name);
	return NULL;
}

/* ---- the handshake ---- */

/* What OpenSSL has to say, kept in tls->why. */
static void note_why(struct net_tls_client *tls)
{
	long verified = SSL_get_verify_result(tls->ssl);
	unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	if (verified != X509_V_OK)
		(void)snprintf(tls->why, sizeof(tls->why), "the certificate is refused: %s", X509_verify_cert_error_string(verified));
	else
		(void)snprintf(tls->why, sizeof(tls->why), "%s", reason ? reason : "");
	ERR_clear_error();
	tls->failed = true;
}

static struct err *wait_for(struct net_tls_client *tls, int wanted, uint64_t deadline_ns)
{
	uint64_t now = net_now_ns();
	uint64_t left_ms = deadline_ns > now ? (deadline_ns - now) / 1000000 + 1 : 0;
	struct pollfd poller = {.fd = tls->fd, .events = wanted == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};

	if (left_ms == 0)
		return err_new(ERR_PEER, "tls: no handshake in time");
	int n = poll(&poller, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
	return n < 0 && errno != EINTR ? err_os(errno, "poll") : NULL;
}

static struct err *shake_hands(struct net_tls_client *tls, uint64_t deadline_ns)
{
	for (;;) {
		ERR_clear_error();
		int code = SSL_connect(tls->ssl);
		if (code == 1)
			return NULL;
		int wanted = SSL_get_error(tls->ssl, code);
		if (wanted != SSL_ERROR_WANT_READ && wanted != SSL_ERROR_WANT_WRITE) {
			note_why(tls);
			return err_new(ERR_PEER, "tls: %s", tls->why[0] ? tls->why : "the server closed the connection");
		}
		TRY(wait_for(tls, wanted, deadline_ns));
	}
}

static struct err *check_protocol(const struct net_tls_client *tls)
{
	const unsigned char *protocol = NULL;
	unsigned len = 0;

	SSL_get0_alpn_selected(tls->ssl, &protocol, &len);
	if (len == 2 && memcmp(protocol, "h2", 2) == 0)
		return NULL;
	return err_new(ERR_PEER, "tls: the server does not agree to HTTP/2 (ALPN)");
}

static struct err *connect_tls(struct net_tls_client *tls, const struct net_grpc_client_tls *options, const char *host, uint64_t deadline_ns)
{
	TRY(create_context(options, &tls->context));
	tls->ssl = SSL_new(tls->context);
	if (!tls->ssl)
		return err_nomem();
	TRY(create_bio(tls));
	TRY(expect_name(tls->ssl, options->server_name ? options->server_name : host));
	TRY(shake_hands(tls, deadline_ns));
	return check_protocol(tls);
}

struct err *net_tls_client_create(const struct net_grpc_client_tls *options, const char *host, int fd, uint64_t deadline_ns,
	struct net_tls_client **ret)
{
	struct net_tls_client *tls = calloc(1, sizeof(*tls));

	if (!tls)
		return err_nomem();
	tls->fd = fd;
	struct err *e = connect_tls(tls, options, host, deadline_ns);
	if (e) {
		net_tls_client_destroy(tls);
		return e;
	}
	*ret = tls;
	return NULL;
}

struct err *net_tls_client_check(const struct net_grpc_client_tls *options)
{
	SSL_CTX *context = NULL;

	TRY(create_context(options, &context));
	SSL_CTX_free(context);
	return NULL;
}

void net_tls_client_destroy(struct net_tls_client *tls)
{
	if (!tls)
		return;
	if (tls->ssl && !tls->failed && SSL_is_init_finished(tls->ssl))
		(void)SSL_shutdown(tls->ssl);
	ERR_clear_error();
	SSL_free(tls->ssl);
	SSL_CTX_free(tls->context);
	BIO_meth_free(tls->method);
	free(tls);
}

/* ---- bytes ---- */

static ssize_t result(struct net_tls_client *tls, int code)
{
	switch (SSL_get_error(tls->ssl, code)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		note_why(tls);
		errno = EPROTO;
		return -1;
	}
}

static int int_len(size_t len)
{
	return len > INT_MAX ? INT_MAX : (int)len;
}

ssize_t net_tls_client_recv(struct net_tls_client *tls, void *bytes, size_t len)
{
	ERR_clear_error();
	int n = SSL_read(tls->ssl, bytes, int_len(len));
	return n > 0 ? n : result(tls, n);
}

ssize_t net_tls_client_send(struct net_tls_client *tls, const void *bytes, size_t len)
{
	ERR_clear_error();
	int n = SSL_write(tls->ssl, bytes, int_len(len));
	return n > 0 ? n : result(tls, n);
}

const char *net_tls_client_why(const struct net_tls_client *tls)
{
	return tls->why;
}

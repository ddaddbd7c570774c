// SPDX-License-Identifier: Apache-2.0
#include "net/tls.h"

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

struct err *net_tls_error(const char *what, const char *file)
{
	char text[160];
	unsigned long code = ERR_get_error();

	ERR_error_string_n(code, text, sizeof(text));
	ERR_clear_error();
	return err_new(ERR_INVALID, "tls: %s %s: %s", what, file, code ? text : "failed");
}

/* h2 where the client offers it, else http/1.1; a client that offers neither is let in without ALPN (the first bytes tell). */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg)
{
	static const unsigned char ours[] = "\x02h2\x08http/1.1";

	(void)ssl;
	(void)arg;
	/* OpenSSL's out is not const, for no reason. */
	int found = SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, ours, sizeof(ours) - 1, in, in_len);
	return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

struct err *net_tls_load_pair(struct ssl_ctx_st *tls, const char *certificate_file, const char *key_file)
{
	if (SSL_CTX_use_certificate_chain_file(tls, certificate_file) != 1)
		return net_tls_error("certificate", certificate_file);
	if (SSL_CTX_use_PrivateKey_file(tls, key_file, SSL_FILETYPE_PEM) != 1)
		return net_tls_error("key", key_file);
	if (SSL_CTX_check_private_key(tls) != 1)
		return net_tls_error("key", key_file);
	return NULL;
}

static struct err *load_files(SSL_CTX *tls, const struct net_tls_options *options)
{
	TRY(net_tls_load_pair(tls, options->certificate_file, options->key_file));
	if (!options->client_ca_file)
		return NULL;
	if (SSL_CTX_load_verify_locations(tls, options->client_ca_file, NULL) != 1)
		return net_tls_error("client CA", options->client_ca_file);
	SSL_CTX_set_client_CA_list(tls, SSL_load_client_CA_file(options->client_ca_file));
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return NULL;
}

struct err *net_tls_create(const struct net_tls_options *options, struct ssl_ctx_st **ret)
{
	static const unsigned char session_context[] = "cairn";
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());

	if (!tls)
		return err_nomem();
	struct err *e = load_files(tls, options);
	if (e) {
		SSL_CTX_free(tls);
		return e;
	}
	(void)SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
	(void)SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	(void)SSL_CTX_set_session_id_context(tls, session_context, sizeof(session_context) - 1);
	SSL_CTX_set_alpn_select_cb(tls, on_alpn, NULL);
	*ret = tls;
	return NULL;
}

struct ssl_ctx_st *net_tls_ref(struct ssl_ctx_st *tls)
{
	if (tls)
		(void)SSL_CTX_up_ref(tls);
	return tls;
}

void net_tls_unref(struct ssl_ctx_st *tls)
{
	SSL_CTX_free(tls);
}

struct bufferevent *net_tls_bufferevent(struct ssl_ctx_st *tls, struct event_base *base, int fd)
{
	SSL *ssl = SSL_new(tls);

	if (!ssl)
		return NULL;
	struct bufferevent *bev =
		bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
	if (!bev) {
		SSL_free(ssl);
		return NULL;
	}
	/* HTTP says itself where a message ends: a missing close_notify is a close. */
	bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	return bev;
}

void net_tls_close_notify(struct bufferevent *bev)
{
	SSL *ssl = bufferevent_openssl_get_ssl(bev);

	if (ssl && SSL_is_init_finished(ssl))
		(void)SSL_shutdown(ssl);
	ERR_clear_error();
}

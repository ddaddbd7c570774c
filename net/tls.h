// SPDX-License-Identifier: Apache-2.0
/*
 * TLS by OpenSSL, as far as the connection layer needs it; the client's side is tls_client.h. Internal to net/.
 */
#ifndef CAIRN_NET_TLS_H
#define CAIRN_NET_TLS_H

#include "net/server.h"

struct bufferevent;
struct event_base;
struct ssl_ctx_st;

/** ERR_INVALID with the last error of OpenSSL in this thread, which is forgotten then: "tls: key a.pem: ..". */
struct err *net_tls_error(const char *what, const char *file) MUST_USE;
/** Gives the context a certificate chain and its key; both sides need it. ERR_INVALID as below. */
struct err *net_tls_load_pair(struct ssl_ctx_st *tls, const char *certificate_file, const char *key_file) MUST_USE;

/** ERR_INVALID: a file cannot be read, or the key does not fit. */
struct err *net_tls_create(const struct net_tls_options *options, struct ssl_ctx_st **ret) MUST_USE;
struct ssl_ctx_st *net_tls_ref(struct ssl_ctx_st *tls);
/** NULL is fine. */
void net_tls_unref(struct ssl_ctx_st *tls);

/** A bufferevent that shakes hands as the server and owns @p fd; NULL when memory is out (fd is then still the caller's). */
struct bufferevent *net_tls_bufferevent(struct ssl_ctx_st *tls, struct event_base *base, int fd);
/** Tells the peer that nothing more will be sent. */
void net_tls_close_notify(struct bufferevent *bev);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * TLS by OpenSSL for the client half: a non-blocking socket that speaks it, read and written as recv(2) and send(2) would.
 * The server's certificate is always verified. Internal to net/.
 */
#ifndef CAIRN_NET_TLS_CLIENT_H
#define CAIRN_NET_TLS_CLIENT_H

#include "net/grpc_client.h"

#include <sys/types.h>

struct net_tls_client;

/**
 * Shakes hands on @p fd (borrowed, connected, non-blocking) with ALPN h2 and waits for it until @p deadline_ns of net_now_ns.
 * @p host: of the address, the name that is verified unless the options give another.
 * @return NULL; ERR_INVALID: a file cannot be read, or the key does not fit; ERR_PEER: the certificate is not trusted or is for
 * another name, the server speaks no TLS or no h2, no time; ERR_NOMEM.
 */
struct err *net_tls_client_create(const struct net_grpc_client_tls *options, const char *host, int fd, uint64_t deadline_ns,
	struct net_tls_client **ret) MUST_USE;
/** Whether the files can be used, as they are now. ERR_INVALID, ERR_NOMEM. */
struct err *net_tls_client_check(const struct net_grpc_client_tls *options) MUST_USE;
/** Says goodbye if it can. NULL is fine. */
void net_tls_client_destroy(struct net_tls_client *tls);

/** As recv(2): 0 at the peer's end, -1 and errno: EAGAIN, or EPROTO for what net_tls_client_why says. */
ssize_t net_tls_client_recv(struct net_tls_client *tls, void *bytes, size_t len);
/** As send(2); the bytes of a call that was EAGAIN must come again first. */
ssize_t net_tls_client_send(struct net_tls_client *tls, const void *bytes, size_t len);
/** After EPROTO: what went wrong, one line; "" when nothing is known. */
const char *net_tls_client_why(const struct net_tls_client *tls);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The client half of gRPC: one connection (HTTP/2 with prior knowledge, or TLS with ALPN), any number of calls with any number of messages
 * each way. Nothing happens but in net_grpc_client_run, which waits for the socket, moves bytes and calls back; a program with
 * a loop of its own waits for net_grpc_client_fd instead and runs with a timeout of 0. One thread at a time.
 *
 *     TRY(net_grpc_client_connect("127.0.0.1:4317", &options, &client));
 *     TRY(net_grpc_client_open(client, "/cairn.v1.Agent/Stream", &ops, user, &call));
 *     TRY(net_grpc_client_send(call, bytes, len));
 *     while (..)
 *             TRY(net_grpc_client_run(client, 1000));      // ERR_PEER: the connection is gone, every call has had its on_end
 */
#ifndef CAIRN_NET_GRPC_CLIENT_H
#define CAIRN_NET_GRPC_CLIENT_H

#include "net/grpc.h"

struct net_grpc_client;
struct net_grpc_client_call;

/* Files are PEM and read at each connect, so that they may be renewed. The server's certificate is always verified. */
struct net_grpc_client_tls {
	const char *ca_file;	      /* whom to trust; NULL: the authorities of the system */
	const char *certificate_file; /* shown to the server, a chain; NULL: none */
	const char *key_file;	      /* of the certificate */
	const char *server_name;      /* what the server's certificate must be for; NULL: the host of the address */
};

struct net_grpc_client_options {
	uint64_t connect_timeout_ms; /* 0: 5 s */
	uint64_t message_max;	     /* bytes of a message received; past it the call ends RESOURCE_EXHAUSTED. 0: 64 MiB */
	const char *user_agent;	     /* NULL: "cairn/<version>"; borrowed */
	int gzip_level;		     /* messages are compressed with it; 0: not */
	const struct net_grpc_client_tls *tls; /* NULL: plain; borrowed for the connect */
};

struct net_grpc_client_ops {
	/** One message; borrowed for the call. May send, open, half-close; not destroy. */
	void (*on_message)(void *user, const uint8_t *bytes, size_t len);
	/**
	 * Once, the last: the status that the server gave, or what gRPC makes of an HTTP status without one, or UNAVAILABLE when the
	 * connection went. The call is freed after it.
	 */
	void (*on_end)(void *user, enum net_grpc_status status, const char *message);
};

/**
 * Connects and waits for it. @p address as net_server_listen takes it, with a host.
 * @return NULL; ERR_INVALID: malformed, or a file of TLS cannot be used; ERR_PEER: no such host, nobody listens, not within the time, not
 * whom we trust ("host:port: tls: the certificate is refused: hostname mismatch"); ERR_OS; ERR_NOMEM.
 */
struct err *net_grpc_client_connect(const char *address, const struct net_grpc_client_options *options,
	struct net_grpc_client **ret) MUST_USE;
/**
 * Whether net_grpc_client_connect could do with these at all: the address is one, and the files of TLS can be used. Asks nobody.
 * @return NULL; ERR_INVALID, one line; ERR_NOMEM.
 */
struct err *net_grpc_client_check(const char *address, const struct net_grpc_client_options *options) MUST_USE;
/** Closes; calls that are open end without on_end. NULL is fine. */
void net_grpc_client_destroy(struct net_grpc_client *client);
/** For CLEANUP. */
void net_grpc_client_destroyp(struct net_grpc_client **client);

/** Opens a call. @p path: "/package.Service/Method"; @p ops borrowed. ERR_PEER: the server takes no more calls. */
struct err *net_grpc_client_open(struct net_grpc_client *client, const char *path, const struct net_grpc_client_ops *ops, void *user,
	struct net_grpc_client_call **ret) MUST_USE;
/** Queues a message (copied). It is on its way when net_grpc_client_run says so: watch net_grpc_client_queued. */
struct err *net_grpc_client_send(struct net_grpc_client_call *call, const void *bytes, size_t len) MUST_USE;
/**
 * In on_end: after which pause the server would like to be asked again: google.rpc.RetryInfo, or a proxy's `retry-after`. False: it said
 * nothing of it. The number is a stranger's; bound it.
 */
bool net_grpc_client_retry_ms(const struct net_grpc_client_call *call, uint64_t *retry_ms_ret);
/** Bytes that wait for the server's flow control and for the socket. */
size_t net_grpc_client_queued(const struct net_grpc_client_call *call);
/** No more messages will come from here. */
void net_grpc_client_half_close(struct net_grpc_client_call *call);

/**
 * Sends what may be sent and receives what is there, a few MiB at most; waits at most @p timeout_ms (-1: without end) for the first of it.
 * @return NULL; ERR_PEER: the connection is gone, or the server broke the protocol; then only destroy is left.
 */
struct err *net_grpc_client_run(struct net_grpc_client *client, int timeout_ms) MUST_USE;
/** For poll(2): POLLIN always, POLLOUT when net_grpc_client_wants_write. */
int net_grpc_client_fd(const struct net_grpc_client *client);
bool net_grpc_client_wants_write(const struct net_grpc_client *client);

/** Bytes on the wire so far: HTTP/2 with all its frames, without what TLS adds. */
void net_grpc_client_bytes(const struct net_grpc_client *client, uint64_t *sent_ret, uint64_t *received_ret);

#endif

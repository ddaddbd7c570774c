// SPDX-License-Identifier: Apache-2.0
/*
 * One connection: a bufferevent, its deadlines, and the protocol that its first bytes (or ALPN) chose. Internal to net/;
 * loop thread only.
 */
#ifndef CAIRN_NET_CONN_H
#define CAIRN_NET_CONN_H

#include "base/buf.h"
#include "net/core.h"
#include "net/exchange.h"

struct bufferevent;
struct net_conn;
struct ssl_ctx_st;

/* What a connection waits for from its peer; each has its timeout in struct net_limits. */
enum net_wait {
	NET_WAIT_NOTHING,
	NET_WAIT_HEAD,
	NET_WAIT_BODY,
	NET_WAIT_IDLE,
	NET_WAIT_PEER, /* HTTP/2: any sign of life, as long as for a body */
	NET_WAIT_LINGER,
};

struct net_protocol {
	/** Makes conn->state. */
	struct err *(*open)(struct net_conn *conn) MUST_USE;
	/** Takes what it can of the bytes; how many. Taking none means: not now. */
	size_t (*on_bytes)(struct net_conn *conn, const uint8_t *bytes, size_t len);
	/** All that is there was offered: sets the wait, goes on with writing. */
	void (*on_settled)(struct net_conn *conn);
	/** The output has fallen to NET_OUTPUT_LOW or below. */
	void (*on_room)(struct net_conn *conn);
	void (*on_eof)(struct net_conn *conn);
	void (*on_timeout)(struct net_conn *conn, enum net_wait what);
	/** The server stops: no more requests after those that have begun. */
	void (*on_drain)(struct net_conn *conn);
	/** Aborts its requests and frees conn->state. */
	void (*close)(struct net_conn *conn);
};

extern const struct net_protocol net_protocol_http1;
extern const struct net_protocol net_protocol_h2;

enum {
	NET_INPUT_HIGH = 64 * 1024,   /* the socket is not read while this much waits */
	NET_OUTPUT_HIGH = 256 * 1024, /* past it writers are asked to wait */
	NET_OUTPUT_LOW = 64 * 1024,
};

struct net_conn {
	struct net_shard *shard;
	struct net_conn *prev, *next;
	struct bufferevent *bev;
	const struct net_protocol *protocol; /* NULL until the first bytes tell */
	void *state;			     /* the protocol's */
	char peer[NET_PEER_TEXT_SIZE];
	struct net_peer_key peer_key;
	bool tls;
	bool connected; /* under TLS: the handshake is done */

	unsigned busy; /* callbacks on the stack: the connection is freed when the last one returns */
	bool dead;     /* to be freed */
	bool finishing, linger, lingering;
	bool eof;
	bool writes_enabled;
	bool wants_room; /* on_room is to be called when the output has fallen */

	enum net_wait wait;
	uint64_t read_deadline_ns, write_deadline_ns; /* 0: none */
	uint64_t stall_deadline_ns;		      /* HTTP/2: streams have data but no credit; 0: none */
	uint64_t timer_at_ns;			      /* 0: not armed */
	struct event *timer;
	uint64_t protocol_bytes; /* held by the protocol: streams' queues and bodies of paused requests */
	uint64_t charged;
};

/** What the accepting loop hands over. */
struct net_accepted {
	struct net_post post;
	struct net_shard *shard;
	int fd;
	struct net_peer_key peer_key;
	char peer[NET_PEER_TEXT_SIZE];
	struct ssl_ctx_st *tls; /* NULL: plain; a reference */
};

/** Opens the connection in its loop; consumes @p accepted. The net_post.run of struct net_accepted. */
void net_conn_accept_post(struct net_post *post);
/** Closes what is idle, lets the rest finish; the loop ends with the last connection. */
void net_conn_drain_all(struct net_shard *shard);
/** Breaks off all. */
void net_conn_kill_all(struct net_shard *shard);

/* ---- for the protocols ---- */

/** Around work that was not begun by the connection itself (a deferred answer): frees and flushes at the end. */
void net_conn_enter(struct net_conn *conn);
void net_conn_leave(struct net_conn *conn);
/** Copies. Out of memory kills the connection. */
void net_conn_write(struct net_conn *conn, const void *bytes, size_t len);
/** Hands over. */
void net_conn_write_take(struct net_conn *conn, struct buf *take_buf);
/** Writes now what the socket takes. */
void net_conn_flush(struct net_conn *conn);
size_t net_conn_output(const struct net_conn *conn);
size_t net_conn_input(const struct net_conn *conn);
/** Starts the timeout of @p what now, unless that is what is waited for already and @p again is false. */
void net_conn_wait(struct net_conn *conn, enum net_wait what, bool again);
/** Closes when all is written; @p linger: then waits a little for the peer to read it, since it is still sending. */
void net_conn_finish(struct net_conn *conn, bool linger);
/** Closes at once. */
void net_conn_kill(struct net_conn *conn);

#endif

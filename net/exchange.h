// SPDX-License-Identifier: Apache-2.0
/*
 * The seam between a request (request.c) and the protocol that carries it (conn_http1.c, conn_h2.c). Internal to net/;
 * loop thread only.
 *
 * The transport creates the request, reports its body and its fate, and holds one reference until the reply is complete or
 * the request is aborted. Any of the request_* calls below may run the handler, which may reply at once: the transport
 * looks at its own `request` pointer again after each. transport->reply (whole), ->end and ->reset set that pointer to NULL.
 */
#ifndef CAIRN_NET_EXCHANGE_H
#define CAIRN_NET_EXCHANGE_H

#include "base/codec.h"
#include "net/core.h"
#include "net/head.h"
#include "net/router.h"

struct net_transport {
	/** The handler wants the body: answer 100-continue if that was asked. */
	void (*start_body)(void *exchange);
	/** Sends the head and @p take_reply->body; @p whole: that is all. Consumes the buffers. */
	void (*reply)(void *exchange, struct net_reply *take_reply, bool whole);
	/** One more piece, consumed; false when no more is wanted before request_writable. */
	bool (*write)(void *exchange, struct buf *take_piece);
	/** Ends a reply that was begun; @p take_trailers may be NULL. */
	void (*end)(void *exchange, struct net_reply *take_trailers);
	/** Breaks the exchange off. */
	void (*reset)(void *exchange);
	/** request->paused has changed. */
	void (*paused)(void *exchange);
};

enum { NET_PEER_TEXT_SIZE = 64 };

enum net_reply_state { NET_REPLY_NONE, NET_REPLY_BEGUN, NET_REPLY_DONE };

struct net_request {
	_Atomic uint32_t refs;
	_Atomic bool gone; /* set once by the loop (release), read by any (acquire) */
	struct net_queue *queue;
	struct net_core *core; /* lives as long as queue */

	/* loop thread; NULL once detached */
	struct net_shard *shard;
	const struct net_transport *transport;
	void *exchange;

	struct net_head head;
	char peer[NET_PEER_TEXT_SIZE];
	uint64_t start_ns;
	const struct net_route *route;
	const char *params[NET_ROUTE_MAX_PARAMS];
	char *param_text;

	const struct net_request_ops *ops; /* NULL until accepted */
	void *user;
	struct net_body_options options;
	bool body_ended;
	bool paused;
	enum net_reply_state reply_state;
	struct codec_stream *decoder;
	struct buf decoded; /* scratch of the decoder */
	uint64_t body_bytes; /* decoded, so far */
	struct buf body;
	uint64_t charged;
	struct event *timer;
};

/** NULL when memory is out: @p take_head is then freed. The caller has the only reference. */
struct net_request *request_create(struct net_shard *shard, const struct net_transport *transport, void *exchange,
	struct net_head *take_head, const char *peer);
/** Hands it to the server's handler. A handler that does neither accept nor reply gets a 500. */
void request_dispatch(struct net_request *request);
/** A piece of the body, as it came (before content decoding). */
void request_body_piece(struct net_request *request, const uint8_t *bytes, size_t len);
void request_body_end(struct net_request *request);
void request_writable(struct net_request *request);
/** The peer went away or the transport gave up: on_abort, and the transport's reference is dropped. */
void request_abort(struct net_request *request);
/** Our own refusal in place of the handler's answer (408, 413, ..): on_abort, then the error is sent, or a reset if a reply had begun. */
void request_fail(struct net_request *request, unsigned status, const char *code, const char *message);


#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * gRPC over HTTP/2: calls with any number of messages each way, on top of net/request.h. Wire: gRPC's PROTOCOL-HTTP2.md.
 *
 * Course of a call, in the loop's thread: on_open, then on_message for each message, on_half_close when the client has sent
 * its last; replies by net_grpc_send at any time and exactly one net_grpc_finish. on_cancel when the client went away, or the
 * deadline passed, before that. on_free once, in whichever thread lets go last.
 *
 * Other threads: net_request_ref, _unref, _is_gone and _post on net_grpc_request(call); net_grpc_call_of in the post.
 */
#ifndef CAIRN_NET_GRPC_H
#define CAIRN_NET_GRPC_H

#include "net/request.h"

struct net_grpc_call;

/* The codes of the protocol. */
enum net_grpc_status {
	NET_GRPC_OK = 0,
	NET_GRPC_CANCELLED = 1,
	NET_GRPC_UNKNOWN = 2,
	NET_GRPC_INVALID_ARGUMENT = 3,
	NET_GRPC_DEADLINE_EXCEEDED = 4,
	NET_GRPC_NOT_FOUND = 5,
	NET_GRPC_ALREADY_EXISTS = 6,
	NET_GRPC_PERMISSION_DENIED = 7,
	NET_GRPC_RESOURCE_EXHAUSTED = 8,
	NET_GRPC_FAILED_PRECONDITION = 9,
	NET_GRPC_ABORTED = 10,
	NET_GRPC_OUT_OF_RANGE = 11,
	NET_GRPC_UNIMPLEMENTED = 12,
	NET_GRPC_INTERNAL = 13,
	NET_GRPC_UNAVAILABLE = 14,
	NET_GRPC_DATA_LOSS = 15,
	NET_GRPC_UNAUTHENTICATED = 16,
};

enum { NET_GRPC_MESSAGE_MAX_DEFAULT = 64 << 20 };

struct net_grpc_method {
	const char *path; /* "/cairn.v1.Symbolizer/Symbolize" */
	bool unary;	  /* exactly one message from the client: on_message is called at its half-close; others fail the call */
	uint64_t message_max; /* bytes of one message, decompressed; past it RESOURCE_EXHAUSTED. 0: 64 MiB */
	/** May finish the call at once. @p user is the dispatch's. */
	void (*on_open)(struct net_grpc_call *call, void *user);
	/** One message; the buffer may be taken (leave it zeroed) or left. */
	void (*on_message)(struct net_grpc_call *call, struct buf *message);
	void (*on_half_close)(struct net_grpc_call *call);
	/** After net_grpc_send returned false. */
	void (*on_writable)(struct net_grpc_call *call);
	/** The time of net_grpc_set_timer has come. */
	void (*on_timer)(struct net_grpc_call *call);
	void (*on_cancel)(struct net_grpc_call *call);
	/** Frees what net_grpc_set_user set (also when that is NULL). Any thread. */
	void (*on_free)(void *user);
};

/** True when the request says that it is gRPC (content type application/grpc..): dispatch it here. */
bool net_grpc_is(const struct net_request *request);
/**
 * From net_handler.on_head. An unknown path is UNIMPLEMENTED, an unknown grpc-encoding too, a malformed grpc-timeout
 * INVALID_ARGUMENT; over HTTP/1.1 505, another method than POST 405. @p methods must outlive the server.
 */
void net_grpc_dispatch(const struct net_grpc_method *methods, size_t count, struct net_request *request, void *user);

void net_grpc_set_user(struct net_grpc_call *call, void *user);
void *net_grpc_user(const struct net_grpc_call *call);
struct net_request *net_grpc_request(const struct net_grpc_call *call);
/** In a net_request_post of a gRPC request. */
struct net_grpc_call *net_grpc_call_of(const struct net_request *request);
/** Milliseconds until the client's deadline; UINT64_MAX when it set none. */
uint64_t net_grpc_time_left_ms(const struct net_grpc_call *call);
/** Calls on_timer once after @p ms unless the call ends before; a second call replaces the first, 0 cancels. Loop thread. */
void net_grpc_set_timer(struct net_grpc_call *call, uint64_t ms);

/** Sends a message (taken). False: the client is slow, wait for on_writable; also once the call is over. */
bool net_grpc_send(struct net_grpc_call *call, struct buf *take_message);
/** Ends the call; @p message is for people, may be NULL. What comes after is ignored. */
void net_grpc_finish(struct net_grpc_call *call, enum net_grpc_status status, const char *message);
/**
 * The same for what may be tried again after @p retry_ms: sends google.rpc.RetryInfo along (grpc-status-details-bin), without
 * which clients take RESOURCE_EXHAUSTED as final.
 */
void net_grpc_finish_retry(struct net_grpc_call *call, enum net_grpc_status status, const char *message, uint32_t retry_ms);
/** Breaks the call off without a status, for a client that reads none: what waits to be sent is dropped. on_cancel does not come. */
void net_grpc_reset(struct net_grpc_call *call);

#endif

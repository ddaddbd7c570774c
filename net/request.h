// SPDX-License-Identifier: Apache-2.0
/*
 * A request and its answer, the same over HTTP/1.1 and HTTP/2.
 *
 * Course of a request, all in the thread of the loop that owns its connection:
 *   1. The server's on_head is called once the head is complete, before any byte of the body. It does ONE of:
 *        net_request_accept(request, ops, user, options)   the body will be collected or streamed
 *        net_request_reply(..) / net_request_error(..)     answers at once; the body is never read
 *   2. ops->on_body for each piece (streamed bodies only), then ops->on_end when the body is complete.
 *   3. A reply, from on_end or at any time before or later: net_request_reply once, or
 *      net_request_reply_begin, any number of _write, and _end. After the reply has begun the body may still arrive.
 *   4. ops->on_abort when the peer went away, or a limit or timeout broke the request off, before the reply
 *      was complete. Nothing that is done with the request afterwards has an effect (replies are freed).
 *   5. ops->on_free once, when the last reference is gone, in whichever thread dropped it.
 *
 * Other threads hold a reference (net_request_ref) and may call only the functions marked "Any thread". All others
 * belong to the loop's thread; net_request_post gets one there.
 */
#ifndef CAIRN_NET_REQUEST_H
#define CAIRN_NET_REQUEST_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct net_request;

enum net_method { NET_GET, NET_HEAD, NET_POST, NET_PUT, NET_PATCH, NET_DELETE, NET_OPTIONS, NET_METHOD_OTHER };

/* What the upper layer does with a request that it has accepted. Any member may be NULL. Loop thread, but on_free. */
struct net_request_ops {
	/** A piece of a streamed body, decoded; @p bytes are borrowed for the call. */
	void (*on_body)(struct net_request *request, const uint8_t *bytes, size_t len);
	/** The body is complete: collected bodies are in net_request_body. */
	void (*on_end)(struct net_request *request);
	/** After net_request_reply_write returned false: there is room again. */
	void (*on_writable)(struct net_request *request);
	/** The time of net_request_set_timer has come. */
	void (*on_timer)(struct net_request *request);
	/** No answer can reach the peer any more. */
	void (*on_abort)(struct net_request *request);
	/** Frees the user pointer of net_request_accept. Any thread. */
	void (*on_free)(void *user);
};

struct net_body_options {
	uint64_t limit; /* decoded bytes of the body; past it 413. 0: no body is allowed */
	bool stream;	/* on_body gets the pieces; otherwise they are collected */
	bool raw;	/* leave Content-Encoding to the handler instead of undoing gzip, deflate and zstd */
};

/**
 * Takes the request on: the body may come. A body that is known to be too long is answered 413 at once, an unknown
 * Content-Encoding 415, and collected bodies past the server's memory 503; on_abort is called then.
 * @p ops is borrowed and must outlive the server. @p user is handed to ops->on_free even on those failures.
 */
void net_request_accept(struct net_request *request, const struct net_request_ops *ops, void *user,
	const struct net_body_options *options);

/* ---- what was asked. Texts are NUL-terminated and live as long as the request. Any thread that holds a reference. ---- */

void *net_request_user(const struct net_request *request);
enum net_method net_request_method(const struct net_request *request);
/** As sent: "POST". */
const char *net_request_method_text(const struct net_request *request);
/** The path before '?', not decoded, begins with '/' (or is "*" for OPTIONS). */
const char *net_request_path(const struct net_request *request);
/** After '?', not decoded; "" when there is none. */
const char *net_request_query(const struct net_request *request);
/** The first header of that name (lower case) or NULL. O(headers). Surrounding blanks are gone. */
const char *net_request_header(const struct net_request *request, const char *lower_name);
/** The i-th header, NULL at the end; its value in @p value_ret. Names are in lower case. */
const char *net_request_header_at(const struct net_request *request, size_t i, const char **value_ret);
/** The i-th {parameter} of the route's pattern, decoded; NULL when there is none. */
const char *net_request_param(const struct net_request *request, size_t i);
/**
 * A query parameter, decoded ('+' is a blank), in @p ret, NUL-terminated.
 * @return NULL, found_ret says whether it is there; ERR_INVALID: malformed, or does not fit @p size.
 */
struct err *net_request_query_get(const struct net_request *request, const char *name, char *ret, size_t size,
	bool *found_ret) MUST_USE;
/** "127.0.0.1:41234", "[::1]:41234". */
const char *net_request_peer(const struct net_request *request);
/** True over HTTP/2, where trailers exist in both directions. */
bool net_request_is_http2(const struct net_request *request);
/** Nanoseconds since the head was complete (CLOCK_MONOTONIC). */
uint64_t net_request_age_ns(const struct net_request *request);
/** The media type without parameters equals @p type ("application/json"), case ignored. */
bool net_request_content_type_is(const struct net_request *request, const char *type);

/* ---- the body. Loop thread; a collected body may be read by any thread that holds a reference once on_end was called. ---- */

/** The collected body. Never NULL. */
const struct buf *net_request_body(const struct net_request *request);
/** Moves the collected body out. Loop thread, from on_end on. */
void net_request_take_body(struct net_request *request, struct buf *ret);
/** No more on_body until net_request_resume: the peer is slowed down by flow control. May be called from on_body. */
void net_request_pause(struct net_request *request);
void net_request_resume(struct net_request *request);

/* ---- the answer ---- */

struct net_reply {
	unsigned status;
	const char *content_type; /* a literal, or NULL */
	struct buf headers;	  /* more header lines: by net_reply_header only */
	struct buf body;	  /* handed over without copying */
};

/** Adds a header. ERR_INVALID when name or value hold bytes that would break the head; ERR_NOMEM. Any thread. */
struct err *net_reply_header(struct net_reply *reply, const char *name, const char *value) MUST_USE;
void net_reply_deinit(struct net_reply *reply);

/** Answers. Takes the buffers of @p reply. A second reply to one request is ignored. Loop thread. */
void net_request_reply(struct net_request *request, struct net_reply *take_reply);
/** As net_request_reply, later, from any thread that holds a reference. Any thread. */
void net_request_reply_post(struct net_request *request, struct net_reply *take_reply);
/** Answers {"error":{"code":"..","message":".."}}. Loop thread. */
void net_request_error(struct net_request *request, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/** The same into a reply, to which headers may be added. Any thread. */
void net_reply_error(struct net_reply *reply, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/** Begins an answer whose body comes in pieces; take_reply->body is the first. Loop thread. */
void net_request_reply_begin(struct net_request *request, struct net_reply *take_reply);
/**
 * One more piece, handed over without copying. False: the peer is slow; write no more until on_writable (what is written
 * all the same is sent, but counts as buffered). Also false once the request is gone. Loop thread.
 */
bool net_request_reply_write(struct net_request *request, struct buf *take_piece);
/** Ends it; @p trailers (as net_reply_header writes them; taken; may be NULL) are sent over HTTP/2 only. Loop thread. */
void net_request_reply_end(struct net_request *request, struct net_reply *take_trailers);
/** Breaks the answer off so that the peer notices (close, RST_STREAM). Loop thread. */
void net_request_reset(struct net_request *request);

/* ---- time and threads ---- */

/** Calls ops->on_timer once after @p ms, unless the request ends before. A second call replaces the first; 0 cancels. Loop thread. */
void net_request_set_timer(struct net_request *request, uint64_t ms);

/** One more reference. Any thread that holds one, or the loop thread. */
struct net_request *net_request_ref(struct net_request *request);
void net_request_unref(struct net_request *request);
/** True once no answer can reach the peer: a worker may stop. Any thread that holds a reference. */
bool net_request_is_gone(const struct net_request *request);
/**
 * Runs @p fn(request, arg) in the loop's thread, exactly once, also when the request is gone by then (ask
 * net_request_is_gone). When the server has stopped it runs in the calling thread, at once, and the request is gone.
 * Holds a reference of its own until fn has returned. One wake-up a batch. Any thread that holds a reference.
 */
void net_request_post(struct net_request *request, void (*fn)(struct net_request *request, void *arg), void *arg);

#endif

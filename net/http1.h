// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/1.1, the server's side, without I/O: bytes in through http1_feed, events out through callbacks, heads and chunk
 * frames of answers out into a buffer. Internal to net/. One thread at a time.
 */
#ifndef CAIRN_NET_HTTP1_H
#define CAIRN_NET_HTTP1_H

#include "net/head.h"

struct http1_events {
	/** The head is complete; the callee takes it (net_head_deinit). */
	void (*on_head)(void *user, struct net_head *take_head);
	/** A piece of the body without its chunk frames; borrowed. */
	void (*on_body)(void *user, const uint8_t *bytes, size_t len);
	/** The request is complete. http1_feed takes no more until http1_next. */
	void (*on_end)(void *user);
};

enum http1_state {
	HTTP1_HEAD,	     /* waits for a head or is within one */
	HTTP1_BODY_LENGTH,   /* `left` more bytes of a body with Content-Length */
	HTTP1_CHUNK_SIZE,    /* first hex digit of a chunk size */
	HTTP1_CHUNK_SIZE_MORE,
	HTTP1_CHUNK_EXT,
	HTTP1_CHUNK_SIZE_LF,
	HTTP1_CHUNK_DATA, /* `left` more bytes of the chunk */
	HTTP1_CHUNK_DATA_CR,
	HTTP1_CHUNK_DATA_LF,
	HTTP1_TRAILER,
	HTTP1_DONE,   /* complete; waits for http1_next */
	HTTP1_FAILED, /* `error_status` says why; takes no more bytes */
};

enum http1_reply_framing {
	HTTP1_REPLY_NONE,   /* no body: HEAD, 204, 304 */
	HTTP1_REPLY_LENGTH, /* Content-Length */
	HTTP1_REPLY_CHUNKED,
	HTTP1_REPLY_CLOSE, /* until the connection is closed: an HTTP/1.0 client */
};

struct http1 {
	const struct http1_events *events;
	void *user;
	size_t head_bytes_max;
	size_t head_count_max;

	enum http1_state state;
	bool paused; /* set by the owner at any time: http1_feed stops before the next piece of a body */
	struct buf line_bytes;	 /* a head or trailer section that came in several pieces */
	size_t section_bytes;	 /* of the head or trailer section so far */
	size_t line_len;	 /* of the present line so far */
	bool section_begun;	 /* a line that is not empty was seen */
	unsigned blank_lines;	 /* before the request line */
	uint64_t left;		 /* see enum http1_state */
	unsigned line_limit;	 /* bytes of the present chunk size line so far */
	char last_byte;		 /* of the present line so far */

	/* of the request at hand, valid from on_head until http1_next */
	bool keep_alive; /* what the client wants; the owner may clear it */
	bool is_head;	 /* the method is HEAD */
	bool old;	 /* HTTP/1.0 */
	enum http1_reply_framing reply_framing;

	unsigned error_status;	  /* HTTP1_FAILED: 400, 431, 501, 505; 500: out of memory */
	const char *error_reason; /* HTTP1_FAILED: a literal for people */
};

void http1_init(struct http1 *h, const struct http1_events *events, void *user, size_t head_bytes_max,
	size_t head_count_max);
void http1_deinit(struct http1 *h);

/**
 * Takes bytes. Stops early at the end of a request, on pause and on failure.
 * @return how many were taken. Amortized O(len).
 */
size_t http1_feed(struct http1 *h, const uint8_t *bytes, size_t len);
/** The answer is written: on to the next request. State must be HTTP1_DONE. */
void http1_next(struct http1 *h);
/** No byte of the next request has come. */
bool http1_is_idle(const struct http1 *h);

enum { HTTP1_DATE_SIZE = 30 };

/**
 * Writes the head of the answer and decides its framing. Only after on_head (or on failure, for the error's answer).
 * @param length  bytes of the whole body, or -1 when it will come in pieces of unknown number
 * @param date    "Sun, 06 Nov 1994 08:49:37 GMT"
 */
struct err *http1_write_head(struct http1 *h, const struct net_reply *reply, int64_t length, const char *date,
	struct buf *out) MUST_USE;
/** Writes what stands before a piece of @p len > 0 bytes; HTTP1_CHUNKED only. After the piece comes "\r\n". */
struct err *http1_write_chunk_head(size_t len, struct buf *out) MUST_USE;

#define HTTP1_CHUNK_TAIL "\r\n"
#define HTTP1_LAST_CHUNK "0\r\n\r\n"
#define HTTP1_CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

#endif

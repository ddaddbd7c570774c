// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/2, the server's side, without I/O: nghttp2's session with our limits, our heads, and a queue of pieces a stream.
 * Bytes in through h2_feed, bytes out through h2_pull, events through callbacks. Internal to net/. One thread at a time.
 */
#ifndef CAIRN_NET_H2_H
#define CAIRN_NET_H2_H

#include "net/head.h"

struct h2;
struct h2_piece;

struct h2_stream {
	struct h2 *h2;
	struct h2_stream *prev, *next; /* in h2->streams */
	int32_t id;
	void *user; /* the owner's */

	/* the head while it arrives: name NUL value NUL .. */
	struct buf text;
	size_t field_count;
	bool head_done;
	unsigned refuse; /* a status: the head passed a limit or makes no sense */
	bool remote_ended;
	bool is_head;

	/* the answer */
	struct h2_piece *first, **last; /* pieces not sent yet */
	size_t queued;			/* bytes in them */
	bool reply_begun, reply_ended;
	bool idle;	  /* nghttp2 waits for more pieces */
	bool wants_room;  /* on_room when queued has fallen */
	struct buf trailers; /* "name: value\r\n" lines */
	bool has_trailers;
	bool end_sent;	  /* the answer's last frame is on its way */
	bool stop_at_end; /* h2_stop as soon as the answer's last frame is sent */
};

struct h2_events {
	void (*on_head)(void *user, struct h2_stream *stream, struct net_head *take_head);
	/** A piece of the body. The owner gives credit back with h2_consumed, now or later. */
	void (*on_body)(void *user, struct h2_stream *stream, const uint8_t *bytes, size_t len);
	void (*on_end)(void *user, struct h2_stream *stream);
	/** The stream's queue has room again. */
	void (*on_room)(void *user, struct h2_stream *stream);
	/** The stream is gone in both directions, or was reset; it is freed after the call. */
	void (*on_closed)(void *user, struct h2_stream *stream);
};

struct h2_limits {
	uint32_t streams;   /* at once */
	size_t head_bytes;  /* names and values; past it 431 */
	size_t head_count;
	uint64_t requests;  /* then GOAWAY */
};

enum {
	H2_STREAM_HIGH = 256 * 1024, /* a stream's queue: writers wait above it */
	H2_STREAM_LOW = 64 * 1024,
	H2_STREAM_WINDOW = 1024 * 1024, /* what a client may send on a stream without credit */
	H2_CONNECTION_WINDOW = 8 * 1024 * 1024,
};

struct err *h2_create(const struct h2_limits *limits, const struct h2_events *events, void *user, struct h2 **ret) MUST_USE;
/** Calls on_closed for each stream that is left. */
void h2_destroy(struct h2 *h2);

/** Takes all bytes. False when the connection must end (what h2_pull still gives says why to the peer). */
bool h2_feed(struct h2 *h2, const uint8_t *bytes, size_t len);
/** The next bytes to send, borrowed until the next call; 0 when there are none. May call on_room. */
size_t h2_pull(struct h2 *h2, const uint8_t **ret);
/** Nothing will be read or written any more. */
bool h2_is_over(const struct h2 *h2);
size_t h2_stream_count(const struct h2 *h2);
/** Bytes in the queues of all streams. */
size_t h2_queued(const struct h2 *h2);
/** Bytes of bodies sent so far: grows while peers give credit. */
uint64_t h2_sent(const struct h2 *h2);
/** Each stream in turn; NULL ends. Streams must not close meanwhile. */
struct h2_stream *h2_next_stream(const struct h2 *h2, const struct h2_stream *after);

/** No streams after those that have begun. */
void h2_goaway(struct h2 *h2);
/** Takes @p credit off the count of frames that move nothing (see h2.c): the owner calls it as time passes. */
void h2_calm(struct h2 *h2, unsigned credit);
/** Sends a PING; false while one is unanswered. */
bool h2_ping(struct h2 *h2);

/* ---- of a stream ---- */

/** Gives the client credit for @p len more bytes of the body. */
void h2_consumed(struct h2_stream *stream, size_t len);
/** The same for the connection alone: the stream's own credit is kept back while its reader is paused. */
void h2_consumed_connection(struct h2_stream *stream, size_t len);
void h2_consumed_stream(struct h2_stream *stream, size_t len);
void h2_continue(struct h2_stream *stream);
/** The head of the answer; its body (taken) is the first piece; @p whole: there is no more. ERR_NOMEM, ERR_INTERNAL. */
struct err *h2_reply(struct h2_stream *stream, struct net_reply *take_reply, bool whole, const char *date) MUST_USE;
/** One more piece. False when the stream's queue is full: wait for on_room. */
bool h2_write(struct h2_stream *stream, struct buf *take_piece);
/** Ends the answer; the trailers' header lines are taken. */
void h2_end(struct h2_stream *stream, struct buf *take_trailers);
/** Breaks the answer off. */
void h2_reset(struct h2_stream *stream);
/** Tells a client that still sends to stop, as soon as the answer's last frame is on its way. */
void h2_stop(struct h2_stream *stream);

#endif

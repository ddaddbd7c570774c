// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/2 (RFC 9113) on nghttp2's session, which does frames, HPACK, windows and the rules of HTTP messages.
 * What is added here: heads as the rest of net/ knows them, limits, a queue of pieces a stream, and defences:
 *
 *   huge heads           counted field by field; past the limit the fields are dropped and the stream answered 431
 *   endless CONTINUATION nghttp2's own limit (8)
 *   rapid reset          nghttp2's rate limit on RST_STREAM (CVE-2023-44487), and the noise count
 *   PING, SETTINGS flood nghttp2's bound on unsent answers, and the noise count
 *   empty frames         the noise count
 *   window games         queues are bounded (H2_STREAM_HIGH) and the owner closes when h2_sent stands still (conn_h2.c)
 *
 * Noise is a frame that moves no request forward (PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, empty DATA). Each
 * adds to a count that payload either way, completed heads and time (h2_calm) reduce; past NOISE_MAX the connection ends with ENHANCE_YOUR_CALM.
 *
 * Flow control inwards is by hand: the owner gives credit when its reader has taken the bytes. The connection's credit is given
 * at once, so that one paused stream does not stop the others; the stream's own window bounds what it can hold.
 *
 * An answer may end before the request does. RST_STREAM(NO_ERROR) right behind it is what the RFC offers (9113, 8.1), but curl 7.88
 * loses the answer then, and grpc-js 1.13 on node 20 too; grpcio 1.51 takes one that comes later for an error. So the stream
 * gets no more credit, and the owner calls h2_stop when a client that is not gRPC goes on all the same.
 */
#include "net/h2.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
	NOISE_MAX = 10000,
	NOISE_RESET = 10,     /* what one RST_STREAM counts */
	NOISE_HEAD_CREDIT = 5,
	NOISE_DATA_CREDIT = 1,
	NOISE_SENT_BYTES = 512, /* sent for a credit of one: who reads much sends many WINDOW_UPDATEs */
	RESET_BURST = 1000, /* RST_STREAMs at once, then RESET_RATE a second */
	RESET_RATE = 100,
	REPLY_FIELDS_MAX = 64,
};

struct h2_piece {
	struct h2_piece *next;
	struct buf bytes;
	size_t sent;
};

struct h2 {
	nghttp2_session *session;
	struct h2_limits limits;
	const struct h2_events *events;
	void *user;
	struct h2_stream *streams;
	size_t stream_count, queued;
	uint64_t sent, requests;
	size_t sent_since; /* the last credit for it */
	unsigned noise;
	bool going_away, ping_sent, failed;
};

/* ---- streams ---- */

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session, id);
}

static void free_pieces(struct h2_stream *stream)
{
	while (stream->first) {
		struct h2_piece *piece = stream->first;
		stream->first = piece->next;
		buf_deinit(&piece->bytes);
		free(piece);
	}
	stream->last = &stream->first;
	stream->h2->queued -= stream->queued;
	stream->queued = 0;
}

static void stream_free(struct h2_stream *stream)
{
	struct h2 *h2 = stream->h2;

	free_pieces(stream);
	if (stream->prev)
		stream->prev->next = stream->next;
	else
		h2->streams = stream->next;
	if (stream->next)
		stream->next->prev = stream->prev;
	h2->stream_count--;
	buf_deinit(&stream->text);
	buf_deinit(&stream->trailers);
	free(stream);
}

static struct h2_stream *stream_create(struct h2 *h2, int32_t id)
{
	struct h2_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	stream->h2 = h2;
	stream->id = id;
	stream->last = &stream->first;
	stream->next = h2->streams;
	if (stream->next)
		stream->next->prev = stream;
	h2->streams = stream;
	h2->stream_count++;
	return stream;
}

/* ---- heads ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h2 = user;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	struct h2_stream *stream = stream_create(h2, frame->hd.stream_id);
	if (!stream)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream) != 0) {
		stream_free(stream);
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
	const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream = stream_of(session, frame->hd.stream_id);

	(void)flags;
	/* Trailers of requests are dropped. */
	if (!stream || stream->head_done || stream->refuse)
		return 0;
	if (memchr(name, 0, name_len) || memchr(value, 0, value_len)) {
		stream->refuse = 400;
		return 0;
	}
	/* 32 a field, as HPACK and SETTINGS_MAX_HEADER_LIST_SIZE count (RFC 9113, 6.5.2). */
	if (stream->field_count >= h2->limits.head_count ||
		stream->text.len + name_len + value_len + 32 * (stream->field_count + 1) > h2->limits.head_bytes) {
		stream->refuse = 431;
		return 0;
	}
	struct err *e = buf_reserve(&stream->text, name_len + value_len + 2);
	if (e) {
		err_free(e);
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	memcpy(stream->text.data + stream->text.len, name, name_len);
	stream->text.data[stream->text.len + name_len] = 0;
	memcpy(stream->text.data + stream->text.len + name_len + 1, value, value_len);
	stream->text.data[stream->text.len + name_len + 1 + value_len] = 0;
	stream->text.len += name_len + value_len + 2;
	stream->field_count++;
	return 0;
}

static bool text_is_visible(const char *text)
{
	for (const char *c = text; *c; c++)
		if (*c < 0x21 || *c > 0x7e || *c == '#')
			return false;
	return true;
}

static bool target_is_good(const struct net_head *head)
{
	if (!text_is_visible(head->path) || !text_is_visible(head->query))
		return false;
	return head->path[0] == '/' || (strcmp(head->path, "*") == 0 && head->method == NET_OPTIONS);
}

static bool parse_length(const char *text, uint64_t *ret)
{
	uint64_t number = 0;
	size_t len = strlen(text);

	if (len == 0 || len > 18)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		number = number * 10 + (uint64_t)(text[i] - '0');
	}
	*ret = number;
	return true;
}

/* One field into the head; pseudo-headers into their places. False when it makes no sense. */
static bool take_field(struct net_head *head, char *name, char *value)
{
	if (strcmp(name, ":method") == 0) {
		head->method_text = value;
		head->method = net_method_parse(value, strlen(value));
	} else if (strcmp(name, ":path") == 0) {
		head->path = value;
	} else if (strcmp(name, ":authority") == 0) {
		head->headers[head->header_count++] = (struct net_header){.name = "host", .value = value};
	} else if (name[0] != ':') {
		head->headers[head->header_count++] = (struct net_header){.name = name, .value = value};
		if (strcmp(name, "content-length") == 0)
			head->has_length = parse_length(value, &head->content_length);
		if (strcmp(name, "content-length") == 0 && !head->has_length)
			return false;
		if (strcmp(name, "expect") == 0)
			head->expect_continue = strcasecmp(value, "100-continue") == 0;
	}
	return true;
}

/* Moves the gathered fields into one allocation. @return 0, or a status. */
static unsigned build_head(struct h2_stream *stream, struct net_head *head)
{
	size_t fields = stream->field_count;
	char *memory = malloc(fields * sizeof(struct net_header) + stream->text.len + 1);

	if (!memory)
		return 500;
	head->memory = memory;
	head->headers = (struct net_header *)(void *)memory;
	char *text = memory + fields * sizeof(struct net_header);
	if (stream->text.len > 0)
		memcpy(text, stream->text.data, stream->text.len);
	for (size_t i = 0; i < fields; i++) {
		char *value = text + strlen(text) + 1;
		if (!take_field(head, text, value))
			return 400;
		text = value + strlen(value) + 1;
	}
	if (!head->method_text || !head->path)
		return strcmp(head->method_text ? head->method_text : "", "CONNECT") == 0 ? 501 : 400;
	char *query = strchr(head->path, '?');
	head->query = "";
	if (query) {
		*query = 0;
		head->query = query + 1;
	}
	head->http2 = true;
	head->has_body = !stream->remote_ended;
	head->expect_continue &= head->has_body;
	return target_is_good(head) ? 0 : 400;
}

static void refuse(struct h2_stream *stream, unsigned status)
{
	struct net_reply reply = {0};

	net_reply_error(&reply, status, status == 431 ? "headers_too_large" : status == 501 ? "not_implemented" : "invalid",
		"%s", status == 431 ? "the head is too large" : "malformed head");
	struct err *e = h2_reply(stream, &reply, true, "");
	if (e) {
		err_free(e);
		h2_reset(stream);
	}
	net_reply_deinit(&reply);
}

void h2_calm(struct h2 *h2, unsigned credit)
{
	h2->noise -= h2->noise < credit ? h2->noise : credit;
}

static void finish_head(struct h2 *h2, struct h2_stream *stream, bool ended)
{
	struct net_head head = {0};

	stream->head_done = true;
	stream->remote_ended = ended;
	h2_calm(h2, NOISE_HEAD_CREDIT);
	unsigned status = stream->refuse ? stream->refuse : build_head(stream, &head);
	buf_deinit(&stream->text);
	if (status) {
		net_head_deinit(&head);
		refuse(stream, status);
		return;
	}
	stream->is_head = head.method == NET_HEAD;
	if (++h2->requests >= h2->limits.requests)
		h2_goaway(h2);
	h2->events->on_head(h2->user, stream, &head);
}

/* ---- frames ---- */

static int add_noise(struct h2 *h2, unsigned n)
{
	h2->noise += n;
	if (h2->noise <= NOISE_MAX || h2->failed)
		return 0;
	h2->failed = true;
	(void)nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
	return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream = frame->hd.stream_id ? stream_of(session, frame->hd.stream_id) : NULL;
	bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		if (!stream)
			return 0;
		if (!stream->head_done)
			finish_head(h2, stream, ends);
		break;
	case NGHTTP2_DATA:
		if (frame->hd.length == 0 && !ends)
			return add_noise(h2, 1);
		h2_calm(h2, NOISE_DATA_CREDIT);
		break;
	case NGHTTP2_RST_STREAM:
		return add_noise(h2, NOISE_RESET);
	case NGHTTP2_PING:
		if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
			h2->ping_sent = false;
			return 0;
		}
		return add_noise(h2, 1);
	default:
		return add_noise(h2, 1);
	}
	/* The handler may have answered in on_head, but the stream lives until nghttp2 closes it. */
	if (stream && ends) {
		stream->remote_ended = true;
		h2->events->on_end(h2->user, stream);
	}
	return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len, void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream = stream_of(session, id);

	(void)flags;
	if (stream)
		h2->events->on_body(h2->user, stream, bytes, len);
	else
		(void)nghttp2_session_consume(session, id, len);
	return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	bool ends = (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
		    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
	struct h2_stream *stream = ends ? stream_of(session, frame->hd.stream_id) : NULL;

	(void)user;
	if (!stream)
		return 0;
	stream->end_sent = true;
	if (stream->stop_at_end && !stream->remote_ended)
		h2_stop(stream);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream = stream_of(session, id);

	(void)error;
	if (!stream)
		return 0;
	(void)nghttp2_session_set_stream_user_data(session, id, NULL);
	h2->events->on_closed(h2->user, stream);
	stream_free(stream);
	return 0;
}

/* ---- the session ---- */

static struct err *err_from_nghttp2(int code)
{
	if (code == NGHTTP2_ERR_NOMEM)
		return err_nomem();
	return err_new(ERR_INTERNAL, "nghttp2: %s", nghttp2_strerror(code));
}

static int create_session(struct h2 *h2)
{
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int code = nghttp2_session_callbacks_new(&callbacks);

	if (code == 0)
		code = nghttp2_option_new(&option);
	if (code == 0) {
		nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
		nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
		nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
		nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
		nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
		nghttp2_option_set_no_auto_window_update(option, 1);
		nghttp2_option_set_no_closed_streams(option, 1);
		nghttp2_option_set_max_settings(option, 32);
		nghttp2_option_set_stream_reset_rate_limit(option, RESET_BURST, RESET_RATE);
		code = nghttp2_session_server_new2(&h2->session, callbacks, h2, option);
	}
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return code;
}

struct err *h2_create(const struct h2_limits *limits, const struct h2_events *events, void *user, struct h2 **ret)
{
	struct h2 *h2 = calloc(1, sizeof(*h2));

	if (!h2)
		return err_nomem();
	h2->limits = *limits;
	h2->events = events;
	h2->user = user;
	nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits->streams},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)limits->head_bytes},
	};
	int code = create_session(h2);
	if (code == 0)
		code = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings));
	if (code == 0)
		code = nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW);
	if (code != 0) {
		h2_destroy(h2);
		return err_from_nghttp2(code);
	}
	*ret = h2;
	return NULL;
}

void h2_destroy(struct h2 *h2)
{
	if (!h2)
		return;
	/* The owner's answers to on_closed must not reach the session any more. */
	while (h2->streams) {
		struct h2_stream *stream = h2->streams;
		h2->events->on_closed(h2->user, stream);
		stream_free(stream);
	}
	nghttp2_session_del(h2->session);
	free(h2);
}

bool h2_feed(struct h2 *h2, const uint8_t *bytes, size_t len)
{
	if (h2->failed)
		return false;
	ssize_t taken = nghttp2_session_mem_recv(h2->session, bytes, len);
	if (taken < 0) {
		h2->failed = true;
		(void)nghttp2_session_terminate_session(h2->session, NGHTTP2_PROTOCOL_ERROR);
	}
	return !h2->failed;
}

size_t h2_pull(struct h2 *h2, const uint8_t **ret)
{
	ssize_t len = nghttp2_session_mem_send(h2->session, ret);

	if (len < 0)
		h2->failed = true;
	return len > 0 ? (size_t)len : 0;
}

bool h2_is_over(const struct h2 *h2)
{
	return h2->failed || (!nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session));
}

size_t h2_stream_count(const struct h2 *h2)
{
	return h2->stream_count;
}

size_t h2_queued(const struct h2 *h2)
{
	return h2->queued;
}

uint64_t h2_sent(const struct h2 *h2)
{
	return h2->sent;
}

struct h2_stream *h2_next_stream(const struct h2 *h2, const struct h2_stream *after)
{
	return after ? after->next : h2->streams;
}

void h2_goaway(struct h2 *h2)
{
	if (h2->going_away)
		return;
	h2->going_away = true;
	(void)nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
		NGHTTP2_NO_ERROR, NULL, 0);
}

bool h2_ping(struct h2 *h2)
{
	if (h2->ping_sent)
		return false;
	h2->ping_sent = true;
	(void)nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL);
	return true;
}

/* ---- of a stream: inwards ---- */

void h2_consumed(struct h2_stream *stream, size_t len)
{
	(void)nghttp2_session_consume(stream->h2->session, stream->id, len);
}

void h2_consumed_connection(struct h2_stream *stream, size_t len)
{
	(void)nghttp2_session_consume_connection(stream->h2->session, len);
}

void h2_consumed_stream(struct h2_stream *stream, size_t len)
{
	(void)nghttp2_session_consume_stream(stream->h2->session, stream->id, len);
}

/* ---- of a stream: outwards ---- */

static nghttp2_nv field(const char *name, size_t name_len, const char *value, size_t value_len)
{
	/* nghttp2 copies what it is given; its struct lacks the const. */
	return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name, .namelen = name_len, .value = (uint8_t *)(uintptr_t)value,
		.valuelen = value_len};
}

/* The lines that net_reply_header wrote, as fields; at most `room`. */
static size_t split_lines(const struct buf *lines, nghttp2_nv *ret, size_t room)
{
	const char *at = (const char *)lines->data;
	const char *end = lines->len > 0 ? at + lines->len : at;
	size_t count = 0;

	while (at < end && count < room) {
		const char *colon = memchr(at, ':', (size_t)(end - at));
		const char *cr = colon ? memchr(colon, '\r', (size_t)(end - colon)) : NULL;
		if (!cr)
			break;
		ret[count++] = field(at, (size_t)(colon - at), colon + 2, (size_t)(cr - colon - 2));
		at = cr + 2;
	}
	return count;
}

void h2_continue(struct h2_stream *stream)
{
	nghttp2_nv status = field(":status", 7, "100", 3);

	(void)nghttp2_submit_headers(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, &status, 1, NULL);
}

static void end_data(struct h2_stream *stream, uint32_t *flags)
{
	nghttp2_nv fields[REPLY_FIELDS_MAX];

	*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (!stream->has_trailers)
		return;
	*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
	size_t count = split_lines(&stream->trailers, fields, ARRAY_SIZE(fields));
	(void)nghttp2_submit_trailer(stream->h2->session, stream->id, fields, count);
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t size, uint32_t *flags,
	nghttp2_data_source *source, void *user)
{
	struct h2_stream *stream = source->ptr;
	struct h2 *h2 = stream->h2;
	size_t len = 0;

	(void)session;
	(void)id;
	(void)user;
	while (stream->first && len < size) {
		struct h2_piece *piece = stream->first;
		size_t n = piece->bytes.len - piece->sent;
		if (n > size - len)
			n = size - len;
		memcpy(to + len, piece->bytes.data + piece->sent, n);
		piece->sent += n;
		len += n;
		if (piece->sent < piece->bytes.len)
			break;
		stream->first = piece->next;
		if (!stream->first)
			stream->last = &stream->first;
		buf_deinit(&piece->bytes);
		free(piece);
	}
	stream->queued -= len;
	h2->queued -= len;
	h2->sent += len;
	h2->sent_since += len;
	h2_calm(h2, (unsigned)(h2->sent_since / NOISE_SENT_BYTES));
	h2->sent_since %= NOISE_SENT_BYTES;
	if (!stream->first && stream->reply_ended)
		end_data(stream, flags);
	else if (len == 0) {
		stream->idle = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)len;
}

static bool queue_piece(struct h2_stream *stream, struct buf *take_piece)
{
	if (take_piece->len == 0 || stream->is_head) {
		buf_deinit(take_piece);
		return true;
	}
	struct h2_piece *piece = calloc(1, sizeof(*piece));
	if (!piece)
		return false;
	piece->bytes = *take_piece;
	*take_piece = (struct buf){0};
	*stream->last = piece;
	stream->last = &piece->next;
	stream->queued += piece->bytes.len;
	stream->h2->queued += piece->bytes.len;
	return true;
}

/* There is something new for nghttp2 to read. */
static void wake(struct h2_stream *stream)
{
	if (!stream->idle)
		return;
	stream->idle = false;
	(void)nghttp2_session_resume_data(stream->h2->session, stream->id);
}

struct err *h2_reply(struct h2_stream *stream, struct net_reply *take_reply, bool whole, const char *date)
{
	nghttp2_nv fields[REPLY_FIELDS_MAX];
	char status[16], length[32];
	size_t count = 0;
	unsigned code = take_reply->status;
	bool no_body = stream->is_head || code == 204 || code == 304;

	(void)snprintf(status, sizeof(status), "%u", code);
	(void)snprintf(length, sizeof(length), "%zu", take_reply->body.len);
	fields[count++] = field(":status", 7, status, strlen(status));
	if (date[0])
		fields[count++] = field("date", 4, date, strlen(date));
	if (take_reply->content_type)
		fields[count++] = field("content-type", 12, take_reply->content_type, strlen(take_reply->content_type));
	if (whole && code != 204 && code != 304 && take_reply->body.len > 0)
		fields[count++] = field("content-length", 14, length, strlen(length));
	count += split_lines(&take_reply->headers, fields + count, ARRAY_SIZE(fields) - count);
	if (no_body)
		buf_deinit(&take_reply->body);
	bool empty = whole && take_reply->body.len == 0;
	stream->reply_begun = true;
	stream->reply_ended = whole;
	if (!queue_piece(stream, &take_reply->body))
		return err_nomem();
	nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = on_read};
	int error = nghttp2_submit_response(stream->h2->session, stream->id, fields, count, empty ? NULL : &provider);
	return error == 0 ? NULL : err_from_nghttp2(error);
}

bool h2_write(struct h2_stream *stream, struct buf *take_piece)
{
	if (!queue_piece(stream, take_piece)) {
		h2_reset(stream);
		return false;
	}
	wake(stream);
	bool more = stream->queued < H2_STREAM_HIGH;
	stream->wants_room |= !more;
	return more;
}

void h2_end(struct h2_stream *stream, struct buf *take_trailers)
{
	stream->reply_ended = true;
	if (take_trailers && take_trailers->len > 0) {
		stream->trailers = *take_trailers;
		*take_trailers = (struct buf){0};
		stream->has_trailers = true;
	}
	wake(stream);
}

void h2_stop(struct h2_stream *stream)
{
	/* Before that it would overtake the answer. */
	stream->stop_at_end = true;
	if (!stream->end_sent)
		return;
	(void)nghttp2_submit_rst_stream(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
}

void h2_reset(struct h2_stream *stream)
{
	free_pieces(stream);
	(void)nghttp2_submit_rst_stream(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_INTERNAL_ERROR);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * net/h2.c on hostile bytes after a good preface: every head that is reported is whole, every stream that was reported is
 * closed in the end, and what answers write stays within its queues.
 */
#include "net/h2.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct state {
	unsigned open;
};

static void on_head(void *user, struct h2_stream *stream, struct net_head *take_head)
{
	struct state *state = user;
	struct net_reply reply = {.status = 200};

	if (!take_head->path || !take_head->query || !take_head->method_text)
		abort();
	for (size_t i = 0; i < take_head->header_count; i++)
		if (!take_head->headers[i].name || !take_head->headers[i].value)
			abort();
	stream->user = state;
	state->open++;
	/* By the first letter of the path: at once, in pieces, a reset, or at the end. */
	char what = take_head->path[1];
	net_head_deinit(take_head);
	if (what == 'r') {
		h2_reset(stream);
	} else if (what != 'e') {
		struct err *e = buf_append(&reply.body, "0123456789", 10);
		if (!e)
			e = h2_reply(stream, &reply, what != 'p', "DATE");
		if (!e && what == 'p') {
			struct buf piece = {0};
			e = buf_append(&piece, "piece", 5);
			(void)h2_write(stream, &piece);
			struct buf trailers = {0};
			if (!e)
				e = buf_append(&trailers, "a: b\r\n", 6);
			h2_end(stream, &trailers);
			buf_deinit(&trailers);
		}
		err_free(e);
		net_reply_deinit(&reply);
	}
}

static void on_body(void *user, struct h2_stream *stream, const uint8_t *bytes, size_t len)
{
	(void)user;
	if (!bytes || len == 0 || !stream->head_done)
		abort();
	h2_consumed(stream, len);
}

static void on_end(void *user, struct h2_stream *stream)
{
	struct net_reply reply = {.status = 204};

	(void)user;
	if (!stream->reply_begun)
		err_free(h2_reply(stream, &reply, true, ""));
}

static void on_room(void *user, struct h2_stream *stream)
{
	(void)user;
	(void)stream;
}

static void on_closed(void *user, struct h2_stream *stream)
{
	struct state *state = user;

	if (stream->user)
		state->open--;
}

static const struct h2_events events = {
	.on_head = on_head, .on_body = on_body, .on_end = on_end, .on_room = on_room, .on_closed = on_closed};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
	struct h2_limits limits = {.streams = 8, .head_bytes = 1024, .head_count = 16, .requests = 100};
	struct state state = {0};
	struct h2 *h2;
	const uint8_t *out;

	if (size == 0 || h2_create(&limits, &events, &state, &h2))
		return 0;
	size_t step = (size_t)data[0] + 1;
	bool fine = h2_feed(h2, (const uint8_t *)preface, sizeof(preface) - 1);
	for (size_t pos = 1; pos < size && fine; pos += step) {
		fine = h2_feed(h2, data + pos, size - pos < step ? size - pos : step);
		while (h2_pull(h2, &out) > 0)
			;
		if (h2_stream_count(h2) > limits.streams + 1)
			abort();
	}
	h2_destroy(h2);
	if (state.open != 0)
		abort();
	return 0;
}

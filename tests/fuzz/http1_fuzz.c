// SPDX-License-Identifier: Apache-2.0
/*
 * net/http1.c on hostile bytes. The first byte chooses the cut; the same input whole and in pieces must give the same events,
 * and no event may come after a failure or an end.
 */
#include "base/digest.h"
#include "net/http1.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct trace {
	struct buf events;
	bool ended; /* no event may come before http1_next */
};

static void note(struct trace *trace, const void *bytes, size_t len)
{
	struct err *e = buf_append(&trace->events, bytes, len);
	if (e)
		abort();
}

static void on_head(void *user, struct net_head *take_head)
{
	struct trace *trace = user;

	if (trace->ended || !take_head->path || !take_head->query)
		abort();
	note(trace, "H", 1);
	note(trace, take_head->method_text, strlen(take_head->method_text) + 1);
	note(trace, take_head->path, strlen(take_head->path) + 1);
	note(trace, take_head->query, strlen(take_head->query) + 1);
	for (size_t i = 0; i < take_head->header_count; i++) {
		note(trace, take_head->headers[i].name, strlen(take_head->headers[i].name) + 1);
		note(trace, take_head->headers[i].value, strlen(take_head->headers[i].value) + 1);
	}
	note(trace, "B", 1);
	net_head_deinit(take_head);
}

static void on_body(void *user, const uint8_t *bytes, size_t len)
{
	struct trace *trace = user;

	if (trace->ended || len == 0)
		abort();
	note(trace, bytes, len);
}

static void on_end(void *user)
{
	struct trace *trace = user;

	if (trace->ended)
		abort();
	trace->ended = true;
	note(trace, "E", 1);
}

static const struct http1_events events = {.on_head = on_head, .on_body = on_body, .on_end = on_end};

static void run(const uint8_t *data, size_t size, size_t step, struct trace *trace)
{
	struct http1 core;

	http1_init(&core, &events, trace, 2048, 16);
	for (size_t pos = 0; pos < size && core.state != HTTP1_FAILED;) {
		size_t len = size - pos < step ? size - pos : step;
		size_t taken = http1_feed(&core, data + pos, len);
		if (taken > len || (taken == 0 && core.state != HTTP1_FAILED))
			abort();
		pos += taken;
		if (core.state == HTTP1_DONE) {
			struct buf out = {0};
			struct net_reply reply = {.status = 200};
			struct err *e = http1_write_head(&core, &reply, 0, "", &out);
			if (e)
				abort();
			buf_deinit(&out);
			http1_next(&core);
			trace->ended = false;
		}
	}
	note(trace, &core.error_status, sizeof(core.error_status));
	http1_deinit(&core);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct trace whole = {0}, pieces = {0};

	if (size == 0)
		return 0;
	run(data + 1, size - 1, SIZE_MAX, &whole);
	run(data + 1, size - 1, (size_t)data[0] % 32 + 1, &pieces);
	if (whole.events.len != pieces.events.len || memcmp(whole.events.data, pieces.events.data, whole.events.len) != 0)
		abort();
	buf_deinit(&whole.events);
	buf_deinit(&pieces.events);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The server's side of the agent's stream. The input is a sequence of envelopes, each behind its length as a little-endian u16; a hello
 * comes first of itself, so that mutations reach what lies behind it. Memory is kept small, so that forgetting happens. What
 * was gathered must have whole envelopes only, and everything must be given back.
 */
#include "profiles/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct samples *samples;

static void on_send(void *context, struct buf *take_message)
{
	struct server_envelope envelope;

	(void)context;
	if (server_envelope_read((struct wire_span){take_message->data, take_message->len}, &envelope) || envelope.body == SERVER_BODY_NONE)
		abort();
	buf_deinit(take_message);
}

static const struct stream_ops ops = {.send = on_send};

static void open_samples(void)
{
	char dir[] = "/tmp/cairn-fuzz-XXXXXX", path[64];
	const struct samples_options options = {.data_dir = dir, .map_max = 64 << 20};

	if (!mkdtemp(dir) || samples_open(&options, &samples))
		abort();
	/* It stays open; nothing is ever committed to it. */
	(void)snprintf(path, sizeof(path), "rm -rf %s", dir);
	if (system(path) != 0)
		abort();
}

static void settle(struct stream *stream, struct stream_counters *counters)
{
	struct samples_batch *batch;
	struct stream_ticket ticket;
	const struct samples_result result = {.samples = 1};

	if (!stream_take(stream, &batch, &ticket))
		return;
	if (ticket.count == 0 || ticket.samples > counters->samples)
		abort();
	samples_batch_destroy(batch);
	err_free(stream_acknowledge(stream, &ticket, &result));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t hello[] = {0x12, 18, 0x0a, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
	struct stream_counters counters = {0};
	struct stream *stream;
	struct err *e;

	if (!samples)
		open_samples();
	const struct stream_options options = {
		.samples = samples, .tenant = 1, .memory_max = 256 << 10, .ops = &ops, .counters = &counters};
	if (stream_create(&options, &stream))
		abort();
	e = stream_feed(stream, hello, sizeof(hello));
	for (size_t i = 0; !e && i + 2 <= size;) {
		size_t len = data[i] | (size_t)data[i + 1] << 8;
		i += 2;
		len = len > size - i ? size - i : len;
		e = stream_feed(stream, data + i, len);
		i += len;
		if (stream_memory(stream) > options.memory_max)
			abort();
		if (len % 3 == 0)
			settle(stream, &counters);
	}
	err_free(e);
	settle(stream, &counters);
	stream_destroy(stream);
	if (counters.memory_bytes != 0)
		abort();
	return 0;
}

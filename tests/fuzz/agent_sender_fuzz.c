// SPDX-License-Identifier: Apache-2.0
/*
 * A hostile server: its envelopes, each behind its length as a little-endian u16, between reports of a small machine. Whatever it
 * asks for, all that is sent must be well-formed, and samples must be defined before they come, but for what the server just
 * claimed not to know.
 */
#include "proto/agent_sender.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRACES = 6, FRAMES = 9, STRINGS = 40 };

static const uint8_t file_id[16] = {1, 2, 3};
static uint32_t path[FRAMES];
static uint64_t sent, refused;

static void string_of(void *things, uint32_t thing, const char **text_ret, size_t *len_ret)
{
	static char text[16];

	(void)things;
	if (thing >= STRINGS)
		abort();
	*text_ret = text;
	*len_ret = (size_t)snprintf(text, sizeof(text), "s%u", thing);
}

static void executable_of(void *things, uint32_t thing, struct agent_executable *ret, const struct agent_segment **segments_ret, size_t *count_ret)
{
	static const struct agent_segment segment = {.vaddr = 4096, .size = 4096, .executable = true};

	(void)things, (void)thing;
	*ret = (struct agent_executable){.file_id = {file_id, sizeof(file_id)}};
	*segments_ret = &segment;
	*count_ret = 1;
}

static void frame_of(void *things, uint32_t thing, struct agent_sender_frame *ret)
{
	(void)things;
	*ret = (struct agent_sender_frame){.executable = thing % 3 ? 0 : AGENT_SENDER_NONE, .address = thing * 1000,
		.function = thing % 2 ? thing : AGENT_SENDER_NONE, .file = thing % 5 ? thing + 1 : AGENT_SENDER_NONE, .line = thing};
}

static void trace_of(void *things, uint32_t thing, const uint32_t **frames_ret, uint32_t *depth_ret)
{
	(void)things;
	for (uint32_t i = 0; i < FRAMES; i++)
		path[i] = (thing + i) % FRAMES;
	*frames_ret = path;
	*depth_ret = thing + 1;
}

static void process_of(void *things, uint32_t thing, struct agent_sender_process *ret)
{
	(void)things;
	*ret = (struct agent_sender_process){.pid = thing, .executable = 20, .executable_path = AGENT_SENDER_NONE, .service = 21, .container = 22,
		.labels = {23, 24}, .label_count = 1};
}

static void thread_of(void *things, uint32_t thing, struct agent_sender_thread *ret)
{
	(void)things;
	*ret = (struct agent_sender_thread){.process = thing / 2, .tid = thing, .name = 30 + thing};
}

static void type_of(void *things, uint32_t thing, struct agent_type *ret)
{
	(void)things, (void)thing;
	*ret = (struct agent_type){.period = 1};
}

static const struct agent_sender_source source = {.string = string_of, .executable = executable_of, .frame = frame_of, .trace = trace_of,
	.process = process_of, .thread = thread_of, .type = type_of};

static struct err *on_send(void *context, enum agent_body body, const struct buf *envelope)
{
	struct agent_envelope read;

	(void)context;
	if (agent_envelope_read((struct wire_span){envelope->data, envelope->len}, &read) || read.body != body)
		abort();
	sent += envelope->len;
	return NULL;
}

static struct err *on_number(void *context, uint64_t sequence)
{
	(void)context;
	refused += sequence;
	return NULL;
}

static void on_want(void *context, const struct server_want *want)
{
	(void)context;
	/* Every byte must be there to be read. */
	for (size_t i = 0; i < want->name.len; i++)
		refused += want->name.bytes[i];
	for (size_t i = 0; i < want->file_id.len; i++)
		refused += want->file_id.bytes[i];
}

static const struct agent_sender_ops ops = {.send = on_send, .acknowledged = on_number, .refused = on_number, .want_symbols = on_want};

static void report(struct agent_sender *sender, uint64_t sequence)
{
	const struct agent_sample samples[] = {{.trace = (uint32_t)(sequence % TRACES), .thread = 3, .value = 1},
		{.trace = 2, .thread = AGENT_SENDER_NONE, .value = 2, .time_unix_nano = sequence}};
	const struct agent_sender_report made = {.sequence = sequence + 1, .samples = samples, .count = 2};

	if (agent_sender_report(sender, &made))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct agent_hello hello = {.instance = {file_id, sizeof(file_id)}};
	struct agent_sender *sender = NULL;
	struct err *e;

	if (agent_sender_create(&source, &ops, NULL, &sender))
		abort();
	e = agent_sender_hello(sender, &hello, NULL, 0);
	for (size_t i = 0, n = 0; !e && i + 2 <= size; n++) {
		size_t len = data[i] | (size_t)data[i + 1] << 8;
		i += 2;
		len = len > size - i ? size - i : len;
		report(sender, n);
		e = agent_sender_take(sender, (struct wire_span){data + i, len});
		i += len;
	}
	if (e && err_code(e) != ERR_FORMAT)
		abort();
	err_free(e);
	report(sender, 99);
	agent_sender_destroy(sender);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "worker/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { PROGRESS_INTERVAL_MS = 100 };

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct err *flush(struct output *output)
{
	size_t done = 0;

	while (done < output->frame.len) {
		ssize_t wrote = write(output->fd, output->frame.data + done, output->frame.len - done);
		if (wrote < 0 && errno != EINTR)
			return err_os(errno, "write to cairnd");
		if (wrote > 0)
			done += (size_t)wrote;
	}
	output->frame.len = 0;
	return NULL;
}

struct err *output_init(struct output *output, int fd)
{
	*output = (struct output){.fd = fd};
	TRY(buf_reserve(&output->frame, PROTOCOL_HEADER_BYTES + PROTOCOL_FRAME_MAX));
	TRY(protocol_put_hello(&output->frame));
	return flush(output);
}

void output_deinit(struct output *output)
{
	buf_deinit(&output->frame);
}

void output_progress(struct output *output, enum protocol_phase phase, uint64_t done, uint64_t total)
{
	bool changed = phase != output->now.phase;
	uint64_t now = now_ms();

	output->now = (struct protocol_progress){phase, done, total};
	if (!changed && now - output->sent_ms < PROGRESS_INTERVAL_MS)
		return;
	output->sent_ms = now;
	err_free(protocol_put_progress(&output->frame, &output->now));
	err_free(flush(output));
	output->frame.len = 0;
}

struct err *output_skipped(struct output *output, const char *name, const char *reason)
{
	char text[PROTOCOL_TEXT_MAX + 1];

	(void)snprintf(text, sizeof(text), "%s: %s", name, reason);
	TRY(protocol_put_skipped(&output->frame, text));
	return flush(output);
}

struct err *output_result(struct output *output, struct protocol_result *result, const void *table, size_t len)
{
	const uint8_t *bytes = table;

	result->table_bytes = len;
	TRY(protocol_put_result(&output->frame, result));
	TRY(flush(output));
	while (len > 0) {
		size_t chunk = len < PROTOCOL_CHUNK_BYTES ? len : PROTOCOL_CHUNK_BYTES;
		TRY(protocol_put_chunk(&output->frame, bytes, chunk));
		TRY(flush(output));
		bytes += chunk;
		len -= chunk;
	}
	output->results++;
	return NULL;
}

struct err *output_needs(struct output *output, const struct protocol_needs *needs)
{
	TRY(protocol_put_needs(&output->frame, needs));
	return flush(output);
}

struct err *output_done(struct output *output)
{
	TRY(protocol_put_done(&output->frame, output->results));
	return flush(output);
}

void output_failed(struct output *output, const struct err *e, uint64_t memory_ceiling_bytes)
{
	char text[PROTOCOL_TEXT_MAX + 1];

	output->frame.len = 0;
	if (err_code(e) == ERR_NOMEM)
		(void)snprintf(text, sizeof(text), "memory ceiling of %" PRIu64 " MiB reached while %s", memory_ceiling_bytes >> 20,
			protocol_phase_name(output->now.phase));
	else
		(void)snprintf(text, sizeof(text), "%s", err_message(e));
	err_free(protocol_put_failed(&output->frame, err_code(e), text));
	err_free(flush(output));
}

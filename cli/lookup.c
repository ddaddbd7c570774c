// SPDX-License-Identifier: Apache-2.0
/*
 * Speed comes from doing few things often: large reads, addresses parsed in place, batches large enough for the table's
 * batch lookup to overlap its cache misses but small enough for their frames to stay in the second-level cache, and one
 * output buffer that is written when it is full or the input pauses.
 */
#include "cli/lookup.h"

#include "base/buf.h"
#include "cli/cli.h"
#include "cli/frames.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum {
	READ_BYTES = 1 << 20,
	LINE_BYTES_MAX = 256, /* an address has at most 18 */
	BATCH = 4096,	      /* addresses */
	BATCH_FRAMES = 6 * BATCH,
	WRITE_BYTES = 1 << 20,
};

struct lookup {
	const struct table *table;
	struct frames_writer writer;
	int out_fd;
	uint64_t line; /* of the input, from 1 */
	uint64_t *vaddrs;
	size_t count; /* in vaddrs */
	struct table_frame *frames;
	uint32_t *first;
	struct buf out;
};

bool lookup_parse_style(const char *text, enum demangle_style *ret)
{
	static const struct {
		const char *name;
		enum demangle_style style;
	} styles[] = {{"full", DEMANGLE_FULL}, {"short", DEMANGLE_SHORT}, {"none", DEMANGLE_NONE}};

	for (size_t i = 0; i < ARRAY_SIZE(styles); i++) {
		if (strcmp(text, styles[i].name) == 0) {
			*ret = styles[i].style;
			return true;
		}
	}
	return false;
}

static struct err *flush_output(struct lookup *lookup)
{
	size_t len = lookup->out.len;

	lookup->out.len = 0;
	return cli_write(lookup->out_fd, lookup->out.data, len);
}

static struct err *answer_batch(struct lookup *lookup)
{
	for (size_t done = 0; done < lookup->count;) {
		size_t got = table_lookup_batch(lookup->table, lookup->vaddrs + done, lookup->count - done, lookup->frames,
			BATCH_FRAMES, lookup->first);
		for (size_t i = 0; i < got; i++) {
			TRY(frames_write_line(&lookup->writer, lookup->vaddrs[done + i], lookup->frames + lookup->first[i],
				lookup->first[i + 1] - lookup->first[i], &lookup->out));
			if (lookup->out.len >= WRITE_BYTES)
				TRY(flush_output(lookup));
		}
		done += got;
	}
	lookup->count = 0;
	return NULL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct err *take_line(struct lookup *lookup, const char *text, size_t len)
{
	lookup->line++;
	while (len > 0 && is_blank(*text)) {
		text++;
		len--;
	}
	while (len > 0 && is_blank(text[len - 1]))
		len--;
	if (len == 0)
		return NULL;
	if (!cli_parse_address(text, len, &lookup->vaddrs[lookup->count]))
		return err_new(ERR_INVALID, "line %" PRIu64 ": \"%.*s\" is not an address", lookup->line,
			(int)(len < LINE_BYTES_MAX ? len : LINE_BYTES_MAX), text);
	return ++lookup->count == BATCH ? answer_batch(lookup) : NULL;
}

/* Takes the complete lines of @p text; returns by @p rest_ret how many bytes of an incomplete one are left. */
static struct err *take_lines(struct lookup *lookup, const char *text, size_t len, size_t *rest_ret)
{
	const char *end = text + len;

	for (const char *newline; (newline = memchr(text, '\n', (size_t)(end - text))); text = newline + 1)
		TRY(take_line(lookup, text, (size_t)(newline - text)));
	*rest_ret = (size_t)(end - text);
	return NULL;
}

static struct err *pump(struct lookup *lookup, int in_fd, char *block)
{
	size_t have = 0;

	for (;;) {
		ssize_t got = read(in_fd, block + have, READ_BYTES - have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_os(errno, "read standard input");
		if (got == 0)
			break;
		have += (size_t)got;
		size_t rest;
		TRY(take_lines(lookup, block, have, &rest));
		if (rest > LINE_BYTES_MAX)
			return err_new(ERR_INVALID, "line %" PRIu64 " is longer than an address can be", lookup->line + 1);
		memmove(block, block + have - rest, rest);
		have = rest;
		TRY(answer_batch(lookup));
		TRY(flush_output(lookup));
	}
	/* The last line may have no newline. */
	if (have > 0)
		TRY(take_line(lookup, block, have));
	TRY(answer_batch(lookup));
	return flush_output(lookup);
}

struct err *lookup_stream(const struct table *table, enum demangle_style style, int in_fd, int out_fd)
{
	struct lookup lookup = {.table = table, .out_fd = out_fd};
	CLEANUP(freep) char *block = malloc(READ_BYTES);

	lookup.vaddrs = malloc(BATCH * sizeof(*lookup.vaddrs));
	lookup.frames = malloc(BATCH_FRAMES * sizeof(*lookup.frames));
	lookup.first = malloc((BATCH + 1) * sizeof(*lookup.first));
	struct err *e = !block || !lookup.vaddrs || !lookup.frames || !lookup.first ?
				err_nomem() :
				frames_writer_init(&lookup.writer, table, style);
	if (!e)
		e = pump(&lookup, in_fd, block);
	/* A malformed line ends the stream, but what stood before it gets its answer. */
	if (e && err_code(e) == ERR_INVALID) {
		struct err *late = answer_batch(&lookup);
		err_free(late ? late : flush_output(&lookup));
	}
	frames_writer_deinit(&lookup.writer);
	buf_deinit(&lookup.out);
	free(lookup.vaddrs);
	free(lookup.frames);
	free(lookup.first);
	return e;
}

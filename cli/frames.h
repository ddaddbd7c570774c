// SPDX-License-Identifier: Apache-2.0
/*
 * Frames as JSON, fast: one `{"address":..,"frames":[..]}` line an address. The demangled, escaped text of a function and of
 * a file is made once and copied from then on.
 */
#ifndef CAIRN_CLI_FRAMES_H
#define CAIRN_CLI_FRAMES_H

#include "base/buf.h"
#include "symbolizer/table/demangle.h"
#include "symbolizer/table/table.h"

/* Texts are remembered up to here; past it they are made anew each time. */
enum { FRAMES_CACHE_MAX_BYTES = 256 << 20 };

struct frames_text {
	uint32_t off; /* in the cache's text; UINT32_MAX: not made yet */
	uint32_t len;
	uint32_t tail_len; /* of a second part behind it */
};

struct frames_writer {
	const struct table *table; /* borrowed */
	enum demangle_style style;
	struct buf text;
	struct frames_text *functions; /* by function_id */
	struct frames_text *files;     /* by file_id */
	uint32_t function_count, file_count;
};

/** Prepares for one table, which must outlive the writer. ERR_NOMEM. */
struct err *frames_writer_init(struct frames_writer *writer, const struct table *table, enum demangle_style style) MUST_USE;
void frames_writer_deinit(struct frames_writer *writer);

/** Appends one line for @p vaddr and its @p count frames (innermost first). ERR_NOMEM, ERR_LIMIT. One thread at a time. */
struct err *frames_write_line(struct frames_writer *writer, uint64_t vaddr, const struct table_frame *frames, size_t count,
	struct buf *out) MUST_USE;

/** What stands between a frame's dir and base in a path: "/" or "". */
const char *frames_separator(const struct table_frame *frame);

#endif

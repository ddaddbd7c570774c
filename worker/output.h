// SPDX-License-Identifier: Apache-2.0
/*
 * The worker's one way to speak: frames of ingest/protocol.h, written whole. One thread at a time.
 */
#ifndef CAIRN_WORKER_OUTPUT_H
#define CAIRN_WORKER_OUTPUT_H

#include "base/buf.h"
#include "ingest/protocol.h"

struct output {
	int fd;
	struct buf frame; /* reserved at start, so that "out of memory" can still be said */
	uint32_t results;
	struct protocol_progress now; /* the last progress, sent or not: what was being done when something failed */
	uint64_t sent_ms;	      /* when a progress frame was last sent */
};

/** Reserves memory and says hello. ERR_NOMEM, ERR_OS. */
struct err *output_init(struct output *output, int fd) MUST_USE;
void output_deinit(struct output *output);

/** Sent at most ten times a second, and when the phase changes. A pipe that is gone is found by the next result. */
void output_progress(struct output *output, enum protocol_phase phase, uint64_t done, uint64_t total);
struct err *output_skipped(struct output *output, const char *name, const char *reason) MUST_USE;
/** A result and its table of @p len bytes. */
struct err *output_result(struct output *output, struct protocol_result *result, const void *table, size_t len) MUST_USE;
struct err *output_needs(struct output *output, const struct protocol_needs *needs) MUST_USE;
struct err *output_done(struct output *output) MUST_USE;
/** Last word after @p e, which stays the caller's. Memory that is out becomes the ceiling's name. */
void output_failed(struct output *output, const struct err *e, uint64_t memory_ceiling_bytes);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * What a sender of cairn.v1.Agent/Stream writes: Definitions and Samples as columns. Which numbers are given and which were sent
 * is the sender's to know. One thread at a time.
 */
#ifndef CAIRN_PROTO_AGENT_WRITE_H
#define CAIRN_PROTO_AGENT_WRITE_H

#include "proto/agent.h"

enum { AGENT_WRITE_DEPTH_MAX = 4096 };

/* Definitions that are gathered for one envelope. Zero-initialise. */
struct agent_definitions {
	struct buf fields; /* whole fields: strings, executables, lines, processes, types, links */
	struct buf columns[DEFINITIONS_LINK + 1]; /* packed, by field number */
	uint32_t first[NEED_KINDS + 1], count[NEED_KINDS + 1]; /* by NEED_..: of strings, frames, traces, threads */
	uint64_t address;	/* of the last frame */
	uint32_t *trace;	/* the last one */
	uint32_t trace_depth;
};

/**
 * True when @p number may follow those of its kind that were gathered (strings, frames, traces and threads must be consecutive);
 * else agent_definitions_finish comes first.
 */
bool agent_definitions_fits(const struct agent_definitions *definitions, uint32_t kind, uint32_t number);
/** Bytes gathered. */
size_t agent_definitions_bytes(const struct agent_definitions *definitions);

/* Each adds one; the number must fit. ERR_NOMEM. */
struct err *agent_definitions_string(struct agent_definitions *definitions, uint32_t number, const char *text, size_t len) MUST_USE;
/** Its lines, when it has any, follow by agent_line_write on definitions->fields. @p kind: FrameKind of the .proto. */
struct err *agent_definitions_frame(struct agent_definitions *definitions, uint32_t number, uint32_t kind, uint32_t executable,
	uint64_t address) MUST_USE;
/** @p frames leaf first. ERR_LIMIT past AGENT_WRITE_DEPTH_MAX. */
struct err *agent_definitions_trace(struct agent_definitions *definitions, uint32_t number, const uint32_t *frames, uint32_t depth) MUST_USE;
struct err *agent_definitions_thread(struct agent_definitions *definitions, uint32_t number, uint32_t process, uint32_t tid,
	uint32_t name) MUST_USE;

/** Appends the Definitions to @p out and begins anew; nothing is appended when there are none. */
struct err *agent_definitions_finish(struct agent_definitions *definitions, struct buf *out) MUST_USE;
void agent_definitions_deinit(struct agent_definitions *definitions);

struct agent_sample {
	uint64_t time_unix_nano, value;
	uint32_t thread, trace, link; /* numbers; thread and link may be 0 */
	int32_t cpu;		      /* -1: unknown */
};

/**
 * Appends a Samples.
 * @param samples    sorted by CPU and time by this function
 * @param period_ns  what lies between two samples of a CPU, about; 0: unknown
 */
struct err *agent_samples_write(struct buf *out, uint32_t type, uint64_t period_ns, bool summed, struct agent_sample *samples,
	size_t count) MUST_USE;

#endif

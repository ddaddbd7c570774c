// SPDX-License-Identifier: Apache-2.0
/*
 * A recorded stream: AGENT_RECORD_MAGIC, then envelopes of the agent's side (proto/cairn/v1/agent.proto), each behind its length as a
 * little-endian u32; the first is the only hello. bench/load --replay sends it.
 */
#ifndef CAIRN_PROTO_AGENT_RECORD_H
#define CAIRN_PROTO_AGENT_RECORD_H

#include "proto/agent.h"

#include <stdio.h>

#define AGENT_RECORD_MAGIC "CAIRNST1"
enum { AGENT_RECORD_MAGIC_BYTES = 8 };

struct agent_record {
	FILE *file;
	const char *path; /* borrowed */
	bool has_hello;
};

/** Creates or empties @p path. ERR_OS. */
struct err *agent_record_open(struct agent_record *record, const char *path) MUST_USE;
/** Appends an envelope; a hello after the first (another connection) is passed over. ERR_OS. */
struct err *agent_record_write(struct agent_record *record, enum agent_body body, const struct buf *envelope) MUST_USE;
/** ERR_OS: what was written did not reach the file. A record that is not open is fine. */
struct err *agent_record_close(struct agent_record *record) MUST_USE;

#endif

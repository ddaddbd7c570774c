// SPDX-License-Identifier: Apache-2.0
/*
 * What samples share, each once: strings, executables, frames, traces, processes, threads, types: the things of
 * proto/agent_sender.h. Reports refer to them by number and hold them by a reference; when they have grown large, new samples get
 * new things, and the old ones live until their last report is gone. One thread.
 */
#ifndef CAIRN_AGENT_THINGS_H
#define CAIRN_AGENT_THINGS_H

#include "agent/place.h"
#include "agent/processes.h"
#include "proto/agent_sender.h"

enum { THINGS_BYTES_MAX = 6 << 20 }; /* things_are_large */

struct things;
/** @p tables and @p kernel are borrowed until no sample is added any more. One reference is the caller's. ERR_NOMEM. */
struct err *things_create(const struct tables *tables, const struct kernel *kernel, uint32_t hz, struct things **ret) MUST_USE;
struct things *things_hold(struct things *things);
/** NULL is fine. */
void things_release(struct things *things);
/** Memory that they take, about. */
size_t things_bytes(const struct things *things);

/** The trace and the thread of a record; time, value and CPU are the caller's. ERR_NOMEM; ERR_LIMIT. O(frames). */
struct err *things_sample(struct things *things, const struct sample_head *head, const uint64_t *frames, const struct process_info *process,
	struct agent_sample *ret) MUST_USE;

/** A process that ran @p file_id lately; 0: not known. */
uint32_t things_user_of(const struct things *things, const struct fileid *file_id);

/** The sender's way to them: `things` is a struct things. Type i is sample kind i of agent/shared.h. */
extern const struct agent_sender_source things_source;

#endif

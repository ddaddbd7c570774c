// SPDX-License-Identifier: Apache-2.0
/*
 * Frames of code without a file: named by the runtime's /tmp/perf-PID.map where there is one, else marked with the runtime that
 * made them, which is recognised by the names of the executables that the process maps. One thread.
 */
#ifndef CAIRN_AGENT_JIT_H
#define CAIRN_AGENT_JIT_H

#include "agent/shared.h"
#include "agent/tables.h"
#include "base/err.h"

#include <stdint.h>

enum {
	JIT_NAMES_MAX = 1 << 17, /* different names; then frames are marked with their runtime only */
	JIT_PROCESSES_MAX = 128, /* whose maps are held; the one read longest ago goes */
	JIT_READ_BYTES = 4 << 20, /* of a map in one go; the rest when it is looked at again */
	JIT_AGAIN_MS = 5000,	 /* before a map is looked at again */
};

struct jit_counters {
	uint64_t named, marked; /* frames */
	uint64_t maps_refused;	/* not the process's own, or no regular file */
	uint64_t samples[TABLES_RUNTIMES]; /* of processes of each runtime: its frames are not told from one another */
};

struct jit;
struct err *jit_create(struct tables *tables, struct jit **ret) MUST_USE;
void jit_destroy(struct jit *jit);
/** The frames of a sample with those that have no file replaced. @p frames_ret: until the next call; may be @p frames. ERR_NOMEM. */
struct err *jit_mark(struct jit *jit, const struct sample_head *head, const uint64_t *frames, uint64_t now_ms, const uint64_t **frames_ret) MUST_USE;
void jit_gone(struct jit *jit, uint32_t pid);
void jit_counters(const struct jit *jit, struct jit_counters *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Off-CPU samples come in two records (agent/shared.h): the stack where a thread left its CPU, and later for how long it was
 * away. This keeps the first until the second is there. Bounded: the oldest is dropped, and counted. One thread.
 */
#ifndef CAIRN_AGENT_OFF_CPU_H
#define CAIRN_AGENT_OFF_CPU_H

#include "agent/shared.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
	OFF_CPU_BYTES_MAX = 8 << 20, /* of kept records */
	OFF_CPU_SETS = 4096,	     /* of four threads each */
};

struct off_cpu_counters {
	uint64_t waiting;   /* now */
	uint64_t dropped;   /* no room, or the thread left again and its end was lost */
	uint64_t unmatched; /* ends without a beginning */
};

struct off_cpu;
struct err *off_cpu_create(struct off_cpu **ret) MUST_USE;
void off_cpu_destroy(struct off_cpu *off_cpu);
/** Keeps a copy of a whole record. A copy that finds no room is dropped. */
void off_cpu_begin(struct off_cpu *off_cpu, const struct sample_head *record);
/** The record that @p end belongs to, with its value; NULL: none. Frames follow the head. Valid until the next call. */
const struct sample_head *off_cpu_end(struct off_cpu *off_cpu, const struct sample_head *end);
void off_cpu_counters(const struct off_cpu *off_cpu, struct off_cpu_counters *ret);

#endif

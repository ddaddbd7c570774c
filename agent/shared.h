// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * What agent/sample.bpf.c and user space share beside the unwinder's tables: the record of one sample, and counters.
 */
#ifndef CAIRN_AGENT_SHARED_H
#define CAIRN_AGENT_SHARED_H

#include "agent/unwind/types.h"

enum {
	SAMPLE_COMM_BYTES = 16,
	SAMPLE_KERNEL_MAX = 127, /* kernel.perf_event_max_stack */
	SAMPLE_RING_BYTES = 4 << 20,
};

/* What a sample counts, and the type of profile it belongs to. */
enum sample_kind {
	SAMPLE_CPU,	/* value: ticks (1); a profile "samples" in "count", its period in nanoseconds of "cpu" */
	SAMPLE_OFF_CPU, /* value: nanoseconds that the thread did not run; the stack is where it left the CPU: "off_cpu" in "nanoseconds" */
	SAMPLE_EVENT,	/* value: 1, a probe was hit: "events" in "count" */
	SAMPLE_KINDS,
};

/* A record of the ring: this, then frame_count frames (types.h), then kernel_count addresses, all leaf first. */
struct sample_head {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 value;   /* in the unit of its kind */
	__u32 pid, tid;
	__u32 cpu;
	__u32 end; /* enum unwind_end; UNWIND_ENDS: no user part (a kernel thread) */
	__u16 frame_count, kernel_count;
	__u32 flags;
	__u32 kind; /* enum sample_kind */
	__u32 reserved;
	char comm[SAMPLE_COMM_BYTES];
};
_Static_assert(sizeof(struct sample_head) == 64, "layout shared with BPF");

enum sample_flag {
	SAMPLE_IN_KERNEL = 1, /* interrupted there; kernel frames come first */
	SAMPLE_BY_FRAME_POINTER = 2, /* some frames were found by frame pointers only */
};

struct sample_process {
	__u32 first_mapping, mapping_count;
};

/* Counters: the ends of stacks first (enum unwind_end), then these. */
enum sample_counter {
	SAMPLE_COUNT_TAKEN = UNWIND_ENDS, /* timer ticks of a process */
	SAMPLE_COUNT_IDLE,
	SAMPLE_COUNT_FILTERED,	/* of the agent itself */
	SAMPLE_COUNT_RING_FULL, /* lost */
	SAMPLE_COUNT_COMPAT,	/* 32-bit code: no user frames */
	SAMPLE_COUNT_KERNEL_THREAD,
	SAMPLE_COUNT_USER_REGS_BTF, /* interrupted in the kernel, user registers by bpf_task_pt_regs */
	SAMPLE_COUNT_USER_REGS_STACK, /* .. by the top of the kernel stack */
	SAMPLE_COUNT_NO_USER_REGS,
	SAMPLE_COUNT_NO_KERNEL_STACK,
	SAMPLE_COUNTERS,
};

#endif

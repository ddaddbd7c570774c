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
	SAMPLE_CUT_BYTES = 16384, /* of stack, at most */
	SAMPLE_PROCESSES = 65536,
	SAMPLE_OFF_CPU_THREADS = 16384, /* that wait to run again; the oldest is dropped */
};

/*
 * Tables of the unwinder that grow (BPF_MAP_TYPE_ARRAY_OF_MAPS): chunks of equal size, made when they are needed and given
 * back when they are empty. Index i is item i % CHUNK of chunk i / CHUNK; user space maps chunks side by side. Powers of two,
 * whole pages of 4 KiB.
 */
enum {
	SAMPLE_CHUNK_DELTAS = 1 << 17,  /* 512 KiB */
	SAMPLE_CHUNK_PAGES = 1 << 13,   /* 64 KiB */
	SAMPLE_CHUNK_MAPPINGS = 1 << 12, /* 128 KiB */
};

/* In which way the kernel half finds the user registers of a thread that is in the kernel. */
enum sample_regs_way {
	SAMPLE_REGS_STACK_TOP, /* top of the kernel stack that the stack pointer is on, believed by cs and ss */
	SAMPLE_REGS_TASK_STACK, /* top of task_struct.stack, whose place BTF tells */
	SAMPLE_REGS_HELPER,	/* bpf_task_pt_regs: Linux 5.15, and BTF */
};

/* What a sample counts, and the type of profile it belongs to. */
enum sample_kind {
	SAMPLE_CPU,	/* value: ticks (1); a profile "samples" in "count", its period in nanoseconds of "cpu" */
	SAMPLE_OFF_CPU, /* value: nanoseconds that the thread did not run; the stack is where it left the CPU: "off_cpu" in "nanoseconds" */
	SAMPLE_EVENT,	/* value: 1, a probe was hit: "events" in "count" */
	SAMPLE_KINDS,
};

/*
 * A record of the ring: this, then frame_count frames (types.h), then kernel_count addresses, all leaf first; then, with
 * cut_bytes, a struct sample_cut and a copy of the stack.
 */
struct sample_head {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 value;   /* in the unit of its kind */
	__u32 pid, tid;
	__u32 cpu;
	__u32 end; /* enum unwind_end; UNWIND_ENDS: no user part (a kernel thread) */
	__u16 frame_count, kernel_count;
	__u32 flags;
	__u32 kind; /* enum sample_kind */
	__u32 cut_bytes; /* of struct sample_cut and the copy; 0: none */
	char comm[SAMPLE_COMM_BYTES];
};
_Static_assert(sizeof(struct sample_head) == 64, "layout shared with BPF");

enum sample_flag {
	SAMPLE_IN_KERNEL = 1, /* interrupted there; kernel frames come first */
	SAMPLE_BY_FRAME_POINTER = 2, /* some frames were found by frame pointers only */
	SAMPLE_OFF_CPU_BEGIN = 4, /* the thread leaves the CPU: value comes with .. */
	SAMPLE_OFF_CPU_END = 8,	  /* .. this record, which has the tid, time_ns of the first, and no frames */
};

/* The unwinder where it met memory that is not known (yet), to be carried on in user space: then the stack from run.sp on. */
struct sample_cut {
	struct unwind_run run;
};

struct sample_process {
	__u32 first_mapping, mapping_count;
};

/* What stands in an off-CPU thread's place. */
struct sample_off_cpu {
	__u64 since_ns;
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
	SAMPLE_COUNT_USER_REGS_TASK, /* .. by task_struct.stack */
	SAMPLE_COUNT_USER_REGS_STACK, /* .. by the top of the kernel stack */
	SAMPLE_COUNT_NO_USER_REGS,
	SAMPLE_COUNT_NO_KERNEL_STACK,
	SAMPLE_COUNT_BUSY, /* lost: a probe was hit while another on this CPU was being unwound */
	SAMPLE_COUNT_CUT,  /* stacks that user space carries on */
	SAMPLE_COUNT_OFF_CPU_SWITCHES, /* threads that left a CPU .. */
	SAMPLE_COUNT_OFF_CPU_TAKEN,    /* .. and were sampled */
	SAMPLE_COUNT_EVENTS,	       /* probes hit */
	SAMPLE_COUNTERS,
};

#endif

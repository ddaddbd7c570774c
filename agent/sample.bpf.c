// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel half. Three occasions, each a record of the ring (agent/shared.h):
 *
 *     tick     a CPU's clock: who runs here
 *     switch   a thread leaves a CPU (sched_switch), with a probability: where; and when it runs again: for how long
 *     probe    a place in a program was reached (uprobe)
 *
 * Each takes registers of the user part (bpf/regs.h), follows its stack with agent/unwind/core.h, and adds the kernel's. UAPI
 * headers only, so that a build needs no BTF of any kernel; the few offsets of kernel structures that are needed are read from
 * the running kernel's BTF by user space and set before loading.
 *
 * The steps of the unwinder run under bpf_loop (5.17), so that a deep stack costs no tail calls and is verified once. For
 * older kernels each occasion has a second pair of programs: one that begins, and one that does TAIL_STEPS steps and calls
 * itself again, 33 times at most (the kernel's limit): 33 * TAIL_STEPS frames. User space loads one of both.
 *
 * A stack that ends where nothing is known yet (a process too young to have been read, an executable without its table) is sent
 * with the unwinder's state and a copy of the rest of the stack: user space, which soon knows more, carries on with the same
 * unwinder.
 *
 * Records are written without waking anybody; the reader looks every 100 ms, and is woken when the ring is half full.
 */
#include "agent/bpf/regs.h"

enum {
	TAIL_STEPS = 10,
	CUT_PIECE_BYTES = 256, /* read at once: what is past the stack's end fails as a whole */
};

const volatile __u32 agent_pid = 0; /* not sampled */
const volatile __u32 only_pid = 0;  /* 0: all */
const volatile __u32 ring_bytes = 4096;
const volatile __u32 off_cpu_threshold = 0; /* of 2^32: probability that a thread which leaves a CPU is sampled */

/* Keeps the compiler from testing another register than the one it then uses: the verifier would not see the bound. */
#define AS_IT_IS(value) asm volatile("" : "+r"(value))

/* 0: to be sampled; else a counter. */
ALWAYS int refused(__u64 ids)
{
	__u32 pid = ids >> 32;

	if ((__u32)ids == 0)
		return SAMPLE_COUNT_IDLE;
	return pid == agent_pid || (only_pid && pid != only_pid) ? SAMPLE_COUNT_FILTERED : 0;
}

ALWAYS void begin(struct scratch *scratch, __u32 kind, __u64 ids)
{
	scratch->head.time_ns = bpf_ktime_get_ns();
	scratch->head.value = 1;
	scratch->head.kind = kind;
	scratch->head.pid = ids >> 32;
	scratch->head.tid = (__u32)ids;
	scratch->head.cpu = bpf_get_smp_processor_id();
	scratch->head.flags = 0;
	scratch->head.cut_bytes = 0;
	bpf_get_current_comm(scratch->head.comm, sizeof(scratch->head.comm));
	scratch->run.frame_count = 0;
	scratch->run.end = UNWIND_ENDS;
}

/* Before the first step. 0: there is nothing to be followed, run.end says why. */
ALWAYS int user_begin(struct scratch *scratch, int why)
{
	struct unwind_run *run = &scratch->run;
	__u32 pid = scratch->head.pid;

	if (why) {
		count(why);
		return 0;
	}
	const struct sample_process *process = bpf_map_lookup_elem(&processes, &pid);
	run->is_interrupted = 1;
	run->is_leaf = 1;
	run->bx_at = 0;
	run->by_frame_pointer = 0;
	run->signals = 0;
	run->frame_pointer_steps = 0;
	if (!process) {
		run->end = UNWIND_END_NO_PROCESS;
		return 0;
	}
	run->end = UNWIND_END_FRAMES;
	run->first_mapping = process->first_mapping;
	run->mapping_count = process->mapping_count;
	return 1;
}

ALWAYS int step(struct scratch *scratch)
{
	int is_end = unwind_step(&scratch->run);

	if (scratch->run.by_frame_pointer)
		scratch->head.flags |= SAMPLE_BY_FRAME_POINTER;
	return is_end;
}

/* Puts state and stack behind the @slots frames. */
ALWAYS void copy_cut(struct scratch *scratch, __u64 slots)
{
	AS_IT_IS(slots);
	if (slots > SLOTS)
		return;
	struct sample_cut *cut = (struct sample_cut *)&scratch->frames[slots];
	char *bytes = (char *)(cut + 1);
	__u64 sp = scratch->run.sp;
	__u32 done = 0;

	cut->run = scratch->run;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SAMPLE_CUT_BYTES / CUT_PIECE_BYTES; i++) {
		if (bpf_probe_read_user(bytes + i * CUT_PIECE_BYTES, CUT_PIECE_BYTES, (const void *)(sp + i * CUT_PIECE_BYTES)))
			break;
		done += CUT_PIECE_BYTES;
	}
	scratch->head.cut_bytes = sizeof(*cut) + done;
	count(SAMPLE_COUNT_CUT);
}

ALWAYS void send(struct scratch *scratch, __u64 slots)
{
	__u64 size = sizeof(scratch->head) + slots * sizeof(__u64) + scratch->head.cut_bytes;
	__u64 flags = BPF_RB_NO_WAKEUP;

	if (size > sizeof(scratch->head) + sizeof(scratch->frames))
		return;
	/* A process that is not known and uses the CPU is read at once. */
	if (scratch->head.end == UNWIND_END_NO_PROCESS || bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > ring_bytes / 2)
		flags = BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_output(&ring, &scratch->head, size, flags))
		count(SAMPLE_COUNT_RING_FULL);
}

/* The user part is there, or there is none: the kernel's, and off it goes. */
ALWAYS void finish(void *ctx, struct scratch *scratch, int has_kernel)
{
	__u64 frames = scratch->run.frame_count, kernel = 0;
	__u32 end = scratch->run.end;

	if (end < UNWIND_ENDS)
		count(end);
	scratch->head.end = end;
	if (frames > UNWIND_FRAMES_MAX)
		return;
	if (has_kernel) {
		long bytes = bpf_get_stack(ctx, &scratch->frames[frames], SAMPLE_KERNEL_MAX * sizeof(__u64), 0);
		if (bytes > 0)
			kernel = (__u64)bytes / sizeof(__u64);
		else
			count(SAMPLE_COUNT_NO_KERNEL_STACK);
		AS_IT_IS(kernel);
		if (kernel > SAMPLE_KERNEL_MAX)
			return;
	}
	scratch->head.frame_count = (__u16)frames;
	scratch->head.kernel_count = (__u16)kernel;
	if (end == UNWIND_END_NO_PROCESS || end == UNWIND_END_NO_MAPPING || end == UNWIND_END_NO_TABLE)
		copy_cut(scratch, frames + kernel);
	send(scratch, frames + kernel);
	scratch->busy = 0;
}

static long one_step(__u32 index, void *kind)
{
	struct scratch *scratch = scratch_of(*(__u32 *)kind);

	return scratch ? step(scratch) : 1;
}

ALWAYS void follow_by_loop(__u32 kind)
{
	bpf_loop(UNWIND_FRAMES_MAX + 1, one_step, &kind, 0);
}

/* Up to TAIL_STEPS steps. 0: there are more to be done. */
ALWAYS int follow_some(struct scratch *scratch)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < TAIL_STEPS; i++)
		if (step(scratch))
			return 1;
	return 0;
}

/* ---------------------------------------------------------------------------------------- tick */

ALWAYS struct scratch *tick_begin(struct bpf_perf_event_data *ctx, int *more_ret)
{
	__u64 ids = bpf_get_current_pid_tgid();
	int why = refused(ids);

	if (why) {
		count(why);
		return 0;
	}
	struct scratch *scratch = scratch_of(SAMPLE_CPU);
	if (!scratch)
		return 0;
	count(SAMPLE_COUNT_TAKEN);
	begin(scratch, SAMPLE_CPU, ids);
	if (REGS_IN_KERNEL(&ctx->regs)) {
		scratch->head.flags = SAMPLE_IN_KERNEL;
		why = saved_regs(&scratch->run, REGS_STACK(&ctx->regs));
	} else {
		why = TAKE_USER_REGS(&scratch->run, &ctx->regs);
	}
	*more_ret = user_begin(scratch, why);
	return scratch;
}

SEC("perf_event")
int on_tick(struct bpf_perf_event_data *ctx)
{
	int more = 0;
	struct scratch *scratch = tick_begin(ctx, &more);

	if (!scratch)
		return 0;
	if (more)
		follow_by_loop(SAMPLE_CPU);
	finish(ctx, scratch, scratch->head.flags & SAMPLE_IN_KERNEL);
	return 0;
}

SEC("perf_event")
int on_tick_tail(struct bpf_perf_event_data *ctx)
{
	int more = 0;
	struct scratch *scratch = tick_begin(ctx, &more);

	if (!scratch)
		return 0;
	if (more)
		bpf_tail_call(ctx, &tick_programs, 0);
	finish(ctx, scratch, scratch->head.flags & SAMPLE_IN_KERNEL);
	return 0;
}

SEC("perf_event")
int tick_more(struct bpf_perf_event_data *ctx)
{
	struct scratch *scratch = scratch_of(SAMPLE_CPU);

	if (!scratch)
		return 0;
	if (!follow_some(scratch))
		bpf_tail_call(ctx, &tick_programs, 0);
	finish(ctx, scratch, scratch->head.flags & SAMPLE_IN_KERNEL);
	return 0;
}

/* ---------------------------------------------------------------------------------------- switch */

/* The thread that comes: how long was it away? */
ALWAYS void switch_in(struct scratch *scratch, __u64 next)
{
	__u32 tid = 0;

	if (bpf_probe_read_kernel(&tid, sizeof(tid), (const void *)(next + task_pid_off)) || tid == 0)
		return;
	const struct sample_off_cpu *left = bpf_map_lookup_elem(&off_cpu, &tid);
	if (!left)
		return;
	__u64 since_ns = left->since_ns;
	bpf_map_delete_elem(&off_cpu, &tid);
	scratch->head = (struct sample_head){.time_ns = since_ns, .value = bpf_ktime_get_ns() - since_ns, .tid = tid,
		.end = UNWIND_ENDS, .kind = SAMPLE_OFF_CPU, .flags = SAMPLE_OFF_CPU_END};
	send(scratch, 0);
}

ALWAYS struct scratch *switch_begin(struct bpf_raw_tracepoint_args *ctx, int *more_ret)
{
	__u64 ids = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)ids;
	struct scratch *scratch = scratch_of(SAMPLE_OFF_CPU);

	if (!scratch)
		return 0;
	switch_in(scratch, ctx->args[2]);
	if (refused(ids))
		return 0;
	count(SAMPLE_COUNT_OFF_CPU_SWITCHES);
	if (bpf_get_prandom_u32() >= off_cpu_threshold)
		return 0;
	begin(scratch, SAMPLE_OFF_CPU, ids);
	scratch->head.flags = SAMPLE_IN_KERNEL | SAMPLE_OFF_CPU_BEGIN;
	int why = saved_regs(&scratch->run, 0);
	/* Kernel threads wait for work all the time: nobody asks for that. */
	if (why == SAMPLE_COUNT_KERNEL_THREAD)
		return 0;
	struct sample_off_cpu left = {.since_ns = scratch->head.time_ns};
	if (bpf_map_update_elem(&off_cpu, &tid, &left, BPF_ANY))
		return 0;
	count(SAMPLE_COUNT_OFF_CPU_TAKEN);
	*more_ret = user_begin(scratch, why);
	return scratch;
}

SEC("raw_tracepoint/sched_switch")
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
	int more = 0;
	struct scratch *scratch = switch_begin(ctx, &more);

	if (!scratch)
		return 0;
	if (more)
		follow_by_loop(SAMPLE_OFF_CPU);
	finish(ctx, scratch, 1);
	return 0;
}

SEC("raw_tracepoint/sched_switch")
int on_switch_tail(struct bpf_raw_tracepoint_args *ctx)
{
	int more = 0;
	struct scratch *scratch = switch_begin(ctx, &more);

	if (!scratch)
		return 0;
	if (more)
		bpf_tail_call(ctx, &switch_programs, 0);
	finish(ctx, scratch, 1);
	return 0;
}

SEC("raw_tracepoint/sched_switch")
int switch_more(struct bpf_raw_tracepoint_args *ctx)
{
	struct scratch *scratch = scratch_of(SAMPLE_OFF_CPU);

	if (!scratch)
		return 0;
	if (!follow_some(scratch))
		bpf_tail_call(ctx, &switch_programs, 0);
	finish(ctx, scratch, 1);
	return 0;
}

/* ---------------------------------------------------------------------------------------- probe */

ALWAYS struct scratch *probe_begin(const user_regs_t *ctx, int *more_ret)
{
	__u64 ids = bpf_get_current_pid_tgid();

	if (refused(ids))
		return 0;
	struct scratch *scratch = scratch_of(SAMPLE_EVENT);
	if (!scratch)
		return 0;
	count(SAMPLE_COUNT_EVENTS);
	if (scratch->busy) { /* preempted by a thread that hits one, too */
		count(SAMPLE_COUNT_BUSY);
		return 0;
	}
	scratch->busy = 1;
	begin(scratch, SAMPLE_EVENT, ids);
	*more_ret = user_begin(scratch, TAKE_USER_REGS(&scratch->run, ctx));
	return scratch;
}

SEC("uprobe")
int on_probe(user_regs_t *ctx)
{
	int more = 0;
	struct scratch *scratch = probe_begin(ctx, &more);

	if (!scratch)
		return 0;
	if (more)
		follow_by_loop(SAMPLE_EVENT);
	finish(ctx, scratch, 0);
	return 0;
}

SEC("uprobe")
int on_probe_tail(user_regs_t *ctx)
{
	int more = 0;
	struct scratch *scratch = probe_begin(ctx, &more);

	if (!scratch)
		return 0;
	if (more)
		bpf_tail_call(ctx, &probe_programs, 0);
	finish(ctx, scratch, 0);
	return 0;
}

SEC("uprobe")
int probe_more(user_regs_t *ctx)
{
	struct scratch *scratch = scratch_of(SAMPLE_EVENT);

	if (!scratch)
		return 0;
	if (!follow_some(scratch))
		bpf_tail_call(ctx, &probe_programs, 0);
	finish(ctx, scratch, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/*
 * One tick of a CPU's clock: who runs here, its kernel stack, and its user stack by the unwinder of agent/unwind/core.h.
 * UAPI headers only, so that a build needs no BTF of any kernel. One program; the steps of the unwinder run under
 * bpf_loop (5.17), so that a deep stack costs no tail calls and is verified once.
 *
 * Registers of the user part: the tick's own when it hit user code; else what the kernel saved at its entry, by
 * bpf_task_pt_regs (5.15, needs BTF) or from the top of the 16 KiB kernel stack, believed only when cs and ss are those of
 * 64-bit user code.
 *
 * Records are written without waking anybody; the reader looks every 100 ms, and is woken when the ring is half full.
 */
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "agent/shared.h"
#include "agent/unwind/core.h"

#define ALWAYS static __attribute__((always_inline)) inline

enum {
	USER_CS = 0x33,
	USER_CS_COMPAT = 0x23,
	USER_SS = 0x2b,
	KERNEL_STACK_BYTES = 16384,
	SLOTS = UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX + 1,
};

const volatile __u32 agent_pid = 0;  /* not sampled */
const volatile __u32 only_pid = 0;   /* 0: all */
const volatile __u8 has_task_regs = 0; /* bpf_task_pt_regs works here */

struct scratch {
	struct unwind_run run; /* first: the unwinder's hooks come back from it */
	struct sample_head head;
	__u64 frames[SLOTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SAMPLE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SAMPLE_RING_BYTES);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct sample_process);
} processes SEC(".maps");

#define TABLE(name, value_type, entries)                                                           \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(map_flags, BPF_F_MMAPABLE);                                                 \
		__uint(max_entries, entries);                                                      \
		__type(key, __u32);                                                                \
		__type(value, value_type);                                                         \
	} name SEC(".maps")

/* Two deltas a value: an array's values are multiples of 8 bytes. Sizes are set before loading. */
struct delta_pair {
	struct unwind_delta items[2];
};
TABLE(mappings, struct unwind_mapping, 1);
TABLE(exes, struct unwind_exe, UNWIND_EXES_MAX);
TABLE(pages, struct unwind_page, 1);
TABLE(deltas, struct delta_pair, 1);
TABLE(infos, struct unwind_info, UNWIND_INFOS_MAX);

ALWAYS void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);
	if (value)
		*value += 1;
}

ALWAYS const struct unwind_mapping *unwind_mapping_at(struct unwind_run *run, __u32 index)
{
	return bpf_map_lookup_elem(&mappings, &index);
}

ALWAYS const struct unwind_exe *unwind_exe_at(struct unwind_run *run, __u32 exe)
{
	return bpf_map_lookup_elem(&exes, &exe);
}

ALWAYS const struct unwind_page *unwind_page_at(struct unwind_run *run, __u32 index)
{
	return bpf_map_lookup_elem(&pages, &index);
}

ALWAYS int unwind_delta_at(struct unwind_run *run, __u32 index, struct unwind_delta *ret)
{
	__u32 pair = index / 2;
	const struct delta_pair *deltas_here = bpf_map_lookup_elem(&deltas, &pair);
	if (!deltas_here)
		return -1;
	*ret = index & 1 ? deltas_here->items[1] : deltas_here->items[0];
	return 0;
}

ALWAYS const struct unwind_info *unwind_info_at(struct unwind_run *run, __u32 index)
{
	return bpf_map_lookup_elem(&infos, &index);
}

ALWAYS int unwind_read(struct unwind_run *run, __u64 address, __u64 *ret)
{
	return bpf_probe_read_user(ret, sizeof(*ret), (const void *)address) ? -1 : 0;
}

ALWAYS void unwind_store(struct unwind_run *run, __u32 at, __u64 frame)
{
	struct scratch *scratch = (struct scratch *)run;
	scratch->frames[at & (UNWIND_FRAMES_MAX - 1)] = frame;
}

static long one_step(__u32 index, void *context)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	if (!scratch)
		return 1;
	if (unwind_step(&scratch->run))
		return 1;
	if (scratch->run.by_frame_pointer)
		scratch->head.flags |= SAMPLE_BY_FRAME_POINTER;
	return 0;
}

ALWAYS void take_regs(struct unwind_run *run, const struct pt_regs *regs)
{
	run->pc = regs->rip;
	run->sp = regs->rsp;
	run->fp = regs->rbp;
	run->regs[0] = regs->rax;
	run->regs[1] = regs->rdx;
	run->regs[2] = regs->rcx;
	run->regs[3] = regs->rbx;
	run->regs[4] = regs->rsi;
	run->regs[5] = regs->rdi;
	run->regs[6] = regs->rbp;
	run->regs[7] = regs->rsp;
	run->regs[8] = regs->r8;
	run->regs[9] = regs->r9;
	run->regs[10] = regs->r10;
	run->regs[11] = regs->r11;
	run->regs[12] = regs->r12;
	run->regs[13] = regs->r13;
	run->regs[14] = regs->r14;
	run->regs[15] = regs->r15;
}

/* What the kernel saved when the task entered it. 0 when there is a 64-bit user part. */
ALWAYS int saved_regs(struct bpf_perf_event_data *ctx, struct pt_regs *regs)
{
	if (has_task_regs) {
		void *task = bpf_get_current_task_btf();
		void *saved = (void *)bpf_task_pt_regs(task);
		if (bpf_probe_read_kernel(regs, sizeof(*regs), saved))
			return SAMPLE_COUNT_NO_USER_REGS;
	} else {
		__u64 top = (ctx->regs.rsp & ~(__u64)(KERNEL_STACK_BYTES - 1)) + KERNEL_STACK_BYTES;
		if (bpf_probe_read_kernel(regs, sizeof(*regs), (const void *)(top - sizeof(*regs))))
			return SAMPLE_COUNT_NO_USER_REGS;
	}
	if ((regs->cs & 0xffff) == USER_CS_COMPAT)
		return SAMPLE_COUNT_COMPAT;
	if ((regs->cs & 0xffff) != USER_CS || (regs->ss & 0xffff) != USER_SS)
		return has_task_regs ? SAMPLE_COUNT_KERNEL_THREAD : SAMPLE_COUNT_NO_USER_REGS;
	count(has_task_regs ? SAMPLE_COUNT_USER_REGS_BTF : SAMPLE_COUNT_USER_REGS_STACK);
	return 0;
}

ALWAYS int user_regs(struct bpf_perf_event_data *ctx, struct unwind_run *run, int in_kernel)
{
	struct pt_regs regs;

	if (in_kernel) {
		int why = saved_regs(ctx, &regs);
		if (why)
			return why;
	} else {
		if ((ctx->regs.cs & 0xffff) == USER_CS_COMPAT)
			return SAMPLE_COUNT_COMPAT;
		regs.rip = ctx->regs.rip;
		regs.rsp = ctx->regs.rsp;
		regs.rbp = ctx->regs.rbp;
		regs.rax = ctx->regs.rax;
		regs.rdx = ctx->regs.rdx;
		regs.rcx = ctx->regs.rcx;
		regs.rbx = ctx->regs.rbx;
		regs.rsi = ctx->regs.rsi;
		regs.rdi = ctx->regs.rdi;
		regs.r8 = ctx->regs.r8;
		regs.r9 = ctx->regs.r9;
		regs.r10 = ctx->regs.r10;
		regs.r11 = ctx->regs.r11;
		regs.r12 = ctx->regs.r12;
		regs.r13 = ctx->regs.r13;
		regs.r14 = ctx->regs.r14;
		regs.r15 = ctx->regs.r15;
	}
	take_regs(run, &regs);
	return 0;
}

/* The user part of a sample: run->frame_count frames and run->end. */
ALWAYS void user_stack(struct scratch *scratch, __u32 pid)
{
	struct unwind_run *run = &scratch->run;
	const struct sample_process *process = bpf_map_lookup_elem(&processes, &pid);

	run->first_mapping = 0;
	run->mapping_count = 0;
	if (process) {
		run->first_mapping = process->first_mapping;
		run->mapping_count = process->mapping_count;
	}
	run->is_interrupted = 1;
	run->is_leaf = 1;
	run->by_frame_pointer = 0;
	run->signals = 0;
	run->frame_pointer_steps = 0;
	run->end = UNWIND_END_FRAMES;
	bpf_loop(UNWIND_FRAMES_MAX + 1, one_step, (void *)0, 0);
	if (!process)
		run->end = UNWIND_END_NO_PROCESS;
	count(run->end);
}

ALWAYS void send(struct scratch *scratch, __u32 frames, __u32 kernel)
{
	__u64 size = sizeof(scratch->head) + (__u64)(frames + kernel) * sizeof(__u64);
	__u64 flags = BPF_RB_NO_WAKEUP;

	if (size > sizeof(scratch->head) + sizeof(scratch->frames))
		return;
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > SAMPLE_RING_BYTES / 2)
		flags = BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_output(&ring, &scratch->head, size, flags))
		count(SAMPLE_COUNT_RING_FULL);
}

SEC("perf_event")
int on_tick(struct bpf_perf_event_data *ctx)
{
	__u64 ids = bpf_get_current_pid_tgid();
	__u32 pid = ids >> 32, zero = 0;
	int in_kernel = (ctx->regs.cs & 3) == 0;

	if ((__u32)ids == 0) {
		count(SAMPLE_COUNT_IDLE);
		return 0;
	}
	if (pid == agent_pid || (only_pid && pid != only_pid)) {
		count(SAMPLE_COUNT_FILTERED);
		return 0;
	}
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!scratch)
		return 0;
	count(SAMPLE_COUNT_TAKEN);
	scratch->head.time_ns = bpf_ktime_get_ns();
	scratch->head.value = 1;
	scratch->head.kind = SAMPLE_CPU;
	scratch->head.pid = pid;
	scratch->head.tid = (__u32)ids;
	scratch->head.cpu = bpf_get_smp_processor_id();
	scratch->head.flags = in_kernel ? SAMPLE_IN_KERNEL : 0;
	bpf_get_current_comm(scratch->head.comm, sizeof(scratch->head.comm));
	scratch->run.frame_count = 0;
	scratch->run.end = UNWIND_ENDS;
	int why = user_regs(ctx, &scratch->run, in_kernel);
	if (why)
		count(why);
	else
		user_stack(scratch, pid);
	scratch->head.end = scratch->run.end;

	__u64 frames = scratch->run.frame_count, kernel = 0;
	if (frames > UNWIND_FRAMES_MAX)
		return 0;
	if (in_kernel) {
		long bytes = bpf_get_stack(ctx, &scratch->frames[frames], SAMPLE_KERNEL_MAX * sizeof(__u64), 0);
		if (bytes > 0 && bytes <= (long)(SAMPLE_KERNEL_MAX * sizeof(__u64)))
			kernel = (__u64)bytes / sizeof(__u64);
		else
			count(SAMPLE_COUNT_NO_KERNEL_STACK);
	}
	scratch->head.frame_count = (__u16)frames;
	scratch->head.kernel_count = (__u16)kernel;
	send(scratch, (__u32)frames, (__u32)kernel);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/*
 * User registers of a thread, and what is told from them. Two machines: x86-64, and arm64, whose stacks are followed by frame
 * records only (x29 and x30 lie on the stack as rbp and the return address do), so its sp, x29 and pc take the places of rsp,
 * rbp and rip.
 *
 * In the kernel they are where its entry code saved them (enum sample_regs_way).
 */
#ifndef CAIRN_AGENT_BPF_REGS_H
#define CAIRN_AGENT_BPF_REGS_H

#include <linux/bpf_perf_event.h>
#include <linux/ptrace.h>

#include "agent/bpf/maps.h"

/* A task_struct's members, as far as BTF tells them. Each 0 where it does not. */
const volatile __u32 task_stack_off = 0;
const volatile __u32 task_pid_off = 0;
const volatile __u32 regs_way = SAMPLE_REGS_STACK_TOP;

enum { KERNEL_STACK_BYTES = 16384 }; /* x86-64, and arm64 with pages of 4 KiB */

#if defined(__x86_64__)
enum {
	USER_CS = 0x33,
	USER_CS_COMPAT = 0x23,
	USER_SS = 0x2b,
	SAVED_REGS_BYTES = sizeof(struct pt_regs), /* at the top of a kernel stack */
};
typedef struct pt_regs user_regs_t;

#define REGS_IN_KERNEL(regs) (((regs)->cs & 3) == 0)
#define REGS_STACK(regs) ((regs)->rsp)

ALWAYS void take_regs(struct unwind_run *run, const user_regs_t *regs)
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

ALWAYS int is_compat(const user_regs_t *regs)
{
	return (regs->cs & 0xffff) == USER_CS_COMPAT;
}

ALWAYS int is_user(const user_regs_t *regs)
{
	return (regs->cs & 0xffff) == USER_CS && (regs->ss & 0xffff) == USER_SS;
}

#elif defined(__aarch64__)
enum {
	PSTATE_MODE = 0x0f, /* 0: EL0 */
	PSTATE_32BIT = 0x10,
	SAVED_REGS_BYTES = 0, /* differs between kernels: only bpf_task_pt_regs finds them */
};
typedef struct user_pt_regs user_regs_t;

#define REGS_IN_KERNEL(regs) (((regs)->pstate & PSTATE_MODE) != 0)
#define REGS_STACK(regs) ((regs)->sp)

ALWAYS void take_regs(struct unwind_run *run, const user_regs_t *regs)
{
	run->pc = regs->pc;
	run->sp = regs->sp;
	run->fp = regs->regs[29];
	run->regs[UNWIND_REG_RBP] = regs->regs[29];
	run->regs[UNWIND_REG_RSP] = regs->sp;
}

ALWAYS int is_compat(const user_regs_t *regs)
{
	return (regs->pstate & PSTATE_32BIT) != 0;
}

ALWAYS int is_user(const user_regs_t *regs)
{
	return (regs->pstate & PSTATE_MODE) == 0;
}
#else
#error "no registers known for this machine"
#endif

/* What the kernel saved when the task entered it; @stack: an address on its kernel stack, 0 if none is known. 0, or a counter. */
ALWAYS int saved_regs(struct unwind_run *run, __u64 stack)
{
	user_regs_t regs;
	__u64 place = 0;

	if (regs_way == SAMPLE_REGS_HELPER) {
		place = (__u64)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
	} else if (regs_way == SAMPLE_REGS_TASK_STACK) {
		if (bpf_probe_read_kernel(&place, sizeof(place), (const char *)bpf_get_current_task() + task_stack_off))
			return SAMPLE_COUNT_NO_USER_REGS;
		place += KERNEL_STACK_BYTES - SAVED_REGS_BYTES;
	} else if (stack != 0 && SAVED_REGS_BYTES != 0) {
		place = (stack & ~(__u64)(KERNEL_STACK_BYTES - 1)) + KERNEL_STACK_BYTES - SAVED_REGS_BYTES;
	}
	if (bpf_probe_read_kernel(&regs, sizeof(regs), (const void *)place))
		return SAMPLE_COUNT_NO_USER_REGS;
	if (is_compat(&regs))
		return SAMPLE_COUNT_COMPAT;
	if (!is_user(&regs))
		return regs_way == SAMPLE_REGS_STACK_TOP ? SAMPLE_COUNT_NO_USER_REGS : SAMPLE_COUNT_KERNEL_THREAD;
	count(regs_way == SAMPLE_REGS_HELPER ? SAMPLE_COUNT_USER_REGS_BTF :
	      regs_way == SAMPLE_REGS_TASK_STACK ? SAMPLE_COUNT_USER_REGS_TASK : SAMPLE_COUNT_USER_REGS_STACK);
	take_regs(run, &regs);
	return 0;
}

/* Of what was interrupted. A macro: ctx must stay a context to the verifier. 0, or a counter. */
#define TAKE_USER_REGS(run, regs) (is_compat(regs) ? SAMPLE_COUNT_COMPAT : (take_regs(run, regs), 0))

#endif

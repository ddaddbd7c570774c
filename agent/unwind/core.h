// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The unwinder: registers and tables in, frames out. This file compiles as BPF (agent/sample.bpf.c) and natively
 * (agent/unwind/native.c), so that what runs in the kernel is tested on core dumps and fuzzed in user space.
 *
 * The includer gives what reads the tables and the process's memory; each may fail (NULL or non-zero):
 *
 *     static const struct unwind_mapping *unwind_mapping_at(struct unwind_run *run, __u32 index);   of all mappings
 *     static const struct unwind_exe *unwind_exe_at(struct unwind_run *run, __u32 exe);
 *     static const struct unwind_page *unwind_page_at(struct unwind_run *run, __u32 index);
 *     static int unwind_delta_at(struct unwind_run *run, __u32 index, struct unwind_delta *ret);
 *     static const struct unwind_info *unwind_info_at(struct unwind_run *run, __u32 index);
 *     static int unwind_read(struct unwind_run *run, __u64 address, __u64 *ret);
 *     static void unwind_store(struct unwind_run *run, __u32 at, __u64 frame);   at < UNWIND_FRAMES_MAX
 *
 * The tables may change under a running unwinder (user space replaces them): every index is checked where it is used, a
 * stale one gives a wrong or cut stack, never a fault. Each step costs two binary searches and two or three reads of user
 * memory (rbx is read only when a CFA counts from it); the number of steps is bounded by the caller.
 *
 * Return addresses: a caller's frame is looked up, and reported, at its return address minus 1, so that a call in a
 * function's last instruction belongs to that function. The leaf and the frame below a signal handler were interrupted,
 * they are taken as they are; so is a signal trampoline, at whose first instruction a handler's return address points.
 */
#ifndef CAIRN_AGENT_UNWIND_CORE_H
#define CAIRN_AGENT_UNWIND_CORE_H

#include "agent/unwind/types.h"

static const struct unwind_mapping *unwind_mapping_at(struct unwind_run *run, __u32 index);
static const struct unwind_exe *unwind_exe_at(struct unwind_run *run, __u32 exe);
static const struct unwind_page *unwind_page_at(struct unwind_run *run, __u32 index);
static int unwind_delta_at(struct unwind_run *run, __u32 index, struct unwind_delta *ret);
static const struct unwind_info *unwind_info_at(struct unwind_run *run, __u32 index);
static int unwind_read(struct unwind_run *run, __u64 address, __u64 *ret);
static void unwind_store(struct unwind_run *run, __u32 at, __u64 frame);

/* The mapping that holds @address: the last one that starts at or below it. */
static __attribute__((always_inline)) inline int unwind_find_mapping(struct unwind_run *run, __u64 address, struct unwind_mapping *ret)
{
	__u32 low = 0, high = run->mapping_count;

	for (int i = 0; i < UNWIND_MAPPING_STEPS; i++) {
		if (low + 1 >= high)
			break;
		__u32 middle = low + (high - low) / 2;
		const struct unwind_mapping *m = unwind_mapping_at(run, run->first_mapping + middle);
		if (!m)
			return -1;
		if (m->start <= address)
			low = middle;
		else
			high = middle;
	}
	if (run->mapping_count == 0)
		return -1;
	const struct unwind_mapping *m = unwind_mapping_at(run, run->first_mapping + low);
	if (!m)
		return -1;
	*ret = *m;
	return address >= ret->start && address < ret->end ? 0 : -1;
}

/* The info number for an ELF address of an executable, and how many bytes before it that info began. */
static __attribute__((always_inline)) inline __u32 unwind_find_info(struct unwind_run *run, __u32 exe, __u64 vaddr, __u32 *past_ret)
{
	const struct unwind_exe *e = unwind_exe_at(run, exe);
	__u64 page = vaddr >> UNWIND_PAGE_BITS;

	*past_ret = 0;
	if (!e)
		return UNWIND_NONE;
	if (page < e->page_base || page - e->page_base >= e->page_count)
		return e->otherwise;
	const struct unwind_page *p = unwind_page_at(run, e->first_page + (__u32)(page - e->page_base));
	if (!p || p->count == 0)
		return UNWIND_NONE;
	__u32 first = p->first, low = 0, high = p->count;
	struct unwind_delta delta;
	for (int i = 0; i < UNWIND_SEARCH_STEPS; i++) {
		if (low + 1 >= high)
			break;
		__u32 middle = low + (high - low) / 2;
		if (unwind_delta_at(run, first + middle, &delta))
			return UNWIND_NONE;
		if (delta.low <= (vaddr & UNWIND_PAGE_MASK))
			low = middle;
		else
			high = middle;
	}
	if (unwind_delta_at(run, first + low, &delta))
		return UNWIND_NONE;
	*past_ret = (__u32)(vaddr & UNWIND_PAGE_MASK) - delta.low;
	return delta.info;
}

/* A register as this frame sees it. Past the leaf rsp and rbp are followed, and where rbx is. */
static __attribute__((always_inline)) inline int unwind_register(struct unwind_run *run, __u32 reg, __u64 *ret)
{
	if (reg == UNWIND_REG_RSP)
		*ret = run->sp;
	else if (reg == UNWIND_REG_RBP)
		*ret = run->fp;
	else if (run->is_leaf || (reg == UNWIND_REG_RBX && run->bx_at == 0))
		*ret = run->regs[reg & (UNWIND_REGS - 1)];
	else if (reg == UNWIND_REG_RBX && run->bx_at != UNWIND_LOST)
		return unwind_read(run, run->bx_at, ret);
	else
		return -1;
	return 0;
}

static __attribute__((always_inline)) inline int unwind_end_with(struct unwind_run *run, __u32 end)
{
	run->end = end;
	return 1;
}

/* The canonical frame address by @info, @past bytes behind its beginning. 0, or the reason is in run->end. */
static __attribute__((always_inline)) inline int unwind_cfa_of(struct unwind_run *run, const struct unwind_info *info, __u32 past, __u64 *ret)
{
	__u64 value = 0;

	if (unwind_register(run, info->cfa_reg, &value))
		return unwind_end_with(run, UNWIND_END_NO_REGISTER);
	value += (__u64)(__s64)info->cfa_off;
	if (info->merge && past >= (info->merge & UNWIND_MERGE_AT))
		value += info->merge & UNWIND_MERGE_POP ? (__u64)-8 : 8;
	if (info->cfa == UNWIND_CFA_PLT) {
		if ((run->pc & 15) >= (__u64)(__u32)info->cfa_add)
			value += 8;
	} else if (info->cfa == UNWIND_CFA_DEREF) {
		__u64 place = value;
		if (unwind_read(run, place, &value))
			return unwind_end_with(run, run->is_leaf ? UNWIND_END_NO_STACK : UNWIND_END_READ);
		value += (__u64)(__s64)info->cfa_add;
	}
	*ret = value;
	return 0;
}

/* A saved register's value by its rule; @value keeps what it was for rules that say nothing. */
static __attribute__((always_inline)) inline int unwind_saved(struct unwind_run *run, __u32 rule, __u32 reg, __s32 off, __u64 cfa, __u64 *value)
{
	__u64 place = cfa;

	if (rule == UNWIND_RULE_REG)
		return unwind_register(run, reg, value) ? unwind_end_with(run, UNWIND_END_NO_REGISTER) : 0;
	if (rule != UNWIND_RULE_CFA && rule != UNWIND_RULE_MEM)
		return 0;
	if (rule == UNWIND_RULE_MEM && unwind_register(run, reg, &place))
		return unwind_end_with(run, UNWIND_END_NO_REGISTER);
	if (unwind_read(run, place + (__u64)(__s64)off, value))
		return unwind_end_with(run, run->is_leaf ? UNWIND_END_NO_STACK : UNWIND_END_READ);
	return 0;
}

/* Applies @info: the caller's registers. 0 to go on, 1 at the end. */
static __attribute__((always_inline)) inline int unwind_apply(struct unwind_run *run, const struct unwind_info *info, __u32 past)
{
	__u64 cfa = 0, pc = 0, fp = run->fp;

	if (info->cfa == UNWIND_CFA_STOP)
		return unwind_end_with(run, UNWIND_END_COMPLETE);
	if (info->cfa == UNWIND_CFA_NONE)
		return unwind_end_with(run, UNWIND_END_NO_INFO);
	if (info->cfa == UNWIND_CFA_PENDING)
		return unwind_end_with(run, UNWIND_END_NO_TABLE);
	if (unwind_cfa_of(run, info, past, &cfa))
		return 1;
	if (unwind_saved(run, info->ra, info->ra_reg, info->ra_off, cfa, &pc))
		return run->by_frame_pointer ? unwind_end_with(run, UNWIND_END_FRAME_POINTER) : 1;
	if (unwind_saved(run, info->fp, info->fp_reg, info->fp_off, cfa, &fp))
		return 1;
	/* A stack grows down, so a caller's frame is above; only a signal handler and Go's runtime may stand on a stack of their own. */
	if (!info->flags && (cfa < run->sp || (cfa == run->sp && info->ra != UNWIND_RULE_REG)))
		return unwind_end_with(run, run->by_frame_pointer ? UNWIND_END_FRAME_POINTER : UNWIND_END_PROGRESS);
	if (info->bx == UNWIND_RULE_CFA)
		run->bx_at = cfa + (__u64)(__s64)info->bx_off;
	else if (info->bx == UNWIND_RULE_MEM && info->bx_reg == UNWIND_REG_RSP)
		run->bx_at = run->sp + (__u64)(__s64)info->bx_off;
	else if (info->bx != UNWIND_RULE_SAME)
		run->bx_at = UNWIND_LOST;
	run->is_leaf = 0;
	run->is_interrupted = info->flags & UNWIND_SIGNAL;
	if (run->is_interrupted && run->signals < 255)
		run->signals++;
	run->pc = pc;
	run->sp = cfa;
	run->fp = fp;
	if (pc == 0)
		return unwind_end_with(run, run->by_frame_pointer ? UNWIND_END_FRAME_POINTER : UNWIND_END_COMPLETE);
	return 0;
}

static __attribute__((always_inline)) inline void unwind_report(struct unwind_run *run, __u64 frame)
{
	__u32 at = run->frame_count;

	if (at < UNWIND_FRAMES_MAX) {
		unwind_store(run, at & (UNWIND_FRAMES_MAX - 1), frame);
		run->frame_count = at + 1;
	}
}

/* One frame: reports where run->pc is, then finds its caller. 0 to go on, 1 at the end (run->end says which). */
static __attribute__((always_inline)) inline int unwind_step(struct unwind_run *run)
{
	struct unwind_mapping mapping;
	__u64 address = run->is_interrupted ? run->pc : run->pc - 1;
	__u32 number = UNWIND_FRAME_POINTER, past = 0;

	if (run->frame_count >= UNWIND_FRAMES_MAX)
		return unwind_end_with(run, UNWIND_END_FRAMES);
	if (unwind_find_mapping(run, address, &mapping)) {
		/* What a chain of frame pointers leads to may be anything: not reported unless it is code. */
		if (run->by_frame_pointer)
			return unwind_end_with(run, UNWIND_END_FRAME_POINTER);
		unwind_report(run, address & UNWIND_FRAME_ADDRESS_MASK);
		return unwind_end_with(run, UNWIND_END_NO_MAPPING);
	}
	__u64 vaddr = address - mapping.start + mapping.vaddr;
	if (mapping.kind == UNWIND_MAPPING_FILE)
		number = unwind_find_info(run, mapping.exe, vaddr, &past);
	/* Code without call frame information among other code: written by hand, mostly with a frame pointer (crtstuff.c is so). */
	if (number == UNWIND_NONE)
		number = UNWIND_FRAME_POINTER;
	run->by_frame_pointer = number == UNWIND_FRAME_POINTER;
	if (run->by_frame_pointer)
		run->frame_pointer_steps++;
	const struct unwind_info *info = unwind_info_at(run, number);
	if (!info)
		return unwind_end_with(run, UNWIND_END_NO_INFO);
	/* Nobody called a signal trampoline: a handler returns to its first instruction. */
	if ((info->flags & UNWIND_SIGNAL) && !run->is_interrupted) {
		address++;
		vaddr++;
	}
	if (mapping.exe != 0 && mapping.exe < UNWIND_EXES_MAX)
		unwind_report(run, (__u64)mapping.exe << UNWIND_FRAME_EXE_SHIFT | (vaddr & UNWIND_FRAME_ADDRESS_MASK));
	else
		unwind_report(run, address & UNWIND_FRAME_ADDRESS_MASK);
	return unwind_apply(run, info, past);
}

#endif

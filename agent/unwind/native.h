// SPDX-License-Identifier: Apache-2.0
/*
 * The unwinder of core.h on tables and memory in user space: for tests, fuzzing, and whoever has a stopped process.
 */
#ifndef CAIRN_AGENT_UNWIND_NATIVE_H
#define CAIRN_AGENT_UNWIND_NATIVE_H

#include "agent/unwind/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arrays as BPF maps hold them; an index past a count is answered as the kernel would: nothing there. */
struct unwind_world {
	const struct unwind_mapping *mappings; /* sorted by start, not overlapping */
	const struct unwind_exe *exes;
	const struct unwind_page *pages;
	const struct unwind_delta *deltas;
	const struct unwind_info *infos;
	size_t mapping_count, exe_count, page_count, delta_count, info_count;
	bool (*read)(void *context, uint64_t address, uint64_t *ret);
	void *context;
};

struct unwind_stack {
	__u64 frames[UNWIND_FRAMES_MAX]; /* leaf first, as types.h says */
	uint32_t count;
	enum unwind_end end;
};

/** The stack of a thread stopped with @p regs (DWARF numbers) at @p pc. Any thread. */
void unwind_native(const struct unwind_world *world, const uint64_t regs[UNWIND_REGS], uint64_t pc, struct unwind_stack *ret);

/**
 * Carries a stack on that ended early: @p run as it was left, its frames in @p ret already. The frame that it ended at is done
 * again. Any thread.
 */
void unwind_native_resume(const struct unwind_world *world, const struct unwind_run *run, struct unwind_stack *ret);

#endif

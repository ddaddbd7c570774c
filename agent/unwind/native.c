// SPDX-License-Identifier: Apache-2.0
/* core.h with BPF's helpers replaced by arrays and a callback. */
#include "agent/unwind/native.h"

#include "agent/unwind/core.h"

/* core.h's run must hold no pointer: in BPF it lives in a map. So it is the first member of what does. */
struct native_run {
	struct unwind_run run;
	const struct unwind_world *world;
	struct unwind_stack *stack;
};

static const struct unwind_world *world_of(struct unwind_run *run)
{
	return ((struct native_run *)run)->world;
}

#define AT(world, member, index) ((index) < (world)->member##_count ? &(world)->member##s[index] : NULL)

static const struct unwind_mapping *unwind_mapping_at(struct unwind_run *run, uint32_t index)
{
	const struct unwind_world *world = world_of(run);
	return AT(world, mapping, index);
}

static const struct unwind_exe *unwind_exe_at(struct unwind_run *run, uint32_t exe)
{
	const struct unwind_world *world = world_of(run);
	return AT(world, exe, exe);
}

static const struct unwind_page *unwind_page_at(struct unwind_run *run, uint32_t index)
{
	const struct unwind_world *world = world_of(run);
	return AT(world, page, index);
}

static int unwind_delta_at(struct unwind_run *run, uint32_t index, struct unwind_delta *ret)
{
	const struct unwind_world *world = world_of(run);
	const struct unwind_delta *delta = AT(world, delta, index);
	if (!delta)
		return -1;
	*ret = *delta;
	return 0;
}

static const struct unwind_info *unwind_info_at(struct unwind_run *run, uint32_t index)
{
	const struct unwind_world *world = world_of(run);
	return AT(world, info, index);
}

static int unwind_read(struct unwind_run *run, __u64 address, __u64 *ret)
{
	const struct unwind_world *world = world_of(run);
	uint64_t value = 0;
	if (!world->read(world->context, address, &value))
		return -1;
	*ret = value;
	return 0;
}

static void unwind_store(struct unwind_run *run, __u32 at, __u64 frame)
{
	((struct native_run *)run)->stack->frames[at] = frame;
}

static void run_to_end(struct native_run *native)
{
	struct unwind_run *run = &native->run;

	run->first_mapping = 0;
	run->mapping_count = (uint32_t)native->world->mapping_count;
	run->end = UNWIND_END_FRAMES;
	for (unsigned i = 0; i <= UNWIND_FRAMES_MAX; i++)
		if (unwind_step(run))
			break;
	native->stack->count = run->frame_count;
	native->stack->end = run->end;
}

void unwind_native(const struct unwind_world *world, const uint64_t regs[UNWIND_REGS], uint64_t pc, struct unwind_stack *ret)
{
	struct native_run native = {.world = world, .stack = ret};
	struct unwind_run *run = &native.run;

	*run = (struct unwind_run){.pc = pc, .sp = regs[UNWIND_REG_RSP], .fp = regs[UNWIND_REG_RBP], .is_interrupted = 1, .is_leaf = 1};
	for (unsigned i = 0; i < UNWIND_REGS; i++)
		run->regs[i] = regs[i];
	run_to_end(&native);
}

void unwind_native_resume(const struct unwind_world *world, const struct unwind_run *run, struct unwind_stack *ret)
{
	struct native_run native = {.run = *run, .world = world, .stack = ret};

	native.run.frame_count = ret->count > 0 ? ret->count - 1 : 0;
	run_to_end(&native);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The unwinder that the kernel runs, with tables and a stack that lie: any number in any table, any memory. It must end within
 * its frames, and report no more of them than there is room for. First registers and counts, then tables, the rest is memory.
 */
#include "agent/unwind/native.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAPPINGS = 4, EXES = 4, PAGES = 8, DELTAS = 32, INFOS = 16, STACK = 0x7000 };

struct input {
	const uint8_t *data;
	size_t size;
};

struct tables {
	struct unwind_mapping mappings[MAPPINGS];
	struct unwind_exe exes[EXES];
	struct unwind_page pages[PAGES];
	struct unwind_delta deltas[DELTAS];
	struct unwind_info infos[INFOS];
	uint64_t regs[UNWIND_REGS], pc;
	struct unwind_run run;
	uint8_t counts[5];
};

static bool read_memory(void *context, uint64_t address, uint64_t *ret)
{
	const struct input *input = context;

	if (address < STACK || input->size < sizeof(*ret) || address - STACK > input->size - sizeof(*ret))
		return false;
	memcpy(ret, input->data + (address - STACK), sizeof(*ret));
	return true;
}

static void check(const struct unwind_stack *stack)
{
	if (stack->count > UNWIND_FRAMES_MAX || stack->end >= UNWIND_ENDS)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct unwind_stack stack;
	struct tables t = {0};
	size_t taken = size < sizeof(t) ? size : sizeof(t);

	if (taken > 0)
		memcpy(&t, data, taken);
	struct input memory = {data + taken, size - taken};
	struct unwind_world world = {.mappings = t.mappings, .exes = t.exes, .pages = t.pages, .deltas = t.deltas, .infos = t.infos,
		.mapping_count = t.counts[0] % (MAPPINGS + 1), .exe_count = t.counts[1] % (EXES + 1), .page_count = t.counts[2] % (PAGES + 1),
		.delta_count = t.counts[3] % (DELTAS + 1), .info_count = t.counts[4] % (INFOS + 1), .read = read_memory, .context = &memory};
	unwind_native(&world, t.regs, t.pc, &stack);
	check(&stack);
	stack.count = t.run.frame_count % (UNWIND_FRAMES_MAX + 1);
	unwind_native_resume(&world, &t.run, &stack);
	check(&stack);
	return 0;
}

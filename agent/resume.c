// SPDX-License-Identifier: Apache-2.0
/*
 * The arrays are the kernel's own, mapped: what is built is the same for both. Memory is the copied stack, from the stack
 * pointer on; what lies elsewhere (a handler's stack, one deeper than SAMPLE_CUT_BYTES) ends the walk as unreadable.
 */
#include "agent/resume.h"

#include "agent/unwind/native.h"

#include <stdlib.h>
#include <string.h>

struct resume {
	struct tables *tables;
	const struct tables_arrays *arrays;
	struct resume_counters counters;
	struct sample_head head;
	struct unwind_stack stack;
	uint64_t frames[UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX];
};

struct copied {
	uint64_t start;
	const uint8_t *bytes;
	size_t len;
};

static bool read_copied(void *context, uint64_t address, uint64_t *ret)
{
	const struct copied *copied = context;
	uint64_t offset = address - copied->start;

	if (address < copied->start || copied->len < sizeof(*ret) || offset > copied->len - sizeof(*ret))
		return false;
	memcpy(ret, copied->bytes + offset, sizeof(*ret));
	return true;
}

struct err *resume_create(struct tables *tables, const struct tables_arrays *arrays, struct resume **ret)
{
	struct resume *r = calloc(1, sizeof(*r));

	if (!r)
		return err_nomem();
	r->tables = tables;
	r->arrays = arrays;
	*ret = r;
	return NULL;
}

void resume_destroy(struct resume *resume)
{
	free(resume);
}

/** Unwinds r->stack on. */
static struct err *carry_on(struct resume *r, const struct sample_head *head, const struct sample_cut *cut, const uint8_t *bytes, size_t len)
{
	struct copied copied = {.start = cut->run.sp, .bytes = bytes, .len = len};
	struct unwind_world world = {.exes = r->arrays->exes, .exe_count = UNWIND_EXES_MAX, .pages = r->arrays->pages,
		.page_count = r->arrays->page_count, .deltas = r->arrays->deltas, .delta_count = r->arrays->delta_count,
		.infos = r->arrays->infos, .info_count = UNWIND_INFOS_MAX, .read = read_copied, .context = &copied};
	bool has_execed = tables_has_execed(r->tables, head->pid);
	uint32_t count = 0;

	if (len == 0 && (head->flags & SAMPLE_IN_KERNEL)) { /* not a byte of its stack could be copied: it is in exit */
		r->stack.count = 0;
		r->stack.end = UNWIND_END_NO_STACK;
		return NULL;
	}
	TRY(tables_mappings(r->tables, head->pid, &world.mappings, &count));
	if (count > 0) {
		world.mapping_count = count;
		unwind_native_resume(&world, &cut->run, &r->stack);
	}
	/* Inside of exec the registers are still those of the program before, whose memory is gone. */
	if (has_execed && (head->flags & SAMPLE_IN_KERNEL) && r->stack.count <= 1 &&
		(r->stack.end == UNWIND_END_NO_MAPPING || r->stack.end == UNWIND_END_NO_PROCESS)) {
		r->stack.count = 0;
		r->stack.end = UNWIND_END_NO_STACK;
	}
	/* It lives, and uses the CPU: from now on the kernel half shall know it. */
	if (tables_knows(r->tables, head->pid))
		return NULL;
	TRY(tables_sync(r->tables, head->pid));
	TRY(tables_mappings(r->tables, head->pid, &world.mappings, &count));
	if (world.mapping_count > 0 || count == 0 || r->stack.end == UNWIND_END_NO_STACK)
		return NULL;
	world.mapping_count = count;
	unwind_native_resume(&world, &cut->run, &r->stack);
	return NULL;
}

struct err *resume_sample(struct resume *r, const struct sample_head *head, const uint64_t *frames, const struct sample_head **head_ret,
	const uint64_t **frames_ret)
{
	uint32_t user = head->frame_count, kernel = head->kernel_count;
	struct sample_cut cut;

	*head_ret = head;
	*frames_ret = frames;
	if (head->cut_bytes < sizeof(cut) || user > UNWIND_FRAMES_MAX || kernel > SAMPLE_KERNEL_MAX || head->end >= UNWIND_ENDS)
		return NULL;
	memcpy(&cut, frames + user + kernel, sizeof(cut));
	memcpy(r->stack.frames, frames, user * sizeof(*frames));
	r->stack.count = user;
	r->stack.end = head->end;
	TRY(carry_on(r, head, &cut, (const uint8_t *)(frames + user + kernel) + sizeof(cut), head->cut_bytes - sizeof(cut)));
	r->counters.taken++;
	r->counters.before[head->end]++;
	r->counters.ends[r->stack.end]++;
	r->head = *head;
	r->head.cut_bytes = 0;
	r->head.frame_count = (uint16_t)r->stack.count;
	r->head.end = r->stack.end;
	memcpy(r->frames, r->stack.frames, r->stack.count * sizeof(*frames));
	memcpy(r->frames + r->stack.count, frames + user, kernel * sizeof(*frames));
	*head_ret = &r->head;
	*frames_ret = r->frames;
	return NULL;
}

void resume_counters(const struct resume *resume, struct resume_counters *ret)
{
	*ret = resume->counters;
}

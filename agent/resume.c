// SPDX-License-Identifier: Apache-2.0
/*
 * The arrays are the kernel's own, mapped: what is built is the same for both. Memory is the copied stack, from the stack
 * pointer on; what lies elsewhere (a handler's stack, one deeper than SAMPLE_CUT_BYTES) ends the walk as unreadable.
 *
 * A sample that waits is kept as it came, with a copy of the mappings that its addresses were looked up in: by the time its
 * table is there the process may be gone, or be another program. It is unwound from the beginning each time.
 */
#include "agent/resume.h"

#include "agent/unwind/native.h"

#include <stdlib.h>
#include <string.h>

struct waiting {
	struct waiting *next;
	uint64_t until_ms;
	size_t bytes; /* of all this */
	uint32_t exe; /* whose table it waits for */
	uint32_t mapping_count;
	struct unwind_mapping *mappings;
	struct sample_head head; /* as it came; frames and what was cut follow */
	uint64_t frames[];
};

struct resume {
	struct tables *tables;
	const struct tables_arrays *arrays;
	struct resume_counters counters;
	struct sample_head head;
	struct unwind_stack stack;
	uint64_t frames[UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX];
	struct waiting *first, **end; /* in the order they came */
	struct waiting **at;	      /* where resume_next goes on */
	size_t waiting_bytes;
	uint32_t gone[RESUME_GONE_MAX], gone_count; /* resume_keep */
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
	r->end = r->at = &r->first;
	*ret = r;
	return NULL;
}

void resume_destroy(struct resume *resume)
{
	if (!resume)
		return;
	for (struct waiting *w = resume->first; w;) {
		struct waiting *next = w->next;
		free(w);
		w = next;
	}
	free(resume);
}

/** Unwinds r->stack on, from where the kernel half left it, with these mappings. */
static void unwind(struct resume *r, const struct sample_cut *cut, size_t len, const struct unwind_mapping *mappings, uint32_t count)
{
	struct copied copied = {.start = cut->run.sp, .bytes = (const uint8_t *)(cut + 1), .len = len};
	struct unwind_world world = {.mappings = mappings, .mapping_count = count, .exes = r->arrays->exes, .exe_count = UNWIND_EXES_MAX,
		.pages = r->arrays->pages, .page_count = r->arrays->page_count, .deltas = r->arrays->deltas, .delta_count = r->arrays->delta_count,
		.infos = r->arrays->infos, .info_count = UNWIND_INFOS_MAX, .read = read_copied, .context = &copied};

	unwind_native_resume(&world, &cut->run, &r->stack);
}

/** Unwinds r->stack on; the mappings it was done with (none: borrowed until the next call of tables) are in @p mappings_ret. */
static struct err *carry_on(struct resume *r, const struct sample_head *head, const struct sample_cut *cut, size_t len,
	const struct unwind_mapping **mappings_ret, uint32_t *count_ret)
{
	bool has_execed = tables_has_execed(r->tables, head->pid);

	*count_ret = 0;
	if (len == 0 && (head->flags & SAMPLE_IN_KERNEL)) { /* not a byte of its stack could be copied: it is in exit */
		r->stack.count = 0;
		r->stack.end = UNWIND_END_NO_STACK;
		return NULL;
	}
	TRY(tables_mappings(r->tables, head->pid, mappings_ret, count_ret));
	if (*count_ret > 0)
		unwind(r, cut, len, *mappings_ret, *count_ret);
	/* Inside of exec the registers are still those of the program before, whose memory is gone. */
	if (has_execed && (head->flags & SAMPLE_IN_KERNEL) && r->stack.count <= 1 &&
		(r->stack.end == UNWIND_END_NO_MAPPING || r->stack.end == UNWIND_END_NO_PROCESS)) {
		r->stack.count = 0;
		r->stack.end = UNWIND_END_NO_STACK;
	}
	/* It lives, and uses the CPU: from now on the kernel half shall know it. */
	bool is_done = *count_ret > 0 || r->stack.end == UNWIND_END_NO_STACK;
	if (tables_knows(r->tables, head->pid))
		return NULL;
	TRY(tables_sync(r->tables, head->pid));
	TRY(tables_mappings(r->tables, head->pid, mappings_ret, count_ret));
	if (*count_ret > 0 && (!is_done || r->stack.end == UNWIND_END_NO_MAPPING)) { /* events may have missed one */
		r->stack.count = head->frame_count;
		r->stack.end = head->end;
		unwind(r, cut, len, *mappings_ret, *count_ret);
	}
	return NULL;
}

/** Where a stack ended for want of a table. */
static uint32_t wanted_exe(const struct resume *r)
{
	return r->stack.end == UNWIND_END_NO_TABLE && r->stack.count > 0 ? (uint32_t)(r->stack.frames[r->stack.count - 1] >> UNWIND_FRAME_EXE_SHIFT) : 0;
}

static struct err *wait_for(struct resume *r, const struct sample_head *head, const uint64_t *frames, const struct unwind_mapping *mappings,
	uint32_t count, uint64_t now_ms)
{
	size_t record = ((size_t)head->frame_count + head->kernel_count) * sizeof(*frames) + head->cut_bytes, own = count * sizeof(*mappings);
	size_t bytes = sizeof(struct waiting) + record + own;
	struct waiting *w = malloc(bytes);

	if (!w)
		return err_nomem();
	*w = (struct waiting){.until_ms = now_ms + RESUME_WAIT_MS, .bytes = bytes, .exe = wanted_exe(r), .mapping_count = count, .head = *head};
	memcpy(w->frames, frames, record);
	w->mappings = (struct unwind_mapping *)(void *)((char *)w->frames + record); /* a multiple of 8 */
	memcpy(w->mappings, mappings, own);
	*r->end = w;
	r->end = &w->next;
	r->waiting_bytes += bytes;
	r->counters.waiting++;
	return NULL;
}

/** r->stack is how it ended: the sample as it goes on. */
static void give(struct resume *r, const struct sample_head *head, const uint64_t *kernel, const struct sample_head **head_ret, const uint64_t **frames_ret)
{
	r->counters.taken++;
	r->counters.before[head->end]++;
	r->counters.ends[r->stack.end]++;
	r->head = *head;
	r->head.cut_bytes = 0;
	r->head.frame_count = (uint16_t)r->stack.count;
	r->head.end = r->stack.end;
	memcpy(r->frames, r->stack.frames, r->stack.count * sizeof(*r->frames));
	memcpy(r->frames + r->stack.count, kernel, head->kernel_count * sizeof(*kernel));
	*head_ret = &r->head;
	*frames_ret = r->frames;
}

static void begin(struct resume *r, const struct sample_head *head, const uint64_t *frames)
{
	memcpy(r->stack.frames, frames, head->frame_count * sizeof(*frames));
	r->stack.count = head->frame_count;
	r->stack.end = head->end;
}

static bool is_sound(const struct sample_head *head)
{
	return head->cut_bytes >= sizeof(struct sample_cut) && head->frame_count <= UNWIND_FRAMES_MAX && head->kernel_count <= SAMPLE_KERNEL_MAX &&
	       head->end < UNWIND_ENDS;
}

struct err *resume_sample(struct resume *r, const struct sample_head *head, const uint64_t *frames, uint64_t now_ms, const struct sample_head **head_ret,
	const uint64_t **frames_ret)
{
	const uint64_t *kernel = frames + head->frame_count;
	const struct unwind_mapping *mappings = NULL;
	uint32_t count = 0;

	*head_ret = head;
	*frames_ret = frames;
	if (!is_sound(head))
		return NULL;
	const struct sample_cut *cut = (const struct sample_cut *)(const void *)(kernel + head->kernel_count);
	begin(r, head, frames);
	TRY(carry_on(r, head, cut, head->cut_bytes - sizeof(*cut), &mappings, &count));
	if (wanted_exe(r) && tables_want(r->tables, head->pid, wanted_exe(r), mappings, count)) {
		if (count <= RESUME_WAITING_MAPPINGS && r->waiting_bytes < RESUME_WAITING_BYTES) {
			*head_ret = NULL;
			return wait_for(r, head, frames, mappings, count, now_ms);
		}
		r->counters.full++;
	}
	give(r, head, kernel, head_ret, frames_ret);
	return NULL;
}

void resume_skip(struct resume *r, const struct sample_head *head)
{
	if (head->end < UNWIND_ENDS)
		r->counters.before[head->end]++;
}

/** One that waits, again. True: it waits on. */
static bool waits_on(struct resume *r, struct waiting *w, bool is_late)
{
	const struct sample_cut *cut = (const struct sample_cut *)(const void *)(w->frames + w->head.frame_count + w->head.kernel_count);

	if (!is_late && tables_is_pending(r->tables, w->exe))
		return true;
	begin(r, &w->head, w->frames);
	unwind(r, cut, w->head.cut_bytes - sizeof(*cut), w->mappings, w->mapping_count);
	w->exe = wanted_exe(r);
	if (!w->exe)
		return false;
	r->counters.late += is_late;
	return !is_late && tables_want(r->tables, w->head.pid, w->exe, w->mappings, w->mapping_count);
}

bool resume_next(struct resume *r, uint64_t now_ms, bool give_up, const struct sample_head **head_ret, const uint64_t **frames_ret)
{
	while (*r->at) {
		struct waiting *w = *r->at;
		if (waits_on(r, w, give_up || now_ms >= w->until_ms)) {
			r->at = &w->next;
			continue;
		}
		*r->at = w->next;
		if (r->end == &w->next)
			r->end = r->at;
		r->waiting_bytes -= w->bytes;
		r->counters.waiting--;
		give(r, &w->head, w->frames + w->head.frame_count, head_ret, frames_ret);
		free(w);
		return true;
	}
	r->at = &r->first;
	return false;
}

static bool holds(const struct resume *r, uint32_t pid)
{
	for (const struct waiting *w = r->first; w; w = w->next)
		if (w->head.pid == pid)
			return true;
	return false;
}

bool resume_keep(struct resume *r, uint32_t pid)
{
	if (r->gone_count == RESUME_GONE_MAX || !holds(r, pid))
		return false;
	r->gone[r->gone_count++] = pid;
	return true;
}

bool resume_released(struct resume *r, uint32_t reused, uint32_t *pid_ret)
{
	for (uint32_t i = 0; i < r->gone_count; i++) {
		if (r->gone[i] != reused && holds(r, r->gone[i]))
			continue;
		*pid_ret = r->gone[i];
		r->gone[i] = r->gone[--r->gone_count];
		return true;
	}
	return false;
}

void resume_counters(const struct resume *resume, struct resume_counters *ret)
{
	*ret = resume->counters;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Each kind is an array; a hash map leads from the digest of what a thing is to its number, so that equal things are one. Numbers of
 * executables that the tables give out again are no danger: an executable is told apart by its file, at every frame.
 */
#include "agent/things.h"

#include "agent/kinds.h"
#include "base/digest.h"
#include "base/hmap.h"
#include "base/intern.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

struct executable {
	struct fileid file_id;
	struct build_id build_id;
	uint32_t name; /* string */
	uint32_t first_segment, segment_count;
	uint32_t last_pid; /* that had a sample in it */
	bool kernel;
};

struct trace {
	uint32_t first, depth; /* of path */
};

struct array {
	void *items;
	uint32_t count, cap;
};

struct things {
	uint32_t references;
	const struct tables *tables;
	const struct kernel *kernel;
	uint32_t hz;
	struct intern strings;
	struct array executables, segments, frames, traces, path, processes, threads;
	struct hmap executable_index, frame_index, trace_index, process_index, thread_index;
	uint32_t exe_things[UNWIND_EXES_MAX]; /* tables' number -> thing + 1, checked against the file */
	uint32_t stack[UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX];
};

struct err *things_create(const struct tables *tables, const struct kernel *kernel, uint32_t hz, struct things **ret)
{
	struct things *t = calloc(1, sizeof(*t));

	if (!t)
		return err_nomem();
	t->references = 1;
	t->tables = tables;
	t->kernel = kernel;
	t->hz = hz;
	*ret = t;
	return NULL;
}

struct things *things_hold(struct things *things)
{
	things->references++;
	return things;
}

void things_release(struct things *t)
{
	if (!t || --t->references > 0)
		return;
	struct array *arrays[] = {&t->executables, &t->segments, &t->frames, &t->traces, &t->path, &t->processes, &t->threads};
	struct hmap *maps[] = {&t->executable_index, &t->frame_index, &t->trace_index, &t->process_index, &t->thread_index};
	for (size_t i = 0; i < ARRAY_SIZE(arrays); i++)
		free(arrays[i]->items);
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++)
		hmap_deinit(maps[i]);
	intern_deinit(&t->strings);
	free(t);
}

size_t things_bytes(const struct things *t)
{
	const struct hmap *maps[] = {&t->executable_index, &t->frame_index, &t->trace_index, &t->process_index, &t->thread_index};
	size_t bytes = sizeof(*t) + t->strings.blob.cap + t->strings.offsets_cap * sizeof(uint32_t) +
		       (t->strings.slots ? t->strings.slot_mask + 1 : 0) * sizeof(struct intern_slot);

	for (size_t i = 0; i < ARRAY_SIZE(maps); i++)
		bytes += (maps[i]->slots ? maps[i]->mask + 1 : 0) * sizeof(struct hmap_slot);
	return bytes + t->executables.cap * sizeof(struct executable) + t->segments.cap * sizeof(struct agent_segment) +
	       t->frames.cap * sizeof(struct agent_sender_frame) + t->traces.cap * sizeof(struct trace) + t->path.cap * sizeof(uint32_t) +
	       t->processes.cap * sizeof(struct agent_sender_process) + t->threads.cap * sizeof(struct agent_sender_thread);
}

/* -------------------------------------------------------------------------------------- adding */

/** Room for @p count more items of @p size; where the first of them goes. */
static struct err *extend(struct array *array, uint32_t count, size_t size, void *first_ret)
{
	uint64_t cap = array->cap ? array->cap : 16;

	while (cap - array->count < count)
		cap *= 2;
	if (cap > UINT32_MAX / 2)
		return err_new(ERR_LIMIT, "too many different stacks");
	if (cap > array->cap) {
		void *items = reallocarray(array->items, cap, size);
		if (!items)
			return err_nomem();
		array->items = items;
		array->cap = (uint32_t)cap;
	}
	*(void **)first_ret = (uint8_t *)array->items + array->count * size;
	return NULL;
}

/** Number of an item equal to the bytes digested, or that of the new one at the end of @p array, which the caller fills. */
static struct err *find_or_add(struct hmap *index, uint64_t digest, struct array *array, size_t size, uint32_t *ret, void *new_ret)
{
	uint64_t known = 0;

	*(void **)new_ret = NULL;
	if (hmap_get(index, digest, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	TRY(extend(array, 1, size, new_ret));
	TRY(hmap_set(index, digest, array->count));
	*ret = array->count++;
	return NULL;
}

static struct err *string(struct things *t, const char *text, uint32_t *ret)
{
	if (text && text[0])
		return intern_add(&t->strings, text, strlen(text), ret);
	*ret = AGENT_SENDER_NONE;
	return NULL;
}

static struct err *add_segments(struct things *t, const struct load_segments *segments, struct executable *executable)
{
	struct agent_segment *at;

	TRY(extend(&t->segments, (uint32_t)segments->count, sizeof(*at), &at));
	executable->first_segment = t->segments.count;
	executable->segment_count = (uint32_t)segments->count;
	for (size_t i = 0; i < segments->count; i++) {
		const struct load_segment *from = &segments->items[i];
		at[i] = (struct agent_segment){.offset = from->foff, .vaddr = from->vaddr, .size = from->size, .executable = from->executable};
	}
	t->segments.count += executable->segment_count;
	return NULL;
}

static struct err *add_executable(struct things *t, const struct place *place, uint32_t *ret)
{
	const struct fileid *file_id = place->exe ? &place->exe->file_id : &place->module->file_id;
	struct executable *added, made = {.file_id = *file_id, .kernel = place->in_kernel};

	/* Modules without a build ID have one file ID: then the name tells. */
	const char *name = place->exe ? place->exe->name : place->module->name;
	uint64_t digest = digest_xxh3_64(file_id, sizeof(*file_id)) ^ (place->in_kernel ? digest_xxh3_64(name, strlen(name)) : 0);
	TRY(string(t, name, &made.name));
	TRY(find_or_add(&t->executable_index, digest, &t->executables, sizeof(*added), ret, &added));
	if (!added)
		return NULL;
	made.build_id = place->exe ? place->exe->build_id : place->module->build_id;
	*added = made;
	if (!place->exe)
		return NULL;
	TRY(add_segments(t, &place->exe->segments, &made));
	((struct executable *)t->executables.items)[*ret] = made;
	return NULL;
}

static struct err *executable(struct things *t, const struct place *place, uint32_t pid, uint32_t *ret)
{
	struct executable *items = t->executables.items;

	*ret = AGENT_SENDER_NONE;
	if (!place->exe && !place->module)
		return NULL;
	uint32_t known = place->exe ? t->exe_things[place->exe_number] : 0;
	if (known && fileid_equal(&items[known - 1].file_id, &place->exe->file_id)) {
		*ret = known - 1;
	} else {
		TRY(add_executable(t, place, ret));
		if (place->exe)
			t->exe_things[place->exe_number] = *ret + 1;
	}
	((struct executable *)t->executables.items)[*ret].last_pid = pid;
	return NULL;
}

static struct err *frame(struct things *t, const struct place *place, uint32_t pid, uint32_t *ret)
{
	struct agent_sender_frame *added, made = {
		.kind = place->in_kernel ? 1 : place->is_code ? 2 : 0, .address = place->address, .file = AGENT_SENDER_NONE};

	TRY(executable(t, place, pid, &made.executable));
	TRY(string(t, place->function, &made.function));
	const uint64_t key[3] = {(uint64_t)made.kind << 32 | made.executable, made.address, made.function};
	TRY(find_or_add(&t->frame_index, digest_xxh3_64(key, sizeof(key)), &t->frames, sizeof(*added), ret, &added));
	if (added)
		*added = made;
	return NULL;
}

static struct err *trace(struct things *t, uint32_t depth, uint32_t *ret)
{
	struct trace *added;
	uint32_t *path;

	TRY(extend(&t->path, depth, sizeof(*path), &path));
	TRY(find_or_add(&t->trace_index, digest_xxh3_64(t->stack, depth * sizeof(*t->stack)), &t->traces, sizeof(*added), ret, &added));
	if (!added)
		return NULL;
	memcpy(path, t->stack, depth * sizeof(*path));
	*added = (struct trace){.first = t->path.count, .depth = depth};
	t->path.count += depth;
	return NULL;
}

static struct err *process(struct things *t, const struct process_info *info, uint32_t *ret)
{
	struct agent_sender_process *added, made = {.pid = info->pid};

	TRY(find_or_add(&t->process_index, info->serial, &t->processes, sizeof(*added), ret, &added));
	if (!added)
		return NULL;
	TRY(string(t, info->executable, &made.executable));
	TRY(string(t, info->executable_path, &made.executable_path));
	TRY(string(t, info->service, &made.service));
	TRY(string(t, info->container.id, &made.container));
	for (size_t i = 0; i < info->label_count; i++) {
		TRY(string(t, info->labels[i].key, &made.labels[2 * i]));
		TRY(string(t, info->labels[i].value, &made.labels[2 * i + 1]));
	}
	made.label_count = (uint32_t)info->label_count;
	*added = made;
	return NULL;
}

static struct err *thread(struct things *t, const struct sample_head *head, const struct process_info *info, uint32_t *ret)
{
	struct agent_sender_thread *added, made = {.tid = head->tid};
	char comm[SAMPLE_COMM_BYTES + 1] = "";

	memcpy(comm, head->comm, SAMPLE_COMM_BYTES);
	TRY(process(t, info, &made.process));
	TRY(string(t, comm, &made.name));
	TRY(find_or_add(&t->thread_index, digest_xxh3_64(&made, sizeof(made)), &t->threads, sizeof(*added), ret, &added));
	if (added)
		*added = made;
	return NULL;
}

struct err *things_sample(struct things *t, const struct sample_head *head, const uint64_t *frames, const struct process_info *info,
	struct agent_sample *ret)
{
	uint32_t depth = place_depth(head);
	bool in_kernel = false;

	for (uint32_t i = 0; i < depth; i++) {
		uint64_t raw = place_raw(head, frames, i, &in_kernel);
		struct place place = place_of_frame(t->tables, t->kernel, raw, in_kernel);
		TRY(frame(t, &place, head->pid, &t->stack[i]));
	}
	TRY(trace(t, depth, &ret->trace));
	return thread(t, head, info, &ret->thread);
}

uint32_t things_user_of(const struct things *t, const struct fileid *file_id)
{
	const struct executable *items = t->executables.items;

	for (uint32_t i = 0; i < t->executables.count; i++)
		if (!items[i].kernel && fileid_equal(&items[i].file_id, file_id))
			return items[i].last_pid;
	return 0;
}

/* -------------------------------------------------------------------------------------- what they are */

static struct wire_span span(const void *bytes, size_t len)
{
	return (struct wire_span){bytes, len};
}

static struct wire_span text_span(const char *text)
{
	return span(text, strlen(text));
}

static void string_of(void *things, uint32_t thing, const char **text_ret, size_t *len_ret)
{
	*text_ret = intern_text(&((const struct things *)things)->strings, thing);
	*len_ret = strlen(*text_ret);
}

static void executable_of(void *things, uint32_t thing, struct agent_executable *ret, const struct agent_segment **segments_ret, size_t *count_ret)
{
	const struct things *t = things;
	const struct executable *e = (const struct executable *)t->executables.items + thing;

	*ret = (struct agent_executable){.file_id = span(e->file_id.bytes, sizeof(e->file_id.bytes)),
		.build_id = span(e->build_id.bytes, e->build_id.len),
		.elf_machine = EM_X86_64,
		.kernel = e->kernel};
	if (e->name != AGENT_SENDER_NONE)
		ret->name = text_span(intern_text(&t->strings, e->name));
	*segments_ret = (const struct agent_segment *)t->segments.items + e->first_segment;
	*count_ret = e->segment_count;
}

static void frame_of(void *things, uint32_t thing, struct agent_sender_frame *ret)
{
	*ret = ((const struct agent_sender_frame *)((const struct things *)things)->frames.items)[thing];
}

static void trace_of(void *things, uint32_t thing, const uint32_t **frames_ret, uint32_t *depth_ret)
{
	const struct things *t = things;
	const struct trace *item = (const struct trace *)t->traces.items + thing;

	*frames_ret = (const uint32_t *)t->path.items + item->first;
	*depth_ret = item->depth;
}

static void process_of(void *things, uint32_t thing, struct agent_sender_process *ret)
{
	*ret = ((const struct agent_sender_process *)((const struct things *)things)->processes.items)[thing];
}

static void thread_of(void *things, uint32_t thing, struct agent_sender_thread *ret)
{
	*ret = ((const struct agent_sender_thread *)((const struct things *)things)->threads.items)[thing];
}

static void type_of(void *things, uint32_t thing, struct agent_type *ret)
{
	const struct kind *kind = kind_of(thing);

	*ret = (struct agent_type){.type = text_span(kind->type), .unit = text_span(kind->unit)};
	if (!kind->period_type)
		return;
	ret->period_type = text_span(kind->period_type);
	ret->period_unit = text_span(kind->period_unit);
	ret->period = 1000000000 / ((const struct things *)things)->hz;
}

const struct agent_sender_source things_source = {.string = string_of, .executable = executable_of, .frame = frame_of,
	.trace = trace_of, .process = process_of, .thread = thread_of, .type = type_of};

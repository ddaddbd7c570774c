// SPDX-License-Identifier: Apache-2.0
#include "agent/collect.h"

#include "base/hmap.h"
#include "profiles/profile.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct collect {
	const struct tables *tables;
	const struct kernel *kernel;
	struct profile profile;
	struct hmap locations;	    /* frame, or kernel address -> location */
	struct hmap comms;	    /* text number -> location */
	struct hmap kernel_modules; /* address of struct kernel_module -> mapping */
	uint32_t exe_mappings[UNWIND_EXES_MAX]; /* mapping + 1 */
	uint32_t stack[UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX + 1];
};

static struct err *text(struct collect *c, const char *value, uint32_t *ret)
{
	return profile_text(&c->profile, value, strlen(value), ret);
}

struct err *collect_create(const struct tables *tables, const struct kernel *kernel, uint32_t hz, struct collect **ret)
{
	struct collect *c = calloc(1, sizeof(*c));

	if (!c)
		return err_nomem();
	c->tables = tables;
	c->kernel = kernel;
	struct err *e = profile_init(&c->profile);
	if (!e)
		e = text(c, "samples", &c->profile.sample_type.type);
	if (!e)
		e = text(c, "count", &c->profile.sample_type.unit);
	if (!e)
		e = text(c, "cpu", &c->profile.period_type.type);
	if (!e)
		e = text(c, "nanoseconds", &c->profile.period_type.unit);
	c->profile.period = 1000000000 / hz;
	if (e) {
		collect_destroy(c);
		return e;
	}
	*ret = c;
	return NULL;
}

void collect_destroy(struct collect *c)
{
	if (!c)
		return;
	profile_deinit(&c->profile);
	hmap_deinit(&c->locations);
	hmap_deinit(&c->comms);
	hmap_deinit(&c->kernel_modules);
	free(c);
}

/** A location whose only frame is a function called @p name. */
static struct err *named_location(struct collect *c, const char *name, struct profile_location location, uint32_t *ret)
{
	struct profile_function function = {0};
	struct profile_frame frame = {0};

	TRY(text(c, name, &function.name));
	function.symbol = function.name;
	TRY(profile_add_function(&c->profile, &function, &frame.function));
	return profile_add_location(&c->profile, &location, &frame, 1, ret);
}

static struct err *exe_mapping(struct collect *c, uint32_t number, const struct tables_exe *exe, uint32_t *ret)
{
	if (c->exe_mappings[number] == 0) {
		struct profile_mapping mapping = {.file_id = exe->file_id, .build_id = exe->build_id};
		uint32_t added = 0;
		TRY(text(c, exe->name, &mapping.name));
		TRY(profile_add_mapping(&c->profile, &mapping, &added));
		c->exe_mappings[number] = added + 1;
	}
	*ret = c->exe_mappings[number] - 1;
	return NULL;
}

static struct err *user_location(struct collect *c, uint64_t frame, uint32_t *ret)
{
	uint32_t number = (uint32_t)(frame >> UNWIND_FRAME_EXE_SHIFT);
	const struct tables_exe *exe = tables_exe(c->tables, number);
	struct profile_location location = {.mapping = PROFILE_NONE, .vaddr = frame & UNWIND_FRAME_ADDRESS_MASK};
	char name[TABLES_NAME_MAX + 32];

	if (exe)
		TRY(exe_mapping(c, number, exe, &location.mapping));
	snprintf(name, sizeof(name), "%s+0x%" PRIx64, exe ? exe->name : "[anonymous]", location.vaddr);
	return named_location(c, name, location, ret);
}

static struct err *kernel_location(struct collect *c, uint64_t address, uint32_t *ret)
{
	struct profile_location location = {.mapping = PROFILE_NONE, .vaddr = address, .kind = PROFILE_FRAME_KERNEL};
	const struct kernel_module *module = NULL;
	const char *name = NULL;
	char unknown[40];
	uint64_t mapping = 0;

	if (!kernel_lookup(c->kernel, address, &name, &module)) {
		snprintf(unknown, sizeof(unknown), "[kernel]+0x%" PRIx64, address);
		return named_location(c, unknown, location, ret);
	}
	if (!hmap_get(&c->kernel_modules, (uintptr_t)module, &mapping)) {
		struct profile_mapping added = {.file_id = module->file_id, .build_id = module->build_id};
		uint32_t number = 0;
		TRY(text(c, module->name, &added.name));
		TRY(profile_add_mapping(&c->profile, &added, &number));
		TRY(hmap_set(&c->kernel_modules, (uintptr_t)module, number));
		mapping = number;
	}
	location.mapping = (uint32_t)mapping;
	location.symbolized = true;
	return named_location(c, name, location, ret);
}

static struct err *location_of(struct collect *c, uint64_t key, bool in_kernel, uint32_t *ret)
{
	uint64_t known = 0;

	/* No executable's number is 0xffff, so that kernel addresses are keys of their own. */
	if (!hmap_get(&c->locations, key, &known)) {
		uint32_t added = 0;
		TRY(in_kernel ? kernel_location(c, key, &added) : user_location(c, key, &added));
		TRY(hmap_set(&c->locations, key, added));
		known = added;
	}
	*ret = (uint32_t)known;
	return NULL;
}

static struct err *comm_location(struct collect *c, const char comm[SAMPLE_COMM_BYTES], uint32_t *ret)
{
	char name[SAMPLE_COMM_BYTES + 1] = "";
	uint64_t known = 0;
	uint32_t number = 0;

	memcpy(name, comm, SAMPLE_COMM_BYTES);
	TRY(text(c, name, &number));
	if (!hmap_get(&c->comms, number, &known)) {
		struct profile_location location = {.mapping = PROFILE_NONE, .kind = PROFILE_FRAME_INTERPRETED, .symbolized = true};
		uint32_t added = 0;
		TRY(named_location(c, name, location, &added));
		TRY(hmap_set(&c->comms, number, added));
		known = added;
	}
	*ret = (uint32_t)known;
	return NULL;
}

struct err *collect_add(struct collect *c, const struct sample_head *head, const uint64_t *frames)
{
	uint32_t depth = 0;

	if (head->frame_count > UNWIND_FRAMES_MAX || head->kernel_count > SAMPLE_KERNEL_MAX)
		return NULL;
	for (uint32_t i = 0; i < head->kernel_count; i++, depth++)
		TRY(location_of(c, frames[head->frame_count + i] - (i > 0), true, &c->stack[depth]));
	for (uint32_t i = 0; i < head->frame_count; i++, depth++)
		TRY(location_of(c, frames[i], false, &c->stack[depth]));
	TRY(comm_location(c, head->comm, &c->stack[depth++]));
	return profile_add_sample(&c->profile, c->stack, depth, 1);
}

struct err *collect_write_pprof(struct collect *c, uint64_t from_unix_nano, uint64_t to_unix_nano, struct buf *ret)
{
	c->profile.from_unix_nano = from_unix_nano;
	c->profile.to_unix_nano = to_unix_nano;
	return profile_write_pprof(&c->profile, ret);
}

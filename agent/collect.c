// SPDX-License-Identifier: Apache-2.0
#include "agent/collect.h"

#include "agent/kinds.h"
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

/** What is counted, and for samples of a clock its period. */
static struct err *set_types(struct collect *c, uint32_t hz, enum sample_kind kind)
{
	const struct kind *words = kind_of(kind);

	TRY(text(c, words->type, &c->profile.sample_type.type));
	TRY(text(c, words->unit, &c->profile.sample_type.unit));
	if (!words->period_type)
		return NULL;
	c->profile.period = 1000000000 / hz;
	TRY(text(c, words->period_type, &c->profile.period_type.type));
	return text(c, words->period_unit, &c->profile.period_type.unit);
}

struct err *collect_create(const struct tables *tables, const struct kernel *kernel, uint32_t hz, enum sample_kind kind, struct collect **ret)
{
	struct collect *c = calloc(1, sizeof(*c));

	if (!c)
		return err_nomem();
	c->tables = tables;
	c->kernel = kernel;
	struct err *e = profile_init(&c->profile);
	if (!e)
		e = set_types(c, hz, kind);
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

static struct err *module_mapping(struct collect *c, const struct kernel_module *module, uint32_t *ret)
{
	uint64_t mapping = 0;

	if (!hmap_get(&c->kernel_modules, (uintptr_t)module, &mapping)) {
		struct profile_mapping added = {.file_id = module->file_id, .build_id = module->build_id};
		uint32_t number = 0;
		TRY(text(c, module->name, &added.name));
		TRY(profile_add_mapping(&c->profile, &added, &number));
		TRY(hmap_set(&c->kernel_modules, (uintptr_t)module, number));
		mapping = number;
	}
	*ret = (uint32_t)mapping;
	return NULL;
}

static struct err *add_location(struct collect *c, uint64_t frame, bool in_kernel, uint32_t *ret)
{
	const struct place place = place_of_frame(c->tables, c->kernel, frame, in_kernel);
	struct profile_location location = {.mapping = PROFILE_NONE, .vaddr = in_kernel ? frame : place.address,
		.kind = in_kernel ? PROFILE_FRAME_KERNEL : place.is_code ? PROFILE_FRAME_INTERPRETED : PROFILE_FRAME_NATIVE, .symbolized = place.function != NULL};
	char name[TABLES_NAME_MAX + 32];

	if (place.exe)
		TRY(exe_mapping(c, place.exe_number, place.exe, &location.mapping));
	if (place.module)
		TRY(module_mapping(c, place.module, &location.mapping));
	snprintf(name, sizeof(name), "%s+0x%" PRIx64, place.exe ? place.exe->name : in_kernel ? "[kernel]" : "[anonymous]", location.vaddr);
	return named_location(c, place.function ? place.function : name, location, ret);
}

static struct err *location_of(struct collect *c, uint64_t key, bool in_kernel, uint32_t *ret)
{
	uint64_t known = 0;

	/* No executable's number is 0xffff, so that kernel addresses are keys of their own. */
	if (!hmap_get(&c->locations, key, &known)) {
		uint32_t added = 0;
		TRY(add_location(c, key, in_kernel, &added));
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
	uint32_t depth = place_depth(head);
	bool in_kernel = false;

	for (uint32_t i = 0; i < depth; i++) {
		uint64_t raw = place_raw(head, frames, i, &in_kernel);
		TRY(location_of(c, raw, in_kernel, &c->stack[i]));
	}
	TRY(comm_location(c, head->comm, &c->stack[depth++]));
	return profile_add_sample(&c->profile, c->stack, depth, head->value);
}

struct err *collect_write_pprof(struct collect *c, uint64_t from_unix_nano, uint64_t to_unix_nano, struct buf *ret)
{
	c->profile.from_unix_nano = from_unix_nano;
	c->profile.to_unix_nano = to_unix_nano;
	return profile_write_pprof(&c->profile, ret);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * From files to units of work: executables are paired with their debug files, and what these need (supplements, split DWARF) is put before
 * them. Supplements go first of all, since several files may wait for one.
 */
#include "cli/upload_plan.h"

#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *const warning_words[UPLOAD_WARNINGS] = {
	[UPLOAD_WARN_STRIPPED] = "executables look stripped, and no debug file was found",
	[UPLOAD_WARN_DEBUG] = "debug files do not belong to their executables",
	[UPLOAD_WARN_SUPPLEMENT] = "supplements (dwz) were not found",
	[UPLOAD_WARN_SPLIT] = "programs lack split DWARF",
};

void upload_plan_warn(struct upload_plan *plan, enum upload_warning warning, const char *what, const char *words)
{
	if (plan->warnings[warning]++ < UPLOAD_WARNINGS_SHOWN || plan->verbose)
		fprintf(stderr, "upload-symbols: warning: %s%s%s\n", what, words ? ": " : "", words ? words : "");
}

/* What was not listed is counted. */
static void end_warnings(const struct upload_plan *plan)
{
	for (size_t i = 0; i < UPLOAD_WARNINGS; i++)
		if (plan->warnings[i] > UPLOAD_WARNINGS_SHOWN && !plan->verbose)
			fprintf(stderr, "upload-symbols: warning: in all, %zu %s (--verbose lists them)\n", plan->warnings[i], warning_words[i]);
}

void upload_file_deinit(struct upload_file *file)
{
	for (size_t i = 0; i < file->part_count; i++)
		free(file->parts[i]);
	free(file->parts);
	free(file->path);
	*file = (struct upload_file){0};
}

/* The debug file that gdb would find, or the one that was named; *found_ret false when there is none. */
static struct err *find_debug_path(struct upload_plan *plan, const struct upload_file *executable, const char *debug_path,
	struct upload_file *ret, bool *found_ret)
{
	CLEANUP(elf_mapping_deinit) struct elf_mapping binary = {0}, debug = {0};
	struct debug_file_search search = {.debug_file = debug_path};
	struct stat status;

	*found_ret = false;
	TRY(elf_mapping_open(executable->path, &binary));
	struct err *e = debug_file_find(&binary, &search, &debug);
	if (e && !debug_path && err_code(e) != ERR_NOMEM) {
		/* One that lies where it should and is not the right one is worth a word, not the end. */
		upload_plan_warn(plan, UPLOAD_WARN_DEBUG, err_message(e), NULL);
		err_free(e);
		return NULL;
	}
	TRY(e);
	if (!debug.bytes)
		return NULL;
	if (stat(debug.path, &status) != 0)
		return err_os(errno, "stat %s", debug.path);
	*ret = (struct upload_file){.role = UPLOAD_DEBUG, .size = debug.len, .device = status.st_dev, .inode = status.st_ino};
	upload_describe(&debug, ret);
	ret->path = strdup(debug.path);
	if (!ret->path)
		return err_nomem();
	*found_ret = true;
	return NULL;
}

/* Moves what lies in @p from behind what was ordered already. */
static struct err *append(struct upload_plan *ordered, struct upload_file *from)
{
	struct upload_file *to = upload_plan_add(ordered);

	if (!to)
		return err_nomem();
	*to = *from;
	TRY(upload_plan_commit(ordered));
	from->path = NULL;
	from->parts = NULL;
	from->part_count = 0;
	from->is_taken = true;
	ordered->bytes += to->size;
	return NULL;
}

/* A supplement that @p dwarf names, unless it is in the plan already. */
static struct err *append_supplement(struct upload_plan *ordered, struct upload_plan *found, const struct upload_file *dwarf)
{
	CLEANUP(elf_mapping_deinit) struct elf_mapping file = {0}, supplement = {0};
	struct upload_file outside = {.role = UPLOAD_SUPPLEMENT};
	struct stat status;

	TRY(elf_mapping_open(dwarf->path, &file));
	struct err *e = supplement_find(&file, NULL, &supplement);
	if (e && err_code(e) != ERR_NOMEM) {
		upload_plan_warn(ordered, UPLOAD_WARN_SUPPLEMENT, err_message(e), NULL);
		err_free(e);
		return NULL;
	}
	TRY(e);
	if (!supplement.bytes) {
		upload_plan_warn(ordered, UPLOAD_WARN_SUPPLEMENT, dwarf->path, "names a supplement (dwz) that was not found");
		return NULL;
	}
	if (stat(supplement.path, &status) != 0)
		return err_os(errno, "stat %s", supplement.path);
	struct upload_file *same = upload_plan_find_same(found, status.st_dev, status.st_ino);
	if (upload_plan_find_same(ordered, status.st_dev, status.st_ino))
		return NULL;
	if (same)
		return append(ordered, same);
	outside.size = supplement.len;
	outside.device = status.st_dev;
	outside.inode = status.st_ino;
	upload_describe(&supplement, &outside);
	outside.path = strdup(supplement.path);
	if (!outside.path)
		return err_nomem();
	e = append(ordered, &outside);
	upload_file_deinit(&outside);
	return e;
}

/* What the server should have before @p dwarf, the file of @p executable that has the DWARF. */
static struct err *append_needed(struct upload_plan *ordered, struct upload_plan *found, const struct upload_file *dwarf,
	const struct upload_file *executable)
{
	struct upload_file split = {.role = UPLOAD_SPLIT};

	if (dwarf->has_dwarf && dwarf->has_supplement)
		TRY(append_supplement(ordered, found, dwarf));
	if (!dwarf->may_be_split)
		return NULL;
	struct err *e = upload_split_find(ordered, dwarf, executable, &split);
	if (!e && split.path)
		e = append(ordered, &split);
	upload_file_deinit(&split);
	return e;
}

/* The debug file for an executable: *ret NULL when there is none. One from outside of the plan is put into @p outside. */
static struct err *choose_debug(struct upload_plan *ordered, struct upload_plan *found, const struct upload_file *executable,
	const char *debug_path, struct upload_file *outside, struct upload_file **ret)
{
	bool has_outside;

	*ret = NULL;
	if ((executable->has_dwarf && !debug_path) || executable->is_bare)
		return NULL;
	if (!debug_path)
		*ret = upload_plan_find_debug(found, &executable->build_id);
	if (*ret)
		return NULL;
	TRY(find_debug_path(ordered, executable, debug_path, outside, &has_outside));
	if (!has_outside)
		return NULL;
	/* It may be one that was collected without a build ID, or one that went with a copy of this executable. */
	struct upload_file *same = upload_plan_find_same(found, outside->device, outside->inode);
	if (!same)
		same = upload_plan_find_same(ordered, outside->device, outside->inode);
	*ret = same ? same : outside;
	return NULL;
}

static struct err *append_pair(struct upload_plan *ordered, struct upload_plan *found, size_t index, const char *debug_path)
{
	struct upload_file *executable = &found->files[index];
	struct upload_file outside = {0}, *debug;

	struct err *e = choose_debug(ordered, found, executable, debug_path, &outside, &debug);
	bool is_new = debug == &outside || (debug >= found->files && debug < found->files + found->file_count && !debug->is_taken);
	if (!e && !executable->has_dwarf && !executable->has_symtab && !debug) {
		upload_plan_warn(ordered, UPLOAD_WARN_STRIPPED, executable->path,
			"looks stripped, and no debug file was found: only exported names will be known");
	}
	struct fileid file_id = executable->file_id;
	if (!e)
		e = append_needed(ordered, found, executable->has_dwarf || !debug ? executable : debug, executable);
	if (!e)
		e = append(ordered, executable);
	if (!e && debug && is_new) {
		debug->has_file_id = true;
		debug->file_id = file_id;
		e = append(ordered, debug);
	}
	upload_file_deinit(&outside);
	return e;
}

static struct err *make_units(struct upload_plan *plan)
{
	plan->units = calloc(plan->file_count ? plan->file_count : 1, sizeof(*plan->units));
	if (!plan->units)
		return err_nomem();
	for (size_t i = 0; i < plan->file_count; i++)
		if (plan->files[i].role == UPLOAD_SUPPLEMENT)
			plan->units[plan->unit_count++] = (struct upload_unit){.first = i, .count = 1};
	plan->first_units = plan->unit_count;
	for (size_t i = 0; i < plan->file_count; i++) {
		const struct upload_file *file = &plan->files[i];
		bool follows = i > 0 && ((file->role == UPLOAD_DEBUG && file->has_file_id) || file[-1].role == UPLOAD_SPLIT);
		if (file->role == UPLOAD_SUPPLEMENT)
			continue;
		if (follows)
			plan->units[plan->unit_count - 1].count++;
		else
			plan->units[plan->unit_count++] = (struct upload_unit){.first = i, .count = 1};
	}
	return NULL;
}

/* Executables, each with its debug file behind it and its split DWARF before, then what is left. Supplements come where they are found. */
static struct err *order(struct upload_plan *found, const char *debug_path, struct upload_plan *ordered)
{
	size_t executables = 0;

	for (size_t i = 0; i < found->file_count; i++)
		executables += found->files[i].role == UPLOAD_EXECUTABLE;
	if (debug_path && executables != 1)
		return err_new(ERR_INVALID, "--debug goes with one executable; there are %zu", executables);
	for (size_t i = 0; i < found->file_count; i++)
		if (found->files[i].role == UPLOAD_EXECUTABLE)
			TRY(append_pair(ordered, found, i, debug_path));
	for (size_t i = 0; i < found->file_count; i++) {
		struct upload_file *file = &found->files[i];
		if (file->is_taken)
			continue;
		if (file->role == UPLOAD_DEBUG)
			TRY(append_needed(ordered, found, file, file));
		TRY(append(ordered, file));
	}
	return make_units(ordered);
}

struct err *upload_plan_make(char *const *paths, size_t path_count, const char *debug_path, bool verbose, struct upload_plan *ret)
{
	CLEANUP(upload_plan_deinit) struct upload_plan found = {.verbose = verbose}, ordered = {.verbose = verbose};

	for (size_t i = 0; i < path_count; i++) {
		struct err *e = upload_plan_path(&found, paths[i]);
		if (e && err_code(e) == ERR_NOMEM)
			return e;
		if (!e)
			continue;
		fprintf(stderr, "upload-symbols: %s\n", err_message(e));
		err_free(e);
		found.failed++;
	}
	TRY(order(&found, debug_path, &ordered));
	end_warnings(&ordered);
	memcpy(ordered.skipped, found.skipped, sizeof(ordered.skipped));
	ordered.failed = found.failed;
	*ret = ordered;
	ordered = (struct upload_plan){0};
	return NULL;
}

void upload_plan_deinit(struct upload_plan *plan)
{
	for (size_t i = 0; i < plan->file_count; i++)
		upload_file_deinit(&plan->files[i]);
	free(plan->files);
	free(plan->units);
	hmap_deinit(&plan->by_inode);
	hmap_deinit(&plan->by_build_id);
	*plan = (struct upload_plan){0};
}

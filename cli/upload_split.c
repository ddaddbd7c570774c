// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
#include "cli/upload_plan.h"
#include "symbolizer/build/split.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The .dwo files of one program, found one by one. */
struct gathering {
	struct split_search search;
	size_t wanted, found, cap;
	char **paths;
	uint64_t *sizes;
};

static void gathering_deinit(struct gathering *gathering)
{
	for (size_t i = 0; i < gathering->found; i++)
		free(gathering->paths[i]);
	free(gathering->paths);
	free(gathering->sizes);
	split_search_deinit(&gathering->search);
}

static struct err *grow(struct gathering *gathering)
{
	size_t cap = gathering->cap ? 2 * gathering->cap : 16;
	char **paths = reallocarray(gathering->paths, cap, sizeof(*paths));

	if (!paths)
		return err_nomem();
	gathering->paths = paths;
	uint64_t *sizes = reallocarray(gathering->sizes, cap, sizeof(*sizes));
	if (!sizes)
		return err_nomem();
	gathering->sizes = sizes;
	gathering->cap = cap;
	return NULL;
}

static struct err *gather(void *context, const struct build_split_name *name)
{
	struct gathering *gathering = context;
	struct build_image image;

	gathering->wanted++;
	TRY(split_search_find(&gathering->search, name, &image));
	if (!image.bytes)
		return NULL;
	/* One file can hold several units; those stand together. */
	if (gathering->found > 0 && strcmp(gathering->paths[gathering->found - 1], image.name) == 0) {
		gathering->wanted--;
		return NULL;
	}
	if (gathering->found == BUILD_SPLITS_MAX)
		return err_new(ERR_LIMIT, "more than %d .dwo files", BUILD_SPLITS_MAX);
	if (gathering->found == gathering->cap)
		TRY(grow(gathering));
	gathering->sizes[gathering->found] = image.len;
	gathering->paths[gathering->found] = strdup(image.name);
	return gathering->paths[gathering->found++] ? NULL : err_nomem();
}

static struct err *bundle(struct upload_plan *plan, const struct elf_mapping *file, struct upload_file *ret)
{
	CLEANUP(gathering_deinit) struct gathering gathering = {.search.binary = file};
	char words[128];

	TRY(split_names(file->elf, gather, &gathering));
	if (gathering.found < gathering.wanted) {
		(void)snprintf(words, sizeof(words), "%zu of its %zu .dwo files were not found", gathering.wanted - gathering.found, gathering.wanted);
		upload_plan_warn(plan, UPLOAD_WARN_SPLIT, file->path, words);
	}
	if (gathering.found == 0)
		return NULL;
	if (asprintf(&ret->path, "%s.dwo", file->path) < 0) {
		ret->path = NULL;
		return err_nomem();
	}
	ret->content = UPLOAD_BUNDLE;
	ret->size = upload_bundle_bytes(gathering.sizes, gathering.found);
	ret->parts = TAKE_PTR(gathering.paths);
	ret->part_count = gathering.found;
	gathering.found = 0;
	return NULL;
}

struct err *upload_split_find(struct upload_plan *plan, const struct upload_file *dwarf, const struct upload_file *executable,
	struct upload_file *ret)
{
	CLEANUP(elf_mapping_deinit) struct elf_mapping file = {0}, binary = {0}, package = {0};
	struct stat status;

	TRY(elf_mapping_open(dwarf->path, &file));
	TRY(split_package_find(&file, &package));
	if (!package.bytes && executable != dwarf) {
		TRY(elf_mapping_open(executable->path, &binary));
		TRY(split_package_find(&binary, &package));
	}
	if (!package.bytes)
		TRY(bundle(plan, &file, ret));
	if (package.bytes) {
		if (stat(package.path, &status) != 0)
			return err_os(errno, "stat %s", package.path);
		ret->path = strdup(package.path);
		ret->size = package.len;
		ret->device = status.st_dev;
		ret->inode = status.st_ino;
		if (!ret->path)
			return err_nomem();
	}
	ret->build_id = dwarf->build_id.len > 0 ? dwarf->build_id : executable->build_id;
	if (!ret->path || ret->build_id.len > 0)
		return NULL;
	upload_plan_warn(plan, UPLOAD_WARN_SPLIT, ret->path, "cannot be sent, since its program has no build ID");
	upload_file_deinit(ret);
	return NULL;
}

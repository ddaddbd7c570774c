// SPDX-License-Identifier: Apache-2.0
/*
 * From paths to units of work. A folder is walked without following symbolic links (under .build-id all are links to files
 * that the walk meets anyway); a path that was named is followed. Files in folders that are no ELF program and no package
 * are passed over; a path that was named must be one.
 *
 * What an ELF file is, is told by its sections, as gdb does: code with bytes makes an executable (or shared object, or
 * kernel module); sections of code without bytes, beside DWARF or ELF symbols, make a debug file. Object files (.o) and core
 * dumps are neither: nothing runs under their file IDs. Kernels and modules may lie packed (vmlinuz, .ko.xz); in folders they are
 * told by their names first, so that not every compressed file is unpacked.
 */
#include "cli/upload.h"

#include "cli/cli.h"
#include "symbolizer/build/debug_file.h"
#include "symbolizer/build/kernel.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char package_magic[] = "!<arch>\ndebian-binary";
enum { HEAD_BYTES = 1024 }; /* enough for kernel_image_detect */

enum kind { KIND_OTHER, KIND_EXECUTABLE, KIND_DEBUG, KIND_PACKAGE };

const char *upload_role_name(enum upload_role role)
{
	static const char *const names[] = {
		[UPLOAD_EXECUTABLE] = "executable", [UPLOAD_DEBUG] = "debug", [UPLOAD_PACKAGE] = "package"};

	return names[role];
}

static void warn(const char *path, const char *what)
{
	fprintf(stderr, "upload-symbols: warning: %s: %s\n", path, what);
}

static struct upload_file *add_file(struct upload_plan *plan)
{
	if (plan->file_count == plan->file_cap) {
		size_t cap = plan->file_cap ? 2 * plan->file_cap : 64;
		struct upload_file *files = reallocarray(plan->files, cap, sizeof(*files));
		if (!files)
			return NULL;
		plan->files = files;
		plan->file_cap = cap;
	}
	struct upload_file *file = &plan->files[plan->file_count];
	*file = (struct upload_file){0};
	return file;
}

/* The first bytes tell, so that a folder of other things is passed over without mapping all of it. */
static struct err *read_head(const char *path, char head[HEAD_BYTES], struct stat *status_ret)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_os(errno, "open %s", path);
	if (fstat(fd, status_ret) != 0)
		return err_os(errno, "stat %s", path);
	memset(head, 0, HEAD_BYTES);
	if (S_ISREG(status_ret->st_mode) && pread(fd, head, HEAD_BYTES, 0) < 0)
		return err_os(errno, "read %s", path);
	return NULL;
}

static bool has_section(const struct elffile *elf, const char *name)
{
	const struct elffile_section *section = elffile_find(elf, name);

	return section && section->type != SHT_NOBITS && section->size > 0;
}

static enum kind kind_of(const struct elffile *elf)
{
	bool has_code = false, has_empty_code = false;
	uint16_t type = elffile_type(elf);

	if (type == ET_REL && kernel_kind(elf) != KERNEL_MODULE)
		return KIND_OTHER;
	if (type != ET_EXEC && type != ET_DYN && type != ET_REL)
		return KIND_OTHER;
	for (size_t i = 0; i < elffile_section_count(elf); i++) {
		const struct elffile_section *section = elffile_section(elf, i);
		if (!(section->flags & SHF_EXECINSTR) || section->size == 0)
			continue;
		has_code |= section->type != SHT_NOBITS;
		has_empty_code |= section->type == SHT_NOBITS;
	}
	/* sstrip leaves no sections at all: then the segments tell. */
	size_t ranges = 0;
	if (elffile_section_count(elf) == 0)
		(void)elffile_code_ranges(elf, &ranges);
	if (has_code || ranges > 0)
		return KIND_EXECUTABLE;
	return has_empty_code && (has_section(elf, ".debug_info") || has_section(elf, ".symtab")) ? KIND_DEBUG : KIND_OTHER;
}

/* By the kernel's ID, whoever asks for it: that of a packed file is nobody's. */
static struct err *describe_packed(const char *path, const struct elf_mapping *mapping, struct upload_file *file, enum kind *kind_ret)
{
	file->is_bare = !mapping->elf;
	file->build_id = file->is_bare ? mapping->packed.build_id : *elffile_build_id(mapping->elf);
	if ((!file->is_bare && kernel_kind(mapping->elf) == KERNEL_NONE) || file->build_id.len == 0)
		return err_new(ERR_UNSUPPORTED, "%s: packed, and neither a Linux kernel nor a module with a build ID: unpack it", path);
	*kind_ret = file->is_bare ? KIND_EXECUTABLE : kind_of(mapping->elf);
	file->role = *kind_ret == KIND_DEBUG ? UPLOAD_DEBUG : UPLOAD_EXECUTABLE;
	file->has_file_id = *kind_ret == KIND_EXECUTABLE;
	if (file->has_file_id)
		file->file_id = fileid_from_kernel_build_id(file->build_id.bytes, file->build_id.len);
	return NULL;
}

static struct err *describe_elf(const char *path, struct upload_file *file, enum kind *kind_ret)
{
	CLEANUP(elf_mapping_deinit) struct elf_mapping mapping = {0};

	TRY(elf_mapping_open_any(path, &mapping));
	if (mapping.is_packed)
		TRY(describe_packed(path, &mapping, file, kind_ret));
	if (!mapping.elf)
		return NULL;
	*kind_ret = kind_of(mapping.elf);
	file->build_id = *elffile_build_id(mapping.elf);
	file->has_dwarf = has_section(mapping.elf, ".debug_info");
	file->has_symtab = has_section(mapping.elf, ".symtab") || has_section(mapping.elf, ".gopclntab");
	file->role = *kind_ret == KIND_DEBUG ? UPLOAD_DEBUG : UPLOAD_EXECUTABLE;
	if (*kind_ret != KIND_EXECUTABLE || mapping.is_packed)
		return NULL;
	file->has_file_id = true;
	return err_wrap(fileid_from_memory(mapping.bytes, mapping.len, &file->file_id), "%s", path);
}

static uint64_t inode_key(uint64_t device, uint64_t inode)
{
	const uint64_t pair[] = {device, inode};

	return digest_xxh3_64(pair, sizeof(pair));
}

static struct upload_file *find_same(const struct upload_plan *plan, uint64_t device, uint64_t inode)
{
	uint64_t index;

	if (!hmap_get(&plan->by_inode, inode_key(device, inode), &index))
		return NULL;
	struct upload_file *file = &plan->files[index];
	return file->inode == inode && file->device == device ? file : NULL;
}

static struct upload_file *find_planned_debug(const struct upload_plan *plan, const struct build_id *id)
{
	uint64_t index;

	if (id->len == 0 || !hmap_get(&plan->by_build_id, digest_xxh3_64(id->bytes, id->len), &index))
		return NULL;
	struct upload_file *file = &plan->files[index];
	return build_id_equal(&file->build_id, id) ? file : NULL;
}

/* The file that add_file gave becomes part of the plan. */
static struct err *commit_file(struct upload_plan *plan)
{
	const struct upload_file *file = &plan->files[plan->file_count];
	uint64_t key = digest_xxh3_64(file->build_id.bytes, file->build_id.len);
	uint64_t other;

	TRY(hmap_set(&plan->by_inode, inode_key(file->device, file->inode), plan->file_count));
	if (file->role == UPLOAD_DEBUG && file->build_id.len > 0 && !hmap_get(&plan->by_build_id, key, &other))
		TRY(hmap_set(&plan->by_build_id, key, plan->file_count));
	plan->file_count++;
	return NULL;
}

/* @p named: by the user, not found in a folder. *kind_ret KIND_OTHER: nothing was added. */
static struct err *plan_file(struct upload_plan *plan, const char *path, bool named, enum kind *kind_ret)
{
	char head[HEAD_BYTES];
	struct stat status;

	*kind_ret = KIND_OTHER;
	TRY(read_head(path, head, &status));
	bool is_package = memcmp(head, package_magic, sizeof(package_magic) - 1) == 0;
	bool is_elf = memcmp(head, ELFMAG, SELFMAG) == 0;
	is_elf |= (named || kernel_image_is_named(path)) && kernel_image_detect(head, HEAD_BYTES) != KERNEL_IMAGE_NONE;
	if (!S_ISREG(status.st_mode) || (!is_package && !is_elf))
		return NULL;
	struct upload_file *file = add_file(plan);
	if (!file)
		return err_nomem();
	*kind_ret = KIND_PACKAGE;
	file->role = UPLOAD_PACKAGE;
	if (is_elf)
		TRY(describe_elf(path, file, kind_ret));
	if (*kind_ret == KIND_OTHER || find_same(plan, status.st_dev, status.st_ino))
		return NULL;
	file->size = (uint64_t)status.st_size;
	file->device = status.st_dev;
	file->inode = status.st_ino;
	file->path = strdup(path);
	if (!file->path)
		return err_nomem();
	struct err *e = commit_file(plan);
	if (e)
		free(file->path); /* not part of the plan, so nobody else will */
	return e;
}

static struct err *plan_folder(struct upload_plan *plan, const char *path, unsigned depth);

/* What is found in a folder and cannot be read is told and counted; it does not stop the rest. */
static struct err *plan_member(struct upload_plan *plan, const char *path, unsigned depth)
{
	struct stat status;
	enum kind kind = KIND_OTHER;

	if (lstat(path, &status) != 0)
		return err_os(errno, "stat %s", path);
	if (S_ISDIR(status.st_mode))
		return plan_folder(plan, path, depth + 1);
	struct err *e = S_ISREG(status.st_mode) ? plan_file(plan, path, false, &kind) : NULL;
	if (e && err_code(e) != ERR_NOMEM) {
		fprintf(stderr, "upload-symbols: %s\n", err_message(e));
		err_free(e);
		e = NULL;
		plan->failed++;
	} else if (!e && kind == KIND_OTHER && S_ISREG(status.st_mode)) {
		plan->skipped++;
	}
	return e;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_member(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static struct err *plan_folder(struct upload_plan *plan, const char *path, unsigned depth)
{
	struct dirent **entries = NULL;
	struct err *e = NULL;

	if (depth > UPLOAD_DEPTH_MAX)
		return err_new(ERR_LIMIT, "%s: more than %d folders deep", path, UPLOAD_DEPTH_MAX);
	int count = scandir(path, &entries, is_member, by_name);
	if (count < 0) {
		fprintf(stderr, "upload-symbols: open %s: %s\n", path, strerror(errno));
		plan->failed++;
		return NULL;
	}
	for (int i = 0; i < count; i++) {
		CLEANUP(freep) char *member = NULL;
		if (!e && asprintf(&member, "%s/%s", path, entries[i]->d_name) < 0) {
			member = NULL;
			e = err_nomem();
		}
		if (!e)
			e = plan_member(plan, member, depth);
		free(entries[i]);
	}
	free(entries);
	return e;
}

static struct err *plan_path(struct upload_plan *plan, const char *path)
{
	struct stat status;
	enum kind kind;

	if (stat(path, &status) != 0)
		return err_os(errno, "stat %s", path);
	if (S_ISDIR(status.st_mode))
		return plan_folder(plan, path, 1);
	TRY(plan_file(plan, path, true, &kind));
	if (kind == KIND_OTHER)
		return err_new(ERR_INVALID, "%s: neither an ELF program, a debug file, a kernel, a .deb nor a folder", path);
	return NULL;
}

/* ------------------------------------------------------------------------------------------ pairing */

/* The debug file that gdb would find, or the one that was named; *found_ret false when there is none. */
static struct err *find_debug_path(const struct upload_file *executable, const char *debug_path, struct upload_file *ret,
	bool *found_ret)
{
	CLEANUP(elf_mapping_deinit) struct elf_mapping binary = {0}, debug = {0};
	struct debug_file_search search = {.debug_file = debug_path};
	struct stat status;

	*found_ret = false;
	TRY(elf_mapping_open(executable->path, &binary));
	struct err *e = debug_file_find(&binary, &search, &debug);
	if (e && !debug_path && err_code(e) != ERR_NOMEM) {
		/* One that lies where it should and is not the right one is worth a word, not the end. */
		fprintf(stderr, "upload-symbols: warning: %s\n", err_message(e));
		err_free(e);
		return NULL;
	}
	TRY(e);
	if (!debug.bytes)
		return NULL;
	if (stat(debug.path, &status) != 0)
		return err_os(errno, "stat %s", debug.path);
	*ret = (struct upload_file){.role = UPLOAD_DEBUG, .size = debug.len, .device = status.st_dev, .inode = status.st_ino};
	ret->build_id = *elffile_build_id(debug.elf);
	ret->has_dwarf = has_section(debug.elf, ".debug_info");
	ret->has_symtab = has_section(debug.elf, ".symtab");
	ret->path = strdup(debug.path);
	if (!ret->path)
		return err_nomem();
	*found_ret = true;
	return NULL;
}

/* Moves what lies in @p from behind what was ordered already. */
static struct err *append(struct upload_plan *ordered, struct upload_file *from)
{
	struct upload_file *to = add_file(ordered);

	if (!to)
		return err_nomem();
	*to = *from;
	TRY(commit_file(ordered));
	from->path = NULL;
	from->is_taken = true;
	ordered->bytes += to->size;
	return NULL;
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
		*ret = find_planned_debug(found, &executable->build_id);
	if (*ret)
		return NULL;
	TRY(find_debug_path(executable, debug_path, outside, &has_outside));
	if (!has_outside)
		return NULL;
	/* It may be one that was collected without a build ID, or one that went with a copy of this executable. */
	struct upload_file *same = find_same(found, outside->device, outside->inode);
	if (!same)
		same = find_same(ordered, outside->device, outside->inode);
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
		warn(executable->path, "looks stripped, and no debug file was found: only exported names will be known");
		ordered->warnings++;
	}
	struct fileid file_id = executable->file_id;
	if (!e)
		e = append(ordered, executable);
	if (!e && debug && is_new) {
		debug->has_file_id = true;
		debug->file_id = file_id;
		e = append(ordered, debug);
	}
	free(outside.path);
	return e;
}

static struct err *make_units(struct upload_plan *plan)
{
	plan->units = calloc(plan->file_count ? plan->file_count : 1, sizeof(*plan->units));
	if (!plan->units)
		return err_nomem();
	for (size_t i = 0; i < plan->file_count; i++) {
		bool follows = i > 0 && plan->files[i].role == UPLOAD_DEBUG && plan->files[i].has_file_id;
		if (follows)
			plan->units[plan->unit_count - 1].count++;
		else
			plan->units[plan->unit_count++] = (struct upload_unit){.first = i, .count = 1};
	}
	return NULL;
}

/* Executables, each with its debug file behind it, then what is left. */
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
	for (size_t i = 0; i < found->file_count; i++)
		if (!found->files[i].is_taken)
			TRY(append(ordered, &found->files[i]));
	return make_units(ordered);
}

struct err *upload_plan_make(char *const *paths, size_t path_count, const char *debug_path, struct upload_plan *ret)
{
	CLEANUP(upload_plan_deinit) struct upload_plan found = {0}, ordered = {0};

	for (size_t i = 0; i < path_count; i++)
		TRY(plan_path(&found, paths[i]));
	TRY(order(&found, debug_path, &ordered));
	ordered.skipped = found.skipped;
	ordered.failed = found.failed;
	*ret = ordered;
	ordered = (struct upload_plan){0};
	return NULL;
}

void upload_plan_deinit(struct upload_plan *plan)
{
	for (size_t i = 0; i < plan->file_count; i++)
		free(plan->files[i].path);
	free(plan->files);
	free(plan->units);
	hmap_deinit(&plan->by_inode);
	hmap_deinit(&plan->by_build_id);
	*plan = (struct upload_plan){0};
}

// SPDX-License-Identifier: Apache-2.0
/*
 * From paths to files. A folder is walked without following symbolic links (under .build-id all are links to files
 * that the walk meets anyway); a path that was named is followed. Files in folders that are no ELF program and no package
 * are passed over; a path that was named must be one.
 *
 * What an ELF file is, is told by its sections, as gdb does: code with bytes makes an executable (or shared object, or
 * kernel module); sections of code without bytes, beside DWARF or ELF symbols, make a debug file; DWARF without any code, a supplement (dwz).
 * Object files (.o) and core dumps are neither: nothing runs under their file IDs. Split DWARF (.dwo, .dwp) goes with its program.
 * Kernels and modules may lie packed (vmlinuz, .ko.xz); in folders they are told by their names first, so that not every compressed file is
 * unpacked.
 */
#include "cli/upload_plan.h"

#include "cli/cli.h"
#include "symbolizer/build/kernel.h"
#include "symbolizer/build/debug_file.h"

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

const char *upload_role_name(enum upload_role role)
{
	static const char *const names[] = {
		[UPLOAD_EXECUTABLE] = "executable", [UPLOAD_DEBUG] = "debug", [UPLOAD_PACKAGE] = "package",
		[UPLOAD_SUPPLEMENT] = "supplement", [UPLOAD_SPLIT] = "split"};

	return names[role];
}

struct upload_file *upload_plan_add(struct upload_plan *plan)
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

/* One without code, which is not one either: object files have sections of code, if empty ones. */
static enum upload_kind kind_of_object(const struct elffile *elf)
{
	if (elffile_find(elf, ".debug_info.dwo") || elffile_find(elf, ".debug_cu_index"))
		return UPLOAD_KIND_SPLIT;
	for (size_t i = 0; i < elffile_section_count(elf); i++)
		if (elffile_section(elf, i)->flags & SHF_EXECINSTR)
			return UPLOAD_KIND_OBJECT;
	return has_section(elf, ".debug_info") && elffile_build_id(elf)->len > 0 ? UPLOAD_KIND_SUPPLEMENT : UPLOAD_KIND_OBJECT;
}

static enum upload_kind kind_of(const struct elffile *elf)
{
	bool has_code = false, has_empty_code = false;
	uint16_t type = elffile_type(elf);

	if (type == ET_REL && kernel_kind(elf) != KERNEL_MODULE)
		return kind_of_object(elf);
	if (type != ET_EXEC && type != ET_DYN && type != ET_REL)
		return UPLOAD_KIND_OTHER;
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
		return UPLOAD_KIND_EXECUTABLE;
	if (has_empty_code && (has_section(elf, ".debug_info") || has_section(elf, ".symtab")))
		return UPLOAD_KIND_DEBUG;
	return UPLOAD_KIND_OTHER;
}

void upload_describe(const struct elf_mapping *mapping, struct upload_file *file)
{
	struct build_id id;

	file->build_id = *elffile_build_id(mapping->elf);
	file->has_dwarf = has_section(mapping->elf, ".debug_info");
	file->has_symtab = has_section(mapping->elf, ".symtab") || has_section(mapping->elf, ".gopclntab");
	file->has_supplement = elffile_debugaltlink(mapping->elf, &id) != NULL;
	file->may_be_split = has_section(mapping->elf, ".debug_addr");
}

static enum upload_role role_of(enum upload_kind kind)
{
	return kind == UPLOAD_KIND_DEBUG ? UPLOAD_DEBUG : kind == UPLOAD_KIND_SUPPLEMENT ? UPLOAD_SUPPLEMENT : UPLOAD_EXECUTABLE;
}

/* By the kernel's ID, whoever asks for it: that of a packed file is nobody's. */
static struct err *describe_packed(const char *path, const struct elf_mapping *mapping, struct upload_file *file,
	enum upload_kind *kind_ret)
{
	file->is_bare = !mapping->elf;
	file->build_id = file->is_bare ? mapping->packed.build_id : *elffile_build_id(mapping->elf);
	if ((!file->is_bare && kernel_kind(mapping->elf) == KERNEL_NONE) || file->build_id.len == 0)
		return err_new(ERR_UNSUPPORTED, "%s: packed, and neither a Linux kernel nor a module with a build ID: unpack it", path);
	*kind_ret = file->is_bare ? UPLOAD_KIND_EXECUTABLE : kind_of(mapping->elf);
	file->role = role_of(*kind_ret);
	file->has_file_id = *kind_ret == UPLOAD_KIND_EXECUTABLE;
	if (file->has_file_id)
		file->file_id = fileid_from_kernel_build_id(file->build_id.bytes, file->build_id.len);
	return NULL;
}

static struct err *describe_elf(const char *path, struct upload_file *file, enum upload_kind *kind_ret)
{
	CLEANUP(elf_mapping_deinit) struct elf_mapping mapping = {0};

	TRY(elf_mapping_open_any(path, &mapping));
	if (mapping.is_packed)
		TRY(describe_packed(path, &mapping, file, kind_ret));
	if (!mapping.elf)
		return NULL;
	*kind_ret = kind_of(mapping.elf);
	upload_describe(&mapping, file);
	file->role = role_of(*kind_ret);
	if (*kind_ret != UPLOAD_KIND_EXECUTABLE || mapping.is_packed)
		return NULL;
	file->has_file_id = true;
	return err_wrap(fileid_from_memory(mapping.bytes, mapping.len, &file->file_id), "%s", path);
}

static uint64_t inode_key(uint64_t device, uint64_t inode)
{
	const uint64_t pair[] = {device, inode};

	return digest_xxh3_64(pair, sizeof(pair));
}

struct upload_file *upload_plan_find_same(const struct upload_plan *plan, uint64_t device, uint64_t inode)
{
	uint64_t index;

	if (!hmap_get(&plan->by_inode, inode_key(device, inode), &index))
		return NULL;
	struct upload_file *file = &plan->files[index];
	return file->inode == inode && file->device == device ? file : NULL;
}

struct upload_file *upload_plan_find_debug(const struct upload_plan *plan, const struct build_id *id)
{
	uint64_t index;

	if (id->len == 0 || !hmap_get(&plan->by_build_id, digest_xxh3_64(id->bytes, id->len), &index))
		return NULL;
	struct upload_file *file = &plan->files[index];
	return build_id_equal(&file->build_id, id) ? file : NULL;
}

struct err *upload_plan_commit(struct upload_plan *plan)
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

/* Whether something of this kind is sent by itself. */
static bool is_wanted(enum upload_kind kind)
{
	return kind == UPLOAD_KIND_EXECUTABLE || kind == UPLOAD_KIND_DEBUG || kind == UPLOAD_KIND_PACKAGE || kind == UPLOAD_KIND_SUPPLEMENT;
}

/* @p named: by the user, not found in a folder. What is not wanted is not added. */
static struct err *plan_file(struct upload_plan *plan, const char *path, bool named, enum upload_kind *kind_ret)
{
	char head[HEAD_BYTES];
	struct stat status;

	*kind_ret = UPLOAD_KIND_OTHER;
	TRY(read_head(path, head, &status));
	bool is_package = memcmp(head, package_magic, sizeof(package_magic) - 1) == 0;
	bool is_elf = memcmp(head, ELFMAG, SELFMAG) == 0;
	is_elf |= (named || kernel_image_is_named(path)) && kernel_image_detect(head, HEAD_BYTES) != KERNEL_IMAGE_NONE;
	if (!S_ISREG(status.st_mode) || (!is_package && !is_elf))
		return NULL;
	struct upload_file *file = upload_plan_add(plan);
	if (!file)
		return err_nomem();
	*kind_ret = UPLOAD_KIND_PACKAGE;
	file->role = UPLOAD_PACKAGE;
	file->size = (uint64_t)status.st_size;
	if (is_elf)
		TRY(describe_elf(path, file, kind_ret));
	if (!is_wanted(*kind_ret) || upload_plan_find_same(plan, status.st_dev, status.st_ino))
		return NULL;
	file->device = status.st_dev;
	file->inode = status.st_ino;
	file->path = strdup(path);
	if (!file->path)
		return err_nomem();
	struct err *e = upload_plan_commit(plan);
	if (e)
		free(file->path); /* not part of the plan, so nobody else will */
	return e;
}

const char *upload_kind_name(enum upload_kind kind)
{
	static const char *const names[UPLOAD_KINDS] = {[UPLOAD_KIND_OTHER] = "no ELF program",
		[UPLOAD_KIND_OBJECT] = "object file",
		[UPLOAD_KIND_SPLIT] = "split DWARF, which goes with its program"};

	return names[kind] ? names[kind] : "wanted";
}

static struct err *plan_folder(struct upload_plan *plan, const char *path, unsigned depth);

/* What is found in a folder and cannot be read is told and counted; it does not stop the rest. */
static struct err *plan_member(struct upload_plan *plan, const char *path, unsigned depth)
{
	struct stat status;
	enum upload_kind kind = UPLOAD_KIND_OTHER;

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
	} else if (!e && !is_wanted(kind) && S_ISREG(status.st_mode)) {
		plan->skipped[kind]++;
		if (plan->verbose)
			fprintf(stderr, "upload-symbols: passed over: %s: %s\n", path, upload_kind_name(kind));
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

struct err *upload_plan_path(struct upload_plan *plan, const char *path)
{
	struct stat status;
	enum upload_kind kind;

	if (stat(path, &status) != 0)
		return err_os(errno, "stat %s", path);
	if (S_ISDIR(status.st_mode))
		return plan_folder(plan, path, 1);
	TRY(plan_file(plan, path, true, &kind));
	if (kind == UPLOAD_KIND_SPLIT)
		return err_new(ERR_INVALID, "%s: split DWARF goes with its program: name that", path);
	if (!is_wanted(kind))
		return err_new(ERR_INVALID, "%s: neither an ELF program, a debug file, a kernel, a .deb nor a folder", path);
	return NULL;
}

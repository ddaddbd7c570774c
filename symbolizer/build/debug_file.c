// SPDX-License-Identifier: Apache-2.0
/*
 * The search of debug_file.h.
 *
 * Every place is tried in gdb's order until one holds a file that belongs to the binary. A candidate that does not belong
 * (another build ID, another CRC, not ELF) is never used; what is wrong with the first such is kept, and is the answer
 * when no later place has the right file: a stale debug file is the commonest reason for wrong line numbers, and silence about
 * it the worst answer. Places that do not exist are passed over.
 *
 * The binary's folder is tried as it was named and as it really is: Debian's /lib is a link to /usr/lib, and packages put
 * their files under either name in /usr/lib/debug.
 */
#include "symbolizer/build/debug_file.h"

#include "base/digest.h"
#include "symbolizer/build/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { SPLITS_LOOKED_AT = 64 /* of the files found last: units of one file stand together */ };

static const char *const default_dirs[] = {"/usr/lib/debug"};

struct search {
	const struct elf_mapping *binary;
	struct build_id build_id;
	struct elffile_debuglink link;
	struct stat binary_stat;
	const char *const *dirs;
	size_t dir_count;
	struct err *problem; /* of the first candidate that did not do */
	struct elf_mapping found;
};

static struct err *map_file(const char *path, struct elf_mapping *mapping)
{
	int fd CLEANUP(closep) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_os(errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_new(ERR_FORMAT, "%s: not a regular file", path);
	if (st.st_size == 0)
		return err_new(ERR_FORMAT, "%s: empty file", path);
	void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return err_os(errno, "%s: mmap", path);
	mapping->bytes = bytes;
	mapping->len = (size_t)st.st_size;
	return NULL;
}

static void unmap(struct elf_mapping *mapping)
{
	if (mapping->bytes)
		(void)munmap((void *)(uintptr_t)mapping->bytes, mapping->len);
	mapping->bytes = NULL;
}

/* The ELF file in a packed kernel or module takes the place of the file. */
static struct err *unpack(struct elf_mapping *mapping)
{
	TRY(kernel_image_unpack(mapping->bytes, mapping->len, mapping->path, KERNEL_IMAGE_BYTES_MAX, &mapping->packed));
	unmap(mapping);
	mapping->is_packed = true;
	mapping->bytes = mapping->packed.elf.data; /* NULL: a bare image */
	mapping->len = mapping->packed.elf.len;
	return NULL;
}

struct err *elf_mapping_open_any(const char *path, struct elf_mapping *ret)
{
	struct elf_mapping mapping CLEANUP(elf_mapping_deinit) = {0};

	mapping.path = strdup(path);
	if (!mapping.path)
		return err_nomem();
	TRY(map_file(path, &mapping));
	if (kernel_image_detect(mapping.bytes, mapping.len) != KERNEL_IMAGE_NONE)
		TRY(unpack(&mapping));
	if (mapping.bytes)
		TRY(elffile_open(mapping.bytes, mapping.len, path, NULL, &mapping.elf));
	*ret = mapping;
	mapping = (struct elf_mapping){0};
	return NULL;
}

struct err *elf_mapping_open(const char *path, struct elf_mapping *ret)
{
	struct elf_mapping mapping CLEANUP(elf_mapping_deinit) = {0};

	TRY(elf_mapping_open_any(path, &mapping));
	if (!mapping.elf)
		return err_new(ERR_UNSUPPORTED, "%s: a bare kernel image, without symbols or ELF headers: use its vmlinux", path);
	*ret = mapping;
	mapping = (struct elf_mapping){0};
	return NULL;
}

void elf_mapping_deinit(struct elf_mapping *mapping)
{
	elffile_close(mapping->elf);
	if (!mapping->is_packed)
		unmap(mapping);
	kernel_image_deinit(&mapping->packed);
	free(mapping->path);
	*mapping = (struct elf_mapping){0};
}

static struct err *build_id_mismatch(const struct search *search, const struct elf_mapping *candidate, const struct build_id *id)
{
	char want[BUILD_ID_HEX_SIZE], have[BUILD_ID_HEX_SIZE];

	build_id_format(&search->build_id, want);
	build_id_format(id, have);
	return err_new(ERR_MISMATCH, "%s: build ID %s, but that of %s is %s", candidate->path, id->len ? have : "(none)",
		search->binary->path, want);
}

static struct err *check_crc(const struct search *search, const struct elf_mapping *candidate)
{
	uint32_t crc = digest_crc32(0, candidate->bytes, candidate->len);

	if (crc == search->link.crc)
		return NULL;
	return err_new(ERR_MISMATCH, "%s: CRC %08" PRIx32 ", but the .gnu_debuglink of %s says %08" PRIx32, candidate->path, crc,
		search->binary->path, search->link.crc);
}

/*
 * Whether a candidate belongs to the binary. Equal build IDs prove it; a CRC is asked for where gdb does (files found by
 * link), and of a named file only when there is no build ID to compare.
 */
static struct err *check_candidate(const struct search *search, const struct elf_mapping *candidate, bool by_link)
{
	const struct build_id *id = elffile_build_id(candidate->elf);
	const bool comparable = search->build_id.len > 0 && id->len > 0;

	if ((comparable && !build_id_equal(&search->build_id, id)) || (!comparable && kernel_kind(search->binary->elf) != KERNEL_NONE))
		return build_id_mismatch(search, candidate, id);
	if (elffile_machine(candidate->elf) != elffile_machine(search->binary->elf))
		return err_new(ERR_MISMATCH, "%s: ELF machine %u, but that of %s is %u", candidate->path,
			elffile_machine(candidate->elf), search->binary->path, elffile_machine(search->binary->elf));
	if (by_link || (!comparable && search->link.name))
		return check_crc(search, candidate);
	return NULL;
}

/* Takes over @p e unless an earlier problem is kept. */
static void keep_problem(struct search *search, struct err *e)
{
	if (search->problem)
		err_free(e);
	else
		search->problem = e;
}

static bool is_absent(const struct err *e)
{
	return err_code(e) == ERR_OS && (err_errno(e) == ENOENT || err_errno(e) == ENOTDIR || err_errno(e) == ENAMETOOLONG);
}

/* True when search->found is the debug file now. */
static bool try_path(struct search *search, const char *path, bool by_link)
{
	struct elf_mapping candidate CLEANUP(elf_mapping_deinit) = {0};
	struct stat st;

	/* A binary can be linked to a file of its own name, which then stands beside it: itself. */
	if (stat(path, &st) == 0 && st.st_dev == search->binary_stat.st_dev && st.st_ino == search->binary_stat.st_ino)
		return false;
	struct err *e = elf_mapping_open(path, &candidate);
	if (e && is_absent(e)) {
		err_free(e);
		return false;
	}
	if (!e)
		e = check_candidate(search, &candidate, by_link);
	if (e) {
		keep_problem(search, e);
		return false;
	}
	search->found = candidate;
	candidate = (struct elf_mapping){0};
	return true;
}

static bool try_build_id(struct search *search)
{
	char hex[BUILD_ID_HEX_SIZE];
	char path[PATH_MAX];

	if (search->build_id.len < 2)
		return false;
	build_id_format(&search->build_id, hex);
	for (size_t i = 0; i < search->dir_count; i++) {
		int length = snprintf(path, sizeof(path), "%s/.build-id/%.2s/%s.debug", search->dirs[i], hex, hex + 2);
		if ((size_t)length < sizeof(path) && try_path(search, path, false))
			return true;
	}
	return false;
}

/* The three places of a link relative to the binary's folder; @p dir is absolute. */
static bool try_link_in(struct search *search, const char *dir)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < 2 + search->dir_count; i++) {
		int length = i < 2 ? snprintf(path, sizeof(path), "%s%s%s", dir, i == 0 ? "/" : "/.debug/", search->link.name)
				   : snprintf(path, sizeof(path), "%s%s/%s", search->dirs[i - 2], dir, search->link.name);
		if ((size_t)length < sizeof(path) && try_path(search, path, true))
			return true;
	}
	return false;
}

/* Cuts the last element off; "/x" becomes "". */
static void cut_to_dir(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash)
		*slash = '\0';
}

/* The binary's path as it was given, made absolute; NULL when it does not fit or there is no working directory. */
static const char *absolute_path(const char *path, char buffer[PATH_MAX])
{
	char cwd[PATH_MAX];
	int length;

	if (path[0] == '/')
		length = snprintf(buffer, PATH_MAX, "%s", path);
	else if (getcwd(cwd, sizeof(cwd)))
		length = snprintf(buffer, PATH_MAX, "%s/%s", cwd, path);
	else
		return NULL;
	return length < PATH_MAX ? buffer : NULL;
}

static bool try_link(struct search *search)
{
	char given[PATH_MAX], real[PATH_MAX];

	if (!search->link.name)
		return false;
	bool has_given = absolute_path(search->binary->path, given) != NULL;
	bool has_real = realpath(search->binary->path, real) != NULL;
	if (has_given)
		cut_to_dir(given);
	if (has_real)
		cut_to_dir(real);
	if (has_given && try_link_in(search, given))
		return true;
	return has_real && (!has_given || strcmp(given, real) != 0) && try_link_in(search, real);
}

/* Kernels have neither .build-id links nor .gnu_debuglink in many distributions: their debug files stand at paths of their own. */
static bool try_kernel(struct search *search)
{
	char path[PATH_MAX], given[PATH_MAX];

	if (search->build_id.len == 0 || kernel_kind(search->binary->elf) == KERNEL_NONE || !absolute_path(search->binary->path, given))
		return false;
	for (size_t i = 0; i < search->dir_count; i++)
		for (unsigned n = 0; kernel_debug_path(search->dirs[i], given, n, path); n++)
			if (try_path(search, path, false))
				return true;
	return false;
}

/* ---- supplements ---- */

/* True when search->found is the supplement now; a file that is not is kept as the problem. */
static bool try_supplement(struct search *search, const char *path)
{
	struct elf_mapping candidate CLEANUP(elf_mapping_deinit) = {0};
	struct err *e = elf_mapping_open(path, &candidate);

	if (e && is_absent(e)) {
		err_free(e);
		return false;
	}
	if (!e && !build_id_equal(elffile_build_id(candidate.elf), &search->build_id))
		e = build_id_mismatch(search, &candidate, elffile_build_id(candidate.elf));
	if (e) {
		keep_problem(search, e);
		return false;
	}
	search->found = candidate;
	candidate = (struct elf_mapping){0};
	return true;
}

/* The named path below @p dir and below every folder above it; an absolute one by itself at last. */
static bool try_below(struct search *search, char *dir, const char *name)
{
	char path[PATH_MAX];

	for (;;) {
		int length = snprintf(path, sizeof(path), "%s%s%s", dir, name[0] == '/' ? "" : "/", name);
		if ((size_t)length < sizeof(path) && try_supplement(search, path))
			return true;
		if (!dir[0] || name[0] != '/')
			return false;
		cut_to_dir(dir);
	}
}

static bool try_supplement_dirs(struct search *search, const char *name)
{
	const char *dwz = strstr(name, "/.dwz/");
	char hex[BUILD_ID_HEX_SIZE], path[PATH_MAX];

	build_id_format(&search->build_id, hex);
	for (size_t i = 0; i < search->dir_count; i++) {
		int length = snprintf(path, sizeof(path), "%s/.build-id/%.2s/%s.debug", search->dirs[i], hex, hex + 2);
		if (search->build_id.len > 1 && (size_t)length < sizeof(path) && try_supplement(search, path))
			return true;
		length = snprintf(path, sizeof(path), "%s%s", search->dirs[i], dwz ? dwz : "");
		if (dwz && (size_t)length < sizeof(path) && try_supplement(search, path))
			return true;
	}
	return false;
}

static struct err *find_supplement(struct search *search, const char *name)
{
	char given[PATH_MAX], real[PATH_MAX];
	bool has_given = absolute_path(search->binary->path, given) != NULL;
	bool has_real = realpath(search->binary->path, real) != NULL;

	if (has_given)
		cut_to_dir(given);
	if (has_real)
		cut_to_dir(real);
	if ((has_given && try_below(search, given, name)) || (has_real && try_below(search, real, name)) ||
		try_supplement_dirs(search, name)) {
		err_free(TAKE_PTR(search->problem));
		return NULL;
	}
	return search->problem;
}

struct err *supplement_find(const struct elf_mapping *file, const struct debug_file_search *options, struct elf_mapping *ret)
{
	const bool own_dirs = options && options->debug_dirs;
	struct search search = {
		.binary = file,
		.dirs = own_dirs ? options->debug_dirs : default_dirs,
		.dir_count = own_dirs ? options->debug_dir_count : ARRAY_SIZE(default_dirs),
	};
	const char *name = elffile_debugaltlink(file->elf, &search.build_id);

	if (search.dir_count > DEBUG_FILE_DIRS_MAX)
		return err_new(ERR_INVALID, "%zu debug directories, more than %d", search.dir_count, DEBUG_FILE_DIRS_MAX);
	if (!name)
		return NULL;
	TRY(find_supplement(&search, name));
	if (search.found.bytes)
		*ret = search.found;
	return NULL;
}

/* ---- split DWARF ---- */

struct err *split_package_find(const struct elf_mapping *file, struct elf_mapping *ret)
{
	static const char suffix[] = ".debug";
	size_t len = strlen(file->path), bare = len;
	char path[PATH_MAX];

	if (len > strlen(suffix) && strcmp(file->path + len - strlen(suffix), suffix) == 0)
		bare = len - strlen(suffix);
	for (;; len = bare) {
		int length = snprintf(path, sizeof(path), "%.*s.dwp", (int)len, file->path);
		struct err *e = (size_t)length < sizeof(path) ? elf_mapping_open(path, ret) : NULL;
		if (!e || !is_absent(e))
			return e;
		err_free(e);
		if (len == bare)
			return NULL;
	}
}

static const struct elf_mapping *find_open(const struct split_search *search, const char *path)
{
	for (size_t i = search->count; i > 0 && search->count - i < SPLITS_LOOKED_AT; i--)
		if (strcmp(search->found[i - 1].path, path) == 0)
			return &search->found[i - 1];
	return NULL;
}

static struct err *open_split(struct split_search *search, const char *path)
{
	if (search->count == search->cap) {
		size_t cap = search->cap ? 2 * search->cap : 16;
		struct elf_mapping *found = reallocarray(search->found, cap, sizeof(*found));
		if (!found)
			return err_nomem();
		search->found = found;
		search->cap = cap;
	}
	TRY(elf_mapping_open(path, &search->found[search->count]));
	search->count++;
	return NULL;
}

/* What cannot be opened is as good as not there. */
static struct err *try_split(struct split_search *search, const char *path, struct build_image *ret)
{
	const struct elf_mapping *mapping = find_open(search, path);

	if (!mapping) {
		struct err *e = open_split(search, path);
		if (e && err_code(e) == ERR_NOMEM)
			return e;
		err_free(e);
		if (e)
			return NULL;
		mapping = &search->found[search->count - 1];
	}
	*ret = (struct build_image){.bytes = mapping->bytes, .len = mapping->len, .name = mapping->path};
	return NULL;
}

struct err *split_search_find(void *context, const struct build_split_name *wanted, struct build_image *ret)
{
	struct split_search *search = context;
	const char *slash = strrchr(wanted->name, '/');
	const char *base = slash ? slash + 1 : wanted->name;
	char folder[PATH_MAX], paths[3][PATH_MAX + 2];
	bool is_absolute = wanted->name[0] == '/', has_folder = absolute_path(search->binary->path, folder) != NULL;
	int lengths[3] = {0};

	if (has_folder)
		cut_to_dir(folder);
	lengths[0] = snprintf(paths[0], PATH_MAX, "%s%s%s", is_absolute ? "" : wanted->comp_dir, is_absolute ? "" : "/", wanted->name);
	if (has_folder && !is_absolute)
		lengths[1] = snprintf(paths[1], PATH_MAX, "%s/%s", folder, wanted->name);
	if (has_folder && slash)
		lengths[2] = snprintf(paths[2], PATH_MAX, "%s/%s", folder, base);
	*ret = (struct build_image){.bytes = NULL};
	for (size_t i = 0; i < ARRAY_SIZE(lengths) && !ret->bytes; i++)
		if (lengths[i] > 0 && lengths[i] < PATH_MAX)
			TRY(try_split(search, paths[i], ret));
	return NULL;
}

void split_search_deinit(struct split_search *search)
{
	for (size_t i = 0; i < search->count; i++)
		elf_mapping_deinit(&search->found[i]);
	free(search->found);
	*search = (struct split_search){0};
}

/* ---- all ---- */

static struct err *find_named(struct search *search, const char *path)
{
	TRY(elf_mapping_open(path, &search->found));
	return check_candidate(search, &search->found, false);
}

struct err *debug_file_find(const struct elf_mapping *binary, const struct debug_file_search *options, struct elf_mapping *ret)
{
	const bool own_dirs = options && options->debug_dirs;
	struct search search = {
		.binary = binary,
		.build_id = *elffile_build_id(binary->elf),
		.link = elffile_debuglink(binary->elf),
		.dirs = own_dirs ? options->debug_dirs : default_dirs,
		.dir_count = own_dirs ? options->debug_dir_count : ARRAY_SIZE(default_dirs),
	};

	if (search.dir_count > DEBUG_FILE_DIRS_MAX)
		return err_new(ERR_INVALID, "%zu debug directories, more than %d", search.dir_count, DEBUG_FILE_DIRS_MAX);
	if (stat(binary->path, &search.binary_stat) != 0)
		search.binary_stat = (struct stat){0};
	if (options && options->debug_file)
		search.problem = find_named(&search, options->debug_file);
	else if (try_build_id(&search) || try_link(&search) || try_kernel(&search)) {
		err_free(search.problem);
		search.problem = NULL;
	}
	if (search.problem) {
		elf_mapping_deinit(&search.found);
		return search.problem;
	}
	*ret = search.found;
	return NULL;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * A folder of this machine. Two ways to find a file in it:
 *
 *   by name    <folder>/.build-id/ab/cdef.debug and <folder>/ab/cdef.debug, as debuggers do. Nothing is read ahead.
 *   by content every other regular ELF file below it is looked at once: its build ID, and the file ID of what is no `.debug` file.
 *              Where it lies is kept in memory: at most DIRECTORY_FILES_MAX files, DEPTH_MAX deep.
 *
 * A thread of its own scans at start, then watches every folder by inotify and scans again when something changed (after
 * SETTLE_MS, so that a build that writes a thousand files costs few scans), and every RESCAN_MS where nothing is told (network
 * file systems, more folders than watches). A file that was not changed (same inode, size and time) is not read again.
 * A scan that found something new makes earlier answers void.
 *
 * The other kind is what is installed on this machine (source_installed): no thread, no watches. Its folders are scanned when somebody asks
 * for a file ID alone for the first time, and again when one is not found and INSTALLED_STALE_MS have passed; only programs and shared objects by mode and name
 * are opened, and of those the first and last pages are read. So a file ID alone, which says nothing about where a file comes
 * from, becomes a build ID, by which other sources know it.
 *
 * Links are followed for the names of a .build-id tree (they are links), not while scanning.
 */
#include "sources/source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DIRECTORY_FILES_MAX = 200000, WATCHES_MAX = 8192, DEPTH_MAX = 32, SETTLE_MS = 300, RESCAN_MS = 600000, INSTALLED_STALE_MS = 300000, PATH_SIZE = 4096 };

struct known_file {
	char *path; /* malloc'd */
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec modified;
	bool is_elf, is_debug;
	struct build_id build_id;
	struct fileid file_id;
};

struct files {
	struct known_file *items; /* sorted by path */
	size_t count, cap;
};

struct directory {
	struct source source;
	char path[PATH_SIZE]; /* of what is installed: several, separated by blanks */
	bool installed;
	pthread_mutex_t scanning; /* of what is installed: one scan at a time */
	uint64_t scanned_ms;
	pthread_t thread;
	bool started;
	int stop_fd, inotify_fd;
	size_t watches;
	pthread_mutex_t lock; /* files, scanned */
	pthread_cond_t changed;
	bool scanned;
	struct files files;
};

static void files_deinit(struct files *files)
{
	for (size_t i = 0; i < files->count; i++)
		free(files->items[i].path);
	free(files->items);
	*files = (struct files){0};
}

/* ---------------------------------------------------------------------------------------- scanning */

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* What a file is, by its content. Whatever is wrong with it makes it no ELF file. */
static void look_at(int fd, struct known_file *file)
{
	struct elf_ids ids;

	if (file->size < 64)
		return;
	void *bytes = mmap(NULL, (size_t)file->size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return;
	if (memcmp(bytes, "\177ELF", 4) == 0) {
		struct err *e = build_id_from_elf(bytes, (size_t)file->size, "file", &ids);
		if (!e)
			e = fileid_from_memory(bytes, (size_t)file->size, &file->file_id);
		if (!e)
			e = build_id_from_ids(&ids, &file->build_id);
		file->is_elf = !e;
		err_free(e);
	}
	(void)munmap(bytes, (size_t)file->size);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct known_file *)a)->path, ((const struct known_file *)b)->path);
}

static const struct known_file *find_path(const struct files *files, const char *path)
{
	struct known_file key = {.path = (char *)(uintptr_t)path};

	return files->count ? bsearch(&key, files->items, files->count, sizeof(key), by_path) : NULL;
}

static bool is_same(const struct known_file *known, const struct stat *status)
{
	return known && known->device == status->st_dev && known->inode == status->st_ino && known->size == status->st_size &&
	       known->modified.tv_sec == status->st_mtim.tv_sec && known->modified.tv_nsec == status->st_mtim.tv_nsec;
}

/* A program, or a shared object, by mode and name: of some 100,000 files of a system a few thousand are opened. */
static bool may_be_program(int dir_fd, const char *name)
{
	struct stat status;

	return fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) &&
	       ((status.st_mode & 0111) || strstr(name, ".so"));
}

static struct err *add_file(const struct files *before, struct files *now, int dir_fd, const char *name, const char *path)
{
	struct stat status;
	CLEANUP(closep) int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode))
		return NULL; /* gone, or not for us */
	if (now->count == now->cap) {
		size_t cap = now->cap ? 2 * now->cap : 256;
		struct known_file *items = realloc(now->items, cap * sizeof(*items));
		if (!items)
			return err_nomem();
		now->items = items;
		now->cap = cap;
	}
	char *copy = strdup(path);
	if (!copy)
		return err_nomem();
	const struct known_file *known = find_path(before, path);
	struct known_file *file = &now->items[now->count++];
	*file = (struct known_file){.path = copy, .device = status.st_dev, .inode = status.st_ino, .size = status.st_size, .modified = status.st_mtim};
	if (is_same(known, &status)) {
		*file = *known;
		file->path = copy;
		return NULL;
	}
	file->is_debug = ends_with(name, ".debug");
	look_at(fd, file);
	return NULL;
}

struct pending_dir {
	struct pending_dir *next;
	unsigned depth;
	char path[];
};

static struct err *push_dir(struct pending_dir **stack, const char *path, unsigned depth)
{
	struct pending_dir *dir = malloc(sizeof(*dir) + strlen(path) + 1);

	if (!dir)
		return err_nomem();
	dir->next = *stack;
	dir->depth = depth;
	memcpy(dir->path, path, strlen(path) + 1);
	*stack = dir;
	return NULL;
}

static void watch(struct directory *directory, const char *path)
{
	if (directory->watches < WATCHES_MAX &&
		inotify_add_watch(directory->inotify_fd, path,
			IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_EXCL_UNLINK) >= 0)
		directory->watches++;
}

static struct err *scan_dir(struct directory *directory, const struct pending_dir *at, struct pending_dir **stack, struct files *now)
{
	char path[PATH_SIZE];
	struct err *e = NULL;
	DIR *dir = opendir(at->path);

	if (!dir)
		return NULL;
	watch(directory, at->path);
	for (struct dirent *entry; !e && (entry = readdir(dir)) && now->count < DIRECTORY_FILES_MAX;) {
		bool dots = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
		int len = snprintf(path, sizeof(path), "%s/%s", at->path, entry->d_name);
		if (dots || len < 0 || (size_t)len >= sizeof(path))
			continue;
		if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".build-id") != 0 && at->depth < DEPTH_MAX)
			e = push_dir(stack, path, at->depth + 1);
		else if ((entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN) && (!directory->installed || may_be_program(dirfd(dir), entry->d_name)))
			e = add_file(&directory->files, now, dirfd(dir), entry->d_name, path);
	}
	(void)closedir(dir);
	return e;
}

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool same_files(const struct files *a, const struct files *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (strcmp(a->items[i].path, b->items[i].path) != 0 || a->items[i].inode != b->items[i].inode ||
			a->items[i].size != b->items[i].size || a->items[i].modified.tv_nsec != b->items[i].modified.tv_nsec ||
			a->items[i].modified.tv_sec != b->items[i].modified.tv_sec)
			return false;
	return true;
}

/* The folders to begin with. Of what is installed, links to others among them are left out (/lib -> usr/lib). */
static struct err *push_roots(const struct directory *directory, struct pending_dir **stack)
{
	char path[PATH_SIZE];
	struct stat status;

	if (!directory->installed)
		return push_dir(stack, directory->path, 0);
	for (const char *at = directory->path; *at;) {
		size_t len = strcspn(at, " ");
		(void)snprintf(path, sizeof(path), "%.*s", (int)len, at);
		if (len && lstat(path, &status) == 0 && S_ISDIR(status.st_mode))
			TRY(push_dir(stack, path, 0));
		at += len + (at[len] == ' ');
	}
	return NULL;
}

/* Only one thread at a time writes `files`, this one, so it reads them without the lock. */
static void scan(struct directory *directory)
{
	struct pending_dir *stack = NULL;
	struct files now = {0}, old;
	struct err *e = push_roots(directory, &stack);

	while (stack) {
		struct pending_dir *at = stack;
		stack = at->next;
		if (!e)
			e = scan_dir(directory, at, &stack, &now);
		free(at);
	}
	err_free(e); /* out of memory: what was found is still true */
	if (now.count)
		qsort(now.items, now.count, sizeof(*now.items), by_path);
	bool differs = !same_files(&directory->files, &now);
	(void)pthread_mutex_lock(&directory->lock);
	old = directory->files;
	directory->files = now;
	if (differs || !directory->scanned)
		atomic_store_explicit(&directory->source.changed_ms, wall_ms(), memory_order_relaxed);
	directory->scanned = true;
	(void)pthread_cond_broadcast(&directory->changed);
	(void)pthread_mutex_unlock(&directory->lock);
	files_deinit(&old);
}

static bool wait_for(struct directory *directory, int fd, int ms)
{
	struct pollfd polled[] = {{.fd = directory->stop_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};

	(void)poll(polled, 2, ms);
	return polled[0].revents == 0;
}

static void *directory_main(void *argument)
{
	struct directory *directory = argument;
	char events[4096];

	do {
		scan(directory);
		if (!wait_for(directory, directory->inotify_fd, RESCAN_MS) || !wait_for(directory, -1, SETTLE_MS))
			break;
		while (read(directory->inotify_fd, events, sizeof(events)) > 0)
			;
	} while (true);
	return NULL;
}

/* ---------------------------------------------------------------------------------------- finding */

/* A program of a build tree may have it in itself. */
static bool has_debug_info(int fd, size_t size)
{
	void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	bool has = bytes != MAP_FAILED && elf_has_debug_info(bytes, size);

	if (bytes != MAP_FAILED)
		(void)munmap(bytes, size);
	return has;
}

/* Opens @p path and takes it when it has the build ID (len 0: any). */
static bool take(const char *path, const struct build_id *id, enum store_role role, struct source_said *said)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode))
		return false;
	struct err *e = source_check_build_id(fd, id);
	if (e) {
		source_say(said, STORE_ASK_REFUSED, "%.60s: %.240s", strrchr(path, '/') + 1, err_message(e));
		err_free(e);
		return false;
	}
	said->has_debug = said->has_debug || role == STORE_ROLE_DEBUG || has_debug_info(fd, (size_t)status.st_size);
	said->has_runtime = said->has_runtime || role == STORE_ROLE_RUNTIME;
	struct source_file *file = &said->files[said->file_count++];
	*file = (struct source_file){.role = role, .fd = take_fd(&fd)};
	const char *name = strrchr(path, '/') + 1;
	(void)snprintf(file->name, sizeof(file->name), "%.250s", name);
	size_t len = strlen(path), keep = len < sizeof(said->provenance) ? len : sizeof(said->provenance) - 1;
	memcpy(said->provenance, path + len - keep, keep);
	said->provenance[keep] = 0;
	return true;
}

static bool find_by_name(struct directory *directory, const struct build_id *id, struct source_said *said)
{
	char hex[BUILD_ID_HEX_SIZE], path[PATH_SIZE];

	build_id_format(id, hex);
	if (id->len < 2)
		return false;
	static const char *const trees[] = {"/.build-id", ""};
	for (size_t i = 0; i < ARRAY_SIZE(trees); i++) {
		int len = snprintf(path, sizeof(path), "%s%s/%.2s/%s.debug", directory->path, trees[i], hex, hex + 2);
		if (len > 0 && (size_t)len < sizeof(path) && take(path, id, STORE_ROLE_DEBUG, said))
			return true;
	}
	return false;
}

/* Copies the path of a scanned file; false when there is none. With a file ID its build ID is learnt. */
static bool find_scanned(struct directory *directory, const struct source_wanted *wanted, struct build_id *id, bool debug, char path[PATH_SIZE])
{
	bool found = false;

	(void)pthread_mutex_lock(&directory->lock);
	for (size_t i = 0; i < directory->files.count && !found; i++) {
		const struct known_file *file = &directory->files.items[i];
		if (!file->is_elf || file->is_debug != debug)
			continue;
		bool by_id = id->len > 0 && build_id_equal(&file->build_id, id);
		bool by_file = !debug && wanted->has_file_id && fileid_equal(&file->file_id, &wanted->file_id);
		if (by_id || by_file) {
			(void)snprintf(path, PATH_SIZE, "%s", file->path);
			*id = file->build_id;
			found = true;
		}
	}
	(void)pthread_mutex_unlock(&directory->lock);
	return found;
}

static void wait_for_scan(struct directory *directory)
{
	(void)pthread_mutex_lock(&directory->lock);
	while (!directory->scanned)
		(void)pthread_cond_wait(&directory->changed, &directory->lock);
	(void)pthread_mutex_unlock(&directory->lock);
}

/* Unless the last scan was not long ago; waits for one that goes on. */
static void scan_installed(struct directory *directory)
{
	(void)pthread_mutex_lock(&directory->scanning);
	if (!directory->scanned_ms || wall_ms() - directory->scanned_ms > INSTALLED_STALE_MS) {
		scan(directory);
		directory->scanned_ms = wall_ms();
	}
	(void)pthread_mutex_unlock(&directory->scanning);
}

static struct err *find(struct source *source, const struct source_wanted *wanted, struct source_said *ret)
{
	struct directory *directory = (struct directory *)source;
	CLEANUP(freep) char *path = malloc(PATH_SIZE);
	struct build_id id = wanted->build_id;

	if (!path)
		return err_nomem();
	if (!directory->installed)
		wait_for_scan(directory);
	source_say(ret, STORE_ASK_NOT_FOUND, directory->installed ? "no program or library that was seen of this machine has this ID" : "no file in it has this ID");
	bool found = !wanted->has_runtime && find_scanned(directory, wanted, &id, false, path);
	/* A build ID gets its runtime file from elsewhere, too, most often beside its debug info: it is not worth the wait. */
	if (!found && (!id.len || wanted->has_debug) && directory->installed) {
		scan_installed(directory);
		found = find_scanned(directory, wanted, &id, false, path);
	}
	if (found)
		(void)take(path, &id, STORE_ROLE_RUNTIME, ret);
	if (id.len && !wanted->has_debug && !directory->installed && !find_by_name(directory, &id, ret) && find_scanned(directory, wanted, &id, true, path))
		(void)take(path, &id, STORE_ROLE_DEBUG, ret);
	if (ret->file_count == 0)
		return NULL;
	ret->build_id = id;
	source_say(ret, STORE_ASK_FOUND, "%.300s", ret->provenance);
	return NULL;
}

/* A .dwz tree is scanned like any other folder. */
static struct err *bring(struct source *source, const struct source_needed *needed, struct source_file *ret, char *reason, size_t size)
{
	struct directory *directory = (struct directory *)source;
	struct source_wanted wanted = {.build_id = needed->build_id};
	struct build_id id = needed->build_id;
	CLEANUP(freep) char *path = malloc(PATH_SIZE);
	struct source_said said = {0};

	if (!path)
		return err_nomem();
	wait_for_scan(directory);
	if (find_by_name(directory, &id, &said) || (find_scanned(directory, &wanted, &id, true, path) && take(path, &id, STORE_ROLE_DEBUG, &said)) ||
		(find_scanned(directory, &wanted, &id, false, path) && take(path, &id, STORE_ROLE_DEBUG, &said))) {
		*ret = said.files[0];
		ret->role = STORE_ROLE_SUPPLEMENT;
		return NULL;
	}
	(void)snprintf(reason, size, "no file in it has this build ID");
	return NULL;
}

static void destroy(struct source *source)
{
	struct directory *directory = (struct directory *)source;

	if (directory->started) {
		(void)eventfd_write(directory->stop_fd, 1);
		(void)pthread_join(directory->thread, NULL);
	}
	files_deinit(&directory->files);
	(void)pthread_mutex_destroy(&directory->scanning);
	closep(&directory->stop_fd);
	closep(&directory->inotify_fd);
	(void)pthread_cond_destroy(&directory->changed);
	(void)pthread_mutex_destroy(&directory->lock);
	free(directory);
}

struct err *source_directory(const struct source_context *context, const char *path, struct source **ret)
{
	static const struct source_ops ops = {.find = find, .bring = bring, .destroy = destroy};
	size_t len = strlen(path);

	(void)context;
	while (len > 1 && path[len - 1] == '/')
		len--;
	if (path[0] != '/' || len >= PATH_SIZE / 2)
		return err_new(ERR_INVALID, "sources.directories: \"%.100s\" is no absolute path", path);
	struct directory *directory = calloc(1, sizeof(*directory));
	if (!directory)
		return err_nomem();
	directory->source.ops = &ops;
	directory->source.kind = STORE_SOURCE_DIRECTORY;
	(void)snprintf(directory->path, sizeof(directory->path), "%.*s", (int)len, path);
	(void)snprintf(directory->source.name, sizeof(directory->source.name), "directory %.110s", directory->path);
	(void)pthread_mutex_init(&directory->lock, NULL);
	(void)pthread_mutex_init(&directory->scanning, NULL);
	(void)pthread_cond_init(&directory->changed, NULL);
	directory->stop_fd = eventfd(0, EFD_CLOEXEC);
	directory->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int error = directory->stop_fd < 0 || directory->inotify_fd < 0 ? errno : pthread_create(&directory->thread, NULL, directory_main, directory);
	directory->started = error == 0;
	if (error) {
		destroy(&directory->source);
		return err_os(error, "watch %s", path);
	}
	*ret = &directory->source;
	return NULL;
}

struct err *source_installed(const struct source_context *context, const char *paths, struct source **ret)
{
	static const struct source_ops ops = {.find = find, .destroy = destroy};

	(void)context;
	if (paths[0] != '/' || strlen(paths) >= PATH_SIZE)
		return err_new(ERR_INVALID, "sources.installed: \"%.100s\" is no list of absolute paths", paths);
	struct directory *directory = calloc(1, sizeof(*directory));
	if (!directory)
		return err_nomem();
	directory->source.ops = &ops;
	directory->source.kind = STORE_SOURCE_DIRECTORY;
	directory->installed = true;
	directory->stop_fd = directory->inotify_fd = -1;
	(void)snprintf(directory->path, sizeof(directory->path), "%s", paths);
	(void)snprintf(directory->source.name, sizeof(directory->source.name), "installed");
	(void)pthread_mutex_init(&directory->lock, NULL);
	(void)pthread_mutex_init(&directory->scanning, NULL);
	(void)pthread_cond_init(&directory->changed, NULL);
	*ret = &directory->source;
	return NULL;
}

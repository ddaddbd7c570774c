// SPDX-License-Identifier: Apache-2.0
#include "agent/exe_files.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_BYTES = 4352, OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

static int regular(int fd, struct stat *ret)
{
	if (fd >= 0 && (fstat(fd, ret) != 0 || !S_ISREG(ret->st_mode))) {
		(void)close(fd);
		errno = ENOENT;
		return -1;
	}
	return fd;
}

int exe_files_open_below(const char *root, const char *path, struct stat *ret)
{
	struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};

	CLEANUP(closep) int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return -1;
	return regular((int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how)), ret);
}

int exe_files_open_in_root(uint32_t pid, const char *path, struct stat *ret)
{
	char root[64];

	snprintf(root, sizeof(root), "/proc/%u/root", pid);
	return exe_files_open_below(root, path, ret);
}

static void map_path(uint32_t pid, const struct proc_map *map, char *ret, size_t size)
{
	snprintf(ret, size, "/proc/%u/map_files/%" PRIx64 "-%" PRIx64, pid, map->start, map->end);
}

/*
 * maps writes the path as seen from our root, where that leads to it (a chroot), else from the root of its mount namespace. Either
 * may name another file by now: then it is gone.
 */
static int open_by_path(uint32_t pid, const struct proc_map *map, struct stat *ret)
{
	const uint32_t roots[] = {pid, (uint32_t)getpid()};

	for (size_t i = 0; i < ARRAY_SIZE(roots) && map->path[0] == '/'; i++) {
		int fd = exe_files_open_in_root(roots[i], map->path, ret);
		if (fd >= 0 && ret->st_ino == map->inode)
			return fd;
		if (fd >= 0)
			(void)close(fd);
	}
	return -1;
}

bool exe_files_stat(uint32_t pid, const struct proc_map *map, struct stat *ret)
{
	char path[PATH_BYTES];

	map_path(pid, map, path, sizeof(path));
	if (stat(path, ret) == 0)
		return S_ISREG(ret->st_mode);
	CLEANUP(closep) int fd = open_by_path(pid, map, ret);
	return fd >= 0;
}

int exe_files_open(uint32_t pid, const struct proc_map *map, struct stat *ret)
{
	char path[PATH_BYTES];

	map_path(pid, map, path, sizeof(path));
	int fd = regular(open(path, OPEN_FLAGS), ret);
	return fd >= 0 ? fd : open_by_path(pid, map, ret);
}

static int open_debug_at(uint32_t pid, const char *path)
{
	struct stat st;
	int fd = exe_files_open_in_root(pid, path, &st);

	return fd >= 0 ? fd : exe_files_open_in_root((uint32_t)getpid(), path, &st);
}

int exe_files_open_debug(uint32_t pid, const char *path, const struct build_id *build_id, const char *debuglink)
{
	static const struct {
		const char *before, *between;
	} places[] = {{"", ""}, {"", "/.debug"}, {"/usr/lib/debug", ""}};
	char name[PATH_BYTES];
	const char *slash = strrchr(path, '/');

	if (build_id->len >= 2) {
		int len = snprintf(name, sizeof(name), "/usr/lib/debug/.build-id/%02x/", build_id->bytes[0]);
		for (unsigned i = 1; i < build_id->len; i++)
			len += snprintf(name + len, sizeof(name) - (size_t)len, "%02x", build_id->bytes[i]);
		snprintf(name + len, sizeof(name) - (size_t)len, ".debug");
		int fd = open_debug_at(pid, name);
		if (fd >= 0)
			return fd;
	}
	for (size_t i = 0; slash && debuglink[0] && i < ARRAY_SIZE(places); i++) {
		if (snprintf(name, sizeof(name), "%s%.*s%s/%s", places[i].before, (int)(slash - path), path, places[i].between, debuglink) >=
			(int)sizeof(name))
			continue;
		int fd = strcmp(name, path) != 0 ? open_debug_at(pid, name) : -1;
		if (fd >= 0)
			return fd;
	}
	return -1;
}

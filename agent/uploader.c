// SPDX-License-Identifier: Apache-2.0
#include "agent/uploader.h"

#include "agent/proc_maps.h"
#include "base/digest.h"
#include "base/hmap.h"
#include "sandbox/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_FD = 3, PATH_BYTES = 4096 };

struct wanted {
	struct fileid file_id;
	uint32_t pid;
};

struct uploader {
	struct uploader_options options;
	struct filter_list exclude;
	char program[PATH_MAX];
	struct wanted waiting[UPLOADER_WAITING_MAX]; /* a ring */
	uint32_t head, count;
	uint32_t asked_now; /* since uploader_work */
	struct hmap known; /* digest of the file ID */
	pid_t child;	   /* 0: none */
	uint64_t deadline_ms;
	struct uploader_counters counters;
};

static struct err *find_program(struct uploader *u)
{
	ssize_t len = 0;

	if (u->options.program) {
		(void)snprintf(u->program, sizeof(u->program), "%s", u->options.program);
	} else {
		len = readlink("/proc/self/exe", u->program, sizeof(u->program) - 1);
		u->program[len > 0 ? len : 0] = 0;
		char *slash = strrchr(u->program, '/');
		size_t room = slash ? sizeof(u->program) - (size_t)(slash + 1 - u->program) : 0;
		if (slash)
			(void)snprintf(slash + 1, room, "upload-symbols");
	}
	if (access(u->program, X_OK) != 0)
		return err_new(ERR_NOT_FOUND, "%s, which --upload-symbols needs: %s", u->program, strerror(errno));
	return NULL;
}

struct err *uploader_create(const struct uploader_options *options, struct uploader **ret)
{
	struct uploader *u = calloc(1, sizeof(*u));

	if (!u)
		return err_nomem();
	u->options = *options;
	struct err *e = err_wrap(filter_list_init(&u->exclude, options->exclude), "upload-exclude");
	if (!e)
		e = find_program(u);
	if (e) {
		uploader_destroy(u);
		return e;
	}
	*ret = u;
	return NULL;
}

void uploader_destroy(struct uploader *u)
{
	if (!u)
		return;
	if (u->child > 0) {
		(void)kill(u->child, SIGTERM);
		(void)waitpid(u->child, NULL, 0);
	}
	filter_list_deinit(&u->exclude);
	hmap_deinit(&u->known);
	free(u);
}

bool uploader_has_room(struct uploader *u)
{
	u->counters.asked++;
	if (u->count < UPLOADER_WAITING_MAX && u->asked_now < UPLOADER_ASKED_MAX) {
		u->asked_now++;
		return true;
	}
	u->counters.dropped++;
	return false;
}

struct err *uploader_want(struct uploader *u, const struct fileid *file_id, uint32_t pid)
{
	uint64_t key = digest_xxh3_64(file_id, sizeof(*file_id)), unused = 0;

	if (hmap_get(&u->known, key, &unused))
		return NULL;
	if (pid == 0) {
		u->counters.not_found++;
		return NULL;
	}
	if (u->known.count >= UPLOADER_KNOWN_MAX)
		hmap_clear(&u->known);
	TRY(hmap_set(&u->known, key, 1));
	u->waiting[(u->head + u->count++) % UPLOADER_WAITING_MAX] = (struct wanted){*file_id, pid};
	return NULL;
}

static bool has_id(int fd, const struct fileid *file_id)
{
	struct fileid found;
	struct err *e = fileid_from_fd(fd, &found);
	bool same = !e && fileid_equal(&found, file_id);

	err_free(e);
	return same;
}

static bool is_excluded(const struct filter_list *exclude, const char *path)
{
	const char *slash = strrchr(path, '/');

	return filter_list_match(exclude, path) || filter_list_match(exclude, slash ? slash + 1 : path);
}

int uploader_open(uint32_t pid, const struct fileid *file_id, const struct filter_list *exclude, char path_ret[4096], bool *excluded_ret)
{
	char name[128], *line = NULL;
	struct proc_map map;
	size_t cap = 0;
	int found = -1;

	*excluded_ret = false;
	(void)snprintf(name, sizeof(name), "/proc/%u/maps", pid);
	FILE *maps = fopen(name, "re");
	while (maps && found < 0 && getline(&line, &cap, maps) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (!proc_map_parse(line, &map) || !map.executable || map.inode == 0)
			continue;
		(void)snprintf(name, sizeof(name), "/proc/%u/map_files/%" PRIx64 "-%" PRIx64, pid, map.start, map.end);
		int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 && has_id(fd, file_id)) {
			(void)snprintf(path_ret, PATH_BYTES, "%s", map.path);
			found = fd;
		} else if (fd >= 0) {
			(void)close(fd);
		}
	}
	free(line);
	if (maps)
		(void)fclose(maps);
	if (found >= 0 && is_excluded(exclude, path_ret)) {
		*excluded_ret = true;
		(void)close(found);
		found = -1;
	}
	return found;
}

/** upload-symbols, whose descriptor FILE_FD is the file: its path may be of another mount namespace, or gone. */
static struct err *send_file(struct uploader *u, int fd, const char *path, uint64_t now_ms)
{
	char rate[32], file[32], name[NAME_MAX + 1];
	const char *slash = strrchr(path, '/');
	CLEANUP(closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return err_os(errno, "/dev/null");
	(void)snprintf(rate, sizeof(rate), "%" PRIu64, u->options.bytes_per_second);
	(void)snprintf(file, sizeof(file), "/proc/self/fd/%d", FILE_FD);
	(void)snprintf(name, sizeof(name), "%.255s", slash ? slash + 1 : path);
	const char *const arguments[] = {u->program, "--url", u->options.url, "--jobs", "1", "--rate", rate, "--name", name, file, NULL};
	const int fds[] = {null, null, null, fd};
	u->deadline_ms = now_ms + UPLOADER_DEADLINE_MS;
	return launch(u->program, (char *const *)(uintptr_t)arguments, fds, ARRAY_SIZE(fds), &u->child);
}

static void begin_next(struct uploader *u, uint64_t now_ms)
{
	const struct wanted *wanted = &u->waiting[u->head];
	char path[PATH_BYTES] = "";
	bool excluded = false;
	CLEANUP(closep) int fd = uploader_open(wanted->pid, &wanted->file_id, &u->exclude, path, &excluded);

	u->head = (u->head + 1) % UPLOADER_WAITING_MAX;
	u->count--;
	u->counters.excluded += excluded;
	u->counters.not_found += fd < 0 && !excluded;
	if (fd < 0)
		return;
	struct err *e = send_file(u, fd, path, now_ms);
	u->counters.failed += e != NULL;
	err_free(e);
}

void uploader_work(struct uploader *u, uint64_t now_ms)
{
	int status = 0;

	u->asked_now = 0;
	if (u->child > 0) {
		if (now_ms >= u->deadline_ms)
			(void)kill(u->child, SIGKILL);
		if (waitpid(u->child, &status, WNOHANG) == 0)
			return;
		bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
		u->counters.sent += ok;
		u->counters.failed += !ok;
		u->child = 0;
	}
	if (u->count > 0)
		begin_next(u, now_ms);
}

void uploader_counters(const struct uploader *uploader, struct uploader_counters *ret)
{
	*ret = uploader->counters;
}

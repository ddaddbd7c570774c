// SPDX-License-Identifier: Apache-2.0
/*
 * A map is read through the process's own root, by its number in its own PID namespace, and only if the file is its user's or
 * root's: in a shared /tmp anybody could lay down names for others. What is appended is read on, at most JIT_READ_BYTES at a
 * time; a file that shrank or was replaced is read anew.
 */
#include "agent/jit.h"

#include "agent/exe_files.h"
#include "agent/perf_map.h"
#include "agent/place.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct process {
	uint32_t pid; /* 0: free */
	uint64_t read_ms;
	uint64_t inode, foff; /* of the file; how far it was read */
	struct perf_map map;
};

struct jit {
	struct tables *tables;
	struct process processes[JIT_PROCESSES_MAX];
	struct jit_counters counters;
	uint64_t frames[UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX];
};

struct err *jit_create(struct tables *tables, struct jit **ret)
{
	struct jit *jit = calloc(1, sizeof(*jit));

	if (!jit)
		return err_nomem();
	jit->tables = tables;
	*ret = jit;
	return NULL;
}

void jit_destroy(struct jit *jit)
{
	if (!jit)
		return;
	for (size_t i = 0; i < JIT_PROCESSES_MAX; i++)
		perf_map_deinit(&jit->processes[i].map);
	free(jit);
}

/* ---- Maps ---- */

static void forget(struct process *process)
{
	perf_map_deinit(&process->map);
	*process = (struct process){0};
}

void jit_gone(struct jit *jit, uint32_t pid)
{
	for (size_t i = 0; i < JIT_PROCESSES_MAX; i++)
		if (jit->processes[i].pid == pid)
			forget(&jit->processes[i]);
}

/** The process's number as it sees itself, and its effective user. False: it is gone. */
static bool read_status(uint32_t pid, uint32_t *own_pid_ret, uint32_t *user_ret)
{
	char path[64], line[256];
	uint32_t user = 0;
	bool has_pid = false, has_user = false;

	snprintf(path, sizeof(path), "/proc/%u/status", pid);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		const char *last = strrchr(line, '\t');
		if (strncmp(line, "NSpid:", 6) == 0 && last) {
			*own_pid_ret = (uint32_t)strtoul(last, NULL, 10);
			has_pid = true;
		} else if (sscanf(line, "Uid: %*u %u", &user) == 1) {
			*user_ret = user;
			has_user = true;
		}
	}
	if (file)
		(void)fclose(file);
	return has_pid && has_user;
}

/** The process's map, open; -1: it has none, or none of its own. */
static int open_map(struct jit *jit, uint32_t pid, struct stat *st)
{
	uint32_t own_pid = 0, user = 0;
	char path[64];

	if (!read_status(pid, &own_pid, &user))
		return -1;
	snprintf(path, sizeof(path), "/tmp/perf-%u.map", own_pid);
	int fd = exe_files_open_in_root(pid, path, st);
	if (fd >= 0 && st->st_uid != user && st->st_uid != 0) {
		jit->counters.maps_refused++;
		(void)close(fd);
		return -1;
	}
	return fd;
}

/** Reads on in the process's map. */
static struct err *read_map(struct jit *jit, struct process *process)
{
	struct stat st;
	size_t taken = 0;
	CLEANUP(closep) int fd = open_map(jit, process->pid, &st);

	if (fd < 0)
		return NULL;
	if ((uint64_t)st.st_ino != process->inode || (uint64_t)st.st_size < process->foff) {
		perf_map_deinit(&process->map);
		process->inode = st.st_ino;
		process->foff = 0;
	}
	uint64_t left = (uint64_t)st.st_size - process->foff;
	size_t len = left < JIT_READ_BYTES ? (size_t)left : JIT_READ_BYTES;
	if (len == 0)
		return NULL;
	CLEANUP(freep) char *text = malloc(len);
	if (!text)
		return err_nomem();
	ssize_t got = pread(fd, text, len, (off_t)process->foff);
	if (got <= 0)
		return NULL;
	TRY(perf_map_add(&process->map, text, (size_t)got, &taken));
	/* A line longer than all that is read at once is none. */
	process->foff += taken || got < JIT_READ_BYTES ? taken : (size_t)got;
	return NULL;
}

/** The map of a process, read when it is time to. */
static struct err *map_of(struct jit *jit, uint32_t pid, uint64_t now_ms, const struct perf_map **ret)
{
	struct process *found = NULL, *oldest = &jit->processes[0];

	for (size_t i = 0; i < JIT_PROCESSES_MAX && !found; i++) {
		struct process *at = &jit->processes[i];
		found = at->pid == pid ? at : NULL;
		oldest = at->read_ms < oldest->read_ms ? at : oldest;
	}
	if (!found) {
		forget(oldest);
		found = oldest;
		found->pid = pid;
	}
	if (found->read_ms == 0 || now_ms - found->read_ms >= JIT_AGAIN_MS) {
		found->read_ms = now_ms;
		TRY(read_map(jit, found));
	}
	*ret = &found->map;
	return NULL;
}

/* ---- Frames ---- */

static bool has_file(uint64_t frame)
{
	return frame >> UNWIND_FRAME_EXE_SHIFT != 0;
}

static struct err *mark(struct jit *jit, const struct perf_map *map, enum tables_runtime runtime, uint64_t *frame)
{
	const char *name = perf_map_find(map, *frame & UNWIND_FRAME_ADDRESS_MASK);
	char text[32];
	uint32_t number = 0;

	if (!name && runtime == RUNTIME_NONE)
		return NULL;
	if (name && tables_code_count(jit->tables) < JIT_NAMES_MAX) {
		jit->counters.named++;
	} else {
		snprintf(text, sizeof(text), "[%s]", runtime_name(runtime));
		name = text;
		jit->counters.marked++;
	}
	TRY(tables_code_number(jit->tables, name, &number));
	*frame = (uint64_t)PLACE_CODE_EXE << UNWIND_FRAME_EXE_SHIFT | (uint64_t)runtime << 32 | number;
	return NULL;
}

struct err *jit_mark(struct jit *jit, const struct sample_head *head, const uint64_t *frames, uint64_t now_ms, const uint64_t **frames_ret)
{
	uint32_t first = 0, user = head->frame_count, kernel = head->kernel_count;
	enum tables_runtime runtime = tables_runtime(jit->tables, head->pid);
	const struct perf_map *map = NULL;

	*frames_ret = frames;
	jit->counters.samples[runtime]++;
	while (first < user && has_file(frames[first]))
		first++;
	if (first == user || user > UNWIND_FRAMES_MAX || kernel > SAMPLE_KERNEL_MAX)
		return NULL;
	TRY(map_of(jit, head->pid, now_ms, &map));
	memcpy(jit->frames, frames, ((size_t)user + kernel) * sizeof(*frames));
	for (uint32_t i = first; i < user; i++)
		if (!has_file(jit->frames[i]))
			TRY(mark(jit, map, runtime, &jit->frames[i]));
	*frames_ret = jit->frames;
	return NULL;
}

void jit_counters(const struct jit *jit, struct jit_counters *ret)
{
	*ret = jit->counters;
}

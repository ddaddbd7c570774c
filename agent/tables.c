// SPDX-License-Identifier: Apache-2.0
/*
 * A process is read whole each time: its executable mappings, sorted as /proc gives them. Files are looked at through
 * /proc/PID/map_files (the file that is mapped, whatever its path says now: deleted, replaced, memfd, another mount
 * namespace); where that is not permitted, by their path below /proc/PID/root. A file is known by (device, inode, size, mtime,
 * ctime), and opened when it is new. The vDSO is the same in every 64-bit process, so ours stands for all.
 */
#include "agent/tables.h"

#include "agent/drafts.h"
#include "agent/exe_files.h"
#include "agent/proc_maps.h"
#include "agent/ranges.h"
#include "base/digest.h"
#include "base/hmap.h"
#include "base/intern.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>

static const char vdso_name[] = "linux-vdso.1.so";

struct process {
	uint32_t pid; /* 0: free */
	uint32_t first, count;
	uint64_t digest; /* of its mappings */
	uint16_t *exes;	 /* count of them: each mapping's executable */
	enum tables_runtime runtime;
};

struct tables {
	const struct tables_arrays *arrays;
	struct exes *exes;
	struct ranges mappings;
	struct process *processes; /* TABLES_PROCESSES_MAX */
	uint32_t *free_processes;
	uint32_t process_count, free_process_count;
	struct hmap index; /* pid -> slot */
	struct hmap inodes; /* digest of (device, inode) as /proc/PID/maps has them -> executable that it was last */
	struct drafts *drafts;
	struct intern code_names;
	struct unwind_mapping *draft_items; /* of the last draft that was asked for */
	struct tables_counters counters;
};

/* One process being read. */
struct sync {
	struct tables *tables;
	uint32_t pid;
	struct unwind_mapping *items;
	uint32_t count, cap;
	bool cut;
};

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* -------------------------------------------------------------------------------------- executables */

static uint64_t nanoseconds(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec;
}

static struct exe_key key_of(const struct stat *st)
{
	return (struct exe_key){.device = st->st_dev, .inode = st->st_ino, .size = (uint64_t)st->st_size, .mtime_ns = nanoseconds(&st->st_mtim),
		.ctime_ns = nanoseconds(&st->st_ctim)};
}

static uint64_t inode_digest(const struct proc_map *map)
{
	uint64_t words[] = {(uint64_t)map->major << 32 | map->minor, map->inode};
	return digest_xxh3_64(words, sizeof(words));
}

static struct err *exe_of_mapped_file(struct sync *s, const struct proc_map *map, uint32_t *ret)
{
	struct stat st;

	*ret = 0;
	if (!exe_files_stat(s->pid, map, &st)) {
		s->tables->counters.mappings_refused++;
		return NULL;
	}
	struct exe_key key = key_of(&st);
	*ret = exes_find(s->tables->exes, &key);
	if (*ret)
		return NULL;
	CLEANUP(closep) int fd = exe_files_open(s->pid, map, &st);
	if (fd < 0) {
		s->tables->counters.mappings_refused++;
		return NULL;
	}
	key = key_of(&st); /* of what was opened */
	*ret = exes_find(s->tables->exes, &key);
	return *ret ? NULL : exes_add(s->tables->exes, &key, fd, map->path, now_ms(), ret);
}

static struct err *exe_of_file(struct sync *s, const struct proc_map *map, uint32_t *ret)
{
	TRY(exe_of_mapped_file(s, map, ret));
	return *ret ? hmap_set(&s->tables->inodes, inode_digest(map), *ret) : NULL;
}

static bool ends_with_name(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	return strncmp(slash ? slash + 1 : path, name, TABLES_NAME_MAX - 1) == 0;
}

/**
 * The executable of a mapping that an event told of, when the process may be gone: the file at its path, if it is that inode
 * still; else what the inode was when it was seen last, if the name is the same.
 */
static struct err *exe_of_event(struct sync *s, const struct proc_map *map, uint32_t *ret)
{
	struct stat st;
	uint64_t known = 0;

	*ret = 0;
	if (map->path[0] == '/' && exe_files_stat(s->pid, map, &st) && st.st_ino == map->inode)
		return exe_of_file(s, map, ret);
	if (map->path[0] == '/' && stat(map->path, &st) == 0 && S_ISREG(st.st_mode) && st.st_ino == map->inode) {
		struct exe_key key = key_of(&st);
		*ret = exes_find(s->tables->exes, &key);
		if (*ret)
			return NULL;
		CLEANUP(closep) int fd = exe_files_open_in_root((uint32_t)getpid(), map->path, &st);
		if (fd < 0)
			return NULL;
		key = key_of(&st);
		*ret = exes_find(s->tables->exes, &key);
		return *ret ? NULL : exes_add(s->tables->exes, &key, fd, map->path, now_ms(), ret);
	}
	if (!hmap_get(&s->tables->inodes, inode_digest(map), &known))
		return NULL;
	const struct tables_exe *exe = exes_at(s->tables->exes, (uint32_t)known);
	if (exe && ends_with_name(map->path, exe->name))
		*ret = (uint32_t)known;
	return NULL;
}

/** Our own vDSO as a file. */
static int vdso_file(uint64_t len)
{
	const uint8_t *image = (const uint8_t *)getauxval(AT_SYSINFO_EHDR); /* NOLINT: an address by contract */
	int fd = image ? memfd_create(vdso_name, MFD_CLOEXEC) : -1;

	if (fd >= 0 && write(fd, image, len) != (ssize_t)len) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static struct err *exe_of_vdso(struct sync *s, const struct proc_map *map, uint32_t *ret)
{
	struct exe_key key = {.size = map->end - map->start};

	*ret = exes_find(s->tables->exes, &key);
	if (*ret)
		return NULL;
	CLEANUP(closep) int fd = vdso_file(key.size);
	return fd >= 0 ? exes_add(s->tables->exes, &key, fd, vdso_name, now_ms(), ret) : NULL;
}

/** The file of an executable that @p map maps, and what it is now; the vDSO is no file. */
static int open_wanted(uint32_t pid, const struct proc_map *map, struct exe_key *ret)
{
	struct stat st;

	if (strcmp(map->path, vdso_name) == 0) {
		*ret = (struct exe_key){.size = map->end - map->start};
		return vdso_file(ret->size);
	}
	int fd = exe_files_open(pid, map, &st);
	if (fd >= 0)
		*ret = key_of(&st);
	return fd;
}

bool tables_want(struct tables *t, uint32_t pid, uint32_t exe, const struct unwind_mapping *mappings, uint32_t count)
{
	struct exe_key key;

	if (!exes_needs_file(t->exes, exe))
		return exes_is_pending(t->exes, exe);
	for (uint32_t i = 0; i < count; i++) {
		if (mappings[i].exe != exe)
			continue;
		struct proc_map map = {.start = mappings[i].start, .end = mappings[i].end, .path = exes_path(t->exes, exe), .inode = exes_inode(t->exes, exe)};
		int fd = open_wanted(pid, &map, &key);
		return fd >= 0 && exes_want(t->exes, exe, &key, fd, pid, now_ms());
	}
	return false;
}

/* -------------------------------------------------------------------------------------- processes */

/** A mapping as the unwinder takes it. */
static struct err *identify(struct sync *s, const struct proc_map *map, bool by_event, struct unwind_mapping *ret)
{
	struct unwind_mapping mapping = {.start = map->start, .end = map->end, .vaddr = map->start, .kind = UNWIND_MAPPING_FRAME_POINTER};
	uint32_t number = 0;

	if (map->inode != 0)
		TRY(by_event ? exe_of_event(s, map, &number) : exe_of_file(s, map, &number));
	else if (strcmp(map->path, "[vdso]") == 0)
		TRY(exe_of_vdso(s, map, &number));
	const struct tables_exe *exe = exes_at(s->tables->exes, number);
	uint64_t vaddr = 0;
	if (exe && load_segments_vaddr(&exe->segments, map->foff, &vaddr)) {
		mapping.exe = number;
		mapping.vaddr = vaddr;
		mapping.kind = UNWIND_MAPPING_FILE;
	}
	*ret = mapping;
	return NULL;
}

static struct err *take_map(struct sync *s, const struct proc_map *map)
{
	struct unwind_mapping mapping;

	if (s->count == UNWIND_MAPPINGS_MAX) {
		s->cut = true;
		return NULL;
	}
	TRY(identify(s, map, false, &mapping));
	if (s->count == s->cap) {
		uint32_t cap = s->cap ? 2 * s->cap : 64;
		struct unwind_mapping *items = realloc(s->items, cap * sizeof(*items));
		if (!items)
			return err_nomem();
		s->items = items;
		s->cap = cap;
	}
	s->items[s->count++] = mapping;
	return NULL;
}

/** All executable mappings. false in @p ok_ret: the process is gone or closed to us. */
static struct err *read_maps(struct sync *s, bool *ok_ret)
{
	char path[64];
	struct proc_map map;
	struct err *e = NULL;

	snprintf(path, sizeof(path), "/proc/%u/maps", s->pid);
	FILE *file = fopen(path, "re");
	*ok_ret = file != NULL;
	if (!file)
		return NULL;
	char *line = NULL;
	size_t cap = 0;
	ssize_t len = 0;
	while (!e && !s->cut && (len = getline(&line, &cap, file)) > 0) {
		if (line[len - 1] == '\n')
			line[len - 1] = 0;
		if (proc_map_parse(line, &map) && map.executable && map.start < (uint64_t)1 << 47)
			e = take_map(s, &map);
	}
	free(line);
	(void)fclose(file);
	return e;
}

static void release(struct tables *t, struct process *process)
{
	uint64_t now = now_ms();

	for (uint32_t i = 0; i < process->count; i++)
		if (process->exes[i])
			exes_release(t->exes, process->exes[i], now);
	free(process->exes);
	process->exes = NULL;
	t->counters.mappings -= process->count;
	err_free(ranges_give(&t->mappings, process->first, process->count, now + TABLES_QUARANTINE_MS));
	process->first = process->count = 0;
}

static struct process *process_of(const struct tables *t, uint32_t pid)
{
	uint64_t slot = 0;
	return hmap_get(&t->index, pid, &slot) ? &t->processes[slot] : NULL;
}

bool tables_knows(const struct tables *tables, uint32_t pid)
{
	return process_of(tables, pid) != NULL;
}

static void forget_published(struct tables *t, uint32_t pid)
{
	struct process *process = process_of(t, pid);

	if (!process)
		return;
	(void)t->arrays->show(t->arrays->context, pid, &(struct sample_process){0});
	release(t, process);
	*process = (struct process){0};
	(void)hmap_remove(&t->index, pid);
	t->free_processes[t->free_process_count++] = (uint32_t)(process - t->processes);
	t->counters.processes--;
}

void tables_forget(struct tables *t, uint32_t pid)
{
	forget_published(t, pid);
	drafts_drop(t->drafts, pid);
}

static struct err *add_process(struct tables *t, uint32_t pid, struct process **ret)
{
	uint32_t slot = t->free_process_count ? t->free_processes[t->free_process_count - 1] : t->process_count;

	*ret = NULL;
	if (slot == TABLES_PROCESSES_MAX)
		return NULL;
	TRY(hmap_set(&t->index, pid, slot));
	if (t->free_process_count)
		t->free_process_count--;
	else
		t->process_count++;
	t->processes[slot] = (struct process){.pid = pid};
	t->counters.processes++;
	*ret = &t->processes[slot];
	return NULL;
}

static enum tables_runtime runtime_of(const struct tables *t, const uint16_t *exes, uint32_t count)
{
	enum tables_runtime runtime = RUNTIME_NONE;

	/* A runtime inside of another's process (Python in a JVM) is rare: the first that is mapped has the say. */
	for (uint32_t i = 0; i < count && runtime == RUNTIME_NONE; i++) {
		const struct tables_exe *exe = exes_at(t->exes, exes[i]);
		runtime = exe ? runtime_of_name(exe->name) : RUNTIME_NONE;
	}
	return runtime;
}

enum tables_runtime tables_runtime(const struct tables *tables, uint32_t pid)
{
	const struct process *process = process_of(tables, pid);

	return process ? process->runtime : RUNTIME_NONE;
}

/** The executables of what was read, each held. NULL: no memory. */
static uint16_t *hold_exes(struct tables *t, const struct sync *s)
{
	uint16_t *exes = malloc((s->count + 1) * sizeof(*exes));

	for (uint32_t i = 0; exes && i < s->count; i++) {
		exes[i] = (uint16_t)s->items[i].exe;
		if (exes[i])
			exes_hold(t->exes, exes[i]);
	}
	return exes;
}

/* -------------------------------------------------------------------------------------- drafts */

struct err *tables_forked(struct tables *t, uint32_t pid, uint32_t parent)
{
	const struct process *process = process_of(t, parent);

	if (drafts_find(t->drafts, parent)) /* newer than what was read */
		return drafts_fork_draft(t->drafts, pid, parent);
	if (process && process->count <= DRAFTS_MAPPINGS_MAX)
		return drafts_fork(t->drafts, pid, t->arrays->mappings + process->first, process->count);
	return NULL;
}

struct err *tables_execed(struct tables *t, uint32_t pid)
{
	forget_published(t, pid); /* it is another program now */
	return drafts_exec(t->drafts, pid);
}

struct err *tables_mapped(struct tables *t, uint32_t pid, const struct proc_map *map)
{
	const struct process *process = process_of(t, pid);

	/* Until it is read again, a process that maps more is what it was and that. */
	if (process && !drafts_find(t->drafts, pid) && process->count < DRAFTS_MAPPINGS_MAX)
		TRY(drafts_fork(t->drafts, pid, t->arrays->mappings + process->first, process->count));
	return drafts_map(t->drafts, pid, map);
}

static int compare_mappings(const void *a, const void *b)
{
	const struct unwind_mapping *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start;
}

/** What is known of a draft's mappings; files are looked at once. */
static struct err *draft_mappings(struct tables *t, struct draft *draft, const struct unwind_mapping **items_ret, uint32_t *count_ret)
{
	struct sync s = {.tables = t, .pid = draft->pid};

	for (uint32_t i = 0; i < draft->count; i++) {
		struct draft_map *at = &draft->items[i];
		if (!at->is_known) {
			TRY(identify(&s, &at->map, true, &at->mapping));
			at->is_known = true;
		}
		t->draft_items[i] = at->mapping;
	}
	qsort(t->draft_items, draft->count, sizeof(*t->draft_items), compare_mappings);
	*items_ret = t->draft_items;
	*count_ret = draft->count;
	return NULL;
}

bool tables_has_execed(const struct tables *t, uint32_t pid)
{
	const struct draft *draft = drafts_find(t->drafts, pid);

	return draft && draft->is_exec;
}

struct err *tables_mappings(struct tables *t, uint32_t pid, const struct unwind_mapping **items_ret, uint32_t *count_ret)
{
	const struct process *process = process_of(t, pid);
	struct draft *draft = drafts_find(t->drafts, pid);

	*items_ret = NULL;
	*count_ret = 0;
	if (draft && draft->count > 0)
		return draft_mappings(t, draft, items_ret, count_ret);
	if (process) {
		*items_ret = t->arrays->mappings + process->first;
		*count_ret = process->count;
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- reading */

/** Puts what was read in place of what was known. */
static struct err *publish(struct tables *t, struct sync *s)
{
	struct process *process = process_of(t, s->pid);
	uint64_t digest = digest_xxh3_64(s->items, s->count * sizeof(*s->items));
	uint32_t first = 0;

	if (process && process->count == s->count && process->digest == digest) {
		t->counters.processes_unchanged++;
		return NULL;
	}
	while (s->count > 0 && !arrays_take(t->arrays, TABLES_MAPPINGS, &t->mappings, s->count, now_ms(), &first)) {
		s->cut = true;
		s->count /= 2;
	}
	if (s->cut)
		t->counters.mappings_cut++;
	if (!process)
		TRY(add_process(t, s->pid, &process));
	if (!process) {
		t->counters.processes_failed++;
		return ranges_give(&t->mappings, first, s->count, 0);
	}
	uint16_t *exes = hold_exes(t, s);
	if (!exes)
		return err_nomem();
	struct sample_process shown = {.first_mapping = first, .mapping_count = s->count};
	if (s->count > 0)
		memcpy(t->arrays->mappings + first, s->items, s->count * sizeof(*s->items));
	if (t->arrays->show(t->arrays->context, s->pid, &shown) != 0)
		t->counters.processes_failed++;
	release(t, process);
	*process = (struct process){.pid = s->pid, .first = first, .count = s->count, .digest = digest, .exes = exes,
		.runtime = runtime_of(t, exes, s->count)};
	t->counters.mappings += s->count;
	return NULL;
}

struct err *tables_sync(struct tables *t, uint32_t pid)
{
	struct sync s = {.tables = t, .pid = pid};
	bool ok = false;
	struct err *e = read_maps(&s, &ok);

	/* Kernel threads and zombies have no mappings. */
	if (!e && ok && s.count > 0) {
		t->counters.processes_synced++;
		e = publish(t, &s);
		drafts_drop(t->drafts, pid);
	} else if (!e) {
		t->counters.processes_failed++;
		forget_published(t, pid); /* its last samples may still come */
	}
	free(s.items);
	return e;
}

/* -------------------------------------------------------------------------------------- all of it */

bool tables_want_all(struct tables *t)
{
	uint32_t before = exes_pending(t->exes);

	for (uint32_t i = 0; i < t->process_count; i++) {
		const struct process *process = &t->processes[i];
		const struct unwind_mapping *mappings = t->arrays->mappings + process->first;
		for (uint32_t k = 0; process->pid && k < process->count; k++)
			if (!exes_is_pending(t->exes, mappings[k].exe))
				(void)tables_want(t, process->pid, mappings[k].exe, mappings, process->count);
	}
	return exes_pending(t->exes) > before;
}

struct err *tables_work(struct tables *tables)
{
	return exes_work(tables->exes, now_ms());
}

bool tables_is_pending(const struct tables *tables, uint32_t exe)
{
	return exes_is_pending(tables->exes, exe);
}

void tables_limit(struct tables *tables, uint64_t ns_per_s, uint64_t first_ns, uint64_t max_ns)
{
	exes_limit(tables->exes, ns_per_s, first_ns, max_ns);
}

uint32_t tables_pending(const struct tables *tables)
{
	return exes_pending(tables->exes);
}

void tables_trim(struct tables *t)
{
	exes_trim(t->exes, now_ms());
	arrays_shrink(t->arrays, TABLES_MAPPINGS, &t->mappings, now_ms());
}

const struct tables_exe *tables_exe(const struct tables *tables, uint32_t exe)
{
	return exes_at(tables->exes, exe);
}

struct err *tables_code_number(struct tables *tables, const char *name, uint32_t *ret)
{
	return intern_add(&tables->code_names, name, strlen(name), ret);
}

const char *tables_code_name(const struct tables *tables, uint32_t number)
{
	return number < tables->code_names.count ? intern_text(&tables->code_names, number) : NULL;
}

uint32_t tables_code_count(const struct tables *tables)
{
	return tables->code_names.count;
}

void tables_counters(const struct tables *t, struct tables_counters *ret)
{
	*ret = t->counters;
	exes_counters(t->exes, &ret->exes);
	ret->drafts = drafts_count(t->drafts);
	ret->drafts_dropped = drafts_dropped(t->drafts);
}

static struct err *init(struct tables *t, const struct tables_arrays *arrays, const char *program)
{
	t->arrays = arrays;
	TRY(exes_create(arrays, program, &t->exes));
	TRY(drafts_create(&t->drafts));
	t->draft_items = calloc(DRAFTS_MAPPINGS_MAX, sizeof(*t->draft_items));
	if (!t->draft_items)
		return err_nomem();
	TRY(ranges_init(&t->mappings, arrays->mapping_count));
	t->processes = calloc(TABLES_PROCESSES_MAX, sizeof(*t->processes));
	t->free_processes = calloc(TABLES_PROCESSES_MAX, sizeof(*t->free_processes));
	return t->processes && t->free_processes ? NULL : err_nomem();
}

struct err *tables_create(const struct tables_arrays *arrays, const char *program, struct tables **ret)
{
	struct tables *t = calloc(1, sizeof(*t));

	if (!t)
		return err_nomem();
	struct err *e = init(t, arrays, program);
	if (e) {
		tables_destroy(t);
		return e;
	}
	*ret = t;
	return NULL;
}

void tables_destroy(struct tables *t)
{
	if (!t)
		return;
	for (uint32_t i = 0; t->processes && i < t->process_count; i++)
		free(t->processes[i].exes);
	exes_destroy(t->exes);
	drafts_destroy(t->drafts);
	free(t->draft_items);
	hmap_deinit(&t->inodes);
	intern_deinit(&t->code_names);
	ranges_deinit(&t->mappings);
	hmap_deinit(&t->index);
	free(t->processes);
	free(t->free_processes);
	free(t);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * A process is read whole each time: its executable mappings, sorted as /proc gives them. Files are opened through
 * /proc/PID/map_files (the file that is mapped, whatever its path says now: deleted, replaced, memfd, another mount
 * namespace); where that is not permitted, through /proc/PID/root. A file is known by (device, inode, size, mtime).
 *
 * An executable that cannot be read, or for which there is no place, is unwound by frame pointers and counted. The vDSO is
 * the same in every 64-bit process, so ours stands for all.
 */
#include "agent/tables.h"

#include "agent/proc_maps.h"
#include "agent/ranges.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

enum { PATH_BYTES = 4352 };

struct exe_key {
	uint64_t device, inode, size, mtime_ns;
};

struct exe_slot {
	bool used;
	struct exe_key key;
	struct tables_exe exe;
	uint32_t references; /* mappings of known processes */
	uint32_t first_page, page_count, first_delta, delta_count;
};

struct process {
	uint32_t pid; /* 0: free */
	uint32_t first, count;
};

struct tables {
	struct tables_arrays arrays;
	struct unwind_infos infos;
	struct ranges mappings, pages, deltas;
	struct exe_slot *exes; /* UNWIND_EXES_MAX; number 0 is none */
	struct process *processes; /* TABLES_PROCESSES_MAX */
	uint32_t *free_processes;
	uint32_t process_count, free_process_count;
	struct hmap index; /* pid -> slot + 1; 0: forgotten */
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

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct ranges *ranges_of(struct tables *t, enum tables_growing which)
{
	return which == TABLES_MAPPINGS ? &t->mappings : which == TABLES_PAGES ? &t->pages : &t->deltas;
}

/* -------------------------------------------------------------------------------------- executables */

/** @p count items of a table. False: no place, or no memory. */
static bool take(struct tables *t, enum tables_growing which, uint32_t count, uint32_t *first_ret)
{
	struct ranges *ranges = ranges_of(t, which);

	if (!ranges_take(ranges, count, now_ms(), first_ret))
		return false;
	if (!t->arrays.grow || t->arrays.grow(t->arrays.context, which, *first_ret + count) == 0)
		return true;
	err_free(ranges_give(ranges, *first_ret, count, 0));
	return false;
}

/** Places for a built table, and its content into them. False: no place. */
static bool place(struct tables *t, const struct unwind_table *table, struct exe_slot *slot)
{
	if (!take(t, TABLES_PAGES, table->page_count, &slot->first_page))
		return false;
	if (!take(t, TABLES_DELTAS, table->delta_count, &slot->first_delta)) {
		err_free(ranges_give(&t->pages, slot->first_page, table->page_count, 0));
		return false;
	}
	slot->page_count = table->page_count;
	slot->delta_count = table->delta_count;
	if (table->delta_count > 0)
		memcpy(t->arrays.deltas + slot->first_delta, table->deltas, table->delta_count * sizeof(*table->deltas));
	for (uint32_t i = 0; i < table->page_count; i++) {
		struct unwind_page page = table->pages[i];
		page.first += slot->first_delta;
		t->arrays.pages[slot->first_page + i] = page;
	}
	return true;
}

/** The unwind table of @p slot's file. Failures leave it without one, counted. */
static struct err *load_table(struct tables *t, const struct unwind_source *source, uint32_t number)
{
	struct exe_slot *slot = &t->exes[number];
	struct unwind_table table = {0};
	struct unwind_elf elf = {0};
	uint64_t begin = now_ns();
	uint32_t known = t->infos.count;

	struct err *e = unwind_elf_read(source, &elf);
	if (!e) {
		slot->exe.segments = elf.segments;
		slot->exe.build_id = elf.build_id;
		e = unwind_table_build(&elf, NULL, &t->infos, &table);
	}
	unwind_elf_deinit(&elf);
	t->counters.build_ns += now_ns() - begin;
	if (e) {
		enum err_code code = err_code(e);
		err_free(e);
		t->counters.exes_refused++;
		return code == ERR_NOMEM ? err_nomem() : NULL;
	}
	memcpy(t->arrays.infos + known, t->infos.items + known, (t->infos.count - known) * sizeof(*t->infos.items));
	slot->exe.rows_unsupported = table.counts.rows_unsupported;
	if (table.delta_count > 0) {
		slot->exe.has_deltas = place(t, &table, slot);
		if (slot->exe.has_deltas)
			t->arrays.exes[number] = (struct unwind_exe){
				.page_base = table.page_base, .first_page = slot->first_page, .page_count = table.page_count};
		else
			t->counters.exes_full++;
	}
	unwind_table_deinit(&table);
	return NULL;
}

static uint32_t find_exe(const struct tables *t, const struct exe_key *key, uint32_t *free_ret)
{
	*free_ret = 0;
	for (uint32_t i = 1; i < UNWIND_EXES_MAX; i++) {
		if (t->exes[i].used && memcmp(&t->exes[i].key, key, sizeof(*key)) == 0)
			return i;
		if (!t->exes[i].used && *free_ret == 0)
			*free_ret = i;
		if (i > t->counters.exes && *free_ret)
			break;
	}
	return 0;
}

static void set_name(struct tables_exe *exe, const char *path)
{
	const char *slash = strrchr(path, '/');
	snprintf(exe->name, sizeof(exe->name), "%s", slash ? slash + 1 : path);
	char *deleted = strstr(exe->name, " (deleted)");
	if (deleted && strlen(deleted) == strlen(" (deleted)"))
		*deleted = 0;
}

/** The number of the file behind @p source; a new one is read. 0: no number is free, or it cannot be identified. */
static struct err *exe_number(struct tables *t, const struct unwind_source *source, const struct exe_key *key, uint32_t *ret)
{
	uint32_t free_number = 0, number = find_exe(t, key, &free_number);

	*ret = number;
	if (number)
		return NULL;
	if (!free_number) {
		t->counters.exes_full++;
		return NULL;
	}
	struct exe_slot *slot = &t->exes[free_number];
	*slot = (struct exe_slot){.key = *key};
	struct err *e = source->fd >= 0 ? fileid_from_fd(source->fd, &slot->exe.file_id)
					: fileid_from_memory(source->bytes, source->len, &slot->exe.file_id);
	if (e) { /* it shrank meanwhile: the next sync sees another file */
		err_free(e);
		t->counters.exes_refused++;
		return NULL;
	}
	set_name(&slot->exe, source->name);
	TRY(load_table(t, source, free_number));
	slot->used = true;
	t->counters.exes++;
	*ret = free_number;
	return NULL;
}

static int open_mapped(uint32_t pid, const struct proc_map *map)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "/proc/%u/map_files/%" PRIx64 "-%" PRIx64, pid, map->start, map->end);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0 || map->path[0] != '/')
		return fd;
	if (snprintf(path, sizeof(path), "/proc/%u/root%s", pid, map->path) >= (int)sizeof(path))
		return -1;
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static struct err *exe_of_file(struct sync *s, const struct proc_map *map, uint32_t *ret)
{
	struct stat st;

	*ret = 0;
	CLEANUP(closep) int fd = open_mapped(s->pid, map);
	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		s->tables->counters.exes_refused++;
		return NULL;
	}
	struct exe_key key = {.device = st.st_dev, .inode = st.st_ino, .size = (uint64_t)st.st_size,
		.mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec};
	struct unwind_source source = {.fd = fd, .len = (uint64_t)st.st_size, .name = map->path};
	return exe_number(s->tables, &source, &key, ret);
}

static struct err *exe_of_vdso(struct sync *s, const struct proc_map *map, uint32_t *ret)
{
	const uint8_t *image = (const uint8_t *)getauxval(AT_SYSINFO_EHDR); /* NOLINT: an address by contract */
	struct exe_key key = {.size = map->end - map->start};

	*ret = 0;
	if (!image)
		return NULL;
	struct unwind_source source = {.fd = -1, .bytes = image, .len = map->end - map->start, .name = "linux-vdso.1.so"};
	return exe_number(s->tables, &source, &key, ret);
}

/* -------------------------------------------------------------------------------------- processes */

static struct err *take_map(struct sync *s, const struct proc_map *map)
{
	struct unwind_mapping mapping = {.start = map->start, .end = map->end, .vaddr = map->start, .kind = UNWIND_MAPPING_FRAME_POINTER};
	uint32_t number = 0;

	if (s->count == UNWIND_MAPPINGS_MAX) {
		s->cut = true;
		return NULL;
	}
	if (map->inode != 0)
		TRY(exe_of_file(s, map, &number));
	else if (strcmp(map->path, "[vdso]") == 0)
		TRY(exe_of_vdso(s, map, &number));
	const struct exe_slot *slot = &s->tables->exes[number];
	uint64_t vaddr = 0;
	if (number && load_segments_vaddr(&slot->exe.segments, map->foff, &vaddr)) {
		mapping.exe = number;
		mapping.vaddr = vaddr;
		if (slot->exe.has_deltas)
			mapping.kind = UNWIND_MAPPING_FILE;
	}
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
	for (uint32_t i = 0; i < process->count; i++) {
		uint32_t exe = t->arrays.mappings[process->first + i].exe;
		if (exe)
			t->exes[exe].references--;
	}
	t->counters.mappings -= process->count;
	err_free(ranges_give(&t->mappings, process->first, process->count, now_ms() + TABLES_QUARANTINE_MS));
	process->first = process->count = 0;
}

static struct process *process_of(struct tables *t, uint32_t pid)
{
	uint64_t slot = 0;
	return hmap_get(&t->index, pid, &slot) && slot ? &t->processes[slot - 1] : NULL;
}

bool tables_knows(const struct tables *tables, uint32_t pid)
{
	uint64_t slot = 0;
	return hmap_get(&tables->index, pid, &slot) && slot;
}

void tables_forget(struct tables *t, uint32_t pid)
{
	struct process *process = process_of(t, pid);

	if (!process)
		return;
	(void)t->arrays.show(t->arrays.context, pid, &(struct sample_process){0});
	release(t, process);
	process->pid = 0;
	err_free(hmap_set(&t->index, pid, 0)); /* the key is there: no memory is needed */
	t->free_processes[t->free_process_count++] = (uint32_t)(process - t->processes);
	t->counters.processes--;
}

static struct err *add_process(struct tables *t, uint32_t pid, struct process **ret)
{
	uint32_t slot = t->free_process_count ? t->free_processes[t->free_process_count - 1] : t->process_count;

	*ret = NULL;
	if (slot == TABLES_PROCESSES_MAX)
		return NULL;
	TRY(hmap_set(&t->index, pid, (uint64_t)slot + 1));
	if (t->free_process_count)
		t->free_process_count--;
	else
		t->process_count++;
	t->processes[slot] = (struct process){.pid = pid};
	t->counters.processes++;
	*ret = &t->processes[slot];
	return NULL;
}

/** Puts what was read in place of what was known. */
static struct err *publish(struct tables *t, struct sync *s)
{
	struct process *process = process_of(t, s->pid);
	uint32_t first = 0;

	while (s->count > 0 && !take(t, TABLES_MAPPINGS, s->count, &first)) {
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
	if (s->count > 0)
		memcpy(t->arrays.mappings + first, s->items, s->count * sizeof(*s->items));
	for (uint32_t i = 0; i < s->count; i++)
		if (s->items[i].exe)
			t->exes[s->items[i].exe].references++;
	struct sample_process shown = {.first_mapping = first, .mapping_count = s->count};
	if (t->arrays.show(t->arrays.context, s->pid, &shown) != 0)
		t->counters.processes_failed++;
	release(t, process);
	process->first = first;
	process->count = s->count;
	t->counters.mappings += s->count;
	t->counters.processes_synced++;
	return NULL;
}

struct err *tables_sync(struct tables *t, uint32_t pid)
{
	struct sync s = {.tables = t, .pid = pid};
	bool ok = false;
	struct err *e = read_maps(&s, &ok);

	/* Kernel threads and zombies have no mappings. */
	if (!e && ok && s.count > 0) {
		e = publish(t, &s);
	} else if (!e) {
		t->counters.processes_failed++;
		tables_forget(t, pid);
	}
	free(s.items);
	return e;
}

/* -------------------------------------------------------------------------------------- all of it */

void tables_trim(struct tables *t)
{
	uint64_t free_at = now_ms() + TABLES_QUARANTINE_MS;

	for (uint32_t i = 1; i < UNWIND_EXES_MAX; i++) {
		struct exe_slot *slot = &t->exes[i];
		if (!slot->used || slot->references > 0)
			continue;
		t->arrays.exes[i] = (struct unwind_exe){0};
		err_free(ranges_give(&t->pages, slot->first_page, slot->page_count, free_at));
		err_free(ranges_give(&t->deltas, slot->first_delta, slot->delta_count, free_at));
		*slot = (struct exe_slot){0};
		t->counters.exes--;
	}
	for (enum tables_growing which = 0; which < TABLES_GROWING && t->arrays.shrink; which++)
		t->arrays.shrink(t->arrays.context, which, ranges_end(ranges_of(t, which), now_ms()));
}

const struct tables_exe *tables_exe(const struct tables *tables, uint32_t exe)
{
	return exe > 0 && exe < UNWIND_EXES_MAX && tables->exes[exe].used ? &tables->exes[exe].exe : NULL;
}

void tables_counters(const struct tables *tables, struct tables_counters *ret)
{
	*ret = tables->counters;
	ret->deltas = tables->deltas.used;
	ret->pages = tables->pages.used;
}

static struct err *init(struct tables *t, const struct tables_arrays *arrays)
{
	t->arrays = *arrays;
	TRY(unwind_infos_init(&t->infos));
	memcpy(arrays->infos, t->infos.items, UNWIND_COMMANDS * sizeof(*arrays->infos));
	TRY(ranges_init(&t->mappings, arrays->mapping_count));
	TRY(ranges_init(&t->pages, arrays->page_count));
	TRY(ranges_init(&t->deltas, arrays->delta_count));
	t->exes = calloc(UNWIND_EXES_MAX, sizeof(*t->exes));
	t->processes = calloc(TABLES_PROCESSES_MAX, sizeof(*t->processes));
	t->free_processes = calloc(TABLES_PROCESSES_MAX, sizeof(*t->free_processes));
	return t->exes && t->processes && t->free_processes ? NULL : err_nomem();
}

struct err *tables_create(const struct tables_arrays *arrays, struct tables **ret)
{
	struct tables *t = calloc(1, sizeof(*t));

	if (!t)
		return err_nomem();
	struct err *e = init(t, arrays);
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
	unwind_infos_deinit(&t->infos);
	ranges_deinit(&t->mappings);
	ranges_deinit(&t->pages);
	ranges_deinit(&t->deltas);
	hmap_deinit(&t->index);
	free(t->exes);
	free(t->processes);
	free(t->free_processes);
	free(t);
}

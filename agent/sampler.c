// SPDX-License-Identifier: Apache-2.0
/*
 * What runs around the programs of agent/program.c: their tables as arrays of this process, so that tables are filled by plain
 * stores; a CPU's tick (a CPU-clock software event with the program attached: it works in virtual machines without a PMU);
 * the switch's tracepoint; probes; and the ring.
 *
 * CPUs come and go. Once in CPUS_CHECK_MS the list of those online is read: events of a CPU that went are closed, those of one
 * that came are opened. An event does not come back with its CPU, so one whose time stands still is opened anew: that finds a
 * CPU that went and came between two looks.
 */
#include "agent/sampler.h"

#include "agent/chunks.h"
#include "agent/cpus.h"
#include "agent/events.h"
#include "agent/off_cpu.h"
#include "agent/program.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sample.skel.h"

enum { CPUS_CHECK_MS = 1000 };

struct cpu {
	int tick; /* perf event, owned by link */
	uint64_t tick_enabled_ns; /* its time at the last look */
	struct bpf_link *link;
	struct events events;
	bool listens;
};

struct mapped {
	void *bytes;
	size_t len;
};

struct sampler {
	struct sampler_options options;
	struct program program;
	struct ring_buffer *ring;
	struct tables_arrays arrays;
	struct events_queue events; /* of all CPUs, during sampler_poll */
	const struct events_handler *events_handler;
	struct chunks chunks[TABLES_GROWING];
	struct mapped exes, infos;
	struct cpu *cpus;
	unsigned cpu_count; /* possible */
	unsigned online; /* that tick, or did until sampler_stop */
	bool listens, ticks;
	uint64_t checked_ms;
	struct bpf_link *on_switch;
	struct bpf_link **probes; /* options.probe_count */
	struct off_cpu *off_cpu;
	struct sampler_status status;
	const struct sampler_handler *handler; /* during sampler_poll */
	struct err *failure;		       /* of the handler, on its way through libbpf */
};

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* -------------------------------------------------------------------------------------- load */

/** Memory of an array map. */
static struct err *map_array(const struct bpf_map *map, struct mapped *ret)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t len = (size_t)bpf_map__max_entries(map) * ((bpf_map__value_size(map) + 7) & ~7U);

	len = (len + page - 1) & ~(page - 1);
	void *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
	if (bytes == MAP_FAILED)
		return err_os(errno, "BPF map %s", bpf_map__name(map));
	*ret = (struct mapped){bytes, len};
	return NULL;
}

static int show_process(void *context, uint32_t pid, const struct sample_process *process)
{
	const struct sampler *s = context;
	int fd = bpf_map__fd(s->program.bpf->maps.processes);
	int rc = process->mapping_count ? bpf_map_update_elem(fd, &pid, process, BPF_ANY) : bpf_map_delete_elem(fd, &pid);

	return rc == 0 || (process->mapping_count == 0 && rc == -ENOENT) ? 0 : -rc;
}

static int grow_table(void *context, enum tables_growing which, uint32_t items)
{
	struct sampler *s = context;
	struct err *e = chunks_grow(&s->chunks[which], items);

	if (!e)
		return 0;
	int rc = err_errno(e) ? err_errno(e) : ENOSPC;
	err_free(e);
	s->status.tables_not_grown++;
	return rc;
}

static void shrink_table(void *context, enum tables_growing which, uint32_t items)
{
	struct sampler *s = context;
	chunks_shrink(&s->chunks[which], items);
}

static struct err *map_arrays(struct sampler *s)
{
	const struct sample_bpf *bpf = s->program.bpf;
	const struct sampler_options *o = &s->options;

	TRY(chunks_init(&s->chunks[TABLES_MAPPINGS], "mappings", bpf_map__fd(bpf->maps.mappings), SAMPLE_CHUNK_MAPPINGS,
		SAMPLE_CHUNK_MAPPINGS * sizeof(struct unwind_mapping), o->mappings_max));
	TRY(chunks_init(&s->chunks[TABLES_PAGES], "pages", bpf_map__fd(bpf->maps.pages), SAMPLE_CHUNK_PAGES,
		SAMPLE_CHUNK_PAGES * sizeof(struct unwind_page), o->pages_max));
	TRY(chunks_init(&s->chunks[TABLES_DELTAS], "deltas", bpf_map__fd(bpf->maps.deltas), SAMPLE_CHUNK_DELTAS,
		SAMPLE_CHUNK_DELTAS * sizeof(struct unwind_delta), o->deltas_max));
	TRY(map_array(bpf->maps.exes, &s->exes));
	TRY(map_array(bpf->maps.infos, &s->infos));
	s->arrays = (struct tables_arrays){.mappings = (struct unwind_mapping *)(void *)s->chunks[TABLES_MAPPINGS].base,
		.pages = (struct unwind_page *)(void *)s->chunks[TABLES_PAGES].base,
		.deltas = (struct unwind_delta *)(void *)s->chunks[TABLES_DELTAS].base, .exes = s->exes.bytes, .infos = s->infos.bytes,
		.mapping_count = o->mappings_max, .page_count = o->pages_max, .delta_count = o->deltas_max,
		.grow = grow_table, .shrink = shrink_table, .show = show_process, .context = s};
	return NULL;
}

/** A whole sample to the handler. */
static void hand_out(struct sampler *s, const struct sample_head *head, const uint64_t *frames)
{
	if (!s->failure)
		s->failure = s->handler->sample(s->handler->context, head, frames);
}

static int on_record(void *context, void *bytes, size_t len)
{
	struct sampler *s = context;
	const struct sample_head *head = bytes;
	size_t frame_bytes = len < sizeof(*head) ? 0 : ((size_t)head->frame_count + head->kernel_count) * sizeof(uint64_t);

	if (len < sizeof(*head) || sizeof(*head) + frame_bytes + head->cut_bytes > len)
		return 0;
	if (!s->failure) /* what happened before it was taken */
		s->failure = events_hand_out(&s->events, head->time_ns, s->events_handler);
	if (head->flags & SAMPLE_OFF_CPU_BEGIN) {
		off_cpu_begin(s->off_cpu, head);
	} else if (head->flags & SAMPLE_OFF_CPU_END) {
		const struct sample_head *whole = off_cpu_end(s->off_cpu, head);
		if (whole)
			hand_out(s, whole, (const uint64_t *)(whole + 1));
	} else {
		hand_out(s, head, (const uint64_t *)(head + 1));
	}
	return 0;
}

static struct err *create(struct sampler *s)
{
	TRY(program_load(&s->options, &s->program));
	TRY(map_arrays(s));
	s->ring = ring_buffer__new(bpf_map__fd(s->program.bpf->maps.ring), on_record, s, NULL);
	if (!s->ring)
		return err_os(errno, "BPF ring buffer");
	int possible = libbpf_num_possible_cpus();
	if (possible <= 0 || possible > CPUS_MAX)
		return err_new(ERR_LIMIT, "%d CPUs, at most %d are handled", possible, CPUS_MAX);
	s->cpus = calloc((size_t)possible, sizeof(*s->cpus));
	s->probes = calloc(s->options.probe_count + 1, sizeof(struct bpf_link *));
	if (!s->cpus || !s->probes)
		return err_nomem();
	s->cpu_count = (unsigned)possible;
	return off_cpu_create(&s->off_cpu);
}

static void set_defaults(struct sampler_options *o)
{
	o->sysfs = o->sysfs ? o->sysfs : "/sys";
	o->ring_bytes = o->ring_bytes ? o->ring_bytes : SAMPLER_RING_BYTES;
	o->deltas_max = o->deltas_max ? o->deltas_max : SAMPLER_DELTAS;
	o->pages_max = o->pages_max ? o->pages_max : SAMPLER_PAGES;
	o->mappings_max = o->mappings_max ? o->mappings_max : SAMPLER_MAPPINGS;
}

struct err *sampler_create(const struct sampler_options *options, struct sampler **ret)
{
	struct sampler *s = calloc(1, sizeof(*s));

	if (!s)
		return err_nomem();
	s->options = *options;
	set_defaults(&s->options);
	struct err *e = create(s);
	if (e) {
		sampler_destroy(s);
		return e;
	}
	*ret = s;
	return NULL;
}

static void unmap(struct mapped *mapped)
{
	if (mapped->bytes)
		(void)munmap(mapped->bytes, mapped->len);
}

void sampler_destroy(struct sampler *s)
{
	if (!s)
		return;
	sampler_stop(s);
	for (unsigned i = 0; i < s->cpu_count; i++)
		events_close(&s->cpus[i].events);
	for (size_t i = 0; i < ARRAY_SIZE(s->chunks); i++)
		chunks_deinit(&s->chunks[i]);
	unmap(&s->exes);
	unmap(&s->infos);
	events_queue_deinit(&s->events);
	ring_buffer__free(s->ring);
	program_unload(&s->program);
	off_cpu_destroy(s->off_cpu);
	err_free(s->failure);
	free(s->probes);
	free(s->cpus);
	free(s);
}

const struct tables_arrays *sampler_arrays(const struct sampler *sampler)
{
	return &sampler->arrays;
}

/* -------------------------------------------------------------------------------------- CPUs */

/** Opens what @p cpu should have and has not. One that goes meanwhile is no error. */
static struct err *open_cpu(struct sampler *s, unsigned cpu)
{
	struct cpu *at = &s->cpus[cpu];

	if (s->listens && !at->listens) {
		struct err *e = events_open((int)cpu, &at->events);
		if (e && err_errno(e) == ENODEV) { /* offline */
			err_free(e);
			return NULL;
		}
		if (e && (err_errno(e) == EACCES || err_errno(e) == EPERM))
			return err_wrap(e, "CAP_PERFMON is missing, or kernel.perf_event_paranoid forbids it");
		TRY(e);
		at->listens = true;
	}
	if (!s->ticks || at->link)
		return NULL;
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_CPU_CLOCK, .freq = 1,
		.sample_freq = s->options.hz, .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED};
	int fd = (int)syscall(SYS_perf_event_open, &attr, -1, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0 && errno == ENODEV)
		return NULL;
	if (fd < 0)
		return err_os(errno, "perf event on CPU %u", cpu);
	at->link = bpf_program__attach_perf_event(s->program.on_tick, fd);
	if (!at->link) {
		int error = errno;
		(void)close(fd);
		return err_os(error, "attaching the BPF program on CPU %u", cpu);
	}
	at->tick = fd;
	at->tick_enabled_ns = 0;
	s->online++;
	return NULL;
}

static void stop_tick(struct sampler *s, unsigned cpu)
{
	if (!s->cpus[cpu].link)
		return;
	bpf_link__destroy(s->cpus[cpu].link); /* closes the perf event too */
	s->cpus[cpu].link = NULL;
}

static struct err *close_cpu(struct sampler *s, unsigned cpu)
{
	struct cpu *at = &s->cpus[cpu];

	if (at->link)
		s->online--;
	stop_tick(s, cpu);
	if (!at->listens)
		return NULL;
	struct err *e = events_take(&at->events, &s->events); /* what it still told */
	events_close(&at->events);
	at->listens = false;
	return e;
}

/** Whether the tick's time stands still: its CPU went away and came back. */
static bool is_dead(struct cpu *at)
{
	uint64_t values[2] = {0}; /* count, time enabled */

	if (!at->link || read(at->tick, values, sizeof(values)) != (ssize_t)sizeof(values))
		return false;
	bool is_still = values[1] == at->tick_enabled_ns;
	at->tick_enabled_ns = values[1];
	return is_still;
}

/** Closes and opens as the list of CPUs says. Without a list all possible ones are tried. */
static struct err *check_cpus(struct sampler *s, const struct events_handler *handler)
{
	struct cpu_set set = {0};
	bool opened = false;

	s->checked_ms = now_ms();
	struct err *e = cpus_read(s->options.sysfs, &set);
	if (e && s->checked_ms && s->online)
		return err_free(e), NULL; /* as it was */
	for (unsigned cpu = 0; cpu < s->cpu_count; cpu++) {
		struct cpu *at = &s->cpus[cpu];
		bool should_run = e || set.is_online[cpu], runs = at->listens || at->link;
		if (runs && (!should_run || is_dead(at))) {
			TRY(close_cpu(s, cpu));
			s->status.cpus_gone++;
		}
		if (!should_run || (at->listens == s->listens && (at->link != NULL) == s->ticks))
			continue;
		TRY(open_cpu(s, cpu));
		if (at->listens && !runs) {
			s->status.cpus_come++;
			opened = true;
		}
	}
	err_free(e);
	/* A process that began there before we listened was told by nobody. */
	return opened && handler->lost ? handler->lost(handler->context, 0) : NULL;
}

/* -------------------------------------------------------------------------------------- run */

struct err *sampler_listen(struct sampler *s)
{
	const struct events_handler nobody = {0};

	s->listens = true;
	TRY(check_cpus(s, &nobody));
	s->status.cpus_come = 0;
	for (unsigned cpu = 0; cpu < s->cpu_count; cpu++)
		if (s->cpus[cpu].listens)
			return NULL;
	return err_new(ERR_UNSUPPORTED, "no CPU takes perf events");
}

/** PATH:SYMBOL, or PATH+0xOFFSET in the file. */
static struct err *attach_probe(struct sampler *s, const char *probe, struct bpf_link **ret)
{
	LIBBPF_OPTS(bpf_uprobe_opts, options);
	const char *colon = strrchr(probe, ':'), *plus = strrchr(probe, '+'), *split = plus && strncmp(plus, "+0x", 3) == 0 ? plus : colon;
	char path[4096], *end = NULL;
	size_t offset = 0;

	if (!split || split == probe || !split[1] || (size_t)(split - probe) >= sizeof(path))
		return err_new(ERR_INVALID, "probe %s: neither PATH:SYMBOL nor PATH+0xOFFSET", probe);
	memcpy(path, probe, (size_t)(split - probe));
	path[split - probe] = 0;
	if (split == plus) {
		errno = 0;
		offset = strtoull(plus + 1, &end, 16);
		if (errno || *end)
			return err_new(ERR_INVALID, "probe %s: neither PATH:SYMBOL nor PATH+0xOFFSET", probe);
	} else {
		options.func_name = split + 1;
	}
	*ret = bpf_program__attach_uprobe_opts(s->program.on_probe, -1, path, offset, &options);
	if (*ret)
		return NULL;
	if (errno == ENOENT && access(path, R_OK) == 0)
		return err_new(ERR_NOT_FOUND, "probe %s: no such function in it, or this kernel has no uprobes (CONFIG_UPROBE_EVENTS)", probe);
	return err_os(errno, "probe %s", probe);
}

struct err *sampler_start(struct sampler *s)
{
	const struct events_handler nobody = {0};

	s->ticks = true;
	TRY(check_cpus(s, &nobody));
	if (!s->online)
		return err_new(ERR_UNSUPPORTED, "no CPU takes perf events");
	if (s->program.on_switch) {
		s->on_switch = bpf_program__attach_raw_tracepoint(s->program.on_switch, "sched_switch");
		if (!s->on_switch)
			return err_os(errno, "attaching to the tracepoint sched_switch");
	}
	for (unsigned i = 0; i < s->options.probe_count; i++)
		TRY(attach_probe(s, s->options.probes[i], &s->probes[i]));
	return NULL;
}

void sampler_stop(struct sampler *s)
{
	s->ticks = false;
	for (unsigned i = 0; i < s->cpu_count; i++)
		stop_tick(s, i);
	(void)bpf_link__destroy(TAKE_PTR(s->on_switch));
	for (unsigned i = 0; s->probes && i < s->options.probe_count; i++)
		(void)bpf_link__destroy(TAKE_PTR(s->probes[i]));
}

struct err *sampler_poll(struct sampler *s, int timeout_ms, const struct sampler_handler *handler)
{
	struct events_handler events = {.forked = handler->forked, .execed = handler->execed, .mapped = handler->mapped,
		.changed = handler->changed, .gone = handler->gone, .lost = handler->lost, .context = handler->context};
	struct pollfd ring = {.fd = ring_buffer__epoll_fd(s->ring), .events = POLLIN};

	s->handler = handler;
	s->events_handler = &events;
	if (poll(&ring, 1, timeout_ms) < 0 && errno != EINTR)
		return err_os(errno, "BPF ring buffer");
	for (unsigned i = 0; i < s->cpu_count; i++)
		if (s->cpus[i].listens)
			TRY(events_take(&s->cpus[i].events, &s->events));
	events_sort(&s->events);
	/* Also records that woke nobody. */
	int rc = ring_buffer__consume(s->ring);
	if (rc < 0 && rc != -EINTR)
		return err_os(-rc, "BPF ring buffer");
	if (s->failure)
		return TAKE_PTR(s->failure);
	TRY(events_hand_out(&s->events, UINT64_MAX, &events));
	return now_ms() - s->checked_ms >= CPUS_CHECK_MS ? check_cpus(s, &events) : NULL;
}

void sampler_status(const struct sampler *s, struct sampler_status *ret)
{
	struct off_cpu_counters off_cpu;

	off_cpu_counters(s->off_cpu, &off_cpu);
	*ret = s->status;
	ret->has_loop = s->program.has_loop;
	ret->regs_way = s->program.regs_way;
	ret->cpus = s->online;
	ret->off_cpu_waiting = off_cpu.waiting;
	ret->off_cpu_dropped = off_cpu.dropped;
	ret->off_cpu_unmatched = off_cpu.unmatched;
	for (size_t i = 0; i < ARRAY_SIZE(s->chunks); i++)
		ret->table_bytes += chunks_bytes(&s->chunks[i]);
}

void sampler_counters(const struct sampler *s, uint64_t ret[SAMPLE_COUNTERS])
{
	uint64_t *values = calloc(s->cpu_count, sizeof(*values));

	memset(ret, 0, SAMPLE_COUNTERS * sizeof(*ret));
	for (uint32_t key = 0; values && key < SAMPLE_COUNTERS; key++) {
		if (bpf_map_lookup_elem(bpf_map__fd(s->program.bpf->maps.counters), &key, values) != 0)
			continue;
		for (unsigned i = 0; i < s->cpu_count; i++)
			ret[key] += values[i];
	}
	free(values);
}

const char *sampler_counter_name(unsigned counter)
{
	static const char *const names[SAMPLE_COUNTERS] = {
		[UNWIND_END_COMPLETE] = "complete",
		[UNWIND_END_NO_PROCESS] = "no_process",
		[UNWIND_END_NO_MAPPING] = "no_mapping",
		[UNWIND_END_NO_TABLE] = "no_table",
		[UNWIND_END_NO_INFO] = "no_info",
		[UNWIND_END_NO_REGISTER] = "no_register",
		[UNWIND_END_NO_STACK] = "no_stack",
		[UNWIND_END_READ] = "read",
		[UNWIND_END_PROGRESS] = "progress",
		[UNWIND_END_FRAMES] = "frames",
		[UNWIND_END_FRAME_POINTER] = "frame_pointer",
		[SAMPLE_COUNT_TAKEN] = "samples",
		[SAMPLE_COUNT_IDLE] = "idle",
		[SAMPLE_COUNT_FILTERED] = "filtered",
		[SAMPLE_COUNT_RING_FULL] = "ring_full",
		[SAMPLE_COUNT_COMPAT] = "compat",
		[SAMPLE_COUNT_KERNEL_THREAD] = "kernel_thread",
		[SAMPLE_COUNT_USER_REGS_BTF] = "user_regs_btf",
		[SAMPLE_COUNT_USER_REGS_TASK] = "user_regs_task",
		[SAMPLE_COUNT_USER_REGS_STACK] = "user_regs_stack",
		[SAMPLE_COUNT_NO_USER_REGS] = "no_user_regs",
		[SAMPLE_COUNT_NO_KERNEL_STACK] = "no_kernel_stack",
		[SAMPLE_COUNT_BUSY] = "probe_busy",
		[SAMPLE_COUNT_CUT] = "cut",
		[SAMPLE_COUNT_OFF_CPU_SWITCHES] = "off_cpu_switches",
		[SAMPLE_COUNT_OFF_CPU_TAKEN] = "off_cpu_samples",
		[SAMPLE_COUNT_EVENTS] = "probe_hits",
	};
	return counter < SAMPLE_COUNTERS ? names[counter] : "unknown";
}

/** The kernel says what a map takes, by its descriptor (proc(5)). */
static uint64_t map_memory(int fd)
{
	char path[48], line[128];
	unsigned long long bytes = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "memlock: %llu", &bytes) == 1)
			break;
	if (file)
		(void)fclose(file);
	return bytes;
}

void sampler_usage(const struct sampler *s, uint64_t *run_ns_ret, uint64_t *map_bytes_ret)
{
	struct bpf_program *program;
	struct bpf_map *map;
	struct sampler_status status;

	sampler_status(s, &status);
	*run_ns_ret = 0;
	*map_bytes_ret = status.table_bytes;
	bpf_object__for_each_program (program, s->program.bpf->obj) {
		struct bpf_prog_info info = {0};
		uint32_t len = sizeof(info);
		if (bpf_program__fd(program) >= 0 && bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len) == 0)
			*run_ns_ret += info.run_time_ns;
	}
	bpf_object__for_each_map (map, s->program.bpf->obj)
		*map_bytes_ret += bpf_map__fd(map) >= 0 ? map_memory(bpf_map__fd(map)) : 0;
}

const char *sampler_regs_way_name(enum sample_regs_way way)
{
	return way == SAMPLE_REGS_HELPER ? "helper" : way == SAMPLE_REGS_TASK_STACK ? "task_stack" : "stack_top";
}

unsigned sampler_cpus(const struct sampler *sampler)
{
	return sampler->online;
}

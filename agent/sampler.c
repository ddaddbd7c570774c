// SPDX-License-Identifier: Apache-2.0
/*
 * Load order: features are probed (not guessed from the version), sizes and options set, the program loaded, its array maps
 * mapped into this process so that tables are filled by plain stores. A CPU's tick is a CPU-clock software event with the
 * program attached; it works in virtual machines without a PMU.
 */
#include "agent/sampler.h"

#include "agent/events.h"
#include "agent/privilege.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sample.skel.h"

struct cpu {
	int tick;
	struct bpf_link *link;
	struct events events;
};

struct mapped {
	void *bytes;
	size_t len;
};

struct sampler {
	struct sampler_options options;
	struct sample_bpf *bpf;
	struct ring_buffer *ring;
	struct tables_arrays arrays;
	struct mapped mapped[5];
	unsigned mapped_count;
	struct cpu *cpus;
	unsigned cpu_count; /* possible */
	unsigned online;
	const struct sampler_handler *handler; /* during sampler_poll */
	struct err *failure;		       /* of the handler, on its way through libbpf */
};

static int log_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

__attribute__((format(printf, 2, 0))) static int log_all(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	return vfprintf(stderr, format, args);
}

/* -------------------------------------------------------------------------------------- load */

static struct err *check_features(void)
{
	TRY(privilege_check(privilege_effective()));
	if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_PERF_EVENT, NULL) == 0)
		return err_new(ERR_UNSUPPORTED, "this kernel runs no BPF programs on perf events (CONFIG_BPF_EVENTS, CONFIG_PERF_EVENTS)");
	if (libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, NULL) == 0)
		return err_new(ERR_UNSUPPORTED, "this kernel has no BPF ring buffer (Linux 5.8)");
	if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_PERF_EVENT, BPF_FUNC_loop, NULL) == 0)
		return err_new(ERR_UNSUPPORTED, "this kernel has no bpf_loop (Linux 5.17)");
	return NULL;
}

/** Memory of an array map. */
static struct err *map_array(struct sampler *s, const struct bpf_map *map, void **ret)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t len = (size_t)bpf_map__max_entries(map) * ((bpf_map__value_size(map) + 7) & ~7U);

	len = (len + page - 1) & ~(page - 1);
	void *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
	if (bytes == MAP_FAILED)
		return err_os(errno, "BPF map %s", bpf_map__name(map));
	s->mapped[s->mapped_count++] = (struct mapped){bytes, len};
	*ret = bytes;
	return NULL;
}

static int show_process(void *context, uint32_t pid, const struct sample_process *process)
{
	const struct sampler *s = context;
	int fd = bpf_map__fd(s->bpf->maps.processes);
	int rc = process->mapping_count ? bpf_map_update_elem(fd, &pid, process, BPF_ANY) : bpf_map_delete_elem(fd, &pid);

	return rc == 0 || (process->mapping_count == 0 && rc == -ENOENT) ? 0 : -rc;
}

static struct err *map_arrays(struct sampler *s)
{
	void *items = NULL;

	s->arrays = (struct tables_arrays){.mapping_count = SAMPLER_MAPPINGS, .page_count = SAMPLER_PAGES, .delta_count = SAMPLER_DELTAS,
		.show = show_process, .context = s};
	TRY(map_array(s, s->bpf->maps.mappings, &items));
	s->arrays.mappings = items;
	TRY(map_array(s, s->bpf->maps.exes, &items));
	s->arrays.exes = items;
	TRY(map_array(s, s->bpf->maps.pages, &items));
	s->arrays.pages = items;
	TRY(map_array(s, s->bpf->maps.deltas, &items));
	s->arrays.deltas = items;
	TRY(map_array(s, s->bpf->maps.infos, &items));
	s->arrays.infos = items;
	return NULL;
}

static bool has_task_regs(const struct sampler_options *options)
{
	return !options->without_task_regs && access("/sys/kernel/btf/vmlinux", R_OK) == 0 &&
	       libbpf_probe_bpf_helper(BPF_PROG_TYPE_PERF_EVENT, BPF_FUNC_task_pt_regs, NULL) > 0;
}

static struct err *load(struct sampler *s)
{
	s->bpf = sample_bpf__open();
	if (!s->bpf)
		return err_os(errno, "opening the BPF program");
	bpf_map__set_max_entries(s->bpf->maps.mappings, SAMPLER_MAPPINGS);
	bpf_map__set_max_entries(s->bpf->maps.pages, SAMPLER_PAGES);
	bpf_map__set_max_entries(s->bpf->maps.deltas, SAMPLER_DELTAS / 2);
	s->bpf->rodata->agent_pid = (uint32_t)getpid();
	s->bpf->rodata->only_pid = s->options.only_pid;
	s->bpf->rodata->has_task_regs = has_task_regs(&s->options);
	int rc = sample_bpf__load(s->bpf);
	if (rc == -EPERM)
		return err_os(EPERM, "loading the BPF program (a security module or kernel.lockdown may forbid it)");
	if (rc)
		return err_os(-rc, "loading the BPF program (--verifier-log says more)");
	return map_arrays(s);
}

static int on_record(void *context, void *bytes, size_t len)
{
	struct sampler *s = context;
	const struct sample_head *head = bytes;

	if (len < sizeof(*head) || sizeof(*head) + ((size_t)head->frame_count + head->kernel_count) * sizeof(uint64_t) > len)
		return 0;
	if (!s->failure)
		s->failure = s->handler->sample(s->handler->context, head, (const uint64_t *)(head + 1));
	return 0;
}

static struct err *create(struct sampler *s)
{
	(void)libbpf_set_print(s->options.verifier_log ? log_all : log_nothing);
	TRY(check_features());
	TRY(load(s));
	s->ring = ring_buffer__new(bpf_map__fd(s->bpf->maps.ring), on_record, s, NULL);
	if (!s->ring)
		return err_os(errno, "BPF ring buffer");
	int possible = libbpf_num_possible_cpus();
	if (possible <= 0 || possible > SAMPLER_CPUS_MAX)
		return err_new(ERR_LIMIT, "%d CPUs, at most %d are handled", possible, SAMPLER_CPUS_MAX);
	s->cpus = calloc((size_t)possible, sizeof(*s->cpus));
	if (!s->cpus)
		return err_nomem();
	s->cpu_count = (unsigned)possible;
	return NULL;
}

struct err *sampler_create(const struct sampler_options *options, struct sampler **ret)
{
	struct sampler *s = calloc(1, sizeof(*s));

	if (!s)
		return err_nomem();
	s->options = *options;
	struct err *e = create(s);
	if (e) {
		sampler_destroy(s);
		return e;
	}
	*ret = s;
	return NULL;
}

void sampler_destroy(struct sampler *s)
{
	if (!s)
		return;
	sampler_stop(s);
	for (unsigned i = 0; i < s->cpu_count; i++)
		events_close(&s->cpus[i].events);
	for (unsigned i = 0; i < s->mapped_count; i++)
		(void)munmap(s->mapped[i].bytes, s->mapped[i].len);
	ring_buffer__free(s->ring);
	sample_bpf__destroy(s->bpf);
	err_free(s->failure);
	free(s->cpus);
	free(s);
}

const struct tables_arrays *sampler_arrays(const struct sampler *sampler)
{
	return &sampler->arrays;
}

/* -------------------------------------------------------------------------------------- run */

struct err *sampler_listen(struct sampler *s)
{
	unsigned opened = 0;

	for (unsigned cpu = 0; cpu < s->cpu_count; cpu++) {
		struct err *e = events_open((int)cpu, &s->cpus[cpu].events);
		if (e && err_errno(e) == ENODEV) { /* offline */
			err_free(e);
			continue;
		}
		if (e && (err_errno(e) == EACCES || err_errno(e) == EPERM))
			return err_wrap(e, "CAP_PERFMON is missing, or kernel.perf_event_paranoid forbids it");
		TRY(e);
		opened++;
	}
	return opened ? NULL : err_new(ERR_UNSUPPORTED, "no CPU takes perf events");
}

static struct err *tick_cpu(struct sampler *s, unsigned cpu)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_CPU_CLOCK, .freq = 1,
		.sample_freq = s->options.hz};
	struct cpu *at = &s->cpus[cpu];
	int fd = (int)syscall(SYS_perf_event_open, &attr, -1, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0 && errno == ENODEV)
		return NULL;
	if (fd < 0)
		return err_os(errno, "perf event on CPU %u", cpu);
	at->link = bpf_program__attach_perf_event(s->bpf->progs.on_tick, fd);
	if (!at->link) {
		int error = errno;
		(void)close(fd);
		return err_os(error, "attaching the BPF program on CPU %u", cpu);
	}
	at->tick = fd;
	s->online++;
	return NULL;
}

struct err *sampler_start(struct sampler *s)
{
	for (unsigned cpu = 0; cpu < s->cpu_count; cpu++)
		TRY(tick_cpu(s, cpu));
	return s->online ? NULL : err_new(ERR_UNSUPPORTED, "no CPU takes perf events");
}

void sampler_stop(struct sampler *s)
{
	for (unsigned i = 0; i < s->cpu_count; i++) {
		if (s->cpus[i].link) /* closes the perf event too */
			bpf_link__destroy(s->cpus[i].link);
		s->cpus[i].link = NULL;
	}
}

struct err *sampler_poll(struct sampler *s, int timeout_ms, const struct sampler_handler *handler)
{
	struct events_handler events = {.changed = handler->changed, .gone = handler->gone, .lost = handler->lost, .context = handler->context};

	s->handler = handler;
	int rc = ring_buffer__poll(s->ring, timeout_ms);
	if (rc < 0 && rc != -EINTR)
		return err_os(-rc, "BPF ring buffer");
	/* Records that woke nobody. */
	rc = ring_buffer__consume(s->ring);
	if (rc < 0 && rc != -EINTR)
		return err_os(-rc, "BPF ring buffer");
	if (s->failure)
		return TAKE_PTR(s->failure);
	for (unsigned i = 0; i < s->cpu_count; i++)
		if (s->cpus[i].events.ring)
			TRY(events_read(&s->cpus[i].events, &events));
	return NULL;
}

void sampler_counters(const struct sampler *s, uint64_t ret[SAMPLE_COUNTERS])
{
	uint64_t *values = calloc(s->cpu_count, sizeof(*values));

	memset(ret, 0, SAMPLE_COUNTERS * sizeof(*ret));
	for (uint32_t key = 0; values && key < SAMPLE_COUNTERS; key++) {
		if (bpf_map_lookup_elem(bpf_map__fd(s->bpf->maps.counters), &key, values) != 0)
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
		[SAMPLE_COUNT_USER_REGS_STACK] = "user_regs_stack",
		[SAMPLE_COUNT_NO_USER_REGS] = "no_user_regs",
		[SAMPLE_COUNT_NO_KERNEL_STACK] = "no_kernel_stack",
	};
	return counter < SAMPLE_COUNTERS ? names[counter] : "unknown";
}

unsigned sampler_cpus(const struct sampler *sampler)
{
	return sampler->online;
}

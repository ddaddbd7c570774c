// SPDX-License-Identifier: Apache-2.0
/*
 * How it is made. Executable 0 is the kernel, the odd ones are programs (four of ten Go, two Python, the rest C), the even ones libraries of C.
 * Each has a pool of call sites, four a function. A trace is a walk: with probability 0.85 it keeps a random part, from the root
 * on, of an earlier trace of its program, then calls on through sites of the program and (but in Go) of the libraries; a fifth end in the
 * kernel. So of a report's different frames about 40 percent are Go's, 38 native, 15 Python's, 7 the kernel's. Which trace a process is in, and which process runs, follow Zipf's law (rank = n^u for u uniform in [0, 1)).
 * A CPU keeps its thread with probability 0.7 from tick to tick, and is idle (no sample) for a fifth of the ticks.
 * A tick is late by an exponential time of 4 us on average: what hrtimers do on an idle machine.
 */
#include "bench/workload.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES_PER_EXECUTABLE = 600, KERNEL_SITES = 3000, SITES_PER_FUNCTION = 4, FUNCTIONS_PER_FILE = 10, DEPTH_MAX = 120, LATE_MEAN_NS = 4000 };

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next(struct workload *w)
{
	uint64_t z = (w->random += 0x9e3779b97f4a7c15U);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
	return z ^ (z >> 31);
}

static double uniform(struct workload *w)
{
	return (double)(next(w) >> 11) * 0x1p-53;
}

static uint32_t below(struct workload *w, uint32_t n)
{
	return (uint32_t)(uniform(w) * n);
}

/* 0 .. n - 1, small ones most often: P(rank) about 1 / rank. */
static uint32_t zipf(struct workload *w, uint32_t n)
{
	uint32_t rank = (uint32_t)pow((double)n + 1, uniform(w)) - 1;

	return rank < n ? rank : n - 1;
}

static void fill(struct workload *w, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)next(w);
}

static bool is_program(uint32_t executable)
{
	return executable % 2 == 1;
}

static uint32_t program_count(const struct workload *w)
{
	return w->options.executables / 2;
}

/* Executable of the i-th program, and of the i-th library. */
static uint32_t program_at(const struct workload *w, uint32_t i)
{
	return 1 + 2 * (i % program_count(w));
}

static uint32_t library_at(uint32_t i)
{
	return 2 + 2 * i;
}

static enum workload_kind kind_of(uint32_t executable)
{
	if (executable == 0)
		return WORKLOAD_KERNEL;
	if (!is_program(executable))
		return WORKLOAD_NATIVE;
	uint32_t of_ten = executable / 2 % 10;
	return of_ten % 5 < 2 ? WORKLOAD_GO : of_ten % 5 == 2 ? WORKLOAD_PYTHON : WORKLOAD_NATIVE;
}

static void make_executables(struct workload *w)
{
	for (uint32_t i = 0; i < w->options.executables; i++) {
		struct workload_executable *e = &w->executables[i];
		fill(w, e->file_id, sizeof(e->file_id));
		fill(w, e->build_id, sizeof(e->build_id));
		e->kernel = i == 0;
		e->text_size = (uint64_t)0x10000 << below(w, 10);
		if (e->kernel)
			(void)snprintf(e->name, sizeof(e->name), "vmlinux");
		else
			(void)snprintf(e->name, sizeof(e->name), is_program(i) ? "program-%u" : "libsample%u.so.1", i);
	}
}

/* The sites of an executable are one run of frames. */
static uint32_t site(const struct workload *w, uint32_t executable, uint32_t i)
{
	(void)w;
	return executable == 0 ? i : KERNEL_SITES + (executable - 1) * SITES_PER_EXECUTABLE + i;
}

static void make_frames(struct workload *w)
{
	uint32_t n = 0;

	for (uint32_t e = 0; e < w->options.executables; e++) {
		for (uint32_t i = 0; i < (e ? SITES_PER_EXECUTABLE : KERNEL_SITES); i++) {
			struct workload_frame *frame = &w->frames[n++];
			frame->executable = e;
			frame->kind = kind_of(e);
			frame->address = 0x1000 + next(w) % w->executables[e].text_size;
			frame->function = (n - 1) / SITES_PER_FUNCTION;
			frame->line = 1 + below(w, 900);
		}
	}
}

/* The executable that a function is in: functions lie as their sites do. */
static uint32_t executable_of(uint32_t function)
{
	uint32_t first = function * SITES_PER_FUNCTION;

	return first < KERNEL_SITES ? 0 : 1 + (first - KERNEL_SITES) / SITES_PER_EXECUTABLE;
}

void workload_function(const struct workload *w, uint32_t function, char ret[WORKLOAD_NAME_SIZE])
{
	uint32_t e = executable_of(function);

	(void)w;
	if (kind_of(e) == WORKLOAD_GO)
		(void)snprintf(ret, WORKLOAD_NAME_SIZE, "example.org/team-%u/program-%u/internal/store.(*Reader).Step%u", e % 7, e, function);
	else if (kind_of(e) == WORKLOAD_PYTHON)
		(void)snprintf(ret, WORKLOAD_NAME_SIZE, "Handler%u.process_%u", function / 13, function);
	else
		(void)snprintf(ret, WORKLOAD_NAME_SIZE, "do_something_%u", function);
}

void workload_file(const struct workload *w, uint32_t function, char ret[WORKLOAD_NAME_SIZE])
{
	uint32_t e = executable_of(function);

	(void)w;
	ret[0] = 0;
	if (kind_of(e) == WORKLOAD_GO)
		(void)snprintf(ret, WORKLOAD_NAME_SIZE, "/src/team-%u/program-%u/internal/store/part_%u.go", e % 7, e, function / FUNCTIONS_PER_FILE);
	else if (kind_of(e) == WORKLOAD_PYTHON)
		(void)snprintf(ret, WORKLOAD_NAME_SIZE, "/srv/app-%u/module_%u/handlers.py", e, function / FUNCTIONS_PER_FILE);
}

uint32_t workload_file_first(const struct workload *w, uint32_t function)
{
	uint32_t first = function / FUNCTIONS_PER_FILE * FUNCTIONS_PER_FILE;

	(void)w;
	/* A file is that of one executable. */
	while (executable_of(first) != executable_of(function))
		first++;
	return first;
}

static struct err *append(struct workload *w, uint32_t frame)
{
	if (w->pool_count == w->pool_cap) {
		size_t cap = w->pool_cap ? 2 * w->pool_cap : 1 << 16;
		uint32_t *pool = reallocarray(w->pool, cap, sizeof(*pool));
		if (!pool)
			return err_nomem();
		w->pool = pool;
		w->pool_cap = cap;
	}
	w->pool[w->pool_count++] = frame;
	return NULL;
}

/* A trace of a program, from the leaf; offsets into the pool until all are made. */
static struct err *make_trace(struct workload *w, uint32_t trace, uint32_t first, uint32_t program, size_t *offsets)
{
	uint32_t frames[DEPTH_MAX], depth = 0, kept = 0, before = 0;

	if (trace > first && uniform(w) < 0.85) {
		before = first + below(w, trace - first);
		kept = 1 + below(w, w->traces[before].depth);
	}
	uint32_t want = kept + 1 + (uint32_t)(-12 * log(1 - uniform(w)));
	uint32_t kernel = uniform(w) < 0.2 ? 4 + below(w, 12) : 0;
	if (want < 12)
		want = 12 + below(w, 10);
	if (want + kernel > DEPTH_MAX)
		want = DEPTH_MAX - kernel;
	if (kept > want)
		kept = want;
	for (uint32_t i = 0; i < kernel; i++)
		frames[depth++] = site(w, 0, zipf(w, KERNEL_SITES));
	for (uint32_t i = kept; i < want; i++) {
		bool own = uniform(w) < 0.6 || kind_of(program) == WORKLOAD_GO;
		uint32_t e = own ? program : library_at(zipf(w, program_count(w) - 1));
		frames[depth++] = site(w, e, zipf(w, SITES_PER_EXECUTABLE));
	}
	for (uint32_t i = 0; i < kept; i++)
		frames[depth++] = w->pool[offsets[before] + w->traces[before].depth - kept + i];
	offsets[trace] = w->pool_count;
	for (uint32_t i = 0; i < depth; i++)
		TRY(append(w, frames[i]));
	w->traces[trace].depth = depth;
	w->depth_mean += (double)depth / w->options.traces;
	return NULL;
}

static struct err *make_traces(struct workload *w)
{
	uint32_t programs = w->options.processes < 64 ? w->options.processes : 64, share = w->options.traces / programs;
	CLEANUP(freep) size_t *offsets = calloc(w->options.traces, sizeof(*offsets));

	if (!offsets)
		return err_nomem();
	for (uint32_t trace = 0; trace < w->options.traces; trace++) {
		uint32_t program = trace / share < programs ? trace / share : programs - 1;
		TRY(make_trace(w, trace, program * share, program_at(w, program), offsets));
	}
	for (uint32_t trace = 0; trace < w->options.traces; trace++)
		w->traces[trace].frames = w->pool + offsets[trace];
	for (uint32_t i = 0; i < w->options.processes; i++) {
		w->processes[i].first_trace = i % programs * share;
		w->processes[i].trace_count = share;
		w->processes[i].executable = program_at(w, i % programs);
	}
	return NULL;
}

static struct err *make_threads(struct workload *w)
{
	uint32_t cap = w->options.processes * 32;

	w->threads = calloc(cap, sizeof(*w->threads));
	if (!w->threads)
		return err_nomem();
	for (uint32_t i = 0; i < w->options.processes; i++) {
		struct workload_process *process = &w->processes[i];
		process->pid = 1000 + 37 * i;
		process->first_thread = w->thread_count;
		process->thread_count = 1 + zipf(w, 32);
		if (i % 3) /* the others belong to no service */
			(void)snprintf(process->service, sizeof(process->service), "service-%u", i % 40);
		if (i % 2)
			for (size_t c = 0; c < 64; c++)
				process->container[c] = "0123456789abcdef"[next(w) & 15];
		for (uint32_t t = 0; t < process->thread_count; t++) {
			struct workload_thread *thread = &w->threads[w->thread_count++];
			thread->process = i;
			thread->tid = process->pid + t;
			(void)snprintf(thread->name, sizeof(thread->name), t ? "worker-%u" : "main-%u", t ? t : i);
		}
	}
	return NULL;
}

static uint32_t pick_thread(struct workload *w)
{
	const struct workload_process *process = &w->processes[zipf(w, w->options.processes)];

	return process->first_thread + zipf(w, process->thread_count);
}

struct err *workload_create(const struct workload_options *options, struct workload **ret)
{
	CLEANUP(workload_destroyp) struct workload *w = calloc(1, sizeof(*w));

	if (!w)
		return err_nomem();
	w->options = *options;
	struct workload_options *o = &w->options;
	o->cpus = o->cpus ? o->cpus : 64;
	o->hz = o->hz ? o->hz : 20;
	o->executables = o->executables ? o->executables : 200;
	o->processes = o->processes ? o->processes : 300;
	o->traces = o->traces ? o->traces : 50000;
	if (o->executables < 4 || o->executables % 2 || o->traces < 64)
		return err_new(ERR_INVALID, "at least 4 executables, an even number, and 64 traces");
	w->random = o->seed;
	w->frame_count = KERNEL_SITES + (o->executables - 1) * SITES_PER_EXECUTABLE;
	w->function_count = w->frame_count / SITES_PER_FUNCTION;
	w->executables = calloc(o->executables, sizeof(*w->executables));
	w->frames = calloc(w->frame_count, sizeof(*w->frames));
	w->processes = calloc(o->processes, sizeof(*w->processes));
	w->traces = calloc(o->traces, sizeof(*w->traces));
	w->cpu_thread = calloc(o->cpus, sizeof(*w->cpu_thread));
	w->cpu_tick = calloc(o->cpus, sizeof(*w->cpu_tick));
	if (!w->executables || !w->frames || !w->processes || !w->traces || !w->cpu_thread || !w->cpu_tick)
		return err_nomem();
	make_executables(w);
	make_frames(w);
	TRY(make_traces(w));
	TRY(make_threads(w));
	for (uint32_t cpu = 0; cpu < o->cpus; cpu++) {
		w->cpu_thread[cpu] = pick_thread(w);
		w->cpu_tick[cpu] = o->start_unix_nano + (uint64_t)(uniform(w) * 1e9 / o->hz);
	}
	*ret = TAKE_PTR(w);
	return NULL;
}

void workload_destroy(struct workload *w)
{
	if (!w)
		return;
	free(w->executables);
	free(w->frames);
	free(w->processes);
	free(w->threads);
	free(w->traces);
	free(w->pool);
	free(w->cpu_thread);
	free(w->cpu_tick);
	free(w);
}

void workload_destroyp(struct workload **workload)
{
	workload_destroy(*workload);
}

size_t workload_report_max(const struct workload *w, uint64_t report_ns)
{
	return (size_t)w->options.cpus * (report_ns / (1000000000 / w->options.hz) + 2);
}

size_t workload_report(struct workload *w, uint64_t report_ns, struct workload_sample *samples, size_t cap)
{
	uint64_t period = 1000000000 / w->options.hz, end;
	size_t count = 0;

	w->options.start_unix_nano += report_ns;
	end = w->options.start_unix_nano;
	for (uint32_t cpu = 0; cpu < w->options.cpus; cpu++) {
		for (; w->cpu_tick[cpu] < end && count < cap; w->cpu_tick[cpu] += period) {
			if (uniform(w) > 0.7)
				w->cpu_thread[cpu] = pick_thread(w);
			if (!w->options.busy && uniform(w) < 0.2)
				continue; /* idle */
			const struct workload_process *process = &w->processes[w->threads[w->cpu_thread[cpu]].process];
			samples[count++] = (struct workload_sample){
				.time_unix_nano = w->cpu_tick[cpu] + (uint64_t)(-LATE_MEAN_NS * log(1 - uniform(w))),
				.trace = process->first_trace + zipf(w, process->trace_count),
				.thread = w->cpu_thread[cpu],
				.cpu = cpu};
		}
	}
	return count;
}

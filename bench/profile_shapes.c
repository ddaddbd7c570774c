// SPDX-License-Identifier: Apache-2.0
/*
 * How the shapes are made.
 *
 *   modules     each executable has 1 to 6 libraries out of a common pool; libc is in all of them; one kernel
 *   functions   each module has 200 to 6,000 addresses, hot ones far more often
 *   stacks      a new stack of a process leaves an older one of it at a depth that is nearer to the leaf than to the root (that is how call trees
 *               look: 70 percent of the depth on the average is shared), goes on with 1 to 25 frames, and in one of five ends in 4 to 14 kernel frames
 *   depth       8 to 128, 34 on the average; Python processes have runs of interpreted frames in the middle
 *   processes   of an executable each, weight by Zipf; stacks are dealt out by weight, and a process runs its stacks by Zipf
 *   CPUs        a thread stays for 1 to 40 ticks; one tick of three repeats the stack of the tick before
 */
#include "bench/profile_shapes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIBRARIES = 60, MODULE_LIBRARIES_MAX = 6, KERNEL_STACK_MAX = 14 };

struct shapes_state {
	uint64_t random;
	struct shapes_cpu {
		uint32_t process, thread, trace, left;
	} *cpus;
	/* While it is built. */
	uint32_t *module_functions; /* how many */
	uint32_t (*libraries)[MODULE_LIBRARIES_MAX + 1]; /* of an executable */
	uint32_t *library_counts;
	uint32_t frame_cap;
	uint32_t *frame_index; /* hash of frames, open addressing; plus 1 */
	size_t frame_mask;
	uint32_t *stack_pool;
	size_t stack_used, stack_cap;
};

uint64_t shapes_random(uint64_t *random)
{
	*random += 0x9e3779b97f4a7c15u; /* splitmix64 */
	uint64_t z = *random;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static double uniform(uint64_t *random)
{
	return (double)(shapes_random(random) >> 11) / 9007199254740992.0;
}

static uint32_t below(uint64_t *random, uint32_t n)
{
	return (uint32_t)(uniform(random) * n);
}

/* The inverse of the integral of 1/x over [1, n + 1). */
uint32_t shapes_zipf(uint64_t *random, uint32_t n)
{
	uint32_t k = (uint32_t)exp(uniform(random) * log((double)n + 1)) - 1;

	return k < n ? k : n - 1;
}

static void random_bytes(uint64_t *random, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)shapes_random(random);
}

static void make_modules(struct shapes *s)
{
	struct shapes_state *st = s->state;
	uint32_t executables = s->options.executables;

	for (uint32_t i = 0; i < s->module_count; i++) {
		struct shapes_module *m = &s->modules[i];
		random_bytes(&st->random, m->file_id, sizeof(m->file_id));
		random_bytes(&st->random, m->build_id, sizeof(m->build_id));
		m->kernel = i == s->module_count - 1;
		if (m->kernel)
			(void)snprintf(m->name, sizeof(m->name), "vmlinux");
		else if (i < executables)
			(void)snprintf(m->name, sizeof(m->name), "service-%u", i);
		else
			(void)snprintf(m->name, sizeof(m->name), i == executables ? "libc.so.6" : "libshared-%u.so", i - executables);
		st->module_functions[i] = m->kernel ? 6000 : 200 + below(&st->random, 4000);
	}
	for (uint32_t i = 0; i < executables; i++) {
		uint32_t count = 1 + below(&st->random, MODULE_LIBRARIES_MAX);
		st->libraries[i][0] = executables;
		for (uint32_t k = 1; k <= count; k++)
			st->libraries[i][k] = executables + shapes_zipf(&st->random, LIBRARIES);
		st->library_counts[i] = count + 1;
	}
}

static uint32_t frame_number(struct shapes *s, struct shapes_frame frame)
{
	struct shapes_state *st = s->state;
	uint64_t key = (uint64_t)frame.kind << 60 ^ (uint64_t)frame.module << 40 ^ frame.address ^ (uint64_t)frame.line << 20;
	uint64_t hash = key;
	size_t at = shapes_random(&hash) & st->frame_mask;

	for (; st->frame_index[at]; at = (at + 1) & st->frame_mask) {
		const struct shapes_frame *f = &s->frames[st->frame_index[at] - 1];
		if (f->kind == frame.kind && f->module == frame.module && f->address == frame.address && f->line == frame.line)
			return st->frame_index[at] - 1;
	}
	if (s->frame_count == st->frame_cap)
		return 0;
	s->frames[s->frame_count] = frame;
	st->frame_index[at] = ++s->frame_count;
	return s->frame_count - 1;
}

/* A call site of a module: a hot function more often, and of it one of a few places. */
static uint32_t native_frame(struct shapes *s, uint32_t module)
{
	struct shapes_state *st = s->state;
	uint64_t function = shapes_zipf(&st->random, st->module_functions[module]);
	uint64_t place = shapes_zipf(&st->random, 12);
	struct shapes_frame frame = {.kind = SHAPES_NATIVE, .module = module, .address = 0x1000 + function * 397 + place * 23};

	frame.kind = s->modules[module].kernel ? SHAPES_KERNEL : SHAPES_NATIVE;
	return frame_number(s, frame);
}

static uint32_t python_frame(struct shapes *s, uint32_t executable)
{
	struct shapes_state *st = s->state;
	uint32_t function = executable * 1000 + shapes_zipf(&st->random, 900);

	return frame_number(s, (struct shapes_frame){.kind = SHAPES_PYTHON, .address = function, .line = function % 500 + shapes_zipf(&st->random, 8)});
}

static bool is_python(uint32_t executable)
{
	return executable % 8 == 3;
}

/* Makes a stack, root first, into `stack`; returns its depth. */
static uint32_t make_stack(struct shapes *s, uint32_t executable, const struct shapes_trace *older, uint32_t *stack)
{
	struct shapes_state *st = s->state;
	uint32_t depth = 0, shared = 0;

	if (older) {
		shared = (uint32_t)(older->depth * (0.4 + 0.6 * sqrt(uniform(&st->random))));
		for (; depth < shared; depth++)
			stack[depth] = older->frames[older->depth - 1 - depth];
	}
	uint32_t more = 1 + (uint32_t)(24 * uniform(&st->random) * uniform(&st->random)) + (older ? 0 : 12);
	bool python = is_python(executable) && below(&st->random, 3) > 0;
	for (uint32_t i = 0; i < more && depth < SHAPES_DEPTH_MAX - KERNEL_STACK_MAX; i++) {
		uint32_t module = executable;
		if (below(&st->random, 3) == 0)
			module = st->libraries[executable][below(&st->random, st->library_counts[executable])];
		stack[depth++] = python && i > 1 ? python_frame(s, executable) : native_frame(s, module);
	}
	if (below(&st->random, 5) == 0)
		for (uint32_t i = 4 + below(&st->random, 10); i > 0 && depth < SHAPES_DEPTH_MAX; i--)
			stack[depth++] = native_frame(s, s->module_count - 1);
	return depth;
}

static void make_traces(struct shapes *s, struct shapes_process *p, uint32_t executable)
{
	struct shapes_state *st = s->state;
	uint32_t stack[SHAPES_DEPTH_MAX];

	for (uint32_t i = 0; i < p->trace_count; i++) {
		const struct shapes_trace *older = i ? &s->traces[p->first_trace + shapes_zipf(&st->random, i)] : NULL;
		uint32_t depth = make_stack(s, executable, older, stack);
		struct shapes_trace *trace = &s->traces[p->first_trace + i];
		uint32_t *frames = st->stack_pool + st->stack_used;
		for (uint32_t k = 0; k < depth; k++)
			frames[k] = stack[depth - 1 - k];
		st->stack_used += depth;
		*trace = (struct shapes_trace){.process = (uint32_t)(p - s->processes), .depth = depth, .frames = frames};
	}
}

static void make_processes(struct shapes *s)
{
	struct shapes_state *st = s->state;
	uint32_t traces_left = s->options.traces;
	double weights = 0;

	for (uint32_t i = 0; i < s->process_count; i++)
		weights += 1.0 / (i + 4);
	for (uint32_t i = 0; i < s->process_count; i++) {
		struct shapes_process *p = &s->processes[i];
		uint32_t executable = i < s->options.executables ? i : shapes_zipf(&st->random, s->options.executables);
		uint32_t share = (uint32_t)(s->options.traces / weights / (i + 4));
		p->pid = 1000 + i * 37;
		(void)snprintf(p->executable, sizeof(p->executable), "service-%u", executable);
		(void)snprintf(p->service, sizeof(p->service), "svc-%u", executable / 2);
		for (uint32_t k = 0; i % 3 && k < 64; k++)
			p->container[k] = "0123456789abcdef"[shapes_random(&st->random) & 15];
		p->first_trace = s->options.traces - traces_left;
		p->trace_count = share < 1 ? 1 : share > traces_left ? traces_left : share;
		if (i == s->process_count - 1)
			p->trace_count = traces_left;
		if (traces_left - p->trace_count < s->process_count - 1 - i)
			p->trace_count = traces_left - (s->process_count - 1 - i);
		traces_left -= p->trace_count;
		p->first_thread = s->thread_count;
		p->thread_count = 1 + shapes_zipf(&st->random, 24);
		for (uint32_t k = 0; k < p->thread_count; k++) {
			struct shapes_thread *t = &s->threads[s->thread_count++];
			t->tid = p->pid + k;
			(void)snprintf(t->comm, sizeof(t->comm), k ? "worker-%u" : "main", k % 8);
		}
		make_traces(s, p, executable);
	}
	s->trace_count = s->options.traces;
}

static void options_fill(struct shapes_options *o)
{
	if (!o->seed)
		o->seed = 1;
	if (!o->cpus)
		o->cpus = 64;
	if (!o->traces)
		o->traces = 50000;
	if (!o->executables)
		o->executables = 120;
	if (!o->processes)
		o->processes = o->cpus * 4 > 40 ? o->cpus * 4 : 40;
	if (o->traces < o->processes)
		o->traces = o->processes;
}

static bool allocate(struct shapes *s)
{
	struct shapes_state *st = s->state = calloc(1, sizeof(*st));
	const struct shapes_options *o = &s->options;

	if (!st)
		return false;
	s->module_count = o->executables + LIBRARIES + 1;
	s->process_count = o->processes;
	st->frame_cap = o->traces * 16 + 65536;
	for (st->frame_mask = 1; st->frame_mask < (size_t)st->frame_cap * 2;)
		st->frame_mask *= 2;
	st->frame_mask--;
	st->stack_cap = (size_t)o->traces * SHAPES_DEPTH_MAX;
	s->modules = calloc(s->module_count, sizeof(*s->modules));
	s->frames = calloc(st->frame_cap, sizeof(*s->frames));
	s->traces = calloc(o->traces, sizeof(*s->traces));
	s->processes = calloc(o->processes, sizeof(*s->processes));
	s->threads = calloc((size_t)o->processes * 25, sizeof(*s->threads));
	st->module_functions = calloc(s->module_count, sizeof(*st->module_functions));
	st->libraries = calloc(o->executables, sizeof(*st->libraries));
	st->library_counts = calloc(o->executables, sizeof(*st->library_counts));
	st->frame_index = calloc(st->frame_mask + 1, sizeof(*st->frame_index));
	st->stack_pool = malloc(st->stack_cap * sizeof(*st->stack_pool));
	st->cpus = calloc(o->cpus, sizeof(*st->cpus));
	return s->modules && s->frames && s->traces && s->processes && s->threads && st->module_functions && st->libraries &&
		st->library_counts && st->frame_index && st->stack_pool && st->cpus;
}

struct shapes *shapes_create(const struct shapes_options *options)
{
	struct shapes *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->options = *options;
	options_fill(&s->options);
	if (!allocate(s)) {
		shapes_destroy(s);
		return NULL;
	}
	s->state->random = s->options.seed;
	make_modules(s);
	make_processes(s);
	return s;
}

void shapes_destroy(struct shapes *s)
{
	if (!s)
		return;
	if (s->state) {
		free(s->state->module_functions);
		free(s->state->libraries);
		free(s->state->library_counts);
		free(s->state->frame_index);
		free(s->state->stack_pool);
		free(s->state->cpus);
	}
	free(s->state);
	free(s->modules);
	free(s->frames);
	free(s->traces);
	free(s->processes);
	free(s->threads);
	free(s);
}

struct shapes_sample shapes_tick(struct shapes *s, uint32_t cpu)
{
	struct shapes_state *st = s->state;
	struct shapes_cpu *c = &st->cpus[cpu];
	bool fresh = c->left == 0;

	if (fresh) {
		c->process = shapes_zipf(&st->random, s->process_count);
		const struct shapes_process *p = &s->processes[c->process];
		c->thread = p->first_thread + shapes_zipf(&st->random, p->thread_count);
		c->left = 1 + shapes_zipf(&st->random, 40);
	}
	c->left--;
	const struct shapes_process *p = &s->processes[c->process];
	if (fresh || below(&st->random, 3) > 0)
		c->trace = p->first_trace + shapes_zipf(&st->random, p->trace_count);
	return (struct shapes_sample){.cpu = cpu, .trace = c->trace, .process = c->process, .thread = c->thread};
}

void shapes_python_name(uint64_t number, char name[48], char file[64])
{
	(void)snprintf(name, 48, "Handler%llu.process_%llu", (unsigned long long)(number / 13), (unsigned long long)number);
	(void)snprintf(file, 64, "/srv/app/module_%llu/handlers.py", (unsigned long long)(number / 40));
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Samples shaped like those of a busy machine, made up but the same for the same seed: many executables with their libraries, few of them
 * hot (Zipf); processes in containers with threads; deep stacks that share their roots; kernel frames on some; Python frames in
 * some; a thread stays on its CPU for a while, and a process runs the same few stacks most of the time. Used by every load
 * generator here, so that figures can be compared.
 *
 * One thread at a time. Plain data: it knows no protocol and no store.
 */
#ifndef CAIRN_BENCH_PROFILE_SHAPES_H
#define CAIRN_BENCH_PROFILE_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero means the default. */
struct shapes_options {
	uint64_t seed;	      /* 1 */
	uint32_t cpus;	      /* 64 */
	uint32_t traces;      /* 50000 distinct stacks */
	uint32_t executables; /* 120 */
	uint32_t processes;   /* 4 a CPU, at least 40 */
};

enum shapes_kind { SHAPES_NATIVE, SHAPES_KERNEL, SHAPES_PYTHON };

enum { SHAPES_DEPTH_MAX = 128 };

struct shapes_module {
	char name[48];
	uint8_t file_id[16];
	uint8_t build_id[20];
	bool kernel;
};

struct shapes_frame {
	enum shapes_kind kind;
	uint32_t module;  /* not for Python */
	uint64_t address; /* as linked; kernel: from _stext. Python: number of the function */
	uint32_t line;	  /* Python */
};

struct shapes_trace {
	uint32_t process;
	uint32_t depth;
	const uint32_t *frames; /* numbers of frames, leaf first */
};

struct shapes_process {
	uint32_t pid;
	char executable[32], service[32], container[65]; /* container: 64 hex digits or "" */
	uint32_t first_thread, thread_count;
	uint32_t first_trace, trace_count; /* its own; hottest first */
};

struct shapes_thread {
	uint32_t tid;
	char comm[16];
};

struct shapes {
	struct shapes_options options;
	struct shapes_module *modules;
	uint32_t module_count;
	struct shapes_frame *frames;
	uint32_t frame_count;
	struct shapes_trace *traces;
	uint32_t trace_count;
	struct shapes_process *processes;
	uint32_t process_count;
	struct shapes_thread *threads;
	uint32_t thread_count;
	struct shapes_state *state; /* of the CPUs */
};

/** NULL when memory is out. */
struct shapes *shapes_create(const struct shapes_options *options);
void shapes_destroy(struct shapes *shapes);

struct shapes_sample {
	uint32_t cpu, trace, process, thread; /* thread: number in `threads` */
};
/** What the next timer tick of a CPU finds. */
struct shapes_sample shapes_tick(struct shapes *shapes, uint32_t cpu);

/** Name and file of a Python function. */
void shapes_python_name(uint64_t number, char name[48], char file[64]);
/** A number below @p n, small ones far more often (Zipf with exponent 1, about). For callers that need the same skew. */
uint32_t shapes_zipf(uint64_t *random, uint32_t n);
uint64_t shapes_random(uint64_t *random);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Profiles of a made-up machine, shaped like those of real ones: many processes of a few hundred executables and libraries, deep
 * stacks that grow out of each other, a few traces that are seen all the time and a long tail, programs in C, Go and Python, kernel frames,
 * threads that stay on their CPU for a while, timers that fire at a grid a little late. The same seed, the same samples. Used by every
 * load generator here, so that figures can be compared.
 *
 * One thread at a time. Plain data: it knows no protocol and no store.
 */
#ifndef CAIRN_BENCH_WORKLOAD_H
#define CAIRN_BENCH_WORKLOAD_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct workload_options {
	uint64_t seed;
	uint32_t cpus;	      /* 64 */
	uint32_t hz;	      /* 20 */
	uint32_t executables; /* 200, libraries included */
	uint32_t processes;   /* 300 */
	uint32_t traces;      /* 50,000 */
	uint64_t start_unix_nano;
	bool busy; /* no CPU is ever idle; else a fifth of the ticks are */
};

/* What a frame is, and with it how far the agent can name it. */
enum workload_kind {
	WORKLOAD_NATIVE, /* an address */
	WORKLOAD_KERNEL, /* an address and a function */
	WORKLOAD_GO,	 /* an address, function, file and line */
	WORKLOAD_PYTHON, /* function, file and line */
};

enum { WORKLOAD_NAME_SIZE = 128 };

struct workload_executable {
	uint8_t file_id[16], build_id[20];
	char name[32];
	bool kernel;
	uint64_t text_size; /* bytes from address 0x1000 on */
};

struct workload_frame {
	uint32_t executable; /* of Python frames: the program, of which the agent says nothing in the frame */
	enum workload_kind kind;
	uint64_t address;
	uint32_t function, line; /* function: a number for workload_function and workload_file; of native frames: not known to the agent */
};

struct workload_process {
	uint32_t pid, executable, first_thread, thread_count;
	uint32_t first_trace, trace_count; /* that it shares with the other processes of its executable */
	char service[32], container[65];   /* "" : none */
};

struct workload_thread {
	uint32_t process, tid;
	char name[16];
};

struct workload_trace {
	const uint32_t *frames; /* leaf first */
	uint32_t depth;
};

struct workload_sample {
	uint64_t time_unix_nano;
	uint32_t trace, thread, cpu;
};

struct workload {
	struct workload_options options;
	uint64_t random;
	struct workload_executable *executables;
	struct workload_frame *frames;
	struct workload_process *processes;
	struct workload_thread *threads;
	struct workload_trace *traces;
	uint32_t frame_count, thread_count, function_count;
	uint32_t *pool; /* frames of the traces */
	size_t pool_count, pool_cap;
	uint32_t *cpu_thread; /* what each CPU runs */
	uint64_t *cpu_tick;   /* the next tick of each, from start */
	double depth_mean;
};

/** Makes the machine. Zero options mean the defaults. ERR_NOMEM. */
struct err *workload_create(const struct workload_options *options, struct workload **ret) MUST_USE;
void workload_destroy(struct workload *workload);
/** For CLEANUP. */
void workload_destroyp(struct workload **workload);
/** Name of a function, and of the file that it is in ("": the agent does not know). */
void workload_function(const struct workload *workload, uint32_t function, char ret[WORKLOAD_NAME_SIZE]);
void workload_file(const struct workload *workload, uint32_t function, char ret[WORKLOAD_NAME_SIZE]);
/** The first function that is in the same file. */
uint32_t workload_file_first(const struct workload *workload, uint32_t function);
/** The next samples, in no order: what the machine takes in the @p report_ns after those before. At most @p cap. */
size_t workload_report(struct workload *workload, uint64_t report_ns, struct workload_sample *samples, size_t cap);
/** Samples of a report of that length at most. */
size_t workload_report_max(const struct workload *workload, uint64_t report_ns);

#endif

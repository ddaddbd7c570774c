// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel half, from outside: loads agent/sample.bpf.c, ticks it on every CPU, hands out its records, and what the
 * kernel tells of processes (fork, exec, mmap, exit). One thread.
 */
#ifndef CAIRN_AGENT_SAMPLER_H
#define CAIRN_AGENT_SAMPLER_H

#include "agent/shared.h"
#include "agent/proc_maps.h"
#include "agent/tables.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* Most places in the tables, by default; memory is taken as they fill. */
	SAMPLER_DELTAS = 8 << 20,   /* 32 MiB; libjvm takes 130,000 */
	SAMPLER_PAGES = 1 << 19,    /* 4 MiB: 32 GiB of executables' addresses */
	SAMPLER_MAPPINGS = 1 << 18, /* 8 MiB */
	SAMPLER_RING_BYTES = 4 << 20,
	SAMPLER_HZ_MAX = 1000,
	SAMPLER_PROBES_MAX = 64,
};

struct sampler_options {
	uint32_t hz;
	uint32_t only_pid;	      /* 0: all */
	uint32_t off_cpu_threshold;   /* of 2^32: probability that a thread which leaves a CPU is sampled; 0: none is */
	const char *const *probes;    /* "PATH:SYMBOL" or "PATH+0xOFFSET"; borrowed until sampler_destroy */
	unsigned probe_count;	      /* at most SAMPLER_PROBES_MAX */
	uint32_t ring_bytes;	      /* a power of two, whole pages; 0: SAMPLER_RING_BYTES */
	uint32_t deltas_max, pages_max, mappings_max; /* 0: SAMPLER_DELTAS, .. */
	const char *sysfs;	      /* where CPUs are listed; NULL: /sys */
	/* The ways of lesser kernels, for tests. */
	bool without_task_regs;	  /* user registers from the top of the stack, although there is BTF */
	bool without_regs_helper; /* .. from the top of task_struct.stack */
	bool without_btf;
	bool without_loop;	  /* tail calls, although there is bpf_loop */
	bool verifier_log;	  /* libbpf's and the verifier's words to standard error */
};

struct sampler_status {
	bool has_loop;
	enum sample_regs_way regs_way;
	unsigned cpus; /* that tick */
	uint64_t cpus_come, cpus_gone; /* while it ran */
	uint64_t table_bytes;	   /* of BPF tables that grow */
	uint64_t tables_not_grown; /* times that the kernel gave no memory, or a table was full */
	uint64_t off_cpu_waiting, off_cpu_dropped, off_cpu_unmatched; /* agent/off_cpu.h */
};

struct sampler_handler {
	/* A record: @p frames has head->frame_count frames, then head->kernel_count kernel addresses. */
	struct err *(*sample)(void *context, const struct sample_head *head, const uint64_t *frames);
	/* What began, told before the samples that it concerns; each may be NULL. Paths live for the call. */
	struct err *(*forked)(void *context, uint32_t pid, uint32_t parent);
	struct err *(*execed)(void *context, uint32_t pid);
	struct err *(*mapped)(void *context, uint32_t pid, const struct proc_map *map);
	/* Process @p pid began, or its mappings changed. */
	struct err *(*changed)(void *context, uint32_t pid);
	/* It is gone, and its samples have been handed out. */
	struct err *(*gone)(void *context, uint32_t pid);
	/* The kernel could not tell all: any process may have changed. */
	struct err *(*lost)(void *context, uint64_t events);
	void *context;
};

struct sampler;
/**
 * Loads the program. Errors name what is missing: ERR_UNSUPPORTED a kernel feature and since when Linux has it, ERR_OS a
 * privilege (which capability) or a setting.
 */
struct err *sampler_create(const struct sampler_options *options, struct sampler **ret) MUST_USE;
void sampler_destroy(struct sampler *sampler);
/** The arrays of its maps, for tables_create. Valid until sampler_destroy. */
const struct tables_arrays *sampler_arrays(const struct sampler *sampler);
/** Begins to listen for processes (before /proc is read, so that none is missed). */
struct err *sampler_listen(struct sampler *sampler) MUST_USE;
/** Begins to tick on every CPU that is online, and on those that come (sampler_poll looks), and to follow switches and probes. */
struct err *sampler_start(struct sampler *sampler) MUST_USE;
void sampler_stop(struct sampler *sampler);
/** Waits at most @p timeout_ms for a half full ring, then hands out all there is: processes first. Errors of @p handler. */
struct err *sampler_poll(struct sampler *sampler, int timeout_ms, const struct sampler_handler *handler) MUST_USE;
void sampler_counters(const struct sampler *sampler, uint64_t ret[SAMPLE_COUNTERS]);
/** A short stable word for a counter: "complete", "no_mapping", .. */
const char *sampler_counter_name(unsigned counter);
/** What the kernel's half takes: run time since it was loaded (0 unless kernel.bpf_stats_enabled), and memory of its maps. */
void sampler_usage(const struct sampler *sampler, uint64_t *run_ns_ret, uint64_t *map_bytes_ret);
unsigned sampler_cpus(const struct sampler *sampler);
/** "stack_top", "task_stack", "helper". */
const char *sampler_regs_way_name(enum sample_regs_way way);
void sampler_status(const struct sampler *sampler, struct sampler_status *ret);

#endif

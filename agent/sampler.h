// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel half, from outside: loads agent/sample.bpf.c, ticks it on every CPU, hands out its records, and what the
 * kernel tells of processes (fork, exec, mmap, exit). One thread.
 */
#ifndef CAIRN_AGENT_SAMPLER_H
#define CAIRN_AGENT_SAMPLER_H

#include "agent/shared.h"
#include "agent/tables.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SAMPLER_DELTAS = 4 << 20, /* default places: 16 MiB; libjvm takes 130,000 */
	SAMPLER_PAGES = 1 << 18,  /* 2 MiB: 16 GiB of executables' addresses */
	SAMPLER_MAPPINGS = 1 << 17, /* 4 MiB */
	SAMPLER_HZ_MAX = 1000,
	SAMPLER_CPUS_MAX = 1024,
};

struct sampler_options {
	uint32_t hz;
	uint32_t only_pid;	      /* 0: all */
	bool without_task_regs;       /* the way of kernels without BTF, for tests */
	bool verifier_log;	      /* libbpf's and the verifier's words to standard error */
};

struct sampler_handler {
	/* A record: @p frames has head->frame_count frames, then head->kernel_count kernel addresses. */
	struct err *(*sample)(void *context, const struct sample_head *head, const uint64_t *frames);
	/* Process @p pid began, or its mappings changed. */
	struct err *(*changed)(void *context, uint32_t pid);
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
/** Begins to tick on every CPU that is online, and to follow CPUs that come. */
struct err *sampler_start(struct sampler *sampler) MUST_USE;
void sampler_stop(struct sampler *sampler);
/** Waits at most @p timeout_ms for a half full ring, then hands out all there is: processes first. Errors of @p handler. */
struct err *sampler_poll(struct sampler *sampler, int timeout_ms, const struct sampler_handler *handler) MUST_USE;
void sampler_counters(const struct sampler *sampler, uint64_t ret[SAMPLE_COUNTERS]);
/** A short stable word for a counter: "complete", "no_mapping", .. */
const char *sampler_counter_name(unsigned counter);
unsigned sampler_cpus(const struct sampler *sampler);

#endif

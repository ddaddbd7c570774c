// SPDX-License-Identifier: Apache-2.0
/*
 * The command line of cairn-worker: `cairn-worker elf|package key=number...`. Numbers only: no path, no name, nothing that
 * comes from outside. cairnd writes it (ingest/spawn.c), nobody types it.
 */
#ifndef CAIRN_WORKER_OPTIONS_H
#define CAIRN_WORKER_OPTIONS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum worker_mode { WORKER_ELF, WORKER_PACKAGE };

struct worker_options {
	enum worker_mode mode;
	/* Descriptors, -1: none. */
	int binary_fd, debug_fd, supplement_fd, split_fd, package_fd, sibling_fd, wanted_fd, scratch_fd;
	uint64_t memory_bytes, table_bytes, unpacked_bytes, cpu_seconds;
	unsigned threads;
	unsigned alone; /* 1: what would be asked for is not to be had: do without */
};

/** ERR_INVALID: unknown mode or key, a number that is none or out of bounds, an input that is missing. */
struct err *worker_options_parse(int argc, char **argv, struct worker_options *ret) MUST_USE;
/** The highest descriptor that the options name (at least that of standard error). */
int worker_options_last_fd(const struct worker_options *options);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Runs numbered tasks on several threads: an atomic counter hands out the numbers, the calling thread takes part.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_RUNNER_H
#define CAIRN_SYMBOLIZER_BUILD_RUNNER_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct runner {
	unsigned threads; /* at least 1 */
	void (*progress)(void *context, uint64_t done, uint64_t total); /* by the calling thread, after each of its tasks; or NULL */
	void *progress_context;
};

/**
 * Calls task(context, i, thread) for every i below @p count, each once; thread is below runner->threads and tells scratch apart.
 * After an error no further task is begun. Threads live for the call; fewer run where the system gives no more.
 * @return NULL, or one of the errors (that of the lowest i among those that happened).
 */
struct err *runner_run(const struct runner *runner, size_t count, struct err *(*task)(void *context, size_t i, unsigned thread),
	void *context) MUST_USE;

#endif

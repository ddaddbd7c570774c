// SPDX-License-Identifier: Apache-2.0
/*
 * Runs work that may crash, hang or eat memory (libdwarf on strangers' bytes) in a forked child with limits, and brings a result
 * of fixed size back. For single-threaded programs only: the child goes on with what the forking thread had.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_VERIFY_CHILD_H
#define CAIRN_SYMBOLIZER_BUILD_VERIFY_CHILD_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct verify_child_limits {
	uint64_t memory_bytes; /* of address space; 0: no limit. Not applied under AddressSanitizer */
	uint32_t seconds;      /* of wall clock; 0: no limit */
};

/**
 * @param work     runs in the child; what it writes to @p result is the caller's afterwards
 * @param result   @p result_len bytes, untouched on failure
 * @return NULL; the work's own error; ERR_INTERNAL: the child was killed by a signal or ended without a result (says which);
 *         ERR_LIMIT: it ran longer than limits.seconds; ERR_OS; ERR_NOMEM.
 */
struct err *verify_child_run(struct err *(*work)(void *context, void *result), void *context, const struct verify_child_limits *limits,
	void *result, size_t result_len) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * What cairn-unwind leaves in the file that it was given: this head, then infos, pages and deltas as types.h has them, infos
 * numbered from UNWIND_COMMANDS on. The reader trusts none of it: counts are checked here, each number where it is used.
 */
#ifndef CAIRN_AGENT_UNWIND_RESULT_H
#define CAIRN_AGENT_UNWIND_RESULT_H

#include "agent/unwind/table.h"
#include "base/err.h"

#include <stdint.h>

enum {
	UNWIND_RESULT_MAGIC = 0x57554e43, /* CNUW */
	UNWIND_RESULT_REASON_MAX = 200,
	UNWIND_RESULT_BYTES_MAX = 64 << 20, /* of one result: 16 M deltas */

	/* cairn-unwind's descriptors. */
	UNWIND_FD_RESULT = 1,
	UNWIND_FD_BINARY = 3,
	UNWIND_FD_DEBUG = 4, /* with the argument "debug" */
};

enum unwind_outcome {
	UNWIND_BUILT = 1,
	UNWIND_NEEDS_DEBUG, /* built, but hardly anything was there: a separate debug file may say more */
	UNWIND_REFUSED,	    /* the reason says why; nothing follows */
};

struct unwind_result {
	uint32_t magic;
	uint32_t outcome;
	uint32_t info_count, page_count, delta_count;
	uint32_t reserved;
	uint64_t page_base;
	uint64_t rows_unsupported;
	char debuglink[UNWIND_DEBUGLINK_MAX]; /* "": none */
	char reason[UNWIND_RESULT_REASON_MAX];
};

/** Writes a result. @p table and @p infos are NULL for UNWIND_REFUSED. ERR_OS, ERR_LIMIT. */
struct err *unwind_result_write(int fd, const struct unwind_result *head, const struct unwind_table *table, const struct unwind_infos *infos) MUST_USE;

/**
 * Reads a head and checks that what it counts is there. Text is terminated.
 * @return NULL; ERR_FORMAT: it is none; ERR_OS. Any thread.
 */
struct err *unwind_result_read(int fd, struct unwind_result *ret) MUST_USE;
/** Reads @p count items from @p first on of one of the three arrays into @p items. ERR_FORMAT past its end; ERR_OS. */
struct err *unwind_result_infos(int fd, const struct unwind_result *head, uint32_t first, uint32_t count, struct unwind_info *items) MUST_USE;
struct err *unwind_result_pages(int fd, const struct unwind_result *head, uint32_t first, uint32_t count, struct unwind_page *items) MUST_USE;
struct err *unwind_result_deltas(int fd, const struct unwind_result *head, uint32_t first, uint32_t count, struct unwind_delta *items) MUST_USE;

#endif

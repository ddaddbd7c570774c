// SPDX-License-Identifier: Apache-2.0
/*
 * Names of code that a runtime made, as it writes them for perf: /tmp/perf-PID.map, a line `start size name` (hex, hex, anything)
 * for each function, appended as it goes. The text is a stranger's: every line that is none is skipped, all counts have limits.
 */
#ifndef CAIRN_AGENT_PERF_MAP_H
#define CAIRN_AGENT_PERF_MAP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PERF_MAP_NAME_MAX = 255, /* bytes; more is cut */
	PERF_MAP_ENTRIES_MAX = 1 << 16, /* of one process; more are left out */
	PERF_MAP_BYTES_MAX = 8 << 20, /* of names of one process */
};

struct perf_map {
	struct perf_map_entry {
		uint64_t start, end; /* [start, end) in the process */
		uint32_t name;	     /* offset in names */
		uint32_t order;	     /* later ones win */
	} *entries; /* sorted by start */
	size_t count, cap;
	char *names;
	size_t names_len, names_cap;
	uint64_t skipped; /* lines that are none, or past a limit */
};

/** Takes whole lines; @return NULL and in @p taken_ret how many bytes they were (the rest has no end yet). ERR_NOMEM. */
struct err *perf_map_add(struct perf_map *map, const char *text, size_t len, size_t *taken_ret) MUST_USE;
/** The name for an address; NULL: none. Until the next perf_map_add. O(log entries). */
const char *perf_map_find(const struct perf_map *map, uint64_t address);
void perf_map_deinit(struct perf_map *map);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The arrays that the unwinder reads, mapped from BPF maps (or plain memory in tests), and how places in them are taken. They
 * are written, and never read back.
 */
#ifndef CAIRN_AGENT_ARRAYS_H
#define CAIRN_AGENT_ARRAYS_H

#include "agent/ranges.h"
#include "agent/shared.h"

#include <stdbool.h>
#include <stdint.h>

/* Tables that take memory as they fill. */
enum tables_growing {
	TABLES_MAPPINGS,
	TABLES_PAGES,
	TABLES_DELTAS,
	TABLES_GROWING,
};

struct tables_arrays {
	struct unwind_mapping *mappings;
	struct unwind_exe *exes; /* UNWIND_EXES_MAX */
	struct unwind_page *pages;
	struct unwind_delta *deltas;
	struct unwind_info *infos; /* UNWIND_INFOS_MAX */
	uint32_t mapping_count, page_count, delta_count;
	/* Makes the first @items of a table usable: 0 or an errno. NULL: they all are. */
	int (*grow)(void *context, enum tables_growing which, uint32_t items);
	/* Nothing behind the first @items is in use. May be NULL. */
	void (*shrink)(void *context, enum tables_growing which, uint32_t items);
	/* Shows (or with count 0 hides) a process to the kernel. 0 or an errno. */
	int (*show)(void *context, uint32_t pid, const struct sample_process *process);
	void *context;
};

/** @p count items of a table, usable. False: no place, or no memory. */
bool arrays_take(const struct tables_arrays *arrays, enum tables_growing which, struct ranges *ranges, uint32_t count, uint64_t now_ms,
	uint32_t *first_ret);
/** Gives memory behind what is in use back. */
void arrays_shrink(const struct tables_arrays *arrays, enum tables_growing which, struct ranges *ranges, uint64_t now_ms);

#endif

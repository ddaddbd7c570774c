// SPDX-License-Identifier: Apache-2.0
/*
 * What the kernel's events tell of processes that were not read yet: their mappings, inherited from a parent or mapped since
 * exec. Most processes of a build are gone before /proc can be read; their samples are carried on with these. One thread.
 */
#ifndef CAIRN_AGENT_DRAFTS_H
#define CAIRN_AGENT_DRAFTS_H

#include "agent/proc_maps.h"
#include "agent/unwind/types.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	DRAFTS_MAX = 4096,	/* processes; then all are dropped, counted, and wait until they are read */
	DRAFTS_MAPPINGS_MAX = 128, /* of one */
};

/* A mapping as the event told it. */
struct draft_map {
	struct proc_map map; /* path: the draft's */
	struct unwind_mapping mapping; /* once known */
	bool is_known;
};

struct draft {
	uint32_t pid;
	uint32_t count, cap;
	bool is_exec; /* begun by exec, not inherited */
	struct draft_map *items; /* in the order of events */
};

struct drafts;
struct err *drafts_create(struct drafts **ret) MUST_USE;
void drafts_destroy(struct drafts *drafts);
/** @p pid was forked from a process with these mappings. ERR_NOMEM. */
struct err *drafts_fork(struct drafts *drafts, uint32_t pid, const struct unwind_mapping *items, uint32_t count) MUST_USE;
/** .. from a process that is a draft itself, if it is. */
struct err *drafts_fork_draft(struct drafts *drafts, uint32_t pid, uint32_t parent) MUST_USE;
/** @p pid begins anew, without mappings. */
struct err *drafts_exec(struct drafts *drafts, uint32_t pid) MUST_USE;
/** Executable memory is mapped; ignored when @p pid is no draft. */
struct err *drafts_map(struct drafts *drafts, uint32_t pid, const struct proc_map *map) MUST_USE;
/** NULL: it is none. Valid until the next call. */
struct draft *drafts_find(const struct drafts *drafts, uint32_t pid);
void drafts_drop(struct drafts *drafts, uint32_t pid);
/** Drafts now, and mappings and processes that had no place. */
uint32_t drafts_count(const struct drafts *drafts);
uint64_t drafts_dropped(const struct drafts *drafts);

#endif

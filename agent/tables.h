// SPDX-License-Identifier: Apache-2.0
/*
 * What is known of processes: their executable mappings, shown to the kernel for the unwinder. A process's mappings are written
 * to a new place and only then shown, so that the kernel never reads half of them. Executables are exes.h's. One thread.
 */
#ifndef CAIRN_AGENT_TABLES_H
#define CAIRN_AGENT_TABLES_H

#include "agent/arrays.h"
#include "agent/exes.h"
#include "agent/proc_maps.h"
#include "agent/runtimes.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	TABLES_QUARANTINE_MS = 500, /* before a place that the kernel may still read is used again */
	TABLES_PROCESSES_MAX = 65536,
};

struct tables_counters {
	struct exes_counters exes;
	uint64_t processes, mappings; /* now */
	uint64_t mappings_refused; /* of files that cannot be opened: unwound by frame pointers */
	uint64_t mappings_cut;	   /* past UNWIND_MAPPINGS_MAX in one process, or no place left */
	uint64_t processes_synced, processes_unchanged; /* read; of these with nothing new */
	uint64_t processes_failed; /* vanished or not readable */
	uint64_t drafts, drafts_dropped; /* processes known by events only, now; those past a limit */
};

struct tables;
/** @p arrays is borrowed. @p program: path of cairn-unwind; NULL: beside this program. */
struct err *tables_create(const struct tables_arrays *arrays, const char *program, struct tables **ret) MUST_USE;
void tables_destroy(struct tables *tables);

/**
 * Reads /proc/@p pid/maps, takes notice of executables that are new, and shows the result to the kernel. A process that is gone
 * or not readable is counted, and forgotten.
 * @return NULL; ERR_NOMEM. Cost: about 5 us a mapping of a file, 50 more of a new one.
 */
struct err *tables_sync(struct tables *tables, uint32_t pid) MUST_USE;
/*
 * What the kernel's events tell before a process is read, for samples of processes that are gone by then. ERR_NOMEM. Cheap:
 * files are looked at only when a sample asks.
 */
struct err *tables_forked(struct tables *tables, uint32_t pid, uint32_t parent) MUST_USE;
struct err *tables_execed(struct tables *tables, uint32_t pid) MUST_USE;
struct err *tables_mapped(struct tables *tables, uint32_t pid, const struct proc_map *map) MUST_USE;
/**
 * The executable mappings of a process as far as they are known, sorted.
 * @param items_ret  borrowed until the next call of this module; NULL and count 0: nothing is known
 */
struct err *tables_mappings(struct tables *tables, uint32_t pid, const struct unwind_mapping **items_ret, uint32_t *count_ret) MUST_USE;
/** It has executed another program and was not read since. */
bool tables_has_execed(const struct tables *tables, uint32_t pid);
/** The process is gone. */
void tables_forget(struct tables *tables, uint32_t pid);
bool tables_knows(const struct tables *tables, uint32_t pid);
/** Takes the unwind tables that were made meanwhile, and has the next one made. Never waits; SIGCHLD tells when to call. */
struct err *tables_work(struct tables *tables) MUST_USE;
/**
 * A sample of @p pid cannot go on without the table of @p exe, which one of @p mappings maps: it is opened, and its table made.
 * Nothing when that is under way. False: it will not be there: the file cannot be opened any more, or too many wait.
 */
bool tables_want(struct tables *tables, uint32_t pid, uint32_t exe, const struct unwind_mapping *mappings, uint32_t count);
/** Wants the tables of all that is mapped, as far as the queue takes them. False: nothing was left to be wanted. */
bool tables_want_all(struct tables *tables);
/** The table of @p exe was wanted and is not there yet. */
bool tables_is_pending(const struct tables *tables, uint32_t exe);
/** How much CPU time tables may take (exes_limit). */
void tables_limit(struct tables *tables, uint64_t ns_per_s, uint64_t first_ns, uint64_t max_ns);
/** Executables whose unwind tables are wanted, and not made yet. */
uint32_t tables_pending(const struct tables *tables);
/** Frees executables that no process maps any more. Between windows only: their numbers may be given out again. */
void tables_trim(struct tables *tables);
/** What runs in a process besides native code, as far as its executables tell. */
enum tables_runtime tables_runtime(const struct tables *tables, uint32_t pid);
/* Names of code without a file (jit.h): numbered here, so that whoever looks at a frame finds them. */
struct err *tables_code_number(struct tables *tables, const char *name, uint32_t *ret) MUST_USE;
/** Until the next tables_code_number; NULL for a number that is none. */
const char *tables_code_name(const struct tables *tables, uint32_t number);
uint32_t tables_code_count(const struct tables *tables);
/** What executable number @p exe is; NULL when it is none. Valid until tables_trim. */
const struct tables_exe *tables_exe(const struct tables *tables, uint32_t exe);
void tables_counters(const struct tables *tables, struct tables_counters *ret);

#endif

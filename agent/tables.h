// SPDX-License-Identifier: Apache-2.0
/*
 * The tables that the unwinder reads, filled from user space: places in the arrays are given out as ranges; an executable's
 * pages and deltas are held once however many processes map it; a process's mappings are written to a new place and only
 * then shown, so that the kernel never reads half of them. One thread.
 */
#ifndef CAIRN_AGENT_TABLES_H
#define CAIRN_AGENT_TABLES_H

#include "agent/shared.h"
#include "agent/unwind/table.h"
#include "fileid/fileid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum {
	TABLES_NAME_MAX = 128, /* bytes of an executable's base name */
	TABLES_QUARANTINE_MS = 500, /* before a place that the kernel may still read is used again */
	TABLES_PROCESSES_MAX = 65536,
};

/* Tables that take memory as they fill. */
enum tables_growing {
	TABLES_MAPPINGS,
	TABLES_PAGES,
	TABLES_DELTAS,
	TABLES_GROWING,
};

/* The arrays, as mapped from BPF maps (or plain memory in tests). Borrowed. */
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

struct tables_exe {
	char name[TABLES_NAME_MAX];
	struct fileid file_id;
	struct build_id build_id;
	struct load_segments segments;
	bool has_deltas;
	uint64_t rows_unsupported;
};

struct tables_counters {
	uint64_t exes, processes, deltas, pages, mappings; /* now */
	uint64_t exes_refused;	   /* not ELF64 for x86-64, damaged, or past a limit: unwound by frame pointers */
	uint64_t exes_full;	   /* no place left for their deltas: likewise */
	uint64_t mappings_cut;	   /* past UNWIND_MAPPINGS_MAX in one process, or no place left */
	uint64_t processes_synced, processes_failed; /* vanished or not readable */
	uint64_t build_ns;	   /* spent on call frame information */
};

struct tables;
struct err *tables_create(const struct tables_arrays *arrays, struct tables **ret) MUST_USE;
void tables_destroy(struct tables *tables);

/**
 * Reads /proc/@p pid/maps, and the executables it names as far as they are new, and shows the result to the kernel. A process
 * that is gone or not readable is counted, and forgotten.
 * @return NULL; ERR_NOMEM. Cost: that of new executables: 1 ms per 10,000 rows.
 */
struct err *tables_sync(struct tables *tables, uint32_t pid) MUST_USE;
/** The process is gone. */
void tables_forget(struct tables *tables, uint32_t pid);
bool tables_knows(const struct tables *tables, uint32_t pid);
/** Frees executables that no process maps any more. Between windows only: their numbers may be given out again. */
void tables_trim(struct tables *tables);
/** What executable number @p exe is; NULL when it is none. Valid until tables_trim. */
const struct tables_exe *tables_exe(const struct tables *tables, uint32_t exe);
void tables_counters(const struct tables *tables, struct tables_counters *ret);

#endif

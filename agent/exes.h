// SPDX-License-Identifier: Apache-2.0
/*
 * Executables: each file is known once, however many processes map it, and its unwind table is made once, when a sample needs it,
 * by cairn-unwind, one file at a time. A file that nobody maps any more keeps its table for a while, so that the next process of
 * it costs nothing. One thread.
 */
#ifndef CAIRN_AGENT_EXES_H
#define CAIRN_AGENT_EXES_H

#include "agent/arrays.h"
#include "agent/unwind/table.h"
#include "base/err.h"
#include "fileid/fileid.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	TABLES_NAME_MAX = 128,	/* bytes of a base name */
	EXES_PENDING_MAX = 256, /* files held open until their tables are made .. */
	EXES_PENDING_MS = 30 * 1000, /* .. or this has passed: the next sample opens it again */
	EXES_SAMPLE_BYTES = 8 << 20, /* of a file for each sample that wants its table: about 20 ms of CPU */
	EXES_IDLE_MS = 5 * 60 * 1000, /* without a process, before an executable is forgotten */
	EXES_START_MS = 30000, /* in which the first credit of CPU time is good */
	EXES_QUARANTINE_MS = 500, /* before a place that the kernel may still read is used again */
};

/* What is written of an executable into profiles. */
struct tables_exe {
	char name[TABLES_NAME_MAX];
	struct fileid file_id;
	struct build_id build_id;
	struct load_segments segments;
	bool has_deltas;
	uint64_t rows_unsupported;
};

/* Which file it is: another one in its place differs somewhere. */
struct exe_key {
	uint64_t device, inode, size, mtime_ns, ctime_ns;
};

struct exes_counters {
	uint64_t count, pending, deltas, pages; /* now */
	uint64_t added, hits;	/* files read; mappings of files that were known */
	uint64_t refused;	/* not ELF64 for x86-64, damaged, or past a limit: unwound by frame pointers */
	uint64_t crashed, late; /* cairn-unwind died, or was killed: likewise */
	uint64_t full;		/* no place for their deltas, or no number left: likewise */
	uint64_t evicted;	/* tables of unused executables that made place */
	uint64_t replaced;	/* files that were another one when their table was wanted: not made */
	uint64_t dropped;	/* that waited in vain, and were taken out of the queue */
	uint64_t built;		/* runs of cairn-unwind */
	uint64_t turns_without_credit; /* in which tables waited for CPU time (exes_limit) */
	uint64_t debug_files;	/* separate debug files that were found and read */
	uint64_t infos_dropped; /* ways to unwind past UNWIND_INFOS_MAX */
	uint64_t build_ns;	/* CPU time of cairn-unwind */
	uint64_t build_peak_bytes; /* largest resident set of one run */
};

struct exes;
/** @p arrays is borrowed. @p program: path of cairn-unwind, or NULL: beside this program. ERR_OS; ERR_NOMEM. */
struct err *exes_create(const struct tables_arrays *arrays, const char *program, struct exes **ret) MUST_USE;
void exes_destroy(struct exes *exes);

/** The number of a file that is known, else 0. O(1). */
uint32_t exes_find(struct exes *exes, const struct exe_key *key);
/**
 * A new file: it is identified. Its table is made when a sample wants it.
 * @param fd    borrowed for the call; a regular file, or a memory file with the vDSO
 * @param path  as the process sees it
 * @param ret   0: no number is free
 * @return NULL; ERR_NOMEM
 */
struct err *exes_add(struct exes *exes, const struct exe_key *key, int fd, const char *path, uint64_t now_ms, uint32_t *ret) MUST_USE;
/** A mapping of a known process begins or ceases to hold it. */
void exes_hold(struct exes *exes, uint32_t number);
void exes_release(struct exes *exes, uint32_t number, uint64_t now_ms);
/** What a number is; NULL when it is none. Valid until exes_trim. */
const struct tables_exe *exes_at(const struct exes *exes, uint32_t number);

/** A sample cannot go on without its table. True: exes_want asks for the file. False: it is in the queue, there, or no number. */
bool exes_needs_file(struct exes *exes, uint32_t number);
/** The path that it was seen at (valid until exes_trim), and its inode, of a number that is one. */
const char *exes_path(const struct exes *exes, uint32_t number);
uint64_t exes_inode(const struct exes *exes, uint32_t number);
/**
 * Puts it into the queue, after exes_needs_file.
 * @param key      of the file as it was opened: not another one that has taken its place
 * @param take_fd  the file; taken
 * @param pid      whose root holds its debug file
 * @return false: it is another file (counted), or no more may wait
 */
bool exes_want(struct exes *exes, uint32_t number, const struct exe_key *key, int take_fd, uint32_t pid, uint64_t now_ms);
/** Its table was wanted and is not there yet. */
bool exes_is_pending(const struct exes *exes, uint32_t number);
/**
 * What cairn-unwind may take of CPU time: @p ns_per_s, saved up to @p max_ns, with @p first_ns to begin with, for EXES_START_MS. A run begins while
 * there is credit, so that one may pass it; those after it wait. 0: no limit, as without this call.
 */
void exes_limit(struct exes *exes, uint64_t ns_per_s, uint64_t first_ns, uint64_t max_ns);
/** Takes what cairn-unwind has done, and gives it the next. Never waits. ERR_NOMEM; ERR_OS: it cannot be started. */
struct err *exes_work(struct exes *exes, uint64_t now_ms) MUST_USE;
/** Tables that are wanted and not made yet. */
uint32_t exes_pending(const struct exes *exes);
/** Forgets executables without a process since EXES_IDLE_MS. Numbers may be given out again after this. */
void exes_trim(struct exes *exes, uint64_t now_ms);
void exes_counters(const struct exes *exes, struct exes_counters *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The job runner: takes jobs of the store, spawns a cairn-worker for each, checks what it says and commits it. The queue
 * is the store's and durable; in memory there are only the jobs that run now, one a runner thread, each with at most one
 * table (max_table_bytes) between worker and commit.
 *
 *   job claimed -> inputs opened (store_blob_open), the other half of a pair looked up by build ID -> worker
 *     -> result checked (table_open, table_verify, build ID, file ID recomputed here) -> one store transaction
 *     -> needs: looked up in the store, the worker started again with it (INGEST_ROUNDS_MAX), else the job failed
 *     -> anything else: the job failed with the reason, or queued again where another try may help (ERR_OS, a kill that
 *        was not ours). Other jobs go on.
 */
#ifndef CAIRN_INGEST_INGEST_H
#define CAIRN_INGEST_INGEST_H

#include "base/err.h"
#include "ingest/spawn.h"
#include "store/job.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	INGEST_WORKERS_MAX = 64,
	INGEST_ROUNDS_MAX = 4, /* starts of a worker for one job: the first, and again with what it needs */
};

enum ingest_verdict { INGEST_DONE, INGEST_FAILED, INGEST_RETRY, INGEST_STOPPED };

/* How a job ended. */
struct ingest_end {
	enum ingest_verdict verdict;
	uint32_t results; /* files committed */
	uint64_t wall_ms;
	const char *reason; /* one line; "" when there is nothing to say */
};

/* What was brought for a worker that needs a supplement. */
struct ingest_brought {
	int fd; /* -1: nothing */
	bool is_package;
	char reason[STORE_REASON_SIZE]; /* when nothing was */
};

/* Zero means the default. Strings are borrowed until ingest_stop. */
struct ingest_options {
	const char *worker;	     /* path of cairn-worker. Default: beside the running program */
	const char *scratch_dir;     /* for unlinked temporary files: packages are unpacked there. Default: /var/tmp */
	uint32_t workers;	     /* at once: one per two CPUs, at least one */
	uint32_t worker_threads;     /* of each: CPUs / workers, at least one */
	uint64_t worker_memory_bytes; /* 4 GiB */
	uint64_t max_table_bytes;    /* the store's */
	uint64_t max_unpacked_bytes; /* 16 GiB */
	uint64_t deadline_ms;	     /* 30 minutes */
	/*
	 * A worker needs a supplement (dwz) that the store does not have: who can bring it? Called by a runner thread, which waits:
	 * keep it short. Gives a file that is one, or a package that has one, open and the caller's to close; or -1 and why not. NULL:
	 * nobody can.
	 */
	struct err *(*need)(void *context, const struct store_job *job, const struct protocol_needs *needs, struct ingest_brought *ret);
	void *need_context;
	/* For the log: called by a runner thread when a job has ended or was queued again; NULL: not wanted. */
	void (*ended)(void *context, const struct store_job *job, const struct ingest_end *end);
	void *ended_context;
};

struct ingest;

/**
 * Starts the runner threads; jobs that are queued already begin at once.
 * @param store  borrowed until ingest_stop
 * @return NULL; ERR_OS: no such worker program, no threads; ERR_INVALID: a bound is passed; ERR_NOMEM.
 */
struct err *ingest_start(struct store *store, const struct ingest_options *options, struct ingest **ret) MUST_USE;
/** Kills the workers, leaves their jobs queued, joins the threads. NULL is fine. Blocks for a few milliseconds and one commit. */
void ingest_stop(struct ingest *ingest);
/** A job was made durable. The store's own eventfd does the same: this is for callers that must be sure. Any thread; never blocks. */
void ingest_kick(struct ingest *ingest);

struct ingest_progress {
	struct protocol_progress now;
	uint64_t started_ms; /* since 1970 */
	uint32_t round;	     /* 1: first start of a worker */
	uint32_t results;    /* files committed so far */
};
/** How far a running job is; false when it does not run now (store_job_get knows the rest). Any thread; O(workers). */
bool ingest_progress(struct ingest *ingest, uint64_t job_id, struct ingest_progress *ret);

struct ingest_stats {
	uint32_t workers, running;
	uint64_t jobs_done, jobs_failed, jobs_retried;
	uint64_t runs[SPAWN_OUTCOMES]; /* of workers, by enum spawn_outcome */
	uint64_t tables, table_bytes;  /* committed */
	uint64_t files_without_symbols;
	uint64_t members_skipped;      /* of packages */
	uint64_t refused;	       /* results that did not pass our checks */
	uint64_t worker_wall_ms, worker_cpu_ms;
	uint64_t worker_peak_rss_bytes; /* the largest so far */
};
/** Counters since ingest_start. Any thread; never blocks. */
void ingest_stats(const struct ingest *ingest, struct ingest_stats *ret);

#endif

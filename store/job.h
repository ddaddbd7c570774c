// SPDX-License-Identifier: Apache-2.0
/*
 * Jobs: the durable queue of things to build. queued -> running -> done | failed. A job that was running when the
 * process died is queued again at open with one more attempt; past job_attempts_max it has failed, and says so.
 * Job IDs are this node's own: no other node reads them.
 */
#ifndef CAIRN_STORE_JOB_H
#define CAIRN_STORE_JOB_H

#include "store/store.h"

enum store_job_kind {
	STORE_JOB_ELF = 1, /* runtime and/or debug file */
	STORE_JOB_PACKAGE, /* a .deb */
};

enum store_job_state { STORE_JOB_QUEUED = 1, STORE_JOB_RUNNING, STORE_JOB_FAILED, STORE_JOB_DONE };
/** "queued", "running", "failed", "done". */
const char *store_job_state_name(enum store_job_state state);

/* A supplement is what dwz made, of the build ID that files name it by; split DWARF is a .dwp, or an ar archive of .dwo files, of the program's. */
enum store_role { STORE_ROLE_RUNTIME = 1, STORE_ROLE_DEBUG, STORE_ROLE_PACKAGE, STORE_ROLE_SUPPLEMENT, STORE_ROLE_SPLIT };
/** "runtime", "debug", "package", "supplement", "split". */
const char *store_role_name(enum store_role role);
/** False for a word that is none of them. */
bool store_role_parse(const char *word, enum store_role *ret);

enum {
	STORE_JOB_INPUTS_MAX = 4,
	STORE_JOB_PHASE_SIZE = 64,
	STORE_JOB_WANTED_MAX = 64,
};

struct store_job_input {
	enum store_role role;
	struct sha256 blob;
};

struct store_job {
	uint64_t id; /* given by the store, never 0 */
	uint32_t tenant;
	enum store_job_kind kind;
	enum store_job_state state;
	uint32_t attempts;	  /* starts so far */
	enum store_source source; /* for the entries that it makes */
	uint8_t rank;
	bool has_file_id;	  /* what it is about, as far as known: it is found by these */
	struct fileid file_id;
	struct build_id build_id;
	/* Of a package: the files to build, which the job is about, too; of the others only who they are is learnt. None: build all. */
	size_t wanted_count;
	struct build_id wanted[STORE_JOB_WANTED_MAX];
	size_t input_count;
	struct store_job_input inputs[STORE_JOB_INPUTS_MAX];
	uint64_t created_ms, started_ms, finished_ms; /* 0: not yet */
	char name[STORE_NAME_SIZE];
	char provenance[STORE_PROVENANCE_SIZE];
	char phase[STORE_JOB_PHASE_SIZE]; /* progress in words, while running; not durable */
	char reason[STORE_REASON_SIZE];	  /* of the failure, or of the last attempt's; of a done one: what was left out */
	bool has_table;
	struct sha256 table; /* the last one that it committed */
	uint32_t tables;     /* how many */
};

/**
 * Queues a job; durable on return. Input blobs must exist and are then kept until it is done or failed.
 * @param job  id, state, attempts and times are set by the store
 * @return NULL; ERR_NOT_FOUND: an input blob does not exist; ERR_INVALID; ERR_OS; ERR_NOMEM.
 */
struct err *store_job_submit(struct store *store, const struct store_job *job, uint64_t *id_ret) MUST_USE;

/** Takes the oldest queued job: running, attempts + 1, durable. *found_ret false when the queue is empty. */
struct err *store_job_claim(struct store *store, struct store_job *ret, bool *found_ret) MUST_USE;

/** Progress for a person to see, kept in memory: cheap. Unknown jobs are ignored. */
void store_job_progress(struct store *store, uint64_t id, const char *phase);

/**
 * Ends a running job. With @p retry it is queued again while attempts are left, with the reason kept.
 * @return NULL; ERR_NOT_FOUND; ERR_INVALID: it is not running; ERR_OS.
 */
struct err *store_job_fail(struct store *store, uint64_t id, const char *reason, bool retry) MUST_USE;

/** Queues a running job again and forgets this attempt: its runner was stopped in good order. Errors as store_job_fail. */
struct err *store_job_release(struct store *store, uint64_t id) MUST_USE;

/** Done without a commit of its own (a package whose files are all committed, a file that had nothing). @p reason may be NULL. */
struct err *store_job_finish(struct store *store, uint64_t id, const char *reason) MUST_USE;

/** What a job learnt about itself while running (the IDs in its input), so that it is found by them. */
struct err *store_job_identify(struct store *store, uint64_t id, const struct fileid *file_id, const struct build_id *build_id) MUST_USE;

/** *found_ret false when it is unknown or forgotten. */
struct err *store_job_get(struct store_read *read, uint64_t id, struct store_job *ret, bool *found_ret) MUST_USE;

/** Jobs in one state, oldest first, with IDs greater than @p after (0: from the start). */
struct err *store_jobs(struct store_read *read, enum store_job_state state, uint64_t after, struct store_job *jobs, size_t cap,
	size_t *n_ret) MUST_USE;

/**
 * Jobs about a file ID or a build ID (either or both of query), newest first; own tenant, then public.
 */
struct err *store_jobs_about(struct store_read *read, const struct store_query *query, struct store_job *jobs, size_t cap,
	size_t *n_ret) MUST_USE;

/** A descriptor (eventfd, borrowed) that becomes readable when a job is queued: poll it, then read it and claim. */
int store_job_fd(struct store *store);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Whom to ask for symbols, and when. An ID that a request named and nobody knows is queued; a few threads take IDs and go
 * through the sources in order (folders, this machine's programs, package repositories, debuginfod servers, those at the same time) until one has its debug info. What was found is kept in the store
 * and a job built from it, as if it had been uploaded, under the public tenant; what was said is remembered across restarts, with
 * the time from which on it may be asked again.
 *
 * Nothing is asked for an ID that no request named. Each requester may bring so many unknown IDs an hour.
 */
#ifndef CAIRN_SOURCES_SOURCES_H
#define CAIRN_SOURCES_SOURCES_H

#include "sources/fetch.h"
#include "store/source.h"
#include "store/store.h"

enum {
	SOURCES_MAX = 32,
	SOURCES_QUEUE_MAX = 4096, /* IDs waiting or being asked for; past it they are asked for later */
	SOURCES_REASON_SIZE = 448,
};

/* Zero and NULL mean the default. Strings are borrowed until sources_destroy. */
struct sources_options {
	const char *debuginfod;	 /* URLs, separated by blanks; none */
	const char *directories; /* paths, separated by blanks; none */
	const char *installed;	 /* folders of this machine's programs, separated by blanks, for the build IDs of file IDs; none */
	const char *apt;	 /* sources files or folders like /etc/apt, separated by blanks; none */
	const char *architectures; /* of packages, as Debian calls them, separated by blanks: this machine's */
	struct fetch_options fetch;
	uint64_t max_file_bytes; /* one file: 4 GiB */
	uint64_t negative_ms;	 /* "it does not have it" holds so long: 6 h */
	uint64_t retry_ms;	 /* after a failure: 5 min */
	uint64_t refresh_ms;	 /* between looks at folders and indices: 5 min */
	uint64_t keep_packages_bytes; /* fetched packages that are kept for the next file of them: 4 GiB */
	uint64_t keep_packages_ms;    /* since they were last wanted: 1 h */
	uint32_t ids_per_hour;	 /* new unknown IDs of one requester: 10,000 */
	uint32_t threads;	 /* IDs at once, of those who are asked over a network: 4 */
	uint64_t map_max;	 /* address space: 16 GiB */
	bool ask_private;	 /* IDs that no public index names go to public servers, too */
	/* For the log: what a source said; NULL: not wanted. Any thread of ours. */
	void (*said)(void *context, const struct store_query *query, const struct store_ask *ask);
	void *said_context;
};

struct sources;

/** ERR_INVALID: a malformed URL; ERR_OS, ERR_CORRUPT: the database; ERR_NOMEM. @p store is borrowed until sources_destroy. */
struct err *sources_start(struct store *store, const struct sources_options *options, struct sources **ret) MUST_USE;
/** Ends what is under way and answers who waits; then only sources_destroy may be called, and what calls in still returns. NULL is fine. */
void sources_stop(struct sources *sources);
/** Stops, joins the threads. NULL is fine. */
void sources_destroy(struct sources *sources);

enum sources_state {
	SOURCES_NONE,	 /* there is nobody to ask */
	SOURCES_PENDING, /* queued, or being asked for now */
	SOURCES_ASKED,	 /* all were asked; nobody may be asked again yet */
	SOURCES_LATER,	 /* not now: the requester's budget is used up, or the queue is full */
};

struct sources_answer {
	enum sources_state state;
	bool fresh; /* PENDING, since something was found a moment ago: who knows that its job has failed need not wait */
	uint32_t retry_after_s;
	char reason[SOURCES_REASON_SIZE];
};

/**
 * An ID that a request named has no symbols here: asks for it, unless that was done.
 * @param query      the build ID should be given when it is known in any way
 * @param offsets    its addresses are file offsets: without the runtime file they mean nothing
 * @param requester  who brought it: any number that is the same for the same one
 * Thread: any; never blocks on a network or a write. NULL @p sources gives SOURCES_NONE.
 */
void sources_ask(struct sources *sources, const struct store_query *query, bool offsets, uint64_t requester, struct sources_answer *ret);

/**
 * The host that reports a file runs this kernel release (uname -r): if the file is a kernel or module (its file ID is made of its build ID)
 * its debug package is found by that. Say it before the ID is asked for. Thread: any; never blocks. NULL @p sources: nothing.
 */
void sources_kernel(struct sources *sources, const struct fileid *file_id, const struct build_id *build_id, const char *release, size_t len);

/** What was said of an ID, for a person: under its file ID and under its build ID. NULL @p sources gives none. */
struct err *sources_said(struct sources *sources, const struct store_query *query, struct store_ask *asks, size_t cap,
	size_t *n_ret) MUST_USE;

/* What sources_bring gives. */
struct sources_brought {
	int fd;		 /* -1: nobody has it */
	bool is_package; /* that has it, among other things */
	char reason[SOURCES_REASON_SIZE];
};
/**
 * A supplement (dwz) that a debug file names, from whoever has it.
 * @param name       as the debug file has it
 * @param is_public  the debug file came from a public source, so that asking for its supplement tells nobody anything
 * Thread: any that may wait for a network, for some minutes at most. NULL @p sources has nothing.
 */
struct err *sources_bring(struct sources *sources, const struct build_id *build_id, const char *name, bool is_public,
	struct sources_brought *ret) MUST_USE;

enum { SOURCES_SYNC_PATTERNS_MAX = 64, SOURCES_SYNC_PACKAGES_MAX = 10000 };

enum sources_sync_state { SOURCES_SYNC_WAITING, SOURCES_SYNC_FETCHING, SOURCES_SYNC_BUILDING, SOURCES_SYNC_DONE, SOURCES_SYNC_FAILED };
/** "waiting", "fetching", "building", "done", "failed". */
const char *sources_sync_state_name(enum sources_sync_state state);

struct sources_sync_package {
	char name[256], version[256];
	uint64_t bytes; /* of the package */
	enum sources_sync_state state;
	char reason[STORE_ASK_TEXT_SIZE];
	char note[64]; /* what a person should know of it before and after; "" */
};
struct sources_sync_progress {
	uint64_t run; /* its number; 0: there was none */
	bool running, dry_run;
	size_t packages, packages_done, failed; /* done: over, failed ones included */
	uint64_t bytes, bytes_done;
	char reason[SOURCES_REASON_SIZE]; /* why it ended early; "" */
};
/**
 * Fetches and builds packages whose names match shell patterns, and what belongs to them (debug packages, programs). Goes on in the
 * background, one run at a time; what an earlier run finished is left out.
 * @param dry_run  only choose
 * @return NULL; ERR_INVALID: no or too many patterns; ERR_BUSY: one runs; ERR_NOT_FOUND: no sources.
 */
struct err *sources_sync(struct sources *sources, const char *const *patterns, size_t count, bool dry_run, uint64_t *run_ret) MUST_USE;
/** How the last run stands. NULL @p sources: run 0. */
void sources_sync_progress(struct sources *sources, struct sources_sync_progress *ret);
/** The package at @p index of the last run; false behind the last one. */
bool sources_sync_package(struct sources *sources, size_t index, struct sources_sync_package *ret);

struct sources_stats {
	uint64_t asked, found, not_found, refused, failed, cancelled, over_budget;
	uint32_t queued;
	struct fetch_stats fetch;
};
void sources_stats(struct sources *sources, struct sources_stats *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Whom to ask for symbols, and when. An ID that a request named and nobody knows is queued; a few threads take IDs and go
 * through the sources in order (folders, package repositories, debuginfod servers) until one has it. What was found is kept in the store
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
	const char *apt;	 /* sources files or folders like /etc/apt, separated by blanks; none */
	struct fetch_options fetch;
	uint64_t max_file_bytes; /* one file: 4 GiB */
	uint64_t negative_ms;	 /* "it does not have it" holds so long: 6 h */
	uint64_t retry_ms;	 /* after a failure: 5 min */
	uint64_t refresh_ms;	 /* between looks at folders and indices: 5 min */
	uint32_t ids_per_hour;	 /* new unknown IDs of one requester: 10,000 */
	uint32_t threads;	 /* IDs at once: 4 */
	uint64_t map_max;	 /* address space: 16 GiB */
	bool ask_private;	 /* IDs that no public index names go to public servers, too */
	/* For the log: what a source said; NULL: not wanted. Any thread of ours. */
	void (*said)(void *context, const struct store_query *query, const struct store_ask *ask);
	void *said_context;
};

struct sources;

/** ERR_INVALID: a malformed URL; ERR_OS, ERR_CORRUPT: the database; ERR_NOMEM. @p store is borrowed until sources_destroy. */
struct err *sources_start(struct store *store, const struct sources_options *options, struct sources **ret) MUST_USE;
/** Ends what is under way, joins the threads. NULL is fine. */
void sources_destroy(struct sources *sources);

enum sources_state {
	SOURCES_NONE,	 /* there is nobody to ask */
	SOURCES_PENDING, /* queued, or being asked for now */
	SOURCES_ASKED,	 /* all were asked; nobody may be asked again yet */
	SOURCES_LATER,	 /* not now: the requester's budget is used up, or the queue is full */
};

struct sources_answer {
	enum sources_state state;
	uint32_t retry_after_s;
	char reason[SOURCES_REASON_SIZE];
};

/**
 * An ID that a request named has no symbols here: asks for it, unless that was done.
 * @param query      the build ID should be given when it is known in any way
 * @param requester  who brought it: any number that is the same for the same one
 * Thread: any; never blocks on a network or a write. NULL @p sources gives SOURCES_NONE.
 */
void sources_ask(struct sources *sources, const struct store_query *query, uint64_t requester, struct sources_answer *ret);

/** What was said of an ID, for a person. As store_asks. NULL @p sources gives none. */
struct err *sources_said(struct sources *sources, const struct store_query *query, struct store_ask *asks, size_t cap,
	size_t *n_ret) MUST_USE;

struct sources_stats {
	uint64_t asked, found, not_found, refused, failed, over_budget;
	uint32_t queued;
	struct fetch_stats fetch;
};
void sources_stats(struct sources *sources, struct sources_stats *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * What sources remember: whom they asked for an ID, what came back and when to ask again; an index of build IDs that package
 * repositories name; and small notes (validators of indices). All of it can be got again, so it lives in an
 * LMDB environment of its own, <data_dir>/sources: a busy index never waits for a table's fsync, nor the other way round.
 *
 *   asks      tenant | id | source's name -> record
 *   index     repository u64 | build ID -> package number u32
 *   packages  repository u64 | package number u32 -> text (the source's own)
 *   notes     text -> text
 *
 * All functions: any thread; those that write block on the disk.
 */
#ifndef CAIRN_STORE_SOURCE_H
#define CAIRN_STORE_SOURCE_H

#include "store/store.h"

enum {
	STORE_ASK_SOURCE_SIZE = 128,
	STORE_ASK_TEXT_SIZE = 320,
	STORE_ASKS_MAX = 64, /* of one ID */
	STORE_NOTE_MAX = 1 << 16, /* bytes of a note and of a package's text */
};

/* Set in the number of a repository in the house: what it names is no public knowledge. */
#define STORE_INDEX_PRIVATE (UINT64_C(1) << 63)

enum store_ask_answer {
	STORE_ASK_FOUND = 1,
	STORE_ASK_NOT_FOUND,
	STORE_ASK_REFUSED, /* by us or them: the text says why */
	STORE_ASK_FAILED,  /* perhaps later */
	STORE_ASK_CANCELLED, /* before it had said all: another was first */
};
/** "found", "not_found", "refused", "failed", "cancelled". */
const char *store_ask_answer_name(enum store_ask_answer answer);

struct store_ask {
	char source[STORE_ASK_SOURCE_SIZE]; /* "debuginfod http://127.0.0.1:8002" */
	enum store_ask_answer answer;
	uint64_t asked_ms, next_ms; /* since 1970: when it was asked, and from when on it may be asked again */
	uint64_t bytes;		    /* that were fetched */
	uint64_t job_id;	    /* what it brought; 0: nothing */
	char text[STORE_ASK_TEXT_SIZE]; /* for a person */
};

struct store_sources;

/** Opens, creates when absent. @p map_max as the store's, cut to 16 GiB; 0: 16 GiB. ERR_OS, ERR_CORRUPT, ERR_NOMEM. */
struct err *store_sources_open(const char *data_dir, uint64_t map_max, struct store_sources **ret) MUST_USE;
/** NULL is fine. */
void store_sources_close(struct store_sources *sources);

/** Writes or replaces what a source said of an ID (a file ID, else a build ID). */
struct err *store_ask_put(struct store_sources *sources, const struct store_query *query, const struct store_ask *ask) MUST_USE;
/** What was said of an ID, by source's name. */
struct err *store_asks(struct store_sources *sources, const struct store_query *query, struct store_ask *asks, size_t cap,
	size_t *n_ret) MUST_USE;
/** Forgets answers whose next_ms passed before @p before_ms. */
struct err *store_asks_expire(struct store_sources *sources, uint64_t before_ms, uint64_t *removed_ret) MUST_USE;

/** A note, NUL-terminated and malloc'd; NULL in @p ret when there is none. */
struct err *store_note_get(struct store_sources *sources, const char *key, char **ret) MUST_USE;
struct err *store_note_put(struct store_sources *sources, const char *key, const char *text) MUST_USE;

/* A repository's index, made anew in one transaction: the old one is seen until store_index_commit. */
struct store_index;
struct err *store_index_begin(struct store_sources *sources, uint64_t repository, struct store_index **ret) MUST_USE;
/** As store_index_begin, but what the repository has stays, and more is added. */
struct err *store_index_reopen(struct store_sources *sources, uint64_t repository, struct store_index **ret) MUST_USE;
/** The package that the following IDs belong to. */
struct err *store_index_package(struct store_index *index, const char *text) MUST_USE;
/** The number of the present package; with it store_index_select comes back to it. */
uint32_t store_index_number(const struct store_index *index);
void store_index_select(struct store_index *index, uint32_t number);
struct err *store_index_add(struct store_index *index, const struct build_id *build_id) MUST_USE;
/** Ends it either way; the index is gone afterwards. */
struct err *store_index_commit(struct store_index *index) MUST_USE;
void store_index_abort(struct store_index *index);
/** The package of a build ID, malloc'd; NULL when the repository names none. The last one added wins. */
struct err *store_index_find(struct store_sources *sources, uint64_t repository, const struct build_id *build_id, char **ret) MUST_USE;
/**
 * Calls @p each for the text of every package of a repository, in the order in which they came; it must not write. Blocks no writer;
 * an error that @p each returns ends it and is handed on.
 */
struct err *store_index_each(struct store_sources *sources, uint64_t repository, struct err *(*each)(void *context, const char *text),
	void *context) MUST_USE;
/** Whether any public repository names it: one without STORE_INDEX_PRIVATE. */
struct err *store_index_names(struct store_sources *sources, const struct build_id *build_id, bool *ret) MUST_USE;

#endif

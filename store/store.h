// SPDX-License-Identifier: Apache-2.0
/*
 * The store: what Cairn knows of executables, kept in one LMDB environment (`symbols`) under the data directory.
 *
 *   file record   (tenant, file ID) -> name, size, build ID, load segments of the runtime file
 *   aliases       (tenant, build ID) -> set of file IDs
 *   entries       (tenant, build ID, else file ID) -> set of {source, rank, kind, table, provenance, builder version}
 *   tables        SHA-256 -> bytes, immutable, shared by all tenants
 *   jobs, misses  store/job.h, store/miss.h
 *   uploads, kept originals   store/blob.h
 *
 * Reading: store_read_begin .. store_read_end is one snapshot; every pointer got through it is valid until the end.
 * Readers never wait for the writer. Hold a read no longer than one batch (pages it could see cannot be reused), and
 * at most one a thread; do not call a writing function while holding one.
 *
 * Writing: one thread of the store's own runs all commands and commits groups of them. A writing function returns NULL
 * only after its transaction is durable (fsync); it blocks for that, so it is not for event loops: use the _async form or
 * a worker thread. After a failed commit nothing is acknowledged until the environment was closed and opened again, which
 * the store does itself; callers see ERR_OS or ERR_BUSY meanwhile.
 *
 * Lookups see their own tenant, then STORE_TENANT_PUBLIC. No LMDB type is visible here. All functions: any thread.
 */
#ifndef CAIRN_STORE_STORE_H
#define CAIRN_STORE_STORE_H

#include "base/digest.h"
#include "base/err.h"
#include "fileid/build_id.h"
#include "fileid/fileid.h"
#include "fileid/load_segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	STORE_TENANT_PUBLIC = 0, /* written by sources and admins, seen by all */
	STORE_TENANT_DEFAULT = 1,
};

enum {
	STORE_SCHEMA_VERSION = 1,
	STORE_NAME_SIZE = 256,	     /* a file name and its NUL; longer ones are cut */
	STORE_PROVENANCE_SIZE = 256, /* where symbols came from, in words */
	STORE_REASON_SIZE = 512,
	STORE_ENTRIES_MAX = 64, /* per build ID or file ID; past it the best are kept */
	STORE_ALIASES_MAX = 4096, /* file IDs per build ID; past it ERR_LIMIT */
	STORE_NODE_ID_BYTES = 16,
};

/* Checks a table's bytes (symbolizer/table's checksum); the store knows only its SHA-256. */
struct store_verifier {
	struct err *(*verify)(void *context, const void *bytes, size_t len);
	void *context;
};

/* Zero means the default. Strings are borrowed during store_open only. */
struct store_options {
	const char *data_dir;
	uint64_t map_max;	  /* address space of the map: 1 TiB; 64 GiB under TSan; give at most 16 GiB under valgrind */
	uint64_t max_table_bytes; /* one table: 1 GiB */
	uint64_t max_upload_bytes; /* one upload: 4 GiB */
	uint64_t blob_quota_bytes; /* kept originals, compressed: 20 GiB */
	uint32_t upload_expiry_s; /* a session without a chunk for so long is dropped: 86400 */
	uint32_t job_attempts_max; /* 3 */
	uint32_t jobs_kept; /* done and failed jobs that are remembered: 100000 */
	uint32_t misses_max; /* unknown IDs that are remembered: 100000 */
	uint32_t readers_max; /* reads at once in all processes: 1024 */
	uint64_t compact_floor_bytes; /* a data file up to this size is left alone (when idle: up to a quarter): 16 MiB */
	bool read_only; /* beside a running daemon: no lock, no writing function works */
};

struct store;

/**
 * Opens, and creates when absent, the store under options->data_dir; requeues jobs that were running.
 * @return NULL; ERR_BUSY: another process has this data directory; ERR_UNSUPPORTED: written by a newer version;
 *         ERR_NOT_FOUND: read_only and nothing there; ERR_CORRUPT; ERR_OS; ERR_NOMEM.
 */
struct err *store_open(const struct store_options *options, struct store **ret) MUST_USE;
/** Commits what was submitted, stops the writer, closes. NULL is fine. No read may be held. */
void store_close(struct store *store);
/** For CLEANUP. */
void store_closep(struct store **store);
/** The random ID that this store was given when it was created. */
void store_node_id(const struct store *store, uint8_t ret[STORE_NODE_ID_BYTES]);
/** NULL while commits work; else why they do not (after a failed fsync), for /readyz. The caller frees it. */
struct err *store_health(struct store *store) MUST_USE;
/** The options with every default filled in; data_dir is owned by the store. */
const struct store_options *store_limits(const struct store *store);

/* -------------------------------------------------------------------------------------- what is stored */

enum store_source {
	STORE_SOURCE_UPLOAD = 1,
	STORE_SOURCE_DIRECTORY,
	STORE_SOURCE_PACKAGE,
	STORE_SOURCE_DEBUGINFOD,
};
/** "upload", "directory", "package", "debuginfod"; "unknown" for anything else. */
const char *store_source_name(enum store_source source);
/** The usual rank of a source: an upload wins over a directory, that over a package, that over debuginfod. */
uint8_t store_source_rank(enum store_source source);

struct store_file {
	struct fileid file_id;
	char name[STORE_NAME_SIZE];
	uint64_t size;		   /* bytes */
	struct build_id build_id;  /* len 0: none */
	struct load_segments segments; /* of the runtime file; count 0: not known */
	uint16_t elf_machine;	   /* e_machine; 0: not known */
	uint64_t first_seen_ms;	   /* since 1970 */
	bool has_text;		   /* of Linux kernels and modules: */
	uint64_t text_vaddr;	   /* where profilers begin to count: _text of vmlinux, .text of a module */
};

struct store_entry {
	enum store_source source;
	uint8_t rank;  /* the greater wins */
	uint32_t kind; /* enum table_source bits: the lowest bit is the best kind of debug info */
	struct sha256 table;
	uint64_t table_bytes; /* filled in by reads */
	uint32_t builder_version;
	uint64_t created_ms; /* since 1970 */
	uint32_t tenant; /* filled in by reads: whose entry it is */
	char provenance[STORE_PROVENANCE_SIZE];
};

/** Whether its table has lines (DWARF, Go), and not names only. */
bool store_entry_has_lines(const struct store_entry *entry);

/* -------------------------------------------------------------------------------------- reading */

struct store_read;

/** A snapshot of the store. Cheap (a pooled transaction). ERR_LIMIT: readers_max reads are held; ERR_OS; ERR_NOMEM. */
struct err *store_read_begin(struct store *store, struct store_read **ret) MUST_USE;
/** Ends it: every pointer got through it dies. NULL is fine. */
void store_read_end(struct store_read *read);
/** For CLEANUP. */
void store_read_endp(struct store_read **read);

struct store_view {
	const uint8_t *bytes; /* borrowed from the read. Large tables are at 16 mod 64, small ones at any byte */
	size_t len;
};

/**
 * The bytes of a table, in place.
 * @return NULL, and ret->bytes NULL when there is no such table; ERR_CORRUPT. O(log n), no copy.
 */
struct err *store_read_table(struct store_read *read, const struct sha256 *id, struct store_view *ret) MUST_USE;

/* One table outside a batch: a view that carries its own read. */
struct store_table {
	struct store_view view;
	struct store_read *read;
};
/** store_read_begin and store_read_table; ERR_NOT_FOUND when there is no such table. Release it soon: see the head of this file. */
struct err *store_table_acquire(struct store *store, const struct sha256 *id, struct store_table *ret) MUST_USE;
void store_table_release(struct store_table *table);

struct store_query {
	uint32_t tenant;
	bool has_file_id;
	struct fileid file_id;
	struct build_id build_id; /* len 0: not given */
};

enum store_status {
	STORE_UNKNOWN,	  /* no record and no entry under any of the IDs */
	STORE_NO_SYMBOLS, /* the file is known; there is no entry for it */
	STORE_OK,	  /* `entry` is the best one */
};

struct store_answer {
	enum store_status status;
	bool has_file;
	struct store_file file;	  /* the runtime file: by file ID, else one that the build ID names and whose segments are known */
	struct store_entry entry; /* when STORE_OK */
	char reason[STORE_REASON_SIZE]; /* "" or what a person should know: the IDs disagree, the file ID won */
};

/**
 * What is known under a file ID, a build ID or both. Where they disagree (the file's record has another build ID) the
 * file ID wins and the reason says so. The best entry: one with lines (DWARF, Go) before one with names only, then
 * the greater rank, then the better kind, the newer builder, the later one.
 * @return NULL; ERR_INVALID: neither ID was given; ERR_CORRUPT names the damaged key. O(log n + entries).
 */
struct err *store_resolve(struct store_read *read, const struct store_query *query, struct store_answer *ret) MUST_USE;

/**
 * All entries that store_resolve would choose from, best first.
 * @param entries  the caller's array of @p cap (2 * STORE_ENTRIES_MAX is always enough)
 * @param n_ret    how many were written
 */
struct err *store_entries(struct store_read *read, const struct store_query *query, struct store_entry *entries, size_t cap,
	size_t *n_ret) MUST_USE;

/** One file record of exactly this tenant; *found_ret false when there is none. */
struct err *store_file_get(struct store_read *read, uint32_t tenant, const struct fileid *id, struct store_file *ret,
	bool *found_ret) MUST_USE;

/** File IDs of a build ID (own tenant, then public, without repetitions), at most @p cap, in byte order. */
struct err *store_aliases(struct store_read *read, uint32_t tenant, const struct build_id *build_id, struct fileid *ids,
	size_t cap, size_t *n_ret) MUST_USE;

/**
 * File records in the order of their file IDs, for listings: own tenant only.
 * @param after  NULL for the first page, else the last ID of the page before
 */
struct err *store_files(struct store_read *read, uint32_t tenant, const struct fileid *after, struct store_file *files,
	size_t cap, size_t *n_ret) MUST_USE;

/* -------------------------------------------------------------------------------------- writing */

/* What one built table brings. All of it becomes visible and durable at once. */
struct store_commit {
	uint32_t tenant;
	bool has_file;
	struct store_file file;	  /* the runtime file, when it is known: its record, and an alias of build_id */
	bool has_kernel_id;	  /* kernels: a second record of the same, also without has_file (`file` is filled in all the same), .. */
	struct fileid kernel_id;  /* .. under the ID that profilers make of the build ID */
	struct build_id build_id; /* symbols attach to it; len 0: to file.file_id */
	const void *table;	  /* NULL: no table (a file without symbols: the record only). Verified by the caller */
	size_t table_len;
	struct store_entry entry; /* .table is computed by the store when all zero, else checked against the bytes */
	uint64_t job_id;	  /* 0: none */
	bool job_done;		  /* the job becomes done; false: it goes on (a package has many files) */
	const char *job_reason;	  /* of a job that becomes done: what a person should know; NULL: nothing. Borrowed until durable */
};

/**
 * Commits a table, its entry, its aliases, the file record and the job's change in one transaction. Adding the same
 * again changes nothing; adding in another order gives the same bytes.
 * @param table_ret  the table's ID, may be NULL
 * @return NULL when durable; ERR_LIMIT: table over max_table_bytes, too many aliases; ERR_INVALID: neither ID;
 *         ERR_MISMATCH: entry.table is not the SHA-256 of the bytes; ERR_NOT_FOUND: no such job; ERR_OS; ERR_NOMEM.
 *         Memory: LMDB keeps one copy of the table until it is committed.
 */
struct err *store_commit_table(struct store *store, const struct store_commit *commit, struct sha256 *table_ret) MUST_USE;

/** Runs on the writer thread, once: keep it short. @p e is the callee's (NULL: durable). */
typedef void store_done_fn(void *arg, struct err *e);

/** As store_commit_table, without waiting. @p commit and its table stay the caller's and unchanged until @p done runs. */
void store_commit_table_async(struct store *store, const struct store_commit *commit, store_done_fn *done, void *arg);

/** Adds or merges a file record alone (an agent has reported the executable). */
struct err *store_put_file(struct store *store, uint32_t tenant, const struct store_file *file) MUST_USE;

/** Removes every table that no entry names (none remain in normal work) and expired upload sessions, and compacts the file. */
struct err *store_gc(struct store *store, uint64_t *tables_removed_ret) MUST_USE;

/* -------------------------------------------------------------------------------------- check and stat */

/* Called for each fault; @p message is one line that names database and key. */
struct store_check_report {
	void (*fault)(void *context, const char *message);
	void (*progress)(void *context, uint64_t tables_done, uint64_t tables_total); /* may be NULL */
	void *context;
};

struct store_counts {
	uint64_t files, aliases, symbols, entries, tables, table_refs, jobs, misses, uploads, blobs;
	uint64_t table_bytes;	     /* live, as given */
	uint64_t table_stored_bytes; /* with padding */
	uint64_t blob_bytes;	     /* compressed */
	uint64_t faults;
};

/**
 * Walks everything: decodes every record, checks every reference both ways, the SHA-256 of every table and, when given,
 * @p verifier. Works on a read-only store beside a running daemon.
 * @return NULL also when faults were found (counts_ret->faults says how many); an error when the walk itself failed.
 */
struct err *store_check(struct store *store, const struct store_verifier *verifier, const struct store_check_report *report,
	struct store_counts *counts_ret) MUST_USE;

struct store_stat {
	struct store_counts counts; /* faults is 0: nothing is verified */
	uint64_t file_bytes;	    /* of the data file */
	uint64_t used_bytes;	    /* pages in use */
	uint64_t free_bytes;	    /* pages on LMDB's free list */
	uint64_t map_bytes;
	uint32_t readers, readers_max;
	uint32_t schema_version;
	uint64_t last_commit; /* number of the last transaction */
	uint64_t jobs_by_state[5]; /* indexed by enum store_job_state */
	uint64_t commits, commands, commit_failures; /* since this process opened it */
	uint64_t compactions;
};
/** Counts are exact; O(sets of entries + originals + jobs), without reading tables. table_stored_bytes counts whole pages. */
struct err *store_stat(struct store *store, struct store_stat *ret) MUST_USE;

#endif

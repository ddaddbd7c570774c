// SPDX-License-Identifier: Apache-2.0
/*
 * What the store's own files share: the environment and its generations, transactions, keys, scans, the writer's
 * queue, and the encoding of records. Only store/ and its tests include this; LMDB's types end here.
 */
#ifndef CAIRN_STORE_INTERNAL_H
#define CAIRN_STORE_INTERNAL_H

#include "base/reader.h"
#include "store/blob.h"
#include "store/job.h"
#include "store/miss.h"
#include "store/profiles.h"
#include "store/store.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* -------------------------------------------------------------------------------------- databases and keys */

/* tenant u32, all integers big-endian; id is 'B' and the build ID's length u8 and bytes, or 'F' and 16 bytes. */
enum db {
	DB_META,       /* text -> see env.c */
	DB_FILES,      /* tenant | file ID -> file record */
	DB_ALIASES,    /* tenant | build ID length u8 | build ID | file ID -> (empty) */
	DB_SYMBOLS,    /* tenant | id -> set of entries */
	DB_TABLES,     /* SHA-256 -> the table's bytes, nothing else */
	DB_REFS,       /* SHA-256 | tenant | id -> (empty): who names a table */
	DB_JOBS,       /* job u64 -> job record */
	DB_JOBS_STATE, /* state u8 | job u64 -> (empty) */
	DB_JOBS_ABOUT, /* tenant | id | job u64 -> (empty) */
	DB_MISSES,     /* tenant | id -> miss record */
	DB_MISSES_AGE, /* last asked u64 | tenant | id -> (empty) */
	DB_UPLOADS,    /* session ID -> session record */
	DB_BLOBS,      /* SHA-256 -> original's record */
	DB_BLOB_USES,  /* SHA-256 | job u64 -> (empty): jobs that need an original */
	DB_BLOB_IDS,   /* tenant | build ID length u8 | build ID | role u8 -> SHA-256 of the newest */
	/* Of the `profiles` environment, beside a DB_META of its own; profiles.h has their layout. */
	DB_PARTITIONS,
	DB_BLOCKS,
	DB_SEEN,
	DB_INSTANCES,
	DB_SENDERS,
	DB_COUNT,
	DB_SYMBOLS_END = DB_PARTITIONS,
};
extern const char *const db_names[DB_COUNT];

enum { KEY_MAX = 160 };

struct key {
	size_t len;
	uint8_t bytes[KEY_MAX];
};

static inline void key_put(struct key *key, const void *bytes, size_t len)
{
	memcpy(key->bytes + key->len, bytes, len);
	key->len += len;
}
static inline void key_put_uint(struct key *key, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		key->bytes[key->len + i] = (uint8_t)(value >> (8 * (size - 1 - i)));
	key->len += size;
}
static inline uint64_t key_get_uint(const uint8_t *bytes, size_t size)
{
	uint64_t value = 0;
	for (size_t i = 0; i < size; i++)
		value = value << 8 | bytes[i];
	return value;
}
/** tenant | 'B' id, or tenant | 'F' id where there is no build ID. */
struct key key_of_id(uint32_t tenant, const struct build_id *build_id, const struct fileid *file_id);
struct key key_of_file(uint32_t tenant, const struct fileid *id);
/** The prefix of a build ID's aliases. */
struct key key_of_aliases(uint32_t tenant, const struct build_id *build_id);
struct key key_of_u64(uint64_t value);
/** "files key 00000001.." for errors, cut to fit. */
void key_format(enum db db, const void *key, size_t len, char *text, size_t size);

/* -------------------------------------------------------------------------------------- environment */

/* One open environment file. Compaction makes a new one beside it; readers of the old one finish in peace. */
struct generation {
	MDB_env *env;
	MDB_dbi dbi[DB_COUNT];
	char *path;	/* its folder */
	unsigned reads; /* held now; guarded by store->mutex */
	bool stale;	/* replaced: the last reader closes it and removes its folder */
	struct store_read *idle; /* reset transactions for reuse */
};

struct txn {
	struct store *store;
	struct generation *generation;
	MDB_txn *txn;
	bool dirty; /* something was written since the present command began */
};

struct store_read {
	struct txn txn; /* first: a read is a txn */
	struct store_read *next;
};

/* What tells the two environments apart. */
struct environment {
	const char *name; /* of its link and folders */
	const char *lock; /* of its lock file */
	enum db first, end; /* its databases beside DB_META */
	bool compacts;	  /* false: values are small, and freed pages serve the next ones */
};
extern const struct environment environment_symbols, environment_profiles;

struct command;
struct compaction;
struct progress;
struct miss_table;

struct store {
	const struct environment *environment;
	struct store_profiles_hooks hooks; /* of the profiles environment; else zeroes */
	struct store_options options;
	char *data_dir;
	int dir_fd;  /* of data_dir */
	int lock_fd; /* holds the flock; -1 when read-only */
	uint8_t node_id[STORE_NODE_ID_BYTES];
	uint32_t schema_version;

	pthread_mutex_t mutex; /* guards generation, its reads and idle list, draining */
	pthread_cond_t changed;
	struct generation *generation; /* NULL while it could not be opened again */
	bool draining;		       /* new reads wait */

	pthread_mutex_t queue_mutex; /* guards everything down to `failure` */
	pthread_cond_t queue_wake;
	struct command *queue_head, *queue_tail;
	bool writer_started, stopping;
	char failure[STORE_REASON_SIZE]; /* why commits do not work; "" when they do */
	pthread_t writer;

	/* The writer's own. */
	struct compaction *compaction;	  /* NULL: none is under way */
	uint64_t live_bytes;		  /* of all tables */
	uint64_t written_since_compaction; /* table bytes */

	atomic_uint_fast64_t commits, commands, commit_failures, compactions; /* counters: relaxed */

	pthread_mutex_t progress_mutex;
	struct progress *progress;
	struct miss_table *misses;
	int job_fd;
	pthread_mutex_t sessions_mutex;
	struct session_use *sessions_in_use;
	pthread_mutex_t blob_mutex; /* names under blobs/: rename to unlink, and the records beside them */
};

/** An LMDB result as an error: "<formatted>: <its text>". */
struct err *err_from_lmdb(int rc, const char *format, ...) __attribute__((format(printf, 2, 3))) MUST_USE;
uint64_t store_now_ms(void);

/** store_open for either environment. */
struct err *store_open_environment(const struct environment *environment, const struct store_options *options,
	const struct store_profiles_hooks *hooks, struct store **ret) MUST_USE;

struct err *env_open(struct store *store) MUST_USE;
void env_close(struct store *store);
/** Closes and opens the present generation again, once no read is held. ERR_BUSY when reads are held too long. */
struct err *env_reopen(struct store *store) MUST_USE;
/** Goes over to @p next; the last reader of the old generation closes and removes it. The writer thread only. */
void env_switch(struct store *store, struct generation *next);
/** For a read-only store: the daemon has gone over to another generation, so what is seen here is the past. */
bool env_is_replaced(const struct store *store);
struct err *generation_open(struct store *store, const char *path, struct generation **ret) MUST_USE;
void generation_close(struct generation *generation);
/** The number of the generation that the link names; false when there is no link. */
bool link_number(const struct store *store, uint64_t *ret);
/** Makes the link name generation @p number, durably. */
struct err *link_set(struct store *store, uint64_t number) MUST_USE;
/** <data_dir>/symbols.<number>; malloc'd, NULL when memory is out. */
char *generation_path(const struct store *store, uint64_t number);
/** Removes a generation's files and folder, as far as there are any. */
void folder_remove(const char *path);
/** Bytes of a generation's data file that were ever used (it never shrinks). */
uint64_t env_file_bytes(const struct generation *generation);

/** A transaction by its public name (profiles.c). */
struct store_txn *profiles_txn(struct txn *txn);

/** Whether an environment has a database. */
static inline bool environment_has(const struct environment *environment, enum db db)
{
	return db == DB_META || (db >= environment->first && db < environment->end);
}

struct err *txn_begin_write(struct store *store, struct txn *ret) MUST_USE;
struct err *txn_commit(struct txn *txn) MUST_USE;
void txn_abort(struct txn *txn);

struct err *txn_get(struct txn *txn, enum db db, const void *key, size_t key_len, MDB_val *ret, bool *found_ret) MUST_USE;
struct err *txn_has(struct txn *txn, enum db db, const void *key, size_t key_len, bool *found_ret) MUST_USE;
struct err *txn_put(struct txn *txn, enum db db, const void *key, size_t key_len, const void *value, size_t value_len) MUST_USE;
/** Nothing to delete is fine. */
struct err *txn_delete(struct txn *txn, enum db db, const void *key, size_t key_len) MUST_USE;
struct err *txn_count(struct txn *txn, enum db db, uint64_t *ret) MUST_USE;

/* A walk over the keys that begin with a prefix, forwards or backwards. */
struct scan {
	MDB_cursor *cursor;
	struct txn *txn;
	enum db db;
	struct key prefix;
	bool backwards, started;
	MDB_val key, value; /* after scan_next; valid until the next write */
	struct key from;    /* len 0: from the first; else from this key on, forwards only */
};
struct err *scan_begin(struct txn *txn, enum db db, const void *prefix, size_t prefix_len, struct scan *ret) MUST_USE;
/** The next one; *found_ret false at the end. */
struct err *scan_next(struct scan *scan, bool *found_ret) MUST_USE;
/** Deletes what scan_next stands on. */
struct err *scan_delete(struct scan *scan) MUST_USE;
/** For CLEANUP. */
void scan_end(struct scan *scan);
/** Whether any key begins with @p prefix. */
struct err *scan_any(struct txn *txn, enum db db, const void *prefix, size_t prefix_len, bool *found_ret) MUST_USE;

/* -------------------------------------------------------------------------------------- writer */

/* A command runs on the writer thread, perhaps twice (alone, after its group failed): it must set its outs each time. */
typedef struct err *command_fn(struct txn *txn, void *arg);

struct command {
	command_fn *run;
	void *arg;
	store_done_fn *done;
	void *done_arg;
	size_t bytes; /* table bytes it will put, to bound the group's memory */
	struct command *next;
	struct err *result;
	bool finished;
};

struct err *writer_start(struct store *store) MUST_USE;
void writer_stop(struct store *store);
/** Hands in a command; `done` runs on the writer thread. @p command is the caller's until then. */
void writer_submit(struct store *store, struct command *command);
/** Hands in and waits until it is durable. */
struct err *writer_run(struct store *store, command_fn *run, void *arg, size_t bytes) MUST_USE;

/* compact.c: all but writer_compact on the writer thread. */

/** Between groups: begins, goes on with or ends a compaction, as the file's size and @p idle want it. */
void compaction_step(struct store *store, bool idle);
/** After a group's commit, before it is acknowledged: ends a compaction when the file is over twice the live bytes. */
void compaction_hold_mark(struct store *store);
/** Compacts to the end, while nothing else is committed. */
struct err *compaction_run(struct store *store) MUST_USE;
/** Stops one that is under way and removes what it made. */
void compaction_abandon(struct store *store);
/** A key is about to be written or deleted: a compaction that is under way must look at it again. */
void compaction_note(struct store *store, enum db db, const void *key, size_t key_len, size_t value_len);
/** Commits do not work, and why: nothing is acknowledged until the environment was opened again. */
void writer_failed(struct store *store, const struct err *e);
/** Compacts now; waits for it. */
struct err *writer_compact(struct store *store) MUST_USE;

/* -------------------------------------------------------------------------------------- records */

/* An encoder into a buffer of the caller's; `failed` when it was too small. */
struct encoder {
	uint8_t *bytes;
	size_t len, cap;
	bool failed;
};
void encode_uint(struct encoder *e, uint64_t value, size_t size); /* little-endian */
void encode_bytes(struct encoder *e, const void *bytes, size_t len);
void encode_text(struct encoder *e, const char *text); /* u16 length, bytes */
void encode_build_id(struct encoder *e, const struct build_id *id);
/** Text of less than @p size bytes without NUL, into @p text; else the reader fails. */
void decode_text(struct reader *r, char *text, size_t size);
void decode_build_id(struct reader *r, struct build_id *ret);
void decode_bytes(struct reader *r, void *ret, size_t len);
/** NULL when all was read and nothing failed, else ERR_CORRUPT that names database and key. */
struct err *decode_end(const struct reader *r, enum db db, const void *key, size_t key_len) MUST_USE;
struct err *corrupt(enum db db, const void *key, size_t key_len, const char *what) MUST_USE;
/** Copies text, cut to fit, without splitting a UTF-8 sequence. */
void text_copy(char *to, size_t size, const char *from);

enum {
	RECORD_VERSION = 1,
	FILE_RECORD_MAX = 4096,
	ENTRY_RECORD_MAX = 64 + SHA256_BYTES + STORE_PROVENANCE_SIZE,
	SET_RECORD_MAX = 16 + STORE_ENTRIES_MAX * ENTRY_RECORD_MAX,
	JOB_RECORD_MAX = 4096 + STORE_JOB_WANTED_MAX * (1 + BUILD_ID_MAX),
	UPLOAD_RECORD_MAX = 1024,
	BLOB_RECORD_MAX = 1024,
};

/* Entries sorted by (source, kind, provenance), one for each of these. */
struct entry_set {
	size_t count;
	struct store_entry items[STORE_ENTRIES_MAX + 1];
};

struct err *file_decode(const MDB_val *key, const MDB_val *value, struct store_file *ret) MUST_USE;
size_t file_encode(const struct store_file *file, uint8_t bytes[FILE_RECORD_MAX]);
struct err *set_decode(const MDB_val *key, const MDB_val *value, struct entry_set *ret) MUST_USE;
size_t set_encode(const struct entry_set *set, uint8_t bytes[SET_RECORD_MAX]);
/** Adds an entry to a set: commutes, idempotent. */
void set_add(struct entry_set *set, const struct store_entry *entry);
/** Whether @p a is a better answer than @p b. A total order. */
int entry_compare(const struct store_entry *a, const struct store_entry *b);
/** Merges what two records say of one file: commutes, idempotent. */
void file_merge(struct store_file *into, const struct store_file *other);
struct err *job_decode(const MDB_val *key, const MDB_val *value, struct store_job *ret) MUST_USE;
size_t job_encode(const struct store_job *job, uint8_t bytes[JOB_RECORD_MAX]);
struct err *upload_decode(const MDB_val *key, const MDB_val *value, struct store_upload *ret) MUST_USE;
size_t upload_encode(const struct store_upload *upload, uint8_t bytes[UPLOAD_RECORD_MAX]);

/* An original's record. */
struct blob_record {
	struct store_blob blob;
	uint32_t tenant;
	enum store_role role;
	struct build_id build_id;
};
struct err *blob_decode(const MDB_val *key, const MDB_val *value, struct blob_record *ret) MUST_USE;
size_t blob_encode(const struct blob_record *record, uint8_t bytes[BLOB_RECORD_MAX]);
struct err *miss_decode(const MDB_val *key, const MDB_val *value, struct store_miss *ret) MUST_USE;

/* -------------------------------------------------------------------------------------- parts */

/* tables: totals are kept in DB_META under "totals". */
struct table_totals {
	uint64_t tables, bytes;
};
struct err *tables_totals(struct txn *txn, struct table_totals *ret) MUST_USE;
struct err *tables_put(struct txn *txn, const struct sha256 *id, const void *bytes, size_t len) MUST_USE;
struct err *tables_ref(struct txn *txn, const struct sha256 *id, const struct key *by) MUST_USE;
/** Removes the reference, and the table with its last one. */
struct err *tables_unref(struct txn *txn, const struct sha256 *id, const struct key *by) MUST_USE;
struct err *tables_gc(struct txn *txn, uint64_t *removed_ret) MUST_USE;

/* jobs */
struct err *jobs_resume(struct store *store) MUST_USE;
void jobs_deinit(struct store *store);
struct err *jobs_insert(struct txn *txn, const struct store_job *job, uint64_t *id_ret) MUST_USE;
struct err *jobs_committed(struct txn *txn, uint64_t id, const struct sha256 *table, bool done, const char *reason) MUST_USE;
/** The writer has committed jobs that are queued: wakes store_job_fd. */
void jobs_wake(struct store *store);
void jobs_forget_progress(struct store *store, uint64_t id);

/* misses */
struct err *misses_create(struct miss_table **ret) MUST_USE;
void misses_destroy(struct miss_table *table);
bool misses_pending(struct store *store);
/** A command that writes what was noted. */
struct err *misses_flush(struct txn *txn, void *arg);
struct err *misses_known(struct txn *txn, const struct key *id) MUST_USE;

/* uploads and blobs */
struct err *blobs_open(struct store *store) MUST_USE;
void blob_path(const struct sha256 *id, char path[static 96]);
struct err *blob_has(struct txn *txn, const struct sha256 *id, bool *found_ret) MUST_USE;

/* Keeping a file as an original: compressed under a temporary name, then committed. blob.c */
struct blob_keep {
	struct blob_record record;
	char temporary[96];
};
struct err *blob_compress(struct store *store, int fd, uint64_t size, struct blob_keep *keep) MUST_USE;
/** Under blob_mutex: puts the record into a transaction and evicts; @p evicted has room for EVICT_MAX. */
enum { EVICT_MAX = 256 };
struct evicted {
	size_t count;
	struct sha256 ids[EVICT_MAX];
};
struct err *blob_insert(struct txn *txn, const struct blob_record *record, struct evicted *evicted) MUST_USE;
/** Runs @p run, which calls blob_insert, with the file in place; removes what was evicted. */
struct err *blob_commit(struct store *store, struct blob_keep *keep, command_fn *run, void *arg, struct evicted *evicted) MUST_USE;
/** Reads a kept original whole and compares its SHA-256. ERR_CORRUPT; ERR_NOT_FOUND: the file is gone. */
struct err *blob_verify(struct store *store, const struct store_blob *blob) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * An LMDB environment under a data directory, its generations, and transactions on them. There are two of them, alike but for
 * their databases: `symbols`, and `profiles` (lock file profiles.lock), which has one generation for ever.
 *
 *   <data_dir>/lock            flock: one daemon a data directory
 *   <data_dir>/symbols         symbolic link to the present generation
 *   <data_dir>/symbols.<n>/    data.mdb and lock.mdb of a generation
 *
 * DB_META holds "schema" u32, "node" 16 random bytes, "totals" (tables u64, bytes u64), "job" u64 (the last job ID); all
 * little-endian.
 *
 * A generation has a folder of its own because LMDB's lock file remembers a transaction number that does not fit another
 * data file. compact.c makes new ones.
 *
 * Failure. When a commit fails (fsync, full disk), the kernel may have dropped the pages it could not write and
 * call them clean, so nothing in memory is to be trusted: the writer refuses everything until env_reopen closed the
 * generation (new reads wait for that, a batch long) and opened it again from its last durable state. LMDB
 * writes its meta page only after the data was synced, so that state is whole.
 *
 * Threads: generation, its read count and its idle reads belong to store->mutex. LMDB must not open one file twice in
 * a process (closing one drops the POSIX locks of both), hence the draining.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>

enum { DRAIN_SECONDS = 10, OPEN_RETRIES = 20 };

const char *const db_names[DB_COUNT] = {
	[DB_META] = "meta",
	[DB_FILES] = "files",
	[DB_ALIASES] = "aliases",
	[DB_SYMBOLS] = "symbols",
	[DB_TABLES] = "tables",
	[DB_REFS] = "refs",
	[DB_JOBS] = "jobs",
	[DB_JOBS_STATE] = "jobs_state",
	[DB_JOBS_ABOUT] = "jobs_about",
	[DB_MISSES] = "misses",
	[DB_MISSES_AGE] = "misses_age",
	[DB_UPLOADS] = "uploads",
	[DB_BLOBS] = "blobs",
	[DB_BLOB_USES] = "blob_uses",
	[DB_BLOB_IDS] = "blob_ids",
	[DB_PARTITIONS] = "partitions",
	[DB_BLOCKS] = "blocks",
	[DB_SEEN] = "seen",
	[DB_INSTANCES] = "instances",
	[DB_SENDERS] = "senders",
};

const struct environment environment_symbols = {
	.name = "symbols", .lock = "lock", .first = DB_FILES, .end = DB_SYMBOLS_END, .compacts = true};
const struct environment environment_profiles = {
	.name = "profiles", .lock = "profiles.lock", .first = DB_PARTITIONS, .end = DB_COUNT};

static enum err_code code_of(int rc)
{
	switch (rc) {
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_VERSION_MISMATCH:
		return ERR_CORRUPT;
	case MDB_MAP_FULL:
	case MDB_READERS_FULL:
	case MDB_TXN_FULL:
		return ERR_LIMIT;
	case MDB_PANIC:
		return ERR_BUSY;
	default:
		return ERR_INTERNAL;
	}
}

struct err *err_from_lmdb(int rc, const char *format, ...)
{
	char text[256];
	va_list args;

	if (!rc)
		return NULL;
	if (rc == ENOMEM)
		return err_nomem();
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return rc > 0 ? err_os(rc, "%s", text) : err_new(code_of(rc), "%s: %s", text, mdb_strerror(rc));
}

uint64_t store_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* -------------------------------------------------------------------------------------- keys */

struct key key_of_file(uint32_t tenant, const struct fileid *id)
{
	struct key key = {0};

	key_put_uint(&key, tenant, 4);
	key_put(&key, id->bytes, FILEID_BYTES);
	return key;
}

struct key key_of_aliases(uint32_t tenant, const struct build_id *build_id)
{
	struct key key = {0};

	key_put_uint(&key, tenant, 4);
	key_put_uint(&key, build_id->len, 1);
	key_put(&key, build_id->bytes, build_id->len);
	return key;
}

struct key key_of_id(uint32_t tenant, const struct build_id *build_id, const struct fileid *file_id)
{
	struct key key = {0};

	key_put_uint(&key, tenant, 4);
	if (build_id && build_id->len > 0) {
		key_put(&key, "B", 1);
		key_put_uint(&key, build_id->len, 1);
		key_put(&key, build_id->bytes, build_id->len);
	} else {
		key_put(&key, "F", 1);
		key_put(&key, file_id->bytes, FILEID_BYTES);
	}
	return key;
}

struct key key_of_u64(uint64_t value)
{
	struct key key = {0};

	key_put_uint(&key, value, 8);
	return key;
}

void key_format(enum db db, const void *key, size_t len, char *text, size_t size)
{
	int at = snprintf(text, size, "%s key ", db_names[db]);

	for (size_t i = 0; i < len && at > 0 && (size_t)at + 3 < size; i++)
		at += snprintf(text + at, size - (size_t)at, "%02x", ((const uint8_t *)key)[i]);
}

/* -------------------------------------------------------------------------------------- transactions */

struct err *txn_begin_write(struct store *store, struct txn *ret)
{
	struct generation *generation = store->generation;

	if (!generation)
		return err_new(ERR_BUSY, "the store is not open");
	*ret = (struct txn){.store = store, .generation = generation};
	return err_from_lmdb(mdb_txn_begin(generation->env, NULL, 0, &ret->txn), "begin a transaction");
}

struct err *txn_commit(struct txn *txn)
{
	MDB_txn *handle = TAKE_PTR(txn->txn);

	return err_from_lmdb(mdb_txn_commit(handle), "commit");
}

void txn_abort(struct txn *txn)
{
	if (txn->txn)
		mdb_txn_abort(TAKE_PTR(txn->txn));
}

static MDB_val val_of(const void *bytes, size_t len)
{
	return (MDB_val){.mv_size = len, .mv_data = (void *)(uintptr_t)bytes};
}

struct err *txn_get(struct txn *txn, enum db db, const void *key, size_t key_len, MDB_val *ret, bool *found_ret)
{
	MDB_val k = val_of(key, key_len), v;
	int rc = mdb_get(txn->txn, txn->generation->dbi[db], &k, &v);

	*found_ret = rc == 0;
	if (rc == MDB_NOTFOUND)
		return NULL;
	if (rc)
		return err_from_lmdb(rc, "read %s", db_names[db]);
	*ret = v;
	return NULL;
}

struct err *txn_has(struct txn *txn, enum db db, const void *key, size_t key_len, bool *found_ret)
{
	MDB_val ignored;

	return txn_get(txn, db, key, key_len, &ignored, found_ret);
}

struct err *txn_put(struct txn *txn, enum db db, const void *key, size_t key_len, const void *value, size_t value_len)
{
	MDB_val k = val_of(key, key_len), v = val_of(value, value_len);

	txn->dirty = true;
	compaction_note(txn->store, db, key, key_len, value_len);
	return err_from_lmdb(mdb_put(txn->txn, txn->generation->dbi[db], &k, &v, 0), "write %s", db_names[db]);
}

struct err *txn_delete(struct txn *txn, enum db db, const void *key, size_t key_len)
{
	MDB_val k = val_of(key, key_len);

	txn->dirty = true;
	compaction_note(txn->store, db, key, key_len, 0);
	int rc = mdb_del(txn->txn, txn->generation->dbi[db], &k, NULL);
	return rc == MDB_NOTFOUND ? NULL : err_from_lmdb(rc, "delete from %s", db_names[db]);
}

struct err *txn_count(struct txn *txn, enum db db, uint64_t *ret)
{
	MDB_stat stat;

	TRY(err_from_lmdb(mdb_stat(txn->txn, txn->generation->dbi[db], &stat), "stat %s", db_names[db]));
	*ret = stat.ms_entries;
	return NULL;
}

/* -------------------------------------------------------------------------------------- scans */

struct err *scan_begin(struct txn *txn, enum db db, const void *prefix, size_t prefix_len, struct scan *ret)
{
	*ret = (struct scan){.txn = txn, .db = db};
	if (prefix_len > 0)
		key_put(&ret->prefix, prefix, prefix_len);
	return err_from_lmdb(mdb_cursor_open(txn->txn, txn->generation->dbi[db], &ret->cursor), "walk %s", db_names[db]);
}

/* Backwards from the greatest key with the prefix: the one before the first key past all of them. */
static int seek_last(struct scan *scan)
{
	struct key past = scan->prefix;

	while (past.len > 0 && past.bytes[past.len - 1] == 0xff)
		past.len--;
	if (past.len == 0)
		return mdb_cursor_get(scan->cursor, &scan->key, &scan->value, MDB_LAST);
	past.bytes[past.len - 1]++;
	scan->key = val_of(past.bytes, past.len);
	int rc = mdb_cursor_get(scan->cursor, &scan->key, &scan->value, MDB_SET_RANGE);
	return mdb_cursor_get(scan->cursor, &scan->key, &scan->value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
}

static int seek_first(struct scan *scan)
{
	const struct key *from = scan->from.len > 0 ? &scan->from : &scan->prefix;

	if (from->len == 0)
		return mdb_cursor_get(scan->cursor, &scan->key, &scan->value, MDB_FIRST);
	scan->key = val_of(from->bytes, from->len);
	return mdb_cursor_get(scan->cursor, &scan->key, &scan->value, MDB_SET_RANGE);
}

struct err *scan_next(struct scan *scan, bool *found_ret)
{
	int rc;

	*found_ret = false;
	if (!scan->started)
		rc = scan->backwards ? seek_last(scan) : seek_first(scan);
	else
		rc = mdb_cursor_get(scan->cursor, &scan->key, &scan->value, scan->backwards ? MDB_PREV : MDB_NEXT);
	scan->started = true;
	if (rc == MDB_NOTFOUND)
		return NULL;
	if (rc)
		return err_from_lmdb(rc, "walk %s", db_names[scan->db]);
	*found_ret = scan->key.mv_size >= scan->prefix.len &&
		memcmp(scan->key.mv_data, scan->prefix.bytes, scan->prefix.len) == 0;
	return NULL;
}

struct err *scan_delete(struct scan *scan)
{
	scan->txn->dirty = true;
	compaction_note(scan->txn->store, scan->db, scan->key.mv_data, scan->key.mv_size, 0);
	return err_from_lmdb(mdb_cursor_del(scan->cursor, 0), "delete from %s", db_names[scan->db]);
}

void scan_end(struct scan *scan)
{
	if (scan->cursor)
		mdb_cursor_close(TAKE_PTR(scan->cursor));
}

struct err *scan_any(struct txn *txn, enum db db, const void *prefix, size_t prefix_len, bool *found_ret)
{
	CLEANUP(scan_end) struct scan scan = {0};

	TRY(scan_begin(txn, db, prefix, prefix_len, &scan));
	return scan_next(&scan, found_ret);
}

/* -------------------------------------------------------------------------------------- generations */

void generation_close(struct generation *generation)
{
	if (!generation)
		return;
	while (generation->idle) {
		struct store_read *read = generation->idle;
		generation->idle = read->next;
		mdb_txn_abort(read->txn.txn);
		free(read);
	}
	if (generation->env)
		mdb_env_close(generation->env);
	free(generation->path);
	free(generation);
}

static void generation_closep(struct generation **generation)
{
	generation_close(*generation);
}

static struct err *open_databases(struct generation *generation, const struct environment *environment, bool read_only)
{
	MDB_txn *txn;

	TRY(err_from_lmdb(mdb_txn_begin(generation->env, NULL, read_only ? MDB_RDONLY : 0, &txn), "begin a transaction"));
	for (enum db db = 0; db < DB_COUNT; db++) {
		if (!environment_has(environment, db))
			continue;
		int rc = mdb_dbi_open(txn, db_names[db], read_only ? 0 : MDB_CREATE, &generation->dbi[db]);
		if (rc) {
			mdb_txn_abort(txn);
			return err_from_lmdb(rc, "database %s", db_names[db]);
		}
	}
	return err_from_lmdb(mdb_txn_commit(txn), "create databases");
}

struct err *generation_open(struct store *store, const char *path, struct generation **ret)
{
	CLEANUP(generation_closep) struct generation *generation = calloc(1, sizeof(*generation));

	if (!generation || !(generation->path = strdup(path)))
		return err_nomem();
	TRY(err_from_lmdb(mdb_env_create(&generation->env), "create an environment"));
	TRY(err_from_lmdb(mdb_env_set_maxdbs(generation->env, DB_COUNT), "set the number of databases"));
	TRY(err_from_lmdb(mdb_env_set_maxreaders(generation->env, store->options.readers_max), "set the number of readers"));
	TRY(err_from_lmdb(mdb_env_set_mapsize(generation->env, store->options.map_max), "set the map's size"));
	unsigned flags = MDB_NOTLS | (store->options.read_only ? (unsigned)MDB_RDONLY : 0);
	int rc = mdb_env_open(generation->env, path, flags, 0640);
	if (rc)
		return err_from_lmdb(rc, "%s", path);
	int dead;
	(void)mdb_reader_check(generation->env, &dead); /* slots of processes that were killed */
	TRY(err_wrap(open_databases(generation, store->environment, store->options.read_only), "%s", path));
	*ret = TAKE_PTR(generation);
	return NULL;
}

/* "<environment>.<number>", the name of a generation's folder; *end_ret is where the number ends. */
static bool folder_number(const struct store *store, const char *name, uint64_t *ret, const char **end_ret)
{
	size_t len = strlen(store->environment->name);
	char *end;

	if (strncmp(name, store->environment->name, len) != 0 || name[len] != '.' || name[len + 1] < '0' || name[len + 1] > '9')
		return false;
	*ret = strtoull(name + len + 1, &end, 10);
	*end_ret = end;
	return true;
}

/* The folder that the link names, as a number; false when there is no link. */
bool link_number(const struct store *store, uint64_t *ret)
{
	char target[64];
	const char *end;
	ssize_t len = readlinkat(store->dir_fd, store->environment->name, target, sizeof(target) - 1);

	if (len <= 0)
		return false;
	target[len] = 0;
	return folder_number(store, target, ret, &end);
}

struct err *link_set(struct store *store, uint64_t number)
{
	const char *name = store->environment->name;
	char target[64], link[64];

	(void)snprintf(target, sizeof(target), "%s.%" PRIu64, name, number);
	(void)snprintf(link, sizeof(link), "%s.link", name);
	if (unlinkat(store->dir_fd, link, 0) && errno != ENOENT)
		return err_os(errno, "%s/%s", store->data_dir, link);
	if (symlinkat(target, store->dir_fd, link) || renameat(store->dir_fd, link, store->dir_fd, name))
		return err_os(errno, "%s/%s", store->data_dir, name);
	if (fsync(store->dir_fd))
		return err_os(errno, "%s: fsync", store->data_dir);
	return NULL;
}

char *generation_path(const struct store *store, uint64_t number)
{
	char *path;

	return asprintf(&path, "%s/%s.%" PRIu64, store->data_dir, store->environment->name, number) < 0 ? NULL : path;
}

void folder_remove(const char *path)
{
	char *file;

	for (int i = 0; i < 2; i++) {
		if (asprintf(&file, "%s/%s", path, i ? "lock.mdb" : "data.mdb") < 0)
			return;
		(void)unlink(file);
		free(file);
	}
	(void)rmdir(path);
}

/* What a crash in the middle of a compaction left behind. */
static void remove_strays(struct store *store, uint64_t present)
{
	int fd = openat(store->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!dir) {
		closep(&fd);
		return;
	}
	for (struct dirent *entry; (entry = readdir(dir));) {
		uint64_t number;
		const char *end;
		if (!folder_number(store, entry->d_name, &number, &end) || *end || number == present)
			continue;
		CLEANUP(freep) char *path = generation_path(store, number);
		if (path)
			folder_remove(path);
	}
	(void)closedir(dir);
}

static struct err *open_read_only(struct store *store)
{
	/* The daemon may compact between our look at the link and our open. */
	for (int i = 0;; i++) {
		uint64_t number;
		if (!link_number(store, &number))
			return err_new(ERR_NOT_FOUND, "%s: there is no store", store->data_dir);
		CLEANUP(freep) char *path = generation_path(store, number);
		if (!path)
			return err_nomem();
		struct err *e = generation_open(store, path, &store->generation);
		if (!e || i >= OPEN_RETRIES || err_errno(e) != ENOENT)
			return e;
		err_free(e);
		(void)usleep(10000);
	}
}

struct err *env_open(struct store *store)
{
	uint64_t number = 1;

	if (store->options.read_only)
		return open_read_only(store);
	bool exists = link_number(store, &number);
	CLEANUP(freep) char *path = generation_path(store, number);
	if (!path)
		return err_nomem();
	if (mkdir(path, 0750) && errno != EEXIST)
		return err_os(errno, "%s", path);
	if (exists)
		remove_strays(store, number);
	TRY(generation_open(store, path, &store->generation));
	if (exists)
		return NULL;
	/* The files must be found after a power cut before the link is. */
	CLEANUP(closep) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fsync(dir))
		return err_os(errno, "%s: fsync", path);
	return link_set(store, number);
}

bool env_is_replaced(const struct store *store)
{
	uint64_t number;
	CLEANUP(freep) char *path = link_number(store, &number) ? generation_path(store, number) : NULL;

	return path && strcmp(path, store->generation->path) != 0;
}

void env_close(struct store *store)
{
	generation_close(TAKE_PTR(store->generation));
}

/* With store->mutex held: waits until nobody reads. */
static struct err *drain(struct store *store)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += DRAIN_SECONDS;
	store->draining = true;
	while (store->generation && store->generation->reads > 0)
		if (pthread_cond_timedwait(&store->changed, &store->mutex, &until) == ETIMEDOUT)
			return err_new(ERR_BUSY, "%u reads are held, so that the store cannot be opened again",
				store->generation->reads);
	return NULL;
}

struct err *env_reopen(struct store *store)
{
	struct err *e;

	(void)pthread_mutex_lock(&store->mutex);
	e = drain(store);
	if (!e) {
		uint64_t number;
		generation_close(TAKE_PTR(store->generation));
		CLEANUP(freep) char *path = link_number(store, &number) ? generation_path(store, number) : NULL;
		e = path ? generation_open(store, path, &store->generation) :
			   err_new(ERR_CORRUPT, "%s/%s does not name a generation", store->data_dir, store->environment->name);
		/* A link that was moved but not synced: nothing is acknowledged until it is. */
		if (!e)
			e = link_set(store, number);
		if (e)
			generation_close(TAKE_PTR(store->generation));
	}
	store->draining = false;
	(void)pthread_cond_broadcast(&store->changed);
	(void)pthread_mutex_unlock(&store->mutex);
	return e;
}

uint64_t env_file_bytes(const struct generation *generation)
{
	MDB_envinfo info;
	MDB_stat stat;

	if (!generation || mdb_env_info(generation->env, &info) || mdb_env_stat(generation->env, &stat))
		return 0;
	return (uint64_t)(info.me_last_pgno + 1) * stat.ms_psize;
}

static void generation_retire(struct generation *generation)
{
	CLEANUP(freep) char *path = strdup(generation->path);

	generation_close(generation);
	if (path)
		folder_remove(path);
}

void env_switch(struct store *store, struct generation *next)
{
	(void)pthread_mutex_lock(&store->mutex);
	struct generation *old = store->generation;
	store->generation = next;
	old->stale = true;
	bool unread = old->reads == 0;
	(void)pthread_mutex_unlock(&store->mutex);
	if (unread)
		generation_retire(old);
}

/* -------------------------------------------------------------------------------------- reads */

/* With store->mutex held. */
static struct err *read_new(struct store *store, struct store_read **ret)
{
	struct generation *generation = store->generation;
	struct store_read *read = generation->idle;

	if (read) {
		generation->idle = read->next;
		int rc = mdb_txn_renew(read->txn.txn);
		if (rc) {
			mdb_txn_abort(read->txn.txn);
			free(read);
			return err_from_lmdb(rc, "begin a read");
		}
		*ret = read;
		return NULL;
	}
	read = calloc(1, sizeof(*read));
	if (!read)
		return err_nomem();
	read->txn.store = store;
	read->txn.generation = generation;
	int rc = mdb_txn_begin(generation->env, NULL, MDB_RDONLY, &read->txn.txn);
	if (rc) {
		free(read);
		return err_from_lmdb(rc, "begin a read");
	}
	*ret = read;
	return NULL;
}

struct err *store_read_begin(struct store *store, struct store_read **ret)
{
	struct timespec until;
	struct err *e = NULL;

	(void)pthread_mutex_lock(&store->mutex);
	if (store->draining) {
		(void)clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += DRAIN_SECONDS;
		while (store->draining && pthread_cond_timedwait(&store->changed, &store->mutex, &until) != ETIMEDOUT)
			;
	}
	if (store->draining || !store->generation)
		e = err_new(ERR_BUSY, "the store is being opened again after a failed write");
	else
		e = read_new(store, ret);
	if (!e)
		store->generation->reads++;
	(void)pthread_mutex_unlock(&store->mutex);
	return e;
}

void store_read_end(struct store_read *read)
{
	if (!read)
		return;
	struct store *store = read->txn.store;
	struct generation *generation = read->txn.generation;
	mdb_txn_reset(read->txn.txn);
	(void)pthread_mutex_lock(&store->mutex);
	read->next = generation->idle;
	generation->idle = read;
	bool last = --generation->reads == 0;
	bool retire = last && generation->stale;
	if (last)
		(void)pthread_cond_broadcast(&store->changed);
	(void)pthread_mutex_unlock(&store->mutex);
	if (retire)
		generation_retire(generation);
}

void store_read_endp(struct store_read **read)
{
	store_read_end(*read);
}

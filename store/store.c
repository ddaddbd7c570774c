// SPDX-License-Identifier: Apache-2.0
/* Opening and closing a store; its options and what was decided at its creation. */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#if defined(__SANITIZE_THREAD__)
#define MAP_MAX_DEFAULT (64ull << 30) /* TSan's shadow leaves no room for 1 TiB */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MAP_MAX_DEFAULT (64ull << 30)
#endif
#endif
#ifndef MAP_MAX_DEFAULT
#define MAP_MAX_DEFAULT (1ull << 40)
#endif

enum { MAP_MIN = 1 << 20 };

static void options_fill(struct store_options *o)
{
	if (!o->map_max)
		o->map_max = MAP_MAX_DEFAULT;
	if (o->map_max < MAP_MIN)
		o->map_max = MAP_MIN;
	/* LMDB wants whole pages. */
	o->map_max &= ~(uint64_t)0xffff;
	if (!o->max_table_bytes)
		o->max_table_bytes = 1ull << 30;
	/* LMDB's values end at 4 GiB. */
	if (o->max_table_bytes > UINT32_MAX)
		o->max_table_bytes = UINT32_MAX;
	if (!o->max_upload_bytes)
		o->max_upload_bytes = 4ull << 30;
	if (!o->blob_quota_bytes)
		o->blob_quota_bytes = 20ull << 30;
	if (!o->upload_expiry_s)
		o->upload_expiry_s = 86400;
	if (!o->job_attempts_max)
		o->job_attempts_max = 3;
	if (!o->jobs_kept)
		o->jobs_kept = 100000;
	if (!o->misses_max)
		o->misses_max = 100000;
	if (!o->readers_max)
		o->readers_max = 1024;
	if (!o->compact_floor_bytes)
		o->compact_floor_bytes = 16u << 20;
}

const struct store_options *store_limits(const struct store *store)
{
	return &store->options;
}

void store_node_id(const struct store *store, uint8_t ret[STORE_NODE_ID_BYTES])
{
	memcpy(ret, store->node_id, STORE_NODE_ID_BYTES);
}

static struct err *lock_take(struct store *store)
{
	const char *name = store->environment->lock;

	store->lock_fd = openat(store->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (store->lock_fd < 0)
		return err_os(errno, "%s/%s", store->data_dir, name);
	if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return NULL;
	if (errno == EWOULDBLOCK)
		return err_new(ERR_BUSY, "%s: another process has this data directory", store->data_dir);
	return err_os(errno, "%s/%s", store->data_dir, name);
}

static struct err *folder_open(struct store *store)
{
	if (!store->options.read_only && mkdir(store->data_dir, 0750) && errno != EEXIST)
		return err_os(errno, "%s", store->data_dir);
	store->dir_fd = open(store->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir_fd < 0)
		return err_os(errno, "%s", store->data_dir);
	return store->options.read_only ? NULL : lock_take(store);
}

/* -------------------------------------------------------------------------------------- schema */

static struct err *schema_read(struct store *store, struct txn *txn, bool *found_ret)
{
	MDB_val value;
	bool found;

	TRY(txn_get(txn, DB_META, "schema", 6, &value, found_ret));
	if (!*found_ret)
		return NULL;
	struct reader r = reader_init(value.mv_data, value.mv_size, false, "schema");
	store->schema_version = reader_u32(&r);
	TRY(decode_end(&r, DB_META, "schema", 6));
	if (store->schema_version > STORE_SCHEMA_VERSION)
		return err_new(ERR_UNSUPPORTED, "%s was written by a newer version: schema %u, this one knows up to %d",
			store->data_dir, store->schema_version, STORE_SCHEMA_VERSION);
	if (store->schema_version == 0)
		return corrupt(DB_META, "schema", 6, "schema 0");
	TRY(txn_get(txn, DB_META, "node", 4, &value, &found));
	if (!found || value.mv_size != STORE_NODE_ID_BYTES)
		return corrupt(DB_META, "node", 4, "no node ID");
	memcpy(store->node_id, value.mv_data, STORE_NODE_ID_BYTES);
	return NULL;
}

static struct err *schema_create(struct store *store, struct txn *txn)
{
	uint8_t bytes[4];
	struct encoder e = {.bytes = bytes, .cap = sizeof(bytes)};

	if (getrandom(store->node_id, STORE_NODE_ID_BYTES, 0) != STORE_NODE_ID_BYTES)
		return err_os(errno, "random bytes");
	store->schema_version = STORE_SCHEMA_VERSION;
	encode_uint(&e, STORE_SCHEMA_VERSION, 4);
	TRY(txn_put(txn, DB_META, "schema", 6, bytes, sizeof(bytes)));
	return txn_put(txn, DB_META, "node", 4, store->node_id, STORE_NODE_ID_BYTES);
}

static struct err *schema_open(struct store *store)
{
	struct txn txn;
	struct table_totals totals = {0};
	bool found;

	if (store->options.read_only) {
		CLEANUP(store_read_endp) struct store_read *read = NULL;
		TRY(store_read_begin(store, &read));
		TRY(schema_read(store, &read->txn, &found));
		return found ? NULL : err_new(ERR_NOT_FOUND, "%s: the store is empty", store->data_dir);
	}
	TRY(txn_begin_write(store, &txn));
	struct err *e = schema_read(store, &txn, &found);
	if (!e && !found)
		e = schema_create(store, &txn);
	if (!e && store->environment == &environment_symbols)
		e = tables_totals(&txn, &totals);
	if (e) {
		txn_abort(&txn);
		return e;
	}
	store->live_bytes = totals.bytes;
	return txn_commit(&txn);
}

/* -------------------------------------------------------------------------------------- open and close */

static struct err *store_create(const struct store_options *options, struct store **ret)
{
	CLEANUP(store_closep) struct store *store = calloc(1, sizeof(*store));
	pthread_condattr_t attributes;

	if (!store)
		return err_nomem();
	store->dir_fd = store->lock_fd = store->job_fd = -1;
	(void)pthread_mutex_init(&store->mutex, NULL);
	(void)pthread_mutex_init(&store->queue_mutex, NULL);
	(void)pthread_mutex_init(&store->progress_mutex, NULL);
	(void)pthread_mutex_init(&store->sessions_mutex, NULL);
	(void)pthread_mutex_init(&store->blob_mutex, NULL);
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&store->changed, &attributes);
	(void)pthread_cond_init(&store->queue_wake, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	store->options = *options;
	options_fill(&store->options);
	store->data_dir = strdup(options->data_dir);
	if (!store->data_dir)
		return err_nomem();
	store->options.data_dir = store->data_dir;
	store->job_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (store->job_fd < 0)
		return err_os(errno, "eventfd");
	*ret = TAKE_PTR(store);
	return NULL;
}

struct err *store_open_environment(const struct environment *environment, const struct store_options *options,
	const struct store_profiles_hooks *hooks, struct store **ret)
{
	CLEANUP(store_closep) struct store *store = NULL;
	bool symbols = environment == &environment_symbols;

	TRY(store_create(options, &store));
	store->environment = environment;
	if (hooks)
		store->hooks = *hooks;
	TRY(folder_open(store));
	TRY(env_open(store));
	TRY(schema_open(store));
	if (!store->options.read_only) {
		if (symbols)
			TRY(misses_create(&store->misses));
		if (symbols)
			TRY(blobs_open(store));
		TRY(writer_start(store));
		if (symbols)
			TRY(jobs_resume(store));
	}
	*ret = TAKE_PTR(store);
	return NULL;
}

struct err *store_open(const struct store_options *options, struct store **ret)
{
	return store_open_environment(&environment_symbols, options, NULL, ret);
}

void store_close(struct store *store)
{
	if (!store)
		return;
	writer_stop(store);
	env_close(store);
	jobs_deinit(store);
	misses_destroy(store->misses);
	closep(&store->job_fd);
	closep(&store->lock_fd);
	closep(&store->dir_fd);
	(void)pthread_cond_destroy(&store->queue_wake);
	(void)pthread_cond_destroy(&store->changed);
	(void)pthread_mutex_destroy(&store->blob_mutex);
	(void)pthread_mutex_destroy(&store->sessions_mutex);
	(void)pthread_mutex_destroy(&store->progress_mutex);
	(void)pthread_mutex_destroy(&store->queue_mutex);
	(void)pthread_mutex_destroy(&store->mutex);
	free(store->data_dir);
	free(store);
}

void store_closep(struct store **store)
{
	store_close(*store);
}

/* -------------------------------------------------------------------------------------- gc */

static struct err *gc_run(struct txn *txn, void *arg)
{
	return tables_gc(txn, arg);
}

struct err *store_gc(struct store *store, uint64_t *tables_removed_ret)
{
	uint64_t dropped;

	TRY(writer_run(store, gc_run, tables_removed_ret, 0));
	TRY(store_upload_expire(store, &dropped));
	return writer_compact(store);
}

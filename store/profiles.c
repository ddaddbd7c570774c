// SPDX-License-Identifier: Apache-2.0
/*
 * The `profiles` environment for callers outside of store/: LMDB's types end here. The machinery is the same as that of
 * `symbols` (env.c, writer.c); what differs is in struct environment and the hooks.
 */
#include "store/internal.h"

/* A store_txn is a txn; the two names keep LMDB's types out of the public header. */
struct store_txn *profiles_txn(struct txn *txn)
{
	return (struct store_txn *)txn;
}

static struct txn *txn_of(struct store_txn *txn)
{
	return (struct txn *)txn;
}

static enum db db_of(enum store_profiles_db db)
{
	return (enum db)(DB_PARTITIONS + (unsigned)db);
}

struct err *store_profiles_open(const struct store_options *options, const struct store_profiles_hooks *hooks, struct store **ret)
{
	return store_open_environment(&environment_profiles, options, hooks, ret);
}

/* -------------------------------------------------------------------------------------- writing */

struct submitted {
	struct command command; /* first: freed with it */
	store_profiles_fn *run;
	void *arg;
	store_done_fn *done;
	void *done_arg;
};

static struct err *submitted_run(struct txn *txn, void *arg)
{
	struct submitted *s = arg;

	/* It changes what lies in memory beside the transaction: a failure spoils both. */
	txn->dirty = true;
	return s->run(profiles_txn(txn), s->arg);
}

static void submitted_done(void *arg, struct err *e)
{
	struct submitted *s = arg;

	s->done(s->done_arg, e);
	free(s);
}

struct err *store_profiles_submit(struct store *store, store_profiles_fn *run, void *arg, store_done_fn *done, void *done_arg)
{
	struct submitted *s = calloc(1, sizeof(*s));

	if (!s)
		return err_nomem();
	*s = (struct submitted){.run = run, .arg = arg, .done = done, .done_arg = done_arg};
	s->command = (struct command){.run = submitted_run, .arg = s, .done = submitted_done, .done_arg = s};
	writer_submit(store, &s->command);
	return NULL;
}

struct err *store_profiles_update(struct store *store, store_profiles_fn *run, void *arg)
{
	struct txn txn;

	TRY(txn_begin_write(store, &txn));
	struct err *e = run(profiles_txn(&txn), arg);
	if (e) {
		txn_abort(&txn);
		return e;
	}
	e = txn_commit(&txn);
	if (e)
		writer_failed(store, e);
	return e;
}

/* -------------------------------------------------------------------------------------- keys and values */

struct store_txn *store_profiles_read(struct store_read *read)
{
	return profiles_txn(&read->txn);
}

struct err *store_profiles_get(struct store_txn *txn, enum store_profiles_db db, const void *key, size_t key_len, struct store_view *ret)
{
	MDB_val value;
	bool found;

	*ret = (struct store_view){0};
	TRY(txn_get(txn_of(txn), db_of(db), key, key_len, &value, &found));
	if (found)
		*ret = (struct store_view){.bytes = value.mv_data, .len = value.mv_size};
	return NULL;
}

struct err *store_profiles_put(struct store_txn *txn, enum store_profiles_db db, const void *key, size_t key_len, const void *value, size_t len)
{
	return txn_put(txn_of(txn), db_of(db), key, key_len, value, len);
}

struct err *store_profiles_delete(struct store_txn *txn, enum store_profiles_db db, const void *key, size_t key_len)
{
	return txn_delete(txn_of(txn), db_of(db), key, key_len);
}

struct store_scan {
	struct scan scan;
};

struct err *store_profiles_scan(struct store_txn *txn, enum store_profiles_db db, const void *prefix, size_t prefix_len, const void *from,
	size_t from_len, struct store_scan **ret)
{
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;

	if (prefix_len > STORE_PROFILES_KEY_MAX || from_len > STORE_PROFILES_KEY_MAX)
		return err_new(ERR_INVALID, "a key of more than %d bytes", STORE_PROFILES_KEY_MAX);
	scan = calloc(1, sizeof(*scan));
	if (!scan)
		return err_nomem();
	TRY(scan_begin(txn_of(txn), db_of(db), prefix, prefix_len, &scan->scan));
	if (from)
		key_put(&scan->scan.from, from, from_len);
	*ret = TAKE_PTR(scan);
	return NULL;
}

struct err *store_profiles_next(struct store_scan *scan, struct store_view *key, struct store_view *value)
{
	bool found;

	*key = *value = (struct store_view){0};
	TRY(scan_next(&scan->scan, &found));
	if (!found)
		return NULL;
	*key = (struct store_view){.bytes = scan->scan.key.mv_data, .len = scan->scan.key.mv_size};
	*value = (struct store_view){.bytes = scan->scan.value.mv_data, .len = scan->scan.value.mv_size};
	return NULL;
}

void store_profiles_scan_end(struct store_scan *scan)
{
	if (scan)
		scan_end(&scan->scan);
	free(scan);
}

void store_profiles_scan_endp(struct store_scan **scan)
{
	store_profiles_scan_end(*scan);
}

struct err *store_profiles_corrupt(enum store_profiles_db db, const void *key, size_t key_len, const char *what)
{
	return corrupt(db_of(db), key, key_len, what);
}

struct err *store_profiles_bytes(struct store_read *read, uint64_t *used_ret, uint64_t *file_ret)
{
	uint64_t pages = 0;
	MDB_stat stat = {0};

	for (enum db db = 0; db < DB_COUNT; db++) {
		if (!environment_has(&environment_profiles, db))
			continue;
		TRY(err_from_lmdb(mdb_stat(read->txn.txn, read->txn.generation->dbi[db], &stat), "stat %s", db_names[db]));
		pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
	}
	*used_ret = pages * stat.ms_psize;
	*file_ret = env_file_bytes(read->txn.generation);
	return NULL;
}

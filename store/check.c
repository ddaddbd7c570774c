// SPDX-License-Identifier: Apache-2.0
/*
 * `cairn store check` and `cairn store stat`.
 *
 * The check has two passes. Records: one snapshot, every record decoded, every reference followed both ways (an entry
 * names a table and is in its references; a reference's set names the table; a job is in the index of its state; an alias leads to a
 * file record, ...). Bytes: one table at a time, each in a snapshot of its own, so that a check beside a
 * running daemon does not keep pages from being reused for as long as it takes to hash everything; then the originals.
 */
#include "store/internal.h"

#include <inttypes.h>

struct check {
	struct store *store;
	const struct store_verifier *verifier;
	const struct store_check_report *report;
	struct store_counts counts;
	bool quick; /* count entries only: store_stat */
};

static void fault_text(struct check *check, const char *text)
{
	check->counts.faults++;
	if (check->report && check->report->fault)
		check->report->fault(check->report->context, text);
}

static void fault(struct check *check, enum db db, const MDB_val *key, const char *what)
{
	char place[96], text[256];

	key_format(db, key->mv_data, key->mv_size, place, sizeof(place));
	(void)snprintf(text, sizeof(text), "%s: %s", place, what);
	fault_text(check, text);
}

/* Damage becomes a fault; anything else ends the walk. Consumes e. */
static struct err *absorb(struct check *check, struct err *e)
{
	if (!e || err_code(e) != ERR_CORRUPT)
		return e;
	fault_text(check, err_message(e));
	err_free(e);
	return NULL;
}

/* Something that must be there: else a fault at @p key. */
static struct err *expect(struct check *check, struct txn *txn, enum db db, const struct key *wanted, enum db from,
	const MDB_val *key)
{
	bool found;
	char what[64];

	TRY(txn_has(txn, db, wanted->bytes, wanted->len, &found));
	if (found)
		return NULL;
	(void)snprintf(what, sizeof(what), "has nothing in %s that it needs", db_names[db]);
	fault(check, from, key, what);
	return NULL;
}

static struct key key_from(const MDB_val *val, size_t from, size_t len)
{
	struct key key = {0};

	key_put(&key, (const uint8_t *)val->mv_data + from, len);
	return key;
}

/* -------------------------------------------------------------------------------------- one record each */

typedef struct err *check_fn(struct check *check, struct txn *txn, const struct scan *at);

static struct err *check_file(struct check *check, struct txn *txn, const struct scan *at)
{
	struct store_file file;

	check->counts.files++;
	TRY(file_decode(&at->key, &at->value, &file));
	if (file.build_id.len == 0)
		return NULL;
	struct key alias = key_of_aliases((uint32_t)key_get_uint(at->key.mv_data, 4), &file.build_id);
	key_put(&alias, file.file_id.bytes, FILEID_BYTES);
	return expect(check, txn, DB_ALIASES, &alias, DB_FILES, &at->key);
}

static struct err *check_alias(struct check *check, struct txn *txn, const struct scan *at)
{
	size_t len = at->key.mv_size;

	check->counts.aliases++;
	if (len < 6 + FILEID_BYTES || len != 5u + ((const uint8_t *)at->key.mv_data)[4] + FILEID_BYTES)
		return corrupt(DB_ALIASES, at->key.mv_data, len, "key of a wrong length");
	struct key file = key_from(&at->key, 0, 4);
	key_put(&file, (const uint8_t *)at->key.mv_data + len - FILEID_BYTES, FILEID_BYTES);
	return expect(check, txn, DB_FILES, &file, DB_ALIASES, &at->key);
}

static struct err *check_symbols(struct check *check, struct txn *txn, const struct scan *at)
{
	struct entry_set set;

	check->counts.symbols++;
	TRY(set_decode(&at->key, &at->value, &set));
	check->counts.entries += set.count;
	if (check->quick)
		return NULL;
	if (at->key.mv_size > KEY_MAX - SHA256_BYTES)
		return corrupt(DB_SYMBOLS, at->key.mv_data, at->key.mv_size, "key of a wrong length");
	for (size_t i = 0; i < set.count; i++) {
		struct key key = {0};
		key_put(&key, set.items[i].table.bytes, SHA256_BYTES);
		TRY(expect(check, txn, DB_TABLES, &key, DB_SYMBOLS, &at->key));
		key_put(&key, at->key.mv_data, at->key.mv_size);
		TRY(expect(check, txn, DB_REFS, &key, DB_SYMBOLS, &at->key));
	}
	return NULL;
}

static struct err *check_table(struct check *check, struct txn *txn, const struct scan *at)
{
	bool named;

	check->counts.tables++;
	check->counts.table_bytes += at->value.mv_size;
	check->counts.table_stored_bytes += (at->value.mv_size + 16 + 4095) / 4096 * 4096;
	if (at->key.mv_size != SHA256_BYTES)
		return corrupt(DB_TABLES, at->key.mv_data, at->key.mv_size, "key of a wrong length");
	TRY(scan_any(txn, DB_REFS, at->key.mv_data, at->key.mv_size, &named));
	if (!named)
		fault(check, DB_TABLES, &at->key, "no entry names this table");
	return NULL;
}

static struct err *check_ref(struct check *check, struct txn *txn, const struct scan *at)
{
	struct entry_set set;
	MDB_val value, key;
	bool found;

	check->counts.table_refs++;
	if (at->key.mv_size <= SHA256_BYTES || at->key.mv_size > KEY_MAX)
		return corrupt(DB_REFS, at->key.mv_data, at->key.mv_size, "key of a wrong length");
	struct key id = key_from(&at->key, SHA256_BYTES, at->key.mv_size - SHA256_BYTES);
	TRY(txn_get(txn, DB_SYMBOLS, id.bytes, id.len, &value, &found));
	key = (MDB_val){.mv_size = id.len, .mv_data = id.bytes};
	if (found)
		TRY(set_decode(&key, &value, &set));
	for (size_t i = 0; found && i < set.count; i++)
		if (memcmp(set.items[i].table.bytes, at->key.mv_data, SHA256_BYTES) == 0)
			return NULL;
	fault(check, DB_REFS, &at->key, "the entries that it stands for do not name this table");
	return NULL;
}

static struct err *check_job(struct check *check, struct txn *txn, const struct scan *at)
{
	struct store_job job;
	struct key key = {0};

	check->counts.jobs++;
	TRY(job_decode(&at->key, &at->value, &job));
	key_put_uint(&key, job.state, 1);
	key_put_uint(&key, job.id, 8);
	TRY(expect(check, txn, DB_JOBS_STATE, &key, DB_JOBS, &at->key));
	if (job.build_id.len > 0) {
		key = key_of_id(job.tenant, &job.build_id, NULL);
		key_put_uint(&key, job.id, 8);
		TRY(expect(check, txn, DB_JOBS_ABOUT, &key, DB_JOBS, &at->key));
	}
	if (job.has_file_id) {
		key = key_of_id(job.tenant, NULL, &job.file_id);
		key_put_uint(&key, job.id, 8);
		TRY(expect(check, txn, DB_JOBS_ABOUT, &key, DB_JOBS, &at->key));
	}
	bool open = job.state == STORE_JOB_QUEUED || job.state == STORE_JOB_RUNNING;
	for (size_t i = 0; open && i < job.input_count; i++) {
		key.len = 0;
		key_put(&key, job.inputs[i].blob.bytes, SHA256_BYTES);
		TRY(expect(check, txn, DB_BLOBS, &key, DB_JOBS, &at->key));
		key_put_uint(&key, job.id, 8);
		TRY(expect(check, txn, DB_BLOB_USES, &key, DB_JOBS, &at->key));
	}
	return NULL;
}

/* Index keys that end in a job's number. */
static struct err *check_job_index(struct check *check, struct txn *txn, const struct scan *at)
{
	if (at->key.mv_size < 9)
		return corrupt(at->db, at->key.mv_data, at->key.mv_size, "key of a wrong length");
	struct key job = key_from(&at->key, at->key.mv_size - 8, 8);
	return expect(check, txn, DB_JOBS, &job, at->db, &at->key);
}

static struct err *check_miss(struct check *check, struct txn *txn, const struct scan *at)
{
	struct store_miss miss;
	struct key age = {0};

	check->counts.misses++;
	TRY(miss_decode(&at->key, &at->value, &miss));
	key_put_uint(&age, miss.last_asked_ms, 8);
	key_put(&age, at->key.mv_data, at->key.mv_size);
	return expect(check, txn, DB_MISSES_AGE, &age, DB_MISSES, &at->key);
}

static struct err *check_miss_age(struct check *check, struct txn *txn, const struct scan *at)
{
	if (at->key.mv_size <= 8 || at->key.mv_size > KEY_MAX)
		return corrupt(DB_MISSES_AGE, at->key.mv_data, at->key.mv_size, "key of a wrong length");
	struct key id = key_from(&at->key, 8, at->key.mv_size - 8);
	return expect(check, txn, DB_MISSES, &id, DB_MISSES_AGE, &at->key);
}

static struct err *check_upload(struct check *check, struct txn *txn, const struct scan *at)
{
	struct store_upload upload;

	(void)txn;
	check->counts.uploads++;
	return upload_decode(&at->key, &at->value, &upload);
}

static struct err *check_blob(struct check *check, struct txn *txn, const struct scan *at)
{
	struct blob_record record;

	(void)txn;
	TRY(blob_decode(&at->key, &at->value, &record));
	check->counts.blobs++;
	check->counts.blob_bytes += record.blob.stored_bytes;
	return NULL;
}

static struct err *check_blob_id(struct check *check, struct txn *txn, const struct scan *at)
{
	if (at->value.mv_size != SHA256_BYTES)
		return corrupt(DB_BLOB_IDS, at->key.mv_data, at->key.mv_size, "value of a wrong length");
	struct key blob = key_from(&at->value, 0, SHA256_BYTES);
	return expect(check, txn, DB_BLOBS, &blob, DB_BLOB_IDS, &at->key);
}

static check_fn *const checks[DB_SYMBOLS_END] = {
	[DB_FILES] = check_file,
	[DB_ALIASES] = check_alias,
	[DB_SYMBOLS] = check_symbols,
	[DB_TABLES] = check_table,
	[DB_REFS] = check_ref,
	[DB_JOBS] = check_job,
	[DB_JOBS_STATE] = check_job_index,
	[DB_JOBS_ABOUT] = check_job_index,
	[DB_MISSES] = check_miss,
	[DB_MISSES_AGE] = check_miss_age,
	[DB_UPLOADS] = check_upload,
	[DB_BLOBS] = check_blob,
	[DB_BLOB_USES] = check_job_index,
	[DB_BLOB_IDS] = check_blob_id,
};

static struct err *check_database(struct check *check, struct txn *txn, enum db db)
{
	CLEANUP(scan_end) struct scan scan = {0};

	TRY(scan_begin(txn, db, NULL, 0, &scan));
	for (;;) {
		bool found;
		TRY(scan_next(&scan, &found));
		if (!found)
			return NULL;
		TRY(absorb(check, checks[db](check, txn, &scan)));
	}
}

static struct err *check_records(struct check *check, struct txn *txn)
{
	for (enum db db = 0; db < DB_SYMBOLS_END; db++)
		if (checks[db])
			TRY(check_database(check, txn, db));
	return NULL;
}

static struct err *check_totals(struct check *check, struct txn *txn)
{
	struct table_totals totals;
	char text[128];

	struct err *e = tables_totals(txn, &totals);
	if (e)
		return absorb(check, e);
	if (totals.tables == check->counts.tables && totals.bytes == check->counts.table_bytes)
		return NULL;
	(void)snprintf(text, sizeof(text), "meta key totals: %" PRIu64 " tables of %" PRIu64 " bytes, but there are %" PRIu64 " of %" PRIu64,
		totals.tables, totals.bytes, check->counts.tables, check->counts.table_bytes);
	fault_text(check, text);
	return NULL;
}

/* -------------------------------------------------------------------------------------- bytes */

/* The first key at or after @p from in @p db with its value, in a snapshot of its own. */
static struct err *next_in(struct store *store, enum db db, struct key *from, struct store_read **read, struct scan *scan, bool *found_ret)
{
	TRY(store_read_begin(store, read));
	TRY(scan_begin(&(*read)->txn, db, NULL, 0, scan));
	scan->from = *from;
	TRY(scan_next(scan, found_ret));
	if (!*found_ret || scan->key.mv_size > KEY_MAX - 1)
		return NULL;
	/* The next one begins after this key: this key and a zero byte. */
	from->len = 0;
	key_put(from, scan->key.mv_data, scan->key.mv_size);
	key_put(from, "", 1);
	return NULL;
}

static struct err *check_table_bytes(struct check *check, const struct scan *scan)
{
	struct sha256 id;

	TRY(sha256_of(scan->value.mv_data, scan->value.mv_size, &id));
	if (scan->key.mv_size != SHA256_BYTES || memcmp(id.bytes, scan->key.mv_data, SHA256_BYTES) != 0) {
		fault(check, DB_TABLES, &scan->key, "the bytes do not have this SHA-256");
		return NULL;
	}
	if (!check->verifier || !check->verifier->verify)
		return NULL;
	struct err *e = check->verifier->verify(check->verifier->context, scan->value.mv_data, scan->value.mv_size);
	if (e)
		fault(check, DB_TABLES, &scan->key, err_message(e));
	err_free(e);
	return NULL;
}

static struct err *check_all_tables(struct check *check)
{
	struct key from = {0};

	for (uint64_t done = 0;; done++) {
		CLEANUP(store_read_endp) struct store_read *read = NULL;
		CLEANUP(scan_end) struct scan scan = {0};
		bool found;
		TRY(next_in(check->store, DB_TABLES, &from, &read, &scan, &found));
		if (!found)
			return NULL;
		TRY(check_table_bytes(check, &scan));
		if (check->report && check->report->progress)
			check->report->progress(check->report->context, done + 1, check->counts.tables);
	}
}

static struct err *check_all_blobs(struct check *check)
{
	struct key from = {0};

	for (;;) {
		CLEANUP(store_read_endp) struct store_read *read = NULL;
		CLEANUP(scan_end) struct scan scan = {0};
		struct blob_record record;
		bool found;
		TRY(next_in(check->store, DB_BLOBS, &from, &read, &scan, &found));
		if (!found)
			return NULL;
		struct err *e = blob_decode(&scan.key, &scan.value, &record);
		scan_end(&scan);
		store_read_end(TAKE_PTR(read));
		if (!e)
			e = blob_verify(check->store, &record.blob);
		if (e && err_code(e) == ERR_NOT_FOUND) {
			/* The daemon may have evicted it since, or have compacted, so that the record seen here is the past's. */
			struct store_blob now;
			bool there = false;
			struct err *again = store_read_begin(check->store, &read);
			if (!again)
				again = store_blob_get(read, &record.blob.sha256, &now, &there);
			if (there && !(check->store->options.read_only && env_is_replaced(check->store)))
				fault_text(check, err_message(e));
			err_free(e);
			e = again;
		}
		TRY(absorb(check, e));
	}
}

struct err *store_check(struct store *store, const struct store_verifier *verifier, const struct store_check_report *report,
	struct store_counts *counts_ret)
{
	struct check check = {.store = store, .verifier = verifier, .report = report};

	{
		CLEANUP(store_read_endp) struct store_read *read = NULL;
		TRY(store_read_begin(store, &read));
		TRY(check_records(&check, &read->txn));
		TRY(check_totals(&check, &read->txn));
	}
	TRY(check_all_tables(&check));
	TRY(check_all_blobs(&check));
	*counts_ret = check.counts;
	return NULL;
}

/* -------------------------------------------------------------------------------------- stat */

/* LMDB's free list is its database 0: transaction number -> count and page numbers. */
static struct err *free_pages(struct txn *txn, uint64_t *ret)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	int rc = mdb_cursor_open(txn->txn, 0, &cursor);

	*ret = 0;
	while (!rc && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
		size_t count;
		if (value.mv_size < sizeof(count))
			break;
		memcpy(&count, value.mv_data, sizeof(count));
		*ret += count;
	}
	if (!rc || rc == MDB_NOTFOUND)
		mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? NULL : err_from_lmdb(rc, "walk the free list");
}

static struct err *count_jobs(struct txn *txn, struct store_stat *ret)
{
	CLEANUP(scan_end) struct scan scan = {0};

	TRY(scan_begin(txn, DB_JOBS_STATE, NULL, 0, &scan));
	for (;;) {
		bool found;
		TRY(scan_next(&scan, &found));
		if (!found)
			return NULL;
		uint8_t state = scan.key.mv_size > 0 ? *(const uint8_t *)scan.key.mv_data : 0;
		if (state < ARRAY_SIZE(ret->jobs_by_state))
			ret->jobs_by_state[state]++;
	}
}

/* What LMDB knows by itself, without a walk; entries and originals are walked. */
static struct err *count_all(struct check *check, struct txn *txn)
{
	struct store_counts *counts = &check->counts;
	const struct {
		enum db db;
		uint64_t *count;
	} plain[] = {
		{DB_FILES, &counts->files},
		{DB_ALIASES, &counts->aliases},
		{DB_TABLES, &counts->tables},
		{DB_REFS, &counts->table_refs},
		{DB_JOBS, &counts->jobs},
		{DB_MISSES, &counts->misses},
		{DB_UPLOADS, &counts->uploads},
	};
	struct table_totals totals;
	MDB_stat pages;

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		TRY(txn_count(txn, plain[i].db, plain[i].count));
	TRY(tables_totals(txn, &totals));
	TRY(err_from_lmdb(mdb_stat(txn->txn, txn->generation->dbi[DB_TABLES], &pages), "stat"));
	counts->table_bytes = totals.bytes;
	counts->table_stored_bytes =
		(uint64_t)(pages.ms_branch_pages + pages.ms_leaf_pages + pages.ms_overflow_pages) * pages.ms_psize;
	TRY(check_database(check, txn, DB_SYMBOLS));
	return check_database(check, txn, DB_BLOBS);
}

struct err *store_stat(struct store *store, struct store_stat *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct check check = {.store = store, .quick = true};
	struct store_stat stat = {.schema_version = store->schema_version};
	MDB_envinfo info;
	MDB_stat pages;
	uint64_t free;

	TRY(store_read_begin(store, &read));
	TRY(count_all(&check, &read->txn));
	TRY(count_jobs(&read->txn, &stat));
	TRY(free_pages(&read->txn, &free));
	MDB_env *env = read->txn.generation->env;
	TRY(err_from_lmdb(mdb_env_info(env, &info), "stat"));
	TRY(err_from_lmdb(mdb_env_stat(env, &pages), "stat"));
	stat.counts = check.counts;
	stat.counts.faults = 0;
	stat.file_bytes = env_file_bytes(read->txn.generation);
	stat.free_bytes = free * pages.ms_psize;
	stat.used_bytes = stat.file_bytes - stat.free_bytes;
	stat.map_bytes = info.me_mapsize;
	stat.readers = info.me_numreaders;
	stat.readers_max = info.me_maxreaders;
	stat.last_commit = info.me_last_txnid;
	stat.commits = atomic_load_explicit(&store->commits, memory_order_relaxed);
	stat.commands = atomic_load_explicit(&store->commands, memory_order_relaxed);
	stat.commit_failures = atomic_load_explicit(&store->commit_failures, memory_order_relaxed);
	stat.compactions = atomic_load_explicit(&store->compactions, memory_order_relaxed);
	*ret = stat;
	return NULL;
}

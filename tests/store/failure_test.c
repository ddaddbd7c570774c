// SPDX-License-Identifier: Apache-2.0
/*
 * Failing disks and damaged stores. fdatasync, which LMDB calls to make a commit durable, is replaced by one that fails
 * on demand; damage is written through LMDB behind the store's back.
 */
#include "store/internal.h"
#include "tests/store/suite.h"

#include <errno.h>
#include <sys/syscall.h>

static atomic_int failures_left;
static atomic_int failures_seen;

int fdatasync(int fd)
{
	if (atomic_load(&failures_left) > 0) {
		atomic_fetch_sub(&failures_left, 1);
		atomic_fetch_add(&failures_seen, 1);
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* Unlike teardown, for stores that a test damaged. */
static void teardown_unchecked(void)
{
	store_close(store);
	temp_dir_remove(dir);
}

static struct err *commit(uint64_t n)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(n, 20000);
	struct store_commit c = {.tenant = 1, .has_file = true, .file = file_of(n), .build_id = build_id_of(n), .table = bytes,
		.table_len = 20000, .entry = entry_of(STORE_SOURCE_UPLOAD, 1, "a")};

	return store_commit_table(store, &c, NULL);
}

static enum store_status status(uint64_t n)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = 1, .build_id = build_id_of(n)};
	struct store_answer answer;

	MUST(store_read_begin(store, &read));
	MUST(store_resolve(read, &query, &answer));
	return answer.status;
}

Test(store_commit_table, is_not_acknowledged_when_fsync_fails_and_works_after_reopening, .init = setup, .fini = teardown_unchecked)
{
	struct check_log log;

	MUST(commit(1));
	atomic_store(&failures_left, 1);
	assert_fails(commit(2), ERR_OS, "not durable");
	cr_assert_eq(failures_seen, 1);
	struct err *health = store_health(store);
	assert_fails(health, ERR_BUSY, "the store takes no writes");
	cr_assert_eq(status(1), STORE_OK, "readers go on");
	cr_assert_eq(status(2), STORE_UNKNOWN, "what failed is not seen");
	/* The next command opens the environment again first. */
	MUST(commit(3));
	cr_assert_null(store_health(store));
	cr_assert_eq(status(1), STORE_OK);
	cr_assert_eq(status(2), STORE_UNKNOWN);
	cr_assert_eq(status(3), STORE_OK);
	cr_assert_eq(faults_of(store, &log, NULL), 0, "%s", log.first);
	struct store_stat stat;
	MUST(store_stat(store, &stat));
	cr_assert_eq(stat.commit_failures, 1);
}

Test(store_commit_table, fails_as_long_as_the_disk_does, .init = setup, .fini = teardown_unchecked)
{
	MUST(commit(1));
	atomic_store(&failures_left, 1000);
	for (uint64_t i = 2; i < 6; i++) {
		struct err *e = commit(i);
		cr_assert_not_null(e);
		err_free(e);
	}
	atomic_store(&failures_left, 0);
	MUST(commit(9));
	cr_assert_eq(status(1), STORE_OK);
	cr_assert_eq(status(2), STORE_UNKNOWN);
	cr_assert_eq(status(9), STORE_OK);
}

static void *hold_a_read(void *arg)
{
	struct store_read *read;

	MUST(store_read_begin(store, &read));
	atomic_store((atomic_bool *)arg, true);
	usleep(300000);
	store_read_end(read);
	return NULL;
}

Test(store_commit_table, reopening_waits_for_the_reads_that_are_held, .init = setup, .fini = teardown_unchecked)
{
	atomic_bool held = false;
	pthread_t thread;

	MUST(commit(1));
	cr_assert_eq(pthread_create(&thread, NULL, hold_a_read, &held), 0);
	while (!atomic_load(&held))
		usleep(1000);
	atomic_store(&failures_left, 1);
	assert_fails(commit(2), ERR_OS, "not durable");
	MUST(commit(3));
	(void)pthread_join(thread, NULL);
	cr_assert_eq(status(1), STORE_OK);
	cr_assert_eq(status(3), STORE_OK);
}

static void failed_done(void *arg, struct err *e)
{
	atomic_int *counts = arg;

	atomic_fetch_add(&counts[e ? 1 : 0], 1);
	err_free(e);
}

Test(store_commit_table_async, a_failed_fsync_fails_its_whole_group, .init = setup, .fini = teardown_unchecked)
{
	enum { COUNT = 20 };
	static struct store_commit commits[COUNT];
	static uint8_t bytes[COUNT][64];
	atomic_int counts[2] = {0, 0};

	atomic_store(&failures_left, 1);
	for (size_t i = 0; i < COUNT; i++) {
		bytes[i][0] = (uint8_t)i;
		commits[i] = (struct store_commit){.tenant = 1, .build_id = build_id_of(i + 1), .table = bytes[i], .table_len = 64,
			.entry = entry_of(STORE_SOURCE_UPLOAD, 1, "a")};
		store_commit_table_async(store, &commits[i], failed_done, counts);
	}
	for (int i = 0; i < 1000 && counts[0] + counts[1] < COUNT; i++)
		usleep(10000);
	cr_assert_eq(counts[0] + counts[1], COUNT);
	cr_assert_geq(counts[1], 1);
	/* Exactly those that were acknowledged are there. */
	int there = 0;
	for (size_t i = 0; i < COUNT; i++)
		there += status(i + 1) == STORE_OK;
	cr_assert_eq(there, counts[0]);
}

Test(store_commit_table_async, one_that_fails_half_way_does_not_spoil_its_group, .init = setup, .fini = teardown_unchecked)
{
	enum { COUNT = 40, BAD = 17 };
	static struct store_commit commits[COUNT];
	static uint8_t bytes[COUNT][64];
	atomic_int counts[2] = {0, 0};

	for (size_t i = 0; i < COUNT; i++) {
		bytes[i][0] = (uint8_t)i;
		/* The bad one writes its table before it finds that its job does not exist. */
		commits[i] = (struct store_commit){.tenant = 1, .build_id = build_id_of(i + 1), .table = bytes[i], .table_len = 64,
			.entry = entry_of(STORE_SOURCE_UPLOAD, 1, "a"), .job_id = i == BAD ? 4711 : 0};
		store_commit_table_async(store, &commits[i], failed_done, counts);
	}
	for (int i = 0; i < 1000 && counts[0] + counts[1] < COUNT; i++)
		usleep(10000);
	cr_assert_eq(counts[0], COUNT - 1);
	cr_assert_eq(counts[1], 1);
	for (size_t i = 0; i < COUNT; i++)
		cr_assert_eq(status(i + 1), i == BAD ? STORE_UNKNOWN : STORE_OK, "%zu", i);
	cr_assert_null(store_health(store));
}

Test(store_upload_chunk, is_not_acknowledged_when_fsync_fails, .init = setup, .fini = teardown_unchecked)
{
	uint8_t bytes[100] = {1};
	struct store_upload upload = {.tenant = 1, .role = STORE_ROLE_DEBUG, .name = "a", .size = 100};
	uint64_t offset;

	MUST(sha256_of(bytes, 100, &upload.sha256));
	MUST(store_upload_create(store, &upload, &upload));
	atomic_store(&failures_left, 1);
	assert_fails(store_upload_chunk(store, upload.id, 0, bytes, 50, &offset), ERR_OS, "fsync");
	cr_assert_eq(offset, 0);
	MUST(store_upload_chunk(store, upload.id, 0, bytes, 100, &offset));
	MUST(store_upload_finish(store, upload.id, NULL, NULL));
}

Test(store_gc, a_compaction_that_fails_leaves_the_store_as_it_was, .init = setup, .fini = teardown_unchecked)
{
	uint64_t removed;
	char path[96];

	MUST(commit(1));
	/* A folder in the way that is not empty. */
	(void)snprintf(path, sizeof(path), "%s/symbols.2", dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/symbols.2/x", dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	assert_fails(store_gc(store, &removed), ERR_OS, "symbols.2");
	MUST(commit(2));
	cr_assert_eq(status(1), STORE_OK);
	(void)rmdir(path);
	MUST(store_gc(store, &removed));
	cr_assert_eq(status(2), STORE_OK);
}

Test(store_open, removes_what_a_crashed_compaction_left, .init = setup, .fini = teardown_unchecked)
{
	char path[96];

	MUST(commit(1));
	store_close(store);
	(void)snprintf(path, sizeof(path), "%s/symbols.2", dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/symbols.2/data.mdb", dir);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	cr_assert_eq(write(fd, "half", 4), 4);
	(void)close(fd);
	store = open_at(dir);
	cr_assert_eq(access(path, F_OK), -1);
	cr_assert_eq(status(1), STORE_OK);
}

/* -------------------------------------------------------------------------------------- damage */

static void write_raw(enum db db, const void *key, size_t key_len, const void *value, size_t len)
{
	struct txn txn;

	/* The writer is idle: nobody else has a transaction. */
	MUST(txn_begin_write(store, &txn));
	MUST(txn_put(&txn, db, key, key_len, value, len));
	MUST(txn_commit(&txn));
}

Test(store_open, refuses_a_newer_schema, .init = setup, .fini = teardown_unchecked)
{
	uint8_t newer[4] = {STORE_SCHEMA_VERSION + 1};
	struct store_options options = {.data_dir = dir, .map_max = 1 << 30};
	struct store *none = NULL;

	write_raw(DB_META, "schema", 6, newer, 4);
	store_close(store);
	store = NULL;
	assert_fails(store_open(&options, &none), ERR_UNSUPPORTED, "written by a newer version: schema 2, this one knows up to 1");
	cr_assert_null(none);
}

Test(store_open, refuses_a_file_that_is_no_store, .init = setup, .fini = teardown_unchecked)
{
	struct store_options options = {.data_dir = dir, .map_max = 1 << 30};
	struct store *none = NULL;
	char path[96];

	store_close(store);
	store = NULL;
	(void)snprintf(path, sizeof(path), "%s/symbols/data.mdb", dir);
	int fd = open(path, O_WRONLY | O_TRUNC);
	char junk[20000];
	memset(junk, 'x', sizeof(junk));
	cr_assert_eq(write(fd, junk, sizeof(junk)), (ssize_t)sizeof(junk));
	(void)close(fd);
	assert_fails(store_open(&options, &none), ERR_CORRUPT, dir);
}

Test(store_resolve, names_the_damaged_key, .init = setup, .fini = teardown_unchecked)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct build_id build = build_id_of(1);
	struct key key = key_of_id(1, &build, NULL);
	struct store_query query = {.tenant = 1, .build_id = build};
	struct store_answer answer;

	write_raw(DB_SYMBOLS, key.bytes, key.len, "junk", 4);
	MUST(store_read_begin(store, &read));
	assert_fails(store_resolve(read, &query, &answer), ERR_CORRUPT, "symbols key 000000014214");
}

Test(store_check, finds_each_kind_of_damage, .init = setup, .fini = teardown_unchecked)
{
	static const struct {
		enum db db;
		const char *key;
		size_t key_len;
		const char *value;
		size_t len;
		const char *words;
	} cases[] = {
		{DB_FILES, "short", 5, "x", 1, "files key"},
		{DB_ALIASES, "0123456789", 10, "", 0, "aliases key"},
		{DB_ALIASES, "\0\0\0\1\1x0123456789abcdef", 22, "", 0, "has nothing in files"},
		{DB_SYMBOLS, "\0\0\0\1F0123456789abcdef", 21, "junk", 4, "symbols key"},
		{DB_TABLES, "0123456789abcdef0123456789abcdef", 32, "junk", 4, "tables key"},
		{DB_REFS, "0123456789abcdef0123456789abcdefx", 33, "", 0, "do not name this table"},
		{DB_JOBS, "12345678", 8, "junk", 4, "jobs key"},
		{DB_JOBS_STATE, "\1" "12345678", 9, "", 0, "has nothing in jobs"},
		{DB_JOBS_ABOUT, "xxxxxxxxx", 9, "", 0, "has nothing in jobs"},
		{DB_MISSES, "\0\0\0\1F0123456789abcdef", 21, "junk", 4, "misses key"},
		{DB_MISSES_AGE, "12345678x", 9, "", 0, "has nothing in misses"},
		{DB_UPLOADS, "0123456789abcdef", 16, "junk", 4, "uploads key"},
		{DB_BLOBS, "0123456789abcdef0123456789abcdef", 32, "junk", 4, "blobs key"},
		{DB_BLOB_IDS, "x", 1, "junk", 4, "blob_ids key"},
		{DB_BLOB_USES, "x", 1, "", 0, "blob_uses key"},
		{DB_META, "totals", 6, "0123456701234567", 16, "meta key totals"},
	};
	struct check_log log;

	MUST(commit(1));
	cr_assert_eq(faults_of(store, &log, NULL), 0, "%s", log.first);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct txn txn;
		write_raw(cases[i].db, cases[i].key, cases[i].key_len, cases[i].value, cases[i].len);
		cr_assert_gt(faults_of(store, &log, NULL), 0, "case %zu", i);
		cr_assert(strstr(log.first, cases[i].words), "case %zu: %s", i, log.first);
		if (cases[i].db == DB_META)
			break;
		MUST(txn_begin_write(store, &txn));
		MUST(txn_delete(&txn, cases[i].db, cases[i].key, cases[i].key_len));
		MUST(txn_commit(&txn));
		cr_assert_eq(faults_of(store, &log, NULL), 0, "case %zu left something: %s", i, log.first);
	}
}

static struct err *refuse(void *context, const void *bytes, size_t len)
{
	(void)bytes;
	++*(size_t *)context;
	return err_new(ERR_CORRUPT, "checksum of %zu bytes", len);
}

Test(store_check, asks_the_verifier_about_every_table, .init = setup, .fini = teardown_unchecked)
{
	size_t calls = 0;
	struct store_verifier verifier = {.verify = refuse, .context = &calls};
	struct check_log log = {0};
	struct store_check_report report = {.fault = check_log_fault, .context = &log};
	struct store_counts counts;

	MUST(commit(1));
	MUST(commit(2));
	MUST(store_check(store, &verifier, &report, &counts));
	cr_assert_eq(calls, 2);
	cr_assert_eq(counts.faults, 2);
	cr_assert_eq(counts.tables, 2);
	cr_assert_eq(counts.table_bytes, 40000);
	cr_assert(strstr(log.first, "checksum of 20000 bytes"), "%s", log.first);
}

Test(store_gc, removes_tables_that_nobody_names, .init = setup, .fini = teardown_unchecked)
{
	uint64_t removed;

	MUST(commit(1));
	write_raw(DB_TABLES, "0123456789abcdef0123456789abcdef", 32, "junk", 4);
	uint8_t totals[16] = {2, 0, 0, 0, 0, 0, 0, 0, 0x24, 0x4e};
	write_raw(DB_META, "totals", 6, totals, 16);
	MUST(store_gc(store, &removed));
	cr_assert_eq(removed, 1);
	struct check_log log;
	cr_assert_eq(faults_of(store, &log, NULL), 0, "%s", log.first);
}

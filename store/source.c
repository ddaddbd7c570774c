// SPDX-License-Identifier: Apache-2.0
/*
 * One LMDB environment, written directly under LMDB's own writer lock: writers are few (the threads that ask) and wait for
 * networks anyway. MDB_NOMETASYNC: a crash may lose the last answers, never the file's order; they would be asked again.
 */
#include "store/source.h"

#include "store/internal.h"

#include <errno.h>
#include <sys/stat.h>

enum { SOURCE_DB_ASKS, SOURCE_DB_INDEX, SOURCE_DB_PACKAGES, SOURCE_DB_NOTES, SOURCE_DB_COUNT };

#define SOURCES_MAP_MAX (UINT64_C(16) << 30)

struct store_sources {
	MDB_env *env;
	MDB_dbi dbi[SOURCE_DB_COUNT];
};

struct store_index {
	struct store_sources *sources;
	MDB_txn *txn;
	uint64_t repository;
	uint32_t package, last; /* the present one, and the highest number */
};

const char *store_ask_answer_name(enum store_ask_answer answer)
{
	static const char *const names[] = {[STORE_ASK_FOUND] = "found", [STORE_ASK_NOT_FOUND] = "not_found",
		[STORE_ASK_REFUSED] = "refused", [STORE_ASK_FAILED] = "failed", [STORE_ASK_CANCELLED] = "cancelled"};

	return answer >= STORE_ASK_FOUND && answer <= STORE_ASK_CANCELLED ? names[answer] : "unknown";
}

/* ---------------------------------------------------------------------------------------- environment */

static struct err *open_databases(struct store_sources *sources)
{
	static const char *const names[SOURCE_DB_COUNT] = {"asks", "index", "packages", "notes"};
	MDB_txn *txn;
	int rc = mdb_txn_begin(sources->env, NULL, 0, &txn);

	for (size_t i = 0; rc == 0 && i < SOURCE_DB_COUNT; i++)
		rc = mdb_dbi_open(txn, names[i], MDB_CREATE, &sources->dbi[i]);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	return rc ? err_from_lmdb(rc, "sources: open") : NULL;
}

static struct err *open_env(struct store_sources *sources, const char *path, uint64_t map_max)
{
	int rc = mdb_env_create(&sources->env);

	if (rc == 0)
		rc = mdb_env_set_maxdbs(sources->env, SOURCE_DB_COUNT);
	if (rc == 0)
		rc = mdb_env_set_maxreaders(sources->env, 1024);
	if (rc == 0)
		rc = mdb_env_set_mapsize(sources->env, map_max && map_max < SOURCES_MAP_MAX ? map_max : SOURCES_MAP_MAX);
	if (rc == 0)
		rc = mdb_env_open(sources->env, path, MDB_NOTLS | MDB_NOMETASYNC, 0640);
	return rc ? err_from_lmdb(rc, "%s", path) : open_databases(sources);
}

struct err *store_sources_open(const char *data_dir, uint64_t map_max, struct store_sources **ret)
{
	char path[4096];
	struct store_sources *sources = calloc(1, sizeof(*sources));

	if (!sources)
		return err_nomem();
	(void)snprintf(path, sizeof(path), "%s/sources", data_dir);
	struct err *e = mkdir(path, 0750) && errno != EEXIST ? err_os(errno, "%s", path) : open_env(sources, path, map_max);
	if (e) {
		store_sources_close(sources);
		return e;
	}
	*ret = sources;
	return NULL;
}

void store_sources_close(struct store_sources *sources)
{
	if (!sources)
		return;
	if (sources->env)
		mdb_env_close(sources->env);
	free(sources);
}

static MDB_val val(const void *bytes, size_t len)
{
	return (MDB_val){.mv_size = len, .mv_data = (void *)(uintptr_t)bytes};
}

static struct err *put_one(struct store_sources *sources, int db, MDB_val key, MDB_val value)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(sources->env, NULL, 0, &txn);

	if (rc)
		return err_from_lmdb(rc, "sources: write");
	rc = mdb_put(txn, sources->dbi[db], &key, &value, 0);
	if (rc) {
		mdb_txn_abort(txn);
		return err_from_lmdb(rc, "sources: write");
	}
	rc = mdb_txn_commit(txn);
	return rc ? err_from_lmdb(rc, "sources: commit") : NULL;
}

static struct err *read_begin(struct store_sources *sources, MDB_txn **ret)
{
	int rc = mdb_txn_begin(sources->env, NULL, MDB_RDONLY, ret);

	return rc ? err_from_lmdb(rc, "sources: read") : NULL;
}

/* A value as text, malloc'd; NULL when there is none. */
static struct err *get_text(MDB_txn *txn, MDB_dbi dbi, MDB_val key, char **ret)
{
	MDB_val value;
	int rc = mdb_get(txn, dbi, &key, &value);

	*ret = NULL;
	if (rc == MDB_NOTFOUND)
		return NULL;
	if (rc)
		return err_from_lmdb(rc, "sources: read");
	*ret = strndup(value.mv_data, value.mv_size);
	return *ret ? NULL : err_nomem();
}

/* ---------------------------------------------------------------------------------------- asks */

static struct key ask_key(const struct store_query *query)
{
	return key_of_id(query->tenant, query->has_file_id ? NULL : &query->build_id, &query->file_id);
}

struct err *store_ask_put(struct store_sources *sources, const struct store_query *query, const struct store_ask *ask)
{
	struct key id = ask_key(query);
	uint8_t key[KEY_MAX + STORE_ASK_SOURCE_SIZE], bytes[64 + STORE_ASK_TEXT_SIZE];
	struct encoder e = {.bytes = bytes, .cap = sizeof(bytes)};
	size_t name = strlen(ask->source);

	memcpy(key, id.bytes, id.len);
	memcpy(key + id.len, ask->source, name);
	encode_uint(&e, RECORD_VERSION, 1);
	encode_uint(&e, (uint64_t)ask->answer, 1);
	encode_uint(&e, ask->asked_ms, 8);
	encode_uint(&e, ask->next_ms, 8);
	encode_uint(&e, ask->bytes, 8);
	encode_uint(&e, ask->job_id, 8);
	encode_text(&e, ask->text);
	if (e.failed || id.len + name > 500)
		return err_new(ERR_LIMIT, "sources: an answer's text or source's name is too long");
	return put_one(sources, SOURCE_DB_ASKS, val(key, id.len + name), val(bytes, e.len));
}

static bool ask_decode(const MDB_val *value, struct store_ask *ask)
{
	struct reader r = reader_init(value->mv_data, value->mv_size, false, "sources: asks");
	bool known = reader_u8(&r) == RECORD_VERSION;

	ask->answer = reader_u8(&r);
	ask->asked_ms = reader_u64(&r);
	ask->next_ms = reader_u64(&r);
	ask->bytes = reader_u64(&r);
	ask->job_id = reader_u64(&r);
	decode_text(&r, ask->text, sizeof(ask->text));
	return known && !r.failed;
}

static struct err *collect_asks(MDB_cursor *cursor, const struct key *id, struct store_ask *asks, size_t cap, size_t *n_ret)
{
	MDB_val key = val(id->bytes, id->len), value;
	size_t n = 0;
	int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);

	for (; rc == 0 && n < cap; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		if (key.mv_size <= id->len || memcmp(key.mv_data, id->bytes, id->len) != 0)
			break;
		size_t name = key.mv_size - id->len;
		if (name >= STORE_ASK_SOURCE_SIZE || !ask_decode(&value, &asks[n]))
			continue; /* not ours to repair: it will be asked again and written over */
		memcpy(asks[n].source, (const uint8_t *)key.mv_data + id->len, name);
		asks[n].source[name] = 0;
		n++;
	}
	*n_ret = n;
	return rc && rc != MDB_NOTFOUND ? err_from_lmdb(rc, "sources: read") : NULL;
}

struct err *store_asks(struct store_sources *sources, const struct store_query *query, struct store_ask *asks, size_t cap, size_t *n_ret)
{
	struct key id = ask_key(query);
	MDB_txn *txn;
	MDB_cursor *cursor;

	TRY(read_begin(sources, &txn));
	int rc = mdb_cursor_open(txn, sources->dbi[SOURCE_DB_ASKS], &cursor);
	struct err *e = rc ? err_from_lmdb(rc, "sources: read") : collect_asks(cursor, &id, asks, cap, n_ret);
	if (!rc)
		mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return e;
}

struct err *store_asks_expire(struct store_sources *sources, uint64_t before_ms, uint64_t *removed_ret)
{
	MDB_txn *txn;
	MDB_cursor *cursor;
	MDB_val key, value;
	struct store_ask ask;
	int rc = mdb_txn_begin(sources->env, NULL, 0, &txn);

	*removed_ret = 0;
	if (rc)
		return err_from_lmdb(rc, "sources: write");
	rc = mdb_cursor_open(txn, sources->dbi[SOURCE_DB_ASKS], &cursor);
	if (rc == 0) {
		while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
			if (ask_decode(&value, &ask) && ask.next_ms >= before_ms)
				continue;
			if ((rc = mdb_cursor_del(cursor, 0)) != 0)
				break;
			++*removed_ret;
		}
		mdb_cursor_close(cursor);
	}
	if (rc != MDB_NOTFOUND) {
		mdb_txn_abort(txn);
		return err_from_lmdb(rc, "sources: expire");
	}
	rc = mdb_txn_commit(txn);
	return rc ? err_from_lmdb(rc, "sources: commit") : NULL;
}

/* ---------------------------------------------------------------------------------------- notes */

struct err *store_note_get(struct store_sources *sources, const char *key, char **ret)
{
	MDB_txn *txn;

	TRY(read_begin(sources, &txn));
	struct err *e = get_text(txn, sources->dbi[SOURCE_DB_NOTES], val(key, strlen(key)), ret);
	mdb_txn_abort(txn);
	return e;
}

struct err *store_note_put(struct store_sources *sources, const char *key, const char *text)
{
	if (strlen(key) > 500 || strlen(text) > STORE_NOTE_MAX)
		return err_new(ERR_LIMIT, "sources: a note or its name is too long");
	return put_one(sources, SOURCE_DB_NOTES, val(key, strlen(key)), val(text, strlen(text)));
}

/* ---------------------------------------------------------------------------------------- index */

static int delete_repository(struct store_index *index, int db)
{
	struct key prefix = {0};
	MDB_cursor *cursor;
	MDB_val key, value;
	int rc = mdb_cursor_open(index->txn, index->sources->dbi[db], &cursor);

	if (rc)
		return rc;
	key_put_uint(&prefix, index->repository, 8);
	key = val(prefix.bytes, prefix.len);
	rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	while (rc == 0 && key.mv_size >= 8 && memcmp(key.mv_data, prefix.bytes, 8) == 0) {
		rc = mdb_cursor_del(cursor, 0);
		if (rc == 0)
			rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	}
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

struct err *store_index_begin(struct store_sources *sources, uint64_t repository, struct store_index **ret)
{
	struct store_index *index = calloc(1, sizeof(*index));

	if (!index)
		return err_nomem();
	index->sources = sources;
	index->repository = repository;
	int rc = mdb_txn_begin(sources->env, NULL, 0, &index->txn);
	if (rc == 0)
		rc = delete_repository(index, SOURCE_DB_INDEX);
	if (rc == 0)
		rc = delete_repository(index, SOURCE_DB_PACKAGES);
	if (rc) {
		store_index_abort(index);
		return err_from_lmdb(rc, "sources: index");
	}
	*ret = index;
	return NULL;
}

/* The number of a repository's last package; 0 when it has none. */
static int last_package(struct store_index *index, uint32_t *ret)
{
	struct key next = {0};
	MDB_cursor *cursor;
	MDB_val key, value;
	int rc = mdb_cursor_open(index->txn, index->sources->dbi[SOURCE_DB_PACKAGES], &cursor);

	*ret = 0;
	if (rc)
		return rc;
	key_put_uint(&next, index->repository, 8);
	key_put_uint(&next, UINT32_MAX, 4);
	key = val(next.bytes, next.len);
	rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	rc = mdb_cursor_get(cursor, &key, &value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
	if (rc == 0 && key.mv_size == 12 && memcmp(key.mv_data, next.bytes, 8) == 0)
		*ret = (uint32_t)key_get_uint((const uint8_t *)key.mv_data + 8, 4);
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

struct err *store_index_reopen(struct store_sources *sources, uint64_t repository, struct store_index **ret)
{
	struct store_index *index = calloc(1, sizeof(*index));

	if (!index)
		return err_nomem();
	index->sources = sources;
	index->repository = repository;
	int rc = mdb_txn_begin(sources->env, NULL, 0, &index->txn);
	if (rc == 0)
		rc = last_package(index, &index->last);
	if (rc) {
		store_index_abort(index);
		return err_from_lmdb(rc, "sources: index");
	}
	*ret = index;
	return NULL;
}

uint32_t store_index_number(const struct store_index *index)
{
	return index->package;
}

void store_index_select(struct store_index *index, uint32_t number)
{
	index->package = number;
}

struct err *store_index_package(struct store_index *index, const char *text)
{
	struct key bytes = {0};

	if (strlen(text) > STORE_NOTE_MAX)
		return err_new(ERR_LIMIT, "sources: a package's record of more than %d bytes", STORE_NOTE_MAX);
	index->package = ++index->last;
	key_put_uint(&bytes, index->repository, 8);
	key_put_uint(&bytes, index->package, 4);
	MDB_val key = val(bytes.bytes, bytes.len), value = val(text, strlen(text));
	int rc = mdb_put(index->txn, index->sources->dbi[SOURCE_DB_PACKAGES], &key, &value, 0);
	return rc ? err_from_lmdb(rc, "sources: index") : NULL;
}

static struct key index_key(uint64_t repository, const struct build_id *build_id)
{
	struct key key = {0};

	key_put_uint(&key, repository, 8);
	key_put(&key, build_id->bytes, build_id->len);
	return key;
}

struct err *store_index_add(struct store_index *index, const struct build_id *build_id)
{
	struct key bytes = index_key(index->repository, build_id), number = {0};

	key_put_uint(&number, index->package, 4);
	MDB_val key = val(bytes.bytes, bytes.len), value = val(number.bytes, number.len);
	int rc = mdb_put(index->txn, index->sources->dbi[SOURCE_DB_INDEX], &key, &value, 0);
	return rc ? err_from_lmdb(rc, "sources: index") : NULL;
}

struct err *store_index_commit(struct store_index *index)
{
	int rc = mdb_txn_commit(index->txn);

	free(index);
	return rc ? err_from_lmdb(rc, "sources: index") : NULL;
}

void store_index_abort(struct store_index *index)
{
	if (!index)
		return;
	if (index->txn)
		mdb_txn_abort(index->txn);
	free(index);
}

struct err *store_index_find(struct store_sources *sources, uint64_t repository, const struct build_id *build_id, char **ret)
{
	struct key bytes = index_key(repository, build_id), package = {0};
	MDB_val key = val(bytes.bytes, bytes.len), value;
	struct err *e = NULL;
	MDB_txn *txn;

	*ret = NULL;
	TRY(read_begin(sources, &txn));
	int rc = mdb_get(txn, sources->dbi[SOURCE_DB_INDEX], &key, &value);
	if (rc == 0 && value.mv_size == 4) {
		key_put_uint(&package, repository, 8);
		key_put(&package, value.mv_data, 4);
		e = get_text(txn, sources->dbi[SOURCE_DB_PACKAGES], val(package.bytes, package.len), ret);
	} else if (rc && rc != MDB_NOTFOUND) {
		e = err_from_lmdb(rc, "sources: index");
	}
	mdb_txn_abort(txn);
	return e;
}

static struct err *each_package(MDB_cursor *cursor, uint64_t repository, struct err *(*each)(void *context, const char *text), void *context)
{
	struct key prefix = {0};

	key_put_uint(&prefix, repository, 8);
	MDB_val key = val(prefix.bytes, prefix.len), value;
	int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	for (; rc == 0 && key.mv_size >= 8 && memcmp(key.mv_data, prefix.bytes, 8) == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		CLEANUP(freep) char *text = strndup(value.mv_data, value.mv_size);
		if (!text)
			return err_nomem();
		TRY(each(context, text));
	}
	return rc && rc != MDB_NOTFOUND ? err_from_lmdb(rc, "sources: index") : NULL;
}

struct err *store_index_each(struct store_sources *sources, uint64_t repository, struct err *(*each)(void *context, const char *text),
	void *context)
{
	MDB_cursor *cursor;
	MDB_txn *txn;

	TRY(read_begin(sources, &txn));
	int rc = mdb_cursor_open(txn, sources->dbi[SOURCE_DB_PACKAGES], &cursor);
	struct err *e = rc ? err_from_lmdb(rc, "sources: index") : each_package(cursor, repository, each, context);
	if (!rc)
		mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return e;
}

static int find_in_any(MDB_cursor *cursor, const struct build_id *build_id, bool *ret)
{
	MDB_val key, value;
	int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);

	*ret = false;
	while (rc == 0 && key.mv_size >= 8) {
		uint64_t repository = key_get_uint(key.mv_data, 8);
		if (repository & STORE_INDEX_PRIVATE)
			return 0;
		struct key bytes = index_key(repository, build_id), next = {0};
		MDB_val wanted = val(bytes.bytes, bytes.len);
		if (mdb_cursor_get(cursor, &wanted, &value, MDB_SET) == 0) {
			*ret = true;
			return 0;
		}
		key_put_uint(&next, repository + 1, 8);
		key = val(next.bytes, next.len);
		rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	}
	return rc == MDB_NOTFOUND ? 0 : rc;
}

struct err *store_index_names(struct store_sources *sources, const struct build_id *build_id, bool *ret)
{
	MDB_cursor *cursor;
	MDB_txn *txn;

	TRY(read_begin(sources, &txn));
	int rc = mdb_cursor_open(txn, sources->dbi[SOURCE_DB_INDEX], &cursor);
	if (rc == 0) {
		rc = find_in_any(cursor, build_id, ret);
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	return rc ? err_from_lmdb(rc, "sources: index") : NULL;
}

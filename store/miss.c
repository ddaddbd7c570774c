// SPDX-License-Identifier: Apache-2.0
/*
 * Misses. Lookups are many and must not write, so a miss is noted in a table in memory (open addressing, MISS_PENDING_MAX
 * of them, under a mutex) that the writer empties once a second. On disk there are two keys a miss: the record by ID,
 * and (last asked | ID), whose first key is the one to forget when there are too many.
 */
#include "store/internal.h"

enum { MISS_PENDING_MAX = 8192, MISS_SLOTS = 4 * MISS_PENDING_MAX };

struct pending {
	struct key id; /* len 0: free */
	uint64_t first_ms, last_ms, count;
};

struct miss_table {
	pthread_mutex_t mutex;
	size_t count;
	uint16_t slots[MISS_SLOTS]; /* 1 + index into items; 0: free */
	struct pending items[MISS_PENDING_MAX];
};

struct err *misses_create(struct miss_table **ret)
{
	struct miss_table *table = calloc(1, sizeof(*table));

	if (!table)
		return err_nomem();
	(void)pthread_mutex_init(&table->mutex, NULL);
	*ret = table;
	return NULL;
}

void misses_destroy(struct miss_table *table)
{
	if (!table)
		return;
	(void)pthread_mutex_destroy(&table->mutex);
	free(table);
}

static struct key miss_key(const struct store_query *query)
{
	/* The file ID, where both are given: it wins. */
	return key_of_id(query->tenant, query->has_file_id ? NULL : &query->build_id, &query->file_id);
}

void store_miss_note(struct store *store, const struct store_query *query)
{
	struct miss_table *table = store->misses;

	if (!table || (!query->has_file_id && (query->build_id.len == 0 || query->build_id.len > BUILD_ID_MAX)))
		return;
	struct key id = miss_key(query);
	uint64_t now = store_now_ms();
	(void)pthread_mutex_lock(&table->mutex);
	size_t at = digest_xxh3_64(id.bytes, id.len) % MISS_SLOTS;
	while (table->slots[at]) {
		struct pending *p = &table->items[table->slots[at] - 1];
		if (p->id.len == id.len && memcmp(p->id.bytes, id.bytes, id.len) == 0) {
			p->last_ms = now;
			p->count++;
			break;
		}
		at = (at + 1) % MISS_SLOTS;
	}
	if (!table->slots[at] && table->count < MISS_PENDING_MAX) {
		table->items[table->count] = (struct pending){.id = id, .first_ms = now, .last_ms = now, .count = 1};
		table->slots[at] = (uint16_t)++table->count;
	}
	(void)pthread_mutex_unlock(&table->mutex);
}

bool misses_pending(struct store *store)
{
	(void)pthread_mutex_lock(&store->misses->mutex);
	bool any = store->misses->count > 0;
	(void)pthread_mutex_unlock(&store->misses->mutex);
	return any;
}

static struct key age_key(uint64_t last_ms, const void *id, size_t len)
{
	struct key key = {0};

	key_put_uint(&key, last_ms, 8);
	key_put(&key, id, len);
	return key;
}

static struct err *miss_get(struct txn *txn, const struct key *id, struct store_miss *ret, bool *found_ret)
{
	MDB_val k = {.mv_size = id->len, .mv_data = (void *)(uintptr_t)id->bytes}, value;

	TRY(txn_get(txn, DB_MISSES, id->bytes, id->len, &value, found_ret));
	return *found_ret ? miss_decode(&k, &value, ret) : NULL;
}

static struct err *miss_remove(struct txn *txn, const struct key *id, uint64_t last_ms)
{
	struct key age = age_key(last_ms, id->bytes, id->len);

	TRY(txn_delete(txn, DB_MISSES, id->bytes, id->len));
	return txn_delete(txn, DB_MISSES_AGE, age.bytes, age.len);
}

struct err *misses_known(struct txn *txn, const struct key *id)
{
	struct store_miss miss;
	bool found;

	TRY(miss_get(txn, id, &miss, &found));
	return found ? miss_remove(txn, id, miss.last_asked_ms) : NULL;
}

static struct err *forget_oldest(struct txn *txn)
{
	struct key id = {0};
	uint64_t last_ms;
	CLEANUP(scan_end) struct scan scan = {0};
	bool found;

	TRY(scan_begin(txn, DB_MISSES_AGE, NULL, 0, &scan));
	TRY(scan_next(&scan, &found));
	if (!found)
		return NULL;
	if (scan.key.mv_size <= 8 || scan.key.mv_size > KEY_MAX)
		return corrupt(DB_MISSES_AGE, scan.key.mv_data, scan.key.mv_size, "key of a wrong length");
	last_ms = key_get_uint(scan.key.mv_data, 8);
	key_put(&id, (const uint8_t *)scan.key.mv_data + 8, scan.key.mv_size - 8);
	return miss_remove(txn, &id, last_ms);
}

/* Whether the ID has become known between the question and now. */
static struct err *is_known(struct txn *txn, const struct key *id, bool *ret)
{
	TRY(txn_has(txn, DB_SYMBOLS, id->bytes, id->len, ret));
	if (*ret || id->bytes[4] != 'F')
		return NULL;
	struct key file = {0};
	key_put(&file, id->bytes, 4);
	key_put(&file, id->bytes + 5, id->len - 5);
	return txn_has(txn, DB_FILES, file.bytes, file.len, ret);
}

static struct err *miss_put(struct txn *txn, const struct pending *p)
{
	struct store_miss miss;
	uint8_t bytes[32];
	struct encoder e = {.bytes = bytes, .cap = sizeof(bytes)};
	uint64_t count;
	bool found, known;

	TRY(is_known(txn, &p->id, &known));
	if (known)
		return NULL;
	TRY(miss_get(txn, &p->id, &miss, &found));
	if (found) {
		TRY(miss_remove(txn, &p->id, miss.last_asked_ms));
	} else {
		miss = (struct store_miss){.first_asked_ms = p->first_ms};
		TRY(txn_count(txn, DB_MISSES, &count));
		if (count >= txn->store->options.misses_max)
			TRY(forget_oldest(txn));
	}
	struct key age = age_key(p->last_ms, p->id.bytes, p->id.len);
	encode_uint(&e, RECORD_VERSION, 1);
	encode_uint(&e, miss.first_asked_ms, 8);
	encode_uint(&e, p->last_ms, 8);
	encode_uint(&e, miss.count + p->count, 8);
	TRY(txn_put(txn, DB_MISSES, p->id.bytes, p->id.len, bytes, e.len));
	return txn_put(txn, DB_MISSES_AGE, age.bytes, age.len, "", 0);
}

struct err *misses_flush(struct txn *txn, void *arg)
{
	struct miss_table *table = ((struct store *)arg)->misses;
	CLEANUP(freep) struct pending *items = NULL;

	(void)pthread_mutex_lock(&table->mutex);
	size_t count = table->count;
	items = malloc((count ? count : 1) * sizeof(*items));
	if (items) {
		memcpy(items, table->items, count * sizeof(*items));
		memset(table->slots, 0, sizeof(table->slots));
		table->count = 0;
	}
	(void)pthread_mutex_unlock(&table->mutex);
	if (!items)
		return err_nomem();
	for (size_t i = 0; i < count; i++)
		TRY(miss_put(txn, &items[i]));
	return NULL;
}

struct err *store_miss_get(struct store_read *read, const struct store_query *query, struct store_miss *ret, bool *found_ret)
{
	struct key id = miss_key(query);

	return miss_get(&read->txn, &id, ret, found_ret);
}

struct err *store_misses(struct store_read *read, struct store_miss *misses, size_t cap, size_t *n_ret)
{
	CLEANUP(scan_end) struct scan scan = {0};
	size_t n = 0;

	TRY(scan_begin(&read->txn, DB_MISSES_AGE, NULL, 0, &scan));
	scan.backwards = true;
	while (n < cap) {
		struct key id = {0};
		bool found;
		TRY(scan_next(&scan, &found));
		if (!found)
			break;
		if (scan.key.mv_size <= 8 || scan.key.mv_size > KEY_MAX)
			return corrupt(DB_MISSES_AGE, scan.key.mv_data, scan.key.mv_size, "key of a wrong length");
		key_put(&id, (const uint8_t *)scan.key.mv_data + 8, scan.key.mv_size - 8);
		TRY(miss_get(&read->txn, &id, &misses[n], &found));
		if (!found)
			return corrupt(DB_MISSES_AGE, scan.key.mv_data, scan.key.mv_size, "names a miss that does not exist");
		n++;
	}
	*n_ret = n;
	return NULL;
}

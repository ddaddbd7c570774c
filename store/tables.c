// SPDX-License-Identifier: Apache-2.0
/*
 * Tables by content, and who names them. A reference is a key of its own (SHA-256 | id), so that "is it still named" is one
 * seek, and the last name that goes takes the table with it in the same transaction.
 */
#include "store/internal.h"

struct err *tables_totals(struct txn *txn, struct table_totals *ret)
{
	MDB_val value;
	bool found;

	*ret = (struct table_totals){0};
	TRY(txn_get(txn, DB_META, "totals", 6, &value, &found));
	if (!found)
		return NULL;
	struct reader r = reader_init(value.mv_data, value.mv_size, false, "totals");
	ret->tables = reader_u64(&r);
	ret->bytes = reader_u64(&r);
	return decode_end(&r, DB_META, "totals", 6);
}

static struct err *totals_add(struct txn *txn, int64_t tables, int64_t bytes)
{
	struct table_totals totals;
	uint8_t value[16];
	struct encoder e = {.bytes = value, .cap = sizeof(value)};

	TRY(tables_totals(txn, &totals));
	encode_uint(&e, totals.tables + (uint64_t)tables, 8);
	encode_uint(&e, totals.bytes + (uint64_t)bytes, 8);
	return txn_put(txn, DB_META, "totals", 6, value, sizeof(value));
}

struct err *tables_put(struct txn *txn, const struct sha256 *id, const void *bytes, size_t len)
{
	bool found;

	TRY(txn_has(txn, DB_TABLES, id->bytes, SHA256_BYTES, &found));
	if (found)
		return NULL;
	TRY(txn_put(txn, DB_TABLES, id->bytes, SHA256_BYTES, bytes, len));
	return totals_add(txn, 1, (int64_t)len);
}

static struct key ref_key(const struct sha256 *id, const struct key *by)
{
	struct key key = {0};

	key_put(&key, id->bytes, SHA256_BYTES);
	key_put(&key, by->bytes, by->len);
	return key;
}

struct err *tables_ref(struct txn *txn, const struct sha256 *id, const struct key *by)
{
	struct key key = ref_key(id, by);

	return txn_put(txn, DB_REFS, key.bytes, key.len, "", 0);
}

static struct err *table_remove(struct txn *txn, const struct sha256 *id)
{
	MDB_val value;
	bool found;

	TRY(txn_get(txn, DB_TABLES, id->bytes, SHA256_BYTES, &value, &found));
	if (!found)
		return NULL;
	int64_t len = (int64_t)value.mv_size;
	TRY(txn_delete(txn, DB_TABLES, id->bytes, SHA256_BYTES));
	return totals_add(txn, -1, -len);
}

struct err *tables_unref(struct txn *txn, const struct sha256 *id, const struct key *by)
{
	struct key key = ref_key(id, by);
	bool named;

	TRY(txn_delete(txn, DB_REFS, key.bytes, key.len));
	TRY(scan_any(txn, DB_REFS, id->bytes, SHA256_BYTES, &named));
	return named ? NULL : table_remove(txn, id);
}

struct err *tables_gc(struct txn *txn, uint64_t *removed_ret)
{
	CLEANUP(scan_end) struct scan scan = {0};
	int64_t tables = 0, bytes = 0;

	TRY(scan_begin(txn, DB_TABLES, NULL, 0, &scan));
	for (;;) {
		bool found, named;
		TRY(scan_next(&scan, &found));
		if (!found)
			break;
		TRY(scan_any(txn, DB_REFS, scan.key.mv_data, scan.key.mv_size, &named));
		if (named)
			continue;
		tables--;
		bytes -= (int64_t)scan.value.mv_size;
		TRY(scan_delete(&scan));
	}
	*removed_ret = (uint64_t)-tables;
	return tables ? totals_add(txn, tables, bytes) : NULL;
}

struct err *store_read_table(struct store_read *read, const struct sha256 *id, struct store_view *ret)
{
	MDB_val value;
	bool found;

	*ret = (struct store_view){0};
	TRY(txn_get(&read->txn, DB_TABLES, id->bytes, SHA256_BYTES, &value, &found));
	if (found)
		*ret = (struct store_view){.bytes = value.mv_data, .len = value.mv_size};
	return NULL;
}

struct err *store_table_acquire(struct store *store, const struct sha256 *id, struct store_table *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_view view;

	TRY(store_read_begin(store, &read));
	TRY(store_read_table(read, id, &view));
	if (!view.bytes) {
		char text[SHA256_HEX_SIZE];
		sha256_format(id, text);
		return err_new(ERR_NOT_FOUND, "no table %s", text);
	}
	ret->view = view;
	ret->read = TAKE_PTR(read);
	return NULL;
}

void store_table_release(struct store_table *table)
{
	store_read_end(TAKE_PTR(table->read));
	table->view = (struct store_view){0};
}

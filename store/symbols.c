// SPDX-License-Identifier: Apache-2.0
/*
 * File records, aliases and sets of entries: what names what. Stripped, unstripped and re-stripped copies of a program have
 * different file IDs and one build ID, so entries attach to the build ID where there is one, and a file ID leads there
 * through its record. Everything here merges: see record.c for why the order does not matter.
 */
#include "store/internal.h"

/* -------------------------------------------------------------------------------------- resolve */

/* The tenants that a query sees, its own first. */
struct tenants {
	size_t count;
	uint32_t items[2];
};

static struct tenants tenants_of(uint32_t tenant)
{
	struct tenants tenants = {.count = 1, .items = {tenant}};

	if (tenant != STORE_TENANT_PUBLIC)
		tenants.items[tenants.count++] = STORE_TENANT_PUBLIC;
	return tenants;
}

static struct err *file_get(struct txn *txn, uint32_t tenant, const struct fileid *id, struct store_file *ret, bool *found_ret)
{
	struct key key = key_of_file(tenant, id);
	MDB_val k = {.mv_size = key.len, .mv_data = key.bytes}, value;

	TRY(txn_get(txn, DB_FILES, key.bytes, key.len, &value, found_ret));
	return *found_ret ? file_decode(&k, &value, ret) : NULL;
}

struct err *store_file_get(struct store_read *read, uint32_t tenant, const struct fileid *id, struct store_file *ret,
	bool *found_ret)
{
	return file_get(&read->txn, tenant, id, ret, found_ret);
}

static struct err *set_get(struct txn *txn, const struct key *key, struct entry_set *ret, bool *found_ret)
{
	MDB_val k = {.mv_size = key->len, .mv_data = (void *)(uintptr_t)key->bytes}, value;

	ret->count = 0;
	TRY(txn_get(txn, DB_SYMBOLS, key->bytes, key->len, &value, found_ret));
	return *found_ret ? set_decode(&k, &value, ret) : NULL;
}

static bool fileid_listed(const struct fileid *ids, size_t count, const struct fileid *id)
{
	for (size_t i = 0; i < count; i++)
		if (fileid_equal(&ids[i], id))
			return true;
	return false;
}

struct err *store_aliases(struct store_read *read, uint32_t tenant, const struct build_id *build_id, struct fileid *ids,
	size_t cap, size_t *n_ret)
{
	struct tenants tenants = tenants_of(tenant);
	size_t n = 0;

	for (size_t t = 0; t < tenants.count; t++) {
		struct key prefix = key_of_aliases(tenants.items[t], build_id);
		CLEANUP(scan_end) struct scan scan = {0};
		size_t own = n;
		TRY(scan_begin(&read->txn, DB_ALIASES, prefix.bytes, prefix.len, &scan));
		while (n < cap) {
			bool found;
			TRY(scan_next(&scan, &found));
			if (!found)
				break;
			if (scan.key.mv_size != prefix.len + FILEID_BYTES)
				return corrupt(DB_ALIASES, scan.key.mv_data, scan.key.mv_size, "key of a wrong length");
			memcpy(ids[n].bytes, (const uint8_t *)scan.key.mv_data + prefix.len, FILEID_BYTES);
			if (!fileid_listed(ids, own, &ids[n]))
				n++;
		}
	}
	*n_ret = n;
	return NULL;
}

/* What a query's IDs lead to. */
struct found {
	bool has_file;
	struct store_file file;
	bool has_alias;
	struct build_id build_id; /* under which entries are looked for; len 0: none */
	char reason[STORE_REASON_SIZE];
};

static struct err *find_by_file_id(struct store_read *read, const struct store_query *query, struct found *found)
{
	struct tenants tenants = tenants_of(query->tenant);

	for (size_t t = 0; t < tenants.count && !found->has_file; t++)
		TRY(file_get(&read->txn, tenants.items[t], &query->file_id, &found->file, &found->has_file));
	if (!found->has_file)
		return NULL;
	const struct build_id *own = &found->file.build_id;
	if (own->len > 0)
		found->build_id = *own;
	if (query->build_id.len == 0 || build_id_equal(own, &query->build_id))
		return NULL;
	/* A record without build ID and segments is hearsay: it does not contradict. */
	if (own->len == 0 && found->file.segments.count == 0)
		return NULL;
	char asked[BUILD_ID_HEX_SIZE], known[BUILD_ID_HEX_SIZE], id[FILEID_HEX_SIZE];
	build_id_format(&query->build_id, asked);
	build_id_format(own, known);
	fileid_format_hex(&query->file_id, id);
	found->build_id = *own;
	(void)snprintf(found->reason, sizeof(found->reason),
		"file ID and build ID disagree: file %s has %s%s, not %s; the file ID was used", id,
		own->len ? "build ID " : "no build ID", known, asked);
	return NULL;
}

enum { ALIASES_LOOKED_AT = 64 };

/* Whether it says where addresses lie. */
static bool is_placed(const struct store_file *file)
{
	return file->segments.count > 0 || file->has_text;
}

/* The segments of any copy with the same build ID will do: stripping does not move what is loaded. */
static struct err *find_by_build_id(struct store_read *read, const struct store_query *query, struct found *found)
{
	struct fileid ids[ALIASES_LOOKED_AT];
	struct tenants tenants = tenants_of(query->tenant);
	size_t count;

	TRY(store_aliases(read, query->tenant, &found->build_id, ids, ARRAY_SIZE(ids), &count));
	found->has_alias = count > 0;
	for (size_t i = 0; i < count; i++) {
		for (size_t t = 0; t < tenants.count; t++) {
			struct store_file file;
			bool known;
			TRY(file_get(&read->txn, tenants.items[t], &ids[i], &file, &known));
			if (!known || (found->has_file && !is_placed(&file)))
				continue;
			struct store_file *to = &found->file;
			if (!found->has_file)
				*to = file;
			to->segments = file.segments;
			to->has_text = file.has_text;
			to->text_vaddr = file.text_vaddr;
			found->has_file = true;
			if (is_placed(&file))
				return NULL;
		}
	}
	return NULL;
}

static struct err *find(struct store_read *read, const struct store_query *query, struct found *found)
{
	if (!query->has_file_id && query->build_id.len == 0)
		return err_new(ERR_INVALID, "neither a file ID nor a build ID was given");
	memset(found, 0, sizeof(*found));
	found->build_id = query->build_id;
	if (query->has_file_id)
		TRY(find_by_file_id(read, query, found));
	if (found->build_id.len > 0 && (!found->has_file || !is_placed(&found->file)))
		TRY(find_by_build_id(read, query, found));
	return NULL;
}

static void entry_insert(struct store_entry *entries, size_t cap, size_t *n, const struct store_entry *entry)
{
	size_t at = 0;

	while (at < *n && entry_compare(&entries[at], entry) >= 0)
		at++;
	if (at >= cap)
		return;
	size_t kept = *n < cap ? *n : cap - 1;
	memmove(&entries[at + 1], &entries[at], (kept - at) * sizeof(entries[0]));
	entries[at] = *entry;
	*n = kept + 1;
}

/* All entries under the IDs, best first: by build ID and by file ID, own tenant's and public. */
static struct err *collect(struct store_read *read, const struct store_query *query, const struct found *found,
	struct store_entry *entries, size_t cap, size_t *n_ret)
{
	struct tenants tenants = tenants_of(query->tenant);
	struct entry_set set;

	*n_ret = 0;
	for (size_t t = 0; t < tenants.count; t++) {
		struct key keys[2];
		size_t key_count = 0;
		if (found->build_id.len > 0)
			keys[key_count++] = key_of_id(tenants.items[t], &found->build_id, NULL);
		if (query->has_file_id)
			keys[key_count++] = key_of_id(tenants.items[t], NULL, &query->file_id);
		for (size_t k = 0; k < key_count; k++) {
			bool any;
			TRY(set_get(&read->txn, &keys[k], &set, &any));
			for (size_t i = 0; i < set.count; i++) {
				set.items[i].tenant = tenants.items[t];
				entry_insert(entries, cap, n_ret, &set.items[i]);
			}
		}
	}
	for (size_t i = 0; i < *n_ret; i++) {
		struct store_view view;
		TRY(store_read_table(read, &entries[i].table, &view));
		entries[i].table_bytes = view.len;
	}
	return NULL;
}

struct err *store_entries(struct store_read *read, const struct store_query *query, struct store_entry *entries, size_t cap,
	size_t *n_ret)
{
	struct found found;

	TRY(find(read, query, &found));
	return collect(read, query, &found, entries, cap, n_ret);
}

struct err *store_resolve(struct store_read *read, const struct store_query *query, struct store_answer *ret)
{
	struct found found;
	size_t n;

	memset(ret, 0, sizeof(*ret));
	TRY(find(read, query, &found));
	TRY(collect(read, query, &found, &ret->entry, 1, &n));
	ret->has_file = found.has_file;
	ret->file = found.file;
	memcpy(ret->reason, found.reason, sizeof(ret->reason));
	ret->status = n > 0 ? STORE_OK : found.has_file || found.has_alias ? STORE_NO_SYMBOLS : STORE_UNKNOWN;
	return NULL;
}

struct err *store_files(struct store_read *read, uint32_t tenant, const struct fileid *after, struct store_file *files,
	size_t cap, size_t *n_ret)
{
	CLEANUP(scan_end) struct scan scan = {0};
	struct key prefix = {0};
	size_t n = 0;

	key_put_uint(&prefix, tenant, 4);
	TRY(scan_begin(&read->txn, DB_FILES, prefix.bytes, prefix.len, &scan));
	if (after)
		scan.from = key_of_file(tenant, after);
	while (n < cap) {
		bool found;
		TRY(scan_next(&scan, &found));
		if (!found)
			break;
		TRY(file_decode(&scan.key, &scan.value, &files[n]));
		if (!after || !fileid_equal(&files[n].file_id, after))
			n++;
	}
	*n_ret = n;
	return NULL;
}

/* -------------------------------------------------------------------------------------- writing */

static struct err *alias_put(struct txn *txn, uint32_t tenant, const struct build_id *build_id, const struct fileid *id)
{
	struct key key = key_of_aliases(tenant, build_id), prefix = key;
	CLEANUP(scan_end) struct scan scan = {0};
	bool found;
	size_t count = 0;

	key_put(&key, id->bytes, FILEID_BYTES);
	TRY(txn_has(txn, DB_ALIASES, key.bytes, key.len, &found));
	if (found)
		return NULL;
	TRY(scan_begin(txn, DB_ALIASES, prefix.bytes, prefix.len, &scan));
	do {
		TRY(scan_next(&scan, &found));
	} while (found && ++count < STORE_ALIASES_MAX);
	if (count >= STORE_ALIASES_MAX) {
		char text[BUILD_ID_HEX_SIZE];
		build_id_format(build_id, text);
		return err_new(ERR_LIMIT, "build ID %s names %d files already", text, STORE_ALIASES_MAX);
	}
	return txn_put(txn, DB_ALIASES, key.bytes, key.len, "", 0);
}

static struct err *file_put(struct txn *txn, uint32_t tenant, const struct store_file *file)
{
	uint8_t bytes[FILE_RECORD_MAX];
	struct key key = key_of_file(tenant, &file->file_id), id = key_of_id(tenant, NULL, &file->file_id);
	struct store_file merged;
	bool found;

	TRY(file_get(txn, tenant, &file->file_id, &merged, &found));
	if (found)
		file_merge(&merged, file);
	else
		merged = *file;
	if (merged.build_id.len > 0)
		TRY(alias_put(txn, tenant, &merged.build_id, &file->file_id));
	size_t len = file_encode(&merged, bytes);
	if (len == 0)
		return err_new(ERR_LIMIT, "file record is too large");
	TRY(txn_put(txn, DB_FILES, key.bytes, key.len, bytes, len));
	return misses_known(txn, &id);
}

static bool set_names(const struct entry_set *set, const struct sha256 *table)
{
	for (size_t i = 0; i < set->count; i++)
		if (memcmp(set->items[i].table.bytes, table->bytes, SHA256_BYTES) == 0)
			return true;
	return false;
}

/* Writes the set with the entry in it, and its references: the table that came in when it is named, those gone that are not. */
static struct err *entry_put(struct txn *txn, const struct key *id, const struct store_entry *entry, const void *table,
	size_t table_len)
{
	struct entry_set before, after;
	uint8_t bytes[SET_RECORD_MAX];
	bool found;

	TRY(set_get(txn, id, &before, &found));
	after = before;
	set_add(&after, entry);
	for (size_t i = 0; i < before.count; i++)
		if (!set_names(&after, &before.items[i].table))
			TRY(tables_unref(txn, &before.items[i].table, id));
	if (set_names(&after, &entry->table)) {
		TRY(tables_put(txn, &entry->table, table, table_len));
		TRY(tables_ref(txn, &entry->table, id));
	}
	size_t len = set_encode(&after, bytes);
	if (len == 0)
		return err_new(ERR_LIMIT, "set of entries is too large");
	TRY(txn_put(txn, DB_SYMBOLS, id->bytes, id->len, bytes, len));
	return misses_known(txn, id);
}

/* A commit as the writer runs it: everything that can be prepared without a transaction is. */
struct prepared {
	const struct store_commit *commit;
	struct store_file file;
	struct store_entry entry;
	struct build_id build_id;
};

static void file_clean(struct store_file *file)
{
	char name[STORE_NAME_SIZE];

	text_copy(name, sizeof(name), file->name);
	memcpy(file->name, name, sizeof(name));
	if (file->first_seen_ms == 0)
		file->first_seen_ms = store_now_ms();
	if (file->segments.count > LOAD_SEGMENTS_MAX)
		file->segments.count = LOAD_SEGMENTS_MAX;
	if (file->build_id.len > BUILD_ID_MAX)
		file->build_id.len = BUILD_ID_MAX;
}

static struct err *prepare(struct store *store, const struct store_commit *commit, struct prepared *ret)
{
	static const struct sha256 none;

	memset(ret, 0, sizeof(*ret));
	ret->commit = commit;
	ret->build_id = commit->build_id;
	if (!commit->has_file && (commit->build_id.len == 0 || commit->build_id.len > BUILD_ID_MAX))
		return err_new(ERR_INVALID, "neither a file record nor a build ID was given");
	if (commit->has_file || commit->has_kernel_id) {
		ret->file = commit->file;
		if (ret->file.build_id.len == 0)
			ret->file.build_id = commit->build_id;
		file_clean(&ret->file);
		ret->build_id = commit->build_id.len > 0 ? commit->build_id : ret->file.build_id;
	}
	if (!commit->table)
		return NULL;
	if (commit->table_len == 0 || commit->table_len > store->options.max_table_bytes)
		return err_new(ERR_LIMIT, "a table of %zu bytes: the limit is %llu", commit->table_len,
			(unsigned long long)store->options.max_table_bytes);
	struct sha256 id;
	TRY(sha256_of(commit->table, commit->table_len, &id));
	ret->entry = commit->entry;
	if (memcmp(&ret->entry.table, &none, sizeof(none)) != 0 && memcmp(&ret->entry.table, &id, sizeof(id)) != 0)
		return err_new(ERR_MISMATCH, "the table's bytes do not have the SHA-256 that its entry names");
	ret->entry.table = id;
	text_copy(ret->entry.provenance, sizeof(ret->entry.provenance), commit->entry.provenance);
	if (ret->entry.created_ms == 0)
		ret->entry.created_ms = store_now_ms();
	return NULL;
}

static struct err *commit_run(struct txn *txn, void *arg)
{
	struct prepared *p = arg;
	const struct store_commit *commit = p->commit;

	if (commit->table) {
		struct key id = key_of_id(commit->tenant, &p->build_id, &p->file.file_id);
		TRY(entry_put(txn, &id, &p->entry, commit->table, commit->table_len));
	}
	if (commit->has_file) {
		TRY(file_put(txn, commit->tenant, &p->file));
		if (p->build_id.len > 0 && !build_id_equal(&p->build_id, &p->file.build_id))
			TRY(alias_put(txn, commit->tenant, &p->build_id, &p->file.file_id));
	}
	if (commit->has_kernel_id) {
		struct store_file kernel = p->file;
		kernel.file_id = commit->kernel_id;
		kernel.size = 0; /* no file's in particular */
		TRY(file_put(txn, commit->tenant, &kernel));
	}
	if (commit->job_id)
		TRY(jobs_committed(
			txn, commit->job_id, commit->table ? &p->entry.table : NULL, commit->job_done, commit->job_reason));
	return NULL;
}

struct err *store_commit_table(struct store *store, const struct store_commit *commit, struct sha256 *table_ret)
{
	struct prepared p;

	TRY(prepare(store, commit, &p));
	TRY(writer_run(store, commit_run, &p, commit->table_len));
	if (commit->job_id && commit->job_done)
		jobs_forget_progress(store, commit->job_id);
	if (table_ret)
		*table_ret = p.entry.table;
	return NULL;
}

struct async {
	struct prepared prepared;
	struct store *store;
	struct command command;
	store_done_fn *done;
	void *done_arg;
};

static void async_done(void *arg, struct err *e)
{
	struct async *async = arg;
	const struct store_commit *commit = async->prepared.commit;

	if (!e && commit->job_id && commit->job_done)
		jobs_forget_progress(async->store, commit->job_id);
	async->done(async->done_arg, e);
	free(async);
}

void store_commit_table_async(struct store *store, const struct store_commit *commit, store_done_fn *done, void *arg)
{
	CLEANUP(freep) struct async *async = malloc(sizeof(*async));
	struct err *e = async ? prepare(store, commit, &async->prepared) : err_nomem();

	if (e) {
		done(arg, e);
		return;
	}
	async->store = store;
	async->done = done;
	async->done_arg = arg;
	async->command = (struct command){
		.run = commit_run, .arg = &async->prepared, .done = async_done, .done_arg = async, .bytes = commit->table_len};
	struct command *command = &async->command;
	async = NULL;
	writer_submit(store, command);
}

struct put_file {
	uint32_t tenant;
	struct store_file file;
};

static struct err *put_file_run(struct txn *txn, void *arg)
{
	struct put_file *put = arg;

	return file_put(txn, put->tenant, &put->file);
}

struct err *store_put_file(struct store *store, uint32_t tenant, const struct store_file *file)
{
	struct put_file put = {.tenant = tenant, .file = *file};

	file_clean(&put.file);
	return writer_run(store, put_file_run, &put, 0);
}

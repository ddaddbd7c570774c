// SPDX-License-Identifier: Apache-2.0
/*
 * Encoding of records. Every value begins with a version byte (RECORD_VERSION); integers are little-endian, text is a
 * u16 length and bytes without NUL, a build ID is a u8 length and bytes. The same record has one encoding, so that stores
 * which know the same things hold the same bytes.
 *
 *   file     version, name, size u64, build ID, machine u16, first seen u64, segments u8,
 *            each: file offset u64, vaddr u64, size u64, executable u8; kernels only: text vaddr u64
 *   set      version, count u16, each: source u8, rank u8, kind u32, table 32, builder u32, created u64, provenance
 *   job      version, tenant u32, kind, state, source, rank u8, attempts u32, flags u8 (1 file ID, 2 table), file ID 16,
 *            build ID, created, started, finished u64, tables u32, table 32, inputs u8 (each role u8, blob 32), name,
 *            provenance, reason
 *   upload   version, tenant u32, role u8, size u64, SHA-256, flags u8 (1 file ID), file ID 16, build ID, offset u64,
 *            created u64, active u64, name
 *   blob     version, tenant u32, role u8, size u64, stored u64, created u64, build ID, name
 *   miss     version, first u64, last u64, count u64
 *
 * Values that are read back are hostile (a damaged disk, another program): decoding is bounded and what does not fit
 * is ERR_CORRUPT with database and key.
 */
#include "store/internal.h"

void text_copy(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size);

	if (len == size) {
		len = size - 1;
		while (len > 0 && ((unsigned char)from[len] & 0xc0) == 0x80)
			len--;
	}
	memcpy(to, from, len);
	memset(to + len, 0, size - len);
}

void encode_bytes(struct encoder *e, const void *bytes, size_t len)
{
	if (e->failed || len > e->cap - e->len) {
		e->failed = true;
		return;
	}
	memcpy(e->bytes + e->len, bytes, len);
	e->len += len;
}

void encode_uint(struct encoder *e, uint64_t value, size_t size)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	encode_bytes(e, bytes, size);
}

void encode_text(struct encoder *e, const char *text)
{
	size_t len = strlen(text);

	encode_uint(e, len, 2);
	encode_bytes(e, text, len);
}

void encode_build_id(struct encoder *e, const struct build_id *id)
{
	encode_uint(e, id->len, 1);
	encode_bytes(e, id->bytes, id->len);
}

void decode_bytes(struct reader *r, void *ret, size_t len)
{
	const uint8_t *bytes = reader_bytes(r, len);

	if (bytes)
		memcpy(ret, bytes, len);
}

void decode_text(struct reader *r, char *text, size_t size)
{
	size_t len = reader_u16(r);
	const uint8_t *bytes = reader_bytes(r, len);

	if (!bytes || len >= size || memchr(bytes, 0, len)) {
		reader_fail(r);
		return;
	}
	memcpy(text, bytes, len);
	memset(text + len, 0, size - len);
}

void decode_build_id(struct reader *r, struct build_id *ret)
{
	size_t len = reader_u8(r);

	if (len > BUILD_ID_MAX) {
		reader_fail(r);
		return;
	}
	memset(ret, 0, sizeof(*ret));
	ret->len = (uint8_t)len;
	decode_bytes(r, ret->bytes, len);
}

struct err *corrupt(enum db db, const void *key, size_t key_len, const char *what)
{
	char text[96];

	key_format(db, key, key_len, text, sizeof(text));
	return err_new(ERR_CORRUPT, "%s: %s", text, what);
}

struct err *decode_end(const struct reader *r, enum db db, const void *key, size_t key_len)
{
	if (r->failed)
		return corrupt(db, key, key_len, "record is damaged");
	if (reader_left(r) > 0)
		return corrupt(db, key, key_len, "record has bytes left over");
	return NULL;
}

static struct reader record_reader(const MDB_val *value)
{
	struct reader r = reader_init(value->mv_data, value->mv_size, false, "record");

	if (reader_u8(&r) != RECORD_VERSION)
		reader_fail(&r);
	return r;
}

static uint64_t in_range(struct reader *r, uint64_t value, uint64_t low, uint64_t high)
{
	if (value < low || value > high)
		reader_fail(r);
	return value;
}

/* -------------------------------------------------------------------------------------- file records */

struct err *file_decode(const MDB_val *key, const MDB_val *value, struct store_file *ret)
{
	struct reader r = record_reader(value);

	if (key->mv_size != 4 + FILEID_BYTES)
		return corrupt(DB_FILES, key->mv_data, key->mv_size, "key of a wrong length");
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->file_id.bytes, (const uint8_t *)key->mv_data + 4, FILEID_BYTES);
	decode_text(&r, ret->name, sizeof(ret->name));
	ret->size = reader_u64(&r);
	decode_build_id(&r, &ret->build_id);
	ret->elf_machine = reader_u16(&r);
	ret->first_seen_ms = reader_u64(&r);
	ret->segments.count = reader_u8(&r);
	if (ret->segments.count > LOAD_SEGMENTS_MAX) {
		ret->segments.count = 0;
		reader_fail(&r);
	}
	for (size_t i = 0; i < ret->segments.count; i++) {
		struct load_segment *s = &ret->segments.items[i];
		s->foff = reader_u64(&r);
		s->vaddr = reader_u64(&r);
		s->size = reader_u64(&r);
		s->executable = in_range(&r, reader_u8(&r), 0, 1) == 1;
	}
	ret->has_text = reader_left(&r) > 0;
	if (ret->has_text)
		ret->text_vaddr = reader_u64(&r);
	return decode_end(&r, DB_FILES, key->mv_data, key->mv_size);
}

size_t file_encode(const struct store_file *file, uint8_t bytes[FILE_RECORD_MAX])
{
	struct encoder e = {.bytes = bytes, .cap = FILE_RECORD_MAX};

	encode_uint(&e, RECORD_VERSION, 1);
	encode_text(&e, file->name);
	encode_uint(&e, file->size, 8);
	encode_build_id(&e, &file->build_id);
	encode_uint(&e, file->elf_machine, 2);
	encode_uint(&e, file->first_seen_ms, 8);
	encode_uint(&e, file->segments.count, 1);
	for (size_t i = 0; i < file->segments.count; i++) {
		const struct load_segment *s = &file->segments.items[i];
		encode_uint(&e, s->foff, 8);
		encode_uint(&e, s->vaddr, 8);
		encode_uint(&e, s->size, 8);
		encode_uint(&e, s->executable, 1);
	}
	if (file->has_text)
		encode_uint(&e, file->text_vaddr, 8);
	return e.failed ? 0 : e.len;
}

static int segments_compare(const struct load_segments *a, const struct load_segments *b)
{
	if (a->count != b->count)
		return a->count > b->count ? 1 : -1;
	for (size_t i = 0; i < a->count; i++) {
		const uint64_t x[] = {a->items[i].foff, a->items[i].vaddr, a->items[i].size, a->items[i].executable};
		const uint64_t y[] = {b->items[i].foff, b->items[i].vaddr, b->items[i].size, b->items[i].executable};
		for (size_t j = 0; j < ARRAY_SIZE(x); j++)
			if (x[j] != y[j])
				return x[j] > y[j] ? 1 : -1;
	}
	return 0;
}

/*
 * Each member is merged by a maximum or minimum of its own, so that order and repetition do not matter. What is not
 * known (0, none, "") loses. A file's content decides all of them but the name, so they differ only when somebody lied.
 */
void file_merge(struct store_file *into, const struct store_file *other)
{
	if (other->name[0] && (!into->name[0] || strcmp(other->name, into->name) < 0))
		memcpy(into->name, other->name, sizeof(into->name));
	if (other->first_seen_ms < into->first_seen_ms)
		into->first_seen_ms = other->first_seen_ms;
	if (other->size > into->size)
		into->size = other->size;
	if (other->elf_machine > into->elf_machine)
		into->elf_machine = other->elf_machine;
	if (other->build_id.len > into->build_id.len ||
		(other->build_id.len == into->build_id.len &&
			memcmp(other->build_id.bytes, into->build_id.bytes, into->build_id.len) > 0))
		into->build_id = other->build_id;
	if (segments_compare(&other->segments, &into->segments) > 0)
		into->segments = other->segments;
	if (other->has_text && (!into->has_text || other->text_vaddr > into->text_vaddr)) {
		into->has_text = true;
		into->text_vaddr = other->text_vaddr;
	}
}

/* -------------------------------------------------------------------------------------- sets of entries */

/* TABLE_FROM_DWARF and TABLE_FROM_GOPCLNTAB: the kinds that give lines. */
enum { KINDS_WITH_LINES = 3 };

static int order_u64(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/* The lowest bit is the best kind; no bit at all is the worst. */
static uint32_t kind_rank(uint32_t kind)
{
	return kind ? 32u - (uint32_t)__builtin_ctz(kind) : 0;
}

bool store_entry_has_lines(const struct store_entry *entry)
{
	return entry->kind & KINDS_WITH_LINES;
}

int entry_compare(const struct store_entry *a, const struct store_entry *b)
{
	int order = order_u64(store_entry_has_lines(a), store_entry_has_lines(b));

	if (!order)
		order = order_u64(a->rank, b->rank);
	if (!order)
		order = order_u64(kind_rank(a->kind), kind_rank(b->kind));
	if (!order)
		order = order_u64((uint64_t)__builtin_popcount(a->kind), (uint64_t)__builtin_popcount(b->kind));
	if (!order)
		order = order_u64(a->builder_version, b->builder_version);
	if (!order)
		order = order_u64(a->created_ms, b->created_ms);
	if (!order)
		order = memcmp(a->table.bytes, b->table.bytes, SHA256_BYTES);
	if (!order)
		order = strcmp(a->provenance, b->provenance);
	if (!order)
		order = order_u64(a->source, b->source);
	return order ? order : order_u64(a->kind, b->kind);
}

static int entry_identity_compare(const struct store_entry *a, const struct store_entry *b)
{
	int order = order_u64(a->source, b->source);

	if (!order)
		order = order_u64(a->kind, b->kind);
	return order ? order : strcmp(a->provenance, b->provenance);
}

/*
 * A set is a map from (source, kind, provenance) to the latest that was said under it: greater builder version, then
 * later, then greater table ID, then greater rank. That is a maximum under a total order, so adding commutes and is
 * idempotent, and a table that was built again replaces its elder instead of piling up. Past STORE_ENTRIES_MAX the worst
 * answer (entry_compare) goes: again the same whatever the order.
 */
static bool entry_replaces(const struct store_entry *old, const struct store_entry *new)
{
	int order = order_u64(new->builder_version, old->builder_version);

	if (!order)
		order = order_u64(new->created_ms, old->created_ms);
	if (!order)
		order = memcmp(new->table.bytes, old->table.bytes, SHA256_BYTES);
	return (order ? order : order_u64(new->rank, old->rank)) > 0;
}

void set_add(struct entry_set *set, const struct store_entry *entry)
{
	size_t at = 0;

	while (at < set->count && entry_identity_compare(&set->items[at], entry) < 0)
		at++;
	if (at < set->count && entry_identity_compare(&set->items[at], entry) == 0) {
		if (entry_replaces(&set->items[at], entry))
			set->items[at] = *entry;
		return;
	}
	memmove(&set->items[at + 1], &set->items[at], (set->count - at) * sizeof(set->items[0]));
	set->items[at] = *entry;
	if (++set->count <= STORE_ENTRIES_MAX)
		return;
	size_t worst = 0;
	for (size_t i = 1; i < set->count; i++)
		if (entry_compare(&set->items[i], &set->items[worst]) < 0)
			worst = i;
	set->count--;
	memmove(&set->items[worst], &set->items[worst + 1], (set->count - worst) * sizeof(set->items[0]));
}

struct err *set_decode(const MDB_val *key, const MDB_val *value, struct entry_set *ret)
{
	struct reader r = record_reader(value);

	ret->count = 0;
	size_t count = in_range(&r, reader_u16(&r), 1, STORE_ENTRIES_MAX);
	for (size_t i = 0; i < count && !r.failed; i++) {
		struct store_entry *entry = &ret->items[i];
		memset(entry, 0, sizeof(*entry));
		entry->source = (enum store_source)reader_u8(&r);
		entry->rank = reader_u8(&r);
		entry->kind = reader_u32(&r);
		decode_bytes(&r, entry->table.bytes, SHA256_BYTES);
		entry->builder_version = reader_u32(&r);
		entry->created_ms = reader_u64(&r);
		decode_text(&r, entry->provenance, sizeof(entry->provenance));
		if (i > 0 && entry_identity_compare(&ret->items[i - 1], entry) >= 0)
			reader_fail(&r);
		ret->count = i + 1;
	}
	return decode_end(&r, DB_SYMBOLS, key->mv_data, key->mv_size);
}

size_t set_encode(const struct entry_set *set, uint8_t bytes[SET_RECORD_MAX])
{
	struct encoder e = {.bytes = bytes, .cap = SET_RECORD_MAX};

	encode_uint(&e, RECORD_VERSION, 1);
	encode_uint(&e, set->count, 2);
	for (size_t i = 0; i < set->count; i++) {
		const struct store_entry *entry = &set->items[i];
		encode_uint(&e, entry->source, 1);
		encode_uint(&e, entry->rank, 1);
		encode_uint(&e, entry->kind, 4);
		encode_bytes(&e, entry->table.bytes, SHA256_BYTES);
		encode_uint(&e, entry->builder_version, 4);
		encode_uint(&e, entry->created_ms, 8);
		encode_text(&e, entry->provenance);
	}
	return e.failed ? 0 : e.len;
}

/* -------------------------------------------------------------------------------------- jobs, uploads, blobs, misses */

enum { FLAG_FILE_ID = 1, FLAG_TABLE = 2 };

struct err *job_decode(const MDB_val *key, const MDB_val *value, struct store_job *ret)
{
	struct reader r = record_reader(value);

	if (key->mv_size != 8)
		return corrupt(DB_JOBS, key->mv_data, key->mv_size, "key of a wrong length");
	memset(ret, 0, sizeof(*ret));
	ret->id = key_get_uint(key->mv_data, 8);
	ret->tenant = reader_u32(&r);
	ret->kind = (enum store_job_kind)in_range(&r, reader_u8(&r), STORE_JOB_ELF, STORE_JOB_PACKAGE);
	ret->state = (enum store_job_state)in_range(&r, reader_u8(&r), STORE_JOB_QUEUED, STORE_JOB_DONE);
	ret->source = (enum store_source)reader_u8(&r);
	ret->rank = reader_u8(&r);
	ret->attempts = reader_u32(&r);
	uint64_t flags = in_range(&r, reader_u8(&r), 0, FLAG_FILE_ID | FLAG_TABLE);
	ret->has_file_id = (flags & FLAG_FILE_ID) != 0;
	ret->has_table = (flags & FLAG_TABLE) != 0;
	decode_bytes(&r, ret->file_id.bytes, FILEID_BYTES);
	decode_build_id(&r, &ret->build_id);
	ret->created_ms = reader_u64(&r);
	ret->started_ms = reader_u64(&r);
	ret->finished_ms = reader_u64(&r);
	ret->tables = reader_u32(&r);
	decode_bytes(&r, ret->table.bytes, SHA256_BYTES);
	ret->input_count = in_range(&r, reader_u8(&r), 0, STORE_JOB_INPUTS_MAX);
	if (r.failed)
		ret->input_count = 0;
	for (size_t i = 0; i < ret->input_count; i++) {
		ret->inputs[i].role =
			(enum store_role)in_range(&r, reader_u8(&r), STORE_ROLE_RUNTIME, STORE_ROLE_SPLIT);
		decode_bytes(&r, ret->inputs[i].blob.bytes, SHA256_BYTES);
	}
	decode_text(&r, ret->name, sizeof(ret->name));
	decode_text(&r, ret->provenance, sizeof(ret->provenance));
	decode_text(&r, ret->reason, sizeof(ret->reason));
	ret->wanted_count = reader_left(&r) > 0 ? in_range(&r, reader_u8(&r), 1, STORE_JOB_WANTED_MAX) : 0; /* older records end here */
	if (r.failed)
		ret->wanted_count = 0;
	for (size_t i = 0; i < ret->wanted_count; i++)
		decode_build_id(&r, &ret->wanted[i]);
	return decode_end(&r, DB_JOBS, key->mv_data, key->mv_size);
}

size_t job_encode(const struct store_job *job, uint8_t bytes[JOB_RECORD_MAX])
{
	struct encoder e = {.bytes = bytes, .cap = JOB_RECORD_MAX};

	encode_uint(&e, RECORD_VERSION, 1);
	encode_uint(&e, job->tenant, 4);
	encode_uint(&e, job->kind, 1);
	encode_uint(&e, job->state, 1);
	encode_uint(&e, job->source, 1);
	encode_uint(&e, job->rank, 1);
	encode_uint(&e, job->attempts, 4);
	encode_uint(&e, (job->has_file_id ? FLAG_FILE_ID : 0u) | (job->has_table ? FLAG_TABLE : 0u), 1);
	encode_bytes(&e, job->file_id.bytes, FILEID_BYTES);
	encode_build_id(&e, &job->build_id);
	encode_uint(&e, job->created_ms, 8);
	encode_uint(&e, job->started_ms, 8);
	encode_uint(&e, job->finished_ms, 8);
	encode_uint(&e, job->tables, 4);
	encode_bytes(&e, job->table.bytes, SHA256_BYTES);
	encode_uint(&e, job->input_count, 1);
	for (size_t i = 0; i < job->input_count; i++) {
		encode_uint(&e, job->inputs[i].role, 1);
		encode_bytes(&e, job->inputs[i].blob.bytes, SHA256_BYTES);
	}
	encode_text(&e, job->name);
	encode_text(&e, job->provenance);
	encode_text(&e, job->reason);
	if (job->wanted_count > 0)
		encode_uint(&e, job->wanted_count, 1);
	for (size_t i = 0; i < job->wanted_count; i++)
		encode_build_id(&e, &job->wanted[i]);
	return e.failed ? 0 : e.len;
}

struct err *upload_decode(const MDB_val *key, const MDB_val *value, struct store_upload *ret)
{
	struct reader r = record_reader(value);

	if (key->mv_size != STORE_UPLOAD_ID_BYTES)
		return corrupt(DB_UPLOADS, key->mv_data, key->mv_size, "key of a wrong length");
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->id, key->mv_data, STORE_UPLOAD_ID_BYTES);
	ret->tenant = reader_u32(&r);
	ret->role = (enum store_role)in_range(&r, reader_u8(&r), STORE_ROLE_RUNTIME, STORE_ROLE_SPLIT);
	ret->size = reader_u64(&r);
	decode_bytes(&r, ret->sha256.bytes, SHA256_BYTES);
	ret->has_file_id = in_range(&r, reader_u8(&r), 0, FLAG_FILE_ID) == FLAG_FILE_ID;
	decode_bytes(&r, ret->file_id.bytes, FILEID_BYTES);
	decode_build_id(&r, &ret->build_id);
	ret->offset = in_range(&r, reader_u64(&r), 0, ret->size);
	ret->created_ms = reader_u64(&r);
	ret->active_ms = reader_u64(&r);
	decode_text(&r, ret->name, sizeof(ret->name));
	return decode_end(&r, DB_UPLOADS, key->mv_data, key->mv_size);
}

size_t upload_encode(const struct store_upload *upload, uint8_t bytes[UPLOAD_RECORD_MAX])
{
	struct encoder e = {.bytes = bytes, .cap = UPLOAD_RECORD_MAX};

	encode_uint(&e, RECORD_VERSION, 1);
	encode_uint(&e, upload->tenant, 4);
	encode_uint(&e, upload->role, 1);
	encode_uint(&e, upload->size, 8);
	encode_bytes(&e, upload->sha256.bytes, SHA256_BYTES);
	encode_uint(&e, upload->has_file_id ? FLAG_FILE_ID : 0, 1);
	encode_bytes(&e, upload->file_id.bytes, FILEID_BYTES);
	encode_build_id(&e, &upload->build_id);
	encode_uint(&e, upload->offset, 8);
	encode_uint(&e, upload->created_ms, 8);
	encode_uint(&e, upload->active_ms, 8);
	encode_text(&e, upload->name);
	return e.failed ? 0 : e.len;
}

struct err *blob_decode(const MDB_val *key, const MDB_val *value, struct blob_record *ret)
{
	struct reader r = record_reader(value);

	if (key->mv_size != SHA256_BYTES)
		return corrupt(DB_BLOBS, key->mv_data, key->mv_size, "key of a wrong length");
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->blob.sha256.bytes, key->mv_data, SHA256_BYTES);
	ret->tenant = reader_u32(&r);
	ret->role = (enum store_role)in_range(&r, reader_u8(&r), STORE_ROLE_RUNTIME, STORE_ROLE_SPLIT);
	ret->blob.size = reader_u64(&r);
	ret->blob.stored_bytes = reader_u64(&r);
	ret->blob.created_ms = reader_u64(&r);
	decode_build_id(&r, &ret->build_id);
	decode_text(&r, ret->blob.name, sizeof(ret->blob.name));
	return decode_end(&r, DB_BLOBS, key->mv_data, key->mv_size);
}

size_t blob_encode(const struct blob_record *record, uint8_t bytes[BLOB_RECORD_MAX])
{
	struct encoder e = {.bytes = bytes, .cap = BLOB_RECORD_MAX};

	encode_uint(&e, RECORD_VERSION, 1);
	encode_uint(&e, record->tenant, 4);
	encode_uint(&e, record->role, 1);
	encode_uint(&e, record->blob.size, 8);
	encode_uint(&e, record->blob.stored_bytes, 8);
	encode_uint(&e, record->blob.created_ms, 8);
	encode_build_id(&e, &record->build_id);
	encode_text(&e, record->blob.name);
	return e.failed ? 0 : e.len;
}

/* tenant u32 | 'B' len bytes, or 'F' 16 bytes. */
static bool id_of_key(const MDB_val *key, struct store_query *ret)
{
	const uint8_t *bytes = key->mv_data;
	size_t len = key->mv_size;

	memset(ret, 0, sizeof(*ret));
	if (len < 6)
		return false;
	ret->tenant = (uint32_t)key_get_uint(bytes, 4);
	if (bytes[4] == 'F' && len == 5 + FILEID_BYTES) {
		ret->has_file_id = true;
		memcpy(ret->file_id.bytes, bytes + 5, FILEID_BYTES);
		return true;
	}
	if (bytes[4] != 'B' || bytes[5] == 0 || bytes[5] > BUILD_ID_MAX || len != 6u + bytes[5])
		return false;
	ret->build_id.len = bytes[5];
	memcpy(ret->build_id.bytes, bytes + 6, bytes[5]);
	return true;
}

struct err *miss_decode(const MDB_val *key, const MDB_val *value, struct store_miss *ret)
{
	struct reader r = record_reader(value);

	memset(ret, 0, sizeof(*ret));
	if (!id_of_key(key, &ret->query))
		return corrupt(DB_MISSES, key->mv_data, key->mv_size, "malformed key");
	ret->first_asked_ms = reader_u64(&r);
	ret->last_asked_ms = reader_u64(&r);
	ret->count = reader_u64(&r);
	return decode_end(&r, DB_MISSES, key->mv_data, key->mv_size);
}

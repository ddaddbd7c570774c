// SPDX-License-Identifier: Apache-2.0
/* Encoding: round trips, damaged records, and that merging does not depend on the order. */
#include "store/internal.h"
#include "tests/store/fixture.h"

#include <criterion/criterion.h>

static uint8_t key_bytes[32];

static MDB_val val(void *bytes, size_t len)
{
	return (MDB_val){.mv_size = len, .mv_data = bytes};
}

/* Every record type decodes its own encoding and refuses each shorter one, one byte more, and another version. */
typedef struct err *decode_fn(const MDB_val *key, const MDB_val *value, void *ret);

static void damage(size_t key_len, const uint8_t *bytes, size_t len, decode_fn *decode, void *ret, const char *name)
{
	uint8_t *copy = malloc(len + 1);
	MDB_val key = val(key_bytes, key_len), value;

	cr_assert_gt(len, 1);
	for (size_t cut = 0; cut <= len + 1; cut++) {
		/* A buffer of its own size, so that a read past it is seen by AddressSanitizer. */
		uint8_t *exact = calloc(1, cut ? cut : 1);
		memcpy(exact, bytes, cut < len ? cut : len);
		value = val(exact, cut);
		struct err *e = decode(&key, &value, ret);
		if (cut == len) {
			cr_assert_null(e, "%s: %s", name, e ? err_message(e) : "");
		} else {
			cr_assert_not_null(e, "%s of %zu instead of %zu bytes", name, cut, len);
			cr_assert_eq(err_code(e), ERR_CORRUPT);
			cr_assert(strstr(err_message(e), name) && strstr(err_message(e), " key 00"), "%s", err_message(e));
		}
		err_free(e);
		free(exact);
	}
	memcpy(copy, bytes, len);
	copy[0]++;
	value = val(copy, len);
	struct err *e = decode(&key, &value, ret);
	cr_assert_not_null(e, "%s of another version", name);
	err_free(e);
	/* Any byte changed: an answer or an error, never a crash. */
	for (size_t i = 0; i < len; i++) {
		memcpy(copy, bytes, len);
		copy[i] ^= 0xff;
		err_free(decode(&key, &value, ret));
	}
	free(copy);
}

#define DECODER(name, type)                                                                        \
	static struct err *name##_any(const MDB_val *key, const MDB_val *value, void *ret)         \
	{                                                                                          \
		return name##_decode(key, value, (struct type *)ret);                              \
	}
DECODER(file, store_file)
DECODER(set, entry_set)
DECODER(job, store_job)
DECODER(upload, store_upload)
DECODER(blob, blob_record)
DECODER(miss, store_miss)

Test(record_decode, refuses_damaged_file_records)
{
	struct store_file file = file_of(0), back;
	uint8_t bytes[FILE_RECORD_MAX];

	file.build_id = build_id_of(9);
	damage(20, bytes, file_encode(&file, bytes), file_any, &back, "files");
	MDB_val key = val(key_bytes, 19), value = val(bytes, file_encode(&file, bytes));
	struct err *e = file_decode(&key, &value, &back);
	cr_assert_not_null(e, "key too short");
	err_free(e);
}

Test(record_decode, refuses_damaged_sets)
{
	struct entry_set set = {0}, back;
	uint8_t bytes[SET_RECORD_MAX];
	struct store_entry a = entry_of(STORE_SOURCE_UPLOAD, 1, "a"), b = entry_of(STORE_SOURCE_PACKAGE, 4, "b");

	set_add(&set, &a);
	set_add(&set, &b);
	damage(25, bytes, set_encode(&set, bytes), set_any, &back, "symbols");
}

Test(record_decode, refuses_a_set_that_is_not_sorted)
{
	struct entry_set set = {.count = 2, .items = {entry_of(STORE_SOURCE_PACKAGE, 1, "b"), entry_of(STORE_SOURCE_UPLOAD, 1, "a")}}, back;
	uint8_t bytes[SET_RECORD_MAX];
	MDB_val key = val(key_bytes, 25), value = val(bytes, set_encode(&set, bytes));

	struct err *e = set_decode(&key, &value, &back);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_CORRUPT);
	err_free(e);
}

Test(record_decode, refuses_damaged_jobs)
{
	struct store_job job = {.kind = STORE_JOB_ELF, .state = STORE_JOB_FAILED, .tenant = 1, .input_count = 2, .name = "n", .reason = "r",
		.provenance = "p", .inputs = {{.role = STORE_ROLE_RUNTIME}, {.role = STORE_ROLE_DEBUG}}}, back;
	uint8_t bytes[JOB_RECORD_MAX];

	job.build_id = build_id_of(3);
	damage(8, bytes, job_encode(&job, bytes), job_any, &back, "jobs");
	MDB_val key = val(key_bytes, 8), value = val(bytes, job_encode(&job, bytes));
	MUST(job_decode(&key, &value, &back));
	cr_assert_eq(memcmp(&job, &back, sizeof(job)), 0);
}

Test(record_decode, refuses_damaged_uploads)
{
	struct store_upload upload = {.role = STORE_ROLE_DEBUG, .size = 100, .offset = 50, .name = "n"}, back;
	uint8_t bytes[UPLOAD_RECORD_MAX];

	damage(16, bytes, upload_encode(&upload, bytes), upload_any, &back, "uploads");
	upload.offset = 101;
	MDB_val key = val(key_bytes, 16), value = val(bytes, upload_encode(&upload, bytes));
	struct err *e = upload_decode(&key, &value, &back);
	cr_assert_not_null(e, "an offset past the size");
	err_free(e);
}

Test(record_decode, refuses_damaged_originals)
{
	struct blob_record record = {.role = STORE_ROLE_DEBUG, .blob = {.size = 10, .stored_bytes = 5, .name = "n"}}, back;
	uint8_t bytes[BLOB_RECORD_MAX];

	record.build_id = build_id_of(3);
	damage(32, bytes, blob_encode(&record, bytes), blob_any, &back, "blobs");
}

Test(record_decode, refuses_damaged_misses)
{
	struct store_miss back;
	uint8_t bytes[25] = {RECORD_VERSION};

	key_bytes[4] = 'F';
	damage(21, bytes, sizeof(bytes), miss_any, &back, "misses");
	MDB_val key = val(key_bytes, 20), value = val(bytes, sizeof(bytes));
	struct err *e = miss_decode(&key, &value, &back);
	cr_assert_not_null(e, "key too short");
	err_free(e);
}

/* -------------------------------------------------------------------------------------- merging */

enum { ENTRIES = 100, ORDERS = 40 };

static struct store_entry random_entry(uint64_t *random)
{
	struct store_entry entry = entry_of((enum store_source)(1 + random_next(random) % 4), 1u << random_next(random) % 3, "");

	/* Few values, so that many are equal in some members. */
	(void)snprintf(entry.provenance, sizeof(entry.provenance), "p%u", (unsigned)(random_next(random) % 8));
	entry.rank = (uint8_t)(random_next(random) % 3);
	entry.builder_version = (uint32_t)(random_next(random) % 3);
	entry.created_ms = random_next(random) % 3;
	entry.table.bytes[0] = (uint8_t)(random_next(random) % 3);
	return entry;
}

Test(set_add, any_order_and_repetition_give_the_same_bytes)
{
	static struct store_entry entries[ENTRIES];
	static uint8_t expected[SET_RECORD_MAX], bytes[SET_RECORD_MAX];
	static struct entry_set set;
	uint64_t random = 5;
	size_t len = 0;

	for (size_t i = 0; i < ENTRIES; i++)
		entries[i] = random_entry(&random);
	for (unsigned order = 0; order < ORDERS; order++) {
		set.count = 0;
		for (size_t i = 0; i < ENTRIES; i++) {
			size_t j = i + random_next(&random) % (ENTRIES - i);
			struct store_entry swap = entries[i];
			entries[i] = entries[j];
			entries[j] = swap;
			set_add(&set, &entries[i]);
			if (random_next(&random) % 2)
				set_add(&set, &entries[random_next(&random) % (i + 1)]);
		}
		cr_assert_leq(set.count, STORE_ENTRIES_MAX);
		size_t n = set_encode(&set, order ? bytes : expected);
		cr_assert_gt(n, 0);
		if (order == 0)
			len = n;
		else
			cr_assert(n == len && memcmp(bytes, expected, n) == 0, "order %u", order);
	}
}

Test(set_add, past_the_limit_the_order_still_does_not_matter)
{
	static struct entry_set forwards, backwards;
	static uint8_t a[SET_RECORD_MAX], b[SET_RECORD_MAX];

	for (unsigned i = 0; i < 2 * STORE_ENTRIES_MAX; i++) {
		for (unsigned k = 0; k < 2; k++) {
			unsigned n = k ? 2 * STORE_ENTRIES_MAX - 1 - i : i;
			char text[16];
			(void)snprintf(text, sizeof(text), "%u", n);
			struct store_entry entry = entry_of(STORE_SOURCE_UPLOAD, 1, text);
			entry.created_ms = n * 7919 % 1000;
			set_add(k ? &backwards : &forwards, &entry);
		}
	}
	size_t n = set_encode(&forwards, a);
	cr_assert_eq(forwards.count, STORE_ENTRIES_MAX);
	cr_assert_eq(n, set_encode(&backwards, b));
	cr_assert_eq(memcmp(a, b, n), 0);
}

Test(file_merge, any_order_gives_the_same_bytes)
{
	struct store_file files[4] = {file_of(1), file_of(1), file_of(1), file_of(1)};
	uint8_t expected[FILE_RECORD_MAX], bytes[FILE_RECORD_MAX];
	size_t len = 0;
	unsigned tried = 0;

	files[0].segments.count = 0;
	files[0].first_seen_ms = 500;
	(void)snprintf(files[1].name, sizeof(files[1].name), "other");
	files[1].build_id = build_id_of(5);
	files[2].name[0] = 0;
	files[2].first_seen_ms = 100;
	files[3].build_id = build_id_of(4);
	files[3].segments.items[0].vaddr++;
	files[1].has_text = true;
	files[1].text_vaddr = 0x1000;
	files[2].has_text = true;
	for (unsigned order = 0; order < 256; order++) {
		unsigned p[4] = {order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3};
		if ((1u << p[0] | 1u << p[1] | 1u << p[2] | 1u << p[3]) != 15)
			continue;
		struct store_file merged = files[p[0]];
		for (unsigned i = 1; i < 4; i++)
			file_merge(&merged, &files[p[i]]);
		file_merge(&merged, &files[p[1]]);
		size_t n = file_encode(&merged, tried ? bytes : expected);
		if (tried++ == 0)
			len = n;
		else
			cr_assert(n == len && memcmp(bytes, expected, n) == 0, "order %u", order);
		cr_assert_eq(merged.first_seen_ms, 100);
		cr_assert_str_eq(merged.name, "lib1.so");
		cr_assert(merged.has_text && merged.text_vaddr == 0x1000);
	}
	cr_assert_eq(tried, 24);
}

Test(text_copy, cuts_between_characters)
{
	char text[5];

	text_copy(text, sizeof(text), "ab\xc3\xa4" "c");
	cr_assert_str_eq(text, "ab\xc3\xa4");
	text_copy(text, sizeof(text), "abc\xc3\xa4");
	cr_assert_str_eq(text, "abc");
}

Test(names, are_words_and_unknown_for_the_rest)
{
	enum store_role role = STORE_ROLE_PACKAGE;

	cr_assert(store_role_parse("debug", &role));
	cr_assert_eq(role, STORE_ROLE_DEBUG);
	cr_assert_not(store_role_parse("Debug", &role));
	cr_assert_eq(role, STORE_ROLE_DEBUG, "untouched");
	cr_assert_str_eq(store_role_name(STORE_ROLE_RUNTIME), "runtime");
	cr_assert_str_eq(store_source_name(STORE_SOURCE_DEBUGINFOD), "debuginfod");
	cr_assert_str_eq(store_source_name((enum store_source)99), "unknown");
	cr_assert_str_eq(store_job_state_name(STORE_JOB_FAILED), "failed");
	cr_assert_gt(store_source_rank(STORE_SOURCE_UPLOAD), store_source_rank(STORE_SOURCE_PACKAGE));
}

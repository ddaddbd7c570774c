// SPDX-License-Identifier: Apache-2.0
/* Time passing over partitions: merging, sealing, late samples, retention; and damage. */
#include "tests/profiles/samples_fixture.h"

#include <criterion/criterion.h>

static struct samples_counters counters_of(struct bench_store *b)
{
	struct samples_counters counters;

	samples_counters(b->samples, &counters);
	return counters;
}

/* How many blocks of a kind there are. */
static unsigned blocks(struct bench_store *b, char kind)
{
	struct store_read *read;
	struct store_scan *scan;
	struct store_view key, value;
	unsigned count = 0;

	MUST(store_read_begin(b->samples->store, &read));
	MUST(store_profiles_scan(store_profiles_read(read), STORE_BLOCKS, NULL, 0, NULL, 0, &scan));
	for (;;) {
		MUST(store_profiles_next(scan, &key, &value));
		if (!key.bytes)
			break;
		count += key.bytes[PARTITION_KEY_BYTES] == kind;
	}
	store_profiles_scan_end(scan);
	store_read_end(read);
	return count;
}

static char *name_of(unsigned i, char name[32])
{
	(void)snprintf(name, 32, "leaf%u f%u main", i % 97, i % 13);
	return name;
}

/* Many commits; the folded text that they must give. malloc'd. */
static char *many(struct bench_store *b, unsigned count, uint64_t start_ms)
{
	struct samples_query query = {.tenant = 1};
	char name[32];

	for (unsigned i = 0; i < count; i++)
		(void)put(b, NULL, name_of(i, name), start_ms + i * 1000ull % 600000, 1 + i % 3);
	return folded(b->samples, &query, NULL);
}

static uint64_t many_total(unsigned count)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < count; i++)
		sum += 1 + i % 3;
	return sum;
}

Test(partition, merging_changes_no_answer)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1};

	make_samples(&b);
	char *before = many(&b, 300, HOUR_START_MS);
	samples_tend(b.samples);
	char *after = folded(b.samples, &query, NULL);
	cr_expect_str_eq(before, after);
	cr_expect_eq(total(b.samples, &query), many_total(300));
	cr_expect_gt(counters_of(&b).merges, 5);
	cr_expect_lt(blocks(&b, 'S'), 64);
	cr_expect_lt(blocks(&b, 'T'), 64);
	free(after);
	reopen_samples(&b);
	after = folded(b.samples, &query, NULL);
	cr_expect_str_eq(before, after);
	free(after);
	free(before);
	end_samples(&b);
}

Test(partition, sealing_leaves_one_block_of_each_kind)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1};

	make_samples(&b);
	char *before = many(&b, 100, HOUR_START_MS);
	atomic_store(&b.now_ms, HOUR_START_MS + HOUR_MS + 10 * 60 * 1000);
	samples_tend(b.samples);
	cr_expect_eq(counters_of(&b).sealed, 0, "not before seal_after");
	atomic_fetch_add(&b.now_ms, 1000);
	samples_tend(b.samples);
	cr_expect_eq(counters_of(&b).sealed, 1);
	cr_expect_eq(blocks(&b, 'S'), 1);
	cr_expect_eq(blocks(&b, 'D'), 1);
	char *after = folded(b.samples, &query, NULL);
	cr_expect_str_eq(before, after);
	free(before);
	free(after);
	end_samples(&b);
}

Test(partition, late_samples_open_another_generation)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1};
	struct store_view key, value;
	struct store_read *read;
	uint8_t bytes[BLOCK_KEY_BYTES];

	make_samples(&b);
	(void)put(&b, NULL, "a", HOUR_START_MS, 1);
	atomic_store(&b.now_ms, HOUR_START_MS + 2 * HOUR_MS);
	samples_tend(b.samples);
	cr_expect_eq(counters_of(&b).sealed, 1);
	block_key(&(struct partition_id){.start = HOUR_START_MS / 1000, .tenant = 1}, BLOCK_SAMPLES, 0, bytes);
	MUST(store_read_begin(b.samples->store, &read));
	MUST(store_profiles_get(store_profiles_read(read), STORE_BLOCKS, bytes, sizeof(bytes), &value));
	cr_assert_not_null(value.bytes);
	uint8_t *sealed = malloc(value.len);
	memcpy(sealed, value.bytes, value.len);
	size_t len = value.len;
	store_read_end(read);
	cr_expect_eq(put(&b, NULL, "b a", HOUR_START_MS, 2).samples, 1);
	cr_expect_eq(counters_of(&b).partitions, 2);
	cr_expect_eq(total(b.samples, &query), 3);
	/* What is sealed did not change. */
	MUST(store_read_begin(b.samples->store, &read));
	MUST(store_profiles_get(store_profiles_read(read), STORE_BLOCKS, bytes, sizeof(bytes), &value));
	cr_expect_eq(value.len, len);
	cr_expect_arr_eq(value.bytes, sealed, len);
	store_read_end(read);
	free(sealed);
	(void)key;
	atomic_fetch_add(&b.now_ms, HOUR_MS);
	samples_tend(b.samples);
	cr_expect_eq(counters_of(&b).sealed, 2);
	cr_expect_eq(total(b.samples, &query), 3);
	end_samples(&b);
}

Test(partition, old_ones_are_dropped_whole)
{
	struct bench_store b = {.options = {.keep_ms = 5 * HOUR_MS}};
	struct samples_query query = {.tenant = 1};

	make_samples(&b);
	for (uint64_t h = 0; h < 4; h++) {
		atomic_store(&b.now_ms, HOUR_START_MS + h * HOUR_MS + 1000);
		(void)put(&b, NULL, "a", HOUR_START_MS + h * HOUR_MS, 1ull << h);
	}
	atomic_store(&b.now_ms, HOUR_START_MS + 6 * HOUR_MS);
	samples_tend(b.samples);
	cr_expect_eq(total(b.samples, &query), 15, "the first one is exactly keep_ms old");
	atomic_fetch_add(&b.now_ms, 1);
	samples_tend(b.samples);
	cr_expect_eq(total(b.samples, &query), 14);
	cr_expect_eq(counters_of(&b).dropped_by_age, 1);
	atomic_fetch_add(&b.now_ms, 30 * HOUR_MS);
	samples_tend(b.samples);
	cr_expect_eq(total(b.samples, &query), 0);
	cr_expect_eq(counters_of(&b).partitions, 0);
	cr_expect_eq(counters_of(&b).stored_bytes, 0);
	cr_expect_eq(blocks(&b, 'S') + blocks(&b, 'T') + blocks(&b, 'D'), 0);
	end_samples(&b);
}

Test(partition, the_oldest_are_dropped_for_size)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1};

	make_samples(&b);
	for (uint64_t h = 0; h < 6; h++) {
		atomic_store(&b.now_ms, HOUR_START_MS + h * HOUR_MS + 700 * 1000);
		free(many(&b, 40, HOUR_START_MS + h * HOUR_MS));
	}
	uint64_t bytes = counters_of(&b).stored_bytes;
	b.options.max_bytes = bytes - 2000;
	reopen_samples(&b);
	samples_tend(b.samples);
	cr_expect_leq(counters_of(&b).stored_bytes, bytes - 2000, "%llu of %llu", (unsigned long long)counters_of(&b).stored_bytes, (unsigned long long)bytes);
	cr_expect_gt(counters_of(&b).dropped_by_size, 1);
	cr_expect_gt(counters_of(&b).partitions, 1);
	query.to_unix_nano = (HOUR_START_MS + HOUR_MS) * 1000000;
	cr_expect_eq(total(b.samples, &query), 0);
	query = (struct samples_query){.tenant = 1, .from_unix_nano = (HOUR_START_MS + 5 * HOUR_MS) * 1000000};
	cr_expect_eq(total(b.samples, &query), many_total(40));
	end_samples(&b);
}

Test(partition, more_hours_than_are_kept_in_memory_still_take_samples)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1};

	make_samples(&b);
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t h = 0; h < LOADED_MAX + 4; h++)
			(void)put(&b, NULL, "b a", HOUR_START_MS - h * HOUR_MS + round * 1000, 1);
	cr_expect_eq(total(b.samples, &query), 3 * (LOADED_MAX + 4));
	end_samples(&b);
}

Test(partition, too_many_types_begin_another_generation)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1, .type = TEXT("t:u:p:v:7")};

	make_samples(&b);
	for (int64_t i = 0; i < 300; i++) {
		struct samples_type type = {TEXT("t"), TEXT("u"), TEXT("p"), TEXT("v"), i + 1};
		struct filler f = fill(b.samples, 1, NULL, &type, "web", "main");
		add(&f, "a", HOUR_START_MS, 1);
		cr_assert_eq(commit(&f).samples, 1);
	}
	cr_expect_eq(counters_of(&b).partitions, 2);
	cr_expect_eq(total(b.samples, &query), 1);
	query.type = TEXT("t:u:p:v:299");
	cr_expect_eq(total(b.samples, &query), 1);
	end_samples(&b);
}

/* -------------------------------------------------------------------------------------- damage */

struct damage {
	enum block_kind kind;
};

static struct err *spoil(struct store_txn *txn, void *arg)
{
	const struct damage *damage = arg;
	struct store_view value;
	uint8_t key[BLOCK_KEY_BYTES];

	block_key(&(struct partition_id){.start = HOUR_START_MS / 1000, .tenant = 1}, damage->kind, 0, key);
	TRY(store_profiles_get(txn, STORE_BLOCKS, key, sizeof(key), &value));
	cr_assert_not_null(value.bytes);
	uint8_t *copy = malloc(value.len);
	size_t len = value.len;
	memcpy(copy, value.bytes, len);
	copy[len / 2] ^= 1;
	struct err *e = store_profiles_put(txn, STORE_BLOCKS, key, sizeof(key), copy, len);
	free(copy);
	return e;
}

static void spoiled(void *arg, struct err *e)
{
	MUST(e);
	atomic_store((atomic_bool *)arg, true);
}

static void damage_block(struct bench_store *b, enum block_kind kind)
{
	static struct damage damage;
	atomic_bool done = false;

	damage.kind = kind;
	MUST(store_profiles_submit(b->samples->store, spoil, &damage, spoiled, &done));
	while (!atomic_load(&done))
		(void)usleep(100);
}

static void expect_damage(enum block_kind kind, const char *words)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1};
	struct profile profile;

	make_samples(&b);
	(void)put(&b, NULL, "a", HOUR_START_MS, 1);
	damage_block(&b, kind);
	reopen_samples(&b);
	struct err *e = samples_query(b.samples, &query, NULL, &profile, NULL);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_CORRUPT);
	cr_expect_not_null(strstr(err_message(e), words), "%s", err_message(e));
	cr_expect_not_null(strstr(err_message(e), "checksum"), "%s", err_message(e));
	err_free(e);
	/* New samples of that hour are taken all the same, and the next hour reads. */
	cr_expect_eq(put(&b, NULL, "a", HOUR_START_MS, 1).samples, 1);
	cr_expect_eq(put(&b, NULL, "a", HOUR_START_MS - HOUR_MS, 4).samples, 1);
	query.to_unix_nano = HOUR_START_MS * 1000000;
	cr_expect_eq(total(b.samples, &query), 4);
	end_samples(&b);
}

Test(partition, a_damaged_dictionary_is_named)
{
	expect_damage(BLOCK_DICT, "4400000000: ");
}

Test(partition, damaged_samples_are_named)
{
	expect_damage(BLOCK_SAMPLES, "5300000000: ");
}

Test(partition, reading_only_sees_what_is_there_and_takes_nothing)
{
	struct bench_store b = {0};
	struct samples_query query = {.tenant = 1};

	make_samples(&b);
	(void)put(&b, NULL, "a", HOUR_START_MS, 3);
	samples_close(b.samples);
	b.options.read_only = true;
	open_samples(&b);
	cr_expect_eq(total(b.samples, &query), 3);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	struct err *e = samples_commit_wait(&f.batch, NULL);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_INVALID);
	err_free(e);
	end_samples(&b);
}

Test(partition, a_full_store_refuses_whole_batches_and_keeps_what_was_acknowledged)
{
	struct bench_store b = {.options = {.map_max = 1 << 20}};
	struct samples_query query = {.tenant = 1};
	uint64_t sum = 0;
	unsigned failures = 0;
	uint8_t key[16];

	make_samples(&b);
	for (uint64_t n = 0; n < 400 && failures < 3; n++) {
		key_make(n, key);
		struct filler f = fill(b.samples, 1, key, cpu_type(), "web", "main");
		for (unsigned i = 0; i < 300; i++) {
			char name[64];
			(void)snprintf(name, sizeof(name), "leaf%llu_%u main", (unsigned long long)(n * 7919 % 10007), i * 31);
			add(&f, name, HOUR_START_MS + i * 1000, 1 + n);
		}
		struct samples_result result;
		struct err *e = samples_commit_wait(&f.batch, &result);
		if (!e) {
			sum += 300 * (1 + n);
			cr_expect_eq(result.duplicate_profiles, 0);
			continue;
		}
		cr_expect_eq(err_code(e), ERR_LIMIT, "%s", err_message(e));
		cr_expect_eq(result.samples, 0);
		err_free(e);
		failures++;
	}
	cr_expect_eq(failures, 3);
	cr_expect_gt(sum, 0);
	cr_expect_eq(total(b.samples, &query), sum);
	reopen_samples(&b);
	cr_expect_eq(total(b.samples, &query), sum);
	end_samples(&b);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Readers while the writer replaces tables, commits in groups and compacts: every read sees a whole snapshot. A plain program,
 * since Criterion does not run under ThreadSanitizer.
 */
#include "tests/store/fixture.h"

#include <pthread.h>
#include <stdatomic.h>

enum { READERS = 4, WRITERS = 3, NAMES = 4, COMMITS = 120 };

static struct store *store;
static atomic_bool stop;
static atomic_uint_fast64_t reads;

/* Table n of a name: its length and every byte follow from its first 8 bytes. */
static size_t length_of(uint64_t seed)
{
	return 64 + (size_t)(seed % 97) * 4099;
}

static uint8_t *make_table(uint64_t seed)
{
	uint8_t *bytes = table_bytes(seed * 31, length_of(seed));

	memcpy(bytes, &seed, sizeof(seed));
	return bytes;
}

static void expect(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "%s\n", what);
	abort();
}

static void check_table(const struct store_view *view)
{
	uint64_t seed;

	expect(view->bytes && view->len >= 64, "an entry names a table that is not there");
	memcpy(&seed, view->bytes, sizeof(seed));
	expect(view->len == length_of(seed), "a table of a wrong length");
	uint8_t *wanted = make_table(seed);
	expect(memcmp(wanted, view->bytes, view->len) == 0, "a table of wrong bytes");
	free(wanted);
}

static void *reader(void *arg)
{
	uint64_t random = (uint64_t)(uintptr_t)arg;

	while (!atomic_load(&stop)) {
		struct store_read *read;
		MUST(store_read_begin(store, &read));
		for (uint64_t i = 0; i < NAMES; i++) {
			struct store_query query = {.tenant = 1, .build_id = build_id_of(i + 1)};
			struct store_answer answer;
			struct store_view view;
			if (random_next(&random) % 3 == 0)
				store_miss_note(store, &query);
			MUST(store_resolve(read, &query, &answer));
			if (answer.status != STORE_OK)
				continue;
			MUST(store_read_table(read, &answer.entry.table, &view));
			check_table(&view);
		}
		store_read_end(read);
		atomic_fetch_add(&reads, 1);
	}
	return NULL;
}

static void *writer(void *arg)
{
	uint64_t who = (uint64_t)(uintptr_t)arg;

	for (uint64_t i = 0; i < COMMITS; i++) {
		uint64_t seed = i * WRITERS + who;
		uint8_t *bytes = make_table(seed);
		struct store_commit c = {.tenant = 1, .build_id = build_id_of(i % NAMES + 1), .table = bytes, .table_len = length_of(seed),
			.entry = entry_of(STORE_SOURCE_UPLOAD, 1, "t")};
		c.entry.builder_version = (uint32_t)seed;
		MUST(store_commit_table(store, &c, NULL));
		free(bytes);
		if (i % 40 == 39) {
			uint64_t removed;
			MUST(store_gc(store, &removed));
		}
	}
	return NULL;
}

int main(void)
{
	pthread_t readers[READERS], writers[WRITERS];
	struct check_log log;
	struct store_stat stat;
	char dir[64];

	temp_dir_make(dir);
	store = open_restless(dir);
	for (uintptr_t i = 0; i < READERS; i++)
		expect(pthread_create(&readers[i], NULL, reader, (void *)(i + 1)) == 0, "pthread_create");
	for (uintptr_t i = 0; i < WRITERS; i++)
		expect(pthread_create(&writers[i], NULL, writer, (void *)i) == 0, "pthread_create");
	for (size_t i = 0; i < WRITERS; i++)
		(void)pthread_join(writers[i], NULL);
	atomic_store(&stop, true);
	for (size_t i = 0; i < READERS; i++)
		(void)pthread_join(readers[i], NULL);
	MUST(store_stat(store, &stat));
	(void)printf("%llu reads, %llu commands in %llu commits, %llu compactions\n", (unsigned long long)reads,
		(unsigned long long)stat.commands, (unsigned long long)stat.commits, (unsigned long long)stat.compactions);
	expect(stat.compactions >= 9 && reads > 0, "the test did nothing");
	expect(stat.counts.tables == NAMES, "a replaced table is still there");
	expect(faults_of(store, &log, NULL) == 0, log.first);
	store_close(store);
	temp_dir_remove(dir);
	return 0;
}

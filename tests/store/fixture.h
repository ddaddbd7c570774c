// SPDX-License-Identifier: Apache-2.0
/* What the store's tests share: a store in a temporary folder, tables of made-up bytes, IDs. */
#ifndef CAIRN_TESTS_STORE_FIXTURE_H
#define CAIRN_TESTS_STORE_FIXTURE_H

#include "store/blob.h"
#include "store/job.h"
#include "store/miss.h"
#include "store/store.h"

#include <assert.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Ends the test with the message of an error. */
#define MUST(call)                                                                                 \
	do {                                                                                       \
		struct err *must_ = (call);                                                        \
		if (must_) {                                                                       \
			(void)fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call,        \
				err_message(must_));                                               \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static inline void temp_dir_make(char path[static 64])
{
	(void)snprintf(path, 64, "/tmp/cairn-store.XXXXXX");
	if (!mkdtemp(path))
		abort();
}

static inline int temp_dir_entry(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
	(void)stat;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void temp_dir_remove(const char *path)
{
	(void)nftw(path, temp_dir_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline uint64_t random_next(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
	uint64_t z = *state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Bytes that depend on the seed: the same table for the same seed and length. malloc'd. */
static inline uint8_t *table_bytes(uint64_t seed, size_t len)
{
	uint8_t *bytes = malloc(len + 8);

	if (!bytes)
		abort();
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = random_next(&seed);
		memcpy(bytes + i, &word, 8);
	}
	return bytes;
}

static inline struct build_id build_id_of(uint64_t number)
{
	struct build_id id = {.len = 20};

	for (size_t i = 0; i < id.len; i++)
		id.bytes[i] = (uint8_t)(number >> (8 * (i % 8)));
	return id;
}

static inline struct fileid file_id_of(uint64_t number)
{
	struct fileid id;

	memset(&id, 0x55, sizeof(id));
	memcpy(id.bytes, &number, sizeof(number));
	return id;
}

static inline struct store_file file_of(uint64_t number)
{
	struct store_file file = {.file_id = file_id_of(number), .size = 4096, .first_seen_ms = 1000, .elf_machine = 62};

	(void)snprintf(file.name, sizeof(file.name), "lib%llu.so", (unsigned long long)number);
	file.segments.count = 1;
	file.segments.items[0] = (struct load_segment){.foff = 0x1000, .vaddr = 0x401000, .size = 0x2000, .executable = true};
	return file;
}

static inline struct store_entry entry_of(enum store_source source, uint32_t kind, const char *provenance)
{
	struct store_entry entry = {
		.source = source, .rank = store_source_rank(source), .kind = kind, .builder_version = 1, .created_ms = 1000};

	(void)snprintf(entry.provenance, sizeof(entry.provenance), "%s", provenance);
	return entry;
}

static inline struct store *open_at(const char *path)
{
	struct store_options options = {.data_dir = path, .map_max = 64ull << 30};
	struct store *store;

	MUST(store_open(&options, &store));
	return store;
}

/* One that compacts all the time. */
static inline struct store *open_restless(const char *path)
{
	struct store_options options = {.data_dir = path, .map_max = 64ull << 30, .compact_floor_bytes = 1};
	struct store *store;

	MUST(store_open(&options, &store));
	return store;
}

struct check_log {
	uint64_t faults;
	char first[512];
};

static inline void check_log_fault(void *context, const char *message)
{
	struct check_log *log = context;

	if (log->faults++ == 0)
		(void)snprintf(log->first, sizeof(log->first), "%s", message);
}

static inline uint64_t faults_of(struct store *store, struct check_log *log, struct store_counts *counts)
{
	struct store_check_report report = {.fault = check_log_fault, .context = log};
	struct store_counts ignored;

	memset(log, 0, sizeof(*log));
	MUST(store_check(store, NULL, &report, counts ? counts : &ignored));
	return log->faults;
}

#endif

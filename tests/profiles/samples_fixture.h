// SPDX-License-Identifier: Apache-2.0
/* What the tests of samples share: a store in a temporary folder with a clock of the test's, batches of made-up stacks, sums. */
#ifndef CAIRN_TESTS_PROFILES_SAMPLES_FIXTURE_H
#define CAIRN_TESTS_PROFILES_SAMPLES_FIXTURE_H

#include "profiles/samples_internal.h"
#include "store/profiles.h"
#include "tests/store/fixture.h"

#include <stdatomic.h>

#define TEXT(literal) ((struct samples_text){literal, sizeof(literal) - 1})

enum { HOUR_MS = 3600 * 1000 };
/* An hour that begins exactly here. */
#define START_MS 1790000000000ull
#define HOUR_START_MS (START_MS / HOUR_MS * HOUR_MS)

static inline struct samples_text text_make(const char *text)
{
	return (struct samples_text){text, strlen(text)};
}

static inline uint64_t clock_read(void *context)
{
	return atomic_load((atomic_ullong *)context);
}

struct bench_store {
	char dir[64];
	atomic_ullong now_ms;
	struct samples_options options;
	struct samples *samples;
};

static inline void open_samples(struct bench_store *b)
{
	b->options.data_dir = b->dir;
	if (!b->options.map_max)
		b->options.map_max = 8ull << 30;
	b->options.now_ms = clock_read;
	b->options.now_context = &b->now_ms;
	MUST(samples_open(&b->options, &b->samples));
}

static inline void make_samples(struct bench_store *b)
{
	temp_dir_make(b->dir);
	atomic_store(&b->now_ms, HOUR_START_MS + 600 * 1000);
	open_samples(b);
}

static inline void reopen_samples(struct bench_store *b)
{
	samples_close(b->samples);
	open_samples(b);
}

static inline void end_samples(struct bench_store *b)
{
	samples_close(b->samples);
	temp_dir_remove(b->dir);
}

static inline void key_make(uint64_t number, uint8_t key[16])
{
	memset(key, 0x11, 16);
	memcpy(key, &number, sizeof(number));
}

/* A profile of one type and label set; its numbers in the batch. */
struct filler {
	struct samples_batch *batch;
	uint32_t type, labels;
};

static inline const struct samples_type *cpu_type(void)
{
	static const struct samples_type type = {{"samples", 7}, {"count", 5}, {"cpu", 3}, {"nanoseconds", 11}, 50000000};
	return &type;
}

static inline struct filler fill(struct samples *samples, uint32_t tenant, const uint8_t *key, const struct samples_type *type,
	const char *service, const char *comm)
{
	struct filler f;
	struct samples_label process[] = {{TEXT(SAMPLES_LABEL_SERVICE), text_make(service)}, {TEXT(SAMPLES_LABEL_HOST), TEXT("h1")}};
	struct samples_label thread[] = {{TEXT(SAMPLES_LABEL_COMM), text_make(comm)}};
	uint32_t parent;

	MUST(samples_batch_create(samples, tenant, &f.batch));
	MUST(samples_batch_profile(f.batch, key));
	MUST(samples_batch_type(f.batch, type, &f.type));
	MUST(samples_batch_labels(f.batch, SAMPLES_NONE, process, 2, &parent));
	MUST(samples_batch_labels(f.batch, parent, thread, 1, &f.labels));
	return f;
}

/* A stack of interpreted frames named in `names`, leaf first, separated by spaces. */
static inline uint32_t stack_make(struct samples_batch *batch, const char *names)
{
	uint32_t locations[64], depth = 0, trace;

	while (*names) {
		size_t len = strcspn(names, " ");
		struct samples_line line = {.function = {names, len}, .file = TEXT("a.py"), .line = 7};
		struct samples_location location = {
			.kind = PROFILE_FRAME_INTERPRETED, .mapping = SAMPLES_NONE, .lines = &line, .line_count = 1};
		MUST(samples_batch_location(batch, &location, &locations[depth++]));
		names += len + (names[len] == ' ');
	}
	MUST(samples_batch_trace(batch, locations, depth, &trace));
	return trace;
}

static inline struct samples_sample sample_make(const struct filler *f, uint32_t trace, uint64_t ms, uint64_t value)
{
	return (struct samples_sample){.trace = trace,
		.labels = f->labels,
		.type = f->type,
		.cpu = -1,
		.exact = true,
		.time_unix_nano = ms * 1000000 + 123,
		.value = value};
}

static inline void add(const struct filler *f, const char *names, uint64_t ms, uint64_t value)
{
	struct samples_sample sample = sample_make(f, stack_make(f->batch, names), ms, value);

	MUST(samples_batch_add(f->batch, &sample));
}

static inline struct samples_result commit(struct filler *f)
{
	struct samples_result result;

	MUST(samples_commit_wait(&f->batch, &result));
	return result;
}

/* One batch of one stack. */
static inline struct samples_result put(struct bench_store *b, const uint8_t *key, const char *names, uint64_t ms, uint64_t value)
{
	struct filler f = fill(b->samples, 1, key, cpu_type(), "web", "main");

	add(&f, names, ms, value);
	return commit(&f);
}

/* Folded text of a query; malloc'd. */
static inline char *folded(struct samples *samples, const struct samples_query *query, const struct samples_resolver *resolver)
{
	struct profile profile;
	struct buf text = {0};

	MUST(samples_query(samples, query, resolver, &profile, NULL));
	MUST(profile_write_folded(&profile, &text));
	MUST(buf_append(&text, "", 1));
	profile_deinit(&profile);
	return (char *)text.data;
}

static inline uint64_t total(struct samples *samples, const struct samples_query *query)
{
	struct profile profile;

	MUST(samples_query(samples, query, NULL, &profile, NULL));
	uint64_t sum = profile.total;
	profile_deinit(&profile);
	return sum;
}

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Replacements of tables: how large the store's file becomes against the live bytes, and what a commit takes.
 *     store_churn DIR [REPLACEMENTS=1000] [LIVE=20] [MIN_MB=1] [MAX_MB=50] [SEED=1] [PAUSE_MS=0]
 * DIR is made and must not exist. LIVE tables of uniformly random size are committed, then one at random is replaced by one
 * of another random size, REPLACEMENTS times. Without a pause it is the worst case: compaction cannot keep up beside the commits, which then wait for it.
 */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static double now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void must(struct err *e, const char *what)
{
	if (!e)
		return;
	(void)fprintf(stderr, "store_churn: %s: %s\n", what, err_message(e));
	exit(1);
}

struct churn {
	struct store *store;
	uint8_t *bytes;
	uint64_t min, max, random;
	uint32_t version;
	uint64_t *sizes; /* of the live tables */
	size_t live;
};

/* Replaces table @p i, in milliseconds from call to durable, SHA-256 included. */
static double replace(struct churn *c, size_t i)
{
	size_t len = (size_t)(c->min + random_next(&c->random) % (c->max - c->min + 1));
	struct store_commit commit = {.tenant = 1, .build_id = {.len = 20}, .table = c->bytes, .table_len = len,
		.entry = {.source = STORE_SOURCE_UPLOAD, .kind = 1, .builder_version = ++c->version, .provenance = "churn"}};

	memcpy(commit.build_id.bytes, &i, sizeof(i));
	memcpy(c->bytes, &c->version, sizeof(c->version)); /* other bytes, another identity */
	double start = now_ms();
	must(store_commit_table(c->store, &commit, NULL), "commit");
	c->sizes[i] = len;
	return now_ms() - start;
}

static uint64_t live_bytes(const struct churn *c)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < c->live; i++)
		sum += c->sizes[i];
	return sum;
}

static uint64_t file_bytes(const char *dir)
{
	struct stat file;
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/symbols/data.mdb", dir);
	if (stat(path, &file)) {
		(void)fprintf(stderr, "store_churn: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	return (uint64_t)file.st_size;
}

/* RssAnon: what is not the map of the file. */
static uint64_t own_memory(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	unsigned long long kb = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %llu", &kb) == 1)
			break;
	if (f)
		(void)fclose(f);
	return kb << 10;
}

static uint64_t argument(int argc, char **argv, int i, uint64_t otherwise)
{
	return i < argc ? strtoull(argv[i], NULL, 10) : otherwise;
}

static void report(struct churn *c, const char *dir, double *ms, size_t count, double worst, double seconds)
{
	struct store_stat stat;
	double last = (double)file_bytes(dir) / (double)live_bytes(c);

	qsort(ms, count, sizeof(ms[0]), by_value);
	must(store_stat(c->store, &stat), "stat");
	(void)printf("replacements %zu, live tables %zu of %llu..%llu bytes, %.1f s\n", count, c->live, (unsigned long long)c->min,
		(unsigned long long)c->max, seconds);
	(void)printf("file / live bytes: %.2f at the end (%.0f / %.0f MB), %.2f at most after a commit\n", last,
		(double)file_bytes(dir) / 1e6, (double)live_bytes(c) / 1e6, worst);
	(void)printf("commit ms: p50 %.1f  p90 %.1f  p99 %.1f  max %.1f\n", ms[count / 2], ms[count * 9 / 10], ms[count * 99 / 100],
		ms[count - 1]);
	(void)printf("compactions %llu\n", (unsigned long long)stat.compactions);
}

int main(int argc, char **argv)
{
	if (argc < 2 || argv[1][0] == '-') {
		(void)fprintf(stderr, "usage: store_churn DIR [REPLACEMENTS] [LIVE] [MIN_MB] [MAX_MB] [SEED] [PAUSE_MS]\n");
		return 2;
	}
	size_t count = argument(argc, argv, 2, 1000);
	struct churn c = {.live = argument(argc, argv, 3, 20), .min = argument(argc, argv, 4, 1) * 1000000,
		.max = argument(argc, argv, 5, 50) * 1000000, .random = argument(argc, argv, 6, 1) * 0x9e3779b97f4a7c15ull};
	struct store_options options = {.data_dir = argv[1]};
	uint64_t pause_ms = argument(argc, argv, 7, 0), memory = 0;
	double *ms = calloc(count + 1, sizeof(*ms)), worst = 0;

	c.sizes = calloc(c.live, sizeof(*c.sizes));
	c.bytes = malloc(c.max);
	if (!ms || !c.sizes || !c.bytes || count == 0 || c.live == 0)
		return 1;
	for (size_t i = 0; i < c.max / 8; i++)
		((uint64_t *)(void *)c.bytes)[i] = random_next(&c.random);
	if (access(argv[1], F_OK) == 0) {
		(void)fprintf(stderr, "store_churn: %s exists\n", argv[1]);
		return 1;
	}
	must(store_open(&options, &c.store), "open");
	for (size_t i = 0; i < c.live; i++)
		(void)replace(&c, i);
	double start = now_ms();
	for (size_t i = 0; i < count; i++) {
		ms[i] = replace(&c, random_next(&c.random) % c.live);
		(void)usleep((useconds_t)(pause_ms * 1000));
		double ratio = (double)file_bytes(argv[1]) / (double)live_bytes(&c);
		worst = ratio > worst ? ratio : worst;
		uint64_t now = own_memory();
		memory = now > memory ? now : memory;
	}
	report(&c, argv[1], ms, count, worst, (now_ms() - start) / 1e3);
	(void)printf("memory of its own after a commit: %llu MB at most, of which %llu MB are the benchmark's table\n",
		(unsigned long long)(memory >> 20), (unsigned long long)(c.max >> 20));
	(void)sleep(2);
	(void)printf("after 2 s of rest: %.2f\n", (double)file_bytes(argv[1]) / (double)live_bytes(&c));
	store_close(c.store);
	free(c.bytes);
	free(c.sizes);
	free(ms);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * How fast a table answers inside a process, on one core, all inline frames walked:
 *     bench-lookup TABLE [COUNT [SEED]]
 * Random addresses (only such as something covers, evenly over the whole span) are looked up one at a time, then in
 * batches of 100,000 and of 1,000, unordered and sorted. Everything is warm: the whole run is done once before it is measured,
 * and the best of ROUNDS is printed, in CPU time. The bytes lie at 16 modulo 64, as LMDB gives them. Every frame is read (a sum over
 * its members is printed), so that nothing is optimized away.
 */
#include "symbolizer/table/table.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { ROUNDS = 9, BATCH_FRAMES = 2048 };

struct totals {
	uint64_t frames, sum;
};

/* The thread's time on the CPU: what others do on the machine costs cache, but not time. */
static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* xorshift64* */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

static void add_frames(const struct table_frame *frames, size_t count, struct totals *totals)
{
	for (size_t i = 0; i < count; i++)
		totals->sum += frames[i].line + frames[i].column + (uintptr_t)frames[i].function + (uintptr_t)frames[i].base;
	totals->frames += count;
}

static struct totals run_single(const struct table *table, const uint64_t *vaddrs, size_t count)
{
	struct totals totals = {0};
	struct table_frame frames[TABLE_MAX_DEPTH];
	for (size_t i = 0; i < count; i++)
		add_frames(frames, table_lookup(table, vaddrs[i], frames, TABLE_MAX_DEPTH), &totals);
	return totals;
}

static struct totals run_batch(const struct table *table, const uint64_t *vaddrs, size_t count)
{
	static struct table_frame frames[BATCH_FRAMES];
	static uint32_t first[BATCH_FRAMES + 1];
	struct totals totals = {0};
	for (size_t done = 0; done < count;) {
		size_t ask = count - done < BATCH_FRAMES ? count - done : BATCH_FRAMES;
		size_t n = table_lookup_batch(table, vaddrs + done, ask, frames, BATCH_FRAMES, first);
		add_frames(frames, first[n], &totals);
		done += n;
	}
	return totals;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* Best rate of ROUNDS after one that is not counted. `batch` 0: one at a time. */
static void measure(const char *name, const struct table *table, const uint64_t *vaddrs, size_t count, size_t batch)
{
	double best = 1e9;
	struct totals totals = {0};
	for (int round = 0; round <= ROUNDS; round++) {
		double start = now_s();
		totals = (struct totals){0};
		for (size_t i = 0; i < count; i += batch ? batch : count) {
			size_t n = batch && count - i > batch ? batch : count - i;
			struct totals t = batch ? run_batch(table, vaddrs + i, n) : run_single(table, vaddrs + i, n);
			totals.frames += t.frames;
			totals.sum += t.sum;
		}
		double took = now_s() - start;
		if (round && took < best)
			best = took;
	}
	printf("%-32s %8.2f M addresses/s  %6.1f ns  %.2f frames an address  (sum %016" PRIx64 ")\n", name,
		(double)count / best * 1e-6, best / (double)count * 1e9, (double)totals.frames / (double)count, totals.sum);
}

/* The file's bytes at 16 modulo 64; NULL with a message. Freed with the process. */
static uint8_t *load(const char *path, size_t *len_ret)
{
	struct stat st;
	FILE *file = fopen(path, "rbe");
	if (!file || fstat(fileno(file), &st) != 0) {
		perror(path);
		return NULL;
	}
	size_t len = (size_t)st.st_size;
	uint8_t *bytes = aligned_alloc(4096, (len + 16 + 4095) / 4096 * 4096);
	if (!bytes || fread(bytes + 16, 1, len, file) != len) {
		fprintf(stderr, "%s: not read\n", path);
		return NULL;
	}
	(void)fclose(file);
	*len_ret = len;
	return bytes + 16;
}

static size_t pick_addresses(const struct table *table, size_t count, uint64_t seed, uint64_t *ret)
{
	struct table_info info;
	table_info(table, &info);
	uint64_t span = info.high_vaddr - info.low_vaddr, state = seed ? seed : 1;
	size_t found = 0, tries = 0;
	struct table_frame frames[2];
	for (; span && found < count && tries < count * 100; tries++) {
		uint64_t vaddr = info.low_vaddr + next_random(&state) % span;
		if (table_lookup(table, vaddr, frames, 2))
			ret[found++] = vaddr;
	}
	return found;
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: bench-lookup TABLE [COUNT [SEED]]\n");
		return 2;
	}
	size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000000, len = 0;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
	uint8_t *bytes = load(argv[1], &len);
	struct table table;
	struct err *e = bytes ? table_open(bytes, len, &table) : NULL;
	uint64_t *vaddrs = malloc((count + 1) * sizeof(*vaddrs));
	if (!bytes || e || !vaddrs) {
		if (e)
			fprintf(stderr, "%s: %s\n", argv[1], err_message(e));
		return 1;
	}
	count = pick_addresses(&table, count, seed, vaddrs);
	if (count == 0) {
		fprintf(stderr, "%s: covers nothing\n", argv[1]);
		return 1;
	}
	struct table_info info;
	table_info(&table, &info);
	printf("%s: %zu bytes, %" PRIu64 " rows, %" PRIu64 " inline nodes, %" PRIu64 " functions; %zu addresses\n", argv[1], len,
		info.rows, info.inline_nodes, info.functions, count);
	printf("index %" PRIu64 ", blocks %" PRIu64 " (%.2f bytes a row), nodes %" PRIu64 ", functions %" PRIu64 ", files %" PRIu64
	       ", text %" PRIu64 " bytes\n",
		info.index_bytes, info.block_bytes, (double)(info.block_bytes + info.index_bytes) / (double)info.rows,
		info.node_bytes, info.function_bytes, info.file_bytes, info.string_bytes);
	measure("random, one at a time", &table, vaddrs, count, 0);
	measure("random, batches of 100,000", &table, vaddrs, count, 100000);
	measure("random, batches of 1,000", &table, vaddrs, count, 1000);
	qsort(vaddrs, count, sizeof(*vaddrs), compare_u64);
	measure("sorted, one at a time", &table, vaddrs, count, 0);
	measure("sorted, batches of 100,000", &table, vaddrs, count, 100000);
	free(vaddrs);
	free(bytes - 16);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/* A lookup allocates nothing: the allocator is counted from inside the process. Not built with sanitizers, which have their own. */
#include "tests/table/sample.h"

#include <criterion/criterion.h>

static size_t allocations;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
	allocations++;
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	allocations++;
	return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	allocations++;
	return __libc_realloc(old, size);
}

static struct sample sample;

Test(table_lookup, allocates_nothing)
{
	enum { BATCH = 1000, CAP = 4 * TABLE_MAX_DEPTH };
	static const struct sample_shape shape = {.rows = 300,
		.nodes = 200,
		.functions = 40,
		.files = 20,
		.max_gap = 12,
		.hole_in = 20,
		.max_depth = 8,
		.max_line = 3000,
		.max_column = 100};
	static struct table_frame frames[CAP];
	static uint64_t vaddrs[BATCH];
	static uint32_t first[BATCH + 1];
	uint64_t state = 3;
	size_t answered = 0;

	sample_fill(&sample, &shape, &state);
	CLEANUP(buf_deinit) struct buf buf = {0};
	struct err *e = table_write(&sample.input, &buf);
	cr_assert_null(e);
	for (size_t i = 0; i < BATCH; i++)
		vaddrs[i] = sample.input.rows[i % sample.input.row_count].vaddr;
	size_t before = allocations;
	cr_assert_gt(before, 0, "the allocator is not counted");

	struct table table;
	e = table_open(buf.data, buf.len, &table);
	for (size_t i = 0; i < BATCH; i++)
		answered += table_lookup(&table, vaddrs[i], frames, CAP);
	for (size_t done = 0; done < BATCH;)
		done += table_lookup_batch(&table, vaddrs + done, BATCH - done, frames, CAP, first);
	size_t after = allocations;
	cr_assert_null(e);
	cr_assert_gt(answered, BATCH / 2);
	cr_assert_eq(after, before);
}

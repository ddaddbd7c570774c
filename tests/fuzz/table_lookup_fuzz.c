// SPDX-License-Identifier: Apache-2.0
/* Bytes as a table: opened, described, verified, asked one by one and in batches. Its length in the header is made right, since
 * nothing behind a wrong one is reached. Corpus: tables of tests/table/sample.c, whole and damaged. */
#include "symbolizer/table/format.h"
#include "symbolizer/table/table.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ADDRESSES = 96 };

static void use_frames(const struct table *table, const struct table_frame *frames, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t text = strlen(frames[i].function) + strlen(frames[i].dir) + strlen(frames[i].base);
		uint32_t cursor = frames[i].aliases, steps = 0;
		while (steps++ < 1000 && table_next_alias(table, &cursor))
			;
		if (text > 3 * table->len)
			abort();
	}
}

/* One by one and in a batch must be the same chains. */
static void look_up(const struct table *table, const uint64_t *vaddrs)
{
	static struct table_frame one[TABLE_MAX_DEPTH], many[2 * TABLE_MAX_DEPTH];
	uint32_t first[ADDRESSES + 1];
	for (size_t done = 0; done < ADDRESSES;) {
		size_t n = table_lookup_batch(table, vaddrs + done, ADDRESSES - done, many, 2 * TABLE_MAX_DEPTH, first);
		if (n == 0 || n > ADDRESSES - done)
			abort();
		for (size_t i = 0; i < n; i++) {
			size_t depth = table_lookup(table, vaddrs[done + i], one, TABLE_MAX_DEPTH);
			if (depth != first[i + 1] - first[i] || (depth && one[0].function != many[first[i]].function))
				abort();
			use_frames(table, one, depth);
		}
		done += n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (size >= sizeof(struct table_header))
		memcpy(copy + offsetof(struct table_header, total_bytes), &(uint64_t){size}, sizeof(uint64_t));
	struct table table;
	struct err *e = table_open(copy, size, &table);
	if (!e) {
		struct table_info info;
		uint64_t vaddrs[ADDRESSES];
		table_info(&table, &info);
		uint64_t span = info.high_vaddr - info.low_vaddr;
		for (uint64_t i = 0; i < ADDRESSES; i++)
			vaddrs[i] = info.low_vaddr + (i % 3 ? i * 5 : i * (span / ADDRESSES + 1));
		look_up(&table, vaddrs);
		e = table_verify(&table);
	}
	err_free(e);
	free(copy);
	return 0;
}

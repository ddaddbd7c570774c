// SPDX-License-Identifier: Apache-2.0
/* What a build of hostile images must keep: it fails with an error that fits, or gives a table that is sound. */
#ifndef CAIRN_TESTS_FUZZ_BUILD_CHECK_H
#define CAIRN_TESTS_FUZZ_BUILD_CHECK_H

#include "base/reader.h"
#include "symbolizer/build/build.h"
#include "symbolizer/table/table.h"

#include <stdlib.h>

static inline void build_check(const struct build_options *options)
{
	static struct table_frame frames[TABLE_MAX_DEPTH];
	struct buf bytes CLEANUP(buf_deinit) = {0};
	struct build_stats stats;
	struct table table;

	struct err *e = build_table(options, &bytes, &stats);
	if (e) {
		/* A table that the writer refuses is a mistake of the builder. */
		if (err_code(e) == ERR_INVALID || err_code(e) == ERR_INTERNAL || err_code(e) == ERR_CORRUPT || bytes.len != 0)
			abort();
		err_free(e);
		return;
	}
	if (table_open(bytes.data, bytes.len, &table) || table_verify(&table))
		abort();
	struct table_info info;
	table_info(&table, &info);
	uint64_t step = (info.high_vaddr - info.low_vaddr) / 64 + 1;
	for (uint64_t i = 0, vaddr = info.low_vaddr; i < 64 && vaddr < info.high_vaddr; i++, vaddr += step)
		(void)table_lookup(&table, vaddr, frames, TABLE_MAX_DEPTH);
}

/* A build of two images: length of the first (4 bytes, little-endian), first, second. False: @p data is none. */
static inline bool build_check_split(const uint8_t *data, size_t size, struct build_image *first, struct build_image *second)
{
	struct reader r = reader_init(data, size, false, "input");
	size_t len = reader_u32(&r);

	if (r.failed || len >= reader_left(&r))
		return false;
	*first = (struct build_image){.bytes = r.pos, .len = len, .name = "fuzz"};
	*second = (struct build_image){.bytes = r.pos + len, .len = reader_left(&r) - len, .name = "second"};
	return true;
}

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Blocks: what one value of the `blocks` database holds. A block of samples is columns of rows that are sorted and whose
 * equals were added up; a block of exact times is the same with nanoseconds, nothing added up; a block of the
 * dictionary is a piece of a struct dict. block.c has the layout.
 *
 * Numbers in rows are the partition's.
 */
#ifndef CAIRN_PROFILES_BLOCK_H
#define CAIRN_PROFILES_BLOCK_H

#include "base/buf.h"
#include "profiles/column.h"

#include <stdbool.h>

enum block_kind { BLOCK_DICT = 'D', BLOCK_SAMPLES = 'S', BLOCK_TIMES = 'T' };

enum {
	BLOCK_VERSION = 1,
	BLOCK_ROWS_MAX = 1 << 20, /* of a merged block; that of one commit may be larger */
	BLOCK_ROWS_LIMIT = 1 << 26, /* of any: a block that says more is damaged */
	BLOCK_TYPES_MAX = 1 << 8,
	BLOCK_LABELS_MAX = 1 << 24,
	BLOCK_SECONDS_MAX = 1 << 16,
};

/* One group of equal samples, or one sample with its time. Sorted by (hi, lo, ns). */
struct row {
	uint64_t hi; /* type u8 | labels u24 | trace u32 */
	uint64_t lo; /* second of the partition u16 | cpu + 1 u16 | link u32 */
	uint64_t value;
	uint32_t ns; /* within the second; 0 in blocks of samples */
};

static inline uint64_t row_hi(uint32_t type, uint32_t labels, uint32_t trace)
{
	return (uint64_t)type << 56 | (uint64_t)labels << 32 | trace;
}
static inline uint64_t row_lo(uint32_t second, int32_t cpu, uint32_t link)
{
	return (uint64_t)second << 48 | (uint64_t)(uint16_t)(cpu + 1) << 32 | link;
}
static inline uint32_t hi_type(uint64_t hi)
{
	return (uint32_t)(hi >> 56);
}
static inline uint32_t hi_labels(uint64_t hi)
{
	return (uint32_t)(hi >> 32) & (BLOCK_LABELS_MAX - 1);
}
static inline uint32_t hi_trace(uint64_t hi)
{
	return (uint32_t)hi;
}
static inline uint32_t lo_second(uint64_t lo)
{
	return (uint32_t)(lo >> 48);
}
static inline int32_t lo_cpu(uint64_t lo)
{
	return (int32_t)((lo >> 32) & 0xffff) - 1;
}
static inline uint32_t lo_link(uint64_t lo)
{
	return (uint32_t)lo;
}
/** a + b, or the largest number. */
static inline uint64_t add_saturating(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* A growing array of rows. */
struct rows {
	struct row *items;
	size_t count, cap;
};
struct err *rows_add(struct rows *rows, const struct row *row) MUST_USE;
void rows_deinit(struct rows *rows);
/** Sorts by (hi, lo, ns). Fast on runs that are sorted already. ERR_NOMEM (rows are unchanged). O(n log runs). */
struct err *rows_sort(struct rows *rows) MUST_USE;
/** Adds up equal (hi, lo) of sorted rows. */
void rows_add_up(struct rows *rows);

/* What a block says of itself without being inflated. */
struct block {
	enum block_kind kind;
	uint8_t level; /* how often it was merged */
	/* Of samples and times: */
	uint32_t rows, groups;
	uint32_t first_second, last_second; /* of the partition */
	uint64_t value; /* of all rows */
	struct reader payload;
};

/** Appends a block of sorted rows; with nanoseconds when @p kind is BLOCK_TIMES. @p zlevel as zstd's. ERR_NOMEM, ERR_LIMIT. */
struct err *block_encode(const struct rows *rows, enum block_kind kind, unsigned level, int zlevel, struct buf *ret) MUST_USE;
/** Begins a block of the dictionary; the caller appends dict_encode's bytes and calls block_finish. */
struct err *block_begin(enum block_kind kind, unsigned level, struct buf *ret) MUST_USE;
/** Appends the checksum of all that is in @p ret. */
struct err *block_finish(struct buf *ret) MUST_USE;

/** Checks version and checksum and reads the head. ERR_FORMAT; ERR_UNSUPPORTED: a newer version. */
struct err *block_open(const void *bytes, size_t len, struct block *ret) MUST_USE;
/** Appends its rows to @p ret. ERR_FORMAT, ERR_NOMEM. */
struct err *block_rows(const struct block *block, struct rows *ret) MUST_USE;

/* Equal (type, labels, trace) of a block: what a read needs that wants the whole block. */
struct group {
	uint64_t hi;
	uint32_t rows;
	uint64_t value;
};
/** Its groups, malloc'd, *count_ret of them, sorted. ERR_FORMAT, ERR_NOMEM. Seconds, CPUs, links are not inflated. */
struct err *block_groups(const struct block *block, struct group **ret, size_t *count_ret) MUST_USE;

#endif

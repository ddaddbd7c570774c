// SPDX-License-Identifier: Apache-2.0
/*
 * Columns of stored blocks: bytes that belong together, compressed when that helps.
 *     column: varint length as it is, u8 method, varint length as stored, bytes
 * And varints (LEB128) in and out of a buf.
 */
#ifndef CAIRN_PROFILES_COLUMN_H
#define CAIRN_PROFILES_COLUMN_H

#include "base/buf.h"
#include "base/reader.h"

enum { VARINT_MAX = 10, COLUMN_BYTES_MAX = 1 << 28 };

/** Appends a varint to a buffer with VARINT_MAX bytes of room. */
static inline void varint_put(struct buf *buf, uint64_t value)
{
	while (value >= 0x80) {
		buf->data[buf->len++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	buf->data[buf->len++] = (uint8_t)value;
}

static inline struct err *varint_append(struct buf *buf, uint64_t value)
{
	TRY(buf_reserve(buf, VARINT_MAX));
	varint_put(buf, value);
	return NULL;
}

static inline uint64_t zigzag(int64_t value)
{
	return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}
static inline int64_t unzigzag(uint64_t value)
{
	return (int64_t)(value >> 1 ^ (~(value & 1) + 1));
}

/** A reader of what a buffer holds; an empty one has no bytes at all to point to. */
static inline struct reader buf_reader(const struct buf *buf, const char *place)
{
	return reader_init(buf->data ? (const void *)buf->data : "", buf->len, false, place);
}

/** Appends a column of @p len bytes. @p level as zstd's. */
struct err *column_append(struct buf *buf, const void *bytes, size_t len, int level) MUST_USE;

/* A column that was found but not inflated. */
struct column {
	const uint8_t *stored;
	size_t stored_len, len;
	uint8_t method;
};
/** The next column of a block; fails the reader when it is malformed. */
struct column column_read(struct reader *r);
/** Appends its bytes to @p ret. ERR_FORMAT, ERR_NOMEM. */
struct err *column_inflate(const struct column *column, struct buf *ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
#include "profiles/column.h"

#include "base/codec.h"

enum method {
	METHOD_PLAIN,
	METHOD_ZSTD,
	METHOD_SAME, /* one byte, repeated */
};

/* Smaller columns lose more to a frame's header than they win. */
enum { ZSTD_MIN = 48 };

static bool all_same(const uint8_t *bytes, size_t len)
{
	return len > 1 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static struct err *append_as(struct buf *buf, enum method method, const void *bytes, size_t stored)
{
	TRY(buf_append(buf, &(uint8_t){(uint8_t)method}, 1));
	TRY(varint_append(buf, stored));
	return stored > 0 ? buf_append(buf, bytes, stored) : NULL;
}

struct err *column_append(struct buf *buf, const void *bytes, size_t len, int level)
{
	CLEANUP(buf_deinit) struct buf packed = {0};

	if (len > COLUMN_BYTES_MAX)
		return err_new(ERR_LIMIT, "a column of %zu bytes, %d at most", len, COLUMN_BYTES_MAX);
	TRY(varint_append(buf, len));
	if (all_same(bytes, len))
		return append_as(buf, METHOD_SAME, bytes, 1);
	if (len >= ZSTD_MIN)
		TRY(codec_compress_zstd(bytes, len, level, &packed));
	if (packed.len > 0 && packed.len < len)
		return append_as(buf, METHOD_ZSTD, packed.data, packed.len);
	return append_as(buf, METHOD_PLAIN, bytes, len);
}

struct column column_read(struct reader *r)
{
	struct column column = {.len = reader_uleb(r)};

	column.method = reader_u8(r);
	column.stored_len = reader_uleb(r);
	column.stored = reader_bytes(r, column.stored_len);
	bool good = column.len <= COLUMN_BYTES_MAX &&
		((column.method == METHOD_PLAIN && column.stored_len == column.len) || column.method == METHOD_ZSTD ||
			(column.method == METHOD_SAME && column.stored_len == 1));
	if (!good)
		reader_fail(r);
	return column;
}

struct err *column_inflate(const struct column *column, struct buf *ret)
{
	TRY(buf_reserve(ret, column->len));
	if (column->len == 0)
		return NULL;
	if (column->method == METHOD_PLAIN)
		memcpy(ret->data + ret->len, column->stored, column->len);
	else if (column->method == METHOD_SAME)
		memset(ret->data + ret->len, column->stored[0], column->len);
	else
		TRY(codec_decompress_exact(CODEC_ZSTD, column->stored, column->stored_len, ret->data + ret->len, column->len));
	ret->len += column->len;
	return NULL;
}

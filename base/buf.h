// SPDX-License-Identifier: Apache-2.0
/*
 * A growing byte string. `data` may move on every append. Growth past BUF_MAX is ERR_LIMIT.
 * Writers that append a lot use buf_reserve once and fill `data + len` themselves.
 */
#ifndef CAIRN_BASE_BUF_H
#define CAIRN_BASE_BUF_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The largest value that LMDB stores is 4 GiB - 1; nothing that is kept in memory is larger. */
#define BUF_MAX ((size_t)UINT32_MAX)

struct buf {
	uint8_t *data; /* malloc'd, NULL while cap is 0 */
	size_t len;
	size_t cap;
};

/** Makes room for @p extra more bytes after len. ERR_NOMEM, ERR_LIMIT. Amortized O(1). */
struct err *buf_reserve(struct buf *buf, size_t extra) MUST_USE;
/** Appends a copy. ERR_NOMEM, ERR_LIMIT. */
struct err *buf_append(struct buf *buf, const void *bytes, size_t len) MUST_USE;
/** Appends formatted text without its NUL. ERR_NOMEM, ERR_LIMIT. */
struct err *buf_printf(struct buf *buf, const char *format, ...)
	__attribute__((format(printf, 2, 3))) MUST_USE;
/** Frees the bytes and leaves an empty buffer. For CLEANUP too. */
void buf_deinit(struct buf *buf);

/** Appends one byte to a buffer with room reserved. */
static inline void buf_put_u8(struct buf *buf, uint8_t value)
{
	buf->data[buf->len++] = value;
}

#endif

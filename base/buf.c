// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

struct err *buf_reserve(struct buf *buf, size_t extra)
{
	if (buf->cap - buf->len >= extra)
		return NULL;
	if (extra > BUF_MAX - buf->len)
		return err_new(ERR_LIMIT, "a buffer would pass %zu bytes", BUF_MAX);
	size_t need = buf->len + extra;
	size_t cap = buf->cap ? buf->cap + buf->cap / 2 : 64;

	if (cap < need)
		cap = need;
	if (cap > BUF_MAX)
		cap = BUF_MAX;
	uint8_t *data = realloc(buf->data, cap);
	if (!data)
		return err_nomem();
	buf->data = data;
	buf->cap = cap;
	return NULL;
}

struct err *buf_append(struct buf *buf, const void *bytes, size_t len)
{
	TRY(buf_reserve(buf, len));
	if (len > 0)
		memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	return NULL;
}

struct err *buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args, again;

	va_start(args, format);
	va_copy(again, args);
	int len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	struct err *e = len < 0 ? err_new(ERR_INTERNAL, "cannot format text") :
				  buf_reserve(buf, (size_t)len + 1);
	if (!e) {
		(void)vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, format, again);
		buf->len += (size_t)len;
	}
	va_end(again);
	return e;
}

void buf_deinit(struct buf *buf)
{
	free(buf->data);
	*buf = (struct buf){0};
}

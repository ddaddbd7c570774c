// SPDX-License-Identifier: Apache-2.0
#include "proto/wire.h"

static struct err *append_head(struct buf *out, uint32_t field, size_t len)
{
	TRY(buf_reserve(out, WIRE_HEAD_MAX + len));
	wire_put_tag(out, field, WIRE_LEN);
	wire_put_varint(out, len);
	return NULL;
}

struct err *wire_append_bytes(struct buf *out, uint32_t field, const void *bytes, size_t len)
{
	TRY(append_head(out, field, len));
	return buf_append(out, bytes, len);
}

struct err *wire_append_joined(struct buf *out, uint32_t field, const char *const parts[3])
{
	size_t len = strlen(parts[0]) + strlen(parts[1]) + strlen(parts[2]);

	TRY(append_head(out, field, len));
	for (size_t i = 0; i < 3; i++)
		TRY(buf_append(out, parts[i], strlen(parts[i])));
	return NULL;
}

struct err *wire_append_packed_u32(struct buf *out, uint32_t field, const uint32_t *values, size_t count)
{
	size_t len = 0;

	if (count == 0)
		return NULL;
	for (size_t i = 0; i < count; i++)
		len += wire_varint_size(values[i]);
	TRY(append_head(out, field, len));
	for (size_t i = 0; i < count; i++)
		wire_put_varint(out, values[i]);
	return NULL;
}

struct err *wire_append_packed_u64(struct buf *out, uint32_t field, const uint64_t *values, size_t count)
{
	size_t len = 0;

	if (count == 0)
		return NULL;
	for (size_t i = 0; i < count; i++)
		len += wire_varint_size(values[i]);
	TRY(append_head(out, field, len));
	for (size_t i = 0; i < count; i++)
		wire_put_varint(out, values[i]);
	return NULL;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The protobuf wire format, written by hand where nanopb would visit every leaf once a level (packages.md: 5 M
 * frames a second): tags, varints and lengths put straight into a buf. The caller reserves first and puts then.
 * Source: protobuf.dev, "Encoding".
 */
#ifndef CAIRN_PROTO_WIRE_H
#define CAIRN_PROTO_WIRE_H

#include "base/buf.h"

#include <stdint.h>

enum {
	WIRE_VARINT = 0,
	WIRE_FIXED64 = 1,
	WIRE_LEN = 2,
	WIRE_FIXED32 = 5,
	WIRE_VARINT_MAX = 10, /* bytes of a 64-bit varint */
	WIRE_HEAD_MAX = 15,   /* tag of a field number under 2^29, and a length */
};

/** Bytes of @p value as a varint: 1 to 10. */
static inline size_t wire_varint_size(uint64_t value)
{
	return (size_t)((63 - __builtin_clzll(value | 1)) * 9 + 73) / 64;
}

/** Puts a varint into a buffer with WIRE_VARINT_MAX bytes reserved. */
static inline void wire_put_varint(struct buf *out, uint64_t value)
{
	while (value >= 0x80) {
		buf_put_u8(out, (uint8_t)(value | 0x80));
		value >>= 7;
	}
	buf_put_u8(out, (uint8_t)value);
}

static inline void wire_put_tag(struct buf *out, uint32_t field, unsigned type)
{
	wire_put_varint(out, (uint64_t)field << 3 | type);
}

/** Bytes of a varint field; 0 for the value 0, which proto3 leaves out. @p field under 16. */
static inline size_t wire_field_size(uint64_t value)
{
	return value ? 1 + wire_varint_size(value) : 0;
}

/** Puts a varint field unless it is 0. @p field under 16. */
static inline void wire_put_field(struct buf *out, uint32_t field, uint64_t value)
{
	if (!value)
		return;
	wire_put_tag(out, field, WIRE_VARINT);
	wire_put_varint(out, value);
}

/** Appends a length-delimited field (string, bytes, a message encoded before). ERR_NOMEM, ERR_LIMIT. */
struct err *wire_append_bytes(struct buf *out, uint32_t field, const void *bytes, size_t len) MUST_USE;
/** Appends a string field made of three parts without joining them first. ERR_NOMEM, ERR_LIMIT. */
struct err *wire_append_joined(struct buf *out, uint32_t field, const char *const parts[3]) MUST_USE;
/** Appends a packed repeated varint field; nothing when @p count is 0. ERR_NOMEM, ERR_LIMIT. */
struct err *wire_append_packed_u32(struct buf *out, uint32_t field, const uint32_t *values, size_t count) MUST_USE;
struct err *wire_append_packed_u64(struct buf *out, uint32_t field, const uint64_t *values, size_t count) MUST_USE;

#endif

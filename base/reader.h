// SPDX-License-Identifier: Apache-2.0
/*
 * The bounded reader that every parser of strangers' bytes uses. It holds [pos, end) and a sticky
 * failure: a read past the end returns 0, moves nothing further and sets `failed`, so that a parser
 * checks once per record instead of once per byte, and no loop can run on a failed reader when it
 * tests reader_left(), which is then 0. Errors are made where the parser knows the words:
 *     return reader_error(&r, "abbreviation %u is not defined", code);
 * gives "<place>+0x<offset>: abbreviation 7 is not defined".
 * Reads are unaligned; byte order is the reader's. One thread at a time; copies are cheap and free.
 */
#ifndef CAIRN_BASE_READER_H
#define CAIRN_BASE_READER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
	const uint8_t *start; /* offsets in errors count from here */
	const uint8_t *pos;
	const uint8_t *end;
	const char *place; /* what `start` is, as text for errors: "a.debug: .debug_info"; borrowed */
	bool big_endian;
	bool failed;
};

static inline struct reader reader_init(const void *bytes, size_t len, bool big_endian, const char *place)
{
	const uint8_t *start = bytes;
	return (struct reader){
		.start = start, .pos = start, .end = start ? start + len : start, .place = place, .big_endian = big_endian};
}

/** Bytes not read yet; 0 once failed. */
static inline size_t reader_left(const struct reader *r)
{
	return (size_t)(r->end - r->pos);
}

static inline uint64_t reader_offset(const struct reader *r)
{
	return (uint64_t)(r->pos - r->start);
}

/** Marks the reader failed at the present position: nothing more can be read. */
static inline void reader_fail(struct reader *r)
{
	r->failed = true;
	r->end = r->pos;
}

/** @p len bytes in place, or NULL (and failed) when fewer are left. */
static inline const uint8_t *reader_bytes(struct reader *r, uint64_t len)
{
	if (__builtin_expect(len > reader_left(r), 0)) {
		reader_fail(r);
		return NULL;
	}
	const uint8_t *bytes = r->pos;
	r->pos += len;
	return bytes;
}

static inline void reader_skip(struct reader *r, uint64_t len)
{
	(void)reader_bytes(r, len);
}

/** Moves to an offset from start; past the end fails. */
static inline void reader_seek(struct reader *r, uint64_t offset)
{
	if (r->failed)
		return;
	if (offset > (uint64_t)(r->end - r->start)) {
		reader_fail(r);
		return;
	}
	r->pos = r->start + offset;
}

static inline uint8_t reader_u8(struct reader *r)
{
	const uint8_t *p = reader_bytes(r, 1);
	return p ? *p : 0;
}

static inline uint16_t reader_u16(struct reader *r)
{
	const uint8_t *p = reader_bytes(r, 2);
	uint16_t v = 0;
	if (p)
		memcpy(&v, p, sizeof(v));
	return r->big_endian ? __builtin_bswap16(v) : v;
}

static inline uint32_t reader_u32(struct reader *r)
{
	const uint8_t *p = reader_bytes(r, 4);
	uint32_t v = 0;
	if (p)
		memcpy(&v, p, sizeof(v));
	return r->big_endian ? __builtin_bswap32(v) : v;
}

static inline uint64_t reader_u64(struct reader *r)
{
	const uint8_t *p = reader_bytes(r, 8);
	uint64_t v = 0;
	if (p)
		memcpy(&v, p, sizeof(v));
	return r->big_endian ? __builtin_bswap64(v) : v;
}

/** An unsigned integer of @p size bytes (1 to 8); other sizes fail. */
static inline uint64_t reader_uint(struct reader *r, unsigned size)
{
	switch (size) {
	case 1:
		return reader_u8(r);
	case 2:
		return reader_u16(r);
	case 4:
		return reader_u32(r);
	case 8:
		return reader_u64(r);
	default:
		break;
	}
	const uint8_t *p = size < 8 && size > 0 ? reader_bytes(r, size) : NULL;
	uint64_t v = 0;
	if (!p) {
		reader_fail(r);
		return 0;
	}
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[r->big_endian ? size - 1 - i : i] << (8 * i);
	return v;
}

/** LEB128 of at most ten bytes (DWARF 5, 7.6); bits past 64 are dropped, a longer one fails. */
static inline uint64_t reader_uleb(struct reader *r)
{
	if (__builtin_expect(r->pos < r->end && *r->pos < 0x80, 1))
		return *r->pos++;
	if (__builtin_expect(r->end - r->pos > 1 && r->pos[1] < 0x80, 1)) {
		r->pos += 2;
		return (r->pos[-2] & 0x7f) | (uint64_t)r->pos[-1] << 7;
	}
	uint64_t value = 0;
	for (unsigned shift = 0; shift < 70; shift += 7) {
		uint8_t byte = reader_u8(r);
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return r->failed ? 0 : value;
	}
	reader_fail(r);
	return 0;
}

static inline int64_t reader_sleb(struct reader *r)
{
	uint64_t value = 0;
	for (unsigned shift = 0; shift < 70;) {
		uint8_t byte = reader_u8(r);
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
		if (byte < 0x80) {
			if (r->failed)
				return 0;
			if (shift < 64 && (byte & 0x40))
				value |= ~(uint64_t)0 << shift;
			return (int64_t)value;
		}
	}
	reader_fail(r);
	return 0;
}

/** A NUL-terminated string in place, its length without the NUL in @p len_ret (may be NULL); NULL when no NUL is left. */
static inline const char *reader_text(struct reader *r, size_t *len_ret)
{
	const uint8_t *nul = r->pos < r->end ? memchr(r->pos, 0, reader_left(r)) : NULL;
	if (!nul) {
		reader_fail(r);
		return NULL;
	}
	const char *text = (const char *)r->pos;
	if (len_ret)
		*len_ret = (size_t)(nul - r->pos);
	r->pos = nul + 1;
	return text;
}

/** A reader of the next @p len bytes (offsets count from there); this one skips them. Failed when fewer are left. */
static inline struct reader reader_sub(struct reader *r, uint64_t len)
{
	const uint8_t *bytes = reader_bytes(r, len);
	struct reader sub = *r;
	sub.start = sub.pos = bytes ? bytes : r->pos;
	sub.end = bytes ? bytes + len : r->pos;
	return sub;
}

/** ERR_FORMAT at the present position: "<place>+0x<offset>: <formatted>". */
struct err *reader_error(const struct reader *r, const char *format, ...)
	__attribute__((format(printf, 2, 3), returns_nonnull)) MUST_USE;

#endif

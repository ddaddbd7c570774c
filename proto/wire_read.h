// SPDX-License-Identifier: Apache-2.0
/*
 * Reading the protobuf wire format, field by field, in place: for the messages that are too hot for a generated
 * decoder (samples, symbolize requests). Source: protobuf.dev "Encoding". Every read is bounded by base/reader.h; groups (wire types
 * 3 and 4, dead since proto2) and field number 0 fail the reader. One message at a time:
 *
 *     struct wire_field field;
 *     while (wire_next(&r, &field))
 *             switch (field.number) {
 *             case 1: id = wire_u64(&field); break;          // a field of the wrong wire type reads as 0
 *             case 2: name = wire_bytes(&field); break;
 *             }
 *     if (r.failed) ..
 */
#ifndef CAIRN_PROTO_WIRE_READ_H
#define CAIRN_PROTO_WIRE_READ_H

#include "base/reader.h"
#include "proto/wire.h"

struct wire_span {
	const uint8_t *bytes;
	size_t len;
};

struct wire_field {
	uint32_t number;
	uint32_t type; /* WIRE_.. */
	uint64_t value;		/* of a varint or fixed field */
	struct wire_span bytes; /* of a length-delimited one */
};

static inline struct reader wire_reader(struct wire_span message, const char *place)
{
	return reader_init(message.bytes, message.len, false, place);
}

/** A varint of at most ten bytes; bits past 64 are dropped, a longer one fails. */
static inline uint64_t wire_varint(struct reader *r)
{
	return reader_uleb(r);
}

/** The next field; false at the end of the message and when it is malformed (r->failed). */
static inline __attribute__((always_inline)) bool wire_next(struct reader *r, struct wire_field *field)
{
	if (reader_left(r) == 0)
		return false;
	uint64_t tag = wire_varint(r);

	field->number = (uint32_t)(tag >> 3);
	field->type = (uint32_t)(tag & 7);
	field->value = 0;
	field->bytes = (struct wire_span){0};
	switch (field->type) {
	case WIRE_VARINT:
		field->value = wire_varint(r);
		break;
	case WIRE_FIXED64:
		field->value = reader_u64(r);
		break;
	case WIRE_LEN:
		field->bytes.len = wire_varint(r);
		field->bytes.bytes = reader_bytes(r, field->bytes.len);
		break;
	case WIRE_FIXED32:
		field->value = reader_u32(r);
		break;
	default:
		reader_fail(r);
		break;
	}
	if (field->number == 0 || tag >> 32)
		reader_fail(r);
	return !r->failed;
}

/** A varint or fixed value; 0 for a length-delimited field. */
static inline uint64_t wire_u64(const struct wire_field *field)
{
	return field->value;
}

/** The bytes of a string, bytes or message field; empty for other types. */
static inline struct wire_span wire_bytes(const struct wire_field *field)
{
	return field->bytes;
}

/*
 * A repeated number of a message, wherever its pieces stand: packed, unpacked, or some of each (a reader must take both,
 * protobuf.dev "Encoding: Packed Repeated Fields"). Walked with wire_repeated_next.
 */
struct wire_repeated {
	struct reader message; /* what is left of the message */
	struct reader packed;  /* what is left of the packed piece at hand */
	uint32_t number;
	bool fixed64;
};

/** The numbers of field @p number in @p message; @p fixed64 when they are fixed64, else varints. */
static inline struct wire_repeated wire_repeated_init(struct wire_span message, uint32_t number, bool fixed64)
{
	return (struct wire_repeated){.message = wire_reader(message, NULL), .number = number, .fixed64 = fixed64};
}

/** Nothing yet: for a message that is walked anyway, with wire_repeated_meet for each of its fields of that number. */
static inline struct wire_repeated wire_repeated_none(uint32_t number, bool fixed64)
{
	return (struct wire_repeated){.number = number, .fixed64 = fixed64};
}

/** One packed piece, as nearly always, is walked where it stands; the pieces of a second one are searched in @p message. */
static inline void wire_repeated_meet(struct wire_repeated *repeated, struct wire_span message, const struct wire_field *field)
{
	if (field->type != WIRE_LEN || repeated->packed.start)
		*repeated = wire_repeated_init(message, repeated->number, repeated->fixed64);
	else if (!repeated->message.start)
		repeated->packed = wire_reader(field->bytes, NULL);
}

/** The next number; false after the last, and when the message is malformed (then wire_repeated_failed). */
static inline bool wire_repeated_next(struct wire_repeated *repeated, uint64_t *ret)
{
	struct wire_field field;

	while (reader_left(&repeated->packed) == 0) {
		if (repeated->packed.failed || !wire_next(&repeated->message, &field))
			return false;
		if (field.number != repeated->number)
			continue;
		if (field.type != WIRE_LEN) {
			*ret = field.value;
			return true;
		}
		repeated->packed = wire_reader(field.bytes, NULL);
	}
	*ret = repeated->fixed64 ? reader_u64(&repeated->packed) : wire_varint(&repeated->packed);
	return !repeated->packed.failed;
}

/** The next numbers, at most @p cap, when they are below 2^32 (a larger one reads as UINT32_MAX); fewer after the last, as wire_repeated_next. */
static inline size_t wire_repeated_read(struct wire_repeated *repeated, uint32_t *to, size_t cap)
{
	size_t count = 0;
	uint64_t number;

	while (count < cap) {
		/* In registers while a packed piece lasts. */
		struct reader packed = repeated->packed;
		for (; count < cap && reader_left(&packed) && !repeated->fixed64; count++) {
			number = wire_varint(&packed);
			if (packed.failed)
				break;
			to[count] = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
		}
		repeated->packed = packed;
		if (count == cap || !wire_repeated_next(repeated, &number))
			break;
		to[count++] = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
	}
	return count;
}

static inline bool wire_repeated_failed(const struct wire_repeated *repeated)
{
	return repeated->packed.failed || repeated->message.failed;
}

#endif

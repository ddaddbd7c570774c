// SPDX-License-Identifier: Apache-2.0
/*
 * google.rpc.Status {1 code, 3 details: Any {1 type_url, 2 value: RetryInfo {1 Duration {1 seconds, 2 nanos}}}}, in base64
 * as metadata whose name ends in -bin travels. Source: google/rpc/status.proto, error_details.proto; RFC 4648, 4; gRPC over HTTP2.
 */
#include "net/grpc_retry.h"

#include "base/reader.h"

#include <string.h>

static const char type_url[] = "type.googleapis.com/google.rpc.RetryInfo";
static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5, SECONDS_MAX = 1 << 30 };

/* @p text holds 4/3 of @p len, and a NUL. */
static void encode_base64(const uint8_t *bytes, size_t len, char *text)
{
	for (size_t i = 0; i < len; i += 3) {
		uint32_t three = (uint32_t)bytes[i] << 16;
		three |= i + 1 < len ? (uint32_t)bytes[i + 1] << 8 : 0;
		three |= i + 2 < len ? bytes[i + 2] : 0;
		*text++ = digits[three >> 18];
		*text++ = digits[three >> 12 & 63];
		if (i + 1 < len)
			*text++ = digits[three >> 6 & 63];
		if (i + 2 < len)
			*text++ = digits[three & 63];
	}
	*text = 0;
}

static size_t put_varint(uint8_t *out, uint32_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		out[n++] = (uint8_t)(value | 0x80);
	out[n++] = (uint8_t)value;
	return n;
}

/* Every length fits a byte. */
void grpc_retry_format(enum net_grpc_status status, uint32_t retry_ms, char text[GRPC_RETRY_TEXT_MAX])
{
	uint8_t duration[16], details[128];
	size_t n = 0, d = 0;

	duration[d++] = 1 << 3 | VARINT;
	d += put_varint(duration + d, retry_ms / 1000);
	duration[d++] = 2 << 3 | VARINT;
	d += put_varint(duration + d, retry_ms % 1000 * 1000000);

	details[n++] = 1 << 3 | VARINT;
	details[n++] = (uint8_t)status;
	details[n++] = 3 << 3 | BYTES;
	details[n++] = (uint8_t)(2 + sizeof(type_url) - 1 + 2 + 2 + d);
	details[n++] = 1 << 3 | BYTES;
	details[n++] = sizeof(type_url) - 1;
	memcpy(details + n, type_url, sizeof(type_url) - 1);
	n += sizeof(type_url) - 1;
	details[n++] = 2 << 3 | BYTES;
	details[n++] = (uint8_t)(2 + d);
	details[n++] = 1 << 3 | BYTES;
	details[n++] = (uint8_t)d;
	memcpy(details + n, duration, d);
	encode_base64(details, n + d, text);
}

/* -------------------------------------------------------------------------------------- reading */

/* Padding ends it; false at a character that is none of base64. */
static bool decode_base64(const uint8_t *text, size_t len, uint8_t bytes[GRPC_RETRY_DETAILS_MAX], size_t *len_ret)
{
	uint32_t bits = 0;
	unsigned count = 0;
	size_t n = 0;

	for (size_t i = 0; i < len && text[i] != '='; i++) {
		const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
		if (!digit)
			return false;
		bits = bits << 6 | (uint32_t)(digit - digits);
		count += 6;
		if (count >= 8) {
			count -= 8;
			bytes[n++] = (uint8_t)(bits >> count);
		}
	}
	*len_ret = n;
	return true;
}

/* The next field; bytes of a length-delimited one in @p span_ret. False at the end, and when it is malformed. */
static bool next_field(struct reader *r, uint64_t *field_ret, uint64_t *value_ret, struct reader *span_ret)
{
	uint64_t tag = reader_left(r) ? reader_uleb(r) : 0;

	*span_ret = reader_init(NULL, 0, false, NULL);
	*value_ret = 0;
	*field_ret = tag >> 3;
	switch (tag & 7) {
	case VARINT:
		*value_ret = tag ? reader_uleb(r) : 0;
		break;
	case FIXED64:
		reader_skip(r, 8);
		break;
	case FIXED32:
		reader_skip(r, 4);
		break;
	case BYTES:
		*value_ret = reader_uleb(r);
		if (*value_ret <= reader_left(r)) {
			*span_ret = reader_init(r->pos, *value_ret, false, NULL);
			reader_skip(r, *value_ret);
			break;
		}
		reader_fail(r);
		break;
	default:
		reader_fail(r);
	}
	return tag != 0 && !r->failed;
}

/* The last length-delimited field @p wanted of a message; empty when there is none. */
static struct reader member(struct reader message, uint64_t wanted)
{
	struct reader span, found = reader_init(NULL, 0, false, NULL);
	uint64_t field, value;

	while (next_field(&message, &field, &value, &span))
		if (field == wanted && span.start)
			found = span;
	return found;
}

static bool read_duration(struct reader duration, uint64_t *ms_ret)
{
	uint64_t field, value, seconds = 0, nanos = 0;
	struct reader span;

	while (next_field(&duration, &field, &value, &span)) {
		seconds = field == 1 ? value : seconds;
		nanos = field == 2 ? value : nanos;
	}
	/* A negative one is a large number here. */
	if (duration.failed || seconds > SECONDS_MAX || nanos >= 1000000000)
		return false;
	*ms_ret = seconds * 1000 + (nanos + 999999) / 1000000;
	return true;
}

bool grpc_retry_parse(const uint8_t *value, size_t len, uint64_t *retry_ms_ret)
{
	uint8_t bytes[GRPC_RETRY_DETAILS_MAX];
	size_t count = 0;

	if (len > GRPC_RETRY_DETAILS_MAX || !decode_base64(value, len, bytes, &count))
		return false;
	struct reader status = reader_init(bytes, count, false, NULL), any;
	uint64_t field, unused;
	while (next_field(&status, &field, &unused, &any)) {
		struct reader type = member(any, 1), info = member(any, 2);
		if (field == 3 && reader_left(&type) == sizeof(type_url) - 1 && memcmp(type.pos, type_url, sizeof(type_url) - 1) == 0)
			return info.start && read_duration(member(info, 1), retry_ms_ret);
	}
	return false;
}

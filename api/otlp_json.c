// SPDX-License-Identifier: Apache-2.0
/*
 * Driven by tables of the messages. A message is written into a buffer of its own and then appended to its parent, since its length
 * stands before it; the depth of the tables bounds the recursion (AnyValue's arrays and maps, which nest, are not taken).
 */
#include "api/otlp_json.h"

#include "api/json_body.h"
#include "proto/wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

enum kind { KIND_INT, KIND_FIXED64, KIND_BOOL, KIND_DOUBLE, KIND_TEXT, KIND_HEX, KIND_BASE64, KIND_MESSAGE };

struct message;

struct field {
	const char *name;
	uint8_t number;
	enum kind kind;
	bool repeated; /* numbers are packed */
	const struct message *message;
};

struct message {
	const struct field *fields;
	size_t count;
};

#define MESSAGE(name)                                                                              \
	static const struct message name = {name##_fields, ARRAY_SIZE(name##_fields)}

static const struct field any_value_fields[] = {{"stringValue", 1, KIND_TEXT, false, NULL}, {"boolValue", 2, KIND_BOOL, false, NULL},
	{"intValue", 3, KIND_INT, false, NULL}, {"doubleValue", 4, KIND_DOUBLE, false, NULL}, {"bytesValue", 7, KIND_BASE64, false, NULL},
	{"stringValueStrindex", 8, KIND_INT, false, NULL}};
MESSAGE(any_value);
static const struct field key_value_fields[] = {{"key", 1, KIND_TEXT, false, NULL}, {"value", 2, KIND_MESSAGE, false, &any_value},
	{"keyStrindex", 3, KIND_INT, false, NULL}};
MESSAGE(key_value);
static const struct field attribute_fields[] = {{"keyStrindex", 1, KIND_INT, false, NULL}, {"value", 2, KIND_MESSAGE, false, &any_value},
	{"unitStrindex", 3, KIND_INT, false, NULL}};
MESSAGE(attribute);
static const struct field value_type_fields[] = {{"typeStrindex", 1, KIND_INT, false, NULL}, {"unitStrindex", 2, KIND_INT, false, NULL}};
MESSAGE(value_type);
static const struct field span_link_fields[] = {{"traceId", 1, KIND_HEX, false, NULL}, {"spanId", 2, KIND_HEX, false, NULL}};
MESSAGE(span_link);
static const struct field mapping_fields[] = {{"memoryStart", 1, KIND_INT, false, NULL}, {"memoryLimit", 2, KIND_INT, false, NULL},
	{"fileOffset", 3, KIND_INT, false, NULL}, {"filenameStrindex", 4, KIND_INT, false, NULL},
	{"attributeIndices", 5, KIND_INT, true, NULL}};
MESSAGE(mapping);
static const struct field function_fields[] = {{"nameStrindex", 1, KIND_INT, false, NULL}, {"systemNameStrindex", 2, KIND_INT, false, NULL},
	{"filenameStrindex", 3, KIND_INT, false, NULL}, {"startLine", 4, KIND_INT, false, NULL}};
MESSAGE(function);
static const struct field line_fields[] = {{"functionIndex", 1, KIND_INT, false, NULL}, {"line", 2, KIND_INT, false, NULL},
	{"column", 3, KIND_INT, false, NULL}};
MESSAGE(line);
static const struct field location_fields[] = {{"mappingIndex", 1, KIND_INT, false, NULL}, {"address", 2, KIND_INT, false, NULL},
	{"lines", 3, KIND_MESSAGE, true, &line}, {"attributeIndices", 4, KIND_INT, true, NULL}};
MESSAGE(location);
static const struct field stack_fields[] = {{"locationIndices", 1, KIND_INT, true, NULL}};
MESSAGE(stack);
static const struct field dictionary_fields[] = {{"mappingTable", 1, KIND_MESSAGE, true, &mapping},
	{"locationTable", 2, KIND_MESSAGE, true, &location}, {"functionTable", 3, KIND_MESSAGE, true, &function},
	{"linkTable", 4, KIND_MESSAGE, true, &span_link}, {"stringTable", 5, KIND_TEXT, true, NULL},
	{"attributeTable", 6, KIND_MESSAGE, true, &attribute}, {"stackTable", 7, KIND_MESSAGE, true, &stack}};
MESSAGE(dictionary);
static const struct field sample_fields[] = {{"stackIndex", 1, KIND_INT, false, NULL}, {"attributeIndices", 2, KIND_INT, true, NULL},
	{"linkIndex", 3, KIND_INT, false, NULL}, {"values", 4, KIND_INT, true, NULL}, {"timestampsUnixNano", 5, KIND_FIXED64, true, NULL}};
MESSAGE(sample);
static const struct field profile_fields[] = {{"sampleType", 1, KIND_MESSAGE, false, &value_type}, {"samples", 2, KIND_MESSAGE, true, &sample},
	{"timeUnixNano", 3, KIND_FIXED64, false, NULL}, {"durationNano", 4, KIND_INT, false, NULL},
	{"periodType", 5, KIND_MESSAGE, false, &value_type}, {"period", 6, KIND_INT, false, NULL}, {"profileId", 7, KIND_HEX, false, NULL},
	{"attributeIndices", 11, KIND_INT, true, NULL}};
MESSAGE(profile);
static const struct field scope_fields[] = {{"name", 1, KIND_TEXT, false, NULL}, {"version", 2, KIND_TEXT, false, NULL}};
MESSAGE(scope);
static const struct field scope_profiles_fields[] = {{"scope", 1, KIND_MESSAGE, false, &scope}, {"profiles", 2, KIND_MESSAGE, true, &profile}};
MESSAGE(scope_profiles);
static const struct field resource_fields[] = {{"attributes", 1, KIND_MESSAGE, true, &key_value}};
MESSAGE(resource);
static const struct field resource_profiles_fields[] = {{"resource", 1, KIND_MESSAGE, false, &resource},
	{"scopeProfiles", 2, KIND_MESSAGE, true, &scope_profiles}};
MESSAGE(resource_profiles);
static const struct field request_fields[] = {{"resourceProfiles", 1, KIND_MESSAGE, true, &resource_profiles},
	{"dictionary", 2, KIND_MESSAGE, false, &dictionary}};
MESSAGE(request);

static struct err *wrong(const char *expected)
{
	return err_new(ERR_INVALID, "%s was expected", expected);
}

/* A JSON number without a fraction, or its digits as a string: -2^63 to 2^64 - 1, as 64 bits. */
static struct err *parse_int(const json_t *value, uint64_t *ret)
{
	if (json_is_integer(value)) {
		*ret = (uint64_t)json_integer_value(value);
		return NULL;
	}
	const char *text = json_string_value(value);
	char *end;

	if (json_is_real(value) && json_real_value(value) >= 0 && json_real_value(value) < 0x1p63) {
		*ret = (uint64_t)json_real_value(value);
		return NULL;
	}
	if (!text || !*text || strspn(text + (*text == '-'), "0123456789") != strlen(text) - (*text == '-'))
		return wrong("a number or its digits");
	errno = 0;
	*ret = *text == '-' ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
	return errno || *end ? err_new(ERR_INVALID, "%.32s does not fit 64 bits", text) : NULL;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static struct err *decode_hex(const json_t *value, struct buf *ret)
{
	const char *text = json_string_value(value);
	size_t len = json_string_length(value);

	if (!text || len % 2)
		return wrong("an even number of hex digits");
	TRY(buf_reserve(ret, len / 2));
	for (size_t i = 0; i < len; i += 2) {
		int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
		if (high < 0 || low < 0)
			return wrong("an even number of hex digits");
		buf_put_u8(ret, (uint8_t)(high << 4 | low));
	}
	return NULL;
}

/* Both alphabets, padding optional, as protobuf's own parsers take it. */
static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

static struct err *decode_base64(const json_t *value, struct buf *ret)
{
	const char *text = json_string_value(value);
	size_t len = json_string_length(value);
	uint32_t bits = 0;
	unsigned have = 0;

	if (!text)
		return wrong("base64");
	while (len && text[len - 1] == '=')
		len--;
	TRY(buf_reserve(ret, len));
	for (size_t i = 0; i < len; i++) {
		int digit = base64_digit(text[i]);
		if (digit < 0)
			return wrong("base64");
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have >= 8) {
			have -= 8;
			buf_put_u8(ret, (uint8_t)(bits >> have));
		}
	}
	return NULL;
}

static struct err *write_message(const struct message *message, const json_t *object, struct buf *ret);

static struct err *write_bytes(const struct field *field, const json_t *value, struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf bytes = {0};

	if (field->kind == KIND_MESSAGE)
		TRY(write_message(field->message, value, &bytes));
	else
		TRY(field->kind == KIND_HEX ? decode_hex(value, &bytes) : decode_base64(value, &bytes));
	return wire_append_bytes(ret, field->number, bytes.data, bytes.len);
}

static struct err *put_u64(const struct field *field, unsigned type, uint64_t value, struct buf *ret)
{
	TRY(buf_reserve(ret, WIRE_HEAD_MAX + WIRE_VARINT_MAX));
	wire_put_tag(ret, field->number, type);
	if (type == WIRE_VARINT)
		wire_put_varint(ret, value);
	else
		for (int i = 0; i < 64; i += 8)
			buf_put_u8(ret, (uint8_t)(value >> i));
	return NULL;
}

static struct err *write_one(const struct field *field, const json_t *value, struct buf *ret)
{
	uint64_t number;
	double real;

	switch (field->kind) {
	case KIND_INT:
	case KIND_FIXED64:
		TRY(parse_int(value, &number));
		return put_u64(field, field->kind == KIND_INT ? WIRE_VARINT : WIRE_FIXED64, number, ret);
	case KIND_BOOL:
		return json_is_boolean(value) ? put_u64(field, WIRE_VARINT, json_is_true(value), ret) : wrong("true or false");
	case KIND_DOUBLE:
		if (!json_is_number(value))
			return wrong("a number");
		real = json_number_value(value);
		memcpy(&number, &real, sizeof(number));
		return put_u64(field, WIRE_FIXED64, number, ret);
	case KIND_TEXT:
		if (!json_is_string(value))
			return wrong("a string");
		return wire_append_bytes(ret, field->number, json_string_value(value), json_string_length(value));
	case KIND_HEX:
	case KIND_BASE64:
	case KIND_MESSAGE:
	default:
		return write_bytes(field, value, ret);
	}
}

/* Repeated numbers are written packed: the layout is told from that, too. */
static struct err *write_packed(const struct field *field, const json_t *array, struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf bytes = {0};
	const json_t *value;
	uint64_t number;
	size_t i;

	json_array_foreach(array, i, value) {
		TRY(err_wrap(parse_int(value, &number), "%s[%zu]", field->name, i));
		TRY(buf_reserve(&bytes, WIRE_VARINT_MAX));
		if (field->kind == KIND_INT)
			wire_put_varint(&bytes, number);
		for (int shift = 0; field->kind == KIND_FIXED64 && shift < 64; shift += 8)
			buf_put_u8(&bytes, (uint8_t)(number >> shift));
	}
	return bytes.len ? wire_append_bytes(ret, field->number, bytes.data, bytes.len) : NULL;
}

static struct err *write_field(const struct field *field, const json_t *value, struct buf *ret)
{
	const json_t *element;
	size_t i;

	if (!value || json_is_null(value))
		return NULL;
	if (!field->repeated)
		return err_wrap(write_one(field, value, ret), "%s", field->name);
	if (!json_is_array(value))
		return err_wrap(wrong("an array"), "%s", field->name);
	if (field->kind == KIND_INT || field->kind == KIND_FIXED64)
		return write_packed(field, value, ret);
	json_array_foreach(value, i, element)
		TRY(err_wrap(write_one(field, element, ret), "%s[%zu]", field->name, i));
	return NULL;
}

static struct err *write_message(const struct message *message, const json_t *object, struct buf *ret)
{
	if (!json_is_object(object))
		return wrong("an object");
	for (size_t i = 0; i < message->count; i++)
		TRY(write_field(&message->fields[i], json_object_get(object, message->fields[i].name), ret));
	return NULL;
}

struct err *otlp_json_to_protobuf(const void *bytes, size_t len, struct buf *ret)
{
	CLEANUP(json_body_freep) json_t *body = NULL;

	TRY(json_body_parse(bytes, len, OTLP_JSON_VALUES_MAX, &body));
	return write_message(&request, body, ret);
}

// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Characters that cannot stand in a string as they are: controls, quote, backslash, and all that is not ASCII. */
static bool is_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* Keeps the first error. */
static void note(struct json *json, struct err *e)
{
	if (json->failed)
		err_free(e);
	else
		json->failed = e;
}

static void put(struct json *json, const char *text, size_t len)
{
	if (!json->failed)
		note(json, buf_append(json->out, text, len));
}

static void fail_use(struct json *json, const char *what)
{
	if (!json->failed)
		json->failed = err_new(ERR_INTERNAL, "json: %s", what);
}

/* What stands before a value: a comma, unless it is the first of its container or follows its key. What was written last
 * says which: no value ends in an opening bracket. */
static void begin_value(struct json *json)
{
	if (json->after_key) {
		json->after_key = false;
		return;
	}
	/* The outermost value has no neighbours, whatever the caller has put before it. */
	if (json->depth == 0 || json->failed)
		return;
	uint8_t last = json->out->data[json->out->len - 1];
	if (last != '{' && last != '[')
		put(json, ",", 1);
}

static void begin_container(struct json *json, const char *open)
{
	begin_value(json);
	put(json, open, 1);
	if (json->depth + 1 >= JSON_MAX_DEPTH) {
		if (!json->failed)
			json->failed = err_new(ERR_LIMIT, "json: deeper than %d", JSON_MAX_DEPTH);
		return;
	}
	json->depth++;
}

static void end_container(struct json *json, const char *close)
{
	if (json->depth == 0 || json->after_key)
		fail_use(json, "end without begin, or after a key");
	else
		json->depth--;
	put(json, close, 1);
}

void json_object_begin(struct json *json)
{
	begin_container(json, "{");
}

void json_object_end(struct json *json)
{
	end_container(json, "}");
}

void json_array_begin(struct json *json)
{
	begin_container(json, "[");
}

void json_array_end(struct json *json)
{
	end_container(json, "]");
}

void json_key(struct json *json, const char *key)
{
	size_t len = strlen(key);

	begin_value(json);
	if (json->failed)
		return;
	struct err *e = buf_reserve(json->out, len + 3);
	if (e) {
		note(json, e);
		return;
	}
	buf_put_u8(json->out, '"');
	memcpy(json->out->data + json->out->len, key, len);
	json->out->len += len;
	buf_put_u8(json->out, '"');
	buf_put_u8(json->out, ':');
	json->after_key = true;
}

/* The length of the well-formed UTF-8 sequence at @p s (Unicode 15, table 3-7), 0 for none. */
static size_t utf8_len(const uint8_t *s, size_t left)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (len > left)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	if (s[0] == 0xed)
		high = 0x9f;
	if (s[0] == 0xf0)
		low = 0x90;
	if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

static void put_escape(struct json *json, uint8_t c)
{
	static const char letters[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
	char text[8];

	if (c == '"' || c == '\\')
		(void)snprintf(text, sizeof(text), "\\%c", c);
	else if (c < sizeof(letters) && letters[c])
		(void)snprintf(text, sizeof(text), "\\%c", letters[c]);
	else
		(void)snprintf(text, sizeof(text), "\\u%04x", c);
	put(json, text, strlen(text));
}

static void put_escaped(struct json *json, const char *text, size_t len)
{
	const uint8_t *s = (const uint8_t *)text;
	const uint8_t *end = s + len;

	while (s < end && !json->failed) {
		const uint8_t *run = s;
		while (s < end && is_plain(*s))
			s++;
		put(json, (const char *)run, (size_t)(s - run));
		if (s == end)
			break;
		size_t sequence = utf8_len(s, (size_t)(end - s));
		if (sequence == 0)
			put(json, replacement, sizeof(replacement) - 1);
		else if (sequence == 1)
			put_escape(json, *s);
		else
			put(json, (const char *)s, sequence);
		s += sequence ? sequence : 1;
	}
}

void json_text_n(struct json *json, const char *text, size_t len)
{
	begin_value(json);
	put(json, "\"", 1);
	put_escaped(json, text, len);
	put(json, "\"", 1);
}

void json_text(struct json *json, const char *text)
{
	json_text_n(json, text, strlen(text));
}

void json_text_joined(struct json *json, const char *first, const char *second)
{
	begin_value(json);
	put(json, "\"", 1);
	put_escaped(json, first, strlen(first));
	put_escaped(json, second, strlen(second));
	put(json, "\"", 1);
}

/* Digits are written backwards from the end of @p text; returns where they begin. */
static char *format_decimal(char *end, uint64_t value)
{
	do {
		*--end = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	return end;
}

void json_u64(struct json *json, uint64_t value)
{
	char text[20];
	char *digits = format_decimal(text + sizeof(text), value);

	begin_value(json);
	put(json, digits, (size_t)(text + sizeof(text) - digits));
}

void json_i64(struct json *json, int64_t value)
{
	char text[21];
	char *digits = format_decimal(text + sizeof(text), value < 0 ? 0 - (uint64_t)value : (uint64_t)value);

	if (value < 0)
		*--digits = '-';
	begin_value(json);
	put(json, digits, (size_t)(text + sizeof(text) - digits));
}

void json_hex(struct json *json, uint64_t value)
{
	static const char hex[] = "0123456789abcdef";
	char text[20];
	char *at = text + sizeof(text);

	*--at = '"';
	do {
		*--at = hex[value & 15];
		value >>= 4;
	} while (value > 0);
	*--at = 'x';
	*--at = '0';
	*--at = '"';
	begin_value(json);
	put(json, at, (size_t)(text + sizeof(text) - at));
}

void json_text_u64(struct json *json, uint64_t value)
{
	char text[24];
	int len = snprintf(text, sizeof(text), "\"%" PRIu64 "\"", value);

	begin_value(json);
	put(json, text, (size_t)len);
}

void json_bool(struct json *json, bool value)
{
	begin_value(json);
	put(json, value ? "true" : "false", value ? 4 : 5);
}

void json_null_value(struct json *json)
{
	begin_value(json);
	put(json, "null", 4);
}

void json_double(struct json *json, double value)
{
	char text[40];

	if (!isfinite(value)) {
		json_null_value(json);
		return;
	}
	/* The shortest of the two forms that reads back as the same number. */
	(void)snprintf(text, sizeof(text), "%.15g", value);
	if (strtod(text, NULL) < value || strtod(text, NULL) > value)
		(void)snprintf(text, sizeof(text), "%.17g", value);
	begin_value(json);
	put(json, text, strlen(text));
}

struct err *json_finish(struct json *json)
{
	if (json->depth > 0 || json->after_key)
		fail_use(json, "finished inside a container");
	return TAKE_PTR(json->failed);
}

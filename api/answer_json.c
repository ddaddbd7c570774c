// SPDX-License-Identifier: Apache-2.0
/*
 * The JSON answer. What is rare (heads of modules, aliases) goes through base/json.h; a frame is put together from the
 * escaped texts that api/names keeps and from digits, with one reservation a frame.
 */
#include "api/answer_internal.h"
#include "base/json.h"

#include <string.h>

/* Everything of a frame but its texts: keys, three 32-bit numbers, a 64-bit one in hex. */
enum { FRAME_FIXED_BYTES = 192, RESULT_GUESS_BYTES = 256 };

#define PUT_LITERAL(out, text) put_bytes(out, text, sizeof(text) - 1)

static inline void put_bytes(struct buf *out, const char *bytes, size_t len)
{
	memcpy(out->data + out->len, bytes, len);
	out->len += len;
}

static inline void put_u32(struct buf *out, uint32_t value)
{
	char digits[10];
	size_t n = sizeof(digits);

	do {
		digits[--n] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	put_bytes(out, digits + n, sizeof(digits) - n);
}

static void put_hex(struct buf *out, uint64_t value)
{
	char digits[16];
	size_t n = sizeof(digits);

	do {
		digits[--n] = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value);
	put_bytes(out, digits + n, sizeof(digits) - n);
}

static struct err *append_literal(struct buf *out, const char *text)
{
	return buf_append(out, text, strlen(text));
}

struct err *json_answer_begin(struct api_answer *answer)
{
	return append_literal(&answer->out, "{\"modules\":[");
}

struct err *json_answer_end(struct api_answer *answer)
{
	return append_literal(&answer->out, "]}");
}

static void write_head(struct json *json, const struct api_module_head *head)
{
	if (head->has_file_id) {
		char text[FILEID_HEX_SIZE];
		fileid_format_hex(&head->file_id, text);
		json_key(json, "file_id");
		json_text(json, text);
	}
	if (head->build_id.len) {
		char text[BUILD_ID_HEX_SIZE];
		build_id_format(&head->build_id, text);
		json_key(json, "build_id");
		json_text(json, text);
	}
	json_key(json, "status");
	json_text(json, api_module_status_name(head->status));
	if (head->reason[0]) {
		json_key(json, "reason");
		json_text(json, head->reason);
	}
	if (head->retry_after_s) {
		json_key(json, "retry_after_s");
		json_u64(json, head->retry_after_s);
	}
	if (head->source) {
		json_key(json, "symbols");
		json_object_begin(json);
		json_key(json, "source");
		json_text(json, head->source);
		json_key(json, "kind");
		json_text(json, head->kind);
		json_object_end(json);
	}
}

struct err *json_answer_module(struct api_answer *answer, const struct api_module_head *head)
{
	if (!answer->first_module)
		TRY(append_literal(&answer->out, ","));
	struct json json = json_init(&answer->out);
	json_object_begin(&json);
	write_head(&json, head);
	json_object_end(&json);
	TRY(json_finish(&json));
	if (!answer->has_results)
		return NULL;
	/* A guess that spares a large answer most of its moves; the limit still holds. */
	size_t guess = head->results * RESULT_GUESS_BYTES;
	if (answer->out.len < answer->limit && guess < answer->limit - answer->out.len)
		TRY(buf_reserve(&answer->out, guess));
	answer->out.len--; /* the object goes on: json_answer_module_end closes it */
	return append_literal(&answer->out, ",\"results\":[");
}

struct err *json_answer_module_end(struct api_answer *answer)
{
	return answer->has_results ? append_literal(&answer->out, "]}") : NULL;
}

static struct err *append_aliases(struct api_answer *answer, uint32_t cursor)
{
	const char *alias;

	TRY(append_literal(&answer->out, ",\"aliases\":"));
	struct json json = json_init(&answer->out);
	json_array_begin(&json);
	while ((alias = table_next_alias(answer->table, &cursor)) != NULL)
		json_text(&json, alias);
	json_array_end(&json);
	return json_finish(&json);
}

/* @p named: the frame has a function, from whose entry an offset counts. */
static void put_numbers(struct buf *out, const struct table_frame *frame, bool named)
{
	if (frame->line) {
		PUT_LITERAL(out, ",\"line\":");
		put_u32(out, frame->line);
	}
	if (frame->column) {
		PUT_LITERAL(out, ",\"column\":");
		put_u32(out, frame->column);
	}
	if (frame->start_line) {
		PUT_LITERAL(out, ",\"start_line\":");
		put_u32(out, frame->start_line);
	}
	if (frame->inlined) {
		PUT_LITERAL(out, ",\"inlined\":true");
		return;
	}
	if (named) {
		PUT_LITERAL(out, ",\"offset\":\"0x");
		put_hex(out, frame->offset);
		PUT_LITERAL(out, "\"");
	}
	PUT_LITERAL(out, ",\"inlined\":false");
}

/* Every member is written with a comma before it, since any may be missing; the first one's becomes the brace. */
static struct err *append_frame(struct api_answer *answer, const struct table_frame *frame)
{
	struct buf *out = &answer->out;
	const struct api_text *function, *file;
	size_t begin = out->len;

	TRY(api_names_function_json(answer->names, frame, answer->demangle, &function));
	TRY(api_names_file_json(answer->names, frame, &file));
	TRY(buf_reserve(out, (size_t)function->len + file->len + FRAME_FIXED_BYTES));
	put_bytes(out, function->bytes, function->len);
	put_bytes(out, file->bytes, file->len);
	put_numbers(out, frame, function->len > 0);
	out->data[begin] = '{';
	if (!frame->inlined && frame->aliases)
		TRY(append_aliases(answer, frame->aliases));
	return append_literal(out, "}");
}

struct err *json_answer_result(struct api_answer *answer, enum api_result_status status, const struct table_frame *frames,
	size_t count)
{
	struct buf *out = &answer->out;

	if (!answer->first_result)
		TRY(append_literal(out, ","));
	answer->first_result = false;
	if (status != API_RESULT_OK)
		return buf_printf(out, "{\"status\":\"%s\"}", api_result_status_name(status));
	TRY(append_literal(out, "{\"status\":\"ok\",\"frames\":["));
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			TRY(append_literal(out, ","));
		TRY(append_frame(answer, &frames[i]));
	}
	return append_literal(out, "]}");
}

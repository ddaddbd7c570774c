// SPDX-License-Identifier: Apache-2.0
/*
 * A million addresses of a large C++ program have 3.3 million frames with 1.2 GB of JSON, but only some ten thousand
 * functions and files. So the members that only depend on the function (`function`, `symbol`, `start_line`) and those that
 * only depend on the file are kept as ready text, indexed by the dense numbers that the table gives them, and a line is put
 * together by copying into a buffer in which room for all of the line was reserved first.
 *
 * The two parts of a function's text stand on either side of the file and line, hence `tail_len`:
 *     {"function":"f(int)","symbol":"_Z1fi"  ,"file":"/src/a.cc","line":12,"column":3  ,"start_line":10  ,"inlined":true}
 *      ^ text                                 ^ file's text      ^ from the frame       ^ tail            ^ from the frame
 * Members that are not known are left out (function and symbol, file, line, column, start_line, aliases), as in the HTTP API. So every
 * member is written with a comma before it, and the first one's becomes the brace.
 * Numbers are the table's, and a damaged table may give any: those past the counts that it says are not remembered.
 */
#include "cli/frames.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The most that a frame's own members and a line's head can take: fixed text and 20 digits for each number. */
enum { FRAME_FIXED_BYTES = 256 };

static const struct frames_text not_made = {.off = UINT32_MAX};

static struct frames_text *make_cache(uint32_t count)
{
	struct frames_text *texts = malloc(count * sizeof(*texts));

	for (uint32_t i = 0; texts && i < count; i++)
		texts[i] = not_made;
	return texts;
}

/* A count that a damaged table claims costs at most what its bytes could hold. */
static uint32_t cache_count(uint64_t claimed, const struct table *table)
{
	uint64_t possible = (uint64_t)table->len < UINT32_MAX - 1 ? (uint64_t)table->len : UINT32_MAX - 1;

	return (uint32_t)(claimed < possible ? claimed : possible) + 1;
}

struct err *frames_writer_init(struct frames_writer *writer, const struct table *table, enum demangle_style style)
{
	struct table_info info;

	table_info(table, &info);
	*writer = (struct frames_writer){.table = table, .style = style};
	writer->function_count = cache_count(info.functions, table);
	writer->file_count = cache_count(info.files, table);
	writer->functions = make_cache(writer->function_count);
	writer->files = make_cache(writer->file_count);
	if (writer->functions && writer->files)
		return NULL;
	frames_writer_deinit(writer);
	return err_nomem();
}

void frames_writer_deinit(struct frames_writer *writer)
{
	buf_deinit(&writer->text);
	free(writer->functions);
	free(writer->files);
	*writer = (struct frames_writer){0};
}

const char *frames_separator(const struct table_frame *frame)
{
	size_t len = strlen(frame->dir);

	return len > 0 && frame->dir[len - 1] != '/' ? "/" : "";
}

static struct err *render_function(struct frames_writer *writer, const struct table_frame *frame, struct frames_text *ret)
{
	char name[DEMANGLE_OUT_SIZE];
	struct json json = json_init(&writer->text);
	struct frames_text text = {.off = (uint32_t)writer->text.len};

	/* A line that belongs to no function. */
	if (!frame->function[0]) {
		*ret = text;
		return NULL;
	}
	/* An object is begun for the commas' sake and never ended. */
	json_object_begin(&json);
	json_key(&json, "function");
	json_text(&json, demangle(frame->function, writer->style, name, sizeof(name)));
	json_key(&json, "symbol");
	json_text(&json, frame->function);
	text.len = (uint32_t)(writer->text.len - text.off);
	if (frame->start_line) {
		json_key(&json, "start_line");
		json_u64(&json, frame->start_line);
	}
	text.tail_len = (uint32_t)(writer->text.len - text.off - text.len);
	json.depth = 0;
	TRY(json_finish(&json));
	writer->text.data[text.off] = ',';
	*ret = text;
	return NULL;
}

static struct err *render_file(struct frames_writer *writer, const struct table_frame *frame, struct frames_text *ret)
{
	CLEANUP(freep) char *folder = NULL;
	struct frames_text text = {.off = (uint32_t)writer->text.len};

	if (frame->dir[0] || frame->base[0]) {
		TRY(buf_append(&writer->text, ",\"file\":", 8));
		struct json json = json_init(&writer->text);
		if (asprintf(&folder, "%s%s", frame->dir, frames_separator(frame)) < 0) {
			folder = NULL;
			return err_nomem();
		}
		json_text_joined(&json, folder, frame->base);
		TRY(json_finish(&json));
	}
	text.len = (uint32_t)(writer->text.len - text.off);
	*ret = text;
	return NULL;
}

/* The ready text of a function or file, made on first sight. */
static inline struct err *find_text(struct frames_writer *writer, const struct table_frame *frame,
	struct frames_text *cache, uint32_t count, uint32_t number,
	struct err *(*render)(struct frames_writer *, const struct table_frame *, struct frames_text *),
	struct frames_text *ret)
{
	if (__builtin_expect(number < count && cache[number].off != UINT32_MAX, 1)) {
		*ret = cache[number];
		return NULL;
	}
	TRY(render(writer, frame, ret));
	if (number < count && writer->text.len < FRAMES_CACHE_MAX_BYTES)
		cache[number] = *ret;
	return NULL;
}

static inline uint8_t *copy(uint8_t *at, const void *bytes, size_t len)
{
	memcpy(at, bytes, len);
	return at + len;
}

#define COPY_LITERAL(at, text) copy(at, text, sizeof(text) - 1)

static uint8_t *copy_decimal(uint8_t *at, uint32_t value)
{
	uint8_t digits[10];
	unsigned count = 0;

	do {
		digits[count++] = (uint8_t)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	while (count > 0)
		*at++ = digits[--count];
	return at;
}

static uint8_t *copy_hex(uint8_t *at, uint64_t value)
{
	static const char hex[] = "0123456789abcdef";
	unsigned digits = value ? (67 - (unsigned)__builtin_clzll(value)) / 4 : 1;

	at = COPY_LITERAL(at, "\"0x");
	for (unsigned i = digits; i-- > 0;)
		*at++ = (uint8_t)hex[value >> (4 * i) & 15];
	*at++ = '"';
	return at;
}

static struct err *write_aliases(struct frames_writer *writer, uint32_t cursor, struct buf *out)
{
	const char *alias;

	TRY(buf_append(out, ",\"aliases\":", 11));
	struct json json = json_init(out); /* begins here: no comma of its own */
	json_array_begin(&json);
	while ((alias = table_next_alias(writer->table, &cursor)))
		json_text(&json, alias);
	json_array_end(&json);
	return json_finish(&json);
}

static struct err *write_frame(struct frames_writer *writer, const struct table_frame *frame, bool is_last, struct buf *out)
{
	struct frames_text function, file;
	/* Texts that are not remembered are made at the end of the cache's text and dropped after use. */
	size_t cached = writer->text.len, begin = out->len;

	TRY(find_text(writer, frame, writer->functions, writer->function_count, frame->function_id, render_function, &function));
	TRY(find_text(writer, frame, writer->files, writer->file_count, frame->file_id, render_file, &file));
	TRY(buf_reserve(out, (size_t)function.len + function.tail_len + file.len + FRAME_FIXED_BYTES));
	uint8_t *at = copy(out->data + out->len, writer->text.data + function.off, function.len);
	at = copy(at, writer->text.data + file.off, file.len);
	if (frame->line) {
		at = COPY_LITERAL(at, ",\"line\":");
		at = copy_decimal(at, frame->line);
	}
	if (frame->column) {
		at = COPY_LITERAL(at, ",\"column\":");
		at = copy_decimal(at, frame->column);
	}
	at = copy(at, writer->text.data + function.off + function.len, function.tail_len);
	if (is_last && function.len > 0) {
		at = COPY_LITERAL(at, ",\"offset\":");
		at = copy_hex(at, frame->offset);
	}
	at = frame->inlined ? COPY_LITERAL(at, ",\"inlined\":true") : COPY_LITERAL(at, ",\"inlined\":false");
	out->len = (size_t)(at - out->data);
	out->data[begin] = '{';
	if (cached >= FRAMES_CACHE_MAX_BYTES)
		writer->text.len = cached;
	if (is_last && frame->aliases)
		TRY(write_aliases(writer, frame->aliases, out));
	TRY(buf_reserve(out, 1));
	buf_put_u8(out, '}');
	return NULL;
}

struct err *frames_write_line(struct frames_writer *writer, uint64_t vaddr, const struct table_frame *frames, size_t count,
	struct buf *out)
{
	TRY(buf_reserve(out, FRAME_FIXED_BYTES));
	uint8_t *at = COPY_LITERAL(out->data + out->len, "{\"address\":");
	at = copy_hex(at, vaddr);
	at = COPY_LITERAL(at, ",\"frames\":[");
	out->len = (size_t)(at - out->data);
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			buf_put_u8(out, ',');
		TRY(write_frame(writer, &frames[i], i + 1 == count, out));
		TRY(buf_reserve(out, FRAME_FIXED_BYTES));
	}
	return buf_append(out, "]}\n", 3);
}

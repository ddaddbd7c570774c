// SPDX-License-Identifier: Apache-2.0
#include "ingest/protocol.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

struct seen {
	unsigned progress, skipped, results;
	struct protocol_progress last_progress;
	struct protocol_result last_result;
	char text[PROTOCOL_TEXT_MAX + 1];
	uint8_t table[4096];
	size_t table_len;
	bool refuse;
};

static void on_progress(void *context, const struct protocol_progress *progress)
{
	struct seen *seen = context;

	seen->progress++;
	seen->last_progress = *progress;
}

static void on_skipped(void *context, const char *text)
{
	struct seen *seen = context;

	seen->skipped++;
	(void)snprintf(seen->text, sizeof(seen->text), "%s", text);
}

static struct err *on_result(void *context, const struct protocol_result *result, struct buf *table)
{
	struct seen *seen = context;

	seen->results++;
	seen->last_result = *result;
	seen->table_len = table->len;
	memcpy(seen->table, table->data ? table->data : (const uint8_t *)"", table->len < sizeof(seen->table) ? table->len : sizeof(seen->table));
	return seen->refuse ? err_new(ERR_MISMATCH, "refused") : NULL;
}

static struct protocol_handler handler_of(struct seen *seen)
{
	return (struct protocol_handler){seen, on_progress, on_skipped, on_result};
}

/* Feeds all of @p bytes in pieces and says how it ended. */
static struct err *decode(const struct buf *bytes, size_t piece, struct seen *seen, struct protocol_decoder *decoder)
{
	static struct protocol_handler handler;

	handler = handler_of(seen);
	protocol_decoder_init(decoder, &handler, 1 << 20);
	for (size_t at = 0; at < bytes->len; at += piece) {
		size_t len = bytes->len - at < piece ? bytes->len - at : piece;
		TRY(protocol_decode(decoder, bytes->data + at, len));
	}
	return protocol_decode_finish(decoder);
}

static void ok(struct err *e)
{
	cr_assert_null(e, "%s", err_message(e));
}

static struct protocol_result a_result(void)
{
	struct protocol_result result = {
		.has_debug = true,
		.kernel = true,
		.has_text = true,
		.text_vaddr = UINT64_C(0xffffffff81000000),
		.build_id = {.len = 20},
		.size_bytes = UINT64_C(0x123456789a),
		.elf_machine = 62,
		.sources = 5,
		.builder_version = 7,
		.table_bytes = 3,
	};

	memset(result.build_id.bytes, 0xab, 20);
	memset(result.fileid.bytes, 0x5c, FILEID_BYTES);
	strcpy(result.go_build_id, "go/id");
	strcpy(result.name, "usr/lib/x.so");
	strcpy(result.stats, "units=1");
	result.segments.count = 2;
	result.segments.items[1] = (struct load_segment){0x1000, 0x401000, 0x99, true};
	return result;
}

/* hello, progress, skipped, result with a table of three bytes in two chunks, done. */
static void a_stream(struct buf *out)
{
	struct protocol_result result = a_result();

	ok(protocol_put_hello(out));
	ok(protocol_put_progress(out, &(struct protocol_progress){PROTOCOL_READING, 3, 9}));
	ok(protocol_put_skipped(out, "usr/lib/bad.so: damaged"));
	ok(protocol_put_result(out, &result));
	ok(protocol_put_chunk(out, "ab", 2));
	ok(protocol_put_chunk(out, "c", 1));
	ok(protocol_put_done(out, 1));
}

static void expect_error(const struct buf *bytes, enum err_code code, const char *part)
{
	struct seen seen = {0};
	struct protocol_decoder decoder;
	struct err *e = decode(bytes, bytes->len, &seen, &decoder);

	cr_assert_not_null(e, "expected: %s", part);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert_not_null(strstr(err_message(e), part), "%s: %s", part, err_message(e));
	err_free(e);
	protocol_decoder_deinit(&decoder);
}

Test(protocol, carries_every_member_in_pieces_of_any_size)
{
	struct buf bytes = {0};

	a_stream(&bytes);
	for (size_t piece = 1; piece < 70; piece += 3) {
		struct seen seen = {0};
		struct protocol_decoder decoder;
		struct protocol_result want = a_result();

		ok(decode(&bytes, piece, &seen, &decoder));
		cr_assert_eq(decoder.end, PROTOCOL_END_DONE);
		cr_assert_eq(seen.progress, 1);
		cr_assert_eq(seen.last_progress.phase, PROTOCOL_READING);
		cr_assert_eq(seen.last_progress.done, 3);
		cr_assert_eq(seen.last_progress.total, 9);
		cr_assert_str_eq(seen.text, "usr/lib/bad.so: damaged");
		cr_assert_eq(seen.results, 1);
		cr_assert_eq(seen.table_len, 3);
		cr_assert_arr_eq(seen.table, "abc", 3);
		const struct protocol_result *got = &seen.last_result;
		cr_assert(got->has_debug && !got->debug_only);
		cr_assert(got->kernel && !got->packed && got->has_text);
		cr_assert_eq(got->text_vaddr, want.text_vaddr);
		cr_assert_arr_eq(got->fileid.bytes, want.fileid.bytes, FILEID_BYTES);
		cr_assert(build_id_equal(&got->build_id, &want.build_id));
		cr_assert_str_eq(got->go_build_id, "go/id");
		cr_assert_str_eq(got->name, "usr/lib/x.so");
		cr_assert_str_eq(got->stats, "units=1");
		cr_assert_eq(got->size_bytes, want.size_bytes);
		cr_assert_eq(got->elf_machine, 62);
		cr_assert_eq(got->sources, 5);
		cr_assert_eq(got->builder_version, 7);
		cr_assert_eq(got->segments.count, 2);
		cr_assert_eq(got->segments.items[1].vaddr, 0x401000);
		cr_assert_eq(got->segments.items[1].foff, 0x1000);
		cr_assert_eq(got->segments.items[1].size, 0x99);
		cr_assert(got->segments.items[1].executable && !got->segments.items[0].executable);
		protocol_decoder_deinit(&decoder);
	}
	buf_deinit(&bytes);
}

Test(protocol, every_truncation_is_an_error)
{
	struct buf bytes = {0};

	a_stream(&bytes);
	size_t whole = bytes.len;
	for (bytes.len = 0; bytes.len < whole; bytes.len++)
		expect_error(&bytes, ERR_PEER, "worker's output ends");
	buf_deinit(&bytes);
}

Test(protocol, needs_and_failed_are_last_words)
{
	struct protocol_needs needs = {.build_id = {.len = 2, .bytes = {1, 2}}, .name = "x.dwz"};
	struct buf bytes = {0};
	struct seen seen = {0};
	struct protocol_decoder decoder;

	ok(protocol_put_hello(&bytes));
	ok(protocol_put_needs(&bytes, &needs));
	ok(decode(&bytes, 7, &seen, &decoder));
	cr_assert_eq(decoder.end, PROTOCOL_END_NEEDS);
	cr_assert_str_eq(decoder.needs.name, "x.dwz");
	cr_assert(build_id_equal(&decoder.needs.build_id, &needs.build_id));
	protocol_decoder_deinit(&decoder);

	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_failed(&bytes, ERR_FORMAT, "line\nbreak"));
	ok(decode(&bytes, 7, &seen, &decoder));
	cr_assert_eq(decoder.end, PROTOCOL_END_FAILED);
	cr_assert_eq(decoder.failure.code, ERR_FORMAT);
	cr_assert_str_eq(decoder.failure.message, "line?break");
	protocol_decoder_deinit(&decoder);
	buf_deinit(&bytes);
}

Test(protocol, rejects_frames_out_of_order)
{
	struct protocol_result result = a_result();
	struct buf bytes = {0};

	ok(protocol_put_done(&bytes, 0));
	expect_error(&bytes, ERR_PEER, "no greeting");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_hello(&bytes));
	expect_error(&bytes, ERR_PEER, "second greeting");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_chunk(&bytes, "x", 1));
	expect_error(&bytes, ERR_PEER, "chunk outside");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_result(&bytes, &result));
	ok(protocol_put_result(&bytes, &result));
	expect_error(&bytes, ERR_PEER, "middle of a table");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_result(&bytes, &result));
	ok(protocol_put_chunk(&bytes, "abcd", 4));
	expect_error(&bytes, ERR_PEER, "does not fit");
	bytes.len = 0;
	a_stream(&bytes);
	ok(protocol_put_done(&bytes, 1));
	expect_error(&bytes, ERR_PEER, "after the last frame");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_done(&bytes, 1));
	expect_error(&bytes, ERR_PEER, "other results");
	buf_deinit(&bytes);
}

static void put_raw(struct buf *bytes, unsigned type, uint32_t len, const char *payload, size_t payload_len)
{
	uint8_t head[] = {(uint8_t)type, (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16), (uint8_t)(len >> 24)};

	ok(buf_append(bytes, head, sizeof(head)));
	ok(buf_append(bytes, payload, payload_len));
}

Test(protocol, rejects_wrong_lengths_types_and_versions)
{
	struct buf bytes = {0};

	put_raw(&bytes, PROTOCOL_HELLO, 4, "\1\0\0\0", 4);
	expect_error(&bytes, ERR_PEER, "version 1");
	bytes.len = 0;
	put_raw(&bytes, PROTOCOL_HELLO, 5, "\2\0\0\0\0", 5);
	expect_error(&bytes, ERR_PEER, "wrong length");
	bytes.len = 0;
	put_raw(&bytes, PROTOCOL_HELLO, 3, "\2\0\0", 3);
	expect_error(&bytes, ERR_PEER, "wrong length");
	bytes.len = 0;
	put_raw(&bytes, PROTOCOL_HELLO, PROTOCOL_FRAME_MAX + 1, "", 0);
	expect_error(&bytes, ERR_PEER, "frame of");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	put_raw(&bytes, 99, 0, "", 0);
	expect_error(&bytes, ERR_PEER, "unknown type");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	put_raw(&bytes, PROTOCOL_PROGRESS, 17, "\11\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 17);
	expect_error(&bytes, ERR_PEER, "phase");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	put_raw(&bytes, PROTOCOL_FAILED, 4, "\300\1\0x", 4);
	expect_error(&bytes, ERR_PEER, "without a reason");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	put_raw(&bytes, PROTOCOL_NEEDS, 3, "\0\0\0", 3);
	expect_error(&bytes, ERR_PEER, "without a name");
	buf_deinit(&bytes);
}

Test(protocol, a_table_over_the_limit_is_refused_before_its_bytes)
{
	struct protocol_result result = a_result();
	struct buf bytes = {0};

	result.table_bytes = (1 << 20) + 1;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_result(&bytes, &result));
	expect_error(&bytes, ERR_LIMIT, "max_table_bytes");
	buf_deinit(&bytes);
}

Test(protocol, a_promised_size_allocates_nothing)
{
	struct protocol_result result = a_result();
	struct buf bytes = {0};
	struct seen seen = {0};
	struct protocol_decoder decoder;

	result.table_bytes = 1 << 20;
	ok(protocol_put_hello(&bytes));
	ok(protocol_put_result(&bytes, &result));
	ok(protocol_put_chunk(&bytes, "x", 1));
	struct err *e = decode(&bytes, bytes.len, &seen, &decoder);
	cr_assert_not_null(e); /* it ends in the table */
	err_free(e);
	cr_assert_lt(decoder.table.cap, 4096);
	protocol_decoder_deinit(&decoder);
	buf_deinit(&bytes);
}

Test(protocol, too_many_results_and_skipped_are_limits)
{
	struct protocol_result result = a_result();
	struct buf bytes = {0};

	result.table_bytes = 0;
	ok(protocol_put_hello(&bytes));
	for (unsigned i = 0; i <= PROTOCOL_RESULTS_MAX; i++)
		ok(protocol_put_result(&bytes, &result));
	expect_error(&bytes, ERR_LIMIT, "more than 16384 files");
	bytes.len = 0;
	ok(protocol_put_hello(&bytes));
	for (unsigned i = 0; i <= PROTOCOL_SKIPPED_MAX; i++)
		ok(protocol_put_skipped(&bytes, "x"));
	expect_error(&bytes, ERR_LIMIT, "skipped more than");
	buf_deinit(&bytes);
}

Test(protocol, the_handlers_error_ends_the_decoding)
{
	struct buf bytes = {0};
	struct seen seen = {.refuse = true};
	struct protocol_decoder decoder;

	a_stream(&bytes);
	struct err *e = decode(&bytes, bytes.len, &seen, &decoder);
	cr_assert_eq(err_code(e), ERR_MISMATCH);
	err_free(e);
	protocol_decoder_deinit(&decoder);
	buf_deinit(&bytes);
}

Test(protocol_put, refuses_what_the_decoder_would)
{
	struct buf bytes = {0};
	struct protocol_result result = a_result();

	struct err *e = protocol_put_chunk(&bytes, "", 0);
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
	e = protocol_put_chunk(&bytes, "", PROTOCOL_CHUNK_BYTES + 1);
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
	result.segments.count = LOAD_SEGMENTS_MAX + 1;
	e = protocol_put_result(&bytes, &result);
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
	cr_assert_eq(bytes.len, 0);
	buf_deinit(&bytes);
}

// SPDX-License-Identifier: Apache-2.0
#include "net/grpc_frame.h"

#include <criterion/criterion.h>
#include <string.h>

struct seen {
	char text[256];
	unsigned count, stop_at;
};

static bool on_message(void *user, struct buf *message)
{
	struct seen *seen = user;

	if (message->len > 0)
		(void)strncat(seen->text, (const char *)message->data, message->len);
	(void)strcat(seen->text, "|");
	return ++seen->count != seen->stop_at;
}

static struct err *feed(const void *bytes, size_t len, size_t step, enum codec codec, struct seen *seen)
{
	struct grpc_reader reader = {.limit = 10, .codec = codec, .on_message = on_message, .user = seen};
	struct err *e = NULL;

	for (size_t pos = 0; pos < len && !e; pos += step)
		e = grpc_reader_feed(&reader, (const uint8_t *)bytes + pos, len - pos < step ? len - pos : step);
	if (!e)
		e = grpc_reader_finish(&reader);
	grpc_reader_deinit(&reader);
	return e;
}

#define BYTES(text) text, sizeof(text) - 1

Test(grpc_reader_feed, gives_messages_whatever_the_pieces)
{
	static const char input[] = "\0\0\0\0\3abc\0\0\0\0\0\0\0\0\0\12" "0123456789";

	for (size_t step = 1; step <= sizeof(input); step++) {
		struct seen seen = {0};
		cr_assert_null(feed(BYTES(input), step, CODEC_NONE, &seen));
		cr_assert_str_eq(seen.text, "abc||0123456789|");
	}
}

Test(grpc_reader_feed, stops_when_the_callback_says_so)
{
	struct seen seen = {.stop_at = 1};

	cr_assert_null(feed(BYTES("\0\0\0\0\1a\0\0\0\0\1b"), 100, CODEC_NONE, &seen));
	cr_assert_str_eq(seen.text, "a|");
}

static bool leave_message(void *user, struct buf *message)
{
	(void)message;
	++*(unsigned *)user;
	return true;
}

Test(grpc_reader_feed, keeps_no_large_buffer_for_the_next_message)
{
	enum { LEN = 1 << 20 };
	static uint8_t bytes[5 + LEN] = {0, 0, LEN >> 16};
	unsigned count = 0;
	struct grpc_reader reader = {.limit = LEN, .on_message = leave_message, .user = &count};

	cr_assert_null(grpc_reader_feed(&reader, bytes, sizeof(bytes)));
	cr_assert_eq(count, 1);
	cr_assert_leq(reader.message.cap, 64u * 1024);
	cr_assert_null(grpc_reader_feed(&reader, bytes, sizeof(bytes)));
	cr_assert_eq(count, 2);
	grpc_reader_deinit(&reader);
}

Test(grpc_reader_feed, names_what_is_wrong)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum codec codec;
		enum err_code code;
	} bad[] = {
		{BYTES("\0\0\0\0\13"), CODEC_NONE, ERR_LIMIT},
		{BYTES("\0\377\377\377\377"), CODEC_NONE, ERR_LIMIT},
		{BYTES("\2\0\0\0\1x"), CODEC_NONE, ERR_FORMAT},
		{BYTES("\1\0\0\0\1x"), CODEC_NONE, ERR_UNSUPPORTED},
		{BYTES("\1\0\0\0\1x"), CODEC_GZIP, ERR_FORMAT},
		{BYTES("\0\0\0\0\3ab"), CODEC_NONE, ERR_FORMAT},
		{BYTES("\0\0"), CODEC_NONE, ERR_FORMAT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct seen seen = {0};
		struct err *e = feed(bad[i].bytes, bad[i].len, 3, bad[i].codec, &seen);
		cr_assert(e && err_code(e) == bad[i].code, "case %zu: %s", i, e ? err_message(e) : "no error");
		cr_assert_eq(seen.count, 0);
		err_free(e);
	}
}

Test(grpc_timeout_parse, knows_the_six_units_and_nothing_else)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {{"1H", 3600000}, {"2M", 120000}, {"3S", 3000}, {"4m", 4}, {"1u", 1}, {"1001u", 2}, {"1n", 1}, {"0m", 0},
		{"99999999H", 359999996400000}};
	static const char *const bad[] = {"", "1", "m", "1x", "1mm", "-1m", " 1m", "1 m", "123456789m", "0x1m"};
	uint64_t ms = 7;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_not(grpc_timeout_parse(bad[i], &ms), "'%s'", bad[i]);
	cr_assert_eq(ms, 7);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		cr_assert(grpc_timeout_parse(good[i].text, &ms), "%s", good[i].text);
		cr_assert_eq(ms, good[i].ms, "%s", good[i].text);
	}
}

Test(grpc_message_encode, escapes_percent_and_what_is_not_printable)
{
	struct buf text = {0};

	cr_assert_null(grpc_message_encode("5% n\xc3\xa4h\n", &text));
	cr_assert_str_eq((char *)text.data, "5%25 n%C3%A4h%0A");
	buf_deinit(&text);
}

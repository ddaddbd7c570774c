// SPDX-License-Identifier: Apache-2.0
#include "base/digest.h"

#include <criterion/criterion.h>
#include <string.h>

static void check_sha256(const char *text, const char *want)
{
	struct sha256 digest;
	char hex[SHA256_HEX_SIZE];

	cr_assert_null(sha256_of(text, strlen(text), &digest));
	sha256_format(&digest, hex);
	cr_assert_str_eq(hex, want);
}

/* FIPS 180-4's examples. */
Test(sha256_of, gives_the_standard_examples)
{
	check_sha256("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	check_sha256("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

Test(sha256_of, takes_no_bytes_at_all)
{
	struct sha256 digest;

	cr_assert_null(sha256_of(NULL, 0, &digest));
	cr_assert_eq(digest.bytes[0], 0xe3);
}

Test(sha256_stream, equals_the_digest_of_the_whole)
{
	struct sha256 whole, parts;
	CLEANUP(sha256_stream_destroyp) struct sha256_stream *stream = NULL;

	cr_assert_null(sha256_of("hello world", 11, &whole));
	cr_assert_null(sha256_stream_create(&stream));
	cr_assert_null(sha256_stream_update(stream, "hello", 5));
	cr_assert_null(sha256_stream_update(stream, NULL, 0));
	cr_assert_null(sha256_stream_update(stream, " world", 6));
	cr_assert_null(sha256_stream_finish(stream, &parts));
	cr_assert_arr_eq(whole.bytes, parts.bytes, SHA256_BYTES);
}

Test(sha256_parse, reads_what_format_prints_in_either_case)
{
	struct sha256 digest, again;
	char hex[SHA256_HEX_SIZE];

	cr_assert_null(sha256_of("x", 1, &digest));
	sha256_format(&digest, hex);
	hex[5] = (char)(hex[5] >= 'a' ? hex[5] - 32 : hex[5]);
	cr_assert(sha256_parse(hex, 64, &again));
	cr_assert_arr_eq(digest.bytes, again.bytes, SHA256_BYTES);
}

Test(sha256_parse, rejects_wrong_lengths_and_letters)
{
	char hex[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
	struct sha256 digest;

	cr_assert_not(sha256_parse(hex, 63, &digest));
	cr_assert_not(sha256_parse(hex, 0, &digest));
	hex[63] = 'g';
	cr_assert_not(sha256_parse(hex, 64, &digest));
}

/* The check value of CRC-32/ISO-HDLC, and continuation. */
Test(digest_crc32, gives_the_check_value_and_continues)
{
	cr_assert_eq(digest_crc32(0, "123456789", 9), 0xcbf43926U);
	cr_assert_eq(digest_crc32(digest_crc32(0, "1234", 4), "56789", 5), 0xcbf43926U);
	cr_assert_eq(digest_crc32(7, NULL, 0), 7);
}

/* XXH3's published value for empty input, and the canonical order of the 128-bit form. */
Test(digest_xxh3, gives_the_published_values)
{
	uint8_t wide[16];

	cr_assert_eq(digest_xxh3_64("", 0), 0x2d06800538d394c2U);
	digest_xxh3_128("", 0, wide);
	cr_assert_eq(wide[0], 0x99);
	cr_assert_eq(wide[15], 0x7f);
}

// SPDX-License-Identifier: Apache-2.0
#include "base/reader.h"

#include <criterion/criterion.h>

static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

static struct reader reader_of(const void *data, size_t len, bool big_endian)
{
	return reader_init(data, len, big_endian, "a.o: .debug_line");
}

Test(reader, reads_integers_in_both_byte_orders)
{
	struct reader little = reader_of(bytes, sizeof(bytes), false), big = reader_of(bytes, sizeof(bytes), true);

	cr_assert_eq(reader_u8(&little), 1);
	cr_assert_eq(reader_u16(&little), 0x0302);
	cr_assert_eq(reader_u32(&little), 0x07060504);
	cr_assert_eq(reader_left(&little), 2);
	cr_assert_eq(reader_u64(&big), 0x0102030405060708U);
	cr_assert_eq(reader_offset(&big), 8);
	cr_assert_not(big.failed);
}

Test(reader, reads_integers_of_every_size)
{
	for (unsigned size = 1; size <= 8; size++) {
		struct reader little = reader_of(bytes, size, false), big = reader_of(bytes, size, true);
		uint64_t want_little = 0, want_big = 0;
		for (unsigned i = 0; i < size; i++) {
			want_little |= (uint64_t)bytes[i] << (8 * i);
			want_big = want_big << 8 | bytes[i];
		}
		cr_assert_eq(reader_uint(&little, size), want_little);
		cr_assert_eq(reader_uint(&big, size), want_big);
		cr_assert_eq(reader_left(&little), 0);
	}
}

Test(reader, fails_on_integers_of_0_and_9_bytes)
{
	struct reader r = reader_of(bytes, sizeof(bytes), false);
	cr_assert_eq(reader_uint(&r, 0), 0);
	cr_assert(r.failed);
	r = reader_of(bytes, sizeof(bytes), false);
	cr_assert_eq(reader_uint(&r, 9), 0);
	cr_assert(r.failed);
}

Test(reader, keeps_its_failure_and_reads_nothing_more)
{
	struct reader r = reader_of(bytes, 3, false);

	cr_assert_eq(reader_u32(&r), 0);
	cr_assert(r.failed);
	cr_assert_eq(reader_left(&r), 0);
	cr_assert_eq(reader_u8(&r), 0, "although three bytes were there");
	cr_assert_null(reader_bytes(&r, 1));
	cr_assert_null(reader_text(&r, NULL));
	cr_assert_eq(reader_uleb(&r), 0);
	cr_assert_eq(reader_sleb(&r), 0);
	cr_assert_eq(reader_offset(&r), 0, "a failed read does not move");
}

Test(reader_bytes, takes_exactly_what_is_left)
{
	struct reader r = reader_of(bytes, 4, false);

	cr_assert_eq(reader_bytes(&r, 4), bytes);
	cr_assert_eq(reader_bytes(&r, 0), bytes + 4);
	cr_assert_not(r.failed);
	r = reader_of(bytes, 4, false);
	cr_assert_null(reader_bytes(&r, UINT64_MAX));
	cr_assert(r.failed);
}

Test(reader, survives_no_bytes_at_all)
{
	struct reader r = reader_of(NULL, 0, false);

	cr_assert_eq(reader_left(&r), 0);
	cr_assert_eq(reader_u8(&r), 0);
	cr_assert(r.failed);
}

/* DWARF 5, 7.6, figures 22 and 23. */
Test(reader_leb, gives_the_examples_of_the_standard)
{
	static const struct {
		uint8_t in[2];
		size_t len;
		uint64_t want;
	} unsigned_cases[] = {{{2}, 1, 2}, {{127}, 1, 127}, {{0x80, 1}, 2, 128}, {{0x81, 1}, 2, 129}, {{0xb9, 0x64}, 2, 12857}};
	static const struct {
		uint8_t in[2];
		size_t len;
		int64_t want;
	} signed_cases[] = {{{2}, 1, 2}, {{0x7e}, 1, -2}, {{0xff, 0}, 2, 127}, {{0x81, 0x7f}, 2, -127}, {{0x80, 1}, 2, 128},
		{{0x80, 0x7f}, 2, -128}, {{0x81, 1}, 2, 129}, {{0xff, 0x7e}, 2, -129}};

	for (size_t i = 0; i < ARRAY_SIZE(unsigned_cases); i++) {
		struct reader r = reader_of(unsigned_cases[i].in, unsigned_cases[i].len, false);
		cr_assert_eq(reader_uleb(&r), unsigned_cases[i].want);
		cr_assert_eq(reader_left(&r), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(signed_cases); i++) {
		struct reader r = reader_of(signed_cases[i].in, signed_cases[i].len, false);
		cr_assert_eq(reader_sleb(&r), signed_cases[i].want);
		cr_assert_eq(reader_left(&r), 0);
	}
}

Test(reader_leb, takes_ten_bytes_and_no_more)
{
	static const uint8_t all_ones[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
	static const uint8_t minus_one[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f};
	static const uint8_t endless[11] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00};
	static const uint8_t padded[5] = {0x81, 0x80, 0x80, 0x80, 0x00};

	struct reader r = reader_of(all_ones, sizeof(all_ones), false);
	cr_assert_eq(reader_uleb(&r), UINT64_MAX);
	r = reader_of(minus_one, sizeof(minus_one), false);
	cr_assert_eq(reader_sleb(&r), -1);
	r = reader_of(padded, sizeof(padded), false);
	cr_assert_eq(reader_uleb(&r), 1);
	cr_assert_not(r.failed);
	r = reader_of(endless, sizeof(endless), false);
	cr_assert_eq(reader_uleb(&r), 0);
	cr_assert(r.failed);
	r = reader_of(endless, sizeof(endless), false);
	cr_assert_eq(reader_sleb(&r), 0);
	cr_assert(r.failed);
	r = reader_of(endless, 3, false);
	cr_assert_eq(reader_uleb(&r), 0);
	cr_assert(r.failed);
	r = reader_of(endless, 3, false);
	cr_assert_eq(reader_sleb(&r), 0);
	cr_assert(r.failed);
}

Test(reader_text, gives_strings_in_place_and_fails_without_a_nul)
{
	struct reader r = reader_of("ab\0\0cd", 6, false);
	size_t len;

	cr_assert_str_eq(reader_text(&r, &len), "ab");
	cr_assert_eq(len, 2);
	cr_assert_str_eq(reader_text(&r, NULL), "");
	cr_assert_null(reader_text(&r, &len));
	cr_assert(r.failed);
}

Test(reader_sub, reads_a_part_and_skips_it)
{
	struct reader r = reader_of(bytes, sizeof(bytes), false);
	struct reader sub = reader_sub(&r, 4);

	cr_assert_eq(reader_u32(&sub), 0x04030201);
	cr_assert_eq(reader_left(&sub), 0);
	cr_assert_eq(reader_u8(&sub), 0);
	cr_assert(sub.failed);
	cr_assert_not(r.failed);
	cr_assert_eq(reader_u8(&r), 5);
	sub = reader_sub(&r, 100);
	cr_assert(sub.failed);
	cr_assert(r.failed);
	cr_assert_eq(reader_left(&sub), 0);
}

Test(reader_error, names_the_place)
{
	struct reader r = reader_of(bytes, sizeof(bytes), false);

	reader_u32(&r);
	struct err *e = reader_error(&r, "file index %d of %d", 9, 4);
	cr_assert_eq(err_code(e), ERR_FORMAT);
	cr_assert_str_eq(err_message(e), "a.o: .debug_line+0x4: file index 9 of 4");
	err_free(e);
}

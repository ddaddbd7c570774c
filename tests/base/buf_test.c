// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"
#include "base/buf.h"
#include "base/hex.h"
#include "base/random.h"

#include <criterion/criterion.h>

Test(buf, appends_bytes_and_text)
{
	struct buf buf = {0};

	cr_assert_null(buf_append(&buf, "ab", 2));
	cr_assert_null(buf_append(&buf, NULL, 0));
	cr_assert_null(buf_printf(&buf, "%d-%s", 42, "x"));
	cr_assert_null(buf_reserve(&buf, 1));
	buf_put_u8(&buf, 0);
	cr_assert_str_eq((char *)buf.data, "ab42-x");
	cr_assert_eq(buf.len, 7);
	buf_deinit(&buf);
	cr_assert_null(buf.data);
	cr_assert_eq(buf.cap, 0);
}

Test(buf, grows_over_many_appends)
{
	struct buf buf = {0};

	for (uint32_t i = 0; i < 100000; i++)
		cr_assert_null(buf_append(&buf, &i, sizeof(i)));
	for (uint32_t i = 0; i < 100000; i++)
		cr_assert_eq(memcmp(buf.data + 4 * i, &i, 4), 0);
	buf_deinit(&buf);
}

Test(buf_reserve, refuses_to_pass_its_limit)
{
	struct buf buf = {0};

	cr_assert_null(buf_append(&buf, "abc", 3));
	const size_t extras[] = {BUF_MAX, BUF_MAX - 2, SIZE_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(extras); i++) {
		struct err *e = buf_reserve(&buf, extras[i]);
		cr_assert_eq(err_code(e), ERR_LIMIT);
		err_free(e);
	}
	cr_assert_eq(buf.len, 3);
	buf_deinit(&buf);
}

Test(arena, gives_zeroed_aligned_memory_of_any_size)
{
	struct arena arena = {0};

	for (size_t size = 0; size < 5000; size += 7) {
		uint8_t *bytes = arena_alloc(&arena, size);
		cr_assert_not_null(bytes);
		cr_assert_eq((uintptr_t)bytes % 16, 0);
		for (size_t i = 0; i < size; i++)
			cr_assert_eq(bytes[i], 0);
		memset(bytes, 0xff, size);
	}
	cr_assert_not_null(arena_alloc(&arena, 1 << 20), "larger than a chunk");
	cr_assert_geq(arena.total_bytes, 1 << 20);
	arena_deinit(&arena);
	cr_assert_eq(arena.total_bytes, 0);
}

Test(arena, copies_text_with_its_nul)
{
	struct arena arena = {0};

	cr_assert_str_eq(arena_copy_text(&arena, "hello", 4), "hell");
	cr_assert_str_eq(arena_copy_text(&arena, NULL, 0), "");
	arena_deinit(&arena);
}

Test(arena, zeroes_again_after_a_reset)
{
	struct arena arena = {0};

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 100; i++) {
			uint8_t *bytes = arena_alloc(&arena, 4096);
			cr_assert_eq(bytes[0] | bytes[4095], 0);
			memset(bytes, 0xff, 4096);
		}
		arena_reset(&arena);
		cr_assert_leq(arena.total_bytes, 70000, "one chunk is kept");
	}
	arena_deinit(&arena);
	arena_reset(&arena);
}

Test(arena, refuses_absurd_sizes)
{
	struct arena arena = {0};

	cr_assert_null(arena_alloc(&arena, SIZE_MAX));
	cr_assert_null(arena_alloc(&arena, ARENA_ALLOC_MAX + 1));
	cr_assert_null(arena_copy_text(&arena, "x", SIZE_MAX));
	arena_deinit(&arena);
}

Test(hex, formats_and_parses)
{
	static const uint8_t bytes[] = {0x00, 0x9a, 0xff};
	uint8_t parsed[3] = {7, 7, 7};
	char text[7];

	hex_format(bytes, sizeof(bytes), text);
	cr_assert_str_eq(text, "009aff");
	cr_assert(hex_parse("009AfF", 6, parsed));
	cr_assert_arr_eq(parsed, bytes, 3);
	cr_assert(hex_parse("", 0, parsed));
	parsed[0] = 7;
	cr_assert_not(hex_parse("00g0", 4, parsed));
	cr_assert_not(hex_parse("00/:", 4, parsed));
	cr_assert_not(hex_parse("@G", 2, parsed));
	cr_assert_not(hex_parse("123", 3, parsed));
	cr_assert_eq(parsed[0], 7);
}

Test(random_process_seed, stays_the_same_in_one_process)
{
	cr_assert_eq(random_process_seed(), random_process_seed());
	cr_assert_neq(random_process_seed(), 0);
}

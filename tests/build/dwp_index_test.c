// SPDX-License-Identifier: Apache-2.0
/* The index of a .dwp: both versions in both byte orders, and every way in which it can point out of its sections. */
#include "symbolizer/build/dwp_index.h"

#include <criterion/criterion.h>
#include <string.h>

static uint8_t bytes[4096];
static size_t len;
static bool big;
static const uint8_t sections_bytes[1000];

static void put(uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		bytes[len + (big ? size - 1 - i : i)] = (uint8_t)(value >> (8 * i));
	len += size;
}

static void put_version(unsigned version)
{
	len = 0;
	if (version == 5) {
		put(5, 2);
		put(0, 2);
	} else {
		put(version, 4);
	}
}

/* Two units in four slots; columns info, abbrev, str_offsets, 8 (rnglists or macro) and one that nobody knows. */
static void put_index(unsigned version, uint32_t second_info, uint32_t abbrev_size)
{
	static const uint32_t kinds[] = {1, 3, 6, 8, 77};
	const uint32_t rows[2][2][5] = {{{0, 0, 0, 0, 9}, {100, 40, 80, 60, 9}}, {{second_info, 40, 80, 60, 9}, {150, abbrev_size, 24, 20, 9}}};

	put_version(version);
	put(5, 4);
	put(2, 4);
	put(4, 4);
	for (unsigned i = 0; i < 4; i++)
		put(i * 0x1111, 8);
	for (unsigned i = 0; i < 4; i++)
		put(i < 2 ? i + 1 : 0, 4);
	for (unsigned i = 0; i < 5; i++)
		put(kinds[i], 4);
	for (unsigned part = 0; part < 2; part++)
		for (unsigned row = 0; row < 2; row++)
			for (unsigned i = 0; i < 5; i++)
				put(rows[row][part][i], 4);
}

static struct err *read_index(struct dwp_index *ret, struct account *account)
{
	struct dw_sections sections = {.info = reader_init(sections_bytes, 250, big, "info"),
		.abbrev = reader_init(sections_bytes, 100, big, "abbrev"),
		.str_offsets = reader_init(sections_bytes, 200, big, "str_offsets"),
		.rnglists = reader_init(sections_bytes, 80, big, "rnglists")};

	return dwp_index_read(reader_init(bytes, len, big, "index"), &sections, account, ret);
}

static void expect_error(enum err_code code, const char *part)
{
	struct account account = {0};
	struct dwp_index index = {0};
	struct err *e = read_index(&index, &account);

	cr_assert_not_null(e, "%s", part);
	cr_expect_eq(err_code(e), code, "%s", err_message(e));
	cr_expect(strstr(err_message(e), part) != NULL, "\"%s\" has no \"%s\"", err_message(e), part);
	err_free(e);
	dwp_index_deinit(&index, &account);
	cr_expect_eq(account.held, 0);
}

Test(dwp_index_read, takes_both_versions_in_both_byte_orders)
{
	for (unsigned i = 0; i < 4; i++) {
		struct account account = {0};
		struct dwp_index index = {0};
		unsigned version = i & 1 ? 5 : 2;

		big = i & 2;
		put_index(version, 100, 60);
		struct err *e = read_index(&index, &account);
		cr_assert_null(e, "%s", e ? err_message(e) : "");
		cr_assert_eq(index.count, 2);
		cr_expect_eq(index.items[1].info, 100);
		cr_expect_eq(index.items[1].info_len, 150);
		cr_expect_eq(index.items[1].abbrev, 40);
		cr_expect_eq(index.items[1].str_offsets, 80);
		cr_expect_eq(index.items[1].rnglists, version == 5 ? 60 : 0, "column 8 is .debug_macro.dwo in version 2");
		dwp_index_deinit(&index, &account);
		cr_expect_eq(account.held, 0);
	}
}

Test(dwp_index_read, refuses_parts_out_of_their_sections)
{
	put_index(5, 101, 60);
	expect_error(ERR_FORMAT, "info: row 2 of the index has 0x65+0x96 of 0xfa bytes");
	put_index(5, 100, 61);
	expect_error(ERR_FORMAT, "abbrev: row 2 of the index");
	put_index(5, 100, UINT32_MAX);
	expect_error(ERR_FORMAT, "abbrev: row 2 of the index");
}

Test(dwp_index_read, refuses_two_units_at_one_place)
{
	put_index(5, 99, 60);
	expect_error(ERR_FORMAT, "two units at 0x63");
}

Test(dwp_index_read, refuses_other_versions)
{
	put_index(3, 100, 60);
	expect_error(ERR_UNSUPPORTED, "version 3");
	put_index(0x10005, 100, 60);
	expect_error(ERR_UNSUPPORTED, "version 65541");
}

Test(dwp_index_read, refuses_every_length_that_is_too_short)
{
	put_index(2, 100, 60);
	const size_t whole = len;
	for (len = 0; len < whole; len++)
		expect_error(ERR_FORMAT, len < 16 ? "ends in its header" : "cut short");
}

Test(dwp_index_read, refuses_counts_that_overflow)
{
	put_version(5);
	put(16, 4);
	put(UINT32_MAX, 4);
	put(UINT32_MAX, 4);
	expect_error(ERR_FORMAT, "cut short");
	put_version(5);
	put(UINT32_MAX, 4);
	put(UINT32_MAX, 4);
	put(0, 4);
	expect_error(ERR_FORMAT, "columns");
	put_version(2);
	put(0, 4);
	put(UINT32_MAX, 4);
	put(0, 4);
	expect_error(ERR_FORMAT, "columns");
}

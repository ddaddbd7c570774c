// SPDX-License-Identifier: Apache-2.0
#include "worker/ar.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static char bytes[16384];
static size_t len;

static void begin(void)
{
	len = (size_t)sprintf(bytes, "!<arch>\n");
}

/* A member whose header says @p said bytes and that has @p has. */
static void member(const char *name, const char *said, size_t has)
{
	len += (size_t)sprintf(bytes + len, "%-16s%-12s%-6s%-6s%-8s%-10s`\n", name, "0", "0", "0", "100644", said);
	memset(bytes + len, 'd', has);
	len += has;
	if (has % 2)
		bytes[len++] = '\n';
}

static void expect(enum err_code code, const char *part)
{
	struct image image = {(const uint8_t *)bytes, len};
	struct ar_data data;
	struct err *e = ar_find_data(&image, &data);

	cr_assert_not_null(e, "expected: %s", part);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert_not_null(strstr(err_message(e), part), "%s: %s", part, err_message(e));
	err_free(e);
}

Test(ar_find_data, finds_the_member_behind_odd_sizes_and_knows_its_codec)
{
	static const struct {
		char name[16];
		enum codec codec;
	} cases[] = {{"data.tar", CODEC_NONE}, {"data.tar.gz", CODEC_GZIP}, {"data.tar.xz/", CODEC_XZ}, {"data.tar.zst", CODEC_ZSTD}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ar_data data;

		begin();
		member("debian-binary", "3", 3);
		member("control.tar.xz", "5", 5);
		size_t at = len + 60;
		member(cases[i].name, "7", 7);
		struct image image = {(const uint8_t *)bytes, len};
		struct err *e = ar_find_data(&image, &data);
		cr_assert_null(e, "%s", err_message(e));
		cr_assert_eq(data.codec, cases[i].codec);
		cr_assert_eq(data.len, 7);
		cr_assert_eq((const char *)data.bytes, bytes + at);
	}
}

Test(ar_find_data, rejects_what_is_no_package)
{
	len = (size_t)sprintf(bytes, "hello");
	expect(ERR_FORMAT, "not a Debian package");
	begin();
	expect(ERR_FORMAT, "no data.tar");
	begin();
	member("main.o", "4", 4);
	expect(ERR_FORMAT, "first member is main.o");
	begin();
	member("debian-binary", "4", 4);
	expect(ERR_FORMAT, "no data.tar");
}

Test(ar_find_data, rejects_sizes_that_lie)
{
	begin();
	member("debian-binary", "4", 4);
	member("data.tar.xz", "100", 10);
	expect(ERR_FORMAT, "data.tar.xz says it has 100 bytes, 10 are left");
	begin();
	member("debian-binary", "9999999999", 4);
	expect(ERR_FORMAT, "says it has 9999999999 bytes");
	begin();
	member("debian-binary", "-4", 4);
	expect(ERR_FORMAT, "damaged header");
	begin();
	member("debian-binary", "4x", 4);
	expect(ERR_FORMAT, "damaged header");
	begin();
	member("debian-binary", "4", 4);
	len += 30;
	expect(ERR_FORMAT, "truncated header");
}

Test(ar_find_data, rejects_other_compressions_and_endless_members)
{
	begin();
	member("debian-binary", "4", 4);
	member("data.tar.bz2", "4", 4);
	expect(ERR_UNSUPPORTED, "data.tar.bz2");
	begin();
	member("debian-binary", "4", 4);
	for (unsigned i = 0; i < AR_MEMBERS_MAX; i++)
		member("x", "0", 0);
	expect(ERR_FORMAT, "more than 64 members");
}

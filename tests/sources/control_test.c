// SPDX-License-Identifier: Apache-2.0
/* Control parts of packages made by dpkg-deb, whole, cut off and damaged. */
#include "sources/control.h"

#include "base/buf.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/cairn-control-XXXXXX";

static void make_folder(void)
{
	cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -r %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(control, .init = make_folder, .fini = remove_folder);

/* A package whose md5sums has these lines; malloc'd. */
static uint8_t *make_package(const char *packing, const char *sums, size_t *len_ret)
{
	char command[4096];

	(void)snprintf(command, sizeof(command),
		"cd %s && rm -rf r && mkdir -p r/DEBIAN && printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' "
		"> r/DEBIAN/control && printf '%s' > r/DEBIAN/md5sums && dpkg-deb --root-owner-group -Z%s -b r x.deb > /dev/null",
		folder, sums, packing);
	cr_assert_eq(system(command), 0);
	(void)snprintf(command, sizeof(command), "%s/x.deb", folder);
	FILE *file = fopen(command, "rb");
	cr_assert_not_null(file);
	uint8_t *bytes = malloc(1 << 20);
	*len_ret = fread(bytes, 1, 1 << 20, file);
	(void)fclose(file);
	return bytes;
}

static struct err *collect(void *context, const struct build_id *id)
{
	char hex[BUILD_ID_HEX_SIZE];

	build_id_format(id, hex);
	return buf_printf(context, "%s ", hex);
}

static const char two[] = "d41d8cd98f00b204e9800998ecf8427e  usr/lib/debug/.build-id/ab/cdef01.debug\\n"
			  "d41d8cd98f00b204e9800998ecf8427e  usr/share/doc/x/copyright\\n"
			  "d41d8cd98f00b204e9800998ecf8427e  usr/lib/debug/.build-id/12/345678.debug";

Test(control, names_the_build_ids_of_every_packing_from_its_first_bytes)
{
	static const char *const packings[] = {"xz", "zstd", "gzip", "none"};

	for (size_t i = 0; i < 4; i++) {
		CLEANUP(buf_deinit) struct buf ids = {0};
		size_t len;
		uint64_t extent;
		CLEANUP(freep) uint8_t *bytes = make_package(packings[i], two, &len);
		cr_assert_null(control_extent(bytes, 200, &extent));
		cr_assert_lt(extent, len);
		struct err *e = control_build_ids(bytes, (size_t)extent, collect, &ids);
		cr_assert_null(e, "%s: %s", packings[i], e ? err_message(e) : "");
		cr_assert(ids.len == 18 && memcmp(ids.data, "abcdef01 12345678 ", 18) == 0, "%.*s", (int)ids.len, (const char *)ids.data);
	}
}

Test(control, every_cut_is_an_error_and_no_crash)
{
	CLEANUP(buf_deinit) struct buf ids = {0};
	uint64_t extent;
	size_t len;
	CLEANUP(freep) uint8_t *bytes = make_package("xz", two, &len);

	cr_assert_null(control_extent(bytes, len, &extent));
	for (size_t cut = 0; cut < extent; cut++) {
		CLEANUP(freep) uint8_t *some = malloc(cut ? cut : 1);
		memcpy(some, bytes, cut);
		struct err *e = control_build_ids(some, cut, collect, &ids);
		cr_assert_not_null(e, "%zu of %llu bytes", cut, (unsigned long long)extent);
		err_free(e);
	}
}

Test(control, damage_of_the_plain_tar_is_told)
{
	CLEANUP(buf_deinit) struct buf ids = {0};
	size_t len;
	CLEANUP(freep) uint8_t *bytes = make_package("none", two, &len);
	const size_t tar = 8 + 60 + 4 + 60;
	static const struct {
		size_t at;
		uint8_t byte;
		const char *words;
	} cases[] = {{124, '9', "damaged header"}, {148, '7', "damaged header"}, {0, 0, "no md5sums"}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t before = bytes[tar + cases[i].at];
		bytes[tar + cases[i].at] = cases[i].byte;
		struct err *e = control_build_ids(bytes, len, collect, &ids);
		cr_assert_not_null(e);
		cr_assert_not_null(strstr(err_message(e), cases[i].words), "%s", err_message(e));
		err_free(e);
		bytes[tar + cases[i].at] = before;
	}
}

static void expect(struct err *e, enum err_code code)
{
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	err_free(e);
}

Test(control, sizes_that_lie_and_what_is_no_package_are_refused)
{
	CLEANUP(buf_deinit) struct buf ids = {0};
	uint64_t extent;
	size_t len;
	CLEANUP(freep) uint8_t *bytes = make_package("xz", two, &len);

	memcpy(bytes + 8 + 60 + 4 + 48, "9999999999", 10);
	expect(control_extent(bytes, len, &extent), ERR_LIMIT);
	expect(control_build_ids(bytes, len, collect, &ids), ERR_FORMAT);
	expect(control_extent("<html>", 6, &extent), ERR_FORMAT);
	expect(control_extent("", 0, &extent), ERR_FORMAT);
	memcpy(bytes + 8 + 60 + 4, "data.tar.xz ", 12);
	expect(control_extent(bytes, len, &extent), ERR_FORMAT);
	memcpy(bytes + 8 + 60 + 4, "control.tar.bz2 ", 16);
	memcpy(bytes + 8 + 60 + 4 + 48, "10        ", 10);
	expect(control_build_ids(bytes, len, collect, &ids), ERR_UNSUPPORTED);
}

static struct err *refuse(void *context, const struct build_id *id)
{
	(void)context;
	(void)id;
	return err_new(ERR_BUSY, "enough");
}

Test(control, what_the_caller_says_is_handed_on)
{
	size_t len;
	CLEANUP(freep) uint8_t *bytes = make_package("gzip", two, &len);

	expect(control_build_ids(bytes, len, refuse, NULL), ERR_BUSY);
}

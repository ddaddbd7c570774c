// SPDX-License-Identifier: Apache-2.0
/* Releases of kernels by build ID: what is taken for one, and how many. */
#include "sources/kernels.h"

#include <criterion/criterion.h>
#include <string.h>

static struct kernels kernels;

static void begin(void)
{
	cr_assert_null(kernels_init(&kernels));
}

static void end(void)
{
	kernels_deinit(&kernels);
}

static struct build_id id_of(uint32_t number)
{
	struct build_id id = {.len = 20};

	memcpy(id.bytes, &number, sizeof(number));
	return id;
}

static const char *after(uint32_t number, const char *release)
{
	static char found[KERNEL_RELEASE_SIZE];
	struct build_id id = id_of(number);

	cr_assert_null(kernels_note(&kernels, &id, release, strlen(release)));
	kernels_find(&kernels, &id, found);
	return found;
}

TestSuite(kernels, .init = begin, .fini = end);

Test(kernels, keeps_the_last_release_of_a_build_id)
{
	cr_assert_str_eq(after(1, "6.1.0-50-cloud-amd64"), "6.1.0-50-cloud-amd64");
	cr_assert_str_eq(after(2, "5.15.0~rc1+deb11_1"), "5.15.0~rc1+deb11_1");
	cr_assert_str_eq(after(1, "6.12.1"), "6.12.1");
	struct build_id none = {0}, other = id_of(3);
	char found[KERNEL_RELEASE_SIZE];
	cr_assert_null(kernels_note(&kernels, &none, "6.1", 3));
	kernels_find(&kernels, &none, found);
	cr_assert_str_eq(found, "");
	kernels_find(&kernels, &other, found);
	cr_assert_str_eq(found, "");
}

/* Names of packages are made of it. */
Test(kernels, passes_over_what_is_no_release)
{
	static const char *const bad[] = {"", "../../etc/passwd", "v6.1", "6.1/x", "6.1 0", "6.1\n", "6.1%s",
		"6.1.0-0123456789-0123456789-0123456789-0123456789-0123456789-012345"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_str_eq(after(1, bad[i]), "", "%s", bad[i]);
	struct build_id id = id_of(1);
	char found[KERNEL_RELEASE_SIZE];
	cr_assert_null(kernels_note(&kernels, &id, "6.1\0x", 5));
	kernels_find(&kernels, &id, found);
	cr_assert_str_eq(found, "");
}

Test(kernels, past_the_limit_all_are_forgotten_and_it_goes_on)
{
	char found[KERNEL_RELEASE_SIZE];
	struct build_id first = id_of(0);

	for (uint32_t i = 0; i < KERNELS_MAX; i++)
		cr_assert_str_eq(after(i, "6.1"), "6.1");
	kernels_find(&kernels, &first, found);
	cr_assert_str_eq(found, "6.1");
	cr_assert_str_eq(after(KERNELS_MAX, "6.2"), "6.2");
	kernels_find(&kernels, &first, found);
	cr_assert_str_eq(found, "");
	cr_assert_eq(kernels.by_id.count, 1);
}

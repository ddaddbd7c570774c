// SPDX-License-Identifier: Apache-2.0
#include "base/intern.h"

#include <criterion/criterion.h>
#include <stdio.h>

static uint32_t add(struct intern *intern, const char *text)
{
	uint32_t id = UINT32_MAX;

	cr_assert_null(intern_add(intern, text, strlen(text), &id));
	return id;
}

Test(intern_add, numbers_strings_in_order_of_first_sight)
{
	struct intern intern = {0};

	cr_assert_eq(add(&intern, ""), 0);
	cr_assert_eq(add(&intern, "main"), 1);
	cr_assert_eq(add(&intern, "mai"), 2);
	cr_assert_eq(add(&intern, "main"), 1);
	cr_assert_eq(add(&intern, ""), 0);
	cr_assert_eq(intern.count, 3);
	cr_assert_str_eq(intern_text(&intern, 2), "mai");
	cr_assert_eq(intern.blob.len, 1 + 5 + 4);
	intern_deinit(&intern);
}

Test(intern_add, cuts_at_a_nul)
{
	struct intern intern = {0};
	uint32_t id;

	cr_assert_eq(add(&intern, "ab"), 0);
	cr_assert_null(intern_add(&intern, "ab\0cd", 5, &id));
	cr_assert_eq(id, 0);
	intern_deinit(&intern);
}

Test(intern_add, takes_a_null_pointer_as_the_empty_string)
{
	struct intern intern = {0};
	uint32_t id;

	cr_assert_null(intern_add(&intern, NULL, 0, &id));
	cr_assert_str_eq(intern_text(&intern, id), "");
	intern_deinit(&intern);
}

Test(intern_add, keeps_many_strings_apart)
{
	enum { STRINGS = 50000 };
	struct intern intern = {0};
	char text[32];

	for (int round = 0; round < 2; round++)
		for (int i = 0; i < STRINGS; i++) {
			(void)snprintf(text, sizeof(text), "name_%d", i);
			cr_assert_eq(add(&intern, text), (uint32_t)i);
		}
	cr_assert_eq(intern.count, STRINGS);
	for (int i = 0; i < STRINGS; i++) {
		(void)snprintf(text, sizeof(text), "name_%d", i);
		cr_assert_str_eq(intern_text(&intern, (uint32_t)i), text);
	}
	intern_deinit(&intern);
}

// SPDX-License-Identifier: Apache-2.0
/* Each test in a folder of its own, as its working directory: TestSuite(x, .init = in_folder, .fini = remove_folder). */
#ifndef CAIRN_TESTS_BUILD_FOLDER_H
#define CAIRN_TESTS_BUILD_FOLDER_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/cairn-build-XXXXXX";

static void in_folder(void)
{
	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
}

static void remove_folder(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_expect_eq(system(command), 0);
}

/* Must succeed. */
static void shell(const char *command)
{
	cr_assert_eq(system(command), 0, "%s", command);
}

#endif

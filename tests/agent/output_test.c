// SPDX-License-Identifier: Apache-2.0
/* Whether a profile can be written is told before it is made, and nothing is touched by that. */
#include "agent/output.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], path[128];

static void make_folder(void)
{
	strcpy(folder, "/tmp/cairn-output-XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	(void)snprintf(path, sizeof(path), "%s/cpu.pb.gz", folder);
}

static void remove_folder(void)
{
	(void)unlink(path);
	(void)rmdir(folder);
}

TestSuite(output_check, .init = make_folder, .fini = remove_folder);

static void expect_error(const char *name)
{
	struct err *e = output_check(name);

	cr_assert_not_null(e, "%s", name);
	cr_expect_eq(err_code(e), ERR_OS);
	cr_expect_not_null(strstr(err_message(e), name), "%s", err_message(e));
	err_free(e);
}

Test(output_check, a_new_file_passes_and_is_not_made)
{
	struct stat st;

	cr_assert_null(output_check(path));
	cr_assert_neq(stat(path, &st), 0);
	cr_assert_null(output_check("-"));
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_null(output_check(path), "it waits for no reader");
	cr_assert_eq(chdir(folder), 0);
	cr_assert_null(output_check("here"));
}

Test(output_check, a_file_of_before_keeps_what_is_in_it_until_it_is_written)
{
	struct buf bytes = {0};
	char text[8] = "";

	cr_assert_null(buf_append(&bytes, "before", 6));
	cr_assert_null(output_write(path, &bytes));
	cr_assert_null(output_check(path));
	FILE *file = fopen(path, "re");
	cr_assert_not_null(file);
	cr_assert_eq(fread(text, 1, sizeof(text) - 1, file), 6u);
	(void)fclose(file);
	cr_assert_str_eq(text, "before");
	buf_deinit(&bytes);
}

Test(output_check, what_cannot_be_a_file_is_told)
{
	char below[160];

	expect_error(folder);
	(void)snprintf(below, sizeof(below), "%s/none/cpu.pb.gz", folder);
	expect_error(below);
	expect_error("/dev/null/cpu.pb.gz");
}

Test(output_check, a_folder_of_others_is_told)
{
	if (geteuid() == 0)
		cr_assert_eq(seteuid(65534), 0);
	expect_error("/usr/cpu.pb.gz");
	expect_error("/etc/passwd");
	cr_assert(geteuid() != 65534 || seteuid(0) == 0);
}

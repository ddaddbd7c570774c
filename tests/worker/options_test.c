// SPDX-License-Identifier: Apache-2.0
#include "worker/options.h"

#include <criterion/criterion.h>
#include <string.h>

static struct err *parse(struct worker_options *ret, const char *a, const char *b, const char *c)
{
	char words[4][64] = {"cairn-worker"};
	const char *given[] = {a, b, c};
	char *argv[5] = {words[0]};
	int argc = 1;

	for (size_t i = 0; i < 3 && given[i]; i++, argc++)
		argv[argc] = strcpy(words[argc], given[i]);
	return worker_options_parse(argc, argv, ret);
}

static void rejects(const char *a, const char *b, const char *c)
{
	struct worker_options options;
	struct err *e = parse(&options, a, b, c);

	cr_assert_not_null(e, "%s %s %s", a ? a : "", b ? b : "", c ? c : "");
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
}

Test(worker_options_parse, takes_numbers_and_knows_the_last_descriptor)
{
	struct worker_options options;
	struct err *e = parse(&options, "elf", "binary=3", "debug=4");

	cr_assert_null(e);
	cr_assert_eq(options.mode, WORKER_ELF);
	cr_assert_eq(options.binary_fd, 3);
	cr_assert_eq(options.debug_fd, 4);
	cr_assert_eq(options.package_fd, -1);
	cr_assert_eq(worker_options_last_fd(&options), 4);
	e = parse(&options, "package", "package=3", "scratch=4");
	cr_assert_null(e);
	cr_assert_eq(options.mode, WORKER_PACKAGE);
	cr_assert_eq(worker_options_last_fd(&options), 4);
}

Test(worker_options_parse, rejects_paths_and_anything_else_that_is_no_number)
{
	rejects("elf", "binary=/etc/passwd", NULL);
	rejects("elf", "/etc/passwd", NULL);
	rejects("elf", "binary=", NULL);
	rejects("elf", "binary=-1", NULL);
	rejects("elf", "binary=3x", NULL);
	rejects("elf", "binary=2", NULL);
	rejects("elf", "binary=99", NULL);
	rejects("elf", "binary=3", "memory=18446744073709551616");
	rejects("elf", "binary=3", "memory=1");
	rejects("elf", "binary=3", "threads=0");
	rejects("elf", "binary=3", "colour=3");
}

Test(worker_options_parse, rejects_a_mode_without_its_input)
{
	rejects(NULL, NULL, NULL);
	rejects("elf", NULL, NULL);
	rejects("package", "package=3", NULL);
	rejects("package", "scratch=3", NULL);
	rejects("shell", "binary=3", NULL);
	rejects("--help", NULL, NULL);
}

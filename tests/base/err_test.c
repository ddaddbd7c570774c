// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(err_new, keeps_code_and_formats_one_line)
{
	struct err *e = err_new(ERR_FORMAT, "%s+0x%x: file index %d of %d", "a.debug: .debug_line", 0x1f3, 9, 4);

	cr_assert_eq(err_code(e), ERR_FORMAT);
	cr_assert_str_eq(err_message(e), "a.debug: .debug_line+0x1f3: file index 9 of 4");
	err_free(e);
}

Test(err_new, replaces_control_characters_of_a_hostile_name)
{
	struct err *e = err_new(ERR_FORMAT, "section \"%s\"", "a\nb\033[2J");

	cr_assert_str_eq(err_message(e), "section \"a?b?[2J\"");
	err_free(e);
}

Test(err_new, cuts_a_message_that_is_too_long)
{
	char name[5000];
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	struct err *e = err_new(ERR_LIMIT, "%s", name);

	cr_assert_lt(strlen(err_message(e)), 1025);
	err_free(e);
}

Test(err_os, carries_errno_and_its_text)
{
	struct err *e = err_os(ENOENT, "open %s", "/nowhere");

	cr_assert_eq(err_code(e), ERR_OS);
	cr_assert_eq(err_errno(e), ENOENT);
	cr_assert_str_eq(err_message(e), "open /nowhere: No such file or directory");
	err_free(e);
}

Test(err_wrap, puts_context_first_and_keeps_code)
{
	struct err *e = err_wrap(err_new(ERR_CORRUPT, "checksum"), "table %d", 7);

	cr_assert_eq(err_code(e), ERR_CORRUPT);
	cr_assert_str_eq(err_message(e), "table 7: checksum");
	err_free(e);
}

Test(err_wrap, leaves_success_and_nomem_alone)
{
	cr_assert_null(err_wrap(NULL, "context"));
	cr_assert_eq(err_wrap(err_nomem(), "context"), err_nomem());
	err_free(err_nomem());
}

// SPDX-License-Identifier: Apache-2.0
/* What is believed of a result whose file lay packed in another: only what a kernel's build ID proves. */
#include "ingest/check.h"

#include <criterion/criterion.h>
#include <string.h>

static struct protocol_result a_kernel(void)
{
	struct protocol_result result = {.kernel = true, .packed = true, .size_bytes = 100, .build_id = {.len = 20}};

	memset(result.build_id.bytes, 0xab, 20);
	result.fileid = fileid_from_kernel_build_id(result.build_id.bytes, 20);
	return result;
}

static struct check_expected given(void)
{
	struct check_expected expected = {.has_file = true, .size_bytes = 100};

	memset(expected.fileid.bytes, 0x11, FILEID_BYTES);
	return expected;
}

static void expect_error(const struct protocol_result *result, enum err_code code, const char *words)
{
	struct check_expected expected = given();
	struct buf none = {0};
	struct err *e = check_result(result, &none, &expected);

	cr_assert_not_null(e, "%s", words);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert_not_null(strstr(err_message(e), words), "%s", err_message(e));
	err_free(e);
}

Test(check_result, a_packed_kernel_is_known_by_its_kernel_id)
{
	struct protocol_result result = a_kernel();
	struct check_expected expected = given();
	struct buf none = {0};
	struct err *e = check_result(&result, &none, &expected);

	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_assert_null(check_result(&result, &none, NULL));
}

Test(check_result, a_packed_file_under_any_other_id_is_refused)
{
	struct protocol_result result = a_kernel();

	result.fileid.bytes[3] ^= 1;
	expect_error(&result, ERR_PEER, "not that of a kernel");
	result = a_kernel();
	result.kernel = false;
	expect_error(&result, ERR_PEER, "not that of a kernel");
	result = a_kernel();
	result.size_bytes = 99; /* of the packed file: that one is known */
	expect_error(&result, ERR_PEER, "another file");
	result = a_kernel();
	result.packed = false;
	expect_error(&result, ERR_PEER, "another file");
}

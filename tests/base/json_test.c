// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <criterion/criterion.h>
#include <math.h>

static struct buf out;

static const char *finish(struct json *json)
{
	struct err *e = json_finish(json);

	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_assert_null(buf_append(&out, "", 1));
	return (const char *)out.data;
}

static void check_text(const char *text, size_t len, const char *want)
{
	out.len = 0;
	struct json json = json_init(&out);

	json_text_n(&json, text, len);
	cr_assert_str_eq(finish(&json), want);
}

static void drop(void)
{
	buf_deinit(&out);
}

Test(json, writes_commas_and_nesting, .fini = drop)
{
	struct json json = json_init(&out);

	json_object_begin(&json);
	json_key(&json, "a");
	json_array_begin(&json);
	json_u64(&json, 0);
	json_u64(&json, UINT64_MAX);
	json_object_begin(&json);
	json_object_end(&json);
	json_array_begin(&json);
	json_array_end(&json);
	json_array_end(&json);
	json_key(&json, "b");
	json_bool(&json, true);
	json_key(&json, "c");
	json_null_value(&json);
	json_key(&json, "d");
	json_text_joined(&json, "/src/", "a\"b.c");
	json_key(&json, "e");
	json_bool(&json, false);
	json_object_end(&json);
	cr_assert_str_eq(finish(&json),
		"{\"a\":[0,18446744073709551615,{},[]],\"b\":true,\"c\":null,\"d\":\"/src/a\\\"b.c\",\"e\":false}");
}

Test(json, writes_numbers, .fini = drop)
{
	struct json json = json_init(&out);

	json_array_begin(&json);
	json_i64(&json, INT64_MIN);
	json_i64(&json, -1);
	json_i64(&json, INT64_MAX);
	json_hex(&json, 0);
	json_hex(&json, 0x1a2b);
	json_hex(&json, UINT64_MAX);
	json_double(&json, 0.1);
	json_double(&json, 1.0 / 3);
	json_double(&json, -2);
	json_double(&json, (double)NAN);
	json_double(&json, (double)INFINITY);
	json_array_end(&json);
	cr_assert_str_eq(finish(&json),
		"[-9223372036854775808,-1,9223372036854775807,\"0x0\",\"0x1a2b\",\"0xffffffffffffffff\","
		"0.1,0.33333333333333331,-2,null,null]");
}

Test(json, escapes_controls_quotes_and_backslashes, .fini = drop)
{
	check_text("a\"\\/\b\f\n\r\t\1\37\177z", 13, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\\u007fz\"");
	check_text("a\0b", 3, "\"a\\u0000b\"");
	check_text("", 0, "\"\"");
}

Test(json, keeps_utf8_and_replaces_what_is_not, .fini = drop)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{"\xc3\xa4", "\"\xc3\xa4\""},
		{"\xe2\x82\xac", "\"\xe2\x82\xac\""},
		{"\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\""},
		{"\xff", "\"\xef\xbf\xbd\""},
		{"a\x80z", "\"a\xef\xbf\xbdz\""},
		{"\xc3", "\"\xef\xbf\xbd\""},				/* cut short */
		{"\xc3(", "\"\xef\xbf\xbd(\""},
		{"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""},		/* overlong */
		{"\xe0\x80\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\xf0\x80\x80\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* a surrogate */
		{"\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\xf5\x80\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_text(cases[i].in, strlen(cases[i].in), cases[i].want);
}

Test(json, allows_its_depth_and_no_more, .fini = drop)
{
	struct json json = json_init(&out);

	for (int i = 0; i < JSON_MAX_DEPTH - 1; i++)
		json_array_begin(&json);
	for (int i = 0; i < JSON_MAX_DEPTH - 1; i++)
		json_array_end(&json);
	(void)finish(&json);

	json = json_init(&out);
	for (int i = 0; i < JSON_MAX_DEPTH; i++)
		json_array_begin(&json);
	struct err *e = json_finish(&json);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
}

Test(json, puts_no_comma_behind_what_the_caller_wrote_itself, .fini = drop)
{
	struct json json = json_init(&out);

	cr_assert_null(buf_append(&out, "x,\"names\":", 10));
	json_array_begin(&json);
	json_text(&json, "a");
	json_text(&json, "b");
	json_array_end(&json);
	cr_assert_str_eq(finish(&json), "x,\"names\":[\"a\",\"b\"]");
}

Test(json, reports_unbalanced_use, .fini = drop)
{
	struct json json = json_init(&out);
	json_object_begin(&json);
	struct err *e = json_finish(&json);
	cr_assert_eq(err_code(e), ERR_INTERNAL);
	err_free(e);

	json = json_init(&out);
	json_array_end(&json);
	json_array_end(&json);
	e = json_finish(&json);
	cr_assert_eq(err_code(e), ERR_INTERNAL);
	err_free(e);
}

Test(json, sticks_to_the_first_failure_of_the_buffer)
{
	/* A buffer that says it is full: nothing more can be appended. */
	struct buf full = {.len = BUF_MAX, .cap = BUF_MAX};
	struct json json = json_init(&full);

	json_object_begin(&json);
	json_key(&json, "a");
	json_text(&json, "b");
	json_object_end(&json);
	struct err *e = json_finish(&json);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	cr_assert_eq(full.len, BUF_MAX);
	err_free(e);
}

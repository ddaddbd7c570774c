// SPDX-License-Identifier: Apache-2.0
#include "api/profiles_query.h"

#include <criterion/criterion.h>

#define NOW UINT64_C(1700000000123456789)

static uint64_t time_of(const char *text)
{
	uint64_t ret = 1;

	cr_assert(profiles_time_parse(text, NOW, &ret), "%s", text);
	return ret;
}

Test(profiles_time_parse, takes_rfc_3339)
{
	cr_assert_eq(time_of("2023-11-14T22:13:20Z"), UINT64_C(1700000000000000000));
	cr_assert_eq(time_of("2023-11-14t22:13:20.25z"), UINT64_C(1700000000250000000));
	cr_assert_eq(time_of("2023-11-15T00:13:20+02:00"), UINT64_C(1700000000000000000));
	cr_assert_eq(time_of("2023-11-14 17:13:20.1234567891-05:00"), UINT64_C(1700000000123456789));
	cr_assert_eq(time_of("1970-01-01T00:00:00Z"), 0);
	cr_assert_eq(time_of("2024-02-29T00:00:00Z"), UINT64_C(1709164800000000000));
}

Test(profiles_time_parse, takes_seconds_and_relative_times)
{
	cr_assert_eq(time_of("0"), 0);
	cr_assert_eq(time_of("1700000000.5"), UINT64_C(1700000000500000000));
	cr_assert_eq(time_of("now"), NOW);
	cr_assert_eq(time_of("-90s"), NOW - UINT64_C(90000000000));
	cr_assert_eq(time_of("-15m"), NOW - UINT64_C(900000000000));
	cr_assert_eq(time_of("-1h"), NOW - UINT64_C(3600000000000));
	cr_assert_eq(time_of("-7d"), NOW - UINT64_C(604800000000000));
	cr_assert_eq(time_of("-4294967295w"), 0); /* before 1970: from the beginning */
}

Test(profiles_time_parse, refuses_all_else_and_leaves_ret)
{
	static const char *const bad[] = {"", "-", "-h", "-1", "-1y", "-1hh", "--1h", "-4294967296s", "1.", ".5", "1e9", " 1",
		"18446744073", "yesterday", "2023-11-14", "2023-11-14T22:13:20", "2023-13-01T00:00:00Z", "2023-02-29T00:00:00Z",
		"2023-11-14T24:00:00Z", "2023-11-14T22:60:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+01:00",
		"2554-01-01T00:00:00Z", "2023-11-14T22:13:20.Z", "2023-11-14T22:13:20+2:00", "2023-11-14T22:13:20Zx"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint64_t ret = 7;
		cr_assert(!profiles_time_parse(bad[i], NOW, &ret), "\"%s\"", bad[i]);
		cr_assert_eq(ret, 7, "\"%s\"", bad[i]);
	}
}

static void expect_error(const char *query, enum err_code code, const char *words)
{
	struct arena arena = {0};
	struct profiles_query ret;
	struct err *e = profiles_query_parse(query, NOW, &arena, &ret);

	cr_assert_not_null(e, "%s", query);
	cr_assert_eq(err_code(e), code, "%s: %s", query, err_message(e));
	cr_assert(strstr(err_message(e), words), "%s: %s", query, err_message(e));
	err_free(e);
	arena_deinit(&arena);
}

Test(profiles_query_parse, takes_everything_at_once)
{
	struct arena arena = {0};
	struct profiles_query q;
	struct err *e = profiles_query_parse("from=-1h&to=now&type=cpu&filter=service%3Da+b%26&filter=x=y=z&group_by=comm&&group_by=pid&format=pprof",
		NOW, &arena, &q);

	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_assert_eq(q.query.from_unix_nano, NOW - UINT64_C(3600000000000));
	cr_assert_eq(q.query.to_unix_nano, NOW);
	cr_assert_eq(q.query.type.len, 3);
	cr_assert_eq(q.query.filter_count, 2);
	cr_assert_eq(q.query.filters[0].key.len, 7);
	cr_assert_eq(memcmp(q.query.filters[0].value.bytes, "a b&", 4), 0);
	cr_assert_eq(q.query.filters[1].key.len, 1);
	cr_assert_eq(memcmp(q.query.filters[1].value.bytes, "y=z", 3), 0);
	cr_assert_eq(q.query.group_count, 2);
	cr_assert_eq(q.format, PROFILES_PPROF);
	arena_deinit(&arena);
}

Test(profiles_query_parse, is_everything_in_json_by_default)
{
	struct arena arena = {0};
	struct profiles_query q;
	struct err *e = profiles_query_parse("", NOW, &arena, &q);

	cr_assert_null(e);
	cr_assert_eq(q.query.from_unix_nano, 0);
	cr_assert_eq(q.query.to_unix_nano, 0);
	cr_assert_eq(q.query.filter_count, 0);
	cr_assert_eq(q.format, PROFILES_JSON);
	arena_deinit(&arena);
}

Test(profiles_query_parse, names_what_is_wrong)
{
	expect_error("from=x", ERR_INVALID, "from: \"x\" is no time");
	expect_error("to=1&to=2", ERR_INVALID, "to is given twice");
	expect_error("from=2&to=2", ERR_INVALID, "to is not after from");
	expect_error("filter==v", ERR_INVALID, "filter: \"=v\" is not key=value");
	expect_error("filter", ERR_INVALID, "filter: \"\" is not key=value");
	expect_error("group_by=", ERR_INVALID, "group_by is empty");
	expect_error("format=svg", ERR_INVALID, "format: \"svg\" is none of");
	expect_error("frm=1", ERR_INVALID, "unknown parameter \"frm\"");
	expect_error("type=%", ERR_INVALID, "% without two hex digits");
	expect_error("type=%4", ERR_INVALID, "% without two hex digits");
	expect_error("type=a%00b", ERR_INVALID, "NUL");
	expect_error("type=a&type=b", ERR_INVALID, "type is given twice");
}

Test(profiles_query_parse, has_limits)
{
	struct buf query = {0};

	for (int i = 0; i <= PROFILES_FILTERS_MAX; i++)
		cr_assert_null(buf_printf(&query, "%sfilter=k=v", i ? "&" : ""));
	cr_assert_null(buf_append(&query, "", 1));
	expect_error((const char *)query.data, ERR_LIMIT, "more than 64 filters");
	query.len = 0;
	for (int i = 0; i <= PROFILES_GROUPS_MAX; i++)
		cr_assert_null(buf_printf(&query, "%sgroup_by=k", i ? "&" : ""));
	cr_assert_null(buf_append(&query, "", 1));
	expect_error((const char *)query.data, ERR_LIMIT, "more than 16 group_by");
	query.len = 0;
	cr_assert_null(buf_printf(&query, "type=%0*d", PROFILES_QUERY_BYTES_MAX, 1));
	cr_assert_null(buf_append(&query, "", 1));
	expect_error((const char *)query.data, ERR_LIMIT, "more than 65536 bytes");
	buf_deinit(&query);
}

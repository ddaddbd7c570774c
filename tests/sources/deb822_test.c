// SPDX-License-Identifier: Apache-2.0
#include "sources/deb822.h"
#include "sources/gpgv.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct text T(const char *text)
{
	return (struct text){text, strlen(text)};
}

static void expect_field(const char *stanza, const char *name, const char *want)
{
	struct text value;

	cr_assert_eq(deb822_field(T(stanza), name, &value), want != NULL, "%s", name);
	if (want)
		cr_assert(text_is(value, want), "%s: \"%.*s\"", name, (int)value.len, value.at);
}

Test(deb822_field, finds_values_with_their_continuation)
{
	static const char stanza[] = "Package: a\nBUILD-IDS:  01 02\n 03\n\t04 \nEmpty:\nX-Package: b\n";

	expect_field(stanza, "package", "a");
	expect_field(stanza, "Build-Ids", "01 02\n 03\n\t04");
	expect_field(stanza, "Empty", "");
	expect_field(stanza, "Pack", NULL);
	expect_field(stanza, "Age", NULL);
	expect_field("", "a", NULL);
	expect_field("no colon\n", "no", NULL);
	expect_field(" a: b\n", "a", NULL);
}

Test(deb822_next, cuts_at_blank_lines_and_takes_a_last_one_without)
{
	struct text rest = T("\n\na: 1\nb: 2\n \n\r\nc: 3"), stanza;

	cr_assert(deb822_next(&rest, &stanza));
	cr_assert_eq(stanza.len, 10);
	cr_assert(deb822_next(&rest, &stanza));
	cr_assert_eq(stanza.len, 4);
	cr_assert_not(deb822_next(&rest, &stanza));
}

Test(deb822_next_whole, waits_for_the_end_of_a_stanza)
{
	struct text rest = T("a: 1\n\nb: 2\n"), stanza;

	cr_assert(deb822_next_whole(&rest, &stanza));
	cr_assert_not(deb822_next_whole(&rest, &stanza));
	cr_assert_eq(rest.len, 5);
}

Test(text_u64, takes_digits_that_fit_and_nothing_else)
{
	uint64_t value;

	cr_assert(text_u64(T("0"), &value) && value == 0);
	cr_assert(text_u64(T("9999999999999999999"), &value) && value == UINT64_C(9999999999999999999));
	cr_assert_not(text_u64(T("99999999999999999999"), &value));
	cr_assert_not(text_u64(T(""), &value));
	cr_assert_not(text_u64(T("-1"), &value));
	cr_assert_not(text_u64(T("1x"), &value));
}

static const char release[] = "Date: Sat, 21 Nov 2026 00:00:00 UTC\nValid-Until: Sun, 22 Nov 2026 00:00:00 UTC\nSHA256:\n"
			      " 0000000000000000000000000000000000000000000000000000000000000001  17 main/binary-amd64/Packages.xz\n"
			      " 02 17 short\n"
			      " 0000000000000000000000000000000000000000000000000000000000000001 x letters\n"
			      " 0000000000000000000000000000000000000000000000000000000000000001 17\n";

Test(release_find, takes_whole_entries_of_exactly_that_path)
{
	struct release_file file;

	cr_assert(release_find(T(release), "main/binary-amd64/Packages.xz", &file));
	cr_assert_eq(file.size, 17);
	cr_assert_eq(file.sha256.bytes[31], 1);
	cr_assert_not(release_find(T(release), "main/binary-amd64/Packages", &file));
	cr_assert_not(release_find(T(release), "short", &file));
	cr_assert_not(release_find(T(release), "letters", &file));
	cr_assert_not(release_find(T("Date: x\n"), "main/binary-amd64/Packages.xz", &file));
}

static enum err_code dates(const char *text, int64_t now)
{
	struct err *e = release_check_dates(T(text), now);
	enum err_code code = e ? err_code(e) : (enum err_code)-1;

	err_free(e);
	return code;
}

Test(release_check_dates, refuses_the_past_the_future_and_nonsense)
{
	const int64_t made = 1795219200; /* date -d 'Sat, 21 Nov 2026 00:00:00 UTC' +%s */

	cr_assert_eq(dates(release, made), (enum err_code)-1);
	cr_assert_eq(dates(release, made + 86400), (enum err_code)-1);
	cr_assert_eq(dates(release, made + 86401), ERR_MISMATCH);
	cr_assert_eq(dates(release, made - 86400), (enum err_code)-1);
	cr_assert_eq(dates(release, made - 86401), ERR_MISMATCH);
	cr_assert_eq(dates("Date: yesterday\n", made), ERR_FORMAT);
	cr_assert_eq(dates("Suite: x\n", made), ERR_FORMAT);
	cr_assert_eq(dates("Date: Sat, 21 Nov 2026 00:00:00 UTC\nValid-Until: never\n", made), ERR_FORMAT);
	cr_assert_eq(dates("Date: Sat, 21 Nov 2026 00:00:00 +0200\n", made), ERR_FORMAT);
}

static void expect_sources(const char *text, const char *name, size_t count)
{
	struct apt_repositories *found = calloc(1, sizeof(*found));
	struct err *e = apt_read_sources(T(text), name, found);

	cr_assert_null(e);
	cr_assert_eq(found->count, count, "%s: %zu", text, found->count);
	free(found);
}

Test(apt_read_sources, takes_http_binary_repositories_and_passes_over_the_rest)
{
	expect_sources("Types: deb\nURIs: http://a/x http://b/\nSuites: s t\nComponents: main contrib\n", "a.sources", 4);
	expect_sources("Types: deb\nEnabled: no\nURIs: http://a\nSuites: s\nComponents: main\n", "a.sources", 0);
	expect_sources("Types: deb-src\nURIs: http://a\nSuites: s\nComponents: main\n", "a.sources", 0);
	expect_sources("Types: deb\nURIs: cdrom:x file:/x\nSuites: s\nComponents: main\n", "a.sources", 0);
	expect_sources("Types: deb\nURIs: http://a\nSuites: ./\nComponents: main\n", "a.sources", 0);
	expect_sources("deb http://a s main\n#deb http://a s main\ndeb-src http://a s main\n", "a.list", 1);
	expect_sources("deb [ arch=amd64 signed-by=/k.gpg ] http://a s main\ndeb [a=b\ndeb\ndeb http://a\n", "a.list", 1);
	expect_sources("", "a.list", 0);
}

Test(apt_read_sources, keeps_the_keyring_and_the_components)
{
	struct apt_repositories *found = calloc(1, sizeof(*found));
	struct err *e = apt_read_sources(T("deb [signed-by=/k.gpg arch=amd64] https://a/d/ s/u main contrib # x\n"), "x.list", found);

	cr_assert_null(e);
	cr_assert_eq(found->count, 1);
	cr_assert_str_eq(found->items[0].uri, "https://a/d");
	cr_assert_str_eq(found->items[0].suite, "s/u");
	cr_assert_str_eq(found->items[0].components, "main contrib");
	cr_assert_str_eq(found->items[0].signed_by, "/k.gpg");
	free(found);
}

static const char *debug_archive_of(const char *uri, const char *suite)
{
	static char text[APT_URI_SIZE + APT_SUITE_SIZE + 1];
	struct apt_repository place = {.components = "main", .signed_by = "/k.gpg"}, debug = {0};

	(void)snprintf(place.uri, sizeof(place.uri), "%s", uri);
	(void)snprintf(place.suite, sizeof(place.suite), "%s", suite);
	if (!apt_debug_archive(&place, &debug))
		return "none";
	cr_expect_str_eq(debug.components, "main");
	cr_expect_str_eq(debug.signed_by, "/k.gpg");
	(void)snprintf(text, sizeof(text), "%s %s", debug.uri, debug.suite);
	return text;
}

Test(apt_debug_archive, is_where_debian_has_it_and_nowhere_else)
{
	static char long_uri[APT_URI_SIZE];

	cr_expect_str_eq(debug_archive_of("http://a/debian", "s"), "http://a/debian-debug s-debug");
	cr_expect_str_eq(debug_archive_of("http://a/b/debian-security", "s-security"), "http://a/b/debian-security-debug s-security-debug");
	cr_expect_str_eq(debug_archive_of("http://a/debian", "s-updates"), "http://a/debian-debug s-proposed-updates-debug");
	cr_expect_str_eq(debug_archive_of("http://a/debian", "s-proposed-updates"), "http://a/debian-debug s-proposed-updates-debug");
	cr_expect_str_eq(debug_archive_of("http://a/debian", "s-backports"), "http://a/debian-debug s-backports-debug");
	cr_expect_str_eq(debug_archive_of("http://a/debian", "s-debug"), "none");
	cr_expect_str_eq(debug_archive_of("http://a/debian-debug", "s"), "none");
	cr_expect_str_eq(debug_archive_of("http://a/ubuntu", "s"), "none");
	cr_expect_str_eq(debug_archive_of("http://a/x", "s"), "none");
	memset(long_uri, 'a', sizeof(long_uri) - 1);
	memcpy(long_uri + sizeof(long_uri) - 8, "/debian", 7);
	cr_expect_str_eq(debug_archive_of(long_uri, "s"), "none");
}

Test(apt_read_sources, refuses_more_than_it_holds)
{
	static char text[APT_REPOSITORIES_MAX * 32 + 64];
	struct apt_repositories *found = calloc(1, sizeof(*found));

	for (size_t i = 0; i <= APT_REPOSITORIES_MAX; i++)
		(void)strcat(text, "deb http://a s main\n");
	struct err *e = apt_read_sources(T(text), "x.list", found);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	free(found);
}

Test(gpgv_judge, wants_a_good_signature_and_no_bad_one)
{
	cr_assert(gpgv_judge("[GNUPG:] NO_PUBKEY 1\n[GNUPG:] GOODSIG 1 a\n[GNUPG:] VALIDSIG 1 2\n"));
	cr_assert_not(gpgv_judge("[GNUPG:] GOODSIG 1 a\n[GNUPG:] VALIDSIG 1 2\n[GNUPG:] BADSIG 1 a\n"));
	cr_assert_not(gpgv_judge("[GNUPG:] GOODSIG 1 a\n"));
	cr_assert_not(gpgv_judge("[GNUPG:] EXPKEYSIG 1 a\n[GNUPG:] VALIDSIG 1 2\n"));
	cr_assert_not(gpgv_judge("[GNUPG:] GOODSIG 1 a\n[GNUPG:] VALIDSIG 1 2\n[GNUPG:] REVKEYSIG 1 a\n"));
	cr_assert_not(gpgv_judge("x [GNUPG:] GOODSIG 1 a\nx [GNUPG:] VALIDSIG 1 2\n"), "a user ID that looks like a verdict is none");
	cr_assert_not(gpgv_judge(""));
}

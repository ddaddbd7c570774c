// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int saved = -1;
static int captured = -1;

static void capture(void)
{
	saved = dup(STDERR_FILENO);
	captured = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	cr_assert_geq(captured, 0);
	dup2(captured, STDERR_FILENO);
}

static void restore(void)
{
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(captured);
}

/* All that was written to standard error since capture(). */
static const char *lines(void)
{
	static char text[8192];
	ssize_t got = pread(captured, text, sizeof(text) - 1, 0);

	text[got > 0 ? got : 0] = 0;
	return text;
}

Test(log_line, writes_time_level_event_and_pairs, .init = capture, .fini = restore)
{
	unsigned year, month, day, hour, minute, second, ms;
	char rest[200];

	log_info("ingest", "fileid=%s units=%d", "abc", 7);
	int n = sscanf(lines(), "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ %199[^\n]", &year, &month, &day, &hour, &minute, &second, &ms, rest);
	cr_assert_eq(n, 8, "%s", lines());
	cr_assert_str_eq(rest, "info ingest fileid=abc units=7");
	cr_assert_eq(lines()[strlen(lines()) - 1], '\n');
}

Test(log_line, drops_lines_above_the_level, .init = capture, .fini = restore)
{
	log_debug("quiet", "x=%d", 1);
	cr_assert_str_eq(lines(), "");
	log_set_level(LOG_ERROR);
	log_warn("quiet", "x=%d", 1);
	cr_assert_str_eq(lines(), "");
	log_error("loud", "x=%d", 1);
	cr_assert_not_null(strstr(lines(), "error loud x=1\n"));
	log_set_level(LOG_DEBUG);
	log_debug("now", "x=%d", 2);
	cr_assert_not_null(strstr(lines(), "debug now x=2\n"));
}

Test(log_line, keeps_a_hostile_value_on_one_line, .init = capture, .fini = restore)
{
	log_info("upload", "name=%s", "a\nb\r\033[2J");
	cr_assert_not_null(strstr(lines(), "upload name=a?b??[2J\n"));
}

Test(log_line, cuts_a_line_that_is_too_long, .init = capture, .fini = restore)
{
	char value[6000];

	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	log_info("long", "value=%s", value);
	cr_assert_leq(strlen(lines()), 4096);
	cr_assert_eq(lines()[strlen(lines()) - 1], '\n');
}

Test(log_level_parse, knows_four_names)
{
	enum log_level level = LOG_INFO;

	cr_assert(log_level_parse("error", &level) && level == LOG_ERROR);
	cr_assert(log_level_parse("debug", &level) && level == LOG_DEBUG);
	cr_assert_not(log_level_parse("Debug", &level));
	cr_assert_not(log_level_parse("", &level));
	cr_assert_eq(level, LOG_DEBUG);
}

Test(log_limit_pass, counts_what_it_holds_back)
{
	struct log_limit limit = {0};
	uint32_t suppressed = 99, passed = 0, held = 0, reported = 0;

	/* Until a line passes in a second after the first, which then reports all that were held back. */
	for (int i = 0; i < 300 && reported == 0; i++) {
		if (log_limit_pass(&limit, 3, &suppressed)) {
			passed++;
			reported += suppressed;
		} else {
			held++;
		}
		usleep(10000);
	}
	cr_assert_gt(held, 0);
	cr_assert_eq(reported, held);
	cr_assert_leq(passed, 7);
}

// SPDX-License-Identifier: Apache-2.0
#include "base/config.h"

#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct sample {
	char *data_dir;
	char *name;
	uint64_t workers;
	uint64_t map_max;
	uint64_t timeout;
	bool verbose;
};

static const struct config_key keys[] = {
	{.name = "data_dir", .flag = "data-dir", .type = CONFIG_TEXT, .offset = offsetof(struct sample, data_dir), .help = "DIR where the store is"},
	{.name = "name", .type = CONFIG_TEXT, .offset = offsetof(struct sample, name), .fallback = "cairn", .help = "what to call it"},
	{.name = "worker.count", .flag = "workers", .type = CONFIG_UINT, .offset = offsetof(struct sample, workers), .min = 1, .max = 64, .fallback = "2", .help = "worker processes"},
	{.name = "store.map_max", .type = CONFIG_SIZE, .offset = offsetof(struct sample, map_max), .min = 1 << 20, .max = UINT64_C(1) << 46, .fallback = "1T", .help = "SIZE of the map"},
	{.name = "worker.timeout", .type = CONFIG_DURATION, .offset = offsetof(struct sample, timeout), .min = 0, .max = 86400000, .fallback = "90s", .help = "TIME a job may take"},
	{.name = "verbose", .type = CONFIG_BOOL, .offset = offsetof(struct sample, verbose), .fallback = "false", .help = "say more"},
};
static const struct config_table table = {.keys = keys, .count = ARRAY_SIZE(keys)};
static struct sample config;

static void init(void)
{
	cr_assert_null(config_defaults(&table, &config));
}

static void fini(void)
{
	config_deinit(&table, &config);
	cr_assert_null(config.name);
}

TestSuite(config, .init = init, .fini = fini);

static void check_invalid(struct err *e, const char *want)
{
	cr_assert_not_null(e, "expected: %s", want);
	cr_assert_eq(err_code(e), ERR_INVALID);
	cr_assert_str_eq(err_message(e), want);
	err_free(e);
}

Test(config, starts_with_defaults)
{
	cr_assert_null(config.data_dir);
	cr_assert_str_eq(config.name, "cairn");
	cr_assert_eq(config.workers, 2);
	cr_assert_eq(config.map_max, UINT64_C(1) << 40);
	cr_assert_eq(config.timeout, 90000);
	cr_assert_not(config.verbose);
}

Test(config, sets_sizes_and_durations_with_units)
{
	static const struct {
		const char *text;
		uint64_t want;
	} sizes[] = {{"1048576", 1 << 20}, {"1024K", 1 << 20}, {"3M", 3 << 20}, {"2G", UINT64_C(2) << 30}, {"64T", UINT64_C(1) << 46}};
	static const struct {
		const char *text;
		uint64_t want;
	} times[] = {{"0", 0}, {"7ms", 7}, {"7s", 7000}, {"7m", 420000}, {"7h", 25200000}, {"1d", 86400000}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		cr_assert_null(config_set(&table, &config, "store.map_max", sizes[i].text));
		cr_assert_eq(config.map_max, sizes[i].want, "%s", sizes[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		cr_assert_null(config_set(&table, &config, "worker.timeout", times[i].text));
		cr_assert_eq(config.timeout, times[i].want, "%s", times[i].text);
	}
}

Test(config, rejects_malformed_values_by_name)
{
	check_invalid(config_set(&table, &config, "worker.count", "two"), "worker.count: \"two\" is not a number");
	check_invalid(config_set(&table, &config, "worker.count", ""), "worker.count: \"\" is not a number");
	check_invalid(config_set(&table, &config, "worker.count", "-1"), "worker.count: \"-1\" is not a number");
	check_invalid(config_set(&table, &config, "worker.count", "2K"), "worker.count: \"2K\" is not a number");
	check_invalid(config_set(&table, &config, "worker.count", "65"), "worker.count: 65 is not between 1 and 64");
	check_invalid(config_set(&table, &config, "worker.count", "0"), "worker.count: 0 is not between 1 and 64");
	check_invalid(config_set(&table, &config, "worker.count", "18446744073709551616"),
		"worker.count: 18446744073709551616 is too large");
	check_invalid(config_set(&table, &config, "store.map_max", "18446744073709551615K"),
		"store.map_max: 18446744073709551615K is too large");
	check_invalid(config_set(&table, &config, "store.map_max", "1K"), "store.map_max: 1K is not between 1M and 64T");
	check_invalid(config_set(&table, &config, "store.map_max", "1k"),
		"store.map_max: \"1k\" is not a number of bytes, with K, M, G or T behind it or nothing");
	check_invalid(config_set(&table, &config, "worker.timeout", "90"),
		"worker.timeout: \"90\" is not a number with ms, s, m, h or d behind it");
	check_invalid(config_set(&table, &config, "worker.timeout", "2d"), "worker.timeout: 2d is not between 0ms and 1d");
	check_invalid(config_set(&table, &config, "verbose", "yes"), "verbose: \"yes\" is not true or false");
	check_invalid(config_set(&table, &config, "colour", "red"), "unknown key \"colour\"");
	cr_assert_eq(config.workers, 2, "a rejected value changes nothing");
}

static struct err *read_file_of(const char *text, size_t len)
{
	char path[] = "/tmp/cairn-config-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_eq(write(fd, text, len), (ssize_t)len);
	close(fd);
	struct err *e = config_read_file(&table, &config, path);
	unlink(path);
	return e;
}

static void check_file_error(const char *text, const char *want)
{
	struct err *e = read_file_of(text, strlen(text));

	cr_assert_not_null(e, "expected: %s", want);
	cr_assert_not_null(strstr(err_message(e), want), "%s", err_message(e));
	cr_assert_eq(strncmp(err_message(e), "/tmp/cairn-config-", 18), 0);
	err_free(e);
}

Test(config, reads_a_file_with_sections_and_comments)
{
	const char *text = "# a comment\n"
			   "data_dir = /var/lib/cairn # trailing\n"
			   "  name=a#b c\r\n"
			   "\n"
			   "[store]\n"
			   "map_max = 2G\n"
			   "[worker]\n"
			   "count = 7\n"
			   "timeout=5m";

	cr_assert_null(read_file_of(text, strlen(text)));
	cr_assert_str_eq(config.data_dir, "/var/lib/cairn");
	cr_assert_str_eq(config.name, "a#b c");
	cr_assert_eq(config.map_max, UINT64_C(2) << 30);
	cr_assert_eq(config.workers, 7);
	cr_assert_eq(config.timeout, 300000);
}

Test(config, names_file_and_line_of_an_error)
{
	check_file_error("name = a\ncolour = red\n", ":2: unknown key \"colour\"");
	check_file_error("[store]\nname = a\n", ":2: unknown key \"store.name\"");
	check_file_error("\n\nworker.count = x\n", ":3: worker.count: \"x\" is not a number");
	check_file_error("name\n", ":1: \"name\" is not key = value");
	check_file_error("[store\n", ":1: \"[store\" is not a [section]");
	check_file_error("[]\n", ":1: \"[]\" is not a [section]");
}

Test(config, rejects_long_names_binary_and_huge_files)
{
	static char text[(1 << 20) + 2];

	memset(text, 'a', 200);
	text[200] = '=';
	text[201] = 0;
	check_file_error(text, ":1: a key of 200 characters");
	text[0] = '[';
	text[200] = ']';
	check_file_error(text, "is not a [section]");

	struct err *e = read_file_of("name = \0", 8);
	cr_assert_not_null(strstr(err_message(e), "not a text file"));
	err_free(e);

	memset(text, '\n', sizeof(text));
	e = read_file_of(text, (1 << 20) + 1);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	cr_assert_null(read_file_of(text, 1 << 20));
}

Test(config, reports_a_file_that_is_not_there)
{
	struct err *e = config_read_file(&table, &config, "/nonexistent/cairn.conf");

	cr_assert_eq(err_code(e), ERR_OS);
	cr_assert_str_eq(err_message(e), "open /nonexistent/cairn.conf: No such file or directory");
	err_free(e);
}

Test(config, takes_flags_out_of_the_arguments)
{
	char *argv[] = {(char *)"cairnd", (char *)"one", (char *)"--data-dir", (char *)"/d", (char *)"--verbose",
		(char *)"--worker.timeout=1h", (char *)"-x", (char *)"--workers", (char *)"9", (char *)"--",
		(char *)"--two", NULL};
	int argc = 11;

	cr_assert_null(config_read_flags(&table, &config, &argc, argv));
	cr_assert_eq(argc, 4);
	cr_assert_str_eq(argv[1], "one");
	cr_assert_str_eq(argv[2], "-x");
	cr_assert_str_eq(argv[3], "--two");
	cr_assert_null(argv[4]);
	cr_assert_str_eq(config.data_dir, "/d");
	cr_assert(config.verbose);
	cr_assert_eq(config.timeout, 3600000);
	cr_assert_eq(config.workers, 9);
}

Test(config, takes_a_false_flag_and_an_empty_value)
{
	char *argv[] = {(char *)"cairnd", (char *)"--verbose=false", (char *)"--name=", NULL};
	int argc = 3;

	config.verbose = true;
	cr_assert_null(config_read_flags(&table, &config, &argc, argv));
	cr_assert_eq(argc, 1);
	cr_assert_not(config.verbose);
	cr_assert_str_eq(config.name, "");
}

Test(config, rejects_wrong_flags)
{
	static const struct {
		const char *flag, *want;
	} cases[] = {
		{"--colour=red", "unknown flag --colour"},
		{"--worker.count=2", "unknown flag --worker.count"},
		{"--data-di", "unknown flag --data-di"},
		{"--data-dir", "--data-dir needs a value"},
		{"--workers=x", "--workers: worker.count: \"x\" is not a number"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char flag[64];
		(void)snprintf(flag, sizeof(flag), "%s", cases[i].flag);
		char *argv[] = {(char *)"cairnd", flag, NULL};
		int argc = 2;
		check_invalid(config_read_flags(&table, &config, &argc, argv), cases[i].want);
	}
}

Test(config, prints_aligned_help_with_defaults)
{
	struct buf help = {0};

	cr_assert_null(config_help(&table, &help));
	cr_assert_null(buf_append(&help, "", 1));
	cr_assert_str_eq((char *)help.data,
		"  --data-dir DIR         where the store is\n"
		"  --name TEXT            what to call it (default: cairn)\n"
		"  --workers N            worker processes (default: 2)\n"
		"  --store.map_max SIZE   of the map (default: 1T)\n"
		"  --worker.timeout TIME  a job may take (default: 90s)\n"
		"  --verbose              say more\n");
	buf_deinit(&help);
}

Test(config, refuses_a_default_that_breaks_its_own_bounds)
{
	static const struct config_key bad[] = {{.name = "n", .type = CONFIG_UINT, .offset = 0, .min = 1, .max = 2, .fallback = "3", .help = ""}};
	const struct config_table bad_table = {.keys = bad, .count = 1};
	uint64_t value = 0;

	check_invalid(config_defaults(&bad_table, &value), "default: n: 3 is not between 1 and 2");
}

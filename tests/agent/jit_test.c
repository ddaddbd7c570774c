// SPDX-License-Identifier: Apache-2.0
/* Names of code without a file: lines of perf's map, and who a process's runtime is. */
#include "agent/perf_map.h"
#include "agent/runtimes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static size_t add(struct perf_map *map, const char *text)
{
	size_t taken = 0;
	cr_assert_null(perf_map_add(map, text, strlen(text), &taken));
	return taken;
}

Test(perf_map, finds_what_was_written_last_at_an_address)
{
	struct perf_map map = {0};
	cr_assert_eq(add(&map, "1000 20 first\n1040 10 second one\n2000"), strlen("1000 20 first\n1040 10 second one\n"));
	cr_assert_str_eq(perf_map_find(&map, 0x1000), "first");
	cr_assert_str_eq(perf_map_find(&map, 0x101f), "first");
	cr_assert_null(perf_map_find(&map, 0x1020));
	cr_assert_null(perf_map_find(&map, 0xfff));
	cr_assert_str_eq(perf_map_find(&map, 0x104f), "second one");
	add(&map, "0x1000 8 again\n");
	cr_assert_str_eq(perf_map_find(&map, 0x1007), "again");
	cr_assert_null(perf_map_find(&map, 0x1008));
	perf_map_deinit(&map);
}

Test(perf_map, skips_what_is_no_line)
{
	static const char *const lines[] = {"\n", "x\n", "1000\n", "1000 \n", "1000 20\n", "1000 20 \n", "1000 0 empty\n", "10000000000000000 1 long\n",
		"ffffffffffffffff 2 past the end\n", "-1 1 minus\n"};
	struct perf_map map = {0};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		cr_assert_eq(add(&map, lines[i]), strlen(lines[i]));
	cr_assert_eq(map.count, 0u);
	cr_assert_eq(map.skipped, ARRAY_SIZE(lines));
	perf_map_deinit(&map);
}

Test(perf_map, cuts_long_names_and_stops_at_its_limits)
{
	struct perf_map map = {0};
	char line[1024];
	snprintf(line, sizeof(line), "1000 1 %0900d\n", 7);
	add(&map, line);
	cr_assert_eq(strlen(perf_map_find(&map, 0x1000)), (size_t)PERF_MAP_NAME_MAX);
	add(&map, "2000 1 a\tb\n");
	cr_assert_str_eq(perf_map_find(&map, 0x2000), "a?b");
	for (unsigned i = 0; map.skipped == 0 && i < 2 * PERF_MAP_ENTRIES_MAX; i += 1024) {
		char *text = malloc(1024 * 16);
		size_t len = 0, taken = 0;
		cr_assert_not_null(text);
		for (unsigned k = 0; k < 1024; k++)
			len += (size_t)sprintf(text + len, "%x 1 n\n", 0x100000 + 16 * (i + k));
		cr_assert_null(perf_map_add(&map, text, len, &taken));
		free(text);
	}
	cr_assert_eq(map.count, (size_t)PERF_MAP_ENTRIES_MAX);
	cr_assert_gt(map.skipped, 0u);
	perf_map_deinit(&map);
}

Test(runtime_of_name, knows_programs_with_versions_and_libraries)
{
	cr_assert_eq(runtime_of_name("python3.11"), RUNTIME_PYTHON);
	cr_assert_eq(runtime_of_name("libpython3.11.so.1.0"), RUNTIME_PYTHON);
	cr_assert_eq(runtime_of_name("libjvm.so"), RUNTIME_JVM);
	cr_assert_eq(runtime_of_name("node"), RUNTIME_V8);
	cr_assert_eq(runtime_of_name("php-fpm8.2"), RUNTIME_PHP);
	cr_assert_eq(runtime_of_name("pythonic"), RUNTIME_NONE);
	cr_assert_eq(runtime_of_name("nodes"), RUNTIME_NONE);
	cr_assert_eq(runtime_of_name(""), RUNTIME_NONE);
	cr_assert_str_eq(runtime_name(RUNTIME_V8), "v8js");
}

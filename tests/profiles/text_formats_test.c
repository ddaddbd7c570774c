// SPDX-License-Identifier: Apache-2.0
#include "tests/profiles/sample_profile.h"

static struct profile profile;
static struct buf out;

static void setup(void)
{
	make_sample_profile(&profile);
}

static void teardown(void)
{
	profile_deinit(&profile);
	buf_deinit(&out);
}

static const char *text_of(struct err *e)
{
	must(e);
	must(buf_append(&out, "", 1));
	return (const char *)out.data;
}

Test(profile_add_sample, adds_equal_stacks_and_keeps_the_total, .init = setup, .fini = teardown)
{
	cr_assert_eq(profile.total, 20);
	cr_assert_eq(profile.node_count, 7);
}

Test(profile_add_sample, rejects_a_location_out_of_range, .init = setup, .fini = teardown)
{
	struct err *e = profile_add_sample(&profile, (const uint32_t[]){99}, 1, 1);

	cr_assert_eq(err_code(e), ERR_INVALID);
	cr_assert_eq(profile.total, 20);
	err_free(e);
}

Test(profile_add_sample, rejects_a_stack_past_the_limit, .init = setup, .fini = teardown)
{
	uint32_t *deep = calloc(PROFILE_MAX_DEPTH + 1, sizeof(*deep));
	struct err *e = profile_add_sample(&profile, deep, PROFILE_MAX_DEPTH + 1, 1);

	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	must(profile_add_sample(&profile, deep, PROFILE_MAX_DEPTH, 1));
	free(deep);
}

Test(profile_add_function, gives_equal_functions_one_number, .init = setup, .fini = teardown)
{
	uint32_t count = profile.function_count;

	(void)frame(&profile, "main", "/src/main.c", 10);
	cr_assert_eq(profile.function_count, count);
	(void)frame(&profile, "main", "/src/other.c", 10);
	cr_assert_eq(profile.function_count, count + 1);
}

Test(profile_write_folded, writes_each_path_with_samples_of_its_own, .init = setup, .fini = teardown)
{
	cr_assert_str_eq(text_of(profile_write_folded(&profile, &out)),
		"main;work 5\n"
		"main;work;step<int> 10\n"
		"main;fib;fib;fib 3\n"
		"main;libx.so+0x1234 2\n");
}

/* A cold part has a symbol of its own, and a namesake in another file none of this. */
Test(profile_write_folded, counts_clones_and_cold_parts_as_the_function, .init = setup, .fini = teardown)
{
	static const char *const symbols[] = {"f", "f.cold", "f.constprop.0", "f"};
	uint32_t where[4];

	for (uint32_t i = 0; i < 4; i++) {
		struct profile_function function = {.name = text(&profile, "f"), .symbol = text(&profile, symbols[i]),
			.file = text(&profile, i < 3 ? "/src/f.c" : "/src/other.c"), .start_line = 3};
		struct profile_frame f = {.line = 4};
		must(profile_add_function(&profile, &function, &f.function));
		where[i] = location(&profile, 0x5000 + i, &f, 1);
		sample(&profile, 100, 1, &where[i]);
	}
	cr_assert_eq(strncmp(text_of(profile_write_folded(&profile, &out)), "f 300\nf 100\nmain", 16), 0, "%s", (const char *)out.data);
}

Test(profile_write_folded, keeps_separators_out_of_names, .init = setup, .fini = teardown)
{
	struct profile_frame odd = frame(&profile, "a;b\nc", "", 0);
	uint32_t where = location(&profile, 1, &odd, 1);

	sample(&profile, 100, 1, &where);
	cr_assert_eq(strncmp(text_of(profile_write_folded(&profile, &out)), "a:b c 100\n", 10), 0);
}

Test(profile_write_json, nests_calls_and_marks_inlined_ones, .init = setup, .fini = teardown)
{
	cr_assert_str_eq(text_of(profile_write_json(&profile, &out)),
		"{\"sample_type\":{\"type\":\"samples\",\"unit\":\"count\"},"
		"\"period_type\":{\"type\":\"cpu\",\"unit\":\"nanoseconds\"},\"period\":50000000,"
		"\"from_unix_nano\":\"1000000000\",\"to_unix_nano\":\"3000000000\",\"unresolved\":[],"
		"\"name\":\"all\",\"value\":20,\"children\":["
		"{\"name\":\"main\",\"file\":\"/src/main.c\",\"value\":20,\"self\":0,\"children\":["
		"{\"name\":\"work\",\"file\":\"/src/main.c\",\"value\":15,\"self\":5,\"children\":["
		"{\"name\":\"step<int>\",\"file\":\"/src/step.h\",\"value\":10,\"self\":10,\"inlined\":true,\"children\":[]}]},"
		"{\"name\":\"fib\",\"file\":\"/src/fib.c\",\"value\":3,\"self\":0,\"children\":["
		"{\"name\":\"fib\",\"file\":\"/src/fib.c\",\"value\":3,\"self\":0,\"children\":["
		"{\"name\":\"fib\",\"file\":\"/src/fib.c\",\"value\":3,\"self\":3,\"children\":[]}]}]},"
		"{\"name\":\"libx.so+0x1234\",\"value\":2,\"self\":2,\"children\":[]}]}]}");
}

Test(profile_write_json, says_of_what_kind_a_frame_is_and_why_it_has_no_symbols, .init = setup, .fini = teardown)
{
	struct profile_frame kernel = frame(&profile, "vmlinux+0x10", "", 0), python = frame(&profile, "run", "a.py", 3);
	struct profile_frame more = frame(&profile, "app+0x20", "", 0), other = frame(&profile, "app+0x30", "", 0);
	uint32_t where[] = {location(&profile, 0x10, &kernel, 1), location(&profile, 0, &python, 1), location(&profile, 0x20, &more, 1),
		location(&profile, 0x30, &other, 1)};
	const uint32_t reasons[] = {text(&profile, "no \"kernel\""), 0, text(&profile, "a job is queued"), text(&profile, "a job is queued")};

	profile.locations[where[0]].kind = PROFILE_FRAME_KERNEL;
	profile.locations[where[0]].mapping = PROFILE_NONE;
	profile.locations[where[1]].kind = PROFILE_FRAME_INTERPRETED;
	for (int i = 0; i < 4; i++) {
		profile.locations[where[i]].symbolized = i == 1;
		profile.locations[where[i]].reason = reasons[i];
	}
	sample(&profile, 100, 2, where);
	sample(&profile, 50, 2, where + 2);
	const char *json = text_of(profile_write_json(&profile, &out));
	cr_assert(strstr(json, "\"unresolved\":[{\"frames\":1,\"reason\":\"no \\\"kernel\\\"\"},"
			       "{\"file\":\"app\",\"build_id\":\"abcdef\",\"frames\":2,\"reason\":\"a job is queued\"}],\"name\":\"all\""), "%s", json);
	cr_assert(strstr(json, "{\"name\":\"run\",\"file\":\"a.py\",\"value\":100,\"self\":0,\"kind\":\"interpreted\",\"children\":["
			       "{\"name\":\"vmlinux+0x10\",\"value\":100,\"self\":100,\"kind\":\"kernel\",\"unresolved\":0,\"children\":[]}]}"), "%s", json);
	cr_assert(strstr(json, "{\"name\":\"app+0x20\",\"value\":50,\"self\":50,\"unresolved\":1,\"children\":[]}"), "%s", json);
}

Test(profile_write_json, closes_what_it_opened_when_a_stack_is_deeper_than_json_goes, .init = setup, .fini = teardown)
{
	uint32_t *deep = malloc(PROFILE_MAX_DEPTH * sizeof(*deep));

	for (int i = 0; i < PROFILE_MAX_DEPTH; i++)
		deep[i] = 3;
	sample(&profile, 1, PROFILE_MAX_DEPTH, deep);
	free(deep);
	const char *json = text_of(profile_write_json(&profile, &out));
	long open = 0;
	for (; *json; json++) {
		open += (*json == '{' || *json == '[') - (*json == '}' || *json == ']');
		cr_assert_geq(open, 0);
	}
	cr_assert_eq(open, 0);
}

Test(profile_write_callgrind, counts_recursion_once_a_sample, .init = setup, .fini = teardown)
{
	cr_assert_str_eq(text_of(profile_write_callgrind(&profile, &out)),
		"# callgrind format\nversion: 1\ncreator: cairn\npositions: line\n"
		"event: samples samples in count\nevents: samples\nsummary: 20\n"
		"\nfl=(8) /src/main.c\nfn=(1) main\n"
		"cfi=(8)\ncfn=(3) work\ncalls=1 19\n10 15\n"
		"cfi=(13) /src/fib.c\ncfn=(4) fib\ncalls=1 4\n10 3\n"
		"cfi=(1) ???\ncfn=(5) libx.so+0x1234\ncalls=1 0\n10 2\n"
		"\nfl=(10) /src/step.h\nfn=(2) step<int>\n3 10\n"
		"\nfl=(8)\nfn=(3)\n20 5\ncfi=(10)\ncfn=(2)\ncalls=1 2\n20 10\n"
		"\nfl=(13)\nfn=(4)\n5 3\ncfi=(13)\ncfn=(4)\ncalls=1 4\n5 3\n"
		"\nfl=(1)\nfn=(5)\n0 2\n");
}

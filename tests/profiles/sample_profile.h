// SPDX-License-Identifier: Apache-2.0
/*
 * A small profile with everything in it: a shared root, an inlined call, recursion, an unsymbolized frame.
 *     main -> work (inlined: step<int>) 10
 *     main -> work                       5
 *     main -> fib -> fib -> fib          3
 *     main -> libx.so+0x1234             2
 */
#ifndef CAIRN_TESTS_PROFILES_SAMPLE_PROFILE_H
#define CAIRN_TESTS_PROFILES_SAMPLE_PROFILE_H

#include "profiles/profile.h"

#include <criterion/criterion.h>

static inline void must(struct err *e)
{
	cr_assert_null(e, "%s", e ? err_message(e) : "");
}

static inline uint32_t text(struct profile *profile, const char *value)
{
	uint32_t number = 0;

	must(profile_text(profile, value, strlen(value), &number));
	return number;
}

static inline struct profile_frame frame(struct profile *profile, const char *name, const char *file, uint32_t line)
{
	struct profile_function function = {.name = text(profile, name),
		.symbol = text(profile, name),
		.file = text(profile, file),
		.start_line = line ? line - 1 : 0};
	struct profile_frame made = {.file = function.file, .line = line, .column = 7};

	must(profile_add_function(profile, &function, &made.function));
	return made;
}

static inline uint32_t location(
	struct profile *profile, uint64_t vaddr, const struct profile_frame *frames, uint32_t count)
{
	struct profile_location made = {.mapping = 0, .vaddr = vaddr, .symbolized = true};
	uint32_t number = 0;

	must(profile_add_location(profile, &made, frames, count, &number));
	return number;
}

static inline void sample(struct profile *profile, uint64_t value, uint32_t depth, const uint32_t *stack)
{
	must(profile_add_sample(profile, stack, depth, value));
}

static inline void make_sample_profile(struct profile *profile)
{
	struct profile_mapping mapping = {.build_id = {.len = 3, .bytes = {0xab, 0xcd, 0xef}}};
	uint32_t number;

	must(profile_init(profile));
	profile->sample_type = (struct profile_value_type){text(profile, "samples"), text(profile, "count")};
	profile->period_type = (struct profile_value_type){text(profile, "cpu"), text(profile, "nanoseconds")};
	profile->period = 50000000;
	profile->from_unix_nano = 1000000000;
	profile->to_unix_nano = 3000000000;
	mapping.name = text(profile, "app");
	must(profile_add_mapping(profile, &mapping, &number));

	struct profile_frame main_frame = frame(profile, "main", "/src/main.c", 10);
	struct profile_frame step = frame(profile, "step<int>", "/src/step.h", 3);
	struct profile_frame work[] = {step, frame(profile, "work", "/src/main.c", 20)};
	struct profile_frame fib = frame(profile, "fib", "/src/fib.c", 5);
	struct profile_frame bare = frame(profile, "libx.so+0x1234", "", 0);
	uint32_t m = location(profile, 0x1000, &main_frame, 1);
	uint32_t inlined = location(profile, 0x2000, work, 2), plain = location(profile, 0x2010, &work[1], 1);
	uint32_t f = location(profile, 0x3000, &fib, 1), x = location(profile, 0x1234, &bare, 1);

	sample(profile, 4, 2, (const uint32_t[]){inlined, m});
	sample(profile, 6, 2, (const uint32_t[]){inlined, m});
	sample(profile, 5, 2, (const uint32_t[]){plain, m});
	sample(profile, 3, 4, (const uint32_t[]){f, f, f, m});
	sample(profile, 2, 2, (const uint32_t[]){x, m});
}

#endif

// SPDX-License-Identifier: Apache-2.0
#include "fileid/load_segment.h"
#include "tests/fileid/elf_maker.h"

#include <criterion/criterion.h>

static struct elf_maker m;

Test(load_segments_from_elf, reads_pt_load_of_every_class_and_order)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		struct load_segments segments;
		maker_start(&m, kind & 1, kind & 2);
		maker_programs_at(&m, m.len, 3);
		maker_program(&m, PT_LOAD, PF_R, 0, 0x400000, 0x500, 0x1000);
		maker_program(&m, PT_NOTE, PF_R, 0, 0, 0, 4);
		maker_program(&m, PT_LOAD, PF_R | PF_X, 0x1000, 0x401000, 0x2345, 0x1000);
		cr_assert_null(load_segments_from_elf(m.bytes, m.len, "a.so", &segments));
		cr_assert_eq(segments.count, 2);
		cr_assert_not(segments.items[0].executable);
		cr_assert(segments.items[1].executable);
		cr_assert_eq(segments.items[1].foff, 0x1000);
		cr_assert_eq(segments.items[1].vaddr, 0x401000);
		cr_assert_eq(segments.items[1].size, 0x2345);
	}
}

Test(load_segments_from_elf, limits_their_number)
{
	struct load_segments segments = {.count = 99};

	maker_start(&m, true, false);
	maker_programs_at(&m, m.len, LOAD_SEGMENTS_MAX);
	for (int i = 0; i <= LOAD_SEGMENTS_MAX; i++)
		maker_program(&m, PT_LOAD, PF_R, 0, 0, 1, 1);
	cr_assert_null(load_segments_from_elf(m.bytes, m.len, "a.so", &segments));
	cr_assert_eq(segments.count, LOAD_SEGMENTS_MAX);
	maker_programs_at(&m, 64, LOAD_SEGMENTS_MAX + 1);
	segments.count = 99;
	struct err *e = load_segments_from_elf(m.bytes, m.len, "a.so", &segments);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	cr_assert_str_eq(err_message(e), "a.so: more than 64 PT_LOAD segments");
	cr_assert_eq(segments.count, 99);
	err_free(e);
}

Test(load_segments_from_elf, rejects_what_is_not_elf)
{
	struct load_segments segments;
	struct err *e = load_segments_from_elf("text", 4, "a.so", &segments);

	cr_assert_eq(err_code(e), ERR_FORMAT);
	err_free(e);
}

/* lld's layout: segments follow each other in the file without padding, so that pages are shared. */
static const struct load_segments shared_pages = {
	.count = 3,
	.items = {
		{.foff = 0, .vaddr = 0, .size = 0x5f0},
		{.foff = 0x5f0, .vaddr = 0x15f0, .size = 0x1a00, .executable = true},
		{.foff = 0x1ff0, .vaddr = 0x3ff0, .size = 0x300},
	},
};

static void check(const struct load_segments *segments, uint64_t foff, uint64_t want)
{
	uint64_t vaddr = 0;

	cr_assert(load_segments_vaddr(segments, foff, &vaddr), "0x%lx", foff);
	cr_assert_eq(vaddr, want, "0x%lx: 0x%lx", foff, vaddr);
}

Test(load_segments_vaddr, maps_inside_each_segment)
{
	check(&shared_pages, 0x5f0, 0x15f0);
	check(&shared_pages, 0x1fef, 0x2fef);
	check(&shared_pages, 0x1ff0, 0x3ff0);
	check(&shared_pages, 0x22ef, 0x42ef);
}

Test(load_segments_vaddr, prefers_the_executable_segment_on_a_shared_page)
{
	check(&shared_pages, 0x100, 0x1100);
	check(&shared_pages, 0x5ef, 0x15ef);
}

Test(load_segments_vaddr, prefers_the_segment_that_contains_the_offset_among_equals)
{
	struct load_segments segments = {
		.count = 2,
		.items = {
			{.foff = 0x100, .vaddr = 0x1100, .size = 0x100, .executable = true},
			{.foff = 0x800, .vaddr = 0x9800, .size = 0x100, .executable = true},
		},
	};

	check(&segments, 0x180, 0x1180);
	check(&segments, 0x880, 0x9880);
	check(&segments, 0x50, 0x1050);
}

Test(load_segments_vaddr, misses_outside)
{
	struct load_segments empty = {0};
	uint64_t vaddr = 42;

	cr_assert_not(load_segments_vaddr(&shared_pages, 0x22f0, &vaddr));
	cr_assert_not(load_segments_vaddr(&shared_pages, UINT64_MAX, &vaddr));
	cr_assert_not(load_segments_vaddr(&empty, 0, &vaddr));
	cr_assert_eq(vaddr, 42);
}

Test(load_segments_vaddr, survives_hostile_numbers)
{
	struct load_segments segments = {
		.count = 2,
		.items = {
			{.foff = UINT64_MAX, .vaddr = UINT64_MAX, .size = UINT64_MAX},
			{.foff = 0x1000, .vaddr = UINT64_MAX, .size = 0},
		},
	};
	uint64_t vaddr = 42;

	cr_assert_not(load_segments_vaddr(&segments, 0x1000, &vaddr));
	check(&segments, UINT64_MAX, UINT64_MAX);
	check(&segments, UINT64_MAX - 0xfff, UINT64_MAX - 0xfff);
}

// SPDX-License-Identifier: Apache-2.0
#include "fileid/build_id.h"
#include "tests/fileid/elf_maker.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <fcntl.h>

static const uint8_t sample_id[20] = {0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static struct elf_maker m;

static const struct {
	bool is_64, big_endian;
} kinds[] = {{true, false}, {true, true}, {false, false}, {false, true}};

/* "Go" is padded to 4 with NULs, as Go's linker writes it. */
static void put_go_note(const char *id)
{
	maker_put(&m, 4, 4);
	maker_put(&m, strlen(id), 4);
	maker_put(&m, 4, 4);
	maker_bytes(&m, "Go\0", 4);
	maker_bytes(&m, id, strlen(id));
	maker_pad(&m, 4);
}

static struct elf_ids read_ids(void)
{
	struct elf_ids ids;
	struct err *e = build_id_from_elf(m.bytes, m.len, "a.so", &ids);

	cr_assert_null(e, "%s", err_message(e));
	return ids;
}

static void check_gnu(void)
{
	struct elf_ids ids = read_ids();

	cr_assert_eq(ids.gnu.len, sizeof(sample_id));
	cr_assert_arr_eq(ids.gnu.bytes, sample_id, sizeof(sample_id));
}

static void check_none(void)
{
	struct elf_ids ids = read_ids();

	cr_assert_eq(ids.gnu.len, 0);
	cr_assert_str_eq(ids.go, "");
}

/* What the linkers of Go 1.26.0 wrote into the programs of fixtures/go, as `go tool buildid` and readelf say. */
Test(build_id_from_go, gives_what_gos_linker_makes_of_it)
{
	static const struct {
		const char *go, *gnu;
	} known[] = {
		{"mpJ7R6YqTvg0hQM_p8Vj/_98B7ZHVZbfwKkaePN4F/tKeRwuMfykvjirhFyEwX/3oJZtDFhsQyIBvLeQ-s9", "d65b906352a04b62deeeb40362f6ca748432f099"},
		{"0ypJ-juYSoW0h4QhoVl-/ePmzGyobiTTkFuc2dl0A/UCesK8rYEenaEAM7--AS/ZdO0PD0lloI0pm31DvKx", "e884e086d4f66b1111a39bcf8cea95b71b07f692"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		char text[BUILD_ID_HEX_SIZE];
		struct build_id id;
		cr_assert_null(build_id_from_go(known[i].go, strlen(known[i].go), &id));
		build_id_format(&id, text);
		cr_assert_str_eq(text, known[i].gnu);
	}
}

Test(build_id_from_go, takes_any_text)
{
	static const char *const odd[] = {"a", "/", "//", "a/b", "a/b/", "/b"};
	char longest[2 * GO_BUILD_ID_MAX];
	struct build_id ids[ARRAY_SIZE(odd) + 1];

	for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
		cr_assert_null(build_id_from_go(odd[i], strlen(odd[i]), &ids[i]));
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) / 2 - 3] = longest[sizeof(longest) / 2 - 2] = '/';
	cr_assert_null(build_id_from_go(longest, sizeof(longest), &ids[ARRAY_SIZE(odd)]));
	for (size_t i = 0; i <= ARRAY_SIZE(odd); i++)
		for (size_t j = 0; j < i; j++)
			cr_assert_not(build_id_equal(&ids[i], &ids[j]), "%zu and %zu", i, j);
}

Test(build_id_from_ids, prefers_the_gnu_one)
{
	struct elf_ids ids = {.gnu = {.len = 2, .bytes = {1, 2}}, .go = "a/b"};
	struct build_id id, go;

	cr_assert_null(build_id_from_ids(&ids, &id));
	cr_assert(build_id_equal(&id, &ids.gnu));
	ids.gnu.len = 0;
	cr_assert_null(build_id_from_ids(&ids, &id));
	cr_assert_null(build_id_from_go("a/b", 3, &go));
	cr_assert(build_id_equal(&id, &go));
	ids.go[0] = 0;
	cr_assert_null(build_id_from_ids(&ids, &id));
	cr_assert_eq(id.len, 0);
}

/* Gives the notes from @p from to the end of the image one PT_NOTE. */
static void notes_as_segment(size_t from, uint64_t align)
{
	size_t size = m.len - from;

	maker_pad(&m, 8);
	maker_programs_at(&m, m.len, 1);
	maker_program(&m, PT_NOTE, PF_R, from, from, size, align);
}

Test(build_id_from_path, reads_paths_of_build_id_trees_and_no_others)
{
	static const struct {
		const char *path, *id;
	} cases[] = {
		{"usr/lib/debug/.build-id/ab/cdef01.debug", "abcdef01"},
		{".build-id/ab/cd.debug", "abcd"},
		{"usr/lib/debug/.build-id/ab/.debug", NULL},
		{"usr/lib/debug/.build-id/ab/c.debug", NULL},
		{"usr/lib/debug/.build-id/abc/def.debug", NULL},
		{"usr/lib/debug/.build-id/ab/xyz0.debug", NULL},
		{"usr/lib/debug/.build-id/ab/cdef", NULL},
		{"usr/lib/debug/x.build-id/ab/cd.debug", NULL},
		{"usr/lib/debug/.build-id/", NULL},
		{"", NULL},
	};
	char text[BUILD_ID_HEX_SIZE], lengthy[300];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct build_id id = {0};
		cr_assert_eq(build_id_from_path(cases[i].path, strlen(cases[i].path), &id), cases[i].id != NULL, "%s", cases[i].path);
		build_id_format(&id, text);
		cr_assert_str_eq(text, cases[i].id ? cases[i].id : "", "%s", cases[i].path);
	}
	(void)snprintf(lengthy, sizeof(lengthy), ".build-id/ab/%0200d.debug", 0);
	struct build_id id;
	cr_assert_not(build_id_from_path(lengthy, strlen(lengthy), &id));
}

Test(build_id_from_elf, finds_gnu_and_go_notes_in_every_class_and_order)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		maker_start(&m, kinds[i].is_64, kinds[i].big_endian);
		size_t from = m.len;
		put_go_note("aaaa/bbbb/cccc");
		maker_note(&m, "GNU", 1, "\0\0\0\0", 4, 4); /* NT_GNU_ABI_TAG */
		maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 4);
		notes_as_segment(from, 4);
		check_gnu();
		cr_assert_str_eq(read_ids().go, "aaaa/bbbb/cccc");
	}
}

Test(build_id_from_elf, finds_the_note_in_a_section_where_there_is_no_segment)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		maker_start(&m, kinds[i].is_64, kinds[i].big_endian);
		size_t from = m.len;
		maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 4);
		size_t size = m.len - from;
		maker_sections_at(&m, m.len, 2);
		maker_section(&m, SHT_NULL, 0, 0, 0, 0);
		maker_section(&m, SHT_NOTE, from, size, 0, 4);
		check_gnu();
	}
}

Test(build_id_from_elf, finds_the_section_when_the_segment_points_elsewhere)
{
	maker_start(&m, true, false);
	size_t from = m.len;
	maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 4);
	size_t size = m.len - from;
	maker_programs_at(&m, m.len, 2);
	maker_program(&m, PT_NOTE, PF_R, 0x7fffffffffff, 0, 64, 4);
	maker_program(&m, PT_NOTE, PF_R, UINT64_MAX - 4, 0, UINT64_MAX, 4);
	maker_sections_at(&m, m.len, 1);
	maker_section(&m, SHT_NOTE, from, size, 0, 4);
	check_gnu();
}

Test(build_id_from_elf, walks_notes_padded_to_eight_bytes)
{
	maker_start(&m, true, false);
	size_t from = m.len;
	maker_note(&m, "GNU", 5, "\2\0\0\300\4\0\0\0\3\0\0\0", 12, 8); /* property: 12 bytes, 4 of padding */
	maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 8);
	notes_as_segment(from, 8);
	check_gnu();
}

Test(build_id_from_elf, walks_names_whose_padding_depends_on_the_alignment)
{
	for (size_t align = 4; align <= 8; align += 4) {
		maker_start(&m, true, false);
		size_t from = m.len;
		maker_note(&m, "stapsdt", 3, "abc", 3, align);
		maker_note(&m, "x", 3, "abcde", 5, align);
		maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), align);
		notes_as_segment(from, align);
		check_gnu();
	}
}

Test(build_id_from_elf, takes_alignments_0_and_1_as_4)
{
	for (uint64_t align = 0; align <= 1; align++) {
		maker_start(&m, true, false);
		size_t from = m.len;
		maker_note(&m, "x", 3, "abcde", 5, 4);
		maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 4);
		notes_as_segment(from, align);
		check_gnu();
	}
}

Test(build_id_from_elf, takes_a_last_note_without_its_padding)
{
	maker_start(&m, true, false);
	size_t from = m.len;
	maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, 17, 4);
	m.len = from + 16 + 17;
	maker_programs_at(&m, 0x200, 1);
	size_t size = m.len - from;
	m.len = 0x200;
	maker_program(&m, PT_NOTE, PF_R, from, 0, size, 4);
	cr_assert_eq(read_ids().gnu.len, 17);
}

Test(build_id_from_elf, keeps_the_first_of_two)
{
	maker_start(&m, true, false);
	size_t from = m.len;
	maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 4);
	maker_note(&m, "GNU", NT_GNU_BUILD_ID, "other", 5, 4);
	notes_as_segment(from, 4);
	check_gnu();
}

Test(build_id_from_elf, takes_ids_of_1_and_64_bytes_and_ignores_0_and_65)
{
	uint8_t long_id[65];
	static const size_t sizes[] = {0, 1, 64, 65};

	memset(long_id, 0xab, sizeof(long_id));
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		maker_start(&m, true, false);
		size_t from = m.len;
		maker_note(&m, "GNU", NT_GNU_BUILD_ID, long_id, sizes[i], 4);
		notes_as_segment(from, 4);
		cr_assert_eq(read_ids().gnu.len, sizes[i] <= BUILD_ID_MAX ? sizes[i] : 0);
	}
}

Test(build_id_from_elf, ignores_a_go_id_that_is_too_long_or_not_text)
{
	char id[GO_BUILD_ID_MAX + 2];

	memset(id, 'a', sizeof(id));
	id[GO_BUILD_ID_MAX + 1] = 0;
	maker_start(&m, true, false);
	size_t from = m.len;
	put_go_note(id);
	put_go_note("a\nb");
	notes_as_segment(from, 4);
	check_none();
}

Test(build_id_from_elf, stops_at_sizes_that_pass_the_segment)
{
	static const uint32_t sizes[][2] = {
		{UINT32_MAX, 0}, {4, UINT32_MAX}, {UINT32_MAX, UINT32_MAX}, {UINT32_MAX - 3, UINT32_MAX - 3}, {4, 21}, {5, 20}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		maker_start(&m, true, false);
		size_t from = m.len;
		maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 4);
		maker_put_at(&m, from, sizes[i][0], 4);
		maker_put_at(&m, from + 4, sizes[i][1], 4);
		notes_as_segment(from, 4);
		check_none();
	}
}

Test(build_id_from_elf, gives_nothing_for_a_file_without_notes)
{
	maker_start(&m, true, false);
	check_none();
}

Test(build_id_from_elf, stops_after_too_many_notes)
{
	enum { SEGMENTS = 200, NOTES = 6000 };
	static uint8_t image[SEGMENTS * 56 + NOTES * 12 + MAKER_BYTES];
	struct elf_ids ids;

	/* Each segment covers the same 6,000 empty notes: zeros are notes without name or descriptor. */
	maker_start(&m, true, false);
	maker_programs_at(&m, m.len, SEGMENTS);
	for (int i = 0; i < SEGMENTS; i++)
		maker_program(&m, PT_NOTE, PF_R, MAKER_BYTES, 0, NOTES * 12, 4);
	memcpy(image, m.bytes, m.len);
	struct err *e = build_id_from_elf(image, sizeof(image), "a.so", &ids);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	cr_assert_str_eq(err_message(e), "a.so: more than 1048576 notes");
	err_free(e);
}

static void check_format_error(const void *bytes, size_t len, const char *want)
{
	struct elf_ids ids = {.gnu.len = 99};
	struct err *e = build_id_from_elf(bytes, len, "a.so", &ids);

	cr_assert_not_null(e, "expected: %s", want);
	cr_assert_eq(err_code(e), ERR_FORMAT);
	cr_assert_not_null(strstr(err_message(e), want), "%s", err_message(e));
	cr_assert_eq(ids.gnu.len, 99, "ret is written only on success");
	err_free(e);
}

Test(build_id_from_elf, rejects_what_is_not_elf)
{
	check_format_error("", 0, "not an ELF file");
	check_format_error("hello world, this is text", 25, "not an ELF file");
	check_format_error("\177ELF", 4, "not an ELF file");
	maker_start(&m, true, false);
	m.bytes[EI_CLASS] = 3;
	check_format_error(m.bytes, m.len, "unknown ELF class 3");
	maker_start(&m, true, false);
	m.bytes[EI_DATA] = 0;
	check_format_error(m.bytes, m.len, "unknown ELF byte order 0");
}

Test(build_id_from_elf, rejects_every_truncation_of_the_header)
{
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		maker_start(&m, kinds[k].is_64, kinds[k].big_endian);
		for (size_t len = EI_NIDENT; len < (kinds[k].is_64 ? 62U : 50U); len++)
			check_format_error(m.bytes, len, "cut short");
	}
}

Test(build_id_from_elf, rejects_tables_past_the_end_and_small_entries)
{
	maker_start(&m, true, false);
	maker_programs_at(&m, UINT64_MAX - 8, 1);
	check_format_error(m.bytes, m.len, "program headers at offset 0xfffffffffffffff7 pass the end");
	maker_start(&m, true, false);
	maker_programs_at(&m, 64, 0xfffe);
	check_format_error(m.bytes, m.len, "65534 program headers at offset 0x40 pass the end");
	maker_start(&m, true, false);
	maker_sections_at(&m, 64, 0xffff);
	check_format_error(m.bytes, m.len, "65535 section headers at offset 0x40 pass the end");
	maker_start(&m, true, false);
	maker_programs_at(&m, 0, 1);
	maker_put_at(&m, 54, 8, 2);
	check_format_error(m.bytes, m.len, "program headers of 8 bytes, expected 56");
}

Test(build_id_from_elf, resolves_extended_numbering)
{
	maker_start(&m, true, false);
	size_t from = m.len;
	maker_note(&m, "GNU", NT_GNU_BUILD_ID, sample_id, sizeof(sample_id), 4);
	size_t size = m.len - from;
	maker_pad(&m, 8);
	maker_programs_at(&m, m.len, PN_XNUM);
	maker_program(&m, PT_NOTE, PF_R, from, 0, size, 4);
	maker_sections_at(&m, m.len, 0);
	maker_section(&m, SHT_NULL, 0, 1, 1, 0); /* sh_size: one section; sh_info: one segment */
	check_gnu();

	maker_sections_at(&m, 0, 0);
	check_format_error(m.bytes, m.len, "section 0, which is missing");
	maker_sections_at(&m, m.len - 64, 0);
	maker_put_at(&m, m.len - 64 + 32, UINT64_MAX, 8);
	check_format_error(m.bytes, m.len, "18446744073709551615 sections");
	maker_put_at(&m, m.len - 64 + 32, UINT32_MAX, 8);
	check_format_error(m.bytes, m.len, "4294967295 section headers");
}

/* The test program itself was linked by a real linker. */
Test(build_id_from_elf, agrees_with_readelf_on_this_program)
{
	char path[4096], command[4200], want[200];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	cr_assert_gt(n, 0);
	path[n] = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	cr_assert_eq(fstat(fd, &status), 0);
	void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_neq(bytes, MAP_FAILED);
	struct elf_ids ids;
	cr_assert_null(build_id_from_elf(bytes, (size_t)status.st_size, path, &ids));
	munmap(bytes, (size_t)status.st_size);
	close(fd);

	(void)snprintf(command, sizeof(command), "readelf -n '%s' | sed -n 's/.*Build ID: //p'", path);
	FILE *pipe = popen(command, "r");
	cr_assert_not_null(fgets(want, sizeof(want), pipe));
	cr_assert_eq(pclose(pipe), 0);
	want[strcspn(want, "\n")] = 0;
	char text[BUILD_ID_HEX_SIZE];
	build_id_format(&ids.gnu, text);
	cr_assert_str_eq(text, want);
}

Test(build_id_parse, reads_1_to_64_bytes_of_either_case)
{
	struct build_id id;
	char text[BUILD_ID_HEX_SIZE];

	cr_assert(build_id_parse("aB", 2, &id));
	cr_assert_eq(id.len, 1);
	cr_assert_eq(id.bytes[0], 0xab);
	memset(text, 'f', 128);
	cr_assert(build_id_parse(text, 128, &id));
	cr_assert_eq(id.len, 64);
	build_id_format(&id, text);
	cr_assert_eq(strlen(text), 128);
}

Test(build_id_parse, rejects_empty_odd_long_and_non_hex)
{
	char text[131];
	struct build_id id = {.len = 7};

	memset(text, 'f', sizeof(text));
	cr_assert_not(build_id_parse("", 0, &id));
	cr_assert_not(build_id_parse("abc", 3, &id));
	cr_assert_not(build_id_parse("zz", 2, &id));
	cr_assert_not(build_id_parse(text, 130, &id));
	cr_assert_not(build_id_parse(text, SIZE_MAX - 1, &id));
	cr_assert_eq(id.len, 7);
}

Test(build_id_equal, compares_length_and_bytes)
{
	struct build_id a = {.len = 2, .bytes = {1, 2}}, b = {.len = 3, .bytes = {1, 2}}, c = {.len = 2, .bytes = {1, 3}};

	cr_assert(build_id_equal(&a, &a));
	cr_assert_not(build_id_equal(&a, &b));
	cr_assert_not(build_id_equal(&a, &c));
}

// SPDX-License-Identifier: Apache-2.0
/* Supplements (dwz): found where they belong, refused when they do not; what is there without them. Answers: accuracy.py. */
#include "symbolizer/build/build.h"
#include "symbolizer/build/debug_file.h"
#include "tests/build/folder.h"

#include <criterion/criterion.h>
#include <stdio.h>

TestSuite(supplement, .init = in_folder, .fini = remove_folder);

static struct elf_mapping open_file(const char *path)
{
	struct elf_mapping mapping = {0};
	struct err *e = elf_mapping_open(path, &mapping);

	cr_assert_null(e, "%s", e ? err_message(e) : "");
	return mapping;
}

static struct build_image image_of(const struct elf_mapping *mapping)
{
	return (struct build_image){.bytes = mapping->bytes, .len = mapping->len, .name = mapping->path};
}

static struct err *build(const char *file, const char *supplement, struct build_stats *stats)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = open_file(file);
	struct elf_mapping common CLEANUP(elf_mapping_deinit) = {0};
	struct buf table CLEANUP(buf_deinit) = {0};

	if (supplement)
		common = open_file(supplement);
	struct build_options options = {.binary = image_of(&binary), .supplement = image_of(&common)};
	return build_table(&options, &table, stats);
}

/* Copies of two fixtures and their supplement: "one", "two" and dwz.sup here. */
static void copy_fixtures(void)
{
	shell("cp $CAIRN_FIXTURES/dwz-cxx-gcc-O3 one && cp $CAIRN_FIXTURES/dwz.sup .");
}

Test(supplement, gives_a_table_without_damage)
{
	struct build_stats stats;

	copy_fixtures();
	struct err *e = build("one", "dwz.sup", &stats);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_expect_eq(stats.damaged, 0);
	cr_expect_str_eq(stats.reason, "");
}

Test(supplement, that_is_missing_is_told_once)
{
	struct build_stats stats;

	copy_fixtures();
	struct err *e = build("one", NULL, &stats);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_expect_eq(stats.damaged, 0);
	cr_expect_str_eq(stats.reason, "one: names lie in dwz.sup, which is not here");
}

Test(supplement, of_another_build_is_refused)
{
	struct build_stats stats;

	copy_fixtures();
	struct err *e = build("one", "one", &stats);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_MISMATCH);
	cr_expect(strstr(err_message(e), "one needs the supplement with build ID") != NULL, "%s", err_message(e));
	err_free(e);
}

/* The altlink is given the build ID of the file itself. */
Test(supplement, that_is_the_file_itself_is_refused_by_name)
{
	struct build_stats stats;

	copy_fixtures();
	shell("printf 'one\\0' >link && objcopy --dump-section .note.gnu.build-id=note one && tail -c 20 note >>link && "
	      "objcopy --update-section .gnu_debugaltlink=link one");
	struct err *e = build("one", "one", &stats);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_expect_eq(stats.damaged, 1);
	cr_expect_str_eq(stats.reason, "one: names itself as its supplement, by one");
}

Test(supplement, that_is_cut_short_leaves_the_rest)
{
	struct build_stats stats;

	copy_fixtures();
	shell("head -c 40 /dev/zero >zeros && objcopy --update-section .debug_info=zeros dwz.sup");
	struct err *e = build("one", "dwz.sup", &stats);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_expect_gt(stats.damaged, 0);
	cr_expect_gt(stats.rows, 100);
}

/* ---- finding ---- */

static struct err *find(const char *file, const char *debug_dir, char *path_ret, size_t size)
{
	struct elf_mapping from CLEANUP(elf_mapping_deinit) = open_file(file);
	struct elf_mapping found CLEANUP(elf_mapping_deinit) = {0};
	const char *dirs[] = {debug_dir};
	struct debug_file_search search = {.debug_dirs = dirs, .debug_dir_count = debug_dir ? 1 : 0};

	TRY(supplement_find(&from, &search, &found));
	(void)snprintf(path_ret, size, "%s", found.path ? found.path : "");
	return NULL;
}

static void expect_found(const char *file, const char *debug_dir, const char *end)
{
	char path[1024] = "";
	struct err *e = find(file, debug_dir, path, sizeof(path));

	cr_assert_null(e, "%s", e ? err_message(e) : "");
	size_t len = strlen(path), end_len = strlen(end);
	cr_expect(end_len ? len >= end_len && strcmp(path + len - end_len, end) == 0 : len == 0, "%s, not %s", path, end);
}

/* The altlink's name is made an absolute one, as Debian has it. */
#define MAKE_ABSOLUTE                                                                                                                \
	"objcopy --dump-section .gnu_debugaltlink=link one && printf '/usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug\\0' >new && "     \
	"tail -c 20 link >>new && objcopy --update-section .gnu_debugaltlink=new one && "

Test(supplement, is_found_beside_the_file_that_names_it)
{
	copy_fixtures();
	expect_found("one", NULL, "/dwz.sup");
	shell("mkdir sub && mv one sub && ln -s sub/one other && mv dwz.sup sub");
	expect_found("other", NULL, "/sub/dwz.sup");
}

Test(supplement, is_found_in_the_tree_of_an_unpacked_package)
{
	copy_fixtures();
	shell(MAKE_ABSOLUTE "mkdir -p root/usr/lib/debug/.build-id/ab root/usr/lib/debug/.dwz/x86_64-linux-gnu && "
			    "mv one root/usr/lib/debug/.build-id/ab/cd.debug && mv dwz.sup root/usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug");
	expect_found("root/usr/lib/debug/.build-id/ab/cd.debug", NULL, "/root/usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug");
}

Test(supplement, is_found_in_a_debug_directory_by_name_and_by_build_id)
{
	copy_fixtures();
	shell(MAKE_ABSOLUTE "mkdir -p there/.dwz/x86_64-linux-gnu && cp dwz.sup there/.dwz/x86_64-linux-gnu/x.debug");
	expect_found("one", "there", "there/.dwz/x86_64-linux-gnu/x.debug");
	shell("id=$(readelf -n dwz.sup | sed -n 's/.*Build ID: //p') && mkdir -p by/.build-id/$(echo $id | cut -c1-2) && "
	      "cp dwz.sup by/.build-id/$(echo $id | cut -c1-2)/$(echo $id | cut -c3-).debug");
	expect_found("one", "by", ".debug");
}

Test(supplement, of_another_build_is_not_taken_and_told_when_there_is_no_other)
{
	char path[1024];

	copy_fixtures();
	shell("cp one dwz.sup");
	struct err *e = find("one", NULL, path, sizeof(path));
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_MISMATCH);
	err_free(e);
	shell("rm dwz.sup");
	expect_found("one", NULL, "");
	shell("cp $CAIRN_FIXTURES/cxx-gcc-O3 none");
	expect_found("none", NULL, "");
}

// SPDX-License-Identifier: Apache-2.0
/* On the compiled fixtures: copies of a binary and its debug file are laid out in a folder of the test's own. */
#include "symbolizer/build/debug_file.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

static char folder[PATH_MAX];

static const char *fixture(const char *name)
{
	static char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_FIXTURES"), name);
	return path;
}

static const char *in_folder(const char *name)
{
	static char path[2][PATH_MAX + 64];
	static unsigned turn;
	char *text = path[turn++ % 2];
	snprintf(text, sizeof(path[0]), "%s/%s", folder, name);
	return text;
}

/* Copies a fixture into the folder; @p extra is appended to it. Makes the folders of @p name. */
static void place(const char *from, const char *name, const char *extra)
{
	char command[4 * PATH_MAX];
	const char *to = in_folder(name);

	snprintf(command, sizeof(command), "mkdir -p \"$(dirname '%s')\" && cp '%s' '%s' && printf '%%s' '%s' >>'%s'", to,
		fixture(from), to, extra, to);
	cr_assert_eq(system(command), 0);
}

static void setup(void)
{
	snprintf(folder, sizeof(folder), "/tmp/cairn-debug-file-XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
}

static void teardown(void)
{
	char command[PATH_MAX + 32];
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(debug_file_find, .init = setup, .fini = teardown);

/* What is found for the binary placed as @p name, with <folder>/debug as the debug directory; the path is cut to the folder. */
static struct err *find(const char *name, const char *explicit_file, char *found)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	struct elf_mapping debug CLEANUP(elf_mapping_deinit) = {0};
	char dir[PATH_MAX + 64];
	const char *const dirs[] = {dir};
	const struct debug_file_search search = {.debug_file = explicit_file, .debug_dirs = dirs, .debug_dir_count = 1};

	snprintf(dir, sizeof(dir), "%s/debug", folder);
	found[0] = 0;
	TRY(elf_mapping_open(in_folder(name), &binary));
	TRY(debug_file_find(&binary, &search, &debug));
	if (debug.bytes)
		strcpy(found, debug.path + strlen(folder) + 1);
	return NULL;
}

static void expect_found(const char *name, const char *wanted)
{
	char found[PATH_MAX];
	struct err *e = find(name, NULL, found);

	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_assert_str_eq(found, wanted);
}

static void expect_error(struct err *e, enum err_code code, const char *words)
{
	cr_assert_not_null(e, "no error");
	cr_assert_not_null(strstr(err_message(e), words), "\"%s\" does not contain \"%s\"", err_message(e), words);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	err_free(e);
}

Test(debug_file_find, takes_the_link_beside_the_binary)
{
	place("split-link", "bin/prog", "");
	place("split-link.debug", "bin/split-link.debug", "");
	expect_found("bin/prog", "bin/split-link.debug");
}

Test(debug_file_find, takes_the_link_in_dot_debug)
{
	place("split-link", "bin/prog", "");
	place("split-link.debug", "bin/.debug/split-link.debug", "");
	expect_found("bin/prog", "bin/.debug/split-link.debug");
}

Test(debug_file_find, takes_the_link_below_the_debug_directory)
{
	char below[PATH_MAX + 64], wanted[PATH_MAX + 64];

	place("split-link", "bin/prog", "");
	snprintf(below, sizeof(below), "debug%s/bin/split-link.debug", folder);
	place("split-link.debug", below, "");
	snprintf(wanted, sizeof(wanted), "debug%s/bin/split-link.debug", folder);
	expect_found("bin/prog", wanted);
}

Test(debug_file_find, prefers_the_build_id_directory)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	char hex[BUILD_ID_HEX_SIZE], name[PATH_MAX];

	place("split-zlib", "bin/prog", "");
	place("split-zlib.debug", "bin/split-zlib.debug", "");
	cr_assert_null(elf_mapping_open(in_folder("bin/prog"), &binary));
	build_id_format(elffile_build_id(binary.elf), hex);
	snprintf(name, sizeof(name), "debug/.build-id/%.2s/%s.debug", hex, hex + 2);
	place("split-zlib.debug", name, "");
	expect_found("bin/prog", name);
}

Test(debug_file_find, finds_nothing_where_there_is_nothing)
{
	place("split-link", "bin/prog", "");
	expect_found("bin/prog", "");
	place("stripped", "bin/other", "");
	expect_found("bin/other", "");
}

Test(debug_file_find, passes_the_binary_itself_over)
{
	place("split-link", "bin/split-link.debug", "");
	expect_found("bin/split-link.debug", "");
}

Test(debug_file_find, reports_both_crcs_when_they_differ)
{
	char found[PATH_MAX];

	place("split-no-id", "bin/prog", "");
	place("split-no-id.debug", "bin/split-no-id.debug", "one byte more");
	struct err *e = find("bin/prog", NULL, found);
	cr_assert_not_null(e);
	cr_assert_not_null(strstr(err_message(e), "bin/split-no-id.debug: CRC "), "%s", err_message(e));
	expect_error(e, ERR_MISMATCH, "but the .gnu_debuglink of ");
}

Test(debug_file_find, goes_on_behind_a_wrong_file)
{
	place("split-no-id", "bin/prog", "");
	place("split-no-id.debug", "bin/split-no-id.debug", "one byte more");
	place("split-no-id.debug", "bin/.debug/split-no-id.debug", "");
	expect_found("bin/prog", "bin/.debug/split-no-id.debug");
}

Test(debug_file_find, reports_both_build_ids_when_they_differ)
{
	char found[PATH_MAX];
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	char hex[BUILD_ID_HEX_SIZE];

	place("split-link", "bin/prog", "");
	place("split-zlib.debug", "other.debug", "");
	cr_assert_null(elf_mapping_open(in_folder("bin/prog"), &binary));
	build_id_format(elffile_build_id(binary.elf), hex);
	struct err *e = find("bin/prog", in_folder("other.debug"), found);
	cr_assert_not_null(e);
	cr_assert_not_null(strstr(err_message(e), hex), "%s", err_message(e));
	expect_error(e, ERR_MISMATCH, "other.debug: build ID ");
}

Test(debug_file_find, reports_a_stale_build_id_file)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	char hex[BUILD_ID_HEX_SIZE], name[PATH_MAX], found[PATH_MAX];

	place("split-link", "bin/prog", "");
	cr_assert_null(elf_mapping_open(in_folder("bin/prog"), &binary));
	build_id_format(elffile_build_id(binary.elf), hex);
	snprintf(name, sizeof(name), "debug/.build-id/%.2s/%s.debug", hex, hex + 2);
	place("split-zlib.debug", name, "");
	expect_error(find("bin/prog", NULL, found), ERR_MISMATCH, ".debug: build ID ");
}

Test(debug_file_find, refuses_a_named_file_of_another_machine)
{
	char found[PATH_MAX];

	place("split-no-id", "bin/prog", "");
	place("f-aarch64", "other.debug", "");
	expect_error(find("bin/prog", in_folder("other.debug"), found), ERR_MISMATCH, "ELF machine 183");
}

Test(debug_file_find, refuses_a_named_file_that_does_not_exist_or_is_no_elf)
{
	char found[PATH_MAX];

	place("split-link", "bin/prog", "");
	expect_error(find("bin/prog", in_folder("nowhere"), found), ERR_OS, "nowhere: No such file");
	place("manifest", "text", "");
	expect_error(find("bin/prog", in_folder("text"), found), ERR_FORMAT, "text: not an ELF file");
	expect_error(find("bin/prog", folder, found), ERR_FORMAT, "not a regular file");
}

Test(debug_file_find, refuses_an_empty_file_and_a_device)
{
	struct elf_mapping mapping = {0};
	FILE *file = fopen(in_folder("empty"), "w");

	cr_assert_not_null(file);
	fclose(file);
	expect_error(elf_mapping_open(in_folder("empty"), &mapping), ERR_FORMAT, "empty: empty file");
	expect_error(elf_mapping_open("/dev/null", &mapping), ERR_FORMAT, "not a regular file");
}

Test(debug_file_find, refuses_more_directories_than_the_limit)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	struct elf_mapping debug = {0};
	const char *dirs[DEBUG_FILE_DIRS_MAX + 1];
	const struct debug_file_search search = {.debug_dirs = dirs, .debug_dir_count = ARRAY_SIZE(dirs)};

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		dirs[i] = "/nowhere";
	place("split-link", "bin/prog", "");
	cr_assert_null(elf_mapping_open(in_folder("bin/prog"), &binary));
	expect_error(debug_file_find(&binary, &search, &debug), ERR_INVALID, "65 debug directories, more than 64");
}

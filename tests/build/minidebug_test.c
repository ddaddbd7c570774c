// SPDX-License-Identifier: Apache-2.0
/* MiniDebugInfo: where it is used, and what is refused. Answers: accuracy.py. */
#include "symbolizer/build/minidebug.h"

#include "symbolizer/build/build.h"
#include "symbolizer/build/debug_file.h"
#include "symbolizer/table/table.h"
#include "tests/build/elf_image.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct buf table;
static struct build_stats stats;

static void build(const char *name)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	char path[1024];

	(void)snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_FIXTURES"), name);
	cr_assert_null(elf_mapping_open(path, &binary));
	struct build_options options = {.binary = {.bytes = binary.bytes, .len = binary.len, .name = name}};
	struct err *e = build_table(&options, &table, &stats);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
}

Test(minidebug, names_what_the_dynamic_symbols_do_not)
{
	build("minidebug");
	cr_expect(stats.sources & TABLE_FROM_GNU_DEBUGDATA);
	cr_expect_not(stats.sources & (TABLE_FROM_SYMTAB | TABLE_FROM_DWARF));
	cr_expect_eq(stats.damaged, 0);
	buf_deinit(&table);
	build("minidebug-whole"); /* .symtab has them already */
	cr_expect_not(stats.sources & TABLE_FROM_GNU_DEBUGDATA);
	buf_deinit(&table);
}

static struct elf_image m;

static void expect_refused(const void *bytes, size_t len, uint64_t limit, enum err_code code, const char *words)
{
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct minidebug mini = {.file = NULL};

	image_begin(&m, true, false);
	image_section(&m, ".gnu_debugdata", SHT_PROGBITS, 0, 0, bytes, len);
	image_finish(&m);
	cr_assert_null(elffile_open(m.bytes, m.len, "t", NULL, &file));
	struct err *e = minidebug_open(file, limit, &mini);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), code, "%s", err_message(e));
	cr_expect(strstr(err_message(e), words) != NULL, "\"%s\" is not in \"%s\"", words, err_message(e));
	cr_expect_null(mini.file);
	err_free(e);
}

/* The first bytes of an ELF file of another machine, by xz. */
static size_t compress(uint8_t *ret, size_t cap, uint16_t machine)
{
	char path[] = "/tmp/cairn-minidebug-XXXXXX", command[128];
	FILE *file = fdopen(mkstemp(path), "wb");

	image_begin(&m, true, false);
	image_finish(&m);
	image_put_at(&m, 18, machine, 2);
	cr_assert_eq(fwrite(m.bytes, 1, m.len, file), m.len);
	cr_assert_eq(fclose(file), 0);
	(void)snprintf(command, sizeof(command), "xz -c %s; rm %s", path, path);
	file = popen(command, "r");
	size_t len = fread(ret, 1, cap, file);
	cr_assert_eq(pclose(file), 0);
	return len;
}

Test(minidebug, that_is_damaged_or_of_another_machine_is_refused)
{
	uint8_t bytes[4096];
	size_t len = compress(bytes, sizeof(bytes), EM_AARCH64);

	expect_refused("ELF is not xz", 13, 0, ERR_FORMAT, "t: .gnu_debugdata: not compressed by xz");
	expect_refused(bytes, len, 0, ERR_FORMAT, "t: .gnu_debugdata: of another kind of file");
	expect_refused(bytes, len - 4, 0, ERR_FORMAT, "t: .gnu_debugdata: ");
	expect_refused(bytes, len, 64, ERR_LIMIT, "t: .gnu_debugdata: ");
}

// SPDX-License-Identifier: Apache-2.0
/* Split DWARF: .dwo and .dwp found where they belong, refused when they do not; what is there without them. Answers: accuracy.py. */
#include "symbolizer/build/build.h"
#include "symbolizer/build/debug_file.h"
#include "tests/build/folder.h"

#include <criterion/criterion.h>
#include <stdio.h>

TestSuite(split, .init = in_folder, .fini = remove_folder);

static void must(struct err *e)
{
	cr_assert_null(e, "%s", err_message(e));
}

/* A program in two units, "prog", whose skeletons name dwo/a.dwo and dwo/b.dwo. */
static void compile(const char *compiler, const char *flags)
{
	char command[1024];

	(void)snprintf(command, sizeof(command),
		"mkdir dwo && echo 'int twice(int x); int main(int c, char **v) { return twice(c); }' >a.c && "
		"echo 'static inline int add(int a, int b) { return a + b * a; } int twice(int x) { return add(x, x * 3); }' >b.c && "
		"for i in a b; do %s -gsplit-dwarf %s -O1 -c $i.c -o dwo/$i.o || exit 1; done && %s dwo/a.o dwo/b.o -o prog", compiler, flags,
		compiler);
	shell(command);
}

/* Builds prog's table with what is found, as the programs at a prompt do. */
static struct err *build(struct build_stats *stats)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	struct elf_mapping package CLEANUP(elf_mapping_deinit) = {0};
	struct split_search search CLEANUP(split_search_deinit) = {.binary = &binary};
	struct buf table CLEANUP(buf_deinit) = {0};

	TRY(elf_mapping_open("prog", &binary));
	TRY(split_package_find(&binary, &package));
	const struct build_image split = {.bytes = package.bytes, .len = package.len, .name = package.path};
	const struct build_options options = {.binary = {.bytes = binary.bytes, .len = binary.len, .name = binary.path},
		.splits = &split,
		.split_count = package.bytes ? 1 : 0,
		.find_split = split_search_find,
		.find_split_context = &search,
		.threads = 2};
	return build_table(&options, &table, stats);
}

static void expect_whole(const char *where)
{
	struct build_stats stats;

	must(build(&stats));
	cr_expect_eq(stats.missing_splits, 0, "%s: %s", where, stats.reason);
	cr_expect_eq(stats.damaged, 0, "%s: %s", where, stats.reason);
	cr_expect_eq(stats.inline_nodes, 1, "%s", where);
}

static void expect_missing(uint64_t units, uint64_t damaged, const char *reason)
{
	struct build_stats stats;

	must(build(&stats));
	cr_expect_eq(stats.missing_splits, units);
	cr_expect_eq(stats.damaged, damaged, "%lu damaged", stats.damaged);
	cr_expect(strstr(stats.reason, reason) != NULL, "\"%s\" has no \"%s\"", stats.reason, reason);
	cr_expect_gt(stats.rows, 3, "lines are the skeleton's");
}

Test(split, is_found_where_the_compiler_put_it_and_beside_the_program)
{
	compile("gcc", "-gdwarf-5");
	expect_whole("compilation directory");
	shell("mkdir there && mv prog dwo there && cd there && mv prog ..  && mv dwo .. && mkdir ../x && cp -r ../dwo ../prog ../x && "
	      "rm -r ../dwo && mv ../x/prog ../x/dwo ..");
	expect_whole("below the program");
	shell("mv dwo/*.dwo . && rm -r dwo");
	expect_whole("beside the program");
}

Test(split, package_is_found_beside_the_program)
{
	compile("clang-19", "-gdwarf-5 -fno-split-dwarf-inlining");
	shell("llvm-dwp-19 -e prog -o prog.dwp && rm -r dwo");
	expect_whole("prog.dwp");
	shell("mv prog.dwp x && mv prog prog.debug && mv x prog.dwp && ln -s prog.debug prog");
	expect_whole("prog.dwp of prog.debug");
}

Test(split, package_that_lacks_a_unit_is_completed_by_files)
{
	compile("gcc", "-gdwarf-4");
	shell("dwp dwo/a.dwo -o prog.dwp && rm dwo/a.dwo");
	expect_whole("one unit of two in the package");
}

Test(split, that_is_missing_is_told_with_its_name_and_lines_stay)
{
	compile("gcc", "-gdwarf-5");
	shell("rm dwo/b.dwo");
	expect_missing(1, 0, "prog: .debug_info: names lie in dwo/b.dwo (unit ");
	shell("rm dwo/a.dwo");
	expect_missing(2, 0, "names lie in dwo/a.dwo (unit ");
}

Test(split, of_another_unit_is_told)
{
	compile("gcc", "-gdwarf-5");
	shell("cp dwo/a.dwo dwo/b.dwo");
	expect_missing(1, 1, "dwo/b.dwo: no unit ");
}

Test(split, of_another_compilation_is_told)
{
	compile("gcc", "-gdwarf-5");
	shell("echo 'int other;' >>b.c && gcc -g -gsplit-dwarf -O2 -c b.c -o dwo/b.o");
	expect_missing(1, 1, "dwo/b.dwo: no unit ");
}

Test(split, that_is_damaged_costs_its_own_unit_only)
{
	compile("gcc", "-gdwarf-5");
	shell("head -c 100 dwo/b.dwo >x && mv x dwo/b.dwo");
	expect_missing(1, 0, "dwo/b.dwo"); /* no ELF file: as if it were not there */
	shell("gcc -gsplit-dwarf -gdwarf-5 -O1 -c b.c -o dwo/b.o && head -c 30 /dev/zero >zeros && "
	      "objcopy --update-section .debug_info.dwo=zeros dwo/b.dwo");
	expect_missing(1, 1, "dwo/b.dwo: .debug_info.dwo+0x");
	shell("gcc -gsplit-dwarf -gdwarf-5 -O1 -c b.c -o dwo/b.o && objcopy --remove-section .debug_info.dwo dwo/b.dwo");
	expect_missing(1, 1, "dwo/b.dwo: no .debug_info.dwo in it");
}

Test(split, whose_entries_are_damaged_leaves_the_skeletons_lines)
{
	struct build_stats stats;

	compile("gcc", "-gdwarf-5");
	/* The unit DIE stands, its children do not. */
	shell("objcopy --dump-section .debug_info.dwo=info dwo/b.dwo && head -c 40 info >cut && head -c $(($(wc -c <info) - 40)) /dev/zero | "
	      "tr '\\0' '\\177' >>cut && objcopy --update-section .debug_info.dwo=cut dwo/b.dwo");
	must(build(&stats));
	cr_expect_eq(stats.missing_splits, 0);
	cr_expect_eq(stats.damaged, 1);
	cr_expect_eq(stats.skipped_units, 0);
	cr_expect_gt(stats.rows, 3);
}

/* Every byte of the index changed, one after the other. */
Test(split, package_with_a_damaged_index_is_left_out_or_serves)
{
	compile("clang-19", "-gdwarf-5");
	shell("llvm-dwp-19 -e prog -o whole.dwp && rm -r dwo && objcopy --dump-section .debug_cu_index=index whole.dwp");
	FILE *file = fopen("index", "rb");
	uint8_t index[512];
	size_t len = fread(index, 1, sizeof(index), file);
	cr_assert_gt(len, 50);
	cr_assert_lt(len, sizeof(index));
	(void)fclose(file);
	unsigned refused = 0;
	for (size_t i = 0; i < len; i += 3) {
		struct build_stats stats;
		index[i] ^= 0x80;
		file = fopen("changed", "wb");
		cr_assert_eq(fwrite(index, 1, len, file), len);
		(void)fclose(file);
		index[i] ^= 0x80;
		shell("cp whole.dwp prog.dwp && objcopy --update-section .debug_cu_index=changed prog.dwp");
		must(build(&stats));
		cr_expect_gt(stats.rows, 3);
		refused += stats.damaged > 0;
	}
	cr_expect_gt(refused, 5);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * build_chains FILE DEBUG|- ADDRESSES: builds the file's table, picks addresses, and looks them up, for accuracy.py.
 *     ADDRESSES  written: every address of every code range, one 0x.. a line (evenly thinned beyond ADDRESSES_MAX)
 *     stdout     the chains as llvm-symbolizer prints them: function, file:line:column per frame, a blank line behind each address
 */
#include "symbolizer/build/build.h"
#include "symbolizer/build/debug_file.h"
#include "symbolizer/table/table.h"

#include <inttypes.h>
#include <stdio.h>

enum { ADDRESSES_MAX = 60000, FRAMES_MAX = 256 };

static void print_chain(const struct table *table, uint64_t vaddr)
{
	struct table_frame frames[FRAMES_MAX];
	size_t count = table_lookup(table, vaddr, frames, FRAMES_MAX);

	if (count == 0)
		puts("??\n??:0:0");
	for (size_t i = 0; i < count; i++) {
		const struct table_frame *f = &frames[i];
		bool known = f->base[0] != '\0';

		printf("%s\n%s%s%s:%" PRIu32 ":%" PRIu32 "\n", f->function[0] ? f->function : "??", f->dir, f->dir[0] ? "/" : "",
			known ? f->base : "??", f->line, f->column);
	}
	putchar('\n');
}

static struct err *run(char **argv)
{
	struct elf_mapping binary CLEANUP(elf_mapping_deinit) = {0};
	struct elf_mapping debug CLEANUP(elf_mapping_deinit) = {0};
	struct elf_mapping supplement CLEANUP(elf_mapping_deinit) = {0};
	struct elf_mapping package CLEANUP(elf_mapping_deinit) = {0};
	struct split_search search CLEANUP(split_search_deinit) = {.binary = &binary};
	struct buf bytes CLEANUP(buf_deinit) = {0};
	struct table table;
	uint64_t total = 0;
	size_t count = 0;

	TRY(elf_mapping_open(argv[1], &binary));
	if (strcmp(argv[2], "-") != 0)
		TRY(elf_mapping_open(argv[2], &debug));
	TRY(supplement_find(debug.bytes ? &debug : &binary, NULL, &supplement));
	TRY(split_package_find(&binary, &package));
	const struct build_image split = {.bytes = package.bytes, .len = package.len, .name = package.path};
	const struct build_options options = {
		.binary = {.bytes = binary.bytes, .len = binary.len, .name = binary.path},
		.debug = {.bytes = debug.bytes, .len = debug.len, .name = debug.path},
		.supplement = {.bytes = supplement.bytes, .len = supplement.len, .name = supplement.path},
		.splits = &split,
		.split_count = package.bytes ? 1 : 0,
		.find_split = split_search_find,
		.find_split_context = &search,
	};
	TRY(build_table(&options, &bytes, NULL));
	TRY(table_open(bytes.data, bytes.len, &table));
	FILE *list = fopen(argv[3], "w");
	if (!list)
		return err_new(ERR_OS, "%s: cannot be written", argv[3]);
	const struct elffile_range *ranges = elffile_code_ranges(binary.elf, &count);
	for (size_t i = 0; i < count; i++)
		total += ranges[i].high - ranges[i].low;
	const uint64_t step = total / ADDRESSES_MAX + 1;
	for (size_t i = 0; i < count; i++)
		for (uint64_t vaddr = ranges[i].low; vaddr < ranges[i].high; vaddr += step) {
			fprintf(list, "0x%" PRIx64 "\n", vaddr - elffile_base(binary.elf));
			print_chain(&table, vaddr - elffile_base(binary.elf));
		}
	fclose(list);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: build_chains FILE DEBUG|- ADDRESSES\n");
		return 2;
	}
	struct err *e = run(argv);
	if (e)
		fprintf(stderr, "build_chains: %s\n", err_message(e));
	int status = e ? 1 : 0;
	err_free(e);
	return status;
}

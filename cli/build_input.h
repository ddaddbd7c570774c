// SPDX-License-Identifier: Apache-2.0
/*
 * From a path to a table in memory, as `table build`, `addr2line` and `verify` need it: the file mapped, its debug file
 * found, the builder run.
 */
#ifndef CAIRN_CLI_BUILD_INPUT_H
#define CAIRN_CLI_BUILD_INPUT_H

#include "base/buf.h"
#include "cli/cli.h"
#include "symbolizer/build/build.h"
#include "symbolizer/build/debug_file.h"

struct build_input {
	struct elf_mapping binary;
	struct elf_mapping debug; /* bytes NULL: none */
	struct elf_mapping supplement; /* of the debug file, else of the binary (dwz); likewise */
	struct elf_mapping package;    /* .dwp of one of the two (split DWARF); likewise. .dwo files are found while it is built */
};

/**
 * Maps @p path and the debug file: the one named by @p debug_path, else the one found as gdb finds it.
 * @param debug_path  NULL: search
 * @param package_path  the .dwp; NULL: the one beside the binary or the debug file
 * @return NULL; as elf_mapping_open and debug_file_find. Release with build_input_deinit, which CLEANUP can call.
 */
struct err *build_input_open(const char *path, const char *debug_path, const char *package_path, struct build_input *ret) MUST_USE;
void build_input_deinit(struct build_input *input);

/** Builds the table, with progress on a terminal. @p stats may be NULL. */
struct err *build_input_table(const struct build_input *input, unsigned threads, struct buf *ret, struct build_stats *stats)
	MUST_USE;

#endif

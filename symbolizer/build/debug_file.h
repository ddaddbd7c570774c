// SPDX-License-Identifier: Apache-2.0
/*
 * Finding the debug file of a binary as gdb does (GDB manual, "Debugging Information in Separate Files"):
 *     <debug dir>/.build-id/xx/yyyy.debug     for each debug directory, by the GNU build ID
 *     <dir of the binary>/<link>              .gnu_debuglink, its CRC checked
 *     <dir of the binary>/.debug/<link>
 *     <debug dir>/<dir of the binary>/<link>
 *     <debug dir>/boot/vmlinux-<release>, ..  for Linux kernels and modules (kernel_debug_path), the build ID checked
 * and what goes with it: the supplement (dwz), the .dwp or .dwo files (split DWARF).
 * This opens paths: programs at a prompt use it, the sandboxed worker does not.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_DEBUG_FILE_H
#define CAIRN_SYMBOLIZER_BUILD_DEBUG_FILE_H

#include "symbolizer/build/build.h"
#include "symbolizer/build/elf_file.h"
#include "symbolizer/build/kernel_image.h"

enum { DEBUG_FILE_DIRS_MAX = 64 };

/* A file mapped read-only, or what was packed in it, opened as ELF. Zero-initialized: nothing. */
struct elf_mapping {
	char *path;
	const uint8_t *bytes;
	size_t len;
	struct elffile *elf;
	struct kernel_image packed; /* where bytes lie when the file is a packed kernel or module; else empty */
	bool is_packed;
};

/**
 * Maps the regular file at @p path and opens it as ELF. A packed kernel or module (kernel_image.h) is unpacked into memory.
 * @param ret  the caller's; elf_mapping_deinit
 * @return NULL; ERR_OS; ERR_FORMAT (empty files and directories too); ERR_LIMIT; ERR_UNSUPPORTED: a bare kernel image; ERR_NOMEM.
 *         Any thread.
 */
struct err *elf_mapping_open(const char *path, struct elf_mapping *ret) MUST_USE;
/** The same, but a bare kernel image is no error: `bytes` and `elf` are NULL, and `packed` says what is known of it. */
struct err *elf_mapping_open_any(const char *path, struct elf_mapping *ret) MUST_USE;
/** For CLEANUP too. */
void elf_mapping_deinit(struct elf_mapping *mapping);

struct debug_file_search {
	const char *debug_file;	       /* NULL: search; else this file, which must belong to the binary */
	const char *const *debug_dirs; /* NULL: /usr/lib/debug only */
	size_t debug_dir_count;
};

/* ---- debug files ---- */

/**
 * The separate debug file of @p binary.
 * @param search  NULL: defaults
 * @param ret     bytes NULL when there is none (a miss is no error); the caller's
 * @return NULL; ERR_MISMATCH: a file was named, or stands where one belongs, but its build ID or CRC is another's (both values are
 *         told) and no right one was found; ERR_FORMAT, ERR_OS likewise for one that cannot be read; ERR_NOMEM. Any thread.
 *         Reads the whole of a file found by link, for its CRC.
 */
struct err *debug_file_find(const struct elf_mapping *binary, const struct debug_file_search *search, struct elf_mapping *ret)
	MUST_USE;

/**
 * The supplement that @p file (a debug file, or a binary with its own DWARF) names (dwz). Looked for at the path that is named, from
 * the file's folder if it is relative, and under each folder above the file (an unpacked package keeps the tree); then in each debug
 * directory by build ID and as .dwz/<the end of the path>. What has another build ID is passed over.
 * @param search  debug_dirs only; NULL: defaults
 * @param ret     bytes NULL when none is named or found
 * @return NULL; ERR_MISMATCH, ERR_FORMAT, ERR_OS, ERR_NOMEM as above. Any thread.
 */
struct err *supplement_find(const struct elf_mapping *file, const struct debug_file_search *search, struct elf_mapping *ret)
	MUST_USE;

/* ---- split DWARF ---- */

/**
 * The package of @p file's split units: <path>.dwp, or the same without a last ".debug".
 * @param ret  bytes NULL when there is none
 * @return NULL; ERR_FORMAT, ERR_OS: it is there and cannot be read; ERR_NOMEM. Any thread.
 */
struct err *split_package_find(const struct elf_mapping *file, struct elf_mapping *ret) MUST_USE;

/* The .dwo files that a build asked for. Zeroed at first, but for binary. */
struct split_search {
	const struct elf_mapping *binary; /* beside it is looked, too */
	struct elf_mapping *found;
	size_t count, cap;
};

/**
 * build_options.find_split, with a struct split_search as its context. Where the compiler put it; then the same name from the binary's
 * folder; then its last part there. One that is no ELF file is passed over. Whether its units are the right ones is for the build to see.
 * @return NULL; ERR_NOMEM.
 */
struct err *split_search_find(void *context, const struct build_split_name *wanted, struct build_image *ret) MUST_USE;
void split_search_deinit(struct split_search *search);

#endif

// SPDX-License-Identifier: Apache-2.0
/* What ties an ELF file to others. Read once by elf_file.c, which answers for it. */
#ifndef CAIRN_SYMBOLIZER_BUILD_ELF_LINKS_H
#define CAIRN_SYMBOLIZER_BUILD_ELF_LINKS_H

#include "symbolizer/build/elf_file.h"

struct elf_links {
	struct build_id build_id; /* len 0: none */
	struct elffile_debuglink debuglink;
	const char *altlink; /* NULL: none; borrowed from the image */
	struct build_id altlink_id;
};

/**
 * @param file  its sections are known
 * @param ret   zeroed; what is not there stays so
 * @return NULL; ERR_FORMAT: a link that is none. O(notes).
 */
struct err *elf_links_read(const struct elffile *file, struct elf_links *ret) MUST_USE;

#endif

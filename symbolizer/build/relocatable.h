// SPDX-License-Identifier: Apache-2.0
/*
 * Relocatable files (ET_REL: .o, .ko): where their sections would lie in memory, and their debug sections with the relocations
 * applied. For elf_file.c, which hands out what comes of it.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_RELOCATABLE_H
#define CAIRN_SYMBOLIZER_BUILD_RELOCATABLE_H

#include "symbolizer/build/elf_file.h"

enum {
	RELOCATABLE_BASE = 1 << 30,	 /* where the first section lies inside the builder; a table begins at 0 */
	RELOCATABLE_BYTES_MAX = 1 << 30, /* all allocated sections together */
	RELOCATABLE_ALIGN_MAX = 1 << 20,
};

/**
 * Gives every allocated section its address and notes which of the others have relocations.
 * @param sections  of an ET_REL file; vaddr and relocations are written
 * @return NULL; ERR_FORMAT: an alignment that is no power of two or past RELOCATABLE_ALIGN_MAX, two tables of relocations for one
 *         section; ERR_LIMIT: past RELOCATABLE_BYTES_MAX. O(sections).
 */
struct err *relocatable_lay_out(struct elffile_section *sections, size_t count, const char *name) MUST_USE;

/**
 * Applies the relocations of a section to @p data, a copy of its bytes.
 * @return NULL; ERR_UNSUPPORTED: a machine or relocation that is not known; ERR_FORMAT: a table that does not fit its
 *         section or symbols. Any thread. O(relocations). Source: gABI "Relocation"; the psABI of each machine.
 */
struct err *relocatable_apply(const struct elffile *file, const struct elffile_section *section, uint8_t *data) MUST_USE;

#endif

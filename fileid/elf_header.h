// SPDX-License-Identifier: Apache-2.0
/*
 * The parts of the ELF header tables that identity needs, read by our own bounded reader for both classes and byte
 * orders. Source: ELF gABI, "ELF Header", "Program Header", "Sections". Used by this folder only.
 */
#ifndef CAIRN_FILEID_ELF_HEADER_H
#define CAIRN_FILEID_ELF_HEADER_H

#include "base/err.h"
#include "base/reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf_header {
	const uint8_t *bytes;
	size_t len;
	const char *name; /* for errors */
	bool is_64, big_endian;
	uint64_t program_foff, section_foff;
	uint32_t program_count, section_count; /* extended numbering resolved */
	uint16_t program_size, section_size;   /* bytes of one entry */
	uint32_t names_index;		       /* of the section with the sections' names; 0: none */
};

struct elf_segment {
	uint32_t type, flags;
	uint64_t foff, vaddr, file_size, align;
};

struct elf_section_header {
	uint32_t name, type; /* name: offset in the section with the names */
	uint64_t foff, size, align;
};

/**
 * Reads and checks the ELF header: magic, class, order, and that both tables lie inside the file.
 * @return NULL; ERR_FORMAT. Any thread. O(1).
 */
struct err *elf_header_read(const void *bytes, size_t len, const char *name, struct elf_header *ret) MUST_USE;
/** Entry @p index, which must be under program_count: the table is known to be in bounds. */
struct elf_segment elf_header_segment(const struct elf_header *header, uint32_t index);
/** Entry @p index, which must be under section_count. */
struct elf_section_header elf_header_section(const struct elf_header *header, uint32_t index);
/** Whether a section of that name is there and has bytes in the file. O(sections). */
bool elf_header_has_section(const struct elf_header *header, const char *name);
/** A reader of bytes [foff, foff + size) of the file, cut where the file ends; failed when foff lies past the end. */
struct reader elf_header_reader(const struct elf_header *header, uint64_t foff, uint64_t size);

#endif

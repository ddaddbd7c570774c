// SPDX-License-Identifier: Apache-2.0
/*
 * Small ELF images for tests: headers of either class and byte order around segments and sections that the test gives.
 */
#ifndef CAIRN_TESTS_ELF_MAKER_H
#define CAIRN_TESTS_ELF_MAKER_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MAKER_BYTES = 16384 };

struct elf_maker {
	uint8_t bytes[MAKER_BYTES];
	size_t len;
	bool is_64, big_endian;
};

static inline void maker_put_at(struct elf_maker *m, size_t at, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		m->bytes[at + (m->big_endian ? size - 1 - i : i)] = (uint8_t)(value >> (8 * i));
}

static inline void maker_put(struct elf_maker *m, uint64_t value, unsigned size)
{
	maker_put_at(m, m->len, value, size);
	m->len += size;
}

static inline void maker_word(struct elf_maker *m, uint64_t value)
{
	maker_put(m, value, m->is_64 ? 8 : 4);
}

static inline void maker_bytes(struct elf_maker *m, const void *bytes, size_t len)
{
	memcpy(m->bytes + m->len, bytes, len);
	m->len += len;
}

static inline void maker_pad(struct elf_maker *m, size_t align)
{
	m->len = (m->len + align - 1) / align * align;
}

/* The ELF header; tables are attached later by maker_programs_at and maker_sections_at. */
static inline void maker_start(struct elf_maker *m, bool is_64, bool big_endian)
{
	static const uint8_t magic[] = {0x7f, 'E', 'L', 'F'};

	memset(m, 0, sizeof(*m));
	m->is_64 = is_64;
	m->big_endian = big_endian;
	memcpy(m->bytes, magic, sizeof(magic));
	m->bytes[EI_CLASS] = is_64 ? ELFCLASS64 : ELFCLASS32;
	m->bytes[EI_DATA] = big_endian ? ELFDATA2MSB : ELFDATA2LSB;
	m->bytes[EI_VERSION] = EV_CURRENT;
	m->len = EI_NIDENT;
	maker_put(m, ET_DYN, 2);
	maker_put(m, is_64 ? EM_X86_64 : EM_386, 2);
	maker_put(m, EV_CURRENT, 4);
	maker_word(m, 0); /* e_entry */
	maker_word(m, 0); /* e_phoff */
	maker_word(m, 0); /* e_shoff */
	maker_put(m, 0, 4);
	maker_put(m, is_64 ? 64 : 52, 2);
	maker_put(m, is_64 ? 56 : 32, 2);
	maker_put(m, 0, 2); /* e_phnum */
	maker_put(m, is_64 ? 64 : 40, 2);
	maker_put(m, 0, 2); /* e_shnum */
	maker_put(m, 0, 2);
}

static inline void maker_programs_at(struct elf_maker *m, uint64_t foff, uint16_t count)
{
	maker_put_at(m, m->is_64 ? 32 : 28, foff, m->is_64 ? 8 : 4);
	maker_put_at(m, m->is_64 ? 56 : 44, count, 2);
}

static inline void maker_sections_at(struct elf_maker *m, uint64_t foff, uint16_t count)
{
	maker_put_at(m, m->is_64 ? 40 : 32, foff, m->is_64 ? 8 : 4);
	maker_put_at(m, m->is_64 ? 60 : 48, count, 2);
}

static inline void maker_program(struct elf_maker *m, uint32_t type, uint32_t flags, uint64_t foff, uint64_t vaddr,
	uint64_t size, uint64_t align)
{
	maker_put(m, type, 4);
	if (m->is_64)
		maker_put(m, flags, 4);
	maker_word(m, foff);
	maker_word(m, vaddr);
	maker_word(m, vaddr);
	maker_word(m, size);
	maker_word(m, size);
	if (!m->is_64)
		maker_put(m, flags, 4);
	maker_word(m, align);
}

static inline void maker_section(struct elf_maker *m, uint32_t type, uint64_t foff, uint64_t size, uint32_t info,
	uint64_t align)
{
	maker_put(m, 0, 4);
	maker_put(m, type, 4);
	maker_word(m, 0);
	maker_word(m, 0);
	maker_word(m, foff);
	maker_word(m, size);
	maker_put(m, 0, 4);
	maker_put(m, info, 4);
	maker_word(m, align);
	maker_word(m, 0);
}

/* One note, padded to @p align. */
static inline void maker_note(struct elf_maker *m, const char *name, uint32_t type, const void *desc, size_t desc_len,
	size_t align)
{
	size_t start = m->len;

	maker_put(m, strlen(name) + 1, 4);
	maker_put(m, desc_len, 4);
	maker_put(m, type, 4);
	maker_bytes(m, name, strlen(name) + 1);
	m->len = start + (m->len - start + align - 1) / align * align;
	maker_bytes(m, desc, desc_len);
	m->len = start + (m->len - start + align - 1) / align * align;
}

#endif

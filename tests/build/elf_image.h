// SPDX-License-Identifier: Apache-2.0
/*
 * Small ELF images with sections, for tests: what the test gives, in either class and byte order, then the string table of
 * section names, then the section headers. Fixed memory, no allocation; a test can patch any byte afterwards.
 *     struct elf_image image;
 *     image_begin(&image, true, false);
 *     image_section(&image, ".debug_info", SHT_PROGBITS, 0, 0, bytes, len);
 *     image_finish(&image);
 */
#ifndef CAIRN_TESTS_BUILD_ELF_IMAGE_H
#define CAIRN_TESTS_BUILD_ELF_IMAGE_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_BYTES = 1 << 18, IMAGE_SECTIONS = 48, IMAGE_NAMES = 2048 };

struct image_header {
	uint32_t name, type, link, info;
	uint64_t flags, vaddr, foff, size, entry_size;
};

struct elf_image {
	uint8_t bytes[IMAGE_BYTES];
	size_t len;
	bool is_64, big_endian;
	struct image_header headers[IMAGE_SECTIONS];
	uint16_t count;
	char names[IMAGE_NAMES];
	uint32_t names_len;
	size_t table_at; /* of the section headers, once finished */
};

static inline void image_put_at(struct elf_image *m, size_t at, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		m->bytes[at + (m->big_endian ? size - 1 - i : i)] = (uint8_t)(value >> (8 * i));
}

static inline void image_put(struct elf_image *m, uint64_t value, unsigned size)
{
	if (m->len + size > IMAGE_BYTES)
		abort();
	image_put_at(m, m->len, value, size);
	m->len += size;
}

static inline void image_word(struct elf_image *m, uint64_t value)
{
	image_put(m, value, m->is_64 ? 8 : 4);
}

static inline void image_bytes(struct elf_image *m, const void *bytes, size_t len)
{
	if (m->len + len > IMAGE_BYTES)
		abort();
	if (len > 0)
		memcpy(m->bytes + m->len, bytes, len);
	m->len += len;
}

/* The ELF header, ET_DYN for x86-64 or i386, and section 0. */
static inline void image_begin(struct elf_image *m, bool is_64, bool big_endian)
{
	memset(m, 0, sizeof(*m));
	m->is_64 = is_64;
	m->big_endian = big_endian;
	memcpy(m->bytes, ELFMAG, SELFMAG);
	m->bytes[EI_CLASS] = is_64 ? ELFCLASS64 : ELFCLASS32;
	m->bytes[EI_DATA] = big_endian ? ELFDATA2MSB : ELFDATA2LSB;
	m->bytes[EI_VERSION] = EV_CURRENT;
	m->len = EI_NIDENT;
	image_put(m, ET_DYN, 2);
	image_put(m, is_64 ? EM_X86_64 : EM_386, 2);
	image_put(m, EV_CURRENT, 4);
	image_word(m, 0);		    /* e_entry */
	image_word(m, 0);		    /* e_phoff */
	image_word(m, 0);		    /* e_shoff */
	image_put(m, 0, 4);		    /* e_flags */
	image_put(m, is_64 ? 64 : 52, 2);   /* e_ehsize */
	image_put(m, is_64 ? 56 : 32, 2);   /* e_phentsize */
	image_put(m, 0, 2);		    /* e_phnum */
	image_put(m, is_64 ? 64 : 40, 2);   /* e_shentsize */
	image_put(m, 0, 2);		    /* e_shnum */
	image_put(m, 0, 2);		    /* e_shstrndx */
	m->count = 1;
	m->names_len = 1;
}

/* Adds a section with its bytes (NULL: SHT_NOBITS of that size); the answer is its header, to change before image_finish. */
static inline struct image_header *image_section(struct elf_image *m, const char *name, uint32_t type, uint64_t flags,
	uint64_t vaddr, const void *bytes, size_t len)
{
	size_t name_size = strlen(name) + 1;

	if (m->count == IMAGE_SECTIONS || m->names_len + name_size > IMAGE_NAMES)
		abort();
	while (m->len % 8 != 0)
		image_put(m, 0, 1);
	struct image_header *header = &m->headers[m->count++];
	*header = (struct image_header){
		.name = m->names_len, .type = type, .flags = flags, .vaddr = vaddr, .foff = m->len, .size = len};
	memcpy(m->names + m->names_len, name, name_size);
	m->names_len += (uint32_t)name_size;
	if (bytes)
		image_bytes(m, bytes, len);
	return header;
}

/* Writes the names and the section headers. */
static inline void image_finish(struct elf_image *m)
{
	uint16_t names = m->count;
	struct image_header *header = image_section(m, ".shstrtab", SHT_STRTAB, 0, 0, NULL, 0);

	header->size = m->names_len;
	image_bytes(m, m->names, m->names_len);
	while (m->len % 8 != 0)
		image_put(m, 0, 1);
	m->table_at = m->len;
	for (uint16_t i = 0; i < m->count; i++) {
		const struct image_header *h = &m->headers[i];

		image_put(m, h->name, 4);
		image_put(m, h->type, 4);
		image_word(m, h->flags);
		image_word(m, h->vaddr);
		image_word(m, h->foff);
		image_word(m, h->size);
		image_put(m, h->link, 4);
		image_put(m, h->info, 4);
		image_word(m, 1);
		image_word(m, h->entry_size);
	}
	image_put_at(m, m->is_64 ? 40 : 32, m->table_at, m->is_64 ? 8 : 4);
	image_put_at(m, m->is_64 ? 60 : 48, m->count, 2);
	image_put_at(m, m->is_64 ? 62 : 50, names, 2);
}

/* Where field @p field64 (offset in a 64-bit section header, which is @p field32 in a 32-bit one) of section @p index lies. */
static inline size_t image_field(const struct elf_image *m, unsigned index, size_t field64, size_t field32)
{
	return m->table_at + index * (m->is_64 ? 64U : 40U) + (m->is_64 ? field64 : field32);
}

/* One symbol table entry at the end of the image (or of a table that the test builds in a scratch image). */
static inline void image_symbol(struct elf_image *m, uint32_t name, uint8_t info, uint16_t section, uint64_t value, uint64_t size)
{
	image_put(m, name, 4);
	if (m->is_64) {
		image_put(m, info, 1);
		image_put(m, 0, 1);
		image_put(m, section, 2);
		image_put(m, value, 8);
		image_put(m, size, 8);
	} else {
		image_put(m, value, 4);
		image_put(m, size, 4);
		image_put(m, info, 1);
		image_put(m, 0, 1);
		image_put(m, section, 2);
	}
}
#endif

// SPDX-License-Identifier: Apache-2.0
#include "fileid/elf_header.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

struct reader elf_header_reader(const struct elf_header *header, uint64_t foff, uint64_t size)
{
	struct reader r = reader_init(header->bytes, header->len, header->big_endian, header->name);

	reader_bytes(&r, foff);
	if (!r.failed && size < reader_left(&r))
		r.end = r.pos + size;
	return r;
}

/* An address, offset or size: as wide as the class. */
static uint64_t read_word(struct reader *r, bool is_64)
{
	return is_64 ? reader_u64(r) : reader_u32(r);
}

struct elf_section_header elf_header_section(const struct elf_header *header, uint32_t index)
{
	uint64_t foff = header->section_foff + (uint64_t)index * header->section_size;
	struct reader r = elf_header_reader(header, foff, header->section_size);
	struct elf_section_header section;

	section.name = reader_u32(&r);
	section.type = reader_u32(&r);
	read_word(&r, header->is_64); /* sh_flags */
	read_word(&r, header->is_64); /* sh_addr */
	section.foff = read_word(&r, header->is_64);
	section.size = read_word(&r, header->is_64);
	reader_u32(&r); /* sh_link */
	reader_u32(&r); /* sh_info */
	section.align = read_word(&r, header->is_64);
	return section;
}

struct elf_segment elf_header_segment(const struct elf_header *header, uint32_t index)
{
	uint64_t foff = header->program_foff + (uint64_t)index * header->program_size;
	struct reader r = elf_header_reader(header, foff, header->program_size);
	struct elf_segment segment;

	segment.type = reader_u32(&r);
	if (header->is_64)
		segment.flags = reader_u32(&r);
	segment.foff = read_word(&r, header->is_64);
	segment.vaddr = read_word(&r, header->is_64);
	read_word(&r, header->is_64); /* p_paddr */
	segment.file_size = read_word(&r, header->is_64);
	read_word(&r, header->is_64); /* p_memsz */
	if (!header->is_64)
		segment.flags = reader_u32(&r);
	segment.align = read_word(&r, header->is_64);
	return segment;
}

static struct err *read_ident(struct elf_header *header)
{
	const uint8_t *ident = header->bytes;

	if (header->len < EI_NIDENT || memcmp(ident, ELFMAG, SELFMAG) != 0)
		return err_new(ERR_FORMAT, "%s: not an ELF file", header->name);
	if (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64)
		return err_new(ERR_FORMAT, "%s: unknown ELF class %u", header->name, ident[EI_CLASS]);
	if (ident[EI_DATA] != ELFDATA2LSB && ident[EI_DATA] != ELFDATA2MSB)
		return err_new(ERR_FORMAT, "%s: unknown ELF byte order %u", header->name, ident[EI_DATA]);
	header->is_64 = ident[EI_CLASS] == ELFCLASS64;
	header->big_endian = ident[EI_DATA] == ELFDATA2MSB;
	return NULL;
}

static struct err *check_table(const struct elf_header *header, const char *what, uint64_t foff, uint32_t count,
	uint16_t entry_size, size_t least_size)
{
	if (count == 0)
		return NULL;
	if (entry_size < least_size)
		return err_new(ERR_FORMAT, "%s: %s headers of %u bytes, expected %zu", header->name, what, entry_size,
			least_size);
	uint64_t size = (uint64_t)count * entry_size;
	if (foff > header->len || size > header->len - foff)
		return err_new(ERR_FORMAT, "%s: %u %s headers at offset 0x%" PRIx64 " pass the end of the file (0x%zx bytes)",
			header->name, count, what, foff, header->len);
	return NULL;
}

/* Counts that do not fit into 16 bits stand in section 0 (gABI: e_shnum 0, e_phnum PN_XNUM). */
static struct err *resolve_counts(struct elf_header *header)
{
	size_t least = header->is_64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	bool many_segments = header->program_count == PN_XNUM;
	bool many_sections = header->section_count == 0 && header->section_foff != 0 && header->section_size != 0;

	if (!many_segments && !many_sections)
		return NULL;
	if (header->section_foff == 0)
		return err_new(ERR_FORMAT, "%s: the program header count is in section 0, which is missing", header->name);
	TRY(check_table(header, "section", header->section_foff, 1, header->section_size, least));
	uint64_t foff = header->section_foff;
	struct elf_section_header first = elf_header_section(header, 0);
	if (many_sections) {
		if (first.size > UINT32_MAX)
			return err_new(ERR_FORMAT, "%s: %" PRIu64 " sections", header->name, first.size);
		header->section_count = (uint32_t)first.size;
	}
	if (many_segments) {
		struct reader r = elf_header_reader(header, foff + (header->is_64 ? 44 : 28), 4);
		header->program_count = reader_u32(&r); /* sh_info */
	}
	return NULL;
}

bool elf_header_has_section(const struct elf_header *header, const char *name)
{
	size_t len = strlen(name) + 1;

	if (header->names_index >= header->section_count)
		return false;
	struct elf_section_header names = elf_header_section(header, header->names_index);
	for (uint32_t i = 0; i < header->section_count; i++) {
		struct elf_section_header section = elf_header_section(header, i);
		if (section.type == SHT_NOBITS || section.size == 0 || section.name >= names.size)
			continue;
		struct reader r = elf_header_reader(header, names.foff, names.size);
		reader_skip(&r, section.name);
		const uint8_t *found = reader_bytes(&r, len);
		if (found && memcmp(found, name, len) == 0)
			return true;
	}
	return false;
}

struct err *elf_header_read(const void *bytes, size_t len, const char *name, struct elf_header *ret)
{
	struct elf_header header = {.bytes = bytes, .len = len, .name = name};

	TRY(read_ident(&header));
	struct reader r = elf_header_reader(&header, EI_NIDENT, UINT64_MAX);
	reader_bytes(&r, 8);		/* e_type, e_machine, e_version */
	read_word(&r, header.is_64);	/* e_entry */
	header.program_foff = read_word(&r, header.is_64);
	header.section_foff = read_word(&r, header.is_64);
	reader_bytes(&r, 6);		/* e_flags, e_ehsize */
	header.program_size = reader_u16(&r);
	header.program_count = reader_u16(&r);
	header.section_size = reader_u16(&r);
	header.section_count = reader_u16(&r);
	header.names_index = reader_u16(&r); /* SHN_XINDEX passes every count of sections that we look into */
	if (r.failed)
		return err_new(ERR_FORMAT, "%s: the ELF header is cut short", name);
	TRY(resolve_counts(&header));
	TRY(check_table(&header, "program", header.program_foff, header.program_count, header.program_size,
		header.is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)));
	TRY(check_table(&header, "section", header.section_foff, header.section_count, header.section_size,
		header.is_64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr)));
	*ret = header;
	return NULL;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * What ties an ELF file to others: build ID, links to debug file and supplement. Sections of the image are read in place.
 * Sources: gABI "Note Section"; GDB manual, "Debugging Information in Separate Files"; DWARF 5, 7.3.6.
 */
#include "symbolizer/build/elf_links.h"

#include <elf.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

enum { NAME_SHOWN = 200 };

static struct reader stored_bytes(const struct elffile *file, const struct elffile_section *section)
{
	size_t len;
	const uint8_t *bytes = elffile_bytes(file, &len);

	return reader_init(bytes + section->foff, section->stored_size, elffile_big_endian(file), elffile_name(file));
}

static struct err *link_error(const struct elffile *file, const struct elffile_section *section, const char *what)
{
	return err_new(ERR_FORMAT, "%s: section %" PRIu32 " (%.*s): %s", elffile_name(file), section->index, NAME_SHOWN, section->name,
		what);
}

/* Build IDs among the notes of one section (gABI "Note Section"); a damaged note ends the search. */
static void find_build_ids(const struct elffile *file, const struct elffile_section *section, struct elf_ids *ids)
{
	struct reader r = stored_bytes(file, section);

	while (reader_left(&r) >= 12) {
		uint32_t name_len = reader_u32(&r);
		uint32_t desc_len = reader_u32(&r);
		uint32_t type = reader_u32(&r);
		const uint8_t *name = reader_bytes(&r, name_len);
		reader_skip(&r, -name_len & 3);
		const uint8_t *desc = reader_bytes(&r, desc_len);

		if (!name || !desc)
			return;
		build_id_take_note(ids, type, name, name_len, desc, desc_len);
		reader_skip(&r, -desc_len & 3);
	}
}

static struct err *read_build_id(const struct elffile *file, struct elf_links *links)
{
	struct elf_ids ids = {0};
	size_t len;
	const uint8_t *bytes = elffile_bytes(file, &len);

	for (size_t i = 1; i < elffile_section_count(file) && ids.gnu.len == 0; i++) {
		const struct elffile_section *section = elffile_section(file, i);

		if (section->type == SHT_NOTE && section->codec == CODEC_NONE)
			find_build_ids(file, section, &ids);
	}
	if (elffile_section_count(file) == 0)
		TRY(build_id_from_elf(bytes, len, elffile_name(file), &ids));
	return build_id_from_ids(&ids, &links->build_id);
}

/* .gnu_debuglink: a file name, NUL, up to the next multiple of 4, CRC. One with a directory in it is refused. */
static struct err *read_debuglink(const struct elffile *file, struct elf_links *links)
{
	const struct elffile_section *section = elffile_find(file, ".gnu_debuglink");

	if (!section || section->stored_size == 0 || section->codec != CODEC_NONE)
		return NULL;
	struct reader r = stored_bytes(file, section);
	size_t name_len = 0;
	const char *name = reader_text(&r, &name_len);
	reader_skip(&r, -reader_offset(&r) & 3);
	uint32_t crc = reader_u32(&r);
	if (r.failed)
		return link_error(file, section, "truncated");
	if (name_len == 0 || name_len > NAME_MAX || memchr(name, '/', name_len) || strcmp(name, ".") == 0 ||
		strcmp(name, "..") == 0)
		return link_error(file, section, "not a file name");
	links->debuglink = (struct elffile_debuglink){.name = name, .crc = crc};
	return NULL;
}

/* .gnu_debugaltlink: a path, NUL, the build ID of that file. */
static struct err *read_altlink(const struct elffile *file, struct elf_links *links)
{
	const struct elffile_section *section = elffile_find(file, ".gnu_debugaltlink");

	if (!section || section->stored_size == 0 || section->codec != CODEC_NONE)
		return NULL;
	struct reader r = stored_bytes(file, section);
	const char *name = reader_text(&r, NULL);
	size_t id_len = reader_left(&r);
	if (!name || id_len == 0 || id_len > BUILD_ID_MAX)
		return link_error(file, section, "not a path and a build ID");
	links->altlink = name;
	links->altlink_id.len = (uint8_t)id_len;
	memcpy(links->altlink_id.bytes, r.pos, id_len);
	return NULL;
}

/* .debug_sup (DWARF 5, 7.3.6): version, whether this is the supplement, the other one's path, a checksum that both carry. */
static struct err *read_debug_sup(const struct elffile *file, struct elf_links *links)
{
	const struct elffile_section *section = elffile_find(file, ".debug_sup");

	if (!section || section->stored_size == 0 || section->codec != CODEC_NONE || links->altlink)
		return NULL;
	struct reader r = stored_bytes(file, section);
	uint16_t version = reader_u16(&r);
	bool is_supplement = reader_u8(&r) != 0;
	const char *name = reader_text(&r, NULL);
	uint64_t len = reader_uleb(&r);
	struct build_id id = {.len = (uint8_t)(len <= BUILD_ID_MAX ? len : 0)};
	const uint8_t *bytes = reader_bytes(&r, id.len);
	if (r.failed || version != 5 || len == 0 || len > BUILD_ID_MAX)
		return link_error(file, section, "not a path and a checksum");
	memcpy(id.bytes, bytes, id.len);
	if (is_supplement) {
		if (links->build_id.len == 0)
			links->build_id = id;
		return NULL;
	}
	links->altlink = name;
	links->altlink_id = id;
	return NULL;
}

struct err *elf_links_read(const struct elffile *file, struct elf_links *ret)
{
	TRY(read_build_id(file, ret));
	TRY(read_debuglink(file, ret));
	TRY(read_altlink(file, ret));
	return read_debug_sup(file, ret);
}

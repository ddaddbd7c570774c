// SPDX-License-Identifier: Apache-2.0
/*
 * Notes are records of three 32-bit words (name size, descriptor size, type), the name and the descriptor, both padded
 * (gABI, "Note Section"). The padding is to 4 bytes whatever the class, but to 8 where the segment or section is aligned
 * to 8 (as .note.gnu.property is on x86-64); other alignments above 8 are not notes that anyone writes.
 *
 * Segments come first, for they are what a process has. A debug file made by eu-strip keeps the segment table of the
 * runtime file, whose offsets then point anywhere: a segment that is out of bounds, or holds no sound note, is therefore
 * no error but leaves the word to the sections. A note that passes the end of its segment ends the walk of that segment.
 */
#include "fileid/build_id.h"

#include "base/digest.h"
#include "base/hex.h"
#include "fileid/elf_header.h"

#include <elf.h>
#include <string.h>

/* Of one file. libjvm.so has some hundreds (probe notes); overlapping segments could else be walked for hours. */
enum { NOTES_MAX = 1 << 20 };

enum { NOTE_GO_BUILD_ID = 4, GO_GNU_BUILD_ID_BYTES = 20 };

struct note_walk {
	const struct elf_header *header;
	struct elf_ids *ids;
	uint32_t notes;
};

static void take_go_id(struct elf_ids *ids, const uint8_t *text, size_t len)
{
	len = strnlen((const char *)text, len);
	if (ids->go[0] || len > GO_BUILD_ID_MAX)
		return;
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return;
	memcpy(ids->go, text, len);
	ids->go[len] = 0;
}

static void take_gnu_id(struct elf_ids *ids, const uint8_t *bytes, size_t len)
{
	if (ids->gnu.len > 0 || len == 0 || len > BUILD_ID_MAX)
		return;
	ids->gnu.len = (uint8_t)len;
	memcpy(ids->gnu.bytes, bytes, len);
}

void build_id_take_note(struct elf_ids *ids, uint32_t type, const void *name, size_t name_len, const void *desc, size_t desc_len)
{
	if (name_len == 4 && memcmp(name, "GNU", 4) == 0 && type == NT_GNU_BUILD_ID)
		take_gnu_id(ids, desc, desc_len);
	else if (name_len == 4 && memcmp(name, "Go\0", 4) == 0 && type == NOTE_GO_BUILD_ID)
		take_go_id(ids, desc, desc_len);
}

/* Skips what fills @p size up to a multiple of @p align; the last record's padding may be missing. */
static void skip_padding(struct reader *r, uint64_t size, uint64_t align)
{
	uint64_t padding = (align - size % align) % align;

	reader_bytes(r, padding < reader_left(r) ? padding : reader_left(r));
}

static struct err *walk_notes(struct note_walk *walk, uint64_t foff, uint64_t size, uint64_t align)
{
	struct reader r = elf_header_reader(walk->header, foff, size);

	align = align == 8 ? 8 : 4;
	while (!r.failed && reader_left(&r) >= sizeof(Elf64_Nhdr)) {
		if (walk->notes++ == NOTES_MAX)
			return err_new(ERR_LIMIT, "%s: more than %d notes", walk->header->name, NOTES_MAX);
		uint32_t name_size = reader_u32(&r);
		uint32_t desc_size = reader_u32(&r);
		uint32_t type = reader_u32(&r);
		const uint8_t *name = reader_bytes(&r, name_size);
		skip_padding(&r, sizeof(Elf64_Nhdr) + (uint64_t)name_size, align);
		const uint8_t *desc = reader_bytes(&r, desc_size);
		if (r.failed)
			break;
		build_id_take_note(walk->ids, type, name, name_size, desc, desc_size);
		skip_padding(&r, desc_size, align);
	}
	return NULL;
}

struct err *build_id_from_elf(const void *bytes, size_t len, const char *name, struct elf_ids *ret)
{
	struct elf_header header;
	struct elf_ids ids = {0};
	struct note_walk walk = {.header = &header, .ids = &ids};

	TRY(elf_header_read(bytes, len, name, &header));
	for (uint32_t i = 0; i < header.program_count; i++) {
		struct elf_segment segment = elf_header_segment(&header, i);
		if (segment.type == PT_NOTE)
			TRY(walk_notes(&walk, segment.foff, segment.file_size, segment.align));
	}
	for (uint32_t i = 0; i < header.section_count && (ids.gnu.len == 0 || !ids.go[0]); i++) {
		struct elf_section_header section = elf_header_section(&header, i);
		if (section.type == SHT_NOTE)
			TRY(walk_notes(&walk, section.foff, section.size, section.align));
	}
	*ret = ids;
	return NULL;
}

/* "action/../content": the content part is written into the finished binary; the linker was given the action part in its place. */
static size_t as_linked(const char *go, size_t len, char ret[2 * GO_BUILD_ID_MAX])
{
	const char *first = memchr(go, '/', len), *last = memrchr(go, '/', len);

	if (!first || first == last) {
		memcpy(ret, go, len);
		return len;
	}
	size_t head = (size_t)(last - go) + 1, action = (size_t)(first - go);
	memcpy(ret, go, head);
	memcpy(ret + head, go, action);
	return head + action;
}

struct err *build_id_from_go(const char *go, size_t len, struct build_id *ret)
{
	char linked[2 * GO_BUILD_ID_MAX];
	struct sha256 digest;

	if (len > GO_BUILD_ID_MAX)
		len = GO_BUILD_ID_MAX;
	TRY(sha256_of(linked, as_linked(go, len, linked), &digest));
	digest.bytes[0] ^= 0xff;
	ret->len = GO_GNU_BUILD_ID_BYTES;
	memcpy(ret->bytes, digest.bytes, GO_GNU_BUILD_ID_BYTES);
	return NULL;
}

struct err *build_id_from_ids(const struct elf_ids *ids, struct build_id *ret)
{
	*ret = ids->gnu;
	return ids->gnu.len == 0 && ids->go[0] ? build_id_from_go(ids->go, strlen(ids->go), ret) : NULL;
}

void build_id_format(const struct build_id *id, char text[BUILD_ID_HEX_SIZE])
{
	hex_format(id->bytes, id->len, text);
}

bool elf_has_debug_info(const void *bytes, size_t len)
{
	struct elf_header header;
	CLEANUP(err_freep) struct err *e = elf_header_read(bytes, len, "file", &header);

	return !e && (elf_header_has_section(&header, ".debug_info") || elf_header_has_section(&header, ".zdebug_info"));
}

bool build_id_parse(const char *text, size_t len, struct build_id *ret)
{
	struct build_id id = {.len = (uint8_t)(len / 2)};

	if (len == 0 || len > 2 * (size_t)BUILD_ID_MAX || !hex_parse(text, len, id.bytes))
		return false;
	*ret = id;
	return true;
}

bool build_id_from_path(const char *path, size_t len, struct build_id *ret)
{
	static const char tree[] = ".build-id/", end[] = ".debug";
	const size_t tree_len = sizeof(tree) - 1, end_len = sizeof(end) - 1;
	const char *at = memmem(path, len, tree, tree_len);
	char hex[BUILD_ID_HEX_SIZE];

	if (!at || (at > path && at[-1] != '/'))
		return false;
	at += tree_len;
	size_t left = len - (size_t)(at - path);
	if (left < 3 + 1 + end_len || left - end_len - 1 >= sizeof(hex) || at[2] != '/' || memcmp(at + left - end_len, end, end_len) != 0)
		return false;
	size_t rest = left - end_len - 3;
	memcpy(hex, at, 2);
	memcpy(hex + 2, at + 3, rest);
	return build_id_parse(hex, 2 + rest, ret);
}

bool build_id_equal(const struct build_id *a, const struct build_id *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The bounded ELF reader.
 *
 * elffile_open reads, in this order, and each step trusts only what the one before has checked:
 *
 *     ELF header      52 or 64 bytes: class, byte order, type, machine, place and size of the section table
 *     section 0       when e_shnum is 0 or e_shstrndx is SHN_XINDEX the true values stand there (gABI "Sections")
 *     section table   e_shnum entries of 40 or 64 bytes, wholly inside the image, not over the ELF header
 *     names           the string table of e_shstrndx; its last byte must be NUL, so every offset inside is a string
 *     compression     SHF_COMPRESSED: Chdr of 12 or 24 bytes {type, [reserved], size, alignment}; legacy .zdebug_*: the
 *                     bytes "ZLIB" and the inflated size as 64 bits big-endian
 *     links           build ID notes, .gnu_debuglink, .gnu_debugaltlink
 *
 * Invariants after it: every section that has bytes lies inside the image; no SHF_ALLOC section's address range wraps; the
 * array of sections is never changed again, so that pointers into it and all accessors need no lock.
 *
 * Inflated bytes are owned by the slot beside each section. A slot goes EMPTY -> LOADING -> READY (or back to EMPTY after an
 * error) under the file's mutex; the inflating itself happens outside, so that distinct sections are inflated by several
 * threads at once, and a second thread that wants the same section waits on the condition variable. The budget of
 * limits.total_bytes is taken before the memory and given back by a release.
 *
 * A bomb costs at most its section's limit; what deflate can never reach (1032 bytes out of one, zlib's technical notes) is
 * refused before any memory is taken. Large sections ask for huge pages: .debug_info of a JVM is 257 MB, of which
 * every 4 KiB page would otherwise be a fault.
 *
 * A relocatable file's sections get addresses of their own (relocatable.c), once, before anything asks for one.
 *
 * A file may have no section table (sstrip, some packers): it then has no sections, and code ranges from its segments.
 */
#include "symbolizer/build/elf_file.h"

#include "base/arena.h"
#include "symbolizer/build/elf_links.h"
#include "symbolizer/build/relocatable.h"

#include <elf.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

/* Defaults of elffile_limits: 64-bit DWARF of more than 4 GiB in one section has not been seen in the wild. */
static const uint64_t default_section_bytes = UINT32_MAX;
static const uint64_t default_total_bytes = (uint64_t)16 << 30;

enum {
	DEFLATE_MAX_RATIO = 1032, /* output bytes a deflate stream can make of one input byte */
	DEFLATE_SLACK = 64 * 1024,
	HUGE_PAGE = 2 << 20,
	HUGE_FROM = 4 << 20, /* sections from this size on use huge pages */
	NAME_SHOWN = 200,    /* of a section's name in errors */
	ZDEBUG_NAME_MAX = 256,
};

enum slot_state {
	SLOT_EMPTY,
	SLOT_LOADING,
	SLOT_READY,
};

struct slot {
	enum slot_state state;
	uint32_t compression; /* ch_type when it is one that we do not know, else 0 */
	uint8_t *data;
	char *place; /* "<file>: <section>", NULL until the first load */
};

struct elffile {
	const uint8_t *bytes;
	size_t len;
	char *name;
	struct elffile_limits limits;
	bool is_64;
	bool big_endian;
	uint16_t type;
	uint16_t machine;
	struct elffile_section *sections;
	size_t section_count;
	struct elffile_range *code;
	size_t code_count;
	struct elf_links links;
	struct arena arena; /* under mutex once the file is open */

	pthread_mutex_t mutex;
	pthread_cond_t loaded;
	struct slot *slots; /* one a section; under mutex */
	uint64_t held_bytes; /* inflated sections, those being inflated included; under mutex */
};

/* What the ELF header says of the section table. */
struct section_table {
	uint64_t foff;
	uint64_t count;
	uint32_t names; /* index of the string table */
	uint32_t entry_size;
};

static struct reader image_reader(const struct elffile *file)
{
	return reader_init(file->bytes, file->len, file->big_endian, file->name);
}

/* An address, offset or size field: 4 bytes in a 32-bit file, 8 in a 64-bit one. */
static uint64_t read_word(struct reader *r, const struct elffile *file)
{
	return file->is_64 ? reader_u64(r) : reader_u32(r);
}

static struct err *section_error(const struct elffile *file, const struct elffile_section *section, enum err_code code,
	const char *what)
{
	return err_new(code, "%s: section %" PRIu32 " (%.*s): %s", file->name, section->index, NAME_SHOWN, section->name, what);
}

static struct err *read_ident(struct elffile *file)
{
	if (file->len == 0)
		return err_new(ERR_FORMAT, "%s: empty file", file->name);
	if (file->len < EI_NIDENT || memcmp(file->bytes, ELFMAG, SELFMAG) != 0)
		return err_new(ERR_FORMAT, "%s: not an ELF file", file->name);
	uint8_t class = file->bytes[EI_CLASS];
	uint8_t data = file->bytes[EI_DATA];

	if (class != ELFCLASS32 && class != ELFCLASS64)
		return err_new(ERR_FORMAT, "%s+0x4: ELF class %u is neither 32 nor 64 bits", file->name, class);
	if (data != ELFDATA2LSB && data != ELFDATA2MSB)
		return err_new(ERR_FORMAT, "%s+0x5: ELF byte order %u is unknown", file->name, data);
	file->is_64 = class == ELFCLASS64;
	file->big_endian = data == ELFDATA2MSB;
	return NULL;
}

/* The ELF header (gABI "ELF Header"), as far as sections are concerned. */
static struct err *read_header(struct elffile *file, struct section_table *ret)
{
	TRY(read_ident(file));
	struct reader r = image_reader(file);

	reader_skip(&r, EI_NIDENT);
	file->type = reader_u16(&r);
	file->machine = reader_u16(&r);
	reader_skip(&r, 4);		   /* e_version */
	(void)read_word(&r, file);	   /* e_entry */
	(void)read_word(&r, file);	   /* e_phoff */
	ret->foff = read_word(&r, file);   /* e_shoff */
	reader_skip(&r, 4 + 2 + 2 + 2);	   /* e_flags, e_ehsize, e_phentsize, e_phnum */
	ret->entry_size = reader_u16(&r);  /* e_shentsize */
	ret->count = reader_u16(&r);	   /* e_shnum */
	ret->names = reader_u16(&r);	   /* e_shstrndx */
	if (r.failed)
		return err_new(ERR_FORMAT, "%s: truncated ELF header: %zu bytes", file->name, file->len);
	return NULL;
}

/* One entry of the section table; its name is only an offset yet, kept in @p name_ret. */
static void read_section(struct reader *r, const struct elffile *file, struct elffile_section *ret, uint32_t *name_ret)
{
	*name_ret = reader_u32(r);
	ret->type = reader_u32(r);
	ret->flags = read_word(r, file);
	ret->vaddr = read_word(r, file);
	ret->foff = read_word(r, file);
	ret->size = read_word(r, file);
	ret->link = reader_u32(r);
	ret->info = reader_u32(r);
	ret->align = read_word(r, file);
	ret->entry_size = read_word(r, file);
	ret->stored_size = ret->type == SHT_NOBITS || ret->type == SHT_NULL ? 0 : ret->size;
	ret->name = "";
}

/* Resolves the extensions through section 0 and checks the table against the image. */
static struct err *check_table(const struct elffile *file, struct section_table *table)
{
	const uint32_t entry = file->is_64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	const uint64_t header = file->is_64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);

	if (table->foff == 0) {
		table->count = 0;
		return NULL;
	}
	if (table->entry_size != entry)
		return err_new(ERR_FORMAT, "%s: section headers of %" PRIu32 " bytes, not %" PRIu32, file->name,
			table->entry_size, entry);
	if (table->foff < header)
		return err_new(ERR_FORMAT, "%s: section headers at 0x%" PRIx64 " overlap the ELF header", file->name, table->foff);
	if (table->foff > file->len || file->len - table->foff < entry)
		return err_new(ERR_FORMAT, "%s: section headers at 0x%" PRIx64 " lie past the end of the file (%zu bytes)",
			file->name, table->foff, file->len);

	struct elffile_section first = {0};
	struct reader r = image_reader(file);
	uint32_t name;
	reader_seek(&r, table->foff);
	read_section(&r, file, &first, &name);
	if (table->count == 0)
		table->count = first.size;
	if (table->names == SHN_XINDEX)
		table->names = first.link;
	if (table->count > ELFFILE_SECTIONS_MAX)
		return err_new(ERR_LIMIT, "%s: %" PRIu64 " sections, more than %d", file->name, table->count, ELFFILE_SECTIONS_MAX);
	if (table->count > (file->len - table->foff) / entry)
		return err_new(ERR_FORMAT, "%s: %" PRIu64 " section headers at 0x%" PRIx64 " lie past the end of the file (%zu bytes)",
			file->name, table->count, table->foff, file->len);
	return NULL;
}

static struct err *check_section(const struct elffile *file, const struct elffile_section *section)
{
	if (section->stored_size > 0 &&
		(section->foff > file->len || section->stored_size > file->len - section->foff))
		return err_new(ERR_FORMAT,
			"%s: section %" PRIu32 " (%.*s): bytes 0x%" PRIx64 "+0x%" PRIx64 " lie past the end of the file (%zu bytes)",
			file->name, section->index, NAME_SHOWN, section->name, section->foff, section->stored_size, file->len);
	if ((section->flags & SHF_ALLOC) && section->vaddr + section->size < section->vaddr)
		return section_error(file, section, ERR_FORMAT, "address range wraps around");
	return NULL;
}

/* The section name table: @p ret_len is 0 when there is none. */
static struct err *find_names(const struct elffile *file, uint32_t index, const char **ret, uint64_t *ret_len)
{
	*ret_len = 0;
	if (index == SHN_UNDEF)
		return NULL;
	if (index >= file->section_count)
		return err_new(ERR_FORMAT, "%s: section names are in section %" PRIu32 " of %zu", file->name, index,
			file->section_count);
	const struct elffile_section *names = &file->sections[index];

	TRY(check_section(file, names));
	if (names->stored_size == 0)
		return NULL;
	*ret = (const char *)file->bytes + names->foff;
	if (names->flags & SHF_COMPRESSED)
		return err_new(ERR_FORMAT, "%s: section %" PRIu32 " (section names): compressed", file->name, index);
	if ((*ret)[names->stored_size - 1] != '\0')
		return err_new(ERR_FORMAT, "%s: section %" PRIu32 " (section names): does not end with NUL", file->name, index);
	*ret_len = names->stored_size;
	return NULL;
}

static struct err *read_sections(struct elffile *file, struct section_table *table)
{
	file->section_count = (size_t)table->count;
	if (table->count == 0)
		return NULL;
	file->sections = calloc(file->section_count, sizeof(*file->sections));
	file->slots = calloc(file->section_count, sizeof(*file->slots));
	uint32_t *name_offs CLEANUP(freep) = calloc(file->section_count, sizeof(*name_offs));
	if (!file->sections || !file->slots || !name_offs)
		return err_nomem();

	struct reader r = image_reader(file);
	reader_seek(&r, table->foff);
	for (uint32_t i = 0; i < file->section_count; i++) {
		read_section(&r, file, &file->sections[i], &name_offs[i]);
		file->sections[i].index = i;
	}
	/* Section 0 holds the extended counts, not a section. */
	file->sections[0].stored_size = file->sections[0].size = file->sections[0].flags = 0;

	const char *names = NULL;
	uint64_t names_len = 0;
	TRY(find_names(file, table->names, &names, &names_len));
	for (size_t i = 1; i < file->section_count; i++) {
		if (names_len > 0 && name_offs[i] >= names_len)
			return err_new(ERR_FORMAT, "%s: section %zu: name at 0x%" PRIx32 " of 0x%" PRIx64 " bytes of names",
				file->name, i, name_offs[i], names_len);
		if (names_len > 0)
			file->sections[i].name = names + name_offs[i];
		TRY(check_section(file, &file->sections[i]));
	}
	return NULL;
}

/* A section with SHF_COMPRESSED begins with a Chdr (gABI "Section Compression"). */
static struct err *read_compression(struct elffile *file, struct elffile_section *section)
{
	struct reader r = reader_init(file->bytes + section->foff, section->stored_size, file->big_endian, file->name);
	uint32_t type = reader_u32(&r);

	if (file->is_64)
		reader_skip(&r, 4);
	section->size = read_word(&r, file);
	(void)read_word(&r, file); /* ch_addralign */
	if (r.failed)
		return section_error(file, section, ERR_FORMAT, "too short for its compression header");
	section->foff += reader_offset(&r);
	section->stored_size -= reader_offset(&r);
	if (type == ELFCOMPRESS_ZLIB)
		section->codec = CODEC_ZLIB;
	else if (type == 2) /* ELFCOMPRESS_ZSTD: newer than glibc 2.36's elf.h */
		section->codec = CODEC_ZSTD;
	else
		file->slots[section->index].compression = type ? type : UINT32_MAX;
	return NULL;
}

/* GNU's older way: a section .zdebug_x that begins with "ZLIB" and its size is .debug_x. */
static struct err *read_legacy_compression(struct elffile *file, struct elffile_section *section)
{
	size_t name_len = strnlen(section->name, ZDEBUG_NAME_MAX + 1);

	if (name_len > ZDEBUG_NAME_MAX)
		return NULL;
	struct reader r = reader_init(file->bytes + section->foff, section->stored_size, true, file->name);
	const uint8_t *magic = reader_bytes(&r, 4);
	uint64_t size = reader_u64(&r);
	if (r.failed || memcmp(magic, "ZLIB", 4) != 0)
		return NULL;

	char *name = arena_copy_text(&file->arena, section->name + 1, name_len - 1);
	if (!name)
		return err_nomem();
	name[0] = '.'; /* ".zdebug_x" without its first byte is "zdebug_x" */
	section->name = name;
	section->size = size;
	section->foff += reader_offset(&r);
	section->stored_size -= reader_offset(&r);
	section->codec = CODEC_ZLIB;
	return NULL;
}

static struct err *read_compressions(struct elffile *file)
{
	for (size_t i = 1; i < file->section_count; i++) {
		struct elffile_section *section = &file->sections[i];

		if (section->stored_size == 0)
			continue;
		/* The gABI forbids both flags; the size in memory would be another than the one that was checked. */
		if ((section->flags & SHF_COMPRESSED) && (section->flags & SHF_ALLOC))
			return section_error(file, section, ERR_FORMAT, "both allocated and compressed");
		if (section->flags & SHF_COMPRESSED)
			TRY(read_compression(file, section));
		else if (!(section->flags & SHF_ALLOC) && strncmp(section->name, ".zdebug_", 8) == 0)
			TRY(read_legacy_compression(file, section));
	}
	return NULL;
}

static int compare_ranges(const void *left, const void *right)
{
	const struct elffile_range *a = left, *b = right;

	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	return (a->high > b->high) - (a->high < b->high);
}

static size_t merge_ranges(struct elffile_range *ranges, size_t count)
{
	size_t kept = 0;

	if (count == 0)
		return 0;
	qsort(ranges, count, sizeof(*ranges), compare_ranges);
	for (size_t i = 1; i < count; i++) {
		if (ranges[i].low > ranges[kept].high)
			ranges[++kept] = ranges[i];
		else if (ranges[i].high > ranges[kept].high)
			ranges[kept].high = ranges[i].high;
	}
	return kept + 1;
}

static struct err *code_from_segments(struct elffile *file)
{
	struct load_segments *segments CLEANUP(freep) = malloc(sizeof(*segments));

	if (!segments)
		return err_nomem();
	TRY(elffile_load_segments(file, segments));
	file->code = calloc(LOAD_SEGMENTS_MAX, sizeof(*file->code));
	if (!file->code)
		return err_nomem();
	size_t count = 0;
	for (size_t i = 0; i < segments->count; i++) {
		const struct load_segment *segment = &segments->items[i];
		uint64_t high = segment->vaddr + segment->size;

		if (segment->executable && high > segment->vaddr)
			file->code[count++] = (struct elffile_range){.low = segment->vaddr, .high = high};
	}
	file->code_count = merge_ranges(file->code, count);
	return NULL;
}

static struct err *find_code(struct elffile *file)
{
	const uint64_t code_flags = SHF_ALLOC | SHF_EXECINSTR;

	if (file->section_count == 0)
		return code_from_segments(file);
	file->code = calloc(file->section_count, sizeof(*file->code));
	if (!file->code)
		return err_nomem();
	size_t count = 0;
	for (size_t i = 1; i < file->section_count; i++) {
		const struct elffile_section *section = &file->sections[i];

		if ((section->flags & code_flags) == code_flags && section->size > 0)
			file->code[count++] =
				(struct elffile_range){.low = section->vaddr, .high = section->vaddr + section->size};
	}
	file->code_count = merge_ranges(file->code, count);
	return NULL;
}

static struct err *read_image(struct elffile *file)
{
	struct section_table table = {0};

	TRY(read_header(file, &table));
	TRY(check_table(file, &table));
	TRY(read_sections(file, &table));
	TRY(read_compressions(file));
	if (file->type == ET_REL)
		TRY(relocatable_lay_out(file->sections, file->section_count, file->name));
	TRY(find_code(file));
	return elf_links_read(file, &file->links);
}

struct err *elffile_open(const void *bytes, size_t len, const char *name, const struct elffile_limits *limits,
	struct elffile **ret)
{
	struct elffile *file CLEANUP(elffile_closep) = calloc(1, sizeof(*file));

	if (!file)
		return err_nomem();
	(void)pthread_mutex_init(&file->mutex, NULL);
	(void)pthread_cond_init(&file->loaded, NULL);
	file->bytes = bytes;
	file->len = len;
	file->limits.section_bytes = limits && limits->section_bytes ? limits->section_bytes : default_section_bytes;
	file->limits.total_bytes = limits && limits->total_bytes ? limits->total_bytes : default_total_bytes;
	file->name = strdup(name);
	if (!file->name)
		return err_nomem();
	TRY(read_image(file));
	*ret = TAKE_PTR(file);
	return NULL;
}

void elffile_close(struct elffile *file)
{
	if (!file)
		return;
	for (size_t i = 0; file->slots && i < file->section_count; i++)
		free(file->slots[i].data);
	free(file->slots);
	free(file->sections);
	free(file->code);
	free(file->name);
	arena_deinit(&file->arena);
	(void)pthread_cond_destroy(&file->loaded);
	(void)pthread_mutex_destroy(&file->mutex);
	free(file);
}

void elffile_closep(struct elffile **file)
{
	elffile_close(*file);
}

const char *elffile_name(const struct elffile *file)
{
	return file->name;
}

const uint8_t *elffile_bytes(const struct elffile *file, size_t *len_ret)
{
	*len_ret = file->len;
	return file->bytes;
}

bool elffile_big_endian(const struct elffile *file)
{
	return file->big_endian;
}

bool elffile_is_64(const struct elffile *file)
{
	return file->is_64;
}

unsigned elffile_address_size(const struct elffile *file)
{
	return file->is_64 ? 8 : 4;
}

uint16_t elffile_type(const struct elffile *file)
{
	return file->type;
}

uint16_t elffile_machine(const struct elffile *file)
{
	return file->machine;
}

uint64_t elffile_base(const struct elffile *file)
{
	return file->type == ET_REL ? RELOCATABLE_BASE : 0;
}

size_t elffile_section_count(const struct elffile *file)
{
	return file->section_count;
}

const struct elffile_section *elffile_section(const struct elffile *file, size_t index)
{
	return index < file->section_count ? &file->sections[index] : NULL;
}

const struct elffile_section *elffile_find(const struct elffile *file, const char *name)
{
	const struct elffile_section *found = NULL;

	for (size_t i = 1; i < file->section_count; i++) {
		const struct elffile_section *section = &file->sections[i];

		if (strcmp(section->name, name) != 0)
			continue;
		if (section->stored_size > 0)
			return section;
		if (!found)
			found = section;
	}
	return found;
}

/* Zeroed by the kernel or not at all: every byte is written by the decompressor. */
static uint8_t *allocate_bytes(uint64_t size)
{
	if (size < HUGE_FROM)
		return malloc(size);
	size_t rounded = ((size_t)size + HUGE_PAGE - 1) & ~((size_t)HUGE_PAGE - 1);
	uint8_t *data = aligned_alloc(HUGE_PAGE, rounded);
	/* Advice only: without huge pages it is merely slower. */
	if (data)
		(void)madvise(data, rounded, MADV_HUGEPAGE);
	return data;
}

/* Refuses sizes that the limits or the compression itself rule out, before memory is taken. */
static struct err *check_inflated_size(const struct elffile *file, const struct elffile_section *section)
{
	if (section->size > file->limits.section_bytes)
		return err_new(ERR_LIMIT, "%s: section %" PRIu32 " (%.*s): %" PRIu64 " bytes inflated, more than %" PRIu64,
			file->name, section->index, NAME_SHOWN, section->name, section->size, file->limits.section_bytes);
	if (section->codec == CODEC_ZLIB && section->size > DEFLATE_SLACK &&
		(section->size - DEFLATE_SLACK) / DEFLATE_MAX_RATIO > section->stored_size)
		return err_new(ERR_FORMAT,
			"%s: section %" PRIu32 " (%.*s): %" PRIu64 " compressed bytes cannot inflate to %" PRIu64, file->name,
			section->index, NAME_SHOWN, section->name, section->stored_size, section->size);
	return NULL;
}

static struct err *inflate_section(const struct elffile *file, const struct elffile_section *section, uint8_t **ret)
{
	uint8_t *data CLEANUP(freep) = allocate_bytes(section->size);

	if (!data)
		return err_nomem();
	struct err *e = NULL;
	if (section->codec == CODEC_NONE)
		memcpy(data, file->bytes + section->foff, section->size);
	else
		e = codec_decompress_exact(section->codec, file->bytes + section->foff, section->stored_size, data, section->size);
	if (!e && section->relocations)
		e = relocatable_apply(file, section, data);
	if (e)
		return err_wrap(e, "%s: section %" PRIu32 " (%.*s)", file->name, section->index, NAME_SHOWN, section->name);
	*ret = TAKE_PTR(data);
	return NULL;
}

/* The slot's bytes are made here by one thread while others may wait; enters and leaves with the mutex held. */
static struct err *fill_slot(struct elffile *file, const struct elffile_section *section, struct slot *slot)
{
	TRY(check_inflated_size(file, section));
	if (section->size > file->limits.total_bytes - file->held_bytes)
		return err_new(ERR_LIMIT,
			"%s: section %" PRIu32 " (%.*s): %" PRIu64 " bytes inflated beside %" PRIu64 " held, more than %" PRIu64,
			file->name, section->index, NAME_SHOWN, section->name, section->size, file->held_bytes,
			file->limits.total_bytes);
	file->held_bytes += section->size;
	slot->state = SLOT_LOADING;
	(void)pthread_mutex_unlock(&file->mutex);

	uint8_t *data = NULL;
	struct err *e = inflate_section(file, section, &data);

	(void)pthread_mutex_lock(&file->mutex);
	if (e)
		file->held_bytes -= section->size;
	slot->data = data;
	slot->state = e ? SLOT_EMPTY : SLOT_READY;
	(void)pthread_cond_broadcast(&file->loaded);
	return e;
}

static struct err *load_locked(struct elffile *file, const struct elffile_section *section, struct slot *slot)
{
	if (!slot->place) {
		char text[2 * NAME_SHOWN + 3];
		int length = snprintf(text, sizeof(text), "%.*s: %.*s", NAME_SHOWN, file->name, NAME_SHOWN, section->name);
		slot->place = arena_copy_text(&file->arena, text, (size_t)length);
		if (!slot->place)
			return err_nomem();
	}
	if (slot->compression)
		return err_new(ERR_UNSUPPORTED, "%s: unknown compression %" PRIu32, slot->place, slot->compression);
	if (elffile_load_bytes(section) == 0)
		return NULL;
	while (slot->state == SLOT_LOADING)
		(void)pthread_cond_wait(&file->loaded, &file->mutex);
	return slot->state == SLOT_READY ? NULL : fill_slot(file, section, slot);
}

uint64_t elffile_load_bytes(const struct elffile_section *section)
{
	bool plain = section->codec == CODEC_NONE && (!section->relocations || section->stored_size == 0);

	return plain ? 0 : section->size;
}

struct err *elffile_load(struct elffile *file, const struct elffile_section *section, struct reader *ret)
{
	struct slot *slot = &file->slots[section->index];

	(void)pthread_mutex_lock(&file->mutex);
	struct err *e = load_locked(file, section, slot);
	const uint8_t *data = slot->data;
	(void)pthread_mutex_unlock(&file->mutex);
	if (e)
		return e;
	if (elffile_load_bytes(section) == 0)
		*ret = reader_init(file->bytes + (section->stored_size ? section->foff : 0),
			section->size ? section->stored_size : 0, file->big_endian, slot->place);
	else
		*ret = reader_init(data, section->size, file->big_endian, slot->place);
	return NULL;
}

void elffile_release(struct elffile *file, const struct elffile_section *section)
{
	struct slot *slot = &file->slots[section->index];

	(void)pthread_mutex_lock(&file->mutex);
	if (slot->state == SLOT_READY) {
		free(slot->data);
		slot->data = NULL;
		slot->state = SLOT_EMPTY;
		file->held_bytes -= section->size;
	}
	(void)pthread_mutex_unlock(&file->mutex);
}

const struct elffile_range *elffile_code_ranges(const struct elffile *file, size_t *count_ret)
{
	*count_ret = file->code_count;
	return file->code;
}

bool elffile_is_code(const struct elffile *file, uint64_t vaddr)
{
	size_t low = 0, high = file->code_count;

	/* The first range that ends behind vaddr. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (file->code[middle].high <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < file->code_count && file->code[low].low <= vaddr;
}

const struct build_id *elffile_build_id(const struct elffile *file)
{
	return &file->links.build_id;
}

struct elffile_debuglink elffile_debuglink(const struct elffile *file)
{
	return file->links.debuglink;
}

const char *elffile_debugaltlink(const struct elffile *file, struct build_id *ret)
{
	*ret = file->links.altlink_id;
	return file->links.altlink;
}

struct err *elffile_load_segments(const struct elffile *file, struct load_segments *ret)
{
	return load_segments_from_elf(file->bytes, file->len, file->name, ret);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The ELF header, the program headers, and sections by name: .eh_frame, .debug_frame, .gopclntab, the PLTs, .gnu_debuglink. A file without section
 * headers (some packers strip them) still has PT_GNU_EH_FRAME: its header says where .eh_frame begins, and .eh_frame says
 * itself where it ends. Sections may be compressed (SHF_COMPRESSED; Go's .debug_frame is).
 * Source: ELF gABI 4 and 5; LSB 5.0 10.6.2.
 */
#include "agent/unwind/elf_image.h"

#include "base/codec.h"
#include "base/reader.h"
#include "fileid/pclntab.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** @p len bytes at @p foff into memory of the caller's. ERR_FORMAT when the file ends before. */
static struct err *source_read(const struct unwind_source *source, uint64_t foff, void *bytes, size_t len)
{
	if (foff > source->len || len > source->len - foff)
		return err_new(ERR_FORMAT, "%s: ends before 0x%llx", source->name, (unsigned long long)(foff + len));
	if (source->fd < 0) {
		if (len > 0)
			memcpy(bytes, source->bytes + foff, len);
		return NULL;
	}
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(source->fd, (char *)bytes + done, len - done, (off_t)(foff + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_os(errno, "%s", source->name);
		if (n == 0)
			return err_new(ERR_FORMAT, "%s: was cut while it was read", source->name);
		done += (size_t)n;
	}
	return NULL;
}

static struct err *source_alloc(const struct unwind_source *source, uint64_t foff, uint64_t len, uint64_t limit, uint8_t **ret)
{
	if (len > limit)
		return err_new(ERR_LIMIT, "%s: %llu bytes at 0x%llx, more than %llu", source->name, (unsigned long long)len,
			(unsigned long long)foff, (unsigned long long)limit);
	if (foff > source->len || len > source->len - foff)
		return err_new(ERR_FORMAT, "%s: ends before 0x%llx", source->name, (unsigned long long)(foff + len));
	CLEANUP(freep) uint8_t *bytes = malloc(len > 0 ? len : 1);
	if (!bytes)
		return err_nomem();
	TRY(source_read(source, foff, bytes, len));
	*ret = TAKE_PTR(bytes);
	return NULL;
}

static struct err *read_header(const struct unwind_source *source, Elf64_Ehdr *header)
{
	if (source->len < sizeof(*header))
		return err_new(ERR_FORMAT, "%s: too short for ELF", source->name);
	TRY(source_read(source, 0, header, sizeof(*header)));
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
		return err_new(ERR_FORMAT, "%s: not ELF", source->name);
	if (header->e_ident[EI_CLASS] == ELFCLASS32 && header->e_ident[EI_DATA] == ELFDATA2LSB && header->e_machine == EM_X86_64)
		return err_new(ERR_UNSUPPORTED, "%s: x32 code is not unwound", source->name);
	if (header->e_ident[EI_CLASS] != ELFCLASS64)
		return err_new(ERR_UNSUPPORTED, "%s: 32-bit code is not unwound", source->name);
	if (header->e_ident[EI_DATA] != ELFDATA2LSB || header->e_machine != EM_X86_64)
		return err_new(ERR_UNSUPPORTED, "%s: machine %u is not unwound", source->name, header->e_machine);
	return NULL;
}

/** The GNU build ID of one PT_NOTE segment, if it is there; damage reads as none. */
static void read_note(const struct unwind_source *source, const Elf64_Phdr *segment, struct build_id *ret)
{
	CLEANUP(freep) uint8_t *bytes = NULL;
	struct err *e = source_alloc(source, segment->p_offset, segment->p_filesz, UNWIND_NOTE_MAX, &bytes);

	if (e) {
		err_free(e);
		return;
	}
	uint64_t align = segment->p_align == 8 ? 8 : 4;
	struct reader r = reader_init(bytes, segment->p_filesz, false, source->name);
	while (ret->len == 0 && reader_left(&r) >= 12) {
		uint64_t name_len = reader_u32(&r), id_len = reader_u32(&r), type = reader_u32(&r);
		const uint8_t *name = reader_bytes(&r, name_len);
		reader_skip(&r, (0 - name_len) & 3);
		const uint8_t *id = reader_bytes(&r, id_len);
		if (id && name_len == 4 && memcmp(name, "GNU", 4) == 0 && type == NT_GNU_BUILD_ID && id_len > 0 && id_len <= BUILD_ID_MAX) {
			ret->len = (uint8_t)id_len;
			memcpy(ret->bytes, id, id_len);
		}
		reader_skip(&r, (0 - reader_offset(&r)) & (align - 1));
	}
}

static uint64_t foff_of_vaddr(const struct load_segments *segments, uint64_t vaddr, uint64_t *left)
{
	for (size_t i = 0; i < segments->count; i++) {
		const struct load_segment *s = &segments->items[i];
		if (vaddr >= s->vaddr && vaddr - s->vaddr < s->size) {
			*left = s->size - (vaddr - s->vaddr);
			return s->foff + (vaddr - s->vaddr);
		}
	}
	*left = 0;
	return 0;
}

/** .eh_frame by way of .eh_frame_hdr: version, encodings, then the pointer (pc-relative sdata4 is what linkers write). */
static struct err *read_eh_frame_header(const struct unwind_source *source, const Elf64_Phdr *segment, struct unwind_elf *elf)
{
	uint8_t head[8];

	if (segment->p_filesz < sizeof(head))
		return NULL;
	TRY(source_read(source, segment->p_offset, head, sizeof(head)));
	int32_t distance = 0;
	memcpy(&distance, head + 4, sizeof(distance));
	if (head[0] != 1 || head[1] != 0x1b)
		return NULL;
	uint64_t vaddr = segment->p_vaddr + 4 + (uint64_t)(int64_t)distance, left = 0;
	uint64_t foff = foff_of_vaddr(&elf->segments, vaddr, &left);
	if (left == 0)
		return err_new(ERR_FORMAT, "%s: .eh_frame_hdr points outside of the file", source->name);
	TRY(source_alloc(source, foff, left, UNWIND_SECTION_MAX, &elf->eh_frame.bytes));
	elf->eh_frame.len = left;
	elf->eh_frame.vaddr = vaddr;
	return NULL;
}

static struct err *read_segments(const struct unwind_source *source, const Elf64_Ehdr *header, struct unwind_elf *elf, Elf64_Phdr *eh_frame_header)
{
	CLEANUP(freep) uint8_t *bytes = NULL;

	if (header->e_phnum == 0)
		return NULL;
	if (header->e_phentsize != sizeof(Elf64_Phdr))
		return err_new(ERR_FORMAT, "%s: program headers of %u bytes", source->name, header->e_phentsize);
	if (header->e_phnum > UNWIND_PROGRAM_HEADERS_MAX)
		return err_new(ERR_LIMIT, "%s: %u program headers", source->name, header->e_phnum);
	TRY(source_alloc(source, header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr), UINT32_MAX, &bytes));
	for (unsigned i = 0; i < header->e_phnum; i++) {
		Elf64_Phdr p;
		memcpy(&p, bytes + i * sizeof(p), sizeof(p));
		if (p.p_type == PT_GNU_EH_FRAME)
			*eh_frame_header = p;
		if (p.p_type == PT_NOTE && elf->build_id.len == 0)
			read_note(source, &p, &elf->build_id);
		if (p.p_type != PT_LOAD)
			continue;
		if (elf->segments.count == LOAD_SEGMENTS_MAX)
			return err_new(ERR_LIMIT, "%s: more than %d PT_LOADs", source->name, LOAD_SEGMENTS_MAX);
		elf->segments.items[elf->segments.count++] = (struct load_segment){
			.foff = p.p_offset, .vaddr = p.p_vaddr, .size = p.p_filesz, .executable = (p.p_flags & PF_X) != 0};
	}
	return NULL;
}

static struct err *read_section(const struct unwind_source *source, const Elf64_Shdr *section, struct unwind_section *ret)
{
	CLEANUP(freep) uint8_t *bytes = NULL;
	TRY(source_alloc(source, section->sh_offset, section->sh_size, UNWIND_SECTION_MAX, &bytes));
	size_t len = section->sh_size;

	if (section->sh_flags & SHF_COMPRESSED) {
		Elf64_Chdr c;
		if (len < sizeof(c))
			return err_new(ERR_FORMAT, "%s: compressed section of %zu bytes", source->name, len);
		memcpy(&c, bytes, sizeof(c));
		if (c.ch_size > UNWIND_SECTION_MAX)
			return err_new(ERR_LIMIT, "%s: compressed section of %llu bytes", source->name, (unsigned long long)c.ch_size);
		enum codec codec = c.ch_type == ELFCOMPRESS_ZLIB ? CODEC_ZLIB : CODEC_ZSTD;
		CLEANUP(freep) uint8_t *plain = malloc(c.ch_size > 0 ? c.ch_size : 1);
		if (!plain)
			return err_nomem();
		TRY(codec_decompress_exact(codec, bytes + sizeof(c), len - sizeof(c), plain, c.ch_size));
		free(bytes);
		bytes = TAKE_PTR(plain);
		len = c.ch_size;
	}
	free(ret->bytes);
	*ret = (struct unwind_section){.bytes = TAKE_PTR(bytes), .len = len, .vaddr = section->sh_addr};
	return NULL;
}

static Elf64_Shdr section_at(const uint8_t *bytes, uint64_t i)
{
	Elf64_Shdr section;
	memcpy(&section, bytes + i * sizeof(section), sizeof(section));
	return section;
}

/* The section headers, and what is looked for by name. */
struct sections {
	const struct unwind_source *source;
	uint8_t *headers, *names;
	uint64_t count, names_len;
};

static void sections_deinit(struct sections *sections)
{
	free(sections->headers);
	free(sections->names);
}

static struct err *open_sections(const struct unwind_source *source, const Elf64_Ehdr *header, struct sections *ret)
{
	Elf64_Shdr zero = {0};

	ret->source = source;
	if (header->e_shoff == 0 || header->e_shentsize != sizeof(Elf64_Shdr))
		return NULL;
	TRY(source_read(source, header->e_shoff, &zero, sizeof(zero)));
	uint64_t count = header->e_shnum ? header->e_shnum : zero.sh_size;
	uint64_t name_index = header->e_shstrndx == SHN_XINDEX ? zero.sh_link : header->e_shstrndx;
	if (count > UNWIND_SECTIONS_MAX)
		return err_new(ERR_LIMIT, "%s: %llu sections", source->name, (unsigned long long)count);
	if (name_index >= count)
		return NULL;
	TRY(source_alloc(source, header->e_shoff, count * sizeof(Elf64_Shdr), UINT32_MAX, &ret->headers));
	Elf64_Shdr name_section = section_at(ret->headers, name_index);
	TRY(source_alloc(source, name_section.sh_offset, name_section.sh_size, UNWIND_NAMES_MAX, &ret->names));
	ret->names_len = name_section.sh_size;
	ret->count = count;
	return NULL;
}

static const char *section_name(const struct sections *sections, const Elf64_Shdr *section)
{
	struct reader r = reader_init(sections->names, sections->names_len, false, "");

	reader_seek(&r, section->sh_name);
	const char *name = reader_text(&r, NULL);
	return name ? name : "";
}

/** The last section of that name that has bytes. */
static bool find_section(const struct sections *sections, const char *name, Elf64_Shdr *ret)
{
	for (uint64_t i = sections->count; i-- > 0;) {
		*ret = section_at(sections->headers, i);
		if (ret->sh_type != SHT_NOBITS && strcmp(section_name(sections, ret), name) == 0)
			return true;
	}
	return false;
}

static struct err *read_named(const struct sections *sections, const char *name, struct unwind_section *ret)
{
	Elf64_Shdr section;

	return find_section(sections, name, &section) ? read_section(sections->source, &section, ret) : NULL;
}

static void find_plts(const struct sections *sections, struct unwind_elf *elf)
{
	static const char *const names[UNWIND_PLTS_MAX] = {".plt", ".plt.got", ".plt.sec", ".iplt"};
	Elf64_Shdr section;

	for (size_t i = 0; i < UNWIND_PLTS_MAX; i++)
		if (find_section(sections, names[i], &section) && section.sh_addr && section.sh_size && section.sh_size < UINT32_MAX &&
			section.sh_addr < UINT64_MAX - UINT32_MAX)
			elf->plts[elf->plt_count++] = (struct unwind_plt){section.sh_addr, section.sh_addr + section.sh_size, i == 0};
}

/** .init and .fini are made of pieces of the C start-up files, without call frame information: [endbr64;] sub rsp, 8 .. add rsp, 8; ret. */
static struct err *find_inits(const struct sections *sections, struct unwind_elf *elf)
{
	static const char *const names[] = {".init", ".fini"};
	static const uint8_t mark[] = {0xf3, 0x0f, 0x1e, 0xfa}, begin[] = {0x48, 0x83, 0xec, 0x08}, end[] = {0x48, 0x83, 0xc4, 0x08, 0xc3};
	Elf64_Shdr section;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct unwind_section code = {0};
		if (!find_section(sections, names[i], &section) || section.sh_size > UNWIND_INIT_MAX || section.sh_addr == 0)
			continue;
		TRY(read_section(sections->source, &section, &code));
		size_t at = code.len > sizeof(mark) && memcmp(code.bytes, mark, sizeof(mark)) == 0 ? sizeof(mark) : 0;
		bool is_known = code.len >= at + sizeof(begin) + sizeof(end) && memcmp(code.bytes + at, begin, sizeof(begin)) == 0 &&
				memcmp(code.bytes + code.len - sizeof(end), end, sizeof(end)) == 0;
		free(code.bytes);
		if (is_known && code.vaddr < UINT64_MAX - UNWIND_INIT_MAX)
			elf->inits[elf->init_count++] = (struct unwind_plt){code.vaddr + at + sizeof(begin), code.vaddr + code.len - 1, false};
	}
	return NULL;
}

static struct err *read_debuglink(const struct sections *sections, struct unwind_elf *elf)
{
	struct unwind_section link = {0};

	TRY(read_named(sections, ".gnu_debuglink", &link));
	size_t len = link.bytes ? strnlen((const char *)link.bytes, link.len) : 0;
	if (len > 0 && len < link.len && len < sizeof(elf->debuglink) && !memchr(link.bytes, '/', len))
		memcpy(elf->debuglink, link.bytes, len + 1);
	free(link.bytes);
	return NULL;
}

/** moduledata's text start from one section; 0: not there. */
static struct err *go_text_in(const struct sections *sections, const Elf64_Shdr *section, const struct pclntab *tab, uint64_t *ret)
{
	bool is_data = section->sh_type == SHT_PROGBITS && (section->sh_flags & SHF_WRITE);
	struct unwind_section data = {0};
	uint64_t module = 0;

	if ((!is_data && section->sh_type != SHT_RELA) || !(section->sh_flags & SHF_ALLOC) || section->sh_size > UNWIND_GO_DATA_MAX)
		return NULL;
	TRY(read_section(sections->source, section, &data));
	uint64_t place = (uint64_t)PCLNTAB_MODULE_TEXT * tab->ptr_size;
	if (!is_data && pclntab_module_in_relocations(tab, data.bytes, data.len, &module)) {
		*ret = pclntab_relocated_word(tab, data.bytes, data.len, module + place);
	} else if (is_data && pclntab_module_in_data(tab, data.bytes, data.len, data.vaddr, &module)) {
		struct reader r = reader_init(data.bytes, data.len, false, "");
		reader_seek(&r, module - data.vaddr + place);
		*ret = reader_u64(&r);
	}
	free(data.bytes);
	return NULL;
}

/** moduledata's text start; 0: not found. */
static struct err *find_go_text(const struct sections *sections, const struct pclntab *tab, uint64_t *ret)
{
	for (uint64_t i = 1; i < sections->count && *ret == 0; i++) {
		Elf64_Shdr section = section_at(sections->headers, i);
		TRY(go_text_in(sections, &section, tab, ret));
	}
	return NULL;
}

/**
 * The table in a section that holds other things, too: a position-independent program that another linker than Go's put together.
 * What looks like its header is believed when a moduledata leads to it. (Go 1.16's functions would have to be relocated: not read.)
 */
static struct err *search_go(const struct sections *sections, const char *name, struct unwind_elf *elf)
{
	struct unwind_section around = {0};
	struct pclntab tab;
	size_t offset = 0;
	struct err *e = read_named(sections, name, &around);

	for (unsigned tries = 0; !e && around.bytes && tries < UNWIND_GO_HEADERS_MAX && pclntab_search(around.bytes, around.len, false, &offset); tries++, offset++) {
		struct err *refused = pclntab_open(around.bytes + offset, around.len - offset, false, around.vaddr + offset, elf->name, &tab);
		if (!refused && tab.magic != PCLNTAB_MAGIC_16)
			e = find_go_text(sections, &tab, &elf->go_text);
		err_free(refused);
		if (elf->go_text == 0)
			continue;
		memmove(around.bytes, around.bytes + offset, around.len - offset);
		elf->gopclntab = (struct unwind_section){around.bytes, around.len - offset, around.vaddr + offset};
		return e;
	}
	free(around.bytes);
	return e;
}

/** .gopclntab, and where its addresses count from when it does not say. */
static struct err *read_go(const struct sections *sections, struct unwind_elf *elf)
{
	struct pclntab tab;
	Elf64_Shdr section;

	TRY(read_named(sections, ".gopclntab", &elf->gopclntab));
	if (!elf->gopclntab.bytes)
		TRY(read_named(sections, ".data.rel.ro.gopclntab", &elf->gopclntab));
	if (!elf->gopclntab.bytes && find_section(sections, ".go.buildinfo", &section))
		return search_go(sections, ".data.rel.ro", elf);
	if (!elf->gopclntab.bytes)
		return NULL;
	TRY(pclntab_open(elf->gopclntab.bytes, elf->gopclntab.len, false, elf->gopclntab.vaddr, elf->name, &tab));
	if (tab.magic == PCLNTAB_MAGIC_16 || tab.text)
		return NULL;
	TRY(find_go_text(sections, &tab, &elf->go_text));
	if (elf->go_text == 0 && find_section(sections, ".text", &section))
		elf->go_text = section.sh_addr;
	return NULL;
}

static struct err *read_rest(const struct unwind_source *source, const Elf64_Ehdr *header, const Elf64_Phdr *eh_frame_header, struct unwind_elf *elf)
{
	CLEANUP(sections_deinit) struct sections sections = {0};

	TRY(open_sections(source, header, &sections));
	TRY(read_named(&sections, ".eh_frame", &elf->eh_frame));
	TRY(read_go(&sections, elf));
	if (!elf->gopclntab.bytes) /* Go's .debug_frame says the same once more */
		TRY(read_named(&sections, ".debug_frame", &elf->debug_frame));
	find_plts(&sections, elf);
	TRY(find_inits(&sections, elf));
	TRY(read_debuglink(&sections, elf));
	if (!elf->eh_frame.bytes && eh_frame_header->p_type == PT_GNU_EH_FRAME)
		TRY(read_eh_frame_header(source, eh_frame_header, elf));
	return NULL;
}

static struct err *read_all(const struct unwind_source *source, bool head_only, struct unwind_elf *elf)
{
	Elf64_Ehdr header;
	Elf64_Phdr eh_frame_header = {0};

	TRY(read_header(source, &header));
	TRY(read_segments(source, &header, elf, &eh_frame_header));
	elf->entry = header.e_entry;
	return head_only ? NULL : read_rest(source, &header, &eh_frame_header, elf);
}

static struct err *read_elf(const struct unwind_source *source, bool head_only, struct unwind_elf *ret)
{
	struct unwind_elf elf = {.name = source->name};
	struct err *e = read_all(source, head_only, &elf);

	if (e) {
		unwind_elf_deinit(&elf);
		return e;
	}
	*ret = elf;
	return NULL;
}

struct err *unwind_elf_read_head(const struct unwind_source *source, struct unwind_elf *ret)
{
	return read_elf(source, true, ret);
}

struct err *unwind_elf_read(const struct unwind_source *source, struct unwind_elf *ret)
{
	return read_elf(source, false, ret);
}

void unwind_elf_deinit(struct unwind_elf *elf)
{
	free(elf->eh_frame.bytes);
	free(elf->debug_frame.bytes);
	free(elf->gopclntab.bytes);
	elf->eh_frame = elf->debug_frame = elf->gopclntab = (struct unwind_section){0};
}

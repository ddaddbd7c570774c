// SPDX-License-Identifier: Apache-2.0
/*
 * An ELF image as the builder sees it: sections, their bytes inflated on demand, code ranges, links to debug files.
 * 32 and 64 bits, both byte orders. All bytes are hostile: every count and offset is checked against the image and the
 * limits below before it is used, once, in elffile_open; afterwards the accessors cannot fail.
 * The caller keeps the image alive and unchanged until elffile_close.
 * Sources: System V gABI (ELF header, sections, SHF_COMPRESSED), GDB manual "Debugging Information in Separate Files".
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_ELF_FILE_H
#define CAIRN_SYMBOLIZER_BUILD_ELF_FILE_H

#include "base/codec.h"
#include "base/err.h"
#include "base/reader.h"
#include "fileid/build_id.h"
#include "fileid/load_segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ELFFILE_SECTIONS_MAX = 1 << 20 };

/* Limits of decompression: what a bomb can cost. 0 in a member means the default. */
struct elffile_limits {
	uint64_t section_bytes; /* one section once inflated; default 4 GiB - 1 */
	uint64_t total_bytes;	/* all inflated sections that are held at one time; default 16 GiB */
};

struct elffile_section {
	const char *name;    /* ".debug_info" for a legacy .zdebug_info too; "" when unnamed. Lives as long as the file */
	uint32_t index;	     /* in the section header table */
	uint32_t type;	     /* SHT_ */
	uint32_t link, info; /* sh_link, sh_info: not checked */
	uint64_t flags;	     /* SHF_ */
	uint64_t vaddr;	     /* sh_addr; of a relocatable file see elffile_base */
	uint64_t size;	     /* bytes once loaded (inflated); of SHT_NOBITS in memory */
	uint64_t entry_size; /* sh_entsize: not checked */
	uint64_t align;	     /* sh_addralign: not checked */
	uint64_t foff;	     /* of the stored bytes, without a compression header */
	uint64_t stored_size; /* of them; 0 for SHT_NOBITS */
	enum codec codec;    /* CODEC_NONE: the stored bytes are the bytes */
	uint32_t relocations; /* the section whose relocations are applied when this one is loaded (ET_REL only); 0: none */
};

/* [low, high) of addresses as linked. */
struct elffile_range {
	uint64_t low, high;
};

struct elffile_debuglink {
	const char *name; /* a file name without '/', borrowed from the file; NULL: there is no link */
	uint32_t crc;	  /* digest_crc32 over the whole debug file */
};

struct elffile;

/**
 * Checks an ELF image's headers and section table. Reads no section but the names and notes.
 * @param bytes   borrowed until elffile_close
 * @param name    what the bytes are, for errors; copied
 * @param limits  NULL: defaults
 * @return NULL; ERR_FORMAT: not ELF, damaged or truncated (says which section); ERR_LIMIT: too many sections, or an inflated
 *         size past the limits (a section's is found when it is loaded); ERR_NOMEM. Any thread. O(sections log sections).
 */
struct err *elffile_open(const void *bytes, size_t len, const char *name, const struct elffile_limits *limits, struct elffile **ret)
	MUST_USE;
/** Frees everything, loaded sections included. NULL is fine. */
void elffile_close(struct elffile *file);
/** For CLEANUP. */
void elffile_closep(struct elffile **file);

/* What the header says. Any thread. */
const char *elffile_name(const struct elffile *file);
const uint8_t *elffile_bytes(const struct elffile *file, size_t *len_ret);
bool elffile_big_endian(const struct elffile *file);
bool elffile_is_64(const struct elffile *file);
/** 4 or 8. */
unsigned elffile_address_size(const struct elffile *file);
/** e_type: ET_EXEC, ET_DYN, ET_REL.. */
uint16_t elffile_type(const struct elffile *file);
/** e_machine: EM_X86_64, EM_AARCH64.. Every machine is accepted: it matters to nobody below. */
uint16_t elffile_machine(const struct elffile *file);

/**
 * What stands added to every address of a relocatable file, whose sections are laid out here (relocatable.h), and has to be taken
 * away again before anybody outside sees one; 0 for any other file.
 */
uint64_t elffile_base(const struct elffile *file);

/** How many sections there are, the null section 0 included. */
size_t elffile_section_count(const struct elffile *file);
/** NULL when @p index is not below the count. */
const struct elffile_section *elffile_section(const struct elffile *file, size_t index);
/** The first section of this name that has bytes, else the first of this name, else NULL. O(sections). Any thread. */
const struct elffile_section *elffile_find(const struct elffile *file, const char *name);

/** Bytes of memory that loading the section takes: 0 for one that lies plainly in the image. */
uint64_t elffile_load_bytes(const struct elffile_section *section);
/**
 * A section's bytes: in the image where they are stored plainly, else inflated (and relocated: ET_REL) into memory that the file owns until
 * elffile_release or elffile_close. Loading twice gives the same bytes. Distinct sections may be loaded by several threads at
 * once; one that another thread is inflating is waited for.
 * @param ret  a reader at the section's first byte, in the file's byte order, its place "<file>: <section>"; empty for SHT_NOBITS
 * @return NULL; ERR_FORMAT: damaged compressed bytes; ERR_LIMIT: larger than the limits allow; ERR_UNSUPPORTED: an unknown
 *         compression; ERR_NOMEM. Each names the section. Thread: any.
 */
struct err *elffile_load(struct elffile *file, const struct elffile_section *section, struct reader *ret) MUST_USE;
/** Frees a section's inflated bytes early: nobody may hold a pointer into them. Does nothing for other sections. Thread: any. */
void elffile_release(struct elffile *file, const struct elffile_section *section);

/** Address ranges of executable sections (of executable PT_LOADs in a file without sections), sorted, merged. Any thread. */
const struct elffile_range *elffile_code_ranges(const struct elffile *file, size_t *count_ret);
/** True when @p vaddr lies in one of them. O(log ranges). Any thread. */
bool elffile_is_code(const struct elffile *file, uint64_t vaddr);

/** The GNU build ID; len 0 when there is none. Notes of sections are preferred: a debug file's PT_NOTE may point nowhere. */
const struct build_id *elffile_build_id(const struct elffile *file);
struct elffile_debuglink elffile_debuglink(const struct elffile *file);
/**
 * The supplement (dwz) that the file names in .gnu_debugaltlink or DWARF 5's .debug_sup, and the build ID or checksum of that file;
 * NULL: none. Borrowed. A supplement of DWARF 5 without a build ID has its checksum as one.
 */
const char *elffile_debugaltlink(const struct elffile *file, struct build_id *ret);
/** The PT_LOAD table of the image; meant for runtime files only. */
struct err *elffile_load_segments(const struct elffile *file, struct load_segments *ret) MUST_USE;

#endif

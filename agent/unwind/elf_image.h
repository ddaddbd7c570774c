// SPDX-License-Identifier: Apache-2.0
/*
 * What the agent needs of an executable. The head is where its segments are and its build ID: a few hundred bytes, which the
 * agent reads itself. The rest is what unwinding is made from, for cairn-unwind. Read with pread into memory of our own, so that
 * a file that is cut or replaced meanwhile gives an error and not a SIGBUS.
 */
#ifndef CAIRN_AGENT_UNWIND_ELF_IMAGE_H
#define CAIRN_AGENT_UNWIND_ELF_IMAGE_H

#include "base/err.h"
#include "fileid/build_id.h"
#include "fileid/load_segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	UNWIND_SECTION_MAX = 256 << 20, /* bytes of one call frame section */
	UNWIND_SECTIONS_MAX = 1 << 16,
	UNWIND_NAMES_MAX = 8 << 20, /* bytes of the section name table */
	UNWIND_PROGRAM_HEADERS_MAX = 512,
	UNWIND_NOTE_MAX = 1 << 16,
	UNWIND_PLTS_MAX = 4,
	UNWIND_PLT_PUSHED = 11, /* bytes of a lazy PLT entry behind which it has pushed its number */
	UNWIND_DEBUGLINK_MAX = 256,
	UNWIND_INIT_MAX = 256, /* bytes of .init or .fini that is looked at */
	UNWIND_GO_DATA_MAX = 64 << 20, /* bytes of a section that is searched for moduledata */
	UNWIND_GO_HEADERS_MAX = 16,    /* what looks like a .gopclntab, where no section has its name */
};

/* A file, or an image in memory (vDSO). Borrowed. */
struct unwind_source {
	int fd; /* -1: bytes */
	const uint8_t *bytes;
	uint64_t len;
	const char *name; /* for errors */
};

struct unwind_section {
	uint8_t *bytes; /* NULL: there is none */
	size_t len;
	uint64_t vaddr;
};

struct unwind_plt {
	uint64_t low, high;
	bool is_lazy; /* its entries push a number */
};

struct unwind_elf {
	const char *name; /* borrowed from the source */
	/* The head. */
	struct load_segments segments;
	struct build_id build_id;
	uint64_t entry; /* 0: none */
	/* The rest. */
	struct unwind_section eh_frame, debug_frame, gopclntab;
	uint64_t go_text; /* .gopclntab's text start, where its header has none; 0: not known */
	struct unwind_plt plts[UNWIND_PLTS_MAX];
	size_t plt_count;
	struct unwind_plt inits[2]; /* .init and .fini, where they are the start-up files' frame around calls */
	size_t init_count;
	char debuglink[UNWIND_DEBUGLINK_MAX]; /* "": none */
};

/**
 * Reads the head of a little-endian ELF64 file for x86-64.
 * @return NULL; ERR_FORMAT: not ELF, or damaged; ERR_UNSUPPORTED: another class or machine (x32 and 32-bit too), by name;
 *         ERR_LIMIT; ERR_OS; ERR_NOMEM. Any thread. Reads ELF header, program headers and notes.
 */
struct err *unwind_elf_read_head(const struct unwind_source *source, struct unwind_elf *ret) MUST_USE;
/** Reads head and rest; errors as unwind_elf_read_head. */
struct err *unwind_elf_read(const struct unwind_source *source, struct unwind_elf *ret) MUST_USE;
void unwind_elf_deinit(struct unwind_elf *elf);

#endif

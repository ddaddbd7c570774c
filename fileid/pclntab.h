// SPDX-License-Identifier: Apache-2.0
/*
 * The frame of Go's function table (.gopclntab): its header, its list of functions, its programs. What the functions are
 * called and where their lines are is symbolizer/build's to read, how large their stack frames are the agent's.
 *
 *     header     magic (4), 0, 0, instruction quantum, pointer size; then words: functions, files, [text start,] and the offsets
 *                of the following tables
 *     names      NUL-terminated
 *     cutab      u32: file number of a compilation unit -> offset in filetab, or all ones
 *     filetab    paths, NUL-terminated
 *     pctab      programs: pairs of varints (value, zigzag; code bytes) from the function's entry on
 *     functab    (entry, offset of struct _func) for each function, then the end; struct _func itself follows
 *
 *     magic        Go          entries in functab    struct _func
 *     0xfffffffa   1.16, 1.17  words, absolute       44 bytes (8 + 36)
 *     0xfffffff0   1.18, 1.19  u32 from text start   40 bytes
 *     0xfffffff1   1.20 on     u32 from text start   44, start line
 *
 * The text start, where the header has none (Go 1.26, position-independent programs), stands in the runtime's moduledata, found
 * by its first two words (addresses of the header and of the names), in data or in the relocations of a PIE.
 *
 * Source: runtime/symtab.go, internal/abi/symtab.go, debug/gosym of Go 1.16 to 1.26.
 */
#ifndef CAIRN_FILEID_PCLNTAB_H
#define CAIRN_FILEID_PCLNTAB_H

#include "base/err.h"
#include "base/reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCLNTAB_MAGIC_16 0xfffffffaU
#define PCLNTAB_MAGIC_18 0xfffffff0U
#define PCLNTAB_MAGIC_20 0xfffffff1U

enum {
	PCLNTAB_MODULE_TEXT = 22, /* words from the start of moduledata */
	PCLNTAB_CANDIDATES_MAX = 16, /* relocations that may name the header */
};

struct pclntab {
	struct reader table; /* all of it, borrowed */
	uint64_t vaddr;	     /* of it */
	uint64_t text;	     /* its text start; 0: not known (magic 18 and 20) */
	uint64_t count;	     /* of functions */
	uint64_t names, cutab, filetab, pctab, functab; /* offsets of tables, inside of it */
	uint32_t magic;
	unsigned ptr_size, quantum; /* 4 or 8; 1 to 4 */
};

/* One entry of functab. Addresses are as linked once pclntab.text is known. */
struct pclntab_function {
	uint64_t low, high; /* [low, high); may be empty or out of order in a damaged table */
	uint64_t offset;    /* of struct _func, from functab */
};

/* Fixed members of struct _func. */
struct pclntab_func {
	uint32_t name, pcsp, pcfile, pcln, npcdata, cu, start_line; /* start_line: 0 before Go 1.20 */
	uint8_t func_id, flag, nfuncdata;
	uint64_t pcdata_at; /* offset in the table: npcdata u32s, then funcdata */
};

enum pclntab_flag {
	PCLNTAB_TOP_FRAME = 1, /* Go 1.17: the outermost frame of its stack */
	PCLNTAB_SP_WRITE = 2,  /* writes the stack pointer in ways that pcsp does not say */
};

/**
 * Reads the header.
 * @param bytes  borrowed by @p ret
 * @return NULL; ERR_FORMAT: damaged; ERR_UNSUPPORTED: an unknown version. Any thread.
 */
struct err *pclntab_open(const void *bytes, size_t len, bool big_endian, uint64_t vaddr, const char *place, struct pclntab *ret) MUST_USE;

/**
 * Looks for what may be a header of a known version, from @p *offset on: where another linker than Go's merged the table into .data.rel.ro.
 * @return true and its offset, a multiple of the word size. Any thread. O(len).
 */
bool pclntab_search(const void *bytes, size_t len, bool big_endian, size_t *offset);

/** A reader at an offset of the table; failed past its end. */
struct reader pclntab_at(const struct pclntab *tab, uint64_t offset);

/** Function @p index below tab->count. O(1). */
struct pclntab_function pclntab_function(const struct pclntab *tab, uint64_t index);

/** Reads struct _func; false: there is none. */
bool pclntab_func(const struct pclntab *tab, const struct pclntab_function *function, struct pclntab_func *ret);

/** Text in a table of the table, at most @p limit bytes; NULL: none that ends. */
const char *pclntab_name(const struct pclntab *tab, uint64_t table, uint64_t offset, size_t limit);

/* A program of pctab under way: the value holds for `bytes` more bytes of code. */
struct pclntab_steps {
	struct reader r;
	uint32_t value;
	uint64_t bytes;
	bool first;
};

/** The program at an offset of pctab; 0 is no program. */
struct pclntab_steps pclntab_steps(const struct pclntab *tab, uint32_t offset);
/** The next step. False at the end, with r.failed when it is damaged. */
bool pclntab_next(const struct pclntab *tab, struct pclntab_steps *steps);

/** Looks for moduledata in the bytes of a section of data. @return true and its address. */
bool pclntab_module_in_data(const struct pclntab *tab, const void *bytes, size_t len, uint64_t section_vaddr, uint64_t *ret);
/** Likewise in the entries of an Elf64_Rela section, for a PIE. */
bool pclntab_module_in_relocations(const struct pclntab *tab, const void *bytes, size_t len, uint64_t *ret);
/** The addend of a relocation of the word at @p vaddr; 0: none. O(len). */
uint64_t pclntab_relocated_word(const struct pclntab *tab, const void *bytes, size_t len, uint64_t vaddr);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Function symbols of an ELF file (.symtab, else .dynsym): sorted, grouped by address, with extents also for those that
 * have no size (assembler). What DWARF does not cover gets its name from here; what it does, its aliases.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_SYMBOLS_H
#define CAIRN_SYMBOLIZER_BUILD_SYMBOLS_H

#include "symbolizer/build/elf_file.h"

#include <stdint.h>

/* A file with more symbol table entries than this is refused. */
enum { SYMBOLS_MAX = 1 << 26 };

enum symbol_binding {
	SYMBOL_GLOBAL,
	SYMBOL_WEAK,
	SYMBOL_LOCAL,
};

struct symbol {
	uint64_t vaddr;
	uint64_t high;	    /* end of its extent: vaddr + size; sizeless: the next symbol with another address or the end of the section */
	const char *name;   /* borrowed from the ELF image, without an @VERSION; name_len bytes, NOT NUL-terminated there */
	uint32_t name_len;
	uint8_t binding;    /* enum symbol_binding */
	bool sized;	    /* st_size was not 0 */
	bool ifunc;	    /* STT_GNU_IFUNC: the resolver's code */
};

/*
 * Sorted by vaddr; at one address the preferred first: sized before sizeless, global before weak before local, fewer leading
 * underscores, shorter, then by bytes. Equal names at one address are one symbol. Sizeless symbols inside a sized one's
 * extent are left out unless they begin a group of their own (then they stay, with their extent cut at the sized one's end).
 */
struct symbols {
	struct symbol *items;
	size_t count;
};

/**
 * Reads the function symbols: STT_FUNC and STT_GNU_IFUNC, and STT_NOTYPE that is named, in executable sections; mapping
 * symbols ($x, $d, $a, $t, .L) and section and file symbols are left out.
 * @param dynamic  .dynsym instead of .symtab
 * @param ret      empty when the file has no such table; names live as long as @p file's section bytes
 * @return NULL; ERR_FORMAT: a table or string table that does not fit (an entry whose name is out of range is dropped);
 *         ERR_LIMIT; ERR_NOMEM. Any thread. O(n log n).
 */
struct err *symbols_read(struct elffile *file, bool dynamic, struct symbols *ret) MUST_USE;
/** For CLEANUP. */
void symbols_deinit(struct symbols *symbols);

/** The first (preferred) symbol of the group with the highest vaddr whose extent holds @p vaddr, else NULL. O(log n). */
const struct symbol *symbols_find(const struct symbols *symbols, uint64_t vaddr);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Function symbols of an ELF file (.symtab or .dynsym): sorted, grouped by address, with extents also for those that
 * have no size (assembler). What DWARF does not cover gets its name from here; what it does, its aliases.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_SYMBOLS_H
#define CAIRN_SYMBOLIZER_BUILD_SYMBOLS_H

#include "symbolizer/build/elf_file.h"

#include <stdint.h>

enum {
	SYMBOLS_MAX = 1 << 26,	    /* entries of a symbol table; more are refused */
	SYMBOL_NAME_MAX = 64 * 1024, /* bytes; a symbol with a longer name is left out */
	SYMBOL_GUESS_MAX = 1024,    /* bytes of a symbol of .dynsym without a size */
};

enum symbol_binding {
	SYMBOL_GLOBAL,
	SYMBOL_WEAK,
	SYMBOL_LOCAL,
};

struct symbol {
	uint64_t vaddr;
	uint64_t high;	  /* [vaddr, high): by st_size, of a sizeless one up to the next address with a symbol, at most its section's end (and SYMBOL_GUESS_MAX) */
	const char *name; /* name_len bytes, no NUL behind them where an @VERSION was cut off; borrowed, see symbols_read */
	uint32_t name_len;
	uint8_t binding; /* enum symbol_binding */
	bool sized;	 /* st_size was not 0 */
	bool ifunc;	 /* STT_GNU_IFUNC: the code is the resolver's */
};

/* [low, high) belongs to the group of symbols that begins at items[symbol]. */
struct symbol_range {
	uint64_t low, high;
	uint32_t symbol;
};

/*
 * items: sorted by vaddr; at one address the preferred first: sized before sizeless, global before weak before local, not
 * ifunc before ifunc, fewer leading underscores, shorter, then by bytes. No two of one address have the same name. A sizeless
 * one strictly inside a sized one is a label, not a function, and is left out.
 * ranges: disjoint and sorted. Where extents nest or overlap, the symbol that begins last has the address.
 */
struct symbols {
	struct symbol *items;
	size_t count;
	struct symbol_range *ranges;
	size_t range_count;
};

/**
 * Reads the function symbols: STT_FUNC, STT_GNU_IFUNC and named STT_NOTYPE that lie in an executable section. Left out:
 * section and file symbols, mapping symbols ($a $d $t $x), NOTYPE names that begin with '.' (.L labels, annobin).
 * Addresses of a relocatable file are those of its layout (elffile_base).
 * @param dynamic  .dynsym instead of .symtab
 * @param ret      empty when the file has no such table. Names live until the file is closed or its string table released
 * @return NULL; ERR_FORMAT: a table that does not fit (a single entry whose name is out of range is only dropped);
 *         ERR_LIMIT; ERR_NOMEM. Any thread. O(n log n).
 */
struct err *symbols_read(struct elffile *file, bool dynamic, struct symbols *ret) MUST_USE;
/** For CLEANUP too. */
void symbols_deinit(struct symbols *symbols);

/** The range that holds @p vaddr, or NULL. O(log n). Any thread. */
const struct symbol_range *symbols_find(const struct symbols *symbols, uint64_t vaddr);
/** The first symbol that begins behind @p vaddr, or the count. O(log n). Any thread. */
size_t symbols_behind(const struct symbols *symbols, uint64_t vaddr);
/** How many symbols share the address of items[first], @p first included, when they follow it. O(group). */
size_t symbols_group(const struct symbols *symbols, size_t first);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Reading a Cairn table: an address in, frames out, innermost first, straight on the bytes. No parsing,
 * no allocation, unaligned loads only. Any byte of a table may be hostile: every read is bounds-checked, a wrong
 * answer is possible, a crash or an endless loop is not. The checksum is verified by table_verify, not per lookup.
 */
#ifndef CAIRN_SYMBOLIZER_TABLE_TABLE_H
#define CAIRN_SYMBOLIZER_TABLE_TABLE_H

#include "base/err.h"
#include "fileid/build_id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Deeper inline chains than this are cut by the builder, which counts them. */
enum { TABLE_MAX_DEPTH = 1024 };

/* What the names and lines of a table came from; a table may have several. */
enum table_source {
	TABLE_FROM_DWARF = 1 << 0,
	TABLE_FROM_GOPCLNTAB = 1 << 1,
	TABLE_FROM_SYMTAB = 1 << 2,
	TABLE_FROM_GNU_DEBUGDATA = 1 << 3,
	TABLE_FROM_DYNSYM = 1 << 4,
};

/* One frame. Strings are NUL-terminated, borrowed from the table's bytes, never NULL ("" when unknown). */
struct table_frame {
	const char *function; /* linkage name */
	const char *dir;      /* of the source file; "" when base is a whole path */
	const char *base;     /* "" when the file is unknown */
	uint32_t line;	      /* 0: unknown */
	uint32_t column;      /* 0: unknown */
	uint32_t start_line;  /* of the function's declaration, 0: unknown */
	uint32_t function_id; /* dense number of the function in this table: for deduplication */
	uint32_t file_id;     /* dense number of the file in this table, 0: unknown */
	bool inlined;	      /* false on the last frame of a chain */
	/* outermost frame only: address minus the entry, which of a cold part is its own; 0 below the entry */
	uint64_t offset;
	uint32_t aliases;     /* outermost frame only: handle for table_aliases, 0: none */
};

enum { TABLE_MAX_FIELDS = 5 };

/* Records of one bit width, packed without gaps; the fields stand in a record in the order of `width`. table.c's own. */
struct table_array {
	const uint8_t *at;
	uint32_t count;
	uint8_t bits; /* of a record */
	uint8_t width[TABLE_MAX_FIELDS];
	uint8_t shift[TABLE_MAX_FIELDS]; /* first bit of the field in a record */
	uint64_t mask[TABLE_MAX_FIELDS];
};

/*
 * An opened table: a view on bytes that the caller keeps alive and unchanged. Copyable. The members are table.c's own:
 * what table_open decoded from the header, so that a lookup does not.
 */
struct table {
	const uint8_t *bytes;
	size_t len;
	uint64_t base, span; /* rows cover [base, base + span) */
	uint64_t entry_base; /* entries of concrete functions count from here */
	const uint8_t *top, *keys, *offsets, *blocks;
	uint32_t top_count, block_count, block_bytes;
	uint8_t key_bytes; /* 4 or 8 */
	struct table_array nodes, wide, concretes, functions, files, aliases;
	const char *text;
	uint32_t text_len;
};

/**
 * Checks header, version and section bounds; does not read the rest. O(1).
 * @return NULL; ERR_CORRUPT: not a Cairn table, or bounds that do not fit; ERR_UNSUPPORTED: a version that this reader
 *         does not know. Any thread.
 */
struct err *table_open(const void *bytes, size_t len, struct table *ret) MUST_USE;

/** Verifies the checksum over all bytes. ERR_CORRUPT. At commit, import and check, not per lookup. O(len). */
struct err *table_verify(const struct table *table) MUST_USE;

/**
 * The frames that cover one address, innermost first.
 * @param vaddr   address as linked
 * @param frames  the caller's array of @p cap
 * @return how many frames were written; 0 when nothing covers vaddr. A chain longer than @p cap keeps its innermost
 *         cap - 1 frames and its outermost. Any thread. O(log blocks + depth).
 */
size_t table_lookup(const struct table *table, uint64_t vaddr, struct table_frame *frames, size_t cap);

/**
 * Many addresses, in any order. Addresses are taken from the front until all are done or the frames do not fit.
 * @param vaddrs   @p count addresses
 * @param frames   the caller's array of @p frames_cap, at least TABLE_MAX_DEPTH
 * @param first_ret  array of count + 1: the frames of address i are frames[first_ret[i] .. first_ret[i + 1])
 * @return how many addresses were done (at least 1 when count is not 0). Any thread.
 */
size_t table_lookup_batch(const struct table *table, const uint64_t *vaddrs, size_t count, struct table_frame *frames,
	size_t frames_cap, uint32_t *first_ret);

/** The next name of the same address (folded functions, versioned symbols), or NULL after the last. @p cursor starts as the frame's `aliases`. */
const char *table_next_alias(const struct table *table, uint32_t *cursor);

/* What a table says of itself: for `cairn table stat`, `store check` and the API. */
struct table_info {
	uint32_t version;
	uint32_t sources; /* enum table_source bits */
	uint16_t elf_machine; /* e_machine */
	struct build_id build_id;
	uint64_t low_vaddr, high_vaddr; /* [low, high) of all ranges */
	uint64_t functions, files, inline_nodes, concretes, aliases, rows, blocks;
	/* These, the header and some padding make up total_bytes. Concrete functions and aliases count as functions. */
	uint64_t index_bytes, block_bytes, node_bytes, function_bytes, file_bytes, string_bytes, total_bytes;
};
void table_info(const struct table *table, struct table_info *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes of a Cairn table, format 1: what table.c reads and writer.c writes, and nobody else. All little-endian,
 * nothing aligned. docs/table-format.md tells the same with reasons and measurements.
 *
 *     header     struct table_header, 304 bytes
 *     blocks     rows in blocks of 1 to 32, one behind the other
 *     top        every 16th key, key_bytes each
 *     keys       start of each block from base_vaddr, key_bytes (4 or 8) each; padded to a multiple of 16 with all ones
 *     offsets    for 16 blocks each: u32 where the first begins in `blocks`, and 16 times u16 from there
 *     nodes      inline tree: packed records, see below
 *     wide       nodes that do not fit the narrow record
 *     concretes  out-of-line functions
 *     functions, files, aliases
 *     text       NUL-terminated strings, the first one empty
 *
 * A section begins at 48 modulo 64: in LMDB a large value begins at 16 modulo 64, so that sections begin with a cache line.
 * Between sections are zeros, at least 8, so that an 8-byte load at the last bit of a section stays inside the table.
 *
 * Packed array: record i occupies bits [i * bits, (i + 1) * bits), least significant first; so do fields in a record.
 *
 * Block: 9 or 12 bytes of head
 *     u32  node width 5 bits, line 5 (31: 34 bits wide), column 5 (31: 32 bits wide), file 2 (0, 1, 2, 6 bits wide),
 *          flags: 17 starts are a bitmap, 18 node code 0 is a hole, 19 line code 0 is "unknown", 20 the minima are wide,
 *          rows - 1 5 bits, starts 6
 *     node_min, line_min (modulo 2^32): u24, i16; wide: u32, u32
 *   starts: bitmap: its bytes, bit i - 1 stands for a row that starts i bytes after the key;
 *           else bits per start, rows - 1 of them, packed to whole bytes
 *   then the starts of all rows but the first, which starts at the key;
 *   then, if the file width is not 0: u8 n, n times u32 file number + 1 (0 unknown);
 *   then the rows, packed: node, line, column, file
 *     node    code 0 a hole if flag 25; else node_min + code - (flag 25)
 *     line    code 0 unknown if flag 26; else start_line of the node's function + line_min + code - (flag 26)
 *     file    0: the file of the node's function; else entry code - 1 of the block's list
 *
 * Node record: distance, function, call line, call column.
 *     distance 0            a concrete function: line and column together hold its number in `concretes`
 *     distance all ones     all the rest holds a number in `wide`
 *     else                  the parent is node number - distance; call_file is the file of the parent's function;
 *                           call line counts from the start_line of the parent's function
 *   wide record: distance, function, call file + 1 (0 unknown), call line as it is, call column.
 * Concrete: entry - entry_base, first alias + 1 (0 none).
 * Function: name in text, start_line, file + 1 (0 unknown).  File: dir in text, base in text.
 * Alias: last of its set (1 bit), name in text.
 */
#ifndef CAIRN_SYMBOLIZER_TABLE_FORMAT_H
#define CAIRN_SYMBOLIZER_TABLE_FORMAT_H

#include "fileid/build_id.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tables are read in place, little-endian");

enum {
	FORMAT_VERSION = 1,
	FORMAT_BLOCK_ROWS = 32,
	FORMAT_BLOCK_HEAD = 9,
	FORMAT_BLOCK_WIDE_HEAD = 12,
	FORMAT_OFFSETS_BYTES = 36, /* of a group */
	FORMAT_GROUP = 16,    /* keys under one key of `top`: one cache line of u32 */
	FORMAT_MAX_WIDTH = 57, /* of a field that one unaligned 8-byte load can hold */
	FORMAT_PADDING = 8,
	FORMAT_BLOCK_PADDING = 48, /* behind `blocks`: starts are read 48 bytes at a time */
	FORMAT_SECTION_ALIGN = 64,
	FORMAT_SECTION_AT = 48, /* modulo FORMAT_SECTION_ALIGN */
	FORMAT_MAX_FILES_IN_BLOCK = FORMAT_BLOCK_ROWS,
};

enum {
	HEAD_NODE_SHIFT = 0,
	HEAD_LINE_SHIFT = 5,
	HEAD_COLUMN_SHIFT = 10,
	HEAD_FILE_SHIFT = 15,
	HEAD_BITMAP = 1 << 17,
	HEAD_HOLE = 1 << 18,
	HEAD_NO_LINE = 1 << 19,
	HEAD_WIDE = 1 << 20,
	HEAD_ROWS_SHIFT = 21,
	HEAD_STARTS_SHIFT = 26,
	HEAD_WIDTH_MASK = 31,
	HEAD_STARTS_MAX = 63,
	/* widths that 31 stands for, and 30 is the widest that stands for itself */
	LINE_WIDEST = 34,
	COLUMN_WIDEST = 32,
	NODE_WIDEST = 31,
};

enum { NODE_DISTANCE, NODE_FUNCTION, NODE_LINE, NODE_COLUMN, NODE_FIELDS };
enum { WIDE_DISTANCE, WIDE_FUNCTION, WIDE_FILE, WIDE_LINE, WIDE_COLUMN, WIDE_FIELDS };
enum { CONCRETE_ENTRY, CONCRETE_ALIAS, CONCRETE_FIELDS };
enum { FUNCTION_NAME, FUNCTION_LINE, FUNCTION_FILE, FUNCTION_FIELDS };
enum { FILE_DIR, FILE_BASE, FILE_FIELDS };
enum { ALIAS_LAST, ALIAS_NAME, ALIAS_FIELDS };

enum { ARRAY_NODES, ARRAY_WIDE, ARRAY_CONCRETES, ARRAY_FUNCTIONS, ARRAY_FILES, ARRAY_ALIASES, ARRAY_COUNT };

/* A packed array: 16 bytes. */
struct format_array {
	uint32_t offset, count;
	uint8_t bits;
	uint8_t width[5];
	uint8_t zero[2];
};

struct table_header {
	char magic[8];
	uint32_t version;
	uint32_t header_bytes;
	uint64_t checksum; /* XXH3 of all that follows */
	uint64_t total_bytes;
	uint32_t sources;
	uint16_t elf_machine;
	uint8_t key_bytes;
	uint8_t build_id_len;
	uint8_t build_id[BUILD_ID_MAX];
	uint64_t base_vaddr, span, entry_base, row_count;
	uint32_t block_count;
	uint32_t blocks_offset, block_bytes;
	uint32_t top_offset, keys_offset, offsets_offset;
	uint32_t text_offset, text_bytes;
	struct format_array arrays[ARRAY_COUNT];
	uint8_t zero[40];
};
static_assert(sizeof(struct table_header) == 304, "docs/table-format.md");
static_assert(offsetof(struct table_header, checksum) == 16, "docs/table-format.md");

#define FORMAT_MAGIC "CAIRNTAB"
/* The checksum covers the bytes from here on. */
enum { FORMAT_CHECKED_FROM = 24 };

static inline uint16_t format_load16(const uint8_t *at)
{
	uint16_t value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint32_t format_load32(const uint8_t *at)
{
	uint32_t value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint64_t format_load64(const uint8_t *at)
{
	uint64_t value;
	memcpy(&value, at, sizeof(value));
	return value;
}

/* @p width at most FORMAT_MAX_WIDTH bits that begin at bit @p bit of @p at; reads 8 bytes from at + bit / 8. */
static inline uint64_t format_bits(const uint8_t *at, uint64_t bit, unsigned width)
{
	return format_load64(at + (bit >> 3)) >> (bit & 7) & ((UINT64_C(1) << width) - 1);
}

/* How many bits @p value takes; 0 for 0. */
static inline unsigned format_width(uint64_t value)
{
	return value ? 64 - (unsigned)__builtin_clzll(value) : 0;
}

#endif

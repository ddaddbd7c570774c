// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes of a Cairn table, format 1: what table.c reads and writer.c writes, and nobody else. All little-endian,
 * nothing aligned. docs/table-format.md tells the same with reasons and measurements.
 *
 *     header     struct table_header, 304 bytes
 *     blocks     rows in blocks of 1 to 32, one behind the other
 *     top        every 16th key, key_bytes each
 *     keys       start of each block from base_vaddr, key_bytes (4 or 8) each; padded to a multiple of 16 with all ones
 *     offsets    u32 each: where the block begins in `blocks`
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
 * Block: 14 bytes of head
 *     u32  widths: node 6 bits, line 6, column 6, file 6, then flags: 24 starts are a bitmap, 25 node code 0 is a hole,
 *          26 line code 0 is "unknown"
 *     u32  node_min
 *     u32  line_min (modulo 2^32)
 *     u8   rows - 1
 *     u8   starts: bitmap: its bytes, bit i - 1 stands for a row that starts i bytes after the key;
 *                  else bits per start, rows - 1 of them, packed to whole bytes
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
	FORMAT_BLOCK_HEAD = 14,
	FORMAT_GROUP = 16,    /* keys under one key of `top`: one cache line of u32 */
	FORMAT_MAX_WIDTH = 57, /* of a field that one unaligned 8-byte load can hold */
	FORMAT_PADDING = 8,
	FORMAT_BLOCK_PADDING = 48, /* behind `blocks`: starts are read 48 bytes at a time */
	FORMAT_SECTION_ALIGN = 64,
	FORMAT_SECTION_AT = 48, /* modulo FORMAT_SECTION_ALIGN */
	FORMAT_MAX_FILES_IN_BLOCK = FORMAT_BLOCK_ROWS,
};

enum { WIDTH_NODE_SHIFT = 0, WIDTH_LINE_SHIFT = 6, WIDTH_COLUMN_SHIFT = 12, WIDTH_FILE_SHIFT = 18, WIDTH_MASK = 63 };
enum {
	BLOCK_BITMAP = 1 << 24,
	BLOCK_HOLE = 1 << 25,
	BLOCK_NO_LINE = 1 << 26,
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

// SPDX-License-Identifier: Apache-2.0
/*
 * What the parts of the writer share: writer.c (checks, numbers, the whole), writer_blocks.c (rows), writer_nodes.c (the
 * inline tree). For them only.
 */
#ifndef CAIRN_SYMBOLIZER_TABLE_WRITER_PARTS_H
#define CAIRN_SYMBOLIZER_TABLE_WRITER_PARTS_H

#include "base/hmap.h"
#include "base/intern.h"
#include "symbolizer/table/format.h"
#include "symbolizer/table/table.h"
#include "symbolizer/table/writer.h"

#include <stdbool.h>

struct function {
	uint32_t name, start_line;
	uint32_t file;	/* number + 1 of the vote's candidate, 0: unknown */
	uint32_t votes; /* for it, less those against */
};

struct file {
	uint32_t dir, base;
};

struct writer {
	const struct table_input *in;
	struct buf *out;
	size_t start; /* of the table in `out` */
	struct table_header header;

	uint32_t *node_number; /* of an input node, TABLE_NONE: unused */
	uint32_t *node_order;  /* input node of a number */
	uint16_t *node_depth;  /* of a number, 1: concrete */
	uint32_t node_count;

	uint32_t *function_number; /* of an input function, TABLE_NONE: unused */
	struct function *functions;
	uint32_t function_count;
	uint32_t *file_number; /* + 1, of an input file, 0: unused */
	struct file *files;
	uint32_t file_count;

	struct hmap known; /* functions by name and start_line, before that files by dir and base */
	struct intern text;	/* numbers of texts are what functions, files and aliases have until.. */
	uint32_t *text_offset;	/* .. writer_put_text gave each its place */
	struct buf text_bytes;
	struct buf keys; /* u64 per block */
	struct buf offsets, wide, concretes, aliases;
};

/* Appends fields to bytes that have 8 more than needed. Fewer than 8 bits wait in `word` between two calls. */
struct packer {
	uint8_t *at;
	uint64_t word;
	unsigned waiting;
};

static inline void pack32(struct packer *packer, uint64_t value, unsigned width)
{
	packer->word |= value << packer->waiting;
	packer->waiting += width;
	memcpy(packer->at, &packer->word, sizeof(packer->word));
	packer->at += packer->waiting / 8;
	packer->word >>= packer->waiting & ~7u;
	packer->waiting &= 7;
}

static inline void pack(struct packer *packer, uint64_t value, unsigned width)
{
	unsigned low = width < 32 ? width : 32;
	pack32(packer, value & UINT32_MAX, low);
	if (width > 32)
		pack32(packer, value >> 32, width - 32);
}

/* Ends the last byte; what was packed ends at the result. */
static inline uint8_t *pack_end(struct packer *packer)
{
	*packer->at = (uint8_t)packer->word;
	return packer->at + (packer->waiting ? 1 : 0);
}

/* Room for @p count records of @p bits in @p buf. */
static inline struct err *packer_begin(struct buf *buf, uint64_t count, unsigned bits, struct packer *ret)
{
	TRY(buf_reserve(buf, (size_t)((count * bits + 7) / 8 + 16)));
	*ret = (struct packer){.at = buf->data + buf->len};
	return NULL;
}

static inline void packer_finish(struct packer *packer, struct buf *buf)
{
	buf->len = (size_t)(pack_end(packer) - buf->data);
}

/* ---- numbers that input elements got ------------------------------------------------------------------------------ */

static inline struct function *function_of(const struct writer *w, uint32_t input_node)
{
	return &w->functions[w->function_number[w->in->nodes[input_node].function]];
}

static inline uint32_t file_code(const struct writer *w, uint32_t file)
{
	return file == TABLE_NONE ? 0 : w->file_number[file];
}

/* Makes a field wide enough for a value. */
static inline void widen(uint8_t *width, uint64_t value)
{
	if (format_width(value) > *width)
		*width = (uint8_t)format_width(value);
}

/* ---- the parts ---------------------------------------------------------------------------------------------------- */

/* Zeros up to where the next section may begin. */
struct err *writer_begin_section(struct writer *w, uint32_t *offset_ret) MUST_USE;
/* A whole section. */
struct err *writer_put_section(struct writer *w, const struct buf *bytes, uint32_t *offset_ret) MUST_USE;
/* Fills in a packed array's count and widths. */
void writer_describe(struct format_array *array, uint32_t count, const uint8_t *widths, unsigned fields);
/* The number of a text of the input. */
struct err *writer_text(struct writer *w, uint32_t input_offset, uint32_t *ret) MUST_USE;

/* writer_text.c: gives all texts their places in text_bytes. */
struct err *writer_place_text(struct writer *w) MUST_USE;
/* writer_blocks.c: sections blocks, top, keys, offsets. */
struct err *writer_put_blocks(struct writer *w) MUST_USE;
struct err *writer_put_index(struct writer *w) MUST_USE;
/* writer_nodes.c: sections nodes, wide, concretes, aliases. */
struct err *writer_put_nodes(struct writer *w) MUST_USE;

#endif

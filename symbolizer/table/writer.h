// SPDX-License-Identifier: Apache-2.0
/*
 * Making a Cairn table: the builder hands over flat arrays, sorted and checked here, and gets bytes. The same arrays
 * give the same bytes. This file and table.c are the two places that know the format.
 */
#ifndef CAIRN_SYMBOLIZER_TABLE_WRITER_H
#define CAIRN_SYMBOLIZER_TABLE_WRITER_H

#include "base/buf.h"
#include "fileid/build_id.h"

#include <stdint.h>

enum { TABLE_NONE = UINT32_MAX };

/* All text is an offset into `text`, a blob of NUL-terminated strings; equal strings need not be merged (they are here). */
struct table_input_file {
	uint32_t dir, base;
};

struct table_input_function {
	uint32_t name;	     /* linkage name */
	uint32_t file;	     /* of its declaration, or TABLE_NONE. Not stored: the writer finds the file of most of its rows */
	uint32_t start_line; /* 0: unknown */
};

/* A concrete function (parent TABLE_NONE) or an inlined call of one. A parent's number is smaller than its children's. */
struct table_input_node {
	uint32_t parent;
	uint32_t function;
	union {
		struct { /* an inlined call */
			uint32_t call_file; /* TABLE_NONE: unknown */
			uint32_t call_line, call_column;
		};
		struct { /* a concrete function */
			uint32_t alias_first, alias_count; /* in aliases[] */
		};
	};
	uint64_t entry_vaddr; /* concrete only */
};

/* From vaddr up to the next row's vaddr. Sorted by vaddr, strictly rising; the last one closes (node TABLE_NONE). */
struct table_input_row {
	uint64_t vaddr;
	uint32_t node; /* innermost; TABLE_NONE: nothing is known here */
	uint32_t file; /* TABLE_NONE: unknown */
	uint32_t line; /* 0: unknown */
	uint32_t column;
};

struct table_input {
	uint32_t sources; /* enum table_source bits */
	uint16_t elf_machine;
	struct build_id build_id;
	const char *text;
	size_t text_len;
	const struct table_input_file *files;
	size_t file_count;
	const struct table_input_function *functions;
	size_t function_count;
	const struct table_input_node *nodes;
	size_t node_count;
	const uint32_t *aliases; /* text offsets */
	size_t alias_count;
	const struct table_input_row *rows;
	size_t row_count;
};

/**
 * Encodes a table, appending to @p ret. Unused files, functions, nodes and text are left out, equal neighbours merged.
 * @return NULL; ERR_INVALID: the arrays break a rule above, or a chain is deeper than TABLE_MAX_DEPTH (says which element);
 *         ERR_LIMIT: past 4 GiB, or 2 Gi nodes; ERR_NOMEM. @p ret is as before on failure. Any thread. O(input).
 */
struct err *table_write(const struct table_input *input, struct buf *ret) MUST_USE;

#endif

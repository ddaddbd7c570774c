// SPDX-License-Identifier: Apache-2.0
/*
 * Encoding a table. format.h has the bytes; here is how the freedom that they leave is used.
 *
 * Numbers are given in the order of first use by the rows: nodes parents first, then functions, files and text in the order
 * of the nodes. So rows that are neighbours use nodes that are neighbours, what nothing uses is never numbered, and the
 * bytes depend on the content of the input only, not on its order of functions, files and text.
 *
 * What is predicted costs nothing:
 *   - A row's file is its function's, a call's file is that of the calling function: the file of a function is the one that
 *     most of its rows and calls are in (majority vote, one pass, no counters per file). jvm: 1.1 % of rows and 1.2 % of
 *     nodes differ, against 1.9 % with the declaration's file; libc 1.5 % against 28 %.
 *   - Lines count from the start_line of the function.
 * The widths of a node are those that make `nodes` and `wide` together smallest, found exactly: a histogram over the
 * three widths that a node needs, summed up along each axis, gives the number of wide nodes for every choice.
 *
 * Passes: nodes are checked; rows are checked, and number nodes and files; functions are numbered and vote; rows are
 * encoded block by block; nodes are encoded. Nothing is hashed per row or per node. Memory: 14 bytes per node, 12 per
 * function, 8 per file, and the table itself.
 */
#include "symbolizer/table/writer.h"

#include "base/digest.h"
#include "base/hmap.h"
#include "base/intern.h"
#include "symbolizer/table/format.h"
#include "symbolizer/table/table.h"

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
	struct intern text;
	struct buf keys; /* u64 per block */
	struct buf offsets, wide, concretes, aliases;
};

/* ---- bits --------------------------------------------------------------------------------------------------------- */

/* Appends fields to bytes that have 8 more than needed. Fewer than 8 bits wait in `word` between two calls. */
struct packer {
	uint8_t *at;
	uint64_t word;
	unsigned waiting;
};

static void pack32(struct packer *packer, uint64_t value, unsigned width)
{
	packer->word |= value << packer->waiting;
	packer->waiting += width;
	memcpy(packer->at, &packer->word, sizeof(packer->word));
	packer->at += packer->waiting / 8;
	packer->word >>= packer->waiting & ~7u;
	packer->waiting &= 7;
}

static void pack(struct packer *packer, uint64_t value, unsigned width)
{
	unsigned low = width < 32 ? width : 32;
	pack32(packer, value & UINT32_MAX, low);
	if (width > 32)
		pack32(packer, value >> 32, width - 32);
}

/* Ends the last byte; what was packed ends at the result. */
static uint8_t *pack_end(struct packer *packer)
{
	*packer->at = (uint8_t)packer->word;
	return packer->at + (packer->waiting ? 1 : 0);
}

/* Room for @p count records of @p bits in @p buf. */
static struct err *packer_begin(struct buf *buf, uint64_t count, unsigned bits, struct packer *ret)
{
	TRY(buf_reserve(buf, (size_t)((count * bits + 7) / 8 + 16)));
	*ret = (struct packer){.at = buf->data + buf->len};
	return NULL;
}

static void packer_finish(struct packer *packer, struct buf *buf)
{
	buf->len = (size_t)(pack_end(packer) - buf->data);
}

/* ---- sections ----------------------------------------------------------------------------------------------------- */

/* Zeros up to where the next section may begin. */
static struct err *begin_section(struct writer *w, uint32_t *offset_ret)
{
	size_t at = w->out->len - w->start + (w->out->len == w->start + sizeof(w->header) ? 0 : FORMAT_PADDING);
	at += (FORMAT_SECTION_AT - at) % FORMAT_SECTION_ALIGN;
	size_t zeros = at - (w->out->len - w->start);
	TRY(buf_reserve(w->out, zeros));
	memset(w->out->data + w->out->len, 0, zeros);
	w->out->len += zeros;
	*offset_ret = (uint32_t)at;
	return NULL;
}

static struct err *put_section(struct writer *w, const struct buf *bytes, uint32_t *offset_ret)
{
	TRY(begin_section(w, offset_ret));
	return bytes->len ? buf_append(w->out, bytes->data, bytes->len) : NULL;
}

static void describe(struct format_array *array, uint32_t count, const uint8_t *widths, unsigned fields)
{
	array->count = count;
	array->bits = 0;
	for (unsigned i = 0; i < fields; i++) {
		array->width[i] = widths[i];
		array->bits = (uint8_t)(array->bits + widths[i]);
	}
}

/* ---- checks ------------------------------------------------------------------------------------------------------- */

static bool text_ok(const struct table_input *in, uint32_t offset)
{
	return offset < in->text_len;
}

static bool index_ok(uint32_t index, size_t count)
{
	return index == TABLE_NONE || index < count;
}

static struct err *check_nodes(const struct table_input *in)
{
	for (size_t i = 0; i < in->node_count; i++) {
		const struct table_input_node *node = &in->nodes[i];
		if (node->function >= in->function_count)
			return err_new(ERR_INVALID, "table: node %zu: function %u of %zu", i, node->function, in->function_count);
		if (node->parent == TABLE_NONE) {
			if (node->alias_count > in->alias_count || node->alias_first > in->alias_count - node->alias_count)
				return err_new(ERR_INVALID, "table: node %zu: aliases %u + %u of %zu", i, node->alias_first,
					node->alias_count, in->alias_count);
		} else if (node->parent >= i) {
			return err_new(ERR_INVALID, "table: node %zu: its parent is node %u", i, node->parent);
		} else if (!index_ok(node->call_file, in->file_count)) {
			return err_new(ERR_INVALID, "table: node %zu: file %u of %zu", i, node->call_file, in->file_count);
		}
	}
	return NULL;
}

static struct err *check_texts(const struct table_input *in)
{
	if (in->text_len && in->text[in->text_len - 1] != 0)
		return err_new(ERR_INVALID, "table: text does not end in NUL");
	for (size_t i = 0; i < in->file_count; i++)
		if (!text_ok(in, in->files[i].dir) || !text_ok(in, in->files[i].base))
			return err_new(ERR_INVALID, "table: file %zu: text past the end", i);
	for (size_t i = 0; i < in->function_count; i++)
		if (!text_ok(in, in->functions[i].name))
			return err_new(ERR_INVALID, "table: function %zu: text past the end", i);
	for (size_t i = 0; i < in->alias_count; i++)
		if (!text_ok(in, in->aliases[i]))
			return err_new(ERR_INVALID, "table: alias %zu: text past the end", i);
	return NULL;
}

static struct err *check_input(const struct table_input *in)
{
	if (in->node_count >= TABLE_NONE || in->function_count >= TABLE_NONE || in->file_count >= TABLE_NONE ||
		in->alias_count >= TABLE_NONE || in->text_len > UINT32_MAX)
		return err_new(ERR_LIMIT, "table: more than 4 Gi elements of a kind");
	if (in->build_id.len > BUILD_ID_MAX)
		return err_new(ERR_INVALID, "table: build ID of %u bytes", in->build_id.len);
	TRY(check_texts(in));
	TRY(check_nodes(in));
	for (size_t i = 0; i < in->row_count; i++) {
		const struct table_input_row *row = &in->rows[i];
		if (i && row->vaddr <= in->rows[i - 1].vaddr)
			return err_new(ERR_INVALID, "table: row %zu: 0x%llx does not rise", i, (unsigned long long)row->vaddr);
		if (!index_ok(row->node, in->node_count))
			return err_new(ERR_INVALID, "table: row %zu: node %u of %zu", i, row->node, in->node_count);
		if (!index_ok(row->file, in->file_count))
			return err_new(ERR_INVALID, "table: row %zu: file %u of %zu", i, row->file, in->file_count);
	}
	if (in->row_count && in->rows[in->row_count - 1].node != TABLE_NONE)
		return err_new(ERR_INVALID, "table: row %zu: the last one must close", in->row_count - 1);
	return NULL;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static struct err *text_offset(struct writer *w, uint32_t input_offset, uint32_t *ret)
{
	const char *text = w->in->text + input_offset;
	uint32_t id;
	TRY(intern_add(&w->text, text, strlen(text), &id));
	*ret = w->text.offsets[id];
	return NULL;
}

/* The number + 1 of an input file, 0 for TABLE_NONE. */
static struct err *number_file(struct writer *w, uint32_t file, uint32_t *ret)
{
	*ret = 0;
	if (file == TABLE_NONE)
		return NULL;
	if (w->file_number[file] == 0) {
		struct file f;
		TRY(text_offset(w, w->in->files[file].dir, &f.dir));
		TRY(text_offset(w, w->in->files[file].base, &f.base));
		uint64_t key = (uint64_t)f.dir << 32 | f.base, number;
		if (!hmap_get(&w->known, key, &number)) {
			w->files[w->file_count++] = f;
			number = w->file_count;
			TRY(hmap_set(&w->known, key, number));
		}
		w->file_number[file] = (uint32_t)number;
	}
	*ret = w->file_number[file];
	return NULL;
}

/* Numbers a node's ancestors that have no number yet, outermost first, and the node. */
static struct err *number_node(struct writer *w, uint32_t node)
{
	uint32_t path[TABLE_MAX_DEPTH];
	unsigned count = 0;
	uint32_t n = node;
	for (; n != TABLE_NONE && w->node_number[n] == TABLE_NONE; n = w->in->nodes[n].parent) {
		if (count == TABLE_MAX_DEPTH)
			return err_new(ERR_INVALID, "table: node %u: more than %d ancestors", node, TABLE_MAX_DEPTH - 1);
		path[count++] = n;
	}
	unsigned depth = n == TABLE_NONE ? 0 : w->node_depth[w->node_number[n]];
	if (depth + count > TABLE_MAX_DEPTH)
		return err_new(ERR_INVALID, "table: node %u: more than %d ancestors", node, TABLE_MAX_DEPTH - 1);
	while (count) {
		w->node_order[w->node_count] = path[--count];
		w->node_depth[w->node_count] = (uint16_t)++depth;
		w->node_number[path[count]] = w->node_count++;
	}
	return NULL;
}

/* Nodes by the rows, files by the rows and the calls. */
static struct err *number_nodes_and_files(struct writer *w)
{
	const struct table_input *in = w->in;
	uint32_t ignored;
	for (size_t i = 0; i < in->row_count; i++) {
		const struct table_input_row *row = &in->rows[i];
		if (row->node == TABLE_NONE)
			continue;
		if (w->node_number[row->node] == TABLE_NONE)
			TRY(number_node(w, row->node));
		if (row->file != TABLE_NONE && w->file_number[row->file] == 0)
			TRY(number_file(w, row->file, &ignored));
	}
	for (uint32_t n = 0; n < w->node_count; n++) {
		const struct table_input_node *node = &in->nodes[w->node_order[n]];
		if (node->parent != TABLE_NONE)
			TRY(number_file(w, node->call_file, &ignored));
	}
	hmap_deinit(&w->known);
	w->known = (struct hmap){0};
	return NULL;
}

static struct err *number_functions(struct writer *w)
{
	for (uint32_t n = 0; n < w->node_count; n++) {
		uint32_t function = w->in->nodes[w->node_order[n]].function;
		if (w->function_number[function] != TABLE_NONE)
			continue;
		struct function f = {.start_line = w->in->functions[function].start_line};
		TRY(text_offset(w, w->in->functions[function].name, &f.name));
		uint64_t key = (uint64_t)f.name << 32 | f.start_line, number;
		if (!hmap_get(&w->known, key, &number)) {
			number = w->function_count;
			w->functions[w->function_count++] = f;
			TRY(hmap_set(&w->known, key, number));
		}
		w->function_number[function] = (uint32_t)number;
	}
	return NULL;
}

static struct function *function_of(const struct writer *w, uint32_t input_node)
{
	return &w->functions[w->function_number[w->in->nodes[input_node].function]];
}

/* One vote of Boyer and Moore's majority vote. */
static void vote(struct function *function, uint32_t file)
{
	if (function->votes == 0)
		function->file = file;
	if (function->file == file)
		function->votes++;
	else
		function->votes--;
}

static uint32_t file_code(const struct writer *w, uint32_t file)
{
	return file == TABLE_NONE ? 0 : w->file_number[file];
}

static void vote_files(struct writer *w)
{
	const struct table_input *in = w->in;
	for (size_t i = 0; i < in->row_count; i++)
		if (in->rows[i].node != TABLE_NONE)
			vote(function_of(w, in->rows[i].node), file_code(w, in->rows[i].file));
	for (uint32_t n = 0; n < w->node_count; n++) {
		const struct table_input_node *node = &in->nodes[w->node_order[n]];
		if (node->parent != TABLE_NONE)
			vote(function_of(w, node->parent), file_code(w, node->call_file));
	}
}

/* ---- blocks ------------------------------------------------------------------------------------------------------- */

/* A row as it is stored. */
struct coded_row {
	uint64_t vaddr;
	bool hole, no_line;
	uint32_t node;
	int64_t line; /* less the function's start_line */
	uint32_t column;
	uint32_t file; /* number + 1 */
	bool file_differs;
};

/* The widths and minima of a run of rows. */
struct shape {
	uint32_t node_min, node_max, column_max;
	int64_t line_min, line_max;
	bool any_node, any_line, hole, no_line, file_differs;
};

static struct coded_row code_row(const struct writer *w, const struct table_input_row *row)
{
	if (row->node == TABLE_NONE)
		return (struct coded_row){.vaddr = row->vaddr, .hole = true};
	const struct function *function = function_of(w, row->node);
	uint32_t file = file_code(w, row->file);
	return (struct coded_row){
		.vaddr = row->vaddr,
		.no_line = row->line == 0,
		.node = w->node_number[row->node],
		.line = (int64_t)row->line - function->start_line,
		.column = row->column,
		.file = file,
		.file_differs = file != function->file,
	};
}

static bool row_equal(const struct coded_row *a, const struct coded_row *b)
{
	if (a->hole || b->hole)
		return a->hole == b->hole;
	return a->node == b->node && a->line == b->line && a->column == b->column && a->file == b->file;
}

static void shape_add(struct shape *shape, const struct coded_row *row)
{
	shape->hole |= row->hole;
	if (row->hole)
		return;
	if (!shape->any_node || row->node < shape->node_min)
		shape->node_min = row->node;
	if (!shape->any_node || row->node > shape->node_max)
		shape->node_max = row->node;
	shape->any_node = true;
	if (row->column > shape->column_max)
		shape->column_max = row->column;
	shape->file_differs |= row->file_differs;
	shape->no_line |= row->no_line;
	if (row->no_line)
		return;
	if (!shape->any_line || row->line < shape->line_min)
		shape->line_min = row->line;
	if (!shape->any_line || row->line > shape->line_max)
		shape->line_max = row->line;
	shape->any_line = true;
}

/* The files of rows that differ from their functions', each once, in order; codes[i] is row i's. */
struct file_list {
	uint32_t files[FORMAT_MAX_FILES_IN_BLOCK];
	unsigned count;
	uint8_t codes[FORMAT_BLOCK_ROWS];
};

static void list_files(const struct coded_row *rows, unsigned count, struct file_list *ret)
{
	ret->count = 0;
	for (unsigned i = 0; i < count; i++) {
		ret->codes[i] = 0;
		if (rows[i].hole || !rows[i].file_differs)
			continue;
		unsigned k = 0;
		while (k < ret->count && ret->files[k] != rows[i].file)
			k++;
		if (k == ret->count)
			ret->files[ret->count++] = rows[i].file;
		ret->codes[i] = (uint8_t)(k + 1);
	}
}

/* The starts of all rows but the first: a bitmap or packed, whatever is smaller. Returns the byte that says how much. */
static uint8_t *put_starts(uint8_t *at, const struct coded_row *rows, unsigned count, bool *bitmap_ret, uint8_t *size_ret)
{
	uint64_t key = rows[0].vaddr, last = rows[count - 1].vaddr - key;
	unsigned width = format_width(last);
	uint64_t bitmap_bytes = (last + 7) / 8, packed_bytes = ((uint64_t)width * (count - 1) + 7) / 8;
	*bitmap_ret = bitmap_bytes <= packed_bytes && bitmap_bytes <= UINT8_MAX;
	if (*bitmap_ret) {
		*size_ret = (uint8_t)bitmap_bytes;
		memset(at, 0, bitmap_bytes);
		for (unsigned i = 1; i < count; i++) {
			uint64_t bit = rows[i].vaddr - key - 1;
			at[bit / 8] = (uint8_t)(at[bit / 8] | 1u << (bit & 7));
		}
		return at + bitmap_bytes;
	}
	*size_ret = (uint8_t)width;
	struct packer packer = {.at = at};
	for (unsigned i = 1; i < count; i++)
		pack(&packer, rows[i].vaddr - key, width);
	return pack_end(&packer);
}

/* The most that a block takes: head, 64 starts of 32 bits, file list, 64 rows of 34 + 33 + 32 + 7 bits. */
enum { BLOCK_MAX_BYTES = 2048 };

static struct err *put_block(struct writer *w, const struct coded_row *rows, unsigned count)
{
	struct shape shape = {0};
	for (unsigned i = 0; i < count; i++)
		shape_add(&shape, &rows[i]);
	struct file_list list;
	list_files(rows, count, &list);
	unsigned hole = shape.hole ? 1 : 0, no_line = shape.no_line ? 1 : 0;
	unsigned node_width = shape.any_node ? format_width((uint64_t)shape.node_max - shape.node_min + hole) : 0;
	unsigned line_width = shape.any_line ? format_width((uint64_t)(shape.line_max - shape.line_min) + no_line) : 0;
	unsigned column_width = format_width(shape.column_max), file_width = format_width(list.count);
	/* a block of nothing but rows without a line needs the code 0 all the same */
	uint32_t head = node_width << WIDTH_NODE_SHIFT | line_width << WIDTH_LINE_SHIFT | column_width << WIDTH_COLUMN_SHIFT |
		file_width << WIDTH_FILE_SHIFT | (hole ? (uint32_t)BLOCK_HOLE : 0) | (no_line ? (uint32_t)BLOCK_NO_LINE : 0);

	uint64_t key = rows[0].vaddr - w->header.base_vaddr;
	uint32_t offset = (uint32_t)(w->out->len - w->start - w->header.blocks_offset);
	TRY(buf_append(&w->keys, &key, sizeof(key)));
	TRY(buf_append(&w->offsets, &offset, sizeof(offset)));
	TRY(buf_reserve(w->out, BLOCK_MAX_BYTES));
	uint8_t *block = w->out->data + w->out->len;
	bool bitmap;
	uint8_t *at = put_starts(block + FORMAT_BLOCK_HEAD, rows, count, &bitmap, &block[13]);
	head |= bitmap ? (uint32_t)BLOCK_BITMAP : 0;
	uint32_t line_min = (uint32_t)(uint64_t)shape.line_min;
	memcpy(block, &head, 4);
	memcpy(block + 4, &shape.node_min, 4);
	memcpy(block + 8, &line_min, 4);
	block[12] = (uint8_t)(count - 1);
	if (file_width) {
		*at++ = (uint8_t)list.count;
		memcpy(at, list.files, list.count * sizeof(list.files[0]));
		at += list.count * sizeof(list.files[0]);
	}
	struct packer packer = {.at = at};
	for (unsigned i = 0; i < count; i++) {
		const struct coded_row *row = &rows[i];
		bool line = !row->hole && !row->no_line;
		pack(&packer, row->hole ? 0 : row->node - shape.node_min + (uint64_t)hole, node_width);
		pack(&packer, line ? (uint64_t)(row->line - shape.line_min) + no_line : 0, line_width);
		pack(&packer, row->hole ? 0 : row->column, column_width);
		pack(&packer, list.codes[i], file_width);
	}
	w->out->len = (size_t)(pack_end(&packer) - w->out->data);
	w->header.block_count++;
	return NULL;
}

static struct err *put_blocks(struct writer *w)
{
	const struct table_input *in = w->in;
	TRY(begin_section(w, &w->header.blocks_offset));
	struct coded_row rows[FORMAT_BLOCK_ROWS], last = {.hole = true};
	unsigned count = 0;
	for (size_t i = 0; i < in->row_count; i++) {
		struct coded_row row = code_row(w, &in->rows[i]);
		if (row_equal(&row, &last))
			continue;
		last = row;
		if (i + 1 == in->row_count) /* the one that closes is the end of the span */
			break;
		w->header.row_count++;
		if (count == FORMAT_BLOCK_ROWS || (count && row.vaddr - rows[0].vaddr > UINT32_MAX)) {
			TRY(put_block(w, rows, count));
			count = 0;
		}
		if (w->header.block_count == 0 && count == 0)
			w->header.base_vaddr = row.vaddr;
		rows[count++] = row;
	}
	if (count)
		TRY(put_block(w, rows, count));
	if (w->header.block_count)
		w->header.span = last.vaddr - w->header.base_vaddr;
	w->header.block_bytes = (uint32_t)(w->out->len - w->start - w->header.blocks_offset);
	return NULL;
}

static struct err *put_index(struct writer *w)
{
	struct table_header *h = &w->header;
	h->key_bytes = h->span > (UINT64_C(1) << 32) ? 8 : 4;
	TRY(begin_section(w, &h->top_offset));
	for (size_t i = 0; i < h->block_count; i += FORMAT_GROUP)
		TRY(buf_append(w->out, w->keys.data + i * 8, h->key_bytes));
	TRY(begin_section(w, &h->keys_offset));
	static const uint8_t ones[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	for (size_t i = 0; i < (h->block_count + FORMAT_GROUP - UINT64_C(1)) / FORMAT_GROUP * FORMAT_GROUP; i++)
		TRY(buf_append(w->out, i < h->block_count ? w->keys.data + i * 8 : ones, h->key_bytes));
	return put_section(w, &w->offsets, &h->offsets_offset);
}

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

/* Wider fields than these are stored wide. */
enum { NARROW_DISTANCE = 24, NARROW_LINE = 20, NARROW_COLUMN = 16 };

/* A call as it is stored. */
struct coded_node {
	uint32_t distance, function, file, line, column;
	uint64_t relative_line;
	bool narrow; /* may be, if the widths allow */
};

static struct coded_node code_node(const struct writer *w, uint32_t number)
{
	const struct table_input_node *node = &w->in->nodes[w->node_order[number]];
	const struct function *parent = function_of(w, node->parent);
	struct coded_node c = {
		.distance = number - w->node_number[node->parent],
		.function = w->function_number[node->function],
		.file = file_code(w, node->call_file),
		.line = node->call_line,
		.column = node->call_column,
		.relative_line = (uint64_t)node->call_line - parent->start_line,
	};
	c.narrow = node->call_line >= parent->start_line && c.file == parent->file;
	return c;
}

/* counts[d][l][c]: nodes that need these widths; summed up, those that these widths are enough for. */
struct histogram {
	uint32_t counts[NARROW_DISTANCE + 1][NARROW_LINE + 1][NARROW_COLUMN + 1];
};

static void histogram_sum(struct histogram *h)
{
	for (unsigned d = 0; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 0; l <= NARROW_LINE; l++)
			for (unsigned c = 1; c <= NARROW_COLUMN; c++)
				h->counts[d][l][c] += h->counts[d][l][c - 1];
	for (unsigned d = 0; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 1; l <= NARROW_LINE; l++)
			for (unsigned c = 0; c <= NARROW_COLUMN; c++)
				h->counts[d][l][c] += h->counts[d][l - 1][c];
	for (unsigned d = 1; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 0; l <= NARROW_LINE; l++)
			for (unsigned c = 0; c <= NARROW_COLUMN; c++)
				h->counts[d][l][c] += h->counts[d - 1][l][c];
}

/* How the nodes are stored. */
struct node_plan {
	uint32_t concretes, calls, wide;
	uint8_t narrow_width[NODE_FIELDS], wide_width[WIDE_FIELDS];
	uint64_t entry_min, entry_max;
};

/* The distance's all-ones value marks a wide node, so that it takes one more than the distance itself. */
static unsigned distance_width(uint32_t distance)
{
	return format_width((uint64_t)distance + 1);
}

static void plan_widen(uint8_t *width, uint64_t value)
{
	if (format_width(value) > *width)
		*width = (uint8_t)format_width(value);
}

static void count_nodes(const struct writer *w, struct histogram *h, struct node_plan *plan)
{
	for (uint32_t n = 0; n < w->node_count; n++) {
		const struct table_input_node *node = &w->in->nodes[w->node_order[n]];
		if (node->parent == TABLE_NONE) {
			if (plan->concretes == 0 || node->entry_vaddr < plan->entry_min)
				plan->entry_min = node->entry_vaddr;
			if (plan->concretes == 0 || node->entry_vaddr > plan->entry_max)
				plan->entry_max = node->entry_vaddr;
			plan->concretes++;
			continue;
		}
		struct coded_node c = code_node(w, n);
		plan->calls++;
		plan_widen(&plan->wide_width[WIDE_DISTANCE], c.distance);
		plan_widen(&plan->wide_width[WIDE_LINE], c.line);
		plan_widen(&plan->wide_width[WIDE_COLUMN], c.column);
		unsigned d = distance_width(c.distance), l = format_width(c.relative_line), k = format_width(c.column);
		if (c.narrow && d <= NARROW_DISTANCE && l <= NARROW_LINE && k <= NARROW_COLUMN)
			h->counts[d][l][k]++;
	}
	plan->wide_width[WIDE_FUNCTION] = (uint8_t)format_width(w->function_count);
	plan->wide_width[WIDE_FILE] = (uint8_t)format_width(w->file_count);
}

/* Tries all widths. */
static void choose_widths(const struct writer *w, const struct histogram *h, struct node_plan *plan)
{
	unsigned function = format_width(w->function_count ? w->function_count - 1 : 0), wide_bits = 0;
	for (unsigned i = 0; i < WIDE_FIELDS; i++)
		wide_bits += plan->wide_width[i];
	uint64_t best = UINT64_MAX;
	for (unsigned d = 1; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 0; l <= NARROW_LINE; l++)
			for (unsigned c = 0; c <= NARROW_COLUMN; c++) {
				uint32_t wide = plan->calls - h->counts[d][l][c];
				unsigned rest = function + l + c;
				unsigned number = format_width(wide > plan->concretes ? wide : plan->concretes);
				unsigned column = rest < number ? c + number - rest : c; /* room for the number */
				uint64_t bits = (uint64_t)w->node_count * (d + function + l + column) + (uint64_t)wide * wide_bits;
				if (bits >= best)
					continue;
				best = bits;
				plan->wide = wide;
				plan->narrow_width[NODE_DISTANCE] = (uint8_t)d;
				plan->narrow_width[NODE_FUNCTION] = (uint8_t)function;
				plan->narrow_width[NODE_LINE] = (uint8_t)l;
				plan->narrow_width[NODE_COLUMN] = (uint8_t)column;
			}
}

struct node_packers {
	struct packer nodes, wide, concretes, aliases;
	uint32_t wide_count, concrete_count, alias_count;
	uint8_t concrete_width[CONCRETE_FIELDS], alias_width[ALIAS_FIELDS];
};

static bool fits_narrow(const struct coded_node *c, const struct node_plan *plan)
{
	return c->narrow && distance_width(c->distance) <= plan->narrow_width[NODE_DISTANCE] &&
		format_width(c->relative_line) <= plan->narrow_width[NODE_LINE] &&
		/* not the width that was made larger to hold numbers, or counts would differ: equal or larger is fine */
		format_width(c->column) <= plan->narrow_width[NODE_COLUMN];
}

static void put_call(const struct writer *w, const struct node_plan *plan, uint32_t number, struct node_packers *p)
{
	struct coded_node c = code_node(w, number);
	const uint8_t *narrow = plan->narrow_width, *wide = plan->wide_width;
	if (fits_narrow(&c, plan)) {
		pack(&p->nodes, c.distance, narrow[NODE_DISTANCE]);
		pack(&p->nodes, c.function, narrow[NODE_FUNCTION]);
		pack(&p->nodes, c.relative_line, narrow[NODE_LINE]);
		pack(&p->nodes, c.column, narrow[NODE_COLUMN]);
		return;
	}
	pack(&p->nodes, (UINT64_C(1) << narrow[NODE_DISTANCE]) - 1, narrow[NODE_DISTANCE]);
	pack(&p->nodes, p->wide_count++, (unsigned)narrow[NODE_FUNCTION] + narrow[NODE_LINE] + narrow[NODE_COLUMN]);
	pack(&p->wide, c.distance, wide[WIDE_DISTANCE]);
	pack(&p->wide, c.function, wide[WIDE_FUNCTION]);
	pack(&p->wide, c.file, wide[WIDE_FILE]);
	pack(&p->wide, c.line, wide[WIDE_LINE]);
	pack(&p->wide, c.column, wide[WIDE_COLUMN]);
}

static struct err *put_concrete(struct writer *w, const struct node_plan *plan, uint32_t number, struct node_packers *p)
{
	const struct table_input_node *node = &w->in->nodes[w->node_order[number]];
	const uint8_t *narrow = plan->narrow_width;
	pack(&p->nodes, 0, narrow[NODE_DISTANCE]);
	pack(&p->nodes, p->concrete_count++, (unsigned)narrow[NODE_FUNCTION] + narrow[NODE_LINE] + narrow[NODE_COLUMN]);
	pack(&p->concretes, w->function_number[node->function], p->concrete_width[CONCRETE_FUNCTION]);
	pack(&p->concretes, node->entry_vaddr - plan->entry_min, p->concrete_width[CONCRETE_ENTRY]);
	pack(&p->concretes, node->alias_count ? p->alias_count + 1 : 0, p->concrete_width[CONCRETE_ALIAS]);
	for (uint32_t i = 0; i < node->alias_count; i++) {
		uint32_t name;
		TRY(text_offset(w, w->in->aliases[node->alias_first + i], &name));
		pack(&p->aliases, i + 1 == node->alias_count, p->alias_width[ALIAS_LAST]);
		pack(&p->aliases, name, p->alias_width[ALIAS_NAME]);
		p->alias_count++;
	}
	return NULL;
}

/* How many aliases the nodes that are used have together, and the text they may add at most. */
static struct err *measure_aliases(struct writer *w, uint64_t *count_ret, uint32_t *name_max_ret)
{
	uint64_t count = 0;
	uint32_t name, name_max = 0;
	for (uint32_t n = 0; n < w->node_count; n++) {
		const struct table_input_node *node = &w->in->nodes[w->node_order[n]];
		if (node->parent != TABLE_NONE)
			continue;
		count += node->alias_count;
		if (count >= TABLE_NONE)
			return err_new(ERR_LIMIT, "table: node %u: more than 4 Gi aliases", w->node_order[n]);
		for (uint32_t i = 0; i < node->alias_count; i++) {
			TRY(text_offset(w, w->in->aliases[node->alias_first + i], &name));
			name_max = name > name_max ? name : name_max;
		}
	}
	*count_ret = count;
	*name_max_ret = name_max;
	return NULL;
}

static struct err *put_node_records(struct writer *w, const struct node_plan *plan)
{
	struct table_header *h = &w->header;
	struct node_packers p = {0};
	uint64_t alias_count = 0;
	uint32_t name_max = 0;
	TRY(measure_aliases(w, &alias_count, &name_max));
	p.alias_width[ALIAS_LAST] = 1;
	p.alias_width[ALIAS_NAME] = (uint8_t)format_width(name_max);
	p.concrete_width[CONCRETE_FUNCTION] = (uint8_t)format_width(w->function_count);
	p.concrete_width[CONCRETE_ENTRY] = (uint8_t)format_width(plan->entry_max - plan->entry_min);
	p.concrete_width[CONCRETE_ALIAS] = (uint8_t)format_width(alias_count);
	describe(&h->arrays[ARRAY_NODES], w->node_count, plan->narrow_width, NODE_FIELDS);
	describe(&h->arrays[ARRAY_CONCRETES], plan->concretes, p.concrete_width, CONCRETE_FIELDS);
	describe(&h->arrays[ARRAY_ALIASES], (uint32_t)alias_count, p.alias_width, ALIAS_FIELDS);
	/* an upper bound: a node width that was enlarged for numbers may take some of them in */
	describe(&h->arrays[ARRAY_WIDE], plan->wide, plan->wide_width, WIDE_FIELDS);

	TRY(begin_section(w, &h->arrays[ARRAY_NODES].offset));
	TRY(packer_begin(w->out, w->node_count, h->arrays[ARRAY_NODES].bits, &p.nodes));
	TRY(packer_begin(&w->wide, plan->wide, h->arrays[ARRAY_WIDE].bits, &p.wide));
	TRY(packer_begin(&w->concretes, plan->concretes, h->arrays[ARRAY_CONCRETES].bits, &p.concretes));
	TRY(packer_begin(&w->aliases, alias_count, h->arrays[ARRAY_ALIASES].bits, &p.aliases));
	for (uint32_t n = 0; n < w->node_count; n++) {
		if (w->in->nodes[w->node_order[n]].parent == TABLE_NONE)
			TRY(put_concrete(w, plan, n, &p));
		else
			put_call(w, plan, n, &p);
	}
	packer_finish(&p.nodes, w->out);
	packer_finish(&p.wide, &w->wide);
	packer_finish(&p.concretes, &w->concretes);
	packer_finish(&p.aliases, &w->aliases);
	h->arrays[ARRAY_WIDE].count = p.wide_count;
	h->entry_base = plan->entry_min;
	TRY(put_section(w, &w->wide, &h->arrays[ARRAY_WIDE].offset));
	TRY(put_section(w, &w->concretes, &h->arrays[ARRAY_CONCRETES].offset));
	return put_section(w, &w->aliases, &h->arrays[ARRAY_ALIASES].offset);
}

static struct err *put_nodes(struct writer *w)
{
	CLEANUP(freep) struct histogram *h = calloc(1, sizeof(*h));
	if (!h)
		return err_nomem();
	struct node_plan plan = {0};
	count_nodes(w, h, &plan);
	histogram_sum(h);
	choose_widths(w, h, &plan);
	return put_node_records(w, &plan);
}

/* ---- functions, files, text --------------------------------------------------------------------------------------- */

static struct err *put_functions(struct writer *w)
{
	uint8_t width[FUNCTION_FIELDS] = {0};
	for (uint32_t i = 0; i < w->function_count; i++) {
		plan_widen(&width[FUNCTION_NAME], w->functions[i].name);
		plan_widen(&width[FUNCTION_LINE], w->functions[i].start_line);
		plan_widen(&width[FUNCTION_FILE], w->functions[i].file);
	}
	struct format_array *array = &w->header.arrays[ARRAY_FUNCTIONS];
	describe(array, w->function_count, width, FUNCTION_FIELDS);
	TRY(begin_section(w, &array->offset));
	struct packer p;
	TRY(packer_begin(w->out, w->function_count, array->bits, &p));
	for (uint32_t i = 0; i < w->function_count; i++) {
		pack(&p, w->functions[i].name, width[FUNCTION_NAME]);
		pack(&p, w->functions[i].start_line, width[FUNCTION_LINE]);
		pack(&p, w->functions[i].file, width[FUNCTION_FILE]);
	}
	packer_finish(&p, w->out);
	return NULL;
}

static struct err *put_files(struct writer *w)
{
	uint8_t width[FILE_FIELDS] = {0};
	for (uint32_t i = 0; i < w->file_count; i++) {
		plan_widen(&width[FILE_DIR], w->files[i].dir);
		plan_widen(&width[FILE_BASE], w->files[i].base);
	}
	struct format_array *array = &w->header.arrays[ARRAY_FILES];
	describe(array, w->file_count, width, FILE_FIELDS);
	TRY(begin_section(w, &array->offset));
	struct packer p;
	TRY(packer_begin(w->out, w->file_count, array->bits, &p));
	for (uint32_t i = 0; i < w->file_count; i++) {
		pack(&p, w->files[i].dir, width[FILE_DIR]);
		pack(&p, w->files[i].base, width[FILE_BASE]);
	}
	packer_finish(&p, w->out);
	return NULL;
}

static struct err *put_text_and_header(struct writer *w)
{
	struct table_header *h = &w->header;
	TRY(put_section(w, &w->text.blob, &h->text_offset));
	h->text_bytes = (uint32_t)w->text.blob.len;
	static const uint8_t zeros[FORMAT_PADDING];
	TRY(buf_append(w->out, zeros, sizeof(zeros)));
	memcpy(h->magic, FORMAT_MAGIC, sizeof(h->magic));
	h->version = FORMAT_VERSION;
	h->header_bytes = sizeof(*h);
	h->total_bytes = w->out->len - w->start;
	h->sources = w->in->sources;
	h->elf_machine = w->in->elf_machine;
	h->build_id_len = w->in->build_id.len;
	memcpy(h->build_id, w->in->build_id.bytes, w->in->build_id.len);
	uint8_t *table = w->out->data + w->start;
	memcpy(table, h, sizeof(*h));
	h->checksum = digest_xxh3_64(table + FORMAT_CHECKED_FROM, w->out->len - w->start - FORMAT_CHECKED_FROM);
	memcpy(table, h, sizeof(*h));
	return NULL;
}

/* ---- all ---------------------------------------------------------------------------------------------------------- */

static struct err *allocate(struct writer *w)
{
	const struct table_input *in = w->in;
	w->node_number = malloc((in->node_count + 1) * sizeof(uint32_t));
	w->node_order = malloc((in->node_count + 1) * sizeof(uint32_t));
	w->node_depth = malloc((in->node_count + 1) * sizeof(uint16_t));
	w->function_number = malloc((in->function_count + 1) * sizeof(uint32_t));
	w->functions = malloc((in->function_count + 1) * sizeof(struct function));
	w->file_number = calloc(in->file_count + 1, sizeof(uint32_t));
	w->files = malloc((in->file_count + 1) * sizeof(struct file));
	if (!w->node_number || !w->node_order || !w->node_depth || !w->function_number || !w->functions ||
		!w->file_number || !w->files)
		return err_nomem();
	memset(w->node_number, 0xff, (in->node_count + 1) * sizeof(uint32_t));
	memset(w->function_number, 0xff, (in->function_count + 1) * sizeof(uint32_t));
	return NULL;
}

static void writer_deinit(struct writer *w)
{
	free(w->node_number);
	free(w->node_order);
	free(w->node_depth);
	free(w->function_number);
	free(w->functions);
	free(w->file_number);
	free(w->files);
	hmap_deinit(&w->known);
	intern_deinit(&w->text);
	buf_deinit(&w->keys);
	buf_deinit(&w->offsets);
	buf_deinit(&w->wide);
	buf_deinit(&w->concretes);
	buf_deinit(&w->aliases);
}

static struct err *write_table(struct writer *w)
{
	uint32_t empty;
	TRY(allocate(w));
	TRY(intern_add(&w->text, "", 0, &empty)); /* offset 0 */
	TRY(number_nodes_and_files(w));
	TRY(number_functions(w));
	vote_files(w);
	TRY(buf_append(w->out, &w->header, sizeof(w->header))); /* its place */
	TRY(put_blocks(w));
	TRY(put_index(w));
	TRY(put_nodes(w));
	TRY(put_functions(w));
	TRY(put_files(w));
	return put_text_and_header(w);
}

struct err *table_write(const struct table_input *input, struct buf *ret)
{
	TRY(check_input(input));
	CLEANUP(writer_deinit) struct writer w = {.in = input, .out = ret, .start = ret->len};
	struct err *e = write_table(&w);
	if (e)
		ret->len = w.start;
	return e;
}

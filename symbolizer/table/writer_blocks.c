// SPDX-License-Identifier: Apache-2.0
/*
 * The writer's rows: equal neighbours merged, cut into blocks, each block at its own widths. format.h has the bytes.
 *
 * A block ends after FORMAT_BLOCK_ROWS rows, or where a start would not fit 32 bits. 32 rows were measured best on jvm:
 * 16 rows take 4 % more of the table and are as fast, 64 rows take 1 % less and are 3 % slower in batches.
 */
#include "symbolizer/table/writer_parts.h"

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
	*bitmap_ret = bitmap_bytes <= packed_bytes && bitmap_bytes <= HEAD_STARTS_MAX;
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

/* The most that a block takes: head, 32 starts of 32 bits, file list, 32 rows of 31 + 34 + 32 + 6 bits, a packer's slack. */
enum { BLOCK_MAX_BYTES = 1024 };

/* The widths of a block's fields and how its head says them. */
struct widths {
	unsigned node, line, column, file;
	uint32_t head;
};

static unsigned width_code(unsigned width)
{
	return width < HEAD_WIDTH_MASK ? width : (unsigned)HEAD_WIDTH_MASK;
}

static struct widths choose_widths(const struct shape *shape, unsigned files)
{
	static const uint8_t file_widths[] = {0, 1, 2, 6};
	unsigned hole = shape->hole ? 1 : 0, no_line = shape->no_line ? 1 : 0, file_code = 0;
	struct widths w = {.column = format_width(shape->column_max)};
	if (shape->any_node)
		w.node = format_width((uint64_t)shape->node_max - shape->node_min + hole);
	if (shape->any_line)
		w.line = format_width((uint64_t)(shape->line_max - shape->line_min) + no_line);
	while (files >> file_widths[file_code])
		file_code++;
	w.head = w.node << HEAD_NODE_SHIFT | width_code(w.line) << HEAD_LINE_SHIFT | width_code(w.column) << HEAD_COLUMN_SHIFT |
		file_code << HEAD_FILE_SHIFT | (hole ? (uint32_t)HEAD_HOLE : 0) | (no_line ? (uint32_t)HEAD_NO_LINE : 0);
	w.file = file_widths[file_code];
	if (w.line >= HEAD_WIDTH_MASK)
		w.line = LINE_WIDEST;
	if (w.column >= HEAD_WIDTH_MASK)
		w.column = COLUMN_WIDEST;
	return w;
}

/* The minima behind the head's first 4 bytes. Returns where the starts begin. */
static uint8_t *put_minima(uint8_t *block, const struct shape *shape, uint32_t *head)
{
	uint32_t line_min = (uint32_t)(uint64_t)shape->line_min;
	memcpy(block + 4, &shape->node_min, 4);
	if (shape->node_min >> 24 || shape->line_min != (int16_t)shape->line_min) {
		*head |= HEAD_WIDE;
		memcpy(block + 8, &line_min, 4);
		return block + FORMAT_BLOCK_WIDE_HEAD;
	}
	memcpy(block + 7, &line_min, 2);
	return block + FORMAT_BLOCK_HEAD;
}

static struct err *begin_block(struct writer *w, uint64_t vaddr)
{
	uint64_t key = vaddr - w->header.base_vaddr;
	uint32_t offset = (uint32_t)(w->out->len - w->start - w->header.blocks_offset);
	TRY(buf_append(&w->keys, &key, sizeof(key)));
	TRY(buf_append(&w->offsets, &offset, sizeof(offset)));
	w->header.block_count++;
	return buf_reserve(w->out, BLOCK_MAX_BYTES);
}

static struct err *put_block(struct writer *w, const struct coded_row *rows, unsigned count)
{
	struct shape shape = {0};
	for (unsigned i = 0; i < count; i++)
		shape_add(&shape, &rows[i]);
	struct file_list list;
	list_files(rows, count, &list);
	struct widths widths = choose_widths(&shape, list.count);
	TRY(begin_block(w, rows[0].vaddr));
	uint8_t *block = w->out->data + w->out->len, *at = put_minima(block, &shape, &widths.head), starts;
	bool bitmap;
	at = put_starts(at, rows, count, &bitmap, &starts);
	uint32_t head = widths.head | (bitmap ? (uint32_t)HEAD_BITMAP : 0) | (count - 1) << HEAD_ROWS_SHIFT |
		(uint32_t)starts << HEAD_STARTS_SHIFT;
	memcpy(block, &head, 4);
	if (widths.file) {
		*at++ = (uint8_t)list.count;
		memcpy(at, list.files, list.count * sizeof(list.files[0]));
		at += list.count * sizeof(list.files[0]);
	}
	struct packer packer = {.at = at};
	unsigned hole = shape.hole ? 1 : 0, no_line = shape.no_line ? 1 : 0;
	for (unsigned i = 0; i < count; i++) {
		const struct coded_row *row = &rows[i];
		bool line = !row->hole && !row->no_line;
		pack(&packer, row->hole ? 0 : row->node - shape.node_min + hole, widths.node);
		pack(&packer, line ? (uint64_t)(row->line - shape.line_min) + no_line : 0, widths.line);
		pack(&packer, row->hole ? 0 : row->column, widths.column);
		pack(&packer, list.codes[i], widths.file);
	}
	w->out->len = (size_t)(pack_end(&packer) - w->out->data);
	return NULL;
}

struct err *writer_put_blocks(struct writer *w)
{
	const struct table_input *in = w->in;
	TRY(writer_begin_section(w, &w->header.blocks_offset));
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
	static const uint8_t zeros[FORMAT_BLOCK_PADDING];
	return buf_append(w->out, zeros, sizeof(zeros));
}

/* A block has at most BLOCK_MAX_BYTES, so that 15 of them are within 16 bits. */
static struct err *put_group_offsets(struct writer *w, size_t first)
{
	uint32_t base, offset;
	memcpy(&base, w->offsets.data + first * 4, 4);
	TRY(buf_append(w->out, &base, sizeof(base)));
	for (size_t i = first; i < first + FORMAT_GROUP; i++) {
		uint16_t from_base = 0;
		if (i < w->header.block_count) {
			memcpy(&offset, w->offsets.data + i * 4, 4);
			from_base = (uint16_t)(offset - base);
		}
		TRY(buf_append(w->out, &from_base, sizeof(from_base)));
	}
	return NULL;
}

struct err *writer_put_index(struct writer *w)
{
	struct table_header *h = &w->header;
	h->key_bytes = h->span > (UINT64_C(1) << 32) ? 8 : 4;
	TRY(writer_begin_section(w, &h->top_offset));
	for (size_t i = 0; i < h->block_count; i += FORMAT_GROUP)
		TRY(buf_append(w->out, w->keys.data + i * 8, h->key_bytes));
	TRY(writer_begin_section(w, &h->keys_offset));
	static const uint8_t ones[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	for (size_t i = 0; i < (h->block_count + FORMAT_GROUP - UINT64_C(1)) / FORMAT_GROUP * FORMAT_GROUP; i++)
		TRY(buf_append(w->out, i < h->block_count ? w->keys.data + i * 8 : ones, h->key_bytes));
	TRY(writer_begin_section(w, &h->offsets_offset));
	for (size_t i = 0; i < h->block_count; i += FORMAT_GROUP)
		TRY(put_group_offsets(w, i));
	return NULL;
}


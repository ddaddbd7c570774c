// SPDX-License-Identifier: Apache-2.0
/*
 * Looking addresses up in a table, in place. format.h has the bytes, docs/table-format.md the reasons.
 *
 * One address is five dependent steps, each about one cache miss on a large table:
 *   1. `top` (every 16th block start, small enough for the first cache): a branch-free binary search
 *   2. 16 neighbouring keys, one cache line: counted, not searched
 *   3. the block: its head and starts give the row's rank (population count of a bitmap, or a binary search in packed
 *      starts); the row's fields are then at a known bit: no serial decoding
 *   4. the node and its ancestors: numbered in the order in which the rows use them, parents first, so that a chain lies in
 *      one or two cache lines
 *   5. the functions and files of the chain: small arrays, mostly in the second cache
 * A batch runs the steps for LANES addresses at a time, each step prefetching what the next one reads, so that the
 * misses of different addresses overlap. That, not sorting, is what makes unordered batches fast.
 *
 * Trust: table_open checks that every section lies within the bytes, with 8 readable bytes after each packed array.
 * Whatever number is read later (block offset, node, function, file, text offset) is compared with its count before use; a
 * wrong one gives an empty name, a shorter chain or no frames. Distances to parents are at least 1 and a chain has at most
 * TABLE_MAX_DEPTH frames, so walks end.
 */
#include "symbolizer/table/table.h"

#include "base/digest.h"
#include "symbolizer/table/format.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Addresses under way at once in a batch. */
enum { LANES = 16 };

/* Stands for "the file of the function" where a file number + 1 is meant. */
enum { FILE_OF_FUNCTION = UINT32_MAX };

/* The fields of the row that covers an address. */
struct row {
	uint32_t node;
	uint32_t line;	    /* relative: to the start_line of the node's function, modulo 2^32 */
	bool line_relative; /* false: line stands as it is */
	uint32_t column;
	uint32_t file; /* number + 1, 0 unknown, FILE_OF_FUNCTION */
};

struct node {
	uint32_t function;
	uint32_t distance; /* to the parent; 0: concrete */
	bool line_relative;
	uint32_t concrete;			    /* concrete only */
	uint32_t call_file, call_line, call_column; /* the others: as in struct row */
};

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static bool section_fits(const struct table *t, uint64_t offset, uint64_t bytes)
{
	return offset >= sizeof(struct table_header) && offset + bytes + FORMAT_PADDING <= t->len;
}

static struct err *open_array(
	const struct table *t, const struct format_array *array, unsigned fields, struct table_array *ret)
{
	*ret = (struct table_array){.at = t->bytes + array->offset, .count = array->count, .bits = array->bits};
	unsigned bits = 0;
	for (unsigned i = 0; i < fields; i++) {
		unsigned widest = fields == CONCRETE_FIELDS && i == CONCRETE_ENTRY ? 64 : FORMAT_MAX_WIDTH;
		if (array->width[i] > widest)
			return err_new(ERR_CORRUPT, "table: field of %u bits", array->width[i]);
		ret->width[i] = array->width[i];
		ret->shift[i] = (uint8_t)bits;
		bits += array->width[i];
	}
	if (bits != array->bits)
		return err_new(ERR_CORRUPT, "table: records of %u bits with fields of %u", array->bits, bits);
	if (!section_fits(t, array->offset, ((uint64_t)array->count * bits + 7) / 8))
		return err_new(ERR_CORRUPT, "table: %u records at 0x%x pass the end", array->count, array->offset);
	return NULL;
}

static struct err *open_arrays(const struct table_header *h, struct table *t)
{
	struct table_array *const arrays[ARRAY_COUNT] = {
		&t->nodes, &t->wide, &t->concretes, &t->functions, &t->files, &t->aliases};
	static const uint8_t fields[ARRAY_COUNT] = {
		NODE_FIELDS, WIDE_FIELDS, CONCRETE_FIELDS, FUNCTION_FIELDS, FILE_FIELDS, ALIAS_FIELDS};
	for (unsigned i = 0; i < ARRAY_COUNT; i++)
		TRY(open_array(t, &h->arrays[i], fields[i], arrays[i]));
	if (t->nodes.width[NODE_DISTANCE] > 32)
		return err_new(ERR_CORRUPT, "table: node distance of %u bits", t->nodes.width[NODE_DISTANCE]);
	return NULL;
}

static struct err *open_index(const struct table_header *h, struct table *t)
{
	if (h->key_bytes != 4 && h->key_bytes != 8)
		return err_new(ERR_CORRUPT, "table: keys of %u bytes", h->key_bytes);
	uint64_t groups = ((uint64_t)h->block_count + FORMAT_GROUP - 1) / FORMAT_GROUP;
	if (!section_fits(t, h->blocks_offset, h->block_bytes) ||
		!section_fits(t, h->top_offset, groups * h->key_bytes) ||
		!section_fits(t, h->keys_offset, groups * FORMAT_GROUP * h->key_bytes) ||
		!section_fits(t, h->offsets_offset, (uint64_t)h->block_count * 4))
		return err_new(ERR_CORRUPT, "table: index of %u blocks passes the end", h->block_count);
	t->key_bytes = h->key_bytes;
	t->block_count = h->block_count;
	t->block_bytes = h->block_bytes;
	t->top_count = (uint32_t)groups;
	t->top = t->bytes + h->top_offset;
	t->keys = t->bytes + h->keys_offset;
	t->offsets = t->bytes + h->offsets_offset;
	t->blocks = t->bytes + h->blocks_offset;
	return NULL;
}

struct err *table_open(const void *bytes, size_t len, struct table *ret)
{
	struct table_header h;
	if (len < sizeof(h) + FORMAT_PADDING)
		return err_new(ERR_CORRUPT, "table: %zu bytes are too few", len);
	memcpy(&h, bytes, sizeof(h));
	if (memcmp(h.magic, FORMAT_MAGIC, sizeof(h.magic)) != 0)
		return err_new(ERR_CORRUPT, "table: not a Cairn table");
	if (h.version != FORMAT_VERSION)
		return err_new(ERR_UNSUPPORTED, "table: version %u, this reader knows %u", h.version, FORMAT_VERSION);
	if (h.header_bytes != sizeof(h) || h.total_bytes != len)
		return err_new(ERR_CORRUPT, "table: %zu bytes, its header says %llu", len, (unsigned long long)h.total_bytes);
	if (h.build_id_len > BUILD_ID_MAX)
		return err_new(ERR_CORRUPT, "table: build ID of %u bytes", h.build_id_len);
	struct table t = {.bytes = bytes, .len = len, .base = h.base_vaddr, .span = h.span, .entry_base = h.entry_base};
	TRY(open_index(&h, &t));
	TRY(open_arrays(&h, &t));
	if (h.text_bytes == 0 || !section_fits(&t, h.text_offset, h.text_bytes) ||
		t.bytes[h.text_offset + h.text_bytes - 1] != 0)
		return err_new(ERR_CORRUPT, "table: text does not end in the table");
	t.text = (const char *)t.bytes + h.text_offset;
	t.text_len = h.text_bytes;
	*ret = t;
	return NULL;
}

struct err *table_verify(const struct table *table)
{
	uint64_t stored = format_load64(table->bytes + offsetof(struct table_header, checksum));
	uint64_t computed = digest_xxh3_64(table->bytes + FORMAT_CHECKED_FROM, table->len - FORMAT_CHECKED_FROM);
	if (stored != computed)
		return err_new(ERR_CORRUPT, "table: checksum %016llx, its header says %016llx", (unsigned long long)computed,
			(unsigned long long)stored);
	return NULL;
}

/* ---- index and block ---------------------------------------------------------------------------------------------- */

/* The last group whose first key is not above @p rel: a binary search whose loop count depends on top_count only. */
static uint32_t find_group(const struct table *t, uint64_t rel)
{
	uint32_t low = 0;
	if (likely(t->key_bytes == 4)) {
		for (uint32_t left = t->top_count; left > 1;) {
			uint32_t half = left / 2;
			low += format_load32(t->top + (size_t)(low + half) * 4) <= rel ? half : 0;
			left -= half;
		}
		return low;
	}
	for (uint32_t left = t->top_count; left > 1;) {
		uint32_t half = left / 2;
		low += format_load64(t->top + (size_t)(low + half) * 8) <= rel ? half : 0;
		left -= half;
	}
	return low;
}

/* The last block of the group whose key is not above @p rel, and what is left of @p rel behind its key. */
static uint32_t find_block(const struct table *t, uint32_t group, uint64_t rel, uint64_t *left_ret)
{
	const uint8_t *keys = t->keys + (size_t)group * FORMAT_GROUP * t->key_bytes;
	uint32_t count = 0;
	uint64_t key;
	if (likely(t->key_bytes == 4)) {
		for (unsigned i = 1; i < FORMAT_GROUP; i++)
			count += format_load32(keys + (size_t)i * 4) <= (uint32_t)rel;
	} else {
		for (unsigned i = 1; i < FORMAT_GROUP; i++)
			count += format_load64(keys + (size_t)i * 8) <= rel;
	}
	uint32_t block = group * FORMAT_GROUP + count;
	if (unlikely(block >= t->block_count)) { /* padding keys are all ones, and rel may be too */
		count -= block - (t->block_count - 1);
		block = t->block_count - 1;
	}
	key = t->key_bytes == 4 ? format_load32(keys + (size_t)count * 4) : format_load64(keys + (size_t)count * 8);
	*left_ret = rel - key;
	return block;
}

/* Without an instruction for it, which x86-64's baseline lacks. */
static inline unsigned ones(uint64_t v)
{
	v -= v >> 1 & 0x5555555555555555;
	v = (v & 0x3333333333333333) + (v >> 2 & 0x3333333333333333);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return (unsigned)(v * 0x0101010101010101 >> 56);
}

/* How many of the bitmap's first @p left bits are set. Reads whole 8 bytes. */
static unsigned rank_in_bitmap(const uint8_t *bitmap, unsigned bytes, uint64_t left)
{
	unsigned bits = left < bytes * 8 ? (unsigned)left : bytes * 8;
	unsigned rank = 0;
	for (; bits >= 64; bits -= 64, bitmap += 8)
		rank += ones(format_load64(bitmap));
	return bits ? rank + ones(format_load64(bitmap) << (64 - bits)) : rank;
}

/* How many of the @p count packed starts are not above @p left. */
static unsigned rank_in_starts(const uint8_t *starts, unsigned width, unsigned count, uint64_t left)
{
	unsigned low = 0;
	while (low < count) {
		unsigned middle = (low + count) / 2;
		if (format_bits(starts, middle * width, width) <= left)
			low = middle + 1;
		else
			count = middle;
	}
	return low;
}

/* Decodes the row of @p block that covers the address @p left bytes behind the block's key; false in a hole. */
static bool find_row(const struct table *t, uint32_t offset, uint64_t left, struct row *ret)
{
	if (unlikely((uint64_t)offset + FORMAT_BLOCK_HEAD > t->block_bytes))
		return false;
	const uint8_t *block = t->blocks + offset;
	uint32_t head = format_load32(block);
	unsigned rows = (block[12] & (FORMAT_BLOCK_ROWS - 1)) + 1u;
	unsigned starts = block[13];
	unsigned start_bytes = head & BLOCK_BITMAP ? starts : ((rows - 1) * starts + 7) / 8;
	unsigned node_width = head >> WIDTH_NODE_SHIFT & WIDTH_MASK, line_width = head >> WIDTH_LINE_SHIFT & WIDTH_MASK;
	unsigned column_width = head >> WIDTH_COLUMN_SHIFT & WIDTH_MASK;
	unsigned file_width = head >> WIDTH_FILE_SHIFT & WIDTH_MASK;
	unsigned bits = node_width + line_width + column_width + file_width;
	uint64_t at = (uint64_t)offset + FORMAT_BLOCK_HEAD + start_bytes;
	if (unlikely(at >= t->block_bytes && bits != 0))
		return false;
	if (unlikely(at > t->block_bytes || node_width > FORMAT_MAX_WIDTH || line_width > FORMAT_MAX_WIDTH ||
		     column_width > FORMAT_MAX_WIDTH || file_width > FORMAT_MAX_WIDTH ||
		     (!(head & BLOCK_BITMAP) && starts > FORMAT_MAX_WIDTH)))
		return false;
	unsigned row = head & BLOCK_BITMAP ? rank_in_bitmap(block + FORMAT_BLOCK_HEAD, starts, left)
					   : rank_in_starts(block + FORMAT_BLOCK_HEAD, starts, rows - 1, left);
	if (unlikely(row >= rows))
		return false;
	const uint8_t *files = t->blocks + at + 1;
	unsigned file_count = 0;
	if (file_width) {
		file_count = t->blocks[at];
		at += 1 + (uint64_t)file_count * 4;
	}
	if (unlikely(at + ((row + 1) * bits + 7) / 8 > t->block_bytes))
		return false;

	const uint8_t *records = t->blocks + at;
	unsigned bit = row * bits;
	uint64_t node = format_bits(records, bit, node_width);
	uint64_t line = format_bits(records, bit + node_width, line_width);
	ret->column = (uint32_t)format_bits(records, bit + node_width + line_width, column_width);
	uint64_t file = format_bits(records, bit + node_width + line_width + column_width, file_width);
	unsigned hole = head & BLOCK_HOLE ? 1 : 0;
	if (node < hole)
		return false;
	ret->node = (uint32_t)(format_load32(block + 4) + node - hole);
	unsigned no_line = head & BLOCK_NO_LINE ? 1 : 0;
	ret->line_relative = line >= no_line;
	ret->line = ret->line_relative ? (uint32_t)(format_load32(block + 8) + line - no_line) : 0;
	ret->file = FILE_OF_FUNCTION;
	if (unlikely(file))
		ret->file = file <= file_count ? format_load32(files + 4 * (file - 1)) : 0;
	return true;
}

/* ---- chain -------------------------------------------------------------------------------------------------------- */

static inline uint64_t field(const struct table_array *array, uint64_t index, unsigned f)
{
	return format_bits(array->at, index * array->bits + array->shift[f], array->width[f]);
}

static inline uint32_t field32(const struct table_array *array, uint64_t index, unsigned f)
{
	return (uint32_t)field(array, index, f);
}

static const char *text_at(const struct table *t, uint32_t offset)
{
	return likely(offset < t->text_len) ? t->text + offset : "";
}

static bool read_wide(const struct table *t, uint64_t index, struct node *ret)
{
	if (index >= t->wide.count)
		return false;
	ret->distance = field32(&t->wide, index, WIDE_DISTANCE);
	ret->function = field32(&t->wide, index, WIDE_FUNCTION);
	ret->call_file = field32(&t->wide, index, WIDE_FILE);
	ret->call_line = field32(&t->wide, index, WIDE_LINE);
	ret->call_column = field32(&t->wide, index, WIDE_COLUMN);
	ret->line_relative = false;
	return ret->distance != 0;
}

static bool read_concrete(const struct table *t, uint64_t index, struct node *ret)
{
	if (index >= t->concretes.count)
		return false;
	ret->distance = 0;
	ret->concrete = (uint32_t)index;
	ret->function = field32(&t->concretes, index, CONCRETE_FUNCTION);
	return true;
}

static inline bool read_node(const struct table *t, uint32_t number, struct node *ret)
{
	const struct table_array *nodes = &t->nodes;
	if (unlikely(number >= nodes->count))
		return false;
	uint64_t bit = (uint64_t)number * nodes->bits;
	uint32_t distance = (uint32_t)format_bits(nodes->at, bit, nodes->width[NODE_DISTANCE]);
	uint32_t all_ones = (uint32_t)((UINT64_C(1) << nodes->width[NODE_DISTANCE]) - 1);
	if (distance == 0 || distance == all_ones) {
		unsigned width = nodes->bits - (unsigned)nodes->width[NODE_DISTANCE];
		uint64_t rest = format_bits(nodes->at, bit + nodes->shift[NODE_FUNCTION], width < 32 ? width : 32);
		return distance ? read_wide(t, rest, ret) : read_concrete(t, rest, ret);
	}
	ret->distance = distance;
	ret->function = field32(nodes, number, NODE_FUNCTION);
	ret->call_line = field32(nodes, number, NODE_LINE);
	ret->call_column = field32(nodes, number, NODE_COLUMN);
	ret->call_file = FILE_OF_FUNCTION;
	ret->line_relative = true;
	return true;
}

static void fill_frame(const struct table *t, uint32_t function, const struct row *row, struct table_frame *ret)
{
	uint32_t name = 0, start_line = 0, file = row->file;
	if (likely(function < t->functions.count)) {
		name = field32(&t->functions, function, FUNCTION_NAME);
		start_line = field32(&t->functions, function, FUNCTION_LINE);
		if (likely(file == FILE_OF_FUNCTION))
			file = field32(&t->functions, function, FUNCTION_FILE);
	}
	uint32_t dir = 0, base = 0;
	if (unlikely(file - 1 >= t->files.count)) {
		file = 0;
	} else {
		dir = field32(&t->files, file - 1, FILE_DIR);
		base = field32(&t->files, file - 1, FILE_BASE);
	}
	*ret = (struct table_frame){
		.function = text_at(t, name),
		.dir = text_at(t, dir),
		.base = text_at(t, base),
		.line = row->line_relative ? start_line + row->line : row->line,
		.column = row->column,
		.start_line = start_line,
		.function_id = function,
		.file_id = file,
		.inlined = true,
	};
}

/* Entries may be 64 bits wide, more than one load holds. */
static void fill_concrete(const struct table *t, uint32_t concrete, uint64_t vaddr, struct table_frame *ret)
{
	const struct table_array *concretes = &t->concretes;
	uint64_t bit = (uint64_t)concrete * concretes->bits + concretes->shift[CONCRETE_ENTRY];
	unsigned width = concretes->width[CONCRETE_ENTRY];
	unsigned low = width < 32 ? width : 32;
	uint64_t entry = format_bits(concretes->at, bit, low) | format_bits(concretes->at, bit + low, width - low) << low;
	entry += t->entry_base;
	ret->offset = vaddr >= entry ? vaddr - entry : 0;
	ret->aliases = field32(concretes, concrete, CONCRETE_ALIAS);
}

/* Writes the chain that begins with @p row; returns its depth, of which at most @p cap frames were written. */
static size_t walk(const struct table *t, struct row *row, uint64_t vaddr, struct table_frame *frames, size_t cap)
{
	uint32_t number = row->node;
	for (size_t depth = 0;; depth++) {
		struct table_frame *frame = &frames[depth < cap ? depth : cap - 1];
		struct node node = {0};
		if (unlikely(!read_node(t, number, &node))) {
			if (depth != 0)
				frames[depth < cap ? depth - 1 : cap - 1].inlined = false;
			return depth;
		}
		fill_frame(t, node.function, row, frame);
		if (node.distance == 0)
			fill_concrete(t, node.concrete, vaddr, frame);
		if (node.distance == 0 || unlikely(node.distance > number) || unlikely(depth + 1 == TABLE_MAX_DEPTH)) {
			frame->inlined = false;
			return depth + 1;
		}
		number -= node.distance;
		row->line = node.call_line;
		row->line_relative = node.line_relative;
		row->column = node.call_column;
		row->file = node.call_file;
	}
}

size_t table_lookup(const struct table *table, uint64_t vaddr, struct table_frame *frames, size_t cap)
{
	uint64_t rel = vaddr - table->base, left;
	if (vaddr < table->base || rel >= table->span || table->block_count == 0 || cap == 0)
		return 0;
	uint32_t block = find_block(table, find_group(table, rel), rel, &left);
	struct row row;
	if (!find_row(table, format_load32(table->offsets + (size_t)block * 4), left, &row))
		return 0;
	size_t depth = walk(table, &row, vaddr, frames, cap);
	return depth < cap ? depth : cap;
}

/* ---- batch -------------------------------------------------------------------------------------------------------- */

static inline void prefetch(const void *at)
{
	__builtin_prefetch(at, 0, 3);
}

/* Steps 1 to 3 for @p count addresses at once; hit[i] is false where nothing covers address i. */
static void find_rows(const struct table *t, const uint64_t *vaddrs, size_t count, struct row *rows, bool *hit)
{
	uint32_t group[LANES], block[LANES], offset[LANES];
	uint64_t left[LANES];
	for (size_t i = 0; i < count; i++) {
		hit[i] = vaddrs[i] >= t->base && vaddrs[i] - t->base < t->span && t->block_count != 0;
		group[i] = hit[i] ? find_group(t, vaddrs[i] - t->base) : 0;
		prefetch(t->keys + (size_t)group[i] * FORMAT_GROUP * t->key_bytes);
		prefetch(t->keys + ((size_t)group[i] + 1) * FORMAT_GROUP * t->key_bytes - 1);
	}
	for (size_t i = 0; i < count; i++) {
		block[i] = hit[i] ? find_block(t, group[i], vaddrs[i] - t->base, &left[i]) : 0;
		prefetch(t->offsets + (size_t)block[i] * 4);
	}
	for (size_t i = 0; i < count; i++) {
		offset[i] = hit[i] ? format_load32(t->offsets + (size_t)block[i] * 4) : 0;
		if (offset[i] < t->block_bytes)
			for (unsigned line = 0; line < 4; line++)
				prefetch(t->blocks + offset[i] + (size_t)line * 64);
	}
	for (size_t i = 0; i < count; i++) {
		hit[i] = hit[i] && find_row(t, offset[i], left[i], &rows[i]);
		if (hit[i] && rows[i].node < t->nodes.count)
			prefetch(t->nodes.at + (uint64_t)rows[i].node * t->nodes.bits / 8);
	}
}

size_t table_lookup_batch(const struct table *table, const uint64_t *vaddrs, size_t count, struct table_frame *frames,
	size_t frames_cap, uint32_t *first_ret)
{
	size_t used = 0;
	first_ret[0] = 0;
	for (size_t done = 0; done < count;) {
		size_t lanes = count - done < LANES ? count - done : LANES;
		struct row rows[LANES];
		bool hit[LANES];
		find_rows(table, vaddrs + done, lanes, rows, hit);
		for (size_t i = 0; i < lanes; i++, done++) {
			size_t left = frames_cap - used;
			if (hit[i]) {
				size_t depth = left ? walk(table, &rows[i], vaddrs[done], frames + used, left) : 1;
				if (depth > left)
					return done;
				used += depth;
			}
			first_ret[done + 1] = (uint32_t)used;
		}
	}
	return count;
}

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

const char *table_next_alias(const struct table *table, uint32_t *cursor)
{
	uint32_t number = *cursor;
	if (number == 0 || number > table->aliases.count) {
		*cursor = 0;
		return NULL;
	}
	*cursor = field(&table->aliases, number - 1, ALIAS_LAST) ? 0 : number + 1;
	return text_at(table, field32(&table->aliases, number - 1, ALIAS_NAME));
}

static uint64_t array_bytes(const struct table_array *array)
{
	return ((uint64_t)array->count * array->bits + 7) / 8;
}

void table_info(const struct table *table, struct table_info *ret)
{
	struct table_header h;
	memcpy(&h, table->bytes, sizeof(h));
	*ret = (struct table_info){
		.version = h.version,
		.sources = h.sources,
		.elf_machine = h.elf_machine,
		.build_id.len = h.build_id_len,
		.low_vaddr = table->base,
		.high_vaddr = table->base + table->span,
		.functions = table->functions.count,
		.files = table->files.count,
		.inline_nodes = table->nodes.count - (uint64_t)table->concretes.count,
		.concretes = table->concretes.count,
		.aliases = table->aliases.count,
		.rows = h.row_count,
		.blocks = table->block_count,
		.index_bytes = ((uint64_t)table->top_count * (FORMAT_GROUP + 1)) * table->key_bytes + table->block_count * UINT64_C(4),
		.block_bytes = table->block_bytes,
		.node_bytes = array_bytes(&table->nodes) + array_bytes(&table->wide),
		.function_bytes = array_bytes(&table->concretes) + array_bytes(&table->functions) + array_bytes(&table->aliases),
		.file_bytes = array_bytes(&table->files),
		.string_bytes = table->text_len,
		.total_bytes = table->len,
	};
	memcpy(ret->build_id.bytes, h.build_id, BUILD_ID_MAX);
}

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
/* What runs per address or frame: gcc keeps some of it apart because there are two callers, which costs 7 % of a batch. */
#define HOT static inline __attribute__((always_inline))

/* Addresses under way at once in a batch. */
enum { LANES = 32 };

/* Stands for "the file of the function" where a file number + 1 is meant. */
enum { FILE_OF_FUNCTION = UINT32_MAX };

/* What a frame shows besides its function: from the row for the innermost frame, from the callee's node for the others. */
struct spot {
	uint32_t line; /* relative: to the start_line of the frame's function, modulo 2^32 */
	uint32_t column;
	uint32_t file; /* number + 1, 0 unknown, FILE_OF_FUNCTION */
	bool line_relative;
};

struct row {
	uint32_t node;
	struct spot spot;
};

struct node {
	uint32_t function;
	uint32_t distance; /* to the parent; 0: concrete */
	uint32_t concrete; /* concrete only */
	struct spot call;  /* the others: where the parent calls it */
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
		unsigned widest = ret == &t->concretes && i == CONCRETE_ENTRY ? 64 : FORMAT_MAX_WIDTH;
		if (array->width[i] > widest)
			return err_new(ERR_CORRUPT, "table: field of %u bits", array->width[i]);
		ret->width[i] = array->width[i];
		ret->shift[i] = (uint8_t)bits;
		ret->mask[i] = array->width[i] < 64 ? (UINT64_C(1) << array->width[i]) - 1 : UINT64_MAX;
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
	if (t->nodes.bits > FORMAT_MAX_WIDTH || t->nodes.width[NODE_DISTANCE] == 0)
		return err_new(ERR_CORRUPT, "table: nodes of %u bits", t->nodes.bits);
	return NULL;
}

static struct err *open_index(const struct table_header *h, struct table *t)
{
	if (h->key_bytes != 4 && h->key_bytes != 8)
		return err_new(ERR_CORRUPT, "table: keys of %u bytes", h->key_bytes);
	uint64_t groups = ((uint64_t)h->block_count + FORMAT_GROUP - 1) / FORMAT_GROUP;
	if (!section_fits(t, h->blocks_offset, (uint64_t)h->block_bytes + FORMAT_BLOCK_PADDING) ||
		!section_fits(t, h->top_offset, groups * h->key_bytes) ||
		!section_fits(t, h->keys_offset, groups * FORMAT_GROUP * h->key_bytes) ||
		!section_fits(t, h->offsets_offset, groups * FORMAT_OFFSETS_BYTES))
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
HOT uint32_t find_group(const struct table *t, uint64_t rel)
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

/* How many of 16 keys are not above @p rel. */
static inline uint32_t count_keys(const uint8_t *keys, uint32_t rel)
{
	typedef int32_t lanes __attribute__((vector_size(16)));
	lanes sum = {0};
	int32_t signed_rel = (int32_t)(rel ^ 0x80000000);
	for (unsigned i = 0; i < FORMAT_GROUP; i += 4) {
		lanes key;
		memcpy(&key, keys + (size_t)i * 4, sizeof(key));
		sum += (key ^ INT32_MIN) > signed_rel; /* -1 where it is */
	}
	return (uint32_t)(FORMAT_GROUP + sum[0] + sum[1] + sum[2] + sum[3]);
}

/* The last block of the group whose key is not above @p rel, and what is left of @p rel behind its key. */
HOT uint32_t find_block(const struct table *t, uint32_t group, uint64_t rel, uint64_t *left_ret)
{
	const uint8_t *keys = t->keys + (size_t)group * FORMAT_GROUP * t->key_bytes;
	uint32_t count = 0;
	uint64_t key;
	if (likely(t->key_bytes == 4)) {
		count = count_keys(keys, (uint32_t)rel);
	} else {
		for (unsigned i = 0; i < FORMAT_GROUP; i++)
			count += format_load64(keys + (size_t)i * 8) <= rel;
	}
	count -= count != 0; /* the last one that is not above */
	uint32_t block = group * FORMAT_GROUP + count;
	if (unlikely(block >= t->block_count)) { /* padding keys are all ones, and rel may be too */
		count -= block - (t->block_count - 1);
		block = t->block_count - 1;
	}
	key = t->key_bytes == 4 ? format_load32(keys + (size_t)count * 4) : format_load64(keys + (size_t)count * 8);
	*left_ret = rel - key;
	return block;
}

/* Two words at once: what x86-64's and arm64's baselines have in registers. */
typedef uint64_t words __attribute__((vector_size(16)));

/* Set bits per byte. Without an instruction for it, which x86-64's baseline lacks. */
static inline words ones_per_byte(words v)
{
	v -= v >> 1 & 0x5555555555555555;
	v = (v & 0x3333333333333333) + (v >> 2 & 0x3333333333333333);
	return (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0f;
}

static inline unsigned sum_bytes(uint64_t v)
{
	return (unsigned)(v * 0x0101010101010101 >> 56);
}

static const uint8_t ones_then_zeros[2 * FORMAT_BLOCK_PADDING] = {
#define ONES16 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
	ONES16, ONES16, ONES16};

/*
 * How many of the bitmap's first @p left bits are set. Most bitmaps have at most RANK_STEP bytes, and for those nothing
 * branches on how many. Reads up to RANK_STEP bytes behind the bitmap.
 */
enum { RANK_STEP = 48 };
static inline unsigned rank_in_bitmap(const uint8_t *bitmap, unsigned bytes, uint64_t left)
{
	unsigned bits = left < bytes * 8 ? (unsigned)left : bytes * 8, rank = 0;
	for (;;) {
		unsigned now = bits < RANK_STEP * 8 ? bits : RANK_STEP * 8;
		const uint8_t *mask = ones_then_zeros + RANK_STEP - now / 8;
		words sum = {0};
		for (unsigned i = 0; i < RANK_STEP; i += 16) {
			words v, m;
			memcpy(&v, bitmap + i, sizeof(v));
			memcpy(&m, mask + i, sizeof(m));
			sum += ones_per_byte(v & m);
		}
		rank += sum_bytes(sum[0]) + sum_bytes(sum[1]);
		bits -= now;
		bitmap += now / 8;
		if (likely(bits == 0 || now < RANK_STEP * 8)) {
			unsigned last = *bitmap & ((1u << (now & 7)) - 1);
			return rank + sum_bytes(ones_per_byte((words){last, 0})[0]);
		}
	}
}

/* How many of the @p count packed starts are not above @p left: a binary search without branches. */
static inline unsigned rank_in_starts(const uint8_t *starts, unsigned width, unsigned count, uint64_t left)
{
	unsigned low = 0;
	while (count > 0) {
		unsigned half = (count + 1) / 2;
		low += format_bits(starts, (low + half - 1) * width, width) <= left ? half : 0;
		count -= half;
	}
	return low;
}

/* Where a block begins in `blocks`. */
static inline uint32_t block_offset(const struct table *t, uint32_t block)
{
	const uint8_t *group = t->offsets + (size_t)(block / FORMAT_GROUP) * FORMAT_OFFSETS_BYTES;
	return format_load32(group) + format_load16(group + 4 + (size_t)(block % FORMAT_GROUP) * 2);
}

/* Where a row is stored. */
struct place {
	const uint8_t *block;	/* its head */
	const uint8_t *records; /* of the block's rows */
	uint32_t head;		/* the head's first 4 bytes */
	uint32_t bit;		/* of the row in records */
	uint32_t file_count;
};

static inline unsigned node_width(uint32_t head)
{
	return head >> HEAD_NODE_SHIFT & HEAD_WIDTH_MASK;
}

static inline unsigned line_width(uint32_t head)
{
	unsigned width = head >> HEAD_LINE_SHIFT & HEAD_WIDTH_MASK;
	return width == HEAD_WIDTH_MASK ? LINE_WIDEST : width;
}

static inline unsigned column_width(uint32_t head)
{
	unsigned width = head >> HEAD_COLUMN_SHIFT & HEAD_WIDTH_MASK;
	return width == HEAD_WIDTH_MASK ? COLUMN_WIDEST : width;
}

static inline unsigned file_width(uint32_t head)
{
	return 0x6210 >> (head >> HEAD_FILE_SHIFT & 3) * 4 & 7;
}

/* Finds the row of the block at @p offset that covers the address @p left bytes behind the block's key. */
HOT bool find_row(const struct table *t, uint32_t offset, uint64_t left, struct place *ret)
{
	if (unlikely(offset >= t->block_bytes))
		return false;
	const uint8_t *block = t->blocks + offset;
	uint32_t head = format_load32(block);
	unsigned rows = (head >> HEAD_ROWS_SHIFT & (FORMAT_BLOCK_ROWS - 1)) + 1u, starts = head >> HEAD_STARTS_SHIFT, row;
	uint64_t at = (uint64_t)offset + (head & HEAD_WIDE ? FORMAT_BLOCK_WIDE_HEAD : FORMAT_BLOCK_HEAD);
	if (unlikely(at > t->block_bytes))
		return false;
	if (likely(head & HEAD_BITMAP)) {
		row = rank_in_bitmap(t->blocks + at, starts, left);
		at += starts;
	} else {
		const uint8_t *packed = t->blocks + at;
		at += ((rows - 1) * starts + 7) / 8;
		if (unlikely(at > t->block_bytes || starts > FORMAT_MAX_WIDTH))
			return false;
		row = rank_in_starts(packed, starts, rows - 1, left);
	}
	ret->file_count = 0;
	if (unlikely(file_width(head))) {
		ret->file_count = at < t->block_bytes ? t->blocks[at] : 0;
		at += 1 + (uint64_t)ret->file_count * 4;
	}
	unsigned bits = node_width(head) + line_width(head) + column_width(head) + file_width(head);
	ret->block = block;
	ret->records = t->blocks + at;
	ret->head = head;
	ret->bit = row * bits;
	return row < rows && at + (ret->bit + bits + 7) / 8 <= t->block_bytes;
}

/* Reads the row at @p place; false in a hole. */
HOT bool read_row(const struct place *place, struct row *ret)
{
	uint32_t head = place->head;
	uint64_t bit = place->bit;
	uint64_t node = format_bits(place->records, bit, node_width(head));
	uint64_t line = format_bits(place->records, bit += node_width(head), line_width(head));
	ret->spot.column = (uint32_t)format_bits(place->records, bit += line_width(head), column_width(head));
	uint32_t node_min = format_load32(place->block + 4) & 0xffffff;
	uint32_t line_min = (uint32_t)(int16_t)format_load16(place->block + 7);
	if (unlikely(head & HEAD_WIDE)) {
		node_min = format_load32(place->block + 4);
		line_min = format_load32(place->block + 8);
	}
	unsigned hole = head & HEAD_HOLE ? 1 : 0, no_line = head & HEAD_NO_LINE ? 1 : 0;
	ret->node = (uint32_t)(node_min + node - hole);
	ret->spot.line_relative = line >= no_line;
	ret->spot.line = line >= no_line ? (uint32_t)(line_min + line - no_line) : 0;
	ret->spot.file = FILE_OF_FUNCTION;
	if (unlikely(file_width(head))) {
		uint64_t file = format_bits(place->records, bit + column_width(head), file_width(head));
		if (file)
			ret->spot.file = file <= place->file_count
				? format_load32(place->records - 4 * ((uint64_t)place->file_count - file + 1))
				: 0;
	}
	return node >= hole;
}

/* ---- chain -------------------------------------------------------------------------------------------------------- */

/* Field @p f of record @p index, at any record width. */
static uint32_t field(const struct table_array *array, uint64_t index, unsigned f)
{
	return (uint32_t)format_bits(array->at, index * array->bits + array->shift[f], array->width[f]);
}

/* Record @p index in one load: its fields are right if array->bits <= FORMAT_MAX_WIDTH. */
static inline uint64_t load_record(const struct table_array *array, uint64_t index)
{
	uint64_t bit = index * array->bits;
	return format_load64(array->at + (bit >> 3)) >> (bit & 7);
}

static inline uint32_t record_field(const struct table_array *array, uint64_t record, unsigned f)
{
	return (uint32_t)(record >> array->shift[f] & array->mask[f]);
}

static inline const char *text_at(const struct table *t, uint32_t offset)
{
	return likely(offset < t->text_len) ? t->text + offset : "";
}

/* By value, and apart, so that the members of the usual node stay in registers. */
static __attribute__((noinline, cold)) struct node read_wide(const struct table *t, uint64_t index)
{
	if (index >= t->wide.count)
		return (struct node){.distance = UINT32_MAX};
	return (struct node){
		.distance = field(&t->wide, index, WIDE_DISTANCE),
		.function = field(&t->wide, index, WIDE_FUNCTION),
		.call.file = field(&t->wide, index, WIDE_FILE),
		.call.line = field(&t->wide, index, WIDE_LINE),
		.call.column = field(&t->wide, index, WIDE_COLUMN),
		.call.line_relative = false,
	};
}

/*
 * A concrete function's record has the same fields but for line and column, which hold its number: nothing to branch on.
 * @param number  less than nodes.count
 * @return distance more than number: damaged
 */
static inline struct node read_node(const struct table *t, uint32_t number)
{
	const struct table_array *nodes = &t->nodes;
	uint64_t record = load_record(nodes, number) & ((UINT64_C(1) << nodes->bits) - 1);
	uint64_t distance = record & nodes->mask[NODE_DISTANCE];
	if (unlikely(distance == nodes->mask[NODE_DISTANCE]))
		return read_wide(t, record >> nodes->shift[NODE_FUNCTION]);
	return (struct node){
		.distance = (uint32_t)distance,
		.function = record_field(nodes, record, NODE_FUNCTION),
		.concrete = (uint32_t)(record >> nodes->shift[NODE_LINE]),
		.call.line = record_field(nodes, record, NODE_LINE),
		.call.column = (uint32_t)(record >> nodes->shift[NODE_COLUMN]),
		.call.file = FILE_OF_FUNCTION,
		.call.line_relative = true,
	};
}

HOT void fill_frame(const struct table *t, uint32_t function, struct spot spot, struct table_frame *ret)
{
	uint32_t name = 0, start_line = 0, function_file = 0;
	if (likely(function < t->functions.count)) {
		uint64_t record = load_record(&t->functions, function);
		name = record_field(&t->functions, record, FUNCTION_NAME);
		start_line = record_field(&t->functions, record, FUNCTION_LINE);
		function_file = record_field(&t->functions, record, FUNCTION_FILE);
		if (unlikely(t->functions.bits > FORMAT_MAX_WIDTH)) {
			start_line = field(&t->functions, function, FUNCTION_LINE);
			function_file = field(&t->functions, function, FUNCTION_FILE);
		}
	}
	uint32_t file = likely(spot.file == FILE_OF_FUNCTION) ? function_file : spot.file, dir = 0, base = 0;
	if (likely(file - 1 < t->files.count)) {
		uint64_t record = load_record(&t->files, file - 1);
		dir = record_field(&t->files, record, FILE_DIR);
		base = record_field(&t->files, record, FILE_BASE);
		if (unlikely(t->files.bits > FORMAT_MAX_WIDTH))
			base = field(&t->files, file - 1, FILE_BASE);
	} else {
		file = 0;
	}
	*ret = (struct table_frame){
		.function = text_at(t, name),
		.dir = text_at(t, dir),
		.base = text_at(t, base),
		.line = spot.line_relative ? start_line + spot.line : spot.line,
		.column = spot.column,
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
	if (unlikely(concrete >= concretes->count))
		return;
	uint64_t bit = (uint64_t)concrete * concretes->bits + concretes->shift[CONCRETE_ENTRY];
	unsigned width = concretes->width[CONCRETE_ENTRY];
	unsigned low = width < 32 ? width : 32;
	uint64_t entry = format_bits(concretes->at, bit, low) | format_bits(concretes->at, bit + low, width - low) << low;
	entry += t->entry_base;
	ret->offset = vaddr >= entry ? vaddr - entry : 0;
	ret->aliases = field(concretes, concrete, CONCRETE_ALIAS);
}

/* Writes the chain that begins with @p row; returns its depth, of which at most @p cap frames were written. */
static size_t walk(const struct table *t, const struct row *row, uint64_t vaddr, struct table_frame *frames, size_t cap)
{
	uint32_t number = row->node;
	struct spot spot = row->spot;
	for (size_t depth = 0; number < t->nodes.count;) {
		struct table_frame *frame = &frames[depth < cap ? depth : cap - 1];
		struct node node = read_node(t, number);
		fill_frame(t, node.function, spot, frame);
		depth++;
		if (node.distance == 0)
			fill_concrete(t, node.concrete, vaddr, frame);
		if (node.distance == 0 || unlikely(node.distance > number) || unlikely(depth == TABLE_MAX_DEPTH)) {
			frame->inlined = false;
			return depth;
		}
		number -= node.distance;
		spot = node.call;
	}
	return 0; /* the row's node: parents have smaller numbers */
}

static inline void prefetch(const void *at)
{
	__builtin_prefetch(at, 0, 3);
}

/* The lines that a block most likely takes. */
static inline void prefetch_block(const struct table *t, uint32_t offset)
{
	for (unsigned line = 0; line < 4; line++)
		prefetch(t->blocks + offset + (size_t)line * 64);
}

size_t table_lookup(const struct table *table, uint64_t vaddr, struct table_frame *frames, size_t cap)
{
	uint64_t rel = vaddr - table->base, left;
	if (vaddr < table->base || rel >= table->span || table->block_count == 0 || cap == 0)
		return 0;
	uint32_t block = find_block(table, find_group(table, rel), rel, &left);
	uint32_t offset = block_offset(table, block);
	prefetch_block(table, offset);
	struct place place;
	struct row row;
	if (!find_row(table, offset, left, &place) || !read_row(&place, &row))
		return 0;
	size_t depth = walk(table, &row, vaddr, frames, cap);
	return depth < cap ? depth : cap;
}

/* ---- batch -------------------------------------------------------------------------------------------------------- */

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
		prefetch(t->offsets + (size_t)(block[i] / FORMAT_GROUP) * FORMAT_OFFSETS_BYTES + 4);
	}
	for (size_t i = 0; i < count; i++) {
		offset[i] = hit[i] ? block_offset(t, block[i]) : 0;
		prefetch(t->blocks + offset[i]);
		prefetch(t->blocks + offset[i] + 64);
	}
	struct place place[LANES];
	for (size_t i = 0; i < count; i++) {
		hit[i] = hit[i] && find_row(t, offset[i], left[i], &place[i]);
		if (hit[i])
			prefetch(place[i].records + place[i].bit / 8);
	}
	for (size_t i = 0; i < count; i++) {
		hit[i] = hit[i] && read_row(&place[i], &rows[i]);
		if (hit[i])
			prefetch(t->nodes.at + (uint64_t)rows[i].node * t->nodes.bits / 8);
	}
}

/* A chain before its functions and files are read. Longer or damaged ones are left to walk(). */
enum { CHAIN_DEPTH = 16 };
struct chain {
	unsigned depth; /* 0: none, or left to walk() */
	uint32_t concrete;
	uint32_t function[CHAIN_DEPTH];
	struct spot spot[CHAIN_DEPTH + 1];
};

/*
 * Step 4 for @p count addresses at once: each round reads one node of each chain that has not ended.
 * Returns the frames of all chains together, or SIZE_MAX when one could not be followed to its end.
 */
static inline size_t find_chains(
	const struct table *t, const struct row *rows, const bool *hit, size_t count, struct chain *chains)
{
	uint32_t number[LANES];
	uint8_t lanes[LANES];
	unsigned active = 0;
	bool all_ok = true;
	for (size_t i = 0; i < count; i++) {
		chains[i].depth = 0;
		chains[i].spot[0] = rows[i].spot;
		number[i] = rows[i].node;
		lanes[active] = (uint8_t)i;
		active += hit[i];
		all_ok &= !hit[i] | (number[i] < t->nodes.count);
	}
	if (unlikely(!all_ok))
		return SIZE_MAX;
	size_t total = 0;
	for (unsigned depth = 0; active && depth < CHAIN_DEPTH; depth++) {
		unsigned still = 0;
		total += active;
		for (unsigned k = 0; k < active; k++) {
			unsigned i = lanes[k];
			struct chain *chain = &chains[i];
			struct node node = read_node(t, number[i]);
			prefetch(t->functions.at + ((uint64_t)node.function * t->functions.bits >> 3));
			chain->function[depth] = node.function;
			/* member by member: gcc builds a copy of the whole on the stack, and waits for the store */
			struct spot *spot = &chain->spot[depth + 1];
			spot->line = node.call.line;
			spot->column = node.call.column;
			spot->file = node.call.file;
			spot->line_relative = node.call.line_relative;
			chain->concrete = node.concrete;
			chain->depth = depth + 1;
			all_ok &= node.distance <= number[i];
			number[i] -= node.distance <= number[i] ? node.distance : 0;
			prefetch(t->nodes.at + ((uint64_t)number[i] * t->nodes.bits >> 3));
			lanes[still] = (uint8_t)i;
			still += node.distance != 0;
		}
		active = still;
	}
	return all_ok && active == 0 ? total : SIZE_MAX;
}

/* Step 5 for @p count addresses whose @p total frames fit; the loop over all of their frames is one. */
static inline void fill_chains(const struct table *t, const uint64_t *vaddrs, const struct chain *chains, size_t count,
	struct table_frame *frames)
{
	uint16_t step[LANES * CHAIN_DEPTH + 4]; /* lane * CHAIN_DEPTH + depth */
	unsigned total = 0;
	for (unsigned i = 0; i < count; i++) {
		for (unsigned d = 0; d < chains[i].depth; d += 4)
			for (unsigned k = 0; k < 4; k++) /* some too many, which the next lane overwrites */
				step[total + d + k] = (uint16_t)(i * CHAIN_DEPTH + d + k);
		total += chains[i].depth;
	}
	for (unsigned k = 0; k < total; k++) {
		const struct chain *chain = &chains[step[k] / CHAIN_DEPTH];
		unsigned depth = step[k] % CHAIN_DEPTH;
		fill_frame(t, chain->function[depth], chain->spot[depth], &frames[k]);
	}
	unsigned end = 0;
	for (unsigned i = 0; i < count; i++) {
		end += chains[i].depth;
		if (chains[i].depth == 0)
			continue;
		frames[end - 1].inlined = false;
		fill_concrete(t, chains[i].concrete, vaddrs[i], &frames[end - 1]);
	}
}

/* One after the other, for a group that find_chains could not follow or whose frames may not all fit. Returns how many. */
static size_t walk_rows(const struct table *t, const uint64_t *vaddrs, const struct row *rows, const bool *hit, size_t count,
	struct table_frame *frames, size_t cap, uint32_t *first_ret)
{
	size_t used = 0;
	for (size_t i = 0; i < count; i++) {
		if (hit[i] && used == cap)
			return i;
		size_t depth = hit[i] ? walk(t, &rows[i], vaddrs[i], frames + used, cap - used) : 0;
		if (depth > cap - used)
			return i;
		used += depth;
		first_ret[i + 1] = first_ret[0] + (uint32_t)used;
	}
	return count;
}

size_t table_lookup_batch(const struct table *table, const uint64_t *vaddrs, size_t count, struct table_frame *frames,
	size_t frames_cap, uint32_t *first_ret)
{
	first_ret[0] = 0;
	for (size_t done = 0; done < count;) {
		size_t lanes = count - done < LANES ? count - done : LANES, used = first_ret[done];
		struct row rows[LANES];
		struct chain chains[LANES];
		bool hit[LANES];
		find_rows(table, vaddrs + done, lanes, rows, hit);
		if (unlikely(find_chains(table, rows, hit, lanes, chains) > frames_cap - used)) {
			size_t n = walk_rows(table, vaddrs + done, rows, hit, lanes, frames + used, frames_cap - used,
				first_ret + done);
			done += n;
			if (n < lanes)
				return done;
			continue;
		}
		fill_chains(table, vaddrs + done, chains, lanes, frames + used);
		for (size_t i = 0; i < lanes; i++, done++)
			first_ret[done + 1] = first_ret[done] + chains[i].depth;
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
	return text_at(table, field(&table->aliases, number - 1, ALIAS_NAME));
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
		.index_bytes = table->top_count * ((FORMAT_GROUP + UINT64_C(1)) * table->key_bytes + FORMAT_OFFSETS_BYTES),
		.block_bytes = table->block_bytes,
		.node_bytes = array_bytes(&table->nodes) + array_bytes(&table->wide),
		.function_bytes = array_bytes(&table->concretes) + array_bytes(&table->functions) + array_bytes(&table->aliases),
		.file_bytes = array_bytes(&table->files),
		.string_bytes = table->text_len,
		.total_bytes = table->len,
	};
	memcpy(ret->build_id.bytes, h.build_id, BUILD_ID_MAX);
}

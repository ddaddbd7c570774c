// SPDX-License-Identifier: Apache-2.0
/*
 * Blocks of samples. Little-endian; varints are LEB128; columns as in column.h.
 *
 *   u8 version, u8 kind, u8 level, u8 0
 *   varint rows, groups, first second, last second, value of all rows
 *   columns, of groups:  type and labels, as what they are more than those of the group before
 *                        trace: as more than the one before where type and labels are the same, else as it is
 *                        rows - 1
 *                        value (empty when each row's is 1: then it is the number of rows)
 *   columns, of rows:    second: as more than the row's before in its group, of a group's first: than the block's first
 *                        cpu + 1
 *                        link
 *                        value - 1
 *                        nanoseconds (blocks of times; else empty)
 *   u64 XXH3-64 of all bytes before
 *
 * A group is one (type, labels, trace). Rows are sorted by that, so a reader that wants all seconds of a block inflates the
 * columns of groups only: a fraction of the rows. Most columns are nearly constant and compress to nothing; what costs are the seconds.
 */
#include "profiles/block.h"

#include "base/digest.h"

enum column_name { C_SET, C_TRACE, C_ROWS, C_SUM, C_GROUP_COLUMNS, C_SECOND = C_GROUP_COLUMNS, C_CPU, C_LINK, C_VALUE, C_NS, C_COUNT };

enum { HEAD_BYTES = 4, SUM_BYTES = 8 };

enum {
	RUNS_MAX = 8, /* more are sorted by radix first */
	INSERT_MAX = 16, /* rows that one is moved past; longer groups are left to merging */
};

/* -------------------------------------------------------------------------------------- rows */

static struct err *rows_reserve(struct rows *rows, size_t extra)
{
	if (rows->cap - rows->count >= extra)
		return NULL;
	size_t cap = rows->cap ? rows->cap * 2 : 256;
	while (cap - rows->count < extra)
		cap *= 2;
	if (cap > (size_t)BLOCK_ROWS_LIMIT * 2)
		return err_new(ERR_LIMIT, "more than %d rows", BLOCK_ROWS_LIMIT);
	struct row *items = realloc(rows->items, cap * sizeof(*items));
	if (!items)
		return err_nomem();
	rows->items = items;
	rows->cap = cap;
	return NULL;
}

struct err *rows_add(struct rows *rows, const struct row *row)
{
	if (rows->count == rows->cap)
		TRY(rows_reserve(rows, 1));
	rows->items[rows->count++] = *row;
	return NULL;
}

void rows_deinit(struct rows *rows)
{
	free(rows->items);
	*rows = (struct rows){0};
}

static inline bool row_after(const struct row *a, const struct row *b)
{
	if (a->hi != b->hi)
		return a->hi > b->hi;
	if (a->lo != b->lo)
		return a->lo > b->lo;
	return a->ns > b->ns;
}

static void merge_runs(const struct row *a, size_t a_count, const struct row *b, size_t b_count, struct row *to)
{
	const struct row *a_end = a + a_count, *b_end = b + b_count;

	while (a < a_end && b < b_end)
		*to++ = row_after(a, b) ? *b++ : *a++;
	while (a < a_end)
		*to++ = *a++;
	while (b < b_end)
		*to++ = *b++;
}

/* Where the run of sorted rows ends that begins at @p at. */
static size_t run_end(const struct row *items, size_t at, size_t count)
{
	do
		at++;
	while (at < count && !row_after(&items[at - 1], &items[at]));
	return at;
}

/* -------------------------------------------------------------------------------------- rows in no order */

/* A row's first key and where it stands. */
struct place {
	uint64_t hi;
	uint32_t at;
};

/* One pass of a radix sort, by the byte at @p shift. */
static void scatter(const struct place *from, struct place *to, size_t count, unsigned shift)
{
	size_t starts[257] = {0};

	for (size_t i = 0; i < count; i++)
		starts[(from[i].hi >> shift & 0xff) + 1]++;
	for (size_t i = 1; i < 256; i++)
		starts[i] += starts[i - 1];
	for (size_t i = 0; i < count; i++)
		to[starts[from[i].hi >> shift & 0xff]++] = from[i];
}

/* Sorts by hi alone, keeping the order of equals: bytes that all rows share cost nothing, and those of types and of most labels are. */
static struct err *sort_by_hi(struct rows *rows)
{
	size_t count = rows->count;
	CLEANUP(freep) struct place *places = malloc(2 * count * sizeof(*places));
	struct row *sorted = malloc(count * sizeof(*sorted));
	struct place *from = places, *to = places + count;
	uint64_t differ = 0;

	if (!places || !sorted) {
		free(sorted);
		return err_nomem();
	}
	for (size_t i = 0; i < count; i++) {
		from[i] = (struct place){rows->items[i].hi, (uint32_t)i};
		differ |= rows->items[i].hi ^ rows->items[0].hi;
	}
	for (unsigned shift = 0; shift < 64; shift += 8) {
		if (!(differ >> shift & 0xff))
			continue;
		scatter(from, to, count, shift);
		struct place *other = from;
		from = to;
		to = other;
	}
	for (size_t i = 0; i < count; i++)
		sorted[i] = rows->items[from[i].at];
	free(rows->items);
	rows->items = sorted;
	rows->cap = count;
	return NULL;
}

/* What is sorted by hi becomes runs: equal ones are few, or came in order. */
static void insert_short(struct rows *rows)
{
	for (size_t i = 1; i < rows->count; i++) {
		struct row row = rows->items[i];
		size_t at = i;
		for (; at > 0 && i - at < INSERT_MAX && row_after(&rows->items[at - 1], &row); at--)
			rows->items[at] = rows->items[at - 1];
		rows->items[at] = row;
	}
}

/* True when there are so many runs that merging them would take more passes than a radix sort. */
static bool has_many_runs(const struct rows *rows)
{
	size_t at = 0;
	unsigned runs = 0;

	while (at < rows->count && runs <= RUNS_MAX) {
		at = run_end(rows->items, at, rows->count);
		runs++;
	}
	return runs > RUNS_MAX;
}

/* Natural merge sort: each pass merges neighbouring runs, until there is one. Rows in no order are brought near theirs before. */
struct err *rows_sort(struct rows *rows)
{
	if (has_many_runs(rows)) {
		TRY(sort_by_hi(rows));
		insert_short(rows);
	}
	struct row *from = rows->items, *to = NULL;
	size_t count = rows->count;

	if (count < 2 || run_end(from, 0, count) == count)
		return NULL;
	to = malloc(count * sizeof(*to));
	if (!to)
		return err_nomem();
	for (size_t runs = 2; runs > 1;) {
		runs = 0;
		for (size_t at = 0; at < count; runs++) {
			size_t middle = run_end(from, at, count);
			size_t end = middle < count ? run_end(from, middle, count) : middle;
			merge_runs(from + at, middle - at, from + middle, end - middle, to + at);
			at = end;
		}
		struct row *other = from;
		from = to;
		to = other;
	}
	if (from != rows->items) {
		rows->items = from;
		rows->cap = count;
	}
	free(to);
	return NULL;
}

void rows_add_up(struct rows *rows)
{
	size_t kept = 0;

	for (size_t i = 0; i < rows->count; i++) {
		const struct row *row = &rows->items[i];
		struct row *last = kept > 0 ? &rows->items[kept - 1] : NULL;
		if (last && last->hi == row->hi && last->lo == row->lo)
			last->value = add_saturating(last->value, row->value);
		else
			rows->items[kept++] = *row;
	}
	rows->count = kept;
}

/* -------------------------------------------------------------------------------------- encoding */

struct columns {
	struct buf bufs[C_COUNT];
};

static void columns_deinit(struct columns *columns)
{
	for (int i = 0; i < C_COUNT; i++)
		buf_deinit(&columns->bufs[i]);
}

static void put_group(struct columns *c, const struct row *first, uint64_t before, uint64_t rows, uint64_t sum)
{
	uint64_t set = first->hi >> 32, set_before = before >> 32;

	varint_put(&c->bufs[C_SET], set - set_before);
	varint_put(&c->bufs[C_TRACE], set == set_before ? hi_trace(first->hi) - hi_trace(before) : hi_trace(first->hi));
	varint_put(&c->bufs[C_ROWS], rows - 1);
	varint_put(&c->bufs[C_SUM], sum);
}

static void put_rows(struct columns *c, const struct row *row, size_t count, uint32_t second, bool times)
{
	for (size_t i = 0; i < count; i++, row++) {
		varint_put(&c->bufs[C_SECOND], lo_second(row->lo) - second);
		second = lo_second(row->lo);
		varint_put(&c->bufs[C_CPU], (uint64_t)(lo_cpu(row->lo) + 1));
		varint_put(&c->bufs[C_LINK], lo_link(row->lo));
		varint_put(&c->bufs[C_VALUE], row->value - 1);
		if (times)
			varint_put(&c->bufs[C_NS], row->ns);
	}
}

/* The first and last second of rows, and the value of all. */
static void rows_extent(const struct rows *rows, struct block *ret)
{
	ret->first_second = UINT32_MAX;
	for (size_t i = 0; i < rows->count; i++) {
		uint32_t second = lo_second(rows->items[i].lo);
		ret->first_second = second < ret->first_second ? second : ret->first_second;
		ret->last_second = second > ret->last_second ? second : ret->last_second;
		ret->value = add_saturating(ret->value, rows->items[i].value);
	}
}

/* Fills the columns; returns how many groups there are. */
static uint32_t fill_columns(const struct rows *rows, struct columns *c, const struct block *head, bool *ones_ret)
{
	uint64_t before = 0;
	uint32_t groups = 0;

	*ones_ret = true;
	for (size_t at = 0, end; at < rows->count; at = end, groups++) {
		const struct row *first = &rows->items[at];
		uint64_t sum = 0;
		for (end = at; end < rows->count && rows->items[end].hi == first->hi; end++) {
			sum = add_saturating(sum, rows->items[end].value);
			*ones_ret &= rows->items[end].value == 1;
		}
		put_group(c, first, before, end - at, sum);
		put_rows(c, first, end - at, head->first_second, head->kind == BLOCK_TIMES);
		before = first->hi;
	}
	return groups;
}

struct err *block_begin(enum block_kind kind, unsigned level, struct buf *ret)
{
	const uint8_t head[HEAD_BYTES] = {BLOCK_VERSION, (uint8_t)kind, (uint8_t)level, 0};

	return buf_append(ret, head, sizeof(head));
}

struct err *block_finish(struct buf *ret)
{
	uint64_t sum = digest_xxh3_64(ret->data, ret->len);

	return buf_append(ret, &sum, sizeof(sum));
}

struct err *block_encode(const struct rows *rows, enum block_kind kind, unsigned level, int zlevel, struct buf *ret)
{
	CLEANUP(columns_deinit) struct columns c = {0};
	struct block head = {.kind = kind};
	bool ones;

	if (rows->count == 0 || rows->count > BLOCK_ROWS_LIMIT)
		return err_new(ERR_LIMIT, "a block of %zu rows", rows->count);
	for (int i = 0; i < C_COUNT; i++)
		TRY(buf_reserve(&c.bufs[i], rows->count * (i == C_SUM || i == C_VALUE ? VARINT_MAX : 6)));
	rows_extent(rows, &head);
	uint32_t groups = fill_columns(rows, &c, &head, &ones);
	if (ones)
		c.bufs[C_SUM].len = 0;
	TRY(block_begin(kind, level, ret));
	TRY(varint_append(ret, rows->count));
	TRY(varint_append(ret, groups));
	TRY(varint_append(ret, head.first_second));
	TRY(varint_append(ret, head.last_second));
	TRY(varint_append(ret, head.value));
	for (int i = 0; i < C_COUNT; i++)
		TRY(column_append(ret, c.bufs[i].data, c.bufs[i].len, zlevel));
	return block_finish(ret);
}

/* -------------------------------------------------------------------------------------- decoding */

struct err *block_open(const void *bytes, size_t len, struct block *ret)
{
	uint64_t sum;

	if (len < HEAD_BYTES + SUM_BYTES)
		return err_new(ERR_FORMAT, "a block of %zu bytes", len);
	memcpy(&sum, (const uint8_t *)bytes + len - SUM_BYTES, SUM_BYTES);
	if (sum != digest_xxh3_64(bytes, len - SUM_BYTES))
		return err_new(ERR_FORMAT, "the checksum does not match");
	struct reader r = reader_init(bytes, len - SUM_BYTES, false, "block");
	uint8_t version = reader_u8(&r);
	if (version > BLOCK_VERSION)
		return err_new(ERR_UNSUPPORTED, "a block of version %u; this one knows up to %d", version, BLOCK_VERSION);
	*ret = (struct block){.kind = reader_u8(&r)};
	ret->level = reader_u8(&r);
	reader_skip(&r, 1);
	if (version == 0 || (ret->kind != BLOCK_DICT && ret->kind != BLOCK_SAMPLES && ret->kind != BLOCK_TIMES))
		return reader_error(&r, "version %u, kind %u", version, ret->kind);
	if (ret->kind != BLOCK_DICT) {
		uint64_t rows = reader_uleb(&r), groups = reader_uleb(&r), first = reader_uleb(&r), last = reader_uleb(&r);
		ret->value = reader_uleb(&r);
		if (r.failed || rows == 0 || rows > BLOCK_ROWS_LIMIT || groups == 0 || groups > rows || first > last ||
			last >= BLOCK_SECONDS_MAX)
			return reader_error(&r, "a malformed head");
		ret->rows = (uint32_t)rows;
		ret->groups = (uint32_t)groups;
		ret->first_second = (uint32_t)first;
		ret->last_second = (uint32_t)last;
	}
	ret->payload = r;
	return NULL;
}

/* Inflates columns [first, end) of a block into c, skipping those before. */
static struct err *inflate_columns(struct reader *r, struct columns *c, int first, int end)
{
	for (int i = first; i < end; i++) {
		struct column column = column_read(r);
		if (r->failed)
			return reader_error(r, "column %d is malformed", i);
		TRY(err_wrap(column_inflate(&column, &c->bufs[i]), "column %d", i));
	}
	return NULL;
}

static struct reader column_reader(const struct columns *c, int i)
{
	return buf_reader(&c->bufs[i], "column");
}

static struct err *read_groups(const struct block *block, const struct columns *c, struct group *groups)
{
	struct reader sets = column_reader(c, C_SET), traces = column_reader(c, C_TRACE), rows = column_reader(c, C_ROWS),
		      sums = column_reader(c, C_SUM);
	bool ones = c->bufs[C_SUM].len == 0;
	uint64_t set = 0, trace = 0, left = block->rows;

	for (uint32_t i = 0; i < block->groups; i++) {
		uint64_t more = reader_uleb(&sets), next = reader_uleb(&traces), count = reader_uleb(&rows) + 1;
		set += more;
		trace = more == 0 ? trace + next : next;
		if (set > UINT32_MAX || more > UINT32_MAX || trace > UINT32_MAX || next > UINT32_MAX || count == 0 || count > left)
			return reader_error(&block->payload, "group %u is malformed", i);
		left -= count;
		groups[i] = (struct group){.hi = set << 32 | trace, .rows = (uint32_t)count, .value = ones ? count : reader_uleb(&sums)};
	}
	if (left || sets.failed || traces.failed || rows.failed || sums.failed || reader_left(&sets) || reader_left(&traces) ||
		reader_left(&rows) || reader_left(&sums))
		return reader_error(&block->payload, "columns of groups do not fit");
	return NULL;
}

static struct err *groups_of(const struct block *block, struct reader *r, struct group **ret)
{
	CLEANUP(columns_deinit) struct columns c = {0};

	TRY(inflate_columns(r, &c, C_SET, C_GROUP_COLUMNS));
	/* At least a byte a group: a count that the columns cannot hold is not believed. */
	if (block->groups > c.bufs[C_SET].len)
		return reader_error(r, "%u groups in %zu bytes", block->groups, c.bufs[C_SET].len);
	CLEANUP(freep) struct group *groups = malloc(block->groups * sizeof(*groups));
	if (!groups)
		return err_nomem();
	TRY(read_groups(block, &c, groups));
	*ret = TAKE_PTR(groups);
	return NULL;
}

struct err *block_groups(const struct block *block, struct group **ret, size_t *count_ret)
{
	struct reader r = block->payload;

	if (block->kind == BLOCK_DICT)
		return err_new(ERR_FORMAT, "a block of the dictionary has no samples");
	TRY(groups_of(block, &r, ret));
	*count_ret = block->groups;
	return NULL;
}

static struct err *read_rows(const struct block *block, const struct columns *c, const struct group *groups, struct rows *ret)
{
	struct reader seconds = column_reader(c, C_SECOND), cpus = column_reader(c, C_CPU), links = column_reader(c, C_LINK),
		      values = column_reader(c, C_VALUE), ns = column_reader(c, C_NS);
	bool times = block->kind == BLOCK_TIMES;

	for (uint32_t g = 0; g < block->groups; g++) {
		uint64_t second = block->first_second;
		for (uint32_t i = 0; i < groups[g].rows; i++) {
			uint64_t more = reader_uleb(&seconds), cpu = reader_uleb(&cpus), link = reader_uleb(&links);
			uint64_t value = reader_uleb(&values) + 1, nanoseconds = times ? reader_uleb(&ns) : 0;
			second += more;
			if (more > block->last_second || second > block->last_second || cpu > UINT16_MAX || link > UINT32_MAX ||
				nanoseconds >= 1000000000)
				return reader_error(&block->payload, "a row of group %u is malformed", g);
			ret->items[ret->count++] = (struct row){.hi = groups[g].hi,
				.lo = second << 48 | cpu << 32 | link,
				.value = value,
				.ns = (uint32_t)nanoseconds};
		}
	}
	if (seconds.failed || cpus.failed || links.failed || values.failed || ns.failed || reader_left(&seconds) || reader_left(&cpus) ||
		reader_left(&links) || reader_left(&values) || reader_left(&ns))
		return reader_error(&block->payload, "columns of rows do not fit");
	return NULL;
}

struct err *block_rows(const struct block *block, struct rows *ret)
{
	CLEANUP(columns_deinit) struct columns c = {0};
	CLEANUP(freep) struct group *groups = NULL;
	struct reader r = block->payload;
	size_t before = ret->count;

	if (block->kind == BLOCK_DICT)
		return err_new(ERR_FORMAT, "a block of the dictionary has no samples");
	TRY(groups_of(block, &r, &groups));
	TRY(inflate_columns(&r, &c, C_SECOND, C_COUNT));
	if (reader_left(&r))
		return reader_error(&r, "bytes behind the columns");
	if (block->rows > c.bufs[C_SECOND].len)
		return reader_error(&r, "%u rows in %zu bytes", block->rows, c.bufs[C_SECOND].len);
	TRY(rows_reserve(ret, block->rows));
	struct err *e = read_rows(block, &c, groups, ret);
	if (e)
		ret->count = before;
	return e;
}

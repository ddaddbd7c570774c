// SPDX-License-Identifier: Apache-2.0
/*
 * Dictionaries: records found by their bytes, and a tree of stacks.
 *
 * Records (v: varint, t: number of a text):
 *   text      its bytes
 *   type      t type, t unit, t period type, t period unit, v period (zigzag)
 *   labels    v parent + 1, v count, count x {t key, t value}
 *   mapping   u8 flags (1 file ID, 2 bias), 16 bytes file ID, u8 length and bytes of the build ID, t Go build ID, t name, v bias
 *   line      t function, t system name, t file, v line, v column, v start line
 *   location  u8 kind | address kind << 4, v mapping + 1, v address, v count, count x v line
 *   link      16 bytes trace ID, 8 bytes span ID
 *
 * The index maps the hash of a record's bytes to its number; of two records with one hash, the second stands at the next
 * free hash. XXH3 without a secret can be attacked, so a run of DICT_PROBES_MAX taken hashes is an error.
 *
 * The index of nodes leaves out those that come right behind their parents: a stack that is new from some frame on adds a chain of such,
 * and all but its first are found by a look at the next number. So most stacks are walked along memory, and the index has an entry a branch.
 */
#include "profiles/dict.h"

#include "base/digest.h"
#include "profiles/column.h"

struct err *dict_init(struct dict *ret)
{
	uint32_t zero;

	*ret = (struct dict){.indexed = true};
	struct err *e = dict_add(ret, DICT_TEXTS, "", 0, &zero);
	if (!e)
		e = dict_add(ret, DICT_LINKS, "", 0, &zero);
	if (!e && !((ret->parents = calloc(64, sizeof(uint32_t))) && (ret->locations = calloc(64, sizeof(uint32_t)))))
		e = err_nomem();
	if (e) {
		dict_deinit(ret);
		return e;
	}
	ret->node_cap = 64;
	ret->node_count = 1;
	ret->locations[0] = SAMPLES_NONE;
	return NULL;
}

void dict_deinit(struct dict *dict)
{
	for (int i = 0; i < DICT_TABLES; i++) {
		buf_deinit(&dict->tables[i].bytes);
		free(dict->tables[i].ends);
		hmap_deinit(&dict->tables[i].index);
	}
	free(dict->parents);
	free(dict->locations);
	hmap_deinit(&dict->node_index);
	*dict = (struct dict){0};
}

static size_t hmap_bytes(const struct hmap *map)
{
	return map->slots ? (map->mask + 1) * sizeof(*map->slots) : 0;
}

size_t dict_bytes(const struct dict *dict)
{
	size_t bytes = sizeof(*dict) + dict->node_cap * 2 * sizeof(uint32_t) + hmap_bytes(&dict->node_index);

	for (int i = 0; i < DICT_TABLES; i++) {
		const struct records *r = &dict->tables[i];
		bytes += r->bytes.cap + r->cap * sizeof(uint32_t) + hmap_bytes(&r->index);
	}
	return bytes;
}

struct dict_mark dict_mark(const struct dict *dict)
{
	struct dict_mark mark = {.nodes = dict->node_count};

	for (int i = 0; i < DICT_TABLES; i++)
		mark.counts[i] = dict->tables[i].count;
	return mark;
}

bool dict_mark_equal(const struct dict_mark *a, const struct dict_mark *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* -------------------------------------------------------------------------------------- adding */

static struct err *records_append(struct records *r, const void *bytes, size_t len)
{
	if (r->count == r->cap) {
		if (r->count >= UINT32_MAX / 4)
			return err_new(ERR_LIMIT, "a dictionary of more than %u records", UINT32_MAX / 4);
		uint32_t cap = r->cap ? 2 * r->cap : 32;
		uint32_t *ends = realloc(r->ends, cap * sizeof(*ends));
		if (!ends)
			return err_nomem();
		r->ends = ends;
		r->cap = cap;
	}
	if (len > 0)
		TRY(buf_append(&r->bytes, bytes, len));
	r->ends[r->count++] = (uint32_t)r->bytes.len;
	return NULL;
}

static bool record_is(const struct dict *dict, enum dict_table table, uint32_t number, const void *bytes, size_t len)
{
	struct samples_text record = dict_record(dict, table, number);

	return record.len == len && (len == 0 || memcmp(record.bytes, bytes, len) == 0);
}

/* Finds a record, or the hash under which it would be put. */
static struct err *records_find(const struct dict *dict, enum dict_table table, const void *bytes, size_t len, uint64_t *hash_ret,
	uint32_t *ret)
{
	uint64_t hash = digest_xxh3_64(bytes, len), number;

	for (unsigned probes = 0; hmap_get(&dict->tables[table].index, hash, &number); hash++) {
		if (record_is(dict, table, (uint32_t)number, bytes, len)) {
			*ret = (uint32_t)number;
			return NULL;
		}
		if (++probes > DICT_PROBES_MAX)
			return err_new(ERR_LIMIT, "%d records of one hash", DICT_PROBES_MAX);
	}
	*hash_ret = hash;
	*ret = SAMPLES_NONE;
	return NULL;
}

static uint64_t node_key(uint32_t parent, uint32_t location)
{
	return (uint64_t)parent << 32 | location;
}

/* After decoding: the indices of all that is there. */
static struct err *index_all(struct dict *dict)
{
	for (enum dict_table table = 0; table < DICT_TABLES; table++) {
		struct records *r = &dict->tables[table];
		hmap_clear(&r->index);
		TRY(hmap_reserve(&r->index, r->count));
		for (uint32_t i = 0; i < r->count; i++) {
			struct samples_text record = dict_record(dict, table, i);
			uint64_t hash;
			uint32_t found;
			TRY(records_find(dict, table, record.bytes, record.len, &hash, &found));
			if (found == SAMPLES_NONE)
				TRY(hmap_set(&r->index, hash, i));
		}
	}
	hmap_clear(&dict->node_index);
	for (uint32_t i = 1; i < dict->node_count; i++)
		if (dict->parents[i] != i - 1)
			TRY(hmap_set(&dict->node_index, node_key(dict->parents[i], dict->locations[i]), i));
	dict->indexed = true;
	return NULL;
}

struct err *dict_add(struct dict *dict, enum dict_table table, const void *bytes, size_t len, uint32_t *ret)
{
	uint64_t hash;

	if (!dict->indexed)
		TRY(index_all(dict));
	TRY(records_find(dict, table, bytes, len, &hash, ret));
	if (*ret != SAMPLES_NONE)
		return NULL;
	struct records *r = &dict->tables[table];
	TRY(hmap_reserve(&r->index, r->index.count + 1));
	TRY(records_append(r, bytes, len));
	*ret = r->count - 1;
	return hmap_set(&r->index, hash, *ret);
}

static struct err *nodes_reserve(struct dict *dict, uint32_t count)
{
	if (count <= dict->node_cap)
		return NULL;
	if (count > DICT_NODES_MAX)
		return err_new(ERR_LIMIT, "stacks of more than %d nodes", DICT_NODES_MAX);
	uint32_t cap = dict->node_cap * 2 > count ? dict->node_cap * 2 : count;
	uint32_t *parents = realloc(dict->parents, cap * sizeof(*parents));
	if (!parents)
		return err_nomem();
	dict->parents = parents;
	uint32_t *locations = realloc(dict->locations, cap * sizeof(*locations));
	if (!locations)
		return err_nomem();
	dict->locations = locations;
	dict->node_cap = cap;
	return NULL;
}

struct err *dict_add_node(struct dict *dict, uint32_t parent, uint32_t location, uint32_t *ret)
{
	uint32_t next = parent + 1;
	uint64_t number;

	if (next < dict->node_count && dict->parents[next] == parent && dict->locations[next] == location) {
		*ret = next;
		return NULL;
	}
	if (!dict->indexed)
		TRY(index_all(dict));
	if (next != dict->node_count && hmap_get(&dict->node_index, node_key(parent, location), &number)) {
		*ret = (uint32_t)number;
		return NULL;
	}
	TRY(nodes_reserve(dict, dict->node_count + 1));
	if (next != dict->node_count)
		TRY(hmap_set(&dict->node_index, node_key(parent, location), dict->node_count));
	dict->parents[dict->node_count] = parent;
	dict->locations[dict->node_count] = location;
	*ret = dict->node_count++;
	return NULL;
}

/* -------------------------------------------------------------------------------------- records */

/* A record in the making; large enough for the largest one of numbers. */
struct maker {
	uint8_t bytes[16 + VARINT_MAX * (2 * SAMPLES_LABELS_MAX + SAMPLES_LINES_MAX + 16) + BUILD_ID_MAX];
	struct buf buf;
};

static void maker_init(struct maker *m)
{
	m->buf = (struct buf){.data = m->bytes, .cap = sizeof(m->bytes)};
}

static void put_bytes(struct maker *m, const void *bytes, size_t len)
{
	memcpy(m->buf.data + m->buf.len, bytes, len);
	m->buf.len += len;
}

static struct err *maker_add(const struct maker *m, struct dict *dict, enum dict_table table, uint32_t *ret)
{
	return dict_add(dict, table, m->bytes, m->buf.len, ret);
}

struct err *dict_add_type(struct dict *dict, const struct dict_type *type, uint32_t *ret)
{
	struct maker m;

	maker_init(&m);
	varint_put(&m.buf, type->type);
	varint_put(&m.buf, type->unit);
	varint_put(&m.buf, type->period_type);
	varint_put(&m.buf, type->period_unit);
	varint_put(&m.buf, zigzag(type->period));
	return maker_add(&m, dict, DICT_TYPES, ret);
}

struct err *dict_add_labels(struct dict *dict, const struct dict_labels *labels, uint32_t *ret)
{
	struct maker m;

	maker_init(&m);
	varint_put(&m.buf, (uint64_t)(labels->parent + 1));
	varint_put(&m.buf, labels->count);
	for (uint32_t i = 0; i < labels->count; i++) {
		varint_put(&m.buf, labels->items[i].key);
		varint_put(&m.buf, labels->items[i].value);
	}
	return maker_add(&m, dict, DICT_LABELS, ret);
}

enum { MAPPING_FILE_ID = 1, MAPPING_BIAS = 2 };

struct err *dict_add_mapping(struct dict *dict, const struct dict_mapping *mapping, uint32_t *ret)
{
	static const struct fileid none;
	struct maker m;
	bool has_id = memcmp(&mapping->file_id, &none, sizeof(none)) != 0;

	maker_init(&m);
	buf_put_u8(&m.buf, (uint8_t)((has_id ? MAPPING_FILE_ID : 0) | (mapping->has_bias ? MAPPING_BIAS : 0)));
	if (has_id)
		put_bytes(&m, mapping->file_id.bytes, FILEID_BYTES);
	buf_put_u8(&m.buf, mapping->build_id.len);
	put_bytes(&m, mapping->build_id.bytes, mapping->build_id.len);
	varint_put(&m.buf, mapping->go_build_id);
	varint_put(&m.buf, mapping->name);
	if (mapping->has_bias)
		varint_put(&m.buf, mapping->bias);
	return maker_add(&m, dict, DICT_MAPPINGS, ret);
}

struct err *dict_add_line(struct dict *dict, const struct dict_line *line, uint32_t *ret)
{
	struct maker m;

	maker_init(&m);
	varint_put(&m.buf, line->function);
	varint_put(&m.buf, line->system_name);
	varint_put(&m.buf, line->file);
	varint_put(&m.buf, line->line);
	varint_put(&m.buf, line->column);
	varint_put(&m.buf, line->start_line);
	return maker_add(&m, dict, DICT_LINES, ret);
}

struct err *dict_add_location(struct dict *dict, const struct dict_location *location, uint32_t *ret)
{
	struct maker m;

	maker_init(&m);
	buf_put_u8(&m.buf, (uint8_t)((unsigned)location->kind | (unsigned)location->address_kind << 4));
	varint_put(&m.buf, (uint64_t)(location->mapping + 1));
	varint_put(&m.buf, location->address);
	varint_put(&m.buf, location->line_count);
	for (uint32_t i = 0; i < location->line_count; i++)
		varint_put(&m.buf, location->lines[i]);
	return maker_add(&m, dict, DICT_LOCATIONS, ret);
}

struct err *dict_add_link(struct dict *dict, const struct dict_link *link, uint32_t *ret)
{
	return dict_add(dict, DICT_LINKS, link, sizeof(*link), ret);
}

static struct reader record_reader(const struct dict *dict, enum dict_table table, uint32_t number)
{
	struct samples_text record = dict_record(dict, table, number);

	return reader_init(record.bytes ? record.bytes : "", record.len, false, "dictionary");
}

/* A number below a count, else the reader fails. */
static uint32_t number_below(struct reader *r, uint32_t count)
{
	uint64_t number = reader_uleb(r);

	if (number >= count)
		reader_fail(r);
	return (uint32_t)number;
}

/* A number below a count, plus 1; SAMPLES_NONE for 0. */
static uint32_t number_or_none(struct reader *r, uint32_t count)
{
	uint64_t number = reader_uleb(r);

	if (number > count)
		reader_fail(r);
	return (uint32_t)number - 1;
}

static uint32_t text_number(struct reader *r, const struct dict *dict)
{
	return number_below(r, dict->tables[DICT_TEXTS].count);
}

static void read_type(const struct dict *dict, struct reader *r, struct dict_type *ret)
{
	ret->type = text_number(r, dict);
	ret->unit = text_number(r, dict);
	ret->period_type = text_number(r, dict);
	ret->period_unit = text_number(r, dict);
	ret->period = unzigzag(reader_uleb(r));
}

static void read_labels(const struct dict *dict, struct reader *r, uint32_t number, struct dict_labels *ret)
{
	ret->parent = number_or_none(r, number);
	ret->count = number_below(r, SAMPLES_LABELS_MAX + 1);
	if (r->failed)
		ret->count = 0;
	for (uint32_t i = 0; i < ret->count; i++) {
		ret->items[i].key = text_number(r, dict);
		ret->items[i].value = text_number(r, dict);
	}
}

static void read_mapping(const struct dict *dict, struct reader *r, struct dict_mapping *ret)
{
	uint8_t flags = reader_u8(r);
	const uint8_t *bytes;

	*ret = (struct dict_mapping){.has_bias = flags & MAPPING_BIAS};
	if (flags & MAPPING_FILE_ID && (bytes = reader_bytes(r, FILEID_BYTES)))
		memcpy(ret->file_id.bytes, bytes, FILEID_BYTES);
	uint8_t len = reader_u8(r);
	if (len > BUILD_ID_MAX || flags & ~(MAPPING_FILE_ID | MAPPING_BIAS))
		reader_fail(r);
	else if ((bytes = reader_bytes(r, len))) {
		ret->build_id.len = len;
		memcpy(ret->build_id.bytes, bytes, len);
	}
	ret->go_build_id = text_number(r, dict);
	ret->name = text_number(r, dict);
	if (ret->has_bias)
		ret->bias = reader_uleb(r);
}

static void read_line(const struct dict *dict, struct reader *r, struct dict_line *ret)
{
	ret->function = text_number(r, dict);
	ret->system_name = text_number(r, dict);
	ret->file = text_number(r, dict);
	ret->line = (uint32_t)reader_uleb(r);
	ret->column = (uint32_t)reader_uleb(r);
	ret->start_line = (uint32_t)reader_uleb(r);
}

static void read_location(const struct dict *dict, struct reader *r, struct dict_location *ret)
{
	uint8_t kinds = reader_u8(r);

	ret->kind = (enum profile_frame_kind)(kinds & 15);
	ret->address_kind = (enum samples_address_kind)(kinds >> 4);
	if (ret->kind > PROFILE_FRAME_INTERPRETED || ret->address_kind > SAMPLES_ADDRESS_TEXT)
		reader_fail(r);
	ret->mapping = number_or_none(r, dict->tables[DICT_MAPPINGS].count);
	ret->address = reader_uleb(r);
	ret->line_count = number_below(r, SAMPLES_LINES_MAX + 1);
	if (r->failed)
		ret->line_count = 0;
	for (uint32_t i = 0; i < ret->line_count; i++)
		ret->lines[i] = number_below(r, dict->tables[DICT_LINES].count);
}

static void read_link(struct reader *r, struct dict_link *ret)
{
	const uint8_t *bytes = reader_bytes(r, sizeof(*ret));

	if (bytes)
		memcpy(ret, bytes, sizeof(*ret));
}

void dict_get_type(const struct dict *dict, uint32_t number, struct dict_type *ret)
{
	struct reader r = record_reader(dict, DICT_TYPES, number);

	read_type(dict, &r, ret);
}

void dict_get_labels(const struct dict *dict, uint32_t number, struct dict_labels *ret)
{
	struct reader r = record_reader(dict, DICT_LABELS, number);

	read_labels(dict, &r, number, ret);
}

void dict_get_mapping(const struct dict *dict, uint32_t number, struct dict_mapping *ret)
{
	struct reader r = record_reader(dict, DICT_MAPPINGS, number);

	read_mapping(dict, &r, ret);
}

void dict_get_line(const struct dict *dict, uint32_t number, struct dict_line *ret)
{
	struct reader r = record_reader(dict, DICT_LINES, number);

	read_line(dict, &r, ret);
}

void dict_get_location(const struct dict *dict, uint32_t number, struct dict_location *ret)
{
	struct reader r = record_reader(dict, DICT_LOCATIONS, number);

	read_location(dict, &r, ret);
}

void dict_get_link(const struct dict *dict, uint32_t number, struct dict_link *ret)
{
	struct reader r = record_reader(dict, DICT_LINKS, number);

	*ret = (struct dict_link){0};
	if (number != 0)
		read_link(&r, ret);
}

/* Whether a record that was read from outside is well-formed; tables before it are complete. */
static bool record_is_good(const struct dict *dict, enum dict_table table, uint32_t number)
{
	struct reader r = record_reader(dict, table, number);
	union {
		struct dict_type type;
		struct dict_labels labels;
		struct dict_mapping mapping;
		struct dict_line line;
		struct dict_location location;
		struct dict_link link;
	} ignored;

	switch (table) {
	case DICT_TEXTS:
		return reader_left(&r) <= SAMPLES_TEXT_MAX;
	case DICT_TYPES:
		read_type(dict, &r, &ignored.type);
		break;
	case DICT_LABELS:
		read_labels(dict, &r, number, &ignored.labels);
		break;
	case DICT_MAPPINGS:
		read_mapping(dict, &r, &ignored.mapping);
		break;
	case DICT_LINES:
		read_line(dict, &r, &ignored.line);
		break;
	case DICT_LOCATIONS:
		read_location(dict, &r, &ignored.location);
		break;
	case DICT_LINKS:
		if (number == 0)
			return reader_left(&r) == 0;
		read_link(&r, &ignored.link);
		break;
	case DICT_TABLES:
		break;
	}
	return !r.failed && reader_left(&r) == 0;
}

/* -------------------------------------------------------------------------------------- blocks */

static struct err *encode_records(const struct records *r, uint32_t from, int level, struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf lens = {0};
	uint32_t start = from ? r->ends[from - 1] : 0, at = start;

	TRY(varint_append(ret, from));
	TRY(varint_append(ret, r->count - from));
	TRY(buf_reserve(&lens, (size_t)(r->count - from) * VARINT_MAX));
	for (uint32_t i = from; i < r->count; i++) {
		varint_put(&lens, r->ends[i] - at);
		at = r->ends[i];
	}
	TRY(column_append(ret, lens.data, lens.len, level));
	return column_append(ret, r->bytes.data ? r->bytes.data + start : NULL, at - start, level);
}

/* A chain of new nodes has each the one before as its parent, and often the locations of an older chain in a row. */
static struct err *encode_nodes(const struct dict *dict, uint32_t from, int level, struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf parents = {0};
	CLEANUP(buf_deinit) struct buf locations = {0};
	size_t room = (size_t)(dict->node_count - from) * VARINT_MAX;

	TRY(varint_append(ret, from));
	TRY(varint_append(ret, dict->node_count - from));
	TRY(buf_reserve(&parents, room));
	TRY(buf_reserve(&locations, room));
	for (uint32_t i = from; i < dict->node_count; i++) {
		varint_put(&parents, i - 1 - dict->parents[i]);
		varint_put(&locations, dict->locations[i]);
	}
	TRY(column_append(ret, parents.data, parents.len, level));
	return column_append(ret, locations.data, locations.len, level);
}

struct err *dict_encode(const struct dict *dict, const struct dict_mark *from, int level, struct buf *ret)
{
	for (int i = 0; i < DICT_TABLES; i++)
		TRY(encode_records(&dict->tables[i], from->counts[i], level, ret));
	return encode_nodes(dict, from->nodes, level, ret);
}

/* "number of the first, how many" of a piece; it must begin where the table ends. */
static uint32_t piece_count(struct reader *r, uint32_t have)
{
	uint64_t first = reader_uleb(r), count = reader_uleb(r);

	if (first != have || count > UINT32_MAX / 4 - have)
		reader_fail(r);
	return (uint32_t)count;
}

static struct err *decode_records(struct dict *dict, enum dict_table table, struct reader *r)
{
	struct records *records = &dict->tables[table];
	CLEANUP(buf_deinit) struct buf lens = {0};
	CLEANUP(buf_deinit) struct buf bytes = {0};
	uint32_t count = piece_count(r, records->count);
	struct column lens_column = column_read(r), bytes_column = column_read(r);

	if (r->failed || count > lens_column.len)
		return reader_error(r, "table %d is malformed", table);
	TRY(column_inflate(&lens_column, &lens));
	TRY(column_inflate(&bytes_column, &bytes));
	struct reader lens_reader = buf_reader(&lens, "lengths");
	struct reader content = buf_reader(&bytes, "records");
	for (uint32_t i = 0; i < count; i++) {
		uint64_t len = reader_uleb(&lens_reader);
		const uint8_t *record = reader_bytes(&content, len);
		if (!record && len > 0)
			break;
		TRY(records_append(records, record, len));
		if (!record_is_good(dict, table, records->count - 1))
			return reader_error(r, "table %d: record %u is malformed", table, records->count - 1);
	}
	if (lens_reader.failed || content.failed || reader_left(&lens_reader) || reader_left(&content))
		return reader_error(r, "table %d: lengths and records do not fit", table);
	return NULL;
}

static struct err *decode_nodes(struct dict *dict, struct reader *r)
{
	CLEANUP(buf_deinit) struct buf parents = {0};
	CLEANUP(buf_deinit) struct buf locations = {0};
	uint32_t count = piece_count(r, dict->node_count);
	struct column parents_column = column_read(r), locations_column = column_read(r);

	if (r->failed || count > parents_column.len || count > locations_column.len)
		return reader_error(r, "the nodes are malformed");
	TRY(column_inflate(&parents_column, &parents));
	TRY(column_inflate(&locations_column, &locations));
	struct reader p = buf_reader(&parents, "parents");
	struct reader l = buf_reader(&locations, "locations");
	TRY(nodes_reserve(dict, dict->node_count + count));
	for (uint32_t i = 0; i < count; i++) {
		uint64_t back = reader_uleb(&p) + 1, location = reader_uleb(&l);
		if (p.failed || l.failed || back == 0 || back > dict->node_count ||
			location >= dict->tables[DICT_LOCATIONS].count)
			return reader_error(r, "node %u is malformed", dict->node_count);
		dict->parents[dict->node_count] = dict->node_count - (uint32_t)back;
		dict->locations[dict->node_count++] = (uint32_t)location;
	}
	return reader_left(&p) || reader_left(&l) ? reader_error(r, "more parents or locations than nodes") : NULL;
}

struct err *dict_decode(struct dict *dict, const void *bytes, size_t len)
{
	struct reader r = reader_init(bytes, len, false, "dictionary");

	dict->indexed = false;
	for (enum dict_table table = 0; table < DICT_TABLES; table++)
		TRY(decode_records(dict, table, &r));
	TRY(decode_nodes(dict, &r));
	return r.failed || reader_left(&r) ? reader_error(&r, "bytes behind the end") : NULL;
}

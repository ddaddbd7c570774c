// SPDX-License-Identifier: Apache-2.0
/*
 * Partitions as the writer holds them. A partition is (start, tenant, generation): an hour of one tenant, and once more when
 * samples of that hour come after it was sealed, or when its dictionary is full. All partitions are listed in memory with their records;
 * the open ones that were written lately have their dictionaries there too. After a transaction that failed everything is
 * forgotten and read again, so memory never runs ahead of what is durable.
 */
#include "profiles/samples_internal.h"

enum { RECORD_VERSION = 1, GENERATIONS_MAX = 4096 };

/* -------------------------------------------------------------------------------------- keys and records */

static void put_be(uint8_t *to, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

static uint64_t get_be(const uint8_t *from, size_t size)
{
	uint64_t value = 0;

	for (size_t i = 0; i < size; i++)
		value = value << 8 | from[i];
	return value;
}

void partition_key(const struct partition_id *id, uint8_t key[PARTITION_KEY_BYTES])
{
	put_be(key, id->start, 4);
	put_be(key + 4, id->tenant, 4);
	put_be(key + 8, id->generation, 2);
}

bool partition_key_parse(const struct store_view *key, struct partition_id *ret)
{
	if (key->len != PARTITION_KEY_BYTES)
		return false;
	ret->start = (uint32_t)get_be(key->bytes, 4);
	ret->tenant = (uint32_t)get_be(key->bytes + 4, 4);
	ret->generation = (uint16_t)get_be(key->bytes + 8, 2);
	return true;
}

void block_key(const struct partition_id *id, enum block_kind kind, uint32_t number, uint8_t key[BLOCK_KEY_BYTES])
{
	partition_key(id, key);
	key[PARTITION_KEY_BYTES] = (uint8_t)kind;
	put_be(key + PARTITION_KEY_BYTES + 1, number, 4);
}

size_t partition_record_encode(const struct partition_record *record, uint8_t bytes[PARTITION_RECORD_MAX])
{
	struct buf buf = {.data = bytes, .cap = PARTITION_RECORD_MAX};

	buf_put_u8(&buf, RECORD_VERSION);
	buf_put_u8(&buf, (uint8_t)record->state);
	varint_put(&buf, record->seconds);
	varint_put(&buf, record->last_write_ms);
	for (int i = 0; i < 3; i++)
		varint_put(&buf, record->next[i]);
	varint_put(&buf, record->stored_bytes);
	varint_put(&buf, record->value);
	varint_put(&buf, record->rows);
	varint_put(&buf, record->times_until);
	return buf.len;
}

struct err *partition_record_decode(const struct store_view *key, const struct store_view *value, struct partition_record *ret)
{
	struct reader r = reader_init(value->bytes, value->len, false, "partition");
	uint8_t version = reader_u8(&r), state = reader_u8(&r);

	ret->state = (enum partition_state)state;
	ret->seconds = (uint32_t)reader_uleb(&r);
	ret->last_write_ms = reader_uleb(&r);
	for (int i = 0; i < 3; i++)
		ret->next[i] = (uint32_t)reader_uleb(&r);
	ret->stored_bytes = reader_uleb(&r);
	ret->value = reader_uleb(&r);
	ret->rows = reader_uleb(&r);
	ret->times_until = (uint32_t)reader_uleb(&r);
	if (r.failed || reader_left(&r) || version != RECORD_VERSION || state > PARTITION_DROPPING || ret->seconds == 0 ||
		ret->seconds > PARTITION_SECONDS_MAX)
		return store_profiles_corrupt(STORE_PARTITIONS, key->bytes, key->len, "malformed record");
	return NULL;
}

/* -------------------------------------------------------------------------------------- the list */

static int id_compare(const struct partition_id *a, const struct partition_id *b)
{
	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	if (a->tenant != b->tenant)
		return a->tenant < b->tenant ? -1 : 1;
	return (a->generation > b->generation) - (a->generation < b->generation);
}

static struct err *list_insert(struct samples *samples, const struct partition_id *id, struct partition **ret)
{
	struct partition *partition = calloc(1, sizeof(*partition)), **at = &samples->partitions;

	if (!partition)
		return err_nomem();
	partition->id = *id;
	while (*at && id_compare(&(*at)->id, id) < 0)
		at = &(*at)->next;
	partition->next = *at;
	*at = partition;
	*ret = partition;
	return NULL;
}

/* Gauges of what is durable. */
static void gauges(struct samples *samples)
{
	uint64_t count = 0, bytes = 0;

	for (const struct partition *p = samples->partitions; p; p = p->next) {
		count++;
		bytes += p->record.stored_bytes;
	}
	atomic_store_explicit(&samples->partition_count, count, memory_order_relaxed);
	atomic_store_explicit(&samples->stored_bytes, bytes, memory_order_relaxed);
}

struct err *partitions_list(struct samples *samples, struct store_txn *txn)
{
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
	struct store_view key, value;
	struct partition **tail = &samples->partitions;

	if (samples->listed)
		return NULL;
	partitions_forget(samples);
	TRY(store_profiles_scan(txn, STORE_PARTITIONS, NULL, 0, NULL, 0, &scan));
	for (;;) {
		struct partition *partition;
		TRY(store_profiles_next(scan, &key, &value));
		if (!key.bytes)
			break;
		partition = *tail = calloc(1, sizeof(*partition));
		if (!partition)
			return err_nomem();
		tail = &partition->next;
		if (!partition_key_parse(&key, &partition->id))
			return store_profiles_corrupt(STORE_PARTITIONS, key.bytes, key.len, "malformed key");
		TRY(partition_record_decode(&key, &value, &partition->record));
	}
	samples->listed = true;
	gauges(samples);
	return NULL;
}

void partitions_forget(struct samples *samples)
{
	while (samples->partitions)
		partition_remove(samples, samples->partitions);
	samples->listed = false;
}

void partition_remove(struct samples *samples, struct partition *partition)
{
	struct partition **at = &samples->partitions;

	while (*at != partition)
		at = &(*at)->next;
	*at = partition->next;
	partition_unload(partition);
	free(partition);
	if (samples->listed)
		gauges(samples);
}

/* -------------------------------------------------------------------------------------- loading */

struct err *block_list_add(struct block_list *list, const struct block_info *info)
{
	if (list->count == list->cap) {
		uint32_t cap = list->cap ? 2 * list->cap : 64;
		struct block_info *items = realloc(list->items, cap * sizeof(*items));
		if (!items)
			return err_nomem();
		list->items = items;
		list->cap = cap;
	}
	list->items[list->count++] = *info;
	return NULL;
}

void partition_unload(struct partition *partition)
{
	dict_deinit(&partition->dict);
	batch_map_forget(partition);
	rows_deinit(&partition->pending);
	rows_deinit(&partition->pending_times);
	for (int i = 0; i < 3; i++) {
		free(partition->lists[i].items);
		partition->lists[i] = (struct block_list){0};
	}
	partition->loaded = false;
}

static struct err *load_block(struct partition *partition, const struct store_view *key, const struct store_view *value)
{
	struct block block;

	if (key->len != BLOCK_KEY_BYTES)
		return err_new(ERR_FORMAT, "malformed key");
	TRY(block_open(value->bytes, value->len, &block));
	if ((uint8_t)block.kind != key->bytes[PARTITION_KEY_BYTES])
		return err_new(ERR_FORMAT, "a block of another kind");
	struct block_info info = {.number = (uint32_t)get_be(key->bytes + PARTITION_KEY_BYTES + 1, 4),
		.rows = block.rows,
		.bytes = (uint32_t)value->len,
		.last_second = block.last_second,
		.level = block.level};
	TRY(block_list_add(&partition->lists[kind_index(block.kind)], &info));
	if (block.kind != BLOCK_DICT)
		return NULL;
	return dict_decode(&partition->dict, block.payload.pos, reader_left(&block.payload));
}

/* What is wrong with stored bytes is damage, whatever the parser calls it. Consumes e. */
static struct err *damage(struct err *e, const struct store_view *key)
{
	if (!e || (err_code(e) != ERR_FORMAT && err_code(e) != ERR_LIMIT))
		return e;
	struct err *corrupt = store_profiles_corrupt(STORE_BLOCKS, key->bytes, key->len, err_message(e));

	err_free(e);
	return corrupt;
}

struct err *partition_load(struct partition *partition, struct store_txn *txn)
{
	CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
	struct store_view key, value;
	uint8_t prefix[PARTITION_KEY_BYTES];
	struct err *e = NULL;

	if (partition->loaded)
		return NULL;
	partition_unload(partition);
	TRY(dict_init(&partition->dict));
	partition_key(&partition->id, prefix);
	TRY(store_profiles_scan(txn, STORE_BLOCKS, prefix, sizeof(prefix), NULL, 0, &scan));
	while (!e) {
		e = store_profiles_next(scan, &key, &value);
		if (e || !key.bytes)
			break;
		e = damage(load_block(partition, &key, &value), &key);
	}
	if (e) {
		partition_unload(partition);
		return e;
	}
	partition->stored = dict_mark(&partition->dict);
	partition->loaded = true;
	return NULL;
}

/* -------------------------------------------------------------------------------------- finding */

static bool has_room(const struct partition *partition, const struct samples_batch *more)
{
	const struct dict *dict = &partition->dict;

	return dict->tables[DICT_TYPES].count + more->dict.tables[DICT_TYPES].count <= BLOCK_TYPES_MAX &&
		dict->tables[DICT_LABELS].count + more->dict.tables[DICT_LABELS].count <= BLOCK_LABELS_MAX &&
		dict->node_count + more->frames.stack_count <= DICT_NODES_MAX &&
		dict_bytes(dict) + samples_batch_bytes(more) <= PARTITION_DICT_MAX;
}

static struct err *begin_generation(struct samples *samples, const struct partition_id *id, struct partition **ret)
{
	struct partition *partition;

	if (id->generation >= GENERATIONS_MAX)
		return err_new(ERR_LIMIT, "%d generations of one hour", GENERATIONS_MAX);
	TRY(list_insert(samples, id, &partition));
	partition->record.seconds = samples->options.partition_s;
	TRY(dict_init(&partition->dict));
	partition->stored = dict_mark(&partition->dict);
	partition->loaded = true;
	*ret = partition;
	return NULL;
}

/* Whether a partition can take more. A damaged one is left alone: its hour goes on in the next generation. */
static struct err *try_partition(struct partition *partition, struct store_txn *txn, const struct samples_batch *more, bool *ret)
{
	*ret = false;
	if (partition->record.state != PARTITION_OPEN || partition->damaged)
		return NULL;
	struct err *e = partition_load(partition, txn);
	if (e && err_code(e) == ERR_CORRUPT) {
		partition->damaged = true;
		err_free(e);
		return NULL;
	}
	*ret = !e && has_room(partition, more);
	return e;
}

struct err *partition_for(struct samples *samples, struct store_txn *txn, uint32_t start, uint32_t tenant,
	const struct samples_batch *more, struct partition **ret)
{
	struct partition_id id = {.start = start, .tenant = tenant};

	TRY(partitions_list(samples, txn));
	for (struct partition *p = samples->partitions; p && p->id.start <= start; p = p->next) {
		bool good;
		if (p->id.start != start || p->id.tenant != tenant)
			continue;
		id.generation = (uint16_t)(p->id.generation + 1);
		TRY(try_partition(p, txn, more, &good));
		if (good) {
			p->used = ++samples->clock;
			*ret = p;
			return NULL;
		}
	}
	TRY(begin_generation(samples, &id, ret));
	(*ret)->used = ++samples->clock;
	return NULL;
}

/* -------------------------------------------------------------------------------------- writing */

struct err *partition_put_block(struct partition *partition, struct store_txn *txn, enum block_kind kind, uint32_t number,
	const struct buf *block)
{
	uint8_t key[BLOCK_KEY_BYTES];

	block_key(&partition->id, kind, number, key);
	partition->record.stored_bytes += block->len;
	return store_profiles_put(txn, STORE_BLOCKS, key, sizeof(key), block->data, block->len);
}

struct err *partition_delete_block(struct partition *partition, struct store_txn *txn, enum block_kind kind, const struct block_info *info)
{
	uint8_t key[BLOCK_KEY_BYTES];

	block_key(&partition->id, kind, info->number, key);
	partition->record.stored_bytes -= info->bytes < partition->record.stored_bytes ? info->bytes : partition->record.stored_bytes;
	return store_profiles_delete(txn, STORE_BLOCKS, key, sizeof(key));
}

struct err *partition_put_record(struct partition *partition, struct store_txn *txn)
{
	uint8_t key[PARTITION_KEY_BYTES], bytes[PARTITION_RECORD_MAX];
	size_t len = partition_record_encode(&partition->record, bytes);

	partition_key(&partition->id, key);
	return store_profiles_put(txn, STORE_PARTITIONS, key, sizeof(key), bytes, len);
}

/* Puts a new block behind the last one of its kind. */
static struct err *append_block(struct partition *partition, struct store_txn *txn, enum block_kind kind, const struct buf *block,
	struct block_info info)
{
	info.number = partition->record.next[kind_index(kind)]++;
	info.bytes = (uint32_t)block->len;
	TRY(partition_put_block(partition, txn, kind, info.number, block));
	return block_list_add(&partition->lists[kind_index(kind)], &info);
}

static struct err *flush_dict(struct partition *partition, struct store_txn *txn)
{
	CLEANUP(buf_deinit) struct buf block = {0};
	struct dict_mark now = dict_mark(&partition->dict);

	if (dict_mark_equal(&now, &partition->stored))
		return NULL;
	TRY(block_begin(BLOCK_DICT, 0, &block));
	TRY(dict_encode(&partition->dict, &partition->stored, ZLEVEL_COMMIT, &block));
	TRY(block_finish(&block));
	partition->stored = now;
	return append_block(partition, txn, BLOCK_DICT, &block, (struct block_info){0});
}

static struct err *flush_rows(struct partition *partition, struct store_txn *txn, enum block_kind kind, struct rows *rows)
{
	CLEANUP(buf_deinit) struct buf block = {0};
	struct block_info info = {0};

	if (rows->count == 0)
		return NULL;
	TRY(rows_sort(rows));
	if (kind == BLOCK_SAMPLES)
		rows_add_up(rows);
	for (size_t i = 0; i < rows->count; i++) {
		uint32_t second = lo_second(rows->items[i].lo);
		info.last_second = second > info.last_second ? second : info.last_second;
		if (kind == BLOCK_SAMPLES)
			partition->record.value = add_saturating(partition->record.value, rows->items[i].value);
	}
	if (kind == BLOCK_SAMPLES)
		partition->record.rows += rows->count;
	else if (partition->id.start + info.last_second > partition->record.times_until)
		partition->record.times_until = partition->id.start + info.last_second;
	info.rows = (uint32_t)rows->count;
	TRY(block_encode(rows, kind, 0, ZLEVEL_COMMIT, &block));
	rows->count = 0;
	return append_block(partition, txn, kind, &block, info);
}

/* Where every sample has an exact time, both lists hold the same rows: they are sorted once. */
static struct err *sort_together(struct partition *partition)
{
	struct rows *rows = &partition->pending, *times = &partition->pending_times;

	if (rows->count != times->count)
		return NULL;
	TRY(rows_sort(times));
	for (size_t i = 0; i < rows->count; i++) {
		rows->items[i] = times->items[i];
		rows->items[i].ns = 0;
	}
	return NULL;
}

struct err *partition_flush(struct samples *samples, struct partition *partition, struct store_txn *txn)
{
	if (partition->pending.count == 0 && partition->pending_times.count == 0)
		return NULL;
	TRY(sort_together(partition));
	TRY(flush_dict(partition, txn));
	TRY(flush_rows(partition, txn, BLOCK_SAMPLES, &partition->pending));
	TRY(flush_rows(partition, txn, BLOCK_TIMES, &partition->pending_times));
	partition->record.last_write_ms = samples_now_ms(samples);
	return partition_put_record(partition, txn);
}

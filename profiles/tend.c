// SPDX-License-Identifier: Apache-2.0
/*
 * What the writer does between commits, one bounded step at a time:
 *
 *   merge    The blocks of commits are small. MERGE_COUNT of one level at the end of a partition's list become one of the next level,
 *            so a row is rewritten a logarithmic number of times. A merged block has at most BLOCK_ROWS_MAX rows.
 *   seal     A partition whose hour is over and that had no write for seal_after_ms: its dictionary becomes one block, its samples
 *            as few blocks as BLOCK_ROWS_MAX allows, compressed harder; from then on they never change.
 *   times    Blocks of exact times go when their last second is older than raw_for_ms.
 *   drop     Whole partitions go: those whose end is older than keep_ms, and the oldest while there is more than max_bytes.
 *   seen     Keys of profiles are forgotten after SAMPLES_DEDUPE_MS, instances of agents that did not send for keep_ms: what they send
 *            again is too old for the store.
 *
 * Each step is one transaction. An error (a full disk) ends the round; the next one tries again.
 */
#include "profiles/samples_internal.h"

enum {
	MERGE_COUNT = 32,
	MERGE_LEVEL_MAX = 3,
	LEVEL_SEALED = 255,
	DICT_BLOCKS = 64, /* and one more for each DICT_BYTES_A_BLOCK that it takes: rewriting it costs that much */
	DICT_BYTES_A_BLOCK = 256 << 10,
	TEND_MS = 10000,
	DELETES_A_STEP = 256,
	INSTANCES_MS = 3600 * 1000, /* between two looks at all marks */
	ZLEVEL_SEAL = 12,
};

/* A run of neighbouring blocks in a partition's list. */
struct step {
	struct samples *samples;
	struct partition *partition;
	enum block_kind kind;
	uint32_t first, count;
	uint8_t level; /* of the block that it becomes */
	int zlevel;
	bool more; /* out: not everything was done */
};

/* -------------------------------------------------------------------------------------- merging */

static struct err *read_rows(const struct step *step, struct store_txn *txn, const struct block_info *info, struct rows *rows)
{
	uint8_t key[BLOCK_KEY_BYTES];
	struct store_view value;
	struct block block;

	block_key(&step->partition->id, step->kind, info->number, key);
	TRY(store_profiles_get(txn, STORE_BLOCKS, key, sizeof(key), &value));
	if (!value.bytes)
		return store_profiles_corrupt(STORE_BLOCKS, key, sizeof(key), "the block is gone");
	struct err *e = block_open(value.bytes, value.len, &block);
	if (!e)
		e = block_rows(&block, rows);
	if (e && err_code(e) == ERR_FORMAT) {
		struct err *corrupt = store_profiles_corrupt(STORE_BLOCKS, key, sizeof(key), err_message(e));
		err_free(e);
		return corrupt;
	}
	return e;
}

/* Replaces a run of blocks by one with the number of the first. */
static struct err *replace_run(struct step *step, struct store_txn *txn, const struct buf *block, uint32_t rows)
{
	struct block_list *list = &step->partition->lists[kind_index(step->kind)];
	struct block_info *first = &list->items[step->first];
	struct block_info merged = {.number = first->number, .rows = rows, .bytes = (uint32_t)block->len, .level = step->level};

	for (uint32_t i = 0; i < step->count; i++) {
		merged.last_second = first[i].last_second > merged.last_second ? first[i].last_second : merged.last_second;
		TRY(partition_delete_block(step->partition, txn, step->kind, &first[i]));
	}
	TRY(partition_put_block(step->partition, txn, step->kind, merged.number, block));
	*first = merged;
	memmove(first + 1, first + step->count, (list->count - step->first - step->count) * sizeof(*first));
	list->count -= step->count - 1;
	return partition_put_record(step->partition, txn);
}

static struct err *merge_rows(struct store_txn *txn, void *arg)
{
	struct step *step = arg;
	const struct block_list *list = &step->partition->lists[kind_index(step->kind)];
	CLEANUP(rows_deinit) struct rows rows = {0};
	CLEANUP(buf_deinit) struct buf block = {0};

	for (uint32_t i = 0; i < step->count; i++)
		TRY(read_rows(step, txn, &list->items[step->first + i], &rows));
	TRY(rows_sort(&rows));
	if (step->kind == BLOCK_SAMPLES)
		rows_add_up(&rows);
	TRY(block_encode(&rows, step->kind, step->level, step->zlevel, &block));
	return replace_run(step, txn, &block, (uint32_t)rows.count);
}

/* The whole dictionary as one block. */
static struct err *merge_dict(struct store_txn *txn, void *arg)
{
	struct step *step = arg;
	CLEANUP(dict_deinitp) struct dict empty = {0};
	CLEANUP(buf_deinit) struct buf block = {0};

	TRY(dict_init(&empty));
	struct dict_mark start = dict_mark(&empty);
	TRY(block_begin(BLOCK_DICT, step->level, &block));
	TRY(dict_encode(&step->partition->dict, &start, step->zlevel, &block));
	TRY(block_finish(&block));
	return replace_run(step, txn, &block, 0);
}

/* The run of level @p level at the end of the blocks of levels up to it; 0 when there are not enough. */
static bool find_run(const struct block_list *list, uint8_t level, struct step *step)
{
	uint32_t end = list->count, first;
	uint64_t rows = 0;

	while (end > 0 && list->items[end - 1].level < level)
		end--;
	for (first = end; first > 0 && list->items[first - 1].level == level; first--) {
		if (rows + list->items[first - 1].rows > BLOCK_ROWS_MAX)
			break;
		rows += list->items[first - 1].rows;
	}
	if (end - first < MERGE_COUNT)
		return false;
	step->first = first;
	step->count = end - first;
	step->level = (uint8_t)(level + 1);
	return true;
}

/* Something to merge in an open partition. */
static bool find_merge(struct partition *p, struct step *step)
{
	const struct block_list *dict = &p->lists[kind_index(BLOCK_DICT)];

	*step = (struct step){.partition = p, .zlevel = ZLEVEL_MERGE, .kind = BLOCK_SAMPLES, .samples = step->samples};
	for (uint8_t level = 0; level < MERGE_LEVEL_MAX; level++)
		if (find_run(&p->lists[kind_index(BLOCK_SAMPLES)], level, step))
			return true;
	step->kind = BLOCK_TIMES;
	step->zlevel = ZLEVEL_COMMIT;
	if (find_run(&p->lists[kind_index(BLOCK_TIMES)], 0, step))
		return true;
	step->kind = BLOCK_DICT;
	step->first = 0;
	step->count = dict->count;
	step->level = 1;
	return dict->count >= DICT_BLOCKS + p->dict.node_count / (DICT_BYTES_A_BLOCK / 8);
}

static bool run_merge(struct samples *samples, struct step *step)
{
	struct err *e = store_profiles_update(samples->writer_store, step->kind == BLOCK_DICT ? merge_dict : merge_rows, step);

	if (e) {
		/* The lists in memory may be ahead; a damaged block stays as it is, and is reported when it is read. */
		step->partition->damaged = err_code(e) == ERR_CORRUPT;
		if (!step->partition->damaged)
			partitions_forget(samples);
		err_free(e);
		return false;
	}
	atomic_fetch_add_explicit(&samples->merges, 1, memory_order_relaxed);
	return true;
}

/* -------------------------------------------------------------------------------------- sealing */

/* The next piece of work that a partition needs before it is sealed. */
static bool find_seal_merge(struct partition *p, struct step *step)
{
	const struct block_list *list = &p->lists[kind_index(BLOCK_SAMPLES)];
	const struct block_list *dict = &p->lists[kind_index(BLOCK_DICT)];

	*step = (struct step){.partition = p, .zlevel = ZLEVEL_SEAL, .kind = BLOCK_SAMPLES, .level = LEVEL_SEALED, .samples = step->samples};
	for (uint32_t i = 0; i < list->count; i += step->count) {
		uint64_t rows = list->items[i].rows;
		step->first = i;
		for (step->count = 1; i + step->count < list->count; step->count++) {
			rows += list->items[i + step->count].rows;
			if (rows > BLOCK_ROWS_MAX)
				break;
		}
		if (step->count > 1 || list->items[i].level != LEVEL_SEALED)
			return true;
	}
	step->kind = BLOCK_DICT;
	step->first = 0;
	step->count = dict->count;
	return dict->count > 1 || (dict->count == 1 && dict->items[0].level != LEVEL_SEALED);
}

static struct err *mark_sealed(struct store_txn *txn, void *arg)
{
	struct step *step = arg;

	step->partition->record.state = PARTITION_SEALED;
	return partition_put_record(step->partition, txn);
}

static struct err *load_for_step(struct store_txn *txn, void *arg)
{
	struct step *step = arg;

	return partition_load(step->partition, txn);
}

static bool seal_step(struct samples *samples, struct partition *p)
{
	struct step step = {.samples = samples, .partition = p};
	struct err *e = store_profiles_update(samples->writer_store, load_for_step, &step);

	if (!e) {
		p->used = ++samples->clock;
		if (find_seal_merge(p, &step))
			return run_merge(samples, &step);
		e = store_profiles_update(samples->writer_store, mark_sealed, &step);
	}
	if (e) {
		p->damaged = true;
		err_free(e);
		return false;
	}
	partition_unload(p);
	atomic_fetch_add_explicit(&samples->sealed, 1, memory_order_relaxed);
	return true;
}

static bool is_ripe(const struct samples *samples, const struct partition *p, uint64_t now_ms)
{
	uint64_t end_ms = ((uint64_t)p->id.start + p->record.seconds) * 1000, wait = samples->options.seal_after_ms;

	return p->record.state == PARTITION_OPEN && !p->damaged && now_ms > end_ms + wait && now_ms > p->record.last_write_ms + wait;
}

/* -------------------------------------------------------------------------------------- deleting */

/* Deletes some keys of a partition, of one kind or (0) of all; more when some are left. */
static struct err *delete_some(struct step *step, struct store_txn *txn)
{
	uint8_t prefix[BLOCK_KEY_BYTES], keys[DELETES_A_STEP][BLOCK_KEY_BYTES];
	size_t count = 0;
	struct store_view key, value;

	block_key(&step->partition->id, step->kind, 0, prefix);
	{
		CLEANUP(store_profiles_scan_endp) struct store_scan *scan = NULL;
		TRY(store_profiles_scan(txn, STORE_BLOCKS, prefix, PARTITION_KEY_BYTES + (step->kind ? 1 : 0), NULL, 0, &scan));
		while (count < DELETES_A_STEP) {
			TRY(store_profiles_next(scan, &key, &value));
			if (!key.bytes)
				break;
			if (key.len != BLOCK_KEY_BYTES)
				return store_profiles_corrupt(STORE_BLOCKS, key.bytes, key.len, "malformed key");
			memcpy(keys[count++], key.bytes, BLOCK_KEY_BYTES);
			uint64_t *bytes = &step->partition->record.stored_bytes;
			*bytes -= value.len < *bytes ? value.len : *bytes;
		}
	}
	for (size_t i = 0; i < count; i++)
		TRY(store_profiles_delete(txn, STORE_BLOCKS, keys[i], BLOCK_KEY_BYTES));
	step->more = count == DELETES_A_STEP;
	return NULL;
}

static struct err *drop_some(struct store_txn *txn, void *arg)
{
	struct step *step = arg;
	uint8_t key[PARTITION_KEY_BYTES];

	/* Half a partition is none: it is not read any more, and goes before anything else. */
	step->partition->record.state = PARTITION_DROPPING;
	TRY(delete_some(step, txn));
	if (step->more)
		return partition_put_record(step->partition, txn);
	partition_key(&step->partition->id, key);
	return store_profiles_delete(txn, STORE_PARTITIONS, key, sizeof(key));
}

static bool drop_step(struct samples *samples, struct partition *p, atomic_uint_fast64_t *counter)
{
	struct step step = {.samples = samples, .partition = p};

	partition_unload(p);
	struct err *e = store_profiles_update(samples->writer_store, drop_some, &step);
	if (e) {
		partitions_forget(samples);
		err_free(e);
		return false;
	}
	if (step.more)
		return true;
	partition_remove(samples, p);
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
	return true;
}

/* Deletes the blocks of times that are too old from a partition that is over, all of them at once. */
static struct err *drop_times(struct store_txn *txn, void *arg)
{
	struct step *step = arg;

	TRY(delete_some(step, txn));
	if (!step->more)
		step->partition->record.times_until = 0;
	return partition_put_record(step->partition, txn);
}

static bool times_step(struct samples *samples, struct partition *p)
{
	struct step step = {.samples = samples, .partition = p, .kind = BLOCK_TIMES};
	struct err *e = store_profiles_update(samples->writer_store, drop_times, &step);

	if (e) {
		partitions_forget(samples);
		err_free(e);
		return false;
	}
	/* The lists name what is gone. */
	partition_unload(p);
	return true;
}

/* -------------------------------------------------------------------------------------- what was counted */

static struct err *forget_keys(struct store_txn *txn, void *arg)
{
	struct step *step = arg;

	return seen_forget_old(txn, samples_now_ms(step->samples), 0, false, &step->more);
}

static struct err *forget_instances(struct store_txn *txn, void *arg)
{
	struct step *step = arg;

	return seen_forget_old(txn, samples_now_ms(step->samples), step->samples->options.keep_ms, true, &step->more);
}

/* False when there is nothing left to forget. */
static bool seen_step(struct samples *samples, uint64_t now_ms)
{
	struct step step = {.samples = samples};
	struct err *e = store_profiles_update(samples->writer_store, forget_keys, &step);

	if (!e && !step.more && (now_ms < samples->instances_ms || now_ms - samples->instances_ms >= INSTANCES_MS)) {
		e = store_profiles_update(samples->writer_store, forget_instances, &step);
		if (!e && !step.more)
			samples->instances_ms = now_ms;
	}
	bool failed = e;
	err_free(e);
	return !failed && step.more;
}

/* -------------------------------------------------------------------------------------- rounds */

/* The first thing that age or size want done; false: nothing. */
static bool age_step(struct samples *samples, uint64_t now_ms, bool *again_ret)
{
	const struct samples_options *o = &samples->options;
	uint64_t bytes = 0;

	for (struct partition *p = samples->partitions; p; p = p->next) {
		bytes += p->record.stored_bytes;
		if (p->record.state != PARTITION_DROPPING)
			continue;
		*again_ret = drop_step(samples, p, p->dropped_for_size ? &samples->dropped_by_size : &samples->dropped_by_age);
		return true;
	}
	struct partition *oldest = samples->partitions;
	if (oldest && ((uint64_t)oldest->id.start + oldest->record.seconds) * 1000 + o->keep_ms < now_ms) {
		*again_ret = drop_step(samples, oldest, &samples->dropped_by_age);
		return true;
	}
	if (oldest && oldest->next && bytes > o->max_bytes) {
		oldest->dropped_for_size = true;
		*again_ret = drop_step(samples, oldest, &samples->dropped_by_size);
		return true;
	}
	for (struct partition *p = samples->partitions; p; p = p->next) {
		if (p->record.times_until && (uint64_t)p->record.times_until * 1000 + o->raw_for_ms < now_ms)
			*again_ret = times_step(samples, p);
		else if (is_ripe(samples, p, now_ms))
			*again_ret = seal_step(samples, p);
		else
			continue;
		return true;
	}
	return false;
}

static struct err *list_all(struct store_txn *txn, void *arg)
{
	return partitions_list(arg, txn);
}

static bool merge_step(struct samples *samples, bool *again_ret)
{
	for (struct partition *p = samples->partitions; p; p = p->next) {
		struct step step = {.samples = samples};
		if (!p->loaded || p->damaged || !find_merge(p, &step))
			continue;
		*again_ret = run_merge(samples, &step);
		return true;
	}
	return false;
}

static void round_done(struct samples *samples, uint64_t now_ms, uint64_t asked)
{
	samples->tended_ms = now_ms;
	atomic_store_explicit(&samples->tended, asked, memory_order_release);
}

bool tend_step(void *context, struct store *store)
{
	struct samples *samples = context;
	uint64_t now_ms = samples_now_ms(samples), asked = atomic_load_explicit(&samples->asked, memory_order_relaxed);
	bool again = false;

	samples->writer_store = store;
	if (!samples->listed) {
		struct err *e = store_profiles_update(store, list_all, samples);
		bool failed = e;
		err_free(e);
		if (failed) {
			round_done(samples, now_ms, asked);
			return false;
		}
	}
	if (merge_step(samples, &again) && again)
		return true;
	bool forced = asked != atomic_load_explicit(&samples->tended, memory_order_relaxed);
	bool due = now_ms < samples->tended_ms || now_ms - samples->tended_ms >= TEND_MS;
	if (!forced && !due)
		return false;
	if (age_step(samples, now_ms, &again) && again)
		return true;
	if (seen_step(samples, now_ms))
		return true;
	round_done(samples, now_ms, asked);
	return false;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * From batches to blocks, on the writer thread. The command of a batch asks which of its profiles are new, brings what their
 * samples name into the dictionaries of the partitions, and adds rows to what is pending there; several batches share
 * a group, and its end writes one block of each kind a partition. Keys of profiles, dictionary and samples are in one transaction: either
 * a profile was counted and its key is remembered, or neither.
 */
#include "profiles/samples_internal.h"

/* -------------------------------------------------------------------------------------- keys of profiles */

static void big_endian(uint8_t *to, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

/* Remembers a key; *seen_ret when a profile with it was counted lately. */
static struct err *seen_before(struct store_txn *txn, uint32_t tenant, const uint8_t key[16], uint64_t now_ms, bool *seen_ret)
{
	uint8_t seen[SEEN_KEY_BYTES], age[8 + SEEN_KEY_BYTES], value[8];
	struct store_view view;

	big_endian(seen, tenant, 4);
	memcpy(seen + 4, key, 16);
	memcpy(age + 8, seen, sizeof(seen));
	TRY(store_profiles_get(txn, STORE_SEEN, seen, sizeof(seen), &view));
	*seen_ret = false;
	if (view.bytes && view.len == 8) {
		struct reader r = reader_init(view.bytes, view.len, true, "seen");
		uint64_t then = reader_u64(&r);
		/* A clock that was set back must not make old keys immortal, nor forget them: they count for 15 minutes either way. */
		uint64_t between = now_ms > then ? now_ms - then : then - now_ms;
		if (between < SAMPLES_DEDUPE_MS) {
			*seen_ret = true;
			return NULL;
		}
		memcpy(age, view.bytes, 8);
		TRY(store_profiles_delete(txn, STORE_SEEN_AGE, age, sizeof(age)));
	}
	big_endian(value, now_ms, 8);
	memcpy(age, value, 8);
	TRY(store_profiles_put(txn, STORE_SEEN, seen, sizeof(seen), value, sizeof(value)));
	return store_profiles_put(txn, STORE_SEEN_AGE, age, sizeof(age), "", 0);
}

static struct err *judge_profiles(struct samples_batch *batch, struct store_txn *txn)
{
	uint64_t now_ms = samples_now_ms(batch->samples);

	batch->result = (struct samples_result){0};
	for (uint32_t i = 0; i < batch->profile_count; i++) {
		struct batch_profile *profile = &batch->profiles[i];
		profile->duplicate = false;
		if (profile->has_key)
			TRY(seen_before(txn, batch->tenant, profile->key, now_ms, &profile->duplicate));
		if (profile->duplicate) {
			batch->result.duplicate_profiles++;
			continue;
		}
		batch->result.profiles++;
		batch->result.rejected_future += profile->rejected_future;
		batch->result.rejected_old += profile->rejected_old;
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- rows */

static struct err *add_row(struct batch_map *map, const struct batch_sample *sample)
{
	struct partition *partition = map->partition;
	uint32_t type, labels, link;

	TRY(dict_map_record(&map->dict, DICT_TYPES, sample->type, &type));
	TRY(dict_map_record(&map->dict, DICT_LABELS, sample->labels, &labels));
	TRY(dict_map_record(&map->dict, DICT_LINKS, sample->link, &link));
	struct row row = {.hi = row_hi(type, labels, map->traces[sample->trace]),
		.lo = row_lo(sample->second - partition->id.start, sample->cpu, link),
		.value = sample->value};
	TRY(rows_add(&partition->pending, &row));
	if (!sample->exact)
		return NULL;
	row.ns = sample->ns;
	return rows_add(&partition->pending_times, &row);
}

/* Looks up all traces of an hour at once. */
static struct err *find_traces(const struct samples_batch *batch, uint8_t hour, struct batch_map *map)
{
	CLEANUP(freep) uint32_t *traces = malloc((batch->count + 1) * sizeof(*traces));
	size_t count = 0;

	if (!traces)
		return err_nomem();
	for (size_t i = 0; i < batch->count; i++)
		if (batch->items[i].partition == hour && !batch->profiles[batch->items[i].profile].duplicate)
			traces[count++] = batch->items[i].trace;
	return batch_map_traces(map, traces, count);
}

/* The samples of one of the batch's hours. */
static struct err *add_hour(struct samples_batch *batch, struct store_txn *txn, uint8_t hour)
{
	CLEANUP(batch_map_deinit) struct batch_map map = {0};
	struct partition *partition = NULL;

	for (size_t i = 0; i < batch->count; i++) {
		const struct batch_sample *sample = &batch->items[i];
		if (sample->partition != hour || batch->profiles[sample->profile].duplicate)
			continue;
		if (!partition) {
			TRY(partition_for(batch->samples, txn, batch->partitions[hour], batch->tenant, batch, &partition));
			TRY(batch_map_init(&map, batch, partition));
			TRY(find_traces(batch, hour, &map));
		}
		TRY(add_row(&map, sample));
		batch->result.samples++;
	}
	return NULL;
}

struct err *commit_run(struct store_txn *txn, void *arg)
{
	struct samples_batch *batch = arg;

	batch->samples->group_open = true;
	TRY(judge_profiles(batch, txn));
	for (uint32_t i = 0; i < batch->partition_count; i++)
		TRY(add_hour(batch, txn, (uint8_t)i));
	return NULL;
}

/* -------------------------------------------------------------------------------------- groups */

struct err *commit_group_end(struct store_txn *txn, void *context)
{
	struct samples *samples = context;

	for (struct partition *p = samples->partitions; p; p = p->next)
		TRY(partition_flush(samples, p, txn));
	return NULL;
}

/* Keeps the dictionaries that were used last. */
static void forget_unused(struct samples *samples)
{
	for (;;) {
		struct partition *oldest = NULL;
		unsigned loaded = 0;
		for (struct partition *p = samples->partitions; p; p = p->next) {
			if (!p->loaded)
				continue;
			loaded++;
			if (!oldest || p->used < oldest->used)
				oldest = p;
		}
		if (loaded <= LOADED_MAX)
			return;
		partition_unload(oldest);
	}
}

void commit_group_durable(void *context)
{
	struct samples *samples = context;
	uint64_t bytes = 0, count = 0;

	if (!samples->group_open)
		return;
	samples->group_open = false;
	for (struct partition *p = samples->partitions; p; p = p->next) {
		bytes += p->record.stored_bytes;
		count++;
	}
	atomic_store_explicit(&samples->stored_bytes, bytes, memory_order_relaxed);
	atomic_store_explicit(&samples->partition_count, count, memory_order_relaxed);
	atomic_fetch_add_explicit(&samples->commits, 1, memory_order_relaxed);
	forget_unused(samples);
}

void commit_group_gone(void *context)
{
	struct samples *samples = context;

	samples->group_open = false;
	partitions_forget(samples);
}

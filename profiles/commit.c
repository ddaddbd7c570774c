// SPDX-License-Identifier: Apache-2.0
/*
 * From batches to blocks, on the writer thread. The command of a batch asks which of its profiles are new, brings what their
 * samples name into the dictionaries of the partitions, and adds rows to what is pending there; several batches share
 * a group, and its end writes one block of each kind a partition. Keys of profiles, dictionary and samples are in one transaction: either
 * a profile was counted and its key is remembered, or neither.
 */
#include "profiles/samples_internal.h"

#include "base/digest.h"

/* -------------------------------------------------------------------------------------- what was counted before */

/* The mark of the instance at hand, while profiles of one follow each other. */
struct instance {
	const uint8_t *id; /* NULL: none */
	struct seen_mark mark;
};

static struct err *put_instance(const struct samples_batch *batch, struct store_txn *txn, struct instance *instance, uint64_t now_ms)
{
	instance->mark.when_ms = now_ms;
	return instance->id ? seen_mark_write(txn, batch->tenant, instance->id, &instance->mark) : NULL;
}

/* Of a number that is below an instance's window. */
static void sequence_key(const struct batch_profile *profile, uint8_t ret[16])
{
	uint8_t bytes[sizeof(profile->key) + sizeof(profile->sequence)];

	memcpy(bytes, profile->key, sizeof(profile->key));
	memcpy(bytes + sizeof(profile->key), &profile->sequence, sizeof(profile->sequence));
	digest_xxh3_128(bytes, sizeof(bytes), ret);
}

static struct err *judge(struct samples_batch *batch, struct store_txn *txn, struct batch_profile *profile, struct instance *instance,
	uint64_t now_ms)
{
	struct seen *seen = &batch->samples->seen;
	uint8_t key[16];

	profile->duplicate = false;
	if (!profile->has_key)
		return NULL;
	if (profile->sequence == 0)
		return seen_key(seen, txn, batch->tenant, profile->key, now_ms, &profile->duplicate);
	if (!instance->id || memcmp(instance->id, profile->key, sizeof(profile->key)) != 0) {
		TRY(put_instance(batch, txn, instance, now_ms));
		TRY(seen_mark_read(txn, batch->tenant, profile->key, &instance->mark));
		instance->id = profile->key;
	}
	enum seen_judgement judgement = seen_sequence(&instance->mark, profile->sequence);
	profile->duplicate = judgement == SEEN_BEFORE;
	if (judgement != SEEN_TOO_OLD)
		return NULL;
	sequence_key(profile, key);
	return seen_key(seen, txn, batch->tenant, key, now_ms, &profile->duplicate);
}

static struct err *judge_profiles(struct samples_batch *batch, struct store_txn *txn)
{
	uint64_t now_ms = samples_now_ms(batch->samples);
	struct instance instance = {0};

	batch->result = (struct samples_result){0};
	for (uint32_t i = 0; i < batch->profile_count; i++) {
		struct batch_profile *profile = &batch->profiles[i];
		TRY(judge(batch, txn, profile, &instance, now_ms));
		if (profile->duplicate) {
			batch->result.duplicate_profiles++;
			continue;
		}
		batch->result.profiles++;
		batch->result.rejected_future += profile->rejected_future;
		batch->result.rejected_old += profile->rejected_old;
	}
	return put_instance(batch, txn, &instance, now_ms);
}

/* -------------------------------------------------------------------------------------- rows */

static struct err *add_row(struct batch_map *map, const struct batch_sample *sample)
{
	struct partition *partition = map->partition;
	uint32_t type, labels, link;

	TRY(dict_map_record(&map->dict, DICT_TYPES, sample->type, &type));
	TRY(batch_map_labels(map, sample->labels, &labels));
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
	return seen_flush(&samples->seen, txn, samples_now_ms(samples));
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
	seen_forget(&samples->seen);
}

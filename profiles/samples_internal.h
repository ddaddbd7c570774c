// SPDX-License-Identifier: Apache-2.0
/*
 * What the files behind samples.h share: batches, partitions as the writer holds them, records. Only profiles/ and its tests
 * include this.
 */
#ifndef CAIRN_PROFILES_SAMPLES_INTERNAL_H
#define CAIRN_PROFILES_SAMPLES_INTERNAL_H

#include "profiles/block.h"
#include "profiles/dict.h"
#include "profiles/samples.h"
#include "store/profiles.h"

#include <stdatomic.h>

enum {
	PARTITION_KEY_BYTES = 10, /* start u32 | tenant u32 | generation u16 */
	BLOCK_KEY_BYTES = PARTITION_KEY_BYTES + 5,
	SEEN_KEY_BYTES = 20,
	LOADED_MAX = 8, /* partitions whose dictionaries the writer keeps in memory between commits */
	PARTITION_SECONDS_MAX = BLOCK_SECONDS_MAX,
	PARTITION_DICT_MAX = 1 << 29, /* bytes: past it another generation is begun */
	ZLEVEL_COMMIT = 1,
	ZLEVEL_MERGE = 9,
};

/* -------------------------------------------------------------------------------------- batches */

struct batch_sample {
	uint32_t trace, labels, link, profile;
	uint32_t second; /* since 1970 */
	uint32_t ns;
	int32_t cpu;
	uint8_t type, partition;
	bool exact;
	uint64_t value;
};

struct batch_profile {
	uint8_t key[16];
	bool has_key, duplicate;
	uint64_t rejected_future, rejected_old;
	size_t first_sample;
};

struct samples_batch {
	struct samples *samples;
	uint32_t tenant;
	uint64_t now_ms; /* when it was begun */
	struct dict dict;
	struct batch_mapping { /* load facts, which the dictionary does not keep */
		uint64_t memory_start, memory_limit, file_offset;
		bool is_loaded;
		uint32_t number; /* of the dictionary */
	} *mappings;
	uint32_t mapping_count;
	size_t mapping_cap;
	uint32_t *labels_sizes;	   /* of each label set with its parents */
	size_t labels_cap;
	struct batch_sample *items;
	size_t count, cap;
	struct batch_profile *profiles;
	uint32_t profile_count;
	size_t profile_cap;
	uint32_t partitions[SAMPLES_BATCH_PARTITIONS_MAX]; /* starts */
	uint32_t partition_count;
	/* While it is being committed. */
	size_t queued_bytes;
	samples_done_fn *done;
	void *done_arg;
	struct samples_result result;
};

/* -------------------------------------------------------------------------------------- partitions */

struct partition_id {
	uint32_t start; /* seconds since 1970 */
	uint32_t tenant;
	uint16_t generation;
};

/* The record of a partition. */
struct partition_record {
	enum partition_state { PARTITION_OPEN, PARTITION_SEALED, PARTITION_DROPPING } state;
	uint32_t seconds;	/* its length */
	uint64_t last_write_ms;
	uint32_t next[3];	/* numbers of the next block: dictionary, samples, times */
	uint64_t stored_bytes;	/* of all blocks */
	uint64_t value, rows;	/* rows before merging */
	uint32_t times_until;	/* the latest second of a block of times, absolute; 0: there are none */
};
enum { PARTITION_RECORD_MAX = 128 };

void partition_key(const struct partition_id *id, uint8_t key[PARTITION_KEY_BYTES]);
bool partition_key_parse(const struct store_view *key, struct partition_id *ret);
void block_key(const struct partition_id *id, enum block_kind kind, uint32_t number, uint8_t key[BLOCK_KEY_BYTES]);
size_t partition_record_encode(const struct partition_record *record, uint8_t bytes[PARTITION_RECORD_MAX]);
struct err *partition_record_decode(const struct store_view *key, const struct store_view *value, struct partition_record *ret) MUST_USE;
/** The number of a kind in partition_record.next. */
static inline unsigned kind_index(enum block_kind kind)
{
	return kind == BLOCK_DICT ? 0 : kind == BLOCK_SAMPLES ? 1 : 2;
}

/* A block as the writer remembers it. */
struct block_info {
	uint32_t number;
	uint32_t rows;
	uint32_t bytes;
	uint32_t last_second;
	uint8_t level;
};

struct block_list {
	struct block_info *items;
	uint32_t count, cap;
};

/* The writer's own: what it needs to write to a partition. */
struct partition {
	struct partition_id id;
	struct partition_record record; /* durable, or of the group at hand */
	bool loaded;	/* dict and lists are good */
	bool damaged;	/* could not be loaded: nothing is added to it */
	bool dropped_for_size;
	struct dict dict;
	struct dict_mark stored; /* what of dict is in blocks */
	struct rows pending, pending_times;
	struct block_list lists[3]; /* by kind_index */
	uint64_t used;	/* when it was last loaded or written, for forgetting */
	struct partition *next; /* in order of (start, tenant, generation) */
};

struct samples {
	struct samples_options options;
	struct store *store;
	struct store *writer_store; /* the same, as the writer thread was told */
	atomic_uint_fast64_t queue_bytes, queue_batches;
	/* Counters, relaxed: they order nothing. */
	atomic_uint_fast64_t commits, batches, counted_samples, profiles, duplicates, rejected_future, rejected_old, busy;
	atomic_uint_fast64_t merges, sealed, dropped_by_age, dropped_by_size, partition_count, stored_bytes;
	/* The writer thread's own. */
	struct partition *partitions; /* all that there are */
	bool listed;		      /* partitions holds them; false after a group was thrown away */
	bool group_open;	      /* commands have gathered something */
	uint64_t clock;		      /* of `used` */
	uint64_t tended_ms;	      /* when times, seen keys and retention were last looked at */
	atomic_uint_fast64_t asked, tended; /* samples_tend: release and acquire */
};

uint64_t samples_now_ms(const struct samples *samples);

/* partition.c; all on the writer thread. */

/** Lists all partitions, when that was not done. */
struct err *partitions_list(struct samples *samples, struct store_txn *txn) MUST_USE;
/** Forgets everything in memory: it is read again when it is needed. */
void partitions_forget(struct samples *samples);
/** The open partition for a second, loaded; begins a new one, or a new generation, where there is none with room for @p more types and sets. */
struct err *partition_for(struct samples *samples, struct store_txn *txn, uint32_t start, uint32_t tenant, const struct dict *more,
	struct partition **ret) MUST_USE;
/** Reads its dictionary and lists its blocks. */
struct err *partition_load(struct partition *partition, struct store_txn *txn) MUST_USE;
void partition_unload(struct partition *partition);
void partition_remove(struct samples *samples, struct partition *partition);
/** Puts a block and counts it. */
struct err *partition_put_block(struct partition *partition, struct store_txn *txn, enum block_kind kind, uint32_t number,
	const struct buf *block) MUST_USE;
struct err *partition_delete_block(struct partition *partition, struct store_txn *txn, enum block_kind kind,
	const struct block_info *info) MUST_USE;
struct err *partition_put_record(struct partition *partition, struct store_txn *txn) MUST_USE;
/** Writes what is pending into the transaction. */
struct err *partition_flush(struct samples *samples, struct partition *partition, struct store_txn *txn) MUST_USE;
struct err *block_list_add(struct block_list *list, const struct block_info *info) MUST_USE;

/* commit.c: hooks and the command of a batch. */
struct err *commit_run(struct store_txn *txn, void *arg) MUST_USE;
struct err *commit_group_end(struct store_txn *txn, void *context) MUST_USE;
void commit_group_durable(void *context);
void commit_group_gone(void *context);

/** Does all that tend_step would do at this time, and waits; for tests and tools. */
void samples_tend(struct samples *samples);

/* tend.c: merging, sealing, retention. A step of work; true: there is more. */
bool tend_step(void *context, struct store *store);

#endif

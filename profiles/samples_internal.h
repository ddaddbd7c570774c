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
	LOADED_MAX = 8, /* partitions whose dictionaries the writer keeps in memory between commits */
	PARTITION_SECONDS_MAX = BLOCK_SECONDS_MAX,
	PARTITION_DICT_MAX = 1 << 29, /* bytes: past it another generation is begun */
	ZLEVEL_COMMIT = 1,
	ZLEVEL_MERGE = 3,
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
	uint8_t key[16]; /* or the instance */
	uint64_t sequence; /* of the instance; 0: it is a key */
	bool has_key, duplicate;
	uint64_t rejected_future, rejected_old;
	size_t first_sample;
};

/* 128 bits of XXH3 over what something is, whatever its number: the same in every batch, on every node. */
struct batch_digest {
	uint8_t bytes[16];
};

/*
 * Mappings, locations and traces, as arrays: nothing is looked up to bring them, since a decoder brings each once. Traces are one for each
 * digest. It is the writer that looks for what it has already, and for most it knows the digest of the trace and needs no more.
 */
struct batch_frames {
	struct batch_mapping {
		uint64_t memory_start, memory_limit, file_offset; /* load facts, which the dictionary does not keep */
		bool is_loaded;
		uint32_t number; /* in the dictionary of the batch */
		struct batch_digest digest;
	} *mappings;
	struct batch_location {
		uint64_t address; /* of address_kind */
		uint32_t mapping; /* in the dictionary; SAMPLES_NONE */
		uint32_t first_line;
		uint16_t line_count;
		uint8_t kind, address_kind;
	} *locations;
	struct batch_digest *location_digests; /* apart, since hashing a trace needs nothing else */
	struct batch_function {
		uint32_t function, system_name, file, start_line; /* texts of the dictionary */
		struct batch_digest digest;
	} *functions;
	struct batch_line {
		uint32_t function, line, column;
	} *lines;
	uint32_t *stacks; /* of all traces: locations, leaf first */
	struct batch_trace {
		struct batch_digest digest;
		size_t first;
		uint32_t depth;
	} *traces;
	struct hmap trace_index; /* the first half of a digest -> number; the next key where another trace has it */
	struct batch_digest *scratch; /* of PROFILE_MAX_DEPTH */
	struct buf text;
	uint32_t mapping_count, function_count, location_count, trace_count;
	size_t line_count, stack_count;
	size_t mapping_cap, function_cap, location_cap, digest_cap, line_cap, stack_cap, trace_cap;
};

struct samples_batch {
	struct samples *samples;
	uint32_t tenant;
	uint64_t now_ms; /* when it was begun */
	struct dict dict; /* texts, types, label sets, mappings, links */
	struct batch_frames frames;
	uint32_t *labels_sizes;	   /* of each label set with its parents */
	struct batch_digest *labels_digests, *text_digests; /* of each label set, of each text of the dictionary */
	size_t labels_cap, labels_digests_cap, text_digests_cap;
	uint32_t text_digest_count;
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

struct err *batch_grow_more(void **items, size_t count, size_t *cap, size_t size) MUST_USE;
/** Makes room for element number @p count of an array that doubles. ERR_NOMEM. */
static inline MUST_USE struct err *batch_grow(void **items, size_t count, size_t *cap, size_t size)
{
	return __builtin_expect(count < *cap, 1) ? NULL : batch_grow_more(items, count, cap, size);
}
/** ERR_LIMIT past SAMPLES_BATCH_BYTES_MAX. */
struct err *batch_check_bytes(const struct samples_batch *batch) MUST_USE;
/** The number of a text in the batch's dictionary, cut at SAMPLES_TEXT_MAX; 0 for an empty one. */
struct err *batch_add_text(struct samples_batch *batch, struct samples_text text, uint32_t *ret) MUST_USE;

/* batch_frames.c */
size_t batch_frames_bytes(const struct batch_frames *frames);
void batch_frames_deinit(struct batch_frames *frames);

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
	struct hmap traces, locations, labels; /* digests of what batches brought -> number: batch_map.c */
	struct rows pending, pending_times;
	struct block_list lists[3]; /* by kind_index */
	uint64_t used;	/* when it was last loaded or written, for forgetting */
	struct partition *next; /* in order of (start, tenant, generation) */
};

/* -------------------------------------------------------------------------------------- what was counted: seen.c, on the writer thread */

enum { SEEN_WINDOW = 4096 };

/* Keys of profiles. Zeroed: not read yet. */
struct seen {
	struct hmap keys;
	size_t sweep_at;
	struct buf fresh; /* digests of the group at hand, for seen_flush */
	bool loaded;
};
/** Whether a profile with this key was counted lately; else it is from now on. */
struct err *seen_key(struct seen *seen, struct store_txn *txn, uint32_t tenant, const uint8_t key[16], uint64_t now_ms, bool *ret) MUST_USE;
/** Writes what the group has brought. */
struct err *seen_flush(struct seen *seen, struct store_txn *txn, uint64_t now_ms) MUST_USE;
/** Forgets what is in memory: it is read again. */
void seen_forget(struct seen *seen);

/* Of an instance: its highest number, and which of the SEEN_WINDOW up to it were counted (bit number % SEEN_WINDOW). */
struct seen_mark {
	uint64_t highest, when_ms;
	uint8_t bits[SEEN_WINDOW / 8];
};
/** Zeroes for an instance that is not known. */
struct err *seen_mark_read(struct store_txn *txn, uint32_t tenant, const uint8_t instance[SAMPLES_INSTANCE_BYTES], struct seen_mark *ret) MUST_USE;
struct err *seen_mark_write(struct store_txn *txn, uint32_t tenant, const uint8_t instance[SAMPLES_INSTANCE_BYTES],
	const struct seen_mark *mark) MUST_USE;
enum seen_judgement { SEEN_FIRST, SEEN_BEFORE, SEEN_TOO_OLD };
/** Judges a number, not 0, and remembers it; TOO_OLD: it is below the window. */
enum seen_judgement seen_sequence(struct seen_mark *mark, uint64_t sequence);

/** Deletes keys, or the marks of @p instances, that are old; some at a time. */
struct err *seen_forget_old(struct store_txn *txn, uint64_t now_ms, uint64_t keep_ms, bool instances, bool *more_ret) MUST_USE;

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
	struct seen seen;
	uint64_t instances_ms; /* when old marks were last looked for */
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
/** The open partition for a second, loaded; begins a new one, or a new generation, where there is none with room for what @p more brings. */
struct err *partition_for(struct samples *samples, struct store_txn *txn, uint32_t start, uint32_t tenant,
	const struct samples_batch *more, struct partition **ret) MUST_USE;
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

/* -------------------------------------------------------------------------------------- from a batch into a partition */

/* Numbers of a batch in a partition; filled in as they are asked for. */
struct batch_map {
	const struct samples_batch *batch;
	struct partition *partition;
	struct dict_map dict;
	uint32_t *locations, *traces, *labels; /* SAMPLES_NONE: not yet */
};
struct err *batch_map_init(struct batch_map *map, const struct samples_batch *batch, struct partition *partition) MUST_USE;
void batch_map_deinit(struct batch_map *map);
/** The number of a label set. O(1) for one that the partition has seen. */
struct err *batch_map_labels(struct batch_map *map, uint32_t labels, uint32_t *ret) MUST_USE;
/** Forgets the digests of a partition. */
void batch_map_forget(struct partition *partition);
/** Fills map->traces for these @p count numbers; one may stand there several times. O(1) each for traces that the partition has seen, else O(depth). */
struct err *batch_map_traces(struct batch_map *map, const uint32_t *traces, size_t count) MUST_USE;

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

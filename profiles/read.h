// SPDX-License-Identifier: Apache-2.0
/*
 * Reading partitions: what queries and listings share. One partition at a time, in a snapshot of its own.
 */
#ifndef CAIRN_PROFILES_READ_H
#define CAIRN_PROFILES_READ_H

#include "profiles/samples_internal.h"

enum { TYPE_TEXT_MAX = 4 * SAMPLES_TEXT_MAX + 32 };

/* The partitions that a query touches, oldest first. */
struct partition_ids {
	struct partition_id *items;
	size_t count, cap;
};
struct err *partition_ids_find(struct samples *samples, const struct samples_query *query, struct partition_ids *ret) MUST_USE;
void partition_ids_deinit(struct partition_ids *ids);

/* A partition that is being read. */
struct reading {
	struct partition_id id;
	struct dict dict;
	struct store_read *read;
	uint32_t first_second, last_second; /* of the partition, both included: what the query wants; first > last: nothing */
	uint8_t *types;			    /* of the dictionary: which the query wants; 2: samples were seen */
	uint8_t *labels;		    /* which label sets its filters let through */
	uint8_t *links;			    /* which links; NULL: all, and samples without one */
	int32_t cpu;			    /* -2: all */
	bool rows_needed; /* groups are not enough: CPUs or links are asked for */
};

/** Reads the dictionary and prepares filters. *found_ret false when the partition is gone meanwhile. ERR_CORRUPT, ERR_INVALID, .. */
struct err *reading_begin(struct samples *samples, const struct partition_id *id, const struct samples_query *query, bool rows_needed,
	struct reading *ret, bool *found_ret) MUST_USE;
void reading_end(struct reading *reading);

/* One row, or a group of rows (then lo is only of use for nothing: rows_needed is false). */
typedef struct err *reading_fn(void *context, const struct reading *reading, const struct row *row);
/** Calls @p fn for everything of wanted types, labels, CPUs, links and seconds in blocks of @p kind; counts blocks and rows. */
struct err *reading_rows(struct reading *reading, enum block_kind kind, reading_fn *fn, void *context, struct samples_query_stat *stat) MUST_USE;

/** "samples:count:cpu:nanoseconds:50000000"; without the end where it is empty. */
struct err *type_text(const struct dict *dict, uint32_t type, struct buf *ret) MUST_USE;
/** The value of a label in a set, its parents included; false when it has none. */
bool labels_value(const struct dict *dict, uint32_t labels, struct samples_text key, struct samples_text *ret);
bool text_equal(struct samples_text a, struct samples_text b);
static inline struct samples_text text_of(const char *text)
{
	return (struct samples_text){text, strlen(text)};
}

/* expand.c */

/**
 * A dictionary and a value for each of its nodes as a profile, symbolized.
 * @param sums  dict->node_count values
 */
struct err *expand(const struct dict *dict, const uint64_t *sums, uint32_t tenant, const struct samples_resolver *resolver,
	struct profile *ret, struct samples_query_stat *stat) MUST_USE;
uint64_t monotonic_ns(void);

#endif

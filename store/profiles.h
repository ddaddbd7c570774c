// SPDX-License-Identifier: Apache-2.0
/*
 * The `profiles` environment: an LMDB environment of its own beside `symbols`, so that samples never wait for the fsync of a table,
 * with the same writer thread, group commit, snapshots and recovery. Bytes and transactions only: what a block says is profiles/'
 * affair.
 *
 *   partitions   start u32 | tenant u32 | generation u16 -> the partition's record
 *   blocks       start u32 | tenant u32 | generation u16 | kind u8 | number u32 -> a block
 *   seen         when u64 ms | number u32 -> digests of 16 bytes: profiles that were counted in one commit
 *   instances    tenant u32 | instance 16 -> which sequence numbers of an agent were counted
 *   senders      tenant u32 | protocol u8 | instance 16 -> the last that is known of who sent
 *
 * Integers in keys are big-endian. A number of a block is good within its partition only.
 */
#ifndef CAIRN_STORE_PROFILES_H
#define CAIRN_STORE_PROFILES_H

#include "store/store.h"

enum store_profiles_db { STORE_PARTITIONS, STORE_BLOCKS, STORE_SEEN, STORE_INSTANCES, STORE_SENDERS };

enum { STORE_PROFILES_KEY_MAX = 64 };

/* A transaction that a hook, a command or a read is given; dies with it. */
struct store_txn;

/* All on the writer thread. Any may be NULL. */
struct store_profiles_hooks {
	/** After all commands of a group: writes what they gathered. An error throws the group's transaction away. */
	struct err *(*group_end)(struct store_txn *txn, void *context);
	/** The group is durable; its commands are told next. */
	void (*group_durable)(void *context);
	/** The group's transaction was thrown away or could not be committed: what was gathered is void. Its commands may run again. */
	void (*group_gone)(void *context);
	/** Between groups, at least every half second: a bounded step of work, by store_profiles_update. True: call soon again. */
	bool (*between)(void *context, struct store *store);
	void *context;
};

/** As store_open. Close with store_close; store_health, store_read_begin and store_read_end are as for any store. */
struct err *store_profiles_open(const struct store_options *options, const struct store_profiles_hooks *hooks, struct store **ret) MUST_USE;

/* Runs on the writer thread, perhaps twice (alone, after its group failed). */
typedef struct err *store_profiles_fn(struct store_txn *txn, void *arg);

/**
 * Hands in a command without waiting. @p done runs on the writer thread after the commit, once.
 * @return NULL, or ERR_NOMEM: then nothing was handed in and @p done does not run.
 */
struct err *store_profiles_submit(struct store *store, store_profiles_fn *run, void *arg, store_done_fn *done, void *done_arg) MUST_USE;
/** One transaction of its own, by hooks.between on the writer thread only. Errors of @p run abort it; ERR_OS: not durable. */
struct err *store_profiles_update(struct store *store, store_profiles_fn *run, void *arg) MUST_USE;
/** The transaction of a read. */
struct store_txn *store_profiles_read(struct store_read *read);

/** ret->bytes is NULL when there is no such key; valid until the next write in the transaction. */
struct err *store_profiles_get(struct store_txn *txn, enum store_profiles_db db, const void *key, size_t key_len, struct store_view *ret) MUST_USE;
struct err *store_profiles_put(struct store_txn *txn, enum store_profiles_db db, const void *key, size_t key_len, const void *value,
	size_t len) MUST_USE;
/** Nothing to delete is fine. */
struct err *store_profiles_delete(struct store_txn *txn, enum store_profiles_db db, const void *key, size_t key_len) MUST_USE;

/* A walk in the order of keys over those that begin with a prefix. */
struct store_scan;
/** @param from  NULL: the first with the prefix; else the first that is not less than these @p from_len bytes */
struct err *store_profiles_scan(struct store_txn *txn, enum store_profiles_db db, const void *prefix, size_t prefix_len, const void *from,
	size_t from_len, struct store_scan **ret) MUST_USE;
/** The next one: key and value are valid until the next write; key->bytes is NULL at the end. */
struct err *store_profiles_next(struct store_scan *scan, struct store_view *key, struct store_view *value) MUST_USE;
void store_profiles_scan_end(struct store_scan *scan);
/** For CLEANUP. */
void store_profiles_scan_endp(struct store_scan **scan);

/** ERR_CORRUPT: "<database> key <hex>: <what>". */
struct err *store_profiles_corrupt(enum store_profiles_db db, const void *key, size_t key_len, const char *what) MUST_USE;
/** Bytes of the data file that are in use, and its size. */
struct err *store_profiles_bytes(struct store_read *read, uint64_t *used_ret, uint64_t *file_ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Which processes are read, and when: a queue of process IDs, each at most once, drained a few at a time so that neither
 * start-up nor a storm of processes makes a spike. A process is not read again within WATCH_INTERVAL_MS, twice that after each
 * further time its mappings did not help, up to WATCH_INTERVAL_MS << WATCH_BACKOFF_MAX. One thread.
 */
#ifndef CAIRN_AGENT_WATCH_H
#define CAIRN_AGENT_WATCH_H

#include "agent/tables.h"
#include "base/err.h"

#include <stdint.h>

enum {
	WATCH_INTERVAL_MS = 100,
	WATCH_BACKOFF_MAX = 8,
	WATCH_QUEUE_MAX = 1 << 16, /* process IDs that wait; more are dropped and counted: their next sample brings them again */
	WATCH_BATCH = 64,	   /* read in one go at most .. */
	WATCH_TURN_MS = 10,	   /* .. and no more are begun after this */
};

struct watch_counters {
	uint64_t queued, dropped, read;
};

struct watch;
/** @p tables is borrowed until watch_destroy. */
struct err *watch_create(struct tables *tables, struct watch **ret) MUST_USE;
void watch_destroy(struct watch *watch);
/** All of /proc. ERR_OS; ERR_NOMEM. */
struct err *watch_scan(struct watch *watch) MUST_USE;
/** It began or changed: due in WATCH_INTERVAL_MS. ERR_NOMEM. */
struct err *watch_changed(struct watch *watch, uint32_t pid, uint64_t now_ms) MUST_USE;
/** A sample met an address that is not known. */
struct err *watch_missed(struct watch *watch, uint32_t pid, uint64_t now_ms) MUST_USE;
void watch_gone(struct watch *watch, uint32_t pid);
/** Reads up to WATCH_BATCH processes that are due. @p left_ret: how many more are due now. */
struct err *watch_work(struct watch *watch, uint64_t now_ms, uint32_t *left_ret) MUST_USE;
void watch_counters(const struct watch *watch, struct watch_counters *ret);

#endif

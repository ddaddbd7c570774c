// SPDX-License-Identifier: Apache-2.0
/*
 * A fixed number of named threads behind a bounded queue: for requests that take too long for a loop. A full queue
 * refuses, so that the caller answers 503 with Retry-After instead of piling up work.
 */
#ifndef CAIRN_NET_POOL_H
#define CAIRN_NET_POOL_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct net_pool;

struct net_pool_stats {
	uint64_t queued, running; /* now */
	uint64_t done, refused;	  /* since the start */
};

/** @p name: at most 10 bytes, threads are called "name-0" ... @p threads 0: one a CPU. ERR_NOMEM, ERR_OS. */
struct err *net_pool_create(const char *name, unsigned threads, unsigned queue_max, struct net_pool **ret) MUST_USE;
/** Queues fn(arg); false when the queue is full or the pool is closed (fn is then not called). Any thread, O(1). */
bool net_pool_submit(struct net_pool *pool, void (*fn)(void *arg), void *arg);
void net_pool_stats(struct net_pool *pool, struct net_pool_stats *ret);
/** Refuses new work, runs what is queued, joins. NULL is fine. Not from a thread of the pool. */
void net_pool_destroy(struct net_pool *pool);
/** For CLEANUP. */
void net_pool_destroyp(struct net_pool **pool);

#endif

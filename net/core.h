// SPDX-License-Identifier: Apache-2.0
/*
 * What the parts of one server share: limits, handler, totals (struct net_core, counted, for it outlives the server while
 * requests are referenced), and one loop's share of the connections and counters (struct net_shard). Internal to net/.
 */
#ifndef CAIRN_NET_CORE_H
#define CAIRN_NET_CORE_H

#include "net/loop.h"
#include "net/server.h"

enum net_counter {
	NET_CONNECTIONS_ACCEPTED,
	NET_CONNECTIONS_REFUSED_TOTAL,
	NET_CONNECTIONS_REFUSED_PER_PEER,
	NET_ACCEPT_ERRORS,
	NET_TLS_FAILURES,
	NET_REQUESTS,
	NET_REQUESTS_DONE,
	NET_REQUESTS_ABORTED,
	NET_BYTES_IN,
	NET_BYTES_OUT,
	NET_REPLIES_1XX,
	NET_REPLIES_2XX,
	NET_REPLIES_3XX,
	NET_REPLIES_4XX,
	NET_REPLIES_5XX,
	NET_BAD_REQUESTS,
	NET_HEAD_TOO_LARGE,
	NET_BODY_TOO_LARGE,
	NET_BODY_BAD_ENCODING,
	NET_REFUSED_MEMORY,
	NET_TIMEOUTS_HEAD,
	NET_TIMEOUTS_BODY,
	NET_TIMEOUTS_WRITE,
	NET_TIMEOUTS_IDLE,
	NET_CLOSED_REQUESTS_LIMIT,
	NET_COUNTERS,
};

/* How many connections each peer has; see peers.c. */
struct net_peers;

struct net_core {
	_Atomic uint32_t refs;
	struct net_limits limits; /* defaults filled in */
	struct net_handler handler;
	_Atomic uint64_t buffered_bytes; /* relaxed: a bound, not a lock */
	_Atomic uint64_t connections;	 /* relaxed, as above; raised by the accepting loop only */
	struct net_peers *peers;
};

struct net_conn;

struct net_shard {
	struct net_loop loop;
	struct net_core *core;
	struct net_conn *connections; /* list; loop thread */
	bool draining;		      /* loop thread */
	struct event *grace_timer;
	_Atomic uint64_t connection_count;	 /* written by the loop and the accepting loop */
	_Atomic uint64_t counters[NET_COUNTERS]; /* one writer: the loop's thread */
	uint8_t *scratch;			 /* for reading from sockets: NET_SCRATCH_BYTES */
};

enum { NET_SCRATCH_BYTES = 256 * 1024 };

/** Counts. Loop thread: the only writer, so a plain add; relaxed, for readers want figures only. */
static inline void net_count(struct net_shard *shard, enum net_counter counter, uint64_t n)
{
	uint64_t old = atomic_load_explicit(&shard->counters[counter], memory_order_relaxed);
	atomic_store_explicit(&shard->counters[counter], old + n, memory_order_relaxed);
}

/** Moves a charge on the server's buffered bytes from *charged to now. Any thread that owns *charged. */
static inline void net_charge(struct net_core *core, uint64_t *charged, uint64_t now)
{
	if (now == *charged)
		return;
	/* Wraps around when it shrinks, as unsigned arithmetic does. */
	atomic_fetch_add_explicit(&core->buffered_bytes, now - *charged, memory_order_relaxed);
	*charged = now;
}

static inline bool net_memory_is_short(struct net_core *core, uint64_t extra)
{
	uint64_t used = atomic_load_explicit(&core->buffered_bytes, memory_order_relaxed);
	return used > core->limits.buffered_bytes || extra > core->limits.buffered_bytes - used;
}

/** One IPv4 address or IPv6 /64, as a key. */
struct net_peer_key {
	uint64_t bytes[2];
};

struct net_peers *net_peers_create(void);
void net_peers_destroy(struct net_peers *peers);
/** Counts one more connection; false when it would pass @p limit (or memory is out): not counted. Any thread. O(1). */
bool net_peers_add(struct net_peers *peers, const struct net_peer_key *key, uint64_t limit);
void net_peers_remove(struct net_peers *peers, const struct net_peer_key *key);

#endif

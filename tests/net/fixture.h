// SPDX-License-Identifier: Apache-2.0
/*
 * A server with one route for each thing that a handler can do, for the tests of net/ and for benchmarks.
 */
#ifndef CAIRN_TESTS_NET_FIXTURE_H
#define CAIRN_TESTS_NET_FIXTURE_H

#include "net/pool.h"
#include "net/server.h"

/* What the handlers saw. Relaxed counters; read after waiting for them. */
struct fixture_seen {
	_Atomic uint64_t heads, ends, aborts, frees, body_bytes, writable, timers, late_posts;
};

struct fixture {
	struct net_server *server;
	struct net_pool *pool;
	uint16_t port;
	struct fixture_seen seen;
	_Atomic bool hold_workers; /* jobs of /thread wait until this is false */
};

/**
 * Starts a server on a free loopback port. Routes:
 *   GET  /hello                "hello\n"
 *   POST /echo                 the body (limit 1 MiB, collected)
 *   PUT  /count                the number of bytes of the body and their CRC-32 (limit 16 GiB, streamed)
 *   PUT  /slow?ms=N            as /count, but paused for N ms after each piece
 *   POST /auth                 401 before the body
 *   POST /small                limit 10 bytes, collected: "ok"
 *   GET  /whole?n=N            N bytes in one reply
 *   GET  /stream?n=N           N bytes in pieces of 10,000, as the peer takes them
 *   GET  /cut                  a streamed reply that is reset after 5 bytes
 *   GET  /later?ms=N           "later\n" after N ms
 *   GET  /thread               "thread\n", completed by a thread of the pool
 *   GET  /never                never answered
 *   GET  /nothing              a handler that forgets to answer
 *   GET  /p/{a}/q/{b}          "<a>|<b>"
 *   GET  /query                the value of ?x=
 * and gRPC: /test.Test/Echo, Small (100 bytes at most), Chat (bidirectional echo), Fail, Sleep (ms as text), Flood (messages of
 * 10,000 bytes, their number as text), Thread.
 */
void fixture_start(struct fixture *fixture, const struct net_limits *limits, unsigned loops);
/** As fixture_start, on an address of the caller's. */
void fixture_start_on(struct fixture *fixture, const struct net_limits *limits, unsigned loops, const char *address);
void fixture_stop(struct fixture *fixture, uint64_t grace_ms);
struct net_server_stats fixture_stats(struct fixture *fixture);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The server: event loops, listeners, limits, counters. One port serves HTTP/1.1 and HTTP/2 (told apart by the first
 * bytes, or by ALPN under TLS). Requests reach the upper layer through struct net_handler (net/request.h, net/router.h).
 */
#ifndef CAIRN_NET_SERVER_H
#define CAIRN_NET_SERVER_H

#include "net/request.h"

struct net_server;

struct net_handler {
	/** A request's head is complete: see net/request.h. Loop thread; must not block. */
	void (*on_head)(struct net_request *request, void *user);
	void *user;
};

/* 0 means the default that stands behind each. */
struct net_limits {
	uint64_t connections;		  /* in all; past it 503 and close. 8192 */
	uint64_t connections_per_peer;	  /* of one IPv4 address or IPv6 /64; past it 503 and close. 4096 */
	uint64_t head_bytes;		  /* request line and headers; past it 431. 32 KiB */
	uint64_t head_count;		  /* headers; past it 431. 100 */
	uint64_t requests_per_connection; /* then Connection: close. 1,000,000 */
	uint64_t buffered_bytes;	  /* request and reply bytes held in memory, of all connections; past it 503. 1 GiB */
	uint64_t head_timeout_ms;	  /* from the first byte of a head, or from connecting, to its end; 408. 10 s */
	uint64_t body_timeout_ms;	  /* between two pieces of a body; 408. 30 s */
	uint64_t write_timeout_ms;	  /* without the peer taking a byte of an answer; close. 30 s */
	uint64_t keep_alive_ms;		  /* between two requests; close. 75 s */
	uint64_t streams;		  /* HTTP/2: at once on one connection. 256 */
};

struct net_server_options {
	unsigned loops; /* threads; 0: one a CPU, at most 4 */
	struct net_limits limits;
	struct net_handler handler;
};

/** Counters since the start and gauges of now. */
struct net_server_stats {
	/* gauges */
	uint64_t connections_open;
	uint64_t requests_open; /* head complete, reply not yet */
	uint64_t buffered_bytes;
	/* counters */
	uint64_t connections_accepted;
	uint64_t connections_refused_total;    /* past limits.connections */
	uint64_t connections_refused_per_peer; /* past limits.connections_per_peer */
	uint64_t accept_errors;		       /* accept(2) failed: out of descriptors */
	uint64_t tls_failures;		       /* handshakes that failed */
	uint64_t requests;
	uint64_t requests_aborted; /* the peer left before its answer was complete */
	uint64_t bytes_in, bytes_out;
	uint64_t replies_1xx, replies_2xx, replies_3xx, replies_4xx, replies_5xx;
	uint64_t bad_requests;	    /* malformed: 400 */
	uint64_t head_too_large;    /* 431 */
	uint64_t body_too_large;    /* 413 */
	uint64_t body_bad_encoding; /* 415, or damaged */
	uint64_t refused_memory;    /* past limits.buffered_bytes */
	uint64_t timeouts_head, timeouts_body, timeouts_write, timeouts_idle;
	uint64_t closed_requests_limit; /* requests_per_connection reached */
	uint64_t loop_wakes, loop_posts; /* posts from other threads; wakes are fewer when posts come in batches */
};

/** Creates the loops, which start at once. Nothing listens yet. ERR_OS, ERR_NOMEM. */
struct err *net_server_create(const struct net_server_options *options, struct net_server **ret) MUST_USE;

/** Whether an address has the form that net_server_listen takes; nothing is looked up. ERR_INVALID. */
struct err *net_server_check_address(const char *address) MUST_USE;

/**
 * Listens on "127.0.0.1:4318", "[::1]:4318", "localhost:4318" (all its addresses) or ":4318" (all of the machine); port 0
 * takes a free one. May be called several times; the same address twice is one listener. One thread at a time.
 * @param port_ret the real port; may be NULL
 * @return ERR_INVALID: malformed; ERR_OS: "listen on 127.0.0.1:4318: address already in use"
 */
struct err *net_server_listen(struct net_server *server, const char *address, uint16_t *port_ret) MUST_USE;

/* PEM files, as SSL_CTX_use_certificate_chain_file and SSL_CTX_use_PrivateKey_file read them. */
struct net_tls_options {
	const char *certificate_file;
	const char *key_file;
	const char *client_ca_file; /* clients must show a certificate of it; NULL: none is asked for */
};

/** As net_server_listen, under TLS 1.2 or later, with ALPN for h2 and http/1.1. ERR_INVALID also: a file that does not serve. */
struct err *net_server_listen_tls(struct net_server *server, const char *address, const struct net_tls_options *options,
	uint16_t *port_ret) MUST_USE;

/** Any thread; the figures are each exact, but not of one moment. */
void net_server_stats(const struct net_server *server, struct net_server_stats *ret);

/**
 * Stops: closes the listeners and idle connections, lets requests that have begun finish for @p grace_ms (with Connection:
 * close or GOAWAY), breaks off the rest (on_abort) and joins the loops. Not from a loop's thread. Idempotent.
 */
void net_server_stop(struct net_server *server, uint64_t grace_ms);

/** Stops with no grace if that was not done, and frees. References to requests may outlive it. NULL is fine. */
void net_server_destroy(struct net_server *server);
/** For CLEANUP. */
void net_server_destroyp(struct net_server **server);

#endif

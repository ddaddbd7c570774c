// SPDX-License-Identifier: Apache-2.0
/*
 * The one polite fetcher: everything that Cairn gets from other people's servers goes through it, on one thread with
 * libcurl's multi interface.
 *
 *   one flight a key       however many ask for the same thing at once, one transfer; all get its bytes
 *   limits                 size, time, stall, rate, bytes an hour, redirects, transfers at once, connections a host
 *   retries                FETCH_ATTEMPTS_MAX with jitter; Retry-After is obeyed; resumed by Range where the server can
 *   cancelled              by who asked, when somebody else was first; the transfer ends unless others wait for it
 *   held                   when another of which one is enough is ahead and fast: bytes that nobody will want do not come
 *   circuit breaker        a host that failed so often in a row is left alone for a while
 *   redirects              never to a private or loopback address unless the configured address itself is one; never to http from https
 *   conditional            If-None-Match, If-Modified-Since
 *
 * Proxies: http_proxy, https_proxy, no_proxy of the environment, as curl has them. Bytes land in an unlinked temporary file.
 */
#ifndef CAIRN_SOURCES_FETCH_H
#define CAIRN_SOURCES_FETCH_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	FETCH_KEY_SIZE = 256,
	FETCH_URL_MAX = 4096,
	FETCH_ATTEMPTS_MAX = 4,
	FETCH_REDIRECTS_MAX = 4,
	FETCH_HEADERS_MAX = 64 * 1024, /* bytes of one head */
	FETCH_VALIDATOR_SIZE = 160,    /* an ETag or a date; longer ones are not kept */
	FETCH_REASON_SIZE = 384,
	FETCH_AHEAD_BYTES = 1 << 20, /* of which one is enough: what each may fetch beside the one that leads .. */
	FETCH_LEAD_BYTES_S = 1 << 20, /* .. while that brings so many a second */
	FETCH_HOSTS_MAX = 256, /* remembered by the breaker; past it the one used longest ago is forgotten */
};

/* Zero means the default. Strings are copied. */
struct fetch_options {
	const char *scratch_dir;    /* for unlinked temporary files: /var/tmp */
	uint32_t parallel;	    /* transfers at once: 8 */
	uint32_t per_host;	    /* connections to one host: 2 */
	uint64_t connect_ms;	    /* 10 s */
	uint64_t stall_ms;	    /* without bytes for so long, it failed: 30 s */
	uint64_t rate_bytes;	    /* a second, each transfer: no limit */
	uint64_t hourly_bytes;	    /* of all transfers: 64 GiB */
	uint64_t retry_ms;	    /* before the second attempt, then doubled, each times 0.5 to 1.5: 1 s */
	uint64_t retry_after_max_ms; /* a longer Retry-After is not waited for but handed on: 30 s */
	uint32_t breaker_failures;  /* in a row: 5 */
	uint64_t breaker_ms;	    /* left alone for so long, doubled with each failed trial up to 16 times: 60 s */
};

enum fetch_answer {
	FETCH_OK = 1,
	FETCH_NOT_MODIFIED,
	FETCH_NOT_FOUND, /* 404, 410: the server knows, and does not have it */
	FETCH_REFUSED,	 /* by us or them; asking again soon would give the same: too large, forbidden redirect, 4xx, HTML */
	FETCH_FAILED,	 /* perhaps later: network, 5xx, stalled, broken off, circuit open */
	FETCH_CANCELLED, /* by fetch_cancel: it says nothing of the server */
};
/** "ok", "not_modified", "not_found", "refused", "failed", "cancelled". */
const char *fetch_answer_name(enum fetch_answer answer);

struct flight;
/* For requests of which one is enough; zeroed: not cancelled. The fetcher's, under its lock. */
struct fetch_cancel {
	bool is_set;
	const struct flight *lead; /* the one that is ahead; NULL: none is */
	uint64_t window_ms, window_bytes; /* what it brought since */
	bool is_slow;
	uint64_t claim_until_ms; /* one has come, and is being looked at */
};

struct fetch_request {
	const char *key; /* what is fetched, under FETCH_KEY_SIZE; NULL: the URL */
	const char *url;
	uint64_t limit;	 /* bytes; past it FETCH_REFUSED. 0: 1 GiB */
	uint64_t total_ms; /* all attempts together. 0: 10 minutes */
	uint64_t range_from, range_len; /* range_len > 0: only these bytes; a server that gives more is cut off there */
	const char *etag, *last_modified; /* of what the caller has; NULL or "": none */
	bool refuse_html; /* a text/html answer is a login page or an error in disguise */
	struct fetch_cancel *cancel; /* NULL: nobody gives it up */
};

struct fetch_result {
	enum fetch_answer answer;
	unsigned status;     /* of the last answer; 0: there was none */
	unsigned attempts;
	int fd;		     /* FETCH_OK: the bytes from offset 0, the caller's to close; else -1 */
	uint64_t bytes;	     /* in fd */
	uint64_t wire_bytes; /* that came over all attempts */
	uint64_t retry_after_ms; /* when to ask again at the earliest; 0: nobody said */
	bool is_range;	     /* fd has only the bytes asked for; false: the server gave the whole file */
	char etag[FETCH_VALIDATOR_SIZE], last_modified[FETCH_VALIDATOR_SIZE];
	char reason[FETCH_REASON_SIZE]; /* one line for a person, unless FETCH_OK */
};

struct fetch;

struct err *fetch_start(const struct fetch_options *options, struct fetch **ret) MUST_USE;
/** What flies is answered FETCH_FAILED, new requests too; callers may still be inside. Any thread. */
void fetch_stop(struct fetch *fetch);
/** Stops, joins, frees. No caller may be inside. NULL is fine. */
void fetch_destroy(struct fetch *fetch);

/**
 * Fetches, or joins a flight with the same key, and waits for the end.
 * @return NULL, whatever the server says (ret->answer); ERR_INVALID: no http(s) URL; ERR_LIMIT: key or URL too long; ERR_NOMEM.
 * Thread: any that may block; not an event loop's.
 */
struct err *fetch_run(struct fetch *fetch, const struct fetch_request *request, struct fetch_result *ret) MUST_USE;
/**
 * Ends the waiting of all requests with this cancel, and those to come: FETCH_CANCELLED. A flight ends with it unless others wait for it, too.
 * Thread: any. @return true for the first who calls it, false for all others.
 */
bool fetch_cancel(struct fetch *fetch, struct fetch_cancel *cancel);
/** Closes the descriptor. */
void fetch_result_deinit(struct fetch_result *result);

struct fetch_stats {
	uint64_t requests, joined, transfers, retries, ok, not_modified, not_found, refused, failed, cancelled, held, short_circuited, bytes;
};
void fetch_stats(struct fetch *fetch, struct fetch_stats *ret);

#endif

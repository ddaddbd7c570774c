// SPDX-License-Identifier: Apache-2.0
/*
 * What fetch.c (callers), fetch_thread.c (states, verdicts) and flight.c (one attempt: libcurl's options and callbacks) share. Internal.
 */
#ifndef CAIRN_SOURCES_FLIGHT_H
#define CAIRN_SOURCES_FLIGHT_H

#include "sources/breaker.h"
#include "sources/fetch.h"

#include <curl/curl.h>
#include <pthread.h>

enum state { WAITING, FLYING, DONE };

/* One answer's head. */
struct head {
	unsigned status;
	size_t bytes;
	bool is_html;
	uint64_t length;
	bool has_length;
	uint64_t range_from;
	bool has_range;
	uint64_t retry_after_ms;
	char etag[FETCH_VALIDATOR_SIZE], last_modified[FETCH_VALIDATOR_SIZE];
};

struct flight {
	struct flight *next;
	unsigned users; /* callers inside; lock. 0 before DONE: they gave it up, and the fetch thread drops it */
	enum state state; /* lock */
	struct fetch *fetch;
	char key[FETCH_KEY_SIZE];
	char *url, *at; /* as asked; of the present hop */
	uint64_t limit, range_from, range_len;
	bool refuse_html;
	struct fetch_cancel *race; /* lock; NULL: it is in none, or somebody waits for it who is not */
	bool held;	/* fetch thread */
	char if_etag[FETCH_VALIDATOR_SIZE], if_modified[FETCH_VALIDATOR_SIZE];
	uint64_t deadline_ms, ready_ms;

	CURL *curl;
	struct curl_slist *headers;
	char message[CURL_ERROR_SIZE];
	unsigned redirects;
	bool source_is_private; /* the configured address is one */
	bool met_private;	/* a hop led to a private address and was refused */
	struct head head;
	bool resumed; /* this attempt asked for the rest of the file */
	bool enough;  /* all bytes of the range are here: the transfer was ended by us */
	char refusal[FETCH_REASON_SIZE]; /* why a callback ended the transfer; "" when none did */
	char etag[FETCH_VALIDATOR_SIZE], last_modified[FETCH_VALIDATOR_SIZE]; /* of the bytes in fd */
	struct fetch_result result;
};

struct fetch {
	struct fetch_options options;
	char *scratch_dir;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping; /* lock */
	bool started, joined;
	struct flight *flights; /* lock */
	struct fetch_stats stats; /* lock */
	CURLM *multi;
	unsigned flying;
	uint64_t hour_started_ms, hour_bytes;
	uint64_t jitter;
	struct breakers breakers;
};

/** CLOCK_MONOTONIC. */
uint64_t fetch_now_ms(void);
/** A libcurl handle with everything set, in flight->curl. False: out of memory, nothing is left behind. */
bool flight_prepare(struct flight *flight);
/** After an attempt: whether the configured address is a private one, also where a connection was used again and no socket made. */
void flight_note_source(struct flight *flight);
/**
 * At the first byte of a good body, or at the end of an empty one: is it the one that we want, and where does it belong?
 * False, with a reason in flight->refusal.
 */
bool flight_begin_body(struct flight *flight);
/** It is in no race any more. Under the lock. */
void race_leave(struct flight *flight);
/** So many bytes came. Fetch thread, under the lock. */
void race_moved(struct flight *flight, uint64_t bytes, uint64_t now_ms);
/** Whether it has to wait behind another one; it may become the one that leads. Fetch thread, under the lock. */
bool race_holds(struct flight *flight, uint64_t now_ms);
/** One that was held and need not be any more, to be gone on with; NULL: none. Fetch thread, under the lock. */
struct flight *race_next_to_go(struct fetch *fetch, uint64_t now_ms);
/** Out of its fetcher's list. Under the lock. */
void flight_unlink(struct flight *flight);
/** One that is in no list. */
void flight_free(struct flight *flight);
/** The fetch thread, until fetch->stopping. */
void *fetch_main(void *fetch);

#endif

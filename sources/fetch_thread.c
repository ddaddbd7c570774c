// SPDX-License-Identifier: Apache-2.0
/*
 * A flight is one thing on its way: created by the first who asks for its key, shared by all who ask meanwhile, and moved by
 * one thread through
 *
 *     WAITING (until ready_ms) -> FLYING (a libcurl handle in the multi) -> WAITING (retry, redirect) .. -> DONE
 *
 * Redirects are followed here and not by libcurl, so that each hop's scheme and address are looked at: libcurl asks for every
 * socket (on_socket), and there a private address is refused for a hop that a stranger named. A redirected hop takes a fresh
 * connection, since a connection that lies ready was never asked for. Behind a proxy the socket is the proxy's, so only hosts
 * that are written as addresses can be judged.
 *
 * A body that broke off is continued by Range and If-Range when the server named a strong validator; an answer that is not
 * 206 for exactly that place starts the file again. Nothing is handed out that did not come to its end.
 *
 * A flight that all its callers have given up has no users and is not DONE: this thread drops it (drop_abandoned), unless
 * somebody joins it before. That says nothing of the host, so its breaker is not told.
 *
 * Threads: `lock` guards the list of flights, the states and the results. The flight's other members belong to the fetch thread
 * from creation to DONE. Breakers, counters of bytes and the multi belong to the fetch thread alone.
 */
#include "sources/flight.h"

#include "sources/address.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WAIT_MS = 200, HOUR_MS = 3600 * 1000 };

/* ---------------------------------------------------------------------------------------- ends of a flight */

static void finish(struct flight *flight, enum fetch_answer answer, const char *reason)
{
	struct fetch *fetch = flight->fetch;
	struct fetch_result *result = &flight->result;

	result->answer = answer;
	result->status = flight->head.status;
	(void)snprintf(result->reason, sizeof(result->reason), "%s", reason);
	if (answer != FETCH_OK && result->fd >= 0) {
		(void)close(result->fd);
		result->fd = -1;
	}
	(void)snprintf(result->etag, sizeof(result->etag), "%s", flight->head.etag);
	(void)snprintf(result->last_modified, sizeof(result->last_modified), "%s", flight->head.last_modified);
	(void)pthread_mutex_lock(&fetch->lock);
	flight->state = DONE;
	fetch->stats.ok += answer == FETCH_OK;
	fetch->stats.not_modified += answer == FETCH_NOT_MODIFIED;
	fetch->stats.not_found += answer == FETCH_NOT_FOUND;
	fetch->stats.refused += answer == FETCH_REFUSED;
	fetch->stats.failed += answer == FETCH_FAILED;
	(void)pthread_cond_broadcast(&fetch->changed);
	(void)pthread_mutex_unlock(&fetch->lock);
}

__attribute__((format(printf, 3, 4))) static void finish_with(struct flight *flight, enum fetch_answer answer, const char *format, ...)
{
	char reason[FETCH_REASON_SIZE];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(reason, sizeof(reason), format, arguments);
	va_end(arguments);
	finish(flight, answer, reason);
}

/* xorshift: it spreads retries and need not be unpredictable. */
static uint64_t with_jitter(struct fetch *fetch, uint64_t ms)
{
	fetch->jitter ^= fetch->jitter << 13;
	fetch->jitter ^= fetch->jitter >> 7;
	fetch->jitter ^= fetch->jitter << 17;
	return ms / 2 + (ms > 0 ? fetch->jitter % (ms + 1) : 0);
}

/* Another attempt where one is left and time is, else the end. */
static void retry(struct flight *flight, const char *reason)
{
	struct fetch *fetch = flight->fetch;
	uint64_t now = fetch_now_ms(), after = flight->head.retry_after_ms;
	uint64_t wait = with_jitter(fetch, fetch->options.retry_ms << (flight->result.attempts - 1));

	breaker_bad(&fetch->breakers, breaker_of(&fetch->breakers, flight->at, fetch_now_ms()), now);
	flight->result.retry_after_ms = after;
	if (after > wait)
		wait = after;
	if (after > fetch->options.retry_after_max_ms)
		finish_with(flight, FETCH_FAILED, "%s; it wants to be asked again in %llu s", reason, (unsigned long long)(after / 1000));
	else if (flight->result.attempts >= FETCH_ATTEMPTS_MAX)
		finish_with(flight, FETCH_FAILED, "%s, %u times", reason, flight->result.attempts);
	else if (now + wait >= flight->deadline_ms)
		finish_with(flight, FETCH_FAILED, "%s, and its time was over", reason);
	else {
		(void)pthread_mutex_lock(&fetch->lock);
		fetch->stats.retries++;
		flight->state = WAITING;
		(void)pthread_mutex_unlock(&fetch->lock);
		flight->ready_ms = now + wait;
	}
}

/* ---------------------------------------------------------------------------------------- take-off and landing */

static bool open_temporary(struct flight *flight)
{
	if (flight->result.fd < 0)
		flight->result.fd = open(flight->fetch->scratch_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return flight->result.fd >= 0;
}

static void land(struct flight *flight)
{
	if (flight->curl) {
		(void)curl_multi_remove_handle(flight->fetch->multi, flight->curl);
		curl_easy_cleanup(flight->curl);
		flight->fetch->flying--;
	}
	flight->held = false;
	curl_slist_free_all(flight->headers);
	flight->curl = NULL;
	flight->headers = NULL;
}

static void take_off(struct flight *flight)
{
	struct fetch *fetch = flight->fetch;
	struct breaker *breaker = breaker_of(&fetch->breakers, flight->at, fetch_now_ms());
	uint64_t now = fetch_now_ms();

	if (now - fetch->hour_started_ms >= HOUR_MS) {
		fetch->hour_started_ms = now;
		fetch->hour_bytes = 0;
	}
	if (breaker->open_until_ms > now) {
		flight->result.retry_after_ms = breaker->open_until_ms - now;
		(void)pthread_mutex_lock(&fetch->lock);
		fetch->stats.short_circuited++;
		(void)pthread_mutex_unlock(&fetch->lock);
		finish_with(flight, FETCH_FAILED, "%s failed %u times in a row and is left alone for another %llu s", breaker->host,
			breaker->failures, (unsigned long long)((breaker->open_until_ms - now) / 1000 + 1));
		return;
	}
	if (fetch->hour_bytes >= fetch->options.hourly_bytes) {
		flight->result.retry_after_ms = HOUR_MS - (now - fetch->hour_started_ms);
		finish_with(flight, FETCH_FAILED, "%llu bytes were fetched within the hour, which is the limit (sources.hourly_bytes)",
			(unsigned long long)fetch->hour_bytes);
		return;
	}
	flight->head = (struct head){0};
	flight->refusal[0] = flight->message[0] = 0;
	flight->met_private = flight->enough = false;
	if (!open_temporary(flight)) {
		finish_with(flight, FETCH_FAILED, "%s: %s", fetch->scratch_dir, strerror(errno));
		return;
	}
	if (!flight_prepare(flight)) {
		finish(flight, FETCH_FAILED, "out of memory");
		return;
	}
	flight->result.attempts += flight->redirects == 0 || flight->result.attempts == 0;
	(void)pthread_mutex_lock(&fetch->lock);
	flight->state = FLYING;
	fetch->stats.transfers++;
	(void)pthread_mutex_unlock(&fetch->lock);
	fetch->flying++;
	(void)curl_multi_add_handle(fetch->multi, flight->curl);
}

/* ---------------------------------------------------------------------------------------- what came of it */

/* Why a redirect is not followed; "" when it is. */
static void judge_redirect(struct flight *flight, const char *to, char reason[FETCH_REASON_SIZE])
{
	char from_host[HOST_SIZE] = "", to_host[HOST_SIZE], from_name[HOST_SIZE], to_name[HOST_SIZE];

	reason[0] = 0;
	(void)host_of(flight->url, from_host);
	host_name(from_host, from_name);
	if (flight->redirects == FETCH_REDIRECTS_MAX) {
		(void)snprintf(reason, FETCH_REASON_SIZE, "it redirected more than %d times", FETCH_REDIRECTS_MAX);
		return;
	}
	if (!to || strlen(to) > FETCH_URL_MAX || !host_of(to, to_host)) {
		(void)snprintf(reason, FETCH_REASON_SIZE, "it redirected to something that is no http or https address");
		return;
	}
	host_name(to_host, to_name);
	if (strncmp(flight->at, "https:", 6) == 0 && strncmp(to_host, "https:", 6) != 0)
		(void)snprintf(reason, FETCH_REASON_SIZE, "it redirected from https to http (%.256s)", to_host);
	else if (address_host_is_private(to_name) && !flight->source_is_private && !address_host_is_private(from_name))
		(void)snprintf(reason, FETCH_REASON_SIZE, "it redirected to a private address (%.256s)", to_host);
}

static void redirect(struct flight *flight)
{
	char *to = NULL, reason[FETCH_REASON_SIZE];

	(void)curl_easy_getinfo(flight->curl, CURLINFO_REDIRECT_URL, &to);
	judge_redirect(flight, to, reason);
	char *copy = reason[0] ? NULL : strdup(to);
	breaker_good(breaker_of(&flight->fetch->breakers, flight->at, fetch_now_ms()));
	land(flight);
	if (!copy) {
		finish(flight, FETCH_REFUSED, reason[0] ? reason : "out of memory");
		return;
	}
	free(flight->at);
	flight->at = copy;
	flight->redirects++;
	(void)pthread_mutex_lock(&flight->fetch->lock);
	flight->state = WAITING;
	(void)pthread_mutex_unlock(&flight->fetch->lock);
	flight->ready_ms = 0;
}

/* What was got can be continued only when the server named it: a weak ETag or nothing starts again. */
static void keep_or_drop(struct flight *flight)
{
	bool strong = flight->etag[0] ? strncmp(flight->etag, "W/", 2) != 0 : flight->last_modified[0] != 0;

	if (strong && (flight->head.status == 200 || flight->head.status == 206))
		return;
	flight->result.bytes = 0;
	if (flight->result.fd >= 0)
		(void)!ftruncate(flight->result.fd, 0);
}

static void judge_failure(struct flight *flight, CURLcode code)
{
	char reason[FETCH_REASON_SIZE];
	bool theirs = code == CURLE_WRITE_ERROR || code == CURLE_ABORTED_BY_CALLBACK;

	land(flight);
	if (flight->met_private) {
		finish(flight, FETCH_REFUSED, "it redirected to a name that leads to a private address");
	} else if (theirs && flight->refusal[0]) {
		finish(flight, FETCH_REFUSED, flight->refusal);
	} else if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_URL_MALFORMAT) {
		finish(flight, FETCH_REFUSED, flight->message[0] ? flight->message : curl_easy_strerror(code));
	} else {
		keep_or_drop(flight);
		(void)snprintf(reason, sizeof(reason), "%.300s", flight->message[0] ? flight->message : curl_easy_strerror(code));
		retry(flight, reason);
	}
}

static void judge_status(struct flight *flight)
{
	unsigned status = flight->head.status;
	struct breaker *breaker = breaker_of(&flight->fetch->breakers, flight->at, fetch_now_ms());
	char reason[FETCH_REASON_SIZE];

	/* An empty body never came through on_body. */
	bool begun = flight->head.bytes == SIZE_MAX;
	if ((status == 200 || status == 206) && !begun && !flight_begin_body(flight)) {
		finish(flight, FETCH_REFUSED, flight->refusal[0] ? flight->refusal : "the temporary file cannot be truncated");
		return;
	}
	if (status == 429 || status == 408 || status >= 500) {
		flight->result.bytes = 0;
		(void)snprintf(reason, sizeof(reason), "it answered %u", status);
		retry(flight, reason);
		return;
	}
	if (status == 416 && flight->resumed) { /* the file has become shorter: once more from the start */
		flight->result.bytes = 0;
		retry(flight, "it has no such range");
		return;
	}
	breaker_good(breaker);
	if (status == 200 || status == 206)
		finish(flight, FETCH_OK, "");
	else if (status == 304)
		finish(flight, FETCH_NOT_MODIFIED, "it has not changed");
	else if (status == 404 || status == 410)
		finish_with(flight, FETCH_NOT_FOUND, "it does not have it (%u)", status);
	else
		finish_with(flight, FETCH_REFUSED, "it answered %u", status);
}

static void landed(struct flight *flight, CURLcode code)
{
	long status = 0;

	(void)curl_easy_getinfo(flight->curl, CURLINFO_RESPONSE_CODE, &status);
	flight_note_source(flight);
	if (code == CURLE_WRITE_ERROR && flight->enough)
		code = CURLE_OK; /* we have what we asked for and hung up */
	if (code != CURLE_OK) {
		judge_failure(flight, code);
	} else if (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) {
		redirect(flight);
	} else {
		land(flight);
		judge_status(flight);
	}
}

/* ---------------------------------------------------------------------------------------- the thread */

/* The next flight that may take off; NULL when none may now. Past its time a waiting one ends. */
static struct flight *next_ready(struct fetch *fetch, bool *expired_ret)
{
	struct flight *found = NULL;
	uint64_t now = fetch_now_ms();

	*expired_ret = false;
	(void)pthread_mutex_lock(&fetch->lock);
	for (struct flight *flight = fetch->flights; flight; flight = flight->next) {
		if (flight->state != WAITING)
			continue;
		bool expired = fetch->stopping || now >= flight->deadline_ms;
		if (expired || (flight->ready_ms <= now && fetch->flying < fetch->options.parallel)) {
			found = flight; /* the list is newest first: the oldest that is ready goes */
			*expired_ret = expired;
		}
	}
	(void)pthread_mutex_unlock(&fetch->lock);
	return found;
}

static void end_all_flying(struct fetch *fetch)
{
	for (;;) {
		struct flight *found = NULL;
		(void)pthread_mutex_lock(&fetch->lock);
		for (struct flight *flight = fetch->flights; flight && !found; flight = flight->next)
			if (flight->state == FLYING)
				found = flight;
		(void)pthread_mutex_unlock(&fetch->lock);
		if (!found)
			return;
		land(found);
		finish(found, FETCH_FAILED, "the server is stopping");
	}
}

/* Flights that nobody waits for any more. */
static void drop_abandoned(struct fetch *fetch)
{
	for (;;) {
		(void)pthread_mutex_lock(&fetch->lock);
		struct flight *found = fetch->flights;
		while (found && found->users > 0)
			found = found->next;
		if (found) {
			flight_unlink(found);
			fetch->stats.cancelled++;
			fetch->stats.bytes += found->result.wire_bytes;
		}
		(void)pthread_mutex_unlock(&fetch->lock);
		if (!found)
			return;
		land(found);
		flight_free(found);
	}
}

static bool is_stopping(struct fetch *fetch)
{
	(void)pthread_mutex_lock(&fetch->lock);
	bool stopping = fetch->stopping;
	(void)pthread_mutex_unlock(&fetch->lock);
	return stopping;
}

/* Those that were held behind another one and need not be any more. */
static void let_go(struct fetch *fetch)
{
	for (unsigned n = 0; n < fetch->options.parallel; n++) {
		(void)pthread_mutex_lock(&fetch->lock);
		struct flight *flight = race_next_to_go(fetch, fetch_now_ms());
		(void)pthread_mutex_unlock(&fetch->lock);
		if (!flight)
			return;
		(void)curl_easy_pause(flight->curl, CURLPAUSE_CONT);
	}
}

void *fetch_main(void *argument)
{
	struct fetch *fetch = argument;
	int running, left;

	(void)pthread_setname_np(pthread_self(), "fetch");
	while (!is_stopping(fetch)) {
		struct flight *flight;
		bool expired;
		drop_abandoned(fetch);
		while ((flight = next_ready(fetch, &expired))) {
			if (expired)
				finish(flight, FETCH_FAILED, "its time was over");
			else
				take_off(flight);
		}
		let_go(fetch);
		(void)curl_multi_perform(fetch->multi, &running);
		CURLMsg *message;
		bool any = false;
		while ((message = curl_multi_info_read(fetch->multi, &left))) {
			if (message->msg != CURLMSG_DONE)
				continue;
			CURLcode code = message->data.result; /* the message dies with the handle */
			(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &flight);
			landed(flight, code);
			any = true;
		}
		if (!any)
			(void)curl_multi_poll(fetch->multi, NULL, 0, WAIT_MS, NULL);
	}
	end_all_flying(fetch);
	struct flight *flight;
	bool expired;
	while ((flight = next_ready(fetch, &expired)))
		finish(flight, FETCH_FAILED, "the server is stopping");
	drop_abandoned(fetch); /* all others are DONE: their callers free them */
	return NULL;
}

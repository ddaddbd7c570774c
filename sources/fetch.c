// SPDX-License-Identifier: Apache-2.0
/*
 * The fetcher as its callers see it: start and stop, and waiting for a flight (fetch_thread.c moves it). The last who leaves a
 * flight that is DONE frees it; one that is not DONE stays for the fetch thread.
 */
#include "sources/fetch.h"

#include "base/random.h"
#include "sources/flight.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t fetch_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *fetch_answer_name(enum fetch_answer answer)
{
	static const char *const names[] = {[FETCH_OK] = "ok", [FETCH_NOT_MODIFIED] = "not_modified",
		[FETCH_NOT_FOUND] = "not_found", [FETCH_REFUSED] = "refused", [FETCH_FAILED] = "failed", [FETCH_CANCELLED] = "cancelled"};

	return answer >= FETCH_OK && answer <= FETCH_CANCELLED ? names[answer] : "unknown";
}

static const char CANCELLED[] = "it was not wanted any more";

static void set_defaults(struct fetch_options *options)
{
	options->parallel = options->parallel ? options->parallel : 8;
	options->per_host = options->per_host ? options->per_host : 2;
	options->connect_ms = options->connect_ms ? options->connect_ms : 10000;
	options->stall_ms = options->stall_ms ? options->stall_ms : 30000;
	options->hourly_bytes = options->hourly_bytes ? options->hourly_bytes : UINT64_C(64) << 30;
	options->retry_ms = options->retry_ms ? options->retry_ms : 1000;
	options->retry_after_max_ms = options->retry_after_max_ms ? options->retry_after_max_ms : 30000;
	options->breaker_failures = options->breaker_failures ? options->breaker_failures : 5;
	options->breaker_ms = options->breaker_ms ? options->breaker_ms : 60000;
}

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct err *fetch_start(const struct fetch_options *options, struct fetch **ret)
{
	(void)pthread_once(&global_once, global_init);
	struct fetch *fetch = calloc(1, sizeof(*fetch));
	if (!fetch)
		return err_nomem();
	(void)pthread_mutex_init(&fetch->lock, NULL);
	(void)pthread_cond_init(&fetch->changed, NULL);
	fetch->options = *options;
	set_defaults(&fetch->options);
	fetch->scratch_dir = strdup(options->scratch_dir ? options->scratch_dir : "/var/tmp");
	fetch->multi = curl_multi_init();
	fetch->jitter = random_process_seed() | 1;
	fetch->breakers.failures_max = fetch->options.breaker_failures;
	fetch->breakers.open_ms = fetch->options.breaker_ms;
	fetch->hour_started_ms = fetch_now_ms();
	if (!fetch->scratch_dir || !fetch->multi) {
		fetch_destroy(fetch);
		return err_nomem();
	}
	(void)curl_multi_setopt(fetch->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)fetch->options.per_host);
	int error = pthread_create(&fetch->thread, NULL, fetch_main, fetch);
	if (error) {
		fetch_destroy(fetch);
		return err_os(error, "start the fetch thread");
	}
	fetch->started = true;
	*ret = fetch;
	return NULL;
}

void fetch_stop(struct fetch *fetch)
{
	if (!fetch || !fetch->started)
		return;
	(void)pthread_mutex_lock(&fetch->lock);
	fetch->stopping = true;
	bool join = !fetch->joined;
	fetch->joined = true;
	(void)pthread_mutex_unlock(&fetch->lock);
	(void)curl_multi_wakeup(fetch->multi);
	if (join)
		(void)pthread_join(fetch->thread, NULL);
}

void fetch_destroy(struct fetch *fetch)
{
	if (!fetch)
		return;
	fetch_stop(fetch);
	if (fetch->multi)
		(void)curl_multi_cleanup(fetch->multi);
	(void)pthread_cond_destroy(&fetch->changed);
	(void)pthread_mutex_destroy(&fetch->lock);
	free(fetch->scratch_dir);
	free(fetch);
}

void flight_free(struct flight *flight)
{
	if (flight->result.fd >= 0)
		(void)close(flight->result.fd);
	free(flight->url);
	free(flight->at);
	free(flight);
}

static struct err *flight_create(struct fetch *fetch, const struct fetch_request *request, const char *key, struct flight **ret)
{
	struct flight *flight = calloc(1, sizeof(*flight));

	if (!flight)
		return err_nomem();
	flight->fetch = fetch;
	flight->result.fd = -1;
	flight->url = strdup(request->url);
	flight->at = strdup(request->url);
	if (!flight->url || !flight->at) {
		flight_free(flight);
		return err_nomem();
	}
	(void)snprintf(flight->key, sizeof(flight->key), "%s", key);
	(void)snprintf(flight->if_etag, sizeof(flight->if_etag), "%s", request->etag ? request->etag : "");
	(void)snprintf(flight->if_modified, sizeof(flight->if_modified), "%s", request->last_modified ? request->last_modified : "");
	flight->limit = request->limit ? request->limit : UINT64_C(1) << 30;
	flight->range_from = request->range_from;
	flight->range_len = request->range_len;
	flight->refuse_html = request->refuse_html;
	flight->deadline_ms = fetch_now_ms() + (request->total_ms ? request->total_ms : 600000);
	*ret = flight;
	return NULL;
}

void flight_unlink(struct flight *flight)
{
	struct flight **link = &flight->fetch->flights;

	while (*link != flight)
		link = &(*link)->next;
	*link = flight->next;
}

/* The result for one of its callers; the last one frees the flight. Under the lock. */
static struct err *leave(struct flight *flight, struct fetch_result *ret)
{
	struct err *e = NULL;

	*ret = flight->result;
	if (flight->result.fd >= 0) {
		ret->fd = fcntl(flight->result.fd, F_DUPFD_CLOEXEC, 3);
		if (ret->fd < 0)
			e = err_os(errno, "duplicate a descriptor");
	}
	if (--flight->users > 0)
		return e;
	flight_unlink(flight);
	flight_free(flight);
	return e;
}

static struct flight *find_flight(struct fetch *fetch, const char *key)
{
	struct flight *flight = fetch->flights;

	while (flight && (flight->state == DONE || strcmp(flight->key, key) != 0))
		flight = flight->next;
	return flight;
}

bool fetch_cancel(struct fetch *fetch, struct fetch_cancel *cancel)
{
	(void)pthread_mutex_lock(&fetch->lock);
	bool first = !cancel->is_set;
	cancel->is_set = true;
	(void)pthread_cond_broadcast(&fetch->changed);
	(void)pthread_mutex_unlock(&fetch->lock);
	return first;
}

static struct fetch_result gave_up(enum fetch_answer answer, const char *reason)
{
	struct fetch_result result = {.answer = answer, .fd = -1};

	(void)snprintf(result.reason, sizeof(result.reason), "%s", reason);
	return result;
}

struct err *fetch_run(struct fetch *fetch, const struct fetch_request *request, struct fetch_result *ret)
{
	const char *key = request->key ? request->key : request->url;
	char host[HOST_SIZE];
	struct flight *flight = NULL;

	if (strlen(request->url) > FETCH_URL_MAX || strlen(key) >= FETCH_KEY_SIZE)
		return err_new(ERR_LIMIT, "a URL of more than %d or a key of more than %d bytes", FETCH_URL_MAX, FETCH_KEY_SIZE - 1);
	if (!host_of(request->url, host))
		return err_new(ERR_INVALID, "%.200s: no http or https URL", request->url);
	struct flight *fresh;
	TRY(flight_create(fetch, request, key, &fresh));
	(void)pthread_mutex_lock(&fetch->lock);
	fetch->stats.requests++;
	bool cancelled = request->cancel && request->cancel->is_set;
	flight = find_flight(fetch, key);
	if (cancelled || (!flight && fetch->stopping)) { /* stopping: its thread may be gone, and nobody would end a new flight */
		(void)pthread_mutex_unlock(&fetch->lock);
		flight_free(fresh);
		*ret = cancelled ? gave_up(FETCH_CANCELLED, CANCELLED) : gave_up(FETCH_FAILED, "the server is stopping");
		return NULL;
	}
	if (flight) {
		fetch->stats.joined++;
		race_leave(flight); /* who comes now wants it for another reason */
	} else {
		flight = TAKE_PTR(fresh);
		flight->next = fetch->flights;
		flight->race = request->cancel;
		fetch->flights = flight;
		(void)curl_multi_wakeup(fetch->multi);
	}
	flight->users++;
	while (flight->state != DONE && !(request->cancel && request->cancel->is_set))
		(void)pthread_cond_wait(&fetch->changed, &fetch->lock);
	struct err *e = NULL;
	if (flight->race && flight->race == request->cancel) /* which does not outlive this call */
		race_leave(flight);
	if (flight->state == DONE) {
		fetch->stats.bytes += flight->users == 1 ? flight->result.wire_bytes : 0;
		e = leave(flight, ret);
	} else {
		*ret = gave_up(FETCH_CANCELLED, CANCELLED);
		if (--flight->users == 0)
			(void)curl_multi_wakeup(fetch->multi); /* its thread drops it */
	}
	(void)pthread_mutex_unlock(&fetch->lock);
	if (fresh)
		flight_free(fresh);
	return e;
}

void fetch_result_deinit(struct fetch_result *result)
{
	if (result->fd >= 0)
		(void)close(result->fd);
	result->fd = -1;
}

void fetch_stats(struct fetch *fetch, struct fetch_stats *ret)
{
	(void)pthread_mutex_lock(&fetch->lock);
	*ret = fetch->stats;
	(void)pthread_mutex_unlock(&fetch->lock);
}

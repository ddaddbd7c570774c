// SPDX-License-Identifier: Apache-2.0
/*
 * Fetches what standard input names, one request a line ("url limit threads etag range_from range_len html"), and prints one
 * JSON object a line. Arguments are options as name=number; cancel=N: the first N threads of each request give it up after CANCEL_MS.
 * A URL of several, with | between them, is a race: a thread for each, and the first that has its file cancels the others.
 */
#include "base/digest.h"
#include "base/json.h"
#include "sources/fetch.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { THREADS_MAX = 32, CANCEL_MS = 100 };

struct ask {
	struct fetch *fetch;
	struct fetch_request request;
	struct fetch_result result;
	struct err *e;
	bool is_race;
};

static void *ask_main(void *argument)
{
	struct ask *ask = argument;

	ask->e = fetch_run(ask->fetch, &ask->request, &ask->result);
	if (ask->is_race && !ask->e && ask->result.answer == FETCH_OK)
		(void)fetch_cancel(ask->fetch, ask->request.cancel);
	return NULL;
}

static void put_text(struct json *json, const char *key, const char *value)
{
	json_key(json, key);
	json_text(json, value);
}

static void put_number(struct json *json, const char *key, uint64_t value)
{
	json_key(json, key);
	json_u64(json, value);
}

static void put_digest(struct json *json, const struct fetch_result *result)
{
	struct sha256 digest;
	char hex[SHA256_HEX_SIZE] = "";
	uint8_t *bytes = malloc(result->bytes + 1);

	if (bytes && pread(result->fd, bytes, result->bytes + 1, 0) == (ssize_t)result->bytes) {
		struct err *e = sha256_of(bytes, result->bytes, &digest);
		if (!e)
			sha256_format(&digest, hex);
		err_free(e);
	}
	free(bytes);
	put_text(json, "sha256", hex);
}

static void print(struct ask *ask, uint64_t ms)
{
	CLEANUP(buf_deinit) struct buf line = {0};
	struct json json = json_init(&line);

	json_object_begin(&json);
	if (ask->e) {
		put_text(&json, "error", err_message(ask->e));
	} else {
		put_text(&json, "answer", fetch_answer_name(ask->result.answer));
		put_text(&json, "reason", ask->result.reason);
		put_text(&json, "etag", ask->result.etag);
		put_number(&json, "status", ask->result.status);
		put_number(&json, "attempts", ask->result.attempts);
		put_number(&json, "bytes", ask->result.bytes);
		put_number(&json, "wire_bytes", ask->result.wire_bytes);
		put_number(&json, "retry_after_ms", ask->result.retry_after_ms);
		put_number(&json, "is_range", ask->result.is_range);
		put_number(&json, "ms", ms);
		if (ask->result.fd >= 0)
			put_digest(&json, &ask->result);
		fetch_result_deinit(&ask->result);
	}
	json_object_end(&json);
	err_free(json_finish(&json));
	err_free(ask->e);
	(void)printf("%.*s\n", (int)line.len, (const char *)line.data);
	(void)fflush(stdout);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void run_line(struct fetch *fetch, const char *line, unsigned cancelled)
{
	struct fetch_cancel cancel = {0};
	static struct ask asks[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	char url[1024], etag[128];
	unsigned long long limit, from, len;
	unsigned count, html;

	if (sscanf(line, "%1023s %llu %u %127s %llu %llu %u", url, &limit, &count, etag, &from, &len, &html) != 7 || count > THREADS_MAX)
		exit(2);
	uint64_t started = now_ms();
	char *rest = url;
	bool is_race = strchr(url, '|') != NULL;
	for (unsigned i = 0; i < count; i++) {
		const char *one = is_race ? strsep(&rest, "|") : url;
		if (!one)
			exit(2);
		asks[i] = (struct ask){.fetch = fetch,
			.is_race = is_race,
			.request = {.url = one, .limit = limit, .total_ms = 20000, .etag = strcmp(etag, "-") == 0 ? NULL : etag,
				.range_from = from, .range_len = len, .refuse_html = html, .cancel = is_race || i < cancelled ? &cancel : NULL}};
		if (pthread_create(&threads[i], NULL, ask_main, &asks[i]))
			exit(2);
	}
	if (cancelled > 0) {
		(void)nanosleep(&(struct timespec){.tv_nsec = CANCEL_MS * 1000000L}, NULL);
		if (!fetch_cancel(fetch, &cancel) || fetch_cancel(fetch, &cancel))
			exit(3); /* the first call, and no other, was the first */
	}
	for (unsigned i = 0; i < count; i++)
		(void)pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < count; i++)
		print(&asks[i], now_ms() - started);
}

int main(int argc, char **argv)
{
	struct fetch_options options = {.stall_ms = 1000, .retry_ms = 50, .retry_after_max_ms = 2000, .breaker_ms = 1500, .breaker_failures = 100};
	struct fetch *fetch;
	char line[4096];
	unsigned cancelled = 0;

	for (int i = 1; i < argc; i++) {
		unsigned long long value = strtoull(strchr(argv[i], '=') + 1, NULL, 10);
		if (strncmp(argv[i], "breaker=", 8) == 0)
			options.breaker_failures = (uint32_t)value;
		if (strncmp(argv[i], "hourly=", 7) == 0)
			options.hourly_bytes = value;
		if (strncmp(argv[i], "rate=", 5) == 0)
			options.rate_bytes = value;
		if (strncmp(argv[i], "stall=", 6) == 0)
			options.stall_ms = value;
		if (strncmp(argv[i], "cancel=", 7) == 0)
			cancelled = (unsigned)value;
	}
	struct err *e = fetch_start(&options, &fetch);
	if (e)
		return 1;
	while (fgets(line, sizeof(line), stdin))
		run_line(fetch, line, cancelled);
	fetch_destroy(fetch);
	return 0;
}

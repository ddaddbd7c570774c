// SPDX-License-Identifier: Apache-2.0
#include "sources/breaker.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { BREAKER_DOUBLINGS = 4 };

bool host_of(const char *url, char host[HOST_SIZE])
{
	CURLU *parsed = curl_url();
	char *scheme = NULL, *name = NULL, *port = NULL;
	bool ok = parsed && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
		  curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		  curl_url_get(parsed, CURLUPART_HOST, &name, 0) == CURLUE_OK &&
		  curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
		  (strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0) && strlen(name) < 256;

	if (ok) {
		(void)snprintf(host, HOST_SIZE, "%s://%s:%s", scheme, name, port);
		for (char *c = host; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	}
	curl_free(scheme);
	curl_free(name);
	curl_free(port);
	curl_url_cleanup(parsed);
	return ok;
}

void host_name(const char *host, char name[HOST_SIZE])
{
	const char *begin = strstr(host, "://");

	(void)snprintf(name, HOST_SIZE, "%s", begin ? begin + 3 : host);
	char *colon = strrchr(name, ':');
	if (colon)
		*colon = 0;
}

struct breaker *breaker_of(struct breakers *breakers, const char *url, uint64_t now_ms)
{
	char host[HOST_SIZE] = "";
	struct breaker *oldest = &breakers->items[0];

	(void)host_of(url, host);
	for (size_t i = 0; i < FETCH_HOSTS_MAX; i++) {
		struct breaker *breaker = &breakers->items[i];
		if (breaker->used_ms && strcmp(breaker->host, host) == 0) {
			breaker->used_ms = now_ms;
			return breaker;
		}
		if (breaker->used_ms < oldest->used_ms)
			oldest = breaker;
	}
	*oldest = (struct breaker){.used_ms = now_ms};
	(void)snprintf(oldest->host, sizeof(oldest->host), "%s", host);
	return oldest;
}

void breaker_good(struct breaker *breaker)
{
	breaker->failures = breaker->trips = 0;
	breaker->open_until_ms = 0;
}

void breaker_bad(const struct breakers *breakers, struct breaker *breaker, uint64_t now_ms)
{
	if (++breaker->failures < breakers->failures_max)
		return;
	breaker->open_until_ms = now_ms + (breakers->open_ms << breaker->trips);
	if (breaker->trips < BREAKER_DOUBLINGS)
		breaker->trips++;
}


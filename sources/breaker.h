// SPDX-License-Identifier: Apache-2.0
/* Hosts that fail are left alone for a while. One thread at a time: the fetch thread. Internal to this folder. */
#ifndef CAIRN_SOURCES_BREAKER_H
#define CAIRN_SOURCES_BREAKER_H

#include "sources/fetch.h"

enum { HOST_SIZE = 300 };

struct breaker {
	char host[HOST_SIZE]; /* scheme://host:port */
	unsigned failures;    /* in a row */
	unsigned trips;
	uint64_t open_until_ms, used_ms;
};

struct breakers {
	uint32_t failures_max; /* in a row */
	uint64_t open_ms;
	struct breaker items[FETCH_HOSTS_MAX];
};

/** "https://host:port" of a URL, lower case. False when it is no http or https URL. */
bool host_of(const char *url, char host[HOST_SIZE]);
/** "host" out of "https://host:port". */
void host_name(const char *host, char name[HOST_SIZE]);
/** Of the URL's host; made when there is none yet. O(FETCH_HOSTS_MAX). */
struct breaker *breaker_of(struct breakers *breakers, const char *url, uint64_t now_ms);
void breaker_good(struct breaker *breaker);
/** After failures_max in a row, and after each trial that fails, the host is left alone. */
void breaker_bad(const struct breakers *breakers, struct breaker *breaker, uint64_t now_ms);

#endif

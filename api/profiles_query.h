// SPDX-License-Identifier: Apache-2.0
/*
 * What GET /v1/profiles asks for, from its query string. Internal to api/.
 */
#ifndef CAIRN_API_PROFILES_QUERY_H
#define CAIRN_API_PROFILES_QUERY_H

#include "base/arena.h"
#include "profiles/samples.h"

enum {
	PROFILES_FILTERS_MAX = 64,
	PROFILES_GROUPS_MAX = 16,
	PROFILES_QUERY_BYTES_MAX = 65536,
};

enum profiles_format { PROFILES_JSON, PROFILES_PPROF, PROFILES_FOLDED, PROFILES_CALLGRIND };

struct profiles_query {
	struct samples_query query; /* its texts and arrays are in the arena */
	enum profiles_format format;
};

/**
 * Reads "from=-1h&to=..&type=cpu&filter=service%3Dshop&filter=..&group_by=comm&format=pprof". `filter` and `group_by` may come several
 * times; other parameters, twice the same one, and unknown ones are errors.
 * @param query         after '?', not decoded
 * @param now_unix_nano what relative times count from
 * @return NULL; ERR_INVALID names the parameter; ERR_LIMIT; ERR_NOMEM. Any thread. O(len).
 */
struct err *profiles_query_parse(const char *query, uint64_t now_unix_nano, struct arena *arena, struct profiles_query *ret) MUST_USE;

/**
 * A time as people write it: RFC 3339 ("2026-11-20T23:59:59.5Z", "..+02:00"), seconds since 1970 ("1700000000", "1700000000.25"),
 * relative to now ("-90s", "-15m", "-1h", "-7d"), or "now".
 * @return false: none of these, or not between 1970 and 2554
 */
bool profiles_time_parse(const char *text, uint64_t now_unix_nano, uint64_t *unix_nano_ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/* The query string of GET /v1/profiles. */
#include "api/profiles_query.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = {0};
	struct profiles_query query;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	struct err *e = profiles_query_parse(text, 1700000000000000000, &arena, &query);
	if (!e) {
		const struct samples_query *q = &query.query;
		if (q->filter_count > PROFILES_FILTERS_MAX || q->group_count > PROFILES_GROUPS_MAX)
			abort();
		if (q->to_unix_nano && q->to_unix_nano <= q->from_unix_nano)
			abort();
		for (size_t i = 0; i < q->filter_count; i++)
			if (q->filters[i].key.len == 0)
				abort();
	} else if (err_code(e) != ERR_INVALID && err_code(e) != ERR_LIMIT && err_code(e) != ERR_NOMEM) {
		abort();
	}
	err_free(e);
	free(text);
	arena_deinit(&arena);
	return 0;
}

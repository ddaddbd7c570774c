// SPDX-License-Identifier: Apache-2.0
/* A runtime's map of its code, by a stranger, in two pieces. What is found must be text of the map's. */
#include "agent/perf_map.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct perf_map map = {0};
	size_t half = size / 2, taken = 0;

	if (size == 0)
		return 0;
	struct err *e = perf_map_add(&map, (const char *)data, half, &taken);
	if (!e)
		e = perf_map_add(&map, (const char *)data + taken, size - taken, &taken);
	err_free(e);
	for (size_t i = 0; i < map.count; i++) {
		const char *name = perf_map_find(&map, map.entries[i].start);
		if (!name || name < map.names || name + strlen(name) >= map.names + map.names_len || strlen(name) > PERF_MAP_NAME_MAX)
			abort();
		if (i > 0 && map.entries[i - 1].start >= map.entries[i].start)
			abort();
	}
	(void)perf_map_find(&map, data[0]);
	perf_map_deinit(&map);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/* Lines that the agent reads from /proc and /sys: of maps, and the list of CPUs. What is taken keeps its promises. */
#include "agent/cpus.h"
#include "agent/proc_maps.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(freep) char *line = malloc(size + 1);
	struct proc_map map;
	struct cpu_set set;

	if (!line)
		return 0;
	memcpy(line, data, size);
	line[size] = 0;
	if (proc_map_parse(line, &map) && (map.start >= map.end || map.path < line || map.path > line + size))
		abort();
	err_free(cpus_parse(line, &set));
	return 0;
}

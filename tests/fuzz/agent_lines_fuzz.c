// SPDX-License-Identifier: Apache-2.0
/* What the agent reads from /proc and /sys: lines of maps, the list of CPUs, cgroups. What is taken keeps its promises. */
#include "agent/container.h"
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
	struct container container;
	char name[CONTAINER_UNIT_MAX + 1];

	if (!line)
		return 0;
	memcpy(line, data, size);
	line[size] = 0;
	if (proc_map_parse(line, &map) && (map.start >= map.end || map.path < line || map.path > line + size))
		abort();
	err_free(cpus_parse(line, &set));
	container_parse(line, size, &container);
	if (strlen(container.id) > CONTAINER_ID_MAX || strlen(container.unit) > CONTAINER_UNIT_MAX || strlen(container.pod_uid) > CONTAINER_POD_UID_LEN)
		abort();
	(void)container_unit_service(container.unit, name);
	return 0;
}

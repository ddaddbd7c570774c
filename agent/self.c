// SPDX-License-Identifier: Apache-2.0
#include "agent/self.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static uint64_t ns_of(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_usec * 1000;
}

void self_usage(uint64_t *user_ns_ret, uint64_t *system_ns_ret, uint64_t *resident_bytes_ret)
{
	struct rusage usage = {0};
	unsigned long all = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	(void)getrusage(RUSAGE_SELF, &usage);
	*user_ns_ret = ns_of(&usage.ru_utime);
	*system_ns_ret = ns_of(&usage.ru_stime);
	if (file && fscanf(file, "%lu %lu", &all, &resident) != 2)
		resident = 0;
	if (file)
		(void)fclose(file);
	*resident_bytes_ret = (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

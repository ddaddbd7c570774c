// SPDX-License-Identifier: Apache-2.0
/* Which CPUs are online: the kernel's list `0-3,7,9-11` (cpu(5) of sysfs: devices/system/cpu/online). */
#ifndef CAIRN_AGENT_CPUS_H
#define CAIRN_AGENT_CPUS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { CPUS_MAX = 1024 };

struct cpu_set {
	bool is_online[CPUS_MAX];
};

/** Parses such a list, with or without a newline. ERR_FORMAT; ERR_LIMIT: a CPU past CPUS_MAX. */
struct err *cpus_parse(const char *list, struct cpu_set *ret) MUST_USE;
/** Reads @p sysfs/devices/system/cpu/online. ERR_OS, and those of cpus_parse. */
struct err *cpus_read(const char *sysfs, struct cpu_set *ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * CAP_SYS_ADMIN includes CAP_BPF, CAP_PERFMON (5.8) and CAP_CHECKPOINT_RESTORE (5.9), for the kernel asks for either. CAP_SYS_PTRACE
 * opens other users' /proc/PID; CAP_SYSLOG shows addresses in kallsyms (without it kernel frames have no names: no error).
 */
#include "agent/privilege.h"

#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t privilege_effective(void)
{
	char line[256];
	uint64_t value = 0;
	FILE *file = fopen("/proc/self/status", "re");

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "CapEff:", 7) == 0)
			value = strtoull(line + 7, NULL, 16);
	(void)fclose(file);
	return value;
}

static bool has(uint64_t capabilities, unsigned capability)
{
	return capabilities >> capability & 1;
}

struct err *privilege_check(uint64_t capabilities)
{
	static const struct {
		unsigned capability;
		bool in_admin;
		const char *name;
	} needed[] = {
		{CAP_BPF, true, "CAP_BPF"},
		{CAP_PERFMON, true, "CAP_PERFMON"},
		{CAP_SYS_PTRACE, false, "CAP_SYS_PTRACE"},
		{CAP_CHECKPOINT_RESTORE, true, "CAP_CHECKPOINT_RESTORE"},
	};
	char missing[256] = "";

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (has(capabilities, needed[i].capability) || (needed[i].in_admin && has(capabilities, CAP_SYS_ADMIN)))
			continue;
		size_t len = strlen(missing);
		snprintf(missing + len, sizeof(missing) - len, "%s%s", len ? ", " : "", needed[i].name);
	}
	if (missing[0] == 0)
		return NULL;
	return err_new(ERR_UNSUPPORTED, "missing capabilities: %s; run as root or grant them (setcap, AmbientCapabilities=)", missing);
}

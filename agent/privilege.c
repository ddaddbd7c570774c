// SPDX-License-Identifier: Apache-2.0
/*
 * Found by runs with one capability less each (tests/agent/privileges.py): CAP_SYS_ADMIN includes CAP_BPF, CAP_PERFMON (5.8) and
 * CAP_CHECKPOINT_RESTORE (5.9), for the kernel asks for either. /proc/PID/maps asks for CAP_SYS_PTRACE; /proc/PID/map_files is a folder of
 * the process's owner (CAP_DAC_READ_SEARCH) whose links ask for CAP_CHECKPOINT_RESTORE too; without one of them files are
 * opened by their paths.
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

static bool has(uint64_t capabilities, unsigned capability, bool in_admin)
{
	return (capabilities >> capability & 1) || (in_admin && (capabilities >> CAP_SYS_ADMIN & 1));
}

struct err *privilege_check(uint64_t capabilities)
{
	static const struct {
		unsigned capability;
		bool in_admin;
		const char *name;
	} needed[] = {
		{CAP_BPF, true, "CAP_BPF (to load the sampling program)"},
		{CAP_PERFMON, true, "CAP_PERFMON (to run it on every CPU)"},
		{CAP_SYS_PTRACE, false, "CAP_SYS_PTRACE (to see what other processes have mapped)"},
	};
	char missing[256] = "";

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (has(capabilities, needed[i].capability, needed[i].in_admin))
			continue;
		size_t len = strlen(missing);
		snprintf(missing + len, sizeof(missing) - len, "%s%s", len ? ", " : "", needed[i].name);
	}
	if (missing[0] == 0)
		return NULL;
	return err_new(ERR_UNSUPPORTED, "missing capabilities: %s; run as root or grant them (setcap, AmbientCapabilities=)", missing);
}

const char *privilege_lack(uint64_t capabilities, bool is_root, unsigned i)
{
	const struct {
		bool is_there;
		const char *words;
	} wished[PRIVILEGE_LACKS_MAX] = {
		{has(capabilities, CAP_CHECKPOINT_RESTORE, true),
			"CAP_CHECKPOINT_RESTORE is missing: files are opened by their paths, so that those deleted or replaced since are not unwound"},
		{is_root || has(capabilities, CAP_DAC_READ_SEARCH, false),
			"CAP_DAC_READ_SEARCH is missing: files and environments that only their owners may read are not, nor deleted files: no unwinding there, no service names"},
		{has(capabilities, CAP_SYSLOG, false), "CAP_SYSLOG is missing: kernel functions may stay addresses"},
	};

	return i < PRIVILEGE_LACKS_MAX && !wished[i].is_there ? wished[i].words : NULL;
}

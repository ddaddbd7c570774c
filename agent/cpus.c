// SPDX-License-Identifier: Apache-2.0
#include "agent/cpus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool number(const char **at, unsigned long *ret)
{
	char *end = NULL;

	if (**at < '0' || **at > '9')
		return false;
	*ret = strtoul(*at, &end, 10);
	*at = end;
	return true;
}

struct err *cpus_parse(const char *list, struct cpu_set *ret)
{
	struct cpu_set set = {0};
	const char *at = list;

	while (*at && *at != '\n') {
		unsigned long first = 0, last = 0;
		if (!number(&at, &first))
			return err_new(ERR_FORMAT, "list of CPUs: no number at byte %td", at - list);
		last = first;
		if (*at == '-') {
			at++;
			if (!number(&at, &last) || last < first)
				return err_new(ERR_FORMAT, "list of CPUs: no range at byte %td", at - list);
		}
		if (last >= CPUS_MAX)
			return err_new(ERR_LIMIT, "CPU %lu: at most %d are handled", last, CPUS_MAX);
		for (unsigned long cpu = first; cpu <= last; cpu++)
			set.is_online[cpu] = true;
		if (*at == ',')
			at++;
		else if (*at && *at != '\n')
			return err_new(ERR_FORMAT, "list of CPUs: unexpected character at byte %td", at - list);
	}
	*ret = set;
	return NULL;
}

struct err *cpus_read(const char *sysfs, struct cpu_set *ret)
{
	char path[512], list[8192];

	if (snprintf(path, sizeof(path), "%s/devices/system/cpu/online", sysfs) >= (int)sizeof(path))
		return err_new(ERR_LIMIT, "path of sysfs: more than %zu bytes", sizeof(path));
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, list, sizeof(list) - 1) : -1;
	if (len < 0)
		return err_os(errno, "%s", path);
	list[len] = 0;
	return err_wrap(cpus_parse(list, ret), "%s", path);
}

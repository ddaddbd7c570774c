// SPDX-License-Identifier: Apache-2.0
/*
 * One line of /proc/PID/maps (proc(5)): `start-end perms offset major:minor inode path`. Paths may hold anything but a
 * newline, which the kernel writes as \012.
 */
#ifndef CAIRN_AGENT_PROC_MAPS_H
#define CAIRN_AGENT_PROC_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct proc_map {
	uint64_t start, end, foff, inode;
	uint32_t major, minor; /* of the device */
	bool executable;
	const char *path; /* in the line; "" when there is none */
};

/** Parses one NUL-terminated line without its newline. False: not such a line, or start is not below end. */
bool proc_map_parse(const char *line, struct proc_map *ret);

#endif

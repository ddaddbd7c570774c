// SPDX-License-Identifier: Apache-2.0
/*
 * Which container a process is in, by its cgroup: the text of /proc/PID/cgroup (cgroups(7)), v1 and v2, as docker, containerd, CRI-O,
 * podman, LXC, Kubernetes (either cgroup driver), ECS and systemd-nspawn lay it out.
 */
#ifndef CAIRN_AGENT_CONTAINER_H
#define CAIRN_AGENT_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>

enum { CONTAINER_ID_MAX = 64, CONTAINER_UNIT_MAX = 127, CONTAINER_POD_UID_LEN = 36 };

struct container {
	char id[CONTAINER_ID_MAX + 1];		 /* 64 hex digits, or a machine's name (nspawn, LXC); "": in none */
	const char *runtime;			 /* "docker", "containerd", "cri-o", "podman", "nspawn", "lxc"; "" when the path does not say */
	char pod_uid[CONTAINER_POD_UID_LEN + 1]; /* with dashes, or the 32 hex digits of a static pod; "" */
	char unit[CONTAINER_UNIT_MAX + 1];	 /* the innermost systemd service or scope: "nginx.service"; "" */
};

/**
 * Always fills @p ret. Of nested containers the innermost counts; of several hierarchies the first that names a container.
 * @param text  of @p len bytes, from anybody: no terminating NUL is needed
 */
void container_parse(const char *text, size_t len, struct container *ret);

/** The unit without its type, as a service's name: "nginx" of "nginx.service". False when it names a session, not a service. */
bool container_unit_service(const char *unit, char name[CONTAINER_UNIT_MAX + 1]);

#endif

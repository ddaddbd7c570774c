// SPDX-License-Identifier: Apache-2.0
/*
 * What samples of a process are labelled with: its program, its service, its container. Read from /proc when its first
 * sample comes, and again when it may have executed another program. A process that is gone by then has its number only. One thread.
 *
 * The service's name is the first of: OTEL_SERVICE_NAME, service.name of OTEL_RESOURCE_ATTRIBUTES (both as the process was
 * started with), the systemd service that it runs in, the program's name.
 */
#ifndef CAIRN_AGENT_PROCESSES_H
#define CAIRN_AGENT_PROCESSES_H

#include "agent/container.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PROCESSES_LABELS_MAX = 24,
	PROCESSES_MAX = 65536,		 /* known at a time; more are read again each time */
	PROCESSES_ENVIRON_MAX = 128 << 10, /* bytes of an environment that are looked at */
	PROCESSES_TEXT_MAX = 1024,	 /* of a label's value; more is cut */
	PROCESSES_FRESH_MS = 1000,	 /* not read again within it */
};

struct process_label {
	const char *key, *value;
};

/* All texts "" when unknown. */
struct process_info {
	uint32_t serial; /* another when anything below is another */
	uint32_t pid;
	const char *executable, *executable_path; /* base name; as the process sees it */
	const char *service;
	struct container container;
	struct process_label labels[PROCESSES_LABELS_MAX];
	size_t label_count;
};

struct processes;
/** @param proc  "/proc", or a folder like it for tests; borrowed */
struct err *processes_create(const char *proc, struct processes **ret) MUST_USE;
void processes_destroy(struct processes *processes);
/** Borrowed until the next call of any of these. ERR_NOMEM. Cost: once a process some three small files. */
struct err *processes_get(struct processes *processes, uint32_t pid, uint64_t now_ms, const struct process_info **ret) MUST_USE;
/** It may have executed another program. */
void processes_changed(struct processes *processes, uint32_t pid);
void processes_gone(struct processes *processes, uint32_t pid);
size_t processes_count(const struct processes *processes);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * What the kernel tells of processes through perf's side band: fork, exec, executable mmap, exit, on one CPU. No samples.
 * Source: perf_event_open(2). Used by this folder only.
 */
#ifndef CAIRN_AGENT_EVENTS_H
#define CAIRN_AGENT_EVENTS_H

#include "agent/proc_maps.h"
#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { EVENTS_RING_PAGES = 64 };

struct events {
	int fd;
	void *ring; /* control page, then EVENTS_RING_PAGES */
};

struct events_handler {
	struct err *(*changed)(void *context, uint32_t pid);
	/* Before `changed`, where they are set: what began. */
	struct err *(*forked)(void *context, uint32_t pid, uint32_t parent);
	struct err *(*execed)(void *context, uint32_t pid);
	struct err *(*mapped)(void *context, uint32_t pid, const struct proc_map *map);
	struct err *(*gone)(void *context, uint32_t pid);
	struct err *(*lost)(void *context, uint64_t events);
	void *context;
};

/** ERR_OS. */
struct err *events_open(int cpu, struct events *ret) MUST_USE;
void events_close(struct events *events);

/* Records of all CPUs, by time. Zeroed is empty. */
struct events_queue {
	struct buf bytes;
	struct events_item {
		uint64_t time_ns;
		size_t offset; /* of its record in bytes */
	} *items;
	size_t count, cap, next;
};

/** Moves all that is there into the queue. ERR_NOMEM. */
struct err *events_take(struct events *events, struct events_queue *queue) MUST_USE;
/** Puts what was taken in order: call it when all CPUs have been taken. */
void events_sort(struct events_queue *queue);
/** Hands out what happened at or before @p time_ns (CLOCK_MONOTONIC); empties the queue when all is handed out. Errors of @p handler. */
struct err *events_hand_out(struct events_queue *queue, uint64_t time_ns, const struct events_handler *handler) MUST_USE;
void events_queue_deinit(struct events_queue *queue);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Reports of samples in memory, oldest first, from when they are made until the server has acknowledged them. Bounded in bytes:
 * the oldest gives way. One thread.
 */
#ifndef CAIRN_AGENT_QUEUE_H
#define CAIRN_AGENT_QUEUE_H

#include "agent/things.h"

struct report {
	uint64_t sequence, period_ns;
	uint64_t made_ms;      /* CLOCK_MONOTONIC */
	struct things *things; /* a reference */
	uint32_t type;
	bool sent;	   /* on the connection that there is */
	uint8_t failures; /* connections that the server ended, and refusals, while it was under way */
	struct agent_sample *samples; /* owned */
	size_t count;
	struct report *next;
};

void report_destroy(struct report *report);

struct queue {
	struct report *first, **end;
	size_t count, bytes, sent;
};

void queue_init(struct queue *queue);
void queue_deinit(struct queue *queue);
void queue_push(struct queue *queue, struct report *take_report);
/** Takes out the oldest; NULL when there is none. */
struct report *queue_pop(struct queue *queue);
/** Takes out the one of that number; NULL when there is none. O(count). */
struct report *queue_take(struct queue *queue, uint64_t sequence);
/** The oldest that is not sent, or NULL. */
struct report *queue_waiting(const struct queue *queue);
void queue_set_sent(struct queue *queue, struct report *report, bool sent);
struct report *queue_find(const struct queue *queue, uint64_t sequence);

#endif

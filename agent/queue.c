// SPDX-License-Identifier: Apache-2.0
#include "agent/queue.h"

#include <stdlib.h>

void report_destroy(struct report *report)
{
	if (!report)
		return;
	things_release(report->things);
	free(report->samples);
	free(report);
}

static size_t bytes_of(const struct report *report)
{
	return sizeof(*report) + report->count * sizeof(*report->samples);
}

void queue_init(struct queue *queue)
{
	*queue = (struct queue){0};
	queue->end = &queue->first;
}

void queue_deinit(struct queue *queue)
{
	for (struct report *report = queue_pop(queue); report; report = queue_pop(queue))
		report_destroy(report);
}

void queue_push(struct queue *queue, struct report *take_report)
{
	take_report->next = NULL;
	*queue->end = take_report;
	queue->end = &take_report->next;
	queue->count++;
	queue->bytes += bytes_of(take_report);
	queue->sent += take_report->sent;
}

static struct report *unlink_at(struct queue *queue, struct report **at)
{
	struct report *report = *at;

	*at = report->next;
	if (queue->end == &report->next)
		queue->end = at;
	queue->count--;
	queue->bytes -= bytes_of(report);
	queue->sent -= report->sent;
	return report;
}

struct report *queue_pop(struct queue *queue)
{
	return queue->first ? unlink_at(queue, &queue->first) : NULL;
}

struct report *queue_take(struct queue *queue, uint64_t sequence)
{
	for (struct report **at = &queue->first; *at; at = &(*at)->next)
		if ((*at)->sequence == sequence)
			return unlink_at(queue, at);
	return NULL;
}

struct report *queue_find(const struct queue *queue, uint64_t sequence)
{
	struct report *report = queue->first;

	while (report && report->sequence != sequence)
		report = report->next;
	return report;
}

struct report *queue_waiting(const struct queue *queue)
{
	struct report *report = queue->sent < queue->count ? queue->first : NULL;

	while (report && report->sent)
		report = report->next;
	return report;
}

void queue_set_sent(struct queue *queue, struct report *report, bool sent)
{
	queue->sent += (size_t)sent - (size_t)report->sent;
	report->sent = sent;
}

// SPDX-License-Identifier: Apache-2.0
/* Sets of four by thread ID, so that no thread can push out more than three others, and nothing grows. */
#include "agent/off_cpu.h"

#include <stdlib.h>
#include <string.h>

enum { WAYS = 4 };

struct waiting {
	struct sample_head *record; /* NULL: free */
	size_t bytes;
};

struct off_cpu {
	struct waiting sets[OFF_CPU_SETS][WAYS];
	size_t bytes;
	struct sample_head *given; /* the last that off_cpu_end returned */
	struct off_cpu_counters counters;
};

struct err *off_cpu_create(struct off_cpu **ret)
{
	struct off_cpu *o = calloc(1, sizeof(*o));

	if (!o)
		return err_nomem();
	*ret = o;
	return NULL;
}

static struct sample_head *take(struct off_cpu *o, struct waiting *w)
{
	struct sample_head *record = w->record;

	o->bytes -= w->bytes;
	o->counters.waiting--;
	*w = (struct waiting){0};
	return record;
}

static void drop(struct off_cpu *o, struct waiting *w)
{
	free(take(o, w));
	o->counters.dropped++;
}

void off_cpu_destroy(struct off_cpu *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < OFF_CPU_SETS; i++)
		for (size_t k = 0; k < WAYS; k++)
			free(o->sets[i][k].record);
	free(o->given);
	free(o);
}

static struct waiting *set_of(struct off_cpu *o, uint32_t tid)
{
	return o->sets[tid % OFF_CPU_SETS];
}

void off_cpu_begin(struct off_cpu *o, const struct sample_head *head)
{
	struct waiting *set = set_of(o, head->tid), *place = &set[0];
	size_t bytes = sizeof(*head) + ((size_t)head->frame_count + head->kernel_count) * sizeof(uint64_t) + head->cut_bytes;

	for (size_t i = 0; i < WAYS; i++) {
		if (set[i].record && set[i].record->tid == head->tid) { /* its end was lost */
			place = &set[i];
			break;
		}
		if (place->record && (!set[i].record || set[i].record->time_ns < place->record->time_ns))
			place = &set[i];
	}
	if (place->record)
		drop(o, place);
	struct sample_head *record = o->bytes + bytes <= OFF_CPU_BYTES_MAX ? malloc(bytes) : NULL;
	if (!record) {
		o->counters.dropped++;
		return;
	}
	memcpy(record, head, bytes);
	*place = (struct waiting){.record = record, .bytes = bytes};
	o->bytes += bytes;
	o->counters.waiting++;
}

const struct sample_head *off_cpu_end(struct off_cpu *o, const struct sample_head *end)
{
	struct waiting *set = set_of(o, end->tid);

	for (size_t i = 0; i < WAYS; i++) {
		if (!set[i].record || set[i].record->tid != end->tid || set[i].record->time_ns != end->time_ns)
			continue;
		free(o->given);
		o->given = take(o, &set[i]);
		o->given->value = end->value;
		return o->given;
	}
	o->counters.unmatched++;
	return NULL;
}

void off_cpu_counters(const struct off_cpu *o, struct off_cpu_counters *ret)
{
	*ret = o->counters;
}

// SPDX-License-Identifier: Apache-2.0
/* What samples of each kind count, in words: of every profile that leaves the agent, whatever its format. */
#ifndef CAIRN_AGENT_KINDS_H
#define CAIRN_AGENT_KINDS_H

#include "agent/shared.h"

#include <stddef.h>
#include <stdint.h>

struct kind {
	const char *type, *unit;
	const char *period_type, *period_unit; /* NULL: samples without a clock */
};

/** @p number below SAMPLE_KINDS. The names are those of OpenTelemetry's eBPF profiler. */
static inline const struct kind *kind_of(uint32_t number)
{
	static const struct kind kinds[SAMPLE_KINDS] = {[SAMPLE_CPU] = {"samples", "count", "cpu", "nanoseconds"},
		[SAMPLE_OFF_CPU] = {"off_cpu", "nanoseconds", NULL, NULL},
		[SAMPLE_EVENT] = {"events", "count", NULL, NULL}};

	return &kinds[number];
}

#endif

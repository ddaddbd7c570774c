// SPDX-License-Identifier: Apache-2.0
/*
 * cairn.v1.Agent/Stream over net: one profiles/stream per call, its batches committed, its acknowledgements sent. Internal to api/.
 */
#ifndef CAIRN_API_AGENT_STREAM_H
#define CAIRN_API_AGENT_STREAM_H

#include "api/agents.h"
#include "net/grpc.h"

#include <stdatomic.h>

struct metrics_page;

enum {
	AGENT_STREAMS_MAX = 4096,     /* at once: past it UNAVAILABLE */
	AGENT_ENVELOPES_PER_S = 2000, /* of a stream: past it a `pace`, and nothing is read until the next second */
	AGENT_WANTED_MAX = 4096,      /* executables of a stream that wait to be looked at: more are not asked for */
};

struct api_agent_counters {
	struct stream_counters stream;
	_Atomic uint64_t streams_open; /* gauge */
	_Atomic uint64_t streams, refused, paced, busy, wanted, commits_failed, unread, unread_ended;
};

/** The method; its dispatch's user is the struct api. */
extern const struct net_grpc_method api_agent_stream_method;

void api_agent_metrics_write(const struct api_agent_counters *counters, struct api_agents *agents, struct metrics_page *page);

#endif

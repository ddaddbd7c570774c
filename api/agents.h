// SPDX-License-Identifier: Apache-2.0
/*
 * Who sends: what agents say of themselves, for GET /v1/agents. An agent is known by the instance of its hello. The list is in memory; what
 * is new of an agent is written beside the samples at once, what changes all the time every 10 s, so that it is there after a restart.
 * Any thread.
 */
#ifndef CAIRN_API_AGENTS_H
#define CAIRN_API_AGENTS_H

#include "base/buf.h"
#include "profiles/stream.h"

enum {
	API_AGENTS_MAX = 4096, /* past it the one that was away longest is forgotten; when none is away, new ones are not listed */
	API_AGENT_TEXT_SIZE = 128, /* longer ones are cut */
	API_AGENT_LOSSES_MAX = 24, /* reasons of losses, and as many of cuts; more are added up as "other" */
};

struct api_agents;
/* One agent in the list; good until api_agents_left. */
struct api_agent;

/** With what was kept. @p samples: borrowed until api_agents_destroy; NULL: nothing is kept. Errors of samples_senders. */
struct err *api_agents_create(struct samples *samples, struct api_agents **ret) MUST_USE;
/** Hands in what is not written yet. */
void api_agents_save(struct api_agents *agents);
/** NULL is fine. */
void api_agents_destroy(struct api_agents *agents);

/** A stream of an agent has begun. NULL when it is not listed: the other functions take that. @p peer: its address. */
struct api_agent *api_agents_came(struct api_agents *agents, const struct agent_hello *hello, const char *peer);
void api_agents_left(struct api_agents *agents, struct api_agent *agent);
void api_agents_status(struct api_agents *agents, struct api_agent *agent, const struct agent_status *status);
/** @p samples more are durable. */
void api_agents_samples(struct api_agents *agents, struct api_agent *agent, uint64_t samples);

/* A sender of OTLP profiles: "" is not known. */
struct api_otlp_sender {
	char agent[API_AGENT_TEXT_SIZE], version[API_AGENT_TEXT_SIZE]; /* of the instrumentation scope */
	char host[API_AGENT_TEXT_SIZE], host_id[API_AGENT_TEXT_SIZE], machine[API_AGENT_TEXT_SIZE], os[API_AGENT_TEXT_SIZE];
	uint64_t samples; /* more that are durable, those sent again included */
};
/** Heard of a sender, who is known by its host (where it says none, its address @p peer) and its agent. */
void api_agents_otlp(struct api_agents *agents, const char *peer, const struct api_otlp_sender *sender);

/** How many have a stream now, and all that are listed. */
void api_agents_count(struct api_agents *agents, uint64_t *connected_ret, uint64_t *listed_ret);
/** {"agents":[..]}, the last seen first. */
struct err *api_agents_write(struct api_agents *agents, struct buf *ret) MUST_USE;

#endif

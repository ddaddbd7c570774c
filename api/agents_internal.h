// SPDX-License-Identifier: Apache-2.0
/* One agent as the list has it. Internal to api/agents*.c. */
#ifndef CAIRN_API_AGENTS_INTERNAL_H
#define CAIRN_API_AGENTS_INTERNAL_H

#include "api/agents.h"
#include "base/json.h"

struct api_agent_loss {
	char reason[32];
	uint64_t count;
};

struct api_agent_losses {
	struct api_agent_loss items[API_AGENT_LOSSES_MAX];
	uint32_t count;
};

struct api_agent {
	uint8_t instance[AGENT_INSTANCE_BYTES];
	bool otlp;
	/* agent: the name of its program, where it says one; os: of OTLP's resources */
	char agent[API_AGENT_TEXT_SIZE], version[API_AGENT_TEXT_SIZE], host[API_AGENT_TEXT_SIZE], host_id[API_AGENT_TEXT_SIZE],
		kernel[API_AGENT_TEXT_SIZE], machine[API_AGENT_TEXT_SIZE], os[API_AGENT_TEXT_SIZE], peer[API_AGENT_TEXT_SIZE];
	uint32_t cpus, streams;
	uint64_t connects, first_seen_ms, last_seen_ms, samples;
	bool has_status;
	struct agent_status status; /* without its losses */
	struct api_agent_losses lost, cut;
	uint64_t saved_ms; /* when its record was handed in last */
	bool changed;	   /* since then */
};

/** Appends what is kept of an agent over restarts: a protobuf message of agents_record.c's own. ERR_NOMEM. */
struct err *api_agent_encode(const struct api_agent *agent, struct buf *ret) MUST_USE;
/** The same back; members that are not known are passed over. ERR_CORRUPT: no such message. */
struct err *api_agent_decode(const void *record, size_t len, struct api_agent *ret) MUST_USE;
/** Cuts to API_AGENT_TEXT_SIZE. */
void api_agent_copy_text(char ret[API_AGENT_TEXT_SIZE], const void *bytes, size_t len);

/** An element of /v1/agents. */
void api_agent_write(struct json *json, const struct api_agent *agent);

#endif

// SPDX-License-Identifier: Apache-2.0
/* An agent in the words of GET /v1/agents (docs/http-api.md). */
#include "api/agents_internal.h"
#include "base/hex.h"

static void write_losses(struct json *json, const char *key, const struct api_agent_losses *losses)
{
	json_key(json, key);
	json_array_begin(json);
	for (uint32_t i = 0; i < losses->count; i++) {
		json_object_begin(json);
		json_key(json, "reason");
		json_text(json, losses->items[i].reason);
		json_key(json, "samples");
		json_text_u64(json, losses->items[i].count);
		json_object_end(json);
	}
	json_array_end(json);
}

static void write_status(struct json *json, const struct api_agent *agent)
{
	const struct agent_status *status = &agent->status;

	json_key(json, "cpu_user_ns");
	json_text_u64(json, status->cpu_user_ns);
	json_key(json, "cpu_system_ns");
	json_text_u64(json, status->cpu_system_ns);
	json_key(json, "bpf_ns");
	json_text_u64(json, status->bpf_ns);
	json_key(json, "memory_bytes");
	json_text_u64(json, status->memory_bytes);
	json_key(json, "bpf_map_bytes");
	json_text_u64(json, status->bpf_map_bytes);
	json_key(json, "samples_taken");
	json_text_u64(json, status->samples);
	json_key(json, "queued_bytes");
	json_text_u64(json, status->queued_bytes);
	json_key(json, "spooled_bytes");
	json_text_u64(json, status->spooled_bytes);
	json_key(json, "status_unix_ms");
	json_text_u64(json, status->time_unix_nano / 1000000);
	write_losses(json, "lost", &agent->lost);
	write_losses(json, "cut", &agent->cut);
}

void api_agent_write(struct json *json, const struct api_agent *agent)
{
	const struct {
		const char *key, *value;
	} texts[] = {{"agent", agent->agent}, {"version", agent->version}, {"host", agent->host}, {"host_id", agent->host_id},
		{"kernel", agent->kernel}, {"machine", agent->machine}, {"os", agent->os}, {"peer", agent->peer}};
	char instance[2 * AGENT_INSTANCE_BYTES + 1];

	hex_format(agent->instance, AGENT_INSTANCE_BYTES, instance);
	json_object_begin(json);
	json_key(json, "protocol");
	json_text(json, agent->otlp ? "otlp" : "stream");
	json_key(json, "instance");
	json_text(json, instance);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (!texts[i].value[0])
			continue;
		json_key(json, texts[i].key);
		json_text(json, texts[i].value);
	}
	if (agent->cpus) {
		json_key(json, "cpus");
		json_u64(json, agent->cpus);
	}
	json_key(json, "streams");
	json_u64(json, agent->streams);
	json_key(json, "connects");
	json_u64(json, agent->connects);
	json_key(json, "first_seen_unix_ms");
	json_text_u64(json, agent->first_seen_ms);
	json_key(json, "last_seen_unix_ms");
	json_text_u64(json, agent->last_seen_ms);
	json_key(json, "samples");
	json_text_u64(json, agent->samples);
	if (agent->has_status)
		write_status(json, agent);
	json_object_end(json);
}

// SPDX-License-Identifier: Apache-2.0
/* GET /v1/agents, and what /metrics says of agents. */
#include "api/agent_stream.h"
#include "api/call.h"

static struct err *list(struct call *call, struct net_reply *reply)
{
	call_json(reply, 200);
	return api_agents_write(call->api->agents, &reply->body);
}

void agents_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_AGENTS, api->questions, list, 0);
}

void api_agent_metrics_write(const struct api_agent_counters *counters, struct api_agents *agents, struct metrics_page *page)
{
	const struct stream_counters *stream = &counters->stream;
	const struct {
		const char *name, *type, *help;
		const _Atomic uint64_t *value;
	} rows[] = {
		{"cairn_agent_streams_open", "gauge", "Streams of agents.", &counters->streams_open},
		{"cairn_agent_streams_total", "counter", "Streams begun.", &counters->streams},
		{"cairn_agent_streams_refused_total", "counter", "Streams refused: too many.", &counters->refused},
		{"cairn_agent_paced_total", "counter", "Times that a stream sent too many envelopes a second.", &counters->paced},
		{"cairn_agent_unread_total", "counter", "Times that a stream's client did not read what it was told.", &counters->unread},
		{"cairn_agent_unread_ended_total", "counter", "Streams broken off for it.", &counters->unread_ended},
		{"cairn_agent_busy_total", "counter", "Times that a batch had to wait for the store.", &counters->busy},
		{"cairn_agent_wanted_total", "counter", "Files whose symbols were asked for.", &counters->wanted},
		{"cairn_agent_commits_failed_total", "counter", "Batches that could not be stored.", &counters->commits_failed},
		{"cairn_agent_envelopes_total", "counter", "Envelopes.", &stream->envelopes},
		{"cairn_agent_definitions_total", "counter", "Envelopes of definitions.", &stream->definitions},
		{"cairn_agent_samples_total", "counter", "Samples taken in, those that were there before included.", &stream->samples},
		{"cairn_agent_acknowledged_total", "counter", "Envelopes of samples acknowledged.", &stream->acknowledged},
		{"cairn_agent_duplicates_total", "counter", "Envelopes that were durable before.", &stream->duplicates},
		{"cairn_agent_rejected_future_total", "counter", "Samples later than now.", &stream->rejected_future},
		{"cairn_agent_rejected_old_total", "counter", "Samples older than what is kept.", &stream->rejected_old},
		{"cairn_agent_needs_samples_total", "counter", "Envelopes of samples with unknown numbers.", &stream->needs_samples},
		{"cairn_agent_needs_definitions_total", "counter", "Definitions with unknown numbers.", &stream->needs_definitions},
		{"cairn_agent_forgotten_total", "counter", "Times that a stream's definitions were forgotten.", &stream->forgotten},
		{"cairn_agent_unknown_total", "counter", "Envelopes of an unknown kind.", &stream->unknown_bodies},
		{"cairn_agent_malformed_total", "counter", "Streams ended for a malformed envelope.", &stream->malformed},
		{"cairn_agent_past_limit_total", "counter", "Streams ended for passing a limit.", &stream->past_limit},
		{"cairn_agent_texts_cut_total", "counter", "Texts over the limit.", &stream->texts_cut},
		{"cairn_agent_memory_bytes", "gauge", "Definitions of all streams.", &stream->memory_bytes},
	};
	uint64_t connected, listed;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		metrics_one(page, rows[i].name, rows[i].type, rows[i].help, atomic_load_explicit(rows[i].value, memory_order_relaxed));
	api_agents_count(agents, &connected, &listed);
	metrics_one(page, "cairn_agents_connected", "gauge", "Agents with a stream.", connected);
	metrics_one(page, "cairn_agents_listed", "gauge", "Agents in /v1/agents.", listed);
}

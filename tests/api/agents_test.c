// SPDX-License-Identifier: Apache-2.0
/* The list of agents without a store, and their records. */
#include "api/agents_internal.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct api_agent known(void)
{
	return (struct api_agent){.agent = "go.opentelemetry.io/ebpf-profiler",
		.version = "1",
		.host = "h",
		.host_id = "id",
		.kernel = "6.1",
		.machine = "x86_64",
		.os = "Debian",
		.peer = "[::1]:7",
		.cpus = 64,
		.connects = 3,
		.first_seen_ms = 1,
		.last_seen_ms = UINT64_MAX,
		.samples = 1ull << 60,
		.has_status = true,
		.status = {.time_unix_nano = 1, .cpu_user_ns = 2, .cpu_system_ns = 3, .bpf_ns = 4, .memory_bytes = 5, .bpf_map_bytes = 6,
			.samples = 7, .queued_bytes = 8, .spooled_bytes = 9},
		.lost = {{{"queue_full", 5}, {"", 6}}, 2},
		.cut = {{{"no_table", 7}}, 1}};
}

Test(api_agent_decode, gives_back_what_was_encoded)
{
	struct api_agent agent = known(), back = {0}, empty = {0}, empty_back = {0};
	CLEANUP(buf_deinit) struct buf record = {0};
	CLEANUP(buf_deinit) struct buf again = {0};
	CLEANUP(buf_deinit) struct buf nothing = {0};

	cr_assert_null(api_agent_encode(&agent, &record));
	cr_assert_null(api_agent_decode(record.data, record.len, &back));
	cr_assert_str_eq(back.agent, "go.opentelemetry.io/ebpf-profiler");
	cr_assert_str_eq(back.peer, "[::1]:7");
	cr_assert_eq(back.samples, 1ull << 60);
	cr_assert_eq(back.status.spooled_bytes, 9);
	cr_assert_str_eq(back.lost.items[0].reason, "queue_full");
	cr_assert_eq(back.lost.items[1].count, 6);
	cr_assert_eq(back.lost.count, 2);
	cr_assert_eq(back.cut.count, 1);
	cr_assert_str_eq(back.cut.items[0].reason, "no_table");
	cr_assert_eq(back.cut.items[0].count, 7);
	/* and the rest: a record of it says the same */
	cr_assert_null(api_agent_encode(&back, &again));
	cr_assert_eq(again.len, record.len);
	cr_assert_arr_eq(again.data, record.data, record.len);
	cr_assert_null(api_agent_encode(&empty, &nothing));
	cr_assert_eq(nothing.len, 0);
	cr_assert_null(api_agent_decode(nothing.data, nothing.len, &empty_back));
	cr_assert_not(empty_back.has_status);
}

Test(api_agent_decode, takes_a_record_that_is_cut_or_damaged_for_no_agent_or_another)
{
	struct api_agent agent = known();
	CLEANUP(buf_deinit) struct buf record = {0};
	size_t refused = 0;

	cr_assert_null(api_agent_encode(&agent, &record));
	for (size_t len = 0; len < record.len; len++) {
		uint8_t *cut = malloc(len + 1); /* so that the sanitizer sees a byte too many */
		struct api_agent back = {0};
		memcpy(cut, record.data, len);
		struct err *e = api_agent_decode(cut, len, &back);
		cr_assert(!e || err_code(e) == ERR_CORRUPT);
		refused += e != NULL;
		err_free(e);
		free(cut);
	}
	cr_assert_gt(refused, record.len / 2);
	for (size_t i = 0; i < record.len; i++) {
		struct api_agent back = {0};
		record.data[i] ^= 0xff;
		err_free(api_agent_decode(record.data, record.len, &back));
		cr_assert_leq(back.lost.count, API_AGENT_LOSSES_MAX);
		record.data[i] ^= 0xff;
	}
}

Test(api_agents, forgets_the_one_that_was_away_longest_past_its_limit)
{
	struct api_agents *agents;
	CLEANUP(buf_deinit) struct buf text = {0};
	uint64_t connected, listed;

	cr_assert_null(api_agents_create(NULL, &agents));
	for (int i = 0; i < API_AGENTS_MAX + 100; i++) {
		struct api_otlp_sender sender = {.samples = 1};
		(void)snprintf(sender.host, sizeof(sender.host), "host-%d.", i);
		api_agents_otlp(agents, "127.0.0.1:1", &sender);
	}
	api_agents_count(agents, &connected, &listed);
	cr_assert_eq(listed, API_AGENTS_MAX);
	cr_assert_eq(connected, 0);
	cr_assert_null(api_agents_write(agents, &text));
	cr_assert_null(buf_append(&text, "", 1));
	cr_assert_not_null(strstr((char *)text.data, "host-4195."));
	cr_assert_not_null(strstr((char *)text.data, "\"samples\":\"1\""));
	api_agents_destroy(agents);
}

/* A host behind addresses and ports that change is one; two programs on it are two. */
Test(api_agents, knows_a_sender_by_host_and_agent)
{
	struct api_agents *agents;
	struct api_otlp_sender sender = {.agent = "a", .host = "h", .samples = 2}, nobody = {.samples = 1};
	uint64_t connected, listed;

	cr_assert_null(api_agents_create(NULL, &agents));
	api_agents_otlp(agents, "10.0.0.1:1000", &sender);
	api_agents_otlp(agents, "10.0.0.2:2000", &sender);
	api_agents_count(agents, &connected, &listed);
	cr_assert_eq(listed, 1);
	sender.agent[0] = 'b';
	api_agents_otlp(agents, "10.0.0.2:2000", &sender);
	api_agents_otlp(agents, "10.0.0.2:2000", &nobody);
	api_agents_otlp(agents, "10.0.0.2:2001", &nobody);
	api_agents_otlp(agents, "10.0.0.3:2001", &nobody);
	api_agents_count(agents, &connected, &listed);
	cr_assert_eq(listed, 4);
	api_agents_destroy(agents);
}

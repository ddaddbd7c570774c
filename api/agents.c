// SPDX-License-Identifier: Apache-2.0
#include "api/agents.h"

#include "base/digest.h"
#include "base/hex.h"
#include "base/json.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

struct loss {
	char reason[32];
	uint64_t count;
};

struct api_agent {
	uint8_t instance[AGENT_INSTANCE_BYTES];
	bool otlp;
	char version[API_AGENT_TEXT_SIZE], host[API_AGENT_TEXT_SIZE], host_id[API_AGENT_TEXT_SIZE], kernel[API_AGENT_TEXT_SIZE],
		machine[API_AGENT_TEXT_SIZE], peer[API_AGENT_TEXT_SIZE];
	uint32_t cpus, streams;
	uint64_t connects, first_seen_ms, last_seen_ms, samples;
	bool has_status;
	struct agent_status status; /* without its losses */
	struct loss losses[API_AGENT_LOSSES_MAX];
	uint32_t loss_count;
};

struct api_agents {
	pthread_mutex_t lock;
	struct api_agent *items[API_AGENTS_MAX];
	uint32_t count;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct err *api_agents_create(struct api_agents **ret)
{
	struct api_agents *agents = calloc(1, sizeof(*agents));

	if (!agents)
		return err_nomem();
	(void)pthread_mutex_init(&agents->lock, NULL);
	*ret = agents;
	return NULL;
}

void api_agents_destroy(struct api_agents *agents)
{
	if (!agents)
		return;
	for (uint32_t i = 0; i < agents->count; i++)
		free(agents->items[i]);
	(void)pthread_mutex_destroy(&agents->lock);
	free(agents);
}

static void copy_text(char ret[API_AGENT_TEXT_SIZE], const void *bytes, size_t len)
{
	if (len >= API_AGENT_TEXT_SIZE)
		len = API_AGENT_TEXT_SIZE - 1;
	if (len > 0)
		memcpy(ret, bytes, len);
	ret[len] = 0;
}

/* The place of a new one: a free one, else that of the one that was away longest; NULL when all are here. */
static struct api_agent **find_place(struct api_agents *agents)
{
	struct api_agent **oldest = NULL;

	if (agents->count < API_AGENTS_MAX)
		return &agents->items[agents->count++];
	for (uint32_t i = 0; i < agents->count; i++)
		if (agents->items[i]->streams == 0 && (!oldest || agents->items[i]->last_seen_ms < (*oldest)->last_seen_ms))
			oldest = &agents->items[i];
	if (oldest)
		free(*oldest);
	return oldest;
}

/* The agent of that instance, made when there is none; NULL when it cannot be listed. Under the lock. */
static struct api_agent *find(struct api_agents *agents, const uint8_t instance[AGENT_INSTANCE_BYTES], bool otlp)
{
	for (uint32_t i = 0; i < agents->count; i++)
		if (agents->items[i]->otlp == otlp && memcmp(agents->items[i]->instance, instance, AGENT_INSTANCE_BYTES) == 0)
			return agents->items[i];
	struct api_agent *agent = calloc(1, sizeof(*agent));
	struct api_agent **place = agent ? find_place(agents) : NULL;
	if (!place) {
		free(agent);
		return NULL;
	}
	memcpy(agent->instance, instance, AGENT_INSTANCE_BYTES);
	agent->otlp = otlp;
	agent->first_seen_ms = now_ms();
	*place = agent;
	return agent;
}

struct api_agent *api_agents_came(struct api_agents *agents, const struct agent_hello *hello, const char *peer)
{
	(void)pthread_mutex_lock(&agents->lock);
	struct api_agent *agent = find(agents, hello->instance.bytes, false);
	if (agent) {
		copy_text(agent->version, hello->version.bytes, hello->version.len);
		copy_text(agent->host, hello->host_name.bytes, hello->host_name.len);
		copy_text(agent->host_id, hello->host_id.bytes, hello->host_id.len);
		copy_text(agent->kernel, hello->kernel.bytes, hello->kernel.len);
		copy_text(agent->machine, hello->machine.bytes, hello->machine.len);
		copy_text(agent->peer, peer, strlen(peer));
		agent->cpus = hello->cpus;
		agent->streams++;
		agent->connects++;
		agent->last_seen_ms = now_ms();
	}
	(void)pthread_mutex_unlock(&agents->lock);
	return agent;
}

void api_agents_left(struct api_agents *agents, struct api_agent *agent)
{
	if (!agent)
		return;
	(void)pthread_mutex_lock(&agents->lock);
	agent->streams--;
	agent->last_seen_ms = now_ms();
	(void)pthread_mutex_unlock(&agents->lock);
}

static void keep_losses(struct api_agent *agent, const struct agent_status *status)
{
	struct reader r = wire_reader(status->losses, NULL);
	struct agent_loss loss;

	agent->loss_count = 0;
	while (agent_loss_next(&r, &loss)) {
		struct loss *kept = &agent->losses[agent->loss_count];
		if (agent->loss_count == API_AGENT_LOSSES_MAX) {
			kept--;
			(void)snprintf(kept->reason, sizeof(kept->reason), "other");
			kept->count += loss.count;
			continue;
		}
		(void)snprintf(kept->reason, sizeof(kept->reason), "%.*s", (int)(loss.reason.len < 32 ? loss.reason.len : 31),
			loss.reason.len ? (const char *)loss.reason.bytes : "");
		kept->count = loss.count;
		agent->loss_count++;
	}
}

void api_agents_status(struct api_agents *agents, struct api_agent *agent, const struct agent_status *status)
{
	if (!agent)
		return;
	(void)pthread_mutex_lock(&agents->lock);
	agent->status = *status;
	agent->status.losses = (struct wire_span){0};
	agent->has_status = true;
	keep_losses(agent, status);
	agent->last_seen_ms = now_ms();
	(void)pthread_mutex_unlock(&agents->lock);
}

void api_agents_samples(struct api_agents *agents, struct api_agent *agent, uint64_t samples)
{
	if (!agent)
		return;
	(void)pthread_mutex_lock(&agents->lock);
	agent->samples += samples;
	agent->last_seen_ms = now_ms();
	(void)pthread_mutex_unlock(&agents->lock);
}

void api_agents_otlp(struct api_agents *agents, const char *peer, struct samples_text host, struct samples_text version, uint64_t samples)
{
	const char *colon = strrchr(peer, ':');
	uint8_t instance[AGENT_INSTANCE_BYTES];

	/* Each connection of a sender has a port of its own: its address alone tells senders apart. */
	if (host.len > 0)
		digest_xxh3_128(host.bytes, host.len, instance);
	else
		digest_xxh3_128(peer, colon ? (size_t)(colon - peer) : strlen(peer), instance);
	(void)pthread_mutex_lock(&agents->lock);
	struct api_agent *agent = find(agents, instance, true);
	if (agent) {
		copy_text(agent->host, host.bytes, host.len);
		copy_text(agent->version, version.bytes, version.len);
		copy_text(agent->peer, peer, strlen(peer));
		agent->samples += samples;
		agent->last_seen_ms = now_ms();
	}
	(void)pthread_mutex_unlock(&agents->lock);
}

void api_agents_count(struct api_agents *agents, uint64_t *connected_ret, uint64_t *listed_ret)
{
	*connected_ret = 0;
	(void)pthread_mutex_lock(&agents->lock);
	for (uint32_t i = 0; i < agents->count; i++)
		*connected_ret += agents->items[i]->streams > 0;
	*listed_ret = agents->count;
	(void)pthread_mutex_unlock(&agents->lock);
}

static int later_first(const void *a, const void *b)
{
	const struct api_agent *x = *(struct api_agent *const *)a, *y = *(struct api_agent *const *)b;

	return x->last_seen_ms < y->last_seen_ms ? 1 : x->last_seen_ms > y->last_seen_ms ? -1 : memcmp(x->instance, y->instance, 16);
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
	json_key(json, "lost");
	json_array_begin(json);
	for (uint32_t i = 0; i < agent->loss_count; i++) {
		json_object_begin(json);
		json_key(json, "reason");
		json_text(json, agent->losses[i].reason);
		json_key(json, "samples");
		json_text_u64(json, agent->losses[i].count);
		json_object_end(json);
	}
	json_array_end(json);
}

static void write_agent(struct json *json, const struct api_agent *agent)
{
	const struct {
		const char *key, *value;
	} texts[] = {{"version", agent->version}, {"host", agent->host}, {"host_id", agent->host_id}, {"kernel", agent->kernel},
		{"machine", agent->machine}, {"peer", agent->peer}};
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

struct err *api_agents_write(struct api_agents *agents, struct buf *ret)
{
	struct json json = json_init(ret);

	json_object_begin(&json);
	json_key(&json, "agents");
	json_array_begin(&json);
	(void)pthread_mutex_lock(&agents->lock);
	/* Nobody keeps a place in the array: it may be sorted where it is. */
	qsort(agents->items, agents->count, sizeof(agents->items[0]), later_first);
	for (uint32_t i = 0; i < agents->count; i++)
		write_agent(&json, agents->items[i]);
	(void)pthread_mutex_unlock(&agents->lock);
	json_array_end(&json);
	json_object_end(&json);
	return json_finish(&json);
}

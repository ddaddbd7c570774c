// SPDX-License-Identifier: Apache-2.0
#include "api/agents_internal.h"

#include "base/digest.h"
#include "base/log.h"
#include "profiles/senders.h"
#include "store/store.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { SAVE_EVERY_MS = 10000 };

struct api_agents {
	struct samples *samples; /* borrowed; NULL: nothing is kept */
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

/* -------------------------------------------------------------------------------------- over restarts */

static void make_id(const struct api_agent *agent, uint8_t id[SAMPLES_SENDER_ID_BYTES])
{
	id[0] = agent->otlp;
	memcpy(id + 1, agent->instance, AGENT_INSTANCE_BYTES);
}

/* Under the lock. What cannot be kept now is kept with the next change. */
static void save(struct api_agents *agents, struct api_agent *agent)
{
	CLEANUP(buf_deinit) struct buf record = {0};
	uint8_t id[SAMPLES_SENDER_ID_BYTES];

	if (!agents->samples)
		return;
	make_id(agent, id);
	agent->saved_ms = now_ms();
	agent->changed = false;
	struct err *e = api_agent_encode(agent, &record);
	if (!e)
		e = samples_sender_put(agents->samples, STORE_TENANT_DEFAULT, id, record.data, record.len);
	if (e)
		log_warn("agent", "keep=failed error=\"%s\"", err_message(e));
	err_free(e);
}

/* The agent was heard of. At once what is new of it, @p now; else not oftener than every SAVE_EVERY_MS. Under the lock. */
static void heard(struct api_agents *agents, struct api_agent *agent, bool now)
{
	agent->last_seen_ms = now_ms();
	agent->changed = true;
	if (now || agent->last_seen_ms - agent->saved_ms >= SAVE_EVERY_MS)
		save(agents, agent);
}

static void forget(struct api_agents *agents, const struct api_agent *agent)
{
	uint8_t id[SAMPLES_SENDER_ID_BYTES];

	if (!agents->samples)
		return;
	make_id(agent, id);
	err_free(samples_sender_put(agents->samples, STORE_TENANT_DEFAULT, id, NULL, 0));
}

static struct err *load_one(void *context, const uint8_t id[SAMPLES_SENDER_ID_BYTES], const void *record, size_t len)
{
	struct api_agents *agents = context;

	if (agents->count == API_AGENTS_MAX)
		return NULL;
	struct api_agent *agent = calloc(1, sizeof(*agent));
	if (!agent)
		return err_nomem();
	struct err *e = api_agent_decode(record, len, agent);
	if (e) {
		/* One that cannot be read is none that stops a server. */
		log_warn("agent", "load=failed error=\"%s\"", err_message(e));
		err_free(e);
		free(agent);
		return NULL;
	}
	agent->otlp = id[0];
	memcpy(agent->instance, id + 1, AGENT_INSTANCE_BYTES);
	agent->saved_ms = agent->last_seen_ms;
	agents->items[agents->count++] = agent;
	return NULL;
}

struct err *api_agents_create(struct samples *samples, struct api_agents **ret)
{
	struct api_agents *agents = calloc(1, sizeof(*agents));

	if (!agents)
		return err_nomem();
	(void)pthread_mutex_init(&agents->lock, NULL);
	agents->samples = samples;
	struct err *e = samples ? samples_senders(samples, STORE_TENANT_DEFAULT, load_one, agents) : NULL;
	if (e) {
		api_agents_destroy(agents);
		return e;
	}
	*ret = agents;
	return NULL;
}

void api_agents_save(struct api_agents *agents)
{
	(void)pthread_mutex_lock(&agents->lock);
	for (uint32_t i = 0; i < agents->count; i++)
		if (agents->items[i]->changed)
			save(agents, agents->items[i]);
	(void)pthread_mutex_unlock(&agents->lock);
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

/* -------------------------------------------------------------------------------------- the list */

/* The place of a new one: a free one, else that of the one that was away longest; NULL when all are here. */
static struct api_agent **find_place(struct api_agents *agents)
{
	struct api_agent **oldest = NULL;

	if (agents->count < API_AGENTS_MAX)
		return &agents->items[agents->count++];
	for (uint32_t i = 0; i < agents->count; i++)
		if (agents->items[i]->streams == 0 && (!oldest || agents->items[i]->last_seen_ms < (*oldest)->last_seen_ms))
			oldest = &agents->items[i];
	if (oldest) {
		forget(agents, *oldest);
		free(*oldest);
	}
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
		api_agent_copy_text(agent->version, hello->version.bytes, hello->version.len);
		api_agent_copy_text(agent->host, hello->host_name.bytes, hello->host_name.len);
		api_agent_copy_text(agent->host_id, hello->host_id.bytes, hello->host_id.len);
		api_agent_copy_text(agent->kernel, hello->kernel.bytes, hello->kernel.len);
		api_agent_copy_text(agent->machine, hello->machine.bytes, hello->machine.len);
		api_agent_copy_text(agent->peer, peer, strlen(peer));
		agent->cpus = hello->cpus;
		agent->streams++;
		agent->connects++;
		heard(agents, agent, true);
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
	heard(agents, agent, true);
	(void)pthread_mutex_unlock(&agents->lock);
}

static void keep_losses(struct api_agent_losses *losses, struct wire_span status, bool next(struct reader *r, struct agent_loss *ret))
{
	struct reader r = wire_reader(status, NULL);
	struct agent_loss loss;

	losses->count = 0;
	while (next(&r, &loss)) {
		struct api_agent_loss *kept = &losses->items[losses->count];
		if (losses->count == API_AGENT_LOSSES_MAX) {
			kept--;
			(void)snprintf(kept->reason, sizeof(kept->reason), "other");
			kept->count += loss.count;
			continue;
		}
		(void)snprintf(kept->reason, sizeof(kept->reason), "%.*s", (int)(loss.reason.len < 32 ? loss.reason.len : 31),
			loss.reason.len ? (const char *)loss.reason.bytes : "");
		kept->count = loss.count;
		losses->count++;
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
	keep_losses(&agent->lost, status->losses, agent_loss_next);
	keep_losses(&agent->cut, status->losses, agent_cut_next);
	heard(agents, agent, false);
	(void)pthread_mutex_unlock(&agents->lock);
}

void api_agents_samples(struct api_agents *agents, struct api_agent *agent, uint64_t samples)
{
	if (!agent)
		return;
	(void)pthread_mutex_lock(&agents->lock);
	agent->samples += samples;
	heard(agents, agent, false);
	(void)pthread_mutex_unlock(&agents->lock);
}

/* Who a sender is: its host, else its address without the port (each connection has one of its own), and the name of its agent. */
static void make_instance(const struct api_otlp_sender *sender, const char *peer, uint8_t ret[AGENT_INSTANCE_BYTES])
{
	const char *colon = strrchr(peer, ':');
	char text[3 * API_AGENT_TEXT_SIZE];
	int len;

	if (sender->host_id[0] || sender->host[0])
		len = snprintf(text, sizeof(text), "%s\n%s", sender->host_id[0] ? sender->host_id : sender->host, sender->agent);
	else
		len = snprintf(text, sizeof(text), "%.*s\n%s", (int)(colon ? colon - peer : (ptrdiff_t)strlen(peer)), peer, sender->agent);
	digest_xxh3_128(text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1, ret);
}

void api_agents_otlp(struct api_agents *agents, const char *peer, const struct api_otlp_sender *sender)
{
	uint8_t instance[AGENT_INSTANCE_BYTES];

	make_instance(sender, peer, instance);
	(void)pthread_mutex_lock(&agents->lock);
	struct api_agent *agent = find(agents, instance, true);
	if (agent) {
		bool is_new = agent->last_seen_ms == 0 || strcmp(agent->version, sender->version) != 0;
		memcpy(agent->agent, sender->agent, sizeof(agent->agent));
		memcpy(agent->version, sender->version, sizeof(agent->version));
		memcpy(agent->host, sender->host, sizeof(agent->host));
		memcpy(agent->host_id, sender->host_id, sizeof(agent->host_id));
		memcpy(agent->machine, sender->machine, sizeof(agent->machine));
		memcpy(agent->os, sender->os, sizeof(agent->os));
		api_agent_copy_text(agent->peer, peer, strlen(peer));
		agent->samples += sender->samples;
		heard(agents, agent, is_new);
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
		api_agent_write(&json, agents->items[i]);
	(void)pthread_mutex_unlock(&agents->lock);
	json_array_end(&json);
	json_object_end(&json);
	return json_finish(&json);
}

// SPDX-License-Identifier: Apache-2.0
#include "agent/connector.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

struct connector {
	const char *address;
	struct net_grpc_client_options options;
	unsigned failures;
	uint64_t due_ms;
	bool is_running; /* the thread is to be joined */
	pthread_t thread;
	/* The thread's result; written before `done`, which is released by it and acquired by the owner. */
	struct net_grpc_client *client;
	struct err *error;
	atomic_bool done;
};

struct err *connector_create(const char *address, const struct net_grpc_client_options *options, struct connector **ret)
{
	TRY(net_grpc_client_check(address, options));
	struct connector *c = calloc(1, sizeof(*c));

	if (!c)
		return err_nomem();
	c->address = address;
	c->options = *options;
	c->options.connect_timeout_ms = CONNECTOR_TIMEOUT_MS;
	*ret = c;
	return NULL;
}

void connector_destroy(struct connector *c)
{
	if (!c)
		return;
	if (c->is_running) {
		(void)pthread_join(c->thread, NULL);
		net_grpc_client_destroy(c->client);
		err_free(c->error);
	}
	free(c);
}

uint64_t connector_pause_ms(unsigned failures, uint64_t random)
{
	uint64_t pause = failures < 8 ? (uint64_t)CONNECTOR_PAUSE_FIRST_MS << failures : CONNECTOR_PAUSE_MAX_MS;

	pause = pause < CONNECTOR_PAUSE_MAX_MS ? pause : CONNECTOR_PAUSE_MAX_MS;
	return pause * 3 / 4 + random % (pause / 2 + 1);
}

uint64_t connector_asked_pause_ms(uint64_t asked_ms, uint64_t random)
{
	uint64_t pause = asked_ms < CONNECTOR_ASKED_MAX_MS ? asked_ms : CONNECTOR_ASKED_MAX_MS;

	if (pause < CONNECTOR_PAUSE_FIRST_MS)
		pause = CONNECTOR_PAUSE_FIRST_MS;
	return pause + random % (pause / 4 + 1);
}

static void *attempt(void *context)
{
	struct connector *c = context;

	c->error = net_grpc_client_connect(c->address, &c->options, &c->client);
	atomic_store_explicit(&c->done, true, memory_order_release);
	return NULL;
}

static void pause_after(struct connector *c, uint64_t now_ms)
{
	uint64_t random = 0;

	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	c->due_ms = now_ms + connector_pause_ms(c->failures, random);
	c->failures++;
}

struct err *connector_poll(struct connector *c, uint64_t now_ms, struct net_grpc_client **ret)
{
	*ret = NULL;
	if (!c->is_running) {
		if (now_ms < c->due_ms)
			return NULL;
		c->done = false;
		int failed = pthread_create(&c->thread, NULL, attempt, c);
		if (failed)
			pause_after(c, now_ms);
		c->is_running = failed == 0;
		return failed ? err_os(failed, "thread for connecting") : NULL;
	}
	if (!atomic_load_explicit(&c->done, memory_order_acquire))
		return NULL;
	(void)pthread_join(c->thread, NULL);
	c->is_running = false;
	*ret = TAKE_PTR(c->client);
	if (!*ret)
		pause_after(c, now_ms);
	return TAKE_PTR(c->error);
}

void connector_lost(struct connector *c, uint64_t now_ms, bool was_good)
{
	if (was_good)
		c->failures = 0;
	pause_after(c, now_ms);
}

void connector_wait(struct connector *c, uint64_t until_ms)
{
	c->due_ms = c->due_ms > until_ms ? c->due_ms : until_ms;
}

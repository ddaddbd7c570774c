// SPDX-License-Identifier: Apache-2.0
/* The same samples by OTLP, as otlp_encode.c writes them: a report is one Export. */
#include "bench/load.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT_PATH "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"

struct answer {
	bool ended;
	enum net_grpc_status status;
	char message[256];
};

static void on_end(void *user, enum net_grpc_status status, const char *message)
{
	struct answer *answer = user;

	answer->ended = true;
	answer->status = status;
	(void)snprintf(answer->message, sizeof(answer->message), "%s", message);
}

static const struct net_grpc_client_ops ops = {.on_end = on_end};

/* One Export. */
static struct err *export_once(struct net_grpc_client *client, const struct buf *message)
{
	struct answer answer = {0};
	struct net_grpc_client_call *call;

	TRY(net_grpc_client_open(client, EXPORT_PATH, &ops, &answer, &call));
	TRY(net_grpc_client_send(call, message->data, message->len));
	net_grpc_client_half_close(call);
	while (!answer.ended)
		TRY(net_grpc_client_run(client, 1000));
	if (answer.status == NET_GRPC_OK)
		return NULL;
	return err_new(answer.status == NET_GRPC_UNAVAILABLE || answer.status == NET_GRPC_RESOURCE_EXHAUSTED ? ERR_PEER : ERR_INVALID,
		"Export: status %d %s", (int)answer.status, answer.message);
}

static struct err *export_report(const struct load_options *options, struct load_queue *queue, struct buf *message,
	struct net_grpc_client **client)
{
	uint64_t end = load_now_ns() + options->patience_s * 1000000000;

	message->len = 0;
	TRY(load_otlp_encode(queue->workload, &queue->items[0], message));
	for (;;) {
		if (!*client)
			TRY(load_connect(options, queue->totals, client));
		struct err *e = export_once(*client, message);
		if (!e)
			break;
		if (err_code(e) != ERR_PEER || load_now_ns() > end)
			return e;
		err_free(e);
		queue->totals->failures++;
		queue->totals->resent++;
		load_disconnect(queue->totals, client);
		(void)usleep(10000);
	}
	(void)load_queue_acknowledge(queue, queue->items[0].sequence);
	return NULL;
}

struct err *load_otlp(const struct load_options *options, struct load_queue *queue)
{
	struct buf message = {0};
	struct net_grpc_client *client = NULL;
	struct err *e = NULL;

	while (!e && !load_queue_is_done(queue)) {
		e = load_queue_fill(queue);
		if (!e && queue->count > 0)
			e = export_report(options, queue, &message, &client);
		else if (!e)
			(void)usleep(2000);
	}
	load_disconnect(queue->totals, &client);
	buf_deinit(&message);
	return e;
}

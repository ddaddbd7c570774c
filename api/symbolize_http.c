// SPDX-License-Identifier: Apache-2.0
/* POST /v1/symbolize, and the same message as cairn.v1.Symbolizer/Symbolize. */
#include "api/call.h"
#include "base/digest.h"

#include <string.h>

/* A symbolizer for the time of one request. There are never more than question threads, so the list of idle ones has room. */
static struct err *borrow_symbolizer(struct api *api, struct api_symbolizer **ret)
{
	struct api_symbolizer *symbolizer = NULL;

	(void)pthread_mutex_lock(&api->lock);
	if (api->symbolizer_count)
		symbolizer = api->symbolizers[--api->symbolizer_count];
	(void)pthread_mutex_unlock(&api->lock);
	if (!symbolizer)
		TRY(api_symbolizer_create(api->options.names_bytes, &symbolizer));
	*ret = symbolizer;
	return NULL;
}

static void return_symbolizer(struct api *api, struct api_symbolizer *symbolizer)
{
	(void)pthread_mutex_lock(&api->lock);
	if (api->symbolizer_count < api->options.threads) {
		api->symbolizers[api->symbolizer_count++] = symbolizer;
		symbolizer = NULL;
	}
	(void)pthread_mutex_unlock(&api->lock);
	api_symbolizer_destroy(symbolizer);
}

uint64_t api_requester(const char *peer)
{
	const char *colon = strrchr(peer, ':');

	return digest_xxh3_64(peer, colon ? (size_t)(colon - peer) : strlen(peer));
}

uint64_t call_requester(const struct call *call)
{
	return api_requester(net_request_peer(call->request));
}

static struct err *parse(struct call *call)
{
	const struct buf *body = call_body(call);
	struct api_symbolize_limits limits = {
		.modules = call->api->options.limit_modules, .addresses = call->api->options.limit_addresses};

	TRY(call->format == API_FORMAT_JSON ?
		api_symbolize_parse_json(body->data, body->len, &limits, &call->arena, &call->symbolize) :
		api_symbolize_parse_protobuf(body->data, body->len, &limits, &call->arena, &call->symbolize));
	call->symbolize.sources = call->api->options.sources;
	call->symbolize.requester = call_requester(call);
	call->parsed = true;
	call->deadline_ns = net_request_age_ns(call->request) + (uint64_t)call->symbolize.wait_ms * 1000000;
	return NULL;
}

/*
 * A held call keeps its parsed question, of which the body's bytes that net counts are a small part, and asks the store ten
 * times a second: so there are never more than the queue has room for. Others are answered "pending" at once.
 */
static bool take_place(struct call *call)
{
	struct api *api = call->api;

	if (call->held)
		return true;
	/* Relaxed: a bound, not a lock. */
	call->held = atomic_fetch_add_explicit(&api->held, 1, memory_order_relaxed) < api->options.queue;
	if (!call->held)
		atomic_fetch_sub_explicit(&api->held, 1, memory_order_relaxed);
	return call->held;
}

/* True in @p ret when the answer is better held back a while longer. */
static struct err *should_park(struct call *call, bool *ret)
{
	*ret = false;
	if (net_request_age_ns(call->request) >= call->deadline_ns || call->symbolize.wait_ms == 0)
		return NULL;
	if (atomic_load_explicit(&call->api->draining, memory_order_relaxed))
		return NULL;
	TRY(api_symbolize_is_pending(call->api->options.store, &call->symbolize, ret));
	*ret = *ret && take_place(call);
	if (*ret && !call->waited) {
		call->waited = true;
		atomic_fetch_add_explicit(&call->api->metrics.waits, 1, memory_order_relaxed);
	}
	return NULL;
}

static struct err *symbolize(struct call *call, struct net_reply *reply)
{
	struct api *api = call->api;
	struct api_symbolizer *symbolizer;
	struct api_symbolize_counts counts;

	if (!call->parsed)
		TRY(parse(call));
	TRY(should_park(call, &call->parked));
	if (call->parked)
		return NULL;
	TRY(borrow_symbolizer(api, &symbolizer));
	struct err *e = api_symbolize_run(symbolizer, api->options.store, &call->symbolize, call->format,
		api->options.limit_answer, &reply->body, &counts);
	return_symbolizer(api, symbolizer);
	if (e)
		return e;
	api_metrics_symbolize(&api->metrics, &counts);
	reply->status = 200;
	reply->content_type = call->format == API_FORMAT_JSON ? "application/json" : "application/x-protobuf";
	return NULL;
}

void symbolize_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	if (net_request_content_type_is(request, "application/json"))
		call_accept_symbolize(api, request, API_FORMAT_JSON, symbolize);
	else if (net_request_content_type_is(request, "application/x-protobuf") ||
		 net_request_content_type_is(request, "application/protobuf"))
		call_accept_symbolize(api, request, API_FORMAT_PROTOBUF, symbolize);
	else
		call_refuse(api, request, API_PATH_SYMBOLIZE, 415, "unsupported_media_type",
			"Content-Type must be application/json or application/x-protobuf");
}

void symbolize_on_open(struct net_grpc_call *grpc, void *user)
{
	struct api *api = user;
	struct call *call = call_accept_grpc(api, grpc, API_PATH_SYMBOLIZE_GRPC, api->questions, symbolize);

	if (call)
		call->format = API_FORMAT_PROTOBUF;
}

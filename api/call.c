// SPDX-License-Identifier: Apache-2.0
/*
 * Life of a call: accepted on the loop -> body collected -> queued on its pool -> work() -> answer posted to the loop. Only a
 * parked one goes round: loop timer -> pool -> .. until nothing is pending or its time is over. The pool holds a reference to
 * the request while the call is queued or runs; the call dies with the request (on_free).
 */
#include "api/call.h"

#include "api/otlp_export.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { PARK_STEP_MS = 100, RETRY_AFTER_S = 1, RETRY_AFTER_MS = 1000 };

static void count(struct call *call, unsigned status)
{
	if (!atomic_exchange_explicit(&call->counted, true, memory_order_relaxed))
		api_metrics_request(&call->api->metrics, call->path, status, net_request_age_ns(call->request));
}

static void log_internal(const struct call *call, const struct err *e)
{
	static struct log_limit limit;
	uint32_t suppressed;

	if (log_limit_pass(&limit, 5, &suppressed))
		log_error("api", "path=%s peer=%s error=\"%s\" suppressed=%u", api_path_name(call->path),
			net_request_peer(call->request), err_message(e), suppressed);
}

/* What an error is to the peer: the HTTP status, the word for it, and the same in gRPC. */
struct verdict {
	unsigned status;
	const char *code;
	enum net_grpc_status grpc;
};

static struct verdict judge(const struct err *e)
{

	switch (err_code(e)) {
	case ERR_INVALID:
		return (struct verdict){400, "invalid", NET_GRPC_INVALID_ARGUMENT};
	case ERR_LIMIT:
		return (struct verdict){413, "too_large", NET_GRPC_RESOURCE_EXHAUSTED};
	case ERR_NOT_FOUND:
		return (struct verdict){404, "not_found", NET_GRPC_NOT_FOUND};
	case ERR_BUSY:
	case ERR_NOMEM:
		return (struct verdict){503, "busy", NET_GRPC_UNAVAILABLE};
	case ERR_OS:
		if (err_errno(e) == ENOSPC || err_errno(e) == EDQUOT)
			return (struct verdict){507, "no_space", NET_GRPC_RESOURCE_EXHAUSTED};
		break;
	default:
		break;
	}
	return (struct verdict){500, "internal", NET_GRPC_INTERNAL};
}

/* Consumes @p e. */
static void reply_from_error(const struct call *call, struct err *e, struct net_reply *reply)
{
	struct verdict verdict = judge(e);

	if (verdict.status >= 500)
		log_internal(call, e);
	net_reply_deinit(reply);
	net_reply_error(reply, verdict.status, verdict.code, "%s", err_message(e));
	if (verdict.status == 503)
		err_free(net_reply_header(reply, "Retry-After", "1"));
	err_free(e);
}

static void arm_timer(struct net_request *request, void *arg)
{
	struct call *call = arg;

	if (net_request_is_gone(request))
		return;
	if (call->grpc)
		net_grpc_set_timer(call->grpc, PARK_STEP_MS);
	else
		net_request_set_timer(request, PARK_STEP_MS);
}

/* Loop thread: the end of a gRPC call. Has no effect on one that is over: cancelled, or past its deadline. */
static void finish_grpc(struct net_request *request, void *arg)
{
	struct call *call = arg;

	if (net_request_is_gone(request))
		return;
	if (call->error) {
		enum net_grpc_status status = judge(call->error).grpc;
		if (status == NET_GRPC_UNAVAILABLE)
			net_grpc_finish_retry(call->grpc, status, err_message(call->error), RETRY_AFTER_MS);
		else
			net_grpc_finish(call->grpc, status, err_message(call->error));
		return;
	}
	(void)net_grpc_send(call->grpc, &call->reply.body);
	net_grpc_finish(call->grpc, NET_GRPC_OK, NULL);
}

/* Consumes @p e. */
static void end_grpc(struct call *call, struct err *e)
{
	struct verdict verdict = {.status = 200};

	if (e) {
		verdict = judge(e);
		if (verdict.status >= 500)
			log_internal(call, e);
		call->error = e;
	}
	count(call, verdict.status);
	net_request_post(call->request, finish_grpc, call);
}

/* Consumes @p e. */
static void end_http(struct call *call, struct err *e, struct net_reply *reply)
{
	if (e)
		reply_from_error(call, e, reply);
	count(call, reply->status);
	net_request_reply_post(call->request, reply);
}

void call_end(struct call *call, struct err *take_e)
{
	struct net_request *request = call->request;

	if (call->grpc)
		end_grpc(call, take_e);
	else
		end_http(call, take_e, &call->reply);
	net_request_unref(request);
}

void call_error_reply(const struct call *call, struct err *take_e, struct net_reply *reply)
{
	reply_from_error(call, take_e, reply);
}

/* For what may come again in a moment. Loop thread. */
static void refuse_busy(struct call *call, const char *message)
{
	atomic_fetch_add_explicit(&call->api->metrics.refused_busy, 1, memory_order_relaxed);
	count(call, 503);
	if (call->grpc)
		net_grpc_finish_retry(call->grpc, NET_GRPC_UNAVAILABLE, message, RETRY_AFTER_MS);
	else
		net_request_error(call->request, 503, "busy", "%s", message);
}

static void run(void *arg)
{
	struct call *call = arg;
	struct net_request *request = call->request;

	if (!net_request_is_gone(request)) {
		struct err *e = call->work(call, &call->reply);
		if (!e && call->parked)
			net_request_post(request, arm_timer, call);
		else if (!e && call->deferred)
			; /* call_end brings, or has brought, the answer */
		else if (call->grpc)
			end_grpc(call, e);
		else
			end_http(call, e, &call->reply);
	}
	net_request_unref(request);
}

static void submit_call(struct call *call)
{
	struct net_request *request = net_request_ref(call->request);

	if (net_pool_submit(call->pool, run, call))
		return;
	if (call->parked) /* it was taken on long ago: it asks again a little later */
		arm_timer(request, call);
	else
		refuse_busy(call, "the queue of requests is full");
	net_request_unref(request);
}

static void submit(struct net_request *request)
{
	submit_call(net_request_user(request));
}

static void on_timer(struct net_request *request)
{
	submit(request);
}

static void on_abort(struct net_request *request)
{
	count(net_request_user(request), 0);
}

static void on_free(void *user)
{
	struct call *call = user;

	if (!call)
		return;
	if (call->held)
		atomic_fetch_sub_explicit(&call->api->held, 1, memory_order_relaxed);
	if (call->held_bytes)
		api_otlp_release(call->api, call->held_bytes);
	arena_deinit(&call->arena);
	buf_deinit(&call->message);
	net_reply_deinit(&call->reply);
	err_free(call->error);
	free(call);
}

/* A profiles request is complete. What it takes in memory is counted until its answer has gone. */
static void submit_profiles(struct call *call)
{
	size_t bytes = call_body(call)->cap;

	if (!api_otlp_hold(call->api, bytes)) {
		refuse_busy(call, "too many profiles are being read at the moment");
		return;
	}
	call->held_bytes = bytes;
	submit_call(call);
}

static void on_profiles_end(struct net_request *request)
{
	submit_profiles(net_request_user(request));
}

static const struct net_request_ops call_ops = {
	.on_end = submit,
	.on_timer = on_timer,
	.on_abort = on_abort,
	.on_free = on_free,
};

static const struct net_request_ops profiles_ops = {
	.on_end = on_profiles_end,
	.on_abort = on_abort,
	.on_free = on_free,
};

static struct call *create(struct api *api, struct net_request *request, enum api_path path)
{
	struct call *call = calloc(1, sizeof(*call));
	if (!call) {
		net_request_error(request, 503, "busy", "out of memory");
		api_metrics_request(&api->metrics, path, 503, net_request_age_ns(request));
		return NULL;
	}
	call->api = api;
	call->request = request;
	call->path = path;
	return call;
}

void call_accept(struct api *api, struct net_request *request, enum api_path path, struct net_pool *pool, call_work_fn *work,
	uint64_t body_limit)
{
	struct net_body_options body = {.limit = body_limit};
	struct call *call = create(api, request, path);
	if (!call)
		return;
	call->pool = pool;
	call->work = work;
	net_request_accept(request, &call_ops, call, &body);
}

void call_accept_symbolize(struct api *api, struct net_request *request, enum api_format format, call_work_fn *work)
{
	struct net_body_options body = {.limit = api->options.limit_body};
	struct call *call = create(api, request, API_PATH_SYMBOLIZE);
	if (!call)
		return;
	call->pool = api->questions;
	call->work = work;
	call->format = format;
	net_request_accept(request, &call_ops, call, &body);
}

struct call *call_accept_grpc(struct api *api, struct net_grpc_call *grpc, enum api_path path, struct net_pool *pool,
	call_work_fn *work)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call) {
		net_grpc_finish(grpc, NET_GRPC_UNAVAILABLE, "out of memory");
		api_metrics_request(&api->metrics, path, 503, net_request_age_ns(net_grpc_request(grpc)));
		return NULL;
	}
	call->api = api;
	call->request = net_grpc_request(grpc);
	call->grpc = grpc;
	call->path = path;
	call->pool = pool;
	call->work = work;
	net_grpc_set_user(grpc, call);
	return call;
}

void call_grpc_on_message(struct net_grpc_call *grpc, struct buf *message)
{
	struct call *call = net_grpc_user(grpc);

	call->message = *message;
	*message = (struct buf){0};
	submit_call(call);
}

void call_grpc_on_profiles(struct net_grpc_call *grpc, struct buf *message)
{
	struct call *call = net_grpc_user(grpc);

	call->message = *message;
	*message = (struct buf){0};
	submit_profiles(call);
}

void call_grpc_on_timer(struct net_grpc_call *grpc)
{
	submit_call(net_grpc_user(grpc));
}

void call_grpc_on_cancel(struct net_grpc_call *grpc)
{
	struct call *call = net_grpc_user(grpc);

	if (call)
		count(call, 0);
}

void call_grpc_on_free(void *user)
{
	on_free(user);
}

const struct buf *call_body(const struct call *call)
{
	return call->grpc ? &call->message : net_request_body(call->request);
}

void call_accept_profiles(struct api *api, struct net_request *request, enum api_path path, enum api_format format, call_work_fn *work)
{
	struct net_body_options body = {.limit = api->options.limit_message};
	struct call *call = create(api, request, path);
	if (!call)
		return;
	call->pool = api->profiles;
	call->work = work;
	call->format = format;
	net_request_accept(request, &profiles_ops, call, &body);
}

void call_refuse(struct api *api, struct net_request *request, enum api_path path, unsigned status, const char *code,
	const char *message)
{
	net_request_error(request, status, code, "%s", message);
	api_metrics_request(&api->metrics, path, status, net_request_age_ns(request));
}

const char *call_param(const struct call *call, size_t i)
{
	const char *param = net_request_param(call->request, i);

	return param ? param : "";
}

void call_json(struct net_reply *reply, unsigned status)
{
	reply->status = status;
	reply->content_type = "application/json";
}

struct err *call_error_with_offset(struct net_reply *reply, unsigned status, const char *code, const char *message,
	uint64_t offset)
{
	struct json json = json_init(&reply->body);

	call_json(reply, status);
	json_object_begin(&json);
	json_key(&json, "error");
	json_object_begin(&json);
	json_key(&json, "code");
	json_text(&json, code);
	json_key(&json, "message");
	json_text(&json, message);
	json_object_end(&json);
	json_key(&json, "offset");
	json_u64(&json, offset);
	json_object_end(&json);
	return json_finish(&json);
}

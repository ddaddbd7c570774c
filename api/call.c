// SPDX-License-Identifier: Apache-2.0
/*
 * Life of a call: accepted on the loop -> body collected -> queued on its pool -> work() -> answer posted to the loop. Only a
 * parked one goes round: loop timer -> pool -> .. until nothing is pending or its time is over. The pool holds a reference to
 * the request while the call is queued or runs; the call dies with the request (on_free).
 */
#include "api/call.h"

#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { PARK_STEP_MS = 100, RETRY_AFTER_S = 1 };

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

/* Consumes @p e. */
static void reply_from_error(const struct call *call, struct err *e, struct net_reply *reply)
{
	unsigned status = 500;
	const char *code = "internal";

	switch (err_code(e)) {
	case ERR_INVALID:
		status = 400, code = "invalid";
		break;
	case ERR_LIMIT:
		status = 413, code = "too_large";
		break;
	case ERR_NOT_FOUND:
		status = 404, code = "not_found";
		break;
	case ERR_BUSY:
	case ERR_NOMEM:
		status = 503, code = "busy";
		break;
	case ERR_OS:
		if (err_errno(e) == ENOSPC || err_errno(e) == EDQUOT)
			status = 507, code = "no_space";
		break;
	default:
		break;
	}
	if (status >= 500)
		log_internal(call, e);
	net_reply_deinit(reply);
	net_reply_error(reply, status, code, "%s", err_message(e));
	if (status == 503)
		err_free(net_reply_header(reply, "Retry-After", "1"));
	err_free(e);
}

static void arm_timer(struct net_request *request, void *arg)
{
	(void)arg;
	if (!net_request_is_gone(request))
		net_request_set_timer(request, PARK_STEP_MS);
}

static void run(void *arg)
{
	struct call *call = arg;
	struct net_request *request = call->request;
	struct net_reply reply = {0};

	if (!net_request_is_gone(request)) {
		struct err *e = call->work(call, &reply);
		if (e)
			reply_from_error(call, e, &reply);
		if (!e && call->parked) {
			net_request_post(request, arm_timer, NULL);
		} else {
			count(call, reply.status);
			net_request_reply_post(request, &reply);
		}
		net_reply_deinit(&reply);
	}
	net_request_unref(request);
}

static void submit(struct net_request *request)
{
	struct call *call = net_request_user(request);
	struct net_reply reply = {0};

	(void)net_request_ref(request);
	if (net_pool_submit(call->pool, run, call))
		return;
	atomic_fetch_add_explicit(&call->api->metrics.refused_busy, 1, memory_order_relaxed);
	net_reply_error(&reply, 503, "busy", "the queue of requests is full");
	err_free(net_reply_header(&reply, "Retry-After", "1"));
	count(call, 503);
	net_request_reply(request, &reply);
	net_request_unref(request);
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

	arena_deinit(&call->arena);
	free(call);
}

static const struct net_request_ops call_ops = {
	.on_end = submit,
	.on_timer = on_timer,
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

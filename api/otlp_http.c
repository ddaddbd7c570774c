// SPDX-License-Identifier: Apache-2.0
/*
 * OTLP profiles: POST /v1development/profiles in protobuf and JSON, and ProfilesService/Export over gRPC. Answers have the format of the request; errors are a google.rpc.Status
 * in protobuf (OTLP specification, "Failures"), ours in JSON.
 */
#include "api/call.h"
#include "api/otlp_export.h"
#include "api/otlp_json.h"
#include "base/json.h"
#include "proto/wire.h"

#include <inttypes.h>
#include <stdio.h>

enum { STATUS_MESSAGE_FIELD = 2 };

static struct err *write_json(const struct otlp_outcome *outcome, struct buf *ret)
{
	struct json json = json_init(ret);

	json_object_begin(&json);
	if (outcome->rejected_profiles || outcome->message[0]) {
		json_key(&json, "partialSuccess");
		json_object_begin(&json);
		json_key(&json, "rejectedProfiles");
		json_text_u64(&json, outcome->rejected_profiles);
		json_key(&json, "errorMessage");
		json_text(&json, outcome->message);
		json_object_end(&json);
	}
	json_object_end(&json);
	return json_finish(&json);
}

/* Consumes @p e. What the store cannot take now is worth another try. */
static struct err *retryable(struct err *e)
{
	if (!e || err_code(e) != ERR_OS)
		return e;
	struct err *busy = err_new(ERR_BUSY, "%s", err_message(e));
	err_free(e);
	return busy;
}

/* The answer to a protobuf request over HTTP that failed. Consumes @p e. */
static struct err *write_status(const struct call *call, struct err *e, struct net_reply *reply)
{
	CLEANUP(buf_deinit) struct buf status = {0};
	struct err *failed = wire_append_bytes(&status, STATUS_MESSAGE_FIELD, err_message(e), strlen(err_message(e)));

	call_error_reply(call, e, reply);
	if (failed)
		return failed;
	buf_deinit(&reply->body);
	reply->body = status;
	status = (struct buf){0};
	reply->content_type = "application/x-protobuf";
	return NULL;
}

static struct err *write_answer(struct call *call, struct err *e, const struct otlp_outcome *outcome, struct net_reply *reply)
{
	e = retryable(e);
	if (e)
		return call->grpc || call->format == API_FORMAT_JSON ? e : write_status(call, e, reply);
	reply->status = 200;
	reply->content_type = call->format == API_FORMAT_JSON ? "application/json" : "application/x-protobuf";
	return call->format == API_FORMAT_JSON ? write_json(outcome, &reply->body) : otlp_write_response(outcome, &reply->body);
}

/* On the thread that commits. */
static void on_done(void *arg, struct err *e, const struct otlp_outcome *outcome)
{
	struct call *call = arg;

	call_end(call, write_answer(call, e, outcome, &call->reply));
}

static struct err *take(struct call *call)
{
	const struct buf *body = call_body(call);
	const char *peer = net_request_peer(call->request);
	CLEANUP(buf_deinit) struct buf message = {0};

	if (call->format == API_FORMAT_PROTOBUF)
		return otlp_export(call->api, peer, body->data, body->len, on_done, call);
	TRY(otlp_json_to_protobuf(body->data, body->len, &message));
	return otlp_export(call->api, peer, message.data, message.len, on_done, call);
}

static struct err *export_profiles(struct call *call, struct net_reply *reply)
{
	struct net_request *request = call->request;

	if (!call->api->options.samples)
		return err_new(ERR_NOT_FOUND, "this cairnd keeps no profiles");
	/* Before the hand-over: the answer may be on its way when take returns. */
	(void)net_request_ref(request);
	call->deferred = true;
	struct err *e = take(call);
	if (!e)
		return NULL;
	call->deferred = false;
	net_request_unref(request);
	return write_answer(call, e, NULL, reply);
}

void otlp_on_open(struct net_grpc_call *grpc, void *user)
{
	struct api *api = user;
	struct call *call = call_accept_grpc(api, grpc, API_PATH_OTLP_GRPC, api->profiles, export_profiles);

	if (call)
		call->format = API_FORMAT_PROTOBUF;
}

void otlp_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	if (net_request_content_type_is(request, "application/json"))
		call_accept_profiles(api, request, API_PATH_OTLP, API_FORMAT_JSON, export_profiles);
	else if (net_request_content_type_is(request, "application/x-protobuf") ||
		 net_request_content_type_is(request, "application/protobuf"))
		call_accept_profiles(api, request, API_PATH_OTLP, API_FORMAT_PROTOBUF, export_profiles);
	else
		call_refuse(api, request, API_PATH_OTLP, 415, "unsupported_media_type",
			"Content-Type must be application/x-protobuf or application/json");
}

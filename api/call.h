// SPDX-License-Identifier: Apache-2.0
/*
 * One request on its way through api/: from the loop to a pool and back. Internal to api/.
 */
#ifndef CAIRN_API_CALL_H
#define CAIRN_API_CALL_H

#include "api/agent_stream.h"
#include "api/api.h"
#include "api/metrics.h"
#include "api/symbolize_request.h"
#include "net/grpc.h"
#include "net/pool.h"
#include "net/router.h"

#include <pthread.h>
#include <stdatomic.h>

enum { API_FINISHED_KEPT = 1024 };

enum { API_GRPC_METHODS_MAX = 8 };

/* An upload that was finished, for clients that did not get the answer and ask again. */
struct api_finished {
	struct store_upload *upload;
	uint64_t job_id;
};

struct api {
	struct api_options options; /* defaults filled in */
	const struct net_server *server;
	struct net_pool *questions, *uploads, *profiles;
	struct api_otlp *otlp;
	struct net_grpc_method grpc_methods[API_GRPC_METHODS_MAX]; /* with limit_message */
	size_t grpc_method_count;
	struct api_metrics metrics;
	struct api_agents *agents;
	struct api_agent_counters agent_counters;
	_Atomic bool draining;
	_Atomic uint32_t held; /* calls whose answers wait for symbols; at most options.queue */
	pthread_mutex_t lock; /* symbolizers, finished */
	struct api_symbolizer **symbolizers; /* idle ones; at most one a question thread */
	size_t symbolizer_count;
	struct api_finished *finished; /* a ring of API_FINISHED_KEPT */
	size_t finished_next;
};

struct call;

/**
 * Does the work of a request on a pool's thread and fills @p reply (status, type, body). An error becomes the fitting
 * error answer. Setting call->parked instead holds the answer back; call->deferred says that call_end will bring it.
 */
typedef struct err *call_work_fn(struct call *call, struct net_reply *reply);

struct call {
	struct api *api;
	struct net_request *request; /* borrowed: the call is its user pointer, or that of its gRPC call */
	enum api_path path;
	struct net_pool *pool;
	call_work_fn *work;
	bool deferred;
	_Atomic bool counted; /* in the metrics: by whoever is first, answer or abort */

	/* gRPC only */
	struct net_grpc_call *grpc; /* borrowed; NULL over HTTP */
	struct buf message;	    /* the client's one message */
	size_t held_bytes;	    /* of api_otlp_hold */
	struct net_reply reply;	    /* from the pool's thread to the loop */
	struct err *error;	    /* likewise, in place of an answer */

	/* Symbolizing only */
	enum api_format format;
	bool parsed, parked, waited, held;
	uint64_t deadline_ns; /* of net_request_age_ns, while parked */
	struct arena arena;
	struct api_symbolize_request symbolize;
};

/** Accepts the request: its body of at most @p body_limit bytes is collected, then @p work runs on @p pool. Loop thread. */
void call_accept(struct api *api, struct net_request *request, enum api_path path, struct net_pool *pool, call_work_fn *work,
	uint64_t body_limit);
/** As call_accept, for POST /v1/symbolize. */
void call_accept_symbolize(struct api *api, struct net_request *request, enum api_format format, call_work_fn *work);
/**
 * Takes on a gRPC call with one message each way: from a method's on_open. @p work fills only status and body of its reply. The
 * method's other members are those of CALL_GRPC_UNARY. Loop thread.
 */
struct call *call_accept_grpc(struct api *api, struct net_grpc_call *grpc, enum api_path path, struct net_pool *pool,
	call_work_fn *work);
/** As call_accept, for profiles of that format: refused while the requests that are being read come to more than profiles_bytes. */
void call_accept_profiles(struct api *api, struct net_request *request, enum api_path path, enum api_format format, call_work_fn *work);
/**
 * The answer of a call that was deferred: call->reply, or @p take_e. The reference to the request that was taken (net_request_ref) before
 * it was deferred is dropped. Any thread.
 */
void call_end(struct call *call, struct err *take_e);
/** The error answer that @p take_e asks for over HTTP; what was in @p reply is dropped. */
void call_error_reply(const struct call *call, struct err *take_e, struct net_reply *reply);
void call_grpc_on_message(struct net_grpc_call *grpc, struct buf *message);
/** In place of call_grpc_on_message, for what call_accept_profiles is over HTTP. */
void call_grpc_on_profiles(struct net_grpc_call *grpc, struct buf *message);
void call_grpc_on_timer(struct net_grpc_call *grpc);
void call_grpc_on_cancel(struct net_grpc_call *grpc);
void call_grpc_on_free(void *user);
#define CALL_GRPC_UNARY                                                                                             \
	.unary = true, .on_message = call_grpc_on_message, .on_timer = call_grpc_on_timer, .on_cancel = call_grpc_on_cancel, \
	.on_free = call_grpc_on_free

/** The bytes of the question: the body over HTTP, the message over gRPC. */
const struct buf *call_body(const struct call *call);
/** Answers an error at once, before the body. Loop thread. */
void call_refuse(struct api *api, struct net_request *request, enum api_path path, unsigned status, const char *code,
	const char *message);

/** An address without its port (net_request_peer), as a number: whose budget of unknown IDs is used. */
uint64_t api_requester(const char *peer);
/** That of the call's peer. */
uint64_t call_requester(const struct call *call);
/** The i-th path parameter, "" when there is none. */
const char *call_param(const struct call *call, size_t i);
/** A JSON answer: sets status and type. The body is written by base/json. */
void call_json(struct net_reply *reply, unsigned status);
/** {"error":{..}} with more members behind it: `,"offset":5`. */
struct err *call_error_with_offset(struct net_reply *reply, unsigned status, const char *code, const char *message,
	uint64_t offset) MUST_USE;

/* The handlers: on_head of the routes. */
void symbolize_on_head(struct net_request *request, void *user);
/* on_open of the gRPC method */
void symbolize_on_open(struct net_grpc_call *grpc, void *user);
void otlp_on_head(struct net_request *request, void *user);
void otlp_on_open(struct net_grpc_call *grpc, void *user);
void profiles_on_head(struct net_request *request, void *user);
void files_on_head(struct net_request *request, void *user);
void file_on_head(struct net_request *request, void *user);
void job_on_head(struct net_request *request, void *user);
void uploads_on_head(struct net_request *request, void *user);
void upload_get_on_head(struct net_request *request, void *user);
void upload_chunk_on_head(struct net_request *request, void *user);
void upload_finish_on_head(struct net_request *request, void *user);
void upload_abort_on_head(struct net_request *request, void *user);
void agents_on_head(struct net_request *request, void *user);
void sync_begin_on_head(struct net_request *request, void *user);
void sync_show_on_head(struct net_request *request, void *user);
void healthz_on_head(struct net_request *request, void *user);
void readyz_on_head(struct net_request *request, void *user);
void metrics_on_head(struct net_request *request, void *user);

#endif

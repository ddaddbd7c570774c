// SPDX-License-Identifier: Apache-2.0
/*
 * What each request means: the routes of docs/http-api.md over net, store and ingest.
 *
 * Threads: a request's head and body arrive on a loop; whatever touches the store runs on one of three bounded pools, one for
 * questions (a thread a CPU), one for uploads (they wait for fsync, and must not keep questions waiting), one for profiles. A full queue is
 * answered 503. The answer goes back to the loop.
 */
#ifndef CAIRN_API_API_H
#define CAIRN_API_API_H

#include "base/err.h"
#include "net/server.h"

#include <stdint.h>

struct ingest;
struct samples;
struct sources;
struct store;
struct api;

/* 0 means the default that stands behind each. Pointers are borrowed until api_destroy. */
struct api_options {
	struct store *store;
	struct ingest *ingest; /* may be NULL: jobs then show no live progress */
	struct samples *samples; /* may be NULL: profiles are then neither taken nor shown */
	struct sources *sources; /* may be NULL: nobody is asked for what is not known */
	uint32_t threads;      /* for questions: one a CPU */
	uint32_t upload_threads; /* 4 */
	uint32_t queue;	       /* waiting questions, and waiting upload calls: 1024 */
	uint64_t limit_body;   /* of POST /v1/symbolize: 16 MiB */
	uint64_t limit_answer; /* of POST /v1/symbolize: 256 MiB */
	uint64_t limit_message; /* of one gRPC message, and of one profiles request: 64 MiB */
	uint64_t profiles_bytes; /* of all profiles requests that are being read; past it UNAVAILABLE, 503: 512 MiB */
	uint64_t unread_ms;	 /* that an agent may leave what it is told unread; then its stream is broken off: 30 s */
	uint64_t limit_modules; /* of one request: 10,000 */
	uint64_t limit_addresses; /* of one request: 100,000 */
	uint64_t names_bytes;  /* demangled names remembered, by each question thread: 64 MiB */
};

/** ERR_NOMEM, ERR_OS. */
struct err *api_create(const struct api_options *options, struct api **ret) MUST_USE;
/** What to hand to net_server_create. */
struct net_handler api_handler(struct api *api);
/** For /metrics; call before the server listens. @p server is borrowed until api_stop. */
void api_set_server(struct api *api, const struct net_server *server);
/** The server is stopping: /readyz says so, answers that are held go out now. Any thread. */
void api_drain(struct api *api);
/** Runs what is queued and joins the pools. After net_server_stop, before the store closes. Idempotent. */
void api_stop(struct api *api);
/** Stops, and frees. NULL is fine. No request may be left: net_server_destroy comes first. */
void api_destroy(struct api *api);

#endif

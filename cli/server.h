// SPDX-License-Identifier: Apache-2.0
/*
 * Talking to cairnd: JSON out, JSON in (docs/http-api.md).
 */
#ifndef CAIRN_CLI_SERVER_H
#define CAIRN_CLI_SERVER_H

#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* One connection, one thread at a time. */
struct server;

struct server_reply {
	unsigned status;     /* HTTP */
	json_t *body;	     /* an object; owned by the reply */
	uint32_t retry_after_s; /* of the header; 0: none */
};

/** Whether a --url has a scheme that is spoken. */
bool server_url_is_sound(const char *url);
/** @p url as given by --url: "http://host:port", a trailing slash is cut. ERR_INVALID; ERR_NOMEM. */
struct err *server_open(const char *url, struct server **ret) MUST_USE;
/** For CLEANUP. */
void server_closep(struct server **server);

/**
 * One request with a JSON body (NULL: none).
 * @param path  from the root: "/v1/uploads"
 * @return NULL whatever the status is, then server_reply_deinit; ERR_PEER: no connection, a broken one, an answer that is no JSON
 */
struct err *server_call(struct server *server, const char *method, const char *path, const struct buf *body,
	struct server_reply *ret) MUST_USE;
/** One request whose body is @p len bytes of @p fd from @p foff. */
struct err *server_put_bytes(struct server *server, const char *path, int fd, uint64_t foff, uint64_t len,
	struct server_reply *ret) MUST_USE;
/**
 * GET of something that is no JSON, its body appended to @p ret.
 * @return NULL when the status is 200; otherwise as server_reply_error and server_call
 */
struct err *server_get_bytes(struct server *server, const char *path, struct buf *ret) MUST_USE;
/** For CLEANUP. */
void server_reply_deinit(struct server_reply *reply);

/**
 * What an unwelcome reply says: "<url><path>: 404 not_found: no such upload". ERR_BUSY for 408 and 503: try again; ERR_LIMIT for
 * 413 and 507; ERR_INVALID for other refusals (4xx); else ERR_PEER.
 */
struct err *server_reply_error(const struct server *server, const char *path, const struct server_reply *reply) MUST_USE;
/** A member of the reply that must be a string; "" when it is not there. Borrowed. */
const char *server_reply_text(const struct server_reply *reply, const char *member);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The client half: a synchronous HTTP client for the command line programs, on libcurl. A handle keeps its connection
 * alive between calls and serves one thread at a time; several handles serve several threads.
 */
#ifndef CAIRN_NET_CLIENT_H
#define CAIRN_NET_CLIENT_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct net_client;

struct net_client_options {
	const char *hint;	     /* appended when nobody listens: "is cairnd running?"; NULL: nothing */
	const char *user_agent;	     /* NULL: "cairn/<version>" */
	uint64_t connect_timeout_ms; /* 0: 5 s */
	uint64_t stall_timeout_ms;   /* without a byte in either direction; 0: 60 s */
	uint64_t total_timeout_ms;   /* 0: none */
};

struct net_client_header {
	const char *name;
	const char *value;
};

/* What to send. The body is bytes in memory, or a range of a descriptor (read with pread: the position stays), or nothing. */
struct net_client_request {
	const char *method; /* "GET", "HEAD", "POST", "PUT", "DELETE" */
	const char *url;
	const struct net_client_header *headers;
	size_t header_count;
	const void *body;
	uint64_t body_len;
	bool body_is_fd;
	int body_fd;
	uint64_t body_foff;
	uint64_t reply_limit; /* bytes of the reply's body after decoding; past it ERR_LIMIT. 0: 64 MiB */
};

struct net_client_reply {
	unsigned status;
	struct buf body;    /* NUL-terminated one byte past len */
	struct buf headers; /* "name: value\n" lines, names in lower case, of the last head */
};

struct err *net_client_create(const struct net_client_options *options, struct net_client **ret) MUST_USE;
/**
 * Sends one request and waits for the whole reply. Any status is success here.
 * @return NULL; ERR_PEER: "http://127.0.0.1:4318/v1/files: connection refused: is cairnd running?" and other failures of
 * the connection; ERR_LIMIT; ERR_INVALID: malformed URL or method; ERR_OS: the descriptor cannot be read.
 */
struct err *net_client_send(struct net_client *client, const struct net_client_request *request,
	struct net_client_reply *ret) MUST_USE;
/** The first header of that name (lower case) in @p value (cut to @p size); false when there is none. */
bool net_client_reply_header(const struct net_client_reply *reply, const char *lower_name, char *value, size_t size);
void net_client_reply_deinit(struct net_client_reply *reply);
void net_client_destroy(struct net_client *client);
/** For CLEANUP. */
void net_client_destroyp(struct net_client **client);

#endif

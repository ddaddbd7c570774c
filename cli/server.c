// SPDX-License-Identifier: Apache-2.0
#include "cli/server.h"

#include "cli/cli.h"
#include "net/client.h"

#include <stdio.h>
#include <string.h>

/* A batch of 10,000 addresses gives some tens of MB. */
enum { REPLY_BYTES_MAX = 512 << 20 };

struct server {
	char *url;
	struct net_client *client;
};

bool server_url_is_sound(const char *url)
{
	return strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
}

struct err *server_open(const char *url, struct server **ret)
{
	CLEANUP(server_closep) struct server *server = calloc(1, sizeof(*server));
	const struct net_client_options options = {.hint = "is cairnd running?"};

	if (!server)
		return err_nomem();
	if (!server_url_is_sound(url))
		return err_new(ERR_INVALID, "\"%s\" is no http:// or https:// address", url);
	server->url = strdup(url);
	if (!server->url)
		return err_nomem();
	for (size_t len = strlen(url); len > 0 && url[len - 1] == '/'; len--)
		server->url[len - 1] = 0;
	TRY(net_client_create(&options, &server->client));
	*ret = TAKE_PTR(server);
	return NULL;
}

void server_closep(struct server **server)
{
	if (!*server)
		return;
	net_client_destroy((*server)->client);
	free((*server)->url);
	free(*server);
}

static struct err *send_raw(struct server *server, const char *path, struct net_client_request *request,
	struct net_client_reply *ret)
{
	CLEANUP(freep) char *url = NULL;

	if (asprintf(&url, "%s%s", server->url, path) < 0) {
		url = NULL;
		return err_nomem();
	}
	request->url = url;
	request->reply_limit = REPLY_BYTES_MAX;
	return net_client_send(server->client, request, ret);
}

/* Plain bodies (/healthz) become an empty object; so does a proxy's error page, which then has its status only. */
static struct err *parse_reply(const struct net_client_reply *reply, struct server_reply *ret)
{
	char retry[32];
	json_error_t error;

	*ret = (struct server_reply){.status = reply->status};
	if (net_client_reply_header(reply, "retry-after", retry, sizeof(retry)))
		(void)cli_parse_count(retry, 3600, &ret->retry_after_s);
	ret->body = reply->body.len > 0 ? json_loadb((const char *)reply->body.data, reply->body.len, 0, &error) : NULL;
	if (!json_is_object(ret->body)) {
		json_decref(ret->body);
		ret->body = json_object();
	}
	return ret->body ? NULL : err_nomem();
}

static struct err *send_request(struct server *server, const char *path, struct net_client_request *request,
	struct server_reply *ret)
{
	struct net_client_reply reply = {0};

	TRY(send_raw(server, path, request, &reply));
	struct err *e = parse_reply(&reply, ret);
	net_client_reply_deinit(&reply);
	return e;
}

struct err *server_get_bytes(struct server *server, const char *path, struct buf *ret)
{
	struct net_client_request request = {.method = "GET"};
	struct net_client_reply reply = {0};
	CLEANUP(server_reply_deinit) struct server_reply parsed = {0};

	TRY(send_raw(server, path, &request, &reply));
	struct err *e = NULL;
	if (reply.status == 200)
		e = buf_append(ret, reply.body.data, reply.body.len);
	else
		e = parse_reply(&reply, &parsed);
	if (!e && reply.status != 200)
		e = server_reply_error(server, path, &parsed);
	net_client_reply_deinit(&reply);
	return e;
}

struct err *server_call(struct server *server, const char *method, const char *path, const struct buf *body,
	struct server_reply *ret)
{
	static const struct net_client_header json_type = {.name = "Content-Type", .value = "application/json"};
	struct net_client_request request = {.method = method};

	if (body) {
		request.body = body->data;
		request.body_len = body->len;
		request.headers = &json_type;
		request.header_count = 1;
	}
	return send_request(server, path, &request, ret);
}

struct err *server_put_bytes(struct server *server, const char *path, int fd, uint64_t foff, uint64_t len,
	struct server_reply *ret)
{
	struct net_client_request request = {
		.method = "PUT", .body_is_fd = true, .body_fd = fd, .body_foff = foff, .body_len = len};

	return send_request(server, path, &request, ret);
}

void server_reply_deinit(struct server_reply *reply)
{
	json_decref(reply->body);
	*reply = (struct server_reply){0};
}

struct err *server_reply_error(const struct server *server, const char *path, const struct server_reply *reply)
{
	const json_t *error = json_object_get(reply->body, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));
	enum err_code reaction = ERR_PEER;

	if (reply->status == 503 || reply->status == 408)
		reaction = ERR_BUSY;
	else if (reply->status == 413 || reply->status == 507)
		reaction = ERR_LIMIT;
	else if (reply->status < 500)
		reaction = ERR_INVALID;
	return err_new(reaction, "%s%s: %u %s%s%s", server->url, path, reply->status, code ? code : "", message ? ": " : "",
		message ? message : "");
}

const char *server_reply_text(const struct server_reply *reply, const char *member)
{
	const char *text = json_string_value(json_object_get(reply->body, member));

	return text ? text : "";
}

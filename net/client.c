// SPDX-License-Identifier: Apache-2.0
#include "net/client.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { CONNECT_TIMEOUT_MS = 5000, STALL_TIMEOUT_MS = 60000, HEADERS_MAX = 64 * 1024, HINT_MAX = 128, AGENT_MAX = 64 };

struct net_client {
	CURL *curl;
	char hint[HINT_MAX];
	char user_agent[AGENT_MAX];
	uint64_t connect_timeout_ms, stall_timeout_ms, total_timeout_ms;
	char message[CURL_ERROR_SIZE];
};

/* One call's state, for libcurl's callbacks. */
struct transfer {
	const struct net_client_request *request;
	uint64_t sent;
	uint64_t limit;
	struct net_client_reply *reply;
	struct err *e; /* the first failure of a callback */
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void global_init(void)
{
	global_code = curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct err *net_client_create(const struct net_client_options *options, struct net_client **ret)
{
	(void)pthread_once(&global_once, global_init);
	if (global_code != CURLE_OK)
		return err_new(ERR_INTERNAL, "libcurl: %s", curl_easy_strerror(global_code));
	struct net_client *client = calloc(1, sizeof(*client));
	if (!client)
		return err_nomem();
	client->curl = curl_easy_init();
	if (!client->curl) {
		free(client);
		return err_nomem();
	}
	client->connect_timeout_ms = options->connect_timeout_ms ? options->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	client->stall_timeout_ms = options->stall_timeout_ms ? options->stall_timeout_ms : STALL_TIMEOUT_MS;
	client->total_timeout_ms = options->total_timeout_ms;
	(void)snprintf(client->hint, sizeof(client->hint), "%s", options->hint ? options->hint : "");
	(void)snprintf(client->user_agent, sizeof(client->user_agent), "%s",
		options->user_agent ? options->user_agent : "cairn/" CAIRN_VERSION);
	*ret = client;
	return NULL;
}

void net_client_destroy(struct net_client *client)
{
	if (!client)
		return;
	curl_easy_cleanup(client->curl);
	free(client);
}

void net_client_destroyp(struct net_client **client)
{
	net_client_destroy(*client);
}

void net_client_reply_deinit(struct net_client_reply *reply)
{
	buf_deinit(&reply->body);
	buf_deinit(&reply->headers);
}

/* ---- libcurl's callbacks: a short return makes it fail ---- */

static size_t on_body(char *bytes, size_t one, size_t len, void *user)
{
	struct transfer *t = user;

	len *= one;
	if (t->e)
		return 0;
	if (len > t->limit - t->reply->body.len)
		t->e = err_new(ERR_LIMIT, "the answer is longer than %llu bytes", (unsigned long long)t->limit);
	else
		t->e = buf_append(&t->reply->body, bytes, len);
	return t->e ? 0 : len;
}

/* Keeps "name: value\n" with the name in lower case; a status line begins anew (100 Continue, then the real one). */
static size_t on_header(char *line, size_t one, size_t len, void *user)
{
	struct transfer *t = user;
	struct buf *headers = &t->reply->headers;

	len *= one;
	if (t->e)
		return 0;
	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
		headers->len = 0;
		return len;
	}
	size_t keep = len;
	while (keep > 0 && isspace((unsigned char)line[keep - 1]))
		keep--;
	char *colon = memchr(line, ':', keep);
	if (!colon)
		return len;
	for (char *c = line; c < colon; c++)
		*c = (char)tolower((unsigned char)*c);
	char *value = colon + 1;
	while (value < line + keep && isspace((unsigned char)*value))
		value++;
	if (headers->len + len > HEADERS_MAX)
		t->e = err_new(ERR_LIMIT, "the head of the answer is longer than %d bytes", HEADERS_MAX);
	else
		t->e = buf_printf(headers, "%.*s: %.*s\n", (int)(colon - line), line, (int)(line + keep - value), value);
	return t->e ? 0 : len;
}

static size_t on_send(char *to, size_t one, size_t size, void *user)
{
	struct transfer *t = user;
	const struct net_client_request *request = t->request;
	uint64_t left = request->body_len - t->sent;

	size *= one;
	if (size > left)
		size = (size_t)left;
	if (size == 0)
		return 0;
	if (!request->body_is_fd) {
		memcpy(to, (const uint8_t *)request->body + t->sent, size);
	} else {
		ssize_t got;
		do
			got = pread(request->body_fd, to, size, (off_t)(request->body_foff + t->sent));
		while (got < 0 && errno == EINTR);
		if (got <= 0) {
			t->e = got < 0 ? err_os(errno, "read the body") : err_new(ERR_MISMATCH, "the file has become shorter");
			return CURL_READFUNC_ABORT;
		}
		size = (size_t)got;
	}
	t->sent += size;
	return size;
}

/* libcurl goes back to the start when it sends again on a new connection. */
static int on_seek(void *user, curl_off_t offset, int origin)
{
	struct transfer *t = user;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->request->body_len)
		return CURL_SEEKFUNC_FAIL;
	t->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* ---- one call ---- */

static struct err *build_headers(const struct net_client_request *request, struct curl_slist **ret)
{
	struct curl_slist *list = NULL;
	CLEANUP(buf_deinit) struct buf line = {0};
	struct err *e = NULL;

	/* No pause for 100-continue by default: the server answers early all the same, and each call would wait. */
	struct curl_slist *more = curl_slist_append(NULL, "Expect:");
	for (size_t i = 0; more && !e && i < request->header_count; i++) {
		list = more;
		line.len = 0;
		const struct net_client_header *header = &request->headers[i];
		if (strpbrk(header->name, "\r\n:") || strpbrk(header->value, "\r\n"))
			e = err_new(ERR_INVALID, "malformed header %s", header->name);
		else
			e = buf_printf(&line, header->value[0] ? "%s: %s" : "%s;", header->name, header->value);
		if (!e)
			e = buf_append(&line, "", 1);
		if (!e)
			more = curl_slist_append(list, (const char *)line.data);
	}
	if (more)
		list = more;
	if (!more || e) {
		curl_slist_free_all(list);
		return e ? e : err_nomem();
	}
	*ret = list;
	return NULL;
}

static CURLcode set_method(CURL *curl, const struct net_client_request *request)
{
	const char *method = request->method;
	bool has_body = request->body_len > 0;

	if (strcmp(method, "HEAD") == 0)
		return curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	if (strcmp(method, "GET") == 0 && !has_body)
		return curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
	/* POST with a read callback serves every other method: it sends Content-Length, also when it is 0. */
	CURLcode code = curl_easy_setopt(curl, CURLOPT_POST, 1L);
	if (code == CURLE_OK)
		code = curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len);
	if (code == CURLE_OK && strcmp(method, "POST") != 0)
		code = curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	return code;
}

static struct err *set_options(struct net_client *client, struct transfer *t, struct curl_slist *headers)
{
	CURL *curl = client->curl;
	CURLcode code = CURLE_OK;
	long stall_s = (long)((client->stall_timeout_ms + 999) / 1000);

#define SET(option, value)                                                                         \
	do {                                                                                       \
		if (code == CURLE_OK)                                                              \
			code = curl_easy_setopt(curl, option, value);                              \
	} while (0)
	/* Keeps connections and the DNS cache. */
	curl_easy_reset(curl);
	SET(CURLOPT_URL, t->request->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_USERAGENT, client->user_agent);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_ACCEPT_ENCODING, "");
	SET(CURLOPT_ERRORBUFFER, client->message);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)client->connect_timeout_ms);
	SET(CURLOPT_TIMEOUT_MS, (long)client->total_timeout_ms);
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
	SET(CURLOPT_LOW_SPEED_TIME, stall_s);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_READFUNCTION, on_send);
	SET(CURLOPT_READDATA, t);
	SET(CURLOPT_SEEKFUNCTION, on_seek);
	SET(CURLOPT_SEEKDATA, t);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
	SET(CURLOPT_BUFFERSIZE, 256L * 1024);
#undef SET
	if (code == CURLE_OK)
		code = set_method(curl, t->request);
	return code == CURLE_OK ? NULL : err_new(ERR_INVALID, "libcurl: %s", curl_easy_strerror(code));
}

static struct err *err_from_curl(struct net_client *client, CURLcode code)
{
	const char *message = client->message[0] ? client->message : curl_easy_strerror(code);

	switch (code) {
	case CURLE_OUT_OF_MEMORY:
		return err_nomem();
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return err_new(ERR_INVALID, "not an http or https URL");
	case CURLE_COULDNT_CONNECT: {
		long error = 0;
		char text[128];
		(void)curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &error);
		const char *why = error ? strerror_r((int)error, text, sizeof(text)) : message;
		if (error == ECONNREFUSED)
			why = "connection refused";
		return err_new(ERR_PEER, "%s%s%s", why, client->hint[0] ? ": " : "", client->hint);
	}
	case CURLE_OPERATION_TIMEDOUT:
		return err_new(ERR_PEER, "timed out: %s", message);
	case CURLE_GOT_NOTHING:
		return err_new(ERR_PEER, "the server closed the connection without an answer");
	default:
		return err_new(ERR_PEER, "%s", message);
	}
}

static struct err *perform(struct net_client *client, struct transfer *t)
{
	struct curl_slist *headers = NULL;
	long status = 0;

	client->message[0] = 0;
	TRY(build_headers(t->request, &headers));
	struct err *e = set_options(client, t, headers);
	if (!e) {
		CURLcode code = curl_easy_perform(client->curl);
		(void)curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
		/* A server that answers before it has read the body (413) may cut our sending short: the answer counts. */
		bool answered = code == CURLE_SEND_ERROR && status >= 400 && !t->e;
		if (t->e)
			e = TAKE_PTR(t->e);
		else if (code != CURLE_OK && !answered)
			e = err_from_curl(client, code);
	}
	/* The list must not be looked at by a later call. */
	(void)curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(headers);
	t->reply->status = (unsigned)status;
	return e;
}

struct err *net_client_send(struct net_client *client, const struct net_client_request *request,
	struct net_client_reply *ret)
{
	struct net_client_reply reply = {0};
	struct transfer t = {.request = request, .reply = &reply};

	t.limit = request->reply_limit ? request->reply_limit : 64u << 20;
	struct err *e = perform(client, &t);
	if (!e)
		e = buf_reserve(&reply.body, 1);
	if (e) {
		net_client_reply_deinit(&reply);
		return err_wrap(e, "%s", request->url);
	}
	reply.body.data[reply.body.len] = 0;
	*ret = reply;
	return NULL;
}

bool net_client_reply_header(const struct net_client_reply *reply, const char *lower_name, char *value, size_t size)
{
	const char *at = (const char *)reply->headers.data;
	const char *end = reply->headers.len > 0 ? at + reply->headers.len : at;
	size_t name_len = strlen(lower_name);

	while (at < end) {
		const char *lf = memchr(at, '\n', (size_t)(end - at));
		if (!lf)
			break;
		if ((size_t)(lf - at) >= name_len + 2 && memcmp(at, lower_name, name_len) == 0 && at[name_len] == ':') {
			(void)snprintf(value, size, "%.*s", (int)(lf - at - (ptrdiff_t)name_len - 2), at + name_len + 2);
			return true;
		}
		at = lf + 1;
	}
	return false;
}

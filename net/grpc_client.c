// SPDX-License-Identifier: Apache-2.0
/*
 * nghttp2's client session on a non-blocking socket. A call has one queue of bytes (prefixed messages); nghttp2 asks for them as
 * the server's windows allow, and what is not asked for waits there: its length is what a sender paces itself by.
 */
#include "net/grpc_client.h"

#include "net/address.h"
#include "net/grpc_frame.h"
#include "net/grpc_retry.h"
#include "net/tls_client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { CONNECT_TIMEOUT_MS = 5000, READ_BYTES = 65536, RECEIVE_WINDOW = 1 << 20, MESSAGE_TEXT_MAX = 1024, QUEUE_KEEP = 1 << 20,
	READS_MAX = 64 /* of one run: a peer that sends without end gets no further */ };

struct net_grpc_client {
	struct net_grpc_client_options options;
	char address[160];
	int fd;
	struct net_tls_client *tls; /* NULL: plain */
	nghttp2_session *session;
	struct net_grpc_client_call *calls; /* list */
	uint64_t sent, received;
	bool blocked; /* the socket takes no more */
	bool unread;  /* READS_MAX was reached: there may be more, which poll does not know of under TLS */
	bool broken;  /* it will never take any more; what the server said before it left may still be read */
	struct buf scratch;
};

struct net_grpc_client_call {
	struct net_grpc_client *client;
	struct net_grpc_client_call *next, **at;
	const struct net_grpc_client_ops *ops;
	void *user;
	int32_t stream;
	struct buf out;
	size_t out_pos;
	bool half_closed, failed;
	struct grpc_reader reader;
	int status; /* of grpc-status; -1: none yet */
	int http_status;
	bool has_retry;
	uint64_t retry_ms;
	char message[MESSAGE_TEXT_MAX];
};

/* -------------------------------------------------------------------------------------- the socket */

static ssize_t send_bytes(struct net_grpc_client *client, const void *bytes, size_t len)
{
	ssize_t n;

	if (client->tls)
		return net_tls_client_send(client->tls, bytes, len);
	do
		n = send(client->fd, bytes, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n;
}

static ssize_t receive_bytes(struct net_grpc_client *client, void *bytes, size_t len)
{
	ssize_t n;

	if (client->tls)
		return net_tls_client_recv(client->tls, bytes, len);
	do
		n = recv(client->fd, bytes, len, 0);
	while (n < 0 && errno == EINTR);
	return n;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *bytes, size_t len, int flags, void *user)
{
	struct net_grpc_client *client = user;
	ssize_t n = send_bytes(client, bytes, len);

	(void)session, (void)flags;
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		client->blocked = true;
		return NGHTTP2_ERR_WOULDBLOCK;
	}
	if (n < 0) {
		client->broken = true;
		return NGHTTP2_ERR_WOULDBLOCK;
	}
	client->sent += (uint64_t)n;
	return n;
}

static ssize_t on_read(nghttp2_session *session, int32_t stream, uint8_t *bytes, size_t len, uint32_t *flags,
	nghttp2_data_source *source, void *user)
{
	struct net_grpc_client_call *call = source->ptr;
	size_t n = call->out.len - call->out_pos;

	(void)session, (void)stream, (void)user;
	if (n == 0 && !call->half_closed)
		return NGHTTP2_ERR_DEFERRED;
	if (n > len)
		n = len;
	if (n > 0)
		memcpy(bytes, call->out.data + call->out_pos, n);
	call->out_pos += n;
	if (call->out_pos == call->out.len) {
		call->out.len = call->out_pos = 0;
		if (call->out.cap > QUEUE_KEEP)
			buf_deinit(&call->out);
		if (call->half_closed)
			*flags |= NGHTTP2_DATA_FLAG_EOF;
	}
	return (ssize_t)n;
}

/* -------------------------------------------------------------------------------------- answers */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* grpc-message: percent-encoded. */
static void decode_message(struct net_grpc_client_call *call, const uint8_t *value, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 1 < sizeof(call->message); i++) {
		char c = (char)value[i];
		if (c == '%' && i + 2 < len && hex_value((char)value[i + 1]) >= 0 && hex_value((char)value[i + 2]) >= 0) {
			c = (char)(hex_value((char)value[i + 1]) << 4 | hex_value((char)value[i + 2]));
			i += 2;
		}
		call->message[n++] = c;
	}
	call->message[n] = 0;
}

/* retry-after in its form of seconds; a date is not looked at. */
static bool seconds_of(const uint8_t *value, size_t len, uint64_t *ms_ret)
{
	uint64_t seconds = 0;

	for (size_t i = 0; i < len; i++) {
		if (value[i] < '0' || value[i] > '9' || i == 9)
			return false;
		seconds = 10 * seconds + (uint64_t)(value[i] - '0');
	}
	*ms_ret = seconds * 1000;
	return len > 0;
}

static int small_number(const uint8_t *value, size_t len)
{
	int number = 0;

	for (size_t i = 0; i < len && i < 4; i++)
		number = value[i] >= '0' && value[i] <= '9' ? 10 * number + (value[i] - '0') : -1;
	return number;
}

static bool is_name(const uint8_t *name, size_t len, const char *text)
{
	return len == strlen(text) && memcmp(name, text, len) == 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len, const uint8_t *value,
	size_t len, uint8_t flags, void *user)
{
	struct net_grpc_client_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)flags, (void)user;
	if (!call)
		return 0;
	if (is_name(name, name_len, "grpc-status"))
		call->status = small_number(value, len);
	else if (is_name(name, name_len, "grpc-message"))
		decode_message(call, value, len);
	else if (is_name(name, name_len, ":status"))
		call->http_status = small_number(value, len);
	else if (is_name(name, name_len, GRPC_RETRY_HEADER))
		call->has_retry |= grpc_retry_parse(value, len, &call->retry_ms);
	else if (is_name(name, name_len, "retry-after"))
		call->has_retry |= seconds_of(value, len, &call->retry_ms);
	else if (is_name(name, name_len, "grpc-encoding") && len == 4 && memcmp(value, "gzip", 4) == 0)
		call->reader.codec = CODEC_GZIP;
	return 0;
}

static bool on_whole_message(void *user, struct buf *message)
{
	struct net_grpc_client_call *call = user;

	if (call->ops->on_message)
		call->ops->on_message(call->user, message->data, message->len);
	return true;
}

static void fail_call(struct net_grpc_client_call *call, enum net_grpc_status status, const char *message)
{
	call->failed = true;
	call->status = (int)status;
	(void)snprintf(call->message, sizeof(call->message), "%s", message);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t len, void *user)
{
	struct net_grpc_client_call *call = nghttp2_session_get_stream_user_data(session, stream);

	(void)flags, (void)user;
	if (!call || call->failed)
		return 0;
	struct err *e = grpc_reader_feed(&call->reader, bytes, len);
	if (e) {
		fail_call(call, err_code(e) == ERR_LIMIT ? NET_GRPC_RESOURCE_EXHAUSTED : NET_GRPC_INTERNAL, err_message(e));
		err_free(e);
		(void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
	}
	return 0;
}

static void free_call(struct net_grpc_client_call *call)
{
	*call->at = call->next;
	if (call->next)
		call->next->at = call->at;
	grpc_reader_deinit(&call->reader);
	buf_deinit(&call->out);
	free(call);
}

/* Source: gRPC, "HTTP to gRPC Status Code Mapping". 0: there was no answer at all; 200: one that was broken off. */
static enum net_grpc_status status_of_http(int http)
{
	switch (http) {
	case 0:
	case 200:
	case 429:
	case 502:
	case 503:
	case 504:
		return NET_GRPC_UNAVAILABLE;
	case 400:
		return NET_GRPC_INTERNAL;
	case 401:
		return NET_GRPC_UNAUTHENTICATED;
	case 403:
		return NET_GRPC_PERMISSION_DENIED;
	case 404:
		return NET_GRPC_UNIMPLEMENTED;
	default:
		return NET_GRPC_UNKNOWN;
	}
}

/* @p lost: why the connection is gone; NULL: it is the call alone that ends. */
static void end_call(struct net_grpc_client_call *call, const char *lost)
{
	if (call->status < 0) {
		call->status = (int)status_of_http(call->http_status);
		if (lost)
			(void)snprintf(call->message, sizeof(call->message), "%s", lost);
		else
			(void)snprintf(call->message, sizeof(call->message), "the call was broken off (HTTP status %d)", call->http_status);
	}
	if (call->ops->on_end)
		call->ops->on_end(call->user, (enum net_grpc_status)call->status, call->message);
	free_call(call);
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
	struct net_grpc_client_call *call = nghttp2_session_get_stream_user_data(session, stream);

	(void)code, (void)user;
	if (call)
		end_call(call, NULL);
	return 0;
}

/* The server has answered in full (a status before the end of ours): nobody reads the rest. */
static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct net_grpc_client_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)user;
	if (call && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && !(call->half_closed && call->out.len == 0))
		(void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_CANCEL);
	return 0;
}

/* -------------------------------------------------------------------------------------- connecting */

static struct err *connect_one(const struct addrinfo *info, int timeout_ms, const char *address, int *ret)
{
	CLEANUP(closep) int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, info->ai_protocol);
	int error = 0, one = 1;
	socklen_t len = sizeof(error);

	if (fd < 0)
		return err_os(errno, "%s", address);
	if (connect(fd, info->ai_addr, info->ai_addrlen) != 0) {
		struct pollfd poller = {.fd = fd, .events = POLLOUT};
		if (errno != EINPROGRESS)
			return err_new(ERR_PEER, "%s: %s", address, strerror(errno));
		if (poll(&poller, 1, timeout_ms) <= 0)
			return err_new(ERR_PEER, "%s: no connection within %d ms", address, timeout_ms);
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error)
			return err_new(ERR_PEER, "%s: %s", address, strerror(error));
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*ret = take_fd(&fd);
	return NULL;
}

static struct err *connect_any(struct net_grpc_client *client, char host[NET_HOST_MAX + 1])
{
	uint64_t timeout = client->options.connect_timeout_ms;
	struct addrinfo *infos = NULL;

	TRY(net_address_resolve_peer(client->address, host, &infos));
	struct err *e = err_new(ERR_PEER, "%s: no address", client->address);
	for (const struct addrinfo *info = infos; info && e; info = info->ai_next) {
		err_free(e);
		e = connect_one(info, timeout > INT_MAX ? INT_MAX : (int)timeout, client->address, &client->fd);
	}
	freeaddrinfo(infos);
	return e;
}

static struct err *connect_tls(struct net_grpc_client *client, const char *host)
{
	uint64_t deadline_ns = net_now_ns() + client->options.connect_timeout_ms * 1000000;

	if (!client->options.tls)
		return NULL;
	struct err *e = net_tls_client_create(client->options.tls, host, client->fd, deadline_ns, &client->tls);
	return err_wrap(e, "%s", client->address);
}

static struct err *nomem_or(int code, const char *what)
{
	return code == NGHTTP2_ERR_NOMEM ? err_nomem() : err_new(ERR_PEER, "%s: %s", what, nghttp2_strerror(code));
}

static struct err *create_session(struct net_grpc_client *client)
{
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, RECEIVE_WINDOW}};
	nghttp2_session_callbacks *callbacks;

	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		return err_nomem();
	nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	int code = nghttp2_session_client_new(&client->session, callbacks, client);
	nghttp2_session_callbacks_del(callbacks);
	if (code == 0)
		code = nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings));
	if (code == 0)
		code = nghttp2_session_set_local_window_size(client->session, NGHTTP2_FLAG_NONE, 0, RECEIVE_WINDOW);
	return code ? nomem_or(code, client->address) : NULL;
}

struct err *net_grpc_client_connect(const char *address, const struct net_grpc_client_options *options, struct net_grpc_client **ret)
{
	CLEANUP(net_grpc_client_destroyp) struct net_grpc_client *client = calloc(1, sizeof(*client));
	char host[NET_HOST_MAX + 1];

	if (!client)
		return err_nomem();
	client->fd = -1;
	client->options = *options;
	if (!client->options.message_max)
		client->options.message_max = NET_GRPC_MESSAGE_MAX_DEFAULT;
	if (!client->options.connect_timeout_ms)
		client->options.connect_timeout_ms = CONNECT_TIMEOUT_MS;
	if ((size_t)snprintf(client->address, sizeof(client->address), "%s", address) >= sizeof(client->address))
		return err_new(ERR_INVALID, "an address of %zu bytes", strlen(address));
	TRY(connect_any(client, host));
	TRY(connect_tls(client, host));
	TRY(create_session(client));
	*ret = TAKE_PTR(client);
	return NULL;
}

struct err *net_grpc_client_check(const char *address, const struct net_grpc_client_options *options)
{
	TRY(net_address_check_peer(address));
	return options->tls ? net_tls_client_check(options->tls) : NULL;
}

void net_grpc_client_destroy(struct net_grpc_client *client)
{
	if (!client)
		return;
	while (client->calls)
		free_call(client->calls);
	if (client->session) {
		/* It calls on_close for no stream on deletion. */
		nghttp2_session_del(client->session);
	}
	net_tls_client_destroy(client->tls);
	if (client->fd >= 0)
		(void)close(client->fd);
	buf_deinit(&client->scratch);
	free(client);
}

void net_grpc_client_destroyp(struct net_grpc_client **client)
{
	net_grpc_client_destroy(*client);
}

/* -------------------------------------------------------------------------------------- calls */

static nghttp2_nv header(const char *name, const char *value)
{
	return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
		.namelen = strlen(name),
		.value = (uint8_t *)(uintptr_t)value,
		.valuelen = strlen(value)};
}

struct err *net_grpc_client_open(struct net_grpc_client *client, const char *path, const struct net_grpc_client_ops *ops, void *user,
	struct net_grpc_client_call **ret)
{
	const char *agent = client->options.user_agent ? client->options.user_agent : "cairn/" CAIRN_VERSION;
	struct net_grpc_client_call *call = calloc(1, sizeof(*call));
	nghttp2_nv headers[9];
	size_t count = 0;

	if (!call)
		return err_nomem();
	headers[count++] = header(":method", "POST");
	headers[count++] = header(":scheme", client->tls ? "https" : "http");
	headers[count++] = header(":path", path);
	headers[count++] = header(":authority", client->address);
	headers[count++] = header("content-type", "application/grpc");
	headers[count++] = header("te", "trailers");
	headers[count++] = header("user-agent", agent);
	headers[count++] = header("grpc-accept-encoding", "identity,gzip");
	if (client->options.gzip_level > 0)
		headers[count++] = header("grpc-encoding", "gzip");
	nghttp2_data_provider provider = {.source.ptr = call, .read_callback = on_read};
	call->client = client;
	call->ops = ops;
	call->user = user;
	call->status = -1;
	call->reader = (struct grpc_reader){.limit = client->options.message_max, .on_message = on_whole_message, .user = call};
	call->stream = nghttp2_submit_request(client->session, NULL, headers, count, &provider, call);
	if (call->stream < 0) {
		int code = call->stream;
		free(call);
		return nomem_or(code, client->address);
	}
	call->next = client->calls;
	call->at = &client->calls;
	if (call->next)
		call->next->at = &call->next;
	client->calls = call;
	*ret = call;
	return NULL;
}

struct err *net_grpc_client_send(struct net_grpc_client_call *call, const void *bytes, size_t len)
{
	struct net_grpc_client *client = call->client;
	bool compressed = client->options.gzip_level > 0;

	if (compressed) {
		client->scratch.len = 0;
		TRY(codec_compress_gzip(bytes, len, client->options.gzip_level, &client->scratch));
		bytes = client->scratch.data;
		len = client->scratch.len;
	}
	if (len > UINT32_MAX)
		return err_new(ERR_LIMIT, "a message of %zu bytes", len);
	if (call->out_pos > call->out.len / 2) {
		memmove(call->out.data, call->out.data + call->out_pos, call->out.len - call->out_pos);
		call->out.len -= call->out_pos;
		call->out_pos = 0;
	}
	TRY(buf_reserve(&call->out, GRPC_PREFIX_BYTES + len));
	buf_put_u8(&call->out, compressed);
	for (int shift = 24; shift >= 0; shift -= 8)
		buf_put_u8(&call->out, (uint8_t)(len >> shift));
	TRY(buf_append(&call->out, bytes, len));
	/* Only a stream that was deferred needs it; for another it is an error that does not matter. */
	(void)nghttp2_session_resume_data(client->session, call->stream);
	return NULL;
}

bool net_grpc_client_retry_ms(const struct net_grpc_client_call *call, uint64_t *retry_ms_ret)
{
	if (call->has_retry)
		*retry_ms_ret = call->retry_ms;
	return call->has_retry;
}

size_t net_grpc_client_queued(const struct net_grpc_client_call *call)
{
	return call->out.len - call->out_pos;
}

void net_grpc_client_half_close(struct net_grpc_client_call *call)
{
	call->half_closed = true;
	(void)nghttp2_session_resume_data(call->client->session, call->stream);
}

/* -------------------------------------------------------------------------------------- running */

static struct err *lost(struct net_grpc_client *client, const char *why)
{
	struct err *e = err_new(ERR_PEER, "%s: %s", client->address, why);

	while (client->calls)
		end_call(client->calls, why);
	return e;
}

static struct err *flush(struct net_grpc_client *client)
{
	client->blocked = false;
	int code = nghttp2_session_send(client->session);
	if (code == NGHTTP2_ERR_NOMEM)
		return err_nomem();
	return code ? lost(client, nghttp2_strerror(code)) : NULL;
}

/* Of errno after a read or a write: TLS knows more than EPROTO says. */
static const char *why(const struct net_grpc_client *client)
{
	const char *text = client->tls && errno == EPROTO ? net_tls_client_why(client->tls) : "";

	return text[0] ? text : strerror(errno);
}

static struct err *receive(struct net_grpc_client *client)
{
	uint8_t bytes[READ_BYTES];

	client->unread = false;
	for (unsigned reads = 0; reads < READS_MAX; reads++) {
		ssize_t n = receive_bytes(client, bytes, sizeof(bytes));
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return NULL;
		if (n <= 0)
			return lost(client, n == 0 ? "the server closed the connection" : why(client));
		client->received += (uint64_t)n;
		ssize_t used = nghttp2_session_mem_recv(client->session, bytes, (size_t)n);
		if (used < 0)
			return lost(client, nghttp2_strerror((int)used));
		/* TLS gives a record at a time, and what it holds does not wake poll. */
		if ((size_t)n < sizeof(bytes) && !client->tls)
			return NULL;
	}
	client->unread = true;
	return NULL;
}

struct err *net_grpc_client_run(struct net_grpc_client *client, int timeout_ms)
{
	struct pollfd poller = {.fd = client->fd};

	TRY(flush(client));
	if (client->broken) {
		TRY(receive(client));
		return lost(client, "connection lost while sending");
	}
	poller.events = (short)(POLLIN | (client->blocked ? POLLOUT : 0));
	int n = poll(&poller, 1, client->unread ? 0 : timeout_ms);
	if (n < 0 && errno != EINTR)
		return err_os(errno, "poll");
	if (client->unread || (n > 0 && (poller.revents & (POLLIN | POLLHUP | POLLERR))))
		TRY(receive(client));
	TRY(flush(client));
	if (!nghttp2_session_want_read(client->session) && !nghttp2_session_want_write(client->session))
		return lost(client, "the server said goodbye");
	return NULL;
}

int net_grpc_client_fd(const struct net_grpc_client *client)
{
	return client->fd;
}

bool net_grpc_client_wants_write(const struct net_grpc_client *client)
{
	return client->blocked || nghttp2_session_want_write(client->session);
}

void net_grpc_client_bytes(const struct net_grpc_client *client, uint64_t *sent_ret, uint64_t *received_ret)
{
	*sent_ret = client->sent;
	*received_ret = client->received;
}

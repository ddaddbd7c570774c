// SPDX-License-Identifier: Apache-2.0
/*
 * A request between its transport and its handler: what may be called when, who holds it, how its body is counted.
 *
 * References. The transport holds one until the reply is complete or the request is aborted ("detached": shard,
 * transport and exchange are NULL then). Handlers in other threads hold their own. Posts hold one until they have run.
 * Whoever drops the last one frees the handler's user pointer and the memory, in any thread; the queue that the request
 * hangs on keeps the server's totals alive for that.
 *
 * Each entry from the transport holds a reference while the handler runs, so that a handler may reply (and so detach) in the
 * middle of any callback and still use the request until it returns.
 */
#include "net/exchange.h"

#include <string.h>
#include <strings.h>

/* Compressed bytes go to the decoder in slices, so that one call cannot yield more than about 1 MiB. */
enum { DECODE_SLICE_BYTES = 1024 };

/* ---- life ---- */

struct net_request *request_create(struct net_shard *shard, const struct net_transport *transport, void *exchange,
	struct net_head *take_head, const char *peer)
{
	struct net_request *request = calloc(1, sizeof(*request));

	if (!request) {
		net_head_deinit(take_head);
		return NULL;
	}
	request->refs = 1;
	request->shard = shard;
	request->core = shard->core;
	request->queue = net_queue_ref(shard->loop.queue);
	request->transport = transport;
	request->exchange = exchange;
	request->head = *take_head;
	*take_head = (struct net_head){0};
	request->start_ns = net_now_ns();
	(void)strncpy(request->peer, peer, sizeof(request->peer) - 1);
	net_count(shard, NET_REQUESTS, 1);
	return request;
}

struct net_request *net_request_ref(struct net_request *request)
{
	/* Relaxed: whoever takes a reference already holds one. */
	atomic_fetch_add_explicit(&request->refs, 1, memory_order_relaxed);
	return request;
}

void net_request_unref(struct net_request *request)
{
	/* Acquire-release: the last holder must see all that the others did. */
	if (!request || atomic_fetch_sub_explicit(&request->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (request->ops && request->ops->on_free)
		request->ops->on_free(request->user);
	net_charge(request->core, &request->charged, 0);
	codec_stream_destroy(request->decoder);
	buf_deinit(&request->decoded);
	buf_deinit(&request->body);
	free(request->param_text);
	net_head_deinit(&request->head);
	net_queue_unref(request->queue);
	free(request);
}

bool net_request_is_gone(const struct net_request *request)
{
	/* Acquire: pairs with the release in request_detach. */
	return atomic_load_explicit(&request->gone, memory_order_acquire);
}

/* Parts from the transport, whose reference is dropped: the caller holds another one. */
static void request_detach(struct net_request *request)
{
	if (!request->exchange)
		return;
	net_count(request->shard, NET_REQUESTS_DONE, 1);
	if (request->timer)
		event_free(request->timer);
	request->timer = NULL;
	request->exchange = NULL;
	request->transport = NULL;
	request->shard = NULL;
	request->reply_state = NET_REPLY_DONE;
	atomic_store_explicit(&request->gone, true, memory_order_release);
	net_request_unref(request);
}

static void tell_abort(struct net_request *request)
{
	atomic_store_explicit(&request->gone, true, memory_order_release);
	if (request->ops && request->ops->on_abort)
		request->ops->on_abort(request);
}

void request_abort(struct net_request *request)
{
	(void)net_request_ref(request);
	if (request->exchange) {
		net_count(request->shard, NET_REQUESTS_ABORTED, 1);
		tell_abort(request);
		request_detach(request);
	}
	net_request_unref(request);
}

/* ---- replies ---- */

static void count_status(struct net_shard *shard, unsigned status)
{
	unsigned class = status / 100;

	if (class >= 1 && class <= 5)
		net_count(shard, (enum net_counter)(NET_REPLIES_1XX + class - 1), 1);
}

/* True when a reply may be sent by the handler now. */
static bool may_reply(const struct net_request *request, enum net_reply_state state)
{
	return request->exchange && !net_request_is_gone(request) && request->reply_state == state;
}

static void send_whole(struct net_request *request, struct net_reply *take_reply)
{
	count_status(request->shard, take_reply->status);
	request->transport->reply(request->exchange, take_reply, true);
	request_detach(request);
}

void net_request_reply(struct net_request *request, struct net_reply *take_reply)
{
	if (may_reply(request, NET_REPLY_NONE)) {
		(void)net_request_ref(request);
		send_whole(request, take_reply);
		net_request_unref(request);
	}
	net_reply_deinit(take_reply);
}

void net_request_reply_begin(struct net_request *request, struct net_reply *take_reply)
{
	if (may_reply(request, NET_REPLY_NONE)) {
		request->reply_state = NET_REPLY_BEGUN;
		count_status(request->shard, take_reply->status);
		request->transport->reply(request->exchange, take_reply, false);
	}
	net_reply_deinit(take_reply);
}

bool net_request_reply_write(struct net_request *request, struct buf *take_piece)
{
	bool more = false;

	if (may_reply(request, NET_REPLY_BEGUN))
		more = take_piece->len == 0 || request->transport->write(request->exchange, take_piece);
	buf_deinit(take_piece);
	return more;
}

void net_request_reply_end(struct net_request *request, struct net_reply *take_trailers)
{
	if (may_reply(request, NET_REPLY_BEGUN)) {
		(void)net_request_ref(request);
		request->transport->end(request->exchange, take_trailers);
		request_detach(request);
		net_request_unref(request);
	}
	if (take_trailers)
		net_reply_deinit(take_trailers);
}

static void request_reset(struct net_request *request)
{
	(void)net_request_ref(request);
	request->transport->reset(request->exchange);
	request_detach(request);
	net_request_unref(request);
}

void net_request_reset(struct net_request *request)
{
	if (request->exchange && !net_request_is_gone(request))
		request_reset(request);
}

void request_fail(struct net_request *request, unsigned status, const char *code, const char *message)
{
	if (!request->exchange)
		return;
	(void)net_request_ref(request);
	bool had_reply = request->reply_state != NET_REPLY_NONE;
	/* Gone before on_abort: what the handler still answers has no effect. */
	tell_abort(request);
	if (had_reply) {
		request_reset(request);
	} else {
		struct net_reply reply = {0};
		net_reply_error(&reply, status, code, "%s", message);
		if (status == 503)
			err_free(net_reply_header(&reply, "retry-after", "1"));
		send_whole(request, &reply);
		net_reply_deinit(&reply);
	}
	net_request_unref(request);
}

void request_writable(struct net_request *request)
{
	if (!may_reply(request, NET_REPLY_BEGUN) || !request->ops || !request->ops->on_writable)
		return;
	(void)net_request_ref(request);
	request->ops->on_writable(request);
	net_request_unref(request);
}

/* ---- the way in ---- */

void request_dispatch(struct net_request *request)
{
	struct net_handler *handler = &request->core->handler;

	(void)net_request_ref(request);
	if (net_memory_is_short(request->core, 0)) {
		net_count(request->shard, NET_REFUSED_MEMORY, 1);
		request_fail(request, 503, "busy", "too much is in memory at the moment");
	} else {
		handler->on_head(request, handler->user);
		if (request->exchange && !request->ops && request->reply_state == NET_REPLY_NONE)
			request_fail(request, 500, "internal", "nobody took the request");
	}
	net_request_unref(request);
}

/* The decoder that Content-Encoding asks for, if any; false when it is unknown. */
static bool parse_encoding(const char *text, enum codec *ret)
{
	static const struct {
		const char *name;
		enum codec codec;
	} encodings[] = {{"gzip", CODEC_GZIP}, {"x-gzip", CODEC_GZIP}, {"deflate", CODEC_ZLIB}, {"zstd", CODEC_ZSTD},
		{"identity", CODEC_NONE}};

	*ret = CODEC_NONE;
	if (!text)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(encodings); i++) {
		if (strcasecmp(text, encodings[i].name) == 0) {
			*ret = encodings[i].codec;
			return true;
		}
	}
	return false;
}

static void too_large(struct net_request *request)
{
	net_count(request->shard, NET_BODY_TOO_LARGE, 1);
	request_fail(request, 413, "too_large", "the body is longer than is allowed here");
}

static void bad_encoding(struct net_request *request, unsigned status, const char *code, const char *message)
{
	net_count(request->shard, NET_BODY_BAD_ENCODING, 1);
	request_fail(request, status, code, message);
}

/* Makes the decoder that the request needs; false after request_fail. */
static bool open_decoder(struct net_request *request)
{
	enum codec codec;

	if (!parse_encoding(net_head_get(&request->head, "content-encoding"), &codec)) {
		bad_encoding(request, 415, "unsupported_media_type", "the content encoding is none of gzip, deflate, zstd");
		return false;
	}
	if (codec == CODEC_NONE)
		return true;
	struct err *e = codec_stream_create(codec, request->options.limit, &request->decoder);
	if (e) {
		err_free(e);
		request_fail(request, 500, "internal", "out of memory");
	}
	return !e;
}

void net_request_accept(struct net_request *request, const struct net_request_ops *ops, void *user,
	const struct net_body_options *options)
{
	if (request->ops) {
		/* A second accept is the handler's fault; the first holds. */
		if (ops->on_free)
			ops->on_free(user);
		return;
	}
	request->ops = ops;
	request->user = user;
	request->options = *options;
	if (!request->exchange || !request->head.has_body)
		return;
	const struct net_head *head = &request->head;
	if (head->has_length && head->content_length > options->limit) {
		too_large(request);
		return;
	}
	if (!options->raw && !open_decoder(request))
		return;
	if (!options->stream && net_memory_is_short(request->core, head->content_length)) {
		net_count(request->shard, NET_REFUSED_MEMORY, 1);
		request_fail(request, 503, "busy", "too much is in memory at the moment");
		return;
	}
	request->transport->start_body(request->exchange);
}

static void collect(struct net_request *request, const uint8_t *bytes, size_t len)
{
	uint64_t expect = request->head.has_length && !request->decoder ? request->head.content_length : 0;
	struct err *e = NULL;

	/* The promised size at once, but never more than twice what has come: promises cost nothing. */
	if (request->body.cap == 0 && expect > len && expect <= 64 * 1024)
		e = buf_reserve(&request->body, (size_t)expect);
	if (!e)
		e = buf_append(&request->body, bytes, len);
	net_charge(request->core, &request->charged, request->body.cap);
	if (!e && !net_memory_is_short(request->core, 0))
		return;
	err_free(e);
	buf_deinit(&request->body);
	net_charge(request->core, &request->charged, 0);
	net_count(request->shard, NET_REFUSED_MEMORY, 1);
	request_fail(request, 503, "busy", "too much is in memory at the moment");
}

/* Decoded bytes on their way to the handler. */
static void deliver(struct net_request *request, const uint8_t *bytes, size_t len)
{
	if (len == 0 || !request->exchange)
		return;
	if (len > request->options.limit - request->body_bytes) {
		too_large(request);
		return;
	}
	request->body_bytes += len;
	if (!request->options.stream)
		collect(request, bytes, len);
	else if (request->ops->on_body)
		request->ops->on_body(request, bytes, len);
}

static void decode_failed(struct net_request *request, struct err *take_e)
{
	enum err_code code = err_code(take_e);

	err_free(take_e);
	if (code == ERR_LIMIT)
		too_large(request);
	else if (code == ERR_NOMEM)
		request_fail(request, 503, "busy", "out of memory");
	else
		bad_encoding(request, 400, "invalid", "the body does not decode as its content encoding says");
}

static void decode(struct net_request *request, const uint8_t *bytes, size_t len)
{
	for (size_t pos = 0; pos < len && request->exchange && request->decoder;) {
		size_t slice = len - pos < DECODE_SLICE_BYTES ? len - pos : DECODE_SLICE_BYTES;
		request->decoded.len = 0;
		struct err *e = codec_stream_feed(request->decoder, bytes + pos, slice, &request->decoded);
		if (e) {
			decode_failed(request, e);
			return;
		}
		deliver(request, request->decoded.data, request->decoded.len);
		pos += slice;
	}
}

void request_body_piece(struct net_request *request, const uint8_t *bytes, size_t len)
{
	/* Without ops the handler has refused the body but its reply is not sent yet: nobody wants it. */
	if (!request->exchange || !request->ops || net_request_is_gone(request))
		return;
	(void)net_request_ref(request);
	if (request->decoder)
		decode(request, bytes, len);
	else
		deliver(request, bytes, len);
	net_request_unref(request);
}

void request_body_end(struct net_request *request)
{
	if (!request->exchange || !request->ops || net_request_is_gone(request) || request->body_ended)
		return;
	(void)net_request_ref(request);
	request->body_ended = true;
	struct err *e = request->decoder ? codec_stream_finish(request->decoder) : NULL;
	codec_stream_destroy(request->decoder);
	request->decoder = NULL;
	buf_deinit(&request->decoded);
	if (e)
		decode_failed(request, e);
	else if (request->ops->on_end)
		request->ops->on_end(request);
	net_request_unref(request);
}

void net_request_pause(struct net_request *request)
{
	if (request->paused || !request->exchange)
		return;
	request->paused = true;
	request->transport->paused(request->exchange);
}

void net_request_resume(struct net_request *request)
{
	if (!request->paused || !request->exchange)
		return;
	request->paused = false;
	(void)net_request_ref(request);
	request->transport->paused(request->exchange);
	net_request_unref(request);
}

/* ---- time and threads ---- */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct net_request *request = arg;

	(void)fd;
	(void)what;
	if (!request->ops || !request->ops->on_timer || net_request_is_gone(request))
		return;
	(void)net_request_ref(request);
	request->ops->on_timer(request);
	net_request_unref(request);
}

void net_request_set_timer(struct net_request *request, uint64_t ms)
{
	struct timeval delay = net_timeval_ms(ms);

	if (!request->exchange)
		return;
	if (!request->timer && ms > 0)
		request->timer = evtimer_new(request->shard->loop.base, on_timer, request);
	if (!request->timer)
		return;
	if (ms > 0)
		(void)evtimer_add(request->timer, &delay);
	else
		(void)evtimer_del(request->timer);
}

struct request_post {
	struct net_post post;
	struct net_request *request;
	void (*fn)(struct net_request *request, void *arg);
	void *arg;
};

static void run_post(struct net_post *post)
{
	struct request_post *p = (struct request_post *)(void *)post;
	struct net_request *request = p->request;

	p->fn(request, p->arg);
	free(p);
	net_request_unref(request);
}

void net_request_post(struct net_request *request, void (*fn)(struct net_request *request, void *arg), void *arg)
{
	struct request_post *p = malloc(sizeof(*p));

	/*
	 * Exactly once is the promise, and the caller has no way to go on without it. A post of 40 bytes fails only when
	 * the machine is out of memory altogether; then it is tried again until something else has given way.
	 */
	while (!p) {
		(void)usleep(10000);
		p = malloc(sizeof(*p));
	}
	*p = (struct request_post){.post = {.run = run_post}, .request = net_request_ref(request), .fn = fn, .arg = arg};
	if (!net_queue_post(request->queue, &p->post))
		run_post(&p->post);
}

static void run_reply(struct net_request *request, void *arg)
{
	struct net_reply *reply = arg;

	net_request_reply(request, reply);
	free(reply);
}

void net_request_reply_post(struct net_request *request, struct net_reply *take_reply)
{
	struct net_reply *copy = malloc(sizeof(*copy));

	while (!copy) {
		(void)usleep(10000);
		copy = malloc(sizeof(*copy));
	}
	*copy = *take_reply;
	*take_reply = (struct net_reply){0};
	net_request_post(request, run_reply, copy);
}

/* ---- what was asked ---- */

void *net_request_user(const struct net_request *request)
{
	return request->user;
}

enum net_method net_request_method(const struct net_request *request)
{
	return request->head.method;
}

const char *net_request_method_text(const struct net_request *request)
{
	return request->head.method_text;
}

const char *net_request_path(const struct net_request *request)
{
	return request->head.path;
}

const char *net_request_query(const struct net_request *request)
{
	return request->head.query;
}

const char *net_request_header(const struct net_request *request, const char *lower_name)
{
	return net_head_get(&request->head, lower_name);
}

const char *net_request_header_at(const struct net_request *request, size_t i, const char **value_ret)
{
	if (i >= request->head.header_count)
		return NULL;
	*value_ret = request->head.headers[i].value;
	return request->head.headers[i].name;
}

const char *net_request_param(const struct net_request *request, size_t i)
{
	return i < NET_ROUTE_MAX_PARAMS ? request->params[i] : NULL;
}

const struct net_route *net_request_route(const struct net_request *request)
{
	return request->route;
}

const char *net_request_peer(const struct net_request *request)
{
	return request->peer;
}

bool net_request_is_http2(const struct net_request *request)
{
	return request->head.http2;
}

uint64_t net_request_age_ns(const struct net_request *request)
{
	return net_now_ns() - request->start_ns;
}

bool net_request_content_type_is(const struct net_request *request, const char *type)
{
	const char *value = net_head_get(&request->head, "content-type");
	size_t len = strlen(type);

	if (!value || strncasecmp(value, type, len) != 0)
		return false;
	value += len;
	while (*value == ' ' || *value == '\t')
		value++;
	return *value == 0 || *value == ';';
}

const struct buf *net_request_body(const struct net_request *request)
{
	return &request->body;
}

void net_request_take_body(struct net_request *request, struct buf *ret)
{
	*ret = request->body;
	request->body = (struct buf){0};
	net_charge(request->core, &request->charged, 0);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * A session is the user pointer of its call and lives as long as that. All of it happens on the loop that owns the connection, but
 * two things: a batch is committed by the writer of samples, and executables are looked up in the store on the upload pool
 * (store_put_file waits for fsync). Both come back by net_request_post and hold a reference meanwhile.
 *
 * One batch at a time is on its way to the disk while the next is gathered. The stream is not read (flow control slows the sender
 * down) while the next batch is full, the queue of the writer is (then it is tried again soon), the client does not read
 * what we tell it (for `unread_ms`, then the stream is broken off), more than AGENT_ENVELOPES_PER_S have come in this second, or the
 * server is stopping: then the stream ends as soon as what was taken is acknowledged. A timer looks after the last three.
 */
#include "api/agent_stream.h"

#include "api/call.h"
#include "api/symbolize.h"
#include "base/log.h"
#include "sources/sources.h"
#include "store/miss.h"
#include "store/store.h"

#include <stdio.h>
#include <time.h>

enum { BUSY_RETRY_MS = 50, TICK_MS = 500, BUSY_PACE = 10 };
enum { RETRY_AFTER_MS = 1000, RETRY_FULL_MS = 10000 }; /* what an agent is told: when to come back */

enum { KERNEL_SIZE = 128 };

/* Executables to look up. */
struct wanted {
	struct store_file *files;
	uint32_t count, cap;
};

struct session {
	struct api *api;
	struct net_grpc_call *call;
	struct stream *stream;
	struct api_agent *agent; /* NULL: not listed */
	bool over, half_closed;
	bool in_flight;		    /* a batch is being committed: */
	struct stream_ticket ticket; /* what it acknowledges */
	struct samples_batch *waiting; /* the writer's queue was full; its ticket is in `ticket` too */
	bool paused, slow_reader, too_fast, told_busy;
	uint64_t slow_since_ms;
	uint64_t second; /* in which `envelopes` came */
	uint32_t envelopes;
	struct wanted wanted;
	char kernel[KERNEL_SIZE]; /* uname -r of its host */
	bool looking; /* a look-up is on its way */
};

static uint64_t milliseconds(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t seconds(clockid_t clock)
{
	return milliseconds(clock) / 1000;
}

static void count(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

static struct api_agent_counters *counters_of(struct session *session)
{
	return &session->api->agent_counters;
}

static void leave(struct session *session)
{
	if (session->over)
		return;
	session->over = true;
	atomic_fetch_sub_explicit(&counters_of(session)->streams_open, 1, memory_order_relaxed);
	api_agents_left(session->api->agents, session->agent);
	session->agent = NULL;
}

static void finish(struct session *session, enum net_grpc_status status, const char *message)
{
	leave(session);
	if (status == NET_GRPC_UNAVAILABLE)
		net_grpc_finish_retry(session->call, status, message, RETRY_AFTER_MS);
	else
		net_grpc_finish(session->call, status, message);
}

/* Takes the message. It is sent all the same when the client does not read, but then nothing more is read of the client. */
static void tell(struct session *session, struct buf *take_message)
{
	if (net_grpc_send(session->call, take_message) || session->slow_reader)
		return;
	count(&counters_of(session)->unread, 1);
	session->slow_reader = true;
	session->slow_since_ms = milliseconds(CLOCK_MONOTONIC);
}

/* Consumes @p e. */
static void fail(struct session *session, struct err *e)
{
	static struct log_limit limit;
	enum net_grpc_status status = NET_GRPC_INTERNAL;
	uint32_t suppressed;

	switch (err_code(e)) {
	case ERR_FORMAT:
	case ERR_INVALID:
		status = NET_GRPC_INVALID_ARGUMENT;
		break;
	case ERR_LIMIT:
		status = NET_GRPC_RESOURCE_EXHAUSTED;
		break;
	case ERR_NOMEM:
	case ERR_BUSY:
	case ERR_OS:
		status = NET_GRPC_UNAVAILABLE;
		break;
	default:
		break;
	}
	if (log_limit_pass(&limit, 5, &suppressed))
		log_warn("agent", "peer=%s error=\"%s\" suppressed=%u", net_request_peer(net_grpc_request(session->call)),
			err_message(e), suppressed);
	finish(session, status, err_message(e));
	err_free(e);
}

/* -------------------------------------------------------------------------------------- symbols that are not here */

struct lookup {
	struct session *session;
	struct net_request *request; /* referenced */
	struct wanted wanted;
	char kernel[KERNEL_SIZE]; /* the session's */
	struct buf reply; /* WantSymbols */
};

static void lookup_destroy(struct lookup *lookup)
{
	net_request_unref(lookup->request);
	free(lookup->wanted.files);
	buf_deinit(&lookup->reply);
	free(lookup);
}

/* True when its symbols are asked for, of sources and of the agent. What is new in the file's record is stored. */
static struct err *look_up(struct api *api, uint64_t requester, const struct store_file *file, bool *want_ret)
{
	static const struct fileid none;
	CLEANUP(freep) struct api_known *answer = malloc(sizeof(*answer));
	CLEANUP(freep) struct store_file *known = malloc(sizeof(*known));
	struct store *store = api->options.store;
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = STORE_TENANT_DEFAULT, .file_id = file->file_id, .build_id = file->build_id};
	bool found = false;

	if (!answer || !known)
		return err_nomem();
	query.has_file_id = !fileid_equal(&file->file_id, &none);
	*want_ret = false;
	if (!query.has_file_id && !file->build_id.len)
		return NULL;
	TRY(store_read_begin(store, &read));
	TRY(api_known_resolve(read, &query, answer));
	*want_ret = answer->answer.status != STORE_OK;
	if (answer->answer.status == STORE_UNKNOWN)
		store_miss_note(store, &query);
	api_known_ask(api->options.sources, requester, &query, answer);
	if (!query.has_file_id)
		return NULL;
	TRY(store_file_get(read, query.tenant, &file->file_id, known, &found));
	store_read_end(TAKE_PTR(read));
	if (found && (known->segments.count > 0 || file->segments.count == 0) && (known->build_id.len > 0 || file->build_id.len == 0))
		return NULL;
	return store_put_file(store, query.tenant, file);
}

static void send_wants(struct net_request *request, void *arg)
{
	struct lookup *lookup = arg;
	struct session *session = lookup->session;
	struct buf message = {0};

	session->looking = false;
	if (!net_request_is_gone(request) && !session->over && lookup->reply.len > 0) {
		struct err *e = server_envelope_write(&message, SERVER_WANT_SYMBOLS, &lookup->reply);
		if (!e)
			tell(session, &message);
		err_free(e);
	}
	buf_deinit(&message);
	lookup_destroy(lookup);
}

static void run_lookup(void *arg)
{
	struct lookup *lookup = arg;
	struct api *api = lookup->session->api;
	uint64_t requester = api_requester(net_request_peer(lookup->request));

	for (uint32_t i = 0; i < lookup->wanted.count && !net_request_is_gone(lookup->request); i++) {
		const struct store_file *file = &lookup->wanted.files[i];
		bool want = false;
		sources_kernel(api->options.sources, &file->file_id, &file->build_id, lookup->kernel, strlen(lookup->kernel));
		struct err *e = look_up(api, requester, file, &want);
		if (!e && want) {
			const struct server_want row = {.file_id = {file->file_id.bytes, FILEID_BYTES},
				.build_id = {file->build_id.bytes, file->build_id.len},
				.name = {(const uint8_t *)file->name, strlen(file->name)}};
			count(&api->agent_counters.wanted, 1);
			e = server_want_write(&lookup->reply, &row);
		}
		if (e)
			log_warn("agent", "lookup=failed error=\"%s\"", err_message(e));
		err_free(e);
	}
	net_request_post(lookup->request, send_wants, lookup);
}

static void start_lookup(struct session *session)
{
	if (session->looking || session->wanted.count == 0 || session->over)
		return;
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	if (!lookup)
		return; /* with the next envelope */
	lookup->session = session;
	lookup->request = net_request_ref(net_grpc_request(session->call));
	lookup->wanted = session->wanted;
	memcpy(lookup->kernel, session->kernel, sizeof(lookup->kernel));
	session->wanted = (struct wanted){0};
	session->looking = true;
	if (net_pool_submit(session->api->uploads, run_lookup, lookup))
		return;
	session->looking = false;
	session->wanted = lookup->wanted;
	lookup->wanted = (struct wanted){0};
	lookup_destroy(lookup);
}

static void on_executable(void *context, const struct agent_executable *executable)
{
	struct session *session = context;
	struct wanted *wanted = &session->wanted;
	struct agent_segment segment;

	if (wanted->count == AGENT_WANTED_MAX)
		return;
	if (wanted->count == wanted->cap) {
		uint32_t cap = wanted->cap ? 2 * wanted->cap : 16;
		struct store_file *files = reallocarray(wanted->files, cap, sizeof(*files));
		if (!files)
			return;
		wanted->files = files;
		wanted->cap = cap;
	}
	struct store_file *file = &wanted->files[wanted->count++];
	*file = (struct store_file){.size = executable->size,
		.elf_machine = executable->elf_machine > UINT16_MAX ? 0 : (uint16_t)executable->elf_machine,
		.first_seen_ms = 1000 * seconds(CLOCK_REALTIME)};
	if (executable->file_id.len == FILEID_BYTES)
		memcpy(file->file_id.bytes, executable->file_id.bytes, FILEID_BYTES);
	file->build_id.len = (uint8_t)executable->build_id.len;
	if (executable->build_id.len)
		memcpy(file->build_id.bytes, executable->build_id.bytes, executable->build_id.len);
	else if (executable->go_build_id.len)
		err_free(build_id_from_go((const char *)executable->go_build_id.bytes, executable->go_build_id.len, &file->build_id));
	if (executable->name.len)
		(void)snprintf(file->name, sizeof(file->name), "%.*s",
			(int)(executable->name.len < STORE_NAME_SIZE ? executable->name.len : STORE_NAME_SIZE),
			(const char *)executable->name.bytes);
	struct reader r = wire_reader(executable->segments, NULL);
	while (file->segments.count < LOAD_SEGMENTS_MAX && agent_segment_next(&r, &segment))
		file->segments.items[file->segments.count++] = (struct load_segment){
			.foff = segment.offset, .vaddr = segment.vaddr, .size = segment.size, .executable = segment.executable};
}

/* -------------------------------------------------------------------------------------- committing */

/* What the writer has to tell the loop. */
struct committed {
	struct session *session;
	struct net_request *request; /* referenced */
	struct err *e;
	struct samples_result result;
};

static void pump(struct session *session);

static void on_committed(struct net_request *request, void *arg)
{
	struct committed *committed = arg;
	struct session *session = committed->session;
	uint64_t samples = session->ticket.samples;

	session->in_flight = false;
	if (net_request_is_gone(request) || session->over) {
		stream_ticket_deinit(&session->ticket);
	} else if (committed->e) {
		count(&counters_of(session)->commits_failed, 1);
		stream_ticket_deinit(&session->ticket);
		fail(session, err_wrap(TAKE_PTR(committed->e), "samples are not stored"));
	} else {
		api_agents_samples(session->api->agents, session->agent, samples);
		struct err *e = stream_acknowledge(session->stream, &session->ticket, &committed->result);
		if (e)
			fail(session, e);
		else
			pump(session);
	}
	err_free(committed->e);
	net_request_unref(committed->request);
	free(committed);
}

/* On the writer's thread. */
static void on_durable(void *arg, struct err *e, const struct samples_result *result)
{
	struct committed *committed = arg;

	committed->e = e;
	committed->result = *result;
	net_request_post(committed->request, on_committed, committed);
}

static void tell_pace(struct session *session, uint32_t envelopes, const char *reason)
{
	struct server_pace pace = {.envelopes_per_second = envelopes, .reason = {(const uint8_t *)reason, strlen(reason)}};
	CLEANUP(buf_deinit) struct buf body = {0};
	struct buf message = {0};

	struct err *e = server_pace_write(&body, &pace);
	if (!e)
		e = server_envelope_write(&message, SERVER_PACE, &body);
	if (!e)
		tell(session, &message);
	err_free(e); /* flow control slows the sender down all the same */
	buf_deinit(&message);
}

/* False when the session has failed. */
static bool hand_in(struct session *session)
{
	struct committed *committed = calloc(1, sizeof(*committed));
	struct err *e = committed ? NULL : err_nomem();

	if (!e) {
		committed->session = session;
		committed->request = net_request_ref(net_grpc_request(session->call));
		session->in_flight = true; /* before: it may be over at once */
		e = samples_commit(&session->waiting, on_durable, committed);
	}
	if (!e) {
		if (session->told_busy)
			tell_pace(session, AGENT_ENVELOPES_PER_S, "the store keeps up again");
		session->told_busy = false;
		return true;
	}
	session->in_flight = false;
	if (committed)
		net_request_unref(committed->request);
	free(committed);
	if (err_code(e) != ERR_BUSY) {
		fail(session, e);
		return false;
	}
	err_free(e);
	count(&counters_of(session)->busy, 1);
	if (!session->told_busy)
		tell_pace(session, BUSY_PACE, "the store does not keep up");
	session->told_busy = true;
	net_grpc_set_timer(session->call, BUSY_RETRY_MS);
	return true;
}

static void set_paused(struct session *session, bool paused)
{
	if (session->paused == paused)
		return;
	session->paused = paused;
	if (paused)
		net_request_pause(net_grpc_request(session->call));
	else
		net_request_resume(net_grpc_request(session->call));
}

/* Moves on whatever can move. */
static void pump(struct session *session)
{
	if (session->over)
		return;
	if (!session->in_flight && (session->waiting || stream_take(session->stream, &session->waiting, &session->ticket)))
		if (!hand_in(session))
			return;
	start_lookup(session);
	bool draining = atomic_load_explicit(&session->api->draining, memory_order_relaxed);
	if ((session->half_closed || draining) && !session->in_flight && !session->waiting) {
		finish(session, session->half_closed ? NET_GRPC_OK : NET_GRPC_UNAVAILABLE, session->half_closed ? NULL : "the server is stopping");
		return;
	}
	set_paused(session,
		draining || session->waiting || session->slow_reader || session->too_fast || stream_is_full(session->stream));
}

/* -------------------------------------------------------------------------------------- the call */

static void on_stream_send(void *context, struct buf *take_message)
{
	tell(context, take_message);
}

static void on_hello(void *context, const struct agent_hello *hello)
{
	struct session *session = context;

	(void)snprintf(session->kernel, sizeof(session->kernel), "%.*s", (int)(hello->kernel.len < KERNEL_SIZE ? hello->kernel.len : 0),
		hello->kernel.len ? (const char *)hello->kernel.bytes : "");
	session->agent = api_agents_came(session->api->agents, hello, net_request_peer(net_grpc_request(session->call)));
}

static void on_status(void *context, const struct agent_status *status)
{
	struct session *session = context;

	api_agents_status(session->api->agents, session->agent, status);
}

static const struct stream_ops stream_ops = {
	.send = on_stream_send, .hello = on_hello, .status = on_status, .executable = on_executable};

static struct err *create_session(struct api *api, struct net_grpc_call *call, struct session **ret)
{
	struct session *session = calloc(1, sizeof(*session));
	struct stream_options options = {.samples = api->options.samples,
		.tenant = STORE_TENANT_DEFAULT,
		.envelopes_per_second = AGENT_ENVELOPES_PER_S,
		.ops = &stream_ops,
		.context = session,
		.counters = &api->agent_counters.stream};

	if (!session)
		return err_nomem();
	struct err *e = stream_create(&options, &session->stream);
	if (e) {
		free(session);
		return e;
	}
	session->api = api;
	session->call = call;
	*ret = session;
	return NULL;
}

static void on_open(struct net_grpc_call *call, void *user)
{
	struct api *api = user;
	struct api_agent_counters *counters = &api->agent_counters;
	struct session *session = NULL;

	if (!api->options.samples) {
		net_grpc_finish(call, NET_GRPC_UNIMPLEMENTED, "this server takes no profiles");
		return;
	}
	if (atomic_load_explicit(&counters->streams_open, memory_order_relaxed) >= AGENT_STREAMS_MAX) {
		count(&counters->refused, 1);
		net_grpc_finish_retry(call, NET_GRPC_UNAVAILABLE, "too many streams", RETRY_FULL_MS);
		return;
	}
	struct err *e = create_session(api, call, &session);
	if (e) {
		net_grpc_finish(call, NET_GRPC_UNAVAILABLE, err_message(e));
		err_free(e);
		return;
	}
	count(&counters->streams, 1);
	count(&counters->streams_open, 1);
	net_grpc_set_user(call, session);
	net_grpc_set_timer(call, TICK_MS);
}

/* Past the rate the stream rests until the next second. */
static void count_envelope(struct session *session)
{
	uint64_t now = seconds(CLOCK_MONOTONIC);

	if (session->second != now) {
		session->second = now;
		session->envelopes = 0;
	}
	if (++session->envelopes != AGENT_ENVELOPES_PER_S)
		return;
	count(&counters_of(session)->paced, 1);
	session->too_fast = true;
	tell_pace(session, AGENT_ENVELOPES_PER_S, "too many envelopes");
}

static void on_message(struct net_grpc_call *call, struct buf *message)
{
	struct session *session = net_grpc_user(call);

	if (!session || session->over)
		return;
	struct err *e = stream_feed(session->stream, message->data, message->len);
	if (e) {
		fail(session, e);
		return;
	}
	count_envelope(session);
	pump(session);
}

static void on_half_close(struct net_grpc_call *call)
{
	struct session *session = net_grpc_user(call);

	if (!session)
		return;
	session->half_closed = true;
	pump(session);
}

static void on_writable(struct net_grpc_call *call)
{
	struct session *session = net_grpc_user(call);

	if (!session)
		return;
	session->slow_reader = false;
	pump(session);
}

/* It reads nothing and shall not keep what the stream holds: a status would only be one thing more that it does not read. */
static void break_off(struct session *session)
{
	log_warn("agent", "peer=%s error=\"it does not read what it is told\"", net_request_peer(net_grpc_request(session->call)));
	count(&counters_of(session)->unread_ended, 1);
	leave(session);
	net_grpc_reset(session->call);
}

static void on_timer(struct net_grpc_call *call)
{
	struct session *session = net_grpc_user(call);

	if (!session || session->over)
		return;
	if (session->slow_reader && milliseconds(CLOCK_MONOTONIC) - session->slow_since_ms >= session->api->options.unread_ms) {
		break_off(session);
		return;
	}
	if (session->second != seconds(CLOCK_MONOTONIC))
		session->too_fast = false;
	net_grpc_set_timer(call, TICK_MS);
	pump(session);
}

static void on_cancel(struct net_grpc_call *call)
{
	struct session *session = net_grpc_user(call);

	if (session)
		leave(session);
}

static void on_free(void *user)
{
	struct session *session = user;

	if (!session)
		return;
	stream_ticket_deinit(&session->ticket);
	samples_batch_destroy(session->waiting);
	free(session->wanted.files);
	stream_destroy(session->stream);
	free(session);
}

const struct net_grpc_method api_agent_stream_method = {
	.path = AGENT_STREAM_PATH,
	.message_max = STREAM_MESSAGE_BYTES_MAX,
	.on_open = on_open,
	.on_message = on_message,
	.on_half_close = on_half_close,
	.on_writable = on_writable,
	.on_timer = on_timer,
	.on_cancel = on_cancel,
	.on_free = on_free,
};

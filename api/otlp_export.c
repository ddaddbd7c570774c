// SPDX-License-Identifier: Apache-2.0
/*
 * The store of symbols learns from what agents report: when a mapping names a file by its file ID and its build ID, and the build ID
 * is known (its symbols were uploaded from another copy, stripped or not), the file ID becomes an alias of it. Sources are asked for IDs that
 * nobody knows at once, before anybody reads the samples, on the budget of the peer that sent them. Each module is looked at once in LEARN_AGAIN_S.
 */
#include "api/otlp_export.h"

#include "api/agents_internal.h"
#include "api/call.h"
#include "api/symbolize.h"
#include "base/digest.h"
#include "base/log.h"
#include "proto/wire.h"
#include "sources/sources.h"
#include "store/miss.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum { LEARN_AGAIN_S = 60, LEARNED_MAX = 65536 };

struct api_otlp {
	pthread_mutex_t lock;
	struct hmap learned; /* hash of a module's IDs -> second in which it was looked at */
	_Atomic uint64_t held_bytes;
};

struct err *api_otlp_create(struct api_otlp **ret)
{
	struct api_otlp *otlp = calloc(1, sizeof(*otlp));

	if (!otlp)
		return err_nomem();
	(void)pthread_mutex_init(&otlp->lock, NULL);
	*ret = otlp;
	return NULL;
}

void api_otlp_destroy(struct api_otlp *otlp)
{
	if (!otlp)
		return;
	hmap_deinit(&otlp->learned);
	(void)pthread_mutex_destroy(&otlp->lock);
	free(otlp);
}

/* Relaxed: the limit is a rough one, and nothing is ordered by the count. */
bool api_otlp_hold(struct api *api, size_t bytes)
{
	uint64_t before = atomic_fetch_add_explicit(&api->otlp->held_bytes, bytes, memory_order_relaxed);

	if (before + bytes <= api->options.profiles_bytes)
		return true;
	api_otlp_release(api, bytes);
	return false;
}

void api_otlp_release(struct api *api, size_t bytes)
{
	atomic_fetch_sub_explicit(&api->otlp->held_bytes, bytes, memory_order_relaxed);
}

static uint64_t seconds(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec;
}

/* True when it is this caller's turn to look at the module. */
static bool take_turn(struct api_otlp *otlp, const struct otlp_module *module)
{
	uint8_t ids[FILEID_BYTES + sizeof(module->build_id)];
	uint64_t now = seconds(CLOCK_MONOTONIC), last;

	memcpy(ids, &module->file_id, FILEID_BYTES);
	memset(ids + FILEID_BYTES, 0, sizeof(module->build_id));
	ids[FILEID_BYTES] = module->build_id.len;
	memcpy(ids + FILEID_BYTES + 1, module->build_id.bytes, module->build_id.len);
	uint64_t key = digest_xxh3_64(ids, sizeof(ids));

	(void)pthread_mutex_lock(&otlp->lock);
	if (otlp->learned.count >= LEARNED_MAX)
		hmap_clear(&otlp->learned);
	bool mine = !hmap_get(&otlp->learned, key, &last) || now - last >= LEARN_AGAIN_S;
	if (mine)
		err_free(hmap_set(&otlp->learned, key, now));
	(void)pthread_mutex_unlock(&otlp->lock);
	return mine;
}

/* What the store has to be told of a module. Sources are asked for what it lacks. */
static struct err *look_at(struct api *api, uint64_t requester, const struct otlp_module *module, bool *is_alias_ret)
{
	static const struct fileid none;
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(freep) struct api_known *known = malloc(sizeof(*known));
	struct store_query query = {.tenant = STORE_TENANT_DEFAULT, .build_id = module->build_id};

	*is_alias_ret = false;
	if (!known)
		return err_nomem();
	query.has_file_id = !fileid_equal(&module->file_id, &none);
	query.file_id = module->file_id;
	TRY(store_read_begin(api->options.store, &read));
	TRY(api_known_resolve(read, &query, known));
	enum store_status status = known->answer.status;
	if (status == STORE_UNKNOWN)
		store_miss_note(api->options.store, &query);
	api_known_ask(api->options.sources, requester, &query, known);
	if (status != STORE_OK || !query.has_file_id || !module->build_id.len)
		return NULL;
	struct store_query alone = {.tenant = query.tenant, .has_file_id = true, .file_id = module->file_id};
	TRY(store_resolve(read, &alone, &known->answer));
	*is_alias_ret = known->answer.status == STORE_UNKNOWN;
	return NULL;
}

static struct err *learn(struct api *api, uint64_t requester, const struct otlp_module *module)
{
	bool is_alias;

	TRY(look_at(api, requester, module, &is_alias));
	if (!is_alias)
		return NULL;
	struct store_file file = {.file_id = module->file_id,
		.build_id = module->build_id,
		.first_seen_ms = 1000 * seconds(CLOCK_REALTIME)};
	(void)snprintf(file.name, sizeof(file.name), "%.*s", (int)(module->name.len < STORE_NAME_SIZE ? module->name.len : STORE_NAME_SIZE),
		module->name.bytes);
	return store_put_file(api->options.store, STORE_TENANT_DEFAULT, &file);
}

/* The release that the request's hosts run, when all that say one say the same. */
static struct otlp_text kernel_release(const struct otlp_intake_result *result)
{
	struct otlp_text one = {0};

	for (uint32_t i = 0; i < result->sender_count; i++) {
		struct otlp_text other = result->senders[i].kernel;
		if (one.len && other.len && (one.len != other.len || memcmp(one.bytes, other.bytes, one.len) != 0))
			return (struct otlp_text){0};
		one = other.len ? other : one;
	}
	return one;
}

/* What cannot be learned now is learned with a later request. */
static void learn_all(struct api *api, const char *peer, const struct otlp_intake_result *result)
{
	uint64_t requester = api_requester(peer);
	struct otlp_text release = kernel_release(result);

	for (size_t i = 0; i < result->module_count; i++) {
		if (!take_turn(api->otlp, &result->modules[i]))
			continue;
		sources_kernel(api->options.sources, &result->modules[i].file_id, &result->modules[i].build_id, release.bytes, release.len);
		CLEANUP(err_freep) struct err *e = learn(api, requester, &result->modules[i]);
		if (e)
			log_warn("otlp", "learn=failed error=\"%s\"", err_message(e));
	}
}

/* A batch on its way to the disk. */
struct pending {
	otlp_done_fn *done;
	void *arg;
	uint64_t empty_samples, dropped_labels;
	struct otlp_outcome outcome;
	struct api_agents *agents;
	char peer[API_AGENT_TEXT_SIZE];
	uint32_t sender_count;
	struct api_otlp_sender senders[];
};

/* Faults have been told; less important things have room only without them. */
static void tell_losses(struct pending *pending, const struct samples_result *result)
{
	struct otlp_outcome *outcome = &pending->outcome;

	if (outcome->message[0])
		return;
	if (result && (result->rejected_future || result->rejected_old))
		(void)snprintf(outcome->message, sizeof(outcome->message),
			"%" PRIu64 " samples are later than now and %" PRIu64 " older than what is kept: they were not stored",
			result->rejected_future, result->rejected_old);
	else if (pending->empty_samples)
		(void)snprintf(outcome->message, sizeof(outcome->message),
			"%" PRIu64 " samples have neither values nor timestamps: they count nothing", pending->empty_samples);
	else if (pending->dropped_labels)
		(void)snprintf(outcome->message, sizeof(outcome->message), "%" PRIu64 " attributes past the limits were dropped",
			pending->dropped_labels);
}

static void on_commit(void *arg, struct err *e, const struct samples_result *result)
{
	struct pending *pending = arg;

	if (!e)
		tell_losses(pending, result);
	for (uint32_t i = 0; !e && i < pending->sender_count; i++)
		api_agents_otlp(pending->agents, pending->peer, &pending->senders[i]);
	pending->done(pending->arg, e, &pending->outcome);
	free(pending);
}

static uint64_t now_unix_nano(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The sender's fault in the API's words. */
static struct err *sender_fault(struct err *e)
{
	if (!e || (err_code(e) != ERR_FORMAT && err_code(e) != ERR_UNSUPPORTED))
		return e;
	struct err *fault = err_new(ERR_INVALID, "%s", err_message(e));
	err_free(e);
	return fault;
}

static struct err *take_in(struct api *api, const void *bytes, size_t len, struct arena *arena, struct samples_batch **batch,
	struct otlp_intake_result *result)
{
	struct otlp_request request;

	TRY(sender_fault(otlp_open((struct wire_span){bytes, len}, arena, &request)));
	atomic_fetch_add_explicit(&api->metrics.otlp_layouts[request.layout], 1, memory_order_relaxed);
	TRY(samples_batch_create(api->options.samples, STORE_TENANT_DEFAULT, batch));
	return otlp_intake(&request, arena, now_unix_nano(), *batch, result);
}

static void copy_sender(const struct otlp_sender *sender, struct api_otlp_sender *ret)
{
	api_agent_copy_text(ret->agent, sender->name.bytes, sender->name.len);
	api_agent_copy_text(ret->version, sender->version.bytes, sender->version.len);
	api_agent_copy_text(ret->host, sender->host.bytes, sender->host.len);
	api_agent_copy_text(ret->host_id, sender->host_id.bytes, sender->host_id.len);
	api_agent_copy_text(ret->machine, sender->machine.bytes, sender->machine.len);
	api_agent_copy_text(ret->os, sender->os.bytes, sender->os.len);
	ret->samples = sender->samples;
}

static struct err *hand_in(struct api *api, const char *peer, struct samples_batch **batch, const struct otlp_intake_result *result,
	otlp_done_fn *done, void *arg)
{
	struct pending *pending = calloc(1, sizeof(*pending) + result->sender_count * sizeof(pending->senders[0]));

	if (!pending)
		return err_nomem();
	pending->agents = api->agents;
	api_agent_copy_text(pending->peer, peer, strlen(peer));
	pending->sender_count = result->sender_count;
	for (uint32_t i = 0; i < result->sender_count; i++)
		copy_sender(&result->senders[i], &pending->senders[i]);
	pending->done = done;
	pending->arg = arg;
	pending->empty_samples = result->empty_samples;
	pending->dropped_labels = result->dropped_labels;
	pending->outcome.rejected_profiles = result->rejected_profiles;
	memcpy(pending->outcome.message, result->message, sizeof(pending->outcome.message));
	atomic_fetch_add_explicit(&api->metrics.otlp_rejected_profiles, result->rejected_profiles, memory_order_relaxed);
	if (result->profiles == 0) {
		on_commit(pending, NULL, NULL);
		return NULL;
	}
	struct err *e = samples_commit(batch, on_commit, pending);
	if (e)
		free(pending);
	return e;
}

struct err *otlp_export(struct api *api, const char *peer, const void *bytes, size_t len, otlp_done_fn *done, void *arg)
{
	CLEANUP(arena_deinit) struct arena arena = {0};
	CLEANUP(samples_batch_destroyp) struct samples_batch *batch = NULL;
	struct otlp_intake_result result;

	struct err *e = take_in(api, bytes, len, &arena, &batch, &result);
	atomic_fetch_add_explicit(&api->metrics.otlp_bytes, len, memory_order_relaxed);
	if (!e)
		e = hand_in(api, peer, &batch, &result, done, arg);
	if (e) {
		atomic_fetch_add_explicit(&api->metrics.otlp_rejected_requests, 1, memory_order_relaxed);
		return e;
	}
	learn_all(api, peer, &result);
	return NULL;
}

struct err *otlp_write_response(const struct otlp_outcome *outcome, struct buf *ret)
{
	CLEANUP(buf_deinit) struct buf partial = {0};

	if (!outcome->rejected_profiles && !outcome->message[0])
		return NULL;
	TRY(buf_reserve(&partial, WIRE_HEAD_MAX + WIRE_VARINT_MAX));
	wire_put_field(&partial, 1, outcome->rejected_profiles);
	TRY(wire_append_bytes(&partial, 2, outcome->message, strlen(outcome->message)));
	return wire_append_bytes(ret, 1, partial.data, partial.len);
}

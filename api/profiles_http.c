// SPDX-License-Identifier: Apache-2.0
/* GET /v1/profiles. */
#include "api/call.h"
#include "api/profiles_query.h"
#include "api/profiles_resolver.h"

#include <time.h>

static const char *const content_types[] = {
	[PROFILES_JSON] = "application/json",
	[PROFILES_PPROF] = "application/octet-stream",
	[PROFILES_FOLDED] = "text/plain; charset=utf-8",
	[PROFILES_CALLGRIND] = "text/plain; charset=utf-8",
};

static struct err *write_profile(struct profile *profile, enum profiles_format format, struct buf *ret)
{
	switch (format) {
	case PROFILES_PPROF:
		return profile_write_pprof(profile, ret);
	case PROFILES_FOLDED:
		return profile_write_folded(profile, ret);
	case PROFILES_CALLGRIND:
		return profile_write_callgrind(profile, ret);
	case PROFILES_JSON:
	default:
		return profile_write_json(profile, ret);
	}
}

static uint64_t now_unix_nano(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* What was read, in a header: bodies are for tools that know their format only. */
static struct err *tell(const struct samples_query_stat *stat, struct net_reply *reply)
{
	CLEANUP(buf_deinit) struct buf text = {0};

	TRY(buf_printf(&text, "samples=%llu;traces=%llu;locations=%llu;unresolved=%llu;read_us=%llu;resolve_us=%llu;expand_us=%llu",
		(unsigned long long)stat->samples, (unsigned long long)stat->traces, (unsigned long long)stat->locations,
		(unsigned long long)stat->unresolved, (unsigned long long)stat->read_ns / 1000,
		(unsigned long long)stat->resolve_ns / 1000, (unsigned long long)stat->expand_ns / 1000));
	TRY(buf_append(&text, "", 1));
	return net_reply_header(reply, "Cairn-Profile", (const char *)text.data);
}

static struct err *show(struct call *call, struct net_reply *reply)
{
	struct api *api = call->api;
	CLEANUP(profiles_resolver_destroyp) struct profiles_resolver *resolver = NULL;
	CLEANUP(profile_deinitp) struct profile profile = {0};
	struct profiles_query query;
	struct samples_query_stat stat = {0};

	if (!api->options.samples)
		return err_new(ERR_NOT_FOUND, "this cairnd keeps no profiles");
	TRY(profiles_query_parse(net_request_query(call->request), now_unix_nano(), &call->arena, &query));
	TRY(profiles_resolver_create(api->options.store, api->options.sources, call_requester(call), &resolver));
	struct samples_resolver interface = profiles_resolver_interface(resolver);
	TRY(samples_query(api->options.samples, &query.query, &interface, &profile, &stat));
	TRY(write_profile(&profile, query.format, &reply->body));
	if (reply->body.len > api->options.limit_answer)
		return err_new(ERR_LIMIT, "a profile of %zu bytes, %llu at most: ask for less time, or another format", reply->body.len,
			(unsigned long long)api->options.limit_answer);
	TRY(tell(&stat, reply));
	reply->status = 200;
	reply->content_type = content_types[query.format];
	return NULL;
}

void profiles_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_PROFILES, api->questions, show, 0);
}

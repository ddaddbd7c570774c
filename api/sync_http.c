// SPDX-License-Identifier: Apache-2.0
/* POST /v1/sync, GET /v1/sync: packages ahead of need. */
#include "api/call.h"
#include "api/json_body.h"

#include "base/json.h"
#include "sources/sources.h"

#include <stdio.h>
#include <string.h>

enum { BODY_MAX = 64 << 10, VALUES_MAX = 1024, PAGE_MAX = 1000 };

static void write_package(struct json *json, const struct sources_sync_package *package)
{
	json_object_begin(json);
	json_key(json, "name");
	json_text(json, package->name);
	json_key(json, "version");
	json_text(json, package->version);
	json_key(json, "bytes");
	json_text_u64(json, package->bytes);
	json_key(json, "state");
	json_text(json, sources_sync_state_name(package->state));
	if (package->reason[0]) {
		json_key(json, "reason");
		json_text(json, package->reason);
	}
	if (package->note[0]) {
		json_key(json, "note");
		json_text(json, package->note);
	}
	json_object_end(json);
}

/* The run as it stands, with its packages from @p from on. */
static struct err *write_run(struct sources *sources, size_t from, struct buf *out)
{
	struct sources_sync_package *package CLEANUP(freep) = calloc(1, sizeof(*package));
	struct json json = json_init(out);
	struct sources_sync_progress run;

	if (!package)
		return err_nomem();
	sources_sync_progress(sources, &run);
	json_object_begin(&json);
	json_key(&json, "run");
	json_text_u64(&json, run.run);
	json_key(&json, "running");
	json_bool(&json, run.running);
	json_key(&json, "dry_run");
	json_bool(&json, run.dry_run);
	json_key(&json, "packages");
	json_u64(&json, run.packages);
	json_key(&json, "packages_done");
	json_u64(&json, run.packages_done);
	json_key(&json, "failed");
	json_u64(&json, run.failed);
	json_key(&json, "bytes");
	json_text_u64(&json, run.bytes);
	json_key(&json, "bytes_done");
	json_text_u64(&json, run.bytes_done);
	if (run.reason[0]) {
		json_key(&json, "reason");
		json_text(&json, run.reason);
	}
	json_key(&json, "items");
	json_array_begin(&json);
	for (size_t i = from; i < from + PAGE_MAX && sources_sync_package(sources, i, package); i++)
		write_package(&json, package);
	json_array_end(&json);
	json_object_end(&json);
	return json_finish(&json);
}

static struct err *read_patterns(const json_t *body, const char **patterns, size_t *count_ret)
{
	const json_t *list = json_object_get(body, "patterns"), *one;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > SOURCES_SYNC_PATTERNS_MAX)
		return err_new(ERR_INVALID, "patterns: 1 to %d names or shell patterns were expected", SOURCES_SYNC_PATTERNS_MAX);
	json_array_foreach(list, i, one) {
		patterns[i] = json_string_value(one);
		if (!patterns[i])
			return err_new(ERR_INVALID, "patterns[%zu]: not a string", i);
	}
	*count_ret = json_array_size(list);
	return NULL;
}

static struct err *begin(struct call *call, struct net_reply *reply)
{
	const char *patterns[SOURCES_SYNC_PATTERNS_MAX];
	const struct buf *bytes = call_body(call);
	CLEANUP(json_body_freep) json_t *body = NULL;
	uint64_t run;
	size_t count;

	TRY(json_body_parse(bytes->data, bytes->len, VALUES_MAX, &body));
	TRY(read_patterns(body, patterns, &count));
	TRY(sources_sync(call->api->options.sources, patterns, count, json_is_true(json_object_get(body, "dry_run")), &run));
	call_json(reply, 202);
	return write_run(call->api->options.sources, SOURCES_SYNC_PACKAGES_MAX, &reply->body);
}

static struct err *show(struct call *call, struct net_reply *reply)
{
	char text[24];
	size_t from = 0;
	bool given;

	TRY(net_request_query_get(call->request, "from", text, sizeof(text), &given));
	for (const char *at = text; given && *at; at++) {
		if (*at < '0' || *at > '9' || from > SOURCES_SYNC_PACKAGES_MAX)
			return err_new(ERR_INVALID, "from: not a number of 0 to %d", SOURCES_SYNC_PACKAGES_MAX);
		from = from * 10 + (size_t)(*at - '0');
	}
	call_json(reply, 200);
	return write_run(call->api->options.sources, from, &reply->body);
}

void sync_begin_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_SYNC, api->uploads, begin, BODY_MAX);
}

void sync_show_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_SYNC, api->questions, show, 0);
}

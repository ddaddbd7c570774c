// SPDX-License-Identifier: Apache-2.0
/* GET /v1/files, /v1/files/{id}, /v1/jobs/{id}. */
#include "api/call.h"

#include "base/json.h"
#include "ingest/ingest.h"
#include "sources/sources.h"
#include "store/job.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PAGE_DEFAULT = 100, PAGE_MAX = 1000, JOBS_SHOWN = 16, ALIASES_SHOWN = 1024, NUMBER_SIZE = 32 };

static void write_file_id(struct json *json, const char *key, const struct fileid *id)
{
	char text[FILEID_HEX_SIZE];

	fileid_format_hex(id, text);
	if (key)
		json_key(json, key);
	json_text(json, text);
}

static void write_build_id(struct json *json, const struct build_id *id)
{
	char text[BUILD_ID_HEX_SIZE];

	if (!id->len)
		return;
	build_id_format(id, text);
	json_key(json, "build_id");
	json_text(json, text);
}

static void write_sha256(struct json *json, const char *key, const struct sha256 *digest)
{
	char text[SHA256_HEX_SIZE];

	sha256_format(digest, text);
	json_key(json, key);
	json_text(json, text);
}

static void write_member(struct json *json, const char *key, const char *text)
{
	if (!text[0])
		return;
	json_key(json, key);
	json_text(json, text);
}

static void write_segments(struct json *json, const struct load_segments *segments)
{
	if (!segments->count)
		return;
	json_key(json, "segments");
	json_array_begin(json);
	for (size_t i = 0; i < segments->count; i++) {
		const struct load_segment *segment = &segments->items[i];
		json_object_begin(json);
		json_key(json, "file_offset");
		json_hex(json, segment->foff);
		json_key(json, "vaddr");
		json_hex(json, segment->vaddr);
		json_key(json, "size");
		json_hex(json, segment->size);
		json_key(json, "executable");
		json_bool(json, segment->executable);
		json_object_end(json);
	}
	json_array_end(json);
}

static void write_entry(struct json *json, const struct store_entry *entry)
{
	json_object_begin(json);
	json_key(json, "source");
	json_text(json, store_source_name(entry->source));
	json_key(json, "kind");
	json_text(json, api_kind_name(entry->kind));
	json_key(json, "rank");
	json_u64(json, entry->rank);
	json_key(json, "builder");
	json_u64(json, entry->builder_version);
	write_sha256(json, "table", &entry->table);
	json_key(json, "table_bytes");
	json_u64(json, entry->table_bytes);
	write_member(json, "provenance", entry->provenance);
	json_object_end(json);
}

static struct err *write_entries(struct json *json, struct store_read *read, const struct store_query *query)
{
	CLEANUP(freep) struct store_entry *entries = calloc(2 * STORE_ENTRIES_MAX, sizeof(*entries));
	size_t count;

	if (!entries)
		return err_nomem();
	TRY(store_entries(read, query, entries, 2 * STORE_ENTRIES_MAX, &count));
	json_key(json, "entries");
	json_array_begin(json);
	for (size_t i = 0; i < count; i++)
		write_entry(json, &entries[i]);
	json_array_end(json);
	return NULL;
}

static void write_progress(struct json *json, struct api *api, const struct store_job *job)
{
	struct ingest_progress progress;

	write_member(json, "phase", job->phase);
	if (!api->options.ingest || !ingest_progress(api->options.ingest, job->id, &progress) || !progress.now.total)
		return;
	uint64_t done = progress.now.done < progress.now.total ? progress.now.done : progress.now.total;
	json_key(json, "progress");
	json_double(json, (double)done / (double)progress.now.total);
}

static void write_job_members(struct json *json, struct api *api, const struct store_job *job)
{
	char id[NUMBER_SIZE];

	(void)snprintf(id, sizeof(id), "%llu", (unsigned long long)job->id);
	json_key(json, "job_id");
	json_text(json, id);
	json_key(json, "kind");
	json_text(json, job->kind == STORE_JOB_PACKAGE ? "package" : "build");
	json_key(json, "state");
	json_text(json, store_job_state_name(job->state));
	json_key(json, "attempts");
	json_u64(json, job->attempts);
	if (job->state == STORE_JOB_RUNNING)
		write_progress(json, api, job);
	write_member(json, "reason", job->reason);
}

static struct err *write_jobs(struct json *json, struct api *api, struct store_read *read, const struct store_query *query)
{
	CLEANUP(freep) struct store_job *jobs = calloc(JOBS_SHOWN, sizeof(*jobs));
	size_t count;

	if (!jobs)
		return err_nomem();
	TRY(store_jobs_about(read, query, jobs, JOBS_SHOWN, &count));
	json_key(json, "jobs");
	json_array_begin(json);
	for (size_t i = 0; i < count; i++) {
		json_object_begin(json);
		write_job_members(json, api, &jobs[i]);
		json_object_end(json);
	}
	json_array_end(json);
	return NULL;
}

static void write_time(struct json *json, const char *key, uint64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	char text[NUMBER_SIZE];
	struct tm parts;

	(void)gmtime_r(&seconds, &parts);
	(void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
	json_key(json, key);
	json_text(json, text);
}

static void write_ask(struct json *json, const struct store_ask *ask)
{
	char id[NUMBER_SIZE];

	json_object_begin(json);
	json_key(json, "source");
	json_text(json, ask->source);
	json_key(json, "answer");
	json_text(json, store_ask_answer_name(ask->answer));
	write_time(json, "asked_at", ask->asked_ms);
	write_time(json, "next_at", ask->next_ms);
	write_member(json, "reason", ask->text);
	json_key(json, "bytes");
	json_u64(json, ask->bytes);
	if (ask->job_id) {
		(void)snprintf(id, sizeof(id), "%llu", (unsigned long long)ask->job_id);
		json_key(json, "job_id");
		json_text(json, id);
	}
	json_object_end(json);
}

/* What sources said under the IDs that are known of it: under its build ID, where there is one. */
static struct err *write_asks(struct json *json, struct api *api, const struct store_query *query, const struct api_known *known)
{
	CLEANUP(freep) struct store_ask *asks = calloc(STORE_ASKS_MAX, sizeof(*asks));
	struct store_query wanted = *query;
	size_t count;

	if (!asks)
		return err_nomem();
	if (known->answer.has_file && known->answer.file.build_id.len)
		wanted.build_id = known->answer.file.build_id;
	TRY(sources_said(api->options.sources, &wanted, asks, STORE_ASKS_MAX, &count));
	json_key(json, "asked");
	json_array_begin(json);
	for (size_t i = 0; i < count; i++)
		write_ask(json, &asks[i]);
	json_array_end(json);
	return NULL;
}

static struct err *write_aliases(struct json *json, struct store_read *read, const struct build_id *build_id)
{
	if (!build_id->len)
		return NULL;
	CLEANUP(freep) struct fileid *ids = calloc(ALIASES_SHOWN, sizeof(*ids));
	size_t count;

	if (!ids)
		return err_nomem();
	TRY(store_aliases(read, STORE_TENANT_DEFAULT, build_id, ids, ALIASES_SHOWN, &count));
	json_key(json, "file_ids");
	json_array_begin(json);
	for (size_t i = 0; i < count; i++)
		write_file_id(json, NULL, &ids[i]);
	json_array_end(json);
	return NULL;
}

/* The members that a listing and a single file have in common. */
static struct err *write_known(struct json *json, struct store_read *read, const struct store_query *query,
	const struct api_known *known)
{
	const struct store_answer *answer = &known->answer;
	const struct build_id *build_id =
		answer->has_file && answer->file.build_id.len ? &answer->file.build_id : &query->build_id;

	if (answer->has_file || query->has_file_id)
		write_file_id(json, "file_id", answer->has_file ? &answer->file.file_id : &query->file_id);
	write_build_id(json, build_id);
	if (answer->has_file)
		write_member(json, "name", answer->file.name);
	json_key(json, "status");
	json_text(json, api_module_status_name(known->status));
	write_member(json, "reason", known->reason);
	if (known->retry_after_s) {
		json_key(json, "retry_after_s");
		json_u64(json, known->retry_after_s);
	}
	if (answer->has_file) {
		json_key(json, "size");
		json_u64(json, answer->file.size);
		write_segments(json, &answer->file.segments);
		if (answer->file.has_text) {
			json_key(json, "kernel_text");
			json_hex(json, answer->file.text_vaddr);
		}
	}
	TRY(write_entries(json, read, query));
	return write_aliases(json, read, build_id);
}

/* Whether a request named it, so that sources were asked: then that is what is known of it. */
static struct err *was_asked(struct api *api, const struct store_query *query, bool *ret)
{
	struct store_ask one;
	size_t count;

	TRY(sources_said(api->options.sources, query, &one, 1, &count));
	*ret = count > 0;
	return NULL;
}

/* A file ID where the text has that form and something is known of it, else a build ID. */
static struct err *resolve_text(struct api *api, struct store_read *read, const char *text, struct store_query *query, struct api_known *known)
{
	size_t len = strlen(text);
	struct build_id build_id;
	bool any = false, asked;

	*query = (struct store_query){.tenant = STORE_TENANT_DEFAULT};
	if (fileid_parse(text, len, &query->file_id)) {
		any = query->has_file_id = true;
		TRY(api_known_resolve(read, query, known));
		TRY(was_asked(api, query, &asked));
		if (known->status != API_MODULE_UNKNOWN || asked)
			return NULL;
	}
	if (build_id_parse(text, len, &build_id)) {
		any = true;
		*query = (struct store_query){.tenant = STORE_TENANT_DEFAULT, .build_id = build_id};
		TRY(api_known_resolve(read, query, known));
		TRY(was_asked(api, query, &asked));
		if (known->status != API_MODULE_UNKNOWN || asked)
			return NULL;
	}
	if (!any)
		return err_new(ERR_INVALID, "%s: neither a file ID (32 hex digits, 22 base64url characters) nor a build ID (hex)",
			text);
	return err_new(ERR_NOT_FOUND, "%s: nothing is known of this ID", text);
}

static struct err *get_file(struct call *call, struct net_reply *reply)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(freep) struct api_known *known = malloc(sizeof(*known));
	struct store_query query;
	struct json json = json_init(&reply->body);

	if (!known)
		return err_nomem();
	TRY(store_read_begin(call->api->options.store, &read));
	TRY(resolve_text(call->api, read, call_param(call, 0), &query, known));
	call_json(reply, 200);
	json_object_begin(&json);
	struct err *e = write_known(&json, read, &query, known);
	if (!e)
		e = write_jobs(&json, call->api, read, &query);
	if (!e)
		e = write_asks(&json, call->api, &query, known);
	json_object_end(&json);
	struct err *finish = json_finish(&json);
	if (e)
		err_free(finish);
	return e ? e : finish;
}

static struct err *read_page(const struct call *call, size_t *limit_ret, bool *has_after_ret, struct fileid *after_ret)
{
	char text[64];
	bool found;

	*limit_ret = PAGE_DEFAULT;
	TRY(net_request_query_get(call->request, "limit", text, sizeof(text), &found));
	if (found) {
		uint64_t limit;
		if (strlen(text) > 4 || !api_parse_address(text, strlen(text), &limit) || limit < 1 || limit > PAGE_MAX)
			return err_new(ERR_INVALID, "limit: not a number from 1 to %d", PAGE_MAX);
		*limit_ret = (size_t)limit;
	}
	TRY(net_request_query_get(call->request, "after", text, sizeof(text), has_after_ret));
	if (*has_after_ret && !fileid_parse(text, strlen(text), after_ret))
		return err_new(ERR_INVALID, "after: not the `next` of a page");
	return NULL;
}

static struct err *write_page(struct json *json, struct store_read *read, const struct store_file *files, size_t count)
{
	CLEANUP(freep) struct api_known *known = malloc(sizeof(*known));

	if (!known)
		return err_nomem();
	json_key(json, "files");
	json_array_begin(json);
	for (size_t i = 0; i < count; i++) {
		struct store_query query = {.tenant = STORE_TENANT_DEFAULT, .has_file_id = true, .file_id = files[i].file_id};
		TRY(api_known_resolve(read, &query, known));
		json_object_begin(json);
		TRY(write_known(json, read, &query, known));
		json_object_end(json);
	}
	json_array_end(json);
	return NULL;
}

static struct err *list_files(struct call *call, struct net_reply *reply)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(freep) struct store_file *files = NULL;
	struct json json = json_init(&reply->body);
	struct fileid after;
	size_t limit, count;
	bool has_after;

	TRY(read_page(call, &limit, &has_after, &after));
	files = calloc(limit, sizeof(*files));
	if (!files)
		return err_nomem();
	TRY(store_read_begin(call->api->options.store, &read));
	TRY(store_files(read, STORE_TENANT_DEFAULT, has_after ? &after : NULL, files, limit, &count));
	call_json(reply, 200);
	json_object_begin(&json);
	struct err *e = write_page(&json, read, files, count);
	if (!e && count == limit)
		write_file_id(&json, "next", &files[count - 1].file_id);
	json_object_end(&json);
	struct err *finish = json_finish(&json);
	if (e)
		err_free(finish);
	return e ? e : finish;
}

static struct err *get_job(struct call *call, struct net_reply *reply)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(freep) struct store_job *job = malloc(sizeof(*job));
	const char *text = call_param(call, 0);
	struct json json = json_init(&reply->body);
	uint64_t id;
	bool found;

	if (!job)
		return err_nomem();
	if (!api_parse_address(text, strlen(text), &id))
		return err_new(ERR_INVALID, "%s: not a job ID", text);
	TRY(store_read_begin(call->api->options.store, &read));
	TRY(store_job_get(read, id, job, &found));
	if (!found)
		return err_new(ERR_NOT_FOUND, "job %s: unknown or forgotten", text);
	call_json(reply, 200);
	json_object_begin(&json);
	write_job_members(&json, call->api, job);
	write_member(&json, "name", job->name);
	if (job->has_file_id)
		write_file_id(&json, "file_id", &job->file_id);
	write_build_id(&json, &job->build_id);
	json_key(&json, "tables");
	json_u64(&json, job->tables);
	json_object_end(&json);
	return json_finish(&json);
}

void files_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_FILES, api->questions, list_files, 0);
}

void file_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_FILE, api->questions, get_file, 0);
}

void job_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_JOB, api->questions, get_job, 0);
}

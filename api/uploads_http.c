// SPDX-License-Identifier: Apache-2.0
/*
 * /v1/uploads: asks before bytes, chunks, resume, finish. Sessions and durability are the store's (store/blob.h); here
 * are the words of HTTP for them, and the answer "exists".
 */
#include "api/call.h"

#include "api/json_body.h"
#include "base/hex.h"
#include "base/json.h"
#include "store/blob.h"
#include "symbolizer/table/table.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
	CREATE_BODY_MAX = 64 << 10,
	CREATE_VALUES_MAX = 1024,
	FINISH_BODY_MAX = 4 << 10, /* ignored */
	JOBS_LOOKED_AT = 32,
	UPLOAD_ID_HEX_SIZE = 2 * STORE_UPLOAD_ID_BYTES + 1,
	NUMBER_SIZE = 32,
};

/* The API's words for roles: a runtime file is what its users call an executable. */
static const struct {
	const char *word;
	enum store_role role;
} roles[] = {
	{"executable", STORE_ROLE_RUNTIME},
	{"debug", STORE_ROLE_DEBUG},
	{"package", STORE_ROLE_PACKAGE},
	{"supplement", STORE_ROLE_SUPPLEMENT},
	{"split", STORE_ROLE_SPLIT},
};

static const char *role_word(enum store_role role)
{
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		if (roles[i].role == role)
			return roles[i].word;
	return "unknown";
}

/* ------------------------------------------------------------------------------------ POST /v1/uploads */

static struct err *parse_role(const json_t *body, enum store_role *ret)
{
	const char *word = json_string_value(json_object_get(body, "role"));

	for (size_t i = 0; word && i < ARRAY_SIZE(roles); i++) {
		if (strcmp(word, roles[i].word) == 0) {
			*ret = roles[i].role;
			return NULL;
		}
	}
	return err_new(ERR_INVALID, "role: none of \"executable\", \"debug\", \"package\", \"supplement\", \"split\"");
}

/* What follows the last slash; control characters would break logs and terminals. */
static struct err *parse_name(const json_t *body, char name[STORE_NAME_SIZE])
{
	const json_t *member = json_object_get(body, "name");
	const char *text = member ? json_string_value(member) : "";

	if (!text)
		return err_new(ERR_INVALID, "name: not a string");
	const char *slash = strrchr(text, '/');
	if (slash)
		text = slash + 1;
	if (strlen(text) >= STORE_NAME_SIZE)
		return err_new(ERR_INVALID, "name: longer than %d bytes", STORE_NAME_SIZE - 1);
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return err_new(ERR_INVALID, "name: has a control character");
	(void)snprintf(name, STORE_NAME_SIZE, "%s", text);
	return NULL;
}

static struct err *parse_ids(const json_t *body, struct store_upload *upload)
{
	const json_t *file_id = json_object_get(body, "file_id");
	const json_t *build_id = json_object_get(body, "build_id");

	if (file_id && !json_is_null(file_id)) {
		if (!json_is_string(file_id) ||
		    !fileid_parse(json_string_value(file_id), json_string_length(file_id), &upload->file_id))
			return err_new(ERR_INVALID, "file_id: neither 32 hex digits nor 22 base64url characters");
		upload->has_file_id = true;
	}
	if (build_id && !json_is_null(build_id)) {
		if (!json_is_string(build_id) ||
		    !build_id_parse(json_string_value(build_id), json_string_length(build_id), &upload->build_id))
			return err_new(ERR_INVALID, "build_id: not 1 to %d bytes of hex", BUILD_ID_MAX);
	}
	return NULL;
}

static struct err *parse_create(const json_t *body, const struct store_options *limits, struct store_upload *upload, bool *force_ret)
{
	const json_t *size = json_object_get(body, "size");
	const json_t *sha256 = json_object_get(body, "sha256");

	upload->tenant = STORE_TENANT_DEFAULT;
	TRY(parse_role(body, &upload->role));
	TRY(parse_name(body, upload->name));
	if (!json_is_integer(size) || json_integer_value(size) < 1)
		return err_new(ERR_INVALID, "size: not a number of bytes from 1 on");
	upload->size = (uint64_t)json_integer_value(size);
	if (upload->size > limits->max_upload_bytes)
		return err_new(ERR_LIMIT, "size: %llu bytes are more than limits.upload, %llu", (unsigned long long)upload->size,
			(unsigned long long)limits->max_upload_bytes);
	if (!json_is_string(sha256) ||
	    !sha256_parse(json_string_value(sha256), json_string_length(sha256), &upload->sha256))
		return err_new(ERR_INVALID, "sha256: not 64 hex digits");
	*force_ret = json_is_true(json_object_get(body, "force"));
	return parse_ids(body, upload);
}

/* Why a file need not be sent. */
struct existing {
	bool found;
	uint64_t job_id; /* 0: none */
	bool has_symbols;
	struct store_entry entry;
	const char *reason;
};

static bool job_has_blob(const struct store_job *job, const struct sha256 *blob)
{
	for (size_t i = 0; i < job->input_count; i++)
		if (memcmp(&job->inputs[i].blob, blob, sizeof(*blob)) == 0)
			return true;
	return false;
}

/* The same content in a job that did not fail. */
static struct err *find_job(struct store_read *read, const struct store_query *query, const struct sha256 *blob,
	struct existing *ret)
{
	CLEANUP(freep) struct store_job *jobs = calloc(JOBS_LOOKED_AT, sizeof(*jobs));
	size_t count;

	if (!jobs)
		return err_nomem();
	TRY(store_jobs_about(read, query, jobs, JOBS_LOOKED_AT, &count));
	for (size_t i = 0; i < count; i++) {
		if (jobs[i].state == STORE_JOB_FAILED || !job_has_blob(&jobs[i], blob))
			continue;
		ret->found = true;
		ret->job_id = jobs[i].id;
		ret->reason = "the same bytes were uploaded before";
		return NULL;
	}
	return NULL;
}

/* Whether the symbols come of other bytes, parts of which could not be used: these may be the repaired ones. */
static struct err *was_damaged(struct store_read *read, const struct store_query *query, const struct store_upload *upload,
	const struct store_entry *entry, bool *ret)
{
	CLEANUP(freep) struct store_job *jobs = calloc(JOBS_LOOKED_AT, sizeof(*jobs));
	size_t count;

	*ret = false;
	if (!jobs)
		return err_nomem();
	TRY(store_jobs_about(read, query, jobs, JOBS_LOOKED_AT, &count));
	for (size_t i = 0; i < count; i++)
		if (jobs[i].has_table && memcmp(&jobs[i].table, &entry->table, sizeof(entry->table)) == 0) {
			*ret = jobs[i].reason[0] && !job_has_blob(&jobs[i], &upload->sha256);
			return NULL;
		}
	return NULL;
}

/* Symbols with lines from an upload: nothing that this file may have ranks higher, unless they are what was left of a damaged file. */
static struct err *find_symbols(struct store_read *read, const struct store_query *query, const struct store_upload *upload,
	struct existing *ret)
{
	CLEANUP(freep) struct store_answer *answer = malloc(sizeof(*answer));

	if (!answer)
		return err_nomem();
	TRY(store_resolve(read, query, answer));
	if (answer->status != STORE_OK || answer->entry.source != STORE_SOURCE_UPLOAD ||
		!(answer->entry.kind & (TABLE_FROM_DWARF | TABLE_FROM_GOPCLNTAB)))
		return NULL;
	bool damaged;
	TRY(was_damaged(read, query, upload, &answer->entry, &damaged));
	if (damaged)
		return NULL;
	/* A runtime file that is not on record yet brings its file ID and its load segments, even when stripped. */
	if (upload->role == STORE_ROLE_RUNTIME &&
		!(answer->has_file && upload->has_file_id && fileid_equal(&answer->file.file_id, &upload->file_id)))
		return NULL;
	ret->found = ret->has_symbols = true;
	ret->entry = answer->entry;
	ret->reason = "symbols at least as good were uploaded before";
	return NULL;
}

/* An original that some job needs just now and that has no ID to find the job by; with @p is_kept one that only waits is enough. */
static struct err *find_blob(struct store_read *read, const struct sha256 *sha256, bool is_kept, struct existing *ret)
{
	struct store_blob blob;
	bool found;

	TRY(store_blob_get(read, sha256, &blob, &found));
	if (found && (blob.in_use || is_kept)) {
		ret->found = true;
		ret->reason = is_kept ? "the same bytes are kept" : "the same bytes are being worked on";
	}
	return NULL;
}

static struct err *find_existing(struct store *store, const struct store_upload *upload, struct existing *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = upload->tenant,
		.has_file_id = upload->has_file_id,
		.file_id = upload->file_id,
		.build_id = upload->build_id};

	bool is_kept = upload->role == STORE_ROLE_SUPPLEMENT || upload->role == STORE_ROLE_SPLIT;

	*ret = (struct existing){0};
	TRY(store_read_begin(store, &read));
	if (query.has_file_id || query.build_id.len) {
		if (upload->role == STORE_ROLE_RUNTIME || upload->role == STORE_ROLE_DEBUG)
			TRY(find_symbols(read, &query, upload, ret));
		if (!ret->found && !is_kept)
			TRY(find_job(read, &query, &upload->sha256, ret));
	}
	if (!ret->found)
		TRY(find_blob(read, &upload->sha256, is_kept, ret));
	return NULL;
}

static void write_ids(struct json *json, const struct store_upload *upload)
{
	if (upload->has_file_id) {
		char text[FILEID_HEX_SIZE];
		fileid_format_hex(&upload->file_id, text);
		json_key(json, "file_id");
		json_text(json, text);
	}
	if (upload->build_id.len) {
		char text[BUILD_ID_HEX_SIZE];
		build_id_format(&upload->build_id, text);
		json_key(json, "build_id");
		json_text(json, text);
	}
}

static void write_job_id(struct json *json, uint64_t job_id)
{
	char text[NUMBER_SIZE];

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)job_id);
	json_key(json, "job_id");
	json_text(json, text);
}

static struct err *reply_exists(const struct existing *existing, const struct store_upload *upload, struct net_reply *reply)
{
	struct json json = json_init(&reply->body);

	call_json(reply, 200);
	json_object_begin(&json);
	json_key(&json, "status");
	json_text(&json, "exists");
	write_ids(&json, upload);
	if (existing->job_id)
		write_job_id(&json, existing->job_id);
	if (existing->has_symbols) {
		json_key(&json, "symbols");
		json_object_begin(&json);
		json_key(&json, "source");
		json_text(&json, store_source_name(existing->entry.source));
		json_key(&json, "kind");
		json_text(&json, api_kind_name(existing->entry.kind));
		json_object_end(&json);
	}
	json_key(&json, "reason");
	json_text(&json, existing->reason);
	json_object_end(&json);
	return json_finish(&json);
}

static struct err *reply_open(const struct store_upload *upload, unsigned status, bool whole, struct net_reply *reply)
{
	struct json json = json_init(&reply->body);
	char id[UPLOAD_ID_HEX_SIZE];

	hex_format(upload->id, sizeof(upload->id), id);
	call_json(reply, status);
	json_object_begin(&json);
	json_key(&json, "status");
	json_text(&json, "open");
	json_key(&json, "upload_id");
	json_text(&json, id);
	json_key(&json, "offset");
	json_u64(&json, upload->offset);
	json_key(&json, "chunk_max");
	json_u64(&json, STORE_UPLOAD_CHUNK_MAX);
	if (whole) {
		json_key(&json, "size");
		json_u64(&json, upload->size);
		json_key(&json, "name");
		json_text(&json, upload->name);
		json_key(&json, "role");
		json_text(&json, role_word(upload->role));
		write_ids(&json, upload);
	}
	json_object_end(&json);
	return json_finish(&json);
}

static struct err *create_upload(struct call *call, struct net_reply *reply)
{
	CLEANUP(json_body_freep) json_t *body = NULL;
	struct store *store = call->api->options.store;
	const struct buf *bytes = net_request_body(call->request);
	struct store_upload upload = {0}, opened;
	struct existing existing;
	bool force;

	TRY(json_body_parse(bytes->data, bytes->len, CREATE_VALUES_MAX, &body));
	TRY(parse_create(body, store_limits(store), &upload, &force));
	if (!force) {
		TRY(find_existing(store, &upload, &existing));
		if (existing.found) {
			atomic_fetch_add_explicit(&call->api->metrics.uploads_skipped, 1, memory_order_relaxed);
			return reply_exists(&existing, &upload, reply);
		}
	}
	struct err *e = store_upload_create(store, &upload, &opened);
	if (e && err_code(e) == ERR_LIMIT) { /* its size was checked above: too many sessions, or no room on the disk now */
		net_reply_error(reply, 503, "busy", "%s", err_message(e));
		err_free(e);
		return net_reply_header(reply, "Retry-After", "60");
	}
	TRY(e);
	return reply_open(&opened, opened.offset ? 200 : 201, false, reply);
}

/* ------------------------------------------------------------------------------------ /v1/uploads/{id} */

static struct err *parse_id(const struct call *call, uint8_t id[STORE_UPLOAD_ID_BYTES])
{
	const char *text = call_param(call, 0);

	if (strlen(text) != UPLOAD_ID_HEX_SIZE - 1 || !hex_parse(text, UPLOAD_ID_HEX_SIZE - 1, id))
		return err_new(ERR_INVALID, "%s: not an upload ID", text);
	return NULL;
}

static struct err *get_upload(struct call *call, struct net_reply *reply)
{
	struct store_upload upload;
	uint8_t id[STORE_UPLOAD_ID_BYTES];

	TRY(parse_id(call, id));
	TRY(store_upload_get(call->api->options.store, id, &upload));
	return reply_open(&upload, 200, true, reply);
}

static struct err *abort_upload(struct call *call, struct net_reply *reply)
{
	uint8_t id[STORE_UPLOAD_ID_BYTES];

	TRY(parse_id(call, id));
	TRY(store_upload_abort(call->api->options.store, id));
	call_json(reply, 200);
	return buf_append(&reply->body, "{}", 2);
}

static struct err *read_offset(const struct call *call, uint64_t *ret)
{
	char text[NUMBER_SIZE];
	bool found;

	TRY(net_request_query_get(call->request, "offset", text, sizeof(text), &found));
	if (!found || !api_parse_address(text, strlen(text), ret))
		return err_new(ERR_INVALID, "offset: a number of bytes was expected in the query");
	return NULL;
}

static struct err *reply_offset(uint64_t offset, struct net_reply *reply)
{
	struct json json = json_init(&reply->body);

	call_json(reply, 200);
	json_object_begin(&json);
	json_key(&json, "offset");
	json_u64(&json, offset);
	json_object_end(&json);
	return json_finish(&json);
}

static struct err *reply_no_space(struct err *take_e, struct net_reply *reply)
{
	net_reply_error(reply, 507, "no_space", "%s", err_message(take_e));
	err_free(take_e);
	return NULL;
}

/* Of the limits that a chunk of at most 4 MiB can pass, one is the sender's fault: the size that it announced. */
static struct err *reply_past_limit(const struct call *call, const uint8_t *id, uint64_t end, struct err *take_e,
	struct net_reply *reply)
{
	struct store_upload upload;
	struct err *e = store_upload_get(call->api->options.store, id, &upload);

	if (e || end <= upload.size) {
		err_free(e);
		return reply_no_space(take_e, reply);
	}
	net_reply_error(reply, 400, "invalid", "%s", err_message(take_e));
	err_free(take_e);
	return NULL;
}

static struct err *put_chunk(struct call *call, struct net_reply *reply)
{
	const struct buf *body = net_request_body(call->request);
	uint8_t id[STORE_UPLOAD_ID_BYTES];
	uint64_t offset, now = 0;

	TRY(parse_id(call, id));
	TRY(read_offset(call, &offset));
	if (body->len == 0)
		return err_new(ERR_INVALID, "the chunk is empty");
	struct err *e = store_upload_chunk(call->api->options.store, id, offset, body->data, body->len, &now);
	if (!e) {
		atomic_fetch_add_explicit(&call->api->metrics.upload_bytes, body->len, memory_order_relaxed);
		return reply_offset(now, reply);
	}
	if (err_code(e) == ERR_MISMATCH) {
		struct err *failed = call_error_with_offset(reply, 409, "offset_mismatch", err_message(e), now);
		err_free(e);
		return failed;
	}
	if (err_code(e) == ERR_LIMIT)
		return reply_past_limit(call, id, offset + body->len, e, reply);
	return e;
}

/* ------------------------------------------------------------------------------------ finish */

static struct err *reply_finished(const struct store_upload *upload, uint64_t job_id, struct net_reply *reply)
{
	struct json json = json_init(&reply->body);

	call_json(reply, 202);
	json_object_begin(&json);
	write_job_id(&json, job_id);
	write_ids(&json, upload);
	json_object_end(&json);
	return json_finish(&json);
}

/* Best effort: without memory a repeated finish gets a 404. */
static void remember_finished(struct api *api, const struct store_upload *upload, uint64_t job_id)
{
	struct store_upload *copy = malloc(sizeof(*copy));
	if (!copy)
		return;
	*copy = *upload;
	(void)pthread_mutex_lock(&api->lock);
	struct api_finished *slot = &api->finished[api->finished_next++ % API_FINISHED_KEPT];
	struct store_upload *old = slot->upload;
	slot->upload = copy;
	slot->job_id = job_id;
	(void)pthread_mutex_unlock(&api->lock);
	free(old);
}

static bool find_finished(struct api *api, const uint8_t id[STORE_UPLOAD_ID_BYTES], struct store_upload *ret, uint64_t *job_id_ret)
{
	bool found = false;

	(void)pthread_mutex_lock(&api->lock);
	for (size_t i = 0; i < API_FINISHED_KEPT && !found; i++) {
		const struct api_finished *slot = &api->finished[i];
		if (!slot->upload || memcmp(slot->upload->id, id, STORE_UPLOAD_ID_BYTES) != 0)
			continue;
		*ret = *slot->upload;
		*job_id_ret = slot->job_id;
		found = true;
	}
	(void)pthread_mutex_unlock(&api->lock);
	return found;
}

static void make_job(const struct store_upload *upload, struct store_job *job)
{
	char hex[SHA256_HEX_SIZE];

	sha256_format(&upload->sha256, hex);
	*job = (struct store_job){.tenant = upload->tenant,
		.kind = upload->role == STORE_ROLE_PACKAGE ? STORE_JOB_PACKAGE : STORE_JOB_ELF,
		.source = STORE_SOURCE_UPLOAD,
		.rank = store_source_rank(STORE_SOURCE_UPLOAD),
		.has_file_id = upload->has_file_id,
		.file_id = upload->file_id,
		.build_id = upload->build_id};
	memcpy(job->name, upload->name, sizeof(job->name));
	(void)snprintf(job->provenance, sizeof(job->provenance), "%s %s", role_word(upload->role), hex);
}

static struct err *reply_not_finished(struct err *take_e, const struct store_upload *upload, struct net_reply *reply)
{
	struct err *failed = NULL;

	if (err_code(take_e) == ERR_INVALID) {
		failed = call_error_with_offset(reply, 409, "incomplete", err_message(take_e), upload->offset);
	} else if (err_code(take_e) == ERR_MISMATCH) {
		net_reply_error(reply, 422, "checksum_mismatch", "%s", err_message(take_e));
	} else if (err_code(take_e) == ERR_LIMIT) {
		return reply_no_space(take_e, reply);
	} else {
		return take_e;
	}
	err_free(take_e);
	return failed;
}

static struct err *finish_upload(struct call *call, struct net_reply *reply)
{
	struct api *api = call->api;
	CLEANUP(freep) struct store_job *job = malloc(sizeof(*job));
	struct store_upload upload;
	uint8_t id[STORE_UPLOAD_ID_BYTES];
	uint64_t job_id;

	if (!job)
		return err_nomem();
	TRY(parse_id(call, id));
	if (find_finished(api, id, &upload, &job_id))
		return reply_finished(&upload, job_id, reply);
	TRY(store_upload_get(api->options.store, id, &upload));
	make_job(&upload, job);
	struct err *e = store_upload_finish(api->options.store, id, job, &job_id);
	if (e)
		return reply_not_finished(e, &upload, reply);
	remember_finished(api, &upload, job_id);
	atomic_fetch_add_explicit(&api->metrics.uploads_finished, 1, memory_order_relaxed);
	return reply_finished(&upload, job_id, reply);
}

/* ------------------------------------------------------------------------------------ heads */

void uploads_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	if (!net_request_content_type_is(request, "application/json"))
		call_refuse(api, request, API_PATH_UPLOADS, 415, "unsupported_media_type",
			"Content-Type must be application/json");
	else
		call_accept(api, request, API_PATH_UPLOADS, api->uploads, create_upload, CREATE_BODY_MAX);
}

void upload_get_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_UPLOAD, api->uploads, get_upload, 0);
}

void upload_chunk_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_UPLOAD_CHUNK, api->uploads, put_chunk, STORE_UPLOAD_CHUNK_MAX);
}

void upload_finish_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_UPLOAD_FINISH, api->uploads, finish_upload, FINISH_BODY_MAX);
}

void upload_abort_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_UPLOAD, api->uploads, abort_upload, 0);
}

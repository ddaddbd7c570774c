// SPDX-License-Identifier: Apache-2.0
/*
 * One file to the server (docs/http-api.md, "Uploads"):
 *
 *     begin    POST /v1/uploads with size and SHA-256  -> "exists": done. Else an ID and the offset to go on at
 *     chunks   PUT .. ?offset=N, at most 4 MiB each    -> the offset that is durable
 *     finish   POST .. /finish                         -> the job
 *     wait     GET /v1/jobs/..                         (--wait)
 *
 * The server keeps a session by content, so whatever goes wrong has one cure: begin again, and go on at the offset that it
 * names. A broken connection, a restart (refused connections for a while) and a full queue (503) are worth ATTEMPTS tries with
 * growing pauses, counted anew after each chunk that arrived; but a server that was never there fails at once.
 */
#include "base/json.h"
#include "cli/cli.h"
#include "cli/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	CHUNK_BYTES_MAX = 4 << 20,
	ATTEMPTS = 10,
	PAUSE_FIRST_MS = 100,
	PAUSE_MAX_MS = 5000,
	POLL_MS = 200,
	ID_BYTES = 64,
	PATH_BYTES = 160,
};

struct transfer {
	struct server *server;
	const struct upload_options *options;
	const struct upload_file *file;
	struct upload_progress *progress;
	int fd;
	struct sha256 sha256;
	char upload_id[ID_BYTES], job_id[ID_BYTES];
	uint64_t offset, chunk_max;
	uint64_t shown; /* bytes of this file that the progress counts */
	unsigned failures; /* since something last went well */
	uint32_t retry_after_s;
};

enum next { NEXT_CHUNK, NEXT_BEGIN, NEXT_DONE, NEXT_EXISTS };

static struct err *digest_file(int fd, uint64_t size, struct sha256 *ret)
{
	CLEANUP(sha256_stream_destroyp) struct sha256_stream *stream = NULL;
	CLEANUP(freep) uint8_t *block = malloc(CHUNK_BYTES_MAX);
	uint64_t done = 0;

	if (!block)
		return err_nomem();
	TRY(sha256_stream_create(&stream));
	while (done < size) {
		ssize_t got = pread(fd, block, CHUNK_BYTES_MAX, (off_t)done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_os(errno, "read");
		if (got == 0)
			return err_new(ERR_FORMAT, "the file became shorter while it was read");
		TRY(sha256_stream_update(stream, block, (size_t)got));
		done += (uint64_t)got;
	}
	return sha256_stream_finish(stream, ret);
}

/* The server takes names for people: no control characters. */
static void name_of(const char *path, char name[NAME_MAX + 1])
{
	const char *slash = strrchr(path, '/');

	(void)snprintf(name, NAME_MAX + 1, "%s", slash ? slash + 1 : path);
	for (char *at = name; *at; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			*at = '?';
}

static struct err *write_begin(const struct transfer *t, struct buf *ret)
{
	const struct upload_file *file = t->file;
	char name[NAME_MAX + 1];
	char digest[SHA256_HEX_SIZE], file_id[FILEID_HEX_SIZE], build_id[BUILD_ID_HEX_SIZE];
	struct json json = json_init(ret);

	sha256_format(&t->sha256, digest);
	json_object_begin(&json);
	json_key(&json, "role");
	json_text(&json, upload_role_name(file->role));
	json_key(&json, "name");
	name_of(t->options->name && file->role == UPLOAD_EXECUTABLE ? t->options->name : file->path, name);
	json_text(&json, name);
	json_key(&json, "size");
	json_u64(&json, file->size);
	json_key(&json, "sha256");
	json_text(&json, digest);
	if (file->has_file_id) {
		fileid_format_hex(&file->file_id, file_id);
		json_key(&json, "file_id");
		json_text(&json, file_id);
	}
	if (file->build_id.len > 0) {
		build_id_format(&file->build_id, build_id);
		json_key(&json, "build_id");
		json_text(&json, build_id);
	}
	json_key(&json, "force");
	json_bool(&json, t->options->force);
	json_object_end(&json);
	return json_finish(&json);
}

static void move_to(struct transfer *t, uint64_t offset)
{
	t->offset = offset;
	if (offset > t->shown) {
		t->progress->sent_bytes += offset - t->shown;
		t->shown = offset;
	}
}

static bool take_id(const struct server_reply *reply, const char *member, char id[ID_BYTES])
{
	const char *text = server_reply_text(reply, member);
	size_t len = strlen(text);

	/* It becomes part of a path. */
	if (len == 0 || len >= ID_BYTES || strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.") != len)
		return false;
	memcpy(id, text, len + 1);
	return true;
}

static struct err *take_offset(struct transfer *t, const char *path, const struct server_reply *reply)
{
	const json_t *offset = json_object_get(reply->body, "offset");

	if (!json_is_integer(offset) || json_integer_value(offset) < 0 ||
		(uint64_t)json_integer_value(offset) > t->file->size)
		return err_new(ERR_FORMAT, "%s: an answer without a sensible offset", path);
	move_to(t, (uint64_t)json_integer_value(offset));
	return NULL;
}

static struct err *begin(struct transfer *t, enum next *ret)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	CLEANUP(server_reply_deinit) struct server_reply reply = {0};
	static const char path[] = "/v1/uploads";

	TRY(write_begin(t, &body));
	TRY(server_call(t->server, "POST", path, &body, &reply));
	t->progress->has_connected = true;
	t->retry_after_s = reply.retry_after_s;
	if (reply.status != 200 && reply.status != 201)
		return server_reply_error(t->server, path, &reply);
	if (strcmp(server_reply_text(&reply, "status"), "exists") == 0) {
		*ret = NEXT_EXISTS;
		(void)take_id(&reply, "job_id", t->job_id);
		return NULL;
	}
	if (!take_id(&reply, "upload_id", t->upload_id))
		return err_new(ERR_FORMAT, "%s: an answer without a sensible upload_id", path);
	TRY(take_offset(t, path, &reply));
	json_int_t chunk_max = json_integer_value(json_object_get(reply.body, "chunk_max"));
	t->chunk_max = chunk_max > 0 && chunk_max < CHUNK_BYTES_MAX ? (uint64_t)chunk_max : CHUNK_BYTES_MAX;
	*ret = NEXT_CHUNK;
	return NULL;
}

static void pause_ms(uint64_t ms)
{
	struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		;
}

static struct err *send_chunk(struct transfer *t, enum next *ret)
{
	CLEANUP(server_reply_deinit) struct server_reply reply = {0};
	uint64_t left = t->file->size - t->offset, rate = t->options->bytes_per_second;
	char path[PATH_BYTES];

	(void)snprintf(path, sizeof(path), "/v1/uploads/%s?offset=%" PRIu64, t->upload_id, t->offset);
	left = left < t->chunk_max ? left : t->chunk_max;
	left = rate && rate < left ? rate : left;
	TRY(server_put_bytes(t->server, path, t->fd, t->offset, left, &reply));
	if (rate)
		pause_ms(left * 1000 / rate);
	t->retry_after_s = reply.retry_after_s;
	/* 404: the session was given up or has expired. 409: the server is somewhere else in the file, and says where. */
	*ret = reply.status == 404 ? NEXT_BEGIN : NEXT_CHUNK;
	if (reply.status == 404)
		return NULL;
	if (reply.status != 200 && reply.status != 409)
		return server_reply_error(t->server, path, &reply);
	uint64_t before = t->offset;
	TRY(take_offset(t, path, &reply));
	if (t->offset > before)
		t->failures = 0;
	else
		t->failures++; /* a server that never gets further must not be asked forever */
	return NULL;
}

static struct err *finish(struct transfer *t, enum next *ret)
{
	CLEANUP(server_reply_deinit) struct server_reply reply = {0};
	char path[PATH_BYTES];

	(void)snprintf(path, sizeof(path), "/v1/uploads/%s/finish", t->upload_id);
	TRY(server_call(t->server, "POST", path, NULL, &reply));
	t->retry_after_s = reply.retry_after_s;
	if (reply.status == 404 || reply.status == 409) {
		t->failures++;
		*ret = NEXT_BEGIN;
		return NULL;
	}
	if (reply.status != 202 && reply.status != 200)
		return server_reply_error(t->server, path, &reply);
	(void)take_id(&reply, "job_id", t->job_id);
	*ret = NEXT_DONE;
	return NULL;
}

/* NULL when it is worth another try, after a pause; else @p e. */
static struct err *wait_or_give_up(struct transfer *t, struct err *e)
{
	uint64_t pause = (uint64_t)PAUSE_FIRST_MS << (t->failures < 6 ? t->failures : 6);
	bool is_passing = err_code(e) == ERR_BUSY || (err_code(e) == ERR_PEER && t->progress->has_connected);

	if (!is_passing || ++t->failures >= ATTEMPTS)
		return e;
	err_free(e);
	if (pause < 1000 * (uint64_t)t->retry_after_s)
		pause = 1000 * (uint64_t)t->retry_after_s;
	pause_ms(pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
	return NULL;
}

static struct err *take_step(struct transfer *t, enum next *next)
{
	if (*next == NEXT_BEGIN)
		return begin(t, next);
	return t->offset < t->file->size ? send_chunk(t, next) : finish(t, next);
}

static struct err *send_all(struct transfer *t, enum next *ret)
{
	enum next next = NEXT_BEGIN;

	while (next != NEXT_DONE && next != NEXT_EXISTS) {
		if (t->failures >= ATTEMPTS)
			return err_new(ERR_PEER, "%u attempts, and the server gets no further than byte %" PRIu64, t->failures,
				t->offset);
		struct err *e = take_step(t, &next);
		if (!e)
			continue;
		TRY(wait_or_give_up(t, e));
		next = NEXT_BEGIN;
	}
	*ret = next;
	return NULL;
}

static struct err *wait_for_job(struct transfer *t)
{
	char path[PATH_BYTES];

	(void)snprintf(path, sizeof(path), "/v1/jobs/%s", t->job_id);
	for (;;) {
		CLEANUP(server_reply_deinit) struct server_reply reply = {0};
		struct err *e = server_call(t->server, "GET", path, NULL, &reply);
		if (!e && reply.status == 503)
			e = server_reply_error(t->server, path, &reply);
		if (e) {
			TRY(wait_or_give_up(t, e));
			continue;
		}
		/* A job that is forgotten was finished. */
		if (reply.status == 404)
			return NULL;
		if (reply.status != 200)
			return server_reply_error(t->server, path, &reply);
		t->failures = 0;
		const char *state = server_reply_text(&reply, "state");
		if (strcmp(state, "done") == 0)
			return NULL;
		if (strcmp(state, "failed") == 0)
			return err_new(ERR_PEER, "job %s failed: %s", t->job_id, server_reply_text(&reply, "reason"));
		pause_ms(POLL_MS);
	}
}

struct err *upload_transfer(struct server *server, const struct upload_options *options, const struct upload_file *file,
	struct upload_progress *progress, enum upload_outcome *ret)
{
	struct transfer t = {.server = server, .options = options, .file = file, .progress = progress};
	CLEANUP(closep) int fd = -1;
	enum next end;

	TRY(upload_content_open(file, &fd));
	t.fd = fd;
	TRY(digest_file(fd, file->size, &t.sha256));
	TRY(send_all(&t, &end));
	move_to(&t, file->size);
	if (options->wait && t.job_id[0])
		TRY(wait_for_job(&t));
	*ret = end == NEXT_EXISTS ? UPLOAD_EXISTS : UPLOAD_SENT;
	return NULL;
}

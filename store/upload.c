// SPDX-License-Identifier: Apache-2.0
/*
 * Upload sessions: <data_dir>/uploads/<session ID>, and a record with how much of it was acknowledged.
 *
 * A chunk is written at the session's offset, the file synced, and then the new offset committed: only that commit is
 * the acknowledgement. What lies past the offset (a chunk that was cut by a crash) is overwritten by the next chunk. So the
 * offset after a restart is exactly what senders were told.
 *
 * Finishing reads the file once, hashing and compressing (blob.c), then one transaction puts the original's record and the
 * job and drops the session. A crash before it leaves the session as it was: the sender finishes again.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* A session that a call works on. */
struct session_use {
	uint8_t id[STORE_UPLOAD_ID_BYTES];
	struct session_use *next;
};

static void upload_path(const uint8_t id[STORE_UPLOAD_ID_BYTES], char path[static 64])
{
	struct fileid hex;
	char text[FILEID_HEX_SIZE];

	memcpy(hex.bytes, id, sizeof(hex.bytes));
	fileid_format_hex(&hex, text);
	(void)snprintf(path, 64, "uploads/%s", text);
}

struct session {
	struct store *store;
	struct session_use use;
	bool held;
	char path[64];
	struct store_upload upload;
};

static void session_end(struct session *session)
{
	struct store *store = session->store;

	if (!session->held)
		return;
	(void)pthread_mutex_lock(&store->sessions_mutex);
	struct session_use **at = &store->sessions_in_use;
	while (*at != &session->use)
		at = &(*at)->next;
	*at = session->use.next;
	(void)pthread_mutex_unlock(&store->sessions_mutex);
}

static struct err *session_hold(struct session *session)
{
	struct store *store = session->store;
	bool busy = false;

	(void)pthread_mutex_lock(&store->sessions_mutex);
	for (struct session_use *use = store->sessions_in_use; use && !busy; use = use->next)
		busy = memcmp(use->id, session->use.id, STORE_UPLOAD_ID_BYTES) == 0;
	if (!busy) {
		session->use.next = store->sessions_in_use;
		store->sessions_in_use = &session->use;
		session->held = true;
	}
	(void)pthread_mutex_unlock(&store->sessions_mutex);
	return busy ? err_new(ERR_BUSY, "another request works on this upload") : NULL;
}

static struct err *session_read(struct txn *txn, const uint8_t id[STORE_UPLOAD_ID_BYTES], struct store_upload *ret)
{
	MDB_val key = {.mv_size = STORE_UPLOAD_ID_BYTES, .mv_data = (void *)(uintptr_t)id}, value;
	bool found;

	TRY(txn_get(txn, DB_UPLOADS, id, STORE_UPLOAD_ID_BYTES, &value, &found));
	if (!found)
		return err_new(ERR_NOT_FOUND, "no such upload: it was finished, dropped or never begun");
	return upload_decode(&key, &value, ret);
}

static struct err *session_write(struct txn *txn, const struct store_upload *upload)
{
	uint8_t bytes[UPLOAD_RECORD_MAX];
	size_t len = upload_encode(upload, bytes);

	if (len == 0)
		return err_new(ERR_LIMIT, "upload record is too large");
	return txn_put(txn, DB_UPLOADS, upload->id, STORE_UPLOAD_ID_BYTES, bytes, len);
}

struct err *store_upload_get(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES], struct store_upload *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_upload upload;

	TRY(store_read_begin(store, &read));
	TRY(session_read(&read->txn, id, &upload));
	*ret = upload;
	return NULL;
}

/* Holds a session for this call and reads it. */
static struct err *session_begin(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES], struct session *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->store = store;
	memcpy(ret->use.id, id, STORE_UPLOAD_ID_BYTES);
	upload_path(id, ret->path);
	TRY(session_hold(ret));
	return store_upload_get(store, id, &ret->upload);
}

/* -------------------------------------------------------------------------------------- create */

struct create {
	struct store_upload upload;
	bool existed;
};

static bool same_upload(const struct store_upload *a, const struct store_upload *b)
{
	return a->tenant == b->tenant && a->role == b->role && a->size == b->size &&
		memcmp(&a->sha256, &b->sha256, sizeof(a->sha256)) == 0;
}

static struct err *create_run(struct txn *txn, void *arg)
{
	struct create *create = arg;
	CLEANUP(scan_end) struct scan scan = {0};
	uint64_t count;

	create->existed = false;
	TRY(txn_count(txn, DB_UPLOADS, &count));
	TRY(scan_begin(txn, DB_UPLOADS, NULL, 0, &scan));
	for (;;) {
		struct store_upload open;
		bool found;
		TRY(scan_next(&scan, &found));
		if (!found)
			break;
		TRY(upload_decode(&scan.key, &scan.value, &open));
		if (!same_upload(&open, &create->upload))
			continue;
		create->upload = open;
		create->existed = true;
		return NULL;
	}
	if (count >= STORE_UPLOADS_MAX)
		return err_new(ERR_LIMIT, "%d uploads are open already", STORE_UPLOADS_MAX);
	return session_write(txn, &create->upload);
}

static struct err *file_create(struct store *store, const char *path)
{
	CLEANUP(closep) int fd = openat(store->dir_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	CLEANUP(closep) int dir = openat(store->dir_fd, "uploads", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || dir < 0 || fsync(dir))
		return err_os(errno, "%s/%s", store->data_dir, path);
	return NULL;
}

static struct err *create_check(const struct store *store, const struct store_upload *upload)
{
	if (upload->size == 0)
		return err_new(ERR_INVALID, "an upload of 0 bytes");
	if (upload->size > store->options.max_upload_bytes)
		return err_new(ERR_LIMIT, "an upload of %llu bytes: the limit is %llu", (unsigned long long)upload->size,
			(unsigned long long)store->options.max_upload_bytes);
	struct statvfs disk;
	if (fstatvfs(store->dir_fd, &disk))
		return err_os(errno, "%s", store->data_dir);
	if (upload->size > (uint64_t)disk.f_bavail * disk.f_frsize)
		return err_new(ERR_LIMIT, "an upload of %llu bytes: the server's disk has no room for it",
			(unsigned long long)upload->size);
	if (upload->role < STORE_ROLE_RUNTIME || upload->role > STORE_ROLE_SPLIT || upload->build_id.len > BUILD_ID_MAX)
		return err_new(ERR_INVALID, "an upload of an unknown role, or with a build ID that is too long");
	return NULL;
}

struct err *store_upload_create(struct store *store, const struct store_upload *upload, struct store_upload *ret)
{
	struct create create = {.upload = *upload};
	char path[64];

	TRY(create_check(store, upload));
	text_copy(create.upload.name, sizeof(create.upload.name), upload->name);
	create.upload.offset = 0;
	create.upload.created_ms = create.upload.active_ms = store_now_ms();
	if (getrandom(create.upload.id, STORE_UPLOAD_ID_BYTES, 0) != STORE_UPLOAD_ID_BYTES)
		return err_os(errno, "random bytes");
	upload_path(create.upload.id, path);
	struct err *e = file_create(store, path);
	if (!e)
		e = writer_run(store, create_run, &create, 0);
	if (e || create.existed)
		(void)unlinkat(store->dir_fd, path, 0);
	if (!e)
		*ret = create.upload;
	return e;
}

/* -------------------------------------------------------------------------------------- chunks */

static struct err *offset_run(struct txn *txn, void *arg)
{
	const struct store_upload *upload = arg;
	struct store_upload present;

	TRY(session_read(txn, upload->id, &present));
	return session_write(txn, upload);
}

static struct err *write_chunk(const struct session *session, const uint8_t *bytes, size_t len)
{
	struct store *store = session->store;
	uint64_t offset = session->upload.offset;
	CLEANUP(closep) int fd = openat(store->dir_fd, session->path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return err_os(errno, "%s/%s", store->data_dir, session->path);
	while (len > 0) {
		ssize_t n = pwrite(fd, bytes, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_os(errno, "%s/%s", store->data_dir, session->path);
		bytes += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	if (fdatasync(fd))
		return err_os(errno, "%s/%s: fsync", store->data_dir, session->path);
	return NULL;
}

struct err *store_upload_chunk(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES], uint64_t offset, const void *bytes,
	size_t len, uint64_t *offset_ret)
{
	CLEANUP(session_end) struct session session = {0};

	TRY(session_begin(store, id, &session));
	struct store_upload *upload = &session.upload;
	*offset_ret = upload->offset;
	if (offset != upload->offset)
		return err_new(ERR_MISMATCH, "a chunk for offset %llu: %llu bytes are here", (unsigned long long)offset,
			(unsigned long long)upload->offset);
	if (len > STORE_UPLOAD_CHUNK_MAX)
		return err_new(ERR_LIMIT, "a chunk of %zu bytes: the limit is %d", len, STORE_UPLOAD_CHUNK_MAX);
	if (len > upload->size - upload->offset)
		return err_new(ERR_LIMIT, "a chunk past the announced size of %llu bytes", (unsigned long long)upload->size);
	TRY(write_chunk(&session, bytes, len));
	upload->offset += len;
	upload->active_ms = store_now_ms();
	TRY(writer_run(store, offset_run, upload, 0));
	*offset_ret = upload->offset;
	return NULL;
}

/* -------------------------------------------------------------------------------------- the end of a session */

static struct err *drop_run(struct txn *txn, void *arg)
{
	struct store_upload present;

	TRY(session_read(txn, arg, &present));
	return txn_delete(txn, DB_UPLOADS, arg, STORE_UPLOAD_ID_BYTES);
}

static struct err *session_drop(struct session *session)
{
	TRY(writer_run(session->store, drop_run, session->use.id, 0));
	(void)unlinkat(session->store->dir_fd, session->path, 0);
	return NULL;
}

struct err *store_upload_abort(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES])
{
	CLEANUP(session_end) struct session session = {0};

	TRY(session_begin(store, id, &session));
	return session_drop(&session);
}

struct finish {
	const struct session *session;
	const struct blob_record *record;
	bool has_job;
	struct store_job job;
	uint64_t job_id;
	struct evicted evicted;
};

static struct err *finish_run(struct txn *txn, void *arg)
{
	struct finish *finish = arg;
	const uint8_t *id = finish->session->upload.id;
	struct store_upload present;

	TRY(session_read(txn, id, &present));
	/* The job first: its use of the original keeps that from being evicted. */
	TRY(blob_insert(txn, finish->record, &finish->evicted));
	if (finish->has_job)
		TRY(jobs_insert(txn, &finish->job, &finish->job_id));
	return txn_delete(txn, DB_UPLOADS, id, STORE_UPLOAD_ID_BYTES);
}

/* The job with this original among its inputs, and found by the IDs that are known. */
static struct err *finish_job(struct finish *finish, const struct store_job *job, const struct fileid *file_id)
{
	const struct store_upload *upload = &finish->session->upload;

	finish->has_job = true;
	finish->job = *job;
	if (finish->job.input_count >= STORE_JOB_INPUTS_MAX)
		return err_new(ERR_INVALID, "a job with %zu inputs has no room for this one", job->input_count);
	finish->job.inputs[finish->job.input_count++] =
		(struct store_job_input){.role = upload->role, .blob = finish->record->blob.sha256};
	if (upload->role == STORE_ROLE_RUNTIME && !finish->job.has_file_id) {
		finish->job.has_file_id = true;
		finish->job.file_id = *file_id;
	}
	if (finish->job.build_id.len == 0)
		finish->job.build_id = upload->build_id;
	return NULL;
}

/* A packed kernel is announced by the ID that profilers make of its build ID; the build ID is compared when it has been unpacked. */
static bool is_announced(const struct store_upload *upload, const struct fileid *file_id)
{
	struct fileid kernel = fileid_from_kernel_build_id(upload->build_id.bytes, upload->build_id.len);

	return upload->role != STORE_ROLE_RUNTIME || !upload->has_file_id || fileid_equal(&upload->file_id, file_id) ||
	       (upload->build_id.len > 0 && fileid_equal(&upload->file_id, &kernel));
}

/* Compresses the upload and compares it with what was announced. ERR_MISMATCH drops the session. */
static struct err *keep_upload(struct session *session, struct blob_keep *keep, struct fileid *file_id)
{
	struct store *store = session->store;
	const struct store_upload *upload = &session->upload;
	CLEANUP(closep) int fd = openat(store->dir_fd, session->path, O_RDONLY | O_CLOEXEC);
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat))
		return err_os(errno, "%s/%s", store->data_dir, session->path);
	keep->record.tenant = upload->tenant;
	keep->record.role = upload->role;
	keep->record.build_id = upload->build_id;
	keep->record.blob.created_ms = store_now_ms();
	memcpy(keep->record.blob.name, upload->name, sizeof(upload->name));
	/* A chunk that was cut by a crash may lie behind, never once all is acknowledged. */
	TRY(blob_compress(store, fd, upload->size, keep));
	struct err *e = fileid_from_fd(fd, file_id);
	bool fits = memcmp(&keep->record.blob.sha256, &upload->sha256, sizeof(upload->sha256)) == 0;
	bool same = is_announced(upload, file_id);
	if (!e && !fits)
		e = err_new(ERR_MISMATCH, "%s: the bytes that arrived do not have the SHA-256 that was announced", upload->name);
	else if (!e && !same)
		e = err_new(ERR_MISMATCH, "%s: the bytes that arrived do not have the file ID that was announced", upload->name);
	if (e)
		(void)unlinkat(store->dir_fd, keep->temporary, 0);
	return e;
}

struct err *store_upload_finish(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES], const struct store_job *job,
	uint64_t *job_id_ret)
{
	CLEANUP(session_end) struct session session = {0};
	CLEANUP(freep) struct finish *finish = calloc(1, sizeof(*finish));
	struct blob_keep keep = {0};
	struct fileid file_id;

	if (!finish)
		return err_nomem();
	TRY(session_begin(store, id, &session));
	if (session.upload.offset < session.upload.size)
		return err_new(ERR_INVALID, "%s: %llu of %llu bytes are here", session.upload.name,
			(unsigned long long)session.upload.offset, (unsigned long long)session.upload.size);
	finish->session = &session;
	finish->record = &keep.record;
	struct err *e = keep_upload(&session, &keep, &file_id);
	if (e && err_code(e) == ERR_MISMATCH)
		err_free(session_drop(&session));
	if (e)
		return e;
	if (job) {
		e = finish_job(finish, job, &file_id);
		if (e) {
			(void)unlinkat(store->dir_fd, keep.temporary, 0);
			return e;
		}
	}
	TRY(blob_commit(store, &keep, finish_run, finish, &finish->evicted));
	(void)unlinkat(store->dir_fd, session.path, 0);
	if (job) {
		jobs_wake(store);
		if (job_id_ret)
			*job_id_ret = finish->job_id;
	}
	return NULL;
}

/* The first session that nobody has fed for too long, from @p after on. */
static struct err *find_expired(struct store *store, uint8_t id[STORE_UPLOAD_ID_BYTES], bool *found_ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(scan_end) struct scan scan = {0};
	uint64_t now = store_now_ms(), age = (uint64_t)store->options.upload_expiry_s * 1000;

	TRY(store_read_begin(store, &read));
	TRY(scan_begin(&read->txn, DB_UPLOADS, NULL, 0, &scan));
	scan.from.len = STORE_UPLOAD_ID_BYTES;
	memcpy(scan.from.bytes, id, STORE_UPLOAD_ID_BYTES);
	for (;;) {
		struct store_upload upload;
		TRY(scan_next(&scan, found_ret));
		if (!*found_ret)
			return NULL;
		TRY(upload_decode(&scan.key, &scan.value, &upload));
		if (upload.active_ms + age > now)
			continue;
		memcpy(id, upload.id, STORE_UPLOAD_ID_BYTES);
		return NULL;
	}
}

/* The next ID in byte order. */
static void id_next(uint8_t id[STORE_UPLOAD_ID_BYTES])
{
	for (size_t i = STORE_UPLOAD_ID_BYTES; i-- > 0 && ++id[i] == 0;)
		;
}

struct err *store_upload_expire(struct store *store, uint64_t *dropped_ret)
{
	uint8_t id[STORE_UPLOAD_ID_BYTES] = {0};

	*dropped_ret = 0;
	for (;;) {
		bool found;
		TRY(find_expired(store, id, &found));
		if (!found)
			return NULL;
		struct err *e = store_upload_abort(store, id);
		if (!e)
			++*dropped_ret;
		else if (err_code(e) != ERR_BUSY && err_code(e) != ERR_NOT_FOUND)
			return e;
		err_free(e);
		id_next(id);
	}
}

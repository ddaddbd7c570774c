// SPDX-License-Identifier: Apache-2.0
/*
 * Uploads and the originals that are kept.
 *
 * An upload session is durable from store_upload_create on. Chunks are appended at the session's offset and a chunk that
 * was acknowledged survives a crash; after a broken connection or a restart the sender asks for the offset and goes on.
 * store_upload_finish checks length and SHA-256, keeps the original compressed and queues a job for it, all durable on
 * return. Originals that no queued or running job needs go, oldest first, when blob_quota_bytes is passed.
 * All functions block on the disk: worker threads only. One session is served by one call at a time (ERR_BUSY).
 */
#ifndef CAIRN_STORE_BLOB_H
#define CAIRN_STORE_BLOB_H

#include "store/job.h"
#include "store/store.h"

enum {
	STORE_UPLOAD_ID_BYTES = 16,
	STORE_UPLOAD_CHUNK_MAX = 4 << 20,
	STORE_UPLOADS_MAX = 4096, /* open sessions */
};

struct store_upload {
	uint8_t id[STORE_UPLOAD_ID_BYTES]; /* random, given by the store */
	uint32_t tenant;
	enum store_role role;
	char name[STORE_NAME_SIZE];
	uint64_t size; /* bytes, as announced */
	struct sha256 sha256; /* of all bytes, as announced */
	bool has_file_id;
	struct fileid file_id;	  /* as announced; a runtime file's is checked at finish */
	struct build_id build_id; /* as announced: a claim, until a worker has read it */
	uint64_t offset; /* bytes acknowledged */
	uint64_t created_ms, active_ms;
};

/**
 * Opens a session. @p upload: tenant, role, name, size, sha256 and the IDs; the rest is set by the store.
 * An open session of the same tenant, role, size and SHA-256 is returned instead of a second one.
 * @return NULL; ERR_LIMIT: size over max_upload_bytes or over what is free on the disk, STORE_UPLOADS_MAX sessions;
 *         ERR_INVALID: size 0; ERR_OS.
 */
struct err *store_upload_create(struct store *store, const struct store_upload *upload, struct store_upload *ret) MUST_USE;

/** The session as it stands. ERR_NOT_FOUND. */
struct err *store_upload_get(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES], struct store_upload *ret) MUST_USE;

/**
 * Appends a chunk; durable on return.
 * @param offset  where it belongs: must be the session's offset
 * @param offset_ret  the session's offset now, also on ERR_MISMATCH
 * @return NULL; ERR_NOT_FOUND; ERR_MISMATCH: another offset is wanted; ERR_LIMIT: chunk over STORE_UPLOAD_CHUNK_MAX or past the
 *         announced size; ERR_BUSY; ERR_OS (a full disk: nothing was acknowledged, the session stands).
 */
struct err *store_upload_chunk(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES], uint64_t offset, const void *bytes,
	size_t len, uint64_t *offset_ret) MUST_USE;

/**
 * Verifies, keeps the original, queues @p job with it, ends the session: durable on return.
 * @param job  its inputs (may be none) are completed by this blob with the session's role; NULL: no job
 * @return NULL; ERR_NOT_FOUND; ERR_INVALID: bytes are missing (the session stands); ERR_MISMATCH: SHA-256 or file ID are not as
 *         announced (the session is gone); ERR_BUSY; ERR_OS; ERR_NOMEM. Cost: reads and compresses the whole file.
 */
struct err *store_upload_finish(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES], const struct store_job *job,
	uint64_t *job_id_ret) MUST_USE;

/** Drops a session. ERR_NOT_FOUND. */
struct err *store_upload_abort(struct store *store, const uint8_t id[STORE_UPLOAD_ID_BYTES]) MUST_USE;

/** Drops sessions that had no chunk for upload_expiry_s; call now and then. */
struct err *store_upload_expire(struct store *store, uint64_t *dropped_ret) MUST_USE;

struct store_blob {
	struct sha256 sha256;
	uint64_t size;	 /* plain bytes */
	uint64_t stored_bytes; /* compressed */
	uint64_t created_ms;
	bool in_use; /* a queued or running job needs it */
	char name[STORE_NAME_SIZE];
};

/** *found_ret false when there is no such original (never was, or evicted). */
struct err *store_blob_get(struct store_read *read, const struct sha256 *id, struct store_blob *ret, bool *found_ret) MUST_USE;

/**
 * The newest kept original of a role that was uploaded for a build ID (a claim of the uploader): to pair a debug file with
 * the runtime file that came before it, and the other way round.
 */
struct err *store_blob_find(struct store_read *read, uint32_t tenant, const struct build_id *build_id, enum store_role role,
	struct sha256 *ret, bool *found_ret) MUST_USE;

/**
 * The plain bytes of an original as a read-only descriptor at offset 0 (an unlinked temporary file), for a worker.
 * @return NULL; ERR_NOT_FOUND; ERR_CORRUPT: what is stored does not give its SHA-256; ERR_OS. Memory: a few MiB whatever the size.
 */
struct err *store_blob_open(struct store *store, const struct sha256 *id, int *fd_ret) MUST_USE;

/** Drops an original unless a queued or running job uses it, or it was uploaded for an ID; durable on return. *dropped_ret: it is gone. */
struct err *store_blob_drop(struct store *store, const struct sha256 *id, bool *dropped_ret) MUST_USE;

/** Keeps the bytes of an open file (a package that a source fetched) as an original; durable on return. Its offset is not moved. */
struct err *store_blob_put(struct store *store, int fd, const char *name, struct sha256 *ret) MUST_USE;

#endif

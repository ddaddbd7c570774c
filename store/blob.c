// SPDX-License-Identifier: Apache-2.0
/*
 * Originals: <data_dir>/blobs/<SHA-256>.zst, one zstd frame for each PIECE of the file, so that compressing and
 * decompressing take the same few MiB whatever the size. The record in DB_BLOBS is what makes a file an original; files without
 * one are removed at open.
 *
 * Order of writing: temporary file, fsync, rename, fsync of the folder, then the record's transaction; of removing: the
 * record first, then the file. blob_mutex holds from rename to commit and from commit to unlink, so that an original that
 * is evicted and uploaded again at the same moment is not lost.
 *
 * Quota: when the compressed bytes pass it, the oldest go that no queued or running job uses (DB_BLOB_USES), at most
 * EVICT_MAX a time, never the one that came in.
 */
#include "base/codec.h"
#include "store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { PIECE = 4 << 20, ZSTD_LEVEL = 1, READ_SIZE = 256 << 10 };

void blob_path(const struct sha256 *id, char path[static 96])
{
	char text[SHA256_HEX_SIZE];

	sha256_format(id, text);
	(void)snprintf(path, 96, "blobs/%s.zst", text);
}

struct err *blob_has(struct txn *txn, const struct sha256 *id, bool *found_ret)
{
	return txn_has(txn, DB_BLOBS, id->bytes, SHA256_BYTES, found_ret);
}

static struct err *write_all(int fd, const uint8_t *bytes, size_t len, const char *name)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_os(errno, "%s", name);
		bytes += n;
		len -= (size_t)n;
	}
	return NULL;
}

/* Up to @p len bytes from @p offset; fewer only at the end of the file. */
static struct err *read_at(int fd, uint8_t *bytes, size_t len, uint64_t offset, size_t *n_ret)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, bytes + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_os(errno, "read");
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*n_ret = done;
	return NULL;
}

/* -------------------------------------------------------------------------------------- keeping */

static struct err *compress_pieces(int from, int to, uint64_t size, struct blob_keep *keep)
{
	CLEANUP(freep) uint8_t *piece = malloc(PIECE);
	CLEANUP(sha256_stream_destroyp) struct sha256_stream *hash = NULL;
	CLEANUP(buf_deinit) struct buf out = {0};
	uint64_t done = 0;

	if (!piece)
		return err_nomem();
	TRY(sha256_stream_create(&hash));
	while (done < size) {
		size_t n, want = size - done < PIECE ? (size_t)(size - done) : PIECE;
		TRY(read_at(from, piece, want, done, &n));
		if (n < want)
			return err_new(ERR_FORMAT, "the file has become shorter than %llu bytes", (unsigned long long)size);
		TRY(sha256_stream_update(hash, piece, n));
		out.len = 0;
		TRY(codec_compress_zstd(piece, n, ZSTD_LEVEL, &out));
		TRY(write_all(to, out.data, out.len, keep->temporary));
		keep->record.blob.stored_bytes += out.len;
		done += n;
	}
	return sha256_stream_finish(hash, &keep->record.blob.sha256);
}

struct err *blob_compress(struct store *store, int fd, uint64_t size, struct blob_keep *keep)
{
	static atomic_uint_fast64_t number; /* relaxed: only uniqueness matters */

	(void)snprintf(keep->temporary, sizeof(keep->temporary), "blobs/new.%llu",
		(unsigned long long)atomic_fetch_add_explicit(&number, 1, memory_order_relaxed));
	CLEANUP(closep) int to = openat(store->dir_fd, keep->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (to < 0)
		return err_os(errno, "%s/%s", store->data_dir, keep->temporary);
	keep->record.blob.size = size;
	keep->record.blob.stored_bytes = 0;
	struct err *e = compress_pieces(fd, to, size, keep);
	if (!e && fsync(to))
		e = err_os(errno, "%s/%s: fsync", store->data_dir, keep->temporary);
	if (e)
		(void)unlinkat(store->dir_fd, keep->temporary, 0);
	return e;
}

static struct err *sync_folder(struct store *store, const char *name)
{
	CLEANUP(closep) int fd = openat(store->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd))
		return err_os(errno, "%s/%s: fsync", store->data_dir, name);
	return NULL;
}

static struct key id_key(uint32_t tenant, const struct build_id *build_id, enum store_role role)
{
	struct key key = key_of_aliases(tenant, build_id);

	key_put_uint(&key, role, 1);
	return key;
}

/* The oldest originals that nobody uses go until the quota holds. */
static struct err *evict(struct txn *txn, const struct sha256 *newest, struct evicted *evicted)
{
	uint64_t total = 0;

	evicted->count = 0;
	for (;;) {
		CLEANUP(scan_end) struct scan scan = {0};
		struct blob_record record, oldest = {0};
		bool any = false;
		TRY(scan_begin(txn, DB_BLOBS, NULL, 0, &scan));
		total = 0;
		for (;;) {
			bool found, used;
			TRY(scan_next(&scan, &found));
			if (!found)
				break;
			TRY(blob_decode(&scan.key, &scan.value, &record));
			total += record.blob.stored_bytes;
			if (memcmp(&record.blob.sha256, newest, sizeof(*newest)) == 0 ||
				(any && record.blob.created_ms >= oldest.blob.created_ms))
				continue;
			TRY(scan_any(txn, DB_BLOB_USES, scan.key.mv_data, SHA256_BYTES, &used));
			if (used)
				continue;
			oldest = record;
			any = true;
		}
		if (total <= txn->store->options.blob_quota_bytes || !any || evicted->count == EVICT_MAX)
			return NULL;
		scan_end(&scan);
		TRY(txn_delete(txn, DB_BLOBS, oldest.blob.sha256.bytes, SHA256_BYTES));
		evicted->ids[evicted->count++] = oldest.blob.sha256;
		if (oldest.build_id.len == 0)
			continue;
		struct key key = id_key(oldest.tenant, &oldest.build_id, oldest.role);
		MDB_val value;
		bool found;
		TRY(txn_get(txn, DB_BLOB_IDS, key.bytes, key.len, &value, &found));
		if (found && value.mv_size == SHA256_BYTES && memcmp(value.mv_data, &oldest.blob.sha256, SHA256_BYTES) == 0)
			TRY(txn_delete(txn, DB_BLOB_IDS, key.bytes, key.len));
	}
}

struct err *blob_insert(struct txn *txn, const struct blob_record *record, struct evicted *evicted)
{
	uint8_t bytes[BLOB_RECORD_MAX];
	size_t len = blob_encode(record, bytes);
	const struct sha256 *id = &record->blob.sha256;

	if (len == 0)
		return err_new(ERR_LIMIT, "original's record is too large");
	TRY(txn_put(txn, DB_BLOBS, id->bytes, SHA256_BYTES, bytes, len));
	if (record->build_id.len > 0) {
		struct key key = id_key(record->tenant, &record->build_id, record->role);
		TRY(txn_put(txn, DB_BLOB_IDS, key.bytes, key.len, id->bytes, SHA256_BYTES));
	}
	return evict(txn, id, evicted);
}

struct err *blob_commit(struct store *store, struct blob_keep *keep, command_fn *run, void *arg, struct evicted *evicted)
{
	char path[96];

	blob_path(&keep->record.blob.sha256, path);
	(void)pthread_mutex_lock(&store->blob_mutex);
	struct err *e = NULL;
	if (renameat(store->dir_fd, keep->temporary, store->dir_fd, path))
		e = err_os(errno, "%s/%s", store->data_dir, path);
	if (!e)
		e = sync_folder(store, "blobs");
	if (!e)
		e = writer_run(store, run, arg, 0);
	/* After a failure the file stays: it may be another upload's too. Without a record it goes at the next open. */
	for (size_t i = 0; !e && i < evicted->count; i++) {
		blob_path(&evicted->ids[i], path);
		(void)unlinkat(store->dir_fd, path, 0);
	}
	(void)pthread_mutex_unlock(&store->blob_mutex);
	if (e)
		(void)unlinkat(store->dir_fd, keep->temporary, 0);
	return e;
}

struct put_blob {
	struct blob_record *record;
	struct evicted evicted;
};

static struct err *put_blob_run(struct txn *txn, void *arg)
{
	struct put_blob *put = arg;

	return blob_insert(txn, put->record, &put->evicted);
}

struct err *store_blob_put(struct store *store, int fd, const char *name, struct sha256 *ret)
{
	struct blob_keep keep = {.record = {.tenant = STORE_TENANT_PUBLIC, .role = STORE_ROLE_PACKAGE}};
	CLEANUP(freep) struct put_blob *put = calloc(1, sizeof(*put));
	struct stat stat;

	if (!put)
		return err_nomem();
	if (fstat(fd, &stat))
		return err_os(errno, "%s", name);
	if ((uint64_t)stat.st_size > store->options.max_upload_bytes)
		return err_new(ERR_LIMIT, "%s has %llu bytes, over the limit of %llu", name, (unsigned long long)stat.st_size,
			(unsigned long long)store->options.max_upload_bytes);
	text_copy(keep.record.blob.name, sizeof(keep.record.blob.name), name);
	keep.record.blob.created_ms = store_now_ms();
	TRY(err_wrap(blob_compress(store, fd, (uint64_t)stat.st_size, &keep), "%s", name));
	put->record = &keep.record;
	TRY(blob_commit(store, &keep, put_blob_run, put, &put->evicted));
	*ret = keep.record.blob.sha256;
	return NULL;
}

struct drop_blob {
	const struct sha256 *id;
	bool dropped;
};

static struct err *drop_blob_run(struct txn *txn, void *arg)
{
	struct drop_blob *drop = arg;
	struct blob_record record;
	MDB_val key = {.mv_size = SHA256_BYTES, .mv_data = (void *)(uintptr_t)drop->id->bytes}, value;
	bool found, used;

	drop->dropped = false;
	TRY(txn_get(txn, DB_BLOBS, drop->id->bytes, SHA256_BYTES, &value, &found));
	drop->dropped = !found;
	if (!found)
		return NULL;
	TRY(blob_decode(&key, &value, &record));
	TRY(scan_any(txn, DB_BLOB_USES, drop->id->bytes, SHA256_BYTES, &used));
	if (used || record.build_id.len > 0)
		return NULL;
	TRY(txn_delete(txn, DB_BLOBS, drop->id->bytes, SHA256_BYTES));
	drop->dropped = true;
	return NULL;
}

struct err *store_blob_drop(struct store *store, const struct sha256 *id, bool *dropped_ret)
{
	struct drop_blob drop = {.id = id};
	char path[96];

	blob_path(id, path);
	(void)pthread_mutex_lock(&store->blob_mutex);
	struct err *e = writer_run(store, drop_blob_run, &drop, 0);
	if (!e && drop.dropped)
		(void)unlinkat(store->dir_fd, path, 0);
	(void)pthread_mutex_unlock(&store->blob_mutex);
	if (!e)
		*dropped_ret = drop.dropped;
	return e;
}

/* -------------------------------------------------------------------------------------- reading */

struct err *store_blob_get(struct store_read *read, const struct sha256 *id, struct store_blob *ret, bool *found_ret)
{
	MDB_val key = {.mv_size = SHA256_BYTES, .mv_data = (void *)(uintptr_t)id->bytes}, value;
	struct blob_record record;

	TRY(txn_get(&read->txn, DB_BLOBS, id->bytes, SHA256_BYTES, &value, found_ret));
	if (!*found_ret)
		return NULL;
	TRY(blob_decode(&key, &value, &record));
	TRY(scan_any(&read->txn, DB_BLOB_USES, id->bytes, SHA256_BYTES, &record.blob.in_use));
	*ret = record.blob;
	return NULL;
}

struct err *store_blob_find(struct store_read *read, uint32_t tenant, const struct build_id *build_id, enum store_role role,
	struct sha256 *ret, bool *found_ret)
{
	struct key key = id_key(tenant, build_id, role);
	MDB_val value;

	*found_ret = false;
	if (build_id->len == 0)
		return NULL;
	TRY(txn_get(&read->txn, DB_BLOB_IDS, key.bytes, key.len, &value, found_ret));
	if (!*found_ret)
		return NULL;
	if (value.mv_size != SHA256_BYTES)
		return corrupt(DB_BLOB_IDS, key.bytes, key.len, "value of a wrong length");
	memcpy(ret->bytes, value.mv_data, SHA256_BYTES);
	return NULL;
}

static struct err *inflate(int from, int to, const struct store_blob *blob, const char *path)
{
	CLEANUP(freep) uint8_t *in = malloc(READ_SIZE);
	CLEANUP(buf_deinit) struct buf out = {0};
	CLEANUP(codec_stream_destroyp) struct codec_stream *stream = NULL;
	CLEANUP(sha256_stream_destroyp) struct sha256_stream *hash = NULL;
	struct sha256 id;
	size_t n;

	if (!in)
		return err_nomem();
	TRY(sha256_stream_create(&hash));
	if (blob->size > 0)
		TRY(codec_stream_create(CODEC_ZSTD, blob->size, &stream));
	for (uint64_t at = 0; stream; at += n) {
		TRY(read_at(from, in, READ_SIZE, at, &n));
		if (n == 0)
			break;
		out.len = 0;
		TRY(codec_stream_feed(stream, in, n, &out));
		TRY(sha256_stream_update(hash, out.data, out.len));
		if (to >= 0)
			TRY(write_all(to, out.data, out.len, path));
	}
	if (stream)
		TRY(codec_stream_finish(stream));
	TRY(sha256_stream_finish(hash, &id));
	if (memcmp(&id, &blob->sha256, sizeof(id)) != 0)
		return err_new(ERR_FORMAT, "its bytes do not have the SHA-256 of its name");
	return NULL;
}

/* Inflates an original to @p to, or only checks it when that is -1. */
static struct err *inflate_to(struct store *store, const struct store_blob *blob, int to)
{
	char path[96];

	blob_path(&blob->sha256, path);
	CLEANUP(closep) int from = openat(store->dir_fd, path, O_RDONLY | O_CLOEXEC);
	if (from < 0 && errno == ENOENT)
		return err_new(ERR_NOT_FOUND, "%s/%s: the original is gone", store->data_dir, path);
	if (from < 0)
		return err_os(errno, "%s/%s", store->data_dir, path);
	struct err *e = inflate(from, to, blob, path);
	if (e && (err_code(e) == ERR_FORMAT || err_code(e) == ERR_LIMIT)) {
		struct err *damaged = err_new(ERR_CORRUPT, "%s/%s: %s", store->data_dir, path, err_message(e));
		err_free(e);
		return damaged;
	}
	return e;
}

static struct err *temporary_file(struct store *store, int *ret)
{
	int fd = openat(store->dir_fd, "uploads", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		/* A file system without O_TMPFILE. */
		CLEANUP(freep) char *path = NULL;
		if (asprintf(&path, "%s/uploads/tmp.XXXXXX", store->data_dir) < 0)
			return err_nomem();
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			(void)unlink(path);
	}
	if (fd < 0)
		return err_os(errno, "%s/uploads: temporary file", store->data_dir);
	*ret = fd;
	return NULL;
}

struct err *store_blob_open(struct store *store, const struct sha256 *id, int *fd_ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(closep) int to = -1;
	struct store_blob blob;
	bool found;
	char text[SHA256_HEX_SIZE], name[64];

	sha256_format(id, text);
	TRY(store_read_begin(store, &read));
	TRY(store_blob_get(read, id, &blob, &found));
	store_read_end(TAKE_PTR(read));
	if (!found)
		return err_new(ERR_NOT_FOUND, "no original %s", text);
	TRY(temporary_file(store, &to));
	TRY(inflate_to(store, &blob, to));
	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", to);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_os(errno, "open %s for reading", text);
	*fd_ret = fd;
	return NULL;
}

/* -------------------------------------------------------------------------------------- open and check */

static bool is_kept(struct txn *txn, const char *name)
{
	struct sha256 id;
	bool found = false;

	if (strlen(name) != 68 || strcmp(name + 64, ".zst") != 0 || !sha256_parse(name, 64, &id))
		return false;
	struct err *e = blob_has(txn, &id, &found);
	if (e) {
		err_free(e);
		return true; /* in doubt it stays */
	}
	return found;
}

static bool is_session(struct txn *txn, const char *name)
{
	struct fileid id; /* 16 bytes as hex: the same form */
	bool found = false;

	if (strlen(name) != 2 * STORE_UPLOAD_ID_BYTES || !fileid_parse(name, strlen(name), &id))
		return false;
	struct err *e = txn_has(txn, DB_UPLOADS, id.bytes, STORE_UPLOAD_ID_BYTES, &found);
	if (e) {
		err_free(e);
		return true;
	}
	return found;
}

/* Removes files that no record names: what a crash left between a file and its transaction. */
static struct err *remove_strays(struct store *store, struct txn *txn, const char *folder,
	bool (*is_known)(struct txn *, const char *))
{
	int fd = openat(store->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_os(errno, "%s/%s", store->data_dir, folder);
	DIR *dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return err_os(errno, "%s/%s", store->data_dir, folder);
	}
	for (struct dirent *entry; (entry = readdir(dir));)
		if (entry->d_name[0] != '.' && !is_known(txn, entry->d_name))
			(void)unlinkat(fd, entry->d_name, 0);
	(void)closedir(dir);
	return NULL;
}

struct err *blobs_open(struct store *store)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;

	if (mkdirat(store->dir_fd, "blobs", 0750) && errno != EEXIST)
		return err_os(errno, "%s/blobs", store->data_dir);
	if (mkdirat(store->dir_fd, "uploads", 0750) && errno != EEXIST)
		return err_os(errno, "%s/uploads", store->data_dir);
	if (fsync(store->dir_fd))
		return err_os(errno, "%s: fsync", store->data_dir);
	TRY(store_read_begin(store, &read));
	TRY(remove_strays(store, &read->txn, "blobs", is_kept));
	return remove_strays(store, &read->txn, "uploads", is_session);
}

struct err *blob_verify(struct store *store, const struct store_blob *blob)
{
	return inflate_to(store, blob, -1);
}

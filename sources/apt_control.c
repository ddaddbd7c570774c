// SPDX-License-Identifier: Apache-2.0
/*
 * Debug packages that no index says the files of (of Debian's -dbg packages one half has no `Build-Ids:` field, and Contents indices may
 * be empty, as those of the security archive are): the control part of the package, a few kilobytes before its files, is read by a range
 * request, once for each package, and only when somebody wants an ID that the indices do not name. What it said is a note under
 * the package's SHA-256 and outlives the index.
 *
 * A server without ranges would send the whole package: such packages are read up to WHOLE_MAX bytes, and after the first one
 * larger ones are not asked for at all.
 */
#include "sources/apt.h"

#include "base/buf.h"
#include "sources/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WHOLE_MAX = 1 << 20, UNLISTED_MAX = 512, RETRY_MS = 300 * 1000 };

void apt_unlisted_key(const struct apt_repository_state *repository, char key[64])
{
	(void)snprintf(key, 64, "apt unlisted %016llx", (unsigned long long)repository->id);
}

static void control_key(const struct sha256 *package, char key[96])
{
	char hex[SHA256_HEX_SIZE];

	sha256_format(package, hex);
	(void)snprintf(key, 96, "control %s", hex);
}

struct err *apt_control_known(struct apt *apt, const struct sha256 *package, char **ret)
{
	char key[96];

	control_key(package, key);
	return store_note_get(apt->context.db, key, ret);
}

struct err *apt_control_add(struct store_index *index, const char *ids)
{
	struct text rest = {ids, strlen(ids)}, word;
	struct build_id id;

	while (text_word(&rest, &word))
		if (build_id_parse(word.at, word.len, &id))
			TRY(store_index_add(index, &id));
	return NULL;
}

/* One line of the note. */
struct unlisted {
	uint64_t number;
	struct release_file promised;
	char file[1024];
};

static bool read_unlisted(struct text *rest, struct unlisted *ret)
{
	struct text number, size, hash, file;

	return text_word(rest, &number) && text_word(rest, &size) && text_word(rest, &hash) && text_word(rest, &file) &&
	       text_u64(number, &ret->number) && text_u64(size, &ret->promised.size) && sha256_parse(hash.at, hash.len, &ret->promised.sha256) &&
	       text_copy_to(file, ret->file, sizeof(ret->file));
}

static struct err *read_bytes(int fd, uint64_t size, struct buf *ret)
{
	ret->len = 0;
	TRY(buf_reserve(ret, (size_t)size + 1));
	while (ret->len < size) {
		ssize_t n = pread(fd, ret->data + ret->len, (size_t)size - ret->len, (off_t)ret->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_os(n < 0 ? errno : EIO, "read");
		ret->len += (size_t)n;
	}
	return NULL;
}

/* The first @p len bytes of a package, or all of it where the server knows no ranges. */
static struct err *fetch_first(struct apt *apt, struct apt_repository_state *repository, const struct unlisted *package, uint64_t len, struct buf *ret)
{
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	char url[2048], key[128], hex[SHA256_HEX_SIZE];
	struct fetch_request request = {.key = key, .url = url, .limit = WHOLE_MAX, .refuse_html = true, .total_ms = 120000};

	sha256_format(&package->promised.sha256, hex);
	(void)snprintf(url, sizeof(url), "%s/%s", repository->place.uri, package->file);
	(void)snprintf(key, sizeof(key), "control %s %llu", hex, (unsigned long long)len);
	request.range_len = len < package->promised.size ? len : package->promised.size;
	TRY(fetch_run(apt->context.fetch, &request, &result));
	if (result.answer != FETCH_OK && result.status == 200)
		repository->no_ranges = true;
	if (result.answer != FETCH_OK)
		return err_new(result.answer == FETCH_FAILED ? ERR_PEER : ERR_MISMATCH, "%.150s: %.150s", url, result.reason);
	return read_bytes(result.fd, result.bytes, ret);
}

static struct err *add_id(void *context, const struct build_id *id)
{
	char hex[BUILD_ID_HEX_SIZE];

	build_id_format(id, hex);
	return buf_printf(context, "%s ", hex);
}

static struct err *read_control(struct apt *apt, struct apt_repository_state *repository, const struct unlisted *package, struct buf *ids)
{
	CLEANUP(buf_deinit) struct buf bytes = {0};
	uint64_t extent;

	if (repository->no_ranges && package->promised.size > WHOLE_MAX)
		return err_new(ERR_MISMATCH, "%.150s: its server sends no ranges, and the package has %llu bytes", package->file,
			(unsigned long long)package->promised.size);
	TRY(fetch_first(apt, repository, package, CONTROL_FIRST, &bytes));
	TRY(err_wrap(control_extent(bytes.data, bytes.len, &extent), "%.150s", package->file));
	if (extent > package->promised.size)
		return err_new(ERR_FORMAT, "%.150s: a control part larger than the package", package->file);
	if (extent > bytes.len)
		TRY(fetch_first(apt, repository, package, extent, &bytes));
	TRY(err_wrap(control_build_ids(bytes.data, bytes.len, add_id, ids), "%.150s", package->file));
	return ids->len <= STORE_NOTE_MAX ? NULL : err_new(ERR_LIMIT, "%.150s: more debug files than a note has room for", package->file);
}

/*
 * Reads one package's control part into the notes. What it cannot give is written down as an empty list, unless the network is to blame:
 * then it stays in @p left, to be tried again.
 */
static struct err *learn_one(struct apt *apt, struct apt_repository_state *repository, const struct unlisted *package, struct buf *left, struct buf *ids)
{
	char key[96], hash[SHA256_HEX_SIZE];

	ids->len = 0;
	struct err *e = read_control(apt, repository, package, ids);
	if (e) {
		enum err_code code = err_code(e);
		ids->len = 0;
		if (code == ERR_OS || code == ERR_NOMEM)
			return e;
		(void)snprintf(repository->unread, sizeof(repository->unread), "%s", err_message(e));
		err_free(e);
		sha256_format(&package->promised.sha256, hash);
		if (code == ERR_PEER)
			return buf_printf(left, "%llu %llu %s %s\n", (unsigned long long)package->number, (unsigned long long)package->promised.size, hash,
				package->file);
	}
	TRY(buf_append(ids, "", 1));
	control_key(&package->promised.sha256, key);
	return store_note_put(apt->context.db, key, (const char *)ids->data);
}

/*
 * All that the notes say now goes into the index, in one transaction, and what is left into the note. Where the index was made anew meanwhile
 * the numbers are others', and it has read the notes itself or will. Under the lock.
 */
static struct err *add_learned(struct apt *apt, const struct apt_repository_state *repository, const char *list, const char *left)
{
	CLEANUP(freep) char *present = NULL;
	char key[64];

	apt_unlisted_key(repository, key);
	TRY(store_note_get(apt->context.db, key, &present));
	if (!present || strcmp(present, list) != 0)
		return NULL;
	TRY(store_note_put(apt->context.db, key, left));
	struct text rest = {list, strlen(list)};
	struct unlisted package;
	struct store_index *index;
	struct err *e = NULL;

	TRY(store_index_reopen(apt->context.db, repository->id, &index));
	while (!e && read_unlisted(&rest, &package)) {
		CLEANUP(freep) char *ids = NULL;
		e = apt_control_known(apt, &package.promised.sha256, &ids);
		store_index_select(index, (uint32_t)package.number);
		if (!e && ids)
			e = apt_control_add(index, ids);
	}
	if (e) {
		store_index_abort(index);
		return e;
	}
	return store_index_commit(index);
}

struct err *apt_learn_unlisted(struct apt *apt, struct apt_repository_state *repository, bool *learned_ret)
{
	CLEANUP(freep) char *list = NULL;
	CLEANUP(buf_deinit) struct buf left = {0};
	CLEANUP(buf_deinit) struct buf ids = {0};
	struct unlisted package;
	char key[64];

	*learned_ret = false;
	apt_unlisted_key(repository, key);
	if (apt_wall_ms() < repository->learn_after_ms)
		return NULL;
	TRY(store_note_get(apt->context.db, key, &list));
	if (!list || !list[0])
		return NULL;
	struct text rest = {list, strlen(list)};
	repository->unread[0] = 0;
	for (size_t n = 0; n < UNLISTED_MAX && read_unlisted(&rest, &package); n++)
		TRY(learn_one(apt, repository, &package, &left, &ids));
	if (left.len > 0)
		repository->learn_after_ms = apt_wall_ms() + RETRY_MS;
	TRY(buf_append(&left, "", 1));
	(void)pthread_mutex_lock(&apt->lock);
	struct err *e = add_learned(apt, repository, list, (const char *)left.data);
	(void)pthread_mutex_unlock(&apt->lock);
	*learned_ret = true;
	return e;
}

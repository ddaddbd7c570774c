// SPDX-License-Identifier: Apache-2.0
/*
 * Indices of package repositories, from signature to build ID.
 *
 *   InRelease   asked for conditionally (If-None-Match, If-Modified-Since); gpgv; Date and Valid-Until; not older than the one before.
 *               What the signed text says is believed, nothing else. Under a text that did not change nothing more is fetched.
 *   Packages    of each component, by hash where the Release file allows it, size and SHA-256 checked: each package, and the build IDs
 *               of its `Build-Ids:` field
 *   Contents    of components with debug packages that have no such field: their paths under .build-id/
 *   the rest    debug packages of which neither says anything: what their control part said, when it was read before; else they
 *               are noted as unlisted, and apt_control.c reads them when somebody asks
 *
 * All of a repository goes into the store's index in one transaction: an index that is damaged or cut off half-way leaves the one before,
 * until that expires.
 */
#include "sources/apt.h"

#include "base/buf.h"
#include "base/codec.h"
#include "base/hmap.h"
#include "sources/gpgv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	RELEASE_MAX = 8 << 20,
	RELEASE_TOTAL_MS = 60 * 1000, /* further tries included: others wait for it */
	INDEX_MAX = 256 << 20,
	STANZA_MAX = 4 << 20, /* of a Packages index; and a line of a Contents index */
	PIECE = 256 << 10,
	CONTENTS_LEAST = 64, /* a smaller one is an empty one, packed */
	UNLISTED_MAX = 1024, /* debug packages without build IDs, of one repository */
	STALE_MS = 3600 * 1000, /* a repository is looked at again after so long */
	FAILED_STALE_MS = 300 * 1000,
	CONTENTS_PACKAGES_MAX = 64, /* that share a path */
};
#define UNPACKED_MAX (UINT64_C(4) << 30)

/* A debug package that no build ID is known of yet. */
struct unlisted {
	uint32_t number;
	bool listed;
	struct release_file promised;
	char *file; /* malloc'd */
};

/* One run over a repository. */
struct run {
	struct apt *apt;
	struct apt_repository_state *repository;
	struct text release;
	struct store_index *index;
	struct hmap by_name; /* hash of the name -> place in `unlisted` */
	struct unlisted *unlisted;
	size_t unlisted_count;
};

static void run_deinit(struct run *run)
{
	for (size_t i = 0; i < run->unlisted_count; i++)
		free(run->unlisted[i].file);
	free(run->unlisted);
	hmap_deinit(&run->by_name);
	store_index_abort(run->index);
}

/* ---------------------------------------------------------------------------------------- Packages */

static uint64_t name_hash(const char *name, size_t len)
{
	return digest_xxh3_64(name, len);
}

static struct err *note_unlisted(struct run *run, const struct apt_record *record)
{
	/* A kernel's debug package has .build-id names for its vDSOs only. */
	if (!apt_debug_ending(record->self.name) || strncmp(record->self.name, "linux-image-", 12) == 0 || run->unlisted_count == UNLISTED_MAX)
		return NULL;
	struct unlisted *unlisted = &run->unlisted[run->unlisted_count];
	*unlisted = (struct unlisted){.number = store_index_number(run->index), .promised = record->promised, .file = strdup(record->file)};
	if (!unlisted->file)
		return err_nomem();
	return hmap_set(&run->by_name, name_hash(record->self.name, strlen(record->self.name)), run->unlisted_count++);
}

static struct err *index_stanza(struct run *run, struct text stanza)
{
	char text[APT_RECORD_SIZE];
	struct apt_record record;
	struct text ids, word;
	struct build_id id;

	if (!apt_record_from_stanza(stanza, &record) || !apt_record_write(&record, text))
		return NULL;
	TRY(store_index_package(run->index, text));
	id = apt_package_key(record.self.name, record.self.version);
	TRY(store_index_add(run->index, &id));
	if (apt_debug_ending(record.self.name)) {
		id = apt_name_key(record.self.name);
		TRY(store_index_add(run->index, &id));
	}
	if (!deb822_field(stanza, "Build-Ids", &ids))
		return note_unlisted(run, &record);
	while (text_word(&ids, &word))
		if (build_id_parse(word.at, word.len, &id))
			TRY(store_index_add(run->index, &id));
	return NULL;
}

/* Takes what is whole of @p text, keeps the rest. */
typedef struct err *take_text_fn(struct run *run, struct buf *text, bool last);

static struct err *keep_rest(struct buf *text, struct text rest)
{
	if (rest.len > STANZA_MAX)
		return err_new(ERR_LIMIT, "a record of more than %d bytes", STANZA_MAX);
	if (rest.len)
		memmove(text->data, rest.at, rest.len);
	text->len = rest.len;
	return NULL;
}

static struct err *take_stanzas(struct run *run, struct buf *text, bool last)
{
	struct text rest = {(const char *)text->data, text->len}, stanza;

	while (last ? deb822_next(&rest, &stanza) : deb822_next_whole(&rest, &stanza))
		TRY(index_stanza(run, stanza));
	return keep_rest(text, rest);
}

/* ---------------------------------------------------------------------------------------- Contents */

/* "usr/lib/debug/.build-id/ab/cdef.debug    debug/openjdk-17-dbg,debug/other" */
static struct err *index_path(struct run *run, struct text line)
{
	struct build_id id;
	size_t path = line.len;

	while (path > 0 && line.at[path - 1] != ' ' && line.at[path - 1] != '\t')
		path--;
	struct text packages = {line.at + path, line.len - path};
	while (path > 0 && (line.at[path - 1] == ' ' || line.at[path - 1] == '\t'))
		path--;
	if (!build_id_from_path(line.at, path, &id))
		return NULL;
	for (unsigned n = 0; packages.len > 0 && n < CONTENTS_PACKAGES_MAX; n++) {
		const char *comma = memchr(packages.at, ',', packages.len);
		struct text one = {packages.at, comma ? (size_t)(comma - packages.at) : packages.len};
		const char *slash = memrchr(one.at, '/', one.len);
		const char *name = slash ? slash + 1 : one.at;
		uint64_t place;
		if (hmap_get(&run->by_name, name_hash(name, (size_t)(one.at + one.len - name)), &place)) {
			store_index_select(run->index, run->unlisted[place].number);
			TRY(store_index_add(run->index, &id));
			run->unlisted[place].listed = true;
		}
		packages.at += one.len + (comma != NULL);
		packages.len -= one.len + (comma != NULL);
	}
	return NULL;
}

/* Of some million lines a few thousand matter: those with the name of the tree. */
static struct err *take_paths(struct run *run, struct buf *text, bool last)
{
	static const char tree[] = "/.build-id/";
	const char *at = (const char *)text->data, *end = at + text->len;
	const char *whole = last ? end : text->len ? memrchr(at, '\n', text->len) : NULL;

	if (!whole)
		return keep_rest(text, (struct text){at, text->len});
	for (const char *hit; (hit = memmem(at, (size_t)(whole - at), tree, sizeof(tree) - 1));) {
		const char *begin = memrchr(at, '\n', (size_t)(hit - at)), *stop = memchr(hit, '\n', (size_t)(whole - hit));
		begin = begin ? begin + 1 : at;
		stop = stop ? stop : whole;
		TRY(index_path(run, (struct text){begin, (size_t)(stop - begin)}));
		at = stop;
	}
	return keep_rest(text, (struct text){whole, (size_t)(end - whole)});
}

/* ---------------------------------------------------------------------------------------- files of a repository */

static struct err *read_index(struct run *run, int fd, uint64_t size, take_text_fn *take)
{
	CLEANUP(codec_stream_destroyp) struct codec_stream *stream = NULL;
	CLEANUP(freep) uint8_t *piece = malloc(PIECE);
	CLEANUP(buf_deinit) struct buf text = {0};

	if (!piece)
		return err_nomem();
	for (uint64_t at = 0; at < size;) {
		ssize_t n = pread(fd, piece, PIECE, (off_t)at);
		if (n <= 0)
			return err_os(n < 0 ? errno : EIO, "read");
		if (at == 0 && codec_detect(piece, (size_t)n) != CODEC_NONE)
			TRY(codec_stream_create(codec_detect(piece, (size_t)n), UNPACKED_MAX, &stream));
		TRY(stream ? codec_stream_feed(stream, piece, (size_t)n, &text) : buf_append(&text, piece, (size_t)n));
		TRY(take(run, &text, false));
		at += (uint64_t)n;
	}
	if (stream)
		TRY(codec_stream_finish(stream));
	return take(run, &text, true);
}

/* The file @p path of the Release file in the form that packs best; its name with the ending goes to @p chosen. False when it has none. */
static bool choose_file(struct text release, const char *path, char chosen[512], struct release_file *ret)
{
	static const char *const endings[] = {".xz", ".zst", ".gz", ".lz4", ""};

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		int len = snprintf(chosen, 512, "%s%s", path, endings[i]);
		if (len < 512 && release_find(release, chosen, ret))
			return true;
	}
	return false;
}

/* Fetches a file that the Release file vouches for and reads it. */
static struct err *take_file(struct run *run, const char *path, const struct release_file *promised, take_text_fn *take)
{
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	const struct apt_repository *place = &run->repository->place;
	const char *slash = strrchr(path, '/');
	char url[2048], hex[SHA256_HEX_SIZE];
	struct text by_hash;

	if (promised->size > INDEX_MAX)
		return err_new(ERR_LIMIT, "%s: %llu bytes, more than %d", path, (unsigned long long)promised->size, INDEX_MAX);
	sha256_format(&promised->sha256, hex);
	if (deb822_field(run->release, "Acquire-By-Hash", &by_hash) && text_is(by_hash, "yes"))
		(void)snprintf(url, sizeof(url), "%s/dists/%s/%.*s/by-hash/SHA256/%s", place->uri, place->suite, slash ? (int)(slash - path) : 0, path, hex);
	else
		(void)snprintf(url, sizeof(url), "%s/dists/%s/%s", place->uri, place->suite, path);
	TRY(apt_fetch_checked(run->apt, url, promised, &result));
	return err_wrap(read_index(run, result.fd, result.bytes, take), "%s", path);
}

static struct err *take_packages(struct run *run, struct text component)
{
	char path[512], chosen[512];
	struct release_file promised;

	(void)snprintf(path, sizeof(path), "%.*s/binary-%s/Packages", (int)(component.len < 200 ? component.len : 200), component.at,
		run->repository->architecture);
	return choose_file(run->release, path, chosen, &promised) ? take_file(run, chosen, &promised, take_stanzas) : NULL;
}

static bool any_unlisted(const struct run *run)
{
	for (size_t i = 0; i < run->unlisted_count; i++)
		if (!run->unlisted[i].listed)
			return true;
	return false;
}

/* A Contents index that is not to be had is no harm: the control parts say the same. One that is not as promised is. */
static struct err *take_contents(struct run *run, const char *path)
{
	struct release_file promised;
	char chosen[512];

	if (!any_unlisted(run) || !choose_file(run->release, path, chosen, &promised) || promised.size < CONTENTS_LEAST)
		return NULL;
	struct err *e = take_file(run, chosen, &promised, take_paths);
	if (e && err_code(e) == ERR_PEER) {
		err_free(e);
		return NULL;
	}
	return e;
}

/* What no index lists: from the notes, else for later. */
static struct err *take_unlisted(struct run *run, struct buf *later)
{
	for (size_t i = 0; i < run->unlisted_count; i++) {
		const struct unlisted *unlisted = &run->unlisted[i];
		CLEANUP(freep) char *ids = NULL;
		char hash[SHA256_HEX_SIZE];
		if (unlisted->listed)
			continue;
		TRY(apt_control_known(run->apt, &unlisted->promised.sha256, &ids));
		if (ids) {
			store_index_select(run->index, unlisted->number);
			TRY(apt_control_add(run->index, ids));
			continue;
		}
		sha256_format(&unlisted->promised.sha256, hash);
		if (later->len + strlen(unlisted->file) + 128 < STORE_NOTE_MAX && !strpbrk(unlisted->file, " \t\n"))
			TRY(buf_printf(later, "%u %llu %s %s\n", unlisted->number, (unsigned long long)unlisted->promised.size, hash, unlisted->file));
	}
	return buf_append(later, "", 1);
}

static struct err *index_all(struct apt *apt, struct apt_repository_state *repository, struct text release)
{
	CLEANUP(run_deinit) struct run run = {.apt = apt, .repository = repository, .release = release};
	struct text components = {repository->place.components, strlen(repository->place.components)}, rest = components, component;
	CLEANUP(buf_deinit) struct buf later = {0};
	char path[512], key[64];

	run.unlisted = calloc(UNLISTED_MAX, sizeof(*run.unlisted));
	if (!run.unlisted)
		return err_nomem();
	TRY(store_index_begin(apt->context.db, repository->id, &run.index));
	while (text_word(&rest, &component))
		TRY(take_packages(&run, component));
	rest = components;
	while (text_word(&rest, &component)) {
		(void)snprintf(path, sizeof(path), "%.*s/Contents-%s", (int)(component.len < 200 ? component.len : 200), component.at, repository->architecture);
		TRY(take_contents(&run, path));
	}
	(void)snprintf(path, sizeof(path), "Contents-%s", repository->architecture); /* where other distributions have it */
	TRY(take_contents(&run, path));
	TRY(take_unlisted(&run, &later));
	TRY(store_index_commit(TAKE_PTR(run.index)));
	apt_unlisted_key(repository, key);
	return store_note_put(apt->context.db, key, (const char *)later.data);
}

/* ---------------------------------------------------------------------------------------- the Release file */

static void release_key(const struct apt_repository_state *repository, char key[64])
{
	/* The number is that of the index's form: another form is made anew. */
	(void)snprintf(key, 64, "apt release 2 %016llx", (unsigned long long)repository->id);
}

/* "<digest>\n<date>\n<until>\n<etag>\n<last modified>" */
static struct err *load(struct apt *apt, struct apt_repository_state *repository)
{
	CLEANUP(freep) char *note = NULL;
	char key[64], *rest, *lines[5];
	uint64_t date, until;

	if (repository->loaded)
		return NULL;
	release_key(repository, key);
	TRY(store_note_get(apt->context.db, key, &note));
	repository->loaded = true;
	rest = note;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		if (!(lines[i] = strsep(&rest, "\n")))
			return NULL;
	if (!text_u64((struct text){lines[1], strlen(lines[1])}, &date) || !text_u64((struct text){lines[2], strlen(lines[2])}, &until))
		return NULL;
	repository->dates = (struct release_dates){(int64_t)date, (int64_t)until};
	(void)snprintf(repository->digest, sizeof(repository->digest), "%s", lines[0]);
	(void)snprintf(repository->etag, sizeof(repository->etag), "%s", lines[3]);
	(void)snprintf(repository->last_modified, sizeof(repository->last_modified), "%s", lines[4]);
	return NULL;
}

static struct err *save(struct apt *apt, const struct apt_repository_state *repository)
{
	char key[64], note[2 * FETCH_VALIDATOR_SIZE + 256];

	release_key(repository, key);
	(void)snprintf(note, sizeof(note), "%s\n%lld\n%lld\n%s\n%s", repository->digest, (long long)repository->dates.date_s,
		(long long)repository->dates.until_s, repository->etag, repository->last_modified);
	return store_note_put(apt->context.db, key, note);
}

bool apt_is_usable(const struct apt_repository_state *repository)
{
	int64_t now_s = (int64_t)(apt_wall_ms() / 1000);

	return repository->digest[0] && (!repository->dates.until_s || repository->dates.until_s >= now_s);
}

static struct err *check_not_expired(const struct apt_repository_state *repository)
{
	char text[40];

	if (apt_is_usable(repository))
		return NULL;
	release_format_date(repository->dates.until_s, text);
	return err_new(ERR_MISMATCH, "Release: it expired on %s, and the server has no newer one", text);
}

/* A signature stays good for ever: without this, whoever sits between could hand out an old index with its old packages. */
static struct err *check_not_older(const struct apt_repository_state *repository, const struct release_dates *dates)
{
	char before[40], now[40];

	if (!repository->digest[0] || dates->date_s >= repository->dates.date_s)
		return NULL;
	release_format_date(repository->dates.date_s, before);
	release_format_date(dates->date_s, now);
	return err_new(ERR_MISMATCH, "Release: of %s, older than the one before of %s", now, before);
}

static struct err *take_release(struct apt *apt, struct apt_repository_state *repository, const char *url, const struct fetch_result *result)
{
	CLEANUP(buf_deinit) struct buf release = {0};
	struct release_dates dates;
	char fresh[SHA256_HEX_SIZE];
	struct sha256 digest;

	TRY(err_wrap(gpgv_open(result->fd, repository->place.signed_by, &release), "%.200s", url));
	struct text text = {(const char *)release.data, release.len};
	TRY(err_wrap(release_check_dates(text, (int64_t)(apt_wall_ms() / 1000)), "%.200s", url));
	TRY(err_wrap(release_read_dates(text, &dates), "%.200s", url));
	TRY(err_wrap(check_not_older(repository, &dates), "%.200s", url));
	TRY(sha256_of(release.data, release.len, &digest));
	sha256_format(&digest, fresh);
	bool is_new = strcmp(fresh, repository->digest) != 0;
	if (is_new)
		TRY(err_wrap(index_all(apt, repository, text), "%.100s %.60s", repository->place.uri, repository->place.suite));
	repository->dates = dates;
	memcpy(repository->digest, fresh, sizeof(fresh));
	memcpy(repository->etag, result->etag, sizeof(result->etag));
	memcpy(repository->last_modified, result->last_modified, sizeof(result->last_modified));
	TRY(save(apt, repository));
	if (is_new)
		atomic_store_explicit(&apt->source.changed_ms, apt_wall_ms(), memory_order_relaxed);
	return NULL;
}

static struct err *refresh_one(struct apt *apt, struct apt_repository_state *repository)
{
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	char url[1024];

	(void)snprintf(url, sizeof(url), "%s/dists/%s/InRelease", repository->place.uri, repository->place.suite);
	TRY(load(apt, repository));
	struct fetch_request request = {.url = url, .limit = RELEASE_MAX, .total_ms = RELEASE_TOTAL_MS};
	if (repository->digest[0]) {
		request.etag = repository->etag;
		request.last_modified = repository->last_modified;
	}
	TRY(fetch_run(apt->context.fetch, &request, &result));
	if (result.answer == FETCH_NOT_MODIFIED)
		return err_wrap(check_not_expired(repository), "%.200s", url);
	if (result.answer != FETCH_OK)
		return err_new(ERR_PEER, "%.150s: %.150s", url, result.reason);
	return take_release(apt, repository, url, &result);
}

void apt_refresh_stale(struct apt *apt)
{
	for (size_t i = 0; i < apt->count; i++) {
		struct apt_repository_state *repository = &apt->repositories[i];
		uint64_t now = apt_wall_ms();
		if (repository->looked_ms && now - repository->looked_ms < (uint64_t)(repository->failed ? FAILED_STALE_MS : STALE_MS))
			continue;
		struct err *e = refresh_one(apt, repository);
		repository->failed = e != NULL;
		(void)snprintf(repository->reason, sizeof(repository->reason), "%s", e ? err_message(e) : "");
		repository->looked_ms = apt_wall_ms();
		err_free(e);
	}
}

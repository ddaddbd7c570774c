// SPDX-License-Identifier: Apache-2.0
/*
 * Package repositories in APT's form. One source for all of them:
 *
 *   refresh   InRelease -> gpgv -> dates -> the Packages index of each component (by hash where the Release file
 *             allows it; size and SHA-256 checked) -> build ID -> package, in the store's index, in one transaction a repository.
 *             Under a Release file whose signed text did not change nothing more is fetched. Beside each of Debian's repositories its debug archive is read.
 *   find      build ID -> the package that has its debug file (`Build-Ids:` field) -> fetched once, checked against the index -> a job.
 *             The binary package that it depends on (`Depends: libc6 (= 2.36-9)`) comes along: it has the runtime file.
 *
 * Indices are read whole and only once somebody has asked for an ID: a daemon that nobody asks reads nothing, and no build ID leaves the
 * house. Everything is bounded: INDEX_MAX bytes a packed index, UNPACKED_MAX unpacked, STANZA_MAX a package's record.
 *
 * The index names a package by a key of its own kind: 'P' and a hash of "name=version", where build IDs stand otherwise.
 */
#include "sources/source.h"

#include "base/buf.h"
#include "base/codec.h"
#include "sources/deb822.h"
#include "sources/gpgv.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	SOURCES_FILE_MAX = 1 << 20,
	RELEASE_MAX = 8 << 20,
	INDEX_MAX = 256 << 20,
	STANZA_MAX = 4 << 20,
	PIECE = 256 << 10,
	STALE_MS = 3600 * 1000, /* a repository is looked at again after so long */
	FAILED_STALE_MS = 300 * 1000,
	RECORD_SIZE = 2048,
};
#define UNPACKED_MAX (UINT64_C(4) << 30)

struct repository {
	struct apt_repository place;
	uint64_t id;
	uint64_t looked_ms; /* 0: never */
	bool failed;
	bool guessed; /* a debug archive that may not exist: its failure is told, and is none of the search */
	char reason[STORE_ASK_TEXT_SIZE]; /* of the failure */
};

struct apt {
	struct source source;
	struct source_context context;
	pthread_mutex_t lock; /* one refresh at a time; guards the repositories' states */
	size_t count;
	struct repository repositories[APT_REPOSITORIES_MAX];
};

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---------------------------------------------------------------------------------------- fetching */

static struct err *fetch_error(const char *url, const struct fetch_result *result)
{
	return err_new(ERR_PEER, "%.150s: %.150s", url, result->reason);
}

static struct err *read_file(int fd, uint64_t size, struct buf *ret)
{
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

static struct err *hash_of(int fd, uint64_t size, struct sha256 *ret)
{
	CLEANUP(sha256_stream_destroyp) struct sha256_stream *hash = NULL;
	CLEANUP(freep) uint8_t *piece = malloc(PIECE);

	if (!piece)
		return err_nomem();
	TRY(sha256_stream_create(&hash));
	for (uint64_t at = 0; at < size;) {
		ssize_t n = pread(fd, piece, PIECE, (off_t)at);
		if (n <= 0)
			return err_os(n < 0 ? errno : EIO, "read");
		TRY(sha256_stream_update(hash, piece, (size_t)n));
		at += (uint64_t)n;
	}
	return sha256_stream_finish(hash, ret);
}

/* Fetches a file that somebody vouches for: size and SHA-256 must be as promised. */
static struct err *fetch_checked(struct apt *apt, const char *url, const struct release_file *promised, struct fetch_result *ret)
{
	struct fetch_request request = {.url = url, .limit = promised->size, .total_ms = 3600 * 1000};
	struct sha256 got;

	TRY(fetch_run(apt->context.fetch, &request, ret));
	if (ret->answer != FETCH_OK)
		return fetch_error(url, ret);
	if (ret->bytes != promised->size)
		return err_new(ERR_MISMATCH, "%.200s: %llu bytes, and %llu were promised", url, (unsigned long long)ret->bytes,
			(unsigned long long)promised->size);
	TRY(hash_of(ret->fd, ret->bytes, &got));
	if (memcmp(got.bytes, promised->sha256.bytes, SHA256_BYTES) != 0)
		return err_new(ERR_MISMATCH, "%.200s: its SHA-256 is not as promised", url);
	return NULL;
}

/* ---------------------------------------------------------------------------------------- the index */

static struct build_id package_key(struct text name, struct text version)
{
	char text[512];
	struct build_id key = {.len = 17, .bytes = {'P'}};
	int len = snprintf(text, sizeof(text), "%.*s=%.*s", (int)(name.len < 200 ? name.len : 200), name.at,
		(int)(version.len < 200 ? version.len : 200), version.at);

	digest_xxh3_128(text, (size_t)len, key.bytes + 1);
	return key;
}

/* "libc6 (= 2.36-9), .." -> the key of that package; false when the first dependency names no exact version. */
static bool depended_on(struct text stanza, struct text *name_ret, struct text *version_ret)
{
	struct text depends, word;

	if (!deb822_field(stanza, "Depends", &depends))
		return false;
	if (!text_word(&depends, name_ret) || !text_word(&depends, &word) || !text_is(word, "(=") || !text_word(&depends, version_ret))
		return false;
	const char *end = memchr(version_ret->at, ')', version_ret->len);
	if (!end)
		return false;
	version_ret->len = (size_t)(end - version_ret->at);
	return true;
}

/* A package as the index keeps it: a line each of file name, size, SHA-256, name and version, name and version of what it belongs to. */
static bool make_record(struct text stanza, struct text name, struct text version, char record[RECORD_SIZE])
{
	struct text file, size, hash, of = {"", 0}, of_version = {"", 0};

	if (!deb822_field(stanza, "Filename", &file) || !deb822_field(stanza, "Size", &size) || !deb822_field(stanza, "SHA256", &hash))
		return false;
	if (!depended_on(stanza, &of, &of_version))
		of.len = of_version.len = 0;
	if (file.len > 1000 || name.len > 200 || version.len > 200 || of.len > 200 || of_version.len > 200 || size.len > 20 || hash.len != 64)
		return false;
	(void)snprintf(record, RECORD_SIZE, "%.*s\n%.*s\n%.*s\n%.*s\n%.*s\n%.*s\n%.*s\n", (int)file.len, file.at, (int)size.len, size.at,
		(int)hash.len, hash.at, (int)name.len, name.at, (int)version.len, version.at, (int)of.len, of.at, (int)of_version.len,
		of_version.at);
	return true;
}

static struct err *index_stanza(struct store_index *index, struct text stanza)
{
	struct text name, version, ids, word;
	char record[RECORD_SIZE];
	struct build_id id;

	if (!deb822_field(stanza, "Package", &name) || !deb822_field(stanza, "Version", &version) ||
		!make_record(stanza, name, version, record))
		return NULL;
	TRY(store_index_package(index, record));
	struct build_id key = package_key(name, version);
	TRY(store_index_add(index, &key));
	if (!deb822_field(stanza, "Build-Ids", &ids))
		return NULL;
	while (text_word(&ids, &word))
		if (build_id_parse(word.at, word.len, &id))
			TRY(store_index_add(index, &id));
	return NULL;
}

/* Indexes the whole stanzas of what is there, keeps the rest. */
static struct err *index_text(struct store_index *index, struct buf *text, bool last)
{
	struct text rest = {(const char *)text->data, text->len}, stanza;

	while (last ? deb822_next(&rest, &stanza) : deb822_next_whole(&rest, &stanza))
		TRY(index_stanza(index, stanza));
	if (rest.len > STANZA_MAX)
		return err_new(ERR_LIMIT, "a package's record of more than %d bytes", STANZA_MAX);
	if (rest.len)
		memmove(text->data, rest.at, rest.len);
	text->len = rest.len;
	return NULL;
}

static struct err *index_file(struct store_index *index, int fd, uint64_t size)
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
		TRY(index_text(index, &text, false));
		at += (uint64_t)n;
	}
	if (stream)
		TRY(codec_stream_finish(stream));
	return index_text(index, &text, true);
}

/* ---------------------------------------------------------------------------------------- refreshing */

/* The index of one component that the Release file has, in the form that packs best. False when it has none. */
static bool choose_index(struct text release, struct text component, char path[512], struct release_file *ret)
{
	static const char *const endings[] = {".xz", ".zst", ".gz", ""};

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		(void)snprintf(path, 512, "%.*s/binary-amd64/Packages%s", (int)(component.len < 200 ? component.len : 200), component.at, endings[i]);
		if (release_find(release, path, ret))
			return true;
	}
	return false;
}

static struct err *index_component(struct apt *apt, const struct repository *repository, struct text release, struct text component,
	struct store_index *index)
{
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	char path[512], url[2048], hex[SHA256_HEX_SIZE];
	struct release_file promised;
	struct text by_hash;

	if (!choose_index(release, component, path, &promised))
		return NULL;
	if (promised.size > INDEX_MAX)
		return err_new(ERR_LIMIT, "%s: %llu bytes, more than %d", path, (unsigned long long)promised.size, INDEX_MAX);
	sha256_format(&promised.sha256, hex);
	if (deb822_field(release, "Acquire-By-Hash", &by_hash) && text_is(by_hash, "yes"))
		(void)snprintf(url, sizeof(url), "%s/dists/%s/%.*s/binary-amd64/by-hash/SHA256/%s", repository->place.uri, repository->place.suite,
			(int)component.len, component.at, hex);
	else
		(void)snprintf(url, sizeof(url), "%s/dists/%s/%s", repository->place.uri, repository->place.suite, path);
	TRY(fetch_checked(apt, url, &promised, &result));
	return err_wrap(index_file(index, result.fd, result.bytes), "%s", path);
}

static struct err *index_all(struct apt *apt, const struct repository *repository, struct text release)
{
	struct text components = {repository->place.components, strlen(repository->place.components)}, component;
	struct store_index *index;
	struct err *e = NULL;

	TRY(store_index_begin(apt->context.db, repository->id, &index));
	while (!e && text_word(&components, &component))
		e = index_component(apt, repository, release, component, index);
	if (e) {
		store_index_abort(index); /* the index before stays */
		return e;
	}
	return store_index_commit(index);
}

/* The note is the SHA-256 of the signed text that was indexed last: under the same one there is nothing to do. */
static struct err *refresh_one(struct apt *apt, struct repository *repository)
{
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	CLEANUP(buf_deinit) struct buf release = {0};
	CLEANUP(freep) char *note = NULL;
	char url[1024], key[64], fresh[SHA256_HEX_SIZE];
	struct sha256 digest;

	(void)snprintf(url, sizeof(url), "%s/dists/%s/InRelease", repository->place.uri, repository->place.suite);
	(void)snprintf(key, sizeof(key), "apt release %016llx", (unsigned long long)repository->id);
	TRY(store_note_get(apt->context.db, key, &note));
	struct fetch_request request = {.url = url, .limit = RELEASE_MAX};
	TRY(fetch_run(apt->context.fetch, &request, &result));
	if (result.answer != FETCH_OK)
		return fetch_error(url, &result);
	TRY(err_wrap(gpgv_open(result.fd, repository->place.signed_by, &release), "%.200s", url));
	struct text text = {(const char *)release.data, release.len};
	TRY(err_wrap(release_check_dates(text, (int64_t)(wall_ms() / 1000)), "%.200s", url));
	TRY(sha256_of(release.data, release.len, &digest));
	sha256_format(&digest, fresh);
	if (note && strcmp(note, fresh) == 0)
		return NULL;
	TRY(err_wrap(index_all(apt, repository, text), "%.100s %.60s", repository->place.uri, repository->place.suite));
	TRY(store_note_put(apt->context.db, key, fresh));
	atomic_store_explicit(&apt->source.changed_ms, wall_ms(), memory_order_relaxed);
	return NULL;
}

/* Brings what is stale up to date. A repository that fails keeps its index and says why. */
static void refresh_stale(struct apt *apt)
{
	(void)pthread_mutex_lock(&apt->lock);
	for (size_t i = 0; i < apt->count; i++) {
		struct repository *repository = &apt->repositories[i];
		uint64_t now = wall_ms();
		if (repository->looked_ms && now - repository->looked_ms < (uint64_t)(repository->failed ? FAILED_STALE_MS : STALE_MS))
			continue;
		struct err *e = refresh_one(apt, repository);
		repository->failed = e != NULL;
		(void)snprintf(repository->reason, sizeof(repository->reason), "%s", e ? err_message(e) : "");
		repository->looked_ms = wall_ms();
		err_free(e);
	}
	(void)pthread_mutex_unlock(&apt->lock);
}

/* ---------------------------------------------------------------------------------------- finding */

struct record {
	char file[1024], name[256], version[256], of[256], of_version[256];
	struct release_file promised;
};

static bool parse_record(char *text, struct record *ret)
{
	char *lines[7];
	struct text size;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		lines[i] = strsep(&text, "\n");
		if (!lines[i] || !text)
			return false;
	}
	(void)snprintf(ret->file, sizeof(ret->file), "%s", lines[0]);
	(void)snprintf(ret->name, sizeof(ret->name), "%s", lines[3]);
	(void)snprintf(ret->version, sizeof(ret->version), "%s", lines[4]);
	(void)snprintf(ret->of, sizeof(ret->of), "%s", lines[5]);
	(void)snprintf(ret->of_version, sizeof(ret->of_version), "%s", lines[6]);
	size = (struct text){lines[1], strlen(lines[1])};
	return text_u64(size, &ret->promised.size) && sha256_parse(lines[2], strlen(lines[2]), &ret->promised.sha256);
}

/* Looks in every repository; false when none names it. */
static struct err *look_up(struct apt *apt, const struct build_id *id, struct record *ret, const struct repository **repository_ret)
{
	*repository_ret = NULL;
	for (size_t i = 0; i < apt->count && !*repository_ret; i++) {
		CLEANUP(freep) char *text = NULL;
		TRY(store_index_find(apt->context.db, apt->repositories[i].id, id, &text));
		if (text && parse_record(text, ret))
			*repository_ret = &apt->repositories[i];
	}
	return NULL;
}

/* Fetches a package into @p said. */
static struct err *take_package(struct apt *apt, const struct repository *repository, const struct record *record, struct source_said *said)
{
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	char url[2048];

	if (record->promised.size > apt->context.max_file_bytes)
		return err_new(ERR_LIMIT, "%s: %llu bytes, more than sources.max_file", record->name, (unsigned long long)record->promised.size);
	(void)snprintf(url, sizeof(url), "%s/%s", repository->place.uri, record->file);
	struct err *e = fetch_checked(apt, url, &record->promised, &result);
	said->bytes += result.wire_bytes;
	TRY(e);
	struct source_file *file = &said->files[said->file_count++];
	*file = (struct source_file){.role = STORE_ROLE_PACKAGE, .fd = take_fd(&result.fd)};
	const char *slash = strrchr(record->file, '/');
	(void)snprintf(file->name, sizeof(file->name), "%.250s", slash ? slash + 1 : record->file);
	return NULL;
}

static void say_not_found(struct apt *apt, struct source_said *ret)
{
	size_t failed = 0, guessed = 0;
	const char *reason = "", *guess = "";

	(void)pthread_mutex_lock(&apt->lock);
	for (size_t i = 0; i < apt->count; i++) {
		const struct repository *repository = &apt->repositories[i];
		if (repository->guessed) {
			guessed += repository->failed;
			guess = repository->failed ? repository->reason : guess;
		} else if (repository->failed) {
			failed++;
			reason = repository->reason;
		}
	}
	if (failed)
		source_say(ret, STORE_ASK_FAILED, "%zu of %zu repositories: %.280s", failed, apt->count, reason);
	else
		source_say(ret, STORE_ASK_NOT_FOUND, "no package of %zu repositories names this build ID%s%.200s%s", apt->count - guessed,
			guessed ? " (a debug archive beside was not to be had: " : "", guess, guessed ? ")" : "");
	(void)pthread_mutex_unlock(&apt->lock);
}

/* A package that cannot be had is an answer; what is wrong here is an error. */
static struct err *package_failed(struct err *e, struct source_said *ret)
{
	enum err_code code = err_code(e);

	if (code == ERR_OS || code == ERR_NOMEM)
		return e;
	source_say(ret, code == ERR_PEER ? STORE_ASK_FAILED : STORE_ASK_REFUSED, "%.300s", err_message(e));
	err_free(e);
	return NULL;
}

static struct err *find(struct source *source, const struct source_wanted *wanted, struct source_said *ret)
{
	struct apt *apt = (struct apt *)source;
	const struct repository *where;
	struct record debug, binary;

	if (wanted->build_id.len == 0) {
		source_say(ret, STORE_ASK_NOT_FOUND, "indices name build IDs, and that of this file is not known");
		return NULL;
	}
	refresh_stale(apt);
	TRY(look_up(apt, &wanted->build_id, &debug, &where));
	if (!where) {
		say_not_found(apt, ret);
		return NULL;
	}
	struct err *e = take_package(apt, where, &debug, ret);
	if (e)
		return package_failed(e, ret);
	struct build_id key = package_key((struct text){debug.of, strlen(debug.of)}, (struct text){debug.of_version, strlen(debug.of_version)});
	TRY(look_up(apt, &key, &binary, &where));
	bool whole = where != NULL;
	if (where)
		e = take_package(apt, where, &binary, ret);
	ret->answer = STORE_ASK_FOUND;
	(void)snprintf(ret->provenance, sizeof(ret->provenance), "%.120s %.120s", debug.name, debug.version);
	(void)snprintf(ret->text, sizeof(ret->text), "%.100s %.60s, %s%.60s%s%.60s", debug.name, debug.version,
		whole && !e ? "and its binaries: " : "without its binaries", whole && !e ? binary.name : "", e ? ": " : "", e ? err_message(e) : "");
	err_free(e);
	return NULL;
}

static void destroy(struct source *source)
{
	(void)pthread_mutex_destroy(&((struct apt *)source)->lock);
	free(source);
}

/* ---------------------------------------------------------------------------------------- configuration */

static struct err *read_sources(const char *path, struct apt_repositories *ret)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;

	if (fd < 0)
		return err_os(errno, "%s", path);
	if (fstat(fd, &status) || !S_ISREG(status.st_mode) || status.st_size > SOURCES_FILE_MAX)
		return err_new(ERR_INVALID, "%s: no file of at most %d bytes", path, SOURCES_FILE_MAX);
	TRY(read_file(fd, (uint64_t)status.st_size, &text));
	return apt_read_sources((struct text){(const char *)text.data, text.len}, path, ret);
}

static struct err *read_glob(const char *pattern, struct apt_repositories *ret)
{
	struct err *e = NULL;
	glob_t found;

	if (glob(pattern, 0, NULL, &found) != 0)
		return NULL;
	for (size_t i = 0; i < found.gl_pathc && !e; i++) {
		e = read_sources(found.gl_pathv[i], ret);
		if (e && err_code(e) == ERR_OS) { /* not for us to read: the others are */
			err_free(e);
			e = NULL;
		}
	}
	globfree(&found);
	return e;
}

/* A file, or a folder as /etc/apt is one. */
static struct err *read_place(const char *path, struct apt_repositories *ret)
{
	char pattern[4096];
	struct stat status;

	if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
		static const char *const names[] = {"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"};
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			(void)snprintf(pattern, sizeof(pattern), "%s/%s", path, names[i]);
			TRY(read_glob(pattern, ret));
		}
		return NULL;
	}
	return read_sources(path, ret);
}

/* Debian keeps debug packages in an archive beside: <host>/debian bookworm -> <host>/debian-debug bookworm-debug. */
static bool debug_archive(const struct apt_repository *place, struct apt_repository *ret)
{
	size_t len = strlen(place->uri);

	if (len < 7 || strcmp(place->uri + len - 7, "/debian") != 0 || len + 7 > sizeof(ret->uri) || strlen(place->suite) + 7 > sizeof(ret->suite))
		return false;
	*ret = *place;
	(void)strcat(ret->uri, "-debug");
	(void)strcat(ret->suite, "-debug");
	return true;
}

static void add_repository(struct apt *apt, const struct apt_repository *place, bool guessed)
{
	char text[APT_URI_SIZE + APT_SUITE_SIZE + APT_COMPONENTS_SIZE];

	if (apt->count == APT_REPOSITORIES_MAX)
		return;
	(void)snprintf(text, sizeof(text), "%s %s %s", place->uri, place->suite, place->components);
	uint64_t id = digest_xxh3_64(text, strlen(text));
	for (size_t i = 0; i < apt->count; i++)
		if (apt->repositories[i].id == id)
			return;
	apt->repositories[apt->count++] = (struct repository){.place = *place, .id = id, .guessed = guessed};
}

struct err *source_apt(const struct source_context *context, const char *path, struct source **ret)
{
	static const struct source_ops ops = {.find = find, .destroy = destroy};
	CLEANUP(freep) struct apt_repositories *places = calloc(1, sizeof(*places));
	struct apt_repository debug;

	if (!places)
		return err_nomem();
	TRY(err_wrap(read_place(path, places), "sources.apt"));
	struct apt *apt = calloc(1, sizeof(*apt));
	if (!apt)
		return err_nomem();
	apt->source.ops = &ops;
	apt->source.kind = STORE_SOURCE_PACKAGE;
	apt->context = *context;
	(void)pthread_mutex_init(&apt->lock, NULL);
	(void)snprintf(apt->source.name, sizeof(apt->source.name), "apt %.110s", path);
	for (size_t i = 0; i < places->count; i++)
		add_repository(apt, &places->items[i], false);
	for (size_t i = 0; i < places->count; i++) /* behind those that were named: one may be both */
		if (debug_archive(&places->items[i], &debug))
			add_repository(apt, &debug, true);
	*ret = &apt->source;
	return NULL;
}

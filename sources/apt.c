// SPDX-License-Identifier: Apache-2.0
/*
 * Package repositories in APT's form. One source for all of them: which there are, and finding a package by build ID.
 *
 *   refresh   apt_index.c: signature, dates, indices; apt_control.c: debug packages that no index says the files of
 *   find      build ID -> the package that has its debug file, and the binary packages that it depends on in an exact version
 *             (`Depends: libc6 (= 2.36-9)`), which have the runtime file. Where that is known already they are left out.
 *   bring     a supplement (dwz) that another package has: usr/lib/debug/.dwz/<triplet>/<name>.debug lies in <name>-dbgsym
 *
 * Indices are read whole and only once somebody has asked for an ID: a daemon that nobody asks reads nothing, and no build ID leaves the
 * house.
 */
#include "sources/apt.h"

#include "base/buf.h"
#include "sources/address.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SOURCES_FILE_MAX = 1 << 20, PIECE = 256 << 10, BINARY_MAX = 256 << 20 };

uint64_t apt_wall_ms(void)
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

struct err *apt_fetch_checked(struct apt *apt, const char *url, const struct release_file *promised, struct fetch_result *ret)
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

/* ---------------------------------------------------------------------------------------- finding */

/* Looks in every repository whose index may be used, of one architecture (NULL: any); NULL in @p repository_ret when none names it. Under the lock. */
static struct err *look_up(struct apt *apt, const struct build_id *id, const char *architecture, struct apt_record *ret,
	const struct apt_repository_state **repository_ret)
{
	*repository_ret = NULL;
	for (size_t i = 0; i < apt->count && !*repository_ret; i++) {
		CLEANUP(freep) char *text = NULL;
		const struct apt_repository_state *repository = &apt->repositories[i];
		if (!apt_is_usable(repository) || (architecture && strcmp(architecture, repository->architecture) != 0))
			continue;
		TRY(store_index_find(apt->context.db, repository->id, id, &text));
		if (text && apt_record_read(text, ret))
			*repository_ret = repository;
	}
	return NULL;
}

static void name_file(const struct apt_repository_state *repository, const struct apt_record *record, struct source_file *ret)
{
	const char *slash = strrchr(record->file, '/');

	*ret = (struct source_file){.role = STORE_ROLE_PACKAGE, .fd = -1, .to_fetch = true, .size = record->promised.size, .sha256 = record->promised.sha256};
	(void)snprintf(ret->where, sizeof(ret->where), "%s/%s", repository->place.uri, record->file);
	(void)snprintf(ret->name, sizeof(ret->name), "%.250s", slash ? slash + 1 : record->file);
}

static struct err *fetch_package(struct source *source, struct source_file *file, uint64_t *bytes_ret)
{
	struct apt *apt = (struct apt *)source;
	CLEANUP(fetch_result_deinit) struct fetch_result result = {.fd = -1};
	struct release_file promised = {.size = file->size, .sha256 = file->sha256};

	if (file->size > apt->context.max_file_bytes)
		return err_new(ERR_LIMIT, "%s: %llu bytes, more than sources.max_file", file->name, (unsigned long long)file->size);
	struct err *e = apt_fetch_checked(apt, file->where, &promised, &result);
	*bytes_ret = result.wire_bytes;
	TRY(e);
	file->fd = take_fd(&result.fd);
	return NULL;
}

/* What is wrong with a repository's index, in words; "" when nothing is. */
static void trouble(const struct apt_repository_state *repository, char text[STORE_ASK_TEXT_SIZE])
{
	char date[40];

	text[0] = 0;
	if (repository->failed) {
		(void)snprintf(text, STORE_ASK_TEXT_SIZE, "%s", repository->reason);
	} else if (!apt_is_usable(repository)) {
		release_format_date(repository->dates.until_s, date);
		(void)snprintf(text, STORE_ASK_TEXT_SIZE, "%.150s %.60s: Release: it expired on %s", repository->place.uri, repository->place.suite, date);
	}
}

static void say_not_found(struct apt *apt, struct source_said *ret)
{
	size_t failed = 0, guessed = 0;
	char reason[STORE_ASK_TEXT_SIZE] = "", guess[STORE_ASK_TEXT_SIZE] = "", text[STORE_ASK_TEXT_SIZE];
	const char *unread = "";

	for (size_t i = 0; i < apt->count; i++) {
		const struct apt_repository_state *repository = &apt->repositories[i];
		unread = repository->unread[0] ? repository->unread : unread;
		trouble(repository, text);
		if (!text[0])
			continue;
		guessed += repository->guessed;
		failed += !repository->guessed;
		memcpy(repository->guessed ? guess : reason, text, sizeof(text));
	}
	if (failed)
		source_say(ret, STORE_ASK_FAILED, "%zu of %zu repositories: %.280s", failed, apt->count, reason);
	else if (unread[0])
		source_say(ret, STORE_ASK_NOT_FOUND, "no package names this build ID, and not all debug packages say theirs: %.230s", unread);
	else
		source_say(ret, STORE_ASK_NOT_FOUND, "no package of %zu repositories names this build ID%s%.200s%s", apt->count - guessed,
			guessed ? " (a debug archive beside was not to be had: " : "", guess, guessed ? ")" : "");
}

/* The packages that a debug package belongs to. */
static struct err *add_binaries(struct apt *apt, const struct apt_record *debug, const char *architecture, struct source_said *ret, char *names,
	size_t size)
{
	size_t len = 0;

	for (size_t i = 0; i < debug->of_count && ret->file_count < SOURCE_FILES_MAX; i++) {
		struct build_id key = apt_package_key(debug->of[i].name, debug->of[i].version);
		const struct apt_repository_state *where;
		struct apt_record binary;
		TRY(look_up(apt, &key, architecture, &binary, &where));
		if (!where || binary.promised.size > BINARY_MAX)
			continue;
		name_file(where, &binary, &ret->files[ret->file_count++]);
		if (len < size)
			len += (size_t)snprintf(names + len, size - len, "%s%s", len ? ", " : "", binary.self.name);
	}
	return NULL;
}

static struct err *look_up_fresh(struct apt *apt, const struct build_id *id, struct apt_record *ret, const struct apt_repository_state **repository_ret)
{
	(void)pthread_mutex_lock(&apt->lock);
	apt_refresh_stale(apt);
	struct err *e = look_up(apt, id, NULL, ret, repository_ret);
	(void)pthread_mutex_unlock(&apt->lock);
	return e;
}

static bool may_learn(struct apt *apt, const struct apt_repository_state *repository)
{
	(void)pthread_mutex_lock(&apt->lock);
	bool usable = apt_is_usable(repository);
	(void)pthread_mutex_unlock(&apt->lock);
	return usable;
}

/* What no index names is looked for in the control parts of the packages that are left. Under `learning`. */
static struct err *look_harder(struct apt *apt, const struct build_id *id, struct apt_record *ret, const struct apt_repository_state **repository_ret)
{
	for (size_t i = 0; i < apt->count && !*repository_ret; i++) {
		bool learned;
		if (!may_learn(apt, &apt->repositories[i]))
			continue;
		TRY(apt_learn_unlisted(apt, &apt->repositories[i], &learned));
		if (learned)
			TRY(look_up_fresh(apt, id, ret, repository_ret));
	}
	return NULL;
}

static struct err *find_debug(struct apt *apt, const struct build_id *id, struct apt_record *ret, const struct apt_repository_state **repository_ret)
{
	TRY(look_up_fresh(apt, id, ret, repository_ret));
	if (*repository_ret)
		return NULL;
	(void)pthread_mutex_lock(&apt->learning);
	struct err *e = look_up_fresh(apt, id, ret, repository_ret); /* somebody else may have learnt it */
	if (!e && !*repository_ret)
		e = look_harder(apt, id, ret, repository_ret);
	(void)pthread_mutex_unlock(&apt->learning);
	return e;
}

/* By release: no index names a kernel's files by build ID. The package has all modules, too; the job builds what is wanted of it. */
static struct err *find_kernel(struct apt *apt, const char *release, struct apt_record *ret, const struct apt_repository_state **repository_ret)
{
	/* Debian; Ubuntu, whose signed kernels have the debug symbols of the unsigned ones. */
	static const char *const before[] = {"linux-image-", "linux-image-unsigned-", "linux-image-"}, *const behind[] = {"-dbg", "-dbgsym", "-dbgsym"};
	char name[APT_PACKAGE_SIZE];

	*repository_ret = NULL;
	for (size_t i = 0; release[0] && i < ARRAY_SIZE(before) && !*repository_ret; i++) {
		(void)snprintf(name, sizeof(name), "%s%s%s", before[i], release, behind[i]);
		struct build_id key = apt_name_key(name);
		TRY(look_up_fresh(apt, &key, ret, repository_ret));
	}
	return NULL;
}

static struct err *say_found(struct apt *apt, const struct source_wanted *wanted, const struct apt_record *debug,
	const struct apt_repository_state *where, struct source_said *ret)
{
	char binaries[160] = "";

	if (!wanted->has_debug)
		name_file(where, debug, &ret->files[ret->file_count++]);
	if (!wanted->has_runtime)
		TRY(add_binaries(apt, debug, where->architecture, ret, binaries, sizeof(binaries)));
	if (ret->file_count == 0) {
		source_say(ret, STORE_ASK_NOT_FOUND, "%.90s %.50s has its debug info, which is here already, and no repository its binary", debug->self.name,
			debug->self.version);
		return NULL;
	}
	ret->answer = STORE_ASK_FOUND;
	ret->has_debug = !wanted->has_debug;
	ret->has_runtime = ret->file_count > (ret->has_debug ? 1 : 0);
	(void)snprintf(ret->provenance, sizeof(ret->provenance), "%.120s %.120s", debug->self.name, debug->self.version);
	(void)snprintf(ret->text, sizeof(ret->text), "%.90s %.50s, %s%.130s", debug->self.name, debug->self.version,
		wanted->has_debug ? "of which only the binaries are fetched: " : binaries[0] ? "and its binaries: " : wanted->has_runtime ? "its binary is known" : "without its binaries", binaries);
	return NULL;
}

static struct err *find(struct source *source, const struct source_wanted *wanted, struct source_said *ret)
{
	struct apt *apt = (struct apt *)source;
	const struct apt_repository_state *where;
	struct apt_record debug;
	struct err *e = NULL;

	if (wanted->build_id.len == 0) {
		source_say(ret, STORE_ASK_NOT_FOUND, "not looked for: its build ID is not known");
		return NULL;
	}
	struct source_wanted without_image = *wanted;
	TRY(find_kernel(apt, wanted->kernel_release, &debug, &where));
	if (where) { /* what runs is not needed to read its addresses */
		without_image.has_runtime = true;
		wanted = &without_image;
	} else {
		TRY(find_debug(apt, &wanted->build_id, &debug, &where));
	}
	(void)pthread_mutex_lock(&apt->lock);
	if (where)
		e = say_found(apt, wanted, &debug, where, ret);
	else
		say_not_found(apt, ret);
	(void)pthread_mutex_unlock(&apt->lock);
	return e;
}

/* ".dwz/x86_64-linux-gnu/": whose the supplement is; NULL: that of any architecture. */
static const char *architecture_of(const char *name)
{
	static const struct {
		const char *triplet, *architecture;
	} known[] = {{"/x86_64-linux-gnu/", "amd64"}, {"/aarch64-linux-gnu/", "arm64"}, {"/i386-linux-gnu/", "i386"},
		{"/arm-linux-gnueabihf/", "armhf"}, {"/arm-linux-gnueabi/", "armel"}, {"/riscv64-linux-gnu/", "riscv64"},
		{"/s390x-linux-gnu/", "s390x"}, {"/powerpc64le-linux-gnu/", "ppc64el"}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strstr(name, known[i].triplet))
			return known[i].architecture;
	return NULL;
}

/* dh_dwz puts what a package's files share into .dwz/<triplet>/<package>.debug, and dh_strip that into the package's -dbgsym. */
static struct err *bring(struct source *source, const struct source_needed *needed, struct source_file *ret, char *reason, size_t size)
{
	static const char *const endings[] = {"-dbgsym", "-dbg"};
	struct apt *apt = (struct apt *)source;
	const struct apt_repository_state *where = NULL;
	char package[APT_PACKAGE_SIZE];
	struct apt_record record;
	const char *slash = strrchr(needed->name, '/');
	const char *base = slash ? slash + 1 : needed->name;
	size_t len = strlen(base);
	struct err *e = NULL;

	if (len <= 6 || strcmp(base + len - 6, ".debug") != 0 || !strstr(needed->name, ".dwz/")) {
		(void)snprintf(reason, size, "its name is none that Debian gives to supplements");
		return NULL;
	}
	(void)pthread_mutex_lock(&apt->lock);
	for (size_t i = 0; i < ARRAY_SIZE(endings) && !e && !where; i++) {
		(void)snprintf(package, sizeof(package), "%.*s%s", (int)(len - 6 < 200 ? len - 6 : 200), base, endings[i]);
		struct build_id key = apt_name_key(package);
		e = look_up(apt, &key, architecture_of(needed->name), &record, &where);
	}
	if (!e && where)
		name_file(where, &record, ret);
	(void)pthread_mutex_unlock(&apt->lock);
	if (!e && !where)
		(void)snprintf(reason, size, "no repository has %.*s-dbgsym", (int)(len - 6 < 100 ? len - 6 : 100), base);
	return e;
}

struct listing {
	const struct apt_repository_state *repository;
	source_list_fn *each;
	void *context;
};

static struct err *list_one(void *context, const char *text)
{
	const struct listing *listing = context;
	char copy[APT_RECORD_SIZE];
	struct apt_record record;
	struct source_package package = {0};

	(void)snprintf(copy, sizeof(copy), "%s", text);
	if (!apt_record_read(copy, &record))
		return NULL;
	package.name = record.self.name;
	package.version = record.self.version;
	package.is_debug = apt_debug_ending(record.self.name) > 0;
	for (size_t i = 0; i < record.of_count; i++) {
		package.of_names[i] = record.of[i].name;
		package.of_versions[i] = record.of[i].version;
	}
	package.of_count = record.of_count;
	name_file(listing->repository, &record, &package.file);
	return listing->each(listing->context, &package);
}

static struct err *list(struct source *source, source_list_fn *each, void *context)
{
	struct apt *apt = (struct apt *)source;
	char text[STORE_ASK_TEXT_SIZE];
	struct err *e = NULL;

	(void)pthread_mutex_lock(&apt->lock);
	apt_refresh_stale(apt);
	for (size_t i = 0; i < apt->count && !e; i++) {
		const struct apt_repository_state *repository = &apt->repositories[i];
		struct listing listing = {repository, each, context};
		trouble(repository, text);
		if (apt_is_usable(repository))
			e = store_index_each(apt->context.db, repository->id, list_one, &listing);
		else if (!repository->guessed)
			e = err_new(ERR_PEER, "%s", text);
	}
	(void)pthread_mutex_unlock(&apt->lock);
	return e;
}

static void destroy(struct source *source)
{
	(void)pthread_mutex_destroy(&((struct apt *)source)->lock);
	(void)pthread_mutex_destroy(&((struct apt *)source)->learning);
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

static struct err *read_places(const char *paths, struct apt_repositories *ret)
{
	for (const char *at = paths; *at;) {
		size_t len = strcspn(at, " \t\n,");
		CLEANUP(freep) char *path = strndup(at, len);
		if (!path)
			return err_nomem();
		if (len)
			TRY(read_place(path, ret));
		at += len;
		at += strspn(at, " \t\n,");
	}
	return NULL;
}

static void add_architecture(struct apt *apt, const struct apt_repository *place, const char *architecture, bool guessed)
{
	char text[APT_URI_SIZE + APT_SUITE_SIZE + APT_COMPONENTS_SIZE + APT_ARCHITECTURE_SIZE];

	if (apt->count == APT_REPOSITORIES_MAX)
		return;
	(void)snprintf(text, sizeof(text), "%s %s %s %s", place->uri, place->suite, place->components, architecture);
	uint64_t id = digest_xxh3_64(text, strlen(text)) & ~STORE_INDEX_PRIVATE;
	if (!address_url_is_public(place->uri)) /* what it names is no secret in the house, but elsewhere */
		id |= STORE_INDEX_PRIVATE;
	for (size_t i = 0; i < apt->count; i++)
		if (apt->repositories[i].id == id)
			return;
	struct apt_repository_state *repository = &apt->repositories[apt->count++];
	*repository = (struct apt_repository_state){.place = *place, .id = id, .guessed = guessed};
	(void)snprintf(repository->architecture, sizeof(repository->architecture), "%s", architecture);
}

static void add_repository(struct apt *apt, const struct apt_repository *place, bool guessed)
{
	struct text rest = {apt->context.architectures, strlen(apt->context.architectures)}, word;
	char architecture[APT_ARCHITECTURE_SIZE];

	while (text_word(&rest, &word))
		if (text_copy_to(word, architecture, sizeof(architecture)))
			add_architecture(apt, place, architecture, guessed);
}

struct err *source_apt(const struct source_context *context, const char *paths, struct source **ret)
{
	static const struct source_ops ops = {.find = find, .fetch = fetch_package, .bring = bring, .list = list, .destroy = destroy};
	CLEANUP(freep) struct apt_repositories *places = calloc(1, sizeof(*places));
	struct apt_repository debug;

	if (!places)
		return err_nomem();
	TRY(err_wrap(read_places(paths, places), "sources.apt"));
	struct apt *apt = calloc(1, sizeof(*apt));
	if (!apt)
		return err_nomem();
	apt->source.ops = &ops;
	apt->source.kind = STORE_SOURCE_PACKAGE;
	apt->context = *context;
	(void)pthread_mutex_init(&apt->lock, NULL);
	(void)pthread_mutex_init(&apt->learning, NULL);
	(void)snprintf(apt->source.name, sizeof(apt->source.name), "apt %.110s", paths);
	for (size_t i = 0; i < places->count; i++)
		add_repository(apt, &places->items[i], false);
	for (size_t i = 0; i < places->count; i++) /* behind those that were named: one may be both */
		if (apt_debug_archive(&places->items[i], &debug))
			add_repository(apt, &debug, true);
	*ret = &apt->source;
	return NULL;
}

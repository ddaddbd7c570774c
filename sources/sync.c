// SPDX-License-Identifier: Apache-2.0
/*
 * A run: every source that knows packages is walked twice, first for the names that a pattern matches, then for what belongs to
 * them (both are in the index, in memory there are only hashes and the chosen ones); then each is fetched and its job waited for, so
 * that never more than one package lies ahead of the workers.
 *
 * A package whose job is done is noted by its SHA-256: a run that was stopped, or the same patterns again, fetch only what is left.
 */
#include "sources/sync.h"

#include "base/buf.h"
#include "base/hmap.h"

#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { WAIT_MS = 100, PATTERN_SIZE = 200 };

struct chosen {
	struct source *source;
	struct source_file file;
	struct sources_sync_package package;
	bool is_debug;
};

struct sync {
	struct sync_options options;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool started, stopping;
	size_t pattern_count;
	char patterns[SOURCES_SYNC_PATTERNS_MAX][PATTERN_SIZE];
	bool matched[SOURCES_SYNC_PATTERNS_MAX];
	bool dry_run;
	struct sources_sync_progress progress;
	struct chosen *chosen; /* malloc'd; those up to progress.packages are whole */
	size_t cap;
	struct hmap wanted; /* hash of "name=version" of what was matched */
	struct hmap taken;  /* hash of the SHA-256 of what was chosen */
	struct hmap known;  /* hash of "name=version" of what a debug package belongs to */
	struct source *walked;
};

struct err *sync_create(const struct sync_options *options, struct sync **ret)
{
	struct sync *sync = calloc(1, sizeof(*sync));

	if (!sync)
		return err_nomem();
	sync->options = *options;
	(void)pthread_mutex_init(&sync->lock, NULL);
	(void)pthread_cond_init(&sync->changed, NULL);
	*ret = sync;
	return NULL;
}

static void join(struct sync *sync)
{
	if (sync->started)
		(void)pthread_join(sync->thread, NULL);
	sync->started = false;
}

void sync_destroy(struct sync *sync)
{
	if (!sync)
		return;
	(void)pthread_mutex_lock(&sync->lock);
	sync->stopping = true;
	(void)pthread_cond_broadcast(&sync->changed);
	(void)pthread_mutex_unlock(&sync->lock);
	join(sync);
	free(sync->chosen);
	hmap_deinit(&sync->wanted);
	hmap_deinit(&sync->taken);
	hmap_deinit(&sync->known);
	(void)pthread_cond_destroy(&sync->changed);
	(void)pthread_mutex_destroy(&sync->lock);
	free(sync);
}

/* ---------------------------------------------------------------------------------------- choosing */

static uint64_t hash_of(const char *name, const char *version)
{
	char text[1024];
	int len = snprintf(text, sizeof(text), "%s=%s", name, version);

	return digest_xxh3_64(text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1);
}

static struct err *choose(struct sync *sync, const struct source_package *package)
{
	uint64_t key = digest_xxh3_64(package->file.sha256.bytes, SHA256_BYTES), none;

	if (hmap_get(&sync->taken, key, &none))
		return NULL;
	TRY(hmap_set(&sync->taken, key, 1));
	if (sync->progress.packages == SOURCES_SYNC_PACKAGES_MAX)
		return err_new(ERR_LIMIT, "these patterns mean more than %d packages", SOURCES_SYNC_PACKAGES_MAX);
	(void)pthread_mutex_lock(&sync->lock);
	if (sync->progress.packages == sync->cap) {
		size_t cap = sync->cap ? 2 * sync->cap : 64;
		struct chosen *chosen = realloc(sync->chosen, cap * sizeof(*chosen));
		if (!chosen) {
			(void)pthread_mutex_unlock(&sync->lock);
			return err_nomem();
		}
		sync->chosen = chosen;
		sync->cap = cap;
	}
	struct chosen *chosen = &sync->chosen[sync->progress.packages++];
	*chosen = (struct chosen){.source = sync->walked, .file = package->file, .package = {.bytes = package->file.size}, .is_debug = package->is_debug};
	(void)snprintf(chosen->package.name, sizeof(chosen->package.name), "%s", package->name);
	(void)snprintf(chosen->package.version, sizeof(chosen->package.version), "%s", package->version);
	sync->progress.bytes += package->file.size;
	(void)pthread_mutex_unlock(&sync->lock);
	return NULL;
}

/* First walk: what a pattern names, and of debug packages whose they are. */
static struct err *match(void *context, const struct source_package *package)
{
	struct sync *sync = context;
	bool any = false;

	for (size_t i = 0; i < sync->pattern_count; i++) {
		bool matches = fnmatch(sync->patterns[i], package->name, 0) == 0;
		sync->matched[i] = sync->matched[i] || matches;
		any = any || matches;
	}
	if (!any)
		return NULL;
	TRY(hmap_set(&sync->wanted, hash_of(package->name, package->version), 1));
	for (size_t i = 0; package->is_debug && i < package->of_count; i++)
		TRY(hmap_set(&sync->wanted, hash_of(package->of_names[i], package->of_versions[i]), 1));
	return choose(sync, package);
}

/* Second walk: the programs of those debug packages, and the debug packages of those programs. */
static struct err *complete(void *context, const struct source_package *package)
{
	struct sync *sync = context;
	uint64_t none;
	bool belongs = hmap_get(&sync->wanted, hash_of(package->name, package->version), &none);

	for (size_t i = 0; package->is_debug && i < package->of_count; i++) {
		uint64_t of = hash_of(package->of_names[i], package->of_versions[i]);
		belongs = hmap_get(&sync->wanted, of, &none) || belongs;
		TRY(hmap_set(&sync->known, of, 1));
	}
	return belongs ? choose(sync, package) : NULL;
}

/* A program without its debug package is not what was asked for in most cases: its names, if any, are those that it exports. */
static void note_bare(struct sync *sync, struct chosen *chosen)
{
	uint64_t none;

	if (!chosen->is_debug && !hmap_get(&sync->known, hash_of(chosen->package.name, chosen->package.version), &none))
		(void)snprintf(chosen->package.note, sizeof(chosen->package.note), "no index names a debug package of this version");
}

static struct err *walk(struct sync *sync, source_list_fn *each)
{
	for (size_t i = 0; i < *sync->options.source_count; i++) {
		sync->walked = sync->options.sources[i];
		if (sync->walked->ops->list)
			TRY(sync->walked->ops->list(sync->walked, each, sync));
	}
	return NULL;
}

static struct err *choose_all(struct sync *sync)
{
	TRY(walk(sync, match));
	for (size_t i = 0; i < sync->pattern_count; i++)
		if (!sync->matched[i])
			return err_new(ERR_NOT_FOUND, "no package of the repositories matches %s", sync->patterns[i]);
	TRY(walk(sync, complete));
	(void)pthread_mutex_lock(&sync->lock);
	for (size_t i = 0; i < sync->progress.packages; i++)
		note_bare(sync, &sync->chosen[i]);
	(void)pthread_mutex_unlock(&sync->lock);
	return NULL;
}

/* ---------------------------------------------------------------------------------------- fetching */

/* Up to WAIT_MS. True when it is to stop. */
static bool nap(struct sync *sync)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAIT_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	(void)pthread_mutex_lock(&sync->lock);
	if (!sync->stopping)
		(void)pthread_cond_timedwait(&sync->changed, &sync->lock, &until);
	bool stopping = sync->stopping;
	(void)pthread_mutex_unlock(&sync->lock);
	return stopping;
}

static struct err *wait_job(struct sync *sync, uint64_t id, struct store_job *ret)
{
	do {
		CLEANUP(store_read_endp) struct store_read *read = NULL;
		bool found;
		TRY(store_read_begin(sync->options.store, &read));
		TRY(store_job_get(read, id, ret, &found));
		if (!found || ret->state == STORE_JOB_DONE || ret->state == STORE_JOB_FAILED)
			return NULL;
	} while (!nap(sync));
	return NULL;
}

static void set_state(struct sync *sync, struct chosen *chosen, enum sources_sync_state state, const char *reason)
{
	(void)pthread_mutex_lock(&sync->lock);
	chosen->package.state = state;
	(void)snprintf(chosen->package.reason, sizeof(chosen->package.reason), "%.300s", reason);
	bool over = state >= SOURCES_SYNC_DONE;
	sync->progress.packages_done += over;
	sync->progress.bytes_done += over ? chosen->package.bytes : 0;
	sync->progress.failed += state == SOURCES_SYNC_FAILED;
	(void)pthread_mutex_unlock(&sync->lock);
}

/* One package; its note says that nothing is left to do. */
static struct err *sync_one(struct sync *sync, struct chosen *chosen)
{
	struct store_job job = {.tenant = STORE_TENANT_PUBLIC, .source = chosen->source->kind, .rank = store_source_rank(chosen->source->kind)};
	const struct package_wanted wanted = {.source = chosen->source, .file = &chosen->file, .job = &job};
	CLEANUP(freep) char *note = NULL;
	char key[96], hex[SHA256_HEX_SIZE];
	struct package_taken taken = {0};

	sha256_format(&chosen->file.sha256, hex);
	(void)snprintf(key, sizeof(key), "synced %s", hex);
	TRY(store_note_get(sync->options.db, key, &note));
	if (note) {
		set_state(sync, chosen, SOURCES_SYNC_DONE, "it was there");
		return NULL;
	}
	(void)snprintf(job.provenance, sizeof(job.provenance), "%.120s %.120s", chosen->package.name, chosen->package.version);
	set_state(sync, chosen, SOURCES_SYNC_FETCHING, "");
	TRY(packages_take(sync->options.packages, &wanted, &taken));
	if (taken.answer != STORE_ASK_FOUND) {
		set_state(sync, chosen, SOURCES_SYNC_FAILED, taken.text);
		return NULL;
	}
	set_state(sync, chosen, SOURCES_SYNC_BUILDING, "");
	TRY(wait_job(sync, taken.job_id, &job));
	if (job.state == STORE_JOB_FAILED) {
		set_state(sync, chosen, SOURCES_SYNC_FAILED, job.reason);
		return NULL;
	}
	if (job.state != STORE_JOB_DONE)
		return NULL; /* stopping */
	set_state(sync, chosen, SOURCES_SYNC_DONE, job.reason);
	return store_note_put(sync->options.db, key, "1");
}

static bool is_stopping(struct sync *sync)
{
	(void)pthread_mutex_lock(&sync->lock);
	bool stopping = sync->stopping;
	(void)pthread_mutex_unlock(&sync->lock);
	return stopping;
}

static void *sync_main(void *argument)
{
	struct sync *sync = argument;
	struct err *e = choose_all(sync);

	for (size_t i = 0; !e && !sync->dry_run && i < sync->progress.packages && !is_stopping(sync); i++)
		e = sync_one(sync, &sync->chosen[i]);
	(void)pthread_mutex_lock(&sync->lock);
	(void)snprintf(sync->progress.reason, sizeof(sync->progress.reason), "%.400s", e ? err_message(e) : "");
	sync->progress.running = false;
	(void)pthread_mutex_unlock(&sync->lock);
	err_free(e);
	return NULL;
}

struct err *sync_begin(struct sync *sync, const char *const *patterns, size_t count, bool dry_run, uint64_t *run_ret)
{
	if (count == 0 || count > SOURCES_SYNC_PATTERNS_MAX)
		return err_new(ERR_INVALID, "1 to %d patterns", SOURCES_SYNC_PATTERNS_MAX);
	for (size_t i = 0; i < count; i++)
		if (!patterns[i][0] || strlen(patterns[i]) >= PATTERN_SIZE)
			return err_new(ERR_INVALID, "pattern %zu: empty, or longer than %d characters", i, PATTERN_SIZE - 1);
	(void)pthread_mutex_lock(&sync->lock);
	bool busy = sync->progress.running || sync->stopping;
	uint64_t run = sync->progress.run + 1;
	if (!busy)
		sync->progress = (struct sources_sync_progress){.run = run, .running = true, .dry_run = dry_run};
	(void)pthread_mutex_unlock(&sync->lock);
	if (busy)
		return err_new(ERR_BUSY, "a sync is running already: wait for it (`cairn sync --status`)");
	join(sync);
	hmap_clear(&sync->wanted);
	hmap_clear(&sync->taken);
	hmap_clear(&sync->known);
	memset(sync->matched, 0, sizeof(sync->matched));
	sync->pattern_count = count;
	sync->dry_run = dry_run;
	for (size_t i = 0; i < count; i++)
		(void)snprintf(sync->patterns[i], PATTERN_SIZE, "%s", patterns[i]);
	int error = pthread_create(&sync->thread, NULL, sync_main, sync);
	sync->started = error == 0;
	if (error) {
		sync->progress.running = false;
		return err_os(error, "start a thread for sync");
	}
	*run_ret = run;
	return NULL;
}

void sync_progress(struct sync *sync, struct sources_sync_progress *ret)
{
	(void)pthread_mutex_lock(&sync->lock);
	*ret = sync->progress;
	(void)pthread_mutex_unlock(&sync->lock);
}

bool sync_package(struct sync *sync, size_t index, struct sources_sync_package *ret)
{
	(void)pthread_mutex_lock(&sync->lock);
	bool found = index < sync->progress.packages;
	if (found)
		*ret = sync->chosen[index].package;
	(void)pthread_mutex_unlock(&sync->lock);
	return found;
}

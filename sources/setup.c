// SPDX-License-Identifier: Apache-2.0
/* Which sources there are, in which order, and the threads that ask them: start and stop. */
#include "sources/internal.h"

#include <string.h>

enum { HOUR_MS = 3600 * 1000 };

/* This machine, as Debian calls it. */
#if defined(__aarch64__)
#define MACHINE "arm64"
#elif defined(__riscv)
#define MACHINE "riscv64"
#elif defined(__powerpc64__)
#define MACHINE "ppc64el"
#elif defined(__s390x__)
#define MACHINE "s390x"
#else
#define MACHINE "amd64"
#endif

static void set_defaults(struct sources_options *options)
{
	options->architectures = options->architectures ? options->architectures : MACHINE;
	options->max_file_bytes = options->max_file_bytes ? options->max_file_bytes : UINT64_C(4) << 30;
	options->negative_ms = options->negative_ms ? options->negative_ms : 6 * HOUR_MS;
	options->retry_ms = options->retry_ms ? options->retry_ms : 300000;
	options->refresh_ms = options->refresh_ms ? options->refresh_ms : 300000;
	options->ids_per_hour = options->ids_per_hour ? options->ids_per_hour : 10000;
	options->keep_packages_bytes = options->keep_packages_bytes ? options->keep_packages_bytes : UINT64_C(4) << 30;
	options->keep_packages_ms = options->keep_packages_ms ? options->keep_packages_ms : HOUR_MS;
	options->threads = options->threads ? options->threads : 4;
	if (options->threads > SOURCES_THREADS_MAX)
		options->threads = SOURCES_THREADS_MAX;
}

typedef struct err *source_create_fn(const struct source_context *context, const char *words, struct source **ret);

static struct source_context context_of(const struct sources *sources)
{
	return (struct source_context){.fetch = sources->fetch, .db = sources->db, .scratch_dir = sources->options.fetch.scratch_dir,
		.architectures = sources->options.architectures, .max_file_bytes = sources->options.max_file_bytes};
}

/* One source for each word. */
static struct err *add_each(struct sources *sources, const char *words, source_create_fn *create)
{
	struct source_context context = context_of(sources);

	for (const char *at = words ? words : ""; *at;) {
		size_t len = strcspn(at, " \t\n,");
		if (len > 0) {
			CLEANUP(freep) char *word = strndup(at, len);
			if (!word)
				return err_nomem();
			if (sources->count == SOURCES_MAX)
				return err_new(ERR_LIMIT, "more than %d sources", SOURCES_MAX);
			TRY(create(&context, word, &sources->all[sources->count]));
			sources->count++;
		}
		at += len;
		at += strspn(at, " \t\n,");
	}
	return NULL;
}

/* One source for all words. */
static struct err *add_one(struct sources *sources, const char *words, source_create_fn *create)
{
	struct source_context context = context_of(sources);

	if (!words || !words[strspn(words, " ")])
		return NULL;
	if (sources->count == SOURCES_MAX)
		return err_new(ERR_LIMIT, "more than %d sources", SOURCES_MAX);
	TRY(create(&context, words, &sources->all[sources->count]));
	sources->count++;
	return NULL;
}

static struct err *start_thread(struct sources *sources, void *(*main)(void *))
{
	int error = pthread_create(&sources->threads[sources->started], NULL, main, sources);

	if (error)
		return err_os(error, "start the threads of sources");
	sources->started++;
	return NULL;
}

static struct err *start(struct sources *sources)
{
	const struct sources_options *options = &sources->options;

	TRY(store_sources_open(store_limits(sources->store)->data_dir, options->map_max, &sources->db));
	TRY(fetch_start(&options->fetch, &sources->fetch));
	struct packages_options packages = {.store = sources->store, .db = sources->db, .keep_bytes = options->keep_packages_bytes,
		.keep_ms = options->keep_packages_ms};
	TRY(packages_create(&packages, &sources->packages));
	struct sync_options sync = {.store = sources->store, .db = sources->db, .packages = sources->packages, .sources = sources->all,
		.source_count = &sources->count};
	TRY(sync_create(&sync, &sources->sync));
	TRY(add_each(sources, options->directories, source_directory));
	TRY(add_one(sources, options->installed, source_installed));
	sources->near_count = sources->count;
	TRY(add_one(sources, options->apt, source_apt));
	TRY(add_each(sources, options->debuginfod, source_debuginfod));
	for (uint32_t i = 0; i < SOURCES_NEAR_THREADS; i++)
		TRY(start_thread(sources, sources_near_main));
	for (uint32_t i = 0; i < options->threads; i++)
		TRY(start_thread(sources, sources_asker_main));
	return start_thread(sources, sources_refresher_main);
}

struct err *sources_start(struct store *store, const struct sources_options *options, struct sources **ret)
{
	struct sources *sources = calloc(1, sizeof(*sources));

	if (!sources)
		return err_nomem();
	sources->store = store;
	sources->options = *options;
	sources->last = &sources->first;
	set_defaults(&sources->options);
	(void)pthread_mutex_init(&sources->lock, NULL);
	(void)pthread_cond_init(&sources->changed, NULL);
	struct err *e = kernels_init(&sources->kernels);
	if (!e)
		e = start(sources);
	if (e) {
		sources_destroy(sources);
		return err_wrap(e, "sources");
	}
	*ret = sources;
	return NULL;
}

void sources_stop(struct sources *sources)
{
	if (!sources)
		return;
	(void)pthread_mutex_lock(&sources->lock);
	sources->stopping = true;
	(void)pthread_cond_broadcast(&sources->changed);
	(void)pthread_mutex_unlock(&sources->lock);
	if (sources->fetch)
		fetch_stop(sources->fetch); /* whoever waits for bytes is told */
}

void sources_destroy(struct sources *sources)
{
	if (!sources)
		return;
	sources_stop(sources);
	sync_destroy(sources->sync);
	for (uint32_t i = 0; i < sources->started; i++)
		(void)pthread_join(sources->threads[i], NULL);
	for (size_t i = 0; i < sources->count; i++)
		sources->all[i]->ops->destroy(sources->all[i]);
	while (sources->first) {
		struct item *next = sources->first->next;
		free(sources->first);
		sources->first = next;
	}
	packages_destroy(sources->packages);
	kernels_deinit(&sources->kernels);
	fetch_destroy(sources->fetch);
	store_sources_close(sources->db);
	(void)pthread_cond_destroy(&sources->changed);
	(void)pthread_mutex_destroy(&sources->lock);
	free(sources);
}

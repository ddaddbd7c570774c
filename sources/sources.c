// SPDX-License-Identifier: Apache-2.0
/*
 * The queue of wanted IDs and the threads that ask.
 *
 * An ID is its build ID where that is known, else its file ID: answers to a build ID serve all its files. A source may know a file ID's
 * build ID: then the sources behind it are asked by that. The search ends when debug info was found, and for a file ID the runtime file,
 * too: each source is asked for what is lacking yet. Sources that may be asked together (together.c) are: what
 * an item knows is then read and learnt by several threads, under the lock. What lies on this machine is looked through by threads of its own
 * before an item goes on to those who ask over a network, so that no slow server keeps an ID from a folder that has it. An item is in
 * the list from sources_ask until its last source has answered and the job, if any, is durable: so whoever looks sees `pending`
 * first by the item and then by the job, without a gap. (A read that began before the job was committed sees neither: an answer
 * FOUND of the last FRESH_MS counts as pending, too.)
 *
 * `lock` guards the list, the budgets and the counters; the database is its own.
 */
#include "sources/internal.h"

#include "fileid/build_id.h"
#include "store/blob.h"
#include "store/job.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
	FRESH_MS = 10000,
	HOUR_MS = 3600 * 1000,
	RETRY_PENDING_S = 2,
	EXPIRE_AFTER_S = 30 * 24 * 3600,
};

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void said_deinit(struct source_said *said)
{
	for (size_t i = 0; i < said->file_count; i++)
		closep(&said->files[i].fd);
}

/* ---------------------------------------------------------------------------------------- asking */

/* The name under which answers are kept. */
static struct store_query key_of(const struct store_query *query)
{
	struct store_query key = {.tenant = STORE_TENANT_PUBLIC};

	if (query->build_id.len) {
		key.build_id = query->build_id;
	} else {
		key.has_file_id = query->has_file_id;
		key.file_id = query->file_id;
	}
	return key;
}

static bool same_id(const struct store_query *a, const struct store_query *b)
{
	if (a->build_id.len && build_id_equal(&a->build_id, &b->build_id))
		return true;
	return a->has_file_id && b->has_file_id && fileid_equal(&a->file_id, &b->file_id);
}

static struct store_job make_job(const struct source *source, const struct store_query *query, const struct source_said *said)
{
	bool package = said->files[0].to_fetch; /* the file ID is that of one file in it: who asked may be mistaken */
	struct store_job job = {.tenant = STORE_TENANT_PUBLIC,
		.kind = STORE_JOB_ELF,
		.source = source->kind,
		.rank = store_source_rank(source->kind),
		.has_file_id = query->has_file_id && !package,
		.file_id = query->file_id,
		.build_id = said->build_id.len ? said->build_id : query->build_id};

	(void)snprintf(job.name, sizeof(job.name), "%s", said->files[0].name);
	(void)snprintf(job.provenance, sizeof(job.provenance), "%s", said->provenance);
	return job;
}

/* A runtime file and its debug file are one job. */
static struct err *submit_files(struct sources *sources, const struct source *source, const struct store_query *query,
	struct source_said *said, uint64_t *job_ret)
{
	struct store_job job = make_job(source, query, said);

	for (size_t i = 0; i < said->file_count; i++) {
		struct source_file *file = &said->files[i];
		struct store_job_input *input = &job.inputs[job.input_count++];
		input->role = file->role;
		TRY(store_blob_put(sources->store, file->fd, file->name, &input->blob));
	}
	return store_job_submit(sources->store, &job, job_ret);
}

/* What is written down of an answer; the job is there already. */
static void fill_ask(const struct sources *sources, const struct source *source, const struct source_said *said, struct store_ask *ask)
{
	uint64_t wait = said->answer == STORE_ASK_FAILED    ? sources->options.retry_ms :
			said->answer == STORE_ASK_CANCELLED ? 0 :
							      sources->options.negative_ms;

	(void)snprintf(ask->source, sizeof(ask->source), "%s", source->name);
	(void)snprintf(ask->text, sizeof(ask->text), "%s", said->text);
	ask->answer = said->answer;
	ask->bytes = said->bytes;
	ask->asked_ms = wall_ms();
	ask->next_ms = ask->asked_ms + (said->retry_after_ms > wait ? said->retry_after_ms : wait);
}

/* Each package is a job. Without the first, which has the debug info if any has, there is nothing; without another one the text says so. */
static struct err *submit_packages(struct sources *sources, struct source *source, const struct store_query *query,
	struct source_said *said, uint64_t *job_ret)
{
	const struct store_query key = key_of(query);
	const struct store_job job = make_job(source, query, said);
	const struct build_id *wanted = said->build_id.len ? &said->build_id : &query->build_id;
	struct package_taken taken;

	for (size_t i = 0; i < said->file_count; i++) {
		const struct package_wanted package = {.source = source, .file = &said->files[i], .job = &job, .build_id = wanted};
		TRY(packages_take(sources->packages, &package, &taken));
		said->bytes += taken.bytes;
		if (taken.answer == STORE_ASK_FOUND && i == 0) { /* known while the others are on their way: lines may be here before them */
			struct store_ask ask = {.job_id = taken.job_id};
			*job_ret = taken.job_id;
			fill_ask(sources, source, said, &ask);
			TRY(store_ask_put(sources->db, &key, &ask));
		}
		if (taken.answer == STORE_ASK_FOUND)
			continue;
		if (i == 0) {
			source_say(said, taken.answer, "%.300s", taken.text);
			return NULL;
		}
		said->has_runtime = false;
		size_t len = strlen(said->text);
		(void)snprintf(said->text + len, sizeof(said->text) - len, "; not %.100s: %.150s", said->files[i].name, taken.text);
	}
	return NULL;
}

static void count(struct sources *sources, enum store_ask_answer answer)
{
	(void)pthread_mutex_lock(&sources->lock);
	sources->stats.asked++;
	sources->stats.found += answer == STORE_ASK_FOUND;
	sources->stats.not_found += answer == STORE_ASK_NOT_FOUND;
	sources->stats.refused += answer == STORE_ASK_REFUSED;
	sources->stats.failed += answer == STORE_ASK_FAILED;
	sources->stats.cancelled += answer == STORE_ASK_CANCELLED;
	(void)pthread_mutex_unlock(&sources->lock);
}

/* The item's query as it is known now, and what is wanted of the source. */
static struct store_query begin(struct sources *sources, struct item *item, const struct source *source, struct source_wanted *wanted)
{
	(void)pthread_mutex_lock(&sources->lock);
	struct store_query query = item->query;
	wanted->has_runtime = item->has_runtime;
	wanted->has_debug = item->has_debug;
	(void)snprintf(item->phase, sizeof(item->phase), "asking %s", source->name);
	(void)pthread_mutex_unlock(&sources->lock);
	return query;
}

bool sources_is_stopping(struct sources *sources)
{
	(void)pthread_mutex_lock(&sources->lock);
	bool stopping = sources->stopping;
	(void)pthread_mutex_unlock(&sources->lock);
	return stopping;
}

/* What was found belongs to the item from now on: who asks meanwhile by another of its IDs finds it. */
static void learn(struct sources *sources, struct item *item, const struct source_said *said)
{
	(void)pthread_mutex_lock(&sources->lock);
	if (!item->query.build_id.len)
		item->query.build_id = said->build_id;
	item->has_debug = item->has_debug || said->has_debug;
	item->has_runtime = item->has_runtime || said->has_runtime;
	(void)pthread_mutex_unlock(&sources->lock);
}

struct item_lacks sources_item_lacks(struct sources *sources, const struct item *item)
{
	(void)pthread_mutex_lock(&sources->lock);
	struct item_lacks lacks = {.debug = !item->has_debug, .runtime = !item->has_runtime};
	(void)pthread_mutex_unlock(&sources->lock);
	return lacks;
}

/* Asks one source and writes down what it said. */
static struct err *ask_one(struct sources *sources, struct source *source, struct item *item, const struct store_query *query,
	struct source_wanted *wanted, enum store_ask_answer *answer_ret)
{
	CLEANUP(said_deinit) struct source_said said = {0};
	struct store_query key = key_of(query);
	struct store_ask ask = {0};

	kernels_find(&sources->kernels, &wanted->build_id, wanted->kernel_release);
	if (wanted->build_id.len)
		TRY(store_index_names(sources->db, &wanted->build_id, &wanted->in_public_index));
	if (source->is_public && !wanted->in_public_index && !sources->options.ask_private)
		source_say(&said, STORE_ASK_REFUSED,
			"not asked: no public index names this ID, and it may be private (sources.ask_private allows it)");
	else
		TRY(source->ops->find(source, wanted, &said));
	if (said.answer == STORE_ASK_FAILED && sources_is_stopping(sources))
		return NULL; /* nothing was learnt */
	if (said.answer == STORE_ASK_FOUND)
		TRY(said.files[0].to_fetch ? submit_packages(sources, source, query, &said, &ask.job_id) :
					     submit_files(sources, source, query, &said, &ask.job_id));
	if (said.answer == STORE_ASK_FAILED && sources_is_stopping(sources))
		return NULL;
	fill_ask(sources, source, &said, &ask);
	count(sources, ask.answer);
	if (sources->options.said)
		sources->options.said(sources->options.said_context, &key, &ask);
	*answer_ret = ask.answer;
	if (ask.answer == STORE_ASK_FOUND)
		learn(sources, item, &said);
	return store_ask_put(sources->db, &key, &ask);
}

/* What is wrong here is written down as this source's failure: the next one may do, and a person must see it. */
static void note_failure(struct sources *sources, const struct source *source, const struct store_query *query, const struct err *e)
{
	struct store_query key = key_of(query);
	struct store_ask ask = {.answer = STORE_ASK_FAILED, .asked_ms = wall_ms()};

	ask.next_ms = ask.asked_ms + sources->options.retry_ms;
	(void)snprintf(ask.source, sizeof(ask.source), "%s", source->name);
	(void)snprintf(ask.text, sizeof(ask.text), "%.300s", err_message(e));
	count(sources, ask.answer);
	if (sources->options.said)
		sources->options.said(sources->options.said_context, &key, &ask);
	err_free(store_ask_put(sources->db, &key, &ask));
}

enum store_ask_answer sources_ask_one(struct sources *sources, struct source *source, struct item *item, struct source_race *race)
{
	struct source_wanted wanted = {.race = race};
	struct store_query query = begin(sources, item, source, &wanted);
	enum store_ask_answer answer = 0;

	wanted.has_file_id = query.has_file_id;
	wanted.file_id = query.file_id;
	wanted.build_id = query.build_id;
	CLEANUP(err_freep) struct err *e = ask_one(sources, source, item, &query, &wanted, &answer);
	if (e)
		note_failure(sources, source, &query, e);
	return answer;
}

static const struct store_ask *ask_of(const struct store_ask *asks, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(asks[i].source, name) == 0)
			return &asks[i];
	return NULL;
}

/* An answer is over when its time has passed, or when the source has other things now. */
static bool is_due(const struct source *source, const struct store_ask *ask, uint64_t now)
{
	return ask->next_ms <= now || ask->asked_ms < atomic_load_explicit(&source->changed_ms, memory_order_relaxed);
}

/* What the store has: sources need not fetch it. */
static struct err *look_at_store(struct sources *sources, struct item *item)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(freep) struct store_answer *answer = calloc(1, sizeof(*answer));

	if (!answer)
		return err_nomem();
	TRY(store_read_begin(sources->store, &read));
	TRY(store_resolve(read, &item->query, answer));
	struct fileid kernel = fileid_from_kernel_build_id(item->query.build_id.bytes, item->query.build_id.len);
	item->has_runtime = answer->has_file && answer->file.segments.count > 0;
	item->has_debug = answer->status == STORE_OK && store_entry_has_lines(&answer->entry);
	if (item->query.has_file_id && !fileid_equal(&item->query.file_id, &kernel)) /* a kernel's addresses count from its text */
		item->wants_runtime = true;
	return NULL;
}

/* Those of a group that may be asked (again) now. */
static size_t choose_due(struct sources *sources, struct item *item, struct source *const *group, size_t n, struct source **ret)
{
	CLEANUP(freep) struct store_ask *asks = calloc(STORE_ASKS_MAX, sizeof(*asks));
	struct store_query key = key_of(&item->query); /* it may have been learnt meanwhile */
	size_t said = 0, due = 0;

	if (asks)
		err_free(store_asks(sources->db, &key, asks, STORE_ASKS_MAX, &said));
	for (size_t i = 0; i < n; i++) {
		const struct store_ask *before = ask_of(asks, said, group[i]->name);
		if (!before || is_due(group[i], before, wall_ms()))
			ret[due++] = group[i];
	}
	return due;
}

static bool is_over(struct sources *sources, const struct item *item)
{
	struct item_lacks lacks = sources_item_lacks(sources, item);

	return sources_is_stopping(sources) || (!lacks.debug && (!lacks.runtime || !item->wants_runtime));
}

/* Asks the sources from @p first up to @p end for what the item lacks. */
static void ask_all(struct sources *sources, struct item *item, size_t first, size_t end)
{
	struct source *due[SOURCES_TOGETHER_MAX];

	for (size_t i = first; i < end && !is_over(sources, item);) {
		size_t n = together_count(&sources->all[i], end - i);
		size_t due_count = choose_due(sources, item, &sources->all[i], n, due);
		if (due_count > 0)
			together_ask(sources, item, due, due_count);
		i += n;
	}
}

static struct item *take_item(struct sources *sources, bool near)
{
	struct item *item = NULL;

	(void)pthread_mutex_lock(&sources->lock);
	while (!sources->stopping) {
		for (item = sources->first; item && (item->taken || item->near_done == near); item = item->next)
			;
		if (item)
			break;
		(void)pthread_cond_wait(&sources->changed, &sources->lock);
	}
	if (item)
		item->taken = true;
	if (sources->stopping)
		item = NULL;
	(void)pthread_mutex_unlock(&sources->lock);
	return item;
}

static void drop_item(struct sources *sources, struct item *item)
{
	(void)pthread_mutex_lock(&sources->lock);
	struct item **link = &sources->first;
	while (*link != item)
		link = &(*link)->next;
	*link = item->next;
	if (sources->last == &item->next)
		sources->last = link;
	sources->stats.queued--;
	(void)pthread_mutex_unlock(&sources->lock);
	free(item);
}

/* On to those who are asked over a network. */
static void hand_on(struct sources *sources, struct item *item)
{
	(void)pthread_mutex_lock(&sources->lock);
	item->near_done = true;
	item->taken = false;
	(void)pthread_cond_broadcast(&sources->changed);
	(void)pthread_mutex_unlock(&sources->lock);
}

void *sources_near_main(void *argument)
{
	struct sources *sources = argument;
	struct item *item;

	while ((item = take_item(sources, true))) {
		err_free(look_at_store(sources, item));
		ask_all(sources, item, 0, sources->near_count);
		if (is_over(sources, item))
			drop_item(sources, item);
		else
			hand_on(sources, item);
	}
	return NULL;
}

void *sources_asker_main(void *argument)
{
	struct sources *sources = argument;
	struct item *item;

	while ((item = take_item(sources, false))) {
		ask_all(sources, item, sources->near_count, sources->count);
		drop_item(sources, item);
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------- questions */

/* Under the lock. False when this requester has brought enough for this hour. */
static bool spend(struct sources *sources, uint64_t requester)
{
	struct budget *budget = &sources->budgets[requester % SOURCES_BUDGETS];
	uint64_t hour = wall_ms() / HOUR_MS;

	if (budget->hour != hour)
		*budget = (struct budget){.hour = hour};
	if (budget->used >= sources->options.ids_per_hour)
		return false;
	budget->used++;
	return true;
}

/* Queues it, or says that it is queued. Under the lock. False when it is neither and may not be. */
static bool is_queued(struct sources *sources, const struct store_query *query, struct sources_answer *ret)
{
	struct item *item = sources->first;

	while (item && !same_id(&item->query, query))
		item = item->next;
	if (!item)
		return false;
	ret->state = SOURCES_PENDING;
	ret->retry_after_s = RETRY_PENDING_S;
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", item->phase);
	return true;
}

static void enqueue(struct sources *sources, const struct store_query *query, bool offsets, uint64_t requester, struct sources_answer *ret)
{
	struct item *item = NULL;

	ret->state = SOURCES_LATER;
	ret->retry_after_s = HOUR_MS / 1000;
	if (sources->stats.queued >= SOURCES_QUEUE_MAX) {
		ret->retry_after_s = 60;
		(void)snprintf(ret->reason, sizeof(ret->reason), "%d IDs are being asked for already: this one later", SOURCES_QUEUE_MAX);
		return;
	}
	if (!spend(sources, requester)) {
		sources->stats.over_budget++;
		(void)snprintf(ret->reason, sizeof(ret->reason),
			"no source is asked: this client has brought %u unknown IDs within the hour (sources.ids_per_hour)",
			sources->options.ids_per_hour);
		return;
	}
	item = calloc(1, sizeof(*item));
	if (!item) {
		(void)snprintf(ret->reason, sizeof(ret->reason), "out of memory");
		return;
	}
	item->query = *query;
	item->query.tenant = STORE_TENANT_PUBLIC;
	item->wants_runtime = offsets;
	(void)snprintf(item->phase, sizeof(item->phase), "queued to ask %zu sources", sources->count);
	*sources->last = item;
	sources->last = &item->next;
	sources->stats.queued++;
	(void)pthread_cond_broadcast(&sources->changed);
	*ret = (struct sources_answer){.state = SOURCES_PENDING, .retry_after_s = RETRY_PENDING_S};
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", item->phase);
}

/* What a person can do about a file ID alone. */
static size_t tell_what_to_do(const struct sources *sources, struct sources_answer *ret)
{
	bool packages = false;

	for (size_t i = 0; i < sources->count; i++)
		packages = packages || sources->all[i]->ops->list;
	return (size_t)snprintf(ret->reason, sizeof(ret->reason),
		"package indices and debuginfod know files by build ID, and nobody said that of this file ID: send the build ID, too%s",
		packages ? ", or run `cairn sync PACKAGE` for the package that has the file" : "");
}

/* All that was said, as one line. True in @p due_ret when somebody may be asked (again). */
static void tell(struct sources *sources, const struct store_query *key, const struct store_ask *asks, size_t n, struct sources_answer *ret, bool *due_ret)
{
	uint64_t now = wall_ms(), next = UINT64_MAX;

	*due_ret = false;
	ret->state = SOURCES_ASKED;
	ret->reason[0] = 0;
	size_t at = key->build_id.len ? 0 : tell_what_to_do(sources, ret);
	for (size_t i = 0; i < sources->count; i++) {
		const struct store_ask *ask = ask_of(asks, n, sources->all[i]->name);
		if (ask && ask->answer == STORE_ASK_FOUND && now < ask->asked_ms + FRESH_MS) {
			*ret = (struct sources_answer){.state = SOURCES_PENDING, .fresh = true, .retry_after_s = RETRY_PENDING_S};
			(void)snprintf(ret->reason, sizeof(ret->reason), "%s has it: job %llu", ask->source, (unsigned long long)ask->job_id);
			*due_ret = false;
			return;
		}
		if (!ask || is_due(sources->all[i], ask, now)) {
			*due_ret = true;
			continue;
		}
		next = ask->next_ms < next ? ask->next_ms : next;
		if (at < sizeof(ret->reason))
			at += (size_t)snprintf(ret->reason + at, sizeof(ret->reason) - at, "%s%s: %s", at ? "; " : "", ask->source, ask->text);
	}
	ret->retry_after_s = next == UINT64_MAX ? 60 : (uint32_t)((next - now) / 1000 + 1);
}

void sources_ask(struct sources *sources, const struct store_query *query, bool offsets, uint64_t requester, struct sources_answer *ret)
{
	*ret = (struct sources_answer){.state = SOURCES_NONE};
	if (!sources || sources->count == 0 || (!query->has_file_id && !query->build_id.len))
		return;
	struct store_query key = key_of(query);
	CLEANUP(freep) struct store_ask *asks = calloc(STORE_ASKS_MAX, sizeof(*asks));
	size_t n = 0;
	bool due = true;

	(void)pthread_mutex_lock(&sources->lock);
	bool queued = is_queued(sources, query, ret);
	(void)pthread_mutex_unlock(&sources->lock);
	if (queued || !asks)
		return;
	CLEANUP(err_freep) struct err *e = store_asks(sources->db, &key, asks, STORE_ASKS_MAX, &n);
	if (!e)
		tell(sources, &key, asks, n, ret, &due);
	if (!due)
		return;
	(void)pthread_mutex_lock(&sources->lock);
	if (!is_queued(sources, query, ret))
		enqueue(sources, query, offsets, requester, ret);
	(void)pthread_mutex_unlock(&sources->lock);
}

void sources_kernel(struct sources *sources, const struct fileid *file_id, const struct build_id *build_id, const char *release, size_t len)
{
	struct fileid kernel = fileid_from_kernel_build_id(build_id->bytes, build_id->len);

	if (sources && fileid_equal(file_id, &kernel))
		err_free(kernels_note(&sources->kernels, build_id, release, len)); /* said again with the next request */
}

struct err *sources_said(struct sources *sources, const struct store_query *query, struct store_ask *asks, size_t cap, size_t *n_ret)
{
	struct store_query key = {.tenant = STORE_TENANT_PUBLIC, .build_id = query->build_id};
	size_t n = 0, more = 0;

	*n_ret = 0;
	if (!sources)
		return NULL;
	if (query->build_id.len)
		TRY(store_asks(sources->db, &key, asks, cap, &n));
	key = (struct store_query){.tenant = STORE_TENANT_PUBLIC, .has_file_id = true, .file_id = query->file_id};
	if (query->has_file_id && n < cap)
		TRY(store_asks(sources->db, &key, asks + n, cap - n, &more));
	*n_ret = n + more;
	return NULL;
}

void sources_stats(struct sources *sources, struct sources_stats *ret)
{
	(void)pthread_mutex_lock(&sources->lock);
	*ret = sources->stats;
	(void)pthread_mutex_unlock(&sources->lock);
	fetch_stats(sources->fetch, &ret->fetch);
}

/* ---------------------------------------------------------------------------------------- refreshing */

/* Up to @p ms, or until the end. False at the end. */
static bool nap(struct sources *sources, uint64_t ms)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_mutex_lock(&sources->lock);
	while (!sources->stopping && pthread_cond_timedwait(&sources->changed, &sources->lock, &until) == 0)
		;
	bool stopping = sources->stopping;
	(void)pthread_mutex_unlock(&sources->lock);
	return !stopping;
}

static void refresh(struct sources *sources)
{
	uint64_t removed;

	for (size_t i = 0; i < sources->count && !sources_is_stopping(sources); i++)
		if (sources->all[i]->ops->refresh)
			err_free(sources->all[i]->ops->refresh(sources->all[i])); /* the source tells by its answers */
	err_free(packages_prune(sources->packages));
	err_free(store_asks_expire(sources->db, wall_ms() - (uint64_t)EXPIRE_AFTER_S * 1000, &removed));
}

void *sources_refresher_main(void *argument)
{
	struct sources *sources = argument;

	do {
		refresh(sources);
	} while (nap(sources, sources->options.refresh_ms));
	return NULL;
}

// SPDX-License-Identifier: Apache-2.0
/* Opening and closing the samples' store, handing in batches, counters. */
#include "profiles/samples_internal.h"

#include <pthread.h>
#include <time.h>

uint64_t samples_now_ms(const struct samples *samples)
{
	struct timespec now;

	if (samples->options.now_ms)
		return samples->options.now_ms(samples->options.now_context);
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct err *options_fill(struct samples_options *o)
{
	if (!o->keep_ms)
		o->keep_ms = 30ull * 86400 * 1000;
	if (!o->max_bytes)
		o->max_bytes = 64ull << 30;
	if (!o->raw_for_ms)
		o->raw_for_ms = 3600 * 1000;
	if (!o->queue_bytes)
		o->queue_bytes = 256 << 20;
	if (!o->future_ms)
		o->future_ms = 10 * 60 * 1000;
	if (!o->seal_after_ms)
		o->seal_after_ms = 10 * 60 * 1000;
	if (!o->partition_s)
		o->partition_s = 3600;
	if (o->partition_s > PARTITION_SECONDS_MAX)
		return err_new(ERR_INVALID, "partitions of %u s, %d at most", o->partition_s, PARTITION_SECONDS_MAX);
	return NULL;
}

static struct err *list_partitions(struct store_txn *txn, void *arg)
{
	return partitions_list(arg, txn);
}

static void ignore_error(void *arg, struct err *e)
{
	(void)arg;
	err_free(e);
}

struct err *samples_open(const struct samples_options *options, struct samples **ret)
{
	CLEANUP(samples_closep) struct samples *samples = calloc(1, sizeof(*samples));

	if (!samples)
		return err_nomem();
	samples->options = *options;
	TRY(options_fill(&samples->options));
	struct store_options store = {.data_dir = options->data_dir, .map_max = options->map_max, .read_only = options->read_only};
	struct store_profiles_hooks hooks = {.group_end = commit_group_end,
		.group_durable = commit_group_durable,
		.group_gone = commit_group_gone,
		.between = tend_step,
		.context = samples};
	TRY(store_profiles_open(&store, &hooks, &samples->store));
	samples->options.data_dir = NULL;
	/* So that gauges are right from the start. */
	if (!options->read_only)
		TRY(store_profiles_submit(samples->store, list_partitions, samples, ignore_error, NULL));
	*ret = TAKE_PTR(samples);
	return NULL;
}

void samples_close(struct samples *samples)
{
	if (!samples)
		return;
	store_close(samples->store);
	partitions_forget(samples);
	seen_forget(&samples->seen);
	free(samples);
}

void samples_closep(struct samples **samples)
{
	samples_close(*samples);
}

struct err *samples_health(struct samples *samples)
{
	return store_health(samples->store);
}

/* -------------------------------------------------------------------------------------- handing in */

static void count(atomic_uint_fast64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static void batch_done(void *arg, struct err *e)
{
	CLEANUP(samples_batch_destroyp) struct samples_batch *batch = arg;
	struct samples *samples = batch->samples;

	atomic_fetch_sub_explicit(&samples->queue_bytes, batch->queued_bytes, memory_order_relaxed);
	atomic_fetch_sub_explicit(&samples->queue_batches, 1, memory_order_relaxed);
	if (e)
		batch->result = (struct samples_result){0};
	else
		count(&samples->batches, 1);
	count(&samples->counted_samples, batch->result.samples);
	count(&samples->profiles, batch->result.profiles);
	count(&samples->duplicates, batch->result.duplicate_profiles);
	count(&samples->rejected_future, batch->result.rejected_future);
	count(&samples->rejected_old, batch->result.rejected_old);
	batch->done(batch->done_arg, e, &batch->result);
}

struct err *samples_commit(struct samples_batch **take_batch, samples_done_fn *done, void *arg)
{
	struct samples_batch *batch = *take_batch;
	struct samples *samples = batch->samples;

	if (samples->options.read_only)
		return err_new(ERR_INVALID, "the profiles are open for reading only");
	batch->queued_bytes = samples_batch_bytes(batch);
	batch->done = done;
	batch->done_arg = arg;
	/* One batch is always let in: it may be larger than the whole queue. */
	uint64_t before = atomic_fetch_add_explicit(&samples->queue_bytes, batch->queued_bytes, memory_order_relaxed);
	if (before > 0 && before + batch->queued_bytes > samples->options.queue_bytes) {
		atomic_fetch_sub_explicit(&samples->queue_bytes, batch->queued_bytes, memory_order_relaxed);
		count(&samples->busy, 1);
		return err_new(ERR_BUSY, "%llu bytes of samples are waiting to be written", (unsigned long long)before);
	}
	count(&samples->queue_batches, 1);
	struct err *e = store_profiles_submit(samples->store, commit_run, batch, batch_done, batch);
	if (e) {
		atomic_fetch_sub_explicit(&samples->queue_bytes, batch->queued_bytes, memory_order_relaxed);
		atomic_fetch_sub_explicit(&samples->queue_batches, 1, memory_order_relaxed);
		return e;
	}
	*take_batch = NULL;
	return NULL;
}

struct waiter {
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	bool done;
	struct err *e;
	struct samples_result result;
};

static void waiter_done(void *arg, struct err *e, const struct samples_result *result)
{
	struct waiter *waiter = arg;

	(void)pthread_mutex_lock(&waiter->mutex);
	waiter->e = e;
	waiter->result = *result;
	waiter->done = true;
	(void)pthread_cond_signal(&waiter->wake);
	(void)pthread_mutex_unlock(&waiter->mutex);
}

struct err *samples_commit_wait(struct samples_batch **take_batch, struct samples_result *result)
{
	struct waiter waiter = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
	struct err *e = samples_commit(take_batch, waiter_done, &waiter);

	if (e) {
		samples_batch_destroy(TAKE_PTR(*take_batch));
		return e;
	}
	(void)pthread_mutex_lock(&waiter.mutex);
	while (!waiter.done)
		(void)pthread_cond_wait(&waiter.wake, &waiter.mutex);
	(void)pthread_mutex_unlock(&waiter.mutex);
	(void)pthread_cond_destroy(&waiter.wake);
	(void)pthread_mutex_destroy(&waiter.mutex);
	if (result)
		*result = waiter.result;
	return waiter.e;
}

/* -------------------------------------------------------------------------------------- counters */

static uint64_t load(atomic_uint_fast64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void samples_counters(struct samples *samples, struct samples_counters *ret)
{
	*ret = (struct samples_counters){
		.commits = load(&samples->commits),
		.batches = load(&samples->batches),
		.samples = load(&samples->counted_samples),
		.profiles = load(&samples->profiles),
		.duplicate_profiles = load(&samples->duplicates),
		.rejected_future = load(&samples->rejected_future),
		.rejected_old = load(&samples->rejected_old),
		.busy = load(&samples->busy),
		.merges = load(&samples->merges),
		.sealed = load(&samples->sealed),
		.dropped_by_age = load(&samples->dropped_by_age),
		.dropped_by_size = load(&samples->dropped_by_size),
		.queue_bytes = load(&samples->queue_bytes),
		.queue_batches = load(&samples->queue_batches),
		.partitions = load(&samples->partition_count),
		.stored_bytes = load(&samples->stored_bytes),
	};
}

static void tend_asked(void *arg, struct err *e)
{
	struct samples *samples = arg;

	err_free(e);
	count(&samples->asked, 1);
}

static struct err *nothing(struct store_txn *txn, void *arg)
{
	(void)txn;
	(void)arg;
	return NULL;
}

void samples_tend(struct samples *samples)
{
	uint64_t before = atomic_load_explicit(&samples->tended, memory_order_acquire);
	struct err *e = store_profiles_submit(samples->store, nothing, samples, tend_asked, samples);

	err_free(e);
	while (!e && atomic_load_explicit(&samples->tended, memory_order_acquire) == before)
		(void)nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

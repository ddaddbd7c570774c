// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/runner.h"

#include "symbolizer/build/build.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct job {
	const struct runner *runner;
	size_t count;
	struct err *(*task)(void *context, size_t i, unsigned thread);
	void *context;
	_Atomic size_t next; /* relaxed: it only hands out numbers; joining the threads publishes what they did */
	atomic_bool stop;
	pthread_mutex_t lock; /* of the members below */
	struct err *error;
	size_t error_at;
};

struct seat {
	struct job *job;
	unsigned thread;
};

static void keep_error(struct job *job, size_t i, struct err *e)
{
	pthread_mutex_lock(&job->lock);
	if (!job->error || i < job->error_at) {
		err_free(job->error);
		job->error = e;
		job->error_at = i;
	} else {
		err_free(e);
	}
	pthread_mutex_unlock(&job->lock);
	atomic_store_explicit(&job->stop, true, memory_order_relaxed);
}

static void *work(void *argument)
{
	const struct seat *seat = argument;
	struct job *job = seat->job;

	while (!atomic_load_explicit(&job->stop, memory_order_relaxed)) {
		size_t i = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
		if (i >= job->count)
			break;
		struct err *e = job->task(job->context, i, seat->thread);
		if (e)
			keep_error(job, i, e);
		if (seat->thread == 0 && job->runner->progress)
			job->runner->progress(job->runner->progress_context, i + 1, job->count);
	}
	return NULL;
}

struct err *runner_run(const struct runner *runner, size_t count, struct err *(*task)(void *context, size_t i, unsigned thread), void *context)
{
	struct job job = {.runner = runner, .count = count, .task = task, .context = context, .lock = PTHREAD_MUTEX_INITIALIZER};
	struct seat seats[BUILD_THREADS_MAX];
	pthread_t threads[BUILD_THREADS_MAX];
	unsigned wanted = runner->threads < BUILD_THREADS_MAX ? runner->threads : BUILD_THREADS_MAX, started = 1;

	for (; started < wanted && started < count; started++) {
		seats[started] = (struct seat){&job, started};
		if (pthread_create(&threads[started], NULL, work, &seats[started]) != 0)
			break;
	}
	seats[0] = (struct seat){&job, 0};
	work(&seats[0]);
	for (unsigned i = 1; i < started; i++)
		pthread_join(threads[i], NULL);
	pthread_mutex_destroy(&job.lock);
	return job.error;
}

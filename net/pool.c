// SPDX-License-Identifier: Apache-2.0
#include "net/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Linux cuts thread names at 15 bytes. */
enum { POOL_NAME_MAX = 10, POOL_THREADS_MAX = 256 };

struct pool_job {
	void (*fn)(void *arg);
	void *arg;
};

struct net_pool {
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t work;
	struct pool_job *jobs; /* ring of queue_max */
	unsigned queue_max, head, queued, running;
	uint64_t done, refused;
	bool closed;
	unsigned thread_count;
	char name[POOL_NAME_MAX + 1];
	pthread_t threads[];
};

/* Waits for a job; false when the pool is closed and empty. */
static bool pool_next(struct net_pool *pool, struct pool_job *ret)
{
	bool have;

	pthread_mutex_lock(&pool->lock);
	while (pool->queued == 0 && !pool->closed)
		pthread_cond_wait(&pool->work, &pool->lock);
	have = pool->queued > 0;
	if (have) {
		*ret = pool->jobs[pool->head];
		pool->head = (pool->head + 1) % pool->queue_max;
		pool->queued--;
		pool->running++;
	}
	pthread_mutex_unlock(&pool->lock);
	return have;
}

static void *pool_thread(void *arg)
{
	struct net_pool *pool = arg;
	struct pool_job job;

	while (pool_next(pool, &job)) {
		job.fn(job.arg);
		pthread_mutex_lock(&pool->lock);
		pool->running--;
		pool->done++;
		pthread_mutex_unlock(&pool->lock);
	}
	return NULL;
}

/* Threads are born with all signals blocked: signals belong to the main thread. */
static struct err *pool_start_threads(struct net_pool *pool, unsigned threads)
{
	sigset_t all, old;
	int error = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (pool->thread_count < threads && error == 0) {
		char name[16];
		error = pthread_create(&pool->threads[pool->thread_count], NULL, pool_thread, pool);
		if (error)
			break;
		(void)snprintf(name, sizeof(name), "%s-%u", pool->name, pool->thread_count % 1000);
		(void)pthread_setname_np(pool->threads[pool->thread_count], name);
		pool->thread_count++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error ? err_os(error, "start thread %u of pool %s", pool->thread_count, pool->name) : NULL;
}

struct err *net_pool_create(const char *name, unsigned threads, unsigned queue_max, struct net_pool **ret)
{
	if (threads == 0) {
		long cpus = sysconf(_SC_NPROCESSORS_ONLN);
		threads = cpus > 0 ? (unsigned)cpus : 1;
	}
	if (queue_max == 0 || threads > POOL_THREADS_MAX || strlen(name) > POOL_NAME_MAX)
		return err_new(ERR_INVALID, "pool %s: %u threads, queue of %u", name, threads, queue_max);
	struct net_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
	if (!pool)
		return err_nomem();
	pool->jobs = calloc(queue_max, sizeof(pool->jobs[0]));
	if (!pool->jobs) {
		free(pool);
		return err_nomem();
	}
	pool->queue_max = queue_max;
	memcpy(pool->name, name, strlen(name) + 1);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	struct err *e = pool_start_threads(pool, threads);
	if (e) {
		net_pool_destroy(pool);
		return e;
	}
	*ret = pool;
	return NULL;
}

bool net_pool_submit(struct net_pool *pool, void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&pool->lock);
	bool room = !pool->closed && pool->queued < pool->queue_max;
	if (room) {
		pool->jobs[(pool->head + pool->queued) % pool->queue_max] = (struct pool_job){fn, arg};
		pool->queued++;
		pthread_cond_signal(&pool->work);
	} else {
		pool->refused++;
	}
	pthread_mutex_unlock(&pool->lock);
	return room;
}

void net_pool_stats(struct net_pool *pool, struct net_pool_stats *ret)
{
	pthread_mutex_lock(&pool->lock);
	*ret = (struct net_pool_stats){
		.queued = pool->queued, .running = pool->running, .done = pool->done, .refused = pool->refused};
	pthread_mutex_unlock(&pool->lock);
}

void net_pool_destroy(struct net_pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->closed = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->thread_count; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool->jobs);
	free(pool);
}

void net_pool_destroyp(struct net_pool **pool)
{
	net_pool_destroy(*pool);
}

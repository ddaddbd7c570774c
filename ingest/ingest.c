// SPDX-License-Identifier: Apache-2.0
/*
 * Threads and counters. Each runner thread claims a job, runs it (task.c), claims the next; with an empty queue it sleeps on
 * the store's eventfd. An eventfd wakes whoever reads it first and counts several jobs as one, so a runner that got a job
 * rings again for the others before it begins: one of them finds the next job, or an empty queue, and sleeps on.
 * A claim that fails (the store's disk is out of order) is tried again after a wait, for ever: the jobs are durable.
 *
 * Each runner's progress has a mutex of its own, held for a copy; counters are relaxed atomics: they are sums for a person
 * to look at, nothing is decided by them.
 */
#include "ingest/ingest.h"

#include "ingest/task.h"
#include "store/job.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { IDLE_MS = 30000, CLAIM_RETRY_MS = 2000, THREADS_MAX = 64 };

struct runner {
	struct ingest *ingest;
	pthread_t thread;
	int scratch_fd;
	pthread_mutex_t mutex; /* of the two below */
	uint64_t job_id;       /* 0: idle */
	struct ingest_progress progress;
};

struct counters {
	_Atomic uint64_t jobs_done, jobs_failed, jobs_retried;
	_Atomic uint64_t runs[SPAWN_OUTCOMES];
	_Atomic uint64_t tables, table_bytes, files_without_symbols, members_skipped, refused;
	_Atomic uint64_t worker_wall_ms, worker_cpu_ms, worker_peak_rss_bytes;
	_Atomic uint32_t running;
};

struct ingest {
	struct store *store;
	struct ingest_options options;
	char worker[4096]; /* when it was not given */
	int stop_fd;
	struct counters counters;
	uint32_t started; /* threads */
	struct runner runners[INGEST_WORKERS_MAX];
};

static void add(_Atomic uint64_t *counter, uint64_t value)
{
	(void)atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

/* ---------------------------------------------------------------------------------------- what a task tells */

static void on_progress(void *context, const struct protocol_progress *progress, uint32_t round)
{
	struct runner *runner = context;

	(void)pthread_mutex_lock(&runner->mutex);
	runner->progress.now = *progress;
	runner->progress.round = round;
	(void)pthread_mutex_unlock(&runner->mutex);
}

static void on_committed(void *context, uint64_t table_bytes)
{
	struct runner *runner = context;
	struct counters *counters = &runner->ingest->counters;

	add(table_bytes > 0 ? &counters->tables : &counters->files_without_symbols, 1);
	add(&counters->table_bytes, table_bytes);
	(void)pthread_mutex_lock(&runner->mutex);
	runner->progress.results++;
	(void)pthread_mutex_unlock(&runner->mutex);
}

static void on_skipped(void *context)
{
	add(&((struct runner *)context)->ingest->counters.members_skipped, 1);
}

static void on_refused(void *context)
{
	add(&((struct runner *)context)->ingest->counters.refused, 1);
}

static void on_ran(void *context, const struct spawn_report *report)
{
	struct counters *counters = &((struct runner *)context)->ingest->counters;
	uint64_t peak = atomic_load_explicit(&counters->worker_peak_rss_bytes, memory_order_relaxed);

	add(&counters->runs[report->outcome], 1);
	add(&counters->worker_wall_ms, report->wall_ms);
	add(&counters->worker_cpu_ms, report->cpu_ms);
	while (peak < report->peak_rss_bytes &&
		!atomic_compare_exchange_weak_explicit(&counters->worker_peak_rss_bytes, &peak, report->peak_rss_bytes,
			memory_order_relaxed, memory_order_relaxed))
		;
}

/* ---------------------------------------------------------------------------------------- runner threads */

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void begin_job(struct runner *runner, uint64_t id)
{
	(void)pthread_mutex_lock(&runner->mutex);
	runner->job_id = id;
	runner->progress = (struct ingest_progress){.started_ms = clock_ms(CLOCK_REALTIME)};
	(void)pthread_mutex_unlock(&runner->mutex);
	(void)atomic_fetch_add_explicit(&runner->ingest->counters.running, 1, memory_order_relaxed);
}

static void end_job(struct runner *runner)
{
	(void)atomic_fetch_sub_explicit(&runner->ingest->counters.running, 1, memory_order_relaxed);
	(void)pthread_mutex_lock(&runner->mutex);
	runner->job_id = 0;
	(void)pthread_mutex_unlock(&runner->mutex);
}

static void count_end(struct ingest *ingest, const struct store_job *job, const struct task_end *end, uint64_t wall_ms)
{
	struct ingest_end told = {end->verdict, end->results, wall_ms, end->reason};

	if (end->verdict == INGEST_DONE)
		add(&ingest->counters.jobs_done, 1);
	else if (end->verdict == INGEST_FAILED)
		add(&ingest->counters.jobs_failed, 1);
	else if (end->verdict == INGEST_RETRY)
		add(&ingest->counters.jobs_retried, 1);
	if (ingest->options.ended)
		ingest->options.ended(ingest->options.ended_context, job, &told);
}

static struct err *run_job(struct runner *runner, const struct store_job *job)
{
	struct ingest *ingest = runner->ingest;
	struct task_env env = {
		.store = ingest->store,
		.options = &ingest->options,
		.scratch_fd = runner->scratch_fd,
		.stop_fd = ingest->stop_fd,
		.context = runner,
		.progress = on_progress,
		.committed = on_committed,
		.skipped = on_skipped,
		.refused = on_refused,
		.ran = on_ran,
	};
	uint64_t started = clock_ms(CLOCK_MONOTONIC);
	struct task_end end;

	begin_job(runner, job->id);
	struct err *e = task_run(&env, job, &end);
	(void)!ftruncate(runner->scratch_fd, 0); /* an idle runner holds no disk */
	end_job(runner);
	count_end(ingest, job, &end, clock_ms(CLOCK_MONOTONIC) - started);
	return e;
}

/* Up to @p ms, or until a job is queued. False when it is time to stop. */
static bool wait_for_work(struct ingest *ingest, int ms, bool also_for_jobs)
{
	struct pollfd polled[] = {{.fd = ingest->stop_fd, .events = POLLIN},
		{.fd = also_for_jobs ? store_job_fd(ingest->store) : -1, .events = POLLIN}};
	uint64_t count;

	(void)poll(polled, ARRAY_SIZE(polled), ms);
	if (polled[0].revents)
		return false;
	if (polled[1].revents)
		(void)!read(polled[1].fd, &count, sizeof(count)); /* another runner may have been faster */
	return true;
}

static void *runner_main(void *argument)
{
	struct runner *runner = argument;
	struct ingest *ingest = runner->ingest;

	while (wait_for_work(ingest, 0, false)) {
		struct store_job job;
		bool found = false;
		struct err *e = store_job_claim(ingest->store, &job, &found);

		if (!e && found) {
			ingest_kick(ingest);
			e = run_job(runner, &job);
		}
		bool failed = e != NULL;
		err_free(e); /* /readyz says what is wrong with the store */
		if ((failed || !found) && !wait_for_work(ingest, failed ? CLAIM_RETRY_MS : IDLE_MS, !failed))
			break;
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------- start and stop */

static uint32_t or_default(uint32_t value, uint64_t fallback)
{
	return value ? value : fallback > 0 ? (uint32_t)fallback : 1;
}

/* cairn-worker lies beside the running program. */
static struct err *find_worker(struct ingest *ingest)
{
	static const char name[] = "cairn-worker";
	ssize_t len = readlink("/proc/self/exe", ingest->worker, sizeof(ingest->worker) - sizeof(name));

	if (len < 0)
		return err_os(errno, "readlink /proc/self/exe");
	ingest->worker[len] = 0;
	char *slash = strrchr(ingest->worker, '/');
	memcpy(slash ? slash + 1 : ingest->worker, name, sizeof(name));
	ingest->options.worker = ingest->worker;
	return NULL;
}

static struct err *resolve(struct ingest *ingest, const struct ingest_options *given)
{
	struct ingest_options *options = &ingest->options;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t cpu_count = cpus > 0 ? (uint64_t)cpus : 1;

	*options = *given;
	options->workers = or_default(given->workers, cpu_count / 2 < INGEST_WORKERS_MAX ? cpu_count / 2 : INGEST_WORKERS_MAX);
	options->worker_threads = or_default(given->worker_threads, cpu_count / options->workers < THREADS_MAX ? cpu_count / options->workers : THREADS_MAX);
	if (options->workers > INGEST_WORKERS_MAX || options->worker_threads > THREADS_MAX)
		return err_new(ERR_INVALID, "ingest.workers is at most %d, ingest.worker_threads at most %d", INGEST_WORKERS_MAX,
			THREADS_MAX);
	if (!options->scratch_dir)
		options->scratch_dir = "/var/tmp";
	if (!options->worker_memory_bytes)
		options->worker_memory_bytes = UINT64_C(4) << 30;
	if (!options->max_table_bytes)
		options->max_table_bytes = store_limits(ingest->store)->max_table_bytes;
	if (!options->max_unpacked_bytes)
		options->max_unpacked_bytes = UINT64_C(16) << 30;
	if (!options->deadline_ms)
		options->deadline_ms = UINT64_C(30) * 60 * 1000;
	if (!options->worker)
		TRY(find_worker(ingest));
	if (access(options->worker, X_OK))
		return err_os(errno, "ingest.worker %s", options->worker);
	return NULL;
}

/* O_TMPFILE, or where the file system has none (overlayfs of older kernels) a name for a moment. */
static struct err *open_scratch(const char *dir, int *ret)
{
	char path[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		if (snprintf(path, sizeof(path), "%s/cairn-scratch-XXXXXX", dir) >= (int)sizeof(path))
			return err_new(ERR_INVALID, "ingest.scratch_dir is too long");
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			(void)unlink(path);
	}
	if (fd < 0)
		return err_os(errno, "temporary file in %s", dir);
	*ret = fd;
	return NULL;
}

static struct err *start_runner(struct ingest *ingest)
{
	struct runner *runner = &ingest->runners[ingest->started];
	char name[16];

	runner->ingest = ingest;
	TRY(open_scratch(ingest->options.scratch_dir, &runner->scratch_fd));
	(void)pthread_mutex_init(&runner->mutex, NULL);
	int error = pthread_create(&runner->thread, NULL, runner_main, runner);
	if (error) {
		(void)close(runner->scratch_fd);
		(void)pthread_mutex_destroy(&runner->mutex);
		return err_os(error, "start an ingest thread");
	}
	(void)snprintf(name, sizeof(name), "ingest-%u", ingest->started);
	(void)pthread_setname_np(runner->thread, name);
	ingest->started++;
	return NULL;
}

static struct err *start_all(struct ingest *ingest, const struct ingest_options *options)
{
	TRY(resolve(ingest, options));
	ingest->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ingest->stop_fd < 0)
		return err_os(errno, "eventfd");
	int flags = fcntl(store_job_fd(ingest->store), F_GETFL);
	if (flags < 0 || fcntl(store_job_fd(ingest->store), F_SETFL, flags | O_NONBLOCK))
		return err_os(errno, "eventfd of the store");
	while (ingest->started < ingest->options.workers)
		TRY(start_runner(ingest));
	return NULL;
}

struct err *ingest_start(struct store *store, const struct ingest_options *options, struct ingest **ret)
{
	struct ingest *ingest = calloc(1, sizeof(*ingest));

	if (!ingest)
		return err_nomem();
	ingest->store = store;
	ingest->stop_fd = -1;
	struct err *e = start_all(ingest, options);
	if (e) {
		ingest_stop(ingest);
		return e;
	}
	*ret = ingest;
	return NULL;
}

void ingest_stop(struct ingest *ingest)
{
	uint64_t one = 1;

	if (!ingest)
		return;
	if (ingest->stop_fd >= 0)
		(void)!write(ingest->stop_fd, &one, sizeof(one)); /* never read: it stays readable for all */
	for (uint32_t i = 0; i < ingest->started; i++) {
		(void)pthread_join(ingest->runners[i].thread, NULL);
		(void)close(ingest->runners[i].scratch_fd);
		(void)pthread_mutex_destroy(&ingest->runners[i].mutex);
	}
	closep(&ingest->stop_fd);
	free(ingest);
}

void ingest_kick(struct ingest *ingest)
{
	uint64_t one = 1;

	(void)!write(store_job_fd(ingest->store), &one, sizeof(one)); /* EAGAIN: it is ringing already */
}

/* ---------------------------------------------------------------------------------------- looking */

bool ingest_progress(struct ingest *ingest, uint64_t job_id, struct ingest_progress *ret)
{
	bool found = false;

	for (uint32_t i = 0; job_id != 0 && !found && i < ingest->started; i++) {
		struct runner *runner = &ingest->runners[i];
		(void)pthread_mutex_lock(&runner->mutex);
		found = runner->job_id == job_id;
		if (found)
			*ret = runner->progress;
		(void)pthread_mutex_unlock(&runner->mutex);
	}
	return found;
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void ingest_stats(const struct ingest *ingest, struct ingest_stats *ret)
{
	const struct counters *counters = &ingest->counters;

	*ret = (struct ingest_stats){
		.workers = ingest->started,
		.running = atomic_load_explicit(&counters->running, memory_order_relaxed),
		.jobs_done = get(&counters->jobs_done),
		.jobs_failed = get(&counters->jobs_failed),
		.jobs_retried = get(&counters->jobs_retried),
		.tables = get(&counters->tables),
		.table_bytes = get(&counters->table_bytes),
		.files_without_symbols = get(&counters->files_without_symbols),
		.members_skipped = get(&counters->members_skipped),
		.refused = get(&counters->refused),
		.worker_wall_ms = get(&counters->worker_wall_ms),
		.worker_cpu_ms = get(&counters->worker_cpu_ms),
		.worker_peak_rss_bytes = get(&counters->worker_peak_rss_bytes),
	};
	for (size_t i = 0; i < SPAWN_OUTCOMES; i++)
		ret->runs[i] = get(&counters->runs[i]);
}

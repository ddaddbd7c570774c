// SPDX-License-Identifier: Apache-2.0
/*
 * Workers take units from a counter until none are left; the calling thread shows progress and, when all have ended, the
 * result. A result line is printed under the mutex, so that lines and the progress line do not mix.
 */
#include "cli/cli.h"
#include "cli/upload.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { SHOW_INTERVAL_MS = 100 };

struct run {
	const struct upload_plan *plan;
	const struct upload_options *options;
	struct upload_progress progress;
	struct cli_progress line;
	uint64_t began_ms;
	pthread_mutex_t mutex; /* over all below, and the terminal */
	pthread_cond_t ended;
	size_t next_unit;
	size_t first_left; /* of plan->first_units: not ended */
	pthread_cond_t first_ended;
	unsigned running;
	struct upload_summary summary;
	struct err *fatal; /* a worker could not even begin */
};

static void report(struct run *run, const struct upload_file *file, struct err *e, enum upload_outcome outcome)
{
	char file_id[FILEID_HEX_SIZE] = "-";

	if (file->has_file_id)
		fileid_format_hex(&file->file_id, file_id);
	(void)pthread_mutex_lock(&run->mutex);
	cli_progress_clear(&run->line);
	if (e) {
		run->summary.failed++;
		fprintf(stderr, "upload-symbols: %s: %s\n", file->path, err_message(e));
	} else if (outcome == UPLOAD_EXISTS) {
		run->summary.existed++;
		printf("exists  %-10s %s  %s\n", upload_role_name(file->role), file_id, file->path);
	} else {
		run->summary.sent++;
		run->summary.sent_bytes += file->size;
		printf("sent    %-10s %s  %s\n", upload_role_name(file->role), file_id, file->path);
	}
	(void)fflush(stdout);
	(void)pthread_mutex_unlock(&run->mutex);
	run->progress.done_files++;
	err_free(e);
}

/* What others need is sent before they are begun. */
static bool take_unit(struct run *run, struct upload_unit *ret)
{
	(void)pthread_mutex_lock(&run->mutex);
	while (!run->fatal && run->next_unit >= run->plan->first_units && run->first_left > 0)
		(void)pthread_cond_wait(&run->first_ended, &run->mutex);
	bool have = !run->fatal && run->next_unit < run->plan->unit_count;
	if (have)
		*ret = run->plan->units[run->next_unit++];
	(void)pthread_mutex_unlock(&run->mutex);
	return have;
}

static void end_unit(struct run *run, size_t first)
{
	(void)pthread_mutex_lock(&run->mutex);
	if (run->plan->files[first].role == UPLOAD_SUPPLEMENT && --run->first_left == 0)
		(void)pthread_cond_broadcast(&run->first_ended);
	(void)pthread_mutex_unlock(&run->mutex);
}

static void *work(void *context)
{
	struct run *run = context;
	CLEANUP(server_closep) struct server *server = NULL;
	struct upload_unit unit;

	struct err *e = server_open(run->options->url, &server);
	while (!e && take_unit(run, &unit)) {
		for (size_t i = unit.first; i < unit.first + unit.count; i++) {
			enum upload_outcome outcome = UPLOAD_SENT;
			const struct upload_file *file = &run->plan->files[i];
			struct err *failure = upload_transfer(server, run->options, file, &run->progress, &outcome);
			report(run, file, failure, outcome);
		}
		end_unit(run, unit.first);
	}
	(void)pthread_mutex_lock(&run->mutex);
	if (e && !run->fatal)
		run->fatal = TAKE_PTR(e);
	(void)pthread_cond_broadcast(&run->first_ended);
	run->running--;
	(void)pthread_cond_signal(&run->ended);
	(void)pthread_mutex_unlock(&run->mutex);
	err_free(e);
	return NULL;
}

static void show(struct run *run)
{
	uint64_t sent = run->progress.sent_bytes, done = run->progress.done_files;
	uint64_t ms = cli_now_ms() - run->began_ms;
	char sent_text[24], all_text[24], rate_text[24];

	cli_progress_show(&run->line, "%" PRIu64 " of %zu files, %s of %s, %s/s", done, run->plan->file_count,
		cli_format_bytes(sent, sent_text), cli_format_bytes(run->plan->bytes, all_text),
		cli_format_bytes(ms ? sent * 1000 / ms : 0, rate_text));
}

static void wait_for_workers(struct run *run)
{
	(void)pthread_mutex_lock(&run->mutex);
	while (run->running > 0) {
		struct timespec until;
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += SHOW_INTERVAL_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		(void)pthread_cond_timedwait(&run->ended, &run->mutex, &until);
		show(run);
	}
	cli_progress_clear(&run->line);
	(void)pthread_mutex_unlock(&run->mutex);
}

static unsigned worker_count(const struct run *run)
{
	unsigned count = run->options->jobs < UPLOAD_JOBS_MAX ? run->options->jobs : UPLOAD_JOBS_MAX;

	return count < run->plan->unit_count ? count : (unsigned)run->plan->unit_count;
}

struct err *upload_run(const struct upload_plan *plan, const struct upload_options *options, struct upload_summary *ret)
{
	struct run run = {.plan = plan, .options = options, .began_ms = cli_now_ms(), .mutex = PTHREAD_MUTEX_INITIALIZER,
		.ended = PTHREAD_COND_INITIALIZER, .first_ended = PTHREAD_COND_INITIALIZER, .first_left = plan->first_units};
	pthread_t threads[UPLOAD_JOBS_MAX];
	unsigned count = worker_count(&run), started = 0;
	int failed = 0;

	cli_progress_init(&run.line);
	(void)pthread_mutex_lock(&run.mutex);
	for (; started < count && failed == 0; started += failed == 0)
		failed = pthread_create(&threads[started], NULL, work, &run);
	run.running = started;
	/* Fewer workers do the same work; none do not. */
	if (started == 0 && failed)
		run.fatal = err_os(failed, "start a thread");
	(void)pthread_mutex_unlock(&run.mutex);
	wait_for_workers(&run);
	for (unsigned i = 0; i < started; i++)
		(void)pthread_join(threads[i], NULL);
	*ret = run.summary;
	return run.fatal;
}

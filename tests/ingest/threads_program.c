// SPDX-License-Identifier: Apache-2.0
/*
 * The job runner's threads without Criterion, so that it also runs under ThreadSanitizer: jobs are submitted, watched and stopped
 * from several threads at once; all that were not cut off by the stop must be done.
 */
#include "ingest/ingest.h"

#include "store/blob.h"
#include "store/job.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUBMITTERS = 3, JOBS_EACH = 8 };

static struct store *store;
static struct ingest *ingest;
static _Atomic bool over;

static void must(struct err *e)
{
	if (!e)
		return;
	(void)fprintf(stderr, "%s\n", err_message(e));
	exit(1);
}

static void *submitter(void *argument)
{
	for (int i = 0; i < JOBS_EACH; i++) {
		struct store_job job = {.tenant = STORE_TENANT_DEFAULT, .kind = STORE_JOB_ELF, .source = STORE_SOURCE_UPLOAD, .input_count = 1};
		char script[32];
		uint64_t id;
		int fd = memfd_create("blob", MFD_CLOEXEC);
		int len = snprintf(script, sizeof(script), "progress %d %d", *(int *)argument, i);
		if (fd < 0 || write(fd, script, (size_t)len) != len)
			exit(1);
		job.inputs[0].role = STORE_ROLE_RUNTIME;
		must(store_blob_put(store, fd, "blob", &job.inputs[0].blob));
		(void)close(fd);
		must(store_job_submit(store, &job, &id));
		ingest_kick(ingest);
	}
	return NULL;
}

static void *watcher(void *argument)
{
	while (!over) {
		struct ingest_stats stats;
		struct ingest_progress progress;
		ingest_stats(ingest, &stats);
		for (uint64_t id = 1; id <= SUBMITTERS * JOBS_EACH; id++)
			(void)ingest_progress(ingest, id, &progress);
		(void)usleep(1000);
	}
	return argument;
}

static uint64_t done_count(void)
{
	struct ingest_stats stats;

	ingest_stats(ingest, &stats);
	return stats.jobs_done;
}

static size_t count_state(enum store_job_state state)
{
	struct store_read *read;
	static struct store_job jobs[SUBMITTERS * JOBS_EACH + 1];
	size_t count;

	must(store_read_begin(store, &read));
	must(store_jobs(read, state, 0, jobs, ARRAY_SIZE(jobs), &count));
	store_read_end(read);
	return count;
}

int main(void)
{
	char folder[] = "/tmp/cairn-ingest-threads-XXXXXX", command[64];
	pthread_t threads[SUBMITTERS + 1];
	int numbers[SUBMITTERS];

	if (!mkdtemp(folder))
		return 1;
	struct store_options store_options = {.data_dir = folder, .map_max = UINT64_C(1) << 30};
	struct ingest_options options = {.worker = FAKE_WORKER, .scratch_dir = "/tmp", .workers = 4};
	must(store_open(&store_options, &store));
	must(ingest_start(store, &options, &ingest));
	for (int i = 0; i < SUBMITTERS; i++) {
		numbers[i] = i;
		if (pthread_create(&threads[i], NULL, submitter, &numbers[i]))
			return 1;
	}
	if (pthread_create(&threads[SUBMITTERS], NULL, watcher, NULL))
		return 1;
	while (done_count() < SUBMITTERS * JOBS_EACH / 2)
		(void)usleep(1000);
	for (int i = 0; i < SUBMITTERS; i++)
		(void)pthread_join(threads[i], NULL);
	over = true;
	(void)pthread_join(threads[SUBMITTERS], NULL);
	ingest_stop(ingest); /* some still run: they must be queued again */
	size_t done = count_state(STORE_JOB_DONE), queued = count_state(STORE_JOB_QUEUED);
	must(ingest_start(store, &options, &ingest));
	while (count_state(STORE_JOB_DONE) < SUBMITTERS * JOBS_EACH)
		(void)usleep(10000);
	ingest_stop(ingest);
	store_close(store);
	(void)snprintf(command, sizeof(command), "rm -rf %s", folder);
	(void)!system(command);
	(void)printf("at the stop: %zu done, %zu queued; in the end all\n", done, queued);
	return done + queued == SUBMITTERS * JOBS_EACH ? 0 : 1;
}

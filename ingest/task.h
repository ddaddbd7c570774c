// SPDX-License-Identifier: Apache-2.0
/*
 * One job from claim to end. Internal to this folder.
 */
#ifndef CAIRN_INGEST_TASK_H
#define CAIRN_INGEST_TASK_H

#include "ingest/ingest.h"

/* What a task needs of its runner. Callbacks run on the task's thread. */
struct task_env {
	struct store *store;
	const struct ingest_options *options; /* resolved: no zeros */
	int scratch_fd;
	int stop_fd;
	void *context;
	void (*progress)(void *context, const struct protocol_progress *progress, uint32_t round);
	void (*committed)(void *context, uint64_t table_bytes); /* 0: a file without symbols */
	void (*skipped)(void *context);
	void (*refused)(void *context);
	void (*ran)(void *context, const struct spawn_report *report);
};

struct task_end {
	enum ingest_verdict verdict;
	uint32_t results;
	char reason[STORE_REASON_SIZE];
};

/**
 * Runs @p job, which was claimed, to its end and tells the store, save when it was stopped: then the job was released.
 * @return NULL, also for failed jobs (ret says); an error only when the store did not take the end.
 */
struct err *task_run(const struct task_env *env, const struct store_job *job, struct task_end *ret) MUST_USE;

#endif

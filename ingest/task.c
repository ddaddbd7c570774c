// SPDX-License-Identifier: Apache-2.0
/*
 * One job. Its inputs are opened (each an unlinked temporary file that the store decompresses), the worker runs on them, and
 * what it gives is checked and committed:
 *
 *   one file     the result is held until the worker has said that it is done, then record, aliases, table and the job's
 *                end are one transaction: a job is done exactly when its table is there
 *   a package    each result is a transaction of its own as it comes, so that one table at a time is in memory; the job's
 *                end is the last. After a crash in between the job runs again, and commits of the same are no changes.
 *
 * Rounds. A job that brings one half of a pair (a runtime or a debug file) gets the other half, when the store kept one
 * with the same announced build ID. Announced is not proven: if the two do not belong together the worker says so, and the
 * file is built alone. So with the split DWARF that was uploaded for a build ID; a job that brings it builds the table of its program again. A worker that needs another file (`needs`) is started again with it.
 *
 * What another try may change (the machine: ERR_OS, ERR_BUSY, ERR_NOMEM of ours, a SIGKILL that was not ours) queues the job
 * again, up to the store's job_attempts_max. What the input decides (the worker's own word, a crash, a hang, the ceiling, a
 * forbidden call, nonsense) fails it at once: the same bytes would do the same again.
 */
#include "ingest/task.h"

#include "base/buf.h"
#include "ingest/check.h"
#include "store/blob.h"
#include "store/job.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_WAIT_MS = 500, RETRY_WAIT_MAX_MS = 15000 };

struct task {
	const struct task_env *env;
	struct store_job job;
	struct spawn_input inputs[PROTOCOL_INPUTS_MAX];
	size_t input_count;
	size_t paired; /* number of the other half, which we looked up by build ID, + 1; 0: none */
	size_t split;  /* the same of split DWARF */
	bool is_kept;  /* the file waits for those that need it: there is nothing to build */
	struct check_expected expected;
	bool held; /* one file: its result waits for the worker's end */
	struct protocol_result result;
	struct buf table;
	char runtime_name[STORE_NAME_SIZE]; /* of the runtime file that we looked up; "": none */
	uint32_t results; /* committed */
	uint32_t skipped;
	uint32_t round;
	char first_skipped[STORE_REASON_SIZE];
	bool alone; /* the worker is to do without what it would ask for */
	char lacking[STORE_REASON_SIZE]; /* a supplement that was not to be had; "": none */
	char misfit[STORE_REASON_SIZE]; /* why the half that we looked up was left out; "": it was not */
};

static void task_deinit(struct task *task)
{
	for (size_t i = 0; i < task->input_count; i++)
		(void)close(task->inputs[i].fd);
	buf_deinit(&task->table);
}

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---------------------------------------------------------------------------------------- inputs */

static enum spawn_input_kind kind_of(enum store_role role)
{
	switch (role) {
	case STORE_ROLE_RUNTIME:
		return SPAWN_BINARY;
	case STORE_ROLE_DEBUG:
		return SPAWN_DEBUG;
	case STORE_ROLE_PACKAGE:
		return SPAWN_PACKAGE;
	case STORE_ROLE_SPLIT:
		return SPAWN_SPLIT;
	case STORE_ROLE_SUPPLEMENT:
		break;
	}
	return SPAWN_SUPPLEMENT;
}

static bool has_input(const struct task *task, enum spawn_input_kind kind)
{
	for (size_t i = 0; i < task->input_count; i++)
		if (task->inputs[i].kind == kind)
			return true;
	return false;
}

static struct err *add_input(struct task *task, enum store_role role, const struct sha256 *blob)
{
	int fd;

	if (task->input_count == PROTOCOL_INPUTS_MAX)
		return err_new(ERR_LIMIT, "more than %d input files", PROTOCOL_INPUTS_MAX);
	if (has_input(task, kind_of(role)))
		return err_new(ERR_INVALID, "two input files of the kind %s", store_role_name(role));
	TRY(store_blob_open(task->env->store, blob, &fd));
	task->inputs[task->input_count++] = (struct spawn_input){kind_of(role), fd};
	return NULL;
}

/* A kept original by build ID and role, and its name; false when the store has none. */
static struct err *find_blob(struct task *task, const struct build_id *id, enum store_role role, struct store_blob *ret, bool *found_ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct sha256 blob;

	TRY(store_read_begin(task->env->store, &read));
	TRY(store_blob_find(read, task->job.tenant, id, role, &blob, found_ret));
	return *found_ret ? store_blob_get(read, &blob, ret, found_ret) : NULL;
}

static struct err *add_other_half(struct task *task)
{
	bool runtime = has_input(task, SPAWN_BINARY), debug = has_input(task, SPAWN_DEBUG), found;
	enum store_role role = runtime ? STORE_ROLE_DEBUG : STORE_ROLE_RUNTIME;
	struct store_blob blob;

	if (runtime == debug || task->job.build_id.len == 0 || task->input_count == PROTOCOL_INPUTS_MAX)
		return NULL;
	TRY(find_blob(task, &task->job.build_id, role, &blob, &found));
	if (!found)
		return NULL;
	TRY(add_input(task, role, &blob.sha256));
	task->paired = task->input_count;
	if (role == STORE_ROLE_RUNTIME)
		memcpy(task->runtime_name, blob.name, sizeof(task->runtime_name));
	return NULL;
}

static struct err *add_split(struct task *task)
{
	struct store_blob blob;
	bool found;

	if (has_input(task, SPAWN_SPLIT) || task->job.build_id.len == 0 || task->input_count == PROTOCOL_INPUTS_MAX)
		return NULL;
	TRY(find_blob(task, &task->job.build_id, STORE_ROLE_SPLIT, &blob, &found));
	if (!found)
		return NULL;
	TRY(add_input(task, STORE_ROLE_SPLIT, &blob.sha256));
	task->split = task->input_count;
	return NULL;
}

/* For a job that brings no program: the table of the program that its split DWARF belongs to is built again with it. */
static struct err *add_program(struct task *task)
{
	static const enum store_role roles[] = {STORE_ROLE_RUNTIME, STORE_ROLE_DEBUG};
	struct store_blob blob;
	bool found;

	for (size_t i = 0; has_input(task, SPAWN_SPLIT) && task->job.build_id.len > 0 && i < ARRAY_SIZE(roles); i++) {
		TRY(find_blob(task, &task->job.build_id, roles[i], &blob, &found));
		if (!found)
			continue;
		TRY(add_input(task, roles[i], &blob.sha256));
		if (roles[i] == STORE_ROLE_RUNTIME)
			memcpy(task->runtime_name, blob.name, sizeof(task->runtime_name));
	}
	task->is_kept = !has_input(task, SPAWN_BINARY) && !has_input(task, SPAWN_DEBUG);
	return NULL;
}

/* Without what we looked up and did not fit. */
static void drop_input(struct task *task, size_t *number)
{
	size_t index = *number - 1, last = --task->input_count;

	(void)close(task->inputs[index].fd);
	task->inputs[index] = task->inputs[last];
	*number = 0;
	if (task->paired == last + 1)
		task->paired = index + 1;
	if (task->split == last + 1)
		task->split = index + 1;
}

/* The file whose identity the result carries: computed here, not believed. */
static struct err *expect(struct task *task)
{
	const struct spawn_input *main_input = NULL;
	struct stat status;

	task->expected = (struct check_expected){.build_id = task->job.build_id};
	for (size_t i = 0; i < task->input_count; i++)
		if (task->inputs[i].kind == SPAWN_BINARY || (task->inputs[i].kind == SPAWN_DEBUG && !main_input))
			main_input = &task->inputs[i];
	if (!main_input)
		return NULL;
	if (fstat(main_input->fd, &status))
		return err_os(errno, "stat an input");
	TRY(fileid_from_fd(main_input->fd, &task->expected.fileid));
	task->expected.size_bytes = (uint64_t)status.st_size;
	task->expected.has_file = true;
	return NULL;
}

/* The list of what is wanted of a package, in a file without a name. */
static struct err *add_wanted(struct task *task)
{
	CLEANUP(buf_deinit) struct buf text = {0};
	char hex[BUILD_ID_HEX_SIZE];

	for (size_t i = 0; i < task->job.wanted_count; i++) {
		build_id_format(&task->job.wanted[i], hex);
		TRY(buf_printf(&text, "%s\n", hex));
	}
	if (text.len == 0)
		return NULL;
	CLEANUP(closep) int fd = memfd_create("wanted", MFD_CLOEXEC);
	if (fd < 0 || write(fd, text.data, text.len) != (ssize_t)text.len)
		return err_os(errno, "the list of wanted files");
	task->inputs[task->input_count++] = (struct spawn_input){SPAWN_WANTED, take_fd(&fd)};
	return NULL;
}

static struct err *open_inputs(struct task *task)
{
	const struct store_job *job = &task->job;

	for (size_t i = 0; i < job->input_count; i++)
		TRY(add_input(task, job->inputs[i].role, &job->inputs[i].blob));
	if (job->kind == STORE_JOB_PACKAGE)
		return task->input_count == 1 && has_input(task, SPAWN_PACKAGE)
			       ? add_wanted(task)
			       : err_new(ERR_INVALID, "a package's job needs one package and nothing else");
	if (has_input(task, SPAWN_PACKAGE) || task->input_count == 0)
		return err_new(ERR_INVALID, "a file's job needs a runtime or a debug file");
	if (!has_input(task, SPAWN_BINARY) && !has_input(task, SPAWN_DEBUG))
		return add_program(task);
	TRY(add_other_half(task));
	return add_split(task);
}

/* ---------------------------------------------------------------------------------------- results */

/* The end of a path says more than its beginning. */
static void copy_tail(char *to, size_t size, const char *from)
{
	size_t len = strlen(from), keep = len < size ? len : size - 1;

	memcpy(to, from + (len - keep), keep);
	to[keep] = 0;
}

/* A runtime file is known by its own name, also where a debug file's job brings its symbols. */
static const char *file_name(const struct task *task, const struct protocol_result *result)
{
	if (result->name[0])
		return result->name;
	return task->runtime_name[0] ? task->runtime_name : task->job.name;
}

static void fill_file(const struct task *task, const struct protocol_result *result, struct store_commit *commit)
{
	commit->has_file = !result->debug_only;
	commit->file.file_id = result->fileid;
	commit->file.size = result->size_bytes;
	commit->file.has_text = result->has_text;
	commit->file.text_vaddr = result->text_vaddr;
	commit->file.build_id = result->build_id;
	commit->file.segments = result->segments;
	commit->file.elf_machine = result->elf_machine;
	commit->file.first_seen_ms = wall_ms();
	copy_tail(commit->file.name, sizeof(commit->file.name), file_name(task, result));
	/* Profilers give a kernel's file ID without having seen its file. So it is known also where the file is not. */
	if (!result->kernel || result->build_id.len == 0)
		return;
	commit->has_kernel_id = true;
	commit->kernel_id = fileid_from_kernel_build_id(result->build_id.bytes, result->build_id.len);
}

static void fill_entry(const struct task *task, const struct protocol_result *result, struct store_entry *entry)
{
	const struct store_job *job = &task->job;
	const char *provenance = job->provenance[0] ? job->provenance : job->name;
	char text[2 * PROTOCOL_NAME_MAX];

	entry->source = job->source;
	entry->rank = job->rank ? job->rank : store_source_rank(job->source);
	entry->kind = result->sources;
	entry->builder_version = result->builder_version;
	entry->created_ms = wall_ms();
	(void)snprintf(text, sizeof(text), "%s%s%s", provenance, result->name[0] ? ": " : "", result->name);
	copy_tail(entry->provenance, sizeof(entry->provenance), text);
}

/* @p done: what the job, which is over with this, has to say ("": nothing); NULL: it goes on. */
static struct err *commit(struct task *task, const struct protocol_result *result, const struct buf *table, const char *done)
{
	struct store_commit commit = {
		.tenant = task->job.tenant,
		.build_id = result->build_id,
		.table = table->len > 0 ? table->data : NULL,
		.table_len = table->len,
		.job_id = task->job.id,
		.job_done = done != NULL,
		.job_reason = done,
	};

	fill_file(task, result, &commit);
	fill_entry(task, result, &commit.entry);
	TRY(store_commit_table(task->env->store, &commit, NULL));
	task->results++;
	task->env->committed(task->env->context, table->len);
	return NULL;
}

/* A debug file without a build ID, or without symbols: nothing that anybody could ask for. */
static bool is_useless(const struct protocol_result *result)
{
	return result->debug_only && (result->build_id.len == 0 || result->table_bytes == 0);
}

static void note_skipped(void *context, const char *text)
{
	struct task *task = context;

	if (task->skipped++ == 0)
		(void)snprintf(task->first_skipped, sizeof(task->first_skipped), "%.400s", text);
	task->env->skipped(task->env->context);
}

static struct err *take_result(struct task *task, const struct protocol_result *result, struct buf *table)
{
	if (task->job.kind == STORE_JOB_PACKAGE) {
		TRY(check_result(result, table, NULL));
		if (!is_useless(result))
			return commit(task, result, table, NULL);
		char text[2 * PROTOCOL_NAME_MAX];
		(void)snprintf(text, sizeof(text), "%s: a debug file without a build ID or symbols", result->name);
		note_skipped(task, text);
		return NULL;
	}
	if (task->held)
		return err_new(ERR_PEER, "worker gave two results for one file");
	TRY(check_result(result, table, &task->expected));
	task->held = true;
	task->result = *result;
	task->table = *table;
	*table = (struct buf){0};
	return NULL;
}

static struct err *on_result(void *context, const struct protocol_result *result, struct buf *table)
{
	struct task *task = context;
	struct err *e = take_result(task, result, table);

	if (e && (err_code(e) == ERR_PEER || err_code(e) == ERR_CORRUPT || err_code(e) == ERR_MISMATCH))
		task->env->refused(task->env->context);
	return e;
}

static void on_progress(void *context, const struct protocol_progress *progress)
{
	struct task *task = context;
	char words[STORE_JOB_PHASE_SIZE];

	task->env->progress(task->env->context, progress, task->round);
	if (progress->total > 0 && progress->done <= progress->total)
		(void)snprintf(words, sizeof(words), "%s, %u %%", protocol_phase_name(progress->phase),
			(unsigned)((double)progress->done / (double)progress->total * 100));
	else
		(void)snprintf(words, sizeof(words), "%s", protocol_phase_name(progress->phase));
	store_job_progress(task->env->store, task->job.id, words);
}

/* ---------------------------------------------------------------------------------------- running */

static struct err *run_worker(struct task *task, struct spawn_report *report)
{
	const struct ingest_options *options = task->env->options;
	struct protocol_handler handler = {task, on_progress, note_skipped, on_result};
	struct spawn_request request = {
		.program = options->worker,
		.inputs = task->inputs,
		.input_count = task->input_count,
		.scratch_fd = task->job.kind == STORE_JOB_PACKAGE ? task->env->scratch_fd : -1,
		.limits =
			{
				.memory_bytes = options->worker_memory_bytes,
				.max_table_bytes = options->max_table_bytes,
				.max_unpacked_bytes = options->max_unpacked_bytes,
				.deadline_ms = options->deadline_ms,
				.threads = options->worker_threads,
			},
		.alone = task->alone,
		.stop_fd = task->env->stop_fd,
		.handler = &handler,
	};

	task->round++;
	TRY(expect(task));
	buf_deinit(&task->table);
	task->held = false;
	if (task->job.kind != STORE_JOB_PACKAGE)
		task->skipped = 0; /* what counts is the run that gave the result */
	TRY(spawn_run(&request, report));
	task->env->ran(task->env->context, report);
	return NULL;
}

/* Asks those who can bring files from elsewhere. */
static struct err *ask_for(struct task *task, const struct protocol_needs *needs, char *reason, size_t size, bool *found_ret)
{
	const struct ingest_options *options = task->env->options;
	struct ingest_brought brought = {.fd = -1};
	bool package = task->job.kind == STORE_JOB_PACKAGE;

	*found_ret = false;
	if (!options->need || task->input_count == PROTOCOL_INPUTS_MAX)
		return NULL;
	TRY(options->need(options->need_context, &task->job, needs, &brought));
	if (brought.fd >= 0 && brought.is_package && !package) {
		closep(&brought.fd);
		(void)snprintf(brought.reason, sizeof(brought.reason), "it is in a package, and this is none");
	}
	if (brought.fd >= 0) {
		task->inputs[task->input_count++] = (struct spawn_input){brought.is_package ? SPAWN_SIBLING : SPAWN_SUPPLEMENT, brought.fd};
		*found_ret = true;
	}
	(void)snprintf(reason, size, "%.*s", (int)size - 1, brought.reason);
	return NULL;
}

/* Looks for what the worker needs; the reason when it is not there. */
static struct err *add_needed(struct task *task, const struct protocol_needs *needs, char *reason, size_t size, bool *found_ret)
{
	static const enum store_role roles[] = {STORE_ROLE_SUPPLEMENT, STORE_ROLE_DEBUG, STORE_ROLE_RUNTIME};
	char hex[BUILD_ID_HEX_SIZE], brought[200] = "";
	struct store_blob blob;

	*found_ret = false;
	for (size_t i = 0; needs->build_id.len > 0 && !*found_ret && i < ARRAY_SIZE(roles); i++)
		TRY(find_blob(task, &needs->build_id, roles[i], &blob, found_ret));
	if (*found_ret && !has_input(task, SPAWN_SUPPLEMENT))
		return add_input(task, STORE_ROLE_SUPPLEMENT, &blob.sha256);
	if (!*found_ret && !has_input(task, SPAWN_SUPPLEMENT) && !has_input(task, SPAWN_SIBLING) && needs->build_id.len > 0) {
		TRY(ask_for(task, needs, brought, sizeof(brought), found_ret));
		if (*found_ret)
			return NULL;
	}
	build_id_format(&needs->build_id, hex);
	(void)snprintf(reason, size, "it needs %.100s (build ID %s), which %s%s%.180s%s", needs->name[0] ? needs->name : "another file",
		hex[0] ? hex : "unknown", *found_ret ? "it was given already" : "is not here", *found_ret ? "" : brought[0] ? ": " : "", brought,
		*found_ret || brought[0] ? "" : ": upload it, then this file again");
	*found_ret = false;
	return NULL;
}

/* Starts workers until one has ended in a way that another start does not change. */
static struct err *run_rounds(struct task *task, struct spawn_report *report)
{
	for (;;) {
		bool again = false;

		TRY(run_worker(task, report));
		if (task->round == INGEST_ROUNDS_MAX)
			return NULL;
		if (report->outcome == SPAWN_NEEDS) {
			char reason[STORE_REASON_SIZE];
			TRY(add_needed(task, &report->needs, reason, sizeof(reason), &again));
			if (!again)
				(void)snprintf(report->reason, sizeof(report->reason), "%s", reason);
			if (!again && task->job.kind == STORE_JOB_PACKAGE) { /* the other files of the package need not suffer */
				memcpy(task->lacking, reason, sizeof(reason));
				again = task->alone = true;
			}
		} else if ((task->paired > 0 || task->split > 0) && (report->outcome == SPAWN_FAILED || report->outcome == SPAWN_REFUSED)) {
			(void)snprintf(task->misfit, sizeof(task->misfit), "%.400s", report->reason);
			/* What was announced for this build ID may be the culprit. */
			if (task->split == 0)
				task->runtime_name[0] = 0;
			drop_input(task, task->split > 0 ? &task->split : &task->paired);
			again = true;
		}
		if (!again)
			return NULL;
	}
}

/* ---------------------------------------------------------------------------------------- the end */

static bool machine_at_fault(enum err_code code)
{
	return code == ERR_OS || code == ERR_BUSY || code == ERR_NOMEM;
}

/* An outcome that the machine and not the input may have caused. */
static bool worth_another_try(const struct spawn_report *report)
{
	return report->outcome == SPAWN_CRASHED && strstr(report->reason, "SIGKILL");
}

static struct err *finish_package(struct task *task, struct task_end *ret)
{
	if (task->results == 0 && task->job.wanted_count > 0 && task->skipped == 0)
		return err_new(ERR_MISMATCH, "the package has none of the files that its index promises");
	if (task->lacking[0])
		(void)snprintf(ret->reason, sizeof(ret->reason), "names are missing: %.490s", task->lacking);
	else if (task->skipped > 0)
		(void)snprintf(ret->reason, sizeof(ret->reason), "%" PRIu32 " files were skipped or damaged, the first: %.400s", task->skipped,
			task->first_skipped);
	else if (task->results == 0)
		(void)snprintf(ret->reason, sizeof(ret->reason), "the package has no ELF file with code");
	return store_job_finish(task->env->store, task->job.id, ret->reason[0] ? ret->reason : NULL);
}

/* Record, aliases, table and the job's end at once. */
static struct err *finish_file(struct task *task, struct task_end *ret)
{
	const struct protocol_result *result = &task->result;
	bool has_table = result->table_bytes > 0;

	if (!task->held)
		return err_new(ERR_PEER, "worker was done without a result");
	if (is_useless(result))
		return err_new(ERR_INVALID, "%s",
			result->table_bytes == 0 ? "a debug file without symbols"
						 : "a debug file without a build ID belongs to no binary: upload it together with its binary");
	if (task->misfit[0])
		(void)snprintf(ret->reason, sizeof(ret->reason), "without the other half of the pair, which does not fit: %.400s", task->misfit);
	else if (task->skipped > 0)
		(void)snprintf(ret->reason, sizeof(ret->reason), "%s", task->first_skipped);
	else if (!has_table)
		(void)snprintf(ret->reason, sizeof(ret->reason), "the file has no symbols");
	TRY(store_job_identify(task->env->store, task->job.id, result->debug_only ? NULL : &result->fileid, &result->build_id));
	if (has_table)
		return commit(task, result, &task->table, ret->reason);
	TRY(commit(task, result, &task->table, NULL));
	return store_job_finish(task->env->store, task->job.id, ret->reason);
}

/* Everything but telling the store that it failed. */
static struct err *run(struct task *task, struct spawn_report *report, struct task_end *ret)
{
	TRY(open_inputs(task));
	if (task->is_kept) {
		ret->verdict = INGEST_DONE;
		(void)snprintf(ret->reason, sizeof(ret->reason), "kept for the files that need it");
		return store_job_finish(task->env->store, task->job.id, ret->reason);
	}
	TRY(run_rounds(task, report));
	if (report->outcome != SPAWN_DONE) {
		ret->verdict = report->outcome == SPAWN_STOPPED ? INGEST_STOPPED : worth_another_try(report) ? INGEST_RETRY : INGEST_FAILED;
		(void)snprintf(ret->reason, sizeof(ret->reason), "%.500s", report->reason);
		return NULL;
	}
	ret->verdict = INGEST_DONE;
	return task->job.kind == STORE_JOB_PACKAGE ? finish_package(task, ret) : finish_file(task, ret);
}

/* Longer with every attempt; cut short by a stop. */
static void wait_before_retry(const struct task *task)
{
	struct pollfd stop = {.fd = task->env->stop_fd, .events = POLLIN};
	unsigned attempts = task->job.attempts < 5 ? task->job.attempts : 5;
	int wait = RETRY_WAIT_MS << attempts;

	(void)poll(&stop, 1, wait < RETRY_WAIT_MAX_MS ? wait : RETRY_WAIT_MAX_MS);
}

struct err *task_run(const struct task_env *env, const struct store_job *job, struct task_end *ret)
{
	CLEANUP(task_deinit) struct task task = {.env = env, .job = *job};
	struct spawn_report report = {0};

	*ret = (struct task_end){.verdict = INGEST_FAILED};
	CLEANUP(err_freep) struct err *e = run(&task, &report, ret);
	if (e) {
		ret->verdict = machine_at_fault(err_code(e)) ? INGEST_RETRY : INGEST_FAILED;
		(void)snprintf(ret->reason, sizeof(ret->reason), "%.500s", err_message(e));
	}
	ret->results = task.results;
	if (ret->verdict == INGEST_DONE)
		return NULL;
	if (ret->verdict == INGEST_STOPPED)
		return store_job_release(env->store, job->id);
	if (ret->verdict == INGEST_RETRY)
		wait_before_retry(&task);
	return store_job_fail(env->store, job->id, ret->reason, ret->verdict == INGEST_RETRY);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The queue of jobs. Every state change moves the job's key in DB_JOBS_STATE, so that a claim is one seek and the order
 * within a state is the order of submission. A job's originals are held by DB_BLOB_USES while it is queued or running.
 */
#include "store/internal.h"

#include <errno.h>
#include <sys/eventfd.h>

/* Phases of running jobs, in memory. As many as there are workers: a list will do. */
struct progress {
	uint64_t id;
	char phase[STORE_JOB_PHASE_SIZE];
	struct progress *next;
};

enum { PROGRESS_MAX = 1024 };

void store_job_progress(struct store *store, uint64_t id, const char *phase)
{
	size_t count = 0;

	(void)pthread_mutex_lock(&store->progress_mutex);
	struct progress *p = store->progress;
	for (; p && p->id != id; p = p->next)
		count++;
	if (!p && count < PROGRESS_MAX && (p = calloc(1, sizeof(*p)))) {
		p->id = id;
		p->next = store->progress;
		store->progress = p;
	}
	if (p)
		text_copy(p->phase, sizeof(p->phase), phase);
	(void)pthread_mutex_unlock(&store->progress_mutex);
}

void jobs_forget_progress(struct store *store, uint64_t id)
{
	(void)pthread_mutex_lock(&store->progress_mutex);
	for (struct progress **at = &store->progress; *at; at = &(*at)->next) {
		if ((*at)->id != id)
			continue;
		struct progress *gone = *at;
		*at = gone->next;
		free(gone);
		break;
	}
	(void)pthread_mutex_unlock(&store->progress_mutex);
}

static void add_progress(struct store *store, struct store_job *job)
{
	(void)pthread_mutex_lock(&store->progress_mutex);
	for (const struct progress *p = store->progress; p; p = p->next)
		if (p->id == job->id && job->state == STORE_JOB_RUNNING)
			memcpy(job->phase, p->phase, sizeof(job->phase));
	(void)pthread_mutex_unlock(&store->progress_mutex);
}

void jobs_deinit(struct store *store)
{
	while (store->progress)
		jobs_forget_progress(store, store->progress->id);
}

void jobs_wake(struct store *store)
{
	uint64_t one = 1;

	/* EAGAIN only when 2^64 - 2 wake-ups are pending. */
	while (write(store->job_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

int store_job_fd(struct store *store)
{
	return store->job_fd;
}

/* -------------------------------------------------------------------------------------- records */

static struct key state_key(enum store_job_state state, uint64_t id)
{
	struct key key = {0};

	key_put_uint(&key, state, 1);
	key_put_uint(&key, id, 8);
	return key;
}

static struct err *job_get(struct txn *txn, uint64_t id, struct store_job *ret, bool *found_ret)
{
	struct key key = key_of_u64(id);
	MDB_val k = {.mv_size = key.len, .mv_data = key.bytes}, value;

	TRY(txn_get(txn, DB_JOBS, key.bytes, key.len, &value, found_ret));
	return *found_ret ? job_decode(&k, &value, ret) : NULL;
}

static struct err *job_put(struct txn *txn, const struct store_job *job)
{
	uint8_t bytes[JOB_RECORD_MAX];
	struct key key = key_of_u64(job->id);
	size_t len = job_encode(job, bytes);

	if (len == 0)
		return err_new(ERR_LIMIT, "job record is too large");
	return txn_put(txn, DB_JOBS, key.bytes, key.len, bytes, len);
}

static struct err *about_each(struct txn *txn, const struct store_job *job, bool put)
{
	struct key keys[2 + STORE_JOB_WANTED_MAX];
	size_t count = 0;

	if (job->build_id.len > 0)
		keys[count++] = key_of_id(job->tenant, &job->build_id, NULL);
	for (size_t i = 0; i < job->wanted_count; i++)
		keys[count++] = key_of_id(job->tenant, &job->wanted[i], NULL);
	if (job->has_file_id)
		keys[count++] = key_of_id(job->tenant, NULL, &job->file_id);
	for (size_t i = 0; i < count; i++) {
		key_put_uint(&keys[i], job->id, 8);
		if (put)
			TRY(txn_put(txn, DB_JOBS_ABOUT, keys[i].bytes, keys[i].len, "", 0));
		else
			TRY(txn_delete(txn, DB_JOBS_ABOUT, keys[i].bytes, keys[i].len));
	}
	return NULL;
}

static struct err *uses_each(struct txn *txn, const struct store_job *job, bool put)
{
	for (size_t i = 0; i < job->input_count; i++) {
		struct key key = {0};
		key_put(&key, job->inputs[i].blob.bytes, SHA256_BYTES);
		key_put_uint(&key, job->id, 8);
		if (put)
			TRY(txn_put(txn, DB_BLOB_USES, key.bytes, key.len, "", 0));
		else
			TRY(txn_delete(txn, DB_BLOB_USES, key.bytes, key.len));
	}
	return NULL;
}

static bool is_over(enum store_job_state state)
{
	return state == STORE_JOB_DONE || state == STORE_JOB_FAILED;
}

/* Moves a job to a state, and stores it. */
static struct err *job_move(struct txn *txn, struct store_job *job, enum store_job_state state)
{
	struct key old = state_key(job->state, job->id), new = state_key(state, job->id);

	TRY(txn_delete(txn, DB_JOBS_STATE, old.bytes, old.len));
	TRY(txn_put(txn, DB_JOBS_STATE, new.bytes, new.len, "", 0));
	job->state = state;
	if (is_over(state)) {
		job->finished_ms = store_now_ms();
		TRY(uses_each(txn, job, false));
	}
	return job_put(txn, job);
}

static struct err *job_forget(struct txn *txn, uint64_t id)
{
	struct store_job job;
	struct key key = key_of_u64(id);
	bool found;

	TRY(job_get(txn, id, &job, &found));
	if (!found)
		return NULL;
	struct key state = state_key(job.state, id);
	TRY(about_each(txn, &job, false));
	TRY(txn_delete(txn, DB_JOBS_STATE, state.bytes, state.len));
	return txn_delete(txn, DB_JOBS, key.bytes, key.len);
}

/* Forgets the oldest job that is over, when more than jobs_kept are remembered. */
static struct err *forget_oldest(struct txn *txn)
{
	uint64_t count, oldest = UINT64_MAX;

	TRY(txn_count(txn, DB_JOBS, &count));
	if (count <= txn->store->options.jobs_kept)
		return NULL;
	for (uint8_t state = STORE_JOB_FAILED; state <= STORE_JOB_DONE; state++) {
		CLEANUP(scan_end) struct scan scan = {0};
		bool found;
		TRY(scan_begin(txn, DB_JOBS_STATE, &state, 1, &scan));
		TRY(scan_next(&scan, &found));
		if (found && scan.key.mv_size == 9 && key_get_uint((const uint8_t *)scan.key.mv_data + 1, 8) < oldest)
			oldest = key_get_uint((const uint8_t *)scan.key.mv_data + 1, 8);
	}
	return oldest == UINT64_MAX ? NULL : job_forget(txn, oldest);
}

static struct err *next_id(struct txn *txn, uint64_t *ret)
{
	uint8_t bytes[8];
	struct encoder e = {.bytes = bytes, .cap = sizeof(bytes)};
	MDB_val value;
	bool found;

	*ret = 1;
	TRY(txn_get(txn, DB_META, "job", 3, &value, &found));
	if (found) {
		struct reader r = reader_init(value.mv_data, value.mv_size, false, "job");
		*ret = reader_u64(&r) + 1;
		TRY(decode_end(&r, DB_META, "job", 3));
	}
	encode_uint(&e, *ret, 8);
	return txn_put(txn, DB_META, "job", 3, bytes, sizeof(bytes));
}

struct err *jobs_insert(struct txn *txn, const struct store_job *given, uint64_t *id_ret)
{
	struct store_job job = *given;

	if (job.input_count > STORE_JOB_INPUTS_MAX || job.wanted_count > STORE_JOB_WANTED_MAX || job.kind < STORE_JOB_ELF || job.kind > STORE_JOB_PACKAGE)
		return err_new(ERR_INVALID, "a job of kind %d with %zu inputs", (int)job.kind, job.input_count);
	for (size_t i = 0; i < job.input_count; i++) {
		bool found;
		TRY(blob_has(txn, &job.inputs[i].blob, &found));
		if (!found) {
			char text[SHA256_HEX_SIZE];
			sha256_format(&job.inputs[i].blob, text);
			return err_new(ERR_NOT_FOUND, "no original %s", text);
		}
	}
	TRY(forget_oldest(txn));
	TRY(next_id(txn, &job.id));
	job.state = STORE_JOB_QUEUED;
	job.attempts = 0;
	job.tables = 0;
	job.has_table = false;
	job.created_ms = store_now_ms();
	job.started_ms = job.finished_ms = 0;
	text_copy(job.name, sizeof(job.name), given->name);
	text_copy(job.provenance, sizeof(job.provenance), given->provenance);
	job.reason[0] = 0;
	struct key key = state_key(job.state, job.id);
	TRY(txn_put(txn, DB_JOBS_STATE, key.bytes, key.len, "", 0));
	TRY(about_each(txn, &job, true));
	TRY(uses_each(txn, &job, true));
	*id_ret = job.id;
	return job_put(txn, &job);
}

/* A job that must exist. */
static struct err *job_need(struct txn *txn, uint64_t id, struct store_job *ret)
{
	bool found;

	TRY(job_get(txn, id, ret, &found));
	return found ? NULL : err_new(ERR_NOT_FOUND, "no job %llu", (unsigned long long)id);
}

static struct err *job_need_running(struct txn *txn, uint64_t id, struct store_job *ret)
{
	TRY(job_need(txn, id, ret));
	if (ret->state == STORE_JOB_RUNNING)
		return NULL;
	return err_new(ERR_INVALID, "job %llu is %s, not running", (unsigned long long)id, store_job_state_name(ret->state));
}

struct err *jobs_committed(struct txn *txn, uint64_t id, const struct sha256 *table, bool done, const char *reason)
{
	struct store_job job;

	TRY(job_need(txn, id, &job));
	if (table) {
		job.has_table = true;
		job.table = *table;
		job.tables++;
	}
	if (!done || is_over(job.state))
		return job_put(txn, &job);
	text_copy(job.reason, sizeof(job.reason), reason ? reason : "");
	return job_move(txn, &job, STORE_JOB_DONE);
}

/* -------------------------------------------------------------------------------------- commands */

struct submit {
	const struct store_job *job;
	uint64_t id;
};

static struct err *submit_run(struct txn *txn, void *arg)
{
	struct submit *submit = arg;

	return jobs_insert(txn, submit->job, &submit->id);
}

struct err *store_job_submit(struct store *store, const struct store_job *job, uint64_t *id_ret)
{
	struct submit submit = {.job = job};

	TRY(writer_run(store, submit_run, &submit, 0));
	jobs_wake(store);
	*id_ret = submit.id;
	return NULL;
}

struct claim {
	struct store_job *job;
	bool found;
};

static struct err *claim_run(struct txn *txn, void *arg)
{
	struct claim *claim = arg;
	const uint8_t queued = STORE_JOB_QUEUED;
	uint64_t id;

	{
		CLEANUP(scan_end) struct scan scan = {0};
		TRY(scan_begin(txn, DB_JOBS_STATE, &queued, 1, &scan));
		TRY(scan_next(&scan, &claim->found));
		if (!claim->found)
			return NULL;
		if (scan.key.mv_size != 9)
			return corrupt(DB_JOBS_STATE, scan.key.mv_data, scan.key.mv_size, "key of a wrong length");
		id = key_get_uint((const uint8_t *)scan.key.mv_data + 1, 8);
	}
	TRY(job_need(txn, id, claim->job));
	claim->job->attempts++;
	claim->job->started_ms = store_now_ms();
	return job_move(txn, claim->job, STORE_JOB_RUNNING);
}

struct err *store_job_claim(struct store *store, struct store_job *ret, bool *found_ret)
{
	struct store_job job;
	struct claim claim = {.job = &job};

	TRY(writer_run(store, claim_run, &claim, 0));
	*found_ret = claim.found;
	if (claim.found)
		*ret = job;
	return NULL;
}

struct end {
	uint64_t id;
	const char *reason;
	enum store_job_state state; /* FAILED, DONE, or QUEUED for another attempt */
	bool queued;
};

static struct err *end_run(struct txn *txn, void *arg)
{
	struct end *end = arg;
	struct store_job job;

	TRY(job_need_running(txn, end->id, &job));
	text_copy(job.reason, sizeof(job.reason), end->reason ? end->reason : "");
	end->queued = end->state == STORE_JOB_QUEUED && job.attempts < txn->store->options.job_attempts_max;
	if (end->state == STORE_JOB_QUEUED)
		return job_move(txn, &job, end->queued ? STORE_JOB_QUEUED : STORE_JOB_FAILED);
	return job_move(txn, &job, end->state);
}

static struct err *job_end(struct store *store, struct end *end)
{
	TRY(writer_run(store, end_run, end, 0));
	jobs_forget_progress(store, end->id);
	if (end->queued)
		jobs_wake(store);
	return NULL;
}

struct err *store_job_fail(struct store *store, uint64_t id, const char *reason, bool retry)
{
	struct end end = {.id = id, .reason = reason, .state = retry ? STORE_JOB_QUEUED : STORE_JOB_FAILED};

	return job_end(store, &end);
}

static struct err *release_run(struct txn *txn, void *arg)
{
	struct store_job job;

	TRY(job_need_running(txn, *(const uint64_t *)arg, &job));
	if (job.attempts > 0)
		job.attempts--;
	return job_move(txn, &job, STORE_JOB_QUEUED);
}

struct err *store_job_release(struct store *store, uint64_t id)
{
	TRY(writer_run(store, release_run, &id, 0));
	jobs_forget_progress(store, id);
	jobs_wake(store);
	return NULL;
}

struct err *store_job_finish(struct store *store, uint64_t id, const char *reason)
{
	struct end end = {.id = id, .reason = reason, .state = STORE_JOB_DONE};

	return job_end(store, &end);
}

struct identify {
	uint64_t id;
	const struct fileid *file_id;
	const struct build_id *build_id;
};

static struct err *identify_run(struct txn *txn, void *arg)
{
	const struct identify *identify = arg;
	struct store_job job;

	TRY(job_need(txn, identify->id, &job));
	TRY(about_each(txn, &job, false));
	if (identify->file_id) {
		job.has_file_id = true;
		job.file_id = *identify->file_id;
	}
	if (identify->build_id && identify->build_id->len <= BUILD_ID_MAX)
		job.build_id = *identify->build_id;
	TRY(about_each(txn, &job, true));
	return job_put(txn, &job);
}

struct err *store_job_identify(struct store *store, uint64_t id, const struct fileid *file_id, const struct build_id *build_id)
{
	struct identify identify = {.id = id, .file_id = file_id, .build_id = build_id};

	return writer_run(store, identify_run, &identify, 0);
}

/* What was running when the process died is queued again, or has failed for good. */
static struct err *resume_run(struct txn *txn, void *arg)
{
	const uint8_t running = STORE_JOB_RUNNING;
	bool *queued = arg;

	for (;;) {
		struct store_job job;
		uint64_t id;
		{
			CLEANUP(scan_end) struct scan scan = {0};
			bool found;
			TRY(scan_begin(txn, DB_JOBS_STATE, &running, 1, &scan));
			TRY(scan_next(&scan, &found));
			if (!found)
				break;
			if (scan.key.mv_size != 9)
				return corrupt(DB_JOBS_STATE, scan.key.mv_data, scan.key.mv_size, "key of a wrong length");
			id = key_get_uint((const uint8_t *)scan.key.mv_data + 1, 8);
		}
		TRY(job_need(txn, id, &job));
		if (job.state != STORE_JOB_RUNNING) {
			struct key key = state_key(STORE_JOB_RUNNING, id);
			return corrupt(DB_JOBS_STATE, key.bytes, key.len, "the job is in another state");
		}
		bool again = job.attempts < txn->store->options.job_attempts_max;
		(void)snprintf(job.reason, sizeof(job.reason), "the server stopped during attempt %u%s", job.attempts,
			again ? "" : ", the last one");
		TRY(job_move(txn, &job, again ? STORE_JOB_QUEUED : STORE_JOB_FAILED));
	}
	const uint8_t state = STORE_JOB_QUEUED;
	return scan_any(txn, DB_JOBS_STATE, &state, 1, queued);
}

struct err *jobs_resume(struct store *store)
{
	bool queued = false;

	TRY(writer_run(store, resume_run, &queued, 0));
	if (queued)
		jobs_wake(store);
	return NULL;
}

/* -------------------------------------------------------------------------------------- reading */

struct err *store_job_get(struct store_read *read, uint64_t id, struct store_job *ret, bool *found_ret)
{
	TRY(job_get(&read->txn, id, ret, found_ret));
	if (*found_ret)
		add_progress(read->txn.store, ret);
	return NULL;
}

static struct err *job_of_index(struct store_read *read, const struct scan *scan, struct store_job *ret)
{
	const uint8_t *key = scan->key.mv_data;
	bool found = false;

	if (scan->key.mv_size >= scan->prefix.len + 8)
		TRY(store_job_get(read, key_get_uint(key + scan->key.mv_size - 8, 8), ret, &found));
	return found ? NULL : corrupt(scan->db, key, scan->key.mv_size, "names a job that does not exist");
}

struct err *store_jobs(struct store_read *read, enum store_job_state state, uint64_t after, struct store_job *jobs, size_t cap,
	size_t *n_ret)
{
	CLEANUP(scan_end) struct scan scan = {0};
	const uint8_t prefix = (uint8_t)state;
	size_t n = 0;

	TRY(scan_begin(&read->txn, DB_JOBS_STATE, &prefix, 1, &scan));
	scan.from = state_key(state, after < UINT64_MAX ? after + 1 : after);
	while (n < cap) {
		bool found;
		TRY(scan_next(&scan, &found));
		if (!found)
			break;
		TRY(job_of_index(read, &scan, &jobs[n]));
		n++;
	}
	*n_ret = n;
	return NULL;
}

static bool job_listed(const struct store_job *jobs, size_t count, uint64_t id)
{
	for (size_t i = 0; i < count; i++)
		if (jobs[i].id == id)
			return true;
	return false;
}

static struct err *jobs_under(struct store_read *read, const struct key *id, struct store_job *jobs, size_t cap, size_t *n)
{
	CLEANUP(scan_end) struct scan scan = {0};

	TRY(scan_begin(&read->txn, DB_JOBS_ABOUT, id->bytes, id->len, &scan));
	scan.backwards = true;
	while (*n < cap) {
		bool found;
		TRY(scan_next(&scan, &found));
		if (!found)
			break;
		TRY(job_of_index(read, &scan, &jobs[*n]));
		if (!job_listed(jobs, *n, jobs[*n].id))
			(*n)++;
	}
	return NULL;
}

static int newest_first(const void *a, const void *b)
{
	uint64_t x = ((const struct store_job *)a)->id, y = ((const struct store_job *)b)->id;

	return x > y ? -1 : x < y;
}

struct err *store_jobs_about(struct store_read *read, const struct store_query *query, struct store_job *jobs, size_t cap,
	size_t *n_ret)
{
	const uint32_t tenants[] = {query->tenant, STORE_TENANT_PUBLIC};
	size_t n = 0;

	for (size_t t = 0; t < (query->tenant == STORE_TENANT_PUBLIC ? 1u : 2u); t++) {
		if (query->has_file_id) {
			struct key id = key_of_id(tenants[t], NULL, &query->file_id);
			TRY(jobs_under(read, &id, jobs, cap, &n));
		}
		if (query->build_id.len > 0) {
			struct key id = key_of_id(tenants[t], &query->build_id, NULL);
			TRY(jobs_under(read, &id, jobs, cap, &n));
		}
	}
	qsort(jobs, n, sizeof(jobs[0]), newest_first);
	*n_ret = n;
	return NULL;
}

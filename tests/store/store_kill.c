// SPDX-License-Identifier: Apache-2.0
/*
 * kill -9 at random moments of uploads and commits. A child works on a store and reports what was acknowledged through a
 * pipe; it is killed after a random while; the parent opens the store, checks it, and looks for everything that was
 * acknowledged. CAIRN_KILL_ROUNDS says how often (50).
 *
 * Each round's child takes numbers that no other round had. Odd numbers commit a table (a replacement of an older one now
 * and then), even ones upload a file in chunks and finish it with a job; jobs are claimed and finished on the way.
 */
#include "tests/store/fixture.h"
#include "tests/store/killed_child.h"

#include <pthread.h>

enum { CHUNKS = 5, CHUNK = 10000, NAMES = 16 };

/* One acknowledgement, written to the pipe whole (less than PIPE_BUF). */
struct ack {
	enum { ACK_COMMIT, ACK_SESSION, ACK_CHUNK, ACK_FINISH, ACK_CLAIM, ACK_DONE } what;
	uint64_t number;
	uint64_t value; /* offset, or job */
	uint8_t session[STORE_UPLOAD_ID_BYTES];
	struct sha256 id;
};

static void acknowledge(int fd, struct ack ack)
{
	if (write(fd, &ack, sizeof(ack)) != sizeof(ack))
		_exit(2);
}

/* Commit number n: the table of name n % NAMES in version n. */
static void do_commit(struct store *store, int fd, uint64_t n)
{
	size_t len = 1000 + (size_t)(n * 7919 % 400000);
	CLEANUP(freep) uint8_t *bytes = table_bytes(n, len);
	struct store_commit c = {.tenant = 1, .has_file = true, .file = file_of(n % NAMES + 1), .build_id = build_id_of(n % NAMES + 1),
		.table = bytes, .table_len = len, .entry = entry_of(STORE_SOURCE_UPLOAD, 1, "t")};
	struct ack ack = {.what = ACK_COMMIT, .number = n};

	c.entry.builder_version = (uint32_t)n;
	MUST(store_commit_table(store, &c, &ack.id));
	acknowledge(fd, ack);
}

static void do_upload(struct store *store, int fd, uint64_t n)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(n, CHUNKS * CHUNK);
	struct store_upload upload = {.tenant = 1, .role = STORE_ROLE_DEBUG, .name = "a.debug", .size = CHUNKS * CHUNK};
	struct store_job job = {.tenant = 1, .kind = STORE_JOB_ELF, .source = STORE_SOURCE_UPLOAD};
	struct ack ack = {.number = n};

	MUST(sha256_of(bytes, CHUNKS * CHUNK, &upload.sha256));
	MUST(store_upload_create(store, &upload, &upload));
	memcpy(ack.session, upload.id, sizeof(ack.session));
	ack.id = upload.sha256;
	ack.what = ACK_SESSION;
	acknowledge(fd, ack);
	for (size_t i = 0; i < CHUNKS; i++) {
		MUST(store_upload_chunk(store, upload.id, i * CHUNK, bytes + i * CHUNK, CHUNK, &ack.value));
		ack.what = ACK_CHUNK;
		acknowledge(fd, ack);
	}
	MUST(store_upload_finish(store, upload.id, &job, &ack.value));
	ack.what = ACK_FINISH;
	acknowledge(fd, ack);
}

static void do_job(struct store *store, int fd)
{
	struct store_job job;
	bool found;

	MUST(store_job_claim(store, &job, &found));
	if (!found)
		return;
	acknowledge(fd, (struct ack){.what = ACK_CLAIM, .value = job.id});
	MUST(store_job_finish(store, job.id, NULL));
	acknowledge(fd, (struct ack){.what = ACK_DONE, .value = job.id});
}

static _Noreturn void *second_thread(void *arg)
{
	void **args = arg;
	struct store *store = args[0];
	int fd = *(int *)args[1];
	uint64_t n = *(uint64_t *)args[2];

	for (;; n += 2)
		do_upload(store, fd, n + (n & 1));
}

struct client {
	const char *dir;
	struct memory *memory;
	uint64_t first; /* number of the child's first commit */
};

static _Noreturn void work(void *arg, int fd)
{
	const struct client *client = arg;
	uint64_t first = client->first;
	struct store *store = open_restless(client->dir);
	pthread_t thread;
	void *args[] = {store, &fd, &first};

	if (pthread_create(&thread, NULL, second_thread, args))
		_exit(3);
	for (uint64_t n = first | 1;; n += 2) {
		do_commit(store, fd, n);
		if (n % 3 == 0)
			do_job(store, fd);
		if (n % 64 == 63) {
			uint64_t removed;
			MUST(store_gc(store, &removed));
		}
	}
}

/* -------------------------------------------------------------------------------------- what the parent remembers */

struct memory {
	struct ack commits[NAMES]; /* the latest of each name */
	struct ack *uploads;	   /* of all rounds: the latest of each session */
	size_t upload_count, upload_cap;
	struct ack *jobs; /* done ones */
	size_t job_count, job_cap;
	uint64_t acks;
};

static void remember_in(struct ack **acks, size_t *count, size_t *cap, const struct ack *ack)
{
	for (size_t i = *count; ack->what != ACK_DONE && i-- > 0;) {
		if ((*acks)[i].number == ack->number) {
			(*acks)[i] = *ack;
			return;
		}
	}
	if (*count == *cap) {
		*cap = *cap ? 2 * *cap : 64;
		*acks = realloc(*acks, *cap * sizeof(**acks));
		if (!*acks)
			abort();
	}
	(*acks)[(*count)++] = *ack;
}

static void remember(void *arg, const void *report)
{
	struct memory *m = ((struct client *)arg)->memory;
	const struct ack *ack = report;

	m->acks++;
	if (ack->what == ACK_COMMIT)
		m->commits[ack->number % NAMES] = *ack;
	else if (ack->what == ACK_DONE)
		remember_in(&m->jobs, &m->job_count, &m->job_cap, ack);
	else if (ack->what != ACK_CLAIM)
		remember_in(&m->uploads, &m->upload_count, &m->upload_cap, ack);
}

static void fail(const char *what, uint64_t number)
{
	(void)fprintf(stderr, "lost: %s %llu\n", what, (unsigned long long)number);
	abort();
}

/* The name's table is the acknowledged version, or a later one that was not acknowledged any more. */
static void expect_commit(struct store_read *read, const struct ack *ack)
{
	struct store_query query = {.tenant = 1, .has_file_id = true, .file_id = file_id_of(ack->number % NAMES + 1)};
	struct store_answer answer;
	struct store_view view;
	struct sha256 id;

	MUST(store_resolve(read, &query, &answer));
	if (answer.status != STORE_OK || answer.entry.builder_version < ack->number)
		fail("commit", ack->number);
	MUST(store_read_table(read, &answer.entry.table, &view));
	if (!view.bytes)
		fail("table of commit", ack->number);
	MUST(sha256_of(view.bytes, view.len, &id));
	if (memcmp(&id, &answer.entry.table, sizeof(id)) != 0)
		fail("bytes of commit", ack->number);
	if (answer.entry.builder_version == ack->number && memcmp(&id, &ack->id, sizeof(id)) != 0)
		fail("identity of commit", ack->number);
}

static void expect_session(struct store *store, const struct ack *ack)
{
	struct store_upload upload;
	struct store_blob blob;
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	bool found;
	struct err *e = store_upload_get(store, ack->session, &upload);

	if (!e) {
		if (ack->what == ACK_FINISH)
			fail("finish of upload", ack->number);
		if (ack->what == ACK_CHUNK && upload.offset < ack->value)
			fail("chunk of upload", ack->number);
		return;
	}
	if (err_code(e) != ERR_NOT_FOUND)
		fail(err_message(e), ack->number);
	err_free(e);
	/* Finished, acknowledged or not. */
	MUST(store_read_begin(store, &read));
	MUST(store_blob_get(read, &ack->id, &blob, &found));
	if (!found || blob.size != CHUNKS * CHUNK)
		fail("original of upload", ack->number);
	if (ack->what != ACK_FINISH)
		return;
	struct store_job job;
	MUST(store_job_get(read, ack->value, &job, &found));
	if (!found || job.input_count != 1 || memcmp(&job.inputs[0].blob, &ack->id, sizeof(ack->id)) != 0)
		fail("job of upload", ack->number);
}

/* What was interrupted can go on: the session takes the rest and finishes with the right bytes. */
static void resume(struct store *store, struct ack *ack)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(ack->number, CHUNKS * CHUNK);
	struct store_upload upload;
	struct store_job job = {.tenant = 1, .kind = STORE_JOB_ELF, .source = STORE_SOURCE_UPLOAD};
	struct err *e = store_upload_get(store, ack->session, &upload);

	if (e) {
		err_free(e);
		return;
	}
	while (upload.offset < upload.size)
		MUST(store_upload_chunk(store, upload.id, upload.offset, bytes + upload.offset,
			upload.size - upload.offset < CHUNK ? upload.size - upload.offset : CHUNK, &upload.offset));
	MUST(store_upload_finish(store, upload.id, &job, &ack->value));
	ack->what = ACK_FINISH;
}

static void verify(const char *dir, struct memory *m)
{
	struct store *store = open_restless(dir);
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct check_log log;
	struct store_job job;
	bool found;

	if (faults_of(store, &log, NULL)) {
		(void)fprintf(stderr, "%llu faults: %s\n", (unsigned long long)log.faults, log.first);
		abort();
	}
	MUST(store_read_begin(store, &read));
	for (size_t i = 0; i < NAMES; i++)
		if (m->commits[i].number)
			expect_commit(read, &m->commits[i]);
	for (size_t i = 0; i < m->job_count; i++) {
		MUST(store_job_get(read, m->jobs[i].value, &job, &found));
		if (!found || job.state != STORE_JOB_DONE)
			fail("end of job", m->jobs[i].value);
	}
	store_read_end(TAKE_PTR(read));
	for (size_t i = 0; i < m->upload_count; i++)
		expect_session(store, &m->uploads[i]);
	if (m->upload_count > 0)
		resume(store, &m->uploads[m->upload_count - 1]);
	store_close(store);
}

int main(void)
{
	const char *text = getenv("CAIRN_KILL_ROUNDS");
	unsigned rounds = text ? (unsigned)atoi(text) : 50;
	uint64_t seed = (uint64_t)getpid();
	struct memory m = {0};
	char dir[64];
	struct client client = {.dir = dir, .memory = &m};
	struct killed_child child = {.work = work, .remember = remember, .arg = &client, .report_size = sizeof(struct ack)};

	temp_dir_make(dir);
	for (unsigned i = 0; i < rounds; i++) {
		client.first = (uint64_t)(i + 1) * 100000;
		killed_child_run(&child, (unsigned)(random_next(&seed) % 200000));
		verify(dir, &m);
	}
	(void)printf("%u kills, %llu acknowledgements, %zu uploads, %zu jobs done: nothing lost\n", rounds, (unsigned long long)m.acks,
		m.upload_count, m.job_count);
	if (m.acks == 0)
		fail("every acknowledgement; the test did nothing", 0);
	free(m.uploads);
	free(m.jobs);
	temp_dir_remove(dir);
	return 0;
}

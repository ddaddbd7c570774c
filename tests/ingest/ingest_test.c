// SPDX-License-Identifier: Apache-2.0
/* The job runner on a real store, with the stand-in worker: what becomes of jobs when workers go wrong, or right. */
#include "ingest/ingest.h"

#include "store/blob.h"
#include "store/job.h"
#include "symbolizer/table/table.h"
#include "symbolizer/table/writer.h"
#include "sandbox/sandbox.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static char folder[64];
static struct store *store;
static struct ingest *ingest;

static void ok(struct err *e)
{
	cr_assert_null(e, "%s", err_message(e));
}

static void open_store(void)
{
	struct store_options options = {.data_dir = folder, .map_max = UINT64_C(1) << 30, .job_attempts_max = 2};

	ok(store_open(&options, &store));
}

static void setup(void)
{
	strcpy(folder, "/tmp/cairn-ingest-test-XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	open_store();
}

static void teardown(void)
{
	char command[128];

	ingest_stop(ingest);
	store_close(store);
	(void)snprintf(command, sizeof(command), "rm -rf %s", folder);
	(void)!system(command);
}

static void start(uint32_t workers, uint64_t deadline_ms)
{
	struct ingest_options options = {
		.worker = FAKE_WORKER,
		.scratch_dir = "/tmp",
		.workers = workers,
		.worker_memory_bytes = 64 << 20,
		.max_table_bytes = 1 << 20,
		.max_unpacked_bytes = 1 << 20,
		.deadline_ms = deadline_ms,
	};

	ok(ingest_start(store, &options, &ingest));
}

static struct sha256 put_blob(const void *bytes, size_t len)
{
	int fd = memfd_create("blob", MFD_CLOEXEC);
	struct sha256 id;

	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	ok(store_blob_put(store, fd, "blob", &id));
	(void)close(fd);
	return id;
}

/* As an upload announces it: to be found by build ID and role. */
static void put_upload(const char *bytes, enum store_role role, const struct build_id *build_id)
{
	struct store_upload upload = {.tenant = STORE_TENANT_DEFAULT, .role = role, .size = strlen(bytes), .build_id = *build_id};
	uint64_t offset;

	strcpy(upload.name, "upload");
	ok(sha256_of(bytes, strlen(bytes), &upload.sha256));
	ok(store_upload_create(store, &upload, &upload));
	ok(store_upload_chunk(store, upload.id, 0, bytes, strlen(bytes), &offset));
	ok(store_upload_finish(store, upload.id, NULL, NULL));
}

static uint64_t submit_bytes(const void *bytes, size_t len, enum store_job_kind kind, const struct build_id *build_id)
{
	struct store_job job = {
		.tenant = STORE_TENANT_DEFAULT, .kind = kind, .source = STORE_SOURCE_UPLOAD, .input_count = 1, .name = "a.bin"};
	uint64_t id;

	job.inputs[0].role = kind == STORE_JOB_PACKAGE ? STORE_ROLE_PACKAGE : STORE_ROLE_RUNTIME;
	job.inputs[0].blob = put_blob(bytes, len);
	if (build_id)
		job.build_id = *build_id;
	ok(store_job_submit(store, &job, &id));
	return id;
}

static uint64_t submit(const char *script)
{
	return submit_bytes(script, strlen(script), STORE_JOB_ELF, NULL);
}

static struct store_job get(uint64_t id)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_job job;
	bool found;

	ok(store_read_begin(store, &read));
	ok(store_job_get(read, id, &job, &found));
	cr_assert(found);
	return job;
}

static void nap(void)
{
	struct timespec wait = {.tv_nsec = 10 * 1000000};

	(void)nanosleep(&wait, NULL);
}

static struct store_job wait_for(uint64_t id, enum store_job_state state)
{
	for (unsigned i = 0; i < 3000; i++) {
		struct store_job job = get(id);
		if (job.state == state)
			return job;
		if (job.state == STORE_JOB_DONE || job.state == STORE_JOB_FAILED)
			break;
		nap();
	}
	struct store_job job = get(id);
	cr_assert_fail("job is %s, not %s: %s", store_job_state_name(job.state), store_job_state_name(state), job.reason);
	return job;
}

static void expect_failed(uint64_t id, const char *part)
{
	struct store_job job = wait_for(id, STORE_JOB_FAILED);

	cr_assert_not_null(strstr(job.reason, part), "%s: %s", part, job.reason);
	cr_assert_eq(job.tables, 0);
}

/* A script `table N` and a table with a build ID of N bytes 0xbb. */
static void table_script(struct buf *out, unsigned said, unsigned id_len)
{
	static const char text[] = "\0f\0dir\0base";
	struct table_input_file files[] = {{3, 7}};
	struct table_input_function functions[] = {{1, 0, 3}};
	struct table_input_node nodes[] = {{.parent = TABLE_NONE, .function = 0, .entry_vaddr = 0x1000}};
	struct table_input_row rows[] = {{0x1000, 0, 0, 5, 1}, {0x1010, TABLE_NONE, TABLE_NONE, 0, 0}};
	struct table_input input = {
		.sources = TABLE_FROM_DWARF,
		.elf_machine = 62,
		.build_id = {.len = (uint8_t)id_len},
		.text = text,
		.text_len = sizeof(text),
		.files = files,
		.file_count = 1,
		.functions = functions,
		.function_count = 1,
		.nodes = nodes,
		.node_count = 1,
		.rows = rows,
		.row_count = 2,
	};

	memset(input.build_id.bytes, 0xbb, id_len);
	ok(buf_printf(out, "table %u\n", said));
	ok(table_write(&input, out));
}

TestSuite(ingest, .init = setup, .fini = teardown, .timeout = 60);

Test(ingest, a_result_is_committed_with_record_alias_and_table)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct buf script = {0};
	struct build_id id = {.len = 20};
	struct fileid file_id;
	struct store_query query = {.tenant = STORE_TENANT_DEFAULT};
	struct store_answer answer;
	struct store_view view;
	struct ingest_stats stats;

	memset(id.bytes, 0xbb, 20);
	table_script(&script, 20, 20);
	ok(fileid_from_memory(script.data, script.len, &file_id));
	uint64_t job_id = submit_bytes(script.data, script.len, STORE_JOB_ELF, &id);
	start(1, 20000);
	struct store_job job = wait_for(job_id, STORE_JOB_DONE);
	cr_assert_eq(job.tables, 1);
	cr_assert(job.has_file_id && fileid_equal(&job.file_id, &file_id));
	ok(store_read_begin(store, &read));
	query.build_id = id;
	ok(store_resolve(read, &query, &answer));
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert(answer.has_file && fileid_equal(&answer.file.file_id, &file_id));
	cr_assert_str_eq(answer.file.name, "a.bin");
	cr_assert_eq(answer.entry.kind, TABLE_FROM_DWARF);
	ok(store_read_table(read, &answer.entry.table, &view));
	cr_assert_eq(view.len, script.len - strlen("table 20\n"));
	ingest_stats(ingest, &stats);
	cr_assert_eq(stats.tables, 1);
	cr_assert_eq(stats.table_bytes, view.len);
	cr_assert_eq(stats.runs[SPAWN_DONE], 1);
	buf_deinit(&script);
}

Test(ingest, a_file_without_symbols_is_known_and_its_job_done)
{
	struct fileid file_id;
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = STORE_TENANT_DEFAULT, .has_file_id = true};
	struct store_answer answer;

	ok(fileid_from_memory("empty", 5, &file_id));
	uint64_t id = submit("empty");
	start(1, 20000);
	struct store_job job = wait_for(id, STORE_JOB_DONE);
	cr_assert_str_eq(job.reason, "the file has no symbols");
	ok(store_read_begin(store, &read));
	query.file_id = file_id;
	ok(store_resolve(read, &query, &answer));
	cr_assert_eq(answer.status, STORE_NO_SYMBOLS);
}

Test(ingest, crash_forbidden_call_and_nonsense_fail_their_jobs_only)
{
	uint64_t good[3], crash, socket_job, garbage, fail;

	good[0] = submit("empty 1");
	crash = submit("crash");
	good[1] = submit("empty 2");
	socket_job = submit("socket");
	garbage = submit("garbage");
	fail = submit("fail");
	good[2] = submit("empty 3");
	start(1, 20000);
	expect_failed(crash, "worker crashed with SIGSEGV");
	expect_failed(socket_job, "forbidden system call 41 (socket)");
	expect_failed(garbage, "broke the protocol");
	expect_failed(fail, "binary: .debug_info+0x12: nonsense");
	for (size_t i = 0; i < 3; i++)
		(void)wait_for(good[i], STORE_JOB_DONE);
	cr_assert_eq(get(crash).attempts, 1, "the same bytes would crash again");
}

Test(ingest, a_hang_does_not_stop_others_and_fails_at_the_deadline)
{
	uint64_t hang = submit("hang"), good[5];

	for (size_t i = 0; i < 5; i++) {
		char script[16];
		(void)snprintf(script, sizeof(script), "empty %zu", i);
		good[i] = submit(script);
	}
	start(2, 2000);
	for (size_t i = 0; i < 5; i++)
		(void)wait_for(good[i], STORE_JOB_DONE);
	cr_assert_eq(get(hang).state, STORE_JOB_RUNNING);
	expect_failed(hang, "deadline of 2000 ms");
}

Test(ingest, the_memory_ceiling_fails_the_job)
{
	if (!sandbox_is_full())
		cr_skip_test("AddressSanitizer reserves terabytes: no memory limit in its builds");
	uint64_t memory = submit("memory"), good = submit("empty");

	start(1, 20000);
	expect_failed(memory, "memory ceiling of 64 MiB reached");
	(void)wait_for(good, STORE_JOB_DONE);
}

Test(ingest, a_table_that_does_not_hold_is_refused)
{
	struct buf bytes = {0};
	struct build_id announced = {.len = 20};
	struct ingest_stats stats;

	table_script(&bytes, 20, 20);
	bytes.data[bytes.len - 1] ^= 1;
	uint64_t damaged = submit_bytes(bytes.data, bytes.len, STORE_JOB_ELF, NULL);
	bytes.len = 0;
	table_script(&bytes, 8, 20);
	uint64_t other_id = submit_bytes(bytes.data, bytes.len, STORE_JOB_ELF, NULL);
	bytes.len = 0;
	table_script(&bytes, 20, 20);
	uint64_t misannounced = submit_bytes(bytes.data, bytes.len, STORE_JOB_ELF, &announced);
	buf_deinit(&bytes);
	uint64_t short_table = submit("table 20\nxx"), twice = submit("twice"), stranger = submit("stranger"), nothing = submit("nothing");
	start(1, 20000);
	expect_failed(damaged, "worker's table");
	expect_failed(other_id, "another build ID than its result");
	expect_failed(misannounced, "announced with build ID 0000");
	expect_failed(short_table, "worker's table");
	expect_failed(twice, "two results");
	expect_failed(stranger, "another file than it was given");
	expect_failed(nothing, "without a result");
	ingest_stats(ingest, &stats);
	cr_assert_eq(stats.refused, 6);
	cr_assert_eq(stats.tables, 0);
}

Test(ingest, needs_is_answered_from_the_store_or_fails_with_what_is_missing)
{
	struct build_id id = {.len = 4, .bytes = {0xde, 0xad, 0xbe, 0xef}};
	uint64_t missing = submit("needs 1");

	start(1, 20000);
	expect_failed(missing, "it needs x.dwz (build ID deadbeef), which is not here");
	put_upload("the supplement", STORE_ROLE_SUPPLEMENT, &id);
	uint64_t present = submit("needs 2");
	(void)wait_for(present, STORE_JOB_DONE);
}

Test(ingest, the_other_half_of_a_pair_is_found_and_dropped_when_it_does_not_fit)
{
	struct build_id id = {.len = 4, .bytes = {0xaa, 0xaa, 0xaa, 0xaa}};

	put_upload("debug bytes", STORE_ROLE_DEBUG, &id);
	uint64_t pair = submit_bytes("pair", 4, STORE_JOB_ELF, &id), alone = submit_bytes("alone", 5, STORE_JOB_ELF, &id);
	uint64_t without = submit("pair 2");
	start(1, 20000);
	(void)wait_for(pair, STORE_JOB_DONE);
	struct store_job job = wait_for(alone, STORE_JOB_DONE);
	cr_assert_eq(strncmp(job.reason, "without the other half of the pair, which does not fit: ", 56), 0, "%s", job.reason);
	expect_failed(without, "nonsense");
}

Test(ingest, a_package_commits_each_file_and_names_what_was_skipped)
{
	struct ingest_stats stats;
	uint64_t id = submit_bytes("package", 7, STORE_JOB_PACKAGE, NULL);

	start(1, 20000);
	struct store_job job = wait_for(id, STORE_JOB_DONE);
	cr_assert_str_eq(job.reason, "1 files were skipped or damaged, the first: usr/bin/bad: damaged");
	ingest_stats(ingest, &stats);
	cr_assert_eq(stats.files_without_symbols, 2);
	cr_assert_eq(stats.members_skipped, 1);
}

Test(ingest, a_kill_from_outside_is_tried_again_up_to_the_cap)
{
	struct ingest_stats stats;
	uint64_t id = submit("sigkill");

	start(1, 20000);
	expect_failed(id, "SIGKILL");
	cr_assert_eq(get(id).attempts, 2);
	ingest_stats(ingest, &stats);
	cr_assert_eq(stats.runs[SPAWN_CRASHED], 2);
}

Test(ingest, progress_is_seen_while_it_runs)
{
	struct ingest_progress progress = {0};
	uint64_t id = submit("stall");

	start(1, 20000);
	for (unsigned i = 0; i < 1000 && progress.now.done != 5; i++) {
		nap();
		(void)ingest_progress(ingest, id, &progress);
	}
	cr_assert_eq(progress.now.phase, PROTOCOL_READING);
	cr_assert_eq(progress.now.done, 5);
	cr_assert_eq(progress.now.total, 10);
	cr_assert_eq(progress.round, 1);
	cr_assert_gt(progress.started_ms, 0);
	cr_assert_str_eq(get(id).phase, "reading, 50 %");
	cr_assert_not(ingest_progress(ingest, id + 1, &progress));
}

Test(ingest, stop_kills_the_worker_and_leaves_its_job_queued)
{
	uint64_t id = submit("hang");

	start(1, 60000);
	(void)wait_for(id, STORE_JOB_RUNNING);
	time_t before = time(NULL);
	ingest_stop(ingest);
	ingest = NULL;
	cr_assert_lt(time(NULL) - before, 5);
	struct store_job job = get(id);
	cr_assert_eq(job.state, STORE_JOB_QUEUED);
	cr_assert_eq(job.attempts, 0);
}

Test(ingest, jobs_of_before_a_restart_begin_at_start_and_new_ones_at_once)
{
	uint64_t before = submit("empty 1");

	store_close(store);
	open_store();
	start(2, 20000);
	(void)wait_for(before, STORE_JOB_DONE);
	uint64_t after = submit("empty 2");
	(void)wait_for(after, STORE_JOB_DONE);
}

Test(ingest, many_jobs_on_many_workers_all_end)
{
	enum { JOBS = 40 };
	uint64_t ids[JOBS];

	start(4, 20000);
	for (size_t i = 0; i < JOBS; i++) {
		char script[32];
		(void)snprintf(script, sizeof(script), i % 5 == 4 ? "crash %zu" : "empty %zu", i);
		ids[i] = submit(script);
	}
	for (size_t i = 0; i < JOBS; i++)
		(void)wait_for(ids[i], i % 5 == 4 ? STORE_JOB_FAILED : STORE_JOB_DONE);
}

struct told {
	_Atomic unsigned count;
	enum ingest_verdict verdict;
	char reason[128];
};

static void on_ended(void *context, const struct store_job *job, const struct ingest_end *end)
{
	struct told *told = context;

	(void)job;
	told->verdict = end->verdict;
	(void)snprintf(told->reason, sizeof(told->reason), "%s", end->reason);
	told->count++;
}

Test(ingest, the_end_of_a_job_is_told_for_the_log)
{
	struct told told = {0};
	struct ingest_options options = {
		.worker = FAKE_WORKER, .scratch_dir = "/tmp", .workers = 1, .ended = on_ended, .ended_context = &told};
	uint64_t id = submit("fail");

	ok(ingest_start(store, &options, &ingest));
	(void)wait_for(id, STORE_JOB_FAILED);
	while (told.count == 0)
		nap();
	cr_assert_eq(told.verdict, INGEST_FAILED);
	cr_assert_str_eq(told.reason, "binary: .debug_info+0x12: nonsense");
}

Test(ingest, a_worker_that_is_not_there_or_bounds_that_are_passed_stop_the_start)
{
	struct ingest_options options = {.worker = "/nowhere/cairn-worker"};
	struct err *e = ingest_start(store, &options, &ingest);

	cr_assert_eq(err_code(e), ERR_OS);
	cr_assert_not_null(strstr(err_message(e), "/nowhere/cairn-worker"));
	err_free(e);
	options = (struct ingest_options){.worker = FAKE_WORKER, .workers = INGEST_WORKERS_MAX + 1};
	e = ingest_start(store, &options, &ingest);
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
	options = (struct ingest_options){.worker = FAKE_WORKER, .scratch_dir = "/nowhere"};
	e = ingest_start(store, &options, &ingest);
	cr_assert_not_null(strstr(err_message(e), "/nowhere"));
	err_free(e);
}

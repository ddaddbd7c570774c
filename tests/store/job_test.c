// SPDX-License-Identifier: Apache-2.0
/* The queue of jobs, and misses. */
#include "tests/store/suite.h"

#include <poll.h>

static uint64_t submit(uint64_t build)
{
	struct store_job job = {.tenant = 1, .kind = STORE_JOB_ELF, .source = STORE_SOURCE_UPLOAD, .build_id = build_id_of(build), .name = "a"};
	uint64_t id;

	MUST(store_job_submit(store, &job, &id));
	return id;
}

static struct store_job claim(void)
{
	struct store_job job;
	bool found;

	MUST(store_job_claim(store, &job, &found));
	cr_assert(found);
	return job;
}

static struct store_job get(uint64_t id)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_job job;
	bool found;

	MUST(store_read_begin(store, &read));
	MUST(store_job_get(read, id, &job, &found));
	cr_assert(found);
	return job;
}

static size_t count_in(enum store_job_state state)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	static struct store_job jobs[64];
	size_t n;

	MUST(store_read_begin(store, &read));
	MUST(store_jobs(read, state, 0, jobs, 64, &n));
	return n;
}

Test(store_job_submit, is_found_by_each_file_that_it_is_to_build, .init = setup, .fini = teardown)
{
	struct store_job job = {.tenant = 1, .kind = STORE_JOB_PACKAGE, .source = STORE_SOURCE_PACKAGE, .name = "a", .wanted_count = STORE_JOB_WANTED_MAX};
	uint64_t id;

	for (size_t i = 0; i < job.wanted_count; i++)
		job.wanted[i] = build_id_of(100 + i);
	MUST(store_job_submit(store, &job, &id));
	reopen_with((struct store_options){0});
	struct store_job got = get(id);
	cr_assert_eq(got.wanted_count, job.wanted_count);
	for (size_t i = 0; i < job.wanted_count; i++) {
		CLEANUP(store_read_endp) struct store_read *read = NULL;
		struct store_query query = {.tenant = 1, .build_id = job.wanted[i]};
		size_t n;
		cr_assert(build_id_equal(&got.wanted[i], &job.wanted[i]));
		MUST(store_read_begin(store, &read));
		MUST(store_jobs_about(read, &query, &got, 1, &n));
		cr_assert_eq(n, 1);
	}
	job.wanted_count++;
	struct err *e = store_job_submit(store, &job, &id);
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
}

Test(store_job_claim, gives_the_oldest_first_and_nothing_when_empty, .init = setup, .fini = teardown)
{
	struct store_job job;
	bool found;
	uint64_t a = submit(1), b = submit(2);

	cr_assert_gt(b, a);
	cr_assert_eq(claim().id, a);
	struct store_job second = claim();
	cr_assert_eq(second.id, b);
	cr_assert_eq(second.state, STORE_JOB_RUNNING);
	cr_assert_eq(second.attempts, 1);
	cr_assert_gt(second.started_ms, 0);
	MUST(store_job_claim(store, &job, &found));
	cr_assert_not(found);
}

Test(store_job_fd, becomes_readable_with_a_job, .init = setup, .fini = teardown)
{
	struct pollfd fd = {.fd = store_job_fd(store), .events = POLLIN};

	cr_assert_eq(poll(&fd, 1, 0), 0);
	submit(1);
	cr_assert_eq(poll(&fd, 1, 0), 1);
}

Test(store_job_fail, tries_again_until_the_attempts_are_used_up, .init = setup, .fini = teardown)
{
	uint64_t id = submit(1);

	for (unsigned i = 1; i <= 3; i++) {
		cr_assert_eq(claim().attempts, i);
		MUST(store_job_fail(store, id, "worker crashed", true));
		cr_assert_eq(get(id).state, i < 3 ? STORE_JOB_QUEUED : STORE_JOB_FAILED);
	}
	cr_assert_str_eq(get(id).reason, "worker crashed");
	cr_assert_gt(get(id).finished_ms, 0);
}

Test(store_job_fail, without_retry_is_final, .init = setup, .fini = teardown)
{
	uint64_t id = submit(1);

	claim();
	MUST(store_job_fail(store, id, "not ELF", false));
	cr_assert_eq(get(id).state, STORE_JOB_FAILED);
	assert_fails(store_job_fail(store, id, "again", false), ERR_INVALID, "is failed, not running");
	assert_fails(store_job_finish(store, 999, NULL), ERR_NOT_FOUND, "no job 999");
}

Test(store_job_release, does_not_count_the_attempt, .init = setup, .fini = teardown)
{
	uint64_t id = submit(1);

	claim();
	MUST(store_job_release(store, id));
	cr_assert_eq(get(id).state, STORE_JOB_QUEUED);
	cr_assert_eq(claim().attempts, 1);
}

Test(store_job_progress, shows_while_running_only, .init = setup, .fini = teardown)
{
	uint64_t id = submit(1);

	claim();
	store_job_progress(store, id, "reading .debug_info");
	cr_assert_str_eq(get(id).phase, "reading .debug_info");
	store_job_progress(store, id, "sorting");
	cr_assert_str_eq(get(id).phase, "sorting");
	MUST(store_job_finish(store, id, "nothing in it"));
	cr_assert_str_eq(get(id).phase, "");
	cr_assert_str_eq(get(id).reason, "nothing in it");
	cr_assert_eq(get(id).state, STORE_JOB_DONE);
}

Test(store_commit_table, ends_its_job_in_the_same_commit, .init = setup, .fini = teardown)
{
	uint8_t bytes[100] = {1};
	uint64_t id = submit(1);
	struct store_commit c = {.tenant = 1, .build_id = build_id_of(1), .table = bytes, .table_len = 100,
		.entry = entry_of(STORE_SOURCE_UPLOAD, 1, "a"), .job_id = id};

	claim();
	MUST(store_commit_table(store, &c, NULL));
	cr_assert_eq(get(id).state, STORE_JOB_RUNNING, "a package goes on");
	cr_assert_eq(get(id).tables, 1);
	c.job_done = true;
	c.job_reason = "one unit was left out";
	MUST(store_commit_table(store, &c, NULL));
	cr_assert_eq(get(id).state, STORE_JOB_DONE);
	cr_assert_str_eq(get(id).reason, "one unit was left out");
	cr_assert(get(id).has_table);
}

Test(store_open, queues_again_what_was_running_and_gives_up_in_the_end, .init = setup, .fini = teardown)
{
	uint64_t id = submit(1);

	for (unsigned i = 1; i <= 2; i++) {
		cr_assert_eq(claim().attempts, i);
		reopen_with((struct store_options){.job_attempts_max = 2});
		struct store_job job = get(id);
		cr_assert_eq(job.state, i < 2 ? STORE_JOB_QUEUED : STORE_JOB_FAILED);
		cr_assert(strstr(job.reason, "the server stopped during attempt"), "%s", job.reason);
	}
}

Test(store_jobs, pages_by_state, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_job jobs[2];
	size_t n;

	for (uint64_t i = 1; i <= 3; i++)
		submit(i);
	MUST(store_read_begin(store, &read));
	MUST(store_jobs(read, STORE_JOB_QUEUED, 0, jobs, 2, &n));
	cr_assert_eq(n, 2);
	MUST(store_jobs(read, STORE_JOB_QUEUED, jobs[1].id, jobs, 2, &n));
	cr_assert_eq(n, 1);
	cr_assert_eq(jobs[0].id, 3);
	MUST(store_jobs(read, STORE_JOB_DONE, 0, jobs, 2, &n));
	cr_assert_eq(n, 0);
}

Test(store_jobs_about, finds_by_either_id_newest_first, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = 1, .build_id = build_id_of(7)};
	struct fileid file = file_id_of(5);
	struct store_job jobs[8];
	size_t n;
	uint64_t a = submit(7), b = submit(7);

	submit(8);
	MUST(store_job_identify(store, a, &file, NULL));
	MUST(store_read_begin(store, &read));
	MUST(store_jobs_about(read, &query, jobs, 8, &n));
	cr_assert_eq(n, 2);
	cr_assert_eq(jobs[0].id, b);
	query.has_file_id = true;
	query.file_id = file;
	MUST(store_jobs_about(read, &query, jobs, 8, &n));
	cr_assert_eq(n, 2, "one job under both IDs is one");
	query.build_id.len = 0;
	MUST(store_jobs_about(read, &query, jobs, 8, &n));
	cr_assert_eq(n, 1);
	cr_assert_eq(jobs[0].id, a);
	query.tenant = 2;
	MUST(store_jobs_about(read, &query, jobs, 8, &n));
	cr_assert_eq(n, 0);
}

Test(store_job_submit, refuses_unknown_originals_and_kinds, .init = setup, .fini = teardown)
{
	struct store_job job = {.tenant = 1, .kind = STORE_JOB_ELF, .input_count = 1, .inputs = {{.role = STORE_ROLE_DEBUG}}};
	uint64_t id = 77;

	assert_fails(store_job_submit(store, &job, &id), ERR_NOT_FOUND, "no original 0000");
	job.input_count = STORE_JOB_INPUTS_MAX + 1;
	assert_fails(store_job_submit(store, &job, &id), ERR_INVALID, "5 inputs");
	job.input_count = 0;
	job.kind = 0;
	assert_fails(store_job_submit(store, &job, &id), ERR_INVALID, "kind 0");
	cr_assert_eq(id, 77, "untouched");
	cr_assert_eq(count_in(STORE_JOB_QUEUED), 0);
}

Test(store_job_submit, forgets_the_oldest_that_are_over, .init = setup, .fini = teardown)
{
	reopen_with((struct store_options){.jobs_kept = 3});
	uint64_t waiting = submit(99);
	(void)waiting;
	for (uint64_t i = 1; i <= 8; i++) {
		uint64_t id = submit(i);
		struct store_job job = claim();
		if (job.id != id)
			job = claim();
		MUST(store_job_finish(store, job.id, NULL));
	}
	cr_assert_eq(count_in(STORE_JOB_RUNNING), 1);
	cr_assert_leq(count_in(STORE_JOB_DONE), 3);
}

/* -------------------------------------------------------------------------------------- misses */

static size_t misses(struct store_miss *list, size_t cap)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	size_t n;

	MUST(store_read_begin(store, &read));
	MUST(store_misses(read, list, cap, &n));
	return n;
}

Test(store_miss_note, is_kept_counted_and_gone_when_known, .init = setup, .fini = teardown)
{
	struct store_query by_build = {.tenant = 1, .build_id = build_id_of(1)},
			   by_file = {.tenant = 1, .has_file_id = true, .file_id = file_id_of(2)};
	struct store_miss list[8];

	store_miss_note(store, &by_build);
	store_miss_note(store, &by_build);
	store_miss_note(store, &by_file);
	reopen_with((struct store_options){0});
	cr_assert_eq(misses(list, 8), 2);
	store_miss_note(store, &by_build);
	reopen_with((struct store_options){0});
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_miss miss;
	bool found;
	MUST(store_read_begin(store, &read));
	MUST(store_miss_get(read, &by_build, &miss, &found));
	cr_assert(found);
	cr_assert_eq(miss.count, 3);
	cr_assert_leq(miss.first_asked_ms, miss.last_asked_ms);
	store_read_end(TAKE_PTR(read));
	struct store_file file = file_of(2);
	MUST(store_put_file(store, 1, &file));
	cr_assert_eq(misses(list, 8), 1);
	uint8_t bytes[10] = {0};
	struct store_commit c = {.tenant = 1, .build_id = build_id_of(1), .table = bytes, .table_len = 10, .entry = entry_of(STORE_SOURCE_UPLOAD, 1, "a")};
	MUST(store_commit_table(store, &c, NULL));
	cr_assert_eq(misses(list, 8), 0);
	/* Noted too late: it is known. */
	store_miss_note(store, &by_file);
	reopen_with((struct store_options){0});
	cr_assert_eq(misses(list, 8), 0);
}

Test(store_miss_note, past_the_limit_the_oldest_goes, .init = setup, .fini = teardown)
{
	struct store_miss list[8];

	for (uint64_t i = 1; i <= 5; i++) {
		struct store_query query = {.tenant = 1, .build_id = build_id_of(i)};
		reopen_with((struct store_options){.misses_max = 3});
		usleep(2000);
		store_miss_note(store, &query);
	}
	reopen_with((struct store_options){.misses_max = 3});
	cr_assert_eq(misses(list, 8), 3);
	struct build_id last = build_id_of(5), kept = build_id_of(3);
	cr_assert(build_id_equal(&list[0].query.build_id, &last), "the latest asked first");
	cr_assert(build_id_equal(&list[2].query.build_id, &kept));
}

Test(store_miss_note, drops_new_ones_when_memory_is_full, .init = setup, .fini = teardown)
{
	static struct store_miss list[20000];

	for (uint64_t i = 0; i < 20000; i++) {
		struct store_query query = {.tenant = 1, .has_file_id = true, .file_id = file_id_of(i)};
		store_miss_note(store, &query);
	}
	reopen_with((struct store_options){0});
	size_t n = misses(list, 20000);
	cr_assert_geq(n, 8192);
	cr_assert_leq(n, 20000);
}

// SPDX-License-Identifier: Apache-2.0
#include "ingest/spawn.h"

#include "sandbox/sandbox.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct seen {
	unsigned progress, results;
	bool refuse;
};

static void on_progress(void *context, const struct protocol_progress *progress)
{
	(void)progress;
	((struct seen *)context)->progress++;
}

static struct err *on_result(void *context, const struct protocol_result *result, struct buf *table)
{
	struct seen *seen = context;

	(void)result;
	(void)table;
	seen->results++;
	return seen->refuse ? err_new(ERR_CORRUPT, "table is damaged") : NULL;
}

static int script_fd(const char *script)
{
	int fd = memfd_create("script", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, script, strlen(script)), (ssize_t)strlen(script));
	return fd;
}

static struct spawn_limits default_limits(void)
{
	return (struct spawn_limits){
		.memory_bytes = 64 << 20,
		.max_table_bytes = 1 << 20,
		.max_unpacked_bytes = 64 << 20,
		.deadline_ms = 20000,
		.threads = 2,
	};
}

static struct spawn_report run_with(const char *script, const struct spawn_limits *limits, int stop_fd, struct seen *seen)
{
	int fd = script_fd(script);
	struct spawn_input input = {SPAWN_BINARY, fd};
	struct protocol_handler handler = {seen, on_progress, NULL, on_result};
	struct spawn_request request = {
		.program = FAKE_WORKER,
		.inputs = &input,
		.input_count = 1,
		.scratch_fd = -1,
		.limits = *limits,
		.stop_fd = stop_fd,
		.handler = &handler,
	};
	struct spawn_report report;
	struct err *e = spawn_run(&request, &report);

	cr_assert_null(e, "%s", err_message(e));
	(void)close(fd);
	return report;
}

static struct spawn_report run(const char *script)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {0};

	return run_with(script, &limits, -1, &seen);
}

static void expect(const char *script, enum spawn_outcome outcome, const char *part)
{
	struct spawn_report report = run(script);

	cr_assert_eq(report.outcome, outcome, "%s: %s: %s", script, spawn_outcome_name(report.outcome), report.reason);
	cr_assert_not_null(strstr(report.reason, part), "%s: %s", script, report.reason);
	cr_assert_null(strpbrk(report.reason, "\n\r"), "%s", report.reason);
}

static size_t open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t count = 0;

	while (readdir(dir))
		count++;
	(void)closedir(dir);
	return count;
}

Test(spawn_run, a_worker_that_ends_well_is_done)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {0};
	struct spawn_report report = run_with("empty", &limits, -1, &seen);

	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_str_eq(report.reason, "");
	cr_assert_eq(report.results, 1);
	cr_assert_eq(seen.results, 1);
	cr_assert_gt(report.peak_rss_bytes, 0);
}

Test(spawn_run, threads_run_inside_the_sandbox)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {0};

	limits.memory_bytes = 256 << 20; /* the stacks of eight threads count */
	struct spawn_report report = run_with("threads", &limits, -1, &seen);

	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
}

/* glibc opens a file when it first shrinks a thread's heap, and asks for the size of memory when it first sorts. */
Test(spawn_run, malloc_in_threads_and_qsort_work_inside_the_sandbox)
{
	struct spawn_report report = run("heaps");

	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
}

Test(spawn_run, progress_arrives)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {0};
	struct spawn_report report = run_with("progress", &limits, -1, &seen);

	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_geq(seen.progress, 4);
}

Test(spawn_run, forbidden_network_and_program_calls_kill_and_are_named)
{
	expect("socket", SPAWN_FORBIDDEN, "forbidden system call 41 (socket)");
	expect("exec", SPAWN_FORBIDDEN, "forbidden system call 59 (execve)");
	expect("fork", SPAWN_FORBIDDEN, "forbidden system call 57 (fork)");
}

Test(spawn_run, every_other_forbidden_call_kills_and_is_named)
{
	static const struct {
		const char *script, *part;
	} cases[] = {
		{"open", "system call 257 (openat)"}, {"clone", "(clone)"}, {"mmap-exec", "(mmap)"}, {"mmap-shared", "(mmap)"},
		{"mprotect-exec", "(mprotect)"}, {"kill", "110 ("}, {"sigaction", "(rt_sigaction)"}, {"setrlimit", "(prlimit64)"},
		{"blocked", "forbidden system call"},
	};

	if (!sandbox_is_full())
		cr_skip_test("AddressSanitizer opens files and maps memory itself: its builds have the weaker profile");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect(cases[i].script, SPAWN_FORBIDDEN, cases[i].part);
}

Test(spawn_run, no_descriptor_but_the_workers_own_is_open)
{
	if (!sandbox_is_full())
		cr_skip_test("the number of descriptors is not limited under AddressSanitizer");
	int extra = open("/etc/passwd", O_RDONLY); /* inheritable: the spawn must not hand it on */
	struct spawn_report report = run("descriptors");

	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	(void)close(extra);
}

Test(spawn_run, a_crash_names_the_signal)
{
	expect("crash", SPAWN_CRASHED, "SIGSEGV");
	expect("abort", SPAWN_CRASHED, "crashed with SIGABRT while starting (free(): invalid pointer)");
}

Test(spawn_run, a_hang_is_killed_at_the_deadline)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {0};

	limits.deadline_ms = 300;
	struct spawn_report report = run_with("hang", &limits, -1, &seen);
	cr_assert_eq(report.outcome, SPAWN_DEADLINE, "%s", report.reason);
	cr_assert_not_null(strstr(report.reason, "deadline of 300 ms"), "%s", report.reason);
	cr_assert_lt(report.wall_ms, 5000);
}

Test(spawn_run, a_worker_that_spins_is_killed_at_the_deadline)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {0};

	limits.deadline_ms = 300;
	struct spawn_report report = run_with("spin", &limits, -1, &seen);
	cr_assert_eq(report.outcome, SPAWN_DEADLINE, "%s", report.reason);
	cr_assert_gt(report.cpu_ms, 50);
}

Test(spawn_run, the_memory_ceiling_is_named)
{
	if (!sandbox_is_full())
		cr_skip_test("AddressSanitizer reserves terabytes: no memory limit in its builds");
	expect("memory", SPAWN_MEMORY, "memory ceiling of 64 MiB reached while starting");
}

Test(spawn_run, output_that_ends_early_or_makes_no_sense_is_garbled)
{
	expect("truncate", SPAWN_GARBLED, "ends after 0 of 100 bytes of a table");
	expect("garbage", SPAWN_GARBLED, "broke the protocol");
	expect("linger", SPAWN_GARBLED, "did not end");
}

Test(spawn_run, a_good_last_word_with_a_bad_status_is_a_crash)
{
	expect("status", SPAWN_CRASHED, "status 3");
}

Test(spawn_run, a_flood_on_standard_error_is_swallowed)
{
	struct spawn_report report = run("flood");

	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
}

Test(spawn_run, the_workers_reason_and_needs_are_handed_on)
{
	expect("fail", SPAWN_FAILED, "binary: .debug_info+0x12: nonsense");
	struct spawn_report report = run("needs");
	cr_assert_eq(report.outcome, SPAWN_NEEDS, "%s", report.reason);
	cr_assert_str_eq(report.needs.name, "x.dwz");
	cr_assert_eq(report.needs.build_id.len, 4);
}

Test(spawn_run, a_refused_result_ends_the_worker)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {.refuse = true};
	struct spawn_report report = run_with("empty", &limits, -1, &seen);

	cr_assert_eq(report.outcome, SPAWN_REFUSED);
	cr_assert_str_eq(report.reason, "table is damaged");
}

Test(spawn_run, stop_fd_kills_at_once)
{
	struct spawn_limits limits = default_limits();
	struct seen seen = {0};
	int stop = eventfd(1, EFD_CLOEXEC);
	struct spawn_report report = run_with("hang", &limits, stop, &seen);

	cr_assert_eq(report.outcome, SPAWN_STOPPED, "%s", report.reason);
	cr_assert_lt(report.wall_ms, 5000);
	(void)close(stop);
}

Test(spawn_run, a_program_that_is_not_there_is_an_error)
{
	struct spawn_input input = {SPAWN_BINARY, STDIN_FILENO};
	struct protocol_handler handler = {0};
	struct spawn_request request = {.program = "/nowhere/cairn-worker", .inputs = &input, .input_count = 1, .scratch_fd = -1,
		.limits = default_limits(), .stop_fd = -1, .handler = &handler};
	struct spawn_report report;
	struct err *e = spawn_run(&request, &report);

	cr_assert_eq(err_code(e), ERR_OS);
	cr_assert_not_null(strstr(err_message(e), "/nowhere/cairn-worker"));
	err_free(e);
	request.input_count = 0;
	e = spawn_run(&request, &report);
	cr_assert_eq(err_code(e), ERR_INVALID);
	err_free(e);
}

/* As after kill -9 of cairnd: the worker's parent is gone without a word. */
Test(spawn_run, a_worker_dies_with_its_parent)
{
	int status = 0;

	cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* the orphan becomes ours */
	pid_t parent = fork();
	if (parent == 0) {
		struct spawn_limits limits = default_limits();
		struct seen seen = {0};
		(void)run_with("hang", &limits, -1, &seen);
		_exit(0);
	}
	(void)usleep(300000); /* the worker hangs by now; if not, it dies when it enters the sandbox or writes */
	cr_assert_eq(kill(parent, SIGKILL), 0);
	cr_assert_eq(waitpid(parent, &status, 0), parent);
	cr_assert_gt(waitpid(-1, &status, 0), 0);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status 0x%x", (unsigned)status);
}

Test(spawn_run, leaves_no_descriptor_and_no_process_behind)
{
	static const char *const scripts[] = {"empty", "crash", "socket", "truncate", "garbage", "fail"};

	(void)run("empty");
	size_t before = open_descriptors();
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
		(void)run(scripts[i]);
	cr_assert_eq(open_descriptors(), before);
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
}

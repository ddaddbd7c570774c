// SPDX-License-Identifier: Apache-2.0
/*
 * One worker from start to end.
 *
 *   descriptors   0 /dev/null, 1 our pipe for frames, 2 our pipe for last words, 3.. the inputs, then the scratch file.
 *   starting      sandbox/launch.h: posix_spawn, since the daemon has threads, locks and gigabytes mapped.
 *   running       one poll loop on both pipes, stop_fd and the deadline. Frames are decoded as they come. Last words are
 *                 kept up to LAST_WORDS_MAX, so that a worker that floods its standard error only waits for us.
 *   ending        the pipe's end, or a kill by us; then waitid, whose status decides together with the decoder what
 *                 happened: spawn.h's outcomes. Every descriptor and the process are gone on return, on every path.
 *
 * Reading never waits for the worker's goodwill: a worker that closes the pipe and lives on is killed after GRACE_MS.
 */
#include "ingest/spawn.h"

#include "sandbox/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	LAST_WORDS_MAX = 4096,
	READ_BYTES = 256 * 1024,
	GRACE_MS = 2000,
	ARGUMENTS_MAX = 16,
	ARGUMENT_SIZE = 40,
};

const char *spawn_outcome_name(enum spawn_outcome outcome)
{
	static const char *const names[SPAWN_OUTCOMES] = {
		"done", "needs", "failed", "memory", "forbidden", "crashed", "deadline", "garbled", "refused", "stopped"};

	return outcome < SPAWN_OUTCOMES ? names[outcome] : "unknown";
}

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* One run. -1 for descriptors that are not open. */
struct run {
	const struct spawn_request *request;
	struct spawn_report *report;
	pid_t pid; /* 0: not started, or waited for */
	int output_fd, words_fd;
	struct protocol_decoder decoder;
	struct err *broken; /* what the decoder or the handler said */
	bool by_handler;    /* it was the handler */
	bool stopped, late, lingering; /* why we killed it */
	char words[LAST_WORDS_MAX + 1];
	size_t words_len;
	siginfo_t status;
};

/* ---------------------------------------------------------------------------------------- starting */

struct arguments {
	char text[ARGUMENTS_MAX][ARGUMENT_SIZE];
	char *list[ARGUMENTS_MAX + 1];
	size_t count;
};

static void add_argument(struct arguments *arguments, const char *key, uint64_t value)
{
	char *text = arguments->text[arguments->count];

	(void)snprintf(text, ARGUMENT_SIZE, "%s=%" PRIu64, key, value);
	arguments->list[arguments->count++] = text;
}

static void add_word(struct arguments *arguments, const char *word)
{
	char *text = arguments->text[arguments->count];

	(void)snprintf(text, ARGUMENT_SIZE, "%s", word);
	arguments->list[arguments->count++] = text;
}

static void make_arguments(const struct spawn_request *request, struct arguments *ret)
{
	static const char *const keys[] = {
		[SPAWN_BINARY] = "binary", [SPAWN_DEBUG] = "debug", [SPAWN_SUPPLEMENT] = "supplement", [SPAWN_SPLIT] = "split", [SPAWN_PACKAGE] = "package",
		[SPAWN_SIBLING] = "sibling", [SPAWN_WANTED] = "wanted"};
	const struct spawn_limits *limits = &request->limits;
	bool package = false;
	uint64_t threads = limits->threads < 1 ? 1 : limits->threads > 64 ? 64 : limits->threads;

	*ret = (struct arguments){0};
	add_word(ret, "cairn-worker");
	for (size_t i = 0; i < request->input_count; i++)
		package = package || request->inputs[i].kind == SPAWN_PACKAGE;
	add_word(ret, package ? "package" : "elf");
	add_argument(ret, "memory", limits->memory_bytes);
	add_argument(ret, "table", limits->max_table_bytes);
	add_argument(ret, "unpacked", limits->max_unpacked_bytes);
	/* Threads burn it together; the wall clock is the deadline proper. */
	add_argument(ret, "cpu", (limits->deadline_ms / 1000 + 1) * threads);
	add_argument(ret, "threads", threads);
	for (size_t i = 0; i < request->input_count; i++)
		add_argument(ret, keys[request->inputs[i].kind], PROTOCOL_FD_INPUT + i);
	if (request->alone)
		add_argument(ret, "alone", 1);
	if (request->scratch_fd >= 0)
		add_argument(ret, "scratch", PROTOCOL_FD_INPUT + request->input_count);
	ret->list[ret->count] = NULL;
}

_Static_assert(PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX + 1 <= LAUNCH_FDS_MAX, "all descriptors of a worker can be given");

static struct err *start(struct run *run, int output_fd, int words_fd)
{
	const struct spawn_request *request = run->request;
	CLEANUP(closep) int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int fds[PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX + 1] = {null_fd, output_fd, words_fd};
	size_t count = PROTOCOL_FD_INPUT;
	struct arguments arguments;

	if (null_fd < 0)
		return err_os(errno, "open /dev/null");
	for (size_t i = 0; i < request->input_count; i++)
		fds[count++] = request->inputs[i].fd;
	if (request->scratch_fd >= 0)
		fds[count++] = request->scratch_fd;
	make_arguments(request, &arguments);
	return launch(request->program, arguments.list, fds, count, &run->pid);
}

/* Pipes, descriptors, process. */
static struct err *begin(struct run *run)
{
	int pipe_fds[2];

	if (pipe2(pipe_fds, O_CLOEXEC))
		return err_os(errno, "pipe");
	run->output_fd = pipe_fds[0];
	CLEANUP(closep) int output = pipe_fds[1];
	if (pipe2(pipe_fds, O_CLOEXEC))
		return err_os(errno, "pipe");
	run->words_fd = pipe_fds[0];
	CLEANUP(closep) int words = pipe_fds[1];
	if (fcntl(run->output_fd, F_SETFL, O_NONBLOCK) || fcntl(run->words_fd, F_SETFL, O_NONBLOCK))
		return err_os(errno, "pipe");
	(void)fcntl(run->output_fd, F_SETPIPE_SZ, 1 << 20); /* fewer switches; refused past a user's quota */
	if (run->request->scratch_fd >= 0 && ftruncate(run->request->scratch_fd, 0))
		return err_os(errno, "empty the scratch file");
	return start(run, output, words);
}

/* ---------------------------------------------------------------------------------------- running */

static void close_fd(int *fd)
{
	closep(fd);
	*fd = -1;
}

/* Reads what is there; the end or an error closes. */
static void on_output(struct run *run, uint8_t *block)
{
	ssize_t got = read(run->output_fd, block, READ_BYTES);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		close_fd(&run->output_fd);
		return;
	}
	run->broken = protocol_decode(&run->decoder, block, (size_t)got);
}

static void on_words(struct run *run)
{
	char spill[1024];
	size_t room = LAST_WORDS_MAX - run->words_len;
	ssize_t got = room > 0 ? read(run->words_fd, run->words + run->words_len, room) : read(run->words_fd, spill, sizeof(spill));

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0)
		close_fd(&run->words_fd);
	else if (room > 0)
		run->words_len += (size_t)got;
}

/* Milliseconds for poll until @p deadline; 0 when it has passed. */
static int poll_wait(uint64_t deadline)
{
	uint64_t now = now_ms();

	if (now >= deadline)
		return 0;
	return deadline - now > 60000 ? 60000 : (int)(deadline - now);
}

/* Until both pipes are closed, or there is a reason to kill. */
static struct err *pump(struct run *run, uint64_t deadline)
{
	CLEANUP(freep) uint8_t *block = malloc(READ_BYTES);

	if (!block)
		return err_nomem();
	while (run->output_fd >= 0 && !run->broken) {
		struct pollfd polled[] = {{.fd = run->output_fd, .events = POLLIN},
			{.fd = run->words_fd, .events = POLLIN},
			{.fd = run->request->stop_fd, .events = POLLIN}};
		int wait = poll_wait(deadline);

		if (poll(polled, ARRAY_SIZE(polled), wait) < 0 && errno != EINTR)
			return err_os(errno, "poll");
		if (polled[2].revents) {
			run->stopped = true;
			return NULL;
		}
		if (wait == 0) {
			run->late = true;
			return NULL;
		}
		if (polled[1].revents)
			on_words(run);
		if (polled[0].revents)
			on_output(run, block);
	}
	return NULL;
}

/* The pipe is closed: the process must be gone in a moment. Last words are read to their end, and then it is waited for. */
static void linger(struct run *run)
{
	uint64_t until = now_ms() + GRACE_MS;

	while (run->words_fd >= 0) {
		struct pollfd polled = {.fd = run->words_fd, .events = POLLIN};
		int wait = poll_wait(until);

		if (wait == 0) {
			run->lingering = true;
			return;
		}
		if (poll(&polled, 1, wait) > 0)
			on_words(run);
	}
	for (;;) {
		siginfo_t status = {0};

		if (waitid(P_PID, (id_t)run->pid, &status, WEXITED | WNOHANG | WNOWAIT) || status.si_pid)
			return;
		if (now_ms() >= until) {
			run->lingering = true;
			return;
		}
		(void)poll(NULL, 0, 5);
	}
}

/* Kills what still runs, waits, accounts. The process is ours and not waited for yet, so its number is its own. */
static void reap(struct run *run)
{
	struct rusage usage = {0};
	int status = 0;

	(void)kill(run->pid, SIGKILL);
	while (waitid(P_PID, (id_t)run->pid, &run->status, WEXITED | WNOWAIT) && errno == EINTR)
		;
	while (wait4(run->pid, &status, 0, &usage) < 0 && errno == EINTR)
		;
	run->pid = 0;
	run->report->cpu_ms = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
			      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
	run->report->peak_rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
}

/* ---------------------------------------------------------------------------------------- judging */

/* Makes the last words one short line: the first that is not empty, without control characters. */
static const char *last_words_line(struct run *run)
{
	char *line = run->words;

	run->words[run->words_len] = 0;
	line += strspn(line, "\n\r \t");
	line[strcspn(line, "\n")] = 0;
	if (strlen(line) > 300)
		line[300] = 0;
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return line;
}

static void judge_signal(struct run *run, int number)
{
	struct spawn_report *report = run->report;
	const char *abbreviation = sigabbrev_np(number), *words = last_words_line(run);
	char name[32];

	(void)snprintf(name, sizeof(name), "%s%s", abbreviation ? "SIG" : "signal ", abbreviation ? abbreviation : "");
	if (!abbreviation)
		(void)snprintf(name, sizeof(name), "signal %d", number);
	if (number == SIGSYS) {
		report->outcome = SPAWN_FORBIDDEN;
		(void)snprintf(report->reason, sizeof(report->reason), "worker was killed by its sandbox: %s",
			*words ? words : "forbidden system call");
	} else if (number == SIGXCPU) {
		report->outcome = SPAWN_DEADLINE;
		(void)snprintf(report->reason, sizeof(report->reason), "worker used up its CPU time while %s",
			protocol_phase_name(run->decoder.now.phase));
	} else {
		report->outcome = SPAWN_CRASHED;
		(void)snprintf(report->reason, sizeof(report->reason), "worker crashed with %s while %s%s%s%s", name,
			protocol_phase_name(run->decoder.now.phase), *words ? " (" : "", words, *words ? ")" : "");
	}
}

static void judge_broken(struct run *run)
{
	struct spawn_report *report = run->report;

	report->outcome = run->by_handler ? SPAWN_REFUSED : SPAWN_GARBLED;
	(void)snprintf(report->reason, sizeof(report->reason), "%s", err_message(run->broken));
}

/* It ended by itself. Its status must fit its last word. */
static void judge_exit(struct run *run, int status)
{
	struct spawn_report *report = run->report;
	CLEANUP(err_freep) struct err *e = protocol_decode_finish(&run->decoder);
	const char *words = last_words_line(run);

	if (e || (run->decoder.end != PROTOCOL_END_FAILED && status != 0)) {
		report->outcome = e && status == 0 ? SPAWN_GARBLED : SPAWN_CRASHED;
		(void)snprintf(report->reason, sizeof(report->reason), "%s, and it left with status %d%s%s%s",
			e ? err_message(e) : "worker said it was done", status, *words ? " (" : "", words, *words ? ")" : "");
	} else if (run->decoder.end == PROTOCOL_END_DONE) {
		report->outcome = SPAWN_DONE;
	} else if (run->decoder.end == PROTOCOL_END_NEEDS) {
		report->outcome = SPAWN_NEEDS;
		report->needs = run->decoder.needs;
		(void)snprintf(report->reason, sizeof(report->reason), "worker needs another file: %.900s", report->needs.name);
	} else {
		report->outcome = run->decoder.failure.code == ERR_NOMEM ? SPAWN_MEMORY : SPAWN_FAILED;
		(void)snprintf(report->reason, sizeof(report->reason), "%s", run->decoder.failure.message);
	}
}

static void judge(struct run *run)
{
	struct spawn_report *report = run->report;

	report->results = run->decoder.results;
	if (run->stopped) {
		report->outcome = SPAWN_STOPPED;
		(void)snprintf(report->reason, sizeof(report->reason), "stopped with cairnd");
	} else if (run->late) {
		report->outcome = SPAWN_DEADLINE;
		(void)snprintf(report->reason, sizeof(report->reason), "worker passed its deadline of %" PRIu64 " ms while %s",
			run->request->limits.deadline_ms, protocol_phase_name(run->decoder.now.phase));
	} else if (run->broken) {
		judge_broken(run);
	} else if (run->lingering) {
		report->outcome = SPAWN_GARBLED;
		(void)snprintf(report->reason, sizeof(report->reason), "worker closed its output and did not end");
	} else if (run->status.si_code == CLD_EXITED) {
		judge_exit(run, run->status.si_status);
	} else {
		judge_signal(run, run->status.si_status);
	}
}

/* ---------------------------------------------------------------------------------------- all of it */

/* The handler's refusal is told from the decoder's own complaint. */
static struct err *on_result(void *context, const struct protocol_result *result, struct buf *table)
{
	struct run *run = context;
	const struct protocol_handler *handler = run->request->handler;
	struct err *e = handler->result ? handler->result(handler->context, result, table) : NULL;

	run->by_handler = e != NULL;
	return e;
}

static void on_progress(void *context, const struct protocol_progress *progress)
{
	const struct protocol_handler *handler = ((struct run *)context)->request->handler;

	if (handler->progress)
		handler->progress(handler->context, progress);
}

static void on_skipped(void *context, const char *text)
{
	const struct protocol_handler *handler = ((struct run *)context)->request->handler;

	if (handler->skipped)
		handler->skipped(handler->context, text);
}

static void run_deinit(struct run *run)
{
	if (run->pid)
		reap(run);
	close_fd(&run->output_fd);
	close_fd(&run->words_fd);
	protocol_decoder_deinit(&run->decoder);
	err_free(run->broken);
}

struct err *spawn_run(const struct spawn_request *request, struct spawn_report *ret)
{
	uint64_t started = now_ms();
	struct spawn_report report = {0};
	CLEANUP(run_deinit) struct run run = {.request = request, .report = &report, .output_fd = -1, .words_fd = -1};
	struct protocol_handler handler = {&run, on_progress, on_skipped, on_result};

	if (request->input_count == 0 || request->input_count > PROTOCOL_INPUTS_MAX)
		return err_new(ERR_INVALID, "worker with %zu inputs", request->input_count);
	protocol_decoder_init(&run.decoder, &handler, request->limits.max_table_bytes);
	TRY(begin(&run));
	TRY(pump(&run, started + request->limits.deadline_ms));
	if (!run.stopped && !run.late && !run.broken)
		linger(&run);
	reap(&run);
	judge(&run);
	report.wall_ms = now_ms() - started;
	*ret = report;
	return NULL;
}

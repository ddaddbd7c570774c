// SPDX-License-Identifier: Apache-2.0
/*
 * The child gets the executable and an empty file in memory for its result, and nothing else that it could write but a pipe for
 * last words. When it is gone nobody holds the result but us, so it cannot change while it is read.
 */
#include "agent/builder.h"

#include "sandbox/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROGRAM_MAX = 4096 };

struct builder {
	char program[PROGRAM_MAX];
	pid_t pid; /* 0: idle */
	int result_fd, words_fd;
	bool killed;
	uint64_t deadline_ms;
};

static struct err *find_program(const char *program, char ret[PROGRAM_MAX])
{
	char own[PROGRAM_MAX];
	ssize_t len = readlink("/proc/self/exe", own, sizeof(own) - 1);

	if (program) {
		snprintf(ret, PROGRAM_MAX, "%s", program);
	} else {
		if (len < 0)
			return err_os(errno, "/proc/self/exe");
		own[len] = 0;
		char *slash = strrchr(own, '/');
		if (slash)
			*slash = 0;
		if (snprintf(ret, PROGRAM_MAX, "%s/cairn-unwind", own) >= PROGRAM_MAX)
			return err_new(ERR_LIMIT, "the path of this program is too long");
	}
	return access(ret, X_OK) == 0 ? NULL : err_os(errno, "%s, which makes unwind tables", ret);
}

struct err *builder_create(const char *program, struct builder **ret)
{
	struct builder *b = calloc(1, sizeof(*b));

	if (!b)
		return err_nomem();
	b->result_fd = b->words_fd = -1;
	struct err *e = find_program(program, b->program);
	if (e) {
		free(b);
		return e;
	}
	*ret = b;
	return NULL;
}

static void close_fds(struct builder *b)
{
	closep(&b->result_fd);
	closep(&b->words_fd);
	b->result_fd = b->words_fd = -1;
}

void builder_destroy(struct builder *b)
{
	if (!b)
		return;
	if (b->pid) {
		(void)kill(b->pid, SIGKILL);
		(void)waitpid(b->pid, NULL, 0);
	}
	close_fds(b);
	free(b);
}

bool builder_busy(const struct builder *builder)
{
	return builder->pid != 0;
}

struct err *builder_start(struct builder *b, int binary_fd, int debug_fd, uint64_t now_ms)
{
	char *arguments[] = {"cairn-unwind", debug_fd >= 0 ? "debug" : NULL, NULL};
	int words[2];

	close_fds(b);
	CLEANUP(closep) int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	b->result_fd = memfd_create("cairn-unwind", MFD_CLOEXEC);
	if (null_fd < 0 || b->result_fd < 0)
		return err_os(errno, "starting cairn-unwind");
	if (pipe2(words, O_CLOEXEC | O_NONBLOCK))
		return err_os(errno, "pipe");
	b->words_fd = words[0];
	CLEANUP(closep) int words_fd = words[1];
	int fds[] = {null_fd, b->result_fd, words_fd, binary_fd, debug_fd};
	TRY(launch(b->program, arguments, fds, debug_fd >= 0 ? 5 : 4, &b->pid));
	b->killed = false;
	b->deadline_ms = now_ms + BUILDER_DEADLINE_MS;
	return NULL;
}

/** Its last words, as one line. */
static void read_words(const struct builder *b, char *text, size_t size)
{
	ssize_t len = read(b->words_fd, text, size - 1);

	text[len > 0 ? len : 0] = 0;
	text[strcspn(text, "\n")] = 0;
}

static void judge(const struct builder *b, int status, struct builder_report *ret)
{
	char words[BUILDER_WORDS_MAX];

	read_words(b, words, sizeof(words));
	if (b->killed || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)) {
		ret->outcome = BUILDER_LATE;
		snprintf(ret->reason, sizeof(ret->reason), "%s", b->killed ? "not done within the deadline" : "past its CPU time");
		return;
	}
	ret->outcome = BUILDER_CRASHED;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		snprintf(ret->reason, sizeof(ret->reason), "%s %d%s%s", WIFSIGNALED(status) ? "killed by signal" : "exit",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), words[0] ? ": " : "", words);
		return;
	}
	struct err *e = unwind_result_read(b->result_fd, &ret->head);
	if (e) {
		snprintf(ret->reason, sizeof(ret->reason), "%s", err_message(e));
		err_free(e);
		return;
	}
	ret->outcome = ret->head.outcome == UNWIND_REFUSED ? BUILDER_REFUSED : BUILDER_DONE;
	snprintf(ret->reason, sizeof(ret->reason), "%s", ret->head.reason);
}

bool builder_poll(struct builder *b, uint64_t now_ms, struct builder_report *ret)
{
	struct rusage usage;
	int status = 0;

	if (!b->pid)
		return false;
	if (!b->killed && now_ms >= b->deadline_ms) {
		(void)kill(b->pid, SIGKILL);
		b->killed = true;
	}
	pid_t gone = wait4(b->pid, &status, WNOHANG, &usage);
	if (gone == 0 || (gone < 0 && errno == EINTR))
		return false;
	b->pid = 0;
	*ret = (struct builder_report){.result_fd = b->result_fd};
	if (gone < 0) {
		ret->outcome = BUILDER_CRASHED;
		snprintf(ret->reason, sizeof(ret->reason), "cannot be waited for");
		return true;
	}
	ret->cpu_ns = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
		      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
	ret->peak_rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
	judge(b, status, ret);
	return true;
}

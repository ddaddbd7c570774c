// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/verify_child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

/* What goes through the pipe before the result. */
struct answer {
	uint32_t failed; /* 1: code and message are an error's, no result follows */
	uint32_t code;
	char message[1024];
};

struct child {
	pid_t pid;
	int fd;
	uint64_t deadline_ms; /* UINT64_MAX: none */
};

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool write_all(int fd, const void *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)bytes + done, len - done);

		if (n < 0 && errno != EINTR)
			return false;
		done += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void apply_limits(const struct verify_child_limits *limits)
{
	const struct rlimit none = {0};

	(void)setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__
	const struct rlimit memory = {.rlim_cur = limits->memory_bytes, .rlim_max = limits->memory_bytes};
	if (limits->memory_bytes > 0)
		(void)setrlimit(RLIMIT_AS, &memory);
#endif
	const struct rlimit cpu = {.rlim_cur = limits->seconds, .rlim_max = (rlim_t)limits->seconds + 1};
	if (limits->seconds > 0)
		(void)setrlimit(RLIMIT_CPU, &cpu);
}

/* The child: a failed write is seen by the parent as a missing answer. */
static void answer(int fd, struct err *e, const void *result, size_t result_len)
{
	struct answer head = {.failed = e != NULL};

	if (e) {
		head.code = err_code(e);
		(void)snprintf(head.message, sizeof(head.message), "%s", err_message(e));
	}
	if (write_all(fd, &head, sizeof(head)) && !e)
		(void)write_all(fd, result, result_len);
	err_free(e);
}

/* Exactly @p len bytes; false at the end of the stream, ERR_LIMIT past the deadline. */
static struct err *read_exactly(const struct child *child, void *bytes, size_t len, bool *ret)
{
	*ret = false;
	for (size_t done = 0; done < len;) {
		struct pollfd wait = {.fd = child->fd, .events = POLLIN};
		uint64_t now = now_ms();
		int timeout = child->deadline_ms == UINT64_MAX ? -1 : now >= child->deadline_ms ? 0 : (int)(child->deadline_ms - now);

		int ready = poll(&wait, 1, timeout);
		if (ready < 0 && errno != EINTR)
			return err_os(errno, "poll");
		if (ready == 0)
			return err_new(ERR_LIMIT, "the reference walk took longer than its time limit");
		if (ready < 0)
			continue;
		ssize_t n = read(child->fd, (char *)bytes + done, len - done);
		if (n < 0 && errno != EINTR)
			return err_os(errno, "read");
		if (n == 0)
			return NULL;
		done += n > 0 ? (size_t)n : 0;
	}
	*ret = true;
	return NULL;
}

/* Why a child that gave no answer ended. */
static struct err *describe_end(int status)
{
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
		return err_new(ERR_LIMIT, "the reference walk took longer than its time limit");
	if (WIFSIGNALED(status))
		return err_new(ERR_INTERNAL, "the reference walk crashed: signal %d (%s); libdwarf 20210528 does on damaged DWARF",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	return err_new(ERR_INTERNAL, "the reference walk ended without a result: status %d", WEXITSTATUS(status));
}

static struct err *receive(const struct child *child, struct answer *head, void *result, size_t result_len, bool *ret)
{
	TRY(read_exactly(child, head, sizeof(*head), ret));
	if (*ret && !head->failed)
		TRY(read_exactly(child, result, result_len, ret));
	return NULL;
}

static struct err *collect(const struct child *child, void *result, size_t result_len)
{
	struct answer head;
	bool answered = false;
	void *copy CLEANUP(freep) = malloc(result_len);
	struct err *e = copy ? receive(child, &head, copy, result_len, &answered) : err_nomem();
	int status = 0;

	if (e)
		(void)kill(child->pid, SIGKILL);
	while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (e)
		return e;
	if (!answered)
		return describe_end(status);
	if (head.failed)
		return err_new((enum err_code)head.code, "%.*s", (int)sizeof(head.message) - 1, head.message);
	memcpy(result, copy, result_len);
	return NULL;
}

struct err *verify_child_run(struct err *(*work)(void *context, void *result), void *context, const struct verify_child_limits *limits,
	void *result, size_t result_len)
{
	int fds[2];

	if (pipe(fds) != 0)
		return err_os(errno, "pipe");
	(void)fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		int error = errno;
		(void)close(fds[0]);
		(void)close(fds[1]);
		return err_os(error, "fork");
	}
	if (pid == 0) {
		(void)close(fds[0]);
		apply_limits(limits);
		answer(fds[1], work(context, result), result, result_len);
		/* Nothing of the parent's is to be flushed or run twice. */
		_exit(0);
	}
	(void)close(fds[1]);
	const struct child child = {
		.pid = pid, .fd = fds[0], .deadline_ms = limits->seconds ? now_ms() + (uint64_t)limits->seconds * 1000 : UINT64_MAX};
	struct err *e = collect(&child, result, result_len);
	(void)close(fds[0]);
	return e;
}

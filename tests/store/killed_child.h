// SPDX-License-Identifier: Apache-2.0
/*
 * A child that works and reports what was acknowledged, until it is killed with kill -9 after a while. The reports go through a pipe
 * that is emptied while the child lives, so that it never waits for us, and once more after its death.
 */
#ifndef CAIRN_TESTS_STORE_KILLED_CHILD_H
#define CAIRN_TESTS_STORE_KILLED_CHILD_H

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILLED_CHILD_REPORT_MAX = 256, KILLED_CHILD_POLL_US = 300 };

struct killed_child {
	/* In the child: works without end, writes reports of report_size bytes to @p fd. Must not return. */
	void (*work)(void *arg, int fd);
	/* In the parent: one report. */
	void (*remember)(void *arg, const void *report);
	void *arg;
	size_t report_size; /* at most KILLED_CHILD_REPORT_MAX, so that a write to the pipe is atomic */
};

static inline void killed_child_reports(const struct killed_child *c, int fd)
{
	_Alignas(16) char report[KILLED_CHILD_REPORT_MAX];

	while (read(fd, report, c->report_size) == (ssize_t)c->report_size)
		c->remember(c->arg, report);
}

static inline uint64_t killed_child_now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Lets the child live for @p life_us microseconds. Ends the program if the child ends in any other way. */
static inline void killed_child_run(const struct killed_child *c, unsigned life_us)
{
	int fds[2], status;

	if (c->report_size > KILLED_CHILD_REPORT_MAX || pipe(fds))
		abort();
	pid_t pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		(void)close(fds[0]);
		c->work(c->arg, fds[1]);
		abort();
	}
	(void)close(fds[1]);
	uint64_t end = killed_child_now_us() + life_us;
	(void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
	do {
		killed_child_reports(c, fds[0]);
		(void)usleep(KILLED_CHILD_POLL_US);
	} while (killed_child_now_us() < end);
	(void)kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		(void)fprintf(stderr, "the child ended by itself: status 0x%x\n", (unsigned)status);
		abort();
	}
	(void)fcntl(fds[0], F_SETFL, 0);
	killed_child_reports(c, fds[0]);
	(void)close(fds[0]);
}

#endif

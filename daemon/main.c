// SPDX-License-Identifier: Apache-2.0
/*
 * cairnd: configuration, signals, start, wait, stop. Everything else is in the libraries.
 * Exit 0 after a drain, 1 when it cannot start, 2 for wrong usage.
 */
#include "base/log.h"
#include "base/standard.h"
#include "daemon/daemon.h"
#include "daemon/notify.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

enum { TICK_S = 60 };

/* Connections are descriptors: take as many as the system gives. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* Blocked before any thread starts, so that only main's wait sees them. */
static void block_signals(sigset_t *set)
{
	(void)sigemptyset(set);
	(void)sigaddset(set, SIGTERM);
	(void)sigaddset(set, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

static int wait_for_signal(struct daemon *daemon, const sigset_t *set)
{
	const struct timespec tick = {.tv_sec = TICK_S};

	for (;;) {
		int number = sigtimedwait(set, NULL, &tick);
		if (number > 0)
			return number;
		if (errno == EAGAIN)
			daemon_tick(daemon);
	}
}

static struct err *run(const struct settings *settings)
{
	struct daemon *daemon;
	sigset_t set;

	block_signals(&set);
	raise_descriptor_limit();
	(void)umask(027);
	TRY(daemon_start(settings, &daemon));
	log_info("start", "version=%s %s data_dir=\"%s\"", CAIRN_VERSION, daemon_addresses(daemon), settings->data_dir);
	(void)printf("cairnd ready %s\n", daemon_addresses(daemon));
	(void)fflush(stdout);
	notify_systemd("READY=1");

	int number = wait_for_signal(daemon, &set);
	log_info("stop", "signal=%s drain_ms=%llu", sigabbrev_np(number), (unsigned long long)settings->drain_ms);
	notify_systemd("STOPPING=1");
	daemon_stop(daemon);
	log_info("stopped", "clean=yes");
	return NULL;
}

int main(int argc, char **argv)
{
	struct settings settings = {0};
	enum settings_wish wish;
	enum log_level level;
	int status = 0;

	standard_hold();
	struct err *e = settings_read(argc, argv, &settings, &wish);
	if (e)
		status = err_code(e) == ERR_INVALID ? 2 : 1;
	if (!e && wish == SETTINGS_RUN) {
		if (log_level_parse(settings.log_level, &level))
			log_set_level(level);
		e = run(&settings);
		status = e ? 1 : 0;
	}
	if (e)
		(void)fprintf(stderr, "cairnd: %s\n", err_message(e));
	err_free(e);
	settings_deinit(&settings);
	return status;
}

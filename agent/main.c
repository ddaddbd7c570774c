// SPDX-License-Identifier: Apache-2.0
/* cairn-agent: settings, signals, run. Exit 0 after the last samples were delivered, 1 with a line that says why not, 2 for wrong usage. */
#include "agent/options.h"
#include "agent/run.h"
#include "base/log.h"
#include "base/standard.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	stopped = number;
}

/* cairn-unwind has ended: breaks the wait for samples. */
static void on_child(int number)
{
	(void)number;
}

int main(int argc, char **argv)
{
	struct options options = {0};
	enum options_wish wish;
	enum log_level level;
	int status = 0;

	standard_hold();
	/* One arena: the threads that come and go (connecting) allocate little. */
	(void)mallopt(M_ARENA_MAX, 1);
	(void)signal(SIGINT, on_signal);
	(void)signal(SIGTERM, on_signal);
	(void)signal(SIGCHLD, on_child);
	(void)signal(SIGPIPE, SIG_IGN);
	struct err *e = options_read(argc, argv, &options, &wish);
	if (e)
		status = err_code(e) == ERR_INVALID ? 2 : 1;
	if (!e && wish == OPTIONS_RUN) {
		if (log_level_parse(options.verbose ? "debug" : options.log_level, &level))
			log_set_level(level);
		e = run_agent(&options, &stopped);
		status = e ? 1 : 0;
	}
	if (e)
		(void)fprintf(stderr, "cairn-agent: %s\n", err_message(e));
	err_free(e);
	options_deinit(&options);
	return status;
}

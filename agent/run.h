// SPDX-License-Identifier: Apache-2.0
/* The agent at work: the kernel's half, the processes, and where samples go, on one thread. */
#ifndef CAIRN_AGENT_RUN_H
#define CAIRN_AGENT_RUN_H

#include "agent/options.h"

#include <signal.h>

/**
 * Samples until the window of --once ends or @p stopped is not 0, and delivers what it has. Logs.
 * @param stopped  set by a signal handler
 */
struct err *run_agent(const struct options *options, const volatile sig_atomic_t *stopped) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Starts a program with the descriptors that it is given, and nothing else of ours: how a sandboxed program begins.
 */
#ifndef CAIRN_SANDBOX_LAUNCH_H
#define CAIRN_SANDBOX_LAUNCH_H

#include "base/err.h"

#include <stddef.h>
#include <sys/types.h>

enum { LAUNCH_FDS_MAX = 16 };

/**
 * posix_spawn: a fork would copy the caller's page tables and run handlers. The child's descriptor i is @p fds[i], all others
 * are closed; signals are unblocked and default; it leads a process group of its own, so that a Ctrl-C at the terminal is the
 * caller's to handle; its environment is empty but for the sanitizers' options.
 * @param arguments  NULL-terminated
 * @param fds        borrowed; may be given more than once
 * @return NULL and the child's ID; ERR_OS; ERR_INVALID: more than LAUNCH_FDS_MAX. Any thread.
 */
struct err *launch(const char *program, char *const arguments[], const int *fds, size_t count, pid_t *ret) MUST_USE;

#endif

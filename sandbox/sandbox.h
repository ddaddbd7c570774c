// SPDX-License-Identifier: Apache-2.0
/*
 * What a process that parses strangers' bytes gives up before it reads the first of them: see docs/worker.md.
 */
#ifndef CAIRN_SANDBOX_SANDBOX_H
#define CAIRN_SANDBOX_SANDBOX_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct sandbox_limits {
	uint64_t memory_bytes;	/* private writable memory (RLIMIT_DATA) */
	uint64_t mapped_bytes;	/* of inputs and scratch that will be mapped; the address space may hold memory_bytes, these and some room */
	uint64_t cpu_seconds;	/* SIGXCPU, then SIGKILL a second later */
	uint64_t file_bytes;	/* the scratch file */
	int last_fd;		/* descriptors above it are closed, and no new ones can be made */
	bool has_one_thread; /* it starts no other: none has to be made ready for */
};

/**
 * Shuts the door, for the whole process and for good: resource limits, no new privileges, no dumps, dies with its parent,
 * seccomp. Afterwards any system call off the list kills the process with SIGSYS after it has said
 * "forbidden system call N (name)" on standard error; there is no opening of files, no network, no new program, no new
 * executable memory. Whatever opens files on first use (libcrypto, iconv, locale) must have been used before.
 * Call once, from the only thread. ERR_OS, ERR_INTERNAL: libseccomp; ERR_NOMEM.
 */
struct err *sandbox_enter(const struct sandbox_limits *limits) MUST_USE;

/** False in builds with AddressSanitizer, which needs files, maps and memory of its own: then only the network and new programs
 *  are forbidden and there is no memory limit. */
bool sandbox_is_full(void);

#endif

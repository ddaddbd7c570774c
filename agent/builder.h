// SPDX-License-Identifier: Apache-2.0
/*
 * Runs cairn-unwind, one at a time: never waits for it, kills it when it is late, and says what became of it. One thread.
 */
#ifndef CAIRN_AGENT_BUILDER_H
#define CAIRN_AGENT_BUILDER_H

#include "agent/unwind/result.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	BUILDER_DEADLINE_MS = 60 * 1000, /* on the wall: it is niced, and the machine may be busy; of CPU it has 10 s */
	BUILDER_WORDS_MAX = 200,
};

enum builder_outcome {
	BUILDER_DONE,
	BUILDER_REFUSED, /* the file: not ELF64 for x86-64, damaged, past a limit */
	BUILDER_CRASHED, /* a signal, a forbidden system call, a result that is none */
	BUILDER_LATE,	 /* the deadline, or its limit of CPU time */
	BUILDER_OUTCOMES,
};

struct builder_report {
	enum builder_outcome outcome;
	struct unwind_result head; /* BUILDER_DONE */
	int result_fd;		   /* BUILDER_DONE: for unwind_result_infos and others; the builder's, until the next start */
	uint64_t cpu_ns, peak_rss_bytes;
	char reason[UNWIND_RESULT_REASON_MAX + BUILDER_WORDS_MAX]; /* one line; "" when done */
};

struct builder;
/** @param program  path of cairn-unwind; NULL: beside this program. ERR_OS: it is not there; ERR_NOMEM. */
struct err *builder_create(const char *program, struct builder **ret) MUST_USE;
/** Kills and reaps what runs. */
void builder_destroy(struct builder *builder);
bool builder_busy(const struct builder *builder);
/**
 * Starts on a file; not while busy. SIGCHLD tells of the end.
 * @param binary_fd  borrowed for the call
 * @param debug_fd   its debug file, or -1
 * @return NULL; ERR_OS: it could not be started
 */
struct err *builder_start(struct builder *builder, int binary_fd, int debug_fd, uint64_t now_ms) MUST_USE;
/** True once when what was started has ended, and what became of it. */
bool builder_poll(struct builder *builder, uint64_t now_ms, struct builder_report *ret);

#endif

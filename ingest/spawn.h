// SPDX-License-Identifier: Apache-2.0
/*
 * One run of cairn-worker: descriptors in, frames out, and a plain word for every way in which it can go wrong. Never forks
 * from the threaded daemon: posix_spawn, then one thread polls until the worker is gone.
 */
#ifndef CAIRN_INGEST_SPAWN_H
#define CAIRN_INGEST_SPAWN_H

#include "base/err.h"
#include "ingest/protocol.h"

#include <stdbool.h>
#include <stdint.h>

enum spawn_input_kind {
	SPAWN_BINARY,	  /* an ELF runtime file, or a debug file when it stands alone */
	SPAWN_DEBUG,	  /* its debug file */
	SPAWN_SUPPLEMENT, /* the file that .gnu_debugaltlink names (dwz) */
	SPAWN_SPLIT,	  /* split DWARF: a .dwp, a .dwo, or an ar archive of .dwo files */
	SPAWN_PACKAGE,	  /* .deb, .ddeb; with no runtime or debug file */
	SPAWN_SIBLING,	  /* with a package: another one, which has the supplement */
	SPAWN_WANTED,	  /* with a package: whose symbols are wanted, a line of hex each */
};

struct spawn_input {
	enum spawn_input_kind kind;
	int fd; /* borrowed; open for reading, seekable */
};

struct spawn_limits {
	uint64_t memory_bytes;	   /* of the worker's own memory (mapped inputs are not counted) */
	uint64_t max_table_bytes;  /* of one table */
	uint64_t max_unpacked_bytes; /* of all members of a package, and of the scratch file */
	uint64_t deadline_ms;	   /* from start to end; its CPU limit follows from it */
	uint32_t threads;	   /* of the builder */
};

struct spawn_request {
	const char *program; /* path of cairn-worker */
	const struct spawn_input *inputs;
	size_t input_count;
	int scratch_fd; /* an unlinked file for unpacking, -1: none; emptied first. Borrowed */
	struct spawn_limits limits;
	bool alone; /* what it would ask for is not to be had */
	int stop_fd; /* when it becomes readable the worker is killed; -1: none */
	const struct protocol_handler *handler;
};

/* What happened, for counters and for deciding whether another try makes sense. */
enum spawn_outcome {
	SPAWN_DONE,	 /* all results were delivered */
	SPAWN_NEEDS,	 /* `needs` says what */
	SPAWN_FAILED,	 /* the worker said why: the input's fault, mostly */
	SPAWN_MEMORY,	 /* the memory ceiling */
	SPAWN_FORBIDDEN, /* a forbidden system call: the sandbox killed it */
	SPAWN_CRASHED,	 /* a signal, or an exit status that it should not have */
	SPAWN_DEADLINE,	 /* killed when the deadline passed, or by its CPU limit */
	SPAWN_GARBLED,	 /* it broke the protocol, or ended too early */
	SPAWN_REFUSED,	 /* the handler returned an error */
	SPAWN_STOPPED,	 /* stop_fd */
	SPAWN_OUTCOMES,
};
/** "done", "needs", "failed", .. : a label for counters. */
const char *spawn_outcome_name(enum spawn_outcome outcome);

struct spawn_report {
	enum spawn_outcome outcome;
	struct protocol_needs needs; /* SPAWN_NEEDS */
	uint32_t results;	     /* delivered to the handler */
	uint64_t wall_ms;
	uint64_t cpu_ms;	/* user and system */
	uint64_t peak_rss_bytes; /* ru_maxrss: with mapped inputs */
	char reason[PROTOCOL_TEXT_MAX + 1]; /* one line; "" for SPAWN_DONE */
};

/**
 * Runs one worker to its end; handler functions are called from here. The worker is gone and waited for when this returns.
 * Blocks up to the deadline. Any thread that may block; the thread must outlive the call (the worker dies with it).
 * @return NULL, with whatever happened to the worker in @p ret; ERR_OS: it could not be started; ERR_INVALID: too many inputs.
 */
struct err *spawn_run(const struct spawn_request *request, struct spawn_report *ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/* What the tests of cairn-worker share: a folder to make inputs in, and one run of the real program as cairnd runs it. */
#ifndef CAIRN_TESTS_WORKER_RUN_H
#define CAIRN_TESTS_WORKER_RUN_H

#include "ingest/spawn.h"

enum { RUN_RESULTS_MAX = 16, RUN_TABLE_MAX = 1 << 20 };

struct run_result {
	struct protocol_result facts;
	size_t table_len;
	uint8_t table[RUN_TABLE_MAX];
};

struct run_seen {
	size_t count, skipped;
	struct run_result results[RUN_RESULTS_MAX];
	char skipped_text[4096]; /* one a line */
	unsigned phases; /* bits */
};

/** A fresh folder with `sample` (as compiled), `stripped`, `debug` (its debug file); the working directory from now on. */
void run_folder(void);
/** Runs a shell command there; the test fails when it fails. */
void run_shell(const char *command);
struct spawn_limits run_limits(void);
/** @p debug NULL: none. */
struct spawn_report run_elf(const char *binary, const char *debug, const struct spawn_limits *limits, struct run_seen *seen);
struct spawn_report run_supplement(const char *binary, const char *supplement, const struct spawn_limits *limits, struct run_seen *seen);
struct run_package {
	const char *package, *sibling, *supplement, *wanted; /* paths; NULL: none but the package */
	bool alone;
};
struct spawn_report run_package_with(const struct run_package *with, const struct spawn_limits *limits, struct run_seen *seen);
struct spawn_report run_package(const char *package, const struct spawn_limits *limits, struct run_seen *seen);

#endif

// SPDX-License-Identifier: Apache-2.0
/* What the store's Criterion suites share: a store per test, checked for faults when the test is over, and refusals told by their words. */
#ifndef CAIRN_TESTS_STORE_SUITE_H
#define CAIRN_TESTS_STORE_SUITE_H

#include "tests/store/fixture.h"

#include <criterion/criterion.h>

static char dir[64];
static struct store *store;

static inline void setup(void)
{
	temp_dir_make(dir);
	store = open_at(dir);
}

static inline void teardown(void)
{
	struct check_log log;
	uint64_t faults = store ? faults_of(store, &log, NULL) : 0;

	store_close(store);
	temp_dir_remove(dir);
	cr_assert_eq(faults, 0, "%s", log.first);
}

static inline void reopen_with(struct store_options options)
{
	store_close(store);
	options.data_dir = dir;
	options.map_max = 64ull << 30;
	MUST(store_open(&options, &store));
}

static inline void assert_fails(struct err *e, enum err_code code, const char *words)
{
	cr_assert_not_null(e, "no error");
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert(strstr(err_message(e), words), "%s", err_message(e));
	err_free(e);
}

#endif

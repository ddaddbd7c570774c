// SPDX-License-Identifier: Apache-2.0
/*
 * `cairn sync`: packages ahead of need, by name or pattern, with the debug packages of those programs, or the programs of those debug
 * packages. One run at a time, on a thread of its own; what was built once is not fetched again. Internal; sources.h has the outside.
 */
#ifndef CAIRN_SOURCES_SYNC_H
#define CAIRN_SOURCES_SYNC_H

#include "sources/packages.h"
#include "sources/sources.h"

struct sync;

struct sync_options {
	struct store *store;
	struct store_sources *db;
	struct packages *packages;
	struct source *const *sources; /* borrowed */
	const size_t *source_count;
};
struct err *sync_create(const struct sync_options *options, struct sync **ret) MUST_USE;
/** Ends a run after the package at hand. NULL is fine. */
void sync_destroy(struct sync *sync);
/** As sources_sync. */
struct err *sync_begin(struct sync *sync, const char *const *patterns, size_t count, bool dry_run, uint64_t *run_ret) MUST_USE;
void sync_progress(struct sync *sync, struct sources_sync_progress *ret);
/** As sources_sync_package. */
bool sync_package(struct sync *sync, size_t index, struct sources_sync_package *ret);

#endif

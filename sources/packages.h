// SPDX-License-Identifier: Apache-2.0
/*
 * One fetch a package, however many files of it are wanted, and by whom: those who come while it is on its way put their build IDs on its
 * list and get its job; the job builds what is on the list. Afterwards the package is kept for a while, since programs of one package
 * are seen together, and then forgotten. Internal.
 */
#ifndef CAIRN_SOURCES_PACKAGES_H
#define CAIRN_SOURCES_PACKAGES_H

#include "sources/source.h"

struct packages;

struct packages_options {
	struct store *store;
	struct store_sources *db;
	uint64_t keep_bytes, keep_ms; /* packages that are kept for the next one: in all, and since they were last wanted */
};
struct err *packages_create(const struct packages_options *options, struct packages **ret) MUST_USE;
/** NULL is fine. Nobody may be inside. */
void packages_destroy(struct packages *packages);

struct package_wanted {
	struct source *source;
	const struct source_file *file; /* to be fetched */
	const struct store_job *job;	/* tenant, source, rank, provenance */
	const struct build_id *build_id; /* of the file that is wanted; NULL: all */
};
struct package_taken {
	enum store_ask_answer answer; /* FOUND: the job is durable; else `text` */
	uint64_t job_id, bytes;
	char text[STORE_ASK_TEXT_SIZE];
};
/** Blocks until the package is here and its job is queued. ERR_OS, ERR_NOMEM. Any thread. */
struct err *packages_take(struct packages *packages, const struct package_wanted *wanted, struct package_taken *ret) MUST_USE;
/** Forgets what was kept long enough. Any thread; call it now and then. */
struct err *packages_prune(struct packages *packages) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * From a request to its answer's bytes: IDs resolved, tables used in place, frames encoded. Knows no HTTP, so that gRPC
 * takes the same way.
 */
#ifndef CAIRN_API_SYMBOLIZE_H
#define CAIRN_API_SYMBOLIZE_H

#include "api/answer.h"
#include "store/store.h"

/* How the addresses of a request came out, for metrics. */
struct api_symbolize_counts {
	uint64_t results[API_RESULT_COUNT];
	uint64_t modules[API_MODULE_FAILED + 1]; /* by enum api_module_status */
	uint64_t addresses_without_module;	 /* of modules whose status is not ok */
	uint64_t frames;
};

/* What one request at a time needs and the next one uses again: buffers, remembered names. */
struct api_symbolizer;

/** @p names_bytes: how much of names is remembered. ERR_NOMEM. */
struct err *api_symbolizer_create(size_t names_bytes, struct api_symbolizer **ret) MUST_USE;
/** NULL is fine. */
void api_symbolizer_destroy(struct api_symbolizer *symbolizer);

/**
 * True in @p ret when some module's symbols are still being made, so that an answer may be worth waiting for.
 * Worker threads only (reads the store). O(modules).
 */
struct err *api_symbolize_is_pending(struct store *store, const struct api_symbolize_request *request, bool *ret) MUST_USE;

/**
 * Answers a request in one read of the store.
 * @param limit  bytes of the answer
 * @return NULL; ERR_LIMIT: the answer passes @p limit; ERR_CORRUPT and others of the store; ERR_NOMEM. Worker threads only.
 */
struct err *api_symbolize_run(struct api_symbolizer *symbolizer, struct store *store,
	const struct api_symbolize_request *request, enum api_format format, size_t limit, struct buf *ret,
	struct api_symbolize_counts *counts_ret) MUST_USE;

/* What is known of an ID: the module status that it has, and why. Also for GET /v1/files/{id}. */
struct api_known {
	enum api_module_status status;
	uint32_t retry_after_s; /* 0: none */
	char reason[STORE_REASON_SIZE + 64];
	struct store_answer answer;
};

/** Resolves one query. Thread and errors as store_resolve. */
struct err *api_known_resolve(struct store_read *read, const struct store_query *query, struct api_known *ret) MUST_USE;

/**
 * Where nothing is known, or a file without symbols, lets the sources be asked (once) and says what they said: the status may become
 * pending, the reason gets longer. Never blocks on a network. NULL @p sources changes nothing.
 */
void api_known_ask(struct sources *sources, uint64_t requester, const struct store_query *query, struct api_known *known);
/**
 * For addresses that are file offsets: they say nothing without the load segments of the runtime file, whatever symbols there are. Where
 * these are not known, an ok becomes unknown, with the reason, and then is asked as above.
 */
void api_known_ask_offsets(struct sources *sources, uint64_t requester, const struct store_query *query, struct api_known *known);

/** The best kind of debug info of an entry's kinds as a word: "dwarf", "gopclntab", "symtab", "gnu_debugdata", "dynsym". */
const char *api_kind_name(uint32_t kinds);

#endif

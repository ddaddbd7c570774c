// SPDX-License-Identifier: Apache-2.0
/*
 * Writing the answer to `POST /v1/symbolize`, as JSON or as cairn.v1.SymbolizeResponse, in one pass: frames go from the
 * table straight into the answer's buffer, by copy. Calls in this order:
 *     api_answer_begin, { api_answer_module, api_answer_result for each address, api_answer_module_end }, api_answer_end
 * One thread at a time.
 */
#ifndef CAIRN_API_ANSWER_H
#define CAIRN_API_ANSWER_H

#include "api/names.h"
#include "base/buf.h"

enum api_format { API_FORMAT_JSON, API_FORMAT_PROTOBUF };

/* Numbers as in the .proto. */
enum api_module_status {
	API_MODULE_OK = 1,
	API_MODULE_PENDING,
	API_MODULE_UNKNOWN,
	API_MODULE_NO_SYMBOLS,
	API_MODULE_FAILED,
};
/** "ok", "pending", "unknown", "no_symbols", "failed". */
const char *api_module_status_name(enum api_module_status status);

enum api_result_status { API_RESULT_OK, API_RESULT_NO_SYMBOL, API_RESULT_OUT_OF_RANGE, API_RESULT_COUNT };
/** "ok", "no_symbol", "out_of_range". */
const char *api_result_status_name(enum api_result_status status);

/* What an answer says of a module besides its results. Text is borrowed for the call. */
struct api_module_head {
	bool has_file_id;
	struct fileid file_id;
	struct build_id build_id;
	enum api_module_status status;
	const char *reason;	/* "" when there is none */
	uint32_t retry_after_s; /* 0: none */
	const char *source;	/* NULL unless status is OK */
	const char *kind;
	size_t results; /* addresses; for sizing only */
};

struct api_answer;

/**
 * @param names   borrowed; what it remembers is used and added to
 * @param limit   bytes of the answer; past it ERR_LIMIT
 */
struct err *api_answer_begin(enum api_format format, enum api_demangle demangle, struct api_names *names, size_t limit,
	struct api_answer **ret) MUST_USE;

/** @p table and @p table_id are used until the module's end; NULL when the status is not OK. ERR_NOMEM, ERR_LIMIT. */
struct err *api_answer_module(struct api_answer *answer, const struct api_module_head *head, const struct table *table,
	const struct sha256 *table_id) MUST_USE;
/** The next address's frames; only in a module whose status is OK. ERR_NOMEM, ERR_LIMIT. */
struct err *api_answer_result(struct api_answer *answer, enum api_result_status status, const struct table_frame *frames,
	size_t count) MUST_USE;
struct err *api_answer_module_end(struct api_answer *answer) MUST_USE;
/** Moves the finished bytes out. */
struct err *api_answer_end(struct api_answer *answer, struct buf *ret) MUST_USE;
/** NULL is fine, at any point. */
void api_answer_destroy(struct api_answer *answer);
/** For CLEANUP. */
void api_answer_destroyp(struct api_answer **answer);

#endif

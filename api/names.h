// SPDX-License-Identifier: Apache-2.0
/*
 * Names as an answer shows them, kept from request to request: demangling and escaping cost some microseconds a name, a
 * lookup in here some nanoseconds, and a batch asks for thousands. Keyed by table, number of the function or file in its
 * table, and form; a table never changes, so nothing goes stale. Bounded: past the limit all of it is forgotten.
 * One thread at a time.
 */
#ifndef CAIRN_API_NAMES_H
#define CAIRN_API_NAMES_H

#include "api/symbolize_request.h"
#include "base/digest.h"
#include "symbolizer/table/table.h"

#include <stddef.h>

struct api_names;

struct api_text {
	uint32_t len;
	char bytes[]; /* no NUL at the end */
};

/** @p limit_bytes: how much is remembered, about. ERR_NOMEM. */
struct err *api_names_create(size_t limit_bytes, struct api_names **ret) MUST_USE;
/** NULL is fine. */
void api_names_destroy(struct api_names *names);
/** For CLEANUP. */
void api_names_destroyp(struct api_names **names);

/** The table whose frames come next; @p id is its content address. May forget everything. ERR_NOMEM. */
struct err *api_names_use_table(struct api_names *names, const struct sha256 *id) MUST_USE;

/** The function's name as asked, plain. Texts are borrowed until the next api_names_use_table. ERR_NOMEM. */
struct err *api_names_function(struct api_names *names, const struct table_frame *frame, enum api_demangle how,
	const struct api_text **ret) MUST_USE;
/** The members `,"function":".."` and, where it differs, `,"symbol":".."`, escaped; empty when the function is unknown. */
struct err *api_names_function_json(struct api_names *names, const struct table_frame *frame, enum api_demangle how,
	const struct api_text **ret) MUST_USE;
/** The member `,"file":".."`, escaped; empty when the file is unknown. */
struct err *api_names_file_json(struct api_names *names, const struct table_frame *frame, const struct api_text **ret) MUST_USE;

/** What stands between a frame's dir and base in the whole path: "/" or "". */
const char *api_names_separator(const struct table_frame *frame);

#endif

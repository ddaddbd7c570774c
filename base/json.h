// SPDX-License-Identifier: Apache-2.0
/*
 * The JSON writer. It appends to a buf, puts commas and quotes itself, escapes as RFC 8259, and replaces bytes
 * that are not UTF-8 by U+FFFD (names come from strangers' files). The first failure sticks: check json_finish.
 * JSON is parsed by jansson, not here.
 */
#ifndef CAIRN_BASE_JSON_H
#define CAIRN_BASE_JSON_H

#include "base/buf.h"

#include <stdbool.h>

/* Deep enough for the call tree of any stack; a writer that nests further has lost its way. */
enum { JSON_MAX_DEPTH = 8192 };

struct json {
	struct buf *out; /* borrowed */
	struct err *failed;
	unsigned depth;
	bool after_key;
};

static inline struct json json_init(struct buf *out)
{
	return (struct json){.out = out};
}

void json_object_begin(struct json *json);
void json_object_end(struct json *json);
void json_array_begin(struct json *json);
void json_array_end(struct json *json);
/** The key of the next value; @p key needs no escaping (a literal of ours). */
void json_key(struct json *json, const char *key);
void json_text(struct json *json, const char *text);
void json_text_n(struct json *json, const char *text, size_t len);
/** Two strings in one value, written one behind the other (a folder and a file name). */
void json_text_joined(struct json *json, const char *first, const char *second);
void json_u64(struct json *json, uint64_t value);
void json_i64(struct json *json, int64_t value);
/** As a string "0x1a2b": for addresses and whatever can pass 2^53. */
void json_hex(struct json *json, uint64_t value);
/** A number as a decimal string: for what can pass 2^53 and is no address. */
void json_text_u64(struct json *json, uint64_t value);
void json_bool(struct json *json, bool value);
/** null; not `json_null`, which is a symbol of jansson. */
void json_null_value(struct json *json);
/** Seconds and the like; NaN and infinities become null. */
void json_double(struct json *json, double value);

/** NULL, or the first failure, which is then the caller's. */
struct err *json_finish(struct json *json) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * cairn.v1.SymbolizeRequest as plain data, decoded by nanopb; and the field numbers of the answer, whose hot part
 * is written by proto/wire.h. The gRPC call of later takes the same message.
 */
#ifndef CAIRN_PROTO_SYMBOLIZE_H
#define CAIRN_PROTO_SYMBOLIZE_H

#include "base/arena.h"

#include <stdint.h>

enum { PROTO_FILE_ID_BYTES = 16, PROTO_BUILD_ID_MAX = 64 };

/* Numbers from outside, not checked: an unknown enum value is the caller's to refuse. */
struct proto_symbolize_module {
	uint8_t file_id[PROTO_FILE_ID_BYTES];
	size_t file_id_len; /* as sent: 0, or any length; bytes are there when it is PROTO_FILE_ID_BYTES */
	uint8_t build_id[PROTO_BUILD_ID_MAX];
	size_t build_id_len; /* as sent; bytes are there when it is at most PROTO_BUILD_ID_MAX */
	uint32_t address_kind;
	uint64_t *addresses; /* in the arena */
	size_t address_count;
	size_t address_cap;
};

struct proto_symbolize_request {
	struct proto_symbolize_module *modules; /* in the arena */
	size_t module_count;
	size_t module_cap;
	uint32_t demangle;
	uint32_t wait_ms;
};

struct proto_symbolize_limits {
	size_t modules;
	size_t addresses; /* of all modules together */
};

/**
 * Decodes one message. Unknown fields are skipped.
 * @param arena  owns what @p ret points to
 * @return NULL; ERR_INVALID: not such a message; ERR_LIMIT: past a limit (says which); ERR_NOMEM. Any thread. O(len).
 */
struct err *proto_symbolize_request_decode(const void *bytes, size_t len, const struct proto_symbolize_limits *limits,
	struct arena *arena, struct proto_symbolize_request *ret) MUST_USE;

/* Field numbers of SymbolizeResponse and what is in it; symbolize.c asserts that they are the generated ones. */
enum {
	PROTO_RESPONSE_MODULES = 1,
	PROTO_RESPONSE_STRINGS = 2,
	PROTO_RESPONSE_FUNCTIONS = 3,
	PROTO_RESPONSE_FRAMES = 4,

	PROTO_FUNCTION_NAME = 1,
	PROTO_FUNCTION_SYMBOL = 2,
	PROTO_FUNCTION_START_LINE = 3,
	PROTO_FUNCTION_ALIASES = 4,

	PROTO_FRAME_FUNCTION = 1,
	PROTO_FRAME_FILE = 2,
	PROTO_FRAME_LINE = 3,
	PROTO_FRAME_COLUMN = 4,
	PROTO_FRAME_INLINED = 5,

	PROTO_SYMBOLS_SOURCE = 1,
	PROTO_SYMBOLS_KIND = 2,

	PROTO_MODULE_FILE_ID = 1,
	PROTO_MODULE_BUILD_ID = 2,
	PROTO_MODULE_STATUS = 3,
	PROTO_MODULE_REASON = 4,
	PROTO_MODULE_RETRY_AFTER_S = 5,
	PROTO_MODULE_SYMBOLS = 6,
	PROTO_MODULE_RESULT_STATUS = 7,
	PROTO_MODULE_FRAME_COUNT = 8,
	PROTO_MODULE_FUNCTION_OFFSET = 9,
	PROTO_MODULE_FRAMES = 10,
};

#endif

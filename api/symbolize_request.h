// SPDX-License-Identifier: Apache-2.0
/*
 * What `POST /v1/symbolize` asks, the same from JSON, from protobuf and from gRPC.
 */
#ifndef CAIRN_API_SYMBOLIZE_REQUEST_H
#define CAIRN_API_SYMBOLIZE_REQUEST_H

#include "base/arena.h"
#include "fileid/build_id.h"
#include "fileid/fileid.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	API_JSON_MAX_DEPTH = 64,
	API_WAIT_MAX_MS = 60000, /* longer waits are cut to this */
};

enum api_demangle { API_DEMANGLE_FULL, API_DEMANGLE_SHORT, API_DEMANGLE_NONE, API_DEMANGLE_COUNT };

struct sources;

struct api_symbolize_module {
	bool has_file_id;
	bool file_offsets; /* addresses are offsets in the runtime file, else vaddrs */
	struct fileid file_id;
	struct build_id build_id; /* len 0: not given; one of the two IDs is there */
	const uint64_t *addresses;
	size_t count;
};

/* All pointers go into the arena that it was parsed with. */
struct api_symbolize_request {
	struct api_symbolize_module *modules;
	size_t count;
	enum api_demangle demangle;
	uint32_t wait_ms;
	struct sources *sources; /* asked for what nobody knows; NULL: nobody is. Set by the caller after parsing, as is: */
	uint64_t requester;	 /* whose budget of unknown IDs it is */
};

struct api_symbolize_limits {
	size_t modules;
	size_t addresses; /* of all modules together */
};

/**
 * Reads the JSON form (docs/http-api.md). Unknown members are ignored.
 * @return NULL; ERR_INVALID: malformed, the message names the element ("modules[2].addresses[17]: .."); ERR_LIMIT: too many
 *         modules, addresses or values, or nested too deep; ERR_NOMEM. Any thread. O(len).
 */
struct err *api_symbolize_parse_json(const void *bytes, size_t len, const struct api_symbolize_limits *limits,
	struct arena *arena, struct api_symbolize_request *ret) MUST_USE;

/** Reads a cairn.v1.SymbolizeRequest. Errors as api_symbolize_parse_json. Any thread. O(len). */
struct err *api_symbolize_parse_protobuf(const void *bytes, size_t len, const struct api_symbolize_limits *limits,
	struct arena *arena, struct api_symbolize_request *ret) MUST_USE;

/** A JSON address: "0x" and 1 to 16 hex digits, or decimal digits up to 2^64 - 1. False for anything else. */
bool api_parse_address(const char *text, size_t len, uint64_t *ret);

#endif

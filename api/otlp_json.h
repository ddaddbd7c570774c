// SPDX-License-Identifier: Apache-2.0
/*
 * OTLP/JSON profiles into the protobuf layout of 1.10, so that one reader serves both. Internal to api/.
 */
#ifndef CAIRN_API_OTLP_JSON_H
#define CAIRN_API_OTLP_JSON_H

#include "base/buf.h"

enum { OTLP_JSON_VALUES_MAX = 4 << 20 };

/**
 * Appends the protobuf form of an ExportProfilesServiceRequest. Names are in lowerCamelCase, 64-bit numbers may be strings, trace, span
 * and profile IDs are hex, other bytes base64 (OTLP specification, "JSON Protobuf Encoding"). Unknown members are ignored.
 * @return NULL; ERR_INVALID: not JSON, or a member of the wrong kind, which the message names
 *         ("resourceProfiles[0].scopeProfiles: an array was expected"); ERR_LIMIT: more values than OTLP_JSON_VALUES_MAX; ERR_NOMEM.
 */
struct err *otlp_json_to_protobuf(const void *bytes, size_t len, struct buf *ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * JSON bodies of requests. jansson makes an object of 32 bytes and more of every value and recurses as deep as its input, so a
 * body is scanned first: how deep, how many values. Internal to api/: jansson's types stay here.
 */
#ifndef CAIRN_API_JSON_BODY_H
#define CAIRN_API_JSON_BODY_H

#include "base/err.h"

#include <jansson.h>

/**
 * Parses a body whose outermost value is an object.
 * @param max_values  of all kinds, members and elements together
 * @return NULL and a new reference in @p ret; ERR_INVALID: not JSON (says line and column), not an object; ERR_LIMIT: deeper than
 *         API_JSON_MAX_DEPTH, more than @p max_values; ERR_NOMEM. Any thread.
 */
struct err *json_body_parse(const void *bytes, size_t len, size_t max_values, json_t **ret) MUST_USE;
/** For CLEANUP. */
void json_body_freep(json_t **body);

#endif

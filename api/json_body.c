// SPDX-License-Identifier: Apache-2.0
#include "api/json_body.h"

#include "api/symbolize_request.h"

#include <stdint.h>

/* Counts what opens or separates values outside of strings; malformed bodies are left to the parser. */
static struct err *check_shape(const char *text, size_t len, size_t max_values)
{
	size_t values = 0;
	unsigned depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
			continue;
		}
		if (c == '"') {
			in_string = true;
		} else if (c == '[' || c == '{') {
			values++;
			if (++depth > API_JSON_MAX_DEPTH)
				return err_new(ERR_LIMIT, "JSON nested deeper than %d", API_JSON_MAX_DEPTH);
		} else if (c == ']' || c == '}') {
			depth -= depth > 0;
		} else if (c == ',') {
			values++;
		}
		if (values > max_values)
			return err_new(ERR_LIMIT, "more than %zu JSON values", max_values);
	}
	return NULL;
}

struct err *json_body_parse(const void *bytes, size_t len, size_t max_values, json_t **ret)
{
	json_error_t error;

	if (len == 0)
		return err_new(ERR_INVALID, "the body is empty: a JSON object was expected");
	TRY(check_shape(bytes, len, max_values));
	json_t *body = json_loadb(bytes, len, 0, &error);
	if (!body && json_error_code(&error) == json_error_out_of_memory)
		return err_nomem();
	if (!body)
		return err_new(ERR_INVALID, "not JSON: line %d, column %d: %s", error.line, error.column, error.text);
	if (!json_is_object(body)) {
		json_decref(body);
		return err_new(ERR_INVALID, "the body is not a JSON object");
	}
	*ret = body;
	return NULL;
}

void json_body_freep(json_t **body)
{
	json_decref(*body);
}

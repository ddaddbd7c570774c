// SPDX-License-Identifier: Apache-2.0
#include "api/json_body.h"
#include "api/symbolize_request.h"
#include "base/hex.h"
#include "proto/symbolize.h"

#include <string.h>

bool api_parse_address(const char *text, size_t len, uint64_t *ret)
{
	uint64_t value = 0;
	bool hex = len > 2 && text[0] == '0' && (text[1] | 0x20) == 'x';

	if (len == 0 || (hex && len > 18))
		return false;
	for (size_t i = hex ? 2 : 0; i < len; i++) {
		int digit = hex_digit(text[i]);
		if (digit < 0 || (!hex && digit > 9))
			return false;
		if (!hex && (__builtin_mul_overflow(value, 10, &value) ||
			     __builtin_add_overflow(value, (uint64_t)digit, &value)))
			return false;
		if (hex)
			value = value << 4 | (uint64_t)digit;
	}
	*ret = value;
	return true;
}

static struct err *parse_ids(const json_t *json, size_t i, struct api_symbolize_module *module)
{
	const json_t *file_id = json_object_get(json, "file_id");
	const json_t *build_id = json_object_get(json, "build_id");

	if (file_id && !json_is_null(file_id)) {
		if (!json_is_string(file_id) ||
		    !fileid_parse(json_string_value(file_id), json_string_length(file_id), &module->file_id))
			return err_new(ERR_INVALID, "modules[%zu].file_id: neither 32 hex digits nor 22 base64url characters", i);
		module->has_file_id = true;
	}
	if (build_id && !json_is_null(build_id)) {
		if (!json_is_string(build_id) ||
		    !build_id_parse(json_string_value(build_id), json_string_length(build_id), &module->build_id))
			return err_new(ERR_INVALID, "modules[%zu].build_id: not 1 to %d bytes of hex", i, BUILD_ID_MAX);
	}
	if (!module->has_file_id && !module->build_id.len)
		return err_new(ERR_INVALID, "modules[%zu]: neither file_id nor build_id", i);
	return NULL;
}

static struct err *parse_address_kind(const json_t *json, size_t i, bool *file_offsets_ret)
{
	const json_t *kind = json_object_get(json, "address_kind");
	const char *word = kind ? json_string_value(kind) : "vaddr";

	if (!word || (strcmp(word, "vaddr") != 0 && strcmp(word, "file_offset") != 0))
		return err_new(ERR_INVALID, "modules[%zu].address_kind: neither \"vaddr\" nor \"file_offset\"", i);
	*file_offsets_ret = word[0] == 'f';
	return NULL;
}

static bool address_value(const json_t *json, uint64_t *ret)
{
	if (json_is_string(json))
		return api_parse_address(json_string_value(json), json_string_length(json), ret);
	if (!json_is_integer(json) || json_integer_value(json) < 0)
		return false;
	*ret = (uint64_t)json_integer_value(json);
	return true;
}

static struct err *parse_addresses(const json_t *json, size_t i, size_t left, struct arena *arena,
	struct api_symbolize_module *module)
{
	const json_t *list = json_object_get(json, "addresses");

	if (!list)
		return NULL;
	if (!json_is_array(list))
		return err_new(ERR_INVALID, "modules[%zu].addresses: not an array", i);
	size_t count = json_array_size(list);
	if (count > left)
		return err_new(ERR_LIMIT, "modules[%zu].addresses: more addresses in all than limits.addresses", i);
	uint64_t *addresses = arena_alloc(arena, count * sizeof(*addresses) + 1);
	if (!addresses)
		return err_nomem();
	for (size_t j = 0; j < count; j++)
		if (!address_value(json_array_get(list, j), &addresses[j]))
			return err_new(ERR_INVALID, "modules[%zu].addresses[%zu]: neither a whole number from 0 to 2^63-1 "
						    "nor a string of one, decimal or with 0x", i, j);
	module->addresses = addresses;
	module->count = count;
	return NULL;
}

static struct err *parse_module(const json_t *json, size_t i, size_t left, struct arena *arena,
	struct api_symbolize_module *module)
{
	if (!json_is_object(json))
		return err_new(ERR_INVALID, "modules[%zu]: not an object", i);
	TRY(parse_ids(json, i, module));
	TRY(parse_address_kind(json, i, &module->file_offsets));
	return parse_addresses(json, i, left, arena, module);
}

static struct err *parse_demangle(const json_t *json, enum api_demangle *ret)
{
	static const char *const words[API_DEMANGLE_COUNT] = {"full", "short", "none"};
	const json_t *member = json_object_get(json, "demangle");
	const char *word = member ? json_string_value(member) : words[API_DEMANGLE_FULL];

	for (unsigned i = 0; word && i < API_DEMANGLE_COUNT; i++) {
		if (strcmp(word, words[i]) == 0) {
			*ret = (enum api_demangle)i;
			return NULL;
		}
	}
	return err_new(ERR_INVALID, "demangle: none of \"full\", \"short\", \"none\"");
}

static struct err *parse_wait(const json_t *json, uint32_t *ret)
{
	const json_t *wait = json_object_get(json, "wait_ms");

	*ret = 0;
	if (!wait)
		return NULL;
	if (!json_is_integer(wait) || json_integer_value(wait) < 0)
		return err_new(ERR_INVALID, "wait_ms: not a whole number of milliseconds");
	*ret = json_integer_value(wait) > API_WAIT_MAX_MS ? API_WAIT_MAX_MS : (uint32_t)json_integer_value(wait);
	return NULL;
}

struct err *api_symbolize_parse_json(const void *bytes, size_t len, const struct api_symbolize_limits *limits,
	struct arena *arena, struct api_symbolize_request *ret)
{
	CLEANUP(json_body_freep) json_t *body = NULL;
	struct api_symbolize_request request = {0};
	size_t left = limits->addresses;

	/* Room for unknown members beside the addresses; a request within the limits never comes near it. */
	TRY(json_body_parse(bytes, len, 2 * limits->addresses + 32 * limits->modules + 1024, &body));
	const json_t *modules = json_object_get(body, "modules");
	if (!json_is_array(modules))
		return err_new(ERR_INVALID, "modules: an array was expected");
	request.count = json_array_size(modules);
	if (request.count > limits->modules)
		return err_new(ERR_LIMIT, "modules: %zu are more than limits.modules, %zu", request.count, limits->modules);
	request.modules = arena_alloc(arena, request.count * sizeof(*request.modules) + 1);
	if (!request.modules)
		return err_nomem();
	for (size_t i = 0; i < request.count; i++) {
		TRY(parse_module(json_array_get(modules, i), i, left, arena, &request.modules[i]));
		left -= request.modules[i].count;
	}
	TRY(parse_demangle(body, &request.demangle));
	TRY(parse_wait(body, &request.wait_ms));
	*ret = request;
	return NULL;
}

static struct err *check_proto_module(const struct proto_symbolize_module *in, size_t i, struct api_symbolize_module *module)
{
	if (in->file_id_len != 0 && in->file_id_len != FILEID_BYTES)
		return err_new(ERR_INVALID, "modules[%zu].file_id: %zu bytes instead of %d", i, in->file_id_len, FILEID_BYTES);
	if (in->build_id_len > BUILD_ID_MAX)
		return err_new(ERR_INVALID, "modules[%zu].build_id: %zu bytes are more than %d", i, in->build_id_len, BUILD_ID_MAX);
	if (in->file_id_len == 0 && in->build_id_len == 0)
		return err_new(ERR_INVALID, "modules[%zu]: neither file_id nor build_id", i);
	if (in->address_kind > 1)
		return err_new(ERR_INVALID, "modules[%zu].address_kind: unknown value %u", i, in->address_kind);
	module->has_file_id = in->file_id_len == FILEID_BYTES;
	memcpy(module->file_id.bytes, in->file_id, FILEID_BYTES);
	module->build_id.len = (uint8_t)in->build_id_len;
	memcpy(module->build_id.bytes, in->build_id, in->build_id_len);
	module->file_offsets = in->address_kind == 1;
	module->addresses = in->addresses;
	module->count = in->address_count;
	return NULL;
}

struct err *api_symbolize_parse_protobuf(const void *bytes, size_t len, const struct api_symbolize_limits *limits,
	struct arena *arena, struct api_symbolize_request *ret)
{
	struct proto_symbolize_limits proto_limits = {.modules = limits->modules, .addresses = limits->addresses};
	struct proto_symbolize_request in;
	struct api_symbolize_request request = {0};

	TRY(proto_symbolize_request_decode(bytes, len, &proto_limits, arena, &in));
	if (in.demangle >= API_DEMANGLE_COUNT)
		return err_new(ERR_INVALID, "demangle: unknown value %u", in.demangle);
	request.count = in.module_count;
	request.modules = arena_alloc(arena, request.count * sizeof(*request.modules) + 1);
	if (!request.modules)
		return err_nomem();
	for (size_t i = 0; i < request.count; i++)
		TRY(check_proto_module(&in.modules[i], i, &request.modules[i]));
	request.demangle = (enum api_demangle)in.demangle;
	request.wait_ms = in.wait_ms > API_WAIT_MAX_MS ? API_WAIT_MAX_MS : in.wait_ms;
	*ret = request;
	return NULL;
}

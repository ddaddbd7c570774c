// SPDX-License-Identifier: Apache-2.0
#include "api/symbolize_request.h"
#include "proto/wire.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct api_symbolize_limits limits = {.modules = 4, .addresses = 8};

#define ID "00112233445566778899aabbccddeeff"

static struct err *parse_with(const char *text, struct arena *arena, struct api_symbolize_request *ret)
{
	return api_symbolize_parse_json(text, strlen(text), &limits, arena, ret);
}

Test(symbolize_parse_json, takes_every_member_and_both_forms_of_addresses)
{
	struct arena arena = {0};
	struct api_symbolize_request r;
	struct err *e = parse_with("{\"modules\":[{\"file_id\":\"" ID "\",\"build_id\":\"AbCd\",\"address_kind\":\"file_offset\","
				   "\"addresses\":[\"0x1a2b\",6699,\"18446744073709551615\",\"0xFFFFFFFFFFFFFFFF\"]},"
				   "{\"build_id\":\"01\"}],\"demangle\":\"short\",\"wait_ms\":250,\"new_member\":{\"a\":[1,2]}}",
		&arena, &r);

	cr_assert_null(e);
	cr_assert_eq(r.count, 2);
	cr_assert_eq(r.demangle, API_DEMANGLE_SHORT);
	cr_assert_eq(r.wait_ms, 250);
	cr_assert(r.modules[0].has_file_id && r.modules[0].file_offsets);
	cr_assert_eq(r.modules[0].file_id.bytes[15], 0xff);
	cr_assert_eq(r.modules[0].build_id.len, 2);
	cr_assert_eq(r.modules[0].build_id.bytes[0], 0xab);
	cr_assert_eq(r.modules[0].count, 4);
	cr_assert_eq(r.modules[0].addresses[0], 0x1a2b);
	cr_assert_eq(r.modules[0].addresses[1], 6699);
	cr_assert_eq(r.modules[0].addresses[2], UINT64_MAX);
	cr_assert_eq(r.modules[0].addresses[3], UINT64_MAX);
	cr_assert(!r.modules[1].has_file_id && !r.modules[1].file_offsets);
	cr_assert_eq(r.modules[1].count, 0);
	arena_deinit(&arena);
}

Test(symbolize_parse_json, takes_base64url_ids_and_defaults)
{
	struct arena arena = {0};
	struct api_symbolize_request r;

	cr_assert_null(parse_with("{\"modules\":[{\"file_id\":\"ABEiM0RVZneImaq7zN3u_w\",\"addresses\":[]}]}", &arena, &r));
	cr_assert_eq(r.modules[0].file_id.bytes[15], 0xff);
	cr_assert_eq(r.modules[0].file_id.bytes[1], 0x11);
	cr_assert_eq(r.demangle, API_DEMANGLE_FULL);
	cr_assert_eq(r.wait_ms, 0);
	arena_deinit(&arena);
}

Test(symbolize_parse_json, cuts_a_wait_that_is_too_long)
{
	struct arena arena = {0};
	struct api_symbolize_request r;

	cr_assert_null(parse_with("{\"modules\":[],\"wait_ms\":99999999999}", &arena, &r));
	cr_assert_eq(r.wait_ms, API_WAIT_MAX_MS);
	arena_deinit(&arena);
}

/* Static, with no pointer that crosses a process: the test walks the whole table itself. */
static const struct {
	const char *body;
	enum err_code code;
	const char *words; /* in the message */
} malformed[] = {
	{"", ERR_INVALID, "empty"},
	{"{", ERR_INVALID, "line 1"},
	{"[]", ERR_INVALID, "not a JSON object"},
	{"\"x\"", ERR_INVALID, "not JSON"},
	{"{\"modules\":[]} x", ERR_INVALID, "not JSON"},
	{"{\"modules\":[\"\xff\"]}", ERR_INVALID, "not JSON"},
	{"{}", ERR_INVALID, "modules: an array"},
	{"{\"modules\":{}}", ERR_INVALID, "modules: an array"},
	{"{\"modules\":[1]}", ERR_INVALID, "modules[0]: not an object"},
	{"{\"modules\":[{}]}", ERR_INVALID, "modules[0]: neither"},
	{"{\"modules\":[{\"build_id\":\"aa\"},{\"file_id\":\"xyz\"}]}", ERR_INVALID, "modules[1].file_id"},
	{"{\"modules\":[{\"file_id\":\"00112233445566778899aabbccddeef\"}]}", ERR_INVALID, "modules[0].file_id"},
	{"{\"modules\":[{\"file_id\":7}]}", ERR_INVALID, "modules[0].file_id"},
	{"{\"modules\":[{\"build_id\":\"abc\"}]}", ERR_INVALID, "modules[0].build_id"},
	{"{\"modules\":[{\"build_id\":\"\"}]}", ERR_INVALID, "modules[0].build_id"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"address_kind\":\"pc\"}]}", ERR_INVALID, "modules[0].address_kind"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"address_kind\":1}]}", ERR_INVALID, "modules[0].address_kind"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":5}]}", ERR_INVALID, "modules[0].addresses: not an array"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[1,\"0xg\"]}]}", ERR_INVALID, "modules[0].addresses[1]"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[\"0x\"]}]}", ERR_INVALID, "modules[0].addresses[0]"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[\"\"]}]}", ERR_INVALID, "modules[0].addresses[0]"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[\"0x12345678123456781\"]}]}", ERR_INVALID, "addresses[0]"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[\"18446744073709551616\"]}]}", ERR_INVALID, "addresses[0]"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[-1]}]}", ERR_INVALID, "modules[0].addresses[0]"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[1.5]}]}", ERR_INVALID, "modules[0].addresses[0]"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[null]}]}", ERR_INVALID, "modules[0].addresses[0]"},
	{"{\"modules\":[],\"demangle\":\"all\"}", ERR_INVALID, "demangle"},
	{"{\"modules\":[],\"wait_ms\":-1}", ERR_INVALID, "wait_ms"},
	{"{\"modules\":[],\"wait_ms\":\"5\"}", ERR_INVALID, "wait_ms"},
	{"{\"modules\":[{\"build_id\":\"aa\"},{\"build_id\":\"aa\"},{\"build_id\":\"aa\"},{\"build_id\":\"aa\"},"
	 "{\"build_id\":\"aa\"}]}", ERR_LIMIT, "limits.modules"},
	{"{\"modules\":[{\"build_id\":\"aa\",\"addresses\":[1,2,3,4,5]},{\"build_id\":\"aa\",\"addresses\":[1,2,3,4]}]}",
		ERR_LIMIT, "modules[1].addresses"},
};

Test(symbolize_parse_json, names_the_element_that_is_wrong)
{
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		struct arena arena = {0};
		struct api_symbolize_request r = {.count = 77};
		struct err *e = parse_with(malformed[i].body, &arena, &r);

		cr_assert_not_null(e, "%s was taken", malformed[i].body);
		cr_assert_eq(err_code(e), malformed[i].code, "%s: %s", malformed[i].body, err_message(e));
		cr_assert_not_null(strstr(err_message(e), malformed[i].words), "%s: %s", malformed[i].body, err_message(e));
		cr_assert_eq(r.count, 77, "ret was touched");
		err_free(e);
		arena_deinit(&arena);
	}
}

static struct err *parse_repeated(const char *before, char c, size_t count)
{
	struct arena arena = {0};
	struct api_symbolize_request r;
	struct buf body = {0};
	cr_assert_null(buf_append(&body, before, strlen(before)));
	for (size_t i = 0; i < count; i++)
		cr_assert_null(buf_append(&body, &c, 1));
	struct err *e = api_symbolize_parse_json(body.data, body.len, &limits, &arena, &r);
	buf_deinit(&body);
	arena_deinit(&arena);
	return e;
}

Test(symbolize_parse_json, refuses_deep_nesting_before_parsing_it)
{
	struct err *e = parse_repeated("{\"x\":", '[', 1000000);

	cr_assert_eq(err_code(e), ERR_LIMIT);
	cr_assert_not_null(strstr(err_message(e), "deeper"));
	err_free(e);
}

Test(symbolize_parse_json, refuses_a_flood_of_values_before_parsing_it)
{
	struct err *e = parse_repeated("{\"x\":[0", ',', 1000000);

	cr_assert_eq(err_code(e), ERR_LIMIT);
	cr_assert_not_null(strstr(err_message(e), "JSON values"));
	err_free(e);
}

Test(symbolize_parse_json, counts_no_values_within_strings)
{
	struct arena arena = {0};
	struct api_symbolize_request r;
	struct buf body = {0};
	cr_assert_null(buf_printf(&body, "{\"modules\":[],\"note\":\"\\\""));
	for (size_t i = 0; i < 100000; i++)
		cr_assert_null(buf_append(&body, ",[{", 3));
	cr_assert_null(buf_printf(&body, "\"}"));

	cr_assert_null(api_symbolize_parse_json(body.data, body.len, &limits, &arena, &r));
	buf_deinit(&body);
	arena_deinit(&arena);
}

/* ---- protobuf: messages put together by hand */

static void put_module(struct buf *out, size_t file_id_len, size_t build_id_len, uint32_t kind, const uint64_t *addresses,
	size_t count, bool packed)
{
	struct buf module = {0};
	uint8_t id[200];
	memset(id, 0x5a, sizeof(id));
	if (file_id_len)
		cr_assert_null(wire_append_bytes(&module, 1, id, file_id_len));
	if (build_id_len)
		cr_assert_null(wire_append_bytes(&module, 2, id, build_id_len));
	cr_assert_null(buf_reserve(&module, 20 * (count + 2)));
	wire_put_field(&module, 3, kind);
	if (packed)
		cr_assert_null(wire_append_packed_u64(&module, 4, addresses, count));
	for (size_t i = 0; !packed && i < count; i++) {
		wire_put_tag(&module, 4, WIRE_VARINT);
		wire_put_varint(&module, addresses[i]);
	}
	cr_assert_null(wire_append_bytes(out, 1, module.data, module.len));
	buf_deinit(&module);
}

static struct err *parse_proto(const struct buf *body, struct arena *arena, struct api_symbolize_request *ret)
{
	return api_symbolize_parse_protobuf(body->data, body->len, &limits, arena, ret);
}

Test(symbolize_parse_protobuf, takes_packed_and_single_addresses)
{
	static const uint64_t addresses[] = {0, 127, 128, UINT64_MAX};
	for (int packed = 0; packed < 2; packed++) {
		struct buf body = {0};
		struct arena arena = {0};
		struct api_symbolize_request r;
		put_module(&body, 16, 20, 1, addresses, 4, packed);
		put_module(&body, 0, 64, 0, addresses, 2, packed);
		cr_assert_null(buf_reserve(&body, 64));
		wire_put_field(&body, 2, 1);
		wire_put_field(&body, 3, 70000);
		wire_put_field(&body, 15, 4711); /* unknown */

		cr_assert_null(parse_proto(&body, &arena, &r));
		cr_assert_eq(r.count, 2);
		cr_assert(r.modules[0].has_file_id && r.modules[0].file_offsets && !r.modules[1].has_file_id);
		cr_assert_eq(r.modules[0].build_id.len, 20);
		cr_assert_eq(r.modules[1].build_id.len, 64);
		cr_assert_eq(r.modules[0].count, 4);
		for (size_t i = 0; i < 4; i++)
			cr_assert_eq(r.modules[0].addresses[i], addresses[i]);
		cr_assert_eq(r.modules[1].count, 2);
		cr_assert_eq(r.demangle, API_DEMANGLE_SHORT);
		cr_assert_eq(r.wait_ms, API_WAIT_MAX_MS);
		buf_deinit(&body);
		arena_deinit(&arena);
	}
}

Test(symbolize_parse_protobuf, takes_an_empty_message)
{
	struct buf body = {0};
	struct arena arena = {0};
	struct api_symbolize_request r;

	cr_assert_null(parse_proto(&body, &arena, &r));
	cr_assert_eq(r.count, 0);
	arena_deinit(&arena);
}

static void expect_proto_error(struct buf *body, enum err_code code, const char *words)
{
	struct arena arena = {0};
	struct api_symbolize_request r;
	struct err *e = parse_proto(body, &arena, &r);

	cr_assert_not_null(e, "taken instead of: %s", words);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert_not_null(strstr(err_message(e), words), "%s", err_message(e));
	err_free(e);
	arena_deinit(&arena);
	buf_deinit(body);
}

Test(symbolize_parse_protobuf, names_the_module_that_is_wrong)
{
	static const uint64_t addresses[9] = {1};
	struct buf body = {0};

	put_module(&body, 15, 0, 0, addresses, 1, true);
	expect_proto_error(&body, ERR_INVALID, "modules[0].file_id: 15 bytes");
	put_module(&body, 16, 0, 0, addresses, 1, true);
	put_module(&body, 0, 65, 0, addresses, 1, true);
	expect_proto_error(&body, ERR_INVALID, "modules[1].build_id: 65 bytes");
	put_module(&body, 0, 0, 0, addresses, 1, true);
	expect_proto_error(&body, ERR_INVALID, "modules[0]: neither");
	put_module(&body, 16, 0, 2, addresses, 1, true);
	expect_proto_error(&body, ERR_INVALID, "modules[0].address_kind");
	put_module(&body, 16, 0, 0, addresses, 5, true);
	put_module(&body, 16, 0, 0, addresses, 4, true);
	expect_proto_error(&body, ERR_LIMIT, "modules[1].addresses");
	for (int i = 0; i < 5; i++)
		put_module(&body, 16, 0, 0, addresses, 1, true);
	expect_proto_error(&body, ERR_LIMIT, "modules: more than 4");
	cr_assert_null(buf_reserve(&body, 16));
	wire_put_field(&body, 2, 3);
	expect_proto_error(&body, ERR_INVALID, "demangle");
}

Test(symbolize_parse_protobuf, refuses_a_message_cut_at_any_length_within_a_field)
{
	static const uint64_t addresses[] = {1, 300, UINT64_MAX};
	struct buf whole = {0};
	put_module(&whole, 16, 20, 1, addresses, 3, true);
	for (size_t len = 1; len < whole.len; len++) {
		struct buf cut = {0};
		cr_assert_null(buf_append(&cut, whole.data, len));
		expect_proto_error(&cut, ERR_INVALID, "not a SymbolizeRequest");
	}
	buf_deinit(&whole);
}

// SPDX-License-Identifier: Apache-2.0
#include "api/otlp_json.h"

#include <criterion/criterion.h>

static void expect(const char *json, const char *bytes, size_t len)
{
	struct buf ret = {0};
	struct err *e = otlp_json_to_protobuf(json, strlen(json), &ret);

	cr_assert_null(e, "%s: %s", json, e ? err_message(e) : "");
	cr_assert_eq(ret.len, len, "%s: %zu bytes", json, ret.len);
	cr_assert(len == 0 || memcmp(ret.data, bytes, len) == 0, "%s", json);
	buf_deinit(&ret);
}

static void expect_error(const char *json, enum err_code code, const char *words)
{
	struct buf ret = {0};
	struct err *e = otlp_json_to_protobuf(json, strlen(json), &ret);

	cr_assert_not_null(e, "%s", json);
	cr_assert_eq(err_code(e), code, "%s: %s", json, err_message(e));
	cr_assert(strstr(err_message(e), words), "%s: %s", json, err_message(e));
	err_free(e);
	buf_deinit(&ret);
}

#define EXPECT(json, bytes) expect(json, bytes, sizeof(bytes) - 1)

Test(otlp_json, writes_the_wire_of_1_10)
{
	EXPECT("{}", "");
	EXPECT("{\"unknown\":[1],\"dictionary\":null}", "");
	EXPECT("{\"dictionary\":{\"stringTable\":[\"\",\"ab\"]}}", "\x12\x06\x2a\x00\x2a\x02" "ab");
	EXPECT("{\"dictionary\":{\"linkTable\":[{\"traceId\":\"0aFF\",\"spanId\":\"\"}]}}", "\x12\x08\x22\x06\x0a\x02\x0a\xff\x12\x00");
	EXPECT("{\"dictionary\":{\"stackTable\":[{\"locationIndices\":[1,\"300\"]}]}}", "\x12\x07\x3a\x05\x0a\x03\x01\xac\x02");
	EXPECT("{\"dictionary\":{\"attributeTable\":[{\"value\":{\"bytesValue\":\"/-8=\"}}]}}", "\x12\x08\x32\x06\x12\x04\x3a\x02\xff\xef");
	EXPECT("{\"dictionary\":{\"attributeTable\":[{\"value\":{\"boolValue\":true}}]}}", "\x12\x06\x32\x04\x12\x02\x10\x01");
	EXPECT("{\"resourceProfiles\":[{\"scopeProfiles\":[{\"profiles\":[{\"timeUnixNano\":\"1\"}]}]}]}",
		"\x0a\x0d\x12\x0b\x12\x09\x19\x01\0\0\0\0\0\0\0");
	EXPECT("{\"resourceProfiles\":[{\"scopeProfiles\":[{\"profiles\":[{\"samples\":[{\"values\":[-1]}]}]}]}]}",
		"\x0a\x12\x12\x10\x12\x0e\x12\x0c\x22\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
}

Test(otlp_json, names_what_is_wrong)
{
	expect_error("", ERR_INVALID, "empty");
	expect_error("[]", ERR_INVALID, "not a JSON object");
	expect_error("{", ERR_INVALID, "not JSON");
	expect_error("{\"resourceProfiles\":7}", ERR_INVALID, "resourceProfiles: an array was expected");
	expect_error("{\"resourceProfiles\":[7]}", ERR_INVALID, "resourceProfiles[0]: an object was expected");
	expect_error("{\"dictionary\":{\"stringTable\":[1]}}", ERR_INVALID, "dictionary: stringTable[0]: a string was expected");
	expect_error("{\"dictionary\":{\"stackTable\":[{\"locationIndices\":[\"x\"]}]}}", ERR_INVALID, "locationIndices[0]: a number");
	expect_error("{\"dictionary\":{\"linkTable\":[{\"traceId\":\"0g\"}]}}", ERR_INVALID, "traceId: an even number of hex digits");
	expect_error("{\"dictionary\":{\"linkTable\":[{\"traceId\":\"000\"}]}}", ERR_INVALID, "traceId: an even number of hex digits");
	expect_error("{\"dictionary\":{\"attributeTable\":[{\"value\":{\"bytesValue\":\"!\"}}]}}", ERR_INVALID, "base64");
	expect_error("{\"dictionary\":{\"mappingTable\":[{\"memoryStart\":\"18446744073709551616\"}]}}", ERR_INVALID, "does not fit 64 bits");
}

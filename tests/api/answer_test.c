// SPDX-License-Identifier: Apache-2.0
/* Both encoders over tables made in memory by the table writer; what comes out is compared byte for byte. */
#include "api/answer.h"
#include "symbolizer/table/writer.h"

#include <criterion/criterion.h>
#include <string.h>

/* a() at [0x1000, 0x1100) with b() inlined at [0x1010, 0x1020); names that need escaping. */
static const char text[] = "_ZN2ns1fEi\0quo\"te\0/src\0a.cc\0b\\x.h\0twin\0"; /* and an empty string, by its own NUL */
enum { T_F = 0, T_QUOTE = 11, T_SRC = 18, T_A = 23, T_B = 28, T_TWIN = 34, T_EMPTY = 39 };

static const struct table_input_file files[] = {{T_SRC, T_A}, {T_EMPTY, T_B}};
static const struct table_input_function functions[] = {
	{.name = T_F, .file = 0, .start_line = 10},
	{.name = T_QUOTE, .file = 1, .start_line = 0},
};
static const uint32_t aliases[] = {T_TWIN};
static const struct table_input_node nodes[] = {
	{.parent = TABLE_NONE, .function = 0, .alias_first = 0, .alias_count = 1, .entry_vaddr = 0x1000},
	{.parent = 0, .function = 1, .call_file = 0, .call_line = 12, .call_column = 3},
};
static const struct table_input_row rows[] = {
	{.vaddr = 0x1000, .node = 0, .file = 0, .line = 11, .column = 0},
	{.vaddr = 0x1010, .node = 1, .file = 1, .line = 5, .column = 7},
	{.vaddr = 0x1020, .node = 0, .file = 0, .line = 13, .column = 0},
	{.vaddr = 0x1100, .node = TABLE_NONE, .file = TABLE_NONE},
};

static struct buf bytes;
static struct table table;
static struct sha256 table_id;
static struct api_names *names;

static void set_up(void)
{
	struct table_input input = {.sources = TABLE_FROM_DWARF, .elf_machine = 62, .text = text, .text_len = sizeof(text),
		.files = files, .file_count = ARRAY_SIZE(files), .functions = functions,
		.function_count = ARRAY_SIZE(functions), .nodes = nodes, .node_count = ARRAY_SIZE(nodes),
		.aliases = aliases, .alias_count = ARRAY_SIZE(aliases), .rows = rows, .row_count = ARRAY_SIZE(rows)};
	struct err *e = table_write(&input, &bytes);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	cr_assert_null(table_open(bytes.data, bytes.len, &table));
	cr_assert_null(sha256_of(bytes.data, bytes.len, &table_id));
	cr_assert_null(api_names_create(1 << 20, &names));
}

static void tear_down(void)
{
	buf_deinit(&bytes);
	api_names_destroy(names);
}

static void add_lookup(struct api_answer *answer, uint64_t vaddr)
{
	struct table_frame frames[TABLE_MAX_DEPTH];
	size_t count = table_lookup(&table, vaddr, frames, TABLE_MAX_DEPTH);

	cr_assert_null(api_answer_result(answer, count ? API_RESULT_OK : API_RESULT_NO_SYMBOL, frames, count));
}

static struct buf answer_of(enum api_format format, enum api_demangle how)
{
	struct api_answer *answer;
	struct buf out;
	struct api_module_head known = {.has_file_id = true, .status = API_MODULE_OK, .reason = "", .source = "upload",
		.kind = "dwarf", .results = 4};
	struct api_module_head unknown = {.status = API_MODULE_PENDING, .reason = "job 7 is \"queued\"", .retry_after_s = 5};
	unknown.build_id.len = 2;
	memcpy(unknown.build_id.bytes, "\xab\xcd", 2);
	memset(known.file_id.bytes, 0x11, FILEID_BYTES);

	cr_assert_null(api_answer_begin(format, how, names, 1 << 20, &answer));
	cr_assert_null(api_answer_module(answer, &known, &table, &table_id));
	add_lookup(answer, 0x1011);
	add_lookup(answer, 0x1021);
	add_lookup(answer, 0x2000);
	cr_assert_null(api_answer_result(answer, API_RESULT_OUT_OF_RANGE, NULL, 0));
	cr_assert_null(api_answer_module_end(answer));
	cr_assert_null(api_answer_module(answer, &unknown, NULL, NULL));
	cr_assert_null(api_answer_module_end(answer));
	cr_assert_null(api_answer_end(answer, &out));
	api_answer_destroy(answer);
	return out;
}

#define F_FULL "\"function\":\"ns::f(int)\",\"symbol\":\"_ZN2ns1fEi\",\"file\":\"/src/a.cc\""

Test(answer_json, writes_frames_inner_first_escaped_and_without_unknown_members, .init = set_up, .fini = tear_down)
{
	static const char expected[] =
		"{\"modules\":[{\"file_id\":\"11111111111111111111111111111111\",\"status\":\"ok\","
		"\"symbols\":{\"source\":\"upload\",\"kind\":\"dwarf\"},\"results\":["
		"{\"status\":\"ok\",\"frames\":["
		"{\"function\":\"quo\\\"te\",\"file\":\"b\\\\x.h\",\"line\":5,\"column\":7,\"inlined\":true},"
		"{" F_FULL ",\"line\":12,\"column\":3,\"start_line\":10,\"offset\":\"0x11\",\"inlined\":false,"
		"\"aliases\":[\"twin\"]}]},"
		"{\"status\":\"ok\",\"frames\":[{" F_FULL ",\"line\":13,\"start_line\":10,\"offset\":\"0x21\",\"inlined\":false,"
		"\"aliases\":[\"twin\"]}]},"
		"{\"status\":\"no_symbol\"},{\"status\":\"out_of_range\"}]},"
		"{\"build_id\":\"abcd\",\"status\":\"pending\",\"reason\":\"job 7 is \\\"queued\\\"\",\"retry_after_s\":5}]}";

	for (int round = 0; round < 2; round++) { /* the second from remembered names */
		struct buf out = answer_of(API_FORMAT_JSON, API_DEMANGLE_FULL);
		cr_assert_eq(out.len, sizeof(expected) - 1, "%.*s", (int)out.len, (char *)out.data);
		cr_assert_arr_eq(out.data, expected, out.len, "%.*s", (int)out.len, (char *)out.data);
		buf_deinit(&out);
	}
}

static bool contains(const struct buf *out, const char *words)
{
	return memmem(out->data, out->len, words, strlen(words)) != NULL;
}

Test(answer_json, demangles_as_asked_and_keeps_the_forms_apart, .init = set_up, .fini = tear_down)
{
	struct buf full = answer_of(API_FORMAT_JSON, API_DEMANGLE_FULL);
	struct buf brief = answer_of(API_FORMAT_JSON, API_DEMANGLE_SHORT);
	struct buf none = answer_of(API_FORMAT_JSON, API_DEMANGLE_NONE);

	cr_assert(contains(&full, "\"function\":\"ns::f(int)\",\"symbol\":\"_ZN2ns1fEi\""));
	cr_assert(contains(&brief, "\"function\":\"ns::f\",\"symbol\":\"_ZN2ns1fEi\""));
	cr_assert(contains(&none, "\"function\":\"_ZN2ns1fEi\",\"file\""));
	buf_deinit(&full);
	buf_deinit(&brief);
	buf_deinit(&none);
}

Test(answer_json, leaves_the_function_out_where_only_a_line_or_nothing_is_known, .init = set_up, .fini = tear_down)
{
	static const char expected[] = "{\"status\":\"ok\",\"frames\":[{\"file\":\"/s/a.S\",\"line\":7,\"inlined\":true},{\"inlined\":false}]}";
	const struct table_frame frames[] = {
		{.function = "", .function_id = 90, .dir = "/s", .base = "a.S", .file_id = 90, .line = 7, .inlined = true},
		{.function = "", .function_id = 90, .dir = "", .base = "", .file_id = 91, .offset = 3}};
	struct api_module_head head = {.status = API_MODULE_OK, .reason = "", .source = "upload", .kind = "dwarf"};
	struct api_answer *answer;
	struct buf out;

	cr_assert_null(api_answer_begin(API_FORMAT_JSON, API_DEMANGLE_FULL, names, 1 << 20, &answer));
	cr_assert_null(api_answer_module(answer, &head, &table, &table_id));
	cr_assert_null(api_answer_result(answer, API_RESULT_OK, frames, ARRAY_SIZE(frames)));
	cr_assert_null(api_answer_module_end(answer));
	cr_assert_null(api_answer_end(answer, &out));
	cr_assert(contains(&out, expected), "%.*s", (int)out.len, (char *)out.data);
	buf_deinit(&out);
	api_answer_destroy(answer);
}

Test(answer_json, stops_at_its_limit, .init = set_up, .fini = tear_down)
{
	struct api_answer *answer;
	struct api_module_head head = {.status = API_MODULE_OK, .reason = "", .source = "upload", .kind = "dwarf"};
	struct table_frame frames[TABLE_MAX_DEPTH];
	size_t count = table_lookup(&table, 0x1011, frames, TABLE_MAX_DEPTH);
	struct err *e = NULL;

	cr_assert_null(api_answer_begin(API_FORMAT_JSON, API_DEMANGLE_FULL, names, 10000, &answer));
	cr_assert_null(api_answer_module(answer, &head, &table, &table_id));
	for (int i = 0; i < 1000 && !e; i++)
		e = api_answer_result(answer, API_RESULT_OK, frames, count);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	api_answer_destroy(answer);
}

/* The columns of a module lie apart until its end: they count too. */
Test(answer_protobuf, stops_at_its_limit_for_columns_alone, .init = set_up, .fini = tear_down)
{
	struct api_answer *answer;
	struct api_module_head head = {.status = API_MODULE_OK, .reason = "", .source = "upload", .kind = "dwarf"};
	struct table_frame frames[TABLE_MAX_DEPTH];
	size_t count = table_lookup(&table, 0x1011, frames, TABLE_MAX_DEPTH);
	struct err *e = NULL;

	cr_assert_null(api_answer_begin(API_FORMAT_PROTOBUF, API_DEMANGLE_FULL, names, 10000, &answer));
	cr_assert_null(api_answer_module(answer, &head, &table, &table_id));
	for (int i = 0; i < 2000 && !e; i++)
		e = api_answer_result(answer, API_RESULT_OK, frames, count);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	api_answer_destroy(answer);
}

/*
 * The message, field by field: strings "", quo"te, b\x.h, demangled, linkage, twin, /src/a.cc; functions before the frames that use
 * them. Decoded by another implementation in tests/daemon (python3-protobuf).
 */
Test(answer_protobuf, writes_each_string_function_and_frame_once, .init = set_up, .fini = tear_down)
{
	static const uint8_t expected[] = {
		0x12, 0x00,							       /* string 0 */
		0x12, 0x06, 'q', 'u', 'o', '"', 't', 'e',			       /* 1 */
		0x1a, 0x04, 0x08, 1, 0x10, 1,					       /* function 0: name 1, symbol 1 */
		0x12, 0x05, 'b', '\\', 'x', '.', 'h',				       /* string 2 */
		/* Frame 0: function 0 is left out, file 2, line 5, column 7, inlined. */
		0x22, 0x08, 0x10, 2, 0x18, 5, 0x20, 7, 0x28, 1,
	};
	struct buf out = answer_of(API_FORMAT_PROTOBUF, API_DEMANGLE_FULL);

	cr_assert_arr_eq(out.data, expected, sizeof(expected));
	static const uint8_t twin[] = {0x12, 0x04, 't', 'w', 'i', 'n'};
	cr_assert_not_null(memmem(out.data, out.len, twin, sizeof(twin)));
	/* Columns: result_status 0 0 1 2; frame_count 2 1 0 0; offsets 0x11 0x21 0 0; frames 0 1 2. */
	static const uint8_t columns[] = {0x3a, 4, 0, 0, 1, 2, 0x42, 4, 2, 1, 0, 0, 0x4a, 4, 0x11, 0x21, 0, 0, 0x52, 3, 0, 1, 2};
	cr_assert_not_null(memmem(out.data, out.len, columns, sizeof(columns)));
	/* "/src/a.cc" and the demangled name stand there once, though two frames have them. */
	const uint8_t *first = memmem(out.data, out.len, "/src/a.cc", 9);
	cr_assert_not_null(first);
	cr_assert_null(memmem(first + 1, (size_t)(out.data + out.len - first) - 1, "/src/a.cc", 9));
	cr_assert(contains(&out, "ns::f(int)") && contains(&out, "_ZN2ns1fEi"));
	buf_deinit(&out);
}

Test(names, forgets_everything_past_its_limit_and_goes_on, .init = set_up, .fini = tear_down)
{
	struct api_names *small;
	struct table_frame frames[TABLE_MAX_DEPTH];
	size_t count = table_lookup(&table, 0x1011, frames, TABLE_MAX_DEPTH);
	cr_assert_eq(count, 2);
	cr_assert_null(api_names_create(1, &small));

	for (uint8_t i = 0; i < 100; i++) {
		struct sha256 id = {{i}};
		const struct api_text *name;
		cr_assert_null(api_names_use_table(small, &id));
		cr_assert_null(api_names_function(small, &frames[1], API_DEMANGLE_FULL, &name));
		cr_assert_eq(name->len, 10);
		cr_assert_arr_eq(name->bytes, "ns::f(int)", 10);
	}
	api_names_destroy(small);
}

/* The same function number of two tables is two names. */
Test(names, keeps_tables_apart_whose_addresses_begin_alike, .init = set_up, .fini = tear_down)
{
	struct table_frame frame = {.function = "one", .dir = "", .base = ""};
	struct sha256 a = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, b = {{1, 2, 3, 4, 5, 6, 7, 8, 10}};
	const struct api_text *name;

	cr_assert_null(api_names_use_table(names, &a));
	cr_assert_null(api_names_function(names, &frame, API_DEMANGLE_NONE, &name));
	cr_assert_arr_eq(name->bytes, "one", 3);
	frame.function = "two";
	cr_assert_null(api_names_function(names, &frame, API_DEMANGLE_NONE, &name));
	cr_assert_arr_eq(name->bytes, "one", 3, "remembered by number");
	cr_assert_null(api_names_use_table(names, &b));
	cr_assert_null(api_names_function(names, &frame, API_DEMANGLE_NONE, &name));
	cr_assert_arr_eq(name->bytes, "two", 3);
	cr_assert_null(api_names_use_table(names, &a));
	cr_assert_null(api_names_function(names, &frame, API_DEMANGLE_NONE, &name));
	cr_assert_arr_eq(name->bytes, "one", 3);
}

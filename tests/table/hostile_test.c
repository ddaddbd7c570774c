// SPDX-License-Identifier: Apache-2.0
/* Tables and inputs that are wrong: each is refused with an error, or answers something without harm (run under ASan too). */
#include "tests/table/sample.h"

#include "symbolizer/table/format.h"

#include <criterion/criterion.h>

static struct sample sample;
static struct table_frame frames[TABLE_MAX_DEPTH];

static struct buf small_table(void)
{
	static const struct sample_shape shape = {.rows = 90,
		.nodes = 60,
		.functions = 12,
		.files = 6,
		.max_gap = 12,
		.hole_in = 10,
		.max_depth = 6,
		.max_line = 3000,
		.max_column = 100};
	uint64_t state = 5;
	struct buf buf = {0};
	sample_fill(&sample, &shape, &state);
	struct err *e = table_write(&sample.input, &buf);
	cr_assert_null(e);
	return buf;
}

/* Everything that a reader may do with a table that opens. */
static void use_table(const struct table *table)
{
	static uint64_t vaddrs[SAMPLE_MAX];
	static uint32_t first[SAMPLE_MAX + 1];
	struct table_info info;
	table_info(table, &info);
	size_t count = sample.input.row_count;
	for (size_t i = 0; i < count; i++) {
		vaddrs[i] = sample.rows[i].vaddr + i % 3;
		size_t n = table_lookup(table, vaddrs[i], frames, TABLE_MAX_DEPTH);
		for (size_t k = 0; k < n; k++) {
			cr_assert_leq(strlen(frames[k].function) + strlen(frames[k].dir) + strlen(frames[k].base), 3 * table->len);
			uint32_t cursor = frames[k].aliases;
			for (size_t steps = 0; table_next_alias(table, &cursor); steps++)
				cr_assert_lt(steps, table->len);
		}
	}
	for (size_t done = 0; done < count;) {
		size_t n = table_lookup_batch(table, vaddrs + done, count - done, frames, TABLE_MAX_DEPTH, first);
		cr_assert_geq(n, 1);
		done += n;
	}
}

static enum err_code code_of(struct err *e)
{
	cr_assert_not_null(e);
	enum err_code code = err_code(e);
	err_free(e);
	return code;
}

Test(table_open, refuses_every_truncation)
{
	CLEANUP(buf_deinit) struct buf buf = small_table();
	struct table table = {0};
	for (size_t len = 0; len < buf.len; len++) {
		CLEANUP(freep) uint8_t *copy = malloc(len + 1);
		memcpy(copy, buf.data, len);
		cr_assert_eq(code_of(table_open(copy, len, &table)), ERR_CORRUPT, "%zu bytes", len);
		cr_assert_null(table.bytes, "%zu bytes: ret was written", len);
	}
}

Test(table_open, refuses_an_unknown_version_as_unsupported)
{
	CLEANUP(buf_deinit) struct buf buf = small_table();
	struct table table;
	buf.data[offsetof(struct table_header, version)] = FORMAT_VERSION + 1;
	cr_assert_eq(code_of(table_open(buf.data, buf.len, &table)), ERR_UNSUPPORTED);
}

Test(table_verify, catches_every_changed_byte_and_lookups_survive_it, .timeout = 300)
{
	CLEANUP(buf_deinit) struct buf buf = small_table();
	CLEANUP(freep) uint8_t *copy = malloc(buf.len); /* exactly: ASan sees a read past the end */
	memcpy(copy, buf.data, buf.len);
	static const uint8_t changes[] = {0x01, 0x80, 0xff};
	for (size_t i = 0; i < buf.len; i++)
		for (size_t k = 0; k < ARRAY_SIZE(changes); k++) {
			struct table table;
			copy[i] ^= changes[k];
			struct err *e = table_open(copy, buf.len, &table);
			if (!e) {
				use_table(&table);
				e = table_verify(&table);
			}
			cr_assert_not_null(e, "byte %zu", i);
			err_free(e);
			copy[i] ^= changes[k];
		}
}

Test(table_lookup, survives_random_damage, .timeout = 300)
{
	uint64_t state = 42;
	CLEANUP(buf_deinit) struct buf buf = small_table();
	CLEANUP(freep) uint8_t *copy = malloc(buf.len);
	unsigned opened = 0;
	for (unsigned round = 0; round < 4000; round++) {
		memcpy(copy, buf.data, buf.len);
		/* past the fixed part of the header, so that most of them open */
		size_t from = round % 4 ? sizeof(struct table_header) : 16;
		for (unsigned k = 0; k < 1 + round % 64; k++)
			copy[from + sample_random(&state) % (buf.len - from)] = (uint8_t)sample_random(&state);
		struct table table;
		struct err *e = table_open(copy, buf.len, &table);
		if (!e) {
			use_table(&table);
			opened++;
		}
		err_free(e);
	}
	cr_assert_gt(opened, 2000);
}

/* The first node made its own ancestor at every distance cannot be: distances are at least 1. A wide one of 0 ends the walk. */
Test(table_lookup, ends_on_a_node_table_of_ones_and_of_zeros)
{
	for (int fill = 0; fill <= 0xff; fill += 0xff) {
		CLEANUP(buf_deinit) struct buf buf = small_table();
		struct table_header h;
		memcpy(&h, buf.data, sizeof(h));
		const struct format_array *nodes = &h.arrays[ARRAY_NODES], *wide = &h.arrays[ARRAY_WIDE];
		memset(buf.data + nodes->offset, fill, (nodes->count * (size_t)nodes->bits + 7) / 8);
		memset(buf.data + wide->offset, fill, (wide->count * (size_t)wide->bits + 7) / 8);
		struct table table;
		struct err *e = table_open(buf.data, buf.len, &table);
		cr_assert_null(e);
		use_table(&table);
	}
}

/* ---- inputs that the writer refuses ------------------------------------------------------------------------------- */

struct bad_input {
	const char *name, *says;
	void (*spoil)(struct sample *s);
};

static void text_without_nul(struct sample *s) { s->input.text_len--; }
static void file_text_past_end(struct sample *s) { s->files[2].base = (uint32_t)s->text_len; }
static void name_past_end(struct sample *s) { s->functions[3].name = UINT32_MAX; }
static void alias_past_end(struct sample *s) { s->aliases[4] = (uint32_t)s->text_len; }
static void function_past_end(struct sample *s) { s->nodes[5].function = (uint32_t)s->input.function_count; }
static void alias_range_past_end(struct sample *s)
{
	s->nodes[0].alias_first = UINT32_MAX;
	s->nodes[0].alias_count = 2;
}
static void parent_is_itself(struct sample *s) { s->nodes[6].parent = 6; }
static void call_file_past_end(struct sample *s)
{
	s->nodes[7].parent = 0;
	s->nodes[7].call_file = 6;
}
static void rows_do_not_rise(struct sample *s) { s->rows[8].vaddr = s->rows[7].vaddr; }
static void row_node_past_end(struct sample *s) { s->rows[9].node = 60; }
static void row_file_past_end(struct sample *s) { s->rows[10].file = 6; }
static void last_row_open(struct sample *s) { s->rows[89].node = 0; }
static void long_build_id(struct sample *s) { s->input.build_id.len = BUILD_ID_MAX + 1; }

static const struct bad_input bad_inputs[] = {
	{"text without NUL", "text does not end", text_without_nul},
	{"file text", "file 2:", file_text_past_end},
	{"function name", "function 3:", name_past_end},
	{"alias text", "alias 4:", alias_past_end},
	{"node function", "node 5:", function_past_end},
	{"alias range", "node 0: aliases", alias_range_past_end},
	{"parent", "node 6: its parent", parent_is_itself},
	{"call file", "node 7: file", call_file_past_end},
	{"rows that do not rise", "row 8:", rows_do_not_rise},
	{"row node", "row 9: node", row_node_past_end},
	{"row file", "row 10: file", row_file_past_end},
	{"last row", "row 89: the last", last_row_open},
	{"build ID", "build ID of 65", long_build_id},
};

Test(table_write, refuses_bad_input_naming_the_element_and_leaves_the_buffer)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_inputs); i++) {
		CLEANUP(buf_deinit) struct buf good = small_table();
		bad_inputs[i].spoil(&sample);
		size_t len = good.len;
		struct err *e = table_write(&sample.input, &good);
		cr_assert_not_null(e, "%s", bad_inputs[i].name);
		cr_assert_eq(err_code(e), ERR_INVALID, "%s", bad_inputs[i].name);
		cr_assert(strstr(err_message(e), bad_inputs[i].says), "%s: %s", bad_inputs[i].name, err_message(e));
		cr_assert_eq(good.len, len, "%s", bad_inputs[i].name);
		err_free(e);
	}
}

/* Only the counts are large: they are compared before anything behind them is read. */
Test(table_write, refuses_more_than_the_format_can_number)
{
	const struct table_input inputs[] = {{.node_count = (size_t)1 << NODE_WIDEST},
		{.function_count = UINT32_MAX}, {.file_count = UINT32_MAX}, {.alias_count = UINT32_MAX},
		{.text_len = (size_t)UINT32_MAX + 1}};
	for (size_t i = 0; i < ARRAY_SIZE(inputs); i++) {
		CLEANUP(buf_deinit) struct buf buf = {0};
		cr_assert_eq(code_of(table_write(&inputs[i], &buf)), ERR_LIMIT, "input %zu", i);
	}
}

Test(table_write, refuses_a_chain_deeper_than_readers_follow)
{
	static struct table_input_node nodes[TABLE_MAX_DEPTH + 1];
	const struct table_input_function functions[] = {{.name = 0, .file = TABLE_NONE}};
	/* the second row is too deep by itself, or on top of what the first one numbered */
	for (uint32_t first = 0; first <= TABLE_MAX_DEPTH - 1; first += TABLE_MAX_DEPTH - 1) {
		for (uint32_t i = 0; i <= TABLE_MAX_DEPTH; i++)
			nodes[i] = (struct table_input_node){.parent = i ? i - 1 : (uint32_t)TABLE_NONE, .call_file = i ? TABLE_NONE : 0};
		const struct table_input_row rows[] = {{.vaddr = 1, .node = first, .file = TABLE_NONE},
			{.vaddr = 2, .node = TABLE_MAX_DEPTH, .file = TABLE_NONE}, {.vaddr = 3, .node = TABLE_NONE}};
		const struct table_input in = {.text = "f",
			.text_len = 2,
			.functions = functions,
			.function_count = 1,
			.nodes = nodes,
			.node_count = TABLE_MAX_DEPTH + 1,
			.rows = rows,
			.row_count = 3};
		CLEANUP(buf_deinit) struct buf buf = {0};
		struct err *e = table_write(&in, &buf);
		cr_assert_not_null(e);
		cr_assert_eq(err_code(e), ERR_INVALID);
		cr_assert(strstr(err_message(e), "node 1024: more than 1023 ancestors"), "%s", err_message(e));
		err_free(e);
	}
}

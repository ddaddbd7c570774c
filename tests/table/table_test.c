// SPDX-License-Identifier: Apache-2.0
#include "tests/table/sample.h"

#include "symbolizer/table/format.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct sample sample;
static struct table_frame frames[TABLE_MAX_DEPTH], wanted[TABLE_MAX_DEPTH];

static struct buf write_sample(const struct table_input *input)
{
	struct buf buf = {0};
	struct err *e = table_write(input, &buf);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	return buf;
}

static struct table open_bytes(const void *bytes, size_t len)
{
	struct table table;
	struct err *e = table_open(bytes, len, &table);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	return table;
}

static void check_frames(const struct table_frame *got, const struct table_frame *want, size_t count, uint64_t vaddr)
{
	for (size_t i = 0; i < count; i++) {
		cr_assert_str_eq(got[i].function, want[i].function, "0x%lx frame %zu", vaddr, i);
		cr_assert_str_eq(got[i].dir, want[i].dir, "0x%lx frame %zu", vaddr, i);
		cr_assert_str_eq(got[i].base, want[i].base, "0x%lx frame %zu", vaddr, i);
		cr_assert_eq(got[i].line, want[i].line, "0x%lx frame %zu: line %u, not %u", vaddr, i, got[i].line, want[i].line);
		cr_assert_eq(got[i].column, want[i].column, "0x%lx frame %zu", vaddr, i);
		cr_assert_eq(got[i].start_line, want[i].start_line, "0x%lx frame %zu", vaddr, i);
		cr_assert_eq(got[i].inlined, want[i].inlined, "0x%lx frame %zu", vaddr, i);
		cr_assert_eq(got[i].offset, want[i].offset, "0x%lx frame %zu", vaddr, i);
		cr_assert_eq(got[i].file_id == 0, want[i].base[0] == 0);
	}
}

static void check_address(const struct table *table, const struct table_input *in, uint64_t vaddr)
{
	size_t want = sample_lookup(in, vaddr, wanted, TABLE_MAX_DEPTH);
	size_t got = table_lookup(table, vaddr, frames, TABLE_MAX_DEPTH);
	cr_assert_eq(got, want, "0x%lx: %zu frames, not %zu", vaddr, got, want);
	check_frames(frames, wanted, want, vaddr);
}

/* The addresses at which something may go wrong: around every row. Returns how many. */
static size_t edge_addresses(const struct table_input *in, uint64_t *state, uint64_t *ret)
{
	size_t n = 0;
	for (size_t i = 0; i < in->row_count; i++) {
		ret[n++] = in->rows[i].vaddr - 1;
		ret[n++] = in->rows[i].vaddr;
		ret[n++] = in->rows[i].vaddr + 1;
		ret[n++] = in->rows[i].vaddr + (sample_random(state) >> (sample_random(state) & 63));
	}
	for (size_t i = n; i > 1; i--) {
		size_t k = sample_random(state) % i;
		uint64_t swap = ret[i - 1];
		ret[i - 1] = ret[k];
		ret[k] = swap;
	}
	ret[n++] = 0;
	ret[n++] = UINT64_MAX;
	return n;
}

static void check_batch(const struct table *table, const struct table_input *in, const uint64_t *vaddrs, size_t count)
{
	enum { CAP = TABLE_MAX_DEPTH + 100 };
	static struct table_frame many[CAP];
	static uint32_t first[4 * SAMPLE_MAX + 8];
	for (size_t done = 0; done < count;) {
		size_t n = table_lookup_batch(table, vaddrs + done, count - done, many, CAP, first);
		cr_assert(n >= 1 && n <= count - done);
		cr_assert_eq(first[0], 0);
		for (size_t i = 0; i < n; i++) {
			size_t want = sample_lookup(in, vaddrs[done + i], wanted, TABLE_MAX_DEPTH);
			cr_assert_eq(first[i + 1] - first[i], want);
			check_frames(many + first[i], wanted, want, vaddrs[done + i]);
		}
		done += n;
	}
}

static void check_table(const struct table *table, const struct table_input *in, uint64_t *state)
{
	static uint64_t vaddrs[4 * SAMPLE_MAX + 2];
	size_t count = edge_addresses(in, state, vaddrs);
	for (size_t i = 0; i < count; i++)
		check_address(table, in, vaddrs[i]);
	check_batch(table, in, vaddrs, count);
}

Test(table_lookup, answers_as_the_reference_on_random_tables, .timeout = 300)
{
	uint64_t state = 20261120;
	for (unsigned round = 0; round < 2500; round++) {
		struct sample_shape shape = sample_random_shape(&state);
		sample_fill(&sample, &shape, &state);
		CLEANUP(buf_deinit) struct buf buf = write_sample(&sample.input);
		struct table table = open_bytes(buf.data, buf.len);
		struct err *e = table_verify(&table);
		cr_assert_null(e);
		check_table(&table, &sample.input, &state);
	}
}

static void fill_usual(uint64_t seed)
{
	static const struct sample_shape usual = {.rows = 300,
		.nodes = 200,
		.functions = 40,
		.files = 20,
		.max_gap = 12,
		.hole_in = 20,
		.max_depth = 8,
		.max_line = 3000,
		.max_column = 100};
	sample_fill(&sample, &usual, &seed);
}

Test(table_lookup, answers_at_every_misalignment)
{
	uint64_t state = 7;
	fill_usual(7);
	CLEANUP(buf_deinit) struct buf buf = write_sample(&sample.input);
	for (size_t shift = 0; shift < 64; shift++) {
		CLEANUP(freep) uint8_t *moved = malloc(buf.len + shift); /* ends where the table ends: ASan sees one byte more */
		memcpy(moved + shift, buf.data, buf.len);
		struct table table = open_bytes(moved + shift, buf.len);
		check_table(&table, &sample.input, &state);
	}
}

Test(table_write, gives_the_same_bytes_for_the_same_input)
{
	fill_usual(3);
	CLEANUP(buf_deinit) struct buf a = write_sample(&sample.input);
	CLEANUP(buf_deinit) struct buf b = {0};
	struct err *e = buf_append(&b, "before", 6);
	cr_assert_null(e);
	e = table_write(&sample.input, &b);
	cr_assert_null(e);
	cr_assert_eq(a.len, b.len - 6);
	cr_assert_arr_eq(a.data, b.data + 6, a.len);
}

/* Unused nodes, functions, files and text, and rows that repeat the one before, change nothing. */
Test(table_write, leaves_out_what_is_unused_and_merges_equal_rows)
{
	uint64_t state = 99;
	fill_usual(3);
	CLEANUP(buf_deinit) struct buf a = write_sample(&sample.input);
	struct table_input in = sample.input;
	sample.functions[in.function_count] = (struct table_input_function){.name = 0, .file = TABLE_NONE, .start_line = 77};
	sample.nodes[in.node_count++] = (struct table_input_node){.parent = TABLE_NONE, .function = (uint32_t)in.function_count++};
	sample.files[in.file_count++] = (struct table_input_file){0};
	static struct table_input_row rows[2 * SAMPLE_MAX];
	size_t n = 0;
	for (size_t i = 0; i < in.row_count; i++) {
		rows[n++] = in.rows[i];
		if (i + 1 < in.row_count && in.rows[i + 1].vaddr > in.rows[i].vaddr + 1 && (sample_random(&state) & 1)) {
			rows[n] = in.rows[i];
			rows[n++].vaddr++;
		}
	}
	cr_assert_gt(n, in.row_count);
	in.rows = rows;
	in.row_count = n;
	CLEANUP(buf_deinit) struct buf b = write_sample(&in);
	cr_assert_eq(a.len, b.len);
	cr_assert_arr_eq(a.data, b.data, a.len);
}

Test(table_write, makes_an_empty_table_of_no_rows)
{
	CLEANUP(buf_deinit) struct buf buf = write_sample(&(struct table_input){.sources = TABLE_FROM_SYMTAB});
	struct table table = open_bytes(buf.data, buf.len);
	uint32_t first[3];
	uint64_t vaddrs[2] = {0, UINT64_MAX};
	cr_assert_eq(table_lookup(&table, 0, frames, TABLE_MAX_DEPTH), 0);
	cr_assert_eq(table_lookup_batch(&table, vaddrs, 2, frames, TABLE_MAX_DEPTH, first), 2);
	cr_assert_eq(first[2], 0);
	struct table_info info;
	table_info(&table, &info);
	cr_assert_eq(info.rows, 0);
	cr_assert_eq(info.sources, TABLE_FROM_SYMTAB);
}

/* A chain as deep as chains may be, entered once per depth. */
static struct table_input deep_input(unsigned depth, struct table_input_node *nodes)
{
	static const struct table_input_function functions[] = {{.name = 0, .file = TABLE_NONE, .start_line = 5}};
	static struct table_input_row rows[2];
	for (unsigned i = 0; i < depth; i++)
		nodes[i] = i ? (struct table_input_node){.parent = i - 1, .call_file = TABLE_NONE, .call_line = i}
			     : (struct table_input_node){.parent = TABLE_NONE, .entry_vaddr = 0x1000};
	rows[0] = (struct table_input_row){.vaddr = 0x1000, .node = depth - 1, .file = TABLE_NONE, .line = 9};
	rows[1] = (struct table_input_row){.vaddr = 0x1010, .node = TABLE_NONE, .file = TABLE_NONE};
	return (struct table_input){.text = "f",
		.text_len = 2,
		.functions = functions,
		.function_count = 1,
		.nodes = nodes,
		.node_count = depth,
		.rows = rows,
		.row_count = 2};
}

Test(table_lookup, keeps_the_innermost_and_the_outermost_when_the_caller_has_no_room)
{
	static struct table_input_node nodes[TABLE_MAX_DEPTH];
	struct table_input in = deep_input(TABLE_MAX_DEPTH, nodes);
	CLEANUP(buf_deinit) struct buf buf = write_sample(&in);
	struct table table = open_bytes(buf.data, buf.len);
	cr_assert_eq(table_lookup(&table, 0x1004, frames, TABLE_MAX_DEPTH), TABLE_MAX_DEPTH);
	cr_assert_not(frames[TABLE_MAX_DEPTH - 1].inlined);
	cr_assert_eq(table_lookup(&table, 0x1004, frames, 4), 4);
	cr_assert_eq(frames[0].line, 9);
	cr_assert_eq(frames[1].line, TABLE_MAX_DEPTH - 1);
	cr_assert_eq(frames[2].line, TABLE_MAX_DEPTH - 2);
	cr_assert_eq(frames[3].line, 1);
	cr_assert_eq(frames[3].offset, 4);
	cr_assert(frames[2].inlined && !frames[3].inlined);
	cr_assert_eq(table_lookup(&table, 0x1004, frames, 1), 1);
	cr_assert_eq(frames[0].line, 1);
	cr_assert_eq(table_lookup(&table, 0x1004, frames, 0), 0);
}

Test(table_lookup_batch, stops_where_a_chain_does_not_fit_and_goes_on_from_there)
{
	static struct table_input_node nodes[TABLE_MAX_DEPTH];
	struct table_input in = deep_input(TABLE_MAX_DEPTH, nodes);
	CLEANUP(buf_deinit) struct buf buf = write_sample(&in);
	struct table table = open_bytes(buf.data, buf.len);
	uint64_t vaddrs[3] = {0x1001, 0x2000, 0x1002};
	uint32_t first[4];
	cr_assert_eq(table_lookup_batch(&table, vaddrs, 3, frames, TABLE_MAX_DEPTH, first), 2);
	cr_assert_eq(first[1], TABLE_MAX_DEPTH);
	cr_assert_eq(first[2], TABLE_MAX_DEPTH);
	cr_assert_eq(table_lookup_batch(&table, vaddrs + 2, 1, frames, TABLE_MAX_DEPTH, first), 1);
	cr_assert_eq(frames[TABLE_MAX_DEPTH - 1].offset, 2);
}

Test(table_next_alias, gives_the_aliases_in_order_and_then_null)
{
	const char text[] = "main\0alias_a\0alias_b";
	const uint32_t aliases[] = {13, 5, 5};
	const struct table_input_function functions[] = {{.name = 0, .file = TABLE_NONE}};
	const struct table_input_node nodes[] = {
		{.parent = TABLE_NONE, .alias_first = 0, .alias_count = 2, .entry_vaddr = 16},
		{.parent = TABLE_NONE, .entry_vaddr = 24},
	};
	const struct table_input_row rows[] = {
		{.vaddr = 16, .file = TABLE_NONE}, {.vaddr = 24, .node = 1, .file = TABLE_NONE}, {.vaddr = 32, .node = TABLE_NONE}};
	const struct table_input in = {.text = text,
		.text_len = sizeof(text),
		.functions = functions,
		.function_count = 1,
		.nodes = nodes,
		.node_count = 2,
		.aliases = aliases,
		.alias_count = 3,
		.rows = rows,
		.row_count = 3};
	CLEANUP(buf_deinit) struct buf buf = write_sample(&in);
	struct table table = open_bytes(buf.data, buf.len);
	cr_assert_eq(table_lookup(&table, 17, frames, 1), 1);
	uint32_t cursor = frames[0].aliases;
	cr_assert_str_eq(table_next_alias(&table, &cursor), "alias_b");
	cr_assert_str_eq(table_next_alias(&table, &cursor), "alias_a");
	cr_assert_null(table_next_alias(&table, &cursor));
	cr_assert_eq(table_lookup(&table, 25, frames, 1), 1);
	cr_assert_eq(frames[0].aliases, 0);
	cursor = 1000;
	cr_assert_null(table_next_alias(&table, &cursor));
}

Test(table_info, counts_what_was_written)
{
	fill_usual(11);
	CLEANUP(buf_deinit) struct buf buf = write_sample(&sample.input);
	struct table table = open_bytes(buf.data, buf.len);
	struct table_info info;
	table_info(&table, &info);
	cr_assert_eq(info.version, FORMAT_VERSION);
	cr_assert_eq(info.elf_machine, 62);
	cr_assert(build_id_equal(&info.build_id, &sample.input.build_id));
	cr_assert_eq(info.total_bytes, buf.len);
	cr_assert(info.rows > 200 && info.rows < 300);
	cr_assert_geq(info.blocks, (info.rows + FORMAT_BLOCK_ROWS - 1) / FORMAT_BLOCK_ROWS);
	cr_assert(info.concretes > 0 && info.inline_nodes > 0 && info.functions <= 40);
	cr_assert_leq(info.index_bytes + info.block_bytes + info.node_bytes + info.function_bytes + info.file_bytes +
			info.string_bytes + sizeof(struct table_header),
		buf.len);
}

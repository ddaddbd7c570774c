// SPDX-License-Identifier: Apache-2.0
#include "tests/table/sample.h"

#include <stdio.h>

uint64_t sample_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

static uint32_t below(uint64_t *state, uint32_t bound)
{
	return bound ? (uint32_t)(sample_random(state) % bound) : 0;
}

static uint32_t up_to(uint64_t *state, uint32_t limit)
{
	return (uint32_t)(sample_random(state) % ((uint64_t)limit + 1));
}

/* One of the values. */
static uint32_t one_of(uint64_t *state, const uint32_t *values, unsigned count)
{
	return values[below(state, count)];
}
#define ONE_OF(state, ...) one_of(state, (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / 4)

struct sample_shape sample_random_shape(uint64_t *state)
{
	return (struct sample_shape){
		.rows = ONE_OF(state, 1, 2, 31, 32, 33, 64, 100, 600),
		.nodes = ONE_OF(state, 1, 2, 20, 300, SAMPLE_MAX),
		.functions = ONE_OF(state, 1, 2, 40, 200),
		.files = ONE_OF(state, 1, 3, 70),
		.max_gap = ONE_OF(state, 1, 4, 12, 300, 70000, UINT32_MAX),
		.huge_gap_in = ONE_OF(state, 0, 0, 0, 5, 100),
		.hole_in = ONE_OF(state, 0, 2, 10, 50),
		.max_depth = ONE_OF(state, 1, 3, 20, SAMPLE_MAX),
		.max_line = ONE_OF(state, 0, 60, 5000, 1u << 20, UINT32_MAX),
		.max_column = ONE_OF(state, 0, 1, 80, 70000, UINT32_MAX),
	};
}

static uint32_t add_text(struct sample *s, const char *prefix, unsigned number)
{
	uint32_t offset = (uint32_t)s->text_len;
	int n = snprintf(s->text + s->text_len, SAMPLE_MAX_TEXT - s->text_len, "%s%u", prefix, number);
	if (n < 0 || s->text_len + (size_t)n + 1 >= SAMPLE_MAX_TEXT)
		return 0;
	s->text_len += (size_t)n + 1;
	return offset;
}

static uint32_t any_file(const struct sample_shape *shape, uint64_t *state)
{
	return below(state, 12) == 0 ? (uint32_t)TABLE_NONE : below(state, shape->files);
}

/* Mostly the file that the function's number suggests, so that predictions hold as they do in real files. */
static uint32_t file_near(const struct sample_shape *shape, uint32_t function, uint64_t *state)
{
	return below(state, 8) ? function % shape->files : any_file(shape, state);
}

static uint32_t line_near(const struct sample_shape *shape, uint32_t start, uint64_t *state)
{
	return below(state, 4) ? start + below(state, 60) : up_to(state, shape->max_line);
}

static void fill_nodes(struct sample *s, const struct sample_shape *shape, uint64_t *state)
{
	static _Thread_local unsigned depth[SAMPLE_MAX];
	for (unsigned i = 0; i < shape->nodes; i++) {
		struct table_input_node *node = &s->nodes[i];
		*node = (struct table_input_node){.parent = TABLE_NONE, .function = below(state, shape->functions)};
		uint32_t parent = i ? (below(state, 2) ? i - 1 : below(state, i)) : 0;
		if (i == 0 || below(state, 4) == 0 || depth[parent] + 1 >= shape->max_depth) {
			depth[i] = 0;
			node->entry_vaddr = sample_random(state) >> below(state, 64);
			node->alias_count = below(state, 4);
			node->alias_first = below(state, SAMPLE_MAX - 4);
			continue;
		}
		depth[i] = depth[parent] + 1;
		node->parent = parent;
		uint32_t caller = s->nodes[parent].function;
		node->call_file = file_near(shape, caller, state);
		node->call_line = line_near(shape, s->functions[caller].start_line, state);
		node->call_column = up_to(state, shape->max_column);
	}
}

static void fill_rows(struct sample *s, const struct sample_shape *shape, uint64_t *state)
{
	uint64_t vaddr = sample_random(state) >> (2 + below(state, 60));
	uint32_t node = 0;
	for (unsigned i = 0; i < shape->rows; i++) {
		struct table_input_row *row = &s->rows[i];
		if (below(state, 3) == 0)
			node = below(state, shape->nodes);
		uint32_t function = s->nodes[node].function;
		bool hole = shape->hole_in && below(state, shape->hole_in) == 0;
		*row = (struct table_input_row){
			.vaddr = vaddr,
			.node = hole || i + 1 == shape->rows ? (uint32_t)TABLE_NONE : node,
			.file = file_near(shape, function, state),
			.line = below(state, 10) ? line_near(shape, s->functions[function].start_line, state) : 0,
			.column = below(state, 3) ? up_to(state, shape->max_column) : below(state, 2),
		};
		vaddr += 1 + (uint64_t)below(state, shape->max_gap);
		if (shape->huge_gap_in && below(state, shape->huge_gap_in) == 0)
			vaddr += sample_random(state) >> (12 + below(state, 20));
	}
}

void sample_fill(struct sample *s, const struct sample_shape *shape, uint64_t *state)
{
	s->text_len = 1;
	s->text[0] = 0;
	for (unsigned i = 0; i < shape->files; i++)
		s->files[i] = (struct table_input_file){
			.dir = add_text(s, "/dir", i % 5), .base = add_text(s, "file", i % 50)};
	for (unsigned i = 0; i < shape->functions; i++)
		s->functions[i] = (struct table_input_function){.name = add_text(s, "_Z1f", i % 150),
			.file = any_file(shape, state),
			.start_line = below(state, 5) ? up_to(state, shape->max_line < 4000 ? shape->max_line : 4000)
						      : up_to(state, shape->max_line)};
	for (unsigned i = 0; i < SAMPLE_MAX; i++)
		s->aliases[i] = s->functions[i % shape->functions].name;
	fill_nodes(s, shape, state);
	fill_rows(s, shape, state);
	s->input = (struct table_input){
		.sources = TABLE_FROM_DWARF,
		.elf_machine = 62,
		.build_id = {.len = 3, .bytes = {1, 2, 3}},
		.text = s->text,
		.text_len = s->text_len,
		.files = s->files,
		.file_count = shape->files,
		.functions = s->functions,
		.function_count = shape->functions,
		.nodes = s->nodes,
		.node_count = shape->nodes,
		.aliases = s->aliases,
		.alias_count = SAMPLE_MAX,
		.rows = s->rows,
		.row_count = shape->rows,
	};
}

static void fill_reference(const struct table_input *in, const struct table_input_node *node, uint32_t file,
	struct table_frame *ret)
{
	const struct table_input_function *function = &in->functions[node->function];
	ret->function = in->text + function->name;
	ret->start_line = function->start_line;
	ret->dir = file == TABLE_NONE ? "" : in->text + in->files[file].dir;
	ret->base = file == TABLE_NONE ? "" : in->text + in->files[file].base;
	ret->inlined = node->parent != TABLE_NONE;
}

size_t sample_lookup(const struct table_input *in, uint64_t vaddr, struct table_frame *frames, size_t cap)
{
	size_t i = 0, depth = 0;
	while (i < in->row_count && in->rows[i].vaddr <= vaddr)
		i++;
	if (i == 0 || in->rows[i - 1].node == TABLE_NONE)
		return 0;
	const struct table_input_row *row = &in->rows[i - 1];
	uint32_t file = row->file, line = row->line, column = row->column;
	for (uint32_t n = row->node; n != TABLE_NONE; depth++) {
		const struct table_input_node *node = &in->nodes[n];
		struct table_frame *frame = &frames[depth < cap ? depth : cap - 1];
		*frame = (struct table_frame){.line = line, .column = column};
		fill_reference(in, node, file, frame);
		if (node->parent == TABLE_NONE)
			frame->offset = vaddr >= node->entry_vaddr ? vaddr - node->entry_vaddr : 0;
		else
			file = node->call_file, line = node->call_line, column = node->call_column;
		n = node->parent;
	}
	return depth < cap ? depth : cap;
}

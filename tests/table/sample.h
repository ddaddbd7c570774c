// SPDX-License-Identifier: Apache-2.0
/*
 * Inputs for the table's tests: random ones of every shape, and the slow reference that says what a table made of them
 * must answer. Used by the tests of this folder and by the program that makes the fuzz corpus.
 */
#ifndef CAIRN_TESTS_TABLE_SAMPLE_H
#define CAIRN_TESTS_TABLE_SAMPLE_H

#include "symbolizer/table/table.h"
#include "symbolizer/table/writer.h"

enum { SAMPLE_MAX_TEXT = 4096, SAMPLE_MAX = 640 };

struct sample {
	char text[SAMPLE_MAX_TEXT];
	size_t text_len;
	struct table_input_file files[SAMPLE_MAX];
	struct table_input_function functions[SAMPLE_MAX];
	struct table_input_node nodes[SAMPLE_MAX];
	uint32_t aliases[SAMPLE_MAX];
	struct table_input_row rows[SAMPLE_MAX];
	struct table_input input;
};

/* What a random sample looks like. */
struct sample_shape {
	unsigned rows, nodes, functions, files;
	unsigned max_gap;     /* bytes between rows */
	unsigned huge_gap_in; /* one gap in so many is past 4 GiB; 0: none */
	unsigned hole_in;     /* one row in so many is a hole; 0: none */
	unsigned max_depth;
	uint32_t max_line, max_column;
};

uint64_t sample_random(uint64_t *state);
/* A shape drawn from @p state: small and large, dense and sparse, shallow and deep. */
struct sample_shape sample_random_shape(uint64_t *state);
void sample_fill(struct sample *sample, const struct sample_shape *shape, uint64_t *state);

/* The reference: a walk over the input's arrays. Frames' ids and alias handles are left 0. */
size_t sample_lookup(const struct table_input *input, uint64_t vaddr, struct table_frame *frames, size_t cap);

#endif

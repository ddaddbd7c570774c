// SPDX-License-Identifier: Apache-2.0
#include "profiles/block.h"
#include "profiles/dict.h"
#include "base/digest.h"
#include "tests/store/fixture.h"

#include <criterion/criterion.h>

static void random_rows(struct rows *rows, size_t count, uint64_t seed, bool times)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t r = random_next(&seed);
		struct row row = {.hi = row_hi((uint32_t)(r % 3), (uint32_t)((r >> 8) % 40), (uint32_t)((r >> 16) % 500)),
			.lo = row_lo((uint32_t)((r >> 32) % 3600), (int32_t)((r >> 44) % 9) - 1, r >> 63 ? (uint32_t)(r >> 40) % 4 : 0),
			.value = r % 50 == 0 ? r : 1,
			.ns = times ? (uint32_t)(r % 1000000000) : 0};
		MUST(rows_add(rows, &row));
	}
	MUST(rows_sort(rows));
	if (!times)
		rows_add_up(rows);
}

static int row_compare(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->hi != y->hi)
		return x->hi < y->hi ? -1 : 1;
	if (x->lo != y->lo)
		return x->lo < y->lo ? -1 : 1;
	return (x->ns > y->ns) - (x->ns < y->ns);
}

Test(rows_sort, agrees_with_qsort)
{
	for (size_t count = 0; count < 300; count += 7) {
		struct rows rows = {0}, copy = {0};
		uint64_t seed = count;
		for (size_t i = 0; i < count; i++) {
			struct row row = {.hi = random_next(&seed) % 9, .lo = random_next(&seed) % 5, .value = 1, .ns = (uint32_t)random_next(&seed)};
			MUST(rows_add(&rows, &row));
			MUST(rows_add(&copy, &row));
		}
		MUST(rows_sort(&rows));
		if (count)
			qsort(copy.items, count, sizeof(struct row), row_compare);
		for (size_t i = 0; i < count; i++)
			cr_assert_eq(row_compare(&rows.items[i], &copy.items[i]), 0);
		rows_deinit(&rows);
		rows_deinit(&copy);
	}
}

static void round_trip(enum block_kind kind, size_t count)
{
	struct rows rows = {0}, back = {0};
	struct buf bytes = {0};
	struct block block;
	struct group *groups;
	size_t group_count;
	uint64_t value = 0;

	random_rows(&rows, count, count, kind == BLOCK_TIMES);
	MUST(block_encode(&rows, kind, 7, 3, &bytes));
	MUST(block_open(bytes.data, bytes.len, &block));
	cr_expect_eq(block.kind, kind);
	cr_expect_eq(block.level, 7);
	cr_expect_eq(block.rows, rows.count);
	MUST(block_rows(&block, &back));
	cr_assert_eq(back.count, rows.count);
	for (size_t i = 0; i < rows.count; i++) {
		cr_assert_eq(row_compare(&rows.items[i], &back.items[i]), 0);
		cr_assert_eq(rows.items[i].value, back.items[i].value);
		value = add_saturating(value, rows.items[i].value);
	}
	cr_expect_eq(block.value, value);
	MUST(block_groups(&block, &groups, &group_count));
	size_t at = 0;
	for (size_t i = 0; i < group_count; i++) {
		uint64_t sum = 0;
		for (uint32_t k = 0; k < groups[i].rows; k++, at++) {
			cr_assert_eq(rows.items[at].hi, groups[i].hi);
			sum = add_saturating(sum, rows.items[at].value);
		}
		cr_assert_eq(sum, groups[i].value);
	}
	cr_expect_eq(at, rows.count);
	free(groups);
	rows_deinit(&rows);
	rows_deinit(&back);
	buf_deinit(&bytes);
}

Test(block, gives_rows_and_groups_back)
{
	round_trip(BLOCK_SAMPLES, 1);
	round_trip(BLOCK_TIMES, 1);
	round_trip(BLOCK_SAMPLES, 5000);
	round_trip(BLOCK_TIMES, 5000);
}

Test(block, rejects_no_rows)
{
	struct rows none = {0};
	struct buf bytes = {0};
	struct err *e = block_encode(&none, BLOCK_SAMPLES, 0, 1, &bytes);

	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	buf_deinit(&bytes);
}

/* What a damaged block gives: an error or rows, never more; the checksum is made good so that the decoder itself is tried. */
static void try_block(uint8_t *bytes, size_t len)
{
	struct rows rows = {0};
	struct group *groups = NULL;
	struct block block;
	size_t count;

	if (len >= 8) {
		uint64_t sum = digest_xxh3_64(bytes, len - 8);
		memcpy(bytes + len - 8, &sum, 8);
	}
	struct err *e = block_open(bytes, len, &block);
	if (!e) {
		e = block_rows(&block, &rows);
		err_free(e);
		e = block_groups(&block, &groups, &count);
	}
	err_free(e);
	free(groups);
	rows_deinit(&rows);
}

Test(block, damage_is_an_error_or_harmless)
{
	struct rows rows = {0};
	struct buf bytes = {0};
	struct block block;

	random_rows(&rows, 40, 1, true);
	MUST(block_encode(&rows, BLOCK_TIMES, 0, 1, &bytes));
	uint8_t *copy = malloc(bytes.len);
	for (size_t i = 0; i < bytes.len; i++) {
		memcpy(copy, bytes.data, bytes.len);
		copy[i] ^= 0x41;
		struct err *e = block_open(copy, bytes.len, &block);
		cr_assert_not_null(e, "byte %zu", i);
		err_free(e);
		try_block(copy, bytes.len);
	}
	for (size_t len = 0; len < bytes.len; len++) {
		memcpy(copy, bytes.data, len);
		try_block(copy, len);
	}
	free(copy);
	rows_deinit(&rows);
	buf_deinit(&bytes);
}

Test(block, a_newer_version_is_unsupported)
{
	struct buf bytes = {0};
	struct block block;

	MUST(block_begin(BLOCK_DICT, 0, &bytes));
	bytes.data[0] = BLOCK_VERSION + 1;
	MUST(block_finish(&bytes));
	struct err *e = block_open(bytes.data, bytes.len, &block);
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), ERR_UNSUPPORTED);
	err_free(e);
	buf_deinit(&bytes);
}

/* -------------------------------------------------------------------------------------- dictionaries */

static void fill_dict(struct dict *dict, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		char text[32];
		uint32_t t, m, l, node = 0, number;
		struct dict_link link = {.trace_id = {(uint8_t)i}};
		(void)snprintf(text, sizeof(text), "name %u", i);
		MUST(dict_add(dict, DICT_TEXTS, text, strlen(text), &t));
		MUST(dict_add_type(dict, &(struct dict_type){.type = t, .period = -(int64_t)i}, &number));
		struct dict_labels labels = {.parent = i ? i - 1 : SAMPLES_NONE, .count = 1, .items = {{.key = t, .value = t}}};
		MUST(dict_add_labels(dict, &labels, &number));
		struct dict_mapping mapping = {.file_id = file_id_of(i), .build_id = build_id_of(i), .name = t, .has_bias = i & 1, .bias = i & 1 ? i : 0};
		MUST(dict_add_mapping(dict, &mapping, &m));
		MUST(dict_add_line(dict, &(struct dict_line){.function = t, .line = i, .start_line = i / 2}, &l));
		struct dict_location location = {.kind = PROFILE_FRAME_KERNEL, .address_kind = SAMPLES_ADDRESS_TEXT, .mapping = m, .address = i * 1000ull, .line_count = 1, .lines = {l}};
		MUST(dict_add_location(dict, &location, &l));
		MUST(dict_add_link(dict, &link, &number));
		for (unsigned d = 0; d < 5; d++)
			MUST(dict_add_node(dict, node, l - (d < l ? d : l), &node));
	}
}

static void expect_same(const struct dict *a, const struct dict *b)
{
	struct dict_mark x = dict_mark(a), y = dict_mark(b);

	cr_assert(dict_mark_equal(&x, &y));
	for (enum dict_table t = 0; t < DICT_TABLES; t++) {
		cr_assert_eq(a->tables[t].bytes.len, b->tables[t].bytes.len);
		if (a->tables[t].bytes.len)
			cr_assert_arr_eq(a->tables[t].bytes.data, b->tables[t].bytes.data, a->tables[t].bytes.len);
	}
	cr_assert_arr_eq(a->parents, b->parents, a->node_count * sizeof(uint32_t));
	cr_assert_arr_eq(a->locations, b->locations, a->node_count * sizeof(uint32_t));
}

Test(dict, decodes_in_pieces_and_goes_on_from_there)
{
	struct dict a, b;
	struct buf one = {0}, two = {0};
	uint32_t number;

	MUST(dict_init(&a));
	MUST(dict_init(&b));
	struct dict_mark start = dict_mark(&a);
	fill_dict(&a, 0, 50);
	MUST(dict_encode(&a, &start, 1, &one));
	struct dict_mark middle = dict_mark(&a);
	fill_dict(&a, 50, 80);
	MUST(dict_encode(&a, &middle, 9, &two));
	MUST(dict_decode(&b, one.data, one.len));
	struct err *again = dict_decode(&b, one.data, one.len);
	cr_assert_not_null(again, "it does not go on where the dictionary ends");
	cr_expect_eq(err_code(again), ERR_FORMAT);
	err_free(again);
	dict_deinit(&b);
	MUST(dict_init(&b));
	MUST(dict_decode(&b, one.data, one.len));
	MUST(dict_decode(&b, two.data, two.len));
	expect_same(&a, &b);
	/* What is there is found; nothing is added twice. */
	MUST(dict_add(&b, DICT_TEXTS, "name 60", 7, &number));
	cr_expect_eq(dict_text(&b, number).len, 7);
	fill_dict(&b, 0, 80);
	expect_same(&a, &b);
	dict_deinit(&a);
	dict_deinit(&b);
	buf_deinit(&one);
	buf_deinit(&two);
}

Test(dict_map, brings_what_is_asked_for_and_no_more)
{
	struct dict from, to;
	struct dict_map map;
	uint32_t node, labels, again;

	MUST(dict_init(&from));
	MUST(dict_init(&to));
	fill_dict(&from, 0, 60);
	MUST(dict_map_init(&map, &from, &to));
	MUST(dict_map_node(&map, from.node_count - 1, &node));
	MUST(dict_map_node(&map, from.node_count - 1, &again));
	cr_expect_eq(node, again);
	cr_expect_eq(to.node_count, 6);
	cr_expect_eq(to.tables[DICT_MAPPINGS].count, 5);
	cr_expect_eq(to.tables[DICT_TYPES].count, 0);
	/* A set with all its parents, whose chain is as long as there are sets. */
	MUST(dict_map_record(&map, DICT_LABELS, 59, &labels));
	cr_expect_eq(to.tables[DICT_LABELS].count, 60);
	struct dict_location a, b;
	dict_get_location(&from, from.locations[from.node_count - 1], &a);
	dict_get_location(&to, to.locations[node], &b);
	cr_expect_eq(a.address, b.address);
	dict_map_deinit(&map);
	dict_deinit(&from);
	dict_deinit(&to);
}

Test(dict, damage_is_an_error_or_harmless)
{
	struct dict a, b;
	struct buf bytes = {0};

	MUST(dict_init(&a));
	struct dict_mark start = dict_mark(&a);
	fill_dict(&a, 0, 6);
	MUST(dict_encode(&a, &start, 1, &bytes));
	uint8_t *copy = malloc(bytes.len);
	for (size_t i = 0; i < 2 * bytes.len; i++) {
		memcpy(copy, bytes.data, bytes.len);
		if (i < bytes.len)
			copy[i] ^= 0x21;
		MUST(dict_init(&b));
		err_free(dict_decode(&b, copy, i < bytes.len ? bytes.len : i - bytes.len));
		dict_deinit(&b);
	}
	free(copy);
	dict_deinit(&a);
	buf_deinit(&bytes);
}

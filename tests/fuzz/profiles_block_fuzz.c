// SPDX-License-Identifier: Apache-2.0
/*
 * Stored blocks of samples, times and dictionaries, damaged as one likes. The checksum at the end is made good first, or no byte
 * behind it would ever be looked at. What decodes must encode to what decodes to the same again.
 */
#include "base/digest.h"
#include "profiles/block.h"
#include "profiles/dict.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fine(struct err *e)
{
	if (e)
		abort();
}

/* Sorted rows of what was read are encoded and read again. */
static void check_rows(const struct block *block, struct rows *rows)
{
	CLEANUP(buf_deinit) struct buf bytes = {0};
	CLEANUP(rows_deinit) struct rows again = {0};
	struct block other;

	for (size_t i = 0; i < rows->count; i++)
		rows->items[i].value = rows->items[i].value ? rows->items[i].value : 1;
	fine(rows_sort(rows));
	fine(block_encode(rows, block->kind, 1, 1, &bytes));
	fine(block_open(bytes.data, bytes.len, &other));
	fine(block_rows(&other, &again));
	if (again.count != rows->count)
		abort();
	for (size_t i = 0; i < rows->count; i++)
		if (again.items[i].hi != rows->items[i].hi || again.items[i].lo != rows->items[i].lo ||
			again.items[i].value != rows->items[i].value || again.items[i].ns != rows->items[i].ns)
			abort();
}

/* Every record of what was read can be taken over into another dictionary. */
static void check_dict(const struct dict *dict)
{
	CLEANUP(dict_deinitp) struct dict other = {0};
	CLEANUP(dict_map_deinit) struct dict_map map = {0};
	uint32_t number;

	fine(dict_init(&other));
	fine(dict_map_init(&map, dict, &other));
	for (enum dict_table t = 0; t < DICT_TABLES; t++)
		for (uint32_t i = 0; i < dict->tables[t].count && i < 1000; i++)
			fine(dict_map_record(&map, t, i, &number));
	for (uint32_t i = 0; i < dict->node_count && i < 1000; i++)
		fine(dict_map_node(&map, i, &number));
}

static void try_block(const struct block *block)
{
	CLEANUP(rows_deinit) struct rows rows = {0};
	CLEANUP(freep) struct group *groups = NULL;
	CLEANUP(dict_deinitp) struct dict dict = {0};
	size_t count;

	if (block->kind == BLOCK_DICT) {
		fine(dict_init(&dict));
		struct err *e = dict_decode(&dict, block->payload.pos, reader_left(&block->payload));
		if (!e)
			check_dict(&dict);
		err_free(e);
		return;
	}
	struct err *e = block_groups(block, &groups, &count);
	err_free(e);
	e = block_rows(block, &rows);
	if (!e)
		check_rows(block, &rows);
	err_free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct block block;

	if (size < 8 || size > 1 << 20)
		return 0;
	uint8_t *copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data, size - 8);
	uint64_t sum = digest_xxh3_64(copy, size - 8);
	memcpy(copy + size - 8, &sum, 8);
	struct err *e = block_open(copy, size, &block);
	if (!e)
		try_block(&block);
	err_free(e);
	free(copy);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/* The bounded ELF reader: open, load every section, read both symbol tables. The input is the image. */
#include "symbolizer/build/symbols.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What symbols.h promises of the order and of the ranges. */
static void check_symbols(const struct symbols *symbols)
{
	for (size_t i = 0; i < symbols->count; i++) {
		const struct symbol *symbol = &symbols->items[i];

		if (symbol->high <= symbol->vaddr || symbol->name_len == 0 || memchr(symbol->name, 0, symbol->name_len))
			abort();
		if (i > 0 && symbol[-1].vaddr > symbol->vaddr)
			abort();
	}
	for (size_t i = 0; i < symbols->range_count; i++) {
		const struct symbol_range *range = &symbols->ranges[i];

		if (range->high <= range->low || range->symbol >= symbols->count || (i > 0 && range[-1].high > range->low) ||
			symbols_find(symbols, range->low) != range || symbols_find(symbols, range->high - 1) != range)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct elffile_limits limits = {.section_bytes = 1 << 20, .total_bytes = 4 << 20};
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct reader r;

	struct err *e = elffile_open(data, size, "fuzz", &limits, &file);
	if (e) {
		err_free(e);
		return 0;
	}
	for (size_t i = 0; i < elffile_section_count(file); i++) {
		e = elffile_load(file, elffile_section(file, i), &r);
		volatile uint8_t sum = 0;
		while (!e && reader_left(&r) > 0)
			sum = (uint8_t)(sum + reader_u8(&r));
		err_free(e);
		if (i % 2)
			elffile_release(file, elffile_section(file, i));
	}
	for (int dynamic = 0; dynamic < 2; dynamic++) {
		struct symbols symbols CLEANUP(symbols_deinit) = {0};

		e = symbols_read(file, dynamic, &symbols);
		if (!e)
			check_symbols(&symbols);
		err_free(e);
	}
	size_t count;
	const struct elffile_range *ranges = elffile_code_ranges(file, &count);
	for (size_t i = 0; i < count; i++)
		if (ranges[i].high <= ranges[i].low || !elffile_is_code(file, ranges[i].low) || elffile_is_code(file, ranges[i].high))
			abort();
	return 0;
}

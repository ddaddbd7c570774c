// SPDX-License-Identifier: Apache-2.0
/*
 * Call frame information of hostile files. The first byte chooses: 'e' and the rest is an ELF file; 'd' a .debug_frame, 'g' a
 * .gopclntab, anything else an .eh_frame at address 0x400000. A table that was built must answer any lookup with an info that exists.
 */
#include "agent/unwind/table.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_table(const struct unwind_elf *elf)
{
	struct unwind_infos infos;
	struct unwind_table table;

	struct err *e = unwind_infos_init(&infos);
	if (!e)
		e = unwind_table_build(elf, NULL, &infos, &table);
	if (!e) {
		for (uint32_t page = 0; page < table.page_count; page++) {
			const struct unwind_page *at = &table.pages[page];
			if (at->first + at->count > table.delta_count || at->count == 0 || table.deltas[at->first].low != 0)
				abort();
			for (uint32_t i = 1; i < at->count; i++)
				if (table.deltas[at->first + i].low <= table.deltas[at->first + i - 1].low)
					abort();
			uint64_t vaddr = (table.page_base + page) << UNWIND_PAGE_BITS;
			struct unwind_info info;
			for (unsigned i = 0; i < 64; i++)
				unwind_table_lookup(&table, &infos, vaddr + i * 1021, &info);
		}
		unwind_table_deinit(&table);
	}
	err_free(e);
	unwind_infos_deinit(&infos);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	struct unwind_elf elf = {.name = "fuzz"};
	if (data[0] == 'e') {
		struct unwind_source source = {.fd = -1, .bytes = data + 1, .len = size - 1, .name = "fuzz"};
		struct err *e = unwind_elf_read(&source, &elf);
		if (!e) {
			use_table(&elf);
			unwind_elf_deinit(&elf);
		}
		err_free(e);
		return 0;
	}
	uint8_t *bytes = malloc(size);
	if (!bytes)
		return 0;
	memcpy(bytes, data + 1, size - 1);
	struct unwind_section section = {.bytes = bytes, .len = size - 1, .vaddr = 0x400000};
	if (data[0] == 'd')
		elf.debug_frame = section;
	else if (data[0] == 'g')
		elf.gopclntab = section;
	else
		elf.eh_frame = section;
	use_table(&elf);
	free(bytes);
	return 0;
}

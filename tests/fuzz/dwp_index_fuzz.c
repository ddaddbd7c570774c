// SPDX-License-Identifier: Apache-2.0
/* The index of a .dwp: rows that are accepted lie in their sections. The input: a byte (byte order, lengths of the sections), the index. */
#include "symbolizer/build/dwp_index.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t bytes[4096];
	struct account account = {0};
	struct dwp_index index = {0};

	if (size == 0)
		return 0;
	const bool big = data[0] & 1;
	const size_t lens[] = {(size_t)(data[0] >> 1) * 32, 512, 2048, 4096};
	const struct dw_sections sections = {.info = reader_init(bytes, lens[0], big, "info"),
		.abbrev = reader_init(bytes, lens[1], big, "abbrev"),
		.str_offsets = reader_init(bytes, lens[2], big, "str_offsets"),
		.rnglists = reader_init(bytes, lens[3], big, "rnglists")};
	struct err *e = dwp_index_read(reader_init(data + 1, size - 1, big, "index"), &sections, &account, &index);
	for (size_t i = 0; !e && i < index.count; i++) {
		const struct dwp_row *row = &index.items[i];
		if (row->info > lens[0] || row->info_len > lens[0] - row->info || row->abbrev > lens[1] || row->str_offsets > lens[2] ||
			row->rnglists > lens[3] || (i > 0 && row->info < index.items[i - 1].info + index.items[i - 1].info_len &&
							   row->info_len + index.items[i - 1].info_len > 0 && index.items[i - 1].info_len > 0))
			abort();
	}
	err_free(e);
	dwp_index_deinit(&index, &account);
	if (account.held != 0)
		abort();
	return 0;
}

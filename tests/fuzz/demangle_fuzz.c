// SPDX-License-Identifier: Apache-2.0
/* Bytes as a linkage name, in all styles; the first byte chooses how large the output may be. */
#include "symbolizer/table/demangle.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0 || size > 2 * DEMANGLE_MAX_NAME)
		return 0;
	size_t cap = data[0] & 1 ? DEMANGLE_OUT_SIZE : data[0];
	char *name = malloc(size), *out = malloc(cap ? cap : 1);
	if (name && out) {
		memcpy(name, data + 1, size - 1);
		name[size - 1] = 0;
		for (int style = DEMANGLE_NONE; style <= DEMANGLE_SHORT; style++) {
			const char *shown = demangle(name, (enum demangle_style)style, out, cap);
			if (shown != name && (shown != out || strlen(shown) >= cap))
				abort();
		}
	}
	free(name);
	free(out);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/* From an ELF image to a table with one thread and little memory; the table that comes out must be sound. The input is the image. */
#include "tests/fuzz/build_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct build_options options = {.binary = {.bytes = data, .len = size, .name = "fuzz"}, .threads = 1, .memory_max = 32 << 20};

	build_check(&options);
	return 0;
}

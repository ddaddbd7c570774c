// SPDX-License-Identifier: Apache-2.0
/* As build_fuzz.c, with the other half of split DWARF. The input: the image and a .dwo or .dwp, as build_check_split has them. */
#include "tests/fuzz/build_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct build_image image, split;

	if (!build_check_split(data, size, &image, &split))
		return 0;
	struct build_options options = {.binary = image, .splits = &split, .split_count = 1, .threads = 1, .memory_max = 32 << 20};
	build_check(&options);
	return 0;
}

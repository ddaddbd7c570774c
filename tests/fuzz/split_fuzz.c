// SPDX-License-Identifier: Apache-2.0
/* As build_fuzz.c, with the other half of split DWARF. The input: length of the image (4 bytes, little-endian), image, .dwo or .dwp. */
#include "base/reader.h"
#include "tests/fuzz/build_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_init(data, size, false, "input");
	size_t len = reader_u32(&r);

	if (r.failed || len >= reader_left(&r))
		return 0;
	const struct build_image split = {.bytes = r.pos + len, .len = reader_left(&r) - len, .name = "split"};
	struct build_options options = {.binary = {.bytes = r.pos, .len = len, .name = "fuzz"},
		.splits = &split,
		.split_count = 1,
		.threads = 1,
		.memory_max = 32 << 20};
	build_check(&options);
	return 0;
}

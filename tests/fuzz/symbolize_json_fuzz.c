// SPDX-License-Identifier: Apache-2.0
/* The body of POST /v1/symbolize as json. */
#include "tests/fuzz/symbolize_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = {0};
	struct api_symbolize_request request;
	struct err *e = api_symbolize_parse_json(data, size, &fuzz_limits, &arena, &request);

	if (!e)
		check_request(&request);
	err_free(e);
	arena_deinit(&arena);
	return 0;
}

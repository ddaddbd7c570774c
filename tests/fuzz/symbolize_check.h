// SPDX-License-Identifier: Apache-2.0
/* What must hold of every request that was taken, whatever its bytes were. */
#ifndef CAIRN_TESTS_FUZZ_SYMBOLIZE_CHECK_H
#define CAIRN_TESTS_FUZZ_SYMBOLIZE_CHECK_H

#include "api/symbolize_request.h"

static const struct api_symbolize_limits fuzz_limits = {.modules = 16, .addresses = 256};

/* Reads every address, so that a sanitizer sees what a wrong count would read. */
static inline void check_request(const struct api_symbolize_request *request)
{
	size_t addresses = 0;
	uint64_t sum = 0;

	if (request->count > fuzz_limits.modules || (unsigned)request->demangle >= API_DEMANGLE_COUNT ||
		request->wait_ms > API_WAIT_MAX_MS)
		abort();
	for (size_t i = 0; i < request->count; i++) {
		const struct api_symbolize_module *module = &request->modules[i];
		if ((!module->has_file_id && !module->build_id.len) || module->build_id.len > BUILD_ID_MAX)
			abort();
		for (size_t j = 0; j < module->count; j++)
			sum += module->addresses[j];
		addresses += module->count;
	}
	__asm__ volatile("" : : "r"(sum));
	if (addresses > fuzz_limits.addresses)
		abort();
}

#endif

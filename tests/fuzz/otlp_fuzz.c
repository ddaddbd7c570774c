// SPDX-License-Identifier: Apache-2.0
/* A profiles request, as the layout that it is told to have and as each of the others: what is read of it goes to a batch. */
#include "profiles/otlp_intake.h"
#include "tests/profiles/fake_samples.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take(struct otlp_request request, enum otlp_layout layout, struct arena *arena, FILE *out)
{
	struct otlp_intake_result result;
	struct samples_batch *batch = fake_samples_create(out);

	/* Field 7 of the dictionary is another table in 1.7. */
	if ((layout == OTLP_1_7) != (request.layout == OTLP_1_7)) {
		struct otlp_table stacks = request.tables[OTLP_STACKS];
		request.tables[OTLP_STACKS] = request.tables[OTLP_ATTRIBUTE_UNITS];
		request.tables[OTLP_ATTRIBUTE_UNITS] = stacks;
	}
	request.layout = layout;
	struct err *e = otlp_intake(&request, arena, 1700000000000000000, batch, &result);
	/* Faults are told within the result; a fake batch is never full. */
	if (e && err_code(e) != ERR_NOMEM)
		abort();
	if (!e && (result.rejected_profiles > 0) != (result.message[0] != 0))
		abort();
	err_free(e);
	fake_samples_destroy(batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *out;
	struct arena arena = {0};
	struct otlp_request request;

	if (!out)
		out = fopen("/dev/null", "w");
	if (!out)
		abort();
	struct err *e = otlp_open((struct wire_span){data, size}, &arena, &request);
	if (!e)
		for (int layout = 0; layout < OTLP_LAYOUTS; layout++)
			take(request, (enum otlp_layout)layout, &arena, out);
	err_free(e);
	arena_deinit(&arena);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/* A profiles request in JSON: what it becomes is a protobuf message that opens. */
#include "api/otlp_json.h"
#include "profiles/otlp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = {0};
	struct otlp_request request;
	struct buf message = {0};
	struct err *e = otlp_json_to_protobuf(data, size, &message);

	if (!e) {
		e = otlp_open((struct wire_span){message.data, message.len}, &arena, &request);
		if (e && err_code(e) == ERR_FORMAT)
			abort(); /* what we write is protobuf, whatever it says */
	}
	err_free(e);
	buf_deinit(&message);
	arena_deinit(&arena);
	return 0;
}

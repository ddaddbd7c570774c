// SPDX-License-Identifier: Apache-2.0
/*
 * A segment file of the agent's spool: its records, and the envelopes of each. Checksums would keep nearly all mutations out, so that the
 * payload is also read as it stands.
 */
#include "agent/spool.h"

#include <stdlib.h>

static void read_payload(const uint8_t *bytes, size_t len)
{
	struct reader r = reader_init(bytes, len, false, "payload");
	struct wire_span envelope;
	struct agent_envelope read;
	size_t sum = 0;

	while (spool_read_envelope(&r, &envelope)) {
		sum += 4 + envelope.len;
		err_free(agent_envelope_read(envelope, &read));
	}
	if (sum > len || (!r.failed && sum != len))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_init(data, size, false, "segment");
	struct spool_record record;

	reader_skip(&r, SPOOL_SEGMENT_HEAD);
	while (spool_read_record(&r, &record)) {
		if (record.payload + record.payload_len > data + size || record.sequence == 0)
			abort();
		read_payload(record.payload, record.payload_len);
	}
	read_payload(data, size);
	return 0;
}

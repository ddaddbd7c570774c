// SPDX-License-Identifier: Apache-2.0
/*
 * What a hostile worker may say: the first byte is the size of the pieces, the rest is fed. One piece and many must end the
 * same way, results must have the length that they promised, and no table may pass the limit.
 */
#include "ingest/protocol.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE_LIMIT = 1 << 12 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	uint64_t bytes, results, skipped, progress;
};

static void on_progress(void *context, const struct protocol_progress *progress)
{
	if (progress->phase >= PROTOCOL_PHASES)
		abort();
	((struct seen *)context)->progress++;
}

static void on_skipped(void *context, const char *text)
{
	if (strlen(text) > PROTOCOL_TEXT_MAX)
		abort();
	((struct seen *)context)->skipped++;
}

static struct err *on_result(void *context, const struct protocol_result *result, struct buf *table)
{
	struct seen *seen = context;

	if (table->len != result->table_bytes || table->len > TABLE_LIMIT || result->segments.count > LOAD_SEGMENTS_MAX ||
		strlen(result->name) > PROTOCOL_NAME_MAX || result->build_id.len > BUILD_ID_MAX)
		abort();
	seen->results++;
	seen->bytes += table->len;
	return NULL;
}

static bool run(const uint8_t *data, size_t size, size_t piece, struct seen *seen)
{
	struct protocol_handler handler = {seen, on_progress, on_skipped, on_result};
	struct protocol_decoder decoder;
	struct err *e = NULL;

	protocol_decoder_init(&decoder, &handler, TABLE_LIMIT);
	for (size_t at = 0; !e && at < size; at += piece)
		e = protocol_decode(&decoder, data + at, size - at < piece ? size - at : piece);
	if (!e)
		e = protocol_decode_finish(&decoder);
	if (!e && decoder.end == PROTOCOL_END_NONE)
		abort();
	protocol_decoder_deinit(&decoder);
	bool good = !e;
	err_free(e);
	return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole = {0}, pieces = {0};

	if (size < 1)
		return 0;
	bool first = run(data + 1, size - 1, size, &whole);
	bool second = run(data + 1, size - 1, (size_t)data[0] % 32 + 1, &pieces);
	if (first != second || memcmp(&whole, &pieces, sizeof(whole)) != 0)
		abort();
	return 0;
}

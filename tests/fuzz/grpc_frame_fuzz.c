// SPDX-License-Identifier: Apache-2.0
/*
 * net/grpc_frame.c: the same messages whole and in pieces, none past the limit. The first byte: codec and step.
 */
#include "net/grpc_frame.h"
#include "net/grpc_retry.h"

#include "base/digest.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMIT = 4096 };

struct sum {
	uint64_t hash;
	uint64_t count;
};

static bool on_message(void *user, struct buf *message)
{
	struct sum *sum = user;

	if (message->len > LIMIT)
		abort();
	sum->hash = sum->hash * 31 + digest_xxh3_64(message->data, message->len);
	return ++sum->count < 1000;
}

static void run(const uint8_t *data, size_t size, size_t step, enum codec codec, struct sum *sum)
{
	struct grpc_reader reader = {.limit = LIMIT, .codec = codec, .on_message = on_message, .user = sum};
	struct err *e = NULL;

	for (size_t pos = 0; pos < size && !e && sum->count < 1000; pos += step)
		e = grpc_reader_feed(&reader, data + pos, size - pos < step ? size - pos : step);
	if (e)
		sum->hash ^= (uint64_t)err_code(e) + 1;
	err_free(e);
	grpc_reader_deinit(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sum whole = {0}, pieces = {0};

	if (size == 0)
		return 0;
	enum codec codec = data[0] & 1 ? CODEC_GZIP : CODEC_NONE;
	run(data + 1, size - 1, SIZE_MAX / 2, codec, &whole);
	run(data + 1, size - 1, (size_t)(data[0] >> 1) % 16 + 1, codec, &pieces);
	if (whole.hash != pieces.hash || whole.count != pieces.count)
		abort();
	char text[64];
	size_t len = size - 1 < sizeof(text) - 1 ? size - 1 : sizeof(text) - 1;
	memcpy(text, data + 1, len);
	text[len] = 0;
	uint64_t ms;
	(void)grpc_timeout_parse(text, &ms);
	(void)grpc_retry_parse(data + 1, size - 1, &ms);
	struct buf encoded = {0};
	err_free(grpc_message_encode(text, &encoded));
	buf_deinit(&encoded);
	return 0;
}

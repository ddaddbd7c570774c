// SPDX-License-Identifier: Apache-2.0
/*
 * Decompression: the first byte chooses the codec, the second the size of the pieces, the rest is fed. A stream that ends
 * well must give the same bytes in one piece, in small pieces, and through codec_decompress_exact.
 * One difference is libzstd's: in pieces it does not compare a frame's promised size where the last block is empty, so a
 * frame that breaks its promise fails in one piece only.
 */
#include "base/codec.h"

#include <stdlib.h>
#include <string.h>

enum { LIMIT = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct err *feed_pieces(struct codec_stream *stream, const uint8_t *data, size_t size, size_t piece, struct buf *out)
{
	for (size_t at = 0; at < size; at += piece)
		TRY(codec_stream_feed(stream, data + at, size - at < piece ? size - at : piece, out));
	return codec_stream_finish(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t exact[LIMIT];
	struct codec_stream *stream = NULL;
	struct buf whole = {0}, pieces = {0};

	if (size < 2)
		return 0;
	enum codec codec = (enum codec)(data[0] % (CODEC_LZ4 + 1));
	size_t piece = (size_t)data[1] % 64 + 1;
	data += 2;
	size -= 2;
	struct err *e = codec_decompress(codec, data, size, LIMIT, &whole);
	if (whole.len > LIMIT)
		abort();
	struct err *created = codec_stream_create(codec, LIMIT, &stream);
	if (!created) {
		struct err *streamed = feed_pieces(stream, data, size, piece, &pieces);
		bool both = !e && !streamed;
		if (!both && (!e || (!streamed && codec != CODEC_ZSTD)))
			abort();
		if (both && (pieces.len != whole.len || (whole.len > 0 && memcmp(pieces.data, whole.data, whole.len) != 0)))
			abort();
		err_free(streamed);
	}
	err_free(created);
	codec_stream_destroy(stream);
	if (!e) {
		struct err *x = codec_decompress_exact(codec, data, size, exact, whole.len);
		if (x || (whole.len > 0 && memcmp(exact, whole.data, whole.len) != 0))
			abort();
	} else {
		err_free(codec_decompress_exact(codec, data, size, exact, LIMIT));
	}
	err_free(e);
	buf_deinit(&whole);
	buf_deinit(&pieces);
	return 0;
}

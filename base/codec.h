// SPDX-License-Identifier: Apache-2.0
/*
 * Decompression under one output limit, and zstd compression. All input is hostile: output never
 * passes the limit, and truncated or damaged input is ERR_FORMAT.
 * Whole sections are inflated by libdeflate (twice as fast as zlib when all input is at hand); streams
 * by zlib, libzstd, liblzma and liblz4.
 */
#ifndef CAIRN_BASE_CODEC_H
#define CAIRN_BASE_CODEC_H

#include "base/buf.h"

#include <stdbool.h>

enum codec {
	CODEC_NONE,
	CODEC_ZLIB, /* RFC 1950 */
	CODEC_GZIP, /* RFC 1952, several members allowed */
	CODEC_ZSTD, /* RFC 8878, several frames allowed */
	CODEC_XZ,
	CODEC_LZMA, /* .lzma ("alone"), one stream */
	CODEC_LZ4,  /* frames and the legacy format (Linux kernels), several allowed */
};

/** "zlib", "lz4", ..; "plain". Static. */
const char *codec_name(enum codec codec);

/** The codec whose magic number @p bytes begin with; CODEC_NONE for anything else (zlib has no magic, and .lzma's is its usual first bytes). Any thread. */
enum codec codec_detect(const void *bytes, size_t len);

/**
 * Decompresses all of @p in into exactly @p out_len bytes at @p out (an ELF section whose header says its size).
 * @return NULL; ERR_FORMAT: damaged, or not exactly that many bytes; ERR_NOMEM. Any thread.
 */
struct err *codec_decompress_exact(enum codec codec, const void *in, size_t in_len, void *out, size_t out_len) MUST_USE;

/**
 * Decompresses all of @p in, appending to @p ret at most @p limit bytes.
 * @return NULL; ERR_FORMAT: damaged or truncated; ERR_LIMIT: more output than @p limit; ERR_NOMEM. Any thread.
 */
struct err *codec_decompress(enum codec codec, const void *in, size_t in_len, size_t limit, struct buf *ret) MUST_USE;

/** A decompressor fed piece by piece (request bodies, downloads). One thread at a time. */
struct codec_stream;
struct err *codec_stream_create(enum codec codec, uint64_t limit, struct codec_stream **ret) MUST_USE;
/** Feeds @p len bytes, appends what they give to @p out. Errors as codec_decompress. */
struct err *codec_stream_feed(struct codec_stream *stream, const void *in, size_t len, struct buf *out) MUST_USE;
/** NULL when the input ended where a stream may end, else ERR_FORMAT. */
struct err *codec_stream_finish(struct codec_stream *stream) MUST_USE;
void codec_stream_destroy(struct codec_stream *stream);
/** For CLEANUP. */
void codec_stream_destroyp(struct codec_stream **stream);

/** Appends one zstd frame (with its content size) of @p in to @p ret. @p level as libzstd's. Any thread. */
struct err *codec_compress_zstd(const void *in, size_t in_len, int level, struct buf *ret) MUST_USE;
/** Appends one gzip member (no name, no time: the same input, the same bytes) of @p in to @p ret. @p level as zlib's. Any thread. */
struct err *codec_compress_gzip(const void *in, size_t in_len, int level, struct buf *ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * SHA-256 (identity, content addresses; FIPS 180-4, by libcrypto) and XXH3 (checksums, maps, trace
 * hashes; not for identity).
 */
#ifndef CAIRN_BASE_DIGEST_H
#define CAIRN_BASE_DIGEST_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_HEX_SIZE = 65 };

struct sha256 {
	uint8_t bytes[SHA256_BYTES];
};

struct sha256_stream;
struct err *sha256_stream_create(struct sha256_stream **ret) MUST_USE;
struct err *sha256_stream_update(struct sha256_stream *stream, const void *bytes, size_t len) MUST_USE;
/** The digest of all that was fed; the stream can only be destroyed afterwards. */
struct err *sha256_stream_finish(struct sha256_stream *stream, struct sha256 *ret) MUST_USE;
void sha256_stream_destroy(struct sha256_stream *stream);
void sha256_stream_destroyp(struct sha256_stream **stream);

/** The digest of @p len bytes. Any thread. */
struct err *sha256_of(const void *bytes, size_t len, struct sha256 *ret) MUST_USE;
/** 64 lower hex digits and a NUL. */
void sha256_format(const struct sha256 *digest, char text[SHA256_HEX_SIZE]);
/** False when @p text is not exactly 64 hex digits (either case). */
bool sha256_parse(const char *text, size_t len, struct sha256 *ret);

uint64_t digest_xxh3_64(const void *bytes, size_t len);
/** In canonical (big-endian) byte order. */
void digest_xxh3_128(const void *bytes, size_t len, uint8_t ret[16]);

/** The CRC-32 of gzip and of .gnu_debuglink (polynomial 0xedb88320), continued from @p crc (0 at first). */
uint32_t digest_crc32(uint32_t crc, const void *bytes, size_t len);

#endif

// SPDX-License-Identifier: Apache-2.0
/* SHA-256 by libcrypto; apart from the other digests, so that a program that needs only those does not link it. */
#include "base/digest.h"

#include "base/hex.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct sha256_stream {
	EVP_MD_CTX *context;
};

struct err *sha256_stream_create(struct sha256_stream **ret)
{
	struct sha256_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return err_nomem();
	stream->context = EVP_MD_CTX_new();
	if (!stream->context || EVP_DigestInit_ex(stream->context, EVP_sha256(), NULL) != 1) {
		sha256_stream_destroy(stream);
		return err_new(ERR_INTERNAL, "libcrypto cannot start SHA-256");
	}
	*ret = stream;
	return NULL;
}

struct err *sha256_stream_update(struct sha256_stream *stream, const void *bytes, size_t len)
{
	if (len > 0 && EVP_DigestUpdate(stream->context, bytes, len) != 1)
		return err_new(ERR_INTERNAL, "libcrypto cannot continue SHA-256");
	return NULL;
}

struct err *sha256_stream_finish(struct sha256_stream *stream, struct sha256 *ret)
{
	struct sha256 digest;
	unsigned size = 0;

	if (EVP_DigestFinal_ex(stream->context, digest.bytes, &size) != 1 || size != SHA256_BYTES)
		return err_new(ERR_INTERNAL, "libcrypto cannot finish SHA-256");
	*ret = digest;
	return NULL;
}

void sha256_stream_destroy(struct sha256_stream *stream)
{
	if (!stream)
		return;
	EVP_MD_CTX_free(stream->context);
	free(stream);
}

void sha256_stream_destroyp(struct sha256_stream **stream)
{
	sha256_stream_destroy(*stream);
}

struct err *sha256_of(const void *bytes, size_t len, struct sha256 *ret)
{
	struct sha256 digest;

	if (EVP_Digest(len > 0 ? bytes : "", len, digest.bytes, NULL, EVP_sha256(), NULL) != 1)
		return err_new(ERR_INTERNAL, "libcrypto cannot compute SHA-256");
	*ret = digest;
	return NULL;
}

void sha256_format(const struct sha256 *digest, char text[SHA256_HEX_SIZE])
{
	hex_format(digest->bytes, sizeof(digest->bytes), text);
}

bool sha256_parse(const char *text, size_t len, struct sha256 *ret)
{
	return len == 2 * (size_t)SHA256_BYTES && hex_parse(text, len, ret->bytes);
}

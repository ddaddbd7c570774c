// SPDX-License-Identifier: Apache-2.0
#include "base/digest.h"

#include <libdeflate.h>
#include <string.h>

/* Inside of this file: through the library, a call and the choice of its vectors cost as much as the hash of a short record. */
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t digest_xxh3_64(const void *bytes, size_t len)
{
	return XXH3_64bits(bytes, len);
}

void digest_xxh3_128(const void *bytes, size_t len, uint8_t ret[16])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, len));
	memcpy(ret, canonical.digest, sizeof(canonical.digest));
}

uint32_t digest_crc32(uint32_t crc, const void *bytes, size_t len)
{
	return len > 0 ? libdeflate_crc32(crc, bytes, len) : crc;
}

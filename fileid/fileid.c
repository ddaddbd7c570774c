// SPDX-License-Identifier: Apache-2.0
#include "fileid/fileid.h"

#include "base/digest.h"
#include "base/hex.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* FNV-1a 128 (draft-eastlake-fnv): prime 2^88 + 0x13b. */
#define FNV_OFFSET_HIGH 0x6c62272e07bb0142U
#define FNV_OFFSET_LOW 0x62b821756295c58dU
enum { FNV_PRIME_SHIFT = 88, FNV_PRIME_LOW = 0x13b };

/* Shorter build IDs than this do not name a kernel. */
enum { KERNEL_BUILD_ID_MIN = 8 };

static const uint8_t unknown_kernel[FILEID_BYTES] = {
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfd};

static const char base64url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static struct err *fileid_from_samples(const void *head, const void *tail, size_t sample, uint64_t size,
	struct fileid *ret)
{
	CLEANUP(sha256_stream_destroyp) struct sha256_stream *stream = NULL;
	struct sha256 digest;
	uint8_t size_bytes[8];

	for (unsigned i = 0; i < 8; i++)
		size_bytes[i] = (uint8_t)(size >> (56 - 8 * i));
	TRY(sha256_stream_create(&stream));
	TRY(sha256_stream_update(stream, head, sample));
	TRY(sha256_stream_update(stream, tail, sample));
	TRY(sha256_stream_update(stream, size_bytes, sizeof(size_bytes)));
	TRY(sha256_stream_finish(stream, &digest));
	memcpy(ret->bytes, digest.bytes, FILEID_BYTES);
	return NULL;
}

struct err *fileid_from_memory(const void *bytes, size_t len, struct fileid *ret)
{
	size_t sample = len < FILEID_SAMPLE_BYTES ? len : FILEID_SAMPLE_BYTES;
	const uint8_t *head = bytes;

	return fileid_from_samples(head, len > 0 ? head + (len - sample) : head, sample, len, ret);
}

static struct err *read_at(int fd, uint64_t foff, uint8_t *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t got = pread(fd, bytes + done, len - done, (off_t)(foff + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_os(errno, "read at offset %" PRIu64, foff + done);
		if (got == 0)
			return err_new(ERR_FORMAT, "the file became shorter than %" PRIu64 " bytes while it was read",
				foff + len);
		done += (size_t)got;
	}
	return NULL;
}

struct err *fileid_from_fd(int fd, struct fileid *ret)
{
	uint8_t head[FILEID_SAMPLE_BYTES], tail[FILEID_SAMPLE_BYTES];
	struct stat status;

	if (fstat(fd, &status) != 0)
		return err_os(errno, "stat");
	if (!S_ISREG(status.st_mode))
		return err_new(ERR_INVALID, "not a regular file");
	uint64_t size = (uint64_t)status.st_size;
	size_t sample = size < FILEID_SAMPLE_BYTES ? (size_t)size : FILEID_SAMPLE_BYTES;
	TRY(read_at(fd, 0, head, sample));
	TRY(read_at(fd, size - sample, tail, sample));
	return fileid_from_samples(head, tail, sample, size, ret);
}

struct err *fileid_from_path(const char *path, struct fileid *ret)
{
	/* O_NONBLOCK: a FIFO must be refused, not waited for. */
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_os(errno, "open %s", path);
	return err_wrap(fileid_from_fd(fd, ret), "%s", path);
}

struct fileid fileid_from_kernel_build_id(const uint8_t *build_id, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	__extension__ typedef unsigned __int128 u128;
	u128 hash = (u128)FNV_OFFSET_HIGH << 64 | FNV_OFFSET_LOW;
	u128 prime = ((u128)1 << FNV_PRIME_SHIFT) + FNV_PRIME_LOW;
	struct fileid id;

	if (len < KERNEL_BUILD_ID_MIN) {
		memcpy(id.bytes, unknown_kernel, sizeof(id.bytes));
		return id;
	}
	for (size_t i = 0; i < len; i++) {
		hash = (hash ^ (uint8_t)digits[build_id[i] >> 4]) * prime;
		hash = (hash ^ (uint8_t)digits[build_id[i] & 15]) * prime;
	}
	for (unsigned i = 0; i < FILEID_BYTES; i++)
		id.bytes[i] = (uint8_t)(hash >> (120 - 8 * i));
	return id;
}

struct fileid fileid_swap_halves(const struct fileid *id)
{
	struct fileid swapped;

	memcpy(swapped.bytes, id->bytes + 8, 8);
	memcpy(swapped.bytes + 8, id->bytes, 8);
	return swapped;
}

bool fileid_equal(const struct fileid *a, const struct fileid *b)
{
	return memcmp(a->bytes, b->bytes, FILEID_BYTES) == 0;
}

void fileid_format_hex(const struct fileid *id, char text[FILEID_HEX_SIZE])
{
	hex_format(id->bytes, FILEID_BYTES, text);
}

void fileid_format_base64url(const struct fileid *id, char text[FILEID_BASE64URL_SIZE])
{
	uint32_t bits = 0;
	unsigned have = 0;

	for (unsigned i = 0; i < FILEID_BYTES; i++) {
		bits = bits << 8 | id->bytes[i];
		for (have += 8; have >= 6; have -= 6)
			*text++ = base64url_digits[bits >> (have - 6) & 63];
	}
	/* Two bits are left of the last byte; four zero bits fill the last digit. */
	*text++ = base64url_digits[bits << (6 - have) & 63];
	*text = 0;
}

static int base64url_digit(char c)
{
	const char *at = c ? strchr(base64url_digits, c) : NULL;

	return at ? (int)(at - base64url_digits) : -1;
}

static bool parse_base64url(const char *text, struct fileid *ret)
{
	struct fileid id;
	uint32_t bits = 0;
	unsigned have = 0, bytes = 0;

	for (unsigned i = 0; i < FILEID_BASE64URL_SIZE - 1; i++) {
		int digit = base64url_digit(text[i]);
		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have >= 8) {
			have -= 8;
			id.bytes[bytes++] = (uint8_t)(bits >> have);
		}
	}
	if (bits & ((1U << have) - 1))
		return false;
	*ret = id;
	return true;
}

bool fileid_parse(const char *text, size_t len, struct fileid *ret)
{
	if (len == FILEID_HEX_SIZE - 1)
		return hex_parse(text, len, ret->bytes);
	return len == FILEID_BASE64URL_SIZE - 1 && parse_base64url(text, ret);
}

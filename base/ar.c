// SPDX-License-Identifier: Apache-2.0
#include "base/ar.h"

#include <inttypes.h>
#include <string.h>

enum { SIZE_AT = 48, SIZE_DIGITS = 10 };

/* Decimal, padded with spaces on the right. False for anything else. */
static bool parse_size(const uint8_t *digits, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i = 0;

	for (; i < SIZE_DIGITS && digits[i] >= '0' && digits[i] <= '9'; i++)
		value = value * 10 + (uint64_t)(digits[i] - '0');
	if (i == 0)
		return false;
	for (; i < SIZE_DIGITS; i++)
		if (digits[i] != ' ')
			return false;
	*ret = value;
	return true;
}

/* "data.tar.xz/" or "data.tar.xz    ": a slash ends a name in GNU archives, dpkg writes none. */
static void copy_name(const uint8_t *field, char name[AR_NAME_BYTES + 1])
{
	size_t len = AR_NAME_BYTES;

	while (len > 0 && field[len - 1] == ' ')
		len--;
	if (len > 0 && field[len - 1] == '/')
		len--;
	memcpy(name, field, len);
	name[len] = 0;
}

bool ar_begin(struct reader *r)
{
	const uint8_t *magic = reader_bytes(r, 8);

	return magic && memcmp(magic, "!<arch>\n", 8) == 0;
}

struct err *ar_next(struct reader *r, struct ar_member *ret)
{
	const uint8_t *header = reader_bytes(r, AR_HEADER_BYTES);
	struct ar_member member;

	if (!header)
		return reader_error(r, "truncated header of an ar member");
	if (header[AR_HEADER_BYTES - 2] != '`' || header[AR_HEADER_BYTES - 1] != '\n' || !parse_size(header + SIZE_AT, &member.size))
		return reader_error(r, "damaged header of an ar member");
	copy_name(header, member.name);
	*ret = member;
	return NULL;
}

struct err *ar_skip(struct reader *r, const struct ar_member *member)
{
	if (member->size > reader_left(r))
		return reader_error(r, "%s says it has %" PRIu64 " bytes, %zu are left", member->name, member->size, reader_left(r));
	reader_skip(r, member->size);
	if (member->size % 2 && reader_left(r) > 0)
		reader_skip(r, 1);
	return NULL;
}

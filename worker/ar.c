// SPDX-License-Identifier: Apache-2.0
#include "worker/ar.h"

#include "base/reader.h"

#include <inttypes.h>
#include <string.h>

enum { AR_NAME_BYTES = 16, AR_HEADER_BYTES = 60, AR_SIZE_AT = 48, AR_SIZE_DIGITS = 10 };

/* Decimal, padded with spaces on the right. False for anything else. */
static bool parse_size(const uint8_t *digits, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i = 0;

	for (; i < AR_SIZE_DIGITS && digits[i] >= '0' && digits[i] <= '9'; i++)
		value = value * 10 + (uint64_t)(digits[i] - '0');
	if (i == 0)
		return false;
	for (; i < AR_SIZE_DIGITS; i++)
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

static struct err *codec_of(const char *name, enum codec *ret)
{
	static const struct {
		const char *name;
		enum codec codec;
	} known[] = {
		{"data.tar", CODEC_NONE}, {"data.tar.gz", CODEC_GZIP}, {"data.tar.xz", CODEC_XZ}, {"data.tar.zst", CODEC_ZSTD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(name, known[i].name) == 0) {
			*ret = known[i].codec;
			return NULL;
		}
	}
	return err_new(ERR_UNSUPPORTED, "package: %s: only plain, gzip, xz and zstd data.tar are read", name);
}

static struct err *next_member(struct reader *r, char name[AR_NAME_BYTES + 1], struct reader *body_ret)
{
	const uint8_t *header = reader_bytes(r, AR_HEADER_BYTES);
	uint64_t size;

	if (!header)
		return reader_error(r, "truncated header of an ar member");
	if (header[AR_HEADER_BYTES - 2] != '`' || header[AR_HEADER_BYTES - 1] != '\n' || !parse_size(header + AR_SIZE_AT, &size))
		return reader_error(r, "damaged header of an ar member");
	copy_name(header, name);
	if (size > reader_left(r))
		return reader_error(r, "%s says it has %" PRIu64 " bytes, %zu are left", name, size, reader_left(r));
	*body_ret = reader_sub(r, size);
	if (size % 2 && reader_left(r) > 0)
		reader_skip(r, 1); /* members begin at even offsets */
	return NULL;
}

struct err *ar_find_data(const struct image *package, struct ar_data *ret)
{
	struct reader r = reader_init(package->bytes, package->len, false, "package");
	const uint8_t *magic = reader_bytes(&r, 8);

	if (!magic || memcmp(magic, "!<arch>\n", 8) != 0)
		return err_new(ERR_FORMAT, "package: not a Debian package (no ar archive)");
	for (unsigned members = 0; reader_left(&r) > 0; members++) {
		struct reader body;
		char name[AR_NAME_BYTES + 1];

		if (members == AR_MEMBERS_MAX)
			return reader_error(&r, "more than %d members and no data.tar", AR_MEMBERS_MAX);
		TRY(next_member(&r, name, &body));
		if (members == 0 && strcmp(name, "debian-binary") != 0)
			return reader_error(&r, "not a Debian package: its first member is %s", name);
		if (strncmp(name, "data.tar", strlen("data.tar")) != 0)
			continue;
		TRY(codec_of(name, &ret->codec));
		ret->bytes = body.start;
		ret->len = reader_left(&body);
		memcpy(ret->name, name, sizeof(ret->name));
		return NULL;
	}
	return err_new(ERR_FORMAT, "package: it has no data.tar");
}

// SPDX-License-Identifier: Apache-2.0
#include "sources/control.h"

#include "base/ar.h"
#include "base/codec.h"

#include <inttypes.h>
#include <string.h>

enum { TAR_BLOCK = 512, TAR_NAME = 100, TAR_SIZE_AT = 124, TAR_SIZE_LEN = 12, TAR_SUM_AT = 148, TAR_SUM_LEN = 8, TAR_TYPE_AT = 156 };
enum { TAR_ENTRIES_MAX = 4096, MD5_DIGITS = 32 };

/* The member control.tar*, @p r at its first byte. */
static struct err *find_control(struct reader *r, struct ar_member *ret)
{
	if (!ar_begin(r))
		return reader_error(r, "not a Debian package (no ar archive)");
	for (unsigned members = 0; members < AR_MEMBERS_MAX; members++) {
		TRY(ar_next(r, ret));
		if (strncmp(ret->name, "control.tar", strlen("control.tar")) == 0)
			return NULL;
		if (strncmp(ret->name, "data.tar", strlen("data.tar")) == 0)
			break;
		TRY(ar_skip(r, ret));
	}
	return reader_error(r, "not a Debian package (no control part before its data)");
}

struct err *control_extent(const void *bytes, size_t len, uint64_t *ret)
{
	struct reader r = reader_init(bytes, len, false, "package");
	struct ar_member member;

	TRY(find_control(&r, &member));
	if (member.size > CONTROL_MAX)
		return err_new(ERR_LIMIT, "package: a control part of %" PRIu64 " bytes, more than %d", member.size, CONTROL_MAX);
	*ret = reader_offset(&r) + member.size;
	return NULL;
}

static struct err *unpack(const struct ar_member *member, const uint8_t *bytes, struct buf *ret)
{
	static const struct {
		const char *name;
		enum codec codec;
	} known[] = {{"control.tar", CODEC_NONE}, {"control.tar.gz", CODEC_GZIP}, {"control.tar.xz", CODEC_XZ}, {"control.tar.zst", CODEC_ZSTD}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(member->name, known[i].name) == 0)
			return err_wrap(codec_decompress(known[i].codec, bytes, (size_t)member->size, CONTROL_UNPACKED_MAX, ret), "package: %s", member->name);
	return err_new(ERR_UNSUPPORTED, "package: %s: only plain, gzip, xz and zstd are read", member->name);
}

/* Octal digits between blanks and NULs. GNU's binary sizes are for files over 8 GiB, which none is here. */
static bool parse_octal(const uint8_t *field, size_t len, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i = 0;

	while (i < len && field[i] == ' ')
		i++;
	size_t first = i;
	for (; i < len && field[i] >= '0' && field[i] <= '7'; i++)
		value = value * 8 + (uint64_t)(field[i] - '0');
	if (i == first || (i < len && field[i] != ' ' && field[i] != 0))
		return false;
	*ret = value;
	return true;
}

/* The header's own sum, with its field taken as blanks. */
static bool has_right_sum(const uint8_t *header)
{
	uint64_t promised, sum = 0;

	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += i >= TAR_SUM_AT && i < TAR_SUM_AT + TAR_SUM_LEN ? ' ' : header[i];
	return parse_octal(header + TAR_SUM_AT, TAR_SUM_LEN, &promised) && promised == sum;
}

static bool is_md5sums(const uint8_t *header)
{
	const char *name = (const char *)header;
	bool regular = header[TAR_TYPE_AT] == '0' || header[TAR_TYPE_AT] == 0;

	return regular && (strncmp(name, "./md5sums", TAR_NAME) == 0 || strncmp(name, "md5sums", TAR_NAME) == 0);
}

/* The bytes of ./md5sums, borrowed from @p tar. */
static struct err *find_md5sums(const struct buf *tar, struct reader *ret)
{
	struct reader r = reader_init(tar->data, tar->len, false, "package: control.tar");

	for (unsigned entries = 0; reader_left(&r) >= TAR_BLOCK; entries++) {
		const uint8_t *header = reader_bytes(&r, TAR_BLOCK);
		uint64_t size;
		if (header[0] == 0) /* the end: blocks of zeros */
			break;
		if (entries == TAR_ENTRIES_MAX)
			return reader_error(&r, "more than %d entries", TAR_ENTRIES_MAX);
		if (!has_right_sum(header) || !parse_octal(header + TAR_SIZE_AT, TAR_SIZE_LEN, &size))
			return reader_error(&r, "damaged header");
		if (size > reader_left(&r))
			return reader_error(&r, "an entry says it has %" PRIu64 " bytes, %zu are left", size, reader_left(&r));
		*ret = reader_sub(&r, size);
		if (is_md5sums(header))
			return NULL;
		uint64_t padding = (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
		reader_skip(&r, padding < reader_left(&r) ? padding : reader_left(&r));
	}
	return reader_error(&r, "no md5sums");
}

struct err *control_build_ids(const void *bytes, size_t len, struct err *(*each)(void *context, const struct build_id *id), void *context)
{
	struct reader r = reader_init(bytes, len, false, "package"), list;
	CLEANUP(buf_deinit) struct buf tar = {0};
	struct ar_member member;

	TRY(find_control(&r, &member));
	const uint8_t *control = r.pos;
	TRY(ar_skip(&r, &member));
	TRY(unpack(&member, control, &tar));
	TRY(find_md5sums(&tar, &list));
	const char *at = (const char *)list.pos, *end = (const char *)list.end;
	while (at < end) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		size_t line = stop ? (size_t)(stop - at) : (size_t)(end - at);
		struct build_id id;
		if (line > MD5_DIGITS && build_id_from_path(at + MD5_DIGITS, line - MD5_DIGITS, &id))
			TRY(each(context, &id));
		at += line + 1;
	}
	return NULL;
}

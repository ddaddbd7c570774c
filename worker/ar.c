// SPDX-License-Identifier: Apache-2.0
#include "worker/ar.h"

#include <string.h>

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

struct err *ar_find_data(const struct image *package, struct ar_data *ret)
{
	struct reader r = reader_init(package->bytes, package->len, false, "package");

	if (!ar_begin(&r))
		return err_new(ERR_FORMAT, "package: not a Debian package (no ar archive)");
	for (unsigned members = 0; reader_left(&r) > 0; members++) {
		struct ar_member member;

		if (members == AR_MEMBERS_MAX)
			return reader_error(&r, "more than %d members and no data.tar", AR_MEMBERS_MAX);
		TRY(ar_next(&r, &member));
		const uint8_t *bytes = r.pos;
		TRY(ar_skip(&r, &member));
		if (members == 0 && strcmp(member.name, "debian-binary") != 0)
			return reader_error(&r, "not a Debian package: its first member is %s", member.name);
		if (strncmp(member.name, "data.tar", strlen("data.tar")) != 0)
			continue;
		TRY(codec_of(member.name, &ret->codec));
		ret->bytes = bytes;
		ret->len = (size_t)member.size;
		memcpy(ret->name, member.name, sizeof(ret->name));
		return NULL;
	}
	return err_new(ERR_FORMAT, "package: it has no data.tar");
}

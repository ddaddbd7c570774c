// SPDX-License-Identifier: Apache-2.0
/*
 * The outer shell of a .deb or .ddeb: an ar archive of debian-binary, control.tar.*, data.tar.*. Source: deb(5), ar(5).
 */
#ifndef CAIRN_WORKER_AR_H
#define CAIRN_WORKER_AR_H

#include "base/ar.h"
#include "base/codec.h"
#include "worker/image.h"

/* The member that holds a package's files. */
struct ar_data {
	const uint8_t *bytes;
	size_t len;
	enum codec codec; /* by its name, which is what dpkg goes by: CODEC_NONE for a plain data.tar */
	char name[AR_NAME_BYTES + 1];
};

/**
 * Finds data.tar* in a package.
 * @return NULL; ERR_FORMAT: not an ar archive of this kind, truncated, a member larger than the file, no data.tar among the first
 *         AR_MEMBERS_MAX members; ERR_UNSUPPORTED: data.tar.bz2 or .lzma. O(members). Any thread.
 */
struct err *ar_find_data(const struct image *package, struct ar_data *ret) MUST_USE;

#endif

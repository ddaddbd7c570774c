// SPDX-License-Identifier: Apache-2.0
/*
 * The control part of a Debian package, which stands before its files: a few kilobytes say which debug files are in hundreds of
 * megabytes. Bytes from a range request, so nobody vouches for them: what they say is a hint where to look, and
 * the package itself is checked. Sources: deb(5), deb-md5sums(5), tar's ustar format (POSIX pax).
 *
 *   ar archive: debian-binary, control.tar[.gz|.xz|.zst] -> tar: ./md5sums -> lines of "<md5>  usr/lib/debug/.build-id/ab/cdef.debug"
 *
 * Read by a bounded reader of its own and base/codec: at most CONTROL_MAX packed, CONTROL_UNPACKED_MAX unpacked bytes, and no name in
 * it is opened. Any thread.
 */
#ifndef CAIRN_SOURCES_CONTROL_H
#define CAIRN_SOURCES_CONTROL_H

#include "fileid/build_id.h"

enum { CONTROL_FIRST = 16 << 10, CONTROL_MAX = 4 << 20, CONTROL_UNPACKED_MAX = 32 << 20 };

/**
 * How many bytes from its beginning hold a package's control part.
 * @param len  at least CONTROL_FIRST, or all that there is
 * @return NULL; ERR_FORMAT: no Debian package, or none whose control part begins there; ERR_LIMIT: over CONTROL_MAX.
 */
struct err *control_extent(const void *bytes, size_t len, uint64_t *ret) MUST_USE;

/**
 * Calls @p each for the build IDs that the paths in md5sums name. Links are not in md5sums.
 * @param bytes  the package's beginning, control_extent bytes or more
 * @return NULL, also when there are none; ERR_FORMAT: damaged, or no md5sums; ERR_LIMIT; ERR_UNSUPPORTED: another packing; what
 *         @p each returned.
 */
struct err *control_build_ids(const void *bytes, size_t len, struct err *(*each)(void *context, const struct build_id *id),
	void *context) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * ar archives, which is what a .deb is on the outside: debian-binary, control.tar.*, data.tar.*. Source: ar(5), deb(5).
 */
#ifndef CAIRN_BASE_AR_H
#define CAIRN_BASE_AR_H

#include "base/reader.h"

enum { AR_NAME_BYTES = 16, AR_HEADER_BYTES = 60, AR_MEMBERS_MAX = 64 };

struct ar_member {
	char name[AR_NAME_BYTES + 1]; /* without the slash or the spaces at its end */
	uint64_t size;		      /* as its header says: it may be more than is left */
};

/** Whether what follows is an ar archive; moves behind its magic number. Any thread. */
bool ar_begin(struct reader *r);
/**
 * The header of the next member; @p r stands at its first byte afterwards, and ar_skip moves behind it. Nothing is believed of the size.
 * @return NULL; ERR_FORMAT: truncated or damaged header. O(1). Any thread.
 */
struct err *ar_next(struct reader *r, struct ar_member *ret) MUST_USE;
/** Behind the member's bytes, which must all be there; members begin at even offsets. */
struct err *ar_skip(struct reader *r, const struct ar_member *member) MUST_USE;

#endif

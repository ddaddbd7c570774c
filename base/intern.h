// SPDX-License-Identifier: Apache-2.0
/*
 * Interned strings: equal bytes get one number, numbers are dense from 0 in order of first sight, and
 * the bytes lie NUL-terminated one behind the other in one blob. One thread at a time.
 */
#ifndef CAIRN_BASE_INTERN_H
#define CAIRN_BASE_INTERN_H

#include "base/buf.h"

#include <stdbool.h>

struct intern_slot {
	uint32_t hash;
	uint32_t number; /* of the string, plus 1; 0: empty */
};

struct intern {
	struct buf blob;   /* all strings, each with its NUL */
	uint32_t *offsets; /* of string i in blob */
	struct intern_slot *slots;
	size_t slot_mask;
	uint64_t seed;
	uint32_t count;
	uint32_t offsets_cap;
};

/** The number of @p len bytes without NUL in them (bytes after a NUL are cut). ERR_NOMEM, ERR_LIMIT past 4 GiB. */
struct err *intern_add(struct intern *intern, const char *text, size_t len, uint32_t *ret) MUST_USE;
/** Borrowed until the next intern_add. @p id must be one that intern_add gave. */
const char *intern_text(const struct intern *intern, uint32_t id);
void intern_deinit(struct intern *intern);

#endif

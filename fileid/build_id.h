// SPDX-License-Identifier: Apache-2.0
/*
 * GNU and Go build IDs: read out of ELF notes by a bounded reader (no libelf), parsed and printed.
 * Sources: ELF gABI "Note Section"; ld's --build-id; Go's cmd/internal/buildid (note name "Go", type 4).
 */
#ifndef CAIRN_FILEID_BUILD_ID_H
#define CAIRN_FILEID_BUILD_ID_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BUILD_ID_MAX = 64,		      /* bytes; ld makes 16 or 20, --build-id=0x.. more */
	BUILD_ID_HEX_SIZE = 2 * BUILD_ID_MAX + 1,
	GO_BUILD_ID_MAX = 255,		      /* characters; Go's are 83 */
};

struct build_id {
	uint8_t len; /* 0: none */
	uint8_t bytes[BUILD_ID_MAX];
};

struct elf_ids {
	struct build_id gnu;
	char go[GO_BUILD_ID_MAX + 1]; /* "" when there is none */
};

/**
 * The build IDs of an ELF image of any class and byte order, from PT_NOTE segments, else SHT_NOTE sections.
 * @param name  what @p bytes are, for errors
 * @return NULL (IDs that are absent are empty); ERR_FORMAT: not ELF, or headers out of bounds. Any thread.
 */
struct err *build_id_from_elf(const void *bytes, size_t len, const char *name, struct elf_ids *ret) MUST_USE;

/** Lower hex; "" for an empty one. */
void build_id_format(const struct build_id *id, char text[BUILD_ID_HEX_SIZE]);
/** 1 to 64 bytes of hex, either case; false for anything else. */
bool build_id_parse(const char *text, size_t len, struct build_id *ret);
bool build_id_equal(const struct build_id *a, const struct build_id *b);

#endif

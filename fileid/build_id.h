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

/** Takes one ELF note (of the owner @p name, with its NUL) if it is one of the two kinds and the first of it. */
void build_id_take_note(struct elf_ids *ids, uint32_t type, const void *name, size_t name_len, const void *desc, size_t desc_len);

/**
 * The GNU build ID that Go's linker makes of a Go build ID by `-B gobuildid`, its default since Go 1.24: so older binaries, which have none, are
 * known in the same way, and senders that give the Go build ID alone are understood. SHA-256 of the ID as the linker is given it (the
 * content part, which is filled in later, still as the action part), first byte inverted, 20 bytes.
 * @return NULL; ERR_NOMEM, ERR_INTERNAL. @p go not empty. Source: cmd/link/internal/ld/elf.go, cmd/internal/hash.
 */
struct err *build_id_from_go(const char *go, size_t len, struct build_id *ret) MUST_USE;
/** What symbols attach to: the GNU build ID, else the one of the Go build ID; empty when there is neither. */
struct err *build_id_from_ids(const struct elf_ids *ids, struct build_id *ret) MUST_USE;
/** Whether an ELF image has debug information of its own (.debug_info or .zdebug_info with bytes). False for what is no ELF file. */
bool elf_has_debug_info(const void *bytes, size_t len);

/** Lower hex; "" for an empty one. */
void build_id_format(const struct build_id *id, char text[BUILD_ID_HEX_SIZE]);
/** 1 to 64 bytes of hex, either case; false for anything else. */
bool build_id_parse(const char *text, size_t len, struct build_id *ret);
/**
 * The build ID that a debug file's path names: "../.build-id/ab/cdef01.debug". False for any other path.
 * Source: GDB manual, "Debugging Information in Separate Files".
 */
bool build_id_from_path(const char *path, size_t len, struct build_id *ret);
bool build_id_equal(const struct build_id *a, const struct build_id *b);

#endif

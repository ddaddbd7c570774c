// SPDX-License-Identifier: Apache-2.0
/*
 * The PT_LOAD table of a runtime file, and the way from a file offset to an address as linked. Only the runtime
 * file's will do: objcopy --only-keep-debug moves p_offset, so a debug file's offsets are never used.
 */
#ifndef CAIRN_FILEID_LOAD_SEGMENT_H
#define CAIRN_FILEID_LOAD_SEGMENT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOAD_SEGMENTS_MAX = 64 };

struct load_segment {
	uint64_t foff;	/* p_offset: where its bytes begin in the file */
	uint64_t vaddr; /* p_vaddr */
	uint64_t size;	/* p_filesz, bytes */
	bool executable;
};

struct load_segments {
	size_t count;
	struct load_segment items[LOAD_SEGMENTS_MAX];
};

/** The PT_LOAD headers of an ELF image, in file order. ERR_FORMAT; ERR_LIMIT: more than LOAD_SEGMENTS_MAX. Any thread. */
struct err *load_segments_from_elf(const void *bytes, size_t len, const char *name, struct load_segments *ret) MUST_USE;

/**
 * The address as linked of file offset @p foff: p_vaddr + (foff - p_offset) of the segment that holds it; an executable
 * segment is preferred where two share a page. The segment's start is rounded down to a 4096-byte page as the loader maps it.
 * @return false when no segment holds the offset.
 */
bool load_segments_vaddr(const struct load_segments *segments, uint64_t foff, uint64_t *ret);

#endif

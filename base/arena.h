// SPDX-License-Identifier: Apache-2.0
/*
 * Bump allocation for things that die together: a request, a unit, a build. One thread at a time.
 */
#ifndef CAIRN_BASE_ARENA_H
#define CAIRN_BASE_ARENA_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* The largest piece; nothing that is kept in memory is larger. */
#define ARENA_ALLOC_MAX ((size_t)UINT32_MAX)

struct arena_chunk;

struct arena {
	struct arena_chunk *chunk; /* newest first */
	size_t used;		   /* of the newest chunk */
	size_t total_bytes;	   /* of all chunks */
};

/** @p size bytes, zeroed, aligned to 16; NULL when memory is out, or past ARENA_ALLOC_MAX. Lives until arena_deinit or arena_reset. */
void *arena_alloc(struct arena *arena, size_t size);
/** A NUL-terminated copy of @p len bytes; NULL when memory is out. */
char *arena_copy_text(struct arena *arena, const char *text, size_t len);
/** Forgets all allocations but keeps the newest chunk for reuse. */
void arena_reset(struct arena *arena);
void arena_deinit(struct arena *arena);

#endif

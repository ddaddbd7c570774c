// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"

#include <stdint.h>
#include <string.h>

enum { ARENA_ALIGN = 16, ARENA_CHUNK_BYTES = 64 * 1024 };

struct arena_chunk {
	struct arena_chunk *older;
	size_t size; /* of bytes[] */
	_Alignas(ARENA_ALIGN) uint8_t bytes[];
};

static struct arena_chunk *arena_grow(struct arena *arena, size_t size)
{
	size_t want = size > ARENA_CHUNK_BYTES ? size : ARENA_CHUNK_BYTES;
	struct arena_chunk *chunk = malloc(sizeof(*chunk) + want);

	if (!chunk)
		return NULL;
	chunk->older = arena->chunk;
	chunk->size = want;
	arena->chunk = chunk;
	arena->used = 0;
	arena->total_bytes += want;
	return chunk;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	if (size > ARENA_ALLOC_MAX)
		return NULL;
	size = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
	struct arena_chunk *chunk = arena->chunk;

	if (!chunk || chunk->size - arena->used < size) {
		chunk = arena_grow(arena, size);
		if (!chunk)
			return NULL;
	}
	void *bytes = chunk->bytes + arena->used;
	arena->used += size;
	memset(bytes, 0, size);
	return bytes;
}

char *arena_copy_text(struct arena *arena, const char *text, size_t len)
{
	if (len >= ARENA_ALLOC_MAX)
		return NULL;
	char *copy = arena_alloc(arena, len + 1);

	if (copy && len > 0)
		memcpy(copy, text, len);
	return copy;
}

static void arena_free_from(struct arena_chunk *chunk)
{
	while (chunk) {
		struct arena_chunk *older = chunk->older;
		free(chunk);
		chunk = older;
	}
}

void arena_reset(struct arena *arena)
{
	if (!arena->chunk)
		return;
	arena_free_from(arena->chunk->older);
	arena->chunk->older = NULL;
	arena->total_bytes = arena->chunk->size;
	arena->used = 0;
}

void arena_deinit(struct arena *arena)
{
	arena_free_from(arena->chunk);
	*arena = (struct arena){0};
}

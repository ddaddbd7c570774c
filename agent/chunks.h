// SPDX-License-Identifier: Apache-2.0
/*
 * A table that grows in BPF maps, and is one array here: an array of maps (agent/bpf/maps.h), whose inner arrays are made when
 * they are needed, mapped side by side into reserved address space, and given back when they are empty. One thread.
 */
#ifndef CAIRN_AGENT_CHUNKS_H
#define CAIRN_AGENT_CHUNKS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { CHUNKS_MAX = 4096 };

struct chunks {
	const char *name;
	int outer_fd; /* borrowed */
	uint32_t items; /* in a chunk; a power of two */
	size_t chunk_bytes; /* whole pages */
	uint32_t count, max; /* chunks [0, count) are there */
	uint8_t *base;
};

/**
 * Reserves address space for at least @p items_max items. @p chunk_bytes are those of @p chunk_items.
 * @param outer_fd  the array of maps: CHUNKS_MAX places at most, all empty; with -1 (tests) chunks are plain memory
 * @return NULL; ERR_OS; ERR_LIMIT.
 */
struct err *chunks_init(struct chunks *chunks, const char *name, int outer_fd, uint32_t chunk_items, size_t chunk_bytes, uint32_t items_max) MUST_USE;
void chunks_deinit(struct chunks *chunks);
/** Chunks that @p items_max items take. */
uint32_t chunks_count_for(uint32_t items_max, uint32_t chunk_items);
/** Makes items [0, @p items) usable, zeroed where they are new. ERR_OS: no memory; ERR_LIMIT. */
struct err *chunks_grow(struct chunks *chunks, uint64_t items) MUST_USE;
/** Gives back the chunks behind item @p items. The kernel reads them no more when this returns. */
void chunks_shrink(struct chunks *chunks, uint64_t items);
/** What the kernel holds for it. */
size_t chunks_bytes(const struct chunks *chunks);

#endif

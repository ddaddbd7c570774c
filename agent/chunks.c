// SPDX-License-Identifier: Apache-2.0
/*
 * An inner map lives as long as the outer map names it or we have it mapped, so its descriptor is closed at once. Putting one
 * into the outer map, or taking it out, waits until no program runs that saw the old state (synchronize_rcu, some 10 ms asleep):
 * chunks are large, so that this is rare.
 */
#include "agent/chunks.h"

#include "base/cleanup.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

uint32_t chunks_count_for(uint32_t items_max, uint32_t chunk_items)
{
	return (uint32_t)(((uint64_t)items_max + chunk_items - 1) / chunk_items);
}

struct err *chunks_init(struct chunks *c, const char *name, int outer_fd, uint32_t chunk_items, size_t chunk_bytes, uint32_t items_max)
{
	uint32_t max = chunks_count_for(items_max, chunk_items);

	if (max == 0 || max > CHUNKS_MAX)
		return err_new(ERR_LIMIT, "table %s of %u items: at most %u", name, items_max, CHUNKS_MAX * chunk_items);
	void *base = mmap(NULL, max * chunk_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return err_os(errno, "address space for table %s", name);
	*c = (struct chunks){.name = name, .outer_fd = outer_fd, .items = chunk_items, .chunk_bytes = chunk_bytes, .max = max, .base = base};
	return NULL;
}

void chunks_deinit(struct chunks *c)
{
	if (c->base)
		(void)munmap(c->base, c->max * c->chunk_bytes);
	*c = (struct chunks){0};
}

static struct err *add(struct chunks *c)
{
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
	uint8_t *place = c->base + c->count * c->chunk_bytes;
	CLEANUP(closep) int fd = -1;

	if (c->outer_fd >= 0) {
		/* As the declaration says: values of this size in an array of this many; the kernel compares. */
		uint32_t value_bytes = (uint32_t)(c->chunk_bytes / c->items), entries = c->items;
		if (value_bytes < 8) {
			entries = (uint32_t)(c->chunk_bytes / 8);
			value_bytes = 8;
		}
		fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, c->name, sizeof(uint32_t), value_bytes, entries, &options);
		if (fd < 0)
			return err_os(errno, "BPF map %s", c->name);
	}
	int flags = fd >= 0 ? MAP_SHARED | MAP_FIXED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	if (mmap(place, c->chunk_bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED)
		return err_os(errno, "BPF map %s", c->name);
	if (fd >= 0 && bpf_map_update_elem(c->outer_fd, &c->count, &fd, BPF_ANY) != 0)
		return err_os(errno, "BPF map %s", c->name);
	c->count++;
	return NULL;
}

struct err *chunks_grow(struct chunks *c, uint64_t items)
{
	if (items > (uint64_t)c->max * c->items)
		return err_new(ERR_LIMIT, "table %s: more than %u chunks", c->name, c->max);
	while ((uint64_t)c->count * c->items < items)
		TRY(add(c));
	return NULL;
}

void chunks_shrink(struct chunks *c, uint64_t items)
{
	while (c->count > 0 && (uint64_t)(c->count - 1) * c->items >= items) {
		uint32_t last = c->count - 1;
		if (c->outer_fd >= 0 && bpf_map_delete_elem(c->outer_fd, &last) != 0)
			return;
		(void)mmap(c->base + last * c->chunk_bytes, c->chunk_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		c->count = last;
	}
}

size_t chunks_bytes(const struct chunks *c)
{
	return c->count * c->chunk_bytes;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes of a descriptor, mapped read-only: page cache, not the worker's memory.
 */
#ifndef CAIRN_WORKER_IMAGE_H
#define CAIRN_WORKER_IMAGE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct image {
	const uint8_t *bytes;
	size_t len;
};

/** The whole file. ERR_FORMAT: empty; ERR_OS; ERR_NOMEM. @p name for errors. */
struct err *image_map(int fd, const char *name, struct image *ret) MUST_USE;
/** @p len bytes at @p foff, a multiple of the page size. */
struct err *image_map_part(int fd, uint64_t foff, size_t len, const char *name, struct image *ret) MUST_USE;
/** For CLEANUP too; an empty one is fine. */
void image_unmap(struct image *image);

#endif

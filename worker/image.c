// SPDX-License-Identifier: Apache-2.0
#include "worker/image.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct err *image_map_part(int fd, uint64_t foff, size_t len, const char *name, struct image *ret)
{
	if (len == 0)
		return err_new(ERR_FORMAT, "%s: empty file", name);
	void *bytes = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, (off_t)foff);
	if (bytes == MAP_FAILED)
		return errno == ENOMEM ? err_nomem() : err_os(errno, "map %s", name);
	*ret = (struct image){bytes, len};
	return NULL;
}

struct err *image_map(int fd, const char *name, struct image *ret)
{
	struct stat status;

	if (fstat(fd, &status))
		return err_os(errno, "stat %s", name);
	return image_map_part(fd, 0, (size_t)status.st_size, name, ret);
}

void image_unmap(struct image *image)
{
	if (image->bytes)
		(void)munmap((void *)(uintptr_t)image->bytes, image->len);
	*image = (struct image){0};
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes that are sent of a file: its own, or an ar archive of .dwo files, made in a file without a name when it is needed, since
 * those of many programs would not all stay open.
 */
#include "base/ar.h"
#include "cli/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 20 };

static struct err *open_scratch(int *ret)
{
	const char *folder = getenv("TMPDIR");
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/upload-symbols-XXXXXX", folder && folder[0] ? folder : "/tmp") >= (int)sizeof(path))
		return err_new(ERR_INVALID, "TMPDIR is too long");
	int fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return err_os(errno, "temporary file %s", path);
	(void)unlink(path);
	*ret = fd;
	return NULL;
}

static struct err *write_all(int fd, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	while (len > 0) {
		ssize_t done = write(fd, at, len);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_os(errno, "write a temporary file");
		at += done;
		len -= (size_t)done;
	}
	return NULL;
}

static struct err *read_block(int fd, uint8_t *block, size_t *len_ret)
{
	ssize_t got;

	do
		got = read(fd, block, BLOCK_BYTES);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return err_os(errno, "read");
	*len_ret = (size_t)got;
	return NULL;
}

/* ar(5): a header of 60 bytes, the bytes, and one more to an even number. No names, times and owners: the same files, the same bytes. */
static struct err *pack(char *const *paths, size_t count, int to)
{
	CLEANUP(freep) uint8_t *block = malloc(BLOCK_BYTES);

	if (!block)
		return err_nomem();
	TRY(write_all(to, "!<arch>\n", 8));
	for (size_t i = 0; i < count; i++) {
		CLEANUP(closep) int from = open(paths[i], O_RDONLY | O_CLOEXEC);
		struct stat status;
		char header[128];
		uint64_t done = 0;
		size_t len;
		if (from < 0 || fstat(from, &status) != 0)
			return err_os(errno, "%s", paths[i]);
		int header_len = snprintf(header, sizeof(header), "%-16zu%-12d%-6d%-6d%-8o%-10" PRIu64 "`\n", i, 0, 0, 0, 0644u, (uint64_t)status.st_size);
		if (header_len != AR_HEADER_BYTES)
			return err_new(ERR_LIMIT, "%s: too large", paths[i]);
		TRY(write_all(to, header, AR_HEADER_BYTES));
		do {
			TRY(read_block(from, block, &len));
			TRY(write_all(to, block, len));
			done += len;
		} while (len > 0);
		if (done != (uint64_t)status.st_size)
			return err_new(ERR_FORMAT, "%s: its size changed while it was read", paths[i]);
		TRY(write_all(to, "\n", done & 1));
	}
	return NULL;
}

uint64_t upload_bundle_bytes(const uint64_t *sizes, size_t count)
{
	uint64_t sum = 8;

	for (size_t i = 0; i < count; i++)
		sum += AR_HEADER_BYTES + sizes[i] + (sizes[i] & 1);
	return sum;
}

struct err *upload_content_open(const struct upload_file *file, int *ret)
{
	CLEANUP(closep) int fd = -1;

	if (file->content == UPLOAD_PLAIN) {
		fd = open(file->path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_os(errno, "open");
	} else {
		TRY(open_scratch(&fd));
		TRY(pack(file->parts, file->part_count, fd));
	}
	*ret = take_fd(&fd);
	return NULL;
}

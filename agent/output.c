// SPDX-License-Identifier: Apache-2.0
#include "agent/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

struct err *output_check(const char *path)
{
	if (strcmp(path, "-") == 0)
		return NULL;
	CLEANUP(closep) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	return fd < 0 ? err_os(errno, "%s", path) : NULL;
}

struct err *output_write(const char *path, const struct buf *content)
{
	bool is_stdout = strcmp(path, "-") == 0;
	CLEANUP(closep) int opened = is_stdout ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int fd = is_stdout ? STDOUT_FILENO : opened;

	if (fd < 0)
		return err_os(errno, "%s", path);
	for (size_t done = 0; done < content->len;) {
		ssize_t n = write(fd, content->data + done, content->len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_os(errno, "%s", path);
		done += (size_t)n;
	}
	return NULL;
}

struct err *output_path(const char *output, const char *type, struct buf *ret)
{
	static const char suffix[] = ".pb.gz";
	size_t len = strlen(output), end = sizeof(suffix) - 1;
	bool has_suffix = len > end && strcmp(output + len - end, suffix) == 0;

	TRY(buf_printf(ret, "%.*s.%s%s", (int)(has_suffix ? len - end : len), output, type, has_suffix ? suffix : ""));
	return buf_append(ret, "", 1);
}

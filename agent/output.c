// SPDX-License-Identifier: Apache-2.0
#include "agent/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder that @p path lies in. */
static struct err *folder_of(const char *path, struct buf *ret)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return buf_printf(ret, ".");
	return buf_printf(ret, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

struct err *output_check(const char *path)
{
	CLEANUP(buf_deinit) struct buf folder = {0};
	struct stat st;

	if (strcmp(path, "-") == 0)
		return NULL;
	if (stat(path, &st) == 0) {
		if (S_ISDIR(st.st_mode))
			return err_os(EISDIR, "%s", path);
		return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 ? NULL : err_os(errno, "%s", path);
	}
	if (errno != ENOENT)
		return err_os(errno, "%s", path);
	TRY(folder_of(path, &folder));
	return faccessat(AT_FDCWD, (const char *)folder.data, W_OK | X_OK, AT_EACCESS) == 0 ? NULL : err_os(errno, "%s", path);
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

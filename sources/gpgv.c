// SPDX-License-Identifier: Apache-2.0
/*
 * gpgv reads standard input, writes the signed text to standard output and its verdicts to descriptor 3, all three files without a
 * name. Its exit status says less than the verdicts: Debian signs with two keys, of which an older keyring knows one.
 */
#include "sources/gpgv.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_MAX = 16 << 20, STATUS_MAX = 1 << 16, KEYRINGS_MAX = 32 };

static bool has_line(const char *status, const char *word)
{
	char wanted[64];

	(void)snprintf(wanted, sizeof(wanted), "[GNUPG:] %s ", word);
	for (const char *at = status; (at = strstr(at, wanted)); at++)
		if (at == status || at[-1] == '\n')
			return true;
	return false;
}

bool gpgv_judge(const char *status)
{
	return has_line(status, "GOODSIG") && has_line(status, "VALIDSIG") && !has_line(status, "BADSIG") && !has_line(status, "REVKEYSIG");
}

static struct err *read_all(int fd, size_t limit, struct buf *ret)
{
	off_t size = lseek(fd, 0, SEEK_END);

	if (size < 0 || (uint64_t)size > limit)
		return err_new(ERR_LIMIT, "gpgv: more than %zu bytes", limit);
	TRY(buf_reserve(ret, (size_t)size + 1));
	if (pread(fd, ret->data, (size_t)size, 0) != size)
		return err_os(errno, "gpgv");
	ret->len = (size_t)size;
	ret->data[size] = 0;
	return NULL;
}

static struct err *run(char **argv, int in, int out, int status)
{
	posix_spawn_file_actions_t actions;
	char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", "HOME=/nonexistent", NULL};
	pid_t pid;
	int end;

	if (posix_spawn_file_actions_init(&actions))
		return err_nomem();
	int error = posix_spawn_file_actions_adddup2(&actions, in, 0);
	error = error ? error : posix_spawn_file_actions_adddup2(&actions, out, 1);
	error = error ? error : posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	error = error ? error : posix_spawn_file_actions_adddup2(&actions, status, 3);
	error = error ? error : posix_spawn(&pid, "/usr/bin/gpgv", &actions, NULL, argv, environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	if (error)
		return err_os(error, "/usr/bin/gpgv (Debian package gpgv)");
	while (waitpid(pid, &end, 0) < 0)
		if (errno != EINTR)
			return err_os(errno, "gpgv");
	return NULL;
}

/* A descriptor above those that the child gets, so that no dup2 hits another. */
static int file_of_no_name(void)
{
	int fd = memfd_create("gpgv", MFD_CLOEXEC);
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10);

	if (fd >= 0)
		(void)close(fd);
	return high;
}

struct err *gpgv_open(int fd, const char *keyring, struct buf *ret)
{
	CLEANUP(closep) int in = fcntl(fd, F_DUPFD_CLOEXEC, 10);
	CLEANUP(closep) int out = file_of_no_name();
	CLEANUP(closep) int status = file_of_no_name();
	CLEANUP(buf_deinit) struct buf said = {0};
	char *argv[8 + 2 * KEYRINGS_MAX] = {"gpgv", "--homedir", "/nonexistent", "--status-fd", "3", "--output", "-"};
	size_t n = 7;
	glob_t found = {0};

	if (in < 0 || out < 0 || status < 0 || lseek(in, 0, SEEK_SET) < 0)
		return err_os(errno, "gpgv");
	if (keyring && keyring[0]) {
		argv[n++] = "--keyring";
		argv[n++] = (char *)(uintptr_t)keyring;
	} else {
		(void)glob("/etc/apt/trusted.gpg.d/*.gpg", 0, NULL, &found);
		(void)glob("/usr/share/keyrings/debian-archive-keyring.gpg", GLOB_APPEND, NULL, &found);
		for (size_t i = 0; i < found.gl_pathc && i < KEYRINGS_MAX; i++) {
			argv[n++] = "--keyring";
			argv[n++] = found.gl_pathv[i];
		}
	}
	struct err *e = run(argv, in, out, status);
	globfree(&found);
	TRY(e);
	TRY(read_all(status, STATUS_MAX, &said));
	if (!gpgv_judge((const char *)said.data))
		return err_new(ERR_MISMATCH, "%s", strstr((const char *)said.data, "BADSIG") ? "a bad signature: it was changed after it was signed" :
				strstr((const char *)said.data, "NO_PUBKEY") ? "signed by a key that the keyring does not have" : "no good signature");
	return read_all(out, TEXT_MAX, ret);
}

// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include "base/hex.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PROGRESS_INTERVAL_MS = 100 };

static bool is_help(const char *argument)
{
	return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static int print_commands(const struct cli_command *parent, const struct cli_command *commands, size_t count)
{
	(void)cli_help(parent);
	printf("\nCommands:\n");
	for (size_t i = 0; i < count; i++)
		printf("  %-10s %s\n", commands[i].name, commands[i].summary);
	printf("\n`%s COMMAND --help` says more.\n", parent->full);
	return cli_close_output(parent, CLI_OK);
}

int cli_dispatch(const struct cli_command *parent, const struct cli_command *commands, size_t count, int argc, char **argv)
{
	if (argc < 2)
		return cli_usage(parent, "a command is missing");
	if (is_help(argv[1]))
		return print_commands(parent, commands, count);
	if (strcmp(argv[1], "--version") == 0) {
		printf("%s %s\n", parent->full, CAIRN_VERSION);
		return cli_close_output(parent, CLI_OK);
	}
	for (size_t i = 0; i < count; i++) {
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		argv[1] = (char *)(uintptr_t)commands[i].full;
		return cli_close_output(&commands[i], commands[i].run(&commands[i], argc - 1, argv + 1));
	}
	return cli_usage(parent, "there is no command \"%s\"", argv[1]);
}

int cli_fail(const struct cli_command *command, struct err *e)
{
	fprintf(stderr, "%s: %s\n", command->full, err_message(e));
	err_free(e);
	return CLI_FAILED;
}

int cli_usage(const struct cli_command *command, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "%s: %s; see %s --help\n", command->full, text, command->full);
	return CLI_USAGE;
}

int cli_help(const struct cli_command *command)
{
	(void)fputs(command->help, stdout);
	return CLI_OK;
}

int cli_close_output(const struct cli_command *command, int status)
{
	/* ferror: a write that failed earlier; its errno is lost by now, a flush's is not. */
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	return cli_fail(command, err_os(errno ? errno : EIO, "write standard output"));
}

struct err *cli_write(int fd, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	while (len > 0) {
		ssize_t wrote = write(fd, at, len);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0)
			return fd == STDOUT_FILENO ? err_os(errno, "write standard output") : err_os(errno, "write");
		at += wrote;
		len -= (size_t)wrote;
	}
	return NULL;
}

struct err *cli_map_file(const char *path, struct cli_map *ret)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct cli_map map = {0};
	struct stat status;

	if (fd < 0)
		return err_os(errno, "open %s", path);
	if (fstat(fd, &status) != 0)
		return err_os(errno, "stat %s", path);
	if (!S_ISREG(status.st_mode))
		return err_new(ERR_INVALID, "%s: not a regular file", path);
	map.len = (size_t)status.st_size;
	if (map.len > 0) {
		void *bytes = mmap(NULL, map.len, PROT_READ, MAP_PRIVATE, fd, 0);
		if (bytes == MAP_FAILED)
			return err_os(errno, "map %s", path);
		map.bytes = bytes;
	}
	*ret = map;
	return NULL;
}

void cli_unmap(struct cli_map *map)
{
	if (map->len > 0)
		(void)munmap((void *)(uintptr_t)map->bytes, map->len);
	*map = (struct cli_map){0};
}

static struct err *fill_file(int fd, const void *bytes, size_t len)
{
	/* mkstemp makes files that only the owner reads; a table is as public as its binary. */
	mode_t mask = umask(0);
	(void)umask(mask);
	TRY(cli_write(fd, bytes, len));
	if (fchmod(fd, 0666 & ~mask) != 0)
		return err_os(errno, "chmod");
	return fsync(fd) == 0 ? NULL : err_os(errno, "fsync");
}

/* A rename would put a file in the place of a device or a pipe: /dev/null, for root. */
static struct err *write_special(const char *path, const void *bytes, size_t len)
{
	CLEANUP(closep) int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return err_os(errno, "open %s", path);
	return err_wrap(cli_write(fd, bytes, len), "%s", path);
}

struct err *cli_write_file(const char *path, const void *bytes, size_t len)
{
	CLEANUP(freep) char *temporary = NULL;
	CLEANUP(freep) char *real = NULL;
	struct stat status;

	if (stat(path, &status) == 0) {
		if (!S_ISREG(status.st_mode))
			return write_special(path, bytes, len);
		/* A link stays, what it leads to is replaced. */
		real = realpath(path, NULL);
		path = real ? real : path;
	}
	if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
		temporary = NULL;
		return err_nomem();
	}
	CLEANUP(closep) int fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return err_os(errno, "create %s", path);
	struct err *e = fill_file(fd, bytes, len);
	if (!e && rename(temporary, path) != 0)
		e = err_os(errno, "rename to");
	if (!e)
		return NULL;
	(void)unlink(temporary);
	return err_wrap(e, "%s", path);
}

bool cli_parse_address(const char *text, size_t len, uint64_t *ret)
{
	uint64_t value = 0;

	if (len > 2 && text[0] == '0' && (text[1] | 0x20) == 'x') {
		text += 2;
		len -= 2;
	}
	if (len == 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		int digit = hex_digit(text[i]);
		if (digit < 0 || value >> 60)
			return false;
		value = value << 4 | (unsigned)digit;
	}
	*ret = value;
	return true;
}

bool cli_parse_count(const char *text, uint32_t max, uint32_t *ret)
{
	uint64_t value = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = 10 * value + (uint64_t)(*text - '0');
		if (value > max)
			return false;
	}
	*ret = (uint32_t)value;
	return value > 0;
}

unsigned cli_processors(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 1;
	int count = CPU_COUNT(&set);
	return count > 0 ? (unsigned)count : 1;
}

void cli_progress_init(struct cli_progress *progress)
{
	*progress = (struct cli_progress){.is_terminal = isatty(STDERR_FILENO) == 1};
}

void cli_progress_show(struct cli_progress *progress, const char *format, ...)
{
	char text[256];
	va_list args;

	if (!progress->is_terminal)
		return;
	uint64_t now = cli_now_ms();
	if (progress->is_dirty && now - progress->shown_ms < PROGRESS_INTERVAL_MS)
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* To the line's begin, the text, and whatever stood behind it erased. */
	fprintf(stderr, "\r%s\033[K", text);
	progress->shown_ms = now;
	progress->is_dirty = true;
}

void cli_progress_clear(struct cli_progress *progress)
{
	if (progress->is_dirty)
		fprintf(stderr, "\r\033[K");
	progress->is_dirty = false;
}

uint64_t cli_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *cli_format_bytes(uint64_t bytes, char text[24])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 999.5 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1000;
		unit++;
	}
	(void)snprintf(text, 24, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
	return text;
}

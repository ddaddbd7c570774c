// SPDX-License-Identifier: Apache-2.0
/*
 * What the commands share: exit statuses, messages, progress, files, addresses.
 * A message is one line on standard error that begins with the command: "cairn table lookup: t.tab: not a Cairn table".
 */
#ifndef CAIRN_CLI_CLI_H
#define CAIRN_CLI_CLI_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1, /* with one line that says what and where */
	CLI_USAGE = 2,	/* the command line makes no sense */
};

#define CLI_DEFAULT_URL "http://127.0.0.1:4318"

struct cli_command {
	const char *name;    /* as typed */
	const char *full;    /* "cairn table lookup": begins its messages */
	const char *summary; /* one line in the list of commands */
	const char *help;    /* what --help prints */
	/* argv[0] is `full`, so that getopt's messages begin with it. Returns an enum cli_exit. */
	int (*run)(const struct cli_command *command, int argc, char **argv);
};

/**
 * Finds argv[1] among @p commands and runs it with the rest; answers --help, --version and a missing or unknown command.
 * @param parent  what stands before: its full name and help head; the list of commands is appended to its help
 */
int cli_dispatch(const struct cli_command *parent, const struct cli_command *commands, size_t count, int argc, char **argv);

/** Prints the message of @p e, frees it, returns CLI_FAILED; CLI_USAGE for ERR_INVALID where @p e is about the command line. */
int cli_fail(const struct cli_command *command, struct err *e);
/** Prints "<command>: <formatted>; see <command> --help", returns CLI_USAGE. */
int cli_usage(const struct cli_command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Prints the help to standard output, returns CLI_OK. */
int cli_help(const struct cli_command *command);
/** Flushes standard output: CLI_FAILED with a message when that, or an earlier write, failed, else @p status. */
int cli_close_output(const struct cli_command *command, int status);
/** Writes all bytes. ERR_OS. */
struct err *cli_write(int fd, const void *bytes, size_t len) MUST_USE;

/* A regular file mapped read-only. */
struct cli_map {
	const uint8_t *bytes;
	size_t len;
};
/** ERR_OS; ERR_INVALID: no regular file. Empty files give len 0. Release with cli_unmap, which CLEANUP can call. */
struct err *cli_map_file(const char *path, struct cli_map *ret) MUST_USE;
void cli_unmap(struct cli_map *map);

/**
 * Writes a file so that nobody ever sees half of it: to a temporary name beside it, fsync, rename. Links are followed; what
 * is no regular file (/dev/null, a pipe) is written to and never replaced.
 * ERR_OS.
 */
struct err *cli_write_file(const char *path, const void *bytes, size_t len) MUST_USE;

/** Hex digits with or without 0x, all of @p len; false for anything else and past 64 bits. */
bool cli_parse_address(const char *text, size_t len, uint64_t *ret);
/** A decimal number from 1 to @p max. */
bool cli_parse_count(const char *text, uint32_t max, uint32_t *ret);
/** Processors that this process may use, at least 1. */
unsigned cli_processors(void);

/* A line on a terminal that is written over; nothing where standard error is no terminal. One thread at a time. */
struct cli_progress {
	bool is_terminal;
	uint64_t shown_ms; /* when it was last written */
	bool is_dirty;	   /* something stands on the line */
};
void cli_progress_init(struct cli_progress *progress);
/** At most ten times a second. */
void cli_progress_show(struct cli_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Clears the line, before anything else is printed. */
void cli_progress_clear(struct cli_progress *progress);

/** Milliseconds of the monotonic clock. */
uint64_t cli_now_ms(void);
/** "26.1 MB" and the like, in powers of 1000. */
const char *cli_format_bytes(uint64_t bytes, char text[24]);

#endif

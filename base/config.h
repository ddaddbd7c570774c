// SPDX-License-Identifier: Apache-2.0
/*
 * Configuration from one table: each program declares its keys once (name, type, bounds, default, help), and
 * the table feeds the file, the flags, --help and the README. A key `store.map_max` is the flag `--store.map_max`
 * unless the table names another (`--data-dir`). The file has `key = value` lines, `#` comments, `[section]` heads that
 * prefix the keys below. Sizes take K, M, G, T suffixes (1024), durations ms, s, m, h, d. An unknown key is an error.
 */
#ifndef CAIRN_BASE_CONFIG_H
#define CAIRN_BASE_CONFIG_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum config_type {
	CONFIG_TEXT,	 /* char *, malloc'd, NULL when the default is NULL */
	CONFIG_UINT,	 /* uint64_t */
	CONFIG_SIZE,	 /* uint64_t, bytes */
	CONFIG_DURATION, /* uint64_t, milliseconds */
	CONFIG_BOOL,	 /* bool */
};

struct config_key {
	const char *name; /* in the file: "store.map_max" */
	const char *flag; /* on the command line, without dashes; NULL: the same as name */
	enum config_type type;
	size_t offset;	      /* of the member in the caller's struct */
	uint64_t min, max;    /* numbers only, both included */
	const char *fallback; /* default as text, NULL: none */
	const char *help;     /* one line; a value's word is in capitals: "FILE .." */
};

struct config_table {
	const struct config_key *keys;
	size_t count;
};

/** Sets every member to its default. Call once on a zeroed struct. */
struct err *config_defaults(const struct config_table *table, void *config) MUST_USE;
/** Sets one key from text. ERR_INVALID: unknown key, malformed value, out of bounds (says which). */
struct err *config_set(const struct config_table *table, void *config, const char *name, const char *value) MUST_USE;
/** Reads a file. Errors name file and line. ERR_INVALID, ERR_OS. */
struct err *config_read_file(const struct config_table *table, void *config, const char *path) MUST_USE;
/**
 * Takes the flags of the table out of @p argv (`--flag value`, `--flag=value`, a CONFIG_BOOL alone); what is left, the
 * program's name first, is moved together and @p argc updated. Stops at `--`. An unknown `--flag` is ERR_INVALID.
 */
struct err *config_read_flags(const struct config_table *table, void *config, int *argc, char **argv) MUST_USE;
/**
 * All of it: the defaults, then the file that `--config FILE` among the flags names, then the flags, which win. Once on a zeroed struct.
 * Errors of the three above.
 */
struct err *config_read(const struct config_table *table, void *config, int *argc, char **argv) MUST_USE;
/** Appends the aligned help lines of all flags with their defaults. */
struct err *config_help(const struct config_table *table, struct buf *ret) MUST_USE;
/** Frees the text members. */
void config_deinit(const struct config_table *table, void *config);

#endif

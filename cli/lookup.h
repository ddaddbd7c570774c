// SPDX-License-Identifier: Apache-2.0
/*
 * `cairn table lookup`: a stream of addresses through a table.
 */
#ifndef CAIRN_CLI_LOOKUP_H
#define CAIRN_CLI_LOOKUP_H

#include "base/err.h"
#include "symbolizer/table/demangle.h"
#include "symbolizer/table/table.h"

#include <stdbool.h>

/** "full", "short" or "none". */
bool lookup_parse_style(const char *text, enum demangle_style *ret);

/**
 * Reads one hexadecimal address a line from @p in_fd (blank lines are skipped) and writes one JSON line each to @p out_fd.
 * What has been read completely is answered before more is waited for, so that a program at the other end of a pipe may
 * wait for answers.
 * @return NULL at the end of the input; ERR_INVALID: "line 7: \"xyz\" is not an address"; ERR_OS; ERR_NOMEM.
 */
struct err *lookup_stream(const struct table *table, enum demangle_style style, int in_fd, int out_fd) MUST_USE;

#endif

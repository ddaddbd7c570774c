// SPDX-License-Identifier: Apache-2.0
/* The files that --once writes, or standard output ("-"). */
#ifndef CAIRN_AGENT_OUTPUT_H
#define CAIRN_AGENT_OUTPUT_H

#include "base/buf.h"

/** Before the window and not after it: whether the file can be written. It is neither made nor opened: the
 * reader of a pipe would see its end. ERR_OS; ERR_NOMEM. */
struct err *output_check(const char *path) MUST_USE;
/** Replaces what is in the file. ERR_OS. */
struct err *output_write(const char *path, const struct buf *content) MUST_USE;
/** Appends the path, and a NUL, of a profile of another type beside @p output: cpu.pb.gz, cpu.off_cpu.pb.gz. ERR_NOMEM. */
struct err *output_path(const char *output, const char *type, struct buf *ret) MUST_USE;

#endif

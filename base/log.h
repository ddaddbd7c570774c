// SPDX-License-Identifier: Apache-2.0
/*
 * Log lines: one event a line, key=value, to standard error. Only the mains and net's connection edge log
 * above debug; libraries return errors.
 *     log_info("ingest", "fileid=%s units=%zu ms=%u", ...)
 * gives: 2026-11-20T22:01:38.123Z info ingest fileid=.. units=.. ms=..
 * Any thread: a line is one write(2).
 */
#ifndef CAIRN_BASE_LOG_H
#define CAIRN_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/** Lines above this level are dropped. LOG_INFO at start. Call before threads start. */
void log_set_level(enum log_level level);
/** False when @p name is none of error, warn, info, debug. */
bool log_level_parse(const char *name, enum log_level *ret);

void log_line(enum log_level level, const char *event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(event, ...) log_line(LOG_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...) log_line(LOG_WARN, event, __VA_ARGS__)
#define log_info(event, ...) log_line(LOG_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_line(LOG_DEBUG, event, __VA_ARGS__)

/**
 * For events that peers cause: at most @p per_second lines a second, the rest counted; the next line that passes
 * carries suppressed=N. Zero-initialise. Any thread.
 */
struct log_limit {
	_Atomic uint64_t window; /* the second it counts in */
	_Atomic uint32_t seen;
	_Atomic uint32_t suppressed;
};
/** True when the line may be written; @p suppressed_ret then says how many were not since the last one. */
bool log_limit_pass(struct log_limit *limit, uint32_t per_second, uint32_t *suppressed_ret);

#endif

// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 4096 };

static const char *const level_names[] = {
	[LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

/* Set before threads start, so a plain variable would do; atomic, for a level that is changed later is no race. */
static _Atomic int max_level = LOG_INFO;

void log_set_level(enum log_level level)
{
	max_level = (int)level;
}

bool log_level_parse(const char *name, enum log_level *ret)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return true;
		}
	}
	return false;
}

static size_t format_head(char *line, size_t size, enum log_level level, const char *event)
{
	struct timespec now;
	struct tm parts;
	char seconds[32];

	(void)clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	(void)strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &parts);
	int len = snprintf(line, size, "%s.%03ldZ %s %s ", seconds, now.tv_nsec / 1000000, level_names[level], event);
	return len < 0 ? 0 : (size_t)len < size ? (size_t)len : size - 1;
}

void log_line(enum log_level level, const char *event, const char *format, ...)
{
	char line[LOG_LINE_MAX];
	va_list args;

	if ((int)level > max_level)
		return;
	/* One byte less than there is: the newline. */
	size_t room = sizeof(line) - 1;
	size_t len = format_head(line, room, level, event);
	va_start(args, format);
	int more = vsnprintf(line + len, room - len, format, args);
	va_end(args);
	if (more > 0)
		len += (size_t)more < room - len ? (size_t)more : room - len - 1;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	/* Nothing can be done when standard error is closed or full. */
	ssize_t written = write(STDERR_FILENO, line, len);
	(void)written;
}

bool log_limit_pass(struct log_limit *limit, uint32_t per_second, uint32_t *suppressed_ret)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	/* Plus 1, so that the zero that a limit starts with is no second of its own. */
	uint64_t second = (uint64_t)now.tv_sec + 1;
	uint64_t window = limit->window;
	/* The thread that moves the window starts the count; one that races with it may count into either second. */
	if (window != second && atomic_compare_exchange_strong(&limit->window, &window, second))
		limit->seen = 0;
	if (limit->seen++ >= per_second) {
		limit->suppressed++;
		return false;
	}
	*suppressed_ret = atomic_exchange(&limit->suppressed, 0);
	return true;
}

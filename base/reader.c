// SPDX-License-Identifier: Apache-2.0
#include "base/reader.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct err *reader_error(const struct reader *r, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return err_new(ERR_FORMAT, "%s+0x%" PRIx64 ": %s", r->place ? r->place : "input",
		reader_offset(r), text);
}

// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One message is cut here: it is one line for a person or a log, not a document. */
enum { ERR_MESSAGE_MAX = 1024 };

struct err {
	enum err_code code;
	int os_errno;
	char message[];
};

static struct err nomem = {.code = ERR_NOMEM, .message = "out of memory"};

struct err *err_nomem(void)
{
	return &nomem;
}

const char *err_message(const struct err *e)
{
	return e->message;
}

static struct err *err_from_text(enum err_code code, int os_errno, const char *text)
{
	size_t size = strlen(text) + 1;
	struct err *e = malloc(sizeof(*e) + size);

	if (!e)
		return err_nomem();
	e->code = code;
	e->os_errno = os_errno;
	memcpy(e->message, text, size);
	/* A message is one line whatever a hostile file put into a name that it quotes. */
	for (char *c = e->message; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return e;
}

struct err *err_new(enum err_code code, const char *format, ...)
{
	char text[ERR_MESSAGE_MAX];
	va_list args;

	if (code == ERR_NOMEM)
		return err_nomem();
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return err_from_text(code, 0, text);
}

struct err *err_os(int error, const char *format, ...)
{
	char text[ERR_MESSAGE_MAX];
	char reason[128];
	va_list args;

	if (error == ENOMEM)
		return err_nomem();
	va_start(args, format);
	int length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (length >= 0 && (size_t)length < sizeof(text))
		(void)snprintf(text + length, sizeof(text) - (size_t)length, ": %s",
			strerror_r(error, reason, sizeof(reason)));
	return err_from_text(ERR_OS, error, text);
}

struct err *err_wrap(struct err *e, const char *format, ...)
{
	char text[ERR_MESSAGE_MAX];
	va_list args;

	if (!e || e == &nomem)
		return e;
	va_start(args, format);
	int length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (length >= 0 && (size_t)length < sizeof(text))
		(void)snprintf(text + length, sizeof(text) - (size_t)length, ": %s", e->message);
	struct err *wrapped = err_from_text(e->code, e->os_errno, text);
	free(e);
	return wrapped;
}

enum err_code err_code(const struct err *e)
{
	return e->code;
}

int err_errno(const struct err *e)
{
	return e->os_errno;
}

const char *err_code_name(enum err_code code)
{
	static const char *const names[] = {
		[ERR_NOMEM] = "no_memory",
		[ERR_OS] = "os",
		[ERR_INVALID] = "invalid",
		[ERR_FORMAT] = "format",
		[ERR_UNSUPPORTED] = "unsupported",
		[ERR_LIMIT] = "limit",
		[ERR_CORRUPT] = "corrupt",
		[ERR_MISMATCH] = "mismatch",
		[ERR_NOT_FOUND] = "not_found",
		[ERR_BUSY] = "busy",
		[ERR_PEER] = "peer",
		[ERR_INTERNAL] = "internal",
	};
	return (size_t)code < ARRAY_SIZE(names) ? names[code] : "internal";
}

void err_free(struct err *e)
{
	if (e != &nomem)
		free(e);
}

void err_freep(struct err **e)
{
	err_free(*e);
}

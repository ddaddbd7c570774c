// SPDX-License-Identifier: Apache-2.0
/*
 * Errors. A function that can fail returns `struct err *`: NULL is success, anything else is owned by
 * the caller, who frees it or returns it. A code is a reaction (what a caller would do differently);
 * the message is one line in lower case and names the place:
 *     a.debug: .debug_line+0x1f3: file index 9 of 4
 * A miss (nothing there) is not an error.
 */
#ifndef CAIRN_BASE_ERR_H
#define CAIRN_BASE_ERR_H

#include "base/cleanup.h"

enum err_code {
	ERR_NOMEM,	 /* out of memory: a static object, never freed */
	ERR_OS,		 /* a system call failed: err_errno() says how */
	ERR_INVALID,	 /* the caller's request makes no sense: malformed ID, address, flag */
	ERR_FORMAT,	 /* bytes from outside are malformed */
	ERR_UNSUPPORTED, /* well-formed, but of a kind that is not handled */
	ERR_LIMIT,	 /* a named limit was passed */
	ERR_CORRUPT,	 /* our own stored bytes are damaged */
	ERR_MISMATCH,	 /* two things that must belong together do not: build IDs, CRC, checksum */
	ERR_NOT_FOUND,	 /* a thing that was named does not exist */
	ERR_BUSY,	 /* try again later */
	ERR_PEER,	 /* the other end of a connection failed or broke the protocol */
	ERR_INTERNAL,	 /* a library failed in a way that none of the above describes */
};

struct err;

/** A new error. @p format as printf, one line. Never NULL: falls back to the static ERR_NOMEM object. */
struct err *err_new(enum err_code code, const char *format, ...)
	__attribute__((format(printf, 2, 3), returns_nonnull)) MUST_USE;

/** ERR_OS from an errno value: "<formatted>: <strerror>". */
struct err *err_os(int error, const char *format, ...) __attribute__((format(printf, 2, 3), returns_nonnull)) MUST_USE;

/** The static out-of-memory error. */
struct err *err_nomem(void) __attribute__((returns_nonnull)) MUST_USE;

/** Puts context before the message: "<formatted>: <old message>". Consumes @p e, NULL stays NULL. */
struct err *err_wrap(struct err *e, const char *format, ...)
	__attribute__((format(printf, 2, 3))) MUST_USE;

/** Borrowed from @p e, one line, no newline. */
const char *err_message(const struct err *e);
enum err_code err_code(const struct err *e);
/** The errno of an ERR_OS, else 0. */
int err_errno(const struct err *e);
/** A short stable word for a code, for metrics and JSON: "format", "limit", .. */
const char *err_code_name(enum err_code code);

/** NULL is fine. */
void err_free(struct err *e);
/** For CLEANUP. */
void err_freep(struct err **e);

#define TRY(call)                                                                                  \
	do {                                                                                       \
		struct err *try_err_ = (call);                                                     \
		if (try_err_)                                                                      \
			return try_err_;                                                           \
	} while (0)

#endif

// SPDX-License-Identifier: Apache-2.0
/* Signatures, checked by gpgv, which has a keyring and nothing else. */
#ifndef CAIRN_SOURCES_GPGV_H
#define CAIRN_SOURCES_GPGV_H

#include "base/buf.h"

#include <stdbool.h>

/**
 * The signed text of a clear-signed file (InRelease).
 * @param fd       the file, from offset 0
 * @param keyring  a path; NULL or "": the machine's (/etc/apt/trusted.gpg.d, Debian's archive keyring)
 * @param ret      what was signed, and nothing that stood around it
 * @return NULL; ERR_MISMATCH: no good signature of a key in the keyring, or a bad one beside it; ERR_OS: gpgv cannot be run (is the
 *         package gpgv installed?); ERR_LIMIT; ERR_NOMEM. Blocks for some 10 ms.
 */
struct err *gpgv_open(int fd, const char *keyring, struct buf *ret) MUST_USE;
/** What the lines of --status-fd mean: true when there is a good and valid signature and no bad one. For tests. */
bool gpgv_judge(const char *status);

#endif

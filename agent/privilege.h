// SPDX-License-Identifier: Apache-2.0
/* What this process may do, and what this kernel can: each thing that is missing has its own sentence. */
#ifndef CAIRN_AGENT_PRIVILEGE_H
#define CAIRN_AGENT_PRIVILEGE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/** The effective capabilities of this process, by /proc/self/status; 0 when it cannot be read. */
uint64_t privilege_effective(void);
enum { PRIVILEGE_LACKS_MAX = 3 };
/** What is done less well without one of the wished capabilities, a sentence; NULL: nothing is, of number @p i. @p is_root: user 0. */
const char *privilege_lack(uint64_t capabilities, bool is_root, unsigned i);
/** NULL when @p capabilities suffice for sampling the whole system; else ERR_OS-like ERR_UNSUPPORTED that names all that are missing. */
struct err *privilege_check(uint64_t capabilities) MUST_USE;

#endif

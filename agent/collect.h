// SPDX-License-Identifier: Apache-2.0
/*
 * Samples of one window as a profile: native frames by executable and ELF address (symbols are the server's work), kernel
 * frames by name. At the root stands the thread's name. One thread.
 */
#ifndef CAIRN_AGENT_COLLECT_H
#define CAIRN_AGENT_COLLECT_H

#include "agent/place.h"
#include "base/buf.h"

struct collect;
/** For samples of @p kind. @p tables and @p kernel are borrowed until collect_destroy. */
struct err *collect_create(const struct tables *tables, const struct kernel *kernel, uint32_t hz, enum sample_kind kind, struct collect **ret) MUST_USE;
void collect_destroy(struct collect *collect);
/** ERR_NOMEM. */
struct err *collect_add(struct collect *collect, const struct sample_head *head, const uint64_t *frames) MUST_USE;
/** Appends the window [@p from_unix_nano, @p to_unix_nano) as pprof. */
struct err *collect_write_pprof(struct collect *collect, uint64_t from_unix_nano, uint64_t to_unix_nano, struct buf *ret) MUST_USE;

#endif

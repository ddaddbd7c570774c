// SPDX-License-Identifier: Apache-2.0
/* What this process takes. */
#ifndef CAIRN_AGENT_SELF_H
#define CAIRN_AGENT_SELF_H

#include <stdint.h>

/** CPU time since the start, and resident memory (files and mapped BPF maps included); 0 for what cannot be read. */
void self_usage(uint64_t *user_ns_ret, uint64_t *system_ns_ret, uint64_t *resident_bytes_ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/* google.rpc.RetryInfo: when a call may be tried again, in the metadata that a status comes with. Internal to net. */
#ifndef CAIRN_NET_GRPC_RETRY_H
#define CAIRN_NET_GRPC_RETRY_H

#include "net/grpc.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRPC_RETRY_HEADER "grpc-status-details-bin"
enum { GRPC_RETRY_TEXT_MAX = 192, GRPC_RETRY_DETAILS_MAX = 4096 /* bytes of a header that are looked at */ };

/** The value of GRPC_RETRY_HEADER that asks for a pause of @p retry_ms. */
void grpc_retry_format(enum net_grpc_status status, uint32_t retry_ms, char text[GRPC_RETRY_TEXT_MAX]);
/** The pause that a peer's value of GRPC_RETRY_HEADER asks for; false when it asks for none, or is malformed. */
bool grpc_retry_parse(const uint8_t *value, size_t len, uint64_t *retry_ms_ret);

#endif

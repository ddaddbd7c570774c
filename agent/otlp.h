// SPDX-License-Identifier: Apache-2.0
/*
 * Samples of one window as an OTLP ExportProfilesServiceRequest (proto 1.10 and 1.11), and its way to a collector. One thread.
 */
#ifndef CAIRN_AGENT_OTLP_H
#define CAIRN_AGENT_OTLP_H

#include "agent/place.h"
#include "agent/processes.h"
#include "net/grpc_client.h"

enum { OTLP_SAMPLES_MAX = 1 << 18 }; /* different ones in a window; more are dropped and counted */

struct otlp;
/** @p tables and @p kernel are borrowed until otlp_destroy. */
struct err *otlp_create(const struct tables *tables, const struct kernel *kernel, uint32_t hz, struct otlp **ret) MUST_USE;
void otlp_destroy(struct otlp *otlp);
/** ERR_NOMEM; ERR_LIMIT: a table is full. */
struct err *otlp_add(struct otlp *otlp, const struct sample_head *head, const uint64_t *frames, const struct process_info *process) MUST_USE;
uint64_t otlp_dropped(const struct otlp *otlp);
/** Appends the request for the window [@p from_unix_nano, + @p duration_ns). No sample may be added afterwards. */
struct err *otlp_encode(struct otlp *otlp, uint64_t from_unix_nano, uint64_t duration_ns, struct buf *ret) MUST_USE;

/** Sends one request and waits at most 10 s for the answer. ERR_PEER: not there, or it refused, with its words. */
struct err *otlp_export(const char *collector, const struct net_grpc_client_options *options, const struct buf *request) MUST_USE;

#endif

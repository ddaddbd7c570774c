// SPDX-License-Identifier: Apache-2.0
/* Samples of one window as an OTLP ExportProfilesServiceRequest (proto 1.10 and 1.11). One thread. */
#ifndef CAIRN_AGENT_OTLP_H
#define CAIRN_AGENT_OTLP_H

#include "agent/place.h"
#include "agent/processes.h"
#include "base/buf.h"
#include "proto/agent.h"

enum { OTLP_BYTES_MAX = 3 << 20 }; /* about; then a window is full: most collectors take no message of more than 4 MiB */

struct otlp;
struct otlp_options {
	const struct tables *tables;
	const struct kernel *kernel;
	uint32_t hz;
	const struct agent_label *labels; /* on every resource */
	size_t label_count;
};

/** Everything in @p options is borrowed until otlp_destroy. ERR_NOMEM; ERR_OS: no random numbers. */
struct err *otlp_create(const struct otlp_options *options, struct otlp **ret) MUST_USE;
void otlp_destroy(struct otlp *otlp);
/** ERR_NOMEM; ERR_LIMIT: a table is full. */
struct err *otlp_add(struct otlp *otlp, const struct sample_head *head, const uint64_t *frames, const struct process_info *process) MUST_USE;
/** Samples that were added. */
uint64_t otlp_samples(const struct otlp *otlp);
/** It is time for another request, though the window is not over. */
bool otlp_is_full(const struct otlp *otlp);
/** Appends the request for the window [@p from_unix_nano, + @p duration_ns). No sample may be added afterwards. ERR_NOMEM, ERR_LIMIT. */
struct err *otlp_encode(struct otlp *otlp, uint64_t from_unix_nano, uint64_t duration_ns, struct buf *ret) MUST_USE;

#endif

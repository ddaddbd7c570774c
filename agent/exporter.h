// SPDX-License-Identifier: Apache-2.0
/*
 * OTLP requests to a collector (ProfilesService/Export), as the reporter is for our own stream: kept, in memory or in the spool, until the
 * collector has taken them; the oldest give way. Nothing here waits, but exporter_finish. One thread.
 */
#ifndef CAIRN_AGENT_EXPORTER_H
#define CAIRN_AGENT_EXPORTER_H

#include "agent/reporter.h"

enum { EXPORTER_ANSWER_MS = 10000 }; /* it neither reads nor answers: the connection is given up, and the request sent again */

struct exporter_options {
	const char *collector;
	const char *spool; /* folder, or NULL; requests are in its folder `otlp`, beside reports of the stream */
	uint64_t spool_bytes, queue_bytes;
	struct net_grpc_client_options client;
};

struct exporter;
/** Everything in @p options is borrowed until exporter_destroy. ERR_OS, ERR_BUSY: the spool; ERR_NOMEM. */
struct err *exporter_create(const struct exporter_options *options, struct exporter **ret) MUST_USE;
void exporter_destroy(struct exporter *exporter);

/** Takes the bytes of @p take_request, which is empty afterwards. @p samples: how many stand in it, for counters. ERR_NOMEM. */
struct err *exporter_push(struct exporter *exporter, struct buf *take_request, uint64_t samples, uint64_t now_ms) MUST_USE;
/** Connects, sends, takes answers, spools: as far as it goes without waiting. Failures of the collector are counted, not returned. */
struct err *exporter_turn(struct exporter *exporter, uint64_t now_ms) MUST_USE;
/**
 * The end: sends what there is and waits at most @p timeout_ms for the answers; the rest goes to the spool.
 * @return NULL; ERR_PEER: samples are lost since exporter_finish began, or were refused, with the last failure's words
 */
struct err *exporter_finish(struct exporter *exporter, uint64_t timeout_ms) MUST_USE;
/** reports: requests made; acknowledged_reports: those that the collector took. */
void exporter_counters(const struct exporter *exporter, struct reporter_counters *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * Samples to a server by cairn.v1.Agent/Stream (docs/agent-protocol.md), and into a record. Samples are gathered into reports; a report is
 * kept, in memory or in the spool, until the server has acknowledged it, through broken connections and restarts of the server. Nothing
 * here waits, but reporter_finish. One thread.
 */
#ifndef CAIRN_AGENT_REPORTER_H
#define CAIRN_AGENT_REPORTER_H

#include "agent/spool.h"
#include "agent/things.h"
#include "net/grpc_client.h"

enum {
	REPORTER_LABELS_MAX = 16,
	REPORTER_IN_FLIGHT_MAX = 64, /* reports that are sent and not acknowledged */
	REPORTER_FAILURES_MAX = 5,   /* times that the server ends the stream for it, or refuses it; then a report is dropped */
	REPORTER_SPOOL_AFTER_MS = 5000, /* without a connection: what waits goes to the disk */
	REPORTER_SAMPLES_MAX = 32768,	/* of one report */
};

struct reporter_options {
	const char *collector; /* NULL: only the record */
	const char *record;    /* file, or NULL */
	const char *spool;     /* folder, or NULL */
	uint64_t spool_bytes, queue_bytes;
	struct net_grpc_client_options client;
	uint32_t cpus;
	uint64_t period_ns; /* of CPU samples */
	struct agent_label labels[REPORTER_LABELS_MAX];
	size_t label_count;
	/* Symbols that the server would like; may be NULL. Borrowed. */
	void (*want_symbols)(void *context, const struct server_want *want);
	void *context;
};

struct reporter_counters {
	uint64_t samples, reports;			/* made */
	uint64_t acknowledged_reports;
	uint64_t dropped_queue, dropped_spool, refused; /* samples lost: no room in memory, none on disk; the server did not want them */
	uint64_t connects, failures;			/* connections made; attempts and connections that failed */
	uint64_t rejected_future, rejected_old;		/* samples, by the server's clock */
	uint64_t retries, rejected_profiles;		/* of OTLP: requests sent again; what partial_success says */
	uint64_t queue_bytes, spool_bytes, damaged;
	bool is_connected;
	const char *last_failure; /* of the connection; "" */
};

struct reporter;
/** Everything in @p options is borrowed until reporter_destroy. ERR_OS, ERR_BUSY: the spool or the record; ERR_NOMEM. */
struct err *reporter_create(const struct reporter_options *options, struct reporter **ret) MUST_USE;
void reporter_destroy(struct reporter *reporter);

/** One sample of kind @p kind (agent/shared.h), whose thread and trace are things of @p things. ERR_NOMEM. */
struct err *reporter_add(struct reporter *reporter, struct things *things, uint32_t kind, const struct agent_sample *sample) MUST_USE;
/** What was added becomes reports. ERR_NOMEM; ERR_OS: the record cannot be written. */
struct err *reporter_flush(struct reporter *reporter, uint64_t now_ms) MUST_USE;
/** Connects, sends, receives, spools: as far as it goes without waiting. Failures of the server are counted, not returned. */
struct err *reporter_turn(struct reporter *reporter, uint64_t now_ms) MUST_USE;
/** The agent's own state, for the server to show. */
struct err *reporter_status(struct reporter *reporter, const struct agent_status *status, const struct agent_loss *losses, size_t count) MUST_USE;
/**
 * The end: sends what there is and waits at most @p timeout_ms for its acknowledgement; the rest goes to the spool.
 * @return NULL; ERR_PEER: samples are lost, with the last failure's words
 */
struct err *reporter_finish(struct reporter *reporter, uint64_t timeout_ms) MUST_USE;
void reporter_counters(const struct reporter *reporter, struct reporter_counters *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The load generator: what its protocols share. A sender keeps every report until the server has acknowledged it, connects
 * again for as long as its patience lasts, and sends again what was not acknowledged.
 */
#ifndef CAIRN_BENCH_LOAD_H
#define CAIRN_BENCH_LOAD_H

#include "base/buf.h"
#include "bench/workload.h"
#include "net/grpc_client.h"

enum { LOAD_WINDOW = 64 }; /* reports that are not acknowledged */

struct load_options {
	const char *address;  /* NULL: none, with record */
	const char *protocol; /* "stream", "otlp" */
	const char *record, *replay;
	uint64_t samples, rate; /* rate: samples a second; 0: as fast as may be */
	uint64_t report_ms, patience_s;
	int gzip_level;
	bool keep_times; /* replay: as recorded, instance and times too */
	struct workload_options workload;
};

struct load_totals {
	uint64_t samples, acknowledged, rejected_future, rejected_old, duplicates; /* duplicates: reports */
	uint64_t reports, reports_acknowledged, resent, connects, needs, paces, wants, failures;
	uint64_t wire_sent, wire_received;
};

/* Samples that are to be acknowledged together. */
struct load_report {
	uint64_t sequence;
	struct workload_sample *samples; /* owned */
	size_t count;
	bool sent;
};

/* Reports that are not acknowledged, oldest first. */
struct load_queue {
	struct workload *workload;
	const struct load_options *options;
	struct load_report items[LOAD_WINDOW];
	uint32_t count;
	uint64_t made, next_sequence; /* samples; sequence */
	uint64_t start_ns;
	struct load_totals *totals;
};

uint64_t load_now_ns(void);
/** Makes reports until the window is full, the rate is reached or all are made. */
struct err *load_queue_fill(struct load_queue *queue) MUST_USE;
/** True when all samples are made and acknowledged. */
bool load_queue_is_done(const struct load_queue *queue);
/** The report of a sequence is acknowledged; false when there is none. */
bool load_queue_acknowledge(struct load_queue *queue, uint64_t sequence);
void load_queue_deinit(struct load_queue *queue);
/** Connects, again and again until options->patience_s have passed. */
struct err *load_connect(const struct load_options *options, struct load_totals *totals, struct net_grpc_client **ret) MUST_USE;
/** Adds the connection's bytes to the totals and closes it. */
void load_disconnect(struct load_totals *totals, struct net_grpc_client **client);

struct err *load_stream(const struct load_options *options, struct load_queue *queue) MUST_USE;
struct err *load_otlp(const struct load_options *options, struct load_queue *queue) MUST_USE;
/** Appends the ExportProfilesServiceRequest of a report; its samples are sorted. */
struct err *load_otlp_encode(const struct workload *workload, struct load_report *report, struct buf *ret) MUST_USE;
struct err *load_replay(const struct load_options *options, struct load_totals *totals) MUST_USE;

#endif

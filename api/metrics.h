// SPDX-License-Identifier: Apache-2.0
/*
 * What the API counts itself, and the page that shows it beside what net, store and ingest count. Counters are relaxed
 * atomics: each is exact, a page is not of one moment.
 */
#ifndef CAIRN_API_METRICS_H
#define CAIRN_API_METRICS_H

#include "api/symbolize.h"
#include "base/buf.h"
#include "profiles/otlp.h"

#include <stdatomic.h>

/* Paths as labels: fixed words, never what a peer sent. */
enum api_path {
	API_PATH_SYMBOLIZE,
	API_PATH_FILES,
	API_PATH_FILE,
	API_PATH_UPLOADS,
	API_PATH_UPLOAD,
	API_PATH_UPLOAD_CHUNK,
	API_PATH_UPLOAD_FINISH,
	API_PATH_JOB,
	API_PATH_AGENTS,
	API_PATH_SYNC,
	API_PATH_HEALTHZ,
	API_PATH_READYZ,
	API_PATH_METRICS,
	API_PATH_SYMBOLIZE_GRPC, /* its statuses: those that HTTP would have given */
	API_PATH_OTLP,
	API_PATH_OTLP_GRPC,
	API_PATH_PROFILES,
	API_PATH_COUNT,
};
/** "/v1/symbolize", "/v1/files/{id}", .. */
const char *api_path_name(enum api_path path);

enum { API_STATUS_SLOTS = 24, API_LATENCY_BUCKETS = 16 };

struct api_histogram {
	_Atomic uint64_t buckets[API_LATENCY_BUCKETS + 1]; /* the last one: more than all bounds */
	_Atomic uint64_t sum_ns;
};

struct api_metrics {
	_Atomic uint64_t requests[API_PATH_COUNT][API_STATUS_SLOTS];
	struct api_histogram latency[API_PATH_COUNT];
	_Atomic uint64_t results[API_RESULT_COUNT];
	_Atomic uint64_t modules[API_MODULE_FAILED + 1];
	_Atomic uint64_t addresses_without_module;
	_Atomic uint64_t frames;
	_Atomic uint64_t upload_bytes; /* acknowledged */
	_Atomic uint64_t uploads_finished, uploads_skipped;
	_Atomic uint64_t waits; /* answers that were held for something pending */
	_Atomic uint64_t refused_busy; /* the worker queue was full */
	_Atomic uint64_t otlp_bytes; /* of messages that were read */
	_Atomic uint64_t otlp_layouts[OTLP_LAYOUTS];
	_Atomic uint64_t otlp_rejected_profiles, otlp_rejected_requests;
};

/** Counts one answer. @p status 0: the peer went away or net answered for us. Any thread. */
void api_metrics_request(struct api_metrics *metrics, enum api_path path, unsigned status, uint64_t ns);
void api_metrics_symbolize(struct api_metrics *metrics, const struct api_symbolize_counts *counts);

/* A page in the Prometheus text format 0.0.4. */
struct metrics_page {
	struct buf *out;
	struct err *failed; /* the first failure; nothing is written after it */
};
/** The HELP and TYPE lines of a metric. @p type "counter", "gauge", "histogram". */
void metrics_head(struct metrics_page *page, const char *name, const char *type, const char *help);
/** One sample: name{labels} value; @p labels is "" or `a="b"`, of words of ours that need no escaping. */
void metrics_u64(struct metrics_page *page, const char *name, const char *labels, uint64_t value);
/** The same in seconds. */
void metrics_seconds(struct metrics_page *page, const char *name, const char *labels, uint64_t ns);
/** Head and one sample without labels. */
void metrics_one(struct metrics_page *page, const char *name, const char *type, const char *help, uint64_t value);
/** What struct api_metrics holds. */
void api_metrics_write(const struct api_metrics *metrics, struct metrics_page *page);
/** The process: resident bytes, CPU seconds, start, version. */
void metrics_process_write(struct metrics_page *page);

#endif

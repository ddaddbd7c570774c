// SPDX-License-Identifier: Apache-2.0
#include "api/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Statuses that we answer with; 0 stands for answers that never reached the peer, or that net gave. */
static const unsigned statuses[] = {0, 200, 201, 202, 400, 404, 405, 409, 411, 413, 415, 422, 500, 503, 507};
_Static_assert(ARRAY_SIZE(statuses) < API_STATUS_SLOTS, "one more for other statuses");

/* Upper bounds in nanoseconds: 100 us to 60 s. */
static const uint64_t bounds_ns[API_LATENCY_BUCKETS] = {100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000,
	50000000, 100000000, 250000000, 500000000, 1000000000, 5000000000, 15000000000, 60000000000};

static const char *const path_names[API_PATH_COUNT] = {
	[API_PATH_SYMBOLIZE] = "/v1/symbolize",
	[API_PATH_FILES] = "/v1/files",
	[API_PATH_FILE] = "/v1/files/{id}",
	[API_PATH_UPLOADS] = "/v1/uploads",
	[API_PATH_UPLOAD] = "/v1/uploads/{id}",
	[API_PATH_UPLOAD_CHUNK] = "/v1/uploads/{id} PUT",
	[API_PATH_UPLOAD_FINISH] = "/v1/uploads/{id}/finish",
	[API_PATH_JOB] = "/v1/jobs/{id}",
	[API_PATH_AGENTS] = "/v1/agents",
	[API_PATH_SYNC] = "/v1/sync",
	[API_PATH_HEALTHZ] = "/healthz",
	[API_PATH_READYZ] = "/readyz",
	[API_PATH_METRICS] = "/metrics",
	[API_PATH_OTLP] = "/v1development/profiles",
	[API_PATH_OTLP_GRPC] = "ProfilesService/Export",
	[API_PATH_PROFILES] = "/v1/profiles",
	[API_PATH_SYMBOLIZE_GRPC] = "/cairn.v1.Symbolizer/Symbolize",
};

const char *api_path_name(enum api_path path)
{
	return path_names[path];
}

/* Relaxed everywhere: nobody orders anything by a counter. */
static void add(_Atomic uint64_t *counter, uint64_t value)
{
	atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void api_metrics_request(struct api_metrics *metrics, enum api_path path, unsigned status, uint64_t ns)
{
	size_t slot = 0, bucket = 0;

	while (slot < ARRAY_SIZE(statuses) && statuses[slot] != status)
		slot++;
	while (bucket < API_LATENCY_BUCKETS && ns > bounds_ns[bucket])
		bucket++;
	add(&metrics->requests[path][slot], 1);
	add(&metrics->latency[path].buckets[bucket], 1);
	add(&metrics->latency[path].sum_ns, ns);
}

void api_metrics_symbolize(struct api_metrics *metrics, const struct api_symbolize_counts *counts)
{
	for (size_t i = 0; i < API_RESULT_COUNT; i++)
		add(&metrics->results[i], counts->results[i]);
	for (size_t i = 0; i <= API_MODULE_FAILED; i++)
		add(&metrics->modules[i], counts->modules[i]);
	add(&metrics->addresses_without_module, counts->addresses_without_module);
	add(&metrics->frames, counts->frames);
}

static void print(struct metrics_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void print(struct metrics_page *page, const char *format, ...)
{
	char line[512];
	va_list args;

	if (page->failed)
		return;
	va_start(args, format);
	int len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= sizeof(line))
		page->failed = err_new(ERR_INTERNAL, "a metric does not fit its line");
	else
		page->failed = buf_append(page->out, line, (size_t)len);
}

void metrics_head(struct metrics_page *page, const char *name, const char *type, const char *help)
{
	print(page, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_u64(struct metrics_page *page, const char *name, const char *labels, uint64_t value)
{
	if (labels[0])
		print(page, "%s{%s} %" PRIu64 "\n", name, labels, value);
	else
		print(page, "%s %" PRIu64 "\n", name, value);
}

void metrics_seconds(struct metrics_page *page, const char *name, const char *labels, uint64_t ns)
{
	const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";

	print(page, "%s%s%s%s %" PRIu64 ".%09" PRIu64 "\n", name, open, labels, close, ns / 1000000000, ns % 1000000000);
}

void metrics_one(struct metrics_page *page, const char *name, const char *type, const char *help, uint64_t value)
{
	metrics_head(page, name, type, help);
	metrics_u64(page, name, "", value);
}

static void write_requests(const struct api_metrics *metrics, struct metrics_page *page)
{
	const char *name = "cairn_http_requests_total";

	metrics_head(page, name, "counter", "Requests by path and status; aborted: no answer of ours reached the peer.");
	for (size_t path = 0; path < API_PATH_COUNT; path++) {
		for (size_t i = 0; i <= ARRAY_SIZE(statuses); i++) {
			uint64_t value = get(&metrics->requests[path][i]);
			char labels[128], status[16];
			if (!value)
				continue;
			(void)snprintf(status, sizeof(status), "%u", i < ARRAY_SIZE(statuses) ? statuses[i] : 0);
			(void)snprintf(labels, sizeof(labels), "path=\"%s\",status=\"%s\"", path_names[path],
				i == 0 ? "aborted" : i == ARRAY_SIZE(statuses) ? "other" : status);
			metrics_u64(page, name, labels, value);
		}
	}
}

static void write_histogram(const struct api_histogram *histogram, const char *path, struct metrics_page *page)
{
	const char *name = "cairn_http_request_seconds";
	uint64_t total = 0;
	char labels[128];

	for (size_t i = 0; i <= API_LATENCY_BUCKETS; i++)
		total += get(&histogram->buckets[i]);
	if (!total)
		return;
	uint64_t count = 0;
	for (size_t i = 0; i < API_LATENCY_BUCKETS; i++) {
		count += get(&histogram->buckets[i]);
		print(page, "%s_bucket{path=\"%s\",le=\"%g\"} %" PRIu64 "\n", name, path, (double)bounds_ns[i] / 1e9, count);
	}
	count += get(&histogram->buckets[API_LATENCY_BUCKETS]);
	print(page, "%s_bucket{path=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, path, count);
	(void)snprintf(labels, sizeof(labels), "path=\"%s\"", path);
	metrics_seconds(page, "cairn_http_request_seconds_sum", labels, get(&histogram->sum_ns));
	metrics_u64(page, "cairn_http_request_seconds_count", labels, count);
}

static void write_symbolize(const struct api_metrics *metrics, struct metrics_page *page)
{
	char labels[64];

	metrics_head(page, "cairn_symbolize_addresses_total", "counter", "Addresses asked for, by outcome.");
	for (size_t i = 0; i < API_RESULT_COUNT; i++) {
		(void)snprintf(labels, sizeof(labels), "outcome=\"%s\"", api_result_status_name((enum api_result_status)i));
		metrics_u64(page, "cairn_symbolize_addresses_total", labels, get(&metrics->results[i]));
	}
	metrics_u64(page, "cairn_symbolize_addresses_total", "outcome=\"no_module\"", get(&metrics->addresses_without_module));
	metrics_head(page, "cairn_symbolize_modules_total", "counter", "Modules of requests, by status.");
	for (size_t i = API_MODULE_OK; i <= API_MODULE_FAILED; i++) {
		(void)snprintf(labels, sizeof(labels), "status=\"%s\"", api_module_status_name((enum api_module_status)i));
		metrics_u64(page, "cairn_symbolize_modules_total", labels, get(&metrics->modules[i]));
	}
	metrics_one(page, "cairn_symbolize_frames_total", "counter", "Frames answered.", get(&metrics->frames));
	metrics_one(page, "cairn_symbolize_waits_total", "counter", "Answers held while something was pending.",
		get(&metrics->waits));
}

static void write_otlp(const struct api_metrics *metrics, struct metrics_page *page)
{
	static const char *const layouts[OTLP_LAYOUTS] = {
		[OTLP_1_7] = "layout=\"1.7\"", [OTLP_1_8] = "layout=\"1.8\"", [OTLP_1_9] = "layout=\"1.9\"", [OTLP_1_10] = "layout=\"1.10\""};

	metrics_head(page, "cairn_otlp_requests_total", "counter", "Profiles requests read, by the proto version of their layout.");
	for (size_t i = 0; i < OTLP_LAYOUTS; i++)
		metrics_u64(page, "cairn_otlp_requests_total", layouts[i], get(&metrics->otlp_layouts[i]));
	metrics_one(page, "cairn_otlp_bytes_total", "counter", "Their bytes, decompressed.", get(&metrics->otlp_bytes));
	metrics_one(page, "cairn_otlp_rejected_requests_total", "counter", "Profiles requests that could not be read.",
		get(&metrics->otlp_rejected_requests));
	metrics_one(page, "cairn_otlp_rejected_profiles_total", "counter", "Profiles left out for a fault in them.",
		get(&metrics->otlp_rejected_profiles));
}

void api_metrics_write(const struct api_metrics *metrics, struct metrics_page *page)
{
	write_requests(metrics, page);
	metrics_head(page, "cairn_http_request_seconds", "histogram", "From the head of a request to its answer.");
	for (size_t i = 0; i < API_PATH_COUNT; i++)
		write_histogram(&metrics->latency[i], path_names[i], page);
	write_symbolize(metrics, page);
	metrics_one(page, "cairn_upload_bytes_total", "counter", "Bytes of uploads acknowledged.", get(&metrics->upload_bytes));
	metrics_one(page, "cairn_uploads_finished_total", "counter", "Uploads whose checksum was right.",
		get(&metrics->uploads_finished));
	metrics_one(page, "cairn_uploads_skipped_total", "counter", "Uploads answered \"exists\" before bytes were sent.",
		get(&metrics->uploads_skipped));
	metrics_one(page, "cairn_http_refused_busy_total", "counter", "Requests refused since the worker queue was full.",
		get(&metrics->refused_busy));
	write_otlp(metrics, page);
}

static uint64_t resident_bytes(void)
{
	unsigned long long total, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file)
		return 0;
	if (fscanf(file, "%llu %llu", &total, &resident) != 2)
		resident = 0;
	(void)fclose(file);
	return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

void metrics_process_write(struct metrics_page *page)
{
	struct rusage usage = {0};

	(void)getrusage(RUSAGE_SELF, &usage);
	metrics_one(page, "process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
	metrics_one(page, "cairn_peak_resident_memory_bytes", "gauge", "The most it ever was.",
		(uint64_t)usage.ru_maxrss * 1024);
	metrics_head(page, "process_cpu_seconds_total", "counter", "CPU time, user and system.");
	metrics_seconds(page, "process_cpu_seconds_total", "",
		(uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
			(uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000);
	metrics_head(page, "cairn_build_info", "gauge", "Constant 1; the version is a label.");
	metrics_u64(page, "cairn_build_info", "version=\"" CAIRN_VERSION "\"", 1);
}

// SPDX-License-Identifier: Apache-2.0
/* /healthz, /readyz, /metrics. */
#include "api/call.h"

#include "ingest/ingest.h"
#include "profiles/samples.h"
#include "sources/sources.h"
#include "store/job.h"

#include <stdio.h>

static void reply_word(struct api *api, struct net_request *request, enum api_path path, const char *word)
{
	struct net_reply reply = {.status = 200, .content_type = "text/plain"};
	struct err *e = buf_append(&reply.body, word, strlen(word));

	if (e) {
		err_free(e);
		call_refuse(api, request, path, 503, "busy", "out of memory");
		return;
	}
	api_metrics_request(&api->metrics, path, 200, net_request_age_ns(request));
	net_request_reply(request, &reply);
}

void healthz_on_head(struct net_request *request, void *user)
{
	reply_word(user, request, API_PATH_HEALTHZ, "ok\n");
}

static struct err *ready(struct call *call, struct net_reply *reply)
{
	struct api *api = call->api;

	if (atomic_load_explicit(&api->draining, memory_order_relaxed))
		return err_new(ERR_BUSY, "stopping");
	struct err *e = store_health(api->options.store);
	if (e) {
		net_reply_error(reply, 503, "busy", "the store takes no writes: %s", err_message(e));
		err_free(e);
		return NULL;
	}
	e = api->options.samples ? samples_health(api->options.samples) : NULL;
	if (e) {
		net_reply_error(reply, 503, "busy", "the store of profiles takes no writes: %s", err_message(e));
		err_free(e);
		return NULL;
	}
	reply->status = 200;
	reply->content_type = "text/plain";
	return buf_append(&reply->body, "ready\n", 6);
}

void readyz_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_READYZ, api->questions, ready, 0);
}

/* -------------------------------------------------------------------------------------- /metrics */

static void write_store(struct metrics_page *page, const struct store_stat *stat)
{
	const struct store_counts *counts = &stat->counts;
	char labels[64];

	metrics_one(page, "cairn_store_file_bytes", "gauge", "Size of the data file.", stat->file_bytes);
	metrics_one(page, "cairn_store_used_bytes", "gauge", "Pages in use.", stat->used_bytes);
	metrics_one(page, "cairn_store_free_bytes", "gauge", "Pages on the free list.", stat->free_bytes);
	metrics_one(page, "cairn_store_table_bytes", "gauge", "Live tables.", counts->table_bytes);
	metrics_one(page, "cairn_store_tables", "gauge", "Tables.", counts->tables);
	metrics_one(page, "cairn_store_files", "gauge", "File records.", counts->files);
	metrics_one(page, "cairn_store_misses", "gauge", "IDs asked for and not known.", counts->misses);
	metrics_one(page, "cairn_store_uploads_open", "gauge", "Upload sessions.", counts->uploads);
	metrics_one(page, "cairn_store_blob_bytes", "gauge", "Kept originals, compressed.", counts->blob_bytes);
	metrics_one(page, "cairn_store_commits_total", "counter", "Transactions committed.", stat->commits);
	metrics_one(page, "cairn_store_commit_failures_total", "counter", "Transactions that failed.", stat->commit_failures);
	metrics_head(page, "cairn_jobs", "gauge", "Jobs by state.");
	for (int state = STORE_JOB_QUEUED; state <= STORE_JOB_DONE; state++) {
		(void)snprintf(labels, sizeof(labels), "state=\"%s\"", store_job_state_name((enum store_job_state)state));
		metrics_u64(page, "cairn_jobs", labels, stat->jobs_by_state[state]);
	}
}

static void write_ingest(struct metrics_page *page, const struct ingest *ingest)
{
	struct ingest_stats stats;
	char labels[64];

	ingest_stats(ingest, &stats);
	metrics_one(page, "cairn_ingest_workers", "gauge", "Workers that may run at once.", stats.workers);
	metrics_one(page, "cairn_ingest_running", "gauge", "Workers that run now.", stats.running);
	metrics_one(page, "cairn_ingest_jobs_done_total", "counter", "Jobs done.", stats.jobs_done);
	metrics_one(page, "cairn_ingest_jobs_failed_total", "counter", "Jobs failed.", stats.jobs_failed);
	metrics_one(page, "cairn_ingest_jobs_retried_total", "counter", "Jobs queued again.", stats.jobs_retried);
	metrics_one(page, "cairn_ingest_tables_total", "counter", "Tables committed.", stats.tables);
	metrics_one(page, "cairn_ingest_table_bytes_total", "counter", "Their bytes.", stats.table_bytes);
	metrics_one(page, "cairn_ingest_refused_total", "counter", "Results of workers that did not pass our checks.", stats.refused);
	metrics_head(page, "cairn_ingest_seconds_total", "counter", "Time of workers.");
	metrics_seconds(page, "cairn_ingest_seconds_total", "clock=\"wall\"", stats.worker_wall_ms * 1000000);
	metrics_seconds(page, "cairn_ingest_seconds_total", "clock=\"cpu\"", stats.worker_cpu_ms * 1000000);
	metrics_one(page, "cairn_ingest_worker_peak_bytes", "gauge", "The largest worker so far.", stats.worker_peak_rss_bytes);
	metrics_head(page, "cairn_ingest_runs_total", "counter", "Runs of workers, by how they ended.");
	for (int outcome = 0; outcome < SPAWN_OUTCOMES; outcome++) {
		(void)snprintf(labels, sizeof(labels), "outcome=\"%s\"", spawn_outcome_name((enum spawn_outcome)outcome));
		metrics_u64(page, "cairn_ingest_runs_total", labels, stats.runs[outcome]);
	}
}

static void write_net(struct metrics_page *page, const struct net_server *server)
{
	struct net_server_stats stats;

	net_server_stats(server, &stats);
	const struct {
		const char *name, *type, *help;
		uint64_t value;
	} rows[] = {
		{"cairn_net_connections_open", "gauge", "Connections.", stats.connections_open},
		{"cairn_net_requests_open", "gauge", "Requests not answered yet.", stats.requests_open},
		{"cairn_net_buffered_bytes", "gauge", "Request and answer bytes in memory.", stats.buffered_bytes},
		{"cairn_net_connections_total", "counter", "Connections accepted.", stats.connections_accepted},
		{"cairn_net_connections_refused_total", "counter", "Connections past a limit.",
			stats.connections_refused_total + stats.connections_refused_per_peer},
		{"cairn_net_accept_errors_total", "counter", "Connections that could not be accepted.", stats.accept_errors},
		{"cairn_net_requests_total", "counter", "Requests.", stats.requests},
		{"cairn_net_requests_aborted_total", "counter", "Peers that left before their answer.", stats.requests_aborted},
		{"cairn_net_received_bytes_total", "counter", "Bytes received.", stats.bytes_in},
		{"cairn_net_sent_bytes_total", "counter", "Bytes sent.", stats.bytes_out},
		{"cairn_net_bad_requests_total", "counter", "Malformed requests.", stats.bad_requests},
		{"cairn_net_head_too_large_total", "counter", "Heads past a limit.", stats.head_too_large},
		{"cairn_net_body_too_large_total", "counter", "Bodies past a limit.", stats.body_too_large},
		{"cairn_net_refused_memory_total", "counter", "Refused past limits.buffered.", stats.refused_memory},
		{"cairn_net_timeouts_total", "counter", "Connections closed for slowness.",
			stats.timeouts_head + stats.timeouts_body + stats.timeouts_write},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		metrics_one(page, rows[i].name, rows[i].type, rows[i].help, rows[i].value);
}

static void write_samples(struct metrics_page *page, struct samples *samples)
{
	struct samples_counters c;

	samples_counters(samples, &c);
	const struct {
		const char *name, *type, *help;
		uint64_t value;
	} rows[] = {
		{"cairn_profiles_samples_total", "counter", "Samples accepted.", c.samples},
		{"cairn_profiles_profiles_total", "counter", "Profiles accepted.", c.profiles},
		{"cairn_profiles_duplicates_total", "counter", "Profiles that had been counted before.", c.duplicate_profiles},
		{"cairn_profiles_rejected_future_total", "counter", "Samples later than now.", c.rejected_future},
		{"cairn_profiles_rejected_old_total", "counter", "Samples older than what is kept.", c.rejected_old},
		{"cairn_profiles_commits_total", "counter", "Transactions committed.", c.commits},
		{"cairn_profiles_busy_total", "counter", "Batches refused since too many waited.", c.busy},
		{"cairn_profiles_merges_total", "counter", "Merges of blocks.", c.merges},
		{"cairn_profiles_sealed_total", "counter", "Partitions sealed.", c.sealed},
		{"cairn_profiles_dropped_by_age_total", "counter", "Partitions dropped for their age.", c.dropped_by_age},
		{"cairn_profiles_dropped_by_size_total", "counter", "Partitions dropped for their size.", c.dropped_by_size},
		{"cairn_profiles_queue_bytes", "gauge", "Batches that wait for the writer.", c.queue_bytes},
		{"cairn_profiles_queue_batches", "gauge", "How many they are.", c.queue_batches},
		{"cairn_profiles_partitions", "gauge", "Partitions.", c.partitions},
		{"cairn_profiles_stored_bytes", "gauge", "Samples as stored.", c.stored_bytes},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		metrics_one(page, rows[i].name, rows[i].type, rows[i].help, rows[i].value);
}

static void write_sources(struct metrics_page *page, struct sources *sources)
{
	struct sources_stats s;

	sources_stats(sources, &s);
	const struct {
		const char *name, *type, *help;
		uint64_t value;
	} rows[] = {
		{"cairn_sources_queued", "gauge", "IDs that wait to be asked for.", s.queued},
		{"cairn_sources_asked_total", "counter", "Questions to sources, one an ID and source.", s.asked},
		{"cairn_sources_found_total", "counter", "Answers of sources that had it.", s.found},
		{"cairn_sources_not_found_total", "counter", "Answers of sources that had it not.", s.not_found},
		{"cairn_sources_refused_total", "counter", "Finds that were not taken: too large, or not what was asked for.", s.refused},
		{"cairn_sources_failed_total", "counter", "Sources that could not be asked.", s.failed},
		{"cairn_sources_cancelled_total", "counter", "Sources not asked to the end, since another was first.", s.cancelled},
		{"cairn_sources_over_budget_total", "counter", "IDs not asked for since their client had asked for too many.", s.over_budget},
		{"cairn_fetch_requests_total", "counter", "Downloads wanted.", s.fetch.requests},
		{"cairn_fetch_joined_total", "counter", "Of them those that joined one under way.", s.fetch.joined},
		{"cairn_fetch_transfers_total", "counter", "Transfers begun, further tries included.", s.fetch.transfers},
		{"cairn_fetch_retries_total", "counter", "Further tries.", s.fetch.retries},
		{"cairn_fetch_failed_total", "counter", "Downloads that failed.", s.fetch.failed},
		{"cairn_fetch_cancelled_total", "counter", "Downloads broken off, since nobody wanted them any more.", s.fetch.cancelled},
		{"cairn_fetch_held_total", "counter", "Times that a download was held, since another of which one is enough was ahead.", s.fetch.held},
		{"cairn_fetch_short_circuited_total", "counter", "Downloads not tried since their host had failed.", s.fetch.short_circuited},
		{"cairn_fetch_bytes_total", "counter", "Bytes fetched.", s.fetch.bytes},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		metrics_one(page, rows[i].name, rows[i].type, rows[i].help, rows[i].value);
}

static void write_pool(struct metrics_page *page, const char *name, struct net_pool *pool)
{
	struct net_pool_stats stats;
	char labels[64];

	net_pool_stats(pool, &stats);
	(void)snprintf(labels, sizeof(labels), "pool=\"%s\",state=\"queued\"", name);
	metrics_u64(page, "cairn_pool_requests", labels, stats.queued);
	(void)snprintf(labels, sizeof(labels), "pool=\"%s\",state=\"running\"", name);
	metrics_u64(page, "cairn_pool_requests", labels, stats.running);
}

static struct err *metrics(struct call *call, struct net_reply *reply)
{
	struct api *api = call->api;
	struct metrics_page page = {.out = &reply->body};
	struct store_stat stat;

	TRY(store_stat(api->options.store, &stat));
	reply->status = 200;
	reply->content_type = "text/plain; version=0.0.4";
	metrics_process_write(&page);
	api_metrics_write(&api->metrics, &page);
	metrics_head(&page, "cairn_pool_requests", "gauge", "Requests in the worker pools.");
	write_pool(&page, "questions", api->questions);
	write_pool(&page, "uploads", api->uploads);
	write_pool(&page, "profiles", api->profiles);
	write_store(&page, &stat);
	api_agent_metrics_write(&api->agent_counters, api->agents, &page);
	if (api->options.ingest)
		write_ingest(&page, api->options.ingest);
	if (api->options.samples)
		write_samples(&page, api->options.samples);
	if (api->options.sources)
		write_sources(&page, api->options.sources);
	if (api->server)
		write_net(&page, api->server);
	return page.failed;
}

void metrics_on_head(struct net_request *request, void *user)
{
	struct api *api = user;

	call_accept(api, request, API_PATH_METRICS, api->questions, metrics, 0);
}

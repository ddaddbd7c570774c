// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.h"

#include "api/api.h"
#include "base/log.h"
#include "ingest/ingest.h"
#include "sources/sources.h"
#include "profiles/samples.h"
#include "store/blob.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ADDRESSES_SIZE = 512 };

struct daemon {
	const struct settings *settings;
	struct store *store;
	struct ingest *ingest;
	struct sources *sources;
	struct samples *samples;
	struct api *api;
	struct net_server *server;
	char addresses[ADDRESSES_SIZE];
};

static struct err *open_store(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct store_options options = {
		.data_dir = settings->data_dir,
		.map_max = settings->store_map_max,
		.max_table_bytes = settings->limit_table,
		.max_upload_bytes = settings->limit_upload,
		.blob_quota_bytes = settings->store_originals_max,
		.upload_expiry_s = (uint32_t)(settings->uploads_expire_ms / 1000),
		.job_attempts_max = (uint32_t)settings->ingest_attempts,
		.jobs_kept = (uint32_t)settings->store_jobs_kept,
		.misses_max = (uint32_t)settings->store_misses_max,
	};

	return store_open(&options, &daemon->store);
}

static void job_ended(void *context, const struct store_job *job, const struct ingest_end *end)
{
	static const char *const verdicts[] = {
		[INGEST_DONE] = "done", [INGEST_FAILED] = "failed", [INGEST_RETRY] = "retry", [INGEST_STOPPED] = "stopped"};
	char file_id[FILEID_HEX_SIZE] = "", build_id[BUILD_ID_HEX_SIZE];
	bool good = end->verdict == INGEST_DONE || end->verdict == INGEST_STOPPED;

	(void)context;
	if (job->has_file_id)
		fileid_format_hex(&job->file_id, file_id);
	build_id_format(&job->build_id, build_id);
	log_line(good ? LOG_INFO : LOG_WARN, "job",
		"id=%llu end=%s files=%u ms=%llu file_id=%s build_id=%s name=\"%s\" reason=\"%s\"", (unsigned long long)job->id,
		verdicts[end->verdict], end->results, (unsigned long long)end->wall_ms, file_id, build_id, job->name, end->reason);
}

/* A debug file names a supplement that the store does not have. */
static struct err *bring(void *context, const struct store_job *job, const struct protocol_needs *needs, struct ingest_brought *ret)
{
	struct daemon *daemon = context;
	bool is_public = job->source == STORE_SOURCE_PACKAGE || job->source == STORE_SOURCE_DEBUGINFOD;
	struct sources_brought brought;

	TRY(sources_bring(daemon->sources, &needs->build_id, needs->name, is_public, &brought));
	ret->fd = brought.fd;
	ret->is_package = brought.is_package;
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", brought.reason);
	return NULL;
}

static struct err *start_ingest(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct ingest_options options = {
		.worker = settings->worker_path,
		.scratch_dir = settings->ingest_scratch_dir,
		.workers = (uint32_t)settings->ingest_workers,
		.worker_threads = (uint32_t)settings->ingest_worker_threads,
		.worker_memory_bytes = settings->ingest_worker_memory,
		.max_table_bytes = settings->limit_table,
		.max_unpacked_bytes = settings->ingest_unpacked_max,
		.deadline_ms = settings->ingest_deadline_ms,
		.need = bring,
		.need_context = daemon,
		.ended = job_ended,
	};

	return ingest_start(daemon->store, &options, &daemon->ingest);
}

static void source_said(void *context, const struct store_query *query, const struct store_ask *ask)
{
	char id[BUILD_ID_HEX_SIZE];

	(void)context;
	if (query->build_id.len)
		build_id_format(&query->build_id, id);
	else
		fileid_format_hex(&query->file_id, id);
	log_info("source", "id=%s source=\"%s\" answer=%s bytes=%llu job=%llu reason=\"%s\"", id, ask->source,
		store_ask_answer_name(ask->answer), (unsigned long long)ask->bytes, (unsigned long long)ask->job_id, ask->text);
}

static struct err *start_sources(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct sources_options options = {
		.debuginfod = settings->sources_debuginfod ? settings->sources_debuginfod : getenv("DEBUGINFOD_URLS"),
		.directories = settings->sources_directories,
		.installed = settings->sources_installed,
		.apt = settings->sources_apt ? settings->sources_apt : access("/etc/apt", R_OK) == 0 ? "/etc/apt" : NULL,
		.architectures = settings->sources_architectures,
		.fetch = {.scratch_dir = settings->ingest_scratch_dir,
			.parallel = (uint32_t)settings->sources_parallel,
			.rate_bytes = settings->sources_rate,
			.hourly_bytes = settings->sources_hourly_bytes},
		.max_file_bytes = settings->sources_max_file,
		.keep_packages_ms = settings->sources_keep_packages_ms,
		.keep_packages_bytes = settings->sources_keep_packages_bytes,
		.negative_ms = settings->sources_negative_ms,
		.retry_ms = settings->sources_retry_ms,
		.ids_per_hour = (uint32_t)settings->sources_ids_per_hour,
		.map_max = settings->store_map_max,
		.ask_private = settings->sources_ask_private,
		.said = source_said,
	};

	if (strcmp(settings->sources, "none") == 0)
		return NULL;
	return sources_start(daemon->store, &options, &daemon->sources);
}

static struct err *open_samples(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct samples_options options = {
		.data_dir = settings->data_dir,
		.map_max = settings->store_map_max,
		.keep_ms = settings->profiles_keep_ms,
		.max_bytes = settings->profiles_max_bytes,
		.raw_for_ms = settings->profiles_raw_for_ms,
		.queue_bytes = settings->profiles_queue_bytes,
	};

	return samples_open(&options, &daemon->samples);
}

static struct err *create_api(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct api_options options = {
		.store = daemon->store,
		.ingest = daemon->ingest,
		.sources = daemon->sources,
		.samples = daemon->samples,
		.threads = (uint32_t)settings->threads,
		.upload_threads = (uint32_t)settings->upload_threads,
		.queue = (uint32_t)settings->queue,
		.limit_body = settings->limit_body,
		.limit_answer = settings->limit_answer,
		.limit_message = settings->limit_message,
		.profiles_bytes = settings->profiles_reading_bytes,
		.unread_ms = settings->profiles_unread_ms,
		.limit_modules = settings->limit_modules,
		.limit_addresses = settings->limit_addresses,
		.names_bytes = settings->names_bytes,
	};

	return api_create(&options, &daemon->api);
}

static struct err *create_server(struct daemon *daemon)
{
	const struct settings *settings = daemon->settings;
	struct net_server_options options = {
		.limits = {.connections = settings->limit_connections,
			.connections_per_peer = settings->limit_connections_per_peer,
			.buffered_bytes = settings->limit_buffered},
		.handler = api_handler(daemon->api),
	};

	TRY(net_server_create(&options, &daemon->server));
	api_set_server(daemon->api, daemon->server);
	return NULL;
}

/* Appends " <name>=<host>:<real port>" to the addresses. */
static struct err *listen_on(struct daemon *daemon, const char *name, const char *address)
{
	size_t len = strlen(daemon->addresses);
	const char *colon = strrchr(address, ':');
	uint16_t port;

	const struct settings *settings = daemon->settings;
	struct net_tls_options tls = {.certificate_file = settings->tls_cert, .key_file = settings->tls_key};
	bool secure = tls.certificate_file && tls.certificate_file[0];
	if (settings->tls_client_ca && settings->tls_client_ca[0])
		tls.client_ca_file = settings->tls_client_ca;
	TRY(err_wrap(secure ? net_server_listen_tls(daemon->server, address, &tls, &port) :
			      net_server_listen(daemon->server, address, &port), "%s", name));
	(void)snprintf(daemon->addresses + len, sizeof(daemon->addresses) - len, "%s%s=%.*s:%u", len ? " " : "", name,
		(int)(colon ? colon - address : 0), address, port);
	return NULL;
}

static struct err *start_parts(struct daemon *daemon)
{
	TRY(open_store(daemon));
	TRY(open_samples(daemon));
	TRY(start_sources(daemon)); /* before the workers, who may ask it for supplements */
	TRY(start_ingest(daemon));
	TRY(create_api(daemon));
	TRY(create_server(daemon));
	TRY(listen_on(daemon, "http", daemon->settings->http));
	return listen_on(daemon, "grpc", daemon->settings->grpc);
}

struct err *daemon_start(const struct settings *settings, struct daemon **ret)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	if (!daemon)
		return err_nomem();
	daemon->settings = settings;
	struct err *e = start_parts(daemon);
	if (e) {
		daemon_stop(daemon);
		return e;
	}
	*ret = daemon;
	return NULL;
}

const char *daemon_addresses(const struct daemon *daemon)
{
	return daemon->addresses;
}

void daemon_tick(struct daemon *daemon)
{
	CLEANUP(err_freep) struct err *e = NULL;
	uint64_t dropped = 0;

	e = store_upload_expire(daemon->store, &dropped);
	if (e)
		log_warn("uploads", "expire=failed error=\"%s\"", err_message(e));
	else if (dropped)
		log_info("uploads", "expired=%llu", (unsigned long long)dropped);
}

void daemon_stop(struct daemon *daemon)
{
	if (!daemon)
		return;
	if (daemon->api)
		api_drain(daemon->api);
	if (daemon->server)
		net_server_stop(daemon->server, daemon->settings->drain_ms);
	if (daemon->api)
		api_stop(daemon->api);
	sources_stop(daemon->sources); /* workers' threads that wait for it come back */
	/* What was handed in is committed and answered. */
	samples_close(daemon->samples);
	ingest_stop(daemon->ingest);
	sources_destroy(daemon->sources);
	net_server_destroy(daemon->server);
	api_destroy(daemon->api);
	store_close(daemon->store);
	free(daemon);
}

// SPDX-License-Identifier: Apache-2.0
#include "daemon/settings.h"

#include "base/log.h"
#include "net/server.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define AT(member) offsetof(struct settings, member)

static const struct config_key keys[] = {
	{"data_dir", "data-dir", CONFIG_TEXT, AT(data_dir), 0, 0, NULL, "DIR everything that is kept; created when absent"},
	{"http", "http", CONFIG_TEXT, AT(http), 0, 0, "127.0.0.1:4318", "ADDRESS to listen on; port 0 takes a free one"},
	{"grpc", "grpc", CONFIG_TEXT, AT(grpc), 0, 0, "127.0.0.1:4317", "ADDRESS for gRPC; answers HTTP too; may equal http"},
	{"tls.cert", NULL, CONFIG_TEXT, AT(tls_cert), 0, 0, NULL, "FILE of certificates, PEM: then http and grpc are under TLS"},
	{"tls.key", NULL, CONFIG_TEXT, AT(tls_key), 0, 0, NULL, "FILE of its private key, PEM"},
	{"tls.client_ca", NULL, CONFIG_TEXT, AT(tls_client_ca), 0, 0, NULL, "FILE of authorities, PEM: clients must show a certificate"},
	{"log.level", NULL, CONFIG_TEXT, AT(log_level), 0, 0, "info", "LEVEL error, warn, info or debug"},
	{"drain", NULL, CONFIG_DURATION, AT(drain_ms), 0, 3600000, "10s", "TIME that requests get to finish after SIGTERM"},

	{"threads", NULL, CONFIG_UINT, AT(threads), 0, 256, "0", "N threads that answer questions; 0: one a CPU"},
	{"upload_threads", NULL, CONFIG_UINT, AT(upload_threads), 1, 256, "4", "N threads that take uploads"},
	{"queue", NULL, CONFIG_UINT, AT(queue), 1, 1000000, "1024", "N requests that may wait for a thread, then 503"},
	{"names", NULL, CONFIG_SIZE, AT(names_bytes), 1 << 20, UINT64_C(1) << 40, "64M",
		"SIZE of demangled names remembered, by each thread"},

	{"limits.body", NULL, CONFIG_SIZE, AT(limit_body), 1024, 1 << 30, "16M", "SIZE of the body of a symbolize request"},
	{"limits.answer", NULL, CONFIG_SIZE, AT(limit_answer), 1024, UINT32_MAX, "256M", "SIZE of its answer"},
	{"limits.message", NULL, CONFIG_SIZE, AT(limit_message), 1024, 1 << 30, "64M", "SIZE of one gRPC message"},
	{"limits.modules", NULL, CONFIG_UINT, AT(limit_modules), 1, 1000000, "10000", "N modules of a request"},
	{"limits.addresses", NULL, CONFIG_UINT, AT(limit_addresses), 1, 10000000, "100000", "N addresses of a request"},
	{"limits.upload", NULL, CONFIG_SIZE, AT(limit_upload), 1, UINT64_C(1) << 40, "4G", "SIZE of one uploaded file"},
	{"limits.table", NULL, CONFIG_SIZE, AT(limit_table), 1 << 20, UINT32_MAX, "1G", "SIZE of the table of one file"},
	{"limits.connections", NULL, CONFIG_UINT, AT(limit_connections), 1, 1000000, "8192", "N connections"},
	{"limits.connections_per_peer", NULL, CONFIG_UINT, AT(limit_connections_per_peer), 1, 1000000, "4096",
		"N connections of one address"},
	{"limits.buffered", NULL, CONFIG_SIZE, AT(limit_buffered), 1 << 20, UINT64_C(1) << 40, "1G",
		"SIZE of requests and answers in memory, of all connections"},

	{"uploads.expire", NULL, CONFIG_DURATION, AT(uploads_expire_ms), 1000, UINT64_C(31536000000), "24h",
		"TIME without a chunk after which an upload is given up"},

	{"store.map_max", NULL, CONFIG_SIZE, AT(store_map_max), 16 << 20, UINT64_C(1) << 46, "1T",
		"SIZE that the store may grow to; address space, not disk"},
	{"store.originals_max", NULL, CONFIG_SIZE, AT(store_originals_max), 1 << 20, UINT64_C(1) << 46, "20G",
		"SIZE of uploaded originals that are kept, compressed"},
	{"store.jobs_kept", NULL, CONFIG_UINT, AT(store_jobs_kept), 1, 10000000, "100000", "N finished jobs that are remembered"},
	{"store.misses_max", NULL, CONFIG_UINT, AT(store_misses_max), 1, 10000000, "100000", "N unknown IDs that are remembered"},

	{"sources", NULL, CONFIG_TEXT, AT(sources), 0, 0, "on", "WORD on, or none: nobody is asked for symbols"},
	{"sources.debuginfod", NULL, CONFIG_TEXT, AT(sources_debuginfod), 0, 0, NULL,
		"URLS of debuginfod servers, in order; default: DEBUGINFOD_URLS of the environment"},
	{"sources.directories", NULL, CONFIG_TEXT, AT(sources_directories), 0, 0, "/usr/lib/debug",
		"DIRS with debug files or binaries: scanned and watched"},
	{"sources.installed", NULL, CONFIG_TEXT, AT(sources_installed), 0, 0, "/usr /bin /sbin /lib /lib64",
		"DIRS with this machine's programs, by which a file ID becomes a build ID; \"\": none"},
	{"sources.apt", NULL, CONFIG_TEXT, AT(sources_apt), 0, 0, NULL,
		"PATHS of APT sources files, or of folders like it; default: /etc/apt; \"\": none"},
	{"sources.architectures", NULL, CONFIG_TEXT, AT(sources_architectures), 0, 0, NULL,
		"WORDS of APT's packages that are looked through, as in amd64 arm64; default: this machine's"},
	{"sources.ask_private", NULL, CONFIG_BOOL, AT(sources_ask_private), 0, 0, "false",
		"ask servers on the internet for IDs that no public index names, too"},
	{"sources.negative", NULL, CONFIG_DURATION, AT(sources_negative_ms), 1000, UINT64_C(31536000000), "6h",
		"TIME for which \"it does not have it\" holds"},
	{"sources.retry", NULL, CONFIG_DURATION, AT(sources_retry_ms), 1000, UINT64_C(31536000000), "5m",
		"TIME after which a source that failed is asked again"},
	{"sources.ids_per_hour", NULL, CONFIG_UINT, AT(sources_ids_per_hour), 1, 10000000, "10000",
		"N unknown IDs that one client may have asked for"},
	{"sources.max_file", NULL, CONFIG_SIZE, AT(sources_max_file), 1 << 10, UINT64_C(1) << 40, "4G", "SIZE of one file that is fetched"},
	{"sources.keep_packages", NULL, CONFIG_DURATION, AT(sources_keep_packages_ms), 1000, UINT64_C(31536000000), "1h",
		"TIME for which a fetched package is kept, since a file of it was last wanted"},
	{"sources.keep_packages_max", NULL, CONFIG_SIZE, AT(sources_keep_packages_bytes), 1 << 10, UINT64_C(1) << 50, "4G",
		"SIZE of fetched packages that are kept"},
	{"sources.hourly_bytes", NULL, CONFIG_SIZE, AT(sources_hourly_bytes), 1 << 10, UINT64_C(1) << 50, "64G",
		"SIZE of all that is fetched within an hour"},
	{"sources.rate", NULL, CONFIG_SIZE, AT(sources_rate), 0, UINT64_C(1) << 40, "0", "SIZE a second of each download; 0: no limit"},
	{"sources.parallel", NULL, CONFIG_UINT, AT(sources_parallel), 1, 64, "8", "N downloads at once"},

	{"profiles.keep", NULL, CONFIG_DURATION, AT(profiles_keep_ms), 3600000, UINT64_C(315360000000), "30d",
		"TIME after which samples are dropped"},
	{"profiles.max_bytes", NULL, CONFIG_SIZE, AT(profiles_max_bytes), 16 << 20, UINT64_C(1) << 46, "64G",
		"SIZE of samples; past it the oldest are dropped"},
	{"profiles.raw_for", NULL, CONFIG_DURATION, AT(profiles_raw_for_ms), 1000, UINT64_C(31536000000), "1h",
		"TIME for which a sample's exact time is kept"},
	{"profiles.reading", NULL, CONFIG_SIZE, AT(profiles_reading_bytes), 1024, UINT64_C(1) << 40, "512M",
		"SIZE of OTLP requests that are being read, of all senders"},
	{"profiles.queue", NULL, CONFIG_SIZE, AT(profiles_queue_bytes), 1024, UINT64_C(1) << 40, "256M",
		"SIZE of samples that wait for the disk"},
	{"profiles.unread", NULL, CONFIG_DURATION, AT(profiles_unread_ms), 100, 3600000, "30s",
		"TIME that an agent may leave unread what it is told"},

	{"worker.path", NULL, CONFIG_TEXT, AT(worker_path), 0, 0, NULL, "FILE cairn-worker; default: beside cairnd"},
	{"ingest.workers", NULL, CONFIG_UINT, AT(ingest_workers), 0, 64, "0", "N workers at once; 0: one per two CPUs"},
	{"ingest.worker_threads", NULL, CONFIG_UINT, AT(ingest_worker_threads), 0, 64, "0",
		"N threads of each worker; 0: CPUs / workers"},
	{"ingest.worker_memory", NULL, CONFIG_SIZE, AT(ingest_worker_memory), 64 << 20, UINT64_C(1) << 40, "4G",
		"SIZE of a worker's memory, then its job fails"},
	{"ingest.unpacked_max", NULL, CONFIG_SIZE, AT(ingest_unpacked_max), 1 << 20, UINT64_C(1) << 40, "16G",
		"SIZE of a package's files"},
	{"ingest.deadline", NULL, CONFIG_DURATION, AT(ingest_deadline_ms), 100, 86400000, "30m",
		"TIME of one run of a worker, then its job fails"},
	{"ingest.attempts", NULL, CONFIG_UINT, AT(ingest_attempts), 1, 100, "3", "N starts of a job that did not end by itself"},
	{"ingest.scratch_dir", NULL, CONFIG_TEXT, AT(ingest_scratch_dir), 0, 0, NULL,
		"DIR for unlinked temporary files; default: /var/tmp"},
};

static const struct config_table table = {.keys = keys, .count = ARRAY_SIZE(keys)};

const struct config_table *settings_table(void)
{
	return &table;
}

static struct err *show_help(void)
{
	CLEANUP(buf_deinit) struct buf text = {0};

	TRY(buf_printf(&text, "cairnd " CAIRN_VERSION ": answers addresses with functions, files and lines\n"
			      "usage: cairnd [--config FILE] --data-dir DIR [flags]\n\n"
			      "--config FILE reads `key = value` lines; a flag wins over the file. Flags:\n"));
	TRY(config_help(&table, &text));
	(void)fwrite(text.data, 1, text.len, stdout);
	return fflush(stdout) == 0 ? NULL : err_new(ERR_OS, "cannot write to standard output");
}

/* An empty value in the file is as none. */
static bool is_set(const char *text)
{
	return text && text[0];
}

static struct err *check(const struct settings *settings)
{
	enum log_level level;

	if (!settings->data_dir || !settings->data_dir[0])
		return err_new(ERR_INVALID, "data_dir is missing: say --data-dir DIR, or data_dir = DIR in the file of --config");
	TRY(err_wrap(net_server_check_address(settings->http), "http"));
	TRY(err_wrap(net_server_check_address(settings->grpc), "grpc"));
	if (strcmp(settings->sources, "on") != 0 && strcmp(settings->sources, "none") != 0)
		return err_new(ERR_INVALID, "sources: \"%s\" is neither on nor none", settings->sources);
	if (!log_level_parse(settings->log_level, &level))
		return err_new(ERR_INVALID, "log.level: \"%s\" is none of error, warn, info, debug", settings->log_level);
	if (is_set(settings->tls_cert) != is_set(settings->tls_key))
		return err_new(ERR_INVALID, "tls.cert and tls.key belong together: %s is missing",
			is_set(settings->tls_cert) ? "tls.key" : "tls.cert");
	if (is_set(settings->tls_client_ca) && !is_set(settings->tls_cert))
		return err_new(ERR_INVALID, "tls.client_ca needs tls.cert and tls.key");
	return NULL;
}

struct err *settings_read(int argc, char **argv, struct settings *ret, enum settings_wish *wish_ret)
{
	*wish_ret = SETTINGS_SHOWN;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return show_help();
		if (strcmp(argv[i], "--version") == 0) {
			(void)puts("cairnd " CAIRN_VERSION);
			return NULL;
		}
	}
	*wish_ret = SETTINGS_RUN;
	TRY(config_read(&table, ret, &argc, argv));
	if (argc > 1)
		return err_new(ERR_INVALID, "\"%s\" is no flag: cairnd takes no other arguments", argv[1]);
	return check(ret);
}

void settings_deinit(struct settings *settings)
{
	config_deinit(&table, settings);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The settings of cairnd: one table for file, flags, --help and docs/configuration.md.
 */
#ifndef CAIRN_DAEMON_SETTINGS_H
#define CAIRN_DAEMON_SETTINGS_H

#include "base/config.h"

struct settings {
	char *data_dir;
	char *http;
	char *grpc;
	char *tls_cert; /* NULL: no TLS */
	char *tls_key;
	char *tls_client_ca;
	char *log_level;
	uint64_t drain_ms;

	uint64_t threads;
	uint64_t upload_threads;
	uint64_t queue;
	uint64_t names_bytes;

	uint64_t limit_body;
	uint64_t limit_answer;
	uint64_t limit_message;
	uint64_t limit_modules;
	uint64_t limit_addresses;
	uint64_t limit_upload;
	uint64_t limit_table;
	uint64_t limit_connections;
	uint64_t limit_connections_per_peer;
	uint64_t limit_buffered;

	uint64_t uploads_expire_ms;

	uint64_t store_map_max;
	uint64_t store_originals_max;
	uint64_t store_jobs_kept;
	uint64_t store_misses_max;

	char *sources;
	char *sources_debuginfod;
	char *sources_directories;
	char *sources_installed;
	char *sources_apt, *sources_architectures;
	bool sources_ask_private;
	uint64_t sources_negative_ms;
	uint64_t sources_retry_ms;
	uint64_t sources_ids_per_hour;
	uint64_t sources_max_file;
	uint64_t sources_keep_packages_ms;
	uint64_t sources_keep_packages_bytes;
	uint64_t sources_hourly_bytes;
	uint64_t sources_rate;
	uint64_t sources_parallel;

	uint64_t profiles_keep_ms;
	uint64_t profiles_max_bytes;
	uint64_t profiles_raw_for_ms;
	uint64_t profiles_reading_bytes;
	uint64_t profiles_queue_bytes;
	uint64_t profiles_unread_ms;

	char *worker_path;
	uint64_t ingest_workers;
	uint64_t ingest_worker_threads;
	uint64_t ingest_worker_memory;
	uint64_t ingest_unpacked_max;
	uint64_t ingest_deadline_ms;
	uint64_t ingest_attempts;
	char *ingest_scratch_dir;
};

enum settings_wish { SETTINGS_RUN, SETTINGS_SHOWN }; /* SHOWN: --help or --version was answered, exit 0 */

/**
 * Defaults, then the file of --config, then flags.
 * @param ret  zeroed; to be freed with settings_deinit, also after an error
 * @return NULL; ERR_INVALID: wrong usage, one line; ERR_OS: the file cannot be read.
 */
struct err *settings_read(int argc, char **argv, struct settings *ret, enum settings_wish *wish_ret) MUST_USE;
void settings_deinit(struct settings *settings);
/** For tests that compare the table with the documentation. */
const struct config_table *settings_table(void);

#endif

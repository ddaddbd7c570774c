// SPDX-License-Identifier: Apache-2.0
/* The settings of cairn-agent: one table for flags, file, --help and docs/agent.md. */
#ifndef CAIRN_AGENT_OPTIONS_H
#define CAIRN_AGENT_OPTIONS_H

#include "agent/filter.h"
#include "agent/reporter.h"
#include "agent/sampler.h"
#include "base/config.h"

#define OPTIONS_COLLECTOR "127.0.0.1:4317" /* where cairnd listens by itself */

enum options_protocol { PROTOCOL_CAIRN, PROTOCOL_OTLP, PROTOCOL_FILE /* pprof: -o */ };

struct options {
	/* As read. Texts are NULL when not given. */
	char *collector, *protocol_text, *output, *record;
	uint64_t once_ms, report_ms, hz;
	char *tls_ca, *tls_cert, *tls_key, *tls_name;
	bool tls;
	char *spool;
	uint64_t spool_bytes, queue_bytes;
	char *pids, *comms, *containers, *with_labels, *labels;
	uint64_t probability, probability_ms;
	uint64_t deltas, pages, mappings, ring_bytes;
	uint64_t unwind_share; /* of 10,000 of the machine: CPU time for unwind tables */
	char *off_cpu_text, *probes_text, *sysfs;
	bool upload;
	char *upload_url, *upload_exclude, *upload_program;
	uint64_t upload_rate;
	bool no_task_regs, no_regs_helper, no_btf, no_bpf_loop, verifier_log, verbose;
	char *log_level;

	/* As meant. */
	enum options_protocol protocol;
	struct filter filter;
	struct filter_list probes;
	uint32_t off_cpu_threshold; /* of 2^32 */
	struct net_grpc_client_tls client_tls;
	char *label_text; /* what label_items point into */
	struct agent_label label_items[REPORTER_LABELS_MAX];
	size_t label_count;
};

enum options_wish { OPTIONS_RUN, OPTIONS_SHOWN }; /* SHOWN: --help or --version was answered */

/**
 * Defaults, then the file of --config, then flags; and whether they make sense together.
 * @param ret  zeroed; to be freed with options_deinit, also after an error
 * @return NULL; ERR_INVALID: wrong usage, one line; ERR_OS: the file cannot be read.
 */
struct err *options_read(int argc, char **argv, struct options *ret, enum options_wish *wish_ret) MUST_USE;
void options_deinit(struct options *options);
/** What the kernel half needs of them; borrowed. */
struct sampler_options options_sampler(const struct options *options);
/** For tests that compare the table with the documentation. */
const struct config_table *options_table(void);

#endif

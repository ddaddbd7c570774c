// SPDX-License-Identifier: Apache-2.0
#include "agent/options.h"

#include "base/log.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(struct options, member)

enum { OPTIONS_WINDOW_MAX_MS = 3600 * 1000 };

static const struct config_key keys[] = {
	{"collector", NULL, CONFIG_TEXT, AT(collector), 0, 0, NULL, "ADDRESS that samples go to: HOST:PORT (default: 127.0.0.1:4317)"},
	{"protocol", NULL, CONFIG_TEXT, AT(protocol_text), 0, 0, "cairn",
		"WORD cairn: Cairn's own stream; otlp: OpenTelemetry's profiles, to any collector"},
	{"report_interval", "report-interval", CONFIG_DURATION, AT(report_ms), 100, 600000, "5s", "TIME after which samples are sent"},
	{"tls", NULL, CONFIG_BOOL, AT(tls), 0, 0, "false", "speak TLS to the collector"},
	{"tls.ca", "tls-ca", CONFIG_TEXT, AT(tls_ca), 0, 0, NULL, "FILE of authorities to trust, PEM; default: the system's. Means --tls"},
	{"tls.cert", "tls-cert", CONFIG_TEXT, AT(tls_cert), 0, 0, NULL, "FILE of a certificate to show, PEM"},
	{"tls.key", "tls-key", CONFIG_TEXT, AT(tls_key), 0, 0, NULL, "FILE of its private key, PEM"},
	{"tls.name", "tls-name", CONFIG_TEXT, AT(tls_name), 0, 0, NULL, "NAME in the collector's certificate; default: the host"},

	{"once", NULL, CONFIG_DURATION, AT(once_ms), 0, OPTIONS_WINDOW_MAX_MS, "0", "TIME that is sampled, then it ends; 0: until it is stopped"},
	{"output", NULL, CONFIG_TEXT, AT(output), 0, 0, NULL, "FILE, also -o: with --once the profile goes there (pprof), to no collector; - is standard output"},
	{"record", NULL, CONFIG_TEXT, AT(record), 0, 0, NULL, "FILE to write the stream to; without --collector only there"},

	{"samples_per_second", "samples-per-second", CONFIG_UINT, AT(hz), 1, SAMPLER_HZ_MAX, "20", "N samples of each CPU"},
	{"probability", NULL, CONFIG_UINT, AT(probability), 1, 100, "100", "N percent of the intervals that are sampled, at random"},
	{"probability_interval", "probability-interval", CONFIG_DURATION, AT(probability_ms), 1000, 86400000, "1m", "TIME of such an interval"},
	{"pid", NULL, CONFIG_TEXT, AT(pids), 0, 0, NULL, "PIDS with commas: these processes only"},
	{"comm", NULL, CONFIG_TEXT, AT(comms), 0, 0, NULL, "NAMES with commas: threads of these names only; * and ? as in the shell"},
	{"container", NULL, CONFIG_TEXT, AT(containers), 0, 0, NULL, "IDS with commas: these containers only; the first digits do"},
	{"with_label", "with-label", CONFIG_TEXT, AT(with_labels), 0, 0, NULL, "LABELS key=value with commas: processes that have one of them only; * and ? as in the shell"},
	{"labels", NULL, CONFIG_TEXT, AT(labels), 0, 0, NULL, "LABELS key=value with commas: put on everything that is sent"},

	{"queue", NULL, CONFIG_SIZE, AT(queue_bytes), 64 << 10, 1 << 30, "4M",
		"SIZE of unsent samples in memory; past it the oldest go to the spool, or are lost and counted"},
	{"spool", NULL, CONFIG_TEXT, AT(spool), 0, 0, NULL, "DIR for samples while the collector is away; default: none"},
	{"spool.max", "spool-max", CONFIG_SIZE, AT(spool_bytes), 1 << 20, UINT64_C(1) << 40, "256M", "SIZE of it; past it the oldest are lost and counted"},

	{"upload_symbols", "upload-symbols", CONFIG_BOOL, AT(upload), 0, 0, "false",
		"send the server the binaries whose symbols it asks for, and their debug files"},
	{"upload.url", "upload-url", CONFIG_TEXT, AT(upload_url), 0, 0, "http://127.0.0.1:4318", "URL of cairnd's HTTP interface"},
	{"upload.rate", "upload-rate", CONFIG_SIZE, AT(upload_rate), 1024, UINT32_MAX, "1M", "SIZE a second at most"},
	{"upload.exclude", "upload-exclude", CONFIG_TEXT, AT(upload_exclude), 0, 0, NULL,
		"PATTERNS with commas of paths or base names that are never sent; * and ? as in the shell"},
	{"upload.program", "upload-program", CONFIG_TEXT, AT(upload_program), 0, 0, NULL, "FILE upload-symbols; default: beside cairn-agent"},

	{"off_cpu_threshold", "off-cpu-threshold", CONFIG_TEXT, AT(off_cpu_text), 0, 0, "0",
		"P of threads that leave a CPU are sampled, 0 to 1, with the time that they did not run"},
	{"uprobe", NULL, CONFIG_TEXT, AT(probes_text), 0, 0, NULL,
		"PROBE PATH:SYMBOL or PATH+0xOFFSET: each call of this function is a sample; may be repeated"},

	{"unwind.share", "unwind-share", CONFIG_UINT, AT(unwind_share), 0, 10000, "12",
		"N hundredths of a percent of the machine's CPU time that may go into unwind tables; 0: no limit"},
	{"map.deltas", "deltas-max", CONFIG_UINT, AT(deltas), 1, 1 << 28, "8388608", "N unwind table entries at most, 4 bytes each, of all executables"},
	{"map.pages", "pages-max", CONFIG_UINT, AT(pages), 1, 1 << 28, "524288", "N pages of 64 KiB of executables' addresses at most, 8 bytes each"},
	{"map.mappings", "mappings-max", CONFIG_UINT, AT(mappings), 1, 1 << 28, "262144",
		"N executable mappings of all processes at most, 32 bytes each"},
	{"map.ring", "ring-bytes", CONFIG_SIZE, AT(ring_bytes), 4096, 1 << 30, "4M",
		"SIZE of the room for samples that wait to be read; a power of two"},

	{"log.level", NULL, CONFIG_TEXT, AT(log_level), 0, 0, "info", "LEVEL error, warn, info or debug"},
	{"verbose", NULL, CONFIG_BOOL, AT(verbose), 0, 0, "false", "log.level debug"},
	{"verifier_log", "verifier-log", CONFIG_BOOL, AT(verifier_log), 0, 0, "false",
		"show what libbpf and the kernel's verifier say: when the program does not load"},
	{"no_task_regs", "no-task-regs", CONFIG_BOOL, AT(no_task_regs), 0, 0, "false", "work as on kernels without BTF, for tests"},
	{"no_regs_helper", "no-regs-helper", CONFIG_BOOL, AT(no_regs_helper), 0, 0, "false", ".. without bpf_task_pt_regs (5.15)"},
	{"no_btf", "no-btf", CONFIG_BOOL, AT(no_btf), 0, 0, "false", ".. without anything that BTF gives"},
	{"no_bpf_loop", "no-bpf-loop", CONFIG_BOOL, AT(no_bpf_loop), 0, 0, "false", ".. without bpf_loop (5.17)"},
	{"sysfs", NULL, CONFIG_TEXT, AT(sysfs), 0, 0, NULL, "DIR where CPUs are listed (default: /sys)"},
};

static const struct config_table table = {.keys = keys, .count = ARRAY_SIZE(keys)};

const struct config_table *options_table(void)
{
	return &table;
}

static const char help_head[] =
	"cairn-agent " CAIRN_VERSION ": samples every process of this machine, and sends where they spend their time\n"
	"\n"
	"  cairn-agent                                   to cairnd on this machine, until SIGINT or SIGTERM\n"
	"  cairn-agent --collector HOST:4317 --tls       to cairnd elsewhere\n"
	"  cairn-agent --protocol otlp --collector HOST:PORT\n"
	"                                                to any OpenTelemetry collector that takes profiles\n"
	"  cairn-agent --once 10s -o cpu.pb.gz           ten seconds into a file: go tool pprof -top cpu.pb.gz\n"
	"  cairn-agent --once 10s -o cpu.pb.gz --pid 42  of one process\n"
	"\n"
	"Needs Linux 5.10 on x86-64, and root or these capabilities:\n"
	"  CAP_BPF, CAP_PERFMON       to load the sampling program and to run it on every CPU\n"
	"  CAP_SYS_PTRACE             to see what other users' processes have mapped\n"
	"Better with these, too; each that is missing is told at the start:\n"
	"  CAP_CHECKPOINT_RESTORE     files that were deleted or replaced while they run (/proc/PID/map_files)\n"
	"  CAP_DAC_READ_SEARCH        files and environments that only their owner may read, and the folder map_files\n"
	"  CAP_SYSLOG                 names of kernel functions\n"
	"What is missing is said in one line. Exit status: 0, 1 with a line that says why, 2 for wrong usage.\n"
	"\n"
	"Nothing arrives? `cairn agents` shows who sends; the `collector` lines on standard error say what became of samples.\n"
	"\n"
	"--config FILE reads `key = value` lines with the keys of docs/agent.md; a flag wins. Flags:\n";

static struct err *show_help(void)
{
	CLEANUP(buf_deinit) struct buf text = {0};

	TRY(buf_append(&text, help_head, sizeof(help_head) - 1));
	TRY(config_help(&table, &text));
	(void)fwrite(text.data, 1, text.len, stdout);
	return fflush(stdout) == 0 ? NULL : err_new(ERR_OS, "cannot write to standard output");
}

static bool is_set(const char *text)
{
	return text && text[0];
}

/* ",": between labels; the first "=" of each ends its key. */
static struct err *take_labels(struct options *o)
{
	if (!is_set(o->labels))
		return NULL;
	o->label_text = strdup(o->labels);
	if (!o->label_text)
		return err_nomem();
	char *rest = o->label_text;
	for (char *item = strsep(&rest, ","); item; item = strsep(&rest, ",")) {
		char *equals = strchr(item, '=');
		if (!equals || equals == item || !equals[1])
			return err_new(ERR_INVALID, "labels: \"%s\" is not key=value", item);
		if (o->label_count == REPORTER_LABELS_MAX)
			return err_new(ERR_INVALID, "labels: more than %d", REPORTER_LABELS_MAX);
		o->label_items[o->label_count++] = (struct agent_label){
			.key = {(const uint8_t *)item, (size_t)(equals - item)}, .value = {(const uint8_t *)equals + 1, strlen(equals + 1)}};
	}
	return NULL;
}

static struct err *take_protocol(struct options *o)
{
	if (strcmp(o->protocol_text, "otlp") == 0)
		o->protocol = PROTOCOL_OTLP;
	else if (strcmp(o->protocol_text, "cairn") != 0)
		return err_new(ERR_INVALID, "protocol: \"%s\" is neither cairn nor otlp", o->protocol_text);
	if (is_set(o->output)) {
		if (!o->once_ms || is_set(o->collector) || is_set(o->record) || o->protocol == PROTOCOL_OTLP)
			return err_new(ERR_INVALID, "--output goes with --once TIME, and with neither --collector, --protocol nor --record");
		o->protocol = PROTOCOL_FILE;
	}
	if (o->protocol == PROTOCOL_OTLP && is_set(o->record))
		return err_new(ERR_INVALID, "--record is of --protocol cairn");
	return NULL;
}

static struct err *take_sampling(struct options *o)
{
	char *end = NULL;
	double share = strtod(o->off_cpu_text, &end);

	if (end == o->off_cpu_text || *end || !(share >= 0 && share <= 1))
		return err_new(ERR_INVALID, "off-cpu-threshold: \"%s\" is no number from 0 to 1", o->off_cpu_text);
	o->off_cpu_threshold = share < 1 ? (uint32_t)(share * 4294967296.0) : UINT32_MAX;
	if ((o->ring_bytes & (o->ring_bytes - 1)) != 0)
		return err_new(ERR_INVALID, "ring-bytes: not a power of two");
	return err_wrap(filter_list_init(&o->probes, o->probes_text), "uprobe");
}

static struct err *check(struct options *o)
{
	enum log_level level;

	TRY(take_protocol(o));
	TRY(filter_init(&o->filter, o->pids, o->comms, o->containers, o->with_labels));
	TRY(take_labels(o));
	TRY(take_sampling(o));
	if (!log_level_parse(o->log_level, &level))
		return err_new(ERR_INVALID, "log.level: \"%s\" is none of error, warn, info, debug", o->log_level);
	if (is_set(o->tls_cert) != is_set(o->tls_key))
		return err_new(ERR_INVALID, "tls.cert and tls.key belong together: %s is missing", is_set(o->tls_cert) ? "tls.key" : "tls.cert");
	o->tls |= is_set(o->tls_ca) || is_set(o->tls_cert) || is_set(o->tls_name);
	o->client_tls = (struct net_grpc_client_tls){
		.ca_file = o->tls_ca, .certificate_file = o->tls_cert, .key_file = o->tls_key, .server_name = o->tls_name};
	return NULL;
}

/* -o is --output. */
static void widen(int argc, char **argv)
{
	static char output[] = "--output";

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "-o") == 0)
			argv[i] = output;
}

/* The value of a --uprobe at argv[i], or NULL. */
static const char *probe_at(int argc, char **argv, int i)
{
	static const char flag[] = "--uprobe";
	const char *rest = strncmp(argv[i], flag, sizeof(flag) - 1) == 0 ? argv[i] + sizeof(flag) - 1 : "?";

	if (rest[0] == '=')
		return rest + 1;
	return rest[0] == 0 && i + 1 < argc ? argv[i + 1] : NULL;
}

/* Several --uprobe are one list. */
static struct err *join_probes(int argc, char **argv, char **ret)
{
	CLEANUP(buf_deinit) struct buf list = {0};

	for (int i = 1; i < argc; i++)
		if (probe_at(argc, argv, i))
			TRY(buf_printf(&list, "%s%s", list.len ? "," : "", probe_at(argc, argv, i)));
	if (list.len == 0)
		return NULL;
	TRY(buf_append(&list, "", 1));
	*ret = (char *)list.data;
	list = (struct buf){0};
	return NULL;
}

struct err *options_read(int argc, char **argv, struct options *ret, enum options_wish *wish_ret)
{
	*wish_ret = OPTIONS_SHOWN;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return show_help();
		if (strcmp(argv[i], "--version") == 0) {
			(void)puts("cairn-agent " CAIRN_VERSION);
			return NULL;
		}
	}
	*wish_ret = OPTIONS_RUN;
	char *probes = NULL;
	widen(argc, argv);
	TRY(join_probes(argc, argv, &probes));
	struct err *e = config_read(&table, ret, &argc, argv);
	if (probes) {
		free(ret->probes_text);
		ret->probes_text = probes;
	}
	TRY(e);
	if (argc > 1)
		return err_new(ERR_INVALID, "\"%s\" is no flag: cairn-agent takes no other arguments; see --help", argv[1]);
	return check(ret);
}

void options_deinit(struct options *options)
{
	config_deinit(&table, options);
	filter_deinit(&options->filter);
	filter_list_deinit(&options->probes);
	free(options->label_text);
}

struct sampler_options options_sampler(const struct options *o)
{
	return (struct sampler_options){.hz = (uint32_t)o->hz,
		.only_pid = o->filter.pid_count == 1 ? o->filter.pids[0] : 0,
		.off_cpu_threshold = o->off_cpu_threshold,
		.probes = o->probes.items,
		.probe_count = (unsigned)o->probes.count,
		.ring_bytes = (uint32_t)o->ring_bytes,
		.deltas_max = (uint32_t)o->deltas,
		.pages_max = (uint32_t)o->pages,
		.mappings_max = (uint32_t)o->mappings,
		.sysfs = o->sysfs,
		.without_task_regs = o->no_task_regs,
		.without_regs_helper = o->no_regs_helper,
		.without_btf = o->no_btf,
		.without_loop = o->no_bpf_loop,
		.verifier_log = o->verifier_log};
}

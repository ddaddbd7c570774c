// SPDX-License-Identifier: Apache-2.0
/* cairn-agent: flags and wiring. */
#include "agent/collect.h"
#include "agent/kernel.h"
#include "agent/otlp.h"
#include "agent/sampler.h"
#include "agent/watch.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLL_MS = 100, START_PAUSE_MS = 20, START_MS = 30000, REPORT_MS = 5000, WINDOW_MAX_MS = 3600 * 1000 };

struct flags {
	struct sampler_options sampler;
	const char *probes[SAMPLER_PROBES_MAX];
	uint64_t window_ms;
	const char *output, *collector; /* one of them */
};

struct agent {
	struct flags flags;
	struct sampler *sampler;
	struct tables *tables;
	struct watch *watch;
	struct kernel *kernel;
	struct collect *collect;
	struct otlp *otlp; /* of this window, with --collector */
	uint64_t exports_failed; /* their windows are lost */
	uint64_t records, lost_events;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	stopped = number;
}

/* cairn-unwind has ended: breaks the wait for samples. */
static void on_child(int number)
{
	(void)number;
}

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct err *on_sample(void *context, const struct sample_head *head, const uint64_t *frames)
{
	struct agent *agent = context;

	agent->records++;
	if (head->end == UNWIND_END_NO_PROCESS || head->end == UNWIND_END_NO_TABLE || head->end == UNWIND_END_NO_MAPPING || head->end == UNWIND_END_FRAME_POINTER)
		TRY(watch_missed(agent->watch, head->pid, clock_ms(CLOCK_MONOTONIC)));
	return agent->otlp ? otlp_add(agent->otlp, head, frames) : collect_add(agent->collect, head, frames);
}

static struct err *on_changed(void *context, uint32_t pid)
{
	struct agent *agent = context;
	return watch_changed(agent->watch, pid, clock_ms(CLOCK_MONOTONIC));
}

static struct err *on_gone(void *context, uint32_t pid)
{
	struct agent *agent = context;
	watch_gone(agent->watch, pid);
	return NULL;
}

static struct err *on_lost(void *context, uint64_t events)
{
	struct agent *agent = context;
	agent->lost_events += events;
	return watch_scan(agent->watch);
}

/** Hands out what the kernel has, and reads the processes that are due. */
static struct err *turn(struct agent *agent, int timeout_ms, uint32_t *left_ret)
{
	struct sampler_handler handler = {.sample = on_sample, .changed = on_changed, .gone = on_gone, .lost = on_lost, .context = agent};

	TRY(sampler_poll(agent->sampler, timeout_ms, &handler));
	TRY(tables_work(agent->tables));
	return watch_work(agent->watch, clock_ms(CLOCK_MONOTONIC), left_ret);
}

/** Every process that is there now; a little at a time. A single window begins when their unwind tables are there. */
static struct err *read_all(struct agent *agent)
{
	uint64_t give_up_ms = clock_ms(CLOCK_MONOTONIC) + START_MS;
	uint32_t left = 1;

	TRY(watch_scan(agent->watch));
	while (agent->flags.window_ms && (left > 0 || tables_pending(agent->tables) > 0) && !stopped && clock_ms(CLOCK_MONOTONIC) < give_up_ms)
		TRY(turn(agent, START_PAUSE_MS, &left));
	return NULL;
}

static struct err *write_file(const char *path, const struct buf *content)
{
	bool is_stdout = strcmp(path, "-") == 0;
	CLEANUP(closep) int opened = is_stdout ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int fd = is_stdout ? STDOUT_FILENO : opened;

	if (fd < 0)
		return err_os(errno, "%s", path);
	for (size_t done = 0; done < content->len;) {
		ssize_t n = write(fd, content->data + done, content->len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_os(errno, "%s", path);
		done += (size_t)n;
	}
	return NULL;
}

/** One line with what was sampled, one with every counter that is not 0. */
static void report(const struct agent *agent)
{
	struct tables_counters tables;
	struct watch_counters watch;
	uint64_t counters[SAMPLE_COUNTERS], user = 0;
	char line[1024] = "";

	sampler_counters(agent->sampler, counters);
	tables_counters(agent->tables, &tables);
	watch_counters(agent->watch, &watch);
	for (unsigned i = 0; i < UNWIND_ENDS; i++)
		user += counters[i];
	for (unsigned i = 0; i < SAMPLE_COUNTERS; i++) {
		size_t len = strlen(line);
		if (counters[i] > 0)
			snprintf(line + len, sizeof(line) - len, "%s%s=%" PRIu64, len ? " " : "", sampler_counter_name(i), counters[i]);
	}
	log_info("samples", "records=%" PRIu64 " user_stacks=%" PRIu64 " complete_permille=%" PRIu64 " cpus=%u lost_process_events=%" PRIu64,
		agent->records, user, user ? counters[UNWIND_END_COMPLETE] * 1000 / user : 0, sampler_cpus(agent->sampler), agent->lost_events);
	log_info("counters", "%s", line);
	const struct exes_counters *exes = &tables.exes;
	log_info("tables", "processes=%" PRIu64 " executables=%" PRIu64 " pending=%" PRIu64 " deltas=%" PRIu64 " mappings=%" PRIu64
			   " synced=%" PRIu64 " unchanged=%" PRIu64 " cut=%" PRIu64 " gone=%" PRIu64 " dropped=%" PRIu64,
		tables.processes, exes->count, exes->pending, exes->deltas, tables.mappings, tables.processes_synced,
		tables.processes_unchanged, tables.mappings_cut, tables.processes_failed, watch.dropped);
	log_info("unwind-tables", "refused=%" PRIu64 " crashed=%" PRIu64 " late=%" PRIu64 " full=%" PRIu64 " evicted=%" PRIu64
				  " debug_files=%" PRIu64 " infos_dropped=%" PRIu64 " build_ms=%" PRIu64 " build_peak_mb=%" PRIu64,
		exes->refused, exes->crashed, exes->late, exes->full, exes->evicted, exes->debug_files, exes->infos_dropped,
		exes->build_ns / 1000000, exes->build_peak_bytes >> 20);
}

/** Sends the window that ends. A collector that is away costs the window, not the agent. */
static struct err *export_window(struct agent *agent, uint64_t from_ms, bool is_last)
{
	CLEANUP(buf_deinit) struct buf out = {0};

	TRY(otlp_encode(agent->otlp, from_ms * 1000000, (clock_ms(CLOCK_REALTIME) - from_ms) * 1000000, &out));
	struct err *e = otlp_export(agent->flags.collector, &out);
	if (e && is_last)
		return e;
	if (e) {
		agent->exports_failed++;
		log_warn("export", "failed=%" PRIu64 " bytes_lost=%zu reason=\"%s\"", agent->exports_failed, out.len, err_message(e));
		err_free(e);
	}
	otlp_destroy(agent->otlp);
	agent->otlp = NULL;
	tables_trim(agent->tables);
	return otlp_create(agent->tables, agent->kernel, agent->flags.sampler.hz, &agent->otlp);
}

static struct err *write_window(struct agent *agent, uint64_t from_ms)
{
	CLEANUP(buf_deinit) struct buf out = {0};

	TRY(collect_write_pprof(agent->collect, from_ms * 1000000, clock_ms(CLOCK_REALTIME) * 1000000, &out));
	return write_file(agent->flags.output, &out);
}

static struct err *sample_until(struct agent *agent, uint64_t end_ms)
{
	uint32_t left = 0;

	for (uint64_t now = clock_ms(CLOCK_MONOTONIC); now < end_ms && !stopped; now = clock_ms(CLOCK_MONOTONIC))
		TRY(turn(agent, end_ms - now < POLL_MS ? (int)(end_ms - now) : POLL_MS, &left));
	return NULL;
}

static struct err *run(struct agent *agent)
{
	uint32_t left = 0;

	TRY(sampler_listen(agent->sampler));
	TRY(read_all(agent));
	TRY(sampler_start(agent->sampler));
	uint64_t from_ms = clock_ms(CLOCK_REALTIME);
	while (!agent->flags.window_ms && !stopped) {
		TRY(sample_until(agent, clock_ms(CLOCK_MONOTONIC) + REPORT_MS));
		TRY(turn(agent, 0, &left));
		if (!stopped)
			TRY(export_window(agent, from_ms, false));
		if (!stopped)
			from_ms = clock_ms(CLOCK_REALTIME);
	}
	TRY(sample_until(agent, clock_ms(CLOCK_MONOTONIC) + agent->flags.window_ms));
	sampler_stop(agent->sampler);
	TRY(turn(agent, 0, &left));
	TRY(agent->otlp ? export_window(agent, from_ms, true) : write_window(agent, from_ms));
	report(agent);
	return NULL;
}

static struct err *start(struct agent *agent)
{
	TRY(sampler_create(&agent->flags.sampler, &agent->sampler));
	TRY(tables_create(sampler_arrays(agent->sampler), NULL, &agent->tables));
	TRY(watch_create(agent->tables, &agent->watch));
	TRY(kernel_create("/proc/kallsyms", &agent->kernel));
	if (kernel_symbol_count(agent->kernel) == 0)
		log_warn("kernel-names", "none=\"/proc/kallsyms shows no addresses: CAP_SYSLOG is missing, or kernel.kptr_restrict is 2\"");
	if (agent->flags.collector)
		return otlp_create(agent->tables, agent->kernel, agent->flags.sampler.hz, &agent->otlp);
	return collect_create(agent->tables, agent->kernel, agent->flags.sampler.hz, &agent->collect);
}

static void finish(struct agent *agent)
{
	otlp_destroy(agent->otlp);
	collect_destroy(agent->collect);
	kernel_destroy(agent->kernel);
	watch_destroy(agent->watch);
	tables_destroy(agent->tables);
	sampler_destroy(agent->sampler);
}

static const char help[] =
	"usage: cairn-agent --once DURATION -o FILE [options]\n"
	"       cairn-agent --protocol otlp --collector HOST:PORT [--once DURATION] [options]\n"
	"Samples all CPUs of this machine, and writes a profile (pprof, gzip) with build IDs, or sends one every 5 s.\n"
	"\n"
	"  --once DURATION            one window of this length: 500ms, 10s, 2m\n"
	"  -o, --output FILE          where the profile goes; - is standard output\n"
	"  --protocol otlp            OpenTelemetry's profiles over gRPC, without TLS\n"
	"  --collector HOST:PORT      where to\n"
	"  --samples-per-second N     per CPU, 1 to 1000 (20)\n"
	"  --pid PID                  this process only\n"
	"  --off-cpu-threshold P      of threads that leave a CPU this share is sampled, 0 to 1 (0: none)\n"
	"  --uprobe PATH:SYMBOL       hits of this function are sampled; also PATH+0xOFFSET; may be repeated\n"
	"  --ring-bytes N             room for samples that wait to be read (4194304)\n"
	"  --deltas-max N, --pages-max N, --mappings-max N\n"
	"                             most places in the unwinder's tables (8388608, 524288, 262144)\n"
	"  --sysfs DIR                where CPUs are listed (/sys)\n"
	"  --no-task-regs, --no-regs-helper, --no-bpf-loop\n"
	"                             work as on kernels without BTF, bpf_task_pt_regs (5.15), bpf_loop (5.17)\n"
	"  --verifier-log             what libbpf and the verifier say, to standard error\n"
	"  --help, --version\n"
	"\n"
	"Needs root, or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE (CAP_SYSLOG for kernel names), and Linux 5.17.\n";

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	char *end = NULL;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value < min || value > max)
		return false;
	*ret = value;
	return true;
}

/** "500ms", "10s", "2m" in milliseconds, 1 to WINDOW_MAX_MS. */
static bool parse_duration(const char *text, uint64_t *ret)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}};
	char digits[16];
	size_t len = strspn(text, "0123456789");
	uint64_t value = 0;

	if (len == 0 || len >= sizeof(digits))
		return false;
	memcpy(digits, text, len);
	digits[len] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(text + len, units[i].unit) != 0 || !parse_number(digits, 1, WINDOW_MAX_MS / units[i].ms, &value))
			continue;
		*ret = value * units[i].ms;
		return true;
	}
	return false;
}

enum { FLAG_ONCE = 256, FLAG_HZ, FLAG_PID, FLAG_NO_TASK_REGS, FLAG_VERIFIER_LOG, FLAG_HELP, FLAG_VERSION, FLAG_PROTOCOL, FLAG_COLLECTOR,
	FLAG_OFF_CPU, FLAG_UPROBE, FLAG_RING, FLAG_DELTAS, FLAG_PAGES, FLAG_MAPPINGS, FLAG_SYSFS, FLAG_NO_REGS_HELPER, FLAG_NO_BPF_LOOP };

/** What the kernel half takes; false: its value is wrong. */
static bool take_sampler_flag(struct flags *flags, int flag, const char *value)
{
	struct sampler_options *o = &flags->sampler;
	uint64_t number = 0;
	char *end = NULL;

	switch (flag) {
	case FLAG_OFF_CPU: {
		double share = strtod(value, &end);
		if (end == value || *end || !(share >= 0 && share <= 1))
			return false;
		o->off_cpu_threshold = share < 1 ? (uint32_t)(share * 4294967296.0) : UINT32_MAX;
		return true;
	}
	case FLAG_UPROBE:
		if (o->probe_count == SAMPLER_PROBES_MAX)
			return false;
		flags->probes[o->probe_count++] = value;
		o->probes = flags->probes;
		return true;
	case FLAG_RING:
		if (!parse_number(value, 4096, 1 << 30, &number) || (number & (number - 1)) != 0)
			return false;
		o->ring_bytes = (uint32_t)number;
		return true;
	case FLAG_DELTAS:
	case FLAG_PAGES:
	case FLAG_MAPPINGS:
		if (!parse_number(value, 1, 1 << 28, &number))
			return false;
		*(flag == FLAG_DELTAS ? &o->deltas_max : flag == FLAG_PAGES ? &o->pages_max : &o->mappings_max) = (uint32_t)number;
		return true;
	case FLAG_SYSFS:
		o->sysfs = value;
		return true;
	case FLAG_NO_TASK_REGS:
		return o->without_task_regs = true;
	case FLAG_NO_REGS_HELPER:
		return o->without_regs_helper = true;
	case FLAG_NO_BPF_LOOP:
		return o->without_loop = true;
	default:
		return false;
	}
}

/** One flag; false: its value is wrong. */
static bool take_flag(struct flags *flags, int flag, const char *value)
{
	uint64_t number = 0;

	switch (flag) {
	case FLAG_ONCE:
		return parse_duration(value, &flags->window_ms);
	case FLAG_PROTOCOL:
		return strcmp(value, "otlp") == 0;
	case FLAG_COLLECTOR:
		flags->collector = value;
		return true;
	case 'o':
		flags->output = value;
		return true;
	case FLAG_HZ:
		if (!parse_number(value, 1, SAMPLER_HZ_MAX, &number))
			return false;
		flags->sampler.hz = (uint32_t)number;
		return true;
	case FLAG_PID:
		if (!parse_number(value, 1, INT32_MAX, &number))
			return false;
		flags->sampler.only_pid = (uint32_t)number;
		return true;
	case FLAG_VERIFIER_LOG:
		flags->sampler.verifier_log = true;
		return true;
	default:
		return take_sampler_flag(flags, flag, value);
	}
}

/** -1: go on; else the exit code. */
static int parse_flags(int argc, char **argv, struct flags *flags)
{
	static const struct option options[] = {{"once", required_argument, NULL, FLAG_ONCE}, {"output", required_argument, NULL, 'o'},
		{"protocol", required_argument, NULL, FLAG_PROTOCOL}, {"collector", required_argument, NULL, FLAG_COLLECTOR},
		{"samples-per-second", required_argument, NULL, FLAG_HZ}, {"pid", required_argument, NULL, FLAG_PID},
		{"no-task-regs", no_argument, NULL, FLAG_NO_TASK_REGS},
		{"no-regs-helper", no_argument, NULL, FLAG_NO_REGS_HELPER}, {"no-bpf-loop", no_argument, NULL, FLAG_NO_BPF_LOOP},
		{"off-cpu-threshold", required_argument, NULL, FLAG_OFF_CPU}, {"uprobe", required_argument, NULL, FLAG_UPROBE},
		{"ring-bytes", required_argument, NULL, FLAG_RING}, {"deltas-max", required_argument, NULL, FLAG_DELTAS},
		{"pages-max", required_argument, NULL, FLAG_PAGES}, {"mappings-max", required_argument, NULL, FLAG_MAPPINGS},
		{"sysfs", required_argument, NULL, FLAG_SYSFS}, {"verifier-log", no_argument, NULL, FLAG_VERIFIER_LOG},
		{"help", no_argument, NULL, FLAG_HELP}, {"version", no_argument, NULL, FLAG_VERSION}, {0}};
	int flag = 0;

	while ((flag = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
		if (flag == FLAG_HELP || flag == FLAG_VERSION) {
			fputs(flag == FLAG_HELP ? help : "cairn-agent " CAIRN_VERSION "\n", stdout);
			return 0;
		}
		if (flag == '?')
			return 2;
		if (!take_flag(flags, flag, optarg)) {
			fprintf(stderr, "cairn-agent: %s: not a value that is taken here; see --help\n", optarg ? optarg : "?");
			return 2;
		}
	}
	bool is_whole = flags->collector ? !flags->output : flags->output && flags->window_ms;
	if (optind != argc || !is_whole) {
		fprintf(stderr, "cairn-agent: either --once DURATION and -o FILE, or --collector HOST:PORT, and nothing else; see --help\n");
		return 2;
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct agent agent = {.flags = {.sampler = {.hz = 20}}};
	int code = parse_flags(argc, argv, &agent.flags);

	if (code >= 0)
		return code;
	(void)signal(SIGINT, on_signal);
	(void)signal(SIGTERM, on_signal);
	(void)signal(SIGCHLD, on_child);
	struct err *e = start(&agent);
	if (!e)
		e = run(&agent);
	if (e)
		fprintf(stderr, "cairn-agent: %s\n", err_message(e));
	code = e != NULL;
	err_free(e);
	finish(&agent);
	return code;
}

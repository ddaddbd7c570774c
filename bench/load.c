// SPDX-License-Identifier: Apache-2.0
/*
 * load: sends the samples of a made-up machine (bench/workload.h) by the agent's stream or by OTLP, and says what became of them.
 * bench/README.md says how it is used.
 */
#include "bench/load.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
	"usage: load [--address HOST:PORT] [--protocol stream|otlp] [--samples N] [--rate R] [--seed S]\n"
	"            [--cpus N] [--hz N] [--traces N] [--processes N] [--report-ms N] [--gzip LEVEL] [--patience S]\n"
	"            [--record FILE] [--replay FILE [--keep-times]]\n"
	"\n"
	"Sends N samples (1000000) of a machine with --cpus (64) sampled at --hz (20), in reports of --report-ms (5000) of\n"
	"its time that end now, at R samples a second (0: as fast as the server takes them). Waits for every acknowledgement,\n"
	"connects again for --patience seconds (60), and prints the totals as key=value.\n"
	"--record writes the stream's envelopes to FILE too (without --address: only there); --replay sends such a file, moved in\n"
	"time so that it ends now and as another instance, unless --keep-times says: as recorded.\n";

uint64_t load_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* -------------------------------------------------------------------------------------- reports */

static bool rate_allows(const struct load_queue *queue)
{
	uint64_t rate = queue->options->rate;

	return rate == 0 || (double)queue->made < (double)rate * (double)(load_now_ns() - queue->start_ns) / 1e9 + 1;
}

struct err *load_queue_fill(struct load_queue *queue)
{
	uint64_t report_ns = queue->options->report_ms * 1000000;

	while (queue->count < LOAD_WINDOW && queue->made < queue->options->samples && rate_allows(queue)) {
		size_t cap = workload_report_max(queue->workload, report_ns);
		struct load_report report = {.sequence = queue->next_sequence};
		report.samples = calloc(cap, sizeof(*report.samples));
		if (!report.samples)
			return err_nomem();
		report.count = workload_report(queue->workload, report_ns, report.samples, cap);
		if (report.count > queue->options->samples - queue->made)
			report.count = queue->options->samples - queue->made;
		if (report.count == 0) {
			free(report.samples);
			continue;
		}
		queue->made += report.count;
		queue->next_sequence++;
		queue->totals->reports++;
		queue->totals->samples += report.count;
		queue->items[queue->count++] = report;
	}
	return NULL;
}

bool load_queue_is_done(const struct load_queue *queue)
{
	return queue->count == 0 && queue->made >= queue->options->samples;
}

bool load_queue_acknowledge(struct load_queue *queue, uint64_t sequence)
{
	for (uint32_t i = 0; i < queue->count; i++) {
		if (queue->items[i].sequence != sequence)
			continue;
		queue->totals->acknowledged += queue->items[i].count;
		queue->totals->reports_acknowledged++;
		free(queue->items[i].samples);
		memmove(&queue->items[i], &queue->items[i + 1], (queue->count - i - 1) * sizeof(queue->items[0]));
		queue->count--;
		return true;
	}
	return false;
}

void load_queue_deinit(struct load_queue *queue)
{
	for (uint32_t i = 0; i < queue->count; i++)
		free(queue->items[i].samples);
	queue->count = 0;
	workload_destroy(queue->workload);
}

/* -------------------------------------------------------------------------------------- connections */

struct err *load_connect(const struct load_options *options, struct load_totals *totals, struct net_grpc_client **ret)
{
	struct net_grpc_client_options client = {.gzip_level = options->gzip_level, .user_agent = "cairn-load"};
	uint64_t end = load_now_ns() + options->patience_s * 1000000000;

	for (;;) {
		struct err *e = net_grpc_client_connect(options->address, &client, ret);
		if (!e) {
			totals->connects++;
			return NULL;
		}
		if (err_code(e) != ERR_PEER || load_now_ns() > end)
			return e;
		err_free(e);
		(void)usleep(20000);
	}
}

void load_disconnect(struct load_totals *totals, struct net_grpc_client **client)
{
	uint64_t sent, received;

	if (!*client)
		return;
	net_grpc_client_bytes(*client, &sent, &received);
	totals->wire_sent += sent;
	totals->wire_received += received;
	net_grpc_client_destroy(TAKE_PTR(*client));
}

/* -------------------------------------------------------------------------------------- the program */

static bool parse_number(const char *text, uint64_t *ret)
{
	char *end;

	*ret = strtoull(text, &end, 10);
	return end != text && *end == 0 && text[0] != '-';
}

enum { OPT_ADDRESS = 256, OPT_PROTOCOL, OPT_SAMPLES, OPT_RATE, OPT_SEED, OPT_CPUS, OPT_HZ, OPT_TRACES, OPT_PROCESSES, OPT_REPORT_MS,
	OPT_GZIP, OPT_PATIENCE, OPT_RECORD, OPT_REPLAY, OPT_KEEP_TIMES, OPT_HELP };

static const struct option long_options[] = {{"address", 1, 0, OPT_ADDRESS}, {"protocol", 1, 0, OPT_PROTOCOL},
	{"samples", 1, 0, OPT_SAMPLES}, {"rate", 1, 0, OPT_RATE}, {"seed", 1, 0, OPT_SEED}, {"cpus", 1, 0, OPT_CPUS}, {"hz", 1, 0, OPT_HZ},
	{"traces", 1, 0, OPT_TRACES}, {"processes", 1, 0, OPT_PROCESSES}, {"report-ms", 1, 0, OPT_REPORT_MS}, {"gzip", 1, 0, OPT_GZIP},
	{"patience", 1, 0, OPT_PATIENCE}, {"record", 1, 0, OPT_RECORD}, {"replay", 1, 0, OPT_REPLAY},
	{"keep-times", 0, 0, OPT_KEEP_TIMES}, {"help", 0, 0, OPT_HELP}, {0}};

static bool set_number(struct load_options *options, int option, uint64_t number)
{
	switch (option) {
	case OPT_SAMPLES:
		options->samples = number;
		return number > 0;
	case OPT_RATE:
		options->rate = number;
		return true;
	case OPT_SEED:
		options->workload.seed = number;
		return true;
	case OPT_CPUS:
		options->workload.cpus = (uint32_t)number;
		return number > 0 && number < 65535;
	case OPT_HZ:
		options->workload.hz = (uint32_t)number;
		return number > 0 && number <= 10000;
	case OPT_TRACES:
		options->workload.traces = (uint32_t)number;
		return number >= 64 && number <= 1000000;
	case OPT_PROCESSES:
		options->workload.processes = (uint32_t)number;
		return number > 0 && number <= 4000;
	case OPT_REPORT_MS:
		options->report_ms = number;
		return number > 0 && number <= 3600000;
	case OPT_GZIP:
		options->gzip_level = (int)number;
		return number <= 9;
	case OPT_PATIENCE:
		options->patience_s = number;
		return number <= 86400;
	default:
		return false;
	}
}

/* 0: run; otherwise the exit status, less 1. */
static int parse(int argc, char **argv, struct load_options *options)
{
	uint64_t number;
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case OPT_HELP:
			(void)fputs(help, stdout);
			return 1;
		case OPT_ADDRESS:
			options->address = optarg;
			break;
		case OPT_PROTOCOL:
			options->protocol = optarg;
			break;
		case OPT_RECORD:
			options->record = optarg;
			break;
		case OPT_REPLAY:
			options->replay = optarg;
			break;
		case OPT_KEEP_TIMES:
			options->keep_times = true;
			break;
		default:
			if (option == '?' || !parse_number(optarg, &number) || !set_number(options, option, number)) {
				(void)fprintf(stderr, "load: see load --help\n");
				return 3;
			}
		}
	}
	bool otlp = strcmp(options->protocol, "otlp") == 0;
	if (optind != argc || (!otlp && strcmp(options->protocol, "stream") != 0) || (!options->address && (!options->record || otlp))) {
		(void)fprintf(stderr, "load: --address is missing, or something makes no sense; see load --help\n");
		return 3;
	}
	return 0;
}

static void print_totals(const struct load_totals *totals, uint64_t ns)
{
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {{"samples", totals->samples}, {"acknowledged", totals->acknowledged}, {"rejected_future", totals->rejected_future},
		{"rejected_old", totals->rejected_old}, {"duplicate_reports", totals->duplicates}, {"reports", totals->reports},
		{"reports_acknowledged", totals->reports_acknowledged}, {"resent", totals->resent}, {"connects", totals->connects},
		{"failures", totals->failures}, {"needs", totals->needs}, {"paces", totals->paces}, {"wants", totals->wants},
		{"wire_sent_bytes", totals->wire_sent}, {"wire_received_bytes", totals->wire_received}};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		(void)printf("%s=%" PRIu64 "\n", rows[i].name, rows[i].value);
	if (totals->acknowledged)
		(void)printf("wire_bytes_per_sample=%.3f\n", (double)totals->wire_sent / (double)totals->acknowledged);
	(void)printf("seconds=%.3f\nsamples_per_second=%.0f\n", (double)ns / 1e9, (double)totals->acknowledged * 1e9 / (double)ns);
}

static struct err *generate(struct load_options *options, struct load_totals *totals)
{
	struct workload_options *w = &options->workload;
	struct load_queue queue = {.options = options, .next_sequence = 1, .totals = totals, .start_ns = load_now_ns()};
	uint64_t hz = w->hz ? w->hz : 20, cpus = w->cpus ? w->cpus : 64;
	struct timespec now;

	/* A fifth of the ticks is idle; a report more for what is uneven. */
	(void)clock_gettime(CLOCK_REALTIME, &now);
	uint64_t duration_ms = options->samples * 1000 / (hz * cpus) * 100 / 79 + 2 * options->report_ms;
	w->start_unix_nano = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - duration_ms * 1000000;
	TRY(workload_create(w, &queue.workload));
	queue.start_ns = load_now_ns();
	struct err *e = strcmp(options->protocol, "otlp") == 0 ? load_otlp(options, &queue) : load_stream(options, &queue);
	(void)fprintf(stderr, "load: %u traces, %.1f frames on average\n", queue.workload->options.traces, queue.workload->depth_mean);
	load_queue_deinit(&queue);
	return e;
}

int main(int argc, char **argv)
{
	struct load_options options = {.protocol = "stream", .samples = 1000000, .report_ms = 5000, .patience_s = 60, .gzip_level = 6};
	struct load_totals totals = {0};
	int stop = parse(argc, argv, &options);

	if (stop)
		return stop - 1;
	uint64_t start = load_now_ns();
	struct err *e = options.replay ? load_replay(&options, &totals) : generate(&options, &totals);
	print_totals(&totals, load_now_ns() - start);
	if (e) {
		(void)fprintf(stderr, "load: %s\n", err_message(e));
		err_free(e);
		return 1;
	}
	return 0;
}

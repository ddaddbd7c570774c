// SPDX-License-Identifier: Apache-2.0
/*
 * How fast OTLP becomes samples: messages as the OpenTelemetry eBPF profiler makes them (bench/workload.h: 64 CPUs at 20 Hz, a report
 * every 5 s), made first, then read.
 *
 *     otlp_decode DATA_DIR [REPORTS [new]]
 *
 * Without `new` all reports are of one machine, as of an agent that was just started: at first every trace is new, after ten minutes few are.
 * With it each report is of another machine, so that every trace, call site and name is new.
 *
 *     read     profiles/otlp.c alone: every profile, sample, value and timestamp is looked at
 *     decode   all that Export does before the commit: labels, stacks, keys, the batch
 *     store    decode and commit, until all is durable; on one core: bytes by CPU time of all threads of the process, the kernel's work included
 */
#include "bench/load.h"
#include "profiles/otlp_intake.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { REPORT_S = 5, SAMPLES_MAX = 65536 };

struct messages {
	struct buf bytes;
	size_t *ends;
	size_t count;
	uint64_t samples;
	uint64_t traces, new_traces; /* different ones in a message, of all messages; those that no message before had */
	uint32_t *seen;		     /* of each trace of the machine: the last message that had it, plus 1 */
};

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void count_traces(struct messages *messages, const struct load_report *report)
{
	for (size_t i = 0; i < report->count; i++) {
		uint32_t *seen = &messages->seen[report->samples[i].trace];
		messages->new_traces += *seen == 0;
		messages->traces += *seen != messages->count + 1;
		*seen = (uint32_t)messages->count + 1;
	}
}

static struct err *make_messages(size_t count, bool all_new, struct messages *ret)
{
	CLEANUP(workload_destroyp) struct workload *workload = NULL;
	CLEANUP(freep) struct workload_sample *samples = calloc(SAMPLES_MAX, sizeof(*samples));
	struct workload_options options = {.seed = 1,
		.start_unix_nano = now_ns(CLOCK_REALTIME) - (count + 1) * REPORT_S * UINT64_C(1000000000)};

	ret->ends = calloc(count, sizeof(*ret->ends));
	if (!samples || !ret->ends)
		return err_nomem();
	for (; ret->count < count; ret->count++) {
		struct load_report report = {.samples = samples};
		if (!workload || all_new) {
			workload_destroy(TAKE_PTR(workload));
			TRY(workload_create(&options, &workload));
			options.seed++;
			free(ret->seen);
			ret->seen = calloc(workload->options.traces, sizeof(*ret->seen));
			if (!ret->seen)
				return err_nomem();
		}
		report.count = workload_report(workload, REPORT_S * UINT64_C(1000000000), samples, SAMPLES_MAX);
		count_traces(ret, &report);
		TRY(load_otlp_encode(workload, &report, &ret->bytes));
		ret->ends[ret->count] = ret->bytes.len;
		ret->samples += report.count;
	}
	return NULL;
}

static struct wire_span message(const struct messages *messages, size_t i)
{
	size_t start = i ? messages->ends[i - 1] : 0;

	return (struct wire_span){messages->bytes.data + start, messages->ends[i] - start};
}

static uint64_t walk_sample(struct otlp_sample *sample)
{
	uint64_t number, seen = 0;

	while (wire_repeated_next(&sample->timestamps, &number))
		seen++;
	while (wire_repeated_next(&sample->values, &number) || wire_repeated_next(&sample->attributes, &number))
		;
	return seen;
}

static struct err *read_all(const struct messages *messages, struct samples *samples, uint64_t *seen_ret)
{
	struct otlp_profile profile;
	struct otlp_sample sample;
	const char *fault;

	(void)samples;
	for (size_t i = 0; i < messages->count; i++) {
		CLEANUP(arena_deinit) struct arena arena = {0};
		struct otlp_request request;
		TRY(otlp_open(message(messages, i), &arena, &request));
		struct otlp_cursor cursor = {.request = &request};
		while (otlp_next_profile(&cursor, &profile, &fault)) {
			struct reader r = wire_reader(profile.body, NULL);
			while (otlp_next_sample(&request, &r, &sample))
				*seen_ret += walk_sample(&sample);
		}
	}
	return NULL;
}

static struct err *decode_one(struct wire_span bytes, struct samples_batch *batch, uint64_t *seen_ret)
{
	CLEANUP(arena_deinit) struct arena arena = {0};
	struct otlp_request request;
	struct otlp_intake_result result;

	TRY(otlp_open(bytes, &arena, &request));
	TRY(otlp_intake(&request, &arena, now_ns(CLOCK_REALTIME), batch, &result));
	*seen_ret += result.samples;
	return result.rejected_profiles ? err_new(ERR_INVALID, "%s", result.message) : NULL;
}

static struct err *decode_all(const struct messages *messages, struct samples *samples, uint64_t *seen_ret)
{
	for (size_t i = 0; i < messages->count; i++) {
		CLEANUP(samples_batch_destroyp) struct samples_batch *batch = NULL;
		TRY(samples_batch_create(samples, 1, &batch));
		TRY(decode_one(message(messages, i), batch, seen_ret));
	}
	return NULL;
}

static struct err *store_all(const struct messages *messages, struct samples *samples, uint64_t *seen_ret)
{
	for (size_t i = 0; i < messages->count; i++) {
		CLEANUP(samples_batch_destroyp) struct samples_batch *batch = NULL;
		struct samples_result result;
		uint64_t decoded = 0;
		TRY(samples_batch_create(samples, 1, &batch));
		TRY(decode_one(message(messages, i), batch, &decoded));
		TRY(samples_commit_wait(&batch, &result));
		*seen_ret += result.samples;
	}
	return NULL;
}

static struct err *measure(const char *name, const struct messages *messages, struct samples *samples,
	struct err *(*what)(const struct messages *, struct samples *, uint64_t *))
{
	uint64_t seen = 0, wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);

	TRY(what(messages, samples, &seen));
	double seconds = (double)(now_ns(CLOCK_MONOTONIC) - wall) / 1e9;
	double cpu_seconds = (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9;
	double bytes = (double)messages->bytes.len;
	printf("%-7s %7.0f MB/s of CPU time, %7.0f MB/s of wall time, %9.0f samples/s of CPU time\n", name, bytes / 1e6 / cpu_seconds,
		bytes / 1e6 / seconds, (double)seen / cpu_seconds);
	return seen == messages->samples ? NULL : err_new(ERR_INTERNAL, "%s: %" PRIu64 " samples of %" PRIu64, name, seen, messages->samples);
}

static struct err *run(const char *data_dir, size_t reports, bool all_new, struct messages *messages, struct samples **samples)
{
	struct samples_options options = {.data_dir = data_dir, .map_max = UINT64_C(16) << 30};

	TRY(make_messages(reports, all_new, messages));
	printf("%zu messages, %.1f MB, %" PRIu64 " samples, %.1f bytes a sample, %.0f traces a message, %.1f %% of them new\n", messages->count,
		(double)messages->bytes.len / 1e6, messages->samples, (double)messages->bytes.len / (double)messages->samples,
		(double)messages->traces / (double)messages->count, 100.0 * (double)messages->new_traces / (double)messages->traces);
	TRY(samples_open(&options, samples));
	TRY(measure("read", messages, *samples, read_all));
	TRY(measure("decode", messages, *samples, decode_all));
	return measure("store", messages, *samples, store_all);
}

int main(int argc, char **argv)
{
	struct messages messages = {0};
	struct samples *samples = NULL;

	if (argc < 2) {
		fprintf(stderr, "usage: otlp_decode DATA_DIR [REPORTS [new]]\n");
		return 2;
	}
	struct err *e = run(argv[1], argc > 2 ? strtoul(argv[2], NULL, 10) : 120, argc > 3 && strcmp(argv[3], "new") == 0, &messages, &samples);
	if (e)
		fprintf(stderr, "otlp_decode: %s\n", err_message(e));
	samples_close(samples);
	buf_deinit(&messages.bytes);
	free(messages.ends);
	free(messages.seen);
	int status = e != NULL;
	err_free(e);
	return status;
}

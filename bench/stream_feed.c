// SPDX-License-Identifier: Apache-2.0
/*
 * stream_feed RECORD DATA_DIR [ENVELOPES]: what taking in a recorded stream (load --record) costs on one core: envelopes to batches, and then
 * the commits, each for itself in CPU time of this process (of all its threads). A commit has so many envelopes of samples (a report of 5 s
 * each); without that number as many as a stream gathers at most.
 */
#include "profiles/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static void on_send(void *context, struct buf *take_message)
{
	(void)context;
	buf_deinit(take_message);
}

static uint64_t cpu_ns(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct err *read_all(const char *path, struct buf *ret)
{
	FILE *file = fopen(path, "re");
	size_t n = 1;

	if (!file)
		return err_new(ERR_OS, "%s: cannot be opened", path);
	struct err *e = NULL;
	while (!e && n > 0) {
		e = buf_reserve(ret, 1 << 20);
		if (!e)
			ret->len += n = fread(ret->data + ret->len, 1, 1 << 20, file);
	}
	(void)fclose(file);
	return e;
}

static struct err *run(const char *record, const char *data_dir, uint32_t envelopes)
{
	static const struct stream_ops ops = {.send = on_send};
	CLEANUP(buf_deinit) struct buf file = {0};
	CLEANUP(samples_closep) struct samples *samples = NULL;
	CLEANUP(stream_destroyp) struct stream *stream = NULL;
	struct stream_counters counters = {0};
	const struct samples_options samples_options = {.data_dir = data_dir, .map_max = UINT64_C(16) << 30};
	uint64_t feed_ns = 0, commit_ns = 0;

	TRY(read_all(record, &file));
	TRY(samples_open(&samples_options, &samples));
	const struct stream_options options = {.samples = samples, .tenant = 1, .ops = &ops, .counters = &counters};
	TRY(stream_create(&options, &stream));
	struct reader r = reader_init(file.data, file.len, false, record);
	reader_skip(&r, 8);
	while (reader_left(&r) > 0) {
		uint32_t len = reader_u32(&r);
		const uint8_t *bytes = reader_bytes(&r, len);
		uint64_t start = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
		if (!r.failed)
			TRY(stream_feed(stream, bytes, len));
		feed_ns += cpu_ns(CLOCK_THREAD_CPUTIME_ID) - start;
		struct samples_batch *batch;
		struct stream_ticket ticket;
		bool due = stream_is_full(stream) || reader_left(&r) == 0 || (envelopes && stream_gathered(stream) >= envelopes);
		if (due && stream_take(stream, &batch, &ticket)) {
			stream_ticket_deinit(&ticket);
			start = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
			TRY(samples_commit_wait(&batch, NULL));
			commit_ns += cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - start;
		}
	}
	uint64_t n = counters.samples;
	printf("samples=%" PRIu64 " needs=%" PRIu64 " feed_ns_per_sample=%.1f feed_samples_per_second=%.0f\n", n, counters.needs_samples,
		(double)feed_ns / (double)n, (double)n * 1e9 / (double)feed_ns);
	printf("commit_ns_per_sample=%.1f feed_and_commit_samples_per_second=%.0f\n", (double)commit_ns / (double)n,
		(double)n * 1e9 / (double)(feed_ns + commit_ns));
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 3 || argc > 4) {
		(void)fprintf(stderr, "usage: stream_feed RECORD DATA_DIR [ENVELOPES]\n");
		return 2;
	}
	struct err *e = run(argv[1], argv[2], argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0);
	if (!e)
		return 0;
	(void)fprintf(stderr, "stream_feed: %s\n", err_message(e));
	err_free(e);
	return 1;
}

// SPDX-License-Identifier: Apache-2.0
/* The spool across restarts, damage and its limit; and pauses between attempts to connect. */
#include "agent/connector.h"
#include "agent/spool.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MEGABYTE = 1 << 20 };

static char dir[] = "/tmp/cairn-spool-XXXXXX";

static void make(void)
{
	cr_assert_not_null(mkdtemp(dir));
}

static void clean(void)
{
	char command[64];
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(spool, .init = make, .fini = clean);

static struct spool *opened(uint64_t max)
{
	struct spool *spool = NULL;
	struct err *e = spool_open(dir, max, &spool);
	cr_assert_null(e, "%s", e ? err_message(e) : "");
	return spool;
}

/* A payload of one envelope of @p len bytes that are told by the sequence number. */
static uint64_t append(struct spool *spool, uint32_t len)
{
	struct buf payload = {0};
	uint64_t sequence = 0;
	cr_assert_null(spool_next_sequence(spool, &sequence));
	cr_assert_null(buf_reserve(&payload, 4 + len));
	for (int i = 0; i < 4; i++)
		buf_put_u8(&payload, (uint8_t)(len >> 8 * i));
	for (uint32_t i = 0; i < len; i++)
		buf_put_u8(&payload, (uint8_t)(sequence + i));
	cr_assert_null(spool_append(spool, sequence, 10, &payload));
	buf_deinit(&payload);
	return sequence;
}

static void expect_next(struct spool *spool, uint64_t sequence)
{
	struct buf payload = {0};
	struct wire_span envelope = {0};
	uint64_t got = 0;
	cr_assert(spool_next(spool, &got, &payload), "nothing, not %llu", (unsigned long long)sequence);
	cr_expect_eq(got, sequence, "%llu, not %llu", (unsigned long long)got, (unsigned long long)sequence);
	struct reader r = reader_init(payload.data, payload.len, false, "payload");
	cr_assert(spool_read_envelope(&r, &envelope));
	for (size_t i = 0; i < envelope.len; i++)
		cr_assert_eq(envelope.bytes[i], (uint8_t)(got + i));
	cr_assert_not(spool_read_envelope(&r, &envelope));
	cr_assert_not(r.failed);
	buf_deinit(&payload);
}

static void expect_end(struct spool *spool)
{
	struct buf payload = {0};
	uint64_t got = 0;
	cr_assert_not(spool_has_next(spool));
	cr_assert_not(spool_next(spool, &got, &payload));
	buf_deinit(&payload);
}

static struct spool_counters counters_of(const struct spool *spool)
{
	struct spool_counters counters;
	spool_counters(spool, &counters);
	return counters;
}

static void newest_segment(char path[300])
{
	DIR *listing = opendir(dir);
	char name[64] = "";
	for (const struct dirent *entry = readdir(listing); entry; entry = readdir(listing))
		if (strstr(entry->d_name, ".spool") && strcmp(entry->d_name, name) > 0)
			snprintf(name, sizeof(name), "%.63s", entry->d_name);
	closedir(listing);
	cr_assert_neq(name[0], 0, "no segment");
	snprintf(path, 300, "%s/%s", dir, name);
}

static size_t segments(void)
{
	DIR *listing = opendir(dir);
	size_t count = 0;
	for (const struct dirent *entry = readdir(listing); entry; entry = readdir(listing))
		count += strstr(entry->d_name, ".spool") != NULL;
	closedir(listing);
	return count;
}

Test(spool, a_restart_keeps_reports_instance_and_numbers_and_not_what_was_acknowledged)
{
	struct spool *spool = opened(MEGABYTE);
	uint8_t instance[AGENT_INSTANCE_BYTES];
	memcpy(instance, spool_instance(spool), sizeof(instance));
	uint64_t a = append(spool, 100), b = append(spool, 200), c = append(spool, 0);
	expect_next(spool, a);
	cr_assert(spool_acknowledge(spool, b), "out of order is fine");
	cr_assert_not(spool_acknowledge(spool, b), "once");
	cr_assert_not(spool_acknowledge(spool, 999999));
	spool_close(spool);

	spool = opened(MEGABYTE);
	cr_assert_arr_eq(spool_instance(spool), instance, sizeof(instance));
	expect_next(spool, a);
	expect_next(spool, c);
	expect_end(spool);
	uint64_t d = append(spool, 5);
	cr_assert_gt(d, c, "numbers are not used twice");
	expect_next(spool, d);
	spool_rewind(spool);
	expect_next(spool, a);
	cr_assert(spool_acknowledge(spool, a) && spool_acknowledge(spool, c) && spool_acknowledge(spool, d));
	cr_assert_eq(segments(), 0u, "what is acknowledged leaves the disk");
	cr_assert_eq(counters_of(spool).dropped_reports, 0u);
	spool_close(spool);
	spool = opened(MEGABYTE);
	expect_end(spool);
	spool_close(spool);
}

Test(spool, past_the_limit_the_oldest_go_and_are_counted)
{
	struct spool *spool = opened(MEGABYTE);
	uint64_t first = 0, last = 0;
	for (int i = 0; i < 200; i++) {
		last = append(spool, 20000);
		first = first ? first : last;
		cr_assert_leq(counters_of(spool).bytes, (uint64_t)MEGABYTE);
	}
	struct spool_counters c = counters_of(spool);
	cr_expect_eq(c.reports + c.dropped_reports, 200u);
	cr_expect_eq(c.dropped_samples, 10 * c.dropped_reports);
	cr_expect_gt(c.dropped_reports, 100u);
	cr_expect_gt(c.reports, 40u, "%llu", (unsigned long long)c.reports);
	for (uint64_t sequence = first + c.dropped_reports; sequence <= last; sequence++)
		expect_next(spool, sequence);
	expect_end(spool);
	spool_close(spool);
}

Test(spool, a_half_written_end_costs_only_itself)
{
	char path[300];
	for (int cut = 1; cut < 150; cut += 7) {
		struct spool *spool = opened(MEGABYTE);
		while (spool_has_next(spool)) {
			struct buf payload = {0};
			uint64_t old = 0;
			(void)spool_next(spool, &old, &payload);
			cr_assert(spool_acknowledge(spool, old));
			buf_deinit(&payload);
		}
		uint64_t a = append(spool, 100), b = append(spool, 100);
		(void)b;
		newest_segment(path);
		spool_close(spool);
		struct stat st;
		cr_assert_eq(stat(path, &st), 0);
		int written = 4 + 100 + SPOOL_RECORD_HEAD;
		cr_assert_eq(truncate(path, st.st_size - (cut < written ? cut : written - 1)), 0);
		spool = opened(MEGABYTE);
		expect_next(spool, a);
		expect_end(spool);
		cr_assert_eq(counters_of(spool).damaged, 1u);
		append(spool, 3);
		spool_close(spool);
	}
}

Test(spool, damaged_bytes_are_never_handed_out)
{
	char path[300];
	struct spool *spool = opened(MEGABYTE);
	uint64_t a = append(spool, 50), b = append(spool, 50);
	newest_segment(path);
	struct stat st;
	cr_assert_eq(stat(path, &st), 0);
	spool_close(spool);
	for (off_t at = 0; at < st.st_size; at += 3) {
		uint8_t byte = 0, other;
		int fd = open(path, O_RDWR);
		cr_assert_eq(pread(fd, &byte, 1, at), 1);
		other = byte ^ 0x41;
		cr_assert_eq(pwrite(fd, &other, 1, at), 1);
		/* Its own copy, since opening deletes what has nothing to say. */
		char command[700];
		snprintf(command, sizeof(command), "cp -r %s %s.copy", dir, dir);
		cr_assert_eq(system(command), 0);
		snprintf(command, sizeof(command), "%s.copy", dir);
		struct err *e = spool_open(command, MEGABYTE, &spool);
		cr_assert_null(e, "byte %ld: %s", (long)at, e ? err_message(e) : "");
		struct buf payload = {0};
		uint64_t got = 0;
		while (spool_next(spool, &got, &payload)) {
			cr_assert(got == a || got == b);
			cr_assert_eq(payload.len, 54u);
			for (size_t i = 0; i < 50; i++)
				cr_assert_eq(payload.data[4 + i], (uint8_t)(got + i));
		}
		buf_deinit(&payload);
		spool_close(spool);
		snprintf(command, sizeof(command), "rm -rf %s.copy", dir);
		cr_assert_eq(system(command), 0);
		cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
		close(fd);
	}
}

Test(spool, damage_that_comes_while_it_is_open_is_counted_and_passed_over)
{
	char path[300];
	struct spool *spool = opened(MEGABYTE);
	(void)append(spool, 50);
	uint64_t b = append(spool, 50);
	newest_segment(path);
	int fd = open(path, O_RDWR);
	cr_assert_eq(pwrite(fd, "x", 1, SPOOL_SEGMENT_HEAD + SPOOL_RECORD_HEAD + 10), 1);
	close(fd);
	expect_next(spool, b);
	expect_end(spool);
	cr_assert_eq(counters_of(spool).dropped_samples, 10u);
	spool_close(spool);
}

Test(spool, without_its_state_the_numbers_go_on_behind_those_that_are_seen)
{
	struct spool *spool = opened(MEGABYTE);
	uint8_t instance[AGENT_INSTANCE_BYTES];
	char path[300];
	memcpy(instance, spool_instance(spool), sizeof(instance));
	uint64_t a = append(spool, 10);
	spool_close(spool);
	snprintf(path, sizeof(path), "%s/state", dir);
	cr_assert_eq(unlink(path), 0);
	spool = opened(MEGABYTE);
	cr_assert_arr_eq(spool_instance(spool), instance, sizeof(instance));
	expect_next(spool, a);
	cr_assert_gt(append(spool, 1), a + 1000);
	spool_close(spool);
}

Test(spool, one_agent_has_it)
{
	struct spool *spool = opened(MEGABYTE), *second = NULL;
	struct err *e = spool_open(dir, MEGABYTE, &second);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_BUSY);
	cr_assert_not_null(strstr(err_message(e), dir));
	err_free(e);
	spool_close(spool);
}

Test(spool, a_report_that_is_refused_again_and_again_is_dropped)
{
	struct spool *spool = opened(MEGABYTE);
	uint64_t a = append(spool, 10);
	int times = 0;
	while (spool_has_next(spool) && times < 100) {
		expect_next(spool, a);
		cr_assert(spool_refused(spool, a));
		times++;
	}
	cr_assert_gt(times, 1);
	cr_assert_lt(times, 20);
	cr_assert_eq(counters_of(spool).dropped_samples, 10u);
	cr_assert_not(spool_refused(spool, 77));
	spool_close(spool);
}

Test(spool, a_folder_that_cannot_be_made_is_named)
{
	struct spool *spool = NULL;
	struct err *e = spool_open("/proc/nowhere/spool", MEGABYTE, &spool);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_OS);
	cr_assert_not_null(strstr(err_message(e), "/proc/nowhere/spool"));
	err_free(e);
}

Test(connector_pause_ms, doubles_with_jitter_up_to_its_limit)
{
	for (unsigned failures = 0; failures < 100; failures++) {
		uint64_t middle = failures < 7 ? (uint64_t)CONNECTOR_PAUSE_FIRST_MS << failures : CONNECTOR_PAUSE_MAX_MS;
		middle = middle < CONNECTOR_PAUSE_MAX_MS ? middle : CONNECTOR_PAUSE_MAX_MS;
		for (uint64_t random = 0; random < 100000; random += 997) {
			uint64_t pause = connector_pause_ms(failures, random * 7919);
			cr_assert_geq(pause, middle * 3 / 4);
			cr_assert_leq(pause, middle * 5 / 4);
		}
	}
	cr_assert_neq(connector_pause_ms(3, 1), connector_pause_ms(3, 900));
}

Test(connector_asked_pause_ms, is_what_was_asked_for_within_bounds)
{
	static const struct {
		uint64_t asked, least;
	} cases[] = {{0, CONNECTOR_PAUSE_FIRST_MS}, {1, CONNECTOR_PAUSE_FIRST_MS}, {10000, 10000}, {CONNECTOR_ASKED_MAX_MS, CONNECTOR_ASKED_MAX_MS},
		{UINT64_MAX, CONNECTOR_ASKED_MAX_MS}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (uint64_t random = 0; random < 100000; random += 997) {
			uint64_t pause = connector_asked_pause_ms(cases[i].asked, random * 7919);
			cr_expect_geq(pause, cases[i].least, "%zu", i);
			cr_expect_leq(pause, cases[i].least * 5 / 4, "%zu", i);
		}
	}
}

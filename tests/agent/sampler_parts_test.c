// SPDX-License-Identifier: Apache-2.0
/* What stands around the kernel half and needs none: lists of CPUs, tables in chunks, off-CPU records in pairs. */
#include "agent/chunks.h"
#include "agent/cpus.h"
#include "agent/off_cpu.h"
#include "agent/ranges.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned online(const struct cpu_set *set)
{
	unsigned count = 0;

	for (unsigned i = 0; i < CPUS_MAX; i++)
		count += set->is_online[i];
	return count;
}

Test(cpus_parse, takes_numbers_and_ranges)
{
	struct cpu_set set;

	cr_assert_null(cpus_parse("0-3,7,9-11\n", &set));
	cr_assert_eq(online(&set), 8u);
	cr_assert(set.is_online[0] && set.is_online[3] && set.is_online[7] && set.is_online[9] && set.is_online[11]);
	cr_assert_not(set.is_online[4] || set.is_online[8] || set.is_online[12]);
	cr_assert_null(cpus_parse("1023", &set));
	cr_assert_eq(online(&set), 1u);
	cr_assert_null(cpus_parse("\n", &set));
	cr_assert_eq(online(&set), 0u);
}

Test(cpus_parse, refuses_what_is_no_such_list_and_leaves_the_answer)
{
	static const struct {
		const char *list;
		enum err_code code;
	} cases[] = {{"x", ERR_FORMAT}, {"-1", ERR_FORMAT}, {"1-", ERR_FORMAT}, {"3-1", ERR_FORMAT}, {"1 2", ERR_FORMAT}, {"0-1024", ERR_LIMIT},
		{"99999999999999999999", ERR_LIMIT}};
	struct cpu_set set = {.is_online = {[5] = true}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err *e = cpus_parse(cases[i].list, &set);
		cr_assert_not_null(e, "%s", cases[i].list);
		cr_assert_eq(err_code(e), cases[i].code, "%s: %s", cases[i].list, err_message(e));
		err_free(e);
		cr_assert_eq(online(&set), 1u);
	}
}

Test(cpus_read, names_the_file_that_is_not_there)
{
	struct cpu_set set;
	struct err *e = cpus_read("/nonexistent", &set);

	cr_assert_eq(err_code(e), ERR_OS);
	cr_assert_not_null(strstr(err_message(e), "/nonexistent/devices/system/cpu/online"));
	err_free(e);
}

Test(chunks, grow_and_shrink_as_they_are_used)
{
	enum { ITEMS = 1024, BYTES = ITEMS * 8 };
	struct chunks c;

	cr_assert_null(chunks_init(&c, "test", -1, ITEMS, BYTES, 4 * ITEMS));
	cr_assert_eq(chunks_bytes(&c), 0u);
	cr_assert_null(chunks_grow(&c, 1));
	cr_assert_eq(chunks_bytes(&c), (size_t)BYTES);
	cr_assert_null(chunks_grow(&c, 2 * ITEMS + 1));
	cr_assert_eq(chunks_bytes(&c), 3 * (size_t)BYTES);
	memset(c.base, 7, 3 * (size_t)BYTES); /* side by side, all writable */
	struct err *e = chunks_grow(&c, 4 * ITEMS + 1);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	chunks_shrink(&c, ITEMS);
	cr_assert_eq(chunks_bytes(&c), (size_t)BYTES);
	cr_assert_eq(c.base[BYTES - 1], 7);
	cr_assert_null(chunks_grow(&c, 2 * ITEMS));
	cr_assert_eq(c.base[BYTES], 0); /* new memory */
	chunks_shrink(&c, 0);
	cr_assert_eq(chunks_bytes(&c), 0u);
	chunks_deinit(&c);
	e = chunks_init(&c, "test", -1, 1, 4096, CHUNKS_MAX + 1);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
}

Test(ranges, end_is_behind_what_is_taken_or_rests)
{
	struct ranges r;
	uint32_t a = 0, b = 0;

	cr_assert_null(ranges_init(&r, 100));
	cr_assert_eq(ranges_end(&r, 0), 0u);
	cr_assert(ranges_take(&r, 10, 0, &a) && ranges_take(&r, 20, 0, &b));
	cr_assert_eq(ranges_end(&r, 0), 30u);
	cr_assert_null(ranges_give(&r, b, 20, 50));
	cr_assert_eq(ranges_end(&r, 49), 30u);
	cr_assert_eq(ranges_end(&r, 50), 10u);
	cr_assert(ranges_take(&r, 90, 50, &b));
	cr_assert_eq(ranges_end(&r, 50), 100u);
	ranges_deinit(&r);
}

struct record {
	struct sample_head head;
	uint64_t frames[3];
};

static struct record record_of(uint32_t tid, uint64_t time_ns)
{
	return (struct record){.head = {.tid = tid, .time_ns = time_ns, .frame_count = 2, .kernel_count = 1, .flags = SAMPLE_OFF_CPU_BEGIN},
		.frames = {tid, 2, 3}};
}

Test(off_cpu, a_sample_is_whole_when_its_thread_runs_again)
{
	struct off_cpu *o = NULL;
	struct off_cpu_counters counters;
	struct record one = record_of(7, 1000), two = record_of(7 + OFF_CPU_SETS, 1001);
	struct sample_head end = {.tid = 7, .time_ns = 1000, .value = 55, .flags = SAMPLE_OFF_CPU_END};

	cr_assert_null(off_cpu_create(&o));
	off_cpu_begin(o, &one.head);
	off_cpu_begin(o, &two.head);
	const struct sample_head *whole = off_cpu_end(o, &end);
	cr_assert_not_null(whole);
	cr_assert_eq(whole->value, 55u);
	cr_assert_arr_eq((const uint8_t *)(whole + 1), (const uint8_t *)one.frames, sizeof(one.frames));
	cr_assert_null(off_cpu_end(o, &end)); /* once only */
	end.time_ns = 999;
	end.tid = two.head.tid;
	cr_assert_null(off_cpu_end(o, &end)); /* of another time */
	off_cpu_counters(o, &counters);
	cr_assert_eq(counters.waiting, 1u);
	cr_assert_eq(counters.unmatched, 2u);
	cr_assert_eq(counters.dropped, 0u);
	off_cpu_destroy(o);
}

Test(off_cpu, the_oldest_of_a_set_goes_and_a_lost_end_is_replaced)
{
	struct off_cpu *o = NULL;
	struct off_cpu_counters counters;

	cr_assert_null(off_cpu_create(&o));
	for (uint32_t i = 0; i < 5; i++) {
		struct record record = record_of(3 + i * OFF_CPU_SETS, 100 + i);
		off_cpu_begin(o, &record.head);
	}
	struct record again = record_of(3 + 4 * OFF_CPU_SETS, 200);
	off_cpu_begin(o, &again.head);
	off_cpu_counters(o, &counters);
	cr_assert_eq(counters.waiting, 4u);
	cr_assert_eq(counters.dropped, 2u);
	struct sample_head end = {.tid = 3, .time_ns = 100};
	cr_assert_null(off_cpu_end(o, &end)); /* the oldest */
	end = (struct sample_head){.tid = 3 + 4 * OFF_CPU_SETS, .time_ns = 200};
	cr_assert_not_null(off_cpu_end(o, &end));
	off_cpu_destroy(o);
}

Test(off_cpu, what_is_kept_is_bounded)
{
	enum { BYTES = 1 << 20 };
	struct off_cpu *o = NULL;
	struct off_cpu_counters counters;
	struct sample_head *record = calloc(1, BYTES);

	cr_assert_not_null(record);
	record->cut_bytes = BYTES - sizeof(*record);
	cr_assert_null(off_cpu_create(&o));
	for (uint32_t i = 0; i < 20; i++) {
		record->tid = i;
		off_cpu_begin(o, record);
	}
	off_cpu_counters(o, &counters);
	cr_assert_eq(counters.waiting, (uint64_t)OFF_CPU_BYTES_MAX / BYTES);
	cr_assert_eq(counters.dropped, 20u - OFF_CPU_BYTES_MAX / BYTES);
	off_cpu_destroy(o);
	free(record);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * cairn-worker on single files. That a run ends well also shows that it opened nothing: in its sandbox the first openat kills
 * (tests/ingest/spawn_test.c shows that it does).
 */
#include "tests/worker/run.h"

#include "symbolizer/table/table.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct run_seen seen;

static void expect_done(const struct spawn_report *report, size_t results)
{
	cr_assert_eq(report->outcome, SPAWN_DONE, "%s: %s", spawn_outcome_name(report->outcome), report->reason);
	cr_assert_eq(seen.count, results);
}

static void expect_failed(const struct spawn_report *report, const char *part)
{
	cr_assert_eq(report->outcome, SPAWN_FAILED, "%s: %s", spawn_outcome_name(report->outcome), report->reason);
	cr_assert_not_null(strstr(report->reason, part), "%s: %s", part, report->reason);
	cr_assert_eq(seen.count, 0);
}

/* The address that nm gives a symbol of the sample. */
static uint64_t address_of(const char *symbol)
{
	char command[128], line[128] = "";

	(void)snprintf(command, sizeof(command), "nm sample | awk '$3 == \"%s\" {print $1}'", symbol);
	FILE *pipe = popen(command, "r");
	cr_assert_not_null(fgets(line, sizeof(line), pipe));
	(void)pclose(pipe);
	return strtoull(line, NULL, 16);
}

static void expect_frame(const struct run_result *result, const char *symbol, bool with_line)
{
	struct table table;
	struct table_frame frames[8];

	cr_assert_null(table_open(result->table, result->table_len, &table));
	cr_assert_null(table_verify(&table));
	cr_assert_geq(table_lookup(&table, address_of(symbol), frames, 8), 1);
	cr_assert_str_eq(frames[0].function, symbol);
	cr_assert_eq(frames[0].line > 0, with_line);
}

TestSuite(worker_elf, .init = run_folder);

Test(worker_elf, a_binary_with_its_own_debug_information_gives_a_table_and_its_identity)
{
	struct spawn_limits limits = run_limits();
	struct spawn_report report = run_elf("sample", NULL, &limits, &seen);
	struct fileid id;

	expect_done(&report, 1);
	const struct protocol_result *facts = &seen.results[0].facts;
	cr_assert_null(fileid_from_path("sample", &id));
	cr_assert(fileid_equal(&facts->fileid, &id));
	cr_assert_eq(facts->build_id.len, 20);
	cr_assert(!facts->debug_only);
	cr_assert_geq(facts->segments.count, 1);
	cr_assert_eq(facts->elf_machine, 62);
	cr_assert(facts->sources & TABLE_FROM_DWARF);
	cr_assert(seen.phases & (1u << PROTOCOL_READING));
	expect_frame(&seen.results[0], "sample_inner", true);
}

Test(worker_elf, a_stripped_binary_and_its_debug_file_give_the_stripped_ones_identity)
{
	struct spawn_limits limits = run_limits();
	struct spawn_report report = run_elf("stripped", "debug", &limits, &seen);
	struct fileid id;

	expect_done(&report, 1);
	cr_assert_null(fileid_from_path("stripped", &id));
	cr_assert(fileid_equal(&seen.results[0].facts.fileid, &id));
	cr_assert(seen.results[0].facts.has_debug);
	expect_frame(&seen.results[0], "sample_outer", true);
}

Test(worker_elf, a_debug_file_alone_is_known_as_one)
{
	struct spawn_limits limits = run_limits();
	struct spawn_report report = run_elf(NULL, "debug", &limits, &seen);

	expect_done(&report, 1);
	cr_assert(seen.results[0].facts.debug_only);
	cr_assert_eq(seen.results[0].facts.segments.count, 0);
	expect_frame(&seen.results[0], "sample_inner", true);
	/* The same when it is given for a runtime file. */
	report = run_elf("debug", NULL, &limits, &seen);
	expect_done(&report, 1);
	cr_assert(seen.results[0].facts.debug_only);
}

Test(worker_elf, a_file_stripped_of_everything_gives_a_result_without_a_table)
{
	struct spawn_limits limits = run_limits();

	run_shell("cp " BARE " bare && strip -s bare");
	struct spawn_report report = run_elf("bare", NULL, &limits, &seen);
	expect_done(&report, 1);
	cr_assert_eq(seen.results[0].facts.table_bytes, 0);
	cr_assert_geq(seen.results[0].facts.segments.count, 1);
}

Test(worker_elf, symbols_without_lines_are_used)
{
	struct spawn_limits limits = run_limits();

	run_shell("strip -g -o symbols sample");
	struct spawn_report report = run_elf("symbols", NULL, &limits, &seen);
	expect_done(&report, 1);
	expect_frame(&seen.results[0], "sample_inner", false);
}

Test(worker_elf, what_is_no_elf_file_is_refused_by_name)
{
	struct spawn_limits limits = run_limits();

	run_shell("echo hello > text; : > empty; head -c 100 sample > short; head -c 6000 sample > cut");
	struct spawn_report report = run_elf("text", NULL, &limits, &seen);
	expect_failed(&report, "binary");
	report = run_elf("empty", NULL, &limits, &seen);
	expect_failed(&report, "binary: empty file");
	report = run_elf("short", NULL, &limits, &seen);
	expect_failed(&report, "binary");
	report = run_elf("cut", NULL, &limits, &seen);
	expect_failed(&report, "binary");
}

Test(worker_elf, a_debug_file_of_another_binary_is_a_mismatch)
{
	struct spawn_limits limits = run_limits();

	run_shell("objcopy --only-keep-debug " BARE " other");
	struct spawn_report report = run_elf("stripped", "other", &limits, &seen);
	expect_failed(&report, "build ID");
}

Test(worker_elf, a_table_over_the_limit_is_refused)
{
	struct spawn_limits limits = run_limits();

	limits.max_table_bytes = 100;
	struct spawn_report report = run_elf("sample", NULL, &limits, &seen);
	expect_failed(&report, "over max_table_bytes 100");
}

Test(worker_elf, the_same_file_gives_the_same_bytes_with_one_thread_or_four)
{
	static struct run_seen first;
	struct spawn_limits limits = run_limits();

	limits.threads = 1;
	struct spawn_report report = run_elf("sample", NULL, &limits, &seen);
	expect_done(&report, 1);
	first = seen;
	limits.threads = 4;
	report = run_elf("sample", NULL, &limits, &seen);
	expect_done(&report, 1);
	cr_assert_eq(first.results[0].table_len, seen.results[0].table_len);
	cr_assert_arr_eq(first.results[0].table, seen.results[0].table, seen.results[0].table_len);
}

Test(worker_elf, a_file_whose_names_lie_in_a_supplement_asks_for_it)
{
	struct spawn_limits limits = run_limits();

	run_shell("cp sample one && cp sample two && dwz -m common.dwz -r one two");
	struct spawn_report report = run_elf("one", NULL, &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_NEEDS, "%s: %s", spawn_outcome_name(report.outcome), report.reason);
	cr_expect_str_eq(report.needs.name, "common.dwz");
	cr_expect_eq(report.needs.build_id.len, 20);
	cr_expect_eq(seen.count, 0);
	report = run_supplement("one", "common.dwz", &limits, &seen);
	expect_done(&report, 1);
	expect_frame(&seen.results[0], "sample_inner", true);
	cr_expect_null(strstr(seen.results[0].facts.stats, "not here"), "%s", seen.results[0].facts.stats);
	report = run_supplement("one", "sample", &limits, &seen);
	expect_failed(&report, "needs the supplement with build ID");
	report = run_supplement("sample", "common.dwz", &limits, &seen); /* asks for none: not looked at */
	expect_done(&report, 1);
}

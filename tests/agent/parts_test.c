// SPDX-License-Identifier: Apache-2.0
/* The agent's parts that need no kernel: places, lines of maps, kallsyms, capabilities, and the queue of processes. */
#include "agent/kernel.h"
#include "agent/privilege.h"
#include "agent/proc_maps.h"
#include "agent/ranges.h"
#include "agent/tables.h"
#include "agent/watch.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

Test(ranges, neighbours_join_and_what_rests_is_not_taken)
{
	struct ranges r;
	uint32_t a = 0, b = 0, c = 0, d = 0;
	cr_assert_null(ranges_init(&r, 30));
	cr_assert(ranges_take(&r, 10, 0, &a) && ranges_take(&r, 10, 0, &b) && ranges_take(&r, 10, 0, &c));
	cr_assert_not(ranges_take(&r, 1, 0, &d));
	cr_assert_null(ranges_give(&r, a, 10, 100));
	cr_assert_null(ranges_give(&r, c, 10, 100));
	cr_assert_null(ranges_give(&r, b, 10, 100));
	cr_assert_not(ranges_take(&r, 1, 99, &d));
	cr_assert_eq(r.used, 30u);
	cr_assert(ranges_take(&r, 30, 100, &d));
	cr_assert_eq(d, 0u);
	cr_assert_eq(r.used, 30u);
	ranges_deinit(&r);
}

Test(ranges, random_takes_never_overlap_and_all_comes_back)
{
	enum { PLACES = 1000, HELD = 50 };
	struct ranges r;
	uint32_t first[HELD] = {0}, count[HELD] = {0}, seed = 1;
	uint8_t owner[PLACES] = {0};
	cr_assert_null(ranges_init(&r, PLACES));
	for (uint64_t now = 0; now < 5000; now++) {
		seed = seed * 1103515245 + 12345;
		uint32_t i = (seed >> 8) % HELD;
		if (count[i]) {
			memset(owner + first[i], 0, count[i]);
			cr_assert_null(ranges_give(&r, first[i], count[i], now));
			count[i] = 0;
		} else if (ranges_take(&r, 1 + (seed >> 16) % 60, now, &first[i])) {
			count[i] = 1 + (seed >> 16) % 60;
			for (uint32_t k = 0; k < count[i]; k++)
				cr_assert_eq(owner[first[i] + k]++, 0);
		}
	}
	for (uint32_t i = 0; i < HELD; i++)
		cr_assert_null(ranges_give(&r, first[i], count[i], 0));
	uint32_t all = 1;
	cr_assert(ranges_take(&r, PLACES, UINT64_MAX, &all));
	cr_assert_eq(all, 0u);
	ranges_deinit(&r);
}

Test(proc_map_parse, reads_all_fields)
{
	struct proc_map m;
	cr_assert(proc_map_parse("7f0012340000-7f0012350000 r-xp 00026000 fe:01 1234                 /lib/a b.so (deleted)", &m));
	cr_assert_eq(m.start, 0x7f0012340000u);
	cr_assert_eq(m.end, 0x7f0012350000u);
	cr_assert_eq(m.foff, 0x26000u);
	cr_assert_eq(m.inode, 1234u);
	cr_assert(m.executable);
	cr_assert_str_eq(m.path, "/lib/a b.so (deleted)");
	cr_assert(proc_map_parse("1000-2000 rw-p 00000000 00:00 0 ", &m));
	cr_assert_not(m.executable);
	cr_assert_str_eq(m.path, "");
}

Test(proc_map_parse, refuses_what_is_no_such_line)
{
	static const char *const lines[] = {"", "x", "1000", "1000-", "1000-2000", "1000-2000 r-x", "2000-1000 r-xp 0 0:0 0", "1000-1000 r-xp 0 0:0 0",
		"1000-2000 r-xp zz 0:0 0", "1000-2000 r-xp 0 00 0", "1000-2000 r-xp 0 0:0 x", "11111111111111111-2 r-xp 0 0:0 0",
		"1000-2000 r-xp 0 0:0 99999999999999999999"};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct proc_map m = {.start = 7};
		cr_assert_not(proc_map_parse(lines[i], &m), "%s", lines[i]);
		cr_assert_eq(m.start, 7u);
	}
}

static uint64_t bit(unsigned capability)
{
	return (uint64_t)1 << capability;
}

Test(privilege_check, names_all_that_is_missing)
{
	struct err *e = privilege_check(bit(CAP_BPF));
	cr_assert_not_null(e);
	cr_assert_null(strstr(err_message(e), "CAP_BPF"));
	cr_assert_not_null(strstr(err_message(e), "CAP_PERFMON ("));
	cr_assert_not_null(strstr(err_message(e), "CAP_SYS_PTRACE ("));
	err_free(e);
}

Test(privilege_check, either_root_or_the_three_suffice)
{
	cr_assert_null(privilege_check(UINT64_MAX));
	cr_assert_null(privilege_check(bit(CAP_BPF) | bit(CAP_PERFMON) | bit(CAP_SYS_PTRACE)));
	cr_assert_null(privilege_check(bit(CAP_SYS_ADMIN) | bit(CAP_SYS_PTRACE)));
}

Test(privilege_lack, each_wish_has_its_sentence)
{
	uint64_t all = bit(CAP_CHECKPOINT_RESTORE) | bit(CAP_DAC_READ_SEARCH) | bit(CAP_SYSLOG);
	const struct {
		uint64_t capability;
		const char *word;
	} wishes[] = {{bit(CAP_CHECKPOINT_RESTORE), "CAP_CHECKPOINT_RESTORE"}, {bit(CAP_DAC_READ_SEARCH), "CAP_DAC_READ_SEARCH"}, {bit(CAP_SYSLOG), "CAP_SYSLOG"}};
	for (unsigned i = 0; i < PRIVILEGE_LACKS_MAX; i++) {
		cr_assert_null(privilege_lack(all, false, i));
		const char *lack = privilege_lack(all & ~wishes[i].capability, false, i);
		cr_assert_not_null(lack);
		cr_assert_not_null(strstr(lack, wishes[i].word));
	}
	cr_assert_null(privilege_lack(0, true, 1), "root may read");
	cr_assert_null(privilege_lack(0, false, PRIVILEGE_LACKS_MAX));
}

static struct kernel *kernel_from(const char *text)
{
	char path[] = "/tmp/cairn-kallsyms-XXXXXX";
	struct kernel *kernel = NULL;
	int fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	struct err *e = kernel_create(path, &kernel);
	cr_assert_null(e);
	unlink(path);
	return kernel;
}

Test(kernel_lookup, finds_functions_of_vmlinux_and_modules)
{
	struct kernel *kernel = kernel_from("ffffffff81000000 T _text\nffffffff81000000 T _stext\nffffffff81000100 t first\nffffffff81000200 D data\n"
					    "garbage\nffffffffc0000000 t in_module\t[cairn_none]\nffffffffc0000100 W second\t[cairn_none]\n");
	const struct kernel_module *module = NULL;
	const char *name = NULL;
	cr_assert_eq(kernel_symbol_count(kernel), 5u);
	cr_assert(kernel_lookup(kernel, 0xffffffff810001ff, &name, &module));
	cr_assert_str_eq(name, "first");
	cr_assert_str_eq(module->name, "vmlinux");
	cr_assert_eq(module->start, 0xffffffff81000000u);
	cr_assert(kernel_lookup(kernel, 0xffffffffc0000050, &name, &module));
	cr_assert_str_eq(name, "in_module");
	cr_assert_str_eq(module->name, "cairn_none");
	cr_assert_eq(module->build_id.len, 0);
	cr_assert_not(kernel_lookup(kernel, 0x1000, &name, &module));
	kernel_destroy(kernel);
}

/* As on arm64. */
Test(kernel_lookup, addresses_count_from_the_lower_of_the_two_beginnings_of_text)
{
	const char *name = NULL;
	const struct kernel_module *module = NULL;
	struct kernel *kernel = kernel_from("0000000000000000 A fixed\nffff800080000000 T _text\nffff800080010000 T _stext\nffff800080010100 t first\n");
	cr_assert(kernel_lookup(kernel, 0xffff800080010104, &name, &module));
	cr_assert_str_eq(name, "first");
	cr_assert_eq(module->start, 0xffff800080000000);
	kernel_destroy(kernel);
	kernel = kernel_from("ffff800080010000 T _stext\nffff800080010100 t first\n");
	cr_assert(kernel_lookup(kernel, 0xffff800080010104, &name, &module));
	cr_assert_eq(module->start, 0xffff800080010000);
	kernel_destroy(kernel);
}

Test(kernel_lookup, hidden_addresses_are_no_names)
{
	struct kernel *kernel = kernel_from("0000000000000000 T _text\n0000000000000000 t first\n");
	cr_assert_eq(kernel_symbol_count(kernel), 0u);
	kernel_destroy(kernel);
}

/* Tables in plain memory, with what was shown of this process. */
struct fake {
	struct tables_arrays arrays;
	struct tables *tables;
	struct sample_process shown;
	unsigned shows;
};

static int show(void *context, uint32_t pid, const struct sample_process *process)
{
	struct fake *fake = context;
	(void)pid;
	fake->shown = *process;
	fake->shows++;
	return 0;
}

static void fake_init(struct fake *fake, uint32_t deltas)
{
	*fake = (struct fake){.arrays = {.mapping_count = 4096, .page_count = 4096, .delta_count = deltas, .show = show, .context = fake}};
	fake->arrays.mappings = calloc(4096, sizeof(*fake->arrays.mappings));
	fake->arrays.pages = calloc(4096, sizeof(*fake->arrays.pages));
	fake->arrays.deltas = calloc(deltas, sizeof(*fake->arrays.deltas));
	fake->arrays.exes = calloc(UNWIND_EXES_MAX, sizeof(*fake->arrays.exes));
	fake->arrays.infos = calloc(UNWIND_INFOS_MAX, sizeof(*fake->arrays.infos));
	char program[4096];
	snprintf(program, sizeof(program), "%s/bin/cairn-unwind", getenv("CAIRN_BINARY_DIR"));
	cr_assert_null(tables_create(&fake->arrays, program, &fake->tables));
}

static void fake_deinit(struct fake *fake)
{
	tables_destroy(fake->tables);
	free(fake->arrays.mappings);
	free(fake->arrays.pages);
	free(fake->arrays.deltas);
	free(fake->arrays.exes);
	free(fake->arrays.infos);
}

/* Until all unwind tables are made. */
/* As samples in each mapping would. */
static void want_all(struct fake *fake, uint32_t pid)
{
	const struct unwind_mapping *mappings = fake->arrays.mappings + fake->shown.first_mapping;

	for (uint32_t i = 0; i < fake->shown.mapping_count; i++)
		(void)tables_want(fake->tables, pid, mappings[i].exe, mappings, fake->shown.mapping_count);
}

static void wait_for_tables(const struct fake *fake)
{
	while (tables_pending(fake->tables) > 0) {
		cr_assert_null(tables_work(fake->tables));
		(void)usleep(1000);
	}
}

static const struct unwind_exe *exe_of(const struct fake *fake, uint32_t mapping)
{
	return &fake->arrays.exes[fake->arrays.mappings[fake->shown.first_mapping + mapping].exe];
}

Test(tables_sync, this_process_is_mapped_and_forgotten)
{
	struct fake fake;
	struct tables_counters counters;
	bool found = false;
	fake_init(&fake, 4 << 20);
	uint32_t pid = (uint32_t)getpid();
	cr_assert_null(tables_sync(fake.tables, pid));
	cr_assert(tables_knows(fake.tables, pid));
	cr_assert_gt(fake.shown.mapping_count, 2u);
	for (uint32_t i = 0; i < fake.shown.mapping_count; i++) {
		const struct unwind_mapping *m = &fake.arrays.mappings[fake.shown.first_mapping + i];
		uintptr_t here = (uintptr_t)fake_init;
		cr_assert(i == 0 || m[-1].end <= m->start);
		if (here < m->start || here >= m->end)
			continue;
		const struct tables_exe *exe = tables_exe(fake.tables, m->exe);
		cr_assert_not_null(exe);
		cr_assert_str_eq(exe->name, "agent_parts_test");
		cr_assert_eq(m->kind, UNWIND_MAPPING_FILE);
		cr_assert_gt(exe->build_id.len, 0);
		found = true;
	}
	cr_assert(found);
	cr_assert_eq(tables_pending(fake.tables), 0u, "no sample wanted one");
	cr_assert_eq(exe_of(&fake, 0)->otherwise, UNWIND_PENDING);
	want_all(&fake, pid);
	cr_assert_gt(tables_pending(fake.tables), 0u);
	cr_assert(tables_is_pending(fake.tables, fake.arrays.mappings[fake.shown.first_mapping].exe));
	wait_for_tables(&fake);
	cr_assert_eq(exe_of(&fake, 0)->otherwise, UNWIND_NONE);
	cr_assert_gt(exe_of(&fake, 0)->page_count, 0u);
	tables_counters(fake.tables, &counters);
	cr_assert_gt(counters.exes.deltas, 0u);
	cr_assert_eq(counters.exes.crashed + counters.exes.late + counters.exes.refused, 0u);
	uint64_t added = counters.exes.added;
	cr_assert_null(tables_sync(fake.tables, pid));
	tables_counters(fake.tables, &counters);
	cr_assert_eq(counters.exes.added, added);
	cr_assert_eq(counters.processes_unchanged, 1u);
	tables_trim(fake.tables);
	tables_counters(fake.tables, &counters);
	cr_assert_gt(counters.exes.count, 0u);
	tables_forget(fake.tables, pid);
	cr_assert_eq(fake.shown.mapping_count, 0u);
	cr_assert_not(tables_knows(fake.tables, pid));
	tables_trim(fake.tables);
	tables_counters(fake.tables, &counters);
	cr_assert_eq(counters.exes.count, added); /* kept for the next process of them */
	cr_assert_eq(counters.processes, 0u);
	cr_assert_eq(counters.mappings, 0u);
	fake_deinit(&fake);
}

Test(tables_sync, without_place_for_deltas_frame_pointers_are_followed_and_counted)
{
	struct fake fake;
	struct tables_counters counters;
	fake_init(&fake, 1); /* a small library, such as the vDSO, fits into a few */
	cr_assert_null(tables_sync(fake.tables, (uint32_t)getpid()));
	want_all(&fake, (uint32_t)getpid());
	wait_for_tables(&fake);
	tables_counters(fake.tables, &counters);
	cr_assert_gt(counters.exes.full, 0u);
	for (uint32_t i = 0; i < fake.shown.mapping_count; i++)
		cr_assert_eq(exe_of(&fake, i)->otherwise, UNWIND_FRAME_POINTER);
	fake_deinit(&fake);
}

/* Each run of cairn-unwind takes more than this: after the first the others wait for the clock. */
Test(tables_limit, what_passes_its_credit_of_cpu_time_waits_and_the_rest_is_made_when_there_is_more)
{
	struct fake fake;
	struct tables_counters counters;
	fake_init(&fake, 4 << 20);
	cr_assert_null(tables_sync(fake.tables, (uint32_t)getpid()));
	tables_limit(fake.tables, 1, 1, 1);
	want_all(&fake, (uint32_t)getpid());
	uint32_t wanted = tables_pending(fake.tables);
	cr_assert_gt(wanted, 1u);
	while (tables_pending(fake.tables) == wanted) {
		cr_assert_null(tables_work(fake.tables));
		(void)usleep(1000);
	}
	for (int i = 0; i < 20; i++) {
		cr_assert_null(tables_work(fake.tables));
		(void)usleep(1000);
	}
	tables_counters(fake.tables, &counters);
	cr_assert_eq(tables_pending(fake.tables), wanted - 1);
	cr_assert_eq(counters.exes.built, 1u);
	cr_assert_gt(counters.exes.turns_without_credit, 0u);
	tables_limit(fake.tables, 0, 0, 0);
	wait_for_tables(&fake);
	tables_counters(fake.tables, &counters);
	cr_assert_geq(counters.exes.built, wanted);
	fake_deinit(&fake);
}

Test(tables_want, a_file_that_another_has_replaced_is_not_made_into_its_table)
{
	struct fake fake;
	struct tables_counters counters;
	char path[] = "/tmp/cairn-parts-XXXXXX";
	fake_init(&fake, 4 << 20);
	int fd = mkstemp(path), self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0 && self >= 0);
	cr_assert_gt(sendfile(fd, self, NULL, 1 << 20), 0);
	void *mapped = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	cr_assert_neq(mapped, MAP_FAILED);
	cr_assert_null(tables_sync(fake.tables, (uint32_t)getpid()));
	cr_assert_eq(write(fd, "more", 4), 4);
	const struct unwind_mapping *mappings = fake.arrays.mappings + fake.shown.first_mapping;
	for (uint32_t i = 0; i < fake.shown.mapping_count; i++)
		if (mappings[i].start == (uintptr_t)mapped)
			cr_assert_not(tables_want(fake.tables, (uint32_t)getpid(), mappings[i].exe, mappings, fake.shown.mapping_count));
	tables_counters(fake.tables, &counters);
	cr_assert_eq(counters.exes.replaced, 1u);
	cr_assert_eq(tables_pending(fake.tables), 0u);
	(void)munmap(mapped, 4096);
	(void)close(self);
	(void)close(fd);
	(void)unlink(path);
	fake_deinit(&fake);
}

Test(tables_sync, a_process_that_is_not_there_is_counted)
{
	struct fake fake;
	struct tables_counters counters;
	fake_init(&fake, 16);
	cr_assert_null(tables_sync(fake.tables, UINT32_MAX));
	tables_counters(fake.tables, &counters);
	cr_assert_eq(counters.processes_failed, 1u);
	cr_assert_eq(counters.processes, 0u);
	fake_deinit(&fake);
}

Test(watch, a_process_is_read_once_an_interval_and_less_often_when_it_does_not_help)
{
	struct fake fake;
	struct watch *watch = NULL;
	struct watch_counters counters;
	uint32_t left = 0, pid = (uint32_t)getpid();
	fake_init(&fake, 4 << 20);
	cr_assert_null(watch_create(fake.tables, &watch));
	cr_assert_null(watch_changed(watch, pid, 1000));
	cr_assert_null(watch_changed(watch, pid, 1001)); /* it waits already */
	cr_assert_null(watch_work(watch, 1000 + WATCH_INTERVAL_MS - 1, &left));
	watch_counters(watch, &counters);
	cr_assert_eq(counters.read, 0u);
	cr_assert_null(watch_work(watch, 1000 + WATCH_INTERVAL_MS, &left));
	watch_counters(watch, &counters);
	cr_assert_eq(counters.read, 1u);
	cr_assert_null(watch_missed(watch, pid, 1000 + 2 * WATCH_INTERVAL_MS));
	cr_assert_null(watch_changed(watch, pid, 1000 + 2 * WATCH_INTERVAL_MS)); /* waits already: due now */
	cr_assert_null(watch_work(watch, 1000 + 2 * WATCH_INTERVAL_MS, &left));
	cr_assert_null(watch_changed(watch, pid, 1000 + 2 * WATCH_INTERVAL_MS)); /* news: the backoff is forgotten */
	cr_assert_null(watch_work(watch, 1000 + 3 * WATCH_INTERVAL_MS, &left));
	watch_counters(watch, &counters);
	cr_assert_eq(counters.read, 3u);
	/* Misses: after 1, 2, 4 intervals .. */
	uint64_t now = 1000 + 3 * WATCH_INTERVAL_MS;
	for (unsigned i = 0; i < 4; i++) {
		uint64_t wait = (uint64_t)WATCH_INTERVAL_MS << i;
		cr_assert_null(watch_missed(watch, pid, now + wait - 1));
		cr_assert_null(watch_work(watch, now + wait - 1, &left));
		watch_counters(watch, &counters);
		cr_assert_eq(counters.read, 3u + i);
		now += wait;
		cr_assert_null(watch_missed(watch, pid, now));
		cr_assert_null(watch_work(watch, now, &left));
	}
	watch_gone(watch, pid);
	cr_assert_not(tables_knows(fake.tables, pid));
	watch_destroy(watch);
	fake_deinit(&fake);
}

Test(watch, the_queue_has_a_limit_and_one_turn_too)
{
	struct fake fake;
	struct watch *watch = NULL;
	struct watch_counters counters;
	uint32_t left = 0;
	fake_init(&fake, 16);
	cr_assert_null(watch_create(fake.tables, &watch));
	for (uint32_t i = 0; i <= WATCH_QUEUE_MAX; i++)
		cr_assert_null(watch_changed(watch, 0x40000000 + i, 1000)); /* past pid_max: none is there */
	watch_counters(watch, &counters);
	cr_assert_eq(counters.dropped, 1u);
	cr_assert_null(watch_work(watch, 1000 + WATCH_INTERVAL_MS, &left));
	/* On a slow machine WATCH_TURN_MS ends it earlier. */
	cr_assert_geq(left, (uint32_t)(WATCH_QUEUE_MAX - WATCH_BATCH));
	cr_assert_lt(left, (uint32_t)WATCH_QUEUE_MAX);
	watch_destroy(watch);
	fake_deinit(&fake);
}

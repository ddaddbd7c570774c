// SPDX-License-Identifier: Apache-2.0
#include "tests/profiles/samples_fixture.h"

#include <criterion/criterion.h>

#define CONTEXT(name)                                                                              \
	struct bench_store name = {0};                                                             \
	make_samples(&name)

static void expect_folded(struct samples *samples, const struct samples_query *query, const struct samples_resolver *resolver,
	const char *expected)
{
	char *text = folded(samples, query, resolver);

	cr_expect_str_eq(text, expected);
	free(text);
}

static void expect_error(struct err *e, enum err_code code, const char *words)
{
	cr_assert_not_null(e);
	cr_expect_eq(err_code(e), code, "%s", err_message(e));
	cr_expect_not_null(strstr(err_message(e), words), "%s", err_message(e));
	err_free(e);
}

Test(samples_query, gives_back_what_was_committed)
{
	CONTEXT(b);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	struct samples_query query = {.tenant = 1};

	add(&f, "c b a", HOUR_START_MS + 1000, 3);
	add(&f, "c b a", HOUR_START_MS + 2000, 1);
	add(&f, "b a", HOUR_START_MS + 2000, 5);
	struct samples_result result = commit(&f);
	cr_expect_eq(result.samples, 3);
	cr_expect_eq(result.profiles, 1);
	expect_folded(b.samples, &query, NULL, "a;b 5\na;b;c 4\n");
	struct profile profile;
	struct samples_query_stat stat;
	MUST(samples_query(b.samples, &query, NULL, &profile, &stat));
	cr_expect_str_eq(intern_text(&profile.text, profile.sample_type.type), "samples");
	cr_expect_str_eq(intern_text(&profile.text, profile.period_type.unit), "nanoseconds");
	cr_expect_eq(profile.period, 50000000);
	cr_expect_eq(stat.samples, 9);
	cr_expect_eq(stat.traces, 2);
	profile_deinit(&profile);
	query.tenant = 2;
	cr_expect_eq(total(b.samples, &query), 0);
	end_samples(&b);
}

Test(samples_query, takes_exactly_the_seconds_of_the_range)
{
	CONTEXT(b);
	for (uint64_t s = 0; s < 10; s++)
		(void)put(&b, NULL, "a", HOUR_START_MS + s * 1000, 1ull << s);
	struct samples_query query = {.tenant = 1, .from_unix_nano = (HOUR_START_MS + 2000) * 1000000, .to_unix_nano = (HOUR_START_MS + 5000) * 1000000};
	cr_expect_eq(total(b.samples, &query), 4 + 8 + 16);
	query.from_unix_nano = 0;
	cr_expect_eq(total(b.samples, &query), 31);
	query.to_unix_nano = HOUR_START_MS * 1000000;
	cr_expect_eq(total(b.samples, &query), 0);
	end_samples(&b);
}

Test(samples_query, joins_partitions_with_numbers_of_their_own)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};

	atomic_store(&b.now_ms, HOUR_START_MS + 3 * HOUR_MS);
	(void)put(&b, NULL, "x a", HOUR_START_MS + 1000, 1);
	(void)put(&b, NULL, "y x b", HOUR_START_MS + HOUR_MS + 1000, 2);
	(void)put(&b, NULL, "x a", HOUR_START_MS + HOUR_MS + 1000, 4);
	(void)put(&b, NULL, "a", HOUR_START_MS + 2 * HOUR_MS, 8);
	expect_folded(b.samples, &query, NULL, "a 8\na;x 5\nb;x;y 2\n");
	struct samples_counters counters;
	samples_counters(b.samples, &counters);
	cr_expect_eq(counters.partitions, 3);
	end_samples(&b);
}

Test(samples_query, never_adds_different_types)
{
	CONTEXT(b);
	struct samples_type off = {TEXT("off_cpu"), TEXT("nanoseconds"), TEXT(""), TEXT(""), 0};
	struct samples_type slow = *cpu_type();
	struct samples_query query = {.tenant = 1};
	struct profile profile;
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");

	add(&f, "a", HOUR_START_MS, 1);
	(void)commit(&f);
	f = fill(b.samples, 1, NULL, &off, "web", "main");
	add(&f, "a", HOUR_START_MS, 1000);
	(void)commit(&f);
	expect_error(samples_query(b.samples, &query, NULL, &profile, NULL), ERR_INVALID,
		"samples:count:cpu:nanoseconds:50000000, off_cpu:nanoseconds");
	query.type = TEXT("cpu");
	cr_expect_eq(total(b.samples, &query), 1);
	query.type = TEXT("samples");
	cr_expect_eq(total(b.samples, &query), 1);
	query.type = TEXT("off_cpu");
	cr_expect_eq(total(b.samples, &query), 1000);
	query.type = TEXT("off");
	expect_error(samples_query(b.samples, &query, NULL, &profile, NULL), ERR_NOT_FOUND, "none of type off");
	cr_expect_eq(total(b.samples, &(struct samples_query){.tenant = 1, .type = TEXT("off_cpu"), .filters = &(struct samples_label){TEXT("cpu"), TEXT("7")}, .filter_count = 1}), 0);
	/* Another rate is another type. */
	slow.period = 10000000;
	f = fill(b.samples, 1, NULL, &slow, "web", "main");
	add(&f, "a", HOUR_START_MS, 7);
	(void)commit(&f);
	query.type = TEXT("cpu");
	expect_error(samples_query(b.samples, &query, NULL, &profile, NULL), ERR_INVALID, "10000000");
	query.type = TEXT("samples:count:cpu:nanoseconds:10000000");
	cr_expect_eq(total(b.samples, &query), 7);
	end_samples(&b);
}

static void add_on_cpu(struct bench_store *b, const char *service, const char *comm, int32_t cpu, uint64_t value)
{
	struct filler f = fill(b->samples, 1, NULL, cpu_type(), service, comm);
	struct samples_sample sample = sample_make(&f, stack_make(f.batch, "leaf root"), HOUR_START_MS, value);

	sample.cpu = cpu;
	MUST(samples_batch_add(f.batch, &sample));
	(void)commit(&f);
}

Test(samples_query, filters_by_labels_and_cpu)
{
	CONTEXT(b);
	add_on_cpu(&b, "web", "main", 0, 1);
	add_on_cpu(&b, "web", "gc", 1, 2);
	add_on_cpu(&b, "db", "main", 1, 4);
	add_on_cpu(&b, "db", "main", -1, 8);
	struct samples_label filters[2] = {{TEXT("service"), TEXT("web")}, {TEXT("thread.name"), TEXT("gc")}};
	struct samples_query query = {.tenant = 1, .filters = filters, .filter_count = 1};

	cr_expect_eq(total(b.samples, &query), 3);
	query.filter_count = 2;
	cr_expect_eq(total(b.samples, &query), 2);
	filters[0] = (struct samples_label){TEXT("cpu"), TEXT("1")};
	cr_expect_eq(total(b.samples, &query), 2);
	query.filter_count = 1;
	cr_expect_eq(total(b.samples, &query), 6);
	filters[0] = (struct samples_label){TEXT("service"), TEXT("none")};
	cr_expect_eq(total(b.samples, &query), 0);
	filters[0] = (struct samples_label){TEXT("container"), TEXT("")};
	cr_expect_eq(total(b.samples, &query), 15);
	filters[0] = (struct samples_label){TEXT("cpu"), TEXT("one")};
	struct profile profile;
	expect_error(samples_query(b.samples, &query, NULL, &profile, NULL), ERR_INVALID, "no CPU number: one");
	end_samples(&b);
}

Test(samples_query, groups_at_the_root)
{
	CONTEXT(b);
	add_on_cpu(&b, "web", "main", 0, 1);
	add_on_cpu(&b, "web", "gc", 1, 2);
	add_on_cpu(&b, "db", "main", 1, 4);
	struct samples_text keys[2] = {TEXT("service"), TEXT("cpu")};
	struct samples_query query = {.tenant = 1, .group_by = keys, .group_count = 1};

	expect_folded(b.samples, &query, NULL, "service=db;root;leaf 4\nservice=web;root;leaf 3\n");
	query.group_count = 2;
	expect_folded(b.samples, &query, NULL,
		"service=db;cpu=1;root;leaf 4\nservice=web;cpu=1;root;leaf 2\nservice=web;cpu=0;root;leaf 1\n");
	keys[0] = TEXT("trace_id");
	struct profile profile;
	expect_error(samples_query(b.samples, &query, NULL, &profile, NULL), ERR_INVALID, "cannot group by trace_id");
	end_samples(&b);
}

Test(samples_query, keeps_links_to_traces)
{
	CONTEXT(b);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	struct samples_sample sample = sample_make(&f, stack_make(f.batch, "a"), HOUR_START_MS, 1);
	const uint8_t trace[16] = {0xAB, 1}, span[8] = {2};
	struct samples_label filter = {TEXT("trace_id"), TEXT("AB010000000000000000000000000000")};
	struct samples_query query = {.tenant = 1};

	MUST(samples_batch_add(f.batch, &sample));
	MUST(samples_batch_link(f.batch, trace, span, &sample.link));
	cr_expect_neq(sample.link, 0);
	sample.value = 2;
	MUST(samples_batch_add(f.batch, &sample));
	(void)commit(&f);
	cr_expect_eq(total(b.samples, &query), 3);
	query.filters = &filter;
	query.filter_count = 1;
	cr_expect_eq(total(b.samples, &query), 2);
	filter = (struct samples_label){TEXT("span_id"), TEXT("0200000000000000")};
	cr_expect_eq(total(b.samples, &query), 2);
	filter.value = TEXT("02");
	cr_expect_eq(total(b.samples, &query), 0);
	end_samples(&b);
}

Test(samples_query, counts_samples_without_a_stack)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};

	(void)put(&b, NULL, "", HOUR_START_MS, 5);
	expect_folded(b.samples, &query, NULL, "[no stack] 5\n");
	end_samples(&b);
}

Test(samples_query, skips_values_of_nothing)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};
	cr_expect_eq(put(&b, NULL, "a", HOUR_START_MS, 0).samples, 0);
	cr_expect_eq(total(b.samples, &query), 0);
	end_samples(&b);
}

Test(samples_query, holds_at_the_largest_number_instead_of_wrapping)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};

	(void)put(&b, NULL, "a", HOUR_START_MS, UINT64_MAX - 1);
	(void)put(&b, NULL, "a", HOUR_START_MS, 5);
	cr_expect_eq(total(b.samples, &query), UINT64_MAX);
	end_samples(&b);
}

/* -------------------------------------------------------------------------------------- symbols */

struct symbols {
	bool known;
	unsigned calls, addresses;
};

static struct err *resolve(void *context, uint32_t tenant, const struct samples_module *module, const struct samples_address *addresses,
	size_t count, struct samples_answers *answers)
{
	struct symbols *s = context;

	cr_assert_eq(tenant, 1);
	s->calls++;
	s->addresses += (unsigned)count;
	for (size_t i = 0; i < count; i++) {
		struct samples_symbol frames[2] = {{.function = "inlined", .symbol = "_inlined", .file = "a.c", .line = 3},
			{.function = module->name, .symbol = "_outer", .file = "a.c", .line = (uint32_t)addresses[i].value}};
		uint64_t vaddr = addresses[i].kind == SAMPLES_ADDRESS_FILE_OFFSET ? addresses[i].value + 0x400000 : addresses[i].value;
		cr_assert(i == 0 || addresses[i].value > addresses[i - 1].value, "sorted, each once");
		if (s->known)
			TRY(samples_answer(answers, i, vaddr, frames, 2));
		else
			TRY(samples_answer_none(answers, i, vaddr, "no symbols yet"));
	}
	return NULL;
}

static uint32_t native(struct samples_batch *batch, uint32_t mapping, uint64_t address)
{
	struct samples_location location = {.kind = PROFILE_FRAME_NATIVE, .mapping = mapping, .address = address};
	uint32_t number;

	MUST(samples_batch_location(batch, &location, &number));
	return number;
}

static void add_native(struct bench_store *b)
{
	struct filler f = fill(b->samples, 1, NULL, cpu_type(), "web", "main");
	struct samples_mapping mapping = {.file_id = file_id_of(5), .name = TEXT("app"), .memory_start = 0x7f0000001000, .memory_limit = 0x7f0000009000, .file_offset = 0x1000};
	struct samples_mapping again = mapping, kernel = {.file_id = file_id_of(6), .name = TEXT("vmlinux")};
	struct samples_line sent = {.function = TEXT("do_syscall_64")};
	uint32_t numbers[4], locations[4], trace, again_trace;

	again.memory_start += 0x10000000;
	again.memory_limit += 0x10000000;
	MUST(samples_batch_mapping(f.batch, &mapping, &numbers[0]));
	MUST(samples_batch_mapping(f.batch, &again, &numbers[1]));
	MUST(samples_batch_mapping(f.batch, &kernel, &numbers[2]));
	struct samples_location in_kernel = {.kind = PROFILE_FRAME_KERNEL, .mapping = numbers[2], .address = 0x77, .lines = &sent, .line_count = 1};
	struct samples_line py = {.function = TEXT("handler"), .file = TEXT("h.py"), .line = 12};
	struct samples_location python = {.kind = PROFILE_FRAME_INTERPRETED, .mapping = SAMPLES_NONE, .lines = &py, .line_count = 1};
	MUST(samples_batch_location(f.batch, &in_kernel, &locations[0]));
	MUST(samples_batch_location(f.batch, &python, &locations[1]));
	locations[2] = native(f.batch, numbers[0], 0x7f0000001234);
	locations[3] = native(f.batch, numbers[1], 0x7f0010002000);
	MUST(samples_batch_trace(f.batch, locations, 4, &trace));
	/* Another process, the same place of the file: the same trace. */
	locations[2] = native(f.batch, numbers[1], 0x7f0010001234);
	MUST(samples_batch_trace(f.batch, locations, 4, &again_trace));
	cr_assert_eq(again_trace, trace);
	struct samples_sample sample = sample_make(&f, trace, HOUR_START_MS, 1);
	MUST(samples_batch_add(f.batch, &sample));
	(void)commit(&f);
}

Test(samples_symbols, come_later_and_show_in_old_samples)
{
	CONTEXT(b);
	struct symbols symbols = {0};
	struct samples_resolver resolver = {resolve, &symbols};
	struct samples_query query = {.tenant = 1};
	struct samples_query_stat stat;
	struct profile profile;

	add_native(&b);
	expect_folded(b.samples, &query, &resolver, "app+0x402000;app+0x401234;handler;do_syscall_64 1\n");
	MUST(samples_query(b.samples, &query, &resolver, &profile, &stat));
	cr_expect_eq(stat.unresolved, 2);
	cr_expect_eq(profile.mapping_count, 2);
	for (uint32_t i = 0; i < profile.location_count; i++)
		if (!profile.locations[i].symbolized)
			cr_expect_str_eq(intern_text(&profile.text, profile.locations[i].reason), "no symbols yet");
	profile_deinit(&profile);
	symbols = (struct symbols){.known = true};
	/* The kernel's name from the sender gives way to a chain with lines. */
	expect_folded(b.samples, &query, &resolver, "app;inlined;app;inlined;handler;vmlinux;inlined 1\n");
	cr_expect_eq(symbols.calls, 2, "once a module");
	cr_expect_eq(symbols.addresses, 3);
	end_samples(&b);
}

Test(samples_symbols, without_a_resolver_leave_addresses)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};

	add_native(&b);
	expect_folded(b.samples, &query, NULL, "app+0x2000;app+0x1234;handler;do_syscall_64 1\n");
	end_samples(&b);
}

Test(samples_symbols, hint_is_given_for_addresses_that_look_linked)
{
	CONTEXT(b);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	struct samples_mapping mapping = {.file_id = file_id_of(5), .name = TEXT("app"), .memory_start = 0x401000, .memory_limit = 0x409000, .file_offset = 0x1000};
	uint32_t number, trace;

	MUST(samples_batch_mapping(f.batch, &mapping, &number));
	uint32_t locations[] = {native(f.batch, number, 0x401234), native(f.batch, number, 0x9999999)};
	MUST(samples_batch_trace(f.batch, locations, 2, &trace));
	struct samples_sample sample = sample_make(&f, trace, HOUR_START_MS, 1);
	MUST(samples_batch_add(f.batch, &sample));
	(void)commit(&f);
	/* Inside: by file offset, shown as linked. Outside of the mapping: as it is. */
	struct samples_query query = {.tenant = 1};
	expect_folded(b.samples, &query, NULL, "app+0x9999999;app+0x401234 1\n");
	end_samples(&b);
}

/* -------------------------------------------------------------------------------------- dedupe */

Test(samples_dedupe, skips_a_key_within_fifteen_minutes_and_across_a_restart)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};
	uint8_t key[16];

	key_make(1, key);
	cr_expect_eq(put(&b, key, "a", HOUR_START_MS, 1).duplicate_profiles, 0);
	struct samples_result result = put(&b, key, "a", HOUR_START_MS, 1);
	cr_expect_eq(result.duplicate_profiles, 1);
	cr_expect_eq(result.samples, 0);
	reopen_samples(&b);
	cr_expect_eq(put(&b, key, "a", HOUR_START_MS, 1).duplicate_profiles, 1);
	atomic_fetch_add(&b.now_ms, SAMPLES_DEDUPE_MS - 1);
	cr_expect_eq(put(&b, key, "a", HOUR_START_MS, 1).duplicate_profiles, 1);
	cr_expect_eq(total(b.samples, &query), 1);
	atomic_fetch_add(&b.now_ms, 1);
	cr_expect_eq(put(&b, key, "a", HOUR_START_MS, 1).duplicate_profiles, 0);
	cr_expect_eq(total(b.samples, &query), 2);
	end_samples(&b);
}

Test(samples_dedupe, is_by_tenant_and_within_a_batch)
{
	CONTEXT(b);
	uint8_t key[16];

	key_make(2, key);
	struct filler f = fill(b.samples, 1, key, cpu_type(), "web", "main");
	add(&f, "a", HOUR_START_MS, 1);
	MUST(samples_batch_profile(f.batch, key));
	add(&f, "a", HOUR_START_MS, 1);
	MUST(samples_batch_profile(f.batch, NULL));
	add(&f, "a", HOUR_START_MS, 1);
	struct samples_result result = commit(&f);
	cr_expect_eq(result.profiles, 2);
	cr_expect_eq(result.duplicate_profiles, 1);
	cr_expect_eq(result.samples, 2);
	f = fill(b.samples, 2, key, cpu_type(), "web", "main");
	add(&f, "a", HOUR_START_MS, 1);
	cr_expect_eq(commit(&f).duplicate_profiles, 0);
	end_samples(&b);
}

Test(samples_dedupe, forgets_keys_that_are_old)
{
	CONTEXT(b);
	uint8_t key[16];

	for (uint64_t i = 0; i < 600; i++) {
		key_make(i, key);
		(void)put(&b, key, "a", HOUR_START_MS, 1);
	}
	atomic_fetch_add(&b.now_ms, SAMPLES_DEDUPE_MS);
	samples_tend(b.samples);
	struct store_read *read;
	struct store_scan *scan;
	struct store_view k, v;
	MUST(store_read_begin(b.samples->store, &read));
	MUST(store_profiles_scan(store_profiles_read(read), STORE_SEEN, NULL, 0, NULL, 0, &scan));
	MUST(store_profiles_next(scan, &k, &v));
	cr_expect_null(k.bytes);
	store_profiles_scan_end(scan);
	store_read_end(read);
	end_samples(&b);
}

Test(samples_dedupe, survives_a_restart_and_many_keys)
{
	CONTEXT(b);
	uint8_t key[16];

	/* More than a table has before it is looked through for old ones. */
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	for (uint64_t i = 0; i < 40000; i++) {
		key_make(i, key);
		MUST(samples_batch_profile(f.batch, key));
	}
	add(&f, "a", HOUR_START_MS, 1);
	cr_expect_eq(commit(&f).duplicate_profiles, 0);
	reopen_samples(&b);
	f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	for (uint64_t i = 39000; i < 41000; i++) {
		key_make(i, key);
		MUST(samples_batch_profile(f.batch, key));
	}
	add(&f, "a", HOUR_START_MS, 1);
	cr_expect_eq(commit(&f).duplicate_profiles, 1000);
	end_samples(&b);
}

/* Commits one sample under each of these numbers, zero-terminated, in one batch; returns how many were counted before. */
static uint64_t put_sequences(struct bench_store *b, uint8_t instance, const uint64_t *numbers)
{
	struct filler f = fill(b->samples, 1, NULL, cpu_type(), "web", "main");
	uint8_t id[SAMPLES_INSTANCE_BYTES] = {instance};

	for (; *numbers; numbers++) {
		MUST(samples_batch_sequence(f.batch, id, *numbers));
		add(&f, "a", HOUR_START_MS, 1);
	}
	return commit(&f).duplicate_profiles;
}
#define PUT_SEQUENCES(b, instance, ...) put_sequences(b, instance, (const uint64_t[]){__VA_ARGS__, 0})

Test(samples_sequences, are_counted_once_however_late_they_come_again)
{
	CONTEXT(b);

	cr_expect_eq(PUT_SEQUENCES(&b, 1, 1, 2, 3, 3), 1);
	atomic_fetch_add(&b.now_ms, (uint64_t)24 * HOUR_MS);
	samples_tend(b.samples);
	reopen_samples(&b);
	cr_expect_eq(PUT_SEQUENCES(&b, 1, 2, 3, 4), 2);
	cr_expect_eq(PUT_SEQUENCES(&b, 2, 2, 3, 4), 0, "another instance");
	end_samples(&b);
}

Test(samples_sequences, leave_gaps_open_for_what_comes_later)
{
	CONTEXT(b);

	cr_expect_eq(PUT_SEQUENCES(&b, 1, 1, 5, 4096, 4097), 0);
	cr_expect_eq(PUT_SEQUENCES(&b, 1, 3, 5, 4095, 4097), 2);
	cr_expect_eq(PUT_SEQUENCES(&b, 1, 3, 4, 4095), 2);
	/* Number 1 is in the window's place of 4097, which came later. */
	cr_expect_eq(PUT_SEQUENCES(&b, 1, 1), 0, "below the window it is a key");
	cr_expect_eq(PUT_SEQUENCES(&b, 1, 1), 1);
	/* Far ahead: nothing of the old window is taken for the new one's. */
	cr_expect_eq(PUT_SEQUENCES(&b, 1, 1000000), 0);
	cr_assert_eq(999429 % SEEN_WINDOW, 5);
	cr_expect_eq(PUT_SEQUENCES(&b, 1, 999999, 999429, 1000000 - 4095, UINT64_MAX), 0, "5 was counted, and not 999429 in its place");
	cr_expect_eq(PUT_SEQUENCES(&b, 1, UINT64_MAX, UINT64_MAX - 1), 1);
	end_samples(&b);
}

Test(samples_sequences, are_forgotten_when_their_samples_would_be_too_old)
{
	CONTEXT(b);
	uint8_t id[SAMPLES_INSTANCE_BYTES] = {1};
	struct seen_mark mark;
	struct store_read *read;

	cr_expect_eq(PUT_SEQUENCES(&b, 1, 7), 0);
	for (int days = 29; days <= 31; days += 2) {
		atomic_store(&b.now_ms, HOUR_START_MS + (uint64_t)days * 24 * HOUR_MS);
		samples_tend(b.samples);
		MUST(store_read_begin(b.samples->store, &read));
		MUST(seen_mark_read(store_profiles_read(read), 1, id, &mark));
		cr_expect_eq(mark.highest, days < 30 ? 7 : 0);
		store_read_end(read);
	}
	end_samples(&b);
}

Test(samples_batch, drops_a_faulty_profile_with_its_key)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};
	uint8_t key[16];

	key_make(3, key);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	add(&f, "a", HOUR_START_MS, 1);
	MUST(samples_batch_profile(f.batch, key));
	add(&f, "b", HOUR_START_MS, 2);
	samples_batch_drop_profile(f.batch);
	struct samples_result result = commit(&f);
	cr_expect_eq(result.profiles, 1);
	cr_expect_eq(result.samples, 1);
	cr_expect_eq(total(b.samples, &query), 1);
	cr_expect_eq(put(&b, key, "b", HOUR_START_MS, 2).duplicate_profiles, 0);
	end_samples(&b);
}

/* -------------------------------------------------------------------------------------- clocks and limits */

Test(samples_clock, rejects_the_future_and_what_is_too_old)
{
	CONTEXT(b);
	uint64_t now = atomic_load(&b.now_ms);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	struct samples_counters counters;
	struct samples_query query = {.tenant = 1};

	add(&f, "a", now + 10 * 60 * 1000, 1);
	add(&f, "a", now + 10 * 60 * 1000 + 1, 2);
	struct samples_sample far = sample_make(&f, 0, now, 4);
	far.time_unix_nano = UINT64_MAX;
	MUST(samples_batch_add(f.batch, &far));
	add(&f, "a", now - 30ull * 24 * HOUR_MS, 8);
	add(&f, "a", now - 30ull * 24 * HOUR_MS - 1, 16);
	add(&f, "a", 0, 32);
	struct samples_result result = commit(&f);
	cr_expect_eq(result.samples, 2);
	cr_expect_eq(result.rejected_future, 2);
	cr_expect_eq(result.rejected_old, 2);
	samples_counters(b.samples, &counters);
	cr_expect_eq(counters.rejected_future, 2);
	cr_expect_eq(counters.rejected_old, 2);
	cr_expect_eq(total(b.samples, &query), 9);
	end_samples(&b);
}

Test(samples_limits, of_a_batch_are_errors)
{
	CONTEXT(b);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	static uint32_t deep[PROFILE_MAX_DEPTH + 1];
	struct samples_label labels[SAMPLES_LABELS_MAX + 1];
	static struct samples_line lines[SAMPLES_LINES_MAX + 1];
	char keys[SAMPLES_LABELS_MAX + 1][8];
	uint32_t number = 77;
	struct samples_sample sample = sample_make(&f, 0, HOUR_START_MS, 1);

	(void)stack_make(f.batch, "a");
	MUST(samples_batch_trace(f.batch, deep, PROFILE_MAX_DEPTH, &number));
	expect_error(samples_batch_trace(f.batch, deep, PROFILE_MAX_DEPTH + 1, &number), ERR_LIMIT, "4096 at most");
	deep[0] = 1;
	expect_error(samples_batch_trace(f.batch, deep, 1, &number), ERR_INVALID, "location 1 of 1");
	for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
		(void)snprintf(keys[i], sizeof(keys[i]), "k%zu", i);
		labels[i] = (struct samples_label){text_make(keys[i]), TEXT("v")};
	}
	expect_error(samples_batch_labels(f.batch, SAMPLES_NONE, labels, SAMPLES_LABELS_MAX + 1, &number), ERR_LIMIT, "128 at most");
	MUST(samples_batch_labels(f.batch, SAMPLES_NONE, labels, SAMPLES_LABELS_MAX, &number));
	expect_error(samples_batch_labels(f.batch, number, labels, 1, &number), ERR_LIMIT, "128 at most");
	expect_error(samples_batch_labels(f.batch, 99, labels, 1, &number), ERR_INVALID, "label set 99");
	struct samples_location location = {.mapping = SAMPLES_NONE, .lines = lines, .line_count = SAMPLES_LINES_MAX + 1};
	expect_error(samples_batch_location(f.batch, &location, &number), ERR_LIMIT, "256 at most");
	location.line_count = SAMPLES_LINES_MAX;
	MUST(samples_batch_location(f.batch, &location, &number));
	location.mapping = 0;
	expect_error(samples_batch_location(f.batch, &location, &number), ERR_INVALID, "mapping 0 of 0");
	sample.cpu = SAMPLES_CPU_MAX + 1;
	expect_error(samples_batch_add(f.batch, &sample), ERR_INVALID, "CPU 65535");
	sample.cpu = SAMPLES_CPU_MAX;
	MUST(samples_batch_add(f.batch, &sample));
	sample.link = 1;
	expect_error(samples_batch_add(f.batch, &sample), ERR_INVALID, "link 1 of 1");
	samples_batch_drop_profile(f.batch);
	sample.link = 0;
	expect_error(samples_batch_add(f.batch, &sample), ERR_INVALID, "before its profile");
	for (int64_t i = 0; i < 254; i++) {
		struct samples_type type = {.period = i + 1};
		MUST(samples_batch_type(f.batch, &type, &number));
	}
	struct samples_type type = {.period = 1000};
	expect_error(samples_batch_type(f.batch, &type, &number), ERR_LIMIT, "255 types");
	samples_batch_destroy(f.batch);
	end_samples(&b);
}

Test(samples_limits, text_is_cut_between_characters)
{
	CONTEXT(b);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	char *text = malloc(SAMPLES_TEXT_MAX + 2);
	uint32_t number;

	memset(text, 'x', SAMPLES_TEXT_MAX + 2);
	memcpy(text + SAMPLES_TEXT_MAX - 1, "\xc3\xa4z", 3);
	struct samples_type type = {.type = {text, SAMPLES_TEXT_MAX + 2}};
	MUST(samples_batch_type(f.batch, &type, &number));
	struct dict_type record;
	dict_get_type(&f.batch->dict, number, &record);
	cr_expect_eq(dict_text(&f.batch->dict, record.type).len, SAMPLES_TEXT_MAX - 1);
	free(text);
	samples_batch_destroy(f.batch);
	end_samples(&b);
}

Test(samples_limits, a_full_batch_is_refused)
{
	CONTEXT(b);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	struct samples_sample sample = sample_make(&f, stack_make(f.batch, ""), HOUR_START_MS, 1);
	struct err *e = NULL;

	for (size_t i = 0; i < (size_t)SAMPLES_BATCH_BYTES_MAX / sizeof(struct batch_sample) + 4096 && !e; i++)
		e = samples_batch_add(f.batch, &sample);
	expect_error(e, ERR_LIMIT, "268435456 at most");
	samples_batch_destroy(f.batch);
	end_samples(&b);
}

Test(samples_limits, hours_of_a_batch_are_bounded)
{
	CONTEXT(b);
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");

	for (uint64_t i = 0; i < SAMPLES_BATCH_PARTITIONS_MAX + 3; i++)
		add(&f, "a", HOUR_START_MS - i * HOUR_MS, 1);
	struct samples_result result = commit(&f);
	cr_expect_eq(result.samples, SAMPLES_BATCH_PARTITIONS_MAX);
	cr_expect_eq(result.rejected_old, 3);
	end_samples(&b);
}

static void count_done(void *arg, struct err *e, const struct samples_result *result)
{
	MUST(e);
	atomic_fetch_add((atomic_ullong *)arg, result->samples);
}

Test(samples_limits, a_full_queue_is_busy_and_the_batch_stays)
{
	CONTEXT(b);
	atomic_ullong done = 0;
	struct samples_counters counters;
	struct err *e = NULL;
	uint64_t taken = 0;

	samples_close(b.samples);
	b.options.queue_bytes = 1;
	open_samples(&b);
	struct filler f = {0};
	for (int i = 0; i < 100000 && !e; i++) {
		f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
		add(&f, "a", HOUR_START_MS, 1);
		e = samples_commit(&f.batch, count_done, &done);
		taken += !e;
	}
	expect_error(e, ERR_BUSY, "waiting to be written");
	cr_assert_not_null(f.batch);
	while ((e = samples_commit(&f.batch, count_done, &done)))
		err_free(e);
	cr_expect_null(f.batch);
	samples_counters(b.samples, &counters);
	cr_expect_gt(counters.busy, 0);
	samples_close(b.samples);
	cr_expect_eq(atomic_load(&done), taken + 1);
	temp_dir_remove(b.dir);
}

/* -------------------------------------------------------------------------------------- hashes */

static void hash_in(struct samples *samples, const char *before, const char *names, uint8_t ret[16])
{
	struct filler f = fill(samples, 1, NULL, cpu_type(), before, "main");

	(void)stack_make(f.batch, before);
	samples_trace_hash(f.batch, stack_make(f.batch, names), ret);
	samples_batch_destroy(f.batch);
}

Test(samples_trace_hash, depends_on_frames_and_nothing_else)
{
	CONTEXT(b);
	uint8_t one[16], same[16], other[16], shorter[16];

	hash_in(b.samples, "x y", "c b a", one);
	hash_in(b.samples, "b q c", "c b a", same);
	hash_in(b.samples, "x y", "b c a", other);
	hash_in(b.samples, "x y", "b a", shorter);
	cr_expect_arr_eq(one, same, 16);
	cr_expect_arr_neq(one, other, 16);
	cr_expect_arr_neq(one, shorter, 16);
	end_samples(&b);
}

/* -------------------------------------------------------------------------------------- listings */

static struct err *collect(void *context, const char *text, uint64_t value)
{
	return buf_printf(context, "%s=%llu ", text, (unsigned long long)value);
}

static void expect_list(struct buf *buf, const char *expected)
{
	MUST(buf_append(buf, "", 1));
	cr_expect_str_eq((char *)buf->data, expected);
	buf->len = 0;
}

Test(samples_list, types_keys_and_values)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};
	struct buf buf = {0};
	struct samples_visitor visitor = {collect, &buf};
	struct samples_type off = {TEXT("off_cpu"), TEXT("nanoseconds"), TEXT(""), TEXT(""), 0};

	atomic_store(&b.now_ms, HOUR_START_MS + 2 * HOUR_MS);
	add_on_cpu(&b, "web", "main", 0, 1);
	add_on_cpu(&b, "web", "gc", 1, 2);
	add_on_cpu(&b, "db", "main", -1, 4);
	struct filler f = fill(b.samples, 1, NULL, &off, "db", "main");
	add(&f, "a", HOUR_START_MS + HOUR_MS, 100);
	(void)commit(&f);
	MUST(samples_types(b.samples, &query, &visitor));
	expect_list(&buf, "off_cpu:nanoseconds=100 samples:count:cpu:nanoseconds:50000000=7 ");
	MUST(samples_label_keys(b.samples, &query, &visitor));
	expect_list(&buf, "host.name=1 service.name=2 thread.name=2 ");
	expect_error(samples_label_values(b.samples, &query, TEXT("service"), &visitor), ERR_INVALID, "several types");
	query.type = TEXT("cpu");
	MUST(samples_label_values(b.samples, &query, TEXT("service"), &visitor));
	expect_list(&buf, "db=4 web=3 ");
	MUST(samples_label_values(b.samples, &query, TEXT("cpu"), &visitor));
	expect_list(&buf, "=4 0=1 1=2 ");
	buf_deinit(&buf);
	end_samples(&b);
}

static struct err *collect_event(void *context, const struct samples_event *event)
{
	return buf_printf(context, "%llu.%09llu=%llu@%d ", (unsigned long long)(event->time_unix_nano / 1000000000 - HOUR_START_MS / 1000),
		(unsigned long long)(event->time_unix_nano % 1000000000), (unsigned long long)event->value, event->cpu);
}

Test(samples_events, keep_exact_times_for_raw_for)
{
	CONTEXT(b);
	struct samples_query query = {.tenant = 1};
	struct buf buf = {0};
	struct filler f = fill(b.samples, 1, NULL, cpu_type(), "web", "main");
	struct samples_sample sample = sample_make(&f, stack_make(f.batch, "a"), HOUR_START_MS, 1);

	sample.cpu = 3;
	for (uint64_t ns = 0; ns < 3; ns++) {
		sample.time_unix_nano = HOUR_START_MS * 1000000 + 5 + ns;
		MUST(samples_batch_add(f.batch, &sample));
	}
	sample.exact = false;
	MUST(samples_batch_add(f.batch, &sample));
	(void)commit(&f);
	cr_expect_eq(total(b.samples, &query), 4);
	MUST(samples_events(b.samples, &query, collect_event, &buf));
	expect_list(&buf, "0.000000005=1@3 0.000000006=1@3 0.000000007=1@3 ");
	query.from_unix_nano = HOUR_START_MS * 1000000 + 6;
	query.to_unix_nano = HOUR_START_MS * 1000000 + 7;
	MUST(samples_events(b.samples, &query, collect_event, &buf));
	expect_list(&buf, "0.000000006=1@3 ");
	/* An hour later they are gone, the counts are not. */
	atomic_store(&b.now_ms, HOUR_START_MS + HOUR_MS + 1000);
	samples_tend(b.samples);
	query = (struct samples_query){.tenant = 1};
	MUST(samples_events(b.samples, &query, collect_event, &buf));
	expect_list(&buf, "");
	cr_expect_eq(total(b.samples, &query), 4);
	buf_deinit(&buf);
	end_samples(&b);
}

// SPDX-License-Identifier: Apache-2.0
/* Records, aliases, entries, tables, tenants; opening and closing. On a real LMDB in a temporary folder. */
#include "tests/store/suite.h"

#include <stdatomic.h>
#include <sys/wait.h>

static void reopen(void)
{
	store_close(store);
	store = open_at(dir);
}

static struct sha256 commit(uint32_t tenant, uint64_t file, uint64_t build, struct store_entry entry, uint64_t seed, size_t len)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(seed, len);
	struct store_commit c = {.tenant = tenant, .has_file = file != 0, .table = bytes, .table_len = len, .entry = entry};
	struct sha256 id;

	if (file)
		c.file = file_of(file);
	if (build)
		c.build_id = build_id_of(build);
	MUST(store_commit_table(store, &c, &id));
	return id;
}

static struct store_answer resolve(uint32_t tenant, uint64_t file, uint64_t build)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = tenant, .has_file_id = file != 0};
	struct store_answer answer;

	if (file)
		query.file_id = file_id_of(file);
	if (build)
		query.build_id = build_id_of(build);
	MUST(store_read_begin(store, &read));
	MUST(store_resolve(read, &query, &answer));
	return answer;
}

static bool has_table(const struct sha256 *id)
{
	struct store_table table;
	struct err *e = store_table_acquire(store, id, &table);

	if (e) {
		cr_assert_eq(err_code(e), ERR_NOT_FOUND, "%s", err_message(e));
		err_free(e);
		return false;
	}
	store_table_release(&table);
	return true;
}

enum { DWARF = 1, GOPCLNTAB = 2, SYMTAB = 4, DYNSYM = 16 };

/* -------------------------------------------------------------------------------------- open */

Test(store_open, keeps_the_node_id, .init = setup, .fini = teardown)
{
	uint8_t before[STORE_NODE_ID_BYTES], after[STORE_NODE_ID_BYTES], zero[STORE_NODE_ID_BYTES] = {0};

	store_node_id(store, before);
	reopen();
	store_node_id(store, after);
	cr_assert_arr_eq(before, after, sizeof(before));
	cr_assert_arr_neq(before, zero, sizeof(before));
}

Test(store_open, refuses_a_second_process, .init = setup, .fini = teardown)
{
	struct store_options options = {.data_dir = dir};
	struct store *second = NULL;

	assert_fails(store_open(&options, &second), ERR_BUSY, "another process has this data directory");
	cr_assert_null(second);
}

Test(store_open, read_only_works_beside_the_daemon, .init = setup, .fini = teardown)
{
	struct store_options options = {.data_dir = dir, .read_only = true, .map_max = 64ull << 30};
	struct store_file file = file_of(1);

	MUST(store_put_file(store, 1, &file));
	/* A process opens one LMDB file once: the reader is another process. */
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		struct store *second;
		struct check_log log;
		struct store_counts counts;
		MUST(store_open(&options, &second));
		bool good = faults_of(second, &log, &counts) == 0 && counts.files == 1;
		struct err *e = store_put_file(second, 1, &file);
		good = good && e && err_code(e) == ERR_INVALID;
		err_free(e);
		store_close(second);
		_exit(good ? 0 : 1);
	}
	int status;
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

Test(store_open, read_only_does_not_create)
{
	char path[64];
	temp_dir_make(path);
	struct store_options options = {.data_dir = path, .read_only = true};
	struct store *none = NULL;

	assert_fails(store_open(&options, &none), ERR_NOT_FOUND, "there is no store");
	temp_dir_remove(path);
}

Test(store_open, names_a_folder_that_cannot_be_made)
{
	struct store_options options = {.data_dir = "/proc/none/of/this"};
	struct store *none = NULL;

	assert_fails(store_open(&options, &none), ERR_OS, "/proc/none/of/this");
}

Test(store_open, fills_in_the_defaults)
{
	char path[64];
	temp_dir_make(path);
	struct store_options options = {.data_dir = path};
	struct store *s;

	MUST(store_open(&options, &s));
	cr_assert_eq(store_limits(s)->map_max, 1ull << 40);
	cr_assert_eq(store_limits(s)->job_attempts_max, 3);
	struct store_stat now;
	MUST(store_stat(s, &now));
	cr_assert_eq(now.map_bytes, 1ull << 40);
	cr_assert_eq(now.schema_version, STORE_SCHEMA_VERSION);
	store_close(s);
	struct stat folder;
	char data[96];
	(void)snprintf(data, sizeof(data), "%s/symbols/data.mdb", path);
	cr_assert_eq(stat(data, &folder), 0);
	cr_assert_lt(folder.st_size, 1 << 20, "the file is as large as the map");
	temp_dir_remove(path);
}

/* -------------------------------------------------------------------------------------- resolve */

Test(store_resolve, unknown_until_committed_and_after_a_restart_still_known, .init = setup, .fini = teardown)
{
	cr_assert_eq(resolve(1, 7, 0).status, STORE_UNKNOWN);
	struct sha256 id = commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a.debug"), 1, 5000);
	reopen();
	struct store_answer answer = resolve(1, 7, 0);
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert(answer.has_file);
	cr_assert_str_eq(answer.file.name, "lib7.so");
	cr_assert_eq(answer.file.segments.items[0].vaddr, 0x401000);
	cr_assert_eq(answer.entry.table_bytes, 5000);
	cr_assert_str_eq(answer.entry.provenance, "a.debug");
	cr_assert_arr_eq(answer.entry.table.bytes, id.bytes, SHA256_BYTES);
	cr_assert_str_eq(answer.reason, "");
}

Test(store_resolve, a_build_id_leads_to_the_runtime_file, .init = setup, .fini = teardown)
{
	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 1, 100);
	struct store_answer answer = resolve(1, 0, 70);
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert(answer.has_file);
	struct fileid id = file_id_of(7);
	cr_assert(fileid_equal(&answer.file.file_id, &id));
}

Test(store_resolve, copies_with_one_build_id_share_symbols, .init = setup, .fini = teardown)
{
	struct store_file stripped = file_of(8);

	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 1, 100);
	stripped.build_id = build_id_of(70);
	stripped.segments.count = 0;
	MUST(store_put_file(store, 1, &stripped));
	struct store_answer answer = resolve(1, 8, 0);
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert_str_eq(answer.file.name, "lib8.so");
	cr_assert_eq(answer.file.segments.count, 1, "the other copy's segments serve");
}

Test(store_resolve, without_build_id_symbols_attach_to_the_file, .init = setup, .fini = teardown)
{
	commit(1, 7, 0, entry_of(STORE_SOURCE_UPLOAD, SYMTAB, "a"), 1, 100);
	cr_assert_eq(resolve(1, 7, 0).status, STORE_OK);
	cr_assert_eq(resolve(1, 8, 0).status, STORE_UNKNOWN);
}

Test(store_resolve, the_file_id_wins_and_the_reason_says_so, .init = setup, .fini = teardown)
{
	struct sha256 own = commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 1, 100);

	commit(1, 8, 80, entry_of(STORE_SOURCE_UPLOAD, DWARF, "b"), 2, 100);
	struct store_answer answer = resolve(1, 7, 80);
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert_arr_eq(answer.entry.table.bytes, own.bytes, SHA256_BYTES);
	cr_assert(strstr(answer.reason, "file ID and build ID disagree"), "%s", answer.reason);
	cr_assert(strstr(answer.reason, "the file ID was used"), "%s", answer.reason);
	/* The same with the build ID that it has: no reason. */
	cr_assert_str_eq(resolve(1, 7, 70).reason, "");
}

Test(store_resolve, an_unknown_file_id_falls_back_to_the_build_id, .init = setup, .fini = teardown)
{
	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 1, 100);
	struct store_answer answer = resolve(1, 99, 70);
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert_str_eq(answer.reason, "");
}

Test(store_resolve, a_debug_file_alone_has_symbols_and_no_runtime_file, .init = setup, .fini = teardown)
{
	commit(1, 0, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a.debug"), 1, 100);
	struct store_answer answer = resolve(1, 0, 70);
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert_not(answer.has_file);
}

/* A kernel's debug file alone: profilers know the kernel by an ID of its own. */
Test(store_commit_table, a_kernel_id_is_a_second_record_with_or_without_the_first, .init = setup, .fini = teardown)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(3, 100);
	struct store_commit commit = {.tenant = 1, .has_kernel_id = true, .kernel_id = file_id_of(9), .build_id = build_id_of(70),
		.file = file_of(7), .table = bytes, .table_len = 100, .entry = entry_of(STORE_SOURCE_UPLOAD, DWARF, "vmlinux")};

	commit.file.has_text = true;
	commit.file.text_vaddr = 0xffffffff81000000;
	commit.file.segments.count = 0;
	MUST(store_commit_table(store, &commit, NULL));
	struct store_answer answer = resolve(1, 9, 0);
	cr_assert_eq(answer.status, STORE_OK);
	cr_assert(answer.has_file && answer.file.has_text);
	cr_assert_eq(answer.file.text_vaddr, 0xffffffff81000000);
	cr_assert_eq(answer.file.size, 0, "of no file in particular");
	cr_assert_eq(resolve(1, 7, 0).status, STORE_UNKNOWN);
	commit.has_file = true;
	MUST(store_commit_table(store, &commit, NULL));
	cr_assert_eq(resolve(1, 7, 0).status, STORE_OK);
	cr_assert_eq(resolve(1, 9, 0).status, STORE_OK);
	/* What an agent says of the ID is hearsay: where the text lies comes from the other record. */
	struct store_file heard = file_of(11);
	heard.build_id = build_id_of(70);
	heard.segments.count = 0;
	MUST(store_put_file(store, 1, &heard));
	cr_assert_eq(resolve(1, 11, 0).file.text_vaddr, 0xffffffff81000000);
}

Test(store_resolve, a_known_file_without_entries_has_no_symbols, .init = setup, .fini = teardown)
{
	struct store_file file = file_of(7);

	MUST(store_put_file(store, 1, &file));
	cr_assert_eq(resolve(1, 7, 0).status, STORE_NO_SYMBOLS);
}

Test(store_resolve, needs_an_id, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = 1};
	struct store_answer answer;

	MUST(store_read_begin(store, &read));
	assert_fails(store_resolve(read, &query, &answer), ERR_INVALID, "neither a file ID nor a build ID");
}

Test(store_resolve, sees_its_own_tenant_then_the_public_one, .init = setup, .fini = teardown)
{
	commit(STORE_TENANT_PUBLIC, 7, 70, entry_of(STORE_SOURCE_PACKAGE, DWARF, "deb"), 1, 100);
	commit(2, 8, 80, entry_of(STORE_SOURCE_UPLOAD, DWARF, "private"), 2, 100);
	cr_assert_eq(resolve(1, 7, 0).status, STORE_OK);
	cr_assert_eq(resolve(1, 7, 0).entry.tenant, STORE_TENANT_PUBLIC);
	cr_assert_eq(resolve(1, 8, 0).status, STORE_UNKNOWN, "another tenant's file");
	cr_assert_eq(resolve(1, 0, 80).status, STORE_UNKNOWN, "another tenant's build ID");
	cr_assert_eq(resolve(STORE_TENANT_PUBLIC, 8, 0).status, STORE_UNKNOWN);
	cr_assert_eq(resolve(2, 8, 0).status, STORE_OK);
}

Test(store_resolve, a_private_upload_wins_over_public_symbols, .init = setup, .fini = teardown)
{
	commit(STORE_TENANT_PUBLIC, 7, 70, entry_of(STORE_SOURCE_PACKAGE, DWARF, "deb"), 1, 100);
	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "mine"), 2, 100);
	cr_assert_str_eq(resolve(1, 7, 0).entry.provenance, "mine");
	cr_assert_str_eq(resolve(3, 7, 0).entry.provenance, "deb");
}

Test(store_resolve, lines_win_over_names_whoever_brought_them, .init = setup, .fini = teardown)
{
	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DYNSYM, "stripped upload"), 1, 100);
	commit(STORE_TENANT_PUBLIC, 7, 70, entry_of(STORE_SOURCE_DEBUGINFOD, DWARF | SYMTAB, "debuginfod"), 2, 100);
	cr_assert_str_eq(resolve(1, 7, 0).entry.provenance, "debuginfod");
}

Test(store_resolve, order_of_the_best, .init = setup, .fini = teardown)
{
	const struct {
		struct store_entry better, worse;
	} cases[] = {
		{{.kind = GOPCLNTAB, .rank = 1}, {.kind = SYMTAB, .rank = 9}},
		{{.kind = GOPCLNTAB, .rank = 9}, {.kind = DWARF, .rank = 1}},
		{{.kind = DWARF, .rank = 5}, {.kind = GOPCLNTAB, .rank = 5}},
		{{.kind = SYMTAB, .rank = 5}, {.kind = DYNSYM, .rank = 5}},
		{{.kind = DWARF | SYMTAB, .rank = 5}, {.kind = DWARF, .rank = 5}},
		{{.kind = DYNSYM, .rank = 5}, {.kind = 0, .rank = 5}},
		{{.kind = DWARF, .rank = 5, .builder_version = 2, .created_ms = 1}, {.kind = DWARF, .rank = 5, .builder_version = 1, .created_ms = 9}},
		{{.kind = DWARF, .rank = 5, .created_ms = 9}, {.kind = DWARF, .rank = 5, .created_ms = 2}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct store_entry better = cases[i].better, worse = cases[i].worse;
		better.source = worse.source = STORE_SOURCE_UPLOAD;
		(void)snprintf(better.provenance, sizeof(better.provenance), "better");
		(void)snprintf(worse.provenance, sizeof(worse.provenance), "worse");
		if (!better.created_ms)
			better.created_ms = worse.created_ms = 1;
		commit(1, 0, 100 + i, better, 2 * i, 50);
		commit(1, 0, 100 + i, worse, 2 * i + 1, 50);
		cr_assert_str_eq(resolve(1, 0, 100 + i).entry.provenance, "better", "case %zu", i);
	}
}

Test(store_entries, lists_all_best_first, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = 1, .build_id = build_id_of(70)};
	struct store_entry entries[4];
	size_t n;

	commit(1, 7, 70, entry_of(STORE_SOURCE_DEBUGINFOD, DWARF, "c"), 1, 100);
	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 2, 100);
	commit(0, 7, 70, entry_of(STORE_SOURCE_PACKAGE, DWARF, "b"), 3, 100);
	MUST(store_read_begin(store, &read));
	MUST(store_entries(read, &query, entries, 4, &n));
	cr_assert_eq(n, 3);
	cr_assert_str_eq(entries[0].provenance, "a");
	cr_assert_str_eq(entries[1].provenance, "b");
	cr_assert_str_eq(entries[2].provenance, "c");
	MUST(store_entries(read, &query, entries, 2, &n));
	cr_assert_eq(n, 2);
	cr_assert_str_eq(entries[1].provenance, "b");
}

/* -------------------------------------------------------------------------------------- commit */

Test(store_commit_table, twice_changes_nothing, .init = setup, .fini = teardown)
{
	struct store_stat once, twice;

	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 1, 100000);
	MUST(store_stat(store, &once));
	commit(1, 7, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 1, 100000);
	MUST(store_stat(store, &twice));
	cr_assert_eq(memcmp(&once.counts, &twice.counts, sizeof(once.counts)), 0);
}

Test(store_commit_table, a_rebuilt_table_replaces_its_elder, .init = setup, .fini = teardown)
{
	struct store_entry entry = entry_of(STORE_SOURCE_UPLOAD, DWARF, "a");
	struct sha256 old = commit(1, 7, 70, entry, 1, 100000);

	entry.builder_version = 2;
	struct sha256 new = commit(1, 7, 70, entry, 2, 100000);
	cr_assert_not(has_table(&old), "nobody names it any more");
	cr_assert(has_table(&new));
	/* One that comes late from an older builder does not come back, and leaves no table behind. */
	entry.builder_version = 1;
	struct sha256 late = commit(1, 7, 70, entry, 3, 100000);
	cr_assert_not(has_table(&late));
	cr_assert(has_table(&new));
}

Test(store_commit_table, a_shared_table_stays_while_somebody_names_it, .init = setup, .fini = teardown)
{
	struct store_entry entry = entry_of(STORE_SOURCE_UPLOAD, DWARF, "a");
	struct sha256 shared = commit(1, 7, 70, entry, 1, 1000);

	commit(2, 7, 70, entry, 1, 1000);
	entry.builder_version = 2;
	commit(1, 7, 70, entry, 2, 1000);
	cr_assert(has_table(&shared), "tenant 2 names it");
	commit(2, 7, 70, entry, 2, 1000);
	cr_assert_not(has_table(&shared));
}

Test(store_commit_table, past_the_limit_of_entries_the_best_stay, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = 1, .build_id = build_id_of(70)};
	struct store_entry entries[2 * STORE_ENTRIES_MAX];
	size_t n;

	for (unsigned i = 0; i < STORE_ENTRIES_MAX + 10; i++) {
		char text[32];
		(void)snprintf(text, sizeof(text), "p%u", i);
		struct store_entry entry = entry_of(STORE_SOURCE_UPLOAD, DWARF, text);
		entry.rank = (uint8_t)(200 - i);
		commit(1, 0, 70, entry, i, 40);
	}
	MUST(store_read_begin(store, &read));
	MUST(store_entries(read, &query, entries, ARRAY_SIZE(entries), &n));
	cr_assert_eq(n, STORE_ENTRIES_MAX);
	cr_assert_eq(entries[0].rank, 200);
	cr_assert_eq(entries[n - 1].rank, 200 - STORE_ENTRIES_MAX + 1);
}

Test(store_commit_table, refuses_what_makes_no_sense, .init = setup, .fini = teardown)
{
	uint8_t bytes[64] = {1};
	struct store_commit c = {.tenant = 1, .table = bytes, .table_len = sizeof(bytes)};

	assert_fails(store_commit_table(store, &c, NULL), ERR_INVALID, "neither a file record nor a build ID");
	c.build_id = build_id_of(1);
	c.entry.table.bytes[0] = 1;
	assert_fails(store_commit_table(store, &c, NULL), ERR_MISMATCH, "SHA-256");
	memset(&c.entry.table, 0, sizeof(c.entry.table));
	c.job_id = 12345;
	assert_fails(store_commit_table(store, &c, NULL), ERR_NOT_FOUND, "no job 12345");
	cr_assert_eq(resolve(1, 0, 1).status, STORE_UNKNOWN, "nothing of it was kept");
}

Test(store_commit_table, refuses_a_table_over_the_limit)
{
	char path[64];
	temp_dir_make(path);
	struct store_options options = {.data_dir = path, .map_max = 1 << 30, .max_table_bytes = 1000};
	uint8_t bytes[1001] = {0};
	struct store_commit c = {.tenant = 1, .build_id = build_id_of(1), .table = bytes, .table_len = sizeof(bytes)};
	struct store *s;

	MUST(store_open(&options, &s));
	assert_fails(store_commit_table(s, &c, NULL), ERR_LIMIT, "1001 bytes: the limit is 1000");
	c.table_len = 1000;
	MUST(store_commit_table(s, &c, NULL));
	store_close(s);
	temp_dir_remove(path);
}

Test(store_commit_table, a_full_map_is_an_error_and_the_store_goes_on)
{
	char path[64];
	temp_dir_make(path);
	struct store_options options = {.data_dir = path, .map_max = 4 << 20};
	CLEANUP(freep) uint8_t *bytes = table_bytes(1, 8 << 20);
	struct store_commit c = {.tenant = 1, .build_id = build_id_of(1), .table = bytes, .table_len = 8 << 20};
	struct store *s;

	MUST(store_open(&options, &s));
	assert_fails(store_commit_table(s, &c, NULL), ERR_LIMIT, "write tables");
	c.table_len = 1 << 20;
	MUST(store_commit_table(s, &c, NULL));
	cr_assert_null(store_health(s));
	store_close(s);
	temp_dir_remove(path);
}

Test(store_commit_table, without_a_table_records_the_file_only, .init = setup, .fini = teardown)
{
	struct store_commit c = {.tenant = 1, .has_file = true, .file = file_of(7), .build_id = build_id_of(70)};

	MUST(store_commit_table(store, &c, NULL));
	cr_assert_eq(resolve(1, 0, 70).status, STORE_NO_SYMBOLS);
	cr_assert_eq(resolve(1, 7, 0).status, STORE_NO_SYMBOLS);
}

Test(store_commit_table, too_many_files_of_one_build_id_is_an_error, .init = setup, .fini = teardown)
{
	struct err *e = NULL;
	unsigned i = 0;

	for (; !e && i <= STORE_ALIASES_MAX + 1u; i++) {
		struct store_file file = file_of(i + 1);
		file.build_id = build_id_of(70);
		e = store_put_file(store, 1, &file);
	}
	cr_assert_eq(i, STORE_ALIASES_MAX + 1u);
	assert_fails(e, ERR_LIMIT, "names 4096 files already");
}

static void count_done(void *arg, struct err *e)
{
	cr_assert_null(e);
	++*(atomic_int *)arg;
}

Test(store_commit_table_async, runs_done_after_the_commit, .init = setup, .fini = teardown)
{
	atomic_int done = 0;
	struct store_commit commits[50];
	uint8_t bytes[50][64] = {0};
	struct store_stat before, after;

	MUST(store_stat(store, &before));
	for (size_t i = 0; i < ARRAY_SIZE(commits); i++) {
		bytes[i][0] = (uint8_t)i;
		commits[i] = (struct store_commit){.tenant = 1, .build_id = build_id_of(i + 1), .table = bytes[i],
			.table_len = sizeof(bytes[i]), .entry = entry_of(STORE_SOURCE_UPLOAD, DWARF, "a")};
		store_commit_table_async(store, &commits[i], count_done, &done);
	}
	for (int i = 0; i < 1000 && done < 50; i++)
		usleep(10000);
	cr_assert_eq(done, 50);
	MUST(store_stat(store, &after));
	cr_assert_eq(after.counts.tables, 50);
	cr_assert_lt(after.commits - before.commits, 50, "one fsync served several");
}

/* -------------------------------------------------------------------------------------- tables in place */

Test(store_read_table, large_ones_are_at_16_mod_64_and_stay_while_replaced, .init = setup, .fini = teardown)
{
	CLEANUP(freep) uint8_t *expected = table_bytes(1, 300000);
	struct store_entry entry = entry_of(STORE_SOURCE_UPLOAD, DWARF, "a");
	struct sha256 id = commit(1, 7, 70, entry, 1, 300000);
	struct store_table table;

	MUST(store_table_acquire(store, &id, &table));
	cr_assert_eq(table.view.len, 300000);
	cr_assert_eq((uintptr_t)table.view.bytes % 64, 16);
	for (uint32_t i = 0; i < 20; i++) {
		entry.builder_version = 2 + i;
		commit(1, 7, 70, entry, 2 + i, 300000);
	}
	cr_assert_eq(memcmp(table.view.bytes, expected, 300000), 0, "the snapshot still has it");
	store_table_release(&table);
	cr_assert_not(has_table(&id));
}

Test(store_read_begin, past_the_limit_of_readers_is_an_error)
{
	char path[64];
	temp_dir_make(path);
	struct store_options options = {.data_dir = path, .map_max = 1 << 30, .readers_max = 4};
	struct store_read *reads[8];
	struct store *s;
	struct err *e = NULL;
	size_t n = 0;

	MUST(store_open(&options, &s));
	while (n < 8 && !(e = store_read_begin(s, &reads[n])))
		n++;
	cr_assert_leq(n, 4);
	assert_fails(e, ERR_LIMIT, "begin a read");
	while (n > 0)
		store_read_end(reads[--n]);
	MUST(store_read_begin(s, &reads[0]));
	store_read_end(reads[0]);
	store_close(s);
	temp_dir_remove(path);
}

/* -------------------------------------------------------------------------------------- listings */

Test(store_files, come_in_pages_of_one_tenant, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_file files[4];
	size_t n;

	for (uint64_t i = 1; i <= 6; i++) {
		struct store_file file = file_of(i);
		MUST(store_put_file(store, 1, &file));
		MUST(store_put_file(store, 2, &file));
	}
	MUST(store_read_begin(store, &read));
	MUST(store_files(read, 1, NULL, files, 4, &n));
	cr_assert_eq(n, 4);
	struct fileid after = files[3].file_id;
	MUST(store_files(read, 1, &after, files, 4, &n));
	cr_assert_eq(n, 2);
	cr_assert_str_eq(files[1].name, "lib6.so");
}

Test(store_aliases, own_then_public_without_repetition, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct build_id build = build_id_of(70);
	struct fileid ids[8];
	size_t n;

	commit(1, 2, 70, entry_of(STORE_SOURCE_UPLOAD, DWARF, "a"), 1, 50);
	commit(0, 2, 70, entry_of(STORE_SOURCE_PACKAGE, DWARF, "a"), 1, 50);
	commit(0, 1, 70, entry_of(STORE_SOURCE_PACKAGE, DWARF, "a"), 1, 50);
	MUST(store_read_begin(store, &read));
	MUST(store_aliases(read, 1, &build, ids, 8, &n));
	cr_assert_eq(n, 2);
	MUST(store_aliases(read, 0, &build, ids, 8, &n));
	cr_assert_eq(n, 2);
	MUST(store_aliases(read, 1, &build, ids, 1, &n));
	cr_assert_eq(n, 1);
}

/* -------------------------------------------------------------------------------------- space */

Test(store_gc, compacts_and_everything_is_still_there, .init = setup, .fini = teardown)
{
	struct store_entry entry = entry_of(STORE_SOURCE_UPLOAD, DWARF, "a");
	struct store_stat before, after;
	struct sha256 id = {0};
	uint64_t removed;
	struct store_table held;

	for (uint32_t i = 1; i <= 10; i++) {
		entry.builder_version = i;
		id = commit(1, 7, 70, entry, i, 1000000 * (i % 3 + 1));
	}
	MUST(store_stat(store, &before));
	MUST(store_table_acquire(store, &id, &held));
	MUST(store_gc(store, &removed));
	cr_assert_eq(removed, 0);
	cr_assert_eq(held.view.len, 2000000, "a read goes on in the old file");
	CLEANUP(freep) uint8_t *expected = table_bytes(10, 2000000);
	cr_assert_eq(memcmp(held.view.bytes, expected, 2000000), 0);
	store_table_release(&held);
	MUST(store_stat(store, &after));
	cr_assert_eq(after.compactions, before.compactions + 1);
	cr_assert_lt(after.file_bytes, 2200000);
	cr_assert_gt(before.file_bytes, 4000000);
	cr_assert(has_table(&id));
	reopen();
	cr_assert(has_table(&id));
	cr_assert_eq(resolve(1, 7, 0).entry.builder_version, 10);
	/* The old generation's folder is gone. */
	char path[96];
	(void)snprintf(path, sizeof(path), "%s/symbols.1", dir);
	cr_assert_eq(access(path, F_OK), -1);
}

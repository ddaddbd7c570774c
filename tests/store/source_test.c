// SPDX-License-Identifier: Apache-2.0
#include "store/source.h"

#include "tests/store/fixture.h"

#include <criterion/criterion.h>

static char dir[64];
static struct store_sources *sources;
static struct store_query by_build = {.tenant = 1, .build_id = {.len = 3, .bytes = {1, 2, 3}}};
static struct store_query by_longer = {.tenant = 1, .build_id = {.len = 4, .bytes = {1, 2, 3, 4}}};

static void setup(void)
{
	temp_dir_make(dir);
	MUST(store_sources_open(dir, UINT64_C(1) << 30, &sources));
}

static void teardown(void)
{
	store_sources_close(sources);
	temp_dir_remove(dir);
}

static void reopen(void)
{
	store_sources_close(sources);
	MUST(store_sources_open(dir, UINT64_C(1) << 30, &sources));
}

static struct store_ask make(const char *name, uint64_t next_ms)
{
	struct store_ask ask = {.answer = STORE_ASK_NOT_FOUND, .asked_ms = 5, .next_ms = next_ms, .bytes = 7, .job_id = 9, .text = "why"};

	(void)snprintf(ask.source, sizeof(ask.source), "%s", name);
	return ask;
}

Test(store_ask, survives_a_restart_and_is_replaced_by_the_next_answer, .init = setup, .fini = teardown)
{
	struct store_ask asks[4], a = make("a", 10), b = make("b", 20);
	size_t n;

	MUST(store_ask_put(sources, &by_build, &b));
	MUST(store_ask_put(sources, &by_build, &a));
	a.answer = STORE_ASK_FAILED;
	MUST(store_ask_put(sources, &by_build, &a));
	reopen();
	MUST(store_asks(sources, &by_build, asks, 4, &n));
	cr_assert_eq(n, 2);
	cr_assert_str_eq(asks[0].source, "a");
	cr_assert_eq(asks[0].answer, STORE_ASK_FAILED);
	cr_assert_str_eq(asks[1].source, "b");
	cr_assert_eq(asks[1].next_ms, 20);
	cr_assert_eq(asks[1].job_id, 9);
	cr_assert_str_eq(asks[1].text, "why");
	MUST(store_asks(sources, &by_longer, asks, 4, &n));
	cr_assert_eq(n, 0, "another ID that begins the same has no answers");
}

Test(store_asks_expire, removes_what_is_over_and_nothing_else, .init = setup, .fini = teardown)
{
	struct store_ask asks[4], a = make("a", 10), b = make("b", 20);
	uint64_t removed;
	size_t n;

	MUST(store_ask_put(sources, &by_build, &a));
	MUST(store_ask_put(sources, &by_longer, &b));
	MUST(store_asks_expire(sources, 15, &removed));
	cr_assert_eq(removed, 1);
	MUST(store_asks(sources, &by_build, asks, 4, &n));
	cr_assert_eq(n, 0);
	MUST(store_asks(sources, &by_longer, asks, 4, &n));
	cr_assert_eq(n, 1);
}

Test(store_ask_put, refuses_a_text_that_is_too_long_and_keeps_nothing, .init = setup, .fini = teardown)
{
	struct store_ask asks[4], a = make("a", 10);
	size_t n;

	memset(a.source, 'x', sizeof(a.source) - 1);
	struct store_query longest = {.tenant = 1, .build_id = {.len = BUILD_ID_MAX}};
	MUST(store_ask_put(sources, &longest, &a));
	MUST(store_asks(sources, &longest, asks, 4, &n));
	cr_assert_eq(n, 1);
}

static char *find(uint64_t repository, const struct store_query *query)
{
	char *text;

	MUST(store_index_find(sources, repository, &query->build_id, &text));
	return text;
}

static void index_one(uint64_t repository, const char *package, const struct build_id *id)
{
	struct store_index *index;

	MUST(store_index_begin(sources, repository, &index));
	MUST(store_index_package(index, package));
	MUST(store_index_add(index, id));
	MUST(store_index_commit(index));
}

Test(store_index, is_replaced_whole_and_only_its_own, .init = setup, .fini = teardown)
{
	bool named;

	index_one(1, "old", &by_build.build_id);
	index_one(UINT64_MAX, "other", &by_build.build_id);
	index_one(1, "new", &by_longer.build_id);
	reopen();
	cr_assert_null(find(1, &by_build));
	char *text = find(1, &by_longer), *other = find(UINT64_MAX, &by_build);
	cr_assert_str_eq(text, "new");
	cr_assert_str_eq(other, "other");
	free(text);
	free(other);
	MUST(store_index_names(sources, &by_longer.build_id, &named));
	cr_assert(named);
	MUST(store_index_names(sources, &by_build.build_id, &named));
	cr_assert_not(named, "a repository in the house is no public index");
	struct build_id stranger = {.len = 1, .bytes = {9}};
	MUST(store_index_names(sources, &stranger, &named));
	cr_assert_not(named);
}

Test(store_index, half_written_is_not_seen, .init = setup, .fini = teardown)
{
	struct store_index *index;

	index_one(1, "old", &by_build.build_id);
	MUST(store_index_begin(sources, 1, &index));
	MUST(store_index_package(index, "new"));
	MUST(store_index_add(index, &by_longer.build_id));
	char *text = find(1, &by_build);
	cr_assert_str_eq(text, "old", "readers see the index before");
	free(text);
	store_index_abort(index);
	cr_assert_null(find(1, &by_longer));
	text = find(1, &by_build);
	cr_assert_str_eq(text, "old");
	free(text);
}

static struct err *join(void *context, const char *text)
{
	(void)strcat(context, text);
	return strcmp(text, "stop") == 0 ? err_new(ERR_LIMIT, "enough") : NULL;
}

Test(store_index, is_added_to_and_walked_in_order, .init = setup, .fini = teardown)
{
	struct store_index *index;
	char all[64] = "";

	index_one(1, "a", &by_build.build_id);
	index_one(2, "other", &by_build.build_id);
	MUST(store_index_reopen(sources, 1, &index));
	MUST(store_index_package(index, "b"));
	uint32_t number = store_index_number(index);
	MUST(store_index_package(index, "c"));
	store_index_select(index, number);
	MUST(store_index_add(index, &by_longer.build_id));
	MUST(store_index_commit(index));
	MUST(store_index_reopen(sources, UINT64_MAX, &index)); /* behind the last, where nothing is */
	MUST(store_index_package(index, "z"));
	MUST(store_index_commit(index));
	MUST(store_index_each(sources, 1, join, all));
	cr_assert_str_eq(all, "abc");
	char *text = find(1, &by_longer), *old = find(1, &by_build);
	cr_assert_str_eq(text, "b");
	cr_assert_str_eq(old, "a");
	free(text);
	free(old);
	index_one(3, "stop", &by_build.build_id);
	struct err *e = store_index_each(sources, 3, join, all);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
}

Test(store_note, is_kept, .init = setup, .fini = teardown)
{
	char *text;

	MUST(store_note_get(sources, "a", &text));
	cr_assert_null(text);
	MUST(store_note_put(sources, "a", "b"));
	reopen();
	MUST(store_note_get(sources, "a", &text));
	cr_assert_str_eq(text, "b");
	free(text);
}

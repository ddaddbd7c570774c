// SPDX-License-Identifier: Apache-2.0
/*
 * A build without memory: the Nth allocation fails, for every N, alone and with all behind it. The build must say ERR_NOMEM, or get by and
 * give the same bytes; and it must leave nothing behind. Lookups allocate nothing (tests/table/allocation_test.c). Not built with
 * sanitizers, which have an allocator of their own.
 */
#include "symbolizer/build/build.h"
#include "symbolizer/build/debug_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

static size_t allocations; /* asked for since the last reset */
static size_t fail_from, fail_to; /* these are refused */
static long live;	    /* blocks that are not freed */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *block);

static bool refused(void)
{
	size_t number = ++allocations;

	return number >= fail_from && number <= fail_to;
}

static void *counted(void *block)
{
	live += block != NULL;
	return block;
}

void *malloc(size_t size)
{
	return refused() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
	return refused() ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *old, size_t size)
{
	if (refused())
		return NULL;
	return old ? __libc_realloc(old, size) : counted(__libc_malloc(size));
}

void *memalign(size_t align, size_t size)
{
	return refused() ? NULL : counted(__libc_memalign(align, size));
}

void *aligned_alloc(size_t align, size_t size)
{
	return memalign(align, size);
}

int posix_memalign(void **ret, size_t align, size_t size)
{
	void *block = memalign(align, size);

	if (!block)
		return ENOMEM;
	*ret = block;
	return 0;
}

void free(void *block)
{
	live -= block != NULL;
	__libc_free(block);
}

/* What one build reads. */
struct files {
	struct elf_mapping binary, debug, supplement, package;
};

static void close_files(struct files *files)
{
	elf_mapping_deinit(&files->binary);
	elf_mapping_deinit(&files->debug);
	elf_mapping_deinit(&files->supplement);
	elf_mapping_deinit(&files->package);
}

static struct build_image image_of(const struct elf_mapping *mapping)
{
	return (struct build_image){.bytes = mapping->bytes, .len = mapping->len, .name = mapping->path};
}

static struct err *build(const struct files *files, struct buf *ret)
{
	CLEANUP(split_search_deinit) struct split_search search = {.binary = &files->binary};
	const struct build_image package = image_of(&files->package);
	const struct build_options options = {.binary = image_of(&files->binary),
		.debug = image_of(&files->debug),
		.supplement = image_of(&files->supplement),
		.splits = &package,
		.split_count = package.bytes ? 1 : 0,
		.find_split = split_search_find,
		.find_split_context = &search};

	return build_table(&options, ret, NULL);
}

static void open_fixture(const char *name, const char *debug, struct files *files)
{
	char path[PATH_MAX];
	struct err *e;

	(void)snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_FIXTURES"), name);
	e = elf_mapping_open(path, &files->binary);
	(void)snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_FIXTURES"), debug ? debug : "");
	if (!e && debug)
		e = elf_mapping_open(path, &files->debug);
	if (!e)
		e = supplement_find(debug ? &files->debug : &files->binary, NULL, &files->supplement);
	if (!e)
		e = split_package_find(&files->binary, &files->package);
	cr_assert_null(e, "%s: %s", name, e ? err_message(e) : "");
}

/* One build with allocations [from, to] refused. Answers how it went wrong; NULL: it did not. */
static const char *try_build(const struct files *files, size_t from, size_t to, const struct buf *want)
{
	struct buf table = {0};
	long before = live;

	allocations = 0;
	fail_from = from;
	fail_to = to;
	struct err *e = build(files, &table);
	fail_from = fail_to = 0;
	const char *wrong = NULL;
	if (e && err_code(e) != ERR_NOMEM)
		wrong = "another error than ERR_NOMEM";
	else if (e && table.len > 0)
		wrong = "part of a table";
	else if (!e && (table.len != want->len || memcmp(table.data, want->data, want->len) != 0))
		wrong = "another table";
	if (wrong)
		fprintf(stderr, "%s\n", e ? err_message(e) : "");
	err_free(e);
	buf_deinit(&table);
	if (!wrong && live != before)
		wrong = "memory that nobody frees";
	return wrong;
}

static void sweep(const char *name, const char *debug)
{
	struct files files CLEANUP(close_files) = {0};
	struct buf want CLEANUP(buf_deinit) = {0};

	open_fixture(name, debug, &files);
	allocations = 0;
	struct err *e = build(&files, &want);
	cr_assert_null(e, "%s: %s", name, e ? err_message(e) : "");
	const size_t total = allocations;
	cr_assert_gt(total, 20, "the allocator is not counted");
	for (size_t n = 1; n <= total; n++) {
		const char *wrong = try_build(&files, n, n, &want);
		if (!wrong)
			wrong = try_build(&files, n, SIZE_MAX, &want);
		cr_assert_null(wrong, "%s: allocation %zu of %zu refused: %s", name, n, total, wrong);
	}
}

Test(build_table, without_memory_says_so_and_leaves_nothing)
{
	static const char *const fixtures[][2] = {{"cxx-gcc-dw5-O2"}, {"c-gcc-dw4-lto"}, {"c-gcc-zlib"}, {"c-clang19-zstd"}, {"split-zlib", "split-zlib.debug"},
		{"minidebug"}, {"dwz-cxx-gcc-O3"}, {"dwo-c-clang19-dw5"}, {"dwp-gcc-dw4"}, {"rel-gcc.o"}, {"plt-gcc"}, {"f-mips-be"}};

	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++)
		sweep(fixtures[i][0], fixtures[i][1]);
}

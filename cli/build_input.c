// SPDX-License-Identifier: Apache-2.0
#include "cli/build_input.h"

#include <inttypes.h>

static struct err *find_package(struct build_input *input, const char *package_path)
{
	if (package_path)
		return elf_mapping_open(package_path, &input->package);
	TRY(split_package_find(&input->binary, &input->package));
	return input->debug.bytes && !input->package.bytes ? split_package_find(&input->debug, &input->package) : NULL;
}

struct err *build_input_open(const char *path, const char *debug_path, const char *package_path, struct build_input *ret)
{
	CLEANUP(build_input_deinit) struct build_input input = {0};
	struct debug_file_search search = {.debug_file = debug_path};

	TRY(elf_mapping_open(path, &input.binary));
	TRY(debug_file_find(&input.binary, &search, &input.debug));
	TRY(supplement_find(input.debug.bytes ? &input.debug : &input.binary, NULL, &input.supplement));
	TRY(find_package(&input, package_path));
	*ret = input;
	input = (struct build_input){0};
	return NULL;
}

void build_input_deinit(struct build_input *input)
{
	elf_mapping_deinit(&input->binary);
	elf_mapping_deinit(&input->debug);
	elf_mapping_deinit(&input->supplement);
	elf_mapping_deinit(&input->package);
}

static void show(void *context, enum build_phase phase, uint64_t done, uint64_t total)
{
	cli_progress_show(context, "%s: %" PRIu64 " of %" PRIu64, build_phase_name(phase), done, total);
}

struct err *build_input_table(const struct build_input *input, unsigned threads, struct buf *ret, struct build_stats *stats)
{
	CLEANUP(split_search_deinit) struct split_search search = {.binary = &input->binary};
	const struct build_image package = {.bytes = input->package.bytes, .len = input->package.len, .name = input->package.path};
	struct cli_progress progress;
	struct build_options options = {
		.binary = {.bytes = input->binary.bytes, .len = input->binary.len, .name = input->binary.path},
		.debug = {.bytes = input->debug.bytes, .len = input->debug.len, .name = input->debug.path},
		.supplement = {.bytes = input->supplement.bytes, .len = input->supplement.len, .name = input->supplement.path},
		.splits = &package,
		.split_count = package.bytes ? 1 : 0,
		.find_split = split_search_find,
		.find_split_context = &search,
		.threads = threads,
		.progress = show,
		.progress_context = &progress,
	};

	cli_progress_init(&progress);
	struct err *e = build_table(&options, ret, stats);
	cli_progress_clear(&progress);
	return e;
}

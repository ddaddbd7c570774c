// SPDX-License-Identifier: Apache-2.0
#include "worker/convert.h"

#include "base/ar.h"
#include "fileid/fileid.h"
#include "symbolizer/build/build.h"
#include "symbolizer/build/elf_file.h"
#include "symbolizer/build/kernel.h"
#include "symbolizer/table/table.h"

#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Of what symbolizer/build makes of the same input: raise it when a rebuild would give better answers. */
enum { BUILDER_VERSION = 6 };

/* A debug file keeps the section headers of the code, as SHT_NOBITS: objcopy --only-keep-debug, eu-strip -f. */
static void classify_sections(const struct elffile *file, struct convert_kind *kind)
{
	size_t with_bytes = 0, without = 0;

	for (size_t i = 0; i < elffile_section_count(file); i++) {
		const struct elffile_section *section = elffile_section(file, i);
		if (!(section->flags & SHF_ALLOC) || !(section->flags & SHF_EXECINSTR))
			continue;
		if (section->type == SHT_NOBITS)
			without++;
		else
			with_bytes++;
	}
	kind->debug_only = without > 0 && with_bytes == 0;
	kind->code = without + with_bytes > 0;
}

static bool has_bytes(const struct elffile *file, const char *name)
{
	const struct elffile_section *section = elffile_find(file, name);

	return section && section->type != SHT_NOBITS && section->size > 0;
}

static void classify(const struct elffile *file, struct convert_kind *ret)
{
	size_t ranges;

	*ret = (struct convert_kind){.build_id = *elffile_build_id(file)};
	classify_sections(file, ret);
	(void)elffile_code_ranges(file, &ranges);
	ret->code = ret->code || ranges > 0;
	ret->dwarf = has_bytes(file, ".debug_info") || has_bytes(file, ".debug_line");
	ret->skeleton = has_bytes(file, ".debug_addr");
	ret->split = !ret->code && has_bytes(file, ".debug_info.dwo");
	if (!elffile_debugaltlink(file, &ret->supplement))
		ret->supplement.len = 0;
}

struct err *convert_classify(const struct image *image, const char *name, struct convert_kind *ret)
{
	CLEANUP(elffile_closep) struct elffile *file = NULL;

	TRY(elffile_open(image->bytes, image->len, name, NULL, &file));
	classify(file, ret);
	return NULL;
}

struct err *convert_needs(const struct convert_input *input, struct protocol_needs *ret)
{
	CLEANUP(elffile_closep) struct elffile *file = NULL, *binary = NULL;
	const struct image *image = input->debug ? input->debug : input->binary;

	*ret = (struct protocol_needs){.name = ""};
	if (input->supplement)
		return NULL;
	TRY(elffile_open(image->bytes, image->len, input->name, NULL, &file));
	const struct elffile *dwarf = file;
	if (input->debug && !has_bytes(file, ".debug_info")) {
		TRY(elffile_open(input->binary->bytes, input->binary->len, input->name, NULL, &binary));
		dwarf = binary;
	}
	const char *name = has_bytes(dwarf, ".debug_info") ? elffile_debugaltlink(dwarf, &ret->build_id) : NULL;
	if (!name || build_id_equal(&ret->build_id, elffile_build_id(dwarf))) /* one that names itself is told by the build */
		ret->build_id.len = 0;
	for (size_t i = 0; name && name[i] && i < PROTOCOL_NAME_MAX; i++)
		ret->name[i] = (char)((unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i]);
	return NULL;
}

/* What lay packed in another file has no file ID of its own: it is known as a kernel, or not at all. */
static struct err *identify_packed(const struct convert_input *input, struct protocol_result *ret)
{
	if (!ret->kernel)
		return err_new(ERR_UNSUPPORTED, "%s: packed, and neither a Linux kernel nor a module: unpack it", input->name);
	if (ret->build_id.len == 0)
		return err_new(ERR_UNSUPPORTED, "%s: a kernel without a build ID, by which profilers know kernels", input->name);
	ret->packed = true;
	ret->size_bytes = input->packed_bytes;
	ret->fileid = fileid_from_kernel_build_id(ret->build_id.bytes, ret->build_id.len);
	return NULL;
}

/* Who the file is; what its symbols are comes later. */
static struct err *identify(const struct convert_input *input, struct protocol_result *ret)
{
	CLEANUP(elffile_closep) struct elffile *file = NULL;
	struct convert_kind kind;
	struct elf_ids ids;

	TRY(elffile_open(input->binary->bytes, input->binary->len, input->name, NULL, &file));
	classify(file, &kind);
	TRY(build_id_from_elf(input->binary->bytes, input->binary->len, input->name, &ids));
	TRY(fileid_from_memory(input->binary->bytes, input->binary->len, &ret->fileid));
	ret->build_id = kind.build_id;
	ret->debug_only = kind.debug_only;
	ret->has_debug = input->debug != NULL;
	ret->size_bytes = input->binary->len;
	ret->elf_machine = elffile_machine(file);
	(void)snprintf(ret->go_build_id, sizeof(ret->go_build_id), "%s", ids.go);
	(void)snprintf(ret->name, sizeof(ret->name), "%s", input->member);
	ret->kernel = kernel_kind(file) != KERNEL_NONE;
	ret->has_text = ret->kernel && kernel_text(file, &ret->text_vaddr);
	if (input->packed_bytes)
		TRY(identify_packed(input, ret));
	return kind.debug_only ? NULL : elffile_load_segments(file, &ret->segments);
}

static void on_progress(void *context, enum build_phase phase, uint64_t done, uint64_t total)
{
	output_progress(context, phase < BUILD_ENCODE ? PROTOCOL_READING : PROTOCOL_WRITING, done, total);
}

static void describe(const struct build_stats *stats, size_t table_bytes, char *text, size_t size)
{
	(void)snprintf(text, size,
		"units=%" PRIu64 " skipped_units=%" PRIu64 " ranges=%" PRIu64 " functions=%" PRIu64 " inline_nodes=%" PRIu64
		" symbols=%" PRIu64 " rows=%" PRIu64 " tombstones=%" PRIu64 " damaged=%" PRIu64 " table_bytes=%zu%s%s",
		stats->units, stats->skipped_units, stats->ranges, stats->functions, stats->inline_nodes, stats->symbols, stats->rows,
		stats->tombstones, stats->damaged, table_bytes, stats->reason[0] ? " first: " : "", stats->reason);
}

/* What was left out is told: the table answers, and nobody would look for the reason of what it does not know. */
static struct err *tell_damage(const struct build_stats *stats, struct output *output)
{
	char text[128];

	if (stats->missing_splits > 0) {
		(void)snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64 " units have no names and inlined calls: split DWARF is missing",
			stats->missing_splits, stats->units);
		return output_skipped(output, stats->reason, text);
	}
	if (stats->skipped_units == 0 && stats->damaged == 0)
		return NULL;
	(void)snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64 " units and %" PRIu64 " other parts were left out",
		stats->skipped_units, stats->units, stats->damaged);
	return output_skipped(output, stats->reason, text);
}

/* cairnd compares these with the table that it gets: they are the table's, not what this file believes. */
static struct err *take_table_facts(const struct buf *table, struct protocol_result *result)
{
	struct table opened;
	struct table_info info;

	TRY(table_open(table->data, table->len, &opened));
	table_info(&opened, &info);
	result->sources = info.sources;
	result->build_id = info.build_id;
	return NULL;
}

/* What ar writes for itself: "/" and "/SYM64/" (symbols), "//" (long names), each less its last slash. */
static bool is_index(const char *name)
{
	return name[0] == 0 || strcmp(name, "/") == 0 || strcmp(name, "/SYM64") == 0;
}

struct split_list {
	struct build_image *items; /* malloc'd */
	size_t count, room;
};

static void split_list_deinit(struct split_list *list)
{
	free(list->items);
}

static struct err *add_split(struct split_list *list, const uint8_t *bytes, size_t len, const char *name)
{
	if (list->count == BUILD_SPLITS_MAX)
		return err_new(ERR_LIMIT, "split DWARF: more than %d files", BUILD_SPLITS_MAX);
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 1;
		struct build_image *grown = reallocarray(list->items, room, sizeof(*grown));
		if (!grown)
			return err_nomem();
		list->items = grown;
		list->room = room;
	}
	list->items[list->count++] = (struct build_image){.bytes = bytes, .len = len, .name = name};
	return NULL;
}

/* The members of an archive, or the one file that it is. */
static struct err *list_split(const struct image *split, struct split_list *list)
{
	struct reader r = reader_init(split->bytes, split->len, false, "split DWARF");

	if (!ar_begin(&r))
		return add_split(list, split->bytes, split->len, "split DWARF");
	while (reader_left(&r) > 0) {
		struct ar_member member;
		TRY(ar_next(&r, &member));
		const uint8_t *bytes = r.pos;
		TRY(ar_skip(&r, &member));
		if (!is_index(member.name))
			TRY(add_split(list, bytes, (size_t)member.size, "a .dwo file"));
	}
	return NULL;
}

static struct err *build(const struct convert_input *input, const struct worker_options *options, struct output *output,
	struct protocol_result *result, struct buf *table)
{
	CLEANUP(split_list_deinit) struct split_list splits = {0};
	struct build_stats stats = {0};
	struct build_options wanted = {
		.binary = {input->binary->bytes, input->binary->len, input->name},
		.threads = options->threads,
		.progress = on_progress,
		.progress_context = output,
	};

	if (input->debug)
		wanted.debug = (struct build_image){input->debug->bytes, input->debug->len, "its debug file"};
	if (input->supplement)
		wanted.supplement = (struct build_image){input->supplement->bytes, input->supplement->len, "its supplement"};
	for (size_t i = 0; i < input->split_count; i++)
		TRY(list_split(&input->splits[i], &splits));
	wanted.splits = splits.items;
	wanted.split_count = splits.count;
	if (result->debug_only && !input->debug) {
		wanted.debug = wanted.binary;
		wanted.binary = (struct build_image){0};
	}
	struct err *e = build_table(&wanted, table, &stats);
	if (e && err_code(e) == ERR_NOT_FOUND) {
		err_free(e); /* stripped of everything: known all the same */
		(void)snprintf(result->stats, sizeof(result->stats), "no symbols");
		return NULL;
	}
	TRY(e);
	if (table->len > options->table_bytes)
		return err_new(ERR_LIMIT, "%s: table of %zu bytes is over max_table_bytes %" PRIu64, input->name, table->len,
			options->table_bytes);
	result->builder_version = BUILDER_VERSION;
	describe(&stats, table->len, result->stats, sizeof(result->stats));
	TRY(tell_damage(&stats, output));
	return take_table_facts(table, result);
}

struct err *convert_identify(const struct convert_input *input, struct output *output)
{
	struct protocol_result result = {0};

	TRY(identify(input, &result));
	return output_result(output, &result, NULL, 0);
}

struct err *convert_run(const struct convert_input *input, const struct worker_options *options, struct output *output)
{
	CLEANUP(buf_deinit) struct buf table = {0};
	struct protocol_result result = {0};

	output_progress(output, PROTOCOL_READING, 0, 0);
	TRY(identify(input, &result));
	TRY(build(input, options, output, &result, &table));
	output_progress(output, PROTOCOL_WRITING, 0, table.len);
	return output_result(output, &result, table.data, table.len);
}

struct err *convert_bare(const struct kernel_image *image, const struct convert_input *input, struct output *output)
{
	struct protocol_result result = {.kernel = true, .build_id = image->build_id, .elf_machine = image->elf_machine};

	TRY(identify_packed(input, &result));
	(void)snprintf(result.name, sizeof(result.name), "%s", input->member);
	(void)snprintf(result.stats, sizeof(result.stats), "a bare kernel image: no symbols");
	return output_result(output, &result, NULL, 0);
}

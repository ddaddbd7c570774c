// SPDX-License-Identifier: Apache-2.0
/*
 * From skeletons to their other halves.
 *
 *     1. the files that were given are opened, in parallel: headers, abbreviations, unit DIEs of .debug_info.dwo, as of any DWARF. A .dwp
 *        has an index besides, by which a unit's offsets into the shared sections are moved (dwp_index.c)
 *     2. every unit that says its ID is noted under it; of two with one ID the first stands
 *     3. a skeleton whose ID is not among them is asked for by the name that it gives (find_split), and 1 and 2 are done for the files that
 *        came of it
 *     4. each skeleton gets a copy of its other half with its own bases: where the list of addresses and (DWARF 4) the range lists of
 *        this unit begin, and the base address of ranges. Both lie in the skeleton's file
 *
 * What a split unit has no attribute for begins behind the header of the unit's part: .debug_str_offsets.dwo and .debug_rnglists.dwo of
 * DWARF 5; GNU's extension has no headers.
 *
 * A file that is missing or damaged costs its units' functions and inlined calls: what is left of these are their lines, and the
 * inlined calls that clang keeps in skeletons too.
 */
#include "symbolizer/build/split.h"

#include "symbolizer/build/dw_const.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { INFO, ABBREV, STR_OFFSETS, RNGLISTS, STR };

enum { SAME_LOOKED_AT = 64 };

static const char *const section_names[SPLIT_SECTIONS] = {
	".debug_info.dwo", ".debug_abbrev.dwo", ".debug_str_offsets.dwo", ".debug_rnglists.dwo", ".debug_str.dwo"};

/* What the opening of files shares. */
struct opening {
	struct split_set *set;
	const struct build_options *options;
	struct dw *dw; /* of the skeletons */
	const struct runner *runner; /* for one file */
	size_t first; /* of the files to be opened */
};

static struct err *load(struct opening *opening, struct split_file *file, const struct elffile_section *section, struct reader *ret)
{
	*ret = reader_init("", 0, elffile_big_endian(file->elf), "");
	if (!section)
		return NULL;
	TRY(account_take(opening->dw->account, elffile_load_bytes(section)));
	file->bytes += elffile_load_bytes(section);
	return elffile_load(file->elf, section, ret);
}

/* True when a section of .debug_info.dwo begins with a type unit (DWARF 5, 7.5.1.3). */
static bool holds_types(struct reader r)
{
	if (reader_u32(&r) == UINT32_MAX)
		reader_skip(&r, 8);
	return reader_u16(&r) == 5 && reader_u8(&r) == DW_UT_split_type;
}

/*
 * The section of the compile units, loaded. gcc -fdebug-types-section leaves a section of the same name for each type in a .dwo, since
 * each is in a group of its own.
 */
static struct err *load_info(struct opening *opening, struct split_file *file, struct reader *ret)
{
	*ret = reader_init("", 0, false, "");
	for (size_t i = 0; i < elffile_section_count(file->elf); i++) {
		const struct elffile_section *section = elffile_section(file->elf, i);
		if (strcmp(section->name, section_names[INFO]) != 0 || section->stored_size == 0)
			continue;
		TRY(load(opening, file, section, ret));
		file->sections[INFO] = section;
		if (!holds_types(*ret))
			return NULL;
	}
	return NULL;
}

static struct err *read_file(struct opening *opening, struct split_file *file)
{
	const struct elffile_limits limits = {.section_bytes = opening->options->memory_max, .total_bytes = opening->options->memory_max};
	struct reader readers[SPLIT_SECTIONS], index;

	TRY(elffile_open(file->image.bytes, file->image.len, file->image.name, &limits, &file->elf));
	TRY(load_info(opening, file, &readers[INFO]));
	for (size_t i = INFO + 1; i < SPLIT_SECTIONS; i++) {
		file->sections[i] = elffile_find(file->elf, section_names[i]);
		TRY(load(opening, file, file->sections[i], &readers[i]));
	}
	if (!file->sections[INFO] || reader_left(&readers[INFO]) == 0)
		return err_new(ERR_FORMAT, "%s: no .debug_info.dwo in it", file->image.name);
	const struct dw_sections sections = {.info = readers[INFO],
		.abbrev = readers[ABBREV],
		.str_offsets = readers[STR_OFFSETS],
		.rnglists = readers[RNGLISTS],
		.str = readers[STR],
		.line = reader_init("", 0, false, ".debug_line"),
		.line_str = reader_init("", 0, false, ".debug_line_str"),
		.addr = opening->dw->sections.addr,
		.ranges = opening->dw->sections.ranges};
	const struct elffile_section *index_section = elffile_find(file->elf, ".debug_cu_index");
	if (index_section) {
		TRY(load(opening, file, index_section, &index));
		TRY(dwp_index_read(index, &sections, opening->dw->account, &file->index));
		file->dw.index = &file->index;
	}
	struct err *e = dw_open(&file->dw, &sections, opening->runner, opening->dw->account);
	file->dw.index = NULL; /* the file may move */
	return e;
}

static struct err *open_task(void *context, size_t i, unsigned thread)
{
	struct opening *opening = context;
	struct split_file *file = &opening->set->files.items[opening->first + i];
	struct err *e = read_file(opening, file);

	(void)thread;
	if (!e || (err_code(e) != ERR_FORMAT && err_code(e) != ERR_UNSUPPORTED))
		return e;
	file->damage = e;
	return NULL;
}

/* The units of one file, by ID. */
static struct err *note_units(struct split_set *set, struct account *account, size_t number)
{
	struct split_file *file = &set->files.items[number];

	for (size_t i = 0; i < file->dw.units.count; i++) {
		struct dw_unit *unit = &file->dw.units.items[i];
		uint64_t known;
		if (unit->damage && !file->damage)
			file->damage = err_new(err_code(unit->damage), "%s", err_message(unit->damage));
		if (unit->damage || !unit->abbrevs || !unit->has_dwo_id || hmap_get(&set->ids, unit->dwo_id, &known))
			continue;
		TRY(hmap_set(&set->ids, unit->dwo_id, set->found.count));
		TRY(ARRAY_ROOM(account, &set->found, 1));
		set->found.items[set->found.count++] = (struct split_place){.file = (uint32_t)number, .unit = (uint32_t)i};
	}
	return NULL;
}

/* Opens the files from @p first on. Nothing may point to one yet: they move when others are added. */
static struct err *open_files(struct opening *opening, const struct runner *runner)
{
	const struct runner serial = {.threads = 1};
	size_t count = opening->set->files.count - opening->first;

	/* One large file is read by all threads, many small ones each by one. */
	opening->runner = count == 1 ? runner : &serial;
	TRY(runner_run(count == 1 ? &serial : runner, count, open_task, opening));
	for (size_t i = 0; i < count; i++)
		TRY(note_units(opening->set, opening->dw->account, opening->first + i));
	return NULL;
}

static struct err *add_file(struct split_set *set, struct account *account, const struct build_image *image)
{
	/* One .dwo can hold several units (LTO), each of whose skeletons asks for it. */
	for (size_t i = 0; i < SAME_LOOKED_AT && i < set->files.count; i++)
		if (set->files.items[set->files.count - 1 - i].image.bytes == image->bytes)
			return NULL;
	if (set->files.count == BUILD_SPLITS_MAX)
		return err_new(ERR_LIMIT, "more than %d files of split DWARF", BUILD_SPLITS_MAX);
	TRY(ARRAY_ROOM(account, &set->files, 1));
	set->files.items[set->files.count] = (struct split_file){.image = *image};
	if (!image->name)
		set->files.items[set->files.count].image.name = "split";
	set->files.count++;
	return NULL;
}

static bool is_skeleton(const struct dw_unit *unit)
{
	return !unit->damage && unit->abbrevs && unit->has_dwo_id && unit->dwo_name;
}

static struct err *find_files(struct opening *opening)
{
	const struct build_options *options = opening->options;
	struct dw *dw = opening->dw;
	uint64_t known;

	for (size_t i = 0; options->find_split && i < dw->units.count; i++) {
		const struct dw_unit *unit = &dw->units.items[i];
		struct build_image image = {0};
		const struct build_split_name name = {.comp_dir = unit->comp_dir, .name = unit->dwo_name, .dwo_id = unit->dwo_id};
		if (!is_skeleton(unit) || hmap_get(&opening->set->ids, unit->dwo_id, &known))
			continue;
		TRY(options->find_split(options->find_split_context, &name, &image));
		if (!image.bytes)
			continue;
		size_t before = opening->set->files.count;
		TRY(add_file(opening->set, dw->account, &image));
		if (opening->set->files.count == before)
			continue;
		opening->set->files.items[before].was_asked_for = true;
		opening->set->files.items[before].wanted = unit->dwo_id;
	}
	return NULL;
}

static void join(const struct dw_unit *skeleton, struct dw_unit *split)
{
	split->addr_base = skeleton->addr_base;
	split->ranges_base = skeleton->version < 5 ? skeleton->rnglists_base : 0;
	split->low_pc = skeleton->low_pc;
	split->has_low_pc = skeleton->has_low_pc;
	split->comp_dir = skeleton->comp_dir;
}

/* A file that lies where the skeleton says, and is not what it says: another build's. */
static void note_misfits(struct split_set *set)
{
	uint64_t known;

	for (size_t i = 0; i < set->files.count; i++) {
		struct split_file *file = &set->files.items[i];
		if (file->was_asked_for && !file->damage && !hmap_get(&set->ids, file->wanted, &known))
			file->damage = err_new(ERR_MISMATCH, "%s: no unit %016" PRIx64 " in it: it is of another build", file->image.name,
				file->wanted);
	}
}

static struct err *note_missing(struct split_set *set, const struct dw *dw, const struct dw_unit *unit)
{
	if (set->missing++ > 0)
		return NULL;
	set->first_missing = err_new(ERR_NOT_FOUND, "%s: names lie in %.100s (unit %016" PRIx64 "), which is not here", dw->sections.info.place,
		unit->dwo_name, unit->dwo_id);
	return NULL;
}

static struct err *link_all(struct split_set *set, struct dw *dw)
{
	size_t skeletons = 0;

	for (size_t i = 0; i < dw->units.count; i++)
		skeletons += is_skeleton(&dw->units.items[i]);
	TRY(ARRAY_ROOM(dw->account, &set->halves, skeletons));
	for (size_t i = 0; i < dw->units.count; i++) {
		struct dw_unit *unit = &dw->units.items[i];
		uint64_t number;
		if (!is_skeleton(unit))
			continue;
		if (!hmap_get(&set->ids, unit->dwo_id, &number)) {
			TRY(note_missing(set, dw, unit));
			continue;
		}
		const struct split_place place = set->found.items[number];
		struct dw_split *half = &set->halves.items[set->halves.count++];
		half->dw = &set->files.items[place.file].dw;
		half->unit = half->dw->units.items[place.unit];
		join(unit, &half->unit);
		unit->split = half;
	}
	return NULL;
}

static bool has_skeletons(const struct dw *dw)
{
	for (size_t i = 0; i < dw->units.count; i++)
		if (is_skeleton(&dw->units.items[i]))
			return true;
	return false;
}

struct err *split_set_open(struct split_set *set, const struct build_options *options, struct dw *dw, const struct runner *runner)
{
	struct opening opening = {.set = set, .options = options, .dw = dw};

	if (!has_skeletons(dw))
		return NULL;
	for (size_t i = 0; i < options->split_count; i++)
		TRY(add_file(set, dw->account, &options->splits[i]));
	TRY(open_files(&opening, runner));
	opening.first = set->files.count;
	TRY(find_files(&opening));
	TRY(open_files(&opening, runner));
	note_misfits(set);
	return link_all(set, dw);
}

void split_set_close_units(struct split_set *set, struct account *account)
{
	for (size_t i = 0; i < set->files.count; i++) {
		struct split_file *file = &set->files.items[i];
		dw_close(&file->dw);
		dwp_index_deinit(&file->index, account);
		for (size_t s = 0; s < SPLIT_SECTIONS; s++) {
			if (s == STR || !file->sections[s])
				continue;
			elffile_release(file->elf, file->sections[s]);
			uint64_t bytes = elffile_load_bytes(file->sections[s]);
			bytes = bytes < file->bytes ? bytes : file->bytes;
			account_give(account, bytes);
			file->bytes -= bytes;
			file->sections[s] = NULL;
		}
	}
	ARRAY_DEINIT(account, &set->halves);
	ARRAY_DEINIT(account, &set->found);
	hmap_deinit(&set->ids);
}

void split_set_deinit(struct split_set *set, struct account *account)
{
	split_set_close_units(set, account);
	for (size_t i = 0; i < set->files.count; i++) {
		account_give(account, set->files.items[i].bytes);
		elffile_close(set->files.items[i].elf);
		err_free(set->files.items[i].damage);
	}
	ARRAY_DEINIT(account, &set->files);
	err_free(TAKE_PTR(set->first_missing));
}

/* ---- names only ---- */

static struct err *visit_all(const struct dw *dw, struct err *(*visit)(void *context, const struct build_split_name *name), void *context)
{
	for (size_t i = 0; i < dw->units.count; i++) {
		const struct dw_unit *unit = &dw->units.items[i];
		const struct build_split_name name = {.comp_dir = unit->comp_dir, .name = unit->dwo_name, .dwo_id = unit->dwo_id};
		if (is_skeleton(unit))
			TRY(visit(context, &name));
	}
	return NULL;
}

struct err *split_names(struct elffile *file, struct err *(*visit)(void *context, const struct build_split_name *name), void *context)
{
	static const char *const names[] = {".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets", ".debug_addr"};
	const struct runner runner = {.threads = 1};
	struct account account = {.max = 0};
	struct reader r[ARRAY_SIZE(names)];
	struct dw dw = {.account = NULL};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct elffile_section *section = elffile_find(file, names[i]);
		r[i] = reader_init("", 0, elffile_big_endian(file), names[i]);
		if (section)
			TRY(elffile_load(file, section, &r[i]));
	}
	const struct reader none = reader_init("", 0, elffile_big_endian(file), "");
	const struct dw_sections sections = {.info = r[0], .abbrev = r[1], .str = r[2], .line_str = r[3], .str_offsets = r[4], .addr = r[5],
		.line = none, .ranges = none, .rnglists = none};
	struct err *e = dw_open(&dw, &sections, &runner, &account);
	if (!e)
		e = visit_all(&dw, visit, context);
	dw_close(&dw);
	return e;
}

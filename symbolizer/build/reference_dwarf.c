// SPDX-License-Identifier: Apache-2.0
/*
 * The reference walk over .debug_info, by libdwarf 20210528 through its object access interface, on sections that our ELF reader
 * found and inflated (libdwarf inflates no zstd; libelf neither).
 *
 *     unit         every compile and partial unit, in order; type units and skeletons are counted, not walked
 *     DIE          depth first over child and sibling with a stack of our own, no recursion
 *     subprogram   with code: a node without parent, wherever it stands (in namespaces, classes, local classes, blocks)
 *     inlined      subroutine: a node below the nearest function around it
 *     name         linkage name, name and line from the DIE itself, else along abstract_origin and specification, across units
 *
 * Only what is about code is kept. Ranges are what libdwarf's own readers of .debug_ranges and .debug_rnglists say; one that begins
 * in no executable section is a tombstone (the linker dropped the code).
 *
 * What libdwarf refuses is counted with the place and left out: the comparison then lacks that unit, and says so.
 */
#include "symbolizer/build/reference.h"
#include "symbolizer/build/reference_lines.h"

#include "base/hmap.h"

#include <dwarf.h>
#include <inttypes.h>
#include <libdwarf.h>
#include <stdio.h>

enum {
	DEPTH_MAX = 4096,  /* of DIEs below one another */
	ORIGINS_MAX = 32,  /* references from a DIE to the one that has its name */
};

struct walk {
	struct reference *reference;
	struct elffile *file;
	Dwarf_Debug dbg;
	struct hmap functions; /* offset of a DIE -> number in reference.functions */
	struct reference_lines lines;
	/* The unit at hand. */
	Dwarf_Half version;
	Dwarf_Addr base; /* DW_AT_low_pc of the unit: the base of DWARF 4 ranges */
	const struct reference_files *files;
};

/* ---------------------------------------------------------------- the object access interface */

static int section_info(void *object, Dwarf_Half index, Dwarf_Obj_Access_Section *ret, int *error)
{
	const struct elffile_section *section = elffile_section(object, index);

	(void)error;
	memset(ret, 0, sizeof(*ret));
	ret->name = "";
	if (!section)
		return DW_DLV_NO_ENTRY;
	/* Sections without bytes (the code, in a debug file) do not exist for it. */
	if (section->stored_size == 0 || strncmp(section->name, ".debug_", 7) != 0)
		return DW_DLV_OK;
	ret->name = section->name;
	ret->size = section->size;
	ret->type = section->type;
	ret->link = section->link;
	ret->info = section->info;
	ret->entrysize = section->entry_size;
	return DW_DLV_OK;
}

static Dwarf_Endianness byte_order(void *object)
{
	return elffile_big_endian(object) ? DW_OBJECT_MSB : DW_OBJECT_LSB;
}

/* The size of DWARF lengths: 4, also in 64-bit files; 64-bit DWARF says so itself. */
static Dwarf_Small length_size(void *object)
{
	(void)object;
	return 4;
}

static Dwarf_Small pointer_size(void *object)
{
	return (Dwarf_Small)elffile_address_size(object);
}

static Dwarf_Unsigned section_count(void *object)
{
	return elffile_section_count(object);
}

/* Sections were all loaded before libdwarf began, so this cannot fail but for memory. */
static int load_section(void *object, Dwarf_Half index, Dwarf_Small **ret, int *error)
{
	struct reader r;
	struct err *e = elffile_load(object, elffile_section(object, index), &r);

	if (e) {
		err_free(e);
		*error = DW_DLE_ALLOC_FAIL;
		return DW_DLV_ERROR;
	}
	*ret = (Dwarf_Small *)(uintptr_t)r.pos;
	return DW_DLV_OK;
}

static const Dwarf_Obj_Access_Methods access_methods = {
	.get_section_info = section_info,
	.get_byte_order = byte_order,
	.get_length_size = length_size,
	.get_pointer_size = pointer_size,
	.get_section_count = section_count,
	.load_section = load_section,
};

/* ---------------------------------------------------------------- attributes */

/* libdwarf's answer as a failure of this place, which is not an error of the walk; frees @p error. */
static void failed(struct walk *walk, Dwarf_Die die, const char *what, Dwarf_Error error)
{
	Dwarf_Off offset = 0;
	Dwarf_Error ignored = NULL;

	if (die)
		(void)dwarf_dieoffset(die, &offset, &ignored);
	reference_failed(walk->reference, "%s: .debug_info+0x%" PRIx64 ": %s: libdwarf: %s", elffile_name(walk->file),
		(uint64_t)offset, what, error ? dwarf_errmsg(error) : "no reason given");
	if (error)
		dwarf_dealloc_error(walk->dbg, error);
}

static bool find_attribute(struct walk *walk, Dwarf_Die die, Dwarf_Half name, Dwarf_Attribute *ret)
{
	Dwarf_Error error = NULL;
	int status = dwarf_attr(die, name, ret, &error);

	if (status == DW_DLV_ERROR)
		failed(walk, die, "attribute", error);
	return status == DW_DLV_OK;
}

/* Unsigned whatever the form; 0 when absent. */
static uint64_t number_attribute(struct walk *walk, Dwarf_Die die, Dwarf_Half name, bool *present_ret)
{
	Dwarf_Attribute attribute;
	Dwarf_Unsigned value = 0;
	Dwarf_Signed negative = 0;
	Dwarf_Error error = NULL;

	*present_ret = find_attribute(walk, die, name, &attribute);
	if (!*present_ret)
		return 0;
	if (dwarf_formudata(attribute, &value, &error) != DW_DLV_OK) {
		if (error)
			dwarf_dealloc_error(walk->dbg, error);
		error = NULL;
		if (dwarf_formsdata(attribute, &negative, &error) == DW_DLV_OK)
			value = (Dwarf_Unsigned)negative;
		else
			failed(walk, die, "number", error);
	}
	dwarf_dealloc_attribute(attribute);
	return value;
}

/* Stays REFERENCE_NONE when absent. */
static struct err *text_attribute(struct walk *walk, Dwarf_Die die, Dwarf_Half name, uint32_t *ret)
{
	Dwarf_Attribute attribute;
	char *text = NULL;
	Dwarf_Error error = NULL;

	if (*ret != REFERENCE_NONE || !find_attribute(walk, die, name, &attribute))
		return NULL;
	int status = dwarf_formstring(attribute, &text, &error);
	dwarf_dealloc_attribute(attribute);
	if (status != DW_DLV_OK) {
		failed(walk, die, "string", error);
		return NULL;
	}
	return reference_text(walk->reference, text, ret);
}

/* The DIE that an attribute refers to, anywhere in .debug_info; false when there is no such attribute. */
static bool follow(struct walk *walk, Dwarf_Die die, Dwarf_Half name, Dwarf_Off *ret)
{
	Dwarf_Attribute attribute;
	Dwarf_Error error = NULL;

	if (!find_attribute(walk, die, name, &attribute))
		return false;
	int status = dwarf_global_formref(attribute, ret, &error);
	dwarf_dealloc_attribute(attribute);
	if (status != DW_DLV_OK)
		failed(walk, die, "reference", error);
	return status == DW_DLV_OK;
}

/* ---------------------------------------------------------------- functions */

/* Takes from one DIE what is not known yet; false and the end of the search, or the offset of the next. */
static struct err *take_names(struct walk *walk, Dwarf_Die die, struct reference_function *function)
{
	bool present;

	TRY(text_attribute(walk, die, DW_AT_linkage_name, &function->linkage));
	TRY(text_attribute(walk, die, DW_AT_MIPS_linkage_name, &function->linkage));
	TRY(text_attribute(walk, die, DW_AT_name, &function->name));
	if (function->line == 0)
		function->line = number_attribute(walk, die, DW_AT_decl_line, &present);
	return NULL;
}

/* The function that the DIE at @p offset is, or comes from. */
static struct err *resolve(struct walk *walk, Dwarf_Off offset, uint32_t *ret)
{
	struct reference_function function = {.linkage = REFERENCE_NONE, .name = REFERENCE_NONE};
	uint64_t known;
	Dwarf_Off next = offset;
	bool more = true;

	if (hmap_get(&walk->functions, offset, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	for (int hops = 0; more && hops < ORIGINS_MAX; hops++) {
		Dwarf_Die die = NULL;
		Dwarf_Error error = NULL;

		if (dwarf_offdie_b(walk->dbg, next, true, &die, &error) != DW_DLV_OK) {
			failed(walk, NULL, "reference", error);
			break;
		}
		struct err *e = take_names(walk, die, &function);
		more = !e && (follow(walk, die, DW_AT_abstract_origin, &next) || follow(walk, die, DW_AT_specification, &next));
		dwarf_dealloc_die(die);
		TRY(e);
	}
	struct reference *reference = walk->reference;
	TRY(ARRAY_ROOM(&reference->account, &reference->functions, 1));
	*ret = (uint32_t)reference->functions.count;
	reference->functions.items[reference->functions.count++] = function;
	return hmap_set(&walk->functions, offset, *ret);
}

/* ---------------------------------------------------------------- ranges */

static struct err *add_range(struct walk *walk, uint32_t node, uint64_t low, uint64_t high)
{
	struct reference *reference = walk->reference;

	if (low >= high)
		return NULL;
	if (!elffile_is_code(walk->file, low)) {
		reference->tombstones++;
		return NULL;
	}
	TRY(ARRAY_ROOM(&reference->account, &reference->ranges, 1));
	reference->ranges.items[reference->ranges.count++] =
		(struct reference_range){.low = low, .high = high, .node = node};
	return NULL;
}

/* .debug_ranges, DWARF 3 and 4. */
static struct err *add_old_ranges(struct walk *walk, Dwarf_Die die, uint32_t node, Dwarf_Off offset)
{
	Dwarf_Ranges *ranges = NULL;
	Dwarf_Signed count = 0;
	Dwarf_Error error = NULL;
	uint64_t base = walk->base;
	struct err *e = NULL;

	int status = dwarf_get_ranges_b(walk->dbg, offset, die, NULL, &ranges, &count, NULL, &error);
	if (status == DW_DLV_ERROR)
		failed(walk, die, "ranges", error);
	if (status != DW_DLV_OK)
		return NULL;
	for (Dwarf_Signed i = 0; !e && i < count && ranges[i].dwr_type != DW_RANGES_END; i++) {
		if (ranges[i].dwr_type == DW_RANGES_ADDRESS_SELECTION)
			base = ranges[i].dwr_addr2;
		else
			e = add_range(walk, node, base + ranges[i].dwr_addr1, base + ranges[i].dwr_addr2);
	}
	dwarf_ranges_dealloc(walk->dbg, ranges, count);
	return e;
}

/* .debug_rnglists, DWARF 5. libdwarf gives the cooked values: absolute addresses, bases applied. */
static struct err *add_new_ranges(struct walk *walk, Dwarf_Die die, uint32_t node, Dwarf_Attribute attribute, Dwarf_Half form,
	Dwarf_Unsigned value)
{
	Dwarf_Rnglists_Head head = NULL;
	Dwarf_Unsigned count = 0, offset = 0;
	Dwarf_Error error = NULL;
	struct err *e = NULL;

	if (dwarf_rnglists_get_rle_head(attribute, form, value, &head, &count, &offset, &error) != DW_DLV_OK) {
		failed(walk, die, "range list", error);
		return NULL;
	}
	for (Dwarf_Unsigned i = 0; !e && i < count; i++) {
		unsigned length = 0, kind = 0;
		Dwarf_Unsigned raw1, raw2, low = 0, high = 0;
		Dwarf_Bool no_addresses = false;

		if (dwarf_get_rnglists_entry_fields_a(head, i, &length, &kind, &raw1, &raw2, &no_addresses, &low, &high, &error) !=
			DW_DLV_OK) {
			failed(walk, die, "range list entry", error);
			break;
		}
		if (kind == DW_RLE_end_of_list)
			break;
		if (kind != DW_RLE_base_address && kind != DW_RLE_base_addressx)
			e = add_range(walk, node, low, high);
	}
	dwarf_dealloc_rnglists_head(head);
	return e;
}

static struct err *add_range_list(struct walk *walk, Dwarf_Die die, uint32_t node, Dwarf_Attribute attribute)
{
	Dwarf_Half form = 0;
	Dwarf_Unsigned value = 0;
	Dwarf_Error error = NULL;

	if (dwarf_whatform(attribute, &form, &error) != DW_DLV_OK) {
		failed(walk, die, "form of ranges", error);
		return NULL;
	}
	int status = form == DW_FORM_rnglistx || form == DW_FORM_data4 || form == DW_FORM_data8
			     ? dwarf_formudata(attribute, &value, &error)
			     : dwarf_global_formref(attribute, &value, &error);
	if (status != DW_DLV_OK) {
		failed(walk, die, "offset of ranges", error);
		return NULL;
	}
	if (walk->version < 5)
		return add_old_ranges(walk, die, node, value);
	return add_new_ranges(walk, die, node, attribute, form, value);
}

static struct err *add_low_high(struct walk *walk, Dwarf_Die die, uint32_t node)
{
	Dwarf_Addr low = 0, high = 0;
	Dwarf_Half form;
	enum Dwarf_Form_Class class;
	Dwarf_Error error = NULL;

	int status = dwarf_lowpc(die, &low, &error);
	if (status == DW_DLV_OK)
		status = dwarf_highpc_b(die, &high, &form, &class, &error);
	if (status == DW_DLV_ERROR)
		failed(walk, die, "address", error);
	if (status != DW_DLV_OK)
		return NULL;
	if (class == DW_FORM_CLASS_CONSTANT)
		high += low;
	return add_range(walk, node, low, high);
}

static bool has_attribute(Dwarf_Die die, Dwarf_Half name)
{
	Dwarf_Bool has = false;
	Dwarf_Error error = NULL;

	return dwarf_hasattr(die, name, &has, &error) == DW_DLV_OK && has;
}

static struct err *add_ranges(struct walk *walk, Dwarf_Die die, uint32_t node)
{
	Dwarf_Attribute attribute;

	if (!find_attribute(walk, die, DW_AT_ranges, &attribute))
		return add_low_high(walk, die, node);
	struct err *e = add_range_list(walk, die, node, attribute);
	dwarf_dealloc_attribute(attribute);
	return e;
}

/* ---------------------------------------------------------------- DIEs */

/* Adds a node for a subprogram with code or an inlined call; @p parent becomes what its children are inlined in. */
static struct err *add_node(struct walk *walk, Dwarf_Die die, bool inlined, uint32_t *parent)
{
	struct reference *reference = walk->reference;
	struct reference_node node = {.parent = inlined ? *parent : REFERENCE_NONE, .call_file = REFERENCE_NONE};
	Dwarf_Off offset = 0;
	Dwarf_Error error = NULL;
	bool present;

	if (dwarf_dieoffset(die, &offset, &error) != DW_DLV_OK) {
		failed(walk, die, "offset", error);
		return NULL;
	}
	TRY(resolve(walk, offset, &node.function));
	if (inlined) {
		uint64_t file = number_attribute(walk, die, DW_AT_call_file, &present);

		if (present && walk->files && file < walk->files->count)
			node.call_file = walk->files->paths[file];
		node.call_line = number_attribute(walk, die, DW_AT_call_line, &present);
		node.call_column = number_attribute(walk, die, DW_AT_call_column, &present);
	}
	TRY(ARRAY_ROOM(&reference->account, &reference->nodes, 1));
	*parent = (uint32_t)reference->nodes.count;
	reference->nodes.items[reference->nodes.count++] = node;
	return add_ranges(walk, die, *parent);
}

static struct err *visit(struct walk *walk, Dwarf_Die die, uint32_t *parent)
{
	Dwarf_Half tag = 0;
	Dwarf_Error error = NULL;

	walk->reference->dies++;
	if (dwarf_tag(die, &tag, &error) != DW_DLV_OK) {
		failed(walk, die, "tag", error);
		return NULL;
	}
	if (tag == DW_TAG_inlined_subroutine && *parent != REFERENCE_NONE)
		return add_node(walk, die, true, parent);
	if (tag != DW_TAG_subprogram)
		return NULL;
	*parent = REFERENCE_NONE;
	if (!has_attribute(die, DW_AT_low_pc) && !has_attribute(die, DW_AT_ranges))
		return NULL;
	return add_node(walk, die, false, parent);
}

/* The DIE to go on with below or beside @p die; NULL when there is none. */
static Dwarf_Die child_of(struct walk *walk, Dwarf_Die die)
{
	Dwarf_Die child = NULL;
	Dwarf_Error error = NULL;
	int status = dwarf_child(die, &child, &error);

	if (status == DW_DLV_ERROR)
		failed(walk, die, "child", error);
	return status == DW_DLV_OK ? child : NULL;
}

static Dwarf_Die sibling_of(struct walk *walk, Dwarf_Die die)
{
	Dwarf_Die sibling = NULL;
	Dwarf_Error error = NULL;
	int status = dwarf_siblingof_b(walk->dbg, die, true, &sibling, &error);

	if (status == DW_DLV_ERROR)
		failed(walk, die, "sibling", error);
	return status == DW_DLV_OK ? sibling : NULL;
}

/* All DIEs below the unit's own, which stays the caller's. */
static struct err *walk_dies(struct walk *walk, Dwarf_Die unit)
{
	struct level {
		Dwarf_Die die;
		uint32_t parent; /* what the DIEs of this level are inlined in */
	};
	struct level *levels CLEANUP(freep) = calloc(DEPTH_MAX, sizeof(*levels));
	size_t depth = 0;
	struct err *e = NULL;

	if (!levels)
		return err_nomem();
	levels[0] = (struct level){.die = child_of(walk, unit), .parent = REFERENCE_NONE};
	depth = levels[0].die ? 1 : 0;
	while (depth > 0) {
		struct level *top = &levels[depth - 1];
		uint32_t parent = top->parent;

		e = e ? e : visit(walk, top->die, &parent);
		Dwarf_Die child = e ? NULL : child_of(walk, top->die);
		if (child && depth == DEPTH_MAX) {
			reference_failed(walk->reference, "DIEs nest deeper than %d", DEPTH_MAX);
			dwarf_dealloc_die(child);
			child = NULL;
		}
		if (child) {
			levels[depth++] = (struct level){.die = child, .parent = parent};
			continue;
		}
		/* Up to the next level that has a sibling left. */
		while (depth > 0) {
			top = &levels[depth - 1];
			Dwarf_Die next = e ? NULL : sibling_of(walk, top->die);
			dwarf_dealloc_die(top->die);
			top->die = next;
			if (next)
				break;
			depth--;
		}
	}
	return e;
}

/* Its lines, and its functions unless it is a skeleton. */
static struct err *walk_code(struct walk *walk, Dwarf_Die unit, bool is_split)
{
	struct reference *reference = walk->reference;
	size_t first = reference->sequences.count;
	Dwarf_Error error = NULL;

	walk->base = 0;
	if (dwarf_lowpc(unit, &walk->base, &error) == DW_DLV_ERROR)
		dwarf_dealloc_error(walk->dbg, error);
	TRY(reference_lines_read(&walk->lines, walk->dbg, unit, &walk->files));
	for (size_t i = first; is_split && i < reference->sequences.count; i++)
		reference->sequences.items[i].is_split = true;
	reference->split_units += is_split;
	return is_split ? NULL : walk_dies(walk, unit);
}

static struct err *walk_unit(struct walk *walk, Dwarf_Half unit_type)
{
	Dwarf_Die unit = sibling_of(walk, NULL);
	struct err *e = NULL;

	walk->reference->units++;
	if (!unit)
		return NULL;
	if (unit_type == DW_UT_type || unit_type == DW_UT_split_type)
		walk->reference->type_units++;
	else
		e = walk_code(walk, unit, has_attribute(unit, DW_AT_dwo_name) || has_attribute(unit, DW_AT_GNU_dwo_name));
	dwarf_dealloc_die(unit);
	return e;
}

static struct err *walk_units(struct walk *walk)
{
	for (;;) {
		Dwarf_Unsigned length, type_offset, next;
		Dwarf_Half address_size, length_bytes, extension_bytes, unit_type = 0;
		Dwarf_Off abbrev_offset;
		Dwarf_Sig8 signature;
		Dwarf_Error error = NULL;

		int status = dwarf_next_cu_header_d(walk->dbg, true, &length, &walk->version, &abbrev_offset, &address_size,
			&length_bytes, &extension_bytes, &signature, &type_offset, &next, &unit_type, &error);
		if (status == DW_DLV_ERROR)
			failed(walk, NULL, "unit header", error);
		if (status != DW_DLV_OK)
			return NULL;
		TRY(walk_unit(walk, unit_type));
	}
}

/* So that every error of inflating is ours, with its words, before libdwarf asks. */
static struct err *load_sections(struct elffile *file)
{
	for (size_t i = 0; i < elffile_section_count(file); i++) {
		const struct elffile_section *section = elffile_section(file, i);
		struct reader r;

		if (section->stored_size > 0 && strncmp(section->name, ".debug_", 7) == 0)
			TRY(elffile_load(file, section, &r));
	}
	return NULL;
}

struct err *reference_add_dwarf(struct reference *reference, struct elffile *file)
{
	Dwarf_Obj_Access_Interface access = {.object = file, .methods = &access_methods};
	struct walk walk = {.reference = reference, .file = file, .lines = {.reference = reference, .file = file}};
	Dwarf_Error error = NULL;

	const struct elffile_section *info = elffile_find(file, ".debug_info");
	if (!info || info->stored_size == 0)
		return NULL;
	TRY(load_sections(file));
	int status = dwarf_object_init_b(&access, NULL, NULL, DW_GROUPNUMBER_ANY, &walk.dbg, &error);
	if (status == DW_DLV_NO_ENTRY)
		return NULL;
	if (status != DW_DLV_OK) {
		struct err *e = err_new(ERR_INTERNAL, "%s: libdwarf: %s", elffile_name(file), dwarf_errmsg(error));
		dwarf_dealloc_error(NULL, error);
		return e;
	}
	struct err *e = walk_units(&walk);
	(void)dwarf_object_finish(walk.dbg, &error);
	reference_lines_deinit(&walk.lines);
	hmap_deinit(&walk.functions);
	return e;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Abbreviations, compiled. Most of the time of a walk over 20 million DIEs goes into stepping over attributes that nobody
 * wants, so that each abbreviation becomes two small programs, made once:
 *
 *     skip  runs of forms of fixed size are one step ("7 bytes on"); most abbreviations are a single such run, and then
 *           no program is run at all (is_fixed);
 *     read  the same, but the attributes that matter are steps of their own that store into a slot.
 *
 * The sizes of DW_FORM_addr, of offsets and of DW_FORM_ref_addr differ between units, so that a table is compiled for one
 * set of sizes. A form that is not known makes the table unusable: where the next attribute begins is then unknown.
 * Source: DWARF 5, 7.5.3 and 7.5.6.
 */
#include "symbolizer/build/dw.h"

#include "symbolizer/build/dw_const.h"

#include <inttypes.h>
#include <stdlib.h>

enum dw_op_kind {
	OP_BYTES, /* operand bytes on */
	OP_LEB,
	OP_TEXT,
	OP_BLOCK1,
	OP_BLOCK2,
	OP_BLOCK4,
	OP_BLOCK,
	OP_INDIRECT,
	OP_READ, /* into slot */
	OP_UNKNOWN,
};

/* The slot of an attribute for a DIE that is of interest. */
static enum dw_slot slot_of(uint64_t attribute)
{
	switch (attribute) {
	case DW_AT_name:
		return DW_SLOT_NAME;
	case DW_AT_linkage_name:
	case DW_AT_MIPS_linkage_name:
		return DW_SLOT_LINKAGE_NAME;
	case DW_AT_low_pc:
		return DW_SLOT_LOW_PC;
	case DW_AT_high_pc:
		return DW_SLOT_HIGH_PC;
	case DW_AT_ranges:
		return DW_SLOT_RANGES;
	case DW_AT_entry_pc:
		return DW_SLOT_ENTRY_PC;
	case DW_AT_abstract_origin:
		return DW_SLOT_ORIGIN;
	case DW_AT_specification:
		return DW_SLOT_SPECIFICATION;
	case DW_AT_decl_file:
		return DW_SLOT_DECL_FILE;
	case DW_AT_decl_line:
		return DW_SLOT_DECL_LINE;
	case DW_AT_call_file:
		return DW_SLOT_CALL_FILE;
	case DW_AT_call_line:
		return DW_SLOT_CALL_LINE;
	case DW_AT_call_column:
		return DW_SLOT_CALL_COLUMN;
	case DW_AT_stmt_list:
		return DW_SLOT_STMT_LIST;
	case DW_AT_comp_dir:
		return DW_SLOT_COMP_DIR;
	case DW_AT_str_offsets_base:
		return DW_SLOT_STR_OFFSETS_BASE;
	case DW_AT_addr_base:
	case DW_AT_GNU_addr_base:
		return DW_SLOT_ADDR_BASE;
	case DW_AT_rnglists_base:
	case DW_AT_GNU_ranges_base:
		return DW_SLOT_RNGLISTS_BASE;
	case DW_AT_dwo_name:
	case DW_AT_GNU_dwo_name:
		return DW_SLOT_DWO_NAME;
	case DW_AT_GNU_dwo_id:
		return DW_SLOT_DWO_ID;
	default:
		return DW_SLOT_SKIP;
	}
}

/* How to step over a form: the kind of step, and for OP_BYTES how many. */
static struct dw_op skip_op(uint64_t form, const struct dw_abbrevs *sizes)
{
	struct dw_op op = {.kind = OP_BYTES, .slot = DW_SLOT_SKIP};

	switch (form) {
	case DW_FORM_flag_present:
	case DW_FORM_implicit_const:
		break;
	case DW_FORM_data1:
	case DW_FORM_flag:
	case DW_FORM_ref1:
	case DW_FORM_strx1:
	case DW_FORM_addrx1:
		op.operand = 1;
		break;
	case DW_FORM_data2:
	case DW_FORM_ref2:
	case DW_FORM_strx2:
	case DW_FORM_addrx2:
		op.operand = 2;
		break;
	case DW_FORM_strx3:
	case DW_FORM_addrx3:
		op.operand = 3;
		break;
	case DW_FORM_data4:
	case DW_FORM_ref4:
	case DW_FORM_strx4:
	case DW_FORM_addrx4:
	case DW_FORM_ref_sup4:
		op.operand = 4;
		break;
	case DW_FORM_data8:
	case DW_FORM_ref8:
	case DW_FORM_ref_sig8:
	case DW_FORM_ref_sup8:
		op.operand = 8;
		break;
	case DW_FORM_data16:
		op.operand = 16;
		break;
	case DW_FORM_addr:
		op.operand = sizes->address_size;
		break;
	case DW_FORM_ref_addr:
		op.operand = sizes->version_2 ? sizes->address_size : sizes->offset_size;
		break;
	case DW_FORM_strp:
	case DW_FORM_line_strp:
	case DW_FORM_sec_offset:
	case DW_FORM_strp_sup:
	case DW_FORM_GNU_ref_alt:
	case DW_FORM_GNU_strp_alt:
		op.operand = sizes->offset_size;
		break;
	case DW_FORM_sdata:
	case DW_FORM_udata:
	case DW_FORM_ref_udata:
	case DW_FORM_strx:
	case DW_FORM_addrx:
	case DW_FORM_loclistx:
	case DW_FORM_rnglistx:
	case DW_FORM_GNU_addr_index:
	case DW_FORM_GNU_str_index:
		op.kind = OP_LEB;
		break;
	case DW_FORM_string:
		op.kind = OP_TEXT;
		break;
	case DW_FORM_block1:
		op.kind = OP_BLOCK1;
		break;
	case DW_FORM_block2:
		op.kind = OP_BLOCK2;
		break;
	case DW_FORM_block4:
		op.kind = OP_BLOCK4;
		break;
	case DW_FORM_block:
	case DW_FORM_exprloc:
		op.kind = OP_BLOCK;
		break;
	case DW_FORM_indirect:
		op.kind = OP_INDIRECT;
		break;
	default:
		op.kind = OP_UNKNOWN;
		break;
	}
	return op;
}

/* Appends a step; fixed bytes join a step of fixed bytes that the program ends with. */
static struct err *append_op(struct dw *dw, struct dw_abbrevs *table, size_t program_first, struct dw_op op)
{
	struct dw_op *last = table->ops.count > program_first ? &table->ops.items[table->ops.count - 1] : NULL;

	if (op.kind == OP_BYTES && op.operand == 0)
		return NULL;
	if (op.kind == OP_BYTES && last && last->kind == OP_BYTES && last->operand <= UINT32_MAX - op.operand) {
		last->operand += op.operand;
		return NULL;
	}
	TRY(ARRAY_ROOM(dw->account, &table->ops, 1));
	table->ops.items[table->ops.count++] = op;
	return NULL;
}

static uint8_t kind_of(uint64_t tag, bool has_code)
{
	switch (tag) {
	case DW_TAG_subprogram:
		return has_code ? DW_KIND_SUBPROGRAM : DW_KIND_DECLARATION;
	case DW_TAG_inlined_subroutine:
		return DW_KIND_INLINED;
	case DW_TAG_compile_unit:
	case DW_TAG_partial_unit:
	case DW_TAG_type_unit:
	case DW_TAG_skeleton_unit:
		return DW_KIND_UNIT;
	default:
		return DW_KIND_PLAIN;
	}
}

/* One attribute specification as it stands in the section; an implicit constant is stored. */
struct spec {
	uint64_t attribute, form;
	uint32_t constant;
};

static struct err *read_spec(struct dw *dw, struct dw_abbrevs *table, struct reader *r, struct spec *ret)
{
	ret->attribute = reader_uleb(r);
	ret->form = reader_uleb(r);
	ret->constant = 0;
	if (ret->form != DW_FORM_implicit_const)
		return NULL;
	int64_t constant = reader_sleb(r);
	TRY(ARRAY_ROOM(dw->account, &table->constants, 1));
	ret->constant = (uint32_t)table->constants.count;
	table->constants.items[table->constants.count++] = constant;
	return NULL;
}

/* The skip program of one abbreviation, from its specifications; says whether there is an address among them. */
static struct err *compile_skip(struct dw *dw, struct dw_abbrevs *table, struct reader *r, struct dw_abbrev *ret, bool *has_code_ret)
{
	struct spec spec;

	ret->skip_first = (uint32_t)table->ops.count;
	*has_code_ret = false;
	for (;;) {
		size_t constants = table->constants.count;
		TRY(read_spec(dw, table, r, &spec));
		table->constants.count = constants; /* the read program stores it */
		if (r->failed)
			return reader_error(r, "abbreviation %" PRIu64 " has no end", ret->code);
		if (spec.attribute == 0 && spec.form == 0)
			break;
		struct dw_op op = skip_op(spec.form, table);
		if (op.kind == OP_UNKNOWN)
			return reader_error(r, "abbreviation %" PRIu64 ": form 0x%" PRIx64 " is not known", ret->code, spec.form);
		if (spec.attribute == DW_AT_low_pc || spec.attribute == DW_AT_ranges)
			*has_code_ret = true;
		TRY(append_op(dw, table, ret->skip_first, op));
	}
	ret->skip_count = (uint32_t)table->ops.count - ret->skip_first;
	ret->is_fixed = ret->skip_count == 0 || (ret->skip_count == 1 && table->ops.items[ret->skip_first].kind == OP_BYTES);
	ret->fixed_bytes = ret->skip_count == 1 && ret->is_fixed ? table->ops.items[ret->skip_first].operand : 0;
	return NULL;
}

/* The read program, from the same specifications, which are known to be well-formed by now. */
static struct err *compile_read(struct dw *dw, struct dw_abbrevs *table, struct reader r, struct dw_abbrev *ret)
{
	struct spec spec;

	ret->read_first = (uint32_t)table->ops.count;
	for (;;) {
		TRY(read_spec(dw, table, &r, &spec));
		if (spec.attribute == 0 && spec.form == 0)
			break;
		struct dw_op op = skip_op(spec.form, table);
		enum dw_slot slot = slot_of(spec.attribute);
		if (slot != DW_SLOT_SKIP)
			op = (struct dw_op){.kind = OP_READ, .slot = (uint8_t)slot, .form = (uint16_t)spec.form, .operand = spec.constant};
		TRY(append_op(dw, table, ret->read_first, op));
	}
	ret->read_count = (uint32_t)table->ops.count - ret->read_first;
	return NULL;
}

static struct err *compile_one(struct dw *dw, struct dw_abbrevs *table, struct reader *r, uint64_t code)
{
	struct dw_abbrev abbrev = {.code = code};
	uint64_t tag = reader_uleb(r);
	bool has_code;

	abbrev.has_children = reader_u8(r) != 0;
	struct reader specs = *r;
	TRY(compile_skip(dw, table, r, &abbrev, &has_code));
	abbrev.kind = kind_of(tag, has_code);
	if (abbrev.kind != DW_KIND_PLAIN)
		TRY(compile_read(dw, table, specs, &abbrev));
	if (table->ops.count > UINT32_MAX / 2 || table->constants.count > UINT32_MAX / 2)
		return reader_error(r, "too many attributes");
	TRY(ARRAY_ROOM(dw->account, &table->list, 1));
	table->list.items[table->list.count++] = abbrev;
	if (code != table->list.count)
		table->in_sequence = false;
	return NULL;
}

static int compare_codes(const void *a, const void *b)
{
	uint64_t x = ((const struct dw_abbrev *)a)->code, y = ((const struct dw_abbrev *)b)->code;

	return x < y ? -1 : x > y;
}

const struct dw_abbrev *dw_abbrev_search(const struct dw_abbrevs *table, uint64_t code)
{
	struct dw_abbrev key = {.code = code};

	if (table->list.count == 0)
		return NULL;
	return bsearch(&key, table->list.items, table->list.count, sizeof(key), compare_codes);
}

static struct err *compile_all(struct dw *dw, struct dw_abbrevs *table)
{
	struct reader r = dw->sections.abbrev;

	reader_seek(&r, table->offset);
	if (r.failed || reader_left(&r) == 0)
		return reader_error(&dw->sections.abbrev, "no abbreviations at 0x%" PRIx64, table->offset);
	table->in_sequence = true;
	for (;;) {
		uint64_t before = reader_offset(&r);
		uint64_t code = reader_uleb(&r);
		if (r.failed)
			return reader_error(&r, "the abbreviations at 0x%" PRIx64 " have no end", table->offset);
		if (code == 0)
			break;
		TRY(compile_one(dw, table, &r, code));
		TRY(dw_work(&dw->abbrev_bytes, reader_offset(&r) - before,
			DW_ABBREV_WORK * (uint64_t)(r.end - r.start) + DW_WORK_FREE, ".debug_abbrev"));
	}
	if (!table->in_sequence && table->list.count)
		qsort(table->list.items, table->list.count, sizeof(*table->list.items), compare_codes);
	return NULL;
}

struct err *dw_abbrevs_compile(struct dw *dw, struct dw_abbrevs *table)
{
	struct err *e = compile_all(dw, table);

	if (e && err_code(e) == ERR_FORMAT) {
		table->damage = e;
		return NULL;
	}
	ARRAY_TRIM(dw->account, &table->list);
	ARRAY_TRIM(dw->account, &table->ops);
	ARRAY_TRIM(dw->account, &table->constants);
	return e;
}

void dw_abbrevs_deinit(struct dw_abbrevs *table, struct account *account)
{
	err_free(table->damage);
	ARRAY_DEINIT(account, &table->list);
	ARRAY_DEINIT(account, &table->ops);
	ARRAY_DEINIT(account, &table->constants);
}

/* The form behind DW_FORM_indirect, which may stand there several times. */
static uint64_t read_indirect(struct reader *r)
{
	for (unsigned i = 0; i < DW_INDIRECT_MAX; i++) {
		uint64_t form = reader_uleb(r);
		if (form != DW_FORM_indirect && form != DW_FORM_implicit_const)
			return form;
	}
	reader_fail(r);
	return DW_FORM_flag_present;
}

static void run_skip(const struct dw_unit *unit, struct dw_op op, struct reader *r)
{
	for (;;) {
		switch (op.kind) {
		case OP_BYTES:
			reader_skip(r, op.operand);
			return;
		case OP_LEB:
			(void)reader_uleb(r);
			return;
		case OP_TEXT:
			(void)reader_text(r, NULL);
			return;
		case OP_BLOCK1:
			reader_skip(r, reader_u8(r));
			return;
		case OP_BLOCK2:
			reader_skip(r, reader_u16(r));
			return;
		case OP_BLOCK4:
			reader_skip(r, reader_u32(r));
			return;
		case OP_BLOCK:
			reader_skip(r, reader_uleb(r));
			return;
		case OP_INDIRECT:
			op = skip_op(read_indirect(r), unit->abbrevs);
			break;
		default:
			reader_fail(r);
			return;
		}
	}
}

void dw_skip_die(const struct dw_unit *unit, const struct dw_abbrev *abbrev, struct reader *r)
{
	const struct dw_op *ops = unit->abbrevs->ops.items;

	if (abbrev->is_fixed) {
		reader_skip(r, abbrev->fixed_bytes);
		return;
	}
	for (uint32_t i = 0; i < abbrev->skip_count; i++)
		run_skip(unit, ops[abbrev->skip_first + i], r);
}

/* Reads one value; blocks have none, and are stepped over. */
static struct dw_value read_value(const struct dw_unit *unit, uint64_t form, struct reader *r)
{
	struct dw_value value = {.form = (uint16_t)form};

	switch (form) {
	case DW_FORM_sdata:
		value.value = (uint64_t)reader_sleb(r);
		return value;
	case DW_FORM_string:
		value.value = reader_offset(r);
		(void)reader_text(r, NULL);
		return value;
	case DW_FORM_flag_present:
		value.value = 1;
		return value;
	default:
		break;
	}
	struct dw_op op = skip_op(form, unit->abbrevs);
	if (op.kind == OP_LEB)
		value.value = reader_uleb(r);
	else if (op.kind == OP_BYTES && op.operand > 0 && op.operand <= 8)
		value.value = reader_uint(r, op.operand);
	else
		run_skip(unit, op, r);
	bool relative = (form >= DW_FORM_ref1 && form <= DW_FORM_ref_udata);
	if (relative)
		value.value += unit->offset;
	else if (form == DW_FORM_ref_addr)
		value.value += unit->info_start;
	return value;
}

void dw_read_die(const struct dw_unit *unit, const struct dw_abbrev *abbrev, struct reader *r, struct dw_die *ret)
{
	const struct dw_op *ops = unit->abbrevs->ops.items; /* NULL when the whole table has none */

	ret->present = 0;
	if (abbrev->kind == DW_KIND_PLAIN) {
		dw_skip_die(unit, abbrev, r);
		return;
	}
	for (uint32_t i = 0; i < abbrev->read_count; i++) {
		struct dw_op op = ops[abbrev->read_first + i];
		if (op.kind != OP_READ) {
			run_skip(unit, op, r);
			continue;
		}
		struct dw_value value = {.form = op.form};
		if (op.form == DW_FORM_implicit_const)
			value.value = (uint64_t)unit->abbrevs->constants.items[op.operand];
		else
			value = read_value(unit, op.form == DW_FORM_indirect ? read_indirect(r) : op.form, r);
		/* Both names of the linkage name in one DIE: the first stands. */
		if ((ret->present >> op.slot) & 1)
			continue;
		ret->present |= 1u << op.slot;
		ret->values[op.slot] = value;
	}
}

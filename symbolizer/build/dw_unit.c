// SPDX-License-Identifier: Apache-2.0
/*
 * The index of units, and what unit DIEs say.
 *
 *     1. the headers, one after another (serial: a few bytes a unit)
 *     2. the distinct tables of abbreviations (offset and sizes), compiled in parallel
 *     3. the unit DIEs, in parallel: bases of the indexed forms, base address, line table, directory
 *
 * The bases are needed before any unit is walked, because a name may lie in another unit (LTO). In a unit DIE an indexed form
 * may stand before the attribute that says its base, so the values are kept raw and resolved once the DIE is read.
 *
 * Source: DWARF 5, 7.5.1 (headers), 3.1.1 (unit DIE), 7.4 (64-bit format).
 */
#include "symbolizer/build/dw.h"

#include "symbolizer/build/dw_const.h"
#include "symbolizer/build/dwp_index.h"

#include <inttypes.h>
#include <stdlib.h>

struct err *dw_work(_Atomic uint64_t *done, uint64_t amount, uint64_t limit, const char *what)
{
	uint64_t sum = atomic_fetch_add_explicit(done, amount, memory_order_relaxed) + amount;

	if (sum <= limit)
		return NULL;
	return err_new(ERR_LIMIT, "%s is read over and over: more than %" PRIu64 " units of work", what, limit);
}

/* The rest of a header whose length and version are known. */
static struct err *read_header_rest(struct dw_unit *unit, struct reader *r)
{
	if (unit->version >= 5) {
		unit->type = reader_u8(r);
		unit->address_size = reader_u8(r);
		unit->abbrev_offset = reader_uint(r, unit->offset_size);
	} else {
		unit->type = DW_UT_compile;
		unit->abbrev_offset = reader_uint(r, unit->offset_size);
		unit->address_size = reader_u8(r);
	}
	unit->has_dwo_id = unit->type == DW_UT_skeleton || unit->type == DW_UT_split_compile;
	if (unit->has_dwo_id)
		unit->dwo_id = reader_u64(r);
	else if (unit->type == DW_UT_type || unit->type == DW_UT_split_type)
		reader_skip(r, 8 + (uint64_t)unit->offset_size);
	if (r->failed)
		return reader_error(r, "the unit ends in its header");
	if (unit->address_size != 4 && unit->address_size != 8)
		return reader_error(r, "addresses of %u bytes", unit->address_size);
	unit->die_offset = reader_offset(r);
	return NULL;
}

/* Reads one header and steps over its unit. A length that cannot be trusted makes this the last unit. */
static struct err *read_header(struct dw_unit *unit, struct reader *r)
{
	unit->offset = reader_offset(r);
	unit->end = unit->offset + reader_left(r);
	unit->offset_size = 4;
	uint64_t length = reader_u32(r);
	if (length == UINT32_MAX) {
		length = reader_u64(r);
		unit->offset_size = 8;
	}
	if (r->failed || length > reader_left(r)) {
		struct err *e = reader_error(r, "a unit of 0x%" PRIx64 " bytes where 0x%zx are left", length, reader_left(r));
		reader_skip(r, reader_left(r));
		return e;
	}
	unit->end = reader_offset(r) + length;
	struct reader body = *r;
	body.end = r->pos + length;
	reader_skip(r, length);
	unit->version = reader_u16(&body);
	if (body.failed || unit->version < 2 || unit->version > 5)
		return reader_error(&body, "a unit of DWARF version %u", unit->version);
	return read_header_rest(unit, &body);
}

static struct err *index_units(struct dw *dw)
{
	struct reader r = dw->sections.info;

	while (reader_left(&r) > 0) {
		TRY(ARRAY_ROOM(dw->account, &dw->units, 1));
		struct dw_unit *unit = &dw->units.items[dw->units.count++];
		*unit = (struct dw_unit){.comp_dir = ""};
		unit->damage = read_header(unit, &r);
		if (unit->damage && err_code(unit->damage) != ERR_FORMAT)
			return TAKE_PTR(unit->damage);
	}
	ARRAY_TRIM(dw->account, &dw->units);
	return NULL;
}

/* Which table a unit needs; equal keys share one. */
struct abbrev_key {
	uint64_t offset;
	uint64_t sizes;
	size_t unit;
};

static int compare_keys(const void *a, const void *b)
{
	const struct abbrev_key *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	if (x->sizes != y->sizes)
		return x->sizes < y->sizes ? -1 : 1;
	return x->unit < y->unit ? -1 : x->unit > y->unit;
}

/* Types only: no code, and other units refer to them by signature only. */
static bool is_type_unit(const struct dw_unit *unit)
{
	return unit->type == DW_UT_type || unit->type == DW_UT_split_type;
}

/* Makes one entry of dw->abbrevs for each distinct key, and lets units point to it. */
static struct err *share_abbrevs(struct dw *dw, struct abbrev_key *keys, size_t count)
{
	size_t distinct = 0;

	for (size_t i = 0; i < count; i++)
		distinct += i == 0 || keys[i].offset != keys[i - 1].offset || keys[i].sizes != keys[i - 1].sizes;
	TRY(ARRAY_ROOM(dw->account, &dw->abbrevs, distinct));
	for (size_t i = 0; i < count; i++) {
		struct dw_unit *unit = &dw->units.items[keys[i].unit];
		if (i == 0 || keys[i].offset != keys[i - 1].offset || keys[i].sizes != keys[i - 1].sizes)
			dw->abbrevs.items[dw->abbrevs.count++] = (struct dw_abbrevs){.offset = unit->abbrev_offset,
				.version_2 = unit->version == 2,
				.address_size = unit->address_size,
				.offset_size = unit->offset_size};
		unit->abbrevs = &dw->abbrevs.items[dw->abbrevs.count - 1];
	}
	return NULL;
}

static struct err *collect_abbrevs(struct dw *dw)
{
	CLEANUP(freep) struct abbrev_key *keys = malloc((dw->units.count + 1) * sizeof(*keys));
	size_t count = 0;

	if (!keys)
		return err_nomem();
	for (size_t i = 0; i < dw->units.count; i++) {
		const struct dw_unit *unit = &dw->units.items[i];
		if (unit->damage || is_type_unit(unit))
			continue;
		uint64_t sizes = (uint64_t)unit->address_size << 16 | (uint64_t)unit->offset_size << 8 | (unit->version == 2);
		keys[count++] = (struct abbrev_key){.offset = unit->abbrev_offset, .sizes = sizes, .unit = i};
	}
	if (count)
		qsort(keys, count, sizeof(*keys), compare_keys);
	return share_abbrevs(dw, keys, count);
}

static struct err *compile_task(void *context, size_t i, unsigned thread)
{
	struct dw *dw = context;

	(void)thread;
	return dw_abbrevs_compile(dw, &dw->abbrevs.items[i]);
}

struct reader dw_unit_reader(const struct dw *dw, const struct dw_unit *unit, uint64_t offset)
{
	struct reader r = dw->sections.info;

	r.end = r.start + unit->end;
	reader_seek(&r, offset);
	return r;
}

/* Bases that a unit does not say begin behind the header of the only contribution. */
static void default_bases(struct dw_unit *unit)
{
	uint64_t header = unit->offset_size == 8 ? 16 : 8;

	unit->str_offsets_base = unit->str_offsets_start + (unit->version >= 5 ? header : 0);
	unit->addr_base = unit->version >= 5 ? header : 0;
	unit->rnglists_base = unit->version >= 5 ? unit->rnglists_start + header + 4 : 0;
}

static void take_unit_die(const struct dw *dw, struct dw_unit *unit, const struct dw_die *die)
{
	if (dw_has(die, DW_SLOT_STR_OFFSETS_BASE))
		unit->str_offsets_base = die->values[DW_SLOT_STR_OFFSETS_BASE].value;
	if (dw_has(die, DW_SLOT_ADDR_BASE))
		unit->addr_base = die->values[DW_SLOT_ADDR_BASE].value;
	if (dw_has(die, DW_SLOT_RNGLISTS_BASE))
		unit->rnglists_base = die->values[DW_SLOT_RNGLISTS_BASE].value;
	unit->has_lines = dw_has(die, DW_SLOT_STMT_LIST) && dw_constant(&die->values[DW_SLOT_STMT_LIST], &unit->stmt_list);
	if (dw_has(die, DW_SLOT_COMP_DIR)) {
		const char *text = dw_text(dw, unit, &die->values[DW_SLOT_COMP_DIR]);
		unit->comp_dir = text ? text : "";
	}
	if (dw_has(die, DW_SLOT_DWO_NAME))
		unit->dwo_name = dw_text(dw, unit, &die->values[DW_SLOT_DWO_NAME]);
	if (!unit->has_dwo_id && dw_has(die, DW_SLOT_DWO_ID))
		unit->has_dwo_id = dw_constant(&die->values[DW_SLOT_DWO_ID], &unit->dwo_id);
	enum dw_slot base = dw_has(die, DW_SLOT_LOW_PC) ? DW_SLOT_LOW_PC : DW_SLOT_ENTRY_PC;
	if (dw_has(die, base))
		unit->has_low_pc = dw_address(dw, unit, &die->values[base], &unit->low_pc);
	unit->has_low = dw_has(die, DW_SLOT_LOW_PC);
	unit->has_high = dw_has(die, DW_SLOT_HIGH_PC);
	unit->has_ranges = dw_has(die, DW_SLOT_RANGES);
	if (unit->has_low)
		unit->low = die->values[DW_SLOT_LOW_PC];
	if (unit->has_high)
		unit->high = die->values[DW_SLOT_HIGH_PC];
	if (unit->has_ranges)
		unit->ranges = die->values[DW_SLOT_RANGES];
}

static struct err *read_unit_die(const struct dw *dw, struct dw_unit *unit)
{
	struct reader r = dw_unit_reader(dw, unit, unit->die_offset);
	struct dw_die die;

	if (unit->abbrevs->damage)
		return err_new(ERR_FORMAT, "%s", err_message(unit->abbrevs->damage));
	default_bases(unit);
	if (reader_left(&r) == 0)
		return NULL;
	uint64_t code = reader_uleb(&r);
	if (code == 0 && !r.failed)
		return NULL;
	const struct dw_abbrev *abbrev = dw_abbrev_find(unit->abbrevs, code);
	if (!abbrev)
		return reader_error(&r, "abbreviation %" PRIu64 " is not defined", code);
	if (abbrev->kind != DW_KIND_UNIT)
		return reader_error(&r, "the unit does not begin with a unit");
	dw_read_die(unit, abbrev, &r, &die);
	if (r.failed)
		return reader_error(&r, "the unit ends in its first entry");
	take_unit_die(dw, unit, &die);
	return NULL;
}

static struct err *unit_task(void *context, size_t i, unsigned thread)
{
	struct dw *dw = context;
	struct dw_unit *unit = &dw->units.items[i];

	(void)thread;
	if (!unit->abbrevs)
		return NULL;
	struct err *e = read_unit_die(dw, unit);
	if (!e || err_code(e) != ERR_FORMAT)
		return e;
	unit->damage = e;
	return NULL;
}

struct err *dw_open(struct dw *dw, const struct dw_sections *sections, const struct runner *runner, struct account *account)
{
	dw->sections = *sections;
	dw->account = account;
	TRY(index_units(dw));
	TRY(dwp_index_apply(dw));
	TRY(collect_abbrevs(dw));
	TRY(runner_run(runner, dw->abbrevs.count, compile_task, dw));
	return runner_run(runner, dw->units.count, unit_task, dw);
}

void dw_close(struct dw *dw)
{
	for (size_t i = 0; i < dw->units.count; i++)
		err_free(dw->units.items[i].damage);
	for (size_t i = 0; i < dw->abbrevs.count; i++)
		dw_abbrevs_deinit(&dw->abbrevs.items[i], dw->account);
	if (!dw->account)
		return;
	ARRAY_DEINIT(dw->account, &dw->units);
	ARRAY_DEINIT(dw->account, &dw->abbrevs);
	dw->account = NULL;
}

const struct dw_unit *dw_unit_at(const struct dw *dw, uint64_t offset)
{
	size_t low = 0, high = dw->units.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (dw->units.items[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == dw->units.count)
		return NULL;
	const struct dw_unit *unit = &dw->units.items[low];
	bool readable = unit->abbrevs && !unit->abbrevs->damage;
	return readable && offset >= unit->die_offset ? unit : NULL;
}

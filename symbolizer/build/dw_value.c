// SPDX-License-Identifier: Apache-2.0
/*
 * What the values of attributes mean: strings, addresses, constants, references, range lists.
 *
 * Range lists, DWARF 2 to 4 (.debug_ranges): pairs of addresses relative to a base; 0, 0 ends the list; -1, x makes x the base.
 * DWARF 5 (.debug_rnglists): entries of a kind byte and operands. The base is the unit's low_pc at first.
 * What the linker discarded is marked by a low address or a base of -1 or -2 (lld) and is left out here; lower tombstones
 * (0, 1: GNU ld) are found by whoever knows where code lies.
 * Source: DWARF 4, 2.17.3; DWARF 5, 2.17.3 and 7.25; DWARF 5, 7.26 (str_offsets), 7.27 (addr).
 */
#include "symbolizer/build/dw.h"

#include "symbolizer/build/dw_const.h"

#include <inttypes.h>

static const char *text_at(const struct reader *section, uint64_t offset)
{
	struct reader r = *section;

	reader_seek(&r, offset);
	/* Offsets into one endless string would make each search as long as the section. */
	if (reader_left(&r) > DW_TEXT_MAX)
		r.end = r.pos + DW_TEXT_MAX + 1;
	return reader_text(&r, NULL);
}

/* One entry of a table of fixed-size entries that begins at base. */
static bool table_entry(const struct reader *section, uint64_t base, uint64_t index, unsigned size, uint64_t *ret)
{
	struct reader r = *section;
	uint64_t offset;

	if (__builtin_mul_overflow(index, (uint64_t)size, &offset) || __builtin_add_overflow(offset, base, &offset))
		return false;
	reader_seek(&r, offset);
	*ret = reader_uint(&r, size);
	return !r.failed;
}

const char *dw_text(const struct dw *dw, const struct dw_unit *unit, const struct dw_value *value)
{
	uint64_t offset;

	switch (value->form) {
	case DW_FORM_string:
		return text_at(&dw->sections.info, value->value);
	case DW_FORM_strp:
		return text_at(&dw->sections.str, value->value);
	case DW_FORM_line_strp:
		return text_at(&dw->sections.line_str, value->value);
	case DW_FORM_strx:
	case DW_FORM_strx1:
	case DW_FORM_strx2:
	case DW_FORM_strx3:
	case DW_FORM_strx4:
	case DW_FORM_GNU_str_index:
		if (!table_entry(&dw->sections.str_offsets, unit->str_offsets_base, value->value, unit->offset_size, &offset))
			return NULL;
		return text_at(&dw->sections.str, offset);
	case DW_FORM_strp_sup:
	case DW_FORM_GNU_strp_alt:
		return dw->supplement ? text_at(&dw->supplement->sections.str, value->value) : NULL;
	default:
		return NULL; /* not a string */
	}
}

bool dw_indexed_address(const struct dw *dw, const struct dw_unit *unit, uint64_t index, uint64_t *ret)
{
	return table_entry(&dw->sections.addr, unit->addr_base, index, unit->address_size, ret);
}

bool dw_address(const struct dw *dw, const struct dw_unit *unit, const struct dw_value *value, uint64_t *ret)
{
	switch (value->form) {
	case DW_FORM_addr:
		*ret = value->value;
		return true;
	case DW_FORM_addrx:
	case DW_FORM_addrx1:
	case DW_FORM_addrx2:
	case DW_FORM_addrx3:
	case DW_FORM_addrx4:
	case DW_FORM_GNU_addr_index:
		return dw_indexed_address(dw, unit, value->value, ret);
	default:
		return false;
	}
}

bool dw_constant(const struct dw_value *value, uint64_t *ret)
{
	switch (value->form) {
	case DW_FORM_data1:
	case DW_FORM_data2:
	case DW_FORM_data4:
	case DW_FORM_data8:
	case DW_FORM_udata:
	case DW_FORM_sdata:
	case DW_FORM_implicit_const:
	case DW_FORM_sec_offset:
		*ret = value->value;
		return true;
	default:
		return false;
	}
}

bool dw_reference(const struct dw_value *value, uint64_t *ret)
{
	switch (value->form) {
	case DW_FORM_ref1:
	case DW_FORM_ref2:
	case DW_FORM_ref4:
	case DW_FORM_ref8:
	case DW_FORM_ref_udata:
	case DW_FORM_ref_addr:
		*ret = value->value & ~DW_IN_SUPPLEMENT;
		return true;
	case DW_FORM_ref_sup4:
	case DW_FORM_ref_sup8:
	case DW_FORM_GNU_ref_alt:
		*ret = value->value | DW_IN_SUPPLEMENT;
		return true;
	default:
		return false; /* in a type unit */
	}
}

bool dw_is_supplementary(const struct dw_value *value)
{
	switch (value->form) {
	case DW_FORM_ref_sup4:
	case DW_FORM_ref_sup8:
	case DW_FORM_GNU_ref_alt:
	case DW_FORM_strp_sup:
	case DW_FORM_GNU_strp_alt:
		return true;
	default:
		return false;
	}
}

/* True for an address that stands for discarded code: the two highest. */
static bool is_tombstone(const struct dw_unit *unit, uint64_t address)
{
	uint64_t max = unit->address_size == 8 ? UINT64_MAX : UINT32_MAX;

	return address >= max - 1;
}

/* An empty range is nothing; a reversed one is kept for dw_drop_reversed to count. */
static struct err *append(struct dw *dw, struct dw_range_list *list, uint64_t low, uint64_t high)
{
	if (low == high)
		return NULL;
	TRY(ARRAY_ROOM(dw->account, list, 1));
	list->items[list->count++] = (struct dw_range){low, high};
	return NULL;
}

static struct err *count_entries(struct dw *dw, uint64_t entries)
{
	uint64_t bytes = (uint64_t)(dw->sections.ranges.end - dw->sections.ranges.start) +
			 (uint64_t)(dw->sections.rnglists.end - dw->sections.rnglists.start);

	return dw_work(&dw->range_entries, entries, DW_RANGE_WORK * bytes + DW_WORK_FREE, "a range list");
}

static struct err *read_pairs(struct dw *dw, const struct dw_unit *unit, uint64_t offset, struct dw_range_list *ret)
{
	struct reader r = dw->sections.ranges;
	uint64_t base = unit->has_low_pc ? unit->low_pc : 0, entries = 0;
	uint64_t max = unit->address_size == 8 ? UINT64_MAX : UINT32_MAX;

	reader_seek(&r, offset);
	for (;; entries++) {
		uint64_t low = reader_uint(&r, unit->address_size);
		uint64_t high = reader_uint(&r, unit->address_size);
		if (r.failed)
			return reader_error(&r, "the range list at 0x%" PRIx64 " has no end", offset);
		if (low == 0 && high == 0)
			break;
		if (low == max)
			base = high;
		else if (!is_tombstone(unit, base) && !is_tombstone(unit, low))
			TRY(append(dw, ret, low + base, high + base));
	}
	return count_entries(dw, entries);
}

/* Reads the operands of one entry. `base` is changed by the entries that do only that. */
static struct err *read_entry(struct dw *dw, const struct dw_unit *unit, struct reader *r, uint64_t *base, struct dw_range_list *ret)
{
	uint8_t kind = reader_u8(r);
	uint64_t low = 0, high = 0;
	bool ok = true;

	switch (kind) {
	case DW_RLE_base_addressx:
		if (!dw_indexed_address(dw, unit, reader_uleb(r), base))
			return reader_error(r, "the index of a base address is out of range");
		return NULL;
	case DW_RLE_base_address:
		*base = reader_uint(r, unit->address_size);
		return NULL;
	case DW_RLE_startx_endx:
		ok = dw_indexed_address(dw, unit, reader_uleb(r), &low);
		ok &= dw_indexed_address(dw, unit, reader_uleb(r), &high);
		break;
	case DW_RLE_startx_length:
		ok = dw_indexed_address(dw, unit, reader_uleb(r), &low);
		high = low + reader_uleb(r);
		break;
	case DW_RLE_offset_pair:
		low = reader_uleb(r) + *base;
		high = reader_uleb(r) + *base;
		if (is_tombstone(unit, *base))
			return NULL;
		break;
	case DW_RLE_start_end:
		low = reader_uint(r, unit->address_size);
		high = reader_uint(r, unit->address_size);
		break;
	case DW_RLE_start_length:
		low = reader_uint(r, unit->address_size);
		high = low + reader_uleb(r);
		break;
	default:
		return reader_error(r, "a range list entry of kind %u", kind);
	}
	if (!ok)
		return reader_error(r, "the index of an address is out of range");
	return is_tombstone(unit, low) || r->failed ? NULL : append(dw, ret, low, high);
}

static struct err *read_list(struct dw *dw, const struct dw_unit *unit, uint64_t offset, struct dw_range_list *ret)
{
	struct reader r = dw->sections.rnglists;
	uint64_t base = unit->has_low_pc ? unit->low_pc : 0, entries = 0;

	reader_seek(&r, offset);
	for (;; entries++) {
		if (reader_left(&r) == 0)
			return reader_error(&r, "the range list at 0x%" PRIx64 " has no end", offset);
		if (*r.pos == DW_RLE_end_of_list)
			break;
		TRY(read_entry(dw, unit, &r, &base, ret));
	}
	return count_entries(dw, entries);
}

static struct err *read_ranges(struct dw *dw, const struct dw_unit *unit, const struct dw_value *value, struct dw_range_list *ret)
{
	uint64_t offset;

	if (unit->version < 5) {
		if (!dw_constant(value, &offset))
			return err_new(ERR_FORMAT, ".debug_info+0x%" PRIx64 ": ranges of form 0x%x", unit->offset, value->form);
		return read_pairs(dw, unit, offset + unit->ranges_base, ret);
	}
	if (value->form == DW_FORM_rnglistx) {
		if (!table_entry(&dw->sections.rnglists, unit->rnglists_base, value->value, unit->offset_size, &offset))
			return reader_error(&dw->sections.rnglists, "index %" PRIu64 " of a range list is out of range", value->value);
		return read_list(dw, unit, offset + unit->rnglists_base, ret);
	}
	if (!dw_constant(value, &offset))
		return err_new(ERR_FORMAT, ".debug_info+0x%" PRIx64 ": ranges of form 0x%x", unit->offset, value->form);
	return read_list(dw, unit, offset, ret);
}

struct err *dw_die_ranges(struct dw *dw, const struct dw_unit *unit, const struct dw_die *die, struct dw_range_list *ret)
{
	uint64_t low, high;

	if (dw_has(die, DW_SLOT_LOW_PC) && dw_has(die, DW_SLOT_HIGH_PC) &&
		dw_address(dw, unit, &die->values[DW_SLOT_LOW_PC], &low)) {
		const struct dw_value *value = &die->values[DW_SLOT_HIGH_PC];
		if (is_tombstone(unit, low))
			return NULL;
		if (dw_address(dw, unit, value, &high))
			return append(dw, ret, low, high);
		if (dw_constant(value, &high) && high <= UINT64_MAX - low)
			return append(dw, ret, low, low + high);
		return NULL;
	}
	if (!dw_has(die, DW_SLOT_RANGES))
		return NULL;
	return read_ranges(dw, unit, &die->values[DW_SLOT_RANGES], ret);
}

size_t dw_drop_reversed(struct dw_range_list *list)
{
	size_t kept = 0, count = list->count;

	for (size_t i = 0; i < count; i++)
		if (list->items[i].low < list->items[i].high)
			list->items[kept++] = list->items[i];
	list->count = kept;
	return count - kept;
}

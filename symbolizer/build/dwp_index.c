// SPDX-License-Identifier: Apache-2.0
/*
 * .debug_cu_index:
 *
 *     header      version (u32 2; or u16 5 and u16 padding), u32 columns, u32 units, u32 slots
 *     hash table  slots times u64, the IDs of units (dwo_id)
 *     row numbers slots times u32: of the unit in that slot, from 1 on; 0: empty slot
 *     columns     u32 each: which section (DW_SECT_)
 *     offsets     units times columns times u32
 *     sizes       the same
 *
 * The hash table is not searched, and not even read: the units of .debug_info.dwo say their own IDs, and a row is found by the place
 * of its unit. So a wrong hash table does no harm, and offsets past 4 GiB that wrapped are found out.
 */
#include "symbolizer/build/dwp_index.h"

#include "symbolizer/build/dw_const.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
	DWP_COLUMNS_MAX = 16, /* eight kinds are defined */
	SECT_INFO = 1,
	SECT_ABBREV = 3,
	SECT_STR_OFFSETS = 6,
	SECT_RNGLISTS = 8, /* in version 5; version 2 has .debug_macro there */
};

struct layout {
	uint32_t version, columns, units;
	struct reader kinds, offsets, sizes;
};

static struct err *read_layout(struct reader *r, struct layout *ret)
{
	ret->version = reader_u32(r);
	if (r->big_endian && ret->version == 5u << 16) /* two bytes and two of padding, not four */
		ret->version = 5;
	ret->columns = reader_u32(r);
	ret->units = reader_u32(r);
	uint64_t slots = reader_u32(r);
	if (r->failed)
		return reader_error(r, "the index ends in its header");
	if (ret->version != 2 && ret->version != 5)
		return err_new(ERR_UNSUPPORTED, "%s: an index of version %" PRIu32, r->place, ret->version);
	if (ret->columns == 0 || ret->columns > DWP_COLUMNS_MAX)
		return reader_error(r, "an index of %" PRIu32 " columns", ret->columns);
	reader_skip(r, slots * 12);
	ret->kinds = reader_sub(r, (uint64_t)ret->columns * 4);
	ret->offsets = reader_sub(r, (uint64_t)ret->columns * ret->units * 4);
	ret->sizes = reader_sub(r, (uint64_t)ret->columns * ret->units * 4);
	return r->failed ? reader_error(r, "an index of %" PRIu32 " units in %" PRIu64 " slots is cut short", ret->units, slots) : NULL;
}

static uint64_t length_of(const struct reader *r)
{
	return (uint64_t)(r->end - r->start);
}

/* One cell: a part of a section that we want goes into the row, any other is passed over. */
static struct err *take_part(const struct layout *layout, const struct dw_sections *sections, uint32_t kind, uint64_t offset, uint64_t size,
	uint32_t number, struct dwp_row *row)
{
	const struct reader *section;
	uint64_t *to;

	if (kind == SECT_INFO) {
		section = &sections->info;
		to = &row->info;
		row->info_len = size;
	} else if (kind == SECT_ABBREV) {
		section = &sections->abbrev;
		to = &row->abbrev;
	} else if (kind == SECT_STR_OFFSETS) {
		section = &sections->str_offsets;
		to = &row->str_offsets;
	} else if (kind == SECT_RNGLISTS && layout->version == 5) {
		section = &sections->rnglists;
		to = &row->rnglists;
	} else {
		return NULL;
	}
	*to = offset;
	if (offset <= length_of(section) && size <= length_of(section) - offset)
		return NULL;
	return err_new(ERR_FORMAT, "%s: row %" PRIu32 " of the index has 0x%" PRIx64 "+0x%" PRIx64 " of 0x%" PRIx64 " bytes", section->place,
		number, offset, size, length_of(section));
}

static struct err *read_rows(struct layout *layout, const struct dw_sections *sections, struct account *account, struct dwp_index *index)
{
	uint32_t kinds[DWP_COLUMNS_MAX];

	for (uint32_t i = 0; i < layout->columns; i++)
		kinds[i] = reader_u32(&layout->kinds);
	TRY(ARRAY_ROOM(account, index, layout->units));
	for (uint32_t unit = 0; unit < layout->units; unit++) {
		struct dwp_row row = {.info = 0};
		for (uint32_t i = 0; i < layout->columns; i++) {
			uint64_t offset = reader_u32(&layout->offsets), size = reader_u32(&layout->sizes);
			TRY(take_part(layout, sections, kinds[i], offset, size, unit + 1, &row));
		}
		index->items[index->count++] = row;
	}
	return NULL;
}

static int compare_rows(const void *a, const void *b)
{
	const struct dwp_row *x = a, *y = b;

	return x->info < y->info ? -1 : x->info > y->info;
}

struct err *dwp_index_read(struct reader r, const struct dw_sections *sections, struct account *account, struct dwp_index *ret)
{
	struct layout layout;

	TRY(read_layout(&r, &layout));
	TRY(read_rows(&layout, sections, account, ret));
	if (ret->count > 1)
		qsort(ret->items, ret->count, sizeof(*ret->items), compare_rows);
	for (size_t i = 1; i < ret->count; i++)
		if (ret->items[i].info - ret->items[i - 1].info < ret->items[i - 1].info_len)
			return err_new(ERR_FORMAT, "%s: two units at 0x%" PRIx64, r.place, ret->items[i].info);
	return NULL;
}

void dwp_index_deinit(struct dwp_index *index, struct account *account)
{
	ARRAY_DEINIT(account, index);
}

static const struct dwp_row *row_at(const struct dwp_index *index, uint64_t offset)
{
	size_t low = 0, high = index->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (index->items[middle].info <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || offset - index->items[low - 1].info >= index->items[low - 1].info_len)
		return NULL;
	return &index->items[low - 1];
}

struct err *dwp_index_apply(struct dw *dw)
{
	if (!dw->index)
		return NULL;
	for (size_t i = 0; i < dw->units.count; i++) {
		struct dw_unit *unit = &dw->units.items[i];
		const struct dwp_row *row = row_at(dw->index, unit->offset);
		if (unit->damage || unit->type == DW_UT_split_type || unit->type == DW_UT_type)
			continue;
		if (row) {
			unit->info_start = row->info;
			unit->abbrev_offset += row->abbrev;
			unit->str_offsets_start = row->str_offsets;
			unit->rnglists_start = row->rnglists;
			continue;
		}
		unit->damage = err_new(ERR_FORMAT, "%s+0x%" PRIx64 ": the index has no row for this unit", dw->sections.info.place, unit->offset);
		if (err_code(unit->damage) != ERR_FORMAT)
			return TAKE_PTR(unit->damage);
	}
	return NULL;
}

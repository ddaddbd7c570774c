// SPDX-License-Identifier: Apache-2.0
/*
 * Rows become points: at `low` an info begins, at the end of a function nothing is known. Points are sorted; of several at
 * one address the last row read counts, and an end never covers a beginning. A gap of at most UNWIND_PADDING_MAX bytes is
 * padding between functions: its end point is dropped, so that neighbours with equal infos (most functions begin with
 * CFA = rsp + 8) become one delta. A push or pop that is one or two bytes behind a point is merged into it (types.h). What is
 * left is cut into pages of 64 KiB; a page that begins inside a delta gets a copy of it at low 0.
 */
#include "agent/unwind/table.h"

#include "agent/unwind/go_rows.h"
#include "base/digest.h"

#include <stdlib.h>
#include <string.h>

struct point {
	uint64_t vaddr;
	uint16_t info;
	uint16_t last; /* info that holds at its end: another one when a push or pop was merged into it */
	bool is_end;
};

enum { MEMO = 256, DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, DIGITS_MAX = 64 / DIGIT_BITS + 1 };

struct builder {
	struct unwind_infos rows; /* of all rows; what is kept of them is numbered in infos */
	struct unwind_infos *infos;
	bool counts_from_rbx; /* some CFA does */
	struct point *points;
	size_t count, cap;
	uint64_t end; /* of the row before */
	uint16_t info; /* .. and what it says */
	bool has_row;
	struct unwind_info seen[MEMO]; /* rows' infos by a cheap hash, with their numbers: most rows say what others said */
	uint16_t seen_number[MEMO];
};

struct err *unwind_infos_init(struct unwind_infos *ret)
{
	*ret = (struct unwind_infos){.count = UNWIND_COMMANDS};
	ret->items = calloc(UNWIND_INFOS_MAX, sizeof(*ret->items));
	if (!ret->items)
		return err_nomem();
	ret->items[UNWIND_PENDING] = (struct unwind_info){.cfa = UNWIND_CFA_PENDING};
	ret->items[UNWIND_STOP] = (struct unwind_info){.cfa = UNWIND_CFA_STOP};
	ret->items[UNWIND_FRAME_POINTER] = (struct unwind_info){.cfa = UNWIND_CFA_REG, .cfa_reg = UNWIND_REG_RBP, .cfa_off = 16,
		.fp = UNWIND_RULE_CFA, .fp_off = -16, .ra = UNWIND_RULE_CFA, .ra_off = -8};
	return NULL;
}

void unwind_infos_deinit(struct unwind_infos *infos)
{
	free(infos->items);
	hmap_deinit(&infos->index);
}

struct err *unwind_infos_number(struct unwind_infos *infos, const struct unwind_info *info, uint16_t *ret)
{
	if (info->cfa == UNWIND_CFA_NONE || info->cfa == UNWIND_CFA_STOP) {
		*ret = info->cfa == UNWIND_CFA_STOP ? UNWIND_STOP : UNWIND_NONE;
		return NULL;
	}
	uint64_t key = digest_xxh3_64(info, sizeof(*info)), number = 0;
	for (; hmap_get(&infos->index, key, &number); key++) {
		if (memcmp(&infos->items[number], info, sizeof(*info)) == 0) {
			*ret = (uint16_t)number;
			return NULL;
		}
	}
	if (infos->count == UNWIND_INFOS_MAX) {
		infos->dropped++;
		*ret = UNWIND_NONE;
		return NULL;
	}
	TRY(hmap_set(&infos->index, key, infos->count));
	infos->items[infos->count] = *info;
	*ret = (uint16_t)infos->count++;
	return NULL;
}

static struct err *add_point(struct builder *b, uint64_t vaddr, uint16_t info, bool is_end)
{
	if (b->count == b->cap) {
		if (b->cap >= 2U * UNWIND_TABLE_ROWS_MAX)
			return err_new(ERR_LIMIT, "more than %d rows of call frame information", UNWIND_TABLE_ROWS_MAX);
		size_t cap = b->cap ? 2 * b->cap : 1024;
		struct point *points = realloc(b->points, cap * sizeof(*points));
		if (!points)
			return err_nomem();
		b->points = points;
		b->cap = cap;
	}
	b->points[b->count] = (struct point){.vaddr = vaddr, .info = info, .last = info, .is_end = is_end};
	b->count++;
	return NULL;
}

static struct err *end_function(struct builder *b)
{
	return b->has_row ? add_point(b, b->end, UNWIND_NONE, true) : NULL;
}

/** unwind_infos_number, by way of a memo. */
static struct err *number_of(struct builder *b, const struct unwind_info *info, uint16_t *ret)
{
	uint32_t hash = (uint32_t)info->cfa_off * 3 ^ (uint32_t)info->fp_off * 5 ^ (uint32_t)info->bx_off * 7 ^ info->cfa_reg ^ (uint32_t)info->fp << 3;
	uint32_t at = (hash ^ hash >> 8) % MEMO;

	if (b->seen_number[at] == 0 || memcmp(&b->seen[at], info, sizeof(*info)) != 0) {
		TRY(unwind_infos_number(&b->rows, info, &b->seen_number[at]));
		b->seen[at] = *info;
	}
	*ret = b->seen_number[at];
	return NULL;
}

static struct err *take_row(void *context, const struct frames_row *row)
{
	struct builder *b = context;
	uint16_t info = 0;

	if (row->low == 0) /* functions that --gc-sections dropped */
		return NULL;
	if (b->has_row && row->low != b->end)
		TRY(end_function(b));
	TRY(number_of(b, &row->info, &info));
	b->counts_from_rbx |= row->info.cfa_reg == UNWIND_REG_RBX;
	/* Where only registers that nobody follows are saved, a row says what the one before said. */
	if (!b->has_row || row->low != b->end || info != b->info)
		TRY(add_point(b, row->low, info, false));
	b->end = row->high;
	b->info = info;
	b->has_row = true;
	return NULL;
}

static bool is_before(const struct point *x, const struct point *y)
{
	if (x->vaddr != y->vaddr)
		return x->vaddr < y->vaddr;
	return x->is_end && !y->is_end;
}

static bool is_sorted(const struct point *points, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (is_before(&points[i], &points[i - 1]))
			return false;
	return true;
}

/* What points are sorted by, DIGIT_BITS at a time: digit 0 is ends before beginnings, the others are of the address. */
static size_t digit_of(const struct point *p, uint64_t lowest, unsigned digit)
{
	return digit == 0 ? !p->is_end : (p->vaddr - lowest) >> (DIGIT_BITS * (digit - 1)) & (DIGITS - 1);
}

static void sort_by(const struct point *from, struct point *to, size_t count, uint64_t lowest, unsigned digit)
{
	uint32_t places[DIGITS] = {0}, place = 0;

	for (size_t i = 0; i < count; i++)
		places[digit_of(&from[i], lowest, digit)]++;
	for (size_t i = 0; i < DIGITS; i++) {
		uint32_t next = place + places[i];
		places[i] = place;
		place = next;
	}
	for (size_t i = 0; i < count; i++)
		to[places[digit_of(&from[i], lowest, digit)]++] = from[i];
}

/** By address, ends before beginnings, else in the order of rows: a radix sort, since there are millions, within a narrow span. */
static struct err *sort(struct builder *b)
{
	uint64_t lowest = UINT64_MAX, highest = 0;

	if (is_sorted(b->points, b->count))
		return NULL;
	CLEANUP(freep) struct point *other = malloc(b->count * sizeof(*other));
	if (!other)
		return err_nomem();
	for (size_t i = 0; i < b->count; i++) {
		lowest = b->points[i].vaddr < lowest ? b->points[i].vaddr : lowest;
		highest = b->points[i].vaddr > highest ? b->points[i].vaddr : highest;
	}
	for (unsigned digit = 0; digit == 0 || (digit <= DIGITS_MAX && (highest - lowest) >> (DIGIT_BITS * (digit - 1)) > 0); digit++) {
		sort_by(b->points, other, b->count, lowest, digit);
		struct point *sorted = other;
		other = b->points;
		b->points = sorted;
	}
	return NULL;
}

/** Sorts, and keeps one point an address and one a change of info. */
static struct err *reduce(struct builder *b)
{
	size_t kept = 0;

	if (b->count == 0)
		return NULL;
	TRY(sort(b));
	for (size_t i = 0; i < b->count; i++) {
		struct point p = b->points[i];
		if (i + 1 < b->count && b->points[i + 1].vaddr == p.vaddr)
			continue;
		if (p.is_end && i + 1 < b->count && b->points[i + 1].vaddr - p.vaddr <= UNWIND_PADDING_MAX)
			continue;
		if (kept > 0 && b->points[kept - 1].info == p.info)
			continue;
		if (kept == 0 && p.info == UNWIND_NONE)
			continue;
		b->points[kept++] = p;
	}
	b->count = kept;
	return NULL;
}

/*
 * From the rows' infos to those that all executables share. Where rbx is matters to the resolver of ld.so, whose CFA counts from
 * it, and to what that calls in the same file; elsewhere it would only make infos differ.
 */
static struct err *share_infos(struct builder *b)
{
	CLEANUP(freep) uint16_t *numbers = calloc(UNWIND_INFOS_MAX, sizeof(*numbers)); /* + 1 */

	if (!numbers)
		return err_nomem();
	for (size_t i = 0; i < b->count; i++) {
		struct point *p = &b->points[i];
		if (numbers[p->info] == 0) {
			struct unwind_info info = b->rows.items[p->info];
			uint16_t number = p->info;
			if (!b->counts_from_rbx) {
				info.bx = UNWIND_RULE_UNDEFINED;
				info.bx_reg = 0;
				info.bx_off = 0;
			}
			if (p->info >= UNWIND_COMMANDS)
				TRY(unwind_infos_number(b->infos, &info, &number));
			numbers[p->info] = (uint16_t)(number + 1);
		}
		p->info = p->last = (uint16_t)(numbers[p->info] - 1);
	}
	return NULL;
}

/** What @p a becomes when @p b is merged into it. False: it cannot be said so. */
static bool merged_info(const struct unwind_info *a, const struct unwind_info *b, uint64_t distance, struct unwind_info *ret)
{
	int32_t change = b->cfa_off - a->cfa_off;

	*ret = *b;
	ret->cfa_off = a->cfa_off;
	if (distance > UNWIND_MERGE_MAX || a->cfa != UNWIND_CFA_REG || a->merge || (change != 8 && change != -8) || memcmp(ret, a, sizeof(*a)) != 0)
		return false;
	ret->merge = (uint8_t)(distance | (change < 0 ? UNWIND_MERGE_POP : 0));
	return true;
}

static struct err *merge(struct builder *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->count; i++) {
		struct point p = b->points[i];
		const struct point *next = i + 1 < b->count ? &b->points[i + 1] : NULL;
		struct unwind_info info;
		if (next && p.vaddr >> UNWIND_PAGE_BITS == next->vaddr >> UNWIND_PAGE_BITS &&
			merged_info(&b->infos->items[p.info], &b->infos->items[next->info], next->vaddr - p.vaddr, &info)) {
			uint16_t number = UNWIND_NONE;
			TRY(unwind_infos_number(b->infos, &info, &number));
			if (number != UNWIND_NONE) {
				p.info = number;
				p.last = next->info;
				i++;
			}
		}
		b->points[kept++] = p;
	}
	b->count = kept;
	return NULL;
}

/** One page: the deltas of points [i, end) that lie in it. Returns the first point of the next page. */
static size_t fill_page(const struct builder *b, size_t i, uint64_t page, struct unwind_table *table)
{
	struct unwind_page *at = &table->pages[page - table->page_base];

	at->first = table->delta_count;
	bool starts_inside = i == b->count || b->points[i].vaddr != page << UNWIND_PAGE_BITS;
	uint16_t before = i > 0 ? b->points[i - 1].last : UNWIND_NONE;
	if (starts_inside)
		table->deltas[table->delta_count++] = (struct unwind_delta){.low = 0, .info = before};
	for (; i < b->count && b->points[i].vaddr >> UNWIND_PAGE_BITS == page; i++)
		table->deltas[table->delta_count++] = (struct unwind_delta){
			.low = (uint16_t)(b->points[i].vaddr & UNWIND_PAGE_MASK), .info = b->points[i].info};
	at->count = table->delta_count - at->first;
	return i;
}

static struct err *fill(const struct builder *b, struct unwind_table *table)
{
	if (b->count == 0)
		return NULL;
	table->page_base = b->points[0].vaddr >> UNWIND_PAGE_BITS;
	uint64_t pages = (b->points[b->count - 1].vaddr >> UNWIND_PAGE_BITS) - table->page_base + 1;
	if (pages > UNWIND_TABLE_PAGES_MAX)
		return err_new(ERR_LIMIT, "call frame information spans %llu pages, more than %d", (unsigned long long)pages,
			UNWIND_TABLE_PAGES_MAX);
	table->pages = calloc(pages, sizeof(*table->pages));
	table->deltas = malloc((b->count + pages) * sizeof(*table->deltas));
	if (!table->pages || !table->deltas)
		return err_nomem();
	table->page_count = (uint32_t)pages;
	size_t i = 0;
	for (uint64_t page = 0; page < pages; page++)
		i = fill_page(b, i, table->page_base + page, table);
	return NULL;
}

static struct err *parse_section(const struct unwind_section *section, bool is_debug_frame, struct builder *b, struct frames_counts *counts)
{
	struct frames_section frames = {.bytes = section->bytes, .len = section->len, .vaddr = section->vaddr,
		.is_debug_frame = is_debug_frame, .name = is_debug_frame ? ".debug_frame" : ".eh_frame"};
	struct frames_counts now;

	if (!section->bytes)
		return NULL;
	struct err *e = frames_parse(&frames, take_row, b, &now);
	counts->cies += now.cies;
	counts->fdes += now.fdes;
	counts->rows += now.rows;
	counts->rows_unsupported += now.rows_unsupported;
	counts->fdes_bad += now.fdes_bad;
	TRY(e);
	TRY(end_function(b));
	b->has_row = false;
	return NULL;
}

/** Linkers other than ld write no call frame information for the PLT. Rows come first: those of a section that has some win. */
static struct err *add_plts(const struct unwind_elf *elf, struct builder *b)
{
	for (size_t i = 0; i < elf->plt_count; i++) {
		const struct unwind_plt *plt = &elf->plts[i];
		struct frames_row row = {.low = plt->low, .high = plt->high,
			.info = {.cfa = plt->is_lazy ? UNWIND_CFA_PLT : UNWIND_CFA_REG, .cfa_reg = UNWIND_REG_RSP, .cfa_off = 8,
				.cfa_add = plt->is_lazy ? UNWIND_PLT_PUSHED : 0, .ra = UNWIND_RULE_CFA, .ra_off = -8}};
		TRY(take_row(b, &row));
		TRY(end_function(b));
		b->has_row = false;
	}
	return NULL;
}

static struct err *add_range(struct builder *b, uint64_t low, uint64_t high, int32_t cfa_off)
{
	struct frames_row row = {.low = low, .high = high, .info = {.cfa = UNWIND_CFA_REG, .cfa_reg = UNWIND_REG_RSP, .cfa_off = cfa_off,
		.ra = UNWIND_RULE_CFA, .ra_off = -8}};

	return take_row(b, &row);
}

/** .init and .fini; and the entry point, which nobody called (ld.so has no call frame information there). */
static struct err *add_start(const struct unwind_elf *elf, struct builder *b)
{
	for (size_t i = 0; i < elf->init_count; i++) {
		const struct unwind_plt *init = &elf->inits[i];
		TRY(add_range(b, init->low - 4, init->low, 8));
		TRY(add_range(b, init->low, init->high, 16));
		TRY(add_range(b, init->high, init->high + 1, 8));
		TRY(end_function(b));
		b->has_row = false;
	}
	return elf->entry ? add_point(b, elf->entry, UNWIND_STOP, false) : NULL;
}

static struct err *add_go(const struct unwind_elf *elf, struct builder *b, struct frames_counts *counts)
{
	struct pclntab tab;

	if (!elf->gopclntab.bytes)
		return NULL;
	TRY(pclntab_open(elf->gopclntab.bytes, elf->gopclntab.len, false, elf->gopclntab.vaddr, ".gopclntab", &tab));
	if (elf->go_text)
		tab.text = elf->go_text;
	TRY(go_rows(&tab, take_row, b, counts));
	TRY(end_function(b));
	b->has_row = false;
	return NULL;
}

static struct err *build(const struct unwind_elf *elf, const struct unwind_elf *debug, struct builder *b, struct unwind_table *table)
{
	struct frames_counts *counts = &table->counts;

	TRY(add_start(elf, b));
	TRY(add_plts(elf, b));
	TRY(parse_section(&elf->debug_frame, true, b, counts)); /* of some objects only, in a static program of musl's */
	TRY(parse_section(&elf->eh_frame, false, b, counts));
	TRY(add_go(elf, b, counts));
	if (debug && counts->fdes < UNWIND_DEBUG_FRAME_FDES)
		TRY(parse_section(&debug->debug_frame, true, b, counts));
	if (counts->fdes == 0) /* a PLT alone is not worth a table */
		return NULL;
	TRY(share_infos(b));
	TRY(reduce(b));
	TRY(merge(b));
	return fill(b, table);
}

struct err *unwind_table_build(const struct unwind_elf *elf, const struct unwind_elf *debug, struct unwind_infos *infos, struct unwind_table *ret)
{
	struct unwind_table table = {0};
	struct builder b = {.infos = infos};
	struct err *e = unwind_infos_init(&b.rows);

	if (!e)
		e = build(elf, debug, &b, &table);
	free(b.points);
	unwind_infos_deinit(&b.rows);
	if (e) {
		unwind_table_deinit(&table);
		return err_wrap(e, "%s", elf->name);
	}
	*ret = table;
	return NULL;
}

void unwind_table_deinit(struct unwind_table *table)
{
	free(table->deltas);
	free(table->pages);
	table->deltas = NULL;
	table->pages = NULL;
}

void unwind_table_lookup(const struct unwind_table *table, const struct unwind_infos *infos, uint64_t vaddr, struct unwind_info *ret)
{
	uint64_t page = vaddr >> UNWIND_PAGE_BITS;

	*ret = infos->items[UNWIND_NONE];
	if (page < table->page_base || page - table->page_base >= table->page_count)
		return;
	const struct unwind_page *at = &table->pages[page - table->page_base];
	uint32_t low = 0, high = at->count;
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;
		if (table->deltas[at->first + middle].low <= (vaddr & UNWIND_PAGE_MASK))
			low = middle;
		else
			high = middle;
	}
	if (at->count == 0)
		return;
	const struct unwind_delta *delta = &table->deltas[at->first + low];
	*ret = infos->items[delta->info];
	if (ret->merge && (vaddr & UNWIND_PAGE_MASK) - delta->low >= (ret->merge & UNWIND_MERGE_AT))
		ret->cfa_off += ret->merge & UNWIND_MERGE_POP ? -8 : 8;
	ret->merge = 0;
}

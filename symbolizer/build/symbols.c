// SPDX-License-Identifier: Apache-2.0
/*
 * Function symbols out of .symtab or .dynsym (gABI "Symbol Table").
 *
 * Three passes over what the table holds:
 *
 *     collect   every entry that names code becomes a struct symbol; high = vaddr + st_size, or the end of the section
 *               while sizeless
 *     order     sort, drop equal names of one address, drop labels inside sized functions, end sizeless symbols
 *               at the next address that has a symbol
 *     flatten   one sweep over the groups with a stack of the extents that are open gives disjoint ranges: the innermost
 *               (last begun) extent has the address, and where it ends the one around it goes on. At most two ranges a group.
 *
 * Costs stay bounded on hostile tables: names are cut at SYMBOL_NAME_MAX, and comparing two names looks at no more than
 * COMPARED bytes (then their place decides, so that the order is still total and the same on every run).
 *
 * A sizeless symbol's end is a guess by necessity: assembler files often have neither .size nor .type. llvm-symbolizer
 * and gdb guess the same way. But .dynsym does not have the functions that are not exported, which may lie behind it: there the
 * guess ends after SYMBOL_GUESS_MAX.
 */
#include "symbolizer/build/symbols.h"

#include <elf.h>
#include <inttypes.h>

enum { COMPARED = 256 };

/* One table with its companions, opened. */
struct symbol_table {
	struct elffile *file;
	struct reader entries;
	struct reader names;
	struct reader wide_indices; /* SHT_SYMTAB_SHNDX; empty when there is none */
	uint64_t count;
	uint64_t guess_max; /* bytes of a sizeless symbol */
};

/* A symbol table entry as it is stored. */
struct raw_symbol {
	uint32_t name;
	uint8_t info;
	uint32_t section;
	uint64_t value, size;
};

static const struct elffile_section *find_by_type(const struct elffile *file, uint32_t type)
{
	for (size_t i = 1; i < elffile_section_count(file); i++) {
		const struct elffile_section *section = elffile_section(file, i);

		if (section->type == type && section->stored_size > 0)
			return section;
	}
	return NULL;
}

static struct err *load_wide_indices(struct symbol_table *table, const struct elffile_section *entries)
{
	for (size_t i = 1; i < elffile_section_count(table->file); i++) {
		const struct elffile_section *section = elffile_section(table->file, i);

		if (section->type == SHT_SYMTAB_SHNDX && section->link == entries->index)
			return elffile_load(table->file, section, &table->wide_indices);
	}
	return NULL;
}

/* count stays 0 when the file has no such table. */
static struct err *open_table(struct symbol_table *table, bool dynamic)
{
	const struct elffile_section *section = find_by_type(table->file, dynamic ? SHT_DYNSYM : SHT_SYMTAB);
	const uint64_t entry_size = elffile_is_64(table->file) ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);

	if (!section)
		return NULL;
	const struct elffile_section *names = elffile_section(table->file, section->link);
	if (!names || names->type != SHT_STRTAB)
		return err_new(ERR_FORMAT, "%s: section %" PRIu32 " (%.200s): its names are in section %" PRIu32
			", which is no string table", elffile_name(table->file), section->index, section->name, section->link);
	TRY(elffile_load(table->file, section, &table->entries));
	TRY(elffile_load(table->file, names, &table->names));
	TRY(load_wide_indices(table, section));
	table->count = reader_left(&table->entries) / entry_size;
	if (table->count > SYMBOLS_MAX)
		return err_new(ERR_LIMIT, "%s: %" PRIu64 " symbols, more than %d", table->entries.place, table->count, SYMBOLS_MAX);
	return NULL;
}

static struct raw_symbol read_entry(struct symbol_table *table)
{
	struct reader *r = &table->entries;
	struct raw_symbol raw = {.name = reader_u32(r)};

	if (elffile_is_64(table->file)) {
		raw.info = reader_u8(r);
		reader_skip(r, 1);
		raw.section = reader_u16(r);
		raw.value = reader_u64(r);
		raw.size = reader_u64(r);
	} else {
		raw.value = reader_u32(r);
		raw.size = reader_u32(r);
		raw.info = reader_u8(r);
		reader_skip(r, 1);
		raw.section = reader_u16(r);
	}
	uint32_t wide = reader_u32(&table->wide_indices);
	if (raw.section == SHN_XINDEX)
		raw.section = wide;
	else if (raw.section >= SHN_LORESERVE)
		raw.section = SHN_UNDEF; /* SHN_ABS, SHN_COMMON: not code */
	return raw;
}

/* ARM and AArch64 mark code and data by $a $d $t $x, optionally followed by a dot and anything (ELF for the Arm Architecture). */
static bool is_mapping_name(const char *name)
{
	return name[0] == '$' && name[1] != '\0' && strchr("adtx", name[1]) && (name[2] == '\0' || name[2] == '.');
}

static uint8_t binding_of(uint8_t info)
{
	switch (ELF64_ST_BIND(info)) {
	case STB_LOCAL:
		return SYMBOL_LOCAL;
	case STB_WEAK:
		return SYMBOL_WEAK;
	default:
		return SYMBOL_GLOBAL;
	}
}

/* The name without its version; NULL for none, one too long, or one out of range. */
static const char *symbol_name(const struct symbol_table *table, uint32_t offset, uint32_t *len_ret)
{
	struct reader r = table->names;

	reader_skip(&r, offset);
	if (r.failed)
		return NULL;
	size_t left = reader_left(&r);
	size_t len = strnlen((const char *)r.pos, left < SYMBOL_NAME_MAX + 1 ? left : SYMBOL_NAME_MAX + 1);
	if (len == 0 || len == left || len > SYMBOL_NAME_MAX)
		return NULL;
	const char *name = (const char *)r.pos;
	const char *version = memchr(name + 1, '@', len - 1);
	*len_ret = (uint32_t)(version ? (size_t)(version - name) : len);
	return name;
}

/* True and the symbol when the entry names code. */
static bool accept(const struct symbol_table *table, const struct raw_symbol *raw, struct symbol *ret)
{
	const uint64_t code_flags = SHF_ALLOC | SHF_EXECINSTR;
	const unsigned type = ELF64_ST_TYPE(raw->info);
	const struct elffile_section *section =
		raw->section == SHN_UNDEF ? NULL : elffile_section(table->file, raw->section);

	if (!section || (section->flags & code_flags) != code_flags ||
		(type != STT_FUNC && type != STT_GNU_IFUNC && type != STT_NOTYPE))
		return false;
	/* Values of a relocatable file count from their section's start. */
	uint64_t vaddr = raw->value + (elffile_type(table->file) == ET_REL ? section->vaddr : 0);
	if (elffile_machine(table->file) == EM_ARM && type == STT_FUNC)
		vaddr &= ~(uint64_t)1; /* the Thumb bit */
	const uint64_t end = section->vaddr + section->size;
	if (vaddr < section->vaddr || vaddr >= end)
		return false;
	uint32_t name_len = 0;
	const char *name = symbol_name(table, raw->name, &name_len);
	if (!name || is_mapping_name(name) || (type == STT_NOTYPE && name[0] == '.'))
		return false;
	const uint64_t size = raw->size > 0 ? raw->size : table->guess_max;
	*ret = (struct symbol){
		.vaddr = vaddr,
		.high = size < end - vaddr ? vaddr + size : end,
		.name = name,
		.name_len = name_len,
		.binding = binding_of(raw->info),
		.sized = raw->size > 0,
		.ifunc = type == STT_GNU_IFUNC,
	};
	return true;
}

static struct err *collect(struct symbol_table *table, struct symbols *symbols)
{
	symbols->items = calloc(table->count ? table->count : 1, sizeof(*symbols->items));
	if (!symbols->items)
		return err_nomem();
	for (uint64_t i = 0; i < table->count; i++) {
		struct raw_symbol raw = read_entry(table);

		if (accept(table, &raw, &symbols->items[symbols->count]))
			symbols->count++;
	}
	return NULL;
}

static size_t leading_underscores(const struct symbol *symbol)
{
	size_t n = 0;

	while (n < symbol->name_len && symbol->name[n] == '_' && n < COMPARED)
		n++;
	return n;
}

static int compare_names(const struct symbol *a, const struct symbol *b)
{
	size_t a_underscores = leading_underscores(a), b_underscores = leading_underscores(b);

	if (a_underscores != b_underscores)
		return a_underscores < b_underscores ? -1 : 1;
	if (a->name_len != b->name_len)
		return a->name_len < b->name_len ? -1 : 1;
	int order = memcmp(a->name, b->name, a->name_len < COMPARED ? a->name_len : COMPARED);
	if (order != 0)
		return order;
	return (a->name > b->name) - (a->name < b->name);
}

/* The order that struct symbols promises. */
static int compare_symbols(const void *left, const void *right)
{
	const struct symbol *a = left, *b = right;

	if (a->vaddr != b->vaddr)
		return a->vaddr < b->vaddr ? -1 : 1;
	if (a->sized != b->sized)
		return a->sized ? -1 : 1;
	if (a->binding != b->binding)
		return a->binding < b->binding ? -1 : 1;
	if (a->ifunc != b->ifunc)
		return a->ifunc ? 1 : -1;
	return compare_names(a, b);
}

static bool same_name(const struct symbol *a, const struct symbol *b)
{
	return a->name_len == b->name_len && (a->name == b->name || memcmp(a->name, b->name, a->name_len) == 0);
}

/*
 * True when the group that grows at items[from, to) has the name already. Only its last few are looked at: a group of a
 * million aliases may keep a repeated one.
 */
static bool is_repeated(const struct symbols *symbols, size_t to, const struct symbol *symbol)
{
	for (size_t n = 0; n < 64 && to > n; n++) {
		const struct symbol *earlier = &symbols->items[to - 1 - n];

		if (earlier->vaddr != symbol->vaddr)
			return false;
		if (same_name(earlier, symbol))
			return true;
	}
	return false;
}

/* Drops repeated names and labels inside sized functions. */
static void drop_noise(struct symbols *symbols)
{
	uint64_t covered = 0; /* end of the sized extents so far */
	size_t kept = 0;

	for (size_t i = 0; i < symbols->count; i++) {
		struct symbol symbol = symbols->items[i];

		const struct symbol *last = kept > 0 ? &symbols->items[kept - 1] : NULL;
		const bool is_alias = last && last->vaddr == symbol.vaddr;

		if (!symbol.sized && !is_alias && symbol.vaddr < covered)
			continue;
		if (is_repeated(symbols, kept, &symbol))
			continue;
		if (symbol.sized && symbol.high > covered)
			covered = symbol.high;
		symbols->items[kept++] = symbol;
	}
	symbols->count = kept;
}

size_t symbols_group(const struct symbols *symbols, size_t first)
{
	size_t end = first;

	while (end < symbols->count && symbols->items[end].vaddr == symbols->items[first].vaddr)
		end++;
	return end - first;
}

/* A sizeless symbol beside a sized one of its address ends with it, else where the next group begins. */
static void end_sizeless(struct symbols *symbols)
{
	for (size_t first = 0, size; first < symbols->count; first += size) {
		size = symbols_group(symbols, first);
		struct symbol *group = &symbols->items[first];
		bool is_last = first + size == symbols->count;

		for (size_t i = 0; i < size; i++) {
			if (group[i].sized)
				continue;
			if (group[0].sized)
				group[i].high = group[0].high;
			else if (!is_last && group[size].vaddr < group[i].high)
				group[i].high = group[size].vaddr;
		}
	}
}

/* The sweep of flatten: ranges so far, and the extents that are open, outermost first. */
struct sweep {
	struct symbol_range *ranges;
	size_t count;
	struct symbol_range *open;
	size_t depth;
	uint64_t done; /* ranges reach up to here */
};

static void sweep_emit(struct sweep *sweep, uint64_t high, uint32_t symbol)
{
	if (high <= sweep->done)
		return;
	sweep->ranges[sweep->count++] = (struct symbol_range){.low = sweep->done, .high = high, .symbol = symbol};
	sweep->done = high;
}

/* Gives [done, vaddr) to the open extents, innermost first, and closes those that end by there. */
static void sweep_to(struct sweep *sweep, uint64_t vaddr)
{
	while (sweep->depth > 0) {
		const struct symbol_range *top = &sweep->open[sweep->depth - 1];

		if (top->high > vaddr) {
			sweep_emit(sweep, vaddr, top->symbol);
			break;
		}
		sweep_emit(sweep, top->high, top->symbol);
		sweep->depth--;
	}
	sweep->done = vaddr;
}

static struct err *flatten(struct symbols *symbols)
{
	struct symbol_range *open CLEANUP(freep) = calloc(symbols->count ? symbols->count : 1, sizeof(*open));
	struct sweep sweep = {.open = open};

	/* Each group emits at most one range when the sweep comes to it and one when it closes. */
	symbols->ranges = calloc(2 * symbols->count + 1, sizeof(*symbols->ranges));
	sweep.ranges = symbols->ranges;
	if (!open || !symbols->ranges)
		return err_nomem();
	for (size_t first = 0, size; first < symbols->count; first += size) {
		const struct symbol *group = &symbols->items[first];
		uint64_t high = group->high;

		size = symbols_group(symbols, first);
		for (size_t i = 1; i < size; i++)
			if (group[i].sized && group[i].high > high)
				high = group[i].high;
		sweep_to(&sweep, group->vaddr);
		open[sweep.depth++] = (struct symbol_range){.low = group->vaddr, .high = high, .symbol = (uint32_t)first};
	}
	sweep_to(&sweep, UINT64_MAX);
	symbols->range_count = sweep.count;
	return NULL;
}

static struct err *read_symbols(struct elffile *file, bool dynamic, struct symbols *symbols)
{
	struct symbol_table table = {.file = file, .guess_max = dynamic ? SYMBOL_GUESS_MAX : UINT64_MAX};

	TRY(open_table(&table, dynamic));
	TRY(collect(&table, symbols));
	qsort(symbols->items, symbols->count, sizeof(*symbols->items), compare_symbols);
	drop_noise(symbols);
	end_sizeless(symbols);
	return flatten(symbols);
}

struct err *symbols_read(struct elffile *file, bool dynamic, struct symbols *ret)
{
	struct symbols symbols CLEANUP(symbols_deinit) = {0};

	TRY(read_symbols(file, dynamic, &symbols));
	*ret = symbols;
	symbols = (struct symbols){0};
	return NULL;
}

void symbols_deinit(struct symbols *symbols)
{
	free(symbols->items);
	free(symbols->ranges);
	*symbols = (struct symbols){0};
}

const struct symbol_range *symbols_find(const struct symbols *symbols, uint64_t vaddr)
{
	size_t low = 0, high = symbols->range_count;

	/* The first range that ends behind vaddr. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (symbols->ranges[middle].high <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < symbols->range_count && symbols->ranges[low].low <= vaddr ? &symbols->ranges[low] : NULL;
}

size_t symbols_behind(const struct symbols *symbols, uint64_t vaddr)
{
	size_t low = 0, high = symbols->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (symbols->items[middle].vaddr <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

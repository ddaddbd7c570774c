// SPDX-License-Identifier: Apache-2.0
#include "fileid/pclntab.h"

#include <inttypes.h>

struct reader pclntab_at(const struct pclntab *tab, uint64_t offset)
{
	struct reader r = tab->table;

	reader_seek(&r, offset);
	return r;
}

bool pclntab_search(const void *bytes, size_t len, bool big_endian, size_t *offset)
{
	for (size_t at = (*offset + 3) & ~(size_t)3; at + 8 <= len; at += 4) {
		struct reader r = reader_init((const uint8_t *)bytes + at, 8, big_endian, "");
		uint32_t magic = reader_u32(&r);
		if (magic != PCLNTAB_MAGIC_16 && magic != PCLNTAB_MAGIC_18 && magic != PCLNTAB_MAGIC_20)
			continue;
		uint16_t zero = reader_u16(&r);
		uint8_t quantum = reader_u8(&r), ptr_size = reader_u8(&r);
		if (zero || quantum == 0 || quantum > 4 || (ptr_size != 4 && ptr_size != 8) || at % ptr_size)
			continue;
		*offset = at;
		return true;
	}
	return false;
}

struct err *pclntab_open(const void *bytes, size_t len, bool big_endian, uint64_t vaddr, const char *place, struct pclntab *ret)
{
	struct pclntab tab = {.table = reader_init(bytes, len, big_endian, place), .vaddr = vaddr};
	struct reader r = tab.table;

	tab.magic = reader_u32(&r);
	uint16_t zero = reader_u16(&r);
	tab.quantum = reader_u8(&r);
	tab.ptr_size = reader_u8(&r);
	if (!r.failed && tab.magic != PCLNTAB_MAGIC_16 && tab.magic != PCLNTAB_MAGIC_18 && tab.magic != PCLNTAB_MAGIC_20)
		return err_new(ERR_UNSUPPORTED, "%s: version 0x%08" PRIx32 " is not known (Go 1.16 to 1.26 are)", place, tab.magic);
	if (r.failed || zero || (tab.ptr_size != 4 && tab.ptr_size != 8) || tab.quantum == 0 || tab.quantum > 4)
		return reader_error(&tab.table, "not a header of Go's function table");
	tab.count = reader_uint(&r, tab.ptr_size);
	(void)reader_uint(&r, tab.ptr_size); /* files */
	if (tab.magic != PCLNTAB_MAGIC_16)
		tab.text = reader_uint(&r, tab.ptr_size);
	uint64_t *const offsets[] = {&tab.names, &tab.cutab, &tab.filetab, &tab.pctab, &tab.functab};
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		*offsets[i] = reader_uint(&r, tab.ptr_size);
		if (r.failed || *offsets[i] > len)
			return reader_error(&tab.table, "a table at 0x%" PRIx64 " of 0x%zx bytes", *offsets[i], len);
	}
	unsigned entry = tab.magic == PCLNTAB_MAGIC_16 ? 2 * tab.ptr_size : 8;
	if (tab.count >= (len - tab.functab) / entry)
		return reader_error(&tab.table, "%" PRIu64 " functions in 0x%" PRIx64 " bytes", tab.count, len - tab.functab);
	*ret = tab;
	return NULL;
}

struct pclntab_function pclntab_function(const struct pclntab *tab, uint64_t index)
{
	bool wide = tab->magic == PCLNTAB_MAGIC_16;
	unsigned size = wide ? tab->ptr_size : 4;
	uint64_t base = wide ? 0 : tab->text;
	struct reader r = pclntab_at(tab, tab->functab + index * 2 * size);
	uint64_t low = base + reader_uint(&r, size), offset = reader_uint(&r, size);

	return (struct pclntab_function){.low = low, .high = base + reader_uint(&r, size), .offset = offset};
}

bool pclntab_func(const struct pclntab *tab, const struct pclntab_function *function, struct pclntab_func *ret)
{
	struct reader r = pclntab_at(tab, tab->functab);
	struct pclntab_func f = {0};

	reader_skip(&r, function->offset);
	reader_skip(&r, tab->magic == PCLNTAB_MAGIC_16 ? tab->ptr_size : 4);
	f.name = reader_u32(&r);
	reader_skip(&r, 8); /* args, deferreturn */
	f.pcsp = reader_u32(&r);
	f.pcfile = reader_u32(&r);
	f.pcln = reader_u32(&r);
	f.npcdata = reader_u32(&r);
	f.cu = reader_u32(&r);
	if (tab->magic == PCLNTAB_MAGIC_20)
		f.start_line = reader_u32(&r);
	f.func_id = reader_u8(&r);
	f.flag = reader_u8(&r);
	reader_skip(&r, 1);
	f.nfuncdata = reader_u8(&r);
	f.pcdata_at = reader_offset(&r);
	if (r.failed)
		return false;
	*ret = f;
	return true;
}

const char *pclntab_name(const struct pclntab *tab, uint64_t table, uint64_t offset, size_t limit)
{
	struct reader r = pclntab_at(tab, table);

	reader_skip(&r, offset);
	if (reader_left(&r) > limit)
		r.end = r.pos + limit + 1;
	return reader_text(&r, NULL);
}

struct pclntab_steps pclntab_steps(const struct pclntab *tab, uint32_t offset)
{
	struct pclntab_steps steps = {.r = pclntab_at(tab, tab->pctab), .value = UINT32_MAX, .first = true};

	if (offset == 0)
		steps.r.end = steps.r.pos;
	else
		reader_skip(&steps.r, offset);
	return steps;
}

bool pclntab_next(const struct pclntab *tab, struct pclntab_steps *steps)
{
	if (steps->first && reader_left(&steps->r) == 0)
		return false;
	uint32_t delta = (uint32_t)reader_uleb(&steps->r);

	if (delta == 0 && !steps->first)
		return false;
	steps->first = false;
	steps->value += delta & 1 ? ~(delta >> 1) : delta >> 1;
	steps->bytes = (uint64_t)(uint32_t)reader_uleb(&steps->r) * tab->quantum;
	if (steps->bytes == 0)
		reader_fail(&steps->r);
	return !steps->r.failed;
}

bool pclntab_module_in_data(const struct pclntab *tab, const void *bytes, size_t len, uint64_t section_vaddr, uint64_t *ret)
{
	struct reader r = reader_init(bytes, len, tab->table.big_endian, "");
	uint64_t before = 0;

	for (uint64_t offset = 0; reader_left(&r) >= tab->ptr_size; offset += tab->ptr_size) {
		uint64_t word = reader_uint(&r, tab->ptr_size);
		if (offset && before == tab->vaddr && word == tab->vaddr + tab->names) {
			*ret = section_vaddr + offset - tab->ptr_size;
			return true;
		}
		before = word;
	}
	return false;
}

uint64_t pclntab_relocated_word(const struct pclntab *tab, const void *bytes, size_t len, uint64_t vaddr)
{
	struct reader r = reader_init(bytes, len, tab->table.big_endian, "");

	while (reader_left(&r) >= 24) {
		uint64_t offset = reader_u64(&r);
		reader_skip(&r, 8);
		uint64_t addend = reader_u64(&r);
		if (offset == vaddr)
			return addend;
	}
	return 0;
}

bool pclntab_module_in_relocations(const struct pclntab *tab, const void *bytes, size_t len, uint64_t *ret)
{
	struct reader r = reader_init(bytes, len, tab->table.big_endian, "");

	for (unsigned candidates = 0; tab->ptr_size == 8 && candidates < PCLNTAB_CANDIDATES_MAX && reader_left(&r) >= 24;) {
		uint64_t module = reader_u64(&r);
		reader_skip(&r, 8);
		if (reader_u64(&r) != tab->vaddr)
			continue;
		candidates++;
		if (pclntab_relocated_word(tab, bytes, len, module + tab->ptr_size) != tab->vaddr + tab->names)
			continue;
		*ret = module;
		return true;
	}
	return false;
}

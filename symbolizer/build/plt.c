// SPDX-License-Identifier: Apache-2.0
/*
 * A stub loads the address of a slot (of .got or .got.plt) that the dynamic loader fills, and jumps there. So:
 *
 *     slots  the relocations of allocated sections: slot's address -> symbol of .dynsym
 *     stubs  .plt, .plt.sec and .plt.got, instruction by instruction: which slot does it load?
 *     names  that slot's symbol, and "@plt"
 *
 * Neither the order of relocations nor the size of headers is relied on: linkers differ (lazy and eager binding, IBT, BTI, prelinking). What
 * does not look like a stub has no name: the header, the lazy halves of IBT stubs, stubs of indirect functions without a symbol.
 *
 *     x86-64   [endbr64] [bnd] jmp *disp(%rip)
 *     i386     [endbr32] jmp *address, or jmp *disp(%ebx) with .got.plt (else .got) in %ebx
 *     AArch64  [bti c] adrp x16, page; ldr x17, [x16, #off]; .. br x17
 *     ARM      add ip, pc, #a; add ip, ip, #b; .. ldr pc, [ip, #c]!
 *     RISC-V   auipc t3, hi; ld t3, lo(t3); jalr t1, t3
 *
 * Source: the psABIs of the machines, "Procedure Linkage Table".
 */
#include "symbolizer/build/plt.h"

#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { STUB_BYTES = 16, SHORT_STUB_BYTES = 8, ENTRY_BYTES_MAX = 64 };

static const char suffix[] = "@plt";

/* What the loader puts where. */
struct slot {
	uint64_t vaddr;
	uint32_t table, symbol; /* section of the symbols, number in it */
};

struct stub {
	uint64_t vaddr, high;
	size_t text;
	uint32_t name_len;
};

struct scan {
	struct elffile *file;
	struct account *account;
	struct ARRAY_OF(struct slot) slots;
	struct ARRAY_OF(struct stub) stubs;
	struct buf text;
	uint64_t got; /* %ebx of i386 */
};

/* ---- slots ---- */

static struct err *add_slots(struct scan *scan, const struct elffile_section *section)
{
	const bool is_64 = elffile_is_64(scan->file), addend = section->type == SHT_RELA;
	struct reader r;

	TRY(elffile_load(scan->file, section, &r));
	const unsigned word = is_64 ? 8 : 4, entry = (addend ? 3 : 2) * word;
	while (reader_left(&r) >= entry) {
		struct slot slot = {.table = section->link};
		slot.vaddr = is_64 ? reader_u64(&r) : reader_u32(&r);
		slot.symbol = is_64 ? (uint32_t)(reader_u64(&r) >> 32) : reader_u32(&r) >> 8;
		reader_skip(&r, addend ? word : 0);
		if (slot.symbol == 0)
			continue;
		if (scan->slots.count == PLT_SLOTS_MAX)
			return err_new(ERR_LIMIT, "%s: more than %d relocations with a symbol", elffile_name(scan->file), PLT_SLOTS_MAX);
		TRY(ARRAY_ROOM(scan->account, &scan->slots, 1));
		scan->slots.items[scan->slots.count++] = slot;
	}
	return NULL;
}

static int compare_slots(const void *left, const void *right)
{
	const struct slot *a = left, *b = right;

	if (a->vaddr != b->vaddr)
		return a->vaddr < b->vaddr ? -1 : 1;
	if (a->table != b->table)
		return a->table < b->table ? -1 : 1;
	return (a->symbol > b->symbol) - (a->symbol < b->symbol);
}

static struct err *read_slots(struct scan *scan)
{
	for (size_t i = 1; i < elffile_section_count(scan->file); i++) {
		const struct elffile_section *section = elffile_section(scan->file, i);
		if ((section->type == SHT_RELA || section->type == SHT_REL) && (section->flags & SHF_ALLOC))
			TRY(add_slots(scan, section));
	}
	if (scan->slots.count > 1)
		qsort(scan->slots.items, scan->slots.count, sizeof(*scan->slots.items), compare_slots);
	return NULL;
}

static const struct slot *slot_at(const struct scan *scan, uint64_t vaddr)
{
	size_t low = 0, high = scan->slots.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (scan->slots.items[middle].vaddr < vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < scan->slots.count && scan->slots.items[low].vaddr == vaddr ? &scan->slots.items[low] : NULL;
}

/* ---- names ---- */

/* The name of a symbol of .dynsym; NULL: none. */
static struct err *symbol_name(struct scan *scan, const struct slot *slot, const char **ret)
{
	const struct elffile_section *table = elffile_section(scan->file, slot->table);
	const struct elffile_section *names = table ? elffile_section(scan->file, table->link) : NULL;
	struct reader r, text;

	*ret = NULL;
	if (!names || table->type != SHT_DYNSYM || names->type != SHT_STRTAB)
		return NULL;
	TRY(elffile_load(scan->file, table, &r));
	TRY(elffile_load(scan->file, names, &text));
	reader_skip(&r, (uint64_t)slot->symbol * (elffile_is_64(scan->file) ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym)));
	reader_seek(&text, reader_u32(&r));
	if (r.failed || text.failed)
		return NULL;
	if (reader_left(&text) > SYMBOL_NAME_MAX)
		text.end = text.pos + SYMBOL_NAME_MAX;
	*ret = reader_text(&text, NULL);
	return NULL;
}

/* The code at [vaddr, high) loads a slot. */
static struct err *add_stub(struct scan *scan, uint64_t vaddr, uint64_t high, uint64_t slot_vaddr)
{
	const struct slot *slot = slot_at(scan, slot_vaddr);
	const char *name = NULL;

	if (slot)
		TRY(symbol_name(scan, slot, &name));
	if (!name || !name[0])
		return NULL;
	const size_t len = strlen(name), room = scan->text.cap;
	struct stub stub = {.vaddr = vaddr, .high = high, .text = scan->text.len, .name_len = (uint32_t)(len + strlen(suffix))};
	if (scan->text.len + stub.name_len > PLT_TEXT_MAX)
		return err_new(ERR_LIMIT, "%s: names of stubs take more than %d bytes", elffile_name(scan->file), PLT_TEXT_MAX);
	TRY(buf_append(&scan->text, name, len));
	TRY(buf_append(&scan->text, suffix, strlen(suffix)));
	TRY(account_grown(scan->account, room, scan->text.cap));
	TRY(ARRAY_ROOM(scan->account, &scan->stubs, 1));
	scan->stubs.items[scan->stubs.count++] = stub;
	return NULL;
}

/* ---- stubs ---- */

/* Entries of x86 have a fixed size; the linker says which. */
static uint64_t entry_bytes(const struct elffile_section *section)
{
	if (section->entry_size >= SHORT_STUB_BYTES && section->entry_size <= ENTRY_BYTES_MAX)
		return section->entry_size;
	return strcmp(section->name, ".plt.got") == 0 ? SHORT_STUB_BYTES : STUB_BYTES;
}

/* True and the slot, when the entry jumps through one. */
static bool decode_x86(const struct scan *scan, uint64_t vaddr, struct reader r, uint64_t *ret)
{
	const uint8_t *start = r.pos;
	struct reader marker = r;
	uint32_t first = reader_u32(&marker);

	if (first == 0xfa1e0ff3 || first == 0xfb1e0ff3) /* endbr64, endbr32 */
		r = marker;
	if (reader_left(&r) > 0 && *r.pos == 0xf2) /* bnd */
		reader_skip(&r, 1);
	uint16_t jump = reader_u16(&r);
	uint32_t operand = reader_u32(&r);
	if (r.failed || (jump != 0x25ff && jump != 0xa3ff))
		return false;
	if (elffile_machine(scan->file) == EM_X86_64)
		*ret = vaddr + (uint64_t)(r.pos - start) + (uint64_t)(int64_t)(int32_t)operand;
	else
		*ret = jump == 0x25ff ? operand : (uint32_t)(scan->got + operand);
	return elffile_machine(scan->file) != EM_X86_64 || jump == 0x25ff;
}

static struct err *scan_x86(struct scan *scan, const struct elffile_section *section, struct reader r)
{
	const uint64_t bytes = entry_bytes(section);
	uint64_t slot;

	for (uint64_t vaddr = section->vaddr; reader_left(&r) >= bytes; vaddr += bytes) {
		struct reader entry = reader_sub(&r, bytes);
		if (decode_x86(scan, vaddr, entry, &slot))
			TRY(add_stub(scan, vaddr, vaddr + bytes, slot));
	}
	return NULL;
}

static struct err *scan_aarch64(struct scan *scan, const struct elffile_section *section, struct reader r)
{
	uint64_t vaddr = section->vaddr, start = 0, page = 0, slot = 0;

	for (; reader_left(&r) >= 4; vaddr += 4) {
		uint32_t code = reader_u32(&r);
		if (code == 0xd503245f) { /* bti c */
			start = vaddr;
		} else if ((code & 0x9f00001f) == 0x90000010) { /* adrp x16 */
			uint64_t pages = (uint64_t)(code >> 5 & 0x7ffff) << 2 | (code >> 29 & 3);
			page = (vaddr & ~(uint64_t)0xfff) + (uint64_t)((int64_t)(pages << 43) >> 31);
			start = start && start + 4 == vaddr ? start : vaddr;
		} else if ((code & 0xffc003ff) == 0xf9400211) { /* ldr x17, [x16, #] */
			slot = page + ((uint64_t)(code >> 10 & 0xfff) << 3);
		} else if (code == 0xd61f0220) { /* br x17 */
			uint64_t high = vaddr + 4;
			for (struct reader pad = r; reader_u32(&pad) == 0xd503201f && high - vaddr < STUB_BYTES; high += 4) /* nop */
				;
			TRY(add_stub(scan, start, high, slot));
			start = page = slot = 0;
		}
	}
	return NULL;
}

/* An immediate of 8 bits, turned right by twice the 4 bits above. */
static uint32_t arm_immediate(uint32_t code)
{
	uint32_t value = code & 0xff, turn = 2 * (code >> 8 & 0xf);

	return turn ? value >> turn | value << (32 - turn) : value;
}

static struct err *scan_arm(struct scan *scan, const struct elffile_section *section, struct reader r)
{
	uint64_t vaddr = section->vaddr, start = 0;
	uint32_t slot = 0;

	for (; reader_left(&r) >= 4; vaddr += 4) {
		uint32_t code = reader_u32(&r);
		if (code >> 12 == 0xe28fc) { /* add ip, pc, # */
			start = vaddr;
			slot = (uint32_t)vaddr + 8 + arm_immediate(code);
		} else if (code >> 12 == 0xe28cc) { /* add ip, ip, # */
			slot += arm_immediate(code);
		} else if (code >> 12 == 0xe5bcf) { /* ldr pc, [ip, #]! */
			TRY(add_stub(scan, start, vaddr + 4, slot + (code & 0xfff)));
		}
	}
	return NULL;
}

static struct err *scan_riscv(struct scan *scan, const struct elffile_section *section, struct reader r)
{
	uint64_t vaddr = section->vaddr;

	for (; reader_left(&r) >= STUB_BYTES; vaddr += STUB_BYTES) {
		uint32_t high = reader_u32(&r), load = reader_u32(&r);
		reader_skip(&r, STUB_BYTES - 8);
		if ((high & 0xfff) == 0xe17 && (load & 0xfffff) == 0xe3e03) /* auipc t3; ld t3, (t3) */
			TRY(add_stub(scan, vaddr, vaddr + STUB_BYTES,
				vaddr + (uint64_t)(int64_t)(int32_t)(high & 0xfffff000) + (uint64_t)(int64_t)((int32_t)load >> 20)));
	}
	return NULL;
}

static struct err *scan_section(struct scan *scan, const struct elffile_section *section)
{
	struct reader r;

	TRY(elffile_load(scan->file, section, &r));
	switch (elffile_machine(scan->file)) {
	case EM_X86_64:
	case EM_386:
		return scan_x86(scan, section, r);
	case EM_AARCH64:
		return elffile_big_endian(scan->file) ? NULL : scan_aarch64(scan, section, r);
	case EM_ARM:
		return scan_arm(scan, section, r);
	case EM_RISCV:
		return elffile_is_64(scan->file) ? scan_riscv(scan, section, r) : NULL;
	default:
		return NULL;
	}
}

/* ---- all ---- */

static bool is_stub_section(const struct elffile_section *section)
{
	static const char *const names[] = {".plt", ".plt.sec", ".plt.got"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(section->name, names[i]) == 0)
			return (section->flags & SHF_EXECINSTR) && section->stored_size > 0;
	return false;
}

static struct err *read_stubs(struct scan *scan)
{
	bool has_slots = false;

	for (size_t i = 1; i < elffile_section_count(scan->file); i++) {
		const struct elffile_section *section = elffile_section(scan->file, i);
		if (!is_stub_section(section))
			continue;
		if (!has_slots)
			TRY(read_slots(scan));
		has_slots = true;
		TRY(scan_section(scan, section));
	}
	return NULL;
}

static int compare_stubs(const void *left, const void *right)
{
	const struct stub *a = left, *b = right;

	if (a->vaddr != b->vaddr)
		return a->vaddr < b->vaddr ? -1 : 1;
	return (a->text > b->text) - (a->text < b->text);
}

/* Stubs that overlap (hostile files) are dropped but for the first. */
static struct err *make_symbols(struct scan *scan, struct plt *ret)
{
	struct symbols *symbols = &ret->symbols;
	uint64_t done = 0;

	if (scan->stubs.count == 0)
		return NULL;
	qsort(scan->stubs.items, scan->stubs.count, sizeof(*scan->stubs.items), compare_stubs);
	symbols->items = calloc(scan->stubs.count, sizeof(*symbols->items));
	symbols->ranges = calloc(scan->stubs.count, sizeof(*symbols->ranges));
	if (!symbols->items || !symbols->ranges)
		return err_nomem();
	ret->text = (char *)scan->text.data;
	scan->text.data = NULL;
	for (size_t i = 0; i < scan->stubs.count; i++) {
		const struct stub *stub = &scan->stubs.items[i];
		if (stub->vaddr < done || stub->high <= stub->vaddr)
			continue;
		done = stub->high;
		symbols->ranges[symbols->range_count++] =
			(struct symbol_range){.low = stub->vaddr, .high = stub->high, .symbol = (uint32_t)symbols->count};
		symbols->items[symbols->count++] = (struct symbol){.vaddr = stub->vaddr,
			.high = stub->high,
			.name = ret->text + stub->text,
			.name_len = stub->name_len,
			.sized = true};
	}
	return NULL;
}

struct err *plt_read(struct elffile *binary, struct account *account, struct plt *ret)
{
	struct scan scan = {.file = binary, .account = account};
	const struct elffile_section *got = elffile_find(binary, ".got.plt");

	if (elffile_type(binary) == ET_REL)
		return NULL;
	if (!got)
		got = elffile_find(binary, ".got");
	scan.got = got ? got->vaddr : 0;
	struct err *e = read_stubs(&scan);
	if (!e)
		e = make_symbols(&scan, ret);
	account_give(account, scan.text.cap);
	buf_deinit(&scan.text);
	ARRAY_DEINIT(account, &scan.slots);
	ARRAY_DEINIT(account, &scan.stubs);
	return e;
}

void plt_deinit(struct plt *plt)
{
	symbols_deinit(&plt->symbols);
	free(plt->text);
	*plt = (struct plt){.text = NULL};
}

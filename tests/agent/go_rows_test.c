// SPDX-License-Identifier: Apache-2.0
/* Go's function table, made by hand: frame sizes, ends, stack switches, signals, damage. */
#include "agent/unwind/elf_image.h"
#include "agent/unwind/go_rows.h"
#include "tests/build/elf_image.h"

#include <criterion/criterion.h>
#include <string.h>

enum { TEXT = 0x401000, HEAD = 72, ROWS = 32 };

struct table {
	uint8_t bytes[1024];
	size_t len;
};

struct rows {
	struct frames_row items[ROWS];
	size_t count;
};

static void put(struct table *t, const void *bytes, size_t len)
{
	cr_assert_leq(t->len + len, sizeof(t->bytes));
	memcpy(t->bytes + t->len, bytes, len);
	t->len += len;
}

static void put_u32(struct table *t, uint32_t value)
{
	put(t, &value, sizeof(value));
}

/* One function of 0x20 bytes called @p name, with a pcsp program at 1 of pctab. */
static struct table table_of(const char *name, const uint8_t *program, size_t program_len, uint8_t flag)
{
	struct table t = {0};
	uint64_t names = HEAD, pctab = names + strlen(name) + 2, functab = pctab + 1 + program_len;
	const uint64_t words[8] = {1, 0, TEXT, names, pctab, pctab, pctab, functab};
	put_u32(&t, 0xfffffff1);
	put(&t, (uint8_t[]){0, 0, 1, 8}, 4);
	put(&t, words, sizeof(words));
	put(&t, "", 1);
	put(&t, name, strlen(name) + 1);
	put(&t, "", 1);
	put(&t, program, program_len);
	put(&t, (uint32_t[]){0, 12, 0x20}, 12);
	put(&t, (uint32_t[]){0, 1, 0, 0, 1, 0, 0, 0, 0, 1}, 40);
	put(&t, (uint8_t[]){0, flag, 0, 0}, 4);
	return t;
}

static struct err *take(void *context, const struct frames_row *row)
{
	struct rows *rows = context;
	cr_assert_lt(rows->count, (size_t)ROWS);
	rows->items[rows->count++] = *row;
	return NULL;
}

static struct frames_counts rows_of(const struct table *t, struct rows *rows)
{
	struct frames_counts counts = {0};
	struct pclntab tab;
	cr_assert_null(pclntab_open(t->bytes, t->len, false, 0x500000, "test", &tab));
	cr_assert_null(go_rows(&tab, take, rows, &counts));
	return counts;
}

/* 0 for 1 byte (push rbp), 8 for 9, 40 for 20, 0 for 2. */
static const uint8_t program[] = {2, 1, 16, 9, 64, 20, 79, 2, 0};

static void check(const struct frames_row *row, uint64_t low, uint64_t high, uint8_t reg, int32_t off, uint8_t flags)
{
	cr_assert_eq(row->low, TEXT + low);
	cr_assert_eq(row->high, TEXT + high);
	cr_assert_eq(row->info.cfa_reg, reg);
	cr_assert_eq(row->info.cfa_off, off);
	cr_assert_eq(row->info.flags, flags);
}

Test(go_rows, frame_sizes_are_distances_from_the_return_address)
{
	struct table t = table_of("main.f", program, sizeof(program), 0);
	struct rows rows = {0};
	struct frames_counts counts = rows_of(&t, &rows);
	cr_assert_eq(counts.fdes, 1u);
	cr_assert_eq(rows.count, 4u);
	check(&rows.items[0], 0, 1, UNWIND_REG_RSP, 8, 0);
	check(&rows.items[1], 1, 10, UNWIND_REG_RSP, 16, 0);
	check(&rows.items[2], 10, 30, UNWIND_REG_RSP, 48, 0);
	check(&rows.items[3], 30, 32, UNWIND_REG_RSP, 8, 0);
	cr_assert_eq(rows.items[0].info.fp, UNWIND_RULE_SAME);
	cr_assert_eq(rows.items[1].info.fp, UNWIND_RULE_CFA);
	cr_assert_eq(rows.items[1].info.fp_off, -16);
}

Test(go_rows, a_top_frame_is_the_end_but_a_signal_trampoline)
{
	static const char *const names[] = {"runtime.goexit", "runtime.mcall", "any"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct table t = table_of(names[i], program, sizeof(program), i == 2 ? PCLNTAB_TOP_FRAME : 0);
		struct rows rows = {0};
		rows_of(&t, &rows);
		cr_assert_eq(rows.count, 1u);
		cr_assert_eq(rows.items[0].info.cfa, UNWIND_CFA_STOP, "%s", names[i]);
	}
	struct table t = table_of("runtime.sigtramp", program, sizeof(program), PCLNTAB_TOP_FRAME);
	struct rows rows = {0};
	rows_of(&t, &rows);
	cr_assert_eq(rows.count, 4u);
}

Test(go_rows, a_stack_switch_follows_rbp_once_it_is_set)
{
	struct table t = table_of("runtime.systemstack", program, sizeof(program), 0);
	struct rows rows = {0};
	rows_of(&t, &rows);
	cr_assert_eq(rows.count, 5u);
	check(&rows.items[1], 1, 4, UNWIND_REG_RSP, 16, 0);
	check(&rows.items[2], 4, 10, UNWIND_REG_RBP, 16, UNWIND_SWITCH);
	check(&rows.items[3], 10, 30, UNWIND_REG_RBP, 16, UNWIND_SWITCH);
	check(&rows.items[4], 30, 32, UNWIND_REG_RSP, 8, 0);
}

Test(go_rows, a_handlers_return_address_is_one_behind_what_is_looked_up)
{
	struct table t = table_of("runtime.sigreturn__sigaction", program, sizeof(program), 0);
	struct rows rows = {0};
	rows_of(&t, &rows);
	cr_assert_eq(rows.count, 2u);
	check(&rows.items[0], (uint64_t)-1, 0, UNWIND_REG_RSP, 160, UNWIND_SIGNAL);
	check(&rows.items[1], 0, 32, UNWIND_REG_RSP, 160, UNWIND_SIGNAL);
}

Test(go_rows, damage_costs_the_function)
{
	static const uint8_t endless[] = {2, 1, 16}, standing[] = {2, 0, 0};
	struct table t = table_of("main.f", endless, sizeof(endless), 0);
	struct rows rows = {0};
	t.len -= 4; /* the end of struct _func is cut off */
	cr_assert_eq(rows_of(&t, &rows).fdes_bad, 1u);
	cr_assert_eq(rows.count, 0u);
	t = table_of("main.f", standing, sizeof(standing), 0);
	cr_assert_eq(rows_of(&t, &rows).fdes_bad, 1u);
	cr_assert_eq(rows.count, 0u);
}

/* ---- where the table is ---- */

enum { RELRO = 0x500000, DATA = 0x600000, BEFORE = 24 };

/* A program whose .data.rel.ro has other things, the table without its text start as in position-independent ones, and in .data what leads to both. */
static struct err *read_merged(const char *build_info, uint64_t names_at, struct unwind_elf *ret)
{
	static struct elf_image image;
	struct table t = table_of("main.f", program, sizeof(program), 0);
	uint8_t relro[sizeof(t.bytes) + BEFORE] = {0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8}; /* looks like a header, too */
	uint64_t module[PCLNTAB_MODULE_TEXT + 2] = {0, RELRO + BEFORE, RELRO + BEFORE + names_at};

	memset(t.bytes + 24, 0, 8);
	memcpy(relro + BEFORE, t.bytes, t.len);
	module[1 + PCLNTAB_MODULE_TEXT] = TEXT;
	image_begin(&image, true, false);
	(void)image_section(&image, ".data.rel.ro", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, RELRO, relro, BEFORE + t.len);
	(void)image_section(&image, ".data", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, DATA, module, sizeof(module));
	(void)image_section(&image, build_info, SHT_PROGBITS, SHF_ALLOC, 0x700000, "go", 2);
	image_finish(&image);
	return unwind_elf_read(&(struct unwind_source){.fd = -1, .bytes = image.bytes, .len = image.len, .name = "merged"}, ret);
}

Test(go_table, is_found_where_a_c_linker_merged_it)
{
	struct unwind_elf elf = {0};
	struct rows rows = {0};
	struct frames_counts counts = {0};
	struct pclntab tab;
	cr_assert_null(read_merged(".go.buildinfo", HEAD, &elf));
	cr_assert_eq(elf.gopclntab.vaddr, (uint64_t)RELRO + BEFORE);
	cr_assert_eq(elf.go_text, (uint64_t)TEXT);
	cr_assert_null(pclntab_open(elf.gopclntab.bytes, elf.gopclntab.len, false, elf.gopclntab.vaddr, "test", &tab));
	tab.text = elf.go_text;
	cr_assert_null(go_rows(&tab, take, &rows, &counts));
	cr_assert_gt(rows.count, (size_t)0);
	cr_assert_eq(rows.items[0].low, (uint64_t)TEXT);
	unwind_elf_deinit(&elf);
}

Test(go_table, is_not_believed_when_no_moduledata_leads_to_it)
{
	struct unwind_elf elf = {0};
	cr_assert_null(read_merged(".go.buildinfo", HEAD + 1, &elf));
	cr_assert_null(elf.gopclntab.bytes);
	unwind_elf_deinit(&elf);
}

Test(go_table, is_not_looked_for_in_other_programs)
{
	struct unwind_elf elf = {0};
	cr_assert_null(read_merged(".buildinfo", HEAD, &elf));
	cr_assert_null(elf.gopclntab.bytes);
	unwind_elf_deinit(&elf);
}

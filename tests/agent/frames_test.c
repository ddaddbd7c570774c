// SPDX-License-Identifier: Apache-2.0
/* Call frame information made by hand: each instruction, each expression, each kind of damage. */
#include "agent/unwind/table.h"

#include <criterion/criterion.h>
#include <string.h>

enum { BASE = 0x400000, FUNCTION = 0x401000, FUNCTION_BYTES = 0x100, ROWS = 64 };

struct rows {
	struct frames_row items[ROWS];
	size_t count;
};

struct writer {
	uint8_t bytes[8192];
	size_t len;
};

static void put(struct writer *w, const void *bytes, size_t len)
{
	memcpy(w->bytes + w->len, bytes, len);
	w->len += len;
}

static void put_u32(struct writer *w, uint32_t value)
{
	put(w, &value, sizeof(value));
}

static void put_entry(struct writer *w, uint32_t id_is_distance, const void *head, size_t head_len, const uint8_t *program, size_t len)
{
	put_u32(w, (uint32_t)(4 + head_len + len));
	put_u32(w, id_is_distance ? (uint32_t)w->len : 0);
	put(w, head, head_len);
	if (len > 0)
		put(w, program, len);
}

/* CIE at 0: "zR", code 1, data -8, return column 16, absolute 8-byte pointers; CFA = rsp + 8, ra at c-8. */
static void put_cie(struct writer *w, const char *augmentation, size_t augmentation_size)
{
	struct writer head = {0};
	put(&head, "\1", 1);
	put(&head, augmentation, augmentation_size);
	put(&head, "\x01\x78\x10\x01\x00", 5);
	put_entry(w, 0, head.bytes, head.len, (const uint8_t[]){0x0c, 7, 8, 0x90, 1}, 5);
}

static void put_fde(struct writer *w, const uint8_t *program, size_t len)
{
	struct writer head = {0};
	put(&head, &(uint64_t){FUNCTION}, 8);
	put(&head, &(uint64_t){FUNCTION_BYTES}, 8);
	put(&head, "\0", 1);
	put_entry(w, 1, head.bytes, head.len, program, len);
}

static struct err *take(void *context, const struct frames_row *row)
{
	struct rows *rows = context;
	cr_assert_lt(rows->count, (size_t)ROWS);
	rows->items[rows->count++] = *row;
	return NULL;
}

static struct err *parse(const struct writer *w, struct rows *rows, struct frames_counts *counts)
{
	struct frames_section section = {.bytes = w->bytes, .len = w->len, .vaddr = BASE, .name = "test"};
	return frames_parse(&section, take, rows, counts);
}

/* The rows of one function with @p program. */
static struct frames_counts run(const uint8_t *program, size_t len, struct rows *rows)
{
	struct writer w = {0};
	struct frames_counts counts;
	put_cie(&w, "zR", 3);
	put_fde(&w, program, len);
	struct err *e = parse(&w, rows, &counts);
	cr_assert_null(e, "%s", err_message(e));
	cr_assert_geq(rows->count, 1u);
	cr_assert_eq(rows->items[0].low, FUNCTION);
	cr_assert_eq(rows->items[rows->count - 1].high, FUNCTION + FUNCTION_BYTES);
	return counts;
}
#define RUN(rows, ...) run((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), (rows))

Test(frames_parse, follows_pushes_and_a_frame_pointer)
{
	struct rows rows = {0};
	/* +1: push rbp; +3: mov rbp, rsp; 0x20 on: remember, leave, restore */
	RUN(&rows, 0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x0a, 0x02, 0x1c, 0x0c, 7, 8, 0xc6, 0x41, 0x0b);
	cr_assert_eq(rows.count, 5u);
	cr_assert_eq(rows.items[0].info.cfa_off, 8);
	cr_assert_eq(rows.items[1].low, FUNCTION + 1);
	cr_assert_eq(rows.items[1].info.cfa_off, 16);
	cr_assert_eq(rows.items[1].info.fp, UNWIND_RULE_CFA);
	cr_assert_eq(rows.items[1].info.fp_off, -16);
	cr_assert_eq(rows.items[2].info.cfa_reg, UNWIND_REG_RBP);
	cr_assert_eq(rows.items[3].low, FUNCTION + 0x20);
	cr_assert_eq(rows.items[3].info.fp, UNWIND_RULE_SAME);
	cr_assert_eq(rows.items[3].info.cfa_off, 8);
	cr_assert_eq(memcmp(&rows.items[4].info, &rows.items[2].info, sizeof(struct unwind_info)), 0);
}

Test(frames_parse, knows_the_plt_expression_with_its_literal)
{
	struct rows rows = {0};
	RUN(&rows, 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3a, 0x2a, 0x33, 0x24, 0x22);
	cr_assert_eq(rows.items[0].info.cfa, UNWIND_CFA_PLT);
	cr_assert_eq(rows.items[0].info.cfa_off, 8);
	cr_assert_eq(rows.items[0].info.cfa_add, 10);
}

Test(frames_parse, knows_a_dereferenced_cfa_and_saved_places)
{
	struct rows rows = {0};
	/* breg6 -8; deref; rbp at breg6 0 */
	RUN(&rows, 0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0);
	cr_assert_eq(rows.items[0].info.cfa, UNWIND_CFA_DEREF);
	cr_assert_eq(rows.items[0].info.cfa_reg, UNWIND_REG_RBP);
	cr_assert_eq(rows.items[0].info.cfa_off, -8);
	cr_assert_eq(rows.items[0].info.fp, UNWIND_RULE_MEM);
	cr_assert_eq(rows.items[0].info.fp_reg, UNWIND_REG_RBP);
}

Test(frames_parse, an_undefined_return_address_is_the_outermost_frame)
{
	struct rows rows = {0};
	struct frames_counts counts = RUN(&rows, 0x07, 16);
	cr_assert_eq(rows.items[0].info.cfa, UNWIND_CFA_STOP);
	cr_assert_eq(counts.rows_unsupported, 0u);
}

Test(frames_parse, the_augmentation_s_marks_signal_frames)
{
	struct writer w = {0};
	struct rows rows = {0};
	struct frames_counts counts;
	put_cie(&w, "zRS", 4);
	put_fde(&w, NULL, 0);
	cr_assert_null(parse(&w, &rows, &counts));
	cr_assert_eq(rows.items[0].info.flags, UNWIND_SIGNAL);
}

struct unsupported {
	const char *what;
	uint8_t program[80];
	uint8_t len;
};

Test(frames_parse, what_cannot_be_said_is_counted_and_unknown)
{
	static const struct unsupported cases[] = {
		{"another expression", {0x0f, 2, 0x30, 0x31}, 4},
		{"an empty expression", {0x0f, 0}, 2},
		{"a register past r15", {0x0c, 17, 8}, 3},
		{"rbp in a register past r15", {0x09, 6, 17}, 3},
		{"ra by a value", {0x14, 16, 1}, 3},
		{"ra by an expression's value", {0x16, 16, 1, 0x30}, 4},
		{"ra as it was", {0x08, 16}, 2},
		{"an offset past 31 bits", {0x0e, 0xff, 0xff, 0xff, 0xff, 0x7f}, 6},
		{"a factored offset past 63 bits", {0x05, 6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, 11},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rows rows = {0};
		struct frames_counts counts = run(cases[i].program, cases[i].len, &rows);
		cr_assert_eq(rows.items[0].info.cfa, UNWIND_CFA_NONE, "%s", cases[i].what);
		cr_assert_eq(counts.rows_unsupported, 1u, "%s", cases[i].what);
		cr_assert_eq(counts.fdes_bad, 0u, "%s", cases[i].what);
	}
}

Test(frames_parse, damage_in_a_program_costs_its_fde_only)
{
	static const struct unsupported cases[] = {
		{"unknown instruction", {0x3f, 1}, 2},
		{"cut operand", {0x41, 0x0e}, 2},
		{"cut expression", {0x0f, 20, 0x77}, 3},
		{"restore without remember", {0x0b}, 1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rows rows = {0};
		struct writer w = {0};
		struct frames_counts counts;
		put_cie(&w, "zR", 3);
		put_fde(&w, cases[i].program, cases[i].len);
		put_fde(&w, NULL, 0);
		cr_assert_null(parse(&w, &rows, &counts));
		cr_assert_eq(counts.fdes, 2u);
		cr_assert_eq(counts.fdes_bad, 1u, "%s", cases[i].what);
		cr_assert_eq(rows.items[rows.count - 2].info.cfa, UNWIND_CFA_NONE, "%s", cases[i].what);
		cr_assert_eq(rows.items[rows.count - 1].info.cfa, UNWIND_CFA_REG, "%s", cases[i].what);
	}
}

Test(frames_parse, remembered_states_have_a_limit)
{
	uint8_t program[FRAMES_REMEMBER_MAX + 1];
	struct rows rows = {0};
	memset(program, 0x0a, sizeof(program));
	cr_assert_eq(run(program, FRAMES_REMEMBER_MAX, &rows).fdes_bad, 0u);
	rows.count = 0;
	cr_assert_eq(run(program, FRAMES_REMEMBER_MAX + 1, &rows).fdes_bad, 1u);
}

Test(frames_parse, advances_past_the_function_are_cut_at_its_end)
{
	struct rows rows = {0};
	RUN(&rows, 0x04, 0xff, 0xff, 0xff, 0xff, 0x0e, 16, 0x41, 0x0e, 24);
	cr_assert_eq(rows.count, 1u);
}

Test(frames_parse, an_entry_past_the_end_is_an_error_with_its_place)
{
	struct writer w = {0};
	struct rows rows = {0};
	struct frames_counts counts;
	put_cie(&w, "zR", 3);
	put_u32(&w, 1000);
	struct err *e = parse(&w, &rows, &counts);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_FORMAT);
	cr_assert_not_null(strstr(err_message(e), "passes the end"));
	err_free(e);
}

Test(frames_parse, a_cie_with_a_long_program_is_refused)
{
	struct writer w = {0};
	struct rows rows = {0};
	struct frames_counts counts;
	uint8_t program[FRAMES_CIE_PROGRAM_MAX + 1] = {0};
	put_entry(&w, 0, "\1zR\0\x01\x78\x10\x01\x00", 9, program, sizeof(program));
	put_fde(&w, NULL, 0);
	cr_assert_null(parse(&w, &rows, &counts));
	cr_assert_eq(counts.fdes_bad, 1u);
	cr_assert_eq(rows.count, 0u);
}

static uint16_t number_of(struct unwind_infos *infos, int32_t off)
{
	struct unwind_info info = {.cfa = UNWIND_CFA_REG, .cfa_reg = 7, .cfa_off = off};
	uint16_t number = 0;
	cr_assert_null(unwind_infos_number(infos, &info, &number));
	return number;
}

Test(unwind_infos, equal_ones_share_a_number_and_the_last_place_is_a_limit)
{
	struct unwind_infos infos;
	cr_assert_null(unwind_infos_init(&infos));
	cr_assert_eq(number_of(&infos, 8), UNWIND_COMMANDS);
	cr_assert_eq(number_of(&infos, 16), UNWIND_COMMANDS + 1);
	cr_assert_eq(number_of(&infos, 8), UNWIND_COMMANDS);
	for (int32_t i = 0; infos.count < UNWIND_INFOS_MAX; i++)
		(void)number_of(&infos, 24 + i);
	cr_assert_eq(number_of(&infos, -8), UNWIND_NONE);
	cr_assert_eq(infos.dropped, 1u);
	cr_assert_eq(number_of(&infos, 16), UNWIND_COMMANDS + 1);
	unwind_infos_deinit(&infos);
}

static struct unwind_source source_of(const void *bytes, size_t len)
{
	return (struct unwind_source){.fd = -1, .bytes = bytes, .len = len, .name = "a.out"};
}

struct refused {
	size_t place;
	uint8_t value;
	enum err_code code;
	const char *says;
};

Test(unwind_elf_read, refuses_by_name_what_it_cannot_unwind)
{
	static const struct refused cases[] = {
		{0, 'x', ERR_FORMAT, "not ELF"},
		{4, 1, ERR_UNSUPPORTED, "x32"},
		{5, 2, ERR_UNSUPPORTED, "machine"},
		{18, 183, ERR_UNSUPPORTED, "machine 183"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t header[64] = {0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 3, [18] = 62};
		struct unwind_elf elf;
		header[cases[i].place] = cases[i].value;
		struct unwind_source source = source_of(header, sizeof(header));
		struct err *e = unwind_elf_read(&source, &elf);
		cr_assert_not_null(e, "%s", cases[i].says);
		cr_assert_eq(err_code(e), cases[i].code, "%s", cases[i].says);
		cr_assert_not_null(strstr(err_message(e), cases[i].says), "%s", err_message(e));
		err_free(e);
	}
}

Test(unwind_elf_read, a_file_cut_short_is_an_error)
{
	uint8_t header[64] = {0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 3, [18] = 62, [32] = 64, [54] = 56, [56] = 2};
	struct unwind_elf elf;
	for (size_t len = 0; len <= sizeof(header); len++) {
		struct unwind_source source = source_of(header, len);
		struct err *e = unwind_elf_read(&source, &elf);
		cr_assert_not_null(e);
		cr_assert_eq(err_code(e), ERR_FORMAT);
		err_free(e);
	}
}

Test(unwind_table_build, no_call_frame_information_is_an_empty_table)
{
	struct unwind_infos infos;
	struct unwind_table table;
	struct unwind_elf elf = {.name = "a.out"};
	cr_assert_null(unwind_infos_init(&infos));
	cr_assert_null(unwind_table_build(&elf, NULL, &infos, &table));
	cr_assert_eq(table.delta_count, 0u);
	struct unwind_info info = {.cfa = UNWIND_CFA_STOP};
	unwind_table_lookup(&table, &infos, FUNCTION, &info);
	cr_assert_eq(info.cfa, UNWIND_CFA_NONE);
	unwind_table_deinit(&table);
	unwind_infos_deinit(&infos);
}

Test(unwind_table_build, functions_too_far_apart_are_a_limit)
{
	struct unwind_infos infos;
	struct unwind_table table;
	struct writer w = {0};
	put_cie(&w, "zR", 3);
	put_fde(&w, NULL, 0);
	size_t second = w.len;
	put_fde(&w, NULL, 0);
	memcpy(w.bytes + second + 8, &(uint64_t){FUNCTION + ((uint64_t)UNWIND_TABLE_PAGES_MAX << UNWIND_PAGE_BITS)}, 8);
	struct unwind_elf elf = {.name = "a.out", .eh_frame = {.bytes = w.bytes, .len = w.len, .vaddr = BASE}};
	cr_assert_null(unwind_infos_init(&infos));
	struct err *e = unwind_table_build(&elf, NULL, &infos, &table);
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), ERR_LIMIT);
	err_free(e);
	unwind_infos_deinit(&infos);
}

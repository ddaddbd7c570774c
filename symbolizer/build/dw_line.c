// SPDX-License-Identifier: Apache-2.0
/*
 * The line number program. A header (directories, files, parameters) and a byte code that makes rows of a matrix; rows come
 * in sequences of rising addresses, each closed by a row that only says where it ends.
 *
 *     opcode >= opcode_base   special: advances address and line, makes a row
 *     0, length, sub-opcode   extended: end of sequence, set address
 *     1 .. opcode_base - 1    standard; one that we do not know is stepped over by its declared operand count
 *
 * A row costs at least one byte of program, so a program cannot run for longer than it is; that tables overlap is
 * bounded by DW_LINE_WORK. VLIW op indexes are ignored: every row counts as operation 0.
 *
 * Flattening (see line_table_read): sequences are sorted by their end; sequence i answers for [max(low(i), high(i - 1)),
 * high(i)). Honest sequences do not overlap, and then this is plain order of addresses.
 *
 * The file register starts at 1 in every version (DWARF 5 numbers files from 0, which changes nothing about the register).
 */
#include "symbolizer/build/dw_line.h"

#include "base/buf.h"
#include "symbolizer/build/dw_const.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	LINE_FORMATS_MAX = 255, /* a count of one byte */
	LINE_OPCODES = 256,
};

struct header {
	uint8_t address_size, offset_size;
	uint8_t min_inst_length, line_range, opcode_base;
	int8_t line_base;
	uint8_t operand_counts[LINE_OPCODES];
};

struct entry_format {
	uint64_t content, form;
};

/* One value of a DWARF 5 directory or file entry: a text or a number, else stepped over. */
static struct err *read_field(const struct dw *dw, const struct dw_unit *unit, struct reader *r, uint64_t form, struct dw_value *ret)
{
	uint8_t offset_size = unit->offset_size;

	*ret = (struct dw_value){.form = (uint16_t)form};
	switch (form) {
	case DW_FORM_string:
		ret->value = (uint64_t)(uintptr_t)reader_text(r, NULL);
		break;
	case DW_FORM_line_strp:
	case DW_FORM_strp:
	case DW_FORM_strp_sup:
		ret->value = reader_uint(r, offset_size);
		break;
	case DW_FORM_udata:
	case DW_FORM_strx:
		ret->value = reader_uleb(r);
		break;
	case DW_FORM_data1:
	case DW_FORM_strx1:
		ret->value = reader_u8(r);
		break;
	case DW_FORM_data2:
	case DW_FORM_strx2:
		ret->value = reader_u16(r);
		break;
	case DW_FORM_strx3:
		ret->value = reader_uint(r, 3);
		break;
	case DW_FORM_data4:
	case DW_FORM_strx4:
		ret->value = reader_u32(r);
		break;
	case DW_FORM_data8:
		ret->value = reader_u64(r);
		break;
	case DW_FORM_data16:
		reader_skip(r, 16);
		break;
	case DW_FORM_block:
		reader_skip(r, reader_uleb(r));
		break;
	case DW_FORM_block1:
		reader_skip(r, reader_u8(r));
		break;
	default:
		return reader_error(r, "form 0x%" PRIx64 " in a line table header", form);
	}
	(void)dw;
	return NULL;
}

static const char *field_text(const struct dw *dw, const struct dw_unit *unit, const struct dw_value *value)
{
	if (value->form == DW_FORM_string)
		return (const char *)(uintptr_t)value->value;
	return dw_text(dw, unit, value);
}

static struct err *add_dir(struct dw *dw, struct line_table *table, const char *name)
{
	TRY(ARRAY_ROOM(dw->account, &table->dirs, 1));
	table->dirs.items[table->dirs.count++] = name ? name : "";
	return NULL;
}

static struct err *add_file(struct dw *dw, struct line_table *table, const char *name, uint64_t dir)
{
	TRY(ARRAY_ROOM(dw->account, &table->files, 1));
	table->files.items[table->files.count++] = (struct line_file){.name = name, .dir = dir};
	return NULL;
}

/* DWARF 5: formats, a count, and entries laid out by the formats; directories or files. */
static struct err *read_entries(struct dw *dw, const struct dw_unit *unit, struct reader *r, struct line_table *table, bool dirs)
{
	struct entry_format formats[LINE_FORMATS_MAX];
	size_t format_count = reader_u8(r);

	for (size_t i = 0; i < format_count; i++) {
		formats[i].content = reader_uleb(r);
		formats[i].form = reader_uleb(r);
	}
	uint64_t count = reader_uleb(r);
	/* Each field takes a byte at least, so that a count is bounded by what is left. */
	if (count > 0 && (format_count == 0 || count > reader_left(r)))
		return reader_error(r, "%" PRIu64 " %s in a header of 0x%zx more bytes", count, dirs ? "directories" : "files", reader_left(r));
	for (uint64_t n = 0; n < count && !r->failed; n++) {
		const char *name = NULL;
		uint64_t dir = 0;
		for (size_t i = 0; i < format_count; i++) {
			struct dw_value value;
			TRY(read_field(dw, unit, r, formats[i].form, &value));
			if (formats[i].content == DW_LNCT_path && !r->failed)
				name = field_text(dw, unit, &value);
			else if (formats[i].content == DW_LNCT_directory_index)
				dir = value.value;
		}
		if (!r->failed)
			TRY(dirs ? add_dir(dw, table, name) : add_file(dw, table, name, dir));
	}
	return NULL;
}

/* DWARF 2 to 4: NUL-terminated names, each list closed by an empty one. Directory and file 0 are not in the lists. */
static struct err *read_names(struct dw *dw, struct reader *r, struct line_table *table)
{
	while (reader_left(r) > 0 && *r->pos)
		TRY(add_dir(dw, table, reader_text(r, NULL)));
	(void)reader_u8(r);
	while (reader_left(r) > 0 && *r->pos) {
		const char *name = reader_text(r, NULL);
		uint64_t dir = reader_uleb(r);
		(void)reader_uleb(r); /* time */
		(void)reader_uleb(r); /* size */
		if (!r->failed)
			TRY(add_file(dw, table, name, dir));
	}
	(void)reader_u8(r);
	return NULL;
}

/* Reads the header; leaves @p r at the program, ending where the table ends. */
static struct err *read_header(struct dw *dw, const struct dw_unit *unit, struct reader *r, struct line_table *table, struct header *ret)
{
	uint8_t offset_size = 4;
	uint64_t length = reader_u32(r);
	if (length == UINT32_MAX) {
		length = reader_u64(r);
		offset_size = 8;
	}
	if (r->failed || length > reader_left(r))
		return reader_error(r, "a line table of 0x%" PRIx64 " bytes where 0x%zx are left", length, reader_left(r));
	r->end = r->pos + length;
	table->version = reader_u16(r);
	if (r->failed || table->version < 2 || table->version > 5)
		return reader_error(r, "a line table of version %u", table->version);
	ret->address_size = unit->address_size;
	ret->offset_size = offset_size;
	if (table->version >= 5) {
		ret->address_size = reader_u8(r);
		(void)reader_u8(r); /* size of segment selectors */
	}
	uint64_t header_length = reader_uint(r, offset_size);
	if (r->failed || header_length > reader_left(r))
		return reader_error(r, "a line table header of 0x%" PRIx64 " bytes", header_length);
	struct reader header = *r;
	header.end = r->pos + header_length;
	reader_skip(r, header_length);
	ret->min_inst_length = reader_u8(&header);
	if (table->version >= 4)
		(void)reader_u8(&header); /* operations per instruction */
	(void)reader_u8(&header);	  /* default_is_stmt */
	ret->line_base = (int8_t)reader_u8(&header);
	ret->line_range = reader_u8(&header);
	ret->opcode_base = reader_u8(&header);
	memset(ret->operand_counts, 0, sizeof(ret->operand_counts));
	for (unsigned i = 1; i < ret->opcode_base; i++)
		ret->operand_counts[i] = reader_u8(&header);
	if (table->version >= 5) {
		struct dw_unit sizes = *unit;
		sizes.offset_size = offset_size;
		TRY(read_entries(dw, &sizes, &header, table, true));
		TRY(read_entries(dw, &sizes, &header, table, false));
	} else {
		TRY(read_names(dw, &header, table));
	}
	if (header.failed)
		return reader_error(&header, "the line table ends in its header");
	return NULL;
}

struct state {
	uint64_t vaddr;
	uint32_t file, line, column;
	size_t first;  /* raw row that begins the sequence */
	bool sorted;
};

static struct state start_state(const struct line_table *table)
{
	return (struct state){.file = 1, .line = 1, .first = table->raw.count, .sorted = true};
}

/* DW_LNE_end_sequence: keeps the rows since the last end if they are code. */
static struct err *end_sequence(struct dw *dw, const struct elffile *code, struct line_table *table, struct state *state)
{
	size_t count = table->raw.count - state->first;
	const struct line_row *rows = count > 0 ? &table->raw.items[state->first] : NULL;

	if (count > 0 && rows[0].vaddr < state->vaddr && elffile_is_code(code, rows[0].vaddr)) {
		TRY(ARRAY_ROOM(dw->account, &table->sequences, 1));
		table->sequences.items[table->sequences.count++] = (struct line_sequence){.first = state->first,
			.count = count,
			.low = rows[0].vaddr,
			.high = state->vaddr,
			.sorted = state->sorted && rows[count - 1].vaddr <= state->vaddr};
	} else {
		table->tombstones += count > 0;
		table->raw.count = state->first;
	}
	*state = start_state(table);
	return NULL;
}

static struct err *add_row(struct dw *dw, struct line_table *table, struct state *state)
{
	TRY(ARRAY_ROOM(dw->account, &table->raw, 1));
	struct line_row *row = &table->raw.items[table->raw.count++];
	*row = (struct line_row){.vaddr = state->vaddr, .file = state->file, .line = state->line, .column = state->column};
	if (table->raw.count - 1 > state->first && row[-1].vaddr > row->vaddr)
		state->sorted = false;
	return NULL;
}

static struct err *run_extended(struct dw *dw, const struct elffile *code, struct line_table *table, struct reader *r, struct state *state)
{
	uint64_t length = reader_uleb(r);
	struct reader body = reader_sub(r, length);

	if (r->failed || length == 0)
		return NULL;
	uint8_t opcode = reader_u8(&body);
	if (opcode == DW_LNE_end_sequence)
		return end_sequence(dw, code, table, state);
	if (opcode == DW_LNE_set_address && length >= 2 && length <= 9)
		state->vaddr = reader_uint(&body, (unsigned)length - 1);
	else if (opcode == DW_LNE_define_file && table->version < 5) {
		const char *name = reader_text(&body, NULL);
		uint64_t dir = reader_uleb(&body);
		if (!body.failed)
			return add_file(dw, table, name, dir);
	}
	return NULL;
}

static uint32_t to_u32(uint64_t value)
{
	return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static struct err *run_standard(struct dw *dw, const struct header *header, uint8_t opcode, struct line_table *table, struct reader *r,
	struct state *state)
{
	switch (opcode) {
	case DW_LNS_copy:
		return add_row(dw, table, state);
	case DW_LNS_advance_pc:
		state->vaddr += reader_uleb(r) * header->min_inst_length;
		break;
	case DW_LNS_advance_line:
		state->line += (uint32_t)reader_sleb(r);
		break;
	case DW_LNS_set_file:
		state->file = to_u32(reader_uleb(r));
		break;
	case DW_LNS_set_column:
		state->column = to_u32(reader_uleb(r));
		break;
	case DW_LNS_negate_stmt:
	case DW_LNS_set_basic_block:
	case DW_LNS_set_prologue_end:
	case DW_LNS_set_epilogue_begin:
		break;
	case DW_LNS_const_add_pc:
		if (header->line_range)
			state->vaddr += (uint64_t)((255 - header->opcode_base) / header->line_range) * header->min_inst_length;
		break;
	case DW_LNS_fixed_advance_pc:
		state->vaddr += reader_u16(r);
		break;
	case DW_LNS_set_isa:
		(void)reader_uleb(r);
		break;
	default:
		for (unsigned i = 0; i < header->operand_counts[opcode]; i++)
			(void)reader_uleb(r);
		break;
	}
	return NULL;
}

static struct err *run_program(struct dw *dw, const struct elffile *code, const struct header *header, struct reader *program,
	struct line_table *table)
{
	struct reader r = *program;
	struct state state = start_state(table);
	uint64_t advance[LINE_OPCODES] = {0};
	int32_t step[LINE_OPCODES] = {0};

	for (unsigned i = header->opcode_base; i < LINE_OPCODES && header->line_range; i++) {
		unsigned adjusted = i - header->opcode_base;
		advance[i] = (uint64_t)(adjusted / header->line_range) * header->min_inst_length;
		step[i] = header->line_base + (int32_t)(adjusted % header->line_range);
	}
	while (reader_left(&r) > 0) {
		uint8_t opcode = *r.pos++;
		if (opcode >= header->opcode_base) {
			state.vaddr += advance[opcode];
			state.line += (uint32_t)step[opcode];
			TRY(add_row(dw, table, &state));
		} else if (opcode == 0) {
			TRY(run_extended(dw, code, table, &r, &state));
		} else {
			TRY(run_standard(dw, header, opcode, table, &r, &state));
		}
	}
	if (r.failed)
		return reader_error(&r, "the line table ends in an operand");
	table->raw.count = state.first; /* rows of a sequence without an end */
	return NULL;
}

static int compare_ends(const void *a, const void *b)
{
	const struct line_sequence *x = a, *y = b;

	if (x->high != y->high)
		return x->high < y->high ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

/* Rows that go backwards within a sequence, which no compiler makes: sorted, the later one last at one address. */
static int compare_rows(const void *a, const void *b)
{
	const struct line_row *x = a, *y = b;

	if (x->vaddr != y->vaddr)
		return x->vaddr < y->vaddr ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void sort_rows(struct line_row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		rows[i].order = to_u32(i);
	qsort(rows, count, sizeof(*rows), compare_rows);
}

/* Appends the part [low, high) of one sequence. The rows are rising; a row that another at its address follows is nothing. */
static void flatten_one(struct line_table *table, const struct line_sequence *sequence, uint64_t low)
{
	const struct line_row *rows = table->raw.items + sequence->first;
	struct line_row *out = table->rows.items;
	size_t count = table->rows.count, i = 0;

	if (count && out[count - 1].vaddr == low)
		count--; /* the gap that the sequence before left */
	size_t start = count;
	while (i + 1 < sequence->count && rows[i + 1].vaddr <= low)
		i++;
	for (; i < sequence->count && rows[i].vaddr < sequence->high; i++) {
		uint64_t vaddr = rows[i].vaddr < low ? low : rows[i].vaddr;
		if (count > start && out[count - 1].vaddr == vaddr)
			count--;
		out[count] = rows[i];
		out[count++].vaddr = vaddr;
	}
	out[count++] = (struct line_row){.vaddr = sequence->high, .file = LINE_NO_FILE};
	table->rows.count = count;
}

static struct err *flatten(struct dw *dw, struct line_table *table)
{
	uint64_t end = 0;

	if (table->sequences.count == 0)
		return NULL;
	qsort(table->sequences.items, table->sequences.count, sizeof(*table->sequences.items), compare_ends);
	TRY(ARRAY_ROOM(dw->account, &table->rows, table->raw.count + table->sequences.count));
	for (size_t i = 0; i < table->sequences.count; i++) {
		const struct line_sequence *sequence = &table->sequences.items[i];
		uint64_t low = sequence->low < end ? end : sequence->low;
		if (!sequence->sorted)
			sort_rows(table->raw.items + sequence->first, sequence->count);
		if (low < sequence->high)
			flatten_one(table, sequence, low);
		end = sequence->high;
	}
	return NULL;
}

static struct err *read_table(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct line_table *table)
{
	struct reader r = dw->sections.line;
	uint64_t all = (uint64_t)(r.end - r.start);
	struct header header;

	if (unit->stmt_list >= all)
		return reader_error(&dw->sections.line, "no line table at 0x%" PRIx64, unit->stmt_list);
	reader_seek(&r, unit->stmt_list);
	TRY(read_header(dw, unit, &r, table, &header));
	TRY(dw_work(&dw->line_bytes, (uint64_t)(r.end - r.start) - unit->stmt_list, DW_LINE_WORK * all + DW_WORK_FREE, ".debug_line"));
	return run_program(dw, code, &header, &r, table);
}

void line_table_clear(struct line_table *table)
{
	err_free(TAKE_PTR(table->damage));
	table->valid = false;
	table->dirs.count = table->files.count = table->raw.count = table->sequences.count = table->rows.count = 0;
	table->tombstones = 0;
}

struct err *line_table_read(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct line_table *table)
{
	line_table_clear(table);
	struct err *e = read_table(dw, unit, code, table);
	if (e && err_code(e) != ERR_FORMAT)
		return e;
	table->damage = e;
	table->offset = unit->stmt_list;
	table->valid = true;
	return flatten(dw, table);
}

void line_table_deinit(struct line_table *table, struct account *account)
{
	err_free(table->damage);
	ARRAY_DEINIT(account, &table->dirs);
	ARRAY_DEINIT(account, &table->files);
	ARRAY_DEINIT(account, &table->raw);
	ARRAY_DEINIT(account, &table->sequences);
	ARRAY_DEINIT(account, &table->rows);
}

/* As LLVM judges it: "/x", "C:\x", "C:/x", "\\server\x". */
static bool is_absolute(const char *path)
{
	bool letter = (path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z');

	return path[0] == '/' || (letter && path[1] == ':' && (path[2] == '/' || path[2] == '\\')) || (path[0] == '\\' && path[1] == '\\');
}

static bool is_too_long(const char *a, const char *b, const char *c)
{
	return strnlen(a, LINE_PATH_MAX) + strnlen(b, LINE_PATH_MAX) + strnlen(c, LINE_PATH_MAX) + 2 > LINE_PATH_MAX;
}

/* Appends a component: one '/' between it and what stands from @p start on. */
static struct err *join(struct buf *path, size_t start, const char *component)
{
	size_t have = path->len - start;

	if (!*component)
		return NULL;
	if (have && path->data[path->len - 1] == '/')
		while (*component == '/')
			component++;
	else if (have && *component != '/')
		TRY(buf_append(path, "/", 1));
	return buf_append(path, component, strlen(component));
}

struct err *line_table_path(const struct line_table *table, const char *comp_dir, uint32_t file, struct buf *ret, bool *found_ret)
{
	size_t start = ret->len, index = file;
	const char *dir = "";

	*found_ret = false;
	if (table->version < 5 && index-- == 0)
		return NULL;
	if (!table->valid || index >= table->files.count || !table->files.items[index].name)
		return NULL;
	const struct line_file *entry = &table->files.items[index];
	if (!is_absolute(entry->name)) {
		/* DWARF 5: directory 0 is the unit's own, and is in the list. Before, 0 stands for it, and the list starts at 1. */
		uint64_t n = table->version >= 5 ? entry->dir : entry->dir - 1;
		if (n < table->dirs.count)
			dir = table->dirs.items[n];
		if ((table->version >= 5 && entry->dir == 0) || is_absolute(dir))
			comp_dir = "";
	} else {
		comp_dir = "";
	}
	if (is_too_long(comp_dir, dir, entry->name))
		return NULL;
	*found_ret = true;
	TRY(join(ret, start, comp_dir));
	TRY(join(ret, start, dir));
	TRY(join(ret, start, entry->name));
	return buf_append(ret, "", 1);
}

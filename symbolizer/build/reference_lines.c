// SPDX-License-Identifier: Apache-2.0
/*
 * Line tables by libdwarf 20210528, once for each distinct DW_AT_stmt_list (type and partial units share their unit's).
 *
 * Two defects of this version are known (found in its source, see docs/verification.md) and dealt with here:
 *
 *   - The file register of DWARF 5 starts at 0 instead of 1. A row in file 0 cannot be told from one in file 1 through
 *     the API, so that both are kept (reference_row.other_file); gcc's files 0 and 1 are the same.
 *   - For special opcodes the end_sequence flag is a copy of epilogue_begin (dwarf_line_table_reader_common.h:1394). The standard
 *     resets epilogue_begin with every row, and DW_LNE_end_sequence makes its row without it in every producer, so
 *     a row with both flags is a plain row. These are counted.
 *
 * A path is the file's name, below its include directory, below the compilation directory, each unless what it
 * is joined is absolute already (DWARF 5, 6.2.4). Directory 0 is the compilation directory itself.
 */
#include "symbolizer/build/reference_lines.h"

#include <dwarf.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

enum { FILES_MAX = 1 << 24 };

struct table {
	struct reference_lines *lines;
	Dwarf_Debug dbg;
	Dwarf_Line_Context context;
	uint64_t offset; /* DW_AT_stmt_list */
	Dwarf_Unsigned version;
	const char *comp_dir; /* "" when unknown */
	struct reference_files *files;
};

static void failed(struct table *table, const char *what, Dwarf_Error error)
{
	reference_failed(table->lines->reference, "%s: .debug_line+0x%" PRIx64 ": %s: libdwarf: %s",
		elffile_name(table->lines->file), table->offset, what, error ? dwarf_errmsg(error) : "no reason given");
	if (error)
		dwarf_dealloc_error(table->dbg, error);
}

/* The include directory of a file, "" for the compilation directory itself. */
static const char *directory(struct table *table, Dwarf_Unsigned index)
{
	Dwarf_Error error = NULL;
	const char *name = NULL;
	Dwarf_Signed at = (Dwarf_Signed)index;

	if (index > INT_MAX || (table->version < 5 && index == 0))
		return "";
	if (dwarf_srclines_include_dir_data(table->context, at, &name, &error) != DW_DLV_OK) {
		failed(table, "include directory", error);
		return "";
	}
	return name ? name : "";
}

static struct err *add_file(struct table *table, Dwarf_Signed index)
{
	const char *name = NULL;
	Dwarf_Unsigned dir_index = 0, time, length;
	Dwarf_Form_Data16 *md5 = NULL;
	Dwarf_Error error = NULL;
	char path[3 * PATH_MAX];

	if (dwarf_srclines_files_data_b(table->context, index, &name, &dir_index, &time, &length, &md5, &error) != DW_DLV_OK) {
		failed(table, "file", error);
		return NULL;
	}
	const char *dir = name[0] == '/' ? "" : directory(table, dir_index);
	/* Directory 0 of DWARF 5 is the compilation directory itself: it is not below it, even where it is relative (glibc's). */
	bool whole = name[0] == '/' || dir[0] == '/' || (table->version >= 5 && dir_index == 0 && dir[0]);
	const char *comp_dir = whole ? "" : table->comp_dir;
	(void)snprintf(path, sizeof(path), "%s%s%s%s%s", comp_dir, comp_dir[0] ? "/" : "", dir, dir[0] ? "/" : "", name);
	return reference_text(table->lines->reference, path, &table->files->paths[index]);
}

static struct err *add_files(struct table *table)
{
	Dwarf_Signed base = 0, count = 0, end = 0;
	Dwarf_Error error = NULL;

	if (dwarf_srclines_files_indexes(table->context, &base, &count, &end, &error) != DW_DLV_OK) {
		failed(table, "files", error);
		return NULL;
	}
	if (end < base || end > FILES_MAX || base < 0)
		return err_new(ERR_LIMIT, "%s: .debug_line+0x%" PRIx64 ": %lld files", elffile_name(table->lines->file), table->offset,
			(long long)end);
	table->files->paths = malloc(((size_t)end + 1) * sizeof(*table->files->paths));
	if (!table->files->paths)
		return err_nomem();
	table->files->count = (uint64_t)end;
	for (Dwarf_Signed i = 0; i < end; i++)
		table->files->paths[i] = REFERENCE_NONE;
	for (Dwarf_Signed i = base; i < end; i++)
		TRY(add_file(table, i));
	return NULL;
}

static uint32_t path_of(const struct table *table, uint64_t index)
{
	return index < table->files->count ? table->files->paths[index] : REFERENCE_NONE;
}

/* One row as libdwarf has it, its first defect undone. */
static bool read_row(struct table *table, Dwarf_Line line, struct reference_row *ret, bool *end_ret)
{
	Dwarf_Addr vaddr = 0;
	Dwarf_Unsigned number = 0, column = 0, file = 0, isa, discriminator;
	Dwarf_Bool end = false, prologue_end = false, epilogue_begin = false;
	Dwarf_Error error = NULL;

	if (dwarf_lineaddr(line, &vaddr, &error) != DW_DLV_OK || dwarf_lineno(line, &number, &error) != DW_DLV_OK ||
		dwarf_lineoff_b(line, &column, &error) != DW_DLV_OK || dwarf_line_srcfileno(line, &file, &error) != DW_DLV_OK ||
		dwarf_lineendsequence(line, &end, &error) != DW_DLV_OK ||
		dwarf_prologue_end_etc(line, &prologue_end, &epilogue_begin, &isa, &discriminator, &error) != DW_DLV_OK) {
		failed(table, "row", error);
		return false;
	}
	if (end && epilogue_begin) {
		end = false;
		table->lines->reference->repaired_rows++;
	}
	*end_ret = end;
	*ret = (struct reference_row){
		.vaddr = vaddr,
		.file = path_of(table, file),
		.other_file = table->version >= 5 && file == 0 ? path_of(table, 1) : REFERENCE_NONE,
		.line = number <= UINT32_MAX ? (uint32_t)number : 0,
		.column = column <= UINT32_MAX ? (uint32_t)column : 0,
	};
	return true;
}

/* Rows [first, rows.count) are a sequence that is kept when it begins in code. */
static struct err *end_sequence(struct table *table, size_t first)
{
	struct reference *reference = table->lines->reference;
	const struct reference_row *rows = reference->rows.items + first;
	const size_t count = reference->rows.count - first;

	if (count < 2 || rows[count - 1].vaddr <= rows[0].vaddr) {
		reference->rows.count = first;
		return NULL;
	}
	if (!elffile_is_code(table->lines->file, rows[0].vaddr)) {
		reference->tombstones++;
		reference->rows.count = first;
		return NULL;
	}
	TRY(ARRAY_ROOM(&reference->account, &reference->sequences, 1));
	reference->sequences.items[reference->sequences.count++] = (struct reference_sequence){
		.low = rows[0].vaddr, .high = rows[count - 1].vaddr, .first = first, .count = count};
	return NULL;
}

static struct err *add_rows(struct table *table)
{
	struct reference *reference = table->lines->reference;
	Dwarf_Line *lines = NULL;
	Dwarf_Signed count = 0;
	Dwarf_Error error = NULL;
	size_t first = reference->rows.count;

	int status = dwarf_srclines_from_linecontext(table->context, &lines, &count, &error);
	if (status == DW_DLV_ERROR)
		failed(table, "rows", error);
	if (status != DW_DLV_OK)
		return NULL;
	for (Dwarf_Signed i = 0; i < count; i++) {
		bool end = false;

		TRY(ARRAY_ROOM(&reference->account, &reference->rows, 1));
		if (!read_row(table, lines[i], &reference->rows.items[reference->rows.count], &end))
			continue;
		reference->rows.count++;
		if (end) {
			TRY(end_sequence(table, first));
			first = reference->rows.count;
		}
	}
	reference->rows.count = first; /* rows without an end are no sequence */
	return NULL;
}

static struct err *read_table(struct table *table, Dwarf_Die unit)
{
	Dwarf_Small kind = 0;
	Dwarf_Error error = NULL;
	const char *comp_dir = NULL;

	int status = dwarf_srclines_b(unit, &table->version, &kind, &table->context, &error);
	if (status == DW_DLV_ERROR)
		failed(table, "header", error);
	if (status != DW_DLV_OK)
		return NULL;
	table->lines->reference->line_tables++;
	if (dwarf_srclines_comp_dir(table->context, &comp_dir, &error) != DW_DLV_OK)
		comp_dir = NULL;
	table->comp_dir = comp_dir ? comp_dir : "";
	struct err *e = add_files(table);
	if (!e)
		e = add_rows(table);
	dwarf_srclines_dealloc_b(table->context);
	return e;
}

/* DW_AT_stmt_list; false when the unit has none. */
static bool line_offset(Dwarf_Debug dbg, Dwarf_Die unit, uint64_t *ret)
{
	Dwarf_Attribute attribute;
	Dwarf_Error error = NULL;
	Dwarf_Off offset = 0;

	if (dwarf_attr(unit, DW_AT_stmt_list, &attribute, &error) != DW_DLV_OK)
		return false;
	int status = dwarf_global_formref(attribute, &offset, &error);
	if (status != DW_DLV_OK) {
		dwarf_dealloc_error(dbg, error);
		status = dwarf_formudata(attribute, &offset, &error);
	}
	dwarf_dealloc_attribute(attribute);
	*ret = offset;
	return status == DW_DLV_OK;
}

struct err *reference_lines_read(struct reference_lines *lines, Dwarf_Debug dbg, Dwarf_Die unit,
	const struct reference_files **files_ret)
{
	struct table table = {.lines = lines, .dbg = dbg, .comp_dir = ""};
	uint64_t known = 0;

	*files_ret = NULL;
	if (!line_offset(dbg, unit, &table.offset))
		return NULL;
	if (hmap_get(&lines->tables, table.offset, &known)) {
		*files_ret = lines->files.items[known];
		return NULL;
	}
	TRY(ARRAY_ROOM(&lines->reference->account, &lines->files, 1));
	table.files = calloc(1, sizeof(*table.files));
	if (!table.files)
		return err_nomem();
	*files_ret = lines->files.items[lines->files.count++] = table.files;
	TRY(hmap_set(&lines->tables, table.offset, lines->files.count - 1));
	return read_table(&table, unit);
}

void reference_lines_deinit(struct reference_lines *lines)
{
	for (size_t i = 0; i < lines->files.count; i++) {
		free(lines->files.items[i]->paths);
		free(lines->files.items[i]);
	}
	ARRAY_DEINIT(&lines->reference->account, &lines->files);
	hmap_deinit(&lines->tables);
}

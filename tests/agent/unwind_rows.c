// SPDX-License-Identifier: Apache-2.0
/*
 * Prints what the parser makes of a file's call frame information, for the comparison with readelf:
 *     unwind-rows FILE          one row a line: section function low high cfa rbp ra
 *     unwind-rows --table FILE  checks that the compact table says the same at the first and last byte of each row; prints its sizes
 */
#include "agent/unwind/table.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct check {
	const struct unwind_table *table;
	struct unwind_infos *infos;
	const char *section;
	uint64_t rows, different;
};

static const char *const register_names[UNWIND_REGS] = {"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10",
	"r11", "r12", "r13", "r14", "r15"};

static void print_rule(uint8_t kind, uint8_t reg, int32_t off)
{
	if (kind == UNWIND_RULE_REG) {
		printf(" =%s", register_names[reg]);
		return;
	}
	if (kind == UNWIND_RULE_CFA)
		printf(" c%+d", off);
	else
		printf(" %s", kind == UNWIND_RULE_SAME ? "u" : kind == UNWIND_RULE_MEM ? "exp" : "undefined");
}

static struct err *print_row(void *context, const struct frames_row *row)
{
	const struct check *check = context;
	const struct unwind_info *info = &row->info;

	printf("%s %" PRIx64 " %" PRIx64 " %" PRIx64, check->section, row->function, row->low, row->high);
	if (info->cfa == UNWIND_CFA_STOP)
		printf(" stop u u\n");
	else if (info->cfa == UNWIND_CFA_NONE)
		printf(" unsupported u u\n");
	else {
		if (info->cfa == UNWIND_CFA_REG)
			printf(" %s%+d", register_names[info->cfa_reg], info->cfa_off);
		else
			printf(" exp");
		print_rule(info->fp, info->fp_reg, info->fp_off);
		print_rule(info->ra, info->ra_reg, info->ra_off);
		putchar('\n');
	}
	return NULL;
}

/** Whether a table says what a row says; where rbx is it says where that matters. */
static bool says(const struct unwind_info *info, const struct frames_row *row)
{
	struct unwind_info mine = *info, theirs = row->info;

	mine.bx = theirs.bx = mine.bx_reg = theirs.bx_reg = 0;
	mine.bx_off = theirs.bx_off = 0;
	return row->info.cfa == UNWIND_CFA_STOP ? mine.cfa == UNWIND_CFA_STOP : memcmp(&mine, &theirs, sizeof(mine)) == 0;
}

static struct err *compare_row(void *context, const struct frames_row *row)
{
	struct check *check = context;
	struct unwind_info first, last;

	if (row->low == 0)
		return NULL;
	check->rows++;
	unwind_table_lookup(check->table, check->infos, row->low, &first);
	unwind_table_lookup(check->table, check->infos, row->high - 1, &last);
	check->different += !says(&first, row) || !says(&last, row);
	return NULL;
}

static struct err *walk(const struct unwind_elf *elf, frames_row_fn *row, struct check *check)
{
	struct frames_section eh = {elf->eh_frame.bytes, elf->eh_frame.len, elf->eh_frame.vaddr, false, ".eh_frame"};
	struct frames_section debug = {elf->debug_frame.bytes, elf->debug_frame.len, elf->debug_frame.vaddr, true, ".debug_frame"};
	struct frames_counts counts = {0}, more = {0};

	check->section = eh.name;
	if (eh.bytes)
		TRY(frames_parse(&eh, row, check, &counts));
	check->section = debug.name;
	if (debug.bytes && (row == print_row || counts.fdes < UNWIND_DEBUG_FRAME_FDES))
		TRY(frames_parse(&debug, row, check, &more));
	fprintf(stderr, "fdes=%" PRIu64 " rows=%" PRIu64 " unsupported=%" PRIu64 " bad=%" PRIu64 "\n", counts.fdes + more.fdes,
		counts.rows + more.rows, counts.rows_unsupported + more.rows_unsupported, counts.fdes_bad + more.fdes_bad);
	return NULL;
}

static struct err *compare(const struct unwind_elf *elf)
{
	struct unwind_infos infos;
	struct unwind_table table;

	TRY(unwind_infos_init(&infos));
	struct err *e = unwind_table_build(elf, NULL, &infos, &table);
	if (e) {
		unwind_infos_deinit(&infos);
		return e;
	}
	struct check check = {.table = &table, .infos = &infos};
	e = walk(elf, compare_row, &check);
	printf("rows=%" PRIu64 " different=%" PRIu64 " deltas=%u pages=%u infos=%u\n", check.rows, check.different, table.delta_count,
		table.page_count, infos.count);
	unwind_table_deinit(&table);
	unwind_infos_deinit(&infos);
	return e;
}

int main(int argc, char **argv)
{
	bool is_table = argc == 3 && strcmp(argv[1], "--table") == 0;
	struct stat st;

	if (argc != 2 && !is_table) {
		fprintf(stderr, "usage: unwind-rows [--table] FILE\n");
		return 2;
	}
	const char *path = argv[argc - 1];
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	struct unwind_source source = {.fd = fd, .len = (uint64_t)st.st_size, .name = path};
	struct unwind_elf elf = {0};
	struct check check = {0};
	struct err *e = unwind_elf_read(&source, &elf);
	if (!e)
		e = is_table ? compare(&elf) : walk(&elf, print_row, &check);
	unwind_elf_deinit(&elf);
	if (e)
		fprintf(stderr, "%s\n", err_message(e));
	int code = e != NULL;
	err_free(e);
	return code;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * A drop-in for binutils' addr2line: the same options and the same bytes, so that perf, pprof and scripts can call it
 * instead. It reads the file once, into a table, and then answers from that. FILE may be a Cairn table, which needs no
 * reading at all.
 *
 * Differences, on purpose: no discriminators behind line numbers (tables do not hold them); an address in no function of
 * the ELF symbol table has no name, where binutils takes the nearest one before it, however far; clone suffixes
 * (`.part.0`) are dropped by -C; wrong usage exits 2.
 */
#include "cli/build_input.h"
#include "cli/commands.h"
#include "cli/frames.h"
#include "symbolizer/table/demangle.h"
#include "symbolizer/table/table.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { INPUT_LINE_BYTES = 100 /* as binutils: a longer line is taken in pieces */ };

struct addr2line {
	const char *file, *section;
	bool addresses, functions, inlines, demangle, pretty, base_names;
	struct cli_map map; /* of a table; empty when one was built */
	struct buf built;
	struct table table;
	unsigned address_digits;
	uint64_t section_vaddr, section_size; /* with -j */
	struct table_frame frames[TABLE_MAX_DEPTH];
};

static bool is_table(const struct cli_map *map)
{
	return map->len >= 8 && memcmp(map->bytes, "CAIRNTAB", 8) == 0;
}

static struct err *find_section(struct addr2line *a, const struct elffile *elf)
{
	const struct elffile_section *section = elffile_find(elf, a->section);

	if (!section)
		return err_new(ERR_NOT_FOUND, "%s: cannot find section %s", a->file, a->section);
	a->section_vaddr = section->vaddr;
	a->section_size = section->size;
	return NULL;
}

static struct err *open_input(struct addr2line *a)
{
	CLEANUP(build_input_deinit) struct build_input input = {0};

	a->address_digits = 16;
	TRY(cli_map_file(a->file, &a->map));
	if (is_table(&a->map)) {
		if (a->section)
			return err_new(ERR_INVALID, "%s: a table has no sections", a->file);
		return err_wrap(table_open(a->map.bytes, a->map.len, &a->table), "%s", a->file);
	}
	cli_unmap(&a->map);
	TRY(build_input_open(a->file, NULL, NULL, &input));
	if (!elffile_is_64(input.binary.elf))
		a->address_digits = 8;
	if (a->section)
		TRY(find_section(a, input.binary.elf));
	TRY(build_input_table(&input, cli_processors(), &a->built, NULL));
	return err_wrap(table_open(a->built.data, a->built.len, &a->table), "%s", a->file);
}

static void print_function(const struct addr2line *a, const struct table_frame *frame)
{
	char name[DEMANGLE_OUT_SIZE];
	const char *text = frame->function[0] ? frame->function : "??";

	if (a->demangle)
		text = demangle(text, DEMANGLE_FULL, name, sizeof(name));
	printf(a->pretty ? "%s at " : "%s\n", text);
}

static void print_place(const struct addr2line *a, const struct table_frame *frame)
{
	const char *slash = strrchr(frame->base, '/');

	if (!frame->base[0])
		printf("??:");
	else if (a->base_names)
		printf("%s:", slash ? slash + 1 : frame->base);
	else
		printf("%s%s%s:", frame->dir, frames_separator(frame), frame->base);
	if (frame->line)
		printf("%" PRIu32 "\n", frame->line);
	else
		printf("?\n");
}

static void answer(struct addr2line *a, const char *text)
{
	/* Whatever is no number counts as 0, as in binutils: perf sends a lone comma to see where an answer ends. */
	uint64_t asked = strtoull(text, NULL, 16);
	uint64_t vaddr = asked + a->section_vaddr;
	size_t count = a->section && asked >= a->section_size ?
			       0 :
			       table_lookup(&a->table, vaddr, a->frames, ARRAY_SIZE(a->frames));

	if (a->addresses)
		printf("0x%0*" PRIx64 "%s", (int)a->address_digits, asked, a->pretty ? ": " : "\n");
	if (count == 0) {
		if (a->functions)
			printf(a->pretty ? "?? " : "??\n");
		printf("??:0\n");
	}
	for (size_t i = 0; i < count; i++) {
		if (i > 0 && a->pretty)
			printf(" (inlined by) ");
		if (a->functions)
			print_function(a, &a->frames[i]);
		print_place(a, &a->frames[i]);
		if (!a->inlines)
			break;
	}
	/* Whoever asked through a pipe waits for this answer before it asks again. */
	(void)fflush(stdout);
}

/* CLI_OK with *go_on_ret true when addresses can be answered. */
static int parse_options(const struct cli_command *command, struct addr2line *a, int argc, char **argv, bool *go_on_ret)
{
	static const struct option options[] = {{"addresses", no_argument, NULL, 'a'}, {"target", required_argument, NULL, 'b'},
		{"demangle", optional_argument, NULL, 'C'}, {"exe", required_argument, NULL, 'e'},
		{"functions", no_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {"inlines", no_argument, NULL, 'i'},
		{"section", required_argument, NULL, 'j'}, {"pretty-print", no_argument, NULL, 'p'},
		{"recurse-limit", no_argument, NULL, 'R'}, {"no-recurse-limit", no_argument, NULL, 'r'},
		{"basenames", no_argument, NULL, 's'}, {"version", no_argument, NULL, 'v'}, {NULL, 0, NULL, 0}};

	*go_on_ret = false;
	for (int option; (option = getopt_long(argc, argv, "ab:Ce:fHhij:pRrsVv", options, NULL)) != -1;) {
		switch (option) {
		case 'a':
			a->addresses = true;
			break;
		case 'C':
			a->demangle = true;
			break;
		case 'e':
			a->file = optarg;
			break;
		case 'f':
			a->functions = true;
			break;
		case 'H':
		case 'h':
			return cli_help(command);
		case 'i':
			a->inlines = true;
			break;
		case 'j':
			a->section = optarg;
			break;
		case 'p':
			a->pretty = true;
			break;
		case 's':
			a->base_names = true;
			break;
		case 'b': /* one format only, and bounds that are always on */
		case 'R':
		case 'r':
			break;
		case 'V':
		case 'v':
			printf("cairn addr2line %s\n", CAIRN_VERSION);
			return CLI_OK;
		default:
			return CLI_USAGE;
		}
	}
	*go_on_ret = true;
	return CLI_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct addr2line a = {.file = "a.out"};
	char line[INPUT_LINE_BYTES];
	bool go_on;
	int status = parse_options(command, &a, argc, argv, &go_on);

	if (!go_on)
		return status;
	struct err *e = open_input(&a);
	for (int i = optind; !e && i < argc; i++)
		answer(&a, argv[i]);
	while (!e && optind == argc && fgets(line, sizeof(line), stdin))
		answer(&a, line);
	cli_unmap(&a.map);
	buf_deinit(&a.built);
	return e ? cli_fail(command, e) : CLI_OK;
}

const struct cli_command addr2line_command = {
	.name = "addr2line",
	.full = "cairn addr2line",
	.summary = "a drop-in for binutils' addr2line",
	.help = "usage: cairn addr2line [OPTION...] [ADDRESS...]\n"
		"\n"
		"Prints where each hexadecimal address is, as binutils' addr2line does: from the command line, else from\n"
		"standard input, one a line, each answered at once.\n"
		"\n"
		"  -e, --exe=FILE         the file (default: a.out): ELF, or a Cairn table\n"
		"  -a, --addresses        print the address first\n"
		"  -f, --functions        print the function\n"
		"  -i, --inlines          print the functions that the address was inlined into, too\n"
		"  -C, --demangle[=STYLE] print names as people read them; STYLE is ignored\n"
		"  -p, --pretty-print     one line an answer\n"
		"  -s, --basenames        no folders in file names\n"
		"  -j, --section=NAME     addresses count from the begin of this section\n"
		"  -b, -r, -R             accepted and ignored\n"
		"\n"
		"It prints no discriminators, and no name for an address that lies in no function.\n",
	.run = run,
};

// SPDX-License-Identifier: Apache-2.0
#include "base/digest.h"
#include "cli/build_input.h"
#include "cli/commands.h"
#include "cli/lookup.h"
#include "fileid/build_id.h"
#include "symbolizer/table/table.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	uint32_t bit;
	const char *name;
} sources[] = {
	{TABLE_FROM_DWARF, "dwarf"},
	{TABLE_FROM_GOPCLNTAB, "gopclntab"},
	{TABLE_FROM_SYMTAB, "symtab"},
	{TABLE_FROM_GNU_DEBUGDATA, "gnu_debugdata"},
	{TABLE_FROM_DYNSYM, "dynsym"},
};

static void print_sources(uint32_t bits)
{
	const char *comma = "";

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		if (!(bits & sources[i].bit))
			continue;
		printf("%s%s", comma, sources[i].name);
		comma = ",";
	}
}

/* Maps a table, checks its header and, for the commands that are about the file itself, its checksum. */
static struct err *open_table(const char *path, bool verify, struct cli_map *map, struct table *ret)
{
	TRY(cli_map_file(path, map));
	TRY(err_wrap(table_open(map->bytes, map->len, ret), "%s", path));
	return verify ? err_wrap(table_verify(ret), "%s", path) : NULL;
}

struct build_flags {
	const char *output, *debug, *package, *file;
	unsigned threads;
};

static struct err *build(const struct build_flags *flags)
{
	CLEANUP(build_input_deinit) struct build_input input = {0};
	CLEANUP(buf_deinit) struct buf table = {0};
	struct build_stats stats = {0};
	char size[24];
	uint64_t began = cli_now_ms();

	TRY(build_input_open(flags->file, flags->debug, flags->package, &input));
	TRY(build_input_table(&input, flags->threads, &table, &stats));
	TRY(cli_write_file(flags->output, table.data, table.len));
	printf("%s: %s, %" PRIu64 " functions, %" PRIu64 " inlined calls, %" PRIu64 " rows from ", flags->output,
		cli_format_bytes(table.len, size), stats.functions, stats.inline_nodes, stats.rows);
	print_sources(stats.sources);
	printf(" in %.2f s\n", (double)(cli_now_ms() - began) / 1000);
	if (stats.missing_splits > 0)
		fprintf(stderr, "cairn table build: %s: %" PRIu64 " units without names and inlined calls: %s\n", flags->file,
			stats.missing_splits, stats.reason);
	else if (stats.skipped_units > 0 || stats.damaged > 0)
		fprintf(stderr, "cairn table build: %s: %" PRIu64 " units skipped, %" PRIu64 " damaged parts left out: %s\n", flags->file,
			stats.skipped_units, stats.damaged, stats.reason);
	return NULL;
}

static int run_build(const struct cli_command *command, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"output", required_argument, NULL, 'o'},
		{"debug", required_argument, NULL, 'd'}, {"dwp", required_argument, NULL, 'p'}, {"jobs", required_argument, NULL, 'j'}, {NULL, 0, NULL, 0}};
	struct build_flags flags = {.threads = cli_processors()};

	for (int option; (option = getopt_long(argc, argv, "ho:j:", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		else if (option == 'o')
			flags.output = optarg;
		else if (option == 'd')
			flags.debug = optarg;
		else if (option == 'p')
			flags.package = optarg;
		else if (option != 'j')
			return CLI_USAGE;
		else if (!cli_parse_count(optarg, BUILD_THREADS_MAX, &flags.threads))
			return cli_usage(command, "-j takes a number from 1 to %d", BUILD_THREADS_MAX);
	}
	if (optind + 1 != argc || !flags.output)
		return cli_usage(command, "it takes one file and -o TABLE");
	if (flags.threads > BUILD_THREADS_MAX)
		flags.threads = BUILD_THREADS_MAX;
	flags.file = argv[optind];
	struct err *e = build(&flags);
	return e ? cli_fail(command, e) : CLI_OK;
}

static int run_lookup(const struct cli_command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"demangle", required_argument, NULL, 'd'}, {NULL, 0, NULL, 0}};
	enum demangle_style style = DEMANGLE_FULL;
	CLEANUP(cli_unmap) struct cli_map map = {0};
	struct table table;

	for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		if (option != 'd')
			return CLI_USAGE;
		if (!lookup_parse_style(optarg, &style))
			return cli_usage(command, "--demangle takes full, short or none");
	}
	if (optind + 1 != argc)
		return cli_usage(command, "it takes one table");
	struct err *e = open_table(argv[optind], false, &map, &table);
	if (!e)
		e = lookup_stream(&table, style, STDIN_FILENO, STDOUT_FILENO);
	return e ? cli_fail(command, e) : CLI_OK;
}

static struct err *print_stat(const struct table *table)
{
	char build_id[BUILD_ID_HEX_SIZE], digest_text[SHA256_HEX_SIZE];
	struct table_info info;
	struct sha256 digest;

	table_info(table, &info);
	build_id_format(&info.build_id, build_id);
	TRY(sha256_of(table->bytes, table->len, &digest));
	sha256_format(&digest, digest_text);
	printf("sha256: %s\nversion: %" PRIu32 "\nsources: ", digest_text, info.version);
	print_sources(info.sources);
	printf("\nbuild_id: %s\nmachine: %u\nrange: 0x%" PRIx64 "-0x%" PRIx64 "\n", build_id[0] ? build_id : "none",
		info.elf_machine, info.low_vaddr, info.high_vaddr);
	const struct {
		const char *name;
		uint64_t value;
	} lines[] = {
		{"functions", info.functions},
		{"files", info.files},
		{"inline_nodes", info.inline_nodes},
		{"rows", info.rows},
		{"blocks", info.blocks},
		{"index_bytes", info.index_bytes},
		{"block_bytes", info.block_bytes},
		{"node_bytes", info.node_bytes},
		{"function_bytes", info.function_bytes},
		{"file_bytes", info.file_bytes},
		{"string_bytes", info.string_bytes},
		{"total_bytes", info.total_bytes},
	};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		printf("%s: %" PRIu64 "\n", lines[i].name, lines[i].value);
	if (info.rows > 0)
		printf("bytes_per_row: %.2f\n", (double)info.total_bytes / (double)info.rows);
	return NULL;
}

static int run_stat(const struct cli_command *command, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	CLEANUP(cli_unmap) struct cli_map map = {0};
	struct table table;

	for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		return CLI_USAGE;
	}
	if (optind + 1 != argc)
		return cli_usage(command, "it takes one table");
	struct err *e = open_table(argv[optind], true, &map, &table);
	if (!e)
		e = print_stat(&table);
	return e ? cli_fail(command, e) : CLI_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	static const struct cli_command commands[] = {
		{
			.name = "build",
			.full = "cairn table build",
			.summary = "an ELF file, and its debug file, into a table",
			.help = "usage: cairn table build [--debug DEBUG] [--dwp PACKAGE] [-j N] FILE -o TABLE\n"
				"\n"
				"Reads the DWARF, the ELF symbols and what else names addresses in FILE and in its debug file, and\n"
				"writes a Cairn table. The same input gives the same bytes.\n"
				"\n"
				"  --debug DEBUG     the debug file; without it, it is looked for as gdb does: by build ID under\n"
				"                    /usr/lib/debug/.build-id, then by .gnu_debuglink\n"
				"  --dwp PACKAGE     the .dwp of split DWARF; without it, FILE.dwp beside FILE, then the .dwo files\n"
				"                    where FILE says, or beside it\n"
				"  -o, --output TABLE  where the table goes\n"
				"  -j, --jobs N      threads (default: all processors)\n",
			.run = run_build,
		},
		{
			.name = "lookup",
			.full = "cairn table lookup",
			.summary = "addresses from standard input into frames",
			.help = "usage: cairn table lookup [--demangle full|short|none] TABLE < ADDRESSES\n"
				"\n"
				"Reads one address a line, hexadecimal with or without 0x, as linked (vaddr), and prints one JSON\n"
				"object a line: {\"address\":\"0x..\",\"frames\":[..]}, frames innermost first; no frames where nothing\n"
				"covers the address.\n",
			.run = run_lookup,
		},
		{
			.name = "stat",
			.full = "cairn table stat",
			.summary = "what is in a table, and how large its parts are",
			.help = "usage: cairn table stat TABLE\n"
				"\n"
				"Verifies the checksum and prints `name: value` lines.\n",
			.run = run_stat,
		},
	};

	return cli_dispatch(command, commands, ARRAY_SIZE(commands), argc, argv);
}

const struct cli_command table_command = {
	.name = "table",
	.full = "cairn table",
	.summary = "make, read and describe Cairn tables",
	.help = "usage: cairn table build|lookup|stat ...\n",
	.run = run,
};

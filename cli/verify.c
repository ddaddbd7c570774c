// SPDX-License-Identifier: Apache-2.0
#include "cli/build_input.h"
#include "cli/commands.h"
#include "symbolizer/build/verify.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

enum { SAMPLES_DEFAULT = 100000, SAMPLES_MAX = 1000000000 };

struct verify_flags {
	const char *file, *debug, *package, *table;
	uint32_t samples, seed;
};

/* The table that is checked: the one named, else one built now. */
static struct err *get_table(const struct verify_flags *flags, const struct build_input *input, struct cli_map *map,
	struct buf *built, struct table *ret)
{
	if (flags->table) {
		TRY(cli_map_file(flags->table, map));
		TRY(err_wrap(table_open(map->bytes, map->len, ret), "%s", flags->table));
		return err_wrap(table_verify(ret), "%s", flags->table);
	}
	TRY(build_input_table(input, cli_processors(), built, NULL));
	return table_open(built->data, built->len, ret);
}

static struct err *verify(const struct verify_flags *flags)
{
	CLEANUP(build_input_deinit) struct build_input input = {0};
	CLEANUP(cli_unmap) struct cli_map map = {0};
	CLEANUP(buf_deinit) struct buf built = {0}, text = {0};
	struct table table;
	struct verify_report report = {0};

	TRY(build_input_open(flags->file, flags->debug, flags->package, &input));
	TRY(get_table(flags, &input, &map, &built, &table));
	const struct verify_request request = {
		.table = &table,
		.binary = input.binary.elf,
		.debug = input.debug.elf,
		.samples = flags->samples,
		.seed = flags->seed,
	};
	TRY(err_wrap(verify_table(&request, &report), "%s", flags->file));
	TRY(verify_report_text(&report, &text));
	if (fwrite(text.data, 1, text.len, stdout) != text.len)
		return NULL; /* told when standard output is closed */
	uint64_t differences = verify_difference_count(&report);
	return differences ? err_new(ERR_MISMATCH, "%s: %" PRIu64 " differences", flags->file, differences) : NULL;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"debug", required_argument, NULL, 'd'},
		{"table", required_argument, NULL, 't'}, {"dwp", required_argument, NULL, 'p'}, {"samples", required_argument, NULL, 'n'},
		{"seed", required_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
	struct verify_flags flags = {.samples = SAMPLES_DEFAULT, .seed = 1};

	for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		else if (option == 'd')
			flags.debug = optarg;
		else if (option == 'p')
			flags.package = optarg;
		else if (option == 't')
			flags.table = optarg;
		else if (option != 'n' && option != 's')
			return CLI_USAGE;
		else if (!cli_parse_count(optarg, SAMPLES_MAX, option == 'n' ? &flags.samples : &flags.seed))
			return cli_usage(command, "--%s takes a number from 1 to %d", option == 'n' ? "samples" : "seed", SAMPLES_MAX);
	}
	if (optind + 1 != argc)
		return cli_usage(command, "it takes one file");
	flags.file = argv[optind];
	struct err *e = verify(&flags);
	return e ? cli_fail(command, e) : CLI_OK;
}

const struct cli_command verify_command = {
	.name = "verify",
	.full = "cairn verify",
	.summary = "a file's table against a slow reference walk of its DWARF",
	.help = "usage: cairn verify [OPTION...] FILE\n"
		"\n"
		"Builds the table of FILE and compares it with what libdwarf and libelf say of the same file: at each\n"
		"boundary of each function, inlined call, line row and symbol, and at random addresses between. Prints\n"
		"what was compared and the first differences; exit 1 when there is any.\n"
		"\n"
		"  --debug DEBUG     the debug file; without it, it is looked for as gdb does\n"
		"  --dwp PACKAGE     the .dwp of split DWARF; without it, FILE.dwp, then the .dwo files where FILE says\n"
		"  --table TABLE     check this table instead of building one\n"
		"  --samples N       random addresses (default: 100000)\n"
		"  --seed N          of the random addresses (default: 1)\n",
	.run = run,
};

// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"
#include "fileid/fileid.h"

#include <getopt.h>
#include <stdio.h>

static int run(const struct cli_command *command, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int status = CLI_OK;

	for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		return CLI_USAGE;
	}
	if (optind == argc)
		return cli_usage(command, "a file is missing");
	for (int i = optind; i < argc; i++) {
		struct fileid id;
		char text[FILEID_HEX_SIZE];
		struct err *e = fileid_from_path(argv[i], &id);
		if (e) {
			status = cli_fail(command, e);
			continue;
		}
		fileid_format_hex(&id, text);
		printf("%s  %s\n", text, argv[i]);
	}
	return status;
}

const struct cli_command fileid_command = {
	.name = "fileid",
	.full = "cairn fileid",
	.summary = "the file ID of each file",
	.help = "usage: cairn fileid FILE...\n"
		"\n"
		"Prints `<32 hex>  FILE` for each file: the ID by which profilers know it (SHA-256 over its first and\n"
		"last 4096 bytes and its size, cut to 128 bits).\n",
	.run = run,
};

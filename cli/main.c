// SPDX-License-Identifier: Apache-2.0
/* `cairn`: one program, many commands. */
#include "base/standard.h"
#include "cli/commands.h"

int main(int argc, char **argv)
{
	static const struct cli_command cairn = {
		.full = "cairn",
		.help = "usage: cairn COMMAND [ARGUMENT...]\n"
			"\n"
			"Tells what addresses mean: functions, files, lines and the calls inlined there.\n",
	};
	const struct cli_command commands[] = {
		fileid_command, table_command, addr2line_command, verify_command, symbolize_command, profile_command, sync_command, store_command,
		agents_command};

	standard_hold();
	return cli_dispatch(&cairn, commands, ARRAY_SIZE(commands), argc, argv);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The commands of `cairn`, one a file.
 */
#ifndef CAIRN_CLI_COMMANDS_H
#define CAIRN_CLI_COMMANDS_H

#include "cli/cli.h"

extern const struct cli_command fileid_command;
extern const struct cli_command table_command;
extern const struct cli_command addr2line_command;
extern const struct cli_command verify_command;
extern const struct cli_command symbolize_command;
extern const struct cli_command profile_command;
extern const struct cli_command store_command;
extern const struct cli_command agents_command;
extern const struct cli_command sync_command;

#endif

// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"
#include "store/store.h"
#include "symbolizer/table/table.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

static struct err *verify_table(void *context, const void *bytes, size_t len)
{
	struct table table;

	(void)context;
	TRY(table_open(bytes, len, &table));
	return table_verify(&table);
}

static void print_fault(void *context, const char *message)
{
	cli_progress_clear(context);
	fprintf(stderr, "cairn store check: %s\n", message);
}

static void show(void *context, uint64_t done, uint64_t total)
{
	cli_progress_show(context, "tables: %" PRIu64 " of %" PRIu64, done, total);
}

static struct err *open_store(const char *data_dir, struct store **ret)
{
	struct store_options options = {.data_dir = data_dir, .read_only = true};

	return store_open(&options, ret); /* it names the folder */
}

static void print_counts(const struct store_counts *counts)
{
	const struct {
		const char *name;
		uint64_t value;
	} lines[] = {
		{"files", counts->files},
		{"aliases", counts->aliases},
		{"entries", counts->entries},
		{"tables", counts->tables},
		{"jobs", counts->jobs},
		{"misses", counts->misses},
		{"uploads", counts->uploads},
		{"originals", counts->blobs},
		{"table_bytes", counts->table_bytes},
		{"original_bytes", counts->blob_bytes},
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		printf("%s: %" PRIu64 "\n", lines[i].name, lines[i].value);
}

static struct err *check(const char *data_dir, uint64_t *faults_ret)
{
	CLEANUP(store_closep) struct store *store = NULL;
	struct cli_progress progress;
	const struct store_verifier verifier = {.verify = verify_table};
	const struct store_check_report report = {.fault = print_fault, .progress = show, .context = &progress};
	struct store_counts counts;

	cli_progress_init(&progress);
	TRY(open_store(data_dir, &store));
	struct err *e = store_check(store, &verifier, &report, &counts);
	cli_progress_clear(&progress);
	TRY(e);
	print_counts(&counts);
	printf("faults: %" PRIu64 "\n", counts.faults);
	*faults_ret = counts.faults;
	return NULL;
}

static struct err *print_stat(const char *data_dir)
{
	CLEANUP(store_closep) struct store *store = NULL;
	struct store_stat stat;

	TRY(open_store(data_dir, &store));
	TRY(store_stat(store, &stat));
	print_counts(&stat.counts);
	printf("file_bytes: %" PRIu64 "\nused_bytes: %" PRIu64 "\nfree_bytes: %" PRIu64 "\nmap_bytes: %" PRIu64 "\n",
		stat.file_bytes, stat.used_bytes, stat.free_bytes, stat.map_bytes);
	printf("readers: %" PRIu32 " of %" PRIu32 "\nschema_version: %" PRIu32 "\nlast_commit: %" PRIu64 "\n", stat.readers,
		stat.readers_max, stat.schema_version, stat.last_commit);
	return NULL;
}

/* --data-dir, for both commands. CLI_OK with *data_dir_ret when there is work to do. */
static int parse_options(const struct cli_command *command, int argc, char **argv, const char **data_dir_ret)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"data-dir", required_argument, NULL, 'd'}, {NULL, 0, NULL, 0}};
	const char *data_dir = NULL;

	for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		if (option != 'd')
			return CLI_USAGE;
		data_dir = optarg;
	}
	if (optind < argc && !data_dir)
		data_dir = argv[optind++];
	if (optind != argc || !data_dir)
		return cli_usage(command, "it takes --data-dir DIR");
	*data_dir_ret = data_dir;
	return CLI_OK;
}

static int run_check(const struct cli_command *command, int argc, char **argv)
{
	const char *data_dir = NULL;
	uint64_t faults = 0;
	int status = parse_options(command, argc, argv, &data_dir);

	if (!data_dir)
		return status;
	struct err *e = check(data_dir, &faults);
	if (!e && faults > 0)
		e = err_new(ERR_CORRUPT, "%s: %" PRIu64 " faults", data_dir, faults);
	return e ? cli_fail(command, e) : CLI_OK;
}

static int run_stat(const struct cli_command *command, int argc, char **argv)
{
	const char *data_dir = NULL;
	int status = parse_options(command, argc, argv, &data_dir);

	if (!data_dir)
		return status;
	struct err *e = print_stat(data_dir);
	return e ? cli_fail(command, e) : CLI_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	static const struct cli_command commands[] = {
		{
			.name = "check",
			.full = "cairn store check",
			.summary = "walk everything, verify every reference and checksum",
			.help = "usage: cairn store check --data-dir DIR\n"
				"\n"
				"Decodes every record, checks every reference both ways and verifies every table. One line on standard\n"
				"error for each fault; exit 1 when there is any. Works beside a running cairnd.\n",
			.run = run_check,
		},
		{
			.name = "stat",
			.full = "cairn store stat",
			.summary = "how much of what is in it",
			.help = "usage: cairn store stat --data-dir DIR\n"
				"\n"
				"Prints `name: value` lines. Verifies nothing. Works beside a running cairnd.\n",
			.run = run_stat,
		},
	};

	return cli_dispatch(command, commands, ARRAY_SIZE(commands), argc, argv);
}

const struct cli_command store_command = {
	.name = "store",
	.full = "cairn store",
	.summary = "check and describe the store of a cairnd",
	.help = "usage: cairn store check|stat --data-dir DIR\n",
	.run = run,
};

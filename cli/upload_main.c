// SPDX-License-Identifier: Apache-2.0
/* `upload-symbols`: private binaries and their debug files into a cairnd. */
#include "base/standard.h"
#include "cli/cli.h"
#include "cli/server.h"
#include "cli/upload.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { JOBS_DEFAULT = 4 };

static const struct cli_command upload_command = {
	.full = "upload-symbols",
	.help = "usage: upload-symbols [OPTION...] PATH...\n"
		"\n"
		"Sends executables, shared objects, Linux kernels and modules (vmlinux, vmlinuz, .ko, .ko.xz ..), debug\n"
		"files and Debian packages (.deb, .ddeb) to a cairnd, which makes symbols of them. Folders are searched\n"
		"through. An executable without DWARF goes together with its debug file: the one of the same build ID among\n"
		"the files found, else the one that gdb would find (build ID, .gnu_debuglink, /usr/lib/debug), for a kernel\n"
		"/usr/lib/debug/boot/vmlinux-RELEASE and the like. Supplements (dwz) and split DWARF (FILE.dwp, .dwo files)\n"
		"go with what needs them. What the server has is not sent again; what was interrupted goes on.\n"
		"\n"
		"  --url URL      of cairnd (default: " CLI_DEFAULT_URL ")\n"
		"  --debug FILE   the debug file of PATH, which is then one executable\n"
		"  --dry-run      say what would be sent, and send nothing\n"
		"  --force        send what the server has, too\n"
		"  --wait         wait until the server has made symbols of everything; fail if it could not\n"
		"  -j, --jobs N   files at once (default: 4)\n"
		"  --rate N       bytes a second of each of them (default: no limit)\n"
		"  --name NAME    what PATH, one executable, is called on the server (default: its base name)\n"
		"  -v, --verbose  list every warning and every file passed over\n"
		"  --version, --help\n",
};

struct flags {
	struct upload_options options;
	const char *debug_path;
	bool dry_run, verbose;
};

static void print_plan(const struct upload_plan *plan)
{
	char size[24];

	for (size_t i = 0; i < plan->file_count; i++) {
		const struct upload_file *file = &plan->files[i];
		char file_id[FILEID_HEX_SIZE] = "-", build_id[BUILD_ID_HEX_SIZE];
		if (file->has_file_id)
			fileid_format_hex(&file->file_id, file_id);
		build_id_format(&file->build_id, build_id);
		printf("would send  %-10s %s %s %s  %s\n", upload_role_name(file->role), file_id, build_id[0] ? build_id : "-",
			cli_format_bytes(file->size, size), file->path);
	}
	printf("%zu files, %s\n", plan->file_count, cli_format_bytes(plan->bytes, size));
}

static void print_summary(const struct upload_plan *plan, const struct upload_summary *summary, uint64_t ms)
{
	char size[24];

	printf("%zu sent (%s), %zu already there, %zu failed", summary->sent, cli_format_bytes(summary->sent_bytes, size),
		summary->existed, summary->failed + plan->failed);
	size_t objects = plan->skipped[UPLOAD_KIND_OBJECT], splits = plan->skipped[UPLOAD_KIND_SPLIT];
	if (plan->skipped[UPLOAD_KIND_OTHER] + objects + splits > 0)
		printf(", %zu other files passed over", plan->skipped[UPLOAD_KIND_OTHER] + objects + splits);
	if (objects > 0)
		printf(" (%zu object files)", objects);
	if (plan->warnings[UPLOAD_WARN_STRIPPED] > 0)
		printf(", %zu without symbols", plan->warnings[UPLOAD_WARN_STRIPPED]);
	printf(" in %.1f s\n", (double)ms / 1000);
}

/* @p failed_ret: something went wrong, and all of it was told. */
static struct err *upload(const struct flags *flags, char *const *paths, size_t count, bool *failed_ret)
{
	CLEANUP(upload_plan_deinit) struct upload_plan plan = {0};
	struct upload_summary summary = {0};
	uint64_t began = cli_now_ms();

	TRY(upload_plan_make(paths, count, flags->debug_path, flags->verbose, &plan));
	*failed_ret = plan.failed > 0;
	if (plan.file_count == 0 && plan.failed > 0)
		return NULL;
	if (flags->dry_run)
		print_plan(&plan);
	else
		TRY(upload_run(&plan, &flags->options, &summary));
	if (!flags->dry_run)
		print_summary(&plan, &summary, cli_now_ms() - began);
	if (summary.failed + plan.failed > 0)
		return err_new(ERR_PEER, "%zu of %zu files failed", summary.failed + plan.failed, plan.file_count + plan.failed);
	if (plan.file_count == 0)
		return err_new(ERR_NOT_FOUND, "%s: no ELF programs, debug files or packages in it", paths[0]);
	return NULL;
}

static bool parse_rate(const char *text, uint64_t *ret)
{
	uint32_t rate;

	if (!cli_parse_count(text, UINT32_MAX, &rate))
		return false;
	*ret = rate;
	return true;
}

/* CLI_OK with *go_on_ret true when there is something to do. */
static int parse_options(struct flags *flags, int argc, char **argv, bool *go_on_ret)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"url", required_argument, NULL, 'u'},
		{"debug", required_argument, NULL, 'd'}, {"dry-run", no_argument, NULL, 'n'}, {"force", no_argument, NULL, 'f'},
		{"wait", no_argument, NULL, 'w'}, {"jobs", required_argument, NULL, 'j'}, {"verbose", no_argument, NULL, 'v'}, {"rate", required_argument, NULL, 'r'}, {"name", required_argument, NULL, 'N'}, {"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0}};

	*go_on_ret = false;
	for (int option; (option = getopt_long(argc, argv, "hj:v", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(&upload_command);
		else if (option == 'u')
			flags->options.url = optarg;
		else if (option == 'd')
			flags->debug_path = optarg;
		else if (option == 'n')
			flags->dry_run = true;
		else if (option == 'f')
			flags->options.force = true;
		else if (option == 'w')
			flags->options.wait = true;
		else if (option == 'v')
			flags->verbose = true;
		else if (option == 'N')
			flags->options.name = optarg;
		else if (option == 'r' && !parse_rate(optarg, &flags->options.bytes_per_second))
			return cli_usage(&upload_command, "--rate takes a number of bytes");
		else if (option == 'r')
			continue;
		else if (option == 'V')
			return printf("upload-symbols %s\n", CAIRN_VERSION) < 0 ? CLI_FAILED : CLI_OK;
		else if (option != 'j')
			return CLI_USAGE;
		else if (!cli_parse_count(optarg, UPLOAD_JOBS_MAX, &flags->options.jobs))
			return cli_usage(&upload_command, "-j takes a number from 1 to %d", UPLOAD_JOBS_MAX);
	}
	if (!server_url_is_sound(flags->options.url))
		return cli_usage(&upload_command, "--url takes an http:// or https:// address, not \"%s\"", flags->options.url);
	if (optind == argc)
		return cli_usage(&upload_command, "a path is missing");
	*go_on_ret = true;
	return CLI_OK;
}

int main(int argc, char **argv)
{
	struct flags flags = {.options = {.url = CLI_DEFAULT_URL, .jobs = JOBS_DEFAULT}};
	bool go_on;
	char *name = (char *)(uintptr_t)upload_command.full;

	standard_hold();
	/* Messages of getopt begin with argv[0]. */
	if (argc > 0)
		argv[0] = name;
	int status = parse_options(&flags, argc, argv, &go_on);
	if (go_on) {
		bool failed = false;
		struct err *e = upload(&flags, argv + optind, (size_t)(argc - optind), &failed);
		status = e ? cli_fail(&upload_command, e) : failed ? CLI_FAILED : CLI_OK;
	}
	return cli_close_output(&upload_command, status);
}

// SPDX-License-Identifier: Apache-2.0
/* `cairn sync`: has cairnd fetch packages ahead of need, and shows how far it is. */
#include "cli/commands.h"
#include "cli/server.h"

#include "base/json.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { POLL_MS = 250, POLL_DRY_MS = 50 };

struct sync_options {
	const char *url;
	bool dry_run, status, no_wait;
};

static uint64_t number_of(const json_t *object, const char *member)
{
	const json_t *value = json_object_get(object, member);
	const char *text = json_string_value(value);

	return text ? strtoull(text, NULL, 10) : (uint64_t)json_integer_value(value);
}

/* Names come from strangers: nothing but what prints. */
static void print_text(FILE *to, const char *text)
{
	for (; *text; text++)
		(void)fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, to);
}

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "";
}

static struct err *call(struct server *server, const char *method, const char *path, const struct buf *body, struct server_reply *ret)
{
	TRY(server_call(server, method, path, body, ret));
	return ret->status < 300 ? NULL : server_reply_error(server, path, ret);
}

/* Every package of the run, a page at a time. */
static struct err *each_item(struct server *server, void (*each)(void *context, const json_t *item), void *context)
{
	for (size_t from = 0;;) {
		CLEANUP(server_reply_deinit) struct server_reply reply = {0};
		const json_t *item;
		char path[64];
		size_t i;
		(void)snprintf(path, sizeof(path), "/v1/sync?from=%zu", from);
		TRY(call(server, "GET", path, NULL, &reply));
		const json_t *items = json_object_get(reply.body, "items");
		json_array_foreach(items, i, item)
			each(context, item);
		if (json_array_size(items) == 0)
			return NULL;
		from += json_array_size(items);
	}
}

/* Why it failed, and what else there is to know, to the line's end. */
static void print_said(const json_t *item)
{
	static const char *const keys[] = {"reason", "note"};
	const char *separator = ": ";

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (!text_of(item, keys[i])[0])
			continue;
		(void)fputs(separator, stdout);
		print_text(stdout, text_of(item, keys[i]));
		separator = "; ";
	}
	(void)putchar('\n');
}

static void print_item(void *context, const json_t *item)
{
	char bytes[24];

	(void)context;
	(void)printf("%-9s %10s  ", text_of(item, "state"), cli_format_bytes(number_of(item, "bytes"), bytes));
	print_text(stdout, text_of(item, "name"));
	(void)putchar(' ');
	print_text(stdout, text_of(item, "version"));
	print_said(item);
}

static void print_chosen(void *context, const json_t *item)
{
	char bytes[24];

	(void)context;
	(void)printf("%10s  ", cli_format_bytes(number_of(item, "bytes"), bytes));
	print_text(stdout, text_of(item, "name"));
	(void)putchar(' ');
	print_text(stdout, text_of(item, "version"));
	print_said(item);
}

static void nap(unsigned ms)
{
	const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	(void)nanosleep(&time, NULL);
}

/* Until the run is over; the last state in @p ret. */
static struct err *follow(struct server *server, bool dry_run, struct server_reply *ret)
{
	struct cli_progress line;
	struct err *e = NULL;

	cli_progress_init(&line);
	for (;;) {
		char done[24], all[24];
		server_reply_deinit(ret);
		*ret = (struct server_reply){0};
		e = call(server, "GET", "/v1/sync?from=10000", NULL, ret);
		if (e || !json_is_true(json_object_get(ret->body, "running")))
			break;
		cli_progress_show(&line, "%" PRIu64 " of %" PRIu64 " packages, %s of %s", number_of(ret->body, "packages_done"),
			number_of(ret->body, "packages"), cli_format_bytes(number_of(ret->body, "bytes_done"), done),
			cli_format_bytes(number_of(ret->body, "bytes"), all));
		nap(dry_run ? POLL_DRY_MS : POLL_MS);
	}
	cli_progress_clear(&line);
	return e;
}

static struct err *begin(struct server *server, char **patterns, int count, bool dry_run)
{
	CLEANUP(server_reply_deinit) struct server_reply reply = {0};
	CLEANUP(buf_deinit) struct buf body = {0};
	struct json json = json_init(&body);

	json_object_begin(&json);
	json_key(&json, "patterns");
	json_array_begin(&json);
	for (int i = 0; i < count; i++)
		json_text(&json, patterns[i]);
	json_array_end(&json);
	json_key(&json, "dry_run");
	json_bool(&json, dry_run);
	json_object_end(&json);
	TRY(json_finish(&json));
	return call(server, "POST", "/v1/sync", &body, &reply);
}

/* What the run came to. A package that failed, or a run that ended early, is a failure. */
static struct err *sum_up(struct server *server, const json_t *run, bool dry_run)
{
	uint64_t packages = number_of(run, "packages"), failed = number_of(run, "failed");
	const char *reason = text_of(run, "reason");
	char bytes[24];

	if (reason[0])
		return err_new(ERR_PEER, "%s", reason);
	TRY(each_item(server, dry_run ? print_chosen : print_item, NULL));
	(void)printf("%" PRIu64 " packages, %s%s\n", packages, cli_format_bytes(number_of(run, "bytes"), bytes), dry_run ? " to fetch" : "");
	return failed ? err_new(ERR_PEER, "%" PRIu64 " of %" PRIu64 " packages failed", failed, packages) : NULL;
}

static struct err *run_sync(const struct sync_options *options, char **patterns, int count)
{
	CLEANUP(server_closep) struct server *server = NULL;
	CLEANUP(server_reply_deinit) struct server_reply reply = {0};

	TRY(server_open(options->url, &server));
	if (options->status) {
		TRY(call(server, "GET", "/v1/sync?from=10000", NULL, &reply));
		bool dry_run = json_is_true(json_object_get(reply.body, "dry_run"));
		TRY(sum_up(server, reply.body, dry_run));
		if (json_is_true(json_object_get(reply.body, "running")))
			(void)printf("running: %" PRIu64 " done\n", number_of(reply.body, "packages_done"));
		return NULL;
	}
	TRY(begin(server, patterns, count, options->dry_run));
	if (options->no_wait)
		return NULL;
	TRY(follow(server, options->dry_run, &reply));
	return sum_up(server, reply.body, options->dry_run);
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	static const struct option options[] = {{"url", required_argument, NULL, 'u'}, {"dry-run", no_argument, NULL, 'n'},
		{"status", no_argument, NULL, 's'}, {"no-wait", no_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'}, {0}};
	struct sync_options wanted = {.url = CLI_DEFAULT_URL};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'h':
			return cli_help(command);
		case 'u':
			wanted.url = optarg;
			break;
		case 'n':
			wanted.dry_run = true;
			break;
		case 's':
			wanted.status = true;
			break;
		case 'w':
			wanted.no_wait = true;
			break;
		default:
			return CLI_USAGE;
		}
	}
	if (wanted.status && optind < argc)
		return cli_usage(command, "--status takes no patterns");
	if (!wanted.status && optind == argc)
		return cli_usage(command, "a package's name or a pattern is missing");
	struct err *e = run_sync(&wanted, argv + optind, argc - optind);
	return cli_close_output(command, e ? cli_fail(command, e) : CLI_OK);
}

const struct cli_command sync_command = {
	.name = "sync",
	.full = "cairn sync",
	.summary = "fetch packages ahead of need",
	.help = "usage: cairn sync [--url URL] [--dry-run] [--no-wait] PATTERN...\n"
		"       cairn sync [--url URL] --status\n"
		"\n"
		"Has cairnd fetch packages of its repositories (sources.apt) and build tables for all their files. A PATTERN is a\n"
		"package's name, or a shell pattern that the whole name matches. With a program's package come its debug packages\n"
		"(-dbgsym, -dbg) of the same version, with a debug package the programs that it belongs to.\n"
		"\n"
		"What an earlier run finished is not fetched again: after an interruption the same command goes on.\n"
		"\n"
		"  --url URL  of cairnd (default: " CLI_DEFAULT_URL ")\n"
		"  --dry-run  only say what would be fetched\n"
		"  --no-wait  begin and return; cairnd goes on\n"
		"  --status   how the last run stands\n",
	.run = run,
};

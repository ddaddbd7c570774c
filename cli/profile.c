// SPDX-License-Identifier: Apache-2.0
/* `cairn profile`: GET /v1/profiles into a file or to standard output. */
#include "cli/commands.h"
#include "cli/server.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct profile_options {
	const char *url, *output;
	struct buf query; /* what stands after '?' */
	bool done;	  /* --help was asked, or the usage was wrong */
};

/* Appends "&name=value", percent-encoded as RFC 3986 asks of a query. */
static struct err *add_parameter(struct buf *query, const char *name, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:";

	TRY(buf_printf(query, "%s%s=", query->len ? "&" : "", name));
	for (; *value; value++) {
		if (strchr(plain, *value))
			TRY(buf_append(query, value, 1));
		else
			TRY(buf_printf(query, "%%%02X", (unsigned char)*value));
	}
	return NULL;
}

static bool is_format(const char *text)
{
	return strcmp(text, "pprof") == 0 || strcmp(text, "folded") == 0 || strcmp(text, "callgrind") == 0 || strcmp(text, "json") == 0;
}

static struct err *fetch(const struct profile_options *options, struct buf *ret)
{
	CLEANUP(server_closep) struct server *server = NULL;
	CLEANUP(freep) char *path = NULL;

	if (asprintf(&path, "/v1/profiles?%.*s", (int)options->query.len, (const char *)options->query.data) < 0) {
		path = NULL;
		return err_nomem();
	}
	TRY(server_open(options->url, &server));
	return server_get_bytes(server, path, ret);
}

static struct err *run_query(const struct profile_options *options)
{
	CLEANUP(buf_deinit) struct buf answer = {0};

	TRY(fetch(options, &answer));
	/* Folded stacks of nothing; other formats say so themselves. */
	if (answer.len == 0)
		(void)fprintf(stderr, "cairn profile: no samples: none in this time, or none that fits --filter\n");
	if (options->output && strcmp(options->output, "-") != 0)
		return cli_write_file(options->output, answer.data, answer.len);
	return cli_write(STDOUT_FILENO, answer.data, answer.len);
}

/* One option that becomes a parameter of the same meaning; NULL for others. */
static const char *parameter_of(int option)
{
	switch (option) {
	case 'F':
		return "from";
	case 'T':
		return "to";
	case 't':
		return "type";
	case 'k':
		return "filter";
	case 'g':
		return "group_by";
	default:
		return NULL;
	}
}

static int parse_options(const struct cli_command *command, struct profile_options *o, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"url", required_argument, NULL, 'u'},
		{"from", required_argument, NULL, 'F'}, {"to", required_argument, NULL, 'T'}, {"type", required_argument, NULL, 't'},
		{"filter", required_argument, NULL, 'k'}, {"group-by", required_argument, NULL, 'g'},
		{"format", required_argument, NULL, 'f'}, {"output", required_argument, NULL, 'o'}, {NULL, 0, NULL, 0}};
	const char *format = "folded";
	struct err *e = NULL;

	o->done = true;
	for (int option; !e && (option = getopt_long(argc, argv, "ho:", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		if (option == '?')
			return CLI_USAGE;
		if (option == 'u')
			o->url = optarg;
		else if (option == 'o')
			o->output = optarg;
		else if (option == 'f')
			format = optarg;
		else
			e = add_parameter(&o->query, parameter_of(option), optarg);
	}
	if (!e && !is_format(format))
		return cli_usage(command, "--format takes pprof, folded, callgrind or json");
	if (!e && optind < argc)
		return cli_usage(command, "\"%s\" is one argument too many", argv[optind]);
	if (!e)
		e = add_parameter(&o->query, "format", format);
	if (e)
		return cli_fail(command, e);
	if (strcmp(format, "pprof") == 0 && !o->output && isatty(STDOUT_FILENO))
		return cli_usage(command, "a pprof file is no text for a terminal: say -o FILE");
	o->done = false;
	return CLI_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct profile_options options = {.url = CLI_DEFAULT_URL};
	int status = parse_options(command, &options, argc, argv);

	if (!options.done) {
		struct err *e = run_query(&options);
		status = e ? cli_fail(command, e) : CLI_OK;
	}
	buf_deinit(&options.query);
	return status;
}

const struct cli_command profile_command = {
	.name = "profile",
	.full = "cairn profile",
	.summary = "get a profile from a cairnd, symbolized",
	.help = "usage: cairn profile [OPTION...]\n"
		"\n"
		"Everything that was sampled, as one profile; names are looked up now, so that symbols that came after the\n"
		"samples show. Times are RFC 3339, seconds since 1970, or relative: -15m, -1h, -7d.\n"
		"\n"
		"  --url URL         of cairnd (default: " CLI_DEFAULT_URL ")\n"
		"  --from TIME       (default: the beginning)\n"
		"  --to TIME         (default: now)\n"
		"  --type TYPE       cpu, or as samples:count; needed where there are several, which are never added together\n"
		"  --filter KEY=VALUE  only samples with this label: service, host, container, pid, tid, comm, executable, cpu, or\n"
		"                    the name of an attribute. May be given several times: all must hold\n"
		"  --group-by KEY    each value becomes a frame at the root. May be given several times\n"
		"  --format FORMAT   pprof, folded, callgrind or json (default: folded)\n"
		"  -o, --output FILE   (default: standard output)\n",
	.run = run,
};

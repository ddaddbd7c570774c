// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"
#include "cli/commands.h"
#include "cli/server.h"
#include "fileid/build_id.h"
#include "fileid/fileid.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
	ADDRESSES_PER_REQUEST = 10000,
	WAIT_MAX_S = 60,
	ADDRESS_LINE_BYTES = 256,
};

struct symbolize {
	const char *url, *id;
	const char *demangle; /* full, short, none */
	bool file_offsets, as_json;
	uint32_t wait_s;
	bool is_build_id; /* how the ID is sent */
	uint64_t *addresses;
	size_t count, cap;
};

static struct err *add_address(struct symbolize *s, const char *text)
{
	uint64_t address;

	if (!cli_parse_address(text, strlen(text), &address))
		return err_new(ERR_INVALID, "\"%s\" is not an address", text);
	if (s->count == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 256;
		uint64_t *addresses = reallocarray(s->addresses, cap, sizeof(*addresses));
		if (!addresses)
			return err_nomem();
		s->addresses = addresses;
		s->cap = cap;
	}
	s->addresses[s->count++] = address;
	return NULL;
}

static struct err *read_addresses(struct symbolize *s)
{
	char line[ADDRESS_LINE_BYTES];

	while (fgets(line, sizeof(line), stdin)) {
		char *text = line + strspn(line, " \t");
		text[strcspn(text, " \t\r\n")] = 0;
		if (*text)
			TRY(add_address(s, text));
	}
	return ferror(stdin) ? err_new(ERR_INVALID, "cannot read standard input") : NULL;
}

static struct err *write_request(const struct symbolize *s, size_t first, size_t count, struct buf *ret)
{
	struct json json = json_init(ret);

	json_object_begin(&json);
	json_key(&json, "modules");
	json_array_begin(&json);
	json_object_begin(&json);
	json_key(&json, s->is_build_id ? "build_id" : "file_id");
	json_text(&json, s->id);
	json_key(&json, "address_kind");
	json_text(&json, s->file_offsets ? "file_offset" : "vaddr");
	json_key(&json, "addresses");
	json_array_begin(&json);
	for (size_t i = 0; i < count; i++)
		json_hex(&json, s->addresses[first + i]);
	json_array_end(&json);
	json_object_end(&json);
	json_array_end(&json);
	json_key(&json, "demangle");
	json_text(&json, s->demangle);
	json_key(&json, "wait_ms");
	json_u64(&json, 1000 * (uint64_t)s->wait_s);
	json_object_end(&json);
	return json_finish(&json);
}

static const char *text_of(const json_t *object, const char *member, const char *fallback)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : fallback;
}

static void print_frame(const json_t *frame)
{
	json_int_t line = json_integer_value(json_object_get(frame, "line"));
	json_int_t column = json_integer_value(json_object_get(frame, "column"));
	const char *function = text_of(frame, "function", "");

	/* Lines without a function: code that neither DWARF nor a symbol names. */
	printf("    %s", function[0] ? function : "??");
	if (function[0] && json_object_get(frame, "offset"))
		printf("+%s", text_of(frame, "offset", ""));
	if (json_object_get(frame, "file"))
		printf(" at %s", text_of(frame, "file", "??"));
	if (line)
		printf(":%" JSON_INTEGER_FORMAT, line);
	if (column)
		printf(":%" JSON_INTEGER_FORMAT, column);
	printf("%s\n", json_is_true(json_object_get(frame, "inlined")) ? " (inlined)" : "");
}

static void print_results(const struct symbolize *s, size_t first, const json_t *results)
{
	size_t i, f;
	const json_t *result, *frame;

	json_array_foreach(results, i, result) {
		const json_t *frames = json_object_get(result, "frames");
		printf("0x%" PRIx64 "\n", s->addresses[first + i]);
		if (json_array_size(frames) == 0)
			printf("    ?? (%s)\n", text_of(result, "status", "no_symbol"));
		json_array_foreach(frames, f, frame)
			print_frame(frame);
	}
}

/* *unknown_ret: the server does not know the ID. */
static struct err *print_answer(const struct symbolize *s, size_t first, size_t count, const struct server_reply *reply,
	bool *unknown_ret)
{
	const json_t *module = json_array_get(json_object_get(reply->body, "modules"), 0);
	const char *status = text_of(module, "status", "no status");
	const char *reason = text_of(module, "reason", "");
	const json_t *results = json_object_get(module, "results");

	*unknown_ret = strcmp(status, "unknown") == 0;
	if (strcmp(status, "ok") != 0)
		return err_new(ERR_NOT_FOUND, "%s: %s%s%s", s->id, status, *reason ? ": " : "", reason);
	if (json_array_size(results) != count)
		return err_new(ERR_PEER, "%s: %zu results for %zu addresses", s->id, json_array_size(results), count);
	if (*reason)
		fprintf(stderr, "cairn symbolize: %s: %s\n", s->id, reason);
	if (!s->as_json)
		print_results(s, first, results);
	else if (json_dumpf(reply->body, stdout, JSON_COMPACT) == 0)
		printf("\n");
	return NULL;
}

static struct err *ask(struct symbolize *s, struct server *server, size_t first, size_t count, bool *unknown_ret)
{
	CLEANUP(buf_deinit) struct buf body = {0};
	CLEANUP(server_reply_deinit) struct server_reply reply = {0};

	TRY(write_request(s, first, count, &body));
	TRY(server_call(server, "POST", "/v1/symbolize", &body, &reply));
	if (reply.status != 200)
		return server_reply_error(server, "/v1/symbolize", &reply);
	return print_answer(s, first, count, &reply, unknown_ret);
}

static struct err *symbolize(struct symbolize *s)
{
	CLEANUP(server_closep) struct server *server = NULL;
	struct build_id build_id;
	struct fileid file_id;

	bool may_be_build_id = build_id_parse(s->id, strlen(s->id), &build_id);
	bool may_be_file_id = fileid_parse(s->id, strlen(s->id), &file_id);
	if (!may_be_build_id && !may_be_file_id)
		return err_new(ERR_INVALID, "\"%s\" is neither a file ID nor a build ID", s->id);
	s->is_build_id = !may_be_file_id;
	TRY(server_open(s->url, &server));
	for (size_t first = 0; first < s->count; first += ADDRESSES_PER_REQUEST) {
		size_t left = s->count - first;
		size_t count = left < ADDRESSES_PER_REQUEST ? left : ADDRESSES_PER_REQUEST;
		bool unknown = false;
		struct err *e = ask(s, server, first, count, &unknown);
		/* 32 digits may be a build ID of 16 bytes, too. */
		if (e && unknown && may_be_build_id && !s->is_build_id) {
			err_free(e);
			s->is_build_id = true;
			e = ask(s, server, first, count, &unknown);
		}
		TRY(e);
	}
	return NULL;
}

/* CLI_OK with s->id set when there is something to ask. */
static int parse_options(const struct cli_command *command, struct symbolize *s, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"url", required_argument, NULL, 'u'},
		{"demangle", required_argument, NULL, 'd'}, {"file-offset", no_argument, NULL, 'o'},
		{"json", no_argument, NULL, 'J'}, {"wait", required_argument, NULL, 'w'}, {NULL, 0, NULL, 0}};

	for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (option == 'h')
			return cli_help(command);
		else if (option == 'u')
			s->url = optarg;
		else if (option == 'd')
			s->demangle = optarg;
		else if (option == 'o')
			s->file_offsets = true;
		else if (option == 'J')
			s->as_json = true;
		else if (option != 'w')
			return CLI_USAGE;
		else if (!cli_parse_count(optarg, WAIT_MAX_S, &s->wait_s))
			return cli_usage(command, "--wait takes 1 to %d seconds", WAIT_MAX_S);
	}
	if (strcmp(s->demangle, "full") != 0 && strcmp(s->demangle, "short") != 0 && strcmp(s->demangle, "none") != 0)
		return cli_usage(command, "--demangle takes full, short or none");
	if (optind == argc)
		return cli_usage(command, "an ID is missing");
	s->id = argv[optind++];
	return CLI_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct symbolize s = {.url = CLI_DEFAULT_URL, .demangle = "full"};
	int status = parse_options(command, &s, argc, argv);
	struct err *e = NULL;

	if (!s.id)
		return status;
	for (int i = optind; !e && i < argc; i++)
		e = add_address(&s, argv[i]);
	if (!e && optind == argc)
		e = read_addresses(&s);
	if (!e)
		e = symbolize(&s);
	free(s.addresses);
	return e ? cli_fail(command, e) : CLI_OK;
}

const struct cli_command symbolize_command = {
	.name = "symbolize",
	.full = "cairn symbolize",
	.summary = "ask a cairnd what addresses mean",
	.help = "usage: cairn symbolize [OPTION...] ID ADDRESS...\n"
		"\n"
		"ID is a file ID (32 hex digits or 22 base64url characters) or a GNU build ID (hex). Addresses are\n"
		"hexadecimal, as linked; without any they are read from standard input, one a line.\n"
		"\n"
		"  --url URL         of cairnd (default: " CLI_DEFAULT_URL ")\n"
		"  --file-offset     the addresses are offsets in the file\n"
		"  --demangle HOW    full, short or none (default: full)\n"
		"  --wait SECONDS    wait so long for symbols that are being built\n"
		"  --json            print the server's answer as it is\n",
	.run = run,
};

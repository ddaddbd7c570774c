// SPDX-License-Identifier: Apache-2.0
/* `cairn agents`: GET /v1/agents as a table. */
#include "cli/commands.h"
#include "cli/server.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static const char *text_of(const json_t *agent, const char *member)
{
	const char *text = json_string_value(json_object_get(agent, member));

	return text && text[0] ? text : "-";
}

/* 64-bit numbers are strings in our JSON. */
static uint64_t number_of(const json_t *agent, const char *member)
{
	const char *text = json_string_value(json_object_get(agent, member));

	return text ? strtoull(text, NULL, 10) : 0;
}

/* Of "lost" or "cut". */
static uint64_t samples_of(const json_t *agent, const char *member)
{
	const json_t *loss;
	uint64_t sum = 0;
	size_t i;

	json_array_foreach(json_object_get(agent, member), i, loss)
		sum += number_of(loss, "samples");
	return sum;
}

/* A peer's word on a terminal: nothing but what prints. */
static void print_text(const char *text, int width)
{
	char cell[64];
	size_t n = 0;

	for (; text[n] && n < sizeof(cell) - 1; n++)
		cell[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? '?' : text[n];
	cell[n] = 0;
	(void)printf("%-*s", width, cell);
}

static void print_cell(const char *text, int width)
{
	print_text(text, width);
	(void)putchar(' ');
}

/* How long ago, in the largest unit that says something. */
static const char *age(uint64_t ms, char text[32])
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000, s = now_ms > ms ? (now_ms - ms) / 1000 : 0;

	if (s < 120)
		(void)snprintf(text, 32, "%" PRIu64 "s ago", s);
	else if (s < 7200)
		(void)snprintf(text, 32, "%" PRIu64 "m ago", s / 60);
	else
		(void)snprintf(text, 32, "%" PRIu64 "h ago", s / 3600);
	return text;
}

static void print_agent(const json_t *agent)
{
	uint64_t cpu_ns = number_of(agent, "cpu_user_ns") + number_of(agent, "cpu_system_ns") + number_of(agent, "bpf_ns");
	uint64_t taken = number_of(agent, "samples_taken");
	bool has_status = json_object_get(agent, "cpu_user_ns");
	const char *name = json_string_value(json_object_get(agent, "agent"));
	char version[128], seen[32], memory[24], cpu[32] = "-", lost[32] = "-", cut[32] = "-", samples[32];

	if (has_status) {
		(void)snprintf(cpu, sizeof(cpu), "%.1fs", (double)cpu_ns / 1e9);
		(void)snprintf(lost, sizeof(lost), "%" PRIu64, samples_of(agent, "lost"));
	}
	if (has_status && taken > 0)
		(void)snprintf(cut, sizeof(cut), "%.2f%%", 100.0 * (double)samples_of(agent, "cut") / (double)taken);
	(void)snprintf(samples, sizeof(samples), "%" PRIu64, number_of(agent, "samples"));
	print_cell(text_of(agent, json_object_get(agent, "host") ? "host" : "peer"), 24);
	print_cell(text_of(agent, "protocol"), 8);
	(void)snprintf(version, sizeof(version), "%s%s%s", name ? name : "", name ? " " : "", text_of(agent, "version"));
	print_cell(version, 24);
	print_cell(text_of(agent, "kernel"), 20);
	(void)printf("%7" JSON_INTEGER_FORMAT " ", json_integer_value(json_object_get(agent, "streams")));
	(void)printf("%12s %10s %8s %8s ", samples, lost, cut, cpu);
	(void)printf("%10s ", has_status ? cli_format_bytes(number_of(agent, "memory_bytes") + number_of(agent, "bpf_map_bytes"), memory) : "-");
	(void)printf("%s\n", age(number_of(agent, "last_seen_unix_ms"), seen));
}

/* "  lost: queue_full 5": a line of its own under the agent's. */
static void print_reasons(const json_t *agent, const char *member)
{
	const json_t *loss;
	size_t i;

	json_array_foreach(json_object_get(agent, member), i, loss)
	{
		(void)printf(i == 0 ? "  %s: " : ", ", member);
		print_text(text_of(loss, "reason"), 0);
		(void)printf(" %" PRIu64, number_of(loss, "samples"));
	}
	if (i > 0)
		(void)putchar('\n');
}

static struct err *show(const char *url, bool as_json, bool with_reasons)
{
	CLEANUP(server_closep) struct server *server = NULL;
	CLEANUP(server_reply_deinit) struct server_reply reply = {0};
	const json_t *agent;
	size_t i;

	TRY(server_open(url, &server));
	TRY(server_call(server, "GET", "/v1/agents", NULL, &reply));
	if (reply.status != 200)
		return server_reply_error(server, "/v1/agents", &reply);
	if (as_json) {
		char *text = json_dumps(reply.body, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		if (!text)
			return err_nomem();
		(void)puts(text);
		free(text);
		return NULL;
	}
	(void)printf("%-24s %-8s %-24s %-20s %7s %12s %10s %8s %8s %10s %s\n", "HOST", "PROTOCOL", "VERSION", "KERNEL", "STREAMS", "SAMPLES", "LOST",
		"CUT", "CPU", "MEMORY", "LAST SEEN");
	json_array_foreach(json_object_get(reply.body, "agents"), i, agent)
	{
		print_agent(agent);
		if (with_reasons) {
			print_reasons(agent, "lost");
			print_reasons(agent, "cut");
		}
	}
	return NULL;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	static const struct option options[] = {{"url", required_argument, NULL, 'u'}, {"json", no_argument, NULL, 'j'},
		{"reasons", no_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *url = CLI_DEFAULT_URL;
	bool as_json = false, with_reasons = false;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h')
			return cli_help(command);
		if (option == 'u')
			url = optarg;
		else if (option == 'j')
			as_json = true;
		else if (option == 'r')
			with_reasons = true;
		else
			return CLI_USAGE;
	}
	if (optind < argc)
		return cli_usage(command, "\"%s\" is one argument too many", argv[optind]);
	struct err *e = show(url, as_json, with_reasons);
	return cli_close_output(command, e ? cli_fail(command, e) : CLI_OK);
}

const struct cli_command agents_command = {
	.name = "agents",
	.full = "cairn agents",
	.summary = "who sends profiles",
	.help = "usage: cairn agents [--url URL] [--json | --reasons]\n"
		"\n"
		"Lists who sends profiles to cairnd: host, agent and version, kernel, samples taken in, what the agent lost\n"
		"itself, the share of its samples whose stack is not whole, its CPU time and memory (BPF included), and when\n"
		"it was last heard of.\n"
		"\n"
		"  --url URL  of cairnd (default: " CLI_DEFAULT_URL ")\n"
		"  --json     as cairnd gives it\n"
		"  --reasons  below each agent, why samples were lost and stacks cut\n",
	.run = run,
};

// SPDX-License-Identifier: Apache-2.0
/* Flags and what they mean together; every key is in docs/agent.md. */
#include "agent/options.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS_MAX = 12 };

/* Reads `cairn-agent ...`; the error's text goes to @p message. */
static bool reads(struct options *o, char message[256], const char *const *arguments)
{
	char *argv[ARGUMENTS_MAX + 2] = {strdup("cairn-agent")};
	char *given[ARGUMENTS_MAX + 2];
	enum options_wish wish;
	int argc = 1;

	for (; arguments[argc - 1]; argc++)
		argv[argc] = strdup(arguments[argc - 1]);
	memcpy(given, argv, sizeof(given));
	*o = (struct options){0};
	struct err *e = options_read(argc, argv, o, &wish);
	snprintf(message, 256, "%s", e ? err_message(e) : "");
	cr_assert(!e || err_code(e) == ERR_INVALID, "%s", message);
	bool ok = e == NULL;
	err_free(e);
	for (int i = 0; i < argc; i++)
		free(given[i]);
	return ok;
}

#define READS(o, ...) reads(&(o), message, (const char *const[]){__VA_ARGS__, NULL})

Test(options_read, defaults_are_those_of_the_help)
{
	struct options o;
	char message[256];
	cr_assert(READS(o, "--verbose"));
	cr_assert_eq(o.protocol, PROTOCOL_CAIRN);
	cr_assert_null(o.collector);
	cr_assert_eq(o.hz, 20u);
	cr_assert_eq(o.queue_bytes, (uint64_t)4 << 20);
	cr_assert_eq(o.off_cpu_threshold, 0u);
	cr_assert_not(o.upload || o.tls);
	struct sampler_options s = options_sampler(&o);
	cr_assert_eq(s.only_pid, 0u);
	cr_assert_eq(s.deltas_max, (uint32_t)SAMPLER_DELTAS);
	cr_assert_eq(s.pages_max, (uint32_t)SAMPLER_PAGES);
	cr_assert_eq(s.mappings_max, (uint32_t)SAMPLER_MAPPINGS);
	cr_assert_eq(s.ring_bytes, (uint32_t)SAMPLER_RING_BYTES);
	options_deinit(&o);
}

Test(options_read, what_is_given_together)
{
	struct options o;
	char message[256];
	cr_assert(READS(o, "--once", "2s", "-o", "f", "--pid", "42", "--off-cpu-threshold", "0.5"), "%s", message);
	cr_assert_eq(o.protocol, PROTOCOL_FILE);
	cr_assert_eq(o.once_ms, 2000u);
	cr_assert_eq(options_sampler(&o).only_pid, 42u);
	cr_assert_eq(o.off_cpu_threshold, 1u << 31);
	options_deinit(&o);
	cr_assert(READS(o, "--uprobe", "/a:b", "--uprobe=/c+0x10", "--labels", "a=b,c=d=e", "--tls-ca", "x.pem", "--pid=1,2"), "%s", message);
	cr_assert_eq(options_sampler(&o).probe_count, 2u);
	cr_assert_str_eq(options_sampler(&o).probes[0], "/a:b");
	cr_assert_str_eq(options_sampler(&o).probes[1], "/c+0x10");
	cr_assert_eq(options_sampler(&o).only_pid, 0u, "several are told apart outside of the kernel");
	cr_assert_eq(o.label_count, 2u);
	cr_assert_eq(o.label_items[1].value.len, 3u);
	cr_assert(o.tls, "a file of authorities means TLS");
	options_deinit(&o);
}

Test(options_read, what_makes_no_sense_is_said)
{
	static const struct {
		const char *arguments[6], *words; /* arguments end with NULL */
	} wrong[] = {
		{{"-o", "f"}, "--once"},
		{{"--once", "1s", "-o", "f", "--collector=a:1"}, "--collector"},
		{{"--protocol", "grpc"}, "grpc"},
		{{"--protocol=otlp", "--record", "f"}, "--record"},
		{{"--samples-per-second", "0"}, "0"},
		{{"--samples-per-second", "1001"}, "1001"},
		{{"--probability", "101"}, "101"},
		{{"--off-cpu-threshold", "1.1"}, "1.1"},
		{{"--off-cpu-threshold", "nan"}, "nan"},
		{{"--ring-bytes", "5000"}, "power of two"},
		{{"--labels", "a"}, "\"a\""},
		{{"--labels", "=b"}, "=b"},
		{{"--labels", "a="}, "a="},
		{{"--pid", "x"}, "\"x\""},
		{{"--tls-cert", "c"}, "tls.key"},
		{{"--log.level", "loud"}, "loud"},
		{{"--no-such-flag"}, "--no-such-flag"},
		{{"word"}, "word"},
		{{"--once"}, "--once"},
		{{"--uprobe"}, "--uprobe"},
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct options o;
		char message[256];
		cr_expect_not(reads(&o, message, wrong[i].arguments), "%zu", i);
		cr_expect_not_null(strstr(message, wrong[i].words), "%zu: %s", i, message);
		options_deinit(&o);
	}
}

Test(options_table, every_key_is_documented)
{
	char path[512], name[80], *text = calloc(1, 1 << 20);
	snprintf(path, sizeof(path), "%s/docs/agent.md", getenv("CAIRN_SOURCE_DIR"));
	FILE *file = fopen(path, "re");
	cr_assert_not_null(file, "%s", path);
	cr_assert_gt(fread(text, 1, (1 << 20) - 1, file), 1000u);
	fclose(file);
	for (size_t i = 0; i < options_table()->count; i++) {
		snprintf(name, sizeof(name), "`%s`", options_table()->keys[i].name);
		cr_expect_not_null(strstr(text, name), "%s is not in docs/agent.md", name);
	}
	free(text);
}

// SPDX-License-Identifier: Apache-2.0
#include "worker/options.h"

#include "ingest/protocol.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

enum key_type { KEY_FD, KEY_U64, KEY_UNSIGNED };

struct key {
	const char *name;
	enum key_type type;
	size_t offset;
	uint64_t min, max;
};

static const struct key keys[] = {
	{"binary", KEY_FD, offsetof(struct worker_options, binary_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"debug", KEY_FD, offsetof(struct worker_options, debug_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"supplement", KEY_FD, offsetof(struct worker_options, supplement_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"split", KEY_FD, offsetof(struct worker_options, split_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"package", KEY_FD, offsetof(struct worker_options, package_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"sibling", KEY_FD, offsetof(struct worker_options, sibling_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"wanted", KEY_FD, offsetof(struct worker_options, wanted_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"scratch", KEY_FD, offsetof(struct worker_options, scratch_fd), PROTOCOL_FD_INPUT, PROTOCOL_FD_INPUT + PROTOCOL_INPUTS_MAX},
	{"memory", KEY_U64, offsetof(struct worker_options, memory_bytes), 16 << 20, UINT64_MAX / 4},
	{"table", KEY_U64, offsetof(struct worker_options, table_bytes), 1, UINT64_MAX / 4},
	{"unpacked", KEY_U64, offsetof(struct worker_options, unpacked_bytes), 1, UINT64_MAX / 4},
	{"cpu", KEY_U64, offsetof(struct worker_options, cpu_seconds), 1, UINT32_MAX},
	{"threads", KEY_UNSIGNED, offsetof(struct worker_options, threads), 1, 64},
	{"alone", KEY_UNSIGNED, offsetof(struct worker_options, alone), 0, 1},
};

static bool parse_number(const char *text, uint64_t *ret)
{
	uint64_t value = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		unsigned digit = (unsigned)(unsigned char)*text - '0';
		if (digit > 9 || value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*ret = value;
	return true;
}

static struct err *set_key(struct worker_options *options, const struct key *key, const char *text)
{
	uint64_t value;
	uint8_t *member = (uint8_t *)options + key->offset;

	if (!parse_number(text, &value) || value < key->min || value > key->max)
		return err_new(ERR_INVALID, "%s=%s: not a number of %" PRIu64 " to %" PRIu64, key->name, text, key->min, key->max);
	switch (key->type) {
	case KEY_FD:
		*(int *)(void *)member = (int)value;
		break;
	case KEY_U64:
		*(uint64_t *)(void *)member = value;
		break;
	case KEY_UNSIGNED:
		*(unsigned *)(void *)member = (unsigned)value;
		break;
	}
	return NULL;
}

static struct err *parse_key(struct worker_options *options, const char *word)
{
	const char *equals = strchr(word, '=');

	for (size_t i = 0; equals && i < ARRAY_SIZE(keys); i++)
		if (strlen(keys[i].name) == (size_t)(equals - word) && memcmp(keys[i].name, word, (size_t)(equals - word)) == 0)
			return set_key(options, &keys[i], equals + 1);
	return err_new(ERR_INVALID, "unknown parameter %s", word);
}

static struct err *check_inputs(const struct worker_options *options)
{
	if (options->mode == WORKER_PACKAGE && (options->package_fd < 0 || options->scratch_fd < 0))
		return err_new(ERR_INVALID, "package needs package= and scratch=");
	if (options->mode == WORKER_ELF && options->binary_fd < 0 && options->debug_fd < 0)
		return err_new(ERR_INVALID, "elf needs binary= or debug=");
	return NULL;
}

struct err *worker_options_parse(int argc, char **argv, struct worker_options *ret)
{
	struct worker_options options = {
		.binary_fd = -1,
		.debug_fd = -1,
		.supplement_fd = -1,
		.split_fd = -1,
		.package_fd = -1,
		.sibling_fd = -1,
		.wanted_fd = -1,
		.scratch_fd = -1,
		.memory_bytes = UINT64_C(4) << 30,
		.table_bytes = UINT64_C(1) << 30,
		.unpacked_bytes = UINT64_C(16) << 30,
		.cpu_seconds = 3600,
		.threads = 1,
	};

	if (argc < 2 || strcmp(argv[1], "--help") == 0)
		return err_new(ERR_INVALID, "usage: cairn-worker elf|package KEY=NUMBER... (cairnd starts it)");
	if (strcmp(argv[1], "package") == 0)
		options.mode = WORKER_PACKAGE;
	else if (strcmp(argv[1], "elf") != 0)
		return err_new(ERR_INVALID, "unknown mode %s", argv[1]);
	for (int i = 2; i < argc; i++)
		TRY(parse_key(&options, argv[i]));
	TRY(check_inputs(&options));
	*ret = options;
	return NULL;
}

int worker_options_last_fd(const struct worker_options *options)
{
	const int fds[] = {options->binary_fd, options->debug_fd, options->supplement_fd, options->split_fd, options->package_fd, options->sibling_fd,
		options->wanted_fd, options->scratch_fd};
	int last = PROTOCOL_FD_LAST_WORDS;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] > last)
			last = fds[i];
	return last;
}

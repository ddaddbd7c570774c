// SPDX-License-Identifier: Apache-2.0
#include "base/config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CONFIG_FILE_MAX = 1 << 20, CONFIG_NAME_MAX = 128 };

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", UINT64_C(1) << 40}};
static const struct unit duration_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
static const struct unit plain_units[] = {{"", 1}};

static void *member_of(const struct config_key *key, void *config)
{
	return (char *)config + key->offset;
}

static const char *flag_of(const struct config_key *key)
{
	return key->flag ? key->flag : key->name;
}

static void units_of(enum config_type type, const struct unit **units_ret, size_t *count_ret)
{
	*units_ret = plain_units;
	*count_ret = ARRAY_SIZE(plain_units);
	if (type == CONFIG_SIZE) {
		*units_ret = size_units;
		*count_ret = ARRAY_SIZE(size_units);
	} else if (type == CONFIG_DURATION) {
		*units_ret = duration_units;
		*count_ret = ARRAY_SIZE(duration_units);
	}
}

static struct err *malformed(const struct config_key *key, const char *value)
{
	static const char *const shapes[] = {
		[CONFIG_UINT] = "a number",
		[CONFIG_SIZE] = "a number of bytes, with K, M, G or T behind it or nothing",
		[CONFIG_DURATION] = "a number with ms, s, m, h or d behind it",
		[CONFIG_BOOL] = "true or false",
	};

	return err_new(ERR_INVALID, "%s: \"%s\" is not %s", key->name, value, shapes[key->type]);
}

static struct err *parse_number(const struct config_key *key, const char *value, uint64_t *ret)
{
	const struct unit *units;
	size_t unit_count;
	uint64_t number = 0, factor = 0;
	const char *at = value;

	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(number, 10, &number) ||
			__builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
			return err_new(ERR_INVALID, "%s: %s is too large", key->name, value);
	units_of(key->type, &units, &unit_count);
	for (size_t i = 0; i < unit_count; i++)
		if (strcmp(at, units[i].suffix) == 0)
			factor = units[i].factor;
	/* Zero is the same in every unit. */
	if (number == 0 && !*at)
		factor = 1;
	if (at == value || factor == 0)
		return malformed(key, value);
	if (__builtin_mul_overflow(number, factor, &number))
		return err_new(ERR_INVALID, "%s: %s is too large", key->name, value);
	*ret = number;
	return NULL;
}

/* The value in the largest unit that leaves no rest, for messages and --help. */
static void format_number(const struct config_key *key, uint64_t value, char *text, size_t size)
{
	const struct unit *units;
	size_t count;

	units_of(key->type, &units, &count);
	while (count > 1 && (value == 0 || value % units[count - 1].factor != 0))
		count--;
	(void)snprintf(text, size, "%" PRIu64 "%s", value / units[count - 1].factor, units[count - 1].suffix);
}

static struct err *set_number(const struct config_key *key, void *config, const char *value)
{
	uint64_t number;
	char least[32], most[32];

	TRY(parse_number(key, value, &number));
	if (number < key->min || number > key->max) {
		format_number(key, key->min, least, sizeof(least));
		format_number(key, key->max, most, sizeof(most));
		return err_new(ERR_INVALID, "%s: %s is not between %s and %s", key->name, value, least, most);
	}
	*(uint64_t *)member_of(key, config) = number;
	return NULL;
}

static struct err *set_bool(const struct config_key *key, void *config, const char *value)
{
	if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
		return malformed(key, value);
	*(bool *)member_of(key, config) = value[0] == 't';
	return NULL;
}

static struct err *set_text(const struct config_key *key, void *config, const char *value)
{
	char **member = member_of(key, config);
	char *copy = strdup(value);

	if (!copy)
		return err_nomem();
	free(*member);
	*member = copy;
	return NULL;
}

static struct err *set_key(const struct config_key *key, void *config, const char *value)
{
	switch (key->type) {
	case CONFIG_TEXT:
		return set_text(key, config, value);
	case CONFIG_BOOL:
		return set_bool(key, config, value);
	case CONFIG_UINT:
	case CONFIG_SIZE:
	case CONFIG_DURATION:
		break;
	}
	return set_number(key, config, value);
}

struct err *config_defaults(const struct config_table *table, void *config)
{
	for (size_t i = 0; i < table->count; i++)
		if (table->keys[i].fallback)
			TRY(err_wrap(set_key(&table->keys[i], config, table->keys[i].fallback), "default"));
	return NULL;
}

struct err *config_set(const struct config_table *table, void *config, const char *name, const char *value)
{
	for (size_t i = 0; i < table->count; i++)
		if (strcmp(table->keys[i].name, name) == 0)
			return set_key(&table->keys[i], config, value);
	return err_new(ERR_INVALID, "unknown key \"%s\"", name);
}

static char *trim(char *text)
{
	text += strspn(text, " \t\r");
	size_t len = strlen(text);
	while (len > 0 && strchr(" \t\r", text[len - 1]))
		text[--len] = 0;
	return text;
}

/* A comment begins at a # that starts the line or follows white space, so that a value may hold one. */
static void cut_comment(char *line)
{
	for (char *at = strchr(line, '#'); at; at = strchr(at + 1, '#')) {
		if (at == line || at[-1] == ' ' || at[-1] == '\t') {
			*at = 0;
			return;
		}
	}
}

static struct err *read_line(const struct config_table *table, void *config, char *line, char *section)
{
	char name[2 * CONFIG_NAME_MAX];

	cut_comment(line);
	line = trim(line);
	size_t len = strlen(line);
	if (len == 0)
		return NULL;
	if (line[0] == '[') {
		if (line[len - 1] != ']' || len < 3 || len - 2 >= CONFIG_NAME_MAX)
			return err_new(ERR_INVALID, "\"%s\" is not a [section]", line);
		memcpy(section, line + 1, len - 2);
		section[len - 2] = 0;
		return NULL;
	}
	char *equals = strchr(line, '=');
	if (!equals)
		return err_new(ERR_INVALID, "\"%s\" is not key = value", line);
	*equals = 0;
	char *key = trim(line);
	if (strlen(key) >= CONFIG_NAME_MAX)
		return err_new(ERR_INVALID, "a key of %zu characters", strlen(key));
	(void)snprintf(name, sizeof(name), "%s%s%s", section, section[0] ? "." : "", key);
	return config_set(table, config, name, trim(equals + 1));
}

static struct err *read_text(const char *path, char **ret)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP(freep) char *text = malloc(CONFIG_FILE_MAX + 1);
	size_t len = 0;

	if (fd < 0)
		return err_os(errno, "open %s", path);
	if (!text)
		return err_nomem();
	for (;;) {
		ssize_t got = read(fd, text + len, CONFIG_FILE_MAX + 1 - len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_os(errno, "read %s", path);
		len += (size_t)got;
		if (len > CONFIG_FILE_MAX)
			return err_new(ERR_LIMIT, "%s: longer than %d bytes", path, CONFIG_FILE_MAX);
		if (got == 0)
			break;
	}
	if (memchr(text, 0, len))
		return err_new(ERR_INVALID, "%s: not a text file", path);
	text[len] = 0;
	*ret = TAKE_PTR(text);
	return NULL;
}

struct err *config_read_file(const struct config_table *table, void *config, const char *path)
{
	CLEANUP(freep) char *text = NULL;
	char section[CONFIG_NAME_MAX] = "";
	unsigned number = 0;

	TRY(read_text(path, &text));
	for (char *line = text; line;) {
		char *newline = strchr(line, '\n');
		if (newline)
			*newline = 0;
		TRY(err_wrap(read_line(table, config, line, section), "%s:%u", path, ++number));
		line = newline ? newline + 1 : NULL;
	}
	return NULL;
}

static const struct config_key *find_flag(const struct config_table *table, const char *flag, size_t len)
{
	for (size_t i = 0; i < table->count; i++) {
		const char *name = flag_of(&table->keys[i]);
		if (strlen(name) == len && memcmp(name, flag, len) == 0)
			return &table->keys[i];
	}
	return NULL;
}

/* Takes argv[*at], a --flag, and its value if that is the next argument; *at is left on the last one taken. */
static struct err *read_flag(const struct config_table *table, void *config, int argc, char **argv, int *at)
{
	const char *flag = argv[*at] + 2;
	size_t len = strcspn(flag, "=");
	const struct config_key *key = find_flag(table, flag, len);
	const char *value = flag[len] == '=' ? flag + len + 1 : NULL;

	if (!key)
		return err_new(ERR_INVALID, "unknown flag --%.*s", (int)(len > INT_MAX ? INT_MAX : len), flag);
	if (!value && key->type == CONFIG_BOOL)
		value = "true";
	if (!value) {
		if (*at + 1 >= argc)
			return err_new(ERR_INVALID, "--%s needs a value", flag);
		value = argv[++*at];
	}
	struct err *e = set_key(key, config, value);
	return e && err_code(e) != ERR_NOMEM ? err_wrap(e, "--%.*s", (int)len, flag) : e;
}

struct err *config_read_flags(const struct config_table *table, void *config, int *argc, char **argv)
{
	int kept = 1;
	int at = 1;

	for (; at < *argc && strcmp(argv[at], "--") != 0; at++) {
		if (strncmp(argv[at], "--", 2) == 0)
			TRY(read_flag(table, config, *argc, argv, &at));
		else
			argv[kept++] = argv[at];
	}
	/* What follows "--" is kept as it is, without the "--". */
	for (at++; at < *argc; at++)
		argv[kept++] = argv[at];
	if (*argc > kept) {
		argv[kept] = NULL;
		*argc = kept;
	}
	return NULL;
}

/* Takes `--config FILE` and `--config=FILE` out of the arguments: it says where the keys are and is none of them. */
static struct err *take_config_flag(int *argc, char **argv, const char **path_ret)
{
	int kept = 1;

	*path_ret = NULL;
	for (int i = 1; i < *argc; i++) {
		if (strcmp(argv[i], "--config") == 0) {
			if (i + 1 == *argc)
				return err_new(ERR_INVALID, "--config: a file name is missing");
			*path_ret = argv[++i];
		} else if (strncmp(argv[i], "--config=", 9) == 0) {
			*path_ret = argv[i] + 9;
		} else {
			argv[kept++] = argv[i];
		}
	}
	*argc = kept;
	return NULL;
}

struct err *config_read(const struct config_table *table, void *config, int *argc, char **argv)
{
	const char *path;

	TRY(config_defaults(table, config));
	TRY(take_config_flag(argc, argv, &path));
	if (path)
		TRY(config_read_file(table, config, path));
	return config_read_flags(table, config, argc, argv);
}

/* The value's word in --help: the first word of the help line where that is in capitals, else its type's. */
static size_t value_word(const struct config_key *key, const char **word_ret, const char **rest_ret)
{
	static const char *const words[] = {
		[CONFIG_TEXT] = "TEXT", [CONFIG_UINT] = "N", [CONFIG_SIZE] = "SIZE", [CONFIG_DURATION] = "TIME", [CONFIG_BOOL] = ""};
	size_t len = strspn(key->help, "ABCDEFGHIJKLMNOPQRSTUVWXYZ:");

	if (len > 0 && (key->help[len] == ' ' || key->help[len] == 0)) {
		*word_ret = key->help;
		*rest_ret = key->help + len + (key->help[len] == ' ');
		return len;
	}
	*word_ret = words[key->type];
	*rest_ret = key->help;
	return strlen(*word_ret);
}

struct err *config_help(const struct config_table *table, struct buf *ret)
{
	const char *word, *rest;
	int width = 0;

	for (size_t i = 0; i < table->count; i++) {
		int len = (int)(strlen(flag_of(&table->keys[i])) + 1 + value_word(&table->keys[i], &word, &rest));
		width = len > width ? len : width;
	}
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		int word_len = (int)value_word(key, &word, &rest);
		int pad = width - (int)strlen(flag_of(key)) - 1 - word_len;
		TRY(buf_printf(ret, "  --%s %.*s%*s  %s", flag_of(key), word_len, word, pad, "", rest));
		if (key->fallback && !(key->type == CONFIG_BOOL && strcmp(key->fallback, "false") == 0))
			TRY(buf_printf(ret, " (default: %s)", key->fallback));
		TRY(buf_append(ret, "\n", 1));
	}
	return NULL;
}

void config_deinit(const struct config_table *table, void *config)
{
	for (size_t i = 0; i < table->count; i++) {
		if (table->keys[i].type != CONFIG_TEXT)
			continue;
		char **member = member_of(&table->keys[i], config);
		free(*member);
		*member = NULL;
	}
}

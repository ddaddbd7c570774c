// SPDX-License-Identifier: Apache-2.0
#include "api/profiles_query.h"

#include "store/store.h"

#include <stdlib.h>
#include <time.h>

#define NS_PER_S ((uint64_t)1000000000)

/* Digits of exactly @p width, as a number. */
static bool take_digits(const char **text, int width, int *ret)
{
	*ret = 0;
	for (int i = 0; i < width; i++, (*text)++) {
		if (**text < '0' || **text > '9')
			return false;
		*ret = 10 * *ret + (**text - '0');
	}
	return true;
}

static bool take_char(const char **text, char c)
{
	if (**text != c)
		return false;
	(*text)++;
	return true;
}

/* ".25" in nanoseconds; digits past the ninth are dropped. Nothing there is 0. */
static bool take_fraction(const char **text, uint64_t *ns_ret)
{
	uint64_t unit = NS_PER_S;

	*ns_ret = 0;
	if (!take_char(text, '.'))
		return true;
	if (**text < '0' || **text > '9')
		return false;
	for (; **text >= '0' && **text <= '9'; (*text)++) {
		unit /= 10;
		*ns_ret += unit * (uint64_t)(**text - '0');
	}
	return true;
}

/* "Z" or "+02:00". */
static bool take_offset(const char **text, int *seconds_ret)
{
	int hours, minutes, sign;

	*seconds_ret = 0;
	if (take_char(text, 'Z') || take_char(text, 'z'))
		return true;
	/* '+' in a query string is a blank. */
	if (**text != '+' && **text != '-' && **text != ' ')
		return false;
	sign = *(*text)++ == '-' ? -1 : 1;
	if (!take_digits(text, 2, &hours) || !take_char(text, ':') || !take_digits(text, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*seconds_ret = sign * (3600 * hours + 60 * minutes);
	return true;
}

static bool parse_rfc3339(const char *text, uint64_t *ret)
{
	struct tm tm = {0};
	uint64_t ns;
	int offset;

	if (!take_digits(&text, 4, &tm.tm_year) || !take_char(&text, '-') || !take_digits(&text, 2, &tm.tm_mon) ||
		!take_char(&text, '-') || !take_digits(&text, 2, &tm.tm_mday))
		return false;
	if (!take_char(&text, 'T') && !take_char(&text, 't') && !take_char(&text, ' '))
		return false;
	if (!take_digits(&text, 2, &tm.tm_hour) || !take_char(&text, ':') || !take_digits(&text, 2, &tm.tm_min) ||
		!take_char(&text, ':') || !take_digits(&text, 2, &tm.tm_sec) || !take_fraction(&text, &ns) ||
		!take_offset(&text, &offset) || *text)
		return false;
	if (tm.tm_year < 1970 || tm.tm_year > 2553 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
		tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	int month = tm.tm_mon, second = tm.tm_sec;
	time_t seconds = timegm(&tm) - offset;
	/* timegm turns the 30th of February into March; a leap second may go where it wants. */
	if ((tm.tm_mon != month && second != 60) || seconds < 0)
		return false;
	*ret = (uint64_t)seconds * NS_PER_S + ns;
	return true;
}

static bool take_number(const char **text, uint64_t max, uint64_t *ret)
{
	const char *start = *text;

	for (*ret = 0; **text >= '0' && **text <= '9'; (*text)++) {
		*ret = 10 * *ret + (uint64_t)(**text - '0');
		if (*ret > max)
			return false;
	}
	return *text > start;
}

/* "-1h": not before 1970. */
static bool parse_relative(const char *text, uint64_t now, uint64_t *ret)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
	uint64_t count;

	if (!take_char(&text, '-') || !take_number(&text, UINT32_MAX, &count) || !*text || text[1])
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (units[i].unit != *text)
			continue;
		uint64_t seconds = count * units[i].seconds;
		*ret = seconds < now / NS_PER_S ? now - seconds * NS_PER_S : 0;
		return true;
	}
	return false;
}

bool profiles_time_parse(const char *text, uint64_t now_unix_nano, uint64_t *unix_nano_ret)
{
	const char *at = text;
	uint64_t seconds, ns;

	if (strcmp(text, "now") == 0) {
		*unix_nano_ret = now_unix_nano;
		return true;
	}
	if (*text == '-')
		return parse_relative(text, now_unix_nano, unix_nano_ret);
	if (take_number(&at, UINT64_MAX / NS_PER_S - 1, &seconds) && take_fraction(&at, &ns) && !*at) {
		*unix_nano_ret = seconds * NS_PER_S + ns;
		return true;
	}
	return parse_rfc3339(text, unix_nano_ret);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* text[0, len) decoded, NUL-terminated. ERR_INVALID: malformed, or a NUL in it. */
static struct err *decode(struct arena *arena, const char *text, size_t len, char **ret)
{
	char *out = arena_alloc(arena, len + 1);
	size_t n = 0;

	if (!out)
		return err_nomem();
	for (size_t i = 0; i < len; i++) {
		char c = text[i] == '+' ? ' ' : text[i];
		if (c == '%') {
			int high = i + 2 < len ? hex_digit(text[i + 1]) : -1, low = i + 2 < len ? hex_digit(text[i + 2]) : -1;
			if (high < 0 || low < 0)
				return err_new(ERR_INVALID, "the query string has a %% without two hex digits");
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (!c)
			return err_new(ERR_INVALID, "the query string has a NUL in it");
		out[n++] = c;
	}
	out[n] = 0;
	*ret = out;
	return NULL;
}

/* One query on its way. */
struct parse {
	struct arena *arena;
	uint64_t now;
	struct profiles_query *query;
	struct samples_label *filters;
	struct samples_text *groups;
	bool has_from, has_to, has_type, has_format;
};

static struct err *set_time(const struct parse *parse, const char *name, const char *value, bool *has, uint64_t *ret)
{
	if (*has)
		return err_new(ERR_INVALID, "%s is given twice", name);
	*has = true;
	if (!profiles_time_parse(value, parse->now, ret))
		return err_new(ERR_INVALID,
			"%s: \"%.64s\" is no time: RFC 3339, seconds since 1970, or relative as -15m were expected", name, value);
	return NULL;
}

static struct err *add_filter(struct parse *parse, const char *value)
{
	const char *equals = strchr(value, '=');
	struct samples_query *query = &parse->query->query;

	if (!equals || equals == value)
		return err_new(ERR_INVALID, "filter: \"%.64s\" is not key=value", value);
	if (query->filter_count == PROFILES_FILTERS_MAX)
		return err_new(ERR_LIMIT, "more than %d filters", PROFILES_FILTERS_MAX);
	parse->filters[query->filter_count++] =
		(struct samples_label){.key = {value, (size_t)(equals - value)}, .value = {equals + 1, strlen(equals + 1)}};
	return NULL;
}

static struct err *add_group(struct parse *parse, const char *value)
{
	struct samples_query *query = &parse->query->query;

	if (!*value)
		return err_new(ERR_INVALID, "group_by is empty");
	if (query->group_count == PROFILES_GROUPS_MAX)
		return err_new(ERR_LIMIT, "more than %d group_by", PROFILES_GROUPS_MAX);
	parse->groups[query->group_count++] = (struct samples_text){value, strlen(value)};
	return NULL;
}

static struct err *set_format(struct parse *parse, const char *value)
{
	static const char *const names[] = {
		[PROFILES_JSON] = "json", [PROFILES_PPROF] = "pprof", [PROFILES_FOLDED] = "folded", [PROFILES_CALLGRIND] = "callgrind"};

	if (parse->has_format)
		return err_new(ERR_INVALID, "format is given twice");
	parse->has_format = true;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], value) == 0) {
			parse->query->format = (enum profiles_format)i;
			return NULL;
		}
	}
	return err_new(ERR_INVALID, "format: \"%.64s\" is none of pprof, folded, callgrind, json", value);
}

static struct err *set(struct parse *parse, const char *name, const char *value)
{
	struct samples_query *query = &parse->query->query;

	if (strcmp(name, "from") == 0)
		return set_time(parse, name, value, &parse->has_from, &query->from_unix_nano);
	if (strcmp(name, "to") == 0)
		return set_time(parse, name, value, &parse->has_to, &query->to_unix_nano);
	if (strcmp(name, "filter") == 0)
		return add_filter(parse, value);
	if (strcmp(name, "group_by") == 0)
		return add_group(parse, value);
	if (strcmp(name, "format") == 0)
		return set_format(parse, value);
	if (strcmp(name, "type") != 0)
		return err_new(ERR_INVALID, "unknown parameter \"%.64s\": from, to, type, filter, group_by and format are known", name);
	if (parse->has_type)
		return err_new(ERR_INVALID, "type is given twice");
	parse->has_type = true;
	query->type = (struct samples_text){value, strlen(value)};
	return NULL;
}

static struct err *parse_pairs(struct parse *parse, const char *query)
{
	while (*query) {
		size_t len = strcspn(query, "&");
		const char *equals = memchr(query, '=', len);
		size_t name_len = equals ? (size_t)(equals - query) : len;
		char *name, *value;
		TRY(decode(parse->arena, query, name_len, &name));
		TRY(decode(parse->arena, query + name_len + (equals != NULL), len - name_len - (equals != NULL), &value));
		if (len)
			TRY(set(parse, name, value));
		query += len + (query[len] == '&');
	}
	return NULL;
}

struct err *profiles_query_parse(const char *query, uint64_t now_unix_nano, struct arena *arena, struct profiles_query *ret)
{
	struct profiles_query made = {.query = {.tenant = STORE_TENANT_DEFAULT}, .format = PROFILES_JSON};
	struct parse parse = {.arena = arena, .now = now_unix_nano, .query = &made};

	if (strlen(query) > PROFILES_QUERY_BYTES_MAX)
		return err_new(ERR_LIMIT, "a query string of more than %d bytes", PROFILES_QUERY_BYTES_MAX);
	parse.filters = arena_alloc(arena, PROFILES_FILTERS_MAX * sizeof(*parse.filters));
	parse.groups = arena_alloc(arena, PROFILES_GROUPS_MAX * sizeof(*parse.groups));
	if (!parse.filters || !parse.groups)
		return err_nomem();
	TRY(parse_pairs(&parse, query));
	made.query.filters = parse.filters;
	made.query.group_by = parse.groups;
	if (made.query.to_unix_nano && made.query.to_unix_nano <= made.query.from_unix_nano)
		return err_new(ERR_INVALID, "to is not after from");
	*ret = made;
	return NULL;
}

// SPDX-License-Identifier: Apache-2.0
#include "sources/deb822.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { DAY_S = 86400 };

static struct text cut_line(struct text *rest)
{
	const char *end = memchr(rest->at, '\n', rest->len);
	struct text line = {rest->at, end ? (size_t)(end - rest->at) : rest->len};
	size_t used = line.len + (end != NULL);

	rest->at += used;
	rest->len -= used;
	if (line.len && line.at[line.len - 1] == '\r')
		line.len--;
	return line;
}

static bool is_blank_line(struct text line)
{
	for (size_t i = 0; i < line.len; i++)
		if (line.at[i] != ' ' && line.at[i] != '\t')
			return false;
	return true;
}

static bool next_stanza(struct text *rest, struct text *ret, bool whole)
{
	struct text at = *rest, stanza = {0};

	while (at.len > 0) {
		struct text line = cut_line(&at);
		if (!is_blank_line(line)) {
			if (!stanza.at)
				stanza.at = line.at;
			stanza.len = (size_t)(at.at - stanza.at);
			continue;
		}
		if (!stanza.at)
			continue;
		*rest = at;
		*ret = stanza;
		return true;
	}
	if (!stanza.at || whole)
		return false;
	*rest = at;
	*ret = stanza;
	return true;
}

bool deb822_next(struct text *rest, struct text *stanza_ret)
{
	return next_stanza(rest, stanza_ret, false);
}

bool deb822_next_whole(struct text *rest, struct text *stanza_ret)
{
	return next_stanza(rest, stanza_ret, true);
}

static struct text trim(struct text text)
{
	while (text.len && isspace((unsigned char)text.at[0])) {
		text.at++;
		text.len--;
	}
	while (text.len && isspace((unsigned char)text.at[text.len - 1]))
		text.len--;
	return text;
}

bool deb822_field(struct text stanza, const char *name, struct text *ret)
{
	size_t name_len = strlen(name);
	struct text rest = stanza, value = {0};

	while (rest.len > 0) {
		struct text line = cut_line(&rest);
		bool goes_on = line.len && (line.at[0] == ' ' || line.at[0] == '\t');
		if (value.at && !goes_on)
			break;
		if (value.at)
			value.len = (size_t)(line.at + line.len - value.at);
		else if (!goes_on && line.len > name_len && line.at[name_len] == ':' && strncasecmp(line.at, name, name_len) == 0)
			value = (struct text){line.at + name_len + 1, line.len - name_len - 1};
	}
	if (!value.at)
		return false;
	*ret = trim(value);
	return true;
}

bool text_word(struct text *rest, struct text *ret)
{
	*rest = trim(*rest);
	if (rest->len == 0)
		return false;
	size_t len = 0;
	while (len < rest->len && !isspace((unsigned char)rest->at[len]))
		len++;
	*ret = (struct text){rest->at, len};
	rest->at += len;
	rest->len -= len;
	return true;
}

bool text_is(struct text text, const char *word)
{
	return text.len == strlen(word) && memcmp(text.at, word, text.len) == 0;
}

bool text_copy_to(struct text text, char *to, size_t size)
{
	if (text.len >= size || memchr(text.at, 0, text.len))
		return false;
	memcpy(to, text.at, text.len);
	to[text.len] = 0;
	return true;
}

bool text_u64(struct text text, uint64_t *ret)
{
	uint64_t value = 0;

	if (text.len == 0 || text.len > 19)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (!isdigit((unsigned char)text.at[i]))
			return false;
		value = value * 10 + (uint64_t)(text.at[i] - '0');
	}
	*ret = value;
	return true;
}

bool release_find(struct text release, const char *path, struct release_file *ret)
{
	struct text list;

	if (!deb822_field(release, "SHA256", &list))
		return false;
	while (list.len > 0) {
		struct text line = cut_line(&list), hash, size, name;
		if (!text_word(&line, &hash) || !text_word(&line, &size) || !text_word(&line, &name) || !text_is(name, path))
			continue;
		return sha256_parse(hash.at, hash.len, &ret->sha256) && text_u64(size, &ret->size);
	}
	return false;
}

/* "Sat, 21 Nov 2026 00:00:00 UTC" */
static bool read_date(struct text release, const char *name, int64_t *ret)
{
	struct text value;
	char copy[64];
	struct tm parts = {0};

	if (!deb822_field(release, name, &value) || !text_copy_to(value, copy, sizeof(copy)))
		return false;
	const char *end = strptime(copy, "%a, %d %b %Y %H:%M:%S", &parts);
	if (!end || (strcmp(end, " UTC") != 0 && strcmp(end, " GMT") != 0 && strcmp(end, " +0000") != 0))
		return false;
	*ret = timegm(&parts);
	return true;
}

struct err *release_read_dates(struct text release, struct release_dates *ret)
{
	struct release_dates dates = {0};
	struct text value;

	if (!read_date(release, "Date", &dates.date_s))
		return err_new(ERR_FORMAT, "Release: no Date that makes sense");
	if (deb822_field(release, "Valid-Until", &value) && !read_date(release, "Valid-Until", &dates.until_s))
		return err_new(ERR_FORMAT, "Release: a Valid-Until that makes no sense");
	*ret = dates;
	return NULL;
}

void release_format_date(int64_t date_s, char text[40])
{
	time_t seconds = (time_t)date_s;
	struct tm parts;

	(void)gmtime_r(&seconds, &parts);
	(void)strftime(text, 40, "%a, %d %b %Y %H:%M:%S UTC", &parts);
}

struct err *release_check_dates(struct text release, int64_t now_s)
{
	struct release_dates dates;
	char text[40];

	TRY(release_read_dates(release, &dates));
	if (dates.date_s > now_s + DAY_S)
		return err_new(ERR_MISMATCH, "Release: its Date lies in the future: is this machine's clock right?");
	if (!dates.until_s || dates.until_s >= now_s)
		return NULL;
	release_format_date(dates.until_s, text);
	return err_new(ERR_MISMATCH, "Release: it expired on %s", text);
}

/* ---------------------------------------------------------------------------------------- APT's sources */

static bool is_http(struct text uri)
{
	return (uri.len > 7 && memcmp(uri.at, "http://", 7) == 0) || (uri.len > 8 && memcmp(uri.at, "https://", 8) == 0);
}

/* @p suites and @p uris are lists: every pair is a repository. */
static struct err *add_pairs(struct text uris, struct text suites, struct text components, struct text signed_by,
	struct apt_repositories *ret)
{
	struct text uri, suite;

	while (text_word(&uris, &uri)) {
		struct text rest = suites;
		while (uri.len && uri.at[uri.len - 1] == '/')
			uri.len--;
		while (is_http(uri) && text_word(&rest, &suite)) {
			if (suite.at[suite.len - 1] == '/')
				continue; /* a flat repository has no components and no index by architecture */
			if (ret->count == APT_REPOSITORIES_MAX)
				return err_new(ERR_LIMIT, "more than %d repositories", APT_REPOSITORIES_MAX);
			struct apt_repository *item = &ret->items[ret->count];
			*item = (struct apt_repository){0};
			if (!text_copy_to(uri, item->uri, sizeof(item->uri)) || !text_copy_to(suite, item->suite, sizeof(item->suite)) ||
				!text_copy_to(components, item->components, sizeof(item->components)))
				continue;
			if (signed_by.len && signed_by.at[0] == '/' && !text_copy_to(signed_by, item->signed_by, sizeof(item->signed_by)))
				continue;
			ret->count++;
		}
	}
	return NULL;
}

static bool has_word(struct text list, const char *word)
{
	struct text found;

	while (text_word(&list, &found))
		if (text_is(found, word))
			return true;
	return false;
}

static struct err *read_stanza(struct text stanza, struct apt_repositories *ret)
{
	struct text types, uris, suites, components, signed_by = {0}, enabled;

	if (!deb822_field(stanza, "Types", &types) || !has_word(types, "deb") || !deb822_field(stanza, "URIs", &uris) ||
		!deb822_field(stanza, "Suites", &suites) || !deb822_field(stanza, "Components", &components))
		return NULL;
	if (deb822_field(stanza, "Enabled", &enabled) && (text_is(enabled, "no") || text_is(enabled, "false")))
		return NULL;
	(void)deb822_field(stanza, "Signed-By", &signed_by);
	return add_pairs(uris, suites, components, signed_by, ret);
}

/* deb [signed-by=/k.gpg arch=amd64] http://host/debian suite component... */
static struct err *read_line(struct text line, struct apt_repositories *ret)
{
	struct text word, uri, suite, signed_by = {0};
	const char *hash = memchr(line.at, '#', line.len);

	if (hash)
		line.len = (size_t)(hash - line.at);
	if (!text_word(&line, &word) || !text_is(word, "deb") || !text_word(&line, &uri))
		return NULL;
	bool in_options = uri.at[0] == '[';
	while (in_options) {
		struct text option = uri;
		if (option.len && option.at[0] == '[') {
			option.at++;
			option.len--;
		}
		in_options = !(option.len && option.at[option.len - 1] == ']');
		if (!in_options)
			option.len--;
		if (option.len > 10 && strncasecmp(option.at, "signed-by=", 10) == 0)
			signed_by = (struct text){option.at + 10, option.len - 10};
		if (!text_word(&line, &uri))
			return NULL;
	}
	if (!text_word(&line, &suite))
		return NULL;
	return add_pairs(uri, suite, trim(line), signed_by, ret);
}

struct err *apt_read_sources(struct text file, const char *name, struct apt_repositories *ret)
{
	size_t len = strlen(name);
	struct text stanza;

	if (len > 8 && strcmp(name + len - 8, ".sources") == 0) {
		/* Comments may stand within a stanza: they are no fields and begin no line that a field could go on in. */
		while (deb822_next(&file, &stanza))
			TRY(read_stanza(stanza, ret));
		return NULL;
	}
	while (file.len > 0)
		TRY(read_line(cut_line(&file), ret));
	return NULL;
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

bool apt_debug_archive(const struct apt_repository *place, struct apt_repository *ret)
{
	static const char updates[] = "-updates", proposed[] = "-proposed-updates";
	size_t len = strlen(place->suite);
	const char *between = "";

	if ((!ends_with(place->uri, "/debian") && !ends_with(place->uri, "/debian-security")) || ends_with(place->suite, "-debug"))
		return false;
	if (ends_with(place->suite, updates) && !ends_with(place->suite, proposed)) {
		len -= strlen(updates);
		between = proposed;
	}
	*ret = *place;
	int uri_len = snprintf(ret->uri, sizeof(ret->uri), "%s-debug", place->uri);
	int suite_len = snprintf(ret->suite, sizeof(ret->suite), "%.*s%s-debug", (int)len, place->suite, between);
	return (size_t)uri_len < sizeof(ret->uri) && (size_t)suite_len < sizeof(ret->suite);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * A package in the index is six lines: file name, size, SHA-256, name, version, and "name=version" of what it depends on exactly.
 * Debug packages depend on the packages whose symbols they have: `Depends: libkrb5-3 (= 1.20.1-2) | libk5crypto3 (= 1.20.1-2)`.
 */
#include "sources/apt.h"

#include <stdio.h>
#include <string.h>

size_t apt_debug_ending(const char *name)
{
	static const char *const endings[] = {"-dbgsym", "-dbg"};
	size_t len = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		size_t end = strlen(endings[i]);
		if (len > end && strcmp(name + len - end, endings[i]) == 0)
			return end;
	}
	return 0;
}

/* Names and versions are words (Debian Policy 5.6): with a blank, a control character or a '=' in it one would not be read back as it was. */
static bool copy_word(struct text from, char *to, size_t size)
{
	for (size_t i = 0; i < from.len; i++)
		if ((unsigned char)from.at[i] <= ' ' || from.at[i] == '=')
			return false;
	return text_copy_to(from, to, size);
}

/* One word of Depends, "libc6:amd64": the name without the architecture. */
static struct text package_name(struct text word)
{
	const char *colon = memchr(word.at, ':', word.len);

	if (colon)
		word.len = (size_t)(colon - word.at);
	return word;
}

/* Takes every "name (= version)" in it. */
static void read_depends(struct text depends, struct apt_record *record)
{
	struct text before = {"", 0}, word;

	while (record->of_count < APT_OF_MAX && text_word(&depends, &word)) {
		if (!text_is(word, "(=")) {
			before = word;
			continue;
		}
		if (!text_word(&depends, &word))
			return;
		const char *end = memchr(word.at, ')', word.len);
		struct apt_package *of = &record->of[record->of_count];
		if (!end)
			continue;
		word.len = (size_t)(end - word.at);
		record->of_count += copy_word(package_name(before), of->name, sizeof(of->name)) && copy_word(word, of->version, sizeof(of->version));
	}
}

/* Without an exact dependency: the package whose name is this one's without its ending. */
static void guess_of(struct apt_record *record)
{
	size_t end = apt_debug_ending(record->self.name);

	if (record->of_count || !end)
		return;
	record->of[0] = record->self;
	record->of[0].name[strlen(record->of[0].name) - end] = 0;
	record->of_count = 1;
}

bool apt_record_from_stanza(struct text stanza, struct apt_record *ret)
{
	struct text name, version, file, size, hash, depends;

	*ret = (struct apt_record){0};
	if (!deb822_field(stanza, "Package", &name) || !deb822_field(stanza, "Version", &version) || !deb822_field(stanza, "Filename", &file) ||
		!deb822_field(stanza, "Size", &size) || !deb822_field(stanza, "SHA256", &hash))
		return false;
	if (!copy_word(name, ret->self.name, sizeof(ret->self.name)) || !copy_word(version, ret->self.version, sizeof(ret->self.version)) ||
		!text_copy_to(file, ret->file, sizeof(ret->file)))
		return false;
	if (deb822_field(stanza, "Depends", &depends))
		read_depends(depends, ret);
	guess_of(ret);
	return text_u64(size, &ret->promised.size) && sha256_parse(hash.at, hash.len, &ret->promised.sha256);
}

bool apt_record_write(const struct apt_record *record, char text[APT_RECORD_SIZE])
{
	char hash[SHA256_HEX_SIZE];

	sha256_format(&record->promised.sha256, hash);
	int len = snprintf(text, APT_RECORD_SIZE, "%s\n%llu\n%s\n%s\n%s\n", record->file, (unsigned long long)record->promised.size, hash,
		record->self.name, record->self.version);
	for (size_t i = 0; i < record->of_count && len > 0 && len < APT_RECORD_SIZE; i++)
		len += snprintf(text + len, (size_t)(APT_RECORD_SIZE - len), "%s%s=%s", i ? " " : "", record->of[i].name, record->of[i].version);
	/* A line break in a name or a file would make other lines of it. */
	size_t lines = 0;
	for (const char *at = text; (at = strchr(at, '\n')); at++)
		lines++;
	return len > 0 && len < APT_RECORD_SIZE && lines == 5;
}

bool apt_record_read(char *text, struct apt_record *ret)
{
	char *lines[6];

	*ret = (struct apt_record){0};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		lines[i] = strsep(&text, "\n");
		if (!lines[i])
			return false;
	}
	(void)snprintf(ret->file, sizeof(ret->file), "%s", lines[0]);
	(void)snprintf(ret->self.name, sizeof(ret->self.name), "%s", lines[3]);
	(void)snprintf(ret->self.version, sizeof(ret->self.version), "%s", lines[4]);
	for (char *word; (word = strsep(&lines[5], " ")) && ret->of_count < APT_OF_MAX;) {
		char *equals = strchr(word, '=');
		if (!equals)
			continue;
		struct apt_package *of = &ret->of[ret->of_count++];
		(void)snprintf(of->name, sizeof(of->name), "%.*s", (int)(equals - word), word);
		(void)snprintf(of->version, sizeof(of->version), "%s", equals + 1);
	}
	return text_u64((struct text){lines[1], strlen(lines[1])}, &ret->promised.size) &&
	       sha256_parse(lines[2], strlen(lines[2]), &ret->promised.sha256);
}

static struct build_id key_of(uint8_t kind, const char *text, size_t len)
{
	struct build_id key = {.len = 17, .bytes = {kind}};

	digest_xxh3_128(text, len, key.bytes + 1);
	return key;
}

struct build_id apt_package_key(const char *name, const char *version)
{
	char text[2 * APT_PACKAGE_SIZE];
	int len = snprintf(text, sizeof(text), "%s=%s", name, version);

	return key_of('P', text, (size_t)len);
}

struct build_id apt_name_key(const char *name)
{
	return key_of('N', name, strlen(name));
}

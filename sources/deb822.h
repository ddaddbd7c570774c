// SPDX-License-Identifier: Apache-2.0
/*
 * Debian's control format (deb822(5)): stanzas of fields, between blank lines. Text is bounded and borrowed, nothing is copied.
 * And the two things that are read with it: Release files and APT's own sources. Any thread.
 */
#ifndef CAIRN_SOURCES_DEB822_H
#define CAIRN_SOURCES_DEB822_H

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct text {
	const char *at; /* not NUL-terminated */
	size_t len;
};

/** The next stanza of @p rest, which moves behind it; false at the end. Blank lines and a last stanza without one are fine. */
bool deb822_next(struct text *rest, struct text *stanza_ret);
/** As deb822_next, but only a stanza whose end is in sight: for text that comes in pieces. */
bool deb822_next_whole(struct text *rest, struct text *stanza_ret);
/** A field's value with its continuation lines, blanks around it gone; false when there is none. Case of @p name is ignored. O(stanza). */
bool deb822_field(struct text stanza, const char *name, struct text *ret);
/** The next word (between blanks and line breaks); false at the end. */
bool text_word(struct text *rest, struct text *ret);
bool text_is(struct text text, const char *word);
/** Copies, NUL-terminated; false when it does not fit. */
bool text_copy_to(struct text text, char *to, size_t size);
/** Decimal digits that fit; false for anything else. */
bool text_u64(struct text text, uint64_t *ret);

/* One file that a Release file vouches for. */
struct release_file {
	uint64_t size;
	struct sha256 sha256;
};
/** The SHA256 entry of @p path; false when it has none, or a malformed one. */
bool release_find(struct text release, const char *path, struct release_file *ret);
struct release_dates {
	int64_t date_s, until_s; /* since 1970; until 0: it says nothing */
};
/** ERR_FORMAT: no or malformed date. */
struct err *release_read_dates(struct text release, struct release_dates *ret) MUST_USE;
/** "Sat, 21 Nov 2026 00:00:00 UTC", for a person. */
void release_format_date(int64_t date_s, char text[40]);
/**
 * Whether a Release file may be used now.
 * @param now_s  seconds since 1970
 * @return NULL; ERR_FORMAT: no or malformed date; ERR_MISMATCH: Valid-Until has passed, or Date lies over a day ahead; the message says when.
 */
struct err *release_check_dates(struct text release, int64_t now_s) MUST_USE;

enum { APT_COMPONENTS_SIZE = 256, APT_URI_SIZE = 512, APT_SUITE_SIZE = 128, APT_REPOSITORIES_MAX = 64 };

struct apt_repository {
	char uri[APT_URI_SIZE]; /* without a slash at the end */
	char suite[APT_SUITE_SIZE];
	char components[APT_COMPONENTS_SIZE]; /* separated by blanks */
	char signed_by[APT_URI_SIZE]; /* a keyring's path; "": the machine's */
};
struct apt_repositories {
	size_t count;
	struct apt_repository items[APT_REPOSITORIES_MAX];
};
/**
 * Adds the http(s) binary repositories of a sources file: deb822 form when @p name ends in .sources, else one-line form. Disabled
 * stanzas, deb-src, other schemes and lines that make no sense are passed over, as APT warns and goes on.
 * ERR_LIMIT: more than APT_REPOSITORIES_MAX.
 */
struct err *apt_read_sources(struct text file, const char *name, struct apt_repositories *ret) MUST_USE;
/**
 * Where Debian keeps the debug packages of a repository: <host>/debian bookworm -> <host>/debian-debug bookworm-debug, and so for
 * debian-security. What is in bookworm-updates is in bookworm-proposed-updates-debug. False: it is none of these, or a debug archive.
 */
bool apt_debug_archive(const struct apt_repository *place, struct apt_repository *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * What the parts of the APT source share: apt.c (configuration, finding, fetching packages), apt_index.c (Release files, Packages and
 * Contents indices), apt_control.c (control parts of packages), apt_record.c (a package as the index keeps it). Internal.
 */
#ifndef CAIRN_SOURCES_APT_H
#define CAIRN_SOURCES_APT_H

#include "sources/deb822.h"
#include "sources/source.h"

#include <pthread.h>

enum {
	APT_RECORD_SIZE = 3072,
	APT_OF_MAX = 4, /* binary packages that one debug package belongs to */
	APT_PACKAGE_SIZE = 256, /* a name, a version */
	APT_ARCHITECTURE_SIZE = 32,
};

/* A repository's packages of one architecture: an index of its own, for names and versions are the same in all. */
struct apt_repository_state {
	struct apt_repository place;
	char architecture[APT_ARCHITECTURE_SIZE]; /* as Debian calls it: "amd64" */
	uint64_t id;	    /* STORE_INDEX_PRIVATE or'ed in where the place is in the house */
	bool loaded;	    /* what the last run knew was read */
	uint64_t looked_ms; /* 0: never */
	bool failed;
	bool guessed; /* a debug archive that may not exist: its failure is told, and is none of the search */
	struct release_dates dates; /* of the index that is there; 0: none is */
	char reason[STORE_ASK_TEXT_SIZE]; /* of the failure */
	char etag[FETCH_VALIDATOR_SIZE], last_modified[FETCH_VALIDATOR_SIZE]; /* of its InRelease */
	char digest[SHA256_HEX_SIZE]; /* of the signed text that was indexed last; "": none was */
	/* Under `learning`. */
	uint64_t learn_after_ms; /* control parts failed to come: not tried before */
	bool no_ranges; /* its server answers range requests with whole files */
	char unread[STORE_ASK_TEXT_SIZE]; /* why debug packages could not be looked into; "": all were */
};

struct apt {
	struct source source;
	struct source_context context;
	pthread_mutex_t lock; /* one refresh at a time; guards the repositories' states */
	pthread_mutex_t learning; /* taken before `lock`: control parts are read by one at a time, and those whose IDs indices name need not wait */
	size_t count;
	struct apt_repository_state repositories[APT_REPOSITORIES_MAX];
};

uint64_t apt_wall_ms(void);
/** Fetches a file that somebody vouches for: size and SHA-256 must be as promised. ERR_PEER: not to be had; ERR_MISMATCH. */
struct err *apt_fetch_checked(struct apt *apt, const char *url, const struct release_file *promised, struct fetch_result *ret) MUST_USE;

/* ---- apt_record.c */

struct apt_package {
	char name[APT_PACKAGE_SIZE], version[APT_PACKAGE_SIZE];
};
/* One package. */
struct apt_record {
	char file[1024]; /* below the repository's URI */
	struct release_file promised;
	struct apt_package self;
	size_t of_count; /* packages that it depends on in an exact version: of a debug package, those with the runtime files */
	struct apt_package of[APT_OF_MAX];
};
/** From a stanza of a Packages index; false when it says too little or too much. */
bool apt_record_from_stanza(struct text stanza, struct apt_record *ret);
/** As the index keeps it. False when it does not fit. */
bool apt_record_write(const struct apt_record *record, char text[APT_RECORD_SIZE]);
/** @p text is cut up. False when it is none. */
bool apt_record_read(char *text, struct apt_record *ret);
/** "-dbg", "-dbgsym", or 0 for what is no debug package's name: the length of that ending. */
size_t apt_debug_ending(const char *name);
/** The key under which the index has a package, where build IDs stand otherwise: 'P' and a hash of "name=version". */
struct build_id apt_package_key(const char *name, const char *version);
/** The same by name alone: the last version of the index. Debug packages only. */
struct build_id apt_name_key(const char *name);

/* ---- apt_index.c */

/** Brings what is stale up to date. A repository that fails keeps its index until that expires, and says why. Under the lock. */
void apt_refresh_stale(struct apt *apt);
/** Whether its index may be used: it is there and has not expired. Under the lock. */
bool apt_is_usable(const struct apt_repository_state *repository);

/* ---- apt_control.c */

/** The note of the debug packages of a repository that no index says the files of: "<number> <size> <sha256> <file>" a line. */
void apt_unlisted_key(const struct apt_repository_state *repository, char key[64]);
/** What the control part of a package said, when it was read before: build IDs in hex, separated by blanks. NULL in @p ret: it was not. */
struct err *apt_control_known(struct apt *apt, const struct sha256 *package, char **ret) MUST_USE;
/** Adds the build IDs of such a text to the present package of an index. */
struct err *apt_control_add(struct store_index *index, const char *ids) MUST_USE;
/** Reads the control parts of those packages, once each, and adds their build IDs to the index. *learned_ret: there were some. Under `learning`. */
struct err *apt_learn_unlisted(struct apt *apt, struct apt_repository_state *repository, bool *learned_ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * The narrow interface that every source of symbols implements. A new one (rpm-md, Alpine) is one file that fills a
 * struct source and one line in sources.c's list; nothing else knows of it. docs/sources.md says how.
 */
#ifndef CAIRN_SOURCES_SOURCE_H
#define CAIRN_SOURCES_SOURCE_H

#include "sources/fetch.h"
#include "sources/kernels.h"
#include "store/job.h"
#include "store/source.h"
#include "store/store.h"

#include <stdatomic.h>

enum { SOURCE_FILES_MAX = 5, SOURCE_WHERE_SIZE = 2048 };

/* Sources that are asked for one ID at the same time: who has a file claims it by fetch_cancel, and the others' transfers of it end. */
struct source_race {
	struct fetch_cancel debug, runtime;
};

/* What somebody wants symbols for: an ID that was seen in a request. */
struct source_wanted {
	bool has_file_id;
	struct fileid file_id;
	struct build_id build_id; /* len 0: not known */
	bool in_public_index;	  /* some public repository names the build ID: it is no secret */
	bool has_runtime;	  /* the runtime file is known: only debug info is wanted */
	bool has_debug;		  /* debug info is here: only the runtime file is wanted */
	char kernel_release[KERNEL_RELEASE_SIZE]; /* of a Linux kernel or module: whose (uname -r); "": of none, or not known */
	struct source_race *race; /* for those with may_race */
};

struct source_file {
	enum store_role role;
	int fd; /* at any offset; the caller's to close */
	char name[STORE_NAME_SIZE];
	/* A package that is yet to be fetched (fd -1): by ops->fetch, once for all who want files of it. */
	bool to_fetch;
	uint64_t size;
	struct sha256 sha256; /* of all its bytes */
	char where[SOURCE_WHERE_SIZE]; /* the source's own */
};

/* What a source says. */
struct source_said {
	enum store_ask_answer answer;
	uint64_t retry_after_ms; /* 0: the usual */
	uint64_t bytes;		 /* fetched */
	bool has_debug;		 /* it brings debug info: later sources are not asked for that */
	bool has_runtime;	 /* it brings the runtime file, or a package that should have it: later ones are not asked for that */
	size_t file_count;	 /* when STORE_ASK_FOUND: packages, one with debug info before all others, or a runtime file, a debug file, or both */
	struct source_file files[SOURCE_FILES_MAX];
	struct build_id build_id; /* of what was found; len 0: as wanted */
	char provenance[STORE_PROVENANCE_SIZE];
	char text[STORE_ASK_TEXT_SIZE];
};

/* A supplement (dwz) that a debug file names. */
struct source_needed {
	struct build_id build_id;
	const char *name; /* as the debug file has it: "../../.dwz/x86_64-linux-gnu/libkrb5.debug" */
};

/* A package that a source could fetch, for `cairn sync`. All borrowed. */
struct source_package {
	const char *name, *version;
	bool is_debug;
	size_t of_count; /* packages whose symbols it has */
	const char *of_names[SOURCE_FILES_MAX], *of_versions[SOURCE_FILES_MAX];
	struct source_file file; /* to be fetched */
};
typedef struct err *source_list_fn(void *context, const struct source_package *package);

struct source;

struct source_ops {
	/**
	 * Looks for one ID and fetches what it finds. Blocks; several threads at once; fetches only through fetch.h.
	 * Everything that goes wrong is an answer with a text; an error is for what is wrong here (memory, disk).
	 * @param ret  zeroed
	 */
	struct err *(*find)(struct source *source, const struct source_wanted *wanted, struct source_said *ret);
	/**
	 * Fetches a package that find or list named: file->fd is then open. NULL: it names none.
	 * @param bytes_ret  that were fetched, also when it failed
	 * @return NULL; ERR_PEER: not to be had now; ERR_MISMATCH, ERR_LIMIT: refused; ERR_OS, ERR_NOMEM: what is wrong here.
	 */
	struct err *(*fetch)(struct source *source, struct source_file *file, uint64_t *bytes_ret);
	/**
	 * A supplement, open, or a package that has it, to be fetched. NULL: it has none.
	 * @param ret     untouched, and a reason in @p reason, when it has not
	 */
	struct err *(*bring)(struct source *source, const struct source_needed *needed, struct source_file *ret, char *reason, size_t size);
	/** Every package that could be fetched. NULL: it knows no packages. ERR_PEER: its index is not to be had. */
	struct err *(*list)(struct source *source, source_list_fn *each, void *context);
	/** Brings its index up to date; NULL: it has none. Called by one thread, every refresh interval. */
	struct err *(*refresh)(struct source *source);
	void (*destroy)(struct source *source);
};

struct source {
	const struct source_ops *ops;
	enum store_source kind;
	char name[STORE_ASK_SOURCE_SIZE]; /* "debuginfod https://host": in answers, and the key of what it said */
	_Atomic uint64_t changed_ms; /* since 1970: what it said before is void, for it has other things now (relaxed: a hint) */
	bool may_race;	/* it may be asked at the same time as its neighbours, and heeds source_wanted.race */
	bool is_public; /* asking it tells strangers which IDs we see */
};

/* What sources are made with; all borrowed. */
struct source_context {
	struct fetch *fetch;
	struct store_sources *db;
	const char *scratch_dir;
	const char *architectures; /* of packages, as Debian calls them, separated by blanks */
	uint64_t max_file_bytes;
};

/** For every answer but FOUND. */
void source_say(struct source_said *said, enum store_ask_answer answer, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/** Another was first: it is asked again with the next search. */
void source_say_cancelled(struct source_said *said);
/** What a fetch that brought nothing means for the ID. */
void source_say_fetch(struct source_said *said, const struct fetch_result *result);
/**
 * Whether an ELF file is the one that was wanted, by its build ID.
 * @return NULL; ERR_MISMATCH: another one, the message names both; ERR_FORMAT: no ELF file; ERR_OS.
 */
struct err *source_check_build_id(int fd, const struct build_id *wanted) MUST_USE;

/** A debuginfod server. @p url: "https://debuginfod.debian.net", without a slash at the end. ERR_INVALID, ERR_NOMEM. */
struct err *source_debuginfod(const struct source_context *context, const char *url, struct source **ret) MUST_USE;
/** A folder: a .build-id tree in it, and any ELF file below it. ERR_NOMEM. */
struct err *source_directory(const struct source_context *context, const char *path, struct source **ret) MUST_USE;

/** What is installed on this machine: runtime files only. @p paths: folders, separated by blanks. ERR_INVALID, ERR_NOMEM. */
struct err *source_installed(const struct source_context *context, const char *paths, struct source **ret) MUST_USE;

/**
 * Package repositories in APT's form, one source for all of them: what one has debug info of another has the program. @p paths: sources files
 * (one-line form, or deb822 in *.sources), or folders like /etc/apt, separated by blanks.
 * ERR_OS: one cannot be read; ERR_INVALID; ERR_LIMIT; ERR_NOMEM.
 */
struct err *source_apt(const struct source_context *context, const char *paths, struct source **ret) MUST_USE;

#endif

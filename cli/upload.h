// SPDX-License-Identifier: Apache-2.0
/*
 * `upload-symbols`: what is to be sent (plan), how one file is sent (transfer), and the run of all of them.
 */
#ifndef CAIRN_CLI_UPLOAD_H
#define CAIRN_CLI_UPLOAD_H

#include "base/digest.h"
#include "base/err.h"
#include "base/hmap.h"
#include "cli/server.h"
#include "fileid/build_id.h"
#include "fileid/fileid.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	UPLOAD_JOBS_MAX = 64,
	UPLOAD_DEPTH_MAX = 64, /* of folders in folders */
};

/* ---------------------------------------------------------------------------------------------- plan */

enum upload_role { UPLOAD_EXECUTABLE, UPLOAD_DEBUG, UPLOAD_PACKAGE, UPLOAD_SUPPLEMENT, UPLOAD_SPLIT };

/* What a file turned out to be. */
enum upload_kind {
	UPLOAD_KIND_OTHER,
	UPLOAD_KIND_OBJECT,
	UPLOAD_KIND_SPLIT, /* .dwo, .dwp */
	UPLOAD_KIND_EXECUTABLE,
	UPLOAD_KIND_DEBUG,
	UPLOAD_KIND_PACKAGE,
	UPLOAD_KIND_SUPPLEMENT,
	UPLOAD_KINDS,
};

enum upload_warning { UPLOAD_WARN_STRIPPED, UPLOAD_WARN_DEBUG, UPLOAD_WARN_SUPPLEMENT, UPLOAD_WARN_SPLIT, UPLOAD_WARNINGS };
enum { UPLOAD_WARNINGS_SHOWN = 3 /* of each; the others are counted */ };

/* Which bytes are sent. */
enum upload_content {
	UPLOAD_PLAIN,  /* those of the file */
	UPLOAD_BUNDLE, /* an ar archive of `parts` */
};

/** "executable", "debug", "package", "supplement", "split": as the server calls them. */
const char *upload_role_name(enum upload_role role);

struct upload_file {
	char *path;
	enum upload_role role;
	enum upload_content content;
	char **parts;		  /* of UPLOAD_BUNDLE */
	size_t part_count;
	uint64_t size;		  /* bytes to be sent */
	bool has_file_id;	  /* executables, and debug files whose executable is known: then it is that one's */
	struct fileid file_id;
	struct build_id build_id; /* len 0: none */
	bool has_dwarf;
	bool has_symtab;
	bool is_bare;		  /* a kernel image without ELF headers: it cannot be read further */
	bool has_supplement;	  /* it names one */
	bool may_be_split;
	uint64_t device, inode; /* so that one file under two names is sent once */
	bool is_taken;		/* plan: a debug file that a unit has already */
};

/* What one worker sends, one file behind the other: an executable and its debug file, or one file alone. */
struct upload_unit {
	size_t first, count; /* in files */
};

struct upload_plan {
	struct upload_file *files;
	size_t file_count, file_cap;
	struct hmap by_inode;	 /* hash of device and inode -> index in files */
	struct hmap by_build_id; /* hash of the build ID -> index of the first debug file that has it */
	struct upload_unit *units;
	size_t unit_count;
	size_t first_units; /* so many of them are sent before the others are begun */
	bool verbose;
	uint64_t bytes;	   /* of all files */
	size_t skipped[UPLOAD_KINDS]; /* files in folders that are not sent */
	size_t warnings[UPLOAD_WARNINGS];
	size_t failed;	   /* files and paths that could not be read, or are nothing to send; each has had its line */
};

/**
 * Collects what @p paths name and pairs executables with debug files by build ID, first among the files collected, then
 * where gdb looks. Supplements and split DWARF that they need are found, too. Warnings, and files and paths that cannot be used, are told on
 * standard error and counted.
 * @param debug_path  the debug file of the only executable, or NULL
 * @return NULL; ERR_INVALID: @p debug_path with not exactly one executable;
 *         ERR_MISMATCH: debug_path belongs to another binary; ERR_OS; ERR_NOMEM. Release with upload_plan_deinit.
 */
struct err *upload_plan_make(char *const *paths, size_t path_count, const char *debug_path, bool verbose, struct upload_plan *ret) MUST_USE;
void upload_plan_deinit(struct upload_plan *plan);
void upload_file_deinit(struct upload_file *file);

/** The bytes that are sent of a file, to be read from their start. ERR_OS; ERR_FORMAT: a part changed; ERR_LIMIT; ERR_NOMEM. */
struct err *upload_content_open(const struct upload_file *file, int *fd_ret) MUST_USE;
/** How long the archive of files of these sizes is. */
uint64_t upload_bundle_bytes(const uint64_t *sizes, size_t count);

/* ---------------------------------------------------------------------------------------------- transfer */

struct upload_options {
	const char *url;
	bool force, wait;
	const char *name; /* of the only executable, for people; NULL: its base name */
	uint64_t bytes_per_second; /* of each job; 0: no limit */
	uint32_t jobs;
};

/* Shared by the workers. Counters are only shown: relaxed order would do. */
struct upload_progress {
	_Atomic uint64_t sent_bytes, done_files;
	_Atomic bool has_connected; /* some request was answered: a server that vanishes now may come back */
};

enum upload_outcome { UPLOAD_SENT, UPLOAD_EXISTS };

/**
 * Sends one file: asks first, goes on where an earlier attempt stopped, survives broken connections and a restarted server.
 * @param server  the calling thread's own
 * @return NULL and the outcome; else what the server or the system said, without the path.
 */
struct err *upload_transfer(struct server *server, const struct upload_options *options, const struct upload_file *file,
	struct upload_progress *progress, enum upload_outcome *ret) MUST_USE;

/* ---------------------------------------------------------------------------------------------- run */

struct upload_summary {
	size_t sent, existed, failed;
	uint64_t sent_bytes;
};

/** Sends all units with options->jobs workers; one line a file on standard output, failures on standard error. */
struct err *upload_run(const struct upload_plan *plan, const struct upload_options *options, struct upload_summary *ret)
	MUST_USE;

#endif

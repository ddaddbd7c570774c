// SPDX-License-Identifier: Apache-2.0
/*
 * From the bytes of a binary, and of its debug file if there is one, to the bytes of a Cairn table.
 * It opens no path and loads no library: whoever calls it brings the bytes (mmapped, most likely), so that it runs in a
 * sandbox. All bytes are hostile. Finding the debug file of a binary is debug_file.h's.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_BUILD_H
#define CAIRN_SYMBOLIZER_BUILD_BUILD_H

#include "base/buf.h"
#include "base/err.h"
#include "fileid/build_id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BUILD_THREADS_MAX = 64,
	BUILD_REASON_MAX = 256,
	BUILD_SPLITS_MAX = 1 << 16, /* .dwo files of one program */
};

/* One ELF image, borrowed for the call. */
struct build_image {
	const void *bytes; /* NULL: there is none */
	size_t len;
	const char *name; /* for errors: a path, an archive member. NULL: "input" */
};

/* What a skeleton unit says about its other half (split DWARF). */
struct build_split_name {
	const char *comp_dir, *name; /* where the compiler put the .dwo file: name is relative to comp_dir, or absolute */
	uint64_t dwo_id;
};

/* What a build does, in order; each takes the time that build_stats gives. */
enum build_phase {
	BUILD_LOAD,   /* headers checked, sections inflated */
	BUILD_UNITS,  /* DWARF read, unit by unit, by all threads */
	BUILD_MERGE,  /* units, names and ELF symbols made one */
	BUILD_ENCODE, /* the table written */
	BUILD_PHASE_COUNT,
};

struct build_options {
	struct build_image binary; /* what ran: may be stripped, may carry its own DWARF */
	struct build_image debug;  /* its separate debug file; alone (no binary) it does too */
	/* What the file with the DWARF names as its supplement (elffile_debugaltlink: dwz). Without it many functions have the ELF
	 * symbol's name only, and inlined ones none. */
	struct build_image supplement;
	/* Split DWARF: .dwo files, or a .dwp, in any order. What a skeleton unit has no other half for among them is asked for, by the
	 * calling thread: an image that stays until the build is over, or none (bytes NULL). An error ends the build. NULL: nothing is asked. */
	const struct build_image *splits;
	size_t split_count;
	struct err *(*find_split)(void *context, const struct build_split_name *wanted, struct build_image *ret);
	void *find_split_context;
	unsigned threads;	   /* 0 or 1: the calling thread only; more are started for the call. At most BUILD_THREADS_MAX */
	/* Bytes that the build may hold beyond the images: inflated sections and its own arrays, the table not counted. 0: no
	 * limit of its own. */
	uint64_t memory_max;
	/* Called now and then by the calling thread; NULL: not wanted. done of total are units of work of the phase. */
	void (*progress)(void *context, enum build_phase phase, uint64_t done, uint64_t total);
	void *progress_context;
};

struct build_stats {
	uint32_t sources;	/* enum table_source bits */
	struct build_id build_id; /* of the binary, else of the debug file */
	uint64_t units;		/* in .debug_info, type units included */
	uint64_t missing_splits; /* skeleton units without their other half: their functions have ELF symbols' names only */
	uint64_t skipped_units; /* damaged or of an unknown kind; the others stand */
	uint64_t tombstones;	/* ranges of functions and sequences of rows that the linker had discarded */
	uint64_t cut_chains;	/* inlined calls deeper than TABLE_MAX_DEPTH, left out */
	uint64_t damaged;	/* sections that cannot be read; names, references, range lists and line tables that lead nowhere: what hangs on them is left out */
	uint64_t line_rows;	/* decoded rows of line tables that were kept */
	uint64_t ranges;	/* of functions and inlined calls */
	uint64_t functions;	/* names with a start line, as handed to the table */
	uint64_t inline_nodes;	/* inlined calls */
	uint64_t symbols;	/* ELF symbols considered */
	uint64_t rows;		/* handed to the table */
	uint64_t phase_ms[BUILD_PHASE_COUNT];
	char reason[BUILD_REASON_MAX]; /* of the first damage, by position of its unit; "" when there is none */
};

/**
 * Builds one table. The same images give the same bytes, whatever the number of threads.
 * @param ret    the table is appended; untouched on failure
 * @param stats  filled on success; NULL: not wanted
 * @return NULL; ERR_FORMAT: not ELF, or damage that leaves nothing to use ("<image>: .debug_info+0x1f: what");
 *         ERR_MISMATCH: both images have a build ID, and they differ, or their machines do, or the supplement is not the one that
 *         is named; ERR_NOT_FOUND: neither DWARF nor a function symbol;
 *         ERR_LIMIT: past memory_max or a named limit of work; ERR_UNSUPPORTED; ERR_INVALID: no image; ERR_NOMEM.
 * Thread: any; several builds may run at once.
 */
struct err *build_table(const struct build_options *options, struct buf *ret, struct build_stats *stats) MUST_USE;

/** "load", "units", "merge", "encode". */
const char *build_phase_name(enum build_phase phase);

#endif

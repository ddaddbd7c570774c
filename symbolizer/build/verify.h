// SPDX-License-Identifier: Apache-2.0
/*
 * `cairn verify`: a Cairn table against what libdwarf and libelf say about the same file. At every boundary of every
 * function, inlined call, line row and symbol, and at random addresses between, the table's chain of frames must be one that the
 * reference has. docs/verification.md says what is compared and which defects of the references are known.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_VERIFY_H
#define CAIRN_SYMBOLIZER_BUILD_VERIFY_H

#include "base/buf.h"
#include "symbolizer/build/elf_file.h"
#include "symbolizer/build/verify_child.h"
#include "symbolizer/table/table.h"

enum { VERIFY_SHOWN = 10, VERIFY_TEXT = 768 };

/* What the reference walk may take when the request does not say: a JVM's file takes 18 seconds and 1.2 GB. */
enum { VERIFY_SECONDS = 3600 };
#define VERIFY_MEMORY_BYTES ((uint64_t)32 << 30)

enum verify_difference {
	VERIFY_MISSING,	   /* the table has no frame, the reference has */
	VERIFY_EXTRA,	   /* the table has frames, the reference has nothing */
	VERIFY_DEPTH,	   /* another number of frames */
	VERIFY_LINE,	   /* the innermost frame's file, line or column */
	VERIFY_CALL_SITE,  /* an outer frame's file, line or column */
	VERIFY_NAME,	   /* a function's name */
	VERIFY_START_LINE, /* a function's line of declaration */
	VERIFY_DIFFERENCES,
};

/* Plain data: it comes through a pipe. */
struct verify_report {
	uint64_t addresses, frames; /* compared */
	uint64_t stubs;		    /* of the addresses: `name@plt`, of which neither library knows */
	uint64_t go_only;	    /* of the addresses: what .gopclntab says, of which neither library knows */
	uint64_t lines_only;	    /* of the addresses: where functions are split DWARF's, which libdwarf misreads */
	uint64_t differences[VERIFY_DIFFERENCES];
	char shown[VERIFY_SHOWN][VERIFY_TEXT]; /* the first differences, by address; "" behind the last */
	uint64_t excused_files; /* equal but for libdwarf's file register of DWARF 5, which starts at 0 instead of 1 */
	/* What the reference has (reference.h). */
	uint64_t units, dies, line_tables, functions, nodes, ranges, rows, symbols;
	uint64_t type_units, split_units, tombstones, repaired_rows, failures;
	char failure[256];
};

struct verify_request {
	const struct table *table;
	struct elffile *binary; /* NULL: none */
	struct elffile *debug;	/* the file with the DWARF, if it is a separate one; NULL: none */
	uint64_t samples;	/* random addresses beside the boundaries */
	uint64_t seed;
	struct verify_child_limits limits; /* 0 in a member: VERIFY_MEMORY_BYTES, VERIFY_SECONDS */
};

/**
 * Compares in a child process.
 * @return NULL (differences are not an error); as verify_child_run and the reference_ functions. Single-threaded programs only.
 */
struct err *verify_table(const struct verify_request *request, struct verify_report *ret) MUST_USE;

/** The same in this process: for tests, and for files that are trusted. */
struct err *verify_table_here(const struct verify_request *request, struct verify_report *ret) MUST_USE;

/** Sum of all differences, failures of the reference included: 0 is a pass. */
uint64_t verify_difference_count(const struct verify_report *report);

/** The report as lines of text for a person, appended. ERR_NOMEM. */
struct err *verify_report_text(const struct verify_report *report, struct buf *ret) MUST_USE;

#endif

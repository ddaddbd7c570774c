// SPDX-License-Identifier: Apache-2.0
/*
 * Split DWARF: a program has skeleton units only, with lines, ranges and addresses; functions, inlined calls and names lie in .dwo files,
 * one a unit, or in one .dwp that they were packed into. The two halves share an ID.
 * Sources: DWARF 5, 3.1.2, 3.1.3, 7.3.2; https://gcc.gnu.org/wiki/DebugFission (GNU's extension of DWARF 4).
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_SPLIT_H
#define CAIRN_SYMBOLIZER_BUILD_SPLIT_H

#include "base/hmap.h"
#include "symbolizer/build/build.h"
#include "symbolizer/build/dw.h"
#include "symbolizer/build/dwp_index.h"

enum { SPLIT_SECTIONS = 5 };

/* One .dwo or .dwp. */
struct split_file {
	struct build_image image;
	struct elffile *elf;
	struct dwp_index index;
	struct dw dw;
	const struct elffile_section *sections[SPLIT_SECTIONS];
	bool was_asked_for;
	uint64_t wanted; /* by which ID */
	uint64_t bytes; /* taken from the account for sections */
	struct err *damage; /* why it, or the first bad part of it, cannot be used; NULL: it can */
};

/* Zeroed at first; split_set_deinit. */
struct split_set {
	struct ARRAY_OF(struct split_file) files;
	struct ARRAY_OF(struct dw_split) halves; /* skeletons point into it */
	struct hmap ids; /* dwo_id -> number of a unit in `found` */
	struct ARRAY_OF(struct split_place) found;
	uint64_t missing; /* skeletons without their other half */
	struct err *first_missing; /* which is the first */
};

/* A unit of one of the files. */
struct split_place {
	uint32_t file, unit;
};

/**
 * Opens the files that options->splits has and those that options->find_split finds for what is then missing, and gives each skeleton of
 * @p dw its other half. Damaged files are left out and say why.
 * @param dw  open, and open until split_set_deinit
 * @return NULL; ERR_LIMIT; ERR_NOMEM.
 */
struct err *split_set_open(struct split_set *set, const struct build_options *options, struct dw *dw, const struct runner *runner) MUST_USE;
/** Frees what only the reading of units needs: what is left are the strings, which names point to. */
void split_set_close_units(struct split_set *set, struct account *account);
void split_set_deinit(struct split_set *set, struct account *account);

/**
 * Calls visit for each skeleton unit of a file, in order; an error that it returns ends it and is handed on.
 * @return NULL, also for a file without any; ERR_FORMAT, ERR_LIMIT: sections that cannot be inflated; ERR_NOMEM.
 */
struct err *split_names(struct elffile *file, struct err *(*visit)(void *context, const struct build_split_name *name), void *context) MUST_USE;

#endif

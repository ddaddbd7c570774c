// SPDX-License-Identifier: Apache-2.0
/*
 * What the makers of an upload plan share: walking (upload_walk.c), split DWARF (upload_split.c), pairing (upload_plan.c).
 */
#ifndef CAIRN_CLI_UPLOAD_PLAN_H
#define CAIRN_CLI_UPLOAD_PLAN_H

#include "cli/upload.h"
#include "symbolizer/build/debug_file.h"

/** What a kind is called in a list of what was passed over. */
const char *upload_kind_name(enum upload_kind kind);

/** A zeroed file behind the last one of the plan, part of it once it is committed. NULL: no memory. */
struct upload_file *upload_plan_add(struct upload_plan *plan);
/** The file that upload_plan_add gave becomes part of the plan. ERR_NOMEM. */
struct err *upload_plan_commit(struct upload_plan *plan) MUST_USE;
/** The file of the plan that is the same on disk, or NULL. */
struct upload_file *upload_plan_find_same(const struct upload_plan *plan, uint64_t device, uint64_t inode);
/** The first debug file of the plan with this build ID, or NULL. */
struct upload_file *upload_plan_find_debug(const struct upload_plan *plan, const struct build_id *id);

/** Adds what @p path names: one file, or all of a folder. ERR_INVALID: it is nothing that is sent; ERR_OS; ERR_FORMAT; ERR_NOMEM. */
struct err *upload_plan_path(struct upload_plan *plan, const char *path) MUST_USE;

/** Fills in what the sections say. */
void upload_describe(const struct elf_mapping *mapping, struct upload_file *file);

/** Tells the first few of a kind, all when verbose, and counts them. @p words NULL: @p what says all. */
void upload_plan_warn(struct upload_plan *plan, enum upload_warning warning, const char *what, const char *words);

/**
 * The split DWARF of a program: the .dwp beside it, else all .dwo files that are found, as one archive.
 * @param dwarf  the file with the skeleton units: the executable or its debug file
 * @param ret    path NULL when there is none
 * @return NULL; ERR_OS; ERR_FORMAT; ERR_LIMIT; ERR_NOMEM.
 */
struct err *upload_split_find(struct upload_plan *plan, const struct upload_file *dwarf, const struct upload_file *executable,
	struct upload_file *ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * A .deb or .ddeb: its ELF members go to the scratch file, are paired by build ID, and each gives one result.
 */
#ifndef CAIRN_WORKER_PACKAGE_H
#define CAIRN_WORKER_PACKAGE_H

#include "worker/image.h"
#include "worker/options.h"
#include "worker/output.h"

enum {
	PACKAGE_ENTRIES_MAX = 1 << 18,	/* of any kind, in one archive */
	PACKAGE_ELF_MAX = PROTOCOL_RESULTS_MAX, /* ELF members */
	PACKAGE_WANTED_MAX = 64,	/* build IDs in the list of those that are wanted */
	PACKAGE_SPLITS_MAX = 64,	/* .dwo and .dwp members that one program is built with */
	PACKAGE_RATIO_MAX = 200,	/* bytes unpacked per packed byte .. */
	PACKAGE_RATIO_FROM = 64 << 20,	/* .. once so many were unpacked: xz makes 7000 of zeros, 4 to 12 of programs */
};

struct package_input {
	const struct image *package;
	const struct image *supplement; /* of its debug files (dwz), where the package has none; NULL: none */
	const struct image *sibling;	/* another package, which may have it; nothing else of it is used; NULL: none */
	const struct image *wanted;	/* build IDs, one line of hex each: whose symbols are wanted; NULL: all */
};

/**
 * Sends one result for each ELF file with code, with its debug file where the package has both, and `skipped` for ELF members
 * that could not be used. With a list of wanted build IDs: of other runtime files who they are, of other debug files nothing.
 * Nothing is written but the scratch file.
 * @param needs_ret  a supplement that a file names and nobody has here (unless options->alone): nothing was sent then, but
 *                   progress and `skipped`; a build ID of length 0: none is missing
 * @return NULL; ERR_FORMAT: damaged, truncated, a nested compression; ERR_UNSUPPORTED; ERR_LIMIT: options->unpacked_bytes or a
 *         limit above is passed; ERR_OS: scratch file; ERR_NOMEM.
 */
struct err *package_run(const struct package_input *input, const struct worker_options *options, struct output *output,
	struct protocol_needs *needs_ret) MUST_USE;

#endif

// SPDX-License-Identifier: Apache-2.0
/*
 * From mapped ELF images to a result for cairnd: identity by fileid/, table by symbolizer/build.
 */
#ifndef CAIRN_WORKER_CONVERT_H
#define CAIRN_WORKER_CONVERT_H

#include "symbolizer/build/kernel_image.h"
#include "worker/image.h"
#include "worker/options.h"
#include "worker/output.h"

#include <stdbool.h>

/* What decides how a file is used, without reading its debug information. */
struct convert_kind {
	struct build_id build_id;
	bool code;	 /* it has executable sections or segments */
	bool debug_only; /* and their bytes are not in it */
	bool dwarf;	 /* it has .debug_info or the like */
	bool skeleton;	 /* of its DWARF a part may be in split DWARF */
	bool split;	 /* it is such a part: a .dwo or .dwp */
	struct build_id supplement; /* what it names as its supplement (dwz); len 0: none */
};

/** ERR_FORMAT, ERR_LIMIT: not an ELF file that can be read. */
struct err *convert_classify(const struct image *image, const char *name, struct convert_kind *ret) MUST_USE;

struct convert_input {
	const struct image *binary; /* a runtime file, or a debug file that stands alone */
	const struct image *debug;  /* NULL: none */
	const struct image *supplement; /* of the one with the DWARF (dwz); NULL: none */
	const struct image *splits; /* its split DWARF, and perhaps others': each a .dwp, a .dwo, or an ar archive of .dwo files */
	size_t split_count;
	const char *name;	    /* for errors */
	const char *member;	    /* for the result: its name in a package; "" */
	uint64_t packed_bytes;	    /* size of the packed file that the binary lay in (vmlinuz, .ko.xz); 0: it lay in none */
};

/**
 * Whether a supplement is named that the input does not have.
 * @param ret  which; a build ID of length 0: none is missing
 * @return NULL; ERR_FORMAT, ERR_LIMIT: a file cannot be read.
 */
struct err *convert_needs(const struct convert_input *input, struct protocol_needs *ret) MUST_USE;

/** Sends a result that says who the file is, and has no table: nobody asked for its symbols. */
struct err *convert_identify(const struct convert_input *input, struct output *output) MUST_USE;
/**
 * Builds the table and sends one result. A file without any symbol gives a result without a table.
 * @return NULL; what build_table returns; ERR_UNSUPPORTED: packed, and not a Linux kernel or module with a build ID, since nothing
 *         else is known by what is in it; ERR_OS.
 */
struct err *convert_run(const struct convert_input *input, const struct worker_options *options, struct output *output) MUST_USE;

/** One result, without a table, for a bare kernel image: what is known is its build ID. ERR_UNSUPPORTED, ERR_OS. */
struct err *convert_bare(const struct kernel_image *image, const struct convert_input *input, struct output *output) MUST_USE;

#endif

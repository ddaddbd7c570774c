// SPDX-License-Identifier: Apache-2.0
/*
 * A symbolized profile in memory: what a read of the profiles store comes to before it is written out as pprof, folded
 * stacks, callgrind or a flame graph. One profile has one sample type: types are never added together.
 *
 * Everything is a flat array with numbers between them, equal things are held once, and a stack is a chain of nodes that
 * share their roots, so that a million samples of fifty thousand stacks stay small:
 *
 *     stack node -> parent node (towards the root), location
 *     location   -> mapping, address, frames[first, first + count) innermost first (one physical frame with its inlines)
 *     frame      -> function, file, line, column
 *
 * One thread at a time.
 */
#ifndef CAIRN_PROFILES_PROFILE_H
#define CAIRN_PROFILES_PROFILE_H

#include "base/hmap.h"
#include "base/intern.h"
#include "fileid/build_id.h"
#include "fileid/fileid.h"

#include <stdbool.h>
#include <stdint.h>

/* Deeper stacks are cut by whoever brings them in. */
enum { PROFILE_MAX_DEPTH = 4096 };

enum { PROFILE_NONE = UINT32_MAX };

enum profile_frame_kind {
	PROFILE_FRAME_NATIVE,
	PROFILE_FRAME_KERNEL,
	PROFILE_FRAME_INTERPRETED, /* python, jvm, v8, ..: named by the agent */
};

/* All text is a number of profile.text. */
struct profile_mapping {
	uint32_t name; /* base name of the file */
	struct fileid file_id; /* zeroes: unknown */
	struct build_id build_id;
};

struct profile_function {
	uint32_t name;	 /* as shown */
	uint32_t symbol; /* linkage name */
	uint32_t file;
	uint32_t start_line; /* 0: unknown */
};

struct profile_frame {
	uint32_t function;
	uint32_t file; /* text */
	uint32_t line, column;
};

struct profile_location {
	uint32_t mapping; /* PROFILE_NONE */
	uint64_t vaddr;
	uint32_t first_frame, frame_count; /* never 0: a frame without symbols is named file+0xaddress */
	enum profile_frame_kind kind;
	bool symbolized;
	uint32_t reason; /* text: why there is no symbol, when not symbolized */
};

struct profile_stack_node {
	uint32_t parent; /* PROFILE_NONE at the root */
	uint32_t location;
	uint64_t self; /* value of the samples that end here */
};

struct profile_value_type {
	uint32_t type, unit; /* "samples" "count" */
};

struct profile {
	struct intern text; /* number 0 is "" */
	struct profile_value_type sample_type, period_type;
	int64_t period;
	uint64_t from_unix_nano, to_unix_nano;
	struct profile_mapping *mappings;
	uint32_t mapping_count, mapping_cap;
	struct profile_function *functions;
	uint32_t function_count, function_cap;
	struct profile_frame *frames;
	uint32_t frame_count, frame_cap;
	struct profile_location *locations;
	uint32_t location_count, location_cap;
	struct profile_stack_node *nodes; /* a parent's number is smaller than its children's */
	uint32_t node_count, node_cap;
	uint64_t total; /* of all samples */
	struct hmap function_index, node_index;
};

struct err *profile_init(struct profile *ret) MUST_USE;
void profile_deinit(struct profile *profile);
/** For CLEANUP; a zeroed one is fine. */
static inline void profile_deinitp(struct profile *profile)
{
	profile_deinit(profile);
}

/** The number of a text. ERR_NOMEM. */
struct err *profile_text(struct profile *profile, const char *text, size_t len, uint32_t *ret) MUST_USE;
/** Adds a mapping; the caller keeps track of equal ones. */
struct err *profile_add_mapping(struct profile *profile, const struct profile_mapping *mapping, uint32_t *ret) MUST_USE;
/** The number of a function; equal ones (all four members) share one. */
struct err *profile_add_function(struct profile *profile, const struct profile_function *function, uint32_t *ret) MUST_USE;
/** Adds a location with its frames, innermost first; the caller keeps track of equal ones. ERR_INVALID: no frames. */
struct err *profile_add_location(struct profile *profile, const struct profile_location *location,
	const struct profile_frame *frames, uint32_t frame_count, uint32_t *ret) MUST_USE;
/**
 * Adds a stack node under @p parent (PROFILE_NONE: at the root) with the value of the samples that end there. Its location may be
 * added later. The caller keeps track of equal ones; not to be mixed with profile_add_sample. ERR_INVALID: no such parent.
 */
struct err *profile_add_node(struct profile *profile, uint32_t parent, uint32_t location, uint64_t self, uint32_t *ret) MUST_USE;
/** Adds @p value to the stack of @p depth locations, leaf first. ERR_LIMIT past PROFILE_MAX_DEPTH. Amortized O(depth). */
struct err *profile_add_sample(struct profile *profile, const uint32_t *locations, uint32_t depth, uint64_t value) MUST_USE;

/* Ways out. Each appends to @p ret; output is deterministic: the same profile, the same bytes. */

/** google/pprof's profile.proto, gzip-compressed. Mappings carry build IDs and has_* flags, so pprof does not symbolize
 * again; their text is added to the profile. */
struct err *profile_write_pprof(struct profile *profile, struct buf *ret) MUST_USE;
/** `root;..;leaf value` lines, inlined frames as frames of their own (flamegraph.pl, speedscope). Sorted. */
struct err *profile_write_folded(const struct profile *profile, struct buf *ret) MUST_USE;
/** Callgrind format 1, for kcachegrind and callgrind_annotate: self cost a line, inclusive cost a call. */
struct err *profile_write_callgrind(const struct profile *profile, struct buf *ret) MUST_USE;
/** A flame graph's tree, {"name":..,"value":..,"self":..,"inlined":..,"kind":..,"unresolved":..,"children":[..]}; docs/http-api.md. */
struct err *profile_write_json(const struct profile *profile, struct buf *ret) MUST_USE;

#endif

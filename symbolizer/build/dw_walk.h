// SPDX-License-Identifier: Apache-2.0
/*
 * One unit's DIEs, walked once: its functions and inlined calls as a tree of nodes, their ranges, their names.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_DW_WALK_H
#define CAIRN_SYMBOLIZER_BUILD_DW_WALK_H

#include "base/buf.h"
#include "base/hmap.h"
#include "symbolizer/build/dw.h"
#include "symbolizer/build/paint.h"

enum { WALK_NONE = UINT32_MAX };

/* A concrete function (parent WALK_NONE) or an inlined call. Parents stand before their children. */
struct walk_node {
	uint64_t entry_vaddr; /* concrete only */
	uint32_t parent;
	uint32_t function;
	uint32_t call_file; /* register of the unit's line table, as in the DIE; 0 when it is not said */
	uint32_t call_line, call_column;
};

struct walk_function {
	const char *name;    /* borrowed from a string section; NULL: at text_offset of the walk's text */
	uint32_t text_offset;
	uint32_t start_line; /* 0: unknown */
	uint32_t decl_file;  /* register of this unit's line table; WALK_NONE: unknown, or said in another unit */
};

/* An open subprogram or inlined call with children. */
struct walk_level {
	uint64_t depth;	     /* of DIEs */
	uint64_t die_offset;
	uint32_t node;	     /* WALK_NONE until a descendant with code needs it */
	uint32_t chain;	     /* frames from the outermost to this one */
	bool inlined;
};

/* Results and scratch, reused from unit to unit by one thread. */
struct walk {
	struct ARRAY_OF(struct walk_node) nodes;
	struct ARRAY_OF(struct walk_function) functions;
	struct paint_list ranges; /* in order of the DIEs: what paint() takes */
	struct buf text;
	uint64_t tombstones, cut_chains, inline_nodes;
	uint64_t damaged; /* names, references and range lists that lead nowhere */
	struct err *first_damage;

	struct ARRAY_OF(struct walk_level) levels;
	struct dw_range_list list;
	struct hmap origins; /* offset of a DIE in .debug_info -> function */
};

/**
 * Walks a unit. Nothing is skipped by DW_AT_sibling: gcc puts the bodies of lambdas into local classes.
 * @param code  a range whose low address is not in its code is a tombstone
 * @return NULL; ERR_FORMAT: the unit is damaged (what was found so far is in @p walk); ERR_LIMIT; ERR_NOMEM.
 */
struct err *walk_unit(struct dw *dw, const struct dw_unit *unit, const struct elffile *code, struct walk *walk) MUST_USE;
void walk_deinit(struct walk *walk, struct account *account);

#endif

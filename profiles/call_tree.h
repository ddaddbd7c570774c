// SPDX-License-Identifier: Apache-2.0
/*
 * A profile as a tree of function calls, inlined calls as calls of their own: what flame graphs and folded stacks show.
 * Built once from a struct profile, then read-only. Parents come before their children.
 */
#ifndef CAIRN_PROFILES_CALL_TREE_H
#define CAIRN_PROFILES_CALL_TREE_H

#include "profiles/profile.h"

struct call_node {
	uint32_t parent;   /* PROFILE_NONE for what stands at the root */
	uint32_t function; /* of the profile; of those that differ by symbol only, the first */
	bool inlined;
	uint64_t self, total;
	uint32_t first_child, next_sibling; /* PROFILE_NONE ends; largest total first, then by name */
};

struct call_tree {
	struct call_node *nodes;
	uint32_t count;
	uint32_t first_root;
	uint32_t depth; /* of the deepest node, 1 for a root */
};

/** ERR_NOMEM, ERR_LIMIT. O(stack nodes * frames). */
struct err *call_tree_build(const struct profile *profile, struct call_tree *ret) MUST_USE;
void call_tree_deinit(struct call_tree *tree);

/** The node that comes after @p node when a node is visited before its children; PROFILE_NONE at the end. O(1) amortized. */
uint32_t call_tree_next(const struct call_tree *tree, uint32_t node);

#endif

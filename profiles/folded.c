// SPDX-License-Identifier: Apache-2.0
/*
 * Folded stacks (Brendan Gregg's flamegraph.pl "collapsed" input): `root;caller;leaf value`, a line for each call
 * path that has samples of its own. `;` and line breaks in a name would split it, so they become `:` and a space.
 */
#include "profiles/call_tree.h"

static struct err *append_name(const struct profile *profile, uint32_t function, struct buf *path)
{
	const char *name = intern_text(&profile->text, profile->functions[function].name);

	for (; *name; name++) {
		char c = *name == ';' ? ':' : (unsigned char)*name < 0x20 ? ' ' : *name;
		TRY(buf_append(path, &c, 1));
	}
	return NULL;
}

struct err *profile_write_folded(const struct profile *profile, struct buf *ret)
{
	CLEANUP(call_tree_deinit) struct call_tree tree = {0};
	CLEANUP(buf_deinit) struct buf path = {0};

	TRY(call_tree_build(profile, &tree));
	/* Where each open node's name ends in `path`, so that leaving a node is a cut. */
	CLEANUP(freep) size_t *ends = calloc((size_t)tree.count + 1, sizeof(*ends));
	if (!ends)
		return err_nomem();
	for (uint32_t i = tree.first_root; i != PROFILE_NONE; i = call_tree_next(&tree, i)) {
		const struct call_node *node = &tree.nodes[i];
		path.len = node->parent == PROFILE_NONE ? 0 : ends[node->parent];
		if (path.len > 0)
			TRY(buf_append(&path, ";", 1));
		TRY(append_name(profile, node->function, &path));
		ends[i] = path.len;
		if (node->self > 0) {
			TRY(buf_append(ret, path.data, path.len));
			TRY(buf_printf(ret, " %llu\n", (unsigned long long)node->self));
		}
	}
	return NULL;
}

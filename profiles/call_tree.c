// SPDX-License-Identifier: Apache-2.0
#include "profiles/call_tree.h"

#include "base/digest.h"

#include <string.h>

struct builder {
	const struct profile *profile;
	struct call_tree *tree;
	uint32_t cap;
	struct hmap index; /* parent << 32 | function << 1 | inlined -> node */
	uint32_t *shown;   /* of a function: the first one that looks the same */
};

/* Clones and cold parts of a function have symbols of their own ("f.constprop.0", "f.cold"), but are shown, and counted, as that function. */
static struct err *find_shown(struct builder *b)
{
	const struct profile *profile = b->profile;
	CLEANUP(hmap_deinit) struct hmap index = {0};
	uint64_t first;

	b->shown = malloc(((size_t)profile->function_count + 1) * sizeof(*b->shown));
	if (!b->shown)
		return err_nomem();
	for (uint32_t i = 0; i < profile->function_count; i++) {
		struct profile_function looks = profile->functions[i];
		b->shown[i] = i;
		if (looks.symbol == 0)
			continue;
		looks.symbol = 0;
		uint64_t key = digest_xxh3_64(&looks, sizeof(looks));
		if (!hmap_get(&index, key, &first)) {
			TRY(hmap_set(&index, key, i));
			continue;
		}
		const struct profile_function *other = &profile->functions[first];
		if (other->name == looks.name && other->file == looks.file && other->start_line == looks.start_line)
			b->shown[i] = (uint32_t)first;
	}
	return NULL;
}

static struct err *child(struct builder *b, uint32_t parent, uint32_t function, bool inlined, uint32_t *ret)
{
	uint64_t key = (uint64_t)parent << 32 | (uint64_t)function << 1 | inlined, number;

	if (hmap_get(&b->index, key, &number)) {
		*ret = (uint32_t)number;
		return NULL;
	}
	if (b->tree->count == b->cap) {
		if (b->cap > PROFILE_NONE / 4)
			return err_new(ERR_LIMIT, "a call tree of more than %u nodes", b->cap);
		uint32_t cap = b->cap ? b->cap * 2 : 256;
		struct call_node *nodes = realloc(b->tree->nodes, cap * sizeof(*nodes));
		if (!nodes)
			return err_nomem();
		b->tree->nodes = nodes;
		b->cap = cap;
	}
	TRY(hmap_set(&b->index, key, b->tree->count));
	*ret = b->tree->count++;
	b->tree->nodes[*ret] = (struct call_node){.parent = parent, .function = function, .inlined = inlined,
		.first_child = PROFILE_NONE, .next_sibling = PROFILE_NONE};
	return NULL;
}

/* One physical frame becomes a chain of calls: its outermost function first, then what was inlined into it. */
static struct err *add_location(struct builder *b, const struct profile_location *location, uint32_t parent, uint32_t *ret)
{
	const struct profile_frame *frames = b->profile->frames + location->first_frame;

	for (uint32_t i = location->frame_count; i-- > 0;)
		TRY(child(b, parent, b->shown[frames[i].function], i + 1 < location->frame_count, &parent));
	*ret = parent;
	return NULL;
}

static struct err *add_stacks(struct builder *b)
{
	const struct profile *profile = b->profile;
	CLEANUP(freep) uint32_t *call_of = malloc(((size_t)profile->node_count + 1) * sizeof(*call_of));

	if (!call_of)
		return err_nomem();
	for (uint32_t i = 0; i < profile->node_count; i++) {
		const struct profile_stack_node *node = &profile->nodes[i];
		uint32_t parent = node->parent == PROFILE_NONE ? PROFILE_NONE : call_of[node->parent];
		TRY(add_location(b, &profile->locations[node->location], parent, &call_of[i]));
		b->tree->nodes[call_of[i]].self += node->self;
	}
	return NULL;
}

struct order {
	const struct profile *profile;
	const struct call_tree *tree;
};

static int compare_siblings(const void *left, const void *right, void *user)
{
	const struct order *order = user;
	const struct call_node *a = &order->tree->nodes[*(const uint32_t *)left];
	const struct call_node *b = &order->tree->nodes[*(const uint32_t *)right];

	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	if (a->total != b->total)
		return a->total > b->total ? -1 : 1;
	const struct profile *profile = order->profile;
	int names = strcmp(intern_text(&profile->text, profile->functions[a->function].name),
		intern_text(&profile->text, profile->functions[b->function].name));
	if (names != 0)
		return names;
	/* Equal names, as two versions of one library have: their order of arrival. */
	return *(const uint32_t *)left < *(const uint32_t *)right ? -1 : 1;
}

/* Sums totals upwards and links siblings in order. */
static struct err *link_nodes(const struct profile *profile, struct call_tree *tree)
{
	CLEANUP(freep) uint32_t *sorted = malloc(((size_t)tree->count + 1) * sizeof(*sorted));

	if (!sorted)
		return err_nomem();
	for (uint32_t i = tree->count; i-- > 0;) {
		struct call_node *node = &tree->nodes[i];
		node->total += node->self;
		if (node->parent != PROFILE_NONE)
			tree->nodes[node->parent].total += node->total;
		sorted[i] = i;
	}
	struct order order = {profile, tree};
	qsort_r(sorted, tree->count, sizeof(*sorted), compare_siblings, &order);
	tree->first_root = PROFILE_NONE;
	for (uint32_t i = tree->count; i-- > 0;) {
		struct call_node *node = &tree->nodes[sorted[i]];
		uint32_t *first = node->parent == PROFILE_NONE ? &tree->first_root : &tree->nodes[node->parent].first_child;
		node->next_sibling = *first;
		*first = sorted[i];
	}
	return NULL;
}

static struct err *measure_depth(struct call_tree *tree)
{
	CLEANUP(freep) uint32_t *depth = malloc(((size_t)tree->count + 1) * sizeof(*depth));

	if (!depth)
		return err_nomem();
	for (uint32_t i = 0; i < tree->count; i++) {
		uint32_t parent = tree->nodes[i].parent;
		depth[i] = parent == PROFILE_NONE ? 1 : depth[parent] + 1;
		if (depth[i] > tree->depth)
			tree->depth = depth[i];
	}
	return NULL;
}

struct err *call_tree_build(const struct profile *profile, struct call_tree *ret)
{
	struct call_tree tree = {.first_root = PROFILE_NONE};
	struct builder b = {.profile = profile, .tree = &tree};

	struct err *e = find_shown(&b);
	if (!e)
		e = add_stacks(&b);
	hmap_deinit(&b.index);
	free(b.shown);
	if (!e)
		e = link_nodes(profile, &tree);
	if (!e)
		e = measure_depth(&tree);
	if (e) {
		call_tree_deinit(&tree);
		return e;
	}
	*ret = tree;
	return NULL;
}

void call_tree_deinit(struct call_tree *tree)
{
	free(tree->nodes);
	*tree = (struct call_tree){.first_root = PROFILE_NONE};
}

uint32_t call_tree_next(const struct call_tree *tree, uint32_t node)
{
	if (tree->nodes[node].first_child != PROFILE_NONE)
		return tree->nodes[node].first_child;
	while (node != PROFILE_NONE && tree->nodes[node].next_sibling == PROFILE_NONE)
		node = tree->nodes[node].parent;
	return node == PROFILE_NONE ? PROFILE_NONE : tree->nodes[node].next_sibling;
}

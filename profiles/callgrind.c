// SPDX-License-Identifier: Apache-2.0
/*
 * Callgrind's profile format, version 1 (valgrind manual, "Callgrind Format Specification"), for kcachegrind and
 * callgrind_annotate. It knows functions, lines and calls, not stacks:
 *
 *     self cost    of (function, line)                     from the innermost frame of each sample
 *     inclusive    of (caller, its line, callee)           from each pair of neighbours in a stack
 *
 * A sample counts once for a call, however often recursion repeats that call in its stack: else inclusive costs would pass
 * the total. Names are written once and then by number ("name compression").
 */
#include "profiles/profile.h"

struct edge {
	uint32_t caller, line, callee; /* callee PROFILE_NONE: self cost */
	uint32_t callee_line;
	uint32_t seen_in; /* the sample that counted last, plus 1 */
	uint64_t cost;
};

struct collector {
	const struct profile *profile;
	struct edge *edges;
	uint32_t count, cap;
	struct hmap index;
};

static uint64_t edge_key(const struct edge *edge)
{
	uint64_t key = (uint64_t)edge->caller * 0x9e3779b97f4a7c15u;
	key = (key ^ edge->line) * 0xbf58476d1ce4e5b9u;
	return (key ^ key >> 29 ^ edge->callee) * 0x94d049bb133111ebu;
}

static struct err *find_edge(struct collector *c, const struct edge *wanted, struct edge **ret)
{
	uint64_t key = edge_key(wanted), number;

	for (; hmap_get(&c->index, key, &number); key++) {
		struct edge *edge = &c->edges[number];
		if (edge->caller == wanted->caller && edge->line == wanted->line && edge->callee == wanted->callee) {
			*ret = edge;
			return NULL;
		}
	}
	if (c->count == c->cap) {
		uint32_t cap = c->cap ? c->cap * 2 : 256;
		struct edge *edges = realloc(c->edges, cap * sizeof(*edges));
		if (!edges)
			return err_nomem();
		c->edges = edges;
		c->cap = cap;
	}
	TRY(hmap_set(&c->index, key, c->count));
	c->edges[c->count] = *wanted;
	*ret = &c->edges[c->count++];
	return NULL;
}

static struct err *count_edge(struct collector *c, struct edge wanted, uint32_t sample, uint64_t value)
{
	struct edge *edge;

	TRY(find_edge(c, &wanted, &edge));
	if (edge->seen_in != sample) {
		edge->seen_in = sample;
		edge->cost += value;
	}
	return NULL;
}

/* All frames of the stack that ends in @p node, innermost first: self cost for the first, a call for each pair. */
static struct err *collect_sample(struct collector *c, uint32_t node)
{
	const struct profile *profile = c->profile;
	const struct profile_frame *callee = NULL;
	uint64_t value = profile->nodes[node].self;

	for (uint32_t n = node; n != PROFILE_NONE; n = profile->nodes[n].parent) {
		const struct profile_location *location = &profile->locations[profile->nodes[n].location];
		for (uint32_t f = 0; f < location->frame_count; f++) {
			const struct profile_frame *frame = &profile->frames[location->first_frame + f];
			struct edge edge = {.caller = frame->function, .line = frame->line, .callee = PROFILE_NONE};
			if (callee) {
				edge.callee = callee->function;
				edge.callee_line = profile->functions[callee->function].start_line;
			}
			TRY(count_edge(c, edge, node + 1, value));
			callee = frame;
		}
	}
	return NULL;
}

static int compare_edges(const void *left, const void *right)
{
	const struct edge *a = left, *b = right;
	/* Self costs (callee PROFILE_NONE) come first: kcachegrind reads a call's line as the line behind it. */
	uint32_t a_callee = a->callee + 1, b_callee = b->callee + 1;

	if (a->caller != b->caller)
		return a->caller < b->caller ? -1 : 1;
	if (a_callee != b_callee)
		return a_callee < b_callee ? -1 : 1;
	return a->line < b->line ? -1 : a->line > b->line;
}

struct writer {
	const struct profile *profile;
	struct buf *out;
	uint8_t *file_named, *function_named; /* by number: its name was written */
};

/* `fl=(3) /src/a.c` the first time, `fl=(3)` from then on. Numbers start at 1. */
static struct err *write_name(struct writer *w, const char *key, uint32_t number, uint8_t *named, uint32_t text)
{
	const char *name = intern_text(&w->profile->text, text);

	if (named[number])
		return buf_printf(w->out, "%s=(%u)\n", key, number + 1);
	named[number] = 1;
	return buf_printf(w->out, "%s=(%u) %s\n", key, number + 1, *name ? name : "???");
}

static struct err *write_function(struct writer *w, bool called, uint32_t number)
{
	const struct profile_function *function = &w->profile->functions[number];

	TRY(write_name(w, called ? "cfi" : "fl", function->file, w->file_named, function->file));
	return write_name(w, called ? "cfn" : "fn", number, w->function_named, function->name);
}

static struct err *write_edges(struct writer *w, const struct edge *edges, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct edge *edge = &edges[i];
		if (i == 0 || edge->caller != edges[i - 1].caller) {
			TRY(buf_append(w->out, "\n", 1));
			TRY(write_function(w, false, edge->caller));
		}
		if (edge->callee != PROFILE_NONE) {
			TRY(write_function(w, true, edge->callee));
			TRY(buf_printf(w->out, "calls=1 %u\n", edge->callee_line));
		}
		TRY(buf_printf(w->out, "%u %llu\n", edge->line, (unsigned long long)edge->cost));
	}
	return NULL;
}

static struct err *write_document(const struct profile *profile, const struct collector *c, struct buf *ret)
{
	const char *type = intern_text(&profile->text, profile->sample_type.type);
	const char *unit = intern_text(&profile->text, profile->sample_type.unit);
	CLEANUP(freep) uint8_t *file_named = calloc((size_t)profile->text.count + 1, 1);
	CLEANUP(freep) uint8_t *function_named = calloc((size_t)profile->function_count + 1, 1);
	struct writer w = {profile, ret, file_named, function_named};

	if (!file_named || !function_named)
		return err_nomem();
	TRY(buf_printf(ret, "# callgrind format\nversion: 1\ncreator: cairn\npositions: line\nevent: %s %s in %s\nevents: %s\n"
		"summary: %llu\n", type, type, unit, type, (unsigned long long)profile->total));
	return write_edges(&w, c->edges, c->count);
}

struct err *profile_write_callgrind(const struct profile *profile, struct buf *ret)
{
	struct collector c = {.profile = profile};
	struct err *e = NULL;

	for (uint32_t i = 0; i < profile->node_count && !e; i++)
		if (profile->nodes[i].self > 0)
			e = collect_sample(&c, i);
	hmap_deinit(&c.index);
	if (!e) {
		qsort(c.edges, c.count, sizeof(*c.edges), compare_edges);
		e = write_document(profile, &c, ret);
	}
	free(c.edges);
	return e;
}

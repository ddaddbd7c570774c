// SPDX-License-Identifier: Apache-2.0
/*
 * The flame graph's tree as JSON, in the shape that d3-flame-graph and its kin read: name, value, children. Walked and
 * written without recursion.
 */
#include "base/json.h"
#include "profiles/call_tree.h"
#include "profiles/frame_notes.h"

/* A level of the tree is two of JSON, and the document's head is two more. Deeper calls count in the last node shown. */
enum { FLAMEGRAPH_MAX_DEPTH = JSON_MAX_DEPTH / 2 - 4 };

/* What the nodes are made of. */
struct graph {
	const struct profile *profile;
	struct call_tree tree;
	struct frame_notes notes;
};

static void graph_deinit(struct graph *graph)
{
	call_tree_deinit(&graph->tree);
	frame_notes_deinit(&graph->notes);
}

static void begin_node(struct json *json, const struct graph *graph, const struct call_node *node)
{
	static const char *const kinds[] = {[PROFILE_FRAME_NATIVE] = NULL, [PROFILE_FRAME_KERNEL] = "kernel", [PROFILE_FRAME_INTERPRETED] = "interpreted"};
	const struct profile *profile = graph->profile;
	const struct profile_function *function = &profile->functions[node->function];
	const char *kind = kinds[graph->notes.kinds[node->function]];
	uint32_t unresolved = graph->notes.unresolved[node->function];

	json_object_begin(json);
	json_key(json, "name");
	json_text(json, intern_text(&profile->text, function->name));
	if (function->file != 0) {
		json_key(json, "file");
		json_text(json, intern_text(&profile->text, function->file));
	}
	json_key(json, "value");
	json_u64(json, node->total);
	json_key(json, "self");
	json_u64(json, node->self);
	if (node->inlined) {
		json_key(json, "inlined");
		json_bool(json, true);
	}
	if (kind) {
		json_key(json, "kind");
		json_text(json, kind);
	}
	if (unresolved != PROFILE_NONE) {
		json_key(json, "unresolved");
		json_u64(json, unresolved);
	}
	json_key(json, "children");
	json_array_begin(json);
}

static void end_node(struct json *json)
{
	json_array_end(json);
	json_object_end(json);
}

static void write_nodes(struct json *json, const struct graph *graph)
{
	const struct call_tree *tree = &graph->tree;
	uint32_t depth = 0;

	for (uint32_t i = tree->first_root; i != PROFILE_NONE;) {
		const struct call_node *node = &tree->nodes[i];
		begin_node(json, graph, node);
		if (node->first_child != PROFILE_NONE && depth + 1 < FLAMEGRAPH_MAX_DEPTH) {
			depth++;
			i = node->first_child;
			continue;
		}
		end_node(json);
		/* Up to the nearest ancestor with a sibling that was not written yet. */
		while (i != PROFILE_NONE && tree->nodes[i].next_sibling == PROFILE_NONE) {
			i = tree->nodes[i].parent;
			if (i != PROFILE_NONE) {
				end_node(json);
				depth--;
			}
		}
		if (i != PROFILE_NONE)
			i = tree->nodes[i].next_sibling;
	}
}

static void write_type(struct json *json, const struct profile *profile, const char *key, struct profile_value_type type)
{
	json_key(json, key);
	json_object_begin(json);
	json_key(json, "type");
	json_text(json, intern_text(&profile->text, type.type));
	json_key(json, "unit");
	json_text(json, intern_text(&profile->text, type.unit));
	json_object_end(json);
}

/* The rows that "unresolved" of a node counts in. */
static void write_unresolved(struct json *json, const struct graph *graph)
{
	static const struct fileid none;
	const struct profile *profile = graph->profile;

	json_key(json, "unresolved");
	json_array_begin(json);
	for (uint32_t i = 0; i < graph->notes.row_count; i++) {
		const struct frame_unresolved *row = &graph->notes.rows[i];
		char id[BUILD_ID_HEX_SIZE];
		json_object_begin(json);
		if (row->mapping != PROFILE_NONE) {
			const struct profile_mapping *mapping = &profile->mappings[row->mapping];
			json_key(json, "file");
			json_text(json, intern_text(&profile->text, mapping->name));
			if (!fileid_equal(&mapping->file_id, &none)) {
				fileid_format_hex(&mapping->file_id, id);
				json_key(json, "file_id");
				json_text(json, id);
			}
			if (mapping->build_id.len > 0) {
				build_id_format(&mapping->build_id, id);
				json_key(json, "build_id");
				json_text(json, id);
			}
		}
		json_key(json, "frames");
		json_u64(json, row->frames);
		json_key(json, "reason");
		json_text(json, intern_text(&profile->text, row->reason));
		json_object_end(json);
	}
	json_array_end(json);
}

struct err *profile_write_json(const struct profile *profile, struct buf *ret)
{
	CLEANUP(graph_deinit) struct graph graph = {.profile = profile};

	TRY(call_tree_build(profile, &graph.tree));
	TRY(frame_notes_make(profile, &graph.notes));
	struct json json = json_init(ret);
	json_object_begin(&json);
	write_type(&json, profile, "sample_type", profile->sample_type);
	write_type(&json, profile, "period_type", profile->period_type);
	json_key(&json, "period");
	json_i64(&json, profile->period);
	json_key(&json, "from_unix_nano");
	json_text_u64(&json, profile->from_unix_nano);
	json_key(&json, "to_unix_nano");
	json_text_u64(&json, profile->to_unix_nano);
	write_unresolved(&json, &graph);
	json_key(&json, "name");
	json_text(&json, "all");
	json_key(&json, "value");
	json_u64(&json, profile->total);
	json_key(&json, "children");
	json_array_begin(&json);
	write_nodes(&json, &graph);
	json_array_end(&json);
	json_object_end(&json);
	return json_finish(&json);
}

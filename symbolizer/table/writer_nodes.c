// SPDX-License-Identifier: Apache-2.0
/*
 * The writer's inline tree: nodes at the widths that make `nodes` and `wide` together smallest. format.h has the bytes.
 */
#include "symbolizer/table/writer_parts.h"

/* Wider fields than these are stored wide. */
enum { NARROW_DISTANCE = 24, NARROW_LINE = 20, NARROW_COLUMN = 16 };

/* A call as it is stored. */
struct coded_node {
	uint32_t distance, function, file, line, column;
	uint64_t relative_line;
	bool narrow; /* may be, if the widths allow */
};

static struct coded_node code_node(const struct writer *w, uint32_t number)
{
	const struct table_input_node *node = &w->in->nodes[w->node_order[number]];
	const struct function *parent = function_of(w, node->parent);
	struct coded_node c = {
		.distance = number - w->node_number[node->parent],
		.function = w->function_number[node->function],
		.file = file_code(w, node->call_file),
		.line = node->call_line,
		.column = node->call_column,
		.relative_line = (uint64_t)node->call_line - parent->start_line,
	};
	c.narrow = node->call_line >= parent->start_line && c.file == parent->file;
	return c;
}

/* counts[d][l][c]: nodes that need these widths; summed up, those that these widths are enough for. */
struct histogram {
	uint32_t counts[NARROW_DISTANCE + 1][NARROW_LINE + 1][NARROW_COLUMN + 1];
};

static void histogram_sum(struct histogram *h)
{
	for (unsigned d = 0; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 0; l <= NARROW_LINE; l++)
			for (unsigned c = 1; c <= NARROW_COLUMN; c++)
				h->counts[d][l][c] += h->counts[d][l][c - 1];
	for (unsigned d = 0; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 1; l <= NARROW_LINE; l++)
			for (unsigned c = 0; c <= NARROW_COLUMN; c++)
				h->counts[d][l][c] += h->counts[d][l - 1][c];
	for (unsigned d = 1; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 0; l <= NARROW_LINE; l++)
			for (unsigned c = 0; c <= NARROW_COLUMN; c++)
				h->counts[d][l][c] += h->counts[d - 1][l][c];
}

/* How the nodes are stored. */
struct node_plan {
	uint32_t concretes, calls, wide;
	uint8_t narrow_width[NODE_FIELDS], wide_width[WIDE_FIELDS];
	uint64_t entry_min, entry_max;
};

/* The distance's all-ones value marks a wide node, so that it takes one more than the distance itself. */
static unsigned distance_width(uint32_t distance)
{
	return format_width((uint64_t)distance + 1);
}

static void count_nodes(const struct writer *w, struct histogram *h, struct node_plan *plan)
{
	for (uint32_t n = 0; n < w->node_count; n++) {
		const struct table_input_node *node = &w->in->nodes[w->node_order[n]];
		if (node->parent == TABLE_NONE) {
			if (plan->concretes == 0 || node->entry_vaddr < plan->entry_min)
				plan->entry_min = node->entry_vaddr;
			if (plan->concretes == 0 || node->entry_vaddr > plan->entry_max)
				plan->entry_max = node->entry_vaddr;
			plan->concretes++;
			continue;
		}
		struct coded_node c = code_node(w, n);
		plan->calls++;
		widen(&plan->wide_width[WIDE_DISTANCE], c.distance);
		widen(&plan->wide_width[WIDE_LINE], c.line);
		widen(&plan->wide_width[WIDE_COLUMN], c.column);
		unsigned d = distance_width(c.distance), l = format_width(c.relative_line), k = format_width(c.column);
		if (c.narrow && d <= NARROW_DISTANCE && l <= NARROW_LINE && k <= NARROW_COLUMN)
			h->counts[d][l][k]++;
	}
	plan->wide_width[WIDE_FUNCTION] = (uint8_t)format_width(w->function_count);
	plan->wide_width[WIDE_FILE] = (uint8_t)format_width(w->file_count);
}

/* Tries all widths. */
static void choose_widths(const struct writer *w, const struct histogram *h, struct node_plan *plan)
{
	unsigned function = format_width(w->function_count ? w->function_count - 1 : 0), wide_bits = 0;
	for (unsigned i = 0; i < WIDE_FIELDS; i++)
		wide_bits += plan->wide_width[i];
	uint64_t best = UINT64_MAX;
	for (unsigned d = 1; d <= NARROW_DISTANCE; d++)
		for (unsigned l = 0; l <= NARROW_LINE; l++)
			for (unsigned c = 0; c <= NARROW_COLUMN; c++) {
				uint32_t wide = plan->calls - h->counts[d][l][c];
				/* room for the numbers of wide nodes and of concretes */
				unsigned column = c;
				if (l + column < format_width(plan->concretes))
					column = format_width(plan->concretes) - l;
				if (function + l + column < format_width(wide))
					column = format_width(wide) - function - l;
				if (d + function + l + column > FORMAT_MAX_WIDTH)
					continue;
				uint64_t bits = (uint64_t)w->node_count * (d + function + l + column) + (uint64_t)wide * wide_bits;
				if (bits >= best)
					continue;
				best = bits;
				plan->wide = wide;
				plan->narrow_width[NODE_DISTANCE] = (uint8_t)d;
				plan->narrow_width[NODE_FUNCTION] = (uint8_t)function;
				plan->narrow_width[NODE_LINE] = (uint8_t)l;
				plan->narrow_width[NODE_COLUMN] = (uint8_t)column;
			}
}

struct node_packers {
	struct packer nodes, wide, concretes, aliases;
	uint32_t wide_count, concrete_count, alias_count;
	uint8_t concrete_width[CONCRETE_FIELDS], alias_width[ALIAS_FIELDS];
};

static bool fits_narrow(const struct coded_node *c, const struct node_plan *plan)
{
	return c->narrow && distance_width(c->distance) <= plan->narrow_width[NODE_DISTANCE] &&
		format_width(c->relative_line) <= plan->narrow_width[NODE_LINE] &&
		/* not the width that was made larger to hold numbers, or counts would differ: equal or larger is fine */
		format_width(c->column) <= plan->narrow_width[NODE_COLUMN];
}

static void put_call(const struct writer *w, const struct node_plan *plan, uint32_t number, struct node_packers *p)
{
	struct coded_node c = code_node(w, number);
	const uint8_t *narrow = plan->narrow_width, *wide = plan->wide_width;
	if (fits_narrow(&c, plan)) {
		pack(&p->nodes, c.distance, narrow[NODE_DISTANCE]);
		pack(&p->nodes, c.function, narrow[NODE_FUNCTION]);
		pack(&p->nodes, c.relative_line, narrow[NODE_LINE]);
		pack(&p->nodes, c.column, narrow[NODE_COLUMN]);
		return;
	}
	pack(&p->nodes, (UINT64_C(1) << narrow[NODE_DISTANCE]) - 1, narrow[NODE_DISTANCE]);
	pack(&p->nodes, p->wide_count++, (unsigned)narrow[NODE_FUNCTION] + narrow[NODE_LINE] + narrow[NODE_COLUMN]);
	pack(&p->wide, c.distance, wide[WIDE_DISTANCE]);
	pack(&p->wide, c.function, wide[WIDE_FUNCTION]);
	pack(&p->wide, c.file, wide[WIDE_FILE]);
	pack(&p->wide, c.line, wide[WIDE_LINE]);
	pack(&p->wide, c.column, wide[WIDE_COLUMN]);
}

static struct err *put_concrete(struct writer *w, const struct node_plan *plan, uint32_t number, struct node_packers *p)
{
	const struct table_input_node *node = &w->in->nodes[w->node_order[number]];
	const uint8_t *narrow = plan->narrow_width;
	pack(&p->nodes, 0, narrow[NODE_DISTANCE]);
	pack(&p->nodes, w->function_number[node->function], narrow[NODE_FUNCTION]);
	pack(&p->nodes, p->concrete_count++, (unsigned)narrow[NODE_LINE] + narrow[NODE_COLUMN]);
	pack(&p->concretes, node->entry_vaddr - plan->entry_min, p->concrete_width[CONCRETE_ENTRY]);
	pack(&p->concretes, node->alias_count ? p->alias_count + 1 : 0, p->concrete_width[CONCRETE_ALIAS]);
	for (uint32_t i = 0; i < node->alias_count; i++) {
		uint32_t name;
		TRY(writer_text(w, w->in->aliases[node->alias_first + i], &name));
		pack(&p->aliases, i + 1 == node->alias_count, p->alias_width[ALIAS_LAST]);
		pack(&p->aliases, w->text_offset[name], p->alias_width[ALIAS_NAME]);
		p->alias_count++;
	}
	return NULL;
}

/* How many aliases the nodes that are used have together, and the text they may add at most. */
static struct err *measure_aliases(struct writer *w, uint64_t *count_ret, uint32_t *name_max_ret)
{
	uint64_t count = 0;
	uint32_t name, name_max = 0;
	for (uint32_t n = 0; n < w->node_count; n++) {
		const struct table_input_node *node = &w->in->nodes[w->node_order[n]];
		if (node->parent != TABLE_NONE)
			continue;
		count += node->alias_count;
		if (count >= TABLE_NONE)
			return err_new(ERR_LIMIT, "table: node %u: more than 4 Gi aliases", w->node_order[n]);
		for (uint32_t i = 0; i < node->alias_count; i++) {
			TRY(writer_text(w, w->in->aliases[node->alias_first + i], &name));
			name_max = w->text_offset[name] > name_max ? w->text_offset[name] : name_max;
		}
	}
	*count_ret = count;
	*name_max_ret = name_max;
	return NULL;
}

static struct err *put_node_records(struct writer *w, const struct node_plan *plan)
{
	struct table_header *h = &w->header;
	struct node_packers p = {0};
	uint64_t alias_count = 0;
	uint32_t name_max = 0;
	TRY(measure_aliases(w, &alias_count, &name_max));
	p.alias_width[ALIAS_LAST] = 1;
	p.alias_width[ALIAS_NAME] = (uint8_t)format_width(name_max);
	p.concrete_width[CONCRETE_ENTRY] = (uint8_t)format_width(plan->entry_max - plan->entry_min);
	p.concrete_width[CONCRETE_ALIAS] = (uint8_t)format_width(alias_count);
	writer_describe(&h->arrays[ARRAY_NODES], w->node_count, plan->narrow_width, NODE_FIELDS);
	writer_describe(&h->arrays[ARRAY_CONCRETES], plan->concretes, p.concrete_width, CONCRETE_FIELDS);
	writer_describe(&h->arrays[ARRAY_ALIASES], (uint32_t)alias_count, p.alias_width, ALIAS_FIELDS);
	/* an upper bound: a node width that was enlarged for numbers may take some of them in */
	writer_describe(&h->arrays[ARRAY_WIDE], plan->wide, plan->wide_width, WIDE_FIELDS);

	TRY(writer_begin_section(w, &h->arrays[ARRAY_NODES].offset));
	TRY(packer_begin(w->out, w->node_count, h->arrays[ARRAY_NODES].bits, &p.nodes));
	TRY(packer_begin(&w->wide, plan->wide, h->arrays[ARRAY_WIDE].bits, &p.wide));
	TRY(packer_begin(&w->concretes, plan->concretes, h->arrays[ARRAY_CONCRETES].bits, &p.concretes));
	TRY(packer_begin(&w->aliases, alias_count, h->arrays[ARRAY_ALIASES].bits, &p.aliases));
	for (uint32_t n = 0; n < w->node_count; n++) {
		if (w->in->nodes[w->node_order[n]].parent == TABLE_NONE)
			TRY(put_concrete(w, plan, n, &p));
		else
			put_call(w, plan, n, &p);
	}
	packer_finish(&p.nodes, w->out);
	packer_finish(&p.wide, &w->wide);
	packer_finish(&p.concretes, &w->concretes);
	packer_finish(&p.aliases, &w->aliases);
	h->arrays[ARRAY_WIDE].count = p.wide_count;
	h->entry_base = plan->entry_min;
	TRY(writer_put_section(w, &w->wide, &h->arrays[ARRAY_WIDE].offset));
	TRY(writer_put_section(w, &w->concretes, &h->arrays[ARRAY_CONCRETES].offset));
	return writer_put_section(w, &w->aliases, &h->arrays[ARRAY_ALIASES].offset);
}

struct err *writer_put_nodes(struct writer *w)
{
	CLEANUP(freep) struct histogram *h = calloc(1, sizeof(*h));
	if (!h)
		return err_nomem();
	struct node_plan plan = {0};
	count_nodes(w, h, &plan);
	histogram_sum(h);
	choose_widths(w, h, &plan);
	return put_node_records(w, &plan);
}


// SPDX-License-Identifier: Apache-2.0
/*
 * Which ELF symbol names what: gaps without DWARF, functions for which DWARF has no name or less than the symbol's, pieces
 * that were moved out of functions; and which names are aliases.
 */
#include "symbolizer/build/merge_parts.h"

#include "symbolizer/table/table.h"

#include <string.h>

/* ---- Symbols by address ---- */

/* The first symbol at exactly @p vaddr, or the count. */
static size_t symbols_at(const struct symbols *symbols, uint64_t vaddr)
{
	size_t low = 0, high = symbols->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (symbols->items[middle].vaddr < vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < symbols->count && symbols->items[low].vaddr == vaddr ? low : symbols->count;
}

/* True the first time that this string is asked for in this round. */
static struct err *is_new(struct merge *m, uint32_t string, bool *ret)
{
	size_t wanted = (size_t)string + 1;

	if (m->seen.count < wanted) {
		TRY(ARRAY_ROOM(m->account, &m->seen, wanted - m->seen.count));
		memset(m->seen.items + m->seen.count, 0, (wanted - m->seen.count) * sizeof(*m->seen.items));
		m->seen.count = wanted;
	}
	*ret = m->seen.items[string] != m->round;
	m->seen.items[string] = m->round;
	return NULL;
}

/* The names of an address other than @p name become aliases, each once: .dynsym repeats those of .symtab. */
static struct err *add_aliases(struct merge *m, uint64_t vaddr, uint32_t name, struct table_input_node *node)
{
	bool wanted;

	node->alias_first = (uint32_t)m->aliases.count;
	node->alias_count = 0;
	m->round++;
	TRY(is_new(m, name, &wanted));
	for (size_t t = 0; t < MERGE_SYMBOL_TABLES; t++) {
		const struct symbols *symbols = m->symbols[t].symbols;
		if (!symbols)
			continue;
		for (size_t i = symbols_at(symbols, vaddr); i < symbols->count && symbols->items[i].vaddr == vaddr; i++) {
			uint32_t alias;
			if (node->alias_count == MERGE_ALIASES_MAX)
				return NULL;
			TRY(merge_text(m, symbols->items[i].name, symbols->items[i].name_len, &alias));
			TRY(is_new(m, alias, &wanted));
			if (!wanted)
				continue;
			TRY(ARRAY_ROOM(m->account, &m->aliases, 1));
			m->aliases.items[m->aliases.count++] = alias;
			node->alias_count++;
			m->input.sources |= m->symbols[t].source;
		}
	}
	return NULL;
}

/* The preferred symbol at exactly this address; NULL: none. */
static const struct symbol *symbol_at(struct merge *m, uint64_t vaddr)
{
	for (size_t t = 0; t < MERGE_SYMBOL_TABLES; t++) {
		const struct symbols *symbols = m->symbols[t].symbols;
		size_t i = symbols ? symbols_at(symbols, vaddr) : 0;
		if (symbols && i < symbols->count) {
			m->input.sources |= m->symbols[t].source;
			return &symbols->items[i];
		}
	}
	return NULL;
}

struct err *merge_symbol_node(struct merge *m, const struct merge_piece *piece, uint32_t *ret)
{
	const struct symbol *symbol = &m->symbols[piece->source].symbols->items[piece->item];
	struct table_input_function function = {.file = TABLE_NONE};
	struct table_input_node node = {.parent = TABLE_NONE, .entry_vaddr = symbol->vaddr};
	uint32_t *known = &m->symbol_nodes[piece->source][piece->item];

	if (*known) {
		*ret = *known - 1;
		return NULL;
	}
	TRY(merge_text(m, symbol->name, symbol->name_len, &function.name));
	TRY(merge_function(m, function, &node.function));
	TRY(add_aliases(m, symbol->vaddr, function.name, &node));
	m->input.sources |= m->symbols[piece->source].source;
	TRY(ARRAY_ROOM(m->account, &m->nodes, 1));
	*ret = (uint32_t)m->nodes.count;
	*known = *ret + 1;
	m->nodes.items[m->nodes.count++] = node;
	return NULL;
}

/* ---- Names of functions ---- */

/* Itanium C++ and Rust v0 names say more than DW_AT_name does: namespaces, classes, parameters. */
static bool is_mangled(const char *name, size_t len)
{
	return len > 2 && name[0] == '_' && (name[1] == 'Z' || name[1] == 'R');
}

/* Names a piece that was moved out of a function, cold or in a section of its own: "f.cold", "f.cold.1", "f.__part.2". */
static bool is_cut(const char *name, size_t len)
{
	static const char *const pieces[] = {".cold", ".__part."};

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
		if (memmem(name, len, pieces[i], strlen(pieces[i])))
			return true;
	return false;
}

/* A name that the compiler made of another one, of a clone ("f.lto_priv.0", "f.constprop.1") or a piece of the same function. */
static bool is_made_of(const struct symbol *symbol, const char *name, size_t len)
{
	return symbol->name_len > len && symbol->name[len] == '.' && memcmp(symbol->name, name, len) == 0;
}

static bool is_piece(const struct symbol *symbol, const char *name, size_t len)
{
	return is_made_of(symbol, name, len) && is_cut(symbol->name + len, symbol->name_len - len);
}

/*
 * The symbol whose name a function has, where DWARF does not say it; NULL: DWARF's name stands, because a symbol has it too, or none is better.
 *     DWARF has no name           the preferred symbol
 *     DWARF has DW_AT_name only   a mangled symbol: gcc leaves DW_AT_linkage_name out of what has internal linkage (static functions,
 *                                 lambdas, templates over them), but their symbols have it
 *     the code is a clone         the clone's symbol: link-time optimization renames (.lto_priv), and copies for constant arguments
 * @p *piece_ret: a piece of the function begins here, not the function.
 */
static const struct symbol *linkage_symbol(struct merge *m, uint64_t vaddr, const char *name, bool *piece_ret)
{
	const size_t len = strlen(name);
	const bool mangled = is_mangled(name, len);
	const struct symbol *found = NULL, *clone = NULL;

	*piece_ret = false;
	if (len == 0)
		return symbol_at(m, vaddr);
	for (size_t t = 0; t < MERGE_SYMBOL_TABLES; t++) {
		const struct symbols *symbols = m->symbols[t].symbols;
		if (!symbols)
			continue;
		for (size_t i = symbols_at(symbols, vaddr); i < symbols->count && symbols->items[i].vaddr == vaddr; i++) {
			const struct symbol *symbol = &symbols->items[i];
			if (symbol->name_len == len && memcmp(symbol->name, name, len) == 0) {
				*piece_ret = false;
				return NULL;
			}
			if (is_piece(symbol, name, len))
				*piece_ret = true;
			else if (!clone && is_made_of(symbol, name, len))
				clone = symbol;
			if (!found && !mangled && is_mangled(symbol->name, symbol->name_len))
				found = symbol;
		}
	}
	return found ? found : clone;
}

struct err *merge_name_concrete(struct merge *m, const struct walk_node *from, struct table_input_node *node)
{
	struct table_input_function function = m->functions.items[node->function];
	bool piece;
	const struct symbol *symbol = linkage_symbol(m, from->entry_vaddr, intern_text(&m->text, function.name), &piece);

	if (!symbol && piece) {
		/* clang's basic block sections: the range of the entry is the last of the list. */
		m->entries_moved = true;
		return NULL;
	}
	if (symbol) {
		TRY(merge_text(m, symbol->name, symbol->name_len, &function.name));
		TRY(merge_function(m, function, &node->function));
	}
	return add_aliases(m, from->entry_vaddr, function.name, node);
}

/* ---- Pieces of functions ---- */

/*
 * To DWARF a function and what was moved out of it is one function with two ranges; the symbol table has two symbols. Both are kept: rows
 * of a piece have nodes of their own, whose outermost function has the piece's name and entry, and all else (aliases, too) from the function.
 * So have rows of the function itself where its entry is not where DWARF says.
 */

bool merge_may_be_piece(struct merge *m, size_t at)
{
	const struct merge_piece *piece = &m->symbol_pieces.items[at];
	const struct symbols *symbols = m->symbols[piece->source].symbols;
	const uint64_t vaddr = symbols->items[piece->item].vaddr;

	if (m->looked_at == at + 1)
		return m->looks_cut;
	m->looked_at = at + 1;
	m->looks_cut = false;
	for (size_t i = piece->item, n = 0; i < symbols->count && symbols->items[i].vaddr == vaddr && n < MERGE_PIECE_NAMES_MAX; i++, n++)
		m->looks_cut |= is_cut(symbols->items[i].name, symbols->items[i].name_len);
	return m->looks_cut;
}

/* The symbol here that names a piece of the function of a concrete node, or it, with another entry; NULL: none does. */
static const struct symbol *piece_symbol(const struct merge *m, const struct merge_piece *piece, const struct table_input_node *concrete)
{
	const struct symbols *symbols = m->symbols[piece->source].symbols;
	const uint64_t vaddr = symbols->items[piece->item].vaddr;
	const char *name = intern_text(&m->text, m->functions.items[concrete->function].name);
	const size_t len = strlen(name);
	const struct symbol *found = NULL;

	for (size_t i = piece->item, n = 0; i < symbols->count && symbols->items[i].vaddr == vaddr && n < MERGE_PIECE_NAMES_MAX; i++, n++) {
		const struct symbol *symbol = &symbols->items[i];
		if (len && symbol->name_len == len && memcmp(symbol->name, name, len) == 0)
			return vaddr == concrete->entry_vaddr ? NULL : symbol;
		if (!found && len && is_piece(symbol, name, len))
			found = symbol;
	}
	return found;
}

/* The piece's node like @p node, whose parent is @p parent in the piece. */
static struct err *add_piece_node(struct merge *m, const struct symbol *symbol, uint32_t node, uint32_t parent, uint32_t *ret)
{
	struct table_input_node copy = m->nodes.items[node];

	copy.parent = parent;
	if (parent == TABLE_NONE) {
		struct table_input_function function = m->functions.items[copy.function];
		TRY(merge_text(m, symbol->name, symbol->name_len, &function.name));
		TRY(merge_function(m, function, &copy.function));
		copy.entry_vaddr = symbol->vaddr;
		if (copy.function == m->nodes.items[node].function)
			TRY(add_aliases(m, symbol->vaddr, function.name, &copy));
	}
	TRY(ARRAY_ROOM(m->account, &m->nodes, 1));
	*ret = (uint32_t)m->nodes.count;
	m->nodes.items[m->nodes.count++] = copy;
	m->piece_nodes_left--;
	return NULL;
}

struct err *merge_piece_node(struct merge *m, size_t at, uint32_t *node)
{
	const struct merge_piece *piece = &m->symbol_pieces.items[at];
	const uint64_t where = (uint64_t)piece->source * SYMBOLS_MAX + piece->item;
	uint32_t path[TABLE_MAX_DEPTH], depth = 0, parent = TABLE_NONE, root = *node;
	uint64_t known;

	if (hmap_get(&m->piece_nodes, where << 32 | *node, &known)) {
		*node = (uint32_t)known;
		return NULL;
	}
	while (m->nodes.items[root].parent != TABLE_NONE)
		root = m->nodes.items[root].parent;
	const struct symbol *symbol = piece_symbol(m, piece, &m->nodes.items[root]);
	if (!symbol) /* remembered: walking up a chain for each of its rows adds up */
		return hmap_set(&m->piece_nodes, where << 32 | *node, *node);
	for (uint32_t n = *node; n != TABLE_NONE; n = m->nodes.items[n].parent) {
		if (hmap_get(&m->piece_nodes, where << 32 | n, &known)) {
			parent = (uint32_t)known;
			break;
		}
		if (depth == TABLE_MAX_DEPTH || depth == m->piece_nodes_left)
			return NULL;
		path[depth++] = n;
	}
	while (depth > 0) {
		uint32_t made;
		depth--;
		TRY(add_piece_node(m, symbol, path[depth], parent, &made));
		TRY(hmap_set(&m->piece_nodes, where << 32 | path[depth], made));
		parent = made;
	}
	m->input.sources |= m->symbols[piece->source].source;
	*node = parent;
	return NULL;
}

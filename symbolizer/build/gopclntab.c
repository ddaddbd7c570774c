// SPDX-License-Identifier: Apache-2.0
/*
 * .gopclntab (in position-independent programs .data.rel.ro.gopclntab), all offsets from its start:
 *
 *     header     magic (4), 0, 0, instruction quantum, pointer size; then words: functions, files, [text start,] and the offsets
 *                of the following tables
 *     names      NUL-terminated
 *     cutab      u32: file number of a compilation unit -> offset in filetab, or all ones
 *     filetab    paths, NUL-terminated
 *     pctab      programs: pairs of varints (value, zigzag; code bytes) from the function's entry on
 *     functab    (entry, offset of struct _func) for each function, then the end; struct _func itself follows
 *
 *     magic        Go          entries in functab    struct _func      inlinedCall
 *     0xfffffffa   1.16, 1.17  words, absolute       44 bytes (8 + 36) 20 bytes
 *     0xfffffff0   1.18, 1.19  u32 from text start   40 bytes          20 bytes
 *     0xfffffff1   1.20 on     u32 from text start   44, start line    16 bytes, start line
 *
 * The inline tree of a function is its funcdata 3, outside of the section: a pointer up to Go 1.17, then an offset from "gofunc". That, and
 * the text start where the header has none (Go 1.26, position-independent programs), stands in the runtime's moduledata,
 * found by its first two words (addresses of the header and of the names), in data or in the relocations of a PIE.
 * pcdata 2 says which inlined call an address belongs to (-1: none). A call's parentPc is an address of the function whose own
 * inlined call and line are those of the caller: the same rule for all versions.
 *
 * What is not a function, a tree or a table is left out and counted; the rest stands. Each byte read costs work (GO_WORK), since
 * tables may be shared or overlap.
 */
#include "symbolizer/build/gopclntab.h"

#include "base/hmap.h"
#include "symbolizer/table/table.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

enum {
	PCDATA_INLINE = 2,
	FUNCDATA_INLINE = 3,
	MODULE_TEXT = 22, /* words from the start of moduledata */
	MODULE_GOFUNC_18 = 38,
	MODULE_GOFUNC_20 = 40,
};

static const uint32_t magic_16 = 0xfffffffa, magic_18 = 0xfffffff0, magic_20 = 0xfffffff1;

/* [the step before's end, end) has value. */
struct step {
	uint64_t end; /* from the entry */
	int32_t value;
};
struct steps ARRAY_OF(struct step);

/* An inlined call of the function at hand. */
struct call {
	uint32_t node;	/* + 1; 0: none yet */
	uint32_t depth; /* frames from the outermost to it */
};

struct go {
	struct elffile *file;
	struct account *account;
	struct reader table; /* the section */
	uint64_t vaddr;	     /* of it */
	uint32_t magic;
	unsigned ptr_size, quantum;
	uint64_t count; /* of functions */
	uint64_t names, cutab, filetab, pctab, functab;
	uint64_t text, gofunc;
	bool has_gofunc;
	uint64_t work;
	struct hmap files; /* offset in filetab -> file of the unit */
	struct steps lines, sources, inlined;
	struct ARRAY_OF(struct call) calls; /* of the function at hand */
	struct unit_result *out;
};

/* One struct _func. */
struct go_function {
	uint64_t low, high;
	uint64_t at; /* of what follows the entry */
	uint32_t name, pcfile, pcln, npcdata, cu, start_line;
	uint8_t nfuncdata;
	uint64_t pcdata_at;
	uint32_t node;
	uint64_t tree; /* address of the inline tree */
	bool has_tree;
};

static struct reader at(const struct go *go, uint64_t offset)
{
	struct reader r = go->table;

	reader_seek(&r, offset);
	return r;
}

static void damaged(struct go *go)
{
	go->out->damaged++;
}

static struct err *count_work(struct go *go, uint64_t amount)
{
	uint64_t limit = GO_WORK * (uint64_t)(go->table.end - go->table.start) + (1 << 20);

	go->work += amount;
	if (go->work <= limit)
		return NULL;
	return err_new(ERR_LIMIT, "%s is read over and over: more than %" PRIu64 " bytes of work", go->table.place, limit);
}

/* ---- Header and moduledata ---- */

static const struct elffile_section *find_section(const struct elffile *file)
{
	static const char *const names[] = {".gopclntab", ".data.rel.ro.gopclntab"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct elffile_section *section = elffile_find(file, names[i]);
		if (section && section->type != SHT_NOBITS && section->size > 0 && section->codec == CODEC_NONE)
			return section;
	}
	return NULL;
}

static struct err *read_header(struct go *go)
{
	struct reader r = at(go, 0);

	go->magic = reader_u32(&r);
	uint16_t zero = reader_u16(&r);
	go->quantum = reader_u8(&r);
	go->ptr_size = reader_u8(&r);
	if (!r.failed && go->magic != magic_16 && go->magic != magic_18 && go->magic != magic_20)
		return err_new(ERR_UNSUPPORTED, "%s: version 0x%08" PRIx32 " is not known (Go 1.16 to 1.26 are)", go->table.place, go->magic);
	if (r.failed || zero || (go->ptr_size != 4 && go->ptr_size != 8) || go->quantum == 0 || go->quantum > 4)
		return reader_error(&go->table, "not a header of Go's function table");
	go->count = reader_uint(&r, go->ptr_size);
	(void)reader_uint(&r, go->ptr_size); /* files */
	if (go->magic != magic_16)
		go->text = reader_uint(&r, go->ptr_size);
	uint64_t *const offsets[] = {&go->names, &go->cutab, &go->filetab, &go->pctab, &go->functab};
	uint64_t len = (uint64_t)(go->table.end - go->table.start);
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		*offsets[i] = reader_uint(&r, go->ptr_size);
		if (r.failed || *offsets[i] > len)
			return reader_error(&go->table, "a table at 0x%" PRIx64 " of 0x%" PRIx64 " bytes", *offsets[i], len);
	}
	unsigned entry = go->magic == magic_16 ? 2 * go->ptr_size : 8;
	if (go->count >= (len - go->functab) / entry)
		return reader_error(&go->table, "%" PRIu64 " functions in 0x%" PRIx64 " bytes", go->count, len - go->functab);
	return NULL;
}

/* A word of the program's memory at an address, as stored. */
static bool word_at(const struct go *go, uint64_t vaddr, unsigned size, uint64_t *ret)
{
	size_t len;
	const uint8_t *bytes = elffile_bytes(go->file, &len);

	for (size_t i = 1; i < elffile_section_count(go->file); i++) {
		const struct elffile_section *section = elffile_section(go->file, i);
		if (!(section->flags & SHF_ALLOC) || vaddr < section->vaddr || vaddr - section->vaddr >= section->stored_size ||
			section->stored_size - (vaddr - section->vaddr) < size)
			continue;
		struct reader r = reader_init(bytes + section->foff + (vaddr - section->vaddr), size, go->table.big_endian, "");
		*ret = reader_uint(&r, size);
		return true;
	}
	return false;
}

/* Takes text start and gofunc from words of moduledata; a zero is no answer. */
static void take_module(struct go *go, uint64_t text, uint64_t gofunc)
{
	if (text)
		go->text = text;
	if (gofunc) {
		go->gofunc = gofunc;
		go->has_gofunc = true;
	}
}

static uint64_t gofunc_offset(const struct go *go)
{
	return (uint64_t)go->ptr_size * (go->magic == magic_18 ? MODULE_GOFUNC_18 : MODULE_GOFUNC_20);
}

/* moduledata in a section of data. */
static bool find_in_data(struct go *go, const struct elffile_section *section)
{
	size_t len;
	struct reader r = reader_init(elffile_bytes(go->file, &len) + section->foff, section->stored_size, go->table.big_endian, "");
	uint64_t before = 0, text = 0, gofunc = 0;

	for (uint64_t offset = 0; reader_left(&r) >= go->ptr_size; offset += go->ptr_size) {
		uint64_t word = reader_uint(&r, go->ptr_size);
		if (offset && before == go->vaddr && word == go->vaddr + go->names) {
			uint64_t module = section->vaddr + offset - go->ptr_size;
			if (word_at(go, module + (uint64_t)MODULE_TEXT * go->ptr_size, go->ptr_size, &text) &&
				word_at(go, module + gofunc_offset(go), go->ptr_size, &gofunc))
				take_module(go, text, gofunc);
			return true;
		}
		before = word;
	}
	return false;
}

/* The addend of a relative relocation at an address; 0: none. */
static uint64_t relocated_word(const struct go *go, const struct elffile_section *table, uint64_t vaddr)
{
	size_t len;
	struct reader r = reader_init(elffile_bytes(go->file, &len) + table->foff, table->stored_size, go->table.big_endian, "");

	while (reader_left(&r) >= 24) {
		uint64_t offset = reader_u64(&r);
		reader_skip(&r, 8);
		uint64_t addend = reader_u64(&r);
		if (offset == vaddr)
			return addend;
	}
	return 0;
}

/* moduledata of a position-independent program: its words are zero, and stand in the relocations. */
static bool find_in_relocations(struct go *go, const struct elffile_section *table)
{
	size_t len;
	struct reader r = reader_init(elffile_bytes(go->file, &len) + table->foff, table->stored_size, go->table.big_endian, "");

	for (unsigned candidates = 0; go->ptr_size == 8 && candidates < 16 && reader_left(&r) >= 24;) {
		uint64_t module = reader_u64(&r);
		reader_skip(&r, 8);
		if (reader_u64(&r) != go->vaddr)
			continue;
		candidates++;
		if (relocated_word(go, table, module + go->ptr_size) != go->vaddr + go->names)
			continue;
		take_module(go, relocated_word(go, table, module + (uint64_t)MODULE_TEXT * go->ptr_size),
			relocated_word(go, table, module + gofunc_offset(go)));
		return true;
	}
	return false;
}

static void find_module(struct go *go)
{
	for (size_t i = 1; i < elffile_section_count(go->file); i++) {
		const struct elffile_section *section = elffile_section(go->file, i);
		if (section->stored_size == 0 || !(section->flags & SHF_ALLOC))
			continue;
		if (section->type == SHT_RELA ? find_in_relocations(go, section)
					      : (section->flags & SHF_WRITE) && find_in_data(go, section))
			return;
	}
}

/* ---- One function ---- */

static uint32_t varint(struct reader *r)
{
	uint64_t value = reader_uleb(r);

	return (uint32_t)value;
}

/* Runs a program of pctab. An offset of 0 is no program. */
static struct err *read_steps(struct go *go, uint32_t offset, struct steps *ret)
{
	struct reader r = at(go, go->pctab);
	uint64_t end = 0;
	uint32_t value = UINT32_MAX;

	ret->count = 0;
	if (offset == 0)
		return NULL;
	reader_skip(&r, offset);
	const uint8_t *start = r.pos;
	for (;;) {
		uint32_t delta = varint(&r);
		if (delta == 0 && ret->count > 0)
			break;
		value += delta & 1 ? ~(delta >> 1) : delta >> 1;
		uint64_t step = (uint64_t)varint(&r) * go->quantum;
		if (r.failed || step == 0) {
			damaged(go);
			break;
		}
		end += step;
		TRY(ARRAY_ROOM(go->account, ret, 1));
		ret->items[ret->count++] = (struct step){.end = end, .value = (int32_t)value};
	}
	return count_work(go, r.failed ? 1 : (uint64_t)(r.pos - start));
}

/* The value at an offset from the entry; -1 where there is none. */
static int32_t value_at(const struct steps *steps, uint64_t offset)
{
	size_t low = 0, high = steps->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (steps->items[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < steps->count ? steps->items[low].value : -1;
}

static const char *text_at(const struct go *go, uint64_t table, uint64_t offset)
{
	struct reader r = at(go, table);

	reader_skip(&r, offset);
	if (reader_left(&r) > DW_TEXT_MAX)
		r.end = r.pos + DW_TEXT_MAX + 1;
	return reader_text(&r, NULL);
}

/* The unit's number of file number @p number of a function. */
static struct err *file_of(struct go *go, const struct go_function *f, int32_t number, uint32_t *ret)
{
	struct unit_result *out = go->out;
	uint64_t known;

	*ret = UNIT_NONE;
	if (number < 0)
		return NULL;
	struct reader r = at(go, go->cutab);
	reader_skip(&r, ((uint64_t)f->cu + (uint64_t)number) * 4);
	uint32_t offset = reader_u32(&r);
	if (r.failed || offset == UINT32_MAX)
		return NULL;
	if (hmap_get(&go->files, (uint64_t)offset + 1, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	const char *path = text_at(go, go->filetab, offset);
	if (!path || !*path)
		return NULL;
	size_t room = out->text.cap;
	TRY(ARRAY_ROOM(go->account, &out->files, 1));
	*ret = (uint32_t)out->files.count;
	out->files.items[out->files.count++] = (uint32_t)out->text.len;
	TRY(buf_append(&out->text, path, strlen(path) + 1));
	TRY(account_grown(go->account, room, out->text.cap));
	return hmap_set(&go->files, (uint64_t)offset + 1, *ret);
}

static struct err *add_node(struct go *go, const char *name, uint32_t start_line, struct walk_node node, uint32_t *ret)
{
	struct unit_result *out = go->out;
	struct walk_function function = {.name = name, .start_line = start_line, .decl_file = UNIT_NONE};

	TRY(ARRAY_ROOM(go->account, &out->functions, 1));
	TRY(ARRAY_ROOM(go->account, &out->nodes, 1));
	node.function = (uint32_t)out->functions.count;
	out->functions.items[out->functions.count++] = function;
	*ret = (uint32_t)out->nodes.count;
	out->nodes.items[out->nodes.count++] = node;
	return NULL;
}

static uint32_t line_of(int32_t value)
{
	return value > 0 ? (uint32_t)value : 0;
}

/* Reads inlined call @p index: its name and where it was called. False: it does not exist. */
static bool read_call(const struct go *go, const struct go_function *f, uint32_t index, const char **name_ret, uint64_t *parent_pc_ret,
	uint32_t *start_ret)
{
	bool new = go->magic == magic_20;
	uint64_t name, parent, start = 0, entry = f->tree + (uint64_t)index * (new ? 16 : 20);

	if (!f->has_tree || !word_at(go, entry + (new ? 4 : 12), 4, &name) || !word_at(go, entry + (new ? 8 : 16), 4, &parent) ||
		(new && !word_at(go, entry + 12, 4, &start)) || parent > INT32_MAX)
		return false;
	*name_ret = text_at(go, go->names, name);
	*parent_pc_ret = parent;
	*start_ret = line_of((int32_t)(uint32_t)start);
	return *name_ret && **name_ret;
}

/*
 * The node of inlined call @p index of the function at hand; its callers' are made first. A caller has a lower number than what it
 * calls (cmd/internal/obj, pcinlineState.addBranch): whatever says otherwise is called by the function itself.
 */
static struct err *call_node(struct go *go, const struct go_function *f, int32_t index, uint32_t *ret)
{
	uint32_t chain[TABLE_MAX_DEPTH], depth = 0;
	struct call caller = {.node = f->node + 1, .depth = 1};

	for (int32_t i = index; i >= 0 && depth < TABLE_MAX_DEPTH;) {
		if (go->calls.items[i].node) {
			caller = go->calls.items[i];
			break;
		}
		const char *name;
		uint64_t pc;
		uint32_t start;
		chain[depth++] = (uint32_t)i;
		if (!read_call(go, f, (uint32_t)i, &name, &pc, &start))
			break;
		int32_t next = value_at(&go->inlined, pc);
		i = next < i ? next : -1;
	}
	TRY(count_work(go, depth));
	while (depth > 0) {
		const char *name;
		uint64_t pc;
		uint32_t start, i = chain[--depth];
		struct walk_node node = {.parent = caller.node - 1};
		bool deep = caller.depth == TABLE_MAX_DEPTH, found = read_call(go, f, i, &name, &pc, &start);
		go->out->cut_chains += deep;
		go->out->damaged += !found;
		if (deep || !found) {
			go->calls.items[i] = caller;
			continue;
		}
		TRY(file_of(go, f, value_at(&go->sources, pc), &node.call_file));
		node.call_line = node.call_file == UNIT_NONE ? 0 : line_of(value_at(&go->lines, pc));
		TRY(add_node(go, name, start, node, &caller.node));
		caller.node++;
		caller.depth++;
		go->calls.items[i] = caller;
		go->out->inline_nodes++;
	}
	*ret = caller.node - 1;
	return NULL;
}

/* Room for this function's inlined calls; a tree that is too large is none. */
static struct err *reset_calls(struct go *go)
{
	int32_t most = -1;

	for (size_t i = 0; i < go->inlined.count; i++)
		most = go->inlined.items[i].value > most ? go->inlined.items[i].value : most;
	if (most >= GO_INLINE_MAX) {
		damaged(go);
		go->inlined.count = 0;
		most = -1;
	}
	size_t count = (size_t)(most + 1);
	TRY(count_work(go, count / 8));
	go->calls.count = 0;
	TRY(ARRAY_ROOM(go->account, &go->calls, count));
	if (count)
		memset(go->calls.items, 0, count * sizeof(*go->calls.items));
	go->calls.count = count;
	return NULL;
}

/* Walks the three programs side by side: a row wherever one of them changes. */
static struct err *add_rows(struct go *go, const struct go_function *f)
{
	struct unit_result *out = go->out;
	size_t i = 0, s = 0, n = 0, first = out->rows.count;
	uint64_t size = f->high - f->low;

	for (uint64_t offset = 0; offset < size && i < go->lines.count;) {
		while (s < go->sources.count && go->sources.items[s].end <= offset)
			s++;
		while (n < go->inlined.count && go->inlined.items[n].end <= offset)
			n++;
		int32_t call = n < go->inlined.count ? go->inlined.items[n].value : -1;
		struct unit_row row = {.vaddr = f->low + offset, .node = f->node, .file = UNIT_NONE};
		if (call >= 0)
			TRY(call_node(go, f, call, &row.node));
		TRY(file_of(go, f, s < go->sources.count ? go->sources.items[s].value : -1, &row.file));
		row.line = row.file == UNIT_NONE ? 0 : line_of(go->lines.items[i].value);
		TRY(ARRAY_ROOM(go->account, &out->rows, 1));
		out->rows.items[out->rows.count++] = row;
		uint64_t next = go->lines.items[i].end;
		if (s < go->sources.count && go->sources.items[s].end < next)
			next = go->sources.items[s].end;
		if (n < go->inlined.count && go->inlined.items[n].end < next)
			next = go->inlined.items[n].end;
		offset = next;
		i += go->lines.items[i].end <= offset;
	}
	TRY(ARRAY_ROOM(go->account, &out->chunks, 1));
	out->chunks.items[out->chunks.count++] =
		(struct unit_chunk){.low = f->low, .high = f->high, .first = first, .count = out->rows.count - first};
	return NULL;
}

/* Where the inline tree is. */
static void find_tree(const struct go *go, struct go_function *f)
{
	uint64_t funcdata = f->pcdata_at + 4 * (uint64_t)f->npcdata;

	if (f->nfuncdata <= FUNCDATA_INLINE)
		return;
	if (go->magic == magic_16) {
		unsigned size = go->ptr_size;
		funcdata = ((go->vaddr + funcdata + size - 1) & ~((uint64_t)size - 1)) - go->vaddr;
		struct reader r = at(go, funcdata);
		reader_skip(&r, (uint64_t)FUNCDATA_INLINE * size);
		f->tree = reader_uint(&r, size);
		f->has_tree = !r.failed && f->tree != 0;
		return;
	}
	struct reader r = at(go, funcdata);
	reader_skip(&r, FUNCDATA_INLINE * 4);
	uint32_t offset = reader_u32(&r);
	f->has_tree = !r.failed && offset != UINT32_MAX && go->has_gofunc;
	f->tree = go->gofunc + offset;
}

/* Reads struct _func behind functab's entry; false: it is none. */
static bool read_function(const struct go *go, uint64_t offset, struct go_function *f)
{
	struct reader r = at(go, go->functab);

	reader_skip(&r, offset);
	reader_skip(&r, go->magic == magic_16 ? go->ptr_size : 4);
	f->name = reader_u32(&r);
	reader_skip(&r, 12); /* args, deferreturn, pcsp */
	f->pcfile = reader_u32(&r);
	f->pcln = reader_u32(&r);
	f->npcdata = reader_u32(&r);
	f->cu = reader_u32(&r);
	f->start_line = go->magic == magic_20 ? line_of((int32_t)reader_u32(&r)) : 0;
	reader_skip(&r, 3);
	f->nfuncdata = reader_u8(&r);
	f->pcdata_at = reader_offset(&r);
	return !r.failed;
}

static struct err *add_function(struct go *go, struct go_function *f)
{
	const char *name = text_at(go, go->names, f->name);
	struct walk_node node = {.parent = WALK_NONE, .entry_vaddr = f->low};
	uint32_t inlined = 0;

	if (!name || !*name) {
		damaged(go);
		return NULL;
	}
	if (f->npcdata > PCDATA_INLINE) {
		struct reader r = at(go, f->pcdata_at);
		reader_skip(&r, (uint64_t)PCDATA_INLINE * 4);
		inlined = reader_u32(&r);
	}
	find_tree(go, f);
	TRY(read_steps(go, f->pcln, &go->lines));
	TRY(read_steps(go, f->pcfile, &go->sources));
	TRY(read_steps(go, f->has_tree ? inlined : 0, &go->inlined));
	TRY(reset_calls(go));
	/* What lies behind the last line is padding; a function without lines (a C one's trampoline) is whole. */
	uint64_t size = go->lines.count ? go->lines.items[go->lines.count - 1].end : 0;
	if (size == 0 || size > f->high - f->low) {
		size = f->high - f->low;
		TRY(ARRAY_ROOM(go->account, &go->lines, 1));
		go->lines.items[go->lines.count++] = (struct step){.end = size, .value = -1};
	}
	f->high = f->low + size;
	TRY(add_node(go, name, f->start_line, node, &f->node));
	return add_rows(go, f);
}

static struct err *read_functions(struct go *go)
{
	bool wide = go->magic == magic_16;
	unsigned size = wide ? go->ptr_size : 4;
	uint64_t base = wide ? 0 : go->text, done = 0;
	struct reader r = at(go, go->functab);
	uint64_t low = base + reader_uint(&r, size);

	for (uint64_t i = 0; i < go->count; i++) {
		uint64_t offset = reader_uint(&r, size), high = base + reader_uint(&r, size);
		struct go_function f = {.low = low, .high = high};
		low = high;
		if (f.low >= f.high || f.low < done || !elffile_is_code(go->file, f.low) || !elffile_is_code(go->file, f.high - 1) ||
			!read_function(go, offset, &f)) {
			damaged(go);
			continue;
		}
		TRY(add_function(go, &f));
		done = f.high;
	}
	return NULL;
}

static struct err *read_all(struct go *go, const struct elffile_section *section)
{
	TRY(elffile_load(go->file, section, &go->table));
	go->vaddr = section->vaddr;
	TRY(read_header(go));
	find_module(go);
	const struct elffile_section *text = elffile_find(go->file, ".text");
	if (go->text == 0 && text)
		go->text = text->vaddr;
	TRY(read_functions(go));
	if (go->out->damaged)
		go->out->damage = reader_error(&go->table, "%" PRIu64 " functions, tables or calls are damaged", go->out->damaged);
	return NULL;
}

struct err *gopclntab_read(struct elffile *file, struct account *account, struct unit_result *ret)
{
	const struct elffile_section *section = find_section(file);
	struct go go = {.file = file, .account = account, .out = ret};

	if (!section)
		return NULL;
	struct err *e = read_all(&go, section);
	hmap_deinit(&go.files);
	ARRAY_DEINIT(account, &go.lines);
	ARRAY_DEINIT(account, &go.sources);
	ARRAY_DEINIT(account, &go.inlined);
	ARRAY_DEINIT(account, &go.calls);
	return e;
}

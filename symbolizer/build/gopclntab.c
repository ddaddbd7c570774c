// SPDX-License-Identifier: Apache-2.0
/*
 * .gopclntab (in position-independent programs .data.rel.ro.gopclntab): fileid/pclntab.h says how it is laid out and reads its
 * header, functions and programs. Where another linker than Go's makes a position-independent program (cgo, shared objects) it lies
 * somewhere in .data.rel.ro: it is then found by what a header looks like, and believed when moduledata points at it. Addresses in the
 * table of such a program (the text start; up to Go 1.17 all functions and inline trees) are zeros with relocations, which are
 * applied to a copy.
 *
 * Of struct _func this is read besides:
 *
 *     magic        Go          inlinedCall
 *     0xfffffffa   1.16, 1.17  20 bytes
 *     0xfffffff0   1.18, 1.19  20 bytes
 *     0xfffffff1   1.20 on     16 bytes, start line
 *
 * The inline tree of a function is its funcdata 3, outside of the section: a pointer up to Go 1.17, then an offset from "gofunc", which
 * stands in the runtime's moduledata.
 * pcdata 2 says which inlined call an address belongs to (-1: none). A call's parentPc is an address of the function whose own
 * inlined call and line are those of the caller: the same rule for all versions.
 *
 * What is not a function, a tree or a table is left out and counted; the rest stands. Each byte read costs work (GO_WORK), since
 * tables may be shared or overlap.
 */
#include "symbolizer/build/gopclntab.h"

#include "base/hmap.h"
#include "fileid/pclntab.h"
#include "symbolizer/table/table.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

enum {
	PCDATA_INLINE = 2,
	FUNCDATA_INLINE = 3,
	MODULE_GOFUNC_18 = 38, /* words from the start of moduledata */
	MODULE_GOFUNC_20 = 40,
	RELA_BYTES = 24, /* an Elf64_Rela */
};

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
	struct pclntab tab;
	const uint8_t *stored; /* its bytes in the file: names are borrowed from there */
	struct ARRAY_OF(uint8_t) relocated; /* its bytes with relocations, if it has any */
	uint64_t gofunc;
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
	struct pclntab_func func;
	uint32_t node;
	uint64_t tree; /* address of the inline tree */
	bool has_tree;
};

static void damaged(struct go *go)
{
	go->out->damaged++;
}

static struct err *count_work(struct go *go, uint64_t amount)
{
	uint64_t limit = GO_WORK * (uint64_t)(go->tab.table.end - go->tab.table.start) + (1 << 20);

	go->work += amount;
	if (go->work <= limit)
		return NULL;
	return err_new(ERR_LIMIT, "%s is read over and over: more than %" PRIu64 " bytes of work", go->tab.table.place, limit);
}

/* ---- Header and moduledata ---- */

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
		struct reader r = reader_init(bytes + section->foff + (vaddr - section->vaddr), size, go->tab.table.big_endian, "");
		*ret = reader_uint(&r, size);
		return true;
	}
	return false;
}

/* Takes text start and gofunc from words of moduledata; a zero is no answer. */
static void take_module(struct go *go, uint64_t text, uint64_t gofunc)
{
	if (text)
		go->tab.text = text;
	if (gofunc) {
		go->gofunc = gofunc;
		go->has_gofunc = true;
	}
}

static uint64_t gofunc_offset(const struct go *go)
{
	return (uint64_t)go->tab.ptr_size * (go->tab.magic == PCLNTAB_MAGIC_18 ? MODULE_GOFUNC_18 : MODULE_GOFUNC_20);
}

static const uint8_t *stored_bytes(const struct go *go, const struct elffile_section *section)
{
	size_t len;
	return elffile_bytes(go->file, &len) + section->foff;
}

/* moduledata in a section of data. */
static bool find_in_data(struct go *go, const struct elffile_section *section)
{
	uint64_t module = 0, text = 0, gofunc = 0;

	if (!pclntab_module_in_data(&go->tab, stored_bytes(go, section), section->stored_size, section->vaddr, &module))
		return false;
	if (word_at(go, module + (uint64_t)PCLNTAB_MODULE_TEXT * go->tab.ptr_size, go->tab.ptr_size, &text) &&
		word_at(go, module + gofunc_offset(go), go->tab.ptr_size, &gofunc))
		take_module(go, text, gofunc);
	return true;
}

/* moduledata of a position-independent program: its words are zero, and stand in the relocations. */
static bool find_in_relocations(struct go *go, const struct elffile_section *section)
{
	const uint8_t *bytes = stored_bytes(go, section);
	uint64_t module = 0;

	if (!pclntab_module_in_relocations(&go->tab, bytes, section->stored_size, &module))
		return false;
	take_module(go, pclntab_relocated_word(&go->tab, bytes, section->stored_size, module + (uint64_t)PCLNTAB_MODULE_TEXT * go->tab.ptr_size),
		pclntab_relocated_word(&go->tab, bytes, section->stored_size, module + gofunc_offset(go)));
	return true;
}

static bool find_module(struct go *go)
{
	for (size_t i = 1; i < elffile_section_count(go->file); i++) {
		const struct elffile_section *section = elffile_section(go->file, i);
		if (section->stored_size == 0 || !(section->flags & SHF_ALLOC))
			continue;
		if (section->type == SHT_RELA ? find_in_relocations(go, section)
					      : (section->flags & SHF_WRITE) && find_in_data(go, section))
			return true;
	}
	return false;
}

/* ---- The table ---- */

static bool has_bytes(const struct elffile_section *section)
{
	return section && section->type != SHT_NOBITS && section->size > 0 && section->codec == CODEC_NONE;
}

/* Whether a relocation puts its addend, plus where the program is loaded, into a word. */
static bool is_relative(uint16_t machine, uint64_t info)
{
	const uint64_t type = info & UINT32_MAX;

	return (machine == EM_X86_64 && type == R_X86_64_RELATIVE) || (machine == EM_AARCH64 && type == R_AARCH64_RELATIVE) ||
		(machine == EM_RISCV && type == R_RISCV_RELATIVE) || (machine == EM_PPC64 && type == R_PPC64_RELATIVE) ||
		(machine == EM_S390 && type == R_390_RELATIVE);
}

/* Applies one section's relocations of [vaddr, vaddr + len) to a copy of @p bytes, made when there is one. */
static struct err *relocate_from(struct go *go, const struct elffile_section *section, uint64_t vaddr, const uint8_t *bytes, size_t len)
{
	const bool big_endian = elffile_big_endian(go->file);
	struct reader r = reader_init(stored_bytes(go, section), section->stored_size, big_endian, "");

	while (reader_left(&r) >= RELA_BYTES) {
		uint64_t at = reader_u64(&r), info = reader_u64(&r), addend = reader_u64(&r);
		if (at < vaddr || at - vaddr > len - sizeof(addend) || !is_relative(elffile_machine(go->file), info))
			continue;
		if (go->relocated.count == 0) {
			TRY(ARRAY_ROOM(go->account, &go->relocated, len));
			memcpy(go->relocated.items, bytes, len);
			go->relocated.count = len;
		}
		for (unsigned i = 0; i < sizeof(addend); i++)
			go->relocated.items[at - vaddr + i] = (uint8_t)(addend >> 8 * (big_endian ? 7 - i : i));
	}
	return NULL;
}

static struct err *relocate(struct go *go, uint64_t vaddr, const uint8_t *bytes, size_t len)
{
	go->relocated.count = 0;
	if (elffile_type(go->file) != ET_DYN || !elffile_is_64(go->file) || len < sizeof(uint64_t))
		return NULL;
	for (size_t i = 1; i < elffile_section_count(go->file); i++) {
		const struct elffile_section *section = elffile_section(go->file, i);
		if (section->type == SHT_RELA && (section->flags & SHF_ALLOC) && has_bytes(section))
			TRY(relocate_from(go, section, vaddr, bytes, len));
	}
	return NULL;
}

/* Opens the table that begins at @p offset of a section. */
static struct err *open_table(struct go *go, const struct elffile_section *section, size_t offset)
{
	struct reader r;

	TRY(elffile_load(go->file, section, &r));
	const size_t len = (size_t)(r.end - r.start) - offset;
	const uint64_t vaddr = section->vaddr + offset;
	go->stored = r.start + offset;
	TRY(pclntab_open(go->stored, len, r.big_endian, vaddr, r.place, &go->tab));
	TRY(relocate(go, vaddr, go->stored, len));
	if (go->relocated.count)
		TRY(pclntab_open(go->relocated.items, len, r.big_endian, vaddr, r.place, &go->tab));
	return NULL;
}

/* The table in a section that holds other things, too. */
static struct err *search(struct go *go, const struct elffile_section *section, bool *found_ret)
{
	struct reader r;
	size_t offset = 0;

	TRY(elffile_load(go->file, section, &r));
	for (unsigned tries = 0; tries < GO_HEADERS_MAX && pclntab_search(r.start, (size_t)(r.end - r.start), r.big_endian, &offset); tries++, offset++) {
		struct err *e = open_table(go, section, offset);
		if (e && err_code(e) != ERR_FORMAT)
			return e;
		*found_ret = !e && find_module(go);
		err_free(e);
		if (*found_ret)
			return NULL;
	}
	return NULL;
}

/* Opens the file's table. *found_ret is false where it has none. */
static struct err *find_table(struct go *go, bool *found_ret)
{
	static const char *const names[] = {".gopclntab", ".data.rel.ro.gopclntab"}, *const around[] = {".data.rel.ro", ".data.rel.ro.local"};

	*found_ret = false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct elffile_section *section = elffile_find(go->file, names[i]);
		if (!has_bytes(section))
			continue;
		TRY(open_table(go, section, 0));
		(void)find_module(go);
		*found_ret = true;
		return NULL;
	}
	if (!has_bytes(elffile_find(go->file, ".go.buildinfo")))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(around) && !*found_ret; i++) {
		const struct elffile_section *section = elffile_find(go->file, around[i]);
		if (has_bytes(section))
			TRY(search(go, section, found_ret));
	}
	if (!*found_ret)
		return err_new(ERR_FORMAT, "%s: a Go program (.go.buildinfo), whose .gopclntab was not found", elffile_name(go->file));
	return NULL;
}

/* ---- One function ---- */

/* Runs a program of pctab. */
static struct err *read_steps(struct go *go, uint32_t offset, struct steps *ret)
{
	struct pclntab_steps steps = pclntab_steps(&go->tab, offset);
	const uint8_t *start = steps.r.pos;
	uint64_t end = 0;

	ret->count = 0;
	while (pclntab_next(&go->tab, &steps)) {
		end += steps.bytes;
		TRY(ARRAY_ROOM(go->account, ret, 1));
		ret->items[ret->count++] = (struct step){.end = end, .value = (int32_t)steps.value};
	}
	if (steps.r.failed)
		damaged(go);
	return count_work(go, steps.r.failed ? 1 : (uint64_t)(steps.r.pos - start));
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
	const char *name = pclntab_name(&go->tab, table, offset, DW_TEXT_MAX);

	return name ? (const char *)go->stored + ((const uint8_t *)name - go->tab.table.start) : NULL;
}

/* The unit's number of file number @p number of a function. */
static struct err *file_of(struct go *go, const struct go_function *f, int32_t number, uint32_t *ret)
{
	struct unit_result *out = go->out;
	uint64_t known;

	*ret = UNIT_NONE;
	if (number < 0)
		return NULL;
	struct reader r = pclntab_at(&go->tab, go->tab.cutab);
	reader_skip(&r, ((uint64_t)f->func.cu + (uint64_t)number) * 4);
	uint32_t offset = reader_u32(&r);
	if (r.failed || offset == UINT32_MAX)
		return NULL;
	if (hmap_get(&go->files, (uint64_t)offset + 1, &known)) {
		*ret = (uint32_t)known;
		return NULL;
	}
	const char *path = text_at(go, go->tab.filetab, offset);
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
	bool new = go->tab.magic == PCLNTAB_MAGIC_20;
	uint64_t name, parent, start = 0, entry = f->tree + (uint64_t)index * (new ? 16 : 20);

	if (!f->has_tree || !word_at(go, entry + (new ? 4 : 12), 4, &name) || !word_at(go, entry + (new ? 8 : 16), 4, &parent) ||
		(new && !word_at(go, entry + 12, 4, &start)) || parent > INT32_MAX)
		return false;
	*name_ret = text_at(go, go->tab.names, name);
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
	uint64_t funcdata = f->func.pcdata_at + 4 * (uint64_t)f->func.npcdata;

	if (f->func.nfuncdata <= FUNCDATA_INLINE)
		return;
	if (go->tab.magic == PCLNTAB_MAGIC_16) {
		unsigned size = go->tab.ptr_size;
		funcdata = ((go->tab.vaddr + funcdata + size - 1) & ~((uint64_t)size - 1)) - go->tab.vaddr;
		struct reader r = pclntab_at(&go->tab, funcdata);
		reader_skip(&r, (uint64_t)FUNCDATA_INLINE * size);
		f->tree = reader_uint(&r, size);
		f->has_tree = !r.failed && f->tree != 0;
		return;
	}
	struct reader r = pclntab_at(&go->tab, funcdata);
	reader_skip(&r, FUNCDATA_INLINE * 4);
	uint32_t offset = reader_u32(&r);
	f->has_tree = !r.failed && offset != UINT32_MAX && go->has_gofunc;
	f->tree = go->gofunc + offset;
}

static struct err *add_function(struct go *go, struct go_function *f)
{
	const char *name = text_at(go, go->tab.names, f->func.name);
	struct walk_node node = {.parent = WALK_NONE, .entry_vaddr = f->low};
	uint32_t inlined = 0;

	if (!name || !*name) {
		damaged(go);
		return NULL;
	}
	if (f->func.npcdata > PCDATA_INLINE) {
		struct reader r = pclntab_at(&go->tab, f->func.pcdata_at);
		reader_skip(&r, (uint64_t)PCDATA_INLINE * 4);
		inlined = reader_u32(&r);
	}
	find_tree(go, f);
	TRY(read_steps(go, f->func.pcln, &go->lines));
	TRY(read_steps(go, f->func.pcfile, &go->sources));
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
	TRY(add_node(go, name, line_of((int32_t)f->func.start_line), node, &f->node));
	return add_rows(go, f);
}

static struct err *read_functions(struct go *go)
{
	uint64_t done = 0;

	for (uint64_t i = 0; i < go->tab.count; i++) {
		struct pclntab_function function = pclntab_function(&go->tab, i);
		struct go_function f = {.low = function.low, .high = function.high};
		if (f.low >= f.high || f.low < done || !elffile_is_code(go->file, f.low) || !elffile_is_code(go->file, f.high - 1) ||
			!pclntab_func(&go->tab, &function, &f.func)) {
			damaged(go);
			continue;
		}
		TRY(add_function(go, &f));
		done = f.high;
	}
	return NULL;
}

static struct err *read_all(struct go *go)
{
	bool found;

	TRY(find_table(go, &found));
	if (!found)
		return NULL;
	const struct elffile_section *text = elffile_find(go->file, ".text");
	if (go->tab.text == 0 && text)
		go->tab.text = text->vaddr;
	TRY(read_functions(go));
	if (go->out->damaged)
		go->out->damage = reader_error(&go->tab.table, "%" PRIu64 " functions, tables or calls are damaged", go->out->damaged);
	return NULL;
}

struct err *gopclntab_read(struct elffile *file, struct account *account, struct unit_result *ret)
{
	struct go go = {.file = file, .account = account, .out = ret};
	struct err *e = read_all(&go);

	ARRAY_DEINIT(account, &go.relocated);
	hmap_deinit(&go.files);
	ARRAY_DEINIT(account, &go.lines);
	ARRAY_DEINIT(account, &go.sources);
	ARRAY_DEINIT(account, &go.inlined);
	ARRAY_DEINIT(account, &go.calls);
	return e;
}

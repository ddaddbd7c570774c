// SPDX-License-Identifier: Apache-2.0
/*
 * Resolving happens when a profile is read, one read of the store a module: symbols that came after the samples show in them.
 *
 * Where an address is as linked:
 *     VADDR         it is
 *     FILE_OFFSET   through the PT_LOADs of the runtime file; while that is unknown (symbols came by build ID, from a debug file
 *                   alone) the sender's own hint, where its mapping was in linked addresses
 *     TEXT          from where the kernel's record says that its text begins. Without one (symbols from elsewhere, by build ID): vmlinux
 *                   from the table's lowest address, which is _text; a module from 0, where most have their .text
 *
 * An answer that is none has the reason: the store's words for the module, or what is wrong with the address.
 */
#include "api/profiles_resolver.h"

#include "api/symbolize.h"
#include "base/hmap.h"
#include "store/miss.h"
#include "symbolizer/table/demangle.h"

#include <inttypes.h>
#include <stdio.h>

enum { GROUP = 1024, GROUP_FRAMES = 8192 };

struct profiles_resolver {
	struct store *store;
	struct sources *sources;
	uint64_t requester;
	struct api_known known; /* of the module at hand */
	/* names of the table at hand: number of the function or file -> text in the arena */
	struct arena arena;
	struct hmap functions, files;
	uint64_t text_vaddr;
	bool has_text_vaddr;
	uint64_t vaddrs[GROUP];
	uint32_t asked[GROUP]; /* which address of the module vaddrs[i] is */
	uint32_t first[GROUP + 1];
	struct table_frame frames[GROUP_FRAMES];
	struct samples_symbol symbols[TABLE_MAX_DEPTH];
};

struct err *profiles_resolver_create(struct store *store, struct sources *sources, uint64_t requester, struct profiles_resolver **ret)
{
	struct profiles_resolver *resolver = calloc(1, sizeof(*resolver));

	if (!resolver)
		return err_nomem();
	resolver->store = store;
	resolver->sources = sources;
	resolver->requester = requester;
	*ret = resolver;
	return NULL;
}

void profiles_resolver_destroy(struct profiles_resolver *resolver)
{
	if (!resolver)
		return;
	arena_deinit(&resolver->arena);
	hmap_deinit(&resolver->functions);
	hmap_deinit(&resolver->files);
	free(resolver);
}

void profiles_resolver_destroyp(struct profiles_resolver **resolver)
{
	profiles_resolver_destroy(*resolver);
}

/* Where an address lies as linked, or why that is not known. */
static const char *to_vaddr(const struct profiles_resolver *resolver, const struct samples_address *address, uint64_t *ret)
{
	const struct store_answer *answer = &resolver->known.answer;

	*ret = address->value;
	switch (address->kind) {
	case SAMPLES_ADDRESS_TEXT:
		if (!resolver->has_text_vaddr)
			return "the kernel's file, which would say where its text is linked, is not known";
		*ret = resolver->text_vaddr + address->value;
		return NULL;
	case SAMPLES_ADDRESS_FILE_OFFSET:
		if (answer->has_file && answer->file.segments.count) {
			if (load_segments_vaddr(&answer->file.segments, address->value, ret))
				return NULL;
			return "no load segment of the file holds this offset";
		}
		if (!address->has_hint)
			return resolver->known.reason;
		*ret = address->vaddr_hint;
		return NULL;
	case SAMPLES_ADDRESS_VADDR:
	default:
		return NULL;
	}
}

static struct err *answer_none_for_all(const struct profiles_resolver *resolver, const struct samples_address *addresses, size_t count,
	const char *reason, struct samples_answers *answers)
{
	uint64_t vaddr;

	for (size_t i = 0; i < count; i++) {
		(void)to_vaddr(resolver, &addresses[i], &vaddr);
		TRY(samples_answer_none(answers, i, vaddr, reason));
	}
	return NULL;
}

static struct err *shown_name(struct profiles_resolver *resolver, const struct table_frame *frame, const char **ret)
{
	char out[DEMANGLE_OUT_SIZE];
	uint64_t kept;

	if (hmap_get(&resolver->functions, frame->function_id, &kept)) {
		*ret = (const char *)(uintptr_t)kept;
		return NULL;
	}
	const char *name = demangle(frame->function, DEMANGLE_FULL, out, sizeof(out));
	*ret = arena_copy_text(&resolver->arena, name, strlen(name));
	return *ret ? hmap_set(&resolver->functions, frame->function_id, (uintptr_t)*ret) : err_nomem();
}

static struct err *file_path(struct profiles_resolver *resolver, const struct table_frame *frame, const char **ret)
{
	size_t dir = strlen(frame->dir), base = strlen(frame->base);
	uint64_t kept;

	*ret = "";
	if (!base)
		return NULL;
	if (hmap_get(&resolver->files, frame->file_id, &kept)) {
		*ret = (const char *)(uintptr_t)kept;
		return NULL;
	}
	const char *slash = api_names_separator(frame);
	char *path = arena_alloc(&resolver->arena, dir + 1 + base + 1);
	if (!path)
		return err_nomem();
	(void)snprintf(path, dir + 1 + base + 1, "%s%s%s", frame->dir, slash, frame->base);
	*ret = path;
	return hmap_set(&resolver->files, frame->file_id, (uintptr_t)path);
}

static struct err *answer_frames(struct profiles_resolver *resolver, size_t asked, uint64_t vaddr, const struct table_frame *frames,
	size_t count, struct samples_answers *answers)
{
	for (size_t i = 0; i < count; i++) {
		struct samples_symbol *symbol = &resolver->symbols[i];
		*symbol = (struct samples_symbol){.symbol = frames[i].function,
			.line = frames[i].line,
			.column = frames[i].column,
			.start_line = frames[i].start_line};
		TRY(shown_name(resolver, &frames[i], &symbol->function));
		TRY(file_path(resolver, &frames[i], &symbol->file));
	}
	if (count == 0)
		return samples_answer_none(answers, asked, vaddr, "no symbol of the file covers this address");
	return samples_answer(answers, asked, vaddr, resolver->symbols, count);
}

/* Looks up the first @p count of vaddrs. */
static struct err *look_up(struct profiles_resolver *resolver, const struct table *table, size_t count, struct samples_answers *answers)
{
	for (size_t from = 0; from < count;) {
		size_t done = table_lookup_batch(table, resolver->vaddrs + from, count - from, resolver->frames, GROUP_FRAMES,
			resolver->first);
		if (done == 0)
			return err_new(ERR_INTERNAL, "a table lookup made no progress");
		for (size_t i = 0; i < done; i++)
			TRY(answer_frames(resolver, resolver->asked[from + i], resolver->vaddrs[from + i],
				resolver->frames + resolver->first[i], resolver->first[i + 1] - resolver->first[i], answers));
		from += done;
	}
	return NULL;
}

static struct err *answer_by_table(struct profiles_resolver *resolver, const struct table *table, const struct samples_address *addresses,
	size_t count, struct samples_answers *answers)
{
	for (size_t from = 0; from < count;) {
		size_t kept = 0;
		for (; from < count && kept < GROUP; from++) {
			uint64_t vaddr;
			const char *reason = to_vaddr(resolver, &addresses[from], &vaddr);
			if (reason) {
				TRY(samples_answer_none(answers, from, vaddr, reason));
				continue;
			}
			resolver->vaddrs[kept] = vaddr;
			resolver->asked[kept++] = (uint32_t)from;
		}
		TRY(look_up(resolver, table, kept, answers));
	}
	return NULL;
}

/* Where a kernel's text is linked; see the head of this file. */
static void find_text(struct profiles_resolver *resolver, const struct samples_module *module, const struct table *table)
{
	const struct store_answer *answer = &resolver->known.answer;
	struct table_info info;

	resolver->has_text_vaddr = module->kernel && answer->has_file && answer->file.has_text;
	resolver->text_vaddr = answer->file.text_vaddr;
	if (resolver->has_text_vaddr || !module->kernel || !table)
		return;
	table_info(table, &info);
	resolver->has_text_vaddr = true;
	resolver->text_vaddr = strcmp(module->name, "vmlinux") == 0 ? info.low_vaddr : 0;
}

static struct err *open_table(struct profiles_resolver *resolver, struct store_read *read, struct table *ret)
{
	const struct store_entry *entry = &resolver->known.answer.entry;
	struct store_view view;
	char hex[SHA256_HEX_SIZE];

	sha256_format(&entry->table, hex);
	TRY(store_read_table(read, &entry->table, &view));
	if (!view.bytes)
		return err_new(ERR_CORRUPT, "table %s: named by an entry, and not there", hex);
	return err_wrap(table_open(view.bytes, view.len, ret), "table %s", hex);
}

/* Whether an address needs the load segments of the runtime file. */
static bool has_offsets(const struct samples_address *addresses, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (addresses[i].kind == SAMPLES_ADDRESS_FILE_OFFSET && !addresses[i].has_hint)
			return true;
	return false;
}

/* Has the sources asked for what is lacking. What has symbols stays ok: others of its addresses may be as linked. */
static void ask_sources(struct profiles_resolver *resolver, const struct store_query *query, bool offsets)
{
	struct api_known *known = &resolver->known;
	bool ok = known->status == API_MODULE_OK;

	if (!offsets) {
		api_known_ask(resolver->sources, resolver->requester, query, known);
		return;
	}
	api_known_ask_offsets(resolver->sources, resolver->requester, query, known);
	if (ok)
		known->status = API_MODULE_OK;
}

static struct err *resolve(void *context, uint32_t tenant, const struct samples_module *module, const struct samples_address *addresses,
	size_t count, struct samples_answers *answers)
{
	static const struct fileid none;
	struct profiles_resolver *resolver = context;
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = tenant, .file_id = module->file_id, .build_id = module->build_id};
	struct table table;

	memset(&resolver->known, 0, sizeof(resolver->known));
	resolver->has_text_vaddr = false;
	query.has_file_id = !fileid_equal(&module->file_id, &none);
	if (!query.build_id.len && module->go_build_id[0])
		TRY(build_id_from_go(module->go_build_id, strlen(module->go_build_id), &query.build_id));
	if (!query.has_file_id && !query.build_id.len)
		return answer_none_for_all(resolver, addresses, count, "the sender gave no ID of the file", answers);
	TRY(store_read_begin(resolver->store, &read));
	TRY(api_known_resolve(read, &query, &resolver->known));
	if (resolver->known.status == API_MODULE_UNKNOWN)
		store_miss_note(resolver->store, &query);
	ask_sources(resolver, &query, has_offsets(addresses, count));
	if (resolver->known.status != API_MODULE_OK) {
		find_text(resolver, module, NULL);
		return answer_none_for_all(resolver, addresses, count, resolver->known.reason, answers);
	}
	TRY(open_table(resolver, read, &table));
	arena_reset(&resolver->arena);
	hmap_clear(&resolver->functions);
	hmap_clear(&resolver->files);
	find_text(resolver, module, &table);
	return answer_by_table(resolver, &table, addresses, count, answers);
}

struct samples_resolver profiles_resolver_interface(struct profiles_resolver *resolver)
{
	return (struct samples_resolver){.resolve = resolve, .context = resolver};
}

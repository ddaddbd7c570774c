// SPDX-License-Identifier: Apache-2.0
/*
 * A batch: one read of the store for all of its modules. Each module's addresses go through the table in groups, whose
 * frames (borrowed from the map) are copied into the answer before the next group is looked up.
 */
#include "api/symbolize.h"

#include "store/miss.h"

#include <stdio.h>
#include <string.h>

enum {
	GROUP = 1024,		       /* addresses looked up at once */
	GROUP_FRAMES = 8192,	       /* at least TABLE_MAX_DEPTH: one address always fits */
	TENANT = STORE_TENANT_DEFAULT, /* until requests carry an identity */
};
_Static_assert((int)GROUP_FRAMES >= (int)TABLE_MAX_DEPTH, "one chain must fit");

struct api_symbolizer {
	struct api_names *names;
	uint64_t vaddrs[GROUP];
	bool outside[GROUP]; /* of every segment: not looked up */
	uint32_t first[GROUP + 1];
	struct table_frame frames[GROUP_FRAMES];
	struct api_known known; /* of the present module */
};

/* One request on its way. */
struct run {
	struct api_symbolizer *symbolizer;
	struct store *store;
	struct store_read *read;
	struct api_answer *answer;
	const struct api_symbolize_request *request;
	struct api_symbolize_counts counts;
};

struct err *api_symbolizer_create(size_t names_bytes, struct api_symbolizer **ret)
{
	struct api_symbolizer *symbolizer = calloc(1, sizeof(*symbolizer));
	if (!symbolizer)
		return err_nomem();
	struct err *e = api_names_create(names_bytes, &symbolizer->names);
	if (e) {
		free(symbolizer);
		return e;
	}
	*ret = symbolizer;
	return NULL;
}

void api_symbolizer_destroy(struct api_symbolizer *symbolizer)
{
	if (!symbolizer)
		return;
	api_names_destroy(symbolizer->names);
	free(symbolizer);
}

static struct store_query make_query(const struct api_symbolize_module *module)
{
	return (struct store_query){.tenant = TENANT,
		.has_file_id = module->has_file_id,
		.file_id = module->file_id,
		.build_id = module->build_id};
}

static void ask_sources(const struct api_symbolize_request *request, const struct api_symbolize_module *module, const struct store_query *query,
	struct api_known *known)
{
	if (module->file_offsets)
		api_known_ask_offsets(request->sources, request->requester, query, known);
	else
		api_known_ask(request->sources, request->requester, query, known);
}

struct err *api_symbolize_is_pending(struct store *store, const struct api_symbolize_request *request, bool *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(freep) struct api_known *known = malloc(sizeof(*known));

	if (!known)
		return err_nomem();
	TRY(store_read_begin(store, &read));
	*ret = false;
	/* To the end, though one is enough to know: each that is unknown is to be asked for now, not when the one before it has come. */
	for (size_t i = 0; i < request->count; i++) {
		struct store_query query = make_query(&request->modules[i]);
		TRY(api_known_resolve(read, &query, known));
		ask_sources(request, &request->modules[i], &query, known);
		*ret = *ret || known->status == API_MODULE_PENDING;
	}
	return NULL;
}

static struct api_module_head make_head(const struct api_symbolize_module *module, const struct api_known *known)
{
	struct api_module_head head = {.has_file_id = module->has_file_id,
		.file_id = module->file_id,
		.build_id = module->build_id,
		.status = known->status,
		.reason = known->reason,
		.retry_after_s = known->retry_after_s,
		.results = module->count};

	if (!head.has_file_id && known->answer.has_file) {
		head.has_file_id = true;
		head.file_id = known->answer.file.file_id;
	}
	if (!head.build_id.len && known->answer.has_file)
		head.build_id = known->answer.file.build_id;
	if (known->status == API_MODULE_OK) {
		head.source = store_source_name(known->answer.entry.source);
		head.kind = api_kind_name(known->answer.entry.kind);
	}
	return head;
}

/* An address that no executable segment holds was never a program counter of this file. */
static bool is_executable(const struct load_segments *segments, uint64_t vaddr)
{
	if (segments->count == 0)
		return true;
	for (size_t i = 0; i < segments->count; i++) {
		const struct load_segment *segment = &segments->items[i];
		if (segment->executable && vaddr >= segment->vaddr && vaddr - segment->vaddr < segment->size)
			return true;
	}
	return false;
}

static void convert_group(struct api_symbolizer *symbolizer, const struct api_symbolize_module *module, size_t from,
	size_t count)
{
	const struct load_segments *segments = &symbolizer->known.answer.file.segments;

	for (size_t i = 0; i < count; i++) {
		uint64_t address = module->addresses[from + i];
		symbolizer->vaddrs[i] = address;
		symbolizer->outside[i] =
			module->file_offsets && !load_segments_vaddr(segments, address, &symbolizer->vaddrs[i]);
	}
}

static struct err *write_result(struct run *run, size_t i)
{
	struct api_symbolizer *symbolizer = run->symbolizer;
	uint32_t first = symbolizer->first[i], count = symbolizer->first[i + 1] - first;
	const struct store_answer *known = &symbolizer->known.answer;
	enum api_result_status status = API_RESULT_OK;

	if (symbolizer->outside[i])
		count = 0;
	if (count == 0) {
		bool inside = !symbolizer->outside[i] &&
			      (!known->has_file || is_executable(&known->file.segments, symbolizer->vaddrs[i]));
		status = inside ? API_RESULT_NO_SYMBOL : API_RESULT_OUT_OF_RANGE;
	}
	run->counts.results[status]++;
	run->counts.frames += count;
	return api_answer_result(run->answer, status, symbolizer->frames + first, count);
}

static struct err *write_results(struct run *run, const struct api_symbolize_module *module, const struct table *table)
{
	struct api_symbolizer *symbolizer = run->symbolizer;

	for (size_t from = 0; from < module->count;) {
		size_t count = module->count - from < GROUP ? module->count - from : GROUP;
		convert_group(symbolizer, module, from, count);
		size_t done = table_lookup_batch(table, symbolizer->vaddrs, count, symbolizer->frames, GROUP_FRAMES,
			symbolizer->first);
		if (done == 0)
			return err_new(ERR_INTERNAL, "a table lookup made no progress");
		for (size_t i = 0; i < done; i++)
			TRY(write_result(run, i));
		from += done;
	}
	return NULL;
}

static struct err *open_table(struct run *run, struct table *ret)
{
	const struct store_entry *entry = &run->symbolizer->known.answer.entry;
	struct store_view view;
	char hex[SHA256_HEX_SIZE];

	sha256_format(&entry->table, hex);
	TRY(store_read_table(run->read, &entry->table, &view));
	if (!view.bytes)
		return err_new(ERR_CORRUPT, "table %s: named by an entry, and not there", hex);
	return err_wrap(table_open(view.bytes, view.len, ret), "table %s", hex);
}

static struct err *answer_module(struct run *run, const struct api_symbolize_module *module)
{
	struct api_known *known = &run->symbolizer->known;
	struct store_query query = make_query(module);
	struct table table = {0};

	TRY(api_known_resolve(run->read, &query, known));
	if (known->status == API_MODULE_UNKNOWN)
		store_miss_note(run->store, &query);
	ask_sources(run->request, module, &query, known);
	bool ok = known->status == API_MODULE_OK;
	if (ok)
		TRY(open_table(run, &table));
	struct api_module_head head = make_head(module, known);
	TRY(api_answer_module(run->answer, &head, ok ? &table : NULL, ok ? &known->answer.entry.table : NULL));
	run->counts.modules[known->status]++;
	if (ok)
		TRY(write_results(run, module, &table));
	else
		run->counts.addresses_without_module += module->count;
	return api_answer_module_end(run->answer);
}

struct err *api_symbolize_run(struct api_symbolizer *symbolizer, struct store *store,
	const struct api_symbolize_request *request, enum api_format format, size_t limit, struct buf *ret,
	struct api_symbolize_counts *counts_ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	CLEANUP(api_answer_destroyp) struct api_answer *answer = NULL;
	struct run run = {.symbolizer = symbolizer, .store = store, .request = request};

	TRY(store_read_begin(store, &read));
	TRY(api_answer_begin(format, request->demangle, symbolizer->names, limit, &answer));
	run.read = read;
	run.answer = answer;
	for (size_t i = 0; i < request->count; i++)
		TRY(err_wrap(answer_module(&run, &request->modules[i]), "modules[%zu]", i));
	TRY(api_answer_end(answer, ret));
	*counts_ret = run.counts;
	return NULL;
}

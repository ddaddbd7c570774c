// SPDX-License-Identifier: Apache-2.0
/*
 * A dictionary and the value of each of its nodes become a profile. Only what carries a value takes part. Each distinct
 * (module, address) is asked for once, a module's at once and sorted; then locations are made of the answers, then nodes.
 *
 * Of a location with lines from the sender (kernel, Go) and an answer from the resolver, the answer wins when it has lines or when the
 * sender gave no line numbers; else the sender's lines stand. A location with neither is named file+0xaddress and says why.
 */
#include "profiles/read.h"

/* An address that the resolver is asked for, and what it said. */
struct want {
	uint32_t location; /* of the dictionary */
	uint32_t module;   /* mapping of the dictionary */
	bool kernel;
	struct samples_address address;
};

struct answer {
	uint32_t first, count; /* frames of struct expansion; count 0: none */
	uint64_t vaddr;
	uint32_t reason; /* text */
	bool has_lines, given;
};

struct expansion {
	const struct dict *dict;
	struct profile *profile;
	uint32_t tenant;
	uint8_t *used_nodes, *used_locations;
	struct want *wants; /* sorted by module and address */
	size_t want_count;
	struct answer *answers;	    /* of each want */
	uint32_t *want_of_location; /* plus 1; 0: none */
	uint32_t *mapping_numbers;  /* of the profile */
	uint32_t *location_numbers;
	struct profile_frame *frames;
	size_t frame_count, frame_cap;
	uint32_t no_mapping, no_resolver, no_answer; /* texts */
};

static void expansion_deinit(struct expansion *x)
{
	free(x->used_nodes);
	free(x->used_locations);
	free(x->wants);
	free(x->answers);
	free(x->want_of_location);
	free(x->mapping_numbers);
	free(x->location_numbers);
	free(x->frames);
}

/* -------------------------------------------------------------------------------------- what takes part */

static void mark_used(struct expansion *x, const uint64_t *sums)
{
	const struct dict *dict = x->dict;

	for (uint32_t i = dict->node_count; i-- > 1;) {
		if (!sums[i] && !x->used_nodes[i])
			continue;
		x->used_nodes[i] = 1;
		x->used_nodes[dict->parents[i]] = 1;
		x->used_locations[dict->locations[i]] = 1;
	}
}

static int want_compare(const void *a, const void *b)
{
	const struct want *x = a, *y = b;

	if (x->module != y->module)
		return x->module < y->module ? -1 : 1;
	if (x->kernel != y->kernel)
		return x->kernel ? 1 : -1;
	if (x->address.kind != y->address.kind)
		return x->address.kind < y->address.kind ? -1 : 1;
	if (x->address.value != y->address.value)
		return x->address.value < y->address.value ? -1 : 1;
	return (x->location > y->location) - (x->location < y->location);
}

/* Native and kernel locations of a known module. */
static struct err *find_wants(struct expansion *x, uint64_t *locations_ret)
{
	uint32_t count = x->dict->tables[DICT_LOCATIONS].count;

	x->wants = malloc((count + 1) * sizeof(*x->wants));
	if (!x->wants)
		return err_nomem();
	*locations_ret = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct dict_location location;
		struct dict_mapping mapping;
		if (!x->used_locations[i])
			continue;
		++*locations_ret;
		dict_get_location(x->dict, i, &location);
		if (location.kind == PROFILE_FRAME_INTERPRETED || location.mapping == SAMPLES_NONE)
			continue;
		dict_get_mapping(x->dict, location.mapping, &mapping);
		struct want *want = &x->wants[x->want_count++];
		*want = (struct want){.location = i, .module = location.mapping, .kernel = location.kind == PROFILE_FRAME_KERNEL};
		want->address = (struct samples_address){.value = location.address, .kind = location.address_kind};
		if (location.address_kind == SAMPLES_ADDRESS_FILE_OFFSET && mapping.has_bias) {
			want->address.has_hint = true;
			want->address.vaddr_hint = location.address + mapping.bias;
		}
	}
	if (x->want_count > 0)
		qsort(x->wants, x->want_count, sizeof(*x->wants), want_compare);
	for (size_t i = 0; i < x->want_count; i++)
		x->want_of_location[x->wants[i].location] = (uint32_t)i + 1;
	return NULL;
}

/* -------------------------------------------------------------------------------------- asking */

struct samples_answers {
	struct expansion *x;
	size_t first, count; /* wants of this module */
};

static struct err *add_frame(struct expansion *x, const struct profile_frame *frame)
{
	if (x->frame_count == x->frame_cap) {
		size_t cap = x->frame_cap ? 2 * x->frame_cap : 1024;
		struct profile_frame *frames = realloc(x->frames, cap * sizeof(*frames));
		if (!frames)
			return err_nomem();
		x->frames = frames;
		x->frame_cap = cap;
	}
	x->frames[x->frame_count++] = *frame;
	return NULL;
}

static struct err *make_frame(struct expansion *x, const struct samples_line *line)
{
	struct profile_function function = {.start_line = line->start_line};
	struct profile_frame frame = {.line = line->line, .column = line->column};
	struct samples_text name = line->function.len ? line->function : line->system_name;
	struct samples_text symbol = line->system_name.len ? line->system_name : line->function;

	TRY(profile_text(x->profile, name.bytes, name.len, &function.name));
	TRY(profile_text(x->profile, symbol.bytes, symbol.len, &function.symbol));
	TRY(profile_text(x->profile, line->file.bytes, line->file.len, &function.file));
	frame.file = function.file;
	TRY(profile_add_function(x->profile, &function, &frame.function));
	return add_frame(x, &frame);
}

static struct samples_text text_or_empty(const char *text)
{
	return text_of(text ? text : "");
}

struct err *samples_answer(struct samples_answers *answers, size_t i, uint64_t vaddr, const struct samples_symbol *frames, size_t count)
{
	struct expansion *x = answers->x;

	if (i >= answers->count || count == 0 || count > UINT32_MAX)
		return err_new(ERR_INVALID, "answer %zu of %zu, %zu frames", i, answers->count, count);
	struct answer *answer = &x->answers[answers->first + i];
	*answer = (struct answer){.first = (uint32_t)x->frame_count, .count = (uint32_t)count, .vaddr = vaddr, .given = true};
	for (size_t f = 0; f < count; f++) {
		struct samples_line line = {.function = text_or_empty(frames[f].function),
			.system_name = text_or_empty(frames[f].symbol),
			.file = text_or_empty(frames[f].file),
			.line = frames[f].line,
			.column = frames[f].column,
			.start_line = frames[f].start_line};
		answer->has_lines |= line.line != 0;
		TRY(make_frame(x, &line));
	}
	return NULL;
}

struct err *samples_answer_none(struct samples_answers *answers, size_t i, uint64_t vaddr, const char *reason)
{
	struct expansion *x = answers->x;

	if (i >= answers->count)
		return err_new(ERR_INVALID, "answer %zu of %zu", i, answers->count);
	struct answer *answer = &x->answers[answers->first + i];
	*answer = (struct answer){.vaddr = vaddr, .given = true};
	return profile_text(x->profile, reason, strlen(reason), &answer->reason);
}

/* The texts of a dictionary end without NUL. */
static struct err *text_copy(const struct dict *dict, uint32_t number, struct buf *ret)
{
	struct samples_text text = dict_text(dict, number);

	ret->len = 0;
	if (text.len > 0)
		TRY(buf_append(ret, text.bytes, text.len));
	return buf_append(ret, "", 1);
}

static struct err *ask_module(struct expansion *x, size_t first, size_t count, const struct samples_resolver *resolver)
{
	CLEANUP(buf_deinit) struct buf go = {0};
	CLEANUP(buf_deinit) struct buf name = {0};
	CLEANUP(freep) struct samples_address *addresses = malloc(count * sizeof(*addresses));
	struct samples_answers answers = {.x = x, .first = first, .count = count};
	struct dict_mapping mapping;

	if (!addresses)
		return err_nomem();
	for (size_t i = 0; i < count; i++)
		addresses[i] = x->wants[first + i].address;
	dict_get_mapping(x->dict, x->wants[first].module, &mapping);
	TRY(text_copy(x->dict, mapping.go_build_id, &go));
	TRY(text_copy(x->dict, mapping.name, &name));
	struct samples_module module = {.file_id = mapping.file_id,
		.build_id = mapping.build_id,
		.go_build_id = (const char *)go.data,
		.name = (const char *)name.data,
		.kernel = x->wants[first].kernel};
	return resolver->resolve(resolver->context, x->tenant, &module, addresses, count, &answers);
}

static struct err *ask(struct expansion *x, const struct samples_resolver *resolver, uint64_t *modules_ret)
{
	x->answers = calloc(x->want_count + 1, sizeof(*x->answers));
	if (!x->answers)
		return err_nomem();
	*modules_ret = 0;
	for (size_t at = 0, end; at < x->want_count; at = end) {
		const struct want *first = &x->wants[at];
		for (end = at; end < x->want_count && x->wants[end].module == first->module && x->wants[end].kernel == first->kernel;)
			end++;
		++*modules_ret;
		if (resolver)
			TRY(ask_module(x, at, end - at, resolver));
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- locations */

/* The profile's mapping of one of the dictionary: the same file twice (in two load segments) is one. */
static struct err *mapping_of(struct expansion *x, uint32_t number, uint32_t *ret)
{
	struct profile_mapping mapping = {0};
	struct dict_mapping from;

	if (x->mapping_numbers[number] != SAMPLES_NONE) {
		*ret = x->mapping_numbers[number];
		return NULL;
	}
	dict_get_mapping(x->dict, number, &from);
	struct samples_text name = dict_text(x->dict, from.name);
	TRY(profile_text(x->profile, name.bytes, name.len, &mapping.name));
	mapping.file_id = from.file_id;
	mapping.build_id = from.build_id;
	for (uint32_t i = 0; i < x->profile->mapping_count; i++) {
		const struct profile_mapping *other = &x->profile->mappings[i];
		if (other->name == mapping.name && fileid_equal(&other->file_id, &mapping.file_id) &&
			build_id_equal(&other->build_id, &mapping.build_id)) {
			x->mapping_numbers[number] = *ret = i;
			return NULL;
		}
	}
	TRY(profile_add_mapping(x->profile, &mapping, ret));
	x->mapping_numbers[number] = *ret;
	return NULL;
}

/* file+0xaddress, with what is known of the file. */
static struct err *name_unknown(const struct expansion *x, const struct dict_location *location, uint64_t vaddr, struct buf *ret)
{
	static const struct fileid none;
	char text[BUILD_ID_HEX_SIZE] = "";
	struct dict_mapping mapping = {0};

	if (location->mapping != SAMPLES_NONE)
		dict_get_mapping(x->dict, location->mapping, &mapping);
	struct samples_text name = dict_text(x->dict, mapping.name);
	if (name.len == 0) {
		if (memcmp(&mapping.file_id, &none, sizeof(none)) != 0)
			fileid_format_hex(&mapping.file_id, text);
		else
			build_id_format(&mapping.build_id, text);
		name = text_of(text[0] ? text : location->kind == PROFILE_FRAME_KERNEL ? "[kernel]" : "[unknown]");
	}
	return buf_printf(ret, "%.*s+0x%llx", (int)name.len, name.bytes, (unsigned long long)vaddr);
}

static struct err *sender_lines(struct expansion *x, const struct dict_location *location)
{
	for (uint32_t i = 0; i < location->line_count; i++) {
		struct dict_line from;
		dict_get_line(x->dict, location->lines[i], &from);
		struct samples_line line = {.function = dict_text(x->dict, from.function),
			.system_name = dict_text(x->dict, from.system_name),
			.file = dict_text(x->dict, from.file),
			.line = from.line,
			.column = from.column,
			.start_line = from.start_line};
		if (line.function.len == 0 && line.system_name.len == 0)
			line.function = text_of("[unnamed]");
		TRY(make_frame(x, &line));
	}
	return NULL;
}

static bool sender_has_lines(const struct expansion *x, const struct dict_location *location)
{
	for (uint32_t i = 0; i < location->line_count; i++) {
		struct dict_line line;
		dict_get_line(x->dict, location->lines[i], &line);
		if (line.line)
			return true;
	}
	return false;
}

/* A location without any name. */
static struct err *unknown_location(struct expansion *x, const struct dict_location *from, const struct answer *answer, bool asked,
	struct profile_location *location)
{
	CLEANUP(buf_deinit) struct buf name = {0};
	struct samples_line line = {0};

	location->symbolized = false;
	location->reason = answer && answer->given ? answer->reason : !answer ? x->no_mapping : asked ? x->no_answer : x->no_resolver;
	TRY(name_unknown(x, from, location->vaddr, &name));
	line.function = (struct samples_text){(const char *)name.data, name.len};
	return make_frame(x, &line);
}

static struct err *add_location(struct expansion *x, uint32_t number, bool asked, uint64_t *unresolved)
{
	struct dict_location from;
	uint32_t want = x->want_of_location[number];
	const struct answer *answer = want ? &x->answers[want - 1] : NULL;
	size_t first = x->frame_count;

	dict_get_location(x->dict, number, &from);
	struct profile_location location = {.mapping = PROFILE_NONE, .vaddr = from.address, .kind = from.kind, .symbolized = true};
	if (from.mapping != SAMPLES_NONE)
		TRY(mapping_of(x, from.mapping, &location.mapping));
	if (answer && answer->given)
		location.vaddr = answer->vaddr;
	else if (want && x->wants[want - 1].address.has_hint)
		location.vaddr = x->wants[want - 1].address.vaddr_hint;
	size_t count;
	if (answer && answer->count && (answer->has_lines || !from.line_count || !sender_has_lines(x, &from))) {
		first = answer->first;
		count = answer->count;
	} else {
		if (from.line_count > 0) {
			TRY(sender_lines(x, &from));
		} else {
			++*unresolved;
			TRY(unknown_location(x, &from, answer, asked, &location));
		}
		count = x->frame_count - first;
	}
	return profile_add_location(x->profile, &location, &x->frames[first], (uint32_t)count, &x->location_numbers[number]);
}

/* -------------------------------------------------------------------------------------- nodes */

/* Samples without a stack are still samples. */
static struct err *add_rootless(struct expansion *x, uint64_t value)
{
	struct samples_line line = {.function = text_of("[no stack]")};
	struct profile_location location = {.mapping = PROFILE_NONE, .kind = PROFILE_FRAME_INTERPRETED, .symbolized = true};
	uint32_t number, node;

	if (!value)
		return NULL;
	TRY(make_frame(x, &line));
	TRY(profile_add_location(x->profile, &location, &x->frames[x->frame_count - 1], 1, &number));
	return profile_add_node(x->profile, PROFILE_NONE, number, value, &node);
}

static struct err *add_nodes(struct expansion *x, const uint64_t *sums, uint64_t *traces)
{
	CLEANUP(freep) uint32_t *numbers = malloc(x->dict->node_count * sizeof(*numbers));

	if (!numbers)
		return err_nomem();
	numbers[0] = PROFILE_NONE;
	for (uint32_t i = 1; i < x->dict->node_count; i++) {
		if (!x->used_nodes[i])
			continue;
		*traces += sums[i] != 0;
		TRY(profile_add_node(x->profile, numbers[x->dict->parents[i]], x->location_numbers[x->dict->locations[i]], sums[i], &numbers[i]));
	}
	return NULL;
}

static struct err *expansion_init(struct expansion *x)
{
	const struct dict *dict = x->dict;
	uint32_t mappings = dict->tables[DICT_MAPPINGS].count, locations = dict->tables[DICT_LOCATIONS].count;

	x->used_nodes = calloc(dict->node_count, 1);
	x->used_locations = calloc(locations + 1, 1);
	x->want_of_location = calloc(locations + 1, sizeof(uint32_t));
	x->location_numbers = calloc(locations + 1, sizeof(uint32_t));
	x->mapping_numbers = malloc((mappings + 1) * sizeof(uint32_t));
	if (!x->used_nodes || !x->used_locations || !x->want_of_location || !x->location_numbers || !x->mapping_numbers)
		return err_nomem();
	memset(x->mapping_numbers, 0xff, (mappings + 1) * sizeof(uint32_t));
	TRY(profile_text(x->profile, "no mapping", 10, &x->no_mapping));
	TRY(profile_text(x->profile, "not symbolized", 14, &x->no_resolver));
	return profile_text(x->profile, "no answer", 9, &x->no_answer);
}

struct err *expand(const struct dict *dict, const uint64_t *sums, uint32_t tenant, const struct samples_resolver *resolver,
	struct profile *ret, struct samples_query_stat *stat)
{
	CLEANUP(expansion_deinit) struct expansion x = {.dict = dict, .profile = ret, .tenant = tenant};
	uint64_t start = monotonic_ns();

	TRY(expansion_init(&x));
	mark_used(&x, sums);
	TRY(find_wants(&x, &stat->locations));
	uint64_t asking = monotonic_ns();
	TRY(ask(&x, resolver, &stat->modules));
	stat->resolve_ns = monotonic_ns() - asking;
	for (uint32_t i = 0; i < dict->tables[DICT_LOCATIONS].count; i++)
		if (x.used_locations[i])
			TRY(add_location(&x, i, resolver != NULL, &stat->unresolved));
	TRY(add_rootless(&x, sums[0]));
	TRY(add_nodes(&x, sums, &stat->traces));
	stat->expand_ns = monotonic_ns() - start - stat->resolve_ns;
	return NULL;
}

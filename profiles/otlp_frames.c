// SPDX-License-Identifier: Apache-2.0
/*
 * Stacks, locations and mappings into the batch. Each element of the dictionary is taken once, when
 * a sample leads to it.
 *
 * What a location is, is said by its attribute `profile.frame.type`: "native", "kernel", "go"
 * (native code, symbolized by the agent), or an interpreter's name. Where that is absent or unknown
 * to us: with lines and without a mapping it is interpreted, else native. An interpreted frame has
 * no address that a file could resolve, and without a line it is named after its type and number,
 * so that it does not vanish.
 *
 * Addresses go to the batch as they came, beside the mapping's load facts: only the reader of the
 * samples may know the PT_LOADs of the file.
 */
#include "profiles/otlp_intake_internal.h"

#include <inttypes.h>
#include <stdio.h>

static bool text_is(struct samples_text text, const char *word)
{
	return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

static struct samples_text batch_text(struct otlp_text text)
{
	return (struct samples_text){text.bytes, text.len};
}

static bool key_is(const struct otlp_known_attribute *attribute, const char *word)
{
	return text_is(attribute->label.key, word);
}

/* IDs that are malformed are as good as absent: another attribute may have one. */
static void take_id(const struct otlp_known_attribute *attribute, struct samples_mapping *mapping,
	bool *has_htlhash)
{
	const struct samples_text *value = &attribute->label.value;
	struct fileid id;

	if (key_is(attribute, "process.executable.build_id.htlhash")) {
		*has_htlhash |= fileid_parse(value->bytes, value->len, &mapping->file_id);
	} else if (key_is(attribute, "process.executable.build_id.profiling") && !*has_htlhash) {
		/* what agents of 1.7 and before called it */
		if (fileid_parse(value->bytes, value->len, &id))
			mapping->file_id = id;
	} else if (key_is(attribute, "process.executable.build_id.gnu")) {
		(void)build_id_parse(value->bytes, value->len, &mapping->build_id);
	} else if (key_is(attribute, "process.executable.build_id.go") &&
		   value->len <= GO_BUILD_ID_MAX) {
		mapping->go_build_id = *value;
	}
}

static bool is_zero(const struct fileid *id)
{
	static const struct fileid none;

	return fileid_equal(id, &none);
}

static struct err *note_module(struct otlp_intake *in, const struct samples_mapping *mapping)
{
	struct otlp_module module = {.file_id = mapping->file_id,
		.build_id = mapping->build_id,
		.name = {mapping->name.bytes, mapping->name.len}};

	if (is_zero(&module.file_id) && !module.build_id.len)
		return NULL;
	return buf_append(&in->modules, &module, sizeof(module));
}

static struct err *take_mapping(struct otlp_intake *in, uint32_t index, uint32_t *ret)
{
	struct samples_mapping made = {.memory_start = 0};
	const struct otlp_known_attribute *attribute;
	struct otlp_mapping mapping;
	struct otlp_text name = {"", 0};
	bool has_htlhash = false;
	uint64_t number;

	if (index >= in->request->tables[OTLP_MAPPINGS].count)
		return err_new(ERR_FORMAT, "mapping %" PRIu32 " of %" PRIu32, index,
			in->request->tables[OTLP_MAPPINGS].count);
	if (in->mappings[index]) {
		*ret = in->mappings[index] - 1;
		return NULL;
	}
	if (!otlp_mapping(in->request, index, &mapping))
		return err_new(ERR_FORMAT, "mapping %" PRIu32 " is malformed", index);
	if (!otlp_string(in->request, mapping.filename, &name) && mapping.filename)
		return err_new(ERR_FORMAT, "mapping %" PRIu32 ": string %" PRIu32 " of %" PRIu32,
			index, mapping.filename, in->request->tables[OTLP_STRINGS].count);
	while (wire_repeated_next(&mapping.attributes, &number)) {
		TRY(err_wrap(
			otlp_intake_attribute(in, number, &attribute), "mapping %" PRIu32, index));
		if (attribute->is_label)
			take_id(attribute, &made, &has_htlhash);
	}
	if (wire_repeated_failed(&mapping.attributes))
		return err_new(
			ERR_FORMAT, "mapping %" PRIu32 ": attribute_indices are malformed", index);
	/* A Go build ID alone names what Go's linker makes of it. */
	if (made.build_id.len == 0 && made.go_build_id.len > 0)
		TRY(build_id_from_go(made.go_build_id.bytes, made.go_build_id.len, &made.build_id));
	const char *slash = name.len ? memrchr(name.bytes, '/', name.len) : NULL;
	made.name = batch_text(name);
	if (slash)
		made.name = (struct samples_text){
			slash + 1, name.len - (size_t)(slash + 1 - name.bytes)};
	made.memory_start = mapping.memory_start;
	made.memory_limit = mapping.memory_limit;
	made.file_offset = mapping.file_offset;
	TRY(err_wrap(samples_batch_mapping(in->batch, &made, ret), "mapping %" PRIu32, index));
	in->mappings[index] = *ret + 1;
	return note_module(in, &made);
}

/* The attribute in which the agent says the type; NULL when it does not. */
static struct err *find_type(struct otlp_intake *in, const struct otlp_location *location,
	const struct otlp_known_attribute **ret)
{
	struct wire_repeated indices = location->attributes;
	const struct otlp_known_attribute *attribute;
	uint64_t number;

	*ret = NULL;
	while (wire_repeated_next(&indices, &number)) {
		TRY(otlp_intake_attribute(in, number, &attribute));
		if (attribute->frame_type != OTLP_FRAME_UNSAID)
			*ret = attribute;
	}
	return wire_repeated_failed(&indices)
		       ? err_new(ERR_FORMAT, "attribute_indices are malformed")
		       : NULL;
}

enum otlp_frame_type otlp_intake_frame_type(struct samples_text value)
{
	static const char *const interpreters[] = {"jvm", "cpython", "php", "phpjit", "ruby",
		"perl", "v8js", "dotnet", "beam", "luajit", "abort-marker"};

	if (text_is(value, "kernel"))
		return OTLP_FRAME_KERNEL;
	if (text_is(value, "native") || text_is(value, "go") || text_is(value, "rust"))
		return OTLP_FRAME_NATIVE;
	for (size_t i = 0; i < ARRAY_SIZE(interpreters); i++)
		if (text_is(value, interpreters[i]))
			return OTLP_FRAME_INTERPRETED;
	return OTLP_FRAME_UNKNOWN;
}

static enum profile_frame_kind kind_of(
	const struct otlp_known_attribute *type, bool has_mapping, bool has_lines)
{
	switch (type ? type->frame_type : OTLP_FRAME_UNSAID) {
	case OTLP_FRAME_KERNEL:
		return PROFILE_FRAME_KERNEL;
	case OTLP_FRAME_NATIVE:
		return PROFILE_FRAME_NATIVE;
	case OTLP_FRAME_INTERPRETED:
		return PROFILE_FRAME_INTERPRETED;
	case OTLP_FRAME_UNSAID:
	case OTLP_FRAME_UNKNOWN:
	default:
		return has_lines && !has_mapping ? PROFILE_FRAME_INTERPRETED : PROFILE_FRAME_NATIVE;
	}
}

static uint32_t clamp(int64_t value)
{
	return value < 0 ? 0 : value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static struct err *take_string(
	const struct otlp_intake *in, uint32_t index, struct samples_text *ret)
{
	struct otlp_text text = {"", 0};

	/* Index 0 is the empty string, in a dictionary without strings too. */
	if (!otlp_string(in->request, index, &text) && index)
		return err_new(ERR_FORMAT, "string %" PRIu32 " of %" PRIu32, index,
			in->request->tables[OTLP_STRINGS].count);
	*ret = batch_text(text);
	return NULL;
}

static struct err *take_function(struct otlp_intake *in, uint32_t index, struct samples_line *ret)
{
	struct otlp_function function;
	uint32_t number;

	if (!otlp_function(in->request, index, &function))
		return err_new(ERR_FORMAT,
			"function %" PRIu32 " of %" PRIu32 " is not there or malformed", index,
			in->request->tables[OTLP_FUNCTIONS].count);
	TRY(take_string(in, function.name, &ret->function));
	TRY(take_string(in, function.system_name, &ret->system_name));
	TRY(take_string(in, function.filename, &ret->file));
	if (!ret->function.len)
		ret->function = ret->system_name;
	ret->start_line = clamp(function.start_line);
	TRY(samples_batch_function(in->batch, ret, &number));
	ret->known_function = number + 1;
	return NULL;
}

static struct err *take_line(
	struct otlp_intake *in, const struct otlp_line *line, struct samples_line *ret)
{
	struct samples_line made = {.line = 0};

	if (line->function >= in->request->tables[OTLP_FUNCTIONS].count || !in->functions[line->function].known) {
		TRY(take_function(in, line->function, &made));
		in->functions[line->function] = (struct otlp_known_function){true, made};
	}
	*ret = in->functions[line->function].line;
	ret->line = clamp(line->line);
	ret->column = clamp(line->column);
	return NULL;
}

static struct err *take_lines(struct otlp_intake *in, struct wire_span body,
	struct samples_line *lines, uint32_t *count_ret)
{
	struct reader r = wire_reader(body, NULL);
	struct otlp_line line;
	uint32_t count = 0;

	/* What is inlined deeper than any compiler does loses its outermost frames. */
	while (count < SAMPLES_LINES_MAX && otlp_next_line(&r, &line))
		TRY(take_line(in, &line, &lines[count++]));
	*count_ret = count;
	return r.failed ? err_new(ERR_FORMAT, "its lines are malformed") : NULL;
}

/* A frame that no file explains and nobody has named: "jvm+0x12". */
static struct err *name_after_type(const struct otlp_intake *in, struct samples_text type,
	uint64_t address, struct samples_line *line)
{
	char text[96];
	int len = snprintf(text, sizeof(text), "%.*s+0x%" PRIx64,
		(int)(type.len < 64 ? type.len : 64), type.bytes, address);
	char *kept = arena_copy_text(in->arena, text, (size_t)len);

	if (!kept)
		return err_nomem();
	*line = (struct samples_line){
		.function = {kept, (size_t)len}, .system_name = {"", 0}, .file = {"", 0}};
	return NULL;
}

static struct err *make_location(struct otlp_intake *in, const struct otlp_location *location, uint32_t *ret)
{
	struct samples_line lines[SAMPLES_LINES_MAX];
	struct samples_location made = {
		.mapping = SAMPLES_NONE, .address = location->address, .lines = lines};
	const struct otlp_known_attribute *type;

	TRY(find_type(in, location, &type));
	if (location->lines.len)
		TRY(take_lines(in, location->lines, lines, &made.line_count));
	made.kind = kind_of(type, location->mapping != OTLP_NONE, made.line_count > 0);
	if (made.kind == PROFILE_FRAME_INTERPRETED && made.line_count == 0) {
		TRY(name_after_type(in, type->label.value, location->address, &lines[0]));
		made.line_count = 1;
	}
	/* Agents of 1.7 gave interpreted frames mappings with made-up IDs. */
	if (location->mapping != OTLP_NONE && made.kind != PROFILE_FRAME_INTERPRETED)
		TRY(take_mapping(in, location->mapping, &made.mapping));
	return samples_batch_location(in->batch, &made, ret);
}

static struct err *take_location(struct otlp_intake *in, uint32_t index)
{
	struct otlp_location location;
	uint32_t number;

	if (index >= in->request->tables[OTLP_LOCATIONS].count)
		return err_new(ERR_FORMAT, "location %" PRIu32 " of %" PRIu32, index,
			in->request->tables[OTLP_LOCATIONS].count);
	if (!otlp_location(in->request, index, &location))
		return err_new(ERR_FORMAT, "location %" PRIu32 " is malformed", index);
	TRY(err_wrap(make_location(in, &location, &number), "location %" PRIu32, index));
	in->locations[index] = number + 1;
	return NULL;
}

/* Dictionary indices of locations, in place, into the batch's numbers. */
static struct err *take_locations(struct otlp_intake *in, uint32_t *stack, uint32_t depth)
{
	uint32_t count = in->request->tables[OTLP_LOCATIONS].count;

	for (uint32_t i = 0; i < depth; i++) {
		if (stack[i] >= count || !in->locations[stack[i]])
			TRY(take_location(in, stack[i]));
		stack[i] = in->locations[stack[i]] - 1;
	}
	return NULL;
}

/* Deeper stacks keep the frames next to the leaf. */
static struct err *make_stack(struct otlp_intake *in, struct wire_repeated locations, uint32_t *ret)
{
	uint32_t depth = (uint32_t)wire_repeated_read(&locations, in->stack, PROFILE_MAX_DEPTH);

	if (wire_repeated_failed(&locations))
		return err_new(ERR_FORMAT, "its location_indices are malformed");
	TRY(take_locations(in, in->stack, depth));
	return samples_batch_trace(in->batch, in->stack, depth, ret);
}

static struct err *take_stack(struct otlp_intake *in, uint32_t index, uint32_t *ret)
{
	struct wire_repeated locations;

	if (index < in->request->tables[OTLP_STACKS].count && in->stacks[index]) {
		*ret = in->stacks[index] - 1;
		return NULL;
	}
	/* Index 0 is the empty stack, in a dictionary without stacks too. */
	if (!otlp_stack(in->request, index, &locations)) {
		if (index)
			return err_new(ERR_FORMAT, "stack %" PRIu32 " of %" PRIu32, index,
				in->request->tables[OTLP_STACKS].count);
		return samples_batch_trace(in->batch, in->stack, 0, ret);
	}
	TRY(err_wrap(make_stack(in, locations, ret), "stack %" PRIu32, index));
	in->stacks[index] = *ret + 1;
	return NULL;
}

/* 1.7: locations [first, first + count) of the profile's list. */
static struct err *take_range(struct otlp_intake *in, const struct otlp_sample *sample, uint32_t *ret)
{
	const uint32_t *indices = (const uint32_t *)in->location_indices.data;
	size_t listed = in->location_indices.len / sizeof(*indices);
	uint32_t depth = 0;

	if (sample->locations_first > listed || sample->locations > listed - sample->locations_first)
		return err_new(ERR_FORMAT, "locations %" PRIu32 " to %" PRIu64 " of %zu", sample->locations_first,
			(uint64_t)sample->locations_first + sample->locations, listed);
	for (; depth < PROFILE_MAX_DEPTH && depth < sample->locations; depth++)
		in->stack[depth] = indices[sample->locations_first + depth];
	TRY(take_locations(in, in->stack, depth));
	return samples_batch_trace(in->batch, in->stack, depth, ret);
}

struct err *otlp_intake_trace(struct otlp_intake *in, const struct otlp_sample *sample, uint32_t *ret)
{
	return in->request->layout == OTLP_1_7 ? take_range(in, sample, ret) : take_stack(in, sample->stack, ret);
}

struct err *otlp_intake_link(struct otlp_intake *in, uint32_t link, uint32_t *ret)
{
	static const uint8_t none[16];
	struct wire_span trace_id, span_id;

	if (link >= in->request->tables[OTLP_LINKS].count)
		return err_new(ERR_FORMAT, "link %" PRIu32 " of %" PRIu32, link,
			in->request->tables[OTLP_LINKS].count);
	if (in->links[link]) {
		*ret = in->links[link] - 1;
		return NULL;
	}
	if (!otlp_link(in->request, link, &trace_id, &span_id))
		return err_new(ERR_FORMAT, "link %" PRIu32 " is malformed", link);
	*ret = 0;
	if (trace_id.len || span_id.len)
		TRY(samples_batch_link(in->batch, trace_id.len ? trace_id.bytes : none,
			span_id.len ? span_id.bytes : none, ret));
	in->links[link] = *ret + 1;
	return NULL;
}

// SPDX-License-Identifier: Apache-2.0
#include "profiles/otlp.h"

enum {
	DICTIONARY_FIELD = 2,
	RESOURCE_PROFILES_FIELD = 1,
};

/* Which table a dictionary field fills; field 7 is attribute units up to 1.7 and stacks from then
 * on. */
static enum otlp_table_name table_of_field(uint32_t number)
{
	static const enum otlp_table_name names[] = {
		[1] = OTLP_MAPPINGS,
		[2] = OTLP_LOCATIONS,
		[3] = OTLP_FUNCTIONS,
		[4] = OTLP_LINKS,
		[5] = OTLP_STRINGS,
		[6] = OTLP_ATTRIBUTES,
		[7] = OTLP_STACKS,
	};
	return number >= 1 && number < ARRAY_SIZE(names) ? names[number] : OTLP_TABLES;
}

static struct err *count_elements(struct reader r, uint32_t counts[OTLP_TABLES])
{
	struct wire_field field;

	while (wire_next(&r, &field)) {
		enum otlp_table_name name = table_of_field(field.number);
		if (name != OTLP_TABLES && field.type == WIRE_LEN)
			counts[name]++;
	}
	return r.failed ? reader_error(&r, "the dictionary is malformed") : NULL;
}

static void note_elements(const struct otlp_request *request, struct reader r,
	struct otlp_element *items[OTLP_TABLES], uint32_t counts[OTLP_TABLES])
{
	struct wire_field field;

	while (wire_next(&r, &field)) {
		enum otlp_table_name name = table_of_field(field.number);
		if (name == OTLP_TABLES || field.type != WIRE_LEN)
			continue;
		/* An empty element may carry no pointer into the message. */
		uint32_t off = field.bytes.len
				       ? (uint32_t)(field.bytes.bytes - request->message.bytes)
				       : 0;
		items[name][counts[name]++] = (struct otlp_element){off, (uint32_t)field.bytes.len};
	}
}

static struct err *open_dictionary(struct otlp_request *request, const struct wire_span *parts,
	size_t part_count, struct arena *arena)
{
	uint32_t counts[OTLP_TABLES] = {0}, filled[OTLP_TABLES] = {0};
	struct otlp_element *items[OTLP_TABLES];

	for (size_t i = 0; i < part_count; i++)
		TRY(count_elements(wire_reader(parts[i], "dictionary"), counts));
	for (unsigned t = 0; t < OTLP_TABLES; t++) {
		if (counts[t] > OTLP_ELEMENTS_MAX)
			return err_new(ERR_LIMIT, "a dictionary table with %u elements, %d at most",
				counts[t], OTLP_ELEMENTS_MAX);
		items[t] = arena_alloc(arena, sizeof(**items) * ((size_t)counts[t] + 1));
		if (!items[t])
			return err_nomem();
	}
	for (size_t i = 0; i < part_count; i++)
		note_elements(request, wire_reader(parts[i], "dictionary"), items, filled);
	for (unsigned t = 0; t < OTLP_TABLES; t++)
		request->tables[t] = (struct otlp_table){items[t], filled[t]};
	return NULL;
}

/* proto3 merges a message field that occurs twice; more pieces than this nobody sends. */
enum { DICTIONARY_PARTS_MAX = 16 };

struct err *otlp_open(struct wire_span message, struct arena *arena, struct otlp_request *ret)
{
	struct otlp_request request = {.message = message};
	struct wire_span parts[DICTIONARY_PARTS_MAX];
	size_t part_count = 0;
	bool has_profiles = false;
	struct reader r = wire_reader(message, "profiles request");
	struct wire_field field;

	if (message.len > UINT32_MAX)
		return err_new(ERR_LIMIT, "profiles request of %zu bytes", message.len);
	while (wire_next(&r, &field)) {
		has_profiles |= field.number == RESOURCE_PROFILES_FIELD;
		if (field.number != DICTIONARY_FIELD || field.type != WIRE_LEN)
			continue;
		if (part_count == DICTIONARY_PARTS_MAX)
			return err_new(ERR_LIMIT,
				"profiles request: a dictionary in more than %d pieces",
				DICTIONARY_PARTS_MAX);
		parts[part_count++] = field.bytes;
	}
	if (r.failed)
		return reader_error(&r, "not a protobuf message");
	if (has_profiles && part_count == 0)
		return err_new(ERR_UNSUPPORTED, "profiles request without a dictionary: OTLP "
						"profiles 1.6 and older are not supported");
	TRY(open_dictionary(&request, parts, part_count, arena));
	request.layout = otlp_detect_layout(&request);
	if (request.layout == OTLP_1_7) {
		request.tables[OTLP_ATTRIBUTE_UNITS] = request.tables[OTLP_STACKS];
		request.tables[OTLP_STACKS] = (struct otlp_table){0};
	}
	*ret = request;
	return NULL;
}

static void parse_value_type(struct wire_span body, struct otlp_value_type *ret)
{
	struct reader r = wire_reader(body, NULL);
	struct wire_field field;

	while (wire_next(&r, &field)) {
		if (field.number == 1)
			ret->type = (uint32_t)wire_u64(&field);
		else if (field.number == 2)
			ret->unit = (uint32_t)wire_u64(&field);
	}
}

/* What a profile's field means in one layout. */
enum profile_member {
	MEMBER_OTHER,
	MEMBER_SAMPLE_TYPE,
	MEMBER_TIME,
	MEMBER_DURATION,
	MEMBER_PERIOD_TYPE,
	MEMBER_PERIOD,
	MEMBER_PROFILE_ID,
};

static enum profile_member member_of(enum otlp_layout layout, uint32_t number)
{
	static const uint8_t members[][16] = {
		[OTLP_1_7] = {[1] = MEMBER_SAMPLE_TYPE,
			[4] = MEMBER_TIME,
			[5] = MEMBER_DURATION,
			[6] = MEMBER_PERIOD_TYPE,
			[7] = MEMBER_PERIOD,
			[10] = MEMBER_PROFILE_ID},
		[OTLP_1_8] = {[1] = MEMBER_SAMPLE_TYPE,
			[3] = MEMBER_TIME,
			[4] = MEMBER_DURATION,
			[5] = MEMBER_PERIOD_TYPE,
			[6] = MEMBER_PERIOD,
			[8] = MEMBER_PROFILE_ID},
		[OTLP_1_9] = {[1] = MEMBER_SAMPLE_TYPE,
			[3] = MEMBER_TIME,
			[4] = MEMBER_DURATION,
			[5] = MEMBER_PERIOD_TYPE,
			[6] = MEMBER_PERIOD,
			[7] = MEMBER_PROFILE_ID},
		[OTLP_1_10] = {[1] = MEMBER_SAMPLE_TYPE,
			[3] = MEMBER_TIME,
			[4] = MEMBER_DURATION,
			[5] = MEMBER_PERIOD_TYPE,
			[6] = MEMBER_PERIOD,
			[7] = MEMBER_PROFILE_ID},
	};
	return number < ARRAY_SIZE(members[0]) ? (enum profile_member)members[layout][number]
					       : MEMBER_OTHER;
}

static const uint32_t profile_attributes_field[] = {
	[OTLP_1_7] = 14, [OTLP_1_8] = 12, [OTLP_1_9] = 11, [OTLP_1_10] = 11};

static const char *parse_profile(
	enum otlp_layout layout, struct wire_span body, struct otlp_profile *ret)
{
	struct reader r = wire_reader(body, NULL);
	struct wire_field field;

	ret->body = body;
	ret->attributes = wire_repeated_init(body, profile_attributes_field[layout], false);
	ret->location_indices = wire_repeated_init(body, 3, false);
	while (wire_next(&r, &field)) {
		switch (member_of(layout, field.number)) {
		case MEMBER_SAMPLE_TYPE:
			if (ret->sample_types++ == 0)
				parse_value_type(wire_bytes(&field), &ret->sample_type);
			break;
		case MEMBER_TIME:
			ret->time_unix_nano = wire_u64(&field);
			break;
		case MEMBER_DURATION:
			ret->duration_nano = wire_u64(&field);
			break;
		case MEMBER_PERIOD_TYPE:
			parse_value_type(wire_bytes(&field), &ret->period_type);
			break;
		case MEMBER_PERIOD:
			ret->period = (int64_t)wire_u64(&field);
			break;
		case MEMBER_PROFILE_ID:
			ret->profile_id = wire_bytes(&field);
			break;
		case MEMBER_OTHER:
			break;
		}
	}
	return r.failed ? "the profile is not a protobuf message" : NULL;
}

bool otlp_next_sample_type(struct reader *types, struct otlp_value_type *ret)
{
	struct wire_field field;

	while (wire_next(types, &field)) {
		if (field.number != 1 || field.type != WIRE_LEN)
			continue;
		*ret = (struct otlp_value_type){0};
		parse_value_type(field.bytes, ret);
		return true;
	}
	return false;
}

/* Descends one level: the next element of field 2 in @p r; field 1 (resource, scope) is remembered
 * in @p head. */
static bool next_child(struct reader *r, struct wire_span *head, struct wire_span *ret)
{
	struct wire_field field;

	while (wire_next(r, &field)) {
		if (field.number == 1 && head)
			*head = wire_bytes(&field);
		if (field.number == 2 && field.type == WIRE_LEN) {
			*ret = field.bytes;
			return true;
		}
	}
	return false;
}

/* Resource and scope may stand behind their profiles on the wire: look ahead for field 1. */
static struct wire_span find_head(struct wire_span body)
{
	struct reader r = wire_reader(body, NULL);
	struct wire_field field;
	struct wire_span head = {0};

	while (wire_next(&r, &field))
		if (field.number == 1)
			head = wire_bytes(&field);
	return head;
}

bool otlp_next_profile(struct otlp_cursor *cursor, struct otlp_profile *ret, const char **fault_ret)
{
	struct wire_field field;
	struct wire_span body;

	if (cursor->depth == 0) {
		cursor->message = wire_reader(cursor->request->message, NULL);
		cursor->depth = 1;
	}
	for (;;) {
		if (cursor->depth == 3 && next_child(&cursor->scope_profiles, NULL, &body))
			break;
		if (cursor->depth >= 2 && next_child(&cursor->resource_profiles, NULL, &body)) {
			cursor->malformed |= cursor->scope_profiles.failed;
			cursor->scope = find_head(body);
			cursor->scope_profiles = wire_reader(body, NULL);
			cursor->depth = 3;
			continue;
		}
		cursor->malformed |=
			cursor->scope_profiles.failed || cursor->resource_profiles.failed;
		if (!wire_next(&cursor->message, &field))
			return false;
		if (field.number != RESOURCE_PROFILES_FIELD || field.type != WIRE_LEN)
			continue;
		cursor->resource = find_head(field.bytes);
		cursor->resource_profiles = wire_reader(field.bytes, NULL);
		cursor->scope_profiles = (struct reader){0};
		cursor->depth = 2;
	}
	*ret = (struct otlp_profile){.resource = cursor->resource, .scope = cursor->scope};
	*fault_ret = parse_profile(cursor->request->layout, body, ret);
	return true;
}

/* Field numbers of a Sample; 1.10 moved values from 2 to 4, attribute_indices from 3 to 2,
 * link_index from 4 to 3. */
struct sample_fields {
	uint32_t values, attributes, link, timestamps;
};

static const struct sample_fields sample_fields[] = {
	[OTLP_1_7] = {.values = 3, .attributes = 4, .link = 5, .timestamps = 6},
	[OTLP_1_8] = {.values = 2, .attributes = 3, .link = 4, .timestamps = 5},
	[OTLP_1_9] = {.values = 2, .attributes = 3, .link = 4, .timestamps = 5},
	[OTLP_1_10] = {.values = 4, .attributes = 2, .link = 3, .timestamps = 5},
};

/* Before 1.8 such members had presence, and index 0 was an element like others; from then on 0
 * means "not set". */
static uint32_t optional_index(enum otlp_layout layout, const struct wire_field *field)
{
	uint32_t index = (uint32_t)wire_u64(field);

	return index == 0 && layout != OTLP_1_7 ? OTLP_NONE : index;
}

static bool parse_sample(enum otlp_layout layout, struct wire_span body, struct otlp_sample *ret)
{
	const struct sample_fields *fields = &sample_fields[layout];
	struct reader r = wire_reader(body, NULL);
	struct wire_field field;

	*ret = (struct otlp_sample){
		.link = OTLP_NONE,
		.attributes = wire_repeated_none(fields->attributes, false),
		.values = wire_repeated_none(fields->values, false),
		.timestamps = wire_repeated_none(fields->timestamps, layout != OTLP_1_7),
	};
	while (wire_next(&r, &field)) {
		if (field.number == 1)
			ret->stack = ret->locations_first = (uint32_t)wire_u64(&field);
		else if (field.number == fields->timestamps)
			wire_repeated_meet(&ret->timestamps, body, &field);
		else if (field.number == fields->attributes)
			wire_repeated_meet(&ret->attributes, body, &field);
		else if (field.number == fields->values)
			wire_repeated_meet(&ret->values, body, &field);
		else if (field.number == fields->link)
			ret->link = optional_index(layout, &field);
		else if (field.number == 2 && layout == OTLP_1_7)
			ret->locations = (uint32_t)wire_u64(&field);
	}
	return !r.failed;
}

bool otlp_next_sample(
	const struct otlp_request *request, struct reader *samples, struct otlp_sample *ret)
{
	struct wire_field field;

	do {
		if (!wire_next(samples, &field))
			return false;
	} while (field.number != 2 || field.type != WIRE_LEN);
	if (!parse_sample(request->layout, field.bytes, ret))
		reader_fail(samples);
	return !samples->failed;
}

static bool element(const struct otlp_request *request, enum otlp_table_name name, uint64_t index,
	struct wire_span *ret)
{
	const struct otlp_table *table = &request->tables[name];

	if (index >= table->count)
		return false;
	*ret = (struct wire_span){
		request->message.bytes + table->items[index].off, table->items[index].len};
	return true;
}

static struct otlp_text text_of(struct wire_span span)
{
	return (struct otlp_text){span.len ? (const char *)span.bytes : "", span.len};
}

bool otlp_string(const struct otlp_request *request, uint64_t index, struct otlp_text *ret)
{
	struct wire_span span;

	if (!element(request, OTLP_STRINGS, index, &span))
		return false;
	*ret = text_of(span);
	return true;
}

static bool parse_any_value(
	const struct otlp_request *request, struct wire_span body, struct otlp_attribute *ret)
{
	struct reader r = wire_reader(body, NULL);
	struct wire_field field;

	while (wire_next(&r, &field)) {
		switch (field.number) {
		case 1:
			ret->kind = OTLP_VALUE_TEXT;
			ret->text = text_of(wire_bytes(&field));
			break;
		case 2:
			ret->kind = OTLP_VALUE_BOOL;
			ret->number = wire_u64(&field) != 0;
			break;
		case 3:
			ret->kind = OTLP_VALUE_INT;
			ret->number = (int64_t)wire_u64(&field);
			break;
		case 4:
			ret->kind = OTLP_VALUE_DOUBLE;
			memcpy(&ret->real, &field.value, sizeof(ret->real));
			break;
		case 7:
			ret->kind = OTLP_VALUE_BYTES;
			ret->text = text_of(wire_bytes(&field));
			break;
		case 8:
			ret->kind = OTLP_VALUE_TEXT;
			if (!otlp_string(request, wire_u64(&field), &ret->text))
				return false;
			break;
		default:
			ret->kind = OTLP_VALUE_OTHER;
			break;
		}
	}
	return !r.failed;
}

/* KeyValue {1 key, 2 value, 3 key_strindex} and KeyValueAndUnit {1 key_strindex, 2 value, 3
 * unit_strindex}. */
static bool parse_attribute(const struct otlp_request *request, struct wire_span body,
	bool key_value, struct otlp_attribute *ret)
{
	struct reader r = wire_reader(body, NULL);
	struct wire_field field;

	*ret = (struct otlp_attribute){.key = {"", 0}, .text = {"", 0}};
	while (wire_next(&r, &field)) {
		bool strindex = field.number == (key_value ? 3u : 1u);
		if (key_value && field.number == 1)
			ret->key = text_of(wire_bytes(&field));
		else if (strindex && !otlp_string(request, wire_u64(&field), &ret->key))
			return false;
		else if (field.number == 2 && !parse_any_value(request, wire_bytes(&field), ret))
			return false;
	}
	return !r.failed;
}

bool otlp_attribute(const struct otlp_request *request, uint64_t index, struct otlp_attribute *ret)
{
	struct wire_span body;

	return element(request, OTLP_ATTRIBUTES, index, &body) &&
	       parse_attribute(request, body, request->layout == OTLP_1_7, ret);
}

bool otlp_next_resource_attribute(
	const struct otlp_request *request, struct reader *attributes, struct otlp_attribute *ret)
{
	struct wire_field field;

	while (wire_next(attributes, &field)) {
		if (field.number != 1)
			continue;
		if (parse_attribute(request, wire_bytes(&field), true, ret))
			return true;
		reader_fail(attributes);
	}
	return false;
}

bool otlp_mapping(const struct otlp_request *request, uint64_t index, struct otlp_mapping *ret)
{
	struct wire_span body;
	struct wire_field field;

	if (!element(request, OTLP_MAPPINGS, index, &body))
		return false;
	struct reader r = wire_reader(body, NULL);

	*ret = (struct otlp_mapping){.attributes = wire_repeated_init(body, 5, false)};
	while (wire_next(&r, &field)) {
		switch (field.number) {
		case 1:
			ret->memory_start = wire_u64(&field);
			break;
		case 2:
			ret->memory_limit = wire_u64(&field);
			break;
		case 3:
			ret->file_offset = wire_u64(&field);
			break;
		case 4:
			ret->filename = (uint32_t)wire_u64(&field);
			break;
		default:
			break;
		}
	}
	return !r.failed;
}

bool otlp_location(const struct otlp_request *request, uint64_t index, struct otlp_location *ret)
{
	/* 1.7 has is_folded in 4 and the attributes in 5. */
	const uint32_t attributes = request->layout == OTLP_1_7 ? 5 : 4;
	struct wire_span body;
	struct wire_field field;

	if (!element(request, OTLP_LOCATIONS, index, &body))
		return false;
	struct reader r = wire_reader(body, NULL);

	*ret = (struct otlp_location){
		.mapping = OTLP_NONE, .attributes = wire_repeated_none(attributes, false)};
	for (const uint8_t *at = r.pos; wire_next(&r, &field); at = r.pos) {
		if (field.number == 1)
			ret->mapping = optional_index(request->layout, &field);
		else if (field.number == 2)
			ret->address = wire_u64(&field);
		else if (field.number == attributes)
			wire_repeated_meet(&ret->attributes, body, &field);
		else if (field.number == 3 && !ret->lines.len)
			ret->lines = (struct wire_span){at, (size_t)(r.end - at)};
	}
	return !r.failed;
}

bool otlp_next_line(struct reader *lines, struct otlp_line *ret)
{
	struct wire_field field;

	while (wire_next(lines, &field)) {
		if (field.number != 3 || field.type != WIRE_LEN)
			continue;
		struct reader r = wire_reader(field.bytes, NULL);
		*ret = (struct otlp_line){0};
		while (wire_next(&r, &field)) {
			if (field.number == 1)
				ret->function = (uint32_t)wire_u64(&field);
			else if (field.number == 2)
				ret->line = (int64_t)wire_u64(&field);
			else if (field.number == 3)
				ret->column = (int64_t)wire_u64(&field);
		}
		if (r.failed)
			reader_fail(lines);
		return !r.failed;
	}
	return false;
}

bool otlp_function(const struct otlp_request *request, uint64_t index, struct otlp_function *ret)
{
	struct wire_span body;
	struct wire_field field;

	if (!element(request, OTLP_FUNCTIONS, index, &body))
		return false;
	struct reader r = wire_reader(body, NULL);

	*ret = (struct otlp_function){0};
	while (wire_next(&r, &field)) {
		switch (field.number) {
		case 1:
			ret->name = (uint32_t)wire_u64(&field);
			break;
		case 2:
			ret->system_name = (uint32_t)wire_u64(&field);
			break;
		case 3:
			ret->filename = (uint32_t)wire_u64(&field);
			break;
		case 4:
			ret->start_line = (int64_t)wire_u64(&field);
			break;
		default:
			break;
		}
	}
	return !r.failed;
}

bool otlp_link(const struct otlp_request *request, uint64_t index, struct wire_span *trace_id_ret,
	struct wire_span *span_id_ret)
{
	struct wire_span body, trace_id = {0}, span_id = {0};
	struct wire_field field;

	if (!element(request, OTLP_LINKS, index, &body))
		return false;
	struct reader r = wire_reader(body, NULL);

	while (wire_next(&r, &field)) {
		if (field.number == 1)
			trace_id = wire_bytes(&field);
		else if (field.number == 2)
			span_id = wire_bytes(&field);
	}
	if (r.failed || (trace_id.len != 16 && trace_id.len != 0) ||
		(span_id.len != 8 && span_id.len != 0))
		return false;
	*trace_id_ret = trace_id;
	*span_id_ret = span_id;
	return true;
}

bool otlp_stack(const struct otlp_request *request, uint64_t index, struct wire_repeated *ret)
{
	struct wire_span body;

	if (!element(request, OTLP_STACKS, index, &body))
		return false;
	*ret = wire_repeated_init(body, 1, false);
	return true;
}

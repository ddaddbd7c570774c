// SPDX-License-Identifier: Apache-2.0
/*
 * An OTLP request of 1.10 from standard input as nanopb reads it, in the words of otlp_dump.c: the
 * second opinion on profiles/otlp.c. Indices are not checked: tests give it sound messages only.
 */
#include "v1_10.pb.h"

#include <inttypes.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define M(name) cairn_otlp_v1_10_##name

static const M(Dictionary) * dictionary;

static int32_t i32(const int32_t *value)
{
	return value ? *value : 0;
}

static const char *string(const int32_t *index)
{
	return (uint32_t)i32(index) < dictionary->string_table_count
		       ? dictionary->string_table[i32(index)]
		       : "?";
}

static void put_any(const M(AnyValue) * value)
{
	switch (value ? value->which_value : 0) {
	case M(AnyValue_string_value_tag):
		printf("%s", value->value.string_value);
		break;
	case M(AnyValue_bool_value_tag):
		printf("%s", *value->value.bool_value ? "true" : "false");
		break;
	case M(AnyValue_int_value_tag):
		printf("%" PRId64, *value->value.int_value);
		break;
	case M(AnyValue_double_value_tag):
		printf("%g", *value->value.double_value);
		break;
	case M(AnyValue_bytes_value_tag):
		for (size_t i = 0; i < value->value.bytes_value->size; i++)
			printf("%02x", value->value.bytes_value->bytes[i]);
		break;
	case M(AnyValue_string_value_strindex_tag):
		printf("%s", string(value->value.string_value_strindex));
		break;
	default:
		break;
	}
	printf("\n");
}

static void put_attributes(const char *head, const int32_t *indices, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const M(KeyValueAndUnit) *attribute = &dictionary->attribute_table[indices[i]];
		printf("%s %s=", head, string(attribute->key_strindex));
		put_any(attribute->value);
	}
}

static void put_location(int32_t index)
{
	const M(Location) *location = &dictionary->location_table[index];

	printf("location 0x%" PRIx64 "\n", location->address ? *location->address : 0);
	put_attributes("location attribute", location->attribute_indices,
		location->attribute_indices_count);
	if (i32(location->mapping_index)) {
		const M(Mapping) *mapping =
			&dictionary->mapping_table[i32(location->mapping_index)];
		printf("mapping 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " %s\n",
			mapping->memory_start ? *mapping->memory_start : 0,
			mapping->memory_limit ? *mapping->memory_limit : 0,
			mapping->file_offset ? *mapping->file_offset : 0,
			string(mapping->filename_strindex));
		put_attributes("mapping attribute", mapping->attribute_indices,
			mapping->attribute_indices_count);
	}
	for (size_t i = 0; i < location->lines_count; i++) {
		const M(Line) *line = &location->lines[i];
		const M(Function) *function =
			&dictionary->function_table[i32(line->function_index)];
		printf("line %" PRId64 ":%" PRId64 " %s %s %s %" PRId64 "\n",
			line->line ? *line->line : 0, line->column ? *line->column : 0,
			string(function->name_strindex), string(function->system_name_strindex),
			string(function->filename_strindex),
			function->start_line ? *function->start_line : 0);
	}
}

static void put_hex(const pb_bytes_array_t *bytes)
{
	for (size_t i = 0; bytes && i < bytes->size; i++)
		printf("%02x", bytes->bytes[i]);
}

static void put_sample(const M(Sample) * sample)
{
	const M(Stack) *stack = &dictionary->stack_table[i32(sample->stack_index)];

	printf("sample\n");
	for (size_t i = 0; i < stack->location_indices_count; i++)
		put_location(stack->location_indices[i]);
	put_attributes(
		"sample attribute", sample->attribute_indices, sample->attribute_indices_count);
	if (i32(sample->link_index)) {
		const M(Link) *link = &dictionary->link_table[i32(sample->link_index)];
		printf("link ");
		put_hex(link->trace_id);
		printf(" ");
		put_hex(link->span_id);
		printf("\n");
	}
	printf("values");
	for (size_t i = 0; i < sample->values_count; i++)
		printf(" %" PRId64, sample->values[i]);
	printf("\ntimestamps");
	for (size_t i = 0; i < sample->timestamps_unix_nano_count; i++)
		printf(" %" PRIu64, sample->timestamps_unix_nano[i]);
	printf("\n");
}

static void put_profile(const M(Resource) * resource, const M(Profile) * profile)
{
	static const M(ValueType) none;
	const M(ValueType) *type = profile->sample_type ? profile->sample_type : &none;
	const M(ValueType) *period = profile->period_type ? profile->period_type : &none;

	printf("profile %s %s %s %s %" PRId64 " %" PRIu64 " %" PRIu64 " ",
		string(type->type_strindex), string(type->unit_strindex),
		string(period->type_strindex), string(period->unit_strindex),
		profile->period ? *profile->period : 0,
		profile->time_unix_nano ? *profile->time_unix_nano : 0,
		profile->duration_nano ? *profile->duration_nano : 0);
	put_hex(profile->profile_id);
	printf("\n");
	for (size_t i = 0; resource && i < resource->attributes_count; i++) {
		const M(KeyValue) *attribute = &resource->attributes[i];
		printf("resource %s=", i32(attribute->key_strindex)
					       ? string(attribute->key_strindex)
				       : attribute->key ? attribute->key
							: "");
		put_any(attribute->value);
	}
	put_attributes(
		"profile attribute", profile->attribute_indices, profile->attribute_indices_count);
	for (size_t i = 0; i < profile->samples_count; i++)
		put_sample(&profile->samples[i]);
}

int main(void)
{
	static uint8_t message[1 << 20];
	M(ExportRequest) request = M(ExportRequest_init_zero);
	pb_istream_t stream =
		pb_istream_from_buffer(message, fread(message, 1, sizeof(message), stdin));

	if (!pb_decode(&stream, M(ExportRequest_fields), &request)) {
		printf("refused: %s\n", PB_GET_ERROR(&stream));
		return 1;
	}
	static const M(Dictionary) empty;
	dictionary = request.dictionary ? request.dictionary : &empty;
	printf("layout 1.10\n");
	for (size_t r = 0; r < request.resource_profiles_count; r++) {
		const M(ResourceProfiles) *resource = &request.resource_profiles[r];
		for (size_t s = 0; s < resource->scope_profiles_count; s++)
			for (size_t p = 0; p < resource->scope_profiles[s].profiles_count; p++)
				put_profile(resource->resource,
					&resource->scope_profiles[s].profiles[p]);
	}
	pb_release(M(ExportRequest_fields), &request);
	return 0;
}
